"""Tokens: put to the peer's `$cbs` node, and renewed in time (AMQP claims-based security).

One `Exchange` serves a connection and all its clients. It moves by `step_plan`, which never waits: whoever works on the
connection makes steps, and wakes up for the next one at `deadline()`. Answers arrive in the session's inbox, like all
else.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from .. import errors
from .._core.time import monotonic
from .._core.waiting.interrupts import openly
from .._core.waiting.locks import Turn
from .._core.waiting.plan import Call, Inbox, Plan
from ..constants import CBSAuthStatus, ErrorCodes, MessageBodyType
from ..message import Message
from ..session import Session
from . import requests as mgmt

_logger = logging.getLogger("uamqp.authentication.cbs_auth")

NODE = b"$cbs"
AGAIN = 1.0
"""Seconds after which a token that could not be renewed is asked for again."""
LOOK = 600.0
"""Seconds after which a call that waits for nothing else looks at the wall clock again: somebody may have set it."""
SHARE = 0.1
"""The share of a token's life that is left when it is renewed, unless a refresh window is given. Also the share that
must have passed: a window longer than the life of a token does not make it renewed all the time."""


class TokenSource(Protocol):
    """What the exchange asks of the auth object, which has the token."""

    audience: Any
    token: Any
    token_type: Any
    expires_at: Any
    timeout: Any
    retries: int
    _retry_policy: Any
    _refresh_window: float

    def update_token(self) -> Any: ...


class Exchange:
    """The tokens of one connection. `wall` gives seconds since the epoch, `time.time` if not given, `clock` monotonic
    ones."""

    def __init__(
        self,
        session: Session,
        auth: TokenSource,
        wall: Callable[[], float] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.session = session
        self.status = CBSAuthStatus.Idle
        self.error: Exception | None = None
        """What ended it; raised by every step from then on."""
        self.auth: Any = auth
        self._wall = wall or (lambda: time.time())  # asked by that name, as the user's own function does
        self._clock = clock
        self._turn = Turn()  # of who makes a step, also while the user's function runs
        self._missed = False  # somebody else wanted to make one meanwhile
        self._node: mgmt.Node | None = None
        self._answer: mgmt.Answer | None = None
        self._request = 0
        self._limit: float | None = None  # when the answer is late; None until the connection is open
        self._again_at: float | None = None  # when a refused token is put again
        self._putting: tuple[bytes, float] = (b"", 0.0)
        self._accepted: bytes | None = None
        self._expires_at = self._refresh_at = 0.0  # of the accepted token, by `wall`
        self._ask_at = -math.inf  # not before it, by `clock`, is a new token asked for
        self._unrenewed: Exception | None = None  # why there is none
        self._asked_late = False  # once more, after the accepted token was past its time
        self._renewal: Any = None  # with asyncio: the task that asks for it
        self._renew_by = math.inf  # when, by `clock`, that is given up

    @property
    def valid(self) -> bool:
        """Whether the peer has accepted a token that is not past its time."""
        return self._accepted is not None and self.error is None and self._wall() < self._expires_at

    @property
    def accepted(self) -> bool:
        """Whether the peer has ever accepted a token."""
        return self._accepted is not None

    def told(self, error: Any) -> Any:
        """What to say of an end that the peer made: TokenExpired when it has shut us out and the token was due to be renewed, for
        then a new one helps."""
        if (
            error.condition is not ErrorCodes.UnauthorizedAccess
            or self._accepted is None
            or self._wall() < self._refresh_at
        ):
            return error
        expired = errors.TokenExpired(f"the token for {self.auth.audience!r} has expired, says the peer: {error}")
        expired.scope, expired.action, expired.retryable = error.scope, error.action, True
        expired.__cause__ = error
        return expired

    def deadline(self) -> float | None:
        """When, by `clock`, to make a step although nothing came; None: only when something comes."""
        if self.error is not None or self._busy():
            return None
        if self._answer is not None:
            return self._limit
        if self._again_at is not None:
            return self._again_at
        if self._accepted is None:
            return None
        now, wall = self._clock(), self._wall()
        asks = max(now + self._refresh_at - wall, self._ask_at)
        if self._renewal is not None:  # who waits is woken when it is done
            return now if self._renewal.done() else min(self._renew_by, now + LOOK)
        return min(asks, now + self._expires_at - wall, now + LOOK)

    def due(self) -> bool:
        """Whether a step would do anything now."""
        if self.error is not None:
            return True
        if self._turn.taken():
            return False
        answer = self._answer
        if answer is not None:
            late = self._limit is not None and self._clock() >= self._limit
            starting = self._limit is None and self.auth.timeout and self.session._connection._opened
            return bool(late or starting or answer.message is not None or answer.error is not None)
        deadline = self.deadline()
        return self._clock() >= deadline if deadline is not None else self._accepted is None

    def _busy(self) -> bool:
        """Whether somebody makes a step. Who asks for a deadline meanwhile has none, and is woken after it: the step may
        have come to nothing."""
        if not self._turn.taken():
            return False
        self._missed = True
        return self._turn.taken()  # if not, who had it may not have seen that it was missed

    # steps

    def _enter(self, who: object) -> bool:
        """Whether `who` may make a step now. In any case `_turn.give(who, None)` and `_left()` must follow."""
        if self._turn.take(who):
            return True
        self._missed = True
        return self._turn.take(who)  # who had it may not have seen that it was missed

    def _left(self) -> None:
        if self._missed and not self._turn.taken():
            self._missed = False
            self.session._inbox.poke_all()

    def step_plan(self) -> Plan[bool]:
        """One step, which never waits: take in the answer, put the token, renew it when it is time. Gives whether the
        peer has accepted a valid token. Raises what ended the exchange: TokenTimeout, or an AuthenticationException."""
        me = object()
        try:
            if self._enter(me):
                yield from self._step_plan()
        finally:
            self._turn.give(me, None)
            self._left()
        self._raise_over()
        return self.valid

    def token_plan(self) -> Plan[tuple[bool | None, bool | None]]:
        """One step: whether time ran out, and whether the token is not accepted yet. Two times None when another thread
        makes a step."""
        me = object()
        try:
            if not self._enter(me):
                return None, None
            yield from self._step_plan()
        except errors.TokenTimeout:
            return True, False
        finally:
            self._turn.give(me, None)
            self._left()
        self.session._calls.run()
        return False, not self.valid

    def _step_plan(self) -> Plan[None]:
        self._raise_over()
        session = self.session
        with session._lock:
            session._dispatch()
        broken = session._error or session._connection._failure
        if broken is not None:
            raise errors.afresh(broken)
        if self._answer is not None:
            self._look(self._answer)
        elif self._again_at is not None:
            if self._clock() >= self._again_at:
                self._put()
        elif self._accepted is None:
            self._put()
        elif self._renewal is not None:
            if self._renewal.done():
                self._renewed()
            elif self._clock() >= self._renew_by:
                self._give_renewal_up()
        elif not self.valid:
            yield from self._late_plan()
        elif self._wall() >= self._refresh_at and self._clock() >= self._ask_at:
            yield from self._renew_plan()

    def _raise_over(self) -> None:
        if self.error is not None:
            raise errors.afresh(self.error)

    def _fail(self, status: CBSAuthStatus, error: Exception) -> NoReturn:
        self.status, self.error = status, error
        self.session._inbox.poke_followers()
        _logger.info("connection %r: %s", self.session._connection.container_id, error)
        raise errors.afresh(error)

    # putting

    def _put(self) -> None:
        """Send the token, over new links if there are none or they broke."""
        auth, session = self.auth, self.session
        if not auth.token:
            self._fail(CBSAuthStatus.Error, errors.AuthenticationException("the auth object has no token to put"))
        message = Message(auth.token, application_properties={b"name": auth.audience}, body_type=MessageBodyType.Value)
        with session._lock:
            node = self._node
            if node is None or node.error is not None:
                if node is not None:
                    node.close()
                node = mgmt.Node(session, NODE)
                node.open()
                self._node = node
            self._request, self._answer = node.submit(message, b"put-token", auth.token_type)
        self._putting = auth.token, auth.expires_at
        self._again_at = None
        self._limit = None
        self.status = CBSAuthStatus.InProgress
        session._connection._flush()
        self._start_clock()

    def _start_clock(self) -> None:
        """An answer may take its time from when the connection is open; `connect_timeout` covers what comes before."""
        timeout = self.auth.timeout
        if self._limit is None and timeout and self.session._connection._opened:
            self._limit = self._clock() + timeout

    def _look(self, answer: mgmt.Answer) -> None:
        if answer.message is not None:
            self._answer = None
            self._answered(answer.message)
        elif answer.error is not None:
            self._answer = None
            self._lost(answer.error)
        else:
            self._start_clock()
            if self._limit is not None and self._clock() >= self._limit:
                assert self._node is not None
                with self.session._lock:
                    self._node.forget(self._request)
                text = f"the peer did not answer the token within the auth object's timeout of {self.auth.timeout} s"
                self._fail(CBSAuthStatus.Timeout, errors.TokenTimeout(text))

    def _answered(self, message: Message) -> None:
        try:
            fields = message.application_properties or {}
        except (TypeError, ValueError):
            fields = {}
        status, description = fields.get(b"status-code"), fields.get(b"status-description")
        if not isinstance(status, int) or isinstance(status, bool):
            error = errors.AuthenticationException("the peer's answer to the token has no status-code")
            self._try_again(CBSAuthStatus.Error, error)
        elif 200 <= status <= 299:
            self._accept()
        else:
            failure = errors.TokenAuthFailure(status, description if isinstance(description, bytes) else None)
            failure.retryable = status >= 500 or status in (408, 429)
            self._try_again(CBSAuthStatus.Failure, failure)

    def _accept(self) -> None:
        self._accepted, self._expires_at = self._putting
        now = self._wall()
        least = (self._expires_at - now) * SHARE
        window = self.auth._refresh_window or least
        self._refresh_at = max(self._expires_at - window, now + least) if least < math.inf else math.inf
        self._ask_at = -math.inf
        self.auth.retries = 0
        self._asked_late = self._asked_late and self._expires_at <= now
        self.status = CBSAuthStatus.Ok
        self.session._inbox.poke_followers()
        self.session._connection._token_accepted()

    def _lost(self, error: BaseException) -> None:
        """There will be no answer: the peer refused the links, or the request, or the links went away under it."""
        assert self._node is not None
        refused = self._node.error is not None and not self._node.ready
        what = "links to $cbs" if refused else "token"
        failure = errors.AuthenticationException(f"the peer did not take the {what}: {error}")
        failure.__cause__ = error
        for name in ("condition", "description", "info", "retryable", "action"):
            setattr(failure, name, getattr(error, name, None))
        if refused:
            self._fail(CBSAuthStatus.Error, failure)
        self._try_again(CBSAuthStatus.Error, failure)

    def _try_again(self, status: CBSAuthStatus, error: Exception) -> None:
        """Put the same token again, now or later, as often as the retry policy has it."""
        auth = self.auth
        policy = auth._retry_policy
        if auth.retries >= policy.retries:
            self._fail(status, error)
        auth.retries += 1
        _logger.info("token for %r, try %d of %d: %s", auth.audience, auth.retries, policy.retries + 1, error)
        if policy.backoff > 0:
            self._again_at = self._clock() + policy.backoff
        else:
            self._put()

    # renewing

    def _renew_plan(self) -> Plan[None]:
        """Ask for a new token and put it. One that cannot be had now is asked for again until the present one
        expires."""
        self._ask_at = self._clock() + AGAIN
        self.status = CBSAuthStatus.RefreshRequired
        try:
            (got,) = yield Call(self._ask)
        except Exception as error:
            self._not_renewed(error)
            return
        if hasattr(got, "__await__"):
            self._renewal = self.session._connection._beside(got, self.session._inbox.poke_all, for_asyncio(self.auth))
            left = self._expires_at - self._wall()
            limit = max(AGAIN, left / 2) if left > 0 else self.auth.timeout or math.inf
            self._renew_by = self._clock() + limit
        else:
            self._take_new()

    def _late_plan(self) -> Plan[None]:
        """The token is past its time: nobody has worked for long, or there was no new one. Ask once more, unless that failed
        within the last second; that is the end if nothing comes of it."""
        if not self._asked_late and self._clock() >= self._ask_at:
            self._asked_late = True
            yield from self._renew_plan()
        if self._answer is None and self._again_at is None and self._renewal is None:
            self._expire()

    def _ask(self) -> tuple[Any]:
        """What `update_token` gives. A coroutine is not awaited in the call that makes this step: it would end with that call,
        and who always gives calls less time than it takes would never have a new token."""
        return (openly(self.auth.update_token),)

    def _renewed(self) -> None:
        task, self._renewal = self._renewal, None
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            self._take_new()
        elif error is None or isinstance(error, Exception):
            self._not_renewed(error or errors.AuthenticationException("asking for a new token was cancelled"))
        else:
            raise error

    def _give_renewal_up(self) -> None:
        """It has taken half of the time that there was; in the other half it may work. If there was none, all that an answer
        of the peer's may take."""
        task, self._renewal = self._renewal, None
        task.cancel()
        self._not_renewed(TimeoutError("update_token took too long"))

    def _not_renewed(self, error: Exception) -> None:
        if self._unrenewed is None:  # of what a user's function raises only the type: its text may be anything
            _logger.warning("the token for %r cannot be renewed now: %s", self.auth.audience, type(error).__name__)
        self._unrenewed = error

    def _take_new(self) -> None:
        self._unrenewed = None
        if self.auth.token != self._accepted:
            self._put()

    def _expire(self) -> None:
        error = errors.TokenExpired(f"the token for {self.auth.audience!r} has expired and there is no new one")
        error.__cause__ = self._unrenewed
        error.retryable = not isinstance(self._unrenewed, errors.TokenExpired)  # by another client, with a new token
        self._fail(CBSAuthStatus.Expired, error)

    # the end

    def close(self) -> None:
        """Detach the links, and ask for no token any more. Repeatable."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
        node, self._node = self._node, None
        if node is not None:
            node.close()


def for_asyncio(auth: Any) -> str:
    return f"{type(auth).__name__} is for the asyncio classes, whose methods end in _async"


def no_wait(inbox: Inbox, deadline: float | None) -> bool:
    """For plans that never wait."""
    raise AssertionError("a step of the token exchange wanted to wait")


async def no_wait_async(inbox: Inbox, deadline: float | None) -> bool:
    """The same for `run_async`."""
    return no_wait(inbox, deadline)
