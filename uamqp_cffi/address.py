"""Addresses and what stands around them on an attach: source and target (§3.5.3, §3.5.4).

An address is a URL such as `amqps://user:password@host:5671/queue`, of which scheme, host and path go out on the wire,
or a bare node name such as `/queues/orders`, which goes out as it is. `str()` and `repr()` show no password.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import ParseResult, ParseResultBytes, urlsplit

from . import constants
from ._core.engine import values
from ._native.make import data_factory, decode_value, described_value, dict_value, string_value, symbol_value
from ._native.values import AMQPValue, DictValue, StringValue, StructBase

if TYPE_CHECKING:
    from ._native.sections import cSource, cTarget
else:
    cSource = cTarget = Any  # what evaluates annotations need not have them loaded

_A = TypeVar("_A", bound="Address")


def _parse(text: str) -> ParseResult | str:
    """A URL in parts, or what is wrong with it; a text without "://" is a node name, all of it path. What urllib says
    is dropped, for it may quote the password."""
    if "://" not in text:
        return ParseResult("", "", text, "", "", "")
    try:
        parts = urlsplit(text)
    except ValueError:
        return "its host is malformed"
    if not parts.scheme:
        return "it has no scheme in front of '://'"
    if not parts.hostname:
        return "it has no host"
    try:
        _ = parts.port
    except ValueError:
        return "its port is no number from 0 to 65535; write %2F for '/' and %40 for '@' in a password"
    return ParseResult(parts.scheme, parts.netloc, parts.path, "", parts.query, parts.fragment)


def _decoded(address: bytes, encoding: str) -> str | None:
    """None when it cannot be decoded: a UnicodeDecodeError holds all of it, the password too."""
    with contextlib.suppress(UnicodeDecodeError):
        return address.decode(encoding)
    return None


def _as_bytes(parsed: ParseResult) -> ParseResultBytes:
    return ParseResultBytes(*[part.encode("utf-8", "surrogateescape") for part in parsed])


def _masked(text: str, parsed: ParseResult) -> str:
    if not parsed.scheme:
        return _name_masked(text)
    start = text.index("://") + 3 + len(parsed.netloc)
    if ":" in parsed.netloc and "@" in text[start:]:
        # the password may have had a "/" in it, so that what looks like host, port and path is part of it
        text = f"{text[:start]}/***@{text.rpartition('@')[2]}"
    if parsed.password is None:
        return text
    user_info, _, host = parsed.netloc.rpartition("@")
    masked = text.replace(f"{user_info}@{host}", f"{user_info.partition(':')[0]}:***@{host}", 1)
    return masked if masked != text else _unsafe_masked(text)


def _name_masked(text: str) -> str:
    """A node name; one such as "user:password@host/q" was probably meant as a URL."""
    before, at, after = text.rpartition("@")
    user, colon, _ = before.partition(":")
    path = text.startswith("/") and not text.startswith("//")
    return text if path or not at or not colon else f"{user}:***@{after}"


class Address:
    """An address without a terminus: the base of `Source` and `Target`.

    `address` is str or bytes (in `encoding`). Raises ValueError when it is no address, and says why. `parsed_address`
    is the URL in parts, as bytes, as `urllib.parse.urlparse` gives them.
    """

    def __init__(self, address: str | bytes, encoding: str = "UTF-8") -> None:
        self._read(address, encoding, needs_path=True)

    def _read(self, address: str | bytes, encoding: str, needs_path: bool) -> None:
        kind = type(self).__name__
        if not address or not isinstance(address, (str, bytes)):
            given = "nothing" if not address else type(address).__name__
            raise ValueError(
                f"a {kind} address is a str or bytes that is not empty, such as amqps://HOST/QUEUE: {given} was given"
            )
        self._encoding = encoding
        text = address if isinstance(address, str) else _decoded(address, encoding)
        if text is None:
            raise ValueError(f"this is no {kind} address: its bytes are not {encoding}")
        parsed = _parse(text)
        if isinstance(parsed, str):
            raise ValueError(f"this is no {kind} address ({parsed}): {_unsafe_masked(text)!r}")
        self._text = _masked(text, parsed)
        self._node: str | None = None
        self._parsed = parsed
        self.parsed_address: ParseResultBytes = _as_bytes(parsed)
        if needs_path and not parsed.path:
            raise ValueError(f"a {kind} address needs a path, the node's name, and {self._text!r} has none")

    @classmethod
    def _endpoint(cls: type[_A], url: str | bytes, node: str | bytes | None = None, encoding: str = "UTF-8") -> _A:
        """Where to connect to by `url`, which needs no path when `node` is given: that goes out as it is."""
        made = cls.__new__(cls)
        made._read(url, encoding, needs_path=node is None)
        made._node = node.decode(encoding) if isinstance(node, bytes) else node
        made._reset()
        return made

    def _reset(self) -> None:
        """Sets every field of the terminus, where there is one, to unset."""

    @classmethod
    def from_c_obj(cls: type[_A], c_value: Any, encoding: str = "UTF-8") -> _A:
        """A peer's terminus: a decoded source or target (`Described`, list), its encoding, or a native object."""
        made = cls.__new__(cls)
        made._encoding = encoding
        made._reset()
        if isinstance(c_value, StructBase):
            native: Any = c_value if isinstance(c_value, AMQPValue) else getattr(c_value, "value", None)
            c_value = data_factory(native).encoded()
        if isinstance(c_value, (bytes, bytearray)):
            c_value = values.decode_exact(bytes(c_value))
        if isinstance(c_value, values.Described):
            c_value = c_value.value
        fields = list(c_value) if isinstance(c_value, (list, tuple)) else []
        address = fields[0] if fields else None
        text = address.decode(encoding, "surrogateescape") if isinstance(address, bytes) else str(address or "")
        parsed = _parse(text)
        if isinstance(parsed, str):
            parsed = ParseResult("", "", text, "", "", "")  # a peer may name its nodes as it likes
        made._text = _masked(text, parsed)
        made._node = text
        made._parsed = parsed
        made.parsed_address = _as_bytes(parsed)
        made._load(fields)
        return made

    def _load(self, fields: list[Any]) -> None:
        """Takes over the fields of a peer's terminus."""

    def __getstate__(self) -> dict[str, Any]:
        """The parts as plain tuples: Python 3.15 cannot pickle a ParseResult that urllib did not make."""
        return {**self.__dict__, "_parsed": tuple(self._parsed), "parsed_address": tuple(self.parsed_address)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._parsed = ParseResult(*state["_parsed"])
        self.parsed_address = ParseResultBytes(*state["parsed_address"])

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text!r})"

    @property
    def hostname(self) -> str | None:
        """The host, lower case; None for a bare node name."""
        return self._parsed.hostname

    @property
    def port(self) -> int | None:
        """The port, when the URL has one."""
        return self._parsed.port

    @property
    def scheme(self) -> str:
        """The scheme; empty for a bare node name."""
        return self._parsed.scheme

    @property
    def username(self) -> str | None:
        """The user name as it stands in the URL, percent-encoding and all."""
        return self._parsed.username

    @property
    def password(self) -> str | None:
        """The password as it stands in the URL, percent-encoding and all."""
        return self._parsed.password

    @property
    def address(self) -> str:
        """What goes out on the wire: scheme://host/path, or the bare node name."""
        if self._node is not None:
            return self._node
        parsed = self._parsed
        if not parsed.scheme:
            return parsed.path
        host = parsed.hostname or ""
        return f"{parsed.scheme}://{f'[{host}]' if ':' in host else host}{parsed.path}"

    @property
    def _c_address(self) -> StringValue:
        return string_value(values.utf8(self.address))

    @property
    def _address(self) -> cSource | cTarget:
        """The terminus as a native object."""
        raise self._no_terminus()

    def _encode(self) -> bytes:
        """The terminus on the wire."""
        raise self._no_terminus()

    def _no_terminus(self) -> AttributeError:
        return AttributeError(f"{type(self).__name__} has no terminus: use Source or Target")

    @property
    def durable(self) -> int | None:
        """terminus-durability: 0 none, 1 configuration, 2 unsettled-state."""
        raise self._no_terminus()

    @durable.setter
    def durable(self, value: int) -> None:
        raise self._no_terminus()

    @property
    def expiry_policy(self) -> bytes:
        """When the terminus expires: b"link-detach", b"session-end", b"connection-close", b"never"."""
        raise self._no_terminus()

    @expiry_policy.setter
    def expiry_policy(self, value: bytes) -> None:
        raise self._no_terminus()

    @property
    def timeout(self) -> int | None:
        """Seconds that the terminus outlives what `expiry_policy` names."""
        raise self._no_terminus()

    @timeout.setter
    def timeout(self, value: int) -> None:
        raise self._no_terminus()

    @property
    def dynamic(self) -> bool | None:
        """Whether the peer shall make a node and say its address."""
        raise self._no_terminus()

    @dynamic.setter
    def dynamic(self, value: bool) -> None:
        raise self._no_terminus()

    @property
    def distribution_mode(self) -> str | None:
        """Of a source: "move" or "copy"."""
        raise AttributeError(f"{type(self).__name__} has no distribution mode: only a Source has")

    @distribution_mode.setter
    def distribution_mode(self, value: str | bytes) -> None:
        raise AttributeError(f"{type(self).__name__} has no distribution mode: only a Source has")


def _unsafe_masked(text: str) -> str:
    """A URL that could not be parsed, without anything that may be a password."""
    scheme, slashes, rest = text.partition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{slashes}***@{host}" if at else text


def _name(value: Any) -> bytes | None:
    """A symbol that a peer sent; None when it sent something else in its place."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) else None


def _integer(name: str, value: int) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    values.enc_uint(value)
    return int(value)


class _Terminus(Address):
    """What source and target have in common."""

    _kind = ""

    def __init__(self, address: str | bytes, encoding: str = "UTF-8") -> None:
        super().__init__(address, encoding)
        self._reset()

    def _reset(self) -> None:
        self._durable: int | None = None
        self._expiry_policy: bytes | None = None
        self._timeout: int | None = None
        self._dynamic: bool | None = None

    def _load(self, fields: list[Any]) -> None:
        durable, policy, self._timeout, dynamic = (fields[1:5] + [None] * 4)[:4]
        self._durable = durable
        self._expiry_policy = _name(policy)
        self._dynamic = dynamic

    @property
    def durable(self) -> int | None:
        return self._durable

    @durable.setter
    def durable(self, value: int) -> None:
        self._durable = _integer("durable", value)

    @property
    def expiry_policy(self) -> bytes:
        return self._expiry_policy or b"session-end"

    @expiry_policy.setter
    def expiry_policy(self, value: bytes) -> None:
        if not isinstance(value, bytes):
            raise TypeError(f"expiry_policy must be bytes, not {type(value).__name__}")
        self._expiry_policy = value

    @property
    def timeout(self) -> int | None:
        return self._timeout

    @timeout.setter
    def timeout(self, value: int) -> None:
        self._timeout = _integer("timeout", value)

    @property
    def dynamic(self) -> bool | None:
        return self._dynamic

    @dynamic.setter
    def dynamic(self, value: bool) -> None:
        self._dynamic = bool(value)

    def _fields(self) -> dict[str, bytes | None]:
        return {
            # §3.5.3: who asks for a dynamic node must not name one
            "address": None if self._dynamic else values.enc_str(self.address),
            "durable": None if self._durable is None else values.enc_uint(self._durable),
            "expiry_policy": None if self._expiry_policy is None else values.enc_symbol(self._expiry_policy),
            "timeout": None if self._timeout is None else values.enc_uint(self._timeout),
            "dynamic": None if self._dynamic is None else values.enc_bool(self._dynamic),
        }

    @property
    def _address(self) -> cSource | cTarget:
        from ._native.sections import cSource, cTarget

        cls = cSource if self._kind == "source" else cTarget
        return cls._of(decode_value(self._encode()))

    def _encode(self) -> bytes:
        return values.described_composite(self._kind, **self._fields())


class Source(_Terminus):
    """Where messages come from: the address of a receiver, with its filter.

    >>> source = Source("amqps://me:secret@example.com/queue")
    >>> source.address, str(source)
    ('amqps://example.com/queue', 'amqps://me:***@example.com/queue')
    """

    _kind = "source"

    def __init__(self, address: str | bytes, encoding: str = "UTF-8") -> None:
        super().__init__(address, encoding)

    def _reset(self) -> None:
        super()._reset()
        self.filter_key = constants.STRING_FILTER
        self._distribution_mode: bytes | None = None
        self._filter: DictValue | None = None

    def _load(self, fields: list[Any]) -> None:
        super()._load(fields)
        mode, filters = (fields[6:8] + [None] * 2)[:2]
        self._distribution_mode = _name(mode)
        if isinstance(filters, dict):
            native = data_factory(filters)
            self._filter = native if isinstance(native, DictValue) else None

    @property
    def distribution_mode(self) -> str | None:
        mode = self._distribution_mode
        return None if mode is None else mode.decode(self._encoding, "backslashreplace")

    @distribution_mode.setter
    def distribution_mode(self, value: str | bytes) -> None:
        if isinstance(value, str):
            value = value.encode(self._encoding)
        if not isinstance(value, bytes):
            raise TypeError(f"distribution_mode must be str or bytes, not {type(value).__name__}")
        self._distribution_mode = value

    def get_filter(self, name: bytes = constants.STRING_FILTER) -> Any:
        """The value of the filter `name`, None when there is none."""
        if self._filter is None:
            return None
        try:
            return self._filter[symbol_value(name)].value
        except KeyError:
            return None

    def set_filter(
        self, value: Any, name: bytes = constants.STRING_FILTER, descriptor: bytes | None = constants.STRING_FILTER
    ) -> None:
        """Makes `name` the only filter: `value`, described by the symbol `descriptor` (None: undescribed). A `value` of
        None is null and undescribed. Raises TypeError when a name is not bytes or the value has no AMQP type."""
        native = data_factory(value, encoding=self._encoding)
        if value is not None and descriptor is not None:
            native = described_value(symbol_value(descriptor), native)
        filters = dict_value()
        filters[symbol_value(name)] = native
        self._filter = filters

    def _fields(self) -> dict[str, bytes | None]:
        fields = super()._fields()
        if self._distribution_mode is not None:
            fields["distribution_mode"] = values.enc_symbol(self._distribution_mode)
        if self._filter is not None:
            fields["filter"] = self._filter.encoded()
        return fields


class Target(_Terminus):
    """Where messages go: the address of a sender."""

    _kind = "target"

    def __init__(self, address: str | bytes, encoding: str = "UTF-8") -> None:
        super().__init__(address, encoding)
