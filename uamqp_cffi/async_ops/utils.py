"""What the asyncio classes share."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable
from typing import Any, TypeVar

from ..utils import get_running_loop

_T = TypeVar("_T")
_PACKAGE = __name__.partition(".")[0]

__all__ = ["get_dict_with_loop_if_needed", "get_running_loop"]


def get_dict_with_loop_if_needed(loop: asyncio.AbstractEventLoop | None) -> dict[str, asyncio.AbstractEventLoop]:
    """Always empty: asyncio takes no `loop` arguments. Raises ValueError when one is given."""
    if loop is not None:
        raise ValueError("no loop can be given: the classes use the event loop that runs when they are first awaited")
    return {}


async def afterwards(work: Awaitable[_T]) -> _T:
    """For a task made under one of our locks: it begins when they are free, also where tasks are eager and begin at once."""
    try:
        await asyncio.sleep(0)
    except BaseException:
        if inspect.iscoroutine(work):
            work.close()  # it has not begun
        raise
    return await work


def running_loop(owner: Any) -> asyncio.AbstractEventLoop:
    """The loop that runs in this thread. Raises RuntimeError when there is none, with what to do about it."""
    loop = asyncio._get_running_loop()
    if loop is not None:
        return loop
    kind = type(owner).__name__
    trio = sys.modules.get("trio")
    if trio is not None and getattr(trio.lowlevel, "in_trio_run", bool)():
        raise RuntimeError(
            f"{kind} needs asyncio, and here runs trio: call the methods of {kind.removesuffix('Async')} by"
            " trio.to_thread.run_sync(), or run this under trio_asyncio"
        )
    mine = _loop_of(owner)
    where = (
        ""
        if mine is None
        else f"; its own, {mine!r}, runs in another one: asyncio.run_coroutine_threadsafe() takes work there"
    )
    raise RuntimeError(f"{kind} needs a running asyncio event loop, and none runs in this thread{where}")


def _loop_of(owner: Any) -> asyncio.AbstractEventLoop | None:
    loop: asyncio.AbstractEventLoop | None = getattr(owner, "_loop", None)
    return getattr(getattr(owner, "_connection", None), "_loop", None) if loop is None else loop


def would_block(owner: Any) -> RuntimeError:
    """The error for a blocking method of an asyncio class: the outermost one of those on the stack that are of this
    package. In another thread than the loop's it names the loop."""
    frame = sys._getframe(1)
    while (caller := frame.f_back) is not None and str(caller.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
        frame = caller
    name = {"__enter__": "open", "__exit__": "close"}.get(frame.f_code.co_name, frame.f_code.co_name)
    kind = type(frame.f_locals.get("self", owner)).__name__
    loop = _loop_of(owner)
    if loop is not None and asyncio._get_running_loop() is None and loop.is_running():
        return RuntimeError(
            f"{kind}.{name}() is not for another thread than that of the event loop, {loop!r}:"
            f" what awaits {name}_async() gets there by asyncio.run_coroutine_threadsafe(..., loop)"
        )
    how = "async for over {}_async()" if name.endswith("_iter") else "await {}_async() instead"
    return RuntimeError(f"{kind}.{name}() would block the event loop: {how.format(name)}")
