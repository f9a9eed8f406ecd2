"""Two engines over two byte queues, with a clock that only the test moves."""

from __future__ import annotations

from typing import Any

import pytest

from uamqp_cffi._core.engine import records, values
from uamqp_cffi._core.engine.engine import Engine

OPEN = values.composite("open", container_id=values.enc_str("us"), hostname=values.enc_str("host"))
BEGIN = values.composite(
    "begin",
    next_outgoing_id=values.enc_uint(0),
    incoming_window=values.enc_uint(1000),
    outgoing_window=values.enc_uint(1000),
)


def attach(sender: bool, name: str = "link", **more: bytes) -> bytes:
    address = values.enc_str("q")
    return values.composite(
        "attach",
        name=values.enc_str(name),
        handle=values.enc_uint(0),
        role=values.enc_bool(not sender),
        source=values.described_composite("source", address=address),
        target=values.described_composite("target", address=address),
        **({"initial_delivery_count": values.enc_uint(0)} if sender else {}),
        **more,
    )


class Loopback:
    """`run()` carries bytes both ways until neither side has any; what happened is in `client_got` and `server_got`.
    The server answers opens, begins and attaches by itself unless told otherwise."""

    def __init__(self, answer: bool = True, client: Engine | None = None) -> None:
        self.client = client or Engine()
        self.server = Engine(server=True)
        self.now = 1000
        self.answer = answer
        self.client_got: list[records.Record] = []
        self.server_got: list[records.Record] = []
        self.client_got += self.client.step(self.now)
        self.server.step(self.now)
        self.kernel = {self.client: 0, self.server: 0}

    def _carry(self, source: Engine, sink: Engine, limit: int | None) -> tuple[int, list[records.Record]]:
        out = bytes(source.output()[:limit])
        got: list[records.Record] = []
        at = 0
        while at < len(out):
            n = min(len(sink.in_view), len(out) - at)
            sink.in_view[:n] = out[at : at + n]
            got += sink.step(self.now, n, 0, self.kernel[sink])
            at += n
        self.kernel[source] += len(out)
        mine = source.step(self.now, 0, len(out), self.kernel[source])
        (self.client_got if source is self.client else self.server_got).extend(mine)
        return len(out), got

    def run(self, limit: int | None = None) -> None:
        """Carry until quiet; `limit` bytes at a time."""
        while True:
            sent, got = self._carry(self.client, self.server, limit)
            self.server_got += got
            if self.answer:
                for record in got:
                    self.reply(record)
            back, got = self._carry(self.server, self.client, limit)
            self.client_got += got
            if not sent and not back:
                return

    def reply(self, record: records.Record) -> None:
        if isinstance(record, records.Open):
            self.server.open(OPEN)
        elif isinstance(record, records.Begin):
            self.server.begin(BEGIN, record.session)
        elif isinstance(record, records.Attach):
            self.server.attach(record.session, attach(record.sender, record.fields["name"]), record.link)

    def tick(self, milliseconds: int) -> None:
        """Let time pass on both sides, with nothing to read."""
        self.now += milliseconds
        self.client_got += self.client.step(self.now, flushed=self.kernel[self.client], dry=True)
        self.server_got += self.server.step(self.now, flushed=self.kernel[self.server], dry=True)

    def take(self, kind: type[Any]) -> list[Any]:
        """What the client got of this kind, taken out."""
        found = [record for record in self.client_got if isinstance(record, kind)]
        self.client_got = [record for record in self.client_got if not isinstance(record, kind)]
        return found

    def seen(self, kind: type[Any]) -> list[Any]:
        """What the server got of this kind."""
        return [record for record in self.server_got if isinstance(record, kind)]

    def attached(self, credit: int = 100, sender: bool = True) -> int:
        """Open, begin, attach; gives the client's link. The receiving side grants `credit`."""
        self.client.open(OPEN)
        session = self.client.begin(BEGIN)
        link = self.client.attach(session, attach(sender))
        self.run()
        if credit and sender:
            self.server.flow(self.seen(records.Attach)[-1].link, credit)
            self.run()
        return link


@pytest.fixture
def loopback() -> type[Loopback]:
    return Loopback


@pytest.fixture
def performatives() -> dict[str, Any]:
    return {"open": OPEN, "begin": BEGIN, "attach": attach}
