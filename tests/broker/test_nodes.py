"""Nodes given to the broker from outside: they decide who attaches, what becomes of messages, what outcomes mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi._broker.queues import Bytes, Entry, Queue
from uamqp_cffi._broker.scripts import ACCEPTED, Outcome, Refused
from uamqp_cffi._core.engine import lib
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine import values as v
from uamqp_cffi.broker import Broker

Connect = Callable[..., tuple[Any, int]]
Data = Callable[[bytes], bytes]

TAGS = [bytes([n]) * 16 for n in range(1, 100)]


class Ledger(Queue):
    """Tags what it hands out, and writes down what it is told."""

    one_by_one = True

    def __init__(self, name: str) -> None:
        super().__init__(name, Bytes(1 << 20))
        self.told: list[Any] = []
        self._tags = iter(TAGS)

    def sender(self, link: Any, attach: r.Attach) -> dict[str, bytes]:
        if attach.fields["name"] == "stranger":
            raise Refused("amqp:unauthorized-access", "not you")
        return {"properties": v.enc_map([(v.enc_symbol("x"), v.enc_int(1))])}

    def receiver(self, link: Any, attach: r.Attach) -> dict[str, bytes]:
        return {"rcv_settle_mode": v.enc_ubyte(1)}

    def receive(self, link: Any, delivery: r.Delivery) -> Outcome:
        self.told.append(delivery.message_format)
        return super().receive(link, delivery) if delivery.payload[-1:] != b"!" else Outcome("released")

    def take(self, limit: int, max_bytes: int) -> list[Entry]:
        return [e._replace(tag=next(self._tags)) for e in super().take(limit, max_bytes)]

    def settle(self, entries: list[Entry], record: r.Settled) -> None:
        self.told.append((record.outcome, [e.tag for e in entries]))
        self.forget(entries)

    def left(self, entries: Any) -> None:
        self.told.append(("left", [e.tag for e in entries]))

    def receiver_gone(self, link: Any) -> None:
        self.told.append("gone")


@pytest.fixture
def ledger(memory_broker: Callable[..., Broker], connect: Connect) -> tuple[Ledger, Any, int]:
    """The node at `ledger`, and a client of its broker with a session."""
    node = Ledger("ledger")
    client, session = connect(memory_broker(nodes=lambda name: node if name == "ledger" else None))
    return node, client, session


def test_other_addresses_are_queues_as_ever(ledger: tuple[Ledger, Any, int], data: Data) -> None:
    node, client, session = ledger
    client.send(client.sender(session, "other"), data(b"a"))
    client.receiver(session, "other")
    assert client.payloads() == [data(b"a")]
    assert node.told == []


def test_a_node_refuses_a_link(ledger: tuple[Ledger, Any, int]) -> None:
    _, client, session = ledger
    client.sender(session, "ledger", name="stranger")
    [detach] = client.of(r.Detach)
    assert detach.error.condition == b"amqp:unauthorized-access"


def test_a_node_adds_to_the_answer_to_an_attach(ledger: tuple[Ledger, Any, int]) -> None:
    _, client, session = ledger
    client.sender(session, "ledger")
    client.receiver(session, "ledger")
    sender, receiver = client.of(r.Attach)
    assert sender.fields["properties"] == {"x": 1}
    assert receiver.fields["rcv_settle_mode"] == 1


def test_a_node_chooses_the_outcome_of_each_message(ledger: tuple[Ledger, Any, int], data: Data) -> None:
    node, client, session = ledger
    client.send(client.sender(session, "ledger"), data(b"yes"), data(b"no!"), data(b"yes"))
    assert [outcome for _, _, outcome in client.outcomes()] == [lib.OUT_ACCEPTED, lib.OUT_RELEASED, lib.OUT_ACCEPTED]
    assert len(node) == 2


def test_messages_leave_with_the_tags_that_a_node_gives_them(ledger: tuple[Ledger, Any, int], data: Data) -> None:
    _, client, session = ledger
    client.send(client.sender(session, "ledger"), data(b"a"), data(b"b"))
    client.receiver(session, "ledger")
    assert [(d.tag, d.payload) for d in client.of(r.Delivery)] == [(TAGS[0], data(b"a")), (TAGS[1], data(b"b"))]


def test_a_node_is_told_the_outcome_of_what_it_handed_out(ledger: tuple[Ledger, Any, int], data: Data) -> None:
    node, client, session = ledger
    client.send(client.sender(session, "ledger"), data(b"a"))
    link = client.receiver(session, "ledger")
    [delivery] = client.of(r.Delivery)
    client.engine.settle(link, delivery.delivery_id, delivery.delivery_id, True, ACCEPTED.encode())
    client.run()
    assert node.told == [0, (lib.OUT_ACCEPTED, [TAGS[0]])]


def test_a_node_is_told_what_a_link_left_without_an_outcome(ledger: tuple[Ledger, Any, int], data: Data) -> None:
    node, client, session = ledger
    client.send(client.sender(session, "ledger"), data(b"a"))
    link = client.receiver(session, "ledger")
    client.engine.detach(link)
    client.run()
    assert node.told == [0, ("left", [TAGS[0]]), "gone"]
    assert len(node) == 0
