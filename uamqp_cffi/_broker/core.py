"""What the embedded broker's connections share: queues, scripts, timers.

Nothing here blocks or knows a socket, and time comes in as `Core.now`. Connections are `peer.Peer`s; what one of
them sends may make another one's engine speak: those stand in `Core.dirty`, and the driver flushes them.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .._core.engine.engine import Engine
from .queues import Bytes, Queue
from .scripts import Answer, Check, Refused, Script

_log = logging.getLogger("uamqp.broker")

_SEND_MESSAGES = 1024

Timer = list[Any]
"""When, a ticket, and what to call: None once it was, or was cancelled."""


class PeerPort(Protocol):
    """A connection of the broker, as what it shares with others and its links see it."""

    core: Core
    engine: Engine
    permits: Any
    incoming: dict[int, Any]
    outgoing: dict[int, Any]
    stalled: set[Any]
    opened: bool
    closing: bool
    dropping: bool
    hung: bool
    ended: bool

    def guard(self, act: Callable[..., Any], *args: Any) -> Any: ...
    def touch(self) -> None: ...
    def fail(self, link: Any, script: Script) -> None: ...
    def detach(self, link: int, error: bytes, closed: bool = True) -> None: ...
    def expired(self) -> None: ...
    def shut(self, error: bytes) -> None: ...


@dataclass(frozen=True)
class Settings:
    """What a broker was made with; sizes in bytes, times in milliseconds."""

    max_bytes: int = 1 << 30
    max_message_size: int = 64 << 20
    max_frame_size: int = 64 << 10
    max_queues: int = 10_000
    max_links: int = 1_000
    idle_timeout: int = 0
    open_timeout: int = 30_000
    credit: int = 2_000
    store: bool = True
    mechanisms: tuple[str, ...] = ("ANONYMOUS", "PLAIN")
    sasl_required: bool = False
    users: dict[str, str] | None = field(default=None, repr=False)
    container_id: str = "uamqp-cffi-broker"
    tokens: Check | None = field(default=None, repr=False)
    tokens_required: bool = True
    version: str = ""


class Core:
    """What the connections share. One thread at a time is inside; the driver sees to that."""

    def __init__(
        self,
        settings: Settings,
        make_message: Callable[[bytes], Any],
        nodes: Callable[[str], Queue | None] | None = None,
    ) -> None:
        self.settings = settings
        self.nodes = nodes
        self.make_message = make_message
        self.now = 0
        self.room = Bytes(settings.max_bytes)
        self.queues: dict[str, Queue] = {}
        self.scripts: dict[str, Script] = {}
        self.answers: dict[str, Answer] = {}
        self.peers: dict[int, PeerPort] = {}
        self.dirty: set[PeerPort] = set()
        self.arrived = False  # something came into a queue; the driver takes this back and wakes who waits
        self.connections = 0
        self._timers: list[Timer] = []
        self._cancelled = 0
        self._ticket = itertools.count()

    # nodes

    def queue(self, name: str) -> Queue:
        """The queue of that name, made when there is none. Raises Refused when there are too many, or for no name."""
        found = self.queues.get(name)
        if found is None:
            if not name:
                raise Refused("amqp:invalid-field", "the address names no queue")
            node = self.node(name)
            if node is not None:
                return node
            if len(self.queues) >= self.settings.max_queues:
                raise Refused("amqp:resource-limit-exceeded", f"the embedded broker has {len(self.queues)} queues")
            script = self.scripts.get(name)
            store = self.settings.store if script is None or script.store is None else script.store
            found = self.queues[name] = Queue(name, self.room, store)
        return found

    def node(self, name: str | None) -> Queue | None:
        """What stands at that address in place of a queue of ours. Raises Refused when nothing may."""
        return self.nodes(name) if self.nodes is not None and name else None

    def dynamic_queue(self) -> Queue:
        return self.queue(f"dynamic.{next(self._ticket)}")

    def drop_queue(self, queue: Queue) -> None:
        queue.clear()
        queue.store = False
        queue.dropped = True
        self.queues.pop(queue.name, None)

    def set_script(self, name: str, script: Script | None) -> None:
        """Put a script on an address, or take it off; links that are there already follow it from now on."""
        if script is None:
            self.scripts.pop(name, None)
        else:
            self.scripts[name] = script
        if name in self.queues:
            wanted = script.store if script is not None else None
            self.queues[name].store = self.settings.store if wanted is None else wanted
        for peer in list(self.peers.values()):
            for link in peer.incoming.values():
                if link.name == name:
                    link.script = script
                    peer.guard(link.renew)
            for out in peer.outgoing.values():
                if out.queue.name == name:
                    out.script = script

    def put(self, name: str, payload: bytes, message_format: int = 0) -> bool:
        """A message from within the process; False when it does not fit under the byte cap."""
        queue = self.queue(name)
        stored = queue.put(payload, message_format)
        self.arrived = True
        self.pump(queue)
        return stored

    def pump(self, queue: Queue) -> None:
        """Hand out what is ready, consumers in turn, each as far as its credit goes; then answer drains."""
        consumers = queue.consumers
        idle = 0
        while len(queue) and idle < len(consumers):
            link = consumers[0]
            consumers.rotate(-1)
            share = max(1, min(_SEND_MESSAGES, len(queue) // len(consumers)))
            idle = 0 if link.peer.guard(link.send, share) else idle + 1
        for link in list(consumers):
            if link.draining:
                link.peer.guard(link.finish_drain)

    # time

    def after(self, milliseconds: float, act: Callable[[], None]) -> Timer:
        """Call `act` then; give the result to `cancel` when nobody needs that any more."""
        timer: Timer = [self.now + round(milliseconds), next(self._ticket), act]
        heapq.heappush(self._timers, timer)
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Take a timer back, so that it does not keep what it would have called. Repeatable."""
        if timer is None or timer[2] is None:
            return
        timer[2] = None
        self._cancelled += 1
        if self._cancelled > 16 and self._cancelled * 2 > len(self._timers):
            self._timers = [left for left in self._timers if left[2] is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def next_timer(self) -> int | None:
        return self._timers[0][0] if self._timers else None

    def run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            timer = heapq.heappop(self._timers)
            act, timer[2] = timer[2], None
            if act is None:
                self._cancelled -= 1
                continue
            try:
                act()
            except Exception:
                _log.exception("a timer failed")
