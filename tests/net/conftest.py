"""What the tests of this folder share: a peer that is scripted frame by frame and owes nothing to the package, a relay that
listens in, deadlines for calls, and the brokers that the environment names.

The environment is set by .ci/run; what is not set makes its tests skip with the reason:

    UAMQP_RABBITMQ43, UAMQP_RABBITMQ310, UAMQP_PROTON_PEER   amqp://HOST:PORT?tls=PORT
    UAMQP_CERTS           folder with ca.pem, client.pem, client.key, otherca.pem, expired.pem, wronghost.pem, ...
    UAMQP_SHARED          folder with brokers/faultproxy.py, brokers/rabbitmq4.sh, ...
    UAMQP_PROTON_PYTHON   an interpreter that has python-qpid-proton
    UAMQP_TINYPROXY       the program tinyproxy
    UAMQP_PROXYPY_PYTHON  an interpreter that has proxy.py
    UAMQP_NET_FULL        not empty: every combination, not only enough of them to have each pair once
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

HERE = pathlib.Path(__file__).resolve().parent

# ---- AMQP by hand: as much as a scripted peer needs ----

OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
MECHANISMS, INIT, CHALLENGE, RESPONSE, OUTCOME = range(0x40, 0x45)
SASL_HEADER, AMQP_HEADER = b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x01\x00\x00"
ACCEPTED, REJECTED, RELEASED, MODIFIED, ERROR, SOURCE, TARGET = 0x24, 0x25, 0x26, 0x27, 0x1D, 0x28, 0x29


class Symbol(str):
    """A str that goes out as an AMQP symbol."""


class Uint(int):
    """An int that goes out as an AMQP uint."""


class Ulong(int):
    """An int that goes out as an AMQP ulong."""


class Described:
    """A composite: descriptor code and fields."""

    def __init__(self, code: int, *fields: Any) -> None:
        self.code, self.fields = code, list(fields)


def encode(value: Any) -> bytes:
    """One AMQP value, in its longest form for ints so that no code path of the reader is spared."""
    if value is None:
        return b"\x40"
    if isinstance(value, bool):
        return b"\x41" if value else b"\x42"
    if isinstance(value, Uint):
        return b"\x70" + struct.pack(">I", value)
    if isinstance(value, Ulong):
        return b"\x80" + struct.pack(">Q", value)
    if isinstance(value, int):
        return b"\x50" + bytes([value])
    if isinstance(value, Symbol):
        return b"\xb3" + struct.pack(">I", len(value)) + value.encode()
    if isinstance(value, str):
        return b"\xb1" + struct.pack(">I", len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return b"\xb0" + struct.pack(">I", len(value)) + value
    if isinstance(value, Described):
        return b"\x00\x53" + bytes([value.code]) + encode(value.fields)
    if isinstance(value, dict):
        items = [encode(x) for pair in value.items() for x in pair]
        body = struct.pack(">I", len(items)) + b"".join(items)
        return b"\xd1" + struct.pack(">I", len(body)) + body
    if isinstance(value, list):
        body = struct.pack(">I", len(value)) + b"".join(map(encode, value))
        return b"\xd0" + struct.pack(">I", len(body)) + body
    raise TypeError(type(value).__name__)


_FIXED = {0x50: ">B", 0x51: ">b", 0x52: ">B", 0x53: ">B", 0x54: ">b", 0x55: ">b", 0x56: ">?", 0x60: ">H", 0x61: ">h",
          0x70: ">I", 0x71: ">i", 0x72: ">f", 0x80: ">Q", 0x81: ">q", 0x82: ">d", 0x83: ">q"}  # fmt: skip
_CONSTANT: dict[int, Any] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0, 0x45: []}


def decode(data: bytes, at: int = 0) -> tuple[Any, int]:
    """The AMQP value at `at` and where the next one begins. Arrays and what is not known come back as their bytes."""
    code = data[at]
    at += 1
    if code == 0:
        descriptor, at = decode(data, at)
        fields, at = decode(data, at)
        return Described(descriptor, *(fields if isinstance(fields, list) else [fields])), at
    if code in _CONSTANT:
        return _CONSTANT[code], at
    if code in _FIXED:
        size = struct.calcsize(_FIXED[code])
        return struct.unpack_from(_FIXED[code], data, at)[0], at + size
    if code == 0x98:
        return data[at : at + 16], at + 16
    wide = code & 0x10
    size = struct.unpack_from(">I", data, at)[0] if wide else data[at]
    at += 4 if wide else 1
    end = at + size
    if code in (0xA1, 0xB1, 0xA3, 0xB3):
        return data[at:end].decode(), end
    if code not in (0xC0, 0xD0, 0xC1, 0xD1):
        return data[at:end], end
    count = struct.unpack_from(">I", data, at)[0] if wide else data[at]
    at += 4 if wide else 1
    items = []
    for _ in range(count):
        item, at = decode(data, at)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if code in (0xC1, 0xD1) else items), end


def data(body: bytes) -> bytes:
    """A message with one data section."""
    return b"\x00\x53\x75" + encode(body)


def error(condition: str, description: str | None = None, info: dict[Any, Any] | None = None) -> Described:
    """The composite error (§2.8.14)."""
    return Described(ERROR, Symbol(condition), description, info)


class Frame:
    """One frame as it was read: `body` as it came; `code` (None for an empty one), `fields`, `payload`."""

    def __init__(self, channel: int, body: bytes) -> None:
        self.channel, self.code, self.fields, self.payload, self.body = channel, None, [], b"", body
        if body:
            performative, end = decode(body)
            self.code, self.fields, self.payload = performative.code, performative.fields, body[end:]

    def __getitem__(self, index: int) -> Any:
        return self.fields[index] if index < len(self.fields) else None


# ---- a peer by script ----


class Peer:
    """One accepted connection. What is read is kept in `seen`; `stage` says what the script has reached."""

    STAGES = (
        "connected",
        "sasl-header",
        "mechanisms",
        "outcome",
        "header",
        "open",
        "begin",
        "attach",
        "credit",
        "transfer",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.seen: list[Frame] = []
        self.attach: Frame | None = None
        self.sent_handle = Uint(0)

    # reading
    def exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            data = self.sock.recv(count - len(got))
            if not data:
                raise EOFError
            got += data
        return got

    def frame(self) -> Frame:
        size, doff, _kind, channel = struct.unpack(">IBBH", self.exactly(8))
        frame = Frame(channel, self.exactly(size - 8)[doff * 4 - 8 :])
        self.seen.append(frame)
        return frame

    def until(self, code: int) -> Frame:
        """Read frames until one has this performative."""
        while True:
            frame = self.frame()
            if frame.code == code:
                return frame

    def to_the_end(self) -> None:
        """Read and drop until the other side closes, so that closing here makes no RST."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass

    def polite_end(self) -> None:
        """Answer DETACH, END and CLOSE with the same until the other side closes."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                frame = self.frame()
                if frame.code == DETACH:
                    self.send(DETACH, Uint(0), True)
                elif frame.code in (END, CLOSE):
                    self.send(frame.code)

    # writing
    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, code: int, *fields: Any, payload: bytes = b"", sasl: bool = False) -> None:
        body = encode(Described(code, *fields)) + payload
        self.write(struct.pack(">IBBH", len(body) + 8, 2, int(sasl), 0) + body)

    # the way to a stage
    def reach(self, stage: str, **how: Any) -> Peer:
        """Play a well-behaved server as far as `stage`. `how`: mechanisms, credit, max_message_size, max_frame_size,
        incoming_window, idle."""
        for name in self.STAGES[1 : self.STAGES.index(stage) + 1]:
            getattr(self, "_" + name.replace("-", "_"))(**how)
        return self

    def _sasl_header(self, **how: Any) -> None:
        assert self.exactly(8) == SASL_HEADER
        self.write(SASL_HEADER)

    def _mechanisms(self, mechanisms: tuple[str, ...] = ("ANONYMOUS", "PLAIN"), **how: Any) -> None:
        body = b"".join(b"%c%s" % (len(m), m.encode()) for m in mechanisms)
        array = b"\xe0" + bytes([len(body) + 2, len(mechanisms), 0xA3]) + body
        frame = b"\x00\x53\x40\xc0" + bytes([len(array) + 1, 1]) + array
        self.write(struct.pack(">IBBH", len(frame) + 8, 2, 1, 0) + frame)

    def _outcome(self, **how: Any) -> None:
        self.until(INIT)
        self.send(OUTCOME, 0, sasl=True)

    def _header(self, **how: Any) -> None:
        assert self.exactly(8) == AMQP_HEADER
        self.write(AMQP_HEADER)

    def _open(self, max_frame_size: int = 65536, idle: int | None = None, **how: Any) -> None:
        self.until(OPEN)
        self.send(OPEN, "scripted", None, Uint(max_frame_size), None, None if idle is None else Uint(idle))

    def _begin(self, incoming_window: int = 2048, **how: Any) -> None:
        self.until(BEGIN)
        # remote-channel is a ushort
        body = (
            b"\x00\x53\x11\xc0"
            + bytes([1 + 3 + 5 * 3, 4])
            + b"\x60\x00\x00"
            + b"".join(encode(Uint(n)) for n in (0, incoming_window, 2048))
        )
        self.write(struct.pack(">IBBH", len(body) + 8, 2, 0, 0) + body)

    def _attach(self, max_message_size: int | None = None, **how: Any) -> None:
        self.attach = self.until(ATTACH)
        size = None if max_message_size is None else Ulong(max_message_size)
        self.answer_attach(self.attach[5], self.attach[6], None, None, None, size)

    def answer_attach(self, source: Any, target: Any, *more: Any) -> None:
        assert self.attach is not None
        self.send(ATTACH, self.attach[0], Uint(0), not self.attach[2], 0, 0, source, target, *more)

    def _credit(self, credit: int = 100, incoming_window: int = 2048, **how: Any) -> None:
        self.send(FLOW, Uint(0), Uint(incoming_window), Uint(0), Uint(2048), Uint(0), Uint(0), Uint(credit))

    def _transfer(self, **how: Any) -> None:
        self.whole_transfer()

    def whole_transfer(self) -> Frame:
        """Read one delivery to its last frame and give its first."""
        first = frame = self.until(TRANSFER)
        while frame[5]:
            frame = self.until(TRANSFER)
        return first

    # the sending end of a link
    def serve(self, initial: int = 0, max_frame_size: int = 65536, idle: int | None = None) -> Frame:
        """Everything up to the first credit of a client that receives; its FLOW."""
        self.reach("open", max_frame_size=max_frame_size, idle=idle)._begin()
        self.attach = self.until(ATTACH)
        source = Described(SOURCE, "q")  # not the client's own, whose filters may hold what `encode` does not know
        self.answer_attach(source, self.attach[6], None, None, Uint(initial))
        return self.credit()

    def credit(self) -> Frame:
        """The next FLOW that gives credit."""
        while True:
            flow = self.until(FLOW)
            if flow[4] is not None and flow[6]:
                return flow

    def deliver(
        self, number: int, payload: bytes, *, frames: int = 1, last: bool = True, settled: bool = False, **how: Any
    ) -> None:
        """A delivery of so many frames; without its last one unless `last`; `how`: aborted."""
        size = -(-len(payload) // frames) or 1
        for n in range(frames):
            part = payload[n * size : (n + 1) * size]
            more = n < frames - 1 or not last
            first: tuple[Any, ...] = (Uint(number), b"tag%d" % number, Uint(0)) if n == 0 else (None, None, None)
            aborted = (None, None, None, True) if how.get("aborted") and n == frames - 1 else ()
            self.send(TRANSFER, Uint(0), *first, settled, more, *aborted, payload=part)

    # misbehaviour
    def reset(self) -> None:
        """RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Scripted:
    """A listening socket on loopback; every connection is given to `script` in a thread of its own."""

    def __init__(
        self, script: Callable[[Peer], None], context: ssl.SSLContext | None = None, window: int | None = None
    ) -> None:
        self.script, self.context = script, context
        self.errors: list[BaseException] = []
        self.done = threading.Event()
        self.socks: list[socket.socket] = []
        self.listener = socket.socket()
        if window is not None:  # before listen: accepted sockets inherit it
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.port: int = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def url(self, path: str = "/q", scheme: str = "amqp") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
            self.socks.append(sock)
            self.script(Peer(sock))
        except (EOFError, OSError):
            pass  # the client has gone, which is what most scripts lead to; a test asserts on what the client says
        except BaseException as problem:
            self.errors.append(problem)
        finally:
            self.done.set()
            with contextlib.suppress(OSError):
                sock.close()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.socks:
            with contextlib.suppress(OSError):
                # an SSLSocket's own would have its script read ciphertext
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
        if self.errors:
            raise self.errors[0]


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """`scripted(script, context=None, window=None)`: a `Scripted` server; an assertion that fails in a script fails the test."""
    servers: list[Scripted] = []

    def start(*args: Any, **how: Any) -> Scripted:
        servers.append(Scripted(*args, **how))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def amqp() -> Any:
    """The hand-made AMQP of this module."""
    return sys.modules[__name__]


# ---- deadlines ----


class Outcome:
    """How a call ended: `value` or `error`, after `seconds`."""

    def __init__(self, value: Any, problem: BaseException | None, seconds: float) -> None:
        self.value, self.error, self.seconds = value, problem, seconds


@pytest.fixture
def ends_within() -> Callable[..., Outcome]:
    """`ends_within(seconds, call, *args)`: run it in a thread; the test fails when it has not ended by then."""

    def run(seconds: float, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Outcome:
        box: list[Outcome] = []
        began = time.monotonic()

        def body() -> None:
            try:
                value, problem = call(*args, **kwargs), None
            except BaseException as caught:
                value, problem = None, caught
            box.append(Outcome(value, problem, time.monotonic() - began))

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join(seconds)
        if not box:
            frame = sys._current_frames().get(thread.ident or 0)
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "nowhere"
            pytest.fail(f"not over after {seconds} s; it is at {where}")
        return box[0]

    return run


# ---- TLS ----


class Certificates:
    """A CA made for this run: `ca_file` to trust, `server` a context for 127.0.0.1 and localhost."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._ca = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.ca_file)
        self.other_ca_file = str(folder / "other.pem")
        trustme.CA().cert_pem.write_to_path(self.other_ca_file)
        self.server = self.context("127.0.0.1", "localhost")

    def context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


# ---- brokers and tools that the environment names ----


def needed(name: str) -> str:
    """The environment variable, or skip."""
    value = os.environ.get(name, "")
    if not value:
        pytest.skip(f"{name} is not set (.ci/run sets it)")
    return value


@pytest.fixture(scope="session")
def from_environment() -> Callable[[str], str]:
    """`needed`, for what only one module wants."""
    return needed


@pytest.fixture(scope="session")
def full() -> bool:
    return bool(os.environ.get("UAMQP_NET_FULL"))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    return pathlib.Path(needed("UAMQP_SHARED"))


@pytest.fixture(scope="session")
def certs() -> pathlib.Path:
    return pathlib.Path(needed("UAMQP_CERTS"))


@pytest.fixture
def fault_proxy(shared: pathlib.Path) -> Iterator[Callable[..., Any]]:
    """`fault_proxy(port)`: a TCP proxy in front of 127.0.0.1:port that breaks things on command."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("faultproxy", shared / "brokers" / "faultproxy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with contextlib.ExitStack() as stack:
        yield lambda port: stack.enter_context(module.FaultProxy(("127.0.0.1", port)))


# ---- several at once ----


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` those that share a broker run one after the other, and so do those of one file otherwise."""
    for item in items:
        if HERE in item.path.parents:
            call = getattr(item, "callspec", None)
            broker = None if call is None else call.params.get("rabbit")
            item.add_marker(pytest.mark.xdist_group(broker if isinstance(broker, str) else item.path.stem))
