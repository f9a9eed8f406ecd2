"""TLS between two filters, by bytes."""

from __future__ import annotations

import ssl

import pytest
import trustme

from uamqp_cffi._core.transport.filters.tls import Tls, TransportError


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def server_context(ca):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("good.example", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_context(ca):
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def carry(a: Tls, b: Tls, piece: int | None = None) -> None:
    """Carry ciphertext both ways until there is none, in pieces of that size."""
    while a.pending or b.pending:
        for source, sink in ((a, b), (b, a)):
            data = source.take()
            step = piece or max(len(data), 1)
            for at in range(0, len(data), step):
                sink.feed(data[at : at + step])


@pytest.fixture
def pair(client_context, server_context):
    client, server = Tls(client_context, "good.example"), Tls(server_context, server_side=True)
    carry(client, server)
    return client, server


def read(end: Tls, size: int = 1 << 20) -> bytes:
    room = memoryview(bytearray(size))
    return bytes(room[: end.read_into(room)])


def test_plaintext_goes_both_ways(pair):
    client, server = pair
    assert client.ready
    assert server.ready
    assert client.write(memoryview(b"to server")) == 9
    assert server.write(memoryview(b"to client")) == 9
    carry(client, server)
    assert read(server) == b"to server"
    assert read(client) == b"to client"
    assert client.version() == "TLSv1.3"


def test_a_handshake_byte_by_byte_is_the_same(client_context, server_context):
    client, server = Tls(client_context, "good.example"), Tls(server_context, server_side=True)
    carry(client, server, piece=1)
    assert client.ready
    assert server.ready


def test_nothing_is_encrypted_before_the_handshake_is_over(client_context):
    client = Tls(client_context, "good.example")
    assert client.write(memoryview(b"early")) == 0
    assert client.read_into(memoryview(bytearray(10))) == 0


def test_one_write_takes_more_than_a_record(pair):
    client, server = pair
    data = bytes(range(256)) * 1024
    assert client.write(memoryview(data)) == len(data)
    carry(client, server)
    assert read(server) == data


def test_what_does_not_fit_the_room_stays_for_the_next_read(pair):
    client, server = pair
    client.write(memoryview(b"0123456789"))
    carry(client, server)
    assert read(server, 4) == b"0123"
    assert read(server, 4) == b"4567"
    assert read(server, 4) == b"89"
    assert read(server, 4) == b""


def test_an_untrusted_certificate_is_told(server_context):
    client, server = Tls(ssl.create_default_context(), "good.example"), Tls(server_context, server_side=True)
    with pytest.raises(TransportError, match="'good.example' is not trusted") as caught:
        carry(client, server)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("host", ["bad.example", "127.0.0.2"])
def test_a_wrong_host_name_is_told(client_context, server_context, host):
    client, server = Tls(client_context, host), Tls(server_context, server_side=True)
    with pytest.raises(TransportError, match=f"not for the host name '{host}'"):
        carry(client, server)


def test_a_refusal_leaves_an_alert_for_the_peer(server_context):
    client, server = Tls(ssl.create_default_context(), "good.example"), Tls(server_context, server_side=True)
    with pytest.raises(TransportError):
        carry(client, server)
    with pytest.raises(TransportError, match="(?i)unknown.ca"):
        server.feed(client.take())
        read(server)


@pytest.mark.parametrize("pieces", [[b"AMQP\x03\x01\x00\x00"], [b"AM", b"QP\x00", b"\x01\x00\x00"]])
def test_a_plain_amqp_server_is_named_and_so_is_the_way_out(client_context, pieces):
    client = Tls(client_context, "good.example")
    with pytest.raises(TransportError, match="plain AMQP.*use_tls=False"):
        for piece in pieces:
            client.feed(piece)


def test_other_talk_is_no_tls(client_context):
    client = Tls(client_context, "good.example")
    with pytest.raises(TransportError, match="does not speak TLS"):
        client.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_plain_client_on_a_tls_server_is_told(server_context):
    server = Tls(server_context, server_side=True)
    with pytest.raises(TransportError, match="plain AMQP on a TLS port"):
        server.feed(b"AMQP\x00\x01\x00\x00")


def test_close_notify_is_an_end(pair):
    client, server = pair
    server.write(memoryview(b"last"))
    server.close()
    carry(client, server)
    assert read(client) == b"last"
    assert read(client) == b""
    assert client.eof
    client.feed_eof()


def test_an_end_without_close_notify_is_a_loss(pair):
    client, _ = pair
    with pytest.raises(TransportError, match="without close_notify"):
        client.feed_eof()


def test_an_end_in_the_handshake_names_use_tls(client_context):
    with pytest.raises(TransportError, match="use_tls=False"):
        Tls(client_context, "good.example").feed_eof()


def test_nothing_is_written_after_close(pair):
    client, server = pair
    client.close()
    client.close()
    assert client.write(memoryview(b"x")) == 0
    carry(client, server)
    assert read(server) == b""
    assert server.eof


def test_damaged_ciphertext_is_an_error(pair):
    client, server = pair
    client.write(memoryview(b"hello"))
    data = bytearray(client.take())
    data[-1] ^= 1
    server.feed(data)
    with pytest.raises(TransportError, match="TLS failed"):
        read(server)
