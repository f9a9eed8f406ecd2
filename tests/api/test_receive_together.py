"""Several receiving calls at once on one ReceiveClient, from threads or from tasks: each keeps its own callback, and its own way
of accepting, for the messages that it hands out; no message gets lost between them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi import ReceiveClient, errors
from uamqp_cffi.broker import Broker
from uamqp_cffi.constants import MessageState

pytestmark = pytest.mark.both_drivers

LIMIT = 20.0


def texts(messages: Any) -> list[str]:
    return [str(message) for message in messages]


def left(broker: Broker) -> list[str]:
    """What is in the queue once nobody holds anything of it."""
    end = time.monotonic() + LIMIT
    while broker.info("q").unsettled or broker.info("q").consumers:
        assert time.monotonic() < end, broker.info("q")
        time.sleep(0.001)
    return texts(broker.messages("q"))


class Started:
    """Calls that run at the same time: each in a thread of its own, or in a task."""

    def __init__(self, client: Any, loop: Any) -> None:
        self.client = client
        self.loop = loop
        self.running: list[Any] = []

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> int:
        """Start a call and wait until it waits. Gives its number."""
        inbox = self.client._session._inbox
        before = inbox.led + len(inbox.followers)
        if self.loop is None:
            thread = Result(lambda: getattr(self.client, name)(*args, **kwargs))
            thread.start()
            self.running.append(thread)
        else:
            self.running.append(self.loop.loop.create_task(getattr(self.client, name + "_async")(*args, **kwargs)))
        self.until(lambda: inbox.led + len(inbox.followers) > before)
        return len(self.running) - 1

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        while not true():
            assert time.monotonic() < end
            if self.loop is None:
                time.sleep(0.001)
            else:
                self.loop.run(asyncio.sleep(0.001))

    def result(self, number: int) -> Any:
        if self.loop is None:
            return self.running[number].get()
        return self.loop.run(asyncio.wait_for(self.running[number], LIMIT))


def three_unread(broker: Broker, client: Any, start: Started) -> None:
    """m0, m1 and m2 have come, and nobody has read them."""
    for n in range(3):
        broker.put("q", f"m{n}")
    start.until(lambda: client.do_work() is True and client._received_messages.qsize() == 3)


class Result(threading.Thread):
    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.call()
        except BaseException as error:
            self.error = error

    def get(self) -> Any:
        self.join(LIMIT)
        assert not self.is_alive(), "a call hangs"
        if self.error is not None:
            raise self.error
        return self.value


@pytest.fixture
def client(broker: Broker) -> Iterator[ReceiveClient]:
    with ReceiveClient(broker.url + "/q", timeout=400, shutdown_after_timeout=False) as made:
        while not made.client_ready():
            continue
        yield made


@pytest.fixture
def start(client: ReceiveClient, driver: Any) -> Started:
    return Started(client, driver)


def as_made(client: Any) -> bool:
    return (client.auto_complete, client._message_received_callback, client._streaming_receive) == (True, None, False)


@pytest.mark.parametrize("first", ["stream", "batch"])
def test_a_stream_and_a_batch_lose_nothing_between_them(
    broker: Broker, client: ReceiveClient, start: Started, first: str
) -> None:
    streamed: list[str] = []
    calls = {
        "stream": lambda: start("receive_messages", lambda m: streamed.append(str(m))),
        "batch": lambda: start("receive_message_batch", 5),
    }
    numbers = {first: calls.pop(first)()}
    ((second, call),) = calls.items()
    numbers[second] = call()
    sent = [f"m{n}" for n in range(10)]
    for body in sent:
        broker.put("q", body)
    batch = texts(start.result(numbers["batch"]))
    start.result(numbers["stream"])
    assert sorted(streamed + batch) == sorted(sent)
    assert as_made(client)
    client.close()
    assert left(broker) == []


def test_a_stream_gets_what_a_batch_beside_it_left_unread(
    broker: Broker, client: ReceiveClient, start: Started
) -> None:
    streamed: list[str] = []
    client._prefetch = 10
    batch = start("receive_message_batch", 1)  # it leads, so it is what comes first that it hands out
    stream = start("receive_messages", lambda m: streamed.append(str(m)))
    for n in range(10):
        broker.put("q", f"m{n}")
    got = texts(start.result(batch))
    start.until(lambda: len(streamed) + len(got) == 10)
    start.result(stream)
    client.close()
    assert left(broker) == []


def test_each_batch_calls_its_own_callback_only(broker: Broker, client: ReceiveClient, start: Started) -> None:
    one: list[str] = []
    other: list[str] = []
    first = start("receive_message_batch", 1, one.append)
    second = start("receive_message_batch", 1, other.append)
    broker.put("q", "m0")
    broker.put("q", "m1")
    got = start.result(first) + start.result(second)
    assert len(got) == len(one) + len(other) == 2
    assert as_made(client)
    broker.put("q", "m2")
    (third,) = client.receive_message_batch(1)  # has no callback
    assert third not in one + other
    assert all(message.state is MessageState.ReceivedSettled for message in [*got, third])


def test_a_batch_accepts_though_an_iteration_is_under_way(broker: Broker, client: ReceiveClient) -> None:
    broker.put("q", "m0")
    broker.put("q", "m1")
    broker.put("q", "m2")
    messages = client.receive_messages_iter()
    first = next(messages)
    (second,) = client.receive_message_batch(1)
    assert second.state is MessageState.ReceivedSettled
    assert first.state is MessageState.ReceivedUnsettled
    messages.close()
    assert first.state is MessageState.ReceivedUnsettled
    assert client.auto_complete is True


def test_iterations_side_by_side_accept_each_its_own(broker: Broker, client: ReceiveClient) -> None:
    for n in range(4):
        broker.put("q", f"m{n}")
    one, other = client.receive_messages_iter(), client.receive_messages_iter()
    firsts = [next(one), next(other)]
    seconds = [next(one), next(other)]
    assert [m.state for m in firsts] == [MessageState.ReceivedSettled] * 2
    one.close()
    other.close()
    assert [m.state for m in seconds] == [MessageState.ReceivedUnsettled] * 2
    assert as_made(client)
    client.close()
    assert left(broker) == ["m2", "m3"]


@pytest.mark.blocking("a loop lets KeyboardInterrupt through")
def test_messages_that_an_interrupted_stream_took_over_are_there_for_the_next_call(
    broker: Broker, client: ReceiveClient, start: Started
) -> None:
    three_unread(broker, client, start)

    def interrupt(message: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(errors.AMQPClientShutdown):
        client.receive_messages(interrupt)
    call = Result(lambda: client.receive_message_batch(2))
    call.start()
    assert texts(call.get()) == ["m1", "m2"]


def test_a_broken_link_takes_along_what_a_stream_took_over(
    broker: Broker, client: ReceiveClient, start: Started
) -> None:
    three_unread(broker, client, start)
    seen: list[str] = []

    def fail(message: Any) -> None:
        seen.append(str(message))
        raise RuntimeError("mine")

    with pytest.raises(errors.LinkDetach):
        client.receive_messages(fail)
    assert seen == ["m0"]  # the others cannot be accepted any more, and come again
    client.close()
    assert left(broker) == ["m0", "m1", "m2"]


def test_calls_that_come_and_go_do_not_hold_up_the_timeout_of_one_that_waits(
    client: ReceiveClient, start: Started
) -> None:
    waits = start("receive_message_batch", 1)
    running = start.running[waits]
    end = time.monotonic() + LIMIT
    while running.is_alive() if start.loop is None else not running.done():
        assert time.monotonic() < end
        assert client.receive_message_batch(1, timeout=50) == []
    assert start.result(waits) == []


@pytest.mark.blocking("waits in a callback")
def test_a_call_after_the_timeout_waits_anew_though_another_is_under_way(
    broker: Broker, client: ReceiveClient, start: Started
) -> None:
    inside, goes_on = threading.Event(), threading.Event()

    def hold(message: Any) -> None:
        inside.set()
        assert goes_on.wait(LIMIT)

    stream = start("receive_messages", hold)
    broker.put("q", "m0")
    assert inside.wait(LIMIT)
    assert client.receive_message_batch(1) == []
    began = time.monotonic()
    assert client.receive_message_batch(1) == []
    assert time.monotonic() - began > 0.3
    goes_on.set()
    start.result(stream)


@pytest.mark.blocking("a callback that waits holds up the loop")
def test_who_waits_while_anothers_callback_runs_does_not_work_all_the_time(broker: Broker, driver: Any) -> None:
    inside, go_on, got = threading.Event(), threading.Event(), []

    def hold(message: Any) -> None:
        got.append(str(message))
        inside.set()
        assert go_on.wait(LIMIT)

    with ReceiveClient(broker.url + "/q", timeout=200) as client:
        client.open()
        start = Started(client, driver)
        start("receive_messages", hold)
        start("receive_messages", hold)
        steps: list[int] = []
        broker.put("q", "first")
        assert inside.wait(LIMIT)
        broker.put("q", "second")
        start.until(lambda: bool(client.message_handler._arrived))
        pump = client._pump
        client._pump = lambda: steps.append(1) or pump()  # type: ignore[method-assign, func-returns-value]
        time.sleep(0.05)
        seen = len(steps)
        go_on.set()
        for number in range(2):
            start.result(number)
    assert got == ["first", "second"] and seen <= 5
