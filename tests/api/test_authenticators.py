"""Auth objects with tokens used by hand: `create_authenticator`, `handle_token`, and their asyncio twins."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from uamqp_cffi import Message, MessageSender, ReceiveClientAsync, Target, errors
from uamqp_cffi.async_ops import ConnectionAsync
from uamqp_cffi.authentication import JWTTokenAsync, JWTTokenAuth, SASTokenAsync, SASTokenAuth, TokenRetryPolicy
from uamqp_cffi.broker import Broker, Verdict
from uamqp_cffi.connection import Connection
from uamqp_cffi.constants import MessageSenderState

URL = "amqp://localhost/q"
LIMIT = 10.0
KEYS = {"send": "k=="}


def token(text: str = "jwt", seconds: float = 3600) -> SimpleNamespace:
    return SimpleNamespace(token=text, expires_on=time.time() + seconds)


async def token_async() -> SimpleNamespace:
    await asyncio.sleep(0)
    return token()


@pytest.fixture
def put() -> list[str]:
    """The tokens that were put."""
    return []


@pytest.fixture
def broker(put: list[str]) -> Iterator[Broker]:
    with Broker(tokens=lambda audience, token_type, text: put.append(text)) as made:
        yield made


def options(broker: Broker) -> dict[str, Any]:
    return {"port": broker.port, "use_tls": False}


def work(auth: Any, connection: Connection) -> tuple[bool | None, bool | None]:
    """Steps until the token is accepted or time ran out; the last answer of `handle_token`."""
    deadline = time.monotonic() + LIMIT
    while True:
        timed_out, in_progress = auth.handle_token()
        if not in_progress:
            return timed_out, in_progress
        assert time.monotonic() < deadline
        connection.work()


async def work_async(auth: Any, connection: ConnectionAsync) -> tuple[bool | None, bool | None]:
    deadline = time.monotonic() + LIMIT
    while True:
        timed_out, in_progress = await auth.handle_token_async()
        if not in_progress:
            return timed_out, in_progress
        assert time.monotonic() < deadline
        await connection.work_async()


def test_a_token_is_accepted_in_steps(broker: Broker, put: list[str]) -> None:
    auth = JWTTokenAuth(URL, URL, token, **options(broker))
    with Connection("localhost", auth) as connection:
        auth.create_authenticator(connection)
        assert auth.handle_token() == (False, True)
        assert work(auth, connection) == (False, False)
    assert put == ["jwt"]


def test_links_of_one_s_own_live_on_the_authenticator(broker: Broker) -> None:
    auth = JWTTokenAuth(URL, URL, token, **options(broker))
    with Connection("localhost", auth) as connection:
        session = auth.create_authenticator(connection, incoming_window=100, outgoing_window=100)
        work(auth, connection)
        with MessageSender(session, "source", Target(URL)) as sender:
            deadline = time.monotonic() + LIMIT
            while sender.get_state() is not MessageSenderState.Open:
                assert time.monotonic() < deadline
                connection.work()
            sender.send(Message(b"m"), lambda *_: None)
            while broker.info("q").received < 1:
                assert time.monotonic() < deadline
                sender.work()
                connection.work()


def test_a_mute_peer_is_told_as_a_time_out() -> None:
    with Broker(tokens=lambda *_: Verdict(None)) as broker:
        auth = JWTTokenAuth(URL, URL, token, timeout=0.2, **options(broker))
        with Connection("localhost", auth) as connection:
            auth.create_authenticator(connection)
            assert work(auth, connection) == (True, False)
            assert auth.handle_token() == (True, False)


def test_a_refused_token_is_raised() -> None:
    with Broker(tokens=lambda *_: (401, "not you")) as broker:
        auth = JWTTokenAuth(URL, URL, token, retry_policy=TokenRetryPolicy(1), **options(broker))
        with Connection("localhost", auth) as connection:
            auth.create_authenticator(connection)
            with pytest.raises(errors.TokenAuthFailure, match="not you"):
                work(auth, connection)


def test_a_lost_connection_is_raised(broker: Broker) -> None:
    auth = JWTTokenAuth(URL, URL, token, **options(broker))
    with Connection("localhost", auth) as connection:
        auth.create_authenticator(connection)
        work(auth, connection)
        broker.drop_connections()
        deadline = time.monotonic() + LIMIT
        with pytest.raises(errors.AMQPConnectionError):
            while time.monotonic() < deadline:
                auth.handle_token()
                connection.work()


def test_the_peer_sees_detaches_and_an_end_when_it_is_closed(broker: Broker) -> None:
    auth = SASTokenAuth(URL, URL, "t", expires_in=timedelta(hours=1), **options(broker))
    with Connection("localhost", auth) as connection:
        session = auth.create_authenticator(connection)
        work(auth, connection)
        auth.close_authenticator()
        deadline = time.monotonic() + LIMIT
        while connection._leaving:  # until the peer has answered the END
            assert time.monotonic() < deadline
            connection.work()
        assert session._ended and connection._failure is None


# ---- asyncio


def test_async_tokens_are_accepted_in_steps(broker: Broker, put: list[str]) -> None:
    async def main() -> None:
        auth = JWTTokenAsync(URL, URL, token_async, **options(broker))
        async with ConnectionAsync("localhost", auth) as connection:
            await auth.create_authenticator_async(connection)
            assert await work_async(auth, connection) == (False, False)
            await auth.close_authenticator_async()

    asyncio.run(main())
    assert put == ["jwt"]


def test_async_signatures_are_accepted_in_steps() -> None:
    async def main(broker: Broker) -> tuple[bool | None, bool | None]:
        auth = SASTokenAsync.from_shared_access_key(URL, "send", "k==", **options(broker))
        async with ConnectionAsync("localhost", auth) as connection:
            await auth.create_authenticator_async(connection)
            return await work_async(auth, connection)

    with Broker(tokens=KEYS) as broker:
        assert asyncio.run(main(broker)) == (False, False)


def test_async_tokens_are_renewed(broker: Broker, put: list[str]) -> None:
    given = 0

    async def short() -> SimpleNamespace:
        nonlocal given
        given += 1
        return token(f"t{given}", 2.0)

    async def main() -> None:
        auth = JWTTokenAsync(URL, URL, short, refresh_window=1.9, **options(broker))
        async with ConnectionAsync("localhost", auth) as connection:
            await auth.create_authenticator_async(connection)
            deadline = time.monotonic() + LIMIT
            while len(put) < 3:
                assert time.monotonic() < deadline
                await work_async(auth, connection)
                await connection.work_async()

    asyncio.run(main())
    assert put == ["t1", "t2", "t3"]


def test_a_task_that_waits_for_a_token_holds_nobody_up(broker: Broker, put: list[str]) -> None:
    """Nobody's step awaits the renewal."""

    async def main() -> None:
        reached, go = asyncio.Event(), asyncio.Event()
        texts = iter(("t1", "t2"))

        async def get_token() -> SimpleNamespace:
            if put:
                reached.set()
                await go.wait()
            return token(next(texts), 2.0)

        auth = JWTTokenAsync(URL, URL, get_token, refresh_window=1.9, **options(broker))
        async with ConnectionAsync("localhost", auth) as connection:
            await auth.create_authenticator_async(connection)
            await work_async(auth, connection)
            task = asyncio.ensure_future(renew(auth, connection))
            await asyncio.wait_for(reached.wait(), LIMIT)
            assert await auth.handle_token_async() == (False, False)
            go.set()
            await asyncio.wait_for(task, LIMIT)

    async def renew(auth: Any, connection: ConnectionAsync) -> None:
        while len(put) < 2:
            await auth.handle_token_async()
            await connection.work_async()

    asyncio.run(main())
    assert put == ["t1", "t2"]


def test_calls_that_are_cancelled_all_the_time_do_not_keep_a_token_from_being_renewed(
    broker: Broker, put: list[str]
) -> None:
    """Each call is given less time than the function takes."""

    async def slow() -> SimpleNamespace:
        if put:
            await asyncio.sleep(0.3)
        return token(f"t{len(put) + 1}", 2.0)

    async def main() -> None:
        auth = JWTTokenAsync(URL, URL, slow, refresh_window=1.9, **options(broker))
        async with ReceiveClientAsync(URL, auth=auth) as client:
            deadline = time.monotonic() + LIMIT
            while len(put) < 3:
                assert time.monotonic() < deadline
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(client.receive_message_batch_async(), 0.05)

    asyncio.run(asyncio.wait_for(main(), LIMIT))
    assert put == ["t1", "t2", "t3"]


def test_a_call_comes_back_in_its_time_though_a_token_is_asked_for(broker: Broker, put: list[str]) -> None:
    async def stuck() -> SimpleNamespace:
        if put:
            await asyncio.sleep(3600)
        return token("t1", 20.0)

    async def main() -> None:
        before = len(asyncio.all_tasks())
        auth = JWTTokenAsync(URL, URL, stuck, refresh_window=19.9, **options(broker))
        async with ReceiveClientAsync(URL, auth=auth) as client:
            await client.open_async()
            while not await client.client_ready_async():
                continue
            await asyncio.sleep(2.1)  # a tenth of its life, when it is to be renewed
            began = time.monotonic()
            assert await client.receive_message_batch_async(timeout=200) == []
            assert time.monotonic() - began < 1.5
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == before

    asyncio.run(asyncio.wait_for(main(), LIMIT))


def test_an_async_refusal_is_raised() -> None:
    async def main(broker: Broker) -> None:
        auth = JWTTokenAsync(URL, URL, token_async, retry_policy=TokenRetryPolicy(0), **options(broker))
        async with ConnectionAsync("localhost", auth) as connection:
            await auth.create_authenticator_async(connection)
            await work_async(auth, connection)

    with Broker(tokens=lambda *_: (401, "not you")) as broker:
        with pytest.raises(errors.TokenAuthFailure, match="not you"):
            asyncio.run(main(broker))
