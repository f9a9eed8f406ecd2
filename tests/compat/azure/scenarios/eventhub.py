"""azure-eventhub at its everyday work, over uamqp."""

from __future__ import annotations

import threading
import time
from typing import Any

from azure.eventhub import CheckpointStore, EventData, EventHubConsumerClient, EventHubProducerClient, TransportType
from azure.eventhub.exceptions import EventHubError
from common import HOST, ask, describe, main, wait_until


def options(**more: Any) -> dict[str, Any]:
    return {
        "eventhub_name": "hub",
        "custom_endpoint_address": f"sb://localhost:{HOST['port']}",
        "connection_verify": HOST["ca"],
        "uamqp_transport": HOST.get("uamqp_transport", True),
        "retry_total": 3,
        "retry_backoff_factor": 0.05,
        **more,
    }


def producer(**more: Any) -> EventHubProducerClient:
    return EventHubProducerClient.from_connection_string(HOST["connection_string"], **options(**more))


def consumer(**more: Any) -> EventHubConsumerClient:
    return EventHubConsumerClient.from_connection_string(HOST["connection_string"], "$Default", **options(**more))


class Checkpoints(CheckpointStore):
    """A checkpoint store in memory."""

    def __init__(self) -> None:
        self.owners: dict[str, dict[str, Any]] = {}
        self.points: dict[str, dict[str, Any]] = {}
        self._version = 0

    def list_ownership(self, fully_qualified_namespace: str, eventhub_name: str, consumer_group: str, **_: Any) -> Any:
        return [dict(owner) for owner in self.owners.values()]

    def claim_ownership(self, ownership_list: Any, **_: Any) -> Any:
        for owner in ownership_list:
            self._version += 1
            owner["etag"] = str(self._version)
            owner["last_modified_time"] = time.time()
            self.owners[owner["partition_id"]] = dict(owner)
        return list(ownership_list)

    def update_checkpoint(self, checkpoint: dict[str, Any], **_: Any) -> None:
        self.points[checkpoint["partition_id"]] = dict(checkpoint)

    def list_checkpoints(
        self, fully_qualified_namespace: str, eventhub_name: str, consumer_group: str, **_: Any
    ) -> Any:
        return [dict(point) for point in self.points.values()]


def receive(client: EventHubConsumerClient, enough: Any, on_event: Any, **how: Any) -> list[dict[str, Any]]:
    """Receive until `enough` is true; what on_error was told."""
    errors: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=client.receive,
        kwargs={"on_event": on_event, "on_error": lambda _, error: errors.append(describe(error)), **how},
    )
    thread.start()
    try:
        wait_until(enough, what="enough events")
    finally:
        client.close()
        thread.join(15)
    assert not thread.is_alive(), "receive() did not return after close()"
    return errors


def properties() -> Any:
    with consumer() as client:
        hub = client.get_eventhub_properties()
        partition = client.get_partition_properties("0")
        return {
            "name": hub["eventhub_name"],
            "ids": client.get_partition_ids(),
            "created": hub["created_at"].timestamp(),
            "empty": partition["is_empty"],
            "last": partition["last_enqueued_sequence_number"],
        }


def send_batch() -> Any:
    with producer() as client:
        batch = client.create_batch()
        for body in ("one", b"two", "three"):
            batch.add(EventData(body))
        client.send_batch(batch)
        client.send_batch([EventData("four"), EventData("five")])
        client.send_event(EventData("six"))
        return {"count": len(batch), "size": batch.size_in_bytes}


def send_to_a_partition() -> Any:
    with producer() as client:
        batch = client.create_batch(partition_id="1")
        batch.add(EventData("to one"))
        client.send_batch(batch)
        return {}


def send_with_a_key() -> Any:
    with producer() as client:
        for key in ("blue", "green", "blue"):
            batch = client.create_batch(partition_key=key)
            batch.add(EventData(f"{key} event"))
            batch.add(EventData(f"{key} event, too"))
            client.send_batch(batch)
        return {}


def send_rich() -> Any:
    with producer() as client:
        event = EventData(b"\x00\xff")
        event.properties = {"text": "naïve", "number": 7, "bytes": b"\xfe", "yes": True, "real": 1.5}
        event.content_type = "application/octet-stream"
        event.correlation_id = "c-1"
        event.message_id = "m-1"
        batch = client.create_batch(partition_id="0")
        batch.add(event)
        client.send_batch(batch)
    seen: list[Any] = []
    with consumer() as client:
        receive(
            client, lambda: seen, lambda context, event: seen.append(event), partition_id="0", starting_position="-1"
        )
    got = seen[0]
    return {
        "body": b"".join(got.body).hex(),
        "properties": {
            str(k if isinstance(k, str) else k.decode()): x.decode("latin-1") if isinstance(x, bytes) else x
            for k, x in got.properties.items()
        },
        "content_type": got.content_type,
        "correlation_id": got.correlation_id,
        "message_id": got.message_id,
        "sequence": got.sequence_number,
        "offset": got.offset,
        "enqueued": got.enqueued_time.timestamp(),
    }


def too_large() -> Any:
    with producer() as client:
        batch = client.create_batch(max_size_in_bytes=1000)
        full = 0
        try:
            while True:
                batch.add(EventData(b"x" * 200))
                full += 1
        except ValueError:
            client.send_batch(batch)
        return {"fitted": full}


def fill(*partitions: str, each: int = 5) -> None:
    with producer() as client:
        for number in partitions:
            batch = client.create_batch(partition_id=number)
            for i in range(each):
                batch.add(EventData(f"{number}-{i}"))
            client.send_batch(batch)


def receive_all() -> Any:
    ask("fill", partitions=["0", "1"], each=5)
    seen: list[str] = []
    with consumer(load_balancing_interval=0.5) as client:
        errors = receive(
            client,
            lambda: len(seen) >= 10,
            lambda context, event: seen.append(event.body_as_str()),
            starting_position="-1",
        )
    return {"seen": sorted(seen), "errors": errors}


def receive_batches() -> Any:
    ask("fill", partitions=["0"], each=20)
    sizes: list[int] = []
    bodies: list[str] = []
    errors: list[Any] = []

    def on_batch(context: Any, events: Any) -> None:
        sizes.append(len(events))
        bodies.extend(event.body_as_str() for event in events)

    client = consumer()
    thread = threading.Thread(
        target=client.receive_batch,
        kwargs={
            "on_event_batch": on_batch, "partition_id": "0", "starting_position": "-1", "max_batch_size": 7,
            "max_wait_time": 2, "on_error": lambda _, error: errors.append(describe(error)),
        },
    )  # fmt: skip
    thread.start()
    try:
        wait_until(lambda: len(bodies) >= 20, what="twenty events")
    finally:
        client.close()
        thread.join(15)
    return {"largest": max(sizes), "bodies": bodies, "errors": errors, "alive": thread.is_alive()}


def checkpoint() -> Any:
    ask("fill", partitions=["0"], each=6)
    store = Checkpoints()
    first: list[str] = []
    second: list[str] = []

    def note(context: Any, event: Any) -> None:
        first.append(event.body_as_str())
        if len(first) == 3:
            context.update_checkpoint(event)

    with consumer(checkpoint_store=store, load_balancing_interval=0.5) as client:
        errors = receive(client, lambda: len(first) >= 3, note, starting_position="-1")
    with consumer(checkpoint_store=store, load_balancing_interval=0.5) as client:
        errors += receive(
            client,
            lambda: len(second) >= 3,
            lambda context, event: second.append(event.body_as_str()),
            starting_position="-1",
        )
    return {"first": first[:3], "second": second, "point": store.points["0"]["sequence_number"], "errors": errors}


def start_at() -> Any:
    """By sequence number, offset, time, and from now on."""
    ask("fill", partitions=["0"], each=5)
    found = {}
    middle = ask("event", partition="0", number=2)
    positions = {
        "sequence": (2, False), "inclusive": (2, True),
        "offset": (str(middle["offset"]), False), "start": ("-1", False),
    }  # fmt: skip
    wanted = {"sequence": 2, "inclusive": 3, "offset": 2, "start": 5}
    for name, (position, inclusive) in positions.items():
        seen: list[str] = []
        with consumer() as client:
            receive(
                client,
                lambda name=name, seen=seen: len(seen) >= wanted[name],
                lambda context, event, seen=seen: seen.append(event.body_as_str()),
                partition_id="0",
                starting_position=position,
                starting_position_inclusive=inclusive,
            )
        found[name] = seen
    return found


def owner_level() -> Any:
    """A consumer with a higher owner level takes the partition away."""
    ask("fill", partitions=["0"], each=1)
    low_seen: list[str] = []
    high_seen: list[str] = []
    low_errors: list[Any] = []
    low = consumer(retry_total=0)
    thread = threading.Thread(
        target=low.receive,
        kwargs={
            "on_event": lambda context, event: low_seen.append(event.body_as_str()), "partition_id": "0",
            "starting_position": "-1", "owner_level": 1,
            "on_error": lambda _, error: low_errors.append(describe(error)),
        },
    )  # fmt: skip
    thread.start()
    wait_until(lambda: low_seen)
    with consumer() as high:
        receive(
            high,
            lambda: high_seen and low_errors,
            lambda context, event: high_seen.append(event.body_as_str()),
            partition_id="0",
            starting_position="-1",
            owner_level=2,
        )
    low.close()
    thread.join(15)
    return {"low": low_seen, "high": high_seen, "error": low_errors[0]["type"], "alive": thread.is_alive()}


def buffered() -> Any:
    done: list[Any] = []
    failed: list[Any] = []
    client = producer(
        buffered_mode=True,
        on_success=lambda events, partition: done.append((partition, len(events))),
        on_error=lambda events, partition, error: failed.append(describe(error)),
        max_wait_time=0.5,
        max_buffer_length=100,
    )
    with client:
        for i in range(30):
            client.send_event(EventData(f"b{i}"))
        client.send_batch([EventData(f"b{i}") for i in range(30, 40)], partition_key="k")
        client.flush()
        left = client.total_buffered_event_count
    return {
        "sent": sum(count for _, count in done),
        "partitions": sorted({p for p, _ in done}),
        "failed": failed,
        "left": left,
    }


# faults


def send_after_detach() -> Any:
    """The service takes the link back while the producer is idle."""
    with producer() as client:
        client.send_event(EventData("before"))
        ask("detach", address="hub")
        client.send_event(EventData("after"))
        return {}


def send_through_detach() -> Any:
    """The service takes the link back in answer to the first message."""
    ask("script", address="hub", outcome="none", fail="detach", after=1, times=1)
    with producer() as client:
        client.send_event(EventData("one"))
        return {}


def send_through_throttling() -> Any:
    ask("script", address="hub", outcome="rejected", condition="com.microsoft:server-busy", times=1)
    with producer() as client:
        client.send_event(EventData("busy"))
        return {}


def send_against_throttling() -> Any:
    """It stays busy: the error says so."""
    ask("script", address="hub", outcome="rejected", condition="com.microsoft:server-busy", description="wait")
    with producer(retry_total=0) as client:
        try:
            client.send_event(EventData("busy"))
        except EventHubError as error:
            return describe(error)
        return {}


def send_after_drop() -> Any:
    with producer() as client:
        client.send_event(EventData("before"))
        ask("drop")
        client.send_event(EventData("after"))
        return {}


def send_to_nobody() -> Any:
    """A hub that is not there."""
    with producer(eventhub_name="nothub", retry_total=1) as client:
        try:
            client.create_batch()
        except EventHubError as error:
            return describe(error)
        return {}


def wrong_key() -> Any:
    wrong = HOST["connection_string"].replace("SharedAccessKey=", "SharedAccessKey=x")
    with EventHubProducerClient.from_connection_string(wrong, **options(retry_total=0)) as client:
        try:
            client.send_event(EventData("never"))
        except EventHubError as error:
            return describe(error)
        return {}


def _receive_through(fault: dict[str, Any]) -> Any:
    ask("fill", partitions=["0"], each=3)
    seen: list[str] = []
    hurt: list[bool] = []

    def note(context: Any, event: Any) -> None:
        seen.append(event.body_as_str())

    def enough() -> bool:
        if len(seen) >= 3 and not hurt:
            hurt.append(True)
            ask(**fault)
            ask("fill", partitions=["0"], each=3)
        return len(seen) >= 6

    with consumer() as client:
        errors = receive(client, enough, note, partition_id="0", starting_position="-1")
    return {"seen": seen, "errors": errors}


def receive_through_detach() -> Any:
    return _receive_through({"what": "detach", "address": "hub/ConsumerGroups/$Default/Partitions/0"})


def receive_through_drop() -> Any:
    return _receive_through({"what": "drop"})


def _failing(**how: Any) -> Any:
    with producer(retry_total=0, **how) as client:
        try:
            client.create_batch()
        except EventHubError as error:
            return describe(error)
    return {}


def nobody_listens() -> Any:
    return _failing(custom_endpoint_address=f"sb://localhost:{HOST['closed']}")


def wrong_authority() -> Any:
    """The certificate is not signed by one that we trust."""
    return _failing(connection_verify=HOST["other_ca"])


def websocket() -> Any:
    with producer(transport_type=TransportType.AmqpOverWebsocket) as client:
        client.send_event(EventData("over a web socket"))
        return {}


if __name__ == "__main__":
    main(__name__)
