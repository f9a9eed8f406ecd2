"""What type checkers want and Python has not, or not yet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

_Got = TypeVar("_Got", covariant=True)
_Given = TypeVar("_Given", contravariant=True)
_T = TypeVar("_T")

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack
elif sys.version_info >= (3, 11):
    from typing import Unpack  # novm
else:

    class Unpack:
        """`typing` has it from 3.11 on. Only who evaluates annotations sees this one."""

        def __class_getitem__(cls, _: Any) -> Any:
            return Any


class Nothing(TypedDict):
    """No arguments, in `**kwargs: Unpack[Nothing]`: that is there because uamqp has it, and what gets there is an error."""


class Attribute(Generic[_Got, _Given]):
    """The type of a property that gives a `_Got` and takes a `_Given`."""

    if TYPE_CHECKING:

        def __get__(self, owner: Any, kind: Any = None, /) -> _Got: ...
        def __set__(self, owner: Any, value: _Given, /) -> None: ...


Field = Attribute[_T, _T]
"""The type of a property that takes what it gives."""
