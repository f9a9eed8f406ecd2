"""The messages of `c_uamqp`: sections, sources, targets and delivery states with native values in them, and their encoding.

They are what `Message` and the clients are made of in uamqp. Here those have a shorter way to the wire, and these are for code
that builds or takes apart messages with native values: what is put in keeps its AMQP type.
"""

from __future__ import annotations

import operator
from typing import Any, cast

from .._core.engine import sections, values
from .._core.engine.sections import Sections
from .._public import show_as
from .._typing import Field
from .enums import MessageBodyType
from .make import (
    binary_value,
    bool_value,
    decode_value,
    described_value,
    string_value,
    symbol_value,
    uint_value,
    ulong_value,
)
from .sections import (
    _ACCEPTED,
    _ERROR,
    _MODIFIED,
    _RECEIVED,
    _REJECTED,
    _RELEASED,
    _SOURCE,
    _TARGET,
    _bytes,
    _composite,
    _map_of,
    _only,
    cAnnotations,
    cApplicationProperties,
    cDeliveryAnnotations,
    cError,
    cFields,
    cFooter,
    cHeader,
    cMessageAnnotations,
    cProperties,
    cSource,
    cTarget,
)
from .values import AMQPValue, BinaryValue, CompositeValue, DescribedValue, ListValue, StructBase, _native

__all__ = [
    "Messaging", "cMessage", "cMessageDecoder", "create_annotations", "create_application_properties", "create_data",
    "create_delivery_annotations", "create_error", "create_fields", "create_footer", "create_header", "create_message",
    "create_message_annotations", "create_properties", "create_sequence", "create_source", "create_target",
    "decode_message", "enocde_batch_value", "get_encoded_message_size", "load_properties",
]  # fmt: skip


# ---- messages -------------------------------------------------------------------------------------------------------

_BODY_TYPES = {
    sections.DATA: MessageBodyType.DataType,
    sections.AMQP_SEQUENCE: MessageBodyType.SequenceType,
    sections.AMQP_VALUE: MessageBodyType.ValueType,
}
_SECTION_TYPES: dict[int, type[cAnnotations]] = {
    sections.DELIVERY_ANNOTATIONS: cDeliveryAnnotations,
    sections.MESSAGE_ANNOTATIONS: cMessageAnnotations,
    sections.APPLICATION_PROPERTIES: cApplicationProperties,
    sections.FOOTER: cFooter,
}
_ORDER = (*range(sections.HEADER, sections.APPLICATION_PROPERTIES + 1), None, sections.FOOTER)


def _section(code: int, cls: type[StructBase]) -> Any:
    def get(self: cMessage) -> Any:
        return self._sections.get(code)

    def put(self: cMessage, value: Any) -> None:
        if value is not None and not isinstance(value, cls):
            raise TypeError(f"it must be {cls.__name__}, not {type(value).__name__}")
        self._put(code, value)

    return property(get, put, doc=f"{cls.__name__}, or None.")


class cMessage(StructBase):
    """A message with native sections. Its body is data sections, sequences or one value, whichever comes first."""

    __slots__ = ("_body", "_body_code", "_delivery_tag", "_message_format", "_sections")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sections: dict[int, cHeader | cProperties | cAnnotations] = {}
        self._body_code: int | None = None
        self._body: list[AMQPValue] = []
        self._message_format = 0
        self._delivery_tag: BinaryValue | None = None

    header: Field[cHeader | None] = _section(sections.HEADER, cHeader)
    delivery_annotations: Field[cDeliveryAnnotations | None] = _section(
        sections.DELIVERY_ANNOTATIONS, cDeliveryAnnotations
    )
    message_annotations: Field[cMessageAnnotations | None] = _section(sections.MESSAGE_ANNOTATIONS, cMessageAnnotations)
    properties: Field[cProperties | None] = _section(sections.PROPERTIES, cProperties)
    footer: Field[cFooter | None] = _section(sections.FOOTER, cFooter)

    @property
    def application_properties(self) -> cApplicationProperties | None:
        """Set with a native map, or None."""
        return cast("cApplicationProperties | None", self._sections.get(sections.APPLICATION_PROPERTIES))

    @application_properties.setter
    def application_properties(self, value: AMQPValue | cApplicationProperties | None) -> None:
        if isinstance(value, AMQPValue):
            value = cApplicationProperties._of(value)
        if value is not None and not isinstance(value, cApplicationProperties):
            raise TypeError(f"application properties are set with a native map, not with {type(value).__name__}")
        self._put(sections.APPLICATION_PROPERTIES, value)

    def _put(self, code: int, value: Any) -> None:
        if value is None:
            self._sections.pop(code, None)
        else:
            self._sections[code] = value

    @property
    def message_format(self) -> int:
        """The message-format of its transfer."""
        return self._message_format

    @message_format.setter
    def message_format(self, value: int) -> None:
        number = operator.index(value)
        values.enc_uint(number)
        self._message_format = number

    @property
    def delivery_tag(self) -> BinaryValue | None:
        """The tag of a received message; None for others."""
        return self._delivery_tag

    # body

    @property
    def body_type(self) -> MessageBodyType:
        """What the body is made of; NoneType while there is none."""
        return MessageBodyType.NoneType if self._body_code is None else _BODY_TYPES[self._body_code]

    def _of_type(self, code: int) -> list[AMQPValue]:
        if self._body_code != code:
            raise ValueError(f"the body is of {self.body_type.name}, not of {_BODY_TYPES[code].name}")
        return self._body

    def _add(self, code: int, value: AMQPValue) -> None:
        if self._body_code is None:
            self._body_code = code
        self._of_type(code).append(value)

    def _at(self, code: int, index: int) -> AMQPValue:
        body = self._of_type(code)
        if not 0 <= index < len(body):
            raise ValueError(f"index {index} of {len(body)} sections")
        return body[index]

    def add_body_data(self, value: bytes) -> None:
        """Adds a data section. Raises TypeError unless it is bytes, ValueError when the body is of another type."""
        self._add(sections.DATA, binary_value(_bytes("a data section", value)))

    def add_body_sequence(self, sequence: AMQPValue) -> None:
        """Adds a sequence, a native list."""
        self._add(sections.AMQP_SEQUENCE, _only(ListValue, "a sequence", sequence))

    def set_body_value(self, value: AMQPValue) -> None:
        """Makes a native value the body."""
        _native(value)
        if self._body_code is None:
            self._body_code = sections.AMQP_VALUE
        self._of_type(sections.AMQP_VALUE)[:] = [value]

    def count_body_data(self) -> int:
        """How many data sections; ValueError when the body is of another type."""
        return len(self._of_type(sections.DATA))

    def count_body_sequence(self) -> int:
        """How many sequences; ValueError when the body is of another type."""
        return len(self._of_type(sections.AMQP_SEQUENCE))

    def get_body_data(self, index: int) -> bytes:
        """The bytes of a data section; ValueError when there is none of that number."""
        data: bytes = self._at(sections.DATA, index).value
        return data

    def get_body_sequence(self, index: int) -> AMQPValue:
        """A sequence as a native list; ValueError when there is none of that number."""
        return self._at(sections.AMQP_SEQUENCE, index)

    def get_body_value(self) -> AMQPValue:
        """The value, native; ValueError when the body is of another type."""
        return self._at(sections.AMQP_VALUE, 0)

    def clone(self) -> cMessage:
        """One of its own, with the same sections."""
        copy = cMessage()
        copy._sections = {code: section.clone() for code, section in self._sections.items()}
        copy._body_code = self._body_code
        copy._body = [value.clone() for value in self._body]
        copy._message_format = self._message_format
        copy._delivery_tag = self._delivery_tag
        return copy

    def destroy(self) -> None:
        """Empties it."""
        self._clear()

    def _parts(self) -> list[bytes]:
        """The encoded sections, in the order of §3.2."""
        parts = []
        for code in _ORDER:
            if code is None and self._body_code is not None:
                parts += [sections.PREFIX[self._body_code] + value.encoded() for value in self._body]
            elif code is not None and code in self._sections:
                section = self._sections[code]
                parts.append(section.value.encoded() if isinstance(section, cAnnotations) else bytes(section))
        return parts

    def __bytes__(self) -> bytes:
        """The encoding."""
        return b"".join(self._parts())

    @classmethod
    def _received(cls, found: Sections, delivery_tag: bytes | None = None) -> cMessage:
        """One from what came in. Raises ValueError when a section is malformed."""
        made = cls()
        made._message_format = found.message_format
        if delivery_tag is not None:
            made._delivery_tag = binary_value(delivery_tag)
        for code in _ORDER:
            raw = None if code is None else found.raw(code)
            if code is None or raw is None or raw == values.NULL:
                continue
            kind: Any = {sections.HEADER: cHeader, sections.PROPERTIES: cProperties, **_SECTION_TYPES}[code]
            if code in _SECTION_TYPES:
                found.mapping(code)  # raises unless it is one
            made._sections[code] = kind._of(decode_value(raw))
        made._body_code = found.body_code()
        if made._body_code is not None:
            kinds = {sections.DATA: BinaryValue, sections.AMQP_SEQUENCE: ListValue}
            wanted: type[AMQPValue] = kinds.get(made._body_code, AMQPValue)
            made._body = [
                wanted() if raw == values.NULL else decode_value(raw) for raw in found.raw_all(made._body_code)
            ]
            if not all(isinstance(value, wanted) for value in made._body):
                raise ValueError(f"a section of the body holds no {wanted.__name__}")
        return made


class cMessageDecoder:
    """Makes a `cMessage` of encoded sections: `decoded_message` once `decode` was given them."""

    def __init__(self) -> None:
        self.decoded_message: cMessage | None = None

    def decode(self, payload: bytes) -> cMessage:
        """Raises ValueError when `payload` is no message."""
        found = Sections(payload)
        found.check()
        found.check_all()
        self.decoded_message = made = cMessage._received(found)
        return made


def decode_message(payload_size: int, payload_bytes: bytes) -> cMessage:
    """The message in the first `payload_size` of the bytes. Raises ValueError when that is none."""
    payload = _bytes("a message", payload_bytes)
    if not 0 <= payload_size <= len(payload):
        raise ValueError(f"payload_size {payload_size} of {len(payload)} bytes")
    return cMessageDecoder().decode(payload[:payload_size])


def get_encoded_message_size(message: cMessage, encoded_data: list[bytes]) -> int:
    """Appends the encoded sections to the list, and gives how many bytes they are."""
    if not isinstance(message, cMessage):
        raise TypeError(f"expected a cMessage, {type(message).__name__} found")
    parts = message._parts()
    encoded_data += parts
    return sum(map(len, parts))


def enocde_batch_value(value: AMQPValue, message_body: list[bytes]) -> None:
    """Appends an encoded native value to the list. (The name is uamqp's.)"""
    message_body.append(_native(value).encoded())


# ---- makers ---------------------------------------------------------------------------------------------------------


def create_message() -> cMessage:
    return cMessage()


def create_header() -> cHeader:
    return cHeader()


def create_properties() -> cProperties:
    return cProperties()


def load_properties(value: AMQPValue) -> cProperties:
    """The properties in a native list, described or not. Raises ValueError for anything else."""
    return cProperties._of(_native(value))


def create_source() -> cSource:
    return cSource()


def create_target() -> cTarget:
    return cTarget()


def create_error(condition_value: bytes) -> cError:
    made = cError()
    made.condition = condition_value
    return made


def create_annotations(value: AMQPValue) -> cAnnotations:
    return cAnnotations._of(value)


def create_fields(value: AMQPValue) -> cFields:
    return cFields._of(value)


def create_application_properties(value: AMQPValue) -> cApplicationProperties:
    return cApplicationProperties._of(value)


def create_delivery_annotations(value: AMQPValue) -> cDeliveryAnnotations:
    return cDeliveryAnnotations._of(value)


def create_message_annotations(value: AMQPValue) -> cMessageAnnotations:
    return cMessageAnnotations._of(value)


def create_footer(value: AMQPValue) -> cFooter:
    return cFooter._of(value)


def create_data(binary_data: bytes) -> DescribedValue:
    """A data section as a native value."""
    return described_value(ulong_value(sections.DATA), binary_value(_bytes("a data section", binary_data)))


def create_sequence(sequence_data: AMQPValue) -> DescribedValue:
    """A sequence section as a native value."""
    return described_value(ulong_value(sections.AMQP_SEQUENCE), _only(ListValue, "a sequence", sequence_data))


def _fields(name: str, value: cFields | None) -> AMQPValue | None:
    return None if value is None else _map_of(cFields, name, value)


class Messaging:
    """Makers of termini and delivery states, as native values."""

    @staticmethod
    def create_source(address: bytes) -> CompositeValue:
        """A source that is nothing but an address."""
        return _composite(_SOURCE, [string_value(_bytes("an address", address))])

    @staticmethod
    def create_target(address: bytes) -> CompositeValue:
        """A target that is nothing but an address."""
        return _composite(_TARGET, [string_value(_bytes("an address", address))])

    @staticmethod
    def delivery_received(section_number: int, section_offset: int) -> CompositeValue:
        """§3.4.1"""
        return _composite(_RECEIVED, [uint_value(section_number), ulong_value(section_offset)])

    @staticmethod
    def delivery_accepted() -> CompositeValue:
        """§3.4.2"""
        return _composite(_ACCEPTED, [])

    @staticmethod
    def delivery_rejected(
        error_condition: bytes, error_description: bytes, error_info: cFields | None = None
    ) -> CompositeValue:
        """§3.4.3"""
        condition = symbol_value(_bytes("a condition", error_condition))
        description = string_value(_bytes("a description", error_description))
        return _composite(_REJECTED, [_composite(_ERROR, [condition, description, _fields("error_info", error_info)])])

    @staticmethod
    def delivery_released() -> CompositeValue:
        """§3.4.4"""
        return _composite(_RELEASED, [])

    @staticmethod
    def delivery_modified(
        delivery_failed: bool, undeliverable_here: bool, message_annotations: cFields | None
    ) -> CompositeValue:
        """§3.4.5"""
        annotations = _fields("message_annotations", message_annotations)
        return _composite(_MODIFIED, [bool_value(delivery_failed), bool_value(undeliverable_here), annotations])


show_as("c_uamqp", *map(globals().get, __all__))
