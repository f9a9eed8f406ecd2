"""The links of `c_uamqp`, and the senders and receivers on them."""

from __future__ import annotations

from functools import partial
from typing import Any

from .. import errors, receiver, sender, session
from .._core.engine import records, values
from .._native.messages import Messaging, cMessage
from .._native.sections import _bytes, cFields
from .._native.values import AMQPValue, CompositeValue, StructBase, _native
from .._public import show_as
from .._session.link import Link
from ..address import Source, Target
from ..message import Message
from .common import _error_of, _made, _tell, _typed
from .sessions import cSession
from .transports import _instance

__all__ = [
    "cLink", "cMessageReceiver", "cMessageSender", "create_link", "create_message_receiver", "create_message_sender",
]  # fmt: skip

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

    send_settle_mode: int = _link_setting(
        "send_settle_mode", "a number of `SenderSettleMode`; settable before it opens"
    )
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


show_as("c_uamqp", *map(globals().get, __all__))
