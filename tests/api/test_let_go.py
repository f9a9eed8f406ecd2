"""What clients let go of without CPython's cyclic collector: messages that are done, and everything once they are closed."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi import Message, ReceiveClient, ReceiveClientAsync, SendClient, SendClientAsync
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
