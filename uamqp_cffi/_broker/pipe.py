"""A connection to the embedded broker without a socket: bytes in, bytes out."""

from __future__ import annotations

import logging
import ssl
from contextlib import AbstractContextManager
from typing import Protocol

from .._core.engine.lib import NEVER
from .._core.transport.filters.tls import TransportError
from .core import Core
from .peer import accept

_log = logging.getLogger("uamqp.broker")


class Owner(Protocol):
    """What a pipe asks of the broker."""

    _core: Core
    _tls: ssl.SSLContext | None

    def _acting(self) -> AbstractContextManager[Core]:
        """Hold the broker's lock, and let what was done take effect when it is given back."""


class Pipe:
    """A connection to a broker without a socket: bytes in with `feed`, bytes out with `take`, time with `tick`."""

    def __init__(self, broker: Owner, now: int | None = None) -> None:
        self._broker = broker
        self._at(now)
        self._peer, self._wire = accept(broker._core, broker._tls)

    def _at(self, now: int | None) -> int:
        core = self._broker._core
        if now is not None:
            core.now = max(core.now, now)
        return core.now

    @property
    def closed(self) -> bool:
        """The broker has ended this connection; what `take` still gives is the last of it."""
        peer = self._peer
        done = peer.closing and peer.engine.conn().transport_done
        return peer.ended or peer.dropping or done or self._wire.ended_by_peer

    @property
    def deadline(self) -> int:
        """The millisecond at which to call `tick` even if nothing happens."""
        timer = self._broker._core.next_timer()
        return min(self._wire.deadline, self._wire.deadline if timer is None else timer)

    def feed(self, data: bytes, now: int | None = None) -> None:
        """Bytes from the client. Malformed ones close this connection, they raise nothing."""
        with self._broker._acting() as core:
            at = self._at(now)
            peer = self._peer
            if self.closed or peer.hung:
                return
            try:
                peer.handle(self._wire.feed(data, at))
            except TransportError as error:
                _log.info("%r: %s", peer, error)
                self._end()
                return
            peer.resume()
            core.run_timers()

    def take(self, n: int | None = None) -> bytes:
        """Bytes for the client, at most `n`; none when there are none."""
        with self._broker._acting():
            peer, wire, now = self._peer, self._wire, self._broker._core.now
            out = b""
            while not peer.ended and (n is None or len(out) < n):
                piece = bytes(wire.output()[: None if n is None else n - len(out)])
                if not piece:
                    if wire.ended_by_peer:  # it has our answer to its goodbye now
                        self._end()
                    break
                wire.sent(len(piece), now)
                out += piece
                if peer.stalled or wire.settling or (peer.timed and wire.deadline == NEVER):
                    peer.handle(wire.tick(now))
                    peer.resume()
            return out

    def tick(self, now: int | None = None) -> None:
        """Time passed: timers of the broker run, an idle time-out may strike."""
        with self._broker._acting() as core:
            at = self._at(now)
            core.run_timers()
            if not self.closed and not self._peer.hung:
                self._peer.handle(self._wire.tick(at, dry=True))

    def lost(self) -> None:
        """The client is gone without a word."""
        with self._broker._acting():
            self._end()

    def _end(self) -> None:
        if not self._peer.ended:
            self._peer.handle(self._wire.lost(self._broker._core.now))
            self._peer.lost()
