"""A client with a link: getting it attached, and working until something is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .. import constants, errors
from .._core import time
from .._core.waiting import plan as plans
from .._core.waiting.patience import Patience
from .._core.waiting.plan import Call, Plan, Wait, earlier
from .base import AMQPClient


class _LinkClient(AMQPClient):
    """What clients with a link have in common: getting it attached, what breaks it, and working until something is done."""

    _logger = logging.getLogger("uamqp.client")
    _open_state: Any = None  # of the link, once it is attached
    _max_message_size = constants.MAX_MESSAGE_LENGTH_BYTES
    _max_message_size_chosen = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._error: BaseException | None = None
        self._attach_deadline: float | None = None
        self._attach_expected = False  # by the connection, for us
        self._attached = False

    def _repr_state(self) -> str:
        state = super()._repr_state()
        if state == "open":
            state = "broken" if self._error is not None else "attached" if self._attached else "open, not attached"
        return state

    # ---- what a kind of client has of its own -------------------------------------------------------------------------

    def _take_in(self) -> None:
        """Hand out the records that have come, and call back."""
        raise NotImplementedError

    def _pump(self) -> tuple[bool, bool]:
        """Take in what has come, hand over what can be, call back. Gives whether anything was handed over, and whether
        more could be right away."""
        raise NotImplementedError

    def _over(self) -> None:
        """The link broke, and nothing more will come."""

    def _missing(self) -> str:
        """What a call waits for that the peer would give at once if all were well; empty when waiting is nothing unusual."""
        return "" if self._attached else "the link to be attached"

    def _told(self, error: BaseException) -> None:
        """This is what is raised from now on: what it says of messages."""

    def _next_deadline(self) -> float | None:
        """When to look again although nothing came."""
        return None

    def _after_step(self) -> None:
        self._take_in()

    # ---- the link -------------------------------------------------------------------------------------------------

    def _client_ready(self) -> bool:
        """Whether the link is attached; starts attaching it. Raises what broke it."""
        handler = self.message_handler
        session = self._opened()
        if handler is None:
            if self._error is not None:
                self._raise_broken()
            session._connection._look_first()
            with session._lock:
                if self.message_handler is None:
                    self._check_session(session)
                    self._check_running()
                    self._build_handler(session)
            return False
        if self._attached and not session._inbox.records and self._ending() is None:
            return True
        self._take_in()
        self._raise_broken()
        if handler.get_state() is not self._open_state:
            self._check_attaching()
            return False
        if not self._attached:
            with session._lock:  # under which a redirect lets go of the link
                if self.message_handler is not handler:
                    return False
                self._attached = True
                self._attach_deadline = None
            session._connection._attached()
            session._inbox.poke_all()
        return True

    def _build_handler(self, session: Any) -> None:
        connection = session._connection
        self._attached = False
        handler = self._make_handler(session)
        if self._receive_settle_mode_chosen:
            handler.receive_settle_mode = self._receive_settle_mode
        if self._max_message_size_chosen:
            handler.max_message_size = self._max_message_size
        self._start_attaching(connection)
        handler._client = self
        handler.open()
        self.message_handler = handler
        session._served_by(self)

    def _start_attaching(self, connection: Any) -> None:
        """The time for everything until the link is attached begins, if it has not begun."""
        if not connection._started:
            connection._expect_attach()
            self._attach_expected = True
        elif self._connect_timeout and self._attach_deadline is None and not self._attach_expected:
            # somebody else's connection, whose own limit ends with its open or first attach
            self._attach_deadline = time.monotonic() + self._connect_timeout

    def _make_handler(self, session: Any) -> Any:
        """The link object, not opened yet."""
        raise NotImplementedError

    def _check_attaching(self) -> None:
        deadline = self._attach_deadline
        if deadline is not None and time.monotonic() >= deadline:
            self._error = errors.ConnectTimeout(
                f"connect_timeout of {self._connect_timeout} s passed while waiting for the peer to attach the link"
            )
            raise errors.afresh(self._error)

    def _ending(self) -> BaseException | None:
        """What broke link, session or connection, if anything did."""
        if self._error is not None:
            return self._error
        handler, session, connection = self.message_handler, self._session, self._connection
        if handler is not None and handler._error is not None:
            broken: BaseException = handler._error
            return broken
        if session is not None and session._error is not None:
            ended: BaseException = session._error
            return ended
        if connection is None:
            return None
        exchange = connection._cbs
        if exchange is not None and exchange.error is not None:
            refused: BaseException = exchange.error
            return refused
        failure: BaseException | None = connection._failure
        return failure

    def _raise_broken(self) -> None:
        """Raise what broke link, session or connection, the same at every call."""
        error = self._ending()
        if error is None:
            return
        if error is not self._error:
            self._take_in()  # what is known of the messages came before it
            self._over()
            told = errors.afresh(error)  # the connection's own is for all its clients
            told.__suppress_context__ = True
            if isinstance(told, (errors.AMQPError, errors.TokenTimeout)):
                told.delivery = self._fate()
            self._told(told)
            self._error = told
        raise errors.afresh(self._error)

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _tell_of(self, patience: Patience) -> None:
        """Tell the log of a call that has waited for long."""
        waited = patience.is_up()
        if waited and (missing := self._missing()):
            self._logger.warning("%r: a call has waited %.0f s for %s", self._name, waited, missing)

    def _ready_plan(self, deadline: float | None = None, since: Any = None) -> Plan[bool]:
        """Until the link is attached: True; False at the `deadline` (`time.monotonic`)."""
        if since is not None:
            self._check_session(since)
        session, connection = self._both()
        patience = Patience()
        mine = session._enter()
        try:
            yield from connection._look_first_plan()
            connection._flush()  # an interrupted call may have left an attach behind
            while True:
                self._check_session(session)
                if (yield from self._authentic_plan()) and self._client_ready():
                    return True
                mine = session._lead(mine)
                self._check_running()
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                limit = earlier(connection._token_deadline(), deadline)
                try:
                    yield Wait(mine, patience.until(earlier(self._attach_deadline, limit)))
                    self._tell_of(patience)
                except errors.AMQPError:
                    self._check_running()
                    self._take_in()
                    self._check_session(session)
                    self._raise_broken()
                    raise
        finally:
            session._leave(mine)

    def _authentic_plan(self) -> Plan[bool]:
        _, connection = self._both()
        if connection._cbs is None:
            return True
        if self.message_handler is None:
            self._start_attaching(connection)
        try:
            if (yield from super()._authentic_plan()):
                return True
        except (errors.AMQPError, errors.TokenTimeout):
            self._check_running()
            self._raise_broken()
            raise
        self._check_attaching()
        return False

    def _renew_plan(self, connection: Any) -> Plan[None]:
        """Renew the token when it is time. Raises what broke the client when there is no valid one any more."""
        try:
            yield from connection._token_plan()
        except (errors.AMQPError, errors.TokenTimeout):
            self._check_running()
            self._raise_broken()
            raise

    _delegates = False  # whether who follows leaves all work to who leads

    def _awaits(self, mine: plans.Inbox, what: Any) -> None:
        """Who follows on `mine` is to be woken when `what` is done."""

    def _awaits_no_more(self, mine: plans.Inbox) -> None:
        """Nobody waits on `mine` any more."""

    def _work(self) -> None:
        """Take in and hand over for a call that is not about this client's link."""
        self._pump()

    def _keep(self) -> None:
        if not self._shutdown:
            self._take_in()

    def _check_running(self) -> None:
        if self._shutdown:
            raise self._closed_error()

    def _check_session(self, session: Any) -> None:
        """A redirect elsewhere takes away what a call waits for, and what it waits by."""
        if self._session is not session and not self._shutdown:
            error = errors.MessageHandlerError("the client was redirected while this call waited: make it again")
            error.delivery = self._fate()
            raise error

    def _work_plan(
        self,
        done: Callable[[], bool],
        deadline: float | None = None,
        what: Callable[[], Any] | None = None,
        since: Any = None,
    ) -> Plan[bool]:
        """Work until `done()`, which is asked at `deadline` (`time.monotonic`) too: True; or until the client is closed by
        this very thread, in a callback: False. Raises what broke link, session or connection, and MessageHandlerError when
        another thread closed the client. `what()` is what it is that is not done, `since` the session that there was when it came
        up."""
        if self._stepwise():
            patience = Patience()
            while not done():
                if not (yield Call(self._method(self, "do_work"))):
                    return self._stopped()
                self._tell_of(patience)
            return True
        if not self._attached and not (yield from self._ready_plan(deadline, since)):
            return done()
        session, connection = self._both()
        if since is not None and since is not session and not done():
            self._check_session(since)
        yield from connection._look_first_plan()
        shared = session._inbox
        patience = Patience()
        mine = session._enter()
        try:
            if self._delegates and mine is not shared:
                shared.poke()  # there is something new for who leads
            while True:
                if self._delegates and mine is not shared and done():
                    return True
                if connection._cbs is not None:
                    yield from self._renew_plan(connection)
                mine = session._lead(mine)
                works = mine is shared or not self._delegates or session._crowded or shared._notify is None
                if what is not None and mine is not shared:
                    self._awaits(mine, what())
                more = works and self._pump()[1]
                if done():
                    return True
                if self._shutdown:
                    return self._stopped()
                self._check_session(session)
                self._raise_broken()
                if connection._cbs is not None and connection._cbs.due():
                    continue
                if more:
                    yield Call(connection._step, (0.0,))
                    continue
                limit = earlier(connection._token_deadline(), deadline)
                try:
                    yield Wait(mine, patience.until(earlier(self._next_deadline(), limit) if works else deadline))
                    self._tell_of(patience)
                except errors.AMQPError:
                    if self._shutdown:
                        return self._stopped()
                    self._take_in()
                    if done():
                        return True
                    self._check_session(session)
                    self._raise_broken()
                    raise
        finally:
            session._leave(mine)
            if mine is not shared:
                self._awaits_no_more(mine)
                if not self._delegates:
                    shared.poke()  # what this call took in may concern who leads

    _closer = 0

    def _stopped(self) -> bool:
        if self._closer != self._me():
            raise self._closed_error()
        return False
