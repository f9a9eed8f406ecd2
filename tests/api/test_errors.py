"""The exceptions: their tree, what they say, what the policy decides, and that they pickle."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from uamqp_cffi import errors
from uamqp_cffi._core.engine.types import Symbol
from uamqp_cffi.constants import Delivery, DeliveryOutcome, ErrorCodes
from uamqp_cffi.errors import ErrorAction, ErrorPolicy

POLICY = ErrorPolicy()


@pytest.mark.parametrize(
    ("cls", "bases"),
    [
        (errors.MessageHandlerError, (errors.AMQPConnectionError,)),
        (errors.SessionEnd, (errors.MessageHandlerError,)),
        (errors.VendorConnectionClose, (errors.ConnectionClose, errors.AMQPConnectionError)),
        (errors.LinkRedirect, (errors.LinkDetach, errors.AMQPConnectionError)),
        (errors.SASLRefused, (errors.ConnectionClose, errors.AuthenticationException)),
        (errors.ConnectTimeout, (errors.AMQPConnectionError, TimeoutError)),
        (errors.MessageTimeout, (TimeoutError,)),
        (errors.TokenTimeout, (TimeoutError,)),
        (errors.RequestTimeout, (TimeoutError,)),
        (errors.MessageSendFailed, (errors.MessageException, errors.MessageResponse, errors.AMQPError)),
        (errors.MessageSizeExceeded, (errors.MessageSendFailed, errors.MessageContentTooLarge, ValueError)),
        (errors.AMQPClientShutdown, (KeyboardInterrupt,)),
    ],
)
def test_an_error_is_caught_by_each_of_its_kinds(cls: type, bases: tuple[type, ...]) -> None:
    for base in bases:
        assert issubclass(cls, base)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.ConnectionClose(b"abc", b"desc"), "abc: desc"),
        (errors.LinkDetach(b"abc"), "abc"),
        (errors.MessageException(ErrorCodes.NotFound, "desc"), f"{ErrorCodes.NotFound}: desc"),
        (errors.LinkDetach("abc", b"\xff"), "abc: \\xff"),  # type: ignore[arg-type]
        (errors.ClientMessageError(ValueError("x")), f"{ErrorCodes.ClientError}: x"),
    ],
)
def test_the_text_is_condition_and_description(error: Exception, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("process", "known", "unknown", "scope"),
    [
        (errors.process_connection_error, errors.ConnectionClose, errors.VendorConnectionClose, "connection"),
        (errors.process_session_error, errors.SessionEnd, errors.SessionEnd, "session"),
        (errors.process_link_error, errors.LinkDetach, errors.VendorLinkDetach, "link"),
        (errors.process_message_error, errors.MessageSendFailed, errors.MessageException, "message"),
    ],
)
def test_a_condition_makes_the_exception_of_its_scope(process: Any, known: type, unknown: type, scope: str) -> None:
    error = process(POLICY, b"amqp:not-found", b"gone", {Symbol("k"): "v"})
    assert type(error) is known
    assert (error.condition, error.description, error.info) == (ErrorCodes.NotFound, b"gone", {b"k": b"v"})
    assert (error.scope, error.action.retry, error.retryable) == (scope, False, False)
    error = process(POLICY, b"com.example:busy")
    assert type(error) is unknown
    assert (error.condition, error.description, error.info) == (b"com.example:busy", None, None)
    assert (error.scope, error.action.retry, error.retryable) == (scope, True, True)
    assert process(POLICY, None).condition is ErrorCodes.UnknownError
    assert process(POLICY, b"").condition is ErrorCodes.UnknownError


def test_a_refused_message_was_delivered_to_who_refused_it() -> None:
    assert errors.process_message_error(POLICY, b"amqp:not-found").delivery is Delivery.DELIVERED


def test_a_redirect_says_where_to() -> None:
    info = {"hostname": "h", "network-host": "n", "port": 5, "address": "a", "scheme": "s", "path": "/p"}
    error = errors.process_link_error(POLICY, b"amqp:link:redirect", None, {Symbol(k): v for k, v in info.items()})
    assert isinstance(error, errors.LinkRedirect)
    assert (error.hostname, error.network_host, error.port) == (b"h", b"n", 5)
    assert (error.address, error.scheme, error.path) == (b"a", b"s", b"/p")


def test_a_redirect_without_info_says_nothing_and_does_not_fail() -> None:
    error = errors.LinkRedirect(ErrorCodes.LinkRedirect)
    assert (error.hostname, error.network_host, error.port, error.address) == (None, None, None, None)
    assert (error.scheme, error.path) == (None, None)


def test_the_policy_retries_what_may_pass() -> None:
    retried = {code for code in ErrorCodes if POLICY.on_link_error(errors.LinkDetach(code)).retry}
    assert retried == set(ErrorCodes) - set(ErrorPolicy.no_retry)
    assert {code.name for code in retried} == {
        "InternalServerError",
        "ResourceLocked",
        "ConnectionCloseForced",
        "LinkDetachForced",
        "LinkTransferLimitExceeded",
        "ClientError",
        "UnknownError",
        "VendorError",
    }


def test_on_error_is_asked_for_unknown_conditions_only() -> None:
    asked: list[Any] = []

    def on_error(error: Any) -> ErrorAction:
        asked.append(error)
        return ErrorAction(retry=False, backoff=7)

    policy = ErrorPolicy(max_retries=5, on_error=on_error)
    assert errors.process_message_error(policy, b"amqp:internal-error").action.retry  # type: ignore[union-attr]
    error = errors.process_message_error(policy, b"vendor")
    assert asked == [error]
    assert error.action is not None
    assert (error.action.retry, error.action.backoff, error.action.increment_retries) == (False, 7, True)
    assert error.retryable is False


def test_an_overridden_policy_decides() -> None:
    class Never(ErrorPolicy):
        def on_unrecognized_error(self, error: Any) -> ErrorAction:
            return ErrorAction(retry=False)

        on_message_error = on_link_error = on_connection_error = on_unrecognized_error

    for process in (
        errors.process_connection_error,
        errors.process_session_error,
        errors.process_link_error,
        errors.process_message_error,
    ):
        for condition in (b"amqp:internal-error", b"vendor"):
            assert process(Never(), condition).retryable is False


def test_a_failed_send_takes_over_what_it_failed_of() -> None:
    cause = errors.process_message_error(POLICY, b"amqp:not-found", b"gone")
    error = errors.ClientMessageError(cause, info={"total_messages": 1})
    assert (error.condition, error.description, error.info) == (ErrorCodes.NotFound, b"gone", {"total_messages": 1})
    assert (error.delivery, error.retryable, error.scope) == (Delivery.DELIVERED, False, "message")
    plain = errors.ClientMessageError(ValueError("x"))
    assert (plain.condition, plain.description, plain.info) == (ErrorCodes.ClientError, "x", None)


def test_a_message_above_the_limit_of_the_peer_says_both_sizes() -> None:
    error = errors.MessageSizeExceeded(10, 5)
    assert (error.condition, error.size, error.limit) == (ErrorCodes.LinkMessageSizeExceeded, 10, 5)
    assert "10 bytes" in str(error)
    assert "5" in str(error)
    assert (error.delivery, error.retryable) == (Delivery.NOT_DELIVERED, False)


@pytest.mark.parametrize(
    ("error", "words", "retryable"),
    [
        (errors.SASLRefused("PLAIN", 1), ("PLAIN", "credentials"), False),
        (errors.SASLRefused("PLAIN", 4), ("PLAIN", "temporary"), True),
        (errors.SASLRefused("EXTERNAL", None, ["PLAIN", "ANONYMOUS"]), ("EXTERNAL", "PLAIN, ANONYMOUS"), False),
    ],
)
def test_a_sasl_refusal_names_mechanism_and_outcome(error: Any, words: tuple[str, ...], retryable: bool) -> None:
    for word in words:
        assert word in str(error)
    assert (error.scope, error.retryable, error.condition) == ("connection", retryable, ErrorCodes.UnknownError)


def test_a_rejection_holds_bytes_and_a_native_map() -> None:
    error = errors.MessageRejected("c", "d", info={"a": 1})
    assert (error.error_condition, error.error_description) == (b"c", b"d")
    assert error.error_info is not None
    assert error.error_info.value == {b"a": 1}
    empty = errors.MessageRejected()
    assert (empty.error_condition, empty.error_description, empty.error_info) == (b"amqp:internal-error", b"", None)
    for cls, given in ((errors.MessageRejected, {"info": 4}), (errors.MessageModified, {"annotations": [1]})):
        arguments: dict[str, Any] = {"failed": True, "undeliverable": False} if "annotations" in given else {}
        with pytest.raises(TypeError, match="dict"):
            cls(**arguments, **given)


def test_a_modification_holds_its_flags() -> None:
    error = errors.MessageModified(True, False, {"a": 1})
    assert (error.failed, error.undeliverable) == (True, False)
    assert error.annotations is not None
    assert error.annotations.value == {b"a": 1}


def test_an_error_response_comes_from_a_decoded_state() -> None:
    response = errors.ErrorResponse([[b"c", b"d", {b"a": 1}]])
    assert (response.condition, response.description, response.info) == (b"c", b"d", {b"a": 1})
    short = errors.ErrorResponse([[b"c"]])
    assert (short.condition, short.description, short.info) == (b"c", None, None)
    given = errors.ErrorResponse(condition=b"x", description="d")
    assert (given.condition, given.description, given.info, given.error) == (b"x", "d", None, None)
    copied = errors.ErrorResponse(response)
    assert (copied.condition, copied.info, copied.error) == (b"c", {b"a": 1}, response)


ALL = [
    errors.AMQPError("x"),
    errors.AMQPConnectionError("x"),
    errors.MessageHandlerError("x"),
    errors.ConnectionClose(b"a", b"d", {b"k": 1}),
    errors.VendorConnectionClose(b"a"),
    errors.LinkDetach(b"a", "d"),
    errors.VendorLinkDetach(b"a"),
    errors.LinkRedirect(ErrorCodes.LinkRedirect, info={b"hostname": b"h"}),
    errors.SessionEnd(b"a"),
    errors.ConnectTimeout("x"),
    errors.ClientTimeout("x"),
    errors.MessageTimeout("x"),
    errors.TokenTimeout("x"),
    errors.RequestTimeout("x"),
    errors.AuthenticationException("x"),
    errors.TokenExpired("x"),
    errors.TokenAuthFailure(401, b"no"),
    errors.SASLRefused("PLAIN", None, ["A"]),
    errors.HTTPRefused("the proxy refused: 407 no", "proxy", 407, "no"),
    errors.MessageResponse("x"),
    errors.MessageException(b"a"),
    errors.MessageSendFailed(b"a", b"d"),
    errors.ClientMessageError(ValueError("x"), {"n": 1}),
    errors.MessageAlreadySettled(),
    errors.MessageTakenBack(DeliveryOutcome.RELEASED),
    errors.MessageAccepted(),
    errors.MessageRejected("c", "d", info={"a": 1}),
    errors.MessageReleased(),
    errors.MessageModified(True, False, {"a": 1}),
    errors.MessageDecodeError("x"),
    errors.MessageContentTooLarge(),
    errors.MessageSizeExceeded(5, 4),
    errors.AMQPClientShutdown(),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_every_error_pickles(error: BaseException) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert (str(other), other.args) == (str(error), error.args)
    for name in ("condition", "description", "info", "scope", "retryable", "delivery", "status_code", "limit"):
        assert getattr(other, name, None) == getattr(error, name, None)


def test_outcomes_have_what_they_were_given_where_uamqp_has_it() -> None:
    """Its own tests look there, also after pickling."""
    for given in ({b"a": 1}, None):
        for outcome in (errors.MessageModified(True, False, given), errors.MessageRejected(b"c", b"d", info=given)):
            other = pickle.loads(pickle.dumps(outcome))
            name = "_annotations" if isinstance(outcome, errors.MessageModified) else "_info"
            assert getattr(outcome, name) == getattr(other, name) == given


def test_every_class_of_the_module_is_in_that_list() -> None:
    classes = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, BaseException)}
    assert {cls for cls in classes if not cls.__name__.startswith("_")} == {type(error) for error in ALL}


@pytest.mark.parametrize(
    "name", ["scope", "retryable", "condition", "description", "info", "delivery", "outcome", "action"]
)
def test_every_error_answers_the_same_questions(name: str) -> None:
    silent = {type(error).__name__ for error in ALL if not hasattr(error, name)}
    assert silent == (TOLD_APART if name == "condition" else set())


# packages tell these from others by their having no condition
TOLD_APART = {"AuthenticationException", "TokenExpired", "TokenAuthFailure"}
NOT = Delivery.NOT_DELIVERED
FACTS = {  # scope, retryable, condition, delivery, as long as nobody knows better
    "AMQPError": (None, None, None, None),
    "AMQPConnectionError": ("connection", True, ErrorCodes.UnknownError, None),
    "MessageHandlerError": ("link", True, ErrorCodes.UnknownError, None),
    "ConnectionClose": ("connection", True, b"a", None),
    "VendorConnectionClose": ("connection", True, b"a", None),
    "LinkDetach": ("link", True, b"a", None),
    "VendorLinkDetach": ("link", True, b"a", None),
    "LinkRedirect": ("link", True, ErrorCodes.LinkRedirect, None),
    "SessionEnd": ("session", True, b"a", None),
    "ConnectTimeout": ("connection", True, ErrorCodes.UnknownError, None),
    "ClientTimeout": (None, None, None, None),
    "MessageTimeout": ("message", True, None, None),
    "RequestTimeout": ("message", True, None, None),
    "TokenTimeout": ("connection", True, None, None),
    "AuthenticationException": ("connection", False, None, None),
    "TokenExpired": ("connection", False, None, None),
    "TokenAuthFailure": ("connection", False, None, None),
    "SASLRefused": ("connection", False, ErrorCodes.UnknownError, None),
    "HTTPRefused": ("connection", True, ErrorCodes.UnknownError, None),
    "MessageResponse": ("message", None, None, None),
    "MessageException": ("message", None, b"a", None),
    "MessageSendFailed": ("message", None, b"a", None),
    "ClientMessageError": ("message", None, ErrorCodes.ClientError, None),
    "MessageAlreadySettled": ("message", False, None, None),
    "MessageTakenBack": ("message", False, None, None),
    "MessageAccepted": ("message", None, None, None),
    "MessageRejected": ("message", None, None, None),
    "MessageReleased": ("message", None, None, None),
    "MessageModified": ("message", None, None, None),
    "MessageDecodeError": ("message", False, ErrorCodes.DecodeError, None),
    "MessageContentTooLarge": ("message", False, ErrorCodes.LinkMessageSizeExceeded, NOT),
    "MessageSizeExceeded": ("message", False, ErrorCodes.LinkMessageSizeExceeded, NOT),
    "AMQPClientShutdown": (None, None, None, None),
}


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_every_error_says_by_itself_what_it_can(error: Any) -> None:
    facts = (error.scope, error.retryable, getattr(error, "condition", None), error.delivery)
    assert facts == FACTS[type(error).__name__]


def test_a_refused_token_has_no_condition_because_packages_tell_it_apart_by_that() -> None:
    assert not hasattr(errors.TokenAuthFailure(401, "no"), "condition")


def test_a_connection_error_of_our_own_has_a_condition_and_says_what_it_is() -> None:
    error = errors.AMQPConnectionError("nobody listens")
    assert (error.condition, error.description) == (errors.ErrorCodes.UnknownError, "nobody listens")
