"""How far the command is."""

from __future__ import annotations

import sys
from typing import Any

from .._core import time
from .text import say


class Progress:
    """Plain lines, one a second; for pipes, and for terminals without the extra `cli`."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self._started = self._next = time.perf_counter()
        self._next += 1.0

    def update(self, done: int, now: float) -> None:
        if now >= self._next:
            self._next = now + 1.0
            of = "" if self.total is None else f" of {self.total:,}"
            say(f"{done:,}{of} messages done, {done / (now - self._started):,.0f}/s")

    def close(self, done: int) -> None:
        pass


class Bar(Progress):
    """A bar of rich's, redrawn from the sending loop: no thread competes with it."""

    def __init__(self, total: int | None, doing: str) -> None:
        from rich import progress
        from rich.console import Console
        from rich.text import Text

        class Done(progress.ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{int(task.completed):,}" + ("" if task.total is None else f" of {int(task.total):,}"))

        class Rate(progress.ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.completed / task.elapsed:,.0f}/s" if task.elapsed else "")

        super().__init__(total)
        console = Console(stderr=True)
        columns = (doing, progress.BarColumn(), Done(), Rate(), progress.TimeRemainingColumn())
        self._bar = progress.Progress(*columns, console=console, auto_refresh=False)
        self._task = self._bar.add_task("", total=total)
        self._bar.start()

    def update(self, done: int, now: float) -> None:
        if now >= self._next - 0.95:
            self._next = now + 1.0
            self._bar.update(self._task, completed=done, refresh=True)

    def close(self, done: int) -> None:
        self._bar.update(self._task, completed=done, refresh=True)
        self._bar.stop()


class NoProgress(Progress):
    """Where a line of ours would stand among others."""

    def __init__(self) -> None:
        super().__init__(None)

    def update(self, done: int, now: float) -> None:
        pass


def make_progress(total: int | None, doing: str) -> Progress:
    if sys.stderr.isatty():
        try:
            return Bar(total, doing)
        except ImportError:
            return Progress(total)
    return Progress(total)
