"""The sessions of `c_uamqp`."""

from __future__ import annotations

from typing import Any

from .. import connection, errors, session
from .._core.engine import records
from .._native.make import data_factory
from .._native.sections import cSource, cTarget
from .._native.values import StructBase
from .._public import show_as
from .common import _encoded_error, _made, _tell
from .connections import Connection
from .transports import _instance

__all__ = ["cSession", "create_session"]

# ---- sessions -------------------------------------------------------------------------------------------------------


class _NotingSession(session.Session):
    """Ours, which tells a native one of the peer's attaches."""

    def __init__(self, real: connection.Connection, owner: cSession) -> None:
        super().__init__(real)
        self._native_owner = owner

    def _attached(self, record: records.Attach) -> None:
        if record.reply:
            self._calls.add(self._native_owner._attached, record)


class cSession(StructBase):
    """A session. `_attach_received(source, target, properties, error)` is called on its context: cSource and cTarget, or None
    for one that the peer leaves out, a native map or None, and an exception when the peer refuses the link."""

    def __init__(self) -> None:
        self._real: session.Session | None = None
        self._owner: Connection | None = None
        self._context: Any = None
        self._parts: list[Any] = []  # what works on it

    def __enter__(self) -> cSession:
        return self

    def __exit__(self, *args: object) -> None:
        self.destroy()

    def begin(self) -> None:
        """Begin it."""
        real = _made(self._real, cSession)
        real._begin()
        real._connection._flush()

    def end(self, condition_value: bytes | None, description: bytes | None) -> None:
        """END, with an error if there is a condition."""
        real = _made(self._real, cSession)
        error = _encoded_error(condition_value, description)
        link = real._connection
        with real._lock, link._io:
            if error and real._begun and real._error is None and not (real._ended or link._done or link._closed):
                link._engine.end(real._id, error)
                link._session_left(real._id)
        real._end()

    def destroy(self) -> None:
        """End it and be done with it. Repeatable."""
        real, self._real = self._real, None
        if real is not None:
            real.destroy()
        if self._owner is not None and self in self._owner._sessions:
            self._owner._sessions.remove(self)

    @property
    def incoming_window(self) -> int:
        """In transfers; settable before `begin`."""
        return _made(self._real, cSession).incoming_window

    @incoming_window.setter
    def incoming_window(self, value: int) -> None:
        _made(self._real, cSession).incoming_window = value

    @property
    def outgoing_window(self) -> int:
        """In transfers; settable before `begin`."""
        return _made(self._real, cSession).outgoing_window

    @outgoing_window.setter
    def outgoing_window(self, value: int) -> None:
        _made(self._real, cSession).outgoing_window = value

    @property
    def handle_max(self) -> int:
        """The highest handle; settable before `begin`."""
        return _made(self._real, cSession).handle_max

    @handle_max.setter
    def handle_max(self, value: int) -> None:
        _made(self._real, cSession).handle_max = value

    def _work(self) -> None:
        real = self._real
        if real is None:
            return
        with real._lock:
            real._dispatch()
        real._calls.run()
        for part in list(self._parts):
            part._work()
        if not real._connection._closed:
            real._connection._flush()

    def _attached(self, record: records.Attach) -> None:
        source, target, properties = (record.fields[name] for name in ("source", "target", "properties"))
        told = data_factory(properties) if properties else None
        if (target if record.sender else source) is None:  # the other one may be missing: RabbitMQ leaves it out
            side = "target" if record.sender else "source"
            refused = errors.AMQPConnectionError(f"the peer attached without a {side}: it refuses the link")
            _tell(self._context, "_attach_received", None, None, told, refused)
            return
        given_source = None if source is None else cSource._of(data_factory(source))
        given_target = None if target is None else cTarget._of(data_factory(target))
        _tell(self._context, "_attach_received", given_source, given_target, told, None)


def create_session(connection: Connection, on_link_attached_context: Any) -> cSession:
    """A session on that connection."""
    made = cSession()
    made._real = _NotingSession(_made(_instance(Connection, "connection", connection)._real, Connection), made)
    made._owner = connection
    made._context = on_link_attached_context
    connection._sessions.append(made)
    return made


show_as("c_uamqp", *map(globals().get, __all__))
