"""The names that others import from uamqp's compiled module, in plain Python.

Constants are here; enumerations and native values come from `_c_values`, messages and their sections from `_c_messages`,
transports from `_c_io`, connections, sessions and links from `_c_plumbing`. These load when a name of theirs is first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ._core import time
from ._c_values import *

if TYPE_CHECKING or __name__ not in sys.modules:  # never run: see uamqp_cffi/__init__.py
    from ._c_io import *
    from ._c_messages import *
    from ._c_plumbing import *

_LATER = ("_c_messages", "_c_io", "_c_plumbing")


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


# ---- constants ------------------------------------------------------------------------------------------------------

AMQPS_PORT = DEFAULT_PORT = 5671
AMQP_WSS_PORT = DEFAULT_WS_PORT = 443
AMQP_BATCH_MESSAGE_FORMAT = 0x80013700
APACHE = "apache.org"
AUTH_EXPIRATION_SECS = 3600
AUTH_REFRESH_SECS = 2880
MAX_FRAME_SIZE_BYTES = 65536
MAX_MESSAGE_LENGTH_BYTES = 1048576
MAX_PARTITION_KEY_LENGTH = 128

AMQP_ERROR_DECODE_ERROR = "amqp:decode-error"
AMQP_ERROR_FRAME_SIZE_TOO_SMALL = "amqp:frame-size-too-small"
AMQP_ERROR_ILLEGAL_STATE = "amqp:illegal-state"
AMQP_ERROR_INTERNAL_ERROR = "amqp:internal-error"
AMQP_ERROR_INVALID_FIELD = "amqp:invalid-field"
AMQP_ERROR_NOT_ALLOWED = "amqp:not-allowed"
AMQP_ERROR_NOT_FOUND = "amqp:not-found"
AMQP_ERROR_NOT_IMPLEMENTED = "amqp:not-implemented"
AMQP_ERROR_PRECONDITION_FAILED = "amqp:precondition-failed"
AMQP_ERROR_RESOURCE_DELETED = "amqp:resource-deleted"
AMQP_ERROR_RESOURCE_LIMIT_EXCEEDED = "amqp:resource-limit-exceeded"
AMQP_ERROR_RESOURCE_LOCKED = "amqp:resource-locked"
AMQP_ERROR_UNAUTHORIZED_ACCESS = "amqp:unauthorized-access"
CONNECTION_ERROR_CONNECTION_FORCED = "amqp:connection:forced"
CONNECTION_ERROR_FRAMING_ERROR = "amqp:connection:framing-error"
CONNECTION_ERROR_REDIRECT = "amqp:connection:redirect"
LINK_ERROR_DETACH_FORCED = "amqp:link:detach-forced"
LINK_ERROR_MESSAGE_SIZE_EXCEEDED = "amqp:link:message-size-exceeded"
LINK_ERROR_REDIRECT = "amqp:link:redirect"
LINK_ERROR_STOLEN = "amqp:link:stolen"
LINK_ERROR_TRANSFER_LIMIT_EXCEEDED = "amqp:link:transfer-limit-exceeded"
SESSION_ERROR_ERRANT_LINK = "amqp:session:errant-link"
SESSION_ERROR_HANDLE_IN_USE = "amqp:session:handle-in-use"
SESSION_ERROR_UNATTACHED_HANDLE = "amqp:session:unattached-handle"
SESSION_ERROR_WINDOW_VIOLATION = "amqp:session:window-violation"

AMQP_MANAGEMENT_EXECUTE_OPERATION_OK = 1
AMQP_MANAGEMENT_EXECUTE_OPERATION_ERROR = 2
AMQP_MANAGEMENT_EXECUTE_OPERATION_FAILED_BAD_STATUS = 3
AMQP_MANAGEMENT_EXECUTE_OPERATION_INSTANCE_CLOSED = 4
AMQP_MANAGEMENT_OPEN_OK = 1
AMQP_MANAGEMENT_OPEN_ERROR = 2
AMQP_MANAGEMENT_OPEN_CANCELLED = 3

AUTH_STATUS_OK = 0
AUTH_STATUS_IDLE = 1
AUTH_STATUS_IN_PROGRESS = 2
AUTH_STATUS_TIMEOUT = 3
AUTH_STATUS_REFRESH_REQUIRED = 4
AUTH_STATUS_EXPIRED = 5
AUTH_STATUS_ERROR = 6
AUTH_STATUS_FAILURE = 7

CBS_OPEN_COMPLETE_OK = 1
CBS_OPEN_COMPLETE_ERROR = 2
CBS_OPEN_COMPLETE_CANCELLED = 3
CBS_OPERATION_RESULT_OK = 1
CBS_OPERATION_RESULT_CBS_ERROR = 2
CBS_OPERATION_RESULT_OPERATION_FAILED = 3
CBS_OPERATION_RESULT_INSTANCE_CLOSED = 4

IO_OPEN_RESULT_OK = 1
IO_OPEN_RESULT_ERROR = 2
IO_OPEN_RESULT_CANCELLED = 3
IO_SEND_RESULT_OK = 1
IO_SEND_RESULT_ERROR = 2
IO_SEND_RESULT_CANCELLED = 3

MESSAGE_RECEIVER_STATE_IDLE = 1
MESSAGE_RECEIVER_STATE_OPENING = 2
MESSAGE_RECEIVER_STATE_OPEN = 3
MESSAGE_RECEIVER_STATE_CLOSING = 4
MESSAGE_RECEIVER_STATE_ERROR = 5
MESSAGE_SENDER_STATE_IDLE = 1
MESSAGE_SENDER_STATE_OPENING = 2
MESSAGE_SENDER_STATE_OPEN = 3
MESSAGE_SENDER_STATE_CLOSING = 4
MESSAGE_SENDER_STATE_ERROR = 5
MESSAGE_SEND_OK = 1
MESSAGE_SEND_ERROR = 2
MESSAGE_SEND_TIMEOUT = 3
MESSAGE_SEND_CANCELLED = 4

RECEIVER_SETTLE_MODE_PEEKLOCK = 1
RECEIVER_SETTLE_MODE_RECEIVEANDDELETE = 0
SENDER_SETTLE_MODE_UNSETTLED = 0
SENDER_SETTLE_MODE_SETTLED = 1
SENDER_SETTLE_MODE_MIXED = 2
ROLE_SENDER = False
ROLE_RECEIVER = True


# ---- functions ------------------------------------------------------------------------------------------------------


class TickCounter:
    """A monotonic count of milliseconds that starts at 0."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def get_current_ms(self) -> int:
        return int((time.monotonic() - self._start) * 1000)

    def destroy(self) -> None:
        """Kept for code that calls it; there is nothing to free."""


def create_sas_token(key: bytes, scope: bytes, keyname: bytes, expiry: int) -> bytes:
    """A shared access signature. `key` is base64, `expiry` in seconds since the epoch; `scope` and `keyname` go in as
    they are. Raises ValueError when the key is not base64."""
    import base64

    from .utils import _sas_token

    return _sas_token(keyname, base64.b64decode(key, validate=True), scope, int(expiry))
