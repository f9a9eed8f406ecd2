"""A long queue costs the collector nothing: plain messages are out of its sight while they wait, and only then."""

from __future__ import annotations

import gc
import platform
import sys
import weakref
from typing import Any

import pytest

from uamqp_cffi import Message, SendClient
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import MessageState

LONG = 40_000
collects = platform.python_implementation() == "CPython" and getattr(sys, "_is_gil_enabled", lambda: True)()
pytestmark = pytest.mark.skipif(not collects, reason="this interpreter has no collector that walks all objects")


@pytest.fixture
def client() -> Any:
    with Broker(store=False) as broker:
        client = SendClient(broker.url + "/q")
        yield client
        client.close()


def test_plain_messages_of_a_long_queue_are_not_tracked(client: SendClient) -> None:
    for n in range(LONG):
        client.queue_message(Message(b"%d" % n))
    tracked = sum(map(gc.is_tracked, client.pending_messages))
    assert tracked < LONG / 2


def test_they_are_tracked_again_once_they_are_sent(client: SendClient) -> None:
    messages = [Message(b"%d" % n) for n in range(LONG)]
    client.queue_message(*messages)
    assert not gc.is_tracked(messages[LONG - 1_000])
    states = client.send_all_messages(close_on_done=False)
    assert states == [MessageState.SendComplete] * LONG
    assert all(map(gc.is_tracked, messages))
    client.queue_message(Message(b"one more"))
    assert client.wait()


def test_a_message_with_a_callback_stays_tracked(client: SendClient) -> None:
    done: list[Any] = []
    messages = [Message(b"%d" % n) for n in range(LONG)]
    messages[-700].on_send_complete = lambda result, error: done.append(result)
    client.queue_message(*messages)
    assert gc.is_tracked(messages[-700])
    client.send_all_messages(close_on_done=False)
    assert len(done) == 1


def test_cycles_through_sent_messages_are_collected(client: SendClient) -> None:
    messages = [Message(b"%d" % n) for n in range(LONG)]
    client.queue_message(*messages)
    client.send_all_messages(close_on_done=False)
    one = messages[LONG // 2]
    one.me = one
    gone = weakref.ref(one)
    del messages, one
    gc.collect()
    assert gone() is None


def test_an_abandoned_client_with_a_long_queue_is_collected() -> None:
    client = SendClient("amqp://localhost:1/q")
    for n in range(LONG):
        client.queue_message(Message(b"%d" % n))
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
