"""The properties of messages (§3.2.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from .._core.engine import sections, values
from .._core.engine.types import Native
from .._core.engine.values import NULL
from .._native.make import data_factory, decode_value
from .._native.values import AMQPValue
from .._typing import Attribute
from ..types import AMQPType

if TYPE_CHECKING:
    from .._native.sections import cProperties
else:
    cProperties = Any  # for who evaluates annotations

Id: TypeAlias = str | bytes | bytearray | int | UUID | AMQPType | AMQPValue


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
            return data_factory(value, encoding=self._encoding)
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
        from .._native.messages import load_properties

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
