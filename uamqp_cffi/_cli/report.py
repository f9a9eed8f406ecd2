"""What came of sending, in numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .text import _ms

_NEGATIVE = {0x25: "rejected", 0x26: "released", 0x27: "modified"}  # descriptors of §3.4


# ---- latency ----


class Latencies:
    """A histogram of seconds in steps of 1 %, so that memory does not grow with what is measured.

    >>> seen = Latencies()
    >>> seen.add(0.001, 99)
    >>> seen.add(0.5, 1)
    >>> round(seen.percentile(50), 4), seen.max
    (0.001, 0.5)
    """

    _STEP = math.log(1.01)

    def __init__(self) -> None:
        self.max = 0.0
        self.count = 0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float, times: int = 1) -> None:
        """`times` messages took `seconds` each."""
        self._buckets[int(math.log(max(seconds, 1e-7)) / self._STEP)] += times
        self.count += times
        self.max = max(self.max, seconds)

    def percentile(self, p: float) -> float:
        """Seconds that `p` percent of all did not exceed, within 1 %."""
        wanted = math.ceil(self.count * p / 100)
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(math.exp(bucket * self._STEP), self.max)
        return self.max


class Report:
    """What became of the messages."""

    def __init__(self) -> None:
        self.accepted = self.sent_settled = self.rejected = self.released = self.modified = self.failed = 0
        self.handed_over = self.bytes = 0
        self.not_sent: int | None = 0  # never handed to the client; None: nobody knows how many there would have been
        self.unconfirmed = self.maybe_delivered = 0
        self.seconds = 0.0
        self.latencies = Latencies()
        self.reasons: Counter[str] = Counter()

    @property
    def begun(self) -> bool:
        return self.handed_over > 0

    @property
    def good(self) -> int:
        return self.accepted + self.sent_settled

    @property
    def done(self) -> int:
        return self.good + self.rejected + self.released + self.modified + self.failed

    def so_far(self) -> str:
        return f"{self.done:,} messages confirmed, {self.unconfirmed:,} not"

    def rate(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    def as_json(self, url: str, error: str | None, exit_status: int) -> dict[str, Any]:
        seen = self.latencies
        latency = {f"p{p}": round(seen.percentile(p) * 1000, 3) for p in (50, 90, 99)}
        latency["max"] = round(seen.max * 1000, 3)
        return {
            "url": url,
            "handed_over": self.handed_over,
            "accepted": self.accepted,
            "sent_settled": self.sent_settled,
            "rejected": self.rejected,
            "released": self.released,
            "modified": self.modified,
            "failed": self.failed,
            "unconfirmed": self.unconfirmed,
            "maybe_delivered": self.maybe_delivered,
            "not_sent": self.not_sent,
            "reasons": dict(self.reasons),
            "bytes": self.bytes,
            "seconds": round(self.seconds, 6),
            "messages_per_second": round(self.rate(), 1),
            "latency_ms": latency if seen.count else None,
            "error": error,
            "exit_status": exit_status,
        }

    def lines(self, settled: bool, window: int) -> Iterator[str]:
        """The report for people."""
        counts = [("sent settled", self.sent_settled)] if settled else [("accepted", self.accepted)]
        if not settled:
            counts += [("rejected", self.rejected), ("released", self.released), ("modified", self.modified)]
        if self.failed:
            counts.append(("failed", self.failed))
        if self.unconfirmed:
            counts.append(("unconfirmed", self.unconfirmed))
        if self.not_sent:
            counts.append(("not sent", self.not_sent))
        for name, n in counts:
            yield f"  {name:<13}{n:>13,}" + self._remark(name)
        for reason, n in self.reasons.most_common(5):
            yield f"    {n:,} x {reason}"
        if self.done:
            size = self.bytes / max(self.handed_over, 1) * self.rate() / 1e6
            yield f"  {'rate':<13}{self.rate():>13,.0f} messages/s, {size:,.1f} MB/s of bodies, {self.seconds:.2f} s"
        if seen := self.latencies if self.latencies.count else None:
            figures = "   ".join(f"p{p} {_ms(seen.percentile(p))}" for p in (50, 90, 99))
            yield f"  {'latency':<13}{figures}   max {_ms(seen.max)}"
            yield f"  {'':<13}(hand-over to the client until the outcome was seen; at most {window:,} in flight)"

    def _remark(self, name: str) -> str:
        if name == "sent settled":
            return "   (with the kernel; no outcome was asked for)"
        if name == "unconfirmed" and self.unconfirmed:
            kept = self.unconfirmed - self.maybe_delivered
            return f"   ({self.maybe_delivered:,} may have arrived, {kept:,} did not leave)"
        return ""
