"""What a long-running program would notice: clients that come and go leave nothing behind."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from uamqp_cffi import Message, SendClient, errors
from uamqp_cffi._core.engine.engine import Engine
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import SenderSettleMode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Path("/proc/self/statm").exists() and hasattr(sys, "getallocatedblocks")),
        reason="counts descriptors and pages in /proc, and CPython's blocks",
    ),
]

ROUNDS = 200


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held() -> tuple[int, int, int]:
    """Descriptors, threads, engines (each is a connection's memory in C)."""
    gc.collect()
    engines = sum(type(thing) is Engine for thing in gc.get_objects())
    return len(os.listdir("/proc/self/fd")), threading.active_count(), engines


def rest(broker: Broker, connections: int) -> tuple[int, int, int]:
    """What is held once the broker, which lives in this process too, has no more connections than that."""
    end = time.monotonic() + 10
    while len(broker._core.peers) > connections and time.monotonic() < end:
        time.sleep(0.001)
    while (found := held())[2] > 2 * connections and time.monotonic() < end:
        time.sleep(0.01)
    return found


def grown(broker: Broker, act: Callable[[], object], connections: int = 0, rounds: int = ROUNDS) -> tuple[int, int]:
    """Blocks of Python's memory, and bytes of the whole process, that come with that many rounds of `act`, after a few to
    warm up. Descriptors, threads and engines must be as many as before. `connections`: those that stay."""
    act()  # what lasts is there now
    before = rest(broker, connections)
    for _ in range(20):
        act()
    assert rest(broker, connections) == before
    blocks, process = sys.getallocatedblocks(), resident()
    for _ in range(rounds):
        act()
    assert rest(broker, connections) == before
    return sys.getallocatedblocks() - blocks, resident() - process


BLOCKS, BYTES = 5 * ROUNDS, 8 << 20
"""What may be: caches of Python and of malloc, and timers of the broker's. One leaked client has hundreds of blocks."""


@pytest.fixture
def broker() -> Iterator[Broker]:
    """One that keeps no messages. Nothing is logged meanwhile: pytest would keep that."""
    logging.disable(logging.CRITICAL)
    try:
        with Broker(store=False) as broker:
            yield broker
    finally:
        logging.disable(logging.NOTSET)


def test_clients_that_come_and_go_leave_nothing(broker: Broker) -> None:
    def act() -> None:
        with SendClient(broker.url + "/q") as client:
            client.send_message(Message(b"x", application_properties={"n": 1}))
            client.mgmt_request(Message(b"?"), b"READ")
        del client

    broker.answer("READ", status=200, body="!")
    blocks, size = grown(broker, act)
    assert blocks < BLOCKS and size < BYTES


def test_clients_that_fail_leave_nothing(broker: Broker) -> None:
    """Refused by the broker, dropped in the middle, no listener, never opened, never used."""
    broker.script("gone", fail="attach", condition="amqp:not-found")
    broker.script("fragile", "none", fail="drop", after=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused = f"amqp://127.0.0.1:{taken.getsockname()[1]}/q"

        def act() -> None:
            for url in (broker.url + "/gone", broker.url + "/fragile", refused):
                client = SendClient(url)
                with pytest.raises(errors.AMQPConnectionError):
                    client.send_message(Message(b"x"))
                client.close()
            SendClient(broker.url + "/q").close()
            SendClient(broker.url + "/q").open()

        blocks, size = grown(broker, act, rounds=ROUNDS // 4)
    assert blocks < BLOCKS and size < BYTES


def test_a_client_that_goes_on_and_on_does_not_grow(broker: Broker) -> None:
    with SendClient(broker.url + "/q") as client:

        def act() -> None:
            client.queue_message(*[Message(b"x" * 100) for _ in range(300)])
            client.queue_message(Message(bytes(300_000)), Message({"a": [1, 2]}))
            client.send_all_messages(close_on_done=False)
            client.send_message(Message(b"y"))

        blocks, size = grown(broker, act, 1)
    assert blocks < BLOCKS and size < BYTES


def test_messages_sent_settled_or_not_at_all_do_not_stay(broker: Broker) -> None:
    broker.script("silent", "none")
    with (
        SendClient(broker.url + "/q", send_settle_mode=SenderSettleMode.Settled) as settled,
        SendClient(broker.url + "/silent", msg_timeout=1) as silent,
    ):

        def act() -> None:
            settled.queue_message(*[Message(b"x" * 100) for _ in range(100)])
            settled.send_all_messages(close_on_done=False)
            silent.queue_message(Message(b"x" * 1000))
            silent.send_all_messages(close_on_done=False)

        blocks, size = grown(broker, act, 2)
    assert blocks < BLOCKS and size < BYTES
