"""The one door to the C engine: nothing else imports `ffi` or `lib`, and no cdata leaves this module.

What goes in is bytes and ints, what comes out ints, bytes, text, memoryviews over the engine's two windows and the
records of `records.py`. An `Engine` has no lock: its owner makes sure that one thread at a time is inside
(`Connection._io` does). Events are read in batches by one `struct.iter_unpack`, so a call costs the same however many
messages it moved; only the payload of a received message is copied, once.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from . import records as r

try:
    import _cffi_backend  # type: ignore[import-untyped]  # `_uam` wants it, which those who freeze programs cannot see

    from .._uam import ffi, lib  # type: ignore[import-not-found]  # built from csrc/
except ImportError as error:
    from ..._build import load_error

    raise load_error(error) from error

Buffer = bytes | bytearray | memoryview
if TYPE_CHECKING:
    Lengths = array[int]
else:
    Lengths = array  # takes no parameter before 3.12

EVENT = struct.Struct("=HHIIIIIQQQ")
if EVENT.size != ffi.sizeof("uam_event"):
    raise ImportError(
        f"uam_event has {ffi.sizeof('uam_event')} bytes, {EVENT.size} expected: the extension is not ours"
    )

_EVENT_SIZE = EVENT.size
NEVER = (1 << 64) - 1
"""A deadline that never comes."""
_EVERYTHING = sys.maxsize // 2
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

_CODES = {code: fields for code, fields in FIELDS.values()}


# ---- events to records ----


def _list(code: int, data: bytes) -> dict[str, Any]:
    """The composite `code`, given as its list, as a dict over all its fields; absent ones are None."""
    from .values import decode_exact  # the two modules need each other

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
    from .values import decode_exact

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
    make, delivery, settled = tuple.__new__, r.Delivery, r.Settled  # what the constructor of a NamedTuple does, without its own call
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


# ---- the engine ----


class LinkInfo(NamedTuple):
    """What the engine knows of a link now; the fields of `uam_link_info`."""

    session: int
    state: int
    is_sender: bool
    credit: int
    delivery_count: int
    handle: int
    unsettled: int
    drain: bool
    remote_max_message_size: int
    partial: bool
    remote_snd_settle_mode: int


class ConnInfo(NamedTuple):
    """What the engine knows of the connection now; the fields of `uam_conn_info`. Times in milliseconds."""

    state: int
    remote_max_frame_size: int
    remote_idle_timeout: int
    remote_channel_max: int
    max_frame_size: int
    transport_done: bool


_NOTHING = memoryview(b"")


_abandoned: list[Any] = []  # never freed: see Engine.abandon


class Engine:
    """One AMQP connection without a transport, client or server.

    After each `step`, `in_view` is where the next received bytes belong (write there, give their number as `received`)
    and `deadline` the millisecond at which to step even if nothing arrives (`NEVER` if that does not matter);
    `output()` is what is to be sent (give what was taken as `sent`). Both views are the engine's own memory:
    `in_view` is good until the next step, that of `output()` until the next call of any kind. Never keep them.

    Verbs may be called at any time and in any order that makes sense: each frame is held back until its turn.
    A refused call raises EngineError, a peer's mistake never does: it comes as a PeerError record.
    """

    __slots__ = (
        "_e",
        "_first",
        "fresh",
        "_info",
        "_io",
        "_link_info",
        "_one",
        "_size",
        "deadline",
        "in_view",
        "out_view",
        "presettled",
        "server",
    )

    def __init__(self, server: bool = False) -> None:
        pointer = lib.uam_new(ffi.NULL, lib.UAM_SERVER if server else lib.UAM_CLIENT)
        if pointer == ffi.NULL:
            raise MemoryError("no memory for an AMQP engine")
        self._e = ffi.gc(pointer, lib.uam_free, 1 << 16)
        self._io = ffi.new("uam_io *")
        self._first = ffi.new("uint32_t *")
        self._one = ffi.new("uint32_t[1]")
        self._size = ffi.new("size_t *")
        self._link_info = ffi.new("uam_link_info *")
        self._info = ffi.new("uam_conn_info *")
        self.fresh = False
        self.server = server
        self.in_view = _NOTHING
        self.out_view = _NOTHING
        self.deadline: int = NEVER
        self.presettled = False
        """Deliveries were sent settled, and the driver has not yet said that the kernel has all output."""

    def _check(self, code: int) -> int:
        if code < 0:
            _raise(code, ffi.string(lib.uam_problem(self._e)).decode("utf-8", "replace"))
        return code

    def _do(self, code: int) -> int:
        """The result of a verb: it may have made output."""
        self.fresh = False
        return code if code >= 0 else self._check(code)

    def set(self, option: int, value: int) -> None:
        """Set one of the `OPT_*`."""
        self._check(lib.uam_set(self._e, option, value))

    # bytes

    def step(self, now: int, received: int = 0, sent: int = 0, flushed: int = 0, dry: bool = False) -> list[r.Record]:
        """Take in `received` bytes written to `in_view`, note that `sent` bytes of the output are gone and that the
        kernel has the first `flushed` of all output ever (never less than before), let time be `now` (monotonic
        milliseconds). `dry`: the transport was just read until it would block, so the peer's silence may be judged.
        Gives what happened and renews views and deadline."""
        io = self._io
        io.now = now
        io.received = received
        io.sent = sent
        io.flushed = flushed
        io.dry = dry
        code = lib.uam_step(self._e, io)
        if code < 0:
            self._check(code)
        n = io.n_events
        out = _records(io.base, EVENT.iter_unpack(ffi.buffer(io.events, n * _EVENT_SIZE))) if n else []
        self.in_view = memoryview(ffi.buffer(getattr(io, "in"), io.in_cap)) if io.in_cap else _NOTHING
        n = io.out_len
        self.out_view = memoryview(ffi.buffer(io.out, n)) if n else _NOTHING
        self.fresh = True
        self.deadline = io.deadline
        return out

    def output(self) -> memoryview:
        """All there is to send now."""
        if not self.fresh:
            out = lib.uam_send_window(self._e, self._size)
            n = self._size[0]
            self.out_view = memoryview(ffi.buffer(out, n)) if n else _NOTHING
            self.fresh = True
        return self.out_view

    def has_sent(self, taken: int) -> bool:
        """Whether the first `taken` bytes are known to be all there is to send, without a call to C."""
        return self.fresh and len(self.out_view) == taken

    def commit(self, sent: int, now: int) -> None:
        """Only the sending half of `step`: `sent` bytes of the output are gone. Makes a heartbeat when one is owed."""
        self.fresh = False
        self._check(lib.uam_send_commit(self._e, sent, now))

    @property
    def committed(self) -> int:
        """Bytes of output ever taken."""
        return int(lib.uam_committed(self._e))

    def lost(self) -> None:
        """The transport is gone: every open delivery leaves, at the next `step`, with what is known of it."""
        self._do(lib.uam_lost(self._e))

    # SASL, before the first byte

    def sasl_client(self, mechanism: str, response: bytes | None, hostname: str | None = None) -> None:
        """Use this mechanism; `response` is the initial one, None when the mechanism has none."""
        data = b"" if response is None else response
        host = ffi.NULL if hostname is None else hostname.encode()
        self._do(lib.uam_sasl_client(self._e, mechanism.encode(), data, len(data), response is not None, host))

    def sasl_server(self, names: Iterable[str]) -> None:
        """Offer these mechanisms, best first."""
        self._do(lib.uam_sasl_server(self._e, " ".join(names).encode()))

    def sasl_challenge(self, data: bytes) -> None:
        self._do(lib.uam_sasl_challenge(self._e, data, len(data)))

    def sasl_response(self, data: bytes) -> None:
        self._do(lib.uam_sasl_response(self._e, data, len(data)))

    def sasl_outcome(self, code: int) -> None:
        """0 ok, 1 auth, 2 sys, 3 sys-perm, 4 sys-temp (§5.3.3.6)."""
        self._do(lib.uam_sasl_outcome(self._e, code))

    # connection, session, link; composites are encoded lists, errors described lists or nothing

    def open(self, performative: bytes) -> None:
        self._do(lib.uam_open(self._e, performative, len(performative)))

    def close(self, error: bytes = b"") -> None:
        self._do(lib.uam_close(self._e, error, len(error)))

    def begin(self, performative: bytes, session: int = 0) -> int:
        """A new session, or with `session` the answer to the peer's begin. Gives the session's id."""
        return self._do(lib.uam_begin(self._e, session, performative, len(performative)))

    def end(self, session: int, error: bytes = b"") -> None:
        self._do(lib.uam_end(self._e, session, error, len(error)))

    def attach(self, session: int, performative: bytes, link: int = 0) -> int:
        """A new link, or with `link` the answer to the peer's attach. Gives the link's id."""
        return self._do(lib.uam_attach(self._e, session, link, performative, len(performative)))

    def detach(self, link: int, closed: bool = True, error: bytes = b"") -> None:
        self._do(lib.uam_detach(self._e, link, int(closed), error, len(error)))

    def flow(self, link: int, credit: int, drain: bool = False, echo: bool = False) -> None:
        """Receiver: have `credit` messages sent from now on."""
        self._do(lib.uam_flow(self._e, link, credit, (_DRAIN if drain else 0) | (_ECHO if echo else 0)))

    def drained(self, link: int) -> None:
        """Sender: nothing more to offer, so give back what credit is left (§2.6.7)."""
        self._do(lib.uam_drained(self._e, link))

    # deliveries

    def send_messages(
        self,
        link: int,
        buf: Buffer,
        lens: Lengths | None,
        message_format: int = 0,
        settled: bool = False,
        data: bool = False,
        tagged: bool = False,
    ) -> tuple[int, int]:
        """Offer messages that stand joined in `buf`, their lengths in `lens` (array("I"); None: there is one). `data`: each
        is the content of one data section. `tagged`: the first 16 bytes of each are its delivery-tag. Gives how many were
        taken (credit, room for output) and the delivery-id of the first; the others' follow one apart. Raises SizeError
        when the first is larger than the peer takes."""
        flags = (lib.UAM_SEND_SETTLED if settled else 0) | (lib.UAM_SEND_DATA if data else 0)
        if tagged:
            flags |= lib.UAM_SEND_TAGGED
        self.fresh = False
        if lens is None:
            count, sizes = 1, self._one
            sizes[0] = len(buf)
        else:
            count, sizes = len(lens), ffi.from_buffer("uint32_t[]", lens)
        taken = lib.uam_send_messages(self._e, link, _view(buf), sizes, count, message_format, flags, self._first)
        if taken < 0:
            self._check(taken)
        if settled and taken:
            self.presettled = True
        return taken, self._first[0]

    def settle(self, link: int, first: int, last: int, settled: bool = True, state: bytes = b"") -> None:
        """Disposition (§2.7.6) of deliveries first..last of this link, of either role; `state` is a described value."""
        self._do(lib.uam_settle(self._e, link, first, last, int(settled), state, len(state)))

    # what is

    def link(self, link: int) -> LinkInfo:
        """Raises StateError for a link that is no more."""
        i = self._link_info
        self._check(lib.uam_get_link(self._e, link, i))
        return LinkInfo(
            i.session,
            i.state,
            i.is_sender,
            i.credit,
            i.delivery_count,
            i.handle,
            i.unsettled,
            bool(i.drain),
            i.remote_max_message_size,
            bool(i.partial),
            i.remote_snd_settle_mode,
        )

    def conn(self) -> ConnInfo:
        i = self._info
        self._check(lib.uam_get_conn(self._e, i))
        return ConnInfo(
            i.state,
            i.remote_max_frame_size,
            i.remote_idle_timeout,
            i.remote_channel_max,
            i.max_frame_size,
            bool(i.transport_done),
        )

    def trace(self) -> str:
        """The frames since the last call, one line each; needs OPT_TRACE."""
        text = lib.uam_trace(self._e, self._size)
        return ffi.unpack(text, self._size[0]).decode("utf-8", "replace") if self._size[0] else ""

    # end

    def free(self) -> None:
        """Give the memory back now. Verbs called after it raise StateError, as on any connection that is no more."""
        self._replace(release=True)

    def abandon(self) -> None:
        """Forget the engine without touching it: in a forked child another thread may have been inside."""
        self._replace(release=False)

    def _replace(self, release: bool) -> None:
        old = self._e
        ended = lib.uam_new(ffi.NULL, lib.UAM_CLIENT)
        if ended == ffi.NULL:
            raise MemoryError("no memory for an AMQP engine")
        lib.uam_lost(ended)
        self.in_view = self.out_view = _NOTHING
        self.fresh = False
        self.deadline = NEVER
        self._e = ffi.gc(ended, lib.uam_free)
        if release:
            ffi.release(old)
        else:
            _abandoned.append(old)
