"""What the package says of how it was built, and what it says when its extension module does not load."""

from __future__ import annotations

import runpy
import shutil
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import uamqp_cffi
from uamqp_cffi import _build
from uamqp_cffi._core.engine import lib, load_error

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(uamqp_cffi.__file__).resolve().parent
EXTENSION = Path(lib.EXTENSION).name


def test_build_info_names_version_compiler_abi_and_tls() -> None:
    info = uamqp_cffi.build_info()
    assert info["version"] == uamqp_cffi.__version__
    assert info["compiler"].split()[0] in ("gcc", "clang", "msvc")
    assert info["tls"] == ssl.OPENSSL_VERSION
    assert Path(info["extension"]).parent == PACKAGE / "_core"
    assert (info["python"], info["platform"]) == (load_error.python_tag(), load_error.platform_tag())


def test_the_abi_is_abi3_where_python_has_a_limited_api() -> None:
    limited = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
    assert uamqp_cffi.build_info()["abi"] == ("cp310-abi3" if limited else load_error.python_tag())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of modules elsewhere have no abi3")
def test_the_extension_is_named_for_its_abi() -> None:
    if uamqp_cffi.build_info()["abi"] == "cp310-abi3":
        assert EXTENSION.endswith(".abi3.so")  # what any CPython looks for
    else:
        assert EXTENSION.endswith(str(sysconfig.get_config_var("EXT_SUFFIX")))


def test_the_platform_tag_is_the_one_of_wheels() -> None:
    assert load_error.platform_tag().split()[0] == sysconfig.get_platform().replace("-", "_").replace(".", "_")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has several C libraries")
@pytest.mark.parametrize(
    ("known", "said"), [(("", ""), "(musl)"), (("libc", ""), "(musl)"), (("glibc", "2.36"), "(glibc 2.36)")]
)
def test_the_platform_tag_names_the_c_library(
    monkeypatch: pytest.MonkeyPatch, known: tuple[str, str], said: str
) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: known)
    monkeypatch.setattr(load_error, "_has_musl", lambda: True)
    assert load_error.platform_tag().split(" ", 1)[1] == said


@pytest.mark.parametrize(
    ("limited", "extension", "python", "said"),
    [
        (0x030A0000, "_uam.abi3.so", "cp311", "cp310-abi3"),
        (0x030A0000, "_uam.abi3-x86_64-linux-gnu.so", "cp315", "cp310-abi3"),
        (0x030A0000, "_uam.pyd", "cp311", "cp310-abi3"),
        (0x030A0000, "_uam.so", "cp311", "cp310-abi3"),
        (0, "_uam.cpython-314t-x86_64-linux-gnu.so", "cp314t", "cp314t"),
        (0x030F0000, "_uam.cpython-315t-x86_64-linux-gnu.so", "cp315t", "cp315t"),  # as cffi 2.1.1 has it compiled
        (0x030F0000, "_uam.cp315t-win_amd64.pyd", "cp315t", "cp315t"),
        (0x030F0000, "_uam.abi3t.so", "cp315t", "cp315-abi3t"),
        (0x030F0000, "_uam.abi3t.so", "cp315", "cp315-abi3t"),
        (0, "_uam.pypy311-pp73-x86_64-linux-gnu.so", "pp311", "pp311"),
        (0, "", "cp311", "cp311"),
    ],
)
def test_the_abi_is_what_the_name_of_the_extension_promises(
    monkeypatch: pytest.MonkeyPatch, limited: int, extension: str, python: str, said: str
) -> None:
    monkeypatch.setattr(_build, "python_tag", lambda: python)
    assert _build.abi(limited, f"/site-packages/uamqp_cffi/_core/{extension}") == said


# ---- building


class _Command:
    """Stands in for setuptools' build_ext."""

    name = ""

    def get_ext_filename(self, fullname: str) -> str:
        return self.name


def run_setup(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> dict[str, Any]:
    """What setup.py tells setuptools."""
    told: dict[str, Any] = {}
    stand_in, command = ModuleType("setuptools"), ModuleType("setuptools.command.build_ext")
    vars(stand_in).update(setup=told.update)
    vars(command).update(build_ext=_Command)
    stand_ins = {
        "setuptools": stand_in,
        "setuptools.command": ModuleType("setuptools.command"),
        command.__name__: command,
    }
    for name, module in {**stand_ins, **modules}.items():
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    return told


def test_without_cffi_there_is_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="cannot be built without cffi.*--no-build-isolation"):
        run_setup(monkeypatch, cffi=None)


@pytest.mark.parametrize(
    ("named", "written"),
    [
        ("_uam.abi3-x86_64-linux-gnu.so", "_uam.abi3.so"),  # Debian's 3.15
        ("_uam.abi3.so", "_uam.abi3.so"),
        ("_uam.cpython-314t-x86_64-linux-gnu.so", "_uam.cpython-314t-x86_64-linux-gnu.so"),
        ("_uam.pypy311-pp73-x86_64-linux-gnu.so", "_uam.pypy311-pp73-x86_64-linux-gnu.so"),
        ("_uam.pyd", "_uam.pyd"),
    ],
)
def test_the_extension_gets_a_name_that_every_python_of_the_wheels_tag_finds(
    monkeypatch: pytest.MonkeyPatch, named: str, written: str
) -> None:
    command = run_setup(monkeypatch)["cmdclass"]["build_ext"]()
    command.name = f"uamqp_cffi/_core/{named}"
    assert command.get_ext_filename("uamqp_cffi._core._uam") == f"uamqp_cffi/_core/{written}"


# ---- when the extension does not load


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, in a folder that has nothing else."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "uamqp_cffi", ignore=shutil.ignore_patterns("__pycache__")))


def load(folder: Path, code: str = "from uamqp_cffi import SendClient") -> str:
    """The last line of what a process of its own prints when the package in this folder is imported, which fails."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def assert_names_all(line: str) -> None:
    assert line.startswith("ImportError: uamqp_cffi cannot load its extension module")
    assert load_error.python_tag() in line
    assert load_error.platform_tag() in line


REINSTALL = (
    "`pip install --force-reinstall --no-cache-dir uamqp-cffi`"  # else pip may take what it built when it was wrong
)


def test_a_missing_extension_is_named(copy: Path) -> None:
    (copy / "_core" / EXTENSION).unlink()
    line = load(copy.parent)
    assert_names_all(line)
    assert f"uamqp_cffi._core._uam is not in {copy / '_core'}" in line
    assert "ModuleNotFoundError: No module named 'uamqp_cffi._core._uam'" in line
    assert REINSTALL in line


@pytest.mark.parametrize("built", [None, "_uam.cp399-other.so"])
def test_a_source_tree_says_how_to_import_what_is_installed(copy: Path, built: str | None) -> None:
    (copy / "_core" / EXTENSION).unlink()
    if built:
        (copy / "_core" / built).touch()
    (copy.parent / "build_ffi.py").touch()
    line = load(copy.parent)
    assert_names_all(line)
    assert f"{copy} is part of a source tree" in line
    assert "another folder" in line and "`pip install -e .`" in line
    assert "--force-reinstall" not in line  # would change nothing


def test_an_extension_for_another_python_is_named(copy: Path) -> None:
    other = f"_uam.cp399-other{Path(EXTENSION).suffix}"
    (copy / "_core" / EXTENSION).rename(copy / "_core" / other)
    line = load(copy.parent)
    assert_names_all(line)
    assert f"only {other}, built for another" in line
    assert REINSTALL in line


def test_an_extension_that_is_no_library_is_named(copy: Path) -> None:
    broken = copy / "_core" / EXTENSION
    broken.write_bytes(b"not for this machine")
    line = load(copy.parent)
    assert_names_all(line)
    assert broken.name in line
    assert REINSTALL in line


def test_a_missing_cffi_is_named(copy: Path) -> None:
    if sys.implementation.name != "cpython":
        pytest.skip("cffi is part of Python here")
    (copy.parent / "_cffi_backend.py").write_text("raise ModuleNotFoundError('none', name='_cffi_backend')\n")
    line = load(copy.parent)
    assert_names_all(line)
    assert "the package cffi is missing" in line


def test_a_package_in_an_archive_is_told(copy: Path) -> None:
    archive = shutil.make_archive(str(copy.parent / "all"), "zip", copy.parent, "uamqp_cffi")
    line = load(Path(archive))
    assert_names_all(line)
    assert "is inside of an archive" in line and "unpack it" in line
    assert "No module named 'uamqp_cffi._core._uam'" in line
    assert "--force-reinstall" not in line


@pytest.mark.skipif(sys.version_info < (3, 14), reason="there are no interpreters to make from Python")
def test_a_subinterpreter_is_told(copy: Path) -> None:
    code = "from concurrent import interpreters; interpreters.create().exec('import uamqp_cffi.client')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=copy.parent, capture_output=True, text=True, timeout=60)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ImportError: uamqp_cffi")]
    assert_names_all(lines[-1])
    assert "does not support loading in subinterpreters" in lines[-1]
    assert "threads or processes" in lines[-1]
    assert "--force-reinstall" not in lines[-1]


def test_the_error_keeps_its_cause_name_and_path() -> None:
    cause = ImportError("wrong ELF class", name="uamqp_cffi._core._uam", path="/somewhere/_uam.abi3.so")
    error = load_error.load_error(cause)
    assert (error.name, error.path) == (cause.name, cause.path)
    assert "wrong ELF class" in str(error)
