"""The layout: imports go down, and no file has grown beyond what one reads in one go. All imports count, also those inside
functions and those for types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import uamqp_cffi

ROOT = Path(uamqp_cffi.__file__).parent
NAME = ROOT.name
FILES = {
    ".".join((NAME, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}

# Those that are left; one that is gone is struck from here. `Connection._conn`, a private name of uamqp's, gives the native view.
CIRCLES = {frozenset({"connection", "_plumbing.connections"})}

LONG = {  # no further ones
    "_client.base",
    "_client.receive",
    "_client.send",
    "_message.message",
    "async_ops.connection_async",
    "connection",
    "errors",
}
ABOVE = {"uamqp_cffi._core.engine.sections imports uamqp_cffi.errors"}  # what it raises is public


def _imports(module: str, path: Path) -> Iterator[str]:
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                if name in FILES or base in FILES:
                    yield name if name in FILES else base


GRAPH = {module: set(_imports(module, path)) - {module} for module, path in FILES.items()}
GRAPH[NAME] = set()  # loads names when they are used


def _reached(start: str) -> set[str]:
    seen: set[str] = set()
    left = [*GRAPH[start]]
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left += GRAPH[module]
    return seen


def test_the_graph_is_the_package() -> None:
    assert len(GRAPH) > 100
    assert "uamqp_cffi._core.engine.lib" in GRAPH["uamqp_cffi._core.engine.engine"]
    assert "uamqp_cffi._core.engine.lib" in _reached("uamqp_cffi.client")


def test_imports_go_round_in_no_circle() -> None:
    reached = {module: _reached(module) for module in GRAPH}
    circles = {
        frozenset(other.removeprefix(f"{NAME}.") for other in reached[module] if module in reached[other])
        for module in GRAPH
        if module in reached[module]
    }
    assert circles == CIRCLES


def test_the_core_knows_nothing_above_it() -> None:
    core = f"{NAME}._core"
    above = {
        f"{module} imports {other}"
        for module in GRAPH
        if module.startswith(core)
        for other in GRAPH[module]
        if not other.startswith(core) and other != NAME
    }
    assert above == ABOVE


def test_only_the_clients_import_the_face_of_the_compiled_module() -> None:
    who = {module for module, others in GRAPH.items() if f"{NAME}.c_uamqp" in others}
    assert who == {f"{NAME}.client", f"{NAME}.async_ops.client_async"}


def test_no_file_is_longer_than_600_lines() -> None:
    long = {
        module.removeprefix(f"{NAME}.")
        for module, path in FILES.items()
        if len(path.read_text("utf-8").splitlines()) > 600
    }
    assert long - LONG == set()
