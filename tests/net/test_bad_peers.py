"""What a peer can do wrong, over real sockets on loopback: each gives its documented error in time, tells whether the message
was delivered, and leaves it in `pending_messages` where sending it again makes sense. Runs everywhere."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from uamqp_cffi import Message, SendClient, authentication, constants, errors

pytestmark = pytest.mark.both_drivers

Delivery = constants.Delivery
Codes = constants.ErrorCodes
State = constants.MessageState

SOON = 5.0  # seconds that no failure may take; each is found in milliseconds on an idle machine


class Attempt:
    """One client that tries to send one message, and what came of it."""

    def __init__(self, url: str, body: bytes = b"x", **how: Any) -> None:
        self.message = Message(body)
        self.client = SendClient(url, **how)

    def send(self) -> list[constants.MessageState]:
        self.client.queue_message(self.message)
        return self.client.send_all_messages(close_on_done=False)

    def close(self) -> None:
        self.client.close()


@pytest.fixture
def attempt(ends_within: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """`attempt(url, body=..., seconds=..., **client arguments)`: the `Attempt` and the `Outcome` of its `send`. Every client is
    closed in the end, which must be quick as well."""
    made: list[Attempt] = []

    def run(url: str, body: bytes = b"x", seconds: float = SOON, **how: Any) -> tuple[Attempt, Any]:
        made.append(Attempt(url, body, **how))
        return made[-1], ends_within(seconds, made[-1].send)

    yield run
    for one in made:
        closed = ends_within(SOON + 1, one.close)
        assert closed.error is None


def lost(one: Attempt, *delivery: constants.Delivery) -> None:
    """The message waits to be sent again, with what is known of it."""
    assert one.client.pending_messages == [one.message]
    assert one.message.state is State.WaitingToBeSent
    assert one.message.delivery in delivery


def caused_by(problem: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an exception of that kind is among its causes."""
    while problem is not None and not isinstance(problem, kind):
        problem = problem.__cause__
    return problem is not None


# ---- not even a connection ----


def test_refused_port_is_a_connection_error_with_its_cause(attempt: Any) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound and not listening: refused for sure
        one, end = attempt(f"amqp://127.0.0.1:{sock.getsockname()[1]}/q")
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert caused_by(end.error, ConnectionRefusedError)
    assert (end.error.scope, end.error.retryable) == ("connection", True)
    lost(one, Delivery.NOT_DELIVERED)


def test_unknown_host_is_a_connection_error_that_names_it(attempt: Any) -> None:
    one, end = attempt("amqps://no-such-host.invalid/q", seconds=30, connect_timeout=20)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert "no-such-host.invalid" in str(end.error)
    lost(one, Delivery.NOT_DELIVERED)


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port of loopback that answers nothing: its backlog is full, so the kernel drops every further SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_host_that_does_not_answer_ends_with_connect_timeout(attempt: Any, black_hole: int) -> None:
    one, end = attempt(f"amqp://127.0.0.1:{black_hole}/q", connect_timeout=0.3)
    assert isinstance(end.error, errors.AMQPConnectionError) and isinstance(end.error, TimeoutError)
    assert 0.25 < end.seconds < 2
    lost(one, Delivery.NOT_DELIVERED)


@pytest.mark.parametrize("stage", ["connected", "sasl-header", "mechanisms", "outcome", "header", "open", "begin"])
def test_silence_before_the_attach_ends_with_connect_timeout(attempt: Any, scripted: Any, stage: str) -> None:
    server = scripted(lambda peer: peer.reach(stage).to_the_end())
    one, end = attempt(server.url(), connect_timeout=0.3)
    assert isinstance(end.error, errors.AMQPConnectionError) and isinstance(end.error, TimeoutError)
    assert 0.25 < end.seconds < 2
    lost(one, Delivery.NOT_DELIVERED)


def test_silence_instead_of_a_tls_handshake_ends_with_connect_timeout(attempt: Any, scripted: Any) -> None:
    server = scripted(lambda peer: peer.to_the_end())
    one, end = attempt(server.url(scheme="amqps"), connect_timeout=0.3)
    assert isinstance(end.error, errors.AMQPConnectionError) and isinstance(end.error, TimeoutError)
    assert 0.25 < end.seconds < 2
    lost(one, Delivery.NOT_DELIVERED)


# ---- TLS ----


def with_ca(server: Any, ca_file: str) -> dict[str, Any]:
    return {"auth": authentication.SASLAnonymous("127.0.0.1", port=server.port, verify=ca_file)}


def test_tls_with_a_trusted_certificate_works(attempt: Any, scripted: Any, certificates: Any, amqp: Any) -> None:
    def script(peer: Any) -> None:
        peer.reach("transfer").send(
            amqp.DISPOSITION, True, amqp.Uint(0), amqp.Uint(0), True, amqp.Described(amqp.ACCEPTED)
        )
        peer.polite_end()

    server = scripted(script, certificates.server)
    _, end = attempt(server.url(scheme="amqps"), **with_ca(server, certificates.ca_file))
    assert (end.error, end.value) == (None, [State.SendComplete])


def test_certificate_of_an_unknown_ca_is_refused(attempt: Any, scripted: Any, certificates: Any) -> None:
    server = scripted(lambda peer: peer.reach("transfer"), certificates.server)
    one, end = attempt(server.url(scheme="amqps"), **with_ca(server, certificates.other_ca_file))
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert caused_by(end.error, ssl.SSLCertVerificationError)
    lost(one, Delivery.NOT_DELIVERED)


def test_certificate_for_another_host_is_refused(attempt: Any, scripted: Any, certificates: Any) -> None:
    server = scripted(lambda peer: peer.reach("transfer"), certificates.context("other.invalid"))
    one, end = attempt(server.url(scheme="amqps"), **with_ca(server, certificates.ca_file))
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert caused_by(end.error, ssl.SSLCertVerificationError)
    lost(one, Delivery.NOT_DELIVERED)


def test_plain_amqp_server_on_a_tls_connection_is_named(attempt: Any, scripted: Any, amqp: Any) -> None:
    def script(peer: Any) -> None:
        peer.exactly(8)
        peer.write(amqp.SASL_HEADER)  # what a broker's plain port says to a header that it does not know
        peer.to_the_end()

    one, end = attempt(scripted(script).url(scheme="amqps"))
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert "use_tls=False" in str(end.error)
    lost(one, Delivery.NOT_DELIVERED)


def test_tls_server_on_a_plain_connection_is_an_error(attempt: Any, scripted: Any, certificates: Any) -> None:
    one, end = attempt(scripted(lambda peer: peer.to_the_end(), certificates.server).url())
    assert isinstance(end.error, errors.AMQPConnectionError)
    lost(one, Delivery.NOT_DELIVERED)


def test_tls_stream_without_close_notify_is_a_lost_connection(attempt: Any, scripted: Any, certificates: Any) -> None:
    def script(peer: Any) -> None:
        peer.reach("transfer")
        peer.sock.shutdown(socket.SHUT_RDWR)  # of the socket under the TLS: no close_notify

    server = scripted(script, certificates.server)
    one, end = attempt(server.url(scheme="amqps"), **with_ca(server, certificates.ca_file))
    assert isinstance(end.error, errors.AMQPConnectionError)
    lost(one, Delivery.UNKNOWN)


# ---- SASL ----


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_refused_sasl_names_mechanism_and_outcome(attempt: Any, scripted: Any, amqp: Any, code: int) -> None:
    def script(peer: Any) -> None:
        peer.reach("mechanisms").until(amqp.INIT)
        peer.send(amqp.OUTCOME, code, sasl=True)
        peer.to_the_end()

    server = scripted(script)
    one, end = attempt(f"amqp://user:sesame@127.0.0.1:{server.port}/q", use_tls=False)
    assert isinstance(end.error, errors.ConnectionClose) and isinstance(end.error, errors.AuthenticationException)
    assert "PLAIN" in str(end.error) and str(code) in str(end.error)
    assert "sesame" not in str(end.error)
    assert end.error.retryable is (code in (2, 4))
    lost(one, Delivery.NOT_DELIVERED)


def test_mechanism_that_is_not_offered_is_an_error_that_says_what_is(attempt: Any, scripted: Any) -> None:
    server = scripted(lambda peer: peer.reach("mechanisms", mechanisms=("GSSAPI", "EXTERNAL")).to_the_end())
    one, end = attempt(server.url())
    assert isinstance(end.error, errors.ConnectionClose) and isinstance(end.error, errors.AuthenticationException)
    assert "ANONYMOUS" in str(end.error) and "GSSAPI" in str(end.error)
    lost(one, Delivery.NOT_DELIVERED)


def test_server_that_demands_sasl_of_a_client_without_is_an_error(attempt: Any, scripted: Any, amqp: Any) -> None:
    def script(peer: Any) -> None:
        assert peer.exactly(8) == amqp.AMQP_HEADER
        peer.write(amqp.SASL_HEADER)
        peer.to_the_end()

    one, end = attempt(scripted(script).url(), sasl=False)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert "SASL" in str(end.error)
    lost(one, Delivery.NOT_DELIVERED)


# ---- headers and frames ----

HEADERS = {
    "0-9-1": b"AMQP\x00\x00\x09\x01",
    "1.1.0": b"AMQP\x00\x01\x01\x00",
    "tls": b"AMQP\x02\x01\x00\x00",
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
    "zeros": bytes(64),
}


@pytest.mark.parametrize("stage", ["connected", "outcome"])
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_wrong_protocol_header_is_a_connection_error(attempt: Any, scripted: Any, stage: str, header: bytes) -> None:
    def script(peer: Any) -> None:
        peer.reach(stage).exactly(8)
        peer.write(header)
        peer.to_the_end()

    one, end = attempt(scripted(script).url())
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert end.error.scope == "connection"
    lost(one, Delivery.NOT_DELIVERED)


FRAMES = {
    "size-below-8": b"\x00\x00\x00\x07\x02\x00\x00\x00",
    "doff-below-2": b"\x00\x00\x00\x08\x01\x00\x00\x00",
    "doff-beyond-the-end": b"\x00\x00\x00\x10\x05\x00\x00\x00" + bytes(8),
    "oversized": b"\x7f\xff\xff\xff\x02\x00\x00\x00" + bytes(1000),
    "over-our-max-frame-size": b"\x00\x01\x00\x01\x02\x00\x00\x00" + bytes(65529),
    "garbage": bytes(range(37, 137)),
    "not-described": b"\x00\x00\x00\x0c\x02\x00\x00\x00\xa1\x02hi",
    "unknown-performative": b"\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\x77\x45",
    "cut-off-list": b"\x00\x00\x00\x0d\x02\x00\x00\x00\x00\x53\x13\xc0\x50",
    "missing-field": b"\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\x13\x45",
    "wrong-type": b"\x00\x00\x00\x11\x02\x00\x00\x00\x00\x53\x16\xc0\x04\x01\xa1\x01x",
}


@pytest.mark.parametrize("stage", ["open", "attach", "transfer"])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_malformed_frame_closes_the_connection_with_an_error(
    attempt: Any, scripted: Any, amqp: Any, stage: str, frame: bytes
) -> None:
    closed: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.reach(stage).write(frame)
        closed.put(peer.until(amqp.CLOSE))
        peer.to_the_end()

    server = scripted(script)
    one, end = attempt(server.url())
    assert isinstance(end.error, errors.ConnectionClose)
    assert end.error.condition in (Codes.ConnectionFramingError, Codes.DecodeError, Codes.InvalidField, Codes.NotAllowed,
                                   Codes.NotImplemented)  # fmt: skip
    lost(one, *delivery_at(stage))
    assert closed.get(timeout=SOON)[0].fields[0].encode() == end.error.condition.value, "the peer is told the same"


# ---- CLOSE, END and DETACH at every stage ----

STAGES = ["open", "begin", "attach", "credit", "transfer"]


def delivery_at(stage: str) -> list[constants.Delivery]:
    """What may be said of the message when the peer gave up at that stage. Whether the transfer left between the credit
    and the end is a race."""
    both = [Delivery.NOT_DELIVERED, Delivery.UNKNOWN]
    return both if stage == "credit" else [Delivery.UNKNOWN] if stage == "transfer" else [Delivery.NOT_DELIVERED]


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
    attempt: Any, scripted: Any, amqp: Any, stage: str, condition: str | None, expected: Any, code: Any
) -> None:
    answered: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.reach(stage).send(amqp.CLOSE, *([amqp.error(condition, "go away")] if condition else []))
        answered.put(peer.until(amqp.CLOSE))
        peer.polite_end()

    server = scripted(script)
    one, end = attempt(server.url())
    assert type(end.error) is expected
    assert end.error.condition == code
    assert end.error.scope == "connection"
    assert ("go away" in str(end.error)) is (condition is not None)
    lost(one, *delivery_at(stage))
    assert answered.get(timeout=SOON).code == amqp.CLOSE, "CLOSE is answered with CLOSE"


@pytest.mark.parametrize("stage", STAGES[1:])
@pytest.mark.parametrize("condition", ["amqp:session:window-violation", "com.example:sorry", None])
def test_end_of_the_peer(attempt: Any, scripted: Any, amqp: Any, stage: str, condition: str | None) -> None:
    answered: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.reach(stage).send(amqp.END, *([amqp.error(condition, "no more")] if condition else []))
        answered.put(peer.until(amqp.END))
        peer.polite_end()

    server = scripted(script)
    one, end = attempt(server.url())
    assert isinstance(end.error, errors.MessageHandlerError)
    assert end.error.scope == "session"
    expected = {None: Codes.UnknownError, "com.example:sorry": b"com.example:sorry"}
    assert end.error.condition == expected.get(condition, Codes.SessionWindowViolation)
    assert ("no more" in str(end.error)) is (condition is not None)
    lost(one, *delivery_at(stage))
    assert answered.get(timeout=SOON).code == amqp.END, "END is answered with END"


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
    attempt: Any, scripted: Any, amqp: Any, stage: str, condition: str | None, expected: Any, code: Any
) -> None:
    answered: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        more = [amqp.error(condition, "off you go")] if condition else []
        peer.reach(stage).send(amqp.DETACH, amqp.Uint(0), True, *more)
        answered.put(peer.until(amqp.DETACH))
        peer.polite_end()

    server = scripted(script)
    one, end = attempt(server.url())
    assert type(end.error) is expected
    assert end.error.condition == code
    assert end.error.scope == "link"
    assert ("off you go" in str(end.error)) is (condition is not None)
    lost(one, *delivery_at(stage))
    assert answered.get(timeout=SOON).code == amqp.DETACH, "DETACH is answered with DETACH"


def test_refused_attach_gives_the_reason_and_proposes_address(attempt: Any, scripted: Any, amqp: Any) -> None:
    def script(peer: Any) -> None:
        peer.reach("begin")
        peer.attach = peer.until(amqp.ATTACH)
        peer.answer_attach(peer.attach[5], None)
        peer.send(amqp.DETACH, amqp.Uint(0), True, amqp.error("amqp:not-found", "no node of that name"))
        peer.polite_end()

    one, end = attempt(scripted(script).url())
    assert type(end.error) is errors.LinkDetach
    assert end.error.condition == Codes.NotFound
    assert "no node of that name" in str(end.error)
    assert "address=" in str(end.error), "the refused address was a whole URL"
    assert end.error.retryable is False
    lost(one, Delivery.NOT_DELIVERED)


def test_refused_attach_without_the_detach_ends_with_connect_timeout(attempt: Any, scripted: Any, amqp: Any) -> None:
    def script(peer: Any) -> None:
        peer.reach("begin")
        peer.attach = peer.until(amqp.ATTACH)
        peer.answer_attach(peer.attach[5], None)
        peer.to_the_end()

    one, end = attempt(scripted(script).url(), connect_timeout=0.5)
    assert isinstance(end.error, errors.AMQPConnectionError)
    lost(one, Delivery.NOT_DELIVERED)


# ---- the transport goes away ----


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("stage", ["connected", "sasl-header", "mechanisms", "outcome", "header", *STAGES])
def test_lost_connection_at_every_stage(attempt: Any, scripted: Any, stage: str, how: str) -> None:
    def script(peer: Any) -> None:
        peer.reach(stage)
        if how == "rst":
            peer.reset()
        else:
            peer.sock.shutdown(socket.SHUT_WR)  # half-close: nothing more will come, while this side still reads
            peer.to_the_end()

    one, end = attempt(scripted(script).url())
    assert isinstance(end.error, errors.AMQPConnectionError)
    lost(one, *delivery_at(stage))


def test_half_frame_then_fin_is_a_lost_connection(attempt: Any, scripted: Any) -> None:
    def script(peer: Any) -> None:
        peer.reach("transfer").write(b"\x00\x00\x00\x20\x02\x00\x00\x00\x00")
        peer.sock.shutdown(socket.SHUT_WR)
        peer.to_the_end()

    one, end = attempt(scripted(script).url())
    assert isinstance(end.error, errors.AMQPConnectionError)
    lost(one, Delivery.UNKNOWN)


def test_reset_before_the_kernel_has_the_last_frame_is_not_delivered(attempt: Any, scripted: Any, amqp: Any) -> None:
    def script(peer: Any) -> None:
        peer.reach("credit").until(amqp.TRANSFER)  # the first frame of very many
        peer.reset()

    server = scripted(script, window=8192)
    one, end = attempt(server.url(), body=bytes(64 << 20), max_message_size=1 << 30)
    assert isinstance(end.error, errors.AMQPConnectionError)
    lost(one, Delivery.NOT_DELIVERED)


def test_reset_after_the_whole_message_is_unknown(attempt: Any, scripted: Any) -> None:
    one, end = attempt(scripted(lambda peer: peer.reach("transfer").reset()).url(), body=bytes(1 << 20))
    assert isinstance(end.error, errors.AMQPConnectionError)
    lost(one, Delivery.UNKNOWN)


def test_of_many_messages_those_with_an_outcome_are_done_and_the_others_pending(
    ends_within: Any, scripted: Any, amqp: Any
) -> None:
    def script(peer: Any) -> None:
        peer.reach("credit", credit=7)
        for _ in range(7):
            peer.whole_transfer()
        peer.send(amqp.DISPOSITION, True, amqp.Uint(0), amqp.Uint(2), True, amqp.Described(amqp.ACCEPTED))
        # an answer to this FLOW shows that what came before it was read
        peer.send(
            amqp.FLOW, amqp.Uint(7), amqp.Uint(100), amqp.Uint(0), amqp.Uint(100), None, None, None, None, False, True
        )
        peer.until(amqp.FLOW)
        peer.reset()

    client = SendClient(scripted(script).url())
    messages = [Message(b"%d" % n) for n in range(10)]
    client.queue_message(*messages)
    end = ends_within(SOON, client.send_all_messages)
    assert isinstance(end.error, errors.AMQPConnectionError)
    assert [m.state for m in messages] == [State.SendComplete] * 3 + [State.WaitingToBeSent] * 7
    assert [m.delivery for m in messages[:3]] == [Delivery.DELIVERED] * 3
    assert [m.delivery for m in messages[3:7]] == [Delivery.UNKNOWN] * 4
    assert [m.delivery for m in messages[7:]] == [Delivery.NOT_DELIVERED] * 3
    assert client.pending_messages == messages[3:]
    assert ends_within(SOON, client.close).error is None
    assert client.pending_messages == messages[3:], "what is pending survives close()"


# ---- silence of an attached peer ----


def test_no_credit_ever_fails_the_message_with_msg_timeout(attempt: Any, scripted: Any) -> None:
    server = scripted(lambda peer: peer.reach("attach").polite_end())
    one, end = attempt(server.url(), msg_timeout=300)
    assert end.value == [State.SendFailed]
    assert one.message.delivery is Delivery.NOT_DELIVERED
    assert 0.25 < end.seconds < 2


def test_no_outcome_ever_fails_the_message_with_msg_timeout(attempt: Any, scripted: Any) -> None:
    server = scripted(lambda peer: peer.reach("transfer").polite_end())
    one, end = attempt(server.url(), msg_timeout=300)
    assert end.value == [State.SendFailed]
    assert one.message.delivery is Delivery.UNKNOWN
    assert 0.25 < end.seconds < 2


def test_send_message_raises_client_message_error_on_msg_timeout(ends_within: Any, scripted: Any) -> None:
    client = SendClient(scripted(lambda peer: peer.reach("transfer").polite_end()).url(), msg_timeout=300)
    message = Message(b"x")
    end = ends_within(SOON, client.send_message, message)
    assert isinstance(end.error, errors.ClientMessageError)
    assert (end.error.info["total_messages"], end.error.info["number_failed"]) == (1, 1)
    assert isinstance(end.error.info["failed_messages"][message], TimeoutError)
    assert ends_within(SOON + 1, client.close).error is None


@pytest.mark.parametrize("stage", ["attach", "transfer"])
def test_peer_silent_past_our_idle_timeout_is_closed(attempt: Any, scripted: Any, amqp: Any, stage: str) -> None:
    closed: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.reach(stage)
        closed.put(peer.until(amqp.CLOSE))
        peer.to_the_end()

    server = scripted(script)
    one, end = attempt(server.url(), idle_timeout=300)
    assert isinstance(end.error, errors.ConnectionClose)
    assert end.error.condition is Codes.InternalServerError
    assert 0.25 < end.seconds < 3
    lost(one, *delivery_at(stage))
    assert closed.get(timeout=SOON)[0].fields[0] == "amqp:internal-error"


def test_peer_whose_idle_time_out_would_keep_us_awake_is_refused(attempt: Any, scripted: Any, amqp: Any) -> None:
    """At one millisecond heartbeats are all that we would do. Section 2.4.5: close and say why."""
    closed: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.reach("open", idle=1)
        closed.put(peer.until(amqp.CLOSE))
        peer.to_the_end()

    one, end = attempt(scripted(script).url())
    assert isinstance(end.error, errors.ConnectionClose)
    assert end.error.condition is Codes.NotImplemented
    assert "idle-time-out 1 ms" in str(end.error)
    lost(one, Delivery.NOT_DELIVERED)
    assert closed.get(timeout=SOON)[0].fields[0] == "amqp:not-implemented"


def test_close_does_not_wait_for_a_peer_that_never_answers(ends_within: Any, scripted: Any, amqp: Any) -> None:
    silent = threading.Event()

    def script(peer: Any) -> None:
        peer.reach("attach")
        silent.set()
        peer.to_the_end()

    client = SendClient(scripted(script).url())

    def ready() -> None:
        client.open()
        while not client.client_ready():
            pass

    assert ends_within(SOON, ready).error is None
    assert silent.wait(SOON)
    end = ends_within(6, client.close)
    assert end.error is None


@pytest.mark.parametrize(
    "stage", ["connected", "sasl-header", "mechanisms", "outcome", "header", "open", "begin", "attach", "transfer"]
)
def test_close_is_bounded_whatever_the_peer_has_left_unanswered(
    ends_within: Any, scripted: Any, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr("uamqp_cffi.connection.CLOSE_TIMEOUT", 0.3)
    silent = threading.Event()

    def script(peer: Any) -> None:
        peer.reach(stage)
        silent.set()
        peer.to_the_end()

    client = SendClient(scripted(script).url())
    message = Message(b"x")
    client.queue_message(message)

    def until_silent() -> None:
        client.open()
        while not silent.is_set():
            client.do_work()
        client.do_work()

    assert ends_within(SOON, until_silent).error is None
    end = ends_within(2, client.close)
    assert end.error is None and end.seconds < 1.5
    assert client.pending_messages == [message]
    assert ends_within(SOON, client.close).error is None


def test_close_waits_for_the_answer_to_end(ends_within: Any, scripted: Any, amqp: Any) -> None:
    """A broker that stops at CLOSE would drop what was sent settled just before."""
    after_end: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def script(peer: Any) -> None:
        peer.reach("transfer").until(amqp.END)
        peer.sock.settimeout(0.2)
        try:
            after_end.put(peer.sock.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            after_end.put(None)
        peer.sock.settimeout(20)
        peer.send(amqp.END)
        after_end.put(peer.until(amqp.CLOSE).code)
        peer.send(amqp.CLOSE)
        peer.to_the_end()

    client = SendClient(scripted(script).url(), send_settle_mode=constants.SenderSettleMode.Settled)
    assert ends_within(SOON, client.send_message, Message(b"x"), close_on_done=True).error is None
    assert after_end.get(timeout=SOON) is None, "something left between our END and the answer to it"
    assert after_end.get(timeout=SOON) == amqp.CLOSE


@pytest.mark.blocking("the loop stands still meanwhile")
def test_heartbeats_go_out_while_user_code_runs(ends_within: Any, scripted: Any) -> None:
    beats = threading.Event()

    def script(peer: Any) -> None:
        peer.reach("attach", idle=400)
        while peer.frame().code is not None:
            pass
        beats.set()
        peer.polite_end()

    client = SendClient(scripted(script).url())

    def ready() -> None:
        client.open()
        while not client.client_ready():
            pass

    assert ends_within(SOON, ready).error is None
    assert beats.wait(SOON), "no empty frame came while the application did something else"
    assert ends_within(SOON + 1, client.close).error is None


# ---- messages that cannot go ----


def test_message_above_the_peers_limit_fails_before_sending(attempt: Any, scripted: Any, amqp: Any) -> None:
    transfers: list[Any] = []

    def script(peer: Any) -> None:
        peer.reach("credit", max_message_size=1000).polite_end()
        transfers.extend(frame for frame in peer.seen if frame.code == amqp.TRANSFER)

    server = scripted(script)
    one, end = attempt(server.url(), body=bytes(1001))
    assert end.value == [State.SendFailed]
    assert isinstance(one.message._response, errors.MessageSendFailed)
    assert isinstance(one.message._response, errors.MessageContentTooLarge)
    assert one.message._response.condition is Codes.LinkMessageSizeExceeded
    assert one.message.delivery is Delivery.NOT_DELIVERED
    one.close()
    assert server.done.wait(SOON)
    assert transfers == []


def test_unsupported_type_in_a_property_fails_that_message_alone(ends_within: Any, scripted: Any, amqp: Any) -> None:
    def script(peer: Any) -> None:
        peer.reach("transfer").send(
            amqp.DISPOSITION, True, amqp.Uint(0), amqp.Uint(0), True, amqp.Described(amqp.ACCEPTED)
        )
        peer.polite_end()

    client = SendClient(scripted(script).url())
    bad, good = Message(b"bad", application_properties={"odd": object()}), Message(b"good")
    client.queue_message(bad, good)
    end = ends_within(SOON, client.send_all_messages, close_on_done=False)
    assert end.error is None
    assert end.value == [State.SendFailed, State.SendComplete]
    assert isinstance(bad._response, errors.MessageException)
    assert "object" in str(bad._response)
    assert ends_within(SOON, client.close).error is None


# ---- what a slow network does to good peers ----


def test_replies_that_come_byte_by_byte_work(attempt: Any, scripted: Any, amqp: Any) -> None:
    def script(peer: Any) -> None:
        plain = peer.write
        peer.write = lambda data: [plain(bytes([byte])) for byte in data]
        peer.reach("transfer").send(
            amqp.DISPOSITION, True, amqp.Uint(0), amqp.Uint(0), True, amqp.Described(amqp.ACCEPTED)
        )
        peer.polite_end()

    one, end = attempt(scripted(script).url())
    assert (end.error, end.value) == (None, [State.SendComplete])
    assert one.message.delivery is Delivery.DELIVERED


def test_message_of_16_mib_through_a_tiny_receive_buffer(attempt: Any, scripted: Any, amqp: Any) -> None:
    size = []

    def script(peer: Any) -> None:
        peer.reach("credit")
        frame = peer.until(amqp.TRANSFER)
        total = len(frame.payload)
        while frame[5]:
            frame = peer.until(amqp.TRANSFER)
            total += len(frame.payload)
            if len(peer.seen) % 500 == 0:
                peer.send(amqp.FLOW, amqp.Uint(len(peer.seen)), amqp.Uint(2048), amqp.Uint(0), amqp.Uint(2048))
        size.append(total)
        peer.send(amqp.DISPOSITION, True, amqp.Uint(0), None, True, amqp.Described(amqp.ACCEPTED))
        peer.polite_end()

    _, end = attempt(scripted(script, window=8192).url(), body=bytes(16 << 20), seconds=30)
    assert (end.error, end.value) == (None, [State.SendComplete])
    assert size[0] >= 16 << 20


# ---- what a call waits for ----


@pytest.mark.parametrize(
    ("stage", "how", "missing"),
    [
        ("begin", {}, "the link to be attached"),
        ("attach", {}, "credit of the peer's to send 1 message"),
        ("credit", {"incoming_window": 0}, "the session's window to open to send 1 message"),
        ("transfer", {}, "its outcome"),
    ],
)
def test_a_time_out_says_what_the_peer_did_not_give(
    scripted: Any, ends_within: Any, stage: str, how: dict[str, int], missing: str
) -> None:
    client = SendClient(scripted(lambda peer: peer.reach(stage, **how).polite_end()).url(), connect_timeout=None)
    end = ends_within(SOON, client.send_message, Message(b"x"), timeout=0.3)
    assert isinstance(end.error, errors.MessageTimeout) and missing in str(end.error)
    assert end.error.delivery is (Delivery.UNKNOWN if stage == "transfer" else Delivery.NOT_DELIVERED)
    assert ends_within(SOON + 1, client.close).error is None
