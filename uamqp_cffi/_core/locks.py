"""A lock for `with` that Ctrl-C does not leave taken.

Python 3.14, unlike those before and after it, may raise KeyboardInterrupt when `__enter__` is done and the block has
not begun: a plain lock then stays taken for good. The one here knows its owner, who takes it anew. Other threads wait
until that happens.
"""

from __future__ import annotations

import sys
import threading

if sys.version_info[:2] == (3, 14):

    class Lock:
        """Not reentrant: a thread that owns it on entry was interrupted on its last one."""

        def __init__(self) -> None:
            self._lock = threading.RLock()

        def __enter__(self) -> bool:
            lock = self._lock
            while lock._is_owned():
                lock.release()
            return lock.acquire()

        def __exit__(self, *exc: object) -> None:
            if self._lock._is_owned():
                self._lock.release()

        def locked(self) -> bool:
            return self._lock.locked()

else:
    Lock = threading.Lock
