"""The embedded broker's ends of links: `Incoming` takes messages in, `Outgoing` hands them out.

A run of deliveries is taken in as a whole: one bookkeeping step and one ranged disposition, so a message costs well
below a microsecond beyond the engine's share. Only addresses with a script are walked message by message.
"""

from __future__ import annotations

import functools
import itertools
import logging
from array import array
from collections.abc import Iterable

from .._core.engine import lib
from .._core.engine.records import Delivery, Settled
from . import cbs, management
from .core import PeerPort
from .queues import CBS, ID_MASK, MANAGEMENT, Entry, Queue, node_name, property_of, redelivered
from .scripts import ACCEPTED, FULL, LONGEST, Outcome, Refused, Script, as_outcome, encode_error

_log = logging.getLogger("uamqp.broker")

_TO = 2  # properties.to
_SEND_BYTES = 256 << 10  # joined for one call of the engine
_ACCEPTED = ACCEPTED.encode()


class Incoming:
    """A link on which we receive."""

    __slots__ = ("closed", "count", "dynamic", "held", "id", "name", "peer", "queue", "script", "seen", "session")

    def __init__(self, peer: PeerPort, link: int, session: int, name: str | None, queue: Queue | None) -> None:
        self.peer = peer
        self.id = link
        self.session = session
        self.name = name  # None: anonymous relay
        self.queue = queue
        self.script: Script | None = peer.core.scripts.get(name) if name is not None else None
        self.seen = 0  # messages since credit was last given
        self.held = 0  # messages that have no outcome yet; they count against the credit of a script
        self.count = 0
        self.dynamic = False
        self.closed = False

    def window(self) -> int:
        script = self.script
        return self.peer.core.settings.credit if script is None or script.credit is None else script.credit

    def renew(self) -> None:
        """Credit for a whole window."""
        self.seen = 0
        room = self.window() - (self.held if self.limited else 0)
        if not self.over() and room > 0:
            self.peer.engine.flow(self.id, room)
            self.peer.touch()

    @property
    def limited(self) -> bool:
        return self.script is not None and self.script.credit is not None

    def over(self) -> bool:
        """Nothing is answered any more."""
        return self.closed or self.peer.hung or self.peer.dropping

    def spent(self, n: int) -> None:
        self.seen += n
        if 2 * self.seen >= self.window():
            self.renew()

    def settle(self, first: int, last: int, outcome: Outcome) -> None:
        if outcome.name != "none" and not self.over():
            state = _ACCEPTED if outcome is ACCEPTED else outcome.encode()
            self.peer.engine.settle(self.id, first, last, True, state)
            self.peer.touch()

    # taking messages in

    def take(self, run: list[Delivery]) -> None:
        """A run of deliveries with adjacent delivery-ids, all settled or all not."""
        if self.closed:
            return
        queue = self.queue
        if queue is None or queue.one_by_one or (self.script is not None and self.script.per_message):
            for delivery in run:
                if self.over():
                    return
                self.take_one(delivery)
        else:
            stored = queue.put_all(run)
            self.count += len(run)
            if not run[0].settled:
                first = run[0].delivery_id
                if stored:
                    self.settle(first, (first + stored - 1) & ID_MASK, ACCEPTED)
                if stored < len(run):
                    self.settle((first + stored) & ID_MASK, run[-1].delivery_id, FULL)
            self.peer.core.arrived = True
            self.peer.core.pump(queue)
        if not self.over():
            self.spent(len(run))

    def take_one(self, delivery: Delivery) -> None:
        self.count += 1
        script = self.script
        outcome = ACCEPTED
        failing = script is not None and script.breaks
        if script is not None and script.outcome is not None and (failing or script.take()):
            outcome = self.choose(script, delivery)
        queue: Queue | None = None
        if outcome.name in ("accepted", "bare"):
            queue, refusal = self.find_queue(delivery)
            if queue is None:
                outcome = refusal
            elif (decided := queue.receive(self, delivery)) is not ACCEPTED:
                outcome = decided
        self.answer(delivery, outcome, script.delay if script is not None else 0)
        if queue is not None:
            self.peer.core.arrived = True
            self.peer.core.pump(queue)
        if failing and script is not None and self.count >= script.after and script.take():
            self.peer.fail(self, script)

    def choose(self, script: Script, delivery: Delivery) -> Outcome:
        if isinstance(script.outcome, Outcome):
            return script.outcome
        assert script.outcome is not None
        try:
            outcome = as_outcome(script.outcome(self.peer.core.make_message(delivery.payload)), script)
            outcome.encode()
            return outcome
        except Exception as error:
            _log.exception("the function for messages to %r failed", self.name)
            why = f"the function for this address raised {type(error).__name__}"
            return Outcome("rejected", "amqp:internal-error", why)

    def find_queue(self, delivery: Delivery) -> tuple[Queue | None, Outcome]:
        """Where the message belongs; with no queue, the outcome that says why."""
        if self.queue is not None:
            return self.queue, ACCEPTED
        core = self.peer.core
        if self.name == MANAGEMENT:
            return None, management.handle(core, self, delivery)
        if self.name == CBS:
            return None, cbs.handle(core, self, delivery)
        try:
            to = property_of(delivery.payload, _TO)
            if to is None:
                why = "no properties.to, and the link has no target"
                return None, Outcome("rejected", "amqp:precondition-failed", why)
            return core.queue(node_name(to)), ACCEPTED
        except Refused as refused:
            return None, Outcome("rejected", "amqp:not-found", str(refused)[:LONGEST])
        except (lib.DecodeError, ValueError):
            return None, Outcome("rejected", "amqp:decode-error", "the message has no readable properties")

    def answer(self, delivery: Delivery, outcome: Outcome, delay: float) -> None:
        if delivery.settled:
            return
        if outcome.name == "none":
            self.held += 1
        elif not delay:
            self.settle(delivery.delivery_id, delivery.delivery_id, outcome)
        else:
            self.held += 1
            self.peer.core.after(delay * 1000, functools.partial(self.peer.guard, self.answer_late, delivery, outcome))

    def answer_late(self, delivery: Delivery, outcome: Outcome) -> None:
        self.held -= 1
        self.settle(delivery.delivery_id, delivery.delivery_id, outcome)
        if self.limited:
            self.spent(1)


class Outgoing:
    """A link on which we send what is in a queue."""

    __slots__ = (
        "blocked",
        "closed",
        "count",
        "credit",
        "draining",
        "dynamic",
        "id",
        "peer",
        "queue",
        "script",
        "session",
        "settled",
        "target",
        "unsettled",
    )

    def __init__(self, peer: PeerPort, link: int, session: int, queue: Queue, settled: bool) -> None:
        self.peer = peer
        self.id = link
        self.session = session
        self.queue = queue
        self.settled = settled
        self.script = peer.core.scripts.get(queue.name)
        self.credit = 0
        self.count = 0
        self.draining = False
        self.blocked = False  # the engine takes no more until its output is gone or the session window opens
        self.closed = False
        self.dynamic = False
        self.target: str | None = None  # the address at the receiver's end
        self.unsettled: dict[int, Entry] = {}

    def send(self, limit: int) -> int:
        """Send up to `limit` messages; how many were sent. One that is too large for this receiver costs it its link."""
        script = self.script
        failing = script is not None and script.breaks and self.count < script.after
        n = min(limit, self.credit, script.after - self.count if failing and script is not None else limit)
        if n <= 0 or self.blocked or self.closed or self.peer.hung or self.peer.dropping:
            return 0
        entries = self.queue.take(n, _SEND_BYTES)
        sent = 0
        too_large: Entry | None = None
        try:
            while sent < len(entries) and not self.blocked:
                run = _same_format(entries, sent)
                taken = self.send_run(run)
                sent += taken
                if taken < len(run):
                    self.blocked = True
                    self.peer.stalled.add(self)
        except lib.SizeError:
            too_large = entries[sent]
        finally:
            self.queue.give_back(entries[sent:])
            self.credit -= sent
            self.count += sent
            self.queue.delivered += sent
            if sent:
                self.peer.touch()
        if failing and script is not None and self.count >= script.after and script.take():
            self.peer.fail(self, script)
        if too_large is not None and not self.closed:
            self.refuse(len(too_large.payload))
        return sent

    def refuse(self, size: int) -> None:
        """The next message has `size` bytes, more than this receiver announced: it keeps its place in the queue."""
        limit = self.peer.engine.link(self.id).remote_max_message_size
        why = f"the next message has {size} bytes, and the receiver's max-message-size is {limit}"
        _log.warning("%r: link to %r detached: %s", self.peer, self.queue.name, why)
        self.peer.detach(self.id, encode_error("amqp:link:message-size-exceeded", why))

    def send_run(self, run: list[Entry]) -> int:
        payloads = [redelivered(e) if e.failures else e.payload for e in run]
        tagged = bool(run[0].tag)
        if tagged:
            payloads = [entry.tag + payload for entry, payload in zip(run, payloads, strict=True)]
        lengths = array("I", map(len, payloads))
        taken, first = self.peer.engine.send_messages(
            self.id, b"".join(payloads), lengths, message_format=run[0].format, settled=self.settled, tagged=tagged
        )
        if self.settled:
            self.queue.forget(run[:taken])
        else:
            self.queue.unsettled += taken
            ids: Iterable[int] = range(first, first + taken)
            if first + taken > ID_MASK:
                ids = (i & ID_MASK for i in ids)
            self.unsettled.update(zip(ids, run[:taken], strict=False))
        return taken

    def finish_drain(self) -> None:
        """Nothing more to offer: give unused credit back (§2.6.7)."""
        if self.draining and not (self.blocked or self.closed or self.peer.hung):
            self.draining = False
            if self.credit:
                self.credit = 0
                self.peer.engine.drained(self.id)
                self.peer.touch()

    def on_settled(self, record: Settled) -> None:
        """The consumer's outcome for some deliveries, or that none will come."""
        if record.outcome in (lib.OUT_NOT_DELIVERED, lib.OUT_UNKNOWN):
            self.queue.left(self.pop(record.first, record.last))
        elif record.outcome != lib.OUT_RECEIVED or record.settled:
            self.queue.settle(self.pop(record.first, record.last), record)

    def pop(self, first: int, last: int) -> list[Entry]:
        """Our unsettled deliveries among first..last; walks whichever is shorter, the range or what we hold."""
        span = (last - first) & ID_MASK
        held = self.unsettled
        if span < len(held):
            found = [held.pop(i & ID_MASK, None) for i in range(first, first + span + 1)]
            entries = [e for e in found if e is not None]
        else:
            entries = [held.pop(i) for i in [i for i in held if (i - first) & ID_MASK <= span]]
        self.queue.unsettled -= len(entries)
        return entries

    def gone(self) -> None:
        """The link is no more: what it held is ready for others."""
        self.closed = True
        entries = list(self.unsettled.values())
        self.queue.unsettled -= len(entries)
        self.unsettled.clear()
        if entries:
            self.queue.left(entries)
        self.queue.receiver_gone(self)
        if self in self.queue.consumers:
            self.queue.consumers.remove(self)
        self.peer.stalled.discard(self)


def _same_format(entries: list[Entry], start: int) -> list[Entry]:
    """The entries from `start` that have one message-format, and all a tag or none: one call of the engine takes them."""

    def kind(entry: Entry) -> tuple[int, bool]:
        return entry.format, not entry.tag

    wanted = kind(entries[start])
    return list(itertools.takewhile(lambda entry: kind(entry) == wanted, entries[start:]))
