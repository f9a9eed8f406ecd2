"""What type checkers see: every public name has a type, a program that is right passes, and each mistake of another is found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Venv

PROGRAMS = Path(__file__).parent / "typed"
MISTAKES = {
    number
    for number, line in enumerate((PROGRAMS / "wrong.py").read_text().splitlines(), 1)
    if line.endswith("# wrong")
}


@pytest.fixture(scope="module")
def checked(fresh_venv: Callable[..., Venv]) -> Venv:
    """A virtual environment with the package and mypy."""
    return fresh_venv("mypy==2.4.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are; pyright looks at none that is in a virtual environment."""
    made = tmp_path_factory.mktemp("programs")
    for program in PROGRAMS.glob("*.py"):
        shutil.copy(program, made)
    return made


@pytest.fixture(scope="module")
def pyright(checked: Venv, folder: Path) -> Callable[..., str]:
    """Runs pyright, from npm, strict, in that folder."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm to get pyright with")
    get = [npm, "install", "--silent", "--no-audit", "--no-fund", "--no-save", "pyright@1.1.414"]
    done = subprocess.run(get, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (folder / "pyrightconfig.json").write_text(json.dumps({"include": ["*.py"], "typeCheckingMode": "strict"}))

    def run(*arguments: str) -> str:
        env = {**os.environ, "PATH": str(Path(checked.python).parent) + os.pathsep + os.environ["PATH"]}
        command = [str(folder / "node_modules" / ".bin" / "pyright"), *arguments]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120).stdout

    return run


def mypy(env: Venv, folder: Path, program: str) -> str:
    command = [env.python, "-m", "mypy", "--strict", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120).stdout


def lines_with_errors(output: str) -> set[int]:
    return {int(number) for number in re.findall(r"wrong\.py:(\d+):[\d: -]*error", output)}


def test_mypy_has_nothing_to_say_of_a_right_program(checked: Venv, folder: Path) -> None:
    assert mypy(checked, folder, "right.py").startswith("Success")


def test_mypy_finds_every_mistake(checked: Venv, folder: Path) -> None:
    assert lines_with_errors(mypy(checked, folder, "wrong.py")) == MISTAKES


def test_pyright_finds_every_mistake_and_no_other(pyright: Callable[..., str]) -> None:
    output = pyright()
    assert lines_with_errors(output) == MISTAKES
    assert "right.py:" not in output


def test_every_public_name_has_a_type(pyright: Callable[..., str]) -> None:
    output = pyright("--ignoreexternal", "--verifytypes", "uamqp_cffi")
    assert "Type completeness score: 100%" in output, output[-3000:]
