"""Time-outs while freezegun or time-machine stops the clock.

    clocks.py BROKER SILENT TOOL WHEN

BROKER: URL of the embedded broker, whose node `silent` never answers. SILENT: `host:port` of a peer that says nothing.
TOOL: freezegun, time_machine. WHEN the package is imported: before, inside.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from common import check, done, now, raises, takes

broker, silent, tool, when = sys.argv[1:]
DAY = "2026-01-01 12:00:00"
if when == "before":
    import uamqp_cffi as uamqp
    import uamqp_cffi.async_ops


def frozen() -> Any:
    if tool == "freezegun":
        import freezegun

        return freezegun.freeze_time(DAY, real_asyncio=True)
    import time_machine

    return time_machine.travel(DAY, tick=False)


def blocking() -> None:
    def send() -> None:
        with uamqp.SendClient(broker + "/frozen") as client:
            client.send_message(uamqp.Message(b"x"))
        with uamqp.ReceiveClient(broker + "/frozen", timeout=5000) as client:
            assert [str(message) for message in client.receive_message_batch(1)] == ["x"]

    def no_outcome() -> None:
        with uamqp.SendClient(broker + "/silent", msg_timeout=100) as client:
            raises(uamqp.errors.ClientMessageError, lambda: client.send_message(uamqp.Message(b"x")))

    def no_message() -> None:
        with uamqp.ReceiveClient(broker + "/empty", timeout=100) as client:
            assert client.receive_message_batch(1) == []
        with uamqp.ReceiveClient(broker + "/empty") as client:
            assert client.receive_message_batch(1, timeout=100) == []
        with uamqp.ReceiveClient(broker + "/empty", timeout=100) as client:
            client.receive_messages(print)

    def no_peer() -> None:
        with uamqp.SendClient(f"amqp://{silent}/q", connect_timeout=0.2) as client:
            raises(uamqp.errors.ConnectTimeout, lambda: client.send_message(uamqp.Message(b"x")))

    def no_answer() -> None:
        with uamqp.SendClient(broker + "/q") as client:
            raises(TimeoutError, lambda: client.mgmt_request(uamqp.Message(b"x"), b"silence", timeout=100))

    check("send and receive", lambda: takes(0, 5, send))
    check("msg_timeout", lambda: takes(0.1, 5, no_outcome))
    check("receive timeout", lambda: takes(0.3, 5, no_message))
    check("connect_timeout", lambda: takes(0.2, 5, no_peer))
    check("management timeout", lambda: takes(0.1, 5, no_answer))


async def on_a_loop() -> None:
    async with uamqp.async_ops.client_async.SendClientAsync(broker + "/frozen") as sender:
        await sender.send_message_async(uamqp.Message(b"y"))
    async with uamqp.async_ops.client_async.ReceiveClientAsync(broker + "/frozen", timeout=100) as receiver:
        assert len(await receiver.receive_message_batch_async(1)) == 1
        start = now()
        assert await receiver.receive_message_batch_async(1) == []
        assert 0.1 <= now() - start <= 5
    async with uamqp.async_ops.client_async.SendClientAsync(f"amqp://{silent}/q", connect_timeout=0.2) as sender:
        start = now()
        try:
            await sender.send_message_async(uamqp.Message(b"x"))
        except uamqp.errors.ConnectTimeout:
            assert 0.2 <= now() - start <= 5
        else:
            raise AssertionError("no ConnectTimeout")


def goes_on() -> None:
    """The clock jumps and stops, and starts again, under clients that are open."""
    with uamqp.SendClient(broker + "/jump") as sender, uamqp.ReceiveClient(broker + "/jump", timeout=5000) as receiver:
        while not (sender.client_ready() and receiver.client_ready()):
            pass
        with frozen():
            sender.send_message(uamqp.Message(b"1"))
            assert len(receiver.receive_message_batch(1)) == 1
        sender.send_message(uamqp.Message(b"2"))
        assert len(receiver.receive_message_batch(1)) == 1


def heartbeats() -> None:
    """The broker closes a connection that says nothing for 0.8 s."""
    import threading

    with uamqp.SendClient(broker + "/idle") as sender:
        sender.send_message(uamqp.Message(b"1"))
        threading.Event().wait(1.4)
        sender.send_message(uamqp.Message(b"2"))


with frozen():
    if when == "inside":
        import uamqp_cffi as uamqp
        import uamqp_cffi.async_ops
    import uamqp_cffi.async_ops.client_async

    blocking()
    check("asyncio", lambda: asyncio.run(on_a_loop()))
    check("heartbeats", heartbeats)
check("clients that are open", goes_on)
done()
