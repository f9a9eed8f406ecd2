"""The command `decode`."""

from __future__ import annotations

import argparse
import sys

from .run import NOT_ALL, OK
from .text import say


def _decode(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if args.hex == ["-"] and sys.stdin is None:
        parser.error("there is no standard input")
    try:
        data = unhex(sys.stdin.read() if args.hex == ["-"] else " ".join(args.hex))
    except ValueError as exc:
        say(f"error: {exc}")
        return NOT_ALL
    if not data:
        parser.error("nothing to decode")
    from .._core.engine.lib import dump

    view, at, bad = memoryview(data), 0, []
    while at < len(data):
        line, used = dump(view[at:], args.payload)
        if not used:
            bad.append(at)
            break
        print(line)
        if line.startswith("raw "):
            bad.append(at)
        at += used
    sys.stdout.flush()
    if not bad:
        return OK
    what = "malformed frame" if at == len(data) or bad[0] != at else "the input ends inside a frame, which begins"
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    say(f"error: {what} at offset {bad[0]} of {len(data)}{more}")
    return NOT_ALL


def unhex(text: str) -> bytes:
    """Hexadecimal digits, with blanks anywhere and an optional 0x, as bytes. Raises ValueError that names the offset.

    >>> unhex("0x41 4d5 1")
    b'AMQ'
    >>> unhex("41 4g")
    Traceback (most recent call last):
    ValueError: 'g' at offset 4 is no hexadecimal digit
    """
    start = len(text) - len(text.lstrip())
    start += 2 if text[start : start + 2].lower() == "0x" else 0
    digits = "".join(text[start:].split())
    try:
        return bytes.fromhex(digits)
    except ValueError:
        for at, c in enumerate(text[start:], start):
            if not c.isspace() and c not in "0123456789abcdefABCDEF":
                raise ValueError(f"{c!r} at offset {at} is no hexadecimal digit") from None
        raise ValueError(f"the last byte has one digit only ({len(digits)} digits)") from None
