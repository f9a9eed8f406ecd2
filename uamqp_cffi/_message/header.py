"""The header of messages (§3.2.1)."""

from __future__ import annotations

import copy
import operator
from typing import TYPE_CHECKING, Any

from .._core.engine import sections, values
from .._core.engine.values import NULL
from .._native.make import decode_value
from .properties import _list_of

if TYPE_CHECKING:
    from .._native.sections import cHeader
else:
    cHeader = Any  # for who evaluates annotations


def _whole(value: Any) -> int:
    """A number of the header; as in uamqp a float is cut, since that is what seconds times 1000 often are."""
    return int(value) if isinstance(value, float) else operator.index(value)


class MessageHeader:
    """The transport header: `delivery_count`, `time_to_live` (ms), `first_acquirer`, `durable`, `priority`. Attributes
    left None are sent as null. `header` wraps a native one, or a received one (its encoded list), and nothing else counts then."""

    delivery_count: int | None = 0
    time_to_live: int | None = None
    first_acquirer: bool | None = None
    durable: bool | None = None
    priority: int | None = None

    def __init__(
        self,
        header: bytes | cHeader | None = None,
        *,
        durable: bool | None = None,
        priority: int | None = None,
        time_to_live: int | None = None,
        first_acquirer: bool | None = None,
        delivery_count: int | None = 0,
    ) -> None:
        self.delivery_count = delivery_count
        self.time_to_live = time_to_live
        self.first_acquirer = first_acquirer
        self.durable = durable
        self.priority = priority
        if header is not None:
            fields = sections.fields_of(sections.HEADER, _list_of(sections.HEADER, header))
            fields += [None] * (5 - len(fields))
            self.durable, self.priority, self.time_to_live, self.first_acquirer, count = fields[:5]
            self.delivery_count = count or 0
            if self.priority is None:
                self.priority = 4  # §3.2.1: the default

    @property
    def ttl(self) -> int | None:
        return self.time_to_live

    def _encode(self) -> bytes:
        try:
            return values.enc_list(
                (
                    NULL if self.durable is None else values.enc_bool(self.durable),
                    NULL if self.priority is None else values.enc_ubyte(_whole(self.priority)),
                    NULL if self.time_to_live is None else values.enc_uint(_whole(self.time_to_live)),
                    NULL if self.first_acquirer is None else values.enc_bool(self.first_acquirer),
                    NULL if self.delivery_count is None else values.enc_uint(_whole(self.delivery_count)),
                )
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise values.explained(error, "header") from error

    def get_header_obj(self) -> cHeader:
        """The section as a native object."""
        from .._native.sections import cHeader

        return cHeader._of(decode_value(self._encode()))

    def _as_dict(self) -> dict[str, Any]:
        return {
            "delivery_count": self.delivery_count,
            "time_to_live": self.time_to_live,
            "first_acquirer": self.first_acquirer,
            "durable": self.durable,
            "priority": self.priority,
        }

    def __str__(self) -> str:
        return str(self._as_dict())

    def __repr__(self) -> str:
        fields = ("durable", "priority", "time_to_live", "first_acquirer", "delivery_count")
        return f"MessageHeader({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"


def _header_of(header: MessageHeader | None, durable: bool | None) -> MessageHeader | None:
    """The header of a message for which `durable` was given: one of its own."""
    if durable is None:
        return header
    if header is None:
        return MessageHeader(durable=durable)
    if not isinstance(header, MessageHeader):
        return header  # which is told where it is set
    header = copy.copy(header)
    header.durable = durable
    return header
