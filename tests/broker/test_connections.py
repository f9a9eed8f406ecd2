"""Connections of the embedded broker in memory: SASL, open, management, hostile bytes, idle time-outs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi._broker.pipe import Pipe
from uamqp_cffi._core.engine import decode, lib, types
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine import values as v
from uamqp_cffi._core.transport.filters.websocket import WebSocket
from uamqp_cffi._core.transport.wire import Wire
from uamqp_cffi.broker import Broker

Connect = Callable[..., tuple[Any, int]]
Data = Callable[[bytes], bytes]
PLAIN = "PLAIN"


def test_the_broker_says_that_it_is_not_for_production(broker: Broker, connect: Connect) -> None:
    client, _ = connect()
    fields = client.of(r.Open)[0].fields
    assert "not for production" in fields["properties"]["product"]
    assert fields["offered_capabilities"] == ["ANONYMOUS-RELAY"]
    assert "not for production" in repr(broker)


@pytest.mark.parametrize(
    ("options", "sasl", "outcome"),
    [
        ({}, ("ANONYMOUS", b"x"), 0),
        ({}, (PLAIN, b"\0anybody\0anything"), 0),
        ({}, None, None),
        ({"users": {"ann": "s3cret"}}, (PLAIN, b"\0ann\0s3cret"), 0),
        ({"users": {"ann": "s3cret"}}, (PLAIN, b"ann\0ann\0s3cret"), 0),
        ({"users": {"ann": "s3cret"}}, (PLAIN, b"\0ann\0wrong"), 1),
        ({"users": {"ann": "s3cret"}}, (PLAIN, b"\0bob\0"), 1),
        ({"users": {"ann": "s3cret"}}, (PLAIN, b"\0bob\0s3cret"), 1),
        ({"users": {"ann": ""}}, (PLAIN, b"\0ann\0"), 0),
        ({"users": {}}, (PLAIN, b"\0\0"), 1),
        ({"users": {"ann": "s3cret"}}, (PLAIN, b"ann"), 1),
        ({"users": {"ann": "s3cret"}, "sasl": ["ANONYMOUS"]}, ("ANONYMOUS", None), 0),
        ({"sasl": ["EXTERNAL"]}, ("EXTERNAL", b""), 1),
    ],
)
def test_sasl(
    options: dict[str, Any],
    sasl: tuple[str, bytes | None] | None,
    outcome: int | None,
    memory_broker: Callable[..., Broker],
    connect: Connect,
) -> None:
    broker = memory_broker(**options)
    client, _ = connect(broker, sasl=sasl)
    assert [o.code for o in client.of(r.SaslOutcome)] == ([] if outcome is None else [outcome])
    assert bool(client.of(r.Open)) is (outcome in (0, None))
    assert client.pipe.closed is (outcome == 1)


def test_a_mechanism_that_was_not_offered_is_refused(memory_broker: Callable[..., Broker], connect: Connect) -> None:
    client, _ = connect(memory_broker(users={"ann": "x"}), sasl=("ANONYMOUS", None))
    offered = client.of(r.SaslMechanisms)[0]
    assert offered.names == [PLAIN] and not offered.offered
    assert client.of(r.Open) == []


def test_without_a_sasl_layer_nobody_comes_in_where_users_are_given(
    memory_broker: Callable[..., Broker], connect: Connect
) -> None:
    client, _ = connect(memory_broker(users={"ann": "x"}))
    assert client.of(r.Open) == [] and client.pipe.closed


def test_a_broker_without_sasl_turns_a_sasl_header_away(memory_broker: Callable[..., Broker], connect: Connect) -> None:
    client, _ = connect(memory_broker(sasl=False), sasl=("ANONYMOUS", None))
    assert client.of(r.Open) == [] and client.pipe.closed


def test_secrets_stay_out_of_logs_and_reprs(
    memory_broker: Callable[..., Broker], connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "uamqp.broker")
    broker = memory_broker(users={"ann": "s3cret"})
    connect(broker, sasl=(PLAIN, b"\0ann\0s3cret"))
    connect(broker, sasl=(PLAIN, b"\0ann\0wr0ng"))
    assert "SASL PLAIN ok" in caplog.text and "SASL PLAIN refused" in caplog.text
    for text in (caplog.text, repr(broker), repr(broker._core.settings)):
        assert "s3cret" not in text and "wr0ng" not in text


def test_mistakes_in_the_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="'GSSAPI' is none of"):
        Broker(listen=False, sasl=["GSSAPI"])
    with pytest.raises(ValueError, match="need a cert_file"):
        Broker(listen=False, client_ca="ca.pem")
    with pytest.raises(ValueError, match="max_frame_size=100 "):
        Broker(listen=False, max_frame_size=100)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65536), ("port", -1), ("max_bytes", -1), ("max_message_size", 0), ("max_message_size", -1),
        ("max_message_size", (256 << 20) + 1),
        ("max_connections", 0), ("idle_timeout", -1), ("idle_timeout", 1e7), ("idle_timeout", float("nan")),
        ("credit", -1), ("credit", 1 << 32),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value} is not between "):
        Broker(**{name: value})


# ---- management ----


def request(number: int, operation: str, reply_to: str | None = None, **properties: str) -> bytes:
    fields = {"message_id": v.enc_ulong(number)}
    if reply_to is not None:
        fields["reply_to"] = v.enc_str(reply_to)
    pairs = {"operation": operation, **properties}
    application = v.enc_map((v.enc_str(k), v.enc_str(x)) for k, x in pairs.items())
    return (
        v.described_composite("properties", **fields)
        + v.enc_described(0x74, application)
        + v.enc_described(0x77, v.enc_str("body"))
    )


def parse(payload: bytes) -> dict[int, Any]:
    return {code: decode.decode_exact(payload[at : at + n]) for code, at, n, _ in lib.sections(payload)}


@pytest.fixture
def management(broker: Broker, connect: Connect) -> Callable[[bytes], list[dict[int, Any]]]:
    """Sends a request to $management and gives what comes back."""
    client, session = connect()
    client.receiver(session, "$management")
    link = client.sender(session, "amqp://localhost/$management", rcv_settle_mode=v.enc_ubyte(0))

    def ask(payload: bytes) -> list[dict[int, Any]]:
        before = len(client.payloads())
        client.send(link, payload)
        return [parse(reply) for reply in client.payloads()[before:]]

    return ask


def test_a_management_request_is_answered(management: Callable[[bytes], list[dict[int, Any]]]) -> None:
    [reply] = management(request(7, "hello", colour="blue"))
    assert reply[0x73][5] == 7  # correlation-id
    assert reply[0x74]["statusCode"] == reply[0x74]["status-code"] == 200
    assert reply[0x74]["statusDescription"] == "OK"
    assert reply[0x74]["colour"] == "blue" and reply[0x77] == "body"


def test_management_tells_the_numbers_of_a_queue(
    broker: Broker, management: Callable[[bytes], list[dict[int, Any]]]
) -> None:
    broker.put("orders", b"one")
    [reply] = management(request(1, "READ", name="orders"))
    assert reply[0x77]["messages"] == 1 and reply[0x77]["name"] == "orders"
    [missing] = management(request(2, "READ", name="nobody"))
    assert missing[0x74]["statusCode"] == 404
    [names] = management(request(3, "QUERY"))
    assert names[0x77]["results"] == [["orders"]]


def test_an_operation_can_be_given_an_answer(
    broker: Broker, management: Callable[[bytes], list[dict[int, Any]]]
) -> None:
    broker.answer("brew", 418, "teapot", {"cups": 2})
    broker.answer("mute", None)
    [reply] = management(request(1, "brew"))
    assert (reply[0x74]["statusCode"], reply[0x74]["statusDescription"], reply[0x77]) == (418, "teapot", {"cups": 2})
    assert management(request(2, "mute")) == []


def test_a_reply_goes_to_the_queue_that_reply_to_names(
    broker: Broker, management: Callable[[bytes], list[dict[int, Any]]]
) -> None:
    broker.put("answers", b"first")
    assert management(request(1, "hello", reply_to="answers")) == []
    assert parse(broker.payloads("answers")[1])[0x74]["statusCode"] == 200


def test_a_reply_goes_to_the_link_whose_target_reply_to_names(broker: Broker, connect: Connect, terminus: Any) -> None:
    client, session = connect()
    links = []
    for name in ("one", "two"):
        node, here = terminus("source", "$management"), terminus("target", name)
        links.append(client.attach(session, name, False, node, here))
        client.engine.flow(links[-1], 10)
    sender = client.sender(session, "$management")
    for number, reply_to in enumerate(("two", "one", "two", None)):
        client.send(sender, request(number, "hello", reply_to=reply_to))
    assert [d.link for d in client.of(r.Delivery)] == [links[1], links[0], links[1], links[0]]


def test_a_request_that_is_no_message_is_rejected(broker: Broker, connect: Connect) -> None:
    client, session = connect()
    client.send(client.sender(session, "$management"), b"\x00\x53\x74\xff")
    assert client.outcomes() == [(0, 0, lib.OUT_REJECTED)]


# ---- bad peers ----


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"AMQP\x00\x00\x09\x01",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(64),
        b"AMQP\x00\x01\x00\x00" + b"\xff" * 64,
        b"AMQP\x00\x01\x00\x00\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\x18\x45",
    ],
    ids=["http", "version", "tls", "zeros", "frame", "close first"],
)
def test_garbage_ends_its_own_connection_only(garbage: bytes, broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    pipe = broker.connect()
    pipe.feed(garbage)
    pipe.take()
    assert pipe.closed
    client.send(client.sender(session, "q"), data(b"still here"))
    assert broker.info("q").messages == 1


def test_a_request_by_http_that_is_no_websocket_gets_an_answer_and_an_end(broker: Broker) -> None:
    pipe = broker.connect()
    pipe.feed(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert pipe.take().startswith(b"HTTP/1.1 400 ")
    assert broker.connections == 0


def test_a_client_by_websocket_is_served_and_its_goodbye_answered(
    broker: Broker, connect: Connect, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = connect()
    monkeypatch.setattr(type(client), "make_wire", lambda self: Wire(self.engine, [WebSocket("h:1")], now=0))
    other, session = connect()
    other.send(other.sender(session, "q"), data(b"by websocket"))
    other.receiver(session, "q")
    assert other.payloads() == [data(b"by websocket")]
    other.wire.close()
    other.run()
    assert other.wire.ended_by_peer
    assert other.pipe.closed
    assert broker.connections == 1
    assert broker.info("q").messages == 1  # it was not settled
    client.send(client.sender(client.begin(), "q"), data(b"still here"))
    assert broker.info("q").messages == 2


def conversation(connect: Connect, data: Data, tap: Callable[[bytes], None], terminus: Any) -> None:
    """A client's bytes of an ordinary conversation, piece by piece."""
    client, session = connect()
    feed = client.pipe.feed

    def tapped(piece: bytes, now: int | None = None) -> None:
        if piece:
            tap(piece)
        feed(piece, now)

    client.pipe.feed = tapped
    client.send(client.sender(session, "q"), *[data(b"%d" % i) for i in range(3)])
    link = client.receiver(session, "q")
    client.engine.settle(link, 0, 2, True, v.described_composite("modified", undeliverable_here=v.enc_bool(True)))
    client.run()
    client.sender(session, None, "relay")
    client.sender(session, "$management", "m")
    client.engine.detach(link)
    client.run()


def test_damaged_conversations_never_take_the_broker_down(
    broker: Broker,
    memory_broker: Callable[..., Broker],
    connect: Connect,
    data: Data,
    terminus: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each piece a client says is sent again with a byte changed; whatever comes of it, the next client is served."""
    pieces: list[bytes] = []
    conversation(connect, data, pieces.append, terminus)
    head = b"AMQP\x00\x01\x00\x00"
    dice = random.Random(1)
    opened = v.composite("open", container_id=v.enc_str("x"))
    for _ in range(300):
        pipe = broker.connect()
        pipe.feed(head + frame(0x10, opened) + frame(0x11, begin()))
        for piece in pieces:
            damaged = bytearray(piece)
            if dice.random() < 0.5:
                damaged[dice.randrange(len(damaged))] = dice.randrange(256)
            pipe.feed(bytes(damaged))
            pipe.take()
        pipe.lost()
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert errors == []
    client, session = connect()
    client.send(client.sender(session, "last"), data(b"m"))
    assert broker.info("last").messages == 1 and broker.connections == 2


def frame(code: int, fields: bytes) -> bytes:
    body = b"\x02\x00\x00\x00\x00\x53" + bytes([code]) + fields
    return (len(body) + 4).to_bytes(4, "big") + body


def begin() -> bytes:
    return v.composite(
        "begin", next_outgoing_id=v.enc_uint(0), incoming_window=v.enc_uint(100), outgoing_window=v.enc_uint(100)
    )


def test_a_client_that_never_opens_is_dropped(broker: Broker) -> None:
    pipe = broker.connect()
    pipe.feed(b"AMQP\x00\x01\x00\x00", 1_000)
    pipe.tick(29_999)
    assert not pipe.closed
    pipe.tick(30_000)
    assert pipe.closed


def test_a_silent_client_is_closed_when_an_idle_timeout_is_set(
    memory_broker: Callable[..., Broker], connect: Connect
) -> None:
    client, _ = connect(memory_broker(idle_timeout=2.0))
    assert client.of(r.Open)[0].fields["idle_time_out"] == 2000
    client.pipe.tick(2_001)
    client.run(now=2_001)
    assert client.of(r.Close)[0].error is not None


def test_heartbeats_go_to_clients_that_want_them(broker: Broker, connect: Connect) -> None:
    client, _ = connect(idle_timeout=1_000)
    assert client.pipe.take() == b""
    client.pipe.tick(500)
    assert client.pipe.take() == b"\x00\x00\x00\x08\x02\x00\x00\x00"


def test_an_unknown_terminus_is_refused(broker: Broker, connect: Connect, terminus: Any) -> None:
    client, session = connect()
    client.attach(session, "tx", True, terminus("source", "here"), v.enc_described(0x30, v.enc_list([])))
    client.run()
    client.attach(session, "odd", True, terminus("source", "here"), v.enc_described(0x29, v.enc_list([v.enc_uint(1)])))
    client.run()
    assert [d.error.condition for d in client.of(r.Detach)] == [b"amqp:not-implemented", b"amqp:invalid-field"]


def test_closing_the_broker_closes_its_connections(broker: Broker, connect: Connect) -> None:
    client, _ = connect()
    broker.close()
    broker.close()
    client.run()
    assert client.of(r.Close)[0].error.condition == b"amqp:connection:forced"
    with pytest.raises(ValueError, match="closed"):
        broker.connect()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[types.Described]]:
    """Gives the performatives that the broker has sent so far, on all connections."""
    stream = bytearray()
    take = Pipe.take

    def watched(pipe: Pipe, n: int | None = None) -> bytes:
        out = take(pipe, n)
        stream.extend(out)
        return out

    def frames() -> list[types.Described]:
        found = []
        rest = bytes(stream)
        while rest:
            size = 8 if rest.startswith(b"AMQP") else int.from_bytes(rest[:4], "big")
            body, rest = rest[8:size], rest[size:]
            if body:  # a transfer has its message behind the list
                found.append(decode.decode_exact(body[: 4 if body[3] == 0x45 else 5 + body[4]]))
        return found

    monkeypatch.setattr(Pipe, "take", watched)
    return frames


def test_no_field_at_the_end_of_a_list_is_left_out(
    broker: Broker, connect: Connect, data: Data, terminus: Any, said: Callable[[], list[types.Described]]
) -> None:
    """Azure's clients look for some in their place, however long the list is."""
    broker.script("full", "rejected", condition="amqp:not-allowed")
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"x"))
    client.send(client.sender(session, "full", name="full"), data(b"y"))
    client.receiver(session, "q", credit=1)
    client.receiver(session, "", credit=0, name="nowhere")
    client.engine.end(session)
    client.run()
    client.engine.close()
    client.run()
    lengths = {code: len(names) for code, names in lib.FIELDS.values()}
    got = [(frame.descriptor, len(frame.value)) for frame in said()]
    assert {code for code, _ in got} == set(range(0x10, 0x19))
    assert got == [(code, lengths[code]) for code, _ in got]
    (rejected,) = [frame.value[4] for frame in said() if frame.descriptor == 0x15 and frame.value[4].value]
    assert rejected.value[0].value == ["amqp:not-allowed", None, None]
    (detach,) = [frame for frame in said() if frame.descriptor == 0x16]
    assert detach.value[2].value == ["amqp:invalid-field", "the address names no queue", None]


def test_an_outcome_that_the_broker_is_to_settle_is_said_again(
    broker: Broker, connect: Connect, said: Callable[[], list[types.Described]]
) -> None:
    broker.put("q", b"one")
    broker.put("q", b"two")
    client, session = connect()
    link = client.receiver(session, "q", credit=2)
    client.engine.settle(link, 0, 0, False, v.described_composite("accepted"))
    client.engine.settle(link, 1, 1, False, v.described_composite("rejected"))
    client.run()
    answers = [frame.value[:5] for frame in said() if frame.descriptor == 0x15]
    assert [(answer[:4], answer[4].descriptor) for answer in answers] == [
        ([False, 0, 0, True], 0x24),
        ([False, 1, 1, True], 0x25),
    ]
    assert broker.info("q")[1:4] == (0, 0, 1)
