"""A program with a mistake on each line that says so, and on no other. (Checked only, never run.)"""

from __future__ import annotations

from datetime import timedelta

import uamqp_cffi as uamqp
from uamqp_cffi import (
    AMQPClient,
    AMQPClientAsync,
    BatchMessage,
    Connection,
    ConnectionAsync,
    Message,
    ReceiveClient,
    ReceiveClientAsync,
    SendClient,
    SendClientAsync,
    Session,
    SessionAsync,
    Source,
    Target,
    errors,
)
from uamqp_cffi import SendClientAsynch  # wrong
from uamqp_cffi.authentication import JWTTokenAsync, JWTTokenAuth, SASLPlain, SASTokenAsync, SASTokenAuth
from uamqp_cffi.authentication import SASTokenAuht  # wrong
from uamqp_cffi.broker import Broker
from uamqp_cffi.c_uamqp import creat_link  # wrong
from uamqp_cffi.message import MessageHeader, MessageProperties

URL = "amqp://localhost/q"
HOUR = timedelta(hours=1)

print(uamqp.SendClinet)  # wrong
print(uamqp.error.AMQPError)  # wrong

SendClient(URL, msg_timout=5)  # wrong
SendClient(URL, msg_timeout="5")  # wrong
SendClient(URL).send_mesage(Message(b""))  # wrong
SendClient(URL).send_message(b"not a message")  # wrong
ReceiveClient(URL, prefetch_count=5)  # wrong
ReceiveClient(URL).receive_message_batch("5")  # wrong
AMQPClient(URL, adress="q")  # wrong
AMQPClientAsync(URL, use_tsl=False)  # wrong
Source(URL, 5)  # wrong
Target(5)  # wrong
Message(b"").accpet()  # wrong
Message(b"", header=MessageProperties())  # wrong
BatchMessage(b"", multi=True)  # wrong
MessageProperties(subjct="x")  # wrong
MessageProperties().creation_time = "now"  # wrong
MessageHeader().durible = True  # wrong
Broker(prot=5)  # wrong
Broker().mesages("q")  # wrong
errors.MessageRejected("c").conditoin  # wrong
errors.ErrorPolicy(max_retires=3)  # wrong
SASLPlain("localhost", "user")  # wrong
SASTokenAuth(URL, URL, b"t", expires_in=3600)  # wrong
SASTokenAuth(URL, URL, b"t", expires_in=HOUR, refresh_windw=5)  # wrong
SASTokenAsync.from_shared_access_key(URL, "name", "key", usetls=False)  # wrong
JWTTokenAuth(URL, URL)  # wrong
JWTTokenAsync(URL, URL, print, prot=5)  # wrong
AUTH = SASLPlain("localhost", "user", "password")
Connection("localhost", AUTH, idle_timeout="5")  # wrong
CONNECTION = ConnectionAsync("localhost", AUTH)
CONNECTION.destroy_asinc()  # wrong
Session(Connection("localhost", AUTH), window=5)  # wrong
SessionAsync(URL)  # wrong
uamqp.MessageSender(Session(Connection("localhost", AUTH)), "me", URL)  # wrong
uamqp.MessageReceiver(Session(Connection("localhost", AUTH)), Source(URL), "me", 5)  # wrong
uamqp.MessageSenderAsync(SessionAsync(CONNECTION), "me", Target(URL), prefetch=5)  # wrong
uamqp.MessageReceiverAsync(SessionAsync(CONNECTION), Source(URL))  # wrong
uamqp.send_message(URL, b"x", timeout=5)  # wrong
uamqp.receive_message(5)  # wrong
uamqp.receive_messages(URL, max_batch_size="5")  # wrong
uamqp.receive_messages(URL, prefetsh=5)  # wrong
uamqp.build_info().version  # wrong
uamqp.install_as_uamqp("uamqp")  # wrong


async def on_a_loop() -> None:
    async with SendClientAsync(URL, msg_timout=5) as wrong:  # wrong
        await wrong.send_message_async(Message(b""))
    async with SendClientAsync(URL) as sender:
        await sender.send_message_asinc(Message(b""))  # wrong
        await sender.send_message_async(b"not a message")  # wrong
        (await sender.send_all_messages_async()).states  # wrong
    async with ReceiveClientAsync(URL, prefetch_count=5) as also_wrong:  # wrong
        await also_wrong.receive_message_batch_async()
    async with ReceiveClientAsync(URL) as receiver:
        (await receiver.receive_message_batch_async())[0].accpet()  # wrong
        async for message in receiver.receive_messages_iter_async():
            message.accpet()  # wrong
