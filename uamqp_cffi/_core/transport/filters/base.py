"""What a filter is, and how it fails."""

from __future__ import annotations

from typing import Protocol


class TransportError(Exception):
    """The bytes below AMQP cannot go on. The text is for users; the cause, if there is one, is attached."""


class HttpRefused(TransportError):
    """A proxy, or a WebSocket's server, did not do what it was asked to do by HTTP.

    by: "proxy" or "server". status, reason: of its answer; None and "" when there was none, or no HTTP. retryable:
    whether the same has a chance later."""

    def __init__(
        self, text: str, by: str, status: int | None = None, reason: str = "", retryable: bool = False
    ) -> None:
        super().__init__(text)
        self.by = by
        self.status = status
        self.reason = reason
        self.retryable = retryable


class Filter(Protocol):
    """Bytes in, bytes out, between the network's side and AMQP's side.

    feed() what came from the network; read_into() and write() are AMQP's side; take() what must go to the network. All of
    them may raise TransportError. What write() took is wholly in what take() gives next: that is how a wire knows which
    messages the kernel has."""

    @property
    def ready(self) -> bool:
        """Its handshake is over."""

    @property
    def doing(self) -> str:
        """What it is at until then: "time ran out while ..."."""

    @property
    def eof(self) -> bool:
        """The peer said its goodbye: nothing more will come."""

    @property
    def failing(self) -> bool:
        """The next read_into() may raise, although the last one gave less than it could."""

    @property
    def pending(self) -> int:
        """Not 0 when take() may have something."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes from the network."""

    def feed_eof(self) -> None:
        """The network ended, or `eof`. Raises TransportError unless that is an orderly end."""

    def read_into(self, room: memoryview) -> int:
        """Put bytes for AMQP into `room`; gives how many. Less than `room` has space for: there are no more for now."""

    def write(self, data: memoryview) -> int:
        """Take bytes from AMQP; gives how many. Those that were not taken are to be given again, first."""

    def take(self) -> bytes:
        """Bytes for the network."""

    def close(self) -> None:
        """Say goodbye; the bytes of that are then in take(). Harmless when said before."""
