"""The embedded broker's `$cbs`: who may put tokens, what they open, and what happens when they expire."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from uamqp_cffi import Message, SendClient
from uamqp_cffi._core.engine import decode, lib
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine import values as v
from uamqp_cffi.authentication import SASTokenAuth
from uamqp_cffi.broker import Broker, Verdict
from uamqp_cffi.utils import create_sas_token

Brokers = Callable[..., Broker]
Connect = Callable[..., tuple[Any, int]]
Data = Callable[[bytes], bytes]


def put_token(token: Any = "t", audience: str = "amqps://host/q", number: int = 1, **changed: Any) -> bytes:
    fields = {"name": audience, "operation": "put-token", "type": "jwt", **changed}
    application = v.enc_map((v.enc_str(key), v.encode(value)) for key, value in fields.items())
    return (
        v.described_composite("properties", message_id=v.enc_ulong(number))
        + v.enc_described(0x74, application)
        + v.enc_described(0x77, v.encode(token))
    )


class Cbs:
    """A connection with its two links to $cbs."""

    def __init__(self, connect: Connect, broker: Broker, **options: Any) -> None:
        self.client, self.session = connect(broker, **options)
        self.client.receiver(self.session, "$cbs", credit=2000, name="$cbs-receiver")
        self.link = self.client.sender(self.session, "$cbs", name="$cbs-sender")

    def ask(self, payload: bytes) -> list[dict[int, Any]]:
        before = len(self.client.payloads())
        self.client.send(self.link, payload)
        return [
            {code: decode.decode_exact(reply[at : at + n]) for code, at, n, _ in lib.sections(reply)}
            for reply in self.client.payloads()[before:]
        ]

    def status(self, *args: Any, **changed: Any) -> tuple[int, str]:
        [reply] = self.ask(put_token(*args, **changed))
        return reply[0x74]["status-code"], reply[0x74]["status-description"]

    def refusals(self) -> list[str]:
        return [detach.error.condition.decode() for detach in self.client.of(r.Detach) if detach.error]


@pytest.fixture
def cbs(memory_broker: Brokers, connect: Connect) -> Callable[..., Cbs]:
    """Opens a connection to a broker made with the arguments."""

    def make(**options: Any) -> Cbs:
        return Cbs(connect, memory_broker(**options))

    return make


def test_a_token_that_the_function_likes_is_welcome(cbs: Callable[..., Cbs]) -> None:
    seen: list[tuple[str, str, str]] = []
    peer = cbs(tokens=lambda *token: seen.append(token))
    [reply] = peer.ask(put_token("secret"))
    assert seen == [("amqps://host/q", "jwt", "secret")]
    assert reply[0x73][5] == 1 and reply[0x74]["status-code"] == 202


def test_an_answer_does_not_repeat_the_token(cbs: Callable[..., Cbs]) -> None:
    peer = cbs(tokens=lambda *_: True)
    peer.ask(put_token("secret"))
    assert b"secret" not in b"".join(peer.client.payloads())


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (True, (202, "Accepted")),
        (False, (401, "Unauthorized")),
        (403, (403, "")),
        ((404, "no such hub"), (404, "no such hub")),
        (Verdict(200, "fine"), (200, "fine")),
        (("yes",), (500, "the function for tokens raised TypeError")),
    ],
)
def test_the_function_says_what_the_answer_is(cbs: Callable[..., Cbs], given: Any, status: tuple[int, str]) -> None:
    assert cbs(tokens=lambda *_: given).status() == status


def test_a_function_that_fails_is_an_internal_error(cbs: Callable[..., Cbs]) -> None:
    def fail(*_: str) -> None:
        raise RuntimeError("secret")

    assert cbs(tokens=fail).status() == (500, "the function for tokens raised RuntimeError")


def test_a_token_can_be_left_without_answer(cbs: Callable[..., Cbs]) -> None:
    assert cbs(tokens=lambda *_: Verdict(None)).ask(put_token()) == []


@pytest.mark.parametrize("changed", [{"type": None}, {"audience": 7}, {"token": bytearray(b"t")}, {"token": None}])
def test_a_request_without_all_its_parts_is_a_bad_one(cbs: Callable[..., Cbs], changed: dict[str, Any]) -> None:
    assert cbs(tokens=lambda *_: True).status(**changed)[0] == 400


def test_cbs_knows_one_operation(cbs: Callable[..., Cbs]) -> None:
    assert cbs(tokens=lambda *_: True).status(operation="delete-token")[0] == 501


def test_a_request_that_is_no_message_is_rejected(cbs: Callable[..., Cbs]) -> None:
    peer = cbs(tokens=lambda *_: True)
    assert peer.ask(b"\x00\x53\x77") == []
    assert [outcome for _, _, outcome in peer.client.outcomes()] == [lib.OUT_REJECTED]


def test_without_tokens_there_is_no_cbs(cbs: Callable[..., Cbs]) -> None:
    assert cbs().refusals() == ["amqp:not-found", "amqp:not-found"]


def test_tokens_are_of_one_kind_or_the_other() -> None:
    with pytest.raises(TypeError, match="tokens"):
        Broker(listen=False, tokens="key")  # type: ignore[arg-type]


@pytest.mark.parametrize("mechanism", ["MSSBCBS", "ANONYMOUS"])
def test_clients_with_tokens_need_no_password(cbs: Callable[..., Cbs], connect: Connect, mechanism: str) -> None:
    client, _ = connect(cbs(tokens=lambda *_: True).client.pipe._broker, sasl=(mechanism, None))
    assert client.of(r.Begin)


# ---- shared access signatures -------------------------------------------------------------------------------------


def sas(key: bytes = b"k==", scope: bytes = b"sb%3A%2F%2Fhost%2Fq", name: bytes = b"send", seconds: float = 60) -> str:
    return create_sas_token(name, key, scope, timedelta(seconds=seconds)).decode()


def test_a_signature_made_with_the_key_is_welcome(cbs: Callable[..., Cbs]) -> None:
    assert cbs(tokens={"send": "k=="}).status(sas())[0] == 202


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (sas(key=b"other"), "InvalidSignature"),
        (sas(name=b"nobody"), "InvalidSignature"),
        (sas(scope=b"sb%3A%2F%2Fhost%2Fother"), "InvalidAudience"),
        (sas(seconds=-1), "ExpiredToken"),
        ("SharedAccessSignature sr=x", "InvalidSignature"),
        ("nonsense", "InvalidSignature"),
    ],
)
def test_other_signatures_are_not(cbs: Callable[..., Cbs], token: str, why: str) -> None:
    status, description = cbs(tokens={"send": "k=="}).status(token)
    assert status == 401 and description.startswith(why)


# ---- what a token opens -------------------------------------------------------------------------------------------


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock, in one item."""
    clock = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    return clock


def test_a_link_needs_a_token_first(cbs: Callable[..., Cbs]) -> None:
    peer = cbs(tokens=lambda *_: True)
    peer.client.sender(peer.session, "q")
    assert peer.refusals() == ["amqp:unauthorized-access"]


@pytest.mark.parametrize("address", ["q", "amqps://other/q", "Q/partitions/0", "$management", None])
def test_a_token_covers_its_address_and_what_is_below(cbs: Callable[..., Cbs], address: str | None) -> None:
    peer = cbs(tokens=lambda *_: True)
    peer.ask(put_token())
    peer.client.sender(peer.session, address)
    assert peer.refusals() == []


@pytest.mark.parametrize("address", ["q2", "other"])
def test_a_token_covers_nothing_else(cbs: Callable[..., Cbs], address: str) -> None:
    peer = cbs(tokens=lambda *_: True)
    peer.ask(put_token())
    peer.client.receiver(peer.session, address)
    assert peer.refusals() == ["amqp:unauthorized-access"]


def test_a_token_for_the_host_covers_everything(cbs: Callable[..., Cbs]) -> None:
    peer = cbs(tokens=lambda *_: True)
    peer.ask(put_token(audience="sb://host/"))
    peer.client.sender(peer.session, "anything")
    assert peer.refusals() == []


def test_a_refused_token_opens_nothing(cbs: Callable[..., Cbs]) -> None:
    peer = cbs(tokens=lambda *_: False)
    peer.ask(put_token())
    peer.client.sender(peer.session, "q")
    assert peer.refusals() == ["amqp:unauthorized-access"]


def test_tokens_need_not_be_required(cbs: Callable[..., Cbs]) -> None:
    peer = cbs(tokens=lambda *_: True, tokens_required=False)
    peer.client.sender(peer.session, "q")
    assert peer.refusals() == []


def test_a_token_is_its_own_connection_s(cbs: Callable[..., Cbs], connect: Connect) -> None:
    peer = cbs(tokens=lambda *_: True)
    peer.ask(put_token())
    other, session = connect(peer.client.pipe._broker)
    other.sender(session, "q")
    assert [detach.error.condition.decode() for detach in other.of(r.Detach)] == ["amqp:unauthorized-access"]


# ---- expiry -------------------------------------------------------------------------------------------------------


def test_links_are_detached_when_their_token_expires(cbs: Callable[..., Cbs], seconds: list[float]) -> None:
    peer = cbs(tokens=lambda *_: Verdict(expires_at=seconds[0] + 10))
    peer.ask(put_token())
    peer.client.sender(peer.session, "q")
    peer.client.run(9_999)
    assert peer.refusals() == []
    peer.client.run(10_000)
    assert peer.refusals() == ["amqp:unauthorized-access"]
    assert "expired" in str(peer.client.of(r.Detach)[0].error.description)


def test_a_long_address_is_refused_and_taken_back_in_few_words(cbs: Callable[..., Cbs], seconds: list[float]) -> None:
    peer = cbs(tokens=lambda *_: (202, "Accepted", seconds[0] + 10))
    address = "q/" + "x" * 10_000
    peer.client.sender(peer.session, address, name="before")
    assert peer.refusals() == ["amqp:unauthorized-access"]
    peer.status()
    peer.client.sender(peer.session, address)
    seconds[0] += 11
    peer.client.run(peer.client.now + 11_000)
    assert peer.refusals() == ["amqp:unauthorized-access"] * 2


def test_a_signature_expires_when_it_says(cbs: Callable[..., Cbs], seconds: list[float]) -> None:
    peer = cbs(tokens=lambda *_: None)
    peer.ask(put_token(sas(seconds=5)))
    peer.client.sender(peer.session, "q")
    peer.client.run(5_000)
    assert peer.refusals() == ["amqp:unauthorized-access"]


def test_a_new_token_in_time_keeps_the_links(cbs: Callable[..., Cbs], seconds: list[float], data: Data) -> None:
    peer = cbs(tokens=lambda *_: Verdict(expires_at=seconds[0] + 10))
    peer.ask(put_token())
    link = peer.client.sender(peer.session, "q")
    seconds[0] += 6
    peer.client.run(6_000)
    peer.ask(put_token(number=2))
    peer.client.run(15_000)
    peer.client.send(link, data(b"m"))
    assert peer.refusals() == []


@pytest.mark.parametrize("days", [0.5, 1, 1.5, 40])
def test_a_token_may_last_for_days(cbs: Callable[..., Cbs], seconds: list[float], days: float) -> None:
    peer = cbs(tokens=lambda *_: Verdict(expires_at=seconds[0] + days * 86400))
    peer.ask(put_token())
    peer.client.sender(peer.session, "q")
    end = round(days * 86_400_000)
    for now in [*range(1, end, 43_200_000), end - 1]:
        peer.client.run(now)
    assert peer.refusals() == []
    peer.client.run(end)
    assert peer.refusals() == ["amqp:unauthorized-access"]


@pytest.mark.parametrize("expires_at", [1e30, float("inf")])
def test_a_token_that_lasts_for_ever_lets_the_broker_sleep(expires_at: float) -> None:
    with Broker(tokens=lambda *_: Verdict(expires_at=expires_at)) as broker:
        auth = SASTokenAuth("q", "amqp://localhost/q", "t", expires_at=expires_at, port=broker.port, use_tls=False)
        with SendClient("amqp://localhost/q", auth=auth) as client:
            client.send_message(Message(b"m"))
        assert broker.info("q").messages == 1


def test_the_links_to_cbs_stay_when_a_token_expires(cbs: Callable[..., Cbs], seconds: list[float]) -> None:
    peer = cbs(tokens=lambda *_: Verdict(expires_at=seconds[0] + 1))
    peer.ask(put_token())
    peer.client.run(2_000)
    assert peer.status(number=2)[0] == 202


def test_one_connection_cannot_pile_up_tokens(cbs: Callable[..., Cbs], seconds: list[float]) -> None:
    peer = cbs(tokens=lambda *_: Verdict(expires_at=seconds[0] + 10))
    for number in range(1000):
        peer.ask(put_token(number=number))
    assert peer.status()[0] == 429
