"""Native messages of `c_uamqp`, against the bytes that uamqp 1.6.11 was seen to make of the same calls."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from uamqp_cffi import address, c_uamqp
from uamqp_cffi._native import make as make_module
from uamqp_cffi.c_uamqp import MessageBodyType
from uamqp_cffi.message import Message, MessageProperties

MAP = {"a": 1, "b": b"x"}


def native(value: Any) -> c_uamqp.AMQPValue:
    return make_module.data_factory(value)


def message(*, body: bytes = b"abc", **sections: Any) -> c_uamqp.cMessage:
    made = c_uamqp.create_message()
    made.add_body_data(body)
    for name, section in sections.items():
        setattr(made, name, section)
    return made


def encoded(made: c_uamqp.cMessage) -> str:
    parts: list[bytes] = []
    size = c_uamqp.get_encoded_message_size(made, parts)
    whole = b"".join(parts)
    assert size == len(whole)
    return whole.hex()


def decoded(made: c_uamqp.cMessage) -> c_uamqp.cMessage:
    data = bytes.fromhex(encoded(made))
    return c_uamqp.decode_message(len(data), data)


def header(**fields: Any) -> c_uamqp.cHeader:
    made = c_uamqp.create_header()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def properties(**fields: Any) -> c_uamqp.cProperties:
    made = c_uamqp.create_properties()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


# ---- encoding, as seen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (message(), "005375a003616263"),
        (message(application_properties=native({"a": 1})), "005374c10602a101615401" "005375a003616263"),
        (message(header=header(durable=True)), "005370c0020141" "005375a003616263"),
        (
            message(properties=properties(message_id=c_uamqp.string_value(b"x"), subject=b"s")),
            "005373c00904a10178" "4040a10173" "005375a003616263",
        ),
        (
            message(delivery_annotations=c_uamqp.create_delivery_annotations(native({"a": 1}))),
            "005371c10602a101615401" "005375a003616263",
        ),
        (
            message(message_annotations=c_uamqp.create_message_annotations(native({"a": 1}))),
            "005372c10602a101615401" "005375a003616263",
        ),
        (c_uamqp.create_message(), ""),
    ],
)  # fmt: skip
def test_a_message_is_encoded_as_uamqp_does(made: c_uamqp.cMessage, expected: str) -> None:
    assert encoded(made) == expected


def test_the_footer_stands_behind_the_body() -> None:
    made = message(footer=c_uamqp.create_footer(native({"a": 1})))
    assert encoded(made) == "005375a003616263005378c10602a101615401"


def test_a_value_and_a_sequence_are_encoded() -> None:
    value, sequence = c_uamqp.create_message(), c_uamqp.create_message()
    value.set_body_value(native(5))
    sequence.add_body_sequence(native([1]))
    assert (encoded(value), encoded(sequence)) == ("0053775405", "005376c003015401")


def test_only_a_message_has_an_encoded_size() -> None:
    with pytest.raises(TypeError, match="cMessage"):
        c_uamqp.get_encoded_message_size(None, [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "expected"), [(native({"a": 1}), "c10602a101615401"), (c_uamqp.create_data(b"abc"), "005375a003616263")]
)
def test_a_batch_gets_encoded_values_appended(value: c_uamqp.AMQPValue, expected: str) -> None:
    parts = [b"before"]
    assert c_uamqp.enocde_batch_value(value, parts) is None  # type: ignore[func-returns-value]
    assert (parts[0], b"".join(parts[1:]).hex()) == (b"before", expected)


def test_sections_of_the_body_can_be_made_as_values() -> None:
    assert str(c_uamqp.create_data(b"abc")) == "* <61 62 63>"
    assert c_uamqp.create_sequence(native([1])).encoded().hex() == "005376c003015401"


@pytest.mark.parametrize("wrong", ["abc", c_uamqp.string_value(b"abc"), None])
def test_a_data_section_is_made_of_bytes(wrong: Any) -> None:
    with pytest.raises(TypeError):
        c_uamqp.create_data(wrong)


@pytest.mark.parametrize(("wrong", "error"), [([1], TypeError), (native(1), ValueError)])
def test_a_sequence_section_is_made_of_a_native_list(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        c_uamqp.create_sequence(wrong)


# ---- decoding -------------------------------------------------------------------------------------------------------


def test_a_decoded_message_has_its_sections() -> None:
    made = decoded(
        message(
            header=header(durable=True, priority=9),
            properties=properties(subject=b"s"),
            application_properties=native(MAP),
            message_annotations=c_uamqp.create_message_annotations(native({"m": 1})),
            delivery_annotations=c_uamqp.create_delivery_annotations(native({"d": 1})),
            footer=c_uamqp.create_footer(native({"f": 1})),
        )
    )
    assert (made.header.durable, made.header.priority, made.properties.subject) == (True, 9, b"s")
    assert (made.application_properties.map, made.footer.map) == ({b"a": 1, b"b": b"x"}, {b"f": 1})  # type: ignore[union-attr]
    assert (made.message_annotations.map, made.delivery_annotations.map) == ({b"m": 1}, {b"d": 1})
    assert made.get_body_data(0) == b"abc"


def test_decoding_and_encoding_keeps_the_types() -> None:
    made = message(application_properties=native({"a": 1}))
    made.application_properties.value.data[c_uamqp.symbol_value(b"u")] = c_uamqp.uint_value(5)  # type: ignore[union-attr,attr-defined]
    assert encoded(decoded(made)) == encoded(made)


def test_a_message_of_ours_can_be_taken_apart() -> None:
    data = Message("text", properties=MessageProperties(message_id=7)).encode_message()
    made = c_uamqp.decode_message(len(data), data)
    assert (made.get_body_data(0), str(made.properties.message_id)) == (b"text", "7")


def test_bytes_beyond_the_size_do_not_count() -> None:
    data = Message(b"x").encode_message()
    assert c_uamqp.decode_message(len(data), data + b"more").get_body_data(0) == b"x"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        bytes.fromhex("005373a10161"),  # properties that are a string
        bytes.fromhex("005374a10161"),  # application properties that are a string
        bytes.fromhex("00537054"),  # cut off
        bytes.fromhex("0053755405"),  # a data section that is an int
        bytes.fromhex("005375a00161" "0053775405"),  # two kinds of body
    ],
)  # fmt: skip
def test_what_is_no_message_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        c_uamqp.decode_message(len(data), data)


@pytest.mark.parametrize("size", [-1, 9])
def test_a_size_that_is_not_there_is_a_value_error(size: int) -> None:
    with pytest.raises(ValueError, match="payload_size"):
        c_uamqp.decode_message(size, bytes.fromhex("005375a003616263"))


def test_a_decoder_keeps_what_it_decoded() -> None:
    decoder = c_uamqp.cMessageDecoder()
    assert decoder.decoded_message is None
    made = decoder.decode(Message(b"x").encode_message())
    assert decoder.decoded_message is made


# ---- the message object ---------------------------------------------------------------------------------------------


def test_a_new_message_is_empty() -> None:
    made = c_uamqp.create_message()
    names = ("header", "properties", "application_properties", "delivery_annotations", "message_annotations", "footer")
    assert [getattr(made, name) for name in (*names, "delivery_tag")] == [None] * 7
    assert (made.body_type, made.message_format) == (MessageBodyType.NoneType, 0)


def test_data_sections_are_counted_and_read() -> None:
    made = message()
    made.add_body_data(b"more")
    assert (made.body_type, made.count_body_data()) == (MessageBodyType.DataType, 2)
    assert [made.get_body_data(0), made.get_body_data(1)] == [b"abc", b"more"]


def test_sequences_are_counted_and_read() -> None:
    made = c_uamqp.create_message()
    made.add_body_sequence(native([1, 2]))
    assert (made.body_type, made.count_body_sequence()) == (MessageBodyType.SequenceType, 1)
    assert made.get_body_sequence(0).value == [1, 2]


def test_the_last_value_set_is_the_body() -> None:
    made = c_uamqp.create_message()
    made.set_body_value(native(5))
    made.set_body_value(native(6))
    assert (made.body_type, made.get_body_value().value) == (MessageBodyType.ValueType, 6)


@pytest.mark.parametrize(
    "call",
    [
        lambda made: made.get_body_data(1),
        lambda made: made.get_body_data(-1),
        lambda made: made.count_body_sequence(),
        lambda made: made.get_body_sequence(0),
        lambda made: made.get_body_value(),
        lambda made: made.add_body_sequence(native([1])),
        lambda made: made.set_body_value(native(1)),
    ],
)
def test_a_body_of_another_type_or_length_is_a_value_error(call: Any) -> None:
    with pytest.raises(ValueError):
        call(message())


@pytest.mark.parametrize(
    "call",
    [
        lambda made: made.add_body_data("text"),
        lambda made: made.set_body_value(5),
        lambda made: setattr(made, "header", 5),
        lambda made: setattr(made, "properties", {}),
        lambda made: setattr(made, "footer", native({"a": 1})),
        lambda made: setattr(made, "application_properties", {"a": 1}),
        lambda made: setattr(made, "message_format", "x"),
    ],
)
def test_what_is_not_native_is_a_type_error(call: Any) -> None:
    with pytest.raises(TypeError):
        call(c_uamqp.create_message())


@pytest.mark.parametrize("number", [-1, 1 << 40])
def test_a_message_format_has_32_bits(number: int) -> None:
    with pytest.raises(OverflowError):
        message(message_format=number)


def test_a_section_is_taken_away_with_none() -> None:
    made = message(header=header(durable=True), application_properties=native(MAP))
    made.header = made.application_properties = None
    assert encoded(made) == encoded(message())


def test_the_delivery_tag_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        message(delivery_tag=b"x")


def test_a_clone_is_equal_and_its_own() -> None:
    made = message(header=header(durable=True), application_properties=native(MAP), message_format=5)
    clone = made.clone()
    assert (encoded(clone), clone.message_format) == (encoded(made), 5)
    clone.add_body_data(b"more")
    clone.header.durable = False
    assert encoded(made) != encoded(clone)
    assert (made.count_body_data(), made.header.durable) == (1, True)


def test_a_destroyed_message_is_empty() -> None:
    made = message(header=header(durable=True))
    made.destroy()
    assert (encoded(made), made.body_type) == ("", MessageBodyType.NoneType)


# ---- header, properties, error --------------------------------------------------------------------------------------


def test_a_new_header_has_the_default_priority() -> None:
    made = c_uamqp.create_header()
    names = ("durable", "priority", "time_to_live", "first_acquirer", "delivery_count")
    assert [getattr(made, name) for name in names] == [None, 4, None, None, None]


def test_a_header_gives_back_what_was_set() -> None:
    fields = {"durable": True, "priority": 7, "time_to_live": 1000, "first_acquirer": False, "delivery_count": 3}
    made = header(**fields)
    assert {name: getattr(made, name) for name in fields} == fields
    assert bytes(made).hex() == "005370c00c0541500770000003e8425203"


@pytest.mark.parametrize(("name", "bits"), [("priority", 8), ("time_to_live", 32), ("delivery_count", 32)])
def test_numbers_of_a_header_have_a_range(name: str, bits: int) -> None:
    for number in (-1, 1 << bits):
        with pytest.raises(OverflowError):
            header(**{name: number})
    with pytest.raises(TypeError):
        header(**{name: "x"})


def test_a_header_clone_is_its_own() -> None:
    made = header(priority=7)
    clone = made.clone()
    made.destroy()
    assert (clone.priority, made.priority) == (7, 4)


@pytest.mark.parametrize("name", ["message_id", "correlation_id", "to", "reply_to"])
@pytest.mark.parametrize("value", [c_uamqp.string_value(b"x"), c_uamqp.ulong_value(4), c_uamqp.uuid_value(UUID(int=5))])
def test_ids_and_addresses_take_and_give_native_values(name: str, value: c_uamqp.AMQPValue) -> None:
    assert getattr(properties(**{name: value}), name) == value
    for wrong in (b"x", "x", 5, None):
        with pytest.raises(TypeError):
            properties(**{name: wrong})


@pytest.mark.parametrize("name", ["subject", "group_id", "reply_to_group_id", "content_type", "content_encoding"])
def test_texts_of_properties_are_bytes(name: str) -> None:
    made = properties(**{name: b"x"})
    assert getattr(made, name) == b"x"
    setattr(made, name, bytearray(b"q"))
    assert getattr(made, name) == b"q"
    for wrong in ("x", 5, None, c_uamqp.string_value(b"x")):
        with pytest.raises(TypeError):
            setattr(made, name, wrong)


@pytest.mark.parametrize("name", ["absolute_expiry_time", "creation_time", "group_sequence"])
def test_numbers_of_properties_are_ints(name: str) -> None:
    assert getattr(properties(**{name: 5}), name) == 5
    for wrong in ("x", b"x", None):
        with pytest.raises(TypeError):
            properties(**{name: wrong})


def test_the_user_id_is_binary() -> None:
    assert properties(user_id=c_uamqp.binary_value(b"u\0")).user_id == b"u\0"
    with pytest.raises(ValueError, match="BinaryValue"):
        properties(user_id=c_uamqp.string_value(b"u"))


def test_properties_that_are_not_set_read_as_none() -> None:
    made = c_uamqp.create_properties()
    names = (
        "message_id", "user_id", "to", "subject", "reply_to", "correlation_id", "content_type", "content_encoding",
        "absolute_expiry_time", "creation_time", "group_id", "group_sequence", "reply_to_group_id",
    )  # fmt: skip
    assert [getattr(made, name) for name in names] == [None] * 13


def test_properties_are_encoded_with_their_types() -> None:
    made = properties(content_type=b"t", group_sequence=1, creation_time=2)
    assert MessageProperties(properties=made)._as_dict() == {
        **MessageProperties()._as_dict(), "content_type": b"t", "group_sequence": 1, "creation_time": 2
    }  # fmt: skip


def test_a_properties_clone_is_its_own() -> None:
    made = properties(subject=b"s")
    clone = made.clone()
    made.destroy()
    assert (clone.subject, made.subject) == (b"s", None)


def test_properties_are_loaded_from_a_native_list() -> None:
    made = c_uamqp.load_properties(c_uamqp.decode_value(bytes(properties(subject=b"s", group_id=b"g"))))
    assert (made.subject, made.group_id, made.message_id) == (b"s", b"g", None)


@pytest.mark.parametrize("wrong", [native({"a": 1}), c_uamqp.null_value(), native(5)])
def test_properties_are_loaded_from_nothing_else(wrong: c_uamqp.AMQPValue) -> None:
    with pytest.raises(ValueError):
        c_uamqp.load_properties(wrong)


def test_an_error_has_condition_description_and_info() -> None:
    made = c_uamqp.create_error(b"amqp:not-found")
    assert (made.condition, made.description, made.info) == (b"amqp:not-found", None, None)
    made.condition, made.description = b"amqp:other", b"text"
    made.info = native({"a": 1})
    assert (made.condition, made.description, made.info) == (b"amqp:other", b"text", {b"a": 1})
    made.destroy()
    assert made.condition is None


@pytest.mark.parametrize(("name", "wrong"), [("condition", "x"), ("description", 5), ("info", {"a": 1})])
def test_an_error_takes_bytes_and_a_native_map(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError):
        setattr(c_uamqp.create_error(b"x"), name, wrong)
    with pytest.raises(TypeError):
        c_uamqp.create_error("x")  # type: ignore[arg-type]


# ---- maps -----------------------------------------------------------------------------------------------------------

MAPS = [
    (c_uamqp.create_annotations, c_uamqp.cAnnotations, ""),
    (c_uamqp.create_fields, c_uamqp.cFields, ""),
    (c_uamqp.create_application_properties, c_uamqp.cApplicationProperties, "005374"),
    (c_uamqp.create_delivery_annotations, c_uamqp.cDeliveryAnnotations, "005371"),
    (c_uamqp.create_message_annotations, c_uamqp.cMessageAnnotations, "005372"),
    (c_uamqp.create_footer, c_uamqp.cFooter, "005378"),
]


@pytest.mark.parametrize(("make", "cls", "prefix"), MAPS)
def test_a_map_section_is_made_of_a_native_map(make: Any, cls: type[Any], prefix: str) -> None:
    made = make(native(MAP))
    assert type(made) is cls
    assert made.map == {b"a": 1, b"b": b"x"}
    assert made.value.encoded().hex() == prefix + "c10c04a101615401a10162a10178"
    assert made.get_encoded_size() == len(prefix) // 2 + 14


@pytest.mark.parametrize(("make", "cls", "prefix"), MAPS)
def test_a_map_section_is_made_of_nothing_that_is_not_native(make: Any, cls: type[Any], prefix: str) -> None:
    for wrong in ({"a": 1}, None):
        with pytest.raises(TypeError):
            make(wrong)


@pytest.mark.parametrize("value", [1, "x", [1], None], ids=repr)
@pytest.mark.parametrize(("make", "cls", "prefix"), MAPS)
def test_a_map_section_takes_any_native_value(make: Any, cls: type[Any], prefix: str, value: Any) -> None:
    made = make(native(value))
    assert type(made) is cls and made.map is None
    assert made.value.encoded().hex() == prefix + native(value).encoded().hex()
    assert made.clone().value.encoded() == made.value.encoded()


@pytest.mark.parametrize(("make", "cls", "prefix"), MAPS)
def test_a_clone_of_a_map_section_is_its_own(make: Any, cls: type[Any], prefix: str) -> None:
    made = make(native(MAP))
    clone = made.clone()
    made.destroy()
    assert (type(clone), clone.map, made.map) == (cls, {b"a": 1, b"b": b"x"}, None)


@pytest.mark.parametrize(("make", "cls", "prefix"), MAPS)
def test_a_map_section_can_be_filled_later(make: Any, cls: type[Any], prefix: str) -> None:
    made = cls()
    assert made.map is None
    made.create(native({"c": True}))
    assert made.map == {b"c": True}


# ---- sources, targets, states ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [c_uamqp.create_source, c_uamqp.create_target])
def test_a_new_terminus_has_the_defaults(make: Any) -> None:
    made = make()
    names = ("address", "durable", "expiry_policy", "timeout", "dynamic", "dynamic_node_properties")
    assert [getattr(made, name) for name in names] == [None, None, b"session-end", None, None, None]


@pytest.mark.parametrize("make", [c_uamqp.create_source, c_uamqp.create_target])
def test_a_terminus_gives_back_what_was_set(make: Any) -> None:
    made = make()
    made.address, made.durable, made.expiry_policy, made.timeout, made.dynamic = native("q"), 1, b"never", 5, True
    made.dynamic_node_properties = c_uamqp.create_fields(native({"a": 1}))
    assert (made.address, made.durable, made.expiry_policy, made.timeout, made.dynamic) == (b"q", 1, b"never", 5, True)
    assert made.dynamic_node_properties.map == {b"a": 1}
    assert str(made.value) == "* {q,1,never,5,true,{[a:1]}}"
    made.destroy()
    assert made.address is None


def test_a_source_has_a_distribution_mode_and_filters() -> None:
    made = c_uamqp.create_source()
    assert (made.distribution_mode, made.filter_set) == (None, None)
    made.distribution_mode, made.filter_set = b"copy", native({"a": 1})
    assert (made.distribution_mode, made.filter_set.value) == (b"copy", {b"a": 1})


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("address", "q", TypeError),
        ("durable", "x", TypeError),
        ("expiry_policy", "x", TypeError),
        ("timeout", None, TypeError),
        ("dynamic_node_properties", native({"a": 1}), TypeError),
        ("filter_set", {"a": 1}, TypeError),
        ("filter_set", native(5), ValueError),
    ],
)
def test_a_source_takes_what_its_fields_take(name: str, wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        setattr(c_uamqp.create_source(), name, wrong)


def test_address_objects_wrap_native_termini() -> None:
    made = c_uamqp.create_source()
    made.address, made.durable, made.filter_set = native("amqps://host/q"), 2, native({"f": "x"})
    source = address.Source.from_c_obj(made)
    assert (source.address, source.hostname, source.durable) == ("amqps://host/q", "host", 2)
    assert address.Target.from_c_obj(c_uamqp.Messaging.create_target(b"q")).address == "q"


FIELDS = c_uamqp.create_fields(native({"a": 1}))


@pytest.mark.parametrize(
    ("made", "text", "wire"),
    [
        (c_uamqp.Messaging.create_source(b"x"), "* {x}", "005328c00401a10178"),
        (c_uamqp.Messaging.create_target(b"x"), "* {x}", "005329c00401a10178"),
        (c_uamqp.Messaging.delivery_received(1, 2), "* {1,2}", "005323c005025201" "5302"),
        (c_uamqp.Messaging.delivery_accepted(), "* {}", "00532445"),
        (c_uamqp.Messaging.delivery_released(), "* {}", "00532645"),
        (c_uamqp.Messaging.delivery_rejected(b"a", b"b"), "* {* {a,b}}", "005325c00d01" "00531dc00702a30161a10162"),
        (c_uamqp.Messaging.delivery_rejected(b"a", b"b", FIELDS), "* {* {a,b,{[a:1]}}}", None),
        (c_uamqp.Messaging.delivery_modified(True, False, None), "* {true,false}", "005327c003024142"),
        (c_uamqp.Messaging.delivery_modified(True, False, FIELDS), "* {true,false,{[a:1]}}", None),
    ],
)  # fmt: skip
def test_delivery_states_are_native_composites(made: c_uamqp.CompositeValue, text: str, wire: str | None) -> None:
    assert (str(made), made.type) == (text, c_uamqp.AMQPType.CompositeType)
    assert wire is None or made.encoded().hex() == wire


@pytest.mark.parametrize(
    "call",
    [
        lambda: c_uamqp.Messaging.create_source("x"),  # type: ignore[arg-type]
        lambda: c_uamqp.Messaging.create_target(c_uamqp.string_value(b"x")),  # type: ignore[arg-type]
        lambda: c_uamqp.Messaging.delivery_rejected("a", "b"),  # type: ignore[arg-type]
        lambda: c_uamqp.Messaging.delivery_rejected(b"a", b"b", native({"a": 1})),  # type: ignore[arg-type]
        lambda: c_uamqp.Messaging.delivery_modified(True, False, native({"a": 1})),  # type: ignore[arg-type]
    ],
)
def test_delivery_states_take_bytes_and_fields(call: Any) -> None:
    with pytest.raises(TypeError):
        call()
