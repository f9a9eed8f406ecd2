"""Sessions on an event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from .. import constants, errors, mgmt_operation
from .. import session as blocking
from .._session import requests as mgmt
from .._typing import Unpack
from ..message import Message
from .connection_async import ConnectionAsync
from .mgmt_operation_async import MgmtOperationAsync
from .utils import get_dict_with_loop_if_needed

__all__ = ["MgmtOperationAsync", "SessionAsync", "constants", "errors", "get_dict_with_loop_if_needed"]


class SessionAsync(blocking.Session):
    """A session on a `ConnectionAsync`. Arguments as for `Session`; `loop` must be None."""

    _connection: ConnectionAsync

    def __init__(
        self,
        connection: ConnectionAsync,
        incoming_window: int | None = None,
        outgoing_window: int | None = None,
        handle_max: int | None = None,
        on_attach: blocking.OnAttach | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        get_dict_with_loop_if_needed(loop)
        super().__init__(connection, incoming_window, outgoing_window, handle_max, on_attach)

    @property
    def loop(self) -> None:
        """Always None: the loop is the one that runs."""
        return None

    async def __aenter__(self) -> SessionAsync:
        return self

    async def __aexit__(self, *args: Any) -> None:
        self._end()

    async def mgmt_request_async(
        self,
        message: Message,
        operation: bytes | str,
        op_type: bytes | str | None = None,
        node: bytes | str = b"$management",
        **kwargs: Unpack[mgmt.OptionsAndCallback],
    ) -> Any:
        """As `Session.mgmt_request`."""
        return await self._connection._run_async(
            mgmt_operation.request_plan(self, message, operation, op_type, node, **kwargs)
        )

    async def destroy_async(self) -> None:
        """Close the management links and end the session. Repeatable."""
        self.destroy()
