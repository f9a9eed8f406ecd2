"""The embedded broker in a process of its own, which counts by body what it got, and what the parent can ask of it.

As a program: commands come in as lines of JSON, each is answered by one. In a process of its own no interrupt reaches it, and
what it says of a message does not rest on what the client's process remembers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from typing import Any


class Peer:
    """The parent's side."""

    def __init__(self, **settings: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C of a terminal is not for it
        )
        self.url: str = self._read()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *args: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the broker's process has ended: {self._process.wait(10)}")
        return json.loads(line)

    def _ask(self, *what: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._read()

    def got(self, prefix: str) -> Counter[str]:
        """How often each body that begins so came in; forgets them."""
        return Counter(self._ask("got", prefix))

    def put(self, queue: str, *bodies: str) -> None:
        self._ask("put", queue, bodies)

    def ready(self, queue: str) -> list[str]:
        """What is in the queue and nobody holds."""
        return list(self._ask("ready", queue))

    def forget(self, queue: str) -> None:
        self._ask("forget", queue)

    def drop(self) -> None:
        """End the transport of every connection without a word."""
        self._ask("drop")

    def script(self, queue: str, **script: Any) -> None:
        self._ask("script", queue, script)

    def connections(self, seconds: float = 3.0) -> int:
        """How many connections there are: none, as soon as there are none, or what there is after that time."""
        end = time.monotonic() + seconds
        while (left := self._ask("connections")) and time.monotonic() < end:
            time.sleep(0.002)  # nothing tells when the broker's thread has seen the end of a socket
        return int(left)


def _serve() -> None:
    from uamqp_cffi.broker import Broker

    settings = json.loads(sys.argv[1])
    counted = settings.pop("counted")
    got: Counter[str] = Counter()

    def count(message: Any) -> str | None:
        body = b"".join(message.get_data()).decode()
        if body.endswith("!"):
            return "rejected"
        got[body] += 1
        return None

    with Broker(scripts=dict.fromkeys(counted, count), **settings) as broker:
        print(json.dumps(broker.url), flush=True)
        for line in sys.stdin:
            what, *args = json.loads(line)
            answer: Any = None
            if what == "got":
                answer = {body: n for body, n in list(got.items()) if body.startswith(args[0])}
                for body in answer:
                    del got[body]
            elif what == "put":
                for body in args[1]:
                    broker.put(args[0], body)
            elif what == "ready":
                answer = [b"".join(message.get_data()).decode() for message in broker.messages(args[0])]
            elif what == "forget":
                broker.purge(args[0])
            elif what == "drop":
                broker.drop_connections()
            elif what == "script":
                broker.script(args[0], **args[1])
            elif what == "connections":
                answer = broker.connections
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
