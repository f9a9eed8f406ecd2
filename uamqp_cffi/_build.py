"""How the installed package was built, and what to say when its extension module does not load."""

from __future__ import annotations

from pathlib import Path

from ._core.engine import lib
from ._core.engine.load_error import platform_tag, python_tag
from ._public import show_as


def abi(limited: int, extension: str) -> str:
    """The ABI of an extension module that was compiled with that version of the limited API (0: none), as its file name and so the
    tag of its wheel has it: cp310-abi3, cp315-abi3t, or the one Python it is for. The headers may have been limited to the stable ABI
    although its name says that it is for one Python: cffi does that on free-threaded ones."""
    # pyd on Windows, so in a frozen program: nothing against the stable ABI
    tag = ".".join(Path(extension).name.split(".")[1:2])
    stable_t = tag.startswith("abi3t")
    if not limited or tag.startswith(("cpython", "cp3")) or (python_tag().endswith("t") and not stable_t):
        return python_tag()
    return f"cp3{limited >> 16 & 0xFF}-abi3{'t' if stable_t else ''}"


def build_info() -> dict[str, str]:
    """What this installation is made of, for reports of problems.

    Returns `version` of the package, `compiler` that built its extension module, `abi` (`cp310-abi3`, or the one Python it
    is for), `extension` (the module's file), `python` and `platform` (tags, as of wheels), `cffi` (the version in use) and
    `tls` (library and version: the one Python's own `ssl` has; the package brings none).

    >>> sorted(build_info())
    ['abi', 'cffi', 'compiler', 'extension', 'platform', 'python', 'tls', 'version']
    """
    from . import __version__

    try:
        import ssl

        tls = ssl.OPENSSL_VERSION
    except ImportError as error:
        tls = f"none ({error})"
    return {
        "version": __version__,
        "compiler": lib.COMPILER,
        "abi": abi(lib.LIMITED_API, lib.EXTENSION),
        "extension": lib.EXTENSION,
        "python": python_tag(),
        "platform": platform_tag(),
        "cffi": lib.CFFI_VERSION,
        "tls": tls,
    }


show_as("", build_info)
