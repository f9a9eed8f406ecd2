"""Clients over WebSocket and through HTTP proxies, alone and together: against the embedded broker, a WebSocket server that
is not ours, and servers and proxies that misbehave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
import websockets
from websockets.asyncio.server import ServerConnection, serve

from uamqp_cffi import (
    Message,
    ReceiveClient,
    ReceiveClientAsync,
    SendClient,
    SendClientAsync,
    TransportType,
    errors,
)
from uamqp_cffi.authentication import SASLAnonymous, SASLPlain
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery

pytestmark = pytest.mark.both_drivers

LIMIT = 10.0
WEBSOCKET = TransportType.AmqpOverWebsocket
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
    b"Sec-WebSocket-Protocol: AMQPWSB10\r\n\r\n"
)


class Server:
    """Calls `talk(sock)` for each connection, on a thread of its own; `heads` are the HTTP requests that were read."""

    def __init__(self, talk: Callable[[Server, socket.socket], object]) -> None:
        self._talk = talk
        self.heads: list[bytes] = []
        self.problems: list[BaseException] = []
        self._open: list[socket.socket] = []
        self._over = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            sock = self._listener.accept()[0]
            if self._over:
                sock.close()
                return
            sock.settimeout(LIMIT)
            self._open.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            self._talk(self, sock)
        except OSError:
            return  # the client went away, or the test is over
        except BaseException as error:
            self.problems.append(error)
        finally:
            sock.close()

    def head(self, sock: socket.socket) -> bytes:
        """Read a request's head; what follows it stays in the socket."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            got = sock.recv(1)
            if not got:
                raise ConnectionError("no request")
            head += got
        self.heads.append(head)
        return head

    def cut(self) -> None:
        """End every connection."""
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._over = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._threads[0].join(LIMIT)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(LIMIT)
        assert not self.problems, self.problems


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    """`server(talk)`: a `Server` that is closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(talk: Callable[[Server, socket.socket], object]) -> Server:
            made = Server(talk)
            stack.callback(made.close)
            return made

        yield make


def answer(text: bytes) -> Callable[[Server, socket.socket], None]:
    """Read a request, say that, and wait for the client to go."""

    def talk(server: Server, sock: socket.socket) -> None:
        server.head(sock)
        sock.sendall(text)
        while sock.recv(4096):
            continue

    return talk


def hang(server: Server, sock: socket.socket) -> None:
    while sock.recv(4096):
        continue


def hang_up(server: Server, sock: socket.socket) -> None:
    server.head(sock)


def pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)


def tunnel(credentials: str | None = None, to: int | None = None) -> Callable[[Server, socket.socket], None]:
    """A proxy. It wants `user:password`, if given; every name leads to 127.0.0.1, and every port to `to`, if given."""

    def talk(server: Server, sock: socket.socket) -> None:
        head = server.head(sock).decode()
        if credentials is not None:
            basic = "Basic " + base64.b64encode(credentials.encode()).decode()
            if f"Proxy-Authorization: {basic}\r\n" not in head:
                sock.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n"
                    b"Content-Length: 4\r\n\r\nnope"
                )
                return
        port = to or int(head.split()[1].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as there:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(there, sock), daemon=True)
            back.start()
            pump(sock, there)
            back.join(LIMIT)

    return talk


class Certificates:
    def __init__(self) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1", "broker.example").configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture(params=["ws", "wss"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "wss")


@pytest.fixture
def options(secure: bool, certificates: Certificates) -> dict[str, Any]:
    """For clients of `broker`."""
    return {
        "transport_type": WEBSOCKET,
        "use_tls": secure,
        "ssl_context": certificates.client,
        "connect_timeout": LIMIT,
    }


@pytest.fixture
def broker(secure: bool, certificates: Certificates) -> Iterator[Broker]:
    with Broker(ssl_context=certificates.server if secure else None) as made:
        yield made


def proxy(port: int, **more: str) -> dict[str, Any]:
    return {"proxy_hostname": "127.0.0.1", "proxy_port": port, **more}


def refusal(client: SendClient) -> errors.HTTPRefused:
    """What a client raises that never gets as far as AMQP: in time, and again; the message stays ours."""
    message = Message(b"x")
    start = time.monotonic()
    with pytest.raises(errors.ConnectionClose) as caught:
        client.send_message(message)
    assert time.monotonic() - start < LIMIT / 2
    assert isinstance(caught.value, errors.HTTPRefused)
    assert (caught.value.scope, caught.value.delivery) == ("connection", Delivery.NOT_DELIVERED)
    assert client.pending_messages == [message]
    with pytest.raises(errors.HTTPRefused):
        client.do_work()
    client.close()
    return caught.value


# ---- against the embedded broker


def test_messages_go_and_come(broker: Broker, options: dict[str, Any]) -> None:
    bodies = [b"%d" % n * 100 for n in range(500)] + [b"x" * 300_000]
    with SendClient(broker.url + "/q", **options) as client:
        client.queue_message(*[Message(body) for body in bodies])
        assert len(client.send_all_messages()) == len(bodies)
    with ReceiveClient(broker.url + "/q", **options) as client:
        got: list[bytes] = []
        while len(got) < len(bodies):
            got += [b"".join(message.get_data()) for message in client.receive_message_batch(timeout=LIMIT * 1000)]
    assert got == bodies


def test_the_same_port_takes_amqp_without_websocket(broker: Broker, options: dict[str, Any]) -> None:
    with SendClient(broker.url + "/q", **{**options, "transport_type": TransportType.Amqp}) as client:
        client.send_message(Message(b"plain"))
    with SendClient(broker.url + "/q", **options) as client:
        client.send_message(Message(b"websocket"))
    assert [str(message) for message in broker.messages("q")] == ["plain", "websocket"]


@pytest.mark.parametrize("how", ["drop", "end", "close"])
def test_what_the_broker_breaks_is_told_as_without_websocket(broker: Broker, options: dict[str, Any], how: str) -> None:
    broker.script("q", "none", fail=how, after=1, condition="amqp:internal-error")
    expected = {"drop": errors.MessageHandlerError, "end": errors.SessionEnd, "close": errors.ConnectionClose}[how]
    with SendClient(broker.url + "/q", **options) as client, pytest.raises(expected) as caught:
        client.send_message(Message(b"x"))
    assert caught.value.delivery is Delivery.UNKNOWN
    if how == "drop":
        assert "without" in str(caught.value)  # a close frame, close_notify


def test_closing_is_quick_on_both_sides(broker: Broker, options: dict[str, Any]) -> None:
    client = SendClient(broker.url + "/q", **options)
    client.send_message(Message(b"x"))
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 1
    while broker.connections:
        assert time.monotonic() - start < LIMIT
        time.sleep(0.001)


def test_a_request_that_is_no_websocket_gets_an_http_answer_and_an_end(
    broker: Broker, secure: bool, certificates: Certificates
) -> None:
    with socket.create_connection(("127.0.0.1", broker.port), timeout=LIMIT) as raw:
        sock = certificates.client.wrap_socket(raw, server_hostname="localhost") if secure else raw
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = b""
        while data := sock.recv(4096):
            said += data
    assert said.startswith(b"HTTP/1.1 400 ")


# ---- through proxies


def test_a_proxy_carries_websocket(
    broker: Broker, options: dict[str, Any], server: Callable[..., Server], secure: bool
) -> None:
    way = server(tunnel())
    with SendClient(broker.url + "/q", http_proxy=proxy(way.port), **options) as client:
        client.send_message(Message(b"x"))
    assert [str(message) for message in broker.messages("q")] == ["x"]
    host = "localhost" if secure else "127.0.0.1"
    assert way.heads == [f"CONNECT {host}:{broker.port} HTTP/1.1\r\nHost: {host}:{broker.port}\r\n\r\n".encode()]


def test_a_proxy_alone_means_websocket_too(
    broker: Broker, options: dict[str, Any], server: Callable[..., Server]
) -> None:
    way = server(tunnel())
    options = {**options, "transport_type": TransportType.Amqp}
    with SendClient(broker.url + "/q", http_proxy=proxy(way.port), **options) as client:
        client.send_message(Message(b"x"))
        assert "WebSocket" in type(client._connection._wire.filter._filters[-1]).__name__
    assert len(way.heads) == 1


def test_the_proxy_resolves_the_name_and_tls_is_for_the_peers(
    certificates: Certificates, server: Callable[..., Server]
) -> None:
    """broker.example exists only for the proxy; its certificate and the Host header name it."""
    names: list[str] = []
    certificates.server.sni_callback = lambda sock, name, context: names.append(name)
    try:
        with Broker(ssl_context=certificates.server) as broker:
            way = server(tunnel(to=broker.port))
            auth = SASLAnonymous("broker.example", http_proxy=proxy(way.port), ssl_context=certificates.client)
            with SendClient("amqps://broker.example/q", auth) as client:
                client.send_message(Message(b"x"))
            assert [str(message) for message in broker.messages("q")] == ["x"]
    finally:
        certificates.server.sni_callback = None
    assert names == ["broker.example"]
    assert way.heads[0].startswith(b"CONNECT broker.example:443 ")


def test_a_certificate_for_another_host_is_refused_behind_a_proxy(
    certificates: Certificates, server: Callable[..., Server]
) -> None:
    with Broker(ssl_context=certificates.server) as broker:
        way = server(tunnel(to=broker.port))
        auth = SASLAnonymous("other.example", http_proxy=proxy(way.port), ssl_context=certificates.client)
        with SendClient("amqps://other.example/q", auth) as client:
            with pytest.raises(errors.AMQPConnectionError, match=r"not for the host name 'other\.example'"):
                client.send_message(Message(b"x"))


def test_credentials_open_the_proxy_and_go_nowhere_else(
    broker: Broker, options: dict[str, Any], server: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    way = server(tunnel("joe:sesame"))
    given = proxy(way.port, username="joe", password="sesame")
    before = dict(given)
    auth = SASLPlain(
        "localhost",
        "ann",
        "secret",
        broker.port,
        http_proxy=given,
        use_tls=options["use_tls"],
        ssl_context=options["ssl_context"],
    )
    with SendClient(broker.url + "/q", auth, debug=True) as client:
        client.send_message(Message(b"x"))
        shown = repr(client._connection) + repr(auth) + repr(vars(auth)["_proxy"])
    assert given == before
    assert len(broker.messages("q")) == 1
    for secret in ("sesame", base64.b64encode(b"joe:sesame").decode()):
        assert secret not in caplog.text + shown


@pytest.mark.parametrize("given", [{}, {"username": "joe", "password": "wrong-one"}])
def test_a_proxy_that_wants_other_credentials_is_told(
    broker: Broker, options: dict[str, Any], server: Callable[..., Server], given: dict[str, str]
) -> None:
    way = server(tunnel("joe:sesame"))
    error = refusal(SendClient(broker.url + "/q", http_proxy=proxy(way.port, **given), **options))
    assert "proxy refused: 407 Proxy Authentication Required" in str(error)
    assert (error.by, error.status, error.reason, error.retryable) == (
        "proxy",
        407,
        "Proxy Authentication Required",
        False,
    )
    assert "wrong-one" not in str(error) + repr(error) + repr(error.__cause__)
    assert broker.connections == 0


@pytest.mark.parametrize(
    ("talk", "text", "status", "retryable"),
    [
        (answer(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), "proxy refused: 502 Bad Gateway", 502, True),
        (answer(b"HTTP/1.1 403 Forbidden\r\n\r\n"), "proxy refused: 403 Forbidden", 403, False),
        (answer(b"220 mail.example ESMTP ready\r\n"), "the proxy does not speak HTTP", None, False),
        (answer(b"\x00" * 100), "the proxy does not speak HTTP", None, False),
        (answer(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000), "the proxy", None, False),
        (hang_up, "the proxy closed the connection instead of connecting to", None, True),
    ],
    ids=["502", "403", "smtp", "zeros", "headers", "ends"],
)  # fmt: skip
def test_a_proxy_that_does_not_do_it_is_told(
    server: Callable[..., Server], talk: Any, text: str, status: int | None, retryable: bool
) -> None:
    way = server(talk)
    error = refusal(SendClient("amqps://broker.example/q", http_proxy=proxy(way.port), connect_timeout=LIMIT))
    assert text in str(error)
    assert (error.by, error.status, error.retryable) == ("proxy", status, retryable)


def test_a_proxy_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with SendClient("amqps://broker.example/q", http_proxy=proxy(port)) as client:
        with pytest.raises(
            errors.AMQPConnectionError, match=rf"127\.0\.0\.1:{port}.*the proxy on the way to 'broker\.example'"
        ):
            client.send_message(Message(b"x"))


def test_a_proxy_that_goes_away_later_is_a_lost_connection(
    broker: Broker, options: dict[str, Any], server: Callable[..., Server]
) -> None:
    way = server(tunnel())
    broker.script("q", "none")
    client = SendClient(broker.url + "/q", http_proxy=proxy(way.port), **options)
    client.queue_message(Message(b"x"))
    client.open()
    while not client._out:
        client.do_work()
    way.cut()
    with pytest.raises(errors.MessageHandlerError, match="lost") as caught:
        client.wait()
    assert not isinstance(caught.value, errors.HTTPRefused)
    client.close()


# ---- the same filters under asyncio


def test_async_clients_go_the_same_way(broker: Broker, options: dict[str, Any], server: Callable[..., Server]) -> None:
    way = server(tunnel("joe:sesame"))
    given = proxy(way.port, username="joe", password="sesame")
    bodies = [f"m{n}" for n in range(200)]

    async def main() -> list[str]:
        async with SendClientAsync(broker.url + "/q", http_proxy=given, **options) as client:
            client.queue_message(*[Message(body) for body in bodies])
            await client.send_all_messages_async()
        got: list[str] = []
        async with ReceiveClientAsync(broker.url + "/q", **options) as client:
            while len(got) < len(bodies):
                got += [str(message) for message in await client.receive_message_batch_async(timeout=LIMIT * 1000)]
        return got

    assert asyncio.run(main()) == bodies
    assert len(way.heads) == 1


@pytest.mark.parametrize(
    ("talk", "error", "text"),
    [
        (answer(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), errors.HTTPRefused, "proxy refused: 502 Bad Gateway"),
        (hang_up, errors.HTTPRefused, "the proxy closed the connection"),
        (hang, errors.ConnectTimeout, "while waiting for the proxy to connect to broker.example:443"),
    ],
    ids=["502", "ends", "silent"],
)
def test_async_clients_are_told_the_same(server: Callable[..., Server], talk: Any, error: type, text: str) -> None:
    given = proxy(server(talk).port)
    patience = 0.3 if error is errors.ConnectTimeout else LIMIT

    async def main() -> None:
        async with SendClientAsync("amqps://broker.example/q", http_proxy=given, connect_timeout=patience) as client:
            await client.send_message_async(Message(b"x"))

    with pytest.raises(error, match=text):
        asyncio.run(main())


# ---- servers that do not upgrade, or break it off


def accepting(then: bytes, wrong: bool = False) -> Callable[[Server, socket.socket], None]:
    """Upgrade, say `then`, and end."""

    def talk(server: Server, sock: socket.socket) -> None:
        key = re.search(rb"Sec-WebSocket-Key: (.*)\r", server.head(sock))
        assert key is not None
        token = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        sock.sendall(UPGRADED % (token[::-1] if wrong else token) + then)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            continue

    return talk


def to(port: int, **more: Any) -> SendClient:
    return SendClient(
        f"amqp://127.0.0.1:{port}/q", transport_type=WEBSOCKET, use_tls=False, **{"connect_timeout": LIMIT, **more}
    )


@pytest.mark.parametrize(
    ("talk", "text", "status"),
    [
        (answer(b"HTTP/1.1 401 Unauthorized\r\n\r\n"), "server refused: 401 Unauthorized", 401),
        (answer(b"HTTP/1.1 404 Not Found\r\n\r\n"), "server refused: 404 Not Found", 404),
        (answer(b"HTTP/1.1 426 Upgrade Required\r\n\r\n"), "server refused: 426 Upgrade Required", 426),
        (answer(b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\n\r\n"), "https://elsewhere.example/", 302),
        (answer(b"AMQP\x00\x01\x00\x00"), "plain AMQP", None),
        (answer(b"\x15\x03\x03\x00\x02\x02\x28"), "speaks TLS", None),
        (answer(UPGRADED.replace(b"AMQPWSB10", b"mqtt")), "answer to the WebSocket upgrade", None),
        (accepting(b"", wrong=True), "accept token", None),
        (hang_up, "closed the connection instead of answering the WebSocket upgrade", None),
    ],
    ids=["401", "404", "426", "redirect", "amqp", "tls", "protocol", "token", "ends"],
)  # fmt: skip
def test_a_server_that_does_not_upgrade_is_told(
    server: Callable[..., Server], talk: Any, text: str, status: int | None
) -> None:
    error = refusal(to(server(talk).port))
    assert text in str(error)
    assert (error.by, error.status) == ("server", status)


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (b"\x82\x7e\x10\x00AMQP\x03", "without a close frame"),  # in the middle of a message
        (b"", "without a close frame"),
        (b"\x88\x0a" + struct.pack(">H", 1013) + b"too busy", "closed the WebSocket: 1013 try again later: too busy"),
        (b"\x81\x05hello", "text"),
        (b"\x82\x85\x00\x00\x00\x00hello", "broke the WebSocket protocol"),
        (b"\x82\x08AMQP\x09\x01\x00\x00", ""),  # a word for the engine to judge
    ],
    ids=["cut", "ends", "close", "text", "masked", "header"],
)  # fmt: skip
def test_a_server_that_breaks_it_off_is_told(server: Callable[..., Server], then: bytes, text: str) -> None:
    start = time.monotonic()
    with to(server(accepting(then)).port) as client, pytest.raises(errors.AMQPConnectionError) as caught:
        client.send_message(Message(b"x"))
    assert time.monotonic() - start < LIMIT / 2
    assert text in str(caught.value)


# ---- silence


@pytest.mark.parametrize(
    ("talk", "more", "text"),
    [
        (hang, {"http_proxy": True}, "while waiting for the proxy to connect to broker.example:443"),
        (hang, {"use_tls": True}, "while in the TLS handshake"),
        (hang, {}, "while waiting for the answer to the WebSocket upgrade"),
    ],
    ids=["proxy", "tls", "upgrade"],
)  # fmt: skip
def test_a_time_out_says_how_far_it_came(
    server: Callable[..., Server], talk: Any, more: dict[str, Any], text: str
) -> None:
    port = server(talk).port
    if "http_proxy" in more:
        client = SendClient("amqps://broker.example/q", http_proxy=proxy(port), connect_timeout=0.3)
    else:
        client = SendClient(
            f"amqp://127.0.0.1:{port}/q", transport_type=WEBSOCKET, connect_timeout=0.3, **{"use_tls": False, **more}
        )
    with client, pytest.raises(errors.ConnectTimeout, match=text):
        client.send_message(Message(b"x"))


# ---- a WebSocket server that is not ours


class Bridge(threading.Thread):
    """`websockets`' server in front of a broker. `chop(data)` makes the messages for what came from the broker."""

    def __init__(self, broker: Broker, context: ssl.SSLContext | None, chop: Callable[[bytes], list[bytes]]) -> None:
        super().__init__(daemon=True)
        self._broker, self._tls, self._chop = broker, context, chop
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self.seen: list[tuple[str, str | None]] = []
        self.sizes: list[int] = []
        self.here: ServerConnection | None = None
        self.over = asyncio.Event()
        self.start()
        assert self._ready.wait(LIMIT)

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        subprotocols = [websockets.Subprotocol("AMQPWSB10")]
        async with serve(
            self._talk, "127.0.0.1", 0, ssl=self._tls, subprotocols=subprotocols, max_size=1 << 16
        ) as made:
            self.port = made.sockets[0].getsockname()[1]
            self._ready.set()
            await self.over.wait()

    async def _talk(self, here: ServerConnection) -> None:
        assert here.request is not None
        self.here = here
        self.seen.append((here.request.path, here.subprotocol))
        reader, writer = await asyncio.open_connection("127.0.0.1", self._broker.port)

        async def down() -> None:
            while data := await reader.read(1 << 16):
                for piece in self._chop(data):
                    await here.send(piece)
            await here.close()

        back = asyncio.ensure_future(down())
        with contextlib.suppress(websockets.ConnectionClosed):
            async for message in here:
                assert isinstance(message, bytes)
                self.sizes.append(len(message))
                writer.write(message)
                await writer.drain()
        writer.close()
        with contextlib.suppress(websockets.ConnectionClosed):
            await back

    def do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(LIMIT)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self.over.set)
        self.join(LIMIT)
        assert not self.is_alive()


@pytest.fixture
def bridge(certificates: Certificates, secure: bool) -> Iterator[Callable[..., Bridge]]:
    with contextlib.ExitStack() as stack:

        def make(chop: Callable[[bytes], list[bytes]] = lambda data: [data]) -> Bridge:
            made = Bridge(stack.enter_context(Broker()), certificates.server if secure else None, chop)
            stack.callback(made.close)
            return made

        yield make


@pytest.mark.parametrize(
    "chop",
    [
        lambda data: [data],
        lambda data: [data[at : at + 1] for at in range(min(len(data), 300))] + [data[300:]],
        lambda data: [b"", data[:5], data[5:], b""],
    ],
    ids=["whole", "bytes", "halves"],
)
def test_a_foreign_server_gets_and_gives_everything(
    bridge: Callable[..., Bridge], options: dict[str, Any], chop: Callable[[bytes], list[bytes]], secure: bool
) -> None:
    way = bridge(chop)
    url = f"amqps://localhost:{way.port}/q"
    bodies = [b"%d" % n * 50 for n in range(200)] + [b"x" * 20_000]
    with SendClient(url, **options) as client:
        client.queue_message(*[Message(body) for body in bodies])
        client.send_all_messages()
    assert way.seen == [("/$servicebus/websocket/", "AMQPWSB10")]
    assert len(way.sizes) < 100  # many AMQP frames in one message
    with ReceiveClient(url, **options) as client:
        got = client.receive_message_batch(max_batch_size=50, timeout=LIMIT * 1000)
        assert [b"".join(message.get_data()) for message in got] == bodies[: len(got)]
        assert got


def test_a_foreign_servers_ping_is_answered_and_its_close_told(
    bridge: Callable[..., Bridge], options: dict[str, Any]
) -> None:
    way = bridge()
    with SendClient(f"amqps://localhost:{way.port}/q", **options) as client:
        client.send_message(Message(b"x"))
        assert way.here is not None
        waiter = way.do(way.here.ping())
        pinged = threading.Event()
        way._loop.call_soon_threadsafe(waiter.add_done_callback, lambda _: pinged.set())
        while not pinged.is_set():
            client.do_work()
        closing = asyncio.run_coroutine_threadsafe(way.here.close(4000, "enough"), way._loop)
        with pytest.raises(errors.MessageHandlerError, match="closed the WebSocket: 4000: enough"):
            while True:
                client.do_work()
        closing.result(LIMIT)
        assert way.here.protocol.close_code == 4000
