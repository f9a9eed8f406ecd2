"""The asyncio classes and other threads than the loop's: what does not wait may be called in any, and the loop alone touches the
transport (its debug mode raises where another does); what waits says which loop it belongs to."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme

from uamqp_cffi import Message, ReceiveClientAsync, SendClientAsync, authentication, receiver
from uamqp_cffi._core.transport.stream import Stream
from uamqp_cffi.async_ops import ConnectionAsync
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import MessageState

try:
    import uvloop
except ImportError:
    uvloop = None

LIMIT = 20.0
ON_UVLOOP = [pytest.mark.uvloop, pytest.mark.skipif(uvloop is None, reason="uvloop is not installed (no wheel here)")]


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=ON_UVLOOP)])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """As `asyncio.run`, on each kind of loop, in debug mode. Nothing may have gone wrong unseen."""

    def runner(main: Coroutine[Any, Any, Any]) -> Any:
        complaints: list[Any] = []
        loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = LIMIT
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        try:
            return loop.run_until_complete(asyncio.wait_for(main, LIMIT))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            assert complaints == []

    return runner


@pytest.fixture(autouse=True)
def touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever the connection does with its transport is done where the loop runs."""
    elsewhere: list[str] = []

    def guarded(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Stream, *args: Any) -> Any:
            if asyncio._get_running_loop() is not self._loop and not self._loop.is_closed():
                elsewhere.append(name)
            return method(self, *args)

        return call

    for name in ("send", "account", "goodbye"):
        monkeypatch.setattr(Stream, name, guarded(name, getattr(Stream, name)))
    yield
    assert elsewhere == []


@pytest.fixture(params=["plain", "tls"])
def peer(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[tuple[Broker, Callable[[], Any]]]:
    """A broker, and what makes auth objects for it."""
    if request.param == "plain":
        with Broker() as broker:
            yield broker, lambda: authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False)
        return
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Broker(ssl_context=context) as broker:
        yield (
            broker,
            lambda: authentication.SASLAnonymous("localhost", port=broker.port, verify=str(tmp_path / "ca.pem")),
        )


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until something is true, without touching any client."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


def test_messages_are_settled_by_worker_threads_while_the_loop_sends(peer: Any, run: Any) -> None:
    broker, auth = peer
    for n in range(300):
        broker.put("q", f"m{n}" + "x" * (n * 7 % 500))

    async def main() -> None:
        connection = ConnectionAsync("localhost", auth())
        client = ReceiveClientAsync(broker.url + "/q", auto_complete=False, prefetch=50)
        sender = SendClientAsync(broker.url + "/other")
        await client.open_async(connection)
        await sender.open_async(connection)
        accepted: list[bool] = []
        released: list[bool] = []
        with ThreadPoolExecutor(4) as pool:
            while len(accepted) < 300:
                for n, message in enumerate(await client.receive_message_batch_async(20, timeout=50)):
                    if n == 19:  # it comes again
                        pool.submit(lambda m=message: released.append(m.release()))
                    else:
                        pool.submit(lambda m=message: accepted.append(m.accept()))
                await sender.send_message_async(Message(bytes(3000)))
        assert all(accepted + released)
        await client.close_async()
        await sender.close_async()
        await connection.destroy_async()

    run(main())
    info = broker.info("q")
    assert (info.messages, info.unsettled, info.dead) == (0, 0, 0)
    assert broker.info("other").received > 10


def test_an_outcome_from_a_thread_leaves_though_nobody_awaits_the_client(peer: Any, run: Any) -> None:
    broker, auth = peer
    for n in range(3):
        broker.put("q", str(n))

    async def main() -> None:
        async with ReceiveClientAsync(broker.url + "/q", auth=auth(), auto_complete=False) as client:
            got: list[Message] = []
            while len(got) < 3:
                got += await client.receive_message_batch_async(3)
            assert await in_thread(got[0].accept) is True
            assert got[0].state is MessageState.ReceivedSettled and await in_thread(got[0].accept) is False
            await until(lambda: broker.info("q").unsettled == 2)
            assert await in_thread(lambda: got[1].reject("amqp:internal-error", "no")) is True
            await until(lambda: len(broker.dead("q")) == 1)
            assert await in_thread(got[2].release) is True
            await until(lambda: broker.info("q").unsettled <= 1)  # it comes again

    run(main())


def test_what_does_not_wait_works_in_another_thread(peer: Any, run: Any) -> None:
    broker, auth = peer
    for n in range(5):
        broker.put("q", str(n))

    async def main() -> None:
        connection = ConnectionAsync("localhost", auth())
        client = ReceiveClientAsync(broker.url + "/q", prefetch=1)
        sender = SendClientAsync(broker.url + "/sent")
        await client.open_async(connection)
        await sender.open_async(connection)
        assert len(await client.receive_message_batch_async(1)) == 1
        link = client.message_handler
        assert await in_thread(link.get_state) is link._states.Open
        await in_thread(lambda: link.reset_link_credit(4))
        await until(lambda: broker.info("q").unsettled + broker.info("q").delivered >= 5)
        await in_thread(lambda: sender.queue_message(*[Message(str(n)) for n in range(10)]))
        assert await in_thread(sender.messages_pending) and len(await in_thread(lambda: sender.pending_messages)) == 10
        await sender.wait_async()
        await connection.lock_async()
        waiting = asyncio.ensure_future(connection.lock_async())
        await asyncio.sleep(0)
        await in_thread(connection.release_async)
        await waiting
        await in_thread(link.close)
        await until(lambda: broker.info("q").consumers == 0)
        await in_thread(sender._session.destroy)
        connection.release_async()
        await connection.destroy_async()

    run(main())
    assert len(broker.messages("sent")) == 10


WAITING = {
    "send": "send_message(m) send_all_messages() wait() do_work() client_ready() auth_complete() open() close()"
    " mgmt_request(m,b'op')",
    "receive": "receive_message_batch() receive_messages(print) receive_messages_iter() do_work() close()",
    "connection": "work() lock() release() sleep(1) destroy()",
    "session": "mgmt_request(m,b'op')",
}


def test_what_waits_names_its_loop_in_another_thread(broker: Broker, run: Any) -> None:
    async def main() -> None:
        async with SendClientAsync(broker.url + "/q") as sender, ReceiveClientAsync(broker.url + "/q") as client:
            await sender.send_message_async(Message(b"x"))
            await client.receive_message_batch_async(1)
            owners = {
                "send": sender, "receive": client, "connection": sender._connection, "session": sender._session,
            }  # fmt: skip
            for owner, calls in WAITING.items():
                for call in calls.split(" "):
                    with pytest.raises(RuntimeError) as told:
                        await in_thread(lambda o=owner, c=call: eval(f"it.{c}", {"it": owners[o], "m": Message(b"y")}))
                    assert repr(asyncio.get_running_loop()) in str(told.value) and "_async(" in str(told.value), call

    run(main())


def test_a_coroutine_awaited_on_another_loop_names_the_one_it_belongs_to(broker: Broker, run: Any) -> None:
    async def main() -> None:
        async with SendClientAsync(broker.url + "/q") as sender:
            await sender.send_message_async(Message(b"x"))
            with pytest.raises(RuntimeError) as told:
                await in_thread(lambda: asyncio.run(sender.send_message_async(Message(b"y"))))
            assert repr(asyncio.get_running_loop()) in str(told.value)

    run(main())


def test_a_message_whose_loop_is_closed_cannot_be_settled_and_says_so(broker: Broker) -> None:
    broker.put("q", "x")
    client = ReceiveClientAsync(broker.url + "/q", auto_complete=False)

    async def main() -> Message:
        (message,) = await client.receive_message_batch_async(1)
        return message

    loop = asyncio.new_event_loop()
    message = loop.run_until_complete(main())
    loop.close()
    told: list[BaseException] = []

    def settle() -> None:
        try:
            message.accept()
        except BaseException as error:
            told.append(error)

    thread = threading.Thread(target=settle)
    thread.start()
    thread.join(LIMIT)
    assert [type(error) for error in told] == [receiver.LinkGone] and "loop" in str(told[0].__cause__)
    assert message.state is MessageState.ReceivedUnsettled


def test_an_asyncio_client_outside_of_any_loop_says_what_it_needs(broker: Broker) -> None:
    sender = SendClientAsync(broker.url + "/q")
    with pytest.raises(RuntimeError, match="SendClientAsync needs a running asyncio event loop"):
        sender.open_async().send(None)
    connection = ConnectionAsync(
        "localhost", authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False)
    )
    with pytest.raises(RuntimeError, match="ConnectionAsync needs a running asyncio event loop"):
        connection._start()
    assert not connection._started
