"""What cibuildwheel would build, against what we mean to have: python3 identifiers.py CIBUILDWHEEL

From the top of a checkout. Fails when the list that cibuildwheel makes of pyproject.toml is not the one below, when a build belongs to
no job of wheels.yml or to two, or when wheels.yml names another version of cibuildwheel.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

CPYTHON = ["cp310", "cp311", "cp312", "cp313", "cp314", "cp315"]
FREE_THREADED = ["cp314t", "cp315t"]  # cffi has none for 3.13t
PYPY = ["pp311"]
PLATFORMS = {
    ("linux", "x86_64", "manylinux_x86_64"): CPYTHON + FREE_THREADED + PYPY,
    ("linux", "aarch64", "manylinux_aarch64"): CPYTHON + FREE_THREADED + PYPY,
    ("linux", "x86_64", "musllinux_x86_64"): CPYTHON + FREE_THREADED,
    ("linux", "aarch64", "musllinux_aarch64"): CPYTHON + FREE_THREADED,
    ("macos", "x86_64", "macosx_x86_64"): CPYTHON + FREE_THREADED + PYPY,
    ("macos", "arm64", "macosx_arm64"): CPYTHON + FREE_THREADED + PYPY,
    ("windows", "AMD64", "win_amd64"): CPYTHON + FREE_THREADED + PYPY,
    ("windows", "ARM64", "win_arm64"): CPYTHON + FREE_THREADED,
}
ELSEWHERE = re.compile(r"(\S+) was selected, but can't be built on \S+ so will be skipped")  # built by its own runner


def builds(command: str, platform: str, processor: str) -> list[str]:
    arguments = [command, "--platform", platform, "--archs", processor, "--print-build-identifiers", "."]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split() + ELSEWHERE.findall(done.stderr)


def main() -> int:
    command, wrong, count = sys.argv[1], [], 0
    workflow = Path("wheels.yml").read_text(encoding="utf-8")
    jobs = re.findall(r'build: "([^"]+)"', workflow)
    made = {(p, a): builds(command, p, a) for p, a in dict.fromkeys((p, a) for p, a, _ in PLATFORMS)}
    for (platform, processor, tag), pythons in PLATFORMS.items():
        found = sorted(b for b in made[platform, processor] if b.endswith(f"-{tag}"))
        wanted = sorted(f"{python}-{tag}" for python in pythons)
        wrong += [f"{build}: expected, not built" for build in wanted if build not in found]
        wrong += [f"{build}: built, not expected" for build in found if build not in wanted]
        for build in found:
            owners = [job for job in jobs if fnmatch.fnmatch(build, job)]
            if len(owners) != 1:
                wrong.append(f"{build}: of {len(owners)} jobs in wheels.yml")
        count += len(found)
    version = importlib.metadata.version("cibuildwheel")
    pinned = re.findall(r"pypa/cibuildwheel@v([\d.]+)", workflow)
    if pinned != [version]:
        wrong.append(f"wheels.yml uses cibuildwheel {pinned}, this is {version}")
    for line in wrong:
        print(line)
    print(f"{'cibuildwheel':<22} {count} builds for {len(PLATFORMS)} platforms, as in wheels.yml")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
