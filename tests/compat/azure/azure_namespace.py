"""A namespace as Azure's services have them, as far as the published packages look: event hubs, Service Bus queues and
an IoT hub's device-bound messages, on the embedded broker. What is kept is in memory, and the tests read it.

    hub                                             send: round robin, or by partition key
    hub/Partitions/N                                send to that partition
    hub/ConsumerGroups/G/Partitions/N               receive: a log, from where the filter says
    $management                                     READ of com.microsoft:eventhub and com.microsoft:partition
    QUEUE, QUEUE/$deadletterqueue                   send and receive, with locks
    QUEUE/$management                               com.microsoft:peek-message, :schedule-message, :renew-lock, ...
    messages/devicebound                            send
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import ssl
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from uamqp_cffi._broker.cbs import as_check
from uamqp_cffi._broker.links import Incoming, Outgoing
from uamqp_cffi._broker.management import UNREADABLE, Request, parse, respond
from uamqp_cffi._broker.queues import Entry, Queue, modified, redelivered
from uamqp_cffi._broker.scripts import ACCEPTED, Answer, Outcome, Refused, encode_error
from uamqp_cffi._core.engine import decode, lib, types
from uamqp_cffi._core.engine import values as v
from uamqp_cffi._core.engine.records import Attach, Delivery, Settled
from uamqp_cffi.broker import Broker
from uamqp_cffi.message import Message

BATCH = 0x80013700  # the message-format of Azure's batches: each data section is a message
SELECTOR = "apache.org:selector-filter:string"
SESSION_FILTER = "com.microsoft:session-filter"
HEADER, ANNOTATIONS, PROPERTIES, APPLICATION, DATA = 0x70, 0x72, 0x73, 0x74, 0x75
TICKS_AT_EPOCH = 621_355_968_000_000_000  # .NET's ticks, 100 ns since the year 1
GROUP_ID = 10  # its place in the properties section

KEY_NAME, KEY = "RootManageSharedAccessKey", "c2VjcmV0IG9mIHRoZSBmYWtlIG5hbWVzcGFjZQ=="


def now_ms() -> int:
    return round(time.time() * 1000)


# ---- encoded messages ----


def add_to_map(payload: bytes, section: int, pairs: dict[bytes, bytes]) -> bytes:
    """The message with encoded pairs put into one of its map sections, which is made when there is none."""
    before, after, old = b"", b"", {}
    for code, offset, length, start in lib.sections(payload):
        if code == section:
            old = _raw_pairs(payload[offset : offset + length])
        elif code < section:
            before += payload[start : offset + length]
        else:
            after += payload[start : offset + length]
    return before + v.enc_described(section, v.enc_map((old | pairs).items())) + after


def with_header(payload: bytes) -> bytes:
    """Azure counts deliveries in the header from the first one on."""
    code, offset, length, _ = next(iter(lib.sections(payload)))
    if code != HEADER:
        return v.described_composite("header", delivery_count=v.enc_uint(0)) + payload
    fields = decode.decode_exact(payload[offset : offset + length])
    if len(fields) > 4:
        return payload
    raw = [v.encode(field) for field in fields] + [v.NULL] * (4 - len(fields)) + [v.enc_uint(0)]
    return v.enc_described(HEADER, v.enc_list(raw)) + payload[offset + length :]


def _raw_pairs(encoded: bytes) -> dict[bytes, bytes]:
    """The pairs of an encoded map, still encoded."""
    decoded = decode.decode_exact(encoded)
    count = len(decoded)
    body = encoded[3:] if encoded[0] == 0xC1 else encoded[9:]
    pieces = []
    while body:
        length = _value_length(body)
        pieces.append(body[:length])
        body = body[length:]
    assert len(pieces) == 2 * count, "a key that is there twice"
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


def _value_length(body: bytes) -> int:
    code = body[0]
    if code == 0:
        descriptor = _value_length(body[1:])
        return 1 + descriptor + _value_length(body[1 + descriptor :])
    fixed = {4: 0, 5: 1, 6: 2, 7: 4, 8: 8, 9: 16}
    if code >> 4 in fixed:
        return 1 + fixed[code >> 4]
    if (code >> 4) % 2 == 0:  # a, c, e: one byte of size
        return 2 + body[1]
    return 5 + int.from_bytes(body[1:5], "big")


def mapping(payload: bytes, section: int) -> dict[str, Any]:
    """A map section decoded, its keys as text."""
    for code, offset, length, _ in lib.sections(payload):
        if code == section:
            return {str(key): value for key, value in decode.decode_exact(payload[offset : offset + length]).items()}
    return {}


def field(payload: bytes, index: int) -> Any:
    """A field of the properties section."""
    for code, offset, length, _ in lib.sections(payload):
        if code == PROPERTIES:
            fields = decode.decode_exact(payload[offset : offset + length])
            return fields[index] if index < len(fields) else None
    return None


def messages_of(delivery: Delivery) -> list[bytes]:
    """What one delivery carries: itself, or the messages of a batch."""
    if delivery.message_format != BATCH:
        return [delivery.payload]
    return [
        decode.decode_exact(delivery.payload[offset : offset + length])
        for code, offset, length, _ in lib.sections(delivery.payload)
        if code == DATA
    ]


def typed_map(**pairs: bytes) -> bytes:
    """An encoded map with string keys; `_` in a name stands for `-`."""
    return v.enc_map((v.enc_str(key.replace("_", "-")), value) for key, value in pairs.items())


def filter_of(attach: Attach, name: str) -> tuple[bool, Any]:
    """Whether an attach's source has that filter, and its value."""
    source = getattr(attach.fields.get("source"), "value", None) or []
    filters = source[7] if len(source) > 7 and source[7] else {}
    for key, value in filters.items():
        if str(key) == name:
            return True, value.value if isinstance(value, types.Described) else value
    return False, None


def property_of_link(attach: Attach, name: str) -> Any:
    for key, value in (attach.fields.get("properties") or {}).items():
        if str(key) == name:
            return value
    return None


# ---- nodes ----


class Requests(Queue):
    """A management node: `answer` makes the reply's body from the request."""

    one_by_one = True

    def __init__(self, name: str, broker: Broker, answer: Callable[[Request, Any], tuple[int, bytes]]) -> None:
        super().__init__(name, broker._core.room)
        self._core = broker._core
        self._answer = answer
        self.asked: list[str] = []  # operations, in order

    def receiver(self, link: Outgoing, attach: Attach) -> dict[str, bytes]:
        link.queue = Queue(self.name, self._core.room)  # replies for this link alone
        return {}

    def receive(self, link: Incoming, delivery: Delivery) -> Outcome:
        try:
            request = parse(delivery.payload)
            body = getattr(decode.decode_exact(request.body), "value", None) if request.body else None
        except (lib.DecodeError, ValueError, TypeError):
            return UNREADABLE
        self.asked.append(str(request.application.get("operation")))
        try:
            status, value = self._answer(request, body)
        except LookupError as error:
            status, value = 404, v.enc_described(0x77, v.enc_map(()))
            reply = request._replace(body=value)
            return respond(self._core, link, reply, Answer(status, f"not found: {error}"))
        reply = request._replace(body=v.enc_described(0x77, value))
        return respond(self._core, link, reply, Answer(status, "OK" if status == 200 else "Answered"))


class Event(NamedTuple):
    sequence: int
    offset: int
    enqueued: int
    payload: bytes


class Partition(Queue):
    """A log of events; every consumer sees all of them."""

    one_by_one = True

    def __init__(self, hub: Hub, number: str) -> None:
        super().__init__(f"{hub.name}/Partitions/{number}", hub.broker._core.room)
        self.hub = hub
        self.number = number
        self.events: list[Event] = []
        self.readers: list[tuple[Outgoing, str, int | None]] = []  # link, consumer group, owner level

    def receive(self, link: Incoming, delivery: Delivery) -> Outcome:
        for payload in messages_of(delivery):
            self.append(payload)
        return ACCEPTED

    def append(self, payload: bytes) -> None:
        sequence = len(self.events)
        event = Event(sequence, sequence * 64, now_ms(), payload)
        pairs = {
            v.enc_symbol("x-opt-sequence-number"): v.enc_long(event.sequence),
            v.enc_symbol("x-opt-offset"): v.enc_str(str(event.offset)),
            v.enc_symbol("x-opt-enqueued-time"): v.enc_timestamp(event.enqueued),
        }
        event = event._replace(payload=add_to_map(payload, ANNOTATIONS, pairs))
        self.events.append(event)
        self.received += 1
        self.hub.broker._core.arrived = True
        for link, _, _ in list(self.readers):
            link.queue.put(event.payload)
            self.hub.broker._core.pump(link.queue)

    def messages(self) -> list[Message]:
        return [Message.decode_from_bytes(event.payload) for event in self.events]


class Reader(Queue):
    """What one consumer has not been sent yet."""

    def __init__(self, name: str, partition: Partition) -> None:
        super().__init__(name, partition.hub.broker._core.room)
        self.partition = partition

    def settle(self, entries: list[Entry], record: Settled) -> None:
        self.forget(entries)  # a log does not care

    def left(self, entries: list[Entry]) -> None:
        self.forget(entries)

    def receiver_gone(self, link: Outgoing) -> None:
        self.clear()
        self.partition.readers = [reader for reader in self.partition.readers if reader[0].queue is not self]


class Consumers(Queue):
    """`hub/ConsumerGroups/G/Partitions/N`."""

    one_by_one = True

    def __init__(self, name: str, partition: Partition, group: str) -> None:
        super().__init__(name, partition.hub.broker._core.room)
        self.partition = partition
        self.group = group
        self.filters: list[str | None] = []

    def sender(self, link: Incoming, attach: Attach) -> dict[str, bytes]:
        raise Refused("amqp:not-allowed", "nobody sends to a consumer group")

    def receiver(self, link: Outgoing, attach: Attach) -> dict[str, bytes]:
        _, selector = filter_of(attach, SELECTOR)
        level = property_of_link(attach, "com.microsoft:epoch")
        self._claim(level)
        self.filters.append(selector)
        link.queue = Reader(self.name, self.partition)
        for event in self._chosen(selector):
            link.queue.put(event.payload)
        self.partition.readers.append((link, self.group, level))
        return {}

    def _claim(self, level: int | None) -> None:
        """A higher owner level takes the partition from others of the group, a lower one is refused."""
        rivals = [reader for reader in self.partition.readers if reader[1] == self.group]
        highest = max((other for _, _, other in rivals if other is not None), default=None)
        if highest is not None and (level is None or level < highest):
            raise Refused("amqp:link:stolen", f"a receiver of owner level {highest} has the partition")
        if level is not None:
            error = encode_error("amqp:link:stolen", f"a receiver of owner level {level} takes the partition")
            for link, _, _ in rivals:
                link.peer.guard(link.peer.detach, link.id, error)

    def _chosen(self, selector: str | None) -> Iterator[Event]:
        if selector is None:
            yield from self.partition.events
            return
        match = re.fullmatch(r"amqp\.annotation\.x-opt-([a-z-]+) (>=?) '?(@latest|-?\d+)'?", selector)
        if match is None:
            raise Refused("amqp:invalid-field", f"a filter that nobody understands: {selector!r:.100}")
        what, sign, text = match.groups()
        if text == "@latest":
            return
        bound = int(text)
        for event in self.partition.events:
            value = {"offset": event.offset, "sequence-number": event.sequence, "enqueued-time": event.enqueued}[what]
            if value > bound or (sign == ">=" and value == bound):
                yield event


class Hub(Queue):
    """An event hub."""

    one_by_one = True

    def __init__(self, name: str, broker: Broker, partitions: int = 2) -> None:
        super().__init__(name, broker._core.room)
        self.broker = broker
        self.created = now_ms()
        self.partitions = {str(n): Partition(self, str(n)) for n in range(partitions)}
        self.wanted: list[Any] = []  # the desired capabilities of each producer
        self._turn = 0

    def sender(self, link: Incoming, attach: Attach) -> dict[str, bytes]:
        self.wanted.append(attach.fields.get("desired_capabilities"))
        return {}

    def receive(self, link: Incoming, delivery: Delivery) -> Outcome:
        key = mapping(delivery.payload, ANNOTATIONS).get("x-opt-partition-key")
        if key is None:
            self._turn += 1
            number = self._turn
        else:
            number = zlib.crc32(v.utf8(str(key)))
        return self.partitions[str(number % len(self.partitions))].receive(link, delivery)

    def bodies(self) -> list[bytes]:
        return [
            b"".join(message.get_data()) for partition in self.partitions.values() for message in partition.messages()
        ]

    def read(self, request: Request) -> bytes:
        """The answer to READ."""
        common = {"name": v.enc_str(self.name), "type": v.enc_str(str(request.application["type"]))}
        if request.application["type"] == "com.microsoft:eventhub":
            ids = v.enc_array(b"\xa1", [v.enc_str(number)[1:] for number in self.partitions])
            return _snake_map(
                **common,
                created_at=v.enc_timestamp(self.created),
                partition_count=v.enc_int(len(self.partitions)),
                partition_ids=ids,
            )
        number = str(request.application["partition"])
        events = self.partitions[number].events
        return _snake_map(
            **common,
            partition=v.enc_str(number),
            begin_sequence_number=v.enc_long(0),
            last_enqueued_sequence_number=v.enc_long(events[-1].sequence if events else -1),
            last_enqueued_offset=v.enc_str(str(events[-1].offset) if events else "-1"),
            last_enqueued_time_utc=v.enc_timestamp(events[-1].enqueued if events else 0),
            is_partition_empty=v.enc_bool(not events),
        )


def _snake_map(**pairs: bytes) -> bytes:
    return v.enc_map((v.enc_str(key), value) for key, value in pairs.items())


class Locked(NamedTuple):
    entry: Entry
    until: int
    session: str | None


class LockQueue(Queue):
    """A Service Bus queue: what is received stays locked until it is settled, or the lock is over."""

    one_by_one = True

    def __init__(self, name: str, broker: Broker, lock_seconds: float = 30, sessions: bool = False) -> None:
        super().__init__(name, broker._core.room)
        self.broker = broker
        self.lock_seconds = lock_seconds
        self.sessions = sessions
        self.sequence = 0
        self.locked: dict[bytes, Locked] = {}
        self.deferred: dict[int, Entry] = {}
        self.scheduled: dict[int, tuple[int, bytes]] = {}  # sequence number: (due, payload)
        self.completed: list[bytes] = []  # payloads
        self.abandoned = self.released = 0
        self.renewed = 0
        self.states: dict[str, bytes | None] = {}
        self.owners: dict[str, Outgoing] = {}  # who holds a session
        self.dead_letters: LockQueue | None = None
        if not name.endswith("$deadletterqueue"):
            self.dead_letters = LockQueue(f"{name}/$deadletterqueue", broker, lock_seconds)

    # in

    def receive(self, link: Incoming, delivery: Delivery) -> Outcome:
        for payload in messages_of(delivery):
            due = mapping(payload, ANNOTATIONS).get("x-opt-scheduled-enqueue-time")
            if due is not None and due > now_ms():
                self.schedule(due, payload)
            else:
                self.enqueue(payload)
        return ACCEPTED

    def enqueue(self, payload: bytes, sequence: int | None = None) -> None:
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        pairs = {
            v.enc_symbol("x-opt-sequence-number"): v.enc_long(sequence),
            v.enc_symbol("x-opt-enqueued-sequence-number"): v.enc_long(sequence),
            v.enc_symbol("x-opt-enqueued-time"): v.enc_timestamp(now_ms()),
        }
        payload = with_header(add_to_map(payload, ANNOTATIONS, pairs))
        queue = self._home(payload)
        queue.put(payload)
        self.broker._core.arrived = True
        self.broker._core.pump(queue)

    def _home(self, payload: bytes) -> Queue:
        """Where a message waits: with the link that has its session, or here."""
        owner = self.owners.get(field(payload, GROUP_ID)) if self.sessions else None
        return self if owner is None else owner.queue

    def schedule(self, due: int, payload: bytes) -> int:
        self.sequence += 1
        number = self.sequence
        self.scheduled[number] = (due, payload)

        def enqueue() -> None:
            found = self.scheduled.pop(number, None)
            if found is not None:
                self.enqueue(found[1], number)

        self.broker._core.after(max(0, due - now_ms()), enqueue)
        return number

    # out

    def receiver(self, link: Outgoing, attach: Attach) -> dict[str, bytes]:
        asked, session = filter_of(attach, SESSION_FILTER)
        if self.sessions != asked:
            raise Refused("amqp:not-allowed", "sessions are for queues with sessions, and those for sessions")
        fields = {"rcv_settle_mode": v.enc_ubyte(attach.fields.get("rcv_settle_mode") or 0)}
        if not asked:
            return fields
        if session is None:
            session = self._free_session()
        if session in self.owners:
            raise Refused("com.microsoft:session-cannot-be-locked", f"somebody has session {session!r}")
        self.owners[session] = link
        link.queue = SessionQueue(self, session)
        self.hand_over(session, link.queue)
        ticks = TICKS_AT_EPOCH + (now_ms() + round(self.lock_seconds * 1000)) * 10_000
        fields["properties"] = v.enc_map([(v.enc_symbol("com.microsoft:locked-until-utc"), v.enc_long(ticks))])
        chosen = v.enc_map(
            [(v.enc_symbol(SESSION_FILTER), v.enc_described(v.enc_symbol(SESSION_FILTER), v.enc_str(session)))]
        )
        address = attach.fields["source"].value[0]
        fields["source"] = v.described_composite("source", address=v.enc_str(address), filter=chosen)
        return fields

    def hand_over(self, session: str, queue: Queue) -> None:
        """Give a session's ready messages to the link that has it now."""
        entries = super().take(len(self), 1 << 62)
        mine = [entry for entry in entries if field(entry.payload, GROUP_ID) == session]
        self.give_back(entry for entry in entries if entry not in mine)
        queue.give_back(mine)

    def _free_session(self) -> str:
        for _, payload in self.ready():
            session = field(payload, GROUP_ID)
            if session is not None and session not in self.owners:
                return str(session)
        raise Refused("com.microsoft:timeout", "no session has messages")

    def take(self, limit: int, max_bytes: int) -> list[Entry]:
        return [self.lock(entry) for entry in super().take(limit, max_bytes)]

    def lock(self, entry: Entry) -> Entry:
        """The entry with a lock token as its tag, and until when it is locked."""
        until = now_ms() + round(self.lock_seconds * 1000)
        pairs = {v.enc_symbol("x-opt-locked-until"): v.enc_timestamp(until)}
        size = len(entry.payload)
        entry = entry._replace(tag=uuid.uuid4().bytes, payload=add_to_map(entry.payload, ANNOTATIONS, pairs))
        self._hold(len(entry.payload) - size)
        self.locked[entry.tag] = Locked(entry, until, None)
        self._watch(entry.tag, self.lock_seconds)
        return entry

    def _watch(self, tag: bytes, seconds: float) -> None:
        def look() -> None:
            held = self.locked.get(tag)
            if held is None:
                return
            if held.until > now_ms():
                self._watch(tag, (held.until - now_ms()) / 1000)
                return
            self.unlock(tag, failed=True)

        self.broker._core.after(seconds * 1000, look)

    def unlock(self, tag: bytes, failed: bool) -> None:
        """Make a message ready again."""
        entry = self.locked.pop(tag).entry
        queue = self._home(entry.payload)
        queue.give_back([entry._replace(failures=entry.failures + failed, tag=b"")])
        self.broker._core.pump(queue)

    def forget(self, entries: Iterable[Entry]) -> None:
        """Settled for good, or sent settled."""
        for entry in entries:
            self.locked.pop(entry.tag, None)
            self.completed.append(entry.payload)
        super().forget(entries)

    def left(self, entries: list[Entry]) -> None:
        """A lock outlives its link."""

    def settle(self, entries: list[Entry], record: Settled) -> None:
        held = [entry for entry in entries if entry.tag in self.locked]
        if record.outcome == lib.OUT_REJECTED:
            error = decode.decode_exact(record.state).value[0]
            info = {str(key): value for key, value in ((error.value + [None] * 3)[2] or {}).items()}
            for entry in held:
                self.bury(entry.tag, info.get("DeadLetterReason"), info.get("DeadLetterErrorDescription"))
        elif record.outcome == lib.OUT_MODIFIED:
            _, undeliverable = modified(record.state)
            for entry in held:
                if undeliverable:
                    self.defer(entry.tag)
                else:
                    self.abandon(entry.tag)
        elif record.outcome == lib.OUT_RELEASED:
            self.released += len(held)
            for entry in held:
                self.unlock(entry.tag, failed=False)
        elif record.outcome == lib.OUT_ACCEPTED:
            self.forget(held)

    def abandon(self, tag: bytes) -> None:
        self.abandoned += 1
        self.unlock(tag, failed=True)

    def defer(self, tag: bytes) -> None:
        entry = self.locked.pop(tag).entry
        self.deferred[sequence_of(entry.payload)] = entry

    def bury(self, tag: bytes, reason: str | None, description: str | None) -> None:
        entry = self.locked.pop(tag).entry
        given = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
        pairs = {v.enc_str(key): v.enc_str(value) for key, value in given.items() if value is not None}
        assert self.dead_letters is not None, "nobody rejects dead letters"
        self.dead_letters.put(add_to_map(entry.payload, APPLICATION, pairs))
        self.broker._core.pump(self.dead_letters)

    # management

    def answer(self, request: Request, body: Any) -> tuple[int, bytes]:
        operation = str(request.application.get("operation", ""))
        handler = _OPERATIONS.get(operation)
        if handler is None:
            raise LookupError(operation)
        return handler(self, body)

    def peek(self, body: Any) -> tuple[int, bytes]:
        wanted, count = body["from-sequence-number"], body["message-count"]
        held = [payload for _, payload in self.ready()]
        held += [redelivered(locked.entry) for locked in self.locked.values()]
        held += [
            add_to_map(payload, ANNOTATIONS, {v.enc_symbol("x-opt-sequence-number"): v.enc_long(number)})
            for number, (_, payload) in self.scheduled.items()
        ]
        found = sorted((payload for payload in held if sequence_of(payload) >= wanted), key=sequence_of)[:count]
        messages = [typed_map(message=v.enc_binary(payload)) for payload in found]
        return (200 if messages else 204), typed_map(messages=v.enc_list(messages))

    def schedule_many(self, body: Any) -> tuple[int, bytes]:
        numbers = []
        for message in body["messages"]:
            payload = bytes(message["message"])
            due = mapping(payload, ANNOTATIONS)["x-opt-scheduled-enqueue-time"]
            numbers.append(self.schedule(due, payload))
        return 200, typed_map(sequence_numbers=_longs(numbers))

    def cancel(self, body: Any) -> tuple[int, bytes]:
        for number in body["sequence-numbers"]:
            self.scheduled.pop(number)
        return 200, v.enc_map(())

    def renew(self, body: Any) -> tuple[int, bytes]:
        expirations = []
        for token in body["lock-tokens"]:
            tag = _tag(token)
            until = now_ms() + round(self.lock_seconds * 1000)
            self.locked[tag] = self.locked[tag]._replace(until=until)
            self.renewed += 1
            expirations.append(v.enc_timestamp(until)[1:])
        return 200, typed_map(expirations=v.enc_array(b"\x83", expirations))

    def fetch(self, body: Any) -> tuple[int, bytes]:
        """receive-by-sequence-number: of what was deferred."""
        messages = []
        for number in body["sequence-numbers"]:
            entry = self.lock(self.deferred.pop(number))
            token = uuid.UUID(bytes_le=entry.tag)
            messages.append(typed_map(message=v.enc_binary(entry.payload), lock_token=v.enc_uuid(token)))
        return 200, typed_map(messages=v.enc_list(messages))

    def dispose(self, body: Any) -> tuple[int, bytes]:
        """update-disposition: what a settlement does, after the link is gone or without one."""
        status = str(body["disposition-status"])
        for token in body["lock-tokens"]:
            tag = _tag(token)
            held = self.locked[tag]
            if status == "completed":
                self.forget([held.entry])
            elif status == "abandoned":
                self.abandon(tag)
            elif status == "suspended":
                self.bury(tag, body.get("deadletter-reason"), body.get("deadletter-description"))
            elif status == "defered":
                self.defer(tag)
            else:
                raise LookupError(status)
        return 200, v.enc_map(())

    def renew_session(self, body: Any) -> tuple[int, bytes]:
        if str(body["session-id"]) not in self.owners:
            raise LookupError(body["session-id"])
        self.renewed += 1
        return 200, typed_map(expiration=v.enc_timestamp(now_ms() + round(self.lock_seconds * 1000)))

    def set_state(self, body: Any) -> tuple[int, bytes]:
        self.states[str(body["session-id"])] = body["session-state"]
        return 200, v.enc_map(())

    def get_state(self, body: Any) -> tuple[int, bytes]:
        state = self.states.get(str(body["session-id"]))
        return 200, typed_map(session_state=v.NULL if state is None else v.enc_binary(state))

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self)} ready, {len(self.locked)} locked, {len(self.completed)} completed>"


class SessionQueue(Queue):
    """One session's part of a queue, for the link that holds it."""

    def __init__(self, whole: LockQueue, session: str) -> None:
        super().__init__(whole.name, whole.broker._core.room)
        self.whole = whole
        self.session = session

    def take(self, limit: int, max_bytes: int) -> list[Entry]:
        return [self.whole.lock(entry) for entry in super().take(limit, max_bytes)]

    def settle(self, entries: list[Entry], record: Settled) -> None:
        self.whole.settle(entries, record)

    def forget(self, entries: Iterable[Entry]) -> None:
        self.whole.forget(entries)

    def left(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.tag in self.whole.locked:
                self.whole.unlock(entry.tag, failed=False)

    def receiver_gone(self, link: Outgoing) -> None:
        del self.whole.owners[self.session]
        self.whole.give_back(super().take(len(self), 1 << 62))


def sequence_of(payload: bytes) -> int:
    return int(mapping(payload, ANNOTATIONS)["x-opt-sequence-number"])


def _longs(numbers: Iterable[int]) -> bytes:
    return v.enc_array(b"\x81", [number.to_bytes(8, "big", signed=True) for number in numbers])


def _tag(token: Any) -> bytes:
    """The delivery-tag of a lock token: Azure writes GUIDs little-endian. Raises LookupError for what is no token."""
    if not isinstance(token, uuid.UUID):
        raise LookupError(token)
    return token.bytes_le


_OPERATIONS: dict[str, Callable[[LockQueue, Any], tuple[int, bytes]]] = {
    "com.microsoft:peek-message": LockQueue.peek,
    "com.microsoft:schedule-message": LockQueue.schedule_many,
    "com.microsoft:cancel-scheduled-message": LockQueue.cancel,
    "com.microsoft:renew-lock": LockQueue.renew,
    "com.microsoft:receive-by-sequence-number": LockQueue.fetch,
    "com.microsoft:update-disposition": LockQueue.dispose,
    "com.microsoft:renew-session-lock": LockQueue.renew_session,
    "com.microsoft:set-session-state": LockQueue.set_state,
    "com.microsoft:get-session-state": LockQueue.get_state,
}


def _signed_by_iot(token: str, host: str) -> bool:
    """Whether this is the shared access signature of an IoT hub's service client."""
    fields = dict(part.split("=", 1) for part in token.removeprefix("SharedAccessSignature ").split("&"))
    signed = f"{fields['sr']}\n{fields['se']}".encode()
    made = base64.b64encode(hmac.new(base64.b64decode(KEY), signed, hashlib.sha256).digest())
    return (
        fields["sr"] == host
        and fields["skn"] == KEY_NAME
        and int(fields["se"]) > time.time()
        and hmac.compare_digest(made, unquote(fields["sig"]).encode())
    )


class Namespace:
    """The service itself: `hub` with two partitions, `queue`, `sessions`, and an IoT hub, behind TLS and `$cbs`."""

    def __init__(self, context: ssl.SSLContext, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
        self._signed = as_check({KEY_NAME: KEY})
        self.tokens: list[str] = []  # audiences of the tokens that were put
        self.broker = Broker(
            host, port, ssl_context=context, nodes=self._node, tokens=self._judge, idle_timeout=240, **options
        )
        self.hub = Hub("hub", self.broker)
        self.queue = LockQueue("queue", self.broker)
        self.sessions = LockQueue("sessions", self.broker, sessions=True)
        self.devices = "messages/devicebound"
        self.hub_management = Requests("$management", self.broker, self._read)
        self.asked: list[str] = []  # addresses that links named
        queues = [self.queue, self.sessions, self.queue.dead_letters, self.sessions.dead_letters]
        self._nodes: dict[str, Queue] = {"hub": self.hub, "$management": self.hub_management}
        for queue in queues:
            assert queue is not None
            self._nodes[queue.name] = queue
            self._nodes[f"{queue.name}/$management"] = Requests(f"{queue.name}/$management", self.broker, queue.answer)
        for partition in self.hub.partitions.values():
            self._nodes[partition.name.casefold()] = partition

    def _judge(self, audience: str, token_type: str, token: str) -> Any:
        """Event hubs and Service Bus sign a URL, with the key as text; IoT hubs the host name, with the key decoded."""
        self.tokens.append(audience)
        if audience.startswith("https:"):
            return token_type == "servicebus.windows.net:sastoken" and _signed_by_iot(token, self.broker.host)
        return self._signed(audience, token_type, token)

    def _node(self, name: str) -> Queue | None:
        self.asked.append(name)
        found = self._nodes.get(name.casefold())
        match = re.fullmatch(r"hub/ConsumerGroups/([^/]+)/Partitions/(\d+)", name)
        if found is None and match is not None and match[2] in self.hub.partitions:
            found = self._nodes[name.casefold()] = Consumers(name, self.hub.partitions[match[2]], match[1])
        if found is None and name not in ("$cbs", self.devices):
            raise Refused("amqp:not-found", f"the namespace has no {name!r:.100}")
        return found

    def node(self, name: str) -> Any:
        """What stands at an address."""
        return self._nodes[name.casefold()]

    def _read(self, request: Request, body: Any) -> tuple[int, bytes]:
        if request.application.get("operation") != "READ" or request.application.get("name") != self.hub.name:
            raise LookupError(request.application.get("name"))
        return 200, self.hub.read(request)

    def connection_string(self, host: str = "localhost", entity: str | None = None) -> str:
        """For event hubs and Service Bus."""
        ending = "" if entity is None else f";EntityPath={entity}"
        return f"Endpoint=sb://{host}/;SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY}{ending}"

    def iot_connection_string(self, host: str) -> str:
        return f"HostName={host};SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY}"

    def close(self) -> None:
        self.broker.close()
