"""What users subclass and assign is used, never bypassed: one subclass per name."""

from __future__ import annotations

from typing import Any

import pytest

from uamqp_cffi import AMQPClient, Connection, Message, MessageSender, SendClient, Session, errors
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, MessageSenderState, MessageSendResult, MessageState

DONE = MessageState.SendComplete


def send_three(client: SendClient) -> list[MessageState]:
    client.queue_message(Message(b"1"), Message(b"2"))
    client.send_message(Message(b"3"))
    return client.send_all_messages()


class Noted:
    """Counts calls by name."""

    def __init__(self) -> None:
        self.calls: list[str] = []


@pytest.mark.parametrize("kind", ["sender_type", "session_type", "connection_type"])
def test_types_are_used(broker: Broker, kind: str) -> None:
    made: list[Any] = []

    class MySender(MessageSender):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append("sender_type")
            super().__init__(*args, **kwargs)

    class MySession(Session):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append("session_type")
            super().__init__(*args, **kwargs)

    class MyConnection(Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append("connection_type")
            super().__init__(*args, **kwargs)

    client = SendClient(broker.url + "/q")
    setattr(client, kind, {"sender_type": MySender, "session_type": MySession, "connection_type": MyConnection}[kind])
    client.send_message(Message(b"x"))
    client.close()
    assert made == [kind]
    assert len(broker.wait_for("q", 1)) == 1


@pytest.mark.parametrize("name", ["do_work", "client_ready", "auth_complete", "_client_ready", "_client_run"])
@pytest.mark.parametrize("how", ["subclass", "instance"])
def test_overridden_steps_are_called(broker: Broker, name: str, how: str) -> None:
    calls: list[str] = []

    class Mine(SendClient):
        pass

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return getattr(SendClient, name)(self, *args, **kwargs)

    client = Mine(broker.url + "/q")
    if how == "subclass":
        setattr(Mine, name, step)
    else:
        setattr(client, name, step.__get__(client))
    states = send_three(client)
    assert set(states) <= {DONE} and calls
    assert [str(m) for m in broker.wait_for("q", 3)] == ["1", "2", "3"]


def test_an_overridden_do_work_may_end_the_loop(broker: Broker) -> None:
    class Mine(SendClient):
        left = 3

        def do_work(self, **kwargs: Any) -> Any:
            self.left -= 1
            if not self.left:
                self.close()
                return False
            return super().do_work(**kwargs)

    broker.script("q", credit=0)
    client = Mine(broker.url + "/q")
    message = Message(b"x")
    client.queue_message(message)
    assert client.send_all_messages() == [MessageState.WaitingToBeSent]


def test_an_overridden_gather_is_asked(broker: Broker) -> None:
    class Twice(Message):
        def gather(self) -> Any:
            return [Message(b"one"), Message(b"two")]

    with SendClient(broker.url + "/q") as client:
        client.queue_message(Twice(b"never"))
        client.send_message(Twice(b"never"))
        client.wait()
    assert [str(m) for m in broker.wait_for("q", 4)] == ["one", "two"] * 2


def test_an_overridden_encode_message_is_asked(broker: Broker) -> None:
    class Loud(Message):
        def encode_message(self) -> bytes:
            return super().encode_message().replace(b"quiet", b"LOUD!")

    with SendClient(broker.url + "/q") as client:
        client.queue_message(Loud(b"quiet"), Message(b"quiet"))
        client.send_message(Loud(b"quiet"))
        client.wait()
    assert sorted(str(m) for m in broker.wait_for("q", 3)) == ["LOUD!", "LOUD!", "quiet"]


def test_an_overridden_send_is_asked_for_every_message(broker: Broker) -> None:
    sent: list[str] = []

    class Mine(MessageSender):
        def send(self, message: Message, callback: Any, timeout: float = 0) -> bool:
            sent.append(str(message))
            return super().send(message, callback, timeout=timeout)

    told: list[Any] = []
    client = SendClient(broker.url + "/q")
    client.sender_type = Mine
    message = Message(b"0")
    message.on_send_complete = lambda *args: told.append(args)
    client.queue_message(message)
    assert set(send_three(client)) <= {DONE}
    assert sent == ["0", "1", "2", "3"] and told == [(MessageSendResult.Ok, None)]
    assert [str(m) for m in broker.wait_for("q", 4)] == ["0", "1", "2", "3"]


def test_outcomes_reach_messages_sent_by_an_overridden_send(broker: Broker) -> None:
    class Mine(MessageSender):
        def send(self, message: Message, callback: Any, timeout: float = 0) -> bool:
            return super().send(message, callback, timeout=timeout)

    broker.script("q", "released", times=2)
    client = SendClient(broker.url + "/q")
    client.sender_type = Mine
    message = Message(b"x")
    client.send_message(message)
    assert (message.state, message.retries) == (DONE, 2)
    broker.script("q", "none")
    client._msg_timeout = 100
    with pytest.raises(Exception, match="msg_timeout"):
        client.send_message(Message(b"late"))
    client.close()


def test_a_send_that_refuses_leaves_the_message_waiting(broker: Broker) -> None:
    class Mine(MessageSender):
        busy = 3

        def send(self, message: Message, callback: Any, timeout: float = 0) -> bool:
            Mine.busy -= 1
            return Mine.busy < 0 and super().send(message, callback, timeout=timeout)

    client = SendClient(broker.url + "/q")
    client.sender_type = Mine
    message = Message(b"x")
    client.queue_message(message)
    while client.messages_pending():
        client.open()
        client.do_work()
    assert message.state is DONE and message.retries == 0
    client.close()


def test_on_state_changed_is_called_and_keeps_the_state(broker: Broker) -> None:
    seen: list[Any] = []

    class Mine(MessageSender):
        def on_state_changed(self, previous_state: Any, new_state: Any) -> None:
            seen.append((previous_state, new_state))
            super().on_state_changed(previous_state, new_state)

    client = SendClient(broker.url + "/q")
    client.sender_type = Mine
    client.send_message(Message(b"x"))
    handler = client.message_handler
    client.close()
    s = MessageSenderState
    assert seen == [(s.Idle, s.Opening), (s.Opening, s.Open), (s.Open, s.Closing), (s.Closing, s.Idle)]
    assert handler._state is s.Idle


def test_a_plain_client_is_ready_at_once_and_can_be_stepped(broker: Broker) -> None:
    client = AMQPClient(broker.url + "/q")
    with client:
        assert client.client_ready() is True
        for _ in range(20):
            assert client.do_work() is None
        assert client._connection._opened
    assert client.do_work() is False


def test_a_time_out_with_an_overridden_send_is_told_as_one(broker: Broker) -> None:
    class Sender(MessageSender):
        def send(self, *args: Any, **kwargs: Any) -> bool:
            return super().send(*args, **kwargs)

    broker.script("q", "none")
    with SendClient(broker.url + "/q") as client:
        client.sender_type = Sender
        with pytest.raises(errors.MessageTimeout) as caught:
            client.send_message(Message(b"x"), timeout=0.05)
        assert caught.value.delivery is Delivery.UNKNOWN
