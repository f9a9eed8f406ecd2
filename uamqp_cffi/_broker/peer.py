"""One connection of the embedded broker: what it answers to the records of its engine, in the server role."""

from __future__ import annotations

import hmac
import itertools
import logging
import ssl
from collections.abc import Callable
from typing import Any

from .._core.engine import engine as eng
from .._core.engine import lib
from .._core.engine import records as r
from .._core.engine import values as v
from .._core.transport.filters.tls import Tls
from .._core.transport.wire import Wire
from .cbs import Permits
from .core import Core, Timer
from .links import Incoming, Outgoing
from .queues import CBS, ID_MASK, NODES, Queue, node_name
from .scripts import Refused, Script, encode_error

_log = logging.getLogger("uamqp.broker")

PRODUCT = "uamqp-cffi embedded broker (for tests, not for production)"
_SASL_OK, _SASL_AUTH = 0, 1
_CLOSING_TIME = 2_000  # milliseconds
UNAUTHORIZED = "amqp:unauthorized-access"


class Peer:
    """One connection of the broker's."""

    def __init__(self, core: Core, tls: Tls | None = None) -> None:
        core.connections += 1
        self.core = core
        self.number = core.connections
        self.user: str | None = None
        self.container_id = ""
        self.opened = False
        self.timed = False  # one side wants to hear from the other regularly
        self.closing = False  # the connection ends as AMQP has it; the driver closes when the engine is done
        self.dropping = False  # the driver closes the transport without a word more
        self.hung = False  # the driver neither reads nor writes any more
        self.ended = False
        self.incoming: dict[int, Incoming] = {}
        self.outgoing: dict[int, Outgoing] = {}
        self.stalled: set[Outgoing] = set()
        self.permits = Permits(self)
        self._tls = tls
        self.engine = self._make_engine()
        core.peers[self.number] = self
        self._timer: Timer | None = None  # until it opens, and then until it is closed
        if core.settings.open_timeout:
            self._timer = core.after(core.settings.open_timeout, self._give_up)

    def __repr__(self) -> str:
        return f"<connection {self.number} of {self.container_id or 'nobody yet'!r}>"

    def _make_engine(self) -> eng.Engine:
        settings = self.core.settings
        engine = eng.Engine(server=True)
        engine.set(lib.OPT_MAX_MESSAGE, settings.max_message_size)
        engine.set(lib.OPT_EXPLICIT, 1)
        if settings.mechanisms:
            engine.sasl_server(settings.mechanisms)
            if settings.sasl_required:
                engine.set(lib.OPT_SASL_REQUIRED, 1)
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
        except lib.StateError as error:
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

    def _handle(self, records: list[Any]) -> None:
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
            except lib.StateError as error:  # the engine is ahead of this record: link or connection are over
                _log.debug("%r: too late: %s", self, error)

    @staticmethod
    def _end_of_run(records: list[Any], start: int) -> int:
        """Where the deliveries end that belong together with the one at `start`: same link, adjacent delivery-ids (a
        range must not cover another link's), all settled or all not."""
        first = records[start]
        link, settled, expected = first.link, first.settled, first.delivery_id
        i = start
        for record in itertools.islice(records, start, None):
            if record.__class__ is not r.Delivery or record.link != link or record.settled != settled:
                break
            if record.delivery_id != expected:
                break
            expected = (expected + 1) & ID_MASK
            i += 1
        return i

    def _on_sasl_init(self, record: r.SaslInit) -> None:
        ok = False
        if record.mechanism not in self.core.settings.mechanisms:
            user = None
        elif record.mechanism == "PLAIN":
            user, ok = self._check_plain(record.response or b"")
        elif record.mechanism == "EXTERNAL":
            user = _subject(self._tls)
            ok = user is not None
        else:
            user, ok = "anonymous", True
        level = logging.DEBUG if ok else logging.INFO
        _log.log(level, "%r: SASL %.20s %s", self, record.mechanism, "ok" if ok else "refused")
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
        self.core.cancel(self._timer)
        self.opened = True
        self.timed = bool(settings.idle_timeout or record.fields.get("idle_time_out"))
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
            self._check_token(name)
            attach = self._attach_outgoing if record.sender else self._attach_incoming
            link = attach(record, source, target, name)
        except Refused as refused:
            _log.info("%r: attach refused: %s", self, refused)
            self.engine.attach(record.session, _attach_reply(record), link=record.link)
            self.engine.detach(record.link, True, refused.error)
            return
        if script is not None and script.breaks and not script.after and script.take():
            self.fail(link, script)

    def _check_token(self, name: str | None) -> None:
        """Raises Refused when a link to this node needs a token that the client has not put."""
        if self.core.settings.tokens is None:
            if name == CBS:
                raise Refused("amqp:not-found", "this broker takes no tokens")
        elif not self.permits.cover(name):
            raise Refused(UNAUTHORIZED, f"there is no valid token for {name!r}; put one to {CBS} first")

    def expired(self) -> None:
        """Tokens are past their time: links that no other one covers are detached, as Azure does it."""
        links: list[Incoming | Outgoing] = [*self.incoming.values(), *self.outgoing.values()]
        for link in links:
            name = link.name if isinstance(link, Incoming) else link.queue.name
            if not self.permits.cover(None if link.dynamic else name):
                self.guard(self._take_back, link.id, f"the token for {name!r:.400} has expired")
        self.touch()

    def _take_back(self, link: int, why: str) -> None:
        _log.info("%r: %s", self, why)
        self.detach(link, encode_error(UNAUTHORIZED, why))

    def _is_request_node(self, name: str) -> bool:
        """Whether we answer requests there ourselves."""
        return name in NODES and self.core.node(name) is None

    def _attach_incoming(self, record: r.Attach, source: _Terminus, target: _Terminus, name: str | None) -> Incoming:
        if target.dynamic:
            queue = self.core.dynamic_queue()
            target.address = name = queue.name
            link = Incoming(self, record.link, record.session, name, queue)
            link.dynamic = True
        elif name is None or self._is_request_node(name):
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
        fields["max_message_size"] = v.enc_ulong(size)
        if link.queue is not None:
            fields |= link.queue.sender(link, record)
        self.engine.attach(record.session, _attach_reply(record, **fields), link=record.link)
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
        elif self._is_request_node(name):
            queue = Queue(name, self.core.room)
        else:
            queue = self.core.queue(name)
        settled = record.fields.get("snd_settle_mode") == 1
        link = Outgoing(self, record.link, record.session, queue, settled)
        link.dynamic = dynamic
        link.target = target.address
        outcomes = v.symbols([f"amqp:{name}:list" for name in ("accepted", "rejected", "released", "modified")])
        fields = {"source": source.encode("source", outcomes=outcomes), "target": target.encode("target")}
        if not target.given:
            del fields["target"]
        fields |= queue.receiver(link, record)
        self.engine.attach(record.session, _attach_reply(record, **fields), link=record.link)
        self.outgoing[record.link] = link
        link.queue.consumers.append(link)
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

    def _on_late(self, record: r.Late) -> None:
        _log.info("%r: %s on channel %d, which has ended; it is ignored", self, record.performative, record.channel)

    def _on_peer_error(self, record: r.PeerError) -> None:
        _log.info("%r: protocol error: %s", self, record.error)
        if record.scope == lib.SCOPE_LINK:
            self._forget_link(record.id)
        elif record.scope == lib.SCOPE_SESSION:
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
            self.core.cancel(self._timer)
            self._timer = self.core.after(_CLOSING_TIME, self._drop)

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
            elif outgoing.queue.name in NODES:
                outgoing.queue.clear()
            else:
                self.core.pump(outgoing.queue)

    # the end

    def fail(self, link: Incoming | Outgoing, script: Script) -> None:
        """Do what the script says after its messages."""
        _log.debug("%r: scripted %s", self, script.fail)
        error = script.error()
        if script.fail == "detach":
            self.detach(link.id, error, script.closed)
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

    def detach(self, link: int, error: bytes, closed: bool = True) -> None:
        """Take a link back."""
        self._forget_link(link)
        self.engine.detach(link, closed, error)
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
            self.core.cancel(self._timer)
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
    r.Late: Peer._on_late,
}


def accept(core: Core, context: ssl.SSLContext | None) -> tuple[Peer, Wire]:
    """A connection for somebody who has just come, with TLS if there is a context, by WebSocket if it begins so."""
    tls = Tls(context, server_side=True) if context is not None else None
    peer = Peer(core, tls)
    return peer, Wire(peer.engine, [tls] if tls is not None else [], core.now, websockets=True)


def shutdown_error() -> bytes:
    return encode_error("amqp:connection:forced", "the embedded broker is closing")


def _subject(tls: Tls | None) -> str | None:
    """Who the client's certificate says it is: the common name, or the whole subject; None without a certificate."""
    certificate = tls.peer_certificate() if tls is not None else None
    if not certificate:
        return None
    names = {key: value for part in certificate.get("subject", ()) for key, value in part}
    return str(names.get("commonName") or names or "unnamed")


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
    usual = {
        "name": v.enc_str(record.fields["name"]),
        "handle": v.enc_uint(0),
        "role": v.enc_bool(not record.sender),
        "snd_settle_mode": v.enc_ubyte(2 if mode is None else mode),
        "rcv_settle_mode": v.enc_ubyte(0),
    }
    return v.composite("attach", **usual | fields)


def _scripted_refusal(script: Script) -> Refused:
    refused = Refused("amqp:not-found", "scripted")
    refused.error = script.error()
    return refused
