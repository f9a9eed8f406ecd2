"""Transports of `c_uamqp`: settings, mechanisms, and the auth object that a stack of them stands for."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trustme

from uamqp_cffi import c_uamqp
from uamqp_cffi.constants import TransportType


def tls(**settings: Any) -> c_uamqp.TLSIOConfig:
    made = c_uamqp.TLSIOConfig()
    made.hostname = b"host"
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def tls_io(**settings: Any) -> c_uamqp.XIO:
    return c_uamqp.xio_from_tlsioconfig(c_uamqp.get_default_tlsio(), tls(**settings))


def sasl_io(mechanism: c_uamqp.SASLMechanism) -> c_uamqp.XIO:
    return c_uamqp.xio_from_saslioconfig(c_uamqp.SASLClientIOConfig(tls_io(), mechanism))


def proxy(**settings: Any) -> c_uamqp.HTTPProxyConfig:
    made = c_uamqp.HTTPProxyConfig()
    made.proxy_hostname, made.proxy_port = b"proxy", 3128
    for name, value in settings.items():
        setattr(made, name, value)
    return made


# ---- settings -------------------------------------------------------------------------------------------------------


def test_settings_have_the_defaults_of_uamqp() -> None:
    websocket = c_uamqp.WSIOConfig()
    assert (c_uamqp.TLSIOConfig().port, c_uamqp.HTTPProxyConfig().proxy_port) == (5671, 0)
    assert (websocket.port, websocket.protocol, websocket.resource_name) == (
        443, b"AMQPWSB10", b"/$servicebus/websocket/"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (c_uamqp.TLSIOConfig, ["hostname"]),
        (c_uamqp.WSIOConfig, ["hostname", "protocol", "resource_name"]),
        (c_uamqp.HTTPProxyConfig, ["hostname", "proxy_hostname", "username", "password"]),
        (c_uamqp.SASLPlainConfig, ["authcid", "passwd", "authzid"]),
    ],
)
def test_texts_are_bytes(cls: type[Any], names: list[str]) -> None:
    made = cls()
    for name in names:
        setattr(made, name, b"x")
        assert getattr(made, name) == b"x"
        with pytest.raises(TypeError, match=name):
            setattr(made, name, "x")


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (c_uamqp.TLSIOConfig, "port"),
        (c_uamqp.WSIOConfig, "port"),
        (c_uamqp.HTTPProxyConfig, "port"),
        (c_uamqp.HTTPProxyConfig, "proxy_port"),
    ],
)
def test_ports_have_16_bits(cls: type[Any], name: str) -> None:
    made = cls()
    setattr(made, name, 65535)
    assert getattr(made, name) == 65535
    for wrong, error in ((-1, OverflowError), (65536, OverflowError), ("x", TypeError)):
        with pytest.raises(error):
            setattr(made, name, wrong)


# ---- mechanisms -----------------------------------------------------------------------------------------------------


def plain(**parts: bytes) -> c_uamqp.SASLMechanism:
    config = c_uamqp.SASLPlainConfig()
    for name, value in parts.items():
        setattr(config, name, value)
    return c_uamqp.get_plain_sasl_mechanism(c_uamqp.saslplain_get_interface(), config)


@pytest.mark.parametrize(
    ("mechanism", "name", "response"),
    [
        (c_uamqp.get_sasl_mechanism(), "MSSBCBS", None),
        (c_uamqp.get_sasl_mechanism(c_uamqp.saslanonymous_get_interface()), "ANONYMOUS", None),
        (plain(authcid=b"ann", passwd=b"pw"), "PLAIN", b"\0ann\0pw"),
        (plain(authcid=b"ann", passwd=b"pw", authzid=b"bob"), "PLAIN", b"bob\0ann\0pw"),
    ],
)
def test_a_mechanism_says_what_it_is(mechanism: c_uamqp.SASLMechanism, name: str, response: bytes | None) -> None:
    sasl = sasl_io(mechanism)._auth().sasl
    assert sasl is not None
    assert (sasl.name, sasl.response) == (name, response)


@pytest.mark.parametrize("parts", [{}, {"authcid": b"ann"}, {"authcid": b"a\0b", "passwd": b"pw"}])
def test_plain_needs_name_and_password_without_nul(parts: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="SASL PLAIN"):
        plain(**parts)


def test_plain_is_not_made_without_parameters() -> None:
    with pytest.raises(ValueError, match="get_plain_sasl_mechanism"):
        c_uamqp.get_sasl_mechanism(c_uamqp.saslplain_get_interface())


def test_a_destroyed_mechanism_has_no_credentials() -> None:
    mechanism = plain(authcid=b"ann", passwd=b"pw")
    mechanism.destroy()
    assert mechanism._mechanism.response is None


# ---- stacks ---------------------------------------------------------------------------------------------------------


def test_a_stack_over_tls_goes_to_its_host_without_sasl() -> None:
    auth = tls_io(port=5000)._auth()
    assert (auth._connect_to, auth._port, auth.use_tls, auth.sasl) == ("host", 5000, True, None)


def test_a_stack_over_websocket_goes_through_its_proxy() -> None:
    config, below = c_uamqp.WSIOConfig(), tls()
    config.hostname = b"host"
    below.set_proxy_config(proxy(username=b"ann", password=b"pw"))
    config.set_tlsio_config(c_uamqp.get_default_tlsio(), below)
    auth = c_uamqp.xio_from_wsioconfig(config)._auth()
    assert (auth._transport_type, auth._port) == (TransportType.AmqpOverWebsocket, 443)
    assert auth._http_proxy == {
        "proxy_hostname": "proxy", "proxy_port": 3128, "username": "ann", "password": "pw"
    }  # fmt: skip


def test_a_proxy_needs_host_and_port() -> None:
    below = tls()
    below.set_proxy_config(c_uamqp.HTTPProxyConfig())
    with pytest.raises(ValueError, match="proxy_hostname"):
        c_uamqp.xio_from_tlsioconfig(c_uamqp.get_default_tlsio(), below)._auth()


def test_certificates_replace_those_of_certifi() -> None:
    authority = trustme.CA()
    xio = tls_io()
    xio.set_certificates(authority.cert_pem.bytes())
    context = xio._auth().ssl_context
    assert context is not None
    assert [cert["subject"] for cert in context.get_ca_certs()] == [
        cert["subject"] for cert in trusting(authority).get_ca_certs()
    ]
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def test_certificates_are_an_option_too() -> None:
    xio = tls_io()
    xio.set_option(b"TrustedCerts", trustme.CA().cert_pem.bytes())
    assert xio._auth().ssl_context is not None


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda xio: xio.set_certificates(b"no certificate"), ValueError),
        (lambda xio: xio.set_certificates("text"), TypeError),
        (lambda xio: xio.set_option(b"no such option", 1), ValueError),
        (lambda xio: xio.set_option("text", 1), TypeError),
    ],
)
def test_what_is_no_option_or_certificate_is_refused(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call(tls_io())


def test_a_destroyed_stack_goes_nowhere() -> None:
    xio = tls_io()
    xio.destroy()
    with pytest.raises(ValueError, match="hostname"):
        xio._auth()


@pytest.mark.parametrize(
    "call",
    [
        lambda: c_uamqp.xio_from_tlsioconfig(None, tls()),
        lambda: c_uamqp.xio_from_tlsioconfig(c_uamqp.get_default_tlsio(), None),
        lambda: c_uamqp.xio_from_wsioconfig(tls()),
        lambda: c_uamqp.xio_from_saslioconfig(tls()),
        lambda: c_uamqp.SASLClientIOConfig(tls(), c_uamqp.get_sasl_mechanism()),
        lambda: c_uamqp.SASLClientIOConfig(tls_io(), None),
        lambda: c_uamqp.get_sasl_mechanism("ANONYMOUS"),
        lambda: tls().set_proxy_config({}),
    ],
)
def test_stacks_are_made_of_their_parts(call: Any) -> None:
    with pytest.raises(TypeError):
        call()


# ---- the platform ---------------------------------------------------------------------------------------------------


def test_the_platform_needs_no_setting_up() -> None:
    c_uamqp.platform_init()
    c_uamqp.set_python_logger()
    assert c_uamqp.get_info().startswith("uamqp_cffi/")
    c_uamqp.platform_deinit()


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = c_uamqp.nothing


def test_names_that_load_later_are_listed() -> None:
    assert {"cMessage", "XIO", "int_value", "AMQPS_PORT"} <= set(dir(c_uamqp))
