"""Native values of `c_uamqp` as containers, and what can be done to them besides reading."""

from __future__ import annotations

from typing import Any

import pytest

from uamqp_cffi import c_uamqp
from uamqp_cffi._native import make, tick


def array(*numbers: int) -> c_uamqp.ArrayValue:
    made = c_uamqp.array_value()
    for number in numbers:
        made.append(c_uamqp.int_value(number))
    return made


def test_an_array_gives_its_items() -> None:
    made = array(1, 2)
    assert (made.size, len(made), made[1].value, bool(array())) == (2, 2, 2, True)
    with pytest.raises(IndexError):
        _ = made[2]


@pytest.mark.parametrize(
    "made", [array(1), make.data_factory([1]), make.data_factory({"a": 1}), c_uamqp.null_value()], ids=str
)
def test_create_without_arguments_empties(made: Any) -> None:
    made.create()
    assert not made.value


@pytest.mark.parametrize(
    ("made", "length"),
    [(make.data_factory({"a": 1}), 1), (c_uamqp.binary_value(b"abc"), 3), (make.data_factory([1, 2]), 2)],
    ids=str,
)
def test_what_has_a_length_is_true_even_when_empty(made: Any, length: int) -> None:
    assert (len(made), bool(type(made)())) == (length, True)


@pytest.mark.parametrize("left", [c_uamqp.int_value(1), c_uamqp.create_string_from_value(b"a")], ids=str)
def test_unequal_is_not_equal(left: Any) -> None:
    other = c_uamqp.int_value(2) if isinstance(left, c_uamqp.AMQPValue) else c_uamqp.create_string_from_value(b"b")
    assert left != other
    assert not left != left.clone()  # noqa: SIM202 - it is != that is tested
    with pytest.raises(TypeError):
        _ = left != 1


@pytest.mark.parametrize(
    "made",
    [c_uamqp.int_value(1), c_uamqp.create_string_from_value(b"a"), tick.TickCounter()],
    ids=lambda made: type(made).__name__,
)
def test_destroy_may_be_called_and_frees_nothing(made: Any) -> None:
    made.destroy()
    made.destroy()
    assert str(made)


@pytest.mark.parametrize("made", [c_uamqp.int_value(1), c_uamqp.create_empty_string()], ids=["int", "string"])
def test_what_can_change_has_no_hash(made: Any) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(made)
