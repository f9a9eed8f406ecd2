"""Clients whose token ran out while nobody called them: a new one is had before anything is handed over."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from uamqp_cffi import Connection, Message, ReceiveClient, SendClient, SendClientAsync, errors
from uamqp_cffi.authentication import JWTTokenAsync, JWTTokenAuth, SASTokenAuth, TokenRetryPolicy
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, MessageState

pytestmark = pytest.mark.both_drivers

URL = "amqp://localhost/q"
LIMIT = 10.0


class Tokens:
    """Judges tokens and gives them: t1, t2, ... of `life` seconds each, by a clock that `pass_time` moves on."""

    def __init__(self) -> None:
        self.life = 3600.0
        self.ahead = 0.0
        self.given = 0
        self.log: list[str] = []
        """What came to the broker, in order: tokens, and `message`."""
        self.problem: Exception | None = None

    def wall(self) -> float:
        return time.time() + self.ahead

    def __call__(self) -> Any:
        if self.problem is not None:
            raise self.problem
        self.given += 1
        return SimpleNamespace(token=f"t{self.given}", expires_on=self.wall() + self.life)

    async def slowly(self) -> Any:
        await asyncio.sleep(0.02)
        return self()

    def judge(self, audience: str, token_type: str, token: str) -> None:
        self.log.append(token)

    def pass_time(self, client: Any, seconds: float) -> None:
        self.ahead += seconds
        client._connection._cbs._wall = self.wall


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def broker(tokens: Tokens) -> Iterator[Broker]:
    with Broker(tokens=tokens.judge) as made:
        yield made


def jwt(broker: Broker, get: Callable[[], Any], **options: Any) -> JWTTokenAuth:
    return JWTTokenAuth(URL, URL, get, port=broker.port, use_tls=False, **options)


def attached(client: Any) -> None:
    client.open()
    end = time.monotonic() + LIMIT
    while not client.client_ready():
        assert time.monotonic() < end


@pytest.fixture
def client(broker: Broker, tokens: Tokens) -> Iterator[SendClient]:
    with SendClient(URL, auth=jwt(broker, tokens)) as made:
        made.send_message(Message(b"first"))
        yield made


# life, refresh window and how long the client is idle
LIVES = [(3600.0, 0, 3600.0), (3600.0, 0, 1e6), (10.0, 300, 11.0), (60.0, 60, 60.0), (5.0, 1, 5.5)]


@pytest.mark.parametrize("life, window, idle", LIVES)
def test_a_token_that_ran_out_is_renewed_before_a_message_is_sent(
    broker: Broker, tokens: Tokens, life: float, window: float, idle: float
) -> None:
    tokens.life = life
    with SendClient(URL, auth=jwt(broker, tokens, refresh_window=window)) as client:
        client.send_message(Message(b"first"))
        tokens.pass_time(client, idle)
        message = Message(b"second")
        client.send_message(message)
    assert message.state is MessageState.SendComplete
    assert [str(one) for one in broker.messages("q")] == ["first", "second"]
    assert tokens.log == ["t1", "t2"]


def test_a_message_that_waited_for_a_token_that_never_came_was_not_delivered(
    broker: Broker, tokens: Tokens, client: SendClient
) -> None:
    tokens.pass_time(client, 3600)
    tokens.problem = ConnectionError("no network")
    message = Message(b"second")
    with pytest.raises(errors.TokenExpired) as caught:
        client.send_message(message)
    assert caught.value.__cause__ is tokens.problem and caught.value.retryable is True
    assert caught.value.delivery is message.delivery is Delivery.NOT_DELIVERED
    assert client.pending_messages == [message]
    client.close()
    assert [str(one) for one in broker.messages("q")] == ["first"]


def test_a_token_that_cannot_be_renewed_ends_with_the_message_not_delivered(broker: Broker, tokens: Tokens) -> None:
    auth = SASTokenAuth(URL, URL, "fixed", expires_at=time.time() + 3600, port=broker.port, use_tls=False)
    with SendClient(URL, auth=auth) as client:
        client.send_message(Message(b"first"))
        tokens.pass_time(client, 3600)
        message = Message(b"second")
        with pytest.raises(errors.TokenExpired) as caught:
            client.send_message(message)
        assert caught.value.retryable is False
        assert caught.value.delivery is message.delivery is Delivery.NOT_DELIVERED
    assert broker.info("q").received == 1


def test_a_refused_renewal_ends_with_the_message_not_delivered(tokens: Tokens) -> None:
    with Broker(tokens=lambda audience, kind, token: None if token == "t1" else 401) as strict:
        with SendClient(URL, auth=jwt(strict, tokens, retry_policy=TokenRetryPolicy(retries=0))) as client:
            client.send_message(Message(b"first"))
            tokens.pass_time(client, 3600)
            message = Message(b"second")
            with pytest.raises(errors.TokenAuthFailure):
                client.send_message(message)
            assert message.delivery is Delivery.NOT_DELIVERED
        assert strict.info("q").received == 1


@pytest.mark.parametrize("how", ["send_all_messages", "wait", "do_work"])
def test_queued_messages_wait_for_the_new_token(broker: Broker, tokens: Tokens, client: SendClient, how: str) -> None:
    tokens.pass_time(client, 3600)
    messages = [Message(f"m{n}") for n in range(20)]
    client.queue_message(*messages)
    if how == "do_work":
        end = time.monotonic() + LIMIT
        while client.messages_pending():
            client.do_work()
            assert time.monotonic() < end
    else:
        getattr(client, how)()
    assert {message.state for message in messages} == {MessageState.SendComplete}
    assert tokens.log == ["t1", "t2"]


def test_a_message_to_be_sent_again_waits_for_the_new_token(broker: Broker, tokens: Tokens, client: SendClient) -> None:
    broker.script("q", "rejected", condition="amqp:internal-error", times=1)
    message = Message(b"second")

    class Policy(errors.ErrorPolicy):
        def on_message_error(self, error: Any) -> Any:
            tokens.pass_time(client, 3600)  # while it was out
            return errors.ErrorAction(retry=True)

    client._error_policy = Policy()
    client.send_message(message)
    assert message.state is MessageState.SendComplete and message.retries == 1
    assert tokens.log == ["t1", "t2"]


def test_a_receiver_renews_a_token_that_ran_out(broker: Broker, tokens: Tokens) -> None:
    broker.put("q", b"a")
    with ReceiveClient(URL, auth=jwt(broker, tokens)) as client:
        assert len(client.receive_message_batch(1)) == 1
        tokens.pass_time(client, 3600)
        broker.put("q", b"b")
        assert [str(message) for message in client.receive_message_batch(1)] == ["b"]
        assert client.receive_message_batch(1, timeout=100) == []
    assert tokens.log == ["t1", "t2"]


def test_a_receiver_whose_token_cannot_be_renewed_is_told(broker: Broker, tokens: Tokens) -> None:
    with ReceiveClient(URL, auth=jwt(broker, tokens)) as client:
        attached(client)
        tokens.pass_time(client, 3600)
        tokens.problem = ConnectionError("no network")
        with pytest.raises(errors.TokenExpired) as caught:
            client.receive_message_batch(1)
        assert caught.value.__cause__ is tokens.problem


def test_a_request_waits_for_the_new_token(broker: Broker, tokens: Tokens, client: SendClient) -> None:
    broker.answer("READ", status=200, body="fine")
    tokens.pass_time(client, 3600)
    assert str(client.mgmt_request(Message(b""), b"READ")) == "fine"
    assert tokens.log == ["t1", "t2"]


def test_steps_renew_a_token_that_ran_out(tokens: Tokens, client: SendClient) -> None:
    tokens.pass_time(client, 3600)
    end = time.monotonic() + LIMIT
    while not client.auth_complete():
        assert time.monotonic() < end
    assert tokens.log == ["t1", "t2"]


def test_a_token_function_that_has_failed_before_is_asked_once_more(
    broker: Broker, tokens: Tokens, client: SendClient
) -> None:
    tokens.pass_time(client, 3500)  # it is to be renewed
    tokens.problem = ConnectionError("no network")
    client.send_message(Message(b"second"))
    tokens.problem = None
    exchange = client._connection._cbs
    exchange._ask_at -= 1  # that was more than a second ago
    tokens.pass_time(client, 100)
    client.send_message(Message(b"third"))
    assert tokens.log == ["t1", "t2"] and broker.info("q").received == 3


def test_clients_of_one_connection_renew_one_token(broker: Broker, tokens: Tokens) -> None:
    connection = Connection("localhost", jwt(broker, tokens))
    clients = [SendClient(f"{URL}/{n}") for n in range(3)]
    for client in clients:
        client.open(connection=connection)
        client.send_message(Message(b"first"))
    tokens.log.clear()
    tokens.pass_time(clients[0], 3600)
    for client in clients:
        client.send_message(Message(b"second"))
        client.close()
    connection.destroy()
    assert len(tokens.log) == 1


@pytest.mark.blocking("threads in one client")
def test_threads_that_send_over_an_idle_client_all_wait_for_the_new_token(
    broker: Broker, tokens: Tokens, client: SendClient
) -> None:
    tokens.pass_time(client, 3600)
    failed: list[BaseException] = []

    def send() -> None:
        try:
            client.send_message(Message(b"more"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not failed and broker.info("q").received == 9
    assert tokens.log == ["t1", "t2"]


# ---- the peer is quicker: it ends what the token was for


def shut_out(broker: Broker, client: Any, driver: Any, how: Any) -> None:
    """Have the broker end link, session or connection, and wait until that has arrived."""
    broker.script("q", fail=how, condition="amqp:unauthorized-access", description="it has expired")
    with broker._acting() as core:
        for peer in list(core.peers.values()):
            links = [link for link in peer.incoming.values() if link.name == "q"]
            links += [link for link in peer.outgoing.values() if link.queue.name == "q"]
            peer.guard(peer.fail, links[0], core.scripts["q"])
    end = time.monotonic() + LIMIT
    if driver is None:
        assert select.select([client._connection._sock], [], [], LIMIT)[0]
        return
    while not client._session._inbox.records and not client._connection._failure:
        driver.run(asyncio.sleep(0.001))
        assert time.monotonic() < end


CAUSES = {"detach": errors.LinkDetach, "end": errors.SessionEnd, "close": errors.ConnectionClose}


@pytest.mark.parametrize("how", CAUSES)
def test_an_idle_sender_that_was_shut_out_for_its_token_is_told_that_it_has_expired(
    broker: Broker, tokens: Tokens, client: SendClient, driver: Any, how: str
) -> None:
    tokens.pass_time(client, 3600)
    shut_out(broker, client, driver, how)
    message = Message(b"second")
    with pytest.raises(errors.TokenExpired, match="it has expired") as caught:
        client.send_message(message)
    assert type(caught.value.__cause__) is CAUSES[how] and not hasattr(caught.value, "condition")
    assert caught.value.retryable is True
    assert caught.value.delivery is message.delivery is Delivery.NOT_DELIVERED
    assert broker.info("q").received == 1


@pytest.mark.parametrize("how", CAUSES)
def test_an_idle_receiver_that_was_shut_out_for_its_token_is_told_that_it_has_expired(
    broker: Broker, tokens: Tokens, driver: Any, how: str
) -> None:
    with ReceiveClient(URL, auth=jwt(broker, tokens)) as client:
        attached(client)
        tokens.pass_time(client, 3600)
        shut_out(broker, client, driver, how)
        for _ in range(2):
            with pytest.raises(errors.TokenExpired, match="it has expired"):
                client.receive_message_batch(1, timeout=1000)


def test_who_is_shut_out_with_a_token_that_is_good_is_told_so(broker: Broker, client: SendClient, driver: Any) -> None:
    shut_out(broker, client, driver, "detach")
    with pytest.raises(errors.LinkDetach):
        client.send_message(Message(b"second"))


# ---- what is asyncio's alone: the token function is a coroutine, beside the calls


def jwt_async(broker: Broker, get: Callable[[], Any], **options: Any) -> JWTTokenAsync:
    return JWTTokenAsync(URL, URL, get, port=broker.port, use_tls=False, **options)


@pytest.mark.blocking("its own loop")
@pytest.mark.parametrize("senders", [1, 10])
def test_messages_wait_for_the_renewal_under_way(broker: Broker, tokens: Tokens, senders: int) -> None:
    async def main() -> None:
        async with SendClientAsync(URL, auth=jwt_async(broker, tokens.slowly)) as client:
            await client.send_message_async(Message(b"first"))
            tokens.pass_time(client, 3600)
            work = [client.send_message_async(Message(f"m{n}")) for n in range(senders)]
            await asyncio.wait_for(asyncio.gather(*work), LIMIT)

    asyncio.run(main())
    assert broker.info("q").received == 1 + senders and tokens.log == ["t1", "t2"]


@pytest.mark.blocking("its own loop")
def test_a_coroutine_that_fails_leaves_the_message_not_delivered(broker: Broker, tokens: Tokens) -> None:
    message = Message(b"second")

    async def main() -> None:
        async with SendClientAsync(URL, auth=jwt_async(broker, tokens.slowly)) as client:
            await client.send_message_async(Message(b"first"))
            tokens.pass_time(client, 3600)
            tokens.problem = ConnectionError("no network")
            with pytest.raises(errors.TokenExpired) as caught:
                await asyncio.wait_for(client.send_message_async(message), LIMIT)
            assert caught.value.__cause__ is tokens.problem and caught.value.delivery is Delivery.NOT_DELIVERED

    asyncio.run(main())
    assert message.delivery is Delivery.NOT_DELIVERED and broker.info("q").received == 1


@pytest.mark.blocking("its own loop")
def test_a_coroutine_that_is_stuck_is_waited_for_as_long_as_for_an_answer(broker: Broker, tokens: Tokens) -> None:
    async def main() -> None:
        async with SendClientAsync(URL, auth=jwt_async(broker, get, timeout=0.2)) as client:
            await client.send_message_async(Message(b"first"))
            tokens.pass_time(client, 3600)
            with pytest.raises(errors.TokenExpired) as caught:
                await asyncio.wait_for(client.send_message_async(Message(b"second")), LIMIT)
            assert isinstance(caught.value.__cause__, TimeoutError)

    async def get() -> Any:
        if tokens.given:
            await asyncio.Event().wait()
        return tokens()

    asyncio.run(main())
    assert broker.info("q").received == 1
