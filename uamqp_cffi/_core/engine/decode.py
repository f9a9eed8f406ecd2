"""AMQP bytes to Python values."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any
from uuid import UUID

from . import lib
from .types import Described, Symbol

_unpack_f32 = Struct(">f").unpack
_unpack_f64 = Struct(">d").unpack


# ---- decoding -------------------------------------------------------------------------------------------------------
# A decoder takes n (the word's upper 56 bits), the iterator over the words, the buffer, and the table it is part of.

_Word = Callable[[], int]
_Decoder = Callable[[int, _Word, bytes, Any], Any]
_Table = tuple[_Decoder, ...]

_BIAS = 1 << 31
_SIGN = 1 << 63
_MODULUS = 1 << 64


def read_next(word: _Word, buf: bytes, table: Any) -> Any:
    w = word()
    return table[w & 0xFF](w >> 8, word, buf, table)


def _null(n: int, word: _Word, buf: bytes, table: Any) -> None:
    return None


def _boolean(n: int, word: _Word, buf: bytes, table: Any) -> bool:
    return n == 1


def _unsigned(n: int, word: _Word, buf: bytes, table: Any) -> int:
    return n


def _biased(n: int, word: _Word, buf: bytes, table: Any) -> int:
    return n - _BIAS


def _char(n: int, word: _Word, buf: bytes, table: Any) -> str:
    return chr(n)


def _float(n: int, word: _Word, buf: bytes, table: Any) -> float:
    value: float = _unpack_f32(n.to_bytes(4, "big"))[0]
    return value


def _ulong(n: int, word: _Word, buf: bytes, table: Any) -> int:
    return word()


def _long(n: int, word: _Word, buf: bytes, table: Any) -> int:
    value = word()
    return value - _MODULUS if value >= _SIGN else value


def _double(n: int, word: _Word, buf: bytes, table: Any) -> float:
    value: float = _unpack_f64(word().to_bytes(8, "big"))[0]
    return value


def _uuid(n: int, word: _Word, buf: bytes, table: Any) -> UUID:
    offset = word()
    return UUID(bytes=bytes(buf[offset : offset + 16]))


def _octets(n: int, word: _Word, buf: bytes, table: Any) -> bytes:
    offset = word()
    return buf[offset : offset + n]


def _string(n: int, word: _Word, buf: bytes, table: Any) -> str:
    offset = word()
    return buf[offset : offset + n].decode("utf-8", "surrogateescape")


def _symbol(n: int, word: _Word, buf: bytes, table: Any) -> Symbol:
    offset = word()
    return Symbol(buf[offset : offset + n].decode("utf-8", "surrogateescape"))


def _list(n: int, word: _Word, buf: bytes, table: Any) -> list[Any]:
    items = []
    for _ in range(n):  # `read_next`, without a call of its own
        w = word()
        items.append(table[w & 0xFF](w >> 8, word, buf, table))
    return items


def _map(n: int, word: _Word, buf: bytes, table: Any) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    for _ in range(n):  # `_octets`, which most keys and many values are, without a call of its own
        w = word()
        if _FIRST_OCTETS <= w & 0xFF <= _LAST_OCTETS:
            offset = word()
            key: Any = buf[offset : offset + (w >> 8)]
        else:
            key = table[w & 0xFF](w >> 8, word, buf, table)
        w = word()
        if _FIRST_OCTETS <= w & 0xFF <= _LAST_OCTETS:
            offset = word()
            value: Any = buf[offset : offset + (w >> 8)]
        else:
            value = table[w & 0xFF](w >> 8, word, buf, table)
        try:
            out[key] = value
        except TypeError:  # the key is a list or a map
            out[_frozen(key)] = value
    return out


def _frozen(key: Any) -> Any:
    """A key that can be a key: a peer may send a map whose keys are lists, and must not crash us with it."""
    if isinstance(key, list):
        return tuple(_frozen(item) for item in key)
    if isinstance(key, dict):
        return tuple((name, _frozen(item)) for name, item in key.items())
    if isinstance(key, Described):
        return Described(_frozen(key.descriptor), _frozen(key.value))
    return key


def _exact_map(n: int, word: _Word, buf: bytes, table: Any) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    for _ in range(n):
        key = _frozen(read_next(word, buf, table))
        out[key] = read_next(word, buf, table)
    return out


def _array(n: int, word: _Word, buf: bytes, table: Any) -> list[Any]:
    for _ in range(word() >> 8):
        read_next(word, buf, table)  # its descriptors: as with any described value, the value alone
    return [read_next(word, buf, table) for _ in range(n)]


def _exact_array(n: int, word: _Word, buf: bytes, table: Any) -> list[Any]:
    descriptors = [read_next(word, buf, table) for _ in range(word() >> 8)]
    items = [read_next(word, buf, table) for _ in range(n)]
    for descriptor in reversed(descriptors):
        items = [Described(descriptor, item) for item in items]
    return items


def _described(n: int, word: _Word, buf: bytes, table: Any) -> Any:
    read_next(word, buf, table)
    return read_next(word, buf, table)


def _exact_described(n: int, word: _Word, buf: bytes, table: Any) -> Described:
    descriptor = read_next(word, buf, table)
    return Described(descriptor, read_next(word, buf, table))


# By kind: null boolean ubyte ushort uint byte short int char float ulong long timestamp double uuid decimal32 decimal64
# decimal128 binary string symbol list map array described.
_SCALARS = (
    _null, _boolean, _unsigned, _unsigned, _unsigned, _biased, _biased, _biased, _char, _float, _ulong, _long, _long,
    _double, _uuid, _octets, _octets, _octets, _octets,
)  # fmt: skip
_FIRST_OCTETS, _LAST_OCTETS = 15, 20
COMPAT: _Table = (*_SCALARS, _octets, _octets, _list, _map, _array, _described)
EXACT: _Table = (*_SCALARS, _string, _symbol, _list, _exact_map, _exact_array, _exact_described)


def read_one(buf: bytes, table: _Table) -> Any:
    words = iter(lib.tape(buf))
    following = words.__next__
    try:
        w = following()
    except StopIteration:
        raise ValueError("no AMQP value in no bytes") from None
    value = table[w & 0xFF](w >> 8, following, buf, table)
    if next(words, None) is not None:
        raise ValueError("more than one AMQP value where one was expected")
    return value


def decode(buf: bytes) -> Any:
    """The one encoded value in `buf` as uamqp maps it: string, symbol and binary are bytes, a described value is the
    value alone, timestamps are ints (ms). A list or map that is a key is a tuple. Raises ValueError when malformed and
    nothing else."""
    return read_one(buf, COMPAT)


def decode_exact(buf: bytes) -> Any:
    """The one encoded value in `buf`, types told apart: str for string, `Symbol`, bytes for binary, `Described`. Bytes
    that are not UTF-8 in a string are surrogates (PEP 383). Raises ValueError when malformed and nothing else."""
    return read_one(buf, EXACT)
