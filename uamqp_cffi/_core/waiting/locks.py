"""Locks that neither Ctrl-C nor `fork` leaves taken.

Python 3.14, unlike those before and after it, may raise KeyboardInterrupt when `__enter__` is done and the block has
not begun: a plain lock then stays taken for good. Those here give back what they have just taken.

What another thread held when a process forked would be taken for good in the child, where that thread is not: the locks
that `fork_safe` was told of are free there.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from .interrupts import openly

_L = TypeVar("_L")

if sys.version_info[:2] == (3, 14) and type(threading.RLock()) is (_RLock := _thread.RLock):  # else gevent has its own

    class RLock(_RLock):
        """`__exit__` is C's: where a method in Python begins, an interrupt may come, too."""

        def __enter__(self) -> bool:
            before = self._recursion_count()
            try:
                return self.acquire()
            except BaseException:  # it may come when the lock is ours already
                while self._recursion_count() > before:
                    self.release()
                raise

    Lock = RLock

else:
    Lock = threading.Lock
    RLock = threading.RLock


class Roster(Generic[_L]):
    """Objects that it does not keep alive. A `weakref.WeakSet` has Python code run when one of them goes, wherever that
    happens, and an interrupt that comes in such code is lost; so has a `WeakMethod`."""

    def __init__(self) -> None:
        self._refs: dict[int, weakref.ref[_L]] = {}
        self._full = 32  # entries at which those of objects that are gone are thrown away
        self._lock = Lock()

    def add(self, one: _L) -> None:
        """Any thread. Nothing happens when it is there already."""
        with self._lock:
            self._refs[id(one)] = weakref.ref(one)
            if len(self._refs) >= self._full:
                self._refs = {key: ref for key, ref in self._refs.items() if ref() is not None}
                self._full = 2 * len(self._refs) + 32

    def __iter__(self) -> Iterator[_L]:
        return iter([one for ref in list(self._refs.values()) if (one := ref()) is not None])


_known: Roster[Any] = Roster()


def fork_safe(lock: _L) -> _L:
    """The same lock; in a forked child it will be free, unless the thread that forked has it."""
    _known.add(lock)
    return lock


def _after_fork() -> None:
    _known._lock = Lock()
    for lock in _known:
        owned = getattr(lock, "_is_owned", None)
        if owned is None or not owned():
            lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Signal:
    """What ends one wait, the present one or the next. As `threading.Event`, which Ctrl-C can leave locked: the locks
    inside of it are taken by methods in Python."""

    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed = threading.Lock()
        self._closed.acquire()

    def set(self) -> None:
        """Any thread."""
        try:
            self._closed.release()
        except RuntimeError:  # it is set
            return

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, and take that back: True. Or for that time: False."""
        return openly(self._closed.acquire, True, -1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))


class Turn:
    """Whose turn it is, among those who never wait for it. It is taken inside of the `try` whose `finally` gives it back, also
    by who did not get it; giving is one call of C's, so no interrupt can come before it is done."""

    __slots__ = ("_asked", "give")

    def __init__(self) -> None:
        self._asked: dict[object, None] = {}  # the first of them has it
        self.give = self._asked.pop  # give(who, None)

    def taken(self) -> bool:
        return bool(self._asked)

    def take(self, who: object) -> bool:
        """Whether it is theirs now. May be asked again."""
        self._asked[who] = None
        return list(self._asked)[0] is who
