"""AMQP types that Python has no type for."""

from __future__ import annotations

from typing import Any, NamedTuple

MAX_DEPTH = 32  # UAM_MAX_DEPTH of csrc/limits.h: what decoders of ours take, so what we may send


class Native:
    """A value that knows its AMQP type: what `c_uamqp`'s makers give. `encoded()` is the value with its constructor."""

    __slots__ = ()

    def encoded(self, depth: int = 0) -> bytes:
        raise NotImplementedError


class Symbol(str):
    """A symbol (§1.6.21) as `decode_exact` gives it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Symbol({str.__repr__(self)})"


class Described(NamedTuple):
    """A described value (§1.2) as `decode_exact` gives it."""

    descriptor: Any
    value: Any


def enter(depth: int) -> int:
    """The depth one container further down; ValueError past the deepest that a decoder takes."""
    if depth >= MAX_DEPTH:
        raise ValueError(f"the value is nested deeper than {MAX_DEPTH} levels, or contains itself")
    return depth + 1
