"""The sections of a message (§3.2): found by the engine in one call, decoded when somebody looks, passed on unread
otherwise. Also the outcomes (§3.4) that settle one.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ... import errors
from . import lib, values
from .values import FALSE, NULL, TRUE

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
_BODY = frozenset(BODY)
_BESIDE_THE_BODY = frozenset(
    (HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES, APPLICATION_PROPERTIES, FOOTER)
)

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


_LISTS = (0x45, 0xC0, 0xD0)
_MAPS = (0xC1, 0xD1)

# What the fields of header and properties read as; csrc/tape.c (section_is) has the same list, by AMQP type.
_INT, _BOOL, _BYTES, _SCALAR = (
    ((int,), "an integer"),
    ((bool,), "a boolean"),
    ((bytes,), "text or binary"),
    (None, "a scalar"),
)
HEADER_FIELDS = (
    ("durable", _BOOL), ("priority", _INT), ("ttl", _INT), ("first-acquirer", _BOOL), ("delivery-count", _INT),
)  # fmt: skip
PROPERTIES_FIELDS = (
    ("message-id", _SCALAR), ("user-id", _BYTES), ("to", _SCALAR), ("subject", _BYTES), ("reply-to", _SCALAR),
    ("correlation-id", _SCALAR), ("content-type", _BYTES), ("content-encoding", _BYTES), ("absolute-expiry-time", _INT),
    ("creation-time", _INT), ("group-id", _BYTES), ("group-sequence", _INT), ("reply-to-group-id", _BYTES),
)  # fmt: skip
_FIELDS: dict[int, Any] = {HEADER: HEADER_FIELDS, PROPERTIES: PROPERTIES_FIELDS}
_SCALARS = (int, bytes, UUID, str, bool, float)
_KINDS = {
    code: tuple((type(None), *(kinds or _SCALARS)) for _, (kinds, _) in fields) for code, fields in _FIELDS.items()
}
_seen: dict[int, set[tuple[type, ...]]] = {code: set() for code in _FIELDS}  # what the fields of good sections were
_MOST_SEEN = 1000


def malformed(code: int, problem: str, cause: BaseException | None = None) -> errors.MessageDecodeError:
    """The error for a section that is not what it must be."""
    error = errors.MessageDecodeError(f"the {_NAMES[code]} section {problem}")
    error.__cause__ = cause
    return error


def value_of(code: int, raw: bytes) -> Any:
    """The value of a section as Python has it. Raises MessageDecodeError."""
    try:
        return values.decode(raw)
    except ValueError as error:
        raise malformed(code, f"is malformed: {error}", error) from error


def fields_of(code: int, raw: bytes) -> list[Any]:
    """The fields of header or properties, null ones as None; those at the end may be missing. Raises MessageDecodeError when
    one is not of its type."""
    if raw == NULL:
        return []
    if raw[:1] and raw[0] not in _LISTS:
        raise malformed(code, "holds no list")
    try:
        fields: list[Any] = values.read_one(raw, values.COMPAT)  # decode(), without a call of its own
    except ValueError as error:
        raise malformed(code, f"is malformed: {error}", error) from error
    kinds = tuple(map(type, fields))
    if kinds not in _seen[code]:
        for kind, allowed, (name, (_, wanted)) in zip(kinds, _KINDS[code], _FIELDS[code], strict=False):
            if kind not in allowed:
                raise malformed(code, f"has a {name} that is not {wanted} but {kind.__name__}")
        if len(_seen[code]) < _MOST_SEEN:
            _seen[code].add(kinds)
    return fields


class Sections:
    """An encoded message. Nothing is looked at before it is asked for; what then turns out malformed is a
    MessageDecodeError."""

    __slots__ = ("_body", "_found", "_several", "message_format", "payload")

    def __init__(self, payload: bytes, message_format: int = 0) -> None:
        self.payload: bytes = payload
        self.message_format: int = message_format
        self._found: dict[int, list[tuple[int, int, int]]] | None = None
        self._body: int | None = None  # what `body_code` found out, 0 for no body
        self._several = False  # a kind of section is there more than once

    def _all(self) -> dict[int, list[tuple[int, int, int]]]:
        """(start of the section, start of its value, end) of every section, by kind."""
        found = self._found
        if found is None:
            found = {}
            try:
                rows = lib.sections(self.payload)
            except lib.DecodeError as error:
                raise errors.MessageDecodeError(f"this is no message: {error}") from error
            for kind, offset, length, start in rows:
                if kind in found:
                    self._several = True
                    found[kind].append((start, offset, offset + length))
                else:
                    found[kind] = [(start, offset, offset + length)]
            self._found = found
        return found

    def _spans(self, code: int) -> list[tuple[int, int, int]]:
        return self._all().get(code, [])

    def check(self) -> None:
        """Raises MessageDecodeError unless these are sections that there are, those beside the body once each, with bodies
        of one kind and one amqp-value at most."""
        self.body_code()
        found = self._all()
        if self._several:
            for code in found:
                if code not in _BODY:
                    self.raw(code)
        if not found:
            raise errors.MessageDecodeError("no message: there is no section in it")

    def check_all(self) -> None:
        """Raises the MessageDecodeError that looking at one of the sections would."""
        self.body_code()
        for code in self._all():
            if code in _FIELDS:
                fields_of(code, self.raw(code) or NULL)
            elif code not in BODY:
                self.mapping(code)
        self.data()
        for raw in self.raw_all(AMQP_SEQUENCE):
            sequence(raw)

    def readable(self) -> bool:
        """Whether that would raise nothing; told at a fraction of its cost."""
        return lib.readable(self.payload)

    def body_code(self) -> int | None:
        """The descriptor of the body's sections, None without a body. Raises MessageDecodeError when they are of several kinds,
        or more than one amqp-value: there is no telling which of them is meant; or when there is a section whose descriptor is
        not known, for that may be the body."""
        code = self._body
        if code is None:
            code = 0
            for kind in self._all():
                if kind not in _BESIDE_THE_BODY:
                    if code or kind not in _BODY or (kind == AMQP_VALUE and self._several):
                        code = self._judged_body()
                        break
                    code = kind
            self._body = code
        return code or None

    def _judged_body(self) -> int:
        """The same for a message that may not be a good one."""
        found = self._all()
        kinds = [code for code in found if code in _BODY]
        if len(kinds) > 1:
            names = " and ".join(_NAMES[kind] for kind in sorted(kinds))
            raise errors.MessageDecodeError(f"a message body has one kind of section, not {names}")
        if kinds == [AMQP_VALUE] and len(found[AMQP_VALUE]) > 1:
            raise errors.MessageDecodeError("a message has more than one amqp-value section")
        if not found.keys() <= _NAMES.keys():
            code = max(found.keys() - _NAMES.keys())
            which = f"the descriptor 0x{code:02x}" if code else "a descriptor"
            raise errors.MessageDecodeError(f"a section has {which}, which is none of a message's")
        return kinds[0] if kinds else 0

    def data(self) -> list[bytes]:
        """What the data sections hold; null counts as no bytes. Raises MessageDecodeError when one holds anything else than
        binary."""
        payload = self.payload
        parts: list[bytes] = []
        for _, start, end in self._spans(DATA):
            code = payload[start]  # the engine has seen that the value is whole
            if code == 0xA0:
                parts.append(payload[start + 2 : end])
            elif code == 0xB0:
                parts.append(payload[start + 5 : end])
            elif code == 0x40:
                parts.append(b"")
            else:
                raise malformed(DATA, "holds no binary")
        return parts

    def raw(self, code: int) -> bytes | None:
        """The encoded value of the section of that kind. Raises MessageDecodeError when there are several."""
        found = self._found
        spans = (self._all() if found is None else found).get(code)
        if not spans:
            return None
        if len(spans) > 1:
            raise malformed(code, f"is there {len(spans)} times")
        _, start, end = spans[0]
        return self.payload[start:end]

    def raw_all(self, code: int) -> list[bytes]:
        """The encoded values of all of them."""
        return [self.payload[start:end] for _, start, end in self._spans(code)]

    def whole(self, code: int) -> bytes:
        """All sections of that kind as they came, with their descriptors."""
        return b"".join([self.payload[section:end] for section, _, end in self._spans(code)])

    def body(self) -> bytes:
        """All that may be the body as it came, with descriptors."""
        found = sorted(row for code, rows in self._all().items() if code in BODY or code not in _NAMES for row in rows)
        return b"".join([self.payload[section:end] for section, _, end in found])

    def is_null(self, code: int) -> bool:
        """Whether null stands in place of that section."""
        return self.raw_all(code) == [NULL]

    def mapping(self, code: int) -> dict[Any, Any] | None:
        """The map in that section as Python has it, None without one or for null. Raises MessageDecodeError when it holds no map,
        or one with a list or a map as key."""
        raw = self.raw(code)
        if raw is None or raw == NULL:
            return None
        if raw[0] not in _MAPS:
            raise malformed(code, "holds no map")
        try:
            mapping: dict[Any, Any] = values.read_one(raw, values.COMPAT)  # decode(), without a call of its own
        except ValueError as error:
            raise malformed(code, f"is malformed: {error}", error) from error
        if tuple in map(type, mapping):
            raise malformed(code, "has a list or a map as a key")
        return mapping


def sequence(raw: bytes) -> list[Any]:
    """The list in an amqp-sequence section; null counts as an empty one. Raises MessageDecodeError when it holds none."""
    if raw == NULL:
        return []
    if raw[0] not in _LISTS:
        raise malformed(AMQP_SEQUENCE, "holds no list")
    items: list[Any] = value_of(AMQP_SEQUENCE, raw)
    return items


def same(left: Any, right: Any) -> bool:
    """Whether two decoded values would be the same on the wire: 1, 1.0 and True are three values there, 0.0 and -0.0 two, and
    NaN is itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, c) and same(b, d) for (a, b), (c, d) in zip(left.items(), right.items(), strict=True)
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return values.enc_double(left) == values.enc_double(right)
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
