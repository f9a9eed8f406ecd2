"""AMQP 1.0 for Python under the names of uamqp, on an engine of its own.

    >>> import uamqp_cffi as uamqp
    >>> uamqp.Message(b"hello").encode_message().hex()
    '005375a00568656c6c6f'

Names load when they are first used, so that importing the package costs little.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

# What `__getattr__` loads, for type checkers, editors, and Nuitka and PyInstaller, which read what is never run.
if TYPE_CHECKING or __name__ not in sys.modules:
    from . import address as address
    from . import alias as alias
    from . import async_ops as async_ops
    from . import authentication as authentication
    from . import broker as broker
    from . import c_uamqp as c_uamqp
    from . import client as client
    from . import compat as compat
    from . import connection as connection
    from . import constants as constants
    from . import errors as errors
    from . import message as message
    from . import mgmt_operation as mgmt_operation
    from . import receiver as receiver
    from . import sender as sender
    from . import session as session
    from . import types as types
    from . import utils as utils
    from ._build import build_info as build_info
    from ._functions import receive_message as receive_message
    from ._functions import receive_messages as receive_messages
    from ._functions import send_message as send_message
    from .address import Source as Source
    from .address import Target as Target
    from .alias import install_as_uamqp as install_as_uamqp
    from .async_ops.client_async import AMQPClientAsync as AMQPClientAsync
    from .async_ops.client_async import AsyncMessageIter as AsyncMessageIter
    from .async_ops.client_async import ReceiveClientAsync as ReceiveClientAsync
    from .async_ops.client_async import SendClientAsync as SendClientAsync
    from .async_ops.connection_async import ConnectionAsync as ConnectionAsync
    from .async_ops.receiver_async import MessageReceiverAsync as MessageReceiverAsync
    from .async_ops.sender_async import MessageSenderAsync as MessageSenderAsync
    from .async_ops.session_async import SessionAsync as SessionAsync
    from .client import AMQPClient as AMQPClient
    from .client import ReceiveClient as ReceiveClient
    from .client import SendClient as SendClient
    from .connection import Connection as Connection
    from .constants import MessageBodyType as MessageBodyType
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
    "receive_message": "_functions",
    "receive_messages": "_functions",
    "send_message": "_functions",
}
_MODULES = (
    "address", "alias", "async_ops", "authentication", "broker", "c_uamqp", "client", "compat", "connection", "constants",
    "errors", "message", "mgmt_operation", "receiver", "sender", "session", "types", "utils",
)  # fmt: skip

__all__ = [
    "AMQPClient",
    "AMQPClientAsync",
    "AsyncMessageIter",
    "BatchMessage",
    "Connection",
    "ConnectionAsync",
    "Message",
    "MessageBodyType",
    "MessageReceiver",
    "MessageReceiverAsync",
    "MessageSender",
    "MessageSenderAsync",
    "ReceiveClient",
    "ReceiveClientAsync",
    "SendClient",
    "SendClientAsync",
    "Session",
    "SessionAsync",
    "Source",
    "Target",
    "TransportType",
    "build_info",
    "get_platform_info",
    "install_as_uamqp",
    "receive_message",
    "receive_messages",
    "send_message",
]


if not TYPE_CHECKING:  # else they would take any name for one of ours

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


def get_platform_info() -> str:
    """What this package runs on: its version, Python's and the system's."""
    import platform

    python = f"{platform.python_implementation()}/{platform.python_version()}"
    return f"uamqp_cffi/{__version__} {python} ({platform.platform()})"
