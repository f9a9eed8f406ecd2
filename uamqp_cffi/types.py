"""Wrappers that say which AMQP type a Python value has: `AMQPSymbol("x")`, `AMQPuLong(5)`.

`.value` is the Python value, `.c_data` the native one. A subclass of `AMQPType` gives the native value in
`_c_wrapper(self, value)`.
"""

from __future__ import annotations

from typing import Any

from ._native.make import (
    array_value,
    byte_value,
    char_value,
    data_factory,
    described_value,
    int_value,
    long_value,
    short_value,
    symbol_value,
    ubyte_value,
    uint_value,
    ulong_value,
    ushort_value,
)
from ._native.values import AMQPValue


class AMQPType:
    """Base of the wrappers."""

    def __init__(self, value: Any) -> None:
        self._c_value = self._c_wrapper(value)

    def _c_wrapper(self, value: Any) -> AMQPValue:
        raise NotImplementedError(f"{type(self).__name__} does not say which AMQP type it is")

    @property
    def value(self) -> Any:
        return self._c_value.value

    @property
    def c_data(self) -> AMQPValue:
        return self._c_value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class AMQPSymbol(AMQPType):
    """A symbol, from str or bytes."""

    def __init__(self, value: str | bytes, encoding: str = "UTF-8") -> None:
        self._c_value = self._c_wrapper(value, encoding)

    def _c_wrapper(self, value: str | bytes, encoding: str = "UTF-8") -> AMQPValue:
        return symbol_value(value.encode(encoding) if isinstance(value, str) else value)


class AMQPChar(AMQPType):
    """A char, from a str of one character, its bytes, or its code point."""

    def __init__(self, value: str | bytes | int, encoding: str = "UTF-8") -> None:
        self._c_value = self._c_wrapper(value, encoding)

    def _c_wrapper(self, value: str | bytes | int, encoding: str = "UTF-8") -> AMQPValue:
        if isinstance(value, bytes):
            value = value.decode(encoding)
        if isinstance(value, str):
            if len(value) != 1:
                raise ValueError(f"a char is one character, not {len(value)}")
            value = ord(value)
        return char_value(value)


class _Integer(AMQPType):
    _maker: Any = None

    def _c_wrapper(self, value: Any) -> AMQPValue:
        try:
            number = int(value)
        except TypeError as error:
            raise ValueError(f"{type(self).__name__} takes an integer, not {type(value).__name__}") from error
        except OverflowError as error:  # infinity
            raise ValueError(str(error)) from error
        try:
            made: AMQPValue = type(self)._maker(number)
            return made
        except OverflowError as error:
            raise ValueError(str(error)) from error


class AMQPLong(_Integer):
    _maker = staticmethod(long_value)


class AMQPuLong(_Integer):
    _maker = staticmethod(ulong_value)


class AMQPByte(_Integer):
    _maker = staticmethod(byte_value)


class AMQPuByte(_Integer):
    _maker = staticmethod(ubyte_value)


class AMQPInt(_Integer):
    _maker = staticmethod(int_value)


class AMQPuInt(_Integer):
    _maker = staticmethod(uint_value)


class AMQPShort(_Integer):
    _maker = staticmethod(short_value)


class AMQPuShort(_Integer):
    _maker = staticmethod(ushort_value)


class AMQPArray(AMQPType):
    """An array: the items have one Python type and one AMQP type. Raises ValueError when they do not."""

    def _c_wrapper(self, value: Any) -> AMQPValue:
        items = list(value)
        if len({type(item) for item in items}) > 1:
            raise ValueError("all values of an array must have the same type")
        array = array_value()
        for item in items:
            array.append(data_factory(item))
        return array


class AMQPDescribed(AMQPType):
    """A described value: descriptor and value may be anything with an AMQP type."""

    def __init__(self, descriptor: Any, described: Any) -> None:
        self._c_value = self._c_wrapper(descriptor, described)

    def _c_wrapper(self, value: Any, described: Any = None) -> AMQPValue:
        return described_value(data_factory(value), data_factory(described))
