"""The sending part of `uamqp-cffi send`: where the bodies come from, the loop that keeps a window of messages in
flight, the books it keeps, and how it shows that it is at work. Memory does not grow with the number of messages.
"""

from __future__ import annotations

import math
import os
import stat
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from ._core import time

if TYPE_CHECKING:
    from .client import ReceiveClient, SendClient
    from .message import Message
else:
    Message = ReceiveClient = SendClient = Any  # for who evaluates annotations: the command loads it when it is needed

WINDOW_BYTES = 16 << 20  # bodies handed to the client and not confirmed, at most
MAX_LINE = 64 << 20
_NEGATIVE = {0x25: "rejected", 0x26: "released", 0x27: "modified"}  # descriptors of §3.4
_BLOCK = 1 << 18  # bytes of bodies read, or handed over, at once
_GRACE = 0.15  # seconds that Ctrl-C leaves for outcomes already under way


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived while a step was running that looks at `_Signals.number` afterwards."""


class GaveUp(Exception):
    """Not the connection's fault: no outcome for too long, or a line that is no message."""


# ---- text ----


def say(text: str) -> None:
    """One line on standard error. When nobody reads there any more, or it is full, that is no reason to stop sending."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        to_nowhere(sys.stderr)


def to_nowhere(stream: Any) -> None:
    """Python flushes its streams at exit: give this one, whose reader has left, a place to go."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def printable(text: object) -> str:
    """`text` with everything a terminal could obey or that breaks the line made visible."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _ms(seconds: float) -> str:
    ms = seconds * 1000
    return f"{ms:.2f} ms" if ms < 10 else f"{ms:.1f} ms" if ms < 100 else f"{ms:,.0f} ms"


# ---- latency ----


class Latencies:
    """A histogram of seconds in steps of 1 %, so that memory does not grow with what is measured.

    >>> seen = Latencies()
    >>> seen.add(0.001, 99)
    >>> seen.add(0.5, 1)
    >>> round(seen.percentile(50), 4), seen.max
    (0.001, 0.5)
    """

    _STEP = math.log(1.01)

    def __init__(self) -> None:
        self.max = 0.0
        self.count = 0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float, times: int = 1) -> None:
        """`times` messages took `seconds` each."""
        self._buckets[int(math.log(max(seconds, 1e-7)) / self._STEP)] += times
        self.count += times
        self.max = max(self.max, seconds)

    def percentile(self, p: float) -> float:
        """Seconds that `p` percent of all did not exceed, within 1 %."""
        wanted = math.ceil(self.count * p / 100)
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(math.exp(bucket * self._STEP), self.max)
        return self.max


# ---- progress ----


class Progress:
    """Plain lines, one a second; for pipes, and for terminals without the extra `cli`."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self._started = self._next = time.perf_counter()
        self._next += 1.0

    def update(self, done: int, now: float) -> None:
        if now >= self._next:
            self._next = now + 1.0
            of = "" if self.total is None else f" of {self.total:,}"
            say(f"{done:,}{of} messages done, {done / (now - self._started):,.0f}/s")

    def close(self, done: int) -> None:
        pass


class Bar(Progress):
    """A bar of rich's, redrawn from the sending loop: no thread competes with it."""

    def __init__(self, total: int | None, doing: str) -> None:
        from rich import progress
        from rich.console import Console
        from rich.text import Text

        class Done(progress.ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{int(task.completed):,}" + ("" if task.total is None else f" of {int(task.total):,}"))

        class Rate(progress.ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.completed / task.elapsed:,.0f}/s" if task.elapsed else "")

        super().__init__(total)
        console = Console(stderr=True)
        columns = (doing, progress.BarColumn(), Done(), Rate(), progress.TimeRemainingColumn())
        self._bar = progress.Progress(*columns, console=console, auto_refresh=False)
        self._task = self._bar.add_task("", total=total)
        self._bar.start()

    def update(self, done: int, now: float) -> None:
        if now >= self._next - 0.95:
            self._next = now + 1.0
            self._bar.update(self._task, completed=done, refresh=True)

    def close(self, done: int) -> None:
        self._bar.update(self._task, completed=done, refresh=True)
        self._bar.stop()


class NoProgress(Progress):
    """Where a line of ours would stand among others."""

    def __init__(self) -> None:
        super().__init__(None)

    def update(self, done: int, now: float) -> None:
        pass


def make_progress(total: int | None, doing: str) -> Progress:
    if sys.stderr.isatty():
        try:
            return Bar(total, doing)
        except ImportError:
            return Progress(total)
    return Progress(total)


def attach(client: SendClient | ReceiveClient, check: Callable[[], object]) -> None:
    """Until the link is attached. Raises what the client raises; bounded by its connect_timeout."""
    while not (client.auth_complete() and client.client_ready()):
        check()


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
    from .message import _PROPERTIES, Message, MessageHeader, MessageProperties

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


class Repeated:
    """The same body `count` times."""

    def __init__(self, body: bytes, count: int) -> None:
        self.total: int | None = count
        self._body = body
        self._left = count
        self._at_once = max(1, _BLOCK // max(1, len(body)))

    def ready(self) -> bool:
        return True

    def take(self, n: int) -> list[bytes]:
        """The next bodies, `n` at most; none at the end."""
        n = min(n, self._left, self._at_once)
        self._left -= n
        return [self._body] * n

    @property
    def left(self) -> int | None:
        return self._left

    def close(self) -> None:
        """Nothing was opened."""


class Lines:
    """The lines of a file, pipe or terminal, without their line ends; read as they come, one block at a time."""

    def __init__(self, file: IO[bytes], count: int | None) -> None:
        self.total = count
        self._file = file
        self._plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        self._limit = math.inf if count is None else count
        self._lines: deque[bytes] = deque()
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._taken = 0
        self._ended = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def ready(self) -> bool:
        """Whether `take` would not have to wait."""
        if self._lines or self._plain or self._ended or os.name == "nt":
            return True
        import select

        poll = select.poll()
        poll.register(self._file.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def take(self, n: int) -> list[bytes]:
        """The next lines, `n` at most; none at the end or when only part of a line is there so far. Raises GaveUp
        for a line too long to be a message."""
        if not self._lines and not self._ended:
            self._read()
        n = int(min(n, len(self._lines), self._limit - self._taken))
        self._taken += n
        return [self._lines.popleft() for _ in range(n)]

    def _read(self) -> None:
        try:
            block = self._file.read(_BLOCK)
        except OSError as exc:
            raise GaveUp(f"cannot read line {self._taken + 1:,}: {exc.strerror or exc}") from exc
        if block:
            head, newline, tail = block.rpartition(b"\n")
            if newline:
                lines = b"".join((*self._rest, head)).split(b"\n")
                self._lines.extend(line[:-1] if line.endswith(b"\r") else line for line in lines)
                self._rest, self._rest_size = [], 0
            self._rest.append(tail)
            self._rest_size += len(tail)
            if self._rest_size > MAX_LINE:
                raise GaveUp(f"line {self._taken + 1:,} is longer than {MAX_LINE >> 20} MiB")
        else:
            self._ended = True
            if last := b"".join(self._rest):
                self._lines.append(last)

    @property
    def left(self) -> int | None:
        """0 at the end; before it nobody knows."""
        if self._taken >= self._limit or (self._ended and not self._lines):
            return 0
        return None


# ---- sending ----


class _Flight:
    """Messages handed to the client together, and when."""

    __slots__ = ("done", "messages", "size", "started")

    def __init__(self, messages: list[Message], size: int, started: float) -> None:
        self.messages = messages
        self.size = size
        self.started = started
        self.done = 0


class Report:
    """What became of the messages."""

    def __init__(self) -> None:
        self.accepted = self.sent_settled = self.rejected = self.released = self.modified = self.failed = 0
        self.handed_over = self.bytes = 0
        self.not_sent: int | None = 0  # never handed to the client; None: nobody knows how many there would have been
        self.unconfirmed = self.maybe_delivered = 0
        self.seconds = 0.0
        self.latencies = Latencies()
        self.reasons: Counter[str] = Counter()

    @property
    def begun(self) -> bool:
        return self.handed_over > 0

    @property
    def good(self) -> int:
        return self.accepted + self.sent_settled

    @property
    def done(self) -> int:
        return self.good + self.rejected + self.released + self.modified + self.failed

    def so_far(self) -> str:
        return f"{self.done:,} messages confirmed, {self.unconfirmed:,} not"

    def rate(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    def as_json(self, url: str, error: str | None, exit_status: int) -> dict[str, Any]:
        seen = self.latencies
        latency = {f"p{p}": round(seen.percentile(p) * 1000, 3) for p in (50, 90, 99)}
        latency["max"] = round(seen.max * 1000, 3)
        return {
            "url": url,
            "handed_over": self.handed_over,
            "accepted": self.accepted,
            "sent_settled": self.sent_settled,
            "rejected": self.rejected,
            "released": self.released,
            "modified": self.modified,
            "failed": self.failed,
            "unconfirmed": self.unconfirmed,
            "maybe_delivered": self.maybe_delivered,
            "not_sent": self.not_sent,
            "reasons": dict(self.reasons),
            "bytes": self.bytes,
            "seconds": round(self.seconds, 6),
            "messages_per_second": round(self.rate(), 1),
            "latency_ms": latency if seen.count else None,
            "error": error,
            "exit_status": exit_status,
        }

    def lines(self, settled: bool, window: int) -> Iterator[str]:
        """The report for people."""
        counts = [("sent settled", self.sent_settled)] if settled else [("accepted", self.accepted)]
        if not settled:
            counts += [("rejected", self.rejected), ("released", self.released), ("modified", self.modified)]
        if self.failed:
            counts.append(("failed", self.failed))
        if self.unconfirmed:
            counts.append(("unconfirmed", self.unconfirmed))
        if self.not_sent:
            counts.append(("not sent", self.not_sent))
        for name, n in counts:
            yield f"  {name:<13}{n:>13,}" + self._remark(name)
        for reason, n in self.reasons.most_common(5):
            yield f"    {n:,} x {reason}"
        if self.done:
            size = self.bytes / max(self.handed_over, 1) * self.rate() / 1e6
            yield f"  {'rate':<13}{self.rate():>13,.0f} messages/s, {size:,.1f} MB/s of bodies, {self.seconds:.2f} s"
        if seen := self.latencies if self.latencies.count else None:
            figures = "   ".join(f"p{p} {_ms(seen.percentile(p))}" for p in (50, 90, 99))
            yield f"  {'latency':<13}{figures}   max {_ms(seen.max)}"
            yield f"  {'':<13}(hand-over to the client until the outcome was seen; at most {window:,} in flight)"

    def _remark(self, name: str) -> str:
        if name == "sent settled":
            return "   (with the kernel; no outcome was asked for)"
        if name == "unconfirmed" and self.unconfirmed:
            kept = self.unconfirmed - self.maybe_delivered
            return f"   ({self.maybe_delivered:,} may have arrived, {kept:,} did not leave)"
        return ""


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
        from .constants import MessageState

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
        from .constants import Delivery, MessageState

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
    from .client import SendClient

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
