"""Receiving calls under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..message import Message
from .unread import Unread


class Receiving(Protocol):
    """What a receiving call asks of its client."""

    _lock: Any
    _connection: Any
    _session: Any
    _received_messages: Unread
    _receptions: dict[int, _Reception]
    _kept: _Reception | None

    def _me(self) -> int:
        """Who is calling: a thread, or a task."""

    def _wake(self, session: Any) -> None:
        """End the wait of whoever works by the session."""


class _Reception:
    """A receiving call under way. Several may be, in threads or tasks of their own, or one inside the callback of another;
    whichever hands messages out does so with its own callback, and accepts as it is its way."""

    __slots__ = ("_client", "_me", "callback", "iterates", "left", "outer", "over", "streaming")

    def __init__(
        self,
        client: Receiving,
        callback: Callable[[Message], object] | None,
        streaming: bool = False,
        iterates: bool = False,
    ) -> None:
        self._client = client
        self.callback = callback
        self.streaming = streaming
        self.iterates = iterates
        self.over = False  # the client's `timeout` has passed
        self.left = False  # another call ended and left messages unread: whoever streams has them

    def __enter__(self) -> None:
        client = self._client
        self._me = client._me()
        with client._lock:
            self.outer = client._receptions.get(self._me)
            client._receptions[self._me] = self
            if client._connection is not None and client._connection._keeper is not None:
                client._kept = None if self.callback is None else _Reception(client, self.callback)

    def __exit__(self, *args: object) -> None:
        client = self._client
        with client._lock:
            if self.outer is None:
                del client._receptions[self._me]
            else:
                client._receptions[self._me] = self.outer
            streams = [other for other in client._receptions.values() if other.streaming]
        if streams and len(client._received_messages):
            for other in streams:
                other.left = True
            client._wake(client._session)
