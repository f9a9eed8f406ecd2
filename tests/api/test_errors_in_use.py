"""What a SendClient says when link, session or connection breaks: typed, in time, again and again, nothing lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi import Connection, Message, SendClient, authentication, errors
from uamqp_cffi._core.engine import records as r
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, ErrorCodes, MessageState

pytestmark = pytest.mark.both_drivers

WAITING = MessageState.WaitingToBeSent


def assert_ended(client: SendClient, error: type[BaseException]) -> None:
    """Later calls raise the same, and close is quick."""
    for call in (client.do_work, client.client_ready, client.wait, client.send_all_messages):
        client.queue_message(Message(b"later"))
        with pytest.raises(error):
            call()
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 5
    client.close()


def in_use(peer: Any, breaks: Callable[[], object], **kwargs: Any) -> tuple[SendClient, Message, BaseException]:
    """A client whose message is at the peer when something breaks; what send_message raised."""
    peer.accept = False
    peer.on[r.Delivery] = lambda p, record: breaks()
    client = SendClient(peer.url, **kwargs)
    message = Message(b"x")
    with pytest.raises(errors.AMQPError) as caught:
        client.send_message(message)
    return client, message, caught.value


def assert_came_back(client: SendClient, message: Message, error: BaseException, delivery: Delivery) -> None:
    assert (message.state, message.retries, message.delivery) == (WAITING, 1, delivery)
    assert client.pending_messages == [message]
    assert error.delivery is delivery  # type: ignore[attr-defined]


# ---- the link


@pytest.mark.parametrize(
    ("condition", "cls", "code", "retryable"),
    [
        ("amqp:link:detach-forced", errors.LinkDetach, ErrorCodes.LinkDetachForced, True),
        ("amqp:not-found", errors.LinkDetach, ErrorCodes.NotFound, False),
        ("com.example:odd", errors.VendorLinkDetach, b"com.example:odd", True),
        (None, errors.LinkDetach, ErrorCodes.UnknownError, True),
    ],
)
def test_detach(peer: Any, condition: str | None, cls: type, code: Any, retryable: bool) -> None:
    error = peer.error(condition, "why") if condition else b""
    client, message, raised = in_use(peer, lambda: peer.engine.detach(peer.link, True, error))
    assert type(raised) is cls
    assert (raised.condition, raised.scope, raised.retryable) == (code, "link", retryable)  # type: ignore[attr-defined]
    if condition:
        assert raised.description == b"why" and "why" in str(raised)  # type: ignore[attr-defined]
    assert_came_back(client, message, raised, Delivery.UNKNOWN)
    assert_ended(client, cls)
    peer.wait(r.Detach)


def test_info_of_any_shape_is_told(peer: Any) -> None:
    from uamqp_cffi._core.engine.types import Described, Symbol
    from uamqp_cffi._core.engine.values import described_composite, enc_list, enc_map, enc_symbol, encode

    odd = enc_list([encode([1]), encode("two")])
    info = enc_map([(odd, encode("text")), (enc_symbol("k"), encode(Described(Symbol("d"), ["a"])))])
    error = described_composite("error", condition=enc_symbol("amqp:not-allowed"), info=info)
    expected = {((1,), b"two"): b"text", b"k": [b"a"]}
    client, message, raised = in_use(peer, lambda: peer.engine.close(error))
    assert isinstance(raised, errors.ConnectionClose) and raised.info == expected
    assert_came_back(client, message, raised, Delivery.UNKNOWN)
    assert_ended(client, errors.ConnectionClose)


def test_redirect_is_told_and_followed(peer: Any, broker: Broker) -> None:
    from uamqp_cffi._core.engine.values import described_composite, enc_map, enc_str, enc_symbol, enc_uint

    url = f"amqp://127.0.0.1:{broker.port}/q"
    info = enc_map(
        [
            (enc_symbol("hostname"), enc_str("127.0.0.1")),
            (enc_symbol("port"), enc_uint(broker.port)),
            (enc_symbol("address"), enc_str(url)),
        ]
    )
    error = described_composite("error", condition=enc_symbol("amqp:link:redirect"), info=info)
    client, message, raised = in_use(peer, lambda: peer.engine.detach(peer.link, True, error))
    assert isinstance(raised, errors.LinkRedirect)
    assert (raised.hostname, raised.port, raised.address) == (b"127.0.0.1", broker.port, url.encode())
    auth = authentication.SASLAnonymous("127.0.0.1", port=broker.port, use_tls=False)
    client.redirect(raised, auth)
    assert client.pending_messages == []
    again = Message(b"again")
    client.send_message(again)
    client.close()
    assert [str(m) for m in broker.wait_for("q", 1)] == ["again"]


def test_attach_refused(broker: Broker) -> None:
    broker.script("q", fail="attach", condition="amqp:unauthorized-access", description="no")
    told: list[Any] = []
    client = SendClient(broker.url + "/q", on_attach=lambda *args: told.append(args))
    message = Message(b"x")
    with pytest.raises(errors.LinkDetach, match="address=") as caught:
        client.send_message(message)
    assert (caught.value.condition, caught.value.delivery) == (ErrorCodes.UnauthorizedAccess, Delivery.NOT_DELIVERED)
    assert (message.state, message.delivery, message.retries) == (WAITING, Delivery.NOT_DELIVERED, 0)
    assert client.pending_messages == [message]
    ((source, target, _, error),) = told
    assert (source, target) == (None, None) and isinstance(error, errors.AMQPConnectionError)
    assert_ended(client, errors.LinkDetach)


def test_attach_refused_with_a_bare_address_suggests_nothing(broker: Broker) -> None:
    broker.script("q", fail="attach", condition="amqp:not-found")
    with SendClient(broker.url, address="q") as client:
        with pytest.raises(errors.LinkDetach) as caught:
            client.send_message(Message(b"x"))
    assert "address=" not in str(caught.value)


def test_attach_refused_by_ending_the_session(peer: Any) -> None:
    def refuse(p: Any, record: Any) -> None:
        p.engine.end(record.session, p.error("amqp:invalid-field", "no such address"))

    peer.on[r.Attach] = refuse
    client = SendClient(peer.url)
    with pytest.raises(errors.AMQPConnectionError, match="no such address.*address=") as caught:
        client.send_message(Message(b"x"))
    assert (caught.value.condition, caught.value.scope) == (ErrorCodes.InvalidField, "session")
    assert_ended(client, errors.AMQPConnectionError)


def test_an_attach_that_never_comes_times_out(peer: Any) -> None:
    peer.on[r.Attach] = lambda p, record: None
    client = SendClient(peer.url, connect_timeout=0.3)
    start = time.monotonic()
    with pytest.raises(errors.ConnectTimeout, match="attach"):
        client.send_message(Message(b"x"))
    assert 0.25 < time.monotonic() - start < 3
    assert_ended(client, errors.ConnectTimeout)


def test_an_attach_that_never_comes_on_an_open_connection_times_out(peer: Any) -> None:
    first = SendClient(peer.url, connect_timeout=0.3)
    first.send_message(Message(b"x"))
    peer.on[r.Attach] = lambda p, record: None
    second = SendClient(peer.url, connect_timeout=0.3)
    second.open(connection=first._connection)
    with pytest.raises(errors.ConnectTimeout, match="attach"):
        second.send_message(Message(b"x"))
    first.send_message(Message(b"y"))
    assert_ended(second, errors.ConnectTimeout)
    first.close()


def test_an_attach_that_never_comes_on_a_connection_begun_by_others_times_out(peer: Any) -> None:
    """The connection's own limit ends with its OPEN, as nobody attaches there."""
    peer.on[r.Attach] = lambda p, record: None
    auth = authentication.SASLAnonymous("localhost", port=peer.port, use_tls=False)
    with Connection("localhost", auth) as connection:
        connection.work()
        assert not connection._opened
        client = SendClient(peer.url, connect_timeout=0.3)
        client.open(connection=connection)
        end = time.monotonic() + 5
        with pytest.raises(errors.ConnectTimeout, match="attach"):
            while time.monotonic() < end:
                client.do_work()
        assert_ended(client, errors.ConnectTimeout)


# ---- the session


def test_a_session_that_our_own_limit_refuses_is_told_at_once(peer: Any) -> None:
    """No byte of the peer's would come to wake who waits."""
    first = SendClient(peer.url, channel_max=0)
    first.send_message(Message(b"x"))
    second = SendClient(peer.url, msg_timeout=60_000)
    second.open(connection=first._connection)
    start = time.monotonic()
    with pytest.raises(errors.AMQPConnectionError, match="channel-max 0") as caught:
        second.send_message(Message(b"x"))
    assert time.monotonic() - start < 2
    assert caught.value.condition is ErrorCodes.ResourceLimitExceeded
    assert "address=" not in str(caught.value)  # it is not the peer that refused
    assert_ended(second, errors.AMQPConnectionError)
    first.send_message(Message(b"y"))
    first.close()


@pytest.mark.parametrize("condition", ["amqp:session:errant-link", None])
def test_end(peer: Any, condition: str | None) -> None:
    error = peer.error(condition, "enough") if condition else b""
    client, message, raised = in_use(peer, lambda: peer.engine.end(peer.wait(r.Begin)[0].session, error))
    assert isinstance(raised, errors.AMQPConnectionError) and raised.scope == "session"
    assert raised.condition is (ErrorCodes.SessionErrantLink if condition else ErrorCodes.UnknownError)
    assert_came_back(client, message, raised, Delivery.UNKNOWN)
    assert_ended(client, errors.AMQPConnectionError)
    peer.wait(r.End)


# ---- the connection


@pytest.mark.parametrize(
    ("condition", "cls", "code"),
    [
        ("amqp:connection:forced", errors.ConnectionClose, ErrorCodes.ConnectionCloseForced),
        ("com.example:odd", errors.VendorConnectionClose, b"com.example:odd"),
        (None, errors.ConnectionClose, ErrorCodes.UnknownError),
    ],
)
def test_close(peer: Any, condition: str | None, cls: type, code: Any) -> None:
    error = peer.error(condition, "bye") if condition else b""
    client, message, raised = in_use(peer, lambda: peer.engine.close(error))
    assert type(raised) is cls and (raised.condition, raised.scope) == (code, "connection")  # type: ignore[attr-defined]
    assert_came_back(client, message, raised, Delivery.UNKNOWN)
    assert_ended(client, cls)


def test_a_lost_connection_with_a_message_at_the_peer(broker: Broker) -> None:
    broker.script("q", "none")
    client = SendClient(broker.url + "/q")
    message = Message(b"x")
    client.queue_message(message)
    while message.state is not MessageState.WaitingForSendAck:
        client.open()
        client.do_work()
    broker.wait_for("q", 0)
    broker.drop_connections()
    with pytest.raises(errors.MessageHandlerError) as caught:
        client.wait()
    assert caught.value.scope == "connection"
    assert_came_back(client, message, caught.value, Delivery.UNKNOWN)
    assert_ended(client, errors.MessageHandlerError)


def test_callbacks_are_not_called_for_messages_that_come_back(peer: Any) -> None:
    told: list[Any] = []
    peer.accept = False
    peer.on[r.Delivery] = lambda p, record: p.engine.close(b"")
    client = SendClient(peer.url)
    message = Message(b"x")
    message.on_send_complete = lambda *args: told.append(args)
    with pytest.raises(errors.ConnectionClose):
        client.send_message(message)
    client.close()
    assert told == []


def test_what_the_peer_never_got_is_not_delivered(peer: Any) -> None:
    """A large message stuck in front of a peer that has stopped reading."""
    peer.credit = 10
    stuck = threading.Event()
    client = SendClient(peer.url)
    while not (client._session and client.client_ready()):
        client.open()
    peer._todo.append(lambda: stuck.wait(10))
    peer._wake.send(b"x")
    message = Message(b"x" * (64 << 20))
    client.queue_message(message)
    while message.state is not MessageState.WaitingForSendAck:
        client.do_work()
    peer._stop = True
    stuck.set()
    with pytest.raises(errors.AMQPConnectionError) as caught:
        client.wait()
    assert_came_back(client, message, caught.value, Delivery.NOT_DELIVERED)
    client.close()


@pytest.mark.parametrize("moment", ["connect", "open", "begin"])
def test_a_peer_that_goes_while_the_client_sets_up(peer: Any, moment: str) -> None:
    def go(p: Any, record: Any) -> None:
        p._stop = True

    peer.on[{"connect": r.SaslInit, "open": r.Open, "begin": r.Begin}[moment]] = go
    client = SendClient(peer.url)
    message = Message(b"x")
    with pytest.raises(errors.AMQPConnectionError) as caught:
        client.send_message(message)
    assert caught.value.delivery is Delivery.NOT_DELIVERED
    assert client.pending_messages == [message] and message.state is WAITING
    assert_ended(client, errors.AMQPConnectionError)


def test_nobody_listens() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = SendClient(f"amqp://127.0.0.1:{port}/q")
    message = Message(b"x")
    with pytest.raises(errors.AMQPConnectionError, match="refused") as caught:
        client.send_message(message)
    assert caught.value.delivery is Delivery.NOT_DELIVERED and caught.value.retryable is True
    assert client.pending_messages == [message]
    assert_ended(client, errors.AMQPConnectionError)


def test_a_refused_password_names_the_mechanism(peer: Any) -> None:
    peer.on[r.SaslInit] = lambda p, record: p.engine.sasl_outcome(1)
    client = SendClient(f"amqp://me:secret@localhost:{peer.port}/q")
    with pytest.raises(errors.AuthenticationException, match="PLAIN") as caught:
        client.send_message(Message(b"x"))
    assert isinstance(caught.value, errors.ConnectionClose) and "secret" not in str(caught.value)
    assert_ended(client, errors.ConnectionClose)


@pytest.mark.parametrize("port", [70000, -1, "none"])
def test_a_port_that_is_none_is_told_at_once(port: Any) -> None:
    auth = authentication.SASLAnonymous("127.0.0.1", port=1, use_tls=False)
    auth._port = port  # where the argument would be refused, as a subclass may
    client = SendClient("amqp://127.0.0.1/q", auth=auth, connect_timeout=None)
    with pytest.raises(errors.AMQPConnectionError, match=f"port must be .* not {port!r}"):
        client.send_message(Message(b"x"))
    assert_ended(client, errors.AMQPConnectionError)


def test_an_auth_object_that_fails_is_told_at_once() -> None:
    class Failing(authentication.SASLAnonymous):
        def _endpoint(self, *args: Any) -> Any:
            raise RuntimeError("no idea where that is")

    auth = Failing("127.0.0.1", port=1, use_tls=False)
    client = SendClient("amqp://127.0.0.1/q", auth=auth, connect_timeout=None)
    with pytest.raises(errors.AMQPConnectionError, match="no idea") as caught:
        client.send_message(Message(b"x"))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert_ended(client, errors.AMQPConnectionError)


def test_an_outcome_that_never_comes_does_not_hold_up_close(peer: Any) -> None:
    peer.accept = False
    client = SendClient(peer.url)
    message = Message(b"x")
    client.queue_message(message)
    client.open()
    while message.state is not MessageState.WaitingForSendAck:
        client.do_work()
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 5
    assert (message.state, message.delivery) == (WAITING, Delivery.UNKNOWN)


def test_close_is_bounded_when_the_peer_never_answers(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from uamqp_cffi import connection

    monkeypatch.setattr(connection, "CLOSE_TIMEOUT", 0.3)
    client = SendClient(peer.url)
    client.send_message(Message(b"x"))
    hung = threading.Event()
    peer._todo.append(lambda: hung.wait(10))
    peer._wake.send(b"x")
    start = time.monotonic()
    client.close()
    took = time.monotonic() - start
    hung.set()
    assert 0.25 < took < 3


def test_broken_link_of_one_client_leaves_the_others_on_the_connection(broker: Broker) -> None:
    broker.script("bad", fail="detach", after=1, condition="amqp:not-allowed")
    good, bad = SendClient(broker.url + "/good"), SendClient(broker.url + "/bad")
    good.send_message(Message(b"x"))
    bad.open(connection=good._connection)
    with pytest.raises(errors.LinkDetach):
        bad.send_message(Message(b"x"))
        bad.send_message(Message(b"y"))
    good.send_message(Message(b"z"))
    bad.close()
    good.send_message(Message(b"z"))
    good.close()
