"""What the asyncio classes share."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from ..utils import get_running_loop

_PACKAGE = __name__.partition(".")[0]

__all__ = ["get_dict_with_loop_if_needed", "get_running_loop"]


def get_dict_with_loop_if_needed(loop: asyncio.AbstractEventLoop | None) -> dict[str, asyncio.AbstractEventLoop]:
    """Always empty: asyncio takes no `loop` arguments. Raises ValueError when one is given."""
    if loop is not None:
        raise ValueError("no loop can be given: the classes use the event loop that runs when they are first awaited")
    return {}


def would_block(owner: Any) -> RuntimeError:
    """The error for a blocking method of an asyncio class: the outermost one of those on the stack that are of this
    package."""
    frame = sys._getframe(1)
    while (caller := frame.f_back) is not None and str(caller.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
        frame = caller
    name = {"__enter__": "open", "__exit__": "close"}.get(frame.f_code.co_name, frame.f_code.co_name)
    kind = type(frame.f_locals.get("self", owner)).__name__
    return RuntimeError(f"{kind}.{name}() would block the event loop: await {name}_async() instead")
