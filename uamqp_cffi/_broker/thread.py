"""The embedded broker's thread: sockets, `selectors`, and the wires of its connections."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any

from .._core import time
from .._core.engine.lib import NEVER
from .._core.transport.filters.tls import TransportError
from .._core.transport.wire import Wire, clock
from .core import Core, PeerPort, Timer
from .peer import Peer, accept, shutdown_error

_log = logging.getLogger("uamqp.broker")

_LINGER = 1_000  # milliseconds for a peer to end its side after we ended ours
_SHUTDOWN = 0.3  # seconds for clients to answer our close when the broker goes; one that is not reading cannot
_ROUNDS = 16  # flushes of one connection before the others get their turn
_AGAIN = (BlockingIOError, InterruptedError)


def listen_on(host: str, port: int) -> socket.socket:
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


class _Connection:
    """One accepted socket."""

    def __init__(self, sock: socket.socket, core: Core, context: ssl.SSLContext | None) -> None:
        self.sock = sock
        self.peer, self.wire = accept(core, context)
        self.blocked = False  # the kernel takes no more for now
        self.lingering = False  # our side is shut; what still comes is thrown away
        self.patience: Timer | None = None  # how long


class BrokerThread(threading.Thread):
    """Moves bytes between sockets and the connections' wires. `changed` guards the core: its lock is held for all but
    waiting, and it is notified when messages came in. `over` says that the thread serves nobody any more."""

    def __init__(
        self,
        core: Core,
        context: ssl.SSLContext | None,
        changed: threading.Condition,
        listener: socket.socket,
        max_connections: int,
    ) -> None:
        super().__init__(name="uamqp-cffi-broker", daemon=True)
        self.over = False
        self._core = core
        self._tls = context
        self._changed = changed
        self._max_connections = max_connections
        self._stopping = False
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        for sock in (listener, self._waker, self._woken):
            sock.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._by_peer: dict[PeerPort, _Connection] = {}
        self._next_tick = 0
        self._stop_at: float | None = None

    def wake(self) -> None:
        """Let the thread look at what was left to be sent. From any thread."""
        with contextlib.suppress(BlockingIOError, OSError):  # full: it wakes up anyway; closed: it is over
            self._waker.send(b"\0")

    def stop(self) -> None:
        """Close every connection and end. From any thread, under the lock."""
        self._stopping = True
        self.wake()

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
        with self._changed:
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
            if self._stopping and self._stop_at is None:
                self._begin_stop()
            while self._core.dirty:
                connection = self._by_peer.get(self._core.dirty.pop())
                if connection is not None:
                    self._flush(connection)
            if self._core.arrived:
                self._core.arrived = False
                self._changed.notify_all()
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
        ticking = (c for c in self._by_peer.values() if not c.peer.hung and not c.lingering)
        self._next_tick = min((c.wire.deadline for c in ticking), default=1 << 62)

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
            if len(self._by_peer) >= self._max_connections or self._stop_at is not None:
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
            connection = _Connection(sock, self._core, self._tls)
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
        if peer.timed and wire.deadline == NEVER and not connection.blocked:  # known only when output is gone
            peer.handle(wire.tick(self._core.now))
            self._next_tick = min(self._next_tick, wire.deadline)
        self._watch(connection)
        if peer.dropping:
            self._end(connection, goodbye=False)
        elif not connection.blocked and not wire.output() and self._is_done(peer, wire):
            self._end(connection, goodbye=True)

    def _is_done(self, peer: Peer, wire: Wire) -> bool:
        """Both have said what they had to say, in AMQP or below."""
        return (peer.closing and peer.engine.conn().transport_done) or wire.ended_by_peer

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
        """End our side, and give the client a moment to end its own: closing at once could throw away what it has not
        read yet."""
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

        connection.patience = self._core.after(_LINGER, give_up)

    def _settle_loss(self, connection: _Connection) -> None:
        peer = connection.peer
        if not peer.ended:
            peer.guard(peer.lost)

    def _remove(self, connection: _Connection) -> None:
        if self._by_peer.pop(connection.peer, None) is None:
            return
        self._core.cancel(connection.patience)
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
                peer.guard(peer.shut, shutdown_error())
            elif not peer.closing:
                peer.dropping = True
            peer.touch()

    def _release(self) -> None:
        """Every descriptor goes, whatever happened before."""
        with self._changed:
            for connection in list(self._by_peer.values()):
                self._remove(connection)
            self._listener.close()
            self._selector.close()
            self._waker.close()
            self._woken.close()
            self.over = True
            self._changed.notify_all()
