"""What comes out of the engine when two of them talk."""

from __future__ import annotations

from array import array

import pytest

from uamqp_cffi._core.engine import events, lib, values
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine.engine import Engine
from uamqp_cffi._core.engine.lib import SizeError, StateError

ACCEPTED = values.described_composite("accepted")


def lens(*sizes: int) -> array:
    return array("I", sizes)


def test_open_begin_attach_are_answered_and_come_with_their_fields(loopback):
    pair = loopback()
    link = pair.attached(credit=7)
    (opened,) = pair.take(r.Open)
    assert opened.fields["container_id"] == "us"
    assert opened.fields["channel_max"] is None
    (begun,) = pair.take(r.Begin)
    assert begun.reply
    assert begun.fields["incoming_window"] == 1000
    (attached,) = pair.take(r.Attach)
    assert attached.link == link
    assert attached.reply
    assert attached.sender
    assert attached.fields["name"] == "link"
    assert pair.take(r.Credit)[-1] == r.Credit(link, 7, False, 0)
    info = pair.client.link(link)
    assert (info.state, info.credit, info.is_sender) == (3, 7, 1)


def test_states_pass_through_those_of_the_specification(loopback):
    pair = loopback()
    pair.attached()
    assert [s.new for s in pair.take(r.ConnState)] == [2, 3, 7, 9]  # HDR_SENT HDR_EXCH OPEN_SENT OPENED
    assert [s.new for s in pair.take(r.SessionState)] == [1, 3]
    assert [s.new for s in pair.take(r.LinkState)] == [1, 3]


def test_a_run_of_messages_goes_in_one_call_and_is_settled_as_one_range(loopback):
    pair = loopback()
    link = pair.attached(credit=100)
    bodies = [b"body %d" % i for i in range(50)]
    taken, first = pair.client.send_messages(link, b"".join(bodies), lens(*map(len, bodies)), data=True)
    assert taken == 50
    pair.run()
    deliveries = pair.seen(r.Delivery)
    assert [d.payload for d in deliveries] == [values.enc_described(0x75, values.enc_binary(body)) for body in bodies]
    assert not deliveries[0].settled
    theirs = deliveries[0].link
    pair.server.settle(theirs, deliveries[0].delivery_id, deliveries[-1].delivery_id, True, ACCEPTED)
    pair.run()
    # that code says it all
    assert pair.take(r.Settled) == [r.Settled(link, first, first + 49, lib.OUT_ACCEPTED, True, b"")]


def test_the_ranges_of_one_disposition_share_their_state(loopback):
    pair = loopback()
    link = pair.attached()
    pair.client.send_messages(link, b"x" * 60, lens(*[1] * 60), data=True)
    pair.run()
    theirs = pair.seen(r.Attach)[-1].link
    for n in range(1, 60, 2):
        pair.server.settle(theirs, n, n, state=ACCEPTED)
    pair.run()
    pair.take(r.Settled)
    why = values.described_composite(
        "error", condition=values.enc_symbol("full"), description=values.enc_str("x" * 400)
    )
    state = values.described_composite("rejected", error=why)
    yes, first, last = values.enc_bool(True), values.enc_uint(0), values.enc_uint(59)
    body = values.described_composite("disposition", role=yes, first=first, last=last, settled=yes, state=state)
    frame = (8 + len(body)).to_bytes(4, "big") + b"\2\0\0\0" + body
    pair.client.in_view[: len(frame)] = frame
    settled = [
        record
        for record in pair.client.step(pair.now, len(frame), 0, pair.kernel[pair.client])
        if type(record) is r.Settled
    ]
    assert [(record.first, record.last, record.outcome) for record in settled] == [
        (n, n, 0x25) for n in range(0, 60, 2)
    ]
    assert settled[0].state == state
    assert len({id(record.state) for record in settled}) == 1


def test_credit_bounds_what_is_taken(loopback):
    pair = loopback()
    link = pair.attached(credit=3)
    taken, _ = pair.client.send_messages(link, b"abcde", lens(1, 1, 1, 1, 1), data=True)
    assert taken == 3
    assert pair.client.send_messages(link, b"de", lens(1, 1), data=True)[0] == 0


def test_presettled_is_sent_when_the_kernel_has_it_and_not_before(loopback):
    pair = loopback()
    link = pair.attached()
    client = pair.client
    taken, first = client.send_messages(link, b"x", lens(1), settled=True, data=True)
    assert (taken, client.presettled) == (1, True)
    size = len(client.output())
    total = client.committed
    assert [e for e in client.step(pair.now, 0, size, total) if isinstance(e, r.Settled)] == []
    (settled,) = client.step(pair.now, 0, 0, total + size)
    assert (settled.first, settled.outcome) == (first, lib.OUT_SENT)


def test_loss_tells_what_left_from_what_did_not(loopback):
    pair = loopback()
    link = pair.attached()
    _, first = pair.client.send_messages(link, b"ab", lens(1, 1), data=True)
    out = len(pair.client.output())
    committed = pair.client.committed
    pair.client.step(pair.now, 0, out - 1, committed + out - 1)
    pair.client.lost()
    records = pair.client.step(pair.now, 0, 0, committed + out - 1)
    settled = [(e.first, e.last, e.outcome) for e in records if isinstance(e, r.Settled)]
    assert settled == [
        (first, first, lib.OUT_UNKNOWN),
        (first + 1, first + 1, lib.OUT_NOT_DELIVERED),
    ]
    assert isinstance(records[-1], r.Lost)


def test_a_large_message_comes_whole_over_many_frames(loopback):
    pair = loopback()
    link = pair.attached()
    body = bytes(range(256)) * 4000
    taken, _ = pair.client.send_messages(link, body, lens(len(body)), data=True)
    assert taken == 1
    pair.run()
    (delivery,) = pair.seen(r.Delivery)
    assert delivery.payload.endswith(body)


def test_peers_errors_come_as_records(loopback):
    pair = loopback()
    link = pair.attached()
    theirs = pair.seen(r.Attach)[0].link
    error = values.described_composite(
        "error",
        condition=values.enc_symbol("amqp:not-found"),
        description=values.enc_str("no such node"),
        info=values.enc_map([(values.enc_symbol("k"), values.enc_int(1))]),
    )
    pair.server.detach(theirs, True, error)
    pair.run()
    (detach,) = pair.take(r.Detach)
    assert detach == r.Detach(link, True, r.Error(b"amqp:not-found", b"no such node", {"k": 1}))
    with pytest.raises(StateError):
        pair.client.link(link)


def test_close_is_answered_and_ends_both(loopback):
    pair = loopback()
    pair.attached()
    pair.client.close()
    pair.run()
    assert pair.seen(r.Close) == [r.Close(None)]
    assert pair.take(r.Close) == [r.Close(None)]
    assert pair.client.conn().transport_done
    assert pair.server.conn().transport_done


def test_sasl_plain_both_roles(loopback):
    client = Engine()
    client.sasl_client("PLAIN", b"\0user\0pass")
    pair = loopback(client=client)
    pair.server.sasl_server(["PLAIN", "ANONYMOUS"])
    client.open(values.composite("open", container_id=values.enc_str("c")))
    pair.run()
    (init,) = pair.seen(r.SaslInit)
    assert init == r.SaslInit("PLAIN", b"\0user\0pass", None)
    pair.server.sasl_outcome(0)
    pair.run()
    assert pair.take(r.SaslMechanisms) == [r.SaslMechanisms(["PLAIN", "ANONYMOUS"], True)]
    assert pair.take(r.SaslOutcome) == [r.SaslOutcome(0)]
    assert len(pair.take(r.Open)) == 1


def test_a_mechanism_that_is_not_offered_is_told(loopback):
    client = Engine()
    client.sasl_client("EXTERNAL", b"")
    pair = loopback(client=client)
    pair.server.sasl_server(["PLAIN"])
    client.open(values.composite("open", container_id=values.enc_str("c")))
    pair.run()
    assert pair.take(r.SaslMechanisms) == [r.SaslMechanisms(["PLAIN"], False)]


def test_a_heartbeat_is_owed_at_half_the_peers_time_out(loopback):
    pair = loopback(answer=False)
    pair.client.open(values.composite("open", container_id=values.enc_str("c")))
    pair.run()
    pair.server.open(values.composite("open", container_id=values.enc_str("s"), idle_time_out=values.enc_uint(4000)))
    pair.run()
    assert pair.client.deadline == pair.now + 2000
    pair.tick(1999)
    assert not pair.client.output()
    pair.tick(1)
    assert bytes(pair.client.output()) == b"\0\0\0\x08\x02\0\0\0"


def test_the_sending_half_of_a_step_makes_heartbeats_but_judges_no_silence(loopback):
    pair = loopback(answer=False)
    pair.client.open(values.composite("open", container_id=values.enc_str("c"), idle_time_out=values.enc_uint(1000)))
    pair.run()
    pair.server.open(values.composite("open", container_id=values.enc_str("s"), idle_time_out=values.enc_uint(4000)))
    pair.run()
    pair.client_got.clear()
    pair.client.commit(0, pair.now + 60_000)
    assert bytes(pair.client.output()) == b"\0\0\0\x08\x02\0\0\0"
    assert pair.client.step(pair.now + 60_000, 0, 8, 0 + pair.client.committed + 8) == []
    records = pair.client.step(pair.now + 60_000, flushed=pair.client.committed, dry=True)
    (error,) = [e for e in records if isinstance(e, r.PeerError)]
    assert error.error.condition == b"amqp:internal-error"


def test_more_than_the_peer_takes_is_refused_and_changes_nothing(loopback, performatives):
    pair = loopback(answer=False)
    pair.client.open(performatives["open"])
    session = pair.client.begin(performatives["begin"])
    link = pair.client.attach(session, performatives["attach"](True))
    pair.run()
    pair.server.open(performatives["open"])
    pair.run()
    pair.server.begin(performatives["begin"], pair.seen(r.Begin)[0].session)
    pair.run()
    asked = pair.seen(r.Attach)[0]
    limited = performatives["attach"](False, max_message_size=values.enc_ulong(10))
    pair.server.attach(asked.session, limited, asked.link)
    pair.server.flow(asked.link, 5)
    pair.run()
    assert pair.client.link(link).remote_max_message_size == 10
    with pytest.raises(SizeError):
        pair.client.send_messages(link, b"x" * 11, lens(11))
    assert pair.client.link(link).credit == 5
    assert pair.client.send_messages(link, b"x" * 10, lens(10))[0] == 1


def test_trace_has_a_line_per_frame_and_no_bodies(loopback):
    client = Engine()
    client.set(lib.OPT_TRACE, 1)
    pair = loopback(client=client)
    link = pair.attached()
    client.send_messages(link, b"secret body", lens(11), data=True)
    pair.run()
    text = client.trace()
    assert "secret" not in text
    assert len(text.splitlines()) >= 9
    assert client.trace() == ""


def test_verbs_of_a_freed_engine_are_refused(performatives):
    engine = Engine()
    engine.free()
    with pytest.raises(StateError):
        engine.begin(performatives["begin"])
    with pytest.raises(StateError):
        engine.send_messages(1, b"x", lens(1))
    engine.free()


def test_a_stale_id_is_a_state_error(loopback):
    pair = loopback()
    pair.attached()
    with pytest.raises(StateError):
        pair.client.detach(0xDEAD0001)
    with pytest.raises(StateError):
        pair.client.end(0xBEEF0001)


@pytest.mark.parametrize(
    "text",
    ["5u8", '"x"', "true", "null", "described(0x99u64 7i8)", "[1u8 [null] 2u8]", 'error(condition=5u8 info="x")'],
)  # fmt: skip
def test_an_error_of_any_shape_is_an_error_without_words(text):
    body = lib.undump(f"ch=0 {text}")[8:]
    assert events.decode_error(body) == r.Error(b"", None, None)


def test_text_of_an_error_need_not_be_utf8():
    body = lib.undump(r'ch=0 error(condition=:"\xff" description="\xfe!")')[8:]
    assert events.decode_error(body) == r.Error(b"\xff", b"\xfe!", None)
