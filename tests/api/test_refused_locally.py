"""A message that cannot be sent takes no other with it: one after another, in runs, by any way of sending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi import BatchMessage, Message, SendClient, errors, sender
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


class Huge(bytes):
    """As if it were larger than a message can be."""

    def __len__(self) -> int:
        return 1 << 32


class TooLarge(Message):
    def encode_message(self) -> bytes:
        return Huge(b"x")


class NoMemory(Message):
    def encode_message(self) -> bytes:
        raise MemoryError


def huge_body() -> Message:
    message = Message(b"x")
    message._raw = Huge(b"x")
    return message


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
    "4 GiB body": huge_body,
    "4 GiB": lambda: TooLarge(b"x"),
    "no memory": lambda: NoMemory(b"x"),
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
        peer.do(
            lambda: peer.engine.settle(
                peer.link, deliveries[0].delivery_id, deliveries[-1].delivery_id, True, b"\x00S$E"
            )
        )
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


def test_a_message_of_4_gib_is_told_what_is_wrong_with_it(broker: Broker) -> None:
    with (
        SendClient(broker.url + "/q") as client,
        pytest.raises(errors.ClientMessageError, match="4 GiB or more cannot be sent"),
    ):
        client.send_message(TooLarge(b"x"))


def test_memory_that_does_not_do_for_a_run_does_for_one_after_another(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sender.MessageSender._hand_over

    def hand_over(self: Any, buf: bytes, lens: Any, *more: Any) -> int:
        if lens is not None and len(lens) > 1:
            raise MemoryError
        return real(self, buf, lens, *more)

    monkeypatch.setattr(sender.MessageSender, "_hand_over", hand_over)
    with SendClient(broker.url + "/q") as client:
        client.queue_message(*good(20, True))
        assert client.send_all_messages(close_on_done=False) == [MessageState.SendComplete] * 20
    assert [str(message) for message in broker.messages("q")] == [str(n) for n in [20] * 20]
