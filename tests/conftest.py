"""Certificates where `trustme` cannot be had.

trustme stands on `cryptography`, which has no wheels for some Pythons that this package serves (PyPy 8 among them) and
cannot be compiled without Rust. There its part that the tests use is done by the command `openssl`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("trustme") is None:
    spec = importlib.util.spec_from_file_location("trustme", Path(__file__).with_name("trustme_by_openssl.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["trustme"] = module
    spec.loader.exec_module(module)
