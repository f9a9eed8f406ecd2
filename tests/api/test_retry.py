"""What is sent again, how often, and what is said in the end: outcome by outcome, condition by condition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from uamqp_cffi import Message, SendClient, errors
from uamqp_cffi.broker import Broker, Outcome
from uamqp_cffi.constants import Delivery, ErrorCodes, MessageSendResult, MessageState

pytest_plugins = "uamqp_cffi.pytest_plugin"

BUSY = "com.microsoft:server-busy"


@pytest.fixture
def broker(amqp_broker: Broker) -> Iterator[Broker]:
    yield amqp_broker


def tried(broker: Broker, outcome: Any, policy: errors.ErrorPolicy | None = None) -> tuple[int, Message, Any]:
    """How often a message with that outcome is transferred, the message, and the error of its send."""
    count = 0

    def answer(message: Message) -> Any:
        nonlocal count
        count += 1
        return outcome

    broker.script("q", answer)
    message = Message(b"x")
    with SendClient(broker.url + "/q", error_policy=policy) as client:
        with pytest.raises(errors.ClientMessageError) as caught:
            client.send_message(message)
    return count, message, caught.value


@pytest.mark.parametrize("code", list(ErrorCodes), ids=lambda code: code.name)
def test_a_known_condition_is_tried_once_or_four_times(broker: Broker, code: ErrorCodes) -> None:
    count, message, error = tried(broker, Outcome("rejected", code.value.decode(), "why"))
    final = code in errors.ErrorPolicy.no_retry
    assert (count, message.retries) == ((1, 0) if final else (4, 3))
    assert (error.condition, error.description, error.retryable) == (code, b"why", not final)


def test_a_known_condition_fails_with_message_send_failed(broker: Broker) -> None:
    _, message, _ = tried(broker, Outcome("rejected", "amqp:not-found", "why", {"k": "v"}))
    response = message._response
    assert type(response) is errors.MessageSendFailed
    assert (response.condition, response.description, response.info) == (ErrorCodes.NotFound, b"why", {b"k": b"v"})
    assert (response.scope, response.retryable, response.action.retry) == ("message", False, False)


def test_an_unknown_condition_is_tried_four_times(broker: Broker) -> None:
    count, message, error = tried(broker, Outcome("rejected", BUSY, "later"))
    assert (count, message.retries, error.condition) == (4, 3, BUSY.encode())


def test_an_unknown_condition_fails_with_message_exception(broker: Broker) -> None:
    _, message, _ = tried(broker, Outcome("rejected", BUSY))
    assert type(message._response) is errors.MessageException


@pytest.mark.parametrize("outcome", ["released", "modified", "rejected"])
def test_an_outcome_without_a_condition_is_an_unknown_error_and_tried_four_times(broker: Broker, outcome: str) -> None:
    count, message, error = tried(broker, outcome)
    assert (count, message.retries, error.condition) == (4, 3, ErrorCodes.UnknownError)
    assert type(message._response) is errors.MessageSendFailed


@pytest.mark.parametrize("most", [0, 1, 5])
def test_max_retries_bounds_the_retries(broker: Broker, most: int) -> None:
    count, message, _ = tried(broker, "released", errors.ErrorPolicy(max_retries=most))
    assert (count, message.retries) == (most + 1, most)


def test_on_error_decides_about_unknown_conditions(broker: Broker) -> None:
    policy = errors.ErrorPolicy(on_error=lambda error: errors.ErrorAction(retry=False))
    assert tried(broker, Outcome("rejected", BUSY), policy)[0] == 1


def test_on_error_does_not_decide_about_known_conditions(broker: Broker) -> None:
    policy = errors.ErrorPolicy(on_error=lambda error: errors.ErrorAction(retry=False))
    assert tried(broker, Outcome("rejected", "amqp:internal-error"), policy)[0] == 4


def test_a_message_that_cannot_be_encoded_is_never_transferred(broker: Broker) -> None:
    message = Message(b"x", application_properties={"k": object()})
    with SendClient(broker.url + "/q") as client, pytest.raises(errors.ClientMessageError) as caught:
        client.send_message(message)
    assert (caught.value.condition, caught.value.delivery) == (ErrorCodes.ClientError, Delivery.NOT_DELIVERED)
    assert (message.state, broker.info("q").received) == (MessageState.SendFailed, 0)


def test_the_callback_hears_of_the_end_only(broker: Broker) -> None:
    heard: list[Any] = []
    broker.script("q", "released", times=2)
    message = Message(b"x")
    message.on_send_complete = lambda result, error: heard.append((result, error or None))
    with SendClient(broker.url + "/q") as client:
        client.send_message(message)
    assert heard == [(MessageSendResult.Ok, None)]


def test_the_callback_hears_of_a_failure_with_its_exception(broker: Broker) -> None:
    heard: list[Any] = []
    broker.script("q", Outcome("rejected", "amqp:not-found"))
    message = Message(b"x")
    message.on_send_complete = lambda *args: heard.append(args)
    with SendClient(broker.url + "/q") as client, pytest.raises(errors.ClientMessageError):
        client.send_message(message)
    assert heard == [(MessageSendResult.Error, message._response)]


def test_a_message_that_timed_out_is_not_tried_again(broker: Broker) -> None:
    broker.script("q", "none")
    message = Message(b"x")
    with SendClient(broker.url + "/q", msg_timeout=100) as client, pytest.raises(errors.ClientMessageError):
        client.send_message(message)
    assert (message.state, message.retries) == (MessageState.SendFailed, 0)
    assert isinstance(message._response, TimeoutError)


def test_a_message_that_timed_out_here_is_not_delivered_before_it_left(broker: Broker) -> None:
    broker.script("q", credit=0)
    message = Message(b"x")
    with SendClient(broker.url + "/q", msg_timeout=100) as client, pytest.raises(errors.ClientMessageError) as caught:
        client.send_message(message)
    assert (message.delivery, caught.value.delivery) == (Delivery.NOT_DELIVERED, Delivery.NOT_DELIVERED)


def test_a_request_without_answer_may_have_arrived(broker: Broker) -> None:
    broker.answer("SLOW", status=None)
    with SendClient(broker.url + "/q") as client, pytest.raises(TimeoutError) as caught:
        client.mgmt_request(Message(b"x"), b"SLOW", timeout=200)
    error: Any = caught.value
    assert (error.scope, error.retryable, error.delivery) == ("message", True, Delivery.UNKNOWN)
