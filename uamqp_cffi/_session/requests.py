"""Management requests: a pair of links to a node, requests out on one, answers in on the other (AMQP Management draft).

`Node` is the pair, kept by its session for later requests; `mgmt_operation.request_plan` is one request. Many may be outstanding, from
several threads: each waits for the answer that carries its message-id as correlation-id.
"""

from __future__ import annotations

import copy
import logging
import uuid
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypedDict

from .. import constants, errors
from .._core import time
from .._core.engine.lib import SizeError, StateError
from .._core.engine.records import Attach, Credit, Delivery, Detach, PeerError, Record, Settled
from .._core.engine.values import composite, described_composite, enc_bool, enc_str, enc_ubyte, enc_uint, symbol_map
from .._core.waiting.patience import Patience
from .._core.waiting.plan import Inbox, Plan, Wait, earlier
from ..message import Message, MessageProperties
from .outcomes import peer_error, rejection

_logger = logging.getLogger("uamqp.mgmt_operation")

CREDIT = 10_000
_ACCEPTED = described_composite("accepted")
_SENT = frozenset((0x00, 0x01, 0x24))
_NOT_DELIVERED = 0x02


class SessionPort(Protocol):
    """What requests ask of the session they are made on."""

    _connection: Any
    _engine: Any
    _error: Any
    _ended: bool
    _inbox: Any
    _lock: Any
    _mgmt_links: dict[bytes, Any]

    def _attach(self, link: Any, performative: bytes) -> int: ...
    def _detach(self, link_id: int) -> None: ...
    def _enter(self) -> Inbox: ...
    def _lead(self, mine: Inbox) -> Inbox: ...
    def _leave(self, mine: Inbox) -> None: ...
    def _work(self) -> None: ...
    def _dispatch(self) -> None: ...
    def _mgmt_links_lost(self, node: Node) -> None: ...


class Options(TypedDict, total=False):
    """What further arguments a request has."""

    timeout: float
    status_code_field: bytes | str
    description_fields: bytes | str
    locales: Any
    encoding: str
    debug: bool


class OptionsAndCallback(Options, total=False):
    """The same, where `callback` is none of its own."""

    callback: Callable[[int, Message, Any], Any] | None


class Answer:
    """What a request waits for: `message` once it came, or `error`."""

    __slots__ = ("error", "inbox", "message")

    def __init__(self) -> None:
        self.message: Message | None = None
        self.error: BaseException | None = None
        self.inbox: Inbox | None = None  # of who waits

    def fail(self, error: BaseException) -> None:
        """There will be no answer."""
        self.error = self.error or error
        self.came()

    def came(self) -> None:
        """Wake who waits."""
        if self.inbox is not None:
            self.inbox.poke()


class _End:
    """One link of the pair, as its session sees it."""

    def __init__(self, node: Node, sender: bool) -> None:
        self._node = weakref.ref(node)  # which has us: a circle would wait for the cyclic collector
        self.sender = sender
        self.link = 0
        self.attached = False

    def _on_deliveries(self, run: list[Any]) -> None:
        for record in run:
            self._on_record(record)

    def _on_record(self, record: Record) -> None:
        node = self._node()
        if node is not None:
            node.on_record(self, record)

    def _on_session_lost(self, error: BaseException, torn: bool = False) -> None:
        node = self._node()
        if node is not None:
            node.fail(error)


class Node:
    """The link pair to one node of one session."""

    def __init__(self, session: SessionPort, name: bytes, properties: dict[Any, Any] | None = None) -> None:
        self.session = session
        self.name = name
        self.error: BaseException | None = None
        self._properties = properties
        self._out = _End(self, True)
        self._in = _End(self, False)
        self._credit = 0
        self._granted = 0
        self._next_id = 0
        self._waiting: OrderedDict[int, tuple[bytes, Answer]] = OrderedDict()  # by request id
        self._label = b""  # in the names of the links, while they are of use
        self._names: set[bytes] = set()
        self._answers: dict[int, Answer] = {}
        self._sent: dict[int, Answer] = {}  # by delivery-id

    @property
    def ready(self) -> bool:
        """Whether both links are attached."""
        return self._out.attached and self._in.attached

    def open(self) -> None:
        """Begin to attach both links. Never waits."""
        if self._out.link:
            return
        session = self.session
        connection = session._connection
        with session._lock:
            if self._out.link:  # another thread was quicker
                return
            self._claim_name()
            try:
                for end in (self._out, self._in):
                    end.link = session._attach(end, self._attach(end))
                with connection._io:
                    session._engine.flow(self._in.link, CREDIT)
            except BaseException as error:
                for end in (self._out, self._in):
                    session._detach(end.link)
                broken = errors.MessageHandlerError("the management links cannot be attached")
                broken.__cause__ = error
                self.fail(broken)
                if isinstance(error, StateError):  # the connection was closed under us
                    connection._check_alive()
                    raise broken from error
                raise
            self._granted = CREDIT
        connection._flush()

    def _claim_name(self) -> None:
        """Links of a connection have names of their own, whatever session they are on (§2.6.1)."""
        connection = self.session._connection
        with connection._io:
            self._names = connection._node_names
            self._label = (
                self.name if self.name not in self._names else b"%s-%s" % (self.name, uuid.uuid4().hex.encode())
            )
            self._names.add(self._label)

    def _attach(self, end: _End) -> bytes:
        address = enc_str(self.name)
        fields: dict[str, bytes | None] = {
            "name": enc_str(self._label + (b"-sender" if end.sender else b"-receiver")),
            "handle": enc_uint(0),
            "role": enc_bool(not end.sender),
            "snd_settle_mode": enc_ubyte(0),
            "source": described_composite("source", address=address),
            "target": described_composite("target", address=address),
        }
        if end.sender:
            fields["initial_delivery_count"] = enc_uint(0)
        if self._properties:
            fields["properties"] = symbol_map(self._properties)
        return composite("attach", **fields)

    def close(self) -> None:
        """Detach both links. Repeatable; who still waits for an answer gets an error."""
        session = self.session
        with session._lock:
            for end in (self._out, self._in):
                if end.link:
                    session._detach(end.link)
            self.fail(errors.MessageHandlerError("the management links were closed"))
        session._connection._flush()
        session._inbox.poke_all()

    # requests, under the session's lock

    def submit(
        self, message: Message, operation: bytes | str, op_type: bytes | str | None, **more: Any
    ) -> tuple[int, Answer]:
        """Send a request as soon as the peer takes it; gives its id and what to wait for. Raises what encoding
        raises."""
        request_id = self._next_id
        self._next_id += 1
        encoded = _request(message, request_id, operation, op_type, more)
        answer = Answer()
        self._answers[request_id] = answer
        self._waiting[request_id] = encoded, answer
        self.offer()
        return request_id, answer

    def forget(self, request_id: int) -> None:
        """Nobody waits for that answer any more."""
        self._answers.pop(request_id, None)
        self._waiting.pop(request_id, None)

    def offer(self) -> None:
        """Hand over what the peer takes, and send it off; nothing before the answers have a link to come on."""
        moved = False
        while self._waiting and self._credit > 0 and self.ready:
            request_id, first = next(iter(self._waiting.items()))
            if not self._hand_over(*first):
                break
            del self._waiting[request_id]
            moved = True
        if moved:  # whoever took in the record that allowed it may have nothing else to send
            self.session._connection._flush()

    def _hand_over(self, encoded: bytes, answer: Answer) -> bool:
        """Whether the request needs to wait no more."""
        connection = self.session._connection
        with connection._io:
            if connection._done or connection._closed:
                return False
            try:
                lens = array("I", (len(encoded),))
                taken, first = self.session._engine.send_messages(self._out.link, encoded, lens)
            except StateError:
                return False
            except SizeError as error:
                text = str(error)
                answer.fail(errors.MessageSendFailed(constants.ErrorCodes.LinkMessageSizeExceeded, text))
                return True
        if taken:
            self._credit -= 1
            self._sent[first] = answer
        return bool(taken)

    def fail(self, error: BaseException) -> None:
        """The links are of no use any more."""
        if self.error is None:
            self.error = error
        for answer in self._answers.values():
            answer.fail(self.error)
        self._answers.clear()
        self._waiting.clear()
        self._sent.clear()
        self._names.discard(self._label)
        self._names = set()
        self.session._mgmt_links_lost(self)

    # records, under the session's lock

    def on_record(self, end: _End, record: Record) -> None:
        if type(record) is Delivery:
            self._answered(record)
        elif type(record) is Settled:
            if end.sender:
                self._settled(record)
        elif type(record) is Credit:
            if end.sender:
                self._credit = record.credit
                self.offer()
        elif type(record) is Attach:
            fields = record.fields
            end.attached = (fields["target"] if end.sender else fields["source"]) is not None
            self.offer()
        elif isinstance(record, (Detach, PeerError)):
            what = peer_error(record.error, "the peer detached the management link")
            self.fail(errors.process_link_error(self.session._connection.error_policy, *what))
            other = self._in if end.sender else self._out
            if other.link:  # of no use by itself, and in the way of the next pair
                self.session._detach(other.link)
                self.session._connection._flush()

    def _settled(self, record: Settled) -> None:
        """What became of requests. Only a refusal is of interest: who accepted will answer."""
        span = (record.last - record.first) & 0xFFFFFFFF
        for delivery_id in [one for one in self._sent if (one - record.first) & 0xFFFFFFFF <= span]:
            answer = self._sent.pop(delivery_id)
            if record.outcome in _SENT:
                continue
            error: errors.AMQPError
            if record.outcome in (0x02, 0x03):
                error = errors.MessageHandlerError("the links went away before the answer came")
                error.delivery = (
                    constants.Delivery.NOT_DELIVERED if record.outcome == _NOT_DELIVERED else constants.Delivery.UNKNOWN
                )
            else:
                what = rejection(record.outcome, record.state)
                error = errors.process_message_error(self.session._connection.error_policy, *what)
            answer.fail(error)

    def _answered(self, record: Delivery) -> None:
        connection = self.session._connection
        with connection._io:
            if not connection._done and not connection._closed:
                try:
                    if not record.settled:
                        one = record.delivery_id
                        self.session._engine.settle(self._in.link, one, one, True, _ACCEPTED)
                    self._granted -= 1
                    if self._granted <= CREDIT // 2:
                        self.session._engine.flow(self._in.link, CREDIT)
                        self._granted = CREDIT
                except StateError:
                    _logger.debug("management link of %r went away under an answer", self.name)
        message = Message._received(record.payload, None, record.delivery_id, record.tag, record.message_format)
        try:
            properties = message.properties
            request_id = None if properties is None else properties.correlation_id
        except (TypeError, ValueError) as error:
            _logger.warning("an answer of %r cannot be read: %s", self.name, error)
            return
        answer = self._answers.pop(request_id, None) if isinstance(request_id, int) else None
        if answer is None:
            _logger.info("an answer of %r to request %r, which nobody waits for", self.name, request_id)
            return
        answer.message = message
        answer.came()


def _request(
    message: Message, request_id: int, operation: bytes | str, op_type: bytes | str | None, more: dict[str, Any]
) -> bytes:
    """The user's message with what makes it a request; the message itself is left as it is."""
    request = copy.copy(message)
    given_properties = message.properties
    properties = MessageProperties(properties=None if given_properties is None else given_properties._encode())
    properties.message_id = request_id
    request.properties = properties
    given = {_text(key): value for key, value in (message.application_properties or {}).items()}
    given["operation"] = _text(operation)
    given["type"] = _text(op_type or b"empty")
    if more.get("locales") is not None:
        given["locales"] = _text(more["locales"])
    request.application_properties = given
    return request.encode_message()


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def node_name(node: bytes | str | None) -> bytes:
    """The name of a node, however it was given."""
    node = node or constants.MGMT_TARGET
    return node.encode() if isinstance(node, str) else bytes(node)


def exchange_plan(
    node: Node,
    message: Message,
    operation: bytes | str,
    op_type: bytes | str | None,
    timeout: float,
    status_code_field: bytes | str,
    description_fields: bytes | str,
    **more: Any,
) -> Plan[tuple[int, Message, bytes | None]]:
    """One request: status, answer, description."""
    session = node.session
    connection = session._connection
    now = time.monotonic()
    deadline = now + timeout / 1000 if timeout else None
    attach_by = deadline
    if deadline is None and connection._connect_timeout:
        attach_by = now + connection._connect_timeout
    yield from connection._look_first_plan()
    patience = Patience()
    mine = session._enter()
    request_id: int | None = None
    try:
        node.open()
        with session._lock:
            if node.error is not None:
                raise node.error
            request_id, answer = node.submit(message, operation, op_type, **more)
        connection._flush()
        while True:
            answer.inbox = mine = session._lead(mine)
            session._work()
            connection._flush()
            if answer.error is not None:
                raise answer.error.with_traceback(None)
            if answer.message is not None:
                break
            if session._ended:
                raise errors.MessageHandlerError("the session was ended")
            limit = deadline if node.ready else attach_by
            if limit is not None and time.monotonic() >= limit:
                raise _late(node, request_id, operation, timeout, limit is deadline)
            yield from connection._token_plan()
            try:
                yield Wait(mine, patience.until(earlier(limit, connection._token_deadline())))
                if waited := patience.is_up():
                    missing = "the answer" if node.ready else "the links to be attached"
                    _logger.warning(
                        "request %r to %r has waited %.0f s for %s", _text(operation), _text(node.name), waited, missing
                    )
            except errors.AMQPError:
                with session._lock:
                    session._dispatch()
                if answer.message is None:
                    raise
    finally:
        session._leave(mine)
        if mine is not session._inbox:
            session._inbox.poke()  # what this call took in may concern who leads
        if request_id is not None:
            with session._lock:
                node.forget(request_id)
    return _read(answer.message, status_code_field, description_fields)


def _late(node: Node, request_id: int, operation: bytes | str, timeout: float, ours: bool) -> TimeoutError:
    if not ours:
        return errors.ConnectTimeout(f"the peer did not attach the links to {_text(node.name)!r} in time")
    what = f"no answer to {_text(operation)!r} from {_text(node.name)!r} within {timeout} ms"
    error = errors.RequestTimeout(what)
    waits = request_id in node._waiting
    error.delivery = constants.Delivery.NOT_DELIVERED if waits else constants.Delivery.UNKNOWN
    return error


def _read(
    message: Message, status_code_field: bytes | str, description_fields: bytes | str
) -> tuple[int, Message, bytes | None]:
    fields = message.application_properties or {}
    status = _field(fields, status_code_field)
    description = _field(fields, description_fields)
    if isinstance(status, bool) or not isinstance(status, int):
        name = _text(status_code_field)
        raise ValueError(f"the answer has no status: its application properties have no int {name!r}")
    if not 200 <= status <= 299:
        _logger.error("management operation failed: status %d, description %r", status, description)
    return status, message, description


def _field(fields: dict[Any, Any], name: bytes | str) -> Any:
    key = name.encode() if isinstance(name, str) else name
    return fields.get(key)
