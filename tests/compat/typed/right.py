"""A program that is right: strict type checkers have nothing to say. (Checked only, never run.)"""

from __future__ import annotations

import ssl
from datetime import timedelta
from typing import Any, NamedTuple

import uamqp_cffi as uamqp
from uamqp_cffi import (
    AMQPClient,
    AMQPClientAsync,
    BatchMessage,
    Connection,
    ConnectionAsync,
    Message,
    MessageBodyType,
    ReceiveClient,
    ReceiveClientAsync,
    SendClient,
    SendClientAsync,
    Session,
    SessionAsync,
    Source,
    Target,
    TransportType,
    build_info,
    errors,
    receive_message,
    receive_messages,
    send_message,
)
from uamqp_cffi.authentication import JWTTokenAsync, JWTTokenAuth, SASLExternal, SASLPlain, SASTokenAsync, SASTokenAuth
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, MessageState, ReceiverSettleMode, SenderSettleMode
from uamqp_cffi.message import MessageHeader, MessageProperties
from uamqp_cffi.types import AMQPSymbol

URL = "amqp://localhost/q"


class Token(NamedTuple):
    token: str
    expires_on: int


def get_token() -> Token:
    return Token("t", 2**40)


async def get_token_async() -> Token:
    return Token("t", 2**40)


class Patient(errors.ErrorPolicy):
    def on_message_error(self, error: errors.MessageException) -> errors.ErrorAction:
        return errors.ErrorAction(retry=bool(error.retryable), backoff=0.5)


def send(context: ssl.SSLContext) -> list[MessageState]:
    properties = MessageProperties(message_id="42", subject=b"s", creation_time=7)
    properties.subject = "as str"
    size: int | None = properties.creation_time
    subject: bytes | None = properties.subject
    header = MessageHeader()
    header.durable = True
    message = Message({"n": size, "s": subject}, properties=properties, header=header, application_properties={"a": 1})
    message.on_send_complete = lambda result, error: print(result, error)
    with SendClient(
        Target(URL), error_policy=Patient(max_retries=1), msg_timeout=10, ssl_context=context, link_properties={"x": 1}
    ) as client:
        client.send_message(message)
        client.queue_message(message, BatchMessage(data=[b"a"]))
        waiting: list[Message] = client.pending_messages
        fate: Delivery | None = message.delivery
        print(waiting, fate, message.state is MessageState.SendComplete)
        reply: Any = client.mgmt_request(Message(b""), b"READ", timeout=100, status_code_field=b"status")
        print(reply)
        return client.send_all_messages()


def receive() -> None:
    client = ReceiveClient(
        Source(URL), prefetch=10, auto_complete=False, receive_settle_mode=ReceiverSettleMode.PeekLock
    )
    with client as same:
        for message in same.receive_message_batch(max_batch_size=5, timeout=100):
            done: bool = message.accept()
            print(done, message.annotations, message.delivery_tag)
        for one in same.receive_messages_iter():
            one.modify(True, False, {"why": AMQPSymbol("late")})
    client.receive_messages(lambda message: message.reject("amqp:not-allowed", "no"))


async def both_async() -> None:
    async with SendClientAsync(URL, connect_timeout=3, send_settle_mode=SenderSettleMode.Settled) as sender:
        await sender.send_message_async(Message("x"))
        states: list[MessageState] = await sender.send_all_messages_async(close_on_done=False)
        print(states)
    async with ReceiveClientAsync(URL, shutdown_after_timeout=False) as receiver:
        batch: list[Message] = await receiver.receive_message_batch_async(10)
        async for message in receiver.receive_messages_iter_async():
            print(message.accept(), batch)
    async with AMQPClientAsync(URL, address="/queues/q") as client:
        print(await client.auth_complete_async())


def plumbing(auth: SASLPlain) -> None:
    with Connection("localhost", auth, idle_timeout=1000) as connection, Session(connection, handle_max=1) as session:
        with uamqp.MessageSender(session, "me", Target(URL)) as sender:
            state: uamqp.constants.MessageSenderState = sender.get_state()
            print(state)
        with uamqp.MessageReceiver(session, Source(URL), "me", print) as receiver:
            receiver.reset_link_credit(5, drain=True)
    with AMQPClient(URL, transport_type=TransportType.AmqpOverWebsocket, http_proxy={"proxy_hostname": "p"}) as client:
        print(client.do_work())


async def plumbing_async(auth: SASLPlain) -> None:
    async with ConnectionAsync("localhost", auth) as connection, SessionAsync(connection) as session:
        async with uamqp.MessageReceiverAsync(session, Source(URL), "me", print) as receiver:
            await receiver.reset_link_credit_async(1)
        async with uamqp.MessageSenderAsync(session, "me", Target(URL)) as sender:
            await sender.work_async()


def tokens() -> list[Any]:
    hour = timedelta(hours=1)
    return [
        SASTokenAuth(URL, URL, b"t", expires_in=hour, refresh_window=5),
        SASTokenAsync.from_shared_access_key(URL, "name", "key", custom_endpoint_hostname="elsewhere"),
        JWTTokenAuth(URL, URL, get_token, use_tls=False),
        JWTTokenAsync(URL, URL, get_token_async, refresh_window=3),
        SASLExternal("localhost", cert_file="c.pem"),
    ]


def simple(broker: Broker) -> str:
    broker.put("q", Message(b"x"))
    states = send_message(broker.url + "/q", b"x")
    message = receive_message(broker.url + "/q", timeout=5)
    messages = receive_messages(broker.url + "/q", max_batch_size=3, timeout=5)
    if message is not None and message.get_data() is not MessageBodyType.Data:
        print(len(messages), states[0].name)
    try:
        raise errors.MessageRejected("c", "d") if message is None else errors.MessageReleased()
    except errors.AMQPError as error:
        print(error.scope, error.retryable, error.delivery, error.condition)
    return build_info()["version"] + uamqp.__version__


uamqp.install_as_uamqp()
