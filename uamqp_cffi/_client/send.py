"""`SendClient`: the queue, handing it over to the link in runs, and what became of each message."""

from __future__ import annotations

import functools
import itertools
import logging
import ssl
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Any

from .. import address, constants, errors, sender
from .._arguments import are_mappings, are_numbers, sendable
from .._core import time
from .._core.engine.lib import SizeError, track
from .._core.waiting import plan as plans
from .._core.waiting.callbacks import Calls
from .._core.waiting.interrupts import enter, leave, openly, whole
from .._core.waiting.plan import Call, Plan
from .._session import outcomes
from .._session.link import Capabilities
from .._session.unsettled import LOST_OUTCOMES, NOTHING, SENT_OUTCOMES
from .._typing import Nothing, Unpack
from ..authentication.common import AMQPAuth
from ..connection import CONNECT_TIMEOUT
from ..constants import Delivery, MessageSenderState, MessageSendResult, MessageState, TransportType
from ..message import Loss, Message
from ..session import OnAttach
from .attached import _LinkClient

_logger = logging.getLogger("uamqp.client")

_WAITING = MessageState.WaitingToBeSent
_SENT = MessageState.WaitingForSendAck
_COMPLETE = MessageState.SendComplete
_FAILED = MessageState.SendFailed
_NOT_DELIVERED = 0x02
_LONG_QUEUE = 16384
_ASIDE = 512  # messages taken from the collector at once
_NEVER_ASIDE = 1 << 62
_AT_ONCE = 1.0  # seconds to wait for an outcome without a plan
_POLICY_FAILED = "the error policy failed: the message is not sent again"


class SendClient(_LinkClient):
    """Sends messages to one address and tells what became of each.

    Args: see `AMQPClient`, and
        target: where to, a URL or a `Target`.
        msg_timeout: ms from queueing a message to its outcome; 0: no limit while the peer lives.
        max_message_size: bytes, announced to the peer when given; what is sent is bounded by the peer's only.
        link_properties: dict, sent with the link's ATTACH.
        link_credit: accepted, without effect.

    One client may be used by several threads. Callbacks run only inside its calls, and in the thread of `keep_alive_interval`.
    """

    sender_type: type[sender.MessageSender] = sender.MessageSender

    _open_state = MessageSenderState.Open

    def __init__(
        self,
        target: str | bytes | address.Target,
        auth: AMQPAuth | None = None,
        client_name: str | bytes | None = None,
        debug: bool = False,
        msg_timeout: int = 0,
        error_policy: errors.ErrorPolicy | None = None,
        keep_alive_interval: float | None = None,
        *,
        link_properties: dict[Any, Any] | None = None,
        max_message_size: int | None = None,
        link_credit: int | None = None,
        encoding: str = "UTF-8",
        transport_type: TransportType = TransportType.Amqp,
        http_proxy: dict[str, Any] | None = None,
        max_frame_size: int | None = None,
        channel_max: int | None = None,
        idle_timeout: int | None = None,
        properties: dict[Any, Any] | None = None,
        remote_idle_timeout_empty_frame_send_ratio: float | None = None,
        incoming_window: int | None = None,
        outgoing_window: int | None = None,
        handle_max: int | None = None,
        on_attach: OnAttach | None = None,
        send_settle_mode: constants.SenderSettleMode | None = None,
        receive_settle_mode: constants.ReceiverSettleMode | None = None,
        desired_capabilities: Capabilities | None = None,
        use_tls: bool | None = None,
        address: str | bytes | None = None,
        sasl: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        **kwargs: Unpack[Nothing],
    ) -> None:
        are_numbers(msg_timeout=msg_timeout, max_message_size=max_message_size, link_credit=link_credit)
        are_mappings(link_properties=link_properties)
        self._msg_timeout = msg_timeout
        self._max_message_size = max_message_size or constants.MAX_MESSAGE_LENGTH_BYTES
        self._max_message_size_chosen = bool(max_message_size)
        self._link_properties = link_properties
        self._link_credit = link_credit
        super().__init__(
            target,
            auth=auth,
            client_name=client_name,
            debug=debug,
            error_policy=error_policy,
            keep_alive_interval=keep_alive_interval,
            encoding=encoding,
            transport_type=transport_type,
            http_proxy=http_proxy,
            max_frame_size=max_frame_size,
            channel_max=channel_max,
            idle_timeout=idle_timeout,
            properties=properties,
            remote_idle_timeout_empty_frame_send_ratio=remote_idle_timeout_empty_frame_send_ratio,
            incoming_window=incoming_window,
            outgoing_window=outgoing_window,
            handle_max=handle_max,
            on_attach=on_attach,
            send_settle_mode=send_settle_mode,
            receive_settle_mode=receive_settle_mode,
            desired_capabilities=desired_capabilities,
            use_tls=use_tls,
            address=address,
            sasl=sasl,
            ssl_context=ssl_context,
            connect_timeout=connect_timeout,
            **kwargs,
        )
        self._queue: list[Message] = []
        self._aside_at = _LONG_QUEUE  # length of the queue at which to take its latest messages from the collector
        self._aside = False  # some were taken
        self._head = 0  # messages of the queue before it were handed over
        self._left = 0  # messages of the queue that the last step left there
        self._dead = 0  # messages of the queue from _head on that have failed where they stood
        self._again: deque[Message] = deque()  # messages to be sent again, before the queue
        self._again_from = 0.0  # when, by time.monotonic: a back-off
        self._again_refused = False  # the link took none of them when they were due: a record tells when to try again
        self._out = 0  # messages handed over that have no outcome
        self._moving: list[Message] = NOTHING  # the run that is being handed over
        self._unflushed = False  # something was handed over and not sent off; an interrupt may come between
        self._handed: dict[int, Message] = {}  # those of them that went by an overridden MessageSender.send
        self._timed: list[tuple[float, int, Message]] = []  # heap of deadlines
        self._timing: deque[tuple[float, int, Message]] = deque()  # on their way into it
        self._tickets = itertools.count()
        self._calls = Calls()  # on_send_complete
        self._uncalled: set[int] = set()  # ids of messages whose callback is to run, or runs
        self._lost: Delivery | None = None  # worst fate of what came back
        self._loss: Loss | None = None  # what it came back for
        self._waiters: dict[int, tuple[plans.Inbox, ...]] = {}  # who waits for a message, by its id
        self._emptied: set[plans.Inbox] = set()  # who waits until nothing is pending

    # ---- queueing -------------------------------------------------------------------------------------------------

    def queue_message(self, *messages: Message) -> None:
        """Put messages, or batches, at the end of the queue. Any thread, open or not; sends nothing. Raises what `gather()`
        raises: TypeError for received messages, `MessageAlreadySettled` for one that was sent before."""
        for message in messages:
            if type(message) is Message and message._state is _WAITING and not self._msg_timeout:
                queue = self._queue
                queue.append(message)
                if len(queue) >= self._aside_at:
                    self._set_aside(queue)
            else:
                self._enqueue(sendable("queue_message", message)())

    def _set_aside(self, queue: list[Message]) -> None:
        """The queue is long: take its latest messages from the collector, which would else walk all of them over and over
        and make the millionth cost more than the first. Only messages that refer to nothing but their bytes, and only
        until they are handed over."""
        end = len(queue)
        plain = [m for m in queue[self._aside_at - _ASIDE : end] if m._raw is not None and m.on_send_complete is None]
        self._aside_at = end + _ASIDE if track(plain, False) else _NEVER_ASIDE
        self._aside = True

    def _enqueue(self, gathered: Iterable[Message]) -> list[Message]:
        parts = list(gathered)  # all or, when one cannot be made, none
        timeout = self._msg_timeout
        for message in parts:
            message._state = _WAITING
            if (
                type(message) is not Message
                and type(message).encode_message is not _ENCODE
                and message._raw is not None
            ):
                message._expand()  # so that its own encoding is asked for
            if timeout > 0:
                now = time.monotonic()
                message.idle_time = now * 1000
                self._timing.append((now + timeout / 1000, next(self._tickets), message))
            self._queue.append(message)
        return parts

    @property
    def pending_messages(self) -> list[Message]:
        """The messages that have no outcome yet, sent ones first."""
        return [message for message in self._pending() if message._state in constants.PENDING_STATES]

    @property
    def _pending_messages(self) -> list[Message]:
        return self.pending_messages

    @_pending_messages.setter
    def _pending_messages(self, messages: Iterable[Message]) -> None:
        with self._books():
            self._queue = list(messages)
            self._head = self._dead = 0
            self._again.clear()

    @property
    def _message_sender(self) -> Any:
        return self.message_handler

    def _pending(self) -> list[Message]:
        with self._books():
            waiting = self._queue[self._head :]
            if not (self._out or self._again):
                return waiting
            runs = getattr(self.message_handler, "_runs", ()) if self._out else ()
            out = [message for message in runs if isinstance(message, Message)]
            return [*out, *self._handed.values(), *self._again, *waiting]

    def _books(self) -> threading.RLock:
        """The lock over what is pending: the session's, since it is there that outcomes come in."""
        session = self._session
        return self._lock if session is None else session._lock

    def _repr_counts(self) -> list[str]:
        waiting = len(self._queue) - self._head - self._dead + len(self._again)
        return [f"{waiting} waiting", f"{self._out} without outcome"]

    def messages_pending(self) -> bool:
        """Whether any message has no outcome yet."""
        return self._out > 0 or bool(self._again) or len(self._queue) - self._head > self._dead

    def _make_handler(self, session: Any) -> Any:
        return self.sender_type(
            session,
            self._name,
            self._target,
            name=f"sender-link-{uuid.uuid4()}",
            debug=self._debug_trace,
            send_settle_mode=self._send_settle_mode,
            receive_settle_mode=self._receive_settle_mode,
            max_message_size=self._max_message_size,
            link_credit=self._link_credit,
            properties=self._link_properties,
            error_policy=self._error_policy,
            encoding=self._encoding,
            desired_capabilities=self._desired_capabilities,
        )

    def _over(self) -> None:
        self._give_up()

    def _told(self, error: BaseException) -> None:
        loss = self._loss
        if loss is None:
            return
        loss.error = error
        if loss.unknown and error.args and isinstance(error, (errors.LinkDetach, errors.SessionEnd)):
            error.args = (f"{error} ({loss.candidates()})",)

    def _missing(self) -> str:
        if not self._attached:
            return super()._missing()
        handler = self.message_handler
        waits = []
        unsent = len(self._queue) - self._head - self._dead + len(self._again)
        if unsent and handler is not None:
            if self._again and not self._unsent():
                lack = "the back-off of the error policy"
            elif handler._credit <= 0:
                lack = "credit of the peer's"
            elif self._connection is not None and self._connection._blocked:
                lack = "the peer to read"
            else:
                lack = "the session's window to open"
            waits.append(f"{lack} to send {unsent} message{'s' * (unsent != 1)}")
        if self._out:
            waits.append(f"the outcome of {self._out} message{'s' * (self._out != 1)}")
        return " and for ".join(waits)

    def _fate(self) -> Delivery | None:
        return self._lost or (Delivery.NOT_DELIVERED if self.messages_pending() else None)

    # ---- outcomes: called by the link, under the session's lock -------------------------------------------------------

    def _settled(self, messages: list[Message], outcome: int, state: bytes) -> None:
        """What became of messages of ours."""
        self._out -= len(messages)
        if outcome in SENT_OUTCOMES:
            for message in messages:
                message._state = _COMPLETE
            if self._waiters:
                for message in messages:
                    if message.on_send_complete is None:
                        self._wake_waiters(message)
            for message in [m for m in messages if m.on_send_complete is not None]:
                self._call_back(message, MessageSendResult.Ok, None)
        elif outcome in LOST_OUTCOMES:
            self._come_back(messages, Delivery.NOT_DELIVERED if outcome == _NOT_DELIVERED else Delivery.UNKNOWN)
        else:
            condition, description, info = outcomes.rejection(outcome, state)
            for message in messages:
                self._refused(message, condition, description, info, sender.OUTCOMES.get(outcome))

    def _come_back(self, messages: Iterable[Message], fate: Delivery) -> None:
        """The link went away under them: they wait to be sent again, which is up to the user."""
        loss = self._loss = self._loss or Loss()
        for message in messages:
            message._state = _WAITING
            message.retries += 1
            message._loss = loss
            if fate is Delivery.UNKNOWN:
                loss.unknown += 1
            if fate is not Delivery.NOT_DELIVERED:  # which is what a waiting message says of itself
                message.delivery = fate
            self._again.append(message)
        if self._lost is not Delivery.UNKNOWN:
            self._lost = fate

    def _give_up(self) -> None:
        """Nothing more will come for what is out. There is some only when an interrupt swallowed what came."""
        handler, session = self.message_handler, self._session
        if handler is None or session is None:
            return
        with session._lock:
            handler._forget()

    def _recover(self, moving: list[Message]) -> None:
        """Ctrl-C tore the bookkeeping apart, and the link was given up: everything without an outcome waits, once. Under the
        session's lock. `moving`: messages that may be nowhere else."""
        old, count = self._queue, len(self._queue)
        known = [*moving, *self._moving, *self._handed.values(), *self._again, *old[:count]]
        once = {id(message): message for message in known if message._state is _WAITING or message._state is _SENT}
        maybe = {id(message) for message in [*moving, *self._moving]}
        loss = self._loss = self._loss or Loss()
        for key, message in once.items():
            if message._state is _SENT or key in maybe:
                message._state = _WAITING
                message.delivery = Delivery.UNKNOWN
                message._loss = loss
        self._again = deque(once.values())
        self._head = self._dead = 0
        del old[:count]
        self._handed.clear()
        self._moving = NOTHING
        self._out = 0
        self._lost = Delivery.UNKNOWN

    def _refused(
        self,
        message: Message,
        condition: Any,
        description: Any,
        info: Any,
        outcome: constants.DeliveryOutcome | None = None,
    ) -> None:
        policy = self._error_policy
        error = errors.process_message_error(policy, condition, description, info)
        error.outcome = outcome
        action = error.action
        again, backoff = False, 0.0
        try:
            if action is not None and action.retry and message.retries < policy.max_retries:
                again, backoff = True, action.backoff or 0.0
            due = time.monotonic() + backoff
        except Exception:
            _logger.exception(_POLICY_FAILED)
            error.action, error.retryable = errors.ErrorAction(retry=False), False
            again = False
        if not again:
            self._finish(message, MessageSendResult.Error, error)
            return
        if getattr(action, "increment_retries", True):
            message.retries += 1
        message._state = _WAITING
        self._again.append(message)
        if backoff:
            self._backoff = backoff
            self._again_from = max(self._again_from, due)

    def _unsendable(self, message: Message, cause: Exception) -> None:
        """It cannot be encoded, and trying again would not help, so the tries the policy grants count as made."""
        error = errors.ClientMessageError(cause)
        error.delivery = Delivery.NOT_DELIVERED
        error.__cause__ = cause
        policy = self._error_policy
        try:
            action = policy.on_message_error(error)
            if action is not None and action.retry and action.increment_retries:
                message.retries = max(message.retries, policy.max_retries)
        except Exception:
            _logger.exception(_POLICY_FAILED)
            action = errors.ErrorAction(retry=False)
        error.action, error.retryable = action, False
        self._finish(message, MessageSendResult.Error, error)

    def _finish(self, message: Message, result: MessageSendResult, error: BaseException) -> None:
        message._state = _FAILED
        message._response = error
        if message.on_send_complete is not None:
            self._call_back(message, result, error)
        else:
            self._wake_waiters(message)

    def _call_back(self, message: Message, result: MessageSendResult, error: BaseException | None) -> None:
        self._uncalled.add(id(message))
        self._calls.add(self._tell, message, result, error)

    def _tell(self, message: Message, result: MessageSendResult, error: BaseException | None) -> None:
        try:
            callback = message.on_send_complete
            if callback is not None:
                openly(callback, result, error)
        finally:
            self._uncalled.discard(id(message))
            self._wake_waiters(message)
            if self._emptied:
                self._wake_emptied()
            if self._session is not None:
                self._session._inbox.poke()  # who leads may wait for just this

    # ---- who waits ------------------------------------------------------------------------------------------------

    def _awaits(self, mine: plans.Inbox, what: Message | None) -> None:
        """Who follows on `mine` is to be woken when that message is done; None: when nothing is pending."""
        with self._books():
            if what is None:
                self._emptied.add(mine)
            elif mine not in (known := self._waiters.get(id(what), ())):
                self._waiters[id(what)] = (*known, mine)

    def _awaits_no_more(self, mine: plans.Inbox) -> None:
        if self._emptied:
            self._emptied.discard(mine)

    def _unwatch(self, message: Message) -> None:
        """A call for that message ends. If others wait for it, they look around, and say so again."""
        if self._waiters:
            with self._books():
                self._wake_waiters(message)

    def _wake_waiters(self, message: Message) -> None:
        for inbox in self._waiters.pop(id(message), ()):
            inbox.poke()

    def _wake_emptied(self) -> None:
        """Wake who waits until nothing is pending, if nothing is."""
        if self._nothing_pending():
            with self._books():
                waiting, self._emptied = self._emptied, set()
            for inbox in waiting:
                inbox.poke()

    @whole
    def _on_message_sent(self, message: Message, result: int, delivery_state: Any = None) -> None:
        """The callback for a `MessageSender.send` that somebody overrode."""
        with self._books():
            if self._handed.pop(id(message), None) is None:
                return
            self._out -= 1
            kind = MessageSendResult(getattr(result, "value", result))
            if kind is MessageSendResult.Ok:
                message._state = _COMPLETE
                if message.on_send_complete is not None:
                    self._call_back(message, kind, None)
                else:
                    self._wake_waiters(message)
            elif kind is MessageSendResult.Timeout:
                self._finish(message, kind, self._timed_out(Delivery.UNKNOWN, "its outcome"))
            elif not delivery_state:
                self._come_back([message], message.delivery or Delivery.UNKNOWN)
            else:
                parts = errors.ErrorResponse(delivery_state)
                self._refused(message, parts.condition, parts.description, parts.info)

    # ---- handing over: under the session's lock -----------------------------------------------------------------------

    def _offer(self, handler: Any) -> bool:
        """Hand over what the link takes. True when it took, or failed, anything."""
        moved = self._again_refused = False
        while handler._ready:
            limit = min(handler._credit, handler._run_length)
            again = bool(self._again) and time.monotonic() >= self._again_from
            run = list(itertools.islice(self._again, limit)) if again else self._next_run(limit)
            if not run:
                break
            gone = self._hand_over(handler, run, again)
            if not gone:
                self._again_refused = again
                break
            moved = True
            if len(self._queue) == self._head and not self._again:
                break
        if handler._draining:
            handler._offered(self._nothing_to_offer())
        return moved

    def _nothing_to_offer(self) -> bool:
        return not self._again and len(self._queue) - self._head <= self._dead

    def _next_run(self, limit: int) -> list[Message]:
        if self._dead:
            self._pass_by()
        run = self._queue[self._head : self._head + limit]
        if self._dead:
            for at, message in enumerate(run):
                if message._state is not _WAITING:
                    return run[:at]
        return run

    def _pass_by(self) -> None:
        """Messages at the head of the queue that have failed there are done with."""
        queue, at = self._queue, self._head
        while self._dead and at < len(queue) and queue[at]._state is not _WAITING:
            at += 1
            self._dead -= 1
        if at > self._head:
            self._drop(at - self._head, False)

    def _hand_over(self, handler: Any, run: list[Message], again: bool) -> int:
        """Hand over the first messages of `run`. Gives how many are gone from where they waited."""
        self._moving = run
        self._unflushed = True
        try:
            gone: int = handler._take(run, self)
            if gone:
                if self._aside:
                    track(run, True)
                self._out += gone
                self._drop(gone, again)
                for message in run if gone == len(run) else run[:gone]:
                    message._state = _SENT
            self._moving = NOTHING
            return gone
        except SizeError:
            limit = handler._link.peer_max_message_size
            error = errors.MessageSizeExceeded(len(run[0].encode_message()), limit)
            self._finish(run[0], MessageSendResult.Error, error)
            self._drop(1, again)
        except sender.Unsendable as problem:
            self._unsendable(run[0], problem.cause)
            self._drop(1, again)
        self._moving = NOTHING
        return 1

    def _drop(self, count: int, again: bool) -> None:
        """The next `count` messages wait no more."""
        if again:
            for _ in range(count):
                self._again.popleft()
            return
        head = self._head + count
        if head * 2 >= len(self._queue):  # others append meanwhile, so never clear()
            self._head = 0  # first: who looks without the lock may see too many, never too few
            del self._queue[:head]
            self._aside_at = max(_LONG_QUEUE, len(self._queue) + _ASIDE)
            self._aside = bool(self._queue)
        else:
            self._head = head

    def _offer_by_send(self, handler: Any) -> bool:
        """The same by `handler.send`, which somebody overrode: message by message, outside the lock."""
        moved = self._again_refused = False
        while handler.get_state() is MessageSenderState.Open and getattr(handler, "_credit", 1) > len(
            getattr(handler, "_waiting", ())
        ):
            with self._books():
                again = bool(self._again) and time.monotonic() >= self._again_from
                run = list(itertools.islice(self._again, 1)) if again else self._next_run(1)
                if not run:
                    break
                message = run[0]
                self._drop(1, again)
                message._state = _SENT
                self._handed[id(message)] = message
                self._out += 1
            if not self._send_by_handler(handler, message):
                break
            moved = True
        return moved

    def _hands_runs(self, handler: Any) -> bool:
        """Whether nobody has overridden how a message is handed over, so that many may be at once."""
        return type(handler).send is _BASE_SEND and "send" not in handler.__dict__

    def _send_by_handler(self, handler: Any, message: Message) -> bool:
        try:
            sent = handler.send(message, self._on_message_sent, timeout=self._time_left(message))
        except Exception as error:
            self._not_handed_over(message, error)
            return True
        if not sent:
            self._taken_back(message)
        return bool(sent)

    def _time_left(self, message: Message) -> int:
        """Of msg_timeout, in ms; 0 for no limit."""
        timeout = self._msg_timeout
        if timeout > 0 and message.idle_time:
            timeout = max(1, int(timeout + message.idle_time - time.monotonic() * 1000))
        return timeout

    def _not_handed_over(self, message: Message, error: Exception) -> None:
        """An overridden `MessageSender.send` raised."""
        with self._books():
            if self._handed.pop(id(message), None) is not None:
                self._out -= 1
                self._unsendable(message, error)

    def _taken_back(self, message: Message) -> None:
        """An overridden `MessageSender.send` did not take it."""
        with self._books():
            if self._handed.pop(id(message), None) is not None:
                self._out -= 1
                message._state = _WAITING
                self._again.appendleft(message)

    # ---- time-outs: under the session's lock --------------------------------------------------------------------------

    def _expire(self) -> None:
        """Fail what is past its time; looks from the oldest deadline on."""
        timed = self._timed
        while self._timing:
            heappush(timed, self._timing.popleft())
        now = time.monotonic()
        while timed:
            deadline, _, message = timed[0]
            pending = message._state is _WAITING or message._state is _SENT
            if pending and deadline > now:
                return
            heappop(timed)
            if pending:
                self._time_out(message)

    def _time_out(self, message: Message, limit: str = "") -> None:
        """`limit`: which one has passed; msg_timeout if it does not say."""
        if id(message) in self._handed:
            return  # its sender sees to it
        missing = self._missing() or "the peer"
        fate = Delivery.NOT_DELIVERED
        if message._state is _SENT:
            missing = "its outcome"
            fate = Delivery.UNKNOWN
            handler = self.message_handler
            # closed by another thread, or its outcome came just now?
            if handler is None or not handler._abandon(message):
                return
            self._out -= 1
        else:
            fate = message.delivery or fate  # it may have been out before
            try:
                self._again.remove(message)
            except ValueError:
                self._dead += 1
        self._finish(message, MessageSendResult.Timeout, self._timed_out(fate, missing, limit))

    def _timed_out(self, fate: Delivery, missing: str, limit: str = "") -> errors.MessageTimeout:
        limit = limit or f"msg_timeout of {self._msg_timeout} ms"
        error = errors.MessageTimeout(f"no outcome within {limit}; {fate.value}; waited for {missing}")
        error.delivery = fate
        return error

    def _next_deadline(self) -> float | None:
        """When to look again although nothing came."""
        deadline = self._timed[0][0] if self._timed else None
        handler = self.message_handler
        if handler is not None and handler._timed:
            first: float = handler._timed[0][0]
            deadline = first if deadline is None else min(deadline, first)
        if self._again and handler is not None and handler._credit > 0 and not self._again_refused:
            deadline = self._again_from if deadline is None else min(deadline, self._again_from)
        return deadline

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _client_run_plan(self) -> Plan[bool]:
        fresh = len(self._queue) - self._head > self._left
        connection = self._connection
        if connection is not None and self._unsent():
            yield from connection._look_first_plan()
        moved, _ = self._pump()
        self._raise_broken()
        self._left = len(self._queue) - self._head
        connection = self._connection
        if connection is not None and not (moved and connection._looked_lately()):
            yield from connection._paced_plan(moved or fresh)
            self._take_in()
            if not self._shutdown:
                self._raise_broken()
        return not self._shutdown

    def _take_in(self) -> None:
        """Hand out the records that have come, and call back."""
        session = self._session
        if session is None:
            return
        if session._inbox.records:
            with session._lock:
                session._dispatch()
        self._run_calls(session)

    def _run_calls(self, session: Any) -> None:
        if session._calls:
            session._calls.run()
        handler = self.message_handler
        if handler is not None and handler._calls:
            handler._calls.run()
        if self._calls:
            self._calls.run()

    def _pump(self) -> tuple[bool, bool]:
        """Take in what has come, hand over what can be, call back. Gives whether anything was handed over, and whether
        more could be right away."""
        session = self._session
        handler = self.message_handler
        if session is None or handler is None:
            return False, False
        moved = more = False
        own = self._hands_runs(handler)
        with session._lock:
            try:
                if session._inbox.records:
                    session._dispatch()
                if self._timed or self._timing:
                    self._expire()
                permitted = self._permitted()
                self._again_refused = self._again_refused or not permitted
                if own and permitted and (len(self._queue) > self._head or self._again or handler._draining):
                    moved = self._offer(handler)
            except BaseException:
                handler._torn()
                raise
        if not own or handler._waiting or handler._timed:
            moved = self._offer_by_send(handler) if not own and permitted else moved
            handler._offer_waiting()
        if moved or self._unflushed:
            more = self._send_off(session, handler, moved)
        if self._calls:
            self._calls.run()
        if session._calls or handler._calls:
            self._run_calls(session)
        if self._emptied:
            self._wake_emptied()
        return moved, more

    def _permitted(self) -> bool:
        """Whether anything may be handed over: with tokens only while there is a valid one."""
        connection = self._connection
        return connection is None or connection._cbs is None or connection._cbs.valid

    def _send_off(self, session: Any, handler: Any, moved: bool) -> bool:
        """Messages were handed over, or (not `moved`) the link took none: off with what there is. True when more could be
        handed over at once: not if the session's window is shut, of whose opening a record tells."""
        connection = session._connection
        before = connection._left
        clean = connection._flush()
        self._unflushed = False
        if not (self._unsent() and handler._ready):
            return False
        if not clean:  # full: somebody tells us when there is room again
            connection._when_drained(session._inbox)
            connection._flush()
        return bool(clean) and (moved or connection._left != before)

    def _unsent(self) -> bool:
        if len(self._queue) - self._head > self._dead:
            return True
        return bool(self._again) and time.monotonic() >= self._again_from

    def _called(self, message: Message) -> bool:
        """Whether the message is done, callback and all. Inside a callback nothing waits for further ones."""
        if message._state is not _COMPLETE and message._state is not _FAILED:
            return False
        return not self._uncalled or id(message) not in self._uncalled or self._calls.nested

    def _nothing_pending(self) -> bool:
        return not self.messages_pending() and (not self._uncalled or self._calls.nested)

    # ---- sending --------------------------------------------------------------------------------------------------

    def send_message(self, messages: Message, close_on_done: bool = False, *, timeout: float | None = None) -> None:
        """Send a message or batch and wait until all its parts have their outcome; what is queued goes along.

        `timeout`: seconds until `MessageTimeout`, a TimeoutError, is raised, whose text says what was missing (link, credit, session
        window, outcome); None or 0: no limit while the peer lives, with a warning in the log after 10 s and every minute from
        then on. What has timed out is not sent any more; what had left by then is `Delivery.UNKNOWN`.

        Raises `ClientMessageError` when a part failed (`info` tells which), and the error of connection, session or link
        when it broke: `exc.delivery` then says what is known, and the message is in `pending_messages` again. A message
        larger than the peer takes raises an error that is also a `MessageSendFailed` and a `MessageContentTooLarge`."""
        session = self._session
        queued = not close_on_done and not timeout and self._send_at_once(messages)
        if not queued or messages._state is not _COMPLETE or self._uncalled or self._shutdown:
            self._run(self._send_message_plan(messages, close_on_done, timeout, session if queued else None))

    def _send_at_once(self, message: Any) -> bool:
        """The everyday case without the cost of a plan: a message alone on an idle link, up to its outcome if that is the
        next thing to come. True when the message was queued; what is left to do, and to raise, is the plan's then."""
        session, connection = self._session, self._connection
        if (
            session is None
            or connection is None
            or type(message) is not Message
            or message._state is not _WAITING
            or self._msg_timeout
            or self._out
            or self._again
            or self._timed
            or self._timing
            or not self._attached
            or connection._cbs is not None
            or session._inbox.led
            or self._stepwise()
        ):
            return False
        token = enter()
        try:
            connection._look_first()
            mine = session._enter()
            try:
                self._queue.append(message)
                self._pump()
                if message._state is _SENT and mine is session._inbox:
                    connection._wait(mine, time.monotonic() + _AT_ONCE)
                    self._pump()
            except errors.AMQPError as error:
                _logger.debug("left to the plan: %s", error)
            finally:
                session._leave(mine)
        finally:
            leave(token)
        return True

    def _send_message_plan(
        self, messages: Any, close_on_done: bool, timeout: float | None, queued: Any = None
    ) -> Plan[None]:
        """`queued`: the session that there was when the message was queued, if it was."""
        deadline = _deadline(timeout)
        if self._session is None:
            sendable("send_message", messages)
            yield from self._opened_plan()
        parts = yield from self._send_plan(messages, queued, deadline)
        if deadline is not None:
            self._expire_parts(parts, f"timeout of {timeout} s")
        if close_on_done or self._shutdown:
            yield Call(self._method(self, "close"))
        self._raise_failed(parts)

    def _expire_parts(self, parts: list[Message], limit: str) -> None:
        """The time of a call is up: what it waits for still is not waited for any more. Raises MessageTimeout if that is
        anything."""
        late = [message for message in parts if message._state is _WAITING or message._state is _SENT]
        with self._books():
            for message in late:
                if message._state is _WAITING or message._state is _SENT:
                    self._time_out(message, limit)
        self._calls.run()
        expired = [m.error for m in late if isinstance(m.error, errors.MessageTimeout)]
        if expired:
            unknown = [error for error in expired if error.delivery is Delivery.UNKNOWN]
            # the message keeps its own, which this would tie to the call's frames
            raise errors.afresh((unknown or expired)[0])
        if any(id(message) in self._handed for message in late):  # an overridden send() has it, and is yet to tell
            raise self._timed_out(Delivery.UNKNOWN, "its outcome", limit)

    def _send_plan(self, messages: Any, queued: Any, deadline: float | None) -> Plan[list[Message]]:
        session = self._session if queued is None else queued
        if queued is not None:
            parts = [messages]
        elif type(messages) is Message and messages._state is _WAITING and not self._msg_timeout:
            self._queue.append(messages)
            parts = [messages]
        else:
            parts = self._enqueue(sendable("send_message", messages)())
        if len(parts) == 1:
            message = parts[0]
            try:
                one = functools.partial(self._called, message)
                yield from self._work_plan(_or_late(one, deadline), deadline, lambda: message, session)
            finally:
                self._unwatch(message)
            return parts
        left = parts[::-1]

        def done() -> bool:
            while left and self._called(left[-1]):
                left.pop()
            return not left

        try:
            yield from self._work_plan(
                _or_late(done, deadline), deadline, lambda: parts[-1] if done() else left[-1], session
            )
        finally:
            for message in left[-1:]:
                self._unwatch(message)
        return parts

    def _raise_failed(self, parts: list[Message]) -> None:
        failed = [message for message in parts if message._state is not _COMPLETE]
        if not failed:
            return
        last = failed[-1]
        if last._state is not _FAILED:
            raise self._closed_error()
        cause = last._response
        info = {
            "total_messages": len(parts),
            "number_failed": len(failed),
            "failed_messages": {message: message._response for message in failed},
        }
        if isinstance(cause, errors.MessageSizeExceeded):
            raise _TooLarge(cause, info) from cause
        raise errors.ClientMessageError(cause, info=info) from cause

    def send_all_messages(self, close_on_done: bool = True, *, timeout: float | None = None) -> list[MessageState]:
        """Send everything that is queued, wait for the outcomes, and, with `close_on_done`, close the client: pass False to go
        on with it. Gives the state of each message, in the order of the queue. Raises the error of connection, session or
        link when it broke, and ValueError for a client that is closed; messages without outcome are then in `pending_messages`.

        `timeout`: seconds until `MessageTimeout`, a TimeoutError, is raised, whose text says what was missing; what has no outcome
        by then stays pending, and the client open. None or 0: as for `send_message`."""
        return self._run(self._send_all_plan(close_on_done, timeout))

    def _send_all_plan(self, close_on_done: bool, timeout: float | None) -> Plan[list[MessageState]]:
        deadline = _deadline(timeout)
        yield from self._opened_plan()
        messages = self._pending()
        if self._dead:
            messages = [message for message in messages if message._state in constants.PENDING_STATES]
        yield from self._drain_plan(deadline, timeout)
        states = [message._state for message in messages]
        if close_on_done and not self._shutdown:
            self._closed_by = " by send_all_messages(), which does that unless close_on_done=False"
        if close_on_done or self._shutdown:
            yield Call(self._method(self, "close"))
        return states

    def _drain_plan(self, deadline: float | None, timeout: float | None) -> Plan[None]:
        """Until nothing is pending. Raises MessageTimeout at the deadline."""
        yield from self._work_plan(_or_late(self._nothing_pending, deadline), deadline, _nothing)
        if deadline is None or self._shutdown or self._nothing_pending():
            return
        fate = Delivery.UNKNOWN if self._out else Delivery.NOT_DELIVERED
        error = errors.MessageTimeout(
            f"messages without an outcome after {timeout} s, which are in pending_messages; waited for {self._missing() or 'callbacks'}"
        )
        error.delivery = fate
        raise error

    def wait(self, *, timeout: float | None = None) -> bool:
        """Send everything that is queued and wait for the outcomes. False when the client was closed meanwhile. `timeout`: as for
        `send_all_messages`."""
        return self._run(self._wait_plan(timeout))

    def _wait_plan(self, timeout: float | None = None) -> Plan[bool]:
        deadline = _deadline(timeout)
        if self._shutdown:
            return False
        self._opened()
        try:
            yield from self._drain_plan(deadline, timeout)
        except errors.AMQPError:
            if not self._shutdown:
                raise
        return not self._shutdown

    # ---- the end --------------------------------------------------------------------------------------------------

    def _leave_block(self) -> None:
        unsent = len(self._queue) - self._head - self._dead + len(self._again)
        if unsent > 0 and not self._closed:
            _logger.warning(
                "%r: the with block ends with %d message(s) that were queued and not sent: send_all_messages() or wait() sends them; "
                "they are in pending_messages", self._name, unsent,
            )  # fmt: skip

    def close(self) -> None:
        """As `AMQPClient.close`. Messages without an outcome are in `pending_messages` afterwards, ready for another
        client."""
        super().close()

    def _close_plan(self) -> Plan[None]:
        if not self._shutdown:
            self._closer = self._me()
        session, handler = self._session, self.message_handler
        if session is not None:
            with session._lock:
                session._dispatch()
        try:
            yield from super()._close_plan()
        finally:  # also when that is interrupted or cancelled: a second close() would find nothing left to do
            if session is not None and handler is not None:
                with session._lock:
                    handler._forget()
                    self._come_back(list(self._handed.values()), Delivery.UNKNOWN)
                    self._out -= len(self._handed)
                    self._handed.clear()
                if self._loss is not None and self._loss.error is None:
                    self._loss.error = self._ending() or self._closed_error()
        self._calls.run()  # outcomes that have come are told, now that a callback cannot wait for a peer any more

    def redirect(self, redirect: errors.LinkRedirect, auth: AMQPAuth) -> None:
        """Go where a `LinkRedirect` points to, with a fresh auth object; pending messages are dropped, so send the one that
        was redirected again, as a new `Message`. Raises ValueError on a shared connection."""
        super().redirect(redirect, auth)

    def _drop_pending(self, handler: Any) -> None:
        if handler is not None:
            handler._forget()
        self._come_back(list(self._handed.values()), Delivery.UNKNOWN)
        del self._queue[:]  # the same list: others append to it meanwhile
        self._head = self._dead = self._out = 0
        self._again.clear()
        self._handed.clear()
        self._timed.clear()
        self._timing.clear()
        self._calls.clear()
        self._uncalled.clear()
        self._error = self._lost = self._loss = None
        self._attached = False


class _TooLarge(errors.ClientMessageError, errors.MessageSizeExceeded):
    """`send_message` with a message that the peer does not take."""

    def __init__(self, cause: errors.MessageSizeExceeded, info: dict[str, Any]) -> None:
        errors.MessageSizeExceeded.__init__(self, cause.size, cause.limit)
        self.info = info


def _deadline(timeout: float | None) -> float | None:
    """Of a time-out in seconds; None and 0: none."""
    return time.monotonic() + timeout if timeout else None


def _or_late(done: Callable[[], bool], deadline: float | None) -> Callable[[], bool]:
    """Whether that is so, or there is no time left for it."""
    if deadline is None:
        return done
    return lambda: done() or time.monotonic() >= deadline


def _nothing() -> None:
    """What a call waits for that waits until nothing is pending."""


_BASE_SEND = sender.MessageSender.send
_ENCODE = Message.encode_message
SendClient._own_steps = SendClient._steps()
