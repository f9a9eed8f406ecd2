"""The one door to the C engine: `ffi` and `lib` come from here, for `engine.py` and `events.py`, and for nothing else.

Besides them: numbers under their names in uam.h, the errors of calls, and the codec, for which no engine is needed.
"""

from __future__ import annotations

import sys
from typing import Any

try:
    import _cffi_backend  # type: ignore[import-untyped]  # `_uam` wants it, which those who freeze programs cannot see

    from .._uam import ffi as ffi  # type: ignore[import-not-found]  # built from csrc/
    from .._uam import lib as lib
except ImportError as error:
    from .load_error import load_error

    raise load_error(error) from error

Buffer = bytes | bytearray | memoryview
NEVER = (1 << 64) - 1
"""A deadline that never comes."""
_TAPE_WORDS = 512

# For build_info(). On PyPy the backend of cffi is always the built-in one.
COMPILER: str = ffi.string(lib.UAM_COMPILER).decode()
LIMITED_API: int = lib.UAM_LIMITED_API
CFFI_VERSION: str = _cffi_backend.__version__
EXTENSION: str = sys.modules[f"{__name__.rsplit('.', 2)[0]}._uam"].__file__ or ""

# Options, outcomes and scopes under their names in uam.h, so that nobody retypes a number.
OPT_PIPELINE: int = lib.UAM_OPT_PIPELINE
OPT_HEARTBEAT: int = lib.UAM_OPT_HEARTBEAT
OPT_TRACE: int = lib.UAM_OPT_TRACE
OPT_MAX_MESSAGE: int = lib.UAM_OPT_MAX_MESSAGE
OPT_OUTPUT_CAP: int = lib.UAM_OPT_OUTPUT_CAP
OPT_SASL_REQUIRED: int = lib.UAM_OPT_SASL_REQUIRED
OPT_EXPLICIT: int = lib.UAM_OPT_EXPLICIT

OUT_NONE: int = lib.UAM_OUT_NONE
OUT_SENT: int = lib.UAM_OUT_SENT
OUT_NOT_DELIVERED: int = lib.UAM_OUT_NOT_DELIVERED
OUT_UNKNOWN: int = lib.UAM_OUT_UNKNOWN
OUT_RECEIVED: int = lib.UAM_OUT_RECEIVED
OUT_ACCEPTED: int = lib.UAM_OUT_ACCEPTED
OUT_REJECTED: int = lib.UAM_OUT_REJECTED
OUT_RELEASED: int = lib.UAM_OUT_RELEASED
OUT_MODIFIED: int = lib.UAM_OUT_MODIFIED
OUT_OTHER: int = lib.UAM_OUT_OTHER

SCOPE_CONNECTION: int = lib.UAM_SCOPE_CONNECTION
SCOPE_SESSION: int = lib.UAM_SCOPE_SESSION
SCOPE_LINK: int = lib.UAM_SCOPE_LINK

_ADDRESS: int = lib.UAM_FLAG_ADDRESS
_SETTLED: int = lib.UAM_FLAG_SETTLED
_REPLY: int = lib.UAM_FLAG_REPLY
_CLOSED: int = lib.UAM_FLAG_CLOSED
_DRAIN: int = lib.UAM_FLAG_DRAIN
_NOT_OFFERED: int = lib.UAM_FLAG_NOT_OFFERED
_SENDER: int = lib.UAM_FLAG_SENDER
_ECHO: int = lib.UAM_FLAG_ECHO
_EV_MESSAGE: int = lib.UAM_EVENT_MESSAGE
_EV_SETTLED: int = lib.UAM_EVENT_SETTLED
_EV_CREDIT: int = lib.UAM_EVENT_CREDIT


class EngineError(Exception):
    """A call the engine refused. `code` is its `UAM_ERR_*`, `problem` the sentence it gave (may be empty)."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(problem or f"engine error {code}")
        self.code = code
        self.problem = problem


class StateError(EngineError):
    """Not now: a stale id, not attached, already closed. Nothing was changed."""


class LimitError(EngineError):
    """Channels, handles or a bound of limits.h are used up. Nothing was changed."""


class SizeError(EngineError):
    """The message is larger than the peer's max-message-size. Nothing was changed."""


class DecodeError(EngineError, ValueError):
    """Malformed or truncated AMQP."""


class BrokenError(EngineError):
    """An invariant of the engine does not hold; it is dead."""


_ERRORS: dict[int, type[EngineError]] = {
    lib.UAM_ERR_STATE: StateError,
    lib.UAM_ERR_LIMIT: LimitError,
    lib.UAM_ERR_SIZE: SizeError,
    lib.UAM_ERR_DECODE: DecodeError,
    lib.UAM_ERR_BROKEN: BrokenError,
}


def _raise(code: int, problem: str) -> None:
    if code == lib.UAM_ERR_NOMEM:
        raise MemoryError("the engine is out of memory")
    raise _ERRORS.get(code, EngineError)(code, problem)


def _view(data: Buffer) -> Any:
    """`data` as C may read it: bytes go as they are, other buffers by their address."""
    return data if type(data) is bytes else ffi.from_buffer("uint8_t[]", data)


# ---- the collector ----


def track(objects: list[Any], tracked: bool) -> bool:
    """Have CPython's cyclic collector look at these objects, or not. CPython itself leaves out tuples that can be in no
    cycle; this does the same for objects of ours that can be in none for the time being. All must be of classes written in
    Python. False where there is no such collector (PyPy, free-threaded builds): then nothing was done."""
    return bool(lib.uam_collector_track(id(objects), tracked))


# ---- codec: no engine needed ----

_tapes: list[Any] = []  # rooms for small tapes; list.pop and append are atomic, so threads share it


def tape(buf: Buffer) -> list[int]:
    """The encoded value or values in `buf` as the flat words that csrc/tape.c describes. Raises DecodeError."""
    data = _view(buf)
    try:
        room = _tapes.pop()
    except IndexError:
        room = ffi.new("uint64_t[]", _TAPE_WORDS)
    n = lib.uam_tape(data, len(buf), room, _TAPE_WORDS)
    if n <= _TAPE_WORDS:
        words: list[int] = ffi.unpack(room, n) if n > 0 else []
        _tapes.append(room)
        if n < 0:
            _raise(n, "malformed AMQP value")
        return words
    _tapes.append(room)
    room = ffi.new("uint64_t[]", n)
    lib.uam_tape(data, len(buf), room, n)
    return memoryview(ffi.buffer(room)).cast("Q").tolist()


def sections(buf: Buffer) -> list[tuple[int, int, int, int]]:
    """The sections of an encoded message: (descriptor code, offset of the value, its length, offset of the section).
    Raises DecodeError."""
    data = _view(buf)
    try:
        room = _tapes.pop()
    except IndexError:
        room = ffi.new("uint64_t[]", _TAPE_WORDS)
    n = lib.uam_sections(data, len(buf), room, _TAPE_WORDS)
    if n <= _TAPE_WORDS:
        found: list[int] = ffi.unpack(room, n) if n > 0 else []
        _tapes.append(room)
        if n < 0:
            _raise(n, "malformed message sections")
    else:
        _tapes.append(room)
        room = ffi.new("uint64_t[]", n)
        lib.uam_sections(data, len(buf), room, n)
        found = ffi.unpack(room, n)
    words = iter(found)
    return list(zip(words, words, words, words, strict=True))


check_message = lib.uam_message_check
"""`check_message(payload, len(payload))` is not 0 for bytes that cannot be read as a message."""


def readable(buf: Buffer) -> bool:
    """Whether an encoded message can be read: see `uam_message_check`."""
    return bool(lib.uam_message_check(_view(buf), len(buf)) == 0)


def dump(frame: Buffer, secrets: bool = False) -> tuple[str, int]:
    """The frame or protocol header at the start of `frame` as a line of text, and the bytes it takes. `secrets` puts
    payloads and SASL data in. Raises DecodeError."""
    used = ffi.new("size_t *")
    cap = 1024
    while True:
        room = ffi.new("char[]", cap)
        n = lib.uam_dump(_view(frame), len(frame), int(secrets), room, cap, used)
        if n < 0:
            _raise(n, "not a whole AMQP frame")
        if n <= cap:
            return ffi.unpack(room, n).decode("utf-8", "replace"), used[0]
        cap = n


def undump(text: str) -> bytes:
    """The bytes of one line in the notation of `dump`. Raises EngineError when it cannot be read."""
    data = text.encode()
    cap = 1024
    while True:
        room = ffi.new("uint8_t[]", cap)
        n = lib.uam_undump(data, len(data), room, cap)
        if n < 0:
            _raise(n, f"not in trace notation: {text[:80]!r}")
        if n <= cap:
            return bytes(ffi.buffer(room, n))
        cap = n


def _name(pointer: Any) -> str:
    return str(ffi.string(pointer).decode()).replace("-", "_")


def _read_fields() -> dict[str, tuple[int, tuple[str, ...]]]:
    table: dict[str, tuple[int, tuple[str, ...]]] = {}
    for code in (*range(0x10, 0x19), 0x1D, *range(0x23, 0x2A), 0x2B, *range(0x40, 0x45), 0x70, 0x73):
        name = lib.uam_composite_name(code)
        if name == ffi.NULL:
            continue
        fields: list[str] = []
        while (field := lib.uam_field_name(code, len(fields))) != ffi.NULL:
            fields.append(_name(field))
        table[_name(name)] = (code, tuple(fields))
    return table


FIELDS: dict[str, tuple[int, tuple[str, ...]]] = _read_fields()
"""Performatives and sections by name: descriptor code and the names of their fields, underscores in all of them."""
