"""The clocks of deadlines, which go on when a test tool stops those of the module `time`.

`freezegun` puts a stopped clock in place of `time.monotonic` wherever a module has that name; a wait that ends at a
deadline would then never end. It knows the functions by identity, and those here are others. What has to do with the
date, such as the life of a token, asks `time.time` as the user's own code does: the two must agree.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import TYPE_CHECKING

__all__ = ["monotonic", "monotonic_ns", "perf_counter", "sleep"]

if TYPE_CHECKING:
    from time import monotonic, monotonic_ns, perf_counter
elif sys.implementation.name == "cpython" and time.__spec__ is not None and time.__spec__.loader is not None:
    _again = importlib.util.module_from_spec(time.__spec__)  # the same module once more, and no attribute of any other
    time.__spec__.loader.exec_module(_again)
    monotonic, monotonic_ns, perf_counter = _again.monotonic, _again.monotonic_ns, _again.perf_counter
else:  # PyPy has it once

    def _hidden(clock):
        return lambda: clock()

    monotonic, monotonic_ns, perf_counter = map(_hidden, (time.monotonic, time.monotonic_ns, time.perf_counter))


def sleep(seconds: float) -> None:
    """As `time.sleep`, whatever that is by now (gevent and eventlet have their own)."""
    time.sleep(seconds)
