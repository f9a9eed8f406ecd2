"""What clients let go of without CPython's cyclic collector: messages that are done, and everything once they are closed."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi import Message, ReceiveClient, ReceiveClientAsync, SendClient, SendClientAsync, errors
from uamqp_cffi.authentication import SASTokenAuth, TokenRetryPolicy
from uamqp_cffi.broker import Broker

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="objects without references go at once in CPython only"
)

Use = Callable[[str, list[Any]], None]


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def send(url: str, kept: list[Any]) -> None:
    client = SendClient(url)
    kept.append(weakref.ref(client))
    client.queue_message(*[Message(b"x" * 1000) for _ in range(50)])
    client.send_all_messages(close_on_done=False)
    client.close()


def receive(url: str, kept: list[Any]) -> None:
    client = ReceiveClient(url)
    kept.append(weakref.ref(client))
    assert client.receive_message_batch(1)
    client.close()


def manage(url: str, kept: list[Any]) -> None:
    client = SendClient(url)
    kept.append(weakref.ref(client))
    client.open()
    client.mgmt_request(Message(b"x"), b"READ")
    client.close()


def send_on_a_loop(url: str, kept: list[Any]) -> None:
    async def main() -> None:
        client = SendClientAsync(url)
        kept.append(weakref.ref(client))
        await client.send_message_async(Message(b"x"))
        await client.close_async()

    asyncio.run(main())


def receive_on_a_loop(url: str, kept: list[Any]) -> None:
    async def main() -> None:
        client = ReceiveClientAsync(url)
        kept.append(weakref.ref(client))
        assert await client.receive_message_batch_async(1)
        await client.close_async()

    asyncio.run(main())


def fail(url: str, kept: list[Any], client: Any = None) -> None:
    client = client or SendClient(url)
    kept.append(weakref.ref(client))
    for _ in range(2):
        with pytest.raises(errors.AMQPError):
            client.send_message(Message(b"x"))
    kept.append(weakref.ref(client._connection))
    client.close()


def fail_on_a_loop(url: str, kept: list[Any]) -> None:
    async def main() -> None:
        client = SendClientAsync(url)
        kept.append(weakref.ref(client))
        for _ in range(2):
            with pytest.raises(errors.AMQPError):
                await client.send_message_async(Message(b"x"))
        kept.append(weakref.ref(client._connection))
        await client.close_async()

    asyncio.run(main())


@pytest.mark.parametrize("use", [send, receive, manage, send_on_a_loop, receive_on_a_loop])
def test_a_closed_client_is_gone_with_its_last_reference(broker: Broker, use: Use) -> None:
    kept: list[Any] = []
    for _ in range(3):
        broker.put("q", "x")
        use(broker.url + "/q", kept)
    assert [ref() for ref in kept] == [None] * 3


def test_an_idle_client_has_let_go_of_the_messages_of_its_last_run(broker: Broker) -> None:
    for settled in (False, True):
        messages = [Message(b"x", application_properties={"n": n} if n % 2 else None) for n in range(50)]
        refs = [weakref.ref(message) for message in messages]
        mode = {"send_settle_mode": 1} if settled else {}
        with SendClient(broker.url + "/q", **mode) as client:  # type: ignore[arg-type]
            client.queue_message(*messages)
            del messages
            client.wait()
            assert not [ref for ref in refs if ref() is not None]
            message = Message(b"x")
            refs = [weakref.ref(message)]
            client.send_message(message)
            del message
            assert refs[0]() is None


def test_an_idle_client_on_a_loop_has_let_go_of_the_messages_of_its_last_run(broker: Broker) -> None:
    async def main() -> None:
        async with SendClientAsync(broker.url + "/q") as client:
            messages = [Message(b"x") for _ in range(50)]
            refs = [weakref.ref(message) for message in messages]
            client.queue_message(*messages)
            del messages
            await client.wait_async()
            await asyncio.sleep(0)
            assert not [ref for ref in refs if ref() is not None]

    asyncio.run(main())


@pytest.mark.parametrize("use", [fail, fail_on_a_loop])
@pytest.mark.parametrize("what", ["detach", "end", "close", "drop"])
def test_a_client_that_broke_is_gone_when_it_is_closed(broker: Broker, what: Any, use: Use) -> None:
    broker.script("q", "none", fail=what, after=1)
    kept: list[Any] = []
    use(broker.url + "/q", kept)
    assert [ref() for ref in kept] == [None, None]


@pytest.mark.parametrize("use", [fail, fail_on_a_loop])
def test_a_client_that_nobody_answered_is_gone_when_it_is_closed(use: Use) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    kept: list[Any] = []
    use(f"amqp://127.0.0.1:{port}/q", kept)
    assert [ref() for ref in kept] == [None, None]


def test_a_client_with_a_token_is_gone_when_it_is_closed() -> None:
    kept: list[Any] = []
    with Broker(tokens={"send": "key"}) as broker:

        def login(key: str) -> SASTokenAuth:
            return SASTokenAuth.from_shared_access_key(
                "amqps://localhost/q", "send", key, port=broker.port, use_tls=False, retry_policy=TokenRetryPolicy(0)
            )

        with SendClient("amqps://localhost/q", auth=login("key")) as client:
            client.send_message(Message(b"x"))
            kept += [weakref.ref(client), weakref.ref(client._connection), weakref.ref(client._auth)]
        fail("", kept, SendClient("amqps://localhost/q", auth=login("another")))
    del client
    assert [ref() for ref in kept] == [None] * 5


def test_what_a_broken_client_raises_says_where_it_broke_and_why_each_time(broker: Broker) -> None:
    broker.script("q", "none", fail="drop", after=1)
    with SendClient(broker.url + "/q") as client:
        caught = []
        for _ in range(2):
            with pytest.raises(errors.AMQPConnectionError) as one:
                client.send_message(Message(b"x"))
            caught.append(one.value)
        assert str(caught[0]) == str(caught[1]) and caught[0].delivery is caught[1].delivery
        assert caught[0].__cause__ is caught[1].__cause__


def test_a_message_that_timed_out_does_not_keep_the_frames_of_the_call(broker: Broker) -> None:
    """Nor its client, once that is closed and the error is dropped."""

    class Told(Message):
        """One that can be referred to weakly."""

    broker.script("q", "none")
    kept: list[Any] = []

    def send_in_vain() -> None:
        client = SendClient(broker.url + "/q")
        message = Told(b"x")
        kept.extend((weakref.ref(client), weakref.ref(message)))
        try:
            client.send_message(message, timeout=0.05)
        except errors.MessageTimeout as error:
            assert str(error) == str(message.error)
            assert error is not message.error
        client.close()

    send_in_vain()
    assert [ref() for ref in kept] == [None, None]
