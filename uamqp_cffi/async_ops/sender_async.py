"""Sending links on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .. import constants, errors, sender
from .._session.link import Capabilities
from ..address import Target
from ..message import Message
from ._link_async import AsyncLink
from .session_async import SessionAsync
from .utils import get_dict_with_loop_if_needed

__all__ = ["MessageSenderAsync", "constants", "errors", "get_dict_with_loop_if_needed", "sender"]


class MessageSenderAsync(sender.MessageSender, AsyncLink):
    """The sending end of a link on a `SessionAsync`. Arguments as for `MessageSender`; `loop` must be None."""

    def __init__(
        self,
        session: SessionAsync,
        source: str | bytes,
        target: Target,
        name: str | bytes | None = None,
        send_settle_mode: constants.SenderSettleMode = constants.SenderSettleMode.Unsettled,
        receive_settle_mode: constants.ReceiverSettleMode = constants.ReceiverSettleMode.PeekLock,
        max_message_size: int = constants.MAX_MESSAGE_LENGTH_BYTES,
        link_credit: int | None = None,
        properties: dict[Any, Any] | None = None,
        error_policy: errors.ErrorPolicy | None = None,
        debug: bool = False,
        encoding: str = "UTF-8",
        desired_capabilities: Capabilities | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        get_dict_with_loop_if_needed(loop)
        super().__init__(
            session,
            source,
            target,
            name=name,
            receive_settle_mode=receive_settle_mode,
            send_settle_mode=send_settle_mode,
            max_message_size=max_message_size,
            link_credit=link_credit,
            properties=properties,
            error_policy=error_policy,
            debug=debug,
            encoding=encoding,
            desired_capabilities=desired_capabilities,
        )

    async def send_async(self, message: Message, callback: Callable[..., object] | None, timeout: float = 0) -> bool:
        """As `MessageSender.send`."""
        return self.send(message, callback, timeout)
