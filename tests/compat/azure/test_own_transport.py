"""azure-eventhub 5.15.1 and azure-servicebus 7.15.0 with the transport they come with: programs that use these packages
as they are can be tested against the embedded broker, too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from azure_namespace import Namespace
from test_servicebus import bodies, settled

Run = Callable[..., Any]

EVENT_HUBS = pytest.mark.parametrize("module", ["eventhub", "eventhub_async"])
SERVICE_BUS = pytest.mark.parametrize("module", ["servicebus", "servicebus_async"])


@pytest.fixture
def own(run: Run) -> Run:
    return partial(run, uamqp_transport=False)


@EVENT_HUBS
def test_events_are_sent(own: Run, module: str, namespace: Namespace) -> None:
    own(module, "send_batch")
    assert sorted(namespace.hub.bodies()) == [b"five", b"four", b"one", b"six", b"three", b"two"]


@EVENT_HUBS
def test_events_are_received(own: Run, module: str) -> None:
    got = own(module, "receive_all")
    assert got == {"seen": [f"{p}-{i}" for p in "01" for i in range(5)], "errors": []}


@SERVICE_BUS
def test_messages_are_sent(own: Run, module: str, namespace: Namespace) -> None:
    own(module, "send")
    assert bodies(namespace) == [b"single", b"list 1", b"list 2", b"batch 0", b"batch 1", b"batch 2"]


@SERVICE_BUS
def test_messages_are_received_and_completed(own: Run, module: str, namespace: Namespace) -> None:
    assert own(module, "complete") == {"seen": ["a", "b", "c"], "after": []}
    settled(namespace.queue, completed=3)


def test_a_dead_letter_keeps_its_reason(own: Run, namespace: Namespace) -> None:
    assert own("servicebus", "dead_letter") == {"body": "bad", "reason": "smell", "description": "it smells"}
    settled(namespace.node("queue/$deadletterqueue"), completed=1)


def test_a_rejection_is_understood(own: Run, namespace: Namespace) -> None:
    own("servicebus", "send_through_throttling")
    assert bodies(namespace) == [b"busy"]
