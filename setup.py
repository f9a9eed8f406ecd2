"""Builds the engine into one extension module; everything else is in pyproject.toml."""

import sys
import sysconfig

from setuptools import setup

# One abi3 wheel serves every CPython from 3.10 on. Free-threaded builds and PyPy have no limited API to build against.
abi3 = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["build_ffi.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if abi3 else {},
)
