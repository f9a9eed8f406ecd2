"""The sending part of `uamqp-cffi send`: where the bodies come from, the loop that keeps a window of messages in
flight, the books it keeps, and how it shows that it is at work. Memory does not grow with the number of messages.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._core import time
from .child import _with_broker
from .progress import Progress, make_progress
from .report import _NEGATIVE, Report
from .run import _CLOSING, NOT_ALL, OK, _client_options, _drive, _finish, _print, attach, masked
from .signals import _Signals
from .sources import Lines, Repeated
from .text import GaveUp, Interrupted, printable

if TYPE_CHECKING:
    from ..client import SendClient
    from ..message import Message
else:
    Message = SendClient = Any  # for who evaluates annotations: the command loads it when it is needed

WINDOW_BYTES = 16 << 20  # bodies handed to the client and not confirmed, at most
_GRACE = 0.15  # seconds that Ctrl-C leaves for outcomes already under way


# ---- what is sent ----


def _number_of(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--property {name}: a number is wanted, not {text!r}") from None


def moulder(
    durable: bool,
    ttl: int | None,
    priority: int | None,
    properties: dict[str, str],
    application_properties: dict[str, str],
) -> Callable[[bytes], Message]:
    """The function that makes a message of a body. Raises ValueError for a property that there is not, or whose value is none
    for it."""
    from .._message.properties import _PROPERTIES
    from ..message import Message, MessageHeader, MessageProperties

    fields: dict[str, Any] = {}
    known = [name for name, _ in _PROPERTIES]
    for given, text in properties.items():
        name = given.replace("-", "_")
        if name not in known:
            names = ", ".join(name.replace("_", "-") for name in known)
            raise ValueError(f"--property {given}: there is no such property, but {names}; see also --app-property")
        is_number = name in ("absolute_expiry_time", "creation_time", "group_sequence")
        fields[name] = _number_of(given, text) if is_number else text
    header = None
    if durable or ttl is not None or priority is not None:
        header = MessageHeader(durable=durable or None, time_to_live=ttl, priority=priority)
    shared = MessageProperties(**fields) if fields else None
    given_ones = dict(application_properties) or None
    if header is None and shared is None and given_ones is None:
        return Message
    try:
        Message(b"", header=header, properties=shared, application_properties=given_ones).encode_message()
    except OverflowError as error:
        raise ValueError(str(error)) from error

    def mould(body: bytes) -> Message:
        return Message(body, header=header, properties=shared, application_properties=given_ones)

    return mould


# ---- sending ----


class _Flight:
    """Messages handed to the client together, and when."""

    __slots__ = ("done", "messages", "size", "started")

    def __init__(self, messages: list[Message], size: int, started: float) -> None:
        self.messages = messages
        self.size = size
        self.started = started
        self.done = 0


class Sender:
    """Hands messages to a client a few hundred at a time, keeps `window` of them in flight at most, counts outcomes.

    What is kept per message is the message itself; what is measured, one time stamp per hand-over and one per look at
    the outcomes. Outcomes are read in the order of sending. `timeout`: seconds without any outcome after which it gives
    up. `check` is called after each step and may raise Interrupted. `mould` makes a message of a body.
    """

    def __init__(
        self,
        client: SendClient,
        source: Repeated | Lines,
        report: Report,
        *,
        settled: bool,
        window: int,
        timeout: float,
        check: Callable[[], object],
        mould: Callable[[bytes], Message],
    ) -> None:
        self.report = report
        self._mould = mould
        self._client = client
        self._outcomes: dict[int, str] = getattr(client, "outcomes", {})
        self._source = source
        self._settled = settled
        self._window = window
        self._batch = max(1, min(500, window // 4))
        self._timeout = timeout
        self._check = check
        self._flights: deque[_Flight] = deque()
        self._in_flight = self._bytes_in_flight = 0
        self._dry = source.left == 0

    def connect(self) -> None:
        """Until the link is attached. Raises what the client raises; bounded by its connect_timeout."""
        attach(self._client, self._check)

    def run(self, progress: Progress) -> None:
        """Until every message has its outcome. Raises what the client raises, GaveUp when nothing moves."""
        started = last = time.perf_counter()
        try:
            while True:
                self._fill()
                if self._dry and not self._flights:
                    return
                if not self._client.do_work():
                    raise ConnectionError("the client was shut down")
                now = time.perf_counter()
                if self._collect(now):
                    last = now
                    progress.update(self.report.done, now)
                elif not self._flights:
                    last = now
                elif now - last > self._timeout:
                    raise GaveUp(f"no outcome for {self._timeout:g} s")
                self._check()
        except Interrupted:
            self._settle_down()
            raise
        finally:
            self.report.seconds = time.perf_counter() - started
            self._count_rest()

    def _fill(self) -> None:
        mould = self._mould
        while not self._dry and self._in_flight <= self._window - self._batch and self._bytes_in_flight < WINDOW_BYTES:
            if not self._source.ready():
                return
            bodies = self._source.take(self._batch)
            self._dry = self._source.left == 0
            if not bodies:
                return
            messages = [mould(body) for body in bodies]
            size = sum(map(len, bodies))
            self._client.queue_message(*messages)
            self._flights.append(_Flight(messages, size, time.perf_counter()))
            self._in_flight += len(messages)
            self._bytes_in_flight += size
            self.report.handed_over += len(messages)
            self.report.bytes += size

    def _collect(self, now: float) -> int:
        """Count the outcomes that are there; how many were new."""
        from ..constants import MessageState

        complete, failed = MessageState.SendComplete, MessageState.SendFailed
        flights, total, good = self._flights, 0, 0
        while flights:
            flight = flights[0]
            messages, at = flight.messages, flight.done
            for message in messages[at:] if at else messages:
                if message.state is complete:
                    good += 1
                elif message.state is failed:
                    self._count_failure(message)
                else:
                    break
                at += 1
            if fresh := at - flight.done:
                self.report.latencies.add(now - flight.started, fresh)
                total += fresh
                flight.done = at
            if at < len(messages):
                break
            self._bytes_in_flight -= flight.size
            flights.popleft()
        self._in_flight -= total
        if self._settled:
            self.report.sent_settled += good
        else:
            self.report.accepted += good
        return total

    def _count_failure(self, message: Message) -> None:
        report = self.report
        outcome = self._outcomes.pop(id(message), "failed")
        setattr(report, outcome, getattr(report, outcome) + 1)
        reason = printable(message._response)
        if reason and (reason in report.reasons or len(report.reasons) < 20):
            report.reasons[reason] += 1

    def _settle_down(self) -> None:
        """After Ctrl-C: nothing new, but what is under way may still be confirmed."""
        until = time.perf_counter() + _GRACE
        while self._flights and time.perf_counter() < until and self._client.do_work():
            self._collect(time.perf_counter())

    def _count_rest(self) -> None:
        """Messages without an outcome, and what is known of them."""
        from ..constants import Delivery, MessageState

        self._collect(time.perf_counter())
        for flight in self._flights:
            for message in flight.messages[flight.done :]:
                if message.state is MessageState.SendComplete:
                    self.report.accepted += not self._settled
                    self.report.sent_settled += self._settled
                elif message.state is MessageState.SendFailed:
                    self._count_failure(message)
                else:
                    self.report.unconfirmed += 1
                    waits = message.state is MessageState.WaitingForSendAck
                    unknown = message.delivery is Delivery.UNKNOWN or (message.delivery is None and waits)
                    self.report.maybe_delivered += unknown
        self.report.not_sent = self._source.left


def make_client(target: str, **options: Any) -> SendClient:
    """A SendClient whose `outcomes` names each failed message's negative outcome. Raises what SendClient raises."""
    from ..client import SendClient

    class Client(SendClient):
        """An exception tells condition and description, but not the outcome's name; the link's report does."""

        def __init__(self) -> None:
            super().__init__(target, **options)
            self.outcomes: dict[int, str] = {}  # by id(message), until it is counted

        def _settled(self, messages: list[Message], outcome: int, state: bytes) -> None:
            if name := _NEGATIVE.get(outcome):
                self.outcomes.update((id(message), name) for message in messages)
            super()._settled(messages, outcome, state)

    return Client()


WINDOW = 2000  # messages handed to the client and not confirmed, at most


# ---- send ----


def _source(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Repeated | Lines:
    if args.file is None:
        try:
            body = b"x" * args.size if args.body is None else args.body.encode("utf-8", "surrogateescape")
        except (MemoryError, OverflowError):
            parser.error(f"--size: there is no memory for {args.size:,} bytes")
        return Repeated(body, 1 if args.count is None else args.count)
    if args.file == "-":
        if sys.stdin is None:
            parser.error("--file -: there is no standard input")
        return Lines(open(sys.stdin.fileno(), "rb", buffering=0, closefd=False), args.count)
    return Lines(open(args.file, "rb", buffering=0), args.count)


def _send(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        source = _source(args, parser)
    except OSError as exc:
        parser.error(f"cannot read {args.file}: {exc.strerror}")

    report = Report()

    def work(signals: _Signals, own: bool) -> int:
        return _send_to(args, parser, source, report, signals)

    with contextlib.closing(source):
        return _with_broker(args, parser, ("--discard",), work, report)


def _send_to(
    args: argparse.Namespace,
    parser: argparse.ArgumentParser,
    source: Repeated | Lines,
    report: Report,
    signals: _Signals,
) -> int:
    from ..constants import SenderSettleMode

    url = masked(args.url)
    try:
        mode = SenderSettleMode[args.settle.capitalize()]
        properties = dict(args.property) | ({} if args.subject is None else {"subject": args.subject})
        mould = moulder(not args.no_durable, args.ttl, args.priority, properties, dict(args.app_property))
        client = make_client(args.url, send_settle_mode=mode, **_client_options(args))
    except ValueError as exc:
        parser.error(str(exc))
    settled = args.settle != "unsettled"
    sender = Sender(
        client,
        source,
        report,
        settled=settled,
        window=args.window,
        timeout=args.timeout,
        check=signals.check,
        mould=mould,
    )
    report.not_sent = source.left
    status, error = _drive(sender, client, lambda: make_progress(source.total, "sending"), signals, url, "sent")
    if status == OK and report.good < report.handed_over:
        status = NOT_ALL
        error = f"{report.handed_over - report.good:,} of {report.handed_over:,} messages were not accepted"
    _finish(client.close, signals, _CLOSING if signals.number else None)
    return _print(args, report, url, signals, status, error)


def _show_sent(args: argparse.Namespace, report: Report, url: str, error: str | None) -> None:
    if report.handed_over or not error:
        print(f"{report.handed_over:,} messages to {url}")
        print("\n".join(report.lines(args.settle != "unsettled", args.window)))
    sys.stdout.flush()
