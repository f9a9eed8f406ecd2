"""The enumerations of `c_uamqp`."""

from __future__ import annotations

from enum import Enum

from .._public import show_as

__all__ = ["AMQPType", "ConnectionState", "LogCategory", "MessageBodyType", "PlatformInfoOption"]

# ---- enumerations ---------------------------------------------------------------------------------------------------


class AMQPType(Enum):
    NullValue = 1
    BoolValue = 2
    UByteValue = 3
    UShortValue = 4
    UIntValue = 5
    ULongValue = 6
    ByteValue = 7
    ShortValue = 8
    IntValue = 9
    LongValue = 10
    FloatValue = 11
    DoubleValue = 12
    CharValue = 13
    TimestampValue = 14
    UUIDValue = 15
    BinaryValue = 16
    StringValue = 17
    SymbolValue = 18
    ListValue = 19
    DictValue = 20
    ArrayValue = 21
    DescribedType = 22
    CompositeType = 23
    UnknownType = 24
    ErrorType = 999


class ConnectionState(Enum):
    """§2.4.6, as the engine numbers them (`uam_conn_state` in csrc/uam.h; a test compares), and two of uamqp's own."""

    START = 0
    HDR_RCVD = 1
    HDR_SENT = 2
    HDR_EXCH = 3
    OPEN_PIPE = 4
    OC_PIPE = 5
    OPEN_RCVD = 6
    OPEN_SENT = 7
    CLOSE_PIPE = 8
    OPENED = 9
    CLOSE_RCVD = 10
    CLOSE_SENT = 11
    DISCARDING = 12
    END = 13
    ERROR = 14
    UNKNOWN = 999


class MessageBodyType(Enum):
    NoneType = 1
    DataType = 2
    SequenceType = 3
    ValueType = 4


class LogCategory(Enum):
    Error = 0
    Info = 1
    Debug = 2


class PlatformInfoOption(Enum):
    DefaultOption = 1
    RetrieveSQMOption = 2


show_as("c_uamqp", *map(globals().get, __all__))
