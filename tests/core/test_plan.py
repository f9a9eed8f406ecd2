"""Plans and inboxes, without a connection."""

from __future__ import annotations

import pytest

from uamqp_cffi._core.engine.records import Lost
from uamqp_cffi._core.waiting.plan import Call, Inbox, Wait, run


def never(inbox, deadline):
    raise AssertionError("nothing to wait for")


def test_a_plan_gives_its_value():
    def work():
        a = yield Call(int, ("7",))
        return a + 1

    assert run(work(), never) == 8


def test_a_wait_gets_inbox_and_deadline_and_its_answer_comes_back():
    inbox = Inbox()
    asked = []

    def wait(which, deadline):
        asked.append((which, deadline))
        return len(asked) > 1

    def work():
        return [(yield Wait(inbox)), (yield Wait(inbox, 5.0))]

    assert run(work(), wait) == [False, True]
    assert asked == [(inbox, None), (inbox, 5.0)]


def test_what_a_call_raises_is_raised_in_the_plan():
    def work():
        try:
            yield Call(int, ("x",))
        except ValueError:
            return "caught"
        return "not reached"

    assert run(work(), never) == "caught"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConnectionError])
def test_what_a_wait_raises_passes_through_the_plans_finally(error):
    log = []

    def wait(inbox, deadline):
        raise error

    def work():
        try:
            yield Wait(Inbox())
        finally:
            log.append("finally")

    with pytest.raises(error):
        run(work(), wait)
    assert log == ["finally"]


def test_plans_nest_by_yield_from():
    def inner():
        return (yield Call(len, ("abc",)))

    def outer():
        return (yield from inner()) * 2

    assert run(outer(), never) == 6


def test_a_poke_is_taken_once_and_records_stay():
    inbox = Inbox()
    assert not inbox.ready()
    inbox.poke()
    assert inbox.ready()
    assert not inbox.ready()
    inbox.records.append(Lost())
    assert inbox.ready()
    assert inbox.ready()


def test_a_poke_notifies_whoever_waits():
    inbox, told = Inbox(), []
    inbox.wait_with(lambda: told.append(1))
    inbox.poke()
    inbox.wait_with(None)
    inbox.poke()
    assert told == [1]
