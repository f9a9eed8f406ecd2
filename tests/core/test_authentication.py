"""Auth objects: what they say, where they lead, what they hide."""

from __future__ import annotations

import socket
import ssl

import pytest
import trustme

from uamqp_cffi.authentication import AMQPAuth, SASLAnonymous, SASLExternal, SASLPlain
from uamqp_cffi.constants import TransportType

LOOPBACK = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))
REMOTE = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0))


@pytest.fixture
def ca_file(tmp_path):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def test_names_are_bytes_and_nothing_is_consumed_yet():
    auth = SASLPlain("Host", "u", b"p")
    assert (auth.hostname, auth.username, auth.password) == (b"Host", b"u", b"p")
    assert auth.consumed is False
    assert auth.cert_file is None


@pytest.mark.parametrize(
    ("auth", "name", "response"),
    [
        (AMQPAuth("h"), "MSSBCBS", None),
        (SASLAnonymous("h"), "ANONYMOUS", None),
        (SASLPlain("h", "üser", "pass"), "PLAIN", "\0üser\0pass".encode()),
        (SASLExternal("h", ssl_context=ssl.create_default_context()), "EXTERNAL", b""),
    ],
)
def test_mechanisms(auth, name, response):
    assert (auth.sasl.name, auth.sasl.response) == (name, response)


def test_no_text_shows_a_password():
    auth = SASLPlain("h", "user", "sesame")
    assert "sesame" not in repr(auth) + str(auth) + repr(auth.sasl) + str(auth.sasl)


def test_plain_has_no_room_for_nul():
    with pytest.raises(ValueError, match="NUL"):
        SASLPlain("h", "user", "pass\0word")


def test_a_missing_file_of_certificates_is_told_at_once():
    with pytest.raises(FileNotFoundError):
        SASLAnonymous("h", verify="/nowhere/ca.pem")
    with pytest.raises(FileNotFoundError):
        SASLExternal("h", cert_file="/nowhere/cert.pem")
    with pytest.raises(ValueError, match="cert_file"):
        SASLExternal("h")


@pytest.mark.parametrize(
    ("own", "client", "url_says_plain", "addresses", "tls"),
    [
        (None, None, False, [LOOPBACK], True),  # TLS is the default
        (None, None, True, [LOOPBACK], False),
        (None, None, True, [LOOPBACK, REMOTE], True),  # every address must be loopback
        (None, None, True, [REMOTE], True),
        (None, None, True, [], True),
        (None, True, True, [LOOPBACK], True),  # the client's word beats the URL's
        (None, False, False, [REMOTE], False),
        (True, False, True, [LOOPBACK], True),  # the auth object's beats both
        (False, True, False, [REMOTE], False),
    ],
)
def test_who_decides_about_tls(own, client, url_says_plain, addresses, tls):
    auth = SASLAnonymous("h", use_tls=own)
    auth._plain_on_loopback = url_says_plain
    assert auth._endpoint(client, addresses) == (tls, 5671 if tls else 5672)


def test_a_given_port_is_the_port():
    assert SASLAnonymous("h", port=1234)._endpoint(None, [REMOTE]) == (True, 1234)


def test_the_default_context_verifies_chain_and_name_and_is_made_once(ca_file):
    context = SASLAnonymous("h")._context(None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert SASLAnonymous("other")._context(None) is context
    own = SASLAnonymous("h", verify=ca_file)._context(None)
    assert own is not context
    assert own.verify_mode is ssl.CERT_REQUIRED
    assert len(own.get_ca_certs()) == 1  # instead of certifi's


def test_a_given_context_is_used_as_it_is():
    mine, clients = ssl.create_default_context(), ssl.create_default_context()
    assert SASLAnonymous("h", ssl_context=mine)._context(clients) is mine
    assert SASLAnonymous("h")._context(clients) is clients


@pytest.mark.parametrize(
    "auth",
    [
        SASLAnonymous("h", http_proxy={"proxy_hostname": "p", "proxy_port": 1}),
        SASLAnonymous("h", transport_type=TransportType.AmqpOverWebsocket),
    ],
)
def test_transports_to_come_are_refused_when_used(auth):
    with pytest.raises(ValueError, match="not available yet"):
        auth._check_available()


def test_the_proxys_dict_is_copied():
    given = {"proxy_hostname": "p", "proxy_port": 1}
    auth = SASLAnonymous("h", http_proxy=given)
    assert auth._http_proxy == given
    assert auth._http_proxy is not given
