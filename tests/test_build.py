"""What the package says of how it was built, and what it says when its extension module does not load."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

import uamqp_cffi
from uamqp_cffi import _build
from uamqp_cffi._core import engine

PACKAGE = Path(uamqp_cffi.__file__).resolve().parent
EXTENSION = Path(engine.EXTENSION).name


def test_build_info_names_version_compiler_abi_and_tls() -> None:
    info = uamqp_cffi.build_info()
    assert info["version"] == uamqp_cffi.__version__
    assert info["compiler"].split()[0] in ("gcc", "clang", "msvc")
    assert info["tls"] == ssl.OPENSSL_VERSION
    assert Path(info["extension"]).parent == PACKAGE / "_core"
    assert (info["python"], info["platform"]) == (_build.python_tag(), _build.platform_tag())


def test_the_abi_is_abi3_where_python_has_a_limited_api() -> None:
    limited = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
    assert uamqp_cffi.build_info()["abi"] == ("cp310-abi3" if limited else _build.python_tag())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of modules elsewhere have no abi3")
def test_the_extension_is_named_for_its_abi() -> None:
    if uamqp_cffi.build_info()["abi"] == "cp310-abi3":
        assert EXTENSION.endswith((".abi3.so", f".abi3-{sysconfig.get_config_var('MULTIARCH')}.so"))
    else:
        assert EXTENSION.endswith(str(sysconfig.get_config_var("EXT_SUFFIX")))


def test_the_platform_tag_is_the_one_of_wheels() -> None:
    assert _build.platform_tag().split()[0] == sysconfig.get_platform().replace("-", "_").replace(".", "_")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has several C libraries")
@pytest.mark.parametrize(
    ("known", "said"), [(("", ""), "(musl)"), (("libc", ""), "(musl)"), (("glibc", "2.36"), "(glibc 2.36)")]
)
def test_the_platform_tag_names_the_c_library(
    monkeypatch: pytest.MonkeyPatch, known: tuple[str, str], said: str
) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: known)
    monkeypatch.setattr(_build, "_has_musl", lambda: True)
    assert _build.platform_tag().split(" ", 1)[1] == said


@pytest.fixture
def load(tmp_path: Path) -> Callable[[], str]:
    """Imports the copy of the package in `tmp_path` in a process of its own and gives the error's last line."""
    shutil.copytree(PACKAGE, tmp_path / "uamqp_cffi", ignore=shutil.ignore_patterns("__pycache__"))

    def load() -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from uamqp_cffi import SendClient"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        return done.stderr.strip().splitlines()[-1]

    return load


def assert_names_all(line: str) -> None:
    assert line.startswith("ImportError: uamqp_cffi cannot load its extension module")
    assert _build.python_tag() in line
    assert _build.platform_tag() in line
    assert "pip install" in line


def test_a_missing_extension_is_named(load: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "uamqp_cffi" / "_core" / EXTENSION).unlink()
    line = load()
    assert_names_all(line)
    assert f"uamqp_cffi._core._uam is not in {tmp_path / 'uamqp_cffi' / '_core'}" in line


def test_an_extension_for_another_python_is_named(load: Callable[[], str], tmp_path: Path) -> None:
    core = tmp_path / "uamqp_cffi" / "_core"
    other = f"_uam.cp399-other{Path(EXTENSION).suffix}"
    (core / EXTENSION).rename(core / other)
    line = load()
    assert_names_all(line)
    assert f"only {other}, built for another" in line


def test_an_extension_that_is_no_library_is_named(load: Callable[[], str], tmp_path: Path) -> None:
    broken = tmp_path / "uamqp_cffi" / "_core" / EXTENSION
    broken.write_bytes(b"not for this machine")
    line = load()
    assert_names_all(line)
    assert broken.name in line


def test_a_missing_cffi_is_named(load: Callable[[], str], tmp_path: Path) -> None:
    if sys.implementation.name != "cpython":
        pytest.skip("cffi is part of Python here")
    (tmp_path / "_cffi_backend.py").write_text("raise ModuleNotFoundError('none', name='_cffi_backend')\n")
    line = load()
    assert_names_all(line)
    assert "the package cffi is missing" in line


def test_the_error_keeps_its_cause_name_and_path() -> None:
    cause = ImportError("wrong ELF class", name="uamqp_cffi._core._uam", path="/somewhere/_uam.abi3.so")
    error = _build.load_error(cause)
    assert (error.name, error.path) == (cause.name, cause.path)
    assert "wrong ELF class" in str(error)
