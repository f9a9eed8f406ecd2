"""What the asyncio classes share."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from ..utils import get_running_loop

__all__ = ["get_dict_with_loop_if_needed", "get_running_loop"]


def get_dict_with_loop_if_needed(loop: asyncio.AbstractEventLoop | None) -> dict[str, asyncio.AbstractEventLoop]:
    """Always empty: asyncio takes no `loop` arguments. Raises ValueError when one is given."""
    if loop is not None:
        raise ValueError("no loop can be given: the classes use the event loop that runs when they are first awaited")
    return {}


def would_block(owner: Any) -> RuntimeError:
    """The error for a blocking method of an asyncio class; its name is that of the caller's caller."""
    name = sys._getframe(2).f_code.co_name
    return RuntimeError(f"{type(owner).__name__}.{name}() would block the event loop: await {name}_async() instead")
