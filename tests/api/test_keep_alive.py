"""`keep_alive_interval`: what arrives between two calls reaches the client and its callbacks, as with uamqp's thread."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from uamqp_cffi import AMQPClient, Connection, Message, ReceiveClient, ReceiveClientAsync, SendClient, errors
from uamqp_cffi._core.waiting import keepalive
from uamqp_cffi.authentication import JWTTokenAuth, SASLAnonymous
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import MessageState, ReceiverSettleMode

pytestmark = pytest.mark.both_drivers

SOON = 0.02
"""Seconds of an interval that a test waits for."""
NEVER = 3600.0
LIMIT = 10.0
UNSETTLED, SETTLED = MessageState.ReceivedUnsettled, MessageState.ReceivedSettled


@pytest.fixture
def idle(driver: Any) -> Callable[[Callable[[], Any]], Any]:
    """`idle(true)`: do nothing with the client until that is so, with asyncio in the loop; gives what it gives."""

    async def wait(true: Callable[[], Any]) -> Any:
        end = time.monotonic() + LIMIT
        while not (value := true()):
            assert time.monotonic() < end
            await asyncio.sleep(0.002)
        return value

    return lambda true: asyncio.run(wait(true)) if driver is None else driver.run(wait(true))


def attached(client: Any) -> Any:
    client.open()
    end = time.monotonic() + LIMIT
    while not client.client_ready():
        assert time.monotonic() < end
    return client


def runs(client: Any) -> bool:
    """Whether its worker does."""
    worker = client._keep_alive_thread
    return worker.is_alive() if isinstance(worker, threading.Thread) else not worker.done()


@pytest.fixture
def client(broker: Broker) -> Iterator[ReceiveClient]:
    with ReceiveClient(broker.url + "/q", keep_alive_interval=SOON, prefetch=10) as made:
        yield attached(made)


# ---- what reaches the client


@pytest.mark.parametrize("prefetch", [1, 10, 300])
def test_an_assigned_message_received_is_called_between_two_calls(broker: Broker, idle: Any, prefetch: int) -> None:
    got: list[Any] = []
    client = ReceiveClient(broker.url + "/q", keep_alive_interval=SOON, prefetch=prefetch)
    client._message_received = lambda message: (got.append(str(message)), message.release())
    with client:
        attached(client)
        broker.put("q", b"a")
        idle(lambda: got)
    assert got[0] == "a"
    assert broker.info("q").messages == 1


def test_what_is_released_there_comes_again_no_sooner_than_after_the_interval(broker: Broker, idle: Any) -> None:
    times: list[float] = []
    client = ReceiveClient(broker.url + "/q", keep_alive_interval=0.1, prefetch=1)
    client._message_received = lambda message: (times.append(time.monotonic()), message.release())
    with client:
        attached(client)
        broker.put("q", b"a")
        idle(lambda: len(times) == 3)
    assert all(later - earlier > 0.08 for earlier, later in pairwise(times))


def test_the_callback_of_the_last_call_is_called_between_two_calls(
    broker: Broker, client: ReceiveClient, idle: Any
) -> None:
    got: list[str] = []
    broker.put("q", b"one")
    client.receive_message_batch(1, on_message_received=lambda message: got.append(str(message)))
    broker.put("q", b"two")
    idle(lambda: len(got) == 2)
    assert got == ["one", "two"]
    assert [str(message) for message in client.receive_message_batch(10)] == ["two"]
    assert len(got) == 2  # it was not called again
    idle(lambda: broker.info("q").unsettled == 0)


def test_a_last_call_without_a_callback_leaves_messages_unread(
    broker: Broker, client: ReceiveClient, idle: Any
) -> None:
    got: list[str] = []
    broker.put("q", b"one")
    client.receive_message_batch(1, on_message_received=lambda message: got.append(str(message)))
    broker.put("q", b"two")
    assert [str(message) for message in client.receive_message_batch(1)] == ["two"]
    broker.put("q", b"three")
    idle(lambda: client._received_messages.qsize())
    assert got == ["one"] and broker.info("q").unsettled == 1
    client.close()
    assert [str(message) for message in broker.messages("q")] == ["three"]


def test_no_more_than_prefetch_is_taken_in(broker: Broker, idle: Any) -> None:
    for n in range(50):
        broker.put("q", f"m{n}")
    with ReceiveClient(broker.url + "/q", keep_alive_interval=SOON, prefetch=10) as client:
        attached(client)
        idle(lambda: client._received_messages.qsize() == 10)
        worked = client._connection._keeper._worked_at
        idle(lambda: client._connection._keeper._worked_at > worked + 2 * SOON)
        assert client._received_messages.qsize() == 10
        assert len(client.receive_message_batch(10)) == 10
    assert broker.info("q").messages == 40


def test_messages_received_and_deleted_are_kept_for_the_next_call(broker: Broker, idle: Any) -> None:
    mode = ReceiverSettleMode.ReceiveAndDelete
    with ReceiveClient(broker.url + "/q", keep_alive_interval=SOON, prefetch=10, receive_settle_mode=mode) as client:
        attached(client)
        broker.put("q", b"a")
        idle(lambda: client._received_messages.qsize() == 1)
        assert [str(message) for message in client.receive_message_batch(10)] == ["a"]
    assert broker.info("q").messages == 0


def test_a_callback_that_raises_is_logged_and_the_next_message_comes(
    broker: Broker, idle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[str] = []

    def fails(message: Message) -> None:
        got.append(str(message))
        if len(got) == 1:
            raise ValueError("the user's")
        message.accept()

    client = ReceiveClient(broker.url + "/q", keep_alive_interval=SOON, prefetch=10)
    client._message_received = fails
    with client:
        attached(client)
        broker.put("q", b"a")
        broker.put("q", b"b")
        idle(lambda: "b" in got)
        assert runs(client)
    assert "the user's" in caplog.text


def test_outcomes_of_messages_are_told_between_two_calls(broker: Broker, idle: Any) -> None:
    broker.script("q", "accepted", delay=0.05)
    told: list[Any] = []
    message = Message(b"m")
    message.on_send_complete = lambda result, error: told.append((result.name, error))
    with SendClient(broker.url + "/q", keep_alive_interval=SOON) as client:
        client.queue_message(message)
        end = time.monotonic() + LIMIT
        while message.state is MessageState.WaitingToBeSent:
            client.do_work()
            assert time.monotonic() < end
        idle(lambda: told)
    assert told == [("Ok", None)] and message.state is MessageState.SendComplete


def test_queued_messages_wait_for_a_call(broker: Broker, idle: Any) -> None:
    with SendClient(broker.url + "/q", keep_alive_interval=SOON) as client:
        attached(client)
        client.queue_message(Message(b"m"))
        keeper = client._connection._keeper
        worked = keeper._worked_at
        idle(lambda: keeper._worked_at > worked)
        idle(lambda: keeper._worked_at > worked + SOON)
        assert broker.info("q").received == 0
        client.wait()
    assert broker.info("q").received == 1


def test_every_client_on_the_connection_is_worked_for(broker: Broker, idle: Any) -> None:
    got: list[str] = []
    connection = Connection("localhost", SASLAnonymous("localhost", broker.port, use_tls=False))
    clients = [ReceiveClient(f"{broker.url}/q{n}", keep_alive_interval=SOON if n == 1 else None) for n in range(3)]
    for client in clients:
        client._message_received = lambda message: (got.append(str(message)), message.accept())
        client.open(connection=connection)
    for client in clients:
        attached(client)
    for n in range(3):
        broker.put(f"q{n}", f"m{n}")
    idle(lambda: len(got) == 3)
    for client in clients:
        client.close()
    connection.destroy()
    assert sorted(got) == ["m0", "m1", "m2"]


def test_clients_of_one_token_are_worked_for(idle: Any) -> None:
    got: list[str] = []
    url = "amqp://localhost/"
    with Broker(tokens=lambda *_: None) as broker:
        auth = JWTTokenAuth(
            url, url, lambda: SimpleNamespace(token="t", expires_on=time.time() + 99), port=broker.port, use_tls=False
        )
        connection = Connection("localhost", auth)
        clients = [ReceiveClient(f"{url}q{n}", keep_alive_interval=SOON) for n in range(2)]
        for n, client in enumerate(clients):
            client._message_received = lambda message: (got.append(str(message)), message.accept())
            client.open(connection=connection)
            attached(client)
            broker.put(f"q{n}", f"m{n}")
        idle(lambda: len(got) == 2)
        for client in clients:
            client.close()
        connection.destroy()


# ---- the token of an idle client


def test_the_token_of_an_idle_client_is_renewed(idle: Any) -> None:
    given: list[float] = []
    put: list[str] = []
    ahead = 0.0
    url = "amqp://localhost/q"

    def wall() -> float:
        return time.time() + ahead

    def get() -> Any:
        given.append(wall())
        return SimpleNamespace(token=f"t{len(given)}", expires_on=wall() + 100)

    with Broker(tokens=lambda audience, kind, token: put.append(token)) as broker:
        auth = JWTTokenAuth(url, url, get, port=broker.port, use_tls=False)
        with ReceiveClient(url, auth=auth, keep_alive_interval=SOON) as client:
            attached(client)
            exchange = client._connection._cbs
            exchange._wall = wall
            ahead = 95.0
            idle(lambda: len(put) == 2 and exchange._accepted == b"t2")
            ahead = 500.0  # the machine slept
            idle(lambda: exchange._accepted == b"t3")
    assert put == ["t1", "t2", "t3"]


@pytest.mark.parametrize("kind", ["sender", "receiver"])
def test_the_token_of_an_idle_client_is_renewed_though_the_interval_is_long(idle: Any, kind: str) -> None:
    put: list[str] = []
    url = "amqp://localhost/q"

    def get() -> Any:
        return SimpleNamespace(token=f"t{len(put) + 1}", expires_on=time.time() + 2)

    with Broker(tokens=lambda audience, kind, token: put.append(token)) as broker:
        auth = JWTTokenAuth(url, url, get, port=broker.port, use_tls=False, refresh_window=1.95)  # so, after 0.2 s
        made = (SendClient if kind == "sender" else ReceiveClient)(url, auth=auth, keep_alive_interval=NEVER)
        with made as client:
            attached(client)
            idle(lambda: len(put) == 2)
            assert runs(client)


def test_a_token_that_cannot_be_renewed_ends_keep_alive_and_is_told_to_the_next_call(idle: Any) -> None:
    ahead = 0.0
    url = "amqp://localhost/q"
    problem: list[Exception] = []

    def get() -> Any:
        if problem:
            raise problem[0]
        return SimpleNamespace(token="t", expires_on=time.time() + 100)

    with Broker(tokens=lambda *_: None) as broker:
        auth = JWTTokenAuth(url, url, get, port=broker.port, use_tls=False)
        with ReceiveClient(url, auth=auth, keep_alive_interval=SOON) as client:
            attached(client)
            problem.append(ConnectionError("no network"))
            client._connection._cbs._wall = lambda: time.time() + ahead
            ahead = 200.0
            idle(lambda: not runs(client))
            with pytest.raises(errors.TokenExpired) as caught:
                client.receive_message_batch(1)
            assert caught.value.__cause__ is problem[0]


# ---- its life


def test_there_is_a_worker_while_the_client_is_open(client: ReceiveClient, driver: Any) -> None:
    assert isinstance(client._keep_alive_thread, threading.Thread if driver is None else asyncio.Task)
    assert runs(client)
    worker = client._keep_alive_thread
    client.close()
    assert client._keep_alive_thread is None
    assert not worker.is_alive() if driver is None else worker.done()


@pytest.mark.parametrize("interval", [None, 0])
def test_without_an_interval_there_is_none(broker: Broker, interval: Any) -> None:
    with ReceiveClient(broker.url + "/q", keep_alive_interval=interval) as client:
        attached(client)
        assert client._keep_alive_thread is None and client._connection._keeper is None


@pytest.mark.parametrize("interval", [-1, float("nan"), float("inf")])
def test_an_interval_that_is_none_is_refused(broker: Broker, interval: float) -> None:
    with pytest.raises(ValueError, match="keep_alive_interval"):
        ReceiveClient(broker.url + "/q", keep_alive_interval=interval)


def test_close_does_not_wait_for_the_interval_to_pass(broker: Broker) -> None:
    client = attached(ReceiveClient(broker.url + "/q", keep_alive_interval=NEVER))
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 2.0


def test_clients_of_a_connection_have_one_worker_that_ends_with_the_last(broker: Broker, driver: Any) -> None:
    connection = Connection("localhost", SASLAnonymous("localhost", broker.port, use_tls=False))
    clients = [AMQPClient(broker.url + "/q", keep_alive_interval=NEVER) for _ in range(3)]
    for client in clients:
        client.open(connection=connection)
    workers = {client._keep_alive_thread for client in clients}
    assert len(workers) == 1
    (worker,) = workers
    clients[0].close()
    clients[1].close()
    assert runs(clients[2])
    clients[2].close()
    assert not worker.is_alive() if driver is None else worker.done()
    again = ReceiveClient(broker.url + "/q", keep_alive_interval=NEVER)
    again.open(connection=connection)
    assert runs(again) and again._keep_alive_thread is not worker
    again.close()
    connection.destroy()


def test_a_lost_connection_ends_it_and_is_told_to_the_next_call(
    broker: Broker, client: ReceiveClient, idle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "uamqp.client"):
        broker.drop_connections()
        idle(lambda: not runs(client))
    assert "keep-alive" in caplog.text
    for _ in range(2):
        with pytest.raises(errors.MessageHandlerError):
            client.do_work()
    client.close()
    assert client._keep_alive_thread is None


@pytest.mark.blocking("there a callback runs alone")
def test_a_client_may_be_closed_while_its_callback_runs(broker: Broker) -> None:
    running, go = threading.Event(), threading.Event()

    def slow(message: Message) -> None:
        running.set()
        go.wait(LIMIT)

    client = ReceiveClient(broker.url + "/q", keep_alive_interval=SOON)
    client._message_received = slow
    attached(client)
    broker.put("q", b"m")
    assert running.wait(LIMIT)
    closing = threading.Thread(target=client.close)
    closing.start()
    worker = client._keep_alive_thread
    go.set()
    closing.join(LIMIT)
    assert not closing.is_alive() and (worker is None or not worker.is_alive())
    assert broker.info("q").messages == 1


@pytest.mark.blocking("waiting calls in callbacks")
def test_a_callback_may_close_the_client(broker: Broker, idle: Any) -> None:
    client = ReceiveClient(broker.url + "/q", keep_alive_interval=SOON)
    closed: list[float] = []

    def close(message: Message) -> None:
        start = time.monotonic()
        client.close()
        closed.append(time.monotonic() - start)

    client._message_received = close
    attached(client)
    worker = client._keep_alive_thread
    broker.put("q", b"m")
    idle(lambda: closed)
    worker.join(LIMIT)
    assert not worker.is_alive() and closed[0] < 2.0
    assert broker.info("q").messages == 1


@pytest.mark.blocking("threads")
def test_a_thread_that_cannot_be_started_is_told_to_who_opens(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = ReceiveClient(broker.url + "/q", keep_alive_interval=SOON)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            client.open()
    assert client._keep_alive_thread is None
    client.close()
    assert client._keep_alive_thread is None


@pytest.mark.blocking("its own loop")
def test_a_task_that_cannot_be_made_is_told_to_who_opens(broker: Broker) -> None:
    async def main() -> None:
        client = ReceiveClientAsync(broker.url + "/q", keep_alive_interval=SOON)

        def refuse(loop: Any, work: Any, **options: Any) -> Any:
            work.close()
            raise RuntimeError("no more tasks")

        asyncio.get_running_loop().set_task_factory(refuse)
        with pytest.raises(RuntimeError, match="no more tasks"):
            await client.open_async()
        assert client._keep_alive_thread is None
        asyncio.get_running_loop().set_task_factory(None)
        await client.close_async()

    asyncio.run(main())


@pytest.mark.blocking("threads")
def test_a_client_that_is_dropped_is_collected_and_its_thread_ends(broker: Broker) -> None:
    client = attached(ReceiveClient(broker.url + "/q", keep_alive_interval=NEVER))
    worker, gone = client._keep_alive_thread, weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    worker.join(LIMIT)
    assert not worker.is_alive()


@pytest.mark.blocking("its own loop")
def test_a_loop_may_end_with_clients_that_are_kept_alive(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        client = ReceiveClientAsync(broker.url + "/q", keep_alive_interval=NEVER)
        await client.open_async()
        while not await client.client_ready_async():
            pass

    asyncio.run(main())
    gc.collect()
    assert "destroyed" not in caplog.text


@pytest.mark.blocking("threads")
def test_a_redirected_client_is_kept_alive_at_its_new_peer(broker: Broker, idle: Any) -> None:
    got: list[str] = []
    with Broker() as other, ReceiveClient(broker.url + "/q", keep_alive_interval=SOON) as client:
        client._message_received = lambda message: (got.append(str(message)), message.accept())
        attached(client)
        info = {b"hostname": b"other", b"port": other.port, b"address": f"amqp://localhost:{other.port}/q".encode()}
        redirect = errors.LinkRedirect(b"amqp:link:redirect", b"", info)
        client.redirect(redirect, SASLAnonymous("localhost", other.port, use_tls=False))
        attached(client)
        other.put("q", b"there")
        idle(lambda: got)
        assert runs(client)


def test_calls_and_keep_alive_get_on_with_each_other(broker: Broker) -> None:
    count = 2000
    for n in range(count):
        broker.put("q", f"m{n}")
    got: list[str] = []
    with ReceiveClient(broker.url + "/q", keep_alive_interval=0.001, prefetch=50) as client:
        while len(got) < count:
            got += [str(message) for message in client.receive_message_batch(50)]
        assert runs(client)
    assert got == [f"m{n}" for n in range(count)]
    assert broker.info("q").messages == broker.info("q").unsettled == 0


@pytest.mark.blocking("threads")
def test_sending_and_keep_alive_get_on_with_each_other(broker: Broker) -> None:
    with SendClient(broker.url + "/q", keep_alive_interval=0.001) as client:
        for n in range(300):
            client.send_message(Message(f"m{n}"))
        client.queue_message(*[Message(f"m{n}") for n in range(300, 2000)])
        client.wait()
    assert [str(message) for message in broker.messages("q")] == [f"m{n}" for n in range(2000)]


@pytest.mark.blocking("processes")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_no_worker_and_leaves_the_parent_s_alone(broker: Broker, idle: Any) -> None:
    got: list[str] = []
    client = ReceiveClient(broker.url + "/q", keep_alive_interval=SOON)
    client._message_received = lambda message: (got.append(str(message)), message.accept())
    with client:
        attached(client)
        child = os.fork()
        if not child:
            code = 1
            try:
                alive = client._keep_alive_thread.is_alive()
                client.close()
                with ReceiveClient(broker.url + "/other", keep_alive_interval=NEVER) as mine:
                    attached(mine)
                    code = 0 if not alive and runs(mine) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        broker.put("q", b"m")
        idle(lambda: got)
        assert runs(client)


@pytest.mark.slow
@pytest.mark.blocking("a process")
@pytest.mark.parametrize("ending", ["", "client.close()", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"])
def test_a_program_ends_while_its_callbacks_run(broker: Broker, ending: str, tmp_path: Path) -> None:
    """The callback writes to standard output all the time: a thread that is killed there would take its lock along."""
    program = f"""
        import sys, threading
        from uamqp_cffi import ReceiveClient
        called = threading.Event()
        def received(message):
            called.set()
            for n in range(200):
                print("x" * 100)
            message.release()
        client = ReceiveClient({broker.url!r} + "/q", keep_alive_interval=0.001, prefetch=1)
        client._message_received = received
        client.open()
        while not client.client_ready():
            pass
        called.wait()
        {ending}
    """
    broker.put("q", b"m")
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program)],
            cwd=tmp_path,  # not where the sources are
            capture_output=True,
            text=True,
            timeout=30,
        )
        if "SIGINT" in ending:
            assert done.returncode != 0 and done.stderr.rstrip().endswith("KeyboardInterrupt")
        else:
            assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.blocking("a worker alone")
def test_the_worker_is_woken_from_c_when_its_client_is_collected() -> None:
    """What an interrupt raises in the callback of a weak reference, Python drops."""

    class Collected:
        pass

    connection, seen = Collected(), []
    keeper = keepalive.Keeper(connection)

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename == keepalive.__file__:
            seen.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        del connection
        gc.collect()
    finally:
        sys.setprofile(None)
    assert keeper._connection() is None
    assert seen == []
    assert keeper._changed.wait(0)
    assert not keeper._changed.wait(0)
