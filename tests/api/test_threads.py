"""One SendClient, several threads."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from uamqp_cffi import Message, ReceiveClient, SendClient, authentication, errors
from uamqp_cffi._core.engine import records as r
from uamqp_cffi.broker import Broker
from uamqp_cffi.connection import Connection
from uamqp_cffi.constants import Delivery, MessageState

DONE, WAITING = MessageState.SendComplete, MessageState.WaitingToBeSent
LIMIT = 20.0


def run_all(*work: Any) -> list[BaseException]:
    """Run each function in a thread of its own; what they raised."""
    raised: list[BaseException] = []

    def guarded(fn: Any) -> None:
        try:
            fn()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(fn,), daemon=True) for fn in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), "a thread hangs"
    return raised


def test_threads_share_a_client(broker: Broker, client: SendClient) -> None:
    def send(name: int) -> None:
        for n in range(200):
            message = Message(b"%d-%d" % (name, n))
            client.send_message(message)
            assert message.state is DONE

    assert run_all(*[lambda name=name: send(name) for name in range(4)]) == []
    got = sorted(str(m) for m in broker.wait_for("q", 800))
    assert got == sorted(f"{name}-{n}" for name in range(4) for n in range(200))


def test_threads_share_a_connection(broker: Broker) -> None:
    auth = authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False)
    with Connection("localhost", auth) as connection:

        def send(name: int) -> None:
            mine = SendClient(broker.url + f"/q{name}")
            mine.open(connection=connection)
            for n in range(100):
                mine.send_message(Message(b"%d" % n))
            mine.close()

        assert run_all(*[lambda name=name: send(name) for name in range(4)]) == []
    for name in range(4):
        assert [str(m) for m in broker.wait_for(f"q{name}", 100)] == [str(n) for n in range(100)]


def test_queueing_while_another_thread_sends_loses_nothing(broker: Broker, client: SendClient) -> None:
    total = 20_000
    done = threading.Event()

    def queue() -> None:
        for n in range(total):
            client.queue_message(Message(b"%d" % n))
        done.set()

    def pump() -> None:
        while not done.is_set() or client.messages_pending():
            client.wait()

    assert run_all(queue, pump) == []
    assert [int(str(m)) for m in broker.wait_for("q", total)] == list(range(total))


def test_close_in_another_thread_wakes_who_waits(peer: Any) -> None:
    peer.accept = False
    client = SendClient(peer.url)
    messages = [Message(b"%d" % n) for n in range(3)]

    def close() -> None:
        peer.wait(r.Delivery, 3)
        client.close()

    started = time.monotonic()
    raised = run_all(*[lambda m=m: client.send_message(m) for m in messages], close)
    assert time.monotonic() - started < 5
    assert [type(error) for error in raised] == [errors.MessageHandlerError] * 3
    assert all("closed" in str(error) for error in raised)
    assert [(m.state, m.delivery) for m in messages] == [(WAITING, Delivery.UNKNOWN)] * 3
    assert len(client.pending_messages) == 3


def test_wait_in_a_client_closed_elsewhere_gives_false(peer: Any) -> None:
    peer.accept = False
    client = SendClient(peer.url)
    client.queue_message(Message(b"x"))
    client.open()
    said: list[bool] = []

    def close() -> None:
        peer.wait(r.Delivery)
        client.close()

    assert run_all(lambda: said.append(client.wait()), close) == []
    assert said == [False]


def test_an_error_reaches_every_thread(peer: Any) -> None:
    peer.accept = False
    client = SendClient(peer.url)

    def break_it() -> None:
        peer.wait(r.Delivery, 3)
        peer.do(lambda: peer.engine.detach(peer.link, True, peer.error("amqp:link:detach-forced")))

    raised = run_all(*[lambda: client.send_message(Message(b"x")) for _ in range(3)], break_it)
    assert [type(error) for error in raised] == [errors.LinkDetach] * 3
    client.close()


def test_a_slow_callback_delays_its_own_sender_only(broker: Broker, client: SendClient) -> None:
    entered, leave = threading.Event(), threading.Event()
    slow = Message(b"slow")

    def callback(result: Any, error: Any) -> None:
        entered.set()
        leave.wait(LIMIT)

    slow.on_send_complete = callback

    def other() -> None:
        assert entered.wait(LIMIT)
        client.send_message(Message(b"quick"))
        leave.set()

    assert run_all(lambda: client.send_message(slow), other) == []


def test_send_message_returns_after_its_callback(client: SendClient) -> None:
    """Whichever thread takes the outcome in."""

    def send() -> None:
        for _ in range(100):
            told: list[Any] = []
            message = Message(b"x")
            message.on_send_complete = lambda *args, told=told: told.append(args)
            client.send_message(message)
            assert len(told) == 1

    assert run_all(send, send, send) == []


def test_an_interrupt_leaves_the_client_usable_or_failed(broker: Broker, interrupted: Any) -> None:
    """Ctrl-C in the middle of sending, many times, at all sorts of moments: nothing hangs, nothing is counted twice."""
    came = 0
    for n in range(40):
        client = SendClient(broker.url + "/q")
        client.open()
        while not client.client_ready():
            continue
        messages = [Message(b"x" * 50) for _ in range(5000)]
        client.queue_message(*messages)
        failed = False

        def send() -> None:
            nonlocal failed
            try:
                client.send_all_messages(close_on_done=False)
            except errors.AMQPError:
                failed = True

        stopped = interrupted(0.0003 + n * 0.0001, send)
        came += stopped
        if stopped or failed:
            try:
                client.wait()
            except errors.AMQPError:
                assert {m.state for m in messages} <= {DONE, WAITING, MessageState.SendFailed}
        open_ones = sum(m.state is not DONE for m in messages)
        assert open_ones == len(client.pending_messages)
        client.close()
    assert came


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_was_at_it_hangs_nowhere(broker: Broker, client: SendClient) -> None:
    client.send_message(Message(b"x"))
    broker.put("r", "unread")
    receiver = ReceiveClient(broker.url + "/r")
    receiver.open()
    while not len(receiver._received_messages):
        receiver.do_work()
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        unread = receiver._received_messages.mutex
        with client._session._lock, receiver._session._lock, client._lock, receiver._lock, unread:
            inside.set()
            done.wait(LIMIT)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(LIMIT)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(10)
            for call in (lambda: client.send_message(Message(b"y")), receiver.receive_message_batch):
                with pytest.raises(errors.AMQPConnectionError, match="parent"):
                    call()
            client.close()
            receiver.close()
            code = 0
        finally:
            os._exit(code)
    done.set()
    thread.join(LIMIT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    receiver.close()
    client.send_message(Message(b"z"))
    assert [str(message) for message in broker.messages("q")] == ["x", "z"]
