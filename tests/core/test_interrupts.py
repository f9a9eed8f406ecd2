"""Signals that are put off while the books are kept: `_core/waiting/interrupts.py`, and what is left when that is not enough."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from uamqp_cffi import Message, SendClient, errors
from uamqp_cffi._core.transport import stream
from uamqp_cffi._core.transport.poll import Poller
from uamqp_cffi._core.waiting import interrupts
from uamqp_cffi._core.waiting.interrupts import enter, leave, openly, whole
from uamqp_cffi._core.waiting.plan import Call, Plan, run
from uamqp_cffi.async_ops.client_async import SendClientAsync
from uamqp_cffi.async_ops.connection_async import ConnectionAsync
from uamqp_cffi.broker import Broker
from uamqp_cffi.connection import Connection
from uamqp_cffi.constants import Delivery, MessageState

pytestmark = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals come in the main thread"
)


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    """Python's own handler of Ctrl-C, which is there again after each test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert not interrupts._noted


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_comes_when_the_call_ends() -> None:
    done = []

    @whole
    def keep_books() -> None:
        ctrl_c()
        done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        keep_books()
    assert done == ["all of it"]


def test_an_interrupt_comes_when_the_call_waits_or_runs_user_code() -> None:
    waited: list[str] = []

    @whole
    def keep_books() -> None:
        ctrl_c()
        openly(waited.append, "too late")

    with pytest.raises(KeyboardInterrupt):
        keep_books()
    assert waited == []

    @whole
    def run_user_code() -> None:
        try:
            openly(ctrl_c)
        finally:
            ctrl_c()  # what ends because of an interrupt is not interrupted in its turn
            waited.append("in order")

    with pytest.raises(KeyboardInterrupt):
        run_user_code()
    assert waited == ["in order"]


def test_a_call_inside_of_user_code_puts_off_what_comes_in_it_alone() -> None:
    done = []

    @whole
    def inner() -> None:
        ctrl_c()
        done.append("inner")

    @whole
    def outer() -> None:
        openly(inner)
        done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert done == ["inner"]

    @whole
    def closed() -> None:
        inner()
        done.append("closed")

    with pytest.raises(KeyboardInterrupt):
        closed()
    assert done == ["inner", "inner", "closed"]


def test_outside_of_calls_the_handler_is_the_users_own(handler: Any) -> None:
    token = enter()
    assert signal.getsignal(signal.SIGINT) is not handler
    leave(token)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_that_user_code_sets_stays() -> None:
    came = []
    token = enter()
    openly(signal.signal, signal.SIGINT, lambda *args: came.append(1))
    nested = enter()
    ctrl_c()
    assert came == []
    leave(nested)
    assert came == [1]
    leave(token)
    ctrl_c()
    assert came == [1, 1]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_handler_that_user_code_sets_for_a_while_leaves_ours_as_it_was(handler: Any) -> None:
    came = []

    def user_code() -> None:
        before = signal.signal(signal.SIGINT, lambda *args: came.append(1))
        leave(enter())
        signal.signal(signal.SIGINT, before)

    token = enter()
    openly(user_code)
    ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        leave(token)
    assert came == []


def test_a_call_that_never_has_to_wait_is_interrupted_when_it_looks_for_replies() -> None:
    done = []
    poller = Poller()

    def plan() -> Plan[None]:
        try:
            while True:
                ctrl_c()
                done.append("step")
                yield Call(poller.wait, (0.0,))
        finally:
            yield Call(done.append, ("what has to be done at the end",))

    with pytest.raises(KeyboardInterrupt):
        run(plan(), lambda inbox, deadline: True)
    poller.close()
    assert done == ["step", "what has to be done at the end"]


def test_a_handler_that_does_not_raise_is_called_too() -> None:
    came = []
    signal.signal(signal.SIGINT, lambda *args: came.append(1))
    token = enter()
    ctrl_c()
    openly(len, "")
    assert came == [1]
    ctrl_c()
    leave(token)
    assert came == [1, 1]
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGALRM"])
def test_other_signals_that_have_a_handler_are_put_off_too(name: str) -> None:
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"there is no {name} here")

    def stop(*args: object) -> None:
        raise SystemExit(3)

    before = signal.signal(number, stop)
    try:
        token = enter()
        signal.raise_signal(number)
        with pytest.raises(SystemExit):
            leave(token)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)


def test_who_insists_is_let_through_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "PATIENCE", 0.0)
    token = enter()
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()
    leave(token)


def test_the_first_is_put_off_for_as_long_as_there_is_patience() -> None:
    token = enter()
    ctrl_c()
    ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        leave(token)


def test_other_threads_have_nothing_to_put_off(handler: Any) -> None:
    seen = []

    def other() -> None:
        token = enter()
        seen.append((token, signal.getsignal(signal.SIGINT)))
        leave(token)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [(None, handler)]


def attached(broker: Broker) -> SendClient:
    client = SendClient(broker.url + "/q")
    client.open()
    while not client.client_ready():
        pass
    return client


def test_an_interrupt_between_the_kernel_and_our_count_leaves_a_whole_connection(amqp_broker: Broker) -> None:
    with attached(amqp_broker) as client:
        real = client._connection._sock

        class Socket:
            """A socket whose `send` is followed by Ctrl-C."""

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def send(self, data: Any) -> int:
                sent: int = real.send(data)
                client._connection._sock = real
                ctrl_c()
                return sent

        client._connection._sock = Socket()
        message = Message("one")
        with pytest.raises(KeyboardInterrupt):
            client.send_message(message)
        assert client.wait()
        assert message.state is MessageState.SendComplete
        client.send_message(Message("two"))
    assert [str(one) for one in amqp_broker.messages("q")] == ["one", "two"]


def test_where_nothing_puts_it_off_what_was_in_flight_is_unknown(
    amqp_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "PATIENCE", 0.0)
    client = attached(amqp_broker)
    real = client._connection._sock

    class Socket:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def send(self, data: Any) -> int:
            real.send(data)
            ctrl_c()
            raise AssertionError("it is let through")

    client._connection._sock = Socket()
    messages = [Message(f"{n}") for n in range(20)]
    client.queue_message(*messages)
    with pytest.raises(KeyboardInterrupt):
        client.wait()
    client.close()
    assert client.pending_messages == messages
    assert {message.delivery for message in messages} == {Delivery.UNKNOWN}
    assert len(amqp_broker.wait_for("q", 20)) == 20


def test_a_close_that_was_interrupted_leaves_no_message_without_a_fate(
    amqp_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> bool:
        raise KeyboardInterrupt

    amqp_broker.script("q", "none")
    client = attached(amqp_broker)
    message = Message("one")
    client.queue_message(message)
    client.do_work()
    assert message.state is MessageState.WaitingForSendAck
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_wait_closed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.close()
    client.close()
    assert message.state is MessageState.WaitingToBeSent
    assert message.delivery is Delivery.UNKNOWN
    assert client.pending_messages == [message]


def test_on_a_loop_too_an_interrupt_comes_after_the_books_are_in_order(amqp_broker: Broker) -> None:
    loop = asyncio.new_event_loop()
    client = SendClientAsync(amqp_broker.url + "/q")
    loop.run_until_complete(client.send_message_async(Message("one")))
    connection: Any = client._connection
    real = connection._send

    def send(now: int) -> bool:
        connection._send = real
        sent: bool = real(now)
        ctrl_c()
        return sent

    connection._send = send
    message = Message("two")
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(client.send_message_async(message))
    loop.run_until_complete(client.wait_async())
    assert message.state is MessageState.SendComplete
    loop.run_until_complete(client.close_async())
    loop.close()
    assert [str(one) for one in amqp_broker.messages("q")] == ["one", "two"]


def test_a_handler_that_cancels_a_task_is_left_as_it_is() -> None:
    async def main() -> None:
        assert not interrupts.raises_anywhere()

    assert interrupts.raises_anywhere()
    if sys.version_info >= (3, 11):  # asyncio.run has a handler of its own
        asyncio.run(main())


def test_on_a_loop_an_interrupt_comes_out_of_the_loop_and_the_task_goes_on() -> None:
    loop = asyncio.new_event_loop()
    done = []

    async def work() -> str:
        ctrl_c()
        done.append("the step")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.append("the next")
        return "all of it"

    async def main() -> str:
        return str(await interrupts.Stepped(work()))

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    assert done == ["the step"]
    assert loop.run_until_complete(task) == "all of it"
    assert done == ["the step", "the next"]
    loop.close()


def test_what_a_step_raises_and_what_is_thrown_into_it_pass() -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            raise ValueError("cleaned up") from None

    async def main() -> None:
        await interrupts.Stepped(work())

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    loop.call_soon(loop.call_soon, task.cancel)
    with pytest.raises(ValueError, match="cleaned up"):
        loop.run_until_complete(task)
    loop.close()


def test_on_a_loop_an_interrupt_before_a_callback_begins_does_not_keep_it_from_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, done = interrupts.enter, []

    def enter() -> Any:
        monkeypatch.setattr(interrupts, "enter", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupts, "enter", enter)
    loop = asyncio.new_event_loop()
    loop.call_soon(interrupts.on_loop, done.append, "what came")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert done == ["what came"]
    loop.close()


def test_an_interrupt_while_a_client_connects_leaves_no_socket_behind(amqp_broker: Broker) -> None:
    """The socket is closed, or the connection goes on; `-W error::ResourceWarning` would fail this test else."""
    loop = asyncio.new_event_loop()
    client = SendClientAsync(amqp_broker.url + "/q")
    loop.call_soon(lambda: loop.call_soon(ctrl_c))
    task = loop.create_task(client.send_message_async(Message("one")))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)
    loop.run_until_complete(client.close_async())
    loop.close()
    assert len(amqp_broker.messages("q")) == 1


def test_an_interrupt_before_connecting_begins_is_told_to_those_who_wait(
    amqp_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(self: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ConnectionAsync, "_connect", connect)
    loop = asyncio.new_event_loop()
    client = SendClientAsync(amqp_broker.url + "/q")
    task = loop.create_task(client.send_message_async(Message("one")))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    with pytest.raises(errors.AMQPConnectionError, match="connecting was interrupted"):
        if not task.done():  # as it is where tasks are eager: connecting then begins in it
            loop.run_until_complete(task)
        loop.run_until_complete(client.send_message_async(Message("two")))
    loop.run_until_complete(client.close_async())
    loop.close()


def test_an_interrupt_while_bytes_are_brought_loses_none_of_them(
    amqp_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = []

    def on_loop(fn: Any, *args: Any) -> Any:
        if fn.__name__ == "_take_in" and not interrupted:
            interrupted.append(fn)
            raise KeyboardInterrupt
        return interrupts.on_loop(fn, *args)

    monkeypatch.setattr(stream, "on_loop", on_loop)
    loop = asyncio.new_event_loop()
    client = SendClientAsync(amqp_broker.url + "/q")
    task = loop.create_task(client.send_message_async(Message("one")))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)
    loop.run_until_complete(client.close_async())
    loop.close()
    assert len(amqp_broker.messages("q")) == 1
