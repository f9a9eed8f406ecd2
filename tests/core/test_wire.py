"""A wire: engine and TLS joined, still without a socket."""

from __future__ import annotations

import ssl
from array import array

import pytest
import trustme
from wsproto import events

from uamqp_cffi._core.engine import lib, values
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine.engine import Engine
from uamqp_cffi._core.transport.filters.http_connect import HttpConnect
from uamqp_cffi._core.transport.filters.websocket import WebSocket
from uamqp_cffi._core.transport.wire import CIPHER_CAP, Tls, TransportError, Wire

OPEN = values.composite("open", container_id=values.enc_str("c"))
BEGIN = values.composite(
    "begin",
    next_outgoing_id=values.enc_uint(0),
    incoming_window=values.enc_uint(100_000),
    outgoing_window=values.enc_uint(100_000),
)


def attach(sender: bool) -> bytes:
    address = values.described_composite("source", address=values.enc_str("q"))
    return values.composite(
        "attach",
        name=values.enc_str("l"),
        handle=values.enc_uint(0),
        role=values.enc_bool(not sender),
        source=address,
        target=values.described_composite("target", address=values.enc_str("q")),
        initial_delivery_count=values.enc_uint(0) if sender else values.NULL,
    )


@pytest.fixture(scope="module")
def contexts():
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("h.example").configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return client, server


class ProxyEnd(HttpConnect):
    """The other end of a tunnel: what a proxy and the host behind it are together."""

    def __init__(self):
        super().__init__("h.example:443")
        self._out.clear()

    def feed(self, data):
        if not self.ready:
            self._head += bytes(data)
            if not self._head.endswith(b"\r\n\r\n"):
                return
            self.ready, data = True, b""
            self._out += b"HTTP/1.1 200 Connection established\r\n\r\n"
        super().feed(data)


class Pair:
    def __init__(self, contexts=None, websocket=False, proxy=False):
        self.now = 1000
        client, server = [], []
        if proxy:
            client.append(HttpConnect("h.example:443"))
            server.append(ProxyEnd())
        if contexts:
            client.append(Tls(contexts[0], "h.example"))
            server.append(Tls(contexts[1], server_side=True))
        if websocket:
            client.append(WebSocket("h.example:443"))
        self.client = Wire(Engine(), client, self.now)
        self.server = Wire(Engine(server=True), server, self.now, websockets=websocket)
        self.client_got: list[r.Record] = []
        self.server_got: list[r.Record] = []

    def carry(self, piece: int = 1 << 30) -> None:
        moved = True
        while moved:
            moved = False
            for source, sink, got in (
                (self.client, self.server, self.server_got),
                (self.server, self.client, self.client_got),
            ):
                out = bytes(source.output()[:piece])
                if out:
                    moved = True
                    source.sent(len(out), self.now)
                    got += sink.feed(out, self.now)
                    (self.client_got if source is self.client else self.server_got).extend(source.tick(self.now))

    def attached(self, credit: int = 1000) -> int:
        c, s = self.client.engine, self.server.engine
        c.open(OPEN)
        session = c.begin(BEGIN)
        link = c.attach(session, attach(True))
        self.carry()
        s.open(OPEN)
        self.carry()
        s.begin(BEGIN, next(e for e in self.server_got if isinstance(e, r.Begin)).session)
        self.carry()
        asked = next(e for e in self.server_got if isinstance(e, r.Attach))
        s.attach(asked.session, attach(False), asked.link)
        s.flow(asked.link, credit)
        self.carry()
        self.client_got.clear()
        return link


@pytest.fixture(params=["plain", "tls", "websocket", "tls websocket", "proxy websocket", "proxy tls websocket"])
def pair(request, contexts):
    return Pair(
        contexts if "tls" in request.param else None,
        websocket="websocket" in request.param,
        proxy="proxy" in request.param,
    )


def settled(got):
    return [e for e in got if isinstance(e, r.Settled)]


def send(wire: Wire, link: int, *bodies: bytes, **more) -> int:
    taken, first = wire.engine.send_messages(link, b"".join(bodies), array("I", map(len, bodies)), data=True, **more)
    assert taken == len(bodies)
    return first


@pytest.mark.parametrize("piece", [1 << 30, 1000, 7])
def test_messages_arrive_whatever_the_pieces(pair, piece):
    link = pair.attached()
    bodies = [b"%d" % i * 50 for i in range(20)]
    send(pair.client, link, *bodies)
    pair.carry(piece)
    assert [e.payload for e in pair.server_got if isinstance(e, r.Delivery)] == [
        values.enc_described(0x75, values.enc_binary(body)) for body in bodies
    ]


def test_presettled_is_done_with_the_last_byte_of_its_own(pair):
    link = pair.attached()
    first = send(pair.client, link, b"x" * 100, settled=True)
    out = pair.client.output()
    pair.client.sent(len(out) - 1, 1000)
    assert pair.client.settling
    assert settled(pair.client.tick(1000)) == []
    assert len(pair.client.output()) == 1
    pair.client.sent(1, 1000)
    assert pair.client.settling
    assert [(e.first, e.outcome) for e in settled(pair.client.tick(1000))] == [(first, lib.OUT_SENT)]
    assert not pair.client.settling


@pytest.mark.parametrize(
    ("missing", "outcome"), [(1, lib.OUT_NOT_DELIVERED), (0, lib.OUT_UNKNOWN)], ids=["a byte short", "all"]
)
def test_loss_judges_by_what_the_kernel_took(pair, missing, outcome):
    link = pair.attached()
    first = send(pair.client, link, b"x" * 100)
    pair.client.sent(len(pair.client.output()) - missing, 1000)
    records = pair.client.lost(1000)
    assert [(e.first, e.outcome) for e in settled(records)] == [(first, outcome)]
    assert isinstance(records[-1], r.Lost)


def test_much_output_leaves_room_for_more_before_the_next_step(pair):
    link = pair.attached()
    body = b"x" * 100_000
    for _ in range(20):
        send(pair.client, link, body)
        while out := pair.client.output():
            pair.client.sent(len(out), 1000)


@pytest.mark.parametrize("websocket", [False, True])
def test_ciphertext_is_made_in_large_writes_and_capped(contexts, websocket):
    pair = Pair(contexts, websocket)
    link = pair.attached()
    send(pair.client, link, *[b"x" * 100_000] * 5)
    held = len(pair.client.output())
    assert 64 << 10 <= held <= CIPHER_CAP + (16 << 10)
    pair.client.sent(1000, 1000)
    assert len(pair.client.output()) == held - 1000  # no more of it while there is plenty


def test_what_left_long_before_the_step_counts_from_then(pair):
    """The next heartbeat is owed from when bytes left, not from when the engine heard of it."""
    pair.client.engine.open(OPEN)
    pair.carry()
    pair.server.engine.open(
        values.composite("open", container_id=values.enc_str("s"), idle_time_out=values.enc_uint(8000))
    )
    pair.carry()
    pair.client.engine.begin(BEGIN)
    pair.client.sent(len(pair.client.output()), 2000)
    pair.client.tick(4000)
    assert pair.client.deadline == 2000 + 4000


def test_a_beat_sends_an_empty_frame_and_takes_nothing_in(pair):
    pair.client.engine.open(OPEN)
    pair.carry()
    pair.server.engine.open(
        values.composite("open", container_id=values.enc_str("s"), idle_time_out=values.enc_uint(8000))
    )
    pair.carry()
    pair.client.beat(3000)
    assert not pair.client.output()
    pair.client.beat(5000)
    assert pair.client.output()


@pytest.mark.parametrize("alert", [b"\x15\x03\x03\x00\x02\x02\x46", b"\x16\x03\x01\x00"])
def test_a_tls_server_on_a_plain_connection_is_named(alert):
    wire = Wire(Engine(), now=0)
    with pytest.raises(TransportError, match="speaks TLS"):
        wire.feed(alert, 0)


def test_plain_streams_may_just_end_and_others_may_not(pair):
    pair.attached()
    if pair.client.filter is None:
        pair.client.ended()
    else:
        with pytest.raises(TransportError, match="close_notify|close frame"):
            pair.client.ended()


@pytest.mark.parametrize("websocket", [False, True])
def test_close_says_goodbye_after_what_was_to_be_sent(contexts, websocket):
    pair = Pair(contexts, websocket)
    link = pair.attached()
    send(pair.client, link, b"last words")
    pair.client.close()
    pair.carry()
    assert [e.payload[-10:] for e in pair.server_got if isinstance(e, r.Delivery)] == [b"last words"]
    assert pair.server.ended_by_peer
    if websocket:
        with pytest.raises(TransportError, match="closed the WebSocket: 1000 normal closure"):
            pair.server.ended()
    else:
        pair.server.ended()


@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_takes_websockets_still_takes_amqp(contexts, tls):
    pair = Pair(contexts if tls else None)
    pair.server._websockets = True
    link = pair.attached()
    send(pair.client, link, b"plain")
    pair.carry()
    assert [e.payload[-5:] for e in pair.server_got if isinstance(e, r.Delivery)] == [b"plain"]
    assert type(pair.server.filter) is (Tls if tls else type(None))


def test_a_server_that_does_not_take_websockets_takes_no_http():
    server = Wire(Engine(server=True), now=0)
    server.feed(b"GET / HTTP/1.1\r\n\r\n", 0)
    assert server.filter is None
    assert not server.output() or bytes(server.output()[:4]) == b"AMQP"


def test_pings_do_not_hold_up_a_presettled_send_nor_count_for_it(contexts):
    pair = Pair(contexts, websocket=True)
    link = pair.attached()
    first = send(pair.client, link, b"x" * 100, settled=True)
    held = len(pair.client.output())
    ping = pair.server.filter._filters[-1]
    ping._out += ping._ws.send(events.Ping(payload=b"are you there"))
    while out := bytes(pair.server.output()):
        pair.server.sent(len(out), pair.now)
        pair.client.feed(out, pair.now)
    pair.client.sent(held, pair.now)
    assert [(e.first, e.outcome) for e in settled(pair.client.tick(pair.now))] == [(first, lib.OUT_SENT)]
    assert len(pair.client.output()) > 0  # the pong
    second = send(pair.client, link, b"y" * 100, settled=True)
    pair.client.sent(len(pair.client.output()) - 1, pair.now)
    assert settled(pair.client.tick(pair.now)) == []
    pair.client.sent(1, pair.now)
    assert [(e.first, e.outcome) for e in settled(pair.client.tick(pair.now))] == [(second, lib.OUT_SENT)]
