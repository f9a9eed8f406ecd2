"""Messages: what a client sends and receives.

A `Message` that is one bytes body and nothing else is the common case and made to cost next to nothing: its bytes are
in `_raw`, and no other object exists for it. Whatever else it is given, or asked for, makes it an ordinary message:
`_raw` is None and the sections stand in slots of their own. A received message holds its payload; each section is
decoded when first looked at, and a section nobody looked at, or changed, goes out again as it came in.
"""

from __future__ import annotations

import codecs
import copy
import operator
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from . import constants, errors, utils
from ._arguments import what, wrong
from ._core.engine import engine, sections, values
from ._core.engine.sections import Sections, data_section
from ._core.engine.values import NULL, Native
from ._native import enums
from ._native.make import decode_value
from ._native.values import AMQPValue
from ._typing import Attribute
from .constants import Delivery, DeliveryOutcome, MessageBodyType, MessageState
from .types import AMQPType

if TYPE_CHECKING:
    from ._native.messages import cHeader, cMessage, cProperties
else:
    cHeader = cMessage = cProperties = Any  # what evaluates annotations need not have them loaded

Id: TypeAlias = str | bytes | bytearray | int | UUID | AMQPType | AMQPValue
Settler = Callable[[errors.MessageResponse], Any]

_WAITING = MessageState.WaitingToBeSent
_SENT = MessageState.WaitingForSendAck
_COMPLETE = MessageState.SendComplete
_FAILED = MessageState.SendFailed
_UNSETTLED = MessageState.ReceivedUnsettled
_SETTLED = MessageState.ReceivedSettled

# A section that was received and not looked at. It is not a private object() so that it survives pickling.
_UNREAD: Any = ...


_DATA8 = sections.PREFIX[sections.DATA] + b"\xa0"
_DATA32 = sections.PREFIX[sections.DATA] + b"\xb0"


def _text(data: Any) -> str:
    return data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else str(data)


# ---- bodies ---------------------------------------------------------------------------------------------------------


class MessageBody:
    """The body of a message: its sections, encoded. `c_message` is the received message that it belongs to, if any."""

    __slots__ = ("_encoding", "_parts", "_received")
    _type = enums.MessageBodyType.NoneType
    _code = 0

    def __init__(self, c_message: Sections | None, encoding: str = "UTF-8") -> None:
        self._encoding = encoding
        self._received = c_message  # None from the first change on
        self._parts: list[bytes] = [] if c_message is None else self._read(c_message)

    def _read(self, received: Sections) -> list[bytes]:
        return received.raw_all(self._code)

    @property
    def type(self) -> enums.MessageBodyType:
        return self._type

    @property
    def data(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say what it holds")

    def _encode(self) -> bytes:
        """The sections; those that came in go out as they came."""
        return self._made() if self._received is None else self._received.whole(self._code)

    def _made(self) -> bytes:
        prefix = sections.PREFIX[self._code]
        return b"".join([part for raw in self._parts for part in (prefix, raw)])

    def _at(self, index: int) -> bytes:
        if not 0 <= index < len(self._parts):
            raise IndexError(f"index {index} of {len(self._parts)} sections")
        return self._parts[index]

    def __repr__(self) -> str:
        sizes = sum(map(len, self._parts))
        return f"<{type(self).__name__} of {len(self._parts)} sections, {sizes} bytes>"


class DataBody(MessageBody):
    """Data sections: `data` gives their bytes, one by one."""

    __slots__ = ()
    _type = enums.MessageBodyType.DataType
    _code = sections.DATA

    def _read(self, received: Sections) -> list[bytes]:
        return received.data()

    def append(self, data: str | bytes) -> None:
        """Adds a section; as in uamqp, what is neither str nor bytes is ignored."""
        if isinstance(data, str):
            data = data.encode()
        if isinstance(data, bytes):
            self._received = None
            self._parts.append(bytes(data))

    @property
    def data(self) -> Iterator[bytes]:
        yield from self._parts

    def _made(self) -> bytes:
        return b"".join([data_section(part) for part in self._parts])

    def __len__(self) -> int:
        return len(self._parts)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> bytes:
        return self._at(index)

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)

    def __str__(self) -> str:
        return "".join(map(_text, self._parts))


class SequenceBody(MessageBody):
    """AMQP sequences: `data` gives their lists, one by one."""

    __slots__ = ()
    _type = enums.MessageBodyType.SequenceType
    _code = sections.AMQP_SEQUENCE

    def append(self, data: list[Any]) -> None:
        """Adds a section. Raises TypeError for what is no list, or holds what has no AMQP type."""
        if not isinstance(data, list):
            raise TypeError(f"an amqp-sequence section is a list, not {type(data).__name__}")
        self._parts.append(_encoded_body(data, self._encoding))
        self._received = None

    @property
    def data(self) -> Iterator[list[Any]]:
        return map(sections.sequence, self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> list[Any]:
        return sections.sequence(self._at(index))

    def __bytes__(self) -> bytes:
        items = [item for part in self.data for item in part]
        return b"".join([item if isinstance(item, bytes) else str(item).encode() for item in items])

    def __str__(self) -> str:
        return "".join([_text(item) for part in self.data for item in part])


class ValueBody(MessageBody):
    """One AMQP value: `data` is that value as Python has it."""

    __slots__ = ()
    _type = enums.MessageBodyType.ValueType
    _code = sections.AMQP_VALUE

    def set(self, value: Any) -> None:
        """Raises TypeError for what has no AMQP type."""
        self._parts = [_encoded_body(value, self._encoding)]
        self._received = None

    @property
    def data(self) -> Any:
        return sections.value_of(self._code, self._parts[0]) if self._parts else None

    def __bytes__(self) -> bytes:
        value = self.data
        return value if isinstance(value, bytes) else str(self).encode()

    def __str__(self) -> str:
        value = self.data
        return _text(value) if value else ""


def _encoded_body(value: Any, encoding: str) -> bytes:
    try:
        return values.encode(value, encoding)
    except TypeError as error:
        raise TypeError(f"message body: {error}") from error


def _make_body(body: Any, body_type: MessageBodyType | None) -> MessageBody:
    """The body object for what was given as a body. str are always UTF-8 here, whatever the message's encoding."""
    if body_type is None:
        if isinstance(body, (str, bytes)) or _only_text(body):
            body_type = MessageBodyType.Data
        else:
            body_type = MessageBodyType.Value
    if body_type is MessageBodyType.Data:
        return _make_data(body)
    if body_type is MessageBodyType.Sequence:
        return _make_sequence(body)
    if body_type is MessageBodyType.Value:
        value = ValueBody(None)
        value.set(body)
        return value
    raise ValueError(f"body_type must be a MessageBodyType, not {body_type!r}")


def _only_text(body: Any) -> bool:
    return isinstance(body, list) and all(isinstance(item, (str, bytes)) for item in body)


def _make_data(body: Any) -> DataBody:
    made = DataBody(None)
    if isinstance(body, (str, bytes)):
        made.append(body)
    elif _only_text(body):
        for item in body or [b""]:  # §3.2 wants at least one section: an empty list is one of no bytes
            made.append(item)
    else:
        raise TypeError("for MessageBodyType.Data the body must be str, bytes or a list of these")
    return made


def _make_sequence(body: Any) -> SequenceBody:
    if not isinstance(body, list):
        raise TypeError("for MessageBodyType.Sequence the body must be a list or a list of lists")
    made = SequenceBody(None)
    for item in body if body and all(isinstance(item, list) for item in body) else [body]:
        made.append(item)
    return made


# ---- properties (§3.2.4) --------------------------------------------------------------------------------------------


def _encode_id(value: Any) -> bytes:
    kind = type(value)
    if kind is str:
        return values.enc_str(value)
    if kind is int and value >= 0:  # of the integers only ulong may be an id
        return values.enc_ulong(value)
    return values.encode(value)


def _encode_string(value: str | bytes) -> bytes:
    if type(value) is bytes and not values.is_utf8(value):
        raise ValueError("the bytes are not UTF-8, which an AMQP string must be")
    return values.enc_str(value)


def _encode_binary(value: str | bytes) -> bytes:
    return values.enc_binary(values.utf8(value) if isinstance(value, str) else value)


_PROPERTIES: tuple[tuple[str, Callable[[Any], bytes]], ...] = (
    ("message_id", _encode_id),
    ("user_id", _encode_binary),
    ("to", _encode_id),
    ("subject", _encode_string),
    ("reply_to", _encode_id),
    ("correlation_id", _encode_id),
    ("content_type", values.symbol_names.__getitem__),
    ("content_encoding", values.symbol_names.__getitem__),
    ("absolute_expiry_time", values.enc_timestamp),
    ("creation_time", values.enc_timestamp),
    ("group_id", _encode_string),
    ("group_sequence", values.enc_uint),
    ("reply_to_group_id", _encode_string),
)
_PROPERTY_ENCODERS = tuple(encoder for _, encoder in _PROPERTIES)
_COUNT = len(_PROPERTIES)
_ABSENT = [NULL] * _COUNT


def _any_property(index: int) -> Any:
    """A field that takes whatever has an AMQP type."""
    name = _PROPERTIES[index][0]

    def put(self: MessageProperties, value: Any) -> None:
        self._change()[index] = value if value is None else self._any(name, value)

    return property(lambda self: self._get(index), put, doc=f"The {name.replace('_', '-')} field.")


def _text_property(index: int) -> Any:
    """A field that takes str or bytes."""
    name = _PROPERTIES[index][0]

    def put(self: MessageProperties, value: str | bytes | None) -> None:
        self._change()[index] = value if value is None else self._text(name, value)

    return property(lambda self: self._get(index), put, doc=f"The {name.replace('_', '-')} field.")


def _list_of(code: int, section: Any) -> bytes:
    """The encoded list of a section that is given as such, or as a native object."""
    encoded = section.encoded() if isinstance(section, Native) else bytes(section)
    return encoded.removeprefix(sections.PREFIX[code])


def _int_property(index: int) -> Any:
    """A field that takes an int."""
    name = _PROPERTIES[index][0]

    def put(self: MessageProperties, value: int | None) -> None:
        self._change()[index] = value if value is None else self._int(name, value)

    return property(lambda self: self._get(index), put, doc=f"The {name.replace('_', '-')} field.")


class MessageProperties:
    """The standard properties of a message (§3.2.4), all optional.

    str and bytes are the same to every field, and read back as bytes. Times are milliseconds since the epoch. An int as
    `message_id` or `correlation_id` is sent as ulong. `properties` wraps native ones, or received ones (their encoded
    list). Raises TypeError for a value that a field cannot take.
    """

    __slots__ = ("__dict__", "__weakref__", "_encoding", "_fields", "_received", "_wire")

    def __init__(
        self,
        message_id: Id | None = None,
        user_id: str | bytes | None = None,
        to: Id | None = None,
        subject: str | bytes | None = None,
        reply_to: Id | None = None,
        correlation_id: Id | None = None,
        content_type: str | bytes | None = None,
        content_encoding: str | bytes | None = None,
        absolute_expiry_time: int | None = None,
        creation_time: int | None = None,
        group_id: str | bytes | None = None,
        group_sequence: int | None = None,
        reply_to_group_id: str | bytes | None = None,
        properties: bytes | cProperties | None = None,
        encoding: str = "UTF-8",
    ) -> None:
        self._encoding = encoding
        self._received: list[Any] | None = None  # what the peer sent, as Python has it; read on first need
        self._wire: bytes | None = None  # the encoded list, until a field changes
        if properties is not None:
            self._wire = properties if type(properties) is bytes else _list_of(sections.PROPERTIES, properties)
            self._fields: list[Any] | None = None
            return
        fields: list[Any] = [None] * _COUNT
        self._fields = fields
        if message_id is not None:
            fields[0] = self._any("message_id", message_id)
        if user_id is not None:
            fields[1] = self._text("user_id", user_id)
        if to is not None:
            fields[2] = self._any("to", to)
        if subject is not None:
            fields[3] = self._text("subject", subject)
        if reply_to is not None:
            fields[4] = self._any("reply_to", reply_to)
        if correlation_id is not None:
            fields[5] = self._any("correlation_id", correlation_id)
        if content_type is not None:
            fields[6] = self._text("content_type", content_type)
        if content_encoding is not None:
            fields[7] = self._text("content_encoding", content_encoding)
        if absolute_expiry_time is not None:
            fields[8] = self._int("absolute_expiry_time", absolute_expiry_time)
        if creation_time is not None:
            fields[9] = self._int("creation_time", creation_time)
        if group_id is not None:
            fields[10] = self._text("group_id", group_id)
        if group_sequence is not None:
            fields[11] = self._int("group_sequence", group_sequence)
        if reply_to_group_id is not None:
            fields[12] = self._text("reply_to_group_id", reply_to_group_id)

    message_id: Any = _any_property(0)
    user_id: Attribute[bytes | None, str | bytes | None] = _text_property(1)
    to: Any = _any_property(2)
    subject: Attribute[bytes | None, str | bytes | None] = _text_property(3)
    reply_to: Any = _any_property(4)
    correlation_id: Any = _any_property(5)
    content_type: Attribute[bytes | None, str | bytes | None] = _text_property(6)
    content_encoding: Attribute[bytes | None, str | bytes | None] = _text_property(7)
    absolute_expiry_time: int | None = _int_property(8)
    creation_time: int | None = _int_property(9)
    group_id: Attribute[bytes | None, str | bytes | None] = _text_property(10)
    group_sequence: int | None = _int_property(11)
    reply_to_group_id: Attribute[bytes | None, str | bytes | None] = _text_property(12)

    def _any(self, name: str, value: Any) -> Any:
        """What a field of any type keeps: the value where that is unambiguous and cannot change, else a native one."""
        kind = type(value)
        if kind is str:
            return value if self._encoding == "UTF-8" else value.encode(self._encoding)
        if kind is bytes or kind is int or kind is UUID:
            return value
        try:
            return utils.data_factory(value, encoding=self._encoding)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from error

    def _text(self, name: str, value: str | bytes) -> str | bytes:
        if isinstance(value, str):
            if self._encoding == "UTF-8":
                return value if type(value) is str else str.__str__(value)
            return value.encode(self._encoding)
        if isinstance(value, bytes):
            return value
        raise TypeError(f"{name} must be bytes or str, not {type(value).__name__}")

    def _int(self, name: str, value: int) -> int:
        if isinstance(value, int):
            return value
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")

    def _get(self, index: int) -> Any:
        if self._fields is None:
            received = self._received
            if received is None:
                received = self._received = self._read()
            return received[index] if index < len(received) else None
        value = self._fields[index]
        if type(value) is str:
            return values.utf8(value)
        return value.value if isinstance(value, AMQPValue) else value

    def _read(self) -> list[Any]:
        return sections.fields_of(sections.PROPERTIES, self._wire or b"")

    def _change(self) -> list[Any]:
        """The fields, about to be changed. Received ones keep the AMQP types they came with."""
        if self._fields is None:
            wire = self._wire or b""
            native = decode_value(wire)._content if self._read() else []
            fields = [None if type(item) is AMQPValue else item for item in native]
            self._fields = (fields + [None] * _COUNT)[:_COUNT]
        self._wire = None
        return self._fields

    def _encode(self) -> bytes:
        """The list (§3.2.4). Nothing in here can change behind our back, so it is made once."""
        wire = self._wire
        if wire is not None:
            return wire
        parts = _ABSENT.copy()
        used = 0
        for index, value in enumerate(self._fields or ()):
            if value is not None:
                used = index + 1
                try:
                    if type(value) is str:
                        parts[index] = _PROPERTY_ENCODERS[index](value)
                    elif isinstance(value, Native):
                        parts[index] = value.encoded(1)
                    else:
                        parts[index] = _PROPERTY_ENCODERS[index](value)
                except (TypeError, ValueError, OverflowError) as error:
                    raise values.explained(error, f"properties, {_PROPERTIES[index][0]}") from error
        self._wire = wire = values.enc_list(parts[:used])
        return wire

    def get_properties_obj(self) -> cProperties:
        """The section as a native object."""
        from ._native.messages import load_properties

        return load_properties(decode_value(self._encode()))

    def _as_dict(self) -> dict[str, Any]:
        return {name: self._get(index) for index, (name, _) in enumerate(_PROPERTIES)}

    def __str__(self) -> str:
        return str(self._as_dict())

    def __repr__(self) -> str:
        """The names of the fields that are set; ids and addresses may be secrets."""
        if self._fields is None and self._received is None:
            return f"<{type(self).__name__} as received>"
        names = [name for index, (name, _) in enumerate(_PROPERTIES) if self._get(index) is not None]
        return f"<{type(self).__name__} {', '.join(names) or 'empty'}>"

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("_encoding", "_fields", "_received", "_wire"):
            state[name] = getattr(self, name)
        if self._fields is not None:
            state["_fields"] = self._fields.copy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_fields" not in state:  # pickled by uamqp: what each field reads as
            state = dict(state)
            given = {name: state.pop(name, None) for name, _ in _PROPERTIES}
            MessageProperties.__init__(self, **given, encoding=state["_encoding"])
        for name, value in state.items():
            setattr(self, name, value)


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


# ---- header (§3.2.1) ------------------------------------------------------------------------------------------------


def _whole(value: Any) -> int:
    """A number of the header; as in uamqp a float is cut, since that is what seconds times 1000 often are."""
    return int(value) if isinstance(value, float) else operator.index(value)


class MessageHeader:
    """The transport header: `delivery_count`, `time_to_live` (ms), `first_acquirer`, `durable`, `priority`. Attributes
    left None are sent as null. `header` wraps a native one, or a received one (its encoded list), and nothing else counts then."""

    def __init__(
        self,
        header: bytes | cHeader | None = None,
        *,
        durable: bool | None = None,
        priority: int | None = None,
        time_to_live: int | None = None,
        first_acquirer: bool | None = None,
        delivery_count: int | None = 0,
    ) -> None:
        self.delivery_count: int | None = delivery_count
        self.time_to_live: int | None = time_to_live
        self.first_acquirer: bool | None = first_acquirer
        self.durable: bool | None = durable
        self.priority: int | None = priority
        if header is not None:
            fields = sections.fields_of(sections.HEADER, _list_of(sections.HEADER, header))
            fields += [None] * (5 - len(fields))
            self.durable, self.priority, self.time_to_live, self.first_acquirer, count = fields[:5]
            self.delivery_count = count or 0
            if self.priority is None:
                self.priority = 4  # §3.2.1: the default

    @property
    def ttl(self) -> int | None:
        return self.time_to_live

    def _encode(self) -> bytes:
        try:
            return values.enc_list(
                (
                    NULL if self.durable is None else values.enc_bool(self.durable),
                    NULL if self.priority is None else values.enc_ubyte(_whole(self.priority)),
                    NULL if self.time_to_live is None else values.enc_uint(_whole(self.time_to_live)),
                    NULL if self.first_acquirer is None else values.enc_bool(self.first_acquirer),
                    NULL if self.delivery_count is None else values.enc_uint(_whole(self.delivery_count)),
                )
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise values.explained(error, "header") from error

    def get_header_obj(self) -> cHeader:
        """The section as a native object."""
        from ._native.messages import cHeader

        return cHeader._of(decode_value(self._encode()))

    def _as_dict(self) -> dict[str, Any]:
        return {
            "delivery_count": self.delivery_count,
            "time_to_live": self.time_to_live,
            "first_acquirer": self.first_acquirer,
            "durable": self.durable,
            "priority": self.priority,
        }

    def __str__(self) -> str:
        return str(self._as_dict())

    def __repr__(self) -> str:
        fields = ("durable", "priority", "time_to_live", "first_acquirer", "delivery_count")
        return f"MessageHeader({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"


# ---- messages -------------------------------------------------------------------------------------------------------


def _check_mapping(what: str, value: Any) -> None:
    if value and type(value) is not dict and not isinstance(value, Mapping):
        raise wrong(what, value, "a dict", "{name: value}")


def _encoding(name: Any) -> str:
    """Raises TypeError or ValueError for what Python knows no encoding by."""
    if not isinstance(name, str):
        raise wrong("encoding", name, "the name of an encoding", 'encoding="UTF-8"')
    try:
        codecs.lookup(name)
    except LookupError as error:
        raise ValueError(f"encoding: Python knows none that is called {name!r}: write encoding=\"UTF-8\"") from error
    return name


def _header_of(header: MessageHeader | None, durable: bool | None) -> MessageHeader | None:
    """The header of a message for which `durable` was given: one of its own."""
    if durable is None:
        return header
    if header is None:
        return MessageHeader(durable=durable)
    if not isinstance(header, MessageHeader):
        return header  # which is told where it is set
    header = copy.copy(header)
    header.durable = durable
    return header


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
        durable: bool | None = None,  # keyword-only would cost every message a look into a dict
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
        check = engine.check_message
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
        from ._native.messages import cMessage

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


_SECTIONS_IN_UAMQP = (
    "properties", "application_properties", "annotations", "header", "footer", "delivery_annotations",
)  # fmt: skip
_PREFIX_HEADER = sections.PREFIX[sections.HEADER]
_PREFIX_PROPERTIES = sections.PREFIX[sections.PROPERTIES]


def _put_header(parts: list[bytes], header: Any, received: Sections | None) -> None:
    """The header; a received one that is still what it was goes out as it came."""
    if received is not None and (header is _UNREAD or _unchanged_header(header, received)):
        parts.append(received.whole(sections.HEADER))
    elif header is not None:
        parts += (_PREFIX_HEADER, header._encode())


def _unchanged_header(header: MessageHeader | None, received: Sections) -> bool:
    if header is None:
        return received.is_null(sections.HEADER)
    try:
        raw = received.raw(sections.HEADER)
        return raw is not None and sections.same(header._as_dict(), MessageHeader(raw)._as_dict())
    except errors.MessageDecodeError:  # it was replaced
        return False


def _put_received_properties(parts: list[bytes], properties: Any, received: Sections) -> None:
    """The properties of a received message: as they came unless they were changed or replaced."""
    wire = None if properties is None or properties is _UNREAD else properties._encode()
    if properties is _UNREAD or received.raw_all(sections.PROPERTIES) == [NULL if wire is None else wire]:
        parts.append(received.whole(sections.PROPERTIES))
    elif wire is not None:
        parts += (_PREFIX_PROPERTIES, wire)


def _unchanged_map(mapping: Any, received: Sections, code: int) -> bool:
    if mapping is None:
        return received.is_null(code)
    try:
        return sections.same(mapping, received.mapping(code))
    except errors.MessageDecodeError:
        return False


def _put_map(parts: list[bytes], code: int, mapping: Any, received: Sections | None, encoding: str) -> None:
    """A section that is a map. A received one that is still what it was keeps the AMQP types it came with."""
    if received is not None and (mapping is _UNREAD or _unchanged_map(mapping, received, code)):
        parts.append(received.whole(code))
    elif mapping:
        try:
            _check_mapping("it", mapping)
            if code == sections.APPLICATION_PROPERTIES:
                parts += (sections.PREFIX[code], values.string_map(mapping, encoding))
            else:
                parts += (sections.PREFIX[code], values.symbol_map(mapping, encoding))
        except (TypeError, ValueError, OverflowError) as error:
            raise values.explained(error, sections._NAMES[code]) from error


def _single(data: bytes) -> Generator[bytes, None, None]:
    yield data


class BatchMessage(Message):
    """Many messages sent as one transfer, each encoded into a data section of an envelope.

    Args:
        data: an iterable of what is to be sent: messages, objects with a `.message` or an `encode_message()`, or
            bodies. It is read at each `gather()`, so a list may still be appended to.
        properties, annotations, header: of the envelope.
        application_properties: for every item that has none of its own; not for the envelope.
        multi_messages: make as many messages as it takes, instead of raising when one is not enough.
        encoding: as in `Message`.
        durable: as in `Message`, of the envelope.

    `max_message_length` bounds a message in bytes, of which `size_offset` are kept free.
    """

    batch_format = constants.BATCH_MESSAGE_FORMAT
    max_message_length = constants.MAX_MESSAGE_LENGTH_BYTES
    size_offset = 0
    if not TYPE_CHECKING:
        _format = property(lambda self: self.batch_format)

    def __init__(
        self,
        data: Iterable[Any] | None = None,
        properties: MessageProperties | None = None,
        application_properties: dict[Any, Any] | None = None,
        annotations: dict[Any, Any] | None = None,
        header: MessageHeader | None = None,
        multi_messages: bool = False,
        encoding: str = "UTF-8",
        *,
        durable: bool | None = None,
    ) -> None:
        self._state = _WAITING
        self.on_send_complete: Callable[[Any, Any], Any] | None = None
        self._rest = None
        self._raw = None
        self._held = None
        self._own_properties = self._own_application_properties = None
        self._encoding = encoding
        self._multi_messages = multi_messages
        one = isinstance(data, (str, bytes, bytearray, Mapping, Message))
        if one or not (data is None or hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
            raise wrong("the data of a batch", data, "an iterable of messages or bodies", "BatchMessage([...])")
        self._body_gen: Any = data
        self.properties = properties
        self.application_properties = application_properties
        self.annotations = annotations
        self.header = _header_of(header, durable)

    def _set_as_in_uamqp(self, state: dict[str, Any]) -> dict[str, Any]:
        names = ("properties", "application_properties", "annotations", "header", "multi_messages", "encoding")
        BatchMessage.__init__(self, state.pop("_body_gen"), **{name: state.pop("_" + name) for name in names})
        del state["_need_further_parse"]
        return state

    @property
    def data(self) -> Any:
        """The iterable that was given."""
        return self._body_gen

    def get_data(self) -> Any:
        """The iterable that was given."""
        return self._body_gen

    def __str__(self) -> str:
        return str(self._body_gen)

    def _repr_body(self) -> list[str]:
        data = self._body_gen
        count = f"{len(data)} items" if isinstance(data, (list, tuple)) else f"items of {what(data)}"
        return [count, "multi_messages=True"] if self._multi_messages else [count]

    def encode_message(self) -> bytes:
        """The one message that this batch makes. Raises TypeError when it may be several: encode what `gather()`
        gives."""
        if self._multi_messages:
            raise TypeError("a batch of several messages has no one encoding: encode each of gather()")
        (message,) = self.gather()
        return message.encode_message()

    def _create_batch_message(self) -> Message:
        """An empty envelope."""
        envelope = Message(
            b"",
            properties=self._own_properties,
            annotations=self._annotations,
            header=self._header,
            msg_format=self.batch_format,
            encoding=self._encoding,
        )
        envelope._held = DataBody(None)
        envelope.on_send_complete = self.on_send_complete
        return envelope

    def _envelope_size(self, envelope: Message) -> int:
        held, envelope._held = envelope._held, None
        size = envelope.get_message_encoded_size()
        envelope._held = held
        return size + self.size_offset

    def _encoded_items(self) -> Iterator[bytes]:
        given = self._own_application_properties
        if self._body_gen is None:
            raise wrong("the data of a batch", None, "an iterable of messages or bodies", "BatchMessage([...])")
        for item in self._body_gen:
            if type(item) is bytes and not given:
                yield data_section(item)
                continue
            message = item if isinstance(item, Message) else getattr(item, "message", item)
            if not hasattr(message, "encode_message"):
                message = Message(body=message, encoding=self._encoding)
            if given and not message.application_properties:
                message.application_properties = given
            yield message.encode_message()

    def gather(self) -> Iterable[Message]:
        """The message of the batch in a list, or with `multi_messages` a generator of as many as it takes. Raises
        `MessageContentTooLarge` when the batch, or with `multi_messages` one item of it, does not fit."""
        return self._many() if self._multi_messages else [self._one()]

    def _one(self) -> Message:
        envelope = self._create_batch_message()
        parts = envelope._held._parts
        size = self._envelope_size(envelope)
        for item in self._encoded_items():
            size += len(item)
            if size > self.max_message_length:
                raise errors.MessageContentTooLarge()
            parts.append(item)
        return envelope

    def _many(self) -> Iterator[Message]:
        envelope = self._create_batch_message()
        empty = size = self._envelope_size(envelope)
        for item in self._encoded_items():
            if empty + len(item) > self.max_message_length:
                raise errors.MessageContentTooLarge()
            if size + len(item) > self.max_message_length:
                yield envelope
                envelope = self._create_batch_message()
                size = empty
            envelope._held._parts.append(item)
            size += len(item)
        yield envelope
