"""A broker in a process of its own, for a command that is to do without one."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .run import NO_CONNECTION, Books, _print, _with_user, masked
from .signals import _Signals
from .text import say, to_nowhere


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
    report: Books,
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
