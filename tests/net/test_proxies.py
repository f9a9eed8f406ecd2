"""HTTP proxies that are not ours, between a client and the embedded broker: tinyproxy (C) and proxy.py (Python).

UAMQP_TINYPROXY       the program
UAMQP_PROXYPY_PYTHON  an interpreter that has proxy.py
"""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi import Message, ReceiveClient, SendClient, authentication, errors
from uamqp_cffi.broker import Broker

pytestmark = pytest.mark.net

SOON = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def tinyproxy(needed: Callable[[str], str], folder: pathlib.Path, port: int, credentials: str) -> list[str]:
    settings = [f"Port {port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "Timeout 600", "MaxClients 20"]
    if credentials:
        settings.append("BasicAuth " + credentials.replace(":", " "))
    (folder / "tinyproxy.conf").write_text("\n".join(settings) + "\n")
    return [needed("UAMQP_TINYPROXY"), "-d", "-c", str(folder / "tinyproxy.conf")]


def proxy_py(needed: Callable[[str], str], folder: pathlib.Path, port: int, credentials: str) -> list[str]:
    command = [needed("UAMQP_PROXYPY_PYTHON"), "-m", "proxy", "--hostname", "127.0.0.1", "--port", str(port)]
    return [
        *command,
        "--num-workers",
        "1",
        "--num-acceptors",
        "1",
        *(["--basic-auth", credentials] if credentials else []),
    ]


Proxy = dict[str, Any]


@pytest.fixture(params=[tinyproxy, proxy_py], ids=["tinyproxy", "proxy.py"])
def proxy(
    request: pytest.FixtureRequest, from_environment: Any, tmp_path: pathlib.Path
) -> Iterator[Callable[..., Proxy]]:
    """`proxy(credentials="")`: starts one; what `http_proxy` needs for it, without the credentials."""
    with contextlib.ExitStack() as stack:

        def start(credentials: str = "") -> Proxy:
            port = free_port()
            log = stack.enter_context((tmp_path / "log").open("wb"))
            command = request.param(from_environment, tmp_path, port, credentials)
            process = stack.enter_context(subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log))
            stack.callback(process.terminate)
            end = time.monotonic() + SOON
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    return {"proxy_hostname": "127.0.0.1", "proxy_port": port}
                assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.02)

        yield start


@pytest.fixture(params=["ws", "wss"])
def broker(request: pytest.FixtureRequest, certificates: Any) -> Iterator[Broker]:
    with Broker(ssl_context=certificates.server if request.param == "wss" else None) as made:
        yield made


def auth(broker: Broker, certificates: Any, given: Proxy) -> Any:
    tls = broker.url.startswith("amqps")
    return authentication.SASLAnonymous(
        "localhost", port=broker.port, verify=certificates.ca_file, http_proxy=given, use_tls=tls
    )


@pytest.mark.parametrize("credentials", ["", "joe:sesame"])
def test_messages_go_and_come_through_it(
    proxy: Callable[..., Proxy], broker: Broker, certificates: Any, ends_within: Any, credentials: str
) -> None:
    given = proxy(credentials)
    if credentials:
        given |= dict(zip(("username", "password"), credentials.split(":"), strict=True))
    bodies = [b"%d" % n * 100 for n in range(1000)] + [b"x" * 500_000]

    def send() -> int:
        with SendClient(broker.url + "/q", auth(broker, certificates, given)) as client:
            client.queue_message(*[Message(body) for body in bodies])
            return len(client.send_all_messages())

    def receive() -> list[bytes]:
        got: list[bytes] = []
        with ReceiveClient(broker.url + "/q", auth(broker, certificates, given)) as client:
            while len(got) < len(bodies):
                got += [b"".join(message.get_data()) for message in client.receive_message_batch(timeout=10_000)]
        return got

    assert ends_within(SOON, send).value == len(bodies)
    assert ends_within(SOON, receive).value == bodies


@pytest.mark.parametrize("user", [{}, {"username": "joe", "password": "wrong-one"}], ids=["none", "wrong"])
def test_other_credentials_are_refused_and_told(
    proxy: Callable[..., Proxy], broker: Broker, certificates: Any, ends_within: Any, user: dict[str, str]
) -> None:
    given = proxy("joe:sesame") | user
    with SendClient(broker.url + "/q", auth(broker, certificates, given)) as client:
        error = ends_within(SOON, client.send_message, Message(b"x")).error
    assert isinstance(error, errors.HTTPRefused), error
    assert error.by == "proxy"
    assert error.status in (401, 407)  # tinyproxy 1.11 answers wrong credentials with 401
    assert "wrong-one" not in str(error)
    assert broker.info("q").received == 0


def test_a_port_where_nobody_listens_is_told(proxy: Callable[..., Proxy], certificates: Any, ends_within: Any) -> None:
    given = proxy()
    target = authentication.SASLAnonymous("localhost", port=free_port(), http_proxy=given, use_tls=False)
    with SendClient("amqp://localhost/q", target, connect_timeout=SOON / 2) as client:
        outcome = ends_within(SOON, client.send_message, Message(b"x"))
    assert isinstance(outcome.error, errors.HTTPRefused), outcome.error
    assert outcome.error.by == "proxy"
    assert outcome.seconds < SOON / 2
