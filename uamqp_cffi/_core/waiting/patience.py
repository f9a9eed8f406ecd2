"""Calls that wait for the peer tell the log of it."""

from __future__ import annotations

from .. import time


class Patience:
    """Of a call that waits: it is up after FIRST seconds, and every AGAIN seconds from then on."""

    FIRST = 10.0
    AGAIN = 60.0
    __slots__ = ("_began", "_next")

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = self._began + self.FIRST

    def until(self, deadline: float | None) -> float:
        """Return when to wake up at the latest, to look."""
        return self._next if deadline is None or deadline > self._next else deadline

    def is_up(self) -> float:
        """Return for how many seconds the call has waited, if that is to be told; 0 if not."""
        now = time.monotonic()
        if now < self._next:
            return 0.0
        self._next = now + self.AGAIN
        return now - self._began
