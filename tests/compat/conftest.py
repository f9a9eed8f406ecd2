"""Published packages on top of ours, each in a virtual environment of its own.

They are downloaded from PyPI, so these tests run only when UAMQP_COMPAT is set, and are skipped, with the reason, when PyPI
cannot be reached. UAMQP_CFFI_WHEEL may name a wheel of ours to test; without it one is built from the source tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AZURE = ["azure-eventhub==5.15.1", "azure-servicebus==7.15.0", "azure-iot-hub==2.7.0", "aiohttp>=3.9"]
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("compat")
            if not os.environ.get("UAMQP_COMPAT"):
                item.add_marker(pytest.mark.skip(reason="UAMQP_COMPAT is not set: downloads packages from PyPI"))


class Venv:
    """A virtual environment with the packages that were asked for."""

    def __init__(self, path: Path) -> None:
        venv.create(path, with_pip=True, symlinks=os.name != "nt")
        self.path = path
        self.python = str(path / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """What its Python prints on standard output; fails the test with standard error when it exits with an error."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "PIP_QUIET"}
        done = subprocess.run(
            [self.python, *arguments], cwd=self.path, env=env, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pip(self, *arguments: str) -> str:
        return self.run(*PIP, *arguments)


@pytest.fixture(scope="session")
def pypi(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips what wants PyPI when it cannot be reached."""
    folder = tmp_path_factory.mktemp("probe")
    probe = [sys.executable, *PIP, "download", "-q", "--no-deps", "--retries", "1", "-d", str(folder), "iniconfig"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"PyPI cannot be reached: {(done.stderr.splitlines() or ['pip failed'])[-1]}")


@pytest.fixture(scope="session")
def wheels(pypi: None, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Wheels of both distributions, `uamqp-cffi` and `uamqp`."""
    folder = tmp_path_factory.mktemp("wheels")
    given = os.environ.get("UAMQP_CFFI_WHEEL")
    sources = [str(ROOT / "compat"), *([] if given else [str(ROOT)])]
    build = [sys.executable, *PIP, "wheel", "-q", "--no-deps", "-w", str(folder), *sources]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [*map(str, folder.glob("*.whl")), *([given] if given else [])]


@pytest.fixture(scope="session")
def fresh_venv(wheels: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Venv]:
    """Makes a virtual environment in which both distributions of ours are, and the requirements given."""

    def make(*requirements: str) -> Venv:
        made = Venv(tmp_path_factory.mktemp("venv") / "env")
        made.pip("install", "-q", *wheels)
        if requirements:
            made.pip("install", "-q", *requirements)
        return made

    return make


@pytest.fixture(scope="session")
def azure_venv(fresh_venv: Callable[..., Venv]) -> Venv:
    """The one with Azure's packages: making it takes most of a minute."""
    return fresh_venv(*AZURE)
