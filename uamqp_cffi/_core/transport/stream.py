"""An `asyncio.Protocol` with the face of a socket, under the wire.

Nothing here knows AMQP or plans.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import Protocol, cast

from ..waiting.interrupts import on_loop

CLOSE_WITHIN = 5.0
"""Seconds that bytes handed to the transport have to leave it once it is closed."""
_PIECE = 256 << 10
_LEFTOVERS = 64  # reads of a broken transport, for what the peer said before it broke


class Owner(Protocol):
    """Who the stream serves."""

    def _connected(self, stream: Stream) -> None:
        """The transport is there, and nothing was received yet."""

    def _came(self, data: bytes) -> None:
        """Bytes were received."""

    def _room(self) -> None:
        """The kernel has everything that was sent: more may be."""

    def _ended(self) -> None:
        """The peer will send no more."""

    def _dropped(self, error: Exception | None) -> None:
        """The transport is gone."""


class Stream(asyncio.Protocol):
    """A connected transport with the face of a non-blocking socket: `send` takes what the kernel takes.

    asyncio's transports take everything and keep what the kernel does not. Whether a byte is with the kernel decides what
    is said of a message when the connection is lost, so `send` counts a byte only once it is there: what is left in the
    transport is owed, and the caller, who offers it again, has it counted when it is gone.

    The loop holds the stream, and the stream its owner only weakly: an owner that nobody else holds is collected, and the
    transport goes with it."""

    def __init__(self, owner: Owner, sock: socket.socket, attempt: object = None) -> None:
        """`attempt`: whose it is of the owner's attempts to connect."""
        self.attempt = attempt
        self._owner: weakref.ref[Owner] | None = weakref.ref(owner, self._orphaned)
        self._sock = self.socket = sock
        self._transport: asyncio.Transport | None = None
        self._owed = 0  # bytes in the transport's own buffer
        self._unread: list[bytes] = []  # what was received; none but inside of `data_received`
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()

    def _whose(self) -> Owner | None:
        return None if self._owner is None else self._owner()

    def _orphaned(self, _: object) -> None:
        """Nobody holds the owner any more; this may be any thread."""
        if self._owner is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.abort)

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        on_loop(self._made, transport)

    def _made(self, transport: asyncio.BaseTransport) -> None:
        made = cast(asyncio.Transport, transport)
        made.set_write_buffer_limits(high=0)  # resume_writing then means that the buffer is empty
        self._transport = made
        owner = self._whose()
        if owner is not None:
            owner._connected(self)

    def data_received(self, data: bytes) -> None:
        try:  # around both: an interrupt may come between them
            self._unread.append(data)
            on_loop(self._take_in)
        except KeyboardInterrupt:
            if self._unread:
                self._loop.call_soon(on_loop, self._take_in)
            raise

    def _take_in(self) -> None:
        while self._unread:
            data = self._unread.pop(0)
            owner = self._whose()
            if owner is not None:
                owner._came(data)

    def resume_writing(self) -> None:
        on_loop(self._emptied)

    def _emptied(self) -> None:
        owner = self._whose()
        if owner is not None:
            owner._room()

    def eof_received(self) -> bool:
        on_loop(self._end)
        return False

    def _end(self) -> None:
        owner = self._whose()
        if owner is not None:
            owner._ended()

    def connection_lost(self, error: Exception | None) -> None:
        on_loop(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        self._transport = None
        if error is not None and self._whose() is not None:
            self._read_on()
        if self._timer is not None:
            self._timer.cancel()
        if not self._gone.done():
            self._gone.set_result(None)
        owner, self._owner = self._whose(), None
        if owner is not None:
            owner._dropped(error)

    def _read_on(self) -> None:
        """Loops give a transport up when a write fails; the peer may have said why."""
        for _ in range(_LEFTOVERS):
            try:
                data = self._sock.recv(65536)
            except OSError:  # closed, reset, or nothing more
                return
            owner = self._whose()
            if not data or owner is None:
                return
            owner._came(data)

    # what the connection calls

    def send(self, data: bytes | memoryview) -> int:
        """Take bytes of the start of `data`; gives how many are with the kernel. Raises BlockingIOError while none are, and
        OSError when the transport is gone."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise BrokenPipeError("the transport is closed")
        left = transport.get_write_buffer_size()
        done, self._owed = self._owed - left, left
        while not self._owed and done < len(data):
            piece = bytes(data[done : done + _PIECE])  # a copy: the transport may keep it, and `data` moves on
            transport.write(piece)
            if transport.is_closing():  # it broke over this piece, of which nothing left
                if not done:
                    raise BrokenPipeError("the transport broke")
                break
            self._owed = transport.get_write_buffer_size()
            done += len(piece) - self._owed
        if not done and len(data):
            raise BlockingIOError
        return done

    def account(self) -> tuple[int, int]:
        """Without sending: how many bytes more are with the kernel, and how many may be. A transport that broke does not say
        what it sent of the bytes it held."""
        owed, self._owed = self._owed, 0
        transport = self._transport
        if transport is None or transport.is_closing():
            return 0, owed
        self._owed = transport.get_write_buffer_size()
        return owed - self._owed, 0

    def close(self) -> None:
        """Close the transport. Nothing comes from it any more. What it owes was called not delivered, so that goes with it;
        a goodbye has a few seconds."""
        if self._owed:
            self.abort()
            return
        self._owner = None
        transport = self._transport
        if transport is None or self._loop.is_closed():
            return
        transport.close()
        if transport.get_write_buffer_size():
            self._timer = self._loop.call_later(CLOSE_WITHIN, transport.abort)

    def abort(self) -> None:
        """Close the transport, whatever it has not sent."""
        self._owner = None
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    async def gone(self, seconds: float) -> None:
        """After `close`: wait until the transport is closed, and abort it after that time."""
        if self._gone.done() or self._loop.is_closed():
            return
        await asyncio.wait((self._gone,), timeout=seconds)
        if not self._gone.done():
            self.abort()
            await asyncio.sleep(0)

    def goodbye(self, data: memoryview) -> None:
        """The last there is to send, of which nobody waits to hear."""
        if data and not self._owed and self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(data))
