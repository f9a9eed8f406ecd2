"""Another implementation of AMQP talks to the embedded broker: python-qpid-proton, in a process of its own.

Needs an interpreter that can import it, named by the environment variable UAMQP_PROTON_PYTHON; skipped without.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from uamqp_cffi._core.engine import decode, lib
from uamqp_cffi.broker import Broker

PYTHON = os.environ.get("UAMQP_PROTON_PYTHON", "")

CLIENT = """
import hashlib, json, sys
from proton import Delivery, Message, SSLDomain
from proton.handlers import MessagingHandler
from proton.reactor import AtLeastOnce, AtMostOnce, Container

opt = json.loads(sys.argv[1])


def body(i):
    return (b"%06d" % i) * (opt["size"] // 6)


class Client(MessagingHandler):
    def __init__(self):
        super().__init__(prefetch=0 if opt.get("drain") else 100, auto_accept=opt.get("outcome") is None)
        self.sent = self.done = self.received = 0
        self.counts = {"accepted": 0, "rejected": 0, "released": 0, "modified": 0}
        self.digest = hashlib.sha256()
        self.error = self.condition = None
        self.deliveries = []

    def on_start(self, event):
        kw = {}
        if opt.get("ca"):
            domain = SSLDomain(SSLDomain.MODE_CLIENT)
            domain.set_trusted_ca_db(opt["ca"])
            domain.set_peer_authentication(SSLDomain.VERIFY_PEER_NAME)
            kw["ssl_domain"] = domain
        if opt.get("sasl") is False:
            kw["sasl_enabled"] = False
        c = event.container
        self.connection = c.connect(opt["url"], reconnect=False, heartbeat=opt.get("heartbeat"), **kw)
        mode = AtMostOnce() if opt.get("settled") else AtLeastOnce()
        if opt["role"] == "sender":
            c.create_sender(self.connection, opt["address"], options=mode)
        else:
            c.create_receiver(self.connection, opt["address"], options=mode)

    def on_link_opened(self, event):
        if event.receiver and opt.get("drain"):
            event.receiver.drain(opt["count"] + 50)

    def on_link_flow(self, event):
        if event.receiver and opt.get("drain") and event.receiver.credit == 0:
            self.finish()

    def on_sendable(self, event):
        while event.sender.credit and self.sent < opt["count"]:
            event.sender.send(Message(id=self.sent, body=body(self.sent), inferred=True, properties={"n": self.sent}))
            self.sent += 1
            if opt.get("settled"):
                self.done += 1
        if opt.get("settled") and self.done == opt["count"]:
            self.finish()

    def outcome(self, name):
        def on(event):
            self.counts[name] += 1
            self.done += 1
            if name == "rejected":
                self.condition = event.delivery.remote.condition and event.delivery.remote.condition.name
            if self.done == opt["count"]:
                self.finish()
        return on

    def on_accepted(self, event):
        self.outcome("accepted")(event)

    def on_rejected(self, event):
        self.outcome("rejected")(event)

    def on_released(self, event):
        self.outcome("modified" if event.delivery.remote_state == 0x27 else "released")(event)

    def on_message(self, event):
        m = event.message
        self.received += 1
        self.digest.update(bytes(m.body))
        self.deliveries.append(m.delivery_count)
        outcome = opt.get("outcome")
        if outcome == "rejected":
            self.reject(event.delivery)
        elif outcome == "modified" and not m.delivery_count:
            event.delivery.local.failed = True
            event.delivery.update(Delivery.MODIFIED)
            event.delivery.settle()
        elif outcome:
            self.accept(event.delivery)
        want = opt["count"] * (2 if outcome == "modified" else 1)
        if self.received == want and not opt.get("drain"):
            self.finish()

    def finish(self):
        self.connection.close()

    def failed(self, event, what):
        self.error = [what, str(getattr(event, what).remote_condition or getattr(event, what).condition)]
        self.connection.close()

    def on_link_error(self, event):
        self.failed(event, "link")

    def on_connection_error(self, event):
        self.failed(event, "connection")

    def on_transport_error(self, event):
        self.error = ["transport", str(event.transport.condition)]


client = Client()
Container(client).run()
print(json.dumps({"counts": client.counts, "received": client.received, "digest": client.digest.hexdigest(),
                  "error": client.error, "condition": client.condition, "deliveries": sorted(set(client.deliveries))}))
"""


def missing() -> str | None:
    """Why these tests cannot run."""
    if not PYTHON:
        return "UAMQP_PROTON_PYTHON names no interpreter that has python-qpid-proton"
    found = subprocess.run([PYTHON, "-c", "import proton"], capture_output=True, text=True, timeout=60)
    return f"{PYTHON} cannot import proton" if found.returncode else None


WHY = missing()
pytestmark = [pytest.mark.net, pytest.mark.skipif(WHY is not None, reason=WHY or "")]

Proton = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """PEM files: a server's key and chain, and the authority that signed it."""
    folder: Path = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "server.pem"), str(folder / "ca.pem")


@pytest.fixture(params=["plain", "tls"])
def broker(request: pytest.FixtureRequest, certificates: tuple[str, str]) -> Any:
    server, ca = certificates
    with Broker(cert_file=server if request.param == "tls" else None) as made:
        made.ca = ca if request.param == "tls" else None  # type: ignore[attr-defined]
        yield made


def proton(
    broker: Any, role: str, address: str, count: int, size: int = 102, url: str | None = None, **more: Any
) -> Any:
    options = {
        "url": url or broker.url,
        "role": role,
        "address": address,
        "count": count,
        "size": size,
        "ca": broker.ca,
    }
    done = subprocess.run(
        [PYTHON, "-c", CLIENT, json.dumps(options | more)], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def digest(count: int, size: int) -> str:
    return hashlib.sha256(b"".join((b"%06d" % i) * (size // 6) for i in range(count))).hexdigest()


def bodies(payloads: list[bytes]) -> bytes:
    """The data sections of encoded messages, joined."""
    out = b""
    for payload in payloads:
        for code, offset, length, _ in lib.sections(payload):
            if code == 0x75:
                out += decode.decode_exact(payload[offset : offset + length])
    return out


def test_a_thousand_messages_each_way(broker: Any) -> None:
    sent = proton(broker, "sender", "q", 1000)
    assert sent["counts"] == {"accepted": 1000, "rejected": 0, "released": 0, "modified": 0} and sent["error"] is None
    assert hashlib.sha256(bodies(broker.payloads("q"))).hexdigest() == digest(1000, 102)
    got = proton(broker, "receiver", "q", 1000)
    assert (got["received"], got["digest"], got["error"]) == (1000, digest(1000, 102), None)
    info = broker.info("q")
    assert (info.messages, info.unsettled, info.received) == (0, 0, 1000)


def test_settled_messages_each_way(broker: Any) -> None:
    proton(broker, "sender", "q", 1000, settled=True)
    assert len(broker.wait_for("q", 1000)) == 1000
    got = proton(broker, "receiver", "q", 1000, settled=True)
    assert (got["received"], got["digest"]) == (1000, digest(1000, 102))
    assert broker.info("q").bytes == 0


def test_large_messages_each_way(broker: Any) -> None:
    sent = proton(broker, "sender", "q", 5, size=3_000_000)
    assert sent["counts"]["accepted"] == 5
    got = proton(broker, "receiver", "q", 5, size=3_000_000)
    assert (got["received"], got["digest"]) == (5, digest(5, 3_000_000))


@pytest.mark.parametrize("outcome", ["rejected", "released", "modified"])
def test_scripted_outcomes_are_understood(broker: Any, outcome: str) -> None:
    broker.script("q", outcome, condition="amqp:precondition-failed" if outcome == "rejected" else None)
    sent = proton(broker, "sender", "q", 10)
    assert sent["counts"][outcome] == 10
    assert sent["condition"] == ("amqp:precondition-failed" if outcome == "rejected" else None)


def test_failed_messages_come_again_counted(broker: Any) -> None:
    proton(broker, "sender", "q", 10)
    got = proton(broker, "receiver", "q", 10, outcome="modified")
    assert (got["received"], got["deliveries"]) == (20, [0, 1])
    assert broker.info("q").messages == 0


def test_rejected_messages_are_dead(broker: Any) -> None:
    proton(broker, "sender", "q", 10)
    proton(broker, "receiver", "q", 10, outcome="rejected")
    assert broker.info("q").dead == 10


def test_a_drain_is_answered(broker: Any) -> None:
    proton(broker, "sender", "q", 10)
    got = proton(broker, "receiver", "q", 10, drain=True)
    assert got["received"] == 10 and got["error"] is None


def test_a_refused_attach_and_a_forced_close_are_understood(broker: Any) -> None:
    broker.script("nowhere", fail="attach", description="no such queue")
    assert proton(broker, "sender", "nowhere", 1)["error"] == ["link", "Condition('amqp:not-found', 'no such queue')"]
    # not the default condition: for amqp:connection:forced proton waits to be able to connect again and reports nothing
    broker.script("fragile", fail="close", after=1, condition="amqp:resource-limit-exceeded")
    kind, text = proton(broker, "sender", "fragile", 10)["error"]
    assert kind == "connection" and "amqp:resource-limit-exceeded" in text


def test_heartbeats_and_no_sasl_layer(broker: Any) -> None:
    sent = proton(broker, "sender", "q", 100, heartbeat=2, sasl=False)
    assert sent["counts"]["accepted"] == 100
