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

# What the compiler says of itself, for uamqp_cffi.build_info().
BUILD = """
#define UAM_TEXT(x) UAM_TEXT_(x)
#define UAM_TEXT_(x) #x
#if defined(__clang__)
#define UAM_COMPILER "clang " UAM_TEXT(__clang_major__) "." UAM_TEXT(__clang_minor__) "." UAM_TEXT(__clang_patchlevel__)
#elif defined(__GNUC__)
#define UAM_COMPILER "gcc " UAM_TEXT(__GNUC__) "." UAM_TEXT(__GNUC_MINOR__) "." UAM_TEXT(__GNUC_PATCHLEVEL__)
#elif defined(_MSC_FULL_VER)
#define UAM_COMPILER "msvc " UAM_TEXT(_MSC_FULL_VER)
#else
#define UAM_COMPILER "unknown"
#endif
#ifdef Py_LIMITED_API
#define UAM_LIMITED_API Py_LIMITED_API
#else
#define UAM_LIMITED_API 0
#endif
"""

# A call into the engine takes microseconds and never waits, so it keeps the interpreter lock: giving it up costs more than
# many a call, and where another thread computes it comes back only after a switch interval (5 ms), three times a send.
KEEP_LOCK = """
#if defined(Py_BEGIN_ALLOW_THREADS) && !defined(PYPY_VERSION)
#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS {
#define Py_END_ALLOW_THREADS }
#endif
"""

# CPython's collector looks at every container it tracks, again and again. `track` says whether it is to look at what is in
# this list of objects that it can track. Nothing happens where there is no such collector.
COLLECTOR = """
static int uam_collector_track(uint64_t list, int track) {
#if defined(PYPY_VERSION) || defined(Py_GIL_DISABLED)
  (void)list; (void)track;
  return 0;
#else
  PyObject *objects = (PyObject *)(uintptr_t)list;
  for (Py_ssize_t i = 0, n = PyList_Size(objects); i < n; i++) {
    PyObject *object = PyList_GetItem(objects, i);
    if (!track) PyObject_GC_UnTrack(object);
    else if (!PyObject_GC_IsTracked(object)) PyObject_GC_Track(object);
  }
  return 1;
#endif
}
"""

abi3 = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
msvc = sys.platform == "win32" and "gcc" not in sysconfig.get_platform()

# The same commit gives the same bytes, wherever it is built: no debugging information, no absolute path, no time of day.
if msvc:
    compile_args, link_args = ["/std:c11", "/Brepro"], ["/Brepro"]
else:
    compile_args = ["-std=c11", "-O2", "-g0", "-fvisibility=hidden", f"-ffile-prefix-map={ROOT}=."]
    link_args = ["-Wl,-s"] if sys.platform.startswith("linux") else []

ffibuilder = FFI()
ffibuilder.cdef(region[1])
ffibuilder.cdef("static char *const UAM_COMPILER; static const long UAM_LIMITED_API;")
ffibuilder.cdef("static int uam_collector_track(uint64_t list, int track);")
ffibuilder.set_source(
    "uamqp_cffi._core._uam",
    # the header's text, since a -Icsrc would put our limits.h in front of the C library's
    HEADER + BUILD + KEEP_LOCK + COLLECTOR,
    sources=sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("*.c")),
    depends=sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("*.[hd]*")),
    define_macros=[("NDEBUG", None)] + ([("Py_LIMITED_API", "0x030A0000")] if abi3 else []),
    extra_compile_args=compile_args,
    extra_link_args=link_args,
    py_limited_api=abi3,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
