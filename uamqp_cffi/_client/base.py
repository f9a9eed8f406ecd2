"""What clients have in common: `AMQPClient`, a connection and a session, and under it what those with a link share."""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
import uuid
from collections.abc import Callable
from typing import Any, SupportsIndex, TypedDict, TypeVar
from urllib.parse import unquote_plus

from .. import address, authentication, constants, errors
from .._arguments import (
    are_mappings,
    are_numbers,
    is_auth,
    is_callable,
    is_context,
    is_policy,
    keywords_of,
    not_pickled,
    unknown,
    wrong,
)
from .._core import time
from .._core.waiting import plan as plans
from .._core.waiting.locks import RLock, fork_safe
from .._core.waiting.plan import Call, Plan, Wait
from .._native.tick import TickCounter
from .._session.link import Capabilities
from .._session.requests import Options
from .._typing import Unpack
from ..address import Address
from ..authentication.cbs_auth import CBSAuthMixin
from ..authentication.common import AMQPAuth
from ..connection import CLOSE_TIMEOUT, CONNECT_TIMEOUT, Connection
from ..constants import Delivery, TransportType
from ..message import Message
from ..session import OnAttach, Session

_T = TypeVar("_T")
_C = TypeVar("_C", bound="AMQPClient")


_SCHEMES = ("amqp", "amqps", "sb")  # of URLs that say where to connect to; the last is Azure's
_HOW_ADDRESS = "amqps://HOST/QUEUE, with amqp:// for plain TCP to this very host"


class NodeName(TypedDict, total=False):
    """What clients without a link take, too; in `kwargs`, so that the constructors keep uamqp's parameters."""

    address: str | bytes | None


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
        keep_alive_interval: seconds. A thread (with asyncio a task) takes in what has come every so often while no call does:
            callbacks are then called from there, `on_message_received` that of the last call. It works for all clients on
            the connection. None or 0: nothing of the kind. Heartbeats go out in any case, whenever the peer wants them.
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

    connection_type: type[Connection] = Connection
    session_type: type[Session] = Session
    message_handler: Any = None

    def __init__(
        self,
        remote_address: str | bytes | Address,
        auth: AMQPAuth | None = None,
        client_name: str | bytes | None = None,
        debug: bool = False,
        error_policy: errors.ErrorPolicy | None = None,
        keep_alive_interval: float | None = None,
        *,
        encoding: str = "UTF-8",
        transport_type: TransportType = TransportType.Amqp,
        http_proxy: dict[str, Any] | None = None,
        max_frame_size: int | None = None,
        channel_max: int | None = None,
        idle_timeout: int | None = None,
        properties: dict[Any, Any] | None = None,
        remote_idle_timeout_empty_frame_send_ratio: float | None = None,
        incoming_window: int | None = None,
        outgoing_window: int | None = None,
        handle_max: int | None = None,
        on_attach: OnAttach | None = None,
        send_settle_mode: constants.SenderSettleMode | None = None,
        receive_settle_mode: constants.ReceiverSettleMode | None = None,
        desired_capabilities: Capabilities | None = None,
        use_tls: bool | None = None,
        sasl: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        **kwargs: Unpack[NodeName],
    ) -> None:
        strange = kwargs.keys() - {"address"}
        if strange:
            raise ValueError(
                unknown(type(self).__name__, strange, keywords_of(type(self)) - {"remote_address"} | {"address"})
            )
        are_numbers(
            max_frame_size=max_frame_size,
            channel_max=channel_max,
            idle_timeout=idle_timeout,
            remote_idle_timeout_empty_frame_send_ratio=remote_idle_timeout_empty_frame_send_ratio,
            incoming_window=incoming_window,
            outgoing_window=outgoing_window,
            handle_max=handle_max,
            connect_timeout=connect_timeout,
        )
        are_mappings(properties=properties)
        is_callable(
            "on_attach", on_attach, "on_attach=function; it is called as function(source, target, properties, error)"
        )
        is_auth(auth)
        is_policy(error_policy)
        is_context(ssl_context)
        self._encoding = encoding or "UTF-8"
        self._transport_type = TransportType(transport_type or TransportType.Amqp)
        self._http_proxy = http_proxy
        self._node = kwargs.get("address")
        self._use_tls = use_tls
        self._sasl = sasl
        self._ssl_context = ssl_context
        self._connect_timeout = connect_timeout
        self._remote_address = self._make_address(remote_address)
        self._hostname, self._auth = self._make_auth(auth)
        self._name = client_name or str(uuid.uuid4())
        self._debug_trace = debug
        self._counter = TickCounter()
        self._shutdown = False
        self._closed = False
        self._redirecting = False
        self._connection: Any = None
        self._ext_connection = False
        self._session: Any = None
        self._backoff = 0.0
        self._error_policy = error_policy or errors.ErrorPolicy()
        self._keep_alive_interval = self._seconds(keep_alive_interval)
        self._keep_alive_thread: Any = None  # a thread, or with asyncio a task, while there is one
        self._lock = fork_safe(RLock())

        # connection settings
        self._max_frame_size = max_frame_size or constants.MAX_FRAME_SIZE_BYTES
        self._channel_max = channel_max
        self._idle_timeout = idle_timeout
        self._properties = properties
        self._remote_idle_timeout_empty_frame_send_ratio = remote_idle_timeout_empty_frame_send_ratio

        # session settings
        self._incoming_window = incoming_window or constants.MAX_FRAME_SIZE_BYTES
        self._outgoing_window = outgoing_window or constants.MAX_FRAME_SIZE_BYTES
        self._handle_max = handle_max
        self._on_attach = on_attach

        # link settings
        self._send_settle_mode = send_settle_mode or constants.SenderSettleMode.Unsettled
        self._receive_settle_mode_chosen = receive_settle_mode is not None
        self._receive_settle_mode = (
            constants.ReceiverSettleMode.PeekLock if receive_settle_mode is None else receive_settle_mode
        )
        self._desired_capabilities = desired_capabilities

        self.message_handler = None

    def __repr__(self) -> str:
        """Where to, how it stands, and how much there is of what."""
        node = "" if self._node is None else f" address={self._node!r}"
        return f"<{type(self).__name__} {self._remote_address}{node}, {', '.join([self._repr_state(), *self._repr_counts()])}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise not_pickled(self)

    def _repr_state(self) -> str:
        if self._closed:
            return "closed"
        return "not open" if self._session is None else "open"

    def _repr_counts(self) -> list[str]:
        return []

    def __enter__(self: _C) -> _C:
        self.open()
        return self

    def __exit__(self, *args: object) -> None:
        self._leave_block()
        self.close()

    def _leave_block(self) -> None:
        """A `with` block ends: warn of what was left undone in it."""

    @staticmethod
    def _seconds(interval: float | None) -> float:
        """A `keep_alive_interval` as a number."""
        seconds = 0 if interval is None else interval if isinstance(interval, float) else int(interval)
        if not 0 <= seconds < threading.TIMEOUT_MAX:
            raise ValueError(f"keep_alive_interval is a number of seconds, 0 or None for none, not {interval!r}")
        return seconds

    # ---- addresses and credentials --------------------------------------------------------------------------------

    _address_type: Any = address.Target

    def _make_address(self, given: Any) -> Any:
        """The address object of what was given: where to connect to, and the node there."""
        if isinstance(given, (str, bytes)):
            return self._address_type._endpoint(given, self._node, self._encoding)
        if not isinstance(given, address.Address):
            raise ValueError(str(wrong("the address", given, "a URL (str, bytes) or an address object", _HOW_ADDRESS)))
        return given

    def _make_auth(self, auth: Any) -> tuple[Any, Any]:
        remote = self._remote_address
        hostname = remote.hostname
        if auth is None:
            if not hostname:
                raise ValueError(f"the address {str(remote)!r} names no host to connect to: write {_HOW_ADDRESS}")
            if remote.scheme not in _SCHEMES:
                raise ValueError(
                    f"{str(remote)!r} is no URL of AMQP, for it begins with {remote.scheme}://: write {_HOW_ADDRESS}; "
                    "for AMQP in a WebSocket add transport_type=TransportType.AmqpOverWebsocket"
                )
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
            if self._redirecting:
                raise self._between_error()
            if self._closed:
                raise ValueError(f"this client was closed{self._closed_by}: make a new one, with a new auth object")
            if connection is not None:
                self._auth = connection.auth
                self._ext_connection = True
                self._connection = connection
            elif self._connection is None:
                self._connection = self._build_connection()
        yield from self._session_plan()
        self._begin_keep_alive()

    def _begin_keep_alive(self) -> None:
        connection = self._connection
        if self._keep_alive_interval and connection is not None:
            self._keep_alive_thread = connection._keep_for(self, self._keep_alive_interval)

    def _keep(self) -> None:
        """For keep-alive: take in what has come since the last call, and call back. A client without a link has nothing."""

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
            if self._connection is not connection or self._closed:  # closed meanwhile
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
        deadline = time.monotonic() + CLOSE_TIMEOUT
        with self._lock:
            self._shutdown = True
            handler, session = self._take_away()
            connection = self._connection
            self._closed = self._closed or session is not None or connection is not None
            if not self._ext_connection:
                self._connection = None
        self._keep_alive_thread = None
        worker = None if connection is None else connection._keep_no_more(self)
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
                if worker is not None:
                    yield Call(connection._keeper_gone, (worker, deadline))

    def _take_away(self) -> tuple[Any, Any]:
        """Take link and session away, and return them. Under the session's lock, too, under which another thread may just
        now be making the link: it is taken when it is there."""
        session = self._session
        with getattr(session, "_lock", None) or contextlib.nullcontext():
            handler, self.message_handler = self.message_handler, None
            self._session = None
        return handler, session

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
            if self._closed:
                raise self._closed_error()
            if self._redirecting:
                raise self._between_error()
            self._redirecting = True
            handler, session = self._take_away()
            connection = self._connection
            self._shutdown = False
            if session is None:
                self._drop_pending(handler)
            else:
                with session._lock:
                    self._drop_pending(handler)
        try:
            if handler is not None:
                yield Call(self._method(handler, "destroy"))
            if session is not None and not self._shares(session):
                yield Call(self._method(session, "destroy"))
            self._remote_address = self._make_address(redirect.address)
            self._node = None
            self._hostname = redirect.hostname
            if connection is not None:
                if getattr(auth, "_port", 0) is None:
                    auth._port = redirect.port or self._remote_address.port
                yield Call(self._method(connection, "redirect"), (redirect, auth))
            if connection is None or connection.auth is auth:
                self._auth = auth
        finally:
            self._redirecting = False
        if connection is not None and self._connection is connection:
            yield from self._session_plan()
            self._begin_keep_alive()

    def _drop_pending(self, handler: Any) -> None:
        """Forget what belonged to the former peer, and to that link."""

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _opened(self) -> Any:
        session = self._session
        if session is None:
            if self._closed:
                raise self._closed_error()
            if self._connection is not None:
                raise self._between_error()
            raise AttributeError(f"this {type(self).__name__} is not open: call open() first")
        return session

    def _both(self) -> tuple[Any, Any]:
        """Session and connection of a client that is open."""
        session, connection = self._opened(), self._connection
        if connection is None:  # closed by another thread, just now
            raise self._closed_error()
        return session, connection

    def _between_error(self) -> errors.AMQPConnectionError:
        error = errors.MessageHandlerError("the client is being opened, or redirected, by another call")
        error.retryable = True
        error.delivery = self._fate()
        return error

    def _fate(self) -> Delivery | None:
        """What an error says of messages that were to be sent."""
        return None

    def _closed_error(self) -> errors.AMQPConnectionError:
        error = errors.MessageHandlerError(f"the client was closed{self._closed_by}")
        error.retryable = False
        return error

    _closed_by = ""  # for the text of errors: what closed it, if that was not close()

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
            yield from self._both()[1]._paced_plan(False)
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
        yield Call(self._method(self._both()[1], "work"))

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

    _looked_through = -1  # how many attributes there were when none of them was a step
    _own_steps: tuple[Any, ...] = ()
    """`_steps()` of the class itself."""

    @classmethod
    def _steps(cls) -> tuple[Any, ...]:
        """What users override to change a step."""
        return cls.do_work, cls.client_ready, cls.auth_complete, cls._client_ready, cls._client_run

    def _stepwise(self) -> bool:
        """Whether somebody changed a step: then nothing but the public methods may be used."""
        assigned = self.__dict__
        if len(assigned) != self._looked_through:  # looking through them costs more than all else here
            if not assigned.keys().isdisjoint(_STEPS):
                return True
            self._looked_through = len(assigned)
        return self._steps() != self._own_steps

    def mgmt_request(
        self,
        message: Message,
        operation: bytes | str,
        op_type: bytes | str | None = None,
        node: bytes | str | None = None,
        callback: Callable[[int, Message, Any], Any] | None = None,
        **kwargs: Unpack[Options],
    ) -> Any:
        """Send a request to the management node of the peer and wait for the answer; see `MgmtOperation.execute`. Further
        arguments: `timeout` (ms, 0: for ever), `status_code_field`, `description_fields`, `encoding`, `debug`."""
        return self._run(self._mgmt_request_plan(message, operation, op_type, node, callback, {**kwargs}))

    def _mgmt_request_plan(
        self, message: Message, operation: Any, op_type: Any, node: Any, callback: Any, kwargs: dict[str, Any]
    ) -> Plan[Any]:
        if not isinstance(message, Message):
            raise wrong("the request", message, "a Message", "Message(body)")
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


_STEPS = frozenset(
    ("do_work", "client_ready", "auth_complete", "_client_ready", "_client_run",
     "do_work_async", "client_ready_async", "auth_complete_async", "_client_ready_async", "_client_run_async")
)  # fmt: skip
AMQPClient._own_steps = AMQPClient._steps()
