"""azure-iot-hub sends cloud-to-device messages, over uamqp."""

from __future__ import annotations

import time
from typing import Any

import certifi
from common import HOST, ask, describe, main

certifi.where = lambda: HOST["ca"]  # the package has no argument for the certificate authority

from azure.iot.hub import IoTHubRegistryManager, iothub_amqp_client


def manager() -> IoTHubRegistryManager:
    return IoTHubRegistryManager.from_connection_string(HOST["iot"])


def send() -> Any:
    registry = manager()
    registry.send_c2d_message("device-1", "turn left")
    registry.send_c2d_message(
        "device-2",
        "turn right",
        properties={
            "contentType": "text/plain",
            "messageId": "m-1",
            "correlationId": "c-1",
            "expiryTimeUtc": None,
            "custom": "7",
        },
    )
    registry.amqp_svc_client.disconnect_sync()
    return {}


def send_after_idling() -> Any:
    """For longer than the package's tokens last."""
    iothub_amqp_client.default_sas_expiry = 6
    registry = manager()
    registry.send_c2d_message("device-1", "before")
    time.sleep(7)
    registry.send_c2d_message("device-1", "after")
    registry.amqp_svc_client.disconnect_sync()
    return {}


def send_after(**fault: Any) -> Any:
    """The client does not try again by itself: it says what happened, and another one sends."""
    registry = manager()
    registry.send_c2d_message("device-1", "before")
    ask(**fault)
    try:
        registry.send_c2d_message("device-1", "lost")
        failed = None
    except Exception as error:
        failed = describe(error)
    registry.amqp_svc_client.disconnect_sync()
    other = manager()
    other.send_c2d_message("device-1", "after")
    other.amqp_svc_client.disconnect_sync()
    return {"failed": failed}


def send_after_detach() -> Any:
    return send_after(what="detach", address="messages/devicebound")


def send_after_drop() -> Any:
    return send_after(what="drop")


def throttled() -> Any:
    ask(
        "script",
        address="messages/devicebound",
        outcome="rejected",
        condition="com.microsoft:device-maximum-queue-depth-exceeded",
    )
    registry = manager()
    try:
        registry.send_c2d_message("device-1", "too many")
        failed = None
    except Exception as error:
        failed = describe(error)
    registry.amqp_svc_client.disconnect_sync()
    return {"failed": failed}


if __name__ == "__main__":
    main(__name__)
