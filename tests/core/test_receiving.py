"""The queue of unread messages, and ranges of delivery-ids."""

from __future__ import annotations

import random
import sys
import threading
from typing import Any

import pytest

from uamqp_cffi._client.unread import Unread
from uamqp_cffi._core.engine.serial import ranges, span


def test_it_is_a_queue_all_the_same() -> None:
    unread = Unread()
    assert unread.empty() and len(unread) == 0 and bool(unread)
    unread.put(1)
    unread.extend([2, 3, 4])
    assert unread.qsize() == len(unread) == 4
    assert unread.get() == 1
    unread.task_done()
    assert unread.take(2) == [2, 3]
    assert unread.get_nowait() == 4
    unread.task_done()
    unread.join()  # all were given and done


def test_who_waits_in_get_is_woken_by_a_run() -> None:
    unread, got = Unread(), []
    threads = [threading.Thread(target=lambda: got.append(unread.get(timeout=10))) for _ in range(2)]
    for thread in threads:
        thread.start()
    unread.extend([1, 2])
    for thread in threads:
        thread.join(10)
    assert sorted(got) == [1, 2]


def test_more_than_there_is_cannot_be_taken() -> None:
    unread = Unread()
    unread.extend([1])
    assert unread.take(5) == [1] and unread.take(5) == []
    unread.extend([1, 2, 3])
    unread.keep([2])
    assert list(unread.queue) == [2] and unread.unfinished_tasks == 1


@pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="PyPy may interrupt between a block and giving its lock back"
)
def test_an_interrupt_leaves_it_to_others(interrupted: Any) -> None:
    unread, chance = Unread(), random.Random(3)

    def put_and_take() -> None:
        while True:
            unread.extend([1])
            unread.take(1)

    for _ in range(300):
        assert interrupted(chance.uniform(0.00002, 0.0004), put_and_take)
        other = threading.Thread(target=unread.take, args=(9,), daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive()


def test_runs_of_ids_are_ranges_also_across_the_wrap() -> None:
    assert list(ranges([1, 2, 3, 7, 9, 10])) == [(1, 3), (7, 7), (9, 10)]
    assert list(ranges([0xFFFFFFFE, 0xFFFFFFFF, 0, 1])) == [(0xFFFFFFFE, 1)]
    assert list(ranges([])) == []
    assert span(0xFFFFFFFE, 1) == 4 and span(7, 7) == 1
