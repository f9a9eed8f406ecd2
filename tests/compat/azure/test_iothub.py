"""azure-iot-hub 2.7.0: the part of it that speaks AMQP, cloud-to-device messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure_namespace import Namespace


@pytest.fixture
def run(scenario: Any, iot_namespace: Namespace) -> Callable[[str], Any]:
    return lambda name: scenario(iot_namespace, "iothub", name)


def sent(namespace: Namespace) -> list[tuple[bytes, bytes]]:
    """To whom, and what."""
    return [(m.properties.to, b"".join(m.get_data())) for m in namespace.broker.messages(namespace.devices)]


def test_messages_are_sent_to_devices(run: Callable[[str], Any], iot_namespace: Namespace) -> None:
    run("send")
    assert sent(iot_namespace) == [
        (b"/devices/device-1/messages/devicebound", b"turn left"),
        (b"/devices/device-2/messages/devicebound", b"turn right"),
    ]
    assert iot_namespace.tokens[0] == f"https://{iot_namespace.broker.host}"


def test_properties_of_a_message_arrive(run: Callable[[str], Any], iot_namespace: Namespace) -> None:
    run("send")
    message = iot_namespace.broker.messages(iot_namespace.devices)[1]
    properties = message.properties
    assert (properties.content_type, properties.message_id, properties.correlation_id) == (
        b"text/plain",
        b"m-1",
        b"c-1",
    )
    assert message.application_properties == {b"custom": b"7"}


def test_a_client_goes_on_after_it_was_idle_for_longer_than_its_token_lasts(
    run: Callable[[str], Any], iot_namespace: Namespace
) -> None:
    run("send_after_idling")
    assert [body for _, body in sent(iot_namespace)] == [b"before", b"after"]


@pytest.mark.parametrize(("how", "error"), [("detach", "LinkDetach"), ("drop", "MessageHandlerError")])
def test_a_fault_is_said_and_the_next_client_sends(
    run: Callable[[str], Any], iot_namespace: Namespace, how: str, error: str
) -> None:
    got = run(f"send_after_{how}")
    assert got["failed"]["type"] == error
    assert [body for _, body in sent(iot_namespace)] == [b"before", b"after"]


def test_a_rejected_message_is_a_failure(run: Callable[[str], Any], iot_namespace: Namespace) -> None:
    assert run("throttled")["failed"]["text"] == "C2D message send failure"
    assert sent(iot_namespace) == []
