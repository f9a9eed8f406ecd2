"""User code that is to run outside every lock."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

_logger = logging.getLogger("uamqp.client")


class Calls(deque[tuple[Callable[..., object], tuple[Any, ...]]]):
    """User code that records gave rise to, to run outside every lock, in order.

    Code that is run here may call back into its client: what comes up meanwhile is left to the outer `run`, so a
    callback is never entered from inside another one of the same thread.
    """

    __slots__ = ("_threads",)

    def __init__(self) -> None:
        super().__init__()
        self._threads: set[int] = set()

    @property
    def nested(self) -> bool:
        """Whether this thread is inside a callback of ours."""
        return threading.get_ident() in self._threads

    def add(self, fn: Callable[..., object], *args: Any) -> None:
        self.append((fn, args))

    def run(self) -> None:
        """Run what is there. What it raises is logged, but for KeyboardInterrupt and its like."""
        if not self:
            return
        me = threading.get_ident()
        if me in self._threads:
            return
        self._threads.add(me)
        try:
            while self:
                try:
                    fn, args = self.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    fn(*args)
                except Exception:
                    _logger.exception("a callback failed")
        finally:
            self._threads.discard(me)
