"""azure-servicebus 7.15.0 with uamqp_transport=True."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from azure_namespace import LockQueue, Namespace

Run = Callable[..., Any]

BOTH = pytest.mark.parametrize("module", ["servicebus", "servicebus_async"])


def bodies(namespace: Namespace, address: str = "queue") -> list[bytes]:
    """What is ready in a queue."""
    from uamqp_cffi.message import Message

    return [b"".join(Message.decode_from_bytes(payload).get_data()) for _, payload in namespace.node(address).ready()]


def settled(queue: LockQueue, completed: int) -> None:
    """Wait until the namespace has read so many outcomes (a client's last one is under way when it ends), and no lock
    is left."""
    end = time.monotonic() + 5
    while (len(queue.completed) < completed or queue.locked) and time.monotonic() < end:
        time.sleep(0.01)
    assert (len(queue.completed), len(queue.locked), len(queue.deferred)) == (completed, 0, 0)


@BOTH
def test_single_messages_lists_and_batches_arrive_in_order(run: Run, module: str, namespace: Namespace) -> None:
    got = run(module, "send")
    assert bodies(namespace) == [b"single", b"list 1", b"list 2", b"batch 0", b"batch 1", b"batch 2"]
    assert got["count"] == 3 and got["size"] > 0


def test_a_batch_takes_no_more_than_its_size(run: Run, namespace: Namespace) -> None:
    got = run("servicebus", "too_large")
    assert 2 <= got["fitted"] <= 4
    assert len(bodies(namespace)) == got["fitted"]


@BOTH
def test_received_messages_are_completed(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "complete") == {"seen": ["a", "b", "c"], "after": []}
    settled(namespace.queue, completed=3)


def test_properties_of_a_message_survive_the_round_trip(run: Run) -> None:
    got = run("servicebus", "rich")
    assert got["body"] == "00ff"
    assert {key: got["properties"][key] for key in ("number", "yes")} == {"number": 7, "yes": True}
    assert got["strings"] == ["a subject", "application/octet-stream", "c-1", "m-1", "back", "there"]
    assert (got["time_to_live"], got["sequence"], got["delivery_count"]) == (60.0, 1, 0)
    assert abs(got["enqueued"] - time.time()) < 60
    assert 20 < got["locked_for"] <= 30
    uuid.UUID(got["token"])


@BOTH
def test_an_abandoned_message_comes_again_and_is_counted(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "abandon") == {"first": "again", "second": "again", "counts": [0, 1]}
    settled(namespace.queue, completed=1)
    assert namespace.queue.abandoned == 1


@BOTH
def test_a_dead_letter_keeps_its_reason(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "dead_letter") == {"body": "bad", "reason": "smell", "description": "it smells"}
    settled(namespace.node("queue/$deadletterqueue"), completed=1)
    settled(namespace.queue, completed=0)


@BOTH
def test_a_deferred_message_is_fetched_by_number(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "defer") == {"first": "later", "again": "later", "number": 1}
    settled(namespace.queue, completed=1)


@BOTH
def test_receive_and_delete_takes_messages_without_settling(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "receive_and_delete") == {"seen": ["x", "y"]}
    settled(namespace.queue, completed=2)


@BOTH
def test_iterating_ends_when_no_more_comes(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "iterate") == {"seen": [str(i) for i in range(10)]}
    settled(namespace.queue, completed=10)


@BOTH
def test_peeking_takes_nothing(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "peek") == {"first": ["a", "b"], "rest": ["c"], "none": 0}
    assert bodies(namespace) == [b"a", b"b", b"c"]


@BOTH
def test_scheduled_messages_come_when_due_unless_cancelled(run: Run, module: str, namespace: Namespace) -> None:
    got = run(module, "schedule")
    assert got["numbers"] == [1, 2] and got["cancelled"] == 3
    assert got["seen"] == ["soon 1", "soon 2"]
    assert not namespace.queue.scheduled


@BOTH
def test_a_lock_is_renewed(run: Run, module: str, namespace: Namespace) -> None:
    got = run(module, "renew")
    assert 0.3 < got["longer"] < 20
    settled(namespace.queue, completed=1)
    assert namespace.queue.renewed == 1


@BOTH
def test_a_lock_renewer_keeps_the_lock(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "renew_by_itself") == {"count": 0}
    settled(namespace.queue, completed=1)
    assert namespace.queue.renewed >= 1


def test_a_lost_lock_is_reported_and_the_message_comes_again(run: Run, namespace: Namespace) -> None:
    got = run("servicebus", "lock_lost")
    assert got["error"]["type"] == "MessageLockLostError"
    assert (got["again"], got["count"]) == ("late", 1)


@BOTH
def test_sessions_are_received_one_by_one_with_their_state(run: Run, module: str, namespace: Namespace) -> None:
    got = run(module, "sessions")
    assert got["seen"] == {"a": ["a0", "a1"], "b": ["b0", "b1"]}
    assert (got["state"], got["next"]) == ("half done", "b")
    assert 20 < got["renewed"] <= 30
    settled(namespace.sessions, completed=4)


@BOTH
def test_an_idle_receiver_gives_back_what_it_does_not_prefetch(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "idle_releases") == {"body": "one", "count": 0}
    settled(namespace.queue, completed=1)


@BOTH
def test_an_idle_session_receiver_gives_back_what_it_does_not_prefetch(run: Run, module: str) -> None:
    assert run(module, "idle_session_releases")["released"] >= 1


@BOTH
@pytest.mark.parametrize("prefetch", [10, 300])
def test_an_idle_receiver_keeps_what_it_prefetches(run: Run, module: str, namespace: Namespace, prefetch: int) -> None:
    assert run(module, "idle_keeps", prefetch=prefetch) == {"seen": ["one", "two", "three"]}
    settled(namespace.queue, completed=3)


@BOTH
def test_clients_whose_token_ran_out_while_they_were_idle_go_on(run: Run, module: str, namespace: Namespace) -> None:
    assert run(module, "token_runs_out")["seen"] == ["one", "two"]
    settled(namespace.queue, completed=2)


@BOTH
@pytest.mark.parametrize("how", ["detach", "drop"])
def test_sending_goes_on_after_a_fault_in_between(run: Run, module: str, namespace: Namespace, how: str) -> None:
    run(module, f"send_after_{how}")
    assert bodies(namespace) == [b"before", b"after"]


@BOTH
def test_sending_survives_a_detach_in_the_middle(run: Run, module: str, namespace: Namespace) -> None:
    run(module, "send_through_detach")
    assert bodies(namespace) == [b"one"]


@BOTH
def test_sending_waits_out_throttling(run: Run, module: str, namespace: Namespace) -> None:
    run(module, "send_through_throttling")
    assert bodies(namespace) == [b"busy"]


def test_lasting_throttling_is_reported(run: Run, namespace: Namespace) -> None:
    got = run("servicebus", "send_against_throttling")
    assert got["type"] == "ServiceBusServerBusyError"
    assert bodies(namespace) == []


@BOTH
@pytest.mark.parametrize("how", ["detach", "drop"])
def test_receiving_goes_on_after_a_fault(run: Run, module: str, namespace: Namespace, how: str) -> None:
    assert run(module, f"receive_through_{how}") == {"seen": ["one", "two"]}
    settled(namespace.queue, completed=2)


def test_a_message_is_completed_after_its_link_is_gone(run: Run, namespace: Namespace) -> None:
    assert run("servicebus", "complete_after_detach") == {"body": "held", "more": 0}
    settled(namespace.queue, completed=1)


def test_a_queue_that_is_not_there_is_reported(run: Run) -> None:
    got = run("servicebus", "no_such_queue")
    assert got["type"] == "ServiceBusCommunicationError" and "has no 'nothing'" in got["text"]


@BOTH
def test_a_wrong_key_is_an_authentication_error(run: Run, module: str) -> None:
    got = run(module, "wrong_key")
    assert got["type"] == "ServiceBusAuthenticationError", got


def test_a_port_that_nobody_listens_on_is_a_connection_error(run: Run, closed_port: int) -> None:
    got = run("servicebus", "nobody_listens", closed=closed_port)
    assert got["type"] == "ServiceBusConnectionError", got


def test_a_certificate_of_a_stranger_is_a_connection_error(run: Run, other_ca: str, namespace: Namespace) -> None:
    got = run("servicebus", "wrong_authority", other_ca=other_ca)
    assert got["type"] == "ServiceBusConnectionError", got
    assert namespace.asked == []


@BOTH
def test_messages_go_both_ways_over_a_websocket(
    run: Run, module: str, namespace: Namespace, websockets: list[int]
) -> None:
    assert run(module, "websocket") == {"body": "there"}
    settled(namespace.queue, completed=1)
    assert bodies(namespace) == [b"and back"]
    assert websockets
