"""The exceptions of uamqp, the error policy, and the one table from what a peer said to what is raised.

Every exception here answers three questions, whatever its class:

* `scope`: what is broken: "connection", "session", "link", "message", or None when nothing on the wire is;
  with `condition` (an `ErrorCodes` member, or bytes when the condition is none of those), `description` and `info`
  as the peer gave them, else None. Errors about a connection of which the peer said nothing carry amqp:unknown-error and
  our own text. `AuthenticationException` and its kinds have no `condition` at all, unless the peer gave one: packages
  written for uamqp tell them apart by that;
* `retryable`: whether trying the same again has a chance (None: no opinion), and `action`, the `ErrorAction` that
  the error policy chose, if one was asked;
* `delivery`: of a send, a `constants.Delivery`; None otherwise.
* `outcome`: of a message that the peer did not accept, or took back, a `constants.DeliveryOutcome`; None otherwise.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from ._core.engine.types import Described
from ._native.make import data_factory
from ._native.values import AMQPValue
from .constants import Delivery, DeliveryOutcome, ErrorCodes

Condition = ErrorCodes | bytes

_logger = logging.getLogger("uamqp.errors")


def _restore(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """An exception as it was pickled: without its constructor, whose arguments are not `args`."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


_Kept = TypeVar("_Kept", bound=BaseException)


def afresh(error: _Kept) -> _Kept:
    """The same, to be raised by who keeps `error`: what is raised holds all frames that it came through, which is why what is
    kept must not be that very one."""
    raised = copy.copy(error)
    raised.__cause__, raised.__suppress_context__ = error.__cause__, error.__suppress_context__
    return raised


def kept(error: _Kept) -> _Kept:
    """The same error, to be kept: it and what caused it hold no frames."""
    one: BaseException | None = error
    while one is not None and (one is error or one.__traceback__ is not None):
        one.__traceback__ = None
        one = one.__cause__ or one.__context__
    return error


class _Picklable(BaseException):
    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, dict(self.__dict__))


def _known(condition: Condition | str | None) -> Condition:
    """`condition` as the `ErrorCodes` member it names, else as bytes; what a peer left out is `UnknownError`."""
    if not condition:
        return ErrorCodes.UnknownError
    if isinstance(condition, str):
        condition = condition.encode()
    try:
        return ErrorCodes(condition)
    except ValueError:
        return condition


def _as_bytes(value: Any) -> Any:
    """What a peer sent, with text as bytes all through, and described values alone: the form in which uamqp hands out error
    info. Keys that were lists are tuples."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, Mapping):
        return {_as_key(_as_bytes(key)): _as_bytes(item) for key, item in value.items()}
    if isinstance(value, Described):
        return _as_bytes(value.value)
    if type(value) in (list, tuple):
        return [_as_bytes(item) for item in value]
    return value


def _as_key(value: Any) -> Any:
    return tuple(map(_as_key, value)) if isinstance(value, list) else value


def _text(condition: Condition, description: str | bytes | None, encoding: str) -> str:
    text = condition.decode(encoding, "backslashreplace") if isinstance(condition, bytes) else str(condition)
    if description:
        if isinstance(description, bytes):
            description = description.decode(encoding, "backslashreplace")
        text += f": {description}"
    return text


# ---- what to do about an error ------------------------------------------------------------------------------------


class ErrorAction:
    """What a policy wants done: `retry` or fail, after `backoff` seconds; `increment_retries` False: the retry does not
    count against `ErrorPolicy.max_retries`."""

    retry: bool = True
    fail: bool = False

    def __init__(self, retry: bool, backoff: float = 0, increment_retries: bool = True) -> None:
        self.retry = bool(retry)
        self.backoff = backoff
        self.increment_retries = increment_retries

    def __repr__(self) -> str:
        return f"ErrorAction(retry={self.retry}, backoff={self.backoff}, increment_retries={self.increment_retries})"


class ErrorPolicy:
    """Decides by condition whether a failed message is sent again, and notes the same for links and connections.

    `max_retries` bounds the re-sends of one message. `on_error(error)` gives the `ErrorAction` for conditions that are
    not in `ErrorCodes`; for the known ones subclass and override the methods.
    """

    no_retry: tuple[ErrorCodes, ...] = (
        ErrorCodes.DecodeError,
        ErrorCodes.LinkMessageSizeExceeded,
        ErrorCodes.NotFound,
        ErrorCodes.NotImplemented,
        ErrorCodes.LinkRedirect,
        ErrorCodes.NotAllowed,
        ErrorCodes.UnauthorizedAccess,
        ErrorCodes.LinkStolen,
        ErrorCodes.ResourceLimitExceeded,
        ErrorCodes.ConnectionRedirect,
        ErrorCodes.PreconditionFailed,
        ErrorCodes.InvalidField,
        ErrorCodes.ResourceDeleted,
        ErrorCodes.IllegalState,
        ErrorCodes.FrameSizeTooSmall,
        ErrorCodes.ConnectionFramingError,
        ErrorCodes.SessionUnattachedHandle,
        ErrorCodes.SessionHandleInUse,
        ErrorCodes.SessionErrantLink,
        ErrorCodes.SessionWindowViolation,
    )

    def __init__(self, max_retries: int = 3, on_error: Callable[[AMQPError], ErrorAction] | None = None) -> None:
        self.max_retries = max_retries
        self._on_error = on_error

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_retries={self.max_retries})"

    def on_unrecognized_error(self, error: AMQPError) -> ErrorAction:
        """The action for a condition that is not in `ErrorCodes`."""
        if self._on_error:
            return self._on_error(error)
        return ErrorAction(retry=True)

    def on_message_error(self, error: MessageException) -> ErrorAction:
        """The action for a message that the peer rejected or released."""
        return ErrorAction(retry=error.condition not in self.no_retry)

    def on_link_error(self, error: AMQPConnectionError) -> ErrorAction:
        """The action for a link, or its session, that the peer detached."""
        return ErrorAction(retry=error.condition not in self.no_retry)

    def on_connection_error(self, error: ConnectionClose) -> ErrorAction:
        """The action for a connection that the peer closed."""
        return ErrorAction(retry=error.condition not in self.no_retry)


# ---- the tree -----------------------------------------------------------------------------------------------------


class _Facts:
    """What every exception says of itself; see the top of this module."""

    scope: str | None = None
    retryable: bool | None = None
    action: ErrorAction | None = None
    condition: Condition | None = None
    description: str | bytes | None = None
    info: dict[Any, Any] | None = None
    delivery: Delivery | None = None
    outcome: DeliveryOutcome | None = None


class AMQPError(_Facts, _Picklable, Exception):
    """Everything this package raises of its own, but for time-outs and what Python has a better class for."""


class _Described(AMQPError):
    """An error with condition, description and info in its constructor."""

    def __init__(
        self,
        condition: Condition | str,
        description: str | bytes | None = None,
        info: dict[Any, Any] | None = None,
        encoding: str = "UTF-8",
    ) -> None:
        if isinstance(condition, str):
            condition = condition.encode(encoding)
        self._encoding = encoding
        self.condition: Condition | None = condition
        self.description = description
        self.info = info
        self.action: ErrorAction | None = None
        super().__init__(_text(condition, description, encoding))


class _OwnText:
    """`description` of an error that the peer said nothing about: what we say."""

    def __get__(self, error: BaseException | None, owner: type | None = None) -> str | None:
        return None if error is None else str(error)


class _Absent:
    """Packages written for uamqp tell errors that a peer described from others by whether there is a `condition`."""

    def __get__(self, error: BaseException | None, owner: type | None = None) -> Any:
        if error is not None:
            raise AttributeError(f"{type(error).__name__} has no condition: the peer gave none")
        return None


class AMQPConnectionError(AMQPError):
    """The connection could not be made or does not work any more; also the family of session and link errors."""

    scope: str | None = "connection"
    retryable: bool | None = True
    condition: Condition | None = ErrorCodes.UnknownError
    description: str | bytes | None = cast("str | None", _OwnText())


class MessageHandlerError(AMQPConnectionError):
    """A sender or receiver does not work any more."""

    scope: str | None = "link"


class ConnectionClose(_Described, AMQPConnectionError):
    """The peer closed the connection, or we had to. `condition`, `description`, `info`, `action`."""

    scope: str | None = "connection"


class VendorConnectionClose(ConnectionClose):
    """A close with a condition that is not in `ErrorCodes`."""


class LinkDetach(_Described, AMQPConnectionError):
    """The peer detached the link. `condition`, `description`, `info`, `action`."""

    scope: str | None = "link"


class VendorLinkDetach(LinkDetach):
    """A detach with a condition that is not in `ErrorCodes`."""


class LinkRedirect(LinkDetach):
    """The peer wants the link attached elsewhere (amqp:link:redirect, §2.8.18): `hostname`, `network_host`, `port`,
    `address`, `scheme` and `path` as its info gives them (bytes, int), None for what it leaves out."""

    def __init__(
        self,
        condition: Condition | str,
        description: str | bytes | None = None,
        info: dict[Any, Any] | None = None,
        encoding: str = "UTF-8",
    ) -> None:
        super().__init__(condition, description, info, encoding)
        given = info if isinstance(info, Mapping) else {}
        self.hostname: bytes | None = given.get(b"hostname")
        self.network_host: bytes | None = given.get(b"network-host")
        self.port: int | None = given.get(b"port")
        self.address: bytes | None = given.get(b"address")
        self.scheme: bytes | None = given.get(b"scheme")
        self.path: bytes | None = given.get(b"path")


class SessionEnd(_Described, MessageHandlerError):
    """The peer ended the session, and with it every link on it. `condition`, `description`, `info`, `action`."""

    scope: str | None = "session"


class ConnectTimeout(AMQPConnectionError, TimeoutError):
    """`connect_timeout` passed before the link was attached; the text says how far it came."""


class ClientTimeout(AMQPError):
    """Kept for code that catches it; time-outs raise `TimeoutError`."""


class MessageTimeout(_Facts, TimeoutError):
    """`msg_timeout` passed before the peer said what became of the message. `delivery` says whether it may have it."""

    scope: str | None = "message"
    retryable: bool | None = True


class RequestTimeout(_Facts, TimeoutError):
    """The answer to a request did not come in time. `delivery` says whether the peer may have the request."""

    scope: str | None = "message"
    retryable: bool | None = True


class TokenTimeout(_Facts, TimeoutError):
    """The peer did not say within the auth object's `timeout` whether it accepts the token."""

    scope: str | None = "connection"
    retryable: bool | None = True


class AuthenticationException(AMQPError):
    """The peer does not accept who we are. There is no `condition`, unless it closed the connection with one."""

    scope: str | None = "connection"
    retryable: bool | None = False
    condition: Condition | None = cast("Condition | None", _Absent())


class TokenExpired(AuthenticationException):
    """The token is past its time and there is no way to make a new one."""


class TokenAuthFailure(AuthenticationException):
    """The peer refused a token: `status_code` and `description` of its answer."""

    def __init__(self, status_code: int, description: str | bytes | None, encoding: str = "UTF-8") -> None:
        self._encoding = encoding
        self.status_code = status_code
        self.description = description
        text = f"the peer refused the token\nStatus code: {status_code}"
        if description:
            if isinstance(description, bytes):
                description = description.decode(encoding, "backslashreplace")
            text += f"\nDescription: {description}"
        super().__init__(text)


SASL_OUTCOMES = {
    0: "ok",
    1: "auth: credentials not accepted",
    2: "sys: system error of the peer",
    3: "sys-perm: permanent system error of the peer",
    4: "sys-temp: temporary system error of the peer",
}


class SASLRefused(ConnectionClose, AuthenticationException):
    """The SASL exchange failed: `mechanism` is what we asked for; `code` the outcome (§5.3.3.6), None when the peer
    does not offer that mechanism, `offered` what it does."""

    scope: str | None = "connection"

    def __init__(self, mechanism: str, code: int | None = None, offered: list[str] | tuple[str, ...] = ()) -> None:
        self.mechanism = mechanism
        self.code = code
        self.offered: tuple[str, ...] = tuple(offered)
        if code is None:
            text = f"SASL {mechanism} is not offered by the peer; it offers {', '.join(offered) or 'nothing'}"
        else:
            text = f"SASL {mechanism} was refused by the peer: outcome {code}, {SASL_OUTCOMES.get(code, 'unknown')}"
        super().__init__(ErrorCodes.UnknownError, text)
        self.retryable: bool | None = code in (2, 4)


class HTTPRefused(ConnectionClose):
    """The way to the peer was refused before AMQP began: by the proxy that was to connect us, or by the server that was to
    make the connection a WebSocket. `by`: "proxy" or "server"; `status` (int) and `reason` (str) of its HTTP answer, None
    and "" when it gave none: it closed the connection, or did not speak HTTP."""

    def __init__(self, text: str, by: str, status: int | None = None, reason: str = "") -> None:
        self.by = by
        self.status = status
        self.reason = reason
        super().__init__(ErrorCodes.UnknownError, text)


class MessageResponse(AMQPError):
    """What became of a message, as an exception."""

    scope: str | None = "message"

    def __init__(self, message: str | None = None) -> None:
        Exception.__init__(self, message or f"Sending {type(self).__name__} disposition.")


class MessageException(_Described, MessageResponse):
    """The message failed with a condition that is not in `ErrorCodes`. `condition`, `description`, `info`, `action`."""

    scope: str | None = "message"

    def __init__(
        self,
        condition: Condition | str,
        description: str | bytes | None = None,
        info: dict[Any, Any] | None = None,
        encoding: str = "UTF-8",
    ) -> None:
        super().__init__(condition, description, info, encoding)


class MessageSendFailed(MessageException):
    """The message failed with a condition of `ErrorCodes`."""


class ClientMessageError(MessageException):
    """A send call did not get its message through: `condition` and `description` of the failure it is made from."""

    def __init__(self, exception: BaseException, info: dict[Any, Any] | None = None) -> None:
        condition = getattr(exception, "condition", None)
        if condition:
            description = getattr(exception, "description", None)
        else:
            condition, description = ErrorCodes.ClientError, str(exception)
        super().__init__(condition, description, info)
        self.delivery: Delivery | None = getattr(exception, "delivery", None)
        self.outcome: DeliveryOutcome | None = getattr(exception, "outcome", None)
        self.retryable: bool | None = getattr(exception, "retryable", None)


class MessageAlreadySettled(MessageResponse):
    """The message has its outcome already."""

    retryable: bool | None = False

    def __init__(self) -> None:
        super().__init__("Invalid operation: this message is already settled.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class MessageTakenBack(MessageAlreadySettled):
    """The peer has settled a received message by itself, as RabbitMQ does when a consumer takes too long. `outcome` says how, None
    that it did not say: after RELEASED and MODIFIED it delivers the message again."""

    def __init__(self, outcome: DeliveryOutcome | None = None) -> None:
        self.outcome: DeliveryOutcome | None = outcome
        again = ", and delivers it again" if outcome in (DeliveryOutcome.RELEASED, DeliveryOutcome.MODIFIED) else ""
        word = "without an outcome" if outcome is None else f"as {outcome.value}"
        MessageResponse.__init__(self, f"The peer has settled this message by itself, {word}{again}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.outcome,)


class MessageAccepted(MessageResponse):
    """The accepted outcome (§3.4.2)."""


class MessageRejected(MessageResponse):
    """The rejected outcome (§3.4.3): `error_condition`, `error_description` (bytes), `error_info` (native map or
    None)."""

    def __init__(
        self,
        condition: bytes | str | ErrorCodes | None = None,
        description: bytes | str | None = None,
        encoding: str = "UTF-8",
        info: dict[Any, Any] | None = None,
    ) -> None:
        if isinstance(condition, ErrorCodes):
            condition = condition.value
        if info and not isinstance(info, Mapping):
            raise TypeError(f"the info of a rejection must be a dict, not {type(info).__name__}")
        self._args = (condition, description, encoding, info)
        self._encoding = encoding
        condition = condition.encode(encoding) if isinstance(condition, str) else condition
        self.error_condition: bytes = condition or ErrorCodes.InternalServerError.value
        self.error_description: bytes = (
            description.encode(encoding) if isinstance(description, str) else description
        ) or b""
        self.error_info: AMQPValue | None = data_factory(info, encoding=encoding) if info else None
        self.info: dict[Any, Any] | None = info or None
        self._info = info
        super().__init__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.error_condition!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args


class MessageReleased(MessageResponse):
    """The released outcome (§3.4.4)."""


class MessageModified(MessageResponse):
    """The modified outcome (§3.4.5): `failed`, `undeliverable`, `annotations` (native map or None)."""

    def __init__(
        self, failed: bool, undeliverable: bool, annotations: dict[Any, Any] | None = None, encoding: str = "UTF-8"
    ) -> None:
        if annotations and not isinstance(annotations, Mapping):
            raise TypeError(f"the annotations of a disposition must be a dict, not {type(annotations).__name__}")
        self._args = (failed, undeliverable, annotations, encoding)
        self._encoding = encoding
        self.failed = failed
        self.undeliverable = undeliverable
        self.annotations: AMQPValue | None = data_factory(annotations, encoding=encoding) if annotations else None
        self.info: dict[Any, Any] | None = annotations or None
        self._annotations = annotations
        super().__init__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(failed={self.failed!r}, undeliverable={self.undeliverable!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args


class MessageDecodeError(AMQPError, ValueError):
    """What came in, or was given to be decoded, is no message as §3.2 of the standard has it: the text says which section of
    it, and what is wrong. Raised where that section is first looked at. Condition amqp:decode-error."""

    scope: str | None = "message"
    retryable: bool | None = False
    condition: Condition | None = ErrorCodes.DecodeError


class MessageContentTooLarge(_Facts, _Picklable, ValueError):
    """The data does not fit into one message."""

    scope: str | None = "message"
    retryable: bool | None = False
    condition: Condition | None = ErrorCodes.LinkMessageSizeExceeded
    delivery: Delivery | None = Delivery.NOT_DELIVERED

    def __init__(self) -> None:
        ValueError.__init__(self, "Data set too large for a single message.")


class MessageSizeExceeded(MessageSendFailed, MessageContentTooLarge):
    """The message has `size` bytes where the peer takes `limit` (max-message-size of its attach): it was not sent.
    Condition amqp:link:message-size-exceeded."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        self._encoding = "UTF-8"
        self.condition: Condition | None = ErrorCodes.LinkMessageSizeExceeded
        self.description: str | bytes | None = (
            f"the encoded message has {size} bytes, the peer's max-message-size is {limit}"
        )
        self.info: dict[Any, Any] | None = None
        self.action: ErrorAction | None = ErrorAction(retry=False)
        self.retryable: bool | None = False
        self.delivery: Delivery | None = Delivery.NOT_DELIVERED
        Exception.__init__(self, _text(self.condition, self.description, "UTF-8"))


class AMQPClientShutdown(_Facts, _Picklable, KeyboardInterrupt):
    """Ctrl-C came while user code ran inside the client."""

    def __init__(self) -> None:
        KeyboardInterrupt.__init__(self, "Client shutdown with keyboard interrupt.")


class ErrorResponse:
    """The parts of an AMQP error: `condition`, `description`, `info`, and `error`, what it was made from.

    `error_info`: a decoded `rejected` state, `[[condition, description, info]]`, or an object with those attributes;
    without it `condition` and `description` are taken as given (`info` is not, as in uamqp)."""

    def __init__(
        self,
        error_info: Any = None,
        condition: Condition | None = None,
        description: str | bytes | None = None,
        info: dict[Any, Any] | None = None,
    ) -> None:
        self.condition: Any = condition
        self.description: Any = description
        self.info: Any = None
        self.error = error_info
        if isinstance(error_info, (list, tuple)):
            parts = error_info[0] if error_info and isinstance(error_info[0], (list, tuple)) else ()
            self.condition, self.description, self.info = (*parts, None, None, None)[:3]
        elif error_info is not None:
            self.condition = error_info.condition
            self.description = error_info.description
            self.info = error_info.info

    def __repr__(self) -> str:
        return f"{type(self).__name__}(condition={self.condition!r}, description={self.description!r})"


# ---- from what the peer said to what is raised (behaviour of uamqp, 8.2) ---------------------------------------------


_E = TypeVar("_E", bound=AMQPError)


def _judged(error: _E, method: Callable[[Any], ErrorAction]) -> _E:
    try:
        error.action = method(error)
    except Exception:  # in the middle of bookkeeping: what the peer said must not get lost over it
        _logger.exception("the error policy failed: taken as a no to trying again")
        error.action = ErrorAction(retry=False)
    error.retryable = bool(getattr(error.action, "retry", False))
    return error


def process_connection_error(
    policy: ErrorPolicy,
    condition: Condition | str | None,
    description: str | bytes | None = None,
    info: dict[Any, Any] | None = None,
) -> ConnectionClose:
    """The error of a CLOSE: `ConnectionClose`, or `VendorConnectionClose` for a condition not in `ErrorCodes`."""
    condition = _known(condition)
    if isinstance(condition, ErrorCodes):
        return _judged(ConnectionClose(condition, description, _as_bytes(info)), policy.on_connection_error)
    return _judged(VendorConnectionClose(condition, description, _as_bytes(info)), policy.on_unrecognized_error)


def process_session_error(
    policy: ErrorPolicy,
    condition: Condition | str | None,
    description: str | bytes | None = None,
    info: dict[Any, Any] | None = None,
) -> SessionEnd:
    """The error of an END. The policy is asked as for a link: it has no word of its own for sessions."""
    condition = _known(condition)
    known = isinstance(condition, ErrorCodes)
    error = SessionEnd(condition, description, _as_bytes(info))
    return _judged(error, policy.on_link_error if known else policy.on_unrecognized_error)


def process_link_error(
    policy: ErrorPolicy,
    condition: Condition | str | None,
    description: str | bytes | None = None,
    info: dict[Any, Any] | None = None,
) -> LinkDetach:
    """The error of a DETACH: `LinkDetach`, `LinkRedirect`, or `VendorLinkDetach` for a condition not in
    `ErrorCodes`."""
    condition = _known(condition)
    if condition is ErrorCodes.LinkRedirect:
        return _judged(LinkRedirect(condition, description, _as_bytes(info)), policy.on_link_error)
    if isinstance(condition, ErrorCodes):
        return _judged(LinkDetach(condition, description, _as_bytes(info)), policy.on_link_error)
    return _judged(VendorLinkDetach(condition, description, _as_bytes(info)), policy.on_unrecognized_error)


def process_message_error(
    policy: ErrorPolicy,
    condition: Condition | str | None,
    description: str | bytes | None = None,
    info: dict[Any, Any] | None = None,
) -> MessageException:
    """The error of a negative outcome: `MessageSendFailed`, or `MessageException` for a condition not in `ErrorCodes`.
    It was the peer that said so, hence `delivery` is DELIVERED."""
    condition = _known(condition)
    error: MessageException
    if isinstance(condition, ErrorCodes):
        error = _judged(MessageSendFailed(condition, description, _as_bytes(info)), policy.on_message_error)
    else:
        error = _judged(MessageException(condition, description, _as_bytes(info)), policy.on_unrecognized_error)
    error.delivery = Delivery.DELIVERED
    return error
