"""Small helpers of uamqp: native values from Python ones, SAS tokens, connection strings, the event loop."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from . import c_uamqp
from ._core.engine import values

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
else:
    AbstractEventLoop = Any  # what evaluates annotations need not have asyncio loaded

logger: logging.Logger = logging.getLogger("uamqp.utils")


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


def _list(value: Any, encoding: str, depth: int) -> c_uamqp.AMQPValue:
    deeper = values.enter(depth)
    return c_uamqp.from_iterable(_native(item, encoding, deeper) for item in value)


def _dict(value: Mapping[Any, Any], encoding: str, depth: int) -> c_uamqp.AMQPValue:
    deeper = values.enter(depth)
    made = c_uamqp.dict_value()
    for key, item in value.items():
        made[_native(key, encoding, deeper)] = _native(item, encoding, deeper)
    return made


def _bytes(value: bytes) -> c_uamqp.AMQPValue:
    return c_uamqp.string_value(value) if values.is_utf8(value) else c_uamqp.binary_value(value)


def _native(value: Any, encoding: str, depth: int) -> c_uamqp.AMQPValue:
    if value is None:
        return c_uamqp.null_value()
    native = getattr(value, "c_data", value)
    if isinstance(native, c_uamqp.AMQPValue):
        return native
    if isinstance(value, bool):
        return c_uamqp.bool_value(value)
    if isinstance(value, values.Symbol):
        return c_uamqp.symbol_value(values.utf8(value))
    if isinstance(value, values.Described):
        described = _native(value.value, encoding, values.enter(depth))
        return c_uamqp.described_value(_native(value.descriptor, encoding, depth), described)
    if isinstance(value, str):
        return _bytes(value.encode(encoding) if encoding != "UTF-8" else values.utf8(value))
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, UUID):
        return c_uamqp.uuid_value(value)
    if isinstance(value, bytearray):
        return c_uamqp.binary_value(value)
    if isinstance(value, int):
        return c_uamqp.decode_value(values.encode(value))
    if isinstance(value, float):
        return c_uamqp.double_value(value)
    if isinstance(value, Mapping):
        return _dict(value, encoding, depth)
    if isinstance(value, (list, set, frozenset, tuple)):
        return _list(value, encoding, depth)
    if isinstance(value, datetime):
        return c_uamqp.timestamp_value(values.milliseconds(value))
    raise TypeError(f"{type(value).__qualname__} has no AMQP type")


def data_factory(value: Any, encoding: str = "UTF-8") -> c_uamqp.AMQPValue:
    """Any Python value as a native one: what it is on the wire. None gives null. Raises TypeError for what has no AMQP
    type, OverflowError for ints beyond 64 bits, ValueError for values nested too deep.

    >>> str(data_factory({"a": [1, True]}))
    '{[a:{1,true}]}'
    """
    return _native(value, encoding, 0)
