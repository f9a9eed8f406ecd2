"""The connection: socket, wire and engine of one peer, and who may touch them when.

Sessions, links and clients call the engine's verbs under `_io` and then `_flush()`; what the peer says comes back as
records in the inboxes they registered. One thread at a time leads: it waits for the socket, takes in, hands out
records. The others wait on events of their own, and the lead is handed over when its holder is done. `_io` covers the
two critical sections (receive and send) and nothing else: not `poll`, not user code.

A critical section marks itself in `_inside`. Whoever finds the mark knows that an interrupt (Ctrl-C) tore a section
apart, and fails the connection instead of going on with half of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from threading import get_ident
from typing import Any, SupportsIndex, TypeVar

from . import errors
from ._arguments import is_auth, is_context, is_policy, not_pickled
from ._core import time
from ._core.engine import engine as _engine
from ._core.engine import lib, records, values
from ._core.transport import heartbeat
from ._core.transport.dial import LOOK_FOR_LIFE, Address, Dialer, silence_error
from ._core.transport.filters.base import Filter, HttpRefused
from ._core.transport.filters.tls import Tls, TransportError
from ._core.transport.poll import READ, WRITE, Poller
from ._core.transport.wire import Wire, clock
from ._core.waiting import greens, plan
from ._core.waiting.interrupts import openly
from ._core.waiting.keepalive import Keeper
from ._core.waiting.locks import Lock, Roster, Signal
from ._core.waiting.plan import Call, Inbox, Plan, refuse_coroutine
from ._native.enums import ConnectionState
from ._native.values import AMQPValue
from .authentication.common import AMQPAuth
from .constants import ErrorCodes, TransportType

_T = TypeVar("_T")
_logger = logging.getLogger("uamqp.connection")
_trace_logger = logging.getLogger("uamqp.c_uamqp")

PACE = (0.0, 0.0, 0.001, 0.002, 0.005, 0.010, 0.020, 0.050)
"""Seconds that consecutive idle steps wait on the socket; the last one goes on."""
CLOSE_TIMEOUT = 4.0
"""Seconds that `close()` waits for the peer's answer: with room for the scheduler, it is done within 5."""
CONNECT_TIMEOUT = 30.0
MAX_FRAME_SIZE = 1 << 20  # UAM_MAX_FRAME: the most we announce
MIN_FRAME_SIZE = 512  # UAM_MIN_MAX_FRAME: nobody may announce less
QUICK = 50e-6
"""Seconds for which a blocking call may look again for a reply instead of sleeping."""
LOOK_EVERY = 500e-6
"""Seconds for which a step that has sent something need not look for replies again: they are taken in together."""
LOOK_SELDOM = 5e-3
"""The same for messages that are settled one by one: looking more often would cost more than a hundredth of that."""
_LONG = 3600.0
_LEFTOVERS = 64  # reads of bytes that nobody wants any more, before a socket is closed over them
_ENDED = ConnectionState.END.value

_LINK_RECORDS = frozenset(
    {records.Settled, records.Credit, records.Delivery, records.LinkState, records.Attach, records.Detach}
)
_SESSION_RECORDS = frozenset({records.SessionState, records.Begin, records.End})

_everybody: Roster[Connection] = Roster()


def _as_bytes(value: str | bytes, encoding: str) -> bytes:
    return value.encode(encoding) if isinstance(value, str) else value


def _bounded(name: str, value: int | None, low: int, high: int | None) -> int | None:
    if value is None:
        return None
    if value < low or (high is not None and value > high):
        raise ValueError(
            f"{name} must be at least {low}{'' if high is None else f' and at most {high}'}, not {value!r}"
        )
    return int(value)


class Connection:
    """An AMQP connection. Making one does no I/O; the first step connects.

    hostname: what OPEN names as host, str or bytes. sasl: an auth object, which also says where to connect to.
    container_id: a random one if not given. max_frame_size (bytes; at most 1 MiB is announced), channel_max,
    idle_timeout (ms) and properties (dict) go out in OPEN. remote_idle_timeout_empty_frame_send_ratio: share of the
    peer's idle time-out after which an empty frame goes out, 0 < r <= 1. debug: a line per frame to the logger
    `uamqp.c_uamqp` at INFO. use_tls, ssl_context: for auth objects that do not say. connect_timeout: seconds from the
    first step until the link is attached (until the peer's OPEN if nobody attaches); None or 0: no limit. Raises
    ValueError for a number that has no room in its field.
    """

    def __init__(
        self,
        hostname: str | bytes,
        sasl: AMQPAuth,
        container_id: str | bytes | bool = False,
        max_frame_size: int | None = None,
        channel_max: int | None = None,
        idle_timeout: int | None = None,
        properties: dict[Any, Any] | None = None,
        remote_idle_timeout_empty_frame_send_ratio: float | None = None,
        error_policy: errors.ErrorPolicy | None = None,
        debug: bool = False,
        encoding: str = "UTF-8",
        *,
        use_tls: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
    ) -> None:
        greens.check()
        is_auth(sasl)
        is_policy(error_policy)
        is_context(ssl_context)
        ratio = remote_idle_timeout_empty_frame_send_ratio
        if ratio is not None and not 0 < ratio <= 1:
            raise ValueError(f"remote_idle_timeout_empty_frame_send_ratio must be above 0 and at most 1, not {ratio!r}")
        self._encoding = encoding
        chosen = str(uuid.uuid4()) if not container_id or container_id is True else container_id
        self.container_id: bytes = _as_bytes(chosen, encoding)
        self.error_policy: errors.ErrorPolicy = error_policy or errors.ErrorPolicy()
        self._debug = debug
        self._ratio = ratio
        self._use_tls = use_tls
        self._ssl_context = ssl_context
        self._connect_timeout = connect_timeout
        self._settings: dict[str, Any] = {}
        self.max_frame_size = max_frame_size
        self.channel_max = channel_max
        self.idle_timeout = idle_timeout
        self.properties = properties
        self._sessions: list[Any] = []
        self._advisory = threading.Lock()
        self._io = Lock()
        self._turns = Lock()
        self._keeper: Keeper | None = None  # once a client wants to be kept alive
        self._leader = 0
        self._followers: list[Signal] = []
        self._destroyed = False  # for good: no redirect brings it back
        self._reset(hostname, sasl)
        _everybody.add(self)

    def _reset(self, hostname: str | bytes, auth: AMQPAuth) -> None:
        """A connection that nothing was done with yet."""
        if auth.consumed:
            raise ValueError("this auth object serves another connection already; make one for each")
        auth.consumed = True
        self.hostname: bytes = _as_bytes(hostname, self._encoding)
        self.auth = auth
        self._cbs: Any = None  # the token exchange, when there is one
        self._engine = _engine.Engine()
        if self._ratio is not None:
            self._engine.set(lib.OPT_HEARTBEAT, max(1, round(self._ratio * 1000)))
        if self._debug:
            self._engine.set(lib.OPT_TRACE, 1)
        self._started = False
        self._closed = False
        self._done = False  # the transport is gone, whoever closed it
        self._opened = False
        self._remote: dict[str, Any] = {}
        self._failure: Exception | None = None
        self._why: Exception | None = None  # what the end that is coming will be called
        self._ending = False
        self._conn_state: int = ConnectionState.UNKNOWN.value
        # transport
        self._poller = Poller()
        self._dialer: Dialer | None = None
        self._sock: socket.socket | None = None
        self._wire: Wire | None = None
        self._tls: bool | None = None
        self._port = 0  # of the peer, proxy or not
        self._blocked = False  # the kernel would not take all output
        self._life_at = 0  # when to look next whether the peer's kernel still answers, by the engine's clock
        self._broken: OSError | None = None  # sending failed; there may be something left to read
        self._connect_deadline: float | None = None
        self._attach_expected = False
        self._asked = False  # for a session or link since the last flush
        # inboxes
        self._links: dict[int, Inbox] = {}
        self._link_sessions: dict[int, int] = {}
        self._session_inboxes: dict[int, Inbox] = {}
        self._node_names: set[bytes] = set()  # in the names of pairs of management links
        self._leaving: set[int] = set()  # sessions whose END the peer has not answered
        self._room_wanted: list[Inbox] = []
        # threads
        self._inside = 0
        self._leading: Inbox | None = None
        # pace
        self._idle = 0
        self._closing: Inbox | None = None
        self._close_later = False
        self._quick = 0
        self._flushed_at = 0.0
        self._looked_at = 0.0
        self._more = False  # the last read filled the window: there may be more to be had
        self._log: list[tuple[logging.Logger, int, str, tuple[Any, ...]]] = []  # to be written outside of every lock

    # ---- uamqp's members ------------------------------------------------------------------------------------------

    @property
    def max_frame_size(self) -> int:
        """Bytes, as given; 4294967295 when not. At most 1 MiB is announced. Settable before the first step; ValueError
        below 512 (§2.4.1)."""
        return self._settings["max_frame_size"] or 0xFFFFFFFF

    @max_frame_size.setter
    def max_frame_size(self, value: int | None) -> None:
        self._settings["max_frame_size"] = _bounded("max_frame_size", value or None, MIN_FRAME_SIZE, None)

    @property
    def channel_max(self) -> int:
        """The largest channel number; 65535 when not given."""
        value = self._settings["channel_max"]
        return 0xFFFF if value is None else value

    @channel_max.setter
    def channel_max(self, value: int | None) -> None:
        self._settings["channel_max"] = _bounded("channel_max", value, 0, 0xFFFF)

    @property
    def idle_timeout(self) -> int | None:
        """Milliseconds of the peer's silence after which the connection is closed; None: never."""
        value: int | None = self._settings["idle_timeout"]
        return value

    @idle_timeout.setter
    def idle_timeout(self, value: int | None) -> None:
        self._settings["idle_timeout"] = _bounded("idle_timeout", value, 0, 0xFFFFFFFF)

    @property
    def properties(self) -> AMQPValue | None:
        """The connection properties as a native map, None when there are none."""
        given = self._settings["properties"]
        if given is None:
            return None
        from ._native.make import data_factory

        return data_factory(given, self._encoding)

    @properties.setter
    def properties(self, value: dict[Any, Any] | None) -> None:
        if value is not None and not isinstance(value, Mapping):
            raise TypeError(f"connection properties must be a dict, not {type(value).__name__}")
        self._settings["properties"] = value

    @property
    def remote_max_frame_size(self) -> int:
        """Bytes the peer takes in one frame; 512 until its OPEN."""
        return (self._remote.get("max_frame_size") or 0xFFFFFFFF) if self._opened else 512

    @property
    def _state(self) -> ConnectionState:
        return ConnectionState(self._conn_state)

    @property
    def cbs(self) -> Any:
        """What puts the tokens of this connection's auth object; None when that has no tokens."""
        return self._cbs

    @property
    def _conn(self) -> Any:
        """This connection as `c_uamqp` has it."""
        from ._plumbing.connections import Connection as Native

        return Native._around(self)

    @property
    def _error(self) -> Exception | None:
        """What `work` raises; None while there is nothing."""
        return self._failure

    @property
    def _lock(self) -> threading.Lock:
        """The lock of `lock()` and `release()`."""
        return self._advisory

    def work(self) -> None:
        """One step: raises the error of the connection if it has one, else moves what can be moved. Does nothing once
        closed. Waits only when there was nothing to do for a while (at most 50 ms)."""
        self._run(self._work_plan())

    def _work_plan(self) -> Plan[None]:
        if self._closed:
            return
        self._raise_failure()
        try:
            yield Call(self._method(self, "lock"))
        except TimeoutError:
            _logger.debug("%r: somebody else holds the connection's lock", self.container_id)
            return
        try:
            yield from self._paced_plan(False)
        finally:
            self._method(self, "release")()

    def sleep(self, seconds: float) -> None:
        """Hold the lock for that long."""
        self.lock()
        try:
            time.sleep(seconds)
        finally:
            self.release()

    def lock(self, timeout: float = 3.0) -> None:
        """Take the advisory lock, which `work()` takes too; raises TimeoutError after `timeout` seconds (-1: never)."""
        if not openly(self._advisory.acquire, True, timeout):
            raise TimeoutError(f"the connection's lock was not free within {timeout} s")

    def release(self) -> None:
        """Give the advisory lock back; nothing happens when nobody holds it."""
        try:
            self._advisory.release()
        except RuntimeError:
            return  # it was not held, as uamqp allows

    def destroy(self) -> None:
        """Close the connection and wait for the peer's answer, 5 s at most. Repeatable; wakes all who wait on it."""
        self._close(CLOSE_TIMEOUT)

    def redirect(self, redirect_error: errors.LinkRedirect, auth: AMQPAuth) -> None:
        """Connect to the host of a LinkRedirect instead, with `auth`. Nothing happens when we are there already."""
        self._run(self._redirect_plan(redirect_error, auth))

    def _redirect_plan(self, redirect_error: Any, auth: AMQPAuth) -> Plan[None]:
        if redirect_error.hostname is None:
            raise ValueError("the redirect names no host")
        if self.hostname == redirect_error.hostname:
            return
        if auth.consumed:  # said before anything is closed
            raise ValueError("this auth object serves another connection already; make one for each")
        yield Call(self._method(self, "lock"))
        try:
            closed_here = yield from self._close_plan(CLOSE_TIMEOUT, for_good=False)
            with self._io, self._turns:
                if self._destroyed or not closed_here:
                    raise self._closed_error()
                self._leave_sessions()
                self._reset(redirect_error.hostname, auth)
        finally:
            self._method(self, "release")()
        self._wake_all()

    def _leave_sessions(self) -> None:
        """Tell the sessions of the former peer that they are over. Under `_io`."""
        error = records.Error(
            ErrorCodes.ConnectionRedirect.value, b"the connection was redirected to another host", None
        )
        for session, inbox in self._session_inboxes.items():
            inbox.records.append(records.End(session, error))
            inbox.poke_all()

    def __repr__(self) -> str:
        """Where to and how it stands; of the auth object its class alone."""
        host = self.hostname.decode(self._encoding, "replace")
        return f"<{type(self).__name__} {host}, {type(self.auth).__name__}, {self._state.name}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise not_pickled(self)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *args: object) -> None:
        self.destroy()

    _method = staticmethod(plan.blocking)

    # ---- for sessions, links and clients ---------------------------------------------------------------------------

    def _route_session(self, session: int, inbox: Inbox | None) -> None:
        """Records of this session go to `inbox` from now on; None: nowhere. Under `_io`, together with the verb."""
        if inbox is None:
            self._session_inboxes.pop(session, None)
        else:
            self._session_inboxes[session] = inbox

    def _session_left(self, session: int) -> None:
        """Our END of this session is under way: CLOSE waits for the answer. Under `_io`, together with the verb."""
        self._leaving.add(session)

    def _route_link(self, link: int, inbox: Inbox | None) -> None:
        """Records of this link go to `inbox` from now on; None: nowhere. Under `_io`, together with the verb."""
        if inbox is None:
            self._links.pop(link, None)
            self._link_sessions.pop(link, None)
        else:
            self._links[link] = inbox

    def _expect_attach(self) -> None:
        """`connect_timeout` covers an attach too: `_attached()` will be called."""
        self._attach_expected = True

    def _attached(self) -> None:
        """What `connect_timeout` was to cover has happened."""
        self._connect_deadline = None

    def _token_plan(self) -> Plan[None]:
        """For plans that wait: a step of the token exchange, if there is one and a step is due."""
        if self._cbs is not None and self._cbs.due():
            yield from self._cbs.step_plan()

    def _told(self, error: Any) -> Any:
        """What to say of an end that the peer made, considering that its token may have run out."""
        return error if self._cbs is None else self._cbs.told(error)

    def _beside(self, awaitable: Any, done: Callable[[], object], why_not: str) -> Any:
        """With asyncio: a task for it, and `done()` is called when it is done. Here RuntimeError(why_not)."""
        refuse_coroutine(awaitable, why_not)

    def _token_deadline(self) -> float | None:
        """For plans that wait: when to wake up for the next one (`time.monotonic`)."""
        deadline: float | None = None if self._cbs is None else self._cbs.deadline()
        return deadline

    # ---- keep-alive -----------------------------------------------------------------------------------------------

    def _make_keeper(self) -> Keeper:
        return Keeper(self)

    def _keep_for(self, client: Any, interval: float) -> Any:
        """Have the connection worked every `interval` seconds for a client, until `_keep_no_more`; gives what does it. Raises
        RuntimeError when no thread can be started."""
        with self._turns:
            if self._keeper is None:
                self._keeper = self._make_keeper()
        return self._keeper.join(client, interval)

    def _keep_no_more(self, client: Any) -> Any:
        """Gives what did it if that ends now, for `_keeper_gone`."""
        return None if self._keeper is None else self._keeper.leave(client)

    def _keeper_gone(self, worker: Any, deadline: float) -> Any:
        """Wait until it has ended, unless it is the caller itself."""
        if worker is not threading.current_thread():
            openly(worker.join, max(0.0, deadline - time.monotonic()))

    def _keep_plan(self) -> Plan[None]:
        """Take in what has come, call back what a step of each client would, and renew the token when it is time. Raises what
        broke the connection."""
        if self._closed or not self._started:
            return
        try:
            yield Call(self._method(self, "lock"))
        except TimeoutError:
            return  # somebody else works
        try:
            for _ in range(_LEFTOVERS):
                if not (yield Call(self._step, (0.0,))):
                    break
        finally:
            self._method(self, "release")()
        for inbox in [*self._session_inboxes.values()]:
            inbox.keep()
        if self._cbs is not None and self._cbs.accepted:
            yield from self._token_plan()
        self._flush()
        self._raise_failure()

    def _token_accepted(self) -> None:
        if self._keeper is not None:  # it has another deadline
            self._keeper.wake()

    def _keep_deadline(self) -> float | None:
        """When to do that though it is not time yet."""
        return self._token_deadline() if self._cbs is not None and self._cbs.accepted else None

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise errors.afresh(self._failure)

    @contextlib.contextmanager
    def _as_its_end(self) -> Iterator[None]:
        """For verbs that begin something: when the connection or session is over, that is what is raised. Under `_io`."""
        try:
            yield
        except lib.StateError as over:
            self._check_alive()
            if self._done or self._ending:
                raise (self._why or self._ended_error()) from over
            raise errors.MessageHandlerError(f"too late: {over.args[-1]}") from over

    def _start(self) -> None:
        """Begin to connect; blocks on nothing."""
        performative = self._encode_open()
        with self._io:
            if self._started or self._closed:
                return
            if self.auth.sasl is not None:
                self._engine.sasl_client(self.auth.sasl.name, self.auth.sasl.response)
            self._engine.open(performative)
            if self._connect_timeout:
                self._connect_deadline = time.monotonic() + self._connect_timeout
            self._conn_state = ConnectionState.START.value
            self._started = True
            self._call_out()

    def _call_out(self) -> None:
        """Begin to connect to the host."""
        self._dialer = Dialer(self.auth._dial_to, self._choose, self._poller.wake)

    def _encode_open(self) -> bytes:
        given = self._settings
        size = given["max_frame_size"]
        fields = {
            "container_id": values.enc_str(self.container_id),
            "hostname": values.enc_str(self.hostname),
            "max_frame_size": values.enc_uint(MAX_FRAME_SIZE if size is None else min(size, MAX_FRAME_SIZE)),
            "channel_max": values.enc_ushort(self.channel_max),
        }
        if given["idle_timeout"] is not None:
            fields["idle_time_out"] = values.enc_uint(given["idle_timeout"])
        if given["properties"] is not None:
            fields["properties"] = values.symbol_map(given["properties"], self._encoding)
        return values.composite("open", **fields)

    def _choose(self, addresses: list[Address]) -> int:
        """The port to connect to, now that the addresses of `auth._dial_to` are known; settles whether to use TLS."""
        self._tls, self._port = self.auth._endpoint(self._use_tls, addresses)
        proxy = self.auth._proxy
        return self._port if proxy is None else proxy.port

    def _step(self, wait: float = 0.0) -> bool:
        """One step of whoever leads; waits up to `wait` seconds for something to do. True when anything moved. When
        another thread leads, waits for it. Never raises the failure of the connection: look at `_failure`."""
        if self._done or self._closed:
            return False
        if not self._started:
            self._start()
        me = get_ident()
        try:
            try:
                if self._take_lead(me):
                    return self._turn(wait)
            finally:
                if self._leader == me:
                    self._drop_lead(me)
        except BaseException:
            self._let_go(me)
            raise
        if wait > 0:
            self._follow(Inbox(), wait)
        return False

    def _looked_lately(self) -> bool:
        """Whether there is no need to look for what has come: somebody just did, and took all of it."""
        return not self._blocked and not self._more and time.perf_counter() - self._looked_at < LOOK_EVERY

    def _look_first(self) -> None:
        """What has arrived is read before anything is said, sent or settled: whoever is about to do that calls this, once
        for all that the step will say. One read that never waits, more only while they fill the window; none when somebody
        looked just now, or is waiting for the socket anyway. What came is in the inboxes then. Never raises the failure of
        the connection."""
        if self._sock is None or self._leader or self._looked_lately():
            return
        for _ in range(_LEFTOVERS):
            if not self._step(0.0) or not self._more:
                return

    def _look_first_plan(self) -> Plan[None]:
        """The same for plans."""
        self._look_first()
        return
        yield

    def _read_dry(self) -> None:
        """For ends: read what lies in the socket, whenever somebody looked, until there is no more."""
        if self._sock is None or self._leader:
            return
        for _ in range(_LEFTOVERS):
            if not self._step(0.0):
                return

    def _read_dry_plan(self) -> Plan[None]:
        """The same for plans."""
        self._read_dry()
        return
        yield

    def _paced_plan(self, moved_work: bool = False) -> Plan[bool]:
        """A step that waits the longer the more idle ones went before it; never if `moved_work`: the caller just sent,
        received, or was handed a message."""
        if moved_work:
            self._idle = 0
        moved: bool = yield Call(self._step, (PACE[min(self._idle, len(PACE) - 1)],))
        self._idle = 0 if moved or moved_work else self._idle + 1
        return moved

    def _paced_step(self, moved_work: bool = False) -> bool:
        return self._run(self._paced_plan(moved_work))

    def _run(self, work: Plan[_T]) -> _T:
        """Drive a plan to its end and give its value."""
        return plan.run(work, self._wait)

    def _wait(self, inbox: Inbox, deadline: float | None = None) -> bool:
        """Wait until `inbox` has records or was poked: True; or until `deadline` (`time.monotonic`): False. Raises the
        failure of the connection when there is nothing in the inbox, and AMQPConnectionError when it was closed."""
        if inbox.ready():
            return True
        if not self._started and not self._closed:
            self._start()
        me = get_ident()
        while True:
            try:
                try:
                    if self._take_lead(me):
                        self._leading = inbox
                        inbox.wait_with(self._poller.wake)
                        return self._lead(inbox, deadline)
                finally:
                    if self._leader == me:
                        self._leading = None
                        inbox.wait_with(None)
                        self._drop_lead(me)
            except BaseException:
                inbox.wait_with(None)
                self._let_go(me)
                raise
            left = _LONG if deadline is None else deadline - time.monotonic()
            self._follow(inbox, max(0.0, min(left, _LONG)))
            if inbox.ready():
                return True
            self._check_alive()
            if left <= 0:
                return False

    def _lead(self, inbox: Inbox, deadline: float | None) -> bool:
        while not inbox.ready():
            self._check_alive()
            left = _LONG
            if deadline is not None and (left := deadline - time.monotonic()) <= 0:
                return False
            self._turn(min(left, _LONG))  # poll counts milliseconds in an int
        return True

    def _check_alive(self) -> None:
        if self._failure is not None:
            self._raise_failure()
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> errors.AMQPConnectionError:
        error = errors.AMQPConnectionError("the connection was closed")
        error.retryable = False
        return error

    def _reentered(self) -> bool:
        """Whether a signal handler of this thread runs inside one of its sections."""
        return self._inside == get_ident() and self._io.locked()

    # ---- lead and follow ------------------------------------------------------------------------------------------

    def _take_lead(self, me: int) -> bool:
        with self._turns:
            if self._leader == 0 or self._leader == me:
                self._leader = me
                return True
            return False

    def _drop_lead(self, me: int) -> None:
        with self._turns:
            if self._leader == me and not self._poller.polling:  # else a signal handler ran a step inside our own wait
                self._leader = 0
            if self._followers:
                self._offer_lead()

    def _offer_lead(self) -> None:
        """Tell a follower that nobody leads, if so. Under `_turns`."""
        if self._leader == 0 and self._followers:
            self._followers[0].set()

    def _let_go(self, me: int) -> None:
        """A wait or a step was broken off: lead no more. An error has seen to that, but Ctrl-C may have come while it was
        done, and the others would wait for who will not come back."""
        if self._leader == me:
            self._leading = None
        self._drop_lead(me)

    def _follow(self, inbox: Inbox, left: float) -> None:
        """Wait, at most `left` seconds, until something came for `inbox` or the lead is free."""
        event = Signal()
        try:
            with self._turns:
                if self._leader == 0:
                    return
                self._followers.append(event)
            try:
                inbox.wait_with(event.set)
                if not (inbox.poked or inbox.records or self._done):
                    event.wait(left)
            finally:
                self._unfollow(inbox, event)
        except BaseException:  # Ctrl-C may have come while that was done
            self._unfollow(inbox, event)
            raise

    def _unfollow(self, inbox: Inbox, event: Signal) -> None:
        inbox.wait_with(None)
        with self._turns:
            if event in self._followers:
                self._followers.remove(event)
            self._offer_lead()  # it may have been offered to us, who may not want it

    def _wake_all(self) -> None:
        """Have everybody who waits look around."""
        self._poller.wake()
        for inbox in {*list(self._links.values()), *list(self._session_inboxes.values())}:
            inbox.poke_all()
        with self._turns:
            for event in self._followers:
                event.set()

    # ---- sending --------------------------------------------------------------------------------------------------

    def _flush(self) -> bool:
        """Hand the engine's output to the kernel, from any thread, after engine calls that made some. True when
        nothing is left over; what is goes out from the steps to come."""
        if self._sock is None:
            return False
        if self._inside and self._reentered():
            raise RuntimeError("this connection's own section was interrupted by the signal handler that uses it")
        with self._io:
            if self._inside:
                self._torn()
            if self._sock is None:
                return False
            self._inside = get_ident()
            try:
                clean = self._send(clock())
                if self._debug:
                    self._note_trace()
                wire = self._wire
                if wire is not None and (self._asked or (self._engine.presettled and wire.settling)):
                    self._asked = False  # what our own limits refuse is known at once, and no byte would come to tell
                    self._route(wire.tick(wire.last_step))  # an older time: nothing is judged here
            except Exception as error:
                self._lose(self._explain(error))
                clean = False
            self._inside = 0
        self._flushed_at = time.perf_counter()
        if self._log:
            self._write_log()
        if not clean and self._leader != get_ident():
            self._poller.wake()  # the leader must wait for room, too
        return clean

    @property
    def _left(self) -> int:
        """Bytes of the engine's output that ever left it."""
        return 0 if self._wire is None else self._wire.total

    def _when_drained(self, inbox: Inbox) -> None:
        """Poke `inbox` once all output is with the kernel: for a sender that found the engine's output full."""
        with self._io:
            self._room_wanted.append(inbox)

    def _send(self, now: int) -> bool:
        """The send section. True when the kernel has everything. Only inside the critical section."""
        wire, sock = self._wire, self._sock
        assert wire is not None and sock is not None
        try:
            while out := wire.output():
                n = sock.send(out)
                more = wire.sent(n, now)
                if n < len(out):
                    self._blocked = True
                    return False
                if not more:
                    break
        except (BlockingIOError, InterruptedError):
            self._blocked = True
            return False
        except OSError as error:
            self._broken = error  # the peer may have said why: read on until there is no more
            return False
        self._blocked = False
        if self._room_wanted:
            wanted, self._room_wanted = self._room_wanted, []
            for inbox in wanted:
                self._tell(inbox)
        return True

    # ---- the leader's turn ----------------------------------------------------------------------------------------

    def _turn(self, wait: float) -> bool:
        """Wait for the socket, then receive, hand out, send. Only by the leader."""
        sock, wire = self._sock, self._wire
        if sock is None or wire is None:
            return False if self._done else self._dial(wait)
        if self._inside and not self._reentered():  # before the wait: of a torn section nothing more may ever come
            with self._io:
                if self._inside:
                    self._torn()
                    return True
        due = wire.engine.deadline
        if due != lib.NEVER and due - (start := clock()) < wait * 1000:
            wait = max(0, due - start) / 1000
        wait = min(wait, LOOK_FOR_LIFE)
        limit = self._connect_deadline
        if limit is not None:
            wait = min(wait, limit - time.monotonic())
            if wait <= 0 and time.monotonic() >= limit:
                with self._io:
                    self._time_out()
                return True
        poller = self._poller if not self._poller.polling else self._other_poller(sock)
        try:
            if wait > 0 and self._quick and self._flushed_at:
                bits = self._look(poller) or poller.wait(wait, self._blocked)
            else:
                bits = poller.wait(wait, self._blocked)
        finally:
            if poller is not self._poller:
                poller.close()
        self._looked_at = time.perf_counter()
        if self._inside and self._reentered():
            raise RuntimeError("this connection's own section was interrupted by the signal handler that uses it")
        moved = False
        with self._io:
            if self._inside:
                self._torn()
            if self._sock is not sock:
                return True
            now = clock()
            if not bits and now >= self._life_at and self._is_dead(sock, now):
                return True
            if not bits and now < wire.engine.deadline and not self._broken and not self._stale_output(wire):
                return False
            self._inside = get_ident()
            try:
                moved = self._sections(sock, wire, bits, now)
            except Exception as error:
                self._lose(self._explain(error))
                moved = True
            self._inside = 0
        if bits & READ and self._flushed_at:
            self._learn()
        if self._log:
            self._write_log()
        if self._close_later:
            self._close_later = False
            self._close(CLOSE_TIMEOUT)
        return moved

    def _is_dead(self, sock: Any, now: int) -> bool:
        """Lose a peer whose kernel answers no more. One that reads nothing is alive as long as TCP says so. Under `_io`."""
        self._life_at = now + int(LOOK_FOR_LIFE * 1000)
        error = silence_error(sock)
        if error is not None:
            self._lose(self._gone(error))
        return error is not None

    def _stale_output(self, wire: Wire) -> bool:
        """Output that nobody flushed, and that need not wait for the kernel."""
        return not self._blocked and len(wire.output()) > 0

    def _sections(self, sock: socket.socket, wire: Wire, bits: int, now: int) -> bool:
        """Receive, hand out records, send; the critical section itself."""
        n = -1
        if bits & READ or self._broken or now >= wire.engine.deadline:  # silence is judged only by a dry socket
            window = wire.window()
            self._more = False
            try:
                n = sock.recv_into(window)
                self._more = n == len(window)
            except (BlockingIOError, InterruptedError):
                n = -1
            except OSError as error:
                self._lose(self._gone(error))
                return True
        if n > 0:
            self._route(wire.received(n, now))
        elif n < 0:
            if self._broken is not None:
                self._lose(self._gone(self._broken))
                return True
            self._route(wire.tick(now, dry=True))
        sent = self._respond(wire, now, not self._blocked or bool(bits & WRITE), ended=n == 0)
        return n >= 0 or sent

    def _respond(self, wire: Wire, now: int, writable: bool, ended: bool) -> bool:
        """After something came in: send what it gave rise to, and see whether this is the end (`ended`: the transport
        is). True when anything was sent. Only inside the critical section."""
        before = wire.total
        if self._ending and self._blocked:
            writable = False  # what the kernel has not taken by now was called not delivered
        if writable and (self._blocked or self._room_wanted or not wire.quiet):
            self._send(now)
        if self._engine.presettled and wire.settling:
            self._route(wire.tick(wire.last_step))
        if self._debug:
            self._note_trace()
        if self._ending:
            self._lose(self._why or self._ended_error())
        elif ended or wire.ended_by_peer:
            try:
                wire.ended()
            except TransportError as error:
                self._lose(self._gone(error))
            else:
                self._lose(self._gone(None))
        return wire.total != before

    def _look(self, poller: Poller) -> int:
        """Replies have lately been quick: look a little longer before going to sleep."""
        end = self._flushed_at + QUICK
        while True:
            bits = poller.wait(0.0, self._blocked)
            if bits:
                return bits
            if time.perf_counter() >= end:
                self._quick -= 1
                return 0

    def _learn(self) -> None:
        """Whether the reply to the last flush was quick."""
        took = time.perf_counter() - self._flushed_at
        self._flushed_at = 0.0
        if took < 2 * QUICK:
            self._quick = 16

    def _other_poller(self, sock: socket.socket) -> Poller:
        """For a signal handler that runs inside our own wait; good for one."""
        poller = Poller()
        poller.watch(sock)
        return poller

    def _note_trace(self) -> None:
        """The frames since the last time are to be logged. Only inside the critical section."""
        if self._debug and (text := self._engine.trace()):
            self._log.append((_trace_logger, logging.INFO, text, ()))

    def _write_log(self) -> None:
        """What is to be logged, outside of every lock: log handlers are user code."""
        entries, self._log = self._log, []
        for logger, level, text, args in entries:
            if logger is _trace_logger:  # a line per frame
                for line in text.splitlines():
                    logger.log(level, "%s", line)
            else:
                logger.log(level, text, *args)

    # ---- connecting -----------------------------------------------------------------------------------------------

    def _dial(self, wait: float) -> bool:
        dialer = self._dialer
        if dialer is None:  # another thread redirected it
            self._start()
            return True
        limit = self._connect_deadline
        try:
            self._poller.prepare()
            sock = dialer.step()
            if sock is None:
                now = time.monotonic()
                for end in (limit, dialer.next_at):
                    if end is not None:
                        wait = min(wait, max(0.0, end - now))
                self._poller.wait_any(dialer.socks, wait)
                if limit is not None and time.monotonic() >= limit:
                    with self._io:
                        self._time_out()
                    return True
                sock = dialer.step()
            if sock is None:
                return False
            if self._dialer is dialer:
                self._connected(sock)
            else:  # of the former peer: this was redirected meanwhile
                sock.close()
        except (OSError, ValueError) as error:
            self._not_connected(error)
        except Exception as error:  # of an auth object's
            with self._io:
                self._lose(self._explain(error))
        return True

    def _not_connected(self, error: OSError | ValueError) -> None:
        """There is no way to the peer."""
        text = getattr(error, "strerror", None) or str(error)
        # "cannot ...": of this system, before there was any address to try
        if isinstance(error, OSError) and not text.startswith("cannot "):
            text = f"cannot connect to {self.auth._dial_to!r}: {text}"
        text += self._because_of_proxy()
        failure = errors.AMQPConnectionError(text)
        failure.__cause__ = error
        with self._io:
            self._lose(failure)

    def _connected(self, sock: Any) -> None:
        with self._io:
            if self._closed or self._done or self._sock is not None:
                sock.close()
                return
            self._inside = get_ident()
            try:
                self._wire = self._make_wire()
                self._sock = sock
                self._watch(sock)
                self._send(clock())
                self._note_trace()
            except Exception as error:
                if self._sock is None:
                    sock.close()
                self._lose(self._explain(error))
            self._inside = 0
        if self._log:
            self._write_log()

    def _watch(self, sock: Any) -> None:
        """Look out for what comes from it."""
        self._poller.watch(sock)

    def _make_wire(self) -> Wire:
        """The wire over a transport that is connected now: what is between it and AMQP."""
        auth = self.auth
        filters: list[Filter] = []
        if auth._proxy is not None:
            from ._core.transport.filters.http_connect import HttpConnect, authority

            filters.append(HttpConnect(authority(auth._connect_to, self._port), *auth._proxy.credentials))
        if self._tls:
            filters.append(Tls(auth._context(self._ssl_context), auth._connect_to))
        if auth._transport_type is TransportType.AmqpOverWebsocket:
            from ._core.transport.filters.http_connect import authority
            from ._core.transport.filters.websocket import WebSocket

            filters.append(WebSocket(authority(auth._connect_to, self._port)))
        return Wire(self._engine, filters)

    def _because_of_proxy(self) -> str:
        """For texts that name the host that was dialled: why it is not the one that the user thinks of."""
        return "" if self.auth._proxy is None else f" (the proxy on the way to {self.auth._connect_to!r})"

    def _time_out(self) -> None:
        dialer = self._dialer
        if self._wire is None:
            doing = "starting" if dialer is None else dialer.doing + self._because_of_proxy()
        elif self._wire.filter is not None and not self._wire.filter.ready:
            doing = self._wire.filter.doing
        elif not self._opened:
            doing = f"waiting for the peer to open the connection (state {self._state.name})"
            if self._unanswered_open:
                doing += f"; it may be one that does not take {self._what_open_asks()}"
        else:
            doing = "waiting for the peer to attach the link"
        self._lose(errors.ConnectTimeout(f"connect_timeout of {self._connect_timeout} s passed while {doing}"))

    # ---- records --------------------------------------------------------------------------------------------------

    def _route(self, batch: list[records.Record]) -> None:
        """Put each record where it belongs. Only inside the critical section."""
        links, sessions = self._links, self._session_inboxes
        told: Inbox | None = None
        record: Any  # the first field of most is the link or session
        delivery, link = records.Delivery, 0  # the link that `told` is the inbox of, if the last record was of one
        for record in batch:
            kind = type(record)
            if kind is delivery and record[0] == link and told is not None:
                told.records.append(record)
                continue
            link = 0
            if kind in _LINK_RECORDS:
                inbox = links.get(record[0])
                if inbox is None:
                    inbox = self._unclaimed(record)
            elif kind in _SESSION_RECORDS:
                inbox = sessions.get(record[0])
                if inbox is None:
                    self._unclaimed_session(record)
            else:
                inbox = self._own(record)
            if inbox is None:
                continue
            if kind is not records.Credit or not self._renewed(inbox, record):
                inbox.records.append(record)
            if inbox is not told:
                if told is not None:
                    self._tell(told)
                told = inbox
            if kind is delivery:
                link = record[0]
        if told is not None:
            self._tell(told)

    def _renewed(self, inbox: Inbox, record: Any) -> bool:
        """Put it in place of the same link's last word on credit, which it makes void: a client that nobody calls must not
        pile up what its peer says again and again."""
        waiting = inbox.records
        try:
            last = waiting[-1]
            if type(last) is not records.Credit or last.link != record.link or last.drain != record.drain:
                return False
            waiting[-1] = record
        except IndexError:  # nothing waits, or another thread has just taken the last one
            return False
        return True

    def _tell(self, inbox: Inbox) -> None:
        """Something is in that inbox now; the leader sees its own without being woken, unless it was another thread that
        put it there."""
        leading = self._leading
        if inbox is leading:
            inbox.poked = True
            if self._leader != get_ident():
                self._poller.wake()
            return
        if leading is not None and inbox.serves(leading):
            leading.poked = True
        inbox.poke()

    def _unclaimed(self, record: Any) -> Inbox | None:
        """A link that nobody registered: its session's inbox, if that is known."""
        if isinstance(record, records.Attach):
            if record.reply:
                self._link_sessions[record.link] = record.session
            else:  # nobody hears of a link of the peer's
                with self._unless_over():
                    self._engine.attach(record.session, _answer_attach(record), record.link)
                    self._engine.detach(record.link, True, _not_allowed("this client attaches its links itself"))
        elif isinstance(record, records.Detach):
            return self._session_inboxes.get(self._link_sessions.pop(record.link, 0))
        return self._session_inboxes.get(self._link_sessions.get(record.link, 0))

    def _unclaimed_session(self, record: Any) -> None:
        if isinstance(record, records.Begin) and not record.reply:
            with self._unless_over():
                self._engine.begin(_answer_begin(), record.session)
                self._engine.end(record.session, _not_allowed("this client begins its sessions itself"))
        elif isinstance(record, records.End):
            self._leaving.discard(record.session)

    @contextlib.contextmanager
    def _unless_over(self) -> Iterator[None]:
        """For answers to a record: the engine is ahead of it, and what it speaks of may be over."""
        try:
            yield
        except lib.StateError as over:
            _logger.debug("connection %r: too late to answer: %s", self.container_id, over)

    def _own(self, record: Any) -> Inbox | None:
        """A record of the connection."""
        if isinstance(record, records.ConnState):
            self._conn_state = record.new
            if _logger.isEnabledFor(logging.INFO):
                states = (self.container_id, ConnectionState(record.old), ConnectionState(record.new))
                self._log.append((_logger, logging.INFO, "connection %r: %r -> %r", states))
            if record.new == _ENDED:
                self._ending = True
        elif isinstance(record, records.Open):
            self._on_open(record.fields)
        elif isinstance(record, records.Close):
            self._ending = True
            if self._why is None:
                error = record.error or records.Error(ErrorCodes.UnknownError.value, None, None)
                self._why = self._told(errors.process_connection_error(self.error_policy, *error))
        elif isinstance(record, records.PeerError):
            if record.scope == lib.SCOPE_LINK:
                return self._links.get(record.id)
            if record.scope == lib.SCOPE_SESSION:
                return self._session_inboxes.get(record.id)
            self._on_peer_error(record.error)
        elif isinstance(record, records.Late):
            text = "connection %r: the peer sent %s on channel %d, which has ended; it is ignored"
            self._log.append((_logger, logging.WARNING, text, (self.container_id, record.performative, record.channel)))
        elif isinstance(record, records.SaslOutcome):
            if record.code:
                self._refused(errors.SASLRefused(self._mechanism(), record.code))
        elif isinstance(record, records.SaslMechanisms):
            if not record.offered:
                self._refused(errors.SASLRefused(self._mechanism(), None, record.names))
        elif isinstance(record, records.SaslChallenge):
            with self._unless_over():
                self._engine.sasl_response(b"")
        return None

    def _mechanism(self) -> str:
        return self.auth.sasl.name if self.auth.sasl is not None else "none"

    def _refused(self, error: Exception) -> None:
        self._why = self._why or error
        self._ending = True

    def _on_open(self, fields: dict[str, Any]) -> None:
        self._remote = fields
        self._opened = True
        if not self._attach_expected:
            self._connect_deadline = None
        if self._cbs is not None:  # the time in which a token must be answered begins
            self._tell(self._cbs.session._inbox)
        silence = self._engine.conn().remote_idle_timeout
        if silence:
            self._beat_every = silence * (self._ratio or 0.5) / 1000
            self._begin_to_beat()

    def _on_peer_error(self, error: records.Error | None) -> None:
        self._ending = True
        if self._why is not None:
            return
        error = error or records.Error(ErrorCodes.InternalServerError.value, None, None)
        if (
            not self._opened
            and self.idle_timeout is not None
            and error.condition == ErrorCodes.InternalServerError.value
        ):
            hint = b"; the peer has not opened the connection, and may want a longer idle_timeout"
            error = error._replace(description=(error.description or b"") + hint)
        self._why = errors.process_connection_error(self.error_policy, *error)
        if error.condition == ErrorCodes.InternalServerError.value:
            self._why.action = None  # the peer's silence: no policy was asked

    # ---- heartbeats -----------------------------------------------------------------------------------------------

    _beat_every = 0.0

    def _begin_to_beat(self) -> None:
        """The peer wants to hear from us every `_beat_every` seconds."""
        heartbeat.heart.watch(self, time.monotonic() + self._beat_every)

    def _beat(self, now: float) -> float | None:
        """For the heartbeat thread: send an empty frame if one is owed. When nobody is at it, take in what has come and answer
        it, since the peer may be waiting for just that; nothing is handed out."""
        if self._done or self._closed:
            return None
        with self._io:
            wire, sock = self._wire, self._sock
            if wire is None or sock is None or self._done or self._inside:
                return None
            self._inside = get_ident()
            ms = int(now * 1000)
            every = int(self._beat_every * 1000)
            try:
                if not self._leader:
                    self._sections(sock, wire, READ, ms)
                if not self._done and ms - wire.sent_at >= every:
                    wire.beat(ms)
                    if not self._blocked:
                        self._send(ms)
                self._note_trace()
            except Exception as error:
                self._lose(self._explain(error))
            self._inside = 0
        self._answer_drains()
        self._write_log()
        return max(wire.sent_at + every, ms + 100) / 1000

    def _answer_drains(self) -> None:
        """A peer that wants its credit back gets it from links that have nothing to send, although nobody calls their
        clients."""
        answered = False
        for inbox in [*self._session_inboxes.values()]:
            if inbox.records and inbox._notify is None and _drains(inbox):
                inbox.relieve()
                answered = True
        if answered:
            self._flush()

    # ---- the end --------------------------------------------------------------------------------------------------

    def _ended_error(self) -> Exception:
        if self._closed:
            return self._closed_error()
        return errors.ConnectionClose(ErrorCodes.UnknownError, "the connection ended without a word from the peer")

    def _gone(self, cause: BaseException | None) -> Exception:
        """The error for a transport that is gone."""
        if self._why is not None:
            return self._why
        if self._closed:
            return self._closed_error()
        how = str(cause) if cause is not None else "the peer closed the TCP connection"
        if isinstance(cause, HttpRefused):
            refused = errors.HTTPRefused(how, cause.by, cause.status, cause.reason)
            refused.retryable = cause.retryable
            refused.__cause__ = cause
            return refused
        cls = errors.MessageHandlerError if self._opened else errors.AMQPConnectionError
        when = "" if self._opened else f" before it was open (state {self._state.name})"
        if self._wire is not None and self._wire.unheard:
            how += "; if the server speaks TLS on this port, leave use_tls=False out"
        if self._unanswered_open and not isinstance(cause, TransportError):
            how += f"; a peer that goes at this point may be one that does not take {self._what_open_asks()}"
        error = cls(
            how if isinstance(cause, TransportError) and not self._opened else f"the connection was lost{when}: {how}"
        )
        error.scope = "connection"
        error.__cause__ = cause
        return error

    @property
    def _unanswered_open(self) -> bool:
        """Our OPEN has left, and nothing came back."""
        return not self._opened and self._conn_state == ConnectionState.OPEN_SENT.value

    def _what_open_asks(self) -> str:
        """For texts: what of our OPEN a peer may refuse without a word."""
        host = self.hostname.decode(self._encoding, "replace")
        idle = self.idle_timeout
        return f"the host name {host!r} (a virtual host to some)" + (
            "" if idle is None else f", or idle_timeout={idle}"
        )

    def _explain(self, error: Exception) -> Exception:
        """What a section raised, as what we raise."""
        if isinstance(error, (TransportError, OSError)):
            return self._gone(error)
        failure = errors.AMQPConnectionError(f"the connection failed inside: {error!r}")
        failure.__cause__ = error
        return failure

    def _torn(self) -> None:
        """The mark of a section was found: it was torn apart. What left in it is unknown, so all that is open is called
        unknown. Under `_io`."""
        self._inside = 0
        if self._done:
            return
        error = errors.AMQPConnectionError(
            "the connection was interrupted (Ctrl-C?) in the middle of sending or receiving"
        )
        self._lose(error, torn=True)

    def _lose(self, error: Exception, torn: bool = False) -> None:
        """The end, once: last records, failure, everybody woken. `torn`: the kernel may have taken more than was counted, and
        what is not known is not called not delivered. Under `_io`."""
        if self._done:
            return
        self._done = True
        wire, sock = self._wire, self._sock
        last: list[records.Record] = []
        try:
            if wire is not None:
                self._account(wire)
                last = wire.lost(clock())
            elif self._started:
                self._engine.lost()
                last = self._engine.step(clock())
        except (lib.EngineError, MemoryError) as broken:
            error.__context__ = broken
        if torn:
            last = [_in_doubt(record) for record in last]
        self._ending = True
        if wire is None and self._started:
            self._conn_state = ConnectionState.ERROR.value
        self._route(last)
        self._note_trace()
        self._sock = None
        if self._dialer is not None:
            self._dialer.close()
        if sock is not None:
            self._hang_up(sock, wire)
        if self._failure is None and not self._closed:
            self._failure = errors.kept(error)
            # by what is raised, to the call that waits for just that
            told = isinstance(error, errors.AuthenticationException)
            closed = isinstance(error, errors.ConnectionClose) and not told
            level = logging.WARNING if closed else logging.INFO  # as uamqp does
            self._log.append((_logger, level, "connection %r ended: %r", (self.container_id, error)))
        self._wake_all()
        if self._closing is not None:
            self._closing.poke()

    def _account(self, wire: Wire) -> None:
        """Before the engine may judge: tell the wire what else the kernel has. A socket tells at once."""

    def _hang_up(self, sock: socket.socket, wire: Wire | None) -> None:
        """Say the goodbyes of WebSocket and TLS if there is room for them, and close. What is still to be sent was called
        not delivered, and must not leave now."""
        try:
            if wire is not None and not self._broken and not wire.output():
                wire.close()
                if out := wire.output():
                    sock.send(out)
            sock.shutdown(1)  # SHUT_WR: a close with unread bytes would take back what was sent
            for _ in range(_LEFTOVERS):
                if not sock.recv(65536):
                    break
        except (OSError, TransportError, lib.EngineError) as error:
            _logger.debug("connection %r: goodbye not said: %s", self.container_id, error)
        finally:
            sock.close()

    def _close(self, timeout: float) -> None:
        self._run(self._close_plan(timeout))

    def _close_plan(self, timeout: float, for_good: bool = True) -> Plan[bool]:
        """CLOSE, the peer's answer or `timeout` seconds, and everything given back. True when it was this call that did so.

        CLOSE leaves when the peer has answered each END, or after half of the time: RabbitMQ 3.10 stops reading a
        session at the CLOSE, and with it what was sent settled just before."""
        if self._reentered():
            self._close_later = True  # a signal handler inside a section: its own turn does it
            return False
        cbs, self._cbs = self._cbs, None
        if cbs is not None:
            cbs.auth.close_authenticator()
        mine = False
        deadline = time.monotonic() + timeout
        inbox = Inbox()
        try:
            with self._turns:
                self._destroyed = self._destroyed or for_good
                if self._closed:
                    return False
                self._closed = mine = True
            self._closing = inbox
            while self._leaving and not self._done:
                if not (yield Call(self._wait_closed, (inbox, deadline - timeout / 2))):
                    break
            self._say_close()
            while self._opened and not self._done:
                if not (yield Call(self._wait_closed, (inbox, deadline))):
                    break
        finally:  # whoever interrupts gets no half-closed connection
            if mine:
                self._give_back()
                if cbs is not None:
                    cbs.auth._part_from(self)
        return True

    def _say_close(self) -> None:
        if not self._opened or self._done:
            return
        try:
            with self._io:
                if not self._done:
                    self._engine.close()
            self._flush()
        except lib.EngineError as refused:
            _logger.debug("connection %r: no CLOSE: %s", self.container_id, refused)
        self._wake_all()

    def _give_back(self) -> None:
        """Everything the connection holds."""
        with self._io:
            if self._inside:
                self._torn()
            self._lose(self._closed_error())
            self._done = True
            self._engine.free()
        self._wake_all()
        if self._keeper is not None:
            self._keeper.wake()
        self._poller.close()
        self._dialer = None  # it has methods of ours: a circle would wait for the cyclic collector
        self.auth.close()
        self._write_log()
        if self._conn_state != ConnectionState.UNKNOWN.value:
            self._conn_state = _ENDED

    def _wait_closed(self, inbox: Inbox, deadline: float) -> bool:
        """One step towards the peer's CLOSE; False when time is up."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        me = get_ident()
        try:
            if self._take_lead(me):
                self._leading = inbox
                inbox.wait_with(self._poller.wake)
                self._turn(left)
                return True
        finally:
            if self._leader == me:
                self._leading = None
                inbox.wait_with(None)
                self._drop_lead(me)
        self._follow(inbox, left)
        return True

    def _orphan(self) -> None:
        """In a forked child: the connection is the parent's. Nothing is sent, and what another thread may have been
        inside of is not touched."""
        self._io, self._turns, self._advisory = Lock(), Lock(), threading.Lock()
        self._leader = self._inside = 0
        self._followers = []
        if self._closed or self._done:
            return
        self._done = True
        self._failure = errors.AMQPConnectionError("this connection belongs to the parent process; make one after fork")
        self._failure.retryable = False
        self._engine.abandon()
        sock, self._sock = self._sock, None
        self._wire = None
        if sock is not None:
            sock.close()  # only our copy of the descriptor: the parent's stays connected
        if self._dialer is not None:
            self._dialer.close()


def _in_doubt(record: Any) -> Any:
    """A record of what is not delivered, as of what is not known."""
    if isinstance(record, records.Settled) and record.outcome == lib.OUT_NOT_DELIVERED:
        return record._replace(outcome=lib.OUT_UNKNOWN)
    return record


def _after_fork() -> None:
    _everybody._lock = Lock()
    for connection in _everybody:
        connection._orphan()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _drains(inbox: Inbox) -> bool:
    """Whether nothing but words on credit waits there, and the last asks for it back."""
    last: Any = None
    for last in list(inbox.records):
        if type(last) is not records.Credit:
            return False
    return last is not None and bool(last.drain)


def _answer_begin() -> bytes:
    """The begin that must go before the end of a session nobody wants."""
    one = values.enc_uint(1)
    return values.composite("begin", next_outgoing_id=one, incoming_window=one, outgoing_window=one)


def _answer_attach(asked: records.Attach) -> bytes:
    """The attach, with neither source nor target, that must go before the detach of a link nobody wants (§2.6.3)."""
    return values.composite(
        "attach",
        name=values.enc_str(asked.fields["name"]),
        handle=values.enc_uint(0),
        role=values.enc_bool(not asked.sender),
        initial_delivery_count=values.enc_uint(0) if asked.sender else None,
    )


def _not_allowed(text: str) -> bytes:
    return values.described_composite(
        "error", condition=values.enc_symbol(ErrorCodes.NotAllowed.value), description=values.enc_str(text)
    )
