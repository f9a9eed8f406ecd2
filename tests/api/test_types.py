"""Wrappers, native values, and what `c_uamqp` offers besides."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from uamqp_cffi import c_uamqp, types
from uamqp_cffi._core.engine import values
from uamqp_cffi._native import make, tick
from uamqp_cffi.constants import MessageBodyType
from uamqp_cffi.message import Message


@pytest.mark.parametrize(
    ("wrapper", "value", "wire"),
    [
        (types.AMQPSymbol("x"), b"x", "a30178"),
        (types.AMQPSymbol(b"x"), b"x", "a30178"),
        (types.AMQPChar("é"), "é", "73000000e9"),
        (types.AMQPChar(b"A"), "A", "7300000041"),
        (types.AMQPLong("5"), 5, "5505"),
        (types.AMQPLong(5.7), 5, "5505"),
        (types.AMQPuLong(256), 256, "800000000000000100"),
        (types.AMQPInt(-1), -1, "54ff"),
        (types.AMQPuInt(0), 0, "43"),
        (types.AMQPShort(-1), -1, "61ffff"),
        (types.AMQPuShort(1), 1, "600001"),
        (types.AMQPByte(-1), -1, "51ff"),
        (types.AMQPuByte(255), 255, "50ff"),
        (types.AMQPDescribed("d", 4), 4, "00a101645404"),
        (types.AMQPArray([1]), [1], "e006017100000001"),
    ],
)
def test_a_wrapper_has_its_value_and_its_type(wrapper: types.AMQPType, value: Any, wire: str) -> None:
    assert wrapper.value == value
    assert wrapper.c_data.encoded().hex() == values.encode(wrapper).hex() == wire
    assert make.data_factory(wrapper) is wrapper.c_data
    assert pickle.loads(pickle.dumps(wrapper)).c_data == wrapper.c_data


@pytest.mark.parametrize(
    ("cls", "bits", "signed"),
    [
        (types.AMQPByte, 8, True),
        (types.AMQPuByte, 8, False),
        (types.AMQPShort, 16, True),
        (types.AMQPuShort, 16, False),
        (types.AMQPInt, 32, True),
        (types.AMQPuInt, 32, False),
        (types.AMQPLong, 64, True),
        (types.AMQPuLong, 64, False),
    ],
)
def test_integers_are_held_to_their_range(cls: Any, bits: int, signed: bool) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    assert (cls(low).value, cls(high).value) == (low, high)
    for number in (low - 1, high + 1, None, [1], float("inf")):
        with pytest.raises(ValueError):
            cls(number)


def test_wrappers_refuse_what_they_cannot_hold() -> None:
    with pytest.raises(TypeError):
        types.AMQPSymbol(4)  # type: ignore[arg-type]
    for text in ("", "ab", b"ab"):
        with pytest.raises(ValueError):
            types.AMQPChar(text)
    with pytest.raises(NotImplementedError):
        types.AMQPType(4)


@pytest.mark.parametrize("items", [[1, "a"], [1, 2**40], [1, None]])
def test_an_array_is_of_one_type(items: list[Any]) -> None:
    with pytest.raises(ValueError):
        types.AMQPArray(items)


def test_a_subclass_says_its_type_with_c_wrapper() -> None:
    class Timestamp(types.AMQPType):
        def _c_wrapper(self, value: Any) -> c_uamqp.AMQPValue:
            return c_uamqp.timestamp_value(int(value))

    assert Timestamp(5.0).value == 5
    assert values.encode({"t": Timestamp(5)}).hex() == "c10d02a10174830000000000000005"
    message = Message(b"", annotations={types.AMQPSymbol("t"): Timestamp(5)})
    assert message.encode_message().hex().startswith("005372c10d02a30174830000000000000005")


# Text, value, size and type as uamqp 1.6.11 gives them.
@pytest.mark.parametrize(
    ("made", "kind", "value", "text", "size"),
    [
        (c_uamqp.null_value(), "NullValue", None, "NULL", 1),
        (c_uamqp.bool_value(3), "BoolValue", True, "true", 1),  # type: ignore[arg-type]
        (c_uamqp.ubyte_value(7), "UByteValue", 7, "7", 2),
        (c_uamqp.ushort_value(7), "UShortValue", 7, "7", 3),
        (c_uamqp.uint_value(7), "UIntValue", 7, "7", 2),
        (c_uamqp.ulong_value(7), "ULongValue", 7, "7", 2),
        (c_uamqp.byte_value(7), "ByteValue", 7, "7", 2),
        (c_uamqp.short_value(7), "ShortValue", 7, "7", 3),
        (c_uamqp.int_value(5.5), "IntValue", 5, "5", 2),  # type: ignore[arg-type]
        (c_uamqp.long_value(7), "LongValue", 7, "7", 2),
        (c_uamqp.float_value(1.5), "FloatValue", 1.5, "1.50", 5),
        (c_uamqp.double_value(1.5), "DoubleValue", 1.5, "1.50", 9),
        (c_uamqp.char_value(65), "CharValue", "A", "U00000041", 5),
        (c_uamqp.timestamp_value(-5), "TimestampValue", -5, "-5", 9),
        (c_uamqp.uuid_value(UUID(int=5)), "UUIDValue", UUID(int=5), str(UUID(int=5)), 17),
        (c_uamqp.binary_value(b"\x0ab"), "BinaryValue", b"\x0ab", "<0A 62>", 4),
        (c_uamqp.string_value(b"x"), "StringValue", b"x", "x", 3),
        (c_uamqp.symbol_value(b"x"), "SymbolValue", b"x", "x", 3),
        (make.data_factory([1, "a"]), "ListValue", [1, b"a"], "{1,a}", 8),
        (make.data_factory({"k": 1, "j": 2}), "DictValue", {b"k": 1, b"j": 2}, "{[k:1],[j:2]}", 13),
        (types.AMQPArray([1, 2]).c_data, "ArrayValue", [1, 2], "{1,2}", 12),
        (types.AMQPDescribed("d", 4).c_data, "DescribedType", 4, "* 4", 6),
    ],
)
def test_a_native_value_shows_what_it_is(made: Any, kind: str, value: Any, text: str, size: int) -> None:
    assert made.type is c_uamqp.AMQPType[kind]
    assert made.value == value
    assert (str(made), bytes(made), made.get_encoded_size()) == (text, text.encode(), size)
    assert made.clone() == made
    assert made.clone() is not made
    assert pickle.loads(pickle.dumps(made)) == made
    assert Message(made, body_type=MessageBodyType.Value).value == value


def test_native_values_are_equal_when_type_and_value_are() -> None:
    assert c_uamqp.string_value(b"x") == c_uamqp.string_value(b"x")
    assert c_uamqp.string_value(bytearray(b"x")) == c_uamqp.string_value(b"x")  # type: ignore[arg-type]
    assert c_uamqp.string_value(b"x") != c_uamqp.string_value(b"y")
    assert c_uamqp.string_value(b"x") != c_uamqp.symbol_value(b"x")
    assert c_uamqp.int_value(1) != c_uamqp.long_value(1)
    with pytest.raises(TypeError):
        c_uamqp.string_value(b"x") == 4  # noqa: B015
    with pytest.raises(TypeError):
        hash(c_uamqp.int_value(1))


@pytest.mark.parametrize(
    ("maker", "value", "error"),
    [
        ("string_value", "s", TypeError),
        ("symbol_value", "s", TypeError),
        ("int_value", "5", TypeError),
        ("int_value", 2**31, OverflowError),
        ("uint_value", -1, OverflowError),
        ("ubyte_value", 256, OverflowError),
        ("timestamp_value", 2**63, OverflowError),
        ("char_value", "A", TypeError),
        ("uuid_value", b"x" * 16, TypeError),
        ("float_value", "x", TypeError),
        ("binary_value", "x", TypeError),
    ],
)
def test_makers_take_exactly_their_type(maker: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        getattr(c_uamqp, maker)(value)


def test_lists_are_sized_before_they_are_filled() -> None:
    made = c_uamqp.list_value()
    with pytest.raises(IndexError):
        made[0] = c_uamqp.int_value(1)
    made.size = 2
    made[0] = c_uamqp.int_value(1)
    assert (made.value, len(made), made[0].value) == ([1, None], 2, 1)
    with pytest.raises(IndexError):
        _ = made[2]
    with pytest.raises(TypeError):
        made[1] = 5  # type: ignore[assignment]
    copy = made.clone()
    copy.size = 0  # type: ignore[attr-defined]
    assert len(made) == 2


def test_maps_are_looked_up_by_native_keys() -> None:
    made = make.data_factory({"k": 1, "j": 2})
    assert isinstance(made, c_uamqp.DictValue)
    assert made[c_uamqp.string_value(b"k")].value == 1
    assert tuple(part.value for part in made.get(1)) == (b"j", 2)
    with pytest.raises(KeyError):
        _ = made[c_uamqp.symbol_value(b"k")]
    with pytest.raises(IndexError):
        made.get(2)
    made[c_uamqp.string_value(b"k")] = c_uamqp.int_value(3)
    assert (made.value, made.size) == ({b"k": 3, b"j": 2}, 2)


def test_a_composite_is_a_described_list() -> None:
    made = c_uamqp.CompositeValue()
    made.create(c_uamqp.ulong_value(0x24), 2)
    made[0] = c_uamqp.int_value(4)
    assert (made.type.name, made.size, made.pop(0).value, str(made)) == ("CompositeType", 2, 4, "* {4,NULL}")
    assert made.encoded().hex() == "005324c00402540440"
    assert made.clone() == made
    made.create_from_long(0x26)
    assert made.encoded().hex() == "00532645"


def test_a_described_value_gives_both_parts() -> None:
    made = c_uamqp.described_value(c_uamqp.symbol_value(b"a"), c_uamqp.int_value(4))
    assert (made.description.value, made.data.value, made.value) == (b"a", 4, 4)


def test_strings_can_be_appended_to() -> None:
    made = c_uamqp.create_string_from_value("ab")
    made.append(c_uamqp.create_string_from_value(b"c"))
    assert (str(made), bytes(made)) == ("abc", b"abc")
    assert made.clone() == made != c_uamqp.create_empty_string()


def test_the_tick_counter_counts_milliseconds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(tick.time, "monotonic", lambda: now[0])
    counter = tick.TickCounter()
    assert counter.get_current_ms() == 0
    now[0] += 1.5
    assert counter.get_current_ms() == 1500


def test_connection_states_are_numbered_as_the_engine_numbers_them() -> None:
    header = (Path(__file__).parents[2] / "csrc" / "uam.h").read_text(encoding="utf-8")
    body = header.split("enum uam_conn_state {", 1)[1].split("}", 1)[0]
    engine = {name: int(number) for name, number in re.findall(r"UAM_CONN_(\w+) = (\d+)", body)}
    ours = {state.name: state.value for state in c_uamqp.ConnectionState}
    assert ours == {**engine, "ERROR": 14, "UNKNOWN": 999}
    assert len(engine) == 14
