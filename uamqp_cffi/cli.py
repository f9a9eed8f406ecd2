"""The command `uamqp-cffi`: send messages and see what became of each, receive messages, run the embedded broker, decode
frames.

Results go to standard output (one JSON object with --json), progress and complaints to standard error. Exit status:

    0    every message was accepted (sent, when pre-settled); all that were asked for were received and settled; every
         frame was well formed
    1    some messages were not accepted, or too few came, or the connection was lost after the link was attached; a
         malformed message or frame
    2    usage: an unknown option, a bad address, a file that cannot be read
    3    no connection: name resolution, TCP, TLS, SASL or the attach failed; the broker could not listen
    130  Ctrl-C (143: SIGTERM); what had been confirmed until then is still reported
    141  whoever read standard output has left; what receive could not print stays with the broker
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ._cli_send import (
    GaveUp,
    Interrupted,
    Lines,
    NoProgress,
    Progress,
    Repeated,
    Report,
    Sender,
    make_client,
    make_progress,
    moulder,
    printable,
    say,
    to_nowhere,
)
from ._core.waiting.locks import Signal

if TYPE_CHECKING:
    from ._cli_receive import Received, Receiver
    from .broker import Broker
    from .client import ReceiveClient, SendClient
else:
    # for who evaluates annotations: to start quickly, the command loads what it needs when it does
    Broker = Received = Receiver = ReceiveClient = SendClient = Any

OK, NOT_ALL, USAGE, NO_CONNECTION = 0, 1, 2, 3
_BROKEN_PIPE = 141  # as a program that SIGPIPE ended

WINDOW = 2000  # messages handed to the client and not confirmed, at most
_OPTIONS = {"use_tls=False": "--no-tls", "address=": "--address", "TransportType.AmqpOverWebsocket": "--websocket"}
DEMO = 10  # messages that the embedded broker has for `receive`
_CLOSING = 0.15  # seconds that Ctrl-C leaves for saying good-bye to the broker


# ---- signals ----


class _Signals:
    """SIGINT and SIGTERM for one command.

    While `deferred`, a signal is only noted in `number` (and `on_signal` is called), so that a step in progress keeps
    its books right; a second one, or one that comes at another time, raises KeyboardInterrupt. Outside the main thread
    this does nothing.
    """

    def __init__(self, on_signal: Callable[[], object] | None = None) -> None:
        self.number = 0
        self.deferred = False
        self._on_signal = on_signal
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number, number
        if self._on_signal is not None:
            self._on_signal()
        if again or not self.deferred:
            raise KeyboardInterrupt

    def check(self) -> None:
        if self.number:
            raise Interrupted

    @property
    def exit_status(self) -> int:
        return 128 + (self.number or signal.SIGINT)

    @property
    def name(self) -> str:
        return "stopped by SIGTERM" if self.number == signal.SIGTERM else "interrupted"


# ---- text ----


def masked(url: str) -> str:
    """`url` with the password, if there is one, replaced by ***."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return urlunsplit(parts._replace(netloc=f"{name}:***@{host}")) if at and colon else url


def _with_user(url: str, name: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(name, safe='')}:{quote(password, safe='')}@{host}"))


# ---- what send and receive have in common ----


def proxy_of(text: str, password: str | None) -> dict[str, Any]:
    """`[http://][USER@]HOST:PORT` as `http_proxy`. Raises ValueError for anything else, and for a user without a password.

    >>> proxy_of("http://proxy.example:3128", None)
    {'proxy_hostname': 'proxy.example', 'proxy_port': 3128}
    """
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("--proxy wants [http://][USER@]HOST:PORT")
    if parts.password is not None:
        raise ValueError("--proxy: the password belongs into the environment variable PROXY_PASSWORD")
    try:
        port = parts.port
    except ValueError:
        port = None
    if port is None:
        raise ValueError("--proxy names no port: it wants [http://][USER@]HOST:PORT")
    given: dict[str, Any] = {"proxy_hostname": parts.hostname, "proxy_port": port}
    if parts.username is not None:
        if password is None:
            raise ValueError("--proxy: the environment variable PROXY_PASSWORD with the password is not set")
        given |= {"username": unquote(parts.username), "password": password}
    return given


def _client_options(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments for the client of `args.url`. Raises ValueError for what the user got wrong."""
    from .constants import TransportType
    from .errors import ErrorPolicy

    url = args.url
    options: dict[str, Any] = {"connect_timeout": args.timeout, "error_policy": ErrorPolicy(max_retries=0)}
    if args.address:
        options["address"] = args.address
    elif not urlsplit(url).path:
        raise ValueError(f"{masked(url)} names no queue or other node: add a path, or give --address")
    if args.websocket:
        options["transport_type"] = TransportType.AmqpOverWebsocket
    if args.proxy:
        options["http_proxy"] = proxy_of(args.proxy, os.environ.get("PROXY_PASSWORD"))
    if args.no_tls:
        options["use_tls"] = False
    elif args.ca:
        options["use_tls"] = True
        try:
            options["ssl_context"] = ssl.create_default_context(cafile=args.ca)
        except OSError as exc:
            raise ValueError(f"cannot use {args.ca}: {exc.strerror or exc}") from exc
    return options


class _NoBroker(Exception):
    """The child process ended before it listened."""


class _ChildBroker:
    """The embedded broker in a process of its own, so that a real socket and a second Python are between the two."""

    def __init__(self, *more: str) -> None:
        # The child imports what this process did, whatever folder it is started in; and is no part of our process
        # group, so that the terminal's Ctrl-C leaves it up until we are done. It ends with our end of the pipe.
        code = f"import sys; sys.path[:] = {sys.path!r}; from uamqp_cffi.cli import main; sys.exit(main())"
        group: dict[str, Any] = {"start_new_session": True}
        if os.name == "nt":
            group = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        options = ["--port", "0", "--quiet", "--json", "--stop-on-eof", *more]
        command = [sys.executable, "-c", code, "broker", *options]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **group)
        except OSError as exc:
            raise _NoBroker(f"the embedded broker did not start: {exc.strerror or exc}") from exc
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except BaseException:
            self.stop()
            raise
        if not line:
            self.stop()
            raise _NoBroker(f"the embedded broker did not start (exit status {self._process.returncode})")
        self.url: str = json.loads(line)["url"]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _with_broker(
    args: argparse.Namespace,
    parser: argparse.ArgumentParser,
    options: tuple[str, ...],
    work: Callable[[_Signals, bool], int],
    report: Report | Received,
) -> int:
    """`work(signals, own)` with args.url complete: the user's, or that of an embedded broker of our `own`; it keeps its
    books in `report`. The exit status."""
    if args.url is not None:
        try:
            urlsplit(args.url)
        except ValueError:  # its text may have the password in it
            parser.error("the URL is malformed: its host is no host name and no [IPv6 address]")
    if args.user is not None:
        if args.url is None:
            parser.error("--user needs a URL: the embedded broker knows no users")
        password = os.environ.get(args.password_env)
        if password is None:
            parser.error(f"--user: the environment variable {args.password_env} with the password is not set")
        args.url = _with_user(args.url, args.user, password)
    if args.proxy is not None and args.url is None:
        parser.error("--proxy needs a URL: the embedded broker is on this machine")
    with _Signals() as signals:
        child = None
        try:
            if args.url is None:
                child = _ChildBroker(*options)
                args.url = f"{child.url}/{args.address or 'demo'}"
                args.no_tls = True  # a WebSocket would be one with TLS otherwise
                say(f"started the embedded broker in a child process: {child.url}")
            return work(signals, child is not None)
        except KeyboardInterrupt:
            if args.printing:  # nobody reads the report
                to_nowhere(sys.stdout)
                say(signals.name)
                return signals.exit_status
            error = f"{signals.name}: {report.so_far() if report.begun else f'nothing was {args.done}'}"
            return _print(args, report, masked(args.url or ""), signals, signals.exit_status, error)
        except _NoBroker as exc:
            return _print(args, report, "", signals, NO_CONNECTION, str(exc))
        finally:
            if child is not None:
                child.stop()


def _drive(
    worker: Sender | Receiver,
    client: SendClient | ReceiveClient,
    make_bar: Callable[[], Progress],
    signals: _Signals,
    url: str,
    done: str,
) -> tuple[int, str | None]:
    """Connect and do the work: the exit status, and what went wrong. From here on signals are deferred."""
    from .errors import AMQPError

    report = worker.report
    attached = False
    signals.deferred = True
    try:
        client.open()
        worker.connect()
        attached = True
        say(f"connected to {url}")
        progress = make_bar()
        try:
            worker.run(progress)
        finally:
            progress.close(report.done)
        return OK, None
    except (Interrupted, KeyboardInterrupt):
        return signals.exit_status, f"{signals.name}: {report.so_far() if attached else f'nothing was {done}'}"
    except GaveUp as exc:
        return NOT_ALL, f"gave up: {exc}"
    except BrokenPipeError:  # who read our output has left
        raise
    except (AMQPError, OSError, ValueError) as exc:
        what = f"lost {url}" if attached else f"cannot connect to {url}"
        return NOT_ALL if attached else NO_CONNECTION, f"{what}: {_words(exc)}"


def _print(
    args: argparse.Namespace, report: Report | Received, url: str, signals: _Signals, status: int, error: str | None
) -> int:
    """The report, and the error on standard error; gives the exit status. A signal does not cut the report off, a second
    one does."""
    signals.deferred = args.printing = True
    if args.json:
        print(json.dumps(report.as_json(url, error, status)))
        sys.stdout.flush()
    else:
        args.show(args, report, url, error)
    if error:
        say(f"error: {error}" if status < 128 else error)
    return status


def _words(exc: BaseException) -> str:
    """What `exc` says, without an errno in front, and with options of this command for arguments of SendClient."""
    text = printable(getattr(exc, "strerror", None) or exc) or type(exc).__name__
    for argument, option in _OPTIONS.items():
        text = text.replace(argument, option)
    return text


def _finish(close: Callable[[], object], signals: _Signals, patience: float | None) -> None:
    """Call `close`, and let it go on by itself after `patience` seconds (None: never) or on Ctrl-C."""
    closing = threading.Thread(target=close, name="uamqp-cffi-close", daemon=True)
    closing.start()
    try:
        signals.deferred = False
        closing.join(patience)
        signals.deferred = True
    except KeyboardInterrupt:
        signals.deferred = True
        closing.join(_CLOSING)


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
    from .constants import SenderSettleMode

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


# ---- receive ----


def _receive(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from ._cli_receive import Received

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
    from .client import SendClient
    from .message import Message

    with SendClient(url) as client:
        for start in range(0, count, WINDOW):
            numbers = range(start, min(count, start + WINDOW))
            client.queue_message(*(Message(b"message %d" % (n + 1)) for n in numbers))
            client.wait()
    say(f"sent {count:,} messages to it, to be received now")


def _receive_from(
    args: argparse.Namespace, parser: argparse.ArgumentParser, report: Received, signals: _Signals
) -> int:
    from ._cli_receive import CREDIT, FORMATS, Receiver, write_out
    from .client import ReceiveClient

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


# ---- broker ----


def _broker(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from .broker import Broker

    options: dict[str, Any] = {"store": not args.discard}
    if args.user:
        options["users"] = dict(_user(text, parser) for text in args.user)
    if args.tls:
        try:
            options["ssl_context"] = _server_context(*args.tls)
        except OSError as exc:
            parser.error(f"cannot use {' and '.join(args.tls)}: {exc}")
    port = args.port if args.port is not None else 5671 if args.tls else 5672
    stop = Signal()  # unlike an Event it may be set by a handler that interrupts the very wait
    with _Signals(stop.set) as signals:
        signals.deferred = True
        try:
            broker = Broker(args.host, port, **options)
        except OSError as exc:
            say(f"error: cannot listen on {args.host}:{port}: {exc.strerror or exc}")
            return NO_CONNECTION
        try:
            print(json.dumps({"url": broker.url}) if args.json else f"ready: {broker.url}", flush=True)
            if not args.quiet:
                say("messages are kept in memory, for development and tests: not for production; Ctrl-C ends it")
            if args.stop_on_eof:
                threading.Thread(target=_wait_for_eof, args=(stop,), daemon=True).start()
            while not stop.wait(0.25 if os.name == "nt" else 3600):
                continue
            _print_queues(broker, args.json, args.quiet)
        finally:
            _finish(broker.close, signals, _CLOSING)
        return signals.exit_status if signals.number else OK


def _server_context(cert_file: str, key_file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context


def _print_queues(broker: Broker, as_json: bool, quiet: bool) -> None:
    queues = [broker.info(name) for name in broker.queues]
    if as_json:
        counts = {q.name: {"received": q.received, "held": q.messages + q.unsettled, "dead": q.dead} for q in queues}
        print(json.dumps({"queues": counts}), flush=True)
    elif not quiet:
        print(f"stopped: {sum(q.received for q in queues):,} messages had been accepted")
        for q in queues:
            print(f"  {printable(q.name)}: {q.received:,} accepted, {q.messages + q.unsettled:,} still here")
        sys.stdout.flush()


def _user(text: str, parser: argparse.ArgumentParser) -> tuple[str, str]:
    name, colon, password = text.partition(":")
    if not colon or not name:
        parser.error("--user wants NAME:PASSWORD")
    return name, password


def _wait_for_eof(stop: Signal) -> None:
    try:
        while sys.stdin is not None and os.read(sys.stdin.fileno(), 4096):
            pass
    finally:
        stop.set()


# ---- decode ----


def _decode(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if args.hex == ["-"] and sys.stdin is None:
        parser.error("there is no standard input")
    try:
        data = unhex(sys.stdin.read() if args.hex == ["-"] else " ".join(args.hex))
    except ValueError as exc:
        say(f"error: {exc}")
        return NOT_ALL
    if not data:
        parser.error("nothing to decode")
    from ._core.engine.engine import dump

    view, at, bad = memoryview(data), 0, []
    while at < len(data):
        line, used = dump(view[at:], args.payload)
        if not used:
            bad.append(at)
            break
        print(line)
        if line.startswith("raw "):
            bad.append(at)
        at += used
    sys.stdout.flush()
    if not bad:
        return OK
    what = "malformed frame" if at == len(data) or bad[0] != at else "the input ends inside a frame, which begins"
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    say(f"error: {what} at offset {bad[0]} of {len(data)}{more}")
    return NOT_ALL


def unhex(text: str) -> bytes:
    """Hexadecimal digits, with blanks anywhere and an optional 0x, as bytes. Raises ValueError that names the offset.

    >>> unhex("0x41 4d5 1")
    b'AMQ'
    >>> unhex("41 4g")
    Traceback (most recent call last):
    ValueError: 'g' at offset 4 is no hexadecimal digit
    """
    start = len(text) - len(text.lstrip())
    start += 2 if text[start : start + 2].lower() == "0x" else 0
    digits = "".join(text[start:].split())
    try:
        return bytes.fromhex(digits)
    except ValueError:
        for at, c in enumerate(text[start:], start):
            if not c.isspace() and c not in "0123456789abcdefABCDEF":
                raise ValueError(f"{c!r} at offset {at} is no hexadecimal digit") from None
        raise ValueError(f"the last byte has one digit only ({len(digits)} digits)") from None


# ---- the command ----


def _number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text.replace(",", ""))
        if value < least:
            raise ValueError
        return value

    number.__name__ = "number" if least == 0 else "positive number"
    return number


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 65536:
        raise ValueError
    return value


_seconds.__name__, _port.__name__ = "number of seconds", "port"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, instead of after a page of options."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The command line, as argparse knows it."""
    from . import __version__

    about = "AMQP 1.0: send and receive messages, run a broker, read frames."
    parser = _Parser(prog="uamqp-cffi", description=about)
    parser.add_argument("--version", action="version", version=f"uamqp-cffi {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="send|receive|broker|decode")
    _add_send(commands.add_parser("send", help="send messages and report what became of each"))
    _add_receive(commands.add_parser("receive", help="receive messages and print them"))
    _add_broker(commands.add_parser("broker", help="run the embedded broker until Ctrl-C"))
    _add_decode(commands.add_parser("decode", help="print AMQP frames given in hexadecimal as text"))
    return parser


def _add_send(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.description = (
        "Send messages and report what became of each. Without a URL they go to an embedded broker in a child process, "
        "over a real socket. Exit status: 0 every message was accepted, 1 some were not or the connection was lost, "
        "2 usage, 3 no connection, 130 Ctrl-C."
    )
    _add_connection(parser, "no outcome")
    add("--count", type=_number(0), metavar="N", help="how many messages (default 1; with --file: all lines)")
    body = parser.add_mutually_exclusive_group()
    body.add_argument("--size", type=_number(0), default=100, metavar="BYTES", help="size of each body (default 100)")
    body.add_argument("--body", metavar="TEXT", help="body of each message")
    body.add_argument("--file", metavar="PATH", help="one message per line of this file; - is standard input")
    modes = "unsettled (default) waits for every outcome; settled, mixed: a message is done once the kernel has it"
    add("--settle", choices=("unsettled", "settled", "mixed"), default="unsettled", help=modes)
    window = f"messages in flight at most (default {WINDOW}); 1 shows the latency of a single message"
    add("--window", type=_number(1), default=WINDOW, metavar="N", help=window)
    durable = "let the broker lose the messages when it restarts; without it each has durable=true in its header"
    add("--no-durable", action="store_true", help=durable)
    add("--subject", metavar="TEXT", help="the property subject")
    known = "a standard property, such as message-id, to, reply-to, correlation-id, content-type; may be repeated"
    add("--property", type=_pair, action="append", default=[], metavar="NAME=VALUE", help=known)
    own = "an application property, a string; may be repeated"
    add("--app-property", type=_pair, action="append", default=[], metavar="NAME=VALUE", help=own)
    add("--ttl", type=_number(0), metavar="MS", help="milliseconds that the messages are good for")
    add("--priority", type=_number(0), metavar="N", help="0 (lowest) to 255; 4 is what messages without one have")
    parser.set_defaults(run=_send, show=_show_sent, done="sent", printing=False, parser=parser)


def _pair(text: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"NAME=VALUE is wanted, not {text!r}")
    return name, value


def _add_connection(parser: argparse.ArgumentParser, silence: str) -> None:
    """Where to, and how: what send and receive have in common."""
    add = parser.add_argument
    url = "amqps://host[:port]/address; amqp:// is plain TCP for loopback hosts only"
    add("url", metavar="URL", nargs="?", help=url)
    add("--address", metavar="ADDRESS", help="node address exactly as the broker wants it (RabbitMQ: /queues/NAME)")
    add("--ca", metavar="FILE", help="trust these certificate authorities (PEM) instead of the usual ones; implies TLS")
    add("--no-tls", action="store_true", help="plain TCP, also to hosts that are not loopback")
    add("--websocket", action="store_true", help="AMQP inside of a WebSocket (port 443 unless the URL has one)")
    proxy = "go through this HTTP proxy, by WebSocket; its password: environment variable PROXY_PASSWORD"
    add("--proxy", metavar="[USER@]HOST:PORT", help=proxy)
    add("--user", metavar="NAME", help="log in as NAME (SASL PLAIN)")
    variable = "environment variable that holds the password (default AMQP_PASSWORD)"
    add("--password-env", metavar="VAR", default="AMQP_PASSWORD", help=variable)
    timeout = f"end when connecting takes longer, or when {silence} came for so long (default 30)"
    add("--timeout", type=_seconds, default=30.0, metavar="SECONDS", help=timeout)
    add("--json", action="store_true", help="print the report as one JSON object on standard output")


def _add_receive(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.description = (
        "Receive messages and print the body of each as one line; the report goes to standard error. A message is settled "
        "once its line was written. Without a URL an embedded broker in a child process has some for a start. Exit "
        "status: 0 as many as asked for were received and settled, or no more came; 1 fewer, or a malformed one, or the "
        "connection was lost, 2 usage, 3 no connection, 130 Ctrl-C."
    )
    _add_connection(parser, "no message")
    count = f"how many messages (default: until none came for --timeout; without a URL {DEMO})"
    add("--count", type=_number(0), metavar="N", help=count)
    ack = "accept (default) takes them off the queue, release leaves them there, reject makes dead letters of them"
    add("--ack", choices=("accept", "release", "reject"), default="accept", help=ack)
    output = "text: the body (default); json: the whole message as one JSON object (default with --json); none"
    add("--output", choices=("text", "json", "none"), help=output)
    largest = "bytes of the largest message to take, told to the broker (default: not told, and up to 64 MiB are taken)"
    add("--max-message-size", type=_number(1), metavar="BYTES", help=largest)
    parser.set_defaults(run=_receive, show=_show_received, done="received", printing=False, parser=parser)


def _add_broker(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.description = "Run the embedded broker until Ctrl-C. It keeps messages in memory and is not for production."
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add("--port", type=_port, help="port; 0 takes a free one (default 5672, with --tls 5671)")
    add("--tls", nargs=2, metavar=("CERT", "KEY"), help="speak TLS with this certificate and key (PEM files)")
    add("--user", action="append", metavar="NAME:PASSWORD", help="demand SASL PLAIN from these; may be repeated")
    add("--discard", action="store_true", help="accept messages and forget them")
    add("--json", action="store_true", help='print the ready line as JSON: {"url": ...}')
    add("--quiet", action="store_true", help="say nothing on standard error")
    add("--stop-on-eof", action="store_true", help="end when standard input ends, too")
    parser.set_defaults(run=_broker, parser=parser)


def _add_decode(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print AMQP frames as text, one line each; payloads and SASL data only with --payload."
    frames = "frames in hexadecimal, blanks allowed; - reads standard input"
    parser.add_argument("hex", metavar="HEX", nargs="+", help=frames)
    parser.add_argument("--payload", action="store_true", help="print message payloads and SASL data (secrets!) too")
    parser.set_defaults(run=_decode, parser=parser)


def _fill_in_streams() -> None:
    """A program may be started without output (`>&-`, a service without a terminal): it goes nowhere then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def main(argv: list[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's); the exit status. Usage errors leave by SystemExit(2)."""
    args = make_parser().parse_args(argv)
    _fill_in_streams()
    logging.getLogger("uamqp").addHandler(logging.NullHandler())  # what matters is in the one line that we print
    try:
        status: int = args.run(args, args.parser)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        to_nowhere(sys.stdout)
        return _BROKEN_PIPE
    except OSError as exc:
        to_nowhere(sys.stdout)
        say(f"error: cannot write to standard output: {exc.strerror or exc}")
        return NOT_ALL
    except KeyboardInterrupt:
        say("interrupted")
        return 128 + signal.SIGINT
