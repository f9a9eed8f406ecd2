"""What to say when the extension module does not load."""

from __future__ import annotations

import platform
import sys
import sysconfig
from pathlib import Path

_EXTENSION = "uamqp_cffi._core._uam"


def python_tag() -> str:
    """The interpreter as wheels name it: cp311, cp314t, pp311."""
    short = {"cpython": "cp", "pypy": "pp"}.get(sys.implementation.name, sys.implementation.name)
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return f"{short}{sys.version_info[0]}{sys.version_info[1]}{threads}"


def platform_tag() -> str:
    """System and processor as wheels name them, and on Linux the C library: linux_x86_64 (glibc 2.36)."""
    tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if not sys.platform.startswith("linux"):
        return tag
    name, version = platform.libc_ver()
    if name in ("", "libc") and _has_musl():
        name = "musl"  # libc_ver knows it from Python 3.14 on
    return f"{tag} ({name or 'unknown C library'}{' ' * bool(version)}{version})"


def _has_musl() -> bool:
    built_for = sysconfig.get_config_var("HOST_GNU_TYPE") or ""
    return "musl" in built_for or any(Path("/lib").glob("ld-musl-*.so.1"))


_REINSTALL = (
    "`pip install --force-reinstall --no-cache-dir uamqp-cffi` gets the wheel for this Python, or builds one where there is a C "
    "compiler"
)


def load_error(error: ImportError) -> ImportError:
    """What to raise when the import of the extension module raised `error`: the same kind of error, whose text has the Python, the
    platform, what is wrong, the cure, and the text of `error`; `name` and `path` are set."""
    wrong, cure = _diagnosis(error, Path(__file__).resolve().parents[2])
    text = (
        f"uamqp_cffi cannot load its extension module on {python_tag()}, {platform_tag()}: {wrong} "
        f"({type(error).__name__}: {error}). {cure}."
    )
    return ImportError(text, name=error.name or _EXTENSION, path=error.path)


def _diagnosis(error: ImportError, package: Path) -> tuple[str, str]:
    """What is wrong, and what to do about it."""
    folder = package / "_core"
    if "subinterpreter" in str(error):  # CPython's words for any module that does not say that it can be there
        return "cffi's modules load in the main interpreter only", "Use threads or processes instead of subinterpreters"
    if error.name == "_cffi_backend":
        return (
            "the package cffi is missing or not for this Python",
            "`pip install --force-reinstall --no-cache-dir cffi` gets it",
        )
    if not folder.is_dir():
        return (
            f"{package} is inside of an archive, where no extension module can be",
            "Install or unpack it into a folder",
        )
    if error.path is not None:
        return f"{error.path} does not load", _REINSTALL
    found = sorted(path.name for path in folder.glob("_uam*") if path.suffix in (".so", ".pyd"))
    checkout = (package.parent / "build_ffi.py").is_file()
    if not checkout and found:
        return (
            f"there is no {_EXTENSION} for this Python and platform, only {', '.join(found)}, built for another",
            _REINSTALL,
        )
    if not checkout:
        return f"{_EXTENSION} is not in {folder}; the sources alone are no installation", _REINSTALL
    wrong = f"{package} is part of a source tree, in which nothing is built for this Python"
    cure = "If the package is installed, start Python in another folder; `pip install -e .` in that of the source tree builds it there"
    return wrong, cure
