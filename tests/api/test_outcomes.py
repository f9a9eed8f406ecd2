"""What a message, and the error that tells of it, say of how its delivery ended."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import pytest

from uamqp_cffi import Message, ReceiveClient, SendClient, errors
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, DeliveryOutcome, MessageState

pytestmark = pytest.mark.both_drivers

NO_RETRY = errors.ErrorPolicy(max_retries=0)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("rejected", DeliveryOutcome.REJECTED),
        ("released", DeliveryOutcome.RELEASED),
        ("modified", DeliveryOutcome.MODIFIED),
    ],
)
def test_what_the_peer_said_stands_on_message_and_error(
    broker: Broker, outcome: str, expected: DeliveryOutcome
) -> None:
    broker.script("q", outcome)
    message = Message(b"x")
    with SendClient(broker.url + "/q", error_policy=NO_RETRY) as client:
        assert (message.error, message.outcome) == (None, None)
        with pytest.raises(errors.ClientMessageError) as caught:
            client.send_message(message)
    assert message.state is MessageState.SendFailed
    assert message.outcome is caught.value.outcome is expected
    assert isinstance(message.error, errors.MessageException) and message.error.outcome is expected
    assert caught.value.__cause__ is message.error


def test_an_accepted_message_has_no_error(broker: Broker) -> None:
    message = Message(b"x")
    with SendClient(broker.url + "/q") as client:
        client.send_message(message)
    assert (message.outcome, message.error) == (DeliveryOutcome.ACCEPTED, None)


def test_a_message_that_cannot_be_encoded_has_an_error_and_no_outcome(broker: Broker) -> None:
    message = Message(b"x", application_properties={"k": object()})
    with SendClient(broker.url + "/q") as client:
        with pytest.raises(errors.ClientMessageError):
            client.send_message(message)
    assert message.outcome is None and isinstance(message.error, errors.ClientMessageError)


def test_a_message_without_an_outcome_in_time_has_the_time_out(broker: Broker) -> None:
    broker.script("q", "none")
    message = Message(b"x")
    with SendClient(broker.url + "/q", msg_timeout=50) as client:
        client.queue_message(message)
        client.wait()
    assert message.outcome is None and isinstance(message.error, errors.MessageTimeout)


@pytest.mark.parametrize("fail", ["detach", "end", "close", "drop"])
def test_what_messages_were_lost_for_stands_on_them(broker: Broker, fail: Any) -> None:
    broker.script("q", "none", fail=fail, after=3, times=4)  # three without an outcome
    messages = [Message(f"m{n}") for n in range(3)]
    with SendClient(broker.url + "/q") as client:
        client.queue_message(*messages)
        with pytest.raises(errors.AMQPError) as caught:
            client.send_all_messages(close_on_done=False)
        assert client.pending_messages == messages
        for message in messages:
            assert (message.outcome, message.delivery) == (DeliveryOutcome.LOST, Delivery.UNKNOWN)
            assert (type(message.error), str(message.error)) == (type(caught.value), str(caught.value))
    if fail in ("detach", "end"):
        assert "the first 3 of pending_messages" in str(caught.value)
        assert str(caught.value).count("pending_messages") == 1


def test_messages_of_a_client_that_is_closed_say_so(broker: Broker) -> None:
    broker.script("q", "none")
    client = SendClient(broker.url + "/q")
    message = Message(b"x")
    client.queue_message(message)
    client.open()
    while message.state is not MessageState.WaitingForSendAck:
        client.do_work()
    client.close()
    assert message.outcome is DeliveryOutcome.LOST and "closed" in str(message.error)


def test_the_refused_message_of_a_run_is_found_by_sending_one_by_one(broker: Broker) -> None:
    """A peer that detaches the link for one message says nothing of the others, which it may have taken or not."""
    broker.script("q", "none", fail="detach", after=5, times=6, condition="amqp:decode-error")
    messages = [Message(f"m{n}") for n in range(5)]
    with SendClient(broker.url + "/q") as client:
        client.queue_message(*messages)
        with pytest.raises(errors.LinkDetach):
            client.send_all_messages(close_on_done=False)
        pending = client.pending_messages
    assert pending == messages and {m.delivery for m in pending} == {Delivery.UNKNOWN}
    broker.on_message("q", lambda m: "rejected" if str(m) == "m2" else "accepted")
    failed = []
    with SendClient(broker.url + "/q", error_policy=NO_RETRY) as client:
        for message in pending:
            try:
                client.send_message(message)
            except errors.ClientMessageError:
                failed.append(message)
    assert failed == [messages[2]]
    assert [m.outcome for m in messages].count(DeliveryOutcome.ACCEPTED) == 4


@pytest.mark.parametrize("copied", [copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_lost_message_begins_anew(broker: Broker, copied: Any) -> None:
    broker.script("q", "none", fail="detach", after=1)
    with SendClient(broker.url + "/q") as client:
        with pytest.raises(errors.LinkDetach):
            client.send_message(Message(b"x"))
        (message,) = client.pending_messages
    assert copied(message).outcome is None and copied(message).error is None


def test_a_received_message_has_neither(broker: Broker) -> None:
    broker.put("q", "x")
    with ReceiveClient(broker.url + "/q") as client:
        (message,) = client.receive_message_batch(1)
    assert (message.outcome, message.error) == (None, None)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"annotations": {"foo": 1}}, "foo"),
        ({"annotations": {b"X-upper": 1}}, "X-upper"),
        ({"annotations": {5: 1}}, "5"),
        ({"delivery_annotations": {"x-fine": 1, "bar": 1}}, "bar"),
    ],
)
def test_a_reserved_key_of_annotations_is_warned_of_once_a_link(
    broker: Broker, caplog: pytest.LogCaptureFixture, sections: Any, key: str
) -> None:
    with SendClient(broker.url + "/q") as client:
        client.queue_message(*[Message(b"x", **sections) for _ in range(3)])
        client.wait()
    told = [record for record in caplog.records if "is reserved" in record.getMessage()]
    assert len(told) == 1 and told[0].levelno == logging.WARNING
    assert key in told[0].getMessage() and next(iter(sections)) in told[0].getMessage()


def test_keys_that_begin_with_x_are_not_warned_of(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with SendClient(broker.url + "/q") as client:
        client.send_message(Message(b"x", annotations={"x-opt-a": 1, b"x-b": 2}, footer={"c": 3}))
    assert "reserved" not in caplog.text


def test_an_error_of_a_session_is_told_to_each_link_in_its_own_words(broker: Broker) -> None:
    from uamqp_cffi import Connection, Session, Source, Target, authentication, receiver, sender

    broker.script("q", fail="end", after=0)
    host, port = broker.url.removeprefix("amqp://").split(":")
    auth = authentication.SASLAnonymous(host, port=int(port), use_tls=False)
    connection = Connection(host, auth)
    session = Session(connection, incoming_window=10, outgoing_window=10)
    links = [
        sender.MessageSender(session, "me", Target(broker.url + "/q"), name="one"),
        receiver.MessageReceiver(session, Source(broker.url + "/q"), "me", print, name="other"),
    ]
    for link in links:
        link.open()
    while any(link._error is None for link in links):
        connection._step(1.0)
        session._take_in()
    texts = [str(link._error) for link in links]
    connection.destroy()
    assert links[0]._error is not links[1]._error
    assert all(text.count("(") <= 1 for text in texts)
