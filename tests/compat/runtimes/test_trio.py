"""trio, which is not asyncio."""

from __future__ import annotations

from typing import Any


def test_asyncio_classes_under_trio_say_what_to_do(peer: Any, wrong: Any) -> None:
    assert wrong("under_trio.py", peer.url) == {}
