"""Management requests against the embedded broker's `$management`, and against peers that do not play along."""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Any

import pytest

from uamqp_cffi import AMQPClient, Connection, Message, SendClient, Session
from uamqp_cffi._core.engine import records as r
from uamqp_cffi.authentication import SASLAnonymous
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import Delivery, MessageState, MgmtOpenStatus
from uamqp_cffi.errors import AMQPConnectionError, LinkDetach, MessageHandlerError, MessageSendFailed, RequestTimeout
from uamqp_cffi.message import MessageProperties
from uamqp_cffi.mgmt_operation import MgmtOperation

pytestmark = pytest.mark.both_drivers


@pytest.fixture
def client(broker: Broker) -> Any:
    with SendClient(broker.url + "/q") as made:
        yield made


def body(message: Message) -> Any:
    return message.value if message.value is not None else str(message)


FIELDS = {"status_code_field": b"statusCode", "description_fields": b"statusDescription"}


def test_a_request_is_answered(broker: Broker, client: SendClient) -> None:
    broker.answer("PING", 200, "fine", {"pong": 1})
    answer = client.mgmt_request(Message(b"x"), b"PING", op_type=b"t", node=b"$management")
    assert isinstance(answer, Message) and answer.state is MessageState.ReceivedSettled
    assert answer.value == {b"pong": 1}
    assert answer.application_properties[b"statusCode"] == 200  # type: ignore[index]


def test_a_callback_gets_status_message_and_description(broker: Broker, client: SendClient) -> None:
    broker.answer("PING", 404, "not here")
    result = client.mgmt_request(Message(b"x"), "PING", callback=lambda *args: args)
    status, message, description = result
    assert (status, description) == (404, b"not here") and isinstance(message, Message)


def test_a_status_of_failure_is_logged_and_returned(
    broker: Broker, client: SendClient, caplog: pytest.LogCaptureFixture
) -> None:
    broker.answer("PING", 500, "broken")
    client.mgmt_request(Message(b"x"), "PING")
    assert "500" in caplog.text and "broken" in caplog.text


def test_a_client_without_a_link_can_ask(broker: Broker) -> None:
    with AMQPClient(broker.url + "/$management") as client:
        assert client.client_ready()
        assert client.mgmt_request(Message(b"x"), "READ", timeout=5000) is not None


def test_it_must_be_open(broker: Broker) -> None:
    with pytest.raises(AttributeError, match="open"):
        SendClient(broker.url + "/q").mgmt_request(Message(b"x"), "READ")


def test_the_users_message_is_left_alone_and_may_be_used_again(peer: Any) -> None:
    answering(peer)
    message = Message(b"x", properties=MessageProperties(subject="s"), application_properties={"mine": 1})
    plain = Message(b"y")
    with SendClient(peer.url) as client:
        for one in (message, message, plain):
            client.mgmt_request(one, b"OP", op_type="T")
    assert message.application_properties == {"mine": 1}
    assert message.properties is not None and message.properties.message_id is None
    assert plain._raw == b"y"
    requests = [Message._received(d.payload) for d in peer.wait(r.Delivery, 3)]
    assert [m.properties.message_id for m in requests] == [0, 1, 2]  # type: ignore[union-attr]
    assert requests[0].properties.subject == b"s"  # type: ignore[union-attr]
    assert requests[0].application_properties == {b"mine": 1, b"operation": b"OP", b"type": b"T"}
    assert requests[2].application_properties == {b"operation": b"OP", b"type": b"T"} and str(requests[2]) == "y"


def answering(peer: Any, fields: dict[str, Any] | None = None, order: Any = None) -> None:
    """Have the scripted peer answer requests: attach what is asked, echo the message-id."""
    held: list[r.Delivery] = []

    def receiver(p: Any, sender: int) -> int:
        """The link of the same pair on which the client listens."""
        name = p.links[sender].fields["name"].replace("-sender", "-receiver")
        return next(link for link, attach in reversed(p.links.items()) if attach.fields["name"] == name)

    def answer(p: Any, delivery: r.Delivery) -> None:
        request = Message._received(delivery.payload)
        assert request.properties is not None
        reply = Message(
            request.application_properties[b"operation"],  # type: ignore[index]
            properties=MessageProperties(correlation_id=request.properties.message_id),
            application_properties={"statusCode": 200} if fields is None else fields,
        )
        encoded = reply.encode_message()
        from array import array

        p.engine.send_messages(receiver(p, delivery.link), encoded, array("I", (len(encoded),)))

    def on_delivery(p: Any, delivery: r.Delivery) -> None:
        p.answer(delivery)
        held.append(delivery)
        if order is None or len(held) == len(order):
            for index in order or range(len(held)):
                answer(p, held[index])
            held.clear()

    def on_attach(p: Any, record: r.Attach) -> None:
        credit, p.credit = p.credit, p.credit if record.fields["role"] is False else 0
        p.attach(record)
        p.credit = credit

    peer.on[r.Delivery] = on_delivery
    peer.on[r.Attach] = on_attach


def test_the_links_of_a_node_are_made_once_and_as_expected(peer: Any) -> None:
    answering(peer)
    with SendClient(peer.url) as client:
        for node in (None, "$management", b"$management"):
            client.mgmt_request(Message(b"x"), b"OP", node=node)
        client.mgmt_request(Message(b"x"), b"OP", node="other")
    attaches = [a.fields for a in peer.wait(r.Attach, 4)]
    assert [a["name"] for a in attaches] == [
        "$management-sender", "$management-receiver", "other-sender", "other-receiver",
    ]  # fmt: skip
    for a in attaches[:2]:
        assert a["source"].value == a["target"].value == ["$management"]
        assert a["snd_settle_mode"] == 0 and a["max_message_size"] is None
    assert peer.wait(r.Credit)[0].credit == 10_000
    assert len(peer.wait(r.Detach, 4)) == 4


@pytest.mark.parametrize("which", ["-sender", "-receiver", ""])
def test_links_that_the_peer_gave_up_are_attached_anew(peer: Any, which: str) -> None:
    """Both or one of them: the other is of no use any more, and holds its name."""
    answering(peer)
    with SendClient(peer.url, connect_timeout=3) as client:
        assert str(client.mgmt_request(Message(b"x"), b"OP", timeout=3000)) == "OP"
        give_up(peer, which)
        limit = time.monotonic() + 10
        while client._session._mgmt_links and time.monotonic() < limit:
            client.do_work()
        assert str(client.mgmt_request(Message(b"x"), b"OP", timeout=3000)) == "OP"
    names = [a.fields["name"] for a in peer.records(r.Attach)]
    assert names.count("$management-sender") == names.count("$management-receiver") == 2
    kinds = [type(record) for record in peer.got if type(record) in (r.Attach, r.Detach)]
    assert kinds[:5].count(r.Detach) == 2  # before the names came again: no two links had the same one


@pytest.mark.blocking("it looks at what nobody has taken in yet")
def test_a_request_does_not_go_to_links_that_are_known_to_be_gone(peer: Any) -> None:
    answering(peer)
    with SendClient(peer.url, connect_timeout=3) as client:
        client.mgmt_request(Message(b"x"), b"OP", timeout=3000)
        give_up(peer, "")
        limit = time.monotonic() + 10
        while len(client._session._inbox.records) < 2 and time.monotonic() < limit:
            client._connection._step(0.1)
        assert str(client.mgmt_request(Message(b"x"), b"OP", timeout=3000)) == "OP"


@pytest.mark.parametrize("which", ["-sender", "-receiver", ""])
def test_a_request_after_idle_links_were_taken_away_makes_new_ones(peer: Any, which: str) -> None:
    """Nobody has read that they are gone."""
    answering(peer)
    with SendClient(peer.url, connect_timeout=3) as client:
        client.mgmt_request(Message(b"x"), b"OP", timeout=3000)
        give_up(peer, which)
        connection = client._connection
        sock = connection._sock
        assert select.select([sock if isinstance(sock, socket.socket) else sock._sock], [], [], 10)[0]
        connection._looked_at = connection._turned_at = 0.0
        assert str(client.mgmt_request(Message(b"x"), b"OP", timeout=3000)) == "OP"


def give_up(peer: Any, which: str) -> None:
    """Have the peer detach the management links whose names end so."""

    def detach() -> None:
        for link, attach in list(peer.links.items()):
            name = attach.fields["name"]
            if name.startswith("$management") and name.endswith(which):
                peer.engine.detach(link)
                del peer.links[link]

    peer.do(detach)


def test_two_pairs_to_one_node_have_names_of_their_own(peer: Any) -> None:
    answering(peer)
    with SendClient(peer.url) as client:
        client.mgmt_request(Message(b"x"), b"OP", timeout=3000)
        second = MgmtOperation(client._session)
        assert second.execute(b"OP", None, Message(b"x"), timeout=3000)[0] == 200
        second.destroy()
        third = MgmtOperation(client._session)
        assert third.execute(b"OP", None, Message(b"x"), timeout=3000)[0] == 200
    names = [attach.fields["name"] for attach in peer.records(r.Attach)]
    assert len(set(names)) == 6 and names[:2] == ["$management-sender", "$management-receiver"]


def test_pairs_of_two_sessions_have_names_of_their_own(peer: Any) -> None:
    answering(peer)
    auth = SASLAnonymous("localhost", port=peer.port, use_tls=False)
    with Connection("localhost", auth) as connection:
        clients = [SendClient(peer.url), SendClient(peer.url)]
        for client in clients:
            client.open(connection=connection)
            client.mgmt_request(Message(b"x"), b"OP", timeout=3000)
        for client in clients:
            client.close()
    assert len({attach.fields["name"] for attach in peer.records(r.Attach)}) == 4


@pytest.mark.blocking("threads")
def test_threads_that_ask_first_attach_the_links_once(peer: Any) -> None:
    answering(peer)
    with SendClient(peer.url) as client:
        session: Any = client._session
        lock, came = session._lock, threading.Semaphore(0)

        class Lock:
            """Tells who comes; gives way when both threads have."""

            def __enter__(self) -> None:
                came.release()
                lock.acquire()

            def __exit__(self, *exc: object) -> None:
                lock.release()

        node = MgmtOperation(session)._node
        session._lock = Lock()
        threads = [threading.Thread(target=node.open, daemon=True) for _ in range(2)]
        with lock:
            for thread in threads:
                thread.start()
            for _ in threads:
                assert came.acquire(timeout=10)
        for thread in threads:
            thread.join(10)
        session._lock = lock
        assert len(session._links) == 2


def test_requests_that_the_peer_never_took_leave_nothing_behind(peer: Any) -> None:
    peer.credit = 0
    answering(peer)
    with SendClient(peer.url) as client:
        for _ in range(3):
            with pytest.raises(RequestTimeout) as caught:
                client.mgmt_request(Message(b"x"), b"OP", timeout=20)
            assert caught.value.delivery is Delivery.NOT_DELIVERED
        node = next(iter(client._session._mgmt_links.values()))._node
        assert not node._waiting and not node._answers


def test_a_connection_that_was_closed_is_told(broker: Broker) -> None:
    auth = SASLAnonymous("localhost", port=broker.port, use_tls=False)
    with Connection("localhost", auth) as connection:
        client = SendClient(broker.url + "/q")
        client.open(connection=connection)
        client.send_message(Message(b"x"))
        connection.destroy()
        operation = MgmtOperation(client._session)
        for _ in range(2):
            with pytest.raises(AMQPConnectionError, match="closed"):
                operation.execute(b"OP", None, Message(b"x"), timeout=3000)


@pytest.mark.blocking("threads")
def test_answers_find_their_requests_in_any_order(peer: Any) -> None:
    answering(peer, order=[2, 0, 1])
    got: dict[str, str] = {}
    with SendClient(peer.url) as client:

        def ask(name: str) -> None:
            got[name] = str(client.mgmt_request(Message(b"x"), name))

        threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in ("one", "two", "three")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert got == {"one": "one", "two": "two", "three": "three"}


def test_fields_may_have_other_names_for_each_request(peer: Any) -> None:
    answering(peer, fields={"code": 202, "words": "later", "statusCode": 200})
    with SendClient(peer.url) as client:
        one = client.mgmt_request(Message(b"x"), b"OP", callback=lambda *args: args)
        two = client.mgmt_request(
            Message(b"x"), b"OP", callback=lambda *args: args, status_code_field=b"code", description_fields=b"words"
        )
    assert (one[0], one[2]) == (200, None)  # an absent description is None
    assert (two[0], two[2]) == (202, b"later")


def test_an_answer_without_a_status_is_a_value_error(peer: Any) -> None:
    answering(peer, fields={"other": 1})
    with SendClient(peer.url) as client:
        with pytest.raises(ValueError, match="status"):
            client.mgmt_request(Message(b"x"), b"OP")


def test_unknown_arguments_are_named(broker: Broker, client: SendClient) -> None:
    with pytest.raises(ValueError, match="'colour'"):
        client.mgmt_request(Message(b"x"), b"OP", colour=1)


def test_no_answer_in_time_is_a_timeout_and_the_next_request_works(broker: Broker, client: SendClient) -> None:
    broker.answer("SLEEP", None)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="SLEEP"):
        client.mgmt_request(Message(b"x"), "SLEEP", timeout=150)
    assert 0.14 < time.monotonic() - start < 3
    assert client.mgmt_request(Message(b"x"), "READ", timeout=5000) is not None
    client.send_message(Message(b"x"))


def test_links_that_never_attach_time_out(peer: Any) -> None:
    peer.on[r.Attach] = lambda p, record: None
    with SendClient(peer.url, connect_timeout=0.3) as client:
        with pytest.raises(TimeoutError):
            client.mgmt_request(Message(b"x"), b"OP")


def test_refused_links_are_a_link_error_and_the_client_goes_on(broker: Broker, client: SendClient) -> None:
    broker.script("no", fail="attach", condition="amqp:not-found")
    for _ in range(2):
        with pytest.raises(LinkDetach) as caught:
            client.mgmt_request(Message(b"x"), b"OP", node="no", timeout=5000)
        assert isinstance(caught.value, AMQPConnectionError)
    client.send_message(Message(b"x"))


def test_a_rejected_request_is_an_error(broker: Broker, client: SendClient) -> None:
    broker.script("no", "rejected", condition="amqp:not-allowed")
    with pytest.raises(MessageSendFailed):
        client.mgmt_request(Message(b"x"), b"OP", node="no", timeout=5000)


def test_a_lost_connection_ends_the_wait(broker: Broker, client: SendClient) -> None:
    broker.answer("SLEEP", None)
    client.send_message(Message(b"x"))
    timer = threading.Timer(0.1, broker.drop_connections)
    timer.start()
    with pytest.raises(AMQPConnectionError):
        client.mgmt_request(Message(b"x"), "SLEEP")
    timer.join()


def test_destroying_the_session_ends_the_wait(broker: Broker, client: SendClient) -> None:
    broker.answer("SLEEP", None)
    client.send_message(Message(b"x"))
    session = client._session
    timer = threading.Timer(0.1, session.destroy)
    timer.start()
    with pytest.raises(MessageHandlerError):
        client.mgmt_request(Message(b"x"), "SLEEP")
    timer.join()


def test_ending_a_session_ends_the_wait_of_an_operation_on_it(broker: Broker) -> None:
    """Of one that the session does not know, on a connection that goes on."""
    broker.answer("SLEEP", None)
    auth = SASLAnonymous("localhost", port=broker.port, use_tls=False)
    with Connection("localhost", auth) as connection:
        session = Session(connection)
        operation = MgmtOperation(session)
        timer = threading.Timer(0.1, session._end)
        timer.start()
        with pytest.raises(MessageHandlerError, match="session"):
            operation.execute(b"SLEEP", None, Message(b"x"), timeout=5000)
        timer.join()


def test_what_cannot_be_encoded_is_said_at_once(client: SendClient) -> None:
    with pytest.raises(TypeError):
        client.mgmt_request(Message(b"x", application_properties={"k": object()}), b"OP")


def test_an_operation_object_gives_status_answer_and_description(broker: Broker, client: SendClient) -> None:
    broker.answer("PING", 200, "fine")
    operation = MgmtOperation(client._session)
    assert operation.open is None and operation.target == b"$management"
    status, message, description = operation.execute(b"PING", None, Message(b"hello"), timeout=5000)
    assert (status, description, str(message)) == (200, b"fine", "hello")
    assert operation.open is MgmtOpenStatus.Ok and operation.mgmt_error is None
    operation.destroy()
    operation.destroy()
    assert operation.open is MgmtOpenStatus.Error
    with pytest.raises(MessageHandlerError):
        operation.execute(b"PING", None, Message(b"hello"))


def test_many_requests_keep_the_credit_up_and_leave_nothing_behind(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uamqp_cffi._session.requests.CREDIT", 10)
    peer.credit = 1000
    answering(peer)
    with SendClient(peer.url) as client:
        for _ in range(300):
            client.mgmt_request(Message(b"x"), b"OP")
        node = next(iter(client._session._mgmt_links.values()))._node
        assert node._answers == {} and node._sent == {} and not node._waiting
