"""Ways to authenticate to the peer."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from .common import AMQPAuth, SASLAnonymous, SASLExternal, SASLPlain

if TYPE_CHECKING or __name__ not in sys.modules:  # never run: see uamqp_cffi/__init__.py
    from . import cbs_auth as cbs_auth
    from . import cbs_auth_async as cbs_auth_async
    from . import common as common
    from .cbs_auth import CBSAuthMixin as CBSAuthMixin
    from .cbs_auth import JWTTokenAuth as JWTTokenAuth
    from .cbs_auth import SASTokenAuth as SASTokenAuth
    from .cbs_auth import TokenRetryPolicy as TokenRetryPolicy
    from .cbs_auth_async import CBSAsyncAuthMixin as CBSAsyncAuthMixin
    from .cbs_auth_async import JWTTokenAsync as JWTTokenAsync
    from .cbs_auth_async import SASTokenAsync as SASTokenAsync

_NAMES = {
    "CBSAsyncAuthMixin": "cbs_auth_async",
    "CBSAuthMixin": "cbs_auth",
    "JWTTokenAsync": "cbs_auth_async",
    "JWTTokenAuth": "cbs_auth",
    "SASTokenAsync": "cbs_auth_async",
    "SASTokenAuth": "cbs_auth",
    "TokenRetryPolicy": "cbs_auth",
}  # loaded when they are first used
_MODULES = frozenset(_NAMES.values())

__all__ = [
    "AMQPAuth",
    "CBSAsyncAuthMixin",
    "CBSAuthMixin",
    "JWTTokenAsync",
    "JWTTokenAuth",
    "SASLAnonymous",
    "SASLExternal",
    "SASLPlain",
    "SASTokenAsync",
    "SASTokenAuth",
    "TokenRetryPolicy",
]


if not TYPE_CHECKING:  # else they would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
        elif name in _MODULES:
            value = importlib.import_module(f".{name}", __name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
