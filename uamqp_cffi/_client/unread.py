"""Messages that came in and that nobody has read yet."""

from __future__ import annotations

import importlib.util
import queue
import threading
from typing import TYPE_CHECKING, Any

from .._core.waiting.locks import Lock, fork_safe

if TYPE_CHECKING:
    from queue import Queue
elif queue.Queue.__module__ == "queue":
    Queue = queue.Queue
else:  # gevent and eventlet put queues of their own there, which have neither lock nor deque that can be reached
    _again = importlib.util.module_from_spec(queue.__spec__)
    queue.__spec__.loader.exec_module(_again)
    Queue = _again.Queue


class Unread(Queue[Any]):
    """A queue that takes and gives many items under one lock. `len` looks without it."""

    def __init__(self) -> None:
        super().__init__()
        self.mutex = fork_safe(Lock())
        self.not_empty = threading.Condition(self.mutex)
        self.not_full = threading.Condition(self.mutex)
        self.all_tasks_done = threading.Condition(self.mutex)

    def __len__(self) -> int:
        return len(self.queue)

    def __bool__(self) -> bool:
        return True

    def extend(self, items: list[Any]) -> None:
        """`put` of each; unlike that one it leaves no lock taken when Ctrl-C comes."""
        with self.mutex:
            self.queue.extend(items)
            self.unfinished_tasks += len(items)
            self.not_empty.notify(len(items))

    def take(self, count: int) -> list[Any]:
        """`get` and `task_done` of the first `count` there are; waits for nothing."""
        with self.mutex:
            waiting = self.queue
            if count >= len(waiting):
                taken = list(waiting)
                waiting.clear()
            else:
                pop = waiting.popleft
                taken = [pop() for _ in range(count)]
            self._forget(len(taken))
            return taken

    def keep(self, items: list[Any]) -> None:
        """Nothing but these from now on."""
        with self.mutex:
            gone = len(self.queue) - len(items)
            self.queue.clear()
            self.queue.extend(items)
            self._forget(gone)

    def _forget(self, count: int) -> None:
        self.unfinished_tasks = max(0, self.unfinished_tasks - count)
        if not self.unfinished_tasks:
            self.all_tasks_done.notify_all()
