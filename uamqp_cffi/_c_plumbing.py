"""The plumbing of `c_uamqp`: connections, sessions, links and what runs on them, driven by `Connection.do_work()`.

Each is a thin coat over the class of the same job here (`connection.Connection`, `session.Session`, ...). Callbacks are
methods of the context objects that were given, looked up by name, and run inside `do_work`; one that a context does not
have is not called, and what one raises is logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from . import c_uamqp, connection, errors, receiver, sender, session, utils
from ._c_io import XIO, _instance
from ._c_messages import Messaging, _bytes, cError, cFields, cMessage, cSource, cTarget
from ._c_values import AMQPValue, CompositeValue, DictValue, StructBase, _native
from ._core import mgmt
from ._core.engine import engine, records, values
from ._core.sending import Calls
from ._core.time import monotonic
from ._link import Link
from .address import Source, Target
from .constants import CBSAuthStatus, MessageBodyType
from .message import Message

__all__ = [
    "CBSTokenAuth",
    "Connection",
    "cLink",
    "cManagementOperation",
    "cMessageReceiver",
    "cMessageSender",
    "cSession",
    "create_connection",
    "create_link",
    "create_management_operation",
    "create_message_receiver",
    "create_message_sender",
    "create_session",
]

_T = TypeVar("_T")


def _tell(context: Any, name: str, *args: Any, **kwargs: Any) -> None:
    callback = getattr(context, name, None)
    if callback is not None:
        callback(*args, **kwargs)


def _error_of(error: records.Error | None) -> cError | None:
    """A frame's error as a native object."""
    if error is None:
        return None
    made = cError()
    made.condition = error.condition
    if error.description is not None:
        made.description = error.description
    if error.info:
        made.info = utils.data_factory(error.info)
    return made


def _encoded_error(condition: bytes | None, description: bytes | None) -> bytes:
    """The error of a frame; no condition, no error."""
    if not condition:
        return b""
    made = cError()
    made.condition = condition
    if description:
        made.description = description
    return bytes(made)


def _made(what: _T | None, cls: type[Any]) -> _T:
    if what is None:
        raise ValueError(f"this {cls.__name__} was not made by its maker, or is destroyed")
    return what


def _typed(mapping: AMQPValue | None) -> dict[Any, AMQPValue] | None:
    """A native map as a dict whose values keep their types."""
    if mapping is None:
        return None
    if not isinstance(_native(mapping), DictValue):
        raise TypeError(f"a native map is needed, not a {type(mapping).__name__}")
    return {key.value: item for key, item in mapping._content.values()}


# ---- connections ----------------------------------------------------------------------------------------------------


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
        self._sessions: list[cSession] = []
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
            real._engine.set(engine.OPT_TRACE, int(bool(value)))

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
        told = utils.data_factory(properties) if properties else None
        if (target if record.sender else source) is None:  # the other one may be missing: RabbitMQ leaves it out
            side = "target" if record.sender else "source"
            refused = errors.AMQPConnectionError(f"the peer attached without a {side}: it refuses the link")
            _tell(self._context, "_attach_received", None, None, told, refused)
            return
        given_source = None if source is None else cSource._of(utils.data_factory(source))
        given_target = None if target is None else cTarget._of(utils.data_factory(target))
        _tell(self._context, "_attach_received", given_source, given_target, told, None)


def create_session(connection: Connection, on_link_attached_context: Any) -> cSession:
    """A session on that connection."""
    made = cSession()
    made._real = _NotingSession(_made(_instance(Connection, "connection", connection)._real, Connection), made)
    made._owner = connection
    made._context = on_link_attached_context
    connection._sessions.append(made)
    return made


# ---- links ----------------------------------------------------------------------------------------------------------


class _NotingLink(Link):
    """An end of a link of ours, which tells a native one of its states and of the peer's DETACH."""

    _native_link: cLink
    _native_context: Any = None

    def on_state_changed(self, previous_state: Any, new_state: Any) -> None:
        super().on_state_changed(previous_state, new_state)
        _tell(self._native_context, "_state_changed", previous_state.value, new_state.value)

    def _on_record(self, record: records.Record) -> None:
        if type(record) is records.Detach:
            self._calls.add(self._native_link._detached, record.error)
        super()._on_record(record)

    def _fields(self) -> dict[str, bytes | None]:
        fields = super()._fields()
        first = self._native_link.initial_delivery_count
        if "initial_delivery_count" in fields and first:
            fields["initial_delivery_count"] = values.enc_uint(first)
        return fields


class _Sender(_NotingLink, sender.MessageSender):
    """The end of a native sender."""


class _Receiver(_NotingLink, receiver.MessageReceiver):
    """The end of a native receiver."""


_MODES = {"send_settle_mode": 0, "receive_settle_mode": 0, "max_message_size": 0}


def _link_setting(name: str, doc: str) -> Any:
    def get(self: cLink) -> int:
        value: int = self._given.get(name, _MODES[name])
        return value

    def put(self: cLink, value: int) -> None:
        number = int(value)
        if self._end is not None:
            setattr(self._end, name, number)
        self._given[name] = number

    return property(get, put, doc=doc)


class cLink(StructBase):
    """A link, as it will be attached: a sender or receiver is made of it. `_detach_received(error)`, a cError or None, is
    called on what subscribed to the peer's DETACH."""

    def __init__(self) -> None:
        self._session: cSession | None = None
        self._name = b""
        self._role = False
        self._source: AMQPValue = AMQPValue()
        self._target: AMQPValue = AMQPValue()
        self._given: dict[str, int] = {}
        self._properties: dict[Any, AMQPValue] | None = None
        self._capabilities: AMQPValue | None = None
        self._first = 0
        self._prefetch: int | None = None
        self._end: _Sender | _Receiver | None = None
        self._listener: Any = None

    send_settle_mode: int = _link_setting("send_settle_mode", "a number of `SenderSettleMode`; settable before it opens")
    receive_settle_mode: int = _link_setting(
        "receive_settle_mode", "a number of `ReceiverSettleMode`; settable before it opens"
    )
    max_message_size: int = _link_setting("max_message_size", "bytes, 0: none; settable before it opens")

    def __enter__(self) -> cLink:
        return self

    def __exit__(self, *args: object) -> None:
        self.destroy()

    @property
    def name(self) -> bytes:
        """Its name on the wire."""
        return self._name

    @property
    def initial_delivery_count(self) -> int:
        """Of a sender: where its delivery-count starts; settable before it opens."""
        return self._first

    @initial_delivery_count.setter
    def initial_delivery_count(self, value: int) -> None:
        values.enc_uint(value)
        self._first = int(value)

    @property
    def peer_max_message_size(self) -> int:
        """Bytes; 0 when the peer has no limit, or has not said."""
        return 0 if self._end is None else self._end._link.peer_max_message_size

    @property
    def desired_capabilities(self) -> AMQPValue | None:
        """A native value; None when not set."""
        return self._capabilities

    def set_desired_capabilities(self, desired_capabilities: AMQPValue) -> None:
        """Of the attach: a native symbol or array of symbols."""
        self._capabilities = _native(desired_capabilities)
        if self._end is not None:
            self._end._desired_capabilities = self._capabilities

    def set_attach_properties(self, properties: AMQPValue) -> None:
        """Of the attach: a native map."""
        self._properties = _typed(properties)
        if self._end is not None:
            self._end._properties = self._properties

    def set_prefetch_count(self, prefetch: int) -> None:
        """The credit of a receiver."""
        self._prefetch = int(prefetch)
        if self._end is not None:
            self._end._set_prefetch(self._prefetch)

    def reset_link_credit(self, link_credit: int, drain: bool) -> None:
        """Have a receiver's peer send so many messages from now on; see `MessageReceiver.reset_link_credit`."""
        end = self._end
        if not isinstance(end, _Receiver):
            raise ValueError("only a receiver has credit to give")
        end.reset_link_credit(link_credit, drain=drain)

    def do_work(self) -> None:
        """Take in what has come for its session, and call back."""
        _made(self._session, cLink)._work()

    def subscribe_to_detach_event(self, on_detch_received: Any) -> None:
        """Call `_detach_received(error)` on this object at the peer's DETACH."""
        self._listener = on_detch_received

    def unsubscribe_to_detach_event(self) -> None:
        """No more of that."""
        self._listener = None

    def destroy(self) -> None:
        """Detach it for good. Repeatable."""
        if self._end is not None:
            self._end.close()

    def _detached(self, error: records.Error | None) -> None:
        _tell(self._listener, "_detach_received", _error_of(error))

    def _attach_to(self, end: _Sender | _Receiver, context: Any) -> None:
        end._native_link, end._native_context = self, context
        for name, number in self._given.items():
            setattr(end, name, number)
        end._properties = self._properties
        end._desired_capabilities = self._capabilities
        if self._prefetch is not None:
            end._set_prefetch(self._prefetch)
        self._end = end

    def _settings(self, role: bool) -> tuple[cSession, session.Session]:
        if self._role is not role:
            raise ValueError(
                f"this link has the role {self._role}: {'a receiver' if self._role else 'a sender'} is made of it"
            )
        if self._end is not None:
            raise ValueError("this link has its sender or receiver already")
        owner = _made(self._session, cLink)
        return owner, _made(owner._real, cSession)


def create_link(session: cSession, name: bytes, role: bool, source: AMQPValue, target: AMQPValue) -> cLink:
    """A link: `role` False for a sender, True for a receiver; native source and target."""
    made = cLink()
    made._session = _instance(cSession, "session", session)
    made._name = _bytes("name", name)
    made._role = bool(role)
    made._source, made._target = _native(source), _native(target)
    return made


class _Worker(StructBase):
    """What works on a session: its end of a link is pumped by `Connection.do_work`."""

    def __init__(self) -> None:
        self._session: cSession | None = None
        self._end: Any = None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *args: object) -> None:
        self.destroy()

    def _join(self, owner: cSession) -> None:
        self._session = owner
        owner._parts.append(self)

    def _work(self) -> None:
        """Moves what can be moved; what broke the link is told by callbacks, not raised."""
        try:
            self._end.work()
        except errors.AMQPError:
            self._end._calls.run()

    def close(self) -> None:
        """Detach the link for good. Repeatable."""
        if self._end is not None:
            self._end.close()

    def destroy(self) -> None:
        """Detach the link and be done with it. Repeatable."""
        self.close()
        if self._session is not None and self in self._session._parts:
            self._session._parts.remove(self)

    def set_trace(self, value: bool) -> None:
        """See `Connection.set_trace`: it is the connection that has a trace."""
        owner = None if self._session is None else self._session._owner
        _made(owner, type(self)).set_trace(value)


class cMessageSender(_Worker):
    """The sending end of a link. `_state_changed(previous, new)`, numbers of `MessageSenderState`, is called on its
    context."""

    def open(self) -> None:
        """Begin to attach."""
        _made(self._end, cMessageSender).open()

    def send(self, message: cMessage, timeout: int, callback_context: Any) -> bool:
        """Hand a message over; False when the link is broken. `_on_message_sent(context, result, delivery_state=)` is called
        on the context with a number of `MessageSendResult`; `timeout` in ms, 0 for ever."""
        end = _made(self._end, cMessageSender)
        ours = Message(message=_instance(cMessage, "message", message).clone())
        sent: bool = end.send(ours, partial(self._sent, callback_context), timeout)
        return sent

    def _sent(self, context: Any, message: Message, result: int, delivery_state: Any) -> None:
        _tell(context, "_on_message_sent", context, result, delivery_state=delivery_state)


def create_message_sender(link: cLink, callback_context: Any) -> cMessageSender:
    """The sender of that link."""
    owner, real = _instance(cLink, "link", link)._settings(role=False)
    made = cMessageSender()
    name = Source.from_c_obj(link._source)
    end = _Sender(real, name.address, Target.from_c_obj(link._target), name=link._name, max_message_size=0)
    link._attach_to(end, callback_context)
    made._end = end
    made._join(owner)
    return made


class cMessageReceiver(_Worker):
    """The receiving end of a link. `_state_changed(previous, new)`, numbers of `MessageReceiverState`, is called on its
    context, `_message_received(message)` on that of `open`: with a cMessage, and a delivery state that it returns is sent."""

    def __init__(self) -> None:
        super().__init__()
        self._last = 0
        self._context: Any = None

    def open(self, callback_context: Any) -> None:
        """Begin to attach."""
        self._context = callback_context
        _made(self._end, cMessageReceiver).open()

    def last_received_message_number(self) -> int:
        """The number that settles the last message; 0 before there was one."""
        return self._last

    def settle_accepted_message(self, message_number: int) -> None:
        """Accept it. As for the others, raises MessageAlreadySettled, or an error when the link is gone."""
        self._settle(message_number, Messaging.delivery_accepted())

    def settle_rejected_message(
        self, message_number: int, error_condition: bytes, error_description: bytes, error_info: cFields | None = None
    ) -> None:
        """Reject it."""
        self._settle(message_number, Messaging.delivery_rejected(error_condition, error_description, error_info))

    def settle_released_message(self, message_number: int) -> None:
        """Release it."""
        self._settle(message_number, Messaging.delivery_released())

    def settle_modified_message(
        self, message_number: int, delivery_failed: bool, undeliverable_here: bool, annotations: cFields | None
    ) -> None:
        """Give it back modified."""
        self._settle(message_number, Messaging.delivery_modified(delivery_failed, undeliverable_here, annotations))

    def _settle(self, number: int, state: CompositeValue) -> None:
        end = _made(self._end, cMessageReceiver)
        end._settle(number, number, state.encoded())
        end._flush()

    def _received(self, message: Message) -> None:
        self._last = message.delivery_no
        state = None
        callback = getattr(self._context, "_message_received", None)
        if callback is not None:
            state = callback(message.get_message())
        if isinstance(state, CompositeValue):
            self._settle(message.delivery_no, state)


def create_message_receiver(link: cLink, callback_context: Any) -> cMessageReceiver:
    """The receiver of that link."""
    owner, real = _instance(cLink, "link", link)._settings(role=True)
    made = cMessageReceiver()
    source = Source.from_c_obj(link._source)
    target = Target.from_c_obj(link._target).address
    end = _Receiver(real, source, target, made._received, name=link._name, max_message_size=0)
    link._attach_to(end, callback_context)
    made._end = end
    made._join(owner)
    return made


# ---- requests -------------------------------------------------------------------------------------------------------

_OK, _ERROR, _BAD_STATUS, _CLOSED = 1, 2, 3, 4
_CANCELLED = 3

_Done = Callable[[int, int, "bytes | None", "cMessage | None"], object]


class _Requests(StructBase):
    """A pair of links to a node, and what waits for answers on it."""

    _status_field, _description_field = b"statusCode", b"statusDescription"

    def __init__(self) -> None:
        self._session: cSession | None = None
        self._node: mgmt.Node | None = None
        self._pending: list[tuple[mgmt.Answer, _Done]] = []
        self._opening = False
        self._opened = False
        self._broken = False
        self._calls = Calls()

    def _join(self, owner: cSession, node: bytes) -> None:
        self._node = mgmt.Node(_made(owner._real, cSession), node)
        self._session = owner
        owner._parts.append(self)

    def _open(self) -> None:
        self._opening = True
        _made(self._node, type(self)).open()

    def _submit(self, message: Message, operation: bytes, kind: bytes, locales: bytes | None, done: _Done) -> None:
        node = _made(self._node, type(self))
        if node.error is not None:
            raise node.error
        with node.session._lock:
            _, answer = node.submit(message, operation, kind, locales=locales)
        self._pending.append((answer, done))
        node.session._connection._flush()

    def _work(self) -> None:
        node = self._node
        if node is None:
            return
        failure = node.error or node.session._error or node.session._connection._failure
        if self._opening and (node.ready or failure is not None):
            self._opening = False
            self._opened = failure is None
            self._calls.add(self._open_complete, _OK if failure is None else _ERROR)
        elif self._opened and failure is not None and not self._broken:
            self._broken = True
            self._calls.add(self._went_wrong)
        waiting, self._pending = self._pending, []
        for answer, done in waiting:
            if answer.message is not None:
                self._calls.add(done, *self._read(answer.message))
            elif answer.error is not None or failure is not None:
                self._calls.add(done, _ERROR, 0, None, None)
            else:
                self._pending.append((answer, done))
        self._calls.run()

    def _read(self, message: Message) -> tuple[int, int, bytes | None, cMessage | None]:
        """Result, status, description and answer."""
        try:
            status, _, description = mgmt._read(message, self._status_field, self._description_field)
        except ValueError:
            return _ERROR, 0, None, message.get_message()
        return (_OK if 200 <= status <= 299 else _BAD_STATUS), status, description, message.get_message()

    def _open_complete(self, result: int) -> None:
        """The links are attached, or will not be."""

    def _went_wrong(self) -> None:
        """They went away."""

    def close(self) -> None:
        """Detach the links; who waits hears that it is closed. Repeatable."""
        node, self._node = self._node, None
        if node is None:
            return
        node.close()
        if self._opening:
            self._opening = False
            self._calls.add(self._open_complete, _CANCELLED)
        waiting, self._pending = self._pending, []
        for _, done in waiting:
            self._calls.add(done, _CLOSED, 0, None, None)
        if self._session is not None and self in self._session._parts:
            self._session._parts.remove(self)
        self._calls.run()

    def destroy(self) -> None:
        """Detach the links. Repeatable."""
        self.close()

    def set_trace(self, value: bool) -> None:
        """See `Connection.set_trace`: it is the connection that has a trace."""
        owner = None if self._session is None else self._session._owner
        _made(owner, type(self)).set_trace(value)


class cManagementOperation(_Requests):
    """Requests to a management node. `_management_open_complete(result)`, a number of `MgmtOpenStatus`, and
    `_management_operation_error()` are called on the context of `open`."""

    def __init__(self) -> None:
        super().__init__()
        self._context: Any = None

    def set_response_field_names(self, status_code: bytes, status_description: bytes) -> None:
        """Names of the answer's application properties with status and description."""
        self._status_field = _bytes("status_code", status_code)
        self._description_field = _bytes("status_description", status_description)

    def open(self, callback_context: Any) -> None:
        """Begin to attach the links."""
        self._context = callback_context
        self._open()

    def execute(
        self, operation: bytes, type: bytes, locales: bytes | None, message: cMessage, callback_context: _Done
    ) -> None:
        """Send a request. `callback_context(result, status, description, answer)` is called when it is over: a number of
        `MgmtExecuteResult` (Ok for a status of 200 to 299), bytes or None, a cMessage or None."""
        ours = Message(message=_instance(cMessage, "message", message).clone())
        self._submit(ours, operation, type, locales, callback_context)

    def _open_complete(self, result: int) -> None:
        _tell(self._context, "_management_open_complete", result)

    def _went_wrong(self) -> None:
        _tell(self._context, "_management_operation_error")


def create_management_operation(session: cSession, management_node: bytes) -> cManagementOperation:
    """Requests to that node of the session's peer."""
    made = cManagementOperation()
    made._join(_instance(cSession, "session", session), _bytes("management_node", management_node))
    return made


class CBSTokenAuth(_Requests):
    """Puts a token to the peer's $cbs node, and says when it has to be put again.

    audience, token_type, token: bytes. expires_at: seconds since the epoch. timeout: seconds for an answer. connection_id is
    kept. refresh_window: seconds before the end at which a refresh is due; 0: a tenth of what is left now.
    """

    _status_field, _description_field = b"status-code", b"status-description"

    def __init__(
        self,
        audience: bytes,
        token_type: bytes,
        token: bytes,
        expires_at: int,
        session: cSession,
        timeout: int,
        connection_id: bytes,
        refresh_window: int,
    ) -> None:
        super().__init__()
        self._audience = _bytes("audience", audience)
        self._token_type = _bytes("token_type", token_type)
        self._token = _bytes("token", token)
        self._timeout = timeout
        self._connection_id = connection_id
        self._window = refresh_window
        self._set_end(expires_at)
        self._status = CBSAuthStatus.Idle
        self._since = 0.0
        self._failure: tuple[int, bytes] = (0, b"")
        self._join(_instance(cSession, "session", session), b"$cbs")

    def _set_end(self, expires_at: int) -> None:
        self._expires_at = int(expires_at)
        self._margin = self._window or max(0, (self._expires_at - int(time.time())) // 10)

    def authenticate(self) -> None:
        """Put the token. `get_status` says how it goes."""
        self._status = CBSAuthStatus.InProgress
        self._since = monotonic()
        self._open()
        self._put()

    def refresh(self, refresh_token: bytes, expires_at: int) -> None:
        """Put a new token on the same links."""
        self._token = _bytes("refresh_token", refresh_token)
        self._set_end(expires_at)
        self._status = CBSAuthStatus.InProgress
        self._since = monotonic()
        self._put()

    def _put(self) -> None:
        message = Message(
            self._token.decode("utf-8", "surrogateescape"),
            application_properties={"name": self._audience},
            body_type=MessageBodyType.Value,
        )
        self._submit(message, b"put-token", self._token_type, None, self._answered)

    def _answered(self, result: int, status: int, description: bytes | None, answer: cMessage | None) -> None:
        self.on_cbs_put_token_complete(result, status, description)

    def get_status(self) -> int:
        """A number of `CBSAuthStatus`."""
        now = time.time()
        status = self._status
        if status is CBSAuthStatus.InProgress and monotonic() - self._since >= self._timeout:
            status = CBSAuthStatus.Timeout
        elif status is CBSAuthStatus.Ok and now >= self._expires_at:
            status = CBSAuthStatus.Expired
        elif status is CBSAuthStatus.Ok and self._expires_at - now <= self._margin:
            status = CBSAuthStatus.RefreshRequired
        return status.value

    def get_failure_info(self) -> tuple[int, bytes]:
        """Status code and description of the peer's refusal."""
        return self._failure

    def on_cbs_open_complete(self, result: int) -> None:
        """The links are attached (1), or will not be. Called by `do_work`."""
        if result != c_uamqp.CBS_OPEN_COMPLETE_OK:
            self._status = CBSAuthStatus.Error

    def on_cbs_error(self) -> None:
        """The links went away. Called by `do_work`."""
        self._status = CBSAuthStatus.Error

    def on_cbs_put_token_complete(self, result: int, status_code: int, status_description: bytes | None) -> None:
        """The peer has answered (1: accepted). Called by `do_work`."""
        if result == c_uamqp.CBS_OPERATION_RESULT_OK:
            self._status = CBSAuthStatus.Ok
            return
        self._failure = status_code, status_description or b""
        self._status = CBSAuthStatus.Failure if result == _BAD_STATUS else CBSAuthStatus.Error

    def set_trace(self, trace_on: bool) -> None:
        """See `Connection.set_trace`: it is the connection that has a trace."""
        super().set_trace(trace_on)

    def _open_complete(self, result: int) -> None:
        self.on_cbs_open_complete(result)

    def _went_wrong(self) -> None:
        self.on_cbs_error()
