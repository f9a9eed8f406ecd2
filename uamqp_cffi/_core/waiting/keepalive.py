"""Keep-alive: what a connection's clients ask for with `keep_alive_interval`.

One worker per connection, a thread or (see `async_ops/connection_async.py`) a task. Every so many seconds it takes in
what has come and calls back, as a step of those clients would. It holds connection and clients weakly, and ends with the
last client that asked for it, with the connection, or with what breaks that.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from .. import time
from .locks import Lock, Roster, fork_safe
from .plan import earlier

_logger = logging.getLogger("uamqp.client")
_LAST = 1.0  # seconds that the interpreter waits, when it exits, for callbacks that run


class Bell:
    """What wakes a worker. `ring` takes any argument, and is written in C: as the callback of a weak reference it runs wherever
    an object is collected, where nobody would hear of an interrupt that came inside it."""

    __slots__ = ("_rings", "ring")

    def __init__(self) -> None:
        self._rings: SimpleQueue[object] = SimpleQueue()
        self.ring = self._rings.put

    def set(self) -> None:
        self.ring(None)

    def wait(self, seconds: float) -> bool:
        """Wait until it has been rung, and answer all of that: True. Or for that time: False."""
        try:
            self._rings.get(timeout=min(seconds, threading.TIMEOUT_MAX))
            while not self._rings.empty():
                self._rings.get_nowait()
        except Empty:
            return False
        return True


class Keeper:
    """The worker of one connection, as a thread. `worker` is None when there is none, or none any more."""

    def __init__(self, connection: Any) -> None:
        self._changed: Any = self._signal()
        self._collected: Callable[[Any], object] | None = getattr(self._changed, "ring", None)
        """The callback of weak references; None where the worker sees it when it works next."""
        self._connection = weakref.ref(connection, self._collected)
        self._intervals: dict[weakref.ref[Any], float] = {}
        self._books = fork_safe(Lock())
        self._worked_at = 0.0
        self.worker: Any = None

    def join(self, client: Any, interval: float) -> Any:
        """Work for this client, too; gives the worker. Raises RuntimeError when no thread can be started."""
        ref = weakref.ref(client, self._collected)
        with self._books:
            self._intervals[ref] = interval
            if self._runs():
                self._changed.set()
                return self.worker
            self._worked_at = time.monotonic()
            try:
                self._start()
            except BaseException:
                self.worker = None
                del self._intervals[ref]
                raise
            return self.worker

    def leave(self, client: Any) -> Any:
        """Work for it no more. Gives the worker if that ends with it, for who wants to wait for its end."""
        with self._books:
            self._intervals.pop(weakref.ref(client), None)
            self._changed.set()
            return None if self._intervals else self.worker

    def stop(self) -> None:
        """Work for nobody any more."""
        with self._books:
            self._intervals.clear()
        self._changed.set()

    def wake(self) -> None:
        """Have the worker see whether there is still something to do."""
        self._changed.set()

    def _due(self, me: Any) -> float | None:
        """When the worker `me` is to work next, by `time.monotonic`; None: it ends."""
        connection = self._connection()
        with self._books:
            for ref in [ref for ref in self._intervals if ref() is None]:
                del self._intervals[ref]
            if self.worker is not me:
                return None
            if connection is None or connection._closed or not self._intervals:
                self.worker = None
                return None
            return earlier(self._worked_at + min(self._intervals.values()), connection._keep_deadline())

    def _failed(self, connection: Any, error: Exception) -> None:
        """Who calls next is told by the connection."""
        _logger.info("keep-alive of connection %r ended: %r", connection.container_id, error)
        self.stop()

    # ---- as a thread ----------------------------------------------------------------------------------------------

    def _signal(self) -> Any:
        return Bell()

    def _runs(self) -> bool:
        return self.worker is not None and self.worker.is_alive()

    def _start(self) -> None:
        _running.add(self)
        self.worker = threading.Thread(target=self._run, name="uamqp-keep-alive", daemon=True)
        self.worker.start()

    def _run(self) -> None:
        me = threading.current_thread()
        while (due := self._due(me)) is not None:
            if not self._changed.wait(max(0.0, due - time.monotonic())):
                self._work()

    def _work(self) -> None:
        connection = self._connection()
        if connection is None:
            return
        self._worked_at = time.monotonic()
        try:
            connection._run(connection._keep_plan())
        except Exception as error:
            self._failed(connection, error)


_running: Roster[Keeper] = Roster()


def _at_exit() -> None:
    """A thread that is killed while it calls back may take a lock of the interpreter's along."""
    end = time.monotonic() + _LAST
    workers = [keeper.worker for keeper in list(_running)]
    for keeper in list(_running):
        keeper.stop()
    for worker in workers:
        if worker is not None:
            worker.join(max(0.0, end - time.monotonic()))


atexit.register(_at_exit)
