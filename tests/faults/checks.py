"""What must be true after every round, and who listens for what nobody else would hear."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import sys
import threading
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from uamqp_cffi import Message, errors
from uamqp_cffi.constants import Delivery, MessageState

BOUND = 15.0
"""Seconds in which every call must have come back; `close` and `connect` have limits of 5 s of their own."""

DOCUMENTED = (TimeoutError, KeyboardInterrupt)


class Violations:
    """What went wrong, each kind once with how often it did."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.total = 0
        self.round = ""
        self.calls: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._in_thread
        logging.lastResort = None  # a handler of the user's would write them where he wants them
        for name in ("uamqp", "asyncio"):
            logging.getLogger(name).addHandler(_Listener(self))

    def add(self, kind: str, detail: str = "") -> None:
        self.total += 1
        self.seen[kind] += 1
        if self.seen[kind] <= 3:
            print(f"VIOLATION in {self.round}: {kind}\n{detail}".rstrip(), flush=True)

    def _unraisable(self, what: Any) -> None:
        defaults = getattr(what.object, "__defaults__", None) or (lambda: None,)
        if what.exc_type is KeyboardInterrupt and defaults[0]() is getattr(threading, "_dangling", self):
            return  # Python's own list of threads, when one of them goes
        made = tracemalloc.get_object_traceback(what.object)
        self.add(
            f"unraisable {what.exc_type.__name__}",
            f"{what.err_msg or 'exception ignored in'}: {what.object!r}\n{_where(what.exc_value)}\n"
            + "\n".join(made.format() if made else []),
        )

    def _in_thread(self, what: Any) -> None:
        self.add(f"a thread died of {what.exc_type.__name__}", _where(what.exc_value))

    def error(self, doing: str, error: BaseException) -> None:
        """What a call raised: fine if it is documented."""
        known = isinstance(error, DOCUMENTED) or type(error) is ValueError
        if known or any(base.__module__ == errors.__name__ for base in type(error).__mro__):
            return
        self.add(f"{doing} raised a bare {type(error).__name__}: {error}", _where(error))

    @contextlib.contextmanager
    def calling(self, doing: str) -> Iterator[None]:
        """Around a call that may raise what is documented, and must come back."""
        begun = time.monotonic()
        self.calls[doing] += 1
        try:
            yield
        except Exception as error:
            self.failed[doing] += 1
            self.error(doing, error)
        took = time.monotonic() - begun
        if took > BOUND:
            self.add(f"{doing} took {took:.0f} s")

    def messages(
        self,
        name: str,
        messages: Iterable[tuple[str, Message]],
        pending: list[Message],
        got: Counter[str],
        queued: set[int] | None,
    ) -> None:
        """After all is closed: each message has one fate, it is true, and `pending_messages` agrees. `messages`: with their
        bodies; `got`: what the broker has; `queued`: ids of those that surely were in the queue; None when a
        redirect has dropped what was pending."""
        waiting = Counter(id(message) for message in pending)
        for body, message in messages:
            n, state, fate = got[body], message.state, message.delivery
            is_pending = waiting.pop(id(message), 0)
            if n > 1 + message.retries:
                self.add(
                    f"{name}: came {'more than once' if not message.retries else 'more often than it was sent'}", body
                )
            if state is MessageState.SendComplete:
                if n < 1:
                    self.add(f"{name}: complete, and the broker has it not", body)
                if is_pending:
                    self.add(f"{name}: complete and pending", body)
            elif state is MessageState.WaitingForSendAck:
                self.add(
                    f"{name}: waits for an outcome after close()", f"{body}: at the broker {n}, pending {is_pending}"
                )
            elif state is MessageState.WaitingToBeSent:
                if n and fate is not Delivery.UNKNOWN:
                    self.add(f"{name}: waits as {fate}, and the broker has it", body)
                missing = queued is not None and (id(message) in queued or fate is Delivery.UNKNOWN)
                if is_pending > 1 or (not is_pending and missing):
                    self.add(f"{name}: waits, and is {is_pending} times in pending_messages", f"{body}: {fate}")
            elif state is MessageState.SendFailed:
                if fate is Delivery.NOT_DELIVERED and n:
                    self.add(f"{name}: failed as {fate}, and the broker has it", body)
                if is_pending:
                    self.add(f"{name}: failed and pending", body)

    def settled_down(self, peer: Any, stacks: bool = True) -> None:
        """At the end of a round: nobody is connected any more, and no socket is left to the collector."""
        gc.collect()
        left = peer.connections()
        if left:
            self.add(f"{left if left < 3 else 'many'} connections at the broker after all was closed")
            peer.drop()


def _where(error: BaseException | None) -> str:
    """The last steps on the way there."""
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)[-9:]
    lines = [
        f"  {frame.filename.rpartition('uamqp_cffi/')[2]}:{frame.lineno} {frame.name}: {frame.line}" for frame in frames
    ]
    text = "\n".join([*lines, f"  {error!r}"])
    cause = error.__cause__ or error.__context__
    return text if cause is None else f"{_where(cause)}\n  whence\n{text}"


class _Listener(logging.Handler):
    """A callback of ours does not fail, so a traceback in the log is a fault of the package."""

    def __init__(self, violations: Violations) -> None:
        super().__init__(logging.ERROR)
        self._violations = violations

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if record.name == "asyncio" and isinstance(error, KeyboardInterrupt):
            return  # of a task that nobody awaits any more since the loop was interrupted
        self._violations.add(f"logged: {record.getMessage()[:100]}", _where(error))


def join(
    violations: Violations, threads: list[threading.Thread], clients: list[Any], seconds: float = BOUND + 5
) -> None:
    """Wait for threads that have been told to end; those that stay are shown where they are."""
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    left = [thread.name for thread in threads if thread.is_alive()]
    if left:
        violations.add("threads stay for ever", ", ".join(left))
        for client in clients:
            print("\n".join(state(client)))
        sys.stdout.flush()
        faulthandler.dump_traceback(file=sys.stdout, all_threads=True)
        sys.stdout.flush()
        raise SystemExit(1)


def state(client: Any) -> Iterator[str]:
    """What a client is like that is neither closed nor broken, for those who look for a fault."""
    if client._closed or client._error is not None:
        return
    handler, session, connection = client.message_handler, client._session, client._connection
    of = {
        client: "_shutdown _queue _head _out _again _again_refused _attached _attach_deadline _received_messages _receptions",
        handler: "_state _latest _id _credit _error _arrived _turn_of",
        session: "_id _begun _ended _error _inbox _crowded",
        getattr(session, "_inbox", None): "records poked led followers",
        connection: "_started _closed _done _opened _failure _blocked _inside _leader _followers _closing _conn_state",
    }
    for one, names in of.items():
        if one is not None:
            values = ((name, getattr(one, name, "-")) for name in names.split())
            shown = (f"{name}={len(value) if hasattr(value, '__len__') else value!r:.60}" for name, value in values)
            yield f"{type(one).__name__} {id(one):x}: {' '.join(shown)}"


def body_of(message: Any) -> str:
    return b"".join(message.get_data()).decode()


def within(violations: Violations, what: Callable[[], Any], doing: str) -> Any:
    with violations.calling(doing):
        return what()
    return None
