"""What an error says when a peer refuses a client before there is a link: the cause, and what to do. Scripted peers over real
sockets; runs everywhere."""

from __future__ import annotations

import contextlib
import logging
import ssl
from typing import Any

import pytest

from uamqp_cffi import Message, SendClient, errors
from uamqp_cffi.authentication import SASLAnonymous

pytestmark = pytest.mark.both_drivers


def refused(client: Any) -> str:
    """The text of the error."""
    with contextlib.closing(client), pytest.raises(errors.AMQPConnectionError) as caught:
        client.send_message(Message(b"x"))
    return str(caught.value)


def to_the_end(peer: Any) -> None:
    peer.to_the_end()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_client_certificate(scripted: Any, certificates: Any, version: Any) -> None:
    context = certificates.context("127.0.0.1")
    context.load_verify_locations(certificates.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    server = scripted(to_the_end, context)
    auth = SASLAnonymous("127.0.0.1", port=server.port, verify=certificates.ca_file)
    text = refused(SendClient(server.url(scheme="amqps"), auth=auth))
    assert "TLS failed: " in text and "wants a certificate of the client" in text and "SASLExternal" in text


def test_a_server_whose_ca_is_not_known(scripted: Any, certificates: Any) -> None:
    server = scripted(to_the_end, certificates.server)
    auth = SASLAnonymous("127.0.0.1", port=server.port, verify=certificates.other_ca_file)
    text = refused(SendClient(server.url(scheme="amqps"), auth=auth))
    assert "is not trusted" in text and "verify=" in text


def test_a_server_that_wants_another_version_of_tls(scripted: Any, certificates: Any) -> None:
    old = certificates.context("127.0.0.1")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    new = ssl.create_default_context(cafile=certificates.ca_file)
    new.minimum_version = ssl.TLSVersion.TLSv1_3
    server = scripted(to_the_end, old)
    text = refused(SendClient(server.url(scheme="amqps"), use_tls=True, ssl_context=new))
    assert "ssl_context=" in text and "version" in text


def test_a_refusal_of_sasl_is_told_once(scripted: Any, amqp: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By the error; the log says it to those who want to read of everything."""

    def play(peer: Any) -> None:
        peer.reach("mechanisms")
        peer.until(amqp.INIT)
        peer.send(amqp.OUTCOME, 1, sasl=True)
        peer.to_the_end()

    caplog.set_level(logging.DEBUG)
    text = refused(SendClient(scripted(play).url()))
    assert text.count("was refused by the peer") == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("idle", [None, 500_000])
def test_a_peer_that_answers_open_by_going_away(scripted: Any, amqp: Any, how: str, idle: int | None) -> None:
    """RabbitMQ does it to a virtual host that is not there, and to an idle time-out below a second."""

    def play(peer: Any) -> None:
        peer.reach("header")
        peer.until(amqp.OPEN)
        peer.reset() if how == "rst" else peer.sock.close()

    text = refused(SendClient(scripted(play).url(), idle_timeout=idle))
    assert "'127.0.0.1' (a virtual host to some)" in text
    assert ("idle_timeout=500000" in text) == (idle is not None)


def test_an_idle_time_out_that_is_over_before_the_peer_opens(scripted: Any, amqp: Any) -> None:
    def play(peer: Any) -> None:
        peer.reach("header")
        peer.until(amqp.OPEN)
        peer.to_the_end()

    text = refused(SendClient(scripted(play).url(), idle_timeout=120))
    assert "nothing was received for 120 ms" in text and "may want a longer idle_timeout" in text


def test_a_connect_time_out_that_is_over_before_the_peer_opens(scripted: Any, amqp: Any) -> None:
    def play(peer: Any) -> None:
        peer.reach("header")
        peer.until(amqp.OPEN)
        peer.to_the_end()

    text = refused(SendClient(scripted(play).url(), connect_timeout=0.2))
    assert "waiting for the peer to open" in text and "a virtual host to some" in text
