"""The sections of a message, put together again: what was received and not touched goes out as it came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import errors
from .._arguments import wrong
from .._core.engine import sections, values
from .._core.engine.sections import Sections
from .._core.engine.values import NULL
from .header import MessageHeader

# A section that was received and not looked at. It is not a private object() so that it survives pickling.
_UNREAD: Any = ...


# ---- messages -------------------------------------------------------------------------------------------------------


def _check_mapping(what: str, value: Any) -> None:
    if value and type(value) is not dict and not isinstance(value, Mapping):
        raise wrong(what, value, "a dict", "{name: value}")


_SECTIONS_IN_UAMQP = (
    "properties", "application_properties", "annotations", "header", "footer", "delivery_annotations",
)  # fmt: skip
_PREFIX_HEADER = sections.PREFIX[sections.HEADER]
_PREFIX_PROPERTIES = sections.PREFIX[sections.PROPERTIES]


def _put_header(parts: list[bytes], header: Any, received: Sections | None) -> None:
    """The header; a received one that is still what it was goes out as it came."""
    if received is not None and (header is _UNREAD or _unchanged_header(header, received)):
        parts.append(received.whole(sections.HEADER))
    elif header is not None:
        parts += (_PREFIX_HEADER, header._encode())


def _unchanged_header(header: MessageHeader | None, received: Sections) -> bool:
    if header is None:
        return received.is_null(sections.HEADER)
    try:
        raw = received.raw(sections.HEADER)
        return raw is not None and sections.same(header._as_dict(), MessageHeader(raw)._as_dict())
    except errors.MessageDecodeError:  # it was replaced
        return False


def _put_received_properties(parts: list[bytes], properties: Any, received: Sections) -> None:
    """The properties of a received message: as they came unless they were changed or replaced."""
    wire = None if properties is None or properties is _UNREAD else properties._encode()
    if properties is _UNREAD or received.raw_all(sections.PROPERTIES) == [NULL if wire is None else wire]:
        parts.append(received.whole(sections.PROPERTIES))
    elif wire is not None:
        parts += (_PREFIX_PROPERTIES, wire)


def _unchanged_map(mapping: Any, received: Sections, code: int) -> bool:
    if mapping is None:
        return received.is_null(code)
    try:
        return sections.same(mapping, received.mapping(code))
    except errors.MessageDecodeError:
        return False


def _put_map(parts: list[bytes], code: int, mapping: Any, received: Sections | None, encoding: str) -> None:
    """A section that is a map. A received one that is still what it was keeps the AMQP types it came with."""
    if received is not None and (mapping is _UNREAD or _unchanged_map(mapping, received, code)):
        parts.append(received.whole(code))
    elif mapping:
        try:
            _check_mapping("it", mapping)
            if code == sections.APPLICATION_PROPERTIES:
                parts += (sections.PREFIX[code], values.string_map(mapping, encoding))
            else:
                parts += (sections.PREFIX[code], values.symbol_map(mapping, encoding))
        except (TypeError, ValueError, OverflowError) as error:
            raise values.explained(error, sections._NAMES[code]) from error
