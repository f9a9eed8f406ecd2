"""Makes the extension module uamqp_cffi._core._uam out of csrc/.

The C declarations come from the one public header: the region between its cdef marks is read here and by the C compiler
alike, so there is no second list to keep.
"""

import re
import sys
import sysconfig
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent
HEADER = (ROOT / "csrc" / "uam.h").read_text(encoding="utf-8")

region = re.search(r"/\* cdef: begin \*/(.*?)/\* cdef: end \*/", HEADER, re.DOTALL)
if region is None:
    raise SystemExit("csrc/uam.h has no cdef region")

abi3 = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
msvc = sys.platform == "win32" and "gcc" not in sysconfig.get_platform()

ffibuilder = FFI()
ffibuilder.cdef(region[1])
ffibuilder.set_source(
    "uamqp_cffi._core._uam",
    HEADER,  # its text, since a -Icsrc would put our limits.h in front of the C library's
    sources=sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("*.c")),
    depends=sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("*.[hd]*")),
    define_macros=[("NDEBUG", None)] + ([("Py_LIMITED_API", "0x030A0000")] if abi3 else []),
    extra_compile_args=["/std:c11"] if msvc else ["-std=c11", "-O2", "-fvisibility=hidden"],
    py_limited_api=abi3,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
