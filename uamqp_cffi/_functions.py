"""One call instead of a client: send a message, receive some."""

from __future__ import annotations

import ssl
from typing import Any, TypedDict

from . import constants, errors
from ._public import show_as
from ._session.link import Capabilities
from ._typing import Unpack
from .address import Source, Target
from .authentication.common import AMQPAuth
from .client import ReceiveClient, SendClient
from .constants import MessageState, TransportType
from .message import Message
from .session import OnAttach


class ReceiveOptions(TypedDict, total=False):
    """What else a `ReceiveClient` takes."""

    client_name: str | bytes | None
    auto_complete: bool
    error_policy: errors.ErrorPolicy | None
    keep_alive_interval: float | None
    prefetch: int | None
    shutdown_after_timeout: bool
    link_properties: dict[Any, Any] | None
    max_message_size: int | None
    encoding: str
    transport_type: TransportType
    http_proxy: dict[str, Any] | None
    max_frame_size: int | None
    channel_max: int | None
    idle_timeout: int | None
    properties: dict[Any, Any] | None
    remote_idle_timeout_empty_frame_send_ratio: float | None
    incoming_window: int | None
    outgoing_window: int | None
    handle_max: int | None
    on_attach: OnAttach | None
    send_settle_mode: constants.SenderSettleMode | None
    receive_settle_mode: constants.ReceiverSettleMode | None
    desired_capabilities: Capabilities | None
    use_tls: bool | None
    address: str | bytes | None
    sasl: bool | None
    ssl_context: ssl.SSLContext | None
    connect_timeout: float | None


def send_message(
    target: str | bytes | Target, data: Any, auth: AMQPAuth | None = None, debug: bool = False
) -> list[MessageState]:
    """Send one message and wait for its outcome.

    Args:
        target: where to, a URL or a `Target`.
        data: a `Message` or `BatchMessage`, or what makes the body of one.
        auth: an object of `authentication`; without one the URL says.
        debug: a line per frame to the logger `uamqp.c_uamqp`.

    Returns the `MessageState` of each message. Raises what `SendClient.send_all_messages` raises.
    """
    message = data if isinstance(data, Message) else Message(body=data)
    with SendClient(target, auth=auth, debug=debug) as client:
        client.queue_message(message)
        return client.send_all_messages()


def receive_message(
    source: str | bytes | Source, auth: AMQPAuth | None = None, timeout: int = 0, debug: bool = False
) -> Message | None:
    """Receive one message and accept it; None when none came within `timeout` ms (0: wait as long as it takes).

    Args:
        source: where from, a URL or a `Source`.
        auth, debug: as for `send_message`.

    Raises what `ReceiveClient.receive_message_batch` raises.
    """
    messages = receive_messages(source, auth=auth, max_batch_size=1, timeout=timeout, debug=debug)
    return messages[0] if messages else None


def receive_messages(
    source: str | bytes | Source,
    auth: AMQPAuth | None = None,
    max_batch_size: int | None = None,
    timeout: int = 0,
    debug: bool = False,
    **kwargs: Unpack[ReceiveOptions],
) -> list[Message]:
    """Receive what is there, or else what comes first within `timeout` ms (0: as long as it takes), and accept it.

    Args:
        source: where from, a URL or a `Source`.
        max_batch_size: how many messages at most, and to fetch; 300 without it.
        auth, debug: as for `send_message`.
        kwargs: what else a `ReceiveClient` takes.

    Returns a list of messages, empty when none came. Raises what `ReceiveClient.receive_message_batch` raises.
    """
    if max_batch_size:
        kwargs["prefetch"] = max_batch_size
    with ReceiveClient(source, auth=auth, timeout=timeout, debug=debug, **kwargs) as client:
        return client.receive_message_batch(max_batch_size)


show_as("", receive_message, receive_messages, send_message)
