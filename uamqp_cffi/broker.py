"""An AMQP 1.0 broker inside your test: `with Broker() as b: SendClient(b.url + "/q")`.

It keeps everything in memory, listens on 127.0.0.1 unless told otherwise, and is **not for production**: nothing is
durable, nothing is tuned for anything but tests, demonstrations and the command line. Any AMQP 1.0 client may talk to it.

Queues come into being when an address is first used; `q`, `/q` and `amqp://host:5672/q` are the same one. An address can
be told to misbehave (`Broker.script`), so that a test sees rejections, detached links and dropped connections when it
wants them.

    >>> from uamqp_cffi.broker import Broker
    >>> with Broker() as b:
    ...     b.put("orders", b"one")
    ...     [message.get_data() for message in b.messages("/orders")]  # doctest: +SKIP
    [<generator ...>]
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._core.broker_core import Core, Peer, Refused, Settings
from ._core.broker_management import Answer
from ._core.broker_store import Failure, Outcome, QueueInfo, Script, encode_error, node_name, redelivered
from ._core.filters.tls import Tls, TransportError
from ._core.wire import Wire, clock

if TYPE_CHECKING:
    from .message import Message

__all__ = ["NOTICE", "Answer", "Broker", "Outcome", "Pipe", "QueueInfo"]

NOTICE = "embedded AMQP 1.0 broker: everything is in memory; for tests and demonstrations, not for production"

_log = logging.getLogger("uamqp.broker")

_LINGER = 1_000  # milliseconds for a peer to end its side after we ended ours
_SHUTDOWN = 2.0  # seconds for all connections to close in close()
_ROUNDS = 16  # flushes of one connection before the others get their turn
_AGAIN = (BlockingIOError, InterruptedError)


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
        scripts: Mapping[str, str | Outcome | Callable[[Message], Any]] | None = None,
        store: bool = True,
        max_bytes: int = 1 << 30,
        max_message_size: int = 64 << 20,
        max_frame_size: int = 64 << 10,
        max_connections: int = 1000,
        idle_timeout: float = 0,
        credit: int = 2000,
        listen: bool = True,
    ) -> None:
        """Listen on `host`, `port` (0: a free one) and serve.

        ssl_context, or cert_file and key_file (PEM): TLS. client_ca: certificates of clients signed by it are welcome for
          SASL EXTERNAL.
        users: name to password; SASL is then required, PLAIN offered and ANONYMOUS not. Without, any password will do.
        sasl: the mechanisms to offer, of ANONYMOUS, PLAIN, EXTERNAL; False: no SASL layer at all.
        sasl_required: turn away clients that come without a SASL layer; by default when ANONYMOUS is not offered.
        scripts: address to what `on_message` takes.
        store: False counts messages instead of keeping them.
        max_bytes: of messages held; more are rejected with amqp:resource-limit-exceeded.
        idle_timeout: seconds of a client's silence after which its connection is closed; 0: never.
        credit: messages a sender may have under way.
        listen: False: no socket and no thread; `connect` gives in-memory connections.

        Raises OSError when the port cannot be had, ssl.SSLError for unusable certificates, ValueError for bad arguments.
        """
        self._tls = ssl_context if ssl_context is not None else _server_context(cert_file, key_file, client_ca)
        mechanisms = self._mechanisms(sasl, users)
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
            version=str(getattr(sys.modules.get(__package__), "__version__", "")),
        )
        self._core = Core(settings, _decode)
        self._core.now = clock() if listen else 0
        self._changed = threading.Condition(threading.RLock())  # its lock guards the core and every connection
        self._max_connections = max_connections
        self._closed = False
        self._thread: _Thread | None = None
        self.host = host
        self.port = 0
        for address, outcome in (scripts or {}).items():
            self.on_message(address, outcome)
        if listen:
            self._thread = _Thread(self, _listen(host, port))
            self.port = self._thread.port
            self._thread.start()
            _log.info("%s; listening on %s", NOTICE, self.url)

    def _mechanisms(self, sasl: Sequence[str] | bool, users: Mapping[str, str] | None) -> tuple[str, ...]:
        if isinstance(sasl, bool):
            if not sasl:
                return ()
            sasl = ["PLAIN"] if users is not None else ["ANONYMOUS", "PLAIN"]
            if self._tls is not None and self._tls.verify_mode != ssl.CERT_NONE:
                sasl = ["EXTERNAL", *sasl]
        unknown = set(sasl) - {"ANONYMOUS", "PLAIN", "EXTERNAL"}
        if unknown:
            raise ValueError(f"SASL mechanism {sorted(unknown)[0]!r} is none of ANONYMOUS, PLAIN, EXTERNAL")
        return tuple(sasl)

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "closed" if self._closed else self.url if self._thread is not None else "in memory"
        return f"<Broker {where}, not for production>"

    @property
    def url(self) -> str:
        """`amqp://127.0.0.1:PORT`, or `amqps://localhost:PORT` with TLS (certificates name hosts, not addresses)."""
        host = self.host
        if self._tls is not None and host in ("127.0.0.1", "::1"):
            host = "localhost"
        if host in ("", "0.0.0.0"):
            host = "127.0.0.1"
        if ":" in host:
            host = f"[{host}]"
        return f"{'amqp' if self._tls is None else 'amqps'}://{host}:{self.port}"

    # what is there

    def messages(self, address: str) -> list[Message]:
        """The messages that are ready in a queue, oldest first; they stay there. Those with a consumer are not among them."""
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
        """Wait until `n` messages have come into a queue since it was made, then give those that are ready in it. Raises
        TimeoutError after `timeout` seconds."""
        if self._thread is not None and threading.current_thread() is self._thread:
            raise RuntimeError("the broker's own thread cannot wait for messages: nobody would take them in")
        with self._changed:
            name = node_name(address)
            queues = self._core.queues

            def come() -> int:
                queue = queues.get(name)
                return queue.received if queue is not None else 0

            if not self._changed.wait_for(lambda: come() >= n or self._closed, timeout) or come() < n:
                raise TimeoutError(f"{come()} of {n} messages came into {name!r} within {timeout} s")
        return self.messages(address)

    def put(self, address: str, message: Message | bytes | str) -> None:
        """Put a message into a queue; bytes and str become the body of one. Raises ValueError for an address that names no
        queue, MemoryError beyond `max_bytes`."""
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
        """Answer every message to `address` so: an outcome's name or an `Outcome`, or a function that is called with the
        message, on the broker's thread, and gives one (None: accepted)."""
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
        credit: messages a sender may have under way; 0: none, ever.
        store: False counts messages instead of keeping them.
        max_message_size: what attaches to this address are told, in bytes.
        """
        if isinstance(outcome, str):
            outcome = Outcome(outcome, condition, description, info, delivery_failed, undeliverable_here, annotations)
        if isinstance(outcome, Outcome):
            outcome.encode()  # what cannot be encoded is found out here
        script = Script(outcome, times, delay, fail, after, closed, credit, store, max_message_size, condition, description, info)
        script.error()
        with self._acting() as core:
            core.set_script(node_name(address), script)

    def unscript(self, address: str) -> None:
        """Let `address` behave again."""
        with self._acting() as core:
            core.set_script(node_name(address), None)

    def answer(self, operation: str, status: int | None = 200, description: str = "OK", body: Any = None) -> None:
        """Answer this `operation` of $management so; `status` None: never. Without a `body` the request's own is echoed."""
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
        """A connection without a socket, for a broker made with listen=False. `now`: milliseconds on a clock of the caller's
        that starts at 0; it stands still unless a call says otherwise."""
        if self._thread is not None:
            raise ValueError("this broker listens on a socket; in-memory connections need listen=False")
        if self._closed:
            raise ValueError("the broker is closed")
        with self._changed:
            return Pipe(self, now)

    # life

    def close(self) -> None:
        """Close every connection and stop; done within a few seconds whatever the clients do. A second call does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
            if thread is None:
                for peer in list(self._core.peers.values()):
                    peer.guard(peer.shut, _shutdown_error())
                return
            thread.wake()
        if threading.current_thread() is not thread:
            thread.join(_SHUTDOWN + 5.0)

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

    def _filters(self) -> list[Tls]:
        return [] if self._tls is None else [Tls(self._tls, server_side=True)]


class Pipe:
    """A connection to a broker without a socket: bytes in with `feed`, bytes out with `take`, time with `tick`."""

    def __init__(self, broker: Broker, now: int | None = None) -> None:
        self._broker = broker
        self._at(now)
        self._filters = broker._filters()
        self._peer = Peer(broker._core, _subject_of(self._filters))
        self._wire = Wire(self._peer.engine, self._filters, broker._core.now)

    def _at(self, now: int | None) -> int:
        core = self._broker._core
        if now is not None:
            core.now = max(core.now, now)
        return core.now

    @property
    def closed(self) -> bool:
        """The broker has ended this connection; what `take` still gives is the last of it."""
        peer = self._peer
        return peer.ended or peer.dropping or (peer.closing and peer.engine.conn().transport_done)

    @property
    def deadline(self) -> int:
        """The millisecond at which to call `tick` even if nothing happens."""
        timer = self._broker._core.next_timer()
        return min(self._wire.deadline, self._wire.deadline if timer is None else timer)

    def feed(self, data: bytes, now: int | None = None) -> None:
        """Bytes from the client. Malformed ones close this connection, they raise nothing."""
        with self._broker._acting() as core:
            at = self._at(now)
            peer = self._peer
            if self.closed or peer.hung:
                return
            try:
                peer.handle(self._wire.feed(data, at))
            except TransportError as error:
                _log.info("%r: %s", peer, error)
                self._end()
                return
            peer.resume()
            core.run_timers()

    def take(self, n: int | None = None) -> bytes:
        """Bytes for the client, at most `n`; none when there are none."""
        with self._broker._acting():
            peer, wire, now = self._peer, self._wire, self._broker._core.now
            out = b""
            while not peer.ended and (n is None or len(out) < n):
                piece = bytes(wire.output()[: None if n is None else n - len(out)])
                if not piece:
                    break
                wire.sent(len(piece), now)
                out += piece
                if peer.stalled or wire.settling:
                    peer.handle(wire.tick(now))
                    peer.resume()
            return out

    def tick(self, now: int | None = None) -> None:
        """Time passed: timers of the broker run, an idle time-out may strike."""
        with self._broker._acting() as core:
            at = self._at(now)
            core.run_timers()
            if not self.closed and not self._peer.hung:
                self._peer.handle(self._wire.tick(at, dry=True))

    def lost(self) -> None:
        """The client is gone without a word."""
        with self._broker._acting():
            self._end()

    def _end(self) -> None:
        if not self._peer.ended:
            self._peer.handle(self._wire.lost(self._broker._core.now))
            self._peer.lost()


class _Connection:
    """One accepted socket."""

    def __init__(self, sock: socket.socket, broker: Broker) -> None:
        self.sock = sock
        filters = broker._filters()
        self.peer = Peer(broker._core, _subject_of(filters))
        self.wire = Wire(self.peer.engine, filters, broker._core.now)
        self.blocked = False  # the kernel takes no more for now
        self.lingering = False  # our side is shut; what still comes is thrown away


class _Thread(threading.Thread):
    """Moves bytes between sockets and the connections' wires. The broker's lock is held for all but waiting."""

    def __init__(self, broker: Broker, listener: socket.socket) -> None:
        super().__init__(name="uamqp-cffi-broker", daemon=True)
        self._broker = broker
        self._core = broker._core
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        for sock in (listener, self._waker, self._woken):
            sock.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._by_peer: dict[Peer, _Connection] = {}
        self._next_tick = 0
        self._stop_at: float | None = None

    def wake(self) -> None:
        """Let the thread look at what was left to be sent. From any thread."""
        with contextlib.suppress(BlockingIOError, OSError):  # full: it wakes up anyway; closed: it is over
            self._waker.send(b"\0")

    # the loop

    def run(self) -> None:
        try:
            while self._round():
                continue
        except Exception:
            _log.exception("the broker's thread failed")
        finally:
            self._release()

    def _round(self) -> bool:
        ready = self._selector.select(self._patience())
        broker = self._broker
        with broker._changed:
            self._core.now = clock()
            for key, mask in ready:
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._drain_waker()
                elif key.data.peer in self._by_peer:
                    self._serve(key.data, mask)
            self._core.run_timers()
            if self._core.now >= self._next_tick:
                self._tick_all()
            if broker._closed and self._stop_at is None:
                self._begin_stop()
            while self._core.dirty:
                connection = self._by_peer.get(self._core.dirty.pop())
                if connection is not None:
                    self._flush(connection)
            if self._core.arrived:
                self._core.arrived = False
                broker._changed.notify_all()
            return self._stop_at is None or (bool(self._by_peer) and time.monotonic() < self._stop_at)

    def _patience(self) -> float | None:
        """Seconds until something is due; None: for ever."""
        timer = self._core.next_timer()
        due = self._next_tick if timer is None else min(timer, self._next_tick)
        if self._stop_at is not None:
            return max(0.0, min(self._stop_at - time.monotonic(), 0.1))
        return max(0.0, min((due - clock()) / 1000 + 0.001, 3600.0))

    def _drain_waker(self) -> None:
        with contextlib.suppress(*_AGAIN):
            while self._woken.recv(4096):
                continue

    def _tick_all(self) -> None:
        now = self._core.now
        for connection in list(self._by_peer.values()):
            peer = connection.peer
            if connection.wire.deadline <= now and not peer.hung and not connection.lingering:
                self._guard(connection, lambda c: c.peer.handle(c.wire.tick(now, dry=True)))
                self._core.dirty.add(peer)
        self._next_tick = min((c.wire.deadline for c in self._by_peer.values() if not c.peer.hung), default=1 << 62)

    # connections

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, address = self._listener.accept()
            except _AGAIN:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause_listening(error)
                return
            if len(self._by_peer) >= self._broker._max_connections or self._stop_at is not None:
                _log.warning("a connection is turned away: there are %d", len(self._by_peer))
                sock.close()
                continue
            self._welcome(sock, address)

    def _pause_listening(self, error: OSError) -> None:
        _log.warning("no connection can be accepted for a moment: %s", error)
        self._selector.unregister(self._listener)

        def again() -> None:
            if self._stop_at is None:
                self._selector.register(self._listener, selectors.EVENT_READ)

        self._core.after(200, again)

    def _welcome(self, sock: socket.socket, address: Any) -> None:
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(sock, self._broker)
        except (OSError, MemoryError) as error:
            _log.warning("a connection from %s failed at once: %s", address, error)
            sock.close()
            return
        self._by_peer[connection.peer] = connection
        self._selector.register(sock, selectors.EVENT_READ, connection)
        self._next_tick = min(self._next_tick, connection.wire.deadline)
        _log.debug("%r comes from %s", connection.peer, address)

    def _guard(self, connection: _Connection, act: Callable[[_Connection], None]) -> None:
        """Whatever goes wrong with a connection ends that connection, and nothing else."""
        try:
            act(connection)
        except (OSError, TransportError) as error:
            _log.info("%r: %s", connection.peer, error)
            self._remove(connection)
        except Exception:
            _log.exception("%r is dropped", connection.peer)
            self._remove(connection)

    def _serve(self, connection: _Connection, mask: int) -> None:
        if mask & selectors.EVENT_READ:
            self._guard(connection, self._read)
        if mask & selectors.EVENT_WRITE:
            connection.blocked = False
            self._core.dirty.add(connection.peer)

    def _read(self, connection: _Connection) -> None:
        wire, peer, sock = connection.wire, connection.peer, connection.sock
        if connection.lingering:
            if not sock.recv(1 << 16):
                self._remove(connection)
            return
        room = wire.window()
        if not room:  # more events than one batch holds
            peer.handle(wire.tick(self._core.now))
            room = wire.window()
        if not room:
            return
        try:
            n = sock.recv_into(room)
        except _AGAIN:
            return
        if n == 0:
            with contextlib.suppress(TransportError):  # a client that cuts TLS off is gone all the same
                wire.ended()
            self._remove(connection)
            return
        peer.handle(wire.received(n, self._core.now))
        peer.resume()
        self._next_tick = min(self._next_tick, wire.deadline)
        self._core.dirty.add(peer)

    def _flush(self, connection: _Connection) -> None:
        if connection.lingering or connection.blocked:
            if connection.peer.dropping and not connection.lingering:
                self._remove(connection)
            return
        self._guard(connection, self._write)

    def _write(self, connection: _Connection) -> None:
        wire, peer, sock = connection.wire, connection.peer, connection.sock
        for _ in range(_ROUNDS):
            out = wire.output()
            if not out:
                break
            try:
                wire.sent(sock.send(out), self._core.now)
            except _AGAIN:
                connection.blocked = True
                break
            if peer.stalled or wire.settling:
                peer.handle(wire.tick(self._core.now))
                peer.resume()
        else:
            self._core.dirty.add(peer)  # the others first
            self.wake()
        self._watch(connection)
        if peer.dropping:
            self._end(connection, goodbye=False)
        elif not connection.blocked and peer.closing and not wire.output() and peer.engine.conn().transport_done:
            self._end(connection, goodbye=True)

    def _watch(self, connection: _Connection) -> None:
        """Ask the selector for what can be used."""
        mask = 0 if connection.peer.hung else selectors.EVENT_READ
        if connection.blocked:
            mask |= selectors.EVENT_WRITE
        registered = connection.sock in self._selector.get_map()
        if not mask:
            if registered:
                self._selector.unregister(connection.sock)
        elif not registered:
            self._selector.register(connection.sock, mask, connection)
        elif self._selector.get_key(connection.sock).events != mask:
            self._selector.modify(connection.sock, mask, connection)

    def _end(self, connection: _Connection, goodbye: bool) -> None:
        """End our side, and give the client a moment to end its own: closing at once could throw away what it has not read
        yet."""
        if goodbye:
            connection.wire.close()
            out = connection.wire.output()
            if out:
                with contextlib.suppress(*_AGAIN):
                    connection.wire.sent(connection.sock.send(out), self._core.now)
        connection.sock.shutdown(socket.SHUT_WR)
        connection.lingering = True
        connection.blocked = False
        self._settle_loss(connection)
        self._watch(connection)

        def give_up() -> None:
            self._remove(connection)

        self._core.after(_LINGER, give_up)

    def _settle_loss(self, connection: _Connection) -> None:
        peer = connection.peer
        if not peer.ended:
            peer.guard(peer.lost)

    def _remove(self, connection: _Connection) -> None:
        if self._by_peer.pop(connection.peer, None) is None:
            return
        self._settle_loss(connection)
        if connection.sock in self._selector.get_map():
            self._selector.unregister(connection.sock)
        connection.sock.close()
        connection.peer.engine.free()

    # the end

    def _begin_stop(self) -> None:
        self._stop_at = time.monotonic() + _SHUTDOWN
        if self._listener in self._selector.get_map():
            self._selector.unregister(self._listener)
        self._listener.close()
        for peer in list(self._by_peer):
            peer.hung = False
            if peer.opened and not peer.closing:
                peer.guard(peer.shut, _shutdown_error())
            elif not peer.closing:
                peer.dropping = True
            peer.touch()

    def _release(self) -> None:
        """Every descriptor goes, whatever happened before."""
        with self._broker._changed:
            for connection in list(self._by_peer.values()):
                self._remove(connection)
            self._listener.close()
            self._selector.close()
            self._waker.close()
            self._woken.close()
            self._broker._closed = True
            self._broker._changed.notify_all()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(256)
    except BaseException:
        listener.close()
        raise
    return listener


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


def _subject_of(filters: list[Tls]) -> Callable[[], str | None]:
    """Who the client's certificate says it is: the common name, or the whole subject; None without a certificate."""

    def subject() -> str | None:
        certificate = filters[0].peer_certificate() if filters else None
        if not certificate:
            return None
        names = {key: value for part in certificate.get("subject", ()) for key, value in part}
        return str(names.get("commonName") or names or "unnamed")

    return subject


def _shutdown_error() -> bytes:
    return encode_error("amqp:connection:forced", "the embedded broker is closing")


def _decode(payload: bytes) -> Message:
    from .message import Message

    return Message.decode_from_bytes(payload)  # type: ignore[no-any-return, no-untyped-call]


def _encode(message: Message | bytes | str) -> Iterator[tuple[int, bytes]]:
    """(message-format, payload) of what was given to put."""
    from .message import Message

    if isinstance(message, (bytes, str)):
        message = Message(message)
    for part in message.gather():
        yield getattr(part, "message_format", None) or 0, bytes(part.encode_message())
