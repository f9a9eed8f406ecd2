"""The broker misbehaves when a test asks it to, and only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from uamqp_cffi._core.engine import decode, lib
from uamqp_cffi._core.engine import records as r
from uamqp_cffi.broker import Broker, Outcome

Connect = Callable[..., tuple[Any, int]]
Data = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("rejected", lib.OUT_REJECTED), ("released", lib.OUT_RELEASED), ("modified", lib.OUT_MODIFIED)],
)
def test_a_scripted_outcome_is_what_comes_back(
    outcome: str, code: int, broker: Broker, connect: Connect, data: Data
) -> None:
    broker.script("q", outcome)
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"), data(b"2"))
    assert [o[2] for o in client.outcomes()] == [code]
    assert broker.info("q").received == 0


def test_a_rejection_says_why(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script(
        "q", "rejected", condition="amqp:precondition-failed", description="too blue", info={"colour": "blue"}
    )
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"))
    error = decode.decode_exact(client.of(r.Settled)[0].state).value[0]
    assert error.value == ["amqp:precondition-failed", "too blue", {"colour": "blue"}]


def test_modified_carries_its_fields(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", "modified", delivery_failed=True, undeliverable_here=False, annotations={"x-why": "no"})
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"))
    assert decode.decode_exact(client.of(r.Settled)[0].state).value == [True, False, {"x-why": "no"}]


def test_a_script_for_some_messages_is_over_after_them(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", "released", times=2)
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"), data(b"2"), data(b"3"))
    assert client.outcomes() == [(0, 1, lib.OUT_RELEASED), (2, 2, lib.OUT_ACCEPTED)]
    assert broker.payloads("q") == [data(b"3")]


def test_none_never_settles_and_bare_settles_without_a_state(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("none", "none")
    broker.script("bare", "bare")
    client, session = connect()
    client.send(client.sender(session, "none", "a"), data(b"1"))
    assert client.outcomes() == []
    client.send(client.sender(session, "bare", "b"), data(b"1"))
    assert client.outcomes() == [(1, 1, lib.OUT_NONE)]
    assert broker.info("bare").messages == 1


def test_a_delayed_outcome_comes_when_its_time_has_come(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", delay=1.5)
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"))
    client.run(now=1_499)
    assert client.outcomes() == []
    client.run(now=1_500)
    assert client.outcomes() == [(0, 0, lib.OUT_ACCEPTED)]


def test_a_delayed_outcome_for_a_link_that_is_gone_is_forgotten(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", delay=1.0)
    client, session = connect()
    link = client.sender(session, "q")
    client.send(link, data(b"1"))
    client.engine.detach(link)
    client.run()
    client.run(now=2_000)
    assert not client.pipe.closed


def test_a_function_decides_by_the_message(broker: Broker, connect: Connect, data: Data) -> None:
    def decide(message: Any) -> Any:
        body = b"".join(message.get_data())
        return Outcome("rejected", "x:bad", body.decode()) if body.startswith(b"bad") else None

    pytest.importorskip("uamqp_cffi.message")
    broker.on_message("q", decide)
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"good"), data(b"bad one"))
    assert [o[2] for o in client.outcomes()] == [lib.OUT_ACCEPTED, lib.OUT_REJECTED]


def test_a_function_that_fails_rejects_the_message_and_hurts_nobody_else(
    broker: Broker, connect: Connect, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    def decide(message: Any) -> Any:
        raise KeyError("oops")

    broker.on_message("q", decide)
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"))
    assert client.outcomes() == [(0, 0, lib.OUT_REJECTED)]
    assert b"KeyError" in client.of(r.Settled)[0].state
    assert "the function for messages to 'q' failed" in caplog.text


@pytest.mark.parametrize(
    "outcome",
    [Outcome("rejected", info={"what": object()}), Outcome("rejected", description="x" * 4096)],
    ids=["no AMQP type", "too long"],
)
def test_an_outcome_that_cannot_be_sent_is_the_functions_failure(
    broker: Broker, connect: Connect, data: Data, outcome: Outcome
) -> None:
    broker.on_message("q", lambda message: outcome)
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"x"))
    assert client.outcomes() == [(0, 0, lib.OUT_REJECTED)]
    assert broker.connections == 1


def test_a_refused_attach_has_a_null_terminus_and_the_error(broker: Broker, connect: Connect) -> None:
    broker.script("q", fail="attach", condition="amqp:unauthorized-access", description="not you", times=1)
    client, session = connect()
    link = client.sender(session, "q")
    assert client.of(r.Attach)[0].fields["target"] is None
    detach = client.of(r.Detach)[0]
    assert (detach.link, detach.closed, detach.error.condition, detach.error.description) == (
        link,
        True,
        b"amqp:unauthorized-access",
        b"not you",
    )
    client.receiver(session, "q", name="second time")
    assert len(client.of(r.Detach)) == 1


def test_a_link_is_detached_after_its_messages(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", fail="detach", after=2)
    client, session = connect()
    link = client.sender(session, "q")
    client.send(link, data(b"1"), data(b"2"), data(b"3"))
    assert client.outcomes()[0] == (0, 1, lib.OUT_ACCEPTED)
    assert client.outcomes()[1][2] == lib.OUT_UNKNOWN or client.outcomes()[1][2] == lib.OUT_NOT_DELIVERED
    assert client.of(r.Detach)[0].error.condition == b"amqp:link:detach-forced"
    assert broker.info("q").messages == 2


def test_a_soft_detach_has_no_error(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", fail="detach", after=1, closed=False)
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"))
    detach = client.of(r.Detach)[0]
    assert detach.closed is False and detach.error is None


def test_a_session_is_ended_after_its_messages(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", fail="end", after=1, condition="x:over")
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"))
    assert client.outcomes() == [(0, 0, lib.OUT_ACCEPTED)]
    assert client.of(r.End)[0].error.condition == b"x:over"


def test_a_connection_is_closed_right_after_the_attach(broker: Broker, connect: Connect) -> None:
    broker.script("q", fail="close")
    client, session = connect()
    client.sender(session, "q")
    assert client.of(r.Close)[0].error.condition == b"amqp:connection:forced"
    assert client.pipe.closed


def test_a_dropped_connection_ends_without_a_word(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", fail="drop", after=1)
    client, session = connect()
    client.send(client.sender(session, "q"), data(b"1"), data(b"2"))
    assert client.pipe.closed
    assert client.of(r.Close) == []
    assert broker.info("q").messages == 1


def test_a_hanging_connection_answers_nothing_more(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", fail="hang", after=1)
    client, session = connect()
    link = client.sender(session, "q")
    client.send(link, data(b"1"), data(b"2"))
    client.engine.close()
    client.run()
    assert client.outcomes() == [(0, 0, lib.OUT_ACCEPTED)]
    assert client.of(r.Close) == [] and not client.pipe.closed


def test_a_consumer_is_detached_after_its_messages_too(broker: Broker, connect: Connect, data: Data) -> None:
    client, session = connect()
    client.send(client.sender(session, "q"), *[data(b"%d" % i) for i in range(5)])
    broker.script("q", fail="detach", after=3, times=1)
    client.receiver(session, "q")
    assert len(client.payloads()) == 3 and len(client.of(r.Detach)) == 1
    assert broker.info("q").messages == 5
    client.receiver(session, "q", name="again")
    assert len(client.payloads()) == 8


def test_no_credit_until_the_script_is_taken_off(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", credit=0)
    client, session = connect()
    link = client.sender(session, "q")
    assert client.engine.link(link).credit == 0
    broker.unscript("q")
    client.run()
    assert client.engine.link(link).credit > 0


def test_one_credit_at_a_time(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", credit=1)
    client, session = connect()
    link = client.sender(session, "q")
    for i in range(5):
        assert client.engine.link(link).credit == 1
        client.send(link, data(b"%d" % i))
    assert broker.info("q").messages == 5


def test_messages_without_an_outcome_hold_the_credit_of_a_script(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", "none", credit=3)
    client, session = connect()
    link = client.sender(session, "q")
    client.send(link, *[data(b"%d" % i) for i in range(3)])
    client.run()
    assert client.engine.link(link).credit == 0  # none of them has an outcome, nor ever will
    assert client.outcomes() == []


def test_an_outcome_that_comes_late_gives_its_credit_back(broker: Broker, connect: Connect, data: Data) -> None:
    broker.script("q", "accepted", credit=2, delay=5)
    client, session = connect()
    link = client.sender(session, "q")
    client.send(link, data(b"0"), data(b"1"))
    client.run()
    assert client.engine.link(link).credit == 0
    client.run(client.now + 5_000)
    assert client.outcomes() == [(0, 1, lib.OUT_ACCEPTED)]
    assert client.engine.link(link).credit == 2


def test_max_message_size_is_told_in_the_attach(broker: Broker, connect: Connect) -> None:
    broker.script("q", max_message_size=1000)
    client, session = connect()
    assert client.engine.link(client.sender(session, "q")).remote_max_message_size == 1000


def test_mistakes_in_a_script_are_found_at_once(broker: Broker) -> None:
    with pytest.raises(ValueError, match="'acepted' is none of accepted"):
        broker.script("q", "acepted")
    with pytest.raises(ValueError, match="fail='explode'"):
        broker.script("q", fail="explode")  # type: ignore[arg-type]
    for numbers in (
        {"credit": 1 << 32},
        {"max_message_size": 1 << 64},
        {"delay": float("inf")},
        {"delay": float("nan")},
    ):
        with pytest.raises(ValueError, match="is more than"):
            broker.script("q", **numbers)
    for options in ({"outcome": "rejected"}, {"fail": "detach"}):
        with pytest.raises(ValueError, match="no more than 4096 can be sent"):
            broker.script("q", description="x" * 4096, **options)
    with pytest.raises(ValueError, match="after=-1 is negative"):
        broker.script("q", after=-1)
