"""The value layer of `c_uamqp`: enumerations, native values, their makers, and reading them from the wire.

A native value knows its AMQP type: `.type` is an `AMQPType`, `.value` the Python value, `bytes()` and `str()` a
readable text, `get_encoded_size()` its bytes on the wire; two are equal when type and value are. The makers
(`int_value(5)`, `symbol_value(b"x")`) take exactly what the type takes. They are what `types` and `utils.data_factory`
give, and may stand wherever a Python value may.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

from .._core.engine import values
from .._core.engine.types import Native
from .._public import show_as
from .enums import AMQPType

__all__ = [
    "AMQPValue", "ArrayValue", "BinaryValue", "BoolValue", "ByteValue", "CharValue", "CompositeValue", "DescribedValue",
    "DictValue", "DoubleValue", "FloatValue", "IntValue", "ListValue", "LongValue", "ShortValue", "StringValue",
    "StructBase", "SymbolValue", "TimestampValue", "UByteValue", "UIntValue", "ULongValue", "UShortValue", "UUIDValue",
]  # fmt: skip


# ---- native values --------------------------------------------------------------------------------------------------


class StructBase:
    """Root of the native classes."""

    __slots__ = ()


class AMQPValue(StructBase, Native):
    """A native value; on its own, null. Subclasses set their content with `create(...)`, which checks it."""

    __slots__ = ("_content",)
    _type = AMQPType.NullValue
    _empty: Any = None

    def __init__(self) -> None:
        self._content: Any = self._empty

    if TYPE_CHECKING:
        create: Callable[..., None]  # each type has arguments of its own
    else:

        def create(self) -> None:
            """Makes it null."""
            self._content = None

    @property
    def type(self) -> AMQPType:
        return self._type

    @property
    def value(self) -> Any:
        """The value as Python has it."""
        return self._content

    def encoded(self, depth: int = 0) -> bytes:
        """The value on the wire, constructor first; `depth` says how many containers it stands in."""
        return values.NULL

    def element(self, depth: int) -> tuple[bytes, bytes]:
        """The constructor and the content it has inside an array: uamqp writes the widest form there."""
        return values.NULL, b""

    def get_encoded_size(self) -> int:
        return len(self.encoded())

    def clone(self) -> AMQPValue:
        """A value of its own, equal to this one."""
        copy = type(self)()
        copy._content = self._copied(self._content)
        return copy

    def _copied(self, content: Any) -> Any:
        return content

    def destroy(self) -> None:
        """Kept for code that calls it; there is nothing to free."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AMQPValue):
            raise TypeError(f"a native AMQP value compares only with another, not with {type(other).__name__}")
        return type(self) is type(other) and self.encoded() == other.encoded()

    def __str__(self) -> str:
        return "NULL"

    def __bytes__(self) -> bytes:
        return str(self).encode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class _Scalar(AMQPValue):
    """A value that one function encodes, with its constructor first."""

    __slots__ = ()
    _encoder: ClassVar[Callable[..., bytes]]

    def encoded(self, depth: int = 0) -> bytes:
        return self._encoder(self._content)

    def element(self, depth: int) -> tuple[bytes, bytes]:
        whole = self.encoded(depth)
        return whole[:1], whole[1:]

    def __str__(self) -> str:
        return str(self._content)


class BoolValue(_Scalar):
    __slots__ = ()
    _type, _empty, _encoder = AMQPType.BoolValue, False, staticmethod(values.enc_bool)

    def create(self, value: bool) -> None:
        self._content = bool(value)

    def element(self, depth: int) -> tuple[bytes, bytes]:
        return b"\x56", b"\x01" if self._content else b"\x00"

    def __str__(self) -> str:
        return "true" if self._content else "false"


class _Integer(_Scalar):
    """Any of the integers: its encoder, and the constructor of its widest form. That says all else (§1.2): the high half how
    many bytes there are, and odd ones have a sign."""

    __slots__ = ()
    _empty = 0
    _wide = 0

    def create(self, value: int) -> None:
        """Raises TypeError when it is no number, OverflowError when it is out of range."""
        number = int(value) if isinstance(value, float) else operator.index(value)
        self._encoder(number)
        self._content = number

    def element(self, depth: int) -> tuple[bytes, bytes]:
        wide = self._wide
        return bytes((wide,)), self._content.to_bytes(1 << (wide >> 4) - 5, "big", signed=bool(wide & 1))


class UByteValue(_Integer):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.UByteValue, 0x50, staticmethod(values.enc_ubyte)


class UShortValue(_Integer):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.UShortValue, 0x60, staticmethod(values.enc_ushort)


class UIntValue(_Integer):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.UIntValue, 0x70, staticmethod(values.enc_uint)


class ULongValue(_Integer):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.ULongValue, 0x80, staticmethod(values.enc_ulong)


class ByteValue(_Integer):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.ByteValue, 0x51, staticmethod(values.enc_byte)


class ShortValue(_Integer):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.ShortValue, 0x61, staticmethod(values.enc_short)


class IntValue(_Integer):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.IntValue, 0x71, staticmethod(values.enc_int)


class LongValue(_Integer):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.LongValue, 0x81, staticmethod(values.enc_long)


class TimestampValue(_Integer):
    """Milliseconds since the epoch."""

    __slots__ = ()
    _type, _wide, _encoder = AMQPType.TimestampValue, 0x83, staticmethod(values.enc_timestamp)


class DoubleValue(_Scalar):
    __slots__ = ()
    _type, _empty, _encoder = AMQPType.DoubleValue, 0.0, staticmethod(values.enc_double)

    def create(self, value: float) -> None:
        """Raises TypeError when it is no number."""
        if not isinstance(value, (int, float)):
            raise TypeError(f"must be real number, not {type(value).__name__}")
        self._content = float(value)

    def __str__(self) -> str:
        return f"{self._content:.2f}"


class FloatValue(DoubleValue):
    """A float of 32 bits: `value` is what these hold. Raises OverflowError beyond their range."""

    __slots__ = ()
    _type, _encoder = AMQPType.FloatValue, staticmethod(values.enc_float)

    def create(self, value: float) -> None:
        super().create(value)
        self._content = values.decode(values.enc_float(self._content))


class CharValue(_Scalar):
    __slots__ = ()
    _type, _empty, _encoder = AMQPType.CharValue, 0, staticmethod(values.enc_char)

    def create(self, value: int) -> None:
        """Takes a code point."""
        number = operator.index(value)
        values.enc_char(number)
        self._content = number

    @property
    def value(self) -> str:
        return chr(self._content)

    def __str__(self) -> str:
        return f"U{self._content:08X}"


class UUIDValue(_Scalar):
    __slots__ = ()
    _type, _empty, _encoder = AMQPType.UUIDValue, UUID(int=0), staticmethod(values.enc_uuid)

    def create(self, value: UUID) -> None:
        if not isinstance(value, UUID):
            raise TypeError(f"must be a UUID, not {type(value).__name__}")
        self._content = value


class _Octets(_Scalar):
    """Bytes after their number, which has four bytes in the widest form."""

    __slots__ = ()
    _empty = b""
    _wide = b""

    def element(self, depth: int) -> tuple[bytes, bytes]:
        return self._wide, len(self._content).to_bytes(4, "big") + self._content


class BinaryValue(_Octets):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.BinaryValue, b"\xb0", staticmethod(values.enc_binary)

    def create(self, value: Any) -> None:
        """Takes whatever `bytes()` takes."""
        self._content = bytes(value)

    def __len__(self) -> int:
        return len(self._content)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return _hex(self._content)


def _hex(content: bytes) -> str:
    return f"<{content.hex(' ').upper()}>"


class StringValue(_Octets):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.StringValue, b"\xb1", staticmethod(values.enc_str)

    def create(self, value: bytes) -> None:
        if not isinstance(value, (bytes, bytearray)):
            raise TypeError(f"expected bytes, {type(value).__name__} found")
        self._content = bytes(value)

    def __str__(self) -> str:
        content: bytes = self._content
        return content.decode("utf-8", "surrogateescape")


class SymbolValue(StringValue):
    __slots__ = ()
    _type, _wide, _encoder = AMQPType.SymbolValue, b"\xb3", staticmethod(values.enc_symbol)


def _wide32(constructor: int, items: list[bytes], count: int) -> tuple[bytes, bytes]:
    body = b"".join(items)
    return bytes((constructor,)), (len(body) + 4).to_bytes(4, "big") + count.to_bytes(4, "big") + body


class _Several(AMQPValue):
    """What is made of native values in order."""

    __slots__ = ()

    def __init__(self) -> None:
        self._content: list[AMQPValue] = []

    @property
    def value(self) -> list[Any]:
        return [item.value for item in self._content]

    def _copied(self, content: list[AMQPValue]) -> list[AMQPValue]:
        return [item.clone() for item in content]

    def __len__(self) -> int:
        return len(self._content)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> AMQPValue:
        if not 0 <= index < len(self._content):
            raise IndexError(f"index {index} of {len(self._content)} items")
        return self._content[index]

    def __str__(self) -> str:
        return "{" + ",".join(map(str, self._content)) + "}"


class _Items(_Several):
    """What has items of any type."""

    __slots__ = ()

    @property
    def size(self) -> int:
        return len(self._content)

    @size.setter
    def size(self, size: int) -> None:
        del self._content[size:]
        self._content += [AMQPValue() for _ in range(size - len(self._content))]

    def encoded(self, depth: int = 0) -> bytes:
        deeper = values.enter(depth)
        return values.enc_list([item.encoded(deeper) for item in self._content])

    def element(self, depth: int) -> tuple[bytes, bytes]:
        deeper = values.enter(depth)
        return _wide32(0xD0, [item.encoded(deeper) for item in self._content], len(self._content))

    def __setitem__(self, index: int, value: AMQPValue) -> None:
        if not 0 <= index < len(self._content):
            raise IndexError(f"index {index} of {len(self._content)} items: set `size` first")
        self._content[index] = _native(value)


class ListValue(_Items):
    """A list: set `size`, then assign the items; what was not assigned is null."""

    __slots__ = ()
    _type = AMQPType.ListValue

    def create(self) -> None:
        self._content = []


class CompositeValue(_Items):
    """A described list (§1.4): `create(descriptor, list_size)`, or `create_from_long(code)` for an empty one."""

    __slots__ = ("_descriptor",)
    _type = AMQPType.CompositeType

    def __init__(self) -> None:
        super().__init__()
        self._descriptor: AMQPValue = AMQPValue()

    def create(self, descriptor: AMQPValue, list_size: int) -> None:
        self._descriptor = _native(descriptor)
        self._content = [AMQPValue() for _ in range(list_size)]

    def create_from_long(self, descriptor: int) -> None:
        self._descriptor = _new(ULongValue, descriptor)
        self._content = []

    def pop(self, index: int) -> AMQPValue:
        """The item at `index`."""
        return self[index]

    def clone(self) -> CompositeValue:
        copy = CompositeValue()
        copy._content = self._copied(self._content)
        copy._descriptor = self._descriptor.clone()
        return copy

    def encoded(self, depth: int = 0) -> bytes:
        return values.enc_described(self._descriptor.encoded(depth), super().encoded(depth))

    def element(self, depth: int) -> tuple[bytes, bytes]:
        constructor, content = super().element(depth)
        return values.enc_described(self._descriptor.encoded(depth), constructor), content

    def __str__(self) -> str:
        return "* " + super().__str__()


class DictValue(AMQPValue):
    """A map with native keys, in the order in which they were set."""

    __slots__ = ()
    _type = AMQPType.DictValue

    def __init__(self) -> None:
        self._content: dict[bytes, tuple[AMQPValue, AMQPValue]] = {}

    def create(self) -> None:
        self._content = {}

    @property
    def size(self) -> int:
        return len(self._content)

    @property
    def value(self) -> dict[Any, Any]:
        return {key.value: item.value for key, item in self._content.values()}

    def get(self, index: int) -> tuple[AMQPValue, AMQPValue]:
        """The pair at `index`."""
        if not 0 <= index < len(self._content):
            raise IndexError(f"index {index} of {len(self._content)} pairs")
        return list(self._content.values())[index]

    def encoded(self, depth: int = 0) -> bytes:
        deeper = values.enter(depth)
        return values.enc_map((k.encoded(deeper), v.encoded(deeper)) for k, v in self._content.values())

    def element(self, depth: int) -> tuple[bytes, bytes]:
        deeper = values.enter(depth)
        items = [part.encoded(deeper) for pair in self._content.values() for part in pair]
        return _wide32(0xD1, items, len(items))

    def _copied(self, content: dict[bytes, tuple[AMQPValue, AMQPValue]]) -> Any:
        return {wire: (key.clone(), item.clone()) for wire, (key, item) in content.items()}

    def __len__(self) -> int:
        return len(self._content)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: AMQPValue) -> AMQPValue:
        try:
            return self._content[_native(key).encoded()][1]
        except KeyError:
            raise KeyError(f"no value for key {key}") from None

    def __setitem__(self, key: AMQPValue, value: AMQPValue) -> None:
        self._content[_native(key).encoded()] = (key, _native(value))

    def __str__(self) -> str:
        return "{" + ",".join(f"[{key}:{item}]" for key, item in self._content.values()) + "}"


class ArrayValue(_Several):
    """An array: `append` items of one type."""

    __slots__ = ()
    _type = AMQPType.ArrayValue

    def create(self) -> None:
        self._content = []

    def append(self, value: AMQPValue) -> None:
        """Raises ValueError when it is of another type than what is there."""
        _native(value)
        if self._content and self._constructor(self._content[0]) != self._constructor(value):
            raise ValueError(f"an array of {type(self._content[0]).__name__} cannot hold a {type(value).__name__}")
        self._content.append(value)

    @staticmethod
    def _constructor(item: AMQPValue) -> bytes:
        return item.element(0)[0]

    @property
    def size(self) -> int:
        return len(self._content)

    def _elements(self, depth: int) -> tuple[bytes, list[bytes]]:
        """An empty one is an array of null: §1.6.24 wants a constructor all the same."""
        deeper = values.enter(depth)
        pairs = [item.element(deeper) for item in self._content]
        return (pairs[0][0] if pairs else values.NULL), [content for _, content in pairs]

    def encoded(self, depth: int = 0) -> bytes:
        return values.enc_array(*self._elements(depth))

    def element(self, depth: int) -> tuple[bytes, bytes]:
        constructor, contents = self._elements(depth)
        return _wide32(0xF0, [constructor, *contents], len(contents))


class DescribedValue(AMQPValue):
    """A described value (§1.2): native `description` and `data`; `value` is that of the data."""

    __slots__ = ()
    _type = AMQPType.DescribedType

    def __init__(self) -> None:
        self._content: tuple[AMQPValue, AMQPValue] = (AMQPValue(), AMQPValue())

    def create(self, descriptor: AMQPValue, value: AMQPValue) -> None:
        self._content = (_native(descriptor), _native(value))

    @property
    def description(self) -> AMQPValue:
        return self._content[0]

    @property
    def data(self) -> AMQPValue:
        return self._content[1]

    @property
    def value(self) -> Any:
        return self._content[1].value

    def encoded(self, depth: int = 0) -> bytes:
        deeper = values.enter(depth)
        return values.enc_described(self.description.encoded(deeper), self.data.encoded(deeper))

    def element(self, depth: int) -> tuple[bytes, bytes]:
        deeper = values.enter(depth)
        constructor, content = self.data.element(deeper)
        return values.enc_described(self.description.encoded(deeper), constructor), content

    def _copied(self, content: tuple[AMQPValue, AMQPValue]) -> tuple[AMQPValue, AMQPValue]:
        return content[0].clone(), content[1].clone()

    def __str__(self) -> str:
        return f"* {self.data}"


def _native(value: Any) -> AMQPValue:
    if not isinstance(value, AMQPValue):
        raise TypeError(f"expected a native AMQP value, {type(value).__name__} found")
    return value


# ---- makers ---------------------------------------------------------------------------------------------------------

_V = TypeVar("_V", bound=AMQPValue)


def _new(cls: type[_V], *content: Any) -> _V:
    made = cls()
    made.create(*content)
    return made


show_as("c_uamqp", *map(globals().get, __all__))
