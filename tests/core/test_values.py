"""AMQP values in Python: what is written, what is read back, and that the engine's decoder agrees with both."""

from __future__ import annotations

import json
import math
import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uamqp_cffi import c_uamqp, types
from uamqp_cffi._core.engine import decode, lib, values
from uamqp_cffi._core.engine import types as types_module
from uamqp_cffi._core.engine.types import Described, Symbol
from uamqp_cffi._native import make

VECTORS = json.loads((Path(__file__).parent.parent / "vectors.json").read_text(encoding="utf-8"))


# ---- the vectors that the engine's tests read too -----------------------------------------------------------------

_INTEGERS = ("ubyte", "ushort", "uint", "ulong", "byte", "short", "int", "long", "timestamp")


def exact(vector: dict[str, Any]) -> Any:
    """What `decode_exact` makes of a vector."""
    kind, value = vector["type"], vector["value"]
    if kind == "null":
        return None
    if kind == "boolean":
        return value == "true"
    if kind in _INTEGERS:
        return int(value)
    if kind == "char":
        return chr(int(value))
    if kind == "float":
        return struct.unpack(">f", bytes.fromhex(value))[0]
    if kind == "double":
        return struct.unpack(">d", bytes.fromhex(value))[0]
    if kind.startswith("decimal") or kind == "binary":
        return bytes.fromhex(value)
    if kind == "uuid":
        return UUID(value)
    if kind == "string":
        return value
    if kind == "symbol":
        return Symbol(value)
    if kind in ("list", "array"):
        return [exact(item) for item in value]
    if kind == "map":
        return {decode._frozen(exact(key)): exact(item) for key, item in value}
    assert kind == "described"
    return Described(exact(vector["descriptor"]), exact(vector["value"]))


def native(vector: dict[str, Any]) -> Any:
    """A vector as a native value; None where there is no maker for it."""
    kind, value = vector["type"], vector["value"]
    if kind == "null":
        return c_uamqp.null_value()
    if kind == "boolean":
        return c_uamqp.bool_value(value == "true")
    if kind in (*_INTEGERS, "char"):
        return getattr(c_uamqp, f"{kind}_value")(int(value))
    if kind in ("float", "double"):
        return getattr(c_uamqp, f"{kind}_value")(exact(vector))
    if kind == "binary":
        return c_uamqp.binary_value(bytes.fromhex(value))
    if kind == "uuid":
        return c_uamqp.uuid_value(UUID(value))
    if kind in ("string", "symbol"):
        return getattr(c_uamqp, f"{kind}_value")(value.encode())
    if kind == "list":
        made = c_uamqp.list_value()
        made.size = len(value)
        for index, item in enumerate(value):
            made[index] = native(item)
        return made
    if kind == "described":
        return c_uamqp.described_value(native(vector["descriptor"]), native(vector["value"]))
    return None


def same(left: Any, right: Any) -> bool:
    """Equal in type and value; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    return bool(left == right)


def _id(vector: dict[str, Any]) -> str:
    return f"{vector.get('type', 'malformed')}-{vector['bytes'][:24]}"


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=_id)
def test_every_legal_encoding_decodes_to_its_value(vector: dict[str, Any]) -> None:
    assert same(decode.decode_exact(bytes.fromhex(vector["bytes"])), exact(vector))


@pytest.mark.parametrize("vector", [v for v in VECTORS["vectors"] if v.get("canonical")], ids=_id)
def test_native_values_are_written_in_canonical_form(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    made = native(vector)
    if made is not None and vector["type"] not in ("float", "double"):  # a NaN's bits are not Python's to keep
        assert made.encoded() == data
    if vector["type"] in ("float", "double", "array", "map"):
        assert same(decode.decode_exact(c_uamqp.decode_value(data).encoded()), exact(vector))
    else:
        assert c_uamqp.decode_value(data).encoded() == data


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=_id)
def test_malformed_bytes_are_a_value_error(vector: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        decode.decode_exact(bytes.fromhex(vector["bytes"]))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=_id)
def test_every_prefix_is_refused(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    for end in range(len(data)):
        with pytest.raises(ValueError):
            decode.decode_exact(data[:end])


# ---- properties of all values -------------------------------------------------------------------------------------

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.integers(-300, 300),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.binary(max_size=300),
    st.binary(max_size=20).map(bytearray),
    st.uuids(),
    st.text(max_size=20).map(Symbol),
)
_keys = st.one_of(st.text(max_size=10), st.integers(0, 1 << 40), st.uuids())
_any = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(_keys, inner, max_size=6),
        st.builds(Described, st.integers(0, 1 << 63) | st.text(max_size=5).map(Symbol), inner),
    ),
    max_leaves=25,
)


def read_back(value: Any) -> Any:
    """What `decode_exact` makes of what `encode` wrote for a Python value."""
    if isinstance(value, bytearray):
        return bytes(value)
    if type(value) is bytes:
        return value.decode() if values.is_utf8(value) else value
    if isinstance(value, Described):
        return Described(read_back(value.descriptor), read_back(value.value))
    if isinstance(value, list):
        return [read_back(item) for item in value]
    if isinstance(value, dict):
        return {read_back(key): read_back(item) for key, item in value.items()}
    return value


def as_uamqp(value: Any) -> Any:
    """The same for `decode`, which maps all text to bytes and drops descriptors."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Described):
        return as_uamqp(value.value)
    if isinstance(value, list):
        return [as_uamqp(item) for item in value]
    if isinstance(value, dict):
        return {as_uamqp(key): as_uamqp(item) for key, item in value.items()}
    return value


@given(_any)
def test_what_is_encoded_decodes_to_the_same(value: Any) -> None:
    assert same(decode.decode_exact(values.encode(value)), read_back(value))


@given(_any)
def test_uamqps_mapping_gives_text_as_bytes_and_drops_descriptors(value: Any) -> None:
    assert same(decode.decode(values.encode(value)), as_uamqp(read_back(value)))


@given(_any)
def test_data_factory_and_encode_are_one_mapping(value: Any) -> None:
    assert make.data_factory(value).encoded() == values.encode(value)


@given(_any)
def test_native_values_keep_every_type(value: Any) -> None:
    data = values.encode(value)
    assert c_uamqp.decode_value(data).encoded() == data
    assert c_uamqp.decode_value(data).clone() == c_uamqp.decode_value(data)


@given(st.dictionaries(st.text(max_size=8), _any, max_size=6))
def test_the_fast_way_for_string_maps_writes_what_the_general_one_does(mapping: dict[str, Any]) -> None:
    assert values.string_map(mapping) == values.encode(mapping)


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_hostile_bytes_are_a_value_or_a_value_error(data: bytes) -> None:
    try:
        decode.decode_exact(data)
    except ValueError:
        return
    assert lib.tape(data)


# ---- the smallest form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "40"),
        (True, "41"),
        (False, "42"),
        (0, "5400"),
        (-128, "5480"),
        (127, "547f"),
        (128, "7100000080"),
        (-129, "71ffffff7f"),
        (2**31 - 1, "717fffffff"),
        (-(2**31), "7180000000"),
        (2**31, "810000000080000000"),
        (-(2**63), "818000000000000000"),
        (2**63 - 1, "817fffffffffffffff"),
        (2**63, "808000000000000000"),
        (2**64 - 1, "80ffffffffffffffff"),
        (1.5, "823ff8000000000000"),
        ("a", "a10161"),
        ("é", "a102c3a9"),
        (b"a", "a10161"),
        (b"a\0b", "a103610062"),
        (b"\xff\0", "a002ff00"),
        (bytearray(b"a\0"), "a0026100"),
        (UUID(int=1), "98" + "00" * 15 + "01"),
        ([], "45"),
        ([None], "c0020140"),
        ((1, 2), "c0050254015402"),
        ({1}, "c003015401"),
        ({}, "c10100"),
        ({"a": 1}, "c10602a101615401"),
        (datetime(2020, 1, 1), "830000016f5e66e800"),
        (datetime(2020, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "830000016f5e66e800"),
        (datetime(2020, 1, 1, microsecond=1999), "830000016f5e66e801"),
    ],
)
def test_python_values_have_these_bytes(value: Any, expected: str) -> None:
    assert values.encode(value).hex() == expected


@pytest.mark.parametrize(
    ("encoder", "value", "expected"),
    [
        ("enc_ubyte", 200, "50c8"),
        ("enc_ushort", 1, "600001"),
        ("enc_uint", 0, "43"),
        ("enc_uint", 255, "52ff"),
        ("enc_uint", 256, "7000000100"),
        ("enc_ulong", 0, "44"),
        ("enc_ulong", 255, "53ff"),
        ("enc_ulong", 256, "800000000000000100"),
        ("enc_byte", -1, "51ff"),
        ("enc_short", -2, "61fffe"),
        ("enc_int", -1, "54ff"),
        ("enc_long", -1, "55ff"),
        ("enc_long", 128, "810000000000000080"),
        ("enc_float", 1.5, "723fc00000"),
        ("enc_timestamp", -1, "83ffffffffffffffff"),
        ("enc_char", "A", "7300000041"),
        ("enc_char", 0x1F600, "730001f600"),
        ("enc_symbol", "s", "a30173"),
        ("enc_binary", memoryview(b"ab"), "a0026162"),
    ],
)
def test_each_type_has_its_smallest_form(encoder: str, value: Any, expected: str) -> None:
    assert getattr(values, encoder)(value).hex() == expected


@pytest.mark.parametrize(
    ("encoder", "value"),
    [
        ("enc_ubyte", 256),
        ("enc_ubyte", -1),
        ("enc_ushort", 1 << 16),
        ("enc_uint", 1 << 32),
        ("enc_uint", -1),
        ("enc_ulong", 1 << 64),
        ("enc_ulong", -1),
        ("enc_byte", 128),
        ("enc_short", 1 << 15),
        ("enc_int", 1 << 31),
        ("enc_long", 1 << 63),
        ("enc_timestamp", 1 << 63),
        ("enc_char", 0x110000),
        ("enc_float", 1e39),
    ],
)
def test_what_does_not_fit_a_type_overflows(encoder: str, value: Any) -> None:
    with pytest.raises(OverflowError):
        getattr(values, encoder)(value)


@pytest.mark.parametrize("n", [255, 256])
def test_long_content_takes_the_wide_form(n: int) -> None:
    body = b"x" * n
    wide = n > 255
    assert values.enc_str(body)[:1] == (b"\xb1" if wide else b"\xa1")
    assert values.enc_symbol(body)[:1] == (b"\xb3" if wide else b"\xa3")
    assert values.enc_binary(body)[:1] == (b"\xb0" if wide else b"\xa0")
    for encoded in (values.enc_str(body), values.enc_symbol(body), values.enc_binary(body)):
        assert decode.decode(encoded) == body


def test_compounds_take_the_wide_form_when_size_or_count_needs_it() -> None:
    assert values.enc_list([values.NULL] * 254)[0] == 0xC0
    assert values.enc_list([values.NULL] * 255)[0] == 0xD0
    assert values.enc_map([(values.NULL, b"\xa0\xfb" + b"x" * 251)])[0] == 0xC1
    assert values.enc_map([(values.NULL, b"\xa0\xfc" + b"x" * 252)])[0] == 0xD1
    assert decode.decode(values.enc_list([values.NULL] * 1000)) == [None] * 1000


def test_symbols_are_an_array_as_narrow_as_its_longest() -> None:
    assert values.symbols(["a", b"bc"]).hex() == "e00702a301610262" + "63"
    assert decode.decode_exact(values.symbols(["a", "x" * 256])) == ["a", "x" * 256]
    assert decode.decode_exact(values.symbols([])) == []


# ---- where uamqp was wrong ------------------------------------------------------------------------------------------


def test_ints_beyond_64_bits_raise_instead_of_turning_into_doubles() -> None:
    with pytest.raises(OverflowError, match="18446744073709551616"):
        values.encode(1 << 64)
    with pytest.raises(OverflowError):
        values.encode(-(1 << 63) - 1)


def test_an_unsupported_type_is_named_with_the_key_it_stands_at() -> None:
    with pytest.raises(TypeError, match=r"'b'.*'c'.*complex"):
        values.encode({"a": 1, "b": {"c": 1j}})
    with pytest.raises(TypeError, match=r"'k'.*object"):
        values.string_map({"k": object()})
    with pytest.raises(TypeError, match="complex"):
        make.data_factory([1j])


def test_keys_that_encode_alike_are_one_entry() -> None:
    assert values.encode({"a": 1, "b": 2, b"a": 3}) == values.encode({"a": 3, "b": 2})
    assert values.string_map({"a": 1, "b": 2, b"a": 3}) == values.encode({"a": 3, "b": 2})


def test_an_empty_array_has_a_constructor() -> None:
    assert values.encode(types.AMQPArray([])).hex() == "e0020040"
    assert decode.decode(values.encode(types.AMQPArray([]))) == []


def test_what_contains_itself_is_refused_without_a_recursion_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for encode in (values.encode, make.data_factory):
        with pytest.raises(ValueError, match="nested"):
            encode(endless)
    knot: dict[str, Any] = {}
    knot["k"] = [knot]
    with pytest.raises(ValueError, match="nested"):
        values.string_map(knot)


_WRAPPERS = [
    lambda inner: [inner],
    lambda inner: {"k": inner},
    lambda inner: types.AMQPArray([inner]),
    lambda inner: types.AMQPDescribed(types.AMQPuLong(9), inner),
    lambda inner: Described(5, inner),
]


@given(st.lists(st.sampled_from(_WRAPPERS), min_size=28, max_size=34))
def test_what_we_agree_to_encode_the_engine_agrees_to_decode(wrappers: list[Any]) -> None:
    value: Any = 1
    try:
        for wrap in wrappers:
            value = wrap(value)
        data = values.encode(value)
    except ValueError:
        assert len(wrappers) > types_module.MAX_DEPTH - 2
        return
    lib.tape(data)


def test_lists_may_nest_as_deep_as_the_engine_reads() -> None:
    value: list[Any] = []
    for _ in range(types_module.MAX_DEPTH - 1):
        value = [value]
    assert decode.decode(values.encode(value)) == value
    with pytest.raises(ValueError):
        values.encode([value])
    with pytest.raises(ValueError):
        decode.decode(_nested(types_module.MAX_DEPTH + 1))


def _nested(depth: int) -> bytes:
    data = values.NULL
    for _ in range(depth):
        data = values.enc_list([data])
    return data


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_symbol_maps_turn_text_keys_into_symbols_and_ints_into_ulong() -> None:
    data = values.symbol_map({"a": 1, b"b": 2, 7: 3, types.AMQPLong(8): 4})
    decoded = decode.decode_exact(data)
    assert [(type(key), key) for key in decoded] == [(Symbol, "a"), (Symbol, "b"), (int, 7), (int, 8)]
    kinds = [key.type for key, _ in (c_uamqp.decode_value(data).get(i) for i in range(4))]  # type: ignore[attr-defined]
    assert kinds[2:] == [c_uamqp.AMQPType.ULongValue, c_uamqp.AMQPType.LongValue]


def test_names_kept_are_bounded_in_number_and_length() -> None:
    cache = values._Cache(values.enc_symbol)
    for n in range(5000):
        assert cache[f"name-{n}"] == values.enc_symbol(f"name-{n}")
        assert len(cache) <= 1024
    assert cache["x" * 10000] == values.enc_symbol("x" * 10000)
    assert "x" * 10000 not in cache


def test_encoding_is_how_str_become_bytes() -> None:
    assert values.encode("é", "latin-1").hex() == "a001e9"
    assert values.encode("e", "latin-1").hex() == "a10165"
    assert values.string_map({"e": "é"}, "latin-1").hex() == "c10702a10165a001e9"


# ---- decoding -------------------------------------------------------------------------------------------------------


def test_nothing_and_more_than_one_value_are_refused_where_one_is_expected() -> None:
    with pytest.raises(ValueError, match="no AMQP value"):
        decode.decode(b"")
    with pytest.raises(ValueError, match="more than one"):
        decode.decode_exact(b"\x40\x40")


def test_a_list_or_map_that_is_a_key_is_a_tuple() -> None:
    data = values.enc_map([(values.encode([1, {"a": 2}]), values.TRUE)])
    assert decode.decode(data) == {(1, ((b"a", 2),)): True}
    assert decode.decode_exact(data) == {(1, (("a", 2),)): True}


def test_text_that_has_no_utf8_is_refused_by_the_name_of_its_key() -> None:
    with pytest.raises(ValueError, match="at key 'k'.*surrogates"):
        values.string_map({"k": "\ud800"})


def test_a_string_that_is_not_utf8_survives_a_round_trip() -> None:
    data = b"\xa1\x03a\xffb"
    assert decode.decode(data) == b"a\xffb"
    assert values.enc_str(decode.decode_exact(data)) == data


def test_a_char_decodes_to_a_str_of_one() -> None:
    assert decode.decode(values.enc_char("é")) == "é"
    with pytest.raises(ValueError):
        decode.decode(b"\x73\x00\x11\x00\x00")


def test_decimals_are_carried_as_their_bytes() -> None:
    data = b"\x74\x22\x00\x00\x01"
    assert decode.decode(data) == data[1:]
    assert c_uamqp.decode_value(data).encoded() == data


def test_the_descriptors_of_an_array_belong_to_each_element() -> None:
    data = values.encode(types.AMQPArray([types.AMQPDescribed(types.AMQPuLong(9), n) for n in (1, 2)]))
    assert decode.decode(data) == [1, 2]
    assert decode.decode_exact(data) == [Described(9, 1), Described(9, 2)]
    assert c_uamqp.decode_value(data).encoded() == data


# ---- composites -----------------------------------------------------------------------------------------------------


def test_a_composite_puts_fields_in_the_order_of_the_specification() -> None:
    data = values.composite("open", max_frame_size=values.enc_uint(512), container_id=values.enc_str("c"))
    assert decode.decode_exact(data) == ["c", None, 512]


def test_absent_fields_at_the_end_are_left_out() -> None:
    assert values.composite("begin", remote_channel=None) == values.EMPTY_LIST
    assert values.described_composite("accepted") == b"\x00\x53\x24\x45"
    assert values.described_composite("modified", delivery_failed=values.TRUE).hex() == "005327c0020141"


def test_a_field_that_a_composite_does_not_have_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="prioriti"):
        values.composite("header", prioriti=values.NULL)


def test_the_depth_limit_is_the_engines() -> None:
    limits = (Path(__file__).parents[2] / "csrc" / "limits.h").read_text(encoding="utf-8")
    (line,) = [line for line in limits.splitlines() if line.startswith("#define UAM_MAX_DEPTH")]
    assert int(line.split()[2]) == types_module.MAX_DEPTH
