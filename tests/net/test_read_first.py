"""What has arrived is read before anything is said, sent or settled: a client that was left alone for a while does not act on what
it knew then. Scripted peers over real sockets; runs everywhere."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi import Message, MessageReceiver, ReceiveClient, SendClient, constants, errors

pytestmark = pytest.mark.both_drivers

Delivery = constants.Delivery
State = constants.MessageState

SOON = 5.0
FAREWELLS = ("detach", "end", "close", "fin", "rst")
NO_LOOP = "accept() is a plain function, in which no loop can read"


def farewell(peer: Any, amqp: Any, how: str) -> None:
    """The peer takes link, session, connection or transport away."""
    reason = amqp.error("amqp:not-found", "gone")
    if how == "detach":
        peer.send(amqp.DETACH, amqp.Uint(0), True, reason)
    elif how == "end":
        peer.send(amqp.END, reason)
    elif how == "close":
        peer.send(amqp.CLOSE, reason)
    elif how == "fin":
        peer.sock.shutdown(socket.SHUT_WR)
    else:
        peer.reset()


class Stage:
    """A scripted peer that plays its part when it is told to: `act()` returns when what it sends lies in the client's
    socket, and the client believes that it has not looked for a while."""

    def __init__(self, scripted: Any, begin: Callable[[Any], None], *acts: Callable[[Any], None], **how: Any) -> None:
        self._go = [threading.Event() for _ in acts]
        self._done = [threading.Event() for _ in acts]
        self._acts = acts
        self._begin = begin
        self._next = 0
        self.server = scripted(self._play, **how)

    def _play(self, peer: Any) -> None:
        self._begin(peer)
        for act, go, done in zip(self._acts, self._go, self._done, strict=True):
            assert go.wait(SOON * 2)
            act(peer)
            done.set()
        peer.polite_end()

    def act(self, client: Any) -> None:
        at, self._next = self._next, self._next + 1
        self._go[at].set()
        assert self._done[at].wait(SOON)
        connection = client._connection
        sock = connection._sock
        if isinstance(sock, socket.socket):
            assert select.select([sock], [], [], SOON)[0]
            connection._looked_at = 0.0
        else:  # the loop was held up since
            assert select.select([sock._sock], [], [], SOON)[0]
            connection._turned_at = 0.0


@pytest.fixture(params=["plain", "tls"])
def transport(request: pytest.FixtureRequest, certificates: Any) -> dict[str, Any]:
    """Arguments of `scripted` and of a client, in that order."""
    if request.param == "plain":
        return {"server": {}, "client": {"use_tls": False}}
    import ssl

    context = ssl.create_default_context(cafile=certificates.ca_file)
    return {"server": {"context": certificates.server}, "client": {"ssl_context": context, "use_tls": True}}


# ---- settling ----


def delivering(count: int = 1) -> Callable[[Any], None]:
    def begin(peer: Any) -> None:
        from uamqp_cffi._core.engine.values import enc_binary

        peer.serve()
        for number in range(count):
            peer.deliver(number, b"\x00\x53\x75" + enc_binary(b"m%d" % number))

    return begin


@pytest.mark.blocking(NO_LOOP)
@pytest.mark.parametrize(
    ("settle", "how"),
    [("accept", how) for how in FAREWELLS] + [("reject", "detach"), ("release", "end"), ("modify", "fin")],
)
def test_a_message_whose_link_has_gone_is_not_settled(
    scripted: Any, amqp: Any, transport: dict[str, Any], how: str, settle: str
) -> None:
    stage = Stage(scripted, delivering(), lambda peer: farewell(peer, amqp, how), **transport["server"])
    arguments = (True, False) if settle == "modify" else ()
    client = ReceiveClient(stage.server.url(), auto_complete=False, timeout=4000, **transport["client"])
    with contextlib.closing(client):
        [message] = client.receive_message_batch(1)
        stage.act(client)
        with pytest.raises(errors.AMQPError, match="cannot be settled") as caught:
            getattr(message, settle)(*arguments)
        assert message.state is State.ReceivedUnsettled
        assert isinstance(caught.value.__cause__, errors.AMQPError), "it says why"


@pytest.mark.blocking(NO_LOOP)
@pytest.mark.parametrize("how", FAREWELLS)
def test_nor_is_one_that_is_settled_in_its_callback(scripted: Any, amqp: Any, how: str) -> None:
    stage = Stage(scripted, delivering(), lambda peer: farewell(peer, amqp, how))
    seen: list[Any] = []

    def callback(message: Message) -> None:
        stage.act(client)
        try:
            seen.append(message.accept())
        except errors.AMQPError:
            seen.append(message.state)

    client = ReceiveClient(stage.server.url(), auto_complete=False, timeout=4000)
    with contextlib.closing(client), pytest.raises(errors.AMQPError):
        client.receive_messages(callback)
    assert seen == [State.ReceivedUnsettled]


@pytest.mark.parametrize("how", FAREWELLS)
def test_messages_read_ahead_are_not_given_as_accepted(scripted: Any, amqp: Any, how: str) -> None:
    stage = Stage(scripted, delivering(3), lambda peer: farewell(peer, amqp, how))
    client = ReceiveClient(stage.server.url(), timeout=4000)
    with contextlib.closing(client):
        limit = time.monotonic() + SOON
        client.receive_message_batch(1)
        while len(client._received_messages) < 2 and time.monotonic() < limit:
            client.do_work()
        stage.act(client)
        with pytest.raises(errors.AMQPError):
            client.receive_message_batch(1)


@pytest.mark.blocking(NO_LOOP)
def test_a_detach_behind_more_deliveries_than_one_read_takes_is_seen(scripted: Any, amqp: Any) -> None:
    def much(peer: Any) -> None:
        write, parts = peer.write, []
        peer.write = parts.append
        for number in range(1, 250):
            peer.deliver(number, amqp.data(bytes(350)))
        farewell(peer, amqp, "detach")
        write(b"".join(parts))  # small pieces would fill the client's socket by their number

    stage = Stage(scripted, delivering(), much)
    client = ReceiveClient(stage.server.url(), auto_complete=False, timeout=4000, max_frame_size=512)
    with contextlib.closing(client):
        [message] = client.receive_message_batch(1)
        stage.act(client)
        with pytest.raises(errors.AMQPError, match="cannot be settled"):
            message.accept()


@pytest.mark.blocking(NO_LOOP)
def test_a_bare_receiver_that_was_detached_asks_for_nothing(scripted: Any, amqp: Any) -> None:
    stage = Stage(scripted, delivering(), lambda peer: farewell(peer, amqp, "detach"))
    with contextlib.closing(ReceiveClient(stage.server.url(), auto_complete=False, timeout=4000)) as client:
        client.receive_message_batch(1)
        stage.act(client)
        with pytest.raises(errors.LinkDetach):
            client.message_handler.reset_link_credit(10)
        assert isinstance(client.message_handler, MessageReceiver)


# ---- sending ----


@pytest.fixture(autouse=True)
def by_hand(amqp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of the hand-made AMQP, for scripts that are plain functions."""
    for name in ("Uint", "Described", "FLOW", "TRANSFER", "DISPOSITION", "ACCEPTED"):
        monkeypatch.setitem(globals(), name, getattr(amqp, name))


Uint: Any = None
Described: Any = None
FLOW = TRANSFER = DISPOSITION = ACCEPTED = 0


def accept(peer: Any, number: int) -> None:
    peer.send(DISPOSITION, True, Uint(number), Uint(number), True, Described(ACCEPTED))


def one_message(peer: Any) -> None:
    """A peer that has accepted one message, and has given credit for nine more."""
    peer.reach("credit", credit=10)
    peer.until(TRANSFER)
    accept(peer, 0)


def no_credit(peer: Any) -> None:
    peer.send(FLOW, Uint(1), Uint(2048), Uint(0), Uint(2048), Uint(0), Uint(1), Uint(0))


def no_window(peer: Any) -> None:
    peer.send(FLOW, Uint(1), Uint(0), Uint(0), Uint(2048))


def nothing_came(peer: Any) -> None:
    """The client has sent nothing; now it may."""
    peer.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.sock.recv(1)
    peer.sock.settimeout(SOON * 2)
    peer.send(FLOW, Uint(1), Uint(2048), Uint(0), Uint(2048), Uint(0), Uint(1), Uint(5))
    peer.until(TRANSFER)
    accept(peer, 1)


@pytest.mark.parametrize("less", [no_credit, no_window])
def test_an_idle_sender_sees_that_it_may_not_send(scripted: Any, less: Callable[[Any], None]) -> None:
    stage = Stage(scripted, one_message, less)
    with SendClient(stage.server.url()) as client:
        client.send_message(Message(b"0"))
        stage.act(client)
        message = Message(b"1")
        client.queue_message(message)
        client.do_work()
        assert message.state is State.WaitingToBeSent


@pytest.mark.parametrize("less", [no_credit, no_window])
@pytest.mark.parametrize("call", ["send_message", "send_all_messages"])
def test_a_call_waits_until_an_idle_sender_may_send(scripted: Any, less: Callable[[Any], None], call: str) -> None:
    """The peer looks for what was sent too early a moment after the call began; it cannot fail for being late."""

    late = threading.Event()

    def begin(peer: Any) -> None:
        one_message(peer)
        assert told.wait(SOON)
        less(peer)
        told_back.set()
        assert late.wait(SOON)
        nothing_came(peer)

    told, told_back = threading.Event(), threading.Event()
    stage = Stage(scripted, begin)
    with SendClient(stage.server.url()) as client:
        client.send_message(Message(b"0"))
        told.set()
        assert told_back.wait(SOON)
        connection = client._connection
        connection._looked_at = connection._turned_at = 0.0
        message = Message(b"1")
        threading.Timer(0.05, late.set).start()
        if call == "send_message":
            client.send_message(message)
        else:
            client.queue_message(message)
            client.send_all_messages(close_on_done=False)
        assert message.state is State.SendComplete


@pytest.mark.parametrize("how", FAREWELLS)
@pytest.mark.parametrize("call", ["send_message", "send_all_messages", "do_work"])
def test_the_first_message_after_the_peer_has_gone_is_not_delivered(
    scripted: Any, amqp: Any, transport: dict[str, Any], how: str, call: str
) -> None:
    stage = Stage(scripted, one_message, lambda peer: farewell(peer, amqp, how), **transport["server"])
    client = SendClient(stage.server.url(), **transport["client"])
    with contextlib.closing(client):
        client.send_message(Message(b"0"))
        stage.act(client)
        message = Message(b"1")
        with pytest.raises(errors.AMQPError) as caught:
            if call == "send_message":
                client.send_message(message)
            else:
                client.queue_message(message)
                while True:
                    client.send_all_messages(close_on_done=False) if call == "send_all_messages" else client.do_work()
        assert caught.value.delivery is Delivery.NOT_DELIVERED
        assert message.delivery is Delivery.NOT_DELIVERED and client.pending_messages == [message]


def test_a_message_of_a_bare_sender_is_not_sent_to_a_link_that_has_gone(scripted: Any, amqp: Any) -> None:
    stage = Stage(scripted, one_message, lambda peer: farewell(peer, amqp, "detach"))
    with SendClient(stage.server.url()) as client:
        client.send_message(Message(b"0"))
        stage.act(client)
        sender, message = client.message_handler, Message(b"1")
        if isinstance(client._connection._sock, socket.socket):
            assert sender.send(message, None) is False


# ---- closing ----


@pytest.mark.parametrize("how", ["client", "link"])
def test_what_lies_in_the_socket_is_released_before_the_detach(scripted: Any, amqp: Any, driver: Any, how: str) -> None:
    released: list[tuple[int, int]] = []

    def more(peer: Any) -> None:
        for number in range(1, 60):
            peer.deliver(number, amqp.data(bytes(2000)))

    def end(peer: Any) -> None:
        frame = None
        while frame is None or frame.code != amqp.DETACH:
            frame = peer.frame()
            if frame.code == amqp.DISPOSITION and frame[4].code == amqp.RELEASED:
                released.append((frame[1], frame[2] if frame[2] is not None else frame[1]))
        peer.send(amqp.DETACH, amqp.Uint(0), True)

    def play(peer: Any) -> None:
        delivering()(peer)
        assert go.wait(SOON)
        more(peer)
        there.set()
        end(peer)
        peer.polite_end()

    go, there = threading.Event(), threading.Event()
    server = scripted(play)
    client = ReceiveClient(server.url(), auto_complete=False, timeout=4000)
    [message] = client.receive_message_batch(1)
    message.accept()
    go.set()
    assert there.wait(SOON)
    if how == "link":
        link = client.message_handler
        driver.run(link.close_async()) if driver is not None else link.close()
    client.close()
    assert released == [(1, 59)]


def test_outcomes_that_have_arrived_are_told_by_close(scripted: Any, amqp: Any) -> None:
    def begin(peer: Any) -> None:
        peer.reach("credit", credit=10)

    def answer(peer: Any) -> None:
        peer.until(amqp.TRANSFER)
        accept(peer, 0)

    stage = Stage(scripted, begin, answer)
    client = SendClient(stage.server.url())
    client.open()
    message = Message(b"1")
    limit = time.monotonic() + SOON
    while not client.client_ready() or not client.message_handler._ready:
        assert time.monotonic() < limit
        client.do_work()  # the credit may come by itself, after the attach
    client.queue_message(message)
    client.do_work()
    stage.act(client)
    client.close()
    assert message.state is State.SendComplete
