"""Peers for the client tests: the embedded broker on a socket, and one that does only what a test tells it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi import SendClient
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine.engine import Engine
from uamqp_cffi._core.engine.lib import undump
from uamqp_cffi._core.engine.values import (
    composite,
    described_composite,
    enc_bool,
    enc_str,
    enc_symbol,
    enc_uint,
    enc_ulong,
)
from uamqp_cffi._core.transport.wire import Wire, clock
from uamqp_cffi.broker import Broker

LIMIT = 10.0  # seconds after which a test gives up waiting

TARGET = described_composite("target", address=enc_str("q"))
ACCEPTED = described_composite("accepted")


class Peer:
    """A server of one connection, on a thread of its own.

    `on[RecordClass]` is called with the peer and the record instead of what the peer would do by itself: answer begin
    and attach, grant `credit`, accept deliveries when `accept` is set. `got` holds every record; `wait(cls)` waits for one.
    """

    def __init__(self, credit: int = 100, accept: bool = True, max_message_size: int = 0) -> None:
        self.credit = credit
        self.accept = accept
        self.max_message_size = max_message_size
        self.incoming_window = 10_000
        self.on: dict[type, Callable[[Peer, Any], object]] = {}
        self.got: list[Any] = []
        self.links: dict[int, r.Attach] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()
        self._raw = b""
        self._todo: list[Callable[[], object]] = []
        self._wake, self._woken = socket.socketpair()
        self._stop = False
        self.ended = threading.Event()
        self.engine = Engine(server=True)
        self.engine.sasl_server(("ANONYMOUS", "PLAIN"))
        self.problems: list[BaseException] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @staticmethod
    def error(condition: str, description: str | None = None) -> bytes:
        """An encoded AMQP error."""
        text = None if description is None else enc_str(description)
        return described_composite("error", condition=enc_symbol(condition), description=text)

    @property
    def url(self) -> str:
        return f"amqp://localhost:{self.port}/q"

    def records(self, kind: type) -> list[Any]:
        with self._changed:
            return [record for record in self.got if type(record) is kind]

    def wait(self, kind: type, count: int = 1) -> list[Any]:
        """The records of that class, once there are `count`."""
        with self._changed:
            found = self._changed.wait_for(lambda: len([g for g in self.got if type(g) is kind]) >= count, LIMIT)
            assert found, f"no {count} {kind.__name__} in {[type(g).__name__ for g in self.got]}"
            return [record for record in self.got if type(record) is kind]

    def do(self, fn: Callable[[], object]) -> None:
        """Call `fn` on the peer's thread, which alone may touch the engine."""
        done = threading.Event()

        def call() -> None:
            try:
                fn()
            finally:
                done.set()

        self._todo.append(call)
        self._wake.send(b"x")
        assert done.wait(LIMIT)

    def inject(self, text: str) -> None:
        """Have that frame, in the notation of traces, sent behind what the engine says now. On the peer's thread."""
        self._raw += undump(text)

    @property
    def link(self) -> int:
        """The one link there is."""
        self.wait(r.Attach)
        return next(iter(self.links))

    def drop(self) -> None:
        """End the transport without a word."""
        self._stop = True
        with contextlib.suppress(OSError):  # closed: it has ended before
            self._wake.send(b"x")
        self._thread.join(LIMIT)
        self._wake.close()
        self._woken.close()

    close = drop

    def _serve(self) -> None:
        try:
            self._listener.settimeout(LIMIT * 3)
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                selector.register(self._woken, selectors.EVENT_READ)
                sock = None
                while sock is None and not self._stop:
                    for key, _ in selector.select():
                        if key.fileobj is self._listener:
                            sock = self._listener.accept()[0]
                        else:
                            self._woken.recv(1)
                if sock is not None:
                    selector.unregister(self._listener)
                    with sock:
                        self._talk(sock, selector)
        except BaseException as error:  # a thread's failure is the test's
            self.problems.append(error)
        finally:
            self._listener.close()
            self.ended.set()

    def _talk(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(self.engine)
        selector.register(sock, selectors.EVENT_READ)
        while not self._stop:
            for key, _ in selector.select(1.0):
                if key.fileobj is not sock:
                    self._woken.recv(1)
                    continue
                try:
                    n = sock.recv_into(wire.window())
                except (BlockingIOError, ConnectionResetError):
                    n = 0
                if n == 0:
                    return
                self._take_in(wire.received(n, clock()))
            while self._todo:
                self._todo.pop(0)()
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                while out := wire.output():
                    wire.sent(sock.send(out), clock())
                sock.sendall(self._raw)
                self._raw = b""
            self._take_in(wire.tick(clock()))

    def _take_in(self, batch: list[Any]) -> None:
        for record in batch:
            handler = self.on.get(type(record))
            if handler is not None:
                handler(self, record)
            else:
                self.answer(record)
            with self._changed:
                self.got.append(record)
                self._changed.notify_all()

    def answer(self, record: Any) -> None:
        """What the peer does by itself."""
        engine = self.engine
        if isinstance(record, r.SaslInit):
            engine.sasl_outcome(0)
        elif isinstance(record, r.Open):
            engine.open(composite("open", container_id=enc_str("peer")))
        elif isinstance(record, r.Begin):
            begin = composite(
                "begin", next_outgoing_id=enc_uint(7), incoming_window=enc_uint(self.incoming_window),
                outgoing_window=enc_uint(1000),
            )  # fmt: skip
            engine.begin(begin, record.session)
        elif isinstance(record, r.Attach):
            self.attach(record)
        elif isinstance(record, r.Delivery) and self.accept and not record.settled:
            engine.settle(record.link, record.delivery_id, record.delivery_id, True, ACCEPTED)

    def attach(self, record: r.Attach, target: bytes | None = TARGET) -> None:
        """Answer an attach; `target` None: with no target."""
        fields: dict[str, bytes | None] = {
            "name": enc_str(record.fields["name"]),
            "handle": enc_uint(0),
            "role": enc_bool(not record.sender),
            "source": described_composite("source"),
            "target": target,
        }
        if record.sender:
            fields["initial_delivery_count"] = enc_uint(0)
        if self.max_message_size:
            fields["max_message_size"] = enc_ulong(self.max_message_size)
        self.engine.attach(record.session, composite("attach", **fields), record.link)
        self.links[record.link] = record
        if target is not None and self.credit and not record.sender:
            self.engine.flow(record.link, self.credit)


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.drop()
    assert not made.problems, made.problems


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as made:
        yield made


@pytest.fixture
def client(broker: Broker) -> Iterator[SendClient]:
    """A client of the broker's queue `q`."""
    with SendClient(broker.url + "/q") as made:
        yield made
