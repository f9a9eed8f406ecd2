"""The asyncio classes and their event loop: what they use of it, what they leave behind, and that nothing stands still or goes
lost when a call is cancelled, a client is dropped, the loop is held up or ends. The scenarios of the blocking classes run on
a loop as well: see `tests/conftest.py`."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from uamqp_cffi import (
    ConnectionAsync,
    Message,
    MessageReceiverAsync,
    MessageSenderAsync,
    ReceiveClientAsync,
    SendClientAsync,
    SessionAsync,
    authentication,
    errors,
)  # fmt: skip
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine.values import composite, enc_str, enc_uint
from uamqp_cffi._core.transport import dial_async
from uamqp_cffi._core.transport.stream import Stream
from uamqp_cffi.async_ops import MgmtOperationAsync, connection_async
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, MessageState, SenderSettleMode
from uamqp_cffi.session import SharedInbox

try:
    import uvloop
except ImportError:
    uvloop = None

DONE, WAITING = MessageState.SendComplete, MessageState.WaitingToBeSent
LIMIT = 20.0
Main = Callable[..., Coroutine[Any, Any, Any]]


@pytest.fixture(
    params=[
        "asyncio",
        pytest.param(
            "uvloop",
            marks=[
                pytest.mark.uvloop,
                pytest.mark.skipif(uvloop is None, reason="uvloop is not installed (no wheel here)"),
            ],
        ),
    ]
)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Main], Any]]:
    """`run(main)`: as `asyncio.run(main())`, on each kind of loop. In the end nothing may be left: no task, no complaint of the
    loop, no warning about what was not closed or awaited."""
    complaints: list[Any] = []

    def runner(main: Main) -> Any:
        async def guarded() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            result = await asyncio.wait_for(main(), LIMIT)
            await asyncio.sleep(0)
            gc.collect(1)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left
            return result

        loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop()
        try:
            return loop.run_until_complete(guarded())
        finally:
            loop.close()

    gc.collect()  # what other tests left is theirs
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield runner
        gc.collect()
    assert complaints == []
    assert [str(w.message) for w in seen if issubclass(w.category, (ResourceWarning, RuntimeWarning))] == []


async def ready(client: Any) -> None:
    await client.open_async()
    while not await client.client_ready_async():
        pass


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until something is true, without touching any client."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


def here(broker: Broker) -> authentication.SASLAnonymous:
    return authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False)


# ---- what is used of the loop


def test_no_thread_and_no_executor(broker: Broker, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        used: list[Any] = []
        if uvloop is None or not isinstance(loop, uvloop.Loop):
            monkeypatch.setattr(loop, "run_in_executor", lambda *args: used.append(args))
        before = set(threading.enumerate())
        async with SendClientAsync(broker.url + "/q") as sender, ReceiveClientAsync(broker.url + "/q") as receiver:
            await sender.send_message_async(Message(b"x"))
            assert len(await receiver.receive_message_batch_async(1)) == 1
            started = {one for one in set(threading.enumerate()) - before if "broker" not in one.name.lower()}
            assert not started and not used

    run(main)


def test_waiting_does_not_poll(broker: Broker) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        rounds = 0
        once = loop._run_once

        def counted() -> None:
            nonlocal rounds
            rounds += 1
            once()

        async with ReceiveClientAsync(broker.url + "/q") as client:
            await ready(client)
            loop._run_once = counted
            try:
                assert await client.receive_message_batch_async(1, timeout=500) == []
            finally:
                del loop._run_once
        assert rounds < 12

    asyncio.run(main())


def test_a_wake_up_costs_the_same_however_many_tasks_wait(
    broker: Broker, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task hands nothing over by itself, and is woken for its own message only."""
    pumps: list[int] = []
    pump, send = SendClientAsync._pump, Stream.send
    writes: list[int] = []
    monkeypatch.setattr(SendClientAsync, "_pump", lambda self: (pumps.append(1), pump(self))[1])
    monkeypatch.setattr(Stream, "send", lambda self, data: (writes.append(1), send(self, data))[1])

    async def main() -> None:
        async with SendClientAsync(broker.url + "/q") as client:
            await ready(client)
            pumps.clear()
            writes.clear()
            messages = [Message(b"%d" % n) for n in range(3000)]
            await asyncio.gather(*[client.send_message_async(m) for m in messages])
            assert {m.state for m in messages} == {DONE}
            assert len(pumps) < 300 and len(writes) < 300

    run(main)
    assert [str(m) for m in broker.wait_for("q", 3000)] == [str(n) for n in range(3000)]


def test_tasks_on_a_client_that_is_not_attached_yet(broker: Broker, run: Any) -> None:
    async def main() -> None:
        client = SendClientAsync(broker.url + "/q")
        await asyncio.gather(*[client.send_message_async(Message(b"%d" % n)) for n in range(500)])
        await client.close_async()

    run(main)
    assert sorted(int(str(m)) for m in broker.wait_for("q", 500)) == list(range(500))


def test_a_leader_that_is_cancelled_hands_over(peer: Any, run: Any) -> None:
    peer.credit = 0

    async def main() -> None:
        async with SendClientAsync(peer.url) as client:
            await ready(client)
            tasks = [asyncio.ensure_future(client.send_message_async(Message(b"%d" % n))) for n in range(10)]
            await asyncio.sleep(0.02)
            for task in tasks[:5]:
                task.cancel()
            await asyncio.wait(tasks[:5])
            peer.do(lambda: peer.engine.flow(peer.link, 100))
            await asyncio.gather(*tasks[5:])
            await client.wait_async()

    run(main)
    assert len(peer.wait(r.Delivery, 10)) == 10


def test_a_leader_that_is_cancelled_when_a_record_has_woken_it_hands_over(
    peer: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.credit = 0
    poke = SharedInbox.poke

    async def main() -> None:
        async with SendClientAsync(peer.url) as client:
            await ready(client)
            first, second = (asyncio.ensure_future(client.send_message_async(Message(b"x"))) for _ in range(2))
            await asyncio.sleep(0.02)
            monkeypatch.setattr(SharedInbox, "poke", lambda inbox: (poke(inbox), first.cancel()))
            peer.do(lambda: peer.engine.flow(peer.link, 100))
            await second
            assert first.cancelled()
            await client.wait_async()

    run(main)


def test_every_task_gets_its_own_error(broker: Broker, run: Any) -> None:
    async def main() -> list[Any]:
        broker.script("q", outcome="rejected", condition="amqp:not-allowed")
        async with SendClientAsync(broker.url + "/q") as client:
            return await asyncio.gather(
                *[client.send_message_async(Message(b"%d" % n)) for n in range(50)], return_exceptions=True
            )

    assert [type(error) for error in run(main)] == [errors.ClientMessageError] * 50


@pytest.mark.parametrize("what", ["detach", "drop", "close"])
def test_every_task_learns_of_the_end(peer: Any, run: Any, what: str) -> None:
    peer.accept = False

    async def main() -> list[Any]:
        client = SendClientAsync(peer.url)
        messages = [Message(b"%d" % n) for n in range(50)]
        tasks = [asyncio.ensure_future(client.send_message_async(m)) for m in messages]
        await until(lambda: len(peer.records(r.Delivery)) == 50)
        if what == "detach":
            peer.do(lambda: peer.engine.detach(peer.link, True, peer.error("amqp:link:detach-forced")))
        elif what == "drop":
            await asyncio.get_running_loop().run_in_executor(None, peer.drop)
        else:
            await client.close_async()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await client.close_async()
        assert {m.state for m in messages} == {WAITING} and len(client.pending_messages) == 50
        return ends

    kind = errors.LinkDetach if what == "detach" else errors.MessageHandlerError
    assert [type(error) for error in run(main)] == [kind] * 50


def test_many_requests_at_once(broker: Broker, run: Any) -> None:
    broker.answer("PING", 200, "fine")

    async def main() -> list[Any]:
        async with SendClientAsync(broker.url + "/q") as client:
            sending = [client.send_message_async(Message(b"x")) for _ in range(20)]
            asking = [client.mgmt_request_async(Message(b"%d" % n), b"PING", timeout=5000) for n in range(20)]
            return (await asyncio.gather(*sending, *asking))[20:]

    assert [str(answer) for answer in run(main)] == [str(n) for n in range(20)]


def test_clients_share_a_connection(broker: Broker, run: Any) -> None:
    async def main() -> None:
        async with ConnectionAsync("localhost", here(broker)) as connection:
            clients = [SendClientAsync(f"{broker.url}/q{n}") for n in range(4)]
            for client in clients:
                await client.open_async(connection=connection)
            await asyncio.gather(*[c.send_message_async(Message(b"%d" % n)) for c in clients for n in range(50)])
            for client in clients:
                await client.close_async()
            assert connection._failure is None

    run(main)
    for n in range(4):
        assert [str(m) for m in broker.wait_for(f"q{n}", 50)] == [str(i) for i in range(50)]


def test_records_do_not_pile_up_while_nobody_awaits(peer: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_async, "_MANY", 20)

    async def main() -> None:
        async with SendClientAsync(peer.url) as client:
            await ready(client)
            session = client._session
            session._inbox.records.extend(r.SessionState(session._id, 0, 0) for _ in range(20))
            peer.do(lambda: peer.engine.flow(peer.link, 7))
            await until(lambda: not session._inbox.records)
            assert client.message_handler._credit == 7

    run(main)


def test_callbacks_run_in_awaited_calls_only(peer: Any, run: Any) -> None:
    async def main() -> None:
        told: list[Any] = []
        message = Message(b"x")
        message.on_send_complete = lambda result, error: told.append(result)
        async with SendClientAsync(peer.url) as client:
            await ready(client)
            peer.accept = False
            task = asyncio.ensure_future(client.send_message_async(message))
            await until(lambda: bool(peer.records(r.Delivery)))
            task.cancel()
            await asyncio.wait([task])
            (delivery,) = peer.records(r.Delivery)
            peer.accept = True
            peer.do(lambda: peer.answer(delivery))
            await asyncio.sleep(0.05)
            assert told == [] and client.pending_messages == [message]
            await client.wait_async()
            assert len(told) == 1 and message.state is DONE

    run(main)


# ---- cancelled at every await


class CancelledAt:
    """Await `work`; its task is cancelled at the `n`-th suspension: while it waits, or, `late`, just when what it waited for is
    done. `n` is above zero in the end if the work was over before."""

    def __init__(self, work: Coroutine[Any, Any, Any], n: int, late: bool) -> None:
        self.work, self.n, self.late = work, n, late

    def __await__(self) -> Any:
        inner = self.work.__await__()
        step: Callable[[Any], Any] = inner.send
        value: Any = None
        task = asyncio.current_task()
        assert task is not None
        while True:
            try:
                future = step(value)
            except StopIteration as end:
                return end.value
            self.n -= 1
            if self.n == -1:
                if self.late and future is not None:
                    future.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            try:
                value = yield future
                step = inner.send
            except BaseException as error:
                value, step = error, inner.throw


async def cancelled(work: Coroutine[Any, Any, Any], n: int, late: bool) -> tuple[bool, Any]:
    """Whether the work got to its end, and what it gave."""

    async def main() -> Any:
        return await CancelledAt(work, n, late)

    task = asyncio.ensure_future(main())
    await asyncio.wait([task])
    return (False, None) if task.cancelled() else (True, task.result())


def every_await(run: Any, scenario: Callable[[int], Coroutine[Any, Any, bool]]) -> int:
    """Run `scenario(n)` for n = 0, 1, ... until it says that it was not cancelled any more; how many there were."""
    for n in itertools.count():
        if run(lambda n=n: scenario(n)):
            return n
        assert n < 300
    raise AssertionError


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("mode", [SenderSettleMode.Unsettled, SenderSettleMode.Settled])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_send_cancelled_anywhere_is_sent_once_or_never(
    broker: Broker, run: Any, late: bool, mode: SenderSettleMode, size: int
) -> None:
    async def scenario(n: int) -> bool:
        client = SendClientAsync(f"{broker.url}/q{n}", send_settle_mode=mode)
        message, after = Message(b"x" * size), Message(b"after")
        whole, _ = await cancelled(client.send_message_async(message), n, late)
        known = bool(client.pending_messages) or message.state is DONE
        await client.send_message_async(after)
        await client.wait_async()
        assert after.state is DONE and message.state is (DONE if known else WAITING)
        await client.close_async()
        got = broker.wait_for(f"q{n}", 1 + known)
        assert sorted(len(b"".join(m.get_data())) for m in got) == sorted([5, size] if known else [5])
        return whole

    assert every_await(run, scenario) >= 2


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("how", ["batch", "iter", "stream"])
def test_a_receive_cancelled_anywhere_loses_no_message(broker: Broker, run: Any, late: bool, how: str) -> None:
    async def scenario(n: int) -> bool:
        queue = f"q{n}"
        for k in range(5):
            broker.put(queue, b"%d" % k)
        got: list[str] = []
        client = ReceiveClientAsync(f"{broker.url}/{queue}", timeout=100, shutdown_after_timeout=False)

        async def receive() -> None:
            if how == "batch":
                got.extend(str(m) for m in await client.receive_message_batch_async(5))
            elif how == "stream":
                await client.receive_messages_async(lambda m: got.append(str(m)))
            else:
                async for message in client.receive_messages_iter_async():
                    got.append(str(message))
                    await asyncio.sleep(0)
                    assert message.accept()

        whole, _ = await cancelled(receive(), n, late)
        assert client.auto_complete is True and client._message_received_callback is None
        while len(got) < 5:
            got += [str(m) for m in await client.receive_message_batch_async(5)]
        await client.close_async()
        assert got == [str(k) for k in range(5)]
        return whole

    assert every_await(run, scenario) >= 2


@pytest.mark.parametrize("late", [False, True])
def test_open_and_close_cancelled_anywhere_leave_nothing(broker: Broker, run: Any, late: bool) -> None:
    async def scenario(n: int) -> bool:
        client = SendClientAsync(broker.url + "/q")

        async def life() -> None:
            await ready(client)
            await client.send_message_async(Message(b"x"))
            await client.close_async()

        whole, _ = await cancelled(life(), n, late)
        await client.close_async()
        with pytest.raises(ValueError, match="closed"):
            await client.open_async()
        return whole

    assert every_await(run, scenario) >= 3
    end = time.monotonic() + LIMIT
    while broker.info("q").consumers:
        assert time.monotonic() < end


@pytest.mark.parametrize("late", [False, True])
def test_a_request_cancelled_anywhere_harms_no_other(broker: Broker, run: Any, late: bool) -> None:
    broker.answer("PING", 200, "fine")

    async def scenario(n: int) -> bool:
        async with SendClientAsync(broker.url + "/q") as client:
            whole, _ = await cancelled(client.mgmt_request_async(Message(b"1"), b"PING", timeout=5000), n, late)
            assert str(await client.mgmt_request_async(Message(b"2"), b"PING", timeout=5000)) == "2"
        return whole

    assert every_await(run, scenario) >= 2


def test_connecting_to_nowhere_can_be_cancelled(run: Any) -> None:
    """A port whose backlog is full answers nothing."""
    import socket

    async def main() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            fillers = [socket.socket() for _ in range(4)]
            for one in fillers:
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            client = SendClientAsync(f"amqp://127.0.0.1:{listener.getsockname()[1]}/q")
            task = asyncio.ensure_future(client.send_message_async(Message(b"x")))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])
            await client.close_async()
            for one in fillers:
                one.close()

    run(main)


@pytest.mark.parametrize("package", [None, "uamqp_cffi_of_mine"])
def test_a_blocking_call_names_its_twin_whoever_calls(package: str | None) -> None:
    """A script has no package; another may have a name that begins with ours."""
    caller = {"__package__": package, "__name__": package or "__main__", "client": SendClientAsync("amqp://h/q")}
    for code, names in (("client.open()", "SendClientAsync.open"), ("client.__enter__()", "SendClientAsync.open")):
        with pytest.raises(RuntimeError, match=rf"{names}\(\) would block .*await open_async\(\)"):
            exec(code, caller)


def test_the_lock_is_given_on_when_its_next_holder_is_cancelled(broker: Broker, run: Any) -> None:
    async def main() -> None:
        async with ConnectionAsync("localhost", here(broker)) as connection:
            await connection.lock_async()
            with pytest.raises(TimeoutError):
                await connection.lock_async(timeout=0.05)
            second = asyncio.ensure_future(connection.lock_async())
            third = asyncio.ensure_future(connection.lock_async())
            await asyncio.sleep(0)
            connection.release_async()
            second.cancel()  # it has the lock already, and does not know yet
            await asyncio.wait([second, third])
            assert second.cancelled() and third.exception() is None
            connection.release_async()
            connection.release_async()
            start = time.monotonic()
            await connection.sleep_async(0.05)
            await connection.work_async()
            assert time.monotonic() - start >= 0.05

    run(main)


def test_who_is_cancelled_as_time_runs_out_is_cancelled(broker: Broker, run: Any) -> None:
    """A loop that is held up finds the cancellation and the time-out of the lock together."""

    async def main() -> None:
        async with ConnectionAsync("localhost", here(broker)) as connection:
            await connection.lock_async()
            for cancel_first in (True, False):
                waits = asyncio.ensure_future(connection.lock_async(timeout=0.02))
                await asyncio.sleep(0)
                if cancel_first:
                    waits.cancel()
                time.sleep(0.04)
                if not cancel_first:
                    asyncio.get_running_loop().call_later(0, waits.cancel)
                await asyncio.wait([waits])
                assert waits.cancelled(), waits.exception()
            connection.release_async()

    run(main)


def test_who_no_longer_waits_for_the_lock_leaves_nothing_behind(broker: Broker, run: Any) -> None:
    async def main() -> None:
        async with ConnectionAsync("localhost", here(broker)) as connection:
            await connection.lock_async()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await connection.lock_async(timeout=0)
            cancelled = asyncio.ensure_future(connection.lock_async())
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            assert not connection._lock_turns._waiting
            connection.release_async()

    run(main)


# ---- time


def beating(peer: Any, milliseconds: int) -> None:
    """Have the peer announce an idle time-out, and keep to it."""
    opening = composite("open", container_id=enc_str("peer"), idle_time_out=enc_uint(milliseconds))
    peer.on[r.Open] = lambda p, record: p.engine.open(opening)


def test_heartbeats_go_out_while_nobody_awaits(peer: Any, run: Any) -> None:
    beating(peer, 300)

    async def main() -> None:
        async with SendClientAsync(peer.url) as client:
            await ready(client)
            await asyncio.sleep(1.2)
            await client.send_message_async(Message(b"x"))

    run(main)


def test_a_silent_peer_is_found(peer: Any, run: Any) -> None:
    hung = threading.Event()
    peer.accept = False

    async def main() -> None:
        async with SendClientAsync(peer.url, idle_timeout=300) as client:
            await ready(client)
            peer._todo.append(lambda: hung.wait(LIMIT))
            peer._wake.send(b"x")
            start = time.monotonic()
            with pytest.raises(errors.ConnectionClose) as caught:
                await client.send_message_async(Message(b"x"))
            assert 0.2 < time.monotonic() - start < 3
            assert caught.value.condition is not None and caught.value.action is None
            hung.set()

    try:
        run(main)
    finally:
        hung.set()


def test_a_loop_that_stood_still_does_not_make_the_peer_silent(broker: Broker, run: Any) -> None:
    async def main() -> None:
        async with SendClientAsync(broker.url + "/q", idle_timeout=400) as client:
            await ready(client)
            for _ in range(2):
                time.sleep(1.0)  # what users' code does
                await asyncio.sleep(0.1)
                await client.send_message_async(Message(b"x"))

    run(main)


# ---- a peer that does not read


def test_a_peer_that_does_not_read_bounds_what_is_held(peer: Any, run: Any) -> None:
    hung = threading.Event()

    async def main() -> None:
        messages = [Message(b"x" * 1_000_000) for _ in range(40)]
        async with SendClientAsync(peer.url, send_settle_mode=SenderSettleMode.Settled) as client:
            await ready(client)
            peer._todo.append(lambda: hung.wait(LIMIT))
            peer._wake.send(b"x")
            client.queue_message(*messages)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.wait_async(), 0.5)
            connection = client._connection
            assert connection._stream._transport.get_write_buffer_size() <= 256 << 10
            assert len(connection._wire.output()) < 8 << 20
            assert messages[-1].state is not DONE  # nothing is called done that the kernel does not have
            hung.set()
            await client.wait_async()
            assert {m.state for m in messages} == {DONE}

    try:
        run(main)
    finally:
        hung.set()
    assert len(peer.wait(r.Delivery, 40)) == 40


def test_what_the_kernel_never_had_is_not_delivered(peer: Any, run: Any) -> None:
    hung = threading.Event()

    async def main() -> None:
        messages = [Message(b"x" * 1_000_000) for _ in range(40)]
        client = SendClientAsync(peer.url)
        await ready(client)
        peer._todo.append(lambda: (hung.wait(LIMIT), setattr(peer, "_stop", True)))
        peer._wake.send(b"x")
        client.queue_message(*messages)
        task = asyncio.ensure_future(client.wait_async())
        await asyncio.sleep(0.3)
        hung.set()
        with pytest.raises(errors.AMQPConnectionError):
            await task
        assert {m.state for m in messages} == {WAITING}
        fates = [m.delivery for m in messages]
        assert fates[-1] is Delivery.NOT_DELIVERED and set(fates) <= {Delivery.UNKNOWN, Delivery.NOT_DELIVERED}
        assert fates == sorted(fates, key=[Delivery.UNKNOWN, Delivery.NOT_DELIVERED].index)
        await client.close_async()

    try:
        run(main)
    finally:
        hung.set()


# ---- blocking methods


def blocking_calls(broker: Broker) -> list[tuple[str, Callable[[], Any]]]:
    sender, receiver = SendClientAsync(broker.url + "/q"), ReceiveClientAsync(broker.url + "/q")
    connection = ConnectionAsync("localhost", here(broker))
    session = SessionAsync(connection)
    return [
        ("open", sender.open), ("close", sender.close), ("do_work", sender.do_work), ("client_ready", sender.client_ready),
        ("auth_complete", sender.auth_complete), ("wait", sender.wait), ("send_all_messages", sender.send_all_messages),
        ("send_message", lambda: sender.send_message(Message(b"x"))), ("open", sender.__enter__),
        ("mgmt_request", lambda: sender.mgmt_request(Message(b"x"), b"PING")),
        ("redirect", lambda: sender.redirect(None, None)),  # type: ignore[arg-type]
        ("receive_message_batch", receiver.receive_message_batch),
        ("receive_messages", lambda: receiver.receive_messages(print)),
        ("receive_messages_iter", receiver.receive_messages_iter),
        ("work", connection.work), ("destroy", connection.destroy), ("lock", connection.lock),
        ("sleep", lambda: connection.sleep(1)), ("mgmt_request", lambda: session.mgmt_request(Message(b"x"), b"PING")),
        ("execute", lambda: MgmtOperationAsync(session).execute(b"PING", None, Message(b"x"))),
    ]  # fmt: skip


def test_blocking_methods_name_their_twins_and_leave_nothing(broker: Broker, run: Any) -> None:
    async def main() -> None:
        for name, call in blocking_calls(broker):
            with pytest.raises(RuntimeError, match=rf"Async\.{name}\(\).*{name}_async"):
                call()

    run(main)
    assert not broker.info("q").consumers


# ---- overrides: one per name


@pytest.mark.parametrize("name", ["do_work_async", "client_ready_async", "auth_complete_async", "_client_run_async"])
@pytest.mark.parametrize("how", ["subclass", "instance"])
def test_overridden_steps_are_awaited(broker: Broker, run: Any, name: str, how: str) -> None:
    calls: list[str] = []

    class Mine(SendClientAsync):
        pass

    async def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        await asyncio.sleep(0)
        return await getattr(SendClientAsync, name)(self, *args, **kwargs)

    async def main() -> None:
        client = Mine(broker.url + "/q")
        if how == "subclass":
            setattr(Mine, name, step)
        else:
            setattr(client, name, step.__get__(client))
        client.queue_message(Message(b"1"), Message(b"2"))
        await client.send_message_async(Message(b"3"))
        assert set(await client.send_all_messages_async()) <= {DONE}

    run(main)
    assert calls
    assert [str(m) for m in broker.wait_for("q", 3)] == ["1", "2", "3"]


def test_an_overridden_send_is_awaited_for_every_message(broker: Broker, run: Any) -> None:
    seen: list[str] = []

    class Mine(MessageSenderAsync):
        async def send_async(self, message: Message, callback: Any, timeout: float = 0) -> bool:
            await asyncio.sleep(0.01)
            seen.append(str(message))
            if str(message) == "bad":
                raise ValueError("not this one")
            return await super().send_async(message, callback, timeout)

    async def main() -> None:
        async with SendClientAsync(broker.url + "/q") as client:
            client.sender_type = Mine
            results = await asyncio.gather(
                *[client.send_message_async(Message(body)) for body in ("a", "bad", "b")], return_exceptions=True
            )
            assert [type(result) for result in results] == [type(None), errors.ClientMessageError, type(None)]

    run(main)
    assert sorted(seen) == ["a", "b", "bad"]
    assert sorted(str(m) for m in broker.wait_for("q", 2)) == ["a", "b"]


def test_a_client_closed_under_an_overridden_send_leaves_no_task(broker: Broker, run: Any) -> None:
    class Mine(MessageSenderAsync):
        async def send_async(self, message: Message, callback: Any, timeout: float = 0) -> bool:
            await asyncio.sleep(LIMIT)
            return True

    async def main() -> None:
        client = SendClientAsync(broker.url + "/q")
        client.sender_type = Mine
        task = asyncio.ensure_future(client.send_message_async(Message(b"x")))
        await asyncio.sleep(0.1)
        await client.close_async()
        with pytest.raises(errors.MessageHandlerError):
            await task

    run(main)


@pytest.mark.parametrize("kind", ["sender_type", "receiver_type", "session_type", "connection_type"])
def test_types_are_used(broker: Broker, run: Any, kind: str) -> None:
    made: list[str] = []
    bases: dict[str, Any] = {
        "sender_type": MessageSenderAsync, "receiver_type": MessageReceiverAsync, "session_type": SessionAsync,
        "connection_type": ConnectionAsync,
    }  # fmt: skip
    broker.put("q", b"x")

    class Mine(bases[kind]):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(kind)
            super().__init__(*args, **kwargs)

    async def main() -> None:
        client = (
            ReceiveClientAsync(broker.url + "/q") if kind == "receiver_type" else SendClientAsync(broker.url + "/q")
        )
        setattr(client, kind, Mine)
        await ready(client)
        await client.close_async()

    run(main)
    assert made == [kind]


def test_links_by_hand(broker: Broker, run: Any) -> None:
    from uamqp_cffi import Source, Target

    async def main() -> None:
        sent: list[Any] = []
        got: list[Message] = []
        async with (
            ConnectionAsync("localhost", here(broker)) as connection,
            SessionAsync(connection, 100, 100) as session,
        ):
            source, target = Source(broker.url + "/q"), Target(broker.url + "/q")
            async with MessageSenderAsync(session, "me", target) as sender:
                async with MessageReceiverAsync(session, source, "me", got.append) as receiver:
                    assert await sender.send_async(Message(b"x"), lambda *args: sent.append(args))
                    while not (sent and got):
                        await connection.work_async()
                        await sender.work_async()
                        await receiver.work_async()
                    await receiver.reset_link_credit_async(5)
            broker.answer("PING", 200, "fine")
            operation = MgmtOperationAsync(session)
            status, answer, _ = await operation.execute_async(b"PING", None, Message(b"hello"), timeout=5000)
            assert (status, str(answer)) == (200, "hello")
            await operation.destroy_async()
            await session.destroy_async()
        assert str(got[0]) == "x" and sent[0][1] == 1

    run(main)


def test_an_iteration_left_early_restores_the_client(broker: Broker, run: Any) -> None:
    broker.put("q", b"1")
    broker.put("q", b"2")

    async def main() -> None:
        async with ReceiveClientAsync(broker.url + "/q") as client:
            seen: list[str] = []
            async for message in client.receive_messages_iter_async(on_message_received=lambda m: seen.append(str(m))):
                message.accept()
                break
            assert client.auto_complete is True and client._message_received_callback is None
            (second,) = await client.receive_message_batch_async(1)
            assert str(second) == "2" and second.settled

    run(main)


# ---- loops that end, clients that are dropped


@pytest.mark.parametrize("state", ["new", "connecting", "attached", "sending"])
def test_a_dropped_client_is_collected_with_its_transport(broker: Broker, run: Any, state: str) -> None:
    streams = []
    made = Stream.connection_made

    async def main() -> None:
        client = SendClientAsync(broker.url + "/q")
        await client.open_async()
        if state == "connecting":
            await client.client_ready_async()
        elif state != "new":
            await ready(client)
            streams.append(client._connection._stream)
        if state == "sending":
            client.queue_message(Message(b"x"))
            await client.do_work_async()
        del client
        gc.collect()
        await asyncio.sleep(0.2)
        gc.collect()
        await asyncio.sleep(0.05)
        assert all(stream._transport is None for stream in streams)

    assert made is Stream.connection_made
    run(main)


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_client_whose_connecting_was_cancelled_says_so(broker: Broker, run: Any, turns: int) -> None:
    async def main() -> None:
        client = SendClientAsync(broker.url + "/q")
        await client.open_async()
        sending = asyncio.ensure_future(client.send_message_async(Message(b"x")))
        while client._connection._task is None:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        client._connection._task.cancel()
        with pytest.raises(errors.AMQPConnectionError, match="cancelled"):
            await asyncio.wait_for(sending, 10)
        await client.close_async()

    run(main)


def test_a_client_belongs_to_one_loop(broker: Broker) -> None:
    client = SendClientAsync(broker.url + "/q")
    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    one.run_until_complete(client.send_message_async(Message(b"x")))
    with pytest.raises(RuntimeError, match="another event loop"):
        other.run_until_complete(client.send_message_async(Message(b"y")))
    assert client.pending_messages == []
    one.run_until_complete(client.send_message_async(Message(b"z")))
    one.run_until_complete(client.close_async())
    one.close()
    other.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the transport of a loop that was closed over it
def test_a_client_whose_loop_was_closed_is_lost_and_can_be_closed(broker: Broker) -> None:
    def outlive_a_loop(client: SendClientAsync) -> None:
        async def later() -> None:
            with pytest.raises(errors.AMQPConnectionError, match="loop"):
                await client.send_message_async(Message(b"y"))
            await client.close_async()

        asyncio.run(client.send_message_async(Message(b"x")))
        asyncio.run(later())

    outlive_a_loop(SendClientAsync(broker.url + "/q"))
    gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_sends_nothing_and_the_parent_goes_on(broker: Broker, run: Any) -> None:
    async def main() -> None:
        async with SendClientAsync(broker.url + "/q") as client:
            await client.send_message_async(Message(b"1"))
            child = os.fork()
            if not child:
                code = 1
                try:
                    client.send_message_async(Message(b"no")).send(None)
                except errors.AMQPConnectionError:
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            await client.send_message_async(Message(b"2"))

    run(main)
    assert [str(m) for m in broker.wait_for("q", 2)] == ["1", "2"]


ENDINGS = {
    "open clients": "await s.send_message_async(Message(b'x')); await r.receive_message_batch_async(1)",
    "a task that waits": "t = asyncio.ensure_future(r.receive_message_batch_async(1)); await asyncio.sleep(0.1)",
    "connecting": "await s.open_async(); await s.client_ready_async()",
    "a message on its way": "await s.open_async(); s.queue_message(Message(b'x')); await s.do_work_async()",
    "an iteration": "await s.send_message_async(Message(b'x'))\n    async for m in r.receive_messages_iter_async(): break",
    "dropped": "await s.send_message_async(Message(b'x')); del globals()['s']; del globals()['r']",
    "an error": "asyncio.get_running_loop().call_later(0.05, asyncio.current_task().cancel)\n"
    "    try: await r.receive_message_batch_async(1)\n    except asyncio.CancelledError: pass",
}


@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=pytest.mark.uvloop)])
@pytest.mark.parametrize("ending", list(ENDINGS))
def test_a_program_that_closes_nothing_ends_quickly_and_silently(
    broker: Broker, tmp_path: Path, ending: str, loop: str
) -> None:
    if loop == "uvloop" and uvloop is None:
        pytest.skip("uvloop is not installed (no wheel for this platform)")
    start = "asyncio.run(main())" if loop == "asyncio" else "import uvloop; uvloop.install(); asyncio.run(main())"
    script = f"""
import asyncio, time
from uamqp_cffi import Message, ReceiveClientAsync, SendClientAsync
s, r = SendClientAsync("{broker.url}/q"), ReceiveClientAsync("{broker.url}/q")
async def main():
    {ENDINGS[ending].replace("await s.", "await globals()['s'].").replace(" r.", " globals()['r'].")}
{start}
print(time.time())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert time.time() - float(done.stdout) < 5


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("host", ["localhost", "name.localhost", "name.invalid", "127.0.0.1"])
def test_eager_tasks_hold_nothing_up_where_a_host_cannot_be_had(
    host: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(*args: Any, **kwargs: Any) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "nobody knows it")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # novm
        monkeypatch.setattr(socket, "getaddrinfo", no_answer)
        client = SendClientAsync(f"amqp://{host}:1/q", use_tls=False)
        with pytest.raises(errors.AMQPConnectionError):
            await client.send_message_async(Message(b"x"))
        await client.close_async()

    run(main)


@pytest.mark.parametrize("close", ["close", "nothing"])
def test_a_client_closed_while_it_connects_leaves_no_socket_though_its_loop_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, close: str
) -> None:
    sockets: list[socket.socket] = []

    async def never(loop: Any, sock: socket.socket, where: Any) -> None:
        sockets.append(sock)
        await asyncio.sleep(3600)

    async def connecting() -> SendClientAsync:
        client = SendClientAsync("amqp://127.0.0.1:1/q")
        await client.open_async()
        while not sockets:
            await client.do_work_async()
        return client

    monkeypatch.setattr(dial_async, "_connect", never)
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(connecting())
    assert sockets[0].fileno() >= 0
    if close == "close":
        loop.run_until_complete(client.close_async())
        assert sockets[0].fileno() == -1
        assert not asyncio.all_tasks(loop)
    else:  # as asyncio.run() ends a loop
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert sockets[0].fileno() == -1
    loop.close()
