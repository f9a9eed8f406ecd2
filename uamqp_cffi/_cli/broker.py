"""The command `broker`."""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import threading
from typing import TYPE_CHECKING, Any

from .._core.waiting.locks import Signal
from .run import _CLOSING, NO_CONNECTION, OK, _finish
from .signals import _Signals
from .text import printable, say

if TYPE_CHECKING:
    from ..broker import Broker
else:
    Broker = Any  # for who evaluates annotations


def _broker(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from ..broker import Broker

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
