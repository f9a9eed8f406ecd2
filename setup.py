"""Builds the engine into one extension module; everything else is in pyproject.toml."""

import re
import sys
import sysconfig

from setuptools import setup
from setuptools.command.build_ext import build_ext

try:
    import cffi  # noqa: F401
except ImportError as error:  # setuptools would leave the extension out, and pip keep that wheel for ever after
    raise SystemExit(
        f"uamqp-cffi cannot be built without cffi ({error}): install cffi>=2 and setuptools>=77 first, or leave out --no-build-isolation"
    ) from error

# One abi3 wheel serves every CPython from 3.10 on. PyPy has no limited API to build against, nor have free-threaded builds one
# that goes back so far.
abi3 = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildExtension(build_ext):
    """Names the module so that every Python finds it that the wheel's tag lets in."""

    def get_ext_filename(self, fullname: str) -> str:
        # Debian's 3.15 calls it .abi3-x86_64-linux-gnu.so, and is alone in looking for that
        return re.sub(r"\.abi3-[^./]+\.so$", ".abi3.so", super().get_ext_filename(fullname))


setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if abi3 else {},
)
