"""Queues, outcomes, credit and redelivery, over in-memory connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi import BatchMessage, constants
from uamqp_cffi._broker.queues import node_name
from uamqp_cffi._core.engine import decode, lib
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine import values as v
from uamqp_cffi.broker import Broker

Connect = Callable[..., tuple[Any, int]]
Data = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "address",
    ["q", "/q", "//q", "amqp://host/q", "amqps://user@host:5671/q", "amqp://127.0.0.1:5672/q?timeout=3", "q?x=1"],
)
def test_every_form_of_an_address_names_the_same_queue(address: str) -> None:
    assert node_name(address) == "q"


def test_a_path_stays_whole() -> None:
    assert node_name("amqp://host/queues/orders/1") == "queues/orders/1"
    assert node_name("amqp://host") == ""


def test_messages_are_accepted_in_ranges_and_kept_in_order(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    link = client.sender(session, "amqp://localhost/q")
    payloads = [data(b"%d" % i) for i in range(10)]
    client.send(link, *payloads)
    assert client.outcomes() == [(0, 9, lib.OUT_ACCEPTED)]
    assert broker.payloads("q") == payloads
    info = broker.info("/q")
    assert (info.messages, info.received, info.bytes) == (10, 10, sum(map(len, payloads)))


def test_credit_is_given_again_and_again(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    link = client.sender(session, "q")
    for _ in range(5):
        client.send(link, *[data(b"x")] * 1500)
    assert broker.info("q").received == 7500
    assert client.engine.link(link).credit > 1000


def test_settled_messages_are_kept_without_an_answer(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    link = client.sender(session, "q")
    client.send(link, data(b"1"), data(b"2"), settled=True)
    assert broker.info("q").messages == 2
    assert [s for s in client.of(r.Settled) if s.outcome == lib.OUT_ACCEPTED] == []


def test_interleaved_links_get_each_their_own_outcome(broker: Broker, connect: Connect, data: Data) -> None:
    """Ranges never cover another link's deliveries, even if ids of two links alternate."""
    broker.script("bad", "rejected")
    client, session = connect()
    good, bad = client.sender(session, "good", "a"), client.sender(session, "bad", "b")
    for link in (good, bad, good, bad, good):
        client.engine.send_messages(link, data(b"m"), array_of(len(data(b"m"))))
    client.run()
    got = sorted((s.first, s.link, s.outcome) for s in client.of(r.Settled))
    assert got == [
        (0, good, lib.OUT_ACCEPTED),
        (1, bad, lib.OUT_REJECTED),
        (2, good, lib.OUT_ACCEPTED),
        (3, bad, lib.OUT_REJECTED),
        (4, good, lib.OUT_ACCEPTED),
    ]
    assert broker.info("good").messages == 3 and broker.info("bad").messages == 0


def array_of(*lengths: int) -> Any:
    from array import array

    return array("I", lengths)


def test_a_full_broker_rejects_what_does_not_fit(
    memory_broker: Callable[..., Broker], connect: Connect, data: Data
) -> None:
    small = memory_broker(max_bytes=350)
    client, session = connect(small)
    link = client.sender(session, "q")
    client.send(link, *[data(bytes(95))] * 5)
    assert client.outcomes() == [(0, 2, lib.OUT_ACCEPTED), (3, 4, lib.OUT_REJECTED)]
    error = decode.decode_exact(client.of(r.Settled)[-1].state).value[0]
    assert error.value[0] == "amqp:resource-limit-exceeded"
    assert small.info("q").messages == 3
    small.purge("q")
    client.send(link, data(bytes(95)))
    assert client.outcomes()[-1] == (5, 5, lib.OUT_ACCEPTED)


def test_a_broker_that_only_counts_keeps_nothing(
    memory_broker: Callable[..., Broker], connect: Connect, data: Data
) -> None:
    counting = memory_broker(store=False)
    client, session = connect(counting)
    client.send(client.sender(session, "q"), *[data(b"x")] * 100)
    info = counting.info("q")
    assert (info.received, info.messages, info.bytes) == (100, 0, 0)
    assert info.received_bytes == 100 * len(data(b"x"))


def test_consumers_get_messages_in_order_and_accepted_ones_are_gone(
    broker: Broker, connect: Connect, data: Data
) -> None:
    client, session = connect()
    payloads = [data(b"%d" % i) for i in range(5)]
    client.send(client.sender(session, "q"), *payloads)
    link = client.receiver(session, "q")
    assert client.payloads() == payloads
    assert broker.info("q").unsettled == 5
    client.engine.settle(link, 0, 4, True, v.described_composite("accepted"))
    client.run()
    info = broker.info("q")
    assert (info.messages, info.unsettled, info.bytes, info.delivered) == (0, 0, 0, 5)


def test_a_waiting_consumer_gets_what_another_connection_sends(broker: Broker, connect: Connect, data: Data) -> None:
    consumer, session = connect()
    consumer.receiver(session, "q")
    producer, other = connect()
    producer.send(producer.sender(other, "q"), data(b"hello"))
    consumer.run()
    assert consumer.payloads() == [data(b"hello")]


def test_messages_wait_for_credit(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    client.send(client.sender(session, "q"), *[data(b"%d" % i) for i in range(5)])
    link = client.receiver(session, "q", credit=2)
    assert len(client.payloads()) == 2
    client.engine.flow(link, 2)
    client.run()
    assert client.payloads() == [data(b"%d" % i) for i in range(4)]


def test_two_consumers_share_a_queue(broker: Broker, connect: Connect, data: Data) -> None:
    one, first = connect()
    two, second = connect()
    one.receiver(first, "q", credit=10)
    two.receiver(second, "q", credit=10)
    producer, session = connect()
    producer.send(producer.sender(session, "q"), *[data(b"%d" % i) for i in range(20)])
    one.run()
    two.run()
    assert len(one.payloads()) == len(two.payloads()) == 10
    assert sorted(one.payloads() + two.payloads()) == sorted(data(b"%d" % i) for i in range(20))


def test_a_drain_is_answered_with_what_there_is(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"))
    link = client.receiver(session, "q", credit=0)
    client.engine.flow(link, 50, drain=True)
    client.run()
    assert client.payloads() == [data(b"1")]
    assert client.engine.link(link).credit == 0
    assert any(c.drain and c.link == link for c in client.of(r.Credit))
    broker.put("q", b"later")
    client.run()
    assert len(client.payloads()) == 1


def header_of(payload: bytes) -> list[Any]:
    code, offset, length, _ = lib.sections(payload)[0]
    assert code == 0x70
    return list(decode.decode_exact(payload[offset : offset + length]))


def test_released_messages_come_back_in_front_unchanged(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    payloads = [data(b"%d" % i) for i in range(4)]
    client.send(client.sender(session, "q"), *payloads)
    link = client.receiver(session, "q", credit=3)
    client.engine.settle(link, 1, 1, True, v.described_composite("released"))
    client.engine.settle(link, 0, 0, True, v.described_composite("released"))
    client.run()
    assert broker.payloads("q") == [payloads[0], payloads[1], payloads[3]]
    client.engine.flow(link, 10)
    client.run()
    assert client.payloads()[3:] == [payloads[0], payloads[1], payloads[3]]


def test_modified_messages_come_back_with_their_failures_counted(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    header = v.described_composite(
        "header", durable=v.enc_bool(True), priority=v.enc_ubyte(7), delivery_count=v.enc_uint(2)
    )
    client.send(client.sender(session, "q"), data(b"bare"), header + data(b"headed"))
    link = client.receiver(session, "q")
    failed = v.described_composite("modified", delivery_failed=v.enc_bool(True))
    client.engine.settle(link, 0, 1, True, failed)
    client.run()
    bare, headed = client.payloads()[2:]
    assert header_of(bare)[4] == 1 and bare.endswith(data(b"bare"))
    assert header_of(headed) == [True, 7, None, None, 3] and headed.endswith(data(b"headed"))
    client.engine.settle(link, 2, 2, True, failed)
    client.run()
    assert header_of(client.payloads()[-1])[4] == 2


def test_what_is_undeliverable_here_is_a_dead_letter(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"m"))
    link = client.receiver(session, "q")
    barred = v.described_composite("modified", undeliverable_here=v.enc_bool(True))
    client.engine.settle(link, 0, 0, True, barred)
    client.run()
    info = broker.info("q")
    assert (info.messages, info.unsettled, info.dead) == (0, 0, 1)
    assert len(client.payloads()) == 1


def test_rejected_messages_are_dead_letters(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"m"))
    link = client.receiver(session, "q")
    client.engine.settle(link, 0, 0, True, v.described_composite("rejected"))
    client.run()
    info = broker.info("q")
    assert (info.messages, info.unsettled, info.dead) == (0, 0, 1)
    assert len(client.payloads()) == 1


@pytest.mark.parametrize("how", ["detach", "end", "close", "lost"])
def test_what_was_unsettled_is_ready_again_when_the_consumer_goes(
    how: str, broker: Broker, connect: Connect, data: Data
) -> None:
    producer, session = connect()
    payloads = [data(b"%d" % i) for i in range(4)]
    producer.send(producer.sender(session, "q"), *payloads)
    client, other = connect()
    link = client.receiver(other, "q")
    client.engine.settle(link, 1, 1, True, v.described_composite("accepted"))
    client.run()
    if how == "detach":
        client.engine.detach(link)
    elif how == "end":
        client.engine.end(other)
    elif how == "close":
        client.engine.close()
    else:
        client.pipe.lost()
    if how != "lost":
        client.run()
    assert broker.payloads("q") == [payloads[0], payloads[2], payloads[3]]
    assert broker.info("q").unsettled == 0 and broker.info("q").consumers == 0


def test_a_settled_consumer_takes_messages_for_good(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"m"))
    client.receiver(session, "q", snd_settle_mode=v.enc_ubyte(1))
    assert client.of(r.Delivery)[0].settled
    info = broker.info("q")
    assert (info.messages, info.unsettled, info.bytes) == (0, 0, 0)


def test_large_messages_survive_the_way_through(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    big = data(bytes(range(256)) * 12_000)
    link = client.sender(session, "q")
    client.engine.send_messages(link, big, array_of(len(big)))
    client.run()
    client.receiver(session, "q")
    assert client.payloads() == [big]


def test_a_narrow_session_window_delays_messages_and_loses_none(broker: Broker, connect: Connect, data: Data) -> None:
    producer, session = connect()
    payloads = [data(b"%03d" % i) for i in range(500)]
    producer.send(producer.sender(session, "q"), *payloads)
    client, _ = connect()
    narrow = client.begin(incoming_window=7)
    client.receiver(narrow, "q", credit=1000)
    assert client.payloads() == payloads


def test_a_message_too_large_for_a_consumer_costs_it_its_link_and_keeps_its_place(
    broker: Broker, connect: Connect, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"first"), data(bytes(200)), data(b"small"))
    link = client.receiver(session, "q", max_message_size=v.enc_ulong(100))
    client.run()
    (detach,) = client.of(r.Detach)
    assert detach.link == link and detach.error.condition == b"amqp:link:message-size-exceeded"
    assert "205 bytes" in str(detach.error.description) and "100" in str(detach.error.description)
    assert "max-message-size" in caplog.text
    assert client.payloads() == [data(b"first")]
    assert broker.payloads("q") == [data(b"first"), data(bytes(200)), data(b"small")]
    other, another = connect()
    other.receiver(another, "q")
    assert other.payloads() == [data(b"first"), data(bytes(200)), data(b"small")]


def test_a_link_without_target_routes_by_the_to_of_each_message(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    link = client.sender(session, None)

    def to(address: str) -> bytes:
        return v.described_composite("properties", to=v.enc_str(address)) + data(b"m")

    client.send(link, to("a"), to("amqp://host/b"), data(b"nowhere"))
    assert broker.payloads("a") == [to("a")] and broker.payloads("b") == [to("amqp://host/b")]
    assert client.outcomes()[-1] == (2, 2, lib.OUT_REJECTED)


def test_a_dynamic_source_is_a_queue_of_the_consumers_own(
    broker: Broker, connect: Connect, data: Data, terminus: Any
) -> None:
    client, session = connect()
    link = client.attach(
        session, "dyn", False, terminus("source", None, dynamic=v.enc_bool(True)), terminus("target", "here")
    )
    client.engine.flow(link, 10)
    client.run()
    address = client.of(r.Attach)[-1].fields["source"].value[0]
    assert address in broker.queues
    client.send(client.sender(session, address), data(b"reply"))
    assert client.payloads() == [data(b"reply")]
    client.engine.detach(link)
    client.run()
    assert address not in broker.queues


@pytest.mark.parametrize("outcome", ["released", "rejected", None])
def test_what_others_hold_of_a_dynamic_queue_goes_with_it(
    broker: Broker, connect: Connect, terminus: Any, outcome: str | None
) -> None:
    owner, session = connect()
    link = owner.attach(
        session, "own", False, terminus("source", None, dynamic=v.enc_bool(True)), terminus("target", "x")
    )
    owner.run()
    (name,) = broker.queues
    other, its_session = connect()
    its_link = other.receiver(its_session, name)
    broker.put(name, b"one")
    other.run()
    assert len(other.payloads()) == 1
    owner.engine.detach(link)
    owner.run()
    if outcome is not None:
        other.engine.settle(its_link, 0, 0, True, v.described_composite(outcome))
    other.engine.detach(its_link)
    other.run()
    assert (broker.queues, broker._core.room.held) == ([], 0)


def test_there_is_an_end_to_the_number_of_queues_and_links(
    memory_broker: Callable[..., Broker], connect: Connect
) -> None:
    broker = memory_broker()
    object.__setattr__(broker._core.settings, "max_queues", 2)
    object.__setattr__(broker._core.settings, "max_links", 3)
    client, session = connect(broker)
    for name in ("a", "b", "c"):
        client.sender(session, name, name)
    assert [d.error.condition for d in client.of(r.Detach)] == [b"amqp:resource-limit-exceeded"]
    client.sender(session, "a", "d")
    client.sender(session, "a", "e")
    assert len(client.of(r.Detach)) == 2 and b"3 links" in client.of(r.Detach)[-1].error.description


def test_a_batch_that_is_put_stays_one(broker: Broker, connect: Connect) -> None:
    broker.put("q", BatchMessage([b"one", b"two"]))
    client, session = connect()
    client.receiver(session, "q")
    client.run()
    (delivery,) = client.of(r.Delivery)
    assert delivery.message_format == constants.BATCH_MESSAGE_FORMAT
