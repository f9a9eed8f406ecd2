"""Deliveries that are no messages: with `auto_complete` they are rejected and told, never accepted, and the next one comes."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from uamqp_cffi import Message, ReceiveClient, errors
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine import sections
from uamqp_cffi._core.engine.values import composite, described_composite, enc_bool, enc_str, enc_uint
from uamqp_cffi.constants import ErrorCodes, MessageState

from .conftest import LIMIT, Peer

pytestmark = pytest.mark.both_drivers

ACCEPTED, REJECTED = 0x24, 0x25  # descriptors of the outcomes
UNREADABLE = [
    b"\x00Sp\xc0\x04\x03\x40\x40\x45" + b"\x00Su\xa0\x01x",  # a list as ttl
    b"\x00Ss\xc1\x01\x00" + b"\x00Su\xa0\x01x",  # a map as properties
    b"\x00Sy\xa0\x01x",  # a body with a descriptor that is none of a body
    b"\x00St\xc1\x01\x00" + b"\x00St\xc1\x01\x00" + b"\x00Su\xa0\x01x",  # a section twice
    b"\x00Su\xa1\x01x",  # a string as data
    b"\x00Su\xa0\x05x",  # cut off
]
GOOD = b"\x00Su\xa0\x04good"
WITH_MAP = Message(b"good", application_properties={"n": 1}).encode_message()


def sending(peer: Peer, *payloads: bytes) -> None:
    """The peer sends these to the link that attaches."""

    waiting = list(payloads)

    def attach(peer: Peer, record: r.Attach) -> None:
        answer = composite(
            "attach", name=enc_str(record.fields["name"]), handle=enc_uint(0), role=enc_bool(False),
            source=described_composite("source", address=enc_str("q")), target=described_composite("target"),
            initial_delivery_count=enc_uint(0),
        )  # fmt: skip
        peer.engine.attach(record.session, answer, record.link)

    def flow(peer: Peer, record: r.Credit) -> None:
        while waiting:
            peer.engine.send_messages(record.link, waiting.pop(0), None, 0, False, False)

    peer.on[r.Attach] = attach
    peer.on[r.Credit] = flow


def outcomes(peer: Peer, count: int) -> list[tuple[int, bytes]]:
    """What became of each of the deliveries, in order of their ids."""
    end = time.monotonic() + LIMIT
    while True:
        found = {
            number: (record.outcome, record.state)
            for record in peer.records(r.Settled)
            for number in range(record.first, record.last + 1)
        }
        if len(found) >= count:
            return [found[number] for number in sorted(found)]
        assert time.monotonic() < end, found
        time.sleep(0.001)


def assert_rejected(outcome: tuple[int, bytes]) -> None:
    assert outcome[0] == REJECTED
    assert ErrorCodes.DecodeError.value in outcome[1]


def batch(client: ReceiveClient) -> list[Message]:
    got: list[Message] = []
    while len(got) < 2:
        got += client.receive_message_batch(10)
    return got


def batch_with_callback(client: ReceiveClient) -> list[Message]:
    called: list[Message] = []
    while len(called) < 2:
        client.receive_message_batch(10, on_message_received=called.append)
    return called


def stream(client: ReceiveClient) -> list[Message]:
    got: list[Message] = []

    def take(message: Message) -> None:
        got.append(message)
        if len(got) == 2:
            client._shutdown = True

    client.receive_messages(take)
    return got


@pytest.mark.parametrize("receive", [batch, batch_with_callback, stream])
@pytest.mark.parametrize("payload", UNREADABLE, ids=["ttl", "properties", "descriptor", "twice", "data", "cut off"])
def test_what_cannot_be_read_is_rejected_and_the_next_one_comes(
    peer: Peer, payload: bytes, receive: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sending(peer, GOOD, payload, WITH_MAP)
    with caplog.at_level(logging.ERROR, "uamqp.receiver"), ReceiveClient(peer.url) as client:
        got = receive(client)
        first, second, third = outcomes(peer, 3)
    assert [str(message) for message in got] == ["good", "good"]
    assert first[0] == third[0] == ACCEPTED
    assert_rejected(second)
    (record,) = [record for record in caplog.records if "is no message, and is rejected" in record.message]
    with pytest.raises(errors.MessageDecodeError) as raised:
        sections.Sections(payload).check_all()
    assert str(raised.value) in record.message


def test_an_iteration_passes_by_what_cannot_be_read(peer: Peer) -> None:
    sending(peer, UNREADABLE[0], GOOD, UNREADABLE[1], WITH_MAP, GOOD)
    with ReceiveClient(peer.url) as client:
        messages = client.receive_messages_iter()
        assert [str(next(messages)) for _ in range(3)] == ["good"] * 3
        found = outcomes(peer, 4)
        messages.close()
    assert_rejected(found[0])
    assert found[1][0] == found[3][0] == ACCEPTED
    assert_rejected(found[2])


def test_who_settles_himself_gets_what_cannot_be_read(peer: Peer) -> None:
    sending(peer, UNREADABLE[0])
    with ReceiveClient(peer.url, auto_complete=False) as client:
        (message,) = client.receive_message_batch(1)
        assert message.state is MessageState.ReceivedUnsettled
        with pytest.raises(errors.MessageDecodeError, match="ttl"):
            _ = message.header
        message.reject()
        outcomes(peer, 1)


def test_a_callback_that_fails_on_what_cannot_be_read_rejects_it(peer: Peer) -> None:
    """Given back, it would come again for ever."""
    sending(peer, UNREADABLE[0], GOOD)
    with ReceiveClient(peer.url, auto_complete=False) as client:

        def take(message: Message) -> None:
            _ = message.header
            message.accept()
            client._shutdown = True

        client.receive_messages(take)
        first, second = outcomes(peer, 2)
    assert_rejected(first)
    assert second[0] == ACCEPTED
