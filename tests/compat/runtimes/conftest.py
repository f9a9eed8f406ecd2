"""Runtimes and test tools that replace parts of the standard library, in a virtual environment of their own: `programs/` are
programs for it. A program makes many checks, and says in JSON what became of each; the test looks at that."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from uamqp_cffi.broker import Broker

PACKAGES = ["gevent>=25.4.1", "eventlet", "gunicorn[gevent]", "freezegun==1.5.5", "time-machine", "trio"]
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def runtimes(request: pytest.FixtureRequest) -> str:
    """An interpreter that has them. UAMQP_RUNTIMES_PYTHON may name one that has them already, and this package."""
    given = os.environ.get("UAMQP_RUNTIMES_PYTHON")
    return given or str(request.getfixturevalue("fresh_venv")(*PACKAGES).python)


@pytest.fixture
def peer() -> Iterator[Broker]:
    """A broker that wants to hear from its clients, with a node that never answers."""
    with Broker(idle_timeout=0.8) as broker:
        broker.script("silent", "none")
        broker.answer("silence", None)
        yield broker


@pytest.fixture
def silent() -> Iterator[str]:
    """`host:port` of a peer that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def wrong(runtimes: str) -> Callable[..., Any]:
    """`wrong(program, *arguments)`: the checks of that program which failed, by name."""

    def run(program: str, *arguments: str) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        command = [runtimes, str(PROGRAMS / program), *arguments]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0 and ran.stdout, ran.stdout + ran.stderr
        checks = json.loads(ran.stdout)
        assert len(checks) > 3
        failed = {name: told for name, told in checks.items() if told != "ok"}
        if failed:
            print(ran.stderr)
        return failed

    return run


@pytest.fixture
def tls_peer(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The same with TLS: its URL, and the file of who signed its certificate."""
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Broker(ssl_context=context) as broker:
        yield broker.url.replace("127.0.0.1", "localhost"), str(file)
