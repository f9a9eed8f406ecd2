"""A program that uses what is loaded late: the asyncio classes, tokens, WebSocket, TLS, the names of uamqp. It prints what it did."""

from __future__ import annotations

import asyncio
import ssl
import sys

import uamqp_cffi
from uamqp_cffi.broker import Broker

uamqp_cffi.install_as_uamqp()


async def on_a_loop(url: str) -> list[str]:
    async with uamqp_cffi.SendClientAsync(url) as sender:
        await sender.send_message_async(uamqp_cffi.Message("from a loop"))
    async with uamqp_cffi.ReceiveClientAsync(url, timeout=10_000) as receiver:
        messages = []
        while len(messages) < 2:
            messages += await receiver.receive_message_batch_async(2)
        return [str(message) for message in messages]


def with_a_token() -> str:
    with Broker(tokens={"send": "key"}) as broker:
        auth = uamqp_cffi.authentication.SASTokenAuth.from_shared_access_key(
            "amqps://localhost/q", "send", "key", port=broker.port, use_tls=False
        )
        with uamqp_cffi.SendClient("amqps://localhost/q", auth=auth) as client:
            client.send_message(uamqp_cffi.Message(b"with a token"))
        return str(broker.messages("q")[0])


def refused_by_tls(url: str) -> str:
    import uamqp.errors  # type: ignore[import-not-found]

    assert uamqp.errors is uamqp_cffi.errors
    try:
        with uamqp_cffi.SendClient(url, use_tls=True) as client:
            client.send_message(uamqp_cffi.Message(b"to a server without TLS"))
    except uamqp.errors.AMQPConnectionError as error:
        return str("use_tls=False" in str(error))
    return "no error"


def main() -> None:
    with Broker() as broker:
        url = broker.url + "/q"
        symbol = uamqp_cffi.types.AMQPSymbol("s")
        message = uamqp_cffi.Message("over WebSocket", annotations={"x-opt-s": symbol})
        with uamqp_cffi.SendClient(
            url, transport_type=uamqp_cffi.TransportType.AmqpOverWebsocket, use_tls=False
        ) as client:
            client.send_message(message)
        print(asyncio.run(on_a_loop(url)))
        print("TLS error with its cure:", refused_by_tls(url))
    print(with_a_token())
    print(type(uamqp_cffi.c_uamqp.cHeader()).__name__, uamqp_cffi.build_info()["abi"], ssl.OPENSSL_VERSION[:7])
    print("frozen:", bool(getattr(sys, "frozen", False) or "__compiled__" in globals()))


if __name__ == "__main__":
    main()
