"""What goes over the wire when a client receives, and what a peer can do wrong then, over real sockets on loopback. Every failure
gives its documented error in time, and what was received before it can be had. Runs everywhere."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi import ReceiveClient, Source, constants, errors
from uamqp_cffi._core.engine import lib

Codes = constants.ErrorCodes
State = constants.MessageState

SOON = 5.0  # seconds that no failure may take; each is found in milliseconds on an idle machine


@pytest.fixture
def receiving(ends_within: Callable[..., Any]) -> Iterator[Callable[..., ReceiveClient]]:
    """`receiving(url, **client arguments)`: a client, which is closed in the end, and quickly."""
    made: list[ReceiveClient] = []

    def make(url: Any, **how: Any) -> ReceiveClient:
        how.setdefault("timeout", 4000)
        made.append(ReceiveClient(url, **how))
        return made[-1]

    yield make
    for client in made:
        assert ends_within(SOON + 1, client.close).error is None


def bodies(messages: list[Any]) -> list[bytes]:
    return [b"".join(message.get_data()) for message in messages]


# ---- what a receiver says ----


def attach_of(scripted: Any, receiving: Any, amqp: Any, source: Any = None, **how: Any) -> tuple[Any, Any]:
    """The ATTACH of a client made with these arguments, and its first FLOW."""
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        flow = peer.serve(initial=0xFFFFFFFE)
        seen.put((peer.attach, flow))
        peer.polite_end()

    server = scripted(script)
    where = server.url() if source is None else source
    if isinstance(where, Source):
        from uamqp_cffi.authentication import SASLAnonymous

        how["auth"] = SASLAnonymous("localhost", port=server.port, use_tls=False)
    client = receiving(where, **how)
    assert client.receive_message_batch(1, timeout=100) == []
    found: tuple[Any, Any] = seen.get(timeout=SOON)
    return found


def test_the_attach_of_a_default_receiver(scripted: Any, receiving: Any, amqp: Any) -> None:
    attach, flow = attach_of(scripted, receiving, amqp, client_name="me")
    assert attach[0].startswith("receiver-link-") and attach[2] is True
    assert attach[3] == 0
    assert attach[4] is None, "rcv-settle-mode is left to the peer unless it was chosen"
    assert attach[5].fields == ["amqp://127.0.0.1/q"]
    assert attach[6].fields == ["me"]
    assert attach[9] is None and attach[10] is None  # no limit that nobody chose
    assert (flow[4], flow[5], flow[6], flow[8]) == (0, 0xFFFFFFFE, 300, None)


def test_chosen_arguments_are_on_the_wire(scripted: Any, receiving: Any, amqp: Any) -> None:
    attach, flow = attach_of(
        scripted,
        receiving,
        amqp,
        receive_settle_mode=constants.ReceiverSettleMode.PeekLock,
        send_settle_mode=constants.SenderSettleMode.Settled,
        max_message_size=7,
        link_properties={"a": "b"},
        prefetch=11,
    )
    assert (attach[3], attach[4], attach[10], flow[6]) == (1, 1, 7, 11)
    assert attach[13] == {"a": "b"}


@pytest.mark.parametrize(
    ("arguments", "wire"),
    [  # as the wheel of uamqp 1.6.11 sends them
        (
            (b"amqp.annotation.x-opt-offset > '-1'",),
            "c16d02a3216170616368652e6f72673a73656c6563746f722d66696c7465723a737472696e6700a3216170616368652e6f72673a73"
            "656c6563746f722d66696c7465723a737472696e67a123616d71702e616e6e6f746174696f6e2e782d6f70742d6f6666736574203e20"
            "272d3127",
        ),
        (("abc", b"com.microsoft:session-filter", None), "c12402a31c636f6d2e6d6963726f736f66743a73657373696f6e2d66696c746572a103616263"),
        ((None, b"com.microsoft:session-filter", None), "c12002a31c636f6d2e6d6963726f736f66743a73657373696f6e2d66696c74657240"),
        (("x", b"n", b"d:e"), "c10d02a3016e00a303643a65a10178"),
    ],
    ids=["selector", "undescribed", "null", "described"],
)  # fmt: skip
def test_filters_go_out_as_uamqp_sends_them(
    scripted: Any, receiving: Any, amqp: Any, arguments: tuple[Any, ...], wire: str
) -> None:
    source = Source("amqps://localhost/q")
    source.set_filter(*arguments)
    attach, _ = attach_of(scripted, receiving, amqp, source, client_name="me")
    address = b"\xa1\x13amqps://localhost/q"
    filters = bytes.fromhex(wire)
    fields = address + b"\x40" * 6 + filters
    assert b"\x00\x53\x28\xc0" + bytes([len(fields) + 1, 8]) + fields in attach.body


# ---- credit ----


def test_credit_counts_deliveries_whatever_they_are(scripted: Any, receiving: Any, amqp: Any, ends_within: Any) -> None:
    flows: list[tuple[int, int]] = []

    def script(peer: Any) -> None:
        peer.serve()
        peer.deliver(0, amqp.data(b"one"))
        peer.deliver(1, amqp.data(bytes(1000)), frames=7)
        peer.deliver(2, amqp.data(bytes(1000)), frames=3, aborted=True)
        peer.deliver(3, b"")
        peer.deliver(4, amqp.data(b"five"), frames=2, settled=True)
        flow = peer.credit()
        flows.append((flow[5], flow[6]))
        for number in range(5, 10):
            peer.deliver(number, b"", aborted=True)
        flow = peer.credit()  # nothing was handed out, and there is credit again
        flows.append((flow[5], flow[6]))
        peer.deliver(10, amqp.data(b"last"))
        peer.polite_end()

    client = receiving(scripted(script).url(), prefetch=10)
    got: list[Any] = []

    def receive() -> None:
        while len(got) < 5:
            got.extend(client.receive_message_batch(10))

    assert ends_within(SOON, receive).error is None
    assert flows == [(5, 10), (10, 10)], "delivery-count and credit"
    assert [m.delivery_no for m in got] == [0, 1, 3, 4, 10]
    assert [m.delivery_tag for m in got] == [b"tag0", b"tag1", b"tag3", b"tag4", b"tag10"]
    assert got[2].get_data() is None and str(got[4]) == "last"


def test_credit_that_was_reset_is_used_up_first(scripted: Any, receiving: Any, amqp: Any) -> None:
    flows: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.serve()
        for number in range(2):
            flow = peer.credit()
            flows.put((flow[5], flow[6], flow[8]))
            for n in range(2):
                peer.deliver(number * 2 + n, amqp.data(b"x"), frames=2)
        flow = peer.credit()
        flows.put((flow[5], flow[6], flow[8]))
        peer.polite_end()

    client = receiving(scripted(script).url(), prefetch=10)
    client.open()
    while not client.client_ready():
        continue
    client.message_handler.reset_link_credit(3)
    assert flows.get(timeout=SOON) == (0, 3, None)
    got: list[Any] = []
    while len(got) < 2:
        got += client.receive_message_batch(10)
    assert flows.get(timeout=SOON) == (2, 10, None)
    while len(got) < 4:
        got += client.receive_message_batch(10)
    client.message_handler.reset_link_credit(5, drain=True)
    assert flows.get(timeout=SOON) == (4, 5, True)


def test_a_pause_holds_though_messages_were_under_way(
    scripted: Any, receiving: Any, amqp: Any, ends_within: Any
) -> None:
    flows: list[Any] = []

    def script(peer: Any) -> None:
        peer.serve()
        while True:  # the pause arrives too late to stop these
            flow = peer.until(amqp.FLOW)
            if flow[4] is not None:
                break
        for number in range(10):
            peer.deliver(number, amqp.data(b"x"))
        with contextlib.suppress(EOFError, OSError):
            while True:
                frame = peer.frame()
                if frame.code == amqp.FLOW and frame[6]:
                    flows.append(frame)
                if frame.code in (amqp.END, amqp.CLOSE):
                    peer.send(frame.code)

    client = receiving(scripted(script).url(), prefetch=10, shutdown_after_timeout=False, timeout=300)
    client.open()
    while not client.client_ready():
        continue
    client.message_handler.reset_link_credit(0)
    got: list[Any] = []
    while batch := client.receive_message_batch(10):
        got += batch
    assert len(got) == 10
    assert not flows


def test_after_a_drain_there_is_no_credit_until_it_is_asked_for(
    scripted: Any, receiving: Any, amqp: Any, ends_within: Any
) -> None:
    def script(peer: Any) -> None:
        peer.serve()
        peer.deliver(0, amqp.data(b"first"))
        flow = peer.credit()
        assert (flow[5], flow[6], flow[8]) == (1, 5, True)
        # nothing there: delivery-count advances by what was left (§2.6.7)
        peer.send(
            amqp.FLOW, amqp.Uint(0), amqp.Uint(2048), amqp.Uint(1), amqp.Uint(2048), amqp.Uint(0), amqp.Uint(6),
            amqp.Uint(0), None, True,
        )  # fmt: skip
        flow = peer.credit()
        assert (flow[5], flow[6], flow[8]) == (6, 2, None)
        peer.deliver(1, amqp.data(b"second"))
        peer.polite_end()

    client = receiving(scripted(script).url(), prefetch=10)
    assert bodies(client.receive_message_batch(1)) == [b"first"]
    client.message_handler.reset_link_credit(5, drain=True)
    assert client.receive_message_batch(1, timeout=200) == []
    client.message_handler.reset_link_credit(2)
    end = ends_within(SOON, client.receive_message_batch, 1)
    assert bodies(end.value) == [b"second"]


def test_the_session_window_is_renewed(scripted: Any, receiving: Any, amqp: Any, ends_within: Any) -> None:
    """More transfers than any window, one delivery of which is longer than the window."""

    def script(peer: Any) -> None:
        window = peer.serve()[1]
        sent = 0
        for number in range(20):
            for n in range(20):
                while window - sent <= 0:
                    flow = peer.until(amqp.FLOW)
                    window = flow[0] + flow[1]
                first = (amqp.Uint(number), b"t%d" % number, amqp.Uint(0)) if n == 0 else (None, None, None)
                payload = amqp.data(bytes(20)) if n == 0 else b""
                peer.send(amqp.TRANSFER, amqp.Uint(0), *first, True, n < 19, payload=payload)
                sent += 1
        peer.polite_end()

    client = receiving(scripted(script).url(), incoming_window=7)
    got: list[Any] = []

    def receive() -> None:
        while len(got) < 20:
            got.extend(client.receive_message_batch(20))

    assert ends_within(SOON, receive).error is None
    assert [m.delivery_no for m in got] == list(range(20))


def test_far_more_deliveries_than_credit_break_the_link(
    scripted: Any, receiving: Any, amqp: Any, ends_within: Any
) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.serve()
        frames: list[bytes] = []
        peer.write, write = frames.append, peer.write
        for number in range(8):
            peer.deliver(number, amqp.data(b"%d" % number), settled=True)
        peer.write = write
        peer.write(b"".join(frames))  # in one piece: no credit can come in between
        answers.put(peer.until(amqp.DETACH))
        peer.send(amqp.DETACH, amqp.Uint(0), True)
        peer.polite_end()

    client, got = receiving(scripted(script).url(), prefetch=3), []
    end = ends_within(SOON, all_of, client, got)
    assert type(end.error) is errors.LinkDetach
    assert end.error.condition == Codes.LinkTransferLimitExceeded
    assert bodies(got) == [b"%d" % n for n in range(6)], (
        "as much again as the credit is borne: RabbitMQ 3.10 overruns it"
    )
    assert answers.get(timeout=SOON)[2].fields[0] == "amqp:link:transfer-limit-exceeded"


# ---- the peer ends something ----

STAGES = ["open", "begin", "attach", "credit", "part", "delivered"]


def play(peer: Any, amqp: Any, stage: str) -> None:
    """A well-behaved peer as far as `stage`: `part` is in the middle of a delivery, `delivered` after three."""
    if stage in ("open", "begin"):
        peer.reach(stage)
        return
    if stage == "attach":
        peer.reach("begin")
        peer.attach = peer.until(amqp.ATTACH)
        peer.answer_attach(peer.attach[5], peer.attach[6], None, None, amqp.Uint(0))
        return
    peer.serve()
    if stage in ("part", "delivered"):
        for number in range(3):
            peer.deliver(number, amqp.data(b"%d" % number), settled=True)
    if stage == "part":
        peer.deliver(3, amqp.data(bytes(200_000)), frames=4, last=False)


def all_of(client: ReceiveClient, got: list[Any]) -> None:
    while True:
        got.extend(client.receive_message_batch(min(10, client._prefetch)))
        if client._shutdown:
            raise AssertionError("the client timed out")


def came(stage: str) -> list[bytes]:
    return [b"0", b"1", b"2"] if stage in ("part", "delivered") else []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("condition", "expected", "code"),
    [
        ("amqp:connection:forced", errors.ConnectionClose, Codes.ConnectionCloseForced),
        ("com.example:sorry", errors.VendorConnectionClose, b"com.example:sorry"),
        (None, errors.ConnectionClose, Codes.UnknownError),
    ],
    ids=["known", "vendor", "no-error"],
)
def test_close_of_the_peer(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, stage: str, condition: Any, expected: Any, code: Any
) -> None:
    answered: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        play(peer, amqp, stage)
        peer.send(amqp.CLOSE, *([amqp.error(condition, "go away")] if condition else []))
        answered.put(peer.until(amqp.CLOSE))
        peer.polite_end()

    client, got = receiving(scripted(script).url()), []
    end = ends_within(SOON, all_of, client, got)
    assert type(end.error) is expected
    assert (end.error.condition, end.error.scope, end.error.delivery) == (code, "connection", None)
    assert bodies(got) == came(stage)
    assert answered.get(timeout=SOON).code == amqp.CLOSE, "CLOSE is answered with CLOSE"


@pytest.mark.parametrize("stage", STAGES[1:])
@pytest.mark.parametrize("condition", ["amqp:session:window-violation", "com.example:sorry", None])
def test_end_of_the_peer(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, stage: str, condition: str | None
) -> None:
    answered: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        play(peer, amqp, stage)
        peer.send(amqp.END, *([amqp.error(condition, "no more")] if condition else []))
        answered.put(peer.until(amqp.END))
        peer.polite_end()

    client, got = receiving(scripted(script).url()), []
    end = ends_within(SOON, all_of, client, got)
    assert isinstance(end.error, errors.MessageHandlerError)
    assert end.error.scope == "session"
    expected = {None: Codes.UnknownError, "com.example:sorry": b"com.example:sorry"}
    assert end.error.condition == expected.get(condition, Codes.SessionWindowViolation)
    assert bodies(got) == came(stage)
    assert answered.get(timeout=SOON).code == amqp.END, "END is answered with END"


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "not-closed"])
@pytest.mark.parametrize("stage", STAGES[2:])
@pytest.mark.parametrize(
    ("condition", "expected", "code"),
    [
        ("amqp:link:detach-forced", errors.LinkDetach, Codes.LinkDetachForced),
        ("com.example:sorry", errors.VendorLinkDetach, b"com.example:sorry"),
        (None, errors.LinkDetach, Codes.UnknownError),
    ],
    ids=["known", "vendor", "no-error"],
)
def test_detach_of_the_peer(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, stage: str, condition: Any, expected: Any, code: Any,
    closed: bool,
) -> None:  # fmt: skip
    answered: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        play(peer, amqp, stage)
        peer.send(amqp.DETACH, amqp.Uint(0), closed, *([amqp.error(condition, "off")] if condition else []))
        answered.put(peer.until(amqp.DETACH))
        peer.polite_end()

    client, got = receiving(scripted(script).url()), []
    end = ends_within(SOON, all_of, client, got)
    assert type(end.error) is expected
    assert (end.error.condition, end.error.scope) == (code, "link")
    assert bodies(got) == came(stage)
    assert answered.get(timeout=SOON).code == amqp.DETACH, "DETACH is answered with DETACH"


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("stage", ["connected", "sasl-header", "mechanisms", "outcome", "header", *STAGES])
def test_lost_connection_at_every_stage(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, stage: str, how: str
) -> None:
    client_has_it = threading.Event()

    def script(peer: Any) -> None:
        if stage in STAGES:
            play(peer, amqp, stage)
            if came(stage):
                assert client_has_it.wait(SOON)  # an RST may overtake what was sent before
        else:
            peer.reach(stage)
        if how == "rst":
            peer.reset()
        else:
            peer.sock.shutdown(socket.SHUT_WR)
            peer.to_the_end()

    client, got = receiving(scripted(script).url()), []

    def receive() -> None:
        while len(got) < len(came(stage)):
            got.extend(client.receive_message_batch(10))
        client_has_it.set()
        all_of(client, got)

    end = ends_within(SOON, receive)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert bodies(got) == came(stage)


def test_reset_in_the_middle_of_a_transfer_of_1_mib(receiving: Any, scripted: Any, amqp: Any, ends_within: Any) -> None:
    def script(peer: Any) -> None:
        peer.serve()
        peer.deliver(0, amqp.data(bytes(1 << 20)), frames=17, last=False)
        peer.write(b"\x00\x00\xff\x00\x02\x00\x00\x00\x00\x53\x14")  # and half of a frame
        peer.reset()

    client = receiving(scripted(script).url())
    end = ends_within(SOON, client.receive_message_batch, 1)
    assert isinstance(end.error, errors.MessageHandlerError)
    assert client._received_messages.empty()


def test_refused_attach_gives_the_reason_and_proposes_address(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any
) -> None:
    def script(peer: Any) -> None:
        peer.reach("begin")
        peer.attach = peer.until(amqp.ATTACH)
        peer.answer_attach(None, peer.attach[6], None, None, amqp.Uint(0))
        peer.send(amqp.DETACH, amqp.Uint(0), True, amqp.error("amqp:not-found", "no node of that name"))
        peer.polite_end()

    end = ends_within(SOON, receiving(scripted(script).url()).receive_message_batch)
    assert type(end.error) is errors.LinkDetach and end.error.condition == Codes.NotFound
    assert "no node of that name" in str(end.error) and "address=" in str(end.error)
    assert end.error.retryable is False


def test_a_null_target_in_the_answer_is_no_refusal(receiving: Any, scripted: Any, amqp: Any, ends_within: Any) -> None:
    def script(peer: Any) -> None:
        peer.reach("begin")
        peer.attach = peer.until(amqp.ATTACH)
        peer.answer_attach(peer.attach[5], None, None, None, amqp.Uint(0))
        peer.credit()
        peer.deliver(0, amqp.data(b"x"))
        peer.polite_end()

    end = ends_within(SOON, receiving(scripted(script).url()).receive_message_batch, 1)
    assert bodies(end.value) == [b"x"]


# ---- frames and messages that are wrong ----


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x00\x10\x00\x00\x02\x00\x00\x00",  # 1 MiB, announced were 64 KiB
        b"\xff\xff\xff\xff\x02\x00\x00\x00",
        b"\x00\x00\x00\x04\x02\x00\x00\x00",  # shorter than its own header
        b"\x00\x00\x00\x0c\x01\x00\x00\x00\x00\x53\x14\xc0",  # data offset before the end of the header
        b"\x00\x00\x00\x0b\x02\x00\x00\x00\x00\x53\x99",  # no such performative
    ],
    ids=["oversized", "4GiB", "too-short", "offset", "unknown"],
)
def test_a_malformed_frame_closes_the_connection(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, wrong: bytes
) -> None:
    answered: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        play(peer, amqp, "delivered")
        peer.write(wrong)
        answered.put(peer.until(amqp.CLOSE))
        peer.send(amqp.CLOSE)
        peer.to_the_end()

    client, got = receiving(scripted(script).url()), []
    end = ends_within(SOON, all_of, client, got)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert end.error.condition in (Codes.ConnectionFramingError, Codes.DecodeError, Codes.NotImplemented)
    assert bodies(got) == came("delivered"), "what came before it"
    assert answered.get(timeout=SOON)[0].fields[0].startswith("amqp:")


MALFORMED = {
    "empty": b"",
    "not-a-section": b"\x53\x75\xa0\x01x",
    "section-cut": b"\x00\x53\x75\xa0\x09x",
    "properties-no-list": b"\x00\x53\x73\xa0\x01x\x00\x53\x75\xa0\x01x",
    "map-odd": b"\x00\x53\x74\xc1\x03\x01\xa1\x00\x00\x53\x75\xa0\x01x",
    "deep": b"\x00\x53\x77" + b"\xc0\xff\x01" * 200,
    "trailing": b"\x00\x53\x75\xa0\x01x\xff",
}


@pytest.mark.parametrize("wrong", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_fails_when_touched_and_the_others_are_fine(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, wrong: bytes
) -> None:
    def script(peer: Any) -> None:
        peer.serve()
        for number, payload in enumerate((amqp.data(b"a"), wrong, amqp.data(b"b"))):
            peer.deliver(number, payload)
        peer.polite_end()

    client, got = receiving(scripted(script).url(), auto_complete=False), []

    def receive() -> None:
        while len(got) < 3:
            got.extend(client.receive_message_batch(3))

    assert ends_within(SOON, receive).error is None
    good, bad, also_good = got
    assert bodies([good, also_good]) == [b"a", b"b"]
    touches: list[Callable[[], object]] = [
        lambda: bad.properties and bad.properties.message_id, lambda: bad.application_properties,
        lambda: bad.annotations, lambda: bad.header, lambda: list(bad.get_data() or ()), lambda: str(bad),
    ]  # fmt: skip
    failures = 0
    for touch in touches:
        try:
            touch()
        except ValueError:
            failures += 1
    assert failures or not wrong, "an empty message is only empty"
    assert bad.reject(b"amqp:decode-error") and bad.settled


def test_an_untouched_message_is_never_parsed(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bytes] = []

    def sections(payload: Any, real: Any = lib.sections) -> Any:
        looked.append(bytes(payload))
        return real(payload)

    def tape(payload: Any, real: Any = lib.tape) -> Any:
        looked.append(bytes(payload))
        return real(payload)

    rich = b"\x00\x53\x74" + amqp.encode({"k": "in-a-message"}) + amqp.data(b"in-a-message")

    def script(peer: Any) -> None:
        peer.serve()
        for number in range(10):
            peer.deliver(number, rich, frames=1 + number % 2)
        peer.polite_end()

    client, got = receiving(scripted(script).url(), prefetch=10), []
    monkeypatch.setattr(lib, "sections", sections)
    monkeypatch.setattr(lib, "tape", tape)

    def receive() -> None:
        while len(got) < 10:
            got.extend(client.receive_message_batch(10))

    assert ends_within(SOON, receive).error is None
    assert all(m.settled for m in got)
    assert not [payload for payload in looked if b"in-a-message" in payload]
    assert got[3].application_properties == {b"k": b"in-a-message"}
    assert [payload for payload in looked if b"in-a-message" in payload]


@pytest.mark.parametrize("frames", [1, 25])
def test_a_message_above_a_chosen_max_message_size_detaches_the_link(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, frames: int
) -> None:
    body = bytes(30_000 * frames)

    said: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.serve()
        peer.deliver(0, amqp.data(body), frames=frames)
        said.put(peer.until(amqp.DETACH))
        peer.polite_end()

    client = receiving(scripted(script).url(), max_message_size=1000)
    error = ends_within(SOON, client.receive_message_batch, 1).error
    assert isinstance(error, errors.LinkDetach) and error.condition is Codes.LinkMessageSizeExceeded
    assert "max_message_size=" in str(error) and "1000" in str(error)
    assert said.get(timeout=SOON)[2].fields[0] == "amqp:link:message-size-exceeded"


def test_a_message_above_1_mib_is_taken_by_default(receiving: Any, scripted: Any, amqp: Any, ends_within: Any) -> None:
    body = bytes(1_500_000)

    def script(peer: Any) -> None:
        peer.serve()
        peer.deliver(0, amqp.data(body), frames=25)
        peer.polite_end()

    end = ends_within(SOON, receiving(scripted(script).url()).receive_message_batch, 1)
    assert bodies(end.value) == [body]


# ---- silence ----


def test_time_outs_hold_when_nothing_ever_comes(receiving: Any, scripted: Any, amqp: Any, ends_within: Any) -> None:
    def script(peer: Any) -> None:
        peer.serve()
        peer.polite_end()

    url = scripted(script).url()
    client = receiving(url, timeout=0)
    end = ends_within(SOON, client.receive_message_batch, 1, timeout=200)
    assert end.value == [] and 0.19 < end.seconds < 2
    client = receiving(url, timeout=200, shutdown_after_timeout=False)
    for call in (client.receive_message_batch, lambda: client.receive_messages(print)):
        end = ends_within(SOON, call)
        assert not end.value and 0.19 < end.seconds < 2
    assert ends_within(SOON, lambda: list(client.receive_messages_iter())).value == []


@pytest.mark.parametrize("stage", ["attach", "credit", "part"])
def test_a_peer_silent_past_our_idle_timeout_is_closed_once(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, stage: str
) -> None:
    closes: list[Any] = []
    over = threading.Event()

    def script(peer: Any) -> None:
        play(peer, amqp, stage)
        with contextlib.suppress(EOFError, OSError):
            while True:
                frame = peer.frame()
                if frame.code == amqp.CLOSE:
                    closes.append(frame)
        over.set()

    client = receiving(scripted(script).url(), idle_timeout=300, timeout=0)
    got: list[Any] = []
    end = ends_within(SOON, all_of, client, got)
    assert type(end.error) is errors.ConnectionClose
    assert (end.error.condition, end.error.action) == (Codes.InternalServerError, None)
    assert bodies(got) == came(stage)
    with pytest.raises(errors.ConnectionClose):
        client.do_work()
    assert over.wait(SOON)
    assert [frame[0].fields[0] for frame in closes] == ["amqp:internal-error"]


def test_heartbeats_go_out_while_a_callback_blocks(receiving: Any, scripted: Any, amqp: Any, ends_within: Any) -> None:
    beats: list[Any] = []
    enough = threading.Event()

    def script(peer: Any) -> None:
        peer.serve(idle=400)
        peer.deliver(0, amqp.data(b"x"))
        while len(beats) < 4:
            if peer.frame().code is None:
                beats.append(1)
        enough.set()
        peer.polite_end()

    client = receiving(scripted(script).url())
    blocked: list[bool] = []

    def callback(message: Any) -> None:
        blocked.append(enough.wait(SOON))
        client.close()

    assert ends_within(SOON * 2, client.receive_messages, callback).error is None
    assert blocked == [True]


@pytest.mark.parametrize("unread", [0, 5])
def test_close_does_not_wait_for_a_peer_that_never_answers(
    receiving: Any, scripted: Any, amqp: Any, ends_within: Any, monkeypatch: pytest.MonkeyPatch, unread: int
) -> None:
    monkeypatch.setattr("uamqp_cffi.connection.CLOSE_TIMEOUT", 0.5)  # instead of 5 s

    def script(peer: Any) -> None:
        peer.serve()
        for number in range(unread):
            peer.deliver(number, amqp.data(b"x"))
        peer.to_the_end()

    client = receiving(scripted(script).url())
    client.open()
    while not client.client_ready() or client._received_messages.qsize() < unread:
        client.do_work()
    end = ends_within(3, client.close)
    assert end.error is None and 0.4 < end.seconds < 2


# ---- outcomes on the wire ----


@pytest.mark.parametrize(
    ("settle", "state"),
    [
        (lambda m: m.accept(), "005324" "45"),
        (lambda m: m.release(), "005326" "45"),
        (lambda m: m.reject(), "005325c01e0100531dc01802a313616d71703a696e7465726e616c2d6572726f72a100"),
        (lambda m: m.reject(b"a:b", b"why", {"k": 1}), None),
        (lambda m: m.modify(True, False), "005327c003024142"),
    ],
    ids=["accept", "release", "reject", "reject-with", "modify"],
)  # fmt: skip
def test_outcomes_are_settled_dispositions(
    receiving: Any, scripted: Any, amqp: Any, settle: Callable[[Any], bool], state: str | None
) -> None:
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.serve()
        peer.deliver(7, amqp.data(b"x"))
        seen.put(peer.until(amqp.DISPOSITION))
        peer.polite_end()

    client = receiving(scripted(script).url(), auto_complete=False)
    (message,) = client.receive_message_batch(1)
    assert settle(message) is True
    disposition = seen.get(timeout=SOON)
    assert disposition.fields[:4] == [True, 7, 7, True] or disposition.fields[:4] == [True, 7, None, True]
    if state is not None:
        assert disposition.body.endswith(bytes.fromhex(state))
    assert settle(message) is False, "a message is settled once"


def test_what_the_peer_settles_by_itself_says_so(receiving: Any, scripted: Any, amqp: Any) -> None:
    def script(peer: Any) -> None:
        peer.serve()
        peer.deliver(0, amqp.data(b"x"))
        peer.send(amqp.DISPOSITION, False, amqp.Uint(0), None, True, amqp.Described(amqp.RELEASED))
        peer.deliver(1, amqp.data(b"y"))
        peer.polite_end()

    client = receiving(scripted(script).url(), auto_complete=False)
    got: list[Any] = []
    while not got or str(got[-1]) != "y":  # x is handed out only when it came before the word that it was taken back
        got += client.receive_message_batch(2)
    for message in got[:-1]:
        with pytest.raises(errors.MessageTakenBack):
            message.accept()
    assert got[-1].accept() is True
