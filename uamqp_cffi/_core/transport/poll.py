"""Waiting on a socket with `poll`."""

from __future__ import annotations

import errno
import select
import selectors
import socket
from collections.abc import Iterable
from typing import Any

from .. import time
from ..waiting.interrupts import openly, put_off

READ = 1
WRITE = 2

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
            for fd, events in openly(self._poll.poll, timeout * 1000) if timeout or put_off() else self._poll.poll(0):
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
            # of two descriptors that are ready eventlet wakes us for both, the second time in whatever we wait for then
            if _EVENTLET:
                time.sleep(0)
        if woken:
            self._awake = False
            if self._pair is not None:
                try:
                    self._pair[0].recv(64)
                except BlockingIOError:  # woken before the pair was there
                    return bits
        return bits

    def wait_any(self, socks: Iterable[socket.socket], timeout: float) -> None:
        """Wait at most `timeout` seconds until one of these sockets is writable or in error. None of them is watched."""
        added: list[Any] = []
        self.polling = True
        try:
            if self._closed:
                return
            if timeout > 0.001:
                self.prepare()
            for sock in socks:
                added.append(sock.fileno())
                self._poll.register(added[-1], select.POLLOUT if _POLL is not None else selectors.EVENT_WRITE)
            self._wait(0.0 if self._awake else timeout)
        finally:
            for fd in added:
                try:
                    self._poll.unregister(fd)
                except (KeyError, ValueError):  # it was not registered: closed by another thread, say
                    continue
            self.polling = False
            if self._closed:
                self._let_go()

    def prepare(self) -> None:
        """Have what `wake` needs, so that want of it is told now and not in some wait to come."""
        if self._pair is None and not self._closed:
            self._make_pair()
            if self._closed and not self.polling:  # by another thread, which has not seen the pair
                self._let_go()

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
