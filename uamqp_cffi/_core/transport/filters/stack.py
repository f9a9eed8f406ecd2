"""Several filters, one above the other, as one: such as WebSocket over TLS over HTTP CONNECT."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Filter, TransportError

_SCRATCH = 64 << 10


class Stack:
    """A `Filter` made of filters, given from the network up.

    Received bytes rise to the top at once, so nothing piles up in between. Bytes to send sink when they are asked for: a
    peer that makes us answer and does not read has our filters hold one answer, not all."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self._filters = list(filters)
        self._bottom, self._top = self._filters[0], self._filters[-1]
        self._held = [b""] * len(self._filters)  # by filter: what came down to it and was not taken yet
        self._unsaid = 0  # bytes that the top took from AMQP, of which some are still held
        self._error: TransportError | None = None
        self._scratch = memoryview(bytearray(_SCRATCH))

    @property
    def ready(self) -> bool:
        return all(one.ready for one in self._filters)

    @property
    def doing(self) -> str:
        return next((one.doing for one in self._filters if not one.ready), "")

    @property
    def eof(self) -> bool:
        return any(one.eof for one in self._filters)

    @property
    def failing(self) -> bool:
        return self._error is not None or self._top.failing

    @property
    def pending(self) -> int:
        return sum(one.pending for one in self._filters) + sum(map(len, self._held))

    # from the network

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._bottom.feed(data)
        try:
            for lower, upper in zip(self._filters, self._filters[1:], strict=False):
                self._rise(lower, upper)
        except TransportError as error:
            self._error = error  # after what came before it

    def _rise(self, lower: Filter, upper: Filter) -> None:
        scratch = self._scratch
        while True:
            n = lower.read_into(scratch)
            if n:
                upper.feed(scratch[:n])
            if n < len(scratch) and not lower.failing:
                return

    def read_into(self, room: memoryview) -> int:
        n = self._top.read_into(room)
        if not n and self._error is not None:
            raise self._error
        return n

    def feed_eof(self) -> None:
        if self._top.eof:  # its goodbye says most
            self._top.feed_eof()
            return
        for one in self._filters:
            one.feed_eof()

    # to the network

    def write(self, data: memoryview) -> int:
        if not self._unsaid:
            self._unsaid = self._top.write(data)
        if not self._sink():
            return 0  # some of it is held: it counts as taken when it has sunk, and until then it is given again
        taken, self._unsaid = self._unsaid, 0
        return taken

    def _sink(self) -> bool:
        """Let down what can go down; whether nothing is held."""
        for at in range(len(self._filters) - 2, -1, -1):
            upper, lower = self._filters[at + 1], self._filters[at]
            data = self._held[at] + upper.take() if upper.pending else self._held[at]
            if data:
                self._held[at] = data[lower.write(memoryview(data)) :]
        return not any(self._held)

    def take(self) -> bytes:
        self._sink()
        return self._bottom.take()

    def close(self) -> None:
        for one in reversed(self._filters):
            one.close()
            self._sink()
