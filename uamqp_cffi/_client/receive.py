"""`ReceiveClient`: batches, streams and iterations over what the link brings."""

from __future__ import annotations

import logging
import ssl
import uuid
from collections.abc import Callable, Generator, Mapping
from typing import Any

from .. import address, constants, errors, receiver
from .._arguments import are_mappings, are_numbers, is_callable, wrong
from .._core import time
from .._core.engine.sections import ACCEPTED
from .._core.engine.serial import ranges, span
from .._core.waiting.interrupts import openly
from .._core.waiting.plan import Call, Plan
from .._session.link import Capabilities
from .._typing import Nothing, Unpack
from ..authentication.common import AMQPAuth
from ..connection import CONNECT_TIMEOUT, LOOK_SELDOM
from ..constants import DeliveryOutcome, MessageReceiverState, MessageState, TransportType
from ..message import Message
from ..session import OnAttach
from .attached import _LinkClient
from .receptions import _Reception
from .unread import Unread

_logger = logging.getLogger("uamqp.client")

_HOW_CALLBACK = "on_message_received=function; it is called as function(message)"
_UNSETTLED = MessageState.ReceivedUnsettled
_SETTLED = MessageState.ReceivedSettled


class ReceiveClient(_LinkClient):
    """Receives messages from one address.

    Args: see `AMQPClient`, and
        source: where from, a URL or a `Source`, with a filter if need be.
        timeout: ms without any message after which receiving stops; 0: never.
        shutdown_after_timeout: whether that shuts the client down (True) or only ends the running call.
        auto_complete: accept messages once they are handed over.
        prefetch: how many messages may be on their way or unread (300).
        receive_settle_mode: PeekLock (each message waits for its outcome) or ReceiveAndDelete.
        max_message_size: bytes of the largest message to take, at most 256 MiB, announced to the peer. 0 or not given: nothing is
            announced, and up to 64 MiB are taken. A larger one breaks the link, and stays with the peer.
        link_properties: dict, sent with the link's ATTACH.

    One client may be used by several threads; each message is given to one of them, and the callback that is called with it is
    that of the call that takes it in. Callbacks run only inside its calls, and in the thread of `keep_alive_interval`.
    When it closes, messages that nobody has read go back to the peer.
    """

    receiver_type: type[receiver.MessageReceiver] = receiver.MessageReceiver

    _address_type = address.Source
    _open_state = MessageReceiverState.Open

    def __init__(
        self,
        source: str | bytes | address.Source,
        auth: AMQPAuth | None = None,
        client_name: str | bytes | None = None,
        debug: bool = False,
        timeout: int = 0,
        auto_complete: bool = True,
        error_policy: errors.ErrorPolicy | None = None,
        *,
        keep_alive_interval: float | None = None,
        prefetch: int | None = None,
        shutdown_after_timeout: bool = True,
        link_properties: dict[Any, Any] | None = None,
        max_message_size: int | None = None,
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
        are_numbers(timeout=timeout, prefetch=prefetch, max_message_size=max_message_size)
        are_mappings(link_properties=link_properties)
        self._timeout = timeout
        self._shutdown_after_timeout = shutdown_after_timeout
        self._prefetch = prefetch or 300
        self._max_message_size = max_message_size or constants.MAX_MESSAGE_LENGTH_BYTES
        self._max_message_size_chosen = bool(max_message_size)
        self._link_properties = link_properties
        super().__init__(
            source,
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
        self._auto_complete = auto_complete
        self._iterating = 0  # iterations under way
        self._receptions: dict[int, _Reception] = {}  # receiving calls under way, the innermost by who makes it
        self._reception: _Reception | None = None  # the one that hands messages out
        self._kept: _Reception | None = None  # for keep-alive: hands out as the last call did
        self._keeping = 0  # who does so now
        self._set_up: tuple[Any, bool] = (None, False)  # callback and streaming for when it has
        self._received_messages = Unread()
        self._message_received_callback: Callable[[Message], object] | None = None
        self._streaming_receive = False
        self._was_message_received = False  # since the clock of `timeout` was last looked at
        self._timeout_reached = False
        self._last_activity_timestamp: float | None = None  # ms of time.monotonic; None: at the next look
        self._brought = False  # the last step handed messages out

    @property
    def auto_complete(self) -> bool:
        """Whether messages are accepted once they are handed over. False while an iteration is under way, which accepts
        messages itself."""
        return self._auto_complete and not self._iterating

    @auto_complete.setter
    def auto_complete(self, value: bool) -> None:
        self._auto_complete = value

    def _repr_counts(self) -> list[str]:
        return [f"{len(self._received_messages)} unread"]

    # ---- the link -------------------------------------------------------------------------------------------------

    @property
    def _message_receiver(self) -> Any:
        return self.message_handler

    def _make_handler(self, session: Any) -> Any:
        return self.receiver_type(
            session,
            self._target,
            self._name,
            on_message_received=self._on_message,
            name=f"receiver-link-{uuid.uuid4()}",
            debug=self._debug_trace,
            receive_settle_mode=self._receive_settle_mode,
            send_settle_mode=self._send_settle_mode,
            prefetch=self._prefetch,
            max_message_size=self._max_message_size,
            properties=self._link_properties,
            error_policy=self._error_policy,
            encoding=self._encoding,
            desired_capabilities=self._desired_capabilities,
        )

    def _on_message(self, message: Message) -> None:
        if type(self)._message_received is _BASE_RECEIVED and "_message_received" not in self.__dict__:
            self._message_received(message)
        else:  # the user's
            openly(self._message_received, message)

    def _message_received(self, message: Message) -> None:
        """A message came in. May be replaced."""
        self._was_message_received = True
        callback = self._message_received_callback
        if callback is not None:
            openly(callback, message)
        if callback is not None or self._streaming_receive:
            call = self._reception
            if self.auto_complete if call is None else self._auto_complete and not call.iterates:
                if not self._complete(message):
                    return  # the peer delivers it again
            elif self._streaming_receive and message.state is _UNSETTLED and not message.settled:
                _logger.info("delivery %r was not settled by the callback", message.delivery_no)
        if not self._streaming_receive:
            if callback is not None:
                message.__dict__["_called"] = True
            self._received_messages.extend([message])

    def _begin_turn(self) -> None:
        """Messages are handed out from now on, by the receiving call under way in this thread or task: with its callback. Who
        makes single steps has set up what it wants itself. One turn at a time."""
        call = self._receptions.get(self._me()) if self._receptions else None
        if call is None and self._keeping:
            call = self._kept if self._keeping == self._me() else None
        if call is not None:
            self._set_up = self._message_received_callback, self._streaming_receive
            self._reception = call
            self._message_received_callback, self._streaming_receive = call.callback, call.streaming

    def _end_turn(self) -> None:
        if self._reception is not None:
            self._message_received_callback, self._streaming_receive = self._set_up
            self._reception = None

    def _takes_runs(self, handler: Any) -> bool:
        """Whether messages need only be queued, so that all may be queued at once."""
        return (
            self._message_received_callback is None
            and not self._streaming_receive
            and type(self)._message_received is _BASE_RECEIVED
            and "_message_received" not in self.__dict__
            and handler.on_message_received == self._on_message
        )

    def _take_run(self, messages: list[Message]) -> None:
        self._was_message_received = True
        self._received_messages.extend(messages)

    def _has(self, messages: list[Message]) -> bool:
        return any(message is messages[0] for message in list(self._received_messages.queue))

    # ---- what is unread: under the session's lock ---------------------------------------------------------------------

    def _unread(self, handler: Any) -> list[int]:
        """The deliveries of that link that nobody has read, and which are not settled: they are let go of."""
        due = set(handler._due)
        numbers = []
        kept = []
        for message in self._received_messages.queue.copy():
            number = message.delivery_no
            if (message.state is _UNSETTLED and not message.settled) or (message.state is _SETTLED and number in due):
                numbers.append(number)
            else:
                kept.append(message)
        if numbers:
            self._received_messages.keep(kept)
        return numbers

    def _taken_back(self, handler: Any, outcomes: Mapping[int, DeliveryOutcome | None], again: bool) -> list[int]:
        """The peer settled those deliveries of that link by itself: none of them waits for an outcome. `again`: what is unread of
        them is let go of, for the peer delivers it again. Gives the deliveries that were unread."""
        numbers = []
        kept = []
        for message in self._received_messages.queue.copy():
            number = message.delivery_no
            if number in outcomes and (message._state is _UNSETTLED or number in handler._due):
                numbers.append(number)
                message._settled_by_peer(outcomes[number])
                if again:
                    continue
            kept.append(message)
        if numbers and again:
            self._received_messages.keep(kept)
        return numbers

    def _over(self) -> None:
        handler, session = self.message_handler, self._session
        if isinstance(handler, receiver.MessageReceiver) and session is not None:
            with session._lock:
                handler._over()

    def _take(self, count: int, accept: bool) -> list[Message]:
        """The first unread messages. Raises what broke the link when they cannot be accepted any more."""
        handler, session = self.message_handler, self._session
        if handler is None or session is None:
            return []
        with session._lock:
            if session._inbox.records:  # what the peer took back is among those that are unread until then
                session._dispatch()
            messages: list[Message] = self._received_messages.take(count)
            if accept:
                try:
                    self._accept(handler, messages)
                except receiver.LinkGone:  # the peer delivers them again
                    messages = [message for message in messages if message.state is _SETTLED]
        self._tidy(handler)
        return messages

    def _accept(self, handler: Any, messages: list[Message]) -> None:
        """Accept those that are not settled: as ranges, and one by one what is not of this link."""
        settler = getattr(handler, "_settler", None)
        mine: list[Message] = []
        numbers: list[int] = []
        for message in messages:
            if message._state is _UNSETTLED:
                rest: dict[str, Any] = message._rest or {}
                if settler is not None and rest.get("_settle") is settler and "_answer" not in rest:
                    mine.append(message)
                    numbers.append(rest["delivery_no"])
                else:
                    self._complete(message)
        if not mine:
            return
        handler._unsent = True
        done = 0
        for first, last in ranges(numbers):
            try:
                handler._settle(first, last, ACCEPTED)
            except errors.MessageAlreadySettled:
                _logger.debug("deliveries %d to %d were settled by the peer", first, last)
            before, done = done, done + span(first, last)
            for message in mine[before:done]:
                message._state = _SETTLED

    def _tidy(self, handler: Any, stepping: bool = False) -> None:
        unread = len(self._received_messages)
        handler._tidy(unread, 0 if stepping else unread + len(handler._arrived))

    # ---- steps ----------------------------------------------------------------------------------------------------

    def _take_in(self) -> None:
        self._pump()

    def _pump(self, stepping: bool = False) -> tuple[bool, bool]:
        """Take in what has come and hand it out. Gives, twice, whether that was anything. `stepping`: who makes single steps
        takes the messages from the queue itself, as many as it likes, so what lies there takes no credit away."""
        session, handler = self._session, self.message_handler
        if session is None or handler is None:
            return False, False
        with session._lock:
            if session._inbox.records:
                session._dispatch()
        brought = False
        if handler._arrived or handler._again:
            brought = handler._hand_out() > 0  # if another call is at it, that one tells
            if brought and session._inbox.followers:
                session._inbox.poke_all()
        self._brought = brought
        if handler is self.message_handler:
            self._tidy(handler, stepping)
        if session._calls:
            session._calls.run()
        if handler._calls:
            handler._calls.run()
        return brought, brought

    def _work(self) -> None:
        """Take in; messages are handed out by who receives."""
        session, handler = self._session, self.message_handler
        if session is None or handler is None:
            return
        before = len(handler._arrived)
        with session._lock:
            session._dispatch()
        if session._inbox.followers and len(handler._arrived) > before:
            session._inbox.poke_all()
        session._calls.run()

    def _keep(self) -> None:
        if self._shutdown:
            return
        if self._receptions:  # who receives hands out
            self._work()
            return
        self._keeping = self._me()
        try:
            self._pump()
        finally:
            self._keeping = 0

    def _client_run_plan(self) -> Plan[bool]:
        before, _ = self._pump(stepping=True)
        self._raise_broken()
        connection = self._connection
        if connection is None or self._shutdown:
            return not self._shutdown
        yield from connection._paced_plan(before)
        after, _ = self._pump(stepping=True)
        self._brought = before or after
        if self._shutdown:
            return False
        self._raise_broken()
        if self._idle_too_long():
            self._time_out()
        return not self._shutdown

    def _idle_too_long(self) -> bool:
        """Whether `timeout` has passed since the last message, or since there is a link."""
        now = time.monotonic() * 1000
        last = self._last_activity_timestamp
        if self._was_message_received or last is None:
            self._was_message_received = False
            self._last_activity_timestamp = now
            return False
        timeout = self._timeout
        return timeout is not None and timeout > 0 and now - last >= timeout

    def _time_out(self) -> None:
        self._timeout_reached = True
        self._last_activity_timestamp = None
        with self._lock:
            for call in self._receptions.values():
                call.over = True  # though another one that begins now waits anew
        if self._shutdown_after_timeout:
            self._shutdown = True

    def _next_deadline(self) -> float | None:
        if not self._timeout or self._timeout < 0 or self._last_activity_timestamp is None:
            return None
        return (self._last_activity_timestamp + self._timeout) / 1000

    def _stopped(self) -> bool:
        return False

    # ---- receiving ------------------------------------------------------------------------------------------------

    def _over_already(self, mine: _Reception) -> bool:
        """Whether there is nothing to wait for: `timeout` has passed, or this is a callback of the very link."""
        if mine.over or self._timeout_reached:
            return True
        handler = self.message_handler
        if handler is not None and handler._nested:
            return True
        if self._attached and self._idle_too_long():
            self._time_out()
        return mine.over

    def _receive_plan(
        self, done: Callable[[], bool], deadline: float | None = None, streaming: bool = False
    ) -> Plan[bool]:
        """Work until `done()`: True; False when the client is shut down. Raises what broke the link, but not while there are
        messages that can be had in spite of it."""
        self._timeout_reached = False
        if len(self._receptions) == 1:  # else others have been waiting
            self._last_activity_timestamp = None
        try:
            return (yield from self._work_plan(done, deadline))
        except errors.AMQPError:
            if not self._shutdown and (streaming or not len(self._received_messages)):
                raise
            return not self._shutdown

    def receive_message_batch(
        self,
        max_batch_size: int | None = None,
        on_message_received: Callable[[Message], object] | None = None,
        timeout: float = 0,
    ) -> list[Message]:
        """Receive up to `max_batch_size` messages (`prefetch` when not given): what is there, or else what comes first.

        `on_message_received(message)` is called with each as it comes in, also with those that only the next call gives.
        `timeout` in ms: how long to wait for the first message; 0: until the client's own `timeout`. Gives an empty list
        when there was none. With `auto_complete` the messages are accepted. Raises ValueError for more than
        `prefetch` or less than 1, and the error of connection, session or link when it broke."""
        return self._run(self._batch_plan(max_batch_size, on_message_received, timeout))

    def _batch_plan(
        self, max_batch_size: int | None, callback: Callable[[Message], object] | None, timeout: float
    ) -> Plan[list[Message]]:
        are_numbers(max_batch_size=max_batch_size, timeout=timeout)
        is_callable("on_message_received", callback, _HOW_CALLBACK)
        size = self._prefetch if max_batch_size is None else max_batch_size
        if size > self._prefetch:
            raise ValueError(f"max_batch_size {size} is more than prefetch, {self._prefetch}")
        if size < 1:
            raise ValueError(f"max_batch_size must be 1 or more, not {size}")
        yield from self._opened_plan()
        deadline = time.monotonic() + timeout / 1000 if timeout and timeout > 0 else None
        unread = self._received_messages
        seen = len(unread)

        def done() -> bool:
            nonlocal seen
            count = len(unread)
            if count >= size or (count and (count <= seen or not self._brought)):
                return True
            seen = count
            if deadline is not None and time.monotonic() >= deadline:
                return True
            return self._over_already(mine)

        mine = _Reception(self, callback)
        with mine:
            running = not self._shutdown
            if seen and running and self._attached:  # what has come meanwhile
                connection = self._both()[1]
                if seen < size:
                    yield Call(connection._step, (0.0,))
                elif time.perf_counter() - connection._looked_at > LOOK_SELDOM:
                    yield from connection._look_first_plan()
            while True:
                if running and len(unread) < size:
                    running = yield from self._receive_plan(done, deadline)
                messages = self._take(size, self._auto_complete)
                late = deadline is not None and time.monotonic() >= deadline
                if messages or late or not running or self._shutdown or self._over_already(mine):
                    return messages
                self._raise_broken()
                self._opened()  # else it is being redirected, and there is nothing to wait for
                seen = 0  # another thread took them

    def receive_messages(self, on_message_received: Callable[[Message], object]) -> None:
        """Give every message that comes to `on_message_received(message)`, until the client's `timeout`; closes the client
        then, with `shutdown_after_timeout`.

        With `auto_complete` a message is accepted when the callback returns, unless it has settled it. When it raises, the
        message is given back as modified and receiving goes on; a RuntimeError breaks the link. Raises the error of
        connection, session or link when it broke, and `AMQPClientShutdown` for Ctrl-C in the callback."""
        self._run(self._stream_plan(on_message_received))

    def _stream_plan(self, callback: Callable[[Message], object]) -> Plan[None]:
        if not callable(callback):
            raise wrong("on_message_received", callback, "a function", _HOW_CALLBACK)
        yield from self._opened_plan()
        mine = _Reception(self, callback, streaming=True)
        with mine:

            def done() -> bool:
                if mine.left:
                    mine.left = False
                    self._hand_leftovers(mine)
                return self._over_already(mine)

            self._hand_leftovers(mine)
            if not self._shutdown:
                yield from self._receive_plan(done, streaming=True)
        if self._shutdown:
            yield Call(self._method(self, "close"))

    def _hand_leftovers(self, mine: _Reception) -> None:
        """Messages that an earlier call left unread: they came before all others. Those that have had their callback are done
        with, unless a call that has not ended is to give them."""
        handler, session = self.message_handler, self._session
        if handler is None or session is None:
            return
        with session._lock:
            unread = self._received_messages.take(1 << 30)
            handler._again.extend(m for m in unread if not m.__dict__.get("_called"))
            if len(self._receptions) > 1 or mine.outer is not None:
                self._received_messages.extend([m for m in unread if m.__dict__.get("_called")])
        handler._hand_out()
        self._tidy(handler)

    def receive_messages_iter(
        self, on_message_received: Callable[[Message], object] | None = None
    ) -> Generator[Message, None, None]:
        """Generate messages as they come, until the client's `timeout`; closes the client then, with
        `shutdown_after_timeout`. With `auto_complete` a message is accepted when the next one is asked for: not when the
        loop is left by `break` or by an error, for which accept it yourself, or the peer has it back when the client closes.
        What is unread then is there for the next call. Raises as `receive_messages`."""
        automatic = self._auto_complete
        self._count_iterations(1)
        try:
            while (message := self._next(on_message_received)) is not None:
                yield message
                if automatic:
                    self._complete(message)
        finally:
            self._count_iterations(-1)
        if self._shutdown:
            self.close()

    def _count_iterations(self, more: int) -> None:
        with self._lock:
            self._iterating += more

    def _complete(self, message: Message) -> bool:
        """Accept it unless it is settled. False when it cannot be, since the link is gone."""
        try:
            message.accept()
        except errors.MessageAlreadySettled:
            _logger.debug("delivery %r was settled by the peer", message.delivery_no)
        except receiver.LinkGone as error:
            _logger.info("delivery %r was not accepted: %s", message.delivery_no, error)
            return False
        return True

    def _next(self, callback: Callable[[Message], object] | None) -> Message | None:
        """The next message; None when there will be none."""
        messages = self._take(1, False) if len(self._received_messages) else None
        return messages[0] if messages else self._run(self._next_plan(callback))

    def _next_plan(self, callback: Callable[[Message], object] | None) -> Plan[Message | None]:
        unread = self._received_messages
        if self._shutdown and not len(unread):
            return None
        yield from self._opened_plan()

        def done() -> bool:
            return len(unread) > 0 or self._over_already(mine)

        mine = _Reception(self, callback, iterates=True)
        with mine:
            messages = self._take(1, False)
            running = not self._shutdown
            while running and not messages:
                running = yield from self._receive_plan(done)
                messages = self._take(1, False)
                if messages or self._over_already(mine) or self._shutdown:
                    break
                self._raise_broken()
                self._opened()  # else it is being redirected, and there is nothing to wait for
        return messages[0] if messages else None

    def _iter_plan(self, callback: Callable[[Message], object] | None) -> Plan[Message | None]:
        """One step of an iteration that accepts messages itself: the next one; None, and the client closed if that is
        what `timeout` does, when there will be none."""
        self._count_iterations(1)
        try:
            message = yield from self._next_plan(callback)
        finally:
            self._count_iterations(-1)
        if message is None and self._shutdown:
            yield Call(self._method(self, "close"))
        return message

    # ---- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """As `AMQPClient.close`. Messages that nobody has read are released before."""
        super().close()

    def _close_plan(self) -> Plan[None]:
        handler = self.message_handler
        if handler is not None:
            handler._client = self
        self._kept = None
        yield from super()._close_plan()

    def redirect(self, redirect: errors.LinkRedirect, auth: AMQPAuth) -> None:
        """Go where a `LinkRedirect` points to, with a fresh auth object; unread messages are let go of. Raises ValueError on
        a shared connection."""
        super().redirect(redirect, auth)

    def _redirect_plan(self, redirect: Any, auth: Any) -> Plan[None]:
        yield from super()._redirect_plan(redirect, auth)
        self._received_messages.keep([])

    def _drop_pending(self, handler: Any) -> None:
        self._received_messages.keep([])
        self._error = None
        self._attached = False
        self._timeout_reached = False
        self._last_activity_timestamp = None


_BASE_RECEIVED = ReceiveClient._message_received
ReceiveClient._own_steps = ReceiveClient._steps()
