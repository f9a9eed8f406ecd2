"""The lock around a connection's critical sections, and interrupts at its door."""

from __future__ import annotations

import random
import signal
import threading

import pytest

from uamqp_cffi._core.locks import Lock


class Stop(BaseException):
    pass


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


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_an_interrupt_at_the_door_does_not_shut_its_thread_out() -> None:
    lock, chance = Lock(), random.Random(1)

    def stop(*args: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(500):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.0004))
                while True:
                    with lock:
                        pass
            except Stop:
                pass
            signal.setitimer(signal.ITIMER_REAL, 10)  # ends the test, should the lock be taken for good
            with lock:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert not lock.locked()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
