"""Programs that do not close what they opened: each ends at once, with status 0 and without a word."""

from __future__ import annotations

import itertools
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from uamqp_cffi.broker import Broker

pytestmark = pytest.mark.slow

pytest_plugins = "uamqp_cffi.pytest_plugin"

LIMIT = 1.0
"""Seconds from the last line of a program to its end."""

HEAD = """\
import gc, os, sys, threading, time, weakref
import uamqp_cffi as uamqp
from uamqp_cffi import Message, ReceiveClient, SendClient, errors
from uamqp_cffi.authentication import SASLAnonymous
from uamqp_cffi.constants import MessageReceiverState, MessageSenderState
URL, PORT = sys.argv[1], int(sys.argv[1].rpartition(":")[2])


def low_level():
    connection = uamqp.Connection("127.0.0.1", SASLAnonymous("127.0.0.1", PORT, use_tls=False))
    session = uamqp.Session(connection, incoming_window=100, outgoing_window=100)
    sender = uamqp.MessageSender(session, b"me", uamqp.Target("q"))
    receiver = uamqp.MessageReceiver(session, uamqp.Source("q"), b"me", lambda message: message.accept())
    sender.open()
    receiver.open()
    deadline = time.monotonic() + 10
    while sender.get_state() is not MessageSenderState.Open or receiver.get_state() is not MessageReceiverState.Open:
        assert time.monotonic() < deadline
        connection.work()
    return [connection, session, sender, receiver]


"""
TAIL = "\nprint(repr(time.time()), flush=True)\n"


@pytest.fixture
def broker(amqp_broker: Broker) -> Iterator[Broker]:
    yield amqp_broker


def runs_clean(broker: Broker, code: str, tmp_path: Path) -> None:
    """Run a program; it has to end soon after its last line, with status 0, and say nothing."""
    script = tmp_path / "program.py"
    script.write_text(HEAD + code + TAIL)
    done = subprocess.run(
        [sys.executable, str(script), broker.url], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    ended = time.time()
    assert (done.returncode, done.stderr) == (0, "")
    assert ended - float(done.stdout.splitlines()[-1]) < LIMIT


PROGRAMS = {
    "a client that sent": "client = SendClient(URL + '/q')\nclient.send_message(Message(b'x'))\n",
    "a client that keeps the connection alive": (
        "client = SendClient(URL + '/q', keep_alive_interval=1)\nclient.send_message(Message(b'x'))\n"
    ),
    "a client with messages that nobody takes": (
        "client = SendClient(URL + '/no-credit')\n"
        "client.open()\n"
        "client.queue_message(*[Message(b'x') for _ in range(1000)])\n"
        "for _ in range(20): client.do_work()\n"
    ),
    "a client that waits for outcomes": (
        "client = SendClient(URL + '/silent')\n"
        "client.open()\n"
        "client.queue_message(*[Message(b'x') for _ in range(1000)])\n"
        "while not client.message_handler or not client.message_handler._runs: client.do_work()\n"
    ),
    "a client whose connection is gone": (
        "client = SendClient(URL + '/drop')\n"
        "try: client.send_message(Message(b'x'))\n"
        "except errors.AMQPConnectionError: pass\n"
        "else: raise SystemExit('it was not dropped')\n"
    ),
    "a client of a peer that is silent": (
        "client = SendClient(URL + '/hang')\n"
        "client.open()\n"
        "client.queue_message(Message(b'x'))\n"
        "end = time.monotonic() + 0.5\n"
        "while time.monotonic() < end: client.do_work()\n"
    ),
    "a client in a thread that waits": (
        "client = SendClient(URL + '/silent')\n"
        "client.queue_message(Message(b'x'))\n"
        "threading.Thread(target=client.send_all_messages, daemon=True).start()\n"
        "while not client.message_handler or not client.message_handler._runs: time.sleep(0.01)\n"
    ),
    "a receiver with messages it has not read": (
        "SendClient(URL + '/q').send_message(Message(b'x'))\n"
        "client = ReceiveClient(URL + '/q')\n"
        "client.open()\n"
        "while not client._received_messages.qsize(): client.do_work()\n"
    ),
    "a generator that was not read to its end": (
        "sender = SendClient(URL + '/q')\n"
        "sender.queue_message(Message(b'1'), Message(b'2'))\n"
        "sender.send_all_messages()\n"
        "client = ReceiveClient(URL + '/q')\n"
        "messages = client.receive_messages_iter()\n"
        "first = next(messages)\n"
    ),
    "a request without an answer": (
        "client = SendClient(URL + '/q')\n"
        "client.open()\n"
        "try: client.mgmt_request(Message(b'x'), b'NEVER', timeout=50)\n"
        "except TimeoutError: pass\n"
        "else: raise SystemExit('it was answered')\n"
    ),
    "links, session and connection": "kept = low_level()\n",
    "a hundred clients": (
        "clients = [SendClient(URL + '/q') for _ in range(100)]\n"
        "for client in clients: client.open(); client.queue_message(Message(b'x')); client.do_work()\n"
    ),
    "clients that hold each other": (
        "one, two = SendClient(URL + '/q'), SendClient(URL + '/q')\n"
        "one.other, two.other = two, one\n"
        "one.send_message(Message(b'x')); two.send_message(Message(b'x'))\n"
        "del one, two\n"
        "gc.collect()\n"
    ),
    "a client held by its message's callback": (
        "client = SendClient(URL + '/silent')\n"
        "message = Message(b'x')\n"
        "message.on_send_complete = lambda *args, client=client: print('called back')\n"
        "client.open(); client.queue_message(message)\n"
        "for _ in range(20): client.do_work()\n"
        "del client, message\n"
        "gc.collect()\n"
    ),
    "a client that a callback drops": (
        "clients = [SendClient(URL + '/q')]\n"
        "message = Message(b'x')\n"
        "def dropped(*args): clients.clear(); gc.collect()\n"
        "message.on_send_complete = dropped\n"
        "clients[0].queue_message(message)\n"
        "clients[0].send_all_messages(close_on_done=False)\n"
        "assert not clients\n"
    ),
    "a receiver that a callback drops": (
        "SendClient(URL + '/q').send_message(Message(b'x'))\n"
        "clients = [ReceiveClient(URL + '/q')]\n"
        "def dropped(message): clients.clear(); gc.collect()\n"
        "clients[0].receive_message_batch(on_message_received=dropped)\n"
        "assert not clients\n"
    ),
    "a message that outlives its receiver": (
        "SendClient(URL + '/q').send_message(Message(b'x'))\n"
        "client = ReceiveClient(URL + '/q', auto_complete=False)\n"
        "(message,) = client.receive_message_batch(1)\n"
        "del client\n"
        "gc.collect()\n"
        "assert not message.settled\n"
    ),
    "objects in a module that is taken down": (
        "import types\n"
        "sys.modules['late'] = late = types.ModuleType('late')\n"
        "late.client = SendClient(URL + '/q'); late.client.send_message(Message(b'x'))\n"
        "class Late:\n"
        "    def __del__(self): self.client.queue_message(Message(b'y'))\n"
        "late.last = Late(); late.last.client = late.client\n"
    ),
    "a client that is used at exit": (
        "import atexit\n"
        "client = SendClient(URL + '/q'); client.send_message(Message(b'x'))\n"
        "atexit.register(client.send_message, Message(b'y'))\n"
    ),
    "a client that is closed at exit": (
        "import atexit\n"
        "client = SendClient(URL + '/q'); client.send_message(Message(b'x'))\n"
        "atexit.register(client.close)\n"
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_clean_with(name: str, broker: Broker, tmp_path: Path) -> None:
    broker.script("no-credit", credit=0)
    broker.script("silent", "none")
    broker.script("drop", "none", fail="drop", after=1)
    broker.script("hang", fail="hang", after=0)
    broker.answer("NEVER", status=None)
    runs_clean(broker, PROGRAMS[name], tmp_path)


@pytest.mark.parametrize("transport", ["Amqp", "AmqpOverWebsocket"])
def test_a_program_with_tls_ends_clean(transport: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    code = (
        "auth = SASLAnonymous(\n"
        f"    'localhost', PORT, verify='ca.pem', transport_type=uamqp.TransportType.{transport})\n"
        "client = SendClient(URL + '/q', auth=auth, keep_alive_interval=1)\n"
        "client.send_message(Message(b'x'))\n"
    )
    with Broker(ssl_context=server) as broker:
        runs_clean(broker, code, tmp_path)


def test_a_client_that_is_dropped_lets_go_of_its_socket(broker: Broker, tmp_path: Path) -> None:
    code = (
        "client = SendClient(URL + '/q'); client.send_message(Message(b'x'))\n"
        "sock = client._connection._sock\n"
        "number, connection = sock.fileno(), weakref.ref(client._connection)\n"
        "del client, sock\n"
        "for _ in range(3): gc.collect()\n"
        "assert connection() is None\n"
        "try: os.fstat(number)\n"
        "except OSError: pass\n"
        "else: raise SystemExit('the socket is open')\n"
    )
    script = tmp_path / "program.py"
    script.write_text(HEAD + code + TAIL)
    command = [sys.executable, "-W", "ignore::ResourceWarning", str(script), broker.url]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_low_level_objects_may_be_dropped_in_any_order(broker: Broker, tmp_path: Path) -> None:
    orders = list(itertools.permutations(range(4)))
    code = (
        f"for order in {orders!r}:\n"
        "    kept = low_level()\n"
        "    for number in order:\n"
        "        kept[number] = None\n"
        "        gc.collect()\n"
    )
    runs_clean(broker, code, tmp_path)


def test_low_level_objects_may_be_closed_in_any_order(broker: Broker, tmp_path: Path) -> None:
    orders = list(itertools.permutations(range(4)))
    code = (
        f"for order in {orders!r}:\n    kept = low_level()\n    for number in order:\n        kept[number].destroy()\n"
    )
    runs_clean(broker, code, tmp_path)
