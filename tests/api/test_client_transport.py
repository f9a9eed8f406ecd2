"""Where a SendClient connects to, whether by TLS, and how it goes away: arguments and URL down to sockets and exit."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from uamqp_cffi import Message, SendClient, Target, TransportType
from uamqp_cffi.authentication import SASLAnonymous, SASLPlain
from uamqp_cffi.broker import Broker

HERE = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))]
FAR = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0))]
PROXY = {"proxy_hostname": "p", "proxy_port": 1}


def endpoint(target: Any, addresses: list[Any], **kwargs: Any) -> tuple[bool, int]:
    """Whether a client made with these arguments uses TLS when its host has these addresses, and its port."""
    client = SendClient(target, **kwargs)
    client.open()
    connection = client._connection
    chosen: tuple[bool, int] = connection.auth._endpoint(connection._use_tls, addresses)
    return chosen


@pytest.mark.parametrize(
    ("target", "addresses", "kwargs", "expected"),
    [
        ("amqps://h/q", HERE, {}, (True, 5671)),
        ("sb://h/q", HERE, {}, (True, 5671)),
        ("amqp://h/q", HERE, {}, (False, 5672)),
        ("AMQP://h/q", HERE, {}, (False, 5672)),
        (Target("amqp://h/q"), HERE, {}, (False, 5672)),
        ("amqp://h/q", FAR, {}, (True, 5671)),
        ("amqp://h/q", HERE + FAR, {}, (True, 5671)),
        # user and password: in the clear to another host only at an explicit word
        ("amqp://u:p@h/q", HERE, {}, (False, 5672)),
        ("amqp://u:p@h/q", FAR, {}, (True, 5671)),
        ("amqp://u:p@h/q", FAR, {"use_tls": False}, (False, 5672)),
        # the URL says nothing about an auth object, nor about a transport by way of others
        ("amqp://h/q", HERE, {"auth": SASLAnonymous("h")}, (True, 5671)),
        ("amqp://h/q", HERE, {"auth": SASLPlain("h", "u", "p")}, (True, 5671)),
        ("amqp://h/q", HERE, {"http_proxy": PROXY}, (True, 443)),
        ("amqp://h/q", HERE, {"transport_type": TransportType.AmqpOverWebsocket}, (True, 443)),
        ("amqp://h/q", HERE, {"transport_type": TransportType.AmqpOverWebsocket, "use_tls": False}, (False, 443)),
        ("amqp://h:1/q", HERE, {"http_proxy": PROXY, "use_tls": False}, (False, 1)),
        # the client's word beats the URL's, the auth object's both
        ("amqp://h/q", HERE, {"use_tls": True}, (True, 5671)),
        ("amqps://h/q", FAR, {"use_tls": False}, (False, 5672)),
        ("amqps://h/q", FAR, {"auth": SASLAnonymous("h"), "use_tls": False}, (False, 5672)),
        ("amqp://h/q", HERE, {"auth": SASLAnonymous("h", use_tls=True), "use_tls": False}, (True, 5671)),
        ("amqps://h/q", FAR, {"auth": SASLAnonymous("h", use_tls=False), "use_tls": True}, (False, 5672)),
        # ports
        ("amqps://h:1/q", FAR, {}, (True, 1)),
        ("amqp://h:1/q", HERE, {}, (False, 1)),
        ("amqps://h:1/q", FAR, {"auth": SASLAnonymous("h")}, (True, 1)),
        ("amqps://h:1/q", FAR, {"auth": SASLAnonymous("h", port=2)}, (True, 2)),
    ],
)
def test_who_decides_about_tls_and_port(target: Any, addresses: Any, kwargs: Any, expected: tuple[bool, int]) -> None:
    assert endpoint(target, addresses, **kwargs) == expected


def test_no_text_of_a_client_tells_the_password() -> None:
    client = SendClient("amqps://user:se%2Dsame@h/q")
    client.open()
    shown = [client, client._auth, client._auth.sasl, client._remote_address, client._target, client._connection]
    assert "user" in str(client._remote_address)
    for one in shown:
        assert "same" not in repr(one) + str(one)


def test_a_closed_client_is_collected(broker: Broker) -> None:
    client = SendClient(broker.url + "/q")
    client.send_message(Message(b"x"))
    parts = [weakref.ref(part) for part in (client, client._connection, client._session, client.message_handler)]
    client.close()
    del client
    gc.collect()
    assert [part() for part in parts] == [None] * 4


def test_a_client_that_nobody_closed_is_collected_with_its_socket(broker: Broker) -> None:
    client = SendClient(broker.url + "/q")
    client.send_message(Message(b"x"))
    ref = weakref.ref(client._connection)
    del client
    with pytest.warns(ResourceWarning):  # Python's own word about sockets nobody closed
        gc.collect()
    assert ref() is None


LOADED = """
import sys
from uamqp_cffi import Message, SendClient
with SendClient(sys.argv[1]) as client:
    client.send_message(Message(b"x"))
print(*{"h11", "wsproto", "certifi"} & set(sys.modules))
"""


def test_sending_by_plain_tcp_loads_nothing_of_http(broker: Broker, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADED, broker.url + "/q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")
    assert len(broker.messages("q")) == 1


EXIT = """
import sys, threading
from uamqp_cffi import Message, SendClient
client = SendClient(sys.argv[1], msg_timeout=60_000)
message = Message(b"x")
message.on_send_complete = lambda *outcome: print("called back")
client.queue_message(message)
client.open()
while client._out == 0:
    client.do_work()
if sys.argv[2] == "thread":
    threading.Thread(target=client.wait, daemon=True).start()
print(len(client.pending_messages), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["alone", "thread"])
def test_the_interpreter_ends_quickly_and_silently_with_a_message_on_its_way(
    broker: Broker, tmp_path: Path, how: str
) -> None:
    broker.script("q", "none")
    with subprocess.Popen(
        [sys.executable, "-c", EXIT, broker.url + "/q", how],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "1\n"
            start = time.monotonic()
            assert child.communicate("go\n", timeout=10) == ("", "")
            assert time.monotonic() - start < 1
        finally:
            child.kill()
    assert child.returncode == 0
