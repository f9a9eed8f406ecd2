"""Heartbeats while user code runs: one daemon thread per process, which sends, and answers what has come.

It holds connections weakly and sleeps until the earliest of their deadlines; a connection whose owner steps it often
costs nothing here but a look at the clock. It is started when the first peer announces an idle time-out.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .. import time
from ..waiting.locks import Signal

_logger = logging.getLogger("uamqp.connection")


class Beating(Protocol):
    """Something that must be sent for at times."""

    def _beat(self, now: float) -> float | None:
        """Send what is owed at `now` (`time.monotonic` seconds); gives when to ask again, None: never."""


class Heart:
    """The heap of deadlines and the thread that follows it, to which alone the heap belongs. Others leave what they have to say
    in a deque: without a lock there is none that Ctrl-C could leave taken."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, thread: bool = True) -> None:
        self._clock = clock
        self._told: deque[tuple[float, int, weakref.ref[Beating]]] = deque()
        self._changed = Signal()
        self._heap: list[tuple[float, int, weakref.ref[Beating]]] = []
        self._count = itertools.count()
        self._threaded = thread
        self._chosen: dict[str, threading.Thread] = {}  # "thread": the one; should two be started, the other ends

    def watch(self, target: Beating, due: float) -> None:
        """Call `target._beat` at `due` and then whenever it says, as long as it lives. Any thread. Raises RuntimeError when no
        thread can be started."""
        self._told.append((due, next(self._count), weakref.ref(target)))
        if self._threaded and not self._chosen:
            threading.Thread(target=self._run, name="uamqp-heartbeat", daemon=True).start()
        self._changed.set()

    def beat(self, now: float) -> float | None:
        """Do all that is due at `now`; gives the next deadline."""
        heap = self._heap
        while True:
            while self._told:
                heapq.heappush(heap, self._told.popleft())
            if not heap or heap[0][0] > now:
                return heap[0][0] if heap else None
            _, count, ref = heapq.heappop(heap)
            target = ref()
            try:
                due = target._beat(now) if target is not None else None
            except Exception:  # it has no heartbeats any more, but all others do
                _logger.exception("a heartbeat failed")
                due = None
            target = None  # nothing here may keep it alive
            if due is not None:
                heapq.heappush(heap, (max(due, now + 0.001), count, ref))

    def _run(self) -> None:
        me = threading.current_thread()
        if self._chosen.setdefault("thread", me) is not me:
            return
        while True:
            due = self.beat(self._clock())
            self._changed.wait(None if due is None else max(0.0, due - self._clock()))


heart = Heart()


def _after_fork() -> None:
    global heart
    heart = Heart()  # the child has no thread, and the parent's connections are not its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
