"""The blocking classes where greenlets stand for threads."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parent / "programs"
SEND = "import uamqp_cffi as u; u.SendClient('amqp://localhost/q').open()\n"
LIMIT = 20.0


@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
def test_clients_work_in_greenlets_when_the_standard_library_was_patched_first(
    kind: str, peer: Any, tls_peer: tuple[str, str], wrong: Any
) -> None:
    assert wrong("greens.py", kind, peer.url, *tls_peer) == {}


@pytest.mark.parametrize(
    "code, told",
    [
        ("import uamqp_cffi.client, gevent.monkey; gevent.monkey.patch_all()\n", "was called after uamqp_cffi was imported"),
        ("import gevent.monkey; gevent.monkey.patch_all(thread=False)\n", "gevent has replaced the standard library without thread:"),
        ("import eventlet; eventlet.monkey_patch(select=False)\n", "eventlet has replaced the standard library without select:"),
    ],
    ids=["late", "without threads", "without select"],
)  # fmt: skip
def test_what_cannot_work_says_so_at_once(code: str, told: str, runtimes: str, tmp_path: Path) -> None:
    command = [runtimes, "-W", "ignore", "-c", code + SEND]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: ") and told in last, done.stderr


def ask(where: str, path: str) -> str:
    """What a server on that Unix socket answers."""
    connection = http.client.HTTPConnection("localhost", timeout=LIMIT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(LIMIT)
    connection.sock.connect(where)
    connection.request("GET", path)
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


def test_requests_of_gunicorns_gevent_worker_share_clients(runtimes: str, peer: Any, tmp_path: Path) -> None:
    where = str(tmp_path / "http")
    command = [
        runtimes,
        "-m",
        "gunicorn",
        "-k",
        "gevent",
        "-b",
        "unix:" + where,
        "--chdir",
        str(PROGRAMS),
        "application",
    ]
    env = {**os.environ, "BROKER": peer.url}
    server = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        said = []
        while not said or "Booting worker" not in said[-1]:
            said.append(server.stderr.readline())
            assert said[-1], said
        got: list[str] = []
        threads = [threading.Thread(target=lambda n=n: got.append(ask(where, f"/{n}"))) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        server.send_signal(signal.SIGTERM)
        _, rest = server.communicate(timeout=LIMIT)
    finally:
        server.kill()
        server.wait()
    assert sorted(got) == sorted(f"ReceivedSettled /{n}" for n in range(20)), rest
    assert "Traceback" not in rest and server.returncode == 0, rest
