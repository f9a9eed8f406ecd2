"""Receiving links.

A `MessageReceiver` is the receiving end of one link. Deliveries come in as records under the session's lock and wait in
`_arrived`; `_hand_out` makes messages of them and gives them to `on_message_received`, outside every lock and in order,
one thread at a time. Credit goes back to `prefetch` when half of it is used up; outcomes leave as ranges.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn

from . import constants, errors
from ._arguments import unknown
from ._core.engine.lib import OUT_ACCEPTED, OUT_MODIFIED, OUT_REJECTED, OUT_RELEASED, StateError
from ._core.engine.records import Credit, Delivery, Record, Settled
from ._core.engine.sections import ACCEPTED, RELEASED, modified, outcome, rejected
from ._core.engine.serial import numbers_of, ranges
from ._core.engine.values import described_composite, enc_str
from ._core.time import perf_counter
from ._core.waiting.interrupts import openly, whole
from ._core.waiting.locks import RLock, fork_safe
from ._session.link import Capabilities, Link
from ._typing import Nothing, Unpack
from .address import Source
from .connection import LOOK_SELDOM
from .constants import DeliveryOutcome, ErrorCodes, MessageReceiverState, MessageState, ReceiverSettleMode
from .message import Message
from .session import Session

_logger = logging.getLogger("uamqp.receiver")

_UNSETTLED = MessageState.ReceivedUnsettled
_ATTACHED = 3  # UAM_LINK_ATTACHED
_OUTCOMES = {
    OUT_ACCEPTED: DeliveryOutcome.ACCEPTED,
    OUT_REJECTED: DeliveryOutcome.REJECTED,
    OUT_RELEASED: DeliveryOutcome.RELEASED,
    OUT_MODIFIED: DeliveryOutcome.MODIFIED,
}
_MOST_TAKEN = 1 << 16  # deliveries taken back that are remembered for those who hold their messages


class LinkGone(errors.MessageHandlerError, RuntimeError):
    """A message cannot be settled any more: the link it came by is closed or broken. It stays unsettled, and the peer
    delivers it again."""


class MessageReceiver(Link):
    """The receiving end of a link from `source` (an address object) to `target` (a name of ours) on `session`.

    `on_message_received(message)` is called from `work` for each message. `receive_settle_mode` PeekLock leaves it to the
    user to settle messages; with ReceiveAndDelete they are settled when they are handed out. `prefetch` is the credit,
    in messages. `max_message_size`, in bytes up to 256 MiB, is announced and held to; nothing is announced, and 64 MiB is the
    limit, when it is 0 or uamqp's default. A larger delivery breaks the link with a LinkDetach of condition
    amqp:link:message-size-exceeded (§2.7.3). Sizes, modes and names can be changed until `open`.
    """

    _kind = "receiver"
    _states = MessageReceiverState
    _far = "source"
    _largest = 256 << 20  # UAM_MAX_MESSAGE of csrc/limits.h
    _logger = _logger

    if TYPE_CHECKING:

        def get_state(self) -> MessageReceiverState: ...

    def __init__(
        self,
        session: Session,
        source: Source,
        target: str | bytes,
        on_message_received: Callable[[Message], object],
        name: str | bytes | None = None,
        receive_settle_mode: constants.ReceiverSettleMode = constants.ReceiverSettleMode.PeekLock,
        send_settle_mode: constants.SenderSettleMode = constants.SenderSettleMode.Unsettled,
        max_message_size: int = constants.MAX_MESSAGE_LENGTH_BYTES,
        prefetch: int = 300,
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
        self.encoding = encoding
        self.source = source
        self.target: bytes = target.encode(encoding) if isinstance(target, str) else target
        self.on_message_received = on_message_received
        self._receiver = self._link
        self._prefetch = prefetch
        self._granted = 0  # the credit of our last FLOW
        self._draining = False
        self._arrived: deque[Delivery] = deque()
        self._again: deque[Message] = deque()  # messages that go before them: handed out, and given back by the client
        self._taken: dict[
            int, DeliveryOutcome | None
        ] = {}  # what the peer made of deliveries by itself, until their messages are told
        self._due: deque[int] = deque()  # ReceiveAndDelete: deliveries that the peer wants an outcome of
        self._turn: Any = fork_safe(RLock())  # held by who hands out
        self._turn_of = 0
        self._unsent = False  # there is output that was not flushed
        self._settler: Any = self._settle_message  # the same object for all messages, until the link is closed

    @whole
    def work(self) -> None:
        """Take in what has come for this link, and hand messages out. Raises the error that broke it."""
        self._pump()
        error = self._broken()
        if error is not None:
            with self._session._lock:
                self._over()
        self._hand_out()
        self._tidy(0, 0)
        if error is not None:
            raise errors.afresh(error)

    @whole
    def reset_link_credit(self, link_credit: int, *, drain: bool = False, **kwargs: Unpack[Nothing]) -> None:
        """Have `link_credit` messages sent from now on; 0 pauses. Once that credit is used up it is `prefetch` again. With
        `drain=True` the peer gives back what it has no messages for, and there is none until the next call of this. Raises
        what broke the link, and MessageHandlerError when it is not open."""
        if kwargs:
            raise TypeError(unknown("reset_link_credit()", kwargs, ("link_credit", "drain")))
        self._conn._look_first()
        with self._session._lock:
            self._session._dispatch()
            done = self._latest is MessageReceiverState.Open and self._flow(int(link_credit), bool(drain))
        if not done:
            raise self._broken() or errors.MessageHandlerError("the link is not open")
        self._flush()

    # attaching

    def _fields(self) -> dict[str, bytes | None]:
        self._asked = "" if self.source.dynamic else self.source.address
        return {
            "source": self.source._encode(),
            "target": described_composite("target", address=enc_str(self.target)),
        }

    def _hint(self, error: BaseException, refused: bool) -> str:
        if getattr(error, "condition", None) == ErrorCodes.LinkMessageSizeExceeded:
            return "max_message_size= of the receiver sets how large a message may be; 64 MiB when it is not given"
        return super()._hint(error, refused)

    def _opened(self) -> None:
        if self._prefetch:
            self._flow(self._prefetch)

    def _pump(self) -> None:
        super()._pump()
        if self._unsent:
            self._flush()

    def _flush(self) -> None:
        self._unsent = False
        self._conn._flush()

    # records, under the session's lock

    def _on_deliveries(self, run: list[Any]) -> None:
        self._arrived.extend(run)
        self._credit -= len(run)
        if self._taken:  # ids come round
            for record in run:
                self._taken.pop(record.delivery_id, None)

    def _came(self, record: Record) -> None:
        if type(record) is Settled:
            self._settled_by_peer(record)

    def _settled_by_peer(self, record: Settled) -> None:
        """What of it is unread is not handed out, if the peer took it back; the messages that somebody holds are settled."""
        outcome = _OUTCOMES.get(record.outcome)
        outcomes = dict.fromkeys(numbers_of(record.first, record.last), outcome)
        _logger.warning(
            "receiver %r: the peer settled deliveries %d to %d by itself, %s",
            self.name, record.first, record.last, "without an outcome" if outcome is None else f"as {outcome.value}",
        )  # fmt: skip
        gone = outcome is not None and outcome is not DeliveryOutcome.ACCEPTED  # they are for somebody else to work on
        unread = self._take_back_arrived(outcomes, gone) + self._take_back_again(outcomes, gone)
        if self._client is not None:
            unread += self._client._taken_back(self, outcomes, gone)
        if self._due:
            due = [number for number in self._due if number not in outcomes]
            self._due.clear()
            self._due.extend(due)
        for number in unread:
            outcomes.pop(number, None)
        if self._rcv_mode is ReceiverSettleMode.PeekLock:
            self._taken.update(outcomes)
            for number in list(self._taken)[: max(0, len(self._taken) - _MOST_TAKEN)]:
                del self._taken[number]

    def _take_back_arrived(self, outcomes: Container[int], gone: bool) -> list[int]:
        taken = []
        arrived = list(self._arrived)
        self._arrived.clear()
        for delivery in arrived:
            if not delivery.settled and delivery.delivery_id in outcomes:
                taken.append(delivery.delivery_id)
                if gone:
                    continue
                delivery = delivery._replace(settled=True)
            self._arrived.append(delivery)
        return taken

    def _take_back_again(self, outcomes: Mapping[int, DeliveryOutcome | None], gone: bool) -> list[int]:
        taken = []
        for message in list(self._again):
            number = message.delivery_no
            if number in outcomes and (message._state is _UNSETTLED or number in self._due):
                taken.append(number)
                message._settled_by_peer(outcomes[number])
                if gone:
                    self._again.remove(message)
        return taken

    def _credited(self, record: Credit) -> None:
        self._credit = record.credit
        if record.drain:  # all of it was used up or given back, as we asked
            self._draining = False
            self._granted = 0

    def _over(self) -> None:
        """What is not settled belongs to the peer again."""
        kept = [record for record in self._arrived if record.settled]
        self._arrived.clear()
        self._arrived.extend(kept)
        due = set(self._due)
        again = [message for message in self._again if message.settled and message.delivery_no not in due]
        self._again.clear()
        self._again.extend(again)
        if self._client is not None:
            self._client._unread(self)
        self._due.clear()

    # credit

    def _set_prefetch(self, prefetch: int) -> None:
        self._prefetch = prefetch

    def _flow(self, credit: int, drain: bool = False) -> bool:
        """FLOW, under the session's lock. False when the link is no more."""
        conn = self._conn
        with conn._io:
            if conn._done or conn._closed:
                return False
            try:
                self._session._engine.flow(self._id, credit, drain)
            except StateError:
                return False
        self._credit = self._granted = credit
        self._draining = drain
        self._unsent = True
        return True

    def _top_up(self, unread: int) -> None:
        """Credit back to `prefetch` when half of it was used, but not while that many messages lie unread. What was granted
        by `reset_link_credit` is used down to 1, and after 0 there is none though more may have been under way."""
        granted = self._granted
        if not granted or self._draining or unread >= self._prefetch:
            return
        low = granted // 2 if granted == self._prefetch else min(1, granted - 1)
        if self._credit > low:
            return
        with self._session._lock:
            if self._latest is MessageReceiverState.Open:
                self._flow(self._prefetch)

    # handing out: outside every lock

    @property
    def _nested(self) -> bool:
        """Whether this thread is inside `on_message_received`."""
        return self._turn_of == get_ident()

    def _hand_out(self) -> int:
        """Give what has arrived to `on_message_received`; how many. Nothing when another thread is at it, or this one from
        inside `on_message_received`: who is at it goes on until nothing is left."""
        count = 0
        while self._arrived or self._again:
            if self._nested:
                return count
            client = self._client
            try:
                if not self._turn.acquire(blocking=False):
                    return count
                self._turn_of = get_ident()
                if client is not None:
                    client._begin_turn()
                if client is not None and client._takes_runs(self):
                    count += self._hand_run(client)
                else:
                    while self._arrived or self._again:
                        self._hand_one()
                        count += 1
            finally:
                while self._turn._is_owned():  # by us, however soon an interrupt came
                    if client is not None:
                        client._end_turn()
                    self._turn_of = 0
                    self._turn.release()
        return count

    def _hand_run(self, client: Any) -> int:
        """All that is there at once."""
        again: list[Message] = []
        run: list[Delivery] = []
        messages: list[Message] = []
        try:
            with self._session._lock:  # a close() takes what is in either place
                if self._again:
                    again = list(self._again)
                    self._again.clear()
                    client._take_run(again)
                run = list(self._arrived)
                self._arrived.clear()
                messages = self._messages(run)
                client._take_run(messages)
        except BaseException:  # Ctrl-C
            if again and not self._again and not client._has(again):
                self._again.extend(again)
            if run and not self._arrived and not (messages and client._has(messages)):
                self._arrived.extendleft(reversed(run))
            raise
        return len(again) + len(run)

    def _messages(self, run: Iterable[Delivery]) -> list[Message]:
        if self._rcv_mode is ReceiverSettleMode.PeekLock:
            if not getattr(self._client, "_auto_complete", False):
                return Message._received_run(run, self._settler, self._encoding)
            unreadable: list[Message] = []
            messages = Message._received_run(run, self._settler, self._encoding, unreadable)
            return self._readable(messages, unreadable) if unreadable else messages
        run = list(run)
        self._due.extend([record.delivery_id for record in run if not record.settled])
        return Message._received_run(run, None, self._encoding)

    def _readable(self, messages: list[Message], unreadable: list[Message]) -> list[Message]:
        """Without those that cannot be read: nobody is to accept them unseen, nor to get stuck at them. They are rejected, and
        told in the log."""
        for message in unreadable:
            if message.state is MessageState.ReceivedUnsettled:
                messages.remove(message)
                self._reject(message)
        return messages

    def _reject(self, message: Message) -> None:
        """Rejected with amqp:decode-error."""
        error: Exception | None = None
        try:
            message._sections.check_all()
        except errors.MessageDecodeError as problem:
            error = problem
        _logger.error(
            "receiver %r: delivery %r is no message, and is rejected: %s", self.name, message.delivery_no, error
        )
        condition = ErrorCodes.DecodeError.value
        self._settle_all([message.delivery_no], rejected(condition, str(error)))
        message._response = errors.MessageRejected(condition, str(error))
        message.state = MessageState.ReceivedSettled

    def _hand_one(self) -> None:
        try:
            with self._session._lock:
                if self._again:
                    message = self._again.popleft()
                else:
                    messages = self._messages((self._arrived.popleft(),))
                    if not messages:
                        return
                    message = messages[0]
        except IndexError:  # a close() took it
            return
        try:
            if self._client is None:
                openly(self.on_message_received, message)
            else:
                self.on_message_received(message)  # the client knows what of that is the user's
        except RuntimeError as error:
            self._callback_broke(error)
        except KeyboardInterrupt as interrupt:
            self._refuse(message)
            raise errors.AMQPClientShutdown from interrupt
        except Exception as error:
            if isinstance(error, errors.MessageDecodeError) and message._is_unreadable():
                with self._session._lock:
                    if message.state is MessageState.ReceivedUnsettled:
                        self._reject(message)
                        return
            _logger.exception("receiver %r: on_message_received failed; the message is given back", self.name)
            self._refuse(message)

    def _callback_broke(self, error: RuntimeError) -> None:
        """A RuntimeError of the user's breaks the link, as in uamqp."""
        with self._session._lock:
            if self._latest is MessageReceiverState.Open and self._error is None:
                self._fail((ErrorCodes.UnknownError.value, f"on_message_received raised {error!r}", None))
                if self._error is not None:
                    self._error.__cause__ = error
                return
        _logger.debug("receiver %r: on_message_received raised after the link was gone", self.name, exc_info=error)

    def _refuse(self, message: Message) -> None:
        """Modified: failed. Undeliverable here, as uamqp has it, would be the end of it with RabbitMQ, which drops such a message."""
        try:
            if message.state is MessageState.ReceivedUnsettled:
                message.modify(True, False)
                return
            with self._session._lock:
                number = message.delivery_no
                if number not in self._due:
                    return
                self._due.remove(number)
            self._settle(number, number, modified(True, False))
            self._unsent = True
        except errors.AMQPError as error:
            _logger.info("receiver %r: delivery %r is not given back: %s", self.name, message.delivery_no, error)

    # outcomes

    @whole
    def _settle_message(self, message_number: int, response: errors.MessageResponse) -> None:
        """Send the outcome of a delivery: now, or from inside `on_message_received` together with others. Raises LinkGone also
        when the transport turns out to be gone as it is sent."""
        conn = self._conn
        nested = self._turn_of == get_ident()
        if perf_counter() - conn._looked_at > LOOK_SELDOM:  # asked here, as it is per message
            conn._look_first()
        self._settle(message_number, message_number, outcome(response))
        if nested:
            self._unsent = True
            return
        self._flush()
        if conn._broken is not None:
            self._raise_gone(None)

    def _settle(self, first: int, last: int, state: bytes) -> None:
        """The outcome of deliveries first..last, not flushed yet. Raises LinkGone, and MessageAlreadySettled when the peer
        has settled them by itself."""
        conn = self._conn
        gone = True
        cause: Exception | None = None
        with conn._io:
            if not (conn._done or conn._closed) and self._latest is MessageReceiverState.Open:
                try:
                    self._session._engine.settle(self._id, first, last, True, state)
                    return
                except StateError as error:
                    cause = error
                try:
                    gone = self._session._engine.link(self._id).state != _ATTACHED
                except StateError as error:
                    cause = error
        if not gone:
            with self._session._lock:
                self._session._dispatch()  # the record that says so may be waiting there
            if first in self._taken:
                raise errors.MessageTakenBack(self._taken.pop(first)) from cause
            raise errors.MessageAlreadySettled from cause
        self._raise_gone(cause)

    def _raise_gone(self, cause: Exception | None) -> NoReturn:
        with self._session._lock:
            self._session._dispatch()  # the record that says why may be waiting there
        raise LinkGone("the message cannot be settled: its link is closed or broken") from self._broken() or cause

    def _settle_all(self, numbers: Iterable[int], state: bytes) -> None:
        """The same for any deliveries, as far as they are open."""
        for first, last in ranges(numbers):
            try:
                self._settle(first, last, state)
                self._unsent = True
            except errors.AMQPError as error:
                _logger.debug("receiver %r: %d to %d not settled: %s", self.name, first, last, error)

    def _tidy(self, unread: int, waiting: int) -> None:
        """After messages were handed out, of which `unread` have not been read yet: what is owed for them. `waiting`: how many of
        them stand in the way of new credit."""
        if len(self._due) > unread and not self._turn_of:  # who hands out tidies up after it
            with self._session._lock:
                if self._client is not None:
                    # others may have handed out meanwhile
                    unread = len(self._client._received_messages) + len(self._again)
                pop = self._due.popleft
                self._settle_all([pop() for _ in range(len(self._due) - unread)], ACCEPTED)
        if self._credit < self._granted:
            self._top_up(waiting)
        if self._unsent:
            self._flush()

    # the end

    def _left(self) -> None:
        self._settler = None  # it holds us; messages that want it have it

    def _leave(self) -> None:
        """Unread messages go back to the peer before the link is detached."""
        unread = [message.delivery_no for message in self._again if not message.settled or self._due]
        unread += [record.delivery_id for record in self._arrived if not record.settled]
        self._arrived.clear()
        self._again.clear()
        if self._latest is not MessageReceiverState.Open:
            return
        if self._client is not None:
            unread = self._client._unread(self) + unread
        kept = set(unread)
        self._settle_all([number for number in self._due if number not in kept], ACCEPTED)
        self._settle_all(unread, RELEASED)
        self._due.clear()
