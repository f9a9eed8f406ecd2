"""The module by whose name users see a class: the one that they import it from."""

from __future__ import annotations

from types import FunctionType, GenericAlias
from typing import Any, ForwardRef


def show_as(public: str, *values: Any) -> None:
    """Have classes and functions defined in a private module show as those of the module `public` of this package, "" being the
    package itself: in reprs, in tracebacks and in pickles. Values of other kinds are left alone."""
    for value in values:
        if isinstance(value, GenericAlias) or not isinstance(value, (type, FunctionType)):
            continue  # in Python 3.10 the former is one of the latter
        private = value.__module__
        package = private.partition(".")[0]
        if isinstance(value, type):  # `typing.get_type_hints` looks names up in the module that a class shows
            hints = value.__annotations__
            for name, hint in hints.items():
                text = getattr(hint, "__forward_arg__", hint)  # NamedTuple has made references of its strings
                if isinstance(text, str):
                    hints[name] = ForwardRef(text, is_argument=False, module=private, is_class=True)
        value.__module__ = f"{package}.{public}" if public else package
