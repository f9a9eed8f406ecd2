"""Bookkeeping of open deliveries: found by id, let go of once, at a cost that does not grow with what is pending."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uamqp_cffi._core.waiting.callbacks import Calls
from uamqp_cffi._session.unsettled import Runs


class Owner:
    def __init__(self) -> None:
        self.got: list[Any] = []

    def _settled(self, items: list[Any], outcome: int, state: bytes) -> None:
        self.got += items


def taken(runs: Runs, first: int, last: int) -> list[Any]:
    return [item for _, items in runs.take(first, last) for item in items]


def test_a_range_takes_what_is_open_in_it() -> None:
    runs, owner = Runs(), Owner()
    runs.add(10, list("abcde"), owner)
    assert taken(runs, 12, 13) == ["c", "d"]
    assert taken(runs, 0, 12) == ["a", "b"]
    assert taken(runs, 0, 100) == ["e"]
    assert taken(runs, 0, 100) == [] and not runs


def test_ids_of_other_links_in_between_do_not_count() -> None:
    runs, owner = Runs(), Owner()
    runs.add(1, ["a", "b"], owner)
    runs.add(9, ["c"], owner)
    assert taken(runs, 2, 9) == ["b", "c"]
    assert list(runs) == ["a"]


def test_owners_are_told_apart() -> None:
    runs, one, two = Runs(), Owner(), Owner()
    runs.add(0, ["a"], one)
    runs.add(1, ["b"], two)
    assert runs.take(0, 1) == [(one, ["a"]), (two, ["b"])]


@pytest.mark.parametrize("start", [0, 2**31 - 2, 2**32 - 3, 2**32 - 1])
def test_ids_wrap_at_32_bits(start: int) -> None:
    runs, owner = Runs(), Owner()
    runs.add(start, ["a", "b"], owner)
    runs.add((start + 2) % 2**32, ["c", "d"], owner)
    assert runs.id_of("c") == (start + 2) % 2**32
    assert taken(runs, (start + 1) % 2**32, (start + 2) % 2**32) == ["b", "c"]
    assert taken(runs, start, (start + 3) % 2**32) == ["a", "d"]


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), max_size=20),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60)), max_size=60),
)
def test_every_item_comes_out_once_whatever_the_order(
    start: int, adds: list[tuple[int, int]], ranges: list[tuple[int, int]]
) -> None:
    runs, owner = Runs(), Owner()
    model: dict[int, int] = {}
    at = 0
    for size, gap in adds:
        at += gap
        ids = range(at, at + size)
        runs.add((start + at) % 2**32, list(ids), owner)
        model.update((i, i) for i in ids)
        at += size
    for low, length in ranges:
        expected = [model.pop(i) for i in range(low, low + length + 1) if i in model]
        assert taken(runs, (start + low) % 2**32, (start + low + length) % 2**32) == expected
        assert list(runs) == list(model) and bool(runs) == bool(model) and len(runs) == len(model)
    assert [item for _, items in runs.take_all() for item in items] == list(model)
    assert not runs


def test_taking_does_not_look_at_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settling a million deliveries one by one, from both ends, touches a bounded number of runs each."""
    from uamqp_cffi._session import unsettled as sending

    runs, owner = Runs(), Owner()
    for n in range(1000):  # gaps: none of them can be joined
        runs.add(n * 10, [n] * 5, owner)
    looked: list[int] = []
    look = sending._Run.look
    monkeypatch.setattr(sending._Run, "look", lambda self, low, high: looked.append(1) or look(self, low, high))
    for n in range(500):
        for one in (n * 10, (999 - n) * 10 + 4):
            assert len(taken(runs, one, one)) == 1
    assert len(looked) == 1000


def test_settled_items_are_let_go_of() -> None:
    runs, owner = Runs(), Owner()
    runs.add(0, list(range(1000)), owner)
    for n in range(0, 900, 100):
        runs.take(n, n + 99)
    assert len(runs._runs[0].items) < 1000


def test_calls_run_in_order_and_never_inside_one_another() -> None:
    calls, seen = Calls(), []

    def outer() -> None:
        calls.add(seen.append, "inner")
        calls.run()
        seen.append("outer")
        assert calls.nested

    calls.add(outer)
    calls.add(seen.append, "next")
    calls.run()
    assert seen == ["outer", "next", "inner"] and not calls.nested and not calls


def test_calls_survive_what_they_raise(caplog: pytest.LogCaptureFixture) -> None:
    calls, seen = Calls(), []
    calls.add(lambda: 1 / 0)
    calls.add(seen.append, 1)
    calls.run()
    assert seen == [1] and "ZeroDivisionError" in caplog.text


def test_an_interrupt_in_a_call_comes_through_and_the_rest_stays() -> None:
    calls, seen = Calls(), []

    def stop() -> None:
        raise KeyboardInterrupt

    calls.add(stop)
    calls.add(seen.append, 1)
    with pytest.raises(KeyboardInterrupt):
        calls.run()
    assert seen == [] and not calls.nested
    calls.run()
    assert seen == [1]


def test_two_threads_share_the_calls() -> None:
    calls, seen = Calls(), []
    entered, leave = threading.Event(), threading.Event()
    calls.add(lambda: (entered.set(), leave.wait(10)))
    thread = threading.Thread(target=calls.run)
    thread.start()
    assert entered.wait(10)
    calls.add(seen.append, 1)
    calls.run()
    assert seen == [1]
    leave.set()
    thread.join(10)
