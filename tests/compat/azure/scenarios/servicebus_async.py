"""The async twins of azure-servicebus at their everyday work, over uamqp."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
    TransportType,
)
from azure.servicebus.aio import AutoLockRenewer, ServiceBusClient
from azure.servicebus.exceptions import ServiceBusError
from common import HOST, ask, describe, main, wait_until_async
from servicebus import options, token_that_lasts


def client(**more: Any) -> ServiceBusClient:
    return ServiceBusClient.from_connection_string(HOST["connection_string"], **options(**more))


async def send() -> Any:
    """Single, as a list, as a batch."""
    async with client() as bus, bus.get_queue_sender("queue") as sender:
        await sender.send_messages(ServiceBusMessage("single"))
        await sender.send_messages([ServiceBusMessage("list 1"), ServiceBusMessage(b"list 2")])
        batch = await sender.create_message_batch()
        for i in range(3):
            batch.add_message(ServiceBusMessage(f"batch {i}"))
        await sender.send_messages(batch)
        return {"count": len(batch), "size": batch.size_in_bytes}


async def complete() -> Any:
    ask("put", address="queue", bodies=["a", "b", "c"])
    async with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        seen = []
        while len(seen) < 3:
            for message in await receiver.receive_messages(max_message_count=3, max_wait_time=5):
                seen.append(str(message))
                await receiver.complete_message(message)
        return {"seen": seen, "after": [str(m) for m in await receiver.receive_messages(max_wait_time=0.5)]}


async def abandon() -> Any:
    ask("put", address="queue", bodies=["again"])
    async with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        [first] = await receiver.receive_messages(max_wait_time=5)
        await receiver.abandon_message(first)
        [second] = await receiver.receive_messages(max_wait_time=5)
        await receiver.complete_message(second)
        return {"first": str(first), "second": str(second), "counts": [first.delivery_count, second.delivery_count]}


async def dead_letter() -> Any:
    ask("put", address="queue", bodies=["bad"])
    async with client() as bus:
        async with bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
            [message] = await receiver.receive_messages(max_wait_time=5)
            await receiver.dead_letter_message(message, reason="smell", error_description="it smells")
        sub_queue = ServiceBusSubQueue.DEAD_LETTER
        async with bus.get_queue_receiver("queue", sub_queue=sub_queue, max_wait_time=5) as receiver:
            [message] = await receiver.receive_messages(max_wait_time=5)
            await receiver.complete_message(message)
            return {
                "body": str(message), "reason": message.dead_letter_reason,
                "description": message.dead_letter_error_description,
            }  # fmt: skip


async def defer() -> Any:
    ask("put", address="queue", bodies=["later"])
    async with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        [message] = await receiver.receive_messages(max_wait_time=5)
        number = message.sequence_number
        await receiver.defer_message(message)
        [again] = await receiver.receive_deferred_messages([number])
        await receiver.complete_message(again)
        return {"first": str(message), "again": str(again), "number": number}


async def receive_and_delete() -> Any:
    ask("put", address="queue", bodies=["x", "y"])
    async with client() as bus:
        mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
        async with bus.get_queue_receiver("queue", receive_mode=mode, max_wait_time=3) as receiver:
            seen: list[str] = []
            while len(seen) < 2:
                seen += [str(m) for m in await receiver.receive_messages(max_message_count=2, max_wait_time=3)]
            return {"seen": seen}


async def iterate() -> Any:
    ask("put", address="queue", bodies=[str(i) for i in range(10)])
    async with client() as bus, bus.get_queue_receiver("queue", max_wait_time=1, prefetch_count=5) as receiver:
        seen = []
        async for message in receiver:
            seen.append(str(message))
            await receiver.complete_message(message)
        return {"seen": seen}


async def peek() -> Any:
    ask("put", address="queue", bodies=["a", "b", "c"])
    async with client() as bus, bus.get_queue_receiver("queue") as receiver:
        first = await receiver.peek_messages(max_message_count=2)
        rest = await receiver.peek_messages(max_message_count=5)
        none = await receiver.peek_messages(max_message_count=5, sequence_number=100)
        return {"first": [str(m) for m in first], "rest": [str(m) for m in rest], "none": len(none)}


async def schedule() -> Any:
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1.5)
    late = soon + datetime.timedelta(hours=1)
    async with client() as bus:
        async with bus.get_queue_sender("queue") as sender:
            numbers = await sender.schedule_messages([ServiceBusMessage("soon 1"), ServiceBusMessage("soon 2")], soon)
            [cancelled] = await sender.schedule_messages(ServiceBusMessage("late"), late)
            await sender.cancel_scheduled_messages(cancelled)
        async with bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
            seen = []
            while len(seen) < 2:
                for message in await receiver.receive_messages(max_message_count=5, max_wait_time=5):
                    seen.append(str(message))
                    await receiver.complete_message(message)
    return {"numbers": numbers, "cancelled": cancelled, "seen": sorted(seen)}


async def renew() -> Any:
    ask("put", address="queue", bodies=["slow"])
    async with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        [message] = await receiver.receive_messages(max_wait_time=5)
        before = message.locked_until_utc
        await asyncio.sleep(0.5)  # the lock's own time has to pass, nothing else
        after = await receiver.renew_message_lock(message)
        await receiver.complete_message(message)
        return {"longer": (after - before).total_seconds()}


async def renew_by_itself() -> Any:
    ask("lock", seconds=4)
    ask("put", address="queue", bodies=["slow"])
    async with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        async with AutoLockRenewer() as renewer:
            [message] = await receiver.receive_messages(max_wait_time=5)
            renewer.register(receiver, message, max_lock_renewal_duration=60)
            await asyncio.sleep(5)  # longer than the first lock
            await receiver.complete_message(message)
            return {"count": message.delivery_count}


async def sessions() -> Any:
    async with client() as bus:
        async with bus.get_queue_sender("sessions") as sender:
            await sender.send_messages([ServiceBusMessage(f"{s}{i}", session_id=s) for i in range(2) for s in "ab"])
        seen: dict[str, list[str]] = {}
        async with bus.get_queue_receiver("sessions", session_id="a", max_wait_time=2) as receiver:
            await receiver.session.set_state("half done")
            state = await receiver.session.get_state()
            renewed = await receiver.session.renew_lock()
            async for message in receiver:
                seen.setdefault(message.session_id, []).append(str(message))
                await receiver.complete_message(message)
        async with bus.get_queue_receiver("sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=2) as receiver:
            next_one = receiver.session.session_id
            async for message in receiver:
                seen.setdefault(message.session_id, []).append(str(message))
                await receiver.complete_message(message)
        return {
            "seen": seen, "state": state.decode() if isinstance(state, bytes) else state, "next": next_one,
            "renewed": (renewed - datetime.datetime.now(datetime.timezone.utc)).total_seconds(),
        }  # fmt: skip


# an idle receiver: what its keep-alive task does


async def idle_releases() -> Any:
    """With prefetch_count=0 a receiver that nobody calls gives back what comes to it, and another one has it."""
    async with client() as bus, bus.get_queue_receiver("queue") as idle:
        assert await idle.receive_messages(max_wait_time=0.2) == []
        ask("put", address="queue", bodies=["one"])
        async with bus.get_queue_receiver("queue") as busy:
            [message] = await busy.receive_messages(max_wait_time=15)
            await busy.complete_message(message)
            return {"body": str(message), "count": message.delivery_count}


async def idle_session_releases() -> Any:
    """As there, though nobody else may have the session."""
    async with client() as bus, bus.get_queue_receiver("sessions", session_id="a") as idle:
        assert await idle.receive_messages(max_wait_time=0.2) == []
        ask("put", address="sessions", bodies=["one"], group_id="a")
        assert ask("locked", address="sessions") == 1
        end = asyncio.get_running_loop().time() + 15
        while not (released := ask("released", address="sessions", seconds=0)):
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.02)
        return {"released": released}


async def idle_keeps() -> Any:
    """With a prefetch_count it keeps them for the next call."""
    async with client() as bus:
        async with bus.get_queue_receiver("queue", prefetch_count=HOST["prefetch"], keep_alive=1) as idle:
            assert await idle.receive_messages(max_wait_time=0.2) == []
            ask("put", address="queue", bodies=["one", "two", "three"])
            await wait_until_async(lambda: idle._handler._received_messages.qsize() == 3)
            seen = await idle.receive_messages(max_message_count=3, max_wait_time=5)
            for message in seen:
                await idle.complete_message(message)
            return {"seen": [str(message) for message in seen]}


# tokens that run out while nobody calls the client; the namespace takes the links away then


class Credential:
    """Tokens of some seconds each."""

    def __init__(self, life: float) -> None:
        self.life = life

    async def get_token(self, *scopes: str, **_: Any) -> Any:
        await asyncio.sleep(0.01)
        return token_that_lasts(self.life)

    async def close(self) -> None:
        """There is nothing to close."""

    async def __aenter__(self) -> Credential:
        return self

    async def __aexit__(self, *args: object) -> None:
        return


async def token_runs_out() -> Any:
    seen = []
    async with (
        ServiceBusClient("localhost", Credential(3), **options()) as bus,
        bus.get_queue_sender("queue") as sender,
        bus.get_queue_receiver("queue") as receiver,
    ):
        for body in ("one", "two"):
            await sender.send_messages(ServiceBusMessage(body))
            [message] = await receiver.receive_messages(max_wait_time=5)
            await receiver.complete_message(message)
            seen.append(str(message))
            await asyncio.sleep(4.1 if body == "one" else 0)
    return {"seen": seen}


# faults


async def send_after_detach() -> Any:
    async with client() as bus, bus.get_queue_sender("queue") as sender:
        await sender.send_messages(ServiceBusMessage("before"))
        ask("detach", address="queue")
        await sender.send_messages(ServiceBusMessage("after"))
        return {}


async def send_after_drop() -> Any:
    async with client() as bus, bus.get_queue_sender("queue") as sender:
        await sender.send_messages(ServiceBusMessage("before"))
        ask("drop")
        await sender.send_messages(ServiceBusMessage("after"))
        return {}


async def send_through_detach() -> Any:
    ask("script", address="queue", outcome="none", fail="detach", after=1, times=1)
    async with client() as bus, bus.get_queue_sender("queue") as sender:
        await sender.send_messages(ServiceBusMessage("one"))
        return {}


async def send_through_throttling() -> Any:
    ask("script", address="queue", outcome="rejected", condition="com.microsoft:server-busy", times=1)
    async with client() as bus, bus.get_queue_sender("queue") as sender:
        await sender.send_messages(ServiceBusMessage("busy"))
        return {}


async def _receive_through(**fault: Any) -> Any:
    ask("put", address="queue", bodies=["one"])
    seen = []
    async with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        for body in ("two", None):
            while not (messages := await receiver.receive_messages(max_wait_time=5)):
                continue
            seen.append(str(messages[0]))
            await receiver.complete_message(messages[0])
            if body is not None:
                assert ask("completed", count=1), "the outcome did not arrive"
                ask(**fault)
                ask("put", address="queue", bodies=[body])
    return {"seen": seen}


async def receive_through_detach() -> Any:
    return await _receive_through(what="detach", address="queue")


async def receive_through_drop() -> Any:
    return await _receive_through(what="drop")


async def wrong_key() -> Any:
    HOST["connection_string"] = HOST["connection_string"].replace("SharedAccessKey=", "SharedAccessKey=x")
    try:
        async with client(retry_total=0) as bus, bus.get_queue_sender("queue") as sender:
            await sender.send_messages(ServiceBusMessage("never"))
    except ServiceBusError as error:
        return describe(error)
    return {}


async def websocket() -> Any:
    ask("put", address="queue", bodies=["there"])
    async with client(transport_type=TransportType.AmqpOverWebsocket) as bus:
        async with bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
            [message] = await receiver.receive_messages(max_wait_time=5)
            await receiver.complete_message(message)
        async with bus.get_queue_sender("queue") as sender:
            await sender.send_messages(ServiceBusMessage("and back"))
        return {"body": str(message)}


if __name__ == "__main__":
    main(__name__)
