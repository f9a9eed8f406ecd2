"""What the two ends of a link have in common on an event loop."""

from __future__ import annotations

from typing import Any, TypeVar

from .._session.link import Link

_L = TypeVar("_L", bound="AsyncLink")


class AsyncLink(Link):
    """The methods of a link as coroutines. None of them waits: what they begin is seen in `get_state`."""

    @property
    def loop(self) -> None:
        """Always None: the loop is the one that runs."""
        return None

    async def __aenter__(self: _L) -> _L:
        await self.open_async()
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.destroy_async()

    async def open_async(self) -> None:
        """Begin to attach: `get_state` is Open once the peer has answered."""
        self.open()

    async def close_async(self) -> None:
        """Detach the link for good, when the loop has read what lies in the socket. Repeatable."""
        await self._read_dry_async()
        self.close()

    async def destroy_async(self) -> None:
        """As `close_async`."""
        await self._read_dry_async()
        self.destroy()

    async def _read_dry_async(self) -> None:
        connection: Any = self._conn
        await connection._run_async(connection._read_dry_plan())

    async def work_async(self) -> None:
        """As `work` of the blocking class. Raises the error that broke the link."""
        self.work()
