"""What the command prints, and how its work ends early."""

from __future__ import annotations

import os
import sys
from typing import Any


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived while a step was running that looks at `_Signals.number` afterwards."""


class GaveUp(Exception):
    """Not the connection's fault: no outcome for too long, or a line that is no message."""


# ---- text ----


def say(text: str) -> None:
    """One line on standard error. When nobody reads there any more, or it is full, that is no reason to stop sending."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        to_nowhere(sys.stderr)


def to_nowhere(stream: Any) -> None:
    """Python flushes its streams at exit: give this one, whose reader has left, a place to go."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def printable(text: object) -> str:
    """`text` with everything a terminal could obey or that breaks the line made visible."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _ms(seconds: float) -> str:
    ms = seconds * 1000
    return f"{ms:.2f} ms" if ms < 10 else f"{ms:.1f} ms" if ms < 100 else f"{ms:,.0f} ms"
