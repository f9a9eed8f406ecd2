"""The asyncio classes under trio: `under_trio.py BROKER`."""

import sys

import trio
from common import check, done, raises

import uamqp_cffi as uamqp
from uamqp_cffi.async_ops import client_async
from uamqp_cffi.authentication import SASLAnonymous

broker = sys.argv[1]
auth = lambda: SASLAnonymous("localhost", port=int(broker.rpartition(":")[2]), use_tls=False)


def told(work):
    """What `work`, a coroutine function, is told under trio."""
    text = str(raises(RuntimeError, lambda: trio.run(work)))
    assert "trio" in text and "to_thread" in text, text


async def send():
    async with client_async.SendClientAsync(broker + "/q") as client:
        await client.send_message_async(uamqp.Message(b"x"))


async def receive():
    async for message in client_async.ReceiveClientAsync(broker + "/q").receive_messages_iter_async():
        print(message)


async def work():
    await uamqp.ConnectionAsync("localhost", auth()).work_async()


async def attach():
    session = uamqp.SessionAsync(uamqp.ConnectionAsync("localhost", auth()))
    async with uamqp.MessageSenderAsync(session, "us", uamqp.address.Target("q")):
        pass


async def as_told():
    with uamqp.SendClient(broker + "/q") as client:
        await trio.to_thread.run_sync(client.send_message, uamqp.Message(b"x"))


check("send", lambda: told(send))
check("receive", lambda: told(receive))
check("work", lambda: told(work))
check("attach", lambda: told(attach))
check("what it advises", lambda: trio.run(as_told))
done()
