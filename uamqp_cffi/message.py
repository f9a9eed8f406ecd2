"""Messages to send and messages received: bodies, properties, header, and batches of messages.

A received message is decoded as far as somebody looks; one that is to be sent is encoded when it goes out.
"""

from __future__ import annotations

from ._message.batch import BatchMessage
from ._message.bodies import DataBody, MessageBody, SequenceBody, ValueBody
from ._message.header import MessageHeader
from ._message.message import Loss, Message, Settler, format_of
from ._message.properties import Id, MessageProperties
from ._public import show_as

__all__ = [
    "BatchMessage",
    "DataBody",
    "Id",
    "Loss",
    "Message",
    "MessageBody",
    "MessageHeader",
    "MessageProperties",
    "SequenceBody",
    "Settler",
    "ValueBody",
    "format_of",
]
show_as("message", *map(globals().get, __all__))
