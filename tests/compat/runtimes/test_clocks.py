"""Deadlines while a test tool stops the clock."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("tool, when", [("freezegun", "before"), ("freezegun", "inside"), ("time_machine", "inside")])
def test_time_outs_end_and_nothing_ends_early_while_the_clock_stands(
    tool: str, when: str, peer: Any, silent: str, wrong: Any
) -> None:
    assert wrong("clocks.py", peer.url, silent, tool, when) == {}
