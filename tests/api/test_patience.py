"""Calls that wait for the peer: time-outs in seconds, what their errors say, and what the log says when there is none."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from uamqp_cffi import BatchMessage, Message, SendClient, errors
from uamqp_cffi._core.waiting.patience import Patience
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, MessageState

from .conftest import Peer

pytestmark = pytest.mark.both_drivers

LONG = 20.0  # seconds within which no failure is looked for
SOON = 0.05


def attached(client: SendClient) -> SendClient:
    client.open()
    while not client.client_ready():
        pass
    return client


def without_credit(broker: Broker) -> None:
    broker.script("q", credit=0)


def without_outcome(broker: Broker) -> None:
    broker.script("q", "none")


CASES = [
    (without_credit, "credit", Delivery.NOT_DELIVERED),
    (without_outcome, "outcome", Delivery.UNKNOWN),
]


@pytest.mark.parametrize(("setting", "missing", "fate"), CASES)
def test_send_message_times_out_and_says_what_was_missing(
    broker: Broker, setting: Any, missing: str, fate: Delivery
) -> None:
    setting(broker)
    message = Message(b"x")
    told = []
    message.on_send_complete = lambda result, error: told.append(error)
    with SendClient(broker.url + "/q") as client:
        attached(client)
        began = time.monotonic()
        with pytest.raises(errors.MessageTimeout, match=missing) as caught:
            client.send_message(message, timeout=SOON)
        assert SOON <= time.monotonic() - began < LONG
        assert isinstance(caught.value, TimeoutError) and caught.value.delivery is fate is message.delivery
        assert "timeout of 0.05 s" in str(caught.value)
        assert isinstance(message.error, errors.MessageTimeout) and told == [message.error]
        assert (str(message.error), message.error.delivery) == (str(caught.value), fate)
        assert client.pending_messages == [] and not client.messages_pending()
        broker.script("q", "accepted")
        if setting is without_outcome:
            client.send_message(Message(b"next"), timeout=LONG)
    assert broker.info("q").received == (setting is without_outcome)


@pytest.mark.parametrize(("setting", "missing", "fate"), CASES)
@pytest.mark.parametrize("call", ["wait", "send_all_messages"])
def test_wait_and_send_all_messages_time_out_and_leave_what_is_pending(
    broker: Broker, setting: Any, missing: str, fate: Delivery, call: str
) -> None:
    setting(broker)
    messages = [Message(b"1"), Message(b"2")]
    with SendClient(broker.url + "/q") as client:
        client.queue_message(*messages)
        attached(client)
        with pytest.raises(errors.MessageTimeout, match=f"{missing}.* 2 messages") as caught:
            getattr(client, call)(timeout=SOON)
        assert caught.value.delivery is fate
        assert client.pending_messages == messages
        assert client.do_work() is True  # still open


def test_a_batch_of_which_a_part_has_no_outcome_times_out(broker: Broker) -> None:
    outcomes = iter(["accepted", "none", "accepted"])
    broker.script("q", lambda message: next(outcomes))
    batch = BatchMessage([b"1", b"2", b"3"], multi_messages=True)
    batch.max_message_length = 7  # bytes: a message each
    with SendClient(broker.url + "/q") as client:
        attached(client)
        with pytest.raises(errors.MessageTimeout, match="its outcome"):
            client.send_message(batch, timeout=0.3)
        assert client.pending_messages == []
    assert broker.info("q").received == 2


def test_a_time_out_that_does_not_pass_changes_nothing(broker: Broker) -> None:
    with SendClient(broker.url + "/q") as client:
        client.send_message(Message(b"1"), timeout=LONG)
        client.queue_message(Message(b"2"))
        client.wait(timeout=LONG)
        client.queue_message(Message(b"3"))
        assert client.send_all_messages(timeout=LONG) == [MessageState.SendComplete]
    assert broker.info("q").received == 3


def test_msg_timeout_says_what_was_missing_too(broker: Broker) -> None:
    for setting, missing, _ in CASES:
        setting(broker)
        message = Message(b"x")
        with SendClient(broker.url + "/q", msg_timeout=50) as client:
            attached(client).queue_message(message)
            client.wait()
        assert missing in str(message.error) and "msg_timeout of 50 ms" in str(message.error)


@pytest.mark.parametrize(("setting", "missing", "fate"), CASES)
@pytest.mark.parametrize("alone", [True, False])
def test_a_wait_without_limit_is_told_of_again_and_again(
    broker: Broker,
    setting: Any,
    missing: str,
    fate: Delivery,
    alone: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Patience, "FIRST", 0.03)
    monkeypatch.setattr(Patience, "AGAIN", 0.03)
    setting(broker)
    with SendClient(broker.url + "/q") as client, pytest.raises(errors.MessageTimeout):
        if alone:
            client.send_message(Message(b"x"), timeout=0.4)
        else:
            client.queue_message(Message(b"x"))
            client.wait(timeout=0.4)
    told = [r for r in caplog.records if "a call has waited" in r.getMessage()]
    assert len(told) >= 2
    assert all(
        r.levelno == logging.WARNING and missing in r.getMessage() for r in told if "attached" not in r.getMessage()
    )


@pytest.mark.parametrize(("setting", "missing", "fate"), CASES)
def test_a_client_whose_steps_somebody_overrode_is_told_of_too(
    broker: Broker,
    setting: Any,
    missing: str,
    fate: Delivery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stepping(SendClient):
        def do_work(self, **kwargs: Any) -> bool:
            return super().do_work(**kwargs)

        async def do_work_async(self, **kwargs: Any) -> bool:
            return bool(await super().do_work_async(**kwargs))  # type: ignore[misc]  # where SendClient is the asyncio one

    monkeypatch.setattr(Patience, "FIRST", 0.03)
    monkeypatch.setattr(Patience, "AGAIN", 0.03)
    setting(broker)
    with Stepping(broker.url + "/q") as client:
        client.queue_message(Message(b"x"))
        with pytest.raises(errors.MessageTimeout):
            client.wait(timeout=0.4)
    assert any("a call has waited" in r.getMessage() and missing in r.getMessage() for r in caplog.records)


def test_a_request_without_limit_is_told_of(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody answers the request; its own time-out ends the test only."""
    monkeypatch.setattr(Patience, "FIRST", 0.03)
    monkeypatch.setattr(Patience, "AGAIN", 0.03)
    with SendClient(peer.url) as client, pytest.raises(errors.RequestTimeout):
        client.mgmt_request(Message(b""), b"READ", timeout=400)
    told = [r.getMessage() for r in caplog.records if "has waited" in r.getMessage()]
    assert told
    assert "request 'READ' to '$management' has waited 0 s for the answer" in told[-1]


def test_who_waits_a_moment_only_is_not_told_of(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with SendClient(broker.url + "/q") as client:
        client.send_message(Message(b"x"))
    assert "has waited" not in caplog.text


def test_a_with_block_that_ends_with_queued_messages_says_how_many(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with SendClient(broker.url + "/q") as client:
        client.queue_message(*[Message(b"x") for _ in range(3)])
    (told,) = [r for r in caplog.records if "with block" in r.getMessage()]
    assert told.levelno == logging.WARNING and "3 message(s)" in told.getMessage()
    assert len(client.pending_messages) == 3
    caplog.clear()
    with SendClient(broker.url + "/q") as client:
        client.queue_message(Message(b"x"))
        client.send_all_messages()
    assert "with block" not in caplog.text


def test_the_second_send_all_messages_says_who_closed_the_client(broker: Broker) -> None:
    client = SendClient(broker.url + "/q")
    client.queue_message(Message(b"x"))
    client.send_all_messages()
    with pytest.raises(ValueError, match=r"closed by send_all_messages\(\).*close_on_done=False"):
        client.send_all_messages()
