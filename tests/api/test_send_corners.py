"""Rare states of a SendClient: messages that failed in the queue, policies that fail, callbacks that close, a redirect under
somebody who waits. Nothing waits for ever, and everybody is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi import BatchMessage, Message, ReceiveClient, SendClient, authentication, errors
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine.values import described_composite
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import MessageSendResult, MessageState

pytestmark = pytest.mark.both_drivers

DONE, FAILED, WAITING = MessageState.SendComplete, MessageState.SendFailed, MessageState.WaitingToBeSent
LIMIT = 10.0
ACCEPTED = described_composite("accepted")


def ends(call: Callable[[], Any]) -> Any:
    """What it gives or raises; it has to end."""
    came: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            came.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive(), "it hangs"
    if raised:
        raise raised[0]
    return came[0]


def unsendable() -> Message:
    return Message(b"x", application_properties={"what": object()})


def until(client: SendClient, true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        client.do_work()


def test_what_timed_out_in_the_queue_does_not_hold_up_what_is_behind_it(peer: Any) -> None:
    peer.credit = 0
    with SendClient(peer.url, msg_timeout=50) as client:
        late = [Message(b"late") for _ in range(200)]
        client.queue_message(*late)
        client._msg_timeout = 0
        good = Message(b"good")
        client.queue_message(good)
        until(client, lambda: late[-1].state is FAILED)
        peer.do(lambda: peer.engine.flow(peer.link, 1))
        ends(client.wait)
        assert good.state is DONE
        assert client.pending_messages == []
    assert len(peer.records(r.Delivery)) == 1


def test_a_retry_that_the_link_does_not_take_yet_is_waited_for(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(p: Any, record: Any) -> None:
        error = p.error("amqp:internal-error")
        state = described_composite("rejected", error=error) if not p.records(r.Delivery) else ACCEPTED
        p.engine.settle(record.link, record.delivery_id, record.delivery_id, True, state)

    peer.on[r.Delivery] = settle
    pumps = []
    with SendClient(peer.url) as client:
        while not client.client_ready():
            continue
        message = Message(b"x")
        take = client.message_handler._take
        # as with a session window that is shut, until a new FLOW says that it is open
        shut = lambda run, owner: 0 if message.retries and peer.credit else take(run, owner)
        monkeypatch.setattr(client.message_handler, "_take", shut)
        pump = client._pump
        monkeypatch.setattr(client, "_pump", lambda: (pumps.append(1), pump())[1])

        def opened() -> None:
            peer.wait(r.Delivery)
            time.sleep(0.2)
            peer.credit = 0
            peer.do(lambda: peer.engine.flow(peer.link, 50))

        opener = threading.Thread(target=opened, daemon=True)
        opener.start()
        client.send_message(message)
        opener.join(LIMIT)
        assert (message.state, message.retries) == (DONE, 1)
    assert len(pumps) < 20


class Fails(errors.ErrorPolicy):
    def on_message_error(self, error: errors.MessageException) -> errors.ErrorAction:
        raise ZeroDivisionError


class Nonsense(errors.ErrorPolicy):
    def on_message_error(self, error: errors.MessageException) -> errors.ErrorAction:
        return True  # type: ignore[return-value]


@pytest.mark.parametrize("policy", [Fails, Nonsense])
@pytest.mark.parametrize("how", ["refused", "unsendable"])
def test_a_policy_that_fails_fails_its_message_only(broker: Broker, policy: type[errors.ErrorPolicy], how: str) -> None:
    if how == "refused":
        broker.script("q", "rejected", condition="amqp:internal-error", times=1)
    with SendClient(broker.url + "/q", error_policy=policy()) as client:
        message = Message(b"x") if how == "refused" else unsendable()
        with pytest.raises(errors.ClientMessageError):
            client.send_message(message)
        assert (message.state, message.retries) == (FAILED, 0)
        client.send_message(Message(b"next"))
    assert [str(m) for m in broker.messages("q")] == ["next"]


class FailsForLinks(errors.ErrorPolicy):
    def on_link_error(self, error: errors.AMQPConnectionError) -> errors.ErrorAction:
        raise ZeroDivisionError

    def on_connection_error(self, error: errors.ConnectionClose) -> errors.ErrorAction:
        raise ZeroDivisionError


@pytest.mark.parametrize("scope", ["link", "session", "connection"])
def test_a_policy_that_fails_does_not_hide_what_the_peer_said(
    peer: Any, caplog: pytest.LogCaptureFixture, scope: str
) -> None:
    why = peer.error("amqp:internal-error", "so there")

    def fail(p: Any, record: Any) -> None:
        if scope == "link":
            p.engine.detach(record.link, True, why)
        elif scope == "session":
            p.engine.end(p.records(r.Begin)[0].session, why)
        else:
            p.engine.close(why)

    peer.on[r.Delivery] = fail
    client = SendClient(peer.url, error_policy=FailsForLinks())
    message = Message(b"x")
    for _ in range(2):
        with pytest.raises(errors.AMQPConnectionError) as caught:
            client.send_message(message) if not client.pending_messages else client.wait()
        assert (caught.value.scope, caught.value.description) == (scope, b"so there")
    assert client.pending_messages == [message]
    assert "error policy failed" in caplog.text
    client.close()


def test_a_message_is_pending_until_its_policy_has_judged(broker: Broker) -> None:
    seen: list[bool] = []

    class Looks(errors.ErrorPolicy):
        def on_message_error(self, error: errors.MessageException) -> errors.ErrorAction:
            seen.append(client.messages_pending())
            return errors.ErrorAction(retry=False)

    with SendClient(broker.url + "/q", error_policy=Looks()) as client:
        with pytest.raises(errors.ClientMessageError):
            client.send_message(unsendable())
        assert seen == [True]
        assert not client.messages_pending()


@pytest.mark.blocking("waits in a callback")
def test_outcomes_that_came_with_that_of_a_callback_that_closes_are_told(peer: Any) -> None:
    peer.accept = False
    told: list[Any] = []
    client = SendClient(peer.url)
    messages = [Message(b"%d" % n) for n in range(3)]

    def done(result: MessageSendResult, error: Any) -> None:
        told.append(result)
        client.close()

    for message in messages:
        message.on_send_complete = done
    client.queue_message(*messages)
    client.open()
    until(client, lambda: len(peer.records(r.Delivery)) == 3)
    first, _, last = (record.delivery_id for record in peer.records(r.Delivery))
    peer.do(lambda: peer.engine.settle(peer.link, first, last, True, ACCEPTED))
    client.wait()
    assert [m.state for m in messages] == [DONE] * 3
    assert told == [MessageSendResult.Ok] * 3


def test_outcomes_that_came_before_close_are_told(peer: Any) -> None:
    peer.accept = False
    told: list[Any] = []
    message = Message(b"x")
    message.on_send_complete = lambda *outcome: told.append(outcome)
    client = SendClient(peer.url)
    client.queue_message(message)
    client.open()
    until(client, lambda: len(peer.records(r.Delivery)) == 1)
    (record,) = peer.records(r.Delivery)
    peer.do(lambda: peer.engine.settle(peer.link, record.delivery_id, record.delivery_id, True, ACCEPTED))
    inbox = client._session._inbox
    end = time.monotonic() + LIMIT
    while not inbox.records and message.state is not DONE:
        assert time.monotonic() < end
        client._connection._step(0.01) if not hasattr(client, "close_async") else client.do_work()
    client.close()
    assert (message.state, client.pending_messages) == (DONE, [])
    assert told == [(MessageSendResult.Ok, None)]


def test_close_gives_back_what_is_out_next_to_a_send_by_hand(peer: Any) -> None:
    """`message_handler` is public, and so is its `send`."""
    peer.accept = False
    told: list[Any] = []
    client = SendClient(peer.url)
    message = Message(b"x")
    client.queue_message(message)
    client.open()
    until(client, lambda: len(peer.records(r.Delivery)) == 1)
    client.message_handler.send(Message(b"y"), lambda *outcome: told.append(outcome[1]))
    until(client, lambda: len(peer.records(r.Delivery)) == 2)
    client.close()
    assert told == [MessageSendResult.Error.value]
    assert client.pending_messages == [message]
    assert message.state is WAITING


def test_a_batch_that_cannot_be_made_queues_nothing(broker: Broker) -> None:
    with SendClient(broker.url + "/q") as client:
        batch = BatchMessage(data=[b"x" * 700_000, b"y" * 700_000, unsendable()], multi_messages=True)
        with pytest.raises(TypeError, match="no AMQP type"):
            client.send_message(batch)
        assert client.pending_messages == []
        client.send_message(Message(b"next"))
    assert [str(m) for m in broker.messages("q")] == ["next"]


@pytest.mark.blocking("threads")
@pytest.mark.parametrize("kind", ["send", "receive"])
def test_a_redirect_ends_calls_that_wait_in_other_threads(broker: Broker, kind: str) -> None:
    client: Any = (SendClient if kind == "send" else ReceiveClient)(broker.url + "/from")
    broker.script("from", "none")
    message = Message(b"x")
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            if kind == "send":
                client.send_message(message)
            else:
                client.receive_message_batch()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    client.open()
    until(client, lambda: client._attached)
    thread.start()
    end = time.monotonic() + LIMIT
    while not client._session._inbox.led or (kind == "send" and not client._out):
        assert time.monotonic() < end
        time.sleep(0.001)
    info = {b"hostname": b"localhost", b"port": broker.port, b"address": f"{broker.url}/q".encode()}
    to = errors.process_link_error(errors.ErrorPolicy(), b"amqp:link:redirect", None, info)
    assert isinstance(to, errors.LinkRedirect)
    client.redirect(to, authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False))
    thread.join(LIMIT)
    assert not thread.is_alive(), "it hangs"
    (error,) = raised
    assert isinstance(error, errors.MessageHandlerError) and "redirected" in str(error)
    client.close()
