"""Small helpers of uamqp: native values from Python ones, SAS tokens, connection strings, the event loop."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ._native.make import data_factory as data_factory
from ._public import show_as

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
else:
    AbstractEventLoop = Any  # what evaluates annotations need not have asyncio loaded

logger: logging.Logger = logging.getLogger("uamqp.utils")
show_as("utils", data_factory)


def get_running_loop() -> AbstractEventLoop:
    """The running event loop; without one the policy's, with a warning in the log."""
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        logger.warning("no running event loop: taking the one of the event loop policy")
        return asyncio.get_event_loop()


def parse_connection_string(connect_str: str) -> dict[str, str]:
    """The parts of "name=value;name=value" as a dict; values may hold "=". Raises ValueError for a part without one.

    >>> parse_connection_string("Endpoint=sb://ns/;SharedAccessKey=aGk=;")
    {'Endpoint': 'sb://ns/', 'SharedAccessKey': 'aGk='}
    """
    parts = {}
    for number, part in enumerate(connect_str.split(";"), 1):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"part {number} of the connection string has no '='")
        parts[name] = value
    return parts


_QUOTED = {ord("+"): "%2b", ord("/"): "%2f", ord("="): "%3d"}


def _sas_token(key_name: bytes, key: bytes, scope: bytes, expires: int) -> bytes:
    digest = hmac.new(key, scope + b"\n" + b"%d" % expires, hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode().translate(_QUOTED).encode()
    return b"SharedAccessSignature sr=%s&sig=%s&se=%d&skn=%s" % (scope, signature, expires, key_name)


def create_sas_token(
    key_name: bytes, shared_access_key: bytes, scope: bytes, expiry: timedelta = timedelta(hours=1)
) -> bytes:
    """A shared access signature that is good for `expiry`. The key is used as the text it is; `scope` and `key_name` go
    in as they are, so quote them first."""
    return _sas_token(key_name, shared_access_key, scope, int(time.time() + expiry.total_seconds()))
