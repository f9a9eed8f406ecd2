"""Requests to a management node of the peer."""

from __future__ import annotations

from typing import Any

from . import constants, errors
from ._arguments import unknown
from ._core.waiting.plan import Plan
from ._session import requests as mgmt
from ._session.requests import OptionsAndCallback, SessionPort, exchange_plan, node_name
from .connection import Connection
from .message import Message

__all__ = ["Message", "MgmtOperation"]


class MgmtOperation:
    """A pair of links to a management node, and the requests on it.

    Args:
        session: where to attach the links; they attach with the first request.
        target: the node's address, b"$management" if not given.
        debug: kept for uamqp's sake; the connection decides on traces.
        status_code_field, description_fields: names of the answer's application properties with status and description.
        encoding: of str arguments.
    """

    def __init__(
        self,
        session: mgmt.SessionPort,
        target: bytes | str | None = None,
        debug: bool = False,
        status_code_field: bytes | str = b"statusCode",
        description_fields: bytes | str = b"statusDescription",
        encoding: str = "UTF-8",
    ) -> None:
        self.connection: Connection = session._connection
        self.target: bytes = mgmt.node_name(target)
        self._encoding = encoding
        self._status_code_field = status_code_field
        self._description_fields = description_fields
        self._node = mgmt.Node(session, self.target)

    @property
    def open(self) -> constants.MgmtOpenStatus | None:
        """Ok once both links are attached, Error when they are of no use any more, else None."""
        if self._node.error is not None:
            return constants.MgmtOpenStatus.Error
        return constants.MgmtOpenStatus.Ok if self._node.ready else None

    @property
    def mgmt_error(self) -> BaseException | None:
        """What broke the links."""
        return self._node.error

    def execute(
        self, operation: bytes | str, op_type: bytes | str | None, message: Message, timeout: float = 0
    ) -> tuple[int, Message, bytes | None]:
        """Send a request and wait for its answer: status, answer, description (bytes, None when there is none).

        `message` is left as it is; its application properties go along. `timeout` in ms, 0 for ever. Raises
        TimeoutError, ValueError when the answer has no status, AMQPConnectionError when the links are refused or go away,
        MessageException when the request is."""
        result: tuple[int, Message, bytes | None] = self.connection._run(
            self._execute_plan(operation, op_type, message, timeout)
        )
        return result

    def _execute_plan(
        self, operation: bytes | str, op_type: bytes | str | None, message: Message, timeout: float
    ) -> Plan[tuple[int, Message, bytes | None]]:
        return mgmt.exchange_plan(
            self._node, message, operation, op_type, timeout, self._status_code_field, self._description_fields
        )

    def destroy(self) -> None:
        """Detach the links. Repeatable. Who waits for an answer gets MessageHandlerError."""
        if not isinstance(self._node.error, errors.MessageHandlerError):
            self._node.close()


def request_plan(
    session: SessionPort,
    message: Message,
    operation: bytes | str,
    op_type: bytes | str | None,
    node: bytes | str | None,
    **kwargs: Any,
) -> Plan[Any]:
    """A request on the link pair that the session keeps for `node`: the answer, or what `callback` makes of it."""

    callback = kwargs.pop("callback", None)
    timeout = kwargs.pop("timeout", 0)
    settings = {
        "status_code_field": kwargs.pop("status_code_field", b"statusCode"),
        "description_fields": kwargs.pop("description_fields", b"statusDescription"),
    }
    locales = kwargs.pop("locales", None)
    debug, encoding = kwargs.pop("debug", False), kwargs.pop("encoding", "UTF-8")
    if kwargs:
        raise ValueError(unknown("a management request", kwargs, OptionsAndCallback.__annotations__))
    name = node_name(node)
    yield from session._connection._look_first_plan()
    with session._lock:
        session._dispatch()  # the peer may have given up a pair that was idle
        pair = session._mgmt_links.get(name)
        if pair is None:
            pair = session._mgmt_links[name] = MgmtOperation(session, name, debug=debug, encoding=encoding, **settings)
    status, answer, description = yield from exchange_plan(
        pair._node, message, operation, op_type, timeout, locales=locales, **settings
    )
    return answer if callback is None else callback(status, answer, description)
