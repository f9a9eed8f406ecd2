"""Who we say we are (SASL) and how the peer is reached (host, port, TLS)."""

from __future__ import annotations

import contextlib
import functools
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .._arguments import is_context
from .._core.transport.dial import Address, is_loopback
from .._core.transport.filters.base import TransportError
from ..constants import DEFAULT_AMQP_PORT, DEFAULT_AMQP_WSS_PORT, DEFAULT_AMQPS_PORT, TransportType

_HOST = re.compile(r"[^\s/@?#\\]+").fullmatch


class Mechanism(NamedTuple):
    """A SASL mechanism and its initial response, None when it has none. Its text never shows the response."""

    name: str
    response: bytes | None = None

    def __repr__(self) -> str:
        return f"Mechanism({self.name!r}, response={'...' if self.response else self.response!r})"


@functools.cache
def _certifi_context() -> ssl.SSLContext:
    """The context for those who gave no CA file; made once, as reading the bundle takes milliseconds."""
    return _trusting(None)


def _trusting(path: str | None) -> ssl.SSLContext:
    """A context of its own that trusts the certificates in this file, or certifi's."""
    if path is None:
        import certifi  # only for TLS

        path = certifi.where()
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # SSLError is one
        raise TransportError(f"verify: there are no certificates to be had from {path!r}: {error}") from error


def _as_bytes(value: str | bytes, encoding: str) -> bytes:
    """Raises ValueError without the text, which may be a password; a UnicodeEncodeError holds all of it."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(UnicodeEncodeError):
        return value.encode(encoding)
    raise ValueError(f"a text of the auth object has a character that {encoding} cannot encode")


def _port(given: int | None) -> int | None:
    """Raises ValueError for what cannot be a port."""
    if given is not None and (not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= 65535):
        raise ValueError(f"port must be an int from 0 to 65535, not {given!r}")
    return given


class Proxy(NamedTuple):
    """An HTTP proxy; `username` None: no credentials. Its text never shows the password."""

    host: str
    port: int
    username: bytes | None = None
    password: bytes = b""

    @property
    def credentials(self) -> tuple[bytes | None, bytes]:
        return self.username, self.password

    def __repr__(self) -> str:
        return f"Proxy({self.host!r}, {self.port}, username={self.username!r})"


def _proxy(given: dict[str, Any], encoding: str) -> Proxy:
    """What uamqp's `http_proxy` says. Raises ValueError that names the key that is missing or wrong."""
    if not isinstance(given, Mapping):
        raise ValueError(f"http_proxy must be a dict, not {type(given).__name__}")
    for key in ("proxy_hostname", "proxy_port"):
        if given.get(key) is None:
            raise ValueError(f"http_proxy has no {key!r}")
    host, port = given["proxy_hostname"], given["proxy_port"]
    if isinstance(host, bytes):
        host = host.decode(encoding, "replace")
    if not isinstance(host, str) or not host or not _HOST(host):
        raise ValueError("http_proxy: 'proxy_hostname' must be a host name or address, without scheme and port")
    if isinstance(port, bool) or not isinstance(port, (int, str)) or not str(port).isdecimal():
        raise ValueError("http_proxy: 'proxy_port' must be a number")
    if not 0 < int(port) < 65536:
        raise ValueError(f"http_proxy: 'proxy_port' must be between 1 and 65535, not {port}")
    for key in ("username", "password"):
        if not isinstance(given.get(key), (str, bytes, type(None))):
            raise ValueError(f"http_proxy: {key!r} must be a str")
    username, password = given.get("username"), given.get("password")
    if username is None and password is not None:
        raise ValueError("http_proxy has a 'password' but no 'username'")
    user = None if not username else _as_bytes(username, encoding)
    if user is not None and b":" in user:
        raise ValueError("http_proxy: 'username' must not have a colon in it (RFC 7617)")
    return Proxy(host.strip("[]"), int(port), user, _as_bytes(password or b"", encoding))


class AMQPAuth:
    """Base of the ways to authenticate. One object serves one connection.

    hostname: of the peer, str or bytes; also the name that its certificate must have.
    port: 5671 with TLS, 5672 without, 443 for WebSocket, unless given.
    verify: path of a PEM file with the certificates to trust instead of certifi's; FileNotFoundError if there is none.
    transport_type: `TransportType.AmqpOverWebsocket` for AMQP inside of a WebSocket (443 is then the port by default).
    http_proxy: dict with the HTTP proxy to go through: `proxy_hostname`, `proxy_port` and, if it wants them, `username` and
        `password`, sent as they are (Basic) and to the proxy only. Implies WebSocket, as in uamqp. It is copied. ValueError
        that names the key which is missing or wrong.
    use_tls: False asks for plain TCP, True for TLS whatever the URL says; None leaves it to the client and the URL.
    ssl_context: used as it is, instead of one that trusts `verify` or certifi and checks the host name.
    """

    _mechanism_name = "MSSBCBS"

    def __init__(
        self,
        hostname: str | bytes,
        port: int | None = None,
        verify: str | None = None,
        http_proxy: dict[str, Any] | None = None,
        transport_type: TransportType = TransportType.Amqp,
        encoding: str = "UTF-8",
        *,
        use_tls: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        is_context(ssl_context)
        self._encoding = encoding
        self.hostname: bytes = _as_bytes(hostname, encoding)
        self.cert_file = verify
        if verify is not None and not Path(verify).exists():
            raise FileNotFoundError(f"no file with trusted certificates at {verify!r}")
        self.use_tls = use_tls
        self.ssl_context = ssl_context
        self.sasl: Mechanism | None = self._mechanism()
        self.sasl_client: Mechanism | None = None
        self.consumed = False
        self._plain_on_loopback = False
        """The URL said amqp:// and nothing else was asked for: plain TCP when every address of the host is loopback."""
        self.set_io(hostname, port, http_proxy, transport_type)

    def _mechanism(self) -> Mechanism | None:
        return Mechanism(self._mechanism_name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hostname.decode(self._encoding, 'replace')!r}, port={self._port!r})"

    # where to

    def set_io(
        self,
        hostname: str | bytes,
        port: int | None,
        http_proxy: dict[str, Any] | None,
        transport_type: TransportType,
    ) -> None:
        """Choose the transport: WebSocket when asked for or behind a proxy, else TCP."""
        if http_proxy is not None or TransportType(transport_type) is TransportType.AmqpOverWebsocket:
            self.set_wsio(hostname, port, http_proxy)
        else:
            self.set_tlsio(hostname, port)

    def set_tlsio(self, hostname: str | bytes, port: int | None) -> None:
        """Connect to this host by TCP."""
        self._set(hostname, port, None, TransportType.Amqp)

    def set_wsio(self, hostname: str | bytes, port: int | None, http_proxy: dict[str, Any] | None) -> None:
        """Connect to this host by WebSocket, through a proxy if one is given."""
        self._set(hostname, port, http_proxy, TransportType.AmqpOverWebsocket)

    def _set(
        self, hostname: str | bytes, port: int | None, http_proxy: dict[str, Any] | None, transport_type: TransportType
    ) -> None:
        self._connect_to = _as_bytes(hostname, self._encoding).decode(self._encoding)
        self._port = _port(port)
        self._proxy = None if http_proxy is None else _proxy(http_proxy, self._encoding)
        self._http_proxy = None if http_proxy is None else dict(http_proxy)
        self._transport_type = transport_type
        self.sasl_client = self.sasl

    @property
    def _dial_to(self) -> str:
        """The host to open a TCP connection to: the proxy's if there is one, else the peer's."""
        return self._connect_to if self._proxy is None else self._proxy.host

    def _endpoint(self, use_tls: bool | None, addresses: list[Address]) -> tuple[bool, int]:
        """Whether the peer is to be spoken to by TLS, and its port, now that the addresses of `_dial_to` are known. Our own
        `use_tls` comes first, then the one given, then the URL; the URL's amqp:// counts only for TCP (no WebSocket, hence
        no proxy) and if no address leaves this host."""
        websocket = self._transport_type is TransportType.AmqpOverWebsocket
        wanted = self.use_tls if self.use_tls is not None else use_tls
        if wanted is None:
            here = bool(addresses) and all(map(is_loopback, addresses))
            wanted = not (self._plain_on_loopback and not websocket and here)
        default = DEFAULT_AMQP_WSS_PORT if websocket else DEFAULT_AMQPS_PORT if wanted else DEFAULT_AMQP_PORT
        return wanted, _port(self._port) or default  # a redirect may have set it

    def _context(self, given: ssl.SSLContext | None) -> ssl.SSLContext:
        """The TLS context: our own, the one given, else one that verifies chain and host name."""
        if self.ssl_context is not None:
            return self.ssl_context
        if given is not None:
            return given
        if self.cert_file is None:
            return _certifi_context()
        return _trusting(self.cert_file)

    def close(self) -> None:
        """Done with; what it had to hide is forgotten with the object."""


class SASLAnonymous(AMQPAuth):
    """No credentials (SASL ANONYMOUS). Arguments as for `AMQPAuth`."""

    _mechanism_name = "ANONYMOUS"


class SASLPlain(AMQPAuth):
    """User name and password (SASL PLAIN, RFC 4616), over TLS unless `use_tls=False` says otherwise. Further
    arguments as for `AMQPAuth`."""

    _mechanism_name = "PLAIN"

    def __init__(
        self,
        hostname: str | bytes,
        username: str | bytes,
        password: str | bytes,
        port: int | None = None,
        verify: str | None = None,
        http_proxy: dict[str, Any] | None = None,
        transport_type: TransportType = TransportType.Amqp,
        encoding: str = "UTF-8",
        *,
        use_tls: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.username: bytes = _as_bytes(username, encoding)
        self.password: bytes = _as_bytes(password, encoding)
        super().__init__(
            hostname,
            port=port,
            verify=verify,
            http_proxy=http_proxy,
            transport_type=transport_type,
            encoding=encoding,
            use_tls=use_tls,
            ssl_context=ssl_context,
        )

    def _mechanism(self) -> Mechanism:
        if b"\0" in self.username or b"\0" in self.password:
            raise ValueError("SASL PLAIN has no room for NUL in user name or password")
        return Mechanism("PLAIN", b"\0" + self.username + b"\0" + self.password)


class SASLExternal(AMQPAuth):
    """A client certificate (SASL EXTERNAL): the peer takes our name from TLS.

    cert_file, key_file: PEM files of our certificate (with its chain) and private key; the key may stand in cert_file.
    password: of the key. verify: as for `AMQPAuth`. `ssl_context` is used as it is, and then has the certificate in
    it."""

    _mechanism_name = "EXTERNAL"

    def __init__(
        self,
        hostname: str | bytes,
        port: int | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        password: str | bytes | None = None,
        verify: str | None = None,
        http_proxy: dict[str, Any] | None = None,
        transport_type: TransportType = TransportType.Amqp,
        encoding: str = "UTF-8",
        *,
        use_tls: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if cert_file is None and ssl_context is None:
            raise ValueError("SASL EXTERNAL needs cert_file, or an ssl_context with a certificate")
        for path in (cert_file, key_file):
            if path is not None and not Path(path).exists():
                raise FileNotFoundError(f"no certificate or key file at {path!r}")
        self._own = (cert_file, key_file, password)
        super().__init__(
            hostname,
            port=port,
            verify=verify,
            http_proxy=http_proxy,
            transport_type=transport_type,
            encoding=encoding,
            use_tls=use_tls,
            ssl_context=ssl_context,
        )

    def _mechanism(self) -> Mechanism:
        return Mechanism("EXTERNAL", b"")

    def _context(self, given: ssl.SSLContext | None) -> ssl.SSLContext:
        certificate, key, password = self._own
        if certificate is None:
            return super()._context(given)
        if self.ssl_context is not None or given is not None:
            context = super()._context(given)
        else:
            context = _trusting(self.cert_file)  # not the shared one, which must not get this certificate
        try:
            context.load_cert_chain(certificate, key, _no_password if password is None else password)
        except (OSError, ValueError) as error:
            what = f"the certificate in {certificate!r} cannot be used with its key: {error}"
            if password is not None:
                what += "; is it the password of the key?"
            raise TransportError(what) from error
        return context


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal, which would wait for somebody to answer."""
    raise ValueError("the key is encrypted, and no password was given")
