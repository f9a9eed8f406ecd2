"""Deliveries on their way: what a sending link has handed to the engine and has no outcome for yet.

Nothing here looks at what is pending as a whole: handing over and settling cost what they move, however much waits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Protocol

_SERIAL = (1 << 32) - 1
_HALF = 1 << 31
_MERGE = 4096  # items one run grows to by adding to it

SENT_OUTCOMES = frozenset((0x00, 0x01, 0x24))  # UAM_OUT_NONE, SENT, ACCEPTED: it is done
LOST_OUTCOMES = frozenset((0x02, 0x03))  # UAM_OUT_NOT_DELIVERED, UNKNOWN: it comes back


NOTHING: list[Any] = []
"""For those who held a run of messages and let go of it; nobody changes it."""


class Owner(Protocol):
    """Who handed items over, and is told what became of them."""

    def _settled(self, items: list[Any], outcome: int, state: bytes) -> None: ...


class _Run:
    """Items with consecutive delivery-ids. `items[start:]` are open, but for the None ones; `left` counts them."""

    __slots__ = ("first", "holes", "items", "left", "owner", "start")

    def __init__(self, first: int, items: list[Any], owner: Owner) -> None:
        self.first = first
        self.items = items
        self.owner = owner
        self.start = 0
        self.left = len(items)
        self.holes = False

    def open(self) -> list[Any]:
        return [item for item in self.items[self.start :] if item is not None]

    def look(self, low: int, high: int) -> list[Any]:
        """The open ones of the ids low..high."""
        part = self.items[max(low - self.first, self.start) : max(high - self.first + 1, 0)]
        return [item for item in part if item is not None] if self.holes else part

    def take(self, low: int, high: int, count: int) -> None:
        """The ids low..high, of which `count` are open, are open no more."""
        items = self.items
        a = max(low - self.first, self.start)
        b = min(high - self.first + 1, len(items))
        if a >= b:
            return
        if a == self.start:
            self.start = b
        else:
            items[a:b] = [None] * (b - a)
            self.holes = True
        self.left -= count
        if self.start * 2 > len(items):  # let go of what is settled
            del items[: self.start]
            self.first += self.start
            self.start = 0


class Runs:
    """The open deliveries of one link, found by delivery-id (serial numbers of 32 bits, §2.8.10)."""

    __slots__ = ("_firsts", "_head", "_latest", "_runs", "moving")

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._firsts: list[int] = []
        self._head = 0  # runs before it are empty
        self._latest = 0  # the last id, counted on beyond 32 bits
        self.moving = NOTHING
        """What the last call took out, or was given, until `moved`: an interrupt may have left it nowhere else."""

    def moved(self) -> None:
        """What was taken out is with its owner."""
        self.moving = NOTHING

    def _absolute(self, serial: int) -> int:
        latest = self._latest
        return latest + ((serial - latest + _HALF) & _SERIAL) - _HALF

    def __len__(self) -> int:
        return sum(run.left for run in self._runs[self._head :])

    def __bool__(self) -> bool:
        return self._head < len(self._runs)

    def __iter__(self) -> Iterator[Any]:
        for run in self._runs[self._head :]:
            yield from run.open()

    def add(self, serial: int, items: list[Any], owner: Owner) -> None:
        """`items` went out with the ids from `serial` on, one apart. The list is ours from now on."""
        self.moving = items
        first = self._absolute(serial)
        runs = self._runs
        if runs:
            run = runs[-1]
            if run.owner is owner and run.first + len(run.items) == first and len(run.items) < _MERGE:
                run.items += items
                run.left += len(items)
                self._latest = first + len(items) - 1
                return
        runs.append(_Run(first, items, owner))
        self._firsts.append(first)
        self._latest = first + len(items) - 1

    def take(self, first: int, last: int) -> list[tuple[Owner, list[Any]]]:
        """The open items of the ids first..last, by owner; they are open no more."""
        runs = self._runs
        at = self._head
        if at == len(runs):
            return []
        if first == last and at + 1 == len(runs) and (run := runs[at]).left == 1:
            if (run.first + run.start) & _SERIAL == first and len(
                run.items
            ) == run.start + 1:  # the only one that is open
                self.moving = run.items[run.start :]
                runs.clear()
                self._firsts.clear()
                self._head = 0
                return [(run.owner, self.moving)]
        low = self._absolute(first)
        high = low + ((last - first) & _SERIAL)
        if runs[at].first + len(runs[at].items) <= low:
            at = max(bisect_right(self._firsts, low, at) - 1, at)
        taken = []
        while at < len(runs) and runs[at].first <= high:
            run = runs[at]
            part = self.moving = run.look(low, high)
            run.take(low, high, len(part))
            self._firsts[at] = run.first
            if part:
                taken.append((run.owner, part))
            at += 1
        self._trim()
        return taken

    def _trim(self) -> None:
        runs = self._runs
        head = self._head
        while head < len(runs) and not runs[head].left:
            head += 1
        if head == len(runs):
            runs.clear()
            self._firsts.clear()
            head = 0
        elif head > 64 and head * 2 > len(runs):
            del runs[:head]
            del self._firsts[:head]
            head = 0
        self._head = head

    def id_of(self, item: Any) -> int | None:
        """The delivery-id of an open item; looks from the oldest on."""
        for run in self._runs[self._head :]:
            try:
                return (run.first + run.items.index(item, run.start)) & _SERIAL
            except ValueError:
                continue
        return None

    def take_all(self) -> list[tuple[Owner, list[Any]]]:
        """Everything that is open, by owner, oldest first; nothing is any more."""
        taken = [(run.owner, run.open()) for run in self._runs[self._head :]]
        self._runs.clear()
        self._firsts.clear()
        self._head = 0
        return [(owner, items) for owner, items in taken if items]
