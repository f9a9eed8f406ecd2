"""What the embedded broker keeps: queues of encoded messages.

No engine, socket or clock in here. Messages stay as they came, encoded: nothing is parsed until somebody asks for a
`Message`, or a redelivery has to count up the header. A queue hands messages out first in, first out; what comes back
goes in front, in its old order.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, cast

from .._core.engine import lib
from .._core.engine import values as v
from .._core.engine.records import Attach, Delivery, Settled
from .scripts import ACCEPTED, FULL, Outcome

FORMAT_AND_PAYLOAD = cast("Callable[[Delivery], tuple[int, bytes]]", itemgetter(3, 5))
PAYLOAD = cast("Callable[[Delivery], bytes]", itemgetter(5))

MANAGEMENT = "$management"
CBS = "$cbs"
NODES = frozenset((MANAGEMENT, CBS))  # what is no queue: requests come in, answers go out
ID_MASK = 0xFFFFFFFF  # delivery-ids are 32 bits
HEADER = 0x70
PROPERTIES = 0x73


class IncomingLink(Protocol):
    """A link on which messages come in, as its node sees it."""

    peer: Any
    id: int
    session: int
    name: str | None


class OutgoingLink(Protocol):
    """A link on which messages go out, as its node sees it."""

    peer: Any
    id: int
    session: int
    queue: Queue
    target: str | None


class QueueInfo(NamedTuple):
    """A queue in numbers. `received` counts what was accepted into it since it was made; `messages` are ready,
    `unsettled` are with a consumer, `dead` were rejected by one, or undeliverable there; `bytes` is what all three hold."""

    name: str
    messages: int
    unsettled: int
    dead: int
    bytes: int
    consumers: int
    received: int
    received_bytes: int
    delivered: int


class Entry(NamedTuple):
    """A message that was handed out at least once. `number` is its place in the queue, `failures` how often a consumer
    said `modified` with delivery-failed, `tag` the delivery-tag to send it with: 16 bytes, or none to leave it to the engine."""

    number: int
    format: int
    payload: bytes
    failures: int = 0
    tag: bytes = b""


def node_name(address: Any) -> str:
    """The name of the queue that `address` means: `q`, `/q` and `amqp://host:5672/q?x=1` are all `q`."""
    text = str(address)
    text = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", "", text)
    return text.lstrip("/").partition("?")[0]


class Bytes:
    """How many bytes of messages the broker holds, and may hold."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.held = 0


class Queue:
    """A queue: ready messages, those that came back, rejected ones, and consumers in turn.

    A node that is more than that overrides `sender`, `receiver`, `receive`, `take`, `settle`, `left`, and sets `one_by_one`.
    """

    one_by_one = False  # each message goes through `receive`; otherwise whole runs go through `put_all`

    def __init__(self, name: str, room: Bytes, store: bool = True) -> None:
        self.name = name
        self.store = store
        self.dropped = False  # what its consumers still have is gone with them
        self.consumers: deque[Any] = deque()
        self.received = self.received_bytes = self.delivered = self.unsettled = self.bytes = 0
        self.dead: deque[Entry] = deque()
        self._room = room
        self._ready: deque[tuple[int, bytes]] = deque()
        self._returned: list[Entry] = []  # a heap by number: all of them are older than what is in _ready
        self._next = 0

    def __len__(self) -> int:
        return len(self._ready) + len(self._returned)

    def info(self) -> QueueInfo:
        return QueueInfo(
            self.name,
            len(self),
            self.unsettled,
            len(self.dead),
            self.bytes,
            len(self.consumers),
            self.received,
            self.received_bytes,
            self.delivered,
        )

    # links

    def sender(self, link: IncomingLink, attach: Attach) -> dict[str, bytes]:
        """Somebody wants to send to this node. The encoded fields of our attach that are not as usual. Raises Refused."""
        return {}

    def receiver(self, link: OutgoingLink, attach: Attach) -> dict[str, bytes]:
        """Somebody wants to receive from this node; `link.queue` may be set to another one. The encoded fields of our
        attach that are not as usual. Raises Refused."""
        return {}

    def receive(self, link: IncomingLink, delivery: Delivery) -> Outcome:
        """Take in what came on a link."""
        return ACCEPTED if self.put(delivery.payload, delivery.message_format) else FULL

    def settle(self, entries: list[Entry], record: Settled) -> None:
        """A consumer's outcome for messages that it was sent. As with RabbitMQ, undeliverable-here is as good as rejected."""
        if self.dropped:
            self.forget(entries)
        elif record.outcome == lib.OUT_REJECTED:
            self.dead.extend(entries)
        elif record.outcome == lib.OUT_MODIFIED:
            failed, undeliverable = modified(record.state)
            if failed:
                entries = [e._replace(failures=e.failures + 1) for e in entries]
            if undeliverable:
                self.dead.extend(entries)
            else:
                self.give_back(entries)
        elif record.outcome == lib.OUT_RELEASED:
            self.give_back(entries)
        else:
            self.forget(entries)

    def left(self, entries: list[Entry]) -> None:
        """The link that these were sent on is gone, and no outcome has come."""
        if self.dropped:
            self.forget(entries)
        else:
            self.give_back(entries)

    def receiver_gone(self, link: OutgoingLink) -> None:
        """A link that received from this node is over; what it left has been said."""

    # in

    def _hold(self, size: int) -> None:
        self.bytes += size
        self._room.held += size

    def _fits(self, size: int) -> bool:
        """Whether `size` more bytes may be held; dead letters of this queue make room, oldest first."""
        while self._room.held + size > self._room.cap and self.dead:
            self._hold(-len(self.dead.popleft().payload))
        return self._room.held + size <= self._room.cap

    def put_all(self, run: list[Delivery]) -> int:
        """Take messages in; how many fitted under the byte cap (those at the front of `run`)."""
        size = sum(map(len, map(PAYLOAD, run)))
        if self.store:
            if not self._fits(size):
                return self._put_some(run)
            self._ready.extend(map(FORMAT_AND_PAYLOAD, run))
            self._hold(size)
        self.received += len(run)
        self.received_bytes += size
        return len(run)

    def _put_some(self, run: list[Delivery]) -> int:
        for i, delivery in enumerate(run):
            if not self.put(delivery.payload, delivery.message_format):
                return i
        return len(run)

    def put(self, payload: bytes, message_format: int = 0) -> bool:
        """Take one message in; False when it does not fit under the byte cap."""
        if self.store:
            if not self._fits(len(payload)):
                return False
            self._ready.append((message_format, payload))
            self._hold(len(payload))
        self.received += 1
        self.received_bytes += len(payload)
        return True

    # out

    def take(self, limit: int, max_bytes: int) -> list[Entry]:
        """Up to `limit` messages for a consumer, oldest first, no more than the one with which they pass `max_bytes`.
        What came back goes first."""
        out: list[Entry] = []
        size = 0
        while self._returned and len(out) < limit and size < max_bytes:
            entry = heapq.heappop(self._returned)
            out.append(entry)
            size += len(entry.payload)
        ready = self._ready
        number = self._next
        while ready and len(out) < limit and size < max_bytes:
            message_format, payload = ready.popleft()
            out.append(Entry(number, message_format, payload))
            size += len(payload)
            number += 1
        self._next = number
        return out

    def give_back(self, entries: Iterable[Entry]) -> None:
        """Put messages that were taken in front again, in their old order."""
        for entry in entries:
            heapq.heappush(self._returned, entry)

    def forget(self, entries: Iterable[Entry]) -> None:
        """These are with their consumer for good."""
        self._hold(-sum(len(entry.payload) for entry in entries))

    def ready(self) -> list[tuple[int, bytes]]:
        """(message-format, payload) of what is ready, in order."""
        return [(e.format, redelivered(e)) for e in sorted(self._returned)] + list(self._ready)

    def clear(self) -> int:
        """Drop everything that is not with a consumer; how many messages were ready."""
        gone = [payload for _, payload in self._ready]
        gone += [e.payload for e in self._returned]
        count = len(gone)
        gone += [e.payload for e in self.dead]
        self._hold(-sum(map(len, gone)))
        self._ready.clear()
        self._returned.clear()
        self.dead.clear()
        return count


def modified(state: bytes) -> tuple[bool, bool]:
    """delivery-failed and undeliverable-here of the outcome `modified` (§3.4.5). Its message-annotations are not merged in."""
    fields = list(getattr(v.decode_exact(state), "value", None) or ())
    failed, undeliverable = [*fields, None, None][:2]
    return bool(failed), bool(undeliverable)


def redelivered(entry: Entry) -> bytes:
    """The payload as it leaves: header.delivery-count (§3.2.1) raised by the failures so far. What is no AMQP message
    leaves as it came."""
    if not entry.failures:
        return entry.payload
    try:
        code, offset, length, start = next(iter(lib.sections(entry.payload)), (0, 0, 0, 0))
        fields: list[Any] = []
        end = 0
        if code == HEADER:
            fields = list(v.decode_exact(entry.payload[offset : offset + length]))
            end = offset + length
        fields += [None] * (5 - len(fields))
        encoders = (v.enc_bool, v.enc_ubyte, v.enc_uint, v.enc_bool, v.enc_uint)
        fields[4] = (fields[4] or 0) + entry.failures
        names = lib.FIELDS["header"][1]
        given = {n: enc(x) for n, enc, x in zip(names, encoders, fields, strict=True) if x is not None}
        header = v.described_composite("header", **given)
    except (lib.DecodeError, ValueError, TypeError):
        return entry.payload
    return entry.payload[:start] + header + entry.payload[end:]


def property_of(payload: bytes, index: int) -> Any:
    """One field of the properties section (§3.2.4), None when absent. Raises DecodeError for what is no message."""
    for code, offset, length, _ in lib.sections(payload):
        if code == PROPERTIES:
            fields = v.decode_exact(payload[offset : offset + length])
            return fields[index] if index < len(fields) else None
    return None
