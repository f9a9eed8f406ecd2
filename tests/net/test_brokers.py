"""RabbitMQ 4.3 and 3.10, for real: every message that goes out is read back by python-qpid-proton, and what the brokers refuse
is refused as documented. `.ci/run` starts the brokers."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from uamqp_cffi import Connection, Message, ReceiveClient, SendClient, authentication, constants, errors, message

pytestmark = pytest.mark.net

Codes = constants.ErrorCodes
Delivery = constants.Delivery
Settle = constants.SenderSettleMode
State = constants.MessageState

HERE = pathlib.Path(__file__).resolve().parent


class Rabbit:
    """One broker: how to reach it, how it spells addresses, and how to look into its queues from outside."""

    def __init__(self, name: str, where: str, shared: pathlib.Path, certs: pathlib.Path, reader: str) -> None:
        self.name, self.certs, self._reader = name, certs, reader
        url = urlsplit(where)
        self.host, self.port = url.hostname or "localhost", url.port or 5672
        self.tls_port = int(parse_qs(url.query)["tls"][0])
        self._script = shared / "brokers" / ("rabbitmq4.sh" if name == "4.3" else "rabbitmq.sh")
        self._declared: list[str] = []

    # administration
    def ctl(self, *arguments: str) -> None:
        subprocess.run(["sh", self._script, *arguments], check=True, timeout=60, capture_output=True)

    def declare(self, kind: str = "classic") -> str:
        """A fresh queue; its name."""
        name = f"net-{uuid.uuid4().hex}"
        if self.name == "4.3":
            self.ctl("queue", name, kind)
        self._declared.append(name)  # 3.10 declares /queue/NAME when somebody attaches to it
        return name

    def forget(self) -> None:
        for name in self._declared:
            subprocess.run(
                ["sh", self._script, "ctl", "delete_queue", name], timeout=60, capture_output=True, check=False
            )

    # addresses
    def fresh(self, name: str) -> str:
        """The address of a queue of `declare`."""
        return f"/queues/{name}" if self.name == "4.3" else f"/queue/{name}"

    def existing(self, name: str) -> str:
        """The address of a durable queue that was there before."""
        return f"/queues/{name}" if self.name == "4.3" else f"/amq/queue/{name}"

    # clients
    def auth(
        self, sasl: str, tls: bool, user: str = "guest", password: str = "guest", **how: Any
    ) -> authentication.AMQPAuth:
        how.setdefault("verify", str(self.certs / "ca.pem"))
        how["port"] = how.get("port", self.tls_port if tls else self.port)
        if sasl == "PLAIN":
            return authentication.SASLPlain(self.host, user, password, use_tls=tls, **how)
        if sasl == "EXTERNAL":
            how.update(cert_file=str(self.certs / "client.pem"), key_file=str(self.certs / "client.key"))
            return authentication.SASLExternal(self.host, use_tls=tls, **how)
        return authentication.SASLAnonymous(self.host, use_tls=tls, **how)

    def client(self, address: str, sasl: str = "PLAIN", tls: bool = False, **how: Any) -> SendClient:
        auth = how.pop("auth", None) or self.auth(sasl, tls)
        return SendClient(f"{'amqps' if tls else 'amqp'}://{self.host}", auth, address=address, **how)

    def receiver(self, address: str, tls: bool = False, **how: Any) -> ReceiveClient:
        auth = self.auth("PLAIN", tls)
        how.setdefault("timeout", 10_000)
        return ReceiveClient(f"{'amqps' if tls else 'amqp'}://{self.host}", auth, address=address, **how)

    def depth(self, address: str) -> dict[str, int]:
        """How many messages of the queue are ready, and unacknowledged."""
        command = [
            "sh",
            self._script,
            "ctl",
            "list_queues",
            "--quiet",
            "name",
            "messages_ready",
            "messages_unacknowledged",
        ]
        done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=True)
        rows = (line.split("\t") for line in done.stdout.splitlines())
        (found,) = [row for row in rows if len(row) == 3 and row[0] == address.rpartition("/")[2]]
        return {"ready": int(found[1]), "unacknowledged": int(found[2])}

    def read(self, address: str, count: int, *more: str) -> list[Any]:
        """What python-qpid-proton finds in the queue; empties it."""
        url = f"amqp://guest:guest@{self.host}:{self.port}"
        command = [self._reader, str(HERE / "proton_reader.py"), url, address, str(count), "--seconds", "40", *more]
        done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}; found {len(json.loads(done.stdout or '[]'))} of {count}"
        return list(json.loads(done.stdout))


@pytest.fixture(scope="module", params=["4.3", "3.10"])
def rabbit(request: pytest.FixtureRequest, shared: pathlib.Path, certs: pathlib.Path) -> Iterator[Rabbit]:
    names = {"4.3": "UAMQP_RABBITMQ43", "3.10": "UAMQP_RABBITMQ310"}
    where, reader = os.environ.get(names[request.param], ""), os.environ.get("UAMQP_PROTON_PYTHON", "")
    if not where or not reader:
        pytest.skip(f"{names[request.param]} or UAMQP_PROTON_PYTHON is not set (.ci/run sets them)")
    broker = Rabbit(request.param, where, shared, certs, reader)
    yield broker
    broker.forget()


@pytest.fixture(scope="module")
def queue(rabbit: Rabbit) -> str:
    """A queue that each test leaves empty."""
    return rabbit.fresh(rabbit.declare())


def bodies(count: int, size: int) -> list[bytes]:
    """Bodies of `size` bytes, no two alike, here or in another run."""
    run = uuid.uuid4().hex.encode()
    filling = hashlib.shake_128(run).digest(size)
    return [(b"%s %08d " % (run, n) + filling)[:size] for n in range(count)]


def digests(some: list[bytes]) -> Counter[str]:
    return Counter(hashlib.sha256(body).hexdigest() for body in some)


def caused_by(problem: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an exception of that kind is among its causes."""
    while problem is not None and not isinstance(problem, kind):
        problem = problem.__cause__
    return problem is not None


# ---- all of them arrive ----

EVERY = list(itertools.product([Settle.Unsettled, Settle.Settled], ["PLAIN", "ANONYMOUS"], [False, True]))
PAIRS = [
    (Settle.Unsettled, "PLAIN", True),
    (Settle.Unsettled, "ANONYMOUS", False),
    (Settle.Settled, "ANONYMOUS", True),
    (Settle.Settled, "PLAIN", False),
]
"""Enough of EVERY to have each pair of values once."""


def combination(case: tuple[Any, str, bool]) -> str:
    return f"{case[0].name.lower()}-{case[1].lower()}-{'tls' if case[2] else 'tcp'}"


@pytest.mark.parametrize("case", EVERY if os.environ.get("UAMQP_NET_FULL") else PAIRS, ids=combination)
@pytest.mark.parametrize(("count", "size"), [(10_000, 100), (100, 1 << 20)], ids=["10000x100B", "100x1MiB"])
def test_every_message_is_there_once_and_whole(
    rabbit: Rabbit, queue: str, ends_within: Any, case: tuple[Any, str, bool], count: int, size: int
) -> None:
    mode, sasl, tls = case
    sent = bodies(count, size)
    messages = [Message(body) for body in sent]
    client = rabbit.client(queue, sasl, tls, send_settle_mode=mode)
    client.queue_message(*messages)
    end = ends_within(40, client.send_all_messages)
    assert end.error is None
    assert end.value == [State.SendComplete] * count
    assert Counter(rabbit.read(queue, count)) == digests(sent)


def test_every_section_arrives_as_it_was_set(rabbit: Rabbit, queue: str, ends_within: Any) -> None:
    header = message.MessageHeader()
    header.durable = True
    header.priority = 3
    sent = Message(
        b"body",
        properties=message.MessageProperties(
            message_id="the id",
            to="somewhere",
            subject="a subject",
            reply_to="here",
            correlation_id=2**40,
            content_type="text/plain",
            content_encoding="identity",
            group_id="a group",
            group_sequence=7,
        ),
        application_properties={"text": "ünïcode", "number": 2**40, "yes": True, "nothing": None},
        annotations={b"x-opt-mine": "annotated"},
        header=header,
    )
    client = rabbit.client(queue)
    assert ends_within(20, client.send_message, sent, True).error is None
    (got,) = rabbit.read(queue, 1, "--sections")
    expected = {
        "id": "the id", "address": "somewhere", "subject": "a subject", "reply_to": "here", "correlation_id": 2**40,
        "content_type": "text/plain", "content_encoding": "identity", "group_id": "a group", "group_sequence": 7,
        "properties": {"text": "ünïcode", "number": 2**40, "yes": True, "nothing": None},
        "durable": True, "priority": 3, "body": {"binary": b"body".hex()},
    }  # fmt: skip
    assert {name: got[name] for name in expected} == expected
    assert got["annotations"]["x-opt-mine"] == "annotated"


def test_several_clients_at_once_lose_nothing(rabbit: Rabbit, queue: str, ends_within: Any) -> None:
    parts = [bodies(500, 200) for _ in range(4)]
    clients = [rabbit.client(queue) for _ in parts]

    def send() -> list[Any]:
        threads = []
        results: list[Any] = [None] * len(parts)
        for n, (client, part) in enumerate(zip(clients, parts, strict=True)):
            client.queue_message(*map(Message, part))

            def work(n: int = n, client: SendClient = client) -> None:
                results[n] = client.send_all_messages()

            threads.append(threading.Thread(target=work, daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()
        return results

    assert ends_within(40, send).value == [[State.SendComplete] * 500] * 4
    assert Counter(rabbit.read(queue, 2000)) == digests([body for part in parts for body in part])


def test_several_links_share_a_connection(rabbit: Rabbit, queue: str, ends_within: Any) -> None:
    shared_connection = Connection(rabbit.host, rabbit.auth("PLAIN", False))
    clients = [rabbit.client(queue) for _ in range(3)]
    sent = [bodies(100, 100) for _ in clients]

    def send() -> list[Any]:
        for client in clients:
            client.open(connection=shared_connection)
        results = []
        for client, part in zip(clients, sent, strict=True):
            client.queue_message(*map(Message, part))
            results.append(client.send_all_messages(close_on_done=False))
        for client in clients:
            client.close()
        shared_connection.destroy()
        return results

    end = ends_within(30, send)
    assert end.error is None
    assert end.value == [[State.SendComplete] * 100] * 3
    assert Counter(rabbit.read(queue, 300)) == digests([body for part in sent for body in part])


def test_external_authentication_by_client_certificate(rabbit: Rabbit, queue: str, ends_within: Any) -> None:
    client = rabbit.client(queue, "EXTERNAL", True)
    body = bodies(1, 100)
    assert ends_within(20, client.send_message, Message(body[0]), True).error is None
    assert Counter(rabbit.read(queue, 1)) == digests(body)


def test_awkward_password_in_the_url_works(rabbit: Rabbit, queue: str, ends_within: Any) -> None:
    url = f"amqp://test:pa%20ss%3Aw%40rd%2F%25@{rabbit.host}:{rabbit.port}"
    client = SendClient(url, address=queue, use_tls=False)
    body = bodies(1, 100)
    assert ends_within(20, client.send_message, Message(body[0]), True).error is None
    assert Counter(rabbit.read(queue, 1)) == digests(body)


def test_virtual_host_by_the_connections_hostname(rabbit: Rabbit, ends_within: Any) -> None:
    """That it is the other virtual host shows in what is not there: 4.3 misses q1, and 3.10 (which would accept messages to
    a missing queue) has no permission there for this user."""
    if rabbit.name == "4.3":
        auth, condition = rabbit.auth("PLAIN", False), Codes.NotFound
    else:
        auth, condition = rabbit.auth("PLAIN", False, "test", "pa ss:w@rd/%"), Codes.UnauthorizedAccess
    connection = Connection("vhost:other", auth)
    client = rabbit.client(rabbit.existing("q1"))

    def send() -> None:
        client.open(connection=connection)
        client.send_message(Message(b"x"))

    end = ends_within(20, send)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert end.error.condition is condition
    assert ends_within(6, client.close).error is None
    assert ends_within(6, connection.destroy).error is None


# ---- what is refused ----


def test_missing_node_is_not_found(rabbit: Rabbit, ends_within: Any) -> None:
    # 3.10 accepts messages to a missing queue, hence an exchange
    client = rabbit.client("/queues/no-such-node" if rabbit.name == "4.3" else "/exchange/no-such-node/k")
    sent = Message(b"x")
    client.queue_message(sent)
    end = ends_within(10, client.send_all_messages, close_on_done=False)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert end.error.condition is Codes.NotFound
    assert end.error.scope in ("session", "link")
    assert "no-such-node" in str(end.error)
    assert client.pending_messages == [sent]
    assert ends_within(6, client.close).error is None


def test_missing_permission_is_unauthorized_access(rabbit: Rabbit, ends_within: Any) -> None:
    auth = rabbit.auth("PLAIN", False, "noperm", "noperm")
    sent = Message(b"x")
    client = rabbit.client("/exchanges/amq.direct/k" if rabbit.name == "4.3" else "/exchange/amq.direct/k", auth=auth)
    client.queue_message(sent)
    end = ends_within(10, client.send_all_messages, close_on_done=False)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert end.error.condition is Codes.UnauthorizedAccess
    assert end.error.retryable is False
    assert client.pending_messages == [sent]
    assert ends_within(6, client.close).error is None


def test_whole_url_as_address_is_refused_with_the_remedy(rabbit: Rabbit, ends_within: Any) -> None:
    client = SendClient(f"amqp://guest:guest@{rabbit.host}:{rabbit.port}/q1", use_tls=False)
    client.queue_message(Message(b"x"))
    end = ends_within(10, client.send_all_messages, close_on_done=False)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert "address=" in str(end.error)
    assert ends_within(6, client.close).error is None


def test_full_queue_rejects(rabbit: Rabbit, ends_within: Any) -> None:
    address = rabbit.existing("short")
    rabbit.ctl("ctl", "purge_queue", "short")
    client = rabbit.client(address, error_policy=errors.ErrorPolicy(max_retries=0))
    sent = {body: Message(body) for body in bodies(30, 50)}
    client.queue_message(*sent.values())
    end = ends_within(15, client.send_all_messages, close_on_done=False)
    assert ends_within(6, client.close).error is None
    accepted = [body for body, m in sent.items() if m.state is State.SendComplete]
    if rabbit.name == "4.3":
        assert end.error is None
        refused = [m for m in sent.values() if m.state is State.SendFailed]
        assert len(accepted) + len(refused) == 30
        assert refused and all(isinstance(m._response, errors.MessageSendFailed) for m in refused)
        assert all(m.delivery is Delivery.DELIVERED for m in refused)
        assert Counter(rabbit.read(address, len(accepted))) == digests(accepted)
    else:  # its plugin crashes on a publish to a full queue: a lost connection, and no message forgotten
        assert isinstance(end.error, errors.AMQPConnectionError)
        pending = [m for m in sent.values() if m.state is State.WaitingToBeSent]
        assert client.pending_messages == pending
        assert len(pending) + len(accepted) == 30
        found = Counter(rabbit.read(address, 5))
        assert digests(accepted) <= found <= digests(list(sent))


def test_wrong_password_is_said_so(rabbit: Rabbit, ends_within: Any) -> None:
    client = rabbit.client(rabbit.existing("q1"), auth=rabbit.auth("PLAIN", False, "guest", "not this one"))
    client.queue_message(Message(b"x"))
    end = ends_within(8, client.send_all_messages, close_on_done=False)  # 3.10 takes its time: 3 s
    assert isinstance(end.error, errors.ConnectionClose) and isinstance(end.error, errors.AuthenticationException)
    assert "PLAIN" in str(end.error) and "not this one" not in str(end.error)
    assert end.error.delivery in (None, Delivery.NOT_DELIVERED)
    assert len(client.pending_messages) == 1
    assert ends_within(6, client.close).error is None


def test_untrusted_broker_is_refused(rabbit: Rabbit, ends_within: Any) -> None:
    auth = rabbit.auth("PLAIN", True, verify=str(rabbit.certs / "otherca.pem"))
    client = rabbit.client(rabbit.existing("q1"), tls=True, auth=auth)
    client.queue_message(Message(b"x"))
    end = ends_within(8, client.send_all_messages, close_on_done=False)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert caused_by(end.error, ssl.SSLCertVerificationError)
    assert ends_within(6, client.close).error is None


@pytest.mark.parametrize("tls", [False, True], ids=["plain-to-tls", "tls-to-plain"])
def test_wrong_one_of_the_two_ports(rabbit: Rabbit, ends_within: Any, tls: bool) -> None:
    auth = rabbit.auth("PLAIN", tls, port=rabbit.port if tls else rabbit.tls_port)
    client = rabbit.client(rabbit.existing("q1"), tls=tls, auth=auth)
    client.queue_message(Message(b"x"))
    end = ends_within(12, client.send_all_messages, close_on_done=False)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert not tls or "use_tls=False" in str(end.error)
    assert ends_within(6, client.close).error is None


# ---- what the peer grants is kept ----


class Tap:
    """A relay that reads the frames passing by and notes every transfer that the peer had not granted. It sees a FLOW before
    the client does, so what it notes is a fault for sure."""

    def __init__(self, port: int, amqp: Any) -> None:
        self.port_behind, self.amqp = port, amqp
        self.faults: list[str] = []
        self.transfers = 0
        self.smallest_credit = self.smallest_window = 1 << 32
        self._window_end = self._credit_end = 0  # serial numbers: the first transfer-id and delivery-count not granted
        self._next_id = self._count = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self.port_behind))
        for source, sink, note in ((client, server, self._from_client), (server, client, self._from_server)):
            threading.Thread(target=self._relay, args=(source, sink, note), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, note: Callable[[Any], None]) -> None:
        held = b""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                held += data
                while len(held) >= 8:
                    if held.startswith(b"AMQP"):
                        held = held[8:]
                        continue
                    size, doff, kind, channel = struct.unpack_from(">IBBH", held)
                    if len(held) < size:
                        break
                    if kind == 0:
                        with self._lock:
                            note(self.amqp.Frame(channel, held[doff * 4 : size]))
                    held = held[size:]
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _from_server(self, frame: Any) -> None:
        if frame.code == self.amqp.BEGIN:
            self._window_end = (self._next_id + frame[2]) & 0xFFFFFFFF
            self.smallest_window = min(self.smallest_window, frame[2])
        elif frame.code == self.amqp.FLOW:
            base = self._next_id if frame[0] is None else frame[0]
            self._window_end = (base + frame[1]) & 0xFFFFFFFF
            if frame[4] is not None and frame[6] is not None:
                self._credit_end = ((frame[5] or 0) + frame[6]) & 0xFFFFFFFF
                self.smallest_credit = min(self.smallest_credit, frame[6])

    def _from_client(self, frame: Any) -> None:
        if frame.code == self.amqp.BEGIN:
            self._next_id = frame[1]
        elif frame.code == self.amqp.ATTACH:
            self._count = frame[9] or 0
        elif frame.code == self.amqp.TRANSFER:
            self.transfers += 1
            if self._next_id == self._window_end:
                self.faults.append(f"transfer {self.transfers} beyond the session window")
            if self._count == self._credit_end:
                self.faults.append(f"transfer {self.transfers} beyond the link credit")
            self._next_id = (self._next_id + 1) & 0xFFFFFFFF
            if not frame[5]:
                self._count = (self._count + 1) & 0xFFFFFFFF

    def stop(self) -> None:
        self._listener.close()


@pytest.fixture
def tap(rabbit: Rabbit, amqp: Any) -> Iterator[Tap]:
    relay = Tap(rabbit.port, amqp)
    yield relay
    relay.stop()


def test_neither_window_nor_credit_is_overrun_by_10000_messages(
    rabbit: Rabbit, queue: str, tap: Tap, ends_within: Any
) -> None:
    client = rabbit.client(queue, auth=rabbit.auth("PLAIN", False, port=tap.port))
    sent = bodies(10_000, 100)
    client.queue_message(*map(Message, sent))
    end = ends_within(60, client.send_all_messages)
    assert end.error is None
    assert end.value == [State.SendComplete] * 10_000
    assert tap.transfers == 10_000
    assert tap.faults == []
    if rabbit.name == "4.3":
        assert (tap.smallest_window, tap.smallest_credit <= 170) == (400, True), (
            "the broker grants little, as it should"
        )
    assert Counter(rabbit.read(queue, 10_000)) == digests(sent)


# ---- receiving ----

Mode = constants.ReceiverSettleMode
RECEIVE_EVERY = list(itertools.product(list(Mode), [False, True]))
RECEIVE_PAIRS = [(Mode.PeekLock, True), (Mode.ReceiveAndDelete, False)]


def filled(rabbit: Rabbit, queue: str, ends_within: Any, some: list[bytes]) -> None:
    client = rabbit.client(queue)
    client.queue_message(*map(Message, some))
    assert ends_within(40, client.send_all_messages).value == [State.SendComplete] * len(some)


def taken(client: ReceiveClient, count: int, size: int = 200) -> list[Any]:
    """So many messages, in batches; fewer when there are no more."""
    got: list[Any] = []
    while len(got) < count and (batch := client.receive_message_batch(min(size, count - len(got)))):
        got += batch
    return got


def body_of(received: Any) -> bytes:
    return b"".join(received.get_data())


EMPTY = {"ready": 0, "unacknowledged": 0}


@pytest.fixture
def own_queue(rabbit: Rabbit) -> str:
    """A queue that no other test has left anything in."""
    return rabbit.fresh(rabbit.declare())


@pytest.mark.parametrize(
    "case",
    RECEIVE_EVERY if os.environ.get("UAMQP_NET_FULL") else RECEIVE_PAIRS,
    ids=lambda case: f"{case[0].name.lower()}-{'tls' if case[1] else 'tcp'}",
)
@pytest.mark.parametrize(("count", "size"), [(10_000, 100), (100, 1 << 20)], ids=["10000x100B", "100x1MiB"])
def test_every_message_is_received_once_and_whole(
    rabbit: Rabbit, own_queue: str, ends_within: Any, case: tuple[Any, bool], count: int, size: int
) -> None:
    mode, tls = case
    sent = bodies(count, size)
    filled(rabbit, own_queue, ends_within, sent)
    how: dict[str, Any] = {"auto_complete": False} if mode is Mode.PeekLock else {"receive_settle_mode": mode}
    client = rabbit.receiver(own_queue, tls, max_message_size=16 << 20, **how)  # 4.3 ends the session over a larger one
    got: list[Any] = []

    def receive() -> None:
        with client:
            while len(got) < count:
                batch = client.receive_message_batch(min(300, count - len(got)))
                assert batch
                got.extend(map(body_of, batch))
                assert all(received.accept() is (mode is Mode.PeekLock) for received in batch)

    assert ends_within(60, receive).error is None
    assert got == sent
    assert rabbit.depth(own_queue) == EMPTY


def test_a_mode_that_rabbitmq_has_not_is_an_error_with_its_words(
    rabbit: Rabbit, own_queue: str, ends_within: Any
) -> None:
    client = rabbit.receiver(own_queue, receive_settle_mode=Mode.PeekLock)
    end = ends_within(20, client.receive_message_batch, 1)
    client.close()
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert "second" in str(end.error)


def test_messages_come_by_callback_and_as_a_generator(rabbit: Rabbit, own_queue: str, ends_within: Any) -> None:
    sent = bodies(2000, 300)
    filled(rabbit, own_queue, ends_within, sent)
    got: list[bytes] = []

    def receive() -> None:
        with rabbit.receiver(own_queue, prefetch=50) as client:
            for received in itertools.islice(client.receive_messages_iter(), 1000):
                got.append(body_of(received))
            received.accept()  # nobody asked for the next one
        with rabbit.receiver(own_queue, timeout=1000) as client:
            client.receive_messages(lambda received: got.append(body_of(received)))

    assert ends_within(40, receive).error is None
    assert Counter(got) == Counter(sent)
    assert rabbit.depth(own_queue) == EMPTY


def test_every_section_is_received_as_it_was_sent(rabbit: Rabbit, own_queue: str, ends_within: Any) -> None:
    properties = {"message_id": "the id", "subject": "s", "correlation_id": 2**40, "content_type": "text/plain"}
    sent = Message(
        b"body",
        properties=message.MessageProperties(**properties),
        application_properties={"text": "ünïcode", "number": 2**40, "yes": True},
        annotations={b"x-opt-mine": "annotated"},
    )
    assert ends_within(20, rabbit.client(own_queue).send_message, sent, True).error is None
    with rabbit.receiver(own_queue) as client:
        (got,) = taken(client, 1)
    assert got.properties.message_id == b"the id" and got.properties.correlation_id == 2**40
    assert got.application_properties == {b"text": "ünïcode".encode(), b"number": 2**40, b"yes": True}
    assert got.annotations[b"x-opt-mine"] == b"annotated"
    assert body_of(got) == b"body" and got.settled


def test_unread_messages_go_back(rabbit: Rabbit, own_queue: str, ends_within: Any) -> None:
    sent = bodies(1000, 100)
    filled(rabbit, own_queue, ends_within, sent)
    got: list[bytes] = []

    def receive() -> None:
        for round in range(10):
            with rabbit.receiver(own_queue, prefetch=100) as client:
                got.extend(map(body_of, taken(client, 10 + 7 * round, size=20)))
                while round % 2 and client._received_messages.qsize() < 10:  # let unread ones pile up
                    client.do_work()

    assert ends_within(40, receive).error is None
    assert rabbit.depth(own_queue) == {"ready": 1000 - len(got), "unacknowledged": 0}
    with rabbit.receiver(own_queue) as client:
        got += map(body_of, taken(client, 1000 - len(got)))
    assert Counter(got) == Counter(sent)


@pytest.mark.parametrize(
    ("settle", "again"),
    [
        (lambda received: received.accept(), False),
        (lambda received: received.release(), True),
        (lambda received: received.reject(b"amqp:not-allowed", b"no", {"why": 1}), False),
        (lambda received: received.modify(True, False), True),
    ],
    ids=["accept", "release", "reject", "modify"],
)
def test_outcomes_do_what_they_say(
    rabbit: Rabbit, own_queue: str, ends_within: Any, settle: Callable[[Any], bool], again: bool
) -> None:
    sent = bodies(3, 100)
    filled(rabbit, own_queue, ends_within, sent)

    def receive() -> list[bytes]:
        with rabbit.receiver(own_queue, auto_complete=False) as client:
            client.open()
            first = client.receive_message_batch(1)
            while len(first) < 3:
                first += client.receive_message_batch(1)
            assert settle(first[0])
            try:
                assert all(settle(received) for received in first[1:])
            except errors.MessageHandlerError:  # 3.10 does not know modified, and ends the session over the first
                assert rabbit.name == "3.10"
        with rabbit.receiver(own_queue, timeout=500) as client:
            return [body_of(received) for received in taken(client, 4)]

    end = ends_within(40, receive)
    assert end.error is None
    assert Counter(end.value) == (Counter(sent) if again else Counter())


def test_credit_pauses_and_drains(rabbit: Rabbit, own_queue: str, ends_within: Any) -> None:
    sent = bodies(20, 100)
    filled(rabbit, own_queue, ends_within, sent)

    def receive() -> None:
        with rabbit.receiver(own_queue, prefetch=5, shutdown_after_timeout=False, timeout=1000) as client:
            got = taken(client, 3, 5)
            client.message_handler.reset_link_credit(0)
            while batch := client.receive_message_batch(5):
                got += batch
            held = len(got)
            assert held < 20
            client.message_handler.reset_link_credit(3)
            while len(got) < held + 3:
                got += client.receive_message_batch(3)
            while len(got) < 20:  # credit is back at prefetch by itself
                got += client.receive_message_batch(5)
            assert Counter(map(body_of, got)) == Counter(sent)
            if rabbit.name != "3.10":  # which ends the session over it, with a stack trace of its own
                client.message_handler.reset_link_credit(5, drain=True)
                assert client.receive_message_batch(5) == []
                assert client.message_handler._credit == 0, "the broker gave it back"

    assert ends_within(40, receive).error is None
    assert rabbit.depth(own_queue) == EMPTY


def test_several_receivers_and_threads_share_a_queue(rabbit: Rabbit, own_queue: str, ends_within: Any) -> None:
    sent = bodies(4000, 200)
    filled(rabbit, own_queue, ends_within, sent)
    got: list[bytes] = []
    clients = [rabbit.receiver(own_queue, prefetch=60, timeout=0) for _ in range(2)]

    def work(client: ReceiveClient) -> None:
        while len(got) < len(sent):
            got.extend(map(body_of, client.receive_message_batch(17, timeout=300)))

    def receive() -> None:
        for client in clients:
            client.open()
        threads = [threading.Thread(target=work, args=(client,), daemon=True) for client in clients for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()

    assert ends_within(60, receive).error is None
    assert Counter(got) == Counter(sent)
    assert rabbit.depth(own_queue) == EMPTY
