"""Auth objects: what they say, where they lead, what they hide."""

from __future__ import annotations

import enum
import socket
import ssl
from datetime import timedelta

import pytest
import trustme

from uamqp_cffi._core.transport.filters.base import TransportError
from uamqp_cffi.authentication import AMQPAuth, SASLAnonymous, SASLExternal, SASLPlain, SASTokenAuth
from uamqp_cffi.client import SendClient
from uamqp_cffi.constants import TransportType

LOOPBACK = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))
REMOTE = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0))


ENCRYPTED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjF3sub8l6H5QICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEELFGKDYqOIeLqniB8QhQszQEgZC3
K5F+azbz0Lafse42O2u/NW+fQ6wyJrcCAQpy9p7OBy0ywDuYs0cVU0cdzPC853Nw
p99f9mTA88no027Cv4KwK56nn5lYDxTa3S89RDj9HvnM8RIZw9UpHkGa6g9vAKvS
1j7NcLadUpEwsjkER9IytLe/B5iMuR0zBvowHtW04k6uh67hEyPWs60UnX17ndM=
-----END ENCRYPTED PRIVATE KEY-----
"""


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


@pytest.mark.parametrize(
    "make",
    [
        lambda: SASLPlain("h", "u", "s3cr\udce9t"),
        lambda: SASLPlain("h", "u", "s3cr\xe9t", encoding="ascii"),
        lambda: SASTokenAuth("a", "amqps://h/q", "s3cr\udce9t", expires_in=timedelta(hours=1)),
        lambda: SASTokenAuth.from_shared_access_key("amqps://h/q", "k", "s3cr\udce9t"),
        lambda: SASLAnonymous(
            "h", http_proxy={"proxy_hostname": "p", "proxy_port": 1, "username": "u", "password": "s3cr\udce9t"}
        ),
    ],
)
def test_what_cannot_be_encoded_is_not_shown(make):
    with pytest.raises(ValueError, match="cannot encode") as caught:
        make()
    assert type(caught.value) is ValueError  # UnicodeEncodeError has the text
    assert caught.value.__cause__ is caught.value.__context__ is None


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


@pytest.mark.parametrize("port", ["5672", b"5672", 5672.0, True, -1, 65536])
def test_what_cannot_be_a_port_is_told_at_once_and_when_a_redirect_names_it(port):
    with pytest.raises(ValueError, match="port must be an int from 0 to 65535"):
        SASLAnonymous("h", port=port)
    auth = SASLAnonymous("h")
    auth._port = port
    with pytest.raises(ValueError, match="port must be an int from 0 to 65535"):
        auth._endpoint(None, [REMOTE])


def test_the_default_context_verifies_chain_and_name_and_is_made_once(ca_file):
    context = SASLAnonymous("h")._context(None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert SASLAnonymous("other")._context(None) is context
    own = SASLAnonymous("h", verify=ca_file)._context(None)
    assert own is not context
    assert own.verify_mode is ssl.CERT_REQUIRED
    assert len(own.get_ca_certs()) == 1  # instead of certifi's


@pytest.mark.parametrize(
    ("password", "text"), [(None, "the key is encrypted, and no password was given"), ("wrong", "is it the password")]
)
def test_a_key_that_cannot_be_read_is_told_and_nobody_is_asked_for_its_password(tmp_path, password, text):
    trustme.CA().issue_cert("me").cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    (tmp_path / "key.pem").write_text(ENCRYPTED_KEY)
    auth = SASLExternal(
        "h", cert_file=str(tmp_path / "cert.pem"), key_file=str(tmp_path / "key.pem"), password=password
    )
    with pytest.raises(TransportError, match=text) as caught:
        auth._context(None)
    assert "cert.pem" in str(caught.value) and "wrong" not in str(caught.value)


def test_a_file_without_certificates_is_told(tmp_path):
    (tmp_path / "ca.pem").write_text("none")
    with pytest.raises(TransportError, match=r"verify: .*ca\.pem"):
        SASLAnonymous("h", verify=str(tmp_path / "ca.pem"))._context(None)


def test_a_given_context_is_used_as_it_is():
    mine, clients = ssl.create_default_context(), ssl.create_default_context()
    assert SASLAnonymous("h", ssl_context=mine)._context(clients) is mine
    assert SASLAnonymous("h")._context(clients) is clients


PROXY = {"proxy_hostname": "proxy.example", "proxy_port": 3128}
CREDENTIALS = {"username": "joe", "password": "sesame"}


@pytest.mark.parametrize(
    ("transport", "proxy", "websocket"),
    [
        (TransportType.Amqp, None, False),
        (TransportType.AmqpOverWebsocket, None, True),
        (TransportType.Amqp, PROXY, True),  # as in uamqp: a proxy means WebSocket
        (TransportType.AmqpOverWebsocket, PROXY, True),
    ],
)
def test_who_decides_about_websocket(transport, proxy, websocket):
    auth = SASLAnonymous("h", http_proxy=proxy, transport_type=transport)
    assert (auth._transport_type is TransportType.AmqpOverWebsocket) is websocket
    assert auth._endpoint(None, [REMOTE]) == (True, 443 if websocket else 5671)


def test_the_enumeration_of_another_package_says_websocket_too():
    class Theirs(enum.Enum):
        Amqp = 1
        AmqpOverWebsocket = 2

    for given, websocket in ((Theirs.Amqp, False), (Theirs.AmqpOverWebsocket, True)):
        auth = SASLAnonymous("h", transport_type=given)
        assert (auth._transport_type is TransportType.AmqpOverWebsocket) is websocket
        client = SendClient("amqps://h/q", transport_type=given)
        assert (client._transport_type is TransportType.AmqpOverWebsocket) is websocket


def test_no_other_value_names_a_transport():
    with pytest.raises(ValueError, match="TransportType"):
        SASLAnonymous("h", transport_type=3)


def test_a_proxy_is_dialled_instead_of_the_peer():
    assert SASLAnonymous("h")._dial_to == "h"
    assert SASLAnonymous("h", http_proxy=PROXY)._dial_to == "proxy.example"
    assert SASLAnonymous("h", http_proxy={"proxy_hostname": "[::1]", "proxy_port": 1})._dial_to == "::1"


def test_a_url_that_says_plain_says_so_for_tcp_only():
    for auth in (
        SASLAnonymous("h", http_proxy=PROXY),
        SASLAnonymous("h", transport_type=TransportType.AmqpOverWebsocket),
    ):
        auth._plain_on_loopback = True
        assert auth._endpoint(None, [LOOPBACK]) == (True, 443)
        assert auth._endpoint(False, [LOOPBACK]) == (False, 443)


@pytest.mark.parametrize("values", [("joe", "sesame"), (b"joe", b"sesame")])
def test_the_proxys_dict_is_copied_and_stays_as_it_was(values):
    given = {**PROXY, "username": values[0], "password": values[1]}
    before = dict(given)
    auth = SASLAnonymous("h", http_proxy=given)
    assert auth._http_proxy == given == before
    assert auth._http_proxy is not given
    assert [type(value) for value in given.values()] == [type(value) for value in before.values()]
    assert auth._proxy == ("proxy.example", 3128, b"joe", b"sesame")


def test_no_text_shows_the_proxys_password():
    auth = SASLAnonymous("h", http_proxy={**PROXY, **CREDENTIALS})
    assert "sesame" not in repr(auth) + str(auth) + repr(auth._proxy) + str(auth._proxy)


@pytest.mark.parametrize(
    ("proxy", "names"),
    [
        ({}, "proxy_hostname"),
        ({"proxy_hostname": "p"}, "proxy_port"),
        ({"proxy_port": 1}, "proxy_hostname"),
        ({**PROXY, "proxy_port": None}, "proxy_port"),
        ({**PROXY, "proxy_port": 0}, "proxy_port"),
        ({**PROXY, "proxy_port": 65536}, "proxy_port"),
        ({**PROXY, "proxy_port": -1}, "proxy_port"),
        ({**PROXY, "proxy_port": "http"}, "proxy_port"),
        ({**PROXY, "proxy_port": True}, "proxy_port"),
        ({**PROXY, "proxy_port": 3.5}, "proxy_port"),
        ({**PROXY, "proxy_hostname": ""}, "proxy_hostname"),
        ({**PROXY, "proxy_hostname": 7}, "proxy_hostname"),
        ({**PROXY, "proxy_hostname": "http://proxy.example"}, "proxy_hostname"),
        ({**PROXY, "proxy_hostname": "joe:sesame@proxy.example"}, "proxy_hostname"),
        ({**PROXY, "proxy_hostname": "p\r\nX: 1"}, "proxy_hostname"),
        ({**PROXY, "username": 7}, "username"),
        ({**PROXY, "username": "jo:e", "password": "sesame"}, "username"),
        ({**PROXY, "password": "sesame"}, "username"),
        ({**PROXY, "username": "joe", "password": 7}, "password"),
        ("proxy.example:3128", "http_proxy"),
    ],
)
def test_a_wrong_proxy_is_told_at_construction_by_its_key_and_without_secrets(proxy, names):
    with pytest.raises(ValueError, match=names) as caught:
        SASLAnonymous("h", http_proxy=proxy)
    assert "sesame" not in str(caught.value)
