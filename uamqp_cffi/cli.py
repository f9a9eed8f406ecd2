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
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from ._cli.broker import _broker
from ._cli.decode import _decode
from ._cli.receive import DEMO, _receive, _show_received
from ._cli.run import NOT_ALL, USAGE
from ._cli.send import WINDOW, _send, _show_sent
from ._cli.text import say, to_nowhere

_BROKEN_PIPE = 141  # as a program that SIGPIPE ended


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
