"""HTTP CONNECT without I/O (RFC 9110 §9.3.6): through a proxy to a host that only the proxy can reach. And what
WebSocket has in common with it: reading the head of an HTTP answer that may be anything else."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from http import HTTPStatus

import h11

from .base import HttpRefused, TransportError

HEAD = 64 << 10
"""Bytes that the heads of an answer may have, interim ones included; h11 bounds a single one to 16 KiB."""
_LATER = frozenset((408, 425, 429, 500, 502, 503, 504))
_TEXT = 120
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"(?im)^(?:content-length|transfer-encoding):.*\n(?:[ \t].*\n)*")


def authority(host: str, port: int) -> str:
    """`host:port` as HTTP wants it. Raises TransportError for what cannot be a host."""
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise TransportError(f"{host!r} is not a host name: {error}") from error
    if not re.fullmatch(r"[!-~]+", name) or re.search(r'[/?#@\\"<>]', name):
        raise TransportError(f"{host!r} is not a host name")
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def plain_text(said: bytes | str) -> str:
    """What a peer said, safe to show: one short line of printable characters."""
    text = said if isinstance(said, str) else said.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text[:_TEXT])


def check_is_http(head: bytes, who: str, by: str) -> None:
    """Raises HttpRefused when `head`, the first bytes of an answer, is not the beginning of HTTP/1."""
    if b"HTTP/1."[: len(head)] == head[:7]:
        return
    if head.startswith(b"AMQP"[: len(head)]):
        what = "speaks plain AMQP on this port"
    elif head[:2] in (b"\x15\x03"[: len(head)], b"\x16\x03"[: len(head)]):
        what = "speaks TLS on this port"
    else:
        what = f"sent {head!r}"
    raise HttpRefused(f"{who} does not speak HTTP/1.1: it {what}", by)


def refused(
    who: str, by: str, status: int, reason: bytes = b"", headers: Iterable[tuple[bytes, bytes]] = ()
) -> HttpRefused:
    """The error for an answer that is not the one that was asked for."""
    said = plain_text(reason)
    if not said and status in HTTPStatus._value2member_map_:
        said = HTTPStatus(status).phrase
    text = f"{who} refused: {status} {said}".rstrip()
    wanted = []
    for name, value in headers:
        if 300 <= status < 400 and name.lower() == b"location" and b"@" not in value:
            text += f"; it points to {plain_text(value.partition(b'?')[0])}, and redirects are not followed"
        elif status == 407 and name.lower() == b"proxy-authenticate":
            wanted.append(plain_text(value.partition(b" ")[0]))
    if wanted and "basic" not in map(str.lower, wanted):
        text += f"; it wants {' or '.join(wanted[:5])}, and only Basic is known here"
    return HttpRefused(text, by, status, said, status in _LATER)


def _without_length(head: bytes) -> bytes:
    """The head of an answer to CONNECT; one of success without what would tell where its body ends: it has none, and whatever
    these headers say is to be ignored (RFC 9110 §9.3.6)."""
    return _LENGTH.sub(b"", head) if re.match(rb"HTTP/1\.\d 2", head) else head


class HttpConnect:
    """The client's end of a tunnel through an HTTP proxy: a `Filter`. `target` is the authority, `host:port`, to reach."""

    def __init__(self, target: str, username: bytes | None = None, password: bytes = b"") -> None:
        self._target = target
        self._http = h11.Connection(h11.CLIENT)
        headers = [("Host", target)]
        if username is not None:
            headers.append(("Proxy-Authorization", "Basic " + base64.b64encode(username + b":" + password).decode()))
        request = h11.Request(method="CONNECT", target=target, headers=headers)
        self._out = bytearray(self._http.send(request) or b"")
        self._http.send(h11.EndOfMessage())
        self._in = bytearray()
        self._head = b""
        self._heads = bytearray()  # of answers, not whole yet
        self._count = 0
        self.ready = False
        """The proxy has opened the tunnel."""
        self.eof = False
        self.failing = False

    @property
    def doing(self) -> str:
        return f"waiting for the proxy to connect to {self._target}"

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if self.ready or not data:
            self._in += data
            return
        if len(self._head) < 7:
            self._head += bytes(data[:7])
            check_is_http(self._head, "the proxy", "proxy")
        self._count += len(data)
        self._heads += data
        try:
            while not self.ready and (end := _HEAD_END.search(self._heads)):
                head, self._heads = bytes(self._heads[: end.end()]), self._heads[end.end() :]
                self._http.receive_data(_without_length(head))
                self._answer()
        except h11.RemoteProtocolError as error:
            raise HttpRefused(f"the proxy does not speak proper HTTP: {plain_text(str(error))}", "proxy") from error
        if not self.ready and self._count > HEAD:
            raise HttpRefused("the proxy's answer has too many headers", "proxy")

    def _answer(self) -> None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                return
            if isinstance(event, h11.Response):
                if not 200 <= event.status_code < 300:
                    raise refused("the proxy", "proxy", event.status_code, bytes(event.reason), event.headers)
                self.ready = True
                self._in += self._heads
                return

    def feed_eof(self) -> None:
        if not self.ready:
            raise HttpRefused(
                f"the proxy closed the connection instead of connecting to {self._target}", "proxy", retryable=True
            )

    def read_into(self, room: memoryview) -> int:
        n = min(len(room), len(self._in))
        room[:n] = self._in[:n]
        del self._in[:n]
        return n

    def write(self, data: memoryview) -> int:
        if not self.ready:
            return 0
        self._out += data
        return len(data)

    @property
    def pending(self) -> int:
        return len(self._out)

    def take(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out

    def close(self) -> None:
        """A tunnel has no goodbye."""
