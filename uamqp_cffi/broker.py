"""An AMQP 1.0 broker inside your test: `with Broker() as b: SendClient(b.url + "/q")`.

It keeps everything in memory, listens on 127.0.0.1 unless told otherwise, and is **not for production**: nothing is
durable, nothing is tuned for anything but tests, demonstrations and the command line. Any AMQP 1.0 client may talk to
it.

Queues come into being when an address is first used; `q`, `/q` and `amqp://host:5672/q` are the same one. An address
can be told to misbehave (`Broker.script`), so that a test sees rejections, detached links and dropped connections when
it wants them.

    >>> from uamqp_cffi.broker import Broker
    >>> with Broker() as b:
    ...     b.put("orders", b"two croissants")
    ...     [str(message) for message in b.messages("/orders")]
    ['two croissants']
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from ._broker.cbs import as_check
from ._broker.core import Core, Settings
from ._broker.peer import shutdown_error
from ._broker.pipe import Pipe as Pipe
from ._broker.queues import Queue, QueueInfo, node_name, redelivered
from ._broker.scripts import Answer, Failure, Outcome, Refused, Script, Verdict
from ._broker.thread import BrokerThread, listen_on
from ._core.engine import values as v
from ._core.transport.wire import clock
from ._public import show_as
from .message import Message

__all__ = ["NOTICE", "Answer", "Broker", "Outcome", "Pipe", "QueueInfo", "Verdict"]
show_as("broker", Answer, Outcome, Pipe, QueueInfo, Verdict)

NOTICE = "embedded AMQP 1.0 broker: everything is in memory; for tests and demonstrations, not for production"

_log = logging.getLogger("uamqp.broker")

_JOIN = 5.0  # seconds; the thread gives its connections a fraction of one to close


class Broker:
    """An in-memory AMQP 1.0 broker on a thread of its own; a context manager. Not for production."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl_context: ssl.SSLContext | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        client_ca: str | None = None,
        users: Mapping[str, str] | None = None,
        sasl: Sequence[str] | bool = True,
        sasl_required: bool | None = None,
        tokens: Mapping[str, str] | Callable[[str, str, str], Any] | None = None,
        tokens_required: bool = True,
        scripts: Mapping[str, str | Outcome | Callable[[Message], Any]] | None = None,
        store: bool = True,
        max_bytes: int = 1 << 30,
        max_message_size: int = 64 << 20,
        max_frame_size: int = 64 << 10,
        max_connections: int = 1000,
        idle_timeout: float = 0,
        credit: int = 2000,
        listen: bool = True,
        nodes: Callable[[str], Queue | None] | None = None,
    ) -> None:
        """Listen on `host`, `port` (0: a free one) and serve, AMQP as it is or inside of a WebSocket, as each client likes.

        ssl_context, or cert_file and key_file (PEM): TLS. client_ca: certificates of clients signed by it are welcome for
          SASL EXTERNAL.
        users: name to password; SASL is then required, PLAIN offered and ANONYMOUS not. Without, any password will do.
        sasl: the mechanisms to offer, of ANONYMOUS, PLAIN, EXTERNAL, MSSBCBS; False: no SASL layer at all.
        sasl_required: turn away clients that come without a SASL layer; by default when ANONYMOUS is not offered.
        tokens: who judges the tokens that clients put to the node `$cbs`. A dict of key names and keys: shared access
          signatures made with these are welcome. A function: it is called with audience, token type and token, on the
          broker's thread, and gives a `Verdict`, its fields as a tuple, a status, True or None (welcome) or False.
          Without `tokens` there is no such node. The SASL mechanism MSSBCBS is offered, too.
        tokens_required: refuse links with amqp:unauthorized-access unless a token whose audience covers their address
          was put on the same connection, and detach them when it expires. An audience covers its own address and all
          below it; the part before the path does not count.
        scripts: address to what `on_message` takes.
        store: False counts messages instead of keeping them.
        max_bytes: of messages held; more are rejected with amqp:resource-limit-exceeded.
        idle_timeout: seconds of a client's silence after which its connection is closed; 0: never. Clients of this package
          refuse less than 0.1.
        credit: messages a sender may have under way.
        listen: False: no socket and no thread; `connect` gives in-memory connections.
        nodes: is asked for each address that a link names; gives what stands there, an object of a subclass of
          `_broker.queues.Queue`, or None for a queue like any other. Called on the broker's thread.

        Raises OSError when the port cannot be had, ssl.SSLError for unusable certificates, ValueError for bad
        arguments.
        """
        for name, value, least, most in (
            ("port", port, 0, 65535),
            ("max_bytes", max_bytes, 0, sys.maxsize),
            ("max_message_size", max_message_size, 1, 256 << 20),  # UAM_MAX_MESSAGE of csrc/limits.h
            ("max_frame_size", max_frame_size, 512, 1 << 20),
            ("max_connections", max_connections, 1, sys.maxsize),
            ("idle_timeout", idle_timeout, 0, 4_000_000),  # in milliseconds it has 32 bits
            ("credit", credit, 0, 0xFFFFFFFF),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name}={value} is not between {least} and {most}")
        self._tls = ssl_context if ssl_context is not None else _server_context(cert_file, key_file, client_ca)
        check = as_check(tokens)
        mechanisms = self._mechanisms(sasl, users, check is not None)
        if sasl_required is None:
            sasl_required = bool(mechanisms) and "ANONYMOUS" not in mechanisms
        settings = Settings(
            max_bytes=max_bytes,
            max_message_size=max_message_size,
            max_frame_size=max_frame_size,
            idle_timeout=round(idle_timeout * 1000),
            credit=credit,
            store=store,
            mechanisms=mechanisms,
            sasl_required=sasl_required,
            users=dict(users) if users is not None else None,
            tokens=check,
            tokens_required=tokens_required,
            version=str(getattr(sys.modules.get(__package__), "__version__", "")),
        )
        self._core = Core(settings, _decode, nodes)
        self._core.now = clock() if listen else 0
        self._changed = threading.Condition(threading.RLock())  # its lock guards the core and every connection
        self._closed = False
        self._thread: BrokerThread | None = None
        self.host = host
        self.port: int = 0
        for address, outcome in (scripts or {}).items():
            self.on_message(address, outcome)
        if listen:
            listener = listen_on(host, port)
            self._thread = BrokerThread(self._core, self._tls, self._changed, listener, max_connections)
            self.port = self._thread.port
            self._thread.start()
            _log.info("%s; listening on %s", NOTICE, self.url)

    def _mechanisms(self, sasl: Sequence[str] | bool, users: Mapping[str, str] | None, tokens: bool) -> tuple[str, ...]:
        if isinstance(sasl, bool):
            if not sasl:
                return ()
            sasl = ["PLAIN"] if users is not None else ["ANONYMOUS", "PLAIN"]
            if self._tls is not None and self._tls.verify_mode != ssl.CERT_NONE:
                sasl = ["EXTERNAL", *sasl]
            if tokens:
                sasl = ["MSSBCBS", *sasl]
        unknown = set(sasl) - {"ANONYMOUS", "PLAIN", "EXTERNAL", "MSSBCBS"}
        if unknown:
            raise ValueError(f"SASL mechanism {sorted(unknown)[0]!r} is none of ANONYMOUS, PLAIN, EXTERNAL, MSSBCBS")
        return tuple(sasl)

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "closed" if self._closed else self.url if self._thread is not None else "in memory"
        return f"<Broker {where}, not for production>"

    @property
    def _over(self) -> bool:
        return self._closed or (self._thread is not None and self._thread.over)

    @property
    def url(self) -> str:
        """`amqp://127.0.0.1:PORT`, or `amqps://localhost:PORT` with TLS (certificates name hosts, not addresses)."""
        host = self.host
        if host in ("", "0.0.0.0"):
            host = "127.0.0.1"
        elif host == "::":
            host = "::1"
        if self._tls is not None and host in ("127.0.0.1", "::1"):
            host = "localhost"
        if ":" in host:
            host = f"[{host}]"
        return f"{'amqp' if self._tls is None else 'amqps'}://{host}:{self.port}"

    # what is there

    def messages(self, address: str) -> list[Message]:
        """The messages that are ready in a queue, oldest first; they stay there. Those with a consumer are not among
        them."""
        with self._changed:
            queue = self._core.queues.get(node_name(address))
            payloads = queue.ready() if queue is not None else []
        return [_decode(payload) for _, payload in payloads]

    def payloads(self, address: str) -> list[bytes]:
        """Like `messages`, but encoded, exactly as they came."""
        with self._changed:
            queue = self._core.queues.get(node_name(address))
            return [payload for _, payload in queue.ready()] if queue is not None else []

    def dead(self, address: str) -> list[Message]:
        """The messages that consumers of a queue rejected."""
        with self._changed:
            queue = self._core.queues.get(node_name(address))
            payloads = [redelivered(entry) for entry in queue.dead] if queue is not None else []
        return [_decode(payload) for payload in payloads]

    def info(self, address: str) -> QueueInfo:
        """A queue in numbers; zeros for one that nobody has used yet."""
        with self._changed:
            name = node_name(address)
            queue = self._core.queues.get(name)
            return queue.info() if queue is not None else QueueInfo(name, *[0] * (len(QueueInfo._fields) - 1))

    @property
    def queues(self) -> list[str]:
        """The names of all queues."""
        with self._changed:
            return list(self._core.queues)

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        with self._changed:
            return len(self._core.peers)

    def wait_for(self, address: str, n: int = 1, timeout: float = 10.0) -> list[Message]:
        """Wait until `n` messages have come into a queue since it was made, then give those that are ready in it.
        Raises TimeoutError after `timeout` seconds."""
        if self._thread is not None and threading.current_thread() is self._thread:
            raise RuntimeError("the broker's own thread cannot wait for messages: nobody would take them in")
        with self._changed:
            name = node_name(address)
            queues = self._core.queues

            def come() -> int:
                queue = queues.get(name)
                return queue.received if queue is not None else 0

            if not self._changed.wait_for(lambda: come() >= n or self._over, timeout) or come() < n:
                raise TimeoutError(f"{come()} of {n} messages came into {name!r} within {timeout} s")
        return self.messages(address)

    def put(self, address: str, message: Message | bytes | str) -> None:
        """Put a message into a queue; bytes and str become the body of one. Raises ValueError for an address that names
        no queue, MemoryError beyond `max_bytes`."""
        payloads = list(_encode(message))
        with self._acting() as core:
            for message_format, payload in payloads:
                try:
                    stored = core.put(node_name(address), payload, message_format)
                except Refused as refused:
                    raise ValueError(f"no queue at {address!r}: {refused}") from refused
                if not stored:
                    raise MemoryError(f"the broker holds {core.room.held} bytes and may hold {core.room.cap}")

    def purge(self, address: str) -> int:
        """Drop what is ready or dead in a queue; how many messages were ready."""
        with self._acting() as core:
            queue = core.queues.get(node_name(address))
            return queue.clear() if queue is not None else 0

    # misbehaviour on request

    def on_message(self, address: str, outcome: str | Outcome | Callable[[Message], Any]) -> None:
        """Answer every message to `address` so: an outcome's name or an `Outcome`, or a function that is called with
        the message, on the broker's thread, and gives one (None: accepted)."""
        self.script(address, outcome)

    def script(
        self,
        address: str,
        outcome: str | Outcome | Callable[[Message], Any] | None = None,
        *,
        condition: str | None = None,
        description: str | None = None,
        info: dict[Any, Any] | None = None,
        delivery_failed: bool | None = None,
        undeliverable_here: bool | None = None,
        annotations: dict[Any, Any] | None = None,
        times: int | None = None,
        delay: float = 0.0,
        fail: Failure | None = None,
        after: int = 0,
        closed: bool = True,
        credit: int | None = None,
        store: bool | None = None,
        max_message_size: int | None = None,
    ) -> None:
        """Make `address` behave as a test wants; a new script replaces the old one, `unscript` takes it off.

        outcome: what messages get: "accepted", "rejected", "released", "modified", "none" (never settled), "bare" (settled
          without a state), an `Outcome`, or a function of the message that gives one of these.
        condition, description, info: of the error that goes with "rejected", or with `fail`.
        delivery_failed, undeliverable_here, annotations: the fields of "modified".
        times: how often the outcome, or `fail`, applies; after that the address behaves. None: always.
        delay: seconds before the outcome is sent.
        fail: what breaks: "attach" is refused; "detach", "end", "close" take back link, session or connection; "drop" ends
          the transport without a word; "hang" leaves it open and never reads or writes again.
        after: messages on a link (sent or received) before `fail`; 0: right after the attach.
        closed: False makes "detach" a soft one, without an error unless `condition` is given.
        credit: messages a sender may have without an outcome: those of "none" hold it for good, those of `delay` for so long;
          0: none, ever.
        store: False counts messages instead of keeping them.
        max_message_size: what attaches to this address are told, in bytes; a larger message costs its sender the link.
        """
        if isinstance(outcome, str):
            outcome = Outcome(outcome, condition, description, info, delivery_failed, undeliverable_here, annotations)
        if isinstance(outcome, Outcome):
            outcome.encode()  # what cannot be encoded is found out here
        script = Script(
            outcome, times, delay, fail, after, closed, credit, store, max_message_size, condition, description, info
        )
        script.error()
        with self._acting() as core:
            core.set_script(node_name(address), script)

    def unscript(self, address: str) -> None:
        """Let `address` behave again."""
        with self._acting() as core:
            core.set_script(node_name(address), None)

    def answer(self, operation: str, status: int | None = 200, description: str = "OK", body: Any = None) -> None:
        """Answer this `operation` of $management so; `status` None: never. Without a `body` the request's own is
        echoed."""
        with self._acting() as core:
            core.answers[operation] = Answer(status, description, body)

    def drop_connections(self) -> None:
        """End the transport of every connection now, without a word. New ones are welcome."""
        with self._acting() as core:
            for peer in list(core.peers.values()):
                peer.dropping = True
                peer.touch()

    # connections in memory

    def connect(self, now: int | None = None) -> Pipe:
        """A connection without a socket, for a broker made with listen=False. `now`: milliseconds on a clock of the
        caller's that starts at 0; it stands still unless a call says otherwise."""
        if self._thread is not None:
            raise ValueError("this broker listens on a socket; in-memory connections need listen=False")
        if self._closed:
            raise ValueError("the broker is closed")
        with self._changed:
            return Pipe(self, now)

    # life

    def close(self) -> None:
        """Close every connection and stop; done within a second whatever the clients do. A second call does
        nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
            if thread is None:
                for peer in list(self._core.peers.values()):
                    peer.guard(peer.shut, shutdown_error())
                return
            thread.stop()
        if threading.current_thread() is not thread:
            thread.join(_JOIN)

    @contextlib.contextmanager
    def _acting(self) -> Iterator[Core]:
        """The core, from a user's thread: what it leaves to be sent is sent, who waits is told."""
        with self._changed:
            core = self._core
            try:
                yield core
            finally:
                if core.arrived:
                    core.arrived = False
                    self._changed.notify_all()
                if self._thread is not None:
                    self._thread.wake()


def _server_context(cert_file: str | None, key_file: str | None, client_ca: str | None) -> ssl.SSLContext | None:
    if cert_file is None:
        if key_file is not None or client_ca is not None:
            raise ValueError("key_file and client_ca need a cert_file")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _decode(payload: bytes) -> Message:
    return Message.decode_from_bytes(payload)


def _encode(message: Message | bytes | str) -> Iterator[tuple[int, bytes]]:
    """(message-format, payload) of what was given to put."""
    if isinstance(message, (bytes, str)):
        body = message.encode() if isinstance(message, str) else message
        yield 0, v.enc_described(0x75, v.enc_binary(body))
        return
    for part in message.gather():
        yield part._format, bytes(part.encode_message())
