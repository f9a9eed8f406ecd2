"""What `pip install` leaves behind. These tests are about the installed package, not about the source tree."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import uamqp_cffi

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(uamqp_cffi.__file__).resolve().parent


def run(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_the_tests_run_against_the_installed_package() -> None:
    site = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    assert PACKAGE.parent in site


def test_the_version_is_the_distributions() -> None:
    assert uamqp_cffi.__version__ == importlib.metadata.version("uamqp-cffi")


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_an_index_page_says_where_the_project_is_and_that_it_is_typed() -> None:
    metadata = importlib.metadata.metadata("uamqp-cffi")
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL") or ())
    assert urls.keys() == {"Source", "Issues", "Changelog", "Documentation"}
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    assert {"Typing :: Typed", "Framework :: AsyncIO"} <= set(metadata.get_all("Classifier") or ())
    assert {"amqp", "rabbitmq", "azure-service-bus", "asyncio"} <= set(metadata["Keywords"].split(","))


def test_python_in_the_folder_that_the_readme_names_finds_what_is_installed() -> None:
    assert "start Python in another folder, with `cd docs && ../.venv/bin/python`" in (ROOT / "README.md").read_text(
        "utf-8"
    )
    done = run("import uamqp_cffi.client; print(uamqp_cffi.__file__)", cwd=ROOT / "docs")
    assert Path(done.strip()).resolve().parent == PACKAGE


@pytest.mark.skipif(
    any((ROOT / "uamqp_cffi" / "_core").glob("_uam.*")), reason="the extension is built in the source tree"
)
def test_python_in_the_source_tree_says_where_to_go() -> None:
    command = [sys.executable, "-c", "import uamqp_cffi.client"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "is part of a source tree" in done.stderr and "start Python in another folder" in done.stderr


def test_the_console_command_is_the_module() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="uamqp-cffi")
    assert [script.value for script in scripts] == ["uamqp_cffi.cli:main"]


def test_the_tests_and_the_c_sources_are_not_installed() -> None:
    assert {path.name for path in PACKAGE.iterdir()}.isdisjoint({"tests", "csrc", "build_ffi.py"})


def test_import_leaves_out_what_not_everybody_needs(tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); from uamqp_cffi import SendClient; print(*set(sys.modules) - before)"
    loaded = set(run(code, tmp_path).split())
    assert "uamqp_cffi._core.engine.engine" in loaded
    heavy = {"asyncio", "h11", "wsproto", "certifi", "rich", "argparse", "multiprocessing", "pytest"}
    if sys.version_info >= (3, 11) and sys.implementation.name == "cpython":  # else Python's own uuid loads it
        heavy.add("subprocess")
    ours = {"uamqp_cffi.broker", "uamqp_cffi.cli", "uamqp_cffi.async_ops"}
    assert loaded & (heavy | ours) == set()


def test_every_public_name_can_be_imported() -> None:
    missing = [name for name in uamqp_cffi.__all__ if not hasattr(uamqp_cffi, name)]
    assert missing == []


@pytest.mark.parametrize("arguments", [["-m", "uamqp_cffi"], ["-P", "-m", "uamqp_cffi"]])
def test_the_module_runs_as_a_command(arguments: list[str], tmp_path: Path) -> None:
    if "-P" in arguments and sys.version_info < (3, 11):
        arguments = arguments[1:]
    command = [sys.executable, *arguments, "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"uamqp-cffi {uamqp_cffi.__version__}\n")


def test_one_module_is_the_door_to_c() -> None:
    def who_imports(*names: str) -> list[str]:
        found = []
        for path in PACKAGE.rglob("*.py"):
            nodes = [
                node
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                if isinstance(node, (ast.Import, ast.ImportFrom))
            ]
            imported = {alias.name for node in nodes for alias in node.names}
            imported |= {part for node in nodes for part in (getattr(node, "module", None) or "").split(".")}
            if not imported.isdisjoint(names):
                found.append(path.relative_to(PACKAGE).as_posix())
        return sorted(found)

    assert who_imports("_uam", "cffi", "_cffi_backend") == ["_core/engine/lib.py"]
    assert who_imports("ffi") == ["_core/engine/engine.py", "_core/engine/events.py", "_core/engine/lib.py"]
