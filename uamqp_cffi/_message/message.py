"""Messages: what a client sends and receives.

A `Message` that is one bytes body and nothing else is the common case and made to cost next to nothing: its bytes are
in `_raw`, and no other object exists for it. Whatever else it is given, or asked for, makes it an ordinary message:
`_raw` is None and the sections stand in slots of their own. A received message holds its payload; each section is
decoded when first looked at, and a section nobody looked at, or changed, goes out again as it came in.
"""

from __future__ import annotations

import codecs
import operator
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import constants, errors
from .._arguments import wrong
from .._core.engine import lib, sections
from .._core.engine.sections import Sections, data_section
from .._core.engine.values import NULL
from ..constants import Delivery, DeliveryOutcome, MessageBodyType, MessageState
from .bodies import DataBody, MessageBody, SequenceBody, ValueBody, _make_body, _text
from .encode import (
    _PREFIX_PROPERTIES,
    _SECTIONS_IN_UAMQP,
    _UNREAD,
    _check_mapping,
    _put_header,
    _put_map,
    _put_received_properties,
)
from .header import MessageHeader, _header_of
from .properties import MessageProperties

if TYPE_CHECKING:
    from .._native.messages import cMessage
    from .._native.sections import cHeader, cProperties
else:
    cHeader = cMessage = cProperties = Any  # what evaluates annotations need not have them loaded


Settler = Callable[[errors.MessageResponse], Any]

_WAITING = MessageState.WaitingToBeSent
_SENT = MessageState.WaitingForSendAck
_COMPLETE = MessageState.SendComplete
_FAILED = MessageState.SendFailed
_UNSETTLED = MessageState.ReceivedUnsettled
_SETTLED = MessageState.ReceivedSettled

_DATA8 = sections.PREFIX[sections.DATA] + b"\xa0"
_DATA32 = sections.PREFIX[sections.DATA] + b"\xb0"


class Loss:
    """What messages came back for without an outcome: one for all that a client lost together. `error` is what its calls
    raise for it, None until one does; `unknown` counts those that the peer may have."""

    __slots__ = ("error", "unknown")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.unknown: int = 0

    def candidates(self) -> str:
        """For an error of the peer's about one message: which it may be."""
        if self.unknown == 1:
            return "one message had no outcome: it is the first of pending_messages"
        return (
            f"{self.unknown} messages had no outcome: the first {self.unknown} of pending_messages; if the peer refuses one of them, "
            "sending them one by one finds it"
        )


def _encoding(name: Any) -> str:
    """Raises TypeError or ValueError for what Python knows no encoding by."""
    if not isinstance(name, str):
        raise wrong("encoding", name, "the name of an encoding", 'encoding="UTF-8"')
    try:
        codecs.lookup(name)
    except LookupError as error:
        raise ValueError(f'encoding: Python knows none that is called {name!r}: write encoding="UTF-8"') from error
    return name


def format_of(value: Any) -> int:
    """Raises TypeError for what is no integer, ValueError for one that has no room in a message-format."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise wrong("msg_format", value, "an integer")
    number = operator.index(value)
    if not 0 <= number <= 0xFFFFFFFF:
        raise ValueError(f"msg_format is a number from 0 to 4294967295, not {number}")
    return number


def _seldom(name: str, default: Any, doc: str | None = None) -> property:
    """An attribute that few messages have more than the default of: it stands in `_rest`, and costs the others
    nothing."""

    def get(self: Message) -> Any:
        rest = self._rest
        return default if rest is None else rest.get(name, default)

    def put(self: Message, value: Any) -> None:
        if self._rest is None:
            self._rest = {name: value}
        else:
            self._rest[name] = value

    return property(get, put, doc=doc)


class Message:
    """A message to be sent, or one that was received.

    Args:
        body: str or bytes (one data section), a list of these (a section each), or anything else with an AMQP type (an
            amqp-value section). The body is encoded now: later changes to a list or dict given here do not count.
        properties: `MessageProperties`.
        application_properties: dict with str keys. Encoded when the message is sent.
        annotations: dict of message annotations; str and bytes keys are sent as symbols, ints as ulong.
        header: `MessageHeader`.
        msg_format: message-format of the transfer (default 0).
        message, settler, delivery_no: for a received message: its encoding or native object, the function that sends its outcome (None
            when there is nothing to settle), its delivery-id. All else but `encoding` is ignored then.
        encoding: how str in properties and annotations become bytes; bodies are always UTF-8.
        body_type: `constants.MessageBodyType`, to choose the section.
        footer, delivery_annotations: dicts, keys as in `annotations`.
        durable: True asks the broker to keep the message over a restart; as `MessageHeader(durable=...)`.

    Raises TypeError for a body or section of a type that cannot be sent, ValueError for an unknown `body_type`.

    `state` is a `constants.MessageState`; `delivery` a `constants.Delivery` once it is on its way; `retries` counts
    re-sends; `on_send_complete(result, exception)` is called when a send has ended; `delivery_no` and `delivery_tag`
    are those of a received message.

    >>> message = Message(b"hello", application_properties={"n": 1})
    >>> message.encode_message().hex()
    '005374c10602a1016e5401005375a00568656c6c6f'
    """

    # Python 3.13 and newer make room for every attribute named here in every object, also for those that are slots and
    # properties, unless the class keeps no list of them: 200 bytes a message.
    global __static_attributes__

    # `_raw`: the body, when the message is one bytes body and nothing else; the slots of the sections and
    # `_held` are not set then. `_held`: the body otherwise: bytes (one data section), a MessageBody, None (no body), or
    # _UNREAD. `_rest`: what few messages have, by name, or None.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_held",
        "_own_application_properties",
        "_own_properties",
        "_raw",
        "_rest",
        "_state",
        "on_send_complete",
    )

    if TYPE_CHECKING:
        idle_time: float
        retries: int
        delivery_tag: bytes | None
        delivery_no: Any  # an int; None for a message that was not received
    else:
        idle_time = _seldom("idle_time", 0)
        retries = _seldom("retries", 0, "How often the message was sent again.")
        delivery_tag = _seldom("delivery_tag", None, "The delivery-tag of a received message.")
        delivery_no = _seldom("delivery_no", None, "The delivery-id of a received message.")
    _encoding = _seldom("_encoding", "UTF-8")
    _format = _seldom("_format", 0)
    _header = _seldom("_header", None)
    _annotations = _seldom("_annotations", None)
    _footer = _seldom("_footer", None)
    _delivery_annotations = _seldom("_delivery_annotations", None)
    _sections = _seldom("_sections", None)
    _answer = _seldom("_answer", None)
    _fate = _seldom("_fate", None)
    _loss = _seldom("_loss", None)

    def __init__(
        self,
        body: Any = None,
        properties: MessageProperties | None = None,
        application_properties: dict[Any, Any] | None = None,
        annotations: dict[Any, Any] | None = None,
        header: MessageHeader | None = None,
        msg_format: int | None = None,
        message: bytes | Sections | cMessage | None = None,
        settler: Settler | None = None,
        delivery_no: int | None = None,
        encoding: str = "UTF-8",
        body_type: MessageBodyType | None = None,
        footer: dict[Any, Any] | None = None,
        delivery_annotations: dict[Any, Any] | None = None,
        *,
        durable: bool | None = None,
    ) -> None:
        self._state = _WAITING
        self.on_send_complete: Callable[[Any, Any], Any] | None = None
        self._rest: dict[str, Any] | None = None
        if (
            type(body) is bytes
            and properties is None
            and application_properties is None
            and annotations is None
            and header is None
            and msg_format is None
            and message is None
            and body_type is None
            and footer is None
            and delivery_annotations is None
            and delivery_no is None
            and encoding == "UTF-8"
            and durable is None
        ):
            self._raw: bytes | None = body
            return
        self._raw = None
        if encoding.lower() not in ("utf-8", "utf8") if isinstance(encoding, str) else True:
            self._encoding = _encoding(encoding)
        if delivery_no is not None:
            self.delivery_no = delivery_no
        if message is not None:
            self._receive(message, settler)
            return
        self._held: Any
        if type(body) is bytes and body_type is None:
            self._held = body
        else:
            self._held = _make_body(body, body_type)
        self._own_properties: Any = None
        self._own_application_properties: Any = application_properties
        if properties is not None:
            self.properties = properties
        if application_properties is not None and type(application_properties) is not dict:
            _check_mapping("application properties", application_properties)
        if annotations is not None:
            self.annotations = annotations
        if header is not None or durable is not None:
            self.header = _header_of(header, durable)
        if footer is not None:
            self.footer = footer
        if delivery_annotations is not None:
            self.delivery_annotations = delivery_annotations
        if msg_format:
            self._format = format_of(msg_format)

    @property
    def _properties(self) -> Any:
        return None if self._raw is not None else self._own_properties

    @_properties.setter
    def _properties(self, value: Any) -> None:
        self._own_properties = value

    @property
    def _application_properties(self) -> Any:
        return None if self._raw is not None else self._own_application_properties

    @_application_properties.setter
    def _application_properties(self, value: Any) -> None:
        self._own_application_properties = value

    @property
    def _need_further_parse(self) -> bool:
        """Whether it came in and its body was not looked at, as uamqp calls it."""
        return self._raw is None and self._held is _UNREAD

    # -- received messages --

    def _receive(self, message: bytes | Sections | cMessage, settler: Settler | None) -> None:
        if isinstance(message, Sections):
            received = message
        else:
            received = Sections(bytes(message), getattr(message, "message_format", 0))
            tag = getattr(message, "delivery_tag", None)
            if tag is not None:
                self.delivery_tag = tag.value
        rest = {
            "_sections": received,
            "_format": received.message_format,
            "_settler": settler,
            "_header": _UNREAD,
            "_annotations": _UNREAD,
            "_delivery_annotations": _UNREAD,
            "_footer": _UNREAD,
        }
        if self._rest is None:
            self._rest = rest
        else:
            self._rest.update(rest)
        self._state = _SETTLED if settler is None else _UNSETTLED
        self._held = self._own_properties = self._own_application_properties = _UNREAD

    @classmethod
    def _received_run(
        cls,
        run: Iterable[tuple[int, int | None, bytes | None, int, bool, bytes]],
        settle: Callable[[Any, errors.MessageResponse], Any] | None,
        encoding: str = "UTF-8",
        unreadable: list[Message] | None = None,
    ) -> list[Message]:
        """Messages as they came in, made of `records.Delivery`. `settle(delivery_id, response)` gets an
        `errors.MessageAccepted` or the like and sends it; an exception from it leaves the message unsettled. None: there is
        nothing to settle. Those that cannot be read are put into `unreadable`, too, if that is given."""
        new = cls.__new__
        check = lib.check_message
        made: list[Message] = []
        add = made.append
        other = "" if encoding.lower() in ("utf-8", "utf8") else encoding
        for _, delivery_no, tag, message_format, settled, payload in run:
            message = new(cls)
            message.on_send_complete = None
            if settled or settle is None:
                rest: dict[str, Any] = {"delivery_no": delivery_no, "delivery_tag": tag}
                message._state = _SETTLED
            else:
                rest = {"_settle": settle, "delivery_no": delivery_no, "delivery_tag": tag}
                message._state = _UNSETTLED
            message._rest = rest
            if message_format:
                rest["_format"] = message_format
            if other:
                rest["_encoding"] = other
            add(message)
            head = payload[:4]  # a data section and nothing else?
            if head == _DATA8 and len(payload) > 4 and len(payload) == 5 + payload[4]:
                message._raw = payload[5:]
            elif head == _DATA32 and len(payload) > 263 and len(payload) == 8 + int.from_bytes(payload[4:8], "big"):
                message._raw = payload[8:]
            else:
                message._raw = None
                rest["_sections"] = Sections(payload, message_format)
                rest["_header"] = rest["_annotations"] = rest["_delivery_annotations"] = rest["_footer"] = _UNREAD
                message._held = message._own_properties = message._own_application_properties = _UNREAD
                if unreadable is not None and check(payload, len(payload)):
                    unreadable.append(message)
        return made

    @classmethod
    def _received(
        cls,
        payload: bytes,
        settler: Settler | None = None,
        delivery_no: int | None = None,
        delivery_tag: bytes | None = None,
        message_format: int = 0,
        encoding: str = "UTF-8",
    ) -> Message:
        """One of them, with a `settler(response)` of its own."""
        (made,) = cls._received_run(((0, delivery_no, delivery_tag, message_format, True, payload),), None, encoding)
        if settler is not None:
            made._state = _UNSETTLED
            made._settler = settler
        return made

    @classmethod
    def decode_from_bytes(cls, data: bytes | bytearray) -> Message:
        """A message from its encoding, in state ReceivedSettled. Raises ValueError when it is none, TypeError for what
        is neither bytes nor bytearray."""
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"expected bytes, {type(data).__name__} found")
        found = Sections(bytes(data))
        found.check()
        return cls(message=found)

    def _is_unreadable(self) -> bool:
        """Whether it came in, and looking at some part of it raises."""
        received: Sections | None = self._sections
        return received is not None and not received.readable()

    def _lookup(self, code: int) -> bytes | None:
        """The encoded value of a section; None when there is none, or null in its place."""
        received = self._sections
        raw: bytes | None = None if received is None else received.raw(code)
        return None if raw == NULL else raw

    def _read_properties(self) -> MessageProperties | None:
        """Those that came in: checked here, so that who looks at one field knows that the others can be looked at, too."""
        raw = self._lookup(sections.PROPERTIES)
        if raw is None:
            return None
        made = MessageProperties(properties=raw, encoding=self._encoding)
        made._received = made._read()
        return made

    def _lookup_map(self, code: int) -> Any:
        received = self._sections
        return None if received is None else received.mapping(code)

    # -- sections --

    def _expand(self) -> None:
        """From one bytes body to an ordinary message with it as its body."""
        self._held, self._raw = self._raw, None
        self._own_properties = self._own_application_properties = None

    @property
    def properties(self) -> MessageProperties | None:
        if self._raw is not None:
            return None
        if self._own_properties is _UNREAD:
            self._own_properties = self._read_properties()
        properties: MessageProperties | None = self._own_properties
        return properties

    @properties.setter
    def properties(self, value: MessageProperties | None) -> None:
        if value and not isinstance(value, MessageProperties):
            raise wrong("properties", value, "MessageProperties", "MessageProperties(subject=...)")
        if self._raw is not None:
            self._expand()
        self._own_properties = value or None

    @property
    def header(self) -> MessageHeader | None:
        if self._raw is not None:
            return None
        header: MessageHeader | None = self._header
        if header is _UNREAD:
            raw = self._lookup(sections.HEADER)
            self._header = header = None if raw is None else MessageHeader(header=raw)
        return header

    @header.setter
    def header(self, value: MessageHeader | None) -> None:
        if value and not isinstance(value, MessageHeader):
            raise wrong("header", value, "a MessageHeader", "MessageHeader(durable=True)")
        if self._raw is not None:
            self._expand()
        self._header = value or None

    @property
    def application_properties(self) -> dict[Any, Any] | None:
        if self._raw is not None:
            return None
        if self._own_application_properties is _UNREAD:
            self._own_application_properties = self._lookup_map(sections.APPLICATION_PROPERTIES)
        found: dict[Any, Any] | None = self._own_application_properties
        return found

    @application_properties.setter
    def application_properties(self, value: dict[Any, Any] | None) -> None:
        _check_mapping("application properties", value)
        if self._raw is not None:
            self._expand()
        self._own_application_properties = value

    @property
    def annotations(self) -> dict[Any, Any] | None:
        if self._raw is not None:
            return None
        found: dict[Any, Any] | None = self._annotations
        if found is _UNREAD:
            self._annotations = found = self._lookup_map(sections.MESSAGE_ANNOTATIONS)
        return found

    @annotations.setter
    def annotations(self, value: dict[Any, Any] | None) -> None:
        _check_mapping("message annotations", value)
        if self._raw is not None:
            self._expand()
        self._annotations = value

    @property
    def message_annotations(self) -> dict[Any, Any] | None:
        return self.annotations

    @property
    def footer(self) -> dict[Any, Any] | None:
        found: dict[Any, Any] | None = self._footer
        if found is _UNREAD:
            self._footer = found = self._lookup_map(sections.FOOTER)
        return found

    @footer.setter
    def footer(self, value: dict[Any, Any] | None) -> None:
        _check_mapping("footer", value)
        if self._raw is not None:
            self._expand()
        self._footer = value

    @property
    def delivery_annotations(self) -> dict[Any, Any] | None:
        found: dict[Any, Any] | None = self._delivery_annotations
        if found is _UNREAD:
            self._delivery_annotations = found = self._lookup_map(sections.DELIVERY_ANNOTATIONS)
        return found

    @delivery_annotations.setter
    def delivery_annotations(self, value: dict[Any, Any] | None) -> None:
        _check_mapping("delivery annotations", value)
        if self._raw is not None:
            self._expand()
        self._delivery_annotations = value

    # -- body --

    @property
    def _body(self) -> MessageBody | None:
        if self._raw is not None:
            self._expand()  # whoever has the body object can append to it
        held = self._held
        if type(held) is bytes:
            made = DataBody(None)
            made.append(held)
            self._held = made
        elif held is _UNREAD:
            self._held = self._read_body()
        body: MessageBody | None = self._held
        return body

    def _read_body(self) -> MessageBody | None:
        received = self._sections
        code = None if received is None else received.body_code()
        for kind in (DataBody, SequenceBody, ValueBody):
            if kind._code == code:
                return kind(received, self._encoding)
        return None

    def get_data(self) -> Any:
        """The body: a generator of bytes (data sections) or lists (sequences), the value, or None without a body."""
        raw = self._raw
        if raw is not None:
            return _single(raw)
        body = self._body
        return None if body is None else body.data

    @property
    def data(self) -> Iterator[bytes] | None:
        """The data sections, one by one; None when the body is of another kind."""
        raw = self._raw
        if raw is not None:
            return _single(raw)
        body = self._body
        return body.data if isinstance(body, DataBody) else None

    @property
    def sequence(self) -> Iterator[list[Any]] | None:
        """The sequences, one by one; None when the body is of another kind."""
        if self._raw is not None:
            return None
        body = self._body
        return body.data if isinstance(body, SequenceBody) else None

    @property
    def value(self) -> Any:
        """The value; None when the body is of another kind."""
        if self._raw is not None:
            return None
        body = self._body
        return body.data if isinstance(body, ValueBody) else None

    def __str__(self) -> str:
        raw = self._raw
        return _text(raw) if raw is not None else str(self._body)

    def __repr__(self) -> str:
        """What it is; never what is in it, and nothing of it is decoded for that."""
        parts = [self.state.name, *self._repr_body()]
        if self.retries:
            parts.append(f"retries={self.retries}")
        if self.delivery_no is not None:
            parts.append(f"delivery_no={self.delivery_no}")
        return f"<{type(self).__name__} {', '.join(parts)}>"

    def _repr_body(self) -> list[str]:
        if self._raw is not None:
            return [f"{len(self._raw)} bytes"]
        held = self._held
        if held is _UNREAD:
            received: Sections | None = self._sections
            return [] if received is None else [f"{len(received.payload)} bytes encoded"]
        if type(held) is bytes:
            return [f"{len(held)} bytes"]
        if held is None:
            return ["no body"]
        return [f"{type(held).__name__} of {sum(map(len, held._parts))} bytes"]

    # -- encoding --

    def encode_message(self) -> bytes:
        """The whole message, sections in the order of §3.2. Made anew at every call, since the dicts given to it may
        have changed. Raises TypeError for a value without an AMQP type, ValueError or OverflowError for one that does
        not fit its type: each names the section and the key."""
        raw = self._raw
        if raw is not None:
            return data_section(raw)
        rest = self._rest
        received: Sections | None = None
        encoding = "UTF-8"
        parts: list[bytes] = []
        if rest is not None:
            received = rest.get("_sections")
            encoding = rest.get("_encoding", encoding)
            header, deliver, annotations = map(rest.get, ("_header", "_delivery_annotations", "_annotations"))
            if header is not None or received is not None:
                _put_header(parts, header, received)
            if deliver is not None or received is not None:
                _put_map(parts, sections.DELIVERY_ANNOTATIONS, deliver, received, encoding)
            if annotations is not None or received is not None:
                _put_map(parts, sections.MESSAGE_ANNOTATIONS, annotations, received, encoding)
        properties = self._own_properties
        if received is not None:
            _put_received_properties(parts, properties, received)
        elif properties is not None:
            parts += (_PREFIX_PROPERTIES, properties._encode())
        if self._own_application_properties is not None or received is not None:
            _put_map(parts, sections.APPLICATION_PROPERTIES, self._own_application_properties, received, encoding)
        held = self._held
        if type(held) is bytes:
            parts.append(data_section(held))
        elif held is _UNREAD:
            parts.append(b"" if received is None else received.body())
        elif held is not None:
            parts.append(held._encode())
        if rest is not None and (rest.get("_footer") is not None or received is not None):
            _put_map(parts, sections.FOOTER, rest.get("_footer"), received, encoding)
        return b"".join(parts)

    def get_message_encoded_size(self) -> int:
        """Bytes of the encoding."""
        return len(self.encode_message())

    def get_message(self) -> cMessage:
        """The message as a native object, one of its own."""
        from .._native.messages import cMessage

        return cMessage._received(Sections(self.encode_message(), self._format), self.delivery_tag)

    @property
    def _message(self) -> cMessage:
        return self.get_message()

    # -- sending --

    def _is_empty(self) -> bool:
        """Whether it is a batch of nothing, which has an encoding, but is no message: §3.2 wants a body."""
        return self._raw is None and type(self._held) is DataBody and not self._held._parts

    def gather(self) -> Iterable[Message]:
        """The messages that this one stands for: itself. Raises TypeError for a received one, and for one that was sent
        what became of it (`MessageAlreadySettled`, or its failure)."""
        if self._state is _WAITING and (self._rest is None or self._answer is None):
            return [self]
        if self._state in constants.RECEIVE_STATES:
            raise TypeError("only new messages can be gathered, not received ones")
        response = self._response
        if response is not None:
            raise response.with_traceback(None)  # else it would grow with each call
        return [self]

    @property
    def _response(self) -> Any:
        """What became of the message, as an exception; None while it is open. Made here for the ordinary ends, which
        need no more than the state; whoever sets SendFailed sets this as well."""
        state = self.state  # looks for an answer
        answer = self._answer
        if answer is not None:
            return answer
        if state is _COMPLETE or state is _SETTLED:
            return errors.MessageAlreadySettled()
        return None

    @_response.setter
    def _response(self, value: Any) -> None:
        self._answer = value

    @property
    def settled(self) -> bool:
        """Whether what becomes of the message is decided."""
        return bool(self._response)

    @property
    def delivery(self) -> Delivery | None:
        """What is known of a message to be sent; None for a received one. It follows from the state; what the
        connection knows better it sets after the state, and that holds while the state lasts."""
        state = self._state
        fate: tuple[MessageState, Delivery | None] | None = self._fate
        if fate is not None and fate[0] is state:
            return fate[1]
        if state is _WAITING:
            return Delivery.NOT_DELIVERED
        if state is _COMPLETE:
            return Delivery.DELIVERED
        if state is _SENT:
            return Delivery.UNKNOWN
        if state is _FAILED:
            return getattr(self._answer, "delivery", None) or Delivery.UNKNOWN
        return None

    @delivery.setter
    def delivery(self, value: Delivery | None) -> None:
        self._fate = (self._state, value)

    @property
    def error(self) -> BaseException | None:
        """Why sending the message failed: the error that says so, also of one that waits to be sent again because link, session or
        connection went away. None while there is nothing to say, and for a received message."""
        state = self.state
        if state is _FAILED:
            failure: BaseException | None = self._answer
            return failure
        loss: Loss | None = self._loss if state is _WAITING else None
        return None if loss is None else loss.error

    @property
    def outcome(self) -> DeliveryOutcome | None:
        """How the delivery of a message that was sent ended (§3.4): what the peer said of it, or that it was lost without a
        word. None while it is open, for one that timed out or could not be sent at all, and for a received one."""
        state = self.state
        if state is _COMPLETE:
            return DeliveryOutcome.ACCEPTED
        if state is _FAILED:
            return getattr(self._answer, "outcome", None)
        return DeliveryOutcome.LOST if state is _WAITING and self._loss is not None else None

    # -- settling --

    @property
    def state(self) -> MessageState:
        """A `constants.MessageState`. A received message that the peer has settled by itself is settled."""
        if self._state is _UNSETTLED and self._rest is not None:
            outcomes = getattr(getattr(self._rest.get("_settle"), "__self__", None), "_taken", None)
            if outcomes and self.delivery_no in outcomes:
                self._settled_by_peer(outcomes.pop(self.delivery_no, None))
        return self._state

    @state.setter
    def state(self, value: MessageState) -> None:
        self._state = value

    @property
    def _settler(self) -> Settler | None:
        """What sends the outcome; None when there is nothing to settle. Messages of one link share a function, and only who
        asks gets one for this message alone."""
        rest = self._rest
        if rest is None:
            return None
        own: Settler | None = rest.get("_settler")
        if own is None and (settle := rest.get("_settle")) is not None:
            return partial(settle, rest["delivery_no"])
        return own

    @_settler.setter
    def _settler(self, value: Settler | None) -> None:
        if self._rest is None:
            self._rest = {}
        self._rest["_settler"] = value
        self._rest.pop("_settle", None)

    def accept(self) -> bool:
        """Sends the accepted outcome. True when sent, False when the message was settled already. Raises TypeError for
        a message that was not received, `errors.MessageTakenBack` when the peer has settled it by itself; what the connection
        raises leaves the message unsettled. The same holds for `reject`, `release` and `modify`."""
        if self._state is _SETTLED:  # as `auto_complete` leaves it: told without a call
            rest = self._rest
            if rest is None or "_answer" not in rest:
                return False
        return self._can_settle() and self._settle(errors.MessageAccepted())

    def reject(
        self,
        condition: bytes | str | None = None,
        description: bytes | str | None = None,
        info: dict[Any, Any] | None = None,
    ) -> bool:
        """Sends the rejected outcome with an error; without a condition amqp:internal-error."""
        if not self._can_settle():
            return False
        return self._settle(errors.MessageRejected(condition, description, encoding=self._encoding, info=info))

    def release(self) -> bool:
        """Sends the released outcome."""
        return self._can_settle() and self._settle(errors.MessageReleased())

    def modify(self, failed: bool, deliverable: bool, annotations: dict[Any, Any] | None = None) -> bool:
        """Sends the modified outcome: `failed` as delivery-failed and, as in uamqp, `deliverable` unchanged as
        undeliverable-here, so True means that it shall not come here again."""
        if not self._can_settle():
            return False
        return self._settle(errors.MessageModified(failed, deliverable, annotations, encoding=self._encoding))

    def _can_settle(self) -> bool:
        if self._state is _UNSETTLED:
            return not self._answer
        if self._state is _SETTLED:
            if isinstance(self._answer, errors.MessageTakenBack):
                raise self._answer.with_traceback(None)
            return False
        raise TypeError("only received messages can be settled")

    def _settle(self, response: errors.MessageResponse) -> bool:
        settler = self._settler
        if settler is None:
            raise TypeError("this message has no way to be settled")
        try:
            settler(response)
        except errors.MessageTakenBack as taken:
            self._settled_by_peer(taken.outcome)
            raise
        self._answer = response
        self._state = _SETTLED
        return True

    def _settled_by_peer(self, outcome: DeliveryOutcome | None) -> None:
        self._answer = errors.MessageTakenBack(outcome)
        self._state = _SETTLED

    # -- copies --

    def __getstate__(self) -> dict[str, Any]:
        if self._settler is not None:
            raise TypeError(
                "a received message belongs to its connection and cannot be copied or pickled: pickle what encode_message() "
                "gives, and make a message of it with Message.decode_from_bytes(); it is settled by the one that was received"
            )
        state: dict[str, Any] = dict(self.__dict__)
        for name in Message.__slots__[2:]:
            try:
                state[name] = getattr(self, name)
            except AttributeError:  # a slot of a message that is one bytes body
                continue
        if self._rest is not None:
            state["_rest"] = self._rest.copy()  # what becomes of one of them is not what becomes of the other
            state["_rest"].pop("_loss", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_rest" not in state:
            state = self._set_as_in_uamqp(dict(state))
        for name, value in state.items():
            setattr(self, name, value)

    def _set_as_in_uamqp(self, state: dict[str, Any]) -> dict[str, Any]:
        """Takes what uamqp pickles of a message, which is its parts as Python has them; gives what is to be set besides."""
        kind = constants.BODY_TYPE_C_PYTHON_MAP.get(state.pop("_body_type"))
        Message.__init__(
            self,
            state.pop("_body"),
            body_type=kind,
            encoding=state.pop("_encoding"),
            **{name: state.pop("_" + name) for name in _SECTIONS_IN_UAMQP},
        )
        state["state"] = MessageState(state["state"])
        for name in ("_message", "_settler", "_need_further_parse"):
            del state[name]
        return state


def _single(data: bytes) -> Generator[bytes, None, None]:
    yield data
