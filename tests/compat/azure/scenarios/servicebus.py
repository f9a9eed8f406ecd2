"""azure-servicebus at its everyday work, over uamqp."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import time
from typing import Any
from urllib.parse import quote_plus

from azure.core.credentials import AccessToken
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
    TransportType,
)
from azure.servicebus.exceptions import ServiceBusError
from common import HOST, ask, describe, main, wait_until


def options(**more: Any) -> dict[str, Any]:
    return {
        "custom_endpoint_address": f"sb://localhost:{HOST['port']}",
        "connection_verify": HOST["ca"],
        "transport_type": TransportType.Amqp,  # with an endpoint of one's own the default is WebSocket
        "uamqp_transport": HOST.get("uamqp_transport", True),
        "retry_total": 3,
        "retry_backoff_factor": 0.05,
        **more,
    }


def client(**more: Any) -> ServiceBusClient:
    return ServiceBusClient.from_connection_string(HOST["connection_string"], **options(**more))


def text(message: Any) -> str:
    return str(message)


def send() -> Any:
    """Single, as a list, as a batch."""
    with client() as bus, bus.get_queue_sender("queue") as sender:
        sender.send_messages(ServiceBusMessage("single"))
        sender.send_messages([ServiceBusMessage("list 1"), ServiceBusMessage(b"list 2")])
        batch = sender.create_message_batch()
        for i in range(3):
            batch.add_message(ServiceBusMessage(f"batch {i}"))
        sender.send_messages(batch)
        return {"count": len(batch), "size": batch.size_in_bytes}


def too_large() -> Any:
    with client() as bus, bus.get_queue_sender("queue") as sender:
        batch = sender.create_message_batch(max_size_in_bytes=1000)
        full = 0
        try:
            while True:
                batch.add_message(ServiceBusMessage(b"x" * 200))
                full += 1
        except ValueError:
            sender.send_messages(batch)
        return {"fitted": full}


def complete() -> Any:
    ask("put", address="queue", bodies=["a", "b", "c"])
    with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        seen = []
        while len(seen) < 3:
            for message in receiver.receive_messages(max_message_count=3, max_wait_time=5):
                seen.append(text(message))
                receiver.complete_message(message)
        return {"seen": seen, "after": [text(m) for m in receiver.receive_messages(max_wait_time=0.5)]}


def rich() -> Any:
    with client() as bus:
        with bus.get_queue_sender("queue") as sender:
            sender.send_messages(
                ServiceBusMessage(
                    b"\x00\xff",
                    application_properties={"text": "naïve", "number": 7, "bytes": b"\xfe", "yes": True},
                    subject="a subject",
                    content_type="application/octet-stream",
                    correlation_id="c-1",
                    message_id="m-1",
                    reply_to="back",
                    to="there",
                    time_to_live=datetime.timedelta(seconds=60),
                )
            )
        with bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
            got = next(iter(receiver))
            seen = {
                "body": b"".join(got.body).hex(),
                "properties": {
                    k if isinstance(k, str) else k.decode(): x.decode("latin-1") if isinstance(x, bytes) else x
                    for k, x in got.application_properties.items()
                },
                "strings": [got.subject, got.content_type, got.correlation_id, got.message_id, got.reply_to, got.to],
                "time_to_live": got.time_to_live.total_seconds(),
                "sequence": got.sequence_number,
                "enqueued": got.enqueued_time_utc.timestamp(),
                "delivery_count": got.delivery_count,
                "locked_for": (got.locked_until_utc - datetime.datetime.now(datetime.timezone.utc)).total_seconds(),
                "token": str(got.lock_token),
            }
            receiver.complete_message(got)
            return seen


def abandon() -> Any:
    ask("put", address="queue", bodies=["again"])
    with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        first = receiver.receive_messages(max_wait_time=5)[0]
        receiver.abandon_message(first)
        second = receiver.receive_messages(max_wait_time=5)[0]
        receiver.complete_message(second)
        return {"first": text(first), "second": text(second), "counts": [first.delivery_count, second.delivery_count]}


def dead_letter() -> Any:
    ask("put", address="queue", bodies=["bad"])
    with client() as bus:
        with bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
            message = receiver.receive_messages(max_wait_time=5)[0]
            receiver.dead_letter_message(message, reason="smell", error_description="it smells")
        with bus.get_queue_receiver("queue", sub_queue=ServiceBusSubQueue.DEAD_LETTER, max_wait_time=5) as receiver:
            message = receiver.receive_messages(max_wait_time=5)[0]
            receiver.complete_message(message)
            return {
                "body": text(message), "reason": message.dead_letter_reason,
                "description": message.dead_letter_error_description,
            }  # fmt: skip


def defer() -> Any:
    ask("put", address="queue", bodies=["later"])
    with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        message = receiver.receive_messages(max_wait_time=5)[0]
        number = message.sequence_number
        receiver.defer_message(message)
        [again] = receiver.receive_deferred_messages([number])
        receiver.complete_message(again)
        return {"first": text(message), "again": text(again), "number": number}


def receive_and_delete() -> Any:
    ask("put", address="queue", bodies=["x", "y"])
    with client() as bus:
        mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
        with bus.get_queue_receiver("queue", receive_mode=mode, max_wait_time=3) as receiver:
            seen: list[str] = []
            while len(seen) < 2:
                seen += [text(message) for message in receiver.receive_messages(max_message_count=2, max_wait_time=3)]
            return {"seen": seen}


def iterate() -> Any:
    ask("put", address="queue", bodies=[str(i) for i in range(10)])
    with client() as bus, bus.get_queue_receiver("queue", max_wait_time=1, prefetch_count=5) as receiver:
        seen = []
        for message in receiver:
            seen.append(text(message))
            receiver.complete_message(message)
        return {"seen": seen}


def peek() -> Any:
    ask("put", address="queue", bodies=["a", "b", "c"])
    with client() as bus, bus.get_queue_receiver("queue") as receiver:
        first = receiver.peek_messages(max_message_count=2)
        rest = receiver.peek_messages(max_message_count=5)
        none = receiver.peek_messages(max_message_count=5, sequence_number=100)
        return {"first": [text(m) for m in first], "rest": [text(m) for m in rest], "none": len(none)}


def schedule() -> Any:
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1.5)
    late = soon + datetime.timedelta(hours=1)
    with client() as bus:
        with bus.get_queue_sender("queue") as sender:
            numbers = sender.schedule_messages([ServiceBusMessage("soon 1"), ServiceBusMessage("soon 2")], soon)
            [cancelled] = sender.schedule_messages(ServiceBusMessage("late"), late)
            sender.cancel_scheduled_messages(cancelled)
        with bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
            seen = []
            while len(seen) < 2:
                for message in receiver.receive_messages(max_message_count=5, max_wait_time=5):
                    seen.append(text(message))
                    receiver.complete_message(message)
    return {"numbers": numbers, "cancelled": cancelled, "seen": sorted(seen)}


def renew() -> Any:
    ask("put", address="queue", bodies=["slow"])
    with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        message = receiver.receive_messages(max_wait_time=5)[0]
        before = message.locked_until_utc
        wait_until(lambda: datetime.datetime.now(datetime.timezone.utc) > before - datetime.timedelta(seconds=29.5))
        after = receiver.renew_message_lock(message)
        receiver.complete_message(message)
        return {"longer": (after - before).total_seconds()}


def renew_by_itself() -> Any:
    ask("lock", seconds=4)
    ask("put", address="queue", bodies=["slow"])
    with client() as bus, AutoLockRenewer() as renewer, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        message = receiver.receive_messages(max_wait_time=5)[0]
        first = message.locked_until_utc
        renewer.register(receiver, message, max_lock_renewal_duration=60)
        wait_until(lambda: datetime.datetime.now(datetime.timezone.utc) > first + datetime.timedelta(seconds=1))
        receiver.complete_message(message)
        return {"count": message.delivery_count}


def lock_lost() -> Any:
    """Settled too late: the error says so, and the message comes again."""
    ask("lock", seconds=1)
    ask("put", address="queue", bodies=["late"])
    with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        message = receiver.receive_messages(max_wait_time=5)[0]
        ask("lock", seconds=30)  # the next one
        wait_until(lambda: message._lock_expired)
        try:
            receiver.complete_message(message)
            error = None
        except ServiceBusError as failure:
            error = describe(failure)
        again = receiver.receive_messages(max_wait_time=5)[0]
        receiver.complete_message(again)
        return {"error": error, "again": text(again), "count": again.delivery_count}


def sessions() -> Any:
    with client() as bus:
        with bus.get_queue_sender("sessions") as sender:
            sender.send_messages([ServiceBusMessage(f"{s}{i}", session_id=s) for i in range(2) for s in "ab"])
        seen: dict[str, list[str]] = {}
        with bus.get_queue_receiver("sessions", session_id="a", max_wait_time=2) as receiver:
            receiver.session.set_state("half done")
            state = receiver.session.get_state()
            renewed = receiver.session.renew_lock()
            for message in receiver:
                seen.setdefault(message.session_id, []).append(text(message))
                receiver.complete_message(message)
        with bus.get_queue_receiver("sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=2) as receiver:
            next_one = receiver.session.session_id
            for message in receiver:
                seen.setdefault(message.session_id, []).append(text(message))
                receiver.complete_message(message)
        return {
            "seen": seen, "state": state.decode() if isinstance(state, bytes) else state, "next": next_one,
            "renewed": (renewed - datetime.datetime.now(datetime.timezone.utc)).total_seconds(),
        }  # fmt: skip


# an idle receiver: what its keep-alive thread does


def idle_releases() -> Any:
    """With prefetch_count=0 a receiver that nobody calls gives back what comes to it, and another one has it."""
    with client() as bus, bus.get_queue_receiver("queue") as idle:
        assert idle.receive_messages(max_wait_time=0.2) == []
        ask("put", address="queue", bodies=["one"])
        assert ask("locked", address="queue") == 1
        with bus.get_queue_receiver("queue") as busy:
            [message] = busy.receive_messages(max_wait_time=15)
            busy.complete_message(message)
            return {"body": text(message), "count": message.delivery_count}


def idle_session_releases() -> Any:
    """As there, though nobody else may have the session."""
    with client() as bus, bus.get_queue_receiver("sessions", session_id="a") as idle:
        assert idle.receive_messages(max_wait_time=0.2) == []
        ask("put", address="sessions", bodies=["one"], group_id="a")
        assert ask("locked", address="sessions") == 1
        return {"released": ask("released", address="sessions", seconds=15)}


def idle_keeps() -> Any:
    """With a prefetch_count it keeps them for the next call."""
    with client() as bus:
        with bus.get_queue_receiver("queue", prefetch_count=HOST["prefetch"], keep_alive=1) as idle:
            assert idle.receive_messages(max_wait_time=0.2) == []
            ask("put", address="queue", bodies=["one", "two", "three"])
            wait_until(lambda: idle._handler._received_messages.qsize() == 3)
            seen = idle.receive_messages(max_message_count=3, max_wait_time=5)
            for message in seen:
                idle.complete_message(message)
            return {"seen": [text(message) for message in seen]}


# tokens that run out while nobody calls the client; the namespace takes the links away then


def token_that_lasts(seconds: float) -> AccessToken:
    """For the whole namespace."""
    fields = dict(part.split("=", 1) for part in HOST["connection_string"].split(";"))
    until = int(time.time() + seconds)
    signed = f"{quote_plus(fields['Endpoint'])}\n{until}".encode()
    made = base64.b64encode(hmac.new(fields["SharedAccessKey"].encode(), signed, hashlib.sha256).digest())
    name, resource = fields["SharedAccessKeyName"], quote_plus(fields["Endpoint"])
    token = f"SharedAccessSignature sr={resource}&sig={quote_plus(made)}&se={until}&skn={name}"
    return AccessToken(token, until)


class Credential:
    """Tokens of some seconds each."""

    def __init__(self, life: float) -> None:
        self.life = life

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return token_that_lasts(self.life)


def token_runs_out() -> Any:
    seen = []
    with (
        ServiceBusClient("localhost", Credential(3), **options()) as bus,
        bus.get_queue_sender("queue") as sender,
        bus.get_queue_receiver("queue") as receiver,
    ):
        for body in ("one", "two"):
            sender.send_messages(ServiceBusMessage(body))
            [message] = receiver.receive_messages(max_wait_time=5)
            receiver.complete_message(message)
            seen.append(text(message))
            time.sleep(4.1 if body == "one" else 0)
    return {"seen": seen}


# faults


def send_after_detach() -> Any:
    with client() as bus, bus.get_queue_sender("queue") as sender:
        sender.send_messages(ServiceBusMessage("before"))
        ask("detach", address="queue")
        sender.send_messages(ServiceBusMessage("after"))
        return {}


def send_through_detach() -> Any:
    ask("script", address="queue", outcome="none", fail="detach", after=1, times=1)
    with client() as bus, bus.get_queue_sender("queue") as sender:
        sender.send_messages(ServiceBusMessage("one"))
        return {}


def send_after_drop() -> Any:
    with client() as bus, bus.get_queue_sender("queue") as sender:
        sender.send_messages(ServiceBusMessage("before"))
        ask("drop")
        sender.send_messages(ServiceBusMessage("after"))
        return {}


def send_through_throttling() -> Any:
    ask("script", address="queue", outcome="rejected", condition="com.microsoft:server-busy", times=1)
    with client() as bus, bus.get_queue_sender("queue") as sender:
        sender.send_messages(ServiceBusMessage("busy"))
        return {}


def send_against_throttling() -> Any:
    ask("script", address="queue", outcome="rejected", condition="com.microsoft:server-busy", description="wait")
    with client(retry_total=0) as bus, bus.get_queue_sender("queue") as sender:
        try:
            sender.send_messages(ServiceBusMessage("busy"))
        except ServiceBusError as error:
            return describe(error)
        return {}


def _receive_through(**fault: Any) -> Any:
    ask("put", address="queue", bodies=["one"])
    seen = []
    with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        for body in ("two", None):
            while not (messages := receiver.receive_messages(max_wait_time=5)):
                continue
            seen.append(text(messages[0]))
            receiver.complete_message(messages[0])
            if body is not None:
                assert ask("completed", count=1), "the outcome did not arrive"
                ask(**fault)
                ask("put", address="queue", bodies=[body])
    return {"seen": seen}


def receive_through_detach() -> Any:
    return _receive_through(what="detach", address="queue")


def receive_through_drop() -> Any:
    return _receive_through(what="drop")


def complete_after_detach() -> Any:
    """The link is gone, the lock is not: the package settles through $management."""
    ask("put", address="queue", bodies=["held"])
    with client() as bus, bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
        message = receiver.receive_messages(max_wait_time=5)[0]
        ask("detach", address="queue")
        more = receiver.receive_messages(max_wait_time=3)  # with a new link
        receiver.complete_message(message)
        return {"body": text(message), "more": len(more)}


def no_such_queue() -> Any:
    try:
        with client(retry_total=0) as bus, bus.get_queue_sender("nothing") as sender:
            sender.send_messages(ServiceBusMessage("lost"))
    except ServiceBusError as error:
        return describe(error)
    return {}


def wrong_key() -> Any:
    wrong = HOST["connection_string"].replace("SharedAccessKey=", "SharedAccessKey=x")
    HOST["connection_string"] = wrong
    try:
        with client(retry_total=0) as bus, bus.get_queue_sender("queue") as sender:
            sender.send_messages(ServiceBusMessage("never"))
    except ServiceBusError as error:
        return describe(error)
    return {}


def _failing(**how: Any) -> Any:
    try:
        with client(retry_total=0, **how) as bus, bus.get_queue_sender("queue") as sender:
            sender.send_messages(ServiceBusMessage("never"))
    except ServiceBusError as error:
        return describe(error)
    return {}


def nobody_listens() -> Any:
    return _failing(custom_endpoint_address=f"sb://localhost:{HOST['closed']}")


def wrong_authority() -> Any:
    """The certificate is not signed by one that we trust."""
    return _failing(connection_verify=HOST["other_ca"])


def websocket() -> Any:
    ask("put", address="queue", bodies=["there"])
    with client(transport_type=TransportType.AmqpOverWebsocket) as bus:
        with bus.get_queue_receiver("queue", max_wait_time=5) as receiver:
            [message] = receiver.receive_messages(max_wait_time=5)
            receiver.complete_message(message)
        with bus.get_queue_sender("queue") as sender:
            sender.send_messages(ServiceBusMessage("and back"))
        return {"body": text(message)}


if __name__ == "__main__":
    main(__name__)
