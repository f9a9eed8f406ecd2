"""Messages: bodies, sections, encoding, settling and copies, as uamqp has them and where it was wrong."""

from __future__ import annotations

import copy
import enum
import gc
import pickle
import sys
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uamqp_cffi import c_uamqp, errors, types
from uamqp_cffi._core.engine import decode, sections, values
from uamqp_cffi._core.engine.types import Described, Symbol
from uamqp_cffi.constants import Delivery, MessageBodyType, MessageState
from uamqp_cffi.message import DataBody, Message, MessageHeader, MessageProperties, SequenceBody, ValueBody

Data, Sequence, Value = MessageBodyType.Data, MessageBodyType.Sequence, MessageBodyType.Value
_ID = UUID(int=7)


def encoded(body: Any = b"", **given: Any) -> str:
    return Message(body, **given).encode_message().hex()


def decoded(message: Message) -> Message:
    return Message.decode_from_bytes(message.encode_message())


# ---- bodies -----------------------------------------------------------------------------------------------------------


# These bytes are what uamqp 1.6.11 writes.
@pytest.mark.parametrize(
    ("body", "body_type", "expected"),
    [
        (b"x", None, "005375a00178"),
        (b"", None, "005375a000"),
        ("é", None, "005375a002c3a9"),
        ([b"a", "b"], None, "005375a00161005375a00162"),
        ([1, 2], None, "005377c0050254015402"),
        ([b"a", 1], None, "005377c00602a101615401"),
        (None, None, "00537740"),
        (5, None, "0053775405"),
        ({"a": 1}, None, "005377c10602a101615401"),
        ({}, None, "005377c10100"),
        ((1, 2), None, "005377c0050254015402"),
        (bytearray(b"a"), None, "005377a00161"),
        ([[1], [2]], None, "005377c00b02c003015401c003015402"),
        ([[1], [2]], Sequence, "005376c003015401005376c003015402"),
        ([1, 2], Sequence, "005376c0050254015402"),
        ([1, [2]], Sequence, "005376c008025401c003015402"),
        ("a", Value, "005377a10161"),
        ("a", Data, "005375a00161"),
        (c_uamqp.float_value(1.5), None, "005377723fc00000"),
        (types.AMQPDescribed("d", 4), None, "00537700a101645404"),
        (types.AMQPArray([1, 2]), None, "005377e00a02710000000100000002"),
        (types.AMQPArray(["a", "b"]), None, "005377e00c02b1000000016100000001" + "62"),
        (types.AMQPArray([types.AMQPSymbol("a")]), None, "005377e00701b30000000161"),
        (types.AMQPArray([[1], [2]]), None, "005377e01602d000000006000000015401000000060000000154" + "02"),
        (types.AMQPArray([types.AMQPArray([1])]), None, "005377e00f01f000000009000000017100000001"),
    ],
)
def test_a_body_has_the_bytes_that_uamqp_gave_it(body: Any, body_type: Any, expected: str) -> None:
    assert encoded(body, body_type=body_type) == expected


def test_the_size_of_an_array_of_narrow_items_is_right() -> None:
    # uamqp 1.6.11 writes a size one byte too small here
    assert encoded(types.AMQPArray([True, False])) == "005377e0040256" + "0100"
    assert encoded(types.AMQPArray([None, None])) == "005377e0020240"


def test_an_empty_list_is_one_empty_section() -> None:
    assert encoded([]) == encoded([], body_type=Data) == "005375a000"
    assert encoded([], body_type=Sequence) == "00537645"


def test_a_body_longer_than_255_bytes_takes_the_wide_form() -> None:
    assert encoded(b"x" * 256).startswith("005375b000000100")
    assert encoded([b"x" * 256]).startswith("005375b000000100")
    assert encoded(b"x" * 256, header=MessageHeader()).startswith("005370c0060540404040" + "43005375b000000100")


def test_a_str_body_is_utf8_whatever_the_encoding() -> None:
    assert encoded("é", encoding="latin-1") == "005375a002c3a9"


@pytest.mark.parametrize("body", [5, None, [b"x", 5], {"a": 1}])
def test_a_data_body_takes_only_text(body: Any) -> None:
    with pytest.raises(TypeError, match="Data"):
        Message(body, body_type=Data)


def test_a_sequence_body_takes_only_lists() -> None:
    with pytest.raises(TypeError, match="Sequence"):
        Message(b"a", body_type=Sequence)


def test_a_body_type_that_is_none_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="3"):
        Message(b"a", body_type=3)  # type: ignore[arg-type]


def test_a_body_without_amqp_type_is_named() -> None:
    with pytest.raises(TypeError, match="message body.*complex"):
        Message(1j)


def test_readers_give_what_the_kind_of_body_has() -> None:
    data, sequence, value = Message([b"a", "b"]), Message([[1], ["c"]], body_type=Sequence), Message({"a": 1})
    assert list(data.get_data()) == list(data.data or ()) == [b"a", b"b"]
    assert (data.sequence, data.value) == (None, None)
    assert list(sequence.get_data()) == list(sequence.sequence or ()) == [[1], [b"c"]]
    assert (sequence.data, sequence.value) == (None, None)
    assert value.get_data() == value.value == {b"a": 1}
    assert (value.data, value.sequence) == (None, None)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message(b"x"), "x"),
        (Message(["a", b"b"]), "ab"),
        (Message([["a"], ["b", 1]], body_type=Sequence), "ab1"),
        (Message(5), "5"),
        (Message(0), ""),
        (Message(), ""),
        (Message("x", body_type=Value), "x"),
        (Message({"a": 1}), "{b'a': 1}"),
        (Message(b"\xff"), "\\xff"),
        (Message.decode_from_bytes(bytes.fromhex("00537045")), "None"),
    ],
)
def test_the_text_of_a_message_is_that_of_its_body(message: Message, text: str) -> None:
    assert str(message) == text


def test_body_objects_say_their_type_and_hold_their_sections() -> None:
    data = Message([b"a", b"b"])._body
    assert isinstance(data, DataBody)
    assert (data.type, len(data), data[1], bytes(data)) == (c_uamqp.MessageBodyType.DataType, 2, b"b", b"ab")
    with pytest.raises(IndexError):
        data[2]
    sequence = Message([[1], [2]], body_type=Sequence)._body
    assert isinstance(sequence, SequenceBody)
    assert (sequence.type, len(sequence), sequence[1]) == (c_uamqp.MessageBodyType.SequenceType, 2, [2])
    value = Message(bytearray(b"v"))._body
    assert isinstance(value, ValueBody)
    assert (value.type, value.data, bytes(value)) == (c_uamqp.MessageBodyType.ValueType, b"v", b"v")


def test_what_is_appended_to_a_body_is_sent() -> None:
    message = Message(b"a")
    body = message._body
    assert isinstance(body, DataBody)
    body.append("b")
    body.append(5)  # type: ignore[arg-type]  # ignored, as uamqp does
    assert message._raw is None
    assert message.encode_message().hex() == "005375a00161005375a00162"
    sequence = Message([1], body_type=Sequence)
    sequence._body.append([2])  # type: ignore[union-attr]
    assert list(sequence.get_data()) == [[1], [2]]


def test_a_value_body_can_be_set_again() -> None:
    message = Message(5)
    message._body.set({"k": b"v"})  # type: ignore[union-attr]
    assert message.value == {b"k": b"v"}


def test_a_list_changed_after_it_was_given_as_body_does_not_change_the_message() -> None:
    body = [1, 2]
    message = Message(body)
    body.append(3)
    assert message.value == [1, 2]


# ---- a message of one bytes body --------------------------------------------------------------------------------------


def test_raw_is_the_body_of_a_message_that_is_nothing_else() -> None:
    body = b"hello"
    message = Message(body)
    assert message._raw is body
    assert (message.properties, message.header, message.application_properties) == (None, None, None)
    assert (message.annotations, message.footer, message.delivery_annotations) == (None, None, None)
    assert list(message.get_data()) == [body]
    assert message._raw is body, "looking does not change that"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("properties", MessageProperties(subject="s")),
        ("header", MessageHeader()),
        ("application_properties", {"a": 1}),
        ("annotations", {"a": 1}),
        ("footer", {"a": 1}),
        ("delivery_annotations", {"a": 1}),
    ],
)
def test_a_section_set_later_is_sent_like_one_given_at_birth(name: str, value: Any) -> None:
    later = Message(b"x")
    setattr(later, name, value)
    assert later._raw is None
    assert getattr(later, name) is value
    assert later.encode_message() == Message(b"x", **{name: value}).encode_message() != Message(b"x").encode_message()
    assert Message(b"x", **{name: value})._raw is None


@pytest.mark.parametrize("given", [{"msg_format": 5}, {"body_type": Data}, {"delivery_no": 3}, {"encoding": "latin-1"}])
def test_raw_is_none_when_anything_else_is_given(given: dict[str, Any]) -> None:
    message = Message(b"x", **given)
    assert message._raw is None
    assert message.encode_message().hex() == "005375a00178"


def test_raw_is_none_for_a_subclass_of_bytes_and_for_text() -> None:
    class Body(bytes):
        pass

    assert Message(Body(b"x"))._raw is None
    assert Message("x")._raw is None
    assert encoded(Body(b"x")) == encoded("x") == encoded(b"x")


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts CPython's objects and bytes")
def test_a_queued_message_is_one_tracked_object_of_less_than_150_bytes() -> None:
    import tracemalloc  # PyPy has none

    bodies = [b"%08d" % n for n in range(20000)]
    for body in bodies[:100]:  # what other messages have must not make these larger
        other = full(body)
        other.retries, other.idle_time, other.on_send_complete = 1, 2, print
        other.delivery = Delivery.UNKNOWN
    gc.collect()
    tracemalloc.start()
    try:
        before, tracked = tracemalloc.get_traced_memory()[0], len(gc.get_objects())
        queue = [Message(body) for body in bodies]
        for message in queue:
            message.state = MessageState.SendComplete
        size, tracked = tracemalloc.get_traced_memory()[0] - before, len(gc.get_objects()) - tracked
    finally:
        tracemalloc.stop()
    assert tracked < len(bodies) * 1.01
    assert size / len(bodies) < 150


def test_a_message_takes_attributes_of_its_users() -> None:
    message = Message(b"x")
    message.tag_of_mine = 1  # type: ignore[attr-defined]
    assert message.tag_of_mine == 1  # type: ignore[attr-defined]
    assert message._raw == b"x"


# ---- sections ---------------------------------------------------------------------------------------------------------


def full(body: Any = b"b") -> Message:
    header = MessageHeader()
    header.durable = True
    return Message(
        body,
        properties=MessageProperties(message_id="a", user_id=b"u\0", subject="s"),
        application_properties={"k": "v"},
        annotations={"x": types.AMQPuLong(4)},
        header=header,
        footer={"f": 1},
        delivery_annotations={"d": 2},
    )


def test_sections_leave_in_the_order_of_the_specification() -> None:
    # uamqp 1.6.11 writes the same sections with footer and delivery-annotations in front of the body, and str keys of
    # annotations as strings.
    assert full().encode_message().hex() == (
        "005370c006054140404043"  # header
        "005371c10602a301645402"  # delivery-annotations
        "005372c10602a301785304"  # message-annotations
        "005373c00c04a10161a002750040a10173"  # properties
        "005374c10702a1016ba10176"  # application-properties
        "005375a00162"  # data
        "005378c10602a301665401"  # footer
    )


@pytest.mark.parametrize("name", ["application_properties", "annotations", "footer", "delivery_annotations"])
def test_empty_maps_are_left_out(name: str) -> None:
    assert encoded(b"x", **{name: {}}) == encoded(b"x")


def test_a_header_is_sent_with_all_five_positions() -> None:
    assert encoded(b"a", header=MessageHeader()) == "005370c006054040404043005375a00161"
    header = MessageHeader()
    header.priority, header.time_to_live, header.first_acquirer, header.durable = 9, 1000, False, False
    assert encoded(b"", header=header).startswith("005370c00b0542500970000003e84243")
    assert header.ttl == 1000


def test_empty_properties_are_an_empty_list() -> None:
    assert encoded(b"a", properties=MessageProperties()) == "00537345005375a00161"


@pytest.mark.parametrize(
    ("name", "value"),
    [("properties", 4), ("header", 4), ("application_properties", [1]), ("annotations", 4), ("footer", 4)],
)
def test_a_section_of_the_wrong_type_is_a_type_error(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name.split("_", maxsplit=1)[0]):
        setattr(Message(b"a"), name, value)
    with pytest.raises(TypeError):
        Message(b"a", **{name: value})


@pytest.mark.parametrize("name", ["properties", "header", "application_properties", "annotations", "footer"])
def test_a_section_can_be_taken_away(name: str) -> None:
    message = full()
    setattr(message, name, None)
    assert getattr(message, name) is None
    assert getattr(decoded(message), name) is None


def test_message_annotations_is_annotations() -> None:
    message = Message(b"", annotations={"a": 1})
    assert message.message_annotations is message.annotations


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("application_properties", "application-properties"),
        ("annotations", "message-annotations"),
        ("delivery_annotations", "delivery-annotations"),
        ("footer", "footer"),
    ],
)
def test_an_unsupported_value_is_named_with_section_and_key(name: str, section: str) -> None:
    message = Message(b"x", **{name: {"good": 1, "bad": 1j}})
    with pytest.raises(TypeError, match=rf"{section}.*'bad'.*complex"):
        message.encode_message()
    getattr(message, name)["bad"] = 2
    assert getattr(decoded(message), name)[b"bad"] == 2, "put right, it can be sent"


def test_a_number_that_does_not_fit_is_named_with_section_and_field() -> None:
    with pytest.raises(OverflowError, match="properties, group_sequence"):
        Message(b"", properties=MessageProperties(group_sequence=1 << 40)).encode_message()
    header = MessageHeader()
    header.priority = 256
    with pytest.raises(OverflowError, match="header.*256"):
        Message(b"", header=header).encode_message()
    with pytest.raises(OverflowError, match="application-properties.*'n'"):
        Message(b"", application_properties={"n": 1 << 64}).encode_message()


def test_maps_changed_in_place_are_sent_as_they_are_when_sent() -> None:
    properties = {"a": 1}
    message = Message(b"", application_properties=properties)
    first = message.encode_message()
    properties["a"] = 2
    assert message.encode_message() != first
    assert decoded(message).application_properties == {b"a": 2}


def test_encoding_holds_for_what_is_set_later() -> None:
    message = Message(b"", encoding="latin-1")
    message.application_properties = {"k": "é"}
    assert decoded(message).application_properties == {b"k": b"\xe9"}


def test_the_encoded_size_is_that_of_the_encoding() -> None:
    assert full().get_message_encoded_size() == len(full().encode_message())


# ---- properties -------------------------------------------------------------------------------------------------------


def test_str_properties_read_back_as_bytes_at_once() -> None:
    properties = MessageProperties("a", "b", "c", "d", "e", "f", "g", "h", 1, 2, "i", 3, "j")
    expected = [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", 1, 2, b"i", 3, b"j"]
    assert list(properties._as_dict().values()) == expected
    back = decoded(Message(b"", properties=properties)).properties
    assert back is not None
    assert list(back._as_dict().values()) == expected
    assert str(back) == str(properties) == str(properties._as_dict())


@pytest.mark.parametrize("field", ["message_id", "correlation_id"])
@pytest.mark.parametrize(
    ("value", "wire", "reads"),
    [
        ("a", "a10161", b"a"),
        (b"a", "a10161", b"a"),
        (b"\xff", "a001ff", b"\xff"),
        (5, "5305", 5),
        (0, "44", 0),
        (1 << 63, "808000000000000000", 1 << 63),
        (_ID, "98" + _ID.hex, _ID),
        (bytearray(b"x\0"), "a0027800", b"x\0"),
        (types.AMQPuLong(5), "5305", 5),
        (types.AMQPInt(5), "5405", 5),
    ],
)
def test_ids_have_these_bytes(field: str, value: Any, wire: str, reads: Any) -> None:
    properties = MessageProperties(**{field: value})
    assert getattr(properties, field) == reads
    assert properties._encode().hex().endswith(wire)
    assert getattr(decoded(Message(b"", properties=properties)).properties, field) == reads


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subject", 5),
        ("group_id", 5),
        ("reply_to_group_id", 5),
        ("user_id", 5),
        ("content_type", 5),
        ("content_encoding", 5),
        ("creation_time", 5.5),
        ("absolute_expiry_time", "5"),
        ("group_sequence", "5"),
        ("message_id", 1j),
        ("to", 1j),
    ],
)
def test_a_property_of_the_wrong_type_is_named(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=field):
        MessageProperties(**{field: value})
    with pytest.raises(TypeError, match=field):
        setattr(MessageProperties(), field, value)


def test_text_that_is_not_utf8_is_refused_where_amqp_wants_a_string() -> None:
    with pytest.raises(ValueError, match="properties, subject"):
        Message(b"", properties=MessageProperties(subject=b"\xff")).encode_message()


def test_setting_a_property_after_encoding_counts() -> None:
    properties = MessageProperties(subject="a")
    message = Message(b"", properties=properties)
    message.encode_message()
    properties.subject = "b"
    assert decoded(message).properties.subject == b"b"  # type: ignore[union-attr]
    properties.subject = None
    assert properties._encode() == values.EMPTY_LIST


def test_numbers_of_a_header_may_be_floats_and_are_cut() -> None:
    header = MessageHeader()
    header.time_to_live, header.priority, header.delivery_count = 1000.9, 4.0, 1.0  # type: ignore[assignment]
    assert encoded(b"", header=header) == "005370c00c05405004" + "70000003e8" + "405201" + "005375a000"
    header.time_to_live = "5"  # type: ignore[assignment]
    with pytest.raises(TypeError, match="header.*str"):
        encoded(b"", header=header)


def test_members_of_text_enumerations_are_text() -> None:
    class Kind(str, enum.Enum):
        ORDER = "order"

    properties = MessageProperties(subject=Kind.ORDER, message_id=Kind.ORDER)
    properties.content_type = Kind.ORDER
    assert [type(v) for v in (properties.subject, properties.message_id, properties.content_type)] == [bytes] * 3
    assert properties.subject == properties.message_id == properties.content_type == b"order"
    assert encoded(b"", properties=properties) == encoded(
        b"", properties=MessageProperties(subject="order", message_id="order", content_type="order")
    )


def test_the_native_objects_of_properties_and_header_are_the_described_sections() -> None:
    native = MessageProperties(message_id="a").get_properties_obj()
    assert bytes(native).hex() == "005373c00401a10161"
    assert bytes(MessageHeader().get_header_obj()).hex() == "005370c006054040404043"


def test_native_properties_and_header_can_be_wrapped() -> None:
    properties = MessageProperties(message_id="a", subject="s")
    assert str(MessageProperties(properties=properties.get_properties_obj())) == str(properties)
    header = MessageHeader()
    header.durable, header.priority = True, 7
    assert str(MessageHeader(header.get_header_obj())) == str(header)


# ---- received messages ------------------------------------------------------------------------------------------------


def test_a_decoded_message_gives_back_its_sections() -> None:
    message = decoded(full({"a": 1}))
    assert (message.state, message.settled) == (MessageState.ReceivedSettled, True)
    assert message.header is not None
    assert message.header._as_dict() == {
        "delivery_count": 0,
        "time_to_live": None,
        "first_acquirer": None,
        "durable": True,
        "priority": 4,
    }
    assert message.properties is not None
    assert message.properties.user_id == b"u\0"
    assert message.application_properties == {b"k": b"v"}
    assert message.annotations == {b"x": 4}
    assert message.delivery_annotations == {b"d": 2}
    assert message.footer == {b"f": 1}
    assert message.value == {b"a": 1}


def test_absent_sections_of_a_received_message_are_none() -> None:
    message = decoded(Message(b"x"))
    for name in ("header", "properties", "application_properties", "annotations", "delivery_annotations", "footer"):
        assert getattr(message, name) is None
    assert list(message.get_data()) == [b"x"]


def test_sequence_bodies_are_decoded() -> None:
    assert list(decoded(Message([[1], ["a"]], body_type=Sequence)).get_data()) == [[1], [b"a"]]


@pytest.mark.parametrize("empty", [[], {}, bytearray()])
def test_an_empty_value_body_reads_as_the_empty_value(empty: Any) -> None:
    value = decoded(Message(empty, body_type=Value)).value
    assert (value, type(value)) == (bytes(empty), bytes) if isinstance(empty, bytearray) else (empty, type(empty))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        bytes.fromhex("005375a00561"),  # cut off
        bytes.fromhex("0053774000537740"),  # two values
        bytes.fromhex("00537740005375a00161"),  # two kinds of body
    ],
)
def test_what_is_no_message_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        Message.decode_from_bytes(data)


def test_decoding_takes_bytes_and_bytearray_only() -> None:
    data = Message(b"x").encode_message()
    assert str(Message.decode_from_bytes(bytearray(data))) == "x"
    with pytest.raises(TypeError, match="memoryview"):
        Message.decode_from_bytes(memoryview(data))  # type: ignore[arg-type]


def test_sections_are_accepted_in_any_order() -> None:
    parts = ["005375a00162", "005378c10602a301665401", "005374c10702a1016ba10176", "005370c006054140404043"]
    message = Message.decode_from_bytes(bytes.fromhex("".join(parts)))
    assert message.footer == {b"f": 1}
    assert message.application_properties == {b"k": b"v"}
    assert message.encode_message() == bytes.fromhex("".join([parts[3], parts[2], parts[0], parts[1]]))


def test_a_decoded_message_with_a_user_id_encodes_again() -> None:
    data = full().encode_message()
    message = Message.decode_from_bytes(data)
    assert message.properties is not None
    assert message.properties.user_id == b"u\0"
    assert message.encode_message() == data
    message.properties.subject = "other"
    again = decoded(message).properties
    assert again is not None
    assert (again.user_id, again.subject, again.message_id) == (b"u\0", b"other", b"a")


# Types that uamqp's mapping cannot tell apart: a message that is looked at and forwarded keeps them.
_TYPED = {
    "timestamp": c_uamqp.timestamp_value(5),
    "binary": bytearray(b"ok"),
    "ushort": types.AMQPuShort(3),
    "symbol": types.AMQPSymbol("s"),
    "array": types.AMQPArray([1, 2]),
}


def test_sections_that_were_read_but_not_changed_go_out_as_they_came() -> None:
    message = Message(
        _TYPED,
        properties=MessageProperties(message_id=bytearray(b"id"), to=types.AMQPSymbol("t")),
        application_properties=dict(_TYPED),
        annotations=dict(_TYPED),
        footer=dict(_TYPED),
        delivery_annotations=dict(_TYPED),
        header=MessageHeader(),
    )
    data = message.encode_message()
    back = Message.decode_from_bytes(data)
    assert back.application_properties is not None
    assert back.application_properties[b"timestamp"] == 5
    for name in ("header", "annotations", "footer", "delivery_annotations", "value"):
        assert getattr(back, name)
    assert back.properties is not None
    assert back.properties.message_id == b"id"
    assert back.encode_message() == data


def test_properties_changed_in_a_received_message_keep_the_types_of_the_others() -> None:
    sent = MessageProperties(message_id=bytearray(b"id"), correlation_id=_ID, creation_time=9)
    back = decoded(Message(b"", properties=sent)).properties
    assert back is not None
    back.subject = "s"
    native = c_uamqp.decode_value(back._encode())
    assert [item.type.name for item in native._content[:6]] == [
        "BinaryValue",
        "NullValue",
        "NullValue",
        "StringValue",
        "NullValue",
        "UUIDValue",
    ]


def test_a_map_changed_in_a_received_message_is_sent_changed() -> None:
    back = decoded(Message(b"", application_properties={"a": True}, annotations={"s": 1}))
    assert back.application_properties is not None
    assert back.annotations is not None
    back.application_properties[b"a"] = 1
    back.annotations["t"] = 2
    again = decoded(back)
    assert again.application_properties == {b"a": 1}
    assert again.application_properties[b"a"] is not True
    assert again.annotations == {b"s": 1, b"t": 2}


def test_a_data_section_that_holds_no_binary_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="binary"):
        Message.decode_from_bytes(bytes.fromhex("0053755405")).get_data()


def test_a_section_nobody_looks_at_is_not_parsed() -> None:
    broken = bytes.fromhex("005374c003014040") + Message(b"x").encode_message()  # a map with one value too few
    message = Message._received(broken)
    assert message.delivery_no is None
    with pytest.raises(ValueError):
        _ = message.application_properties


def test_a_received_message_knows_its_delivery() -> None:
    message = Message._received(Message(b"x").encode_message(), None, 7, b"\x01", 5)
    assert (message.delivery_no, message.delivery_tag) == (7, b"\x01")
    assert message.get_message().message_format == 5
    assert (message.state, message.settled, message.delivery) == (MessageState.ReceivedSettled, True, None)
    assert isinstance(message._body, DataBody)


_text = st.text(max_size=12)
_values = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.floats(allow_nan=False), _text)


@given(
    body=st.one_of(st.binary(max_size=400), st.lists(st.binary(max_size=9)), st.dictionaries(_text, _values)),
    application=st.none() | st.dictionaries(_text, _values),
    annotations=st.none() | st.dictionaries(_text, _values),
    subject=st.none() | _text,
    ident=st.none() | _text | st.integers(0, (1 << 64) - 1) | st.uuids(),
    durable=st.none() | st.booleans(),
)
def test_what_is_encoded_decodes_to_the_same_message(
    body: Any, application: Any, annotations: Any, subject: Any, ident: Any, durable: Any
) -> None:
    header = MessageHeader()
    header.durable = durable
    message = Message(
        body,
        properties=MessageProperties(message_id=ident, subject=subject),
        application_properties=application,
        annotations=annotations,
        header=header,
    )
    data = message.encode_message()
    back = Message.decode_from_bytes(data)
    assert back.encode_message() == data
    assert back.header is not None
    assert back.header.durable == durable
    assert back.properties is not None
    assert back.properties._as_dict() == message.properties._as_dict()  # type: ignore[union-attr]
    for name, sent in (("application_properties", application), ("annotations", annotations)):
        expected = decode.decode(values.encode(sent)) if sent else None
        assert getattr(back, name) == expected
    assert str(back) == str(message)
    assert back.encode_message() == data, "having been read changes nothing"


# ---- gathering, states ------------------------------------------------------------------------------------------------


def test_a_new_message_gathers_to_itself() -> None:
    for message in (Message(b"x"), full()):
        assert list(message.gather()) == [message]
        assert (message.state, message.settled, message._response) == (MessageState.WaitingToBeSent, False, None)
        assert (message.retries, message.idle_time, message.on_send_complete) == (0, 0, None)
        assert (message.delivery_no, message.delivery_tag) == (None, None)


def test_a_received_message_cannot_be_gathered() -> None:
    with pytest.raises(TypeError, match="received"):
        decoded(Message(b"x")).gather()


def test_a_sent_message_raises_what_became_of_it() -> None:
    message = Message(b"x")
    message.state = MessageState.SendComplete
    assert message.settled
    assert isinstance(message._response, errors.MessageAlreadySettled)
    with pytest.raises(errors.MessageAlreadySettled):
        message.gather()
    failed = Message(b"x")
    failed.state = MessageState.SendFailed
    failed._response = failure = errors.MessageSendFailed(b"c")
    with pytest.raises(errors.MessageSendFailed) as caught:
        failed.gather()
    assert caught.value is failure
    assert failed.settled


def test_asking_again_and_again_keeps_nothing_of_the_askers() -> None:
    failed = Message(b"x")
    failed.state, failed._response = MessageState.SendFailed, errors.MessageSendFailed(b"x")
    depths = set()
    for _ in range(3):
        with pytest.raises(errors.MessageSendFailed) as caught:
            failed.gather()
        depths.add(len(caught.traceback))
    assert len(depths) == 1


def test_a_message_on_its_way_can_be_gathered() -> None:
    message = Message(b"x")
    message.state = MessageState.WaitingForSendAck
    assert list(message.gather()) == [message]
    assert not message.settled


def test_delivery_follows_from_the_state() -> None:
    message = Message(b"x")
    expected = [
        (MessageState.WaitingToBeSent, Delivery.NOT_DELIVERED),
        (MessageState.WaitingForSendAck, Delivery.UNKNOWN),
        (MessageState.SendComplete, Delivery.DELIVERED),
        (MessageState.SendFailed, Delivery.UNKNOWN),
    ]
    for state, delivery in expected:
        message.state = state
        assert message.delivery is delivery
    message._response = errors.process_message_error(errors.ErrorPolicy(), b"amqp:not-found")
    assert message.delivery is Delivery.DELIVERED


def test_delivery_that_is_set_holds_while_the_state_lasts() -> None:
    message = Message(b"x")
    message.delivery = Delivery.UNKNOWN
    assert message.delivery is Delivery.UNKNOWN
    message.state = MessageState.SendComplete
    assert message.delivery is Delivery.DELIVERED


# ---- settling ---------------------------------------------------------------------------------------------------------


class Settler:
    """What a receiver gives its messages: keeps the outcomes, or refuses them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.states: list[bytes] = []

    def __call__(self, response: Any) -> None:
        if self.error is not None:
            raise self.error
        self.states.append(sections.outcome(response))


def received(settler: Settler) -> Message:
    return Message._received(Message(b"x").encode_message(), settler, 1)


@pytest.mark.parametrize(
    ("call", "response", "state"),
    [
        (lambda m: m.accept(), errors.MessageAccepted, Described(0x24, [])),
        (lambda m: m.release(), errors.MessageReleased, Described(0x26, [])),
        (
            lambda m: m.reject(),
            errors.MessageRejected,
            Described(0x25, [Described(0x1D, [Symbol("amqp:internal-error"), ""])]),
        ),
        (
            lambda m: m.reject("c", "d", {"k": 1}),
            errors.MessageRejected,
            Described(0x25, [Described(0x1D, [Symbol("c"), "d", {Symbol("k"): 1}])]),
        ),
        (lambda m: m.modify(True, False), errors.MessageModified, Described(0x27, [True, False])),
        (
            lambda m: m.modify(False, True, {"k": 1}),
            errors.MessageModified,
            Described(0x27, [False, True, {Symbol("k"): 1}]),
        ),
    ],
)
def test_settling_sends_the_outcome_once(call: Any, response: type, state: Described) -> None:
    settler = Settler()
    message = received(settler)
    assert (message.state, message.settled) == (MessageState.ReceivedUnsettled, False)
    assert call(message) is True
    assert [repr(decode.decode_exact(sent)) for sent in settler.states] == [repr(state)]  # repr tells Symbol from str
    assert (message.state, message.settled) == (MessageState.ReceivedSettled, True)
    assert isinstance(message._response, response)
    assert message.accept() is message.reject() is message.release() is message.modify(True, True) is False
    assert len(settler.states) == 1


def test_what_cannot_be_sent_leaves_the_message_unsettled() -> None:
    message = received(Settler(RuntimeError("the link is closed")))
    with pytest.raises(RuntimeError, match="closed"):
        message.accept()
    assert (message.state, message.settled) == (MessageState.ReceivedUnsettled, False)


def test_settled_messages_have_nothing_to_send() -> None:
    message = decoded(Message(b"x"))
    assert message.accept() is message.reject() is message.release() is message.modify(True, False) is False


@pytest.mark.parametrize("call", ["accept", "reject", "release"])
def test_messages_to_be_sent_cannot_be_settled(call: str) -> None:
    with pytest.raises(TypeError, match="received"):
        getattr(Message(b"x"), call)()


def test_info_and_annotations_of_an_outcome_are_dicts() -> None:
    message = received(Settler())
    with pytest.raises(TypeError):
        message.reject(info=[1])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        message.modify(True, True, [1])  # type: ignore[arg-type]
    assert not message.settled


def test_only_the_known_responses_have_an_outcome() -> None:
    with pytest.raises(ValueError, match="MessageAlreadySettled"):
        sections.outcome(errors.MessageAlreadySettled())


@pytest.mark.parametrize(
    ("code", "name", "good"),
    [
        ("70", "header", MessageHeader()),
        ("72", "annotations", {"a": 1}),
        ("74", "application_properties", {"a": 1}),
        ("78", "footer", {"a": 1}),
    ],
)
@pytest.mark.parametrize("bad", ["5401", "c104024550" + "01"], ids=["int", "list as key"])
def test_a_malformed_section_can_be_replaced(code: str, name: str, good: Any, bad: str) -> None:
    message = Message._received(bytes.fromhex("0053" + code + bad + "005375a00161"))
    with pytest.raises(errors.MessageDecodeError, match="section h(olds no (list|map)|as a .* key)"):
        getattr(message, name)
    setattr(message, name, good)
    assert message.encode_message() == Message(b"a", **{name: good}).encode_message()


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        ("005375a00161" + "005377a10162", "one kind.*data and amqp-value"),
        ("0053775401" + "0053775402", "more than one amqp-value"),
        ("0053765401", "amqp-sequence section holds no list"),
    ],
)
def test_a_body_that_is_none_says_so_when_looked_at_and_is_passed_on(wire: str, words: str) -> None:
    message = Message._received(bytes.fromhex(wire))
    for look in (str, lambda m: list(m.get_data()), lambda m: list(m.sequence)):
        with pytest.raises(ValueError, match=words):
            look(message)
    assert message.encode_message().hex() == wire


# One section of a message each, and the look that finds it out. The C check (tests/c/test_tape.c) has the same cases.
_UNREADABLE = [
    ("00a10178a000", "str", "descriptor, which is none"),
    ("005379a000", "str", "0x79, which is none"),
    ("00800000000100000000a000", "str", "descriptor, which is none"),
    ("005375a000005379a000", "str", "0x79, which is none"),
    ("0053704500537045005375a000", "header", "header section is there 2 times"),
    ("005374c10100005374c10100005375a000", "application_properties", "application-properties section is there 2"),
    ("0053774000537740", "value", "more than one amqp-value"),
    ("005375a00000537740", "str", "one kind of section"),
    ("005375a10161", "str", "data section holds no binary"),
    ("00537654", "str", "malformed"),
    ("0053765405", "str", "amqp-sequence section holds no list"),
    ("005374c003015401", "application_properties", "holds no map"),
    ("005372c1050245a10161", "annotations", "as a key"),
    ("005371a10161", "delivery_annotations", "holds no map"),
    ("005378c1050245a10161", "footer", "as a key"),
    ("005373c10100", "properties", "properties section holds no list"),
    ("005373c0050240c10100", "properties", "user-id that is not text or binary but dict"),
    ("005373c003024045", "properties", "user-id"),
    ("005373c0020145", "properties", "message-id that is not a scalar but list"),
    ("005373c00b0a40404040404040404041", "properties", "creation-time that is not an integer but bool"),
    ("005370c003015401", "header", "durable that is not a boolean but int"),
    ("005370c00403404045", "header", "ttl that is not an integer but list"),
    ("005370c10100", "header", "header section holds no list"),
    ("005375a001", "str", "no message"),
]


@pytest.mark.parametrize(("wire", "look", "words"), _UNREADABLE)
def test_what_is_malformed_is_a_decode_error_where_it_is_looked_at(wire: str, look: str, words: str) -> None:
    payload = bytes.fromhex(wire)
    message = Message._received(payload)
    with pytest.raises(errors.MessageDecodeError, match=words) as raised:
        str(message) if look == "str" else getattr(message, look)
    assert isinstance(raised.value, ValueError)
    assert (raised.value.scope, raised.value.retryable) == ("message", False)
    assert not sections.Sections(payload).readable()
    with pytest.raises(errors.MessageDecodeError):
        sections.Sections(payload).check_all()
    with pytest.raises(ValueError):
        c_uamqp.decode_message(len(payload), payload)


@given(st.data())
def test_the_quick_check_of_a_message_agrees_with_looking_at_it(data: Any) -> None:
    payload = bytearray(full({"a": [1.5, {"b": 2}]}).encode_message())
    for _ in range(data.draw(st.integers(0, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(
            st.sampled_from([0, 0x40, 0x41, 0x43, 0x45, 0x53, 0x70, 0x72, 0x75, 0x77, 0xA0, 0xA1, 0xC0, 0xC1])
            | st.integers(0, 255)
        )
    found = sections.Sections(bytes(payload))
    try:
        found.check_all()
    except errors.MessageDecodeError:
        assert not found.readable()
    else:
        assert found.readable()


@pytest.mark.parametrize("code", ["70", "71", "72", "73", "74", "78"])
def test_null_in_place_of_a_section_is_none_and_goes_out_again(code: str) -> None:
    wire = bytes.fromhex(f"0053{code}40" + "005375a00161")
    if code == "78":
        wire = bytes.fromhex("005375a00161" + "00537840")
    message = Message._received(wire)
    for name in ("header", "delivery_annotations", "annotations", "properties", "application_properties", "footer"):
        assert getattr(message, name) is None
    assert (str(message), message.encode_message()) == ("a", wire)
    assert c_uamqp.decode_message(len(wire), wire).get_body_data(0) == b"a"
    assert sections.Sections(wire).readable()


@pytest.mark.parametrize(
    ("wire", "expected"), [("00537540", [b""]), ("00537540005375a00161", [b"", b"a"]), ("00537640", [[]])]
)
def test_null_in_a_data_section_is_no_bytes_and_in_a_sequence_no_items(wire: str, expected: Any) -> None:
    message = Message._received(bytes.fromhex(wire))
    assert list(message.get_data()) == expected
    assert message.encode_message().hex() == wire
    native = message.get_message()
    read = native.get_body_data if native.body_type is c_uamqp.MessageBodyType.DataType else native.get_body_sequence
    assert [getattr(part, "value", part) for part in map(read, range(len(expected)))] == expected


def _looked_at(message: Message) -> Message:
    """The message after everything of it was looked at."""
    assert repr(message)
    assert str(message) is not None
    for name in ("header", "delivery_annotations", "annotations", "properties", "application_properties", "footer"):
        assert str(getattr(message, name))
    assert message._body is not None
    assert message.properties is None or message.properties._as_dict()
    list(message.get_data()) if message.value is None else message.value
    return message


_NAN = "827ff8000000000001"
_ZERO, _MINUS = "820000000000000000", "828000000000000000"


@pytest.mark.parametrize(
    "wire",
    [
        f"005374c10d02a1016e{_NAN}005375a00161",
        f"005374c11002a1016ec00a01{_NAN}005375a00161",
        f"005372c10d02a3016e{_NAN}005375a00161",
        "005374c11504a1016e727fc00000a1016d830000000000000000005375a00161",
        f"005377{_NAN}",
        "005375b00000000161",  # wider than needed
        "005375b00000000161005375a00162",
        "00800000000000000075a00161",  # a wide descriptor
        "00a310" + b"amqp:data:binary".hex() + "a00161",
        "00800000000000000073c003024040005375a00161",
        "005370d0000000050000000141005375a00161",
        "005373d000000006000000015405005375a00161",
        "005374d10000000800000002a1016b41005375a00161",
        "005376d000000006000000015405",
        "005374c10904a1016b41a1016b42005375a00161",  # a key twice
    ],
)
def test_what_was_looked_at_and_not_changed_goes_out_byte_for_byte(wire: str) -> None:
    payload = bytes.fromhex(wire)
    assert sections.Sections(payload).readable()
    assert Message._received(payload).encode_message().hex() == wire
    assert _looked_at(Message._received(payload)).encode_message().hex() == wire


def test_a_zero_that_changed_its_sign_is_a_change() -> None:
    message = Message._received(bytes.fromhex(f"005374c10d02a1016e{_ZERO}005375a00161"))
    assert message.application_properties == {b"n": 0.0}
    message.application_properties[b"n"] = -0.0
    assert _MINUS in message.encode_message().hex()


def test_a_body_that_is_appended_to_goes_out_changed() -> None:
    message = Message._received(bytes.fromhex("005375b00000000161"))
    body = message._body
    assert isinstance(body, DataBody)
    body.append(b"b")
    assert message.encode_message().hex() == "005375a00161005375a00162"


def test_a_map_with_a_list_as_key_in_a_body_is_a_dict_with_a_tuple() -> None:
    message = Message._received(bytes.fromhex("005377c10b02c0050254015402a10161"))
    assert message.value == {(1, 2): b"a"}


# ---- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize(
    "message",
    [
        Message(b"x"),
        Message("x"),
        full(),
        full({"a": 1}),
        Message([[1]], body_type=Sequence),
        Message(b"x", msg_format=9, encoding="latin-1"),
        Message.decode_from_bytes(full().encode_message()),
    ],
    ids=["raw", "text", "full", "value", "sequence", "format", "decoded"],
)
def test_copies_encode_alike(message: Message, clone: Any) -> None:
    message.retries = 2
    other = clone(message)
    assert other.encode_message() == message.encode_message()
    assert (other.state, other.retries, other._raw) == (message.state, 2, message._raw)
    assert other.get_message().message_format == message.get_message().message_format


def test_a_deep_copy_has_its_own_maps() -> None:
    message = full()
    other = copy.deepcopy(message)
    other.application_properties["k"] = 2  # type: ignore[index]
    assert message.application_properties == {"k": "v"}


def test_what_becomes_of_a_message_does_not_become_of_its_copy() -> None:
    message = full()
    other = copy.copy(message)
    other.retries = 3
    other._response = errors.MessageSendFailed(b"x")
    assert (message.retries, message.settled, list(message.gather())) == (0, False, [message])


def test_a_copy_of_properties_has_its_own_fields() -> None:
    properties = MessageProperties(subject="s")
    other = copy.copy(properties)
    other.subject = "t"
    assert (properties.subject, other.subject) == (b"s", b"t")


def test_a_message_that_can_be_settled_is_not_copied() -> None:
    message = received(Settler())
    for clone in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="connection"):
            clone(message)


def test_properties_pickle() -> None:
    properties = MessageProperties(message_id=_ID, subject="s", encoding="latin-1")
    other = pickle.loads(pickle.dumps(properties))
    assert other._encode() == properties._encode()
    assert other._encoding == "latin-1"


# ---- the native message ---------------------------------------------------------------------------------------------


def test_get_message_gives_a_native_message() -> None:
    message = full()
    native = message.get_message()
    assert bytes(native) == bytes(message._message) == message.encode_message()


def test_a_native_message_has_the_message_format() -> None:
    assert Message(b"x", msg_format=5).get_message().message_format == 5


def test_a_message_wraps_a_native_one() -> None:
    message = Message(message=Message(b"x", msg_format=5, application_properties={"k": 1}).get_message())
    assert (str(message), message.application_properties, message._format) == ("x", {b"k": 1}, 5)
    assert message.state is MessageState.ReceivedSettled


@pytest.mark.parametrize(
    "whole", [b"\x00Su\xa0\x05hello", b"\x00Su\xb0\0\0\0\x05hello", b"\x00Sp\xc0\x02\x01A\x00Sw\xa1\x01x"]
)
def test_what_was_cut_off_is_a_message_that_cannot_be_read(whole: bytes) -> None:
    for n in range(1, len(whole)):
        message = Message._received(whole[:n])
        if whole[:n] != b"\x00Sp\xc0\x02\x01A":  # which ends between two sections
            with pytest.raises(ValueError, match="malformed"):
                _ = message.data
    assert Message._received(whole).get_data() is not None
