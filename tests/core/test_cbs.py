"""The token exchange, step by step: a node that the test answers for, and clocks that it moves."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import pytest

from uamqp_cffi import Connection, errors
from uamqp_cffi._core.waiting.callbacks import Calls
from uamqp_cffi._core.waiting.locks import Turn
from uamqp_cffi._core.waiting.plan import Inbox, run, run_async
from uamqp_cffi._session import requests as mgmt
from uamqp_cffi._session import tokens as cbs
from uamqp_cffi.async_ops.connection_async import ConnectionAsync
from uamqp_cffi.authentication import JWTTokenAsync, JWTTokenAuth, SASTokenAsync, SASTokenAuth, TokenRetryPolicy
from uamqp_cffi.authentication.cbs_auth_async import CBSAsyncAuthMixin
from uamqp_cffi.constants import CBSAuthStatus
from uamqp_cffi.message import Message


class Node:
    """A link pair whose requests the test answers."""

    made: list[Node]

    def __init__(self, session, name):
        self.session, self.name = session, name
        self.error = None
        self.ready = True
        self.open_count = 0
        self.closed = False
        self.requests = []
        self.forgotten = []
        Node.made.append(self)

    def open(self):
        self.open_count += 1

    def close(self):
        self.closed = True

    def submit(self, message, operation, op_type):
        answer = mgmt.Answer()
        self.requests.append((message, operation, op_type, answer))
        return len(self.requests), answer

    def forget(self, request_id):
        self.forgotten.append(request_id)


class World:
    """An exchange, its clocks and its peer."""

    def __init__(self, auth, asyncio_too=False):
        self.auth = auth
        self.seconds = 0.0
        self.start = 0.0
        kind = ConnectionAsync if isinstance(auth, CBSAsyncAuthMixin) and asyncio_too else Connection
        connection = SimpleNamespace(
            _opened=True,
            _failure=None,
            _flush=lambda: True,
            _token_accepted=lambda: None,
            container_id=b"c",
            _beside=partial(kind._beside, None),
        )
        self.session = SimpleNamespace(
            _lock=threading.RLock(),
            _dispatch=lambda: None,
            _calls=Calls(),
            _error=None,
            _inbox=Inbox(),
            _connection=connection,
        )
        self.exchange = cbs.Exchange(self.session, auth, wall=lambda: self.start + self.seconds, clock=self.now)

    def now(self):
        return 500.0 + self.seconds

    def step(self):
        return run(self.exchange.step_plan(), cbs.no_wait)

    async def step_async(self):
        return await run_async(self.exchange.step_plan(), cbs.no_wait_async)

    def pair(self):
        return run(self.exchange.token_plan(), cbs.no_wait)

    @property
    def node(self):
        return Node.made[-1]

    @property
    def answer(self):
        return self.node.requests[-1][3]

    def reply(self, status=202, description="fine"):
        fields = {b"status-code": status, b"status-description": description}
        self.answer.message = Message.decode_from_bytes(Message(b"", application_properties=fields).encode_message())
        return self.step()

    @property
    def puts(self):
        """The tokens that were put so far."""
        return [request[0].value for node in Node.made for request in node.requests]

    def wait(self):
        """How long a waiting client would sleep now."""
        deadline = self.exchange.deadline()
        return None if deadline is None else pytest.approx(deadline - self.now())


@pytest.fixture(autouse=True)
def node(monkeypatch):
    Node.made = []
    monkeypatch.setattr(cbs.mgmt, "Node", Node)


def token(text, seconds):
    return SimpleNamespace(token=text, expires_on=seconds)


def world(get_token=None, life=100.0, **options):
    """A world at whose start there is a first token of `life` seconds."""
    options.setdefault("retry_policy", TokenRetryPolicy(retries=0))
    auth = JWTTokenAuth(b"aud", "amqps://host/q", get_token or (lambda: None), **options)
    made = World(auth)
    auth.token, auth.expires_at = b"t1", life
    return made


@pytest.fixture
def renewing():
    """A world whose token function gives t2, t3, ... each for 100 seconds, and counts its calls."""
    calls = []

    def get_token():
        calls.append(made.seconds)
        return token(f"t{len(calls) + 1}", made.seconds + 100)

    made = world(get_token)
    made.calls = calls
    return made


# ---- the first token


def test_the_first_step_puts_the_token():
    made = world()
    assert made.step() is False
    assert made.exchange.status is CBSAuthStatus.InProgress
    [(message, operation, op_type, _)] = made.node.requests
    assert made.node.name == b"$cbs" and made.node.open_count == 1
    assert (message.value, operation, op_type) == (b"t1", b"put-token", b"jwt")
    assert message.application_properties == {b"name": b"aud"}


def test_a_token_is_put_once():
    made = world()
    made.step()
    assert made.step() is False
    assert made.puts == [b"t1"]


@pytest.mark.parametrize("status", [200, 202, 299])
def test_a_status_of_200_to_299_is_acceptance(status):
    made = world()
    made.step()
    assert made.reply(status) is True
    assert made.exchange.status is CBSAuthStatus.Ok


@pytest.mark.parametrize("status", [199, 300, 401, -1])
def test_any_other_status_is_failure(status):
    made = world()
    made.step()
    with pytest.raises(errors.TokenAuthFailure) as caught:
        made.reply(status, "why not")
    assert (caught.value.status_code, caught.value.description) == (status, b"why not")
    assert "why not" in str(caught.value)
    assert made.exchange.status is CBSAuthStatus.Failure


@pytest.mark.parametrize(("status", "retryable"), [(401, False), (404, False), (408, True), (429, True), (503, True)])
def test_a_failure_says_whether_another_try_may_help(status, retryable):
    made = world()
    made.step()
    with pytest.raises(errors.TokenAuthFailure) as caught:
        made.reply(status)
    assert caught.value.retryable is retryable and caught.value.scope == "connection"


@pytest.mark.parametrize("status", [None, "202", True])
def test_an_answer_without_a_status_is_a_failure(status):
    made = world()
    made.step()
    with pytest.raises(errors.AuthenticationException, match="status-code"):
        made.reply(status)


@pytest.mark.parametrize("payload", [b"", b"\x00\x53\x74\xff", b"\x00\x53\x74\x40", b"\x00\x53\x77\x45", b"\xff" * 9])
def test_an_answer_that_cannot_be_read_is_a_failure(payload):
    made = world()
    made.step()
    made.answer.message = Message._received(payload, None, 0, b"t", 0)
    with pytest.raises(errors.AuthenticationException, match="status-code"):
        made.step()


def test_links_that_cannot_be_attached_are_tried_again(monkeypatch):
    made = world()
    monkeypatch.setattr(Node, "open", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.step()
    monkeypatch.undo()
    monkeypatch.setattr(cbs.mgmt, "Node", Node)
    made.step()
    assert made.puts == [b"t1"] and len(Node.made) == 2


def test_a_failure_is_raised_by_every_later_step():
    made = world()
    made.step()
    for _ in range(2):
        with pytest.raises(errors.TokenAuthFailure):
            made.reply(401)
    assert made.puts == [b"t1"]


@pytest.mark.parametrize("answered", [False, True])
def test_a_step_is_due_when_it_would_do_something(renewing, answered):
    exchange = renewing.exchange
    assert exchange.due()  # the first token is to be put
    renewing.step()
    assert not exchange.due()
    if answered:
        renewing.answer.message = Message(b"", application_properties={b"status-code": 200})
    else:
        renewing.seconds = renewing.auth.timeout
    assert exchange.due()


def test_a_step_is_due_when_the_token_is_to_be_renewed(renewing):
    renewing.step()
    renewing.reply()
    renewing.seconds = 89.9
    assert not renewing.exchange.due()
    renewing.seconds = 90
    assert renewing.exchange.due()


def test_a_step_is_due_when_the_connection_has_opened(renewing):
    renewing.session._connection._opened = False
    renewing.step()
    assert not renewing.exchange.due()
    renewing.session._connection._opened = True
    assert renewing.exchange.due()
    renewing.step()
    assert not renewing.exchange.due()


def test_a_step_is_due_when_there_is_an_error_to_raise():
    made = world()
    made.step()
    with pytest.raises(errors.TokenAuthFailure):
        made.reply(401)
    assert made.exchange.due()


def test_no_step_is_due_while_another_thread_makes_one(renewing):
    renewing.step()
    renewing.reply()
    renewing.seconds = 90
    renewing.exchange._enter(object())
    assert not renewing.exchange.due()


def test_a_token_that_is_none_is_not_put():
    made = world()
    made.auth.token = None
    with pytest.raises(errors.AuthenticationException, match="no token"):
        made.step()
    assert Node.made == []


# ---- trying again


def test_a_refused_token_is_put_as_often_as_the_policy_says():
    made = world(retry_policy=TokenRetryPolicy(retries=3))
    made.step()
    for _ in range(3):
        assert made.reply(500) is False
    assert made.auth.retries == 3
    with pytest.raises(errors.TokenAuthFailure):
        made.reply(500)
    assert made.puts == [b"t1"] * 4


def test_acceptance_sets_the_count_of_tries_back():
    made = world(retry_policy=TokenRetryPolicy(retries=1))
    made.step()
    made.reply(500)
    assert made.reply(202) is True
    assert made.auth.retries == 0


def test_between_tries_lies_the_backoff():
    made = world(retry_policy=TokenRetryPolicy(retries=1, backoff=1500))
    made.step()
    made.reply(500)
    assert made.wait() == 1.5
    made.seconds = 1.4
    made.step()
    assert len(made.puts) == 1
    made.seconds = 1.5
    made.step()
    assert len(made.puts) == 2


def test_a_refused_request_is_tried_again():
    made = world(retry_policy=TokenRetryPolicy(retries=1))
    made.step()
    made.answer.error = errors.MessageSendFailed(b"amqp:not-allowed", "no")
    assert made.step() is False
    made.answer.error = errors.MessageSendFailed(b"amqp:not-allowed", "no")
    with pytest.raises(errors.AuthenticationException, match="did not take the token: .*no") as caught:
        made.step()
    assert caught.value.condition == b"amqp:not-allowed"


# ---- links


def test_refused_links_are_an_authentication_error_with_the_peer_s_words():
    made = world(retry_policy=TokenRetryPolicy(retries=3))
    made.step()
    made.node.ready = False
    made.node.error = made.answer.error = errors.LinkDetach(b"amqp:not-found", "no such node", {b"k": 1})
    with pytest.raises(errors.AuthenticationException, match="no such node") as caught:
        made.step()
    assert (caught.value.condition, caught.value.description) == (b"amqp:not-found", "no such node")
    assert caught.value.info == {b"k": 1}
    assert made.exchange.status is CBSAuthStatus.Error


def test_links_that_break_under_a_request_are_attached_anew():
    made = world(retry_policy=TokenRetryPolicy(retries=1))
    made.step()
    first = made.node
    first.error = made.answer.error = errors.LinkDetach(b"amqp:link:detach-forced")
    assert made.step() is False
    assert first.closed and made.node is not first
    assert made.reply() is True


def test_links_that_broke_meanwhile_are_attached_anew_for_the_next_token(renewing):
    renewing.step()
    renewing.reply()
    first = renewing.node
    first.error = errors.LinkDetach(b"amqp:link:detach-forced", "idle for 10 minutes")
    renewing.seconds = 90
    assert renewing.step() is True
    assert first.closed and renewing.node is not first
    assert renewing.reply() is True


@pytest.mark.parametrize("where", ["session", "connection"])
def test_what_broke_session_or_connection_is_raised(where):
    made = world()
    made.step()
    error = errors.AMQPConnectionError("gone")
    if where == "session":
        made.session._error = error
    else:
        made.session._connection._failure = error
    with pytest.raises(errors.AMQPConnectionError, match="gone"):
        made.step()


def test_closing_detaches_the_links():
    made = world()
    made.step()
    made.exchange.close()
    made.exchange.close()
    assert made.node.closed


# ---- time


def test_an_answer_that_does_not_come_is_a_time_out():
    made = world(timeout=7)
    made.step()
    assert made.wait() == 7
    made.seconds = 6.9
    made.step()
    made.seconds = 7
    with pytest.raises(TimeoutError, match="timeout of 7 s") as caught:
        made.step()
    assert made.exchange.status is CBSAuthStatus.Timeout and made.node.forgotten == [1]
    assert caught.value.retryable and caught.value.scope == "connection"


def test_the_time_for_an_answer_begins_with_the_open_connection():
    made = world(timeout=7)
    made.session._connection._opened = False
    made.step()
    made.seconds = 20
    assert made.step() is False and made.wait() is None
    made.session._connection._opened = True
    made.step()
    assert made.wait() == 7


@pytest.mark.parametrize("timeout", [0, None])
def test_without_a_timeout_an_answer_may_take_for_ever(timeout):
    made = world(timeout=timeout)
    made.step()
    made.seconds = 1e6
    assert made.step() is False and made.wait() is None


def test_a_token_is_renewed_when_a_tenth_of_its_life_is_left(renewing):
    renewing.step()
    renewing.reply()
    assert renewing.wait() == 90
    renewing.seconds = 89.9
    renewing.step()
    assert renewing.calls == []
    renewing.seconds = 90
    assert renewing.step() is True  # the old one is good for what goes on meanwhile
    assert renewing.puts == [b"t1", b"t2"]
    assert renewing.reply() is True
    assert renewing.wait() == 90


def test_a_refresh_window_says_when_a_token_is_renewed():
    made = world(refresh_window=30)
    made.step()
    made.reply()
    assert made.wait() == 70


def test_a_window_longer_than_a_token_s_life_does_not_renew_it_at_once():
    made = world(refresh_window=300)
    made.step()
    made.reply()
    assert made.wait() == 10


@pytest.mark.parametrize("life", [30 * 86400, 1e30, float("inf")])
def test_a_call_that_waits_looks_at_the_clock_now_and_then(life):
    made = world(life=life)
    made.step()
    made.reply()
    assert made.wait() == cbs.LOOK
    made.seconds = 7 * cbs.LOOK
    assert made.step() is True and made.wait() == cbs.LOOK


def test_a_clock_that_was_set_is_believed():
    made = world(lambda: token("t1", 100))
    made.step()
    made.reply()
    made.start = 1000  # and the monotonic one stands where it stood
    with pytest.raises(errors.TokenExpired):
        made.step()


def test_an_unchanged_token_is_not_put_and_asked_for_once_a_second():
    asked = []

    def get_token():
        asked.append(made.seconds)
        return token("t1", 100)

    made = world(get_token)
    made.step()
    made.reply()
    for tenth in range(900, 921):
        made.seconds = tenth / 10
        assert made.step() is True
    assert asked == [90, 91, 92]
    assert made.puts == [b"t1"]


def test_waiting_for_a_changed_token_sleeps_until_it_is_asked_for():
    made = world(lambda: token("t1", 100))
    made.step()
    made.reply()
    made.seconds = 90
    made.step()
    assert made.wait() == 1
    made.seconds = 99.5
    made.step()
    assert made.wait() == 0.5  # the expiry


def test_a_token_past_its_time_is_an_error():
    made = world(lambda: token("t1", 100))
    made.step()
    made.reply()
    made.seconds = 100
    with pytest.raises(errors.TokenExpired) as caught:
        made.step()
    assert made.exchange.status is CBSAuthStatus.Expired and caught.value.retryable is True


def test_a_function_that_fails_is_asked_again_until_the_token_expires(caplog):
    problems = []

    def get_token():
        problems.append(ConnectionError("secret"))
        raise problems[-1]

    made = world(get_token)
    made.step()
    made.reply()
    with caplog.at_level(logging.DEBUG, "uamqp"):
        for second in range(90, 100):
            made.seconds = second
            assert made.step() is True
    assert len(problems) == 10
    assert "ConnectionError" in caplog.text and "secret" not in caplog.text
    made.seconds = 100
    with pytest.raises(errors.TokenExpired) as caught:
        made.step()
    assert caught.value.__cause__ is problems[-1]


def test_a_token_that_ran_out_while_nobody_worked_is_renewed(renewing):
    renewing.step()
    renewing.reply()
    renewing.seconds = 1000
    assert renewing.exchange.due()
    assert renewing.step() is False
    assert renewing.puts == [b"t1", b"t2"] and renewing.calls == [1000]
    assert renewing.reply() is True


def test_a_function_that_failed_a_second_ago_is_not_asked_again_when_the_token_has_expired():
    problems = []

    def get_token():
        problems.append(ConnectionError())
        raise problems[-1]

    made = world(get_token)
    made.step()
    made.reply()
    made.seconds = 99.5
    made.step()
    made.seconds = 100
    with pytest.raises(errors.TokenExpired) as caught:
        made.step()
    assert problems == [caught.value.__cause__]


def test_a_new_token_that_has_expired_itself_is_the_end():
    made = world(lambda: token("t2", 900))
    made.step()
    made.reply()
    made.seconds = 1000
    assert made.step() is False
    assert made.reply() is False
    with pytest.raises(errors.TokenExpired):
        made.step()
    assert made.puts == [b"t1", b"t2"]


def test_a_function_that_works_again_ends_the_trouble():
    answers = [ConnectionError(), token("t2", 200)]

    def get_token():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = world(get_token)
    made.step()
    made.reply()
    for second in (90, 91):
        made.seconds = second
        made.step()
    assert made.reply() is True and made.puts == [b"t1", b"t2"]


def test_ctrl_c_in_the_function_comes_through():
    def get_token():
        raise KeyboardInterrupt

    made = world(get_token)
    made.step()
    made.reply()
    made.seconds = 95
    with pytest.raises(KeyboardInterrupt):
        made.step()
    assert made.exchange._enter(object())  # and nobody holds the turn


@pytest.mark.parametrize("plan", ["step_plan", "token_plan"])
def test_ctrl_c_while_the_turn_is_taken_does_not_keep_it(renewing, plan):
    class Interrupted(Turn):
        __slots__ = ()

        def take(self, who):
            super().take(who)
            raise KeyboardInterrupt

    free, renewing.exchange._turn = renewing.exchange._turn, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run(getattr(renewing.exchange, plan)(), cbs.no_wait)
    assert not renewing.exchange._turn.taken()
    renewing.exchange._turn = free
    renewing.step()
    assert renewing.reply() is True


def test_a_refused_renewal_is_an_error(renewing):
    renewing.step()
    renewing.reply()
    renewing.seconds = 90
    renewing.step()
    with pytest.raises(errors.TokenAuthFailure):
        renewing.reply(401)


def test_an_old_token_that_expires_while_the_new_one_is_looked_at_is_none(renewing):
    renewing.step()
    renewing.reply()
    renewing.seconds = 95
    assert renewing.step() is True
    renewing.seconds = 101
    assert renewing.step() is False
    assert renewing.reply() is True


def test_a_fixed_token_is_good_until_its_expiry():
    auth = SASTokenAuth("aud", "amqps://host/q", "t", expires_in=timedelta(seconds=100))
    made = World(auth)
    auth.expires_at = 100
    made.step()
    made.reply()
    made.seconds = 99
    assert made.step() is True
    made.seconds = 100
    with pytest.raises(errors.TokenExpired) as caught:
        made.step()
    assert caught.value.retryable is False


# ---- several threads, two times None


def test_while_one_thread_makes_a_step_others_make_none(renewing):
    renewing.step()
    renewing.reply()
    renewing.seconds = 90
    seen = []

    def get_token():
        seen.append(renewing.pair())
        seen.append(renewing.step())
        seen.append(renewing.exchange.deadline())
        return token("t2", 200)

    renewing.auth.get_token = get_token
    renewing.step()
    assert seen == [(None, None), True, None]
    assert renewing.session._inbox.poked  # those who were turned away look again


def test_who_asked_when_to_wake_up_during_a_step_is_woken_after_it(renewing):
    renewing.step()
    renewing.reply()
    renewing.seconds = 90
    seen = []

    def get_token():
        seen.append(renewing.exchange.deadline())
        raise OSError("no network")

    renewing.auth.get_token = get_token
    renewing.step()
    assert seen == [None] and renewing.session._inbox.poked
    assert renewing.wait() == cbs.AGAIN


def test_nobody_is_woken_by_steps_that_nobody_missed(renewing):
    renewing.step()
    renewing.reply()
    assert not renewing.session._inbox.poked


def test_a_pair_tells_of_time_and_of_what_is_to_come():
    made = world(timeout=7)
    assert made.pair() == (False, True)
    made.seconds = 7
    assert made.pair() == (True, False)
    assert made.pair() == (True, False)


def test_a_pair_tells_of_acceptance():
    made = world()
    made.pair()
    made.reply()
    assert made.pair() == (False, False)


# ---- coroutines


def due(auth, asyncio_too=True):
    """A world whose token is to be renewed now."""
    made = World(auth, asyncio_too)
    auth.token, auth.expires_at = b"t1", 100
    made.step()
    made.reply()
    made.seconds = 95
    return made


async def for_ever():
    await asyncio.sleep(3600)


async def poked(made):
    while not made.session._inbox.poked:
        await asyncio.sleep(0)
    made.session._inbox.poked = False


def test_a_coroutine_is_not_waited_for_by_the_step_that_asks():
    go = []

    async def get_token():
        while not go:
            await asyncio.sleep(0)
        return token("t2", 300)

    made = due(JWTTokenAsync("aud", "amqps://host/q", get_token))

    async def main():
        assert await made.step_async() is True
        assert not made.exchange.due() and made.wait() == 2.5  # half of the time until the old one expires
        assert await made.step_async() is True
        assert made.puts == [b"t1"]
        go.append(True)
        await poked(made)
        assert made.exchange.due() and made.wait() == 0
        assert await made.step_async() is True

    asyncio.run(main())
    assert made.puts == [b"t1", b"t2"]
    assert made.reply() is True and made.wait() == 205 * 0.9


def test_a_token_that_a_coroutine_fails_to_get_is_asked_for_again(caplog):
    calls = []

    async def get_token():
        calls.append(made.seconds)
        if len(calls) == 1:
            raise OSError("secret words")
        return token("t2", 300)

    made = due(JWTTokenAsync("aud", "amqps://host/q", get_token))

    async def main():
        with caplog.at_level(logging.DEBUG, "uamqp"):
            await made.step_async()
            await poked(made)
            assert await made.step_async() is True
        assert made.wait() == cbs.AGAIN
        made.seconds += cbs.AGAIN
        await made.step_async()
        await poked(made)
        await made.step_async()

    asyncio.run(main())
    assert calls == [95, 96] and made.puts == [b"t1", b"t2"]
    assert "OSError" in caplog.text and "secret" not in caplog.text


def test_a_coroutine_that_is_still_asking_when_the_token_expires_is_waited_for():
    go = []

    async def get_token():
        while not go:
            await asyncio.sleep(0)
        return token("t2", 300)

    made = due(JWTTokenAsync("aud", "amqps://host/q", get_token))

    async def main():
        made.seconds = 99.5
        await made.step_async()
        made.seconds = 100
        assert not made.exchange.due() and made.wait() == 0.5
        assert await made.step_async() is False
        go.append(True)
        await poked(made)
        assert await made.step_async() is False  # it is put, and not accepted yet
        assert made.reply() is True

    asyncio.run(main())
    assert made.puts == [b"t1", b"t2"]


def test_a_coroutine_that_is_stuck_beyond_the_expiry_is_called_once_more():
    made = due(JWTTokenAsync("aud", "amqps://host/q", for_ever, timeout=10))

    async def main():
        await made.step_async()
        made.seconds = 100
        assert made.exchange.due()
        assert await made.step_async() is False  # gives it up
        assert await made.step_async() is False  # calls it
        assert not made.exchange.due() and made.wait() == 10
        made.seconds = 110
        assert await made.step_async() is False
        assert made.exchange.due()
        with pytest.raises(errors.TokenExpired) as caught:
            await made.step_async()
        assert isinstance(caught.value.__cause__, TimeoutError)
        made.exchange.close()
        await poked(made)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_coroutine_that_takes_half_of_the_time_is_given_up_and_called_anew():
    calls = []

    async def get_token():
        calls.append(made.seconds)
        if len(calls) < 3:
            await for_ever()
        return token("t2", 300)

    made = due(JWTTokenAsync("aud", "amqps://host/q", get_token))

    async def main():
        for seconds in (95, 97.5, 98.75):
            made.seconds = seconds
            assert made.exchange.due()
            assert await made.step_async() is True  # gives it up
            assert await made.step_async() is True  # calls it
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        assert await made.step_async() is True

    asyncio.run(main())
    assert calls == [95, 97.5, 98.75] and made.puts == [b"t1", b"t2"]


def test_a_coroutine_that_somebody_cancels_is_one_that_failed():
    made = due(JWTTokenAsync("aud", "amqps://host/q", for_ever))

    async def main():
        await made.step_async()
        (asyncio.all_tasks() - {asyncio.current_task()}).pop().cancel()
        await poked(made)
        assert await made.step_async() is True
        assert made.wait() == cbs.AGAIN

    asyncio.run(main())


def test_a_blocking_class_refuses_an_async_auth_object():
    made = due(SASTokenAsync("aud", "amqps://host/q", "t", expires_in=timedelta(seconds=100)), asyncio_too=False)
    with pytest.raises(RuntimeError, match="SASTokenAsync is for the asyncio classes"):
        made.step()
