"""The bodies of messages (§3.2.6 to §3.2.8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._core.engine import sections, values
from .._core.engine.sections import Sections, data_section
from .._native import enums
from ..constants import MessageBodyType


def _text(data: Any) -> str:
    return data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else str(data)


# ---- bodies ---------------------------------------------------------------------------------------------------------


class MessageBody:
    """The body of a message: its sections, encoded. `c_message` is the received message that it belongs to, if any."""

    __slots__ = ("_encoding", "_parts", "_received")
    _type = enums.MessageBodyType.NoneType
    _code = 0

    def __init__(self, c_message: Sections | None, encoding: str = "UTF-8") -> None:
        self._encoding = encoding
        self._received = c_message  # None from the first change on
        self._parts: list[bytes] = [] if c_message is None else self._read(c_message)

    def _read(self, received: Sections) -> list[bytes]:
        return received.raw_all(self._code)

    @property
    def type(self) -> enums.MessageBodyType:
        return self._type

    @property
    def data(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say what it holds")

    def _encode(self) -> bytes:
        """The sections; those that came in go out as they came."""
        return self._made() if self._received is None else self._received.whole(self._code)

    def _made(self) -> bytes:
        prefix = sections.PREFIX[self._code]
        return b"".join([part for raw in self._parts for part in (prefix, raw)])

    def _at(self, index: int) -> bytes:
        if not 0 <= index < len(self._parts):
            raise IndexError(f"index {index} of {len(self._parts)} sections")
        return self._parts[index]

    def __repr__(self) -> str:
        sizes = sum(map(len, self._parts))
        return f"<{type(self).__name__} of {len(self._parts)} sections, {sizes} bytes>"


class DataBody(MessageBody):
    """Data sections: `data` gives their bytes, one by one."""

    __slots__ = ()
    _type = enums.MessageBodyType.DataType
    _code = sections.DATA

    def _read(self, received: Sections) -> list[bytes]:
        return received.data()

    def append(self, data: str | bytes) -> None:
        """Adds a section; as in uamqp, what is neither str nor bytes is ignored."""
        if isinstance(data, str):
            data = data.encode()
        if isinstance(data, bytes):
            self._received = None
            self._parts.append(bytes(data))

    @property
    def data(self) -> Iterator[bytes]:
        yield from self._parts

    def _made(self) -> bytes:
        return b"".join([data_section(part) for part in self._parts])

    def __len__(self) -> int:
        return len(self._parts)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> bytes:
        return self._at(index)

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)

    def __str__(self) -> str:
        return "".join(map(_text, self._parts))


class SequenceBody(MessageBody):
    """AMQP sequences: `data` gives their lists, one by one."""

    __slots__ = ()
    _type = enums.MessageBodyType.SequenceType
    _code = sections.AMQP_SEQUENCE

    def append(self, data: list[Any]) -> None:
        """Adds a section. Raises TypeError for what is no list, or holds what has no AMQP type."""
        if not isinstance(data, list):
            raise TypeError(f"an amqp-sequence section is a list, not {type(data).__name__}")
        self._parts.append(_encoded_body(data, self._encoding))
        self._received = None

    @property
    def data(self) -> Iterator[list[Any]]:
        return map(sections.sequence, self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> list[Any]:
        return sections.sequence(self._at(index))

    def __bytes__(self) -> bytes:
        items = [item for part in self.data for item in part]
        return b"".join([item if isinstance(item, bytes) else str(item).encode() for item in items])

    def __str__(self) -> str:
        return "".join([_text(item) for part in self.data for item in part])


class ValueBody(MessageBody):
    """One AMQP value: `data` is that value as Python has it."""

    __slots__ = ()
    _type = enums.MessageBodyType.ValueType
    _code = sections.AMQP_VALUE

    def set(self, value: Any) -> None:
        """Raises TypeError for what has no AMQP type."""
        self._parts = [_encoded_body(value, self._encoding)]
        self._received = None

    @property
    def data(self) -> Any:
        return sections.value_of(self._code, self._parts[0]) if self._parts else None

    def __bytes__(self) -> bytes:
        value = self.data
        return value if isinstance(value, bytes) else str(self).encode()

    def __str__(self) -> str:
        value = self.data
        return _text(value) if value else ""


def _encoded_body(value: Any, encoding: str) -> bytes:
    try:
        return values.encode(value, encoding)
    except TypeError as error:
        raise TypeError(f"message body: {error}") from error


def _make_body(body: Any, body_type: MessageBodyType | None) -> MessageBody:
    """The body object for what was given as a body. str are always UTF-8 here, whatever the message's encoding."""
    if body_type is None:
        if isinstance(body, (str, bytes)) or _only_text(body):
            body_type = MessageBodyType.Data
        else:
            body_type = MessageBodyType.Value
    if body_type is MessageBodyType.Data:
        return _make_data(body)
    if body_type is MessageBodyType.Sequence:
        return _make_sequence(body)
    if body_type is MessageBodyType.Value:
        value = ValueBody(None)
        value.set(body)
        return value
    raise ValueError(f"body_type must be a MessageBodyType, not {body_type!r}")


def _only_text(body: Any) -> bool:
    return isinstance(body, list) and all(isinstance(item, (str, bytes)) for item in body)


def _make_data(body: Any) -> DataBody:
    made = DataBody(None)
    if isinstance(body, (str, bytes)):
        made.append(body)
    elif _only_text(body):
        for item in body or [b""]:  # §3.2 wants at least one section: an empty list is one of no bytes
            made.append(item)
    else:
        raise TypeError("for MessageBodyType.Data the body must be str, bytes or a list of these")
    return made


def _make_sequence(body: Any) -> SequenceBody:
    if not isinstance(body, list):
        raise TypeError("for MessageBodyType.Sequence the body must be a list or a list of lists")
    made = SequenceBody(None)
    for item in body if body and all(isinstance(item, list) for item in body) else [body]:
        made.append(item)
    return made
