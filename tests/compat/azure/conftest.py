"""Published packages in a virtual environment of their own, at work on a namespace that runs in this process.

UAMQP_COMPAT_PYTHON   an interpreter that has the packages already, for instance with the real uamqp; without it an
                      environment is made from PyPI with the wheels of this repository
UAMQP_COMPAT_LOG      not empty: what the scenarios log is shown
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from azure_namespace import Namespace

from uamqp_cffi._broker.scripts import encode_error
from uamqp_cffi._core.transport.wire import Wire
from uamqp_cffi.message import Message

DEADLINE = 60.0  # seconds for one scenario


@pytest.fixture(scope="session")
def interpreter(request: pytest.FixtureRequest) -> str:
    """One that has the packages, and this repository's as their `uamqp`."""
    given = os.environ.get("UAMQP_COMPAT_PYTHON")
    return given or str(request.getfixturevalue("azure_venv").python)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, trustme.CA]:
    """A certificate authority and the file that has its certificate."""
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("certificates") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return file, authority


def _context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture(scope="session")
def other_ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The certificate of an authority that signed nothing here."""
    file = tmp_path_factory.mktemp("stranger") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    return str(file)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody else can."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.fixture
def namespace(certificates: tuple[pathlib.Path, trustme.CA]) -> Iterator[Namespace]:
    space = Namespace(_context(certificates[1], "localhost"))
    yield space
    space.close()


@pytest.fixture
def iot_namespace(certificates: tuple[pathlib.Path, trustme.CA]) -> Iterator[Namespace]:
    """On the port that azure-iot-hub cannot be talked out of, at a loopback address of its own."""
    for _ in range(20):
        host = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))
        with contextlib.suppress(OSError):
            space = Namespace(_context(certificates[1], host), host, 5671)
            break
    else:
        pytest.skip("port 5671 is not to be had on any address of the loopback network")
    yield space
    space.close()


@pytest.fixture
def websockets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every connection to a namespace that becomes a WebSocket."""
    seen: list[int] = []
    upgrade = Wire._to_websocket

    def watched(wire: Wire, n: int) -> Any:
        seen.append(n)
        return upgrade(wire, n)

    monkeypatch.setattr(Wire, "_to_websocket", watched)
    return seen


class Asked:
    """What scenarios may ask to be done to the namespace."""

    def __init__(self, space: Namespace) -> None:
        self.space = space

    def script(self, address: str, outcome: str | None = None, **how: Any) -> None:
        self.space.broker.script(address, outcome, **how)

    def unscript(self, address: str) -> None:
        self.space.broker.unscript(address)

    def drop(self) -> int:
        """End every connection without a word."""
        count = self.space.broker.connections
        self.space.broker.drop_connections()
        return count

    def detach(self, address: str, condition: str = "amqp:link:detach-forced") -> int:
        """Take every link to an address back."""
        error = encode_error(condition, "the namespace was told to")
        with self.space.broker._acting() as core:
            found = [
                (peer, link.id)
                for peer in core.peers.values()
                for link in [*peer.incoming.values(), *peer.outgoing.values()]
                if (link.name if hasattr(link, "name") else link.queue.name) == address
            ]
            for peer, link in found:
                peer.guard(peer.detach, link, error)
        return len(found)

    def fill(self, partitions: list[str], each: int) -> None:
        """Events `0-0`, `0-1`, ... into partitions of the hub."""
        with self.space.broker._acting():
            for number in partitions:
                partition = self.space.hub.partitions[number]
                for _ in range(each):
                    text = f"{number}-{len(partition.events)}"
                    partition.append(bytes(Message(text.encode()).encode_message()))

    def event(self, partition: str, number: int) -> dict[str, int]:
        event = self.space.hub.partitions[partition].events[number]
        return {"offset": event.offset, "enqueued": event.enqueued}

    def lock(self, seconds: float) -> None:
        """How long the queue locks what it hands out from now on."""
        self.space.queue.lock_seconds = seconds

    def completed(self, count: int) -> bool:
        """Wait until the queue has so many messages completed."""
        end = time.monotonic() + 5
        while len(self.space.queue.completed) < count and time.monotonic() < end:
            time.sleep(0.01)
        return len(self.space.queue.completed) >= count

    def locked(self, address: str) -> int:
        """Wait until the queue has handed something over; how many messages are locked then."""
        queue = self.space.node(address)
        end = time.monotonic() + 5
        while not queue.locked and time.monotonic() < end:
            time.sleep(0.01)
        return len(queue.locked)

    def released(self, address: str, seconds: float) -> int:
        """Wait until the queue has messages back; how many."""
        queue = self.space.node(address)
        end = time.monotonic() + seconds
        while not queue.released and time.monotonic() < end:
            time.sleep(0.01)
        return int(queue.released)

    def put(self, address: str, bodies: list[str], **properties: Any) -> None:
        """Messages into a Service Bus queue."""
        from uamqp_cffi.message import MessageProperties

        with self.space.broker._acting():
            for i, body in enumerate(bodies):
                given = {"message_id": f"m{i}", **properties}
                message = Message(body.encode(), properties=MessageProperties(**given))
                self.space.node(address).enqueue(bytes(message.encode_message()))


class Scenario:
    """Runs scenarios in the other interpreter."""

    def __init__(self, python: str, ca: pathlib.Path) -> None:
        self._python = python
        self._ca = ca

    def __call__(self, space: Namespace, module: str, name: str, **host: Any) -> Any:
        """What the scenario reports; fails when it ends in any other way."""
        host = {
            "port": space.broker.port, "host": space.broker.host, "ca": str(self._ca),
            "connection_string": space.connection_string(),
            "iot": space.iot_connection_string(space.broker.host), **host,
        }  # fmt: skip
        arguments = {"scenario": name, "host": host, "debug": bool(os.environ.get("UAMQP_COMPAT_LOG"))}
        command = [self._python, "-X", "faulthandler", str(HERE / "scenarios" / f"{module}.py"), json.dumps(arguments)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        try:
            return self._follow(process, Asked(space), f"{module}.{name}")
        finally:
            process.kill()
            process.wait()

    def _follow(self, process: subprocess.Popen[str], asked: Asked, what: str) -> Any:
        assert process.stdout is not None and process.stderr is not None and process.stdin is not None
        lines: queue.Queue[str | None] = queue.Queue()
        said: list[str] = []
        readers = [
            threading.Thread(target=_read, args=(process.stdout, lines.put), daemon=True),
            threading.Thread(target=_read, args=(process.stderr, lambda line: said.append(line or "")), daemon=True),
        ]
        for reader in readers:
            reader.start()
        end = time.monotonic() + DEADLINE
        result: Any = None
        reported = False
        try:
            while (line := lines.get(timeout=max(0.1, end - time.monotonic()))) is not None:
                kind, _, text = line.partition(" ")
                if kind == "@ask":
                    how = json.loads(text)
                    answer = getattr(asked, how.pop("what"))(**how)
                    process.stdin.write(json.dumps(answer) + "\n")
                    process.stdin.flush()
                elif kind == "@result":
                    result, reported = json.loads(text), True
            status = process.wait(max(0.1, end - time.monotonic()))
        except (queue.Empty, subprocess.TimeoutExpired):
            pytest.fail(f"{what} was not done within {DEADLINE} s\n{''.join(said)[-6000:]}")
        readers[1].join(2)
        errors = "".join(said)
        if os.environ.get("UAMQP_COMPAT_LOG"):
            print(errors)
        if status != 0 or not reported or "left:" in errors or "Traceback" in errors:
            pytest.fail(f"{what} ended with status {status}\n{errors[-6000:]}")
        return result


def _read(stream: Any, put: Callable[[str | None], None]) -> None:
    for line in stream:
        put(line)
    put(None)


@pytest.fixture(scope="session")
def scenario(interpreter: str, certificates: tuple[pathlib.Path, trustme.CA]) -> Scenario:
    return Scenario(interpreter, certificates[0])


@pytest.fixture
def run(scenario: Scenario, namespace: Namespace) -> Callable[[str, str], Any]:
    """`run(module, name)` on this test's namespace."""

    def start(module: str, name: str, **host: Any) -> Any:
        """`host` tells the scenario more than it is always told."""
        return scenario(namespace, module, name, **host)

    return start
