"""Clients: a connection, a session and a link to one node, driven by plain calls.

What has to happen is written once, as plans (`_core/plan.py`); the public methods run them. A `SendClient` holds its
messages in a list that `queue_message` appends to. They are handed to the link in runs, and the link tells, range by range,
what became of them, so that no step ever looks at all that is pending.
"""

from __future__ import annotations

import copy
import functools
import itertools
import logging
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_plus

from . import address, authentication, c_uamqp, constants, errors, receiver, sender
from ._core.engine import SizeError, track
from ._core import plan as plans
from ._core.locks import RLock, fork_safe
from ._core.plan import Call, Plan, Wait, earlier
from ._core.receiving import Unread, ranges, span
from ._core.sections import ACCEPTED
from ._core.sending import LOST_OUTCOMES, SENT_OUTCOMES, Calls
from .authentication.cbs_auth import CBSAuthMixin
from .connection import Connection
from .constants import (
    Delivery,
    MessageReceiverState,
    MessageSenderState,
    MessageSendResult,
    MessageState,
    TransportType,
)
from .message import Message
from .session import Session

if TYPE_CHECKING:
    import ssl

    from .address import Address
    from .authentication.common import AMQPAuth

__all__ = ["AMQPClient", "Connection", "ReceiveClient", "SendClient", "Session", "TransportType"]

_T = TypeVar("_T")
_C = TypeVar("_C", bound="AMQPClient")
_logger = logging.getLogger("uamqp.client")

_WAITING = MessageState.WaitingToBeSent
_SENT = MessageState.WaitingForSendAck
_COMPLETE = MessageState.SendComplete
_FAILED = MessageState.SendFailed
_UNSETTLED = MessageState.ReceivedUnsettled
_SETTLED = MessageState.ReceivedSettled
_NOT_DELIVERED = 0x02
_LONG_QUEUE = 16384
_ASIDE = 512  # messages taken from the collector at once
_NEVER_ASIDE = 1 << 62

_COMMON = frozenset(
    (
        "encoding", "transport_type", "http_proxy", "max_frame_size", "channel_max", "idle_timeout", "properties",
        "remote_idle_timeout_empty_frame_send_ratio", "incoming_window", "outgoing_window", "handle_max", "on_attach",
        "send_settle_mode", "receive_settle_mode", "desired_capabilities",
        "use_tls", "address", "sasl", "ssl_context", "connect_timeout",
    )
)  # fmt: skip


class AMQPClient:
    """A connection and a session to one address; `SendClient` adds the link.

    Args:
        remote_address: URL as str or bytes, or an `address` object. A URL needs a host, and a path unless `address` is
            given.
        auth: an object of `authentication`; without one the URL's user name and password make a `SASLPlain`, and no user
            a `SASLAnonymous`.
        client_name: container-id of the connection, a random one if not given.
        debug: a line per frame to the logger `uamqp.c_uamqp`.
        error_policy: an `errors.ErrorPolicy`.
        keep_alive_interval: accepted. Heartbeats go out whenever the peer wants them.
        encoding: for str arguments.
        transport_type, http_proxy: WebSocket, and the way through a proxy: see `AMQPAuth`. For an auth object that the client
            makes itself; one that is given has its own.
        max_frame_size, channel_max, idle_timeout (ms), properties (dict), remote_idle_timeout_empty_frame_send_ratio: see
            `Connection`.
        incoming_window, outgoing_window, handle_max, on_attach: see `Session`.
        send_settle_mode, receive_settle_mode, desired_capabilities: see `MessageSender`.
        use_tls: False for plain TCP, True for TLS. If not given the auth object decides, then the URL: amqp:// means plain
            TCP only to this very host; everything else is TLS.
        address: the node's name as the peer is to see it, instead of the URL.
        sasl: False for a peer that wants no SASL layer.
        ssl_context: for TLS, instead of one that verifies chain and host name.
        connect_timeout: seconds from the start until the link is attached (30); 0 or None: no limit.

    Raises ValueError for unknown arguments, and for an address without host or path.
    """

    _own_arguments: frozenset[str] = frozenset()

    def __init__(
        self,
        remote_address: str | bytes | Address,
        auth: AMQPAuth | None = None,
        client_name: str | bytes | None = None,
        debug: bool = False,
        error_policy: errors.ErrorPolicy | None = None,
        keep_alive_interval: int | None = None,
        **kwargs: Any,
    ) -> None:
        unknown = sorted(kwargs.keys() - _COMMON - self._own_arguments)
        if unknown:
            raise ValueError(f"{type(self).__name__} does not know the argument {', '.join(map(repr, unknown))}")
        self._encoding: str = kwargs.get("encoding") or "UTF-8"
        self._transport_type = TransportType(kwargs.get("transport_type") or TransportType.Amqp)
        self._http_proxy = kwargs.get("http_proxy")
        self._node = kwargs.get("address")
        self._use_tls: bool | None = kwargs.get("use_tls")
        self._sasl = kwargs.get("sasl")
        self._ssl_context: ssl.SSLContext | None = kwargs.get("ssl_context")
        self._connect_timeout: float | None = kwargs.get("connect_timeout", 30.0)
        self._remote_address = self._make_address(remote_address)
        self._hostname, self._auth = self._make_auth(auth)
        self._name = client_name or str(uuid.uuid4())
        self._debug_trace = debug
        self._counter = c_uamqp.TickCounter()
        self._shutdown = False
        self._closed = False
        self._connection: Any = None
        self._ext_connection = False
        self._session: Any = None
        self._backoff = 0.0
        self._error_policy = error_policy or errors.ErrorPolicy()
        self._keep_alive_interval = int(keep_alive_interval) if keep_alive_interval else 0
        self._keep_alive_thread: threading.Thread | None = None
        self._lock = fork_safe(RLock())

        # connection settings
        self._max_frame_size = kwargs.get("max_frame_size") or constants.MAX_FRAME_SIZE_BYTES
        self._channel_max = kwargs.get("channel_max")
        self._idle_timeout = kwargs.get("idle_timeout")
        self._properties = kwargs.get("properties")
        self._remote_idle_timeout_empty_frame_send_ratio = kwargs.get("remote_idle_timeout_empty_frame_send_ratio")

        # session settings
        self._incoming_window = kwargs.get("incoming_window") or constants.MAX_FRAME_SIZE_BYTES
        self._outgoing_window = kwargs.get("outgoing_window") or constants.MAX_FRAME_SIZE_BYTES
        self._handle_max = kwargs.get("handle_max")
        self._on_attach = kwargs.get("on_attach")

        # link settings
        self._send_settle_mode = kwargs.get("send_settle_mode") or constants.SenderSettleMode.Unsettled
        chosen = kwargs.get("receive_settle_mode")
        self._receive_settle_mode_chosen = chosen is not None
        self._receive_settle_mode = constants.ReceiverSettleMode.PeekLock if chosen is None else chosen
        self._desired_capabilities = kwargs.get("desired_capabilities")

        self.connection_type: type[Connection] = Connection
        self.session_type: type[Session] = Session
        self.message_handler: Any = None

    def __enter__(self: _C) -> _C:
        self.open()
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    # ---- addresses and credentials --------------------------------------------------------------------------------

    _address_type: Any = address.Target

    def _make_address(self, given: Any) -> Any:
        """The address object of what was given: where to connect to, and the node there."""
        if isinstance(given, (str, bytes)):
            return self._address_type._endpoint(given, self._node, self._encoding)
        if not isinstance(given, address.Address):
            raise ValueError(f"the address must be str, bytes or an address object, not {type(given).__name__}")
        return given

    def _make_auth(self, auth: Any) -> tuple[Any, Any]:
        remote = self._remote_address
        hostname = remote.hostname
        if auth is None:
            if not hostname:
                raise ValueError(f"the address {str(remote)!r} names no host to connect to")
            common: dict[str, Any] = {"http_proxy": self._http_proxy, "transport_type": self._transport_type}
            port = remote.port
            if remote.username and remote.password:
                user, password = unquote_plus(remote.username), unquote_plus(remote.password)
                auth = authentication.SASLPlain(hostname, user, password, port=port, **common)
            else:
                auth = authentication.SASLAnonymous(hostname, port=port, **common)
            auth._plain_on_loopback = (
                remote.scheme == "amqp" and self._http_proxy is None and self._transport_type is TransportType.Amqp
            )
        else:
            if not hostname:
                hostname = auth.hostname
            if getattr(auth, "_port", 0) is None:
                auth._port = remote.port
        if self._sasl is False:
            auth.sasl = auth.sasl_client = None
        return hostname, auth

    @property
    def _target(self) -> Any:
        """The address of the link."""
        remote = self._remote_address
        if self._node is None or remote.address == self._node:
            return remote
        return self._address_type(self._node, self._encoding)

    # ---- life -----------------------------------------------------------------------------------------------------

    def open(self, connection: Connection | None = None) -> None:
        """Make the connection, or take `connection`, and the session. No I/O yet, and nothing when it is open already.
        Raises ValueError for a client that was closed."""
        self._run(self._open_plan(connection))

    def _open_plan(self, connection: Any) -> Plan[None]:
        with self._lock:
            if self._session is not None:
                return
            if self._closed:
                raise ValueError("this client was closed: make a new one, with a new auth object")
            if connection is not None:
                self._auth = connection.auth
                self._ext_connection = True
                self._connection = connection
            elif self._connection is None:
                self._connection = self._build_connection()
        yield from self._session_plan()

    def _opened_plan(self) -> Plan[None]:
        """Open it unless it is."""
        if self._session is None:
            yield Call(self._method(self, "open"))

    def _build_connection(self) -> Any:
        extra: dict[str, Any] = {}  # what a class of the user's need not know unless it is used
        if self._use_tls is not None:
            extra["use_tls"] = self._use_tls
        if self._ssl_context is not None:
            extra["ssl_context"] = self._ssl_context
        if self._connect_timeout != 30.0:
            extra["connect_timeout"] = self._connect_timeout
        return self.connection_type(
            self._hostname,
            self._auth,
            container_id=self._name,
            max_frame_size=self._max_frame_size,
            channel_max=self._channel_max,
            idle_timeout=self._idle_timeout,
            properties=self._properties,
            remote_idle_timeout_empty_frame_send_ratio=self._remote_idle_timeout_empty_frame_send_ratio,
            error_policy=self._error_policy,
            debug=self._debug_trace,
            encoding=self._encoding,
            **extra,
        )

    def _build_session(self) -> None:
        self._run(self._session_plan())

    def _session_plan(self) -> Plan[None]:
        """Make the session unless there is one: with tokens that of the auth object, which may have to ask for the first
        token."""
        if self._session is not None:
            return
        connection, auth = self._connection, self._auth
        settings: dict[str, Any] = {
            "incoming_window": self._incoming_window,
            "outgoing_window": self._outgoing_window,
            "handle_max": self._handle_max,
            "on_attach": self._on_attach,
        }
        if isinstance(auth, CBSAuthMixin):
            auth._session_type = self.session_type
            make = functools.partial(self._method(auth, "create_authenticator"), debug=self._debug_trace, **settings)
            session = yield Call(make, (connection,))
        else:
            session = self.session_type(connection, **settings)
        with self._lock:
            if self._connection is not connection:  # closed meanwhile
                raise self._closed_error()
            if self._session is None:
                self._session = session

    def _shares(self, session: Any) -> bool:
        """Whether this session is the auth object's, for all clients of the connection: it ends with that."""
        return isinstance(self._auth, CBSAuthMixin) and self._auth._session is session

    def close(self) -> None:
        """Detach the link, end the session, close the connection unless it came from outside. Takes 5 s at most, whatever the
        peer does. Wakes threads that wait in this client. Repeatable; legal in every state."""
        self._run(self._close_plan())

    def _close_plan(self) -> Plan[None]:
        with self._lock:
            self._shutdown = True
            if self._closed and self._session is None:
                return
            self._closed = self._closed or self._session is not None
            handler, self.message_handler = self.message_handler, None
            session, self._session = self._session, None
            connection = self._connection
            if not self._ext_connection:
                self._connection = None
        self._wake(session)
        try:
            if handler is not None:
                yield Call(self._method(handler, "destroy"))
        finally:
            try:
                if session is not None and not self._shares(session):
                    yield Call(self._method(session, "destroy"))
            finally:
                if connection is not None and not self._ext_connection:
                    yield Call(self._method(connection, "destroy"))

    def _wake(self, session: Any) -> None:
        if session is not None:
            inbox = getattr(session, "_inbox", None)
            if inbox is not None:
                inbox.poke_all()

    def redirect(self, redirect: errors.LinkRedirect, auth: AMQPAuth) -> None:
        """Go where a `LinkRedirect` points to, with a fresh auth object. Raises ValueError on a shared connection."""
        self._run(self._redirect_plan(redirect, auth))

    def _redirect_plan(self, redirect: Any, auth: Any) -> Plan[None]:
        if self._ext_connection:
            raise ValueError("a client on a shared connection cannot be redirected")
        with self._lock:
            handler, self.message_handler = self.message_handler, None
            session, self._session = self._session, None
            self._shutdown = False
            self._drop_pending()
        if handler is not None:
            yield Call(self._method(handler, "destroy"))
        if session is not None and not self._shares(session):
            yield Call(self._method(session, "destroy"))
        self._remote_address = self._make_address(redirect.address)
        self._node = None
        self._hostname = redirect.hostname
        if self._connection is not None:
            if getattr(auth, "_port", 0) is None:
                auth._port = redirect.port or self._remote_address.port
            yield Call(self._method(self._connection, "redirect"), (redirect, auth))
        if self._connection is None or self._connection.auth is auth:
            self._auth = auth
        if self._connection is not None:
            yield from self._session_plan()

    def _drop_pending(self) -> None:
        """Forget what belonged to the former peer."""

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _opened(self) -> Any:
        session = self._session
        if session is None:
            if self._closed:
                raise self._closed_error()
            raise AttributeError(f"this {type(self).__name__} is not open: call open() first")
        return session

    def _both(self) -> tuple[Any, Any]:
        """Session and connection of a client that is open."""
        session, connection = self._opened(), self._connection
        if connection is None:  # closed by another thread, just now
            raise self._closed_error()
        return session, connection

    def _closed_error(self) -> errors.AMQPConnectionError:
        error = errors.MessageHandlerError("the client was closed")
        error.retryable = False
        return error

    def auth_complete(self) -> bool:
        """Whether the peer has accepted our token; makes one step towards it when not, and renews it when it is time.
        Without a token authentication is part of connecting, and an open client always says True. Raises TimeoutError when
        the peer does not answer, TokenAuthFailure when it refuses the token, another AuthenticationException when there is
        no valid token to be had, and the error of connection or session."""
        return self._run(self._auth_complete_plan())

    def _auth_complete_plan(self) -> Plan[bool]:
        if (yield from self._authentic_plan()):
            return True
        yield from self._both()[1]._paced_plan(False)
        return False

    def _authentic_plan(self) -> Plan[bool]:
        """Whether the peer has accepted our token, if we have to have one; makes a step of that exchange, not of the
        connection's."""
        exchange = self._both()[1]._cbs
        return exchange is None or (yield from exchange.step_plan())

    def _authenticated_plan(self) -> Plan[None]:
        """Until the peer has accepted our token, if we have to have one."""
        session, connection = self._both()
        mine = session._enter()
        try:
            while not (yield from self._authentic_plan()):
                mine = session._lead(mine)
                yield Wait(mine, connection._token_deadline())
        finally:
            session._leave(mine)

    def client_ready(self) -> bool:
        """Whether the link is attached; makes one step towards it when not. Raises what broke it."""
        return self._run(self._client_ready_plan())

    def _client_ready_plan(self) -> Plan[bool]:
        if self._stepwise():
            if not (yield Call(self._method(self, "auth_complete"))):
                return False
            ready = yield Call(self._method(self, "_client_ready"))
        else:
            if not (yield from self._auth_complete_plan()):
                return False
            ready = self._client_ready()
        if not ready:
            yield from self._connection._paced_plan(False)
            self._after_step()
            return False
        return True

    def _client_ready(self) -> bool:
        """Whether the client can do what it is for; starts what has to be started. A client without a link is ready."""
        return True

    def _after_step(self) -> None:
        """A step was made: take in what it brought."""

    def _client_run(self) -> Any:
        """One step of a client that is ready."""
        return self._run(self._client_run_plan())

    def _client_run_plan(self) -> Plan[Any]:
        yield Call(self._method(self._connection, "work"))

    def do_work(self, **kwargs: Any) -> bool | None:
        """One small step of I/O: send what can be sent, take in what came. False once the client is closed. Waits only when
        there has been nothing to do for a while, at most 50 ms. Raises the error of connection, session or link, at every
        call."""
        goes_on: bool | None = self._run(self._do_work_plan())
        return goes_on

    def _do_work_plan(self) -> Plan[Any]:
        if self._shutdown:
            return False
        if self._stepwise():
            if not (yield Call(self._method(self, "client_ready"))):
                return True
            return (yield Call(self._method(self, "_client_run")))
        if not (yield from self._client_ready_plan()):
            return True
        return (yield from self._client_run_plan())

    _own_steps: tuple[Any, ...] = ()
    """`_steps()` of the class itself."""

    @classmethod
    def _steps(cls) -> tuple[Any, ...]:
        """What users override to change a step."""
        return cls.do_work, cls.client_ready, cls.auth_complete, cls._client_ready, cls._client_run

    def _stepwise(self) -> bool:
        """Whether somebody changed a step: then nothing but the public methods may be used."""
        return self._steps() != self._own_steps or not self.__dict__.keys().isdisjoint(_STEPS)

    def mgmt_request(
        self,
        message: Message,
        operation: bytes | str,
        op_type: bytes | str | None = None,
        node: bytes | str | None = None,
        callback: Callable[[int, Message, Any], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Send a request to the management node of the peer and wait for the answer; see `MgmtOperation.execute`. Further
        arguments: `timeout` (ms, 0: for ever), `status_code_field`, `description_fields`, `encoding`, `debug`."""
        return self._run(self._mgmt_request_plan(message, operation, op_type, node, callback, kwargs))

    def _mgmt_request_plan(
        self, message: Message, operation: Any, op_type: Any, node: Any, callback: Any, kwargs: dict[str, Any]
    ) -> Plan[Any]:
        session = self._opened()
        yield from self._authenticated_plan()
        if callback is not None:
            kwargs["callback"] = callback
        request = functools.partial(
            self._method(session, "mgmt_request"), op_type=op_type, node=node or constants.MGMT_TARGET, **kwargs
        )
        return (yield Call(request, (message, operation)))

    # ---- plans ----------------------------------------------------------------------------------------------------

    _method = staticmethod(plans.blocking)
    """The public method of that name that goes with how this class waits: what users override is always asked."""

    def _run(self, plan: Plan[_T]) -> _T:
        return plans.run(plan, self._wait)

    def _wait(self, inbox: plans.Inbox, deadline: float | None) -> Any:
        connection = self._connection
        if connection is None:  # closed by another thread, just now
            raise self._closed_error()
        return connection._wait(inbox, deadline)

    @staticmethod
    def _me() -> int:
        """Who is calling: a thread."""
        return threading.get_ident()


class _LinkClient(AMQPClient):
    """What clients with a link have in common: getting it attached, what breaks it, and working until something is done."""

    _open_state: Any = None  # of the link, once it is attached

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._error: BaseException | None = None
        self._attach_deadline: float | None = None
        self._attach_expected = False  # by the connection, for us
        self._attached = False

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

    def _fate(self) -> Delivery | None:
        """What an error says of messages that were to be sent."""
        return None

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
            with session._lock:
                if self.message_handler is None:
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
            self._attached = True
            self._attach_deadline = None
            self._connection._attached()
            session._inbox.poke_all()
        return True

    def _build_handler(self, session: Any) -> None:
        connection = self._connection
        self._attached = False
        handler = self._make_handler(session)
        if self._receive_settle_mode_chosen:
            handler.receive_settle_mode = self._receive_settle_mode
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
            raise self._error

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
            told = copy.copy(error)  # the connection's own is for all its clients
            told.__cause__, told.__suppress_context__ = error.__cause__, True
            if isinstance(told, (errors.AMQPError, errors.TokenTimeout)):
                told.delivery = self._fate()
            self._error = told
        raise self._error.with_traceback(None)

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _ready_plan(self, deadline: float | None = None) -> Plan[bool]:
        """Until the link is attached: True; False at the `deadline` (`time.monotonic`)."""
        session, connection = self._both()
        mine = session._enter()
        try:
            connection._flush()  # an interrupted call may have left an attach behind
            while not ((yield from self._authentic_plan()) and self._client_ready()):
                mine = session._lead(mine)
                self._check_running()
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                limit = earlier(connection._token_deadline(), deadline)
                try:
                    yield Wait(mine, earlier(self._attach_deadline, limit))
                except errors.AMQPError:
                    self._check_running()
                    self._take_in()
                    self._raise_broken()
                    raise
            return True
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

    def _check_running(self) -> None:
        if self._shutdown:
            raise self._closed_error()

    def _work_plan(
        self, done: Callable[[], bool], deadline: float | None = None, what: Callable[[], Any] | None = None
    ) -> Plan[bool]:
        """Work until `done()`, which is asked at `deadline` (`time.monotonic`) too: True; or until the client is closed by
        this very thread, in a callback: False. Raises what broke link, session or connection, and MessageHandlerError when
        another thread closed the client. `what()` is what it is that is not done."""
        if self._stepwise():
            while not done():
                if not (yield Call(self._method(self, "do_work"))):
                    return self._stopped()
            return True
        if not self._attached and not (yield from self._ready_plan(deadline)):
            return done()
        session, connection = self._both()
        shared = session._inbox
        mine = session._enter()
        try:
            if self._delegates and mine is not shared:
                shared.poke()  # there is something new for who leads
            while True:
                if self._delegates and mine is not shared and done():
                    return True
                mine = session._lead(mine)
                works = mine is shared or not self._delegates or session._crowded or shared._notify is None
                if what is not None and mine is not shared:
                    self._awaits(mine, what())
                more = works and self._pump()[1]
                if done():
                    return True
                if self._shutdown:
                    return self._stopped()
                self._raise_broken()
                if connection._cbs is not None:
                    yield from self._renew_plan(connection)
                if more:
                    yield Call(connection._step, (0.0,))
                    continue
                limit = earlier(connection._token_deadline(), deadline)
                try:
                    yield Wait(mine, earlier(self._next_deadline(), limit) if works else deadline)
                except errors.AMQPError:
                    if self._shutdown:
                        return self._stopped()
                    self._take_in()
                    if done():
                        return True
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


class SendClient(_LinkClient):
    """Sends messages to one address and tells what became of each.

    Args: see `AMQPClient`, and
        target: where to, a URL or a `Target`.
        msg_timeout: ms from queueing a message to its outcome; 0: no limit while the peer lives.
        max_message_size: bytes, announced to the peer (1 MiB); what is sent is bounded by the peer's only.
        link_properties: dict, sent with the link's ATTACH.
        link_credit: accepted, without effect.

    One client may be used by several threads. Callbacks run only inside its calls.
    """

    _own_arguments = frozenset(("max_message_size", "link_properties", "link_credit"))
    _open_state = MessageSenderState.Open

    def __init__(
        self,
        target: str | bytes | address.Target,
        auth: AMQPAuth | None = None,
        client_name: str | bytes | None = None,
        debug: bool = False,
        msg_timeout: int = 0,
        error_policy: errors.ErrorPolicy | None = None,
        keep_alive_interval: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._msg_timeout = msg_timeout
        self._max_message_size = kwargs.get("max_message_size") or constants.MAX_MESSAGE_LENGTH_BYTES
        self._link_properties = kwargs.get("link_properties")
        self._link_credit = kwargs.get("link_credit")
        super().__init__(
            target,
            auth=auth,
            client_name=client_name,
            debug=debug,
            error_policy=error_policy,
            keep_alive_interval=keep_alive_interval,
            **kwargs,
        )
        self.sender_type: type[sender.MessageSender] = sender.MessageSender
        self._queue: list[Message] = []
        self._aside_at = _LONG_QUEUE  # length of the queue at which to take its latest messages from the collector
        self._aside = False  # some were taken
        self._head = 0  # messages of the queue before it were handed over
        self._left = 0  # messages of the queue that the last step left there
        self._dead = 0  # messages of the queue from _head on that have failed where they stood
        self._again: deque[Message] = deque()  # messages to be sent again, before the queue
        self._again_from = 0.0  # when, by time.monotonic: a back-off
        self._out = 0  # messages handed over that have no outcome
        self._moving: list[Message] = []  # the run that is being handed over
        self._unflushed = False  # something was handed over and not sent off; an interrupt may come between
        self._handed: dict[int, Message] = {}  # those of them that went by an overridden MessageSender.send
        self._timed: list[tuple[float, int, Message]] = []  # heap of deadlines
        self._timing: deque[tuple[float, int, Message]] = deque()  # on their way into it
        self._tickets = itertools.count()
        self._calls = Calls()  # on_send_complete
        self._uncalled: set[int] = set()  # ids of messages whose callback is to run, or runs
        self._lost: Delivery | None = None  # worst fate of what came back
        self._waiters: dict[int, tuple[plans.Inbox, ...]] = {}  # who waits for a message, by its id
        self._emptied: set[plans.Inbox] = set()  # who waits until nothing is pending

    # ---- queueing -------------------------------------------------------------------------------------------------

    def queue_message(self, *messages: Message) -> None:
        """Put messages, or batches, at the end of the queue. Any thread, open or not; sends nothing. Raises what `gather()`
        raises: TypeError for received messages, `MessageAlreadySettled` for one that was sent before."""
        for message in messages:
            if type(message) is Message and message.state is _WAITING and not self._msg_timeout:
                queue = self._queue
                queue.append(message)
                if len(queue) >= self._aside_at:
                    self._set_aside(queue)
            else:
                self._enqueue(message.gather())

    def _set_aside(self, queue: list[Message]) -> None:
        """The queue is long: take its latest messages from the collector, which would else walk all of them over and over
        and make the millionth cost more than the first. Only messages that refer to nothing but their bytes, and only
        until they are handed over."""
        end = len(queue)
        plain = [m for m in queue[self._aside_at - _ASIDE : end] if m._raw is not None and m.on_send_complete is None]
        self._aside_at = end + _ASIDE if track(plain, False) else _NEVER_ASIDE
        self._aside = True

    def _enqueue(self, gathered: Iterable[Message]) -> list[Message]:
        parts = []
        timeout = self._msg_timeout
        for message in gathered:
            message.state = _WAITING
            if (
                type(message) is not Message
                and type(message).encode_message is not _ENCODE
                and message._raw is not None
            ):
                message._expand()  # so that its own encoding is asked for
            if timeout > 0:
                now = time.monotonic()
                message.idle_time = now * 1000
                self._timing.append((now + timeout / 1000, next(self._tickets), message))
            self._queue.append(message)
            parts.append(message)
        return parts

    @property
    def pending_messages(self) -> list[Message]:
        """The messages that have no outcome yet, sent ones first."""
        return [message for message in self._pending() if message.state in constants.PENDING_STATES]

    @property
    def _pending_messages(self) -> list[Message]:
        return self.pending_messages

    @_pending_messages.setter
    def _pending_messages(self, messages: Iterable[Message]) -> None:
        with self._books():
            self._queue = list(messages)
            self._head = self._dead = 0
            self._again.clear()

    @property
    def _message_sender(self) -> Any:
        return self.message_handler

    def _pending(self) -> list[Message]:
        with self._books():
            waiting = self._queue[self._head :]
            if not (self._out or self._again):
                return waiting
            runs = getattr(self.message_handler, "_runs", ()) if self._out else ()
            out = [message for message in runs if isinstance(message, Message)]
            return [*out, *self._handed.values(), *self._again, *waiting]

    def _books(self) -> threading.RLock:
        """The lock over what is pending: the session's, since it is there that outcomes come in."""
        session = self._session
        return self._lock if session is None else session._lock

    def messages_pending(self) -> bool:
        """Whether any message has no outcome yet."""
        return self._out > 0 or bool(self._again) or len(self._queue) - self._head > self._dead

    def _make_handler(self, session: Any) -> Any:
        return self.sender_type(
            session,
            self._name,
            self._target,
            name=f"sender-link-{uuid.uuid4()}",
            debug=self._debug_trace,
            send_settle_mode=self._send_settle_mode,
            receive_settle_mode=self._receive_settle_mode,
            max_message_size=self._max_message_size,
            link_credit=self._link_credit,
            properties=self._link_properties,
            error_policy=self._error_policy,
            encoding=self._encoding,
            desired_capabilities=self._desired_capabilities,
        )

    def _over(self) -> None:
        self._give_up()

    def _fate(self) -> Delivery | None:
        return self._lost or (Delivery.NOT_DELIVERED if self.messages_pending() else None)

    # ---- outcomes: called by the link, under the session's lock -------------------------------------------------------

    def _settled(self, messages: list[Message], outcome: int, state: bytes) -> None:
        """What became of messages of ours."""
        self._out -= len(messages)
        if outcome in SENT_OUTCOMES:
            for message in messages:
                message.state = _COMPLETE
            if self._waiters:
                for message in messages:
                    if message.on_send_complete is None:
                        self._wake_waiters(message)
            for message in [m for m in messages if m.on_send_complete is not None]:
                self._call_back(message, MessageSendResult.Ok, None)
        elif outcome in LOST_OUTCOMES:
            self._come_back(messages, Delivery.NOT_DELIVERED if outcome == _NOT_DELIVERED else Delivery.UNKNOWN)
        else:
            condition, description, info = sender.rejection(outcome, state)
            for message in messages:
                self._refused(message, condition, description, info)

    def _come_back(self, messages: Iterable[Message], fate: Delivery) -> None:
        """The link went away under them: they wait to be sent again, which is up to the user."""
        for message in messages:
            message.state = _WAITING
            message.retries += 1
            if fate is not Delivery.NOT_DELIVERED:  # which is what a waiting message says of itself
                message.delivery = fate
            self._again.append(message)
        if self._lost is not Delivery.UNKNOWN:
            self._lost = fate

    def _give_up(self) -> None:
        """Nothing more will come for what is out. There is some only when an interrupt swallowed what came."""
        handler, session = self.message_handler, self._session
        if handler is None or session is None:
            return
        with session._lock:
            handler._forget()

    def _recover(self, moving: list[Message]) -> None:
        """Ctrl-C tore the bookkeeping apart, and the link was given up: everything without an outcome waits, once. Under the
        session's lock. `moving`: messages that may be nowhere else."""
        old, count = self._queue, len(self._queue)
        known = [*moving, *self._moving, *self._handed.values(), *self._again, *old[:count]]
        once = {id(message): message for message in known if message.state is _WAITING or message.state is _SENT}
        maybe = {id(message) for message in [*moving, *self._moving]}
        for key, message in once.items():
            if message.state is _SENT or key in maybe:
                message.state = _WAITING
                message.delivery = Delivery.UNKNOWN
        self._again = deque(once.values())
        self._head = self._dead = 0
        del old[:count]
        self._handed.clear()
        self._moving = []
        self._out = 0
        self._lost = Delivery.UNKNOWN

    def _refused(self, message: Message, condition: Any, description: Any, info: Any) -> None:
        policy = self._error_policy
        try:
            error = errors.process_message_error(policy, condition, description, info)
        except Exception:
            _logger.exception("the error policy failed: the message is not sent again")
            error = errors.process_message_error(errors.ErrorPolicy(on_error=_never), condition, description, info)
            error.action = errors.ErrorAction(retry=False)
        action = error.action
        if action is None or not action.retry or message.retries >= policy.max_retries:
            self._finish(message, MessageSendResult.Error, error)
            return
        if getattr(action, "increment_retries", True):
            message.retries += 1
        message.state = _WAITING
        self._again.append(message)
        if action.backoff:
            self._backoff = action.backoff
            self._again_from = max(self._again_from, time.monotonic() + action.backoff)

    def _unsendable(self, message: Message, cause: Exception) -> None:
        """It cannot be encoded, and trying again would not help, so the tries the policy grants count as made."""
        error = errors.ClientMessageError(cause)
        error.delivery = Delivery.NOT_DELIVERED
        error.__cause__ = cause
        action = self._error_policy.on_message_error(error)
        if action is not None and action.retry and action.increment_retries:
            message.retries = max(message.retries, self._error_policy.max_retries)
        error.action, error.retryable = action, False
        self._finish(message, MessageSendResult.Error, error)

    def _finish(self, message: Message, result: MessageSendResult, error: BaseException) -> None:
        message.state = _FAILED
        message._response = error
        if message.on_send_complete is not None:
            self._call_back(message, result, error)
        else:
            self._wake_waiters(message)

    def _call_back(self, message: Message, result: MessageSendResult, error: BaseException | None) -> None:
        self._uncalled.add(id(message))
        self._calls.add(self._tell, message, result, error)

    def _tell(self, message: Message, result: MessageSendResult, error: BaseException | None) -> None:
        try:
            callback = message.on_send_complete
            if callback is not None and not self._closed:
                callback(result, error)
        finally:
            self._uncalled.discard(id(message))
            self._wake_waiters(message)
            if self._emptied:
                self._wake_emptied()
            if self._session is not None:
                self._session._inbox.poke()  # who leads may wait for just this

    # ---- who waits ------------------------------------------------------------------------------------------------

    def _awaits(self, mine: plans.Inbox, what: Message | None) -> None:
        """Who follows on `mine` is to be woken when that message is done; None: when nothing is pending."""
        with self._books():
            if what is None:
                self._emptied.add(mine)
            elif mine not in (known := self._waiters.get(id(what), ())):
                self._waiters[id(what)] = (*known, mine)

    def _awaits_no_more(self, mine: plans.Inbox) -> None:
        if self._emptied:
            self._emptied.discard(mine)

    def _unwatch(self, message: Message) -> None:
        """A call for that message ends. If others wait for it, they look around, and say so again."""
        if self._waiters:
            with self._books():
                self._wake_waiters(message)

    def _wake_waiters(self, message: Message) -> None:
        for inbox in self._waiters.pop(id(message), ()):
            inbox.poke()

    def _wake_emptied(self) -> None:
        """Wake who waits until nothing is pending, if nothing is."""
        if self._nothing_pending():
            with self._books():
                waiting, self._emptied = self._emptied, set()
            for inbox in waiting:
                inbox.poke()

    def _on_message_sent(self, message: Message, result: int, delivery_state: Any = None) -> None:
        """The callback for a `MessageSender.send` that somebody overrode."""
        with self._books():
            if self._handed.pop(id(message), None) is None:
                return
            self._out -= 1
            kind = MessageSendResult(getattr(result, "value", result))
            if kind is MessageSendResult.Ok:
                message.state = _COMPLETE
                if message.on_send_complete is not None:
                    self._call_back(message, kind, None)
                else:
                    self._wake_waiters(message)
            elif kind is MessageSendResult.Timeout:
                self._finish(message, kind, self._timed_out(Delivery.UNKNOWN))
            elif not delivery_state:
                self._come_back([message], message.delivery or Delivery.UNKNOWN)
            else:
                parts = errors.ErrorResponse(delivery_state)
                self._refused(message, parts.condition, parts.description, parts.info)

    # ---- handing over: under the session's lock -----------------------------------------------------------------------

    def _offer(self, handler: Any) -> bool:
        """Hand over what the link takes. True when it took, or failed, anything."""
        moved = False
        while handler._ready:
            limit = min(handler._credit, handler._run_length)
            again = bool(self._again) and time.monotonic() >= self._again_from
            run = list(itertools.islice(self._again, limit)) if again else self._next_run(limit)
            if not run:
                break
            gone = self._hand_over(handler, run, again)
            if not gone:
                break
            moved = True
            if len(self._queue) == self._head and not self._again:
                break
        if handler._draining:
            handler._offered(not self._again and len(self._queue) - self._head <= self._dead)
        return moved

    def _next_run(self, limit: int) -> list[Message]:
        run = self._queue[self._head : self._head + limit]
        if self._dead:
            while run and run[0].state is not _WAITING:
                del run[0]
                self._head += 1
                self._dead = max(0, self._dead - 1)
            for at, message in enumerate(run):
                if message.state is not _WAITING:
                    return run[:at]
        return run

    def _hand_over(self, handler: Any, run: list[Message], again: bool) -> int:
        """Hand over the first messages of `run`. Gives how many are gone from where they waited."""
        self._moving = run
        self._unflushed = True
        try:
            gone: int = handler._take(run, self)
            if gone:
                if self._aside:
                    track(run, True)
                self._out += gone
                self._drop(gone, again)
                for message in run if gone == len(run) else run[:gone]:
                    message.state = _SENT
            return gone
        except SizeError:
            limit = handler._link.peer_max_message_size
            error = errors.MessageSizeExceeded(len(run[0].encode_message()), limit)
            self._drop(1, again)
            self._finish(run[0], MessageSendResult.Error, error)
        except sender.Unsendable as problem:
            self._drop(1, again)
            self._unsendable(run[0], problem.cause)
        return 1

    def _drop(self, count: int, again: bool) -> None:
        """The next `count` messages wait no more."""
        if again:
            for _ in range(count):
                self._again.popleft()
            return
        self._head += count
        if self._head * 2 >= len(self._queue):  # others append meanwhile, so never clear()
            del self._queue[: self._head]
            self._head = 0
            self._aside_at = max(_LONG_QUEUE, len(self._queue) + _ASIDE)
            self._aside = bool(self._queue)

    def _offer_by_send(self, handler: Any) -> bool:
        """The same by `handler.send`, which somebody overrode: message by message, outside the lock."""
        moved = False
        while handler.get_state() is MessageSenderState.Open and getattr(handler, "_credit", 1) > len(
            getattr(handler, "_waiting", ())
        ):
            with self._books():
                again = bool(self._again) and time.monotonic() >= self._again_from
                run = list(itertools.islice(self._again, 1)) if again else self._next_run(1)
                if not run:
                    break
                message = run[0]
                self._drop(1, again)
                message.state = _SENT
                self._handed[id(message)] = message
                self._out += 1
            if not self._send_by_handler(handler, message):
                break
            moved = True
        return moved

    def _hands_runs(self, handler: Any) -> bool:
        """Whether nobody has overridden how a message is handed over, so that many may be at once."""
        return type(handler).send is _BASE_SEND and "send" not in handler.__dict__

    def _send_by_handler(self, handler: Any, message: Message) -> bool:
        try:
            sent = handler.send(message, self._on_message_sent, timeout=self._time_left(message))
        except Exception as error:
            self._not_handed_over(message, error)
            return True
        if not sent:
            self._taken_back(message)
        return bool(sent)

    def _time_left(self, message: Message) -> int:
        """Of msg_timeout, in ms; 0 for no limit."""
        timeout = self._msg_timeout
        if timeout > 0 and message.idle_time:
            timeout = max(1, int(timeout + message.idle_time - time.monotonic() * 1000))
        return timeout

    def _not_handed_over(self, message: Message, error: Exception) -> None:
        """An overridden `MessageSender.send` raised."""
        with self._books():
            if self._handed.pop(id(message), None) is not None:
                self._out -= 1
                self._unsendable(message, error)

    def _taken_back(self, message: Message) -> None:
        """An overridden `MessageSender.send` did not take it."""
        with self._books():
            if self._handed.pop(id(message), None) is not None:
                self._out -= 1
                message.state = _WAITING
                self._again.appendleft(message)

    # ---- time-outs: under the session's lock --------------------------------------------------------------------------

    def _expire(self) -> None:
        """Fail what is past its time; looks from the oldest deadline on."""
        timed = self._timed
        while self._timing:
            heappush(timed, self._timing.popleft())
        now = time.monotonic()
        while timed:
            deadline, _, message = timed[0]
            pending = message.state is _WAITING or message.state is _SENT
            if pending and deadline > now:
                return
            heappop(timed)
            if pending:
                self._time_out(message)

    def _time_out(self, message: Message) -> None:
        if id(message) in self._handed:
            return  # its sender sees to it
        fate = Delivery.NOT_DELIVERED
        if message.state is _SENT:
            fate = Delivery.UNKNOWN
            if not self.message_handler._abandon(message):
                return
            self._out -= 1
        else:
            fate = message.delivery or fate  # it may have been out before
            try:
                self._again.remove(message)
            except ValueError:
                self._dead += 1
        self._finish(message, MessageSendResult.Timeout, self._timed_out(fate))

    def _timed_out(self, fate: Delivery) -> errors.MessageTimeout:
        error = errors.MessageTimeout(f"no outcome within msg_timeout of {self._msg_timeout} ms; {fate.value}")
        error.delivery = fate
        return error

    def _next_deadline(self) -> float | None:
        """When to look again although nothing came."""
        deadline = self._timed[0][0] if self._timed else None
        handler = self.message_handler
        if handler is not None and handler._timed:
            first: float = handler._timed[0][0]
            deadline = first if deadline is None else min(deadline, first)
        if self._again and handler is not None and handler._credit > 0:
            deadline = self._again_from if deadline is None else min(deadline, self._again_from)
        return deadline

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _client_run_plan(self) -> Plan[bool]:
        fresh = len(self._queue) - self._head > self._left
        moved, _ = self._pump()
        self._raise_broken()
        self._left = len(self._queue) - self._head
        connection = self._connection
        if connection is not None and not (moved and connection._looked_lately()):
            yield from connection._paced_plan(moved or fresh)
            self._take_in()
            if not self._shutdown:
                self._raise_broken()
        return not self._shutdown

    def _take_in(self) -> None:
        """Hand out the records that have come, and call back."""
        session = self._session
        if session is None:
            return
        if session._inbox.records:
            with session._lock:
                session._dispatch()
        self._run_calls(session)

    def _run_calls(self, session: Any) -> None:
        if session._calls:
            session._calls.run()
        handler = self.message_handler
        if handler is not None and handler._calls:
            handler._calls.run()
        if self._calls:
            self._calls.run()

    def _pump(self) -> tuple[bool, bool]:
        """Take in what has come, hand over what can be, call back. Gives whether anything was handed over, and whether
        more could be right away."""
        session = self._session
        handler = self.message_handler
        if session is None or handler is None:
            return False, False
        moved = more = False
        own = self._hands_runs(handler)
        with session._lock:
            try:
                if session._inbox.records:
                    session._dispatch()
                if self._timed or self._timing:
                    self._expire()
                if own and (len(self._queue) > self._head or self._again or handler._draining):
                    moved = self._offer(handler)
            except BaseException:
                handler._torn()
                raise
        if not own or handler._waiting or handler._timed:
            moved = self._offer_by_send(handler) if not own else moved
            handler._offer_waiting()
        if moved or self._unflushed:
            more = self._send_off(session, handler, moved)
        if self._calls:
            self._calls.run()
        if session._calls or handler._calls:
            self._run_calls(session)
        if self._emptied:
            self._wake_emptied()
        return moved, more

    def _send_off(self, session: Any, handler: Any, moved: bool) -> bool:
        """Messages were handed over, or (not `moved`) the link took none: off with what there is. True when more could be
        handed over at once: not if the session's window is shut, of whose opening a record tells."""
        connection = self._connection
        before = connection._left
        clean = connection._flush()
        self._unflushed = False
        if not (self._unsent() and handler._ready):
            return False
        if not clean:  # full: somebody tells us when there is room again
            connection._when_drained(session._inbox)
            connection._flush()
        return bool(clean) and (moved or connection._left != before)

    def _unsent(self) -> bool:
        if len(self._queue) - self._head > self._dead:
            return True
        return bool(self._again) and time.monotonic() >= self._again_from

    def _called(self, message: Message) -> bool:
        """Whether the message is done, callback and all. Inside a callback nothing waits for further ones."""
        if message.state is not _COMPLETE and message.state is not _FAILED:
            return False
        return not self._uncalled or id(message) not in self._uncalled or self._calls.nested

    def _nothing_pending(self) -> bool:
        return not self.messages_pending() and (not self._uncalled or self._calls.nested)

    # ---- sending --------------------------------------------------------------------------------------------------

    def send_message(self, messages: Message, close_on_done: bool = False) -> None:
        """Send a message or batch and wait until all its parts have their outcome; what is queued goes along.

        Raises `ClientMessageError` when a part failed (`info` tells which), and the error of connection, session or link
        when it broke: `exc.delivery` then says what is known, and the message is in `pending_messages` again. A message
        larger than the peer takes raises an error that is also a `MessageSendFailed` and a `MessageContentTooLarge`."""
        queued = not close_on_done and self._send_at_once(messages)
        if not queued or messages.state is not _COMPLETE or self._uncalled or self._shutdown:
            self._run(self._send_message_plan(messages, close_on_done, queued))

    def _send_at_once(self, message: Any) -> bool:
        """The everyday case without the cost of a plan: a message alone on an idle link, up to its outcome if that is the
        next thing to come. True when the message was queued; what is left to do, and to raise, is the plan's then."""
        session, connection = self._session, self._connection
        if (
            session is None
            or connection is None
            or type(message) is not Message
            or message.state is not _WAITING
            or self._msg_timeout
            or self._out
            or self._again
            or self._timed
            or self._timing
            or not self._attached
            or connection._cbs is not None
            or session._inbox.led
            or self._stepwise()
        ):
            return False
        mine = session._enter()
        try:
            self._queue.append(message)
            self._pump()
            if message.state is _SENT and mine is session._inbox:
                connection._wait(mine)
                self._pump()
        except errors.AMQPError as error:
            _logger.debug("left to the plan: %s", error)
        finally:
            session._leave(mine)
        return True

    def _send_message_plan(self, messages: Any, close_on_done: bool, queued: bool = False) -> Plan[None]:
        if self._session is None:
            yield from self._opened_plan()
        parts = yield from self._send_plan(messages, queued)
        if close_on_done or self._shutdown:
            yield Call(self._method(self, "close"))
        self._raise_failed(parts)

    def _send_plan(self, messages: Any, queued: bool) -> Plan[list[Message]]:
        if queued:
            parts = [messages]
        elif type(messages) is Message and messages.state is _WAITING and not self._msg_timeout:
            self._queue.append(messages)
            parts = [messages]
        else:
            parts = self._enqueue(messages.gather())
        if len(parts) == 1:
            message = parts[0]
            try:
                yield from self._work_plan(functools.partial(self._called, message), None, lambda: message)
            finally:
                self._unwatch(message)
            return parts
        left = parts[::-1]

        def done() -> bool:
            while left and self._called(left[-1]):
                left.pop()
            return not left

        try:
            yield from self._work_plan(done, None, lambda: parts[-1] if done() else left[-1])
        finally:
            for message in left[-1:]:
                self._unwatch(message)
        return parts

    def _raise_failed(self, parts: list[Message]) -> None:
        failed = [message for message in parts if message.state is not _COMPLETE]
        if not failed:
            return
        last = failed[-1]
        if last.state is not _FAILED:
            raise self._closed_error()
        cause = last._response
        info = {
            "total_messages": len(parts),
            "number_failed": len(failed),
            "failed_messages": {message: message._response for message in failed},
        }
        if isinstance(cause, errors.MessageSizeExceeded):
            raise _TooLarge(cause, info) from cause
        raise errors.ClientMessageError(cause, info=info) from cause

    def send_all_messages(self, close_on_done: bool = True) -> list[MessageState]:
        """Send everything that is queued and wait for the outcomes. Gives the state of each message, in the order of the
        queue. Raises the error of connection, session or link when it broke; messages without outcome are then in
        `pending_messages`."""
        return self._run(self._send_all_plan(close_on_done))

    def _send_all_plan(self, close_on_done: bool) -> Plan[list[MessageState]]:
        yield from self._opened_plan()
        messages = self._pending()
        if self._dead:
            messages = [message for message in messages if message.state in constants.PENDING_STATES]
        yield from self._work_plan(self._nothing_pending, None, _nothing)
        states = [message.state for message in messages]
        if close_on_done or self._shutdown:
            yield Call(self._method(self, "close"))
        return states

    def wait(self) -> bool:
        """Send everything that is queued and wait for the outcomes. False when the client was closed meanwhile."""
        return self._run(self._wait_plan())

    def _wait_plan(self) -> Plan[bool]:
        if self._shutdown:
            return False
        self._opened()
        try:
            yield from self._work_plan(self._nothing_pending, None, _nothing)
        except errors.AMQPError:
            if not self._shutdown:
                raise
        return not self._shutdown

    # ---- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """As `AMQPClient.close`. Messages without an outcome are in `pending_messages` afterwards, ready for another
        client."""
        super().close()

    def _close_plan(self) -> Plan[None]:
        if not self._shutdown:
            self._closer = self._me()
        session, handler = self._session, self.message_handler
        if session is not None:
            with session._lock:
                session._dispatch()
        yield from super()._close_plan()
        if session is not None and handler is not None:
            with session._lock:
                handler._forget()
                self._come_back(list(self._handed.values()), Delivery.UNKNOWN)
                self._out -= len(self._handed)
                self._handed.clear()
        if self._closed:
            self._calls.clear()
            self._uncalled.clear()

    def redirect(self, redirect: errors.LinkRedirect, auth: AMQPAuth) -> None:
        """Go where a `LinkRedirect` points to, with a fresh auth object; pending messages are dropped, so send the one that
        was redirected again, as a new `Message`. Raises ValueError on a shared connection."""
        super().redirect(redirect, auth)

    def _drop_pending(self) -> None:
        self._queue = []
        self._head = self._dead = self._out = 0
        self._again.clear()
        self._handed.clear()
        self._timed.clear()
        self._timing.clear()
        self._calls.clear()
        self._uncalled.clear()
        self._error = self._lost = None
        self._attached = False


class ReceiveClient(_LinkClient):
    """Receives messages from one address.

    Args: see `AMQPClient`, and
        source: where from, a URL or a `Source`, with a filter if need be.
        timeout: ms without any message after which receiving stops; 0: never.
        shutdown_after_timeout: whether that shuts the client down (True) or only ends the running call.
        auto_complete: accept messages once they are handed over.
        prefetch: how many messages may be on their way or unread (300).
        receive_settle_mode: PeekLock (each message waits for its outcome) or ReceiveAndDelete.
        max_message_size: bytes, announced to the peer (1 MiB).
        link_properties: dict, sent with the link's ATTACH.

    One client may be used by several threads; each message is given to one of them. Callbacks run only inside its calls.
    When it closes, messages that nobody has read go back to the peer.
    """

    _own_arguments = frozenset(("max_message_size", "link_properties", "prefetch", "shutdown_after_timeout"))
    _address_type = address.Source
    _open_state = MessageReceiverState.Open

    def __init__(
        self,
        source: str | bytes | address.Source,
        auth: AMQPAuth | None = None,
        client_name: str | bytes | None = None,
        debug: bool = False,
        timeout: int = 0,
        auto_complete: bool = True,
        error_policy: errors.ErrorPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        self._timeout = timeout
        self._shutdown_after_timeout = kwargs.get("shutdown_after_timeout", True)
        self._prefetch = kwargs.get("prefetch") or 300
        self._max_message_size = kwargs.get("max_message_size") or constants.MAX_MESSAGE_LENGTH_BYTES
        self._link_properties = kwargs.get("link_properties")
        keep_alive_interval = kwargs.pop("keep_alive_interval", None)
        super().__init__(
            source,
            auth=auth,
            client_name=client_name,
            debug=debug,
            error_policy=error_policy,
            keep_alive_interval=keep_alive_interval,
            **kwargs,
        )
        self.auto_complete = auto_complete
        self.receiver_type: type[receiver.MessageReceiver] = receiver.MessageReceiver
        self._received_messages = Unread()
        self._message_received_callback: Callable[[Message], object] | None = None
        self._streaming_receive = False
        self._was_message_received = False  # since the clock of `timeout` was last looked at
        self._timeout_reached = False
        self._last_activity_timestamp: float | None = None  # ms of time.monotonic; None: at the next look
        self._brought = False  # the last step handed messages out

    # ---- the link -------------------------------------------------------------------------------------------------

    @property
    def _message_receiver(self) -> Any:
        return self.message_handler

    def _make_handler(self, session: Any) -> Any:
        return self.receiver_type(
            session,
            self._target,
            self._name,
            on_message_received=self._on_message,
            name=f"receiver-link-{uuid.uuid4()}",
            debug=self._debug_trace,
            receive_settle_mode=self._receive_settle_mode,
            send_settle_mode=self._send_settle_mode,
            prefetch=self._prefetch,
            max_message_size=self._max_message_size,
            properties=self._link_properties,
            error_policy=self._error_policy,
            encoding=self._encoding,
            desired_capabilities=self._desired_capabilities,
        )

    def _on_message(self, message: Message) -> None:
        self._message_received(message)

    def _message_received(self, message: Message) -> None:
        """A message came in. May be replaced."""
        self._was_message_received = True
        callback = self._message_received_callback
        if callback is not None:
            callback(message)
        if callback is not None or self._streaming_receive:
            if self.auto_complete:
                if not self._complete(message):
                    return  # the peer delivers it again
            elif self._streaming_receive and message.state is _UNSETTLED and not message.settled:
                _logger.info("delivery %r was not settled by the callback", message.delivery_no)
        if not self._streaming_receive:
            if callback is not None:
                message.__dict__["_called"] = True
            self._received_messages.put(message)

    def _takes_runs(self, handler: Any) -> bool:
        """Whether messages need only be queued, so that all may be queued at once."""
        return (
            self._message_received_callback is None
            and not self._streaming_receive
            and type(self)._message_received is _BASE_RECEIVED
            and "_message_received" not in self.__dict__
            and handler.on_message_received == self._on_message
        )

    def _take_run(self, messages: list[Message]) -> None:
        self._was_message_received = True
        self._received_messages.extend(messages)

    def _has(self, messages: list[Message]) -> bool:
        return any(message is messages[0] for message in list(self._received_messages.queue))

    # ---- what is unread: under the session's lock ---------------------------------------------------------------------

    def _unread(self, handler: Any) -> list[int]:
        """The deliveries of that link that nobody has read, and which are not settled: they are let go of."""
        due = set(handler._due)
        numbers = []
        kept = []
        for message in self._received_messages.queue.copy():
            number = message.delivery_no
            if message.state is _UNSETTLED and not message.settled or (message.state is _SETTLED and number in due):
                numbers.append(number)
            else:
                kept.append(message)
        if numbers:
            self._received_messages.keep(kept)
        return numbers

    def _over(self) -> None:
        handler, session = self.message_handler, self._session
        if isinstance(handler, receiver.MessageReceiver) and session is not None:
            with session._lock:
                handler._over()

    def _take(self, count: int, accept: bool) -> list[Message]:
        """The first unread messages. Raises what broke the link when they cannot be accepted any more."""
        handler, session = self.message_handler, self._session
        if handler is None or session is None:
            return []
        with session._lock:
            messages: list[Message] = self._received_messages.take(count)
            if accept:
                try:
                    self._accept(handler, messages)
                except receiver.LinkGone:  # the peer delivers them again
                    messages = [message for message in messages if message.state is _SETTLED]
        self._tidy(handler)
        return messages

    def _accept(self, handler: Any, messages: list[Message]) -> None:
        """Accept those that are not settled: as ranges, and one by one what is not of this link."""
        settler = getattr(handler, "_settler", None)
        mine: list[Message] = []
        numbers: list[int] = []
        for message in messages:
            if message.state is _UNSETTLED:
                rest: dict[str, Any] = message._rest or {}
                if settler is not None and rest.get("_settle") is settler and "_answer" not in rest:
                    mine.append(message)
                    numbers.append(rest["delivery_no"])
                else:
                    self._complete(message)
        if not mine:
            return
        handler._unsent = True
        done = 0
        for first, last in ranges(numbers):
            try:
                handler._settle(first, last, ACCEPTED)
            except errors.MessageAlreadySettled:
                _logger.debug("deliveries %d to %d were settled by the peer", first, last)
            before, done = done, done + span(first, last)
            for message in mine[before:done]:
                message.state = _SETTLED

    def _tidy(self, handler: Any) -> None:
        handler._tidy(len(self._received_messages))

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _take_in(self) -> None:
        self._pump()

    def _pump(self) -> tuple[bool, bool]:
        """Take in what has come and hand it out. Gives, twice, whether that was anything."""
        session, handler = self._session, self.message_handler
        if session is None or handler is None:
            return False, False
        with session._lock:
            if session._inbox.records:
                session._dispatch()
        brought = False
        if handler._arrived:
            brought = handler._hand_out() > 0
            if session._inbox.followers:
                session._inbox.poke_all()
        self._brought = brought
        if handler is self.message_handler:
            self._tidy(handler)
        if session._calls:
            session._calls.run()
        if handler._calls:
            handler._calls.run()
        return brought, brought

    def _work(self) -> None:
        """Take in; messages are handed out by who receives."""
        session, handler = self._session, self.message_handler
        if session is None or handler is None:
            return
        before = len(handler._arrived)
        with session._lock:
            session._dispatch()
        if session._inbox.followers and len(handler._arrived) > before:
            session._inbox.poke_all()
        session._calls.run()

    def _client_run_plan(self) -> Plan[bool]:
        before, _ = self._pump()
        self._raise_broken()
        connection = self._connection
        if connection is None or self._shutdown:
            return not self._shutdown
        yield from connection._paced_plan(before)
        after, _ = self._pump()
        self._brought = before or after
        if self._shutdown:
            return False
        self._raise_broken()
        if self._idle_too_long():
            self._time_out()
        return not self._shutdown

    def _idle_too_long(self) -> bool:
        """Whether `timeout` has passed since the last message, or since there is a link."""
        now = time.monotonic() * 1000
        last = self._last_activity_timestamp
        if self._was_message_received or last is None:
            self._was_message_received = False
            self._last_activity_timestamp = now
            return False
        timeout = self._timeout
        return timeout is not None and timeout > 0 and now - last >= timeout

    def _time_out(self) -> None:
        self._timeout_reached = True
        self._last_activity_timestamp = None
        if self._shutdown_after_timeout:
            self._shutdown = True

    def _next_deadline(self) -> float | None:
        if not self._timeout or self._timeout < 0 or self._last_activity_timestamp is None:
            return None
        return (self._last_activity_timestamp + self._timeout) / 1000

    def _stopped(self) -> bool:
        return False

    # ---- receiving ------------------------------------------------------------------------------------------------

    def _over_already(self) -> bool:
        """Whether there is nothing to wait for: `timeout` has passed, or this is a callback of the very link."""
        if self._timeout_reached:
            return True
        handler = self.message_handler
        if handler is not None and handler._nested:
            return True
        if self._attached and self._idle_too_long():
            self._time_out()
        return self._timeout_reached

    def _receive_plan(self, done: Callable[[], bool], deadline: float | None = None) -> Plan[bool]:
        """Work until `done()`: True; False when the client is shut down. Raises what broke the link, but not while there are
        messages that can be had in spite of it."""
        self._timeout_reached = False
        self._last_activity_timestamp = None
        try:
            return (yield from self._work_plan(done, deadline))
        except errors.AMQPError:
            if not self._shutdown and (self._streaming_receive or not len(self._received_messages)):
                raise
            return not self._shutdown

    def receive_message_batch(
        self,
        max_batch_size: int | None = None,
        on_message_received: Callable[[Message], object] | None = None,
        timeout: float = 0,
    ) -> list[Message]:
        """Receive up to `max_batch_size` messages (`prefetch` when not given): what is there, or else what comes first.

        `on_message_received(message)` is called with each as it comes in, also with those that only the next call gives.
        `timeout` in ms: how long to wait for the first message; 0: until the client's own `timeout`. Gives an empty list
        when there was none. With `auto_complete` the messages are accepted. Raises ValueError for more than `prefetch`,
        and the error of connection, session or link when it broke."""
        return self._run(self._batch_plan(max_batch_size, on_message_received, timeout))

    def _batch_plan(
        self, max_batch_size: int | None, callback: Callable[[Message], object] | None, timeout: float
    ) -> Plan[list[Message]]:
        size = self._prefetch if max_batch_size is None else max_batch_size
        if size > self._prefetch:
            raise ValueError(f"max_batch_size {size} is more than prefetch, {self._prefetch}")
        yield from self._opened_plan()
        deadline = time.monotonic() + timeout / 1000 if timeout and timeout > 0 else None
        unread = self._received_messages
        seen = len(unread)

        def done() -> bool:
            nonlocal seen
            count = len(unread)
            if count >= size or (count and (count <= seen or not self._brought)):
                return True
            seen = count
            if deadline is not None and time.monotonic() >= deadline:
                return True
            return self._over_already()

        kept, self._message_received_callback = self._message_received_callback, callback
        try:
            running = not self._shutdown
            if seen and seen < size and running and self._attached:
                yield Call(self._connection._step, (0.0,))  # what has come meanwhile
            while True:
                if running and len(unread) < size:
                    running = yield from self._receive_plan(done, deadline)
                messages = self._take(size, self.auto_complete)
                late = deadline is not None and time.monotonic() >= deadline
                if messages or late or not running or self._shutdown or self._over_already():
                    return messages
                self._raise_broken()
                seen = 0  # another thread took them
        finally:
            self._message_received_callback = kept

    def receive_messages(self, on_message_received: Callable[[Message], object]) -> None:
        """Give every message that comes to `on_message_received(message)`, until the client's `timeout`; closes the client
        then, with `shutdown_after_timeout`.

        With `auto_complete` a message is accepted when the callback returns, unless it has settled it. When it raises, the
        message is given back as modified and receiving goes on; a RuntimeError breaks the link. Raises the error of
        connection, session or link when it broke, and `AMQPClientShutdown` for Ctrl-C in the callback."""
        self._run(self._stream_plan(on_message_received))

    def _stream_plan(self, callback: Callable[[Message], object]) -> Plan[None]:
        yield from self._opened_plan()
        kept = self._message_received_callback, self._streaming_receive
        self._message_received_callback, self._streaming_receive = callback, True
        try:
            self._hand_leftovers()
            if not self._shutdown:
                yield from self._receive_plan(self._over_already)
        finally:
            self._message_received_callback, self._streaming_receive = kept
        if self._shutdown:
            yield Call(self._method(self, "close"))

    def _hand_leftovers(self) -> None:
        """Messages that an earlier call left unread: they came before all others."""
        handler, session = self.message_handler, self._session
        if handler is None or session is None:
            return
        with session._lock:
            handler._again.extend(m for m in self._received_messages.take(1 << 30) if not m.__dict__.get("_called"))
        handler._hand_out()
        self._tidy(handler)

    def receive_messages_iter(
        self, on_message_received: Callable[[Message], object] | None = None
    ) -> Generator[Message, None, None]:
        """Generate messages as they come, until the client's `timeout`; closes the client then, with
        `shutdown_after_timeout`. With `auto_complete` a message is accepted when the next one is asked for, or when the
        generator is closed. What is unread then is there for the next call. Raises as `receive_messages`."""
        automatic, self.auto_complete = self.auto_complete, False
        kept, self._message_received_callback = self._message_received_callback, on_message_received
        message: Message | None = None
        try:
            while (message := self._next()) is not None:
                yield message
                if automatic:
                    self._complete(message)
        except GeneratorExit:
            if automatic and message is not None and not sys.is_finalizing():  # then it belongs to the peer again
                self._complete(message)
            raise
        finally:
            self.auto_complete = automatic
            self._message_received_callback = kept
        if self._shutdown:
            self.close()

    def _complete(self, message: Message) -> bool:
        """Accept it unless it is settled. False when it cannot be, since the link is gone."""
        try:
            message.accept()
        except errors.MessageAlreadySettled:
            _logger.debug("delivery %r was settled by the peer", message.delivery_no)
        except receiver.LinkGone as error:
            _logger.info("delivery %r was not accepted: %s", message.delivery_no, error)
            return False
        return True

    def _next(self) -> Message | None:
        """The next message; None when there will be none."""
        messages = self._take(1, False) if len(self._received_messages) else None
        return messages[0] if messages else self._run(self._next_plan())

    def _next_plan(self) -> Plan[Message | None]:
        unread = self._received_messages
        if self._shutdown and not len(unread):
            return None
        yield from self._opened_plan()

        def done() -> bool:
            return len(unread) > 0 or self._over_already()

        messages = self._take(1, False)
        running = not self._shutdown
        while running and not messages:
            running = yield from self._receive_plan(done)
            messages = self._take(1, False)
            if messages or self._over_already() or self._shutdown:
                break
            self._raise_broken()
        return messages[0] if messages else None

    def _iter_plan(self, callback: Callable[[Message], object] | None) -> Plan[Message | None]:
        """One step of an iteration that accepts messages itself: the next one; None, and the client closed if that is
        what `timeout` does, when there will be none."""
        automatic, self.auto_complete = self.auto_complete, False
        kept, self._message_received_callback = self._message_received_callback, callback
        try:
            message = yield from self._next_plan()
        finally:
            self.auto_complete = automatic
            self._message_received_callback = kept
        if message is None and self._shutdown:
            yield Call(self._method(self, "close"))
        return message

    # ---- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """As `AMQPClient.close`. Messages that nobody has read are released before."""
        super().close()

    def _close_plan(self) -> Plan[None]:
        handler = self.message_handler
        if handler is not None:
            handler._client = self
        yield from super()._close_plan()

    def redirect(self, redirect: errors.LinkRedirect, auth: AMQPAuth) -> None:
        """Go where a `LinkRedirect` points to, with a fresh auth object; unread messages are let go of. Raises ValueError on
        a shared connection."""
        super().redirect(redirect, auth)

    def _redirect_plan(self, redirect: Any, auth: Any) -> Plan[None]:
        yield from super()._redirect_plan(redirect, auth)
        self._received_messages.keep([])

    def _drop_pending(self) -> None:
        self._error = None
        self._attached = False
        self._timeout_reached = False
        self._last_activity_timestamp = None


class _TooLarge(errors.ClientMessageError, errors.MessageSizeExceeded):
    """`send_message` with a message that the peer does not take."""

    def __init__(self, cause: errors.MessageSizeExceeded, info: dict[str, Any]) -> None:
        errors.MessageSizeExceeded.__init__(self, cause.size, cause.limit)
        self.info = info


def _nothing() -> None:
    """What a call waits for that waits until nothing is pending."""


def _never(error: errors.AMQPError) -> errors.ErrorAction:
    return errors.ErrorAction(retry=False)


_BASE_SEND = sender.MessageSender.send
_ENCODE = Message.encode_message
_STEPS = frozenset(
    ("do_work", "client_ready", "auth_complete", "_client_ready", "_client_run",
     "do_work_async", "client_ready_async", "auth_complete_async", "_client_ready_async", "_client_run_async")
)  # fmt: skip
_BASE_RECEIVED = ReceiveClient._message_received
for _one in (AMQPClient, SendClient, ReceiveClient):
    _one._own_steps = _one._steps()
