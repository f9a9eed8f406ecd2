"""A count of milliseconds."""

from __future__ import annotations

from .._core import time
from .._public import show_as

# ---- functions ------------------------------------------------------------------------------------------------------


class TickCounter:
    """A monotonic count of milliseconds that starts at 0."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def get_current_ms(self) -> int:
        return int((time.monotonic() - self._start) * 1000)

    def destroy(self) -> None:
        """Kept for code that calls it; there is nothing to free."""


show_as("c_uamqp", TickCounter)
