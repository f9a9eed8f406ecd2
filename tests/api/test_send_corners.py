"""Rare states of a SendClient: messages that failed in the queue, policies that fail, callbacks that close, a redirect under
somebody who waits. Nothing waits for ever, and everybody is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi import Message, ReceiveClient, SendClient, authentication, errors
from uamqp_cffi._core.values import described_composite
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import MessageState

pytestmark = pytest.mark.both_drivers

DONE, FAILED, WAITING = MessageState.SendComplete, MessageState.SendFailed, MessageState.WaitingToBeSent
LIMIT = 10.0
ACCEPTED = described_composite("accepted")


def ends(call: Callable[[], Any]) -> Any:
    """What it gives or raises; it has to end."""
    came: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            came.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive(), "it hangs"
    if raised:
        raise raised[0]
    return came[0]


def unsendable() -> Message:
    return Message(b"x", application_properties={"what": object()})


def until(client: SendClient, true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        client.do_work()


@pytest.mark.blocking("threads")
@pytest.mark.parametrize("kind", ["send", "receive"])
def test_a_redirect_ends_calls_that_wait_in_other_threads(broker: Broker, kind: str) -> None:
    client: Any = (SendClient if kind == "send" else ReceiveClient)(broker.url + "/from")
    broker.script("from", "none")
    message = Message(b"x")
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            if kind == "send":
                client.send_message(message)
            else:
                client.receive_message_batch()
        except BaseException as error:  # noqa: BLE001 - looked at below
            raised.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    client.open()
    until(client, lambda: client._attached)
    thread.start()
    end = time.monotonic() + LIMIT
    while not client._session._inbox.led or (kind == "send" and not client._out):
        assert time.monotonic() < end
        time.sleep(0.001)
    info = {b"hostname": b"localhost", b"port": broker.port, b"address": f"{broker.url}/q".encode()}
    to = errors.process_link_error(errors.ErrorPolicy(), b"amqp:link:redirect", None, info)
    assert isinstance(to, errors.LinkRedirect)
    client.redirect(to, authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False))
    thread.join(LIMIT)
    assert not thread.is_alive(), "it hangs"
    (error,) = raised
    assert isinstance(error, errors.MessageHandlerError) and "redirected" in str(error)
    client.close()
