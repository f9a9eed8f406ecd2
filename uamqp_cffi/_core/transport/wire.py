"""A wire is an engine and the filter between it and a socket, without the socket.

A driver does four things with it: put received bytes into `window()` and call `received(n)`; hand `output()` to the
kernel and call `sent(n)`; call `tick()` at `deadline`; tell `ended()` or `lost()`. On plain TCP the window is the
engine's own, and so is the output: no byte is copied in Python.

What the kernel took is noted at once and committed to the engine with its next step, so that a send costs one call into
the engine less. What a filter made ("ciphertext": TLS, WebSocket frames, both) sits in the wire until the kernel has it,
and the wire knows which of the engine's bytes ("plaintext") it stands for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .. import time
from ..engine.engine import Engine
from ..engine.lib import OUT_SENT, OUT_UNKNOWN
from ..engine.records import Record, Settled
from .filters.base import Filter
from .filters.stack import Stack
from .filters.tls import Tls, TransportError

__all__ = ["CIPHER_CAP", "Tls", "TransportError", "Wire", "clock"]

CIPHER_CAP = 256 << 10
"""Bytes of ciphertext that may wait for the kernel: nothing is encrypted while more than `_LOW` of them do, so it
holds with room to spare."""
_LOW = 32 << 10
_PIECE = 64 << 10  # plaintext per write to the filter: its ciphertext stays in the cache until the kernel has copied it
_STALE = 200  # milliseconds
_COMMIT = 32 << 10
_ROOM = 128 << 10
_NOTHING = memoryview(b"")
_GET = ord("G")  # AMQP begins with A


def clock() -> int:
    """The engine's time: monotonic milliseconds."""
    return time.monotonic_ns() // 1_000_000


class Wire:
    """See the module. Not locked: its owner lets one thread at a time in. `filters`: from the network up. `websockets`: a
    server's wire that takes a WebSocket, too, when the client begins with HTTP."""

    __slots__ = (
        "_cipher",
        "_cipher_at",
        "_cipher_made",
        "_cipher_sent",
        "_first",
        "_kernel",
        "_marks",
        "_room",
        "_taken",
        "_websockets",
        "engine",
        "filter",
        "last_step",
        "sent_at",
        "total",
    )

    def __init__(
        self, engine: Engine, filters: Sequence[Filter] = (), now: int | None = None, websockets: bool = False
    ) -> None:
        """`now`: monotonic milliseconds, the present when not given."""
        self.engine = engine
        self.filter: Filter | None = None
        """What is between the socket and the engine; None: nothing."""
        if filters:
            self.filter = filters[0] if len(filters) == 1 else Stack(filters)
        self._websockets = websockets
        self._room = memoryview(bytearray(_ROOM)) if filters else _NOTHING
        self._taken = 0  # bytes at the front of the engine's output that have left it but are not committed
        self.total = 0
        """Bytes of the engine's output that ever left it."""
        self._kernel = 0  # bytes of it that are with the kernel, by their ciphertext if there is any
        self.sent_at = self.last_step = clock() if now is None else now
        """Milliseconds of the last sent() and of the engine's last step."""
        self._first = True
        self._cipher = b""  # ciphertext; the first _cipher_at bytes of it are with the kernel
        self._cipher_at = 0
        self._cipher_made = self._cipher_sent = 0
        self._marks: deque[tuple[int, int]] = deque()  # (count of ciphertext bytes, plaintext they stand for)
        engine.step(self.last_step)

    @property
    def deadline(self) -> int:
        """The millisecond at which to call tick()."""
        return self.engine.deadline

    # receiving

    def window(self) -> memoryview:
        """Where received bytes belong. Good until the next call of received(), tick() or lost()."""
        return self._room if self.filter is not None else self.engine.in_view

    def received(self, n: int, now: int) -> list[Record]:
        """`n` bytes were put into `window()`: what happened. Raises TransportError."""
        if self.filter is not None:
            return self._decrypt(self.filter, n, now)
        if self._first and n:
            self._first = False
            if self._websockets and self.engine.in_view[0] == _GET:
                return self._decrypt(self._to_websocket(n), 0, now)
            self._check_plain(n)
        return self._step(now, n, False)

    def _step(self, now: int, received: int, dry: bool) -> list[Record]:
        """The engine's step, with what has left since the last one."""
        taken = self._taken
        self.last_step = now
        if taken:
            if now - self.sent_at > _STALE:  # else the engine would owe its next heartbeat too late
                self.engine.commit(taken, self.sent_at)
                taken = 0
            self._taken = 0
        return self.engine.step(now, received, taken, self._kernel, dry)

    def _check_plain(self, n: int) -> None:
        head = bytes(self.engine.in_view[: min(n, 3)])
        if head[:2] in (b"\x15\x03", b"\x16\x03"):
            raise TransportError("the peer speaks TLS on this port; leave use_tls=False out")
        if head == b"HTT":
            raise TransportError(
                "the peer speaks HTTP on this port, not AMQP; if it has AMQP in a WebSocket, that is"
                " TransportType.AmqpOverWebsocket"
            )

    def _to_websocket(self, n: int) -> Filter:
        """The client began with HTTP, the first `n` bytes of which are in the engine's window: what is between socket and
        engine from now on."""
        from .filters.websocket import WebSocket  # only for those who use it

        upgrade = WebSocket(server_side=True)
        upgrade.feed(self.engine.in_view[:n])
        self.filter = upgrade if self.filter is None else Stack([self.filter, upgrade])
        self.filter.feed(b"")  # what TLS has not given yet
        self._room = self._room or memoryview(bytearray(_ROOM))
        return self.filter

    def _decrypt(self, tls: Filter, n: int, now: int) -> list[Record]:
        engine = self.engine
        records: list[Record] = []
        tls.feed(self._room[:n])
        while True:
            while not engine.in_view:  # events were too many for one batch
                records += self._step(now, 0, False)
            room = len(engine.in_view)
            got = tls.read_into(engine.in_view)
            if got:
                if self._first:
                    self._first = False
                    if self._websockets and engine.in_view[0] == _GET:
                        tls = self._to_websocket(got)
                        continue
                records += self._step(now, got, False)
            if got < room and not tls.failing:  # there is no more, or it would be here
                return records

    def feed(self, data: bytes | bytearray | memoryview, now: int) -> list[Record]:
        """received() for bytes that are elsewhere: copies them in, in as many pieces as needed."""
        records: list[Record] = []
        at = 0
        while at < len(data):
            room = self.window()
            if not room:
                records += self.tick(now)
                continue
            n = min(len(room), len(data) - at)
            room[:n] = data[at : at + n]
            records += self.received(n, now)
            at += n
        return records

    def ended(self) -> None:
        """The network ended. Returns when that is an orderly end of the stream (plain TCP: always), else raises
        TransportError."""
        if self.filter is not None:
            self.filter.feed_eof()

    @property
    def unheard(self) -> bool:
        """Plain TCP on which nothing was ever received."""
        return self.filter is None and self._first

    @property
    def ended_by_peer(self) -> bool:
        """The peer said the goodbye of TLS or of WebSocket."""
        return self.filter is not None and self.filter.eof

    def tick(self, now: int, dry: bool = False) -> list[Record]:
        """Time passed, or the kernel took something. `dry`: the socket was just read until it would block, so that the
        peer's silence may be judged."""
        return self._step(now, 0, dry)

    # sending

    def output(self) -> memoryview:
        """Bytes for the kernel; empty when there are none. Good until the next call of anything."""
        if self.filter is None:
            out = self.engine.output()
            return out[self._taken :] if self._taken else out
        if len(self._cipher) - self._cipher_at < _LOW and (
            self.filter.pending or not self.engine.has_sent(self._taken)
        ):
            self._encrypt(self.filter)
        return memoryview(self._cipher)[self._cipher_at :] if self._cipher else _NOTHING

    def _encrypt(self, tls: Filter) -> None:
        held = len(self._cipher) - self._cipher_at
        plain = self.engine.output()[self._taken : self._taken + _PIECE]
        done = tls.write(plain) if plain else 0
        self._taken += done
        self.total += done
        if self._taken > _COMMIT:
            self._commit()
        if not tls.pending:
            return
        new = tls.take()
        self._cipher = self._cipher[self._cipher_at :] + new if held else new
        self._cipher_at = 0
        self._cipher_made += len(new)
        if done:
            self._marks.append((self._cipher_made, self.total))

    @property
    def quiet(self) -> bool:
        """Whether output() is known to be empty."""
        engine = self.engine
        if self._cipher or not engine.fresh or len(engine.out_view) != self._taken:
            return False
        return self.filter is None or not self.filter.pending

    def sent(self, n: int, now: int) -> bool:
        """The kernel took the first `n` bytes of output(). Whether there may be more."""
        engine = self.engine
        self.sent_at = now
        if self.filter is None:
            self._taken += n
            self.total += n
            self._kernel += n
            if self._taken > _COMMIT:
                self._commit()
            return not (engine.fresh and len(engine.out_view) == self._taken)
        self._cipher_at += n
        self._cipher_sent += n
        if self._cipher_at == len(self._cipher):
            self._cipher = b""
            self._cipher_at = 0
        marks = self._marks
        while marks and marks[0][0] <= self._cipher_sent:
            self._kernel = marks.popleft()[1]
        return bool(self._cipher) or not (engine.fresh and len(engine.out_view) == self._taken)

    def _commit(self) -> None:
        """Much has left the engine: make room there for more, before its next step."""
        taken, self._taken = self._taken, 0
        self.engine.commit(taken, self.sent_at)

    @property
    def settling(self) -> bool:
        """Settled deliveries wait to hear that the kernel has them: tick() once more has gone out."""
        engine = self.engine
        if engine.presettled and self._kernel == self.total and not self.output():
            engine.presettled = False
            return True
        return engine.presettled

    def beat(self, now: int) -> None:
        """Make a heartbeat if one is owed. Takes nothing in and judges nothing."""
        if self._taken:
            self._commit()
        self.engine.commit(0, now)

    def close(self) -> None:
        """Say the goodbyes of WebSocket and TLS; they are then in output()."""
        if self.filter is not None:
            self._encrypt(self.filter)
            self.filter.close()
            self._encrypt(self.filter)

    def perhaps_sent(self, n: int, now: int) -> list[Record]:
        """The transport broke, and the kernel may have the first `n` bytes of output(): what ends in them is neither sent nor
        not delivered."""
        records = self._step(now, 0, False)
        self.sent(n, now)
        for record in self._step(now, 0, False):
            if isinstance(record, Settled) and record.outcome == OUT_SENT:
                record = record._replace(outcome=OUT_UNKNOWN)
            records.append(record)
        return records

    def lost(self, now: int) -> list[Record]:
        """The transport is gone: the last records, among them what is known of every open delivery."""
        records = self._step(now, 0, False)
        self.engine.lost()
        return records + self._step(now, 0, False)
