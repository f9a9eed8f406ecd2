"""What every command has in common: its options for a client, its steps, its end."""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from .progress import Progress
from .signals import _Signals
from .text import GaveUp, Interrupted, printable, say

if TYPE_CHECKING:
    from ..client import ReceiveClient, SendClient
else:
    ReceiveClient = SendClient = Any  # for who evaluates annotations

OK, NOT_ALL, USAGE, NO_CONNECTION = 0, 1, 2, 3
_OPTIONS = {"use_tls=False": "--no-tls", "address=": "--address", "TransportType.AmqpOverWebsocket": "--websocket"}
_CLOSING = 0.15  # seconds that Ctrl-C leaves for saying good-bye to the broker


class Books(Protocol):
    """What a command counted, as far as its start and end are concerned."""

    @property
    def begun(self) -> bool: ...
    @property
    def done(self) -> int: ...
    def so_far(self) -> str: ...
    def as_json(self, url: str, error: str | None, exit_status: int) -> dict[str, Any]: ...


class Worker(Protocol):
    """What connects, and does the work of a command."""

    @property
    def report(self) -> Books: ...
    def connect(self) -> None: ...
    def run(self, progress: Progress) -> None: ...


def attach(client: SendClient | ReceiveClient, check: Callable[[], object]) -> None:
    """Until the link is attached. Raises what the client raises; bounded by its connect_timeout."""
    while not (client.auth_complete() and client.client_ready()):
        check()


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
    from ..constants import TransportType
    from ..errors import ErrorPolicy

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


def _drive(
    worker: Worker,
    client: SendClient | ReceiveClient,
    make_bar: Callable[[], Progress],
    signals: _Signals,
    url: str,
    done: str,
) -> tuple[int, str | None]:
    """Connect and do the work: the exit status, and what went wrong. From here on signals are deferred."""
    from ..errors import AMQPError

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


def _print(args: argparse.Namespace, report: Books, url: str, signals: _Signals, status: int, error: str | None) -> int:
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
