"""The asyncio twins: the plans of the blocking classes, driven by the running event loop."""

from .connection_async import ConnectionAsync
from .mgmt_operation_async import MgmtOperationAsync
from .receiver_async import MessageReceiverAsync
from .sender_async import MessageSenderAsync
from .session_async import SessionAsync

__all__ = ["ConnectionAsync", "MessageReceiverAsync", "MessageSenderAsync", "MgmtOperationAsync", "SessionAsync"]
