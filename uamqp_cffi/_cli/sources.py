"""Where bodies come from."""

from __future__ import annotations

import math
import os
import stat
from collections import deque
from typing import IO

from .text import GaveUp

MAX_LINE = 64 << 20
_BLOCK = 1 << 18  # bytes of bodies read, or handed over, at once


class Repeated:
    """The same body `count` times."""

    def __init__(self, body: bytes, count: int) -> None:
        self.total: int | None = count
        self._body = body
        self._left = count
        self._at_once = max(1, _BLOCK // max(1, len(body)))

    def ready(self) -> bool:
        return True

    def take(self, n: int) -> list[bytes]:
        """The next bodies, `n` at most; none at the end."""
        n = min(n, self._left, self._at_once)
        self._left -= n
        return [self._body] * n

    @property
    def left(self) -> int | None:
        return self._left

    def close(self) -> None:
        """Nothing was opened."""


class Lines:
    """The lines of a file, pipe or terminal, without their line ends; read as they come, one block at a time."""

    def __init__(self, file: IO[bytes], count: int | None) -> None:
        self.total = count
        self._file = file
        self._plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        self._limit = math.inf if count is None else count
        self._lines: deque[bytes] = deque()
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._taken = 0
        self._ended = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def ready(self) -> bool:
        """Whether `take` would not have to wait."""
        if self._lines or self._plain or self._ended or os.name == "nt":
            return True
        import select

        poll = select.poll()
        poll.register(self._file.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def take(self, n: int) -> list[bytes]:
        """The next lines, `n` at most; none at the end or when only part of a line is there so far. Raises GaveUp
        for a line too long to be a message."""
        if not self._lines and not self._ended:
            self._read()
        n = int(min(n, len(self._lines), self._limit - self._taken))
        self._taken += n
        return [self._lines.popleft() for _ in range(n)]

    def _read(self) -> None:
        try:
            block = self._file.read(_BLOCK)
        except OSError as exc:
            raise GaveUp(f"cannot read line {self._taken + 1:,}: {exc.strerror or exc}") from exc
        if block:
            head, newline, tail = block.rpartition(b"\n")
            if newline:
                lines = b"".join((*self._rest, head)).split(b"\n")
                self._lines.extend(line[:-1] if line.endswith(b"\r") else line for line in lines)
                self._rest, self._rest_size = [], 0
            self._rest.append(tail)
            self._rest_size += len(tail)
            if self._rest_size > MAX_LINE:
                raise GaveUp(f"line {self._taken + 1:,} is longer than {MAX_LINE >> 20} MiB")
        else:
            self._ended = True
            if last := b"".join(self._rest):
                self._lines.append(last)

    @property
    def left(self) -> int | None:
        """0 at the end; before it nobody knows."""
        if self._taken >= self._limit or (self._ended and not self._lines):
            return 0
        return None
