"""One client or connection used by several at once: who comes too late is told so by a documented error, whatever the others did.

What other threads do meanwhile is done here at the one point where it matters; `tests/faults` does it at random.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest

from uamqp_cffi import Message, ReceiveClient, SendClient, authentication, errors
from uamqp_cffi.broker import Broker
from uamqp_cffi.connection import Connection
from uamqp_cffi.constants import Delivery, MessageState
from uamqp_cffi.sender import MessageSender
from uamqp_cffi.session import Session

pytestmark = pytest.mark.both_drivers


@pytest.fixture
def broker(amqp_broker: Broker) -> Broker:
    return amqp_broker


def attached(broker: Broker, **how: Any) -> Any:
    client = SendClient(broker.url + "/q", **how)
    client.open()
    while not client.client_ready():
        pass
    return client


def elsewhere(broker: Broker) -> tuple[errors.LinkRedirect, Any]:
    """A redirect to the same broker by another name."""
    info = {b"hostname": b"localhost", b"port": broker.port, b"address": b"amqp://localhost/q"}
    auth = authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False)
    return errors.LinkRedirect(b"amqp:link:redirect", None, info), auth


def test_a_client_opened_on_a_connection_that_was_lost_gets_its_error(broker: Broker) -> None:
    first = attached(broker)
    broker.drop_connections()
    with pytest.raises(errors.AMQPConnectionError) as told:
        while True:
            first.do_work()
    second = SendClient(broker.url + "/q")
    second.open(first._connection)
    with pytest.raises(errors.AMQPConnectionError) as raised:
        second.send_message(Message("one"))
    assert (type(raised.value), str(raised.value)) == (type(told.value), str(told.value))
    second.close()
    first.close()


def test_a_client_opened_on_a_connection_that_was_closed_is_told(broker: Broker) -> None:
    first = attached(broker)
    connection = first._connection
    first.close()
    second = SendClient(broker.url + "/q")
    second.open(connection)
    with pytest.raises(errors.AMQPConnectionError, match="closed"):
        second.send_message(Message("one"))
    second.close()


def test_links_of_the_former_peer_are_over_after_a_redirect(broker: Broker) -> None:
    auth = authentication.SASLAnonymous("127.0.0.1", port=broker.port, use_tls=False)
    connection = Connection(b"127.0.0.1", auth)
    session = Session(connection)
    target = SendClient(broker.url + "/q")._target
    sender = MessageSender(session, "us", target)
    sender.open()
    while sender.get_state().name != "Open":
        connection.work()
    to, fresh = elsewhere(broker)
    connection.redirect(to, fresh)
    client = SendClient(broker.url + "/other")
    client.open(connection)
    while not client.client_ready():
        pass
    assert client.message_handler._id == sender._id, "or this would not show anything"
    with pytest.raises(errors.SessionEnd):
        sender.get_state()
    assert not sender.send(Message("astray"), None)
    client.send_message(Message("one"))
    sender.destroy()
    session.destroy()
    client.send_message(Message("two"))
    client.close()
    connection.destroy()
    assert broker.messages("q") == []
    assert [str(one) for one in broker.messages("other")] == ["one", "two"]


@pytest.mark.blocking("the point of time is in a blocking method")
def test_a_connection_destroyed_while_it_is_redirected_stays_closed(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = attached(broker)
    connection = client._connection
    real = connection._give_back

    def give_back() -> None:
        connection.destroy()  # as another thread may
        real()

    monkeypatch.setattr(connection, "_give_back", give_back)
    with pytest.raises(errors.AMQPConnectionError, match="closed"):
        connection.redirect(*elsewhere(broker))
    connection._step(0)
    assert connection._closed and connection._sock is None and connection._dialer is None
    client.close()


@pytest.mark.blocking("the point of time is in a blocking method")
@pytest.mark.parametrize(
    "what", ["open", "do_work", "client_ready", "auth_complete", "send_message", "wait", "redirect"]
)
def test_calls_while_a_client_is_redirected_are_told_so(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    client = attached(broker)
    connection = client._connection
    real, raised = connection.redirect, []

    def redirect(*args: Any) -> None:
        arguments: tuple[Any, ...] = (Message("x"),) if what == "send_message" else ()
        try:
            getattr(client, what)(*(elsewhere(broker) if what == "redirect" else arguments))
        except Exception as error:
            raised.append(error)
        real(*args)

    monkeypatch.setattr(connection, "redirect", redirect)
    client.redirect(*elsewhere(broker))
    assert [type(error) for error in raised] == [errors.MessageHandlerError]
    client.send_message(Message("one"))
    client.close()


@pytest.mark.blocking("the point of time is in a blocking method")
@pytest.mark.parametrize("how", ["batch", "iterate"])
def test_receiving_while_a_client_is_redirected_is_told_so_though_messages_are_unread(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for n in range(4):
        broker.put("q", str(n))
    client = ReceiveClient(broker.url + "/q")
    client.open()
    while len(client._received_messages) < 4:
        client.do_work()
    connection = client._connection
    real, raised = connection.redirect, []

    def redirect(*args: Any) -> None:
        client._received_messages.extend([Message("handed out just now")])
        try:
            if how == "batch":
                client.receive_message_batch(1, timeout=1000)
            else:
                next(client.receive_messages_iter())
        except errors.AMQPError as error:
            raised.append(type(error))
        real(*args)

    monkeypatch.setattr(connection, "redirect", redirect)
    monkeypatch.setattr(client, "_opened_plan", lambda: iter(()))  # it was open when the call began
    client.redirect(*elsewhere(broker))
    assert raised == [errors.MessageHandlerError]
    assert len(client._received_messages) == 0
    client.close()


@pytest.mark.blocking("the point of time is in a blocking method")
def test_a_client_closed_while_it_is_redirected_is_closed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    client = attached(broker)
    connection = client._connection
    real = connection.redirect

    def redirect(*args: Any) -> None:
        client.close()
        real(*args)

    monkeypatch.setattr(connection, "redirect", redirect)
    with pytest.raises(errors.AMQPConnectionError):
        client.redirect(*elsewhere(broker))
    assert connection._sock is None
    assert client.do_work() is False
    with pytest.raises(errors.MessageHandlerError, match="closed"):
        client.redirect(*elsewhere(broker))


def test_a_redirect_leaves_no_message_waiting_for_an_outcome(broker: Broker) -> None:
    broker.script("q", "none")
    client = attached(broker)
    out, queued = Message("out"), Message("queued")
    client.queue_message(out)
    client.do_work()
    client.queue_message(queued)
    assert out.state is MessageState.WaitingForSendAck
    client.redirect(*elsewhere(broker))
    assert (out.state, out.delivery) == (MessageState.WaitingToBeSent, Delivery.UNKNOWN)
    assert (queued.state, queued.delivery) == (MessageState.WaitingToBeSent, Delivery.NOT_DELIVERED)
    assert client.pending_messages == []
    client.close()


@pytest.mark.blocking("the point of time is in a blocking method")
def test_a_client_redirected_just_when_its_link_is_attached_attaches_a_new_one(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the link of the former peer for attached, and waited for ever without one."""
    real = MessageSender.get_state
    redirected = []

    def get_state(link: MessageSender) -> Any:
        state = real(link)
        if state.name == "Open" and not redirected:
            redirected.append(link)
            client.redirect(*elsewhere(broker))  # as another thread may
        return state

    monkeypatch.setattr(MessageSender, "get_state", get_state)
    client = SendClient(broker.url + "/q")
    client.open()
    while not client.client_ready():
        pass
    assert redirected
    client.send_message(Message("one"), timeout=10)
    client.close()
    assert broker.info("q").received == 1


@pytest.mark.blocking("threads")
@pytest.mark.parametrize("what", ["redirect", "close"])
def test_a_link_that_is_made_while_another_thread_takes_it_away_goes_with_it(broker: Broker, what: str) -> None:
    """Else the client would wait for its attach by a session that nobody began."""
    taken = threading.Event()

    class Slow(SendClient):
        """Makes its link while another thread redirects or closes it."""

        other: threading.Thread | None = None

        def _make_handler(self, session: Any) -> Any:
            if self.other is None:
                self.other = threading.Thread(
                    target=getattr(self, what), args=elsewhere(broker) if what == "redirect" else ()
                )
                self.other.start()
                taken.wait(0.3)  # comes once the other thread is done with this, which it is not before we are
            return super()._make_handler(session)

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "message_handler" and threading.current_thread() is self.other:
                taken.set()

    first = attached(broker)
    client = Slow(broker.url + "/q")
    client.open(None if what == "redirect" else first._connection)
    with contextlib.suppress(errors.AMQPError):
        client.client_ready()
    assert client.other is not None
    client.other.join(20)
    assert not client.other.is_alive()
    if what == "redirect":
        client.send_message(Message("there"), timeout=20)
        assert [str(message) for message in broker.messages("q")] == ["there"]
    else:
        assert client.message_handler is None
    client.close()
    first.close()
