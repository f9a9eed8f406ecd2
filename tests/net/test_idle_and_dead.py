"""Peers that ask an idle client for something, that stop reading, that are dead, or that never say goodbye; and systems that have no
file descriptor left. Scripted peers over real sockets; runs everywhere."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
import time
from typing import Any

import pytest

from uamqp_cffi import Message, ReceiveClient, SendClient, connection, constants, errors
from uamqp_cffi._core.transport import dial, dial_async
from uamqp_cffi.async_ops import connection_async

pytestmark = pytest.mark.both_drivers

SOON = 5.0


def idle(driver: Any, until: threading.Event) -> None:
    """Nobody calls the client; on a loop, the program awaits something else."""
    if driver is None:
        assert until.wait(SOON)
        return

    async def elsewhere() -> None:
        limit = time.monotonic() + SOON
        while not until.is_set():
            assert time.monotonic() < limit
            await asyncio.sleep(0.005)

    driver.run(elsewhere())


def flow(amqp: Any, credit: int, *more: Any) -> tuple[Any, ...]:
    u = amqp.Uint
    return (amqp.FLOW, u(1), u(2048), u(0), u(2048), u(0), u(1), u(credit), None, *more)


def test_an_idle_sender_gives_its_credit_back_when_it_is_asked(scripted: Any, amqp: Any, driver: Any) -> None:
    """With the blocking classes at the next heartbeat."""
    flows: list[Any] = []
    answered, returned = threading.Event(), threading.Event()

    def play(peer: Any) -> None:
        peer.reach("credit", credit=10, idle=250)
        peer.until(amqp.TRANSFER)
        peer.send(amqp.DISPOSITION, True, amqp.Uint(0), amqp.Uint(0), True, amqp.Described(amqp.ACCEPTED))
        assert returned.wait(SOON)
        peer.send(*flow(amqp, 9, True))
        flows.append(peer.until(amqp.FLOW))
        answered.set()
        peer.polite_end()

    with SendClient(scripted(play).url()) as client:
        client.send_message(Message(b"0"))
        returned.set()
        idle(driver, answered)
    assert (flows[0][5], flows[0][6], flows[0][8]) == (10, 0, True)


def test_an_idle_client_answers_an_echo(scripted: Any, amqp: Any, driver: Any) -> None:
    """With the blocking classes at the next heartbeat."""
    answered, returned = threading.Event(), threading.Event()

    def play(peer: Any) -> None:
        peer.serve(idle=250)
        peer.deliver(0, amqp.data(b"m"))
        peer.until(amqp.DISPOSITION)
        assert returned.wait(SOON)
        u = amqp.Uint
        peer.send(amqp.FLOW, u(0), u(2048), u(1), u(2048), u(0), u(1), None, None, None, True)
        peer.until(amqp.FLOW)
        answered.set()
        peer.polite_end()

    client = ReceiveClient(scripted(play).url(), timeout=4000)
    client.receive_message_batch(1)
    returned.set()
    idle(driver, answered)
    client.close()


def impatient(monkeypatch: pytest.MonkeyPatch, dead_after: float) -> None:
    monkeypatch.setattr(dial, "DEAD_AFTER", dead_after, raising=False)
    for module in (connection, connection_async):
        monkeypatch.setattr(module, "LOOK_FOR_LIFE", 0.02, raising=False)


def test_a_peer_that_stops_reading_for_long_is_not_dead(
    scripted: Any, amqp: Any, driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel says, each time it is asked, that its window is shut."""
    impatient(monkeypatch, 0.2)
    monkeypatch.setattr(dial, "USER_TIMEOUT_MS", 200, raising=False)
    count, size = 40, 60_000

    def play(peer: Any) -> None:
        peer.reach("credit", credit=1000, incoming_window=100_000)
        time.sleep(1.0)  # a memory alarm; what would end the connection is shorter
        for _ in range(count):
            peer.whole_transfer()
        peer.send(amqp.DISPOSITION, True, amqp.Uint(0), amqp.Uint(count - 1), True, amqp.Described(amqp.ACCEPTED))
        peer.polite_end()

    with SendClient(scripted(play, window=4096).url()) as client:
        client.queue_message(*[Message(bytes(size)) for _ in range(count)])
        assert set(client.send_all_messages(close_on_done=False)) == {constants.MessageState.SendComplete}


def test_a_peer_whose_host_answers_no_more_is_dead(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(peer: Any) -> None:
        peer.reach("credit")
        peer.to_the_end()

    impatient(monkeypatch, 60.0)
    with SendClient(scripted(play).url()) as client:
        limit = time.monotonic() + SOON
        while not client.client_ready():
            assert time.monotonic() < limit
        monkeypatch.setattr(dial, "unanswered", lambda sock: 61.0)
        with pytest.raises(errors.AMQPConnectionError, match="acknowledged nothing for 61 s") as caught:
            client.send_message(Message(b"0"))
        assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("what", ["socket", "socketpair"])
def test_no_file_descriptor_left_is_a_connection_error(
    scripted: Any, driver: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    server = scripted(lambda peer: peer.to_the_end())
    client = SendClient(server.url())
    client.open()

    def none_left(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        if driver is not None and (what == "socketpair" or type(driver.loop).__module__.startswith("uvloop")):
            pytest.skip("a loop has its own")
        patch.setattr(socket, what, none_left)
        with pytest.raises(errors.AMQPConnectionError, match="cannot connect to .*Too many open files") as caught:
            client.send_message(Message(b"0"))
    cause: Any = caught.value.__cause__
    assert isinstance(cause, OSError) and cause.errno == errno.EMFILE
    client.close()


def test_an_address_that_leads_nowhere_costs_a_quarter_of_a_second(
    scripted: Any, amqp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8305: the next one is tried beside it."""

    def play(peer: Any) -> None:
        peer.reach("credit")
        peer.until(amqp.TRANSFER)
        peer.send(amqp.DISPOSITION, True, amqp.Uint(0), amqp.Uint(0), True, amqp.Described(amqp.ACCEPTED))
        peer.polite_end()

    server = scripted(play)
    nowhere = socket.create_server(("127.0.0.3", 0), backlog=0)  # its queue is full: what comes is dropped
    fillers = [socket.socket() for _ in range(3)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(nowhere.getsockname())
    port = server.port
    real = socket.socket.connect_ex

    def addresses(*args: Any, **kwargs: Any) -> list[Any]:
        both = ("127.0.0.3", 0), ("127.0.0.1", 0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in both]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    moved: dict[str, int] = {"127.0.0.3": nowhere.getsockname()[1], "127.0.0.1": port}
    monkeypatch.setattr(
        socket.socket, "connect_ex", lambda self, where: real(self, (where[0], moved[where[0]])), raising=False
    )
    connect = dial_async._connect

    async def elsewhere(loop: Any, sock: Any, where: Any) -> None:
        await connect(loop, sock, (where[0], moved[where[0]]))

    monkeypatch.setattr(dial_async, "_connect", elsewhere)
    began = time.monotonic()
    with SendClient(f"amqp://two.localhost:{port}/q", connect_timeout=8) as client:
        client.send_message(Message(b"0"))
    assert time.monotonic() - began < 4, "half of connect_timeout was the first one's share"
    for one in (*fillers, nowhere):
        one.close()


def test_the_trace_shows_a_frame_when_it_is_written(scripted: Any, amqp: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="uamqp.c_uamqp")

    def play(peer: Any) -> None:
        peer.serve()
        peer.deliver(0, amqp.data(b"m"))
        peer.polite_end()

    client = ReceiveClient(scripted(play).url(), auto_complete=False, timeout=4000, debug=True)
    [message] = client.receive_message_batch(1)
    caplog.clear()
    message.accept()
    assert "disposition" in caplog.text, "nothing has come in since"
    client.close()


@pytest.mark.slow
def test_close_against_a_peer_that_answers_nothing_is_over_within_five_seconds(scripted: Any) -> None:
    def play(peer: Any) -> None:
        peer.reach("attach")
        peer.to_the_end()

    client = SendClient(scripted(play).url())
    client.open()
    limit = time.monotonic() + SOON
    while not client.client_ready():
        assert time.monotonic() < limit
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 4.6, "5 s, with room for the scheduler"
