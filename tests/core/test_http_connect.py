"""HTTP CONNECT, by bytes."""

from __future__ import annotations

import base64
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uamqp_cffi._core.transport.filters.base import HttpRefused, TransportError
from uamqp_cffi._core.transport.filters.http_connect import HEAD, HttpConnect, authority

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def read(end: HttpConnect) -> bytes:
    room = memoryview(bytearray(1 << 20))
    return bytes(room[: end.read_into(room)])


@pytest.fixture
def tunnel() -> HttpConnect:
    end = HttpConnect("h.example:443")
    end.take()
    return end


def test_the_request_names_the_target_and_nothing_else():
    assert HttpConnect("h.example:443").take() == b"CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\n\r\n"


def test_credentials_go_out_as_basic():
    lines = HttpConnect("h:1", "jö".encode(), b"se:same").take().split(b"\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode("jö:se:same".encode()) in lines


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("h.example", "h.example:5"),
        ("::1", "[::1]:5"),
        ("10.0.0.1", "10.0.0.1:5"),
        ("bücher.example", "xn--bcher-kva.example:5"),
    ],
)
def test_an_authority_is_written_as_http_wants_it(host, written):
    assert authority(host, 5) == written


@pytest.mark.parametrize("host", ["h\r\nX: 1", "h h", "u@h", "h/x", "", "a" * 70 + "ü"])
def test_what_is_no_host_name_never_gets_into_a_request(host):
    with pytest.raises(TransportError, match="not a host name"):
        authority(host, 5)


def test_bytes_pass_once_the_tunnel_is_open(tunnel):
    assert tunnel.write(memoryview(b"early")) == 0
    tunnel.feed(OK)
    assert tunnel.ready
    assert tunnel.write(memoryview(b"hello")) == 5
    assert tunnel.take() == b"hello"
    tunnel.feed(b"world")
    assert read(tunnel) == b"world"


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nVia: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",  # to be ignored (RFC 9110 §9.3.6)
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nVia: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 2\r\nVia: x\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: none\n folded\n\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
    ],
)
def test_any_answer_of_success_opens_it_and_what_follows_is_not_lost(answer):
    for cut in range(len(answer) + 4):
        tunnel = HttpConnect("h:1")
        for piece in ((answer + b"more")[:cut], (answer + b"more")[cut:]):
            tunnel.feed(piece)
        assert tunnel.ready
        assert read(tunnel) == b"more"


def test_an_answer_byte_by_byte_is_the_same(tunnel):
    for at in range(len(OK)):
        assert not tunnel.ready
        tunnel.feed(OK[at : at + 1])
    assert tunnel.ready


@pytest.mark.parametrize(
    ("line", "status", "text", "retryable"),
    [
        (b"407 Proxy Authentication Required", 407, "proxy refused: 407 Proxy Authentication Required", False),
        (b"403 Forbidden by policy 7", 403, "proxy refused: 403 Forbidden by policy 7", False),
        (b"502 Bad Gateway", 502, "proxy refused: 502 Bad Gateway", True),
        (b"503", 503, "proxy refused: 503 Service Unavailable", True),
        (b"404 ", 404, "proxy refused: 404 Not Found", False),
        (b"799 \x01\xffodd", 799, "proxy refused: 799 ?\ufffdodd", False),
        (
            b"302 Found\r\nLocation: http://login.example/?token=secret",
            302,
            "302 Found; it points to http://login.example/",
            False,
        ),
    ],
)
def test_a_refusal_is_told_with_status_and_reason(tunnel, line, status, text, retryable):
    with pytest.raises(HttpRefused) as caught:
        tunnel.feed(b"HTTP/1.1 " + line + b"\r\nContent-Length: 2\r\n\r\nno")
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)
    assert (caught.value.by, caught.value.status, caught.value.retryable) == ("proxy", status, retryable)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (
            b"Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM TlRM\r\n",
            "; it wants Negotiate or NTLM, and only Basic",
        ),
        (b"Proxy-Authenticate: NTLM\r\nProxy-Authenticate: basic realm=x\r\n", "Required"),
    ],
)
def test_a_proxy_that_wants_other_than_basic_is_told(tunnel, headers, text):
    with pytest.raises(HttpRefused) as caught:
        tunnel.feed(b"HTTP/1.1 407 Authentication Required\r\n" + headers + b"\r\n")
    assert text in str(caught.value)
    assert ("only Basic" in str(caught.value)) is ("only Basic" in text)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_no_answer_does_worse_than_a_typed_error(seed):
    chooser = random.Random(seed)
    answer = bytearray(chooser.choice([OK, b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n"]))
    for _ in range(chooser.randrange(1, 6)):
        answer[chooser.randrange(len(answer))] = chooser.randrange(256)
    tunnel = HttpConnect("h:1")
    with contextlib.suppress(TransportError):
        for at in range(0, len(answer), 7):
            tunnel.feed(answer[at : at + 7])
        tunnel.feed_eof()


def test_a_long_reason_is_cut(tunnel):
    with pytest.raises(HttpRefused) as caught:
        tunnel.feed(b"HTTP/1.1 500 " + b"x" * 10_000 + b"\r\n\r\n")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"AMQP\x00\x01\x00\x00", "plain AMQP"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "speaks TLS"),
        (b"SSH-2.0-OpenSSH", "it sent b'SSH-2.0'"),
        (b"HTTP/2 200\r\n\r\n", "does not speak HTTP/1.1"),
        (b"\x00", "it sent"),
        (b"HTTP/1.1 abc\r\n\r\n", "does not speak proper HTTP"),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "does not speak proper HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "does not speak proper HTTP"),
    ],
)
def test_other_talk_is_no_http(answer, text):
    for step in (1, len(answer)):
        tunnel = HttpConnect("h:1")
        with pytest.raises(HttpRefused, match="proxy") as caught:
            for at in range(0, len(answer), step):
                tunnel.feed(answer[at : at + step])
        assert caught.value.status is None
        if step > 1:
            assert text in str(caught.value)


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X-Header: " + b"x" * 1000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: ",
    ],
)
def test_a_flood_of_headers_is_cut_off(tunnel, flood):
    fed = 0
    with pytest.raises(HttpRefused):
        while True:
            tunnel.feed(flood)
            fed += len(flood)
            assert fed <= 2 * HEAD
            flood = b"X: " + b"x" * 500 + b"\r\n" if flood.startswith(b"HTTP/1.1 200 OK\r\n" + b"X-H") else flood


def test_an_end_before_the_answer_is_told(tunnel):
    with pytest.raises(HttpRefused, match=r"closed the connection instead of connecting to h\.example:443") as caught:
        tunnel.feed_eof()
    assert caught.value.retryable


def test_an_end_of_the_open_tunnel_is_for_others_to_judge(tunnel):
    tunnel.feed(OK)
    tunnel.feed_eof()
