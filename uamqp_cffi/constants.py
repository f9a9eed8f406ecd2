"""Numbers, names and enumerations of uamqp, with the same values."""

from __future__ import annotations

from enum import Enum

from ._native import enums
from ._native.constants import AMQP_BATCH_MESSAGE_FORMAT

DEFAULT_AMQPS_PORT = 5671
DEFAULT_AMQP_WSS_PORT = 443
DEFAULT_AMQP_PORT = 5672

AUTH_EXPIRATION_SECS = 3600
AUTH_REFRESH_SECS = 2880

BATCH_MESSAGE_FORMAT = AMQP_BATCH_MESSAGE_FORMAT
MAX_FRAME_SIZE_BYTES = 65536
MAX_MESSAGE_LENGTH_BYTES = 1024 * 1024
MESSAGE_SEND_RETRIES = 3

STRING_FILTER = b"apache.org:selector-filter:string"
OPERATION = b"operation"
READ_OPERATION = b"READ"
MGMT_TARGET = b"$management"

ERROR_CONNECTION_REDIRECT = b"amqp:connection:redirect"
ERROR_LINK_REDIRECT = b"amqp:link:redirect"


class MessageState(Enum):
    """Where a message is on its way. Sent ones go WaitingToBeSent, WaitingForSendAck, then SendComplete or SendFailed;
    a retry goes back to the start. Received ones are unsettled until an outcome was sent."""

    WaitingToBeSent = 0
    WaitingForSendAck = 1
    SendComplete = 2
    SendFailed = 3
    ReceivedUnsettled = 4
    ReceivedSettled = 5


DONE_STATES = (MessageState.SendComplete, MessageState.SendFailed)
RECEIVE_STATES = (MessageState.ReceivedSettled, MessageState.ReceivedUnsettled)
PENDING_STATES = (MessageState.WaitingForSendAck, MessageState.WaitingToBeSent)


class Delivery(Enum):
    """What is known about a message that was to be sent: `Message.delivery` and `exc.delivery`."""

    NOT_DELIVERED = "not delivered"  # the peer cannot have it: sending it again makes no duplicate
    DELIVERED = "delivered"  # the peer has said what became of it; of a pre-settled one: all its bytes left this host
    UNKNOWN = "unknown"  # it left, and no outcome came: the peer may have it


class DeliveryOutcome(Enum):
    """How a delivery ended (§3.4): `Message.outcome` and `exc.outcome`."""

    ACCEPTED = "accepted"  # also of a message that was sent settled, once all its bytes left this host
    REJECTED = (
        "rejected"  # the peer says that the message is invalid, or that it will not have it: `error` has its words
    )
    RELEASED = "released"  # the peer did nothing with it; with RabbitMQ: it could be routed to no queue
    MODIFIED = "modified"  # the same, and the peer wants it changed before it is sent again
    LOST = "lost"  # link, session or connection went away before an outcome came: `delivery` says whether the peer may have it


class MessageSendResult(Enum):
    """First argument of `on_send_complete`."""

    Ok = 1
    Error = 2
    Timeout = 3
    Cancelled = 4


class MessageSenderState(Enum):
    Idle = 1
    Opening = 2
    Open = 3
    Closing = 4
    Error = 5


class MessageReceiverState(Enum):
    Idle = 1
    Opening = 2
    Open = 3
    Closing = 4
    Error = 5


class ManagementLinkState(Enum):
    Ok = 1
    Error = 2
    Cancelled = 3


class ManagementOperationResult(Enum):
    Ok = 1
    Error = 2
    BadStatus = 3
    Closed = 4


class MgmtExecuteResult(Enum):
    Ok = 1
    Error = 2
    Failed = 3
    Closed = 4


class MgmtOpenStatus(Enum):
    Ok = 1
    Error = 2
    Cancelled = 3


class CBSOpenState(Enum):
    Ok = 1
    Error = 2
    Cancelled = 3


class CBSOperationResult(Enum):
    Ok = 1
    Error = 2
    Failed = 3
    Closed = 4


class CBSAuthStatus(Enum):
    Ok = 0
    Idle = 1
    InProgress = 2
    Timeout = 3
    RefreshRequired = 4
    Expired = 5
    Error = 6
    Failure = 7


class Role(Enum):
    Sender = False
    Receiver = True


class SenderSettleMode(Enum):
    """snd-settle-mode (§2.8.2). Unsettled waits for the peer's outcome; the others are done when the bytes left."""

    Unsettled = 0
    Settled = 1
    Mixed = 2


class ReceiverSettleMode(Enum):
    """rcv-settle-mode (§2.8.3), under the names that uamqp gave it."""

    PeekLock = 1
    ReceiveAndDelete = 0


class TransportType(Enum):
    Amqp = 1
    AmqpOverWebsocket = 2

    @classmethod
    def _missing_(cls, value: object) -> TransportType | None:
        """Packages that use uamqp have enumerations of their own, with these values."""
        own = getattr(value, "value", None)
        return next((member for member in cls if member.value == own), None)


class MessageBodyType(Enum):
    """Which kind of section a message body is made of (§3.2.6 to §3.2.8)."""

    Data = enums.MessageBodyType.DataType
    Value = enums.MessageBodyType.ValueType
    Sequence = enums.MessageBodyType.SequenceType


BODY_TYPE_C_PYTHON_MAP = {
    enums.MessageBodyType.DataType.value: MessageBodyType.Data,
    enums.MessageBodyType.SequenceType.value: MessageBodyType.Sequence,
    enums.MessageBodyType.ValueType.value: MessageBodyType.Value,
}


class ErrorCodes(Enum):
    """Conditions of the specification (§2.8.15 to §2.8.18) and three of uamqp's own."""

    InternalServerError = b"amqp:internal-error"
    IllegalState = b"amqp:illegal-state"
    DecodeError = b"amqp:decode-error"
    NotFound = b"amqp:not-found"
    NotImplemented = b"amqp:not-implemented"
    NotAllowed = b"amqp:not-allowed"
    InvalidField = b"amqp:invalid-field"
    ResourceLocked = b"amqp:resource-locked"
    ResourceDeleted = b"amqp:resource-deleted"
    UnauthorizedAccess = b"amqp:unauthorized-access"
    FrameSizeTooSmall = b"amqp:frame-size-too-small"
    ResourceLimitExceeded = b"amqp:resource-limit-exceeded"
    PreconditionFailed = b"amqp:precondition-failed"
    ConnectionRedirect = b"amqp:connection:redirect"
    ConnectionCloseForced = b"amqp:connection:forced"
    ConnectionFramingError = b"amqp:connection:framing-error"
    SessionWindowViolation = b"amqp:session:window-violation"
    SessionErrantLink = b"amqp:session:errant-link"
    SessionHandleInUse = b"amqp:session:handle-in-use"
    SessionUnattachedHandle = b"amqp:session:unattached-handle"
    LinkRedirect = b"amqp:link:redirect"
    LinkStolen = b"amqp:link:stolen"
    LinkDetachForced = b"amqp:link:detach-forced"
    LinkTransferLimitExceeded = b"amqp:link:transfer-limit-exceeded"
    LinkMessageSizeExceeded = b"amqp:link:message-size-exceeded"
    ClientError = b"amqp:client-error"
    UnknownError = b"amqp:unknown-error"
    VendorError = b"amqp:vendor-error"
