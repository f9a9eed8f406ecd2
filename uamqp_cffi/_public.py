"""The name by which users see a class: that of the module they import it from."""

from __future__ import annotations

import sys
from types import FunctionType


def show_as(module: str) -> None:
    """Name `module` as the home of the classes and functions in its `__all__` that are defined in private modules: in
    reprs, in messages of exceptions and in pickles."""
    names = vars(sys.modules[module])
    package = module.partition(".")[0]
    for name in names["__all__"]:
        value = names[name]
        if isinstance(value, (type, FunctionType)) and value.__module__.startswith(f"{package}._"):
            value.__module__ = module
