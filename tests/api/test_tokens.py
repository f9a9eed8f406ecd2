"""Clients with tokens against the embedded broker's `$cbs`: acceptance, refusal, renewal, expiry."""

from __future__ import annotations

import logging
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from uamqp_cffi import AMQPClient, Message, ReceiveClient, SendClient, errors
from uamqp_cffi._core.engine import records as r
from uamqp_cffi.authentication import JWTTokenAuth, SASTokenAsync, SASTokenAuth, TokenRetryPolicy
from uamqp_cffi.broker import Broker, Verdict
from uamqp_cffi.connection import Connection
from uamqp_cffi.constants import ErrorCodes, MessageState, TransportType
from uamqp_cffi.errors import AMQPConnectionError, AuthenticationException, TokenAuthFailure, TokenExpired

AccessToken = namedtuple("AccessToken", "token expires_on")
LIMIT = 10.0
URL = "amqp://localhost/q"
ONCE = TokenRetryPolicy(retries=0)


class Tokens:
    """A judge of tokens that notes what was put, and gives `verdict` or what its next item says."""

    def __init__(self) -> None:
        self.put: list[str] = []
        self.types: list[str] = []
        self.verdict: Any = None
        self.next: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, audience: str, token_type: str, token: str) -> Any:
        with self._changed:
            self.put.append(token)
            self.types.append(token_type)
            self._changed.notify_all()
        return self.next.pop(0) if self.next else self.verdict

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.put) >= count, LIMIT), self.put


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def broker(tokens: Tokens) -> Iterator[Broker]:
    """One that wants tokens."""
    with Broker(tokens=tokens) as made:
        yield made


class Source:
    """A function that gives tokens t1, t2, ... of some seconds each; `problem` is raised instead, once."""

    def __init__(self, life: float = 3600.0) -> None:
        self.life = life
        self.count = 0
        self.threads: list[int] = []
        self.problem: Exception | None = None

    def __call__(self) -> AccessToken:
        self.threads.append(threading.get_ident())
        problem, self.problem = self.problem, None
        if problem is not None:
            raise problem
        self.count += 1
        return AccessToken(f"t{self.count}", time.time() + self.life)


def jwt(broker: Broker, source: Callable[[], Any] | None = None, **options: Any) -> JWTTokenAuth:
    return JWTTokenAuth(URL, URL, source or Source(), port=broker.port, use_tls=False, **options)


def sender(broker: Broker, source: Callable[[], Any] | None = None, **options: Any) -> SendClient:
    return SendClient(URL, auth=jwt(broker, source, **options))


def receiver(broker: Broker, source: Callable[[], Any] | None = None, **options: Any) -> ReceiveClient:
    return ReceiveClient(URL, auth=jwt(broker, source, **options))


# ---- acceptance ---------------------------------------------------------------------------------------------------


def test_a_message_is_sent_once_the_token_was_accepted(broker: Broker, tokens: Tokens) -> None:
    with sender(broker) as client:
        client.send_message(Message(b"m"))
    assert tokens.put == ["t1"] and tokens.types == ["jwt"]
    assert broker.info("q").messages == 1


def test_messages_are_received_once_the_token_was_accepted(broker: Broker) -> None:
    broker.put("q", b"m")
    with receiver(broker) as client:
        assert [str(message) for message in client.receive_message_batch(timeout=5000)] == ["m"]


def test_a_shared_access_key_is_enough() -> None:
    with Broker(tokens={"send": "k=="}) as broker:
        auth = SASTokenAuth.from_shared_access_key(URL, "send", "k==", port=broker.port, use_tls=False)
        with SendClient(URL, auth=auth) as client:
            client.send_message(Message(b"m"))
        assert broker.info("q").messages == 1


def test_tokens_go_through_a_websocket_too(broker: Broker) -> None:
    with sender(broker, transport_type=TransportType.AmqpOverWebsocket) as client:
        client.send_message(Message(b"m"))
    assert broker.info("q").messages == 1


def test_a_custom_endpoint_stands_in_for_the_namespace(broker: Broker, tokens: Tokens) -> None:
    namespace = "amqps://ns.example/q"
    auth = JWTTokenAuth(
        namespace, namespace, Source(), custom_endpoint_hostname="localhost", port=broker.port, use_tls=False
    )
    with SendClient(namespace, auth=auth) as client:
        client.send_message(Message(b"m"))
        assert client._connection.hostname == b"ns.example"
    assert broker.info("q").messages == 1


def test_on_attach_is_told_of_the_links_to_cbs_too(broker: Broker) -> None:
    seen: list[str] = []

    def on_attach(source: Any, target: Any, properties: Any, error: Any) -> None:
        seen.append(str(target.address))

    with SendClient(URL, auth=jwt(broker), on_attach=on_attach) as client:
        client.send_message(Message(b"m"))
    assert seen == ["$cbs", "$cbs", URL]


def test_threads_that_open_one_client_make_one_session(broker: Broker, tokens: Tokens) -> None:
    together = threading.Barrier(2)

    def get_token() -> AccessToken:
        together.wait(LIMIT)  # both are asking at the same time
        return AccessToken("t", time.time() + 3600)

    client = sender(broker, get_token)
    threads = [threading.Thread(target=client.open) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    client.send_message(Message(b"m"))
    assert client._session is client._auth._session
    client.close()
    assert tokens.put == ["t"]


def test_links_are_detached_and_the_session_ends_when_the_client_closes(broker: Broker) -> None:
    client = sender(broker)
    client.open()
    client.send_message(Message(b"m"))
    connection, session = client._connection, client._session
    client.close()
    assert session._ended and connection._failure is None and connection._done


def test_steps_do_what_calls_do(broker: Broker) -> None:
    with sender(broker) as client:
        client.queue_message(Message(b"m"))
        deadline = time.monotonic() + LIMIT
        while client.messages_pending():
            assert time.monotonic() < deadline
            assert client.do_work() is True
    assert broker.info("q").messages == 1


def test_auth_complete_is_a_step_that_does_not_wait_for_the_peer(broker: Broker) -> None:
    with sender(broker) as client:
        assert client.auth_complete() is False
        deadline = time.monotonic() + LIMIT
        while not client.auth_complete():
            assert time.monotonic() < deadline
        assert client.auth_complete() is True
        assert client.message_handler is None


def test_a_client_without_a_link_authenticates_before_it_asks(broker: Broker, tokens: Tokens) -> None:
    with AMQPClient(URL, auth=jwt(broker)) as client:
        answer = client.mgmt_request(Message(b"x"), "READ", timeout=5000)
    assert answer is not None and tokens.put == ["t1"]


def test_a_link_and_requests_share_the_session(broker: Broker, tokens: Tokens) -> None:
    with sender(broker) as client:
        client.send_message(Message(b"m"))
        assert client.mgmt_request(Message(b"x"), "READ", timeout=5000) is not None
        assert client._session is client._auth._session
    assert tokens.put == ["t1"]


def test_a_token_object_is_asked_for_the_token_in_the_caller_s_thread(broker: Broker) -> None:
    source = Source()
    with sender(broker, source) as client:
        client.send_message(Message(b"m"))
    assert source.threads == [threading.get_ident()]


# ---- refusal ------------------------------------------------------------------------------------------------------


def test_a_refused_token_is_an_error_with_the_peer_s_words(broker: Broker, tokens: Tokens) -> None:
    tokens.verdict = 401, "the key was regenerated"
    with sender(broker) as client, pytest.raises(TokenAuthFailure, match="the key was regenerated") as caught:
        client.send_message(Message(b"m"))
    assert (caught.value.status_code, caught.value.description) == (401, b"the key was regenerated")
    assert (caught.value.scope, caught.value.retryable) == ("connection", False)
    assert len(tokens.put) == 4


def test_a_message_that_met_a_refused_token_was_not_delivered(broker: Broker, tokens: Tokens) -> None:
    tokens.verdict = 401
    with sender(broker, retry_policy=ONCE) as client:
        with pytest.raises(TokenAuthFailure) as caught:
            client.send_message(Message(b"m"))
        [message] = client.pending_messages
    assert message.state is MessageState.WaitingToBeSent
    assert caught.value.delivery is message.delivery
    assert caught.value.delivery is not None and caught.value.delivery.name == "NOT_DELIVERED"


@pytest.mark.parametrize("step", ["do_work", "client_ready", "auth_complete"])
def test_a_refusal_is_raised_by_every_step(broker: Broker, tokens: Tokens, step: str) -> None:
    tokens.verdict = 401, "no"
    with sender(broker, retry_policy=ONCE) as client:
        for _ in range(2):
            deadline = time.monotonic() + LIMIT
            with pytest.raises(TokenAuthFailure):
                while time.monotonic() < deadline:
                    getattr(client, step)()
    assert len(tokens.put) == 1


def test_a_token_that_is_welcome_at_the_third_try_will_do(broker: Broker, tokens: Tokens) -> None:
    tokens.next = [500, 500]
    with sender(broker, retry_policy=TokenRetryPolicy(retries=2, backoff=20)) as client:
        client.send_message(Message(b"m"))
    assert tokens.put == ["t1"] * 3


def test_a_peer_without_cbs_is_an_authentication_error_with_its_words() -> None:
    with Broker(sasl=["MSSBCBS"]) as broker, sender(broker) as client:
        with pytest.raises(AuthenticationException, match="takes no tokens") as caught:
            client.send_message(Message(b"m"))
    assert caught.value.condition is ErrorCodes.NotFound


def test_a_peer_that_does_not_offer_the_mechanism_is_an_authentication_error() -> None:
    with Broker() as broker, sender(broker) as client, pytest.raises(errors.SASLRefused, match="MSSBCBS"):
        client.send_message(Message(b"m"))


def test_a_token_for_another_address_opens_no_link(broker: Broker) -> None:
    auth = JWTTokenAuth("amqp://localhost/other", URL, Source(), port=broker.port, use_tls=False)
    with SendClient(URL, auth=auth) as client, pytest.raises(errors.LinkDetach) as caught:
        client.send_message(Message(b"m"))
    assert caught.value.condition is ErrorCodes.UnauthorizedAccess


def test_what_the_token_function_raises_comes_out_of_open(broker: Broker) -> None:
    source = Source()
    source.problem = LookupError("no credentials")
    client = sender(broker, source)
    with pytest.raises(LookupError, match="no credentials"):
        client.open()
    client.open()  # and it can be tried again
    client.send_message(Message(b"m"))
    client.close()


def test_a_blocking_client_refuses_an_async_auth_object(broker: Broker) -> None:
    auth = SASTokenAsync(URL, URL, "t", expires_in=timedelta(hours=1), port=broker.port, use_tls=False)
    with pytest.raises(RuntimeError, match="asyncio"):
        SendClient(URL, auth=auth).open()


# ---- a peer that does not answer --------------------------------------------------------------------------------------


def test_a_token_without_an_answer_is_a_time_out(broker: Broker, tokens: Tokens) -> None:
    tokens.verdict = Verdict(None)
    with sender(broker, timeout=0.2) as client:
        with pytest.raises(TimeoutError, match="timeout of 0.2 s"):
            client.send_message(Message(b"m"))
        with pytest.raises(TimeoutError):
            client.auth_complete()
    assert tokens.put == ["t1"]


def test_a_peer_that_never_attaches_cbs_is_a_time_out(peer: Any) -> None:
    peer.on[r.Attach] = lambda *_: None
    with SendClient(URL, auth=jwt(peer, timeout=0.2), sasl=False) as client:
        with pytest.raises(TimeoutError, match="timeout of 0.2 s"):
            client.send_message(Message(b"m"))


def test_a_peer_that_never_begins_the_session_is_a_time_out(peer: Any) -> None:
    peer.on[r.Begin] = lambda *_: None
    with SendClient(URL, auth=jwt(peer, timeout=0.2), sasl=False) as client:
        with pytest.raises(TimeoutError, match="timeout of 0.2 s"):
            client.send_message(Message(b"m"))


def test_connect_timeout_covers_the_token(broker: Broker, tokens: Tokens) -> None:
    tokens.verdict = Verdict(None)
    client = SendClient(URL, auth=jwt(broker, timeout=60), connect_timeout=0.3)
    with client, pytest.raises(errors.ConnectTimeout, match="connect_timeout of 0.3 s"):
        client.send_message(Message(b"m"))
    assert tokens.put == ["t1"]


def test_a_lost_connection_ends_the_wait_for_the_token(broker: Broker, tokens: Tokens) -> None:
    tokens.verdict = Verdict(None)
    with sender(broker) as client:
        thread = threading.Thread(target=lambda: (tokens.wait(1), broker.drop_connections()))
        thread.start()
        with pytest.raises(AMQPConnectionError):
            client.send_message(Message(b"m"))
        thread.join()


def test_close_from_another_thread_ends_the_wait_for_the_token(broker: Broker, tokens: Tokens) -> None:
    tokens.verdict = Verdict(None)
    client = sender(broker)
    thread = threading.Thread(target=lambda: (tokens.wait(1), client.close()))
    client.open()
    thread.start()
    with pytest.raises(AMQPConnectionError, match="closed"):
        client.send_message(Message(b"m"))
    thread.join()


# ---- renewal ------------------------------------------------------------------------------------------------------


def test_a_token_is_renewed_while_messages_are_sent(broker: Broker, tokens: Tokens) -> None:
    with sender(broker, Source(life=2.0), refresh_window=1.9) as client:
        deadline = time.monotonic() + LIMIT
        while len(tokens.put) < 3:
            client.queue_message(*[Message(b"m") for _ in range(50)])
            assert set(client.send_all_messages(close_on_done=False)) == {MessageState.SendComplete}
            assert time.monotonic() < deadline
    assert tokens.put[:3] == ["t1", "t2", "t3"]


def test_a_token_is_renewed_in_the_middle_of_a_call_that_sends(broker: Broker, tokens: Tokens) -> None:
    """A message whose outcome takes longer than the token's life."""
    broker.script("q", "accepted", delay=1.0)
    tokens.verdict = None
    with sender(broker, Source(life=2.0), refresh_window=1.9) as client:
        client.send_message(Message(b"m"))
    assert len(tokens.put) > 2


def test_a_token_is_renewed_in_the_middle_of_a_call_that_receives(broker: Broker, tokens: Tokens) -> None:
    with receiver(broker, Source(life=2.0), refresh_window=1.9) as client:
        assert client.receive_message_batch(timeout=1000) == []
    assert len(tokens.put) > 2


def test_a_token_is_renewed_in_the_middle_of_a_request(broker: Broker, tokens: Tokens) -> None:
    broker.answer("mute", None)
    with AMQPClient(URL, auth=jwt(broker, Source(life=2.0), refresh_window=1.9)) as client:
        with pytest.raises(TimeoutError):
            client.mgmt_request(Message(b"x"), "mute", timeout=1000)
    assert len(tokens.put) > 2


def test_a_token_is_renewed_by_steps(broker: Broker, tokens: Tokens) -> None:
    with receiver(broker, Source(life=2.0), refresh_window=1.9) as client:
        deadline = time.monotonic() + LIMIT
        while len(tokens.put) < 3:
            client.do_work()
            assert time.monotonic() < deadline


def test_renewed_tokens_keep_a_link_beyond_the_first_token_s_life(broker: Broker, tokens: Tokens) -> None:
    with Broker(tokens=Judge(tokens, 1.2)) as strict, receiver(strict, Source(life=1.2), refresh_window=0.9) as client:
        assert client.receive_message_batch(timeout=2000) == []
        strict.put("q", b"late")
        assert [str(message) for message in client.receive_message_batch(timeout=5000)] == ["late"]
    assert len(tokens.put) >= 2


class Judge:
    """Welcomes every token for some seconds, whatever the client thinks."""

    def __init__(self, tokens: Tokens, seconds: float) -> None:
        self.tokens = tokens
        self.seconds = seconds

    def __call__(self, audience: str, token_type: str, token: str) -> Verdict:
        self.tokens(audience, token_type, token)
        return Verdict(expires_at=time.time() + self.seconds)


def test_a_link_whose_token_the_peer_calls_expired_is_detached(tokens: Tokens) -> None:
    with Broker(tokens=Judge(tokens, 0.8)) as broker, receiver(broker) as client:
        with pytest.raises(errors.LinkDetach, match="expired") as caught:
            client.receive_message_batch(timeout=5000)
    assert caught.value.condition is ErrorCodes.UnauthorizedAccess


def test_an_unchanged_token_is_asked_for_once_a_second(broker: Broker, tokens: Tokens) -> None:
    asked: list[float] = []
    end = time.time() + 5

    def same() -> AccessToken:
        asked.append(time.monotonic())
        return AccessToken("same", end)

    with receiver(broker, same, refresh_window=4.9) as client:
        assert client.receive_message_batch(timeout=2200) == []
    assert tokens.put == ["same"]
    renewals = asked[1:]
    assert len(renewals) == 2 and renewals[1] - renewals[0] >= 1


def test_a_token_past_its_time_ends_a_call_that_waits(broker: Broker) -> None:
    auth = SASTokenAuth(URL, URL, "fixed", expires_at=time.time() + 1.2, port=broker.port, use_tls=False)
    with ReceiveClient(URL, auth=auth) as client:
        with pytest.raises(TokenExpired):
            client.receive_message_batch(timeout=5000)
        with pytest.raises(TokenExpired):
            client.do_work()


def test_a_token_function_that_fails_once_does_not_end_the_client(broker: Broker, tokens: Tokens) -> None:
    source = Source(life=4.0)
    with receiver(broker, source, refresh_window=3.5) as client:
        client.open()
        source.problem = ConnectionError("no network for a moment")
        assert client.receive_message_batch(timeout=2000) == []
    assert tokens.put[:2] == ["t1", "t2"]


def test_a_refused_renewal_ends_a_call_that_waits(broker: Broker, tokens: Tokens) -> None:
    tokens.next = [None]
    tokens.verdict = 403, "revoked"
    with receiver(broker, Source(life=2.0), refresh_window=1.9, retry_policy=ONCE) as client:
        with pytest.raises(TokenAuthFailure, match="revoked"):
            client.receive_message_batch(timeout=5000)


def test_links_to_cbs_that_the_peer_gave_up_are_attached_anew(broker: Broker, tokens: Tokens) -> None:
    broker.script("$cbs", fail="detach", after=1, times=1, description="idle for 10 minutes")
    with receiver(broker, Source(life=2.0), refresh_window=1.9) as client:
        assert client.receive_message_batch(timeout=1000) == []
    assert tokens.put[:3] == ["t1", "t2", "t3"]


# ---- sharing ------------------------------------------------------------------------------------------------------


def test_clients_on_one_connection_share_token_and_session(broker: Broker, tokens: Tokens) -> None:
    auth = jwt(broker)
    with Connection("localhost", auth) as connection:
        one, other = SendClient(URL, auth=auth), ReceiveClient(URL, auth=auth)
        one.open(connection=connection)
        other.open(connection=connection)
        one.send_message(Message(b"m"))
        assert [str(m) for m in other.receive_message_batch(timeout=5000)] == ["m"]
        assert one._session is other._session
        one.close()
        broker.put("q", b"after")
        assert [str(m) for m in other.receive_message_batch(timeout=5000)] == ["after"]
        other.close()
    assert tokens.put == ["t1"]


def test_threads_that_wait_for_one_token_all_go_on(broker: Broker, tokens: Tokens) -> None:
    auth = jwt(broker)
    problems: list[BaseException] = []

    def send(client: SendClient) -> None:
        try:
            client.send_message(Message(b"m"))
        except BaseException as error:
            problems.append(error)

    with Connection("localhost", auth) as connection:
        clients = [SendClient(URL, auth=auth) for _ in range(4)]
        for client in clients:
            client.open(connection=connection)
        threads = [threading.Thread(target=send, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        for client in clients:
            client.close()
    assert not problems and tokens.put == ["t1"] and broker.info("q").messages == 4


def test_a_redirect_takes_a_fresh_auth_object_along(broker: Broker, tokens: Tokens) -> None:
    elsewhere = Tokens()
    with Broker(tokens=elsewhere) as other:
        info = {"hostname": "127.0.0.1", "address": "amqp://127.0.0.1/q", "port": other.port}
        broker.script("q", fail="attach", condition="amqp:link:redirect", info=info)
        with sender(broker) as client:
            with pytest.raises(errors.LinkRedirect) as caught:
                client.send_message(Message(b"m"))
            auth = JWTTokenAuth(URL, "amqp://127.0.0.1/q", Source(), port=other.port, use_tls=False)
            client.redirect(caught.value, auth)
            client.send_message(Message(b"again"))
        assert [str(message) for message in other.messages("q")] == ["again"]
    assert elsewhere.put == ["t1"]


# ---- secrets ------------------------------------------------------------------------------------------------------


def test_tokens_are_in_no_log_and_no_trace(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    secret = "very-secret"
    with caplog.at_level(logging.DEBUG):
        auth = SASTokenAuth(
            URL, URL, secret, expires_in=timedelta(hours=1), password="key-secret", username="n", port=broker.port,
            use_tls=False,
        )  # fmt: skip
        with SendClient(URL, auth=auth, debug=True) as client:
            client.send_message(Message(b"m"))
            shown = repr(
                (client, auth, auth._cbs_auth, auth._session, client._connection, vars(auth._cbs_auth)["error"])
            )
    assert "$cbs-sender" in caplog.text
    assert "secret" not in caplog.text + shown


def test_a_failure_does_not_show_the_token(broker: Broker, tokens: Tokens) -> None:
    tokens.verdict = 401, "no"
    source = Source()
    with sender(broker, source, retry_policy=ONCE) as client, pytest.raises(TokenAuthFailure) as caught:
        client.send_message(Message(b"m"))
    assert "t1" not in repr(caught.value) + str(caught.value)
