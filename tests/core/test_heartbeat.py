"""The heap of deadlines, with a clock in hand; and the thread, by events."""

from __future__ import annotations

import gc
import random
import threading

import pytest

from uamqp_cffi._core.transport.heartbeat import Heart


class Target:
    def __init__(self, every, log, name=""):
        self.every = every
        self.log = log
        self.name = name
        self.beaten = threading.Event()

    def _beat(self, now):
        self.log.append((self.name, now))
        self.beaten.set()
        return None if self.every is None else now + self.every


def test_each_is_asked_at_its_own_times():
    heart, log = Heart(thread=False), []
    fast, slow = Target(2, log, "fast"), Target(5, log, "slow")
    heart.watch(fast, 2)
    heart.watch(slow, 5)
    now = 0
    while now < 10:
        now = heart.beat(now)
    assert log == [("fast", 2), ("fast", 4), ("slow", 5), ("fast", 6), ("fast", 8)]


def test_nothing_is_asked_before_its_time():
    heart, log = Heart(thread=False), []
    target = Target(1, log)
    heart.watch(target, 10)
    assert heart.beat(9.9) == 10
    assert log == []


def test_who_says_never_is_not_asked_again():
    heart, log = Heart(thread=False), []
    target = Target(None, log)
    heart.watch(target, 1)
    assert heart.beat(1) is None
    assert log == [("", 1)]


def test_nobody_is_kept_alive():
    heart, log = Heart(thread=False), []
    target = Target(1, log)
    heart.watch(target, 1)
    heart.beat(1)
    del target
    gc.collect()
    assert heart.beat(100) is None
    assert log == [("", 1)]


def test_one_that_asks_for_the_past_does_not_stop_the_others():
    heart, log = Heart(thread=False), []
    eager = Target(-5, log)
    heart.watch(eager, 1)
    assert heart.beat(1) == 1.001
    assert len(log) == 1


def test_one_that_fails_costs_the_others_nothing(caplog):
    class Failing(Target):
        def _beat(self, now):
            raise OSError("no heart")

    heart, log = Heart(), []
    failing, sound = Failing(1, log), Target(None, log)
    heart.watch(failing, 0)
    heart.watch(sound, 0)
    assert sound.beaten.wait(10)
    assert "no heart" in caplog.text
    assert heart._chosen["thread"].is_alive()


def test_one_thread_serves_all_and_is_a_daemon():
    heart, log = Heart(), []
    before = threading.active_count()
    first, second = Target(None, log), Target(None, log)
    heart.watch(first, 0)
    heart.watch(second, 0)
    assert first.beaten.wait(10)
    assert second.beaten.wait(10)
    assert threading.active_count() == before + 1
    assert heart._chosen["thread"].daemon
    third = Target(None, log)
    heart.watch(third, 0)  # the thread, asleep without a deadline, is woken
    assert third.beaten.wait(10)


def test_a_thread_that_could_not_be_started_is_started_later(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    heart, log = Heart(), []
    first, second = Target(None, log), Target(None, log)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            heart.watch(first, 0)
    heart.watch(second, 0)
    assert first.beaten.wait(10)
    assert second.beaten.wait(10)


def test_there_is_one_thread_though_two_were_started():
    heart, log = Heart(), []
    first, second = Target(None, log), Target(None, log)
    heart.watch(first, 0)
    assert first.beaten.wait(10)
    other = threading.Thread(target=heart._run, daemon=True)  # as when two connections open at the same time
    other.start()
    other.join(10)
    assert not other.is_alive()
    heart.watch(second, 0)
    assert second.beaten.wait(10)


def test_an_interrupt_of_one_who_begins_to_beat_stops_nobody_else(interrupted):
    heart, log, chance = Heart(), [], random.Random(2)
    target = Target(None, log)

    def watch():
        while True:
            heart.watch(target, 1e9)

    for _ in range(300):
        assert interrupted(chance.uniform(0.00002, 0.0002), watch)
        other = Target(None, log)
        heart.watch(other, 0)
        assert other.beaten.wait(10), "the heartbeat thread hangs"
