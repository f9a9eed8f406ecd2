"""Underscore names that published packages reach for, each with what they do with it. They need not be installed here."""

from __future__ import annotations

import functools
import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest

import uamqp_cffi
from uamqp_cffi import BatchMessage, Message, ReceiveClient, SendClient, Session, Target, c_uamqp, errors, types
from uamqp_cffi.authentication import SASLAnonymous
from uamqp_cffi.broker import Broker
from uamqp_cffi.connection import Connection
from uamqp_cffi.constants import MessageReceiverState, MessageSenderState, MessageState
from uamqp_cffi.message import DataBody, SequenceBody, ValueBody

pytest_plugins = "uamqp_cffi.pytest_plugin"


@pytest.fixture
def broker(amqp_broker: Broker) -> Iterator[Broker]:
    yield amqp_broker


@pytest.fixture
def sender(broker: Broker) -> Iterator[SendClient]:
    with SendClient(broker.url + "/q") as client:
        yield client


@pytest.fixture
def receiver(broker: Broker) -> Iterator[ReceiveClient]:
    with ReceiveClient(broker.url + "/q") as client:
        yield client


def ready(client: Any) -> None:
    while not client.client_ready():
        client.do_work()


# ---- azure-eventhub -------------------------------------------------------------------------------------------------


def test_eventhub_asks_the_clock_of_a_client_for_milliseconds(receiver: ReceiveClient) -> None:
    first = receiver._counter.get_current_ms()
    deadline = time.monotonic() + 5
    while receiver._counter.get_current_ms() == first:
        assert time.monotonic() < deadline
    assert 0 < receiver._counter.get_current_ms() - first < 5000


def test_eventhub_asks_a_link_for_the_peers_limit(broker: Broker, sender: SendClient) -> None:
    ready(sender)
    assert sender.message_handler._link.peer_max_message_size > 0


def test_eventhub_appends_to_the_list_it_gave_to_a_batch() -> None:
    data: list[Any] = []
    batch = BatchMessage(data=data)
    assert batch._body_gen is data
    batch._body_gen.append(Message(b"late"))
    (made,) = batch.gather()
    assert list(made.get_data()) == [Message(b"late").encode_message()]


def test_eventhub_makes_a_receiver_stream_into_its_callback(broker: Broker, receiver: ReceiveClient) -> None:
    got: list[Message] = []
    receiver._streaming_receive = True
    receiver._message_received_callback = got.append
    broker.put("q", b"x")
    deadline = time.monotonic() + 10
    while not got:
        assert time.monotonic() < deadline
        receiver.do_work()
    assert str(got[0]) == "x"
    assert receiver._received_messages.qsize() == 0


def test_eventhub_compares_the_state_of_a_connection(sender: SendClient) -> None:
    ready(sender)
    assert sender._connection._state is c_uamqp.ConnectionState.OPENED
    ended = (c_uamqp.ConnectionState.CLOSE_RCVD, c_uamqp.ConnectionState.CLOSE_SENT, c_uamqp.ConnectionState.END)
    connection = sender._connection
    sender.close()
    assert connection._state in ended


def test_eventhub_1_steps_a_client_without_do_work(sender: SendClient, receiver: ReceiveClient) -> None:
    for client in (sender, receiver):
        deadline = time.monotonic() + 10
        while not client._client_ready():
            assert time.monotonic() < deadline
            client._connection.work()
    assert sender._message_sender.get_state() is MessageSenderState.Open
    assert receiver._message_receiver.get_state() is MessageReceiverState.Open


def test_eventhub_1_looks_for_the_keep_alive_thread(broker: Broker) -> None:
    client = SendClient(broker.url + "/q", keep_alive_interval=1)
    assert client._keep_alive_thread is None
    client.open()
    client.send_message(Message(b"x"))
    client.close()


# ---- azure-servicebus -----------------------------------------------------------------------------------------------


def test_servicebus_sets_the_time_out_of_each_send(broker: Broker, sender: SendClient) -> None:
    broker.script("q", "none")
    sender._msg_timeout = 50
    with pytest.raises(errors.ClientMessageError) as caught:
        sender.send_message(Message(b"x"))
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_servicebus_empties_the_pending_messages(sender: SendClient) -> None:
    sender.queue_message(Message(b"x"))
    assert len(sender._pending_messages) == 1
    sender._pending_messages = []
    assert (sender._pending_messages, sender.pending_messages) == ([], [])


def test_servicebus_uses_the_queue_of_received_messages(broker: Broker, receiver: ReceiveClient) -> None:
    assert isinstance(receiver._received_messages, queue.Queue)
    broker.put("q", b"x")
    deadline = time.monotonic() + 10
    while receiver._received_messages.empty():
        assert time.monotonic() < deadline
        receiver.do_work()
    assert receiver._received_messages.qsize() == 1
    message = receiver._received_messages.get()
    receiver._received_messages.task_done()
    message.accept()
    assert receiver._received_messages.empty()


def test_servicebus_replaces_what_takes_messages(broker: Broker, receiver: ReceiveClient) -> None:
    got: list[tuple[str, Message]] = []

    def take(who: str, message: Message) -> None:
        receiver._was_message_received = True
        got.append((who, message))

    receiver._message_received = functools.partial(take, "me")  # type: ignore[method-assign]
    broker.put("q", b"x")
    deadline = time.monotonic() + 10
    while not got:
        assert time.monotonic() < deadline
        receiver.do_work()
    assert [(who, str(message)) for who, message in got] == [("me", "x")]


def test_servicebus_changes_the_time_out_around_a_call(receiver: ReceiveClient) -> None:
    kept = receiver._timeout
    receiver._timeout = 50
    start = time.monotonic()
    assert receiver.receive_message_batch(1) == []
    assert time.monotonic() - start < 5
    receiver._timeout = kept


def test_servicebus_shuts_a_receiver_down(receiver: ReceiveClient) -> None:
    receiver._shutdown = True
    assert receiver.do_work() is False


def test_servicebus_makes_the_receiver_of_a_client_itself(broker: Broker) -> None:
    client = ReceiveClient(broker.url + "/q", prefetch=7)
    client.open()
    client.message_handler = client.receiver_type(
        client._session,
        client._remote_address,
        client._name,
        on_message_received=client._message_received,
        name=b"mine",
        debug=client._debug_trace,
        prefetch=client._prefetch,
        max_message_size=client._max_message_size,
        properties=client._link_properties,
        error_policy=client._error_policy,
        encoding=client._encoding,
    )
    client.message_handler.open()
    while client.message_handler.get_state() is not MessageReceiverState.Open:
        client._connection.work()
    broker.put("q", b"x")
    assert [str(message) for message in client.receive_message_batch(1)] == ["x"]
    assert client.message_handler.name == b"mine"
    client.close()


def test_servicebus_7_8_looks_at_the_body_of_a_message() -> None:
    for body, cls, kind in (
        (b"x", DataBody, "Data"),
        ([[1]], SequenceBody, "Sequence"),
        (5, ValueBody, "Value"),
    ):
        wanted: Any = uamqp_cffi.MessageBodyType[kind]
        message = Message(body, body_type=wanted)
        assert isinstance(message._body, cls)
        assert message._body.type is wanted.value
    assert list(Message(b"x")._body.data) == [b"x"]  # type: ignore[union-attr]


def test_servicebus_7_15_makes_a_type_of_its_own() -> None:
    class Timestamp(types.AMQPType):
        def _c_wrapper(self, value: Any) -> Any:
            return c_uamqp.timestamp_value(value)

    made = Timestamp(1000)
    assert (made.value, made.c_data.type) == (1000, c_uamqp.AMQPType.TimestampValue)
    message = Message(b"x", annotations={"at": made})
    assert Message.decode_from_bytes(message.encode_message()).annotations == {b"at": 1000}


def test_servicebus_compares_conditions_with_codes_and_bytes(broker: Broker, sender: SendClient) -> None:
    broker.script("q", "rejected", condition="amqp:not-found")
    with pytest.raises(errors.MessageException) as caught:
        sender.send_message(Message(b"x"))
    assert caught.value.condition == uamqp_cffi.constants.ErrorCodes.NotFound
    error = errors.process_link_error(errors.ErrorPolicy(), b"com.microsoft:session-cannot-be-locked")
    assert error.condition == b"com.microsoft:session-cannot-be-locked"


# ---- names that other users of uamqp were seen with -----------------------------------------------------------------


def test_a_client_has_its_connection_session_auth_and_name(broker: Broker) -> None:
    auth = SASLAnonymous("127.0.0.1", int(broker.url.rpartition(":")[2]), use_tls=False)
    with SendClient(broker.url + "/q", auth=auth, client_name="baker") as client:
        assert isinstance(client._connection, Connection)
        assert isinstance(client._session, Session)
        assert (client._auth, client._name, client._ext_connection) == (auth, "baker", False)


def test_a_connection_has_its_error_lock_and_native_self(broker: Broker, sender: SendClient) -> None:
    ready(sender)
    connection = sender._connection
    assert (connection._error, connection._cbs, connection._sessions) == (None, None, connection._sessions)
    connection.lock()
    assert connection._lock.locked()
    connection.release()
    assert connection._conn.remote_max_frame_size == connection.remote_max_frame_size
    broker.drop_connections()
    with pytest.raises(errors.AMQPConnectionError) as caught:
        while True:
            sender.do_work()
    assert str(connection._error) == str(caught.value)


def test_a_session_has_its_connection_and_itself(sender: SendClient) -> None:
    session = sender._session
    assert (session._connection, session._session, session._mgmt_links) == (sender._connection, session, {})


def test_a_link_has_its_session_and_no_error(sender: SendClient, receiver: ReceiveClient) -> None:
    for client, end in ((sender, "_sender"), (receiver, "_receiver")):
        ready(client)
        handler = client.message_handler
        assert (handler._session, handler._error) == (client._session, None)
        assert getattr(handler, end) is handler._link


def test_a_received_message_has_its_settler_and_response(broker: Broker) -> None:
    broker.put("q", b"x")
    with ReceiveClient(broker.url + "/q", auto_complete=False) as client:
        (message,) = client.receive_message_batch(1)
        assert (message._response, message._encoding) == (None, "UTF-8")
        assert callable(message._settler)
        assert bytes(message._message) == Message(b"x").encode_message()
        message.accept()
        assert isinstance(message._response, errors.MessageAccepted)
        assert message.state is MessageState.ReceivedSettled


def test_an_address_has_its_native_terminus() -> None:
    target = Target("amqps://host/q")
    assert bytes(target._c_address) == b"amqps://host/q"
    assert (type(target._address), target._address.address) == (c_uamqp.cTarget, b"amqps://host/q")


def test_the_platform_can_be_set_up() -> None:
    uamqp_cffi._Platform.initialize()
    assert uamqp_cffi._Platform.initialized
    uamqp_cffi._Platform.deinitialize()
    assert not uamqp_cffi._Platform.initialized
