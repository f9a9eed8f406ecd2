"""AMQP values (part 1 of the specification): Python objects to bytes and back.

Encoding happens here, decoding in C: `decode` and `decode_exact` walk the flat tape that `lib.tape` gives for any
number of values (csrc/tape.c lists its words).

Forms written, always the smallest that holds the value (§1.6):

    null 40 · boolean 41/42 · ubyte 50 · ushort 60 · uint 43/52/70 · ulong 44/53/80 · byte 51 · short 61 · int 54/71 ·
    long 55/81 · float 72 · double 82 · char 73 · timestamp 83 · uuid 98 · binary a0/b0 · string a1/b1 · symbol a3/b3 ·
    list 45/c0/d0 · map c1/d1 · array e0/f0 · described 00

`encode` maps Python types as uamqp does, with these differences: ints are exact up to 2**64-1 (larger ones raise);
`bytes` are a string with all their bytes when they are UTF-8, else binary; what has no AMQP form raises TypeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from struct import Struct
from typing import Any
from uuid import UUID

from . import lib
from .decode import COMPAT as COMPAT
from .decode import decode as decode
from .decode import decode_exact as decode_exact
from .decode import read_next as read_next
from .decode import read_one as read_one
from .types import Described as Described
from .types import Native
from .types import Symbol as Symbol
from .types import enter as enter

NULL = b"\x40"
TRUE = b"\x41"
FALSE = b"\x42"
EMPTY_LIST = b"\x45"

_BYTE = [bytes((n,)) for n in range(256)]
_BIN8 = [b"\xa0" + n for n in _BYTE]
_STR8 = [b"\xa1" + n for n in _BYTE]
_SYM8 = [b"\xa3" + n for n in _BYTE]
_SMALL_UINT = [b"\x43"] + [b"\x52" + n for n in _BYTE[1:]]
_SMALL_ULONG = [b"\x44"] + [b"\x53" + n for n in _BYTE[1:]]
_SMALL_INT = [b"\x54" + (n & 255).to_bytes(1, "big") for n in range(-128, 128)]
_SMALL_LONG = [b"\x55" + (n & 255).to_bytes(1, "big") for n in range(-128, 128)]

_pack_u32 = Struct(">BI").pack
_pack_i32 = Struct(">Bi").pack
_pack_u64 = Struct(">BQ").pack
_pack_i64 = Struct(">Bq").pack
_pack_f32 = Struct(">Bf").pack
_pack_f64 = Struct(">Bd").pack
_pack_sized32 = Struct(">BII").pack


# ---- one encoder per AMQP type (§1.6) ------------------------------------------------------------------------------


def _range(name: str, low: int, high: int, value: int) -> int:
    if not low <= value <= high:
        raise OverflowError(f"{value} does not fit an AMQP {name} ({low}..{high})")
    return value


def enc_bool(value: bool) -> bytes:
    return TRUE if value else FALSE


def enc_ubyte(value: int) -> bytes:
    return b"\x50" + _BYTE[_range("ubyte", 0, 0xFF, value)]


def enc_ushort(value: int) -> bytes:
    return b"\x60" + _range("ushort", 0, 0xFFFF, value).to_bytes(2, "big")


def enc_uint(value: int) -> bytes:
    if 0 <= value < 256:
        return _SMALL_UINT[value]
    return _pack_u32(0x70, _range("uint", 0, 0xFFFFFFFF, value))


def enc_ulong(value: int) -> bytes:
    if 0 <= value < 256:
        return _SMALL_ULONG[value]
    return _pack_u64(0x80, _range("ulong", 0, (1 << 64) - 1, value))


def enc_byte(value: int) -> bytes:
    return b"\x51" + _range("byte", -128, 127, value).to_bytes(1, "big", signed=True)


def enc_short(value: int) -> bytes:
    return b"\x61" + _range("short", -(1 << 15), (1 << 15) - 1, value).to_bytes(2, "big", signed=True)


def enc_int(value: int) -> bytes:
    if -128 <= value < 128:
        return _SMALL_INT[value + 128]
    return _pack_i32(0x71, _range("int", -(1 << 31), (1 << 31) - 1, value))


def enc_long(value: int) -> bytes:
    if -128 <= value < 128:
        return _SMALL_LONG[value + 128]
    return _pack_i64(0x81, _range("long", -(1 << 63), (1 << 63) - 1, value))


def enc_float(value: float) -> bytes:
    """IEEE 754 binary32; OverflowError when the value is too large for it."""
    return _pack_f32(0x72, value)


def enc_double(value: float) -> bytes:
    return _pack_f64(0x82, value)


def enc_timestamp(value: int) -> bytes:
    """Milliseconds since the epoch."""
    return _pack_i64(0x83, _range("timestamp", -(1 << 63), (1 << 63) - 1, value))


def enc_char(value: str | int) -> bytes:
    """A string of one character, or a code point."""
    point = ord(value) if isinstance(value, str) else value
    return _pack_u32(0x73, _range("char", 0, 0x10FFFF, point))


def enc_uuid(value: UUID) -> bytes:
    return b"\x98" + value.bytes


def enc_binary(value: bytes | bytearray | memoryview) -> bytes:
    n = len(value)
    if n < 256:
        return _BIN8[n] + value
    return b"".join((_pack_u32(0xB0, n), value))


def utf8(value: str) -> bytes:
    """`str` as UTF-8; bytes that `decode_exact` could not read come out as they came in."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape")


def enc_str(value: str | bytes) -> bytes:
    """A string. Bytes are taken to be UTF-8, and are not checked."""
    if isinstance(value, str):
        value = utf8(value)
    n = len(value)
    if n < 256:
        return _STR8[n] + value
    return _pack_u32(0xB1, n) + value


def enc_symbol(value: str | bytes) -> bytes:
    """A symbol. The specification wants ASCII; as in uamqp anything else is let through as UTF-8."""
    if isinstance(value, str):
        value = utf8(value)
    n = len(value)
    if n < 256:
        return _SYM8[n] + value
    return _pack_u32(0xB3, n) + value


def _compound(code8: int, code32: int, body: bytes, count: int) -> bytes:
    size = len(body) + 1
    if size < 256 and count < 256:
        return b"%c%c%c%b" % (code8, size, count, body)
    return _pack_sized32(code32, size + 3, count) + body


def enc_list(items: Iterable[bytes]) -> bytes:
    """A list of encoded values."""
    items = list(items)
    if not items:
        return EMPTY_LIST
    return _compound(0xC0, 0xD0, b"".join(items), len(items))


def enc_map(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A map of pairs of encoded values."""
    items = [item for pair in pairs for item in pair]
    return _compound(0xC1, 0xD1, b"".join(items), len(items))


def enc_array(constructor: bytes, items: Iterable[bytes]) -> bytes:
    """An array: one constructor for all, and the items without theirs (§1.6.24)."""
    items = list(items)
    return _compound(0xE0, 0xF0, constructor + b"".join(items), len(items))


def enc_described(descriptor: int | bytes, value: bytes) -> bytes:
    """A described value; the descriptor is a ulong, or an encoded value."""
    if isinstance(descriptor, int):
        descriptor = enc_ulong(descriptor)
    return b"\x00" + descriptor + value


def symbols(names: Iterable[str | bytes]) -> bytes:
    """An array of symbols, in the narrowest form that holds them all."""
    raw = [name.encode() if isinstance(name, str) else name for name in names]
    if all(len(name) < 256 for name in raw):
        return enc_array(b"\xa3", [_BYTE[len(name)] + name for name in raw])
    return enc_array(b"\xb3", [len(name).to_bytes(4, "big") + name for name in raw])


# ---- any Python value ----------------------------------------------------------------------------------------------

_Encoder = Callable[[Any, str, int], bytes]
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def milliseconds(moment: datetime) -> int:
    """Milliseconds since the epoch, rounded down; a naive time is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def is_utf8(value: bytes) -> bool:
    """Whether `bytes` can go out as a string."""
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _any_int(value: int, encoding: str, depth: int) -> bytes:
    if -128 <= value < 128:
        return _SMALL_INT[value + 128]
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return _pack_i32(0x71, value)
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
        return _pack_i64(0x81, value)
    if 0 < value <= 0xFFFFFFFFFFFFFFFF:
        return _pack_u64(0x80, value)
    raise OverflowError(f"{value} does not fit any AMQP integer (at most 64 bits)")


def _any_bytes(value: bytes, encoding: str, depth: int) -> bytes:
    return enc_str(value) if is_utf8(value) else enc_binary(value)


def _any_str(value: str, encoding: str, depth: int) -> bytes:
    if encoding == "UTF-8":
        return enc_str(value)
    return _any_bytes(value.encode(encoding), encoding, depth)


def _any_list(value: Iterable[Any], encoding: str, depth: int) -> bytes:
    deeper = enter(depth)
    return enc_list([_encode(item, encoding, deeper) for item in value])


def _any_map(value: Mapping[Any, Any], encoding: str, depth: int) -> bytes:
    return map_of(value, _encode, encoding, enter(depth))


_ENCODERS: dict[type, _Encoder] = {
    type(None): lambda value, encoding, depth: NULL,
    bool: lambda value, encoding, depth: TRUE if value else FALSE,
    str: _any_str,
    bytes: _any_bytes,
    UUID: lambda value, encoding, depth: enc_uuid(value),
    bytearray: lambda value, encoding, depth: enc_binary(value),
    int: _any_int,
    float: lambda value, encoding, depth: _pack_f64(0x82, value),
    dict: _any_map,
    list: _any_list,
    set: _any_list,
    frozenset: _any_list,
    tuple: _any_list,
    datetime: lambda value, encoding, depth: enc_timestamp(milliseconds(value)),
    Symbol: lambda value, encoding, depth: enc_symbol(value),
    Described: lambda value, encoding, depth: (
        b"\x00" + _encode(value.descriptor, encoding, depth) + _encode(value.value, encoding, enter(depth))
    ),
}


def _encode(value: Any, encoding: str, depth: int) -> bytes:
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value, encoding, depth)
    native = getattr(value, "c_data", value)
    if isinstance(native, Native):
        return native.encoded(depth)
    for kind in type(value).__mro__[1:]:
        encoder = _ENCODERS.get(kind)
        if encoder is not None:
            return encoder(value, encoding, depth)
    if isinstance(value, Mapping):
        return _any_map(value, encoding, depth)
    raise TypeError(f"{type(value).__qualname__} has no AMQP type")


def encode(value: Any, encoding: str = "UTF-8", depth: int = 0) -> bytes:
    """Any Python value with its constructor. `encoding` is how str become bytes. Raises TypeError for what has no AMQP
    type, OverflowError for ints beyond 64 bits, ValueError for nesting beyond MAX_DEPTH."""
    return _encode(value, encoding, depth)


def explained(error: Exception, where: str) -> Exception:
    """The same kind of error, told where."""
    kind = next((k for k in (TypeError, OverflowError) if isinstance(error, k)), ValueError)
    return kind(f"{where}: {error}")


_BAD_VALUE = (TypeError, ValueError, OverflowError)


def map_of(mapping: Mapping[Any, Any], key_encoder: _Encoder, encoding: str, depth: int) -> bytes:
    """A map; keys that encode alike are one entry, in the first one's place with the last one's value."""
    entries: dict[bytes, bytes] = {}
    for key, value in mapping.items():
        try:
            entries[key_encoder(key, encoding, depth)] = _encode(value, encoding, depth)
        except _BAD_VALUE as error:
            raise explained(error, f"at key {key!r}") from error
    return enc_map(entries.items())


class _Cache(dict[Any, bytes]):
    """Encodings of names, made when first asked for. Property and annotation names come from a small set; the bound is
    for programs that make names up, and the length limit keeps what it holds small."""

    __slots__ = ("_encoder",)

    def __init__(self, encoder: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._encoder = encoder

    def __missing__(self, name: Any) -> bytes:
        encoded = self._encoder(name)
        if len(encoded) <= 256:
            if len(self) >= 1024:
                self.clear()
            self[name] = encoded
        return encoded


string_names = _Cache(enc_str)
symbol_names = _Cache(enc_symbol)


def string_map(mapping: Mapping[Any, Any], encoding: str = "UTF-8") -> bytes:
    """A map as application-properties has it (§3.2.5): the fast way for str keys with str, int, bool and float values,
    the general one for all else."""
    if encoding != "UTF-8":
        return map_of(mapping, _encode, encoding, 1)
    parts: list[bytes] = []
    add = parts.append
    names = string_names
    for key, value in mapping.items():
        if type(key) is not str:
            return map_of(mapping, _encode, encoding, 1)
        add(names[key])
        kind = type(value)
        if kind is str:
            try:
                raw = value.encode()
            except UnicodeEncodeError:
                try:
                    raw = utf8(value)
                except UnicodeEncodeError as error:
                    raise explained(error, f"at key {key!r}") from error
            n = len(raw)
            add(_STR8[n] if n < 256 else _pack_u32(0xB1, n))
            add(raw)
        elif kind is bool:
            add(TRUE if value else FALSE)
        elif kind is float:
            add(_pack_f64(0x82, value))
        elif kind is int and -128 <= value < 128:
            add(_SMALL_INT[value + 128])
        else:
            try:
                add(_encode(value, encoding, 1))
            except _BAD_VALUE as error:
                raise explained(error, f"at key {key!r}") from error
    return _compound(0xC1, 0xD1, b"".join(parts), 2 * len(mapping))


def _symbol_key(key: Any, encoding: str, depth: int) -> bytes:
    kind = type(key)
    if kind is str:
        return symbol_names[key] if encoding == "UTF-8" else enc_symbol(key.encode(encoding))
    if kind is bytes:
        return symbol_names[key]
    if kind is int:
        return enc_ulong(key)
    return _encode(key, encoding, depth)


def symbol_map(mapping: Mapping[Any, Any], encoding: str = "UTF-8", depth: int = 0) -> bytes:
    """A map as annotations (§3.2.10) and fields (§2.8.13) have it: str and bytes keys are symbols, ints ulong, and what
    has a type of its own keeps it. Raises TypeError for what is no mapping."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"a dict is needed here, not {type(mapping).__name__}")
    return map_of(mapping, _symbol_key, encoding, enter(depth))


# ---- composites -----------------------------------------------------------------------------------------------------


def composite(name: str, /, **fields: bytes | None) -> bytes:
    """The list of the composite `name` of csrc/performatives.def. Fields are encoded values, None ones absent; absent
    ones at the end are left out. Raises TypeError for a field it does not have."""
    names = lib.FIELDS[name][1]
    items = [fields.pop(field, None) for field in names]
    if fields:
        raise TypeError(f"{name} has no field {', '.join(fields)}")
    while items and items[-1] is None:
        items.pop()
    return enc_list(NULL if item is None else item for item in items)


def described_composite(name: str, /, **fields: bytes | None) -> bytes:
    """The same with its descriptor."""
    return enc_described(lib.FIELDS[name][0], composite(name, **fields))
