"""Management requests on an event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from .. import constants, errors
from .._session.requests import SessionPort
from ..message import Message
from ..mgmt_operation import MgmtOperation
from .connection_async import ConnectionAsync
from .utils import get_dict_with_loop_if_needed

__all__ = ["Message", "MgmtOperation", "MgmtOperationAsync", "constants", "errors", "get_dict_with_loop_if_needed"]


class MgmtOperationAsync(MgmtOperation):
    """A pair of links to a management node, and the requests on it. Arguments as for `MgmtOperation`; `loop` must be
    None."""

    connection: ConnectionAsync

    def __init__(
        self,
        session: SessionPort,
        target: bytes | str | None = None,
        debug: bool = False,
        status_code_field: bytes | str = b"statusCode",
        description_fields: bytes | str = b"statusDescription",
        encoding: str = "UTF-8",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        get_dict_with_loop_if_needed(loop)
        super().__init__(session, target, debug, status_code_field, description_fields, encoding)

    @property
    def loop(self) -> None:
        """Always None: the loop is the one that runs."""
        return None

    async def execute_async(
        self, operation: bytes | str, op_type: bytes | str | None, message: Message, timeout: float = 0
    ) -> tuple[int, Message, Any]:
        """As `MgmtOperation.execute`."""
        result: tuple[int, Message, Any] = await self.connection._run_async(
            self._execute_plan(operation, op_type, message, timeout)
        )
        return result

    async def destroy_async(self) -> None:
        """Detach the links. Repeatable."""
        self.destroy()
