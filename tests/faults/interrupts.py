"""Ctrl-C in one thread, at each place in turn where CPython looks for signals: where a function begins, after a call, and where
a loop goes round.

A scenario runs once to count the places in our code, then once for each of them with SIGINT raised there. Then its clients are
used once more, and closed, now and then with a second interrupt in that.
"""

from __future__ import annotations

import asyncio
import contextlib
import dis
import functools
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

from checks import Violations
from peer import Peer

import uamqp_cffi
from uamqp_cffi import Message, ReceiveClient, SendClient, authentication
from uamqp_cffi.async_ops.client_async import ReceiveClientAsync, SendClientAsync
from uamqp_cffi.constants import TransportType

OURS = uamqp_cffi.__path__[0]
LOOKS = {name for name in dis.opmap if name.startswith(("CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE"))} - {
    "JUMP_BACKWARD_NO_INTERRUPT"
}


@functools.cache
def _resumes(code: CodeType) -> dict[int, int]:
    """Where a frame begins, or goes on: 0, 1 after a `yield`, 2 and 3 inside of a `yield from` or an `await`, where Python looks
    for no signals."""
    return {one.offset: (one.arg or 0) & 3 for one in dis.get_instructions(code) if one.opname == "RESUME"}


_CALLED_BY_ASYNCIO = {"connection_made", "data_received", "resume_writing", "eof_received", "connection_lost"}
"""Before the first instruction of these asyncio has been interrupted, not we; and has lost what it was about to tell."""


class Place:
    """Raises SIGINT at the `at`-th place in our code, counted from when `with` begins; counts all when that is None."""

    def __init__(self, at: int | None) -> None:
        self.at, self.count = at, 0
        self.where = ""
        self._looks: dict[CodeType, set[int]] = {}

    def __enter__(self) -> Place:
        sys.settrace(self._call)
        return self

    def __exit__(self, *args: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        kind = _resumes(frame.f_code).get(frame.f_lasti, 0)
        if kind == 0 and frame.f_code.co_name not in _CALLED_BY_ASYNCIO:
            self._reached(frame)
        if self.at is not None and self.count > self.at:
            return None
        return self._resumed if kind == 1 else self._opcode

    def _resumed(self, frame: FrameType, event: str, arg: Any) -> Any:
        """The first instruction after a `yield`: what is raised here, unlike by the call, meets the handlers around it."""
        self._reached(frame)
        return self._opcode

    def _opcode(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode" and frame.f_lasti in self._after_a_look(frame.f_code):
            self._reached(frame)
        return self._opcode

    def _after_a_look(self, code: CodeType) -> set[int]:
        """Offsets of the instructions before which signals have been looked for."""
        found = self._looks.get(code)
        if found is None:
            found, looked = set(), False
            for one in dis.get_instructions(code):
                if looked:
                    found.add(one.offset)
                looked = one.opname in LOOKS
            self._looks[code] = found
        return found

    def _reached(self, frame: FrameType) -> None:
        self.count += 1
        if self.count - 1 == self.at:
            sys.settrace(None)
            self.where = f"{frame.f_code.co_filename[len(OURS) + 1 :]}:{frame.f_lineno} {frame.f_code.co_name}"
            signal.raise_signal(signal.SIGINT)


class Scene:
    """What one run of a scenario has to do with."""

    def __init__(self, peer: Peer, name: str, transport: TransportType) -> None:
        self.peer, self.name, self.transport = peer, name, transport
        self.clients: list[Any] = []
        self.given: list[tuple[str, Message]] = []
        self.queued: set[int] = set()
        self.loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Any) -> Any:
        """What a scenario, or a method, gave, to its end if it is a coroutine: on a loop for which the first Ctrl-C raises."""
        if not hasattr(work, "__await__"):
            return work
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
        return self.loop.run_until_complete(work)

    def do(self, client: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method by the name that it has in the blocking class; after an interrupt there may be tasks, which are
        cancelled, as `asyncio.run` does."""
        if self.loop is not None:
            self.settle()
            while tasks := asyncio.all_tasks(self.loop):
                for task in tasks:
                    task.cancel()
                with contextlib.suppress(KeyboardInterrupt):  # who gathered a task that was interrupted is so, too
                    self.loop.run_until_complete(asyncio.wait(tasks))
                self.settle()
            method += "_async"
        return self.run(getattr(client, method)(*args, **kwargs))

    def settle(self) -> None:
        """Have a loop that was interrupted do what it has begun. A `stop()` of the future that was run may be part of it."""
        if self.loop is not None:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def end(self) -> None:
        if self.loop is not None:
            for _ in range(3):  # `asyncio.run` does as much
                self.settle()
            self.loop.close()

    def client(self, kind: Any, queue: str, **more: Any) -> Any:
        port = int(self.peer.url.rpartition(":")[2])
        auth = authentication.SASLAnonymous("127.0.0.1", port=port, use_tls=False, transport_type=self.transport)
        client = kind(f"amqp://127.0.0.1/{queue}", auth, connect_timeout=5, **more)
        self.clients.append(client)
        return client

    def sender(self) -> SendClient:
        return self.client(SendClient, "sent")

    def receiver(self, **more: Any) -> ReceiveClient:
        return self.client(ReceiveClient, "source", timeout=50, shutdown_after_timeout=False, **more)

    def message(self) -> Message:
        body = f"{self.name}.{len(self.given)}"
        self.given.append((body, Message(body)))
        return self.given[-1][1]

    def queue(self, client: SendClient, count: int) -> None:
        messages = [self.message() for _ in range(count)]
        client.queue_message(*messages)
        self.queued.update(map(id, messages))


def send_message(scene: Scene) -> None:
    client = scene.sender()
    client.open()
    client.send_message(scene.message())
    client.send_message(scene.message())


def send_all(scene: Scene) -> None:
    client = scene.sender()
    client.open()
    scene.queue(client, 300)
    client.send_all_messages(close_on_done=False)


def step(scene: Scene) -> None:
    client = scene.sender()
    client.open()
    scene.queue(client, 5)
    while client.messages_pending():
        client.do_work()


def told(scene: Scene) -> None:
    client = scene.sender()
    client.open()
    messages = [scene.message() for _ in range(3)]
    for message in messages:
        message.on_send_complete = lambda result, error: None
    client.queue_message(*messages)
    scene.queued.update(map(id, messages))
    client.wait()


def close(scene: Scene) -> None:
    client = scene.sender()
    client.open()
    while not client.client_ready():
        pass
    scene.queue(client, 20)
    client.do_work()
    client.close()


def shared(scene: Scene) -> None:
    """A client on the connection of another."""
    first = scene.sender()
    first.open()
    first.send_message(scene.message())
    second = scene.client(SendClient, "sent")
    second.open(first._connection)
    scene.queue(first, 3)
    scene.queue(second, 3)
    second.wait()
    second.close()
    first.wait()


def receive_batch(scene: Scene) -> None:
    scene.peer.put("source", *map(str, range(20)))
    client = scene.receiver()
    client.open()
    for _ in range(2):
        client.receive_message_batch(10)


def iterate(scene: Scene) -> None:
    scene.peer.put("source", *map(str, range(4)))
    client = scene.receiver(prefetch=2)
    client.open()
    with contextlib.closing(client.receive_messages_iter()) as messages:  # what a collected one raises, Python drops
        for number, _ in enumerate(messages):
            if number == 3:
                break


def stream(scene: Scene) -> None:
    scene.peer.put("source", *map(str, range(4)))
    client = scene.receiver(auto_complete=False)
    client.open()
    client.receive_messages(lambda message: message.accept())


async def send_on_loop(scene: Scene) -> None:
    client = scene.client(SendClientAsync, "sent")
    await client.open_async()
    await client.send_message_async(scene.message())
    scene.queue(client, 100)
    await asyncio.gather(client.wait_async(), client.send_message_async(scene.message()))


async def close_on_loop(scene: Scene) -> None:
    client = scene.client(SendClientAsync, "sent")
    await client.open_async()
    while not await client.client_ready_async():
        pass
    scene.queue(client, 20)
    await client.do_work_async()
    await client.close_async()


async def receive_on_loop(scene: Scene) -> None:
    scene.peer.put("source", *map(str, range(20)))
    client = scene.client(ReceiveClientAsync, "source", timeout=50, shutdown_after_timeout=False)
    await client.open_async()
    await client.receive_message_batch_async(10)
    async for message in client.receive_messages_iter_async():
        message.accept()


SCENARIOS: dict[str, Callable[[Scene], Any]] = {
    one.__name__: one for one in (
        send_message, send_all, step, told, close, shared, receive_batch, iterate, stream,
        send_on_loop, close_on_loop, receive_on_loop,
    )
}  # fmt: skip


def _run(violations: Violations, scene: Scene, scenario: str, place: Place) -> None:
    came = False
    try:
        with violations.calling(scenario), place:
            scene.run(SCENARIOS[scenario](scene))
    except KeyboardInterrupt:
        came = True
    if place.where and not came:
        violations.add(f"{scenario}: the interrupt did not come out", place.where)
    _check_handler(violations, scenario, place.where)


def _check_handler(violations: Violations, scenario: str, where: str) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        violations.add(f"{scenario}: the handler of SIGINT is not what it was", where)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _after(violations: Violations, scene: Scene, scenario: str, chance: random.Random) -> None:
    """It works, or says that it does not; and it can be closed."""
    for client in scene.clients:
        if chance.random() < 0.5 and isinstance(client, SendClient):
            with violations.calling(f"{scenario}: using it after an interrupt"):
                scene.do(client, "send_message", scene.message())
        elif chance.random() < 0.5 and not client._closed and isinstance(client, ReceiveClient):
            with violations.calling(f"{scenario}: using it after an interrupt"):
                client._timeout = 5000  # the scenario's is short
                scene.do(client, "open")
                scene.peer.put("source", "one more")
                if not scene.do(client, "receive_message_batch", 1, timeout=3000):
                    violations.add(f"{scenario}: nothing is received after an interrupt")
        _check_handler(violations, f"{scenario}: using it after an interrupt", "")
    for client in scene.clients:
        if chance.random() < 0.5:
            again = Place(chance.randrange(1500))
            try:
                with violations.calling(f"{scenario}: close, interrupted"), again:
                    scene.do(client, "close")
            except KeyboardInterrupt:
                violations.round += f", again in close at {again.where}"
            _check_handler(violations, f"{scenario}: close, interrupted", again.where)
    for client in scene.clients:
        with violations.calling(f"{scenario}: close"):
            scene.do(client, "close")
        _check_handler(violations, f"{scenario}: close", "")
    got = scene.peer.got(scene.name + ".")
    pending = [message for client in scene.clients for message in getattr(client, "pending_messages", [])]
    violations.messages(scenario, scene.given, pending, got, scene.queued)
    scene.end()
    if not scene.clients:
        return
    scene.clients.clear()
    if scenario in ("receive_batch", "iterate", "stream", "receive_on_loop"):
        scene.peer.forget("source")
    client = None
    violations.settled_down(scene.peer)


def _places(count: int, seed: str) -> Iterator[int]:
    """All of them, in an order in which the first few are spread evenly."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    yield from order


def interrupts(violations: Violations, seed: str, seconds: float, only: str | None, at: int | None) -> str:
    """Interrupt each scenario, at all places in random order for its share of the time. Gives how much was done."""
    names = [only] if only else list(SCENARIOS)
    done = total = 0
    with Peer(counted=["sent"]) as peer:
        for name in names:
            transport = TransportType.Amqp
            count = Place(None)
            scene = Scene(peer, f"{seed}-{name}-count", transport)
            with violations.calling(name), count:
                scene.run(SCENARIOS[name](scene))
            for client in scene.clients:
                scene.do(client, "close")
            scene.clients.clear()
            scene.end()
            total += count.count
            end = time.monotonic() + seconds / len(names)
            for place in [at] if at is not None else _places(count.count, f"{seed} {name}"):
                if time.monotonic() > end:
                    break
                chance = random.Random(f"{seed} {name} {place}")
                violations.round = f"interrupts --scenario {name} --seed {seed} --at {place}"
                scene = Scene(
                    peer,
                    f"{seed}-{name}-{place}",
                    chance.choice([transport, transport, TransportType.AmqpOverWebsocket]),
                )
                one = Place(place)
                _run(violations, scene, name, one)
                violations.round += f" ({one.where})"
                _after(violations, scene, name, chance)
                done += 1
    return f"{done} interrupts at {total} places"
