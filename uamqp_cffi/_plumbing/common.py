"""What the connections, sessions and links of `c_uamqp` have in common."""

from __future__ import annotations

from typing import Any, TypeVar

from .._core.engine import records
from .._native.make import data_factory
from .._native.sections import cError
from .._native.values import AMQPValue, DictValue, _native

_T = TypeVar("_T")


def _tell(context: Any, name: str, *args: Any, **kwargs: Any) -> None:
    callback = getattr(context, name, None)
    if callback is not None:
        callback(*args, **kwargs)


def _error_of(error: records.Error | None) -> cError | None:
    """A frame's error as a native object."""
    if error is None:
        return None
    made = cError()
    made.condition = error.condition
    if error.description is not None:
        made.description = error.description
    if error.info:
        made.info = data_factory(error.info)
    return made


def _encoded_error(condition: bytes | None, description: bytes | None) -> bytes:
    """The error of a frame; no condition, no error."""
    if not condition:
        return b""
    made = cError()
    made.condition = condition
    if description:
        made.description = description
    return bytes(made)


def _made(what: _T | None, cls: type[Any]) -> _T:
    if what is None:
        raise ValueError(f"this {cls.__name__} was not made by its maker, or is destroyed")
    return what


def _typed(mapping: AMQPValue | None) -> dict[Any, AMQPValue] | None:
    """A native map as a dict whose values keep their types."""
    if mapping is None:
        return None
    if not isinstance(_native(mapping), DictValue):
        raise TypeError(f"a native map is needed, not a {type(mapping).__name__}")
    return {key.value: item for key, item in mapping._content.values()}
