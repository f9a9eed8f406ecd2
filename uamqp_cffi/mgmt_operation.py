"""Requests to a management node of the peer."""

from __future__ import annotations

from . import constants, errors
from ._core.waiting.plan import Plan
from ._session import requests as mgmt
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
        session: session.Session,
        target: bytes | str | None = None,
        debug: bool = False,
        status_code_field: bytes | str = b"statusCode",
        description_fields: bytes | str = b"statusDescription",
        encoding: str = "UTF-8",
    ) -> None:
        self.connection: connection.Connection = session._connection
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


# At the end: session.py may be loading, and annotations name its class.
from . import connection, session
