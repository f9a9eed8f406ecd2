"""Clients on an event loop: each operation is the plan that the blocking client runs, awaited."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, TypeVar

from .. import address, authentication, c_uamqp, client, compat, constants, errors
from .._client.base import NodeName
from .._core.waiting import plan as plans
from .._core.waiting.plan import Plan
from .._session.link import Capabilities
from .._session.requests import Options
from .._typing import Nothing, Unpack
from ..authentication.common import AMQPAuth
from ..connection import CONNECT_TIMEOUT, Connection
from ..constants import MessageState, TransportType
from ..message import Message
from ..receiver import MessageReceiver
from ..sender import MessageSender
from ..session import OnAttach, Session
from .connection_async import ConnectionAsync
from .receiver_async import MessageReceiverAsync
from .sender_async import MessageSenderAsync
from .session_async import SessionAsync
from .utils import afterwards, get_dict_with_loop_if_needed, running_loop, would_block

__all__ = [
    "AMQPClientAsync", "AsyncMessageIter", "ConnectionAsync", "MessageReceiverAsync", "MessageSenderAsync",
    "ReceiveClientAsync", "SendClientAsync", "SessionAsync", "address", "authentication", "c_uamqp", "client", "compat",
    "constants", "errors", "get_dict_with_loop_if_needed",
]  # fmt: skip

_T = TypeVar("_T")
_C = TypeVar("_C", bound="AMQPClientAsync")
_logger = logging.getLogger("uamqp.async_ops.client_async")


class AMQPClientAsync(client.AMQPClient):
    """An `AMQPClient` on the running event loop. Arguments as for `AMQPClient`; `loop` must be None. Blocking methods raise
    RuntimeError; each has a twin that ends in `_async`. Callbacks are plain functions and run inside awaited calls, and in the
    task of `keep_alive_interval`."""

    def __init__(
        self,
        remote_address: str | bytes | address.Address,
        auth: AMQPAuth | None = None,
        client_name: str | bytes | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        debug: bool = False,
        error_policy: errors.ErrorPolicy | None = None,
        keep_alive_interval: float | None = None,
        *,
        encoding: str = "UTF-8",
        transport_type: TransportType = TransportType.Amqp,
        http_proxy: dict[str, Any] | None = None,
        max_frame_size: int | None = None,
        channel_max: int | None = None,
        idle_timeout: int | None = None,
        properties: dict[Any, Any] | None = None,
        remote_idle_timeout_empty_frame_send_ratio: float | None = None,
        incoming_window: int | None = None,
        outgoing_window: int | None = None,
        handle_max: int | None = None,
        on_attach: OnAttach | None = None,
        send_settle_mode: constants.SenderSettleMode | None = None,
        receive_settle_mode: constants.ReceiverSettleMode | None = None,
        desired_capabilities: Capabilities | None = None,
        use_tls: bool | None = None,
        sasl: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        **kwargs: Unpack[NodeName],
    ) -> None:
        get_dict_with_loop_if_needed(loop)
        super().__init__(
            remote_address,
            auth=auth,
            client_name=client_name,
            debug=debug,
            error_policy=error_policy,
            keep_alive_interval=keep_alive_interval,
            encoding=encoding,
            transport_type=transport_type,
            http_proxy=http_proxy,
            max_frame_size=max_frame_size,
            channel_max=channel_max,
            idle_timeout=idle_timeout,
            properties=properties,
            remote_idle_timeout_empty_frame_send_ratio=remote_idle_timeout_empty_frame_send_ratio,
            incoming_window=incoming_window,
            outgoing_window=outgoing_window,
            handle_max=handle_max,
            on_attach=on_attach,
            send_settle_mode=send_settle_mode,
            receive_settle_mode=receive_settle_mode,
            desired_capabilities=desired_capabilities,
            use_tls=use_tls,
            sasl=sasl,
            ssl_context=ssl_context,
            connect_timeout=connect_timeout,
            **kwargs,
        )
        self.connection_type: type[Connection] = ConnectionAsync
        self.session_type: type[Session] = SessionAsync

    @property
    def loop(self) -> None:
        """Always None: the loop is the one that runs."""
        return None

    async def __aenter__(self: _C) -> _C:
        await self.open_async()
        return self

    async def __aexit__(self, *args: Any) -> None:
        self._leave_block()
        await self.close_async()

    async def open_async(self, connection: Connection | None = None) -> None:
        """As `AMQPClient.open`."""
        await self._run_async(self._open_plan(connection))

    async def close_async(self) -> None:
        """As `AMQPClient.close`."""
        await self._run_async(self._close_plan())

    async def redirect_async(self, redirect: errors.LinkRedirect, auth: AMQPAuth) -> None:
        """As `AMQPClient.redirect`."""
        await self._run_async(self._redirect_plan(redirect, auth))

    async def auth_complete_async(self) -> bool:
        """As `AMQPClient.auth_complete`."""
        return await self._run_async(self._auth_complete_plan())

    async def client_ready_async(self) -> bool:
        """As `AMQPClient.client_ready`."""
        return await self._run_async(self._client_ready_plan())

    async def _client_ready_async(self) -> bool:
        return self._client_ready()

    async def _client_run_async(self) -> Any:
        return await self._run_async(self._client_run_plan())

    async def _build_session_async(self) -> None:
        await self._run_async(self._session_plan())

    async def do_work_async(self, **kwargs: Any) -> bool | None:
        """As `AMQPClient.do_work`."""
        return await self._run_async(self._do_work_plan())

    async def mgmt_request_async(
        self,
        message: Message,
        operation: bytes | str,
        op_type: bytes | str | None = None,
        node: bytes | str | None = None,
        callback: Callable[[int, Message, Any], Any] | None = None,
        **kwargs: Unpack[Options],
    ) -> Any:
        """As `AMQPClient.mgmt_request`."""
        return await self._run_async(self._mgmt_request_plan(message, operation, op_type, node, callback, {**kwargs}))

    # ---- plans ----------------------------------------------------------------------------------------------------

    _method = staticmethod(plans.awaiting)

    @classmethod
    def _steps(cls) -> tuple[Any, ...]:
        return (
            cls.do_work_async, cls.client_ready_async, cls.auth_complete_async, cls._client_ready_async,
            cls._client_run_async, cls._client_ready, cls._client_run,
        )  # fmt: skip

    def _run(self, plan: Plan[_T]) -> NoReturn:
        plan.close()
        raise would_block(self)

    async def _run_async(self, plan: Plan[_T]) -> _T:
        if self._connection is not None:
            self._connection._check_loop()
        else:
            running_loop(self)
        return await plans.run_async(plan, self._wait)

    @staticmethod
    def _me() -> int:
        """Who is calling: a task."""
        return id(asyncio.current_task())


class SendClientAsync(client.SendClient, AMQPClientAsync):
    """A `SendClient` on the running event loop; many tasks may share it. Arguments as for `SendClient`; `loop` must be
    None."""

    def __init__(
        self,
        target: str | bytes | address.Target,
        auth: AMQPAuth | None = None,
        client_name: str | bytes | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        debug: bool = False,
        msg_timeout: int = 0,
        error_policy: errors.ErrorPolicy | None = None,
        keep_alive_interval: float | None = None,
        *,
        link_properties: dict[Any, Any] | None = None,
        max_message_size: int | None = None,
        link_credit: int | None = None,
        encoding: str = "UTF-8",
        transport_type: TransportType = TransportType.Amqp,
        http_proxy: dict[str, Any] | None = None,
        max_frame_size: int | None = None,
        channel_max: int | None = None,
        idle_timeout: int | None = None,
        properties: dict[Any, Any] | None = None,
        remote_idle_timeout_empty_frame_send_ratio: float | None = None,
        incoming_window: int | None = None,
        outgoing_window: int | None = None,
        handle_max: int | None = None,
        on_attach: OnAttach | None = None,
        send_settle_mode: constants.SenderSettleMode | None = None,
        receive_settle_mode: constants.ReceiverSettleMode | None = None,
        desired_capabilities: Capabilities | None = None,
        use_tls: bool | None = None,
        address: str | bytes | None = None,
        sasl: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        **kwargs: Unpack[Nothing],
    ) -> None:
        get_dict_with_loop_if_needed(loop)
        super().__init__(
            target,
            auth=auth,
            client_name=client_name,
            debug=debug,
            msg_timeout=msg_timeout,
            error_policy=error_policy,
            keep_alive_interval=keep_alive_interval,
            link_properties=link_properties,
            max_message_size=max_message_size,
            link_credit=link_credit,
            encoding=encoding,
            transport_type=transport_type,
            http_proxy=http_proxy,
            max_frame_size=max_frame_size,
            channel_max=channel_max,
            idle_timeout=idle_timeout,
            properties=properties,
            remote_idle_timeout_empty_frame_send_ratio=remote_idle_timeout_empty_frame_send_ratio,
            incoming_window=incoming_window,
            outgoing_window=outgoing_window,
            handle_max=handle_max,
            on_attach=on_attach,
            send_settle_mode=send_settle_mode,
            receive_settle_mode=receive_settle_mode,
            desired_capabilities=desired_capabilities,
            use_tls=use_tls,
            address=address,
            sasl=sasl,
            ssl_context=ssl_context,
            connect_timeout=connect_timeout,
            **kwargs,
        )
        self.sender_type: type[MessageSender] = MessageSenderAsync

        self._sending: set[asyncio.Future[bool]] = set()  # calls of an overridden send_async

    _delegates = True

    async def send_message_async(
        self, messages: Message, close_on_done: bool = False, *, timeout: float | None = None
    ) -> None:
        """As `SendClient.send_message`. When it is cancelled the message goes on its way: it is in `pending_messages` until
        its outcome comes."""
        await self._run_async(self._send_message_plan(messages, close_on_done, timeout))

    async def send_all_messages_async(
        self, close_on_done: bool = True, *, timeout: float | None = None
    ) -> list[MessageState]:
        """As `SendClient.send_all_messages`."""
        return await self._run_async(self._send_all_plan(close_on_done, timeout))

    async def wait_async(self, *, timeout: float | None = None) -> None:
        """As `SendClient.wait`, but gives nothing."""
        await self._run_async(self._wait_plan(timeout))

    def _send_at_once(self, message: Any) -> bool:
        return False  # it would block

    def _hands_runs(self, handler: Any) -> bool:
        return super()._hands_runs(handler) and _is_own(handler, "send_async", MessageSenderAsync.send_async)

    def _send_by_handler(self, handler: Any, message: Message) -> bool:
        if _is_own(handler, "send_async", MessageSenderAsync.send_async):
            return super()._send_by_handler(handler, message)
        call = handler.send_async(message, self._on_message_sent, timeout=self._time_left(message))
        sending = asyncio.ensure_future(afterwards(call))
        self._sending.add(sending)  # the loop would not keep it
        sending.add_done_callback(lambda done: self._handed_over(message, done))
        return True

    def _handed_over(self, message: Message, done: asyncio.Future[bool]) -> None:
        """An overridden `MessageSenderAsync.send_async` is through."""
        self._sending.discard(done)
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            self._not_handed_over(message, error if isinstance(error, Exception) else RuntimeError(repr(error)))
        elif not done.result():
            self._taken_back(message)
        self._wake(self._session)

    def _close_plan(self) -> Plan[None]:
        for sending in list(self._sending):
            sending.cancel()
        yield from super()._close_plan()


class ReceiveClientAsync(client.ReceiveClient, AMQPClientAsync):
    """A `ReceiveClient` on the running event loop. Arguments as for `ReceiveClient`; `loop` must be None."""

    def __init__(
        self,
        source: str | bytes | address.Source,
        auth: AMQPAuth | None = None,
        client_name: str | bytes | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        debug: bool = False,
        timeout: int = 0,
        auto_complete: bool = True,
        error_policy: errors.ErrorPolicy | None = None,
        keep_alive_interval: float | None = None,
        *,
        prefetch: int | None = None,
        shutdown_after_timeout: bool = True,
        link_properties: dict[Any, Any] | None = None,
        max_message_size: int | None = None,
        encoding: str = "UTF-8",
        transport_type: TransportType = TransportType.Amqp,
        http_proxy: dict[str, Any] | None = None,
        max_frame_size: int | None = None,
        channel_max: int | None = None,
        idle_timeout: int | None = None,
        properties: dict[Any, Any] | None = None,
        remote_idle_timeout_empty_frame_send_ratio: float | None = None,
        incoming_window: int | None = None,
        outgoing_window: int | None = None,
        handle_max: int | None = None,
        on_attach: OnAttach | None = None,
        send_settle_mode: constants.SenderSettleMode | None = None,
        receive_settle_mode: constants.ReceiverSettleMode | None = None,
        desired_capabilities: Capabilities | None = None,
        use_tls: bool | None = None,
        address: str | bytes | None = None,
        sasl: bool | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        **kwargs: Unpack[Nothing],
    ) -> None:
        get_dict_with_loop_if_needed(loop)
        super().__init__(
            source,
            auth=auth,
            client_name=client_name,
            debug=debug,
            timeout=timeout,
            auto_complete=auto_complete,
            error_policy=error_policy,
            keep_alive_interval=keep_alive_interval,
            prefetch=prefetch,
            shutdown_after_timeout=shutdown_after_timeout,
            link_properties=link_properties,
            max_message_size=max_message_size,
            encoding=encoding,
            transport_type=transport_type,
            http_proxy=http_proxy,
            max_frame_size=max_frame_size,
            channel_max=channel_max,
            idle_timeout=idle_timeout,
            properties=properties,
            remote_idle_timeout_empty_frame_send_ratio=remote_idle_timeout_empty_frame_send_ratio,
            incoming_window=incoming_window,
            outgoing_window=outgoing_window,
            handle_max=handle_max,
            on_attach=on_attach,
            send_settle_mode=send_settle_mode,
            receive_settle_mode=receive_settle_mode,
            desired_capabilities=desired_capabilities,
            use_tls=use_tls,
            address=address,
            sasl=sasl,
            ssl_context=ssl_context,
            connect_timeout=connect_timeout,
            **kwargs,
        )
        self.receiver_type: type[MessageReceiver] = MessageReceiverAsync

    async def receive_message_batch_async(
        self,
        max_batch_size: int | None = None,
        on_message_received: Callable[[Message], object] | None = None,
        timeout: float = 0,
    ) -> list[Message]:
        """As `ReceiveClient.receive_message_batch`."""
        return await self._run_async(self._batch_plan(max_batch_size, on_message_received, timeout))

    async def receive_messages_async(self, on_message_received: Callable[[Message], object]) -> None:
        """As `ReceiveClient.receive_messages`."""
        await self._run_async(self._stream_plan(on_message_received))

    def receive_messages_iter_async(
        self, on_message_received: Callable[[Message], object] | None = None
    ) -> AsyncMessageIter:
        """As `ReceiveClient.receive_messages_iter`, for `async for`. The last message is not accepted when the loop is left
        by `break`: accept it, or the peer has it back when the client closes."""
        messages = AsyncMessageIter(self, auto_complete=self._auto_complete)
        messages._callback = on_message_received
        return messages

    def receive_messages_iter(self, on_message_received: Callable[[Message], object] | None = None) -> NoReturn:
        """Not on an event loop: see `receive_messages_iter_async`."""
        raise would_block(self)


class AsyncMessageIter(AsyncIterator[Message]):
    """Messages of a `ReceiveClientAsync` as they come, until its `timeout`; closes the client then, with
    `shutdown_after_timeout`. With `auto_complete` a message is accepted when the next one is asked for."""

    def __init__(self, rcv_client: ReceiveClientAsync, auto_complete: bool = True) -> None:
        self._client = rcv_client
        self.receiving: bool = True
        self.auto_complete = auto_complete
        self.current_message: Message | None = None
        self._callback: Callable[[Message], object] | None = None

    async def __anext__(self) -> Message:
        """The next message. Raises what `receive_messages_async` raises."""
        message, self.current_message = self.current_message, None
        if message is not None and self.auto_complete:
            self._client._complete(message)
        if self.receiving and len(self._client._received_messages) and not self._client._stepwise():
            self.current_message = next(iter(self._client._take(1, False)), None)
        if self.receiving and self.current_message is None:
            self.current_message = await self._client._run_async(self._client._iter_plan(self._callback))
        if self.current_message is None:
            self.receiving = False
            raise StopAsyncIteration
        return self.current_message


def _is_own(handler: Any, name: str, method: Any) -> bool:
    """Whether nobody has overridden that method."""
    return getattr(type(handler), name, None) is method and name not in getattr(handler, "__dict__", {})


for _one in (AMQPClientAsync, SendClientAsync, ReceiveClientAsync):
    _one._own_steps = _one._steps()
