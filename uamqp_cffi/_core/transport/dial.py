"""Connecting without ever blocking a step, for the blocking driver.

Nothing here knows AMQP or plans.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from .. import time

KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A peer on an idle connection is asked for a sign of life after 30 s (macOS has another name for it), and again every 10 s;
three questions without an answer end the connection."""
DEAD_AFTER = 60.0
"""Seconds without a sign of life from a peer's kernel, to which ours repeats itself, after which the peer is dead."""
LOOK_FOR_LIFE = 15.0
"""Seconds from one look at that to the next."""
_IN_VAIN = 3  # repetitions without an answer
STAGGER = 0.25
"""Seconds after which the next address of a host is tried beside those that have not answered (RFC 8305)."""
# what getpeername says of a socket that is not connected yet
_CONNECTING = (errno.ENOTCONN, getattr(errno, "WSAENOTCONN", errno.ENOTCONN), errno.EINVAL)


Address = tuple[int, int, int, str, Any]


def is_loopback(address: Address) -> bool:
    """Whether an address of `getaddrinfo` never leaves this host."""
    host = str(address[4][0])
    if address[0] == socket.AF_INET6:
        host = host.removeprefix("::ffff:") if "." in host else host
        return host == "::1" or host.startswith("127.")
    return address[0] == socket.AF_INET and host.startswith("127.")


def tune(sock: socket.socket) -> None:
    """What every connection of ours has set: non-blocking, no delay, keep-alive. Not TCP_USER_TIMEOUT: it also ends the
    connection to a peer that is well but has not read for that long."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def unanswered(sock: socket.socket) -> float:
    """Seconds for which the peer's kernel has not answered although ours repeats itself; 0.0 when it does answer, or nothing waits
    for its answer, or where the kernel does not tell (elsewhere than on Linux). A peer that reads nothing answers: its kernel
    says that its window is shut, each time it is asked.

    Keep-alive does not ask while bytes are unacknowledged, and the kernel itself gives up only after a quarter of an hour."""
    if not hasattr(socket, "TCP_INFO"):
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    if len(info) < 60 or max(info[2], info[3]) < _IN_VAIN:  # retransmits and probes since the last answer
        return 0.0
    milliseconds: int = struct.unpack_from("=I", info, 56)[0]  # tcpi_last_ack_recv
    return milliseconds / 1000


def silence_error(sock: Any) -> OSError | None:
    """What to say of a peer that is dead; None while it is not."""
    try:
        seconds = unanswered(sock)
    except OSError:  # it is closed: whoever closed it knows why
        return None
    if seconds < DEAD_AFTER:
        return None
    return OSError(errno.ETIMEDOUT, f"the peer's host has acknowledged nothing for {seconds:.0f} s")


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


def in_turns(addresses: list[Address]) -> list[Address]:
    """The same addresses with those of IPv6 and IPv4 by turns, so that one family that leads nowhere costs one attempt; the
    resolver's first stays the first (RFC 8305, section 4)."""
    if not addresses:
        return []
    first = [one for one in addresses if one[0] == addresses[0][0]]
    others = [one for one in addresses if one[0] != addresses[0][0]]
    both = [one for pair in zip(first, others, strict=False) for one in pair]
    return both + first[len(others) :] + others[len(first) :]


class Dialer:
    """Connects to a host in steps none of which blocks: names are resolved in a daemon thread (numeric ones and
    localhost at once), and every address is tried: the next one as soon as one fails, or beside those that have not answered
    within 250 ms (RFC 8305). The first that answers is it."""

    def __init__(
        self,
        host: str,
        port: Callable[[list[Address]], int],
        wake: Callable[[], None],
        resolve: Callable[[str], list[Address]] = _resolve,
    ) -> None:
        """`port` is asked once the addresses are known. `wake` is called from the resolver's thread."""
        self.host = host
        self.addresses: list[Address] | None = None
        self.port = 0
        self.next_at: float | None = None
        """When to step again even if nothing happened (`time.monotonic`): the next address is to be tried then."""
        self._choose_port = port
        self._wake = wake
        self._resolver = resolve
        self._answer: list[Address] | BaseException | None = None
        self._asked = self._closed = False
        self._left: list[Address] = []  # not tried yet
        self._trying: dict[socket.socket, str] = {}
        self._failed: list[tuple[str, OSError]] = []

    @property
    def socks(self) -> list[socket.socket]:
        """The sockets that are connecting: wait until one is writable."""
        return list(self._trying)

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
            done = self._check()
            if done is not None:
                self._forget(but=done)
                return done
            if self._trying and (self.next_at is None or time.monotonic() < self.next_at):
                return None
            if self._left:
                self._begin()
            elif not self._trying and not self._closed:
                raise self._nobody()
        return None

    def _resolved(self, addresses: list[Address]) -> None:
        self.port = self._choose_port(addresses)
        self._left = in_turns(addresses)
        self.addresses = addresses

    def _begin(self) -> None:
        """Begin with the next address."""
        family, kind, proto, _, where = self._left.pop(0)
        self.next_at = time.monotonic() + STAGGER if self._left else None
        sock = None
        try:
            sock = socket.socket(family, kind, proto)
            tune(sock)
            code = sock.connect_ex((where[0], self.port, *where[2:]))
            if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR):
                raise OSError(code, os.strerror(code))
        except OSError as error:
            self._failed.append((str(where[0]), error))
            if sock is not None:
                sock.close()
            return
        self._trying[sock] = str(where[0])
        if self._closed:  # by another thread, which has not seen it
            self._forget()

    def _check(self) -> socket.socket | None:
        """The first socket that is connected by now; drops those that failed."""
        for sock, where in list(self._trying.items()):
            try:
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    sock.getpeername()
                    return sock
            except OSError as error:
                if sock.fileno() < 0:  # closed by another thread
                    return None
                if error.errno in _CONNECTING:
                    continue
                code = error.errno or errno.EIO
            self._trying.pop(sock, None)
            sock.close()
            self._failed.append((where, OSError(code, os.strerror(code))))
            self.next_at = time.monotonic()  # no need to wait any longer
        return None

    def _forget(self, but: socket.socket | None = None) -> None:
        """Close the sockets that are connecting. Any thread."""
        for sock in list(self._trying):
            self._trying.pop(sock, None)
            if sock is not but:
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
