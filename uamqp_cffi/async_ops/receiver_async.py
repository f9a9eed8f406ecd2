"""Receiving links on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import constants, errors
from .. import receiver
from .utils import get_dict_with_loop_if_needed

if TYPE_CHECKING:
    from .. import c_uamqp, types
    from ..address import Source
    from ..message import Message
    from .session_async import SessionAsync

__all__ = ["MessageReceiverAsync", "constants", "errors", "get_dict_with_loop_if_needed", "receiver"]


class MessageReceiverAsync(receiver.MessageReceiver):
    """The receiving end of a link on a `SessionAsync`. Arguments as for `MessageReceiver`; `loop` must be None."""

    def __init__(
        self,
        session: SessionAsync,
        source: Source,
        target: str | bytes,
        on_message_received: Callable[[Message], object],
        name: str | bytes | None = None,
        receive_settle_mode: constants.ReceiverSettleMode = constants.ReceiverSettleMode.PeekLock,
        send_settle_mode: constants.SenderSettleMode = constants.SenderSettleMode.Unsettled,
        max_message_size: int = constants.MAX_MESSAGE_LENGTH_BYTES,
        prefetch: int = 300,
        properties: dict[Any, Any] | None = None,
        error_policy: errors.ErrorPolicy | None = None,
        debug: bool = False,
        encoding: str = "UTF-8",
        desired_capabilities: c_uamqp.AMQPValue | types.AMQPType | Sequence[str | bytes] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        get_dict_with_loop_if_needed(loop)
        super().__init__(
            session,
            source,
            target,
            on_message_received,
            name=name,
            receive_settle_mode=receive_settle_mode,
            send_settle_mode=send_settle_mode,
            max_message_size=max_message_size,
            prefetch=prefetch,
            properties=properties,
            error_policy=error_policy,
            debug=debug,
            encoding=encoding,
            desired_capabilities=desired_capabilities,
        )

    @property
    def loop(self) -> None:
        """Always None: the loop is the one that runs."""
        return None

    async def __aenter__(self) -> MessageReceiverAsync:
        await self.open_async()
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.destroy_async()

    async def open_async(self) -> None:
        """Begin to attach. Does not wait: `get_state` is Open once the peer has answered."""
        self.open()

    async def close_async(self) -> None:
        """Detach the link for good. Repeatable."""
        self.close()

    async def destroy_async(self) -> None:
        """Detach the link for good. Repeatable."""
        self.destroy()

    async def work_async(self) -> None:
        """As `MessageReceiver.work`."""
        self.work()

    async def reset_link_credit_async(self, link_credit: int, **kwargs: Any) -> None:
        """As `MessageReceiver.reset_link_credit`."""
        self.reset_link_credit(link_credit, **kwargs)
