"""Many threads, or tasks, with the same few clients, at random: sending, receiving, stepping, closing, redirecting, dropping.

Whoever comes too late is told so by a documented error; nothing else may show. One class of rounds for both drivers: the
operations are coroutines, which for the blocking classes await nothing. With `interrupts` the main thread takes part, and is
interrupted at random.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from checks import Violations, join
from peer import Peer

from uamqp_cffi import Message, ReceiveClient, SendClient, authentication, errors
from uamqp_cffi._core.waiting import interrupts
from uamqp_cffi.connection import Connection
from uamqp_cffi.constants import TransportType

SENDERS, RECEIVERS = 3, 2
COUNTED = ["sent", "told", "held"]


class Books:
    """What was given to which client."""

    def __init__(self) -> None:
        self.clients: list[Any] = []
        self.connections: list[Any] = []
        self.given: defaultdict[int, list[tuple[str, Message]]] = defaultdict(list)
        self.redirected: set[int] = set()  # clients, which have dropped what was pending
        self.queued: set[int] = set()  # messages that surely were in the queue


class Round:
    """One round: the clients, who uses them, and what must be true afterwards."""

    send_client: Any = SendClient
    receive_client: Any = ReceiveClient
    connection: Any = Connection

    def __init__(self, violations: Violations, peer: Peer, name: str, seed: str, seconds: float) -> None:
        self.violations, self.peer, self.name = violations, peer, name
        self.random = random.Random(seed)
        self.seconds = seconds
        self.books = Books()
        self.over = False
        self.numbers = iter(range(1 << 40))
        self.transport = self.random.choice([TransportType.Amqp, TransportType.Amqp, TransportType.AmqpOverWebsocket])
        self.shared: list[Any] = [None]
        self.senders: list[Any] = [None] * SENDERS
        self.receivers: list[Any] = [None] * RECEIVERS

    def auth(self, host: str = "127.0.0.1") -> Any:
        port = int(self.peer.url.rpartition(":")[2])
        return authentication.SASLAnonymous(host, port=port, use_tls=False, transport_type=self.transport)

    # what is shared

    def make(self, kind: Any, chance: random.Random) -> Any:
        """A client that is not opened; half of them on the shared connection."""
        if kind is self.send_client:
            address = chance.choice(["sent", "sent", "told"])
            client = kind(f"amqp://127.0.0.1/{address}", self.auth(), connect_timeout=5,
                          keep_alive_interval=chance.choice([0, 0, 0.02]))  # fmt: skip
        else:
            client = kind("amqp://127.0.0.1/source", self.auth(), connect_timeout=5, timeout=chance.choice([20, 200]),
                          shutdown_after_timeout=chance.random() < 0.2, prefetch=chance.choice([1, 10, 300]),
                          keep_alive_interval=chance.choice([0, 0, 0.02]))  # fmt: skip
        client._torture_shared = chance.random() < 0.5
        self.books.clients.append(client)
        return client

    async def client(self, slots: list[Any], kind: Any, chance: random.Random) -> Any:
        """One of the clients of that kind, open, if nobody is closing it."""
        at = chance.randrange(len(slots))
        client = slots[at]
        if client is None:
            client = slots[at] = self.make(kind, chance)
        if client._torture_shared:
            await self.do(client, "open", self.common())
        else:
            await self.do(client, "open")
        return client

    def common(self) -> Any:
        connection = self.shared[0]
        if connection is None:
            connection = self.shared[0] = self.connection(b"127.0.0.1", self.auth(), connect_timeout=5)
            self.books.connections.append(connection)
        return connection

    async def do(self, target: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method by the name that it has in the blocking class."""
        return getattr(target, method)(*args, **kwargs)

    def message(self, client: Any, chance: random.Random) -> Message:
        body = f"{self.name}.{next(self.numbers)}{'!' if chance.random() < 0.02 else ''}"
        message = Message(body)
        if chance.random() < 0.3:
            message.on_send_complete = lambda result, error: None
        self.books.given[id(client)].append((body, message))
        return message

    # what they do

    async def send(self, chance: random.Random) -> None:
        client = await self.client(self.senders, self.send_client, chance)
        await self.do(client, "send_message", self.message(client, chance), close_on_done=chance.random() < 0.01)

    async def send_many(self, chance: random.Random) -> None:
        client = await self.client(self.senders, self.send_client, chance)
        messages = [self.message(client, chance) for _ in range(chance.choice([1, 20, 300]))]
        client.queue_message(*messages)
        self.books.queued.update(map(id, messages))
        if chance.random() < 0.5:
            await self.do(client, "send_all_messages", close_on_done=chance.random() < 0.02)
        else:
            await self.do(client, "wait")

    async def step(self, chance: random.Random) -> None:
        slots, kind = chance.choice([(self.senders, self.send_client), (self.receivers, self.receive_client)])
        client = await self.client(slots, kind, chance)
        if kind is self.send_client:
            client.queue_message(self.message(client, chance))
        for _ in range(chance.randrange(20)):
            await self.do(client, "do_work")

    async def receive(self, chance: random.Random) -> None:
        client = await self.client(self.receivers, self.receive_client, chance)
        if chance.random() < 0.5:
            messages = await self.do(client, "receive_message_batch", chance.choice([None, 1]), timeout=50)
            for message in messages:
                if not message.settled:
                    chance.choice([message.accept, message.release])()
        else:
            await self.do(client, "receive_messages", lambda message: None)

    async def iterate(self, chance: random.Random) -> None:
        client = await self.client(self.receivers, self.receive_client, chance)
        left = chance.randrange(1, 30)
        with contextlib.closing(client.receive_messages_iter()) as messages:
            for _ in messages:
                left -= 1
                if not left:
                    break

    async def feed(self, chance: random.Random) -> None:
        """Something to receive."""
        client = self.feeder
        client.queue_message(*[Message(f"to receive {n}") for n in range(100)])
        await self.do(client, "wait")

    async def close(self, chance: random.Random) -> None:
        slots = chance.choice([self.senders, self.receivers])
        at = chance.randrange(len(slots))
        client = slots[at]
        if client is not None:
            if chance.random() < 0.5:
                slots[at] = None  # else others find it closed for a while
            await self.do(client, "close")
            if slots[at] is client:
                slots[at] = None

    async def forget(self, chance: random.Random) -> None:
        """Leave a client to those who work with it."""
        slots = chance.choice([self.senders, self.receivers])
        slots[chance.randrange(len(slots))] = None

    async def destroy(self, chance: random.Random) -> None:
        connection, self.shared[0] = self.shared[0], None
        if connection is not None:
            await self.do(connection, "destroy")

    async def redirect(self, chance: random.Random) -> None:
        slots = chance.choice([self.senders, self.receivers])
        client = chance.choice(slots)
        if client is None or client._torture_shared:
            return
        host = chance.choice(["localhost", "127.0.0.1"])
        info = {
            b"hostname": host.encode(),
            b"port": 0,
            b"address": f"amqp://{host}/{'sent' if slots is self.senders else 'source'}".encode(),
        }
        self.books.redirected.add(id(client))
        await self.do(client, "redirect", errors.LinkRedirect(b"amqp:link:redirect", None, info), self.auth(host))

    async def drop(self, chance: random.Random) -> None:
        """The peer's end of every connection."""
        with self.asking:
            self.peer.drop()

    ACTS = (
        ["send"] * 20 + ["send_many"] * 8 + ["step"] * 6 + ["receive"] * 8 + ["iterate"] * 4 + ["feed"] * 3
        + ["close"] * 2 + ["forget"] + ["destroy"] + ["redirect"] * 2 + ["drop"]
    )  # fmt: skip

    # the round

    async def act(self, chance: random.Random) -> None:
        act = chance.choice(self.ACTS)
        with self.violations.calling(f"{self.kind}: {act}"):
            try:
                await getattr(self, act)(chance)
            except errors.AMQPError:
                if chance.random() < 0.6:  # else others find it broken for a while
                    for slots in (self.senders, self.receivers, self.shared):
                        slots[:] = [one if one is not None and not self.broken(one) else None for one in slots]
                raise

    def broken(self, one: Any) -> bool:
        connection = one if isinstance(one, Connection) else one._connection
        return bool(one._closed or connection is None or connection._failure or getattr(one, "_error", None))

    kind = "threads"

    def worker(self, number: int) -> None:
        chance = random.Random(f"{self.name} {number}")
        while not self.over:
            _run_through(self.act(chance))

    def run(self) -> None:
        self.asking = threading.Lock()
        self.feeder = self.send_client("amqp://127.0.0.1/source", self.auth(), connect_timeout=5)
        self.books.clients.append(self.feeder)
        self.feeder.open()
        workers = [
            threading.Thread(target=self.worker, args=(n,), name=f"worker {n}", daemon=True)
            for n in range(self.random.choice([2, 4, 8]))
        ]
        for worker in workers:
            worker.start()
        try:
            self.meanwhile()
        finally:
            self.over = True
        join(self.violations, workers, self.books.clients)
        for client in self.books.clients:
            _run_through(self.close_finally(client))
        for connection in self.books.connections:
            _run_through(self.close_finally(connection, "destroy"))
        self.check()

    def meanwhile(self) -> None:
        time.sleep(self.seconds)

    async def close_finally(self, target: Any, method: str = "close") -> None:
        with self.violations.calling(f"{self.kind}: {method} at the end"):
            await self.do(target, method)

    def check(self) -> None:
        got = self.peer.got(self.name + ".")
        for client in self.books.clients:
            pending = getattr(client, "pending_messages", [])
            queued = self.books.queued if id(client) not in self.books.redirected else None
            self.violations.messages(self.kind, self.books.given[id(client)], pending, got, queued)
        self.books = Books()
        self.feeder = None
        self.senders = self.receivers = self.shared = []
        self.violations.settled_down(self.peer)
        self.peer.forget("source")


def _run_through(work: Any) -> None:
    """Run a coroutine that awaits nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("it awaits")


class Interrupts(Round):
    """The main thread takes part, and is interrupted."""

    kind = "Ctrl-C among threads"
    ACTS = [act for act in Round.ACTS if act not in ("drop", "redirect", "forget")]

    came = 0
    armed = False

    def meanwhile(self) -> None:
        chance = random.Random(f"{self.name} main")
        end = time.monotonic() + self.seconds
        stop = threading.Event()
        gaps = random.Random(f"{self.name} gaps")

        def handler(number: int, frame: Any) -> None:
            if self.armed:
                self.armed = False
                raise KeyboardInterrupt

        def shoot() -> None:
            while not stop.is_set():
                stop.wait(gaps.expovariate(1 / 0.004))
                if self.armed:
                    os.kill(os.getpid(), signal.SIGINT)

        interrupts.PATIENCE = 10.0  # here an interrupt insists every few milliseconds, on a machine that may be busy
        before = signal.signal(signal.SIGINT, handler)
        shooter = threading.Thread(target=shoot, name="shooter", daemon=True)
        shooter.start()
        try:
            while time.monotonic() < end:
                try:
                    self.armed = True
                    _run_through(self.act(chance))
                    self.armed = False
                except KeyboardInterrupt:
                    Interrupts.came += 1
                if signal.getsignal(signal.SIGINT) is not handler:
                    self.violations.add("the handler of SIGINT is not what it was")
                    signal.signal(signal.SIGINT, handler)
        finally:
            self.armed = False
            stop.set()
            shooter.join()
            signal.signal(signal.SIGINT, before)


class LoopRound(Round):
    """Tasks on a loop, some of which are cancelled."""

    kind = "loop"

    def __init__(self, *args: Any) -> None:
        from uamqp_cffi import async_ops
        from uamqp_cffi.async_ops import client_async

        super().__init__(*args)
        self.send_client, self.receive_client = client_async.SendClientAsync, client_async.ReceiveClientAsync
        self.connection = async_ops.ConnectionAsync

    async def do(self, target: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(target, method + "_async")(*args, **kwargs)

    async def iterate(self, chance: random.Random) -> None:
        client = await self.client(self.receivers, self.receive_client, chance)
        left = chance.randrange(1, 30)
        async for _ in client.receive_messages_iter_async():
            left -= 1
            if not left:
                break

    async def task(self, number: int) -> None:
        chance = random.Random(f"{self.name} {number}")
        while not self.over:
            if chance.random() < 0.7:
                await self.act(chance)
            else:
                act = asyncio.ensure_future(self.act(chance))
                await asyncio.wait((act,), timeout=chance.expovariate(1 / 0.003))
                while not act.done():
                    act.cancel()
                    begun = time.monotonic()
                    await asyncio.wait((act,), timeout=15)
                    if time.monotonic() - begun > 14:
                        act.print_stack()
                        self.violations.add(f"{self.kind}: a cancelled call stays")
                        return
                if not act.cancelled():
                    act.result()
            await asyncio.sleep(0)

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, context: self.violations.add(f"loop: {context['message']}", repr(context.get("exception")))
        )
        self.feeder = self.send_client("amqp://127.0.0.1/source", self.auth(), connect_timeout=5)
        self.books.clients.append(self.feeder)
        await self.feeder.open_async()
        tasks = [asyncio.ensure_future(self.task(n)) for n in range(self.random.choice([2, 8, 30]))]
        await asyncio.sleep(self.seconds)
        self.over = True
        _, late = await asyncio.wait(tasks, timeout=20)
        for task in late:
            self.violations.add("loop: tasks stay for ever")
            task.print_stack()
            task.cancel()
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                self.violations.error("loop: a task", task.exception())
        for client in self.books.clients:
            await self.close_finally(client)
        for connection in self.books.connections:
            await self.close_finally(connection, "destroy")

    def run(self) -> None:
        self.asking = threading.Lock()
        asyncio.run(self.main())
        self.check()


KINDS: dict[str, Callable[..., Round]] = {"threads": Round, "signals": Interrupts, "loop": LoopRound}


def torture(kind: str, violations: Violations, seed: str, seconds: float, length: float, at: int | None) -> str:
    """Rounds of `length` seconds of that kind, for `seconds`; or only round `at`. Gives what there was of it."""
    end = time.monotonic() + seconds
    with Peer(counted=COUNTED) as peer:
        n = 0
        while time.monotonic() < end:
            if at is None or n == at:
                violations.round = f"{kind} --seed {seed} --at {n}"
                KINDS[kind](violations, peer, f"{seed}-{n}", f"{seed}-{n}", length).run()
            n += 1
            if at is not None and n > at:
                break
    return f"{n} rounds" + (f", {Interrupts.came} interrupts" if kind == "signals" else "")
