"""The makers of native values, and reading them from the wire, types kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from .._core.engine import values
from .._public import show_as
from .enums import AMQPType
from .values import (
    AMQPValue,
    ArrayValue,
    BinaryValue,
    BoolValue,
    ByteValue,
    CharValue,
    DescribedValue,
    DictValue,
    DoubleValue,
    FloatValue,
    IntValue,
    ListValue,
    LongValue,
    ShortValue,
    StringValue,
    StructBase,
    SymbolValue,
    TimestampValue,
    UByteValue,
    UIntValue,
    ULongValue,
    UShortValue,
    UUIDValue,
    _hex,
    _new,
)

__all__ = [
    "AMQPString", "array_value", "binary_value", "bool_value", "byte_value", "char_value", "create_empty_string",
    "create_string_from_value", "decode_value", "described_value", "dict_value", "double_value", "float_value",
    "from_iterable", "int_value", "list_value", "long_value", "null_value", "short_value", "string_value",
    "symbol_value", "timestamp_value", "ubyte_value", "uint_value", "ulong_value", "ushort_value", "uuid_value",
]  # fmt: skip


def null_value() -> AMQPValue:
    return AMQPValue()


def bool_value(value: bool) -> BoolValue:
    return _new(BoolValue, value)


def ubyte_value(value: int) -> UByteValue:
    return _new(UByteValue, value)


def ushort_value(value: int) -> UShortValue:
    return _new(UShortValue, value)


def uint_value(value: int) -> UIntValue:
    return _new(UIntValue, value)


def ulong_value(value: int) -> ULongValue:
    return _new(ULongValue, value)


def byte_value(value: int) -> ByteValue:
    return _new(ByteValue, value)


def short_value(value: int) -> ShortValue:
    return _new(ShortValue, value)


def int_value(value: int) -> IntValue:
    return _new(IntValue, value)


def long_value(value: int) -> LongValue:
    return _new(LongValue, value)


def float_value(value: float) -> FloatValue:
    return _new(FloatValue, value)


def double_value(value: float) -> DoubleValue:
    return _new(DoubleValue, value)


def char_value(value: int) -> CharValue:
    return _new(CharValue, value)


def timestamp_value(value: int) -> TimestampValue:
    """Milliseconds since the epoch."""
    return _new(TimestampValue, value)


def uuid_value(value: UUID) -> UUIDValue:
    return _new(UUIDValue, value)


def binary_value(value: Any) -> BinaryValue:
    return _new(BinaryValue, value)


def string_value(value: bytes) -> StringValue:
    return _new(StringValue, value)


def symbol_value(value: bytes) -> SymbolValue:
    return _new(SymbolValue, value)


def list_value() -> ListValue:
    return ListValue()


def dict_value() -> DictValue:
    return DictValue()


def array_value() -> ArrayValue:
    return ArrayValue()


def described_value(descriptor: AMQPValue, value: AMQPValue) -> DescribedValue:
    return _new(DescribedValue, descriptor, value)


# ---- from the wire, types kept --------------------------------------------------------------------------------------


def _made(cls: type[AMQPValue], content: Any) -> AMQPValue:
    made = cls()
    made._content = content
    return made


class _Decimal(AMQPValue):
    """A decimal (§1.6.13 to §1.6.15), carried as its bytes: `value` is these."""

    __slots__ = ()
    _type = AMQPType.UnknownType

    def encoded(self, depth: int = 0) -> bytes:
        code, content = self.element(depth)
        return code + content

    def element(self, depth: int) -> tuple[bytes, bytes]:
        content: bytes = self._content
        return {4: b"\x74", 8: b"\x84", 16: b"\x94"}[len(content)], content

    def __str__(self) -> str:
        return _hex(self._content)


def _scalar(cls: type[AMQPValue], kind: int) -> Any:
    plain = values.COMPAT[kind]

    def read(n: int, word: Any, buf: bytes, table: Any) -> AMQPValue:
        return _made(cls, plain(n, word, buf, table))

    return read


def _read_null(n: int, word: Any, buf: bytes, table: Any) -> AMQPValue:
    return AMQPValue()


def _read_char(n: int, word: Any, buf: bytes, table: Any) -> AMQPValue:
    return _made(CharValue, n)


def _read_list(n: int, word: Any, buf: bytes, table: Any) -> AMQPValue:
    return _made(ListValue, values.COMPAT[21](n, word, buf, table))


def _read_map(n: int, word: Any, buf: bytes, table: Any) -> AMQPValue:
    content = {}
    for _ in range(n):
        key = values.read_next(word, buf, table)
        content[key.encoded()] = (key, values.read_next(word, buf, table))
    return _made(DictValue, content)


def _read_described(n: int, word: Any, buf: bytes, table: Any) -> AMQPValue:
    descriptor = values.read_next(word, buf, table)
    return _made(DescribedValue, (descriptor, values.read_next(word, buf, table)))


def _read_array(n: int, word: Any, buf: bytes, table: Any) -> AMQPValue:
    descriptors = [values.read_next(word, buf, table) for _ in range(word() >> 8)]
    items = [values.read_next(word, buf, table) for _ in range(n)]
    for descriptor in reversed(descriptors):
        items = [_made(DescribedValue, (descriptor, item)) for item in items]
    return _made(ArrayValue, items)


_NATIVE = (
    _read_null,
    *(
        _scalar(cls, kind)
        for kind, cls in enumerate((BoolValue, UByteValue, UShortValue, UIntValue, ByteValue, ShortValue, IntValue), 1)
    ),
    _read_char,
    *(
        _scalar(cls, kind)
        for kind, cls in enumerate(
            (
                FloatValue, ULongValue, LongValue, TimestampValue, DoubleValue, UUIDValue, _Decimal, _Decimal, _Decimal,
                BinaryValue, StringValue, SymbolValue,
            ),
            9,
        )
    ),
    _read_list,
    _read_map,
    _read_array,
    _read_described,
)  # fmt: skip


def decode_value(data: bytes) -> AMQPValue:
    """The one encoded value in `data` as a native value, every type kept. Raises ValueError when malformed."""
    value: AMQPValue = values.read_one(data, _NATIVE)
    return value


# ---- the rest of the value layer ------------------------------------------------------------------------------------


class AMQPString(StructBase):
    """A string that can be appended to."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes = b"") -> None:
        self._content = content

    def append(self, other: AMQPString | bytes) -> None:
        self._content += bytes(other)

    def clone(self) -> AMQPString:
        return AMQPString(self._content)

    def destroy(self) -> None:
        """Kept for code that calls it; there is nothing to free."""

    def __bytes__(self) -> bytes:
        return self._content

    def __str__(self) -> str:
        return self._content.decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AMQPString):
            raise TypeError(f"an AMQPString compares only with another, not with {type(other).__name__}")
        return self._content == other._content


def create_empty_string() -> AMQPString:
    return AMQPString()


def create_string_from_value(value: str | bytes, encoding: str = "UTF-8") -> AMQPString:
    return AMQPString(value.encode(encoding) if isinstance(value, str) else bytes(value))


def from_iterable(items: Iterable[AMQPValue]) -> ListValue:
    """A native list of native values."""
    made = ListValue()
    made._content = list(items)
    return made


def _list(value: Any, encoding: str, depth: int) -> AMQPValue:
    deeper = values.enter(depth)
    return from_iterable(_native(item, encoding, deeper) for item in value)


def _dict(value: Mapping[Any, Any], encoding: str, depth: int) -> AMQPValue:
    deeper = values.enter(depth)
    made = dict_value()
    for key, item in value.items():
        made[_native(key, encoding, deeper)] = _native(item, encoding, deeper)
    return made


def _bytes(value: bytes) -> AMQPValue:
    return string_value(value) if values.is_utf8(value) else binary_value(value)


def _native(value: Any, encoding: str, depth: int) -> AMQPValue:
    if value is None:
        return null_value()
    native = getattr(value, "c_data", value)
    if isinstance(native, AMQPValue):
        return native
    if isinstance(value, bool):
        return bool_value(value)
    if isinstance(value, values.Symbol):
        return symbol_value(values.utf8(value))
    if isinstance(value, values.Described):
        described = _native(value.value, encoding, values.enter(depth))
        return described_value(_native(value.descriptor, encoding, depth), described)
    if isinstance(value, str):
        return _bytes(value.encode(encoding) if encoding != "UTF-8" else values.utf8(value))
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, UUID):
        return uuid_value(value)
    if isinstance(value, bytearray):
        return binary_value(value)
    if isinstance(value, int):
        return decode_value(values.encode(value))
    if isinstance(value, float):
        return double_value(value)
    if isinstance(value, Mapping):
        return _dict(value, encoding, depth)
    if isinstance(value, (list, set, frozenset, tuple)):
        return _list(value, encoding, depth)
    if isinstance(value, datetime):
        return timestamp_value(values.milliseconds(value))
    raise TypeError(f"{type(value).__qualname__} has no AMQP type")


def data_factory(value: Any, encoding: str = "UTF-8") -> AMQPValue:
    """Any Python value as a native one: what it is on the wire. None gives null. Raises TypeError for what has no AMQP
    type, OverflowError for ints beyond 64 bits, ValueError for values nested too deep.

    >>> str(data_factory({"a": [1, True]}))
    '{[a:{1,true}]}'
    """
    return _native(value, encoding, 0)


show_as("c_uamqp", *map(globals().get, __all__))
