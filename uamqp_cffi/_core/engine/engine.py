"""One AMQP connection without a transport. No cdata leaves this package.

What goes in is bytes and ints, what comes out ints, bytes, text, memoryviews over the engine's two windows and the
records of `records.py`. An `Engine` has no lock: its owner makes sure that one thread at a time is inside
(`Connection._io` does). Events are read in batches by one `struct.iter_unpack`, so a call costs the same however many
messages it moved; only the payload of a received message is copied, once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from . import records as r
from .events import _EVENT_SIZE, EVENT, _records
from .lib import _DRAIN, _ECHO, NEVER, Buffer, _raise, _view, ffi, lib

if TYPE_CHECKING:
    Lengths = array[int]
else:
    Lengths = array  # takes no parameter before 3.12


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
        "_info",
        "_io",
        "_link_info",
        "_one",
        "_size",
        "deadline",
        "fresh",
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
