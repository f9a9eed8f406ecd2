"""Signals, while the command works."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .text import Interrupted


class _Signals:
    """SIGINT and SIGTERM for one command.

    While `deferred`, a signal is only noted in `number` (and `on_signal` is called), so that a step in progress keeps
    its books right; a second one, or one that comes at another time, raises KeyboardInterrupt. Outside the main thread
    this does nothing.
    """

    def __init__(self, on_signal: Callable[[], object] | None = None) -> None:
        self.number = 0
        self.deferred = False
        self._on_signal = on_signal
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number, number
        if self._on_signal is not None:
            self._on_signal()
        if again or not self.deferred:
            raise KeyboardInterrupt

    def check(self) -> None:
        if self.number:
            raise Interrupted

    @property
    def exit_status(self) -> int:
        return 128 + (self.number or signal.SIGINT)

    @property
    def name(self) -> str:
        return "stopped by SIGTERM" if self.number == signal.SIGTERM else "interrupted"
