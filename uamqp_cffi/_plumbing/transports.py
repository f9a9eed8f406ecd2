"""The transports of `c_uamqp`: what to connect to, through what, and how to say who we are. A stack of them, as XIO, is what a
native connection is made with."""

from __future__ import annotations

import operator
import ssl
from typing import Any, TypeVar

from .._native.sections import _bytes
from .._native.values import StructBase
from .._public import show_as
from ..authentication.common import AMQPAuth, Mechanism
from ..constants import TransportType

__all__ = [
    "XIO",
    "HTTPProxyConfig",
    "IOInterfaceDescription",
    "SASLClientIOConfig",
    "SASLMechanism",
    "SASLMechanismInterfaceDescription",
    "SASLPlainConfig",
    "TLSIOConfig",
    "WSIOConfig",
    "get_default_tlsio",
    "get_info",
    "get_plain_sasl_mechanism",
    "get_sasl_mechanism",
    "platform_deinit",
    "platform_init",
    "saslanonymous_get_interface",
    "saslplain_get_interface",
    "set_python_logger",
    "xio_from_saslioconfig",
    "xio_from_tlsioconfig",
    "xio_from_wsioconfig",
]  # fmt: skip

_T = TypeVar("_T")


def _bytes_setting(name: str, default: bytes | None = None) -> Any:
    def get(self: Any) -> bytes | None:
        value: bytes | None = self.__dict__.get(name, default)
        return value

    def put(self: Any, value: bytes) -> None:
        self.__dict__[name] = _bytes(name, value)

    return property(get, put, doc="bytes")


def _port_setting(name: str, default: int) -> Any:
    def get(self: Any) -> int:
        value: int = self.__dict__.get(name, default)
        return value

    def put(self: Any, value: int) -> None:
        number = operator.index(value)
        if not 0 <= number <= 0xFFFF:
            raise OverflowError(f"{name} {number} is out of range: 0 to 65535")
        self.__dict__[name] = number

    return property(get, put, doc="int")


def _instance(cls: type[_T], name: str, value: object) -> _T:
    if not isinstance(value, cls):
        raise TypeError(f"{name} must be {cls.__name__}, not {type(value).__name__}")
    return value


# ---- settings -------------------------------------------------------------------------------------------------------


class HTTPProxyConfig:
    """A proxy, and what to connect to through it. Its text shows no password."""

    hostname: bytes | None = _bytes_setting("hostname")
    port: int = _port_setting("port", 0)
    proxy_hostname: bytes | None = _bytes_setting("proxy_hostname")
    proxy_port: int = _port_setting("proxy_port", 0)
    username: bytes | None = _bytes_setting("username")
    password: bytes | None = _bytes_setting("password")

    def _as_dict(self) -> dict[str, Any]:
        if not self.proxy_hostname or not self.proxy_port:
            raise ValueError("a proxy needs proxy_hostname and proxy_port")
        given: dict[str, Any] = {"proxy_hostname": self.proxy_hostname.decode(), "proxy_port": self.proxy_port}
        if self.username is not None:
            given |= {"username": self.username.decode(), "password": (self.password or b"").decode()}
        return given


class TLSIOConfig:
    """TLS to a host, directly or through a proxy."""

    hostname: bytes | None = _bytes_setting("hostname")
    port: int = _port_setting("port", 5671)

    def __init__(self) -> None:
        self._proxy: HTTPProxyConfig | None = None

    def set_proxy_config(self, underlying_io_parameters: HTTPProxyConfig) -> None:
        """Go through this proxy."""
        self._proxy = _instance(HTTPProxyConfig, "underlying_io_parameters", underlying_io_parameters)


class WSIOConfig:
    """A WebSocket to a host, over TLS. `set_tlsio_config` says how TLS gets there."""

    hostname: bytes | None = _bytes_setting("hostname")
    port: int = _port_setting("port", 443)
    protocol: bytes | None = _bytes_setting("protocol", b"AMQPWSB10")
    resource_name: bytes | None = _bytes_setting("resource_name", b"/$servicebus/websocket/")

    def __init__(self) -> None:
        self._tls: TLSIOConfig | None = None

    def set_tlsio_config(
        self, underlying_io_interface: IOInterfaceDescription, underlying_io_parameters: TLSIOConfig
    ) -> None:
        """The TLS underneath."""
        _instance(IOInterfaceDescription, "underlying_io_interface", underlying_io_interface)
        self._tls = _instance(TLSIOConfig, "underlying_io_parameters", underlying_io_parameters)


class SASLPlainConfig:
    """User name (`authcid`), password and, seldom, whom to act for (`authzid`), as bytes."""

    authcid: bytes | None = _bytes_setting("authcid")
    passwd: bytes | None = _bytes_setting("passwd")
    authzid: bytes | None = _bytes_setting("authzid")


# ---- mechanisms -----------------------------------------------------------------------------------------------------


class IOInterfaceDescription:
    """Stands for a kind of transport; there is one, TLS."""


class SASLMechanismInterfaceDescription:
    """Stands for a kind of SASL mechanism."""

    def __init__(self) -> None:
        self._name = "MSSBCBS"


class SASLMechanism(StructBase):
    """A SASL mechanism, with what it says first."""

    __slots__ = ("_mechanism",)

    def __init__(self) -> None:
        self._mechanism = Mechanism("MSSBCBS")

    def destroy(self) -> None:
        """Forgets the credentials."""
        self._mechanism = Mechanism(self._mechanism.name)


def get_default_tlsio() -> IOInterfaceDescription:
    return IOInterfaceDescription()


def saslanonymous_get_interface() -> SASLMechanismInterfaceDescription:
    made = SASLMechanismInterfaceDescription()
    made._name = "ANONYMOUS"
    return made


def saslplain_get_interface() -> SASLMechanismInterfaceDescription:
    made = SASLMechanismInterfaceDescription()
    made._name = "PLAIN"
    return made


def get_sasl_mechanism(interface: SASLMechanismInterfaceDescription | None = None) -> SASLMechanism:
    """The mechanism of that kind that has no parameters; without one MSSBCBS, for tokens."""
    made = SASLMechanism()
    if interface is not None:
        name = _instance(SASLMechanismInterfaceDescription, "interface", interface)._name
        if name == "PLAIN":
            raise ValueError("PLAIN has parameters: get_plain_sasl_mechanism takes them")
        made._mechanism = Mechanism(name)
    return made


def get_plain_sasl_mechanism(
    interface: SASLMechanismInterfaceDescription, parameters: SASLPlainConfig
) -> SASLMechanism:
    """PLAIN with user name and password. Raises ValueError without them, or when they hold NUL."""
    _instance(SASLMechanismInterfaceDescription, "interface", interface)
    _instance(SASLPlainConfig, "parameters", parameters)
    name, password = parameters.authcid, parameters.passwd
    if name is None or password is None:
        raise ValueError("SASL PLAIN needs authcid and passwd")
    given = (parameters.authzid or b"", name, password)
    if any(b"\0" in part for part in given):
        raise ValueError("SASL PLAIN has no room for NUL in user name or password")
    made = SASLMechanism()
    made._mechanism = Mechanism("PLAIN", b"\0".join(given))
    return made


# ---- stacks ---------------------------------------------------------------------------------------------------------


class SASLClientIOConfig:
    """SASL with this mechanism over that transport."""

    def __init__(self, underlying_io: XIO, sasl_mechanism: SASLMechanism) -> None:
        self._underlying = _instance(XIO, "underlying_io", underlying_io)
        self._mechanism = _instance(SASLMechanism, "sasl_mechanism", sasl_mechanism)


class XIO(StructBase):
    """A transport that is set up, and not connected."""

    __slots__ = ("_certificates", "_config")

    def __init__(self) -> None:
        self._config: TLSIOConfig | WSIOConfig | SASLClientIOConfig | None = None
        self._certificates: str | None = None

    @classmethod
    def _of(cls, config: TLSIOConfig | WSIOConfig | SASLClientIOConfig) -> XIO:
        made = cls()
        made._config = config
        return made

    def set_certificates(self, value: bytes) -> None:
        """Trust these certificates (PEM) instead of certifi's. Raises ValueError when they are none."""
        text = _bytes("certificates", value).decode("ascii", "replace")
        try:
            ssl.create_default_context(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"no certificates in PEM form: {error}") from error
        self._certificates = text

    def set_option(self, option_name: bytes, value: Any) -> None:
        """`b"TrustedCerts"` is `set_certificates`. Raises ValueError for an option that does not exist."""
        name = _bytes("an option's name", option_name)
        if name != b"TrustedCerts":
            raise ValueError(f"there is no option {name!r}")
        self.set_certificates(value)

    def destroy(self) -> None:
        """Forgets what it was made with."""
        self._config = self._certificates = None

    def _auth(self) -> AMQPAuth:
        """The same as an auth object, for one connection. Raises ValueError when something is missing."""
        config = self._config
        if isinstance(config, SASLClientIOConfig):
            auth = config._underlying._auth()
            auth.sasl = auth.sasl_client = config._mechanism._mechanism
            return auth
        if config is None or not config.hostname:
            raise ValueError("a transport needs a hostname")
        context = None if self._certificates is None else ssl.create_default_context(cadata=self._certificates)
        auth = AMQPAuth(config.hostname, port=config.port, use_tls=True, ssl_context=context)
        tls = config if isinstance(config, TLSIOConfig) else config._tls
        proxy = None if tls is None or tls._proxy is None else tls._proxy._as_dict()
        websocket = isinstance(config, WSIOConfig)
        kind = TransportType.AmqpOverWebsocket if websocket else TransportType.Amqp
        auth._set(config.hostname, config.port, proxy, kind)
        auth.sasl = auth.sasl_client = None
        return auth


def xio_from_tlsioconfig(io_desc: IOInterfaceDescription, io_config: TLSIOConfig) -> XIO:
    _instance(IOInterfaceDescription, "io_desc", io_desc)
    return XIO._of(_instance(TLSIOConfig, "io_config", io_config))


def xio_from_wsioconfig(io_config: WSIOConfig) -> XIO:
    return XIO._of(_instance(WSIOConfig, "io_config", io_config))


def xio_from_saslioconfig(io_config: SASLClientIOConfig) -> XIO:
    return XIO._of(_instance(SASLClientIOConfig, "io_config", io_config))


# ---- the platform ---------------------------------------------------------------------------------------------------


def platform_init() -> None:
    """Nothing has to be set up here; for code that does so."""


def platform_deinit() -> None:
    """Nothing has to be given back here; for code that does so."""


def set_python_logger() -> None:
    """Log records go to the logger `uamqp.c_uamqp` in any case; for code that asks for it."""


def get_info() -> str:
    """What this runs on."""
    from .. import get_platform_info

    return get_platform_info()


show_as("c_uamqp", *map(globals().get, __all__))
