"""Greenlets that stand for threads (gevent, eventlet): the blocking classes work in them when the whole of sockets, `select` and
threads was replaced before this package was imported. What is replaced later, or in part, blocks all greenlets or lets two of
them into what one has locked, so it is told before anything is done."""

from __future__ import annotations

import select
import socket
import threading
from typing import Any

_CURE = {
    "gevent": "gevent.monkey.patch_all()",
    "eventlet": "eventlet.monkey_patch()",
}


def _replaced() -> dict[str, str]:
    """By whom each is replaced; "" for the standard library's own (and for tools that replace it for other ends)."""
    found: dict[str, Any] = {"socket": socket.socket, "select": select.select, "thread": threading.Lock}
    names = {part: str(thing.__module__).partition(".")[0] for part, thing in found.items()}
    return {part: name if name in _CURE else "" for part, name in names.items()}


_at_first = _replaced()


def check() -> None:
    """Raises RuntimeError when greenlets cannot stand for threads as things are."""
    now = _replaced()
    by = set(now.values())
    if len(by) == 1 and now == _at_first:
        return
    tool = max(by | set(_at_first.values()))
    cure = _CURE[tool]
    if now != _at_first:
        raise RuntimeError(
            f"{cure} was called after uamqp_cffi was imported, which has locks and sockets of before: call it first, before"
            " any other import"
        )
    missing = " and ".join(sorted(part for part, name in now.items() if name != tool))
    raise RuntimeError(
        f"{tool} has replaced the standard library without {missing}: call {cure} without arguments, or not at all"
    )
