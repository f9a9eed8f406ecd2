"""Sending links.

A `MessageSender` is the sending end of one link. A client hands it runs of messages (`_take`), and is told by
`_settled` what became of them; used alone, `send` queues a message with its callback and `work` moves it on.
"""

from __future__ import annotations

import itertools
import logging
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from . import constants, errors
from ._arguments import wrong
from ._core import time
from ._core.engine.engine import Lengths
from ._core.engine.lib import SizeError, StateError
from ._core.engine.records import Credit, Record, Settled
from ._core.engine.values import described_composite, enc_str, enc_uint
from ._core.waiting.interrupts import openly, whole
from ._session.link import Capabilities, Link
from ._session.outcomes import rejection
from ._session.unsettled import LOST_OUTCOMES, SENT_OUTCOMES, Owner, Runs
from .address import Target
from .constants import Delivery, MessageSenderState
from .message import Message, format_of
from .session import Session

_logger = logging.getLogger("uamqp.sender")

_RUN = 4096  # messages offered at once
_RUN_BYTES = 256 << 10
_MOST_KEYS = 256  # of annotations, that a link remembers to have looked at
_LARGE = 16 << 10  # a message above it goes alone: joining would cost more than the call
_NOT_DELIVERED = 0x02
_UNKNOWN = 0x03
OUTCOMES = {
    0x24: constants.DeliveryOutcome.ACCEPTED,
    0x25: constants.DeliveryOutcome.REJECTED,
    0x26: constants.DeliveryOutcome.RELEASED,
    0x27: constants.DeliveryOutcome.MODIFIED,
}
_OK, _ERROR, _TIMEOUT, _CANCELLED = 1, 2, 3, 4  # MessageSendResult as plain numbers


def _reserved(key: Any) -> bool:
    """Whether a key of annotations is not for applications to use (§3.2.10)."""
    key = getattr(key, "value", key)
    name = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
    return not (isinstance(name, str) and name.startswith("x-"))


def _too_much(error: Exception) -> Exception:
    """Why a message cannot be handed over that is too large for the engine, or for the memory there is."""
    if isinstance(error, MemoryError):
        return MemoryError("there is not enough memory to send the message")
    return ValueError("a message of 4 GiB or more cannot be sent: split it")


class Unsendable(Exception):
    """The first message that was offered cannot be encoded: `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class MessageSender(Link):
    """The sending end of a link from `source` (a name of ours) to `target` (an address object) on `session`.

    `max_message_size`, in bytes, is announced when it is neither 0 nor uamqp's default, and not enforced: the peer's is.
    `send_settle_mode` Settled and Mixed send settled messages, done when their bytes left this host. `link_credit` is
    accepted and has no effect. An address is sent as the target object says. Sizes, modes and names can be changed until
    `open`.
    """

    _kind = "sender"
    _states = MessageSenderState
    _far = "target"
    _logger = _logger

    if TYPE_CHECKING:

        def get_state(self) -> MessageSenderState: ...

    def __init__(
        self,
        session: Session,
        source: str | bytes,
        target: Target,
        name: str | bytes | None = None,
        send_settle_mode: constants.SenderSettleMode = constants.SenderSettleMode.Unsettled,
        receive_settle_mode: constants.ReceiverSettleMode = constants.ReceiverSettleMode.PeekLock,
        max_message_size: int = constants.MAX_MESSAGE_LENGTH_BYTES,
        link_credit: int | None = None,
        properties: dict[Any, Any] | None = None,
        error_policy: errors.ErrorPolicy | None = None,
        debug: bool = False,
        encoding: str = "UTF-8",
        desired_capabilities: Capabilities | None = None,
    ) -> None:
        super().__init__(
            session,
            name,
            send_settle_mode,
            receive_settle_mode,
            max_message_size,
            properties,
            error_policy,
            debug,
            encoding,
            desired_capabilities,
        )
        self.source: bytes = source.encode(encoding) if isinstance(source, str) else source
        self.target = target
        self._link_credit = link_credit
        self._sender = self._link
        self._runs = Runs()
        self._run_length = 64
        # of send(): entries are (message, callback, ticket)
        self._waiting: deque[tuple[Message, Callable[..., object] | None, int]] = deque()
        self._open: dict[int, Any] = {}  # those with a time-out that have no outcome, by ticket
        self._timed: list[tuple[float, int]] = []  # heap of (deadline, ticket)
        self._tickets = itertools.count(1)
        self._draining = False
        self._keys_judged = False  # a key of an annotation that brokers refuse was told of, once
        self._good_keys: set[Any] = set()  # those that were looked at

    def close(self) -> None:
        """Detach the link for good. What `send` was given and has no outcome is called back with an error. Repeatable."""
        super().close()

    def _left(self) -> None:
        mine: list[Any] = []
        if any(type(item) is tuple for item in self._runs):
            for owner, items in self._runs.take_all():
                if owner is self:
                    mine += items
                else:  # of the client that this link belongs to
                    owner._settled(items, _UNKNOWN, b"")
        waiting, self._waiting = [*mine, *self._waiting], deque()
        for entry in waiting:
            self._call_back(entry, _ERROR, None)

    @whole
    def send(self, message: Message, callback: Callable[..., object] | None, timeout: float = 0) -> bool:
        """Hand a message over; `work` moves it on. True unless the link is broken.

        `callback(message, result, delivery_state)` is called from `work` with a number of `MessageSendResult`; the
        state is `[]` when the peer accepted, the error's `[[condition, description, info]]` when it rejected.
        `timeout` in ms, 0 for ever, is for the whole way to the outcome. `message.state` is left alone.
        """
        self._conn._look_first()
        with self._session._lock:
            self._session._dispatch()
            if self._broken() is not None:
                return False
            entry = (message, callback, next(self._tickets))
            self._waiting.append(entry)
            if timeout > 0:
                self._open[entry[2]] = entry
                heappush(self._timed, (time.monotonic() + timeout / 1000, entry[2]))
        self._offer_waiting()
        return True

    @whole
    def work(self) -> None:
        """Take in what has come for this link, hand over what can be, and call back. Raises the error that broke it."""
        if self._waiting:
            self._conn._look_first()
        self._pump()
        self._offer_waiting()
        error = self._broken()
        if error is not None:
            raise errors.afresh(error)

    def _fields(self) -> dict[str, bytes | None]:
        self._asked = self.target.address
        return {
            "source": described_composite("source", address=enc_str(self.source)),
            "target": self.target._encode(),
            "initial_delivery_count": enc_uint(0),
        }

    def _forget(self) -> None:
        """The end: nobody will say what became of what is out, so it comes back to its owner. Under the session's lock."""
        for owner, items in self._runs.take_all():
            owner._settled(items, _UNKNOWN, b"")

    # records, under the session's lock

    def _on_record(self, record: Record) -> None:
        if type(record) is Settled:
            for owner, items in self._runs.take(record.first, record.last):
                owner._settled(items, record.outcome, record.state)
            self._runs.moved()
        else:
            super()._on_record(record)

    def _credited(self, record: Credit) -> None:
        self._credit = record.credit
        self._draining = record.drain
        if record.drain and not self._waiting and (self._client is None or self._client._nothing_to_offer()):
            self._offered(True)  # nobody else will come to do it

    def _offered(self, everything: bool) -> None:
        """What there was to hand over was offered, `everything` of it taken: a peer that drains gets its credit back
        (§2.6.7). Under the session's lock."""
        if not self._draining or not (everything or self._credit <= 0):
            return
        self._draining = False
        self._credit = 0
        conn = self._conn
        with conn._io:
            if conn._failure is None and not conn._closed:
                try:
                    self._session._engine.drained(self._id)
                except StateError:
                    _logger.debug("sender %r: nobody wants its credit back any more", self.name)

    def _over(self) -> None:
        for owner, items in self._runs.take_all():
            owner._settled(items, _UNKNOWN, b"")

    # handing over, under the session's lock

    @property
    def _ready(self) -> bool:
        return self._state is MessageSenderState.Open and self._credit > 0

    def _take(self, run: list[Message], owner: Owner, items: list[Any] | None = None) -> int:
        """Hand over as many of the first messages of `run` as the link takes; gives how many. `owner` is told what becomes
        of them, or of `items`, which stand for them. Raises SizeError or Unsendable when the first one cannot be sent.
        Ours is the list that is given.
        """
        try:
            if len(run) == 1 and (raw := run[0]._raw) is not None:
                return self._hand_over(raw, None, 0, True, run, owner, items)
            data, message_format = True, 0
            try:
                bodies: list[bytes] = [message._raw for message in run]  # type: ignore[misc]  # None raises TypeError below
                lens = array("I", map(len, bodies))
            except TypeError:  # not all of them are nothing but bytes
                data = False
                bodies, message_format = self._encoded(run)
                lens = array("I", map(len, bodies))
            size = sum(lens)
            if len(lens) > 1 and (size > _RUN_BYTES or lens[0] > _LARGE):
                bodies, lens = self._shortened(bodies, lens)
            elif len(lens) == self._run_length and self._run_length < _RUN:
                self._run_length *= 2
            buf = bodies[0] if len(bodies) == 1 else b"".join(bodies)
            return self._hand_over(buf, lens, message_format, data, run, owner, items)
        except (OverflowError, MemoryError) as error:  # none was handed over
            if len(run) > 1:
                return self._take(run[:1], owner, None if items is None else items[:1])
            raise Unsendable(_too_much(error)) from error

    def _hand_over(
        self,
        buf: bytes,
        lens: Lengths | None,
        message_format: int,
        data: bool,
        run: list[Message],
        owner: Owner,
        items: list[Any] | None,
    ) -> int:
        """Messages whose bytes stand joined in `buf`; `lens` is None for one."""
        settled = self._snd_mode is not constants.SenderSettleMode.Unsettled
        conn = self._conn
        taken: int
        with conn._io:
            if conn._done or conn._closed:
                return 0
            try:
                engine = self._session._engine
                taken, first = engine.send_messages(self._id, buf, lens, message_format, settled, data)
            except StateError:  # it is over; the record that says so is on its way
                self._credit = 0
                return 0
            if taken:
                gone = run if items is None else items
                self._runs.add(first, gone if taken == len(gone) else gone[:taken], owner)
        self._credit -= taken
        return taken

    def _encoded(self, run: list[Message]) -> tuple[list[bytes], int]:
        """The first messages of `run`, as many as have one message-format and are not too much at once."""
        bodies: list[bytes] = []
        message_format = run[0]._format
        size = 0
        for message in run:
            if message._format != message_format or size > _RUN_BYTES:
                break
            try:
                body = message.encode_message()
                if type(body) is not bytes and not isinstance(body, bytes):
                    raise wrong("what encode_message() gives", body, "bytes")
                if message_format:
                    format_of(message_format)
                if (
                    message._rest is not None
                    and not self._keys_judged
                    and (message._annotations or message._delivery_annotations)
                ):
                    self._judge_keys(message)
                if message_format and message._is_empty():
                    raise ValueError("a batch of nothing is no message")
            except Exception as error:
                if not bodies:
                    raise Unsendable(error) from error
                break  # it is its turn next
            size += len(body)
            bodies.append(body)
        return bodies, message_format

    def _judge_keys(self, message: Message) -> None:
        """Warn, once, of a key that is reserved (§3.2.10): RabbitMQ detaches the link for it, and all that is under way with
        it has no outcome."""
        for name in ("annotations", "delivery_annotations"):
            annotations = getattr(message, "_" + name)
            if (
                type(annotations) is not dict and not isinstance(annotations, Mapping)
            ) or annotations.keys() <= self._good_keys:
                continue
            reserved = [key for key in annotations if _reserved(key)]
            if not reserved and len(self._good_keys) < _MOST_KEYS:
                self._good_keys.update(annotations)
            if reserved:
                self._keys_judged = True
                _logger.warning(
                    "sender %r: the key %r in %s is reserved: brokers such as RabbitMQ refuse what does not begin with 'x-',"
                    " and detach the link",
                    self.name,
                    reserved[0],
                    name,
                )
                return

    def _shortened(self, bodies: list[bytes], lens: Lengths) -> tuple[list[bytes], Lengths]:
        """As many as make about _RUN_BYTES, at least one."""
        size = n = 0
        if lens[0] > _LARGE:
            return bodies[:1], lens[:1]
        while n < len(lens) and size < _RUN_BYTES:
            size += lens[n]
            n += 1
        self._run_length = max(1, n)
        return bodies[:n], lens[:n]

    def _torn(self) -> None:
        """Ctrl-C came while messages were handed over or outcomes taken in, so which of them were is not known: the link is
        given up. Under the session's lock."""
        if self._error is None:
            self._error = errors.MessageHandlerError("interrupted in the middle of sending: what was sent is not known")
            self._error.delivery = Delivery.UNKNOWN
        self._broke(self._error)
        if self._client is not None:
            self._client._recover([item for item in self._runs.moving if type(item) is not tuple])

    def _abandon(self, item: Any) -> bool:
        """Give a delivery up that is on its way: its outcome is not waited for any more (§2.6.12). False when it has it."""
        delivery_id = self._runs.id_of(item)
        if delivery_id is None:
            return False
        self._runs.take(delivery_id, delivery_id)
        conn = self._conn
        with conn._io:
            if not conn._done and not conn._closed:
                try:
                    self._session._engine.settle(self._id, delivery_id, delivery_id, settled=True)
                except StateError:
                    _logger.debug("sender %r: the outcome of delivery %d came at the same time", self.name, delivery_id)
        return True

    # send(): messages with a callback each

    def _offer_waiting(self) -> None:
        conn = self._conn
        with self._session._lock:
            self._expire()
            waiting = self._waiting
            while waiting and self._ready:
                entry = waiting[0]
                try:
                    if not self._take([entry[0]], self, [entry]):
                        break
                except SizeError as error:
                    condition = constants.ErrorCodes.LinkMessageSizeExceeded.value
                    self._call_back(entry, _ERROR, [[condition, str(error).encode(), None]])
                except Unsendable as error:
                    condition = constants.ErrorCodes.ClientError.value
                    self._call_back(entry, _ERROR, [[condition, str(error).encode(), None]])
                except BaseException:
                    self._torn()
                    raise
                waiting.popleft()
            self._offered(not waiting)
        conn._flush()
        self._calls.run()

    def _expire(self) -> None:
        """Time-outs of send(): looked at from the oldest on."""
        now = time.monotonic()
        timed = self._timed
        while timed and (timed[0][0] <= now or timed[0][1] not in self._open):
            ticket = heappop(timed)[1]
            entry = self._open.get(ticket)
            if entry is None:
                continue
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                self._abandon(entry)
            self._call_back(entry, _TIMEOUT, None)

    def _settled(self, items: list[Any], outcome: int, state: bytes) -> None:
        for entry in items:
            if outcome in SENT_OUTCOMES:
                self._call_back(entry, _OK, [])
            elif outcome in LOST_OUTCOMES:
                entry[0].delivery = Delivery.NOT_DELIVERED if outcome == _NOT_DELIVERED else Delivery.UNKNOWN
                self._call_back(entry, _ERROR, None)
            else:
                condition, description, info = rejection(outcome, state)
                self._call_back(entry, _ERROR, [[condition, description, info]])

    def _call_back(self, entry: Any, result: int, delivery_state: Any) -> None:
        message, callback, ticket = entry
        self._open.pop(ticket, None)
        if callback is not None:
            self._calls.add(openly, callback, message, result, delivery_state)
