"""The embedded broker without sockets: what it answers to the records of its connections' engines.

`Core` is what all connections share: queues, scripts, timers. A `Peer` is one connection: it turns each record of its
engine into verbs on that engine, and on others' when a message goes to a consumer elsewhere; those it notes in
`Core.dirty`, and the driver flushes them. Nothing here blocks, and time comes in as `Core.now`.

A run of deliveries of one link is taken in as a whole: one bookkeeping step and one ranged disposition, so a message
costs well below a microsecond beyond the engine's share. Only addresses with a script are walked message by message.
"""

from __future__ import annotations

import hmac
import heapq
import itertools
import logging
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from . import broker_management
from . import engine as eng
from . import records as r
from . import values as v
from .broker_store import (
    ACCEPTED,
    FULL,
    Bytes,
    Entry,
    Outcome,
    Queue,
    Script,
    as_outcome,
    encode_error,
    failed_once_more,
    node_name,
    property_of,
    redelivered,
)

_log = logging.getLogger("uamqp.broker")

MANAGEMENT = "$management"
PRODUCT = "uamqp-cffi embedded broker (for tests, not for production)"
_TO = 2  # properties.to
_SASL_OK, _SASL_AUTH = 0, 1
_ID_MASK = 0xFFFFFFFF
_SEND_BYTES = 256 << 10  # joined for one call of the engine
_SEND_MESSAGES = 1024
_CLOSING_TIME = 5_000  # milliseconds


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
    version: str = ""


class Refused(Exception):
    """An attach that gets a null terminus and this error."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(description)
        self.error = encode_error(condition, description)


class Core:
    """What the connections share. One thread at a time is inside; the driver sees to that."""

    def __init__(self, settings: Settings, make_message: Callable[[bytes], Any]) -> None:
        self.settings = settings
        self.make_message = make_message
        self.now = 0
        self.room = Bytes(settings.max_bytes)
        self.queues: dict[str, Queue] = {}
        self.scripts: dict[str, Script] = {}
        self.answers: dict[str, broker_management.Answer] = {}
        self.peers: dict[int, Peer] = {}
        self.dirty: set[Peer] = set()
        self.arrived = False  # something came into a queue; the driver takes this back and wakes who waits
        self.connections = 0
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._ticket = itertools.count()

    # nodes

    def queue(self, name: str) -> Queue:
        """The queue of that name, made when there is none. Raises Refused when there are too many, or for no name."""
        found = self.queues.get(name)
        if found is None:
            if not name:
                raise Refused("amqp:invalid-field", "the address names no queue")
            if len(self.queues) >= self.settings.max_queues:
                raise Refused("amqp:resource-limit-exceeded", f"the embedded broker has {len(self.queues)} queues")
            script = self.scripts.get(name)
            store = self.settings.store if script is None or script.store is None else script.store
            found = self.queues[name] = Queue(name, self.room, store)
        return found

    def dynamic_queue(self) -> Queue:
        return self.queue(f"dynamic.{next(self._ticket)}")

    def drop_queue(self, queue: Queue) -> None:
        queue.clear()
        queue.store = False
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

    def after(self, milliseconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now + round(milliseconds), next(self._ticket), act))

    def next_timer(self) -> int | None:
        return self._timers[0][0] if self._timers else None

    def run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()


class Incoming:
    """A link on which we receive."""

    __slots__ = ("closed", "count", "dynamic", "id", "name", "peer", "queue", "script", "seen", "session")

    def __init__(self, peer: Peer, link: int, session: int, name: str | None, queue: Queue | None) -> None:
        self.peer = peer
        self.id = link
        self.session = session
        self.name = name  # None: anonymous relay
        self.queue = queue
        self.script: Script | None = peer.core.scripts.get(name) if name is not None else None
        self.seen = 0  # messages since credit was last given
        self.count = 0
        self.dynamic = False
        self.closed = False

    def window(self) -> int:
        script = self.script
        return self.peer.core.settings.credit if script is None or script.credit is None else script.credit

    def renew(self) -> None:
        """Credit for a whole window."""
        self.seen = 0
        if not self.closed and (window := self.window()):
            self.peer.engine.flow(self.id, window)
            self.peer.touch()

    def over(self) -> bool:
        return self.closed or self.peer.hung or self.peer.dropping

    def spent(self, n: int) -> None:
        self.seen += n
        if 2 * self.seen >= self.window():
            self.renew()

    def settle(self, first: int, last: int, outcome: Outcome) -> None:
        if outcome.name != "none" and not self.closed:
            self.peer.engine.settle(self.id, first, last, True, outcome.encode() if outcome is not ACCEPTED else _ACCEPTED)
            self.peer.touch()

    # taking messages in

    def take(self, run: list[r.Delivery]) -> None:
        """A run of deliveries with adjacent delivery-ids, all settled or all not."""
        if self.closed:
            return
        queue = self.queue
        if queue is None or (self.script is not None and self.script.per_message):
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
                    self.settle(first, (first + stored - 1) & _ID_MASK, ACCEPTED)
                if stored < len(run):
                    self.settle((first + stored) & _ID_MASK, run[-1].delivery_id, FULL)
            self.peer.core.arrived = True
            self.peer.core.pump(queue)
        if not self.over():
            self.spent(len(run))

    def take_one(self, delivery: r.Delivery) -> None:
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
            elif not queue.put(delivery.payload, delivery.message_format):
                outcome = FULL
        self.answer(delivery, outcome, script.delay if script is not None else 0)
        if queue is not None:
            self.peer.core.arrived = True
            self.peer.core.pump(queue)
        if failing and script is not None and self.count >= script.after and script.take():
            self.peer.fail(self, script)

    def choose(self, script: Script, delivery: r.Delivery) -> Outcome:
        if isinstance(script.outcome, Outcome):
            return script.outcome
        assert script.outcome is not None
        try:
            return as_outcome(script.outcome(self.peer.core.make_message(delivery.payload)), script)
        except Exception as error:
            _log.exception("the function for messages to %r failed", self.name)
            return Outcome("rejected", "amqp:internal-error", f"the function for this address raised {type(error).__name__}")

    def find_queue(self, delivery: r.Delivery) -> tuple[Queue | None, Outcome]:
        """Where the message belongs; with no queue, the outcome that says why."""
        if self.queue is not None:
            return self.queue, ACCEPTED
        core = self.peer.core
        if self.name == MANAGEMENT:
            return None, broker_management.handle(core, self, delivery)
        try:
            to = property_of(delivery.payload, _TO)
            if to is None:
                return None, Outcome("rejected", "amqp:precondition-failed", "no properties.to, and the link has no target")
            return core.queue(node_name(to)), ACCEPTED
        except Refused as refused:
            return None, Outcome("rejected", "amqp:not-found", str(refused))
        except (eng.DecodeError, ValueError):
            return None, Outcome("rejected", "amqp:decode-error", "the message has no readable properties")

    def answer(self, delivery: r.Delivery, outcome: Outcome, delay: float) -> None:
        if delivery.settled:
            return
        if not delay:
            self.settle(delivery.delivery_id, delivery.delivery_id, outcome)
            return

        def later() -> None:
            self.peer.guard(self.settle, delivery.delivery_id, delivery.delivery_id, outcome)

        self.peer.core.after(delay * 1000, later)


class Outgoing:
    """A link on which we send what is in a queue."""

    __slots__ = (
        "blocked", "closed", "count", "credit", "draining", "dynamic", "id", "key", "peer", "queue", "script", "session",
        "settled", "unsettled",
    )

    def __init__(self, peer: Peer, link: int, session: int, queue: Queue, settled: bool) -> None:
        self.peer = peer
        self.id = link
        self.session = session
        self.queue = queue
        self.settled = settled
        self.script = peer.core.scripts.get(queue.name)
        self.key = (peer.number, link)
        self.credit = 0
        self.count = 0
        self.draining = False
        self.blocked = False  # the engine takes no more until its output is gone or the session window opens
        self.closed = False
        self.dynamic = False
        self.unsettled: dict[int, Entry] = {}

    def send(self, limit: int) -> int:
        """Send up to `limit` messages; how many the engine took."""
        script = self.script
        failing = script is not None and script.breaks and self.count < script.after
        n = min(limit, self.credit, script.after - self.count if failing and script is not None else limit)
        if n <= 0 or self.blocked or self.closed:
            return 0
        entries = self.queue.take(n, _SEND_BYTES, self.key)
        sent = 0
        try:
            while sent < len(entries) and not self.blocked:
                run = list(itertools.takewhile(lambda e, f=entries[sent].format: e.format == f, entries[sent:]))  # type: ignore[misc]
                try:
                    taken = self.send_run(run)
                except eng.SizeError:
                    entry = entries.pop(sent)
                    self.queue.give_back([entry._replace(barred=(*entry.barred, self.key))])
                    continue
                sent += taken
                if taken < len(run):
                    self.blocked = True
                    self.peer.stalled.add(self)
        finally:
            self.queue.give_back(entries[sent:])
            self.credit -= sent
            self.count += sent
            self.queue.delivered += sent
            if sent:
                self.peer.touch()
        if failing and script is not None and self.count >= script.after and script.take():
            self.peer.fail(self, script)
        return sent

    def send_run(self, run: list[Entry]) -> int:
        payloads = [redelivered(e) if e.failures else e.payload for e in run]
        taken, first = self.peer.engine.send_messages(
            self.id, b"".join(payloads), array("I", map(len, payloads)), message_format=run[0].format, settled=self.settled
        )
        if self.settled:
            self.queue.forget(run[:taken])
        else:
            self.queue.unsettled += taken
            ids: Iterable[int] = range(first, first + taken)
            if first + taken > _ID_MASK:
                ids = (i & _ID_MASK for i in ids)
            self.unsettled.update(zip(ids, run[:taken], strict=False))
        return taken

    def finish_drain(self) -> None:
        """Nothing more to offer: give unused credit back (§2.6.7)."""
        if self.draining and not self.blocked and not self.closed:
            self.draining = False
            if self.credit:
                self.credit = 0
                self.peer.engine.drained(self.id)
                self.peer.touch()

    def on_settled(self, record: r.Settled) -> None:
        """The consumer's outcome for some deliveries."""
        if record.outcome == eng.OUT_RECEIVED and not record.settled:
            return
        entries = self.pop(record.first, record.last)
        queue = self.queue
        if record.outcome == eng.OUT_REJECTED:
            queue.bury(entries)
        elif record.outcome == eng.OUT_MODIFIED:
            queue.give_back(self.modified(entries, record.state))
        elif record.outcome in (eng.OUT_RELEASED, eng.OUT_NOT_DELIVERED, eng.OUT_UNKNOWN):
            queue.give_back(entries)
        else:
            queue.forget(entries)

    def pop(self, first: int, last: int) -> list[Entry]:
        """Our unsettled deliveries among first..last; walks whichever is shorter, the range or what we hold."""
        span = (last - first) & _ID_MASK
        held = self.unsettled
        if span < len(held):
            found = [held.pop(i & _ID_MASK, None) for i in range(first, first + span + 1)]
            entries = [e for e in found if e is not None]
        else:
            entries = [held.pop(i) for i in [i for i in held if (i - first) & _ID_MASK <= span]]
        self.queue.unsettled -= len(entries)
        return entries

    def modified(self, entries: list[Entry], state: bytes) -> list[Entry]:
        fields = list(getattr(v.decode_exact(state), "value", None) or ())
        failed, undeliverable = (fields + [None, None])[:2]
        if failed:
            entries = [failed_once_more(e) for e in entries]
        if undeliverable:
            entries = [e._replace(barred=(*e.barred, self.key)) for e in entries]
        return entries

    def gone(self) -> None:
        """The link is no more: what it held is ready for others."""
        self.closed = True
        self.queue.give_back(self.unsettled.values())
        self.queue.unsettled -= len(self.unsettled)
        self.unsettled.clear()
        if self in self.queue.consumers:
            self.queue.consumers.remove(self)
        self.peer.stalled.discard(self)


_ACCEPTED = ACCEPTED.encode()


class Peer:
    """One connection of the broker's."""

    def __init__(self, core: Core, certificate_subject: Callable[[], str | None] = lambda: None) -> None:
        core.connections += 1
        self.core = core
        self.number = core.connections
        self.user: str | None = None
        self.container_id = ""
        self.opened = False
        self.closing = False  # the connection ends as AMQP has it; the driver closes when the engine is done
        self.dropping = False  # the driver closes the transport without a word more
        self.hung = False  # the driver neither reads nor writes any more
        self.ended = False
        self.incoming: dict[int, Incoming] = {}
        self.outgoing: dict[int, Outgoing] = {}
        self.stalled: set[Outgoing] = set()
        self._subject = certificate_subject
        self.engine = self._make_engine()
        core.peers[self.number] = self
        if core.settings.open_timeout:
            core.after(core.settings.open_timeout, self._give_up)

    def __repr__(self) -> str:
        return f"<connection {self.number} of {self.container_id or 'nobody yet'!r}>"

    def _make_engine(self) -> eng.Engine:
        settings = self.core.settings
        engine = eng.Engine(server=True)
        engine.set(eng.OPT_MAX_MESSAGE, settings.max_message_size)
        if settings.mechanisms:
            engine.sasl_server(settings.mechanisms)
            if settings.sasl_required:
                engine.set(eng.OPT_SASL_REQUIRED, 1)
        return engine

    def _give_up(self) -> None:
        if not self.opened and not self.ended:
            _log.info("%r sent no open in time", self)
            self._drop()

    def touch(self) -> None:
        """Our engine has output, or the driver something to do for us."""
        self.core.dirty.add(self)

    def guard(self, act: Callable[..., Any], *args: Any) -> Any:
        """Run something for this connection; what goes wrong costs this connection only."""
        try:
            return act(*args)
        except eng.StateError as error:
            _log.debug("%r: too late: %s", self, error)
        except Exception:
            _log.exception("%r is dropped", self)
            self.dropping = True
            self.touch()
        return None

    # records

    def handle(self, records: list[r.Record]) -> None:
        """Answer what came in."""
        if records:
            self.touch()
            self.guard(self._handle, records)

    def _handle(self, records: list[r.Record]) -> None:
        i, n = 0, len(records)
        while i < n and not self.dropping and not self.hung:
            record = records[i]
            try:
                if record.__class__ is r.Delivery:
                    end = self._end_of_run(records, i)
                    run, i = records[i:end], end
                    if (link := self.incoming.get(record.link)) is not None:
                        link.take(run)
                else:
                    i += 1
                    handler = _HANDLERS.get(record.__class__)
                    if handler is not None:
                        handler(self, record)
            except eng.StateError as error:  # the engine is ahead of this record: link or connection are over
                _log.debug("%r: too late: %s", self, error)

    @staticmethod
    def _end_of_run(records: list[Any], start: int) -> int:
        """Where the deliveries end that belong together with the one at `start`: same link, adjacent delivery-ids (a range
        must not cover another link's), all settled or all not."""
        first = records[start]
        link, settled, expected = first.link, first.settled, first.delivery_id
        i = start
        for record in itertools.islice(records, start, None):
            if record.__class__ is not r.Delivery or record.link != link or record.settled != settled:
                break
            if record.delivery_id != expected:
                break
            expected = (expected + 1) & _ID_MASK
            i += 1
        return i

    def _on_sasl_init(self, record: r.SaslInit) -> None:
        ok = False
        if record.mechanism not in self.core.settings.mechanisms:
            user = None
        elif record.mechanism == "PLAIN":
            user, ok = self._check_plain(record.response or b"")
        elif record.mechanism == "EXTERNAL":
            user = self._subject()
            ok = user is not None
        else:
            user, ok = "anonymous", True
        _log.log(logging.DEBUG if ok else logging.INFO, "%r: SASL %s %s", self, record.mechanism, "ok" if ok else "refused")
        self.user = user if ok else None
        self.engine.sasl_outcome(_SASL_OK if ok else _SASL_AUTH)
        if not ok:
            self._end_soon()

    def _check_plain(self, response: bytes) -> tuple[str | None, bool]:
        """RFC 4616: authorisation id, user name and password, separated by NUL. Without `users` anybody may come."""
        parts = response.split(b"\0")
        if len(parts) != 3:
            return None, False
        name = parts[1].decode("utf-8", "replace")
        users = self.core.settings.users
        if users is None:
            return name, True
        wanted = users.get(name)
        matches = hmac.compare_digest((wanted or "").encode(), parts[2])
        return name, matches and wanted is not None

    def _on_open(self, record: r.Open) -> None:
        settings = self.core.settings
        self.opened = True
        self.container_id = str(record.fields.get("container_id") or "")
        _log.debug("%r opened", self)
        properties = [
            (v.enc_symbol("product"), v.enc_str(PRODUCT)),
            (v.enc_symbol("version"), v.enc_str(settings.version)),
        ]
        fields = {
            "container_id": v.enc_str(settings.container_id),
            "max_frame_size": v.enc_uint(settings.max_frame_size),
            "channel_max": v.enc_ushort(255),
            "offered_capabilities": v.symbols(["ANONYMOUS-RELAY"]),
            "properties": v.enc_map(properties),
        }
        if settings.idle_timeout:
            fields["idle_time_out"] = v.enc_uint(settings.idle_timeout)
        self.engine.open(v.composite("open", **fields))

    def _on_begin(self, record: r.Begin) -> None:
        begin = v.composite(
            "begin",
            next_outgoing_id=v.enc_uint(0),
            incoming_window=v.enc_uint(8192),
            outgoing_window=v.enc_uint(0x7FFFFFFF),
            handle_max=v.enc_uint(min(1023, self.core.settings.max_links)),
        )
        self.engine.begin(begin, session=record.session)

    # links

    def _on_attach(self, record: r.Attach) -> None:
        if record.reply:
            return
        script: Script | None = None
        try:
            if len(self.incoming) + len(self.outgoing) >= self.core.settings.max_links:
                raise Refused("amqp:resource-limit-exceeded", f"{self.core.settings.max_links} links are the most")
            source = _Terminus.read(record.fields.get("source"), 0x28)
            target = _Terminus.read(record.fields.get("target"), 0x29)
            address = (source if record.sender else target).address
            name = node_name(address) if address is not None else None
            script = self.core.scripts.get(name) if name is not None else None
            if script is not None and script.fail == "attach" and script.take():
                raise _scripted_refusal(script)
            attach = self._attach_outgoing if record.sender else self._attach_incoming
            link = attach(record, source, target, name)
        except Refused as refused:
            _log.info("%r: attach refused: %s", self, refused)
            self.engine.attach(record.session, _attach_reply(record), link=record.link)
            self.engine.detach(record.link, True, refused.error)
            return
        if script is not None and script.breaks and not script.after and script.take():
            self.fail(link, script)

    def _attach_incoming(self, record: r.Attach, source: _Terminus, target: _Terminus, name: str | None) -> Incoming:
        if target.dynamic:
            queue = self.core.dynamic_queue()
            target.address = name = queue.name
            link = Incoming(self, record.link, record.session, name, queue)
            link.dynamic = True
        elif name is None or name == MANAGEMENT:
            link = Incoming(self, record.link, record.session, name, None)
        else:
            link = Incoming(self, record.link, record.session, name, self.core.queue(name))
        script = link.script
        size = self.core.settings.max_message_size
        if script is not None and script.max_message_size is not None:
            size = script.max_message_size
        fields = {"source": source.encode("source"), "target": target.encode("target")}
        if target.address is None and not target.given:
            del fields["target"]
        self.engine.attach(record.session, _attach_reply(record, max_message_size=v.enc_ulong(size), **fields), link=record.link)
        self.incoming[record.link] = link
        link.renew()
        return link

    def _attach_outgoing(self, record: r.Attach, source: _Terminus, target: _Terminus, name: str | None) -> Outgoing:
        dynamic = source.dynamic
        if dynamic:
            queue = self.core.dynamic_queue()
            source.address = queue.name
        elif name is None:
            raise Refused("amqp:invalid-field", "a source without an address")
        elif name == MANAGEMENT:
            queue = Queue(MANAGEMENT, self.core.room)
        else:
            queue = self.core.queue(name)
        settled = record.fields.get("snd_settle_mode") == 1
        link = Outgoing(self, record.link, record.session, queue, settled)
        link.dynamic = dynamic
        outcomes = v.symbols([f"amqp:{name}:list" for name in ("accepted", "rejected", "released", "modified")])
        fields = {"source": source.encode("source", outcomes=outcomes), "target": target.encode("target")}
        if not target.given:
            del fields["target"]
        self.engine.attach(record.session, _attach_reply(record, **fields), link=record.link)
        self.outgoing[record.link] = link
        queue.consumers.append(link)
        return link

    def _on_credit(self, record: r.Credit) -> None:
        link = self.outgoing.get(record.link)
        if link is not None:
            link.credit = self.engine.link(link.id).credit  # the record may be older than what was sent since
            link.draining = record.drain
            link.blocked = False
            self.core.pump(link.queue)

    def _on_settled(self, record: r.Settled) -> None:
        link = self.outgoing.get(record.link)
        if link is not None:
            link.on_settled(record)
            self.core.pump(link.queue)

    def _on_detach(self, record: r.Detach) -> None:
        self._forget_link(record.link)

    def _on_end(self, record: r.End) -> None:
        self._forget_session(record.session)

    def _on_peer_error(self, record: r.PeerError) -> None:
        _log.info("%r: protocol error: %s", self, record.error)
        if record.scope == eng.SCOPE_LINK:
            self._forget_link(record.id)
        elif record.scope == eng.SCOPE_SESSION:
            self._forget_session(record.id)
        else:
            self._end_soon()

    def _on_close(self, record: r.Close) -> None:
        self._end_soon()

    def _end_soon(self) -> None:
        """The connection is closing. A peer that does not finish that in time is dropped."""
        self.gone()
        if not self.closing:
            self.closing = True
            self.core.after(_CLOSING_TIME, self._drop)

    def _drop(self) -> None:
        if not self.ended:
            self.dropping = True
            self.touch()

    def _forget_session(self, session: int) -> None:
        links: list[Incoming | Outgoing] = [*self.incoming.values(), *self.outgoing.values()]
        for link in links:
            if link.session == session:
                self._forget_link(link.id)

    def _forget_link(self, number: int) -> None:
        incoming = self.incoming.pop(number, None)
        if incoming is not None:
            incoming.closed = True
            if incoming.dynamic and incoming.queue is not None:
                self.core.drop_queue(incoming.queue)
        outgoing = self.outgoing.pop(number, None)
        if outgoing is not None:
            outgoing.gone()
            if outgoing.dynamic:
                self.core.drop_queue(outgoing.queue)
            elif outgoing.queue.name == MANAGEMENT:
                outgoing.queue.clear()
            else:
                self.core.pump(outgoing.queue)

    # the end

    def fail(self, link: Incoming | Outgoing, script: Script) -> None:
        """Do what the script says after its messages."""
        _log.debug("%r: scripted %s", self, script.fail)
        error = script.error()
        if script.fail == "detach":
            self._forget_link(link.id)
            self.engine.detach(link.id, script.closed, error)
        elif script.fail == "end":
            self._forget_session(link.session)
            self.engine.end(link.session, error)
        elif script.fail == "close":
            self.shut(error)
        elif script.fail == "drop":
            self.dropping = True
        elif script.fail == "hang":
            self.hung = True
        self.touch()

    def shut(self, error: bytes) -> None:
        """Close the connection from our side."""
        self._end_soon()
        self.engine.close(error)
        self.touch()

    def resume(self) -> None:
        """Room has come up in the engine: let links that waited for it go on."""
        while self.stalled:
            stalled, self.stalled = self.stalled, set()
            for link in stalled:
                link.blocked = False
            for queue in {link.queue for link in stalled}:
                self.core.pump(queue)
            if self.stalled >= stalled:
                return

    def gone(self) -> None:
        """Nothing more comes from this connection: its links' messages are ready for others."""
        for number in [*self.incoming, *self.outgoing]:
            self._forget_link(number)

    def lost(self) -> None:
        """The transport is gone."""
        if not self.ended:
            self.ended = True
            self.core.peers.pop(self.number, None)
            self.core.dirty.discard(self)
            self.gone()
            _log.debug("%r is gone", self)


_HANDLERS: dict[type, Callable[[Peer, Any], None]] = {
    r.SaslInit: Peer._on_sasl_init,
    r.Open: Peer._on_open,
    r.Begin: Peer._on_begin,
    r.Attach: Peer._on_attach,
    r.Credit: Peer._on_credit,
    r.Settled: Peer._on_settled,
    r.Detach: Peer._on_detach,
    r.End: Peer._on_end,
    r.Close: Peer._on_close,
    r.PeerError: Peer._on_peer_error,
}


class _Terminus:
    """What we look at in a source or target (§3.5.3, §3.5.4)."""

    def __init__(self, given: bool, address: str | None = None, dynamic: bool = False) -> None:
        self.given = given
        self.address = address
        self.dynamic = dynamic

    @classmethod
    def read(cls, value: Any, code: int) -> _Terminus:
        """Raises Refused for what is neither a source nor a target."""
        if value is None:
            return cls(False)
        descriptor = getattr(value, "descriptor", None)
        if descriptor in (0x30, "amqp:coordinator:list"):
            raise Refused("amqp:not-implemented", "the embedded broker knows no transactions")
        fields = getattr(value, "value", None)
        names = {0x28: "amqp:source:list", 0x29: "amqp:target:list"}
        if descriptor not in (code, names[code]) or not isinstance(fields, list):
            raise Refused("amqp:decode-error", f"a terminus of the descriptor {descriptor!r:.40}")
        fields = fields + [None] * (5 - len(fields))
        address = fields[0]
        if address is not None and not isinstance(address, str):
            raise Refused("amqp:invalid-field", "an address that is no string")
        return cls(True, address, bool(fields[4]))

    def encode(self, name: str, **more: bytes) -> bytes:
        fields: dict[str, bytes] = {}
        if self.address is not None:
            fields["address"] = v.enc_str(self.address)
        if self.dynamic:
            fields["dynamic"] = v.enc_bool(True)
        return v.described_composite(name, **fields, **more)


def _attach_reply(record: r.Attach, **fields: bytes) -> bytes:
    """Our attach in answer to the peer's: its name and settle mode, receiver settling first (§2.6.3)."""
    mode = record.fields.get("snd_settle_mode")
    return v.composite(
        "attach",
        name=v.enc_str(record.fields["name"]),
        handle=v.enc_uint(0),
        role=v.enc_bool(not record.sender),
        snd_settle_mode=v.enc_ubyte(2 if mode is None else mode),
        rcv_settle_mode=v.enc_ubyte(0),
        **fields,
    )


def _scripted_refusal(script: Script) -> Refused:
    refused = Refused("amqp:not-found", "scripted")
    refused.error = script.error()
    return refused
