"""Messages that travel as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .. import constants, errors
from .._arguments import what, wrong
from .._core.engine.sections import data_section
from .bodies import DataBody
from .header import MessageHeader, _header_of
from .message import _WAITING, Message
from .properties import MessageProperties


class BatchMessage(Message):
    """Many messages sent as one transfer, each encoded into a data section of an envelope.

    Args:
        data: an iterable of what is to be sent: messages, objects with a `.message` or an `encode_message()`, or
            bodies. It is read at each `gather()`, so a list may still be appended to.
        properties, annotations, header: of the envelope.
        application_properties: for every item that has none of its own; not for the envelope.
        multi_messages: make as many messages as it takes, instead of raising when one is not enough.
        encoding: as in `Message`.
        durable: as in `Message`, of the envelope.

    `max_message_length` bounds a message in bytes, of which `size_offset` are kept free.
    """

    batch_format = constants.BATCH_MESSAGE_FORMAT
    max_message_length = constants.MAX_MESSAGE_LENGTH_BYTES
    size_offset = 0
    if not TYPE_CHECKING:
        _format = property(lambda self: self.batch_format)

    def __init__(
        self,
        data: Iterable[Any] | None = None,
        properties: MessageProperties | None = None,
        application_properties: dict[Any, Any] | None = None,
        annotations: dict[Any, Any] | None = None,
        header: MessageHeader | None = None,
        multi_messages: bool = False,
        encoding: str = "UTF-8",
        *,
        durable: bool | None = None,
    ) -> None:
        self._state = _WAITING
        self.on_send_complete: Callable[[Any, Any], Any] | None = None
        self._rest = None
        self._raw = None
        self._held = None
        self._own_properties = self._own_application_properties = None
        self._encoding = encoding
        self._multi_messages = multi_messages
        one = isinstance(data, (str, bytes, bytearray, Mapping, Message))
        if one or not (data is None or hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
            raise wrong("the data of a batch", data, "an iterable of messages or bodies", "BatchMessage([...])")
        self._body_gen: Any = data
        self.properties = properties
        self.application_properties = application_properties
        self.annotations = annotations
        self.header = _header_of(header, durable)

    def _set_as_in_uamqp(self, state: dict[str, Any]) -> dict[str, Any]:
        names = ("properties", "application_properties", "annotations", "header", "multi_messages", "encoding")
        BatchMessage.__init__(self, state.pop("_body_gen"), **{name: state.pop("_" + name) for name in names})
        del state["_need_further_parse"]
        return state

    @property
    def data(self) -> Any:
        """The iterable that was given."""
        return self._body_gen

    def get_data(self) -> Any:
        """The iterable that was given."""
        return self._body_gen

    def __str__(self) -> str:
        return str(self._body_gen)

    def _repr_body(self) -> list[str]:
        data = self._body_gen
        count = f"{len(data)} items" if isinstance(data, (list, tuple)) else f"items of {what(data)}"
        return [count, "multi_messages=True"] if self._multi_messages else [count]

    def encode_message(self) -> bytes:
        """The one message that this batch makes. Raises TypeError when it may be several: encode what `gather()`
        gives."""
        if self._multi_messages:
            raise TypeError("a batch of several messages has no one encoding: encode each of gather()")
        (message,) = self.gather()
        return message.encode_message()

    def _create_batch_message(self) -> Message:
        """An empty envelope."""
        envelope = Message(
            b"",
            properties=self._own_properties,
            annotations=self._annotations,
            header=self._header,
            msg_format=self.batch_format,
            encoding=self._encoding,
        )
        envelope._held = DataBody(None)
        envelope.on_send_complete = self.on_send_complete
        return envelope

    def _envelope_size(self, envelope: Message) -> int:
        held, envelope._held = envelope._held, None
        size = envelope.get_message_encoded_size()
        envelope._held = held
        return size + self.size_offset

    def _encoded_items(self) -> Iterator[bytes]:
        given = self._own_application_properties
        if self._body_gen is None:
            raise wrong("the data of a batch", None, "an iterable of messages or bodies", "BatchMessage([...])")
        for item in self._body_gen:
            if type(item) is bytes and not given:
                yield data_section(item)
                continue
            message = item if isinstance(item, Message) else getattr(item, "message", item)
            if not hasattr(message, "encode_message"):
                message = Message(body=message, encoding=self._encoding)
            if given and not message.application_properties:
                message.application_properties = given
            yield message.encode_message()

    def gather(self) -> Iterable[Message]:
        """The message of the batch in a list, or with `multi_messages` a generator of as many as it takes. Raises
        `MessageContentTooLarge` when the batch, or with `multi_messages` one item of it, does not fit."""
        return self._many() if self._multi_messages else [self._one()]

    def _one(self) -> Message:
        envelope = self._create_batch_message()
        parts = envelope._held._parts
        size = self._envelope_size(envelope)
        for item in self._encoded_items():
            size += len(item)
            if size > self.max_message_length:
                raise errors.MessageContentTooLarge()
            parts.append(item)
        return envelope

    def _many(self) -> Iterator[Message]:
        envelope = self._create_batch_message()
        empty = size = self._envelope_size(envelope)
        for item in self._encoded_items():
            if empty + len(item) > self.max_message_length:
                raise errors.MessageContentTooLarge()
            if size + len(item) > self.max_message_length:
                yield envelope
                envelope = self._create_batch_message()
                size = empty
            envelope._held._parts.append(item)
            size += len(item)
        yield envelope
