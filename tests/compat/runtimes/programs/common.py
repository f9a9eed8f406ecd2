"""What the programs have in common: checks by name, each of which says `ok` or what went wrong, and a limit for the whole."""

from __future__ import annotations

import faulthandler
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

LIMIT = 25.0
faulthandler.dump_traceback_later(LIMIT, exit=True)

_told: dict[str, str] = {}


def now() -> float:
    """Seconds of a clock that nobody replaces."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def check(name: str, work: Callable[[], Any]) -> None:
    """Do it, and note under that name what became of it."""
    try:
        work()
        _told[name] = "ok"
    except BaseException as error:
        traceback.print_exc()
        _told[name] = repr(error)


def takes(low: float, high: float, work: Callable[[], Any]) -> Any:
    """What it gives; AssertionError when it takes less or more seconds."""
    start = now()
    try:
        return work()
    finally:
        assert low <= now() - start <= high, now() - start


def raises(kind: type[BaseException], work: Callable[[], Any]) -> BaseException:
    try:
        work()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def done() -> None:
    """Tell, as the last thing."""
    json.dump(_told, sys.stdout)
    sys.stdout.flush()
