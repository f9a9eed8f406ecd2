"""A client for the embedded broker made of nothing but the engine: over an in-memory pipe, time moved by hand."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi._broker.pipe import Pipe
from uamqp_cffi._core.engine import engine as eng
from uamqp_cffi._core.engine import lib
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine import values as v
from uamqp_cffi._core.transport.wire import Wire
from uamqp_cffi.broker import Broker


class Client:
    """One connection to a `Broker(listen=False)`. `run` moves bytes both ways until nothing moves and keeps the
    records."""

    def __init__(self, broker: Broker, sasl: tuple[str, bytes | None] | None = None, idle_timeout: int = 0) -> None:
        self.engine = eng.Engine()
        self.engine.set(lib.OPT_TRACE, 1)
        if sasl is not None:
            self.engine.sasl_client(*sasl)
        self.now = 0
        self.pipe: Pipe = broker.connect()
        self.wire = self.make_wire()
        self.records: list[r.Record] = []
        fields = {"container_id": v.enc_str("test")}
        if idle_timeout:
            fields["idle_time_out"] = v.enc_uint(idle_timeout)
        self.engine.open(v.composite("open", **fields))

    def make_wire(self) -> Wire:
        return Wire(self.engine, now=0)

    def begin(self, incoming_window: int = 1000) -> int:
        return self.engine.begin(
            v.composite(
                "begin",
                next_outgoing_id=v.enc_uint(0),
                incoming_window=v.enc_uint(incoming_window),
                outgoing_window=v.enc_uint(1000),
            )
        )

    def attach(
        self, session: int, name: str, sender: bool, source: bytes = b"", target: bytes = b"", **fields: bytes
    ) -> int:
        if source:
            fields["source"] = source
        if target:
            fields["target"] = target
        return self.engine.attach(
            session,
            v.composite("attach", name=v.enc_str(name), handle=v.enc_uint(0), role=v.enc_bool(not sender), **fields),
        )

    def sender(self, session: int, address: str | None, name: str = "s", **fields: bytes) -> int:
        target = terminus("target", address)
        link = self.attach(session, name, True, terminus("source", "here"), target, **fields)
        self.run()
        return link

    def receiver(self, session: int, address: str, credit: int = 100, name: str = "r", **fields: bytes) -> int:
        link = self.attach(session, name, False, terminus("source", address), terminus("target", "here"), **fields)
        if credit:
            self.engine.flow(link, credit)
        self.run()
        return link

    def send(self, link: int, *payloads: bytes, settled: bool = False) -> int:
        """Send encoded messages; the delivery-id of the first."""
        taken, first = self.engine.send_messages(
            link, b"".join(payloads), array("I", map(len, payloads)), settled=settled
        )
        assert taken == len(payloads)
        self.run()
        return first

    def run(self, now: int | None = None) -> list[r.Record]:
        """Move everything there is to move; the records that came of it."""
        if now is not None:
            self.now = now
        fresh = self.wire.tick(self.now)
        self.pipe.tick(self.now)
        moved = True
        while moved:
            out = bytes(self.wire.output())
            self.wire.sent(len(out), self.now)
            self.pipe.feed(out, self.now)
            back = self.pipe.take()
            fresh += self.wire.feed(back, self.now) if back else self.wire.tick(self.now)
            moved = bool(out or back)
        self.records += fresh
        return fresh

    def of(self, kind: type) -> list[Any]:
        """All records of a kind so far."""
        return [record for record in self.records if isinstance(record, kind)]

    def outcomes(self) -> list[tuple[int, int, int]]:
        return [(s.first, s.last, s.outcome) for s in self.of(r.Settled)]

    def payloads(self) -> list[bytes]:
        return [d.payload for d in self.of(r.Delivery)]


def terminus(name: str, address: str | None, **fields: bytes) -> bytes:
    if address is not None:
        fields["address"] = v.enc_str(address)
    return v.described_composite(name, **fields)


def data(body: bytes) -> bytes:
    """A message that is one data section."""
    return v.enc_described(0x75, v.enc_binary(body))


@pytest.fixture
def memory_broker() -> Iterator[Callable[..., Broker]]:
    """Makes in-memory brokers."""
    made: list[Broker] = []

    def make(**options: Any) -> Broker:
        made.append(Broker(listen=False, **options))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def broker(memory_broker: Callable[..., Broker]) -> Broker:
    return memory_broker()


@pytest.fixture
def connect(broker: Broker) -> Callable[..., tuple[Client, int]]:
    """Opens a connection to `broker` (or another one) with a session; gives client and session."""

    def make(to: Broker | None = None, **options: Any) -> tuple[Client, int]:
        client = Client(to or broker, **options)
        session = client.begin()
        client.run()
        return client, session

    return make


@pytest.fixture(name="data")
def data_fixture() -> Callable[[bytes], bytes]:
    return data


@pytest.fixture(name="terminus")
def terminus_fixture() -> Callable[..., bytes]:
    return terminus
