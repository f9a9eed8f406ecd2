"""Native connections, sessions and links of `c_uamqp`: really used, over TLS, against the embedded broker."""

from __future__ import annotations

import gc
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from uamqp_cffi import c_uamqp, errors
from uamqp_cffi._core.engine import records
from uamqp_cffi._core.engine.types import Described
from uamqp_cffi._native import constants, make
from uamqp_cffi.broker import Broker, Outcome, Verdict
from uamqp_cffi.c_uamqp import ConnectionState
from uamqp_cffi.constants import (
    CBSAuthStatus,
    MessageReceiverState,
    MessageSenderState,
    MgmtExecuteResult,
    MgmtOpenStatus,
)

LIMIT = 10.0


class Context:
    """A callback context that notes every call: `calls` has (name, arguments)."""

    def __init__(self, **returns: Any) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.returns = returns

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") or name.startswith("__"):
            raise AttributeError(name)

        def called(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, (*args, *kwargs.values())))
            return self.returns.get(name)

        return called

    def all(self, name: str) -> list[tuple[Any, ...]]:
        return [args for called, args in self.calls if called == name]

    def states(self) -> list[int]:
        return [new for _, new in self.all("_state_changed")]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def judge(audience: str, kind: str, token: str) -> Verdict:
    return Verdict(401, "no") if token == "bad" else Verdict(200, "OK")


@pytest.fixture
def broker(authority: trustme.CA) -> Iterator[Broker]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with Broker(ssl_context=context, users={"ann": "s3cret"}, tokens=judge, tokens_required=False) as made:
        yield made


class Native:
    """A native connection with a session, and the contexts of both."""

    def __init__(self, broker: Broker, authority: trustme.CA, password: bytes = b"s3cret") -> None:
        config = c_uamqp.TLSIOConfig()
        config.hostname, config.port = b"localhost", int(broker.url.rpartition(":")[2])
        tls = c_uamqp.xio_from_tlsioconfig(c_uamqp.get_default_tlsio(), config)
        tls.set_certificates(authority.cert_pem.bytes())
        plain = c_uamqp.SASLPlainConfig()
        plain.authcid, plain.passwd = b"ann", password
        mechanism = c_uamqp.get_plain_sasl_mechanism(c_uamqp.saslplain_get_interface(), plain)
        io = c_uamqp.xio_from_saslioconfig(c_uamqp.SASLClientIOConfig(tls, mechanism))
        self.told, self.session_told = Context(), Context()
        self.connection = c_uamqp.create_connection(io, b"localhost", b"me", self.told)
        self.session = c_uamqp.create_session(self.connection, self.session_told)
        self.session.incoming_window = self.session.outgoing_window = 100

    def until(self, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + LIMIT
        while not done():
            assert time.monotonic() < deadline, "it did not happen"
            self.connection.do_work()

    def link(self, role: bool = False, address: bytes = b"q", name: bytes = b"link") -> c_uamqp.cLink:
        ours, theirs = c_uamqp.Messaging.create_source(b"me"), c_uamqp.Messaging.create_target(address)
        if role:
            ours, theirs = c_uamqp.Messaging.create_source(address), c_uamqp.Messaging.create_target(b"me")
        return c_uamqp.create_link(self.session, name, role, ours, theirs)

    def sender(self, address: bytes = b"q") -> tuple[c_uamqp.cMessageSender, Context]:
        told = Context()
        made = c_uamqp.create_message_sender(self.link(address=address, name=b"sender-" + address), told)
        made.open()
        self.until(lambda: told.states()[-1:] == [MessageSenderState.Open.value])
        return made, told

    def receiver(self, context: Any, address: bytes = b"q") -> tuple[c_uamqp.cMessageReceiver, Context]:
        told = Context()
        made = c_uamqp.create_message_receiver(self.link(True, address, b"receiver-" + address), told)
        made.open(context)
        self.until(lambda: told.states()[-1:] == [MessageReceiverState.Open.value])
        return made, told


@pytest.fixture
def native(broker: Broker, authority: trustme.CA) -> Iterator[Native]:
    made = Native(broker, authority)
    made.connection.open()
    made.session.begin()
    yield made
    made.session.destroy()
    made.connection.destroy()


def message(body: bytes = b"hello") -> c_uamqp.cMessage:
    made = c_uamqp.create_message()
    made.add_body_data(body)
    made.application_properties = make.data_factory({"n": 1})
    return made


# ---- connections ----------------------------------------------------------------------------------------------------


def test_a_connection_tells_its_states_as_numbers(native: Native) -> None:
    native.until(lambda: native.told.states()[-1:] == [ConnectionState.OPENED.value])
    native.connection.destroy()
    assert native.told.states()[-1] == ConnectionState.END.value


def test_settings_of_a_connection_go_out_in_open(broker: Broker, authority: trustme.CA) -> None:
    made = Native(broker, authority)
    connection = made.connection
    assert (connection.max_frame_size, connection.channel_max, connection.idle_timeout) == (0xFFFFFFFF, 65535, None)
    assert (connection.properties, connection.remote_max_frame_size) == (None, 512)
    connection.max_frame_size, connection.channel_max, connection.idle_timeout = 4096, 7, 60_000
    connection.properties = make.data_factory({"product": "bakery"})
    assert (connection.max_frame_size, connection.channel_max, connection.idle_timeout) == (4096, 7, 60_000)
    assert connection.properties is not None and connection.properties.value == {b"product": b"bakery"}
    with pytest.raises(TypeError):
        connection.properties = {"product": "bakery"}  # type: ignore[assignment]
    with connection:
        connection.open()
        made.until(lambda: connection.remote_max_frame_size > 512)


def test_a_peer_that_closes_is_told_to_who_subscribed(broker: Broker, native: Native) -> None:
    heard = Context()
    native.connection.subscribe_to_close_event(heard)
    broker.script("bad", fail="close", condition="amqp:not-allowed", description="no")
    native.link(address=b"bad")
    c_uamqp.create_message_sender(native.link(address=b"bad"), Context()).open()
    native.until(lambda: heard.calls)
    ((error,),) = heard.all("_close_received")
    assert (error.condition, error.description) == (b"amqp:not-allowed", b"no")
    assert native.told.all("_io_error") == []


def test_nobody_is_told_after_unsubscribing(broker: Broker, native: Native) -> None:
    heard = Context()
    native.connection.subscribe_to_close_event(heard)
    native.connection.unsubscribe_to_close_event()
    broker.script("bad", fail="close")
    c_uamqp.create_message_sender(native.link(address=b"bad"), Context()).open()
    native.until(lambda: native.told.states()[-1:] == [ConnectionState.END.value])
    assert heard.calls == []


def test_a_lost_transport_is_an_io_error(broker: Broker, native: Native) -> None:
    native.until(lambda: native.told.states()[-1:] == [ConnectionState.OPENED.value])
    broker.drop_connections()
    native.until(lambda: native.told.all("_io_error"))
    native.connection.do_work()
    assert len(native.told.all("_io_error")) == 1


def test_an_error_goes_out_with_close(native: Native, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uamqp.c_uamqp")
    native.until(lambda: native.told.states()[-1:] == [ConnectionState.OPENED.value])
    native.connection.set_trace(True)
    native.connection.close(b"amqp:internal-error", b"our fault")
    closes = [text for text in caplog.messages if "close" in text]
    assert "amqp:internal-error" in closes[0] and "our fault" in closes[0]


def test_the_trace_can_be_switched_off_again(native: Native, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uamqp.c_uamqp")
    sender, _ = native.sender()
    sender.set_trace(True)
    sender.set_trace(False)
    context = Context()
    sender.send(message(), 0, context)
    native.until(lambda: context.calls)
    assert not [record for record in caplog.records if record.name == "uamqp.c_uamqp"]


# ---- sessions -------------------------------------------------------------------------------------------------------


def test_settings_of_a_session_can_be_read_back(native: Native) -> None:
    session = c_uamqp.create_session(native.connection, None)
    assert (session.incoming_window, session.outgoing_window, session.handle_max) == (1, 1, 0xFFFFFFFF)
    session.incoming_window, session.outgoing_window, session.handle_max = 50, 60, 7
    assert (session.incoming_window, session.outgoing_window, session.handle_max) == (50, 60, 7)


def test_a_session_tells_of_attaches_with_native_termini(native: Native) -> None:
    native.sender()
    ((source, target, _, error),) = native.session_told.all("_attach_received")
    assert (type(source), type(target)) == (c_uamqp.cSource, c_uamqp.cTarget)
    assert (source.address, target.address, error) == (b"me", b"q", None)


def test_a_session_tells_of_refusals(broker: Broker, native: Native) -> None:
    broker.script("bad", fail="attach", condition="amqp:not-found")
    c_uamqp.create_message_sender(native.link(address=b"bad"), Context()).open()
    native.until(lambda: native.session_told.calls)
    ((source, target, _, error),) = native.session_told.all("_attach_received")
    assert (source, target, type(error)) == (None, None, errors.AMQPConnectionError)


@pytest.mark.parametrize("sender", [True, False])
def test_an_attach_without_the_end_that_is_ours_is_no_refusal(native: Native, sender: bool) -> None:
    given = Described(0x29 if sender else 0x28, ["q"])
    fields = {"source": None, "target": given} if sender else {"source": given, "target": None}
    native.session._attached(records.Attach(0, 0, True, sender, {**fields, "properties": None}))
    native.session._attached(records.Attach(0, 0, True, not sender, {**fields, "properties": None}))
    (source, target, _, error), refused = native.session_told.all("_attach_received")
    assert error is None and (source if sender else target) is None and (target if sender else source).address == b"q"
    assert refused[:2] == (None, None) and isinstance(refused[3], errors.AMQPConnectionError)


def test_a_session_ends_and_another_goes_on(broker: Broker, native: Native) -> None:
    with c_uamqp.create_session(native.connection, Context()) as other:
        other.begin()
        native.until(lambda: native.told.states()[-1:] == [ConnectionState.OPENED.value])
        other.end(b"amqp:internal-error", b"enough")
    context = Context()
    sender, _ = native.sender()
    sender.send(message(), 0, context)
    native.until(lambda: context.calls)
    assert len(broker.wait_for("q", 1)) == 1


# ---- sending --------------------------------------------------------------------------------------------------------


def test_a_native_message_is_sent_and_its_outcome_told(broker: Broker, native: Native) -> None:
    sender, told = native.sender()
    context = Context()
    assert sender.send(message(), 0, context) is True
    native.until(lambda: context.calls)
    assert context.calls == [("_on_message_sent", (context, constants.MESSAGE_SEND_OK, []))]
    (arrived,) = broker.wait_for("q", 1)
    assert (str(arrived), arrived.application_properties) == ("hello", {b"n": 1})
    assert told.states()[:2] == [MessageSenderState.Opening.value, MessageSenderState.Open.value]


def test_a_rejection_is_told_with_its_error(broker: Broker, native: Native) -> None:
    broker.script("q", Outcome("rejected", "amqp:not-allowed", "no"))
    sender, _ = native.sender()
    context = Context()
    sender.send(message(), 0, context)
    native.until(lambda: context.calls)
    ((_, result, state),) = context.all("_on_message_sent")
    assert (result, state[0][:2]) == (constants.MESSAGE_SEND_ERROR, [b"amqp:not-allowed", b"no"])


def test_a_send_times_out(broker: Broker, native: Native) -> None:
    broker.script("q", "none")
    sender, _ = native.sender()
    context = Context()
    sender.send(message(), 50, context)
    native.until(lambda: context.calls)
    assert context.all("_on_message_sent")[0][1] == constants.MESSAGE_SEND_TIMEOUT


def test_a_closed_sender_says_so(native: Native) -> None:
    with native.sender()[0] as sender:
        sender.close()
    assert sender._end.get_state() is MessageSenderState.Idle


def test_what_a_callback_raises_is_logged(native: Native, caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        done = False

        def _on_message_sent(self, *args: Any, **kwargs: Any) -> None:
            self.done = True
            raise RuntimeError("the users own fault")

    bad = Bad()
    sender, _ = native.sender()
    sender.send(message(), 0, bad)
    native.until(lambda: bad.done)
    assert "the users own fault" in caplog.text


# ---- links ----------------------------------------------------------------------------------------------------------


def test_settings_of_a_link_go_out_in_attach(native: Native, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uamqp.c_uamqp")
    native.connection.set_trace(True)
    link = native.link(name=b"mine")
    assert (link.name, link.send_settle_mode, link.receive_settle_mode, link.max_message_size) == (b"mine", 0, 0, 0)
    assert (link.initial_delivery_count, link.peer_max_message_size, link.desired_capabilities) == (0, 0, None)
    link.send_settle_mode, link.receive_settle_mode, link.max_message_size = 1, 0, 12345
    link.initial_delivery_count = 7
    link.set_attach_properties(make.data_factory({"colour": "red"}))
    link.set_desired_capabilities(c_uamqp.symbol_value(b"cap"))
    told = Context()
    sender = c_uamqp.create_message_sender(link, told)
    sender.open()
    native.until(lambda: told.states()[-1:] == [MessageSenderState.Open.value])
    (attach,) = [text for text in caplog.messages if "attach" in text and "mine" in text and "colour" in text]
    for part in ("12345", "red", "cap"):
        assert part in attach
    assert (link.send_settle_mode, link.max_message_size, link.initial_delivery_count) == (1, 12345, 7)
    assert link.peer_max_message_size > 0
    assert str(link.desired_capabilities) == "cap"
    context = Context()
    sender.send(message(), 0, context)
    native.until(lambda: context.calls)


def test_a_detach_is_told_to_who_subscribed(broker: Broker, native: Native) -> None:
    heard, told = Context(), Context()
    link = native.link(address=b"bad")
    link.subscribe_to_detach_event(heard)
    broker.script("bad", fail="detach", condition="amqp:not-found", description="gone")
    c_uamqp.create_message_sender(link, told).open()
    native.until(lambda: heard.calls)
    ((error,),) = heard.all("_detach_received")
    assert (error.condition, error.description) == (b"amqp:not-found", b"gone")
    assert told.states()[-1] == MessageSenderState.Error.value


def test_a_detach_is_not_told_after_unsubscribing(broker: Broker, native: Native) -> None:
    heard, told = Context(), Context()
    link = native.link(address=b"bad")
    link.subscribe_to_detach_event(heard)
    link.unsubscribe_to_detach_event()
    broker.script("bad", fail="detach")
    c_uamqp.create_message_sender(link, told).open()
    native.until(lambda: told.states()[-1:] == [MessageSenderState.Error.value])
    link.do_work()
    assert heard.calls == []


def test_a_link_has_one_end_of_its_role(native: Native) -> None:
    link = native.link()
    with pytest.raises(ValueError, match="role"):
        c_uamqp.create_message_receiver(link, Context())
    c_uamqp.create_message_sender(link, Context())
    with pytest.raises(ValueError, match="already"):
        c_uamqp.create_message_sender(link, Context())
    with pytest.raises(ValueError, match="receiver"):
        link.reset_link_credit(5, False)


def test_a_link_can_be_left_by_with(native: Native) -> None:
    told = Context()
    with native.link() as link:
        c_uamqp.create_message_sender(link, told).open()
        native.until(lambda: told.states()[-1:] == [MessageSenderState.Open.value])
    native.connection.do_work()
    assert told.states()[-1] == MessageSenderState.Idle.value


# ---- receiving ------------------------------------------------------------------------------------------------------


class Inbox(Context):
    """A context that keeps what it receives."""

    def messages(self) -> list[c_uamqp.cMessage]:
        return [args[0] for args in self.all("_message_received")]


def test_a_native_message_is_received_and_accepted(broker: Broker, native: Native) -> None:
    broker.put("q", c_message_of(b"hello"))
    inbox = Inbox()
    receiver, told = native.receiver(inbox)
    native.until(inbox.messages)
    (received,) = inbox.messages()
    assert (received.get_body_data(0), received.delivery_tag is not None) == (b"hello", True)
    receiver.settle_accepted_message(receiver.last_received_message_number())
    receiver.close()
    assert broker.info("q").messages == 0
    assert told.states()[:2] == [MessageReceiverState.Opening.value, MessageReceiverState.Open.value]


def c_message_of(body: bytes) -> Any:
    from uamqp_cffi import Message

    return Message(body)


@pytest.mark.parametrize(
    ("settle", "again", "dead"),
    [
        (lambda r, n: r.settle_released_message(n), 1, 0),
        (lambda r, n: r.settle_modified_message(n, True, False, None), 1, 0),
        (
            lambda r, n: r.settle_modified_message(n, True, True, c_uamqp.create_fields(make.data_factory({"a": 1}))),
            0,
            1,
        ),
        (lambda r, n: r.settle_rejected_message(n, b"amqp:not-allowed", b"no"), 0, 1),
        (
            lambda r, n: r.settle_rejected_message(n, b"x", b"no", c_uamqp.create_fields(make.data_factory({"a": 1}))),
            0,
            1,
        ),
    ],
)
def test_outcomes_reach_the_peer(broker: Broker, native: Native, settle: Any, again: int, dead: int) -> None:
    broker.put("q", c_message_of(b"hello"))
    link = native.link(True)
    link.set_prefetch_count(1)
    inbox = Inbox()
    receiver = c_uamqp.create_message_receiver(link, Context())
    assert receiver.last_received_message_number() == 0
    receiver.open(inbox)
    native.until(inbox.messages)
    link.reset_link_credit(0, False)
    settle(receiver, receiver.last_received_message_number())
    receiver.destroy()
    native.connection.destroy()
    info = broker.info("q")
    assert (info.messages, info.dead) == (again, dead)


def test_a_delivery_state_that_the_callback_returns_is_sent(broker: Broker, native: Native) -> None:
    broker.put("q", c_message_of(b"hello"))
    inbox = Inbox(_message_received=c_uamqp.Messaging.delivery_accepted())
    receiver, _ = native.receiver(inbox)
    native.until(inbox.messages)
    with pytest.raises(errors.MessageAlreadySettled):
        receiver.settle_released_message(receiver.last_received_message_number())


# ---- requests -------------------------------------------------------------------------------------------------------


def manage(native: Native) -> tuple[c_uamqp.cManagementOperation, Context]:
    told = Context()
    made = c_uamqp.create_management_operation(native.session, b"$management")
    made.open(told)
    native.until(lambda: told.calls)
    assert told.calls == [("_management_open_complete", (MgmtOpenStatus.Ok.value,))]
    return made, told


@pytest.mark.parametrize(("status", "result"), [(200, MgmtExecuteResult.Ok), (404, MgmtExecuteResult.Failed)])
def test_a_request_is_answered(broker: Broker, native: Native, status: int, result: MgmtExecuteResult) -> None:
    broker.answer("READ", status=status, description="so", body="seven")
    operation, _ = manage(native)
    operation.set_response_field_names(b"statusCode", b"statusDescription")
    answers: list[Any] = []
    operation.execute(b"READ", b"thing", None, message(), lambda *args: answers.append(args))
    native.until(lambda: answers)
    ((got, code, description, answer),) = answers
    assert (got, code, description) == (result.value, status, b"so")
    assert answer.get_body_value().value == b"seven"


def test_a_request_that_waits_hears_of_the_end(broker: Broker, native: Native) -> None:
    broker.answer("NEVER", status=None)
    operation, _ = manage(native)
    answers: list[Any] = []
    operation.execute(b"NEVER", b"thing", None, message(), lambda *args: answers.append(args))
    native.connection.do_work()
    operation.close()
    assert answers == [(MgmtExecuteResult.Closed.value, 0, None, None)]


def test_a_request_on_a_lost_connection_fails(broker: Broker, native: Native) -> None:
    broker.answer("NEVER", status=None)
    operation, told = manage(native)
    answers: list[Any] = []
    operation.execute(b"NEVER", b"thing", None, message(), lambda *args: answers.append(args))
    native.connection.do_work()
    broker.drop_connections()
    native.until(lambda: answers and told.all("_management_operation_error"))
    assert answers == [(MgmtExecuteResult.Error.value, 0, None, None)]
    operation.destroy()


def test_the_trace_of_a_request_is_the_connections(native: Native, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uamqp.c_uamqp")
    operation = c_uamqp.create_management_operation(native.session, b"$management")
    operation.set_trace(True)
    told = Context()
    operation.open(told)
    native.until(lambda: told.calls)
    assert any("attach" in text for text in caplog.messages)


def token(
    native: Native, expires_in: int = 3600, window: int = 60, timeout: int = 10, value: bytes = b"good"
) -> c_uamqp.CBSTokenAuth:
    end = int(time.time()) + expires_in
    return c_uamqp.CBSTokenAuth(b"aud", b"jwt", value, end, native.session, timeout, b"id", window)


def test_a_token_is_put_and_refreshed(native: Native) -> None:
    auth = token(native)
    assert auth.get_status() == CBSAuthStatus.Idle.value
    auth.authenticate()
    assert auth.get_status() == CBSAuthStatus.InProgress.value
    native.until(lambda: auth.get_status() == CBSAuthStatus.Ok.value)
    auth.refresh(b"another", int(time.time()) + 50)
    native.until(lambda: auth.get_status() == CBSAuthStatus.RefreshRequired.value)
    auth.refresh(b"old", int(time.time()) - 1)
    native.until(lambda: auth.get_status() == CBSAuthStatus.Expired.value)
    auth.close()


def test_a_refused_token_says_why(native: Native) -> None:
    auth = token(native, value=b"bad")
    auth.set_trace(False)
    auth.authenticate()
    native.until(lambda: auth.get_status() == CBSAuthStatus.Failure.value)
    assert auth.get_failure_info() == (401, b"no")
    auth.destroy()


def test_a_token_without_an_answer_times_out(native: Native) -> None:
    auth = token(native, timeout=0)
    auth.authenticate()
    assert auth.get_status() == CBSAuthStatus.Timeout.value


@pytest.mark.parametrize(
    "call",
    [
        lambda auth: auth.on_cbs_error(),
        lambda auth: auth.on_cbs_open_complete(constants.CBS_OPEN_COMPLETE_ERROR),
        lambda auth: auth.on_cbs_put_token_complete(constants.CBS_OPERATION_RESULT_CBS_ERROR, 0, None),
    ],
)
def test_what_goes_wrong_with_a_token_is_its_status(native: Native, call: Any) -> None:
    auth = token(native)
    auth.authenticate()
    native.until(lambda: auth.get_status() == CBSAuthStatus.Ok.value)
    call(auth)
    assert auth.get_status() == CBSAuthStatus.Error.value


# ---- misuse ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda: c_uamqp.Connection().open(),
        lambda: c_uamqp.cSession().begin(),
        lambda: c_uamqp.cLink().do_work(),
        lambda: c_uamqp.cMessageSender().open(),
        lambda: c_uamqp.cMessageReceiver().open(None),
        lambda: c_uamqp.cManagementOperation().open(None),
    ],
)
def test_what_no_maker_made_does_nothing(call: Any) -> None:
    with pytest.raises(ValueError, match="not made"):
        call()


def test_makers_take_what_they_are_made_of(native: Native) -> None:
    for call in (
        lambda: c_uamqp.create_connection(None, b"h", b"c", None),  # type: ignore[arg-type]
        lambda: c_uamqp.create_session(None, None),  # type: ignore[arg-type]
        lambda: c_uamqp.create_link(native.session, "name", False, None, None),  # type: ignore[arg-type]
        lambda: c_uamqp.create_message_sender(None, None),  # type: ignore[arg-type]
        lambda: c_uamqp.create_management_operation(native.session, "node"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()


def test_a_wrong_password_is_an_io_error_or_close(broker: Broker, authority: trustme.CA) -> None:
    made = Native(broker, authority, b"wrong")
    made.connection.open()
    made.until(lambda: made.told.states()[-1:] == [ConnectionState.END.value])
    made.connection.destroy()


def test_objects_may_be_dropped_in_any_order(native: Native) -> None:
    sender, _ = native.sender()
    del sender
    gc.collect()
    native.connection.do_work()
