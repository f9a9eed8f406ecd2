"""What a SendClient puts on the wire, seen by a peer that decodes every frame."""

from __future__ import annotations

import re
from typing import Any

import pytest

from uamqp_cffi import BatchMessage, Message, SendClient, Source, Target, errors, types
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine.types import Symbol
from uamqp_cffi._native import make
from uamqp_cffi.constants import MessageState, ReceiverSettleMode, SenderSettleMode

pytestmark = pytest.mark.both_drivers

DONE = MessageState.SendComplete


def attach_of(peer: Any, **kwargs: Any) -> dict[str, Any]:
    """The fields of the ATTACH of a client made with these arguments."""
    with SendClient(kwargs.pop("target", peer.url), **kwargs) as client:
        while not client.client_ready():
            continue
        (attach,) = peer.wait(r.Attach)
    fields: dict[str, Any] = attach.fields
    return fields


def test_the_attach_of_a_default_client(peer: Any) -> None:
    fields = attach_of(peer, client_name="me")
    assert fields["name"].startswith("sender-link-")
    assert fields["role"] is False
    assert fields["snd_settle_mode"] == 0
    assert fields["rcv_settle_mode"] is None  # left to the peer unless it was chosen
    assert fields["source"].value == ["me"]
    assert fields["target"].value == ["amqp://localhost/q"]  # neither port nor user
    assert fields["initial_delivery_count"] == 0
    assert fields["max_message_size"] is None
    assert fields["properties"] is None and fields["desired_capabilities"] is None


def test_chosen_link_arguments_are_on_the_attach(peer: Any) -> None:
    fields = attach_of(
        peer,
        send_settle_mode=SenderSettleMode.Mixed,
        receive_settle_mode=ReceiverSettleMode.PeekLock,
        max_message_size=12345,
        link_properties={"a": 1, b"b": "c"},
        desired_capabilities=make.data_factory(types.AMQPArray([types.AMQPSymbol("cap")])),
        link_credit=77,
    )
    assert (fields["snd_settle_mode"], fields["rcv_settle_mode"], fields["max_message_size"]) == (2, 1, 12345)
    assert fields["properties"] == {"a": 1, "b": "c"}
    assert fields["desired_capabilities"] == ["cap"]


@pytest.mark.parametrize("names", [[b"a", "b"], ("a", b"b")])
def test_a_list_of_desired_capabilities_is_an_array_of_symbols(peer: Any, names: Any) -> None:
    capabilities = attach_of(peer, desired_capabilities=names)["desired_capabilities"]
    assert capabilities == ["a", "b"] and all(isinstance(name, Symbol) for name in capabilities)


def test_one_desired_capability_is_a_symbol(peer: Any) -> None:
    capability = attach_of(peer, desired_capabilities=b"a")["desired_capabilities"]
    assert capability == "a" and isinstance(capability, Symbol)


def test_link_properties_are_a_dict(peer: Any) -> None:
    with pytest.raises(TypeError, match="dict"):
        SendClient(peer.url, link_properties=[1])


@pytest.mark.parametrize(
    ("kwargs", "address"),
    [
        ({"address": "/queues/orders"}, "/queues/orders"),
        ({"address": b"orders"}, "orders"),
    ],
)
def test_an_address_goes_out_as_it_is(peer: Any, kwargs: dict[str, Any], address: str) -> None:
    fields = attach_of(peer, target=f"amqp://localhost:{peer.port}", **kwargs)
    assert fields["target"].value == [address]


def test_the_fields_of_a_target_object_go_out(peer: Any) -> None:
    target = Target(f"amqp://us%20er:secret@localhost:{peer.port}/a/b?x=1")
    target.durable = 2
    target.expiry_policy = b"never"
    target.timeout = 9
    assert attach_of(peer, target=target)["target"].value == ["amqp://localhost/a/b", 2, "never", 9]


def test_session_and_connection_arguments_are_on_begin_and_open(peer: Any) -> None:
    attach_of(
        peer,
        client_name="me",
        incoming_window=11,
        outgoing_window=12,
        handle_max=13,
        max_frame_size=2048,
        channel_max=5,
        idle_timeout=90_000,
        properties={"product": "test"},
    )
    (opened,) = peer.wait(r.Open)
    assert opened.fields["container_id"] == "me" and opened.fields["hostname"] == "localhost"
    assert (opened.fields["max_frame_size"], opened.fields["channel_max"]) == (2048, 5)
    assert opened.fields["idle_time_out"] == 90_000
    assert opened.fields["properties"] == {"product": "test"}
    (begun,) = peer.wait(r.Begin)
    assert begun.fields["remote_channel"] is None and begun.fields["next_outgoing_id"] == 0
    assert (begun.fields["incoming_window"], begun.fields["outgoing_window"]) == (11, 12)
    assert begun.fields["handle_max"] == 13


def test_the_frames_of_a_default_client(peer: Any) -> None:
    attach_of(peer)
    (opened,), (begun,) = peer.wait(r.Open), peer.wait(r.Begin)
    assert (opened.fields["max_frame_size"], opened.fields["channel_max"]) == (65536, 65535)
    assert opened.fields["idle_time_out"] is None and opened.fields["properties"] is None
    assert (begun.fields["incoming_window"], begun.fields["outgoing_window"]) == (65536, 65536)


def test_frames_are_no_larger_than_our_own_max_frame_size(peer: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "uamqp.c_uamqp")
    with SendClient(peer.url, max_frame_size=1024, debug=True) as client:
        client.send_message(Message(bytes(5000)))
    sizes = [int(size) for size in re.findall(r"-> .*transfer\(.* payload=(\d+)B", caplog.text)]
    assert sum(sizes) == 5008 and 980 < max(sizes) < 1024 and len(sizes) == 6


def test_the_heartbeat_ratio_is_the_connections(peer: Any) -> None:
    with pytest.raises(ValueError, match="ratio"):
        SendClient(peer.url, remote_idle_timeout_empty_frame_send_ratio=1.1).open()
    with SendClient(peer.url, remote_idle_timeout_empty_frame_send_ratio=0.3, keep_alive_interval=1) as client:
        assert client._connection._ratio == 0.3


def test_senders_send_no_flow(peer: Any) -> None:
    with SendClient(peer.url, link_credit=77) as client:
        client.send_message(Message(b"x"))
        assert not peer.records(r.Credit)


def test_transfers_are_settled_as_the_mode_says(peer: Any) -> None:
    with SendClient(peer.url, send_settle_mode=SenderSettleMode.Settled) as client:
        client.send_message(Message(b"x"))
    (delivery,) = peer.wait(r.Delivery)
    assert delivery.settled and delivery.payload == b"\x00Su\xa0\x01x" and delivery.message_format == 0


def test_message_formats_go_out_and_keep_their_order(peer: Any) -> None:
    with SendClient(peer.url) as client:
        client.queue_message(Message(b"a"), BatchMessage([b"b"]), Message("c", msg_format=5), Message(b"d"))
        assert client.send_all_messages() == [DONE] * 4
    assert [d.message_format for d in peer.wait(r.Delivery, 4)] == [0, 0x80013700, 5, 0]


def test_delivery_tags_and_ids_count(peer: Any) -> None:
    with SendClient(peer.url) as client:
        client.queue_message(Message(b"a"), Message(b"b"))
        client.send_all_messages()
    got = peer.wait(r.Delivery, 2)
    assert [d.tag for d in got] == [b"\x01\0\0\0", b"\x02\0\0\0"]


def test_on_attach_is_told_of_the_peers_attach(peer: Any) -> None:
    told: list[Any] = []
    attach_of(peer, on_attach=lambda *args: told.append(args))
    ((source, target, properties, error),) = told
    assert isinstance(source, Source) and isinstance(target, Target)
    assert (target.address, properties, error) == ("q", None, None)


def test_what_on_attach_raises_is_logged(peer: Any, caplog: pytest.LogCaptureFixture) -> None:
    def bad(*args: Any) -> None:
        raise RuntimeError("attach trouble")

    attach_of(peer, on_attach=bad)
    assert "attach trouble" in caplog.text


def test_detach_end_and_close_are_said(peer: Any) -> None:
    with SendClient(peer.url) as client:
        client.send_message(Message(b"x"))
    assert peer.wait(r.Detach)[0].closed is True
    assert peer.wait(r.Detach)[0].error is None
    peer.wait(r.End)
    assert peer.wait(r.Close)[0].error is None


def test_no_more_than_the_credit_is_sent(peer: Any) -> None:
    peer.credit = 3
    with SendClient(peer.url) as client:
        client.queue_message(*[Message(b"%d" % n) for n in range(5)])
        while client.message_handler is None or client._out or len(client.pending_messages) > 2:
            client.do_work()
        assert [m.state for m in client.pending_messages] == [MessageState.WaitingToBeSent] * 2
        peer.do(lambda: peer.engine.flow(peer.link, 10))
        client.wait()
    assert len(peer.wait(r.Delivery, 5)) == 5


@pytest.mark.blocking("looks at the poller")
def test_a_step_after_queue_message_never_waits(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when there is no credit to send it."""
    peer.credit = 0
    with SendClient(peer.url) as client:
        while not client.client_ready():
            continue
        waits: list[float] = []
        poller = client._connection._poller
        monkeypatch.setattr(poller, "wait", lambda wait, write=False: waits.append(wait) or 0)
        for _ in range(10):
            client.do_work()
        assert waits[-1] > 0
        client.queue_message(Message(b"x"))
        waits.clear()
        for _ in range(4):
            client.do_work()
        assert waits[:2] == [0, 0] and waits[-1] > 0
        monkeypatch.undo()


def test_a_peer_that_drains_gets_its_credit_back(peer: Any) -> None:
    with SendClient(peer.url) as client:
        client.send_message(Message(b"x"))
        peer.do(lambda: peer.engine.flow(peer.link, 50, drain=True))
        while not any(c.drain for c in peer.records(r.Credit)):
            client.do_work()
        (flow,) = peer.wait(r.Credit)
        assert flow.credit == 0
        peer.do(lambda: peer.engine.flow(peer.link, 1))
        client.send_message(Message(b"y"))


def test_a_shut_session_window_opens_again(peer: Any) -> None:
    peer.incoming_window = 2
    peer.credit = 1000
    with SendClient(peer.url) as client:
        client.queue_message(*[Message(b"%d" % n) for n in range(500)])
        assert client.send_all_messages() == [DONE] * 500
    assert len(peer.wait(r.Delivery, 500)) == 500


def test_a_shut_session_window_is_waited_for(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.incoming_window = 2
    peer.credit = 1000
    pumps = []
    with SendClient(peer.url) as client:
        pump = client._pump
        monkeypatch.setattr(client, "_pump", lambda: (pumps.append(1), pump())[1])
        client.queue_message(*[Message(b"%d" % n) for n in range(100)])
        assert client.send_all_messages(close_on_done=False) == [DONE] * 100
    assert len(pumps) < 100 * 5


def test_an_anonymous_relay_is_no_refusal(peer: Any) -> None:
    class Relay(Target):
        address = ""  # type: ignore[assignment]

        def _encode(self) -> bytes:
            return b"\x00\x53\x29\x45"

    peer.on[r.Attach] = lambda p, record: p.attach(record, target=None) or p.engine.flow(record.link, 10)
    with SendClient(Relay(peer.url)) as client:
        client.send_message(Message(b"x"))


@pytest.mark.blocking("the asyncio classes have no way without a plan")
def test_a_retry_that_is_due_later_bounds_the_wait_for_another_message(
    amqp_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(errors.ErrorPolicy):
        def on_message_error(self, error: Any) -> Any:
            return errors.ErrorAction(retry=True, backoff=60)

    amqp_broker.script("busy", "rejected", condition="amqp:internal-error", times=1)
    first = Message(b"x")
    with SendClient(amqp_broker.url + "/busy", error_policy=Later()) as client:
        client.queue_message(first)
        while not first.retries:
            client.do_work()
        waits: list[float | None] = []
        wait = client._connection._wait
        monkeypatch.setattr(
            client._connection, "_wait", lambda inbox, end=None: (waits.append(end), wait(inbox, end))[1]
        )
        client.send_message(Message(b"y"))
    assert waits and None not in waits
