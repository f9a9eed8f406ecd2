"""The peer settles, by itself, deliveries that a receiver holds: RabbitMQ takes them back so when a consumer takes too long."""

from __future__ import annotations

import copy
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi import ReceiveClient, errors
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine.lib import OUT_ACCEPTED, OUT_RELEASED
from uamqp_cffi._core.engine.sections import data_section
from uamqp_cffi._core.engine.values import described_composite, enc_bool
from uamqp_cffi.constants import DeliveryOutcome, MessageState, ReceiverSettleMode

pytestmark = pytest.mark.both_drivers

UNSETTLED, SETTLED = MessageState.ReceivedUnsettled, MessageState.ReceivedSettled
LIMIT = 10.0
STATES = {
    DeliveryOutcome.RELEASED: described_composite("released"),
    DeliveryOutcome.MODIFIED: described_composite("modified", delivery_failed=enc_bool(True)),
    DeliveryOutcome.REJECTED: described_composite("rejected"),
}


def deliver(peer: Any, *bodies: bytes) -> None:
    """What the peer sends once there is credit."""
    peer.wait(r.Credit)

    def send() -> None:
        for body in bodies:
            assert peer.engine.send_messages(peer.link, data_section(body), None)[0] == 1

    peer.do(send)


def take_back(
    peer: Any, first: int, last: int, outcome: DeliveryOutcome = DeliveryOutcome.RELEASED, settled: bool = False
) -> None:
    peer.do(lambda: peer.engine.settle(peer.link, first, last, settled, STATES[outcome]))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def texts(messages: Any) -> list[str]:
    return [str(message) for message in messages]


@pytest.fixture
def client(peer: Any) -> Iterator[ReceiveClient]:
    with ReceiveClient(peer.url, auto_complete=False, timeout=5000) as made:
        yield made


def held(peer: Any, client: ReceiveClient, *bodies: bytes) -> list[Any]:
    """Messages of these bodies, in the user's hands; the first has delivery-id 7."""
    until(client.client_ready)
    deliver(peer, *bodies)
    got: list[Any] = []
    while len(got) < len(bodies):
        got += client.receive_message_batch(len(bodies) - len(got))
    return got


def noticed(client: ReceiveClient, caplog: pytest.LogCaptureFixture, count: int = 1) -> list[str]:
    def warnings() -> list[str]:
        return [line.getMessage() for line in caplog.records if line.levelno == logging.WARNING]

    until(lambda: client.do_work() and len(warnings()) >= count)
    return warnings()


@pytest.mark.parametrize("settled", [False, True], ids=["unsettled", "settled"])
@pytest.mark.parametrize("outcome", list(STATES))
def test_a_message_that_was_taken_back_says_so_and_cannot_be_settled(
    peer: Any, client: ReceiveClient, caplog: pytest.LogCaptureFixture, outcome: DeliveryOutcome, settled: bool
) -> None:
    one, two, three = held(peer, client, b"1", b"2", b"3")
    take_back(peer, one.delivery_no, two.delivery_no, outcome, settled)
    (warning,) = noticed(client, caplog)
    assert f"{one.delivery_no} to {two.delivery_no} by itself, as {outcome.value}" in warning
    assert (one.state, one.settled) == (SETTLED, True)
    for settle in (two.accept, two.release, two.reject, two.accept, lambda: two.modify(True, False), one.accept):
        with pytest.raises(errors.MessageTakenBack, match=outcome.value) as caught:
            settle()
        assert isinstance(caught.value, errors.MessageAlreadySettled) and caught.value.outcome is outcome
    assert two.state is SETTLED
    assert three.state is UNSETTLED and three.accept() is True and three.accept() is False


@pytest.mark.blocking("a loop reads when it has a turn, which a plain call does not give it")
def test_settling_finds_out_by_itself(peer: Any, client: ReceiveClient) -> None:
    (message,) = held(peer, client, b"1")
    take_back(peer, message.delivery_no, message.delivery_no)
    peer.do(lambda: None)  # it has written that now
    assert client._connection is not None
    client._connection._looked_at = 0.0
    with pytest.raises(errors.MessageTakenBack):
        message.accept()
    assert message.state is SETTLED


def test_the_peer_gets_its_answer_and_delivers_again(
    peer: Any, client: ReceiveClient, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = held(peer, client, b"1", b"2")
    take_back(peer, one.delivery_no, two.delivery_no)
    noticed(client, caplog)
    (answer,) = peer.wait(r.Settled)
    assert (answer.first, answer.last, answer.settled, answer.state) == (
        one.delivery_no, two.delivery_no, True, STATES[DeliveryOutcome.RELEASED],
    )  # fmt: skip
    (again,) = held(peer, client, b"1")
    assert str(again) == "1" and again.accept() is True


@pytest.mark.parametrize("mode", list(ReceiverSettleMode))
def test_what_is_unread_is_not_handed_out(
    peer: Any, caplog: pytest.LogCaptureFixture, mode: ReceiverSettleMode
) -> None:
    with ReceiveClient(peer.url, timeout=5000, receive_settle_mode=mode) as client:
        until(client.client_ready)
        deliver(peer, b"1", b"2", b"3")
        until(lambda: client.do_work() and client._received_messages.qsize() == 3)
        first = client._received_messages.queue[0].delivery_no
        take_back(peer, first, first + 1)
        noticed(client, caplog)
        assert texts(client.receive_message_batch(10)) == ["3"]
    settled = [(s.first, s.last, s.outcome) for s in peer.wait(r.Settled, 2)]
    assert settled == [(first, first + 1, OUT_RELEASED), (first + 2, first + 2, OUT_ACCEPTED)]


def test_what_the_peer_settled_as_done_is_handed_out_settled(peer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with ReceiveClient(peer.url, timeout=5000, auto_complete=False) as client:
        until(client.client_ready)
        deliver(peer, b"1", b"2")
        until(lambda: client.do_work() and client._received_messages.qsize() == 2)
        first = client._received_messages.queue[0].delivery_no
        peer.do(lambda: peer.engine.settle(peer.link, first, first, True, b""))
        (warning,) = noticed(client, caplog)
        assert "without an outcome" in warning
        one, two = client.receive_message_batch(10)
        assert (str(one), one.state, two.state) == ("1", SETTLED, UNSETTLED)
        with pytest.raises(errors.MessageTakenBack) as caught:
            one.accept()
        assert caught.value.outcome is None


@pytest.mark.blocking("a loop reads when it has a turn, which a callback does not give it")
def test_receiving_goes_on_while_messages_are_taken_back(peer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The callback takes too long; what it returns for is accepted as far as it can be."""
    seen: list[str] = []

    def work(message: Any) -> None:
        seen.append(str(message))
        if str(message) == "1":
            take_back(peer, message.delivery_no, message.delivery_no + 1)
            deliver(peer, b"1 again", b"2 again", b"last")
            peer.do(lambda: None)  # it has written that now
            assert client._connection is not None
            client._connection._looked_at = 0.0

    with ReceiveClient(peer.url, timeout=5000) as client:
        until(client.client_ready)
        deliver(peer, b"1", b"2")
        while seen[-1:] != ["last"]:
            client.receive_message_batch(10, on_message_received=work)
    assert seen[0] == "1" and seen[-3:] == ["1 again", "2 again", "last"]
    assert "as released" in caplog.text and "failed" not in caplog.text


def test_an_iteration_goes_on(peer: Any) -> None:
    seen = []
    with ReceiveClient(peer.url, timeout=5000) as client:
        until(client.client_ready)
        deliver(peer, b"1")
        for message in client.receive_messages_iter():
            seen.append(str(message))
            if str(message) == "2":
                break
            take_back(peer, message.delivery_no, message.delivery_no)
            deliver(peer, b"2")
    assert seen == ["1", "2"]


def test_the_error_is_copied_whole() -> None:
    for error in (errors.MessageTakenBack(DeliveryOutcome.MODIFIED), errors.MessageTakenBack()):
        for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert (type(same), str(same), same.outcome) == (type(error), str(error), error.outcome)
