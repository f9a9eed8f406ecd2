"""Filters above each other, with one below that is as awkward as it may be."""

from __future__ import annotations

import pytest

from uamqp_cffi._core.transport.filters.base import TransportError
from uamqp_cffi._core.transport.filters.http_connect import HttpConnect
from uamqp_cffi._core.transport.filters.stack import Stack


class Slow:
    """A filter that changes nothing and takes at most `share` bytes at a time; `tail` goes after each write at the top."""

    def __init__(self, share: int = 1 << 30, tail: bytes = b"") -> None:
        self.share, self.tail = share, tail
        self.ready, self.doing = True, "slow"
        self.eof = self.failing = False
        self.error: TransportError | None = None
        self.out, self.inside = bytearray(), bytearray()
        self.closed = 0

    def feed(self, data) -> None:
        self.inside += data

    def feed_eof(self) -> None:
        if self.error is not None:
            raise self.error

    def read_into(self, room) -> int:
        n = min(len(room), len(self.inside))
        if not n and self.failing:
            raise TransportError("broken")
        room[:n] = self.inside[:n]
        del self.inside[:n]
        return n

    def write(self, data) -> int:
        n = min(self.share, len(data)) if self.ready else 0
        self.out += bytes(data[:n]) + self.tail
        return n

    @property
    def pending(self) -> int:
        return len(self.out)

    def take(self) -> bytes:
        out = bytes(self.out)
        self.out.clear()
        return out

    def close(self) -> None:
        self.closed += 1
        self.out += b"<bye>"


def read(stack: Stack) -> bytes:
    room = memoryview(bytearray(1 << 20))
    return bytes(room[: stack.read_into(room)])


def test_bytes_count_as_taken_when_the_lowest_filter_has_them_all():
    """What counts as taken may be reported as with the kernel once take() has gone there."""
    stack = Stack([Slow(share=4), Slow(tail=b"!")])
    data = memoryview(b"0123456789")
    seen, answers, taken = b"", [], 0
    while not taken:
        taken = stack.write(data)
        answers.append(taken)
        seen += stack._bottom.take()
    assert answers == [0, 0, 10]
    assert seen == b"0123456789!"


def test_what_was_not_taken_is_given_again_and_sent_once():
    stack = Stack([Slow(share=3), Slow(share=5)])
    data, at, seen = bytes(range(100)), 0, b""
    while at < len(data):
        at += stack.write(memoryview(data)[at:])
        seen += stack._bottom.take()
    assert seen == data


def test_take_lets_down_what_is_held():
    stack = Stack([Slow(share=6), Slow()])
    assert stack.write(memoryview(b"0123456789")) == 0
    assert stack.pending
    assert stack.take() == b"0123456789"
    assert not stack.pending
    assert stack.write(memoryview(b"0123456789")) == 10  # it is known now
    assert stack.take() == b""


def test_nothing_sinks_into_a_filter_that_is_not_ready():
    stack = Stack([HttpConnect("h:1"), Slow()])
    assert stack.write(memoryview(b"data")) == 0
    assert stack.take().startswith(b"CONNECT ")
    assert not stack.ready
    assert "proxy" in stack.doing
    stack.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    assert stack.ready
    assert stack.write(memoryview(b"data")) == 4
    assert stack.take() == b"data"


def test_received_bytes_rise_to_the_top_at_once():
    low, high = Slow(), Slow()
    Stack([low, high]).feed(b"x" * 200_000)
    assert (len(low.inside), len(high.inside)) == (0, 200_000)


def test_an_error_below_comes_after_the_bytes_before_it():
    low = Slow()
    stack = Stack([low, Slow()])
    low.failing = True
    stack.feed(b"good")
    assert stack.failing
    assert read(stack) == b"good"
    with pytest.raises(TransportError, match="broken"):
        read(stack)


def test_goodbyes_are_said_from_the_top_and_each_above_the_next():
    low, high = Slow(), Slow()
    stack = Stack([low, high])
    stack.close()
    assert (low.closed, high.closed) == (1, 1)
    assert stack.take() == b"<bye><bye>"


def test_the_end_is_judged_from_the_network_up_unless_the_top_has_said_goodbye():
    low, high = Slow(), Slow()
    stack = Stack([low, high])
    stack.feed_eof()
    low.error, high.error = TransportError("low"), TransportError("high")
    with pytest.raises(TransportError, match="low"):
        stack.feed_eof()
    high.eof = True
    assert stack.eof
    with pytest.raises(TransportError, match="high"):
        stack.feed_eof()
    low.error, high.eof = None, False
    with pytest.raises(TransportError, match="high"):
        stack.feed_eof()
