"""Clients: a connection, a session and a link to one node, driven by plain calls.

What has to happen is written once, as plans (`_core/waiting/plan.py`); the public methods run them. A `SendClient` holds its
messages in a list that `queue_message` appends to. They are handed to the link in runs, and the link tells, range by range,
what became of them, so that no step ever looks at all that is pending.

What is common to the clients is in `_client.base`, the rest in `_client.send` and `_client.receive`. Import them from here.
"""

from __future__ import annotations

from . import address, authentication, c_uamqp, constants, errors, receiver, sender  # noqa: F401  uamqp.client has them
from ._client.base import AMQPClient
from ._client.receive import ReceiveClient
from ._client.send import SendClient
from ._public import show_as
from .connection import Connection
from .constants import TransportType
from .session import Session

show_as("client", AMQPClient, ReceiveClient, SendClient)

__all__ = ["AMQPClient", "Connection", "ReceiveClient", "SendClient", "Session", "TransportType"]
