"""A network that breaks, between a client and the embedded broker: a TCP proxy delays, cuts, corrupts and swallows on command."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi import Message, SendClient, authentication, constants, errors
from uamqp_cffi.broker import Broker

pytestmark = pytest.mark.net

Codes = constants.ErrorCodes
Delivery = constants.Delivery
State = constants.MessageState

SOON = 5.0


class Line:
    """A client, a proxy that breaks things, and a broker at the other end."""

    def __init__(self, proxy: Any, broker: Broker, ca_file: str | None, transport: Any) -> None:
        self.proxy, self.broker, self._ca_file, self._transport = proxy, broker, ca_file, transport
        self.clients: list[SendClient] = []

    def client(self, **how: Any) -> SendClient:
        tls = self._ca_file is not None
        auth = authentication.SASLAnonymous(
            "127.0.0.1", port=self.proxy.port, verify=self._ca_file, transport_type=self._transport, use_tls=tls
        )
        self.clients.append(SendClient("amqps://127.0.0.1/q", auth, **how))
        return self.clients[-1]

    def arrived(self) -> list[bytes]:
        return [b"".join(m.get_data()) for m in self.broker.messages("q")]


@pytest.fixture(params=["tcp", "tls", "websocket"])
def line(
    request: pytest.FixtureRequest, certificates: Any, fault_proxy: Callable[..., Any], ends_within: Any
) -> Iterator[Line]:
    tls = request.param != "tcp"
    transport = (
        constants.TransportType.AmqpOverWebsocket if request.param == "websocket" else constants.TransportType.Amqp
    )
    with Broker(ssl_context=certificates.server if tls else None) as broker:
        one = Line(fault_proxy(broker.port), broker, certificates.ca_file if tls else None, transport)
        yield one
        one.proxy.clear()
        one.proxy.reset_all()
        for client in one.clients:
            assert ends_within(6, client.close).error is None


def some(count: int, size: int = 0) -> dict[bytes, Message]:
    run = uuid.uuid4().hex
    bodies = [f"{run} {n} ".encode().ljust(size, b".") for n in range(count)]
    return {body: Message(body) for body in bodies}


def send(ends_within: Any, client: SendClient, messages: dict[bytes, Message], seconds: float = SOON) -> Any:
    client.queue_message(*messages.values())
    return ends_within(seconds, client.send_all_messages, close_on_done=False)


def attach(ends_within: Any, client: SendClient) -> None:
    def ready() -> None:
        client.open()
        while not client.client_ready():
            pass

    assert ends_within(SOON, ready).error is None


def nothing_forgotten(line: Line, client: SendClient, messages: dict[bytes, Message]) -> None:
    """Every message is done or pending; what is done has arrived; what is called not delivered has not."""
    done = [body for body, m in messages.items() if m.state is State.SendComplete]
    pending = [body for body, m in messages.items() if m.state is State.WaitingToBeSent]
    assert len(done) + len(pending) == len(messages)
    assert client.pending_messages == [messages[body] for body in pending]
    assert all(messages[body].delivery in (Delivery.UNKNOWN, Delivery.NOT_DELIVERED) for body in pending)
    arrived = line.arrived()
    assert len(arrived) == len(set(arrived))
    assert set(done) <= set(arrived) <= set(messages)
    assert not {body for body in pending if messages[body].delivery is Delivery.NOT_DELIVERED} & set(arrived)


# ---- slow, but whole ----


def test_one_byte_at_a_time_works(line: Line, ends_within: Any) -> None:
    line.proxy.dribble(1)
    messages = some(50, 200)
    assert send(ends_within, line.client(), messages, 30).value == [State.SendComplete] * 50
    assert line.arrived() == list(messages)


def test_latency_with_jitter_works_and_costs_round_trips_not_messages(line: Line, ends_within: Any) -> None:
    line.proxy.latency(20, jitter=10)
    messages = some(5000)
    end = send(ends_within, line.client(), messages, 20)
    assert end.value == [State.SendComplete] * 5000
    assert end.seconds < 5, "some dozens of round trips of 50 ms"
    assert line.arrived() == list(messages)


def test_little_bandwidth_works(line: Line, ends_within: Any) -> None:
    line.proxy.bandwidth(2_000_000)
    messages = some(4, 1 << 20)
    assert send(ends_within, line.client(), messages, 30).value == [State.SendComplete] * 4
    assert line.arrived() == list(messages)


def test_stall_shorter_than_the_idle_timeout_is_survived(line: Line, ends_within: Any) -> None:
    client = line.client(idle_timeout=5000)
    attach(ends_within, client)
    line.proxy.stall()
    resume = threading.Timer(0.5, line.proxy.resume)
    resume.start()
    messages = some(20)
    end = send(ends_within, client, messages)
    resume.join()
    assert end.value == [State.SendComplete] * 20
    assert end.seconds > 0.4
    assert line.arrived() == list(messages)


# ---- never connected ----


def test_reset_at_once_is_a_connection_error(line: Line, ends_within: Any) -> None:
    line.proxy.refuse()
    client, messages = line.client(), some(3)
    end = send(ends_within, client, messages)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert {m.delivery for m in messages.values()} == {Delivery.NOT_DELIVERED}
    nothing_forgotten(line, client, messages)


def test_connection_that_leads_nowhere_ends_with_connect_timeout(line: Line, ends_within: Any) -> None:
    line.proxy.hold()
    client, messages = line.client(connect_timeout=0.5), some(3)
    end = send(ends_within, client, messages)
    assert isinstance(end.error, errors.AMQPConnectionError) and isinstance(end.error, TimeoutError)
    assert 0.4 < end.seconds < 2
    nothing_forgotten(line, client, messages)


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("offset", [1, 4, 9])
def test_corrupt_byte_while_connecting_is_an_error(line: Line, ends_within: Any, offset: int, direction: str) -> None:
    line.proxy.corrupt(offset, direction=direction)
    client, messages = line.client(connect_timeout=3), some(3)
    end = send(ends_within, client, messages, 8)
    assert isinstance(end.error, errors.AMQPConnectionError)
    nothing_forgotten(line, client, messages)


# ---- broken on the way ----


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_cut_in_the_middle_loses_and_doubles_nothing(line: Line, ends_within: Any, how: str, direction: str) -> None:
    client, messages = line.client(), some(20_000, 100)
    attach(ends_within, client)
    passed = line.proxy.stats()[0][direction]
    # in the middle of the messages, or of the outcomes: those come as a few ranges, some dozens of bytes each
    line.proxy.cut_after(passed + (500_000 if direction == "up" else 100), how=how, direction=direction)
    end = send(ends_within, client, messages, 20)
    assert isinstance(end.error, errors.AMQPConnectionError)
    nothing_forgotten(line, client, messages)


def test_reset_in_the_middle_of_a_transfer_of_1_mib(line: Line, ends_within: Any) -> None:
    client, messages = line.client(), some(1, 1 << 20)
    line.proxy.cut_after(300_000, how="rst", direction="up")
    end = send(ends_within, client, messages)
    assert isinstance(end.error, errors.AMQPConnectionError)
    nothing_forgotten(line, client, messages)
    assert line.arrived() == []
    line.proxy.clear()
    again = line.client()
    again.queue_message(*client.pending_messages)
    assert ends_within(SOON, again.send_all_messages, close_on_done=False).value == [State.SendComplete]
    assert line.arrived() == list(messages)


def test_corrupt_byte_in_the_stream_is_found_by_tls(line: Line, certificates: Any, ends_within: Any) -> None:
    """Plain TCP cannot find a changed byte of a body; TLS must."""
    client, messages = line.client(), some(1000, 1000)
    line.proxy.corrupt(200_000)
    end = send(ends_within, client, messages, 10)
    if line._ca_file is None:
        assert end.value == [State.SendComplete] * 1000
        assert len(set(line.arrived()) - set(messages)) == 1
    else:
        assert isinstance(end.error, errors.AMQPConnectionError)
        nothing_forgotten(line, client, messages)


def test_garbage_in_the_stream_is_an_error(line: Line, ends_within: Any) -> None:
    client = line.client()
    attach(ends_within, client)
    passed = line.proxy.stats()[0]["down"]
    line.proxy.insert(passed + 1, b"\xff" * 16, direction="down")
    messages = some(3)
    end = send(ends_within, client, messages)
    assert isinstance(end.error, errors.AMQPConnectionError)
    nothing_forgotten(line, client, messages)


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_half_close_is_a_lost_connection(line: Line, ends_within: Any, direction: str) -> None:
    client = line.client()
    attach(ends_within, client)
    line.proxy.half_close(direction)
    messages = some(3)
    end = send(ends_within, client, messages)
    assert isinstance(end.error, errors.AMQPConnectionError)
    nothing_forgotten(line, client, messages)


@pytest.mark.parametrize("how", ["reset_all", "close_all"])
def test_idle_client_learns_of_the_loss_at_its_next_call(line: Line, ends_within: Any, how: str) -> None:
    client = line.client()
    attach(ends_within, client)
    getattr(line.proxy, how)()
    messages = some(3)
    end = send(ends_within, client, messages)
    assert isinstance(end.error, errors.AMQPConnectionError)
    nothing_forgotten(line, client, messages)


def test_peer_behind_a_dead_line_is_found_by_the_idle_timeout(line: Line, ends_within: Any) -> None:
    client = line.client(idle_timeout=500)
    attach(ends_within, client)
    line.proxy.stall()
    messages = some(3)
    end = send(ends_within, client, messages)
    assert isinstance(end.error, errors.ConnectionClose)
    assert end.error.condition is Codes.InternalServerError
    assert 0.3 < end.seconds < 3
    assert {m.delivery for m in messages.values()} == {Delivery.UNKNOWN}
    nothing_forgotten(line, client, messages)


def test_reader_that_stops_reading_is_found_by_the_idle_timeout(line: Line, ends_within: Any) -> None:
    """Nothing fits into the kernel's buffers any more: the end of the last message never left."""
    client = line.client(idle_timeout=500)
    attach(ends_within, client)
    line.proxy.stop_reading()
    messages = some(60, 1 << 20)
    end = send(ends_within, client, messages, 10)
    assert isinstance(end.error, errors.ConnectionClose)
    assert list(messages.values())[-1].delivery is Delivery.NOT_DELIVERED
    nothing_forgotten(line, client, messages)


def test_swallowed_outcomes_end_with_msg_timeout(line: Line, ends_within: Any) -> None:
    client = line.client(msg_timeout=500)
    attach(ends_within, client)
    line.proxy.discard("down")
    messages = some(3)
    end = send(ends_within, client, messages)
    assert end.value == [State.SendFailed] * 3
    assert {m.delivery for m in messages.values()} == {Delivery.UNKNOWN}
    assert 0.4 < end.seconds < 3
    assert line.broker.wait_for("q", 3, timeout=SOON), "they had arrived indeed"


def test_settled_messages_of_a_dead_line_are_not_called_delivered(line: Line, ends_within: Any) -> None:
    """Pre-settled, a message is done when the kernel has its last byte, and not before."""
    client = line.client(idle_timeout=500, send_settle_mode=constants.SenderSettleMode.Settled)
    attach(ends_within, client)
    line.proxy.stop_reading()
    messages = some(60, 1 << 20)
    end = send(ends_within, client, messages, 10)
    assert isinstance(end.error, errors.AMQPConnectionError)
    last = list(messages.values())[-1]
    assert last.state is State.WaitingToBeSent
    assert last.delivery is Delivery.NOT_DELIVERED
    assert client.pending_messages == [m for m in messages.values() if m.state is State.WaitingToBeSent]


def test_close_over_a_dead_line_is_done_in_five_seconds(line: Line, ends_within: Any) -> None:
    client = line.client()
    attach(ends_within, client)
    line.proxy.stall()
    began = time.monotonic()
    assert ends_within(6, client.close).error is None
    assert time.monotonic() - began < 5.5
