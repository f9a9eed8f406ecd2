"""The asyncio clients with tokens: what is theirs alone; the rest is that of the blocking ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from uamqp_cffi import AMQPClientAsync, ConnectionAsync, Message, ReceiveClientAsync, SendClientAsync, errors
from uamqp_cffi.authentication import JWTTokenAsync, JWTTokenAuth, SASTokenAsync, TokenRetryPolicy
from uamqp_cffi.broker import Broker, Verdict

URL = "amqp://localhost/q"
LIMIT = 10.0


class Source:
    """A coroutine function that gives tokens t1, t2, ... of some seconds each."""

    def __init__(self, life: float = 3600.0) -> None:
        self.life = life
        self.count = 0

    async def __call__(self) -> SimpleNamespace:
        await asyncio.sleep(0)
        self.count += 1
        return SimpleNamespace(token=f"t{self.count}", expires_on=time.time() + self.life)


@pytest.fixture
def put() -> list[str]:
    """The tokens that were put."""
    return []


@pytest.fixture
def verdicts() -> list[Any]:
    """What the next tokens are answered with; accepted after that."""
    return []


@pytest.fixture
def broker(put: list[str], verdicts: list[Any]) -> Iterator[Broker]:
    def judge(audience: str, token_type: str, token: str) -> Any:
        put.append(token)
        return verdicts.pop(0) if verdicts else None

    with Broker(tokens=judge) as made:
        yield made


def jwt(broker: Broker, source: Callable[[], Any] | None = None, **options: Any) -> JWTTokenAsync:
    return JWTTokenAsync(URL, URL, source or Source(), port=broker.port, use_tls=False, **options)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(main, LIMIT)

    return asyncio.run(limited())


def test_a_message_is_sent_once_the_token_was_accepted(broker: Broker, put: list[str]) -> None:
    async def main() -> None:
        async with SendClientAsync(URL, auth=jwt(broker)) as client:
            await client.send_message_async(Message(b"m"))

    run(main())
    assert put == ["t1"] and broker.info("q").messages == 1


def test_a_shared_access_key_is_enough() -> None:
    async def main(broker: Broker) -> None:
        auth = SASTokenAsync.from_shared_access_key(URL, "send", "k==", port=broker.port, use_tls=False)
        async with SendClientAsync(URL, auth=auth) as client:
            await client.send_message_async(Message(b"m"))

    with Broker(tokens={"send": "k=="}) as broker:
        run(main(broker))
        assert broker.info("q").messages == 1


def test_a_blocking_auth_object_will_do(broker: Broker, put: list[str]) -> None:
    def get_token() -> SimpleNamespace:
        return SimpleNamespace(token="t", expires_on=time.time() + 60)

    async def main() -> None:
        auth = JWTTokenAuth(URL, URL, get_token, port=broker.port, use_tls=False)
        async with SendClientAsync(URL, auth=auth) as client:
            await client.send_message_async(Message(b"m"))
            assert await client.mgmt_request_async(Message(b"x"), "READ") is not None

    run(main())
    assert put == ["t"]


def test_steps_do_what_calls_do(broker: Broker) -> None:
    async def main() -> None:
        async with SendClientAsync(URL, auth=jwt(broker)) as client:
            assert await client.auth_complete_async() is False
            client.queue_message(Message(b"m"))
            while client.messages_pending():
                assert await client.do_work_async() is True

    run(main())
    assert broker.info("q").messages == 1


def test_a_request_waits_for_the_token(broker: Broker, put: list[str]) -> None:
    async def main() -> None:
        async with AMQPClientAsync(URL, auth=jwt(broker)) as client:
            assert await client.mgmt_request_async(Message(b"x"), "READ", timeout=5000) is not None

    run(main())
    assert put == ["t1"]


def test_a_refused_token_is_an_error_with_the_peer_s_words(broker: Broker, verdicts: list[Any]) -> None:
    verdicts.append((401, "the key was regenerated"))

    async def main() -> None:
        auth = jwt(broker, retry_policy=TokenRetryPolicy(retries=0))
        async with SendClientAsync(URL, auth=auth) as client:
            for _ in range(2):
                with pytest.raises(errors.TokenAuthFailure, match="the key was regenerated"):
                    await client.send_message_async(Message(b"m"))

    run(main())


def test_a_token_without_an_answer_is_a_time_out(broker: Broker, verdicts: list[Any]) -> None:
    verdicts.append(Verdict(None))

    async def main() -> None:
        async with SendClientAsync(URL, auth=jwt(broker, timeout=0.2)) as client:
            with pytest.raises(TimeoutError, match="timeout of 0.2 s"):
                await client.send_message_async(Message(b"m"))

    run(main())


def test_what_the_token_function_raises_comes_out_of_open(broker: Broker) -> None:
    async def fail() -> None:
        raise LookupError("no credentials")

    async def main() -> None:
        client = SendClientAsync(URL, auth=jwt(broker, fail))
        with pytest.raises(LookupError, match="no credentials"):
            await client.open_async()
        await client.close_async()

    run(main())


def test_a_token_is_renewed_in_the_middle_of_a_call_that_receives(broker: Broker, put: list[str]) -> None:
    async def main() -> None:
        async with ReceiveClientAsync(URL, auth=jwt(broker, Source(life=2.0), refresh_window=1.9)) as client:
            assert await client.receive_message_batch_async(timeout=1000) == []

    run(main())
    assert len(put) > 2


def test_a_token_is_renewed_in_the_middle_of_a_call_that_sends(broker: Broker, put: list[str]) -> None:
    broker.script("q", "accepted", delay=1.0)

    async def main() -> None:
        async with SendClientAsync(URL, auth=jwt(broker, Source(life=2.0), refresh_window=1.9)) as client:
            await client.send_message_async(Message(b"m"))

    run(main())
    assert len(put) > 2


def test_a_slow_token_function_holds_only_its_own_task_up(broker: Broker, put: list[str]) -> None:
    """Another task's messages go out with the token that is still good."""

    async def main() -> None:
        source, reached, go = Source(life=4.0), asyncio.Event(), asyncio.Event()

        async def slow() -> SimpleNamespace:
            if put:
                reached.set()
                await go.wait()
            return await source()

        auth = jwt(broker, slow, refresh_window=3.9)
        async with ConnectionAsync("localhost", auth) as connection:
            sender, receiver = SendClientAsync(URL, auth=auth), ReceiveClientAsync(URL, auth=auth)
            await sender.open_async(connection=connection)
            await receiver.open_async(connection=connection)
            received = asyncio.ensure_future(receiver.receive_message_batch_async(timeout=9000))
            await reached.wait()
            await sender.send_message_async(Message(b"m"))
            assert put == ["t1"]
            go.set()
            assert [str(message) for message in await received] == ["m"]
            await sender.close_async()
            await receiver.close_async()

    run(main())


def test_a_token_is_renewed_though_the_function_is_stuck_once_and_its_caller_cancelled(
    broker: Broker, put: list[str]
) -> None:
    async def main() -> None:
        source, asking = Source(life=3.0), asyncio.Event()

        async def stuck_once() -> SimpleNamespace:
            if put and not asking.is_set():
                asking.set()
                await asyncio.Event().wait()
            return await source()

        async with ReceiveClientAsync(URL, auth=jwt(broker, stuck_once, refresh_window=2.9)) as client:
            first = asyncio.ensure_future(client.receive_message_batch_async(timeout=9000))
            await asking.wait()
            first.cancel()
            assert await client.receive_message_batch_async(timeout=2000) == []

    run(main())
    assert put[:2] == ["t1", "t2"]


def test_tasks_that_wait_for_one_token_all_go_on(broker: Broker, put: list[str]) -> None:
    async def main() -> None:
        auth = jwt(broker)
        async with ConnectionAsync("localhost", auth) as connection:
            clients = [SendClientAsync(URL, auth=auth) for _ in range(4)]
            await asyncio.gather(*[client.open_async(connection=connection) for client in clients])
            await asyncio.gather(*[client.send_message_async(Message(b"m")) for client in clients])
            for client in clients:
                await client.close_async()

    run(main())
    assert len(put) == 1 and broker.info("q").messages == 4
