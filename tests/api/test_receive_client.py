"""ReceiveClient against the embedded broker: ways of receiving, outcomes, time-outs, callbacks, threads, and that no message
gets lost or comes twice."""

from __future__ import annotations

import contextlib
import itertools
import queue
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import uamqp_cffi
from uamqp_cffi import Connection, Message, ReceiveClient, SendClient, Source, authentication, errors
from uamqp_cffi._core.engine import decode
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import ErrorCodes, MessageState, ReceiverSettleMode, SenderSettleMode

pytestmark = pytest.mark.both_drivers

UNSETTLED, SETTLED = MessageState.ReceivedUnsettled, MessageState.ReceivedSettled
LIMIT = 20.0


def fill(broker: Broker, count: int, address: str = "q") -> list[str]:
    bodies = [f"m{n}" for n in range(count)]
    for body in bodies:
        broker.put(address, body)
    return bodies


def texts(messages: Any) -> list[str]:
    return [str(message) for message in messages]


def left(broker: Broker, address: str = "q") -> list[str]:
    """What is in the queue once nobody holds anything of it."""
    end = time.monotonic() + LIMIT
    while broker.info(address).unsettled or broker.info(address).consumers:
        assert time.monotonic() < end, broker.info(address)
        time.sleep(0.001)
    return texts(broker.messages(address))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def client(broker: Broker) -> Iterator[ReceiveClient]:
    with ReceiveClient(broker.url + "/q") as made:
        yield made


# ---- batches


def test_a_batch_is_in_order_and_accepted(broker: Broker, client: ReceiveClient) -> None:
    sent = fill(broker, 50)
    got: list[Message] = []
    while len(got) < 50:
        batch = client.receive_message_batch(20)
        assert 0 < len(batch) <= 20
        got += batch
    assert texts(got) == sent
    assert all(m.state is SETTLED and m.settled for m in got)
    assert not got[0].accept()  # there is nothing to settle any more
    client.close()
    assert left(broker) == []


def test_a_batch_gives_what_there_is(broker: Broker, client: ReceiveClient) -> None:
    fill(broker, 3)
    got = client.receive_message_batch(100)
    while len(got) < 3:
        got += client.receive_message_batch(100)
    assert texts(got) == ["m0", "m1", "m2"]


def test_a_batch_waits_for_the_first_message(broker: Broker, client: ReceiveClient) -> None:
    timer = threading.Timer(0.1, broker.put, ("q", b"late"))
    timer.start()
    assert texts(client.receive_message_batch(10)) == ["late"]


def test_a_batch_is_empty_after_its_timeout(client: ReceiveClient) -> None:
    start = time.monotonic()
    assert client.receive_message_batch(10, timeout=150) == []
    assert 0.15 <= time.monotonic() - start < 2


def test_what_is_beyond_a_batch_comes_with_the_next(broker: Broker, client: ReceiveClient) -> None:
    sent = fill(broker, 10)
    assert texts(client.receive_message_batch(1)) == sent[:1]
    until(lambda: client.do_work() and client._received_messages.qsize() == 9)
    assert texts(client.receive_message_batch(4)) == sent[1:5]
    assert texts(client.receive_message_batch(300)) == sent[5:]


def test_a_batch_is_no_larger_than_prefetch(broker: Broker) -> None:
    with ReceiveClient(broker.url + "/q", prefetch=10) as client:
        with pytest.raises(ValueError, match="prefetch"):
            client.receive_message_batch(11)
        fill(broker, 30)
        assert 0 < len(client.receive_message_batch()) <= 10


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_is_of_one_at_least(client: ReceiveClient, size: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        client.receive_message_batch(size)


def test_the_callback_of_a_batch_sees_messages_before_they_are_accepted(broker: Broker, client: ReceiveClient) -> None:
    sent = fill(broker, 5)
    seen: list[tuple[str, MessageState]] = []
    got: list[Message] = []
    while len(got) < 5:
        got += client.receive_message_batch(5, on_message_received=lambda m: seen.append((str(m), m.state)))
    assert seen == [(body, UNSETTLED) for body in sent]
    assert texts(got) == sent and all(m.state is SETTLED for m in got)


def test_a_client_opens_by_itself(broker: Broker) -> None:
    broker.put("q", b"x")
    client = ReceiveClient(broker.url + "/q")
    assert texts(client.receive_message_batch(1)) == ["x"]
    client.close()


# ---- nothing gets lost, nothing comes twice


@pytest.mark.parametrize("mode", list(ReceiverSettleMode))
@pytest.mark.parametrize("read", [0, 1, 37, 250])
def test_unread_messages_go_back_at_close(broker: Broker, mode: ReceiverSettleMode, read: int) -> None:
    sent = fill(broker, 500)
    with ReceiveClient(broker.url + "/q", receive_settle_mode=mode, prefetch=100) as client:
        until(lambda: client.do_work() and not client._received_messages.empty())
        got: list[str] = []
        while len(got) < read:
            got += texts(client.receive_message_batch(min(100, read - len(got))))
    assert got == sent[:read]
    assert sorted([*got, *left(broker)]) == sorted(sent)
    assert not broker.dead("q")


def test_unread_messages_of_one_client_are_there_for_the_next(broker: Broker) -> None:
    sent = fill(broker, 1000)
    got: list[str] = []
    while len(got) < 1000:
        with ReceiveClient(broker.url + "/q", prefetch=64) as client:
            got += texts(client.receive_message_batch(10))
            for _ in range(min(3, 1000 - len(got))):
                with contextlib.closing(client.receive_messages_iter()) as messages:
                    message = next(messages)
                    got += texts([message])
                    message.accept()  # the iteration does when the next one is asked for
        left(broker)
    assert sorted(got) == sorted(sent)


def test_messages_that_the_user_holds_go_back_when_the_client_is_closed(broker: Broker) -> None:
    fill(broker, 3)
    with ReceiveClient(broker.url + "/q", auto_complete=False) as client:
        messages = client.receive_message_batch(3)
        messages[0].accept()
    assert left(broker) == ["m1", "m2"]


def test_read_messages_are_removed_from_the_queue_whatever_way_they_were_read(broker: Broker) -> None:
    fill(broker, 4)
    mode = ReceiverSettleMode.ReceiveAndDelete
    with ReceiveClient(broker.url + "/q", receive_settle_mode=mode) as client:
        until(lambda: client.do_work() and client._received_messages.qsize() == 4)
        assert str(client._received_messages.get()) == "m0"
        client._received_messages.task_done()
    assert left(broker) == ["m1", "m2", "m3"]


# ---- modes and outcomes


def test_receive_and_delete_settles_by_itself(broker: Broker) -> None:
    broker.put("q", b"x")
    with ReceiveClient(broker.url + "/q", receive_settle_mode=ReceiverSettleMode.ReceiveAndDelete) as client:
        (message,) = client.receive_message_batch(1)
        assert message.state is SETTLED and message.settled
        assert (
            not message.accept() and not message.reject() and not message.release() and not message.modify(True, False)
        )
    assert left(broker) == [] and not broker.dead("q")


@pytest.mark.parametrize("mode", list(ReceiverSettleMode))
def test_a_transfer_that_comes_settled_is_settled(broker: Broker, mode: ReceiverSettleMode) -> None:
    broker.put("q", b"x")
    settled = SenderSettleMode.Settled
    with ReceiveClient(
        broker.url + "/q", send_settle_mode=settled, receive_settle_mode=mode, auto_complete=False
    ) as client:
        (message,) = client.receive_message_batch(1)
        assert message.state is SETTLED and message.settled and not message.accept()
    assert left(broker) == []


@pytest.mark.parametrize(
    ("settle", "ready", "dead"),
    [
        (lambda m: m.accept(), 0, 0),
        (lambda m: m.reject("com.example:bad", "no good", {"why": "x"}), 0, 1),
        (lambda m: m.release(), 1, 0),
        (lambda m: m.modify(True, False), 1, 0),
    ],
)
def test_outcomes_reach_the_peer(broker: Broker, settle: Callable[[Message], bool], ready: int, dead: int) -> None:
    broker.put("q", b"x")
    with ReceiveClient(broker.url + "/q", auto_complete=False, prefetch=1) as client:
        (message,) = client.receive_message_batch(1)
        assert (message.state, message.settled) == (UNSETTLED, False)
        client.message_handler.reset_link_credit(0)
        assert settle(message) is True
        assert (message.state, message.settled) == (SETTLED, True)
        assert settle(message) is False
        until(lambda: client.do_work() and not broker.info("q").unsettled)
    assert (len(left(broker)), len(broker.dead("q"))) == (ready, dead)


def test_an_outcome_is_on_its_way_when_the_call_returns(broker: Broker) -> None:
    broker.put("q", b"x")
    with ReceiveClient(broker.url + "/q", auto_complete=False) as client:
        (message,) = client.receive_message_batch(1)
        message.accept()
        until(lambda: not broker.info("q").unsettled)  # though nobody steps the client


def test_settling_after_close_raises_and_leaves_the_message_unsettled(broker: Broker) -> None:
    broker.put("q", b"x")
    with ReceiveClient(broker.url + "/q", auto_complete=False) as client:
        (message,) = client.receive_message_batch(1)
    for settle in (message.accept, message.reject, message.release, lambda: message.modify(True, True)):
        with pytest.raises(errors.MessageHandlerError) as caught:
            settle()
        assert isinstance(caught.value, RuntimeError)
        assert (message.state, message.settled) == (UNSETTLED, False)
    assert left(broker) == ["x"]


def test_messages_to_be_sent_cannot_be_settled() -> None:
    with pytest.raises(TypeError):
        Message(b"x").accept()


def test_a_received_message_is_a_message(broker: Broker, client: ReceiveClient) -> None:
    properties = uamqp_cffi.message.MessageProperties(message_id="id", subject="s")
    sent = Message(
        {"k": [1, None]}, properties=properties, application_properties={"a": 1}, annotations={"x-opt": b"v"}
    )
    sent.header = uamqp_cffi.message.MessageHeader()
    sent.header.priority = 7
    with SendClient(broker.url + "/q") as sender:
        sender.send_message(sent)
    (message,) = client.receive_message_batch(1)
    assert message.get_data() == {b"k": [1, None]}
    assert message.properties is not None and message.properties.message_id == b"id"
    assert message.application_properties == {b"a": 1}
    assert message.annotations == {b"x-opt": b"v"}
    assert message.header is not None and message.header.priority == 7
    assert message.delivery_no == 0 and message.delivery_tag
    with pytest.raises(TypeError):
        message.gather()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 300_000])
def test_bodies_of_any_size_come_as_they_went(broker: Broker, client: ReceiveClient, size: int) -> None:
    body = b"x" * size
    broker.put("q", body)
    (message,) = client.receive_message_batch(1)
    assert list(message.get_data()) == [body]
    assert message.delivery_tag  # of the first frame, when there were many
    assert message.properties is None and message.header is None and message.annotations is None
    assert message.encode_message() == Message(body).encode_message()
    with pytest.raises(TypeError):
        message.gather()


# ---- callbacks


def test_a_timeout_may_be_longer_than_a_poll(broker: Broker) -> None:
    with ReceiveClient(broker.url + "/q") as client:
        thread = threading.Timer(0.2, broker.put, ("q", b"late"))
        thread.start()
        assert [str(message) for message in client.receive_message_batch(timeout=3e12)] == ["late"]
        thread.join()


def test_streaming_ends_with_the_timeout_and_closes(broker: Broker) -> None:
    sent = fill(broker, 700)
    client = ReceiveClient(broker.url + "/q", timeout=150, prefetch=50)
    got: list[tuple[str, MessageState]] = []
    messages: list[Message] = []

    def take(message: Message) -> None:
        got.append((str(message), message.state))
        messages.append(message)

    client.receive_messages(take)
    assert got == [(body, UNSETTLED) for body in sent]
    assert all(m.state is SETTLED for m in messages)
    assert client._received_messages.empty()
    assert client.do_work() is False
    assert left(broker) == []


def test_the_callback_may_settle(broker: Broker) -> None:
    fill(broker, 4)
    ends: list[Callable[[Message], bool]] = [
        lambda m: m.accept(), lambda m: m.reject(), lambda m: m.modify(True, True), lambda m: m.accept()
    ]  # fmt: skip
    with ReceiveClient(broker.url + "/q", timeout=150) as client:
        client.receive_messages(lambda m: ends[int(str(m)[1:])](m))
    assert left(broker) == []
    assert texts(broker.dead("q")) == ["m1", "m2"]  # undeliverable here is as good as rejected, as with RabbitMQ


def test_without_auto_complete_the_callback_has_to_settle(broker: Broker) -> None:
    sent = fill(broker, 3)
    got: list[str] = []
    with ReceiveClient(broker.url + "/q", timeout=100, auto_complete=False) as client:
        client.receive_messages(lambda m: got.append(str(m)))
    assert got == sent == left(broker)


@pytest.mark.parametrize("mode", list(ReceiverSettleMode))
def test_a_message_whose_callback_failed_is_given_back(
    broker: Broker, mode: ReceiverSettleMode, caplog: pytest.LogCaptureFixture
) -> None:
    fill(broker, 3)
    got: list[tuple[str, int | None]] = []

    def take(message: Message) -> None:
        failures = message.header.delivery_count if message.header is not None else None
        if str(message) == "m1" and not failures:
            raise KeyError("mine")
        got.append((str(message), failures))

    with ReceiveClient(broker.url + "/q", timeout=150, receive_settle_mode=mode) as client:
        client.receive_messages(take)
    assert sorted(got) == [("m0", None), ("m1", 1), ("m2", None)]  # it is delivered again, and counts as failed once
    assert "on_message_received failed" in caplog.text and "KeyError" in caplog.text
    assert broker.info("q").messages == broker.info("q").dead == 0


def test_a_failed_callback_of_a_batch_queues_nothing(broker: Broker, client: ReceiveClient) -> None:
    fill(broker, 1)

    def fail(message: Message) -> None:
        raise ValueError

    assert client.receive_message_batch(1, on_message_received=fail, timeout=200) == []


def test_a_runtime_error_of_the_callback_breaks_the_link(broker: Broker, client: ReceiveClient) -> None:
    fill(broker, 1)

    def fail(message: Message) -> None:
        raise RuntimeError("mine")

    for call in (
        lambda: client.receive_messages(fail),
        client.do_work,
        client.client_ready,
        client.receive_message_batch,
    ):
        with pytest.raises(errors.LinkDetach) as caught:
            call()  # type: ignore[operator]
        assert caught.value.condition == ErrorCodes.UnknownError
    client.close()
    assert left(broker) == ["m0"]


@pytest.mark.blocking("a loop is interrupted between its steps")
def test_ctrl_c_when_messages_are_about_to_be_handed_out_loses_nothing(broker: Broker, client: ReceiveClient) -> None:
    """The call that takes the turn is done, and what follows it has not begun."""
    assert client.receive_message_batch(1, timeout=1) == []
    receiver = client.message_handler
    turn = receiver._turn

    class Interrupted:
        def acquire(self, blocking: bool = True) -> bool:
            assert turn.acquire(blocking=blocking)
            raise KeyboardInterrupt

        def __getattr__(self, name: str) -> Any:
            return getattr(turn, name)

    receiver._turn = Interrupted()
    fill(broker, 1)
    with pytest.raises(KeyboardInterrupt):
        client.receive_message_batch(1)
    receiver._turn = turn
    got: list[str] = []
    other = threading.Thread(target=lambda: got.extend(texts(client.receive_message_batch(1, timeout=5000))))
    other.start()
    other.join(LIMIT)
    assert got == ["m0"]


@pytest.mark.blocking("a loop lets KeyboardInterrupt through")
def test_ctrl_c_in_a_callback_shuts_the_call_down(broker: Broker) -> None:
    fill(broker, 2)

    def interrupt(message: Message) -> None:
        raise KeyboardInterrupt

    with ReceiveClient(broker.url + "/q") as client:
        with pytest.raises(errors.AMQPClientShutdown) as caught:
            client.receive_messages(interrupt)
        assert isinstance(caught.value, KeyboardInterrupt)
    first, second = sorted(broker.messages("q"), key=str)
    assert (str(first), str(second)) == ("m0", "m1")
    assert first.header is not None and first.header.delivery_count == 1
    assert second.header is None


@pytest.mark.blocking("waits in a callback")
def test_a_callback_may_close(broker: Broker) -> None:
    sent = fill(broker, 100)
    got: list[str] = []
    client = ReceiveClient(broker.url + "/q")

    def take(message: Message) -> None:
        message.accept()
        got.append(str(message))
        if len(got) == 10:
            client.close()

    client.receive_messages(take)
    assert got == sent[:10]
    assert sorted(left(broker)) == sorted(sent[10:])


@pytest.mark.blocking("waits in a callback")
@pytest.mark.parametrize("call", ["batch", "messages", "next", "do_work"])
def test_a_call_from_a_callback_does_not_wait_for_its_own_link(broker: Broker, call: str) -> None:
    fill(broker, 3)
    got: list[str] = []
    with ReceiveClient(broker.url + "/q", timeout=300) as client:
        calls: dict[str, Callable[[], object]] = {
            "batch": lambda: client.receive_message_batch(1),
            "messages": lambda: client.receive_messages(lambda m: None),
            "next": lambda: next(client.receive_messages_iter(), None),
            "do_work": client.do_work,
        }
        inside: list[bool] = []

        def take(message: Message) -> None:
            assert not inside, "a callback inside a callback"
            inside.append(True)
            calls[call]()
            inside.pop()
            got.append(str(message))

        client.receive_messages(take)
    assert got == ["m0", "m1", "m2"]
    assert left(broker) == []


@pytest.mark.blocking("waits in a callback")
def test_a_callback_may_send(broker: Broker) -> None:
    sent = fill(broker, 20)
    with SendClient(broker.url + "/copies") as sender, ReceiveClient(broker.url + "/q", timeout=150) as client:
        client.receive_messages(lambda m: sender.send_message(Message(str(m))))
    assert texts(broker.messages("copies")) == sent
    assert left(broker) == []


# ---- generators


@pytest.mark.blocking("a generator owns auto_complete while it lives")
def test_a_message_is_accepted_when_the_next_is_asked_for(broker: Broker, client: ReceiveClient) -> None:
    fill(broker, 3)
    messages = client.receive_messages_iter()
    first = next(messages)
    assert client.auto_complete is False
    assert (str(first), first.state) == ("m0", UNSETTLED)
    second = next(messages)
    assert (str(second), first.state, second.state) == ("m1", SETTLED, UNSETTLED)
    messages.close()
    assert second.state is UNSETTLED
    assert client.auto_complete is True
    client.close()
    assert left(broker) == ["m1", "m2"]


@pytest.mark.parametrize("way", ["break", "raise", "return"])
def test_a_loop_that_is_left_does_not_accept_the_message_it_was_at(broker: Broker, way: str) -> None:
    fill(broker, 3)

    def work(client: ReceiveClient) -> None:
        for message in client.receive_messages_iter():
            if str(message) == "m1":
                if way == "break":
                    break
                if way == "return":
                    return
                raise KeyError("mine")

    with ReceiveClient(broker.url + "/q") as client, contextlib.suppress(KeyError):
        work(client)
    assert left(broker) == ["m1", "m2"]


def test_a_generator_ends_with_the_timeout_and_closes(broker: Broker) -> None:
    sent = fill(broker, 40)
    client = ReceiveClient(broker.url + "/q", timeout=150, prefetch=7)
    seen: list[str] = []
    assert texts(client.receive_messages_iter(lambda m: seen.append(str(m)))) == sent == seen
    assert client.do_work() is False
    assert left(broker) == []


def test_a_generator_without_auto_complete_settles_nothing(broker: Broker) -> None:
    fill(broker, 2)
    with ReceiveClient(broker.url + "/q", auto_complete=False, timeout=100) as client:
        assert [m.state for m in client.receive_messages_iter()] == [UNSETTLED, UNSETTLED]
    assert left(broker) == ["m0", "m1"]


def test_messages_a_generator_left_go_to_the_callback_of_the_next_call(broker: Broker) -> None:
    sent = fill(broker, 10)
    got: list[str] = []
    with ReceiveClient(broker.url + "/q", timeout=150) as client:
        until(lambda: client.do_work() and client._received_messages.qsize() == 10)
        with contextlib.closing(client.receive_messages_iter()) as messages:  # PyPy would close it some time later
            message = next(messages)
            got.append(str(message))
            message.accept()
        client.receive_messages(lambda m: got.append(str(m)))
    assert got == sent
    assert left(broker) == []


# ---- time-outs


def test_a_timeout_shuts_a_client_of_batches_down(broker: Broker) -> None:
    client = ReceiveClient(broker.url + "/q", timeout=100)
    start = time.monotonic()
    assert client.receive_message_batch(1) == []
    assert 0.1 <= time.monotonic() - start < 3
    fill(broker, 1)
    assert client.receive_message_batch(1) == []  # at once, for good
    client.close()


def test_a_timeout_need_not_shut_down(broker: Broker) -> None:
    with ReceiveClient(broker.url + "/q", timeout=100, shutdown_after_timeout=False) as client:
        assert client.receive_message_batch(1) == []
        got: list[str] = []
        client.receive_messages(lambda m: got.append(str(m)))
        assert list(client.receive_messages_iter()) == [] == got
        fill(broker, 1)
        assert texts(client.receive_message_batch(1)) == ["m0"]
        assert client.do_work() is True


def test_the_clock_of_the_timeout_starts_again_with_each_message(broker: Broker) -> None:
    start = time.monotonic()
    got = []
    broker.put("q", b"x")
    with ReceiveClient(broker.url + "/q", timeout=900) as client:
        for message in client.receive_messages_iter():
            got.append(str(message))
            if len(got) < 4:
                threading.Timer(0.4, broker.put, ("q", b"x")).start()
    assert got == ["x"] * 4
    assert time.monotonic() - start >= 3 * 0.4 + 0.9


def test_steps_stop_at_the_timeout(broker: Broker) -> None:
    client = ReceiveClient(broker.url + "/q", timeout=100)
    client.open()
    until(lambda: not client.do_work())
    client.close()


def test_the_timeout_may_be_changed_while_open(client: ReceiveClient) -> None:
    client._timeout = 50
    assert list(client.receive_messages_iter()) == []


# ---- what others reach for


def test_a_replaced_message_received_is_used(broker: Broker, client: ReceiveClient) -> None:
    fill(broker, 3)
    got: list[str] = []

    def mine(message: Message) -> None:
        client._was_message_received = True
        got.append(str(message))
        message.release() if str(message) == "m1" else message.accept()

    client._message_received = mine  # type: ignore[method-assign]
    until(lambda: client.do_work() and len(got) >= 4)
    assert got[:4] == ["m0", "m1", "m2", "m1"]
    assert client._received_messages.empty()


def test_an_overridden_message_received_is_used(broker: Broker) -> None:
    sent = fill(broker, 3)

    class Mine(ReceiveClient):
        count = 0

        def _message_received(self, message: Message) -> None:
            self.count += 1
            super()._message_received(message)

    with Mine(broker.url + "/q") as client:
        got: list[str] = []
        while len(got) < 3:
            got += texts(client.receive_message_batch(3))
        assert (got, client.count) == (sent, 3)


def test_the_queue_of_received_messages_is_a_queue(broker: Broker) -> None:
    sent = fill(broker, 5)
    with ReceiveClient(broker.url + "/q", auto_complete=False, prefetch=5) as client:
        received = client._received_messages
        assert isinstance(received, queue.Queue) and received.empty()
        while not client.client_ready():
            continue
        until(lambda: client.do_work() and received.qsize() == 5)
        got = []
        while not received.empty():
            got.append(received.get())
            received.task_done()
        received.join()
        assert texts(got) == sent
        for message in got:
            assert message.accept()
    assert left(broker) == []


def test_streaming_may_be_set_up_from_outside(broker: Broker) -> None:
    sent = fill(broker, 5)
    got: list[str] = []
    with ReceiveClient(broker.url + "/q", auto_complete=False) as client:
        client._streaming_receive = True
        client._message_received_callback = lambda m: got.append(str(m))
        until(lambda: client.do_work() and len(got) == 5)
        assert client._received_messages.empty()
    assert got == sent == left(broker)


@pytest.mark.blocking("overrides blocking methods")
@pytest.mark.parametrize("name", ["do_work", "client_ready", "auth_complete", "_client_ready", "_client_run"])
@pytest.mark.parametrize("how", ["subclass", "instance"])
def test_overridden_steps_are_called(broker: Broker, name: str, how: str) -> None:
    calls: list[str] = []
    sent = fill(broker, 3)

    class Mine(ReceiveClient):
        pass

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return getattr(ReceiveClient, name)(self, *args, **kwargs)

    client = Mine(broker.url + "/q", timeout=150)
    setattr(Mine if how == "subclass" else client, name, step if how == "subclass" else step.__get__(client))
    assert texts(client.receive_messages_iter()) == sent and calls


@pytest.mark.blocking("overrides blocking methods")
def test_an_overridden_do_work_may_end_a_call(broker: Broker) -> None:
    class Mine(ReceiveClient):
        def do_work(self, **kwargs: Any) -> bool:
            return False

    with Mine(broker.url + "/q") as client:
        assert client.receive_message_batch(1) == []
        assert list(client.receive_messages_iter()) == []
        client.receive_messages(print)


@pytest.mark.blocking("threads")
def test_shutdown_set_from_outside_ends_a_call(client: ReceiveClient) -> None:
    while not client.client_ready():
        continue
    threading.Timer(0.1, lambda: (setattr(client, "_shutdown", True), client._session._inbox.poke())).start()
    assert client.receive_message_batch(1) == []


def test_types_are_used(broker: Broker) -> None:
    made: list[str] = []

    class MyReceiver(uamqp_cffi.MessageReceiver):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(kwargs["name"])
            super().__init__(*args, **kwargs)

        def on_state_changed(self, previous_state: Any, new_state: Any) -> None:
            made.append(new_state.name)
            super().on_state_changed(previous_state, new_state)

    fill(broker, 1)
    client = ReceiveClient(broker.url + "/q")
    client.receiver_type = MyReceiver
    assert texts(client.receive_message_batch(1)) == ["m0"]
    client.close()
    assert made[0].startswith("receiver-link-")
    assert made[1:] == ["Opening", "Open", "Closing", "Idle"]


def test_a_receiver_of_the_users_own_takes_the_place_of_ours(broker: Broker, client: ReceiveClient) -> None:
    while not client.client_ready():
        continue
    client.message_handler.destroy()
    fill(broker, 3)
    client.message_handler = client.receiver_type(
        client._session,
        client._remote_address,
        client._name,
        on_message_received=client._message_received,
        name="again",
    )
    client.message_handler.open()
    while not client.client_ready():
        continue
    assert texts(client.receive_message_batch(1)) == ["m0"]
    client.close()
    assert left(broker) == ["m1", "m2"]


# ---- errors, life, threads


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="'prefetsch'"):
        ReceiveClient("amqp://localhost/q", prefetsch=1)
    with pytest.raises(ValueError):
        ReceiveClient("amqp://localhost")


def test_an_unopened_client() -> None:
    client = ReceiveClient("amqp://localhost/q")
    with pytest.raises(AttributeError):
        client.do_work()
    client.close()
    client.close()


def test_a_closed_client_says_so(client: ReceiveClient) -> None:
    client.close()
    with pytest.raises(ValueError, match="closed"):
        client.receive_message_batch(1)


def test_nobody_there() -> None:
    client = ReceiveClient("amqp://127.0.0.1:1/q")
    for _ in range(2):
        with pytest.raises(errors.AMQPConnectionError):
            client.receive_message_batch(1)
    client.close()


@pytest.mark.parametrize(
    ("fail", "cls"),
    [
        ("attach", errors.LinkDetach),
        ("detach", errors.LinkDetach),
        ("end", errors.AMQPConnectionError),
        ("close", errors.ConnectionClose),
        ("drop", errors.MessageHandlerError),
    ],
)
def test_what_breaks_is_raised_by_every_call(broker: Broker, fail: Any, cls: type[BaseException]) -> None:
    broker.script("q", fail=fail, condition="amqp:not-allowed", description="no")
    client = ReceiveClient(broker.url + "/q", timeout=5000)
    calls: list[Callable[[], object]] = [
        client.receive_message_batch, lambda: client.receive_messages(print), lambda: next(client.receive_messages_iter()),
        client.do_work, client.client_ready,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(cls) as caught:
            call()
        if fail != "drop":
            assert getattr(caught.value, "condition", None) == ErrorCodes.NotAllowed
        assert caught.value.delivery is None  # type: ignore[attr-defined]
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 5


def test_unread_messages_of_a_broken_link_are_the_peers(broker: Broker) -> None:
    fill(broker, 5)
    client = ReceiveClient(broker.url + "/q")
    until(lambda: bool(client.open() or client.do_work()) and client._received_messages.qsize() == 5)
    messages = client.receive_messages_iter()
    first = next(messages)
    broker.drop_connections()
    with pytest.raises(errors.MessageHandlerError):
        until(lambda: not client.do_work())
    with pytest.raises(errors.MessageHandlerError):
        client.receive_message_batch(5)
    assert client._received_messages.empty()
    with pytest.raises(RuntimeError):
        first.accept()
    messages.close()
    client.close()
    assert left(broker) == ["m0", "m1", "m2", "m3", "m4"]


def test_settled_messages_can_be_had_after_the_link_broke(broker: Broker) -> None:
    sent = fill(broker, 5)
    client = ReceiveClient(broker.url + "/q", send_settle_mode=SenderSettleMode.Settled)
    until(lambda: bool(client.open() or client.do_work()) and client._received_messages.qsize() == 5)
    broker.drop_connections()
    got = client.receive_message_batch(3)
    got += client.receive_message_batch(300)
    assert texts(got) == sent
    with pytest.raises(errors.MessageHandlerError):
        client.receive_message_batch(1)
    client.close()


@pytest.mark.blocking("threads")
def test_close_from_another_thread_ends_a_waiting_call(client: ReceiveClient) -> None:
    while not client.client_ready():
        continue
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(client.receive_message_batch(1)), daemon=True)
    thread.start()
    until(lambda: client._session._inbox.led)
    client.close()
    thread.join(LIMIT)
    assert got == [[]]


@pytest.mark.blocking("threads")
def test_threads_share_a_client(broker: Broker) -> None:
    sent = fill(broker, 2000)
    got: list[str] = []
    raised: list[BaseException] = []
    with ReceiveClient(broker.url + "/q", prefetch=50, timeout=2000) as client:

        def take() -> None:
            try:
                while len(got) < 2000:
                    got.extend(texts(client.receive_message_batch(7, timeout=500)))
            except BaseException as error:
                raised.append(error)

        threads = [threading.Thread(target=take, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
    assert not raised
    assert sorted(got) == sorted(sent)
    assert left(broker) == []


@pytest.mark.blocking("threads")
def test_clients_share_a_connection(broker: Broker) -> None:
    auth = authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False)
    with Connection("localhost", auth) as connection:
        clients = [ReceiveClient(f"{broker.url}/q{n}", prefetch=10) for n in range(3)]
        for n, client in enumerate(clients):
            fill(broker, 30, f"q{n}")
            client.open(connection=connection)
        got: list[list[str]] = [[], [], []]
        while sum(map(len, got)) < 90:
            for n, client in enumerate(clients):
                if len(got[n]) < 30:
                    got[n] += texts(client.receive_message_batch(4))
        for client in clients:
            client.close()
        assert not connection._closed
    assert got == [[f"m{n}" for n in range(30)]] * 3


# ---- nothing is lost, nothing comes twice


class Ledger:
    """What was done with each message, by whoever did it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._lock = threading.Lock()

    def add(self, messages: Any) -> None:
        with self._lock:
            self.done += texts(messages)


def in_batches(client: ReceiveClient, ledger: Ledger, dice: random.Random) -> None:
    """Some batches; the messages of one more stay unread or unsettled."""
    for _ in range(dice.randrange(4)):
        ledger.add(client.receive_message_batch(dice.randint(1, 40), timeout=100))


def by_callback(client: ReceiveClient, ledger: Ledger, dice: random.Random) -> None:
    """The callback fails now and then, and closes the client in the end."""
    left = dice.randrange(60)

    def callback(message: Message) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            client.close()
            return  # not accepted: the link is gone
        if dice.random() < 0.1:
            raise ValueError("not this time")
        ledger.add([message])

    client.receive_messages(callback)


def as_generator(client: ReceiveClient, ledger: Ledger, dice: random.Random) -> None:
    messages = client.receive_messages_iter()
    for message in itertools.islice(messages, dice.randrange(40)):
        ledger.add([message])
        message.accept()  # the iteration does when it is asked for the next one, and this one may be the last
    messages.close()


def by_hand(client: ReceiveClient, ledger: Ledger, dice: random.Random) -> None:
    client.auto_complete = False
    for message in client.receive_message_batch(dice.randint(1, 40), timeout=200):
        choice = dice.randrange(3)
        if choice == 0:
            assert message.accept()
            ledger.add([message])
        elif choice == 1:
            assert message.release()


def by_threads(client: ReceiveClient, ledger: Ledger, dice: random.Random) -> None:
    sizes = [dice.randint(1, 20) for _ in range(3)]

    def take(size: int) -> None:
        for _ in range(3):
            ledger.add(client.receive_message_batch(size, timeout=100))

    threads = [threading.Thread(target=take, args=(size,), daemon=True) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)


def in_steps(client: ReceiveClient, ledger: Ledger, dice: random.Random) -> None:
    """Nobody reads what comes but one message, which is not accepted."""
    client.open()
    for _ in range(dice.randrange(30)):
        client.do_work()
    if not client._received_messages.empty():
        message = client._received_messages.get()
        client._received_messages.task_done()
        if message.settled:
            ledger.add([message])


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(ReceiverSettleMode))
@pytest.mark.blocking("threads")
def test_every_message_is_processed_once_or_still_in_the_queue(broker: Broker, mode: ReceiverSettleMode) -> None:
    peek = mode is ReceiverSettleMode.PeekLock
    dice = random.Random(f"{mode}")
    sent = fill(broker, 2000)
    ledger = Ledger()
    ways = [in_batches, as_generator, in_steps, by_threads, *([by_callback, by_hand] if peek else [])]
    for turn in range(60):
        client = ReceiveClient(broker.url + "/q", prefetch=dice.randint(40, 300), timeout=150, receive_settle_mode=mode)
        with client:
            ways[turn % len(ways)](client, ledger, dice)
        there = left(broker)
        missing = sorted(set(sent) - set(ledger.done) - set(there))
        assert len(set(ledger.done)) == len(ledger.done), "processed twice"
        assert not set(ledger.done) & set(there), "processed, and there all the same"
        assert not missing, f"neither processed nor there, after turn {turn}"
    assert not broker.dead("q")
    assert len(ledger.done) > 300


@pytest.mark.slow
def test_a_connection_that_breaks_loses_nothing(broker: Broker) -> None:
    """A message that was accepted when the connection broke may come again, and none is lost."""
    sent = set(fill(broker, 20_000))
    done: set[str] = set()
    dice = random.Random(7)
    breaks = 0
    end = time.monotonic() + 2 * LIMIT
    while len(done) < len(sent):
        assert time.monotonic() < end, len(done)
        client = ReceiveClient(broker.url + "/q", prefetch=100, timeout=500)
        breaker = threading.Timer(dice.random() * 0.005, broker.drop_connections)
        batches = dice.randint(1, 60)
        try:
            while batch := client.receive_message_batch(dice.randint(1, 30)):
                done.update(texts(batch))
                batches -= 1
                if batches == 0:
                    breaker.start()
        except errors.AMQPConnectionError as error:
            assert error.retryable is not False
            breaks += 1
        if batches <= 0:
            breaker.join()
        client.close()
    assert done == sent and breaks > 1
    assert set(left(broker)) <= done


def test_a_generator_that_is_alive_at_exit_says_nothing(tmp_path: Path) -> None:
    program = """
        from uamqp_cffi import ReceiveClient, errors
        from uamqp_cffi.broker import Broker
        broker = Broker()
        broker.put("q", "one")
        client = ReceiveClient(broker.url + "/q")
        messages = client.receive_messages_iter()
        first = next(messages)
        broker.drop_connections()
        try:
            while client.do_work():
                pass
        except errors.MessageHandlerError:
            print(first)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n", "")


# ---- one-call helpers


@pytest.mark.blocking("one-call helpers")
def test_receive_message(broker: Broker) -> None:
    fill(broker, 2)
    message = uamqp_cffi.receive_message(broker.url + "/q")
    assert (str(message), message.settled) == ("m0", True)
    assert left(broker) == ["m1"]
    assert uamqp_cffi.receive_message(broker.url + "/empty", timeout=100) is None


@pytest.mark.blocking("one-call helpers")
def test_receive_messages(broker: Broker) -> None:
    sent = fill(broker, 10)
    got = uamqp_cffi.receive_messages(broker.url + "/q", max_batch_size=4)
    assert texts(got) == sent[: len(got)] and 0 < len(got) <= 4
    assert uamqp_cffi.receive_messages(broker.url + "/empty", timeout=100) == []
    source = Source(broker.url + "/q")
    rest = uamqp_cffi.receive_messages(source, auto_complete=False)
    assert rest and not rest[0].settled
    assert sorted([*texts(got), *left(broker)]) == sorted(sent)


def test_a_message_of_2_mib_passes_where_nobody_chose_a_size(broker: Broker) -> None:
    broker.put("q", b"x" * (2 << 20))
    with ReceiveClient(broker.url + "/q", timeout=5000) as client:
        (message,) = client.receive_message_batch(1)
    assert sum(map(len, message.get_data())) == 2 << 20


def test_a_broker_that_refuses_a_large_message_is_quoted_with_the_cure(broker: Broker) -> None:
    broker.put("q", b"x" * 5000)
    with ReceiveClient(broker.url + "/q", timeout=5000, max_message_size=1000) as client:
        with pytest.raises(errors.LinkDetach, match=r"5008 bytes.*max_message_size=") as caught:
            client.receive_message_batch(1)
    assert caught.value.condition is ErrorCodes.LinkMessageSizeExceeded
    assert broker.info("q").messages == 1


def test_max_message_size_is_announced_when_it_was_chosen_and_0_is_no_choice(broker: Broker) -> None:
    for chosen, announced in ((None, None), (0, None), (1 << 20, 1 << 20), (1 << 40, 256 << 20)):
        with ReceiveClient(broker.url + "/q", timeout=50, max_message_size=chosen) as client:
            client.receive_message_batch(1)
            assert client.message_handler is not None
            fields = decode.decode_exact(client.message_handler._performative())
            assert (fields[10] if len(fields) > 10 else None) == announced


def test_single_steps_bring_more_than_prefetch_to_who_takes_messages_from_the_queue(broker: Broker) -> None:
    """azure-servicebus asks for 50 with a prefetch of 10, makes steps until so many lie there, and waits 200 ms after a step
    that brought none."""
    sent = fill(broker, 100)
    with ReceiveClient(broker.url + "/q", prefetch=10, auto_complete=False) as client:
        until(lambda: client.client_ready())
        idle = 0
        while (lying := client._received_messages.qsize()) < 100:
            client.do_work()
            idle = 0 if client._received_messages.qsize() > lying else idle + 1
            assert idle < 100, f"{lying} messages lie there, and no more come"
        assert texts(client._received_messages.get() for _ in range(100)) == sent


def test_calls_that_wait_hold_no_more_than_prefetch(broker: Broker) -> None:
    fill(broker, 100)
    with ReceiveClient(broker.url + "/q", prefetch=10, auto_complete=False) as client:
        client.receive_message_batch(1)
        client.receive_message_batch(1)
        assert broker.info("q").unsettled <= 20  # half of it may lie unread when credit is given anew
