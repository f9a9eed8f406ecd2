"""Names that uamqp kept for the sake of Python 2 and that others import from there."""

from __future__ import annotations

import queue
from urllib.parse import quote_plus, unquote_plus, urlparse

__all__ = [
    "PY2", "PY3", "TimeoutException", "basestring", "builtin_str", "bytes", "integer_types", "long", "numeric_types",
    "queue", "quote_plus", "str", "unquote_plus", "urlparse",
]  # fmt: skip

PY2 = False
PY3 = True

TimeoutException = TimeoutError

builtin_str = str
bytes = bytes
str = str
basestring: tuple[type, ...] = (str, bytes)
numeric_types: tuple[type, ...] = (int, float)
integer_types: tuple[type, ...] = (int,)
long = int
