"""SendClient against the embedded broker: what becomes of messages, and what callers are told."""

from __future__ import annotations

import time
from typing import Any

import pytest

import uamqp_cffi as uamqp
from uamqp_cffi import BatchMessage, Connection, Message, SendClient, Target, authentication, errors
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, ErrorCodes, MessageSendResult, MessageState, SenderSettleMode

pytestmark = pytest.mark.both_drivers

DONE, FAILED, WAITING, SENT = (
    MessageState.SendComplete,
    MessageState.SendFailed,
    MessageState.WaitingToBeSent,
    MessageState.WaitingForSendAck,
)


# ---- sending


def test_a_message_sent_is_complete_and_there(broker: Broker, client: SendClient) -> None:
    message = Message(b"hello")
    assert client.send_message(message) is None
    assert (message.state, message.delivery, message.settled) == (DONE, Delivery.DELIVERED, True)
    assert isinstance(message._response, errors.MessageAlreadySettled)
    assert [bytes(next(m.get_data())) for m in broker.wait_for("q", 1)] == [b"hello"]
    assert client.pending_messages == [] and not client.messages_pending()


def test_all_messages_arrive_once_and_in_order(broker: Broker, client: SendClient) -> None:
    bodies = [b"%d" % n for n in range(12_345)]
    client.queue_message(*[Message(body) for body in bodies])
    states = client.send_all_messages(close_on_done=False)
    assert states == [DONE] * len(bodies)
    assert [next(m.get_data()) for m in broker.wait_for("q", len(bodies))] == bodies


def test_plain_and_rich_messages_keep_their_order(broker: Broker, client: SendClient) -> None:
    for n in range(600):
        body = b"%d" % n
        client.queue_message(Message(body, application_properties={"n": n}) if n % 7 == 3 else Message(body))
    assert set(client.send_all_messages(close_on_done=False)) == {DONE}
    got = broker.wait_for("q", 600)
    assert [int(next(m.get_data())) for m in got] == list(range(600))
    assert got[3].application_properties == {b"n": 3} and got[4].application_properties is None


def test_large_messages_arrive_whole(broker: Broker, client: SendClient) -> None:
    bodies = [bytes([n]) * 3_000_000 for n in range(5)]
    for body in bodies:
        client.queue_message(Message(body))
    assert client.send_all_messages(close_on_done=False) == [DONE] * 5
    assert [next(m.get_data()) for m in broker.wait_for("q", 5)] == bodies


def test_send_message_takes_queued_messages_along_in_order(broker: Broker, client: SendClient) -> None:
    client.queue_message(Message(b"first"), Message(b"second"))
    client.send_message(Message(b"third"))
    client.wait()
    assert [str(m) for m in broker.wait_for("q", 3)] == ["first", "second", "third"]


def test_a_batch_is_one_message_of_messages(broker: Broker, client: SendClient) -> None:
    client.send_message(BatchMessage([b"a", b"b"]))
    (envelope,) = broker.wait_for("q", 1)
    assert [str(Message.decode_from_bytes(part)) for part in envelope.get_data()] == ["a", "b"]


def test_a_batch_of_several_messages_waits_for_all(broker: Broker, client: SendClient) -> None:
    batch = BatchMessage([b"x" * 400_000] * 6, multi_messages=True)
    client.send_message(batch)
    assert len(broker.wait_for("q", 3)) == 3
    assert not client.messages_pending()


def test_wait_says_that_the_client_goes_on(client: SendClient) -> None:
    client.queue_message(Message(b"x"))
    assert client.wait() is True
    client.close()
    assert client.wait() is False


def test_send_all_messages_closes_unless_told_otherwise(broker: Broker) -> None:
    client = SendClient(broker.url + "/q")
    client.queue_message(Message(b"x"))
    assert client.send_all_messages() == [DONE]
    assert client.do_work() is False
    with pytest.raises(ValueError, match="closed"):
        client.open()


def test_do_work_alone_moves_a_message_through(client: SendClient) -> None:
    message = Message(b"x")
    client.queue_message(message)
    seen = [message.state]
    end = time.monotonic() + 10
    while client.messages_pending() and time.monotonic() < end:
        assert client.do_work() is True
        if message.state is not seen[-1]:
            seen.append(message.state)
    assert seen in ([WAITING, SENT, DONE], [WAITING, DONE])


def test_the_helper_sends_one_message(broker: Broker) -> None:
    assert uamqp.send_message(broker.url + "/q", b"x") == [DONE]
    assert uamqp.send_message(broker.url + "/q", Message("y")) == [DONE]
    assert [str(m) for m in broker.wait_for("q", 2)] == ["x", "y"]


def test_the_helper_sends_a_batch_as_what_it_is(broker: Broker) -> None:
    assert uamqp.send_message(broker.url + "/q", BatchMessage([b"a", b"b"])) == [DONE]
    assert [list(m.data) for m in broker.wait_for("q", 1)] == [[b"\0Su\xa0\1a", b"\0Su\xa0\1b"]]
    many = BatchMessage([bytes(600_000)] * 3, multi_messages=True)
    assert uamqp.send_message(broker.url + "/q", many) == [DONE] * 3


def test_queueing_needs_no_open_client_and_no_message_twice(broker: Broker) -> None:
    client = SendClient(broker.url + "/q")
    message = Message(b"x")
    client.queue_message(message)
    assert client.pending_messages == [message] and client.messages_pending()
    client.send_all_messages()
    other = SendClient(broker.url + "/q")
    with pytest.raises(errors.MessageAlreadySettled):
        other.queue_message(message)
    with pytest.raises(TypeError):
        other.queue_message("text")  # type: ignore[arg-type]
    with pytest.raises(errors.MessageAlreadySettled):
        other.send_message(message)
    other.close()


# ---- outcomes


def test_a_rejection_of_a_known_kind_is_not_tried_again(broker: Broker, client: SendClient) -> None:
    broker.script("q", "rejected", condition="amqp:not-allowed", description="not you")
    message = Message(b"x")
    with pytest.raises(errors.ClientMessageError) as caught:
        client.send_message(message)
    assert (caught.value.condition, caught.value.description) == (ErrorCodes.NotAllowed, b"not you")
    assert caught.value.info == {
        "total_messages": 1, "number_failed": 1, "failed_messages": {message: message._response}
    }  # fmt: skip
    assert (message.state, message.retries) == (FAILED, 0)
    assert isinstance(message._response, errors.MessageSendFailed)
    assert message._response.scope == "message" and message._response.retryable is False
    assert isinstance(caught.value.__cause__, errors.MessageSendFailed)


def test_an_unknown_condition_is_tried_again_until_the_policy_has_enough(broker: Broker) -> None:
    seen: list[bytes] = []
    broker.script("q", lambda m: seen.append(m.encode_message()) or "released")  # type: ignore[func-returns-value]
    with SendClient(broker.url + "/q", error_policy=errors.ErrorPolicy(max_retries=2)) as client:
        message = Message(b"x")
        with pytest.raises(errors.ClientMessageError) as caught:
            client.send_message(message)
    assert caught.value.condition is ErrorCodes.UnknownError
    assert (len(seen), message.retries, message.state) == (3, 2, FAILED)


@pytest.mark.parametrize("outcome", ["released", "modified", "rejected"])
def test_a_message_given_back_once_goes_again(broker: Broker, client: SendClient, outcome: str) -> None:
    broker.script("q", outcome, times=1)
    message = Message(b"x")
    client.send_message(message)
    assert (message.state, message.retries) == (DONE, 1)
    assert len(broker.wait_for("q", 1)) == 1


def test_a_settled_disposition_without_a_state_is_a_success(broker: Broker, client: SendClient) -> None:
    broker.script("q", "bare")
    message = Message(b"x")
    client.send_message(message)
    assert message.state is DONE


def test_only_what_failed_is_reported_as_failed(broker: Broker, client: SendClient) -> None:
    broker.script("q", lambda m: "rejected" if str(m) == "bad" else "accepted")
    policy = errors.ErrorPolicy(max_retries=0)
    client._error_policy = policy
    messages = [Message("good"), Message("bad"), Message("good")]
    client.queue_message(*messages)
    assert client.send_all_messages(close_on_done=False) == [DONE, FAILED, DONE]
    assert client.pending_messages == []


def test_backoff_delays_the_resend_and_nothing_else(broker: Broker) -> None:
    class Patient(errors.ErrorPolicy):
        def on_message_error(self, error: Any) -> errors.ErrorAction:
            return errors.ErrorAction(retry=True, backoff=0.3)

    arrived: dict[str, list[float]] = {"first": [], "later": []}

    def answer(message: Message) -> str:
        arrived[str(message)].append(time.monotonic())
        return "released" if str(message) == "first" and len(arrived["first"]) == 1 else "accepted"

    broker.script("q", answer)
    with SendClient(broker.url + "/q", error_policy=Patient()) as client:
        first, later = Message("first"), Message("later")
        client.queue_message(first, later)
        assert client.send_all_messages(close_on_done=False) == [DONE, DONE]
    assert arrived["first"][1] - arrived["first"][0] >= 0.3
    assert arrived["later"][0] < arrived["first"][1]


def test_retries_that_do_not_count_have_no_limit(broker: Broker) -> None:
    class Stubborn(errors.ErrorPolicy):
        def on_message_error(self, error: Any) -> errors.ErrorAction:
            return errors.ErrorAction(retry=True, increment_retries=False)

    broker.script("q", "released", times=20)
    with SendClient(broker.url + "/q", error_policy=Stubborn(max_retries=1)) as client:
        message = Message(b"x")
        client.send_message(message)
    assert (message.state, message.retries) == (DONE, 0)


def test_a_policy_that_fails_fails_the_message_and_not_the_client(broker: Broker) -> None:
    class Broken(errors.ErrorPolicy):
        def on_message_error(self, error: Any) -> errors.ErrorAction:
            raise RuntimeError("no idea")

    broker.script("q", "released", times=1)
    with SendClient(broker.url + "/q", error_policy=Broken()) as client:
        with pytest.raises(errors.ClientMessageError):
            client.send_message(Message(b"x"))
        client.send_message(Message(b"y"))


# ---- settle modes


@pytest.mark.parametrize("mode", [SenderSettleMode.Settled, SenderSettleMode.Mixed])
def test_settled_messages_are_done_without_an_outcome(broker: Broker, mode: SenderSettleMode) -> None:
    with SendClient(broker.url + "/q", send_settle_mode=mode) as client:
        messages = [Message(b"%d" % n) for n in range(3000)]
        client.queue_message(*messages)
        assert client.send_all_messages(close_on_done=False) == [DONE] * 3000
        single = Message(b"x")
        client.send_message(single)
        assert (single.state, single.delivery) == (DONE, Delivery.DELIVERED)
    assert len(broker.wait_for("q", 3001)) == 3001


# ---- callbacks


def test_callbacks_get_result_and_exception_once(broker: Broker, client: SendClient) -> None:
    broker.script("q", lambda m: "rejected" if str(m) == "bad" else "accepted")
    client._error_policy = errors.ErrorPolicy(max_retries=1)
    told: dict[str, list[Any]] = {"good": [], "bad": []}
    for name in ("good", "bad"):
        message = Message(name)
        message.on_send_complete = lambda result, error, name=name: told[name].append((result, error))
        client.queue_message(message)
    client.send_all_messages(close_on_done=False)
    assert told["good"] == [(MessageSendResult.Ok, None)]
    ((result, error),) = told["bad"]
    assert result is MessageSendResult.Error and isinstance(error, errors.MessageSendFailed)


def test_a_callback_that_raises_is_logged_and_harms_nothing(
    client: SendClient, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(result: Any, error: Any) -> None:
        raise RuntimeError("callback trouble")

    message = Message(b"x")
    message.on_send_complete = bad
    client.send_message(message)
    assert message.state is DONE
    assert "callback trouble" in caplog.text
    client.send_message(Message(b"y"))


def test_a_callback_of_a_batch_is_called_for_every_part(client: SendClient) -> None:
    told: list[Any] = []
    batch = BatchMessage([b"x" * 600_000] * 3, multi_messages=True)
    batch.on_send_complete = lambda *args: told.append(args)
    client.send_message(batch)
    assert told == [(MessageSendResult.Ok, None)] * 3


@pytest.mark.parametrize("given", [{}, {"multi_messages": True}, {"annotations": {"a": 1}}], ids=str)
def test_a_batch_of_nothing_is_not_sent(broker: Broker, client: SendClient, given: dict[str, Any]) -> None:
    with pytest.raises(errors.ClientMessageError, match="batch of nothing") as caught:
        client.send_message(BatchMessage([], **given))
    assert caught.value.condition is ErrorCodes.ClientError
    client.queue_message(BatchMessage([], **given), Message(b"x"))
    assert client.send_all_messages(close_on_done=False) == [FAILED, DONE]
    assert [str(m) for m in broker.wait_for("q", 1)] == ["x"]


def test_a_batch_that_cannot_be_made_whole_leaves_nothing_in_the_queue(broker: Broker, client: SendClient) -> None:
    def items() -> Any:
        yield from [b"x" * 600_000] * 3
        raise RuntimeError("no more")

    large = [b"x" * 600_000, b"x" * 600_000, b"x" * 2_000_000]
    for call in (client.queue_message, client.send_message):
        with pytest.raises(errors.MessageContentTooLarge):
            call(BatchMessage(large, multi_messages=True))
        with pytest.raises(RuntimeError, match="no more"):
            call(BatchMessage(items(), multi_messages=True))
    assert client.pending_messages == []
    client.send_message(Message(b"y"))
    assert [str(m) for m in broker.wait_for("q", 1)] == ["y"]


@pytest.mark.blocking("waits in a callback")
def test_a_callback_may_send_and_wait(broker: Broker, client: SendClient) -> None:
    inner = Message(b"inner")
    order: list[str] = []
    inner.on_send_complete = lambda *args: order.append("inner")

    def send_more(result: Any, error: Any) -> None:
        client.send_message(inner)
        assert inner.state is DONE
        order.append("outer")

    outer = Message(b"outer")
    outer.on_send_complete = send_more
    client.send_message(outer)
    client.wait()
    assert order == ["outer", "inner"]  # never one callback inside another
    assert len(broker.wait_for("q", 2)) == 2


@pytest.mark.blocking("waits in a callback")
def test_a_callback_may_close(broker: Broker) -> None:
    client = SendClient(broker.url + "/q")
    message = Message(b"x")
    message.on_send_complete = lambda *args: client.close()
    client.send_message(message)
    assert message.state is DONE
    assert client.do_work() is False


# ---- what is too large, or cannot be sent


def test_a_message_above_the_peers_limit_fails_here(broker: Broker) -> None:
    broker.script("q", max_message_size=1000)
    with SendClient(broker.url + "/q") as client:
        big, small = Message(b"x" * 1001), Message(b"y" * 900)
        with pytest.raises(errors.ClientMessageError) as caught:
            client.send_message(big)
        assert isinstance(caught.value, errors.MessageSendFailed)
        assert isinstance(caught.value, errors.MessageContentTooLarge)
        assert caught.value.condition is ErrorCodes.LinkMessageSizeExceeded
        assert (big.state, big.delivery, big.retries) == (FAILED, Delivery.NOT_DELIVERED, 0)
        client.send_message(small)
        assert client.message_handler._link.peer_max_message_size == 1000
    assert [str(m)[0] for m in broker.wait_for("q", 1)] == ["y"]


def test_too_large_ones_do_not_hold_up_the_others(broker: Broker, client: SendClient) -> None:
    broker.script("q", max_message_size=1000)
    messages = [Message(b"x" * (2000 if n % 3 == 0 else 10)) for n in range(50)]
    client.queue_message(*messages)
    assert client.send_all_messages(close_on_done=False) == [FAILED if n % 3 == 0 else DONE for n in range(50)]


def test_our_own_max_message_size_is_only_announced(broker: Broker) -> None:
    with SendClient(broker.url + "/q", max_message_size=1000) as client:
        client.send_message(Message(b"x" * 5000))
    assert len(broker.wait_for("q", 1)) == 1


def test_what_has_no_amqp_type_fails_its_message_only(broker: Broker, client: SendClient) -> None:
    messages = [Message(b"a"), Message(b"b", application_properties={"k": object()}), Message(b"c")]
    client.queue_message(*messages)
    assert client.send_all_messages(close_on_done=False) == [DONE, FAILED, DONE]
    response = messages[1]._response
    assert isinstance(response, errors.ClientMessageError) and response.condition is ErrorCodes.ClientError
    assert "object" in response.description and messages[1].delivery is Delivery.NOT_DELIVERED
    assert [str(m) for m in broker.wait_for("q", 2)] == ["a", "c"]


# ---- time-outs


def test_msg_timeout_counts_while_waiting_for_credit(broker: Broker) -> None:
    broker.script("q", credit=0)
    with SendClient(broker.url + "/q", msg_timeout=200) as client:
        message = Message(b"x")
        told: list[Any] = []
        message.on_send_complete = lambda *args: told.append(args)
        start = time.monotonic()
        with pytest.raises(errors.ClientMessageError):
            client.send_message(message)
        took = time.monotonic() - start
        assert 0.19 <= took < 3
        assert (message.state, message.delivery) == (FAILED, Delivery.NOT_DELIVERED)
        assert isinstance(message._response, TimeoutError)
        assert [result for result, _ in told] == [MessageSendResult.Timeout]
        assert client.pending_messages == [] and not client.messages_pending()


def test_msg_timeout_counts_from_handing_over_to_the_outcome(broker: Broker) -> None:
    broker.script("q", "none", times=1)
    with SendClient(broker.url + "/q", msg_timeout=200) as client:
        message = Message(b"x")
        with pytest.raises(errors.ClientMessageError) as caught:
            client.send_message(message)
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert caught.value.delivery is Delivery.UNKNOWN
        assert (message.state, message.delivery) == (FAILED, Delivery.UNKNOWN)
        client._msg_timeout = 0
        client.send_message(Message(b"y"))  # the link is as good as before


def test_msg_timeout_counts_from_queueing(broker: Broker) -> None:
    with SendClient(broker.url + "/q", msg_timeout=50) as client:
        while not client.client_ready():
            continue
        late, now = Message(b"late"), None
        client.queue_message(late)
        end = late.idle_time / 1000 + 0.06
        while time.monotonic() < end:
            continue
        now = Message(b"now")
        client.queue_message(now)
        assert client.send_all_messages(close_on_done=False) == [FAILED, DONE]
    assert [str(m) for m in broker.wait_for("q", 1)] == ["now"]


def test_a_timeout_may_be_set_for_one_message(broker: Broker) -> None:
    broker.script("q", credit=0)
    with SendClient(broker.url + "/q") as client:
        forever = Message(b"forever")
        client.queue_message(forever)
        client._msg_timeout = 100
        with pytest.raises(errors.ClientMessageError):
            client.send_message(Message(b"short"))
        client._msg_timeout = 0
        assert client.pending_messages == [forever]
        broker.unscript("q")


def test_an_expired_message_in_mid_queue_is_skipped(broker: Broker) -> None:
    broker.script("q", credit=0)
    with SendClient(broker.url + "/q") as client:
        before, after = Message(b"before"), Message(b"after")
        client.queue_message(before)
        client._msg_timeout = 50
        short = Message(b"short")
        client.queue_message(short)
        client._msg_timeout = 0
        client.queue_message(after)
        end = time.monotonic() + 10
        while short.state is not FAILED and time.monotonic() < end:
            client.do_work()
        assert client.pending_messages == [before, after]
        assert [message.state for message in (before, short, after)] == [WAITING, FAILED, WAITING]


# ---- constructor


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="'colour'.*'size'"):
        SendClient("amqp://localhost/q", size=1, colour=2)


@pytest.mark.parametrize("target", ["amqps://localhost", "q", "", 5, None, "amqps://:5671/q"])
def test_a_bad_address_is_a_value_error(target: Any) -> None:
    with pytest.raises(ValueError):
        SendClient(target)


def test_credentials_and_port_of_the_url_count() -> None:
    client = SendClient("amqps://user:p%40ss+word@example.com:1234/q")
    auth = client._auth
    assert isinstance(auth, authentication.SASLPlain)
    assert (auth.username, auth.password, auth._port) == (b"user", b"p@ss word", 1234)
    client = SendClient("amqps://example.com:1234/q", auth=authentication.SASLAnonymous("other"))
    assert client._auth._port == 1234
    client = SendClient("amqps://example.com:1234/q", auth=authentication.SASLAnonymous("other", port=9))
    assert client._auth._port == 9


def test_targets_and_addresses_of_all_kinds_reach_the_same_queue(broker: Broker) -> None:
    host = broker.url
    auth = authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False)
    for client in (
        SendClient(host + "/q"),
        SendClient((host + "/q").encode()),
        SendClient(Target(host + "/q")),
        SendClient(host, address="q"),
        SendClient(host + "/elsewhere", address="/q"),
        SendClient(Target("q"), auth=auth),
    ):
        with client:
            client.send_message(Message(b"x"))
    assert len(broker.wait_for("q", 6)) == 6
    assert broker.queues == ["q"]


def test_steps_before_open_say_so(broker: Broker) -> None:
    client = SendClient(broker.url + "/q")
    for call in (client.do_work, client.auth_complete, client.client_ready, client.wait):
        with pytest.raises(AttributeError, match="open"):
            call()


def test_close_is_for_every_state_and_for_twice(broker: Broker) -> None:
    never = SendClient(broker.url + "/q")
    never.close()
    opened = SendClient(broker.url + "/q")
    opened.open()
    opened.close()
    opened.close()
    assert opened.do_work() is False


def test_pending_messages_survive_close_and_go_to_another_client(broker: Broker) -> None:
    broker.script("q", "none")
    first = SendClient(broker.url + "/q")
    first.open()
    messages = [Message(b"%d" % n) for n in range(3)]
    first.queue_message(*messages)
    while messages[-1].state is not SENT:
        first.do_work()
    told: list[Any] = []
    messages[0].on_send_complete = lambda *args: told.append(args)
    first.close()
    assert first.pending_messages == messages and told == []
    assert [m.state for m in messages] == [WAITING] * 3
    assert [m.delivery for m in messages] == [Delivery.UNKNOWN] * 3
    assert [m.retries for m in messages] == [1] * 3
    broker.unscript("q")
    with SendClient(broker.url + "/q") as second:
        second.queue_message(*first.pending_messages)
        assert second.send_all_messages() == [DONE] * 3


def test_clients_may_share_a_connection_that_is_open_already(broker: Broker) -> None:
    auth = authentication.SASLAnonymous("localhost", port=broker.port, use_tls=False)
    with Connection("localhost", auth) as connection:
        one, two = SendClient(broker.url + "/one"), SendClient(broker.url + "/two")
        one.open(connection=connection)
        one.send_message(Message(b"1"))
        two.open(connection=connection)
        two.send_message(Message(b"2"))
        one.close()
        two.send_message(Message(b"2"))
        with pytest.raises(ValueError, match="shared"):
            two.redirect(None, None)
        two.close()
        assert connection._failure is None
        three = SendClient(broker.url + "/one")
        three.open(connection=connection)
        three.send_message(Message(b"3"))
        three.close()
    assert (len(broker.wait_for("one", 2)), len(broker.wait_for("two", 2))) == (2, 2)


def test_private_names_in_use_are_there(broker: Broker, client: SendClient) -> None:
    client.send_message(Message(b"x"))
    assert isinstance(client._counter.get_current_ms(), (int, float))
    for name in (
        "_connection", "_session", "_auth", "_name", "_keep_alive_thread", "_ext_connection", "_remote_address",
        "_error_policy", "_shutdown", "_link_properties", "_max_message_size", "_debug_trace", "_encoding",
        "_msg_timeout",
    ):  # fmt: skip
        assert hasattr(client, name), name
    assert client._pending_messages == []
    client._pending_messages = [message := Message(b"y")]
    assert client.pending_messages == [message]
    client.wait()
    assert message.state is DONE and client.message_handler.name.startswith(b"sender-link-")
