"""Tokens instead of SASL credentials (claims-based security): put to the peer's `$cbs` node, renewed in time."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, cast
from urllib.parse import quote_plus, urlparse

from .. import errors, utils
from .._arguments import keywords_of, unknown
from .._core.waiting.interrupts import openly
from .._core.waiting.locks import Lock, fork_safe
from .._core.waiting.plan import Call, Plan, refuse_coroutine, run
from .._session.tokens import Exchange, TokenSource, for_asyncio, no_wait
from .._typing import Nothing, Unpack
from ..connection import Connection
from ..constants import TransportType
from ..session import Options, Session
from .common import AMQPAuth, _as_bytes

__all__ = ["AMQPAuth", "CBSAuthMixin", "JWTTokenAuth", "SASTokenAuth", "Session", "TokenRetryPolicy", "TransportType"]


class TokenRetryPolicy:
    """How often a token that the peer refuses is put again (`retries`, so one time less than it is put), and after how
    long: the argument `backoff` is in milliseconds, the attribute in seconds."""

    def __init__(self, retries: int = 3, backoff: float = 0) -> None:
        self.retries = retries
        self.backoff: float = backoff / 1000


_POLICY = TokenRetryPolicy()
_S = TypeVar("_S", bound="SASTokenAuth")
_MOST = 1e13  # seconds; a timedelta has no room for ten times as many
_making = fork_safe(Lock())  # held while a session is made, which does no I/O


class CBSAuthMixin:
    """What is common to auth objects with tokens. One object serves one connection, and all clients on that connection:
    they share its session.

    Who subclasses it has `audience`, `token_type` and `token` (bytes), `expires_at` (seconds since the epoch),
    `timeout` (seconds, 0 or None: no limit) and overrides `update_token`, which is called when the token is to be
    renewed.
    """

    retries = 0
    """How often the present token was put again."""
    _retry_policy: TokenRetryPolicy = _POLICY
    _refresh_window: float = 0
    _connection: Any = None
    _session: Any = None
    _session_type: Any = None  # that of a client which has one of its own
    _cbs_auth: Exchange | None = None

    def update_token(self) -> Any:
        """Put a new token into `token` and its expiry into `expires_at`. This one has none: TokenExpired."""
        raise errors.TokenExpired("the token cannot be renewed: there is nothing to make a new one from")

    def create_authenticator(self, connection: Connection, debug: bool = False, **kwargs: Unpack[Options]) -> Session:
        """Make the session on which tokens are put and that the clients of `connection` share; nothing is sent yet.
        Further arguments are those of `Session`. A second call gives the same session. Raises what `update_token`
        raises."""
        return run(self._create_plan(connection, debug, **kwargs), no_wait)

    def _create_plan(self, connection: Connection, debug: bool = False, **kwargs: Unpack[Options]) -> Plan[Session]:
        if self._present(connection) is None:
            yield from self._first_token_plan()
        with _making:
            session = self._present(connection)  # somebody else may have been quicker
            if session is None:
                session = (self._session_type or self._own_session_type())(connection, **kwargs)
                self._connection, self._session = connection, session
                self._cbs_auth = connection._cbs = Exchange(session, cast(TokenSource, self))
            return session

    def _present(self, connection: Connection) -> Session | None:
        """The session on this connection, if it was made already."""
        session: Session | None = self._session
        return session if session is not None and self._connection is connection and not session._ended else None

    def _part_from(self, connection: Connection) -> None:
        """That connection is closed: nothing of it is kept, since it keeps us."""
        if self._connection is connection:
            self._connection = self._session = self._cbs_auth = None

    def _first_token_plan(self) -> Plan[None]:
        """Before anything else: see that there is a token."""
        yield from ()

    def _own_session_type(self) -> type[Session]:
        return Session

    def _exchange(self) -> Exchange:
        exchange = self._cbs_auth
        if exchange is None:
            raise AttributeError(f"this {type(self).__name__} has no authenticator: call create_authenticator() first")
        return exchange

    def handle_token(self) -> tuple[bool | None, bool | None]:
        """One step towards a token that the peer has accepted, or of renewing it; never waits for the peer. Gives
        whether time ran out, and whether acceptance is still to come; (None, None) when another thread is making a
        step.

        Raises TokenAuthFailure (the peer refused the token: `status_code`, `description`), TokenExpired,
        AuthenticationException (the peer does not take tokens), and the error of connection or session."""
        return run(self._exchange().token_plan(), no_wait)

    def close_authenticator(self) -> None:
        """Detach the links to `$cbs` and end the session. Repeatable."""
        exchange, session = self._cbs_auth, self._session
        if exchange is not None:
            exchange.close()
        if session is not None:
            session.destroy()

    def _set_expiry(self, expires_at: float | None, expires_in: timedelta | None) -> tuple[float, timedelta]:
        """When (seconds since the epoch) and in how long the token expires, from one of the two; `expires_at` counts
        first. Raises ValueError when there is neither, or less than a second left."""
        now = time.time()
        if expires_at is not None:
            at = _time(expires_at)
        elif isinstance(expires_in, timedelta):
            at = now + expires_in.total_seconds()
        elif expires_in is None:
            raise ValueError("a token needs expires_at or expires_in")
        else:
            raise TypeError(f"expires_in must be a timedelta, not {type(expires_in).__name__}")
        if at < now + 1:
            raise ValueError("the token has expired, or does within a second")
        if expires_at is None and expires_in is not None:
            return at, expires_in
        return at, timedelta(seconds=min(at - now, _MOST))


def _time(given: Any) -> float:
    """When a token expires, as a number. Raises ValueError for what is none."""
    try:
        known = isinstance(given, (int, float)) and not isinstance(given, bool) and not math.isnan(given)
    except OverflowError:  # an int of more than 300 digits
        known = False
    if not known:
        raise ValueError(f"the time at which a token expires is not seconds since the epoch: {type(given).__name__}")
    seconds: float = given
    return seconds


class _TokenAuth(AMQPAuth, CBSAuthMixin):
    """What both kinds of tokens have in common."""

    audience: bytes
    token: bytes | None
    expires_at: float
    expires_in: timedelta

    def _set_up(
        self,
        audience: str | bytes,
        uri: str | bytes,
        token_type: str | bytes,
        timeout: float | None,
        retry_policy: TokenRetryPolicy | None,
        encoding: str,
        transport: dict[str, Any],
        refresh_window: float,
        custom_endpoint_hostname: str | bytes | None,
        strange: Mapping[str, object],
    ) -> None:
        """All but the token. `strange`: arguments that no constructor has; `loop=None` is what asyncio programs of old pass
        to everything."""
        strange = {name: value for name, value in strange.items() if name != "loop" or value is not None}
        if strange:
            raise ValueError(unknown(type(self).__name__, strange, keywords_of(type(self))))
        self.uri: str = uri.decode(encoding) if isinstance(uri, bytes) else uri
        hostname = urlparse(self.uri).hostname
        if not hostname:
            raise ValueError("the uri names no host")
        AMQPAuth.__init__(self, hostname, encoding=encoding, **transport)
        if custom_endpoint_hostname:
            self.set_io(
                custom_endpoint_hostname, transport["port"], transport["http_proxy"], transport["transport_type"]
            )
        self.audience = _as_bytes(audience, encoding)
        self.token_type: bytes = _as_bytes(token_type, encoding)
        self.timeout = timeout
        self.retries = 0
        self._retry_policy = retry_policy or _POLICY
        self._refresh_window = refresh_window or 0
        self._prev_token: bytes | None = None

    def _renewed(self, token: bytes, expires_at: float) -> None:
        self._prev_token = self.token
        self.token, self.expires_at = token, expires_at


class SASTokenAuth(_TokenAuth):
    """A shared access signature, or any token that is known beforehand.

    Args:
        audience: what the token is for, usually the same as `uri`.
        uri: of the peer, str; where to connect to, and the scope of signatures that are made.
        token: str or bytes.
        expires_in (timedelta), expires_at (seconds since the epoch): one of them says when the token expires.
        username, password: key name and key; new signatures are made with them before the token expires. Without them a
            client ends with TokenExpired then.
        port, verify, http_proxy, transport_type, encoding, use_tls, ssl_context: see `AMQPAuth`.
        timeout: seconds for the peer to answer; 0 or None: no limit.
        retry_policy: a `TokenRetryPolicy`.
        token_type: of the put-token request.
        refresh_window: seconds before the expiry at which the token is renewed; 0: a tenth of its life.
        custom_endpoint_hostname: host to connect to instead of the one of `uri`.

    Raises ValueError for a token that expires within a second.
    """

    def __init__(
        self,
        audience: str | bytes,
        uri: str,
        token: str | bytes,
        expires_in: timedelta | None = None,
        expires_at: float | None = None,
        username: str | None = None,
        password: str | None = None,
        port: int | None = None,
        timeout: float | None = 10,
        retry_policy: TokenRetryPolicy = _POLICY,
        verify: str | None = None,
        token_type: str | bytes = b"servicebus.windows.net:sastoken",
        http_proxy: dict[str, Any] | None = None,
        transport_type: TransportType = TransportType.Amqp,
        encoding: str = "UTF-8",
        *,
        use_tls: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        refresh_window: float = 0,
        custom_endpoint_hostname: str | bytes | None = None,
        **kwargs: Unpack[Nothing],
    ) -> None:
        transport = {
            "port": port,
            "verify": verify,
            "http_proxy": http_proxy,
            "transport_type": transport_type,
            "use_tls": use_tls,
            "ssl_context": ssl_context,
        }
        self._set_up(
            audience,
            uri,
            token_type,
            timeout,
            retry_policy,
            encoding,
            transport,
            refresh_window,
            custom_endpoint_hostname,
            kwargs,
        )
        self.username = username
        self.password = password
        at, within = self._set_expiry(expires_at, expires_in)
        self.expires_at: float = at
        self.expires_in: timedelta = within
        self.token: bytes | None = _as_bytes(token, encoding)

    def update_token(self) -> Any:
        """Make a new signature that is good for `expires_in`. Raises TokenExpired without `username` and `password`."""
        if not self.username or not self.password:
            return CBSAuthMixin.update_token(self)
        token, expires_at = _sign(self.uri, self.username, self.password, self.expires_in)
        self._renewed(token, expires_at)
        return None

    @classmethod
    def from_shared_access_key(
        cls: type[_S],
        uri: str,
        key_name: str,
        shared_access_key: str,
        expiry: float | None = None,
        port: int | None = None,
        timeout: float | None = 10,
        retry_policy: TokenRetryPolicy = _POLICY,
        verify: str | None = None,
        http_proxy: dict[str, Any] | None = None,
        transport_type: TransportType = TransportType.Amqp,
        encoding: str = "UTF-8",
        *,
        use_tls: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        refresh_window: float = 0,
        custom_endpoint_hostname: str | bytes | None = None,
        **kwargs: Unpack[Nothing],
    ) -> _S:
        """Signatures made with a shared access key. `expiry`: seconds that each is good for, an hour if not given.
        Other arguments as for the class; `uri` is the audience, too."""
        expires_in = timedelta(seconds=3600 if expiry is None else expiry)
        token, expires_at = _sign(uri, key_name, shared_access_key, expires_in)
        made = cls(
            uri,
            uri,
            token,
            expires_at=expires_at,
            username=key_name,
            password=shared_access_key,
            port=port,
            timeout=timeout,
            retry_policy=retry_policy,
            verify=verify,
            http_proxy=http_proxy,
            transport_type=transport_type,
            encoding=encoding,
            use_tls=use_tls,
            ssl_context=ssl_context,
            refresh_window=refresh_window,
            custom_endpoint_hostname=custom_endpoint_hostname,
            **kwargs,
        )
        made.expires_in = expires_in
        return made


def _sign(uri: str, key_name: str, key: str, expires_in: timedelta) -> tuple[bytes, float]:
    """A shared access signature, and when it expires."""
    expires_at = time.time() + expires_in.total_seconds()
    name, scope = quote_plus(key_name).encode(), quote_plus(uri).encode()
    return utils._sas_token(name, _as_bytes(key, "UTF-8"), scope, int(expires_at)), expires_at


class JWTTokenAuth(_TokenAuth):
    """Tokens that a function gives, such as those of an OAuth provider.

    Args:
        audience: what the token is for.
        uri: of the peer, str; where to connect to.
        get_token: gives an object with `token` (str or bytes) and `expires_on` (seconds since the epoch). It is called
            when a client opens and each time the token is to be renewed, in the thread of a client's call or of
            `keep_alive_interval`. What it raises then is logged by its type and it is called again, at most once a second, until
            the token expires.
        expires_in, expires_at: of the token that nobody has asked for yet; `expires_on` takes their place.
        token_type: of the put-token request.

    Other arguments as for `SASTokenAuth`. Raises ValueError when `get_token` cannot be called.
    """

    def __init__(
        self,
        audience: str | bytes,
        uri: str,
        get_token: Callable[[], Any],
        expires_in: timedelta | None = timedelta(seconds=3600),
        expires_at: float | None = None,
        port: int | None = None,
        timeout: float | None = 10,
        retry_policy: TokenRetryPolicy = _POLICY,
        verify: str | None = None,
        token_type: str | bytes = b"jwt",
        http_proxy: dict[str, Any] | None = None,
        transport_type: TransportType = TransportType.Amqp,
        encoding: str = "UTF-8",
        *,
        use_tls: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        refresh_window: float = 0,
        custom_endpoint_hostname: str | bytes | None = None,
        **kwargs: Unpack[Nothing],
    ) -> None:
        self._check_get_token(get_token)
        transport = {
            "port": port,
            "verify": verify,
            "http_proxy": http_proxy,
            "transport_type": transport_type,
            "use_tls": use_tls,
            "ssl_context": ssl_context,
        }
        self._set_up(
            audience,
            uri,
            token_type,
            timeout,
            retry_policy,
            encoding,
            transport,
            refresh_window,
            custom_endpoint_hostname,
            kwargs,
        )
        self.get_token = get_token
        at, within = self._set_expiry(expires_at, expires_in)
        self.expires_at: float = at
        self.expires_in: timedelta = within
        self.token: bytes | None = None

    def create_authenticator(self, connection: Connection, debug: bool = False, **kwargs: Unpack[Options]) -> Session:
        """As that of `CBSAuthMixin`; asks for the first token."""
        return super().create_authenticator(connection, debug, **kwargs)

    def _check_get_token(self, get_token: Any) -> None:
        if not callable(get_token):
            raise ValueError(f"get_token must be a function, not {type(get_token).__name__}")

    def _first_token_plan(self) -> Plan[None]:
        refuse_coroutine((yield Call(openly, (self.update_token,))), for_asyncio(self))

    def update_token(self) -> Any:
        """Ask `get_token`. Raises what it raises, and ValueError when that was no token."""
        got = self.get_token()
        refuse_coroutine(got, "get_token is a coroutine function: JWTTokenAsync is for those")
        self._take(got)

    def _take(self, got: Any) -> None:
        token = getattr(got, "token", None)
        if not token or not isinstance(token, (str, bytes)) or not hasattr(got, "expires_on"):
            kind = type(got).__name__
            raise ValueError(f"get_token gave a {kind}: no object with token (str or bytes) and expires_on (int)")
        self._renewed(_as_bytes(token, self._encoding), _time(got.expires_on))
