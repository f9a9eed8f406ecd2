"""The plumbing of `c_uamqp`: connections, sessions, links and what runs on them, driven by `Connection.do_work()`.

Each is a thin coat over the class of the same job here (`connection.Connection`, `session.Session`, ...). Callbacks are
methods of the context objects that were given, looked up by name, and run inside `do_work`; one that a context does not
have is not called, and what one raises is logged.
"""

from __future__ import annotations

from typing import Any, Protocol

from .. import connection, errors
from .._core.engine import lib, records
from .._core.waiting.callbacks import Calls
from .._native.sections import _bytes
from .._native.values import AMQPValue, StructBase
from .._public import show_as
from .common import _encoded_error, _error_of, _made, _tell, _typed
from .transports import XIO, _instance

__all__ = ["Connection", "create_connection"]


# ---- connections ----------------------------------------------------------------------------------------------------


class _Worked(Protocol):
    """What `do_work` of a connection has a step of, besides the connection itself."""

    def _work(self) -> None: ...


class _Noting(connection.Connection):
    """Ours, which notes changes of its state for a native one."""

    def __init__(self, hostname: bytes, auth: Any, container_id: bytes, calls: Calls, owner: Connection) -> None:
        self._native_calls = calls
        self._native_owner = owner
        super().__init__(hostname, auth, container_id)

    def _own(self, record: Any) -> Any:
        if isinstance(record, records.ConnState):
            self._native_calls.add(self._native_owner._changed, record.old, record.new)
        elif isinstance(record, records.Close):
            self._native_calls.add(self._native_owner._peer_closed, record.error)
        return super()._own(record)


class Connection(StructBase):
    """A connection. `_state_changed(previous, new)`, numbers of `ConnectionState`, and `_io_error()`, when the transport is
    lost, are called on its context; `_close_received(error)` on what subscribed to the peer's CLOSE."""

    def __init__(self) -> None:
        self._real: connection.Connection | None = None
        self._context: Any = None
        self._listener: Any = None
        self._calls = Calls()
        self._sessions: list[_Worked] = []
        self._lost = False

    @classmethod
    def _around(cls, real: connection.Connection) -> Connection:
        """A native view of a connection of ours."""
        made = cls()
        made._real = real
        return made

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *args: object) -> None:
        self.destroy()

    def open(self) -> None:
        """Begin to connect."""
        _made(self._real, Connection)._start()

    def do_work(self) -> None:
        """One step of the connection and of everything on it, and the callbacks it gives rise to. It raises nothing that
        befell the connection: that is what the callbacks tell."""
        real = _made(self._real, Connection)
        if not real._closed:
            real._paced_step()
        for made in list(self._sessions):
            made._work()
        if real._failure is not None and not self._lost:
            self._lost = True
            if not isinstance(real._failure, errors.ConnectionClose):
                self._calls.add(_tell, self._context, "_io_error")
        self._calls.run()

    def close(self, condition_value: bytes | None, description: bytes | None) -> None:
        """CLOSE, with an error if there is a condition; waits for the peer's answer, 5 s at most."""
        real = _made(self._real, Connection)
        error = _encoded_error(condition_value, description)
        with real._io:
            if error and real._opened and not real._done:
                real._engine.close(error)
        real._flush()
        real.destroy()
        self._calls.run()

    def destroy(self) -> None:
        """Close it and be done with it. Repeatable."""
        real, self._real = self._real, None
        if real is not None:
            real.destroy()
            self._calls.run()

    def set_trace(self, value: bool) -> None:
        """Whether there is a line per frame in the log `uamqp.c_uamqp`."""
        real = _made(self._real, Connection)
        with real._io:
            real._debug = bool(value)
            real._engine.set(lib.OPT_TRACE, int(bool(value)))

    def subscribe_to_close_event(self, on_close_received: Any) -> None:
        """Call `_close_received(error)` on this object at the peer's CLOSE; the error is a cError, or None."""
        self._listener = on_close_received

    def unsubscribe_to_close_event(self) -> None:
        """No more of that."""
        self._listener = None

    @property
    def max_frame_size(self) -> int:
        """Bytes; settable before `open`."""
        return _made(self._real, Connection).max_frame_size

    @max_frame_size.setter
    def max_frame_size(self, value: int) -> None:
        _made(self._real, Connection).max_frame_size = value

    @property
    def channel_max(self) -> int:
        """The largest channel number; settable before `open`."""
        return _made(self._real, Connection).channel_max

    @channel_max.setter
    def channel_max(self, value: int) -> None:
        _made(self._real, Connection).channel_max = value

    @property
    def idle_timeout(self) -> int | None:
        """Milliseconds, or None; settable before `open`."""
        return _made(self._real, Connection).idle_timeout

    @idle_timeout.setter
    def idle_timeout(self, value: int) -> None:
        _made(self._real, Connection).idle_timeout = value

    @property
    def properties(self) -> AMQPValue | None:
        """A native map, or None; settable before `open`."""
        return _made(self._real, Connection).properties

    @properties.setter
    def properties(self, value: AMQPValue) -> None:
        _made(self._real, Connection).properties = _typed(value)

    @property
    def remote_max_frame_size(self) -> int:
        """Bytes; 512 until the peer has said."""
        return _made(self._real, Connection).remote_max_frame_size

    # from records, run by do_work

    def _changed(self, previous: int, new: int) -> None:
        _tell(self._context, "_state_changed", previous, new)

    def _peer_closed(self, error: records.Error | None) -> None:
        _tell(self._listener, "_close_received", _error_of(error))


def create_connection(sasl_client: XIO, hostname: bytes, container_id: bytes, callback_context: Any) -> Connection:
    """A connection over that transport."""
    made = Connection()
    auth = _instance(XIO, "sasl_client", sasl_client)._auth()
    made._real = _Noting(_bytes("hostname", hostname), auth, _bytes("container_id", container_id), made._calls, made)
    made._context = callback_context
    return made


show_as("c_uamqp", *map(globals().get, __all__))
