"""Batches: many messages in one transfer."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from uamqp_cffi import errors
from uamqp_cffi.constants import MessageState
from uamqp_cffi.message import BatchMessage, Message, MessageHeader, MessageProperties


def items(message: Message) -> list[Message]:
    return [Message.decode_from_bytes(data) for data in message.get_data()]


def test_a_batch_is_one_envelope_with_an_encoded_message_per_section() -> None:
    (envelope,) = BatchMessage([b"a", "b", {"k": 1}, Message("c"), [b"d", b"e"]]).gather()
    assert envelope.encode_message().startswith(bytes.fromhex("005375a006005375a00161"))
    assert [str(item) for item in items(envelope)] == ["a", "b", "{b'k': 1}", "c", "de"]
    assert envelope.get_message().message_format == 0x80013700
    assert envelope.state is MessageState.WaitingToBeSent


def test_the_envelope_carries_properties_annotations_and_header() -> None:
    batch = BatchMessage([b"a"], MessageProperties(subject="s"), {"k": 1}, {"x": 1}, MessageHeader())
    (envelope,) = batch.gather()
    back = Message.decode_from_bytes(envelope.encode_message())
    assert back.properties is not None
    assert back.properties.subject == b"s"
    assert back.annotations == {b"x": 1}
    assert back.header is not None
    assert back.application_properties is None
    assert items(back)[0].application_properties == {b"k": 1}


def test_application_properties_go_to_the_items_that_have_none() -> None:
    (envelope,) = BatchMessage(
        [Message(b"a", application_properties={"own": 1}), Message(b"b"), b"c"], application_properties={"k": 1}
    ).gather()
    assert [item.application_properties for item in items(envelope)] == [{b"own": 1}, {b"k": 1}, {b"k": 1}]


def test_items_may_hold_a_message_or_encode_themselves() -> None:
    class Event:
        message = Message(b"held")

    class Encoder:
        def encode_message(self) -> bytes:
            return Message(b"own").encode_message()

    (envelope,) = BatchMessage([Event(), Encoder()]).gather()
    assert [str(item) for item in items(envelope)] == ["held", "own"]


def test_a_batch_too_large_for_one_message_raises() -> None:
    batch = BatchMessage(["x" * 600_000] * 2)
    with pytest.raises(errors.MessageContentTooLarge):
        batch.gather()
    with pytest.raises(ValueError):
        batch.gather()


def test_the_limit_counts_items_envelope_and_offset() -> None:
    class Small(BatchMessage):
        max_message_length = 2 * 6 + 4

    assert Small([b"a", b"b"], properties=None).gather()
    with pytest.raises(errors.MessageContentTooLarge):
        Small([b"a", b"b"], properties=MessageProperties(subject="s")).gather()
    batch = Small([b"a", b"b"])
    batch.size_offset = 5
    with pytest.raises(errors.MessageContentTooLarge):
        batch.gather()


def test_many_messages_are_filled_one_after_another() -> None:
    class Small(BatchMessage):
        max_message_length = 20

    batch = Small([b"%d" % n for n in range(8)], multi_messages=True)
    made = list(batch.gather())
    assert [[str(item) for item in items(message)] for message in made] == [
        ["0", "1", "2"],
        ["3", "4", "5"],
        ["6", "7"],
    ]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_an_item_that_fits_no_message_raises_instead_of_making_an_empty_one(position: int) -> None:
    class Small(BatchMessage):
        max_message_length = 20

    bodies = [b"a", b"b"]
    bodies.insert(position, b"x" * 50)
    with pytest.raises(errors.MessageContentTooLarge):
        list(Small(bodies, multi_messages=True).gather())


def test_a_list_appended_to_before_sending_is_sent_whole() -> None:
    data: list[Any] = [b"a"]
    batch = BatchMessage(data=data)
    assert batch.data is batch._body_gen is data
    batch._body_gen.append(Message(b"b"))
    (envelope,) = batch.gather()
    assert [str(item) for item in items(envelope)] == ["a", "b"]
    assert list(batch.gather()), "a batch can be sent again"


def test_on_send_complete_is_that_of_every_message_made() -> None:
    class Small(BatchMessage):
        max_message_length = 7

    batch = Small([b"a", b"b"], multi_messages=True)
    batch.on_send_complete = print
    assert [message.on_send_complete for message in batch.gather()] == [print, print]


def test_an_empty_batch_encodes_as_no_bytes_so_that_it_has_a_size_to_add_to() -> None:
    (envelope,) = BatchMessage([]).gather()
    assert (envelope.encode_message(), envelope.get_message_encoded_size()) == (b"", 0)


def test_a_batch_has_the_attributes_of_a_message() -> None:
    batch = BatchMessage([b"a"])
    assert (batch.state, batch.settled, str(batch)) == (MessageState.WaitingToBeSent, False, "[b'a']")
    (envelope,) = batch.gather()
    assert batch.encode_message() == envelope.encode_message()
    assert batch.get_message().message_format == 0x80013700
    with pytest.raises(TypeError, match="gather"):
        BatchMessage([b"a"], multi_messages=True).encode_message()
    batch.header = header = MessageHeader()
    batch.properties = properties = MessageProperties(subject="s")
    assert (batch.header, batch.properties) == (header, properties)


def test_batches_pickle() -> None:
    batch = BatchMessage([b"a"], MessageProperties(subject="s"), {"k": 1}, multi_messages=True)
    other = pickle.loads(pickle.dumps(batch))
    assert [m.encode_message() for m in other.gather()] == [m.encode_message() for m in batch.gather()]
