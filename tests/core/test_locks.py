"""The locks of connections, sessions and clients: interrupts at their door, and forks."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from typing import Any

import pytest

from uamqp_cffi._core.waiting.locks import Lock, RLock, Roster, Signal, Turn, fork_safe


def test_one_thread_at_a_time_is_inside() -> None:
    lock, inside, most = Lock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(2000):
            with lock:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (inside, most, lock.locked()) == (0, 1, False)


def test_an_exception_leaves_it_free() -> None:
    lock = Lock()
    with pytest.raises(ValueError, match="x"), lock:
        assert lock.locked()
        raise ValueError("x")
    assert not lock.locked()


def test_who_has_a_reentrant_one_may_take_it_again() -> None:
    lock, others = RLock(), []
    with lock:
        with pytest.raises(ValueError, match="x"), lock:
            raise ValueError("x")
        other = threading.Thread(target=lambda: others.append(lock.acquire(blocking=False)))
        other.start()
        other.join(10)
    assert others == [False]


@pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="PyPy may interrupt between a block and giving its lock back"
)
@pytest.mark.parametrize("kind", [Lock, RLock], ids=["Lock", "RLock"])
def test_an_interrupt_at_the_door_shuts_nobody_out(kind: Any, interrupted: Any) -> None:
    lock, chance = kind(), random.Random(1)
    got: list[bool] = []

    def pass_through() -> None:
        while True:
            with lock:
                pass

    def take() -> None:
        got.append(lock.acquire(timeout=10))
        lock.release()

    for _ in range(500):
        assert interrupted(chance.uniform(0.00002, 0.0004), pass_through)
        other = threading.Thread(target=take)
        other.start()
        other.join(20)
        assert got.pop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_another_thread_had_is_free_in_a_forked_child() -> None:
    locks = [fork_safe(threading.Lock()), fork_safe(RLock())]
    ours = fork_safe(RLock())
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locks[0], locks[1]:
            taken.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(10)
    with ours:
        child = os.fork()
        if child == 0:
            free = all(lock.acquire(blocking=False) for lock in locks)
            ours.release()  # raises when it is not ours any more
            os._exit(0 if free else 1)
    done.set()
    thread.join(10)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_signal_ends_one_wait() -> None:
    one = Signal()
    assert not one.wait(0)
    one.set()
    one.set()
    assert one.wait()
    assert not one.wait(0.001)
    threading.Timer(0.01, one.set).start()
    start = time.monotonic()
    assert one.wait(20)
    assert time.monotonic() - start < 10


# ---- turns


def test_a_turn_is_theirs_who_asked_first_until_it_is_given() -> None:
    turn = Turn()
    assert not turn.taken()
    assert turn.take("a") and turn.take("a")
    assert not turn.take("b") and not turn.take("c")
    turn.give("c", None)
    turn.give("a", None)
    assert turn.taken() and turn.take("b")
    turn.give("b", None)
    turn.give("b", None)
    assert not turn.taken()


def test_one_thread_at_a_time_has_the_turn() -> None:
    turn, inside, most, had = Turn(), 0, 0, 0

    def work() -> None:
        nonlocal inside, most, had
        for _ in range(5000):
            me = object()
            try:
                if turn.take(me):
                    inside += 1
                    most = max(most, inside)
                    had += 1
                    inside -= 1
            finally:
                turn.give(me, None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (inside, most, turn.taken()) == (0, 1, False) and had > 0


def test_a_roster_holds_nothing_alive_and_does_not_grow() -> None:
    class Thing:
        pass

    roster: Roster[Thing] = Roster()
    kept = Thing()
    roster.add(kept)
    roster.add(kept)
    for _ in range(200):
        roster.add(Thing())
    assert list(roster) == [kept]
    assert len(roster._refs) < 70
