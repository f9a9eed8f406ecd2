"""What the two ends of a link have in common on an event loop."""

from __future__ import annotations

from typing import TypeVar

from .._link import Link

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
        """Detach the link for good. Repeatable."""
        self.close()

    async def destroy_async(self) -> None:
        """Detach the link for good. Repeatable."""
        self.destroy()

    async def work_async(self) -> None:
        """As `work` of the blocking class. Raises the error that broke the link."""
        self.work()
