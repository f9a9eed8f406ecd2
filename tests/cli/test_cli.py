"""The command as users run it: a process, its output, its exit status."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from uamqp_cffi import Message, message
from uamqp_cffi._core.engine.lib import undump
from uamqp_cffi.broker import Broker, Outcome
from uamqp_cffi.constants import MessageBodyType

pytestmark = pytest.mark.slow

MANY = 1_000_000_000  # more than any test waits for
posix = pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")


class Command:
    """A running `python -m uamqp_cffi`."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path, **options: Any) -> None:
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uamqp_cffi", *arguments],
            cwd=cwd, stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip
        self.seen = ""

    def wait_for_stderr(self, text: str) -> None:
        """Read standard error up to the line that has `text`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.seen += line
            if text in line:
                return
        pytest.fail(f"ended without {text!r} on standard error: {self.seen}")

    def ready(self) -> str:
        """The URL of a `broker --json`, once it listens."""
        assert self.process.stdout is not None
        url: str = json.loads(self.process.stdout.readline())["url"]
        return url

    def finish(self, timeout: float = 60) -> tuple[int, str, str]:
        """Exit status, standard output, all of standard error."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, self.seen + err

    def interrupt(self, number: int = signal.SIGINT) -> tuple[int, str, str, float]:
        """Send the signal and wait: also gives the seconds it took to end."""
        started = time.monotonic()
        self.process.send_signal(number)
        status, out, err = self.finish(10)
        return status, out, err, time.monotonic() - started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def start(*arguments: str, **options: Any) -> Command:
        commands.append(Command(arguments, tmp_path, **options))
        return commands[-1]

    yield start
    for command in commands:
        with command.process as process:  # closes its pipes, and waits
            process.kill()


@pytest.fixture
def run(start: Callable[..., Command]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
        return start(*arguments, **options).finish()

    return run


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


def only_line(text: str, start: str) -> str:
    """The one line of `text` that begins with `start`."""
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


# ---- send: what becomes of messages ----


def test_send_without_url_brings_its_own_broker(run: Callable[..., Any]) -> None:
    status, out, err = run("send", "--count", "3000", "--json")
    report = json.loads(out)
    assert status == report["exit_status"] == 0
    assert report["accepted"] == report["handed_over"] == 3000
    assert report["rejected"] == report["unconfirmed"] == report["not_sent"] == 0
    assert report["url"].startswith("amqp://127.0.0.1:")
    assert report["messages_per_second"] > 0
    latency = report["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert "started the embedded broker" in err


def test_people_get_a_table(run: Callable[..., Any]) -> None:
    status, out, _ = run("send", "--count", "20")
    assert status == 0
    assert only_line(out, "20 messages to amqp://127.0.0.1:")
    assert only_line(out, "  accepted").split() == ["accepted", "20"]
    assert "p50" in only_line(out, "  latency")
    assert "messages/s" in only_line(out, "  rate")


def test_bodies_are_what_was_asked_for(run: Callable[..., Any], broker: Broker) -> None:
    assert run("send", broker.url + "/size", "--size", "5")[0] == 0
    assert run("send", broker.url + "/body", "--body", "crème", "--count", "2")[0] == 0
    assert [b"".join(m.get_data()) for m in broker.messages("size")] == [b"xxxxx"]
    assert [str(m) for m in broker.messages("body")] == ["crème", "crème"]


@pytest.mark.parametrize("by_pipe", [False, True])
def test_a_file_is_sent_line_by_line(run: Callable[..., Any], broker: Broker, tmp_path: Path, by_pipe: bool) -> None:
    lines = [f"line {n}" for n in range(1200)]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines))
    name = "-" if by_pipe else str(path)
    with path.open("rb") as file:
        status, out, _ = run("send", broker.url + "/lines", "--file", name, "--json", stdin=file)
    assert status == 0
    assert json.loads(out)["accepted"] == 1200
    assert [str(m) for m in broker.messages("lines")] == lines


@posix
def test_lines_of_a_pipe_are_sent_as_they_come(start: Callable[..., Command], broker: Broker) -> None:
    command = start("send", broker.url + "/lines", "--file", "-", stdin=subprocess.PIPE)
    assert command.process.stdin is not None
    for n, line in enumerate(("one", "two", "three"), 1):
        command.process.stdin.write(line + "\n")
        command.process.stdin.flush()
        assert str(broker.wait_for("lines", n)[-1]) == line
    status, _, _ = command.finish()
    assert status == 0


def test_other_outcomes_are_counted_and_end_with_1(run: Callable[..., Any], broker: Broker) -> None:
    answers = iter([Outcome("rejected", "amqp:not-allowed", "no \x1b[31mway"), "released", "modified", "accepted"] * 5)
    broker.script("mixed", lambda message: next(answers))
    status, out, err = run("send", broker.url + "/mixed", "--count", "20", "--json")
    report = json.loads(out)
    assert status == report["exit_status"] == 1
    assert [report[k] for k in ("accepted", "rejected", "released", "modified", "failed")] == [5, 5, 5, 5, 0]
    assert any("no \\x1b[31mway" in reason for reason in report["reasons"])
    assert "\x1b" not in out + err
    assert only_line(err, "error: ") == "error: 15 of 20 messages were not accepted"


@pytest.mark.parametrize("mode", ["settled", "mixed"])
def test_settled_messages_are_counted_as_sent(run: Callable[..., Any], broker: Broker, mode: str) -> None:
    status, out, _ = run("send", broker.url + "/log", "--count", "500", "--settle", mode, "--json")
    report = json.loads(out)
    assert (status, report["sent_settled"], report["accepted"]) == (0, 500, 0)
    assert len(broker.wait_for("log", 500)) == 500


def test_address_goes_out_as_given(run: Callable[..., Any], broker: Broker) -> None:
    assert run("send", broker.url, "--address", "/queues/orders")[0] == 0
    assert broker.queues == ["queues/orders"]


def test_no_message_is_no_failure(run: Callable[..., Any], broker: Broker) -> None:
    status, out, _ = run("send", broker.url + "/q", "--count", "0", "--json")
    assert (status, json.loads(out)["accepted"]) == (0, 0)


def test_gives_up_on_a_broker_that_never_answers(run: Callable[..., Any], broker: Broker) -> None:
    broker.script("silent", "none")
    status, out, err = run("send", broker.url + "/silent", "--count", "3", "--timeout", "0.3", "--json")
    report = json.loads(out)
    assert (status, report["unconfirmed"], report["maybe_delivered"]) == (1, 3, 3)
    assert "gave up: no outcome for 0.3 s" in only_line(err, "error: ")


def test_without_credit_nothing_can_have_arrived(run: Callable[..., Any], broker: Broker) -> None:
    broker.script("stingy", credit=0)
    status, out, _ = run("send", broker.url + "/stingy", "--count", "3", "--timeout", "0.3", "--json")
    report = json.loads(out)
    assert (status, report["unconfirmed"], report["maybe_delivered"]) == (1, 3, 0)


# ---- send: no connection ----


def test_refused_port_ends_with_3(run: Callable[..., Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"amqp://127.0.0.1:{taken.getsockname()[1]}/q"
        status, out, err = run("send", url, "--count", "5", "--json")
    report = json.loads(out)
    assert status == report["exit_status"] == 3
    assert (report["handed_over"], report["not_sent"]) == (0, 5)
    assert only_line(err, "error: ").startswith(f"error: cannot connect to {url}: ")
    assert "efused" in err


def test_unknown_host_ends_with_3(run: Callable[..., Any]) -> None:
    status, _, err = run("send", "amqps://no-such-host.invalid/q", "--timeout", "20")
    assert status == 3
    assert "no-such-host.invalid" in only_line(err, "error: ")


def test_tls_to_a_plain_server_ends_with_3(run: Callable[..., Any], broker: Broker) -> None:
    status, _, err = run("send", broker.url.replace("amqp:", "amqps:") + "/q", "--timeout", "20")
    assert status == 3
    assert "--no-tls" in only_line(err, "error: ")


def test_refused_attach_ends_with_3(run: Callable[..., Any], broker: Broker) -> None:
    broker.script("missing", fail="attach", condition="amqp:not-found", description="no queue of that name")
    status, _, err = run("send", broker.url + "/missing")
    assert status == 3
    (line,) = err.splitlines()
    assert "no queue of that name" in line and "--address" in line


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Broker, str]]:
    """A TLS broker that wants ann and her password, and the file with its authority's certificate."""
    authority = trustme.CA()
    ca_file, cert_file = str(tmp_path / "ca.pem"), str(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(ca_file)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(cert_file)
    with Broker(cert_file=cert_file, key_file=cert_file, users={"ann": "s3/cret"}) as broker:
        yield broker, ca_file


def test_tls_is_verified_and_the_password_stays_secret(run: Callable[..., Any], secure: tuple[Broker, str]) -> None:
    broker, ca_file = secure
    with_password = os.environ | {"AMQP_PASSWORD": "s3/cret"}
    url = broker.url + "/q"
    status, out, err = run("send", url, "--user", "ann", "--ca", ca_file, "--json", env=with_password)
    assert status == 0, err
    assert json.loads(out)["url"] == url.replace("://", "://ann:***@")
    everything = out + err
    status, out, err = run("send", url, "--user", "ann", env=with_password)
    assert status == 3
    assert "certificate" in only_line(err, "error: ")
    everything += out + err
    in_url = url.replace("://", "://ann:s3%2Fcret@")
    status, out, err = run("send", in_url, "--ca", ca_file)
    assert status == 0, err
    everything += out + err
    status, out, err = run("send", in_url.replace("cret", "crets"), "--ca", ca_file)
    assert status == 3
    assert "PLAIN" in only_line(err, "error: ")
    everything += out + err
    assert "cret" not in everything


def test_websocket_to_its_own_broker_and_to_another(run: Callable[..., Any], broker: Broker) -> None:
    status, out, err = run("send", "--websocket", "--count", "100", "--json")
    assert (status, json.loads(out)["accepted"]) == (0, 100), err
    status, out, err = run("send", broker.url + "/q", "--websocket", "--no-tls", "--body", "hello")
    assert status == 0, err
    assert [str(message) for message in broker.messages("q")] == ["hello"]


def test_a_proxy_that_is_none_is_named_and_gets_the_password_that_nobody_else_does(run: Callable[..., Any]) -> None:
    heads: list[bytes] = []

    def refuse(listener: socket.socket) -> None:
        with listener.accept()[0] as sock:
            while not b"".join(heads).endswith(b"\r\n\r\n"):
                heads.append(sock.recv(4096))
            sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,), daemon=True)
        thread.start()
        proxy = f"http://ann%40work@127.0.0.1:{listener.getsockname()[1]}"
        environment = os.environ | {"PROXY_PASSWORD": "s3cret"}
        status, out, err = run("send", "amqps://broker.example/q", "--proxy", proxy, env=environment)
        thread.join(10)
    assert status == 3
    assert "proxy refused: 407 Proxy Authentication Required" in only_line(err, "error: ")
    assert base64.b64encode(b"ann@work:s3cret") in b"".join(heads)
    assert b"CONNECT broker.example:443 " in b"".join(heads)
    assert "s3cret" not in out + err


# ---- send: usage ----


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "required"),
        (("send", "amqp://127.0.0.1"), "--address"),
        (("send", "amqp:///q"), ""),
        (("send", "--size", "1", "--body", "x"), "not allowed with"),
        (("send", "--count", "-1"), "--count"),
        (("send", "--size", "x"), "--size"),
        (("send", "--size", "1" + "0" * 14), "--size: there is no memory for"),
        (("send", "--size", "1" + "0" * 40), "--size: there is no memory for"),
        (("send", "amqp://ann:pw@[::1/q"), "the URL is malformed"),
        (("receive", "amqp://[::1/q", "--user", "a"), "the URL is malformed"),
        (("send", "--timeout", "0"), "--timeout"),
        (("send", "--settle", "never"), "--settle"),
        (("send", "--file", "no-such-file"), "cannot read no-such-file"),
        (("send", "amqps://localhost/q", "--ca", "no-such-file"), "cannot use no-such-file"),
        (("send", "amqps://localhost/q", "--user", "a", "--password-env", "NOT_SET_AT_ALL"), "NOT_SET_AT_ALL"),
        (("send", "--user", "a"), "--user"),
        (("send", "--proxy", "proxy.example:3128"), "--proxy needs a URL"),
        (("send", "amqps://localhost/q", "--proxy", "proxy.example"), "names no port"),
        (("send", "amqps://localhost/q", "--proxy", "ann@proxy.example:3128"), "PROXY_PASSWORD"),
        (("send", "amqps://localhost/q", "--proxy", "ann:pw@proxy.example:3128"), "PROXY_PASSWORD"),
        (("send", "amqps://localhost/q", "--proxy", "https://proxy.example:3128"), "--proxy wants"),
        (("receive", "amqp://127.0.0.1"), "--address"),
        (("receive", "--ack", "eat"), "--ack"),
        (("receive", "--count", "-1"), "--count"),
        (("receive", "--user", "a"), "--user"),
        (("receive", "amqps://localhost/q", "--ca", "no-such-file"), "cannot use no-such-file"),
        (("broker", "--port", "65536"), "--port"),
        (("broker", "--user", "no-colon"), "NAME:PASSWORD"),
        (("broker", "--tls", "no-cert", "no-key"), "cannot use no-cert"),
        (("decode",), "HEX"),
        (("decode", " "), "nothing to decode"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_clear_line(
    run: Callable[..., Any], arguments: tuple[str, ...], said: str
) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("uamqp-cffi") and ": error: " in line and said in line


# ---- send: interrupted ----


@posix
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected", "word"),
    [(signal.SIGINT, 130, "interrupted: "), (signal.SIGTERM, 143, "stopped by SIGTERM: ")],
    ids=["SIGINT", "SIGTERM"],  # the default ids of enumeration members differ between Pythons
)
def test_ctrl_c_in_the_middle_still_gives_the_report(
    start: Callable[..., Command], number: int, expected: int, word: str
) -> None:
    command = start("send", "--count", str(MANY), "--json")
    command.wait_for_stderr("messages done")
    status, out, err, seconds = command.interrupt(number)
    report = json.loads(out)
    assert status == report["exit_status"] == expected
    assert report["accepted"] > 0
    assert report["accepted"] + report["unconfirmed"] == report["handed_over"]
    assert report["handed_over"] + report["not_sent"] == MANY
    assert f"{report['accepted']:,} messages confirmed" in only_line(err, word)
    assert seconds < 1.5  # half a second, and what a busy machine adds


@posix
def test_ctrl_c_does_not_wait_for_a_silent_broker(start: Callable[..., Command], broker: Broker) -> None:
    came = threading.Semaphore(0)

    def never(message: object) -> str:
        came.release()
        return "none"

    broker.script("silent", never)
    command = start("send", broker.url + "/silent", "--count", "3", "--json")
    for _ in range(3):
        assert came.acquire(timeout=30)
    status, out, err, seconds = command.interrupt()
    report = json.loads(out)
    assert (status, report["accepted"], report["unconfirmed"], report["maybe_delivered"]) == (130, 0, 3, 3)
    assert only_line(err, "interrupted: ") == "interrupted: 0 messages confirmed, 3 not"
    assert seconds < 1.5


@posix
def test_ctrl_c_while_connecting(start: Callable[..., Command]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        command = start("send", f"amqp://127.0.0.1:{mute.getsockname()[1]}/q", "--json")
        connection, _ = mute.accept()
        with connection:
            assert connection.recv(8)
            status, out, err, seconds = command.interrupt()
    report = json.loads(out)
    assert (status, report["handed_over"], report["not_sent"]) == (130, 0, 1)
    assert only_line(err, "interrupted: ") == "interrupted: nothing was sent"
    assert seconds < 1.5


@posix
def test_ctrl_c_while_waiting_for_the_next_line(start: Callable[..., Command], broker: Broker) -> None:
    command = start("send", broker.url + "/lines", "--file", "-", "--json", stdin=subprocess.PIPE)
    assert command.process.stdin is not None
    command.process.stdin.write("one\n")
    command.process.stdin.flush()
    assert len(broker.wait_for("lines", 1)) == 1
    status, out, _, seconds = command.interrupt()
    report = json.loads(out)
    assert (status, report["accepted"], report["unconfirmed"], report["not_sent"]) == (130, 1, 0, None)
    assert seconds < 1.5


@pytest.mark.slow
def test_a_broker_that_dies_leaves_every_message_accounted_for(start: Callable[..., Command]) -> None:
    server = start("broker", "--port", "0", "--json", "--discard")
    command = start("send", server.ready() + "/q", "--count", str(MANY), "--json")
    command.wait_for_stderr("messages done")
    server.process.kill()
    status, out, err = command.finish()
    report = json.loads(out)
    assert status == report["exit_status"] == 1
    assert report["accepted"] > 0
    assert report["unconfirmed"] > 0
    assert report["accepted"] + report["unconfirmed"] == report["handed_over"]
    assert 0 <= report["maybe_delivered"] <= report["unconfirmed"]
    assert only_line(err, "error: ").startswith("error: lost amqp://")


@pytest.mark.parametrize("failure", ["detach", "end", "close", "drop"])
def test_what_breaks_after_the_attach_ends_with_1(run: Callable[..., Any], broker: Broker, failure: str) -> None:
    broker.script("fragile", fail=failure, after=10)
    status, out, err = run("send", broker.url + "/fragile", "--count", "30", "--window", "1", "--json")
    report = json.loads(out)
    assert status == 1
    assert 9 <= report["accepted"] <= 10
    assert report["accepted"] + report["unconfirmed"] + report["failed"] == report["handed_over"]
    assert report["handed_over"] + report["not_sent"] == 30
    assert only_line(err, "error: ").startswith("error: lost amqp://")


# ---- receive ----


def held(broker: Broker, queue: str = "q") -> list[str]:
    """What is in the queue once no consumer has anything of it."""
    end = time.monotonic() + 20
    while broker.info(queue).unsettled or broker.info(queue).consumers:
        assert time.monotonic() < end, broker.info(queue)
        time.sleep(0.001)
    return [str(message) for message in broker.messages(queue)]


def test_receive_without_url_brings_its_own_broker(run: Callable[..., Any]) -> None:
    status, out, err = run("receive")
    assert (status, out.splitlines()) == (0, [f"message {n}" for n in range(1, 11)])
    assert only_line(err, "  accepted").split() == ["accepted", "10"]
    assert "messages/s" in only_line(err, "  rate")


def test_receive_prints_a_line_per_message_and_takes_no_more_than_asked_for(
    run: Callable[..., Any], broker: Broker
) -> None:
    for n in range(2500):
        broker.put("q", f"m{n}")
    status, out, err = run("receive", broker.url + "/q", "--count", "2345")
    assert (status, out.splitlines()) == (0, [f"m{n}" for n in range(2345)]), err
    assert broker.info("q").delivered == 2345, "the broker was not asked for more"
    assert held(broker) == [f"m{n}" for n in range(2345, 2500)]


def test_receive_ends_when_no_more_come(run: Callable[..., Any], broker: Broker) -> None:
    broker.put("q", "only")
    status, out, _ = run("receive", broker.url + "/q", "--timeout", "0.3", "--json", "--output", "none")
    report = json.loads(out)
    assert (status, report["received"], report["accepted"], report["error"]) == (0, 1, 1, None)
    assert held(broker) == []


def test_receive_of_too_few_ends_with_1(run: Callable[..., Any], broker: Broker) -> None:
    broker.put("q", "only")
    status, out, err = run("receive", broker.url + "/q", "--timeout", "0.3", "--count", "2")
    assert (status, out) == (1, "only\n")
    assert only_line(err, "error: ") == "error: gave up: no message for 0.3 s"


def test_release_prints_each_message_once_and_leaves_all_of_them(run: Callable[..., Any], broker: Broker) -> None:
    sent = [f"m{n}" for n in range(3000)]
    for body in sent:
        broker.put("q", body)
    status, out, err = run("receive", broker.url + "/q", "--ack", "release", "--timeout", "0.5")
    assert (status, out.splitlines()) == (0, sent), err
    assert only_line(err, "  released").split() == ["released", "3,000"]
    assert held(broker) == sent


def test_reject_makes_dead_letters(run: Callable[..., Any], broker: Broker) -> None:
    broker.put("q", "bad")
    status, out, _ = run("receive", broker.url + "/q", "--ack", "reject", "--count", "1", "--json", "--output", "none")
    assert (status, json.loads(out)["rejected"]) == (0, 1)
    assert held(broker) == [] and [str(m) for m in broker.dead("q")] == ["bad"]


def test_bodies_cannot_disturb_a_terminal(run: Callable[..., Any], broker: Broker) -> None:
    for body in (b"\x1b[2J two\nlines", b"\xff\x00", "cr\u00e8me", {"k": [b"v", 1.5]}, None):
        broker.put("q", Message(body))
    broker.put("q", Message([[1, "a"], [2]], body_type=MessageBodyType.Sequence))
    status, out, err = run("receive", broker.url + "/q", "--count", "6")
    assert status == 0, err
    assert out.splitlines() == [
        r"\x1b[2J two\nlines", r"\xff\x00", "cr\u00e8me", '{"k": ["v", 1.5]}', "", '[[1, "a"], [2]]'
    ]  # fmt: skip


def test_whole_messages_are_lines_of_json(run: Callable[..., Any], broker: Broker) -> None:
    properties = message.MessageProperties(message_id="id", content_type="text/plain")
    rich = Message("b", properties=properties, application_properties={"n": 1}, annotations={b"x-a": b"\xff"})
    rich.header = message.MessageHeader()
    rich.header.durable = True
    broker.put("q", rich)
    status, out, err = run("receive", broker.url + "/q", "--count", "1", "--json")
    assert status == 0, err
    first, last = map(json.loads, out.splitlines())
    assert first == {
        "body": "b",
        "section": "data",
        "header": {"delivery_count": 0, "durable": True, "priority": 4},
        "annotations": {"x-a": {"base64": "/w=="}},
        "properties": {"message_id": "id", "content_type": "text/plain"},
        "application_properties": {"n": 1},
    }
    assert last["received"] == 1


def test_a_malformed_message_is_rejected_and_the_others_come(run: Callable[..., Any], broker: Broker) -> None:
    broker._core.queue("q").put(b"\x00Su\xa0\x05ab")  # a data section that ends too soon
    broker.put("q", "good")
    status, out, err = run("receive", broker.url + "/q", "--count", "2", "--json")
    first, report = map(json.loads, out.splitlines())
    assert (status, first["body"]) == (1, "good")
    assert (report["accepted"], report["rejected"], report["malformed"]) == (1, 1, 1)
    assert "malformed" in only_line(err, "delivery ")
    assert broker.info("q").dead == 1


def test_receive_over_tls_with_a_user(run: Callable[..., Any], secure: tuple[Broker, str]) -> None:
    broker, ca_file = secure
    broker.put("orders", "one")
    with_password = os.environ | {"PW": "s3/cret"}
    options = ("--user", "ann", "--password-env", "PW", "--ca", ca_file, "--address", "orders")
    status, out, err = run("receive", broker.url, *options, "--count", "1", env=with_password)
    assert (status, out) == (0, "one\n"), err
    assert "cret" not in err


@pytest.mark.parametrize("failure", ["attach", "detach", "end", "close", "drop"])
def test_a_broker_that_breaks_off_ends_receive_with_1_or_3(
    run: Callable[..., Any], broker: Broker, failure: str
) -> None:
    for n in range(30):
        broker.put("q", f"m{n}")
    broker.script("q", fail=failure, after=10, times=1)
    status, out, err = run("receive", broker.url + "/q", "--count", "30", "--json", "--output", "text")
    *bodies, last = out.splitlines()
    report = json.loads(last)
    assert status == report["exit_status"] == (3 if failure == "attach" else 1)
    assert report["accepted"] + report["unsettled"] == report["received"] == len(bodies) <= 10
    assert bodies == [f"m{n}" for n in range(len(bodies))]
    words = "cannot connect to" if failure == "attach" else "lost"
    assert only_line(err, "error: ").startswith(f"error: {words} amqp://")
    assert len(held(broker)) >= 30 - report["received"]


def test_outcomes_that_may_not_have_arrived_end_with_1(run: Callable[..., Any], broker: Broker) -> None:
    for n in range(10):
        broker.put("q", f"m{n}")
    broker.script("q", fail="drop", after=10, times=1)  # all of them are sent, and then nothing more is read
    status, out, err = run("receive", broker.url + "/q", "--count", "10")
    assert status == 1
    assert only_line(err, "error: ").startswith("error: lost amqp://")
    assert len(held(broker)) == 10


@posix
@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_ctrl_c_while_receiving_gives_the_report_and_unread_messages_back(
    start: Callable[..., Command], broker: Broker, number: int, expected: int
) -> None:
    for n in range(20):
        broker.put("q", f"m{n}")
    command = start("receive", broker.url + "/q", "--count", "100", "--ack", "release")
    assert command.process.stdout is not None
    lines = [command.process.stdout.readline() for _ in range(20)]  # and then it waits
    status, out, err, seconds = command.interrupt(number)
    assert (status, out, lines) == (expected, "", [f"m{n}\n" for n in range(20)])
    assert only_line(err, "interrupted: " if number == signal.SIGINT else "stopped by SIGTERM: ")
    assert only_line(err, "  released").split() == ["released", "20"]
    assert held(broker) == [f"m{n}" for n in range(20)]
    assert seconds < 1.5  # half a second, and what a busy machine adds


@posix
def test_ctrl_c_while_connecting_to_receive(start: Callable[..., Command]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        command = start("receive", f"amqp://127.0.0.1:{mute.getsockname()[1]}/q")
        connection, _ = mute.accept()
        with connection:
            assert connection.recv(8)
            status, out, err, seconds = command.interrupt()
    assert (status, out) == (130, "")
    assert only_line(err, "interrupted: ") == "interrupted: nothing was received"
    assert seconds < 1.5


@posix
def test_messages_that_could_not_be_printed_stay_with_the_broker(start: Callable[..., Command], broker: Broker) -> None:
    sent = [f"m{n} " + "x" * 1000 for n in range(500)]
    for body in sent:
        broker.put("q", body)
    process = start("receive", broker.url + "/q", "--timeout", "20").process
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 141
    assert first == sent[0] + "\n"
    assert "Traceback" not in process.stderr.read()
    still_there = held(broker)
    assert still_there and sent[-len(still_there) :] == still_there


def test_receive_of_none_takes_none(run: Callable[..., Any], broker: Broker) -> None:
    broker.put("q", "one")
    assert run("receive", broker.url + "/q", "--count", "0")[:2] == (0, "")
    assert broker.info("q").delivered == 0


@posix
def test_no_line_of_a_silent_pipe_is_waited_for_when_none_is_wanted(
    start: Callable[..., Command], broker: Broker
) -> None:
    command = start("send", broker.url + "/q", "--file", "-", "--count", "0", stdin=subprocess.PIPE)
    assert command.process.wait(10) == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file there that opens and cannot be read")
def test_a_file_that_fails_is_not_called_a_lost_connection(run: Callable[..., Any], broker: Broker) -> None:
    status, out, err = run("send", broker.url + "/q", "--file", "/proc/self/mem", "--json")
    error = f"gave up: cannot read line 1: {os.strerror(errno.EIO)}"
    assert (status, json.loads(out)["error"]) == (1, error)
    assert only_line(err, "error: ") == f"error: {error}"


@posix
def test_ctrl_c_ends_receive_though_nobody_reads_its_output(start: Callable[..., Command], broker: Broker) -> None:
    for n in range(500):
        broker.put("q", f"m{n} " + "x" * 1000)  # more than fits into a pipe
    command = start("receive", broker.url + "/q")
    command.wait_for_stderr("connected to")
    end = time.monotonic() + 20
    while broker.info("q").unsettled < 500:
        assert time.monotonic() < end
        time.sleep(0.001)
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(10) == 130
    assert held(broker)


# ---- output that goes nowhere ----


@posix
def test_a_reader_that_leaves_is_no_traceback(start: Callable[..., Command]) -> None:
    process = start("decode", "-", stdin=subprocess.PIPE).process
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdout.close()  # before there is input, hence before there is output
    process.stdin.write("00000008 02000000\n" * 20_000)
    process.stdin.close()
    assert (process.stderr.read(), process.wait(60)) == ("", 141)


@posix
def test_sending_goes_on_when_nobody_reads_the_progress(start: Callable[..., Command], broker: Broker) -> None:
    command = start("send", broker.url + "/q", "--count", "50", "--json")
    assert command.process.stderr is not None
    command.process.stderr.close()
    command.process.stderr = None
    out, _ = command.process.communicate(timeout=60)
    assert (command.process.returncode, json.loads(out)["accepted"]) == (0, 50)


@posix
@pytest.mark.parametrize(("stream", "accepted"), [("stdout", None), ("stderr", 5)])
@pytest.mark.parametrize("how", ["closed", "full"])
def test_an_output_that_takes_nothing_is_no_traceback(
    tmp_path: Path, broker: Broker, stream: str, accepted: int | None, how: str
) -> None:
    if how == "full" and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    number = {"stdout": 1, "stderr": 2}[stream]
    command = f'"$0" -m uamqp_cffi send {broker.url}/q --count 5 --json {number}>' + (
        "&-" if how == "closed" else "/dev/full"
    )
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr and broker.info("q").received == 5
    if accepted is not None:
        assert (done.returncode, json.loads(done.stdout)["accepted"]) == (0, accepted)
    elif how == "full":
        assert done.returncode == 1 and only_line(done.stderr, "error: ") == (
            "error: cannot write to standard output: No space left on device"
        )
    else:
        assert done.returncode == 0


@posix
def test_receive_says_that_it_cannot_write(tmp_path: Path, broker: Broker) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    broker.put("q", "one")
    command = [sys.executable, "-m", "uamqp_cffi", "receive", broker.url + "/q", "--count", "1"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert only_line(done.stderr, "error: ") == (
        "error: gave up: cannot write to standard output: No space left on device"
    )
    assert held(broker) == ["one"]


@posix
@pytest.mark.parametrize("arguments", [("send", "--file", "-"), ("decode", "-")])
def test_without_standard_input_there_is_nothing_to_read(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = ["sh", "-c", '"$0" -m uamqp_cffi "$@" <&-', sys.executable, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "there is no standard input" in done.stderr


@posix
@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_leaves_a_report_that_is_being_printed_as_it_is(
    start: Callable[..., Command], broker: Broker, signals: int
) -> None:
    """The second one ends the command, though nobody has taken the report."""
    read, write = os.pipe()
    with open(read, "rb") as output:
        with open(write, "wb", buffering=0) as stuffed:
            os.set_blocking(write, False)
            while stuffed.write(b" " * 4096):
                continue
            os.set_blocking(write, True)
            command = start("send", broker.url + "/q", "--json", stdout=stuffed)
        broker.wait_for("q", 1)
        while broker.connections:
            time.sleep(0.001)
        for _ in range(signals):
            with pytest.raises(subprocess.TimeoutExpired):
                command.process.wait(0.3)
            command.process.send_signal(signal.SIGINT)
        if signals == 1:
            assert json.loads(output.read())["accepted"] == 1
            assert command.process.wait(10) == 0
        else:
            assert command.process.wait(10) == 130
            assert output.read().strip() == b""


# ---- broker ----


@posix
@pytest.mark.parametrize("line", [1, 2])
def test_a_signal_that_comes_while_the_broker_begins_to_wait_ends_it(tmp_path: Path, line: int) -> None:
    """`line`: of the function in which it waits."""
    code = f"""
import os, signal, sys, threading
from uamqp_cffi.cli import main

lines = []

def trace(frame, event, _):
    if frame.f_code.co_name == "wait" and frame.f_back.f_code.co_name == "_broker" and event == "line":
        lines.append(frame.f_lineno)
        if len(lines) == {line}:
            os.kill(os.getpid(), signal.SIGINT)
    return trace

late = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))  # where there is no such line
late.daemon = True
late.start()
sys.settrace(trace)
sys.exit(main(["broker", "--port", "0", "--quiet"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (130, "")


@posix
@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_broker_serves_until_ctrl_c_and_says_what_it_had(
    start: Callable[..., Command], run: Callable[..., Any], number: int, expected: int
) -> None:
    server = start("broker", "--port", "0")
    assert server.process.stdout is not None
    ready = server.process.stdout.readline()
    assert ready.startswith("ready: amqp://127.0.0.1:")
    server.wait_for_stderr("not for production")
    assert run("send", ready.split()[1] + "/orders", "--count", "7")[0] == 0
    status, out, _, seconds = server.interrupt(number)
    assert status == expected
    assert out.splitlines() == ["stopped: 7 messages had been accepted", "  orders: 7 accepted, 7 still here"]
    assert seconds < 1.5


@posix
def test_broker_stops_at_once_with_clients_connected(start: Callable[..., Command]) -> None:
    server = start("broker", "--port", "0", "--json")
    host, _, port = server.ready().removeprefix("amqp://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"AMQP\x00\x01\x00\x00")
        assert client.recv(8) == b"AMQP\x00\x01\x00\x00"
        status, out, _, seconds = server.interrupt()
    assert (status, json.loads(out)) == (130, {"queues": {}})
    assert seconds < 1.5


def test_broker_ends_with_its_standard_input(start: Callable[..., Command]) -> None:
    server = start("broker", "--port", "0", "--json", "--stop-on-eof", stdin=subprocess.PIPE)
    assert server.ready()
    assert server.finish()[0] == 0  # communicate closes it


def test_broker_that_discards_keeps_nothing(start: Callable[..., Command], run: Callable[..., Any]) -> None:
    server = start("broker", "--port", "0", "--json", "--discard", "--stop-on-eof", stdin=subprocess.PIPE)
    assert run("send", server.ready() + "/q", "--count", "9")[0] == 0
    _, out, _ = server.finish()
    assert json.loads(out) == {"queues": {"q": {"received": 9, "held": 0, "dead": 0}}}


def test_broker_asks_for_the_password_it_was_given(start: Callable[..., Command], run: Callable[..., Any]) -> None:
    server = start("broker", "--port", "0", "--json", "--user", "ann:pass:word")
    url = server.ready().replace("://", "://ann:{}@") + "/q"
    assert run("send", url.format("pass%3Aword"))[0] == 0
    assert run("send", url.format("password"))[0] == 3


def test_broker_with_tls(start: Callable[..., Command], run: Callable[..., Any], tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    server = start("broker", "--port", "0", "--json", "--tls", "cert.pem", "key.pem")
    url = server.ready()
    assert url.startswith("amqps://localhost:")
    assert run("send", url + "/q", "--ca", "ca.pem", "--count", "5")[0] == 0


def test_broker_on_a_port_in_use_ends_with_3(run: Callable[..., Any], broker: Broker) -> None:
    status, out, err = run("broker", "--port", str(broker.port))
    assert (status, out) == (3, "")
    assert only_line(err, "error: ").startswith(f"error: cannot listen on 127.0.0.1:{broker.port}: ")


# ---- decode ----


def test_frames_are_printed_as_the_trace_prints_them(run: Callable[..., Any]) -> None:
    lines = ["AMQP 0.1.0.0", "ch=0 empty", 'ch=0 open(container-id="me" max-frame-size=65536)', "ch=3 close()"]
    status, out, err = run("decode", *(undump(line).hex(" ") for line in lines))
    assert (status, out.splitlines(), err) == (0, lines, "")


def test_decode_reads_standard_input(run: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "frames.hex"
    path.write_text("0x414d5150\n00010000\n\n00 00 00 08 02 00 00 00\n")
    with path.open() as file:
        status, out, err = run("decode", "-", stdin=file)
    assert (status, out, err) == (0, "AMQP 0.1.0.0\nch=0 empty\n", "")


def test_payloads_are_printed_only_on_request(run: Callable[..., Any]) -> None:
    init = undump("sasl-init(mechanism=:PLAIN initial-response=h'00616e6e00736563')").hex()
    hidden = run("decode", init)
    shown = run("decode", "--payload", init)
    assert hidden[0] == shown[0] == 0, hidden
    assert "616e6e" not in hidden[1]
    assert "616e6e" in shown[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("414d5150 00010000 000000", "ends inside a frame, which begins at offset 8 of 11"),
        ("00000008 02000000 0000000b 02000000 005310", "malformed frame at offset 8 of 19"),
        ("0000000b 02000000 005310 0000000b 02000000 005310", "malformed frame at offset 0 of 22 (and 1 more)"),
        ("41 4g", "'g' at offset 4"),
        ("414", "one digit only"),
    ],
)
def test_malformed_input_ends_with_1_and_names_the_place(run: Callable[..., Any], text: str, said: str) -> None:
    status, _, err = run("decode", text)
    assert status == 1
    assert said in only_line(err, "error: ")


# ---- the command itself ----


def test_version_and_help(run: Callable[..., Any]) -> None:
    assert run("--version")[0] == 0
    status, out, _ = run("send", "--help")
    assert status == 0
    assert "130 Ctrl-C" in " ".join(out.split())


def test_the_installed_command_does_the_same(tmp_path: Path) -> None:
    script = shutil.which("uamqp-cffi", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("not installed in this environment")
    command = [script, "decode", "414d515000010000"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "AMQP 0.1.0.0\n", "")
