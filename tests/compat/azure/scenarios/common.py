"""What the scenarios share: how they are started, talk to the test that started them, and report.

A scenario is a function of a module here. It runs in an interpreter that has the published packages, with the
namespace's address in one JSON argument. Lines on standard output that begin with `@` are for the test: `@ask` wants
something done to the namespace and waits for the answer on standard input, `@result` is what the scenario saw.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

ARGUMENTS: dict[str, Any] = json.loads(sys.argv[1])
HOST: dict[str, Any] = ARGUMENTS["host"]  # where the namespace is


def ask(what: str, **how: Any) -> Any:
    """Have the test do something to the namespace; what it gives back."""
    print("@ask " + json.dumps({"what": what, **how}), flush=True)
    line = sys.stdin.readline()
    if not line:
        raise SystemExit("the test is gone")
    return json.loads(line)


def wait_until(true: Callable[[], Any], seconds: float = 20, what: str = "it") -> Any:
    """For what other threads of an SDK do and tell nobody."""
    end = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come about within {seconds} s")
        time.sleep(0.02)
    return value


async def wait_until_async(true: Callable[[], Any], seconds: float = 20, what: str = "it") -> Any:
    end = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come about within {seconds} s")
        await asyncio.sleep(0.02)
    return value


def describe(error: BaseException) -> dict[str, Any]:
    return {"type": type(error).__name__, "text": str(error)[:300]}


def main(module: str) -> None:
    """Run the scenario named on the command line."""
    if ARGUMENTS.get("debug"):
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    scenario = getattr(sys.modules[module], ARGUMENTS["scenario"])
    result = asyncio.run(scenario()) if inspect.iscoroutinefunction(scenario) else scenario()
    print("@result " + json.dumps(result), flush=True)
    left = [
        thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    if left:
        print(f"threads are left: {left}", file=sys.stderr)
