"""Session and MessageSender used directly, as 10.2 and 10.3 of uamqp's behaviour describe them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import uamqp_cffi.session
from uamqp_cffi import Connection, Message, MessageSender, Session, Target, authentication, errors
from uamqp_cffi._core.engine import records as r
from uamqp_cffi.constants import MessageSenderState, ReceiverSettleMode, SenderSettleMode

pytestmark = pytest.mark.both_drivers

LIMIT = 10.0


@pytest.fixture
def connection(peer: Any) -> Iterator[Connection]:
    auth = authentication.SASLAnonymous("localhost", port=peer.port, use_tls=False)
    with Connection("localhost", auth) as made:
        yield made


def drive(connection: Connection, link: MessageSender, until: Callable[[], bool]) -> None:
    """The loop that low-level users write."""
    end = time.monotonic() + LIMIT
    while not until():
        assert time.monotonic() < end, "nothing happens"
        link.work()
        connection.work()


def test_a_session_has_windows_of_one_unless_told(connection: Connection) -> None:
    session = Session(connection)
    assert (session.incoming_window, session.outgoing_window, session.handle_max) == (1, 1, 4294967295)
    session.incoming_window, session.outgoing_window, session.handle_max = 10, 20, 30
    assert (session.incoming_window, session.outgoing_window, session.handle_max) == (10, 20, 30)


def test_a_session_begins_with_its_settings_and_ends(peer: Any, connection: Connection) -> None:
    with Session(connection, incoming_window=5, outgoing_window=6, handle_max=7) as session:
        sender = MessageSender(session, "here", Target("q"))
        sender.open()
        drive(connection, sender, lambda: sender.get_state() is MessageSenderState.Open)
    (begin,) = peer.wait(r.Begin)
    assert [begin.fields[name] for name in ("incoming_window", "outgoing_window", "handle_max")] == [5, 6, 7]
    peer.wait(r.End)
    session.destroy()
    session.destroy()
    with pytest.raises(errors.MessageHandlerError):
        MessageSender(session, "here", Target("q")).open()


@pytest.mark.blocking("tasks take turns")
def test_threads_that_use_a_new_session_at_once_begin_it_once(
    peer: Any, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)
    encode = uamqp_cffi.session.composite

    def composite(name: str, **fields: Any) -> bytes:
        both.wait(LIMIT)
        return encode(name, **fields)

    monkeypatch.setattr("uamqp_cffi.session.composite", composite)
    session, numbers = Session(connection), []
    threads = [threading.Thread(target=lambda: numbers.append(session._begin())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    while not peer.records(r.Begin):  # the peer answers it, which it could not once it has our close
        connection.work()
    connection.destroy()
    peer.wait(r.Close)
    assert len(set(numbers)) == 1
    assert len(peer.wait(r.Begin)) == 1


def test_a_session_never_used_sends_nothing(connection: Connection) -> None:
    Session(connection).destroy()
    assert not connection._started


def test_a_sender_sends_and_calls_back_with_numbers(peer: Any, connection: Connection) -> None:
    session = Session(connection, incoming_window=100, outgoing_window=100)
    told: list[Any] = []
    with MessageSender(session, "here", Target("q"), name="link") as sender:
        assert sender.name == b"link" and sender._link.peer_max_message_size == 0
        message = Message(b"x")
        before = message.state
        assert sender.send(message, lambda *args: told.append(args)) is True
        drive(connection, sender, lambda: bool(told))
        assert told == [(message, 1, [])] and message.state is before
    assert peer.wait(r.Attach)[0].fields["name"] == "link"
    peer.wait(r.Detach)


def test_a_sender_tells_of_rejections(peer: Any, connection: Connection) -> None:
    from uamqp_cffi._core.engine.values import described_composite

    rejected = described_composite("rejected", error=peer.error("amqp:not-allowed", "no"))
    peer.on[r.Delivery] = lambda p, d: p.engine.settle(d.link, d.delivery_id, d.delivery_id, True, rejected)
    told: list[Any] = []
    sender = MessageSender(Session(connection), "here", Target("q"))
    sender.open()
    sender.send(Message(b"x"), lambda *args: told.append(args[1:]))
    drive(connection, sender, lambda: bool(told))
    assert told == [(2, [[b"amqp:not-allowed", b"no", None]])]


def test_a_sender_times_out_before_and_after_handing_over(peer: Any, connection: Connection) -> None:
    peer.credit, peer.accept = 1, False
    told: list[Any] = []
    sender = MessageSender(Session(connection), "here", Target("q"))
    sender.open()
    for name in ("over", "waits"):
        sender.send(Message(name), lambda message, result, state: told.append((str(message), result)), timeout=100)
    drive(connection, sender, lambda: len(told) == 2)
    assert sorted(told) == [("over", 3), ("waits", 3)]
    assert len(peer.wait(r.Delivery)) == 1


def test_what_cannot_be_sent_is_called_back(peer: Any, connection: Connection) -> None:
    peer.max_message_size = 100
    told: list[Any] = []
    sender = MessageSender(Session(connection), "here", Target("q"))
    sender.open()
    for message in (Message(b"x" * 200), Message(b"y", application_properties={"k": object()}), Message(b"z")):
        sender.send(message, lambda message, result, state: told.append((result, state and state[0][0])))
    drive(connection, sender, lambda: len(told) == 3)
    assert told == [(2, b"amqp:link:message-size-exceeded"), (2, b"amqp:client-error"), (1, [])]
    assert sender._link.peer_max_message_size == 100


def test_close_calls_back_what_has_no_outcome(peer: Any, connection: Connection) -> None:
    peer.credit, peer.accept = 1, False
    told: list[Any] = []
    sender = MessageSender(Session(connection), "here", Target("q"))
    sender.open()
    for name in ("over", "waits"):
        sender.send(Message(name), lambda message, result, state: told.append((str(message), result, state)))
    drive(connection, sender, lambda: bool(peer.records(r.Delivery)))
    sender.close()
    assert sorted(told) == [("over", 2, None), ("waits", 2, None)]
    assert sender.get_state() is MessageSenderState.Idle
    sender.close()
    sender.destroy()


def test_a_broken_link_is_told_by_work_and_get_state(peer: Any, connection: Connection) -> None:
    sender = MessageSender(Session(connection), "here", Target("q"))
    sender.open()
    drive(connection, sender, lambda: sender.get_state() is MessageSenderState.Open)
    peer.do(lambda: peer.engine.detach(peer.link, True, peer.error("amqp:not-found")))
    with pytest.raises(errors.LinkDetach):
        drive(connection, sender, lambda: False)
    with pytest.raises(errors.LinkDetach):
        sender.get_state()
    assert sender._state is MessageSenderState.Error
    assert sender.send(Message(b"x"), None) is False


def test_two_senders_share_a_session(peer: Any, connection: Connection) -> None:
    session = Session(connection, incoming_window=100, outgoing_window=100)
    told: list[str] = []
    one, two = MessageSender(session, "here", Target("q")), MessageSender(session, "here", Target("q2"))
    for sender in (one, two):
        sender.open()
    for _ in range(20):
        one.send(Message(b"1"), lambda m, result, state: told.append(str(m)))
        two.send(Message(b"2"), lambda m, result, state: told.append(str(m)))
    end = time.monotonic() + LIMIT
    while len(told) < 40 and time.monotonic() < end:
        one.work()
        two.work()
        connection.work()
    assert sorted(told) == ["1"] * 20 + ["2"] * 20
    peer.do(lambda: peer.engine.detach(next(iter(peer.links)), True, b""))
    with pytest.raises(errors.LinkDetach):
        drive(connection, one, lambda: False)
    two.send(Message(b"still"), lambda m, result, state: told.append(str(m)))
    drive(connection, two, lambda: told[-1] == "still")


def test_modes_and_sizes_read_as_numbers_and_are_set_by_members(connection: Connection) -> None:
    sender = MessageSender(Session(connection), "here", Target("q"))
    assert (sender.send_settle_mode, sender.receive_settle_mode, sender.max_message_size) == (0, 1, 1048576)
    sender.send_settle_mode = SenderSettleMode.Settled
    sender.receive_settle_mode = ReceiverSettleMode.ReceiveAndDelete
    sender.max_message_size = 5
    assert (sender.send_settle_mode, sender.receive_settle_mode, sender.max_message_size) == (1, 0, 5)
    with pytest.raises(ValueError, match="SenderSettleMode"):
        sender.send_settle_mode = 7  # type: ignore[assignment]


def test_a_link_name_is_free_again_after_its_detach(peer: Any, connection: Connection) -> None:
    session = Session(connection)
    for _ in range(3):
        sender = MessageSender(session, "here", Target("q"), name="same")
        sender.open()
        drive(connection, sender, lambda sender=sender: sender.get_state() is MessageSenderState.Open)
        sender.close()
    assert len(peer.wait(r.Attach, 3)) == 3 and connection._failure is None
