"""How the installed package was built, and what to say when its extension module does not load."""

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


def load_error(error: ImportError) -> ImportError:
    """What to raise when the import of the extension module raised `error`: the same kind of error with the Python, the
    platform and what is missing in its text, and `name` and `path` set."""
    folder = Path(__file__).resolve().parent / "_core"
    found = sorted(path.name for path in folder.glob("_uam*") if path.suffix in (".so", ".pyd"))
    path = error.path
    if error.name == "_cffi_backend":
        missing = f"the package cffi is missing or not for this Python ({error}); `pip install --force-reinstall cffi` gets it"
    elif path is None and found:
        missing = f"there is no {_EXTENSION} for this Python and platform, only {', '.join(found)}, built for another"
    elif path is None:
        missing = f"{_EXTENSION} is not in {folder}; the sources alone are no installation"
    else:
        missing = f"{path}: {error}"
    text = (
        f"uamqp_cffi cannot load its extension module on {python_tag()}, {platform_tag()}: {missing}. "
        "`pip install --force-reinstall uamqp-cffi` gets the wheel for this Python, or builds one where there is a C compiler."
    )
    return ImportError(text, name=error.name or _EXTENSION, path=path)


def build_info() -> dict[str, str]:
    """What this installation is made of, for reports of problems.

    Returns `version` of the package, `compiler` that built its extension module, `abi` (`cp310-abi3`, or the one Python it
    is for), `extension` (the module's file), `python` and `platform` (tags, as of wheels), `cffi` (the version in use) and
    `tls` (library and version: the one Python's own `ssl` has; the package brings none).

    >>> sorted(build_info())
    ['abi', 'cffi', 'compiler', 'extension', 'platform', 'python', 'tls', 'version']
    """
    from . import __version__
    from ._core import engine

    try:
        import ssl

        tls = ssl.OPENSSL_VERSION
    except ImportError as error:
        tls = f"none ({error})"
    return {
        "version": __version__,
        "compiler": engine.COMPILER,
        "abi": f"cp3{engine.LIMITED_API >> 16 & 0xFF}-abi3" if engine.LIMITED_API else python_tag(),
        "extension": engine.EXTENSION,
        "python": python_tag(),
        "platform": platform_tag(),
        "cffi": engine.CFFI_VERSION,
        "tls": tls,
    }
