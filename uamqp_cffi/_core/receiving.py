"""Deliveries that came in: those that nobody has read yet, and delivery-ids as ranges."""

from __future__ import annotations

import importlib.util
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .waiting.locks import Lock, fork_safe

if TYPE_CHECKING:
    from queue import Queue
elif queue.Queue.__module__ == "queue":
    Queue = queue.Queue
else:  # gevent and eventlet put queues of their own there, which have neither lock nor deque that can be reached
    _again = importlib.util.module_from_spec(queue.__spec__)
    queue.__spec__.loader.exec_module(_again)
    Queue = _again.Queue

_SERIAL = (1 << 32) - 1


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Delivery-ids (serial numbers of 32 bits, §2.8.10) as (first, last) of adjacent ones, in the order given.

    >>> list(ranges([7, 8, 9, 11, 4294967295, 0]))
    [(7, 9), (11, 11), (4294967295, 0)]
    """
    first = last = -1
    for number in numbers:
        if first < 0:
            first = last = number
        elif number == (last + 1) & _SERIAL:
            last = number
        else:
            yield first, last
            first = last = number
    if first >= 0:
        yield first, last


def numbers_of(first: int, last: int) -> list[int]:
    """The delivery-ids first..last."""
    return [(first + i) & _SERIAL for i in range(span(first, last))]


def span(first: int, last: int) -> int:
    """How many delivery-ids first..last are."""
    return ((last - first) & _SERIAL) + 1


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
