"""The connection on an event loop: the same records, rules and errors, another way to wait.

Bytes are taken in, and heartbeats go out, whenever the loop runs, whether anybody awaits or not; records wait in the
inboxes of those they concern, and user code runs only inside their own awaited calls.

The transport is touched in the loop's thread alone. What does not wait (`message.accept()`, `queue_message`, `close` of a
link) may be called in any: it keeps its books under the locks of the blocking class, and leaves to the loop what is to
be sent, and who is to be woken.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import weakref
from collections import OrderedDict
from collections.abc import Callable
from threading import get_ident
from typing import Any, NoReturn, TypeVar

from .. import connection as blocking
from .. import errors
from .._core import time
from .._core.engine.lib import NEVER, EngineError
from .._core.transport.dial import LOOK_FOR_LIFE
from .._core.transport.dial_async import AsyncDialer
from .._core.transport.filters.tls import TransportError
from .._core.transport.stream import Stream
from .._core.transport.wire import Wire, clock
from .._core.waiting import plan
from .._core.waiting.interrupts import on_loop, stepped
from .._core.waiting.keepalive import Keeper
from .._core.waiting.plan import Call, Inbox, Plan
from ..authentication.common import AMQPAuth
from ..connection import CONNECT_TIMEOUT, Connection
from .utils import get_dict_with_loop_if_needed, running_loop, would_block

__all__ = ["ConnectionAsync", "get_dict_with_loop_if_needed"]

_T = TypeVar("_T")
_logger = logging.getLogger("uamqp.async_ops.connection_async")
_MANY = 1000  # records in an inbox that nobody reads, before they are taken in for it
_GONE_WITHIN = 0.25  # seconds in which the last bytes may leave a transport that is closed
_EARLY = 0.1  # seconds: what ends a wait sooner than that before its time is not the clock we know
_HELD_UP = 0.005  # seconds without an await of ours, after which user code may have kept the loop from reading
_LOOK = 0.002  # seconds: after a time-out, so that the loop looks at the socket before the peer's silence is judged

_forked: list[Any] = []  # streams of a parent: see ConnectionAsync._orphan


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> bool:
    """Have the loop call it. Any thread. False when it is closed."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True


def _answer(future: asyncio.Future[bool], answer: bool) -> None:
    if not future.done():
        future.set_result(answer)


def _if_alive(ref: weakref.ref[ConnectionAsync], method: Callable[[ConnectionAsync], None]) -> None:
    """Call it. Timers are no reason for a connection to live."""
    alive = ref()
    if alive is not None:
        on_loop(method, alive)


class _Turns:
    """The advisory lock. As `asyncio.Lock`, but that anybody may release it, and time may run out."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: OrderedDict[asyncio.Future[bool], None] = OrderedDict()

    async def acquire(self, seconds: float | None) -> bool:
        """False when it was not free within that time."""
        if not self._held:
            self._held = True
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiting[future] = None
        timer = None if seconds is None else loop.call_later(max(0.0, seconds), _answer, future, False)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():  # it was given to us, and we are cancelled
                self.release()
            raise
        finally:
            self._waiting.pop(future, None)
            if timer is not None:
                timer.cancel()

    def release(self) -> None:
        """Give it to who has waited longest. Nothing happens when nobody holds it. Any thread."""
        for first in list(self._waiting):
            if not first.done():
                loop = first.get_loop()
                if loop is asyncio._get_running_loop():
                    first.set_result(True)
                else:
                    _tell(loop, self.release)
                return
        self._held = False


class _TaskKeeper(Keeper):
    """The worker as a task."""

    def _signal(self) -> Any:
        return asyncio.Event()

    def _runs(self) -> bool:
        task = self.worker
        return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()

    def _start(self) -> None:
        self.worker = asyncio.get_running_loop().create_task(self._run_async(), name="uamqp-keep-alive")

    async def _run_async(self) -> None:
        await asyncio.sleep(0)  # an eager task begins before it is known
        me = asyncio.current_task()
        while (due := self._due(me)) is not None:
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, due - time.monotonic()))
                self._changed.clear()
            except asyncio.TimeoutError:
                await self._work_async()

    async def _work_async(self) -> None:
        connection = self._connection()
        if connection is None:
            return
        self._worked_at = time.monotonic()
        try:
            await connection._run_async(connection._keep_plan())
        except Exception as error:
            self._failed(connection, error)


class ConnectionAsync(Connection):
    """An AMQP connection on the running event loop. Arguments as for `Connection`; `loop` must be None. Blocking methods
    raise RuntimeError; each has a twin that ends in `_async`."""

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
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        use_tls: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
    ) -> None:
        get_dict_with_loop_if_needed(loop)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock_turns = _Turns()
        super().__init__(
            hostname,
            sasl,
            container_id=container_id,
            max_frame_size=max_frame_size,
            channel_max=channel_max,
            idle_timeout=idle_timeout,
            properties=properties,
            remote_idle_timeout_empty_frame_send_ratio=remote_idle_timeout_empty_frame_send_ratio,
            error_policy=error_policy,
            debug=debug,
            encoding=encoding,
            use_tls=use_tls,
            ssl_context=ssl_context,
            connect_timeout=connect_timeout,
        )

    def _reset(self, hostname: str | bytes, auth: AMQPAuth) -> None:
        super()._reset(hostname, auth)
        self._task: asyncio.Task[None] | None = None  # connects
        self._cancelled: asyncio.Task[None] | None = None  # the same when it is to end
        self._thread = 0  # that it was begun in
        self._handed = False  # the loop will flush for another thread
        self._limit: asyncio.TimerHandle | None = None  # connect_timeout
        self._timer: asyncio.TimerHandle | None = None  # the engine's deadline
        self._timer_due = NEVER
        self._attempt: object = None  # the latest to connect
        self._stream: Stream | None = None
        self._pulse: asyncio.TimerHandle | None = None  # looks whether the peer's host still answers
        self._stirred = False  # something moved since the last step
        self._turned_at = 0.0  # `time.perf_counter` when the loop was last given its turn by a call of ours
        self._napping: list[asyncio.Future[None]] = []  # of the steps that wait for it

    # ---- uamqp's members ------------------------------------------------------------------------------------------

    @property
    def loop(self) -> None:
        """Always None: the loop is the one that runs."""
        return None

    async def work_async(self) -> None:
        """One step, as `Connection.work`; the loop moves bytes without it, too."""
        await self._run_async(self._work_plan())

    async def destroy_async(self) -> None:
        """Close the connection and wait for the peer's answer, 5 s at most. Repeatable; wakes all who wait on it."""
        task = self._task
        await self._run_async(self._close_plan(blocking.CLOSE_TIMEOUT))
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait((task,), timeout=blocking.CLOSE_TIMEOUT)  # it was cancelled, and closes its socket

    async def redirect_async(self, redirect_error: errors.LinkRedirect, auth: AMQPAuth) -> None:
        """Connect to the host of a LinkRedirect instead, with `auth`. Nothing happens when we are there already."""
        await self._run_async(self._redirect_plan(redirect_error, auth))

    async def sleep_async(self, seconds: float) -> None:
        """Hold the lock for that long."""
        await self.lock_async()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.release_async()

    async def lock_async(self, timeout: float = 3.0) -> None:
        """Take the advisory lock, which `work_async` takes too; raises TimeoutError after `timeout` seconds (-1:
        never)."""
        if not await self._lock_turns.acquire(None if timeout < 0 else timeout):
            raise TimeoutError(f"the connection's lock was not free within {timeout} s")

    def release_async(self) -> None:
        """Give the advisory lock back; nothing happens when nobody holds it."""
        self._lock_turns.release()

    def lock(self, timeout: float = 3.0) -> NoReturn:
        """Not on an event loop: see `lock_async`."""
        raise would_block(self)

    def release(self) -> NoReturn:
        """Not on an event loop: see `release_async`."""
        raise would_block(self)

    def sleep(self, seconds: float) -> NoReturn:
        """Not on an event loop: see `sleep_async`."""
        raise would_block(self)

    async def __aenter__(self) -> ConnectionAsync:
        return self

    async def __aexit__(self, *args: Any) -> None:
        await self.destroy_async()

    # ---- plans ----------------------------------------------------------------------------------------------------

    _method = staticmethod(plan.awaiting)

    def _run(self, work: Plan[_T]) -> NoReturn:
        work.close()
        raise would_block(self)

    async def _run_async(self, work: Plan[_T]) -> _T:
        self._check_loop()
        return await plan.run_async(work, self._wait)

    async def _wait(self, inbox: Inbox, deadline: float | None = None) -> bool:  # type: ignore[override]  # awaited
        if inbox.ready():
            return True
        if not self._started and not self._closed:
            self._start()
        if type(inbox) is not Inbox:  # who follows leaves it to who leads
            self._send_stale()
        while True:
            self._check_alive()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            await self._nap(inbox, left)
            if inbox.ready():
                return True

    async def _wait_closed(self, inbox: Inbox, deadline: float) -> bool:  # type: ignore[override]  # awaited
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        if not inbox.ready():
            await self._nap(inbox, left)
        return True

    async def _nap(self, inbox: Inbox, seconds: float | None) -> None:
        """Sleep until something comes for `inbox`, or time is up."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _wake, future)
        me = get_ident()
        inbox.wait_with(lambda: _wake(future) if get_ident() == me else _tell(loop, _wake, future))
        try:
            await future
        finally:
            inbox.wait_with(None)
            self._turned_at = time.perf_counter()
            if timer is not None:
                timer.cancel()

    async def _step(self, wait: float = 0.0) -> bool:  # type: ignore[override]  # awaited
        """Let the loop move bytes; waits up to `wait` seconds for it to do so. True when it did."""
        if self._done or self._closed:
            return False
        if not self._started:
            self._start()
        self._send_stale()
        if wait > 0 and not self._stirred:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._napping.append(future)
            timer = loop.call_later(wait, _wake, future)
            try:
                await future
            finally:
                timer.cancel()
                self._napping.remove(future)
        else:
            await asyncio.sleep(0)
        self._turned_at = time.perf_counter()
        moved, self._stirred = self._stirred, False
        return moved

    def _look_first(self) -> None:
        """The loop reads whenever it has its turn; who cannot await does not give it one."""

    def _look_first_plan(self) -> Plan[None]:
        if self._sock is not None and time.perf_counter() - self._turned_at > _HELD_UP:
            yield Call(self._let_read)

    def _read_dry(self) -> None:
        """As `_look_first`."""

    def _read_dry_plan(self) -> Plan[None]:
        for _ in range(blocking._LEFTOVERS):
            if self._sock is None:
                return
            self._stirred = False
            yield Call(self._let_read)
            if not self._stirred:
                return

    async def _let_read(self) -> None:
        """Have the loop look at its sockets: what is ready then has its turn after this task's first."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._turned_at = time.perf_counter()

    def _send_stale(self) -> None:
        """Send what nobody has flushed: it may be what the peer waits for."""
        with self._io:
            wire = self._wire
            stale = wire is not None and not self._done and self._stale_output(wire)
        if stale:
            self._flush()

    def _stir(self) -> None:
        """Something moved."""
        self._stirred = True
        loop = self._loop
        if self._napping and loop is not None and not self._is_here():
            _tell(loop, _if_alive, weakref.ref(self), ConnectionAsync._stir)
            return
        for future in self._napping:
            _wake(future)
        if self._closing is not None:
            self._closing.poke()

    def _wake_all(self) -> None:
        super()._wake_all()
        self._stir()

    def _check_loop(self) -> None:
        """Raises RuntimeError on another loop than the one it connected on. When that one was closed, so is the transport:
        the connection is lost."""
        loop = self._loop
        if self._done or running_loop(self) is loop or loop is None:
            return
        if not loop.is_closed():
            raise RuntimeError(f"this connection belongs to another event loop, {loop!r}: await its methods there")
        self._loop_closed()

    def _loop_closed(self) -> None:
        with self._io:
            self._broken = self._broken or OSError("the event loop is closed")
            self._lose(errors.AMQPConnectionError("the event loop that the connection lived on was closed"))

    def _beside(self, awaitable: Any, done: Callable[[], object], why_not: str) -> Any:
        def over(task: asyncio.Future[Any]) -> None:
            if not task.cancelled():
                task.exception()  # is seen, or nobody wants to know any more
            done()

        task = asyncio.ensure_future(awaitable)
        task.add_done_callback(over)
        return task

    # ---- other threads --------------------------------------------------------------------------------------------

    def _is_here(self) -> bool:
        """Whether the transport may be touched: on its loop, or in that thread while the loop does not run."""
        loop = self._loop
        running = asyncio._get_running_loop()
        if running is loop or loop is None:
            return True
        return running is None and get_ident() == self._thread and not loop.is_running()

    def _flush(self) -> bool:
        """As in the blocking class; in another thread than the loop's it is left to that one."""
        if self._is_here():
            return super()._flush()
        loop = self._loop
        if self._sock is not None and loop is not None and not self._handed:
            self._handed = True
            if not _tell(loop, _if_alive, weakref.ref(self), ConnectionAsync._flush_for_others):
                self._loop_closed()
        return False

    def _flush_for_others(self) -> None:
        self._handed = False  # from now on they ask anew
        self._flush()

    # ---- keep-alive -----------------------------------------------------------------------------------------------

    def _make_keeper(self) -> Keeper:
        return _TaskKeeper(self)

    async def _keeper_gone(self, worker: Any, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        if worker is asyncio.current_task() or worker.get_loop() is not loop or worker.done():
            return
        await asyncio.wait((worker,), timeout=max(0.0, deadline - time.monotonic()))
        worker.cancel()

    # ---- connecting -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if not self._started:
            running_loop(self)  # before anything is done
        super()._start()

    def _call_out(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._limit_connecting(loop)
        try:
            self._task = loop.create_task(stepped(self._connect))
        except BaseException:  # of an eager task, which begins in there
            self._lose(errors.AMQPConnectionError("connecting was interrupted"))
            raise
        self._task.add_done_callback(self._connect_over)

    async def _connect(self) -> None:
        attempt = self._attempt = object()  # not the dialer, which holds the connection
        self._dialer = dialer = AsyncDialer(self.auth._dial_to, self._choose)
        try:
            await asyncio.sleep(0)  # a lock is held where the task is made, and eager tasks begin there
            sock = await dialer.connect()
            try:
                await asyncio.get_running_loop().create_connection(lambda: Stream(self, sock, attempt), sock=sock)
            except OSError:
                sock.close()
                raise
        except (OSError, ValueError) as error:
            self._not_connected(error)
        except Exception as error:  # of an auth object's: nobody waits for this task
            with self._io:
                self._lose(self._explain(error))

    def _connect_over(self, task: asyncio.Task[None]) -> None:
        """Whoever cancels all tasks there are may cancel this one before it has begun, and an interrupt may end it there."""
        if task is not self._task or (not task.cancelled() and task.exception() is None):
            return
        with self._io:
            self._lose(
                errors.AMQPConnectionError(f"connecting was {'cancelled' if task.cancelled() else 'interrupted'}")
            )

    def _connected(self, sock: Any) -> None:
        if sock.attempt is not self._attempt:  # of the former peer: this was redirected meanwhile
            sock.abort()
            return
        self._stream = sock
        super()._connected(sock)
        self._arm()
        self._feel_pulse()
        self._stir()

    def _feel_pulse(self) -> None:
        """Every now and then: whether the peer's host still answers."""
        stream, loop = self._stream, self._loop
        if stream is None or loop is None or self._done:
            return
        with self._io:
            if self._is_dead(stream.socket, clock()):
                return
        self._pulse = loop.call_later(LOOK_FOR_LIFE, _if_alive, weakref.ref(self), ConnectionAsync._feel_pulse)

    def _watch(self, sock: Any) -> None:
        """The loop does."""

    def _limit_connecting(self, loop: asyncio.AbstractEventLoop) -> None:
        limit = self._connect_deadline
        if limit is not None:
            left = limit - time.monotonic()
            self._limit = loop.call_later(left, _if_alive, weakref.ref(self), ConnectionAsync._too_late)

    def _too_late(self) -> None:
        """connect_timeout has passed since the start, by the loop's clock, which a test tool may have set."""
        limit, loop = self._connect_deadline, self._loop
        if limit is None or loop is None or self._done:
            return
        if limit - time.monotonic() > _EARLY:
            self._limit_connecting(loop)
            return
        with self._io:
            if self._connect_deadline is not None and not self._done:
                self._time_out()

    # ---- what the loop brings -------------------------------------------------------------------------------------

    def _section(self, act: Callable[[Wire, int], None]) -> None:
        """One critical section, which `act(wire, now)` is the inside of."""
        with self._io:
            wire = self._wire
            if wire is None or self._done:
                return
            if self._inside:
                self._torn()
                return
            self._inside = get_ident()
            try:
                self._account(wire)
                act(wire, clock())
            except Exception as error:
                self._lose(self._explain(error))
            self._inside = 0
        if self._log:
            self._write_log()
        for inbox in [*self._session_inboxes.values()]:
            if len(inbox.records) > _MANY:
                inbox.relieve()
        self._answer_drains()
        self._arm()
        self._stir()

    def _came(self, data: bytes) -> None:
        def take_in(wire: Wire, now: int) -> None:
            self._route(wire.feed(data, now))
            self._respond(wire, now, not self._blocked, ended=False)

        self._section(take_in)

    def _room(self) -> None:
        self._section(lambda wire, now: self._go_on(wire, now, ended=False))

    def _ended(self) -> None:
        self._section(lambda wire, now: self._go_on(wire, now, ended=True))

    def _go_on(self, wire: Wire, now: int, ended: bool) -> None:
        self._respond(wire, now, True, ended)

    def _dropped(self, error: Exception | None) -> None:
        with self._io:
            self._lose(self._gone(error or self._broken))

    # ---- time -----------------------------------------------------------------------------------------------------

    def _begin_to_beat(self) -> None:
        """The loop's timer does it: see `_arm`."""

    def _arm(self) -> None:
        """Have the engine looked at when it wants to be. An earlier timer stays: it will see that there is nothing to do."""
        wire, loop = self._wire, self._loop
        if wire is None or loop is None or self._done:
            return
        due = wire.engine.deadline
        if due >= NEVER or self._timer_due <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = loop.call_later(
            max(0, due - clock()) / 1000, _if_alive, weakref.ref(self), ConnectionAsync._on_timer
        )

    def _on_timer(self) -> None:
        self._timer_due = NEVER
        self._timer = None
        wire, loop = self._wire, self._loop
        if wire is None or loop is None:
            return
        if clock() < wire.engine.deadline:
            self._arm()
            return
        # Some loops look at timers before they look at sockets. A peer that was heard while user code held the loop up has
        # not been silent, so the judgement comes after another look.
        self._timer = loop.call_later(_LOOK, _if_alive, weakref.ref(self), ConnectionAsync._judge)

    def _judge(self) -> None:
        self._timer = None

        def tick(wire: Wire, now: int) -> None:
            self._route(wire.tick(now, dry=True))
            self._go_on(wire, now, ended=False)

        self._section(tick)

    # ---- the end --------------------------------------------------------------------------------------------------

    def _lose(self, error: Exception, torn: bool = False) -> None:
        super()._lose(error, torn)
        task, self._task = self._task, None
        loop = self._loop
        if task is not None and loop is not None and not loop.is_closed() and task is not asyncio.current_task(loop):
            task.cancel()
            self._cancelled = task
        for timer in (self._limit, self._timer, self._pulse):
            if timer is not None:
                timer.cancel()
        self._limit = self._timer = self._pulse = None

    def _account(self, wire: Wire) -> None:
        if self._stream is None:
            return
        done, perhaps = self._stream.account()
        if done:
            wire.sent(done, clock())
        if perhaps:
            self._route(wire.perhaps_sent(perhaps, clock()))

    def _close_plan(self, timeout: float, for_good: bool = True) -> Plan[bool]:
        closed_here = yield from super()._close_plan(timeout, for_good)
        stream, self._stream = self._stream, None
        if stream is not None:  # so that nothing is left when the loop ends with this call
            yield Call(stream.gone, (_GONE_WITHIN,))
        task, self._cancelled = self._cancelled, None
        if task is not None and not task.done():
            yield Call(self._given_up, (task,))
        return closed_here

    async def _given_up(self, task: asyncio.Task[None]) -> None:
        """Wait until the task that connected has closed its sockets."""
        if task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((task,), timeout=_GONE_WITHIN)
            await asyncio.sleep(0)  # the sockets' own callbacks

    def _hang_up(self, sock: Any, wire: Wire | None) -> None:
        try:
            if wire is not None and not self._broken and not wire.output():
                wire.close()
                sock.goodbye(wire.output())
        except (TransportError, EngineError) as error:
            _logger.debug("connection %r: goodbye not said: %s", self.container_id, error)
        finally:
            sock.close()

    def _orphan(self) -> None:
        """The loop, its selector too, is the parent's: the stream is neither closed nor collected."""
        stream, self._sock = self._sock, None
        if stream is not None:
            _forked.append((stream, self._loop))
        self._stream = None
        super()._orphan()
