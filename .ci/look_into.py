"""What is in the distributions.

look_into.py WHEEL SDIST     fails when the abi3 wheel's module has a name that not every CPython finds, or when the sdist
                             holds what does not belong there or lacks what does
look_into.py --abi3 WHEEL    the first of these alone
look_into.py --elf WHEEL     fails when the module is not for the processor and C library that the wheel's tag names
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile

from elftools.elf.elffile import ELFFile

MODULE = "uamqp_cffi/_core/_uam.abi3.so"
SDIST = {
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "SECURITY.md", "build_ffi.py", "compat",
    "csrc", "docs",
    "pyproject.toml", "setup.cfg", "setup.py", "tests", "uamqp_cffi", "uamqp_cffi.egg-info",
}  # fmt: skip
NEEDED = {"LICENSE", "README.md", "build_ffi.py", "csrc", "docs", "pyproject.toml", "setup.py", "tests", "uamqp_cffi"}
NOT_IN_SDIST = (".so", ".pyd", ".o", ".pyc", ".a")
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
LIBC = {"manylinux": "libc.so.6", "musllinux": "libc.so"}


def modules(wheel: str) -> list[str]:
    return [name for name in zipfile.ZipFile(wheel).namelist() if "/_uam" in name]


def abi3(wheel: str) -> list[str]:
    wrong = []
    if "-cp310-abi3-" not in wheel:
        wrong.append(f"{wheel} is not tagged cp310-abi3")
    if modules(wheel) != [MODULE]:
        wrong.append(f"the wheel's modules are {modules(wheel)}, not {MODULE}")
    return wrong


def wheel_and_sdist(wheel: str, sdist: str) -> list[str]:
    wrong = abi3(wheel)
    with tarfile.open(sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
    tops = {name.split("/")[0] for name in names}
    wrong += [f"the sdist should not hold {top}" for top in sorted(tops - SDIST)]
    wrong += [f"the sdist lacks {top}" for top in sorted(NEEDED - tops)]
    wrong += [f"the sdist should not hold {name}" for name in names if name.endswith(NOT_IN_SDIST)]
    print(f"{'wheel':<22} cp310-abi3, module {MODULE}, {len(zipfile.ZipFile(wheel).namelist())} files")
    print(f"{'sdist':<22} {len(names)} files")
    return wrong


def elf(wheel: str) -> list[str]:
    data = zipfile.ZipFile(wheel).read(MODULE)
    file = ELFFile(io.BytesIO(data))
    needed = [tag.needed for tag in file.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
    tag = wheel.removesuffix(".whl").rpartition("-")[2]
    system, processor = tag.split("_", 1)[0], next(p for p in MACHINES if tag.endswith(p))
    print(f"{tag}: {file['e_machine']}, needs {' '.join(needed)}")
    wrong = []
    if file["e_machine"] != MACHINES[processor]:
        wrong.append(f"the module is for {file['e_machine']}")
    if set(needed) - {"libm.so.6", "libpthread.so.0"} != {LIBC[system]}:
        wrong.append(f"the module needs {needed}, not {LIBC[system]}")
    return wrong


def main() -> int:
    looks = {"--abi3": abi3, "--elf": elf}
    wrong = looks[sys.argv[1]](sys.argv[2]) if sys.argv[1] in looks else wheel_and_sdist(*sys.argv[1:])
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
