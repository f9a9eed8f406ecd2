"""The parts of the command that need no broker."""

from __future__ import annotations

import gc
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from uamqp_cffi import Message, cli
from uamqp_cffi._cli import decode, report, run, sources
from uamqp_cffi._cli import text as text_module
from uamqp_cffi.broker import Broker


def lines_of(path: Path, count: int | None = None) -> list[bytes]:
    with path.open("rb", buffering=0) as file:
        source = sources.Lines(file, count)
        out: list[bytes] = []
        while source.left != 0:
            out += source.take(2)
        return out


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"one", [b"one"]),
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\r\ntwo\r\n", [b"one", b"two"]),
        (b"\n\nx\n", [b"", b"", b"x"]),
        (b"a line longer than any block\nb\n\xff\xfe", [b"a line longer than any block", b"b", b"\xff\xfe"]),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 7, 1000])
def test_lines_do_not_depend_on_where_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: list[bytes], block: int
) -> None:
    monkeypatch.setattr(sources, "_BLOCK", block)
    path = tmp_path / "lines"
    path.write_bytes(content)
    assert lines_of(path) == expected


def test_lines_stop_at_the_count(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"1\n2\n3\n4\n5\n")
    assert lines_of(path, count=3) == [b"1", b"2", b"3"]


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"short\n" + b"x" * 100)
    monkeypatch.setattr(sources, "MAX_LINE", 50)
    monkeypatch.setattr(sources, "_BLOCK", 7)
    with pytest.raises(text_module.GaveUp, match="line 2 is longer"):
        lines_of(path)


@pytest.mark.skipif(os.name == "nt", reason="pipes cannot be polled there")
def test_a_pipe_is_ready_only_when_something_is_in_it() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as file:
        source = sources.Lines(file, None)
        assert not source.ready()
        os.write(write_end, b"hel")
        assert source.ready()
        assert source.take(10) == []
        assert source.left is None
        os.write(write_end, b"lo\nwor")
        assert source.take(10) == [b"hello"]
        os.close(write_end)
        assert source.take(10) == [b"wor"]
        assert source.left == 0


def test_percentiles_are_within_two_percent_of_exact_ones() -> None:
    rng = random.Random(1)
    values = [rng.expovariate(1000) for _ in range(5000)]
    seen = report.Latencies()
    for value in values:
        seen.add(value)
    values.sort()
    for p in (1, 50, 90, 99):
        exact = values[len(values) * p // 100 - 1]
        assert seen.percentile(p) == pytest.approx(exact, rel=0.02)
    assert seen.percentile(100) == seen.max == values[-1]


def test_percentiles_weigh_by_messages_and_not_by_looks() -> None:
    seen = report.Latencies()
    seen.add(1.0)
    seen.add(0.001, 999)
    assert seen.percentile(99) == pytest.approx(0.001, rel=0.02)
    assert seen.max == 1.0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqps://user:secret@host:5671/q", "amqps://user:***@host:5671/q"),
        ("amqps://user:se%40cret@host/q?x=1", "amqps://user:***@host/q?x=1"),
        ("amqps://user:se@cret@host/q", "amqps://user:***@host/q"),
        ("amqps://user@host/q", "amqps://user@host/q"),
        ("amqps://host/q", "amqps://host/q"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert run.masked(url) == shown


def test_words_of_the_peer_cannot_steer_the_terminal() -> None:
    assert text_module.printable("full\x1b[2J\nof\u202eit") == r"full\x1b[2J\nof\u202eit"


@pytest.mark.parametrize(
    ("text", "offset"),
    [("zz", 0), ("0x41 4g", 6), ("  41\n4\u0661", 6)],
)
def test_bad_hexadecimal_is_named_by_its_offset(text: str, offset: int) -> None:
    with pytest.raises(ValueError, match=f"at offset {offset} is no hexadecimal digit"):
        decode.unhex(text)


def test_half_a_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="one digit only"):
        decode.unhex("41 4")


def test_large_bodies_are_handed_over_few_at_a_time() -> None:
    source = sources.Repeated(b"x" * 100_000, 5)
    assert [len(source.take(500)) for _ in range(4)] == [2, 2, 1, 0]
    assert source.left == 0


def sent(*arguments: str) -> Message:
    """The message that `uamqp-cffi send` sends with these arguments."""
    with Broker() as broker:
        assert cli.main(["send", f"{broker.url}/q", "--no-tls", "--body", "x", *arguments]) == 0
        (message,) = broker.messages("q")
    return message


def test_send_makes_durable_messages() -> None:
    message = sent()
    assert message.header is not None
    assert message.header.durable is True
    assert (message.properties, message.application_properties, str(message)) == (None, None, "x")


def test_send_makes_messages_that_are_not_durable_when_told() -> None:
    assert sent("--no-durable").encode_message() == Message(b"x").encode_message()


def test_send_knows_properties_and_header() -> None:
    message = sent(
        "--subject", "s", "--property", "message-id=7", "--property", "creation-time=5", "--property", "reply_to=a=b",
        "--app-property", "k=v", "--app-property", "empty=", "--ttl", "60000", "--priority", "9",
    )  # fmt: skip
    assert message.header is not None
    assert (message.header.durable, message.header.ttl, message.header.priority) == (True, 60000, 9)
    properties = message.properties
    assert properties is not None
    assert (properties.subject, properties.message_id) == (b"s", b"7")
    assert (properties.creation_time, properties.reply_to) == (5, b"a=b")
    assert message.application_properties == {b"k": b"v", b"empty": b""}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--property", "colour=red"), "--property colour: there is no such property, but message-id"),
        (("--property", "creation-time=now"), "--property creation-time: a number is wanted, not 'now'"),
        (("--property", "group-sequence=-1"), "group_sequence"),
        (("--property", "subject"), "NAME=VALUE is wanted"),
        (("--app-property", "=x"), "NAME=VALUE is wanted"),
        (("--priority", "256"), "256 does not fit"),
        (("--ttl", "4294967296"), "4294967296 does not fit"),
    ],
)
def test_properties_that_cannot_be_are_wrong_usage(
    arguments: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["send", "amqp://localhost:1/q", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_the_file_that_is_sent_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"1\n2\n")
    with Broker() as broker, warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        unraisable: list[Any] = []
        hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
        try:
            assert cli.main(["send", f"{broker.url}/q", "--no-tls", "--file", str(path)]) == 0
            with pytest.raises(SystemExit):
                cli.main(["send", f"{broker.url}/q", "--no-tls", "--file", str(path), "--priority", "256"])
            gc.collect()
        finally:
            sys.unraisablehook = hook
        assert [str(message) for message in broker.messages("q")] == ["1", "2"]
    assert [problem for problem in unraisable if issubclass(problem.exc_type, ResourceWarning)] == []
