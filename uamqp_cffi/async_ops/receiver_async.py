"""Receiving links on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from .. import constants, errors, receiver
from .._session.link import Capabilities
from .._typing import Nothing, Unpack
from ..address import Source
from ..message import Message
from ._link_async import AsyncLink
from .session_async import SessionAsync
from .utils import get_dict_with_loop_if_needed

__all__ = ["MessageReceiverAsync", "constants", "errors", "get_dict_with_loop_if_needed", "receiver"]


class MessageReceiverAsync(receiver.MessageReceiver, AsyncLink):
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
        desired_capabilities: Capabilities | None = None,
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

    async def reset_link_credit_async(
        self, link_credit: int, *, drain: bool = False, **kwargs: Unpack[Nothing]
    ) -> None:
        """As `MessageReceiver.reset_link_credit`."""
        self.reset_link_credit(link_credit, drain=drain, **kwargs)
