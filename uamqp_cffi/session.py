"""Sessions: what links live on, and where the records of all of them arrive.

One inbox serves a session and its links. Whoever works on any of them empties it, under the session's lock, and hands
each record to the link it belongs to; that is bookkeeping only. User code (`on_attach`, callbacks) runs after it,
outside the lock, in the calls of the object it belongs to.
"""

from __future__ import annotations

import itertools
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, TypedDict

from . import errors, mgmt_operation
from ._arguments import not_pickled
from ._core.engine.lib import StateError
from ._core.engine.records import (
    Attach,
    Begin,
    Delivery,
    Detach,
    End,
    Error,
    LinkState,
    PeerError,
    Record,
    SessionState,
    Settled,
)
from ._core.engine.values import composite, enc_uint
from ._core.waiting.callbacks import Calls
from ._core.waiting.interrupts import openly, whole
from ._core.waiting.locks import RLock, Roster, fork_safe
from ._core.waiting.plan import Inbox
from ._session import requests as mgmt
from ._session.outcomes import peer_error
from ._typing import Unpack
from .address import Source, Target
from .connection import Connection
from .message import Message

if TYPE_CHECKING:
    from .mgmt_operation import MgmtOperation

_logger = logging.getLogger("uamqp.session")

OnAttach = Callable[[Source | None, Target | None, dict[Any, Any] | None, errors.AMQPConnectionError | None], object]


class Options(TypedDict, total=False):
    """What a session takes beside its connection."""

    incoming_window: int | None
    outgoing_window: int | None
    handle_max: int | None
    on_attach: OnAttach | None


class _Link(Protocol):
    """What a session wants of the links on it."""

    def _on_record(self, record: Record) -> None: ...

    def _on_deliveries(self, run: list[Any]) -> None:
        """Deliveries that came together."""

    def _on_session_lost(self, error: BaseException, torn: bool = False) -> None: ...


class SharedInbox(Inbox):
    """The inbox of a session, and all who wait by it. One of them leads: it waits on this inbox, and sees to what comes for
    whomever. The others follow: each waits on an inbox of its own, which is poked when what it waits for is done, so that
    a record wakes one waiter however many there are."""

    __slots__ = ("_session", "followers", "led")

    def __init__(self, session: Session) -> None:
        """The session, which is held weakly, does what `relieve` and `keep` are for."""
        super().__init__()
        self._session = weakref.ref(session)
        self.led: bool = False
        # a dict's first item is far when many before it have gone
        self.followers: OrderedDict[Inbox, None] = OrderedDict()

    def poke(self) -> None:
        super().poke()
        if self.followers and self._notify is None:  # the leader may be in user code for long
            self.poke_follower()

    def poke_follower(self) -> None:
        """Have one follower look around, the first that waits."""
        followers = self._first_followers(8)
        for one in followers:
            if one._notify is not None:
                one.poke()
                return
        for one in followers[:1]:
            one.poke()

    def poke_all(self) -> None:
        super().poke()
        self.poke_followers()

    def poke_followers(self) -> None:
        for one in self._first_followers(None):
            one.poke()

    def _first_followers(self, count: int | None) -> list[Inbox]:
        """So many of them, None: all. Any thread, without a lock: whoever pokes may hold those of the connection."""
        while True:
            try:
                return list(itertools.islice(self.followers, count))
            except RuntimeError:  # one came or went just now
                continue

    def serves(self, other: Inbox) -> bool:
        return other is self or other in self.followers

    def relieve(self) -> None:
        session = self._session()
        if session is not None:
            session._take_in()

    def keep(self) -> None:
        session = self._session()
        if session is not None:
            session._keep()


def _termini(source: Any, target: Any) -> tuple[Source | None, Target | None]:
    return (
        None if source is None else Source.from_c_obj(source),
        None if target is None else Target.from_c_obj(target),
    )


class Session:
    """A session on a connection. Its BEGIN leaves with the first link, or management request, that needs it.

    `incoming_window` and `outgoing_window` are counts of transfers, 1 when not given; `handle_max` is the highest link
    handle. All three can be set until the session has begun. `on_attach(source, target, properties, error)` is called
    for every ATTACH of the peer on this session; what it raises is logged.
    """

    def __init__(
        self,
        connection: Connection,
        incoming_window: int | None = None,
        outgoing_window: int | None = None,
        handle_max: int | None = None,
        on_attach: OnAttach | None = None,
    ) -> None:
        self._connection = connection
        self._conn = connection
        self._mgmt_links: dict[bytes, MgmtOperation] = {}
        self._incoming_window = incoming_window or 1
        self._outgoing_window = outgoing_window or 1
        self._handle_max = 4294967295 if handle_max is None else handle_max
        self._on_attach = on_attach
        self._lock = fork_safe(RLock())
        self._inbox = SharedInbox(self)
        self._links: dict[int, _Link] = {}
        self._calls = Calls()  # on_attach
        self._clients: Roster[Any] = Roster()
        self._crowded = False
        self._id = 0
        # of the connection as it was when this began: a redirect gives it another
        self._engine: Any = connection._engine
        self._begun = False
        self._ended = False
        self._refused = False  # the peer ended it: no limit of ours
        self._error: errors.AMQPError | None = None

    def __repr__(self) -> str:
        state = "ended" if self._ended else "begun" if self._begun else "not begun"
        return f"<{type(self).__name__} {state}, {len(self._links)} links, of {self._connection!r}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise not_pickled(self)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *args: object) -> None:
        self._end()

    @property
    def _session(self) -> Session:
        """What is reached for below a session, where uamqp has its native one."""
        return self

    @property
    def incoming_window(self) -> int:
        return self._incoming_window

    @incoming_window.setter
    def incoming_window(self, value: int) -> None:
        self._incoming_window = int(value)

    @property
    def outgoing_window(self) -> int:
        return self._outgoing_window

    @outgoing_window.setter
    def outgoing_window(self, value: int) -> None:
        self._outgoing_window = int(value)

    @property
    def handle_max(self) -> int:
        return self._handle_max

    @handle_max.setter
    def handle_max(self, value: int) -> None:
        self._handle_max = int(value)

    def mgmt_request(
        self,
        message: Message,
        operation: bytes | str,
        op_type: bytes | str | None = None,
        node: bytes | str = b"$management",
        **kwargs: Unpack[mgmt.OptionsAndCallback],
    ) -> Any:
        """Send a request to a management node and wait for its answer; see `MgmtOperation.execute`.

        `timeout` is in milliseconds, 0 for ever. `callback(status, message, description)`: what it returns is returned.
        Raises TimeoutError, ValueError when the answer has no status, AMQPConnectionError when the links are refused.
        """
        return self._connection._run(mgmt_operation.request_plan(self, message, operation, op_type, node, **kwargs))

    @whole
    def destroy(self) -> None:
        """Close the management links and end the session. Repeatable."""
        with self._lock:
            managed = list(self._mgmt_links.values())
            self._mgmt_links.clear()
        for link in managed:
            link.destroy()
        self._end()

    # inside

    def _begin(self) -> int:
        """The session's id; begins it when it has not begun. Never waits."""
        if self._error is not None:
            raise errors.afresh(self._error)
        if self._ended:
            raise errors.MessageHandlerError("the session was ended")
        if not self._id:
            connection = self._connection
            connection._start()
            begin = composite(
                "begin",
                next_outgoing_id=enc_uint(0),
                incoming_window=enc_uint(self._incoming_window),
                outgoing_window=enc_uint(self._outgoing_window),
                handle_max=enc_uint(self._handle_max),
            )
            with connection._io:
                if not self._id:  # else another thread was quicker
                    engine = connection._engine
                    with connection._as_its_end():
                        self._id = engine.begin(begin)
                    self._engine = engine
                    connection._route_session(self._id, self._inbox)
        return self._id

    def _attach(self, link: _Link, performative: bytes) -> int:
        """Attach a link; gives its id. Never waits."""
        session = self._begin()
        connection = self._connection
        with self._lock, connection._io:
            with connection._as_its_end():
                link_id: int = self._engine.attach(session, performative)
            connection._asked = True
            self._links[link_id] = link
            connection._route_link(link_id, self._inbox)
        return link_id

    def _detach(self, link_id: int) -> None:
        """Detach a link of ours, closing it; it gets no more records. Never waits."""
        connection = self._connection
        with self._lock:
            if self._links.pop(link_id, None) is None:
                return
            with connection._io:
                if not self._is_here():
                    return
                connection._route_link(link_id, None)
                if not connection._done and not connection._closed:
                    try:
                        self._engine.detach(link_id)
                    except StateError:
                        _logger.debug("link %d was gone before it was detached", link_id)

    def _is_here(self) -> bool:
        """Whether the connection is still the one that this session began on: ids of the former one are others' now. Under
        `_io`."""
        return self._connection._engine is self._engine

    @whole
    def _end(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
            connection = self._connection
            if not self._id:
                return
            with connection._io:
                if not self._is_here():
                    return
                for link_id in self._links:
                    connection._route_link(link_id, None)
                connection._route_session(self._id, None)
                if self._error is None and not connection._done and not connection._closed:
                    try:
                        self._engine.end(self._id)
                        if self._begun or any(type(record) is Begin for record in self._inbox.records):
                            connection._session_left(self._id)
                    except StateError:
                        _logger.debug("session %d was gone before it was ended", self._id)
        connection._flush()
        self._inbox.poke_all()

    def _enter(self) -> Inbox:
        """The inbox that a call waits on, until it gives it to `_leave`: the shared one if nobody leads, else one of its
        own."""
        with self._lock:
            inbox = self._inbox
            if not inbox.led:
                inbox.led = True
                return inbox
            mine = Inbox()
            inbox.followers[mine] = None
            return mine

    def _lead(self, mine: Inbox) -> Inbox:
        """The inbox that a call with `mine` waits on from now on: the shared one if nobody leads any more."""
        inbox = self._inbox
        if mine is inbox or inbox.led:
            return mine
        with self._lock:
            if inbox.led:
                return mine
            inbox.led = True
            del inbox.followers[mine]
            return inbox

    def _leave(self, mine: Inbox) -> None:
        with self._lock:
            inbox = self._inbox
            if mine is inbox:
                inbox.led = False
            else:
                inbox.followers.pop(mine, None)
            if not inbox.led and inbox.followers:
                inbox.poke_follower()

    def _served_by(self, client: Any) -> None:
        """That client has a link here. Clients of one token share a session; then who leads cannot see to the others'
        affairs, and everybody is woken."""
        self._clients.add(client)
        self._crowded = len(list(self._clients)) > 1

    def _work(self) -> None:
        """Take in what has come for this session, and do what its client does then; for who leads without being it."""
        clients = list(self._clients)
        if len(clients) == 1:
            clients[0]._work()
        else:
            with self._lock:
                self._dispatch()
            self._calls.run()

    def _take_in(self) -> None:
        with self._lock:
            self._dispatch()

    def _keep(self) -> None:
        """For keep-alive: take in what has come, and have every client here call back."""
        self._take_in()
        self._calls.run()
        for client in list(self._clients):
            client._keep()
        if self._inbox.led:  # what somebody waits for may have been taken in here
            self._inbox.poke_all()

    def _dispatch(self) -> None:
        """Hand every record that has come to where it belongs. Hold the lock."""
        inbox = self._inbox
        records = inbox.records
        if not records:
            return
        try:
            while records:
                record = records.popleft()
                kind = type(record)
                came: Any = record  # its first field is the link, if it is a delivery or settlement
                if kind is Delivery:
                    run = [came]
                    number = came[0]
                    while records and type(came := records[0]) is Delivery and came[0] == number:
                        run.append(records.popleft())
                    link = self._links.get(number)
                    if link is not None:
                        link._on_deliveries(run)
                elif kind is Settled:
                    link = self._links.get(came[0])
                    if link is not None:
                        link._on_record(record)
                else:
                    self._on_rare(record)
        except BaseException:  # Ctrl-C: one record may be half done, and nobody knows which half
            if self._error is None:
                self._break(errors.MessageHandlerError("interrupted while outcomes were taken in"), torn=True)
            raise
        if self._crowded and inbox.followers:
            inbox.poke_all()

    def _on_rare(self, record: Record) -> None:
        link_id: int | None = getattr(record, "link", None)
        if link_id is None:
            self._on_record(record)
            return
        if type(record) is Attach:
            self._attached(record)
        link = self._links.get(link_id)
        if link is not None:
            link._on_record(record)
        if type(record) is Detach:
            self._detached(link_id)

    def _detached(self, link_id: int) -> None:
        if self._links.pop(link_id, None) is not None:
            with self._connection._io:
                if self._is_here():
                    self._connection._route_link(link_id, None)

    def _on_record(self, record: Record) -> None:
        if type(record) is Begin:
            self._begun = True
        elif type(record) is End:
            self._refused = True
            self._over(record.error, "the peer ended the session")
        elif type(record) is PeerError:
            if record.scope == 1:
                self._over(record.error, "the session broke the rules of AMQP")
            else:
                link = self._links.get(record.id)
                if link is not None:
                    link._on_record(record)
        elif type(record) not in (SessionState, LinkState):
            _logger.debug("session %d: %r is nobody's", self._id, record)

    def _mgmt_links_lost(self, node: mgmt.Node) -> None:
        """A broken pair of management links is not used for further requests."""
        self._mgmt_links = {name: kept for name, kept in self._mgmt_links.items() if kept._node is not node}

    def _over(self, error: Error | None, otherwise: str) -> None:
        if self._ended or self._error is not None:
            return
        connection = self._connection
        self._break(
            connection._told(errors.process_session_error(connection.error_policy, *peer_error(error, otherwise)))
        )

    def _break(self, error: errors.AMQPError, torn: bool = False) -> None:
        self._error = error
        links, self._links = list(self._links.values()), {}
        for link in links:
            link._on_session_lost(error, torn)
        self._inbox.poke_all()

    def _attached(self, record: Attach) -> None:
        """Tell `on_attach`; links that we did not ask for were refused by the connection."""
        if not record.reply:
            return
        if self._on_attach is not None:
            self._calls.add(self._tell, record)

    def _tell(self, record: Attach) -> None:
        on_attach = self._on_attach
        if on_attach is None:
            return
        fields = record.fields
        source, target = fields["source"], fields["target"]
        properties = errors._as_bytes(fields["properties"])
        if (target if record.sender else source) is None:
            side = "target" if record.sender else "source"
            refused = errors.AMQPConnectionError(f"the peer attached without a {side}: it refuses the link")
            openly(on_attach, None, None, properties, refused)
        else:
            openly(on_attach, *_termini(source, target), properties, None)
