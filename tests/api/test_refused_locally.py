"""A message that cannot be sent takes no other with it: one after another, in runs, by any way of sending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi import BatchMessage, Message, SendClient, errors
from uamqp_cffi._core.engine import records as r
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, MessageState

from .conftest import Peer

pytestmark = pytest.mark.both_drivers


class Odd:
    """Something that has no AMQP type."""


class Raises(dict[Any, Any]):
    """A map that fails while it is encoded."""

    def items(self) -> Any:
        raise RuntimeError("changed while it was read")


class Nothing(Message):
    """Overrides what it should not."""

    def encode_message(self) -> Any:
        return None


def unencodable_format() -> Message:
    message = Message(b"x", application_properties={"a": 1})
    message._format = "nonsense"  # as somebody may have set it
    return message


def too_large_format() -> Message:
    message = Message(b"x", application_properties={"a": 1})
    message._format = 1 << 40
    return message


BAD: dict[str, Callable[[], Message]] = {
    "annotation": lambda: Message(b"x", annotations={"a": Odd()}),
    "annotation key": lambda: Message(b"x", annotations={Odd(): 1}),
    "property": lambda: Message(b"x", application_properties={"a": 1 << 70}),
    "nested": lambda: Message(b"x", footer={"a": [[Odd()]]}),
    "raises": lambda: Message(b"x", annotations=Raises(a=1)),
    "format": unencodable_format,
    "large format": too_large_format,
    "no bytes": lambda: Nothing(b"x"),
    "empty batch": lambda: next(iter(BatchMessage([]).gather())),
}


def good(n: int, plain: bool) -> list[Message]:
    return [Message(f"{n}".encode(), **({} if plain else {"application_properties": {"n": i}})) for i in range(n)]


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "with properties"])
@pytest.mark.parametrize("bad", BAD)
def test_in_a_run_the_one_that_cannot_be_encoded_fails_alone(broker: Broker, bad: str, plain: bool) -> None:
    before, wrong, after = good(3, plain), BAD[bad](), good(3, plain)
    told: list[Any] = []
    wrong.on_send_complete = lambda result, error: told.append(error)
    with SendClient(broker.url + "/q") as client:
        client.queue_message(*before, wrong, *after)
        client.wait()
        assert client.pending_messages == []
        client.send_message(Message(b"last"))
    assert all(message.state is MessageState.SendComplete for message in [*before, *after])
    assert (wrong.state, wrong.delivery) == (MessageState.SendFailed, Delivery.NOT_DELIVERED)
    assert isinstance(told[0], errors.ClientMessageError)
    assert len(broker.messages("q")) == 7


@pytest.mark.parametrize("bad", BAD)
def test_alone_it_is_raised_and_the_client_goes_on(broker: Broker, bad: str) -> None:
    with SendClient(broker.url + "/q") as client:
        client.send_message(Message(b"first"))
        with pytest.raises(errors.ClientMessageError) as raised:
            client.send_message(BAD[bad]())
        assert raised.value.delivery is Delivery.NOT_DELIVERED
        client.send_message(Message(b"last"))
    assert [str(message) for message in broker.messages("q")] == ["first", "last"]


def test_what_is_on_its_way_keeps_its_outcome(peer: Peer) -> None:
    """Messages without outcome when another one cannot be sent."""
    peer.accept = False
    first = good(5, False)
    with SendClient(peer.url) as client:
        client.queue_message(*first)
        while len(peer.records(r.Delivery)) < 5:
            client.do_work()
        bad = [make() for make in BAD.values()]
        client.queue_message(*bad)
        client.do_work()
        client.do_work()
        assert all(message.state is MessageState.SendFailed for message in bad)
        assert all(message.state is MessageState.WaitingForSendAck for message in first)
        deliveries = peer.records(r.Delivery)
        peer.do(lambda: peer.engine.settle(peer.link, deliveries[0].delivery_id, deliveries[-1].delivery_id, True, b"\x00S$E"))
        client.wait()
    assert all(message.state is MessageState.SendComplete for message in first)


@pytest.mark.blocking("threads")
def test_other_threads_do_not_notice(broker: Broker) -> None:
    with SendClient(broker.url + "/q") as client:
        problems: list[BaseException] = []

        def send_good() -> None:
            try:
                for _ in range(30):
                    client.send_message(Message(b"good", application_properties={"a": 1}))
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=send_good) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(40):
            with pytest.raises(errors.ClientMessageError):
                client.send_message(list(BAD.values())[n % len(BAD)]())
        for thread in threads:
            thread.join()
    assert problems == []
    assert len(broker.messages("q")) == 90
