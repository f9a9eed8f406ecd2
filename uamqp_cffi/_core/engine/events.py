"""From the engine's events to records."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from typing import Any

from . import records as r
from .decode import decode_exact
from .lib import (
    _ADDRESS,
    _CLOSED,
    _DRAIN,
    _EV_CREDIT,
    _EV_MESSAGE,
    _EV_SETTLED,
    _NOT_OFFERED,
    _REPLY,
    _SENDER,
    _SETTLED,
    FIELDS,
    BrokenError,
    ffi,
    lib,
)

EVENT = struct.Struct("=HHIIIIIQQQ")
if EVENT.size != ffi.sizeof("uam_event"):
    raise ImportError(
        f"uam_event has {ffi.sizeof('uam_event')} bytes, {EVENT.size} expected: the extension is not ours"
    )

_EVENT_SIZE = EVENT.size
_EVERYTHING = sys.maxsize // 2

_CODES = dict(FIELDS.values())


# ---- events to records ----


def _list(code: int, data: bytes) -> dict[str, Any]:
    """The composite `code`, given as its list, as a dict over all its fields; absent ones are None."""
    names = _CODES[code]
    values = decode_exact(data) if data else []
    return dict.fromkeys(names) | dict(zip(names, values, strict=False))


def _bytes(value: Any) -> bytes | None:
    """Text of the peer's, which is not always the UTF-8 it should be; None for what is no text."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) else None


def decode_error(data: bytes) -> r.Error | None:
    """An encoded `error` (§2.8.14) as a record; None for no bytes. What has another shape is an error all the same,
    one without words."""
    if not data:
        return None
    described = decode_exact(data)
    fields = getattr(described, "value", described)
    if described is None or not isinstance(fields, list):
        fields = []
    condition, description, info = (fields + [None] * 3)[:3]
    return r.Error(_bytes(condition) or b"", _bytes(description), info if isinstance(info, dict) else None)


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]


def _decode(kind: int, flags: int, id: int, first: int, last: int, code: int, span: bytes) -> r.Record:
    """The record of an event that is not of the hot kinds."""
    if kind == lib.UAM_EVENT_CONN_STATE:
        return r.ConnState(first, last)
    if kind == lib.UAM_EVENT_SESSION_STATE:
        return r.SessionState(id, first, last)
    if kind == lib.UAM_EVENT_LINK_STATE:
        return r.LinkState(id, first, last)
    if kind == lib.UAM_EVENT_OPEN:
        return r.Open(_list(0x10, span))
    if kind == lib.UAM_EVENT_BEGIN:
        return r.Begin(id, bool(flags & _REPLY), _list(0x11, span))
    if kind == lib.UAM_EVENT_ATTACH:
        return r.Attach(id, first, bool(flags & _REPLY), bool(flags & _SENDER), _list(0x12, span))
    if kind == lib.UAM_EVENT_DETACH:
        return r.Detach(id, bool(flags & _CLOSED), decode_error(span))
    if kind == lib.UAM_EVENT_END:
        return r.End(id, decode_error(span))
    if kind == lib.UAM_EVENT_CLOSE:
        return r.Close(decode_error(span))
    if kind == lib.UAM_EVENT_SASL_MECHANISMS:
        return r.SaslMechanisms(_names(_list(0x40, span)["sasl_server_mechanisms"]), not flags & _NOT_OFFERED)
    if kind == lib.UAM_EVENT_SASL_INIT:
        init = _list(0x41, span)
        return r.SaslInit(str(init["mechanism"]), init["initial_response"], init["hostname"])
    if kind == lib.UAM_EVENT_SASL_CHALLENGE:
        return r.SaslChallenge(_list(0x42, span)["challenge"])
    if kind == lib.UAM_EVENT_SASL_RESPONSE:
        return r.SaslResponse(_list(0x43, span)["response"])
    if kind == lib.UAM_EVENT_SASL_OUTCOME:
        return r.SaslOutcome(code)
    if kind == lib.UAM_EVENT_PEER_ERROR:
        return r.PeerError(code, id, decode_error(span))
    if kind == lib.UAM_EVENT_LATE:
        return r.Late(first, ffi.string(lib.uam_composite_name(code)).decode())
    if kind == lib.UAM_EVENT_LOST:
        return r.Lost()
    raise BrokenError(lib.UAM_ERR_BROKEN, f"event {kind} is unknown")


def _copy(address: int, length: int) -> bytes:
    """The bytes there."""
    return ffi.buffer(ffi.cast("uint8_t *", address), length)[:] if length else b""


def _records(base: Any, events: Iterable[tuple[int, ...]]) -> list[r.Record]:
    window = ffi.buffer(base, _EVERYTHING) if base != ffi.NULL else b""
    out: list[r.Record] = []
    add = out.append
    shared, shared_at = b"", 0  # the events of one disposition share the bytes of its state; so do their records
    # what the constructor of a NamedTuple does, without its own call
    make, delivery, settled = tuple.__new__, r.Delivery, r.Settled
    for kind, flags, id, first, last, code, tag_length, offset, length, tag_offset in events:
        if kind == _EV_MESSAGE:
            if flags & _ADDRESS:
                span, tag = _copy(offset, length), _copy(tag_offset, tag_length)
            else:
                span, tag = window[offset : offset + length], window[tag_offset : tag_offset + tag_length]
            add(make(delivery, (id, first, tag, last, flags & _SETTLED != 0, span)))
            continue
        if not length:
            span = b""
        elif flags & _ADDRESS:
            if offset == shared_at and length == len(shared):
                span = shared
            else:
                span = shared = _copy(offset, length)
                shared_at = offset
        else:
            span = window[offset : offset + length]
        if kind == _EV_SETTLED:
            add(make(settled, (id, first, last, code, flags & _SETTLED != 0, span)))
        elif kind == _EV_CREDIT:
            add(r.Credit(id, first, bool(flags & _DRAIN), last))
        else:
            add(_decode(kind, flags, id, first, last, code, span))
    return out
