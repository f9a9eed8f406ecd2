"""The blocking driver's parts: waiting on a socket with `poll`, and connecting without ever blocking a step.

Nothing here knows AMQP or plans.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

from .. import time
from ..interrupts import openly

READ = 1
WRITE = 2

USER_TIMEOUT_MS = 60_000
"""TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged before the kernel gives the connection up."""

_POLL = getattr(select, "poll", None)
_EVENTLET = select.select.__module__.startswith("eventlet.")
_AWAKE = (
    errno.EAGAIN, errno.EWOULDBLOCK, errno.EBADF, errno.EPIPE,
    errno.ENOTSOCK, errno.ECONNRESET, errno.ECONNABORTED,  # what Windows, whose socket pairs are TCP, has for a closed one
)  # fmt: skip


class Poller:
    """Waits for one socket or for a wake-up from another thread. Only wake() may be called by others than the
    waiter."""

    def __init__(self) -> None:
        self.polling = False
        """Somebody is inside wait()."""
        self._sock: socket.socket | None = None
        self._fd = -1
        self._write = False
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self._awake = False
        self._closed = False
        self._poll: Any = _POLL() if _POLL is not None else selectors.DefaultSelector()

    def watch(self, sock: socket.socket | None) -> None:
        """Wait for this socket from now on. The one watched until now may be closed already."""
        if self._sock is not None:
            try:
                self._poll.unregister(self._fd if _POLL is not None else self._sock)
            except KeyError:  # Ctrl-C came before it was registered, or after this
                self._fd = -1
            self._sock = None
        self._write = False
        if sock is not None:
            self._fd = sock.fileno()
            self._sock = sock
            self._poll.register(sock, select.POLLIN if _POLL is not None else selectors.EVENT_READ)

    def wait(self, timeout: float, write: bool = False) -> int:
        """Wait at most `timeout` seconds until the socket is readable, or writable if `write`. Gives READ | WRITE, both
        for a socket in error, 0 for a time-out or a wake-up."""
        self.polling = True
        try:
            if self._closed:
                return 0
            if write != self._write and self._sock is not None:
                self._look_for(write)
            if timeout > 0.001 and self._pair is None:
                self._make_pair()
            return self._wait(0.0 if self._awake else timeout)
        finally:
            self.polling = False
            if self._closed:
                self._let_go()

    def _look_for(self, write: bool) -> None:
        self._write = write
        if _POLL is not None:
            self._poll.modify(self._fd, select.POLLIN | select.POLLOUT if write else select.POLLIN)
        else:
            self._poll.modify(self._sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0))

    def _wait(self, timeout: float) -> int:
        bits = 0
        woken = self._awake
        if _POLL is not None:
            for fd, events in openly(self._poll.poll, timeout * 1000):
                if self._pair is not None and fd == self._pair[0].fileno():
                    woken = True
                else:
                    bits |= READ if events & ~select.POLLOUT else 0
                    bits |= WRITE if events & ~select.POLLIN else 0
        else:
            if not self._poll.get_map():
                openly(time.sleep, timeout)
            for key, mask in openly(self._poll.select, timeout):
                if self._pair is not None and key.fileobj is self._pair[0]:
                    woken = True
                else:
                    bits |= (READ if mask & selectors.EVENT_READ else 0) | (
                        WRITE if mask & selectors.EVENT_WRITE else 0
                    )
            if _EVENTLET:  # of two descriptors that are ready it wakes us for both, the second time in whatever we wait for then
                time.sleep(0)
        if woken:
            self._awake = False
            if self._pair is not None:
                try:
                    self._pair[0].recv(64)
                except BlockingIOError:  # woken before the pair was there
                    return bits
        return bits

    def _make_pair(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._poll.register(ours, select.POLLIN if _POLL is not None else selectors.EVENT_READ)
        self._pair = (ours, theirs)

    def wake(self) -> None:
        """End the wait of the thread that is in wait(), or the next one if nobody is. Any thread."""
        if self._awake:
            return
        self._awake = True
        pair = self._pair  # which another thread may close
        if pair is not None:
            try:
                pair[1].send(b"\0")
            except OSError as error:  # full: then it is awake already; closed: nobody waits any more
                if error.errno not in _AWAKE:
                    raise

    def close(self) -> None:
        """Wait no more, and give everything back: now, or when the thread that is in wait() comes out. Any thread."""
        self._closed = True
        if self.polling:
            self.wake()
        else:
            self._let_go()

    def _let_go(self) -> None:
        """Repeatable: who closes and who comes out of wait() may both do it."""
        self.watch(None)
        pair, self._pair = self._pair, None
        if pair is not None:
            try:
                self._poll.unregister(pair[0])
            except (KeyError, ValueError):  # the other one did
                pass
            for one in pair:
                one.close()


Address = tuple[int, int, int, str, Any]


def is_loopback(address: Address) -> bool:
    """Whether an address of `getaddrinfo` never leaves this host."""
    host = str(address[4][0])
    if address[0] == socket.AF_INET6:
        host = host.removeprefix("::ffff:") if "." in host else host
        return host == "::1" or host.startswith("127.")
    return address[0] == socket.AF_INET and host.startswith("127.")


def tune(sock: socket.socket) -> None:
    """What every connection of ours has set: non-blocking, no delay, keep-alive, and a bound on unacknowledged
    bytes."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def _resolve(host: str) -> list[Address]:
    return list(socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM))


def _at_once(host: str) -> bool:
    """Whether this host resolves without asking a name server."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


class Dialer:
    """Connects to a host in steps none of which blocks: names are resolved in a daemon thread (numeric ones and
    localhost at once), every address is tried, each with its share of the time that is left."""

    def __init__(
        self,
        host: str,
        port: Callable[[list[Address]], int],
        deadline: float | None,
        wake: Callable[[], None],
        resolve: Callable[[str], list[Address]] = _resolve,
    ) -> None:
        """`port` is asked once the addresses are known. `deadline`: `time.monotonic` seconds. `wake` is called from the
        resolver's thread."""
        self.host = host
        self.addresses: list[Address] | None = None
        self.port = 0
        self.sock: socket.socket | None = None
        """The socket that is connecting: wait until it is writable."""
        self.give_up: float | None = None
        """When to step again even if nothing happened: the present address has used up its time."""
        self._choose_port = port
        self._deadline = deadline
        self._wake = wake
        self._resolver = resolve
        self._answer: list[Address] | BaseException | None = None
        self._asked = self._closed = False
        self._next = 0
        self._failed: list[tuple[str, OSError]] = []

    @property
    def doing(self) -> str:
        """What is going on, for the text of a time-out."""
        if self.addresses is None:
            return f"resolving {self.host!r}"
        return f"connecting to {self.host}:{self.port}" + (f" ({self._tried()})" if self._failed else "")

    def _tried(self) -> str:
        return ", ".join(f"{where}: {error.strerror or error}" for where, error in self._failed)

    def _ask(self) -> None:
        try:
            self._answer = self._resolver(self.host)
        except (OSError, UnicodeError) as error:
            self._answer = error
        self._wake()

    def step(self) -> socket.socket | None:
        """One step; gives the socket once it is connected. Raises OSError when no address is left, with the reasons
        of all."""
        if self.addresses is None:
            if not self._asked:
                if self._resolver is not _resolve or not _at_once(self.host):
                    threading.Thread(target=self._ask, name="uamqp-resolver", daemon=True).start()
                else:
                    self._ask()
                self._asked = True  # not sooner: after an interrupt, or without a thread, nobody would be asking
            answer = self._answer
            if answer is None:
                return None
            if isinstance(answer, BaseException):
                raise OSError(f"cannot resolve {self.host!r}: {answer}") from answer
            self._resolved(answer)
        while not self._closed:
            if self.sock is None and not self._begin():
                raise self._nobody()
            done = self._check()
            if done is not None:
                self.sock = None
                return done
            if self.sock is not None:
                return None
        return None

    def _resolved(self, addresses: list[Address]) -> None:
        self.port = self._choose_port(addresses)
        self.addresses = addresses

    def _begin(self) -> bool:
        """Begin with the next address; False when there is none."""
        assert self.addresses is not None
        while self._next < len(self.addresses):
            family, kind, proto, _, where = self.addresses[self._next]
            left = len(self.addresses) - self._next
            self._next += 1
            target = (where[0], self.port, *where[2:])
            sock = None
            try:
                sock = socket.socket(family, kind, proto)
                tune(sock)
                code = sock.connect_ex(target)
                if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR):
                    raise OSError(code, os.strerror(code))
            except OSError as error:
                self._failed.append((str(where[0]), error))
                if sock is not None:
                    sock.close()
                continue
            self.sock = sock
            if self._closed:  # by another thread, which has not seen it
                self._forget()
                return True
            now = time.monotonic()
            self.give_up = None if self._deadline is None or left == 1 else now + max(0.0, self._deadline - now) / left
            return True
        return False

    def _check(self) -> socket.socket | None:
        """The socket if it is connected by now; drops it if it failed or took too long."""
        sock = self.sock
        if sock is None:  # closed by another thread
            return None
        where = str(self.addresses[self._next - 1][4][0]) if self.addresses else ""
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._drop(where, OSError(code, os.strerror(code)))
            return None
        try:
            sock.getpeername()
        except OSError:  # still connecting
            if self.give_up is not None and time.monotonic() >= self.give_up:
                self._drop(where, OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
            return None
        return sock

    def _drop(self, where: str, error: OSError) -> None:
        self._failed.append((where, error))
        self._forget()

    def _forget(self) -> None:
        """Close the socket that is connecting. Any thread."""
        sock, self.sock = self.sock, None
        if sock is not None:
            sock.close()

    def _nobody(self) -> OSError:
        cause = self._failed[-1][1] if self._failed else None
        text = f"cannot connect to {self.host}:{self.port}: {self._tried() or 'no address'}"
        error = OSError(cause.errno, text) if cause is not None and cause.errno else OSError(text)
        error.__cause__ = cause
        return error

    def close(self) -> None:
        """Give up: later steps give nothing. Any thread."""
        self._closed = True
        self._forget()
