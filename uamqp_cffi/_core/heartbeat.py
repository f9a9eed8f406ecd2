"""Heartbeats while user code runs: one daemon thread per process, which only sends.

It holds connections weakly and sleeps until the earliest of their deadlines; a connection whose owner steps it often
costs nothing here but a look at the clock. It is started when the first peer announces an idle time-out.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from .locks import Lock, Signal

_logger = logging.getLogger("uamqp.connection")


class Beating(Protocol):
    """Something that must be sent for at times."""

    def _beat(self, now: float) -> float | None:
        """Send what is owed at `now` (`time.monotonic` seconds); gives when to ask again, None: never."""


class Heart:
    """The heap of deadlines and, when `start` says so, the thread that follows it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, thread: bool = True) -> None:
        self._clock = clock
        self._lock = Lock()
        self._changed = Signal()
        self._heap: list[tuple[float, int, weakref.ref[Beating]]] = []
        self._count = itertools.count()
        self._threaded = thread
        self._thread: threading.Thread | None = None

    def watch(self, target: Beating, due: float) -> None:
        """Call `target._beat` at `due` and then whenever it says, as long as it lives."""
        with self._lock:
            heapq.heappush(self._heap, (due, next(self._count), weakref.ref(target)))
            if self._thread is None and self._threaded:
                thread = threading.Thread(target=self._run, name="uamqp-heartbeat", daemon=True)
                thread.start()
                self._thread = thread
        self._changed.set()

    def beat(self, now: float) -> float | None:
        """Do all that is due at `now`; gives the next deadline."""
        while True:
            with self._lock:
                if not self._heap or self._heap[0][0] > now:
                    return self._heap[0][0] if self._heap else None
                _, count, ref = heapq.heappop(self._heap)
            target = ref()
            try:
                due = target._beat(now) if target is not None else None
            except Exception:  # it has no heartbeats any more, but all others do
                _logger.exception("a heartbeat failed")
                due = None
            target = None  # nothing here may keep it alive
            if due is not None:
                with self._lock:
                    heapq.heappush(self._heap, (max(due, now + 0.001), count, ref))

    def _run(self) -> None:
        while True:
            due = self.beat(self._clock())
            self._changed.wait(None if due is None else max(0.0, due - self._clock()))


heart = Heart()


def _after_fork() -> None:
    global heart
    heart = Heart()  # the child has no thread, and the parent's connections are not its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
