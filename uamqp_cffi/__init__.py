"""AMQP 1.0 for Python under the names of uamqp, on an engine of its own.

    >>> import uamqp_cffi as uamqp
    >>> uamqp.Message(b"hello").encode_message().hex()
    '005375a00568656c6c6f'

Names load when they are first used, so that importing the package costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._build import build_info as build_info
    from .address import Source as Source
    from .address import Target as Target
    from .authentication.common import AMQPAuth
    from .client import AMQPClient as AMQPClient
    from .client import ReceiveClient as ReceiveClient
    from .client import SendClient as SendClient
    from .connection import Connection as Connection
    from .constants import MessageBodyType as MessageBodyType
    from .constants import MessageState
    from .constants import TransportType as TransportType
    from .message import BatchMessage as BatchMessage
    from .message import Message as Message
    from .receiver import MessageReceiver as MessageReceiver
    from .sender import MessageSender as MessageSender
    from .session import Session as Session

__version__ = "1.7.0"

_NAMES = {
    "AMQPClient": "client",
    "AMQPClientAsync": "async_ops.client_async",
    "AsyncMessageIter": "async_ops.client_async",
    "BatchMessage": "message",
    "Connection": "connection",
    "ConnectionAsync": "async_ops.connection_async",
    "Message": "message",
    "MessageBodyType": "constants",
    "MessageReceiver": "receiver",
    "MessageReceiverAsync": "async_ops.receiver_async",
    "MessageSender": "sender",
    "MessageSenderAsync": "async_ops.sender_async",
    "ReceiveClient": "client",
    "ReceiveClientAsync": "async_ops.client_async",
    "SendClient": "client",
    "SendClientAsync": "async_ops.client_async",
    "Session": "session",
    "SessionAsync": "async_ops.session_async",
    "Source": "address",
    "Target": "address",
    "TransportType": "constants",
    "build_info": "_build",
    "install_as_uamqp": "alias",
}
_MODULES = (
    "address", "alias", "async_ops", "authentication", "broker", "c_uamqp", "client", "compat", "connection", "constants",
    "errors", "message", "mgmt_operation", "receiver", "sender", "session", "types", "utils",
)  # fmt: skip

__all__ = [*_NAMES, "get_platform_info", "receive_message", "receive_messages", "send_message"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    elif name in _MODULES:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


class _Platform:
    """For code that sets up uamqp's native layer: nothing has to be set up here."""

    initialized = False

    @classmethod
    def initialize(cls) -> None:
        cls.initialized = True

    @classmethod
    def deinitialize(cls) -> None:
        cls.initialized = False


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
    from .client import SendClient
    from .message import Message

    message = data if isinstance(data, Message) else Message(body=data)
    with SendClient(target, auth=auth, debug=debug) as client:
        client.queue_message(message)
        states: list[MessageState] = client.send_all_messages()
        return states


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
    **kwargs: Any,
) -> list[Message]:
    """Receive what is there, or else what comes first within `timeout` ms (0: as long as it takes), and accept it.

    Args:
        source: where from, a URL or a `Source`.
        max_batch_size: how many messages at most, and to fetch; 300 without it.
        auth, debug: as for `send_message`.
        kwargs: for the `ReceiveClient`.

    Returns a list of messages, empty when none came. Raises what `ReceiveClient.receive_message_batch` raises.
    """
    from .client import ReceiveClient

    if max_batch_size:
        kwargs["prefetch"] = max_batch_size
    with ReceiveClient(source, auth=auth, timeout=timeout, debug=debug, **kwargs) as client:
        messages: list[Message] = client.receive_message_batch(max_batch_size)
        return messages


def get_platform_info() -> str:
    """What this package runs on: its version, Python's and the system's."""
    import platform

    python = f"{platform.python_implementation()}/{platform.python_version()}"
    return f"uamqp_cffi/{__version__} {python} ({platform.platform()})"
