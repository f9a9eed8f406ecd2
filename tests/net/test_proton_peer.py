"""python-qpid-proton as the peer, misbehaving on demand by address (`proton_peer.py`, which `.ci/run` starts): each outcome and
each refusal of a second implementation of AMQP gives what is documented, in time."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from uamqp_cffi import Message, ReceiveClient, SendClient, authentication, constants, errors

pytestmark = pytest.mark.net

Codes = constants.ErrorCodes
Delivery = constants.Delivery
State = constants.MessageState

HERE = pathlib.Path(__file__).resolve().parent
SOON = 10.0


class Proton:
    """The peer, clients for it, and a look into its queues."""

    def __init__(self, where: str, certs: pathlib.Path, reader: str) -> None:
        url = urlsplit(where)
        self.port, self.tls_port = url.port or 5672, int(parse_qs(url.query)["tls"][0])
        self.ca_file, self._reader = str(certs / "ca.pem"), reader
        self.clients: list[Any] = []

    def client(self, path: str, tls: bool = False, kind: Any = SendClient, **how: Any) -> Any:
        if tls:
            how["auth"] = authentication.SASLAnonymous("localhost", port=self.tls_port, verify=self.ca_file)
        self.clients.append(kind(f"amqp://localhost:{self.port}/{path}", **how))
        return self.clients[-1]

    def receiver(self, path: str, tls: bool = False, **how: Any) -> ReceiveClient:
        how.setdefault("timeout", 5000)
        made: ReceiveClient = self.client(path, tls, ReceiveClient, **how)
        return made

    def read(self, name: str, count: int) -> Counter[str]:
        command = [self._reader, str(HERE / "proton_reader.py"), f"amqp://localhost:{self.port}", name, str(count)]
        done = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}; found {len(json.loads(done.stdout or '[]'))} of {count}"
        return Counter(json.loads(done.stdout))


@pytest.fixture
def proton(certs: pathlib.Path, ends_within: Callable[..., Any]) -> Iterator[Proton]:
    where, reader = os.environ.get("UAMQP_PROTON_PEER", ""), os.environ.get("UAMQP_PROTON_PYTHON", "")
    if not where or not reader:
        pytest.skip("UAMQP_PROTON_PEER or UAMQP_PROTON_PYTHON is not set (.ci/run sets them)")
    peer = Proton(where, certs, reader)
    yield peer
    for client in peer.clients:
        assert ends_within(6, client.close).error is None


@pytest.fixture
def name() -> str:
    return f"net-{uuid.uuid4().hex}"


def some(count: int) -> list[Message]:
    run = uuid.uuid4().hex
    return [Message(f"{run} {n}".encode()) for n in range(count)]


def digests(messages: list[Message]) -> Counter[str]:
    return Counter(hashlib.sha256(b"".join(m.get_data())).hexdigest() for m in messages)


def send(ends_within: Any, client: SendClient, messages: list[Message]) -> Any:
    client.queue_message(*messages)
    return ends_within(SOON, client.send_all_messages, close_on_done=False)


def states(messages: list[Message]) -> list[constants.MessageState]:
    return [m.state for m in messages]


# ---- outcomes ----


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("mode", [constants.SenderSettleMode.Unsettled, constants.SenderSettleMode.Settled])
def test_every_message_is_accepted_and_there(proton: Proton, ends_within: Any, name: str, tls: bool, mode: Any) -> None:
    messages = some(1000)
    end = send(ends_within, proton.client(name, tls, send_settle_mode=mode), messages)
    assert end.value == [State.SendComplete] * 1000
    assert proton.read(name, 1000) == digests(messages)


def test_rejected_is_send_failed_with_the_peers_words(proton: Proton, ends_within: Any, name: str) -> None:
    (message,) = messages = some(1)
    end = send(ends_within, proton.client(f"x-reject.{name}"), messages)
    assert end.value == [State.SendFailed]
    assert isinstance(message._response, errors.MessageSendFailed)
    assert message._response.condition is Codes.NotAllowed
    assert "rejected by peer" in str(message._response)
    assert message._response.info == {b"why": b"asked for"}
    assert message.delivery is Delivery.DELIVERED
    assert message.retries == 0, "not-allowed is not tried again"


def test_released_is_tried_again_and_then_failed(proton: Proton, ends_within: Any, name: str) -> None:
    (message,) = messages = some(1)
    end = send(ends_within, proton.client(f"x-release.{name}"), messages)
    assert end.value == [State.SendFailed]
    assert isinstance(message._response, errors.MessageSendFailed)
    assert message._response.condition is Codes.UnknownError
    assert message.retries == 3


def test_modified_ends_as_send_failed(proton: Proton, ends_within: Any, name: str) -> None:
    (message,) = messages = some(1)
    client = proton.client(f"x-modify.{name}", error_policy=errors.ErrorPolicy(max_retries=0))
    end = send(ends_within, client, messages)
    assert end.value == [State.SendFailed]
    assert isinstance(message._response, errors.MessageException)


def test_send_message_raises_for_a_rejected_message(proton: Proton, ends_within: Any, name: str) -> None:
    (message,) = some(1)
    end = ends_within(SOON, proton.client(f"x-reject.{name}").send_message, message)
    assert isinstance(end.error, errors.ClientMessageError)
    assert end.error.condition is Codes.NotAllowed
    assert end.error.delivery is Delivery.DELIVERED


@pytest.mark.parametrize(
    ("knob", "count"), [("x-bare", 5), ("x-late", 5), ("x-batch", 25), ("x-credit1", 50), ("x-count", 500)]
)
def test_other_ways_to_accept_complete_the_messages(
    proton: Proton, ends_within: Any, name: str, knob: str, count: int
) -> None:
    messages = some(count)
    end = send(ends_within, proton.client(f"{knob}.{name}"), messages)
    assert end.value == [State.SendComplete] * count
    assert {m.delivery for m in messages} == {Delivery.DELIVERED}


def test_receiver_settle_mode_second_completes_the_messages(proton: Proton, ends_within: Any, name: str) -> None:
    """Proton settles such a delivery only after the sender has."""
    client = proton.client(f"x-second.{name}", receive_settle_mode=constants.ReceiverSettleMode.PeekLock)
    messages = some(20)
    assert send(ends_within, client, messages).value == [State.SendComplete] * 20
    assert proton.read(name, 20) == digests(messages)


@pytest.mark.parametrize(
    ("knob", "delivery"),
    [
        ("x-nocredit", Delivery.NOT_DELIVERED),
        ("x-silent", Delivery.UNKNOWN),
        ("x-received", Delivery.UNKNOWN),
        ("x-hang-1", Delivery.UNKNOWN),
    ],
)
def test_no_credit_or_no_outcome_ends_with_msg_timeout(
    proton: Proton, ends_within: Any, name: str, knob: str, delivery: Delivery
) -> None:
    messages = some(3)
    end = send(ends_within, proton.client(f"{knob}.{name}", msg_timeout=500), messages)
    failed = messages[1:] if knob == "x-hang-1" else messages  # that one answers the first message
    assert end.error is None
    assert states(failed) == [State.SendFailed] * len(failed)
    assert {m.delivery for m in failed} == {delivery}
    assert 0.4 < end.seconds < 3


# ---- refusals ----


def test_refused_attach_is_link_detach(proton: Proton, ends_within: Any, name: str) -> None:
    messages = some(2)
    client = proton.client(f"x-refuse.{name}")
    end = send(ends_within, client, messages)
    assert type(end.error) is errors.LinkDetach
    assert end.error.condition is Codes.NotFound
    assert client.pending_messages == messages


def test_redirect_says_where_to_and_can_be_followed(proton: Proton, ends_within: Any, name: str) -> None:
    client = proton.client(f"x-redirect.{name}")
    end = send(ends_within, client, some(1))
    assert type(end.error) is errors.LinkRedirect
    assert (end.error.hostname, end.error.network_host, end.error.port) == (b"localhost", b"127.0.0.1", proton.tls_port)
    assert end.error.address == f"amqps://localhost:{proton.tls_port}/{name}".encode()
    # the same host name: a redirect leaves the connection as it is, so this follows with a client of its own
    auth = authentication.SASLAnonymous("localhost", port=end.error.port, verify=proton.ca_file)
    second = SendClient(end.error.address, auth)
    proton.clients.append(second)
    messages = some(3)
    assert send(ends_within, second, messages).value == [State.SendComplete] * 3
    assert proton.read(name, 3) == digests(messages)


@pytest.mark.parametrize(
    ("knob", "kind", "condition"),
    [
        ("x-detach-3", errors.LinkDetach, Codes.LinkDetachForced),
        ("x-soft-3", errors.LinkDetach, Codes.UnknownError),
        ("x-end-3", errors.MessageHandlerError, Codes.SessionWindowViolation),
        ("x-close-3", errors.ConnectionClose, Codes.ConnectionCloseForced),
    ],
)
def test_end_after_three_messages(
    proton: Proton, ends_within: Any, name: str, knob: str, kind: Any, condition: constants.ErrorCodes
) -> None:
    messages = some(10)
    client = proton.client(f"{knob}.{name}")
    end = send(ends_within, client, messages)
    assert isinstance(end.error, kind)
    assert end.error.condition is condition
    pending = [m for m in messages if m.state is State.WaitingToBeSent]
    done = [m for m in messages if m.state is State.SendComplete]
    assert client.pending_messages == pending
    assert len(pending) + len(done) == 10
    assert len(done) <= 3
    assert pending and all(m.delivery in (Delivery.UNKNOWN, Delivery.NOT_DELIVERED) for m in pending)
    # nothing that counts as done is missing, and nothing is there that was called not delivered
    found = proton.read(name, 3)
    assert digests(done) <= found
    assert not found & digests([m for m in pending if m.delivery is Delivery.NOT_DELIVERED])


def test_pending_messages_can_be_sent_by_another_client(proton: Proton, ends_within: Any, name: str) -> None:
    messages = some(10)
    first = proton.client(f"x-close-3.{name}")
    assert isinstance(send(ends_within, first, messages).error, errors.ConnectionClose)
    assert ends_within(6, first.close).error is None
    left = first.pending_messages
    second = proton.client(name)
    assert send(ends_within, second, left).value == [State.SendComplete] * len(left)
    # at least once each: those of unknown fate may be there twice
    found = proton.read(name, 3 + len(left))
    assert set(found) == set(digests(messages))


# ---- receiving ----

Mode = constants.ReceiverSettleMode


def taken(client: ReceiveClient, count: int) -> list[Any]:
    """So many messages; fewer when there are no more."""
    got: list[Any] = []
    while len(got) < count and (batch := client.receive_message_batch(min(50, count - len(got)))):
        got += batch
    return got


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize(("count", "size"), [(10_000, 100), (100, 1 << 20)], ids=["10000x100B", "100x1MiB"])
def test_every_message_is_received_once(proton: Proton, ends_within: Any, tls: bool, count: int, size: int) -> None:
    client = proton.receiver(f"x-gen-{count}-{size}", tls)
    end = ends_within(60, taken, client, count)
    assert [sum(map(len, m.get_data())) for m in end.value] == [size] * count
    assert len({m.delivery_no for m in end.value}) == count
    assert all(m.settled for m in end.value)


@pytest.mark.parametrize("mode", [None, *Mode])
def test_messages_are_gone_once_they_were_received(proton: Proton, ends_within: Any, name: str, mode: Any) -> None:
    messages = some(500)
    send(ends_within, proton.client(name), messages)

    def receive() -> list[Any]:
        with proton.receiver(name, receive_settle_mode=mode) as client:
            return taken(client, 500)

    end = ends_within(SOON, receive)
    assert digests(end.value) == digests(messages)
    with proton.receiver(name, timeout=300) as client:
        assert taken(client, 1) == []


def test_unread_and_released_messages_come_again(proton: Proton, ends_within: Any, name: str) -> None:
    messages = some(500)
    send(ends_within, proton.client(name), messages)
    got: list[Any] = []

    def receive() -> None:
        with proton.receiver(name, prefetch=50) as client:
            got.extend(taken(client, 100))
        with proton.receiver(name, auto_complete=False, prefetch=50) as client:
            for message in client.receive_message_batch(20):
                message.release()
        with proton.receiver(name) as client:
            got.extend(taken(client, 400))

    assert ends_within(SOON, receive).error is None
    assert digests(got) == digests(messages)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("x-refuse.{}", errors.LinkDetach),
        ("x-detach-3.{}", errors.LinkDetach),
        ("x-soft-3.{}", errors.LinkDetach),
        ("x-end-3.{}", errors.MessageHandlerError),
        ("x-close-3.{}", errors.ConnectionClose),
        ("x-redirect.{}", errors.LinkRedirect),
    ],
)
def test_what_the_peer_breaks_off_is_raised(
    proton: Proton, ends_within: Any, name: str, path: str, error: type[BaseException]
) -> None:
    messages = some(10)
    send(ends_within, proton.client(name), messages)
    client = proton.receiver(path.format(name))

    def receive() -> None:
        while True:
            assert client.receive_message_batch(1), "timed out"

    end = ends_within(SOON, receive)
    assert isinstance(end.error, error)


def test_a_peer_that_hangs_ends_with_the_timeout(proton: Proton, ends_within: Any, name: str) -> None:
    send(ends_within, proton.client(name), some(10))
    client = proton.receiver(f"x-hang-3.{name}", timeout=500, auto_complete=False)
    end = ends_within(SOON, taken, client, 10)
    assert end.error is None and len(end.value) == 3
