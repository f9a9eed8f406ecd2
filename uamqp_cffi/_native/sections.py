"""The sections of messages with native values in them, sources, targets and errors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar

from .._core.engine import sections
from .._public import show_as
from .._typing import Field
from .make import (
    bool_value,
    described_value,
    string_value,
    symbol_value,
    timestamp_value,
    ubyte_value,
    uint_value,
    ulong_value,
)
from .values import AMQPValue, BinaryValue, CompositeValue, DescribedValue, DictValue, ListValue, StructBase, _native

__all__ = [
    "cAnnotations", "cApplicationProperties", "cDeliveryAnnotations", "cError", "cFields", "cFooter", "cHeader",
    "cMessageAnnotations", "cProperties", "cSource", "cTarget",
]  # fmt: skip

_C = TypeVar("_C", bound="_Composite")
_A = TypeVar("_A", bound="cAnnotations")

_RECEIVED, _ACCEPTED, _REJECTED, _RELEASED, _MODIFIED, _ERROR, _SOURCE, _TARGET = (
    0x23, 0x24, 0x25, 0x26, 0x27, 0x1D, 0x28, 0x29,
)  # fmt: skip


def _bytes(name: str, value: bytes) -> bytes:
    if not isinstance(value, (bytes, bytearray)):
        raise TypeError(f"{name}: expected bytes, {type(value).__name__} found")
    return bytes(value)


def _composite(code: int, fields: list[AMQPValue | None]) -> CompositeValue:
    """A described list; absent fields are null, and left out at the end."""
    while fields and fields[-1] is None:
        fields = fields[:-1]
    made = CompositeValue()
    made.create(ulong_value(code), len(fields))
    for index, field in enumerate(fields):
        if field is not None:
            made[index] = field
    return made


# ---- composites with a property per field ---------------------------------------------------------------------------


class _Composite(StructBase):
    """A described list whose fields are attributes; what is not set reads as None."""

    __slots__ = ("_fields",)
    _code = 0
    _count = 0

    def __init__(self) -> None:
        self._fields: list[AMQPValue | None] = [None] * self._count

    @classmethod
    def _of(cls: type[_C], value: AMQPValue) -> _C:
        """One from its native list, described or not. Raises ValueError for anything else."""
        listed = value.data if isinstance(value, DescribedValue) else value
        if not isinstance(listed, (ListValue, CompositeValue)):
            raise ValueError(f"{cls.__name__} is made of a list, not of a {type(listed).__name__}")
        made = cls()
        for index, item in enumerate(listed._content[: cls._count]):
            made._fields[index] = None if type(item) is AMQPValue else item
        return made

    def _native(self) -> CompositeValue:
        return _composite(self._code, self._fields)

    def __bytes__(self) -> bytes:
        """The encoding, with its descriptor."""
        return self._native().encoded()

    def clone(self: _C) -> _C:
        """One of its own, with the same fields."""
        copy = type(self)()
        copy._fields = [None if field is None else field.clone() for field in self._fields]
        return copy

    def destroy(self) -> None:
        """Empties it."""
        self._fields = [None] * self._count


def _field(
    index: int, make: Callable[[Any], AMQPValue], read: Callable[[AMQPValue], Any], doc: str, default: Any = None
) -> Any:
    def get(self: _Composite) -> Any:
        field = self._fields[index]
        return default if field is None else read(field)

    def put(self: _Composite, value: Any) -> None:
        self._fields[index] = make(value)

    return property(get, put, doc=doc)


def _python(field: AMQPValue) -> Any:
    return field.value


def _same(field: AMQPValue) -> AMQPValue:
    return field


def _any(index: int, doc: str) -> Any:
    """A field of any type, read and set as a native value."""
    return _field(index, _native, _same, doc)


def _text(index: int, name: str, make: Callable[[bytes], AMQPValue], doc: str, default: bytes | None = None) -> Any:
    """A string or symbol, read and set as bytes."""
    return _field(index, lambda value: make(_bytes(name, value)), _python, doc, default)


def _number(index: int, make: Callable[[int], AMQPValue], doc: str, default: int | None = None) -> Any:
    """A number. Setting raises TypeError for what is none, OverflowError out of range."""
    return _field(index, lambda value: make(operator.index(value)), _python, doc, default)


def _flag(index: int, doc: str) -> Any:
    return _field(index, lambda value: bool_value(bool(value)), _python, doc)


class cHeader(_Composite):
    """The header of a message (§3.2.1)."""

    __slots__ = ()
    _code = sections.HEADER
    _count = 5

    durable: Field[bool | None] = _flag(0, "bool")
    priority: Field[int | None] = _number(1, ubyte_value, "0 to 255; 4 when not set", 4)
    time_to_live: Field[int | None] = _number(2, uint_value, "milliseconds")
    first_acquirer: Field[bool | None] = _flag(3, "bool")
    delivery_count: Field[int | None] = _number(4, uint_value, "int")


class cProperties(_Composite):
    """The properties of a message (§3.2.4)."""

    __slots__ = ()
    _code = sections.PROPERTIES
    _count = 13

    message_id: Field[Any] = _any(0, "a native value")
    user_id: Field[Any] = _field(
        1, lambda value: _only(BinaryValue, "user_id", value), _python, "set with a native binary, read as bytes"
    )
    to: Field[Any] = _any(2, "a native value")
    subject: Field[bytes | None] = _text(3, "subject", string_value, "bytes")
    reply_to: Field[Any] = _any(4, "a native value")
    correlation_id: Field[Any] = _any(5, "a native value")
    content_type: Field[bytes | None] = _text(6, "content_type", symbol_value, "bytes")
    content_encoding: Field[bytes | None] = _text(7, "content_encoding", symbol_value, "bytes")
    absolute_expiry_time: Field[int | None] = _number(8, timestamp_value, "milliseconds since the epoch")
    creation_time: Field[int | None] = _number(9, timestamp_value, "milliseconds since the epoch")
    group_id: Field[bytes | None] = _text(10, "group_id", string_value, "bytes")
    group_sequence: Field[int | None] = _number(11, uint_value, "int")
    reply_to_group_id: Field[bytes | None] = _text(12, "reply_to_group_id", string_value, "bytes")


class cError(_Composite):
    """An error (§2.8.14): `condition` and `description` are bytes, `info` is read as a dict and set with a native map."""

    __slots__ = ()
    _code = _ERROR
    _count = 3

    condition: Field[bytes | None] = _text(0, "condition", symbol_value, "bytes")
    description: Field[bytes | None] = _text(1, "description", string_value, "bytes")
    info: Field[Any] = _field(
        2, lambda value: _only(DictValue, "info", value), _python, "a dict; set with a native map"
    )


def _only(cls: type[AMQPValue], name: str, value: AMQPValue) -> AMQPValue:
    if not isinstance(_native(value), cls):
        raise ValueError(f"{name} is a {cls.__name__}, not a {type(value).__name__}")
    return value


class _Terminus(_Composite):
    """What a source and a target have in common (§3.5.3, §3.5.4)."""

    __slots__ = ()

    address: Field[Any] = _field(0, _native, _python, "set with a native value, read as Python has it")
    durable: Field[int | None] = _number(1, uint_value, "0, 1 or 2")
    expiry_policy: Field[bytes | None] = _text(
        2, "expiry_policy", symbol_value, "bytes; b'session-end' when not set", b"session-end"
    )
    timeout: Field[int | None] = _number(3, uint_value, "seconds")
    dynamic: Field[bool | None] = _flag(4, "bool")
    dynamic_node_properties: Field[Any] = _field(
        5, lambda value: _map_of(cFields, "dynamic_node_properties", value), lambda field: cFields._of(field), "cFields"
    )

    @property
    def value(self) -> CompositeValue:
        """The terminus as a native value."""
        return self._native()


class cSource(_Terminus):
    """Where messages of a link come from."""

    __slots__ = ()
    _code = _SOURCE
    _count = 11

    distribution_mode: Field[bytes | None] = _text(6, "distribution_mode", symbol_value, "bytes")
    filter_set: Field[Any] = _field(7, lambda value: _only(DictValue, "filter_set", value), _same, "a native map")


class cTarget(_Terminus):
    """Where messages of a link go to."""

    __slots__ = ()
    _code = _TARGET
    _count = 7


# ---- maps -----------------------------------------------------------------------------------------------------------


class cAnnotations(StructBase):
    """A map with native keys and values: `map` is the dict, `value` the native one. As in uamqp any other value will do."""

    __slots__ = ("_map",)
    _code: int | None = None  # the section that it is

    def __init__(self) -> None:
        self._map: AMQPValue = AMQPValue()

    @classmethod
    def _of(cls: type[_A], value: AMQPValue) -> _A:
        made = cls()
        made.create(value)
        return made

    def create(self, value: AMQPValue) -> None:
        """Takes a native value, of a described one what it describes. Raises TypeError for what is not native."""
        given = _native(value)
        self._map = given.data if isinstance(given, DescribedValue) else given

    @property
    def value(self) -> AMQPValue:
        """The native value; that of a section is described."""
        return self._map if self._code is None else described_value(ulong_value(self._code), self._map)

    @property
    def map(self) -> dict[Any, Any] | None:
        """The map as Python has it; None for anything else."""
        mapping: dict[Any, Any] | None = self._map.value if isinstance(self._map, DictValue) else None
        return mapping

    def get_encoded_size(self) -> int:
        """Bytes on the wire."""
        return self.value.get_encoded_size()

    def clone(self: _A) -> _A:
        """One of its own, with the same content."""
        return self._of(self._map.clone())

    def destroy(self) -> None:
        """Empties it."""
        self._map = AMQPValue()


class cFields(cAnnotations):
    """A fields map (§2.8.13)."""

    __slots__ = ()


class cApplicationProperties(cAnnotations):
    """The application properties of a message (§3.2.5)."""

    __slots__ = ()
    _code = sections.APPLICATION_PROPERTIES


class cDeliveryAnnotations(cAnnotations):
    """The delivery annotations of a message (§3.2.2)."""

    __slots__ = ()
    _code = sections.DELIVERY_ANNOTATIONS


class cMessageAnnotations(cAnnotations):
    """The message annotations of a message (§3.2.3)."""

    __slots__ = ()
    _code = sections.MESSAGE_ANNOTATIONS


class cFooter(cAnnotations):
    """The footer of a message (§3.2.9)."""

    __slots__ = ()
    _code = sections.FOOTER


def _map_of(cls: type[cAnnotations], name: str, value: cAnnotations | None) -> AMQPValue:
    if not isinstance(value, cls):
        raise TypeError(f"{name} must be {cls.__name__}, not {type(value).__name__}")
    return value._map


show_as("c_uamqp", *map(globals().get, __all__))
