"""azure-eventhub 5.15.1 with uamqp_transport=True."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from azure_namespace import Namespace

from uamqp_cffi._core.engine.types import Symbol

Run = Callable[..., Any]

BOTH = pytest.mark.parametrize("module", ["eventhub", "eventhub_async"])


@BOTH
def test_properties_of_hub_and_partitions_are_read(run: Run, module: str) -> None:
    got = run(module, "properties")
    assert got["name"] == "hub"
    assert got["ids"] == ["0", "1"]
    assert abs(got["created"] - time.time()) < 60
    assert (got["empty"], got["last"]) == (True, -1)


@BOTH
def test_batches_lists_and_single_events_arrive(run: Run, module: str, namespace: Namespace) -> None:
    got = run(module, "send_batch")
    assert got["count"] == 3 and got["size"] > 0
    assert sorted(namespace.hub.bodies()) == sorted([b"one", b"two", b"three", b"four", b"five", b"six"])


def test_a_partition_is_chosen(run: Run, namespace: Namespace) -> None:
    run("eventhub", "send_to_a_partition")
    assert [len(partition.events) for partition in namespace.hub.partitions.values()] == [0, 1]


@BOTH
def test_a_producer_names_its_capabilities_as_symbols(run: Run, module: str, namespace: Namespace) -> None:
    run(module, "send_batch")
    assert namespace.hub.wanted
    for names in namespace.hub.wanted:
        assert names == ["com.microsoft:georeplication"] and isinstance(names[0], Symbol)


@BOTH
def test_events_of_one_key_share_a_partition_and_keep_the_key(run: Run, module: str, namespace: Namespace) -> None:
    run(module, "send_with_a_key")
    where: dict[bytes, set[str]] = {}
    for number, partition in namespace.hub.partitions.items():
        for message in partition.messages():
            where.setdefault(message.annotations[b"x-opt-partition-key"], set()).add(number)
    assert where.keys() == {b"blue", b"green"}
    assert all(len(numbers) == 1 for numbers in where.values())
    assert len(namespace.hub.bodies()) == 6


def test_properties_of_an_event_survive_the_round_trip(run: Run) -> None:
    got = run("eventhub", "send_rich")
    assert got["body"] == "00ff"
    assert {key: got["properties"][key] for key in ("number", "yes", "real")} == {"number": 7, "yes": True, "real": 1.5}
    assert (got["content_type"], got["correlation_id"], got["message_id"]) == ("application/octet-stream", "c-1", "m-1")
    assert got["sequence"] == 0 and got["offset"] == "0"
    assert abs(got["enqueued"] - time.time()) < 60


def test_a_batch_takes_no_more_than_its_size(run: Run, namespace: Namespace) -> None:
    got = run("eventhub", "too_large")
    assert 2 <= got["fitted"] <= 4
    assert len(namespace.hub.bodies()) == got["fitted"]


@BOTH
def test_a_consumer_of_all_partitions_gets_every_event_once(run: Run, module: str) -> None:
    got = run(module, "receive_all")
    assert got == {"seen": [f"{p}-{i}" for p in "01" for i in range(5)], "errors": []}


def test_batches_of_events_are_received(run: Run) -> None:
    got = run("eventhub", "receive_batches")
    assert got["bodies"] == [f"0-{i}" for i in range(20)]
    assert 1 < got["largest"] <= 7
    assert got["errors"] == [] and not got["alive"]


@BOTH
def test_a_consumer_goes_on_at_the_checkpoint(run: Run, module: str) -> None:
    got = run(module, "checkpoint")
    assert got == {"first": ["0-0", "0-1", "0-2"], "second": ["0-3", "0-4", "0-5"], "point": 2, "errors": []}


def test_positions_to_start_at(run: Run) -> None:
    got = run("eventhub", "start_at")
    assert got["sequence"] == got["offset"] == ["0-3", "0-4"]
    assert got["inclusive"] == ["0-2", "0-3", "0-4"]
    assert len(got["start"]) == 5


def test_a_higher_owner_level_takes_the_partition(run: Run) -> None:
    got = run("eventhub", "owner_level")
    assert got == {"low": ["0-0"], "high": ["0-0"], "error": "ConnectionLostError", "alive": False}


@BOTH
def test_a_buffered_producer_sends_and_reports_everything(run: Run, module: str, namespace: Namespace) -> None:
    got = run(module, "buffered")
    assert got == {"sent": 40, "partitions": ["0", "1"], "failed": [], "left": 0}
    assert sorted(namespace.hub.bodies()) == sorted(b"b%d" % i for i in range(40))


def test_several_tasks_send_at_once(run: Run, namespace: Namespace) -> None:
    run("eventhub_async", "many_at_once")
    assert sorted(namespace.hub.bodies()) == sorted(b"%d-%d" % (n, i) for n in range(4) for i in range(5))


@BOTH
@pytest.mark.parametrize("how", ["detach", "drop"])
def test_sending_goes_on_after_a_fault_in_between(run: Run, module: str, namespace: Namespace, how: str) -> None:
    run(module, f"send_after_{how}")
    assert sorted(namespace.hub.bodies()) == [b"after", b"before"]


@BOTH
def test_sending_survives_a_detach_in_the_middle(run: Run, module: str, namespace: Namespace) -> None:
    run(module, "send_through_detach")
    assert namespace.hub.bodies() == [b"one"]


@BOTH
def test_sending_waits_out_throttling(run: Run, module: str, namespace: Namespace) -> None:
    run(module, "send_through_throttling")
    assert namespace.hub.bodies() == [b"busy"]


def test_lasting_throttling_is_reported(run: Run, namespace: Namespace) -> None:
    got = run("eventhub", "send_against_throttling")
    assert got["type"] == "EventDataSendError" and "server-busy" in got["text"]
    assert namespace.hub.bodies() == []


def test_a_hub_that_is_not_there_is_reported(run: Run) -> None:
    got = run("eventhub", "send_to_nobody")
    assert got["type"] == "ConnectionLostError" and "has no 'nothub'" in got["text"]


@BOTH
def test_a_wrong_key_is_an_authentication_error(run: Run, module: str) -> None:
    assert run(module, "wrong_key")["type"] == "AuthenticationError"


@BOTH
@pytest.mark.parametrize("how", ["detach", "drop"])
def test_receiving_goes_on_after_a_fault(run: Run, module: str, how: str) -> None:
    got = run(module, f"receive_through_{how}")
    assert got["seen"] == [f"0-{i}" for i in range(6)]


def test_a_port_that_nobody_listens_on_is_a_connection_error(run: Run, closed_port: int) -> None:
    got = run("eventhub", "nobody_listens", closed=closed_port)
    assert got["type"] == "ConnectError", got


def test_a_certificate_of_a_stranger_is_a_connection_error(run: Run, other_ca: str, namespace: Namespace) -> None:
    got = run("eventhub", "wrong_authority", other_ca=other_ca)
    assert got["type"] == "ConnectError", got
    assert namespace.asked == []


@BOTH
def test_events_are_sent_over_a_websocket(run: Run, module: str, namespace: Namespace, websockets: list[int]) -> None:
    run(module, "websocket")
    assert namespace.hub.bodies() == [b"over a web socket"]
    assert websockets
