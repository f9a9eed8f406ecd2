"""The async twins of azure-eventhub at their everyday work, over uamqp."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import eventhub
from azure.eventhub import EventData, TransportType
from azure.eventhub.aio import CheckpointStore, EventHubConsumerClient, EventHubProducerClient
from azure.eventhub.exceptions import EventHubError
from common import HOST, ask, describe, main, wait_until_async
from eventhub import options


def producer(**more: Any) -> EventHubProducerClient:
    return EventHubProducerClient.from_connection_string(HOST["connection_string"], **options(**more))


def consumer(**more: Any) -> EventHubConsumerClient:
    return EventHubConsumerClient.from_connection_string(HOST["connection_string"], "$Default", **options(**more))


class Checkpoints(CheckpointStore):
    """The checkpoint store of the sync scenarios, for the async client."""

    def __init__(self) -> None:
        self._held = eventhub.Checkpoints()
        self.points = self._held.points

    async def list_ownership(self, *where: Any, **how: Any) -> Any:
        return self._held.list_ownership(*where, **how)

    async def claim_ownership(self, ownership_list: Any, **how: Any) -> Any:
        return self._held.claim_ownership(ownership_list, **how)

    async def update_checkpoint(self, checkpoint: dict[str, Any], **how: Any) -> None:
        self._held.update_checkpoint(checkpoint, **how)

    async def list_checkpoints(self, *where: Any, **how: Any) -> Any:
        return self._held.list_checkpoints(*where, **how)


async def receive(client: EventHubConsumerClient, enough: Callable[[], Any], on_event: Any, **how: Any) -> list[Any]:
    """Receive until `enough` is true; what on_error was told."""
    errors: list[Any] = []

    async def on_error(context: Any, error: BaseException) -> None:
        errors.append(describe(error))

    task = asyncio.ensure_future(client.receive(on_event=on_event, on_error=on_error, **how))
    try:
        await wait_until_async(enough, what="enough events")
    finally:
        await client.close()
        await asyncio.wait_for(task, 15)
    return errors


async def properties() -> Any:
    async with consumer() as client:
        hub = await client.get_eventhub_properties()
        partition = await client.get_partition_properties("0")
        return {
            "name": hub["eventhub_name"],
            "ids": await client.get_partition_ids(),
            "created": hub["created_at"].timestamp(),
            "empty": partition["is_empty"],
            "last": partition["last_enqueued_sequence_number"],
        }


async def send_batch() -> Any:
    async with producer() as client:
        batch = await client.create_batch()
        for body in ("one", b"two", "three"):
            batch.add(EventData(body))
        await client.send_batch(batch)
        await client.send_batch([EventData("four"), EventData("five")])
        await client.send_event(EventData("six"))
        return {"count": len(batch), "size": batch.size_in_bytes}


async def send_with_a_key() -> Any:
    async with producer() as client:
        for key in ("blue", "green", "blue"):
            batch = await client.create_batch(partition_key=key)
            batch.add(EventData(f"{key} event"))
            batch.add(EventData(f"{key} event, too"))
            await client.send_batch(batch)
        return {}


async def receive_all() -> Any:
    ask("fill", partitions=["0", "1"], each=5)
    seen: list[str] = []

    async def note(context: Any, event: Any) -> None:
        seen.append(event.body_as_str())

    async with consumer(load_balancing_interval=0.5) as client:
        errors = await receive(client, lambda: len(seen) >= 10, note, starting_position="-1")
    return {"seen": sorted(seen), "errors": errors}


async def checkpoint() -> Any:
    ask("fill", partitions=["0"], each=6)
    store = Checkpoints()
    first: list[str] = []
    second: list[str] = []

    async def note(context: Any, event: Any) -> None:
        first.append(event.body_as_str())
        if len(first) == 3:
            await context.update_checkpoint(event)

    async def again(context: Any, event: Any) -> None:
        second.append(event.body_as_str())

    async with consumer(checkpoint_store=store, load_balancing_interval=0.5) as client:
        errors = await receive(client, lambda: len(first) >= 3, note, starting_position="-1")
    async with consumer(checkpoint_store=store, load_balancing_interval=0.5) as client:
        errors += await receive(client, lambda: len(second) >= 3, again, starting_position="-1")
    return {"first": first[:3], "second": second, "point": store.points["0"]["sequence_number"], "errors": errors}


async def buffered() -> Any:
    done: list[Any] = []
    failed: list[Any] = []

    async def on_success(events: Any, partition: Any) -> None:
        done.append((partition, len(events)))

    async def on_error(events: Any, partition: Any, error: BaseException) -> None:
        failed.append(describe(error))

    client = producer(
        buffered_mode=True, on_success=on_success, on_error=on_error, max_wait_time=0.5, max_buffer_length=100
    )
    async with client:
        for i in range(30):
            await client.send_event(EventData(f"b{i}"))
        await client.send_batch([EventData(f"b{i}") for i in range(30, 40)], partition_key="k")
        await client.flush()
        left = client.total_buffered_event_count
    return {
        "sent": sum(count for _, count in done),
        "partitions": sorted({p for p, _ in done}),
        "failed": failed,
        "left": left,
    }


async def many_at_once() -> Any:
    """Producers of several tasks, each with its own connection."""

    async def one(number: int) -> None:
        async with producer() as client:
            await client.send_batch([EventData(f"{number}-{i}") for i in range(5)])

    await asyncio.gather(*(one(number) for number in range(4)))
    return {}


# faults


async def send_after_detach() -> Any:
    async with producer() as client:
        await client.send_event(EventData("before"))
        ask("detach", address="hub")
        await client.send_event(EventData("after"))
        return {}


async def send_after_drop() -> Any:
    async with producer() as client:
        await client.send_event(EventData("before"))
        ask("drop")
        await client.send_event(EventData("after"))
        return {}


async def send_through_detach() -> Any:
    ask("script", address="hub", outcome="none", fail="detach", after=1, times=1)
    async with producer() as client:
        await client.send_event(EventData("one"))
        return {}


async def send_through_throttling() -> Any:
    ask("script", address="hub", outcome="rejected", condition="com.microsoft:server-busy", times=1)
    async with producer() as client:
        await client.send_event(EventData("busy"))
        return {}


async def _receive_through(fault: dict[str, Any]) -> Any:
    ask("fill", partitions=["0"], each=3)
    seen: list[str] = []
    hurt: list[bool] = []

    async def note(context: Any, event: Any) -> None:
        seen.append(event.body_as_str())

    def enough() -> bool:
        if len(seen) >= 3 and not hurt:
            hurt.append(True)
            ask(**fault)
            ask("fill", partitions=["0"], each=3)
        return len(seen) >= 6

    async with consumer(load_balancing_interval=0.5) as client:
        errors = await receive(client, enough, note, partition_id="0", starting_position="-1")
    return {"seen": seen, "errors": errors}


async def receive_through_detach() -> Any:
    return await _receive_through({"what": "detach", "address": "hub/ConsumerGroups/$Default/Partitions/0"})


async def receive_through_drop() -> Any:
    return await _receive_through({"what": "drop"})


async def wrong_key() -> Any:
    wrong = HOST["connection_string"].replace("SharedAccessKey=", "SharedAccessKey=x")
    async with EventHubProducerClient.from_connection_string(wrong, **options(retry_total=0)) as client:
        try:
            await client.send_event(EventData("never"))
        except EventHubError as error:
            return describe(error)
        return {}


async def websocket() -> Any:
    async with producer(transport_type=TransportType.AmqpOverWebsocket) as client:
        await client.send_event(EventData("over a web socket"))
        return {}


if __name__ == "__main__":
    main(__name__)
