"""The embedded broker on real sockets: many clients, TLS, certificates, scripted breaks, closing in time."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from uamqp_cffi._broker.thread import BrokerThread
from uamqp_cffi._core.engine import engine as eng
from uamqp_cffi._core.engine import lib
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine import values as v
from uamqp_cffi._core.transport.filters.tls import Tls
from uamqp_cffi._core.transport.wire import Wire, clock
from uamqp_cffi.broker import Broker

pytest_plugins = "uamqp_cffi.pytest_plugin"

Data = Callable[[bytes], bytes]
HEARTBEAT = b"\x00\x00\x00\x08\x02\x00\x00\x00"


class SocketClient:
    """The engine on a blocking socket. `until` pumps until something holds."""

    def __init__(
        self,
        broker: Broker,
        context: ssl.SSLContext | None = None,
        sasl: tuple[str, bytes | None] | None = None,
        **fields: bytes,
    ) -> None:
        self.engine = eng.Engine()
        if sasl is not None:
            self.engine.sasl_client(*sasl)
        self.sock = socket.create_connection(("127.0.0.1", broker.port), timeout=10)
        self.wire = Wire(self.engine, [Tls(context, "localhost")] if context is not None else [])
        self.records: list[r.Record] = []
        self.ended = False
        self.engine.open(v.composite("open", container_id=v.enc_str("test"), **fields))
        self.session = self.engine.begin(
            v.composite(
                "begin",
                next_outgoing_id=v.enc_uint(0),
                incoming_window=v.enc_uint(5000),
                outgoing_window=v.enc_uint(5000),
            )
        )

    def attach(self, address: str, sender: bool, name: str = "link") -> int:
        there, here = v.enc_str(address), v.enc_str("here")
        source, target = (here, there) if sender else (there, here)
        return self.engine.attach(
            self.session,
            v.composite(
                "attach",
                name=v.enc_str(name),
                handle=v.enc_uint(0),
                role=v.enc_bool(not sender),
                source=v.described_composite("source", address=source),
                target=v.described_composite("target", address=target),
            ),
        )

    def flush(self) -> None:
        while out := self.wire.output():
            self.wire.sent(self.sock.send(out), clock())

    def until(self, done: Callable[[], Any]) -> None:
        while True:
            self.flush()
            if done():
                return
            assert not self.ended, "the broker has ended the connection"
            room = self.wire.window()
            if not room:
                self.records += self.wire.tick(clock())
                continue
            n = self.sock.recv_into(room)
            if n:
                self.records += self.wire.received(n, clock())
            else:
                self.ended = True

    def until_more(self) -> None:
        """Pump until there is one record more."""
        seen = len(self.records)
        self.until(lambda: len(self.records) > seen)

    def until_settled(self, n: int) -> None:
        """Pump until `n` messages are accepted."""
        self.until(lambda: self.settled() == n)

    def of(self, kind: type) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]

    def send(self, link: int, payloads: list[bytes], settled: bool = False) -> None:
        """Send everything, as credit allows."""
        while payloads:
            piece = payloads[:500]
            taken, _ = self.engine.send_messages(link, b"".join(piece), array("I", map(len, piece)), settled=settled)
            payloads = payloads[taken:]
            if payloads and not taken:
                self.until_more()
            self.flush()

    def settled(self) -> int:
        return sum(s.last - s.first + 1 for s in self.of(r.Settled) if s.outcome == lib.OUT_ACCEPTED)

    def close(self) -> None:
        self.engine.close()
        self.until(lambda: self.of(r.Close))
        self.sock.close()


@pytest.fixture
def dial() -> Iterator[Callable[..., SocketClient]]:
    made: list[SocketClient] = []

    def make(*args: Any, **options: Any) -> SocketClient:
        made.append(SocketClient(*args, **options))
        return made[-1]

    yield make
    for client in made:
        client.sock.close()


def test_a_thousand_messages_there_and_back(amqp_broker: Broker, dial: Callable[..., SocketClient], data: Data) -> None:
    client = dial(amqp_broker)
    payloads = [data(b"%d" % i) for i in range(1000)]
    client.send(client.attach("/q", True, "out"), payloads)
    client.until_settled(1000)
    assert amqp_broker.payloads("q") == payloads
    link = client.attach("q", False, "in")
    client.engine.flow(link, 2000)
    client.until(lambda: len(client.of(r.Delivery)) == 1000)
    assert [d.payload for d in client.of(r.Delivery)] == payloads
    client.engine.settle(link, 0, 999, True, v.described_composite("accepted"))
    client.close()
    assert amqp_broker.info("q").messages == 0


def test_many_clients_at_once(amqp_broker: Broker, dial: Callable[..., SocketClient], data: Data) -> None:
    clients = [dial(amqp_broker) for _ in range(50)]
    for n, client in enumerate(clients):
        client.send(client.attach("q", True), [data(b"%d" % n)] * 20)
    for client in clients:
        client.until_settled(20)
    assert amqp_broker.info("q").received == 1000
    assert amqp_broker.connections == 50


def test_a_waiting_thread_learns_of_messages(
    amqp_broker: Broker, dial: Callable[..., SocketClient], data: Data
) -> None:
    got: list[Any] = []
    waiter = threading.Thread(target=lambda: got.extend(amqp_broker.wait_for("q", 3, 10)))
    waiter.start()
    client = dial(amqp_broker)
    client.send(client.attach("q", True), [data(b"%d" % i) for i in range(3)], settled=True)
    waiter.join(10)
    assert [b"".join(m.get_data()) for m in got] == [b"0", b"1", b"2"]


def test_waiting_ends_with_the_time_given(amqp_broker: Broker) -> None:
    amqp_broker.put("q", "one")
    with pytest.raises(TimeoutError, match="1 of 2 messages came into 'q'"):
        amqp_broker.wait_for("/q", 2, 0.01)


def test_a_message_put_in_reaches_a_waiting_consumer(amqp_broker: Broker, dial: Callable[..., SocketClient]) -> None:
    client = dial(amqp_broker)
    client.engine.flow(client.attach("q", False), 10)
    client.until(lambda: amqp_broker.info("q").consumers)
    amqp_broker.put("q", b"hello")
    client.until(lambda: client.of(r.Delivery))
    assert client.of(r.Delivery)[0].payload.endswith(b"hello")


@pytest.mark.parametrize("size", [100_000, 5_000_000])
def test_large_messages(size: int, amqp_broker: Broker, dial: Callable[..., SocketClient], data: Data) -> None:
    client = dial(amqp_broker)
    payloads = [data(bytes([i]) * size) for i in range(4)]
    client.send(client.attach("q", True, "out"), payloads)
    client.until_settled(4)
    client.engine.flow(client.attach("q", False, "in"), 10)
    client.until(lambda: len(client.of(r.Delivery)) == 4)
    assert [d.payload for d in client.of(r.Delivery)] == payloads


def test_a_consumer_that_does_not_read_holds_up_nobody(
    amqp_broker: Broker, dial: Callable[..., SocketClient], data: Data
) -> None:
    for _ in range(40):
        amqp_broker.put("big", bytes(1_000_000))
    lazy = dial(amqp_broker)
    lazy.engine.flow(lazy.attach("big", False), 1000)
    lazy.until(lambda: lazy.of(r.Delivery))
    client = dial(amqp_broker)
    client.send(client.attach("q", True), [data(b"x")] * 100)
    client.until_settled(100)
    lazy.until(lambda: len(lazy.of(r.Delivery)) == 40)


def test_heartbeats_come_for_as_long_as_nothing_else_does(
    amqp_broker: Broker, dial: Callable[..., SocketClient]
) -> None:
    """All of the client's frames come at once, and after that not one: time alone must make the broker speak."""
    client = dial(amqp_broker, idle_time_out=v.enc_uint(100))
    client.engine.set(lib.OPT_PIPELINE, 1)
    client.engine.flow(client.attach("q", False), 10)
    client.until(lambda: amqp_broker.info("q").consumers)
    while client.sock.recv_into(client.wire.window(), 8, socket.MSG_PEEK) == 8:
        if bytes(client.wire.window()[:8]) == HEARTBEAT:
            break
        client.records += client.wire.received(client.sock.recv_into(client.wire.window()), clock())
    beats = b""
    while len(beats) < 4 * len(HEARTBEAT):
        beats += client.sock.recv(len(HEARTBEAT))
    assert beats == 4 * HEARTBEAT


# ---- TLS ----


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def test_tls_with_files(ca: trustme.CA, certificate: Path, dial: Callable[..., SocketClient], data: Data) -> None:
    with Broker(cert_file=str(certificate), users={"ann": "s3cret"}) as broker:
        assert broker.url == f"amqps://localhost:{broker.port}"
        client = dial(broker, trusting(ca), ("PLAIN", b"\0ann\0s3cret"))
        payloads = [data(b"%d" % i * 1000) for i in range(300)]
        client.send(client.attach("q", True, "out"), payloads)
        client.until_settled(300)
        client.engine.flow(client.attach("q", False, "in"), 300)
        client.until(lambda: len(client.of(r.Delivery)) == 300)
        assert [d.payload for d in client.of(r.Delivery)] == payloads
        client.close()


def test_tls_with_a_context(ca: trustme.CA, dial: Callable[..., SocketClient]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    with Broker(ssl_context=context) as broker:
        client = dial(broker, trusting(ca))
        client.until(lambda: client.of(r.Open))
        client.close()


def test_a_client_certificate_is_an_identity(
    ca: trustme.CA,
    certificate: Path,
    ca_file: Path,
    dial: Callable[..., SocketClient],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Broker(cert_file=str(certificate), client_ca=str(ca_file), sasl=["EXTERNAL"]) as broker:
        context = trusting(ca)
        ca.issue_cert("ann@example.org", common_name="ann").configure_cert(context)
        client = dial(broker, context, ("EXTERNAL", b""))
        client.until(lambda: client.of(r.Open))
        with broker._changed:
            assert [peer.user for peer in broker._core.peers.values()] == ["ann"]
        stranger = dial(broker, trusting(ca), ("EXTERNAL", b""))
        stranger.until(lambda: stranger.of(r.SaslOutcome))
        assert stranger.of(r.SaslOutcome)[0].code == 1


def test_plain_bytes_on_a_tls_port_and_the_reverse_end_that_connection_only(
    certificate: Path, ca: trustme.CA, amqp_broker: Broker, dial: Callable[..., SocketClient]
) -> None:
    with Broker(cert_file=str(certificate)) as broker:
        with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as plain:
            plain.sendall(b"AMQP\x00\x01\x00\x00")
            while plain.recv(4096):
                continue
        client = dial(broker, trusting(ca))
        client.until(lambda: client.of(r.Open))
    with socket.create_connection(("127.0.0.1", amqp_broker.port), timeout=10) as wrong:
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            trusting(ca).wrap_socket(wrong, server_hostname="localhost")
    other = dial(amqp_broker)
    other.until(lambda: other.of(r.Open))


# ---- breaks ----


def test_a_scripted_drop_ends_the_stream_after_the_outcomes(
    amqp_broker: Broker, dial: Callable[..., SocketClient], data: Data
) -> None:
    amqp_broker.script("q", fail="drop", after=2)
    client = dial(amqp_broker)
    client.send(client.attach("q", True), [data(b"x")] * 5)
    client.until(lambda: client.ended)
    assert client.settled() == 2 and client.of(r.Close) == []


def test_a_client_that_stays_after_a_drop_costs_no_time(
    amqp_broker: Broker, dial: Callable[..., SocketClient], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wanted heartbeats; none are due any more."""
    looks = 0
    tick_all = BrokerThread._tick_all

    def watched(thread: BrokerThread) -> None:
        nonlocal looks
        looks += 1
        tick_all(thread)

    monkeypatch.setattr(BrokerThread, "_tick_all", watched)
    amqp_broker.script("fragile", "none", fail="drop", after=1)
    client = dial(amqp_broker, idle_time_out=v.enc_uint(20))
    link = client.attach("fragile", True)
    with pytest.raises(AssertionError, match="has ended the connection"):
        client.until(lambda: client.of(r.Credit))
        client.send(link, [data(b"x")])
        client.until(lambda: False)
    assert amqp_broker._thread is not None
    while amqp_broker._thread._by_peer:  # for a second
        time.sleep(0.01)
    assert looks < 100


def test_all_connections_can_be_dropped_and_new_ones_come(
    amqp_broker: Broker, dial: Callable[..., SocketClient]
) -> None:
    client = dial(amqp_broker)
    client.until(lambda: client.of(r.Open))
    amqp_broker.drop_connections()
    client.until(lambda: client.ended)
    again = dial(amqp_broker)
    again.until(lambda: again.of(r.Open))


def test_a_reset_in_the_middle_of_a_message_loses_only_that(
    amqp_broker: Broker, dial: Callable[..., SocketClient], data: Data
) -> None:
    client = dial(amqp_broker)
    link = client.attach("q", True)
    client.send(link, [data(b"first")])
    client.until_settled(1)
    big = data(bytes(1_000_000))
    client.engine.send_messages(link, big, array("I", [len(big)]))
    client.sock.sendall(bytes(client.wire.output()[:300_000]))
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.sock.close()
    other = dial(amqp_broker)
    other.send(other.attach("q", True), [data(b"second")])
    other.until_settled(1)
    assert amqp_broker.payloads("q") == [data(b"first"), data(b"second")]


def test_too_many_connections_are_turned_away(dial: Callable[..., SocketClient]) -> None:
    with Broker(max_connections=2) as broker:
        for _ in range(2):
            dial(broker).until_more()
        with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as third:
            with contextlib.suppress(ConnectionResetError):
                assert third.recv(1) == b""


def test_closing_says_good_bye_and_leaves_nothing(dial: Callable[..., SocketClient]) -> None:
    before = {thread.name for thread in threading.enumerate()}
    broker = Broker()
    client = dial(broker)
    client.until(lambda: client.of(r.Open))
    closer = threading.Thread(target=broker.close)
    closer.start()
    client.until(lambda: client.of(r.Close))
    assert client.of(r.Close)[0].error.condition == b"amqp:connection:forced"
    client.until(lambda: client.ended)
    client.sock.close()
    closer.join(10)
    broker.close()
    assert {thread.name for thread in threading.enumerate()} == before
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", broker.port), timeout=1)


def test_closing_does_not_wait_long_for_clients_that_do_not_answer(dial: Callable[..., SocketClient]) -> None:
    broker = Broker()
    client = dial(broker)
    client.until(lambda: client.of(r.Open))
    silent = socket.create_connection(("127.0.0.1", broker.port), timeout=10)
    started = time.monotonic()
    broker.close()
    assert time.monotonic() - started < 2
    silent.close()


def test_the_port_of_another_is_an_error_that_leaves_no_thread() -> None:
    with Broker() as broker:
        threads = threading.active_count()
        with pytest.raises(OSError):
            Broker(port=broker.port)
        assert threading.active_count() == threads


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_a_broker_on_all_addresses_gives_one_that_means_this_machine(host: str) -> None:
    try:
        broker = Broker(host)
    except OSError as error:
        pytest.skip(f"no broker on {host!r} here: {error}")
    with broker:
        assert broker.url == f"amqp://{'[::1]' if host == '::' else '127.0.0.1'}:{broker.port}"
