"""Waiting and connecting, on loopback sockets."""

from __future__ import annotations

import errno
import select
import socket
import sys
import threading
import time

import pytest

from uamqp_cffi._core.transport import poll
from uamqp_cffi._core.transport.dial import Dialer, in_turns, is_loopback, silence_error, tune, unanswered
from uamqp_cffi._core.transport.poll import READ, WRITE, Poller


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    yield a, b
    a.close()
    b.close()


@pytest.fixture(params=["poll", "selectors"])
def poller(request, monkeypatch):
    if request.param == "selectors":
        monkeypatch.setattr(poll, "_POLL", None)
    elif not hasattr(select, "poll"):
        pytest.skip("no poll here")
    poller = Poller()
    yield poller
    poller.close()


def test_a_wait_tells_what_is_ready(poller, pair):
    ours, theirs = pair
    poller.watch(ours)
    assert poller.wait(0) == 0
    assert poller.wait(0, write=True) == WRITE
    theirs.send(b"x")
    assert poller.wait(10) == READ
    assert poller.wait(10, write=True) == READ | WRITE
    ours.recv(1)
    assert poller.wait(0) == 0


def test_a_wait_ends_by_a_wake_from_another_thread(poller, pair):
    poller.watch(pair[0])
    waker = threading.Thread(target=lambda: (_until(lambda: poller.polling), poller.wake()))
    waker.start()
    start = time.monotonic()
    assert poller.wait(30) == 0
    waker.join()
    assert time.monotonic() - start < 20


def _until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


def test_a_wake_before_the_wait_counts_once(poller, pair):
    poller.watch(pair[0])
    poller.wake()
    poller.wake()
    assert poller.wait(30) == 0
    start = time.monotonic()
    assert poller.wait(0.02) == 0
    assert time.monotonic() - start >= 0.015


def test_a_wake_may_meet_a_close(pair):
    class Closing(Poller):
        """Whose pair is there when it is looked at, and not any more when it is used."""

        @property
        def _pair(self):
            pair, self._kept = self._kept, None
            return pair

        @_pair.setter
        def _pair(self, value):
            self._kept = value

    poller, (a, b) = Closing(), pair
    poller._pair = (a, b)
    poller.wake()
    assert a.recv(1) == b"\0"


def test_a_peer_that_went_away_is_readable(poller, pair):
    poller.watch(pair[0])
    pair[1].close()
    assert poller.wait(10) & READ


def test_a_socket_may_be_closed_before_it_is_unwatched(poller, pair):
    poller.watch(pair[0])
    pair[0].close()
    poller.watch(None)


@pytest.mark.skipif(not hasattr(select, "poll"), reason="needs poll")
def test_an_interrupt_before_a_socket_is_registered_leaves_the_poller_usable(poller, pair, monkeypatch):
    a, b = pair
    real = poller._poll

    class Interrupted:
        def register(self, *args):
            raise KeyboardInterrupt

        def __getattr__(self, name):
            return getattr(real, name)

    poller._poll = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        poller.watch(a)
    poller._poll = real
    poller.watch(a)
    b.send(b"x")
    assert poller.wait(10) == READ


def test_descriptors_above_1023_work():
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip("not that many descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    held = []
    try:
        while not held or held[-1].fileno() < 1024:
            held.append(socket.socket())
        a, b = socket.socketpair()
        held += [a, b]
        poller = Poller()
        poller.watch(a)
        b.send(b"x")
        assert a.fileno() > 1023
        assert poller.wait(10) == READ
        poller.close()
    finally:
        for sock in held:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- connecting


@pytest.fixture
def server():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    yield sock
    sock.close()


def dial(dialer, seconds=10):
    end = time.monotonic() + seconds
    poller = Poller()
    try:
        while time.monotonic() < end:
            sock = dialer.step()
            if sock is not None:
                return sock
            poller.wait_any(dialer.socks, 0.01)
            poller.watch(None)
    finally:
        poller.close()
    raise AssertionError("not connected")


def address(host, family=socket.AF_INET):
    return (family, socket.SOCK_STREAM, 0, "", (host, 0) if family == socket.AF_INET else (host, 0, 0, 0))


def test_numeric_hosts_and_localhost_need_no_thread(server, monkeypatch):
    monkeypatch.setattr(threading, "Thread", None)
    for host in ("127.0.0.1", "localhost"):
        port = server.getsockname()[1]
        sock = dial(Dialer(host, lambda addresses, port=port: port, lambda: None))
        assert sock.getpeername() == server.getsockname()
        sock.close()


def test_other_names_are_resolved_in_a_thread_and_the_step_does_not_wait(server):
    asked, answer, woken = threading.Event(), threading.Event(), threading.Event()

    def resolve(host):
        asked.set()
        assert answer.wait(10)
        return [address("127.0.0.1")]

    dialer = Dialer("broker.example", lambda addresses: server.getsockname()[1], woken.set, resolve)
    assert dialer.step() is None
    assert asked.wait(10)
    assert dialer.step() is None
    assert dialer.socks == []
    assert "resolving 'broker.example'" in dialer.doing
    answer.set()
    assert woken.wait(10)
    sock = dial(dialer)
    assert sock.getpeername() == server.getsockname()
    sock.close()


def test_every_address_is_tried_and_the_port_is_chosen_from_them(server):
    seen = []
    addresses = [address("127.0.0.2"), address("::1", socket.AF_INET6), address("127.0.0.1")]

    def port(given):
        seen.extend(given)
        return server.getsockname()[1]

    dialer = Dialer("h", port, lambda: None, lambda host: addresses)
    sock = dial(dialer)
    assert sock.getpeername() == server.getsockname()
    assert seen == addresses
    sock.close()


def test_when_none_answers_all_are_named(server):
    port = server.getsockname()[1]
    server.close()
    both = [address("127.0.0.1"), address("127.0.0.2")]
    dialer = Dialer("h", lambda given: port, lambda: None, lambda host: both)
    with pytest.raises(OSError, match=r"h:\d+: 127.0.0.1: .*, 127.0.0.2: ") as caught:
        dial(dialer)
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.__cause__ is not None


def stuck(monkeypatch, count=1):
    """The first `count` attempts send nothing, and so never connect; all that were made, by address."""
    attempts = []
    real = socket.socket.connect_ex

    def connect_ex(self, where):
        attempts.append(where[0])
        return errno.EINPROGRESS if len(attempts) <= count else real(self, where)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex, raising=False)
    return attempts


def test_beside_an_address_that_does_not_answer_the_next_one_is_tried(server, monkeypatch):
    """RFC 8305: a quarter of a second later."""
    attempts = stuck(monkeypatch)
    asked = threading.Event()
    both = [address("127.0.0.2"), address("127.0.0.1")]
    dialer = Dialer("h", lambda given: server.getsockname()[1], asked.set, lambda host: both)
    dialer.step()
    assert asked.wait(10)
    before = time.monotonic()
    assert dialer.step() is None
    assert attempts == ["127.0.0.2"] and len(dialer.socks) == 1
    assert before < dialer.next_at <= time.monotonic() + 0.25
    dialer.next_at = before  # the hand of the clock
    sock = dial(dialer)
    assert attempts == ["127.0.0.2", "127.0.0.1"]
    assert sock.getpeername() == server.getsockname() and dialer.socks == []
    sock.close()


def test_the_families_are_tried_by_turns():
    six = [address(f"2001:db8::{n}", socket.AF_INET6) for n in range(3)]
    four = [address(f"192.0.2.{n}") for n in range(2)]
    assert in_turns([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert in_turns([*four, *six]) == [four[0], six[0], four[1], six[1], six[2]]
    assert in_turns(four) == four and in_turns([]) == []


def test_a_closed_dialer_begins_nothing_more(server):
    dialer = Dialer("127.0.0.1", lambda given: server.getsockname()[1], lambda: None)
    dialer.close()
    assert dialer.step() is None
    assert dialer.socks == []


def test_a_dialer_closed_by_another_thread_leaves_no_socket_open(server, monkeypatch):
    made = []
    real = socket.socket.connect_ex

    def connect_ex(self, where):
        made.append(self)
        code = real(self, where)
        dialer.close()  # which is another thread's, just then
        return code

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex, raising=False)
    dialer = Dialer("127.0.0.1", lambda given: server.getsockname()[1], lambda: None)
    assert dialer.step() is None
    assert [sock.fileno() for sock in made] == [-1]


@pytest.mark.parametrize("host", ["localhost", "broker.example"])
def test_an_interrupt_before_anybody_asks_for_the_addresses_leaves_the_dialer_usable(server, monkeypatch, host):
    def interrupted(*args):
        raise KeyboardInterrupt

    def resolve(host):
        return [address("127.0.0.1")]

    where = ("uamqp_cffi._core.transport.dial._at_once", interrupted)
    if host != "localhost":
        where = (threading.Thread, "start", interrupted)
    resolver = [] if host == "localhost" else [resolve]
    dialer = Dialer(host, lambda given: server.getsockname()[1], lambda: None, *resolver)
    with monkeypatch.context() as patch:
        patch.setattr(*where)
        with pytest.raises(KeyboardInterrupt):
            dialer.step()
    dial(dialer).close()


def test_resolving_in_vain_is_told():
    def resolve(host):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    dialer = Dialer("nobody.example", lambda given: 1, lambda: None, resolve)
    with pytest.raises(OSError, match="cannot resolve 'nobody.example'"):
        dial(dialer)


def test_sockets_are_tuned():
    sock = socket.socket()
    tune(sock)
    assert not sock.getblocking()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), "it counts a closed window, too"
    sock.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="Linux tells")
@pytest.mark.parametrize(
    ("retransmits", "probes", "silent_ms", "seconds"),
    [(0, 0, 90_000, 0.0), (4, 0, 61_000, 61.0), (0, 5, 61_000, 61.0), (1, 1, 61_000, 0.0), (4, 0, 100, 0.1)],
)
def test_a_host_is_silent_when_ours_repeats_itself_in_vain(retransmits, probes, silent_ms, seconds):
    class Sock:
        def getsockopt(self, level, option, size):
            info = bytearray(size)
            info[2:4] = retransmits, probes
            info[56:60] = silent_ms.to_bytes(4, sys.byteorder)
            return bytes(info)

    assert unanswered(Sock()) == seconds
    assert (silence_error(Sock()) is not None) == (seconds > 60)


def test_a_host_that_answers_is_not_silent(server):
    sock = socket.create_connection(server.getsockname())
    sock.sendall(b"x" * 1000)
    assert unanswered(sock) == 0.0 and silence_error(sock) is None
    sock.close()
    assert silence_error(sock) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("10.0.0.1", False),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("fe80::1", False),
    ],
)
def test_what_never_leaves_this_host(host, expected):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    assert is_loopback(address(host, family)) is expected


def test_a_poller_closed_under_who_waits_ends_the_wait_and_leaves_no_socket() -> None:
    poller = Poller()
    bits: list[int] = []
    thread = threading.Thread(target=lambda: bits.append(poller.wait(60)))
    thread.start()
    deadline = time.monotonic() + 10
    while not (poller.polling and poller._pair) and time.monotonic() < deadline:
        time.sleep(0.001)
    poller.close()
    thread.join(10)
    assert bits == [0]
    assert poller._pair is None


def test_a_poller_that_is_closed_waits_no_more() -> None:
    poller = Poller()
    poller.close()
    assert poller.wait(60) == 0
    poller.prepare()
    poller.wait_any([], 60)
    assert poller._pair is None
