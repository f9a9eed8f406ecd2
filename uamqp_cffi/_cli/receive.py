"""The receiving part of `uamqp-cffi receive`: the loop that takes messages in, how each is printed, and the books it keeps.
A message is settled after its line was written, so whatever ends the command, what was not printed stays with the broker.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .._core import time
from .child import _with_broker
from .progress import NoProgress, Progress, make_progress
from .run import _CLOSING, NOT_ALL, OK, _client_options, _drive, _finish, _print, attach, masked
from .send import WINDOW
from .signals import _Signals
from .text import GaveUp, Interrupted, printable, say

if TYPE_CHECKING:
    from ..client import ReceiveClient
    from ..message import Message
else:
    Message = ReceiveClient = Any  # for who evaluates annotations: the command loads it when it is needed

CREDIT = 1000  # messages on their way, or unread, at most
HELD = 1 << 19  # messages held until the end, at most; the engine keeps twice as many
_LOOK = 100  # ms after which a wait for messages looks whether there was a signal


# ---- text ----


def plain(value: Any) -> Any:
    """An AMQP value as JSON has it. Bytes that are no text become {"base64": ...}.

    >>> plain({b"k": [b"text", b"\\xff", 1.5, None]})
    {'k': ['text', {'base64': '/w=='}, 1.5, None]}
    """
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key if isinstance(key := plain(k), str) else str(key): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)  # JSON has neither infinity nor NaN
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _body(message: Message) -> tuple[str, Any]:
    """The kind of the body's sections, and the body: data sections joined."""
    if (data := message.data) is not None:
        return "data", b"".join(data)
    if (sequence := message.sequence) is not None:
        return "sequence", list(sequence)
    return "value", message.value


def as_text(message: Message) -> str:
    """The body as one line. Raises ValueError when it is malformed."""
    _, body = _body(message)
    if isinstance(body, bytes):
        return printable(body.decode("utf-8", "backslashreplace"))
    if isinstance(body, str):
        return printable(body)
    return "" if body is None else json.dumps(plain(body))


def as_json(message: Message) -> str:
    """The whole message as one line of JSON; absent sections are left out. Raises ValueError when it is malformed."""
    kind, body = _body(message)
    properties, header = message.properties, message.header
    parts = {
        "header": None if header is None else header._as_dict(),
        "delivery_annotations": message.delivery_annotations,
        "annotations": message.annotations,
        "properties": None if properties is None else properties._as_dict(),
        "application_properties": message.application_properties,
        "footer": message.footer,
    }
    for name in ("header", "properties"):
        fields = parts[name]
        if fields is not None:
            parts[name] = {k: v for k, v in fields.items() if v is not None}
    found = {name: plain(part) for name, part in parts.items() if part is not None}
    return json.dumps({"body": plain(body), "section": kind, **found})


def _size(message: Message) -> int:
    raw = message._raw
    if raw is not None:
        return len(raw)
    try:
        return message.get_message_encoded_size()
    except ValueError:  # a malformed one is counted as that
        return 0


FORMATS: dict[str, Callable[[Message], str] | None] = {"text": as_text, "json": as_json, "none": None}


# ---- receiving ----


class Received:
    """What became of the messages."""

    def __init__(self) -> None:
        self.received = self.bytes = self.malformed = 0
        self.accepted = self.released = self.rejected = self.came_settled = 0
        self.seconds = 0.0

    @property
    def begun(self) -> bool:
        return self.received > 0

    @property
    def done(self) -> int:
        return self.received

    @property
    def unsettled(self) -> int:
        return self.received - self.accepted - self.released - self.rejected - self.came_settled

    def rate(self) -> float:
        return self.received / self.seconds if self.seconds else 0.0

    def so_far(self) -> str:
        return f"{self.received:,} messages received, {self.received - self.unsettled:,} settled"

    def as_json(self, url: str, error: str | None, exit_status: int) -> dict[str, Any]:
        return {
            "url": url,
            "received": self.received,
            "accepted": self.accepted,
            "released": self.released,
            "rejected": self.rejected,
            "came_settled": self.came_settled,
            "unsettled": self.unsettled,
            "malformed": self.malformed,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 6),
            "messages_per_second": round(self.rate(), 1),
            "error": error,
            "exit_status": exit_status,
        }

    def lines(self) -> Iterator[str]:
        """The report for people."""
        for name, n in (
            ("accepted", self.accepted), ("released", self.released), ("rejected", self.rejected),
            ("came settled", self.came_settled), ("unsettled", self.unsettled), ("malformed", self.malformed),
        ):  # fmt: skip
            if n:
                yield f"  {name:<13}{n:>13,}" + ("   (the broker has them still)" if name == "unsettled" else "")
        if self.received:
            size = self.bytes / self.received * self.rate() / 1e6
            yield f"  {'rate':<13}{self.rate():>13,.0f} messages/s, {size:,.1f} MB/s, {self.seconds:.2f} s"


class Receiver:
    """Takes messages from a client, prints each and settles it as `ack` says: accept, reject, or release, which holds all
    of them until the end, so that none comes twice.

    `count`: how many, None: until there was none for `timeout` seconds. `check` is called between steps and may raise
    Interrupted. `write` gets the lines, as one text with line ends.
    """

    def __init__(
        self,
        client: ReceiveClient,
        report: Received,
        *,
        count: int | None,
        ack: str,
        form: Callable[[Message], str] | None,
        timeout: float,
        check: Callable[[], object],
        write: Callable[[str], object],
    ) -> None:
        self.report = report
        self._client = client
        self._count = count
        self._ack = ack
        self._form = form
        self._timeout = timeout
        self._check = check
        self._write = write
        self._held: list[int] = []

    def connect(self) -> None:
        """Until the link is attached. Raises what the client raises; bounded by its connect_timeout."""
        attach(self._client, self._check)
        # from here on credit is given here, so that the broker sends no message beyond the count
        self._client.message_handler._link.set_prefetch_count(0)

    def run(self, progress: Progress) -> None:
        """Until there are `count`, or no more. Raises what the client raises, GaveUp when there are not enough."""
        started = last = time.perf_counter()
        try:
            while (left := self._left()) > 0:
                batch = self._client.receive_message_batch(min(left, CREDIT), timeout=_LOOK)
                now = time.perf_counter()
                if batch:
                    self._take(batch)
                    last = time.perf_counter()
                    progress.update(self.report.received, last)
                    self._give_credit()
                elif now - last >= self._timeout:
                    if self._count is None:
                        break
                    raise GaveUp(f"no message for {self._timeout:g} s")
                self._check()
        except (GaveUp, Interrupted):
            self._give_back()
            raise
        finally:
            self.report.seconds = last - started
        self._give_back()

    def _give_back(self) -> None:
        held, self._held = self._held, []
        self._settle(held, "release")

    def _left(self) -> int:
        return CREDIT if self._count is None else self._count - self.report.received

    def _give_credit(self) -> None:
        link = self._client.message_handler
        credit = min(CREDIT, self._left() - len(self._client._received_messages) - len(link._arrived))
        if credit > 2 * link._credit:
            link.reset_link_credit(credit)

    def _take(self, batch: list[Message]) -> None:
        lines: list[str] = []
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        report = self.report
        settled = malformed = 0
        for message in batch:
            number = message.delivery_no
            why = self._print(message, lines)
            malformed += why is not None
            if message.settled:
                settled += 1
            elif why is None:
                good.append(number)
            else:
                bad.append((number, why))
        if lines:
            self._write("".join(lines))
        report.received += len(batch)
        report.bytes += sum(map(_size, batch))
        report.malformed += malformed
        report.came_settled += settled
        if self._ack == "release":
            self._held += good
        else:
            self._settle(good, self._ack)
        for number, why in bad:
            self._settle([number], "reject", b"amqp:decode-error", why)
        if len(self._held) >= HELD:
            raise GaveUp(f"{len(self._held):,} messages are held until the end, and no more can be")

    def _print(self, message: Message, lines: list[str]) -> str | None:
        """Add its line. What is wrong with the message if it is malformed."""
        if self._form is None:
            return None
        try:
            lines.append(self._form(message) + "\n")
        except ValueError as error:
            say(f"delivery {message.delivery_no} is malformed, and rejected: {printable(error)}")
            return str(error)
        return None

    def _settle(
        self,
        numbers: list[int],
        how: str,
        condition: bytes = b"amqp:not-allowed",
        why: str = "rejected by uamqp-cffi receive",
    ) -> None:
        from .._core.engine.sections import ACCEPTED, RELEASED, rejected
        from .._core.engine.serial import ranges, span

        link, report = self._client.message_handler, self.report
        state = ACCEPTED if how == "accept" else RELEASED if how == "release" else rejected(condition, why)
        name = {"accept": "accepted", "release": "released", "reject": "rejected"}[how]
        for first, last in ranges(numbers):
            link._settle(first, last, state)
            setattr(report, name, getattr(report, name) + span(first, last))
        link._flush()


def write_out(text: str, check: Callable[[], object]) -> None:
    """To standard output, at once. While nobody takes it off our hands, `check` is called now and then and may raise."""
    try:
        _write_out(text, check)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise GaveUp(f"cannot write to standard output: {exc.strerror or exc}") from exc


def _write_out(text: str, check: Callable[[], object]) -> None:
    sys.stdout.flush()
    fd = sys.stdout.fileno()
    data = memoryview(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))
    if os.name == "nt":
        while data:
            data = data[os.write(fd, data) :]
        return
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while data:
        while not poll.poll(_LOOK):
            check()
        data = data[os.write(fd, data[: select.PIPE_BUF]) :]  # so much fits where there is room at all


DEMO = 10  # messages that the embedded broker has for `receive`


# ---- receive ----


def _receive(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:

    if args.output is None:
        args.output = "json" if args.json else "text"

    report = Received()

    def work(signals: _Signals, own: bool) -> int:
        if own:
            args.count = DEMO if args.count is None else args.count
            _fill(args.url, args.count, signals)
        return _receive_from(args, parser, report, signals)

    return _with_broker(args, parser, (), work, report)


def _fill(url: str, count: int, signals: _Signals) -> None:
    """Messages for a demo."""
    from ..client import SendClient
    from ..message import Message

    with SendClient(url) as client:
        for start in range(0, count, WINDOW):
            numbers = range(start, min(count, start + WINDOW))
            client.queue_message(*(Message(b"message %d" % (n + 1)) for n in numbers))
            client.wait()
    say(f"sent {count:,} messages to it, to be received now")


def _receive_from(
    args: argparse.Namespace, parser: argparse.ArgumentParser, report: Received, signals: _Signals
) -> int:
    from ..client import ReceiveClient

    url, count = masked(args.url), args.count

    def write(text: str) -> None:
        write_out(text, signals.check)

    try:
        credit = CREDIT if count is None else min(CREDIT, count)
        client = ReceiveClient(
            args.url,
            auto_complete=False,
            prefetch=credit,
            max_message_size=args.max_message_size,
            **_client_options(args),
        )
        client._prefetch = credit  # 0 is no default here
    except ValueError as exc:
        parser.error(str(exc))
    receiver = Receiver(
        client,
        report,
        count=count,
        ack=args.ack,
        form=FORMATS[args.output],
        timeout=args.timeout,
        check=signals.check,
        write=write,
    )

    def bar() -> Progress:
        return NoProgress() if args.output != "none" and sys.stdout.isatty() else make_progress(count, "receiving")

    try:
        status, error = _drive(receiver, client, bar, signals, url, "received")
    finally:
        connection = client._connection
        _finish(client.close, signals, _CLOSING if signals.number else None)
    if status == OK and (connection._failure is not None or connection._leaving):
        status = NOT_ALL
        error = f"lost {url} before it had confirmed the end: it may not know the outcomes, and send messages again"
    elif status == OK and report.malformed:
        status, error = NOT_ALL, f"{report.malformed:,} of {report.received:,} messages were malformed"
    return _print(args, report, url, signals, status, error)


def _show_received(args: argparse.Namespace, report: Received, url: str, error: str | None) -> None:
    if report.received or not error:
        say(f"{report.received:,} messages from {url}")
        for line in report.lines():
            say(line)
