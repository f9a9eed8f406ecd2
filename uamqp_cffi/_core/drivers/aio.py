"""The asyncio driver's parts: an `asyncio.Protocol` under the wire, and connecting on the running loop.

Nothing here knows AMQP or plans. No thread and no executor, but the loop's own for resolving names.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Protocol

from .sync import Address, Dialer, tune

CLOSE_WITHIN = 5.0
"""Seconds that bytes handed to the transport have to leave it once it is closed."""
_PIECE = 256 << 10


class Owner(Protocol):
    """Who the stream serves."""

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
    transport is owed, and the caller, who offers it again, has it counted when it is gone."""

    def __init__(self, owner: Owner) -> None:
        self._owner: Owner | None = owner
        self._transport: asyncio.Transport | None = None
        self._owed = 0  # bytes in the transport's own buffer
        self._loop = asyncio.get_running_loop()
        self._abort: asyncio.TimerHandle | None = None

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=0)  # resume_writing then means that the buffer is empty
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._owner is not None:
            self._owner._came(data)

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner._room()

    def eof_received(self) -> bool:
        if self._owner is not None:
            self._owner._ended()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._abort is not None:
            self._abort.cancel()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._dropped(error)

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
            if transport.is_closing():
                raise BrokenPipeError("the transport broke")
            self._owed = transport.get_write_buffer_size()
            done += len(piece) - self._owed
        if not done and len(data):
            raise BlockingIOError
        return done

    def close(self) -> None:
        """Close the transport once it has sent what it has, within a few seconds. Nothing comes from it any more."""
        self._owner = None
        transport = self._transport
        if transport is None:
            return
        transport.close()
        if transport.get_write_buffer_size():
            self._abort = self._loop.call_later(CLOSE_WITHIN, transport.abort)

    def goodbye(self, data: memoryview) -> None:
        """What is left to be sent, of which nobody waits to hear."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(data[self._owed :]))
            self._owed = 0


class AsyncDialer(Dialer):
    """Connects to a host on the running loop; every address is tried, each with its share of the time that is left."""

    def __init__(self, host: str, port: Callable[[list[Address]], int], deadline: float | None) -> None:
        super().__init__(host, port, deadline, lambda: None)

    async def connect(self) -> socket.socket:
        """A connected socket. Raises OSError when no address is left, with the reasons of all."""
        loop = asyncio.get_running_loop()
        try:
            self.addresses = list(await loop.getaddrinfo(self.host, 0, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            raise OSError(f"cannot resolve {self.host!r}: {error}") from error
        self.port = self._choose_port(self.addresses)
        for at, address in enumerate(self.addresses):
            left = len(self.addresses) - at
            share = None if self._deadline is None or left == 1 else max(0.0, self._deadline - time.monotonic()) / left
            try:
                return await asyncio.wait_for(self._try(loop, address), share)
            except (OSError, asyncio.TimeoutError) as error:
                self._failed.append((str(address[4][0]), _told(error)))
        raise self._nobody()

    async def _try(self, loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
        family, kind, proto, _, where = address
        sock = socket.socket(family, kind, proto)
        try:
            tune(sock)
            await loop.sock_connect(sock, (where[0], self.port, *where[2:]))
        except BaseException:
            sock.close()
            raise
        return sock


def _told(error: Exception) -> OSError:
    """`error` as the system would put it: a time-out of asyncio's has no words."""
    if isinstance(error, OSError) and error.errno:
        return error
    return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
