"""The names that others import from uamqp's compiled module, in plain Python.

Nothing is defined here but what signs a token: constants, enumerations, native values and messages of them are in `_native/`,
transports, connections, sessions and links in `_plumbing/`. Messages and what is in `_plumbing/` load when a name of theirs
is first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ._native.constants import *
from ._native.enums import *
from ._native.make import *
from ._native.tick import TickCounter as TickCounter
from ._native.values import *

if TYPE_CHECKING or __name__ not in sys.modules:  # never run: see uamqp_cffi/__init__.py
    from ._native.messages import *
    from ._native.sections import *
    from ._plumbing.connections import *
    from ._plumbing.links import *
    from ._plumbing.requests import *
    from ._plumbing.sessions import *
    from ._plumbing.transports import *

_LATER = (
    "_native.sections",
    "_native.messages",
    "_plumbing.transports",
    "_plumbing.connections",
    "_plumbing.sessions",
    "_plumbing.links",
    "_plumbing.requests",
)


if not TYPE_CHECKING:  # else they would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if not name.startswith("_"):
            for module in _LATER:
                found = importlib.import_module(f".{module}", __package__)
                if name in found.__all__:
                    value = getattr(found, name)
                    globals()[name] = value
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    later = [importlib.import_module(f".{module}", __package__).__all__ for module in _LATER]
    return sorted({*globals(), *[name for names in later for name in names]})


def create_sas_token(key: bytes, scope: bytes, keyname: bytes, expiry: int) -> bytes:
    """A shared access signature. `key` is base64, `expiry` in seconds since the epoch; `scope` and `keyname` go in as
    they are. Raises ValueError when the key is not base64."""
    import base64

    from .utils import _sas_token

    return _sas_token(keyname, base64.b64decode(key, validate=True), scope, int(expiry))
