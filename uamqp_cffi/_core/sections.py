"""The sections of a message (§3.2): found by the engine in one call, decoded when somebody looks, passed on unread
otherwise. Also the outcomes (§3.4) that settle one.
"""

from __future__ import annotations

from typing import Any

from .. import errors
from . import engine, values
from .values import FALSE, TRUE

HEADER = 0x70
DELIVERY_ANNOTATIONS = 0x71
MESSAGE_ANNOTATIONS = 0x72
PROPERTIES = 0x73
APPLICATION_PROPERTIES = 0x74
DATA = 0x75
AMQP_SEQUENCE = 0x76
AMQP_VALUE = 0x77
FOOTER = 0x78
BODY = (DATA, AMQP_SEQUENCE, AMQP_VALUE)

_NAMES = {
    HEADER: "header",
    DELIVERY_ANNOTATIONS: "delivery-annotations",
    MESSAGE_ANNOTATIONS: "message-annotations",
    PROPERTIES: "properties",
    APPLICATION_PROPERTIES: "application-properties",
    DATA: "data",
    AMQP_SEQUENCE: "amqp-sequence",
    AMQP_VALUE: "amqp-value",
    FOOTER: "footer",
}
PREFIX = {code: b"\x00\x53" + bytes((code,)) for code in _NAMES}
_DATA8 = [PREFIX[DATA] + b"\xa0" + bytes((n,)) for n in range(256)]
_DATA32 = PREFIX[DATA] + b"\xb0"


def data_section(body: bytes) -> bytes:
    """One data section (§3.2.6)."""
    n = len(body)
    if n < 256:
        return _DATA8[n] + body
    return _DATA32 + n.to_bytes(4, "big") + body


class Sections:
    """An encoded message. Nothing is looked at before it is asked for; what then turns out malformed is a
    ValueError."""

    __slots__ = ("_found", "message_format", "payload")

    def __init__(self, payload: bytes, message_format: int = 0) -> None:
        self.payload: bytes = payload
        self.message_format: int = message_format
        self._found: dict[int, list[tuple[int, int, int]]] | None = None

    def _all(self) -> dict[int, list[tuple[int, int, int]]]:
        """(start of the section, start of its value, end) of every section, by kind."""
        found = self._found
        if found is None:
            found = {}
            for kind, offset, length, start in engine.sections(self.payload):
                found.setdefault(kind, []).append((start, offset, offset + length))
            self._found = found
        return found

    def _spans(self, code: int) -> list[tuple[int, int, int]]:
        return self._all().get(code, [])

    def check(self) -> None:
        """Raises ValueError unless these are whole sections, with bodies of one kind and one amqp-value at most."""
        self.body_code()
        if not self._all():
            raise ValueError("no message: there is no section in it")

    def body_code(self) -> int | None:
        """The descriptor of the body's sections, None without a body. Raises ValueError when they are of several kinds, or
        more than one amqp-value: there is no telling which of them is meant."""
        found = self._all()
        kinds = [code for code in BODY if code in found]
        if len(kinds) > 1:
            raise ValueError(f"a message body has one kind of section, not {' and '.join(_NAMES[k] for k in kinds)}")
        if kinds == [AMQP_VALUE] and len(found[AMQP_VALUE]) > 1:
            raise ValueError("a message has more than one amqp-value section")
        return kinds[0] if kinds else None

    def data(self) -> list[bytes]:
        """What the data sections hold. Raises ValueError when that is not binary."""
        payload = self.payload
        parts: list[bytes] = []
        for _, start, end in self._spans(DATA):
            code = payload[start]  # the engine has seen that the value is whole
            if code == 0xA0:
                parts.append(payload[start + 2 : end])
            elif code == 0xB0:
                parts.append(payload[start + 5 : end])
            else:
                parts.append(values.decode(payload[start:end]))
        if not all(type(part) is bytes for part in parts):
            raise ValueError("a data section holds no binary")
        return parts

    def raw(self, code: int) -> bytes | None:
        """The encoded value of the first section of that kind."""
        spans = self._spans(code)
        if not spans:
            return None
        _, start, end = spans[0]
        return self.payload[start:end]

    def raw_all(self, code: int) -> list[bytes]:
        """The encoded values of all of them."""
        return [self.payload[start:end] for _, start, end in self._spans(code)]

    def whole(self, code: int) -> bytes:
        """All sections of that kind as they came, with their descriptors."""
        return b"".join([self.payload[section:end] for section, _, end in self._spans(code)])

    def mapping(self, code: int) -> dict[Any, Any] | None:
        """The map in that section as Python has it, None without one. Raises ValueError when it holds no map, TypeError when
        the map has a list or a map as key."""
        raw = self.raw(code)
        if raw is None:
            return None
        try:
            value = values.decode(raw)
        except TypeError as error:
            raise TypeError(f"the {_NAMES[code]} section has a key that no dict can have: {error}") from error
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"the {_NAMES[code]} section holds no map")
        return value


def same(left: Any, right: Any) -> bool:
    """Whether two decoded values are equal in type too: 1, 1.0 and True are three values on the wire."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, c) and same(b, d) for (a, b), (c, d) in zip(left.items(), right.items(), strict=True)
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


# ---- outcomes -------------------------------------------------------------------------------------------------------

ACCEPTED = b"\x00\x53\x24\x45"
RELEASED = b"\x00\x53\x26\x45"


def rejected(condition: bytes, description: bytes | str | None = b"", info: dict[Any, Any] | None = None) -> bytes:
    """The rejected state with its error. Keys of `info` are symbols, as the fields type wants (§2.8.13)."""
    error = values.described_composite(
        "error",
        condition=values.enc_symbol(condition),
        description=None if description is None else values.enc_str(description),
        info=values.symbol_map(info) if info else None,
    )
    return values.described_composite("rejected", error=error)


def modified(failed: bool, undeliverable_here: bool, annotations: dict[Any, Any] | None = None) -> bytes:
    """The modified state."""
    return values.described_composite(
        "modified",
        delivery_failed=TRUE if failed else FALSE,
        undeliverable_here=TRUE if undeliverable_here else FALSE,
        message_annotations=values.symbol_map(annotations) if annotations else None,
    )


def outcome(response: Any) -> bytes:
    """The delivery state that a settler sends for one of the response classes of `errors`. Raises ValueError for any
    other object."""
    if isinstance(response, errors.MessageAccepted):
        return ACCEPTED
    if isinstance(response, errors.MessageReleased):
        return RELEASED
    if isinstance(response, errors.MessageRejected):
        return rejected(response.error_condition, response.error_description, response.info)
    if isinstance(response, errors.MessageModified):
        return modified(response.failed, response.undeliverable, response.info)
    raise ValueError(f"no outcome is {type(response).__name__}")
