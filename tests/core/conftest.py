"""A peer on a real loopback socket that moves only when the test says so."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Any

import pytest

from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine import values
from uamqp_cffi._core.engine.engine import Engine
from uamqp_cffi._core.engine.lib import StateError
from uamqp_cffi._core.transport.wire import Tls, Wire, clock
from uamqp_cffi.authentication import SASLAnonymous
from uamqp_cffi.connection import Connection

OPEN = {"container_id": values.enc_str("peer")}
BEGIN = {
    "next_outgoing_id": values.enc_uint(0),
    "incoming_window": values.enc_uint(100_000),
    "outgoing_window": values.enc_uint(100_000),
}
LIMIT = 10.0  # seconds after which a test gives up


class Peer:
    """A server: `step()` takes in what has come and answers. `silent` answers nothing; `open_fields` go into its
    open."""

    def __init__(
        self, context: ssl.SSLContext | None = None, mechanisms: tuple[str, ...] = ("ANONYMOUS", "PLAIN")
    ) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self.context = context
        self.mechanisms = mechanisms
        self.sasl_code = 0
        self.silent = False
        self.credit = 100
        self.accept = True  # settle deliveries as accepted
        self.open_fields: dict[str, bytes] = {}
        self.sock: socket.socket | None = None
        self.wire: Wire | None = None
        self.got: list[r.Record] = []
        self.received = 0
        self.ended = False

    def step(self) -> None:
        if self.sock is None:
            with contextlib.suppress(BlockingIOError):
                self.sock = self.listener.accept()[0]
                self.sock.setblocking(False)
                engine = Engine(server=True)
                if self.mechanisms:
                    engine.sasl_server(self.mechanisms)
                self.wire = Wire(engine, [Tls(self.context, server_side=True)] if self.context else [])
        if self.sock is None or self.wire is None or self.ended:
            return
        with contextlib.suppress(BlockingIOError):
            try:
                n = self.sock.recv_into(self.wire.window())
            except ConnectionResetError:
                n = 0
            if n == 0:
                self.ended = True
            self.received += n
            for record in self.wire.received(n, clock()):
                self.got.append(record)
                if not self.silent:
                    with contextlib.suppress(StateError):  # the client may have gone by then
                        self.answer(record)
        self.flush()

    def flush(self) -> None:
        assert self.wire is not None and self.sock is not None
        with contextlib.suppress(OSError):
            while out := self.wire.output():
                self.wire.sent(self.sock.send(out), clock())

    def answer(self, record: r.Record) -> None:
        assert self.wire is not None
        engine = self.wire.engine
        if isinstance(record, r.SaslInit):
            engine.sasl_outcome(self.sasl_code)
        elif isinstance(record, r.Open):
            engine.open(values.composite("open", **OPEN, **self.open_fields))
        elif isinstance(record, r.Begin):
            engine.begin(values.composite("begin", **BEGIN), record.session)
        elif isinstance(record, r.Attach):
            engine.attach(record.session, attach(record.sender, record.fields["name"]), record.link)
            engine.flow(record.link, self.credit)
        elif isinstance(record, r.Delivery) and self.accept:
            engine.settle(
                record.link, record.delivery_id, record.delivery_id, True, values.described_composite("accepted")
            )

    def seen(self, kind: type[Any]) -> list[Any]:
        return [record for record in self.got if isinstance(record, kind)]

    def reset(self) -> None:
        """End the connection with a RST."""
        assert self.sock is not None
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()
        self.ended = True

    def close(self) -> None:
        self.listener.close()
        if self.sock is not None:
            self.sock.close()


class Running:
    """The same in a thread, for tests in which the client blocks."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stop.wait(0.0005):
            self.peer.step()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(LIMIT)


def attach(sender: bool, name: str) -> bytes:
    return values.composite(
        "attach",
        name=values.enc_str(name),
        handle=values.enc_uint(0),
        role=values.enc_bool(not sender),
        source=values.described_composite("source", address=values.enc_str("q")),
        target=values.described_composite("target", address=values.enc_str("q")),
        initial_delivery_count=values.enc_uint(0) if sender else values.NULL,
    )


def pump(connection: Connection, peer: Peer, until: Any) -> None:
    """Step both until `until()` says so."""
    end = time.monotonic() + LIMIT
    while not until():
        assert time.monotonic() < end, f"nothing came of it: {connection._state}, {connection._failure!r}"
        connection._step(0.001)
        peer.step()


class Link:
    """A session and a sending link with one inbox, as a client makes them."""

    def __init__(self, connection: Connection) -> None:
        from uamqp_cffi._core.waiting.plan import Inbox

        self.inbox = Inbox()
        self.connection = connection
        with connection._io:
            engine = connection._engine
            self.session = engine.begin(values.composite("begin", **BEGIN))
            connection._route_session(self.session, self.inbox)
            self.link = engine.attach(self.session, attach(True, "ours"))
            connection._route_link(self.link, self.inbox)
        connection._flush()

    def send(self, *bodies: bytes, settled: bool = False) -> int:
        from array import array

        with self.connection._io:
            taken, first = self.connection._engine.send_messages(
                self.link, b"".join(bodies), array("I", map(len, bodies)), data=True, settled=settled
            )
        assert taken == len(bodies)
        self.connection._flush()
        return first

    def take(self, kind: type[Any]) -> list[Any]:
        found = [record for record in self.inbox.records if isinstance(record, kind)]
        self.inbox.records.clear()
        return found


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def running():
    """`running(peer)` steps that peer in a thread until the test ends."""
    started: list[Running] = []

    def run(peer: Peer) -> Running:
        started.append(Running(peer))
        return started[-1]

    yield run
    for one in started:
        one.end()


@pytest.fixture
def connect():
    """`connect(peer, **kwargs)` makes a plain connection to it; `auth` may be given."""
    made: list[Connection] = []

    def make(peer: Peer, auth: Any = None, **kwargs: Any) -> Connection:
        auth = auth or SASLAnonymous("127.0.0.1", port=peer.port, use_tls=False)
        made.append(Connection("127.0.0.1", auth, **kwargs))
        return made[-1]

    yield make
    for connection in made:
        connection._close(0.2)


@pytest.fixture
def tools() -> Any:
    """The helpers of this file, for tests that are imported from somewhere else."""
    import types

    return types.SimpleNamespace(Peer=Peer, Link=Link, pump=pump, LIMIT=LIMIT, BEGIN=BEGIN, attach=attach)
