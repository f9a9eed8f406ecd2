"""A connection against a peer on a loopback socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
import weakref

import pytest
import trustme

from uamqp_cffi import Message, SendClientAsync, errors
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine import values
from uamqp_cffi._core.engine.lib import undump
from uamqp_cffi._core.transport.wire import clock
from uamqp_cffi._core.waiting.plan import Call, Inbox, Wait
from uamqp_cffi.authentication import SASLAnonymous, SASLExternal, SASLPlain
from uamqp_cffi.c_uamqp import ConnectionState
from uamqp_cffi.connection import PACE, Connection
from uamqp_cffi.constants import Delivery, ErrorCodes, MessageState, SenderSettleMode


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def server_context(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def failed(connection):
    return lambda: connection._failure is not None


# ---- opening


def test_nothing_is_done_before_the_first_step(peer, connect):
    connection = connect(peer)
    peer.step()
    assert peer.sock is None
    assert connection._state is ConnectionState.UNKNOWN


def test_open_carries_what_was_given(peer, connect, tools):
    connection = connect(
        peer,
        container_id="me",
        max_frame_size=5000,
        channel_max=7,
        idle_timeout=60_000,
        properties={"product": "tests"},
    )
    tools.pump(connection, peer, lambda: connection._opened)
    (opened,) = peer.seen(r.Open)
    fields = {name: value for name, value in opened.fields.items() if value is not None}
    assert fields == {
        "container_id": "me",
        "hostname": "127.0.0.1",
        "max_frame_size": 5000,
        "channel_max": 7,
        "idle_time_out": 60_000,
        "properties": {"product": "tests"},
    }
    assert connection._state is ConnectionState.OPENED
    assert connection._remote["container_id"] == "peer"


def test_at_most_a_mebibyte_is_announced_per_frame(peer, connect, tools):
    connection = connect(peer)
    assert connection.max_frame_size == 0xFFFFFFFF
    assert connection.remote_max_frame_size == 512
    tools.pump(connection, peer, lambda: connection._opened)
    assert peer.seen(r.Open)[0].fields["max_frame_size"] == 1 << 20
    assert connection.remote_max_frame_size == 1 << 20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_frame_size", 511),
        ("max_frame_size", -1),
        ("channel_max", 65536),
        ("channel_max", -1),
        ("idle_timeout", -1),
        ("idle_timeout", 1 << 32),
    ],
)
def test_a_setting_that_has_no_room_in_open_is_refused_at_once(peer, connect, name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        connect(peer, **{name: value})
    connection = connect(peer)
    with pytest.raises(ValueError, match=name):
        setattr(connection, name, value)


def test_settings_may_change_before_the_first_step(peer, connect, tools):
    connection = connect(peer)
    connection.idle_timeout = 1234
    connection.properties = {"a": 1}
    tools.pump(connection, peer, lambda: connection._opened)
    assert peer.seen(r.Open)[0].fields["idle_time_out"] == 1234
    with pytest.raises(TypeError):
        connection.properties = "text"


def test_plain_credentials_reach_the_peer_and_no_text(peer, connect, tools):
    auth = SASLPlain("127.0.0.1", "user", "sesame", port=peer.port, use_tls=False)
    connection = connect(peer, auth)
    tools.pump(connection, peer, lambda: connection._opened)
    assert peer.seen(r.SaslInit) == [r.SaslInit("PLAIN", b"\0user\0sesame", None)]
    assert "sesame" not in repr(auth) + repr(auth.sasl) + repr(connection)


def test_an_auth_object_serves_one_connection(peer, connect):
    auth = SASLAnonymous("127.0.0.1", port=peer.port, use_tls=False)
    connect(peer, auth)
    with pytest.raises(ValueError, match="another connection"):
        connect(peer, auth)


def test_tls_is_verified_against_the_ca_file(server_context, ca_file, connect, tools):
    peer = tools.Peer(server_context)
    connection = connect(peer, SASLAnonymous("localhost", port=peer.port, verify=ca_file))
    tools.pump(connection, peer, lambda: connection._opened)
    assert connection._wire.filter.version() == "TLSv1.3"
    peer.close()


def test_external_shows_our_certificate(ca, ca_file, server_context, connect, tools, tmp_path):
    server_context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(server_context)
    ours = ca.issue_cert("client.example")
    ours.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "ours.pem"))
    peer = tools.Peer(server_context, ("EXTERNAL",))
    auth = SASLExternal("localhost", port=peer.port, cert_file=str(tmp_path / "ours.pem"), verify=ca_file)
    connection = connect(peer, auth)
    tools.pump(connection, peer, lambda: connection._opened)
    assert peer.seen(r.SaslInit) == [r.SaslInit("EXTERNAL", b"", None)]
    assert peer.wire.filter._ssl.getpeercert()["subjectAltName"] == (("DNS", "client.example"),)
    peer.close()


# ---- failing to open


def test_a_refused_port_is_told_with_its_address(connect, peer):
    peer.listener.close()
    connection = connect(peer)
    with pytest.raises(errors.AMQPConnectionError, match=f"127.0.0.1:{peer.port}.*refused") as caught:
        connection._wait(Inbox())
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.scope == "connection"
    with pytest.raises(errors.AMQPConnectionError):
        connection.work()


def test_an_unknown_host_is_told(connect, peer, monkeypatch):
    def nobody(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    connection = connect(peer, SASLAnonymous("nobody.invalid"))
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(errors.AMQPConnectionError, match="cannot resolve 'nobody.invalid'"):
        connection._wait(Inbox(), time.monotonic() + 10)


def test_an_untrusted_server_is_told(server_context, connect, tools):
    peer = tools.Peer(server_context)
    connection = connect(peer, SASLAnonymous("localhost", port=peer.port))
    tools.pump(connection, peer_that_may_fail(peer), failed(connection))
    assert isinstance(connection._failure, errors.AMQPConnectionError)
    assert "not trusted" in str(connection._failure)
    assert connection._state is ConnectionState.END
    peer.close()


class peer_that_may_fail:
    """A peer whose TLS gives up when ours does."""

    def __init__(self, peer):
        self._peer = peer

    def step(self):
        from uamqp_cffi._core.transport.filters.tls import TransportError

        try:
            self._peer.step()
        except TransportError:
            self._peer.flush()
            self._peer.sock.close()
            self._peer.ended = True


def test_a_plain_server_on_a_tls_connection_is_named(peer, connect, tools):
    connection = connect(peer, SASLAnonymous("localhost", port=peer.port))
    connection._step(0)
    end = time.monotonic() + tools.LIMIT
    while connection._failure is None and time.monotonic() < end:
        connection._step(0.001)
        with contextlib.suppress(BlockingIOError):
            peer.listener.accept()[0].send(b"AMQP\0\1\0\0")
    assert "plain AMQP" in str(connection._failure)
    assert "use_tls=False" in str(connection._failure)


def test_a_tls_server_on_a_plain_connection_is_told(server_context, connect, tools):
    peer = tools.Peer(server_context)
    connection = connect(peer)
    tools.pump(connection, peer_that_may_fail(peer), failed(connection))
    assert "speaks TLS" in str(connection._failure)
    assert isinstance(connection._failure, errors.AMQPConnectionError)
    peer.close()


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_a_sasl_refusal_is_both_kinds_of_error_and_names_itself(peer, connect, tools, code):
    peer.sasl_code = code
    connection = connect(peer, SASLPlain("127.0.0.1", "u", "wrong", port=peer.port, use_tls=False))
    tools.pump(connection, peer, failed(connection))
    error = connection._failure
    assert isinstance(error, errors.ConnectionClose)
    assert isinstance(error, errors.AuthenticationException)
    assert "PLAIN" in str(error)
    assert error.code == code
    assert "wrong" not in str(error)


def test_a_mechanism_that_is_not_offered_is_named(connect, tools):
    peer = tools.Peer(mechanisms=("PLAIN",))
    connection = connect(peer)
    tools.pump(connection, peer, failed(connection))
    assert isinstance(connection._failure, errors.AuthenticationException)
    assert "ANONYMOUS" in str(connection._failure)
    assert "PLAIN" in str(connection._failure)
    peer.close()


def test_garbage_is_an_error_at_once(peer, connect, tools):
    connection = connect(peer)
    tools.pump(connection, peer, lambda: peer.received >= 8)
    peer.wire = None
    peer.sock.send(b"220 mail.example ESMTP ready\r\n")
    with pytest.raises(errors.AMQPConnectionError):
        connection._wait(Inbox(), time.monotonic() + 10)
        connection._raise_failure()


def test_silence_before_the_open_ends_with_connect_timeout(peer, connect):
    peer.silent = True
    connection = connect(peer, connect_timeout=0.2)
    start = time.monotonic()
    with pytest.raises(errors.ConnectTimeout, match="open the connection") as caught:
        connection._wait(Inbox())
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, errors.AMQPConnectionError)
    assert 0.2 <= time.monotonic() - start < 5


def test_connect_timeout_covers_the_attach_when_one_is_expected(peer, connect, running):
    running(peer)
    connection = connect(peer, connect_timeout=0.4)
    connection._expect_attach()
    with pytest.raises(errors.ConnectTimeout, match="attach the link"):
        connection._wait(Inbox())


def test_connect_timeout_is_over_with_the_open_or_the_attach(peer, connect, tools):
    connection = connect(peer, connect_timeout=5)
    tools.pump(connection, peer, lambda: connection._opened)
    assert connection._connect_deadline is None
    other = tools.Peer()
    connection = connect(other, connect_timeout=5)
    connection._expect_attach()
    tools.pump(connection, other, lambda: connection._opened)
    assert connection._connect_deadline is not None
    connection._attached()
    assert connection._connect_deadline is None
    other.close()


# ---- records, sending, losing


def test_records_go_to_the_inbox_of_their_link(peer, connect, tools):
    connection = connect(peer)
    connection._start()
    link = tools.Link(connection)
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    kinds = {type(record) for record in link.inbox.records}
    assert kinds >= {r.SessionState, r.Begin, r.LinkState, r.Attach, r.Credit}
    link.inbox.records.clear()
    first = link.send(b"one", b"two", b"three")
    tools.pump(connection, peer, lambda: link.inbox.records)
    assert [(e.first, e.last) for e in link.take(r.Settled)] == [(first, first + 2)]


def test_what_a_peer_repeats_does_not_pile_up_in_an_inbox(peer, connect, tools):
    connection = connect(peer)
    connection._start()
    link = tools.Link(connection)
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    link.inbox.records.clear()
    theirs, session = peer.seen(r.Attach)[0].link, peer.seen(r.Begin)[0].session
    peer.silent = True
    for n in range(20):
        peer.wire.engine.flow(theirs, n, drain=n == 10)
        peer.flush()
        peer.wire.engine.attach(session, tools.attach(True, f"theirs {n}"))
        tools.pump(connection, peer, lambda n=n: len(peer.seen(r.Detach)) > n)
    assert [(record.credit, record.drain) for record in link.inbox.records] == [(9, False), (10, True), (19, False)]
    assert connection._link_sessions == {}


def test_unasked_sessions_and_links_are_refused(peer, connect, tools):
    connection = connect(peer)
    tools.pump(connection, peer, lambda: connection._opened)
    peer.silent = True
    peer.wire.engine.begin(values.composite("begin", **tools.BEGIN))
    tools.pump(connection, peer, lambda: peer.seen(r.End))
    assert peer.seen(r.End)[0].error.condition == b"amqp:not-allowed"
    assert connection._failure is None


def test_an_unasked_link_is_detached(peer, connect, tools):
    connection = connect(peer)
    connection._start()
    tools.Link(connection)
    tools.pump(connection, peer, lambda: peer.seen(r.Attach))
    session = peer.seen(r.Begin)[0].session
    peer.silent = True
    peer.wire.engine.attach(session, tools.attach(True, "theirs"))
    tools.pump(connection, peer, lambda: peer.seen(r.Detach))
    assert peer.seen(r.Detach)[0].error.condition == b"amqp:not-allowed"


@pytest.mark.parametrize(
    ("begun", "more", "answers"),
    [
        ("attach", "ch=0 detach(handle=1 closed=true)", [r.Attach, r.Attach, r.Detach]),
        ("attach", "ch=0 end()", [r.End]),
        ("begin", "ch=1 end()", [r.Begin, r.Begin, r.End]),
        ("begin", 'ch=1 attach(name="theirs" handle=0 role=true)', [r.Begin, r.Begin, r.End]),
    ],
    ids=["attach-detach", "attach-end", "begin-end", "begin-attach"],
)
def test_what_the_peer_began_may_be_over_before_it_is_refused(peer, connect, tools, begun, more, answers):
    connection = connect(peer)
    connection._start()
    tools.Link(connection)
    tools.pump(connection, peer, lambda: peer.seen(r.Attach))
    peer.silent = True
    if begun == "attach":
        peer.wire.engine.attach(peer.seen(r.Begin)[0].session, tools.attach(True, "theirs"))
    else:
        peer.wire.engine.begin(values.composite("begin", **tools.BEGIN))
    send_with(peer, more)
    tools.pump(connection, peer, lambda: len(peer.seen((*answers,))) >= len(answers))
    assert [type(record) for record in peer.seen((*answers,))] == answers
    assert connection._failure is None


def send_with(peer, frame):
    """What the peer's engine has to say, and one more frame, in one piece: the client's engine has seen all of it before the
    client looks."""
    out = bytes(peer.wire.output())
    peer.wire.sent(len(out), clock())
    peer.sock.sendall(out + undump(frame))


def test_a_session_that_the_peer_began_does_not_hide_its_close(peer, connect, tools):
    connection = connect(peer)
    tools.pump(connection, peer, lambda: connection._opened)
    peer.wire.engine.begin(values.composite("begin", **tools.BEGIN))
    send_with(peer, 'ch=0 close(error=error(condition=:a description="bye"))')
    tools.pump(connection, peer, lambda: connection._failure)
    assert type(connection._failure) is errors.VendorConnectionClose
    assert connection._failure.description == b"bye"


def test_presettled_is_done_without_a_word_from_the_peer(peer, connect, tools):
    connection = connect(peer)
    connection._start()
    link = tools.Link(connection)
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    link.inbox.records.clear()
    link.send(b"x", b"y", settled=True)
    assert [(e.first, e.last, e.outcome) for e in link.take(r.Settled)] == [(0, 1, 1)]


def close_error(condition="amqp:connection:forced"):
    return values.described_composite(
        "error", condition=values.enc_symbol(condition), description=values.enc_str("maintenance")
    )


@pytest.mark.parametrize(
    ("condition", "kind", "code"),
    [
        ("amqp:connection:forced", errors.ConnectionClose, ErrorCodes.ConnectionCloseForced),
        ("com.example:odd", errors.VendorConnectionClose, b"com.example:odd"),
    ],
)
def test_a_close_says_why_and_is_answered(peer, connect, tools, condition, kind, code):
    connection = connect(peer)
    tools.pump(connection, peer, lambda: connection._opened)
    peer.wire.engine.close(close_error(condition))
    tools.pump(connection, peer, lambda: failed(connection)() and peer.seen(r.Close))
    assert type(connection._failure) is kind
    assert connection._failure.condition == code
    assert connection._failure.description in (b"maintenance", "maintenance")
    assert connection._state is ConnectionState.END


def test_a_close_without_error_is_an_error_too(peer, connect, tools):
    connection = connect(peer)
    tools.pump(connection, peer, lambda: connection._opened)
    peer.wire.engine.close()
    tools.pump(connection, peer, failed(connection))
    assert connection._failure.condition is ErrorCodes.UnknownError


@pytest.mark.parametrize("how", ["fin", "rst", "half"])
def test_a_lost_socket_gives_first_the_deliveries_and_then_the_error(peer, connect, tools, how):
    connection = connect(peer)
    connection._start()
    link = tools.Link(connection)
    peer.accept = False
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    link.inbox.records.clear()
    link.send(b"x")
    tools.pump(connection, peer, lambda: peer.seen(r.Delivery))
    if how == "fin":
        peer.sock.close()
        peer.ended = True
    elif how == "rst":
        peer.reset()
    else:
        peer.sock.shutdown(socket.SHUT_WR)
        peer.ended = True
    tools.pump(connection, peer, failed(connection))
    assert [(e.first, e.outcome) for e in link.take(r.Settled)] == [(0, 3)]
    error = connection._failure
    assert isinstance(error, errors.MessageHandlerError)
    assert error.scope == "connection"
    assert (error.__cause__ is not None) == (how == "rst")
    assert not connection._step(0)
    assert link.inbox.ready()  # poked


def test_a_reset_in_the_middle_of_a_large_message_is_not_delivered(peer, connect, tools):
    connection = connect(peer)
    connection._start()
    link = tools.Link(connection)
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    link.inbox.records.clear()
    link.send(b"x" * (64 << 20))
    assert connection._blocked
    peer.reset()
    tools.pump(connection, peer, failed(connection))
    assert [(e.first, e.outcome) for e in link.take(r.Settled)] == [(0, 2)]


def test_a_full_kernel_is_waited_for_and_drained_is_told(peer, connect, tools):
    connection = connect(peer)
    connection._start()
    link = tools.Link(connection)
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    link.send(b"x" * (32 << 20))
    assert connection._blocked
    room = Inbox()
    connection._when_drained(room)
    assert not room.ready()
    tools.pump(connection, peer, lambda: not connection._blocked)
    assert room.ready()
    tools.pump(connection, peer, lambda: peer.seen(r.Delivery))


def test_own_idle_timeout_closes_and_says_so(peer, connect, tools):
    connection = connect(peer, idle_timeout=300)
    tools.pump(connection, peer, lambda: connection._opened)
    peer.silent = True
    with pytest.raises(errors.ConnectionClose) as caught:
        connection._wait(Inbox(), time.monotonic() + 10)
    assert caught.value.condition is ErrorCodes.InternalServerError
    assert caught.value.action is None
    tools.pump(connection, peer, lambda: peer.seen(r.Close))
    assert peer.seen(r.Close)[0].error.condition == b"amqp:internal-error"


def test_unread_bytes_are_no_silence(peer, connect, tools):
    """Time passed while nobody read: what lies in the socket counts before the clock does."""
    connection = connect(peer, idle_timeout=300)
    tools.pump(connection, peer, lambda: connection._opened)
    peer.sock.send(b"\0\0\0\x08\x02\0\0\0")
    deadline = connection._wire.deadline / 1000
    while time.monotonic() < deadline + 0.01:
        time.sleep(max(0.0, deadline + 0.02 - time.monotonic()))  # the clock itself is what is tested
    connection._step(0)
    assert connection._failure is None


# ---- work, pace


def test_work_opens_and_raises_what_it_holds(peer, connect, tools):
    connection = connect(peer)
    end = time.monotonic() + tools.LIMIT
    while not connection._opened:
        assert time.monotonic() < end
        connection.work()
        peer.step()
    peer.wire.engine.close(close_error())
    with pytest.raises(errors.ConnectionClose):
        while time.monotonic() < end:
            connection.work()
            peer.step()
    with pytest.raises(errors.ConnectionClose):
        connection.work()
    connection.destroy()
    connection.work()


def test_idle_steps_wait_longer_and_longer_but_never_after_work(peer, connect, tools, monkeypatch):
    connection = connect(peer)
    tools.pump(connection, peer, lambda: connection._opened)
    waits = []
    real = connection._poller.wait
    monkeypatch.setattr(connection._poller, "wait", lambda wait, write=False: waits.append(wait) or real(0, write))
    connection._idle = 0
    for _ in range(10):
        connection._paced_step()
    assert PACE == (0, 0, 0.001, 0.002, 0.005, 0.010, 0.020, 0.050)
    assert waits == [*PACE, PACE[-1], PACE[-1]]
    waits.clear()
    connection._paced_step(moved_work=True)
    connection._paced_step()
    assert waits == [0, 0]
    waits.clear()
    for _ in range(5):
        connection._paced_step()
    peer.sock.send(b"\0\0\0\x08\x02\0\0\0")
    while not connection._paced_step():
        continue
    waits.clear()
    connection._paced_step()
    assert waits == [0]


def test_the_advisory_lock_is_uamqps_and_not_the_inner_one(peer, connect, tools):
    connection = connect(peer)
    tools.pump(connection, peer, lambda: connection._opened)
    connection.lock()
    with pytest.raises(TimeoutError):
        connection.lock(timeout=0.01)
    connection.release()
    connection.release()
    connection.lock(timeout=-1)
    connection._step(0)  # the inner lock is another
    connection.release()


# ---- closing


def test_destroy_waits_for_the_answer(peer, connect, running, tools):
    running(peer)
    connection = connect(peer)
    end = time.monotonic() + tools.LIMIT
    while not connection._opened:
        assert time.monotonic() < end
        connection._step(0.01)
    connection.destroy()
    assert peer.seen(r.Close) == [r.Close(None)]
    assert connection._state is ConnectionState.END
    assert connection._failure is None
    connection.destroy()


def test_destroy_is_bounded_when_the_peer_says_nothing(peer, connect, tools):
    connection = connect(peer)
    tools.pump(connection, peer, lambda: connection._opened)
    start = time.monotonic()
    connection._close(0.2)
    assert 0.2 <= time.monotonic() - start < 2
    assert connection._sock is None


def test_destroy_of_what_never_started_or_only_began(peer, connect):
    never = connect(peer)
    never.destroy()
    assert never._state is ConnectionState.UNKNOWN
    began = connect(peer)
    began._step(0)
    began.destroy()
    began.destroy()


def test_a_connection_is_a_context_manager(peer, connect, tools):
    with connect(peer) as connection:
        tools.pump(connection, peer, lambda: connection._opened)
        peer.sock.close()
        peer.ended = True
    assert connection._closed


def test_redirect_goes_to_the_other_host(peer, connect, tools):
    connection = connect(peer, container_id="me", channel_max=9)
    tools.pump(connection, peer, lambda: connection._opened)
    other = tools.Peer()
    target = errors.LinkRedirect(b"amqp:link:redirect", None, {b"hostname": b"localhost"})
    peer.wire.engine.close()  # so that nobody waits for an answer
    tools.pump(connection, peer, failed(connection))
    connection.redirect(target, SASLAnonymous("localhost", port=other.port, use_tls=False))
    assert connection.hostname == b"localhost"
    tools.pump(connection, other, lambda: connection._opened)
    fields = other.seen(r.Open)[0].fields
    assert (fields["container_id"], fields["channel_max"], fields["hostname"]) == ("me", 9, "localhost")
    same = SASLAnonymous("localhost", port=1, use_tls=False)
    connection.redirect(target, same)
    assert not same.consumed
    other.close()


def test_redirect_to_where_we_are_changes_nothing(peer, connect):
    connection = connect(peer)
    auth = SASLAnonymous("127.0.0.1")
    connection.redirect(errors.LinkRedirect(b"amqp:link:redirect", None, {b"hostname": b"127.0.0.1"}), auth)
    assert not auth.consumed
    assert connection.auth is not auth


# ---- threads


def opened(peer, connect, running, tools, **kwargs):
    running(peer)
    connection = connect(peer, **kwargs)
    end = time.monotonic() + tools.LIMIT
    while not connection._opened:
        assert time.monotonic() < end
        connection._step(0.01)
    return connection


def waiter(connection, inbox, results, deadline=None):
    def run():
        try:
            results.append(connection._wait(inbox, deadline))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_poke_from_another_thread_ends_a_wait(peer, connect, running, tools):
    connection = opened(peer, connect, running, tools)
    inbox, results = Inbox(), []
    thread = waiter(connection, inbox, results)
    until(lambda: connection._poller.polling)
    inbox.poke()
    thread.join(5)
    assert results == [True]


def test_a_wait_ends_at_its_deadline(peer, connect, running, tools):
    connection = opened(peer, connect, running, tools)
    start = time.monotonic()
    assert connection._wait(Inbox(), start + 0.05) is False
    assert time.monotonic() - start >= 0.05


def test_the_lead_is_handed_over(peer, connect, running, tools):
    connection = opened(peer, connect, running, tools)
    first, second, results = Inbox(), Inbox(), []
    leader = waiter(connection, first, results)
    until(lambda: connection._poller.polling)
    follower = waiter(connection, second, results)
    until(lambda: connection._followers)
    before = connection._leader
    first.poke()
    leader.join(5)
    until(lambda: connection._leader not in (0, before) and connection._poller.polling)
    second.poke()
    follower.join(5)
    assert results == [True, True]


def test_a_follower_is_served_by_the_leader(peer, connect, running, tools):
    connection = opened(peer, connect, running, tools)
    idle, results = Inbox(), []
    leader = waiter(connection, idle, results)
    until(lambda: connection._poller.polling)
    link = tools.Link(connection)
    end = time.monotonic() + 10
    while not any(isinstance(x, r.Credit) for x in link.inbox.records):
        assert connection._wait(link.inbox, end)
        link.inbox.poked = False
        if not any(isinstance(x, r.Credit) for x in link.inbox.records):
            link.inbox.records.clear()
    link.inbox.records.clear()
    link.send(b"from a follower")
    assert connection._wait(link.inbox, end)
    assert len(link.take(r.Settled)) == 1
    idle.poke()
    leader.join(5)
    assert results == [True]


def test_a_leader_hears_of_what_another_thread_sent_settled(peer, connect, running, tools):
    """Of the last byte with the kernel no byte of the peer's tells: who put it there does."""
    connection = opened(peer, connect, running, tools)
    link = tools.Link(connection)
    end = time.monotonic() + tools.LIMIT
    while connection._engine.link(link.link).credit == 0:
        assert connection._wait(link.inbox, end)
        link.inbox.records.clear()
    link.inbox.records.clear()
    link.inbox.ready()  # takes back what is left of a poke
    results = []
    thread = waiter(connection, link.inbox, results, time.monotonic() + tools.LIMIT)
    until(lambda: connection._poller.polling)
    link.send(b"x", settled=True)
    thread.join(tools.LIMIT / 2)
    assert results == [True]


def test_close_from_another_thread_wakes_all(peer, connect, running, tools):
    connection = opened(peer, connect, running, tools)
    inboxes, results = [Inbox(), Inbox(), Inbox()], []
    threads = [waiter(connection, inbox, results) for inbox in inboxes]
    until(lambda: len(connection._followers) == 2 and connection._poller.polling)
    connection.destroy()
    for thread in threads:
        thread.join(5)
    assert [type(result) for result in results] == [errors.AMQPConnectionError] * 3


def test_a_loss_wakes_all_with_one_error(peer, connect, running, tools):
    connection = opened(peer, connect, running, tools)
    results = []
    threads = [waiter(connection, Inbox(), results) for _ in range(3)]
    until(lambda: len(connection._followers) == 2 and connection._poller.polling)
    peer.sock.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)
    assert len(results) == 3
    failure = connection._failure
    assert {(type(result), str(result)) for result in results} == {(type(failure), str(failure))}


def test_a_plan_is_driven_and_errors_are_thrown_into_it(peer, connect, running, tools):
    connection = opened(peer, connect, running, tools)
    inbox, log = Inbox(), []

    def work():
        try:
            log.append((yield Call(max, (1, 2))))
            log.append((yield Wait(inbox, time.monotonic())))
            yield Wait(inbox)
        finally:
            log.append("done")

    threading.Timer(0.05, peer.sock.shutdown, (socket.SHUT_RDWR,)).start()
    with pytest.raises(errors.MessageHandlerError):
        connection._run(work())
    assert log == [2, False, "done"]


# ---- interrupts, fork, the end of the process


def test_an_interrupt_inside_a_section_fails_the_connection(peer, connect, tools, monkeypatch):
    connection = connect(peer)
    connection._start()
    link = tools.Link(connection)
    peer.accept = False
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    link.send(b"x")
    link.inbox.records.clear()

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_route", interrupted)
        peer.sock.send(b"\0\0\0\x08\x02\0\0\0")
        with pytest.raises(KeyboardInterrupt):
            connection._wait(Inbox(), time.monotonic() + 10)
    assert connection._failure is None
    connection._step(0)
    assert isinstance(connection._failure, errors.AMQPConnectionError)
    assert "interrupted" in str(connection._failure)
    assert [e.outcome for e in link.take(r.Settled)] == [3]
    connection.destroy()


def test_an_interrupt_while_waiting_leaves_the_connection_usable(peer, connect, running, tools, monkeypatch):
    connection = opened(peer, connect, running, tools)
    real = connection._poller._wait

    def interrupted(timeout):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connection._poller, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connection._wait(Inbox())
    assert connection._leader == 0
    assert connection._poller._wait == real
    link = tools.Link(connection)
    assert connection._wait(link.inbox, time.monotonic() + 10)


def test_an_interrupt_while_the_lead_is_given_up_stops_no_other_thread(peer, connect, running, tools, monkeypatch):
    connection = opened(peer, connect, running, tools)
    inbox, results = Inbox(), []
    real = Connection._drop_lead

    def interrupted(self, me):
        monkeypatch.setattr(Connection, "_drop_lead", real)
        raise KeyboardInterrupt

    assert connection._take_lead(threading.get_ident())
    thread = waiter(connection, inbox, results, time.monotonic() + tools.LIMIT)
    until(lambda: connection._followers)
    monkeypatch.setattr(Connection, "_drop_lead", interrupted)
    with pytest.raises(KeyboardInterrupt):
        connection._wait(Inbox(), time.monotonic() + 0.01)
    until(lambda: connection._leader == thread.ident)
    inbox.poke()
    thread.join(tools.LIMIT)
    assert results == [True]


def test_an_interrupt_while_the_lead_is_given_up_leaves_nothing_of_the_wait(peer, connect, running, tools):
    class Torn(Inbox):
        __slots__ = ("torn",)
        torn: bool

        def wait_with(self, notify):
            if notify is None and not self.torn:
                self.torn = True
                raise KeyboardInterrupt
            super().wait_with(notify)

    connection = opened(peer, connect, running, tools)
    inbox = Torn()
    inbox.torn = False
    with pytest.raises(KeyboardInterrupt):
        connection._wait(inbox, time.monotonic() + 0.01)
    assert (inbox._notify, connection._leader, connection._leading) == (None, 0, None)


def test_an_interrupt_of_who_follows_stops_no_other_thread(peer, connect, running, tools):
    class Torn(Inbox):
        __slots__ = ("times",)
        times: int

        def wait_with(self, notify):
            super().wait_with(notify)
            self.times += 1
            if self.times == 2:
                raise KeyboardInterrupt

    connection = opened(peer, connect, running, tools)
    first, torn, second, results = Inbox(), Torn(), Inbox(), []
    torn.times = 0
    leader = waiter(connection, first, results)
    until(lambda: connection._leader == leader.ident)
    with pytest.raises(KeyboardInterrupt):
        connection._wait(torn, time.monotonic() + 0.01)
    other = waiter(connection, second, results)
    until(lambda: connection._followers)
    first.poke()
    leader.join(tools.LIMIT)
    until(lambda: connection._leader == other.ident)
    second.poke()
    other.join(tools.LIMIT)
    assert results == [True, True]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_a_signal_handler_may_wait_inside_a_wait_and_leaves_nothing_open(peer, connect, running, tools):
    connection = opened(peer, connect, running, tools)
    waited = []

    def handler(*args):
        waited.append(connection._wait(Inbox(), time.monotonic() + 0.02))
        outer.poke()

    outer = Inbox()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert connection._wait(outer, time.monotonic() + tools.LIMIT)
            gc.collect()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert waited == [False]
    assert [str(one.message) for one in told if one.category is ResourceWarning] == []


def test_an_interrupted_close_may_be_repeated(peer, connect, running, tools, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    connection = opened(peer, connect, running, tools)
    with monkeypatch.context() as patch:
        patch.setattr("uamqp_cffi.connection.Inbox", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connection.destroy()
    connection.destroy()
    assert connection._sock is None
    assert peer.seen(r.Close)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_sends_nothing_and_the_parent_goes_on(peer, connect, tools):
    connection = connect(peer)
    tools.pump(connection, peer, lambda: connection._opened)
    before = peer.received
    child = os.fork()
    if child == 0:
        code = 1
        try:
            connection.work()
        except errors.AMQPConnectionError:
            connection.destroy()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    peer.step()
    assert peer.received == before
    assert not peer.ended
    connection._step(0)
    assert connection._failure is None


def test_a_forgotten_connection_is_collected(peer, connect, tools):
    connection = Connection("127.0.0.1", SASLAnonymous("127.0.0.1", port=peer.port, use_tls=False))
    ref = weakref.ref(connection)
    tools.pump(connection, peer, lambda: ref()._opened)
    connection._sock.close()  # else the interpreter warns of it
    del connection
    gc.collect()
    assert ref() is None


# ---- heartbeats and trace


def test_a_beat_goes_out_without_a_step(peer, connect, tools):
    peer.open_fields = {"idle_time_out": values.enc_uint(60_000)}
    connection = connect(peer, remote_idle_timeout_empty_frame_send_ratio=0.25)
    tools.pump(connection, peer, lambda: connection._opened)
    peer.step()
    before = peer.received
    sent = connection._wire.sent_at
    assert connection._beat(sent / 1000 + 14.9) == pytest.approx(sent / 1000 + 15)
    peer.step()
    assert peer.received == before
    due = connection._beat(sent / 1000 + 15.1)
    assert due == pytest.approx(sent / 1000 + 30.1)
    end = time.monotonic() + tools.LIMIT
    while peer.received == before and time.monotonic() < end:
        peer.step()
    assert peer.received == before + 8
    connection._close(0)
    assert connection._beat(sent / 1000 + 40) is None


def test_the_trace_has_frames_and_no_secrets(peer, connect, tools, caplog):
    caplog.set_level(logging.INFO, "uamqp.c_uamqp")
    auth = SASLPlain("127.0.0.1", "user", "sesame", port=peer.port, use_tls=False)
    connection = connect(peer, auth, debug=True)
    connection._start()
    link = tools.Link(connection)
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    link.inbox.records.clear()
    link.send(b"top secret body")
    tools.pump(connection, peer, lambda: link.inbox.records)
    connection._close(0)
    text = "\n".join(record.getMessage() for record in caplog.records if record.name == "uamqp.c_uamqp")
    assert "sesame" not in text
    assert "top secret" not in text
    for frame in ("open", "begin", "attach", "transfer", "disposition", "close"):
        assert frame in text


# ---- cost


class Counting:
    """The engine's library, which notes every call for one engine."""

    def __init__(self, lib, engine):
        self._lib = lib
        self._engine = engine
        self.calls = []

    def __getattr__(self, name):
        value = getattr(self._lib, name)
        if not name.startswith("uam_"):
            return value

        def call(*args):
            if args and args[0] is self._engine:
                self.calls.append(name)
            return value(*args)

        return call


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_confirmed_send_is_three_crossings(server_context, ca_file, connect, tools, monkeypatch, tls):
    peer = tools.Peer(server_context if tls else None)
    auth = SASLAnonymous("localhost", port=peer.port, use_tls=tls, verify=ca_file)
    connection = connect(peer, auth)
    connection._start()
    link = tools.Link(connection)
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    link.send(b"warm")
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Settled) for x in link.inbox.records))
    link.inbox.records.clear()
    from uamqp_cffi._core.engine import engine

    counting = Counting(engine.lib, connection._engine._e)
    monkeypatch.setattr(engine, "lib", counting)
    link.send(b"one")
    end = time.monotonic() + tools.LIMIT
    while not peer.seen(r.Delivery)[1:] and time.monotonic() < end:
        peer.step()
    while not link.inbox.records:
        assert connection._wait(link.inbox, end)
    assert len(link.take(r.Settled)) == 1
    assert counting.calls == ["uam_send_messages", "uam_send_window", "uam_step"]
    peer.close()


# ---- what is said of a message when the connection goes, on a loop


@pytest.fixture
def small_buffers(peer, monkeypatch):
    """The kernel holds little, so that a transport does."""
    from uamqp_cffi._core.transport import dial_async

    def tuned(sock):
        tune(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    tune = dial_async.tune
    monkeypatch.setattr(dial_async, "tune", tuned)
    peer.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.accept = False
    peer.credit = 1000


def read_all(peer):
    before = -1
    while peer.received != before:
        before = peer.received
        peer.step()


async def sending(peer, count, **kwargs):
    """A client on its way to send messages of 3000 bytes; the peer has granted credit for all of them."""
    auth = SASLAnonymous("127.0.0.1", port=peer.port, use_tls=False)
    client = SendClientAsync("amqp://127.0.0.1/q", auth=auth, **kwargs)
    await client.open_async()
    while not (await client.client_ready_async() and client.message_handler._credit):
        peer.step()
        await client.do_work_async()
    messages = [Message(b"x" * 3000) for _ in range(count)]
    client.queue_message(*messages)
    return client, messages, asyncio.ensure_future(client.wait_async())


def fates(messages):
    return [message.delivery for message in messages]


@pytest.mark.parametrize("settled", [False, True])
def test_what_a_broken_transport_may_have_sent_is_unknown(peer, small_buffers, settled):
    async def main():
        mode = SenderSettleMode.Settled if settled else SenderSettleMode.Unsettled
        client, messages, task = await sending(peer, 300, send_settle_mode=mode)
        connection = client._connection
        while peer.received < connection._wire.total + 50_000:  # the peer has more than the stream counted
            await asyncio.sleep(0)
            read_all(peer)
        assert len(peer.seen(r.Delivery)) < 100
        peer.reset()
        with pytest.raises(errors.AMQPConnectionError):
            await task
        await client.close_async()
        return messages

    messages = asyncio.run(main())
    there = len(peer.seen(r.Delivery))
    assert there > 10
    assert Delivery.NOT_DELIVERED not in fates(messages[:there])
    assert fates(messages)[-1] is Delivery.NOT_DELIVERED
    pending = [message for message in messages if message.state is MessageState.WaitingToBeSent]
    assert messages[-len(pending) :] == pending
    if settled:  # what was in the transport is not called sent
        assert len([message for message in pending if message.delivery is Delivery.UNKNOWN]) > 10


def test_what_was_called_not_delivered_does_not_leave_afterwards(peer, small_buffers):
    async def main():
        client, messages, task = await sending(peer, 300, idle_timeout=200)
        with pytest.raises(errors.AMQPConnectionError):  # the peer, which reads nothing, is silent
            await task
        said = fates(messages)
        while not peer.ended:
            await asyncio.sleep(0)
            peer.step()
        await client.close_async()
        return said

    said = asyncio.run(main())
    there = len(peer.seen(r.Delivery))
    assert there
    assert Delivery.NOT_DELIVERED in said
    assert set(said[:there]) == {Delivery.UNKNOWN}


def test_what_was_called_not_delivered_when_there_is_room_again_does_not_leave(peer, connect, tools):
    connection = connect(peer, idle_timeout=150)
    connection._start()
    link = tools.Link(connection)
    peer.accept = False
    tools.pump(connection, peer, lambda: any(isinstance(x, r.Credit) for x in link.inbox.records))
    while not connection._blocked:
        link.send(b"x" * 200_000)
    link.take(r.Settled)
    silent = time.monotonic() + 0.2
    while time.monotonic() < silent or not connection._poller.wait(0, write=True):
        peer.step()  # which makes room, and says nothing
    connection._step(0)
    assert connection._failure is not None
    not_delivered = [e.first for e in link.take(r.Settled) if e.outcome == 2]
    assert not_delivered
    while not peer.ended:
        peer.step()
    assert not {e.delivery_id for e in peer.seen(r.Delivery)} & set(not_delivered)


# ---- Ctrl-C at any time


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # those dropped ones
def test_interrupts_at_any_time_leave_it_usable_or_failed(connect, running, tools, interrupted):
    peers = []

    def begin():
        peers.append(tools.Peer())
        peers[-1].credit = 100_000
        connection = opened(peers[-1], connect, running, tools)
        return connection, tools.Link(connection)

    def confirm(connection, link):
        end = time.monotonic() + tools.LIMIT
        while connection._engine.link(link.link).credit == 0:
            assert connection._wait(link.inbox, end)
            link.inbox.records.clear()
        link.inbox.records.clear()
        first = link.send(b"x" * 200)
        while not any(isinstance(e, r.Settled) and e.last >= first for e in link.inbox.records):
            link.inbox.records.clear()
            assert connection._wait(link.inbox, end)

    def confirm_again_and_again():
        bound = time.monotonic() + 0.1
        with contextlib.suppress(errors.AMQPConnectionError):
            while time.monotonic() < bound:
                confirm(connection, link)

    connection, link = begin()
    confirm(connection, link)
    failures = survived = 0
    chance = random.Random(5)
    try:
        for _ in range(150):
            interrupted(chance.uniform(0.00005, 0.003), confirm_again_and_again)
            try:
                confirm(connection, link)
                survived += 1
            except errors.AMQPConnectionError:
                failures += 1
                assert connection._failure is not None
                connection._close(0.2)
                connection, link = begin()
                confirm(connection, link)
    finally:
        for peer in peers:
            peer.ended = True
            peer.listener.close()
    assert survived + failures == 150
    assert survived > 0


EXIT = """
import sys
from uamqp_cffi.authentication import SASLAnonymous
from uamqp_cffi.connection import Connection
connection = Connection("127.0.0.1", SASLAnonymous("127.0.0.1", port=int(sys.argv[1]), use_tls=False))
while not connection._opened:
    connection._step(0.05)
print("open")
"""


def test_the_interpreter_may_end_with_an_open_connection(peer, running, tmp_path):
    peer.open_fields = {"idle_time_out": values.enc_uint(200)}  # so that the heartbeat thread lives
    running(peer)
    done = subprocess.run(
        [sys.executable, "-c", EXIT, str(peer.port)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "open\n", "")
