"""WebSocket, by bytes: two filters against each other, and one against frames made by hand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uamqp_cffi._core.transport.filters.base import HttpRefused, TransportError
from uamqp_cffi._core.transport.filters.http_connect import HEAD
from uamqp_cffi._core.transport.filters.websocket import WebSocket

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def read(end: WebSocket, size: int = 1 << 20) -> bytes:
    room = memoryview(bytearray(size))
    return bytes(room[: end.read_into(room)])


def frame(opcode: int, payload: bytes, fin: bool = True, size: int | None = None, mask: bytes = b"") -> bytes:
    """A frame as a server sends it; `size` is announced instead of the payload's own."""
    n = len(payload) if size is None else size
    length = bytes([n]) if n < 126 else b"\x7e" + struct.pack(">H", n) if n < 65536 else b"\x7f" + struct.pack(">Q", n)
    head = bytes([opcode | 0x80 * fin]) + bytes([length[0] | 0x80 * bool(mask)]) + length[1:] + mask
    return head + bytes(c ^ mask[i % 4] for i, c in enumerate(payload)) if mask else head + payload


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of a client's frames, which must be whole, final and masked; the keys are checked to differ."""
    found, at, keys = [], 0, set()
    while at < len(data):
        assert data[at] & 0xF0 == 0x80
        assert data[at + 1] & 0x80
        n = data[at + 1] & 0x7F
        opcode, at = data[at] & 0x0F, at + 2
        if n > 125:
            wide = ">H" if n == 126 else ">Q"
            n, at = struct.unpack_from(wide, data, at)[0], at + struct.calcsize(wide)
        key = data[at : at + 4]
        keys.add(key)
        found.append((opcode, bytes(c ^ key[i % 4] for i, c in enumerate(data[at + 4 : at + 4 + n]))))
        at += 4 + n
    assert at == len(data)
    assert len(keys) == len(found)
    return found


def accept(request: bytes, protocol: bytes | None = b"AMQPWSB10") -> bytes:
    key = re.search(rb"Sec-WebSocket-Key: (.*)\r", request)[1]
    token = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    chosen = b"" if protocol is None else b"Sec-WebSocket-Protocol: " + protocol + b"\r\n"
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + token + b"\r\n" + chosen + b"\r\n"
    )


@pytest.fixture
def client() -> WebSocket:
    """One whose upgrade is over."""
    end = WebSocket("h.example:443")
    end.feed(accept(end.take()))
    assert end.ready
    return end


@pytest.fixture
def pair() -> tuple[WebSocket, WebSocket]:
    client, server = WebSocket("h.example:443"), WebSocket(server_side=True)
    server.feed(client.take())
    client.feed(server.take())
    return client, server


# ---- the upgrade


def test_the_request_is_the_one_that_azure_wants():
    line, *headers, end, rest = WebSocket("h.example:443").take().decode().split("\r\n")
    named = dict(header.split(": ") for header in headers)
    key = named.pop("Sec-WebSocket-Key")
    assert line == "GET /$servicebus/websocket/ HTTP/1.1"
    assert named.pop("Upgrade").lower() == "websocket"
    assert named == {
        "Host": "h.example:443",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "AMQPWSB10, amqp",
    }
    assert len(base64.b64decode(key)) == 16
    assert (end, rest) == ("", "")


def test_every_upgrade_has_a_key_of_its_own():
    keys = {re.search(rb"Sec-WebSocket-Key: (.*)\r", WebSocket("h:1").take())[1] for _ in range(50)}
    assert len(keys) == 50


def test_nothing_is_taken_before_the_upgrade_is_over():
    client = WebSocket("h:1")
    assert client.write(memoryview(b"early")) == 0
    assert read(client) == b""
    assert "upgrade" in client.doing


def test_an_answer_cut_anywhere_is_the_same_and_what_follows_is_not_lost():
    probe = WebSocket("h:1")
    length = len(accept(probe.take()))
    for cut in range(1, length + 8):
        client = WebSocket("h:1")
        data = accept(client.take()) + frame(BINARY, b"first")
        client.feed(data[:cut])
        client.feed(data[cut:])
        assert client.ready
        assert read(client) == b"first"


@pytest.mark.parametrize("protocol", [None, b"AMQPWSB10", b"amqp"])
def test_a_server_may_take_either_subprotocol_or_leave_it_unsaid(protocol):
    client = WebSocket("h:1")
    client.feed(accept(client.take(), protocol))
    assert client.ready


def test_an_interim_answer_is_not_the_answer():
    client = WebSocket("h:1")
    client.feed(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + accept(client.take()))
    assert client.ready


@pytest.mark.parametrize(
    ("line", "status", "text", "retryable"),
    [
        (b"401 Nope", 401, "server refused: 401 Unauthorized", False),
        (b"403 Forbidden", 403, "server refused: 403 Forbidden", False),
        (b"404 Not Found", 404, "server refused: 404 Not Found", False),
        (b"426 Upgrade Required", 426, "server refused: 426 Upgrade Required", False),
        (b"503 Busy", 503, "server refused: 503 Service Unavailable", True),
        (b"200 OK", 200, "server refused: 200 OK", False),
        (
            b"301 Moved\r\nLocation: https://other.example/ws?sig=secret",
            301,
            "301 Moved Permanently; it points to https://other.example/ws,",
            False,
        ),
        (b"301 Moved\r\nLocation: https://joe:secret@other.example/", 301, "refused: 301 Moved Permanently", False),
    ],
)
def test_a_refusal_is_told_with_its_status(line, status, text, retryable):
    client = WebSocket("h:1")
    with pytest.raises(HttpRefused) as caught:
        client.feed(b"HTTP/1.1 " + line + b"\r\nContent-Length: 2\r\n\r\nno")
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)
    assert (caught.value.by, caught.value.status, caught.value.retryable) == ("server", status, retryable)


def without(header: bytes) -> bytes:
    client = WebSocket("h:1")
    return re.sub(rb"\r\n%s: [^\r]*" % header, b"", accept(client.take()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a.replace(b"AMQPWSB10", b"mqtt"), "subprotocol mqtt"),
        (lambda a: a.replace(b"AMQPWSB10", b"m\xc3\xbc"), "makes no sense"),
        (lambda a: re.sub(rb"Accept: .", b"Accept: !", a), "accept token"),
        (lambda a: re.sub(rb"\r\nSec-WebSocket-Accept: [^\r]*", b"", a), "accept token"),
        (lambda a: re.sub(rb"\r\nUpgrade: [^\r]*", b"", a), "Upgrade"),
        (lambda a: a.replace(b"Upgrade: websocket", b"Upgrade: h2c"), "Upgrade"),
        (lambda a: re.sub(rb"\r\nConnection: [^\r]*", b"", a), "Connection"),
        (lambda a: a.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "extension"),
        (lambda a: b"HTTP/1.1 1o1 x\r\n\r\n", "HTTP"),
        (lambda a: b"AMQP\x00\x01\x00\x00", "plain AMQP"),
        (lambda a: b"\x15\x03\x01\x00\x02\x02\x28", "speaks TLS"),
        (lambda a: b"220 mail.example ESMTP\r\n", "it sent b'220 mai'"),
    ],
)
def test_an_answer_that_is_not_the_right_one_is_told(change, text):
    client = WebSocket("h:1")
    with pytest.raises(HttpRefused, match=text) as caught:
        client.feed(change(accept(client.take())))
    assert (caught.value.by, caught.value.status) == ("server", None)
    assert not client.ready


@pytest.mark.parametrize("flood", [b"X: " + b"x" * 500 + b"\r\n", b"x" * 1000, b"\r\nHTTP/1.1 100 Continue\r\n"])
def test_a_flood_of_headers_is_cut_off(flood):
    client = WebSocket("h:1")
    client.feed(b"HTTP/1.1 101 Switching Protocols\r\n" if b"HTTP" not in flood else b"HTTP/1.1 100 Continue\r\n")
    fed = 0
    with pytest.raises(HttpRefused):
        while fed <= 2 * HEAD:
            client.feed(flood)
            fed += len(flood)


def test_an_end_before_the_answer_is_told():
    with pytest.raises(HttpRefused, match="instead of answering the WebSocket upgrade") as caught:
        WebSocket("h:1").feed_eof()
    assert caught.value.retryable


@pytest.mark.parametrize("offer", ["AMQPWSB10", "amqp", "mqtt, amqp", "amqp, AMQPWSB10"])
def test_our_server_takes_both_names_of_the_subprotocol(offer):
    server = WebSocket(server_side=True)
    server.feed(WebSocket("h:1").take().replace(b"AMQPWSB10, amqp", offer.encode()))
    assert server.ready
    chosen = re.search(rb"Sec-WebSocket-Protocol: (.*)\r", server.take())[1]
    assert chosen == (b"AMQPWSB10" if "AMQPWSB10" in offer else b"amqp")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda q: q.replace(b"AMQPWSB10, amqp", b"mqtt"), 400),
        (lambda q: re.sub(rb"\r\nSec-WebSocket-Protocol: [^\r]*", b"", q), 400),
        (lambda q: q.replace(b"Version: 13", b"Version: 8"), 426),
        (lambda q: q.replace(b"GET ", b"GETS "), 400),
        (lambda q: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (lambda q: b"GARBAGE\r\n\r\n", 400),
    ],
)
def test_our_server_turns_others_away_by_http(change, status):
    server = WebSocket(server_side=True)
    server.feed(change(WebSocket("h:1").take()))
    assert server.eof
    assert server.take().startswith(b"HTTP/1.1 %d " % status)
    with pytest.raises(TransportError, match="no WebSocket upgrade"):
        server.feed_eof()


# ---- messages


def test_bytes_go_both_ways(pair):
    client, server = pair
    assert client.write(memoryview(b"to server")) == 9
    assert server.write(memoryview(b"to client")) == 9
    server.feed(client.take())
    client.feed(server.take())
    assert read(server) == b"to server"
    assert read(client) == b"to client"


def test_what_a_client_sends_is_binary_and_masked_by_fresh_keys(client):
    pieces = [b"a", b"b" * 125, b"c" * 126, b"d" * 65535, b"e" * 65536]
    for piece in pieces:
        client.write(memoryview(piece))
    assert frames_of(client.take()) == [(BINARY, piece) for piece in pieces]


def test_no_message_is_larger_than_what_servers_take(client):
    data = bytes(range(256)) * 1000
    assert client.write(memoryview(data)) == len(data)
    sent = frames_of(client.take())
    assert b"".join(payload for _, payload in sent) == data
    assert max(len(payload) for _, payload in sent) == 64 << 10


def test_what_does_not_fit_the_room_stays_for_the_next_read(client):
    client.feed(frame(BINARY, b"0123456789"))
    assert [read(client, 4) for _ in range(4)] == [b"0123", b"4567", b"89", b""]


def messages(chooser: random.Random, data: bytes) -> bytes:
    """`data` in messages of any size, in fragments of any size, with control frames and empty ones in between."""
    out = b""
    at = 0
    while at < len(data):
        size = chooser.choice([0, 1, 7, 125, 126, 1000, 70_000])
        piece, at = data[at : at + size], at + size
        parts = [piece]
        while chooser.random() < 0.5:
            last = parts.pop()
            cut = chooser.randrange(len(last) + 1)
            parts += [last[:cut], last[cut:]]
        for i, part in enumerate(parts):
            if chooser.random() < 0.2:
                out += frame(chooser.choice([PING, PONG]), b"p" * chooser.randrange(126))
            out += frame(CONTINUED if i else BINARY, part, fin=i == len(parts) - 1)
    return out


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), sizes=st.lists(st.integers(1, 5000), max_size=40))
def test_however_the_stream_is_cut_the_bytes_are_the_same(seed, sizes):
    chooser = random.Random(seed)
    data = chooser.randbytes(chooser.choice([0, 1, 500, 20_000, 200_000]))
    client = WebSocket("h:1")
    stream = accept(client.take()) + messages(chooser, data)
    got, at = b"", 0
    while at < len(stream):
        n = sizes.pop() if sizes else 100_000
        client.feed(stream[at : at + n])
        at += n
        got += read(client)
    assert got == data


def test_a_huge_frame_is_passed_on_as_it_comes_and_not_kept(client):
    tracemalloc = pytest.importorskip("tracemalloc", reason="PyPy counts no memory")
    client.feed(frame(BINARY, b"", size=1 << 62))
    piece = b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(200):
            client.feed(piece)
            assert read(client) == piece
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# ---- what breaks the rules


def test_text_is_an_error_after_the_bytes_before_it(client):
    client.feed(frame(BINARY, b"good") + frame(TEXT, b"bad") + frame(BINARY, b"lost"))
    assert client.failing
    assert read(client) == b"good"
    with pytest.raises(TransportError, match="text"):
        read(client)
    client.close()
    assert frames_of(client.take()) == [(CLOSE, struct.pack(">H", 1003))]


@pytest.mark.parametrize(
    "bad",
    [
        frame(BINARY, b"masked", mask=b"1234"),
        frame(3, b"reserved opcode"),
        frame(CONTINUED, b"of nothing"),
        frame(BINARY, b"a", fin=False) + frame(BINARY, b"b"),
        frame(PING, b"fragment", fin=False),
        frame(PING, b"x" * 126),
        frame(CLOSE, b"\x03"),
        frame(CLOSE, struct.pack(">H", 999)),
        frame(CLOSE, struct.pack(">H", 1000) + b"\xff"),
        bytes([BINARY | 0xC0, 1]) + b"x",  # RSV1 without an extension
        b"\x82\xff" + b"\xff" * 8,
        b"\x82\x7e\x00\x01x",  # a length in more bytes than it needs
    ],
)
def test_a_frame_against_the_rules_ends_it_with_a_word(client, bad):
    with pytest.raises(TransportError, match="broke the WebSocket protocol"):
        client.feed(bad)
        read(client)
        read(client)
    client.close()
    code = struct.unpack(">H", frames_of(client.take())[-1][1][:2])[0]
    assert code in (1002, 1007)


def test_unmasked_frames_of_a_client_are_refused(pair):
    with pytest.raises(TransportError, match="unmasked"):
        pair[1].feed(frame(BINARY, b"x"))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32), server=st.booleans())
def test_no_bytes_do_worse_than_a_typed_error(seed, server):
    chooser = random.Random(seed)
    end = WebSocket("h:1", server_side=server)
    if server:
        stream = WebSocket("h:1").take() + b"".join(
            frame(chooser.choice([BINARY, PING, CLOSE, CONTINUED, TEXT]), chooser.randbytes(20), mask=b"1234")
            for _ in range(5)
        )
    else:
        stream = accept(end.take()) + messages(chooser, chooser.randbytes(300)) + frame(CLOSE, b"\x03\xe8bye")
    stream = bytearray(stream)
    for _ in range(chooser.randrange(0, 6)):
        stream[chooser.randrange(len(stream))] = chooser.randrange(256)
    with contextlib.suppress(TransportError):
        at = 0
        while at < len(stream):
            n = chooser.choice([1, 10, 100, 1000])
            end.feed(stream[at : at + n])
            read(end)
            end.take()
            at += n
        end.feed_eof()
    end.close()
    end.take()


# ---- ping, pong, close


def test_a_ping_is_answered_with_its_payload(client):
    client.feed(frame(PING, b"now"))
    assert client.pending
    assert frames_of(client.take()) == [(PONG, b"now")]
    assert not client.pending


def test_only_the_last_of_many_pings_is_answered(client):
    """§5.5.3 allows it, and a peer that never reads cannot fill our memory."""
    for i in range(10_000):
        client.feed(frame(PING, b"%d" % i))
    assert frames_of(client.take()) == [(PONG, b"9999")]


def test_a_pong_that_nobody_asked_for_is_nothing(client):
    client.feed(frame(PONG, b"x") + frame(BINARY, b"y"))
    assert read(client) == b"y"
    assert not client.pending


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (struct.pack(">H", 1001) + b"moving house", "closed the WebSocket: 1001 going away: moving house"),
        (struct.pack(">H", 1000), "closed the WebSocket: 1000 normal closure"),
        (struct.pack(">H", 4321) + b"\x1b[2Jodd", "closed the WebSocket: 4321: ?[2Jodd"),
        (b"", "closed the WebSocket: 1005"),
    ],
)
def test_a_close_is_answered_and_told_after_the_bytes_before_it(client, payload, text):
    client.feed(frame(BINARY, b"last") + frame(CLOSE, payload) + frame(BINARY, b"never"))
    assert read(client) == b"last"
    assert client.eof
    assert frames_of(client.take()) == [(CLOSE, payload[:2] + payload[2:])]
    with pytest.raises(TransportError) as caught:
        client.feed_eof()
    assert text in str(caught.value)
    assert client.write(memoryview(b"x")) == 0
    client.close()
    assert not client.pending


def test_our_close_is_said_once_and_nothing_after_it(client):
    client.write(memoryview(b"last"))
    client.close()
    client.close()
    assert client.write(memoryview(b"x")) == 0
    client.feed(frame(PING, b"?"))
    assert frames_of(client.take()) == [(BINARY, b"last"), (CLOSE, struct.pack(">H", 1000))]


def test_closing_before_the_upgrade_says_nothing():
    client = WebSocket("h:1")
    client.take()
    client.close()
    assert not client.pending


def test_an_end_without_a_close_frame_is_a_loss(client):
    with pytest.raises(TransportError, match="without a close frame"):
        client.feed_eof()
