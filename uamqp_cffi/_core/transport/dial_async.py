"""Connecting on the running loop: no thread and no executor, but the loop's own for resolving names."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from collections.abc import Callable

from ..waiting.interrupts import stepped
from .dial import STAGGER, Address, Dialer, _at_once, _resolve, tune


class AsyncDialer(Dialer):
    """Connects to a host on the running loop, as `Dialer` does it."""

    def __init__(self, host: str, port: Callable[[list[Address]], int]) -> None:
        super().__init__(host, port, lambda: None)

    async def connect(self) -> socket.socket:
        """A connected socket. Raises OSError when no address is left, with the reasons of all."""
        loop = asyncio.get_running_loop()
        try:
            if _at_once(self.host):
                addresses = _resolve(self.host)
            else:
                addresses = list(await loop.getaddrinfo(self.host, 0, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            raise OSError(f"cannot resolve {self.host!r}: {error}") from error
        self._resolved(addresses)
        attempts: _Attempts = {}
        connected: socket.socket | None = None
        try:
            try:
                while connected is None:
                    if self._left:
                        self._attempt(loop, attempts)
                    elif not attempts:
                        raise self._nobody()
                    if attempts:
                        limit = STAGGER if self._left else None
                        await asyncio.wait(attempts, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                        connected = self._first(attempts)
            except GeneratorExit:  # the loop is gone, and what ran on it
                for sock, _ in attempts.values():
                    sock.close()
                attempts.clear()
                raise
            finally:
                await _give_up(attempts)
        except BaseException:
            if connected is not None:
                connected.close()
            raise
        return connected

    def _attempt(self, loop: asyncio.AbstractEventLoop, attempts: _Attempts) -> None:
        """Begin with the next address."""
        family, kind, proto, _, where = self._left.pop(0)
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as error:
            self._failed.append((str(where[0]), error))
            return
        try:
            tune(sock)
            attempt = loop.create_task(stepped(_connect, loop, sock, (where[0], self.port, *where[2:])))
        except BaseException:
            sock.close()
            raise
        attempts[attempt] = sock, str(where[0])

    def _first(self, attempts: _Attempts) -> socket.socket | None:
        """The first socket that is connected; what failed is noted."""
        for attempt in [one for one in attempts if one.done()]:
            sock, where = attempts[attempt]
            error = attempt.exception()
            if error is not None and not isinstance(error, OSError):
                raise error
            del attempts[attempt]
            if error is None:
                return sock
            sock.close()
            # loops have words of their own
            told = OSError(error.errno, os.strerror(error.errno)) if error.errno else error
            told.__cause__ = error.__cause__
            self._failed.append((where, told))
        return None


_Attempts = dict[asyncio.Task[None], tuple[socket.socket, str]]


async def _give_up(attempts: _Attempts) -> None:
    """End them; no socket is left behind, and none is closed while the loop still watches it."""
    if not attempts:
        return
    for attempt in attempts:
        attempt.cancel()
    try:
        await asyncio.wait(attempts)
    finally:
        for attempt, (sock, _) in attempts.items():
            # at once if it is done, which it is unless this is cancelled once more
            attempt.add_done_callback(functools.partial(_close, sock))


def _close(sock: socket.socket, attempt: asyncio.Task[None]) -> None:
    sock.close()
    if not attempt.cancelled():
        attempt.exception()  # nobody wants to know


async def _connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, where: tuple[object, ...]) -> None:
    await loop.sock_connect(sock, where)
