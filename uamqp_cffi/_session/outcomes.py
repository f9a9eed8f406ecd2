"""What the peer says of a message or a link: condition, description and info."""

from __future__ import annotations

import functools
from typing import Any

from .. import constants
from .._core.engine.decode import decode_exact
from .._core.engine.records import Error
from .._core.engine.types import Described

_REJECTED = 0x25
_NAMES = {
    0x25: "the peer rejected the message",
    0x26: "the peer released the message",
    0x27: "the peer modified the message",
}


@functools.lru_cache(maxsize=1)  # one disposition may come as very many ranges, all with the same state
def rejection(outcome: int, state: bytes) -> tuple[bytes, str | bytes | None, dict[Any, Any] | None]:
    """Condition, description and info of a negative outcome; unknown-error when it gives none."""
    described = decode_exact(state) if state else None
    fields = described.value if isinstance(described, Described) else None
    if outcome == _REJECTED and isinstance(fields, list) and fields:
        error = fields[0]
        parts = error.value if isinstance(error, Described) else error
        if isinstance(parts, list) and parts and parts[0] is not None:
            condition, description, info = (*parts, None, None)[:3]
            text = description.encode("utf-8", "surrogateescape") if isinstance(description, str) else description
            return str(condition).encode("utf-8", "surrogateescape"), text, info
    return (
        constants.ErrorCodes.UnknownError.value,
        _NAMES.get(outcome, "the peer gave an outcome that is not known"),
        None,
    )


def peer_error(error: Error | None, otherwise: str) -> tuple[bytes, str | bytes | None, dict[Any, Any] | None]:
    """Condition, description and info of a frame's error; unknown-error and `otherwise` when it has none."""
    if error is None:
        return constants.ErrorCodes.UnknownError.value, otherwise, None
    return error.condition, error.description, error.info
