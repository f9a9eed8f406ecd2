"""What the embedded broker keeps: queues of encoded messages, and the scripts that make it misbehave on request.

No engine, socket or clock in here. Messages stay as they came, encoded: nothing is parsed until somebody asks for a
`Message`, or a redelivery has to count up the header. A queue hands messages out first in, first out; what comes back
goes in front, in its old order.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from . import engine as eng
from . import values as v
from .records import Attach, Delivery, Settled

if TYPE_CHECKING:
    from .broker_links import Incoming, Outgoing
else:
    Incoming = Outgoing = Any  # for who evaluates annotations; importing it here would go round in a circle

FORMAT_AND_PAYLOAD = cast("Callable[[Delivery], tuple[int, bytes]]", itemgetter(3, 5))
PAYLOAD = cast("Callable[[Delivery], bytes]", itemgetter(5))

Failure = Literal["attach", "detach", "end", "close", "drop", "hang"]
FAILURES = ("attach", "detach", "end", "close", "drop", "hang")
OUTCOMES = ("accepted", "rejected", "released", "modified", "none", "bare")

_DEFAULT_CONDITIONS = {
    "attach": "amqp:not-found",
    "detach": "amqp:link:detach-forced",
    "end": "amqp:resource-deleted",
    "close": "amqp:connection:forced",
}

_MOST = {"delay": 4_000_000, "credit": 0xFFFFFFFF, "max_message_size": (1 << 64) - 1}

MANAGEMENT = "$management"
CBS = "$cbs"
NODES = frozenset((MANAGEMENT, CBS))  # what is no queue: requests come in, answers go out
_MAX_STATE = 4096  # UAM_MAX_STATE of csrc/limits.h
LONGEST = 500  # characters of a description that has a peer's words in it
ID_MASK = 0xFFFFFFFF  # delivery-ids are 32 bits
HEADER = 0x70
PROPERTIES = 0x73


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


def encode_error(condition: str, description: str | None = None, info: dict[Any, Any] | None = None) -> bytes:
    """An `error` (§2.8.14) as the engine takes it. `info` keys become symbols."""
    fields: dict[str, bytes] = {"condition": v.enc_symbol(condition)}
    if description is not None:
        fields["description"] = v.enc_str(description)
    if info:
        fields["info"] = v.enc_map((v.enc_symbol(str(k)), v.encode(x)) for k, x in info.items())
    return _whole("error", fields)


def _whole(name: str, fields: dict[str, bytes]) -> bytes:
    """A composite with absent fields at the end as nulls, like the performatives of our engine (OPT_EXPLICIT). Raises
    ValueError for more than the engine takes."""
    code, names = eng.FIELDS[name]
    encoded = v.enc_described(code, v.enc_list(fields.get(field, v.NULL) for field in names))
    if len(encoded) > _MAX_STATE:
        raise ValueError(f"{name} of {len(encoded)} bytes, and no more than {_MAX_STATE} can be sent")
    return encoded


class Refused(Exception):
    """An attach that gets a null terminus and this error."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(description)
        self.error = encode_error(condition, description[:LONGEST])


@dataclass(frozen=True)
class Outcome:
    """What the broker answers to a message: `name` is accepted, rejected, released, modified, `bare` (settled without a
    state) or `none` (never settled). The other fields count where AMQP has a place for them (§3.4)."""

    name: str = "accepted"
    condition: str | None = None
    description: str | None = None
    info: dict[Any, Any] | None = None
    delivery_failed: bool | None = None
    undeliverable_here: bool | None = None
    annotations: dict[Any, Any] | None = None

    def __post_init__(self) -> None:
        if self.name not in OUTCOMES:
            raise ValueError(f"outcome {self.name!r} is none of {', '.join(OUTCOMES)}")

    def encode(self) -> bytes:
        """The delivery state; empty for `none` and `bare`."""
        if self.name in ("none", "bare"):
            return b""
        fields: dict[str, bytes] = {}
        if self.name == "rejected" and (self.condition or self.description or self.info):
            fields["error"] = encode_error(self.condition or "amqp:not-allowed", self.description, self.info)
        if self.name == "modified":
            if self.delivery_failed is not None:
                fields["delivery_failed"] = v.enc_bool(self.delivery_failed)
            if self.undeliverable_here is not None:
                fields["undeliverable_here"] = v.enc_bool(self.undeliverable_here)
            if self.annotations:
                pairs = ((v.enc_symbol(str(k)), v.encode(x)) for k, x in self.annotations.items())
                fields["message_annotations"] = v.enc_map(pairs)
        return _whole(self.name, fields)


@dataclass
class Script:
    """How an address behaves instead of simply taking messages; see `Broker.script` for the meaning of each field."""

    outcome: Outcome | Callable[[Any], Any] | None = None
    times: int | None = None
    delay: float = 0.0
    fail: Failure | None = None
    after: int = 0
    closed: bool = True
    credit: int | None = None
    store: bool | None = None
    max_message_size: int | None = None
    condition: str | None = None
    description: str | None = None
    info: dict[Any, Any] | None = None
    applied: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.fail is not None and self.fail not in FAILURES:
            raise ValueError(f"fail={self.fail!r} is none of {', '.join(FAILURES)}")
        for name in ("times", "delay", "after", "credit", "max_message_size"):
            value = getattr(self, name) or 0
            if value < 0:
                raise ValueError(f"{name}={value!r} is negative")
            if not value <= _MOST.get(name, value):
                raise ValueError(f"{name}={value!r} is more than {_MOST[name]}")

    @property
    def per_message(self) -> bool:
        """Whether messages have to be looked at one by one."""
        return bool(self.outcome is not None or self.delay or self.breaks)

    @property
    def breaks(self) -> bool:
        """Whether something is going to be broken off after some messages."""
        return self.fail not in (None, "attach") and (self.times is None or self.applied < self.times)

    def take(self) -> bool:
        """Whether the script still applies; counts this time."""
        if self.times is not None and self.applied >= self.times:
            return False
        self.applied += 1
        return True

    def error(self) -> bytes:
        """The error that goes out with the failure; empty for a detach with closed=False that names none."""
        condition = self.condition
        if condition is None:
            if self.fail is None or (self.fail == "detach" and not self.closed):
                return b""
            condition = _DEFAULT_CONDITIONS.get(self.fail)
            if condition is None:  # nothing is said
                return b""
        description = self.description
        if description is None and self.condition is None:
            description = "the embedded broker was told to"
        return encode_error(condition, description, self.info)


ACCEPTED = Outcome()
FULL = Outcome("rejected", "amqp:resource-limit-exceeded", "the embedded broker holds as many bytes as it may")


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
            self.name, len(self), self.unsettled, len(self.dead), self.bytes, len(self.consumers), self.received,
            self.received_bytes, self.delivered,
        )

    # links

    def sender(self, link: Incoming, attach: Attach) -> dict[str, bytes]:
        """Somebody wants to send to this node. The encoded fields of our attach that are not as usual. Raises Refused."""
        return {}

    def receiver(self, link: Outgoing, attach: Attach) -> dict[str, bytes]:
        """Somebody wants to receive from this node; `link.queue` may be set to another one. The encoded fields of our
        attach that are not as usual. Raises Refused."""
        return {}

    def receive(self, link: Incoming, delivery: Delivery) -> Outcome:
        """Take in what came on a link."""
        return ACCEPTED if self.put(delivery.payload, delivery.message_format) else FULL

    def settle(self, entries: list[Entry], record: Settled) -> None:
        """A consumer's outcome for messages that it was sent. As with RabbitMQ, undeliverable-here is as good as rejected."""
        if self.dropped:
            self.forget(entries)
        elif record.outcome == eng.OUT_REJECTED:
            self.dead.extend(entries)
        elif record.outcome == eng.OUT_MODIFIED:
            failed, undeliverable = modified(record.state)
            if failed:
                entries = [e._replace(failures=e.failures + 1) for e in entries]
            if undeliverable:
                self.dead.extend(entries)
            else:
                self.give_back(entries)
        elif record.outcome == eng.OUT_RELEASED:
            self.give_back(entries)
        else:
            self.forget(entries)

    def left(self, entries: list[Entry]) -> None:
        """The link that these were sent on is gone, and no outcome has come."""
        if self.dropped:
            self.forget(entries)
        else:
            self.give_back(entries)

    def receiver_gone(self, link: Outgoing) -> None:
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
    failed, undeliverable = (fields + [None, None])[:2]
    return bool(failed), bool(undeliverable)


def redelivered(entry: Entry) -> bytes:
    """The payload as it leaves: header.delivery-count (§3.2.1) raised by the failures so far. What is no AMQP message
    leaves as it came."""
    if not entry.failures:
        return entry.payload
    try:
        code, offset, length, start = next(iter(eng.sections(entry.payload)), (0, 0, 0, 0))
        fields: list[Any] = []
        end = 0
        if code == HEADER:
            fields = list(v.decode_exact(entry.payload[offset : offset + length]))
            end = offset + length
        fields += [None] * (5 - len(fields))
        encoders = (v.enc_bool, v.enc_ubyte, v.enc_uint, v.enc_bool, v.enc_uint)
        fields[4] = (fields[4] or 0) + entry.failures
        names = eng.FIELDS["header"][1]
        given = {n: enc(x) for n, enc, x in zip(names, encoders, fields, strict=True) if x is not None}
        header = v.described_composite("header", **given)
    except (eng.DecodeError, ValueError, TypeError):
        return entry.payload
    return entry.payload[:start] + header + entry.payload[end:]


def property_of(payload: bytes, index: int) -> Any:
    """One field of the properties section (§3.2.4), None when absent. Raises DecodeError for what is no message."""
    for code, offset, length, _ in eng.sections(payload):
        if code == PROPERTIES:
            fields = v.decode_exact(payload[offset : offset + length])
            return fields[index] if index < len(fields) else None
    return None


def as_outcome(value: Any, script: Script) -> Outcome:
    """What a user's function gave, as an Outcome: a name, an Outcome, or None for accepted."""
    if value is None:
        return ACCEPTED
    if isinstance(value, Outcome):
        return value
    return replace(Outcome(str(value)), condition=script.condition, description=script.description, info=script.info)
