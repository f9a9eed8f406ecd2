"""The clocks of deadlines: test tools that stop the module `time` do not reach them. (The tools themselves: tests/compat.)"""

from __future__ import annotations

import ast
import sys
import time
from pathlib import Path

import pytest

import uamqp_cffi
from uamqp_cffi import ReceiveClient
from uamqp_cffi._core import time as ours
from uamqp_cffi.broker import Broker

CLOCKS = ("monotonic", "monotonic_ns", "perf_counter")


def stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What freezegun does: stopped clocks in `time`, and wherever a module of ours has one of them by itself."""
    stopped = {id(getattr(time, name)): (name, float) for name in CLOCKS}
    for module in [m for name, m in sys.modules.items() if name == "time" or name.startswith("uamqp_cffi")]:
        for name, value in list(vars(module).items()):
            if id(value) in stopped:
                monkeypatch.setattr(module, name, stopped[id(value)][1])


def test_they_go_on_when_those_of_the_module_time_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stop(monkeypatch)
    assert time.monotonic() == 0
    assert 0 < ours.monotonic() <= ours.monotonic() and ours.monotonic_ns() > 0 and ours.perf_counter() > 0


def test_they_are_the_same_clocks() -> None:
    before, now, after = time.monotonic(), ours.monotonic(), time.monotonic()
    assert before <= now <= after


def test_a_time_out_ends_while_the_clock_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker, ReceiveClient(broker.url + "/q", timeout=50) as client:
        stop(monkeypatch)
        assert client.receive_message_batch(1) == []
        monkeypatch.undo()


def test_no_module_has_deadlines_by_another_clock() -> None:
    """`time` is imported from the standard library only for the date."""
    folder = Path(uamqp_cffi.__file__).parent
    wrong = []
    for file in folder.rglob("*.py"):
        if file == folder / "_core" / "time.py":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(n, ast.Import) and any(a.name == "time" for a in n.names) for n in ast.walk(tree)):
            used = {
                n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "time"
            }
            wrong += [(file.name, name) for name in sorted(used - {"time"})]
        wrong += [
            (file.name, "from time")
            for n in ast.walk(tree)
            if isinstance(n, ast.ImportFrom) and n.module == "time" and not n.level
        ]
    assert wrong == [], "import `time` from `_core`"
