"""Runs the mutants of ../mutants.txt: one-line mistakes in csrc, each of which some test program has to notice.

    mutants.py OUT [NAME...]

OUT is the folder of `make check` (csrc/out/cc/check) with the objects and the programs' archive. Only the changed file is compiled
again, in a temporary folder, put into a copy of the archive, and the programs are linked and run until one fails. A mutant that none
of them notices survives, which fails the run; so does one whose line is not there (any more), since it tests nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
CSRC = TESTS.parent / "csrc"
CC = shlex.split(os.environ.get("CC", "cc"))
FLAGS = ["-std=c11", "-O1", "-w", f"-I{CSRC}", f"-I{TESTS / 'c'}"]
# Those that notice most come first.
PROGRAMS = [
    "test_transcripts",
    "test_loopback",
    "test_states",
    "test_failmalloc",
    "test_map_ring",
    "test_limits",
    "test_codec",
    "test_trace",
    "test_tape",
    "test_vectors",
]
SECONDS = 20


class Mutant(NamedTuple):
    line: int
    file: str
    old: str
    new: str
    why: str


def read(path: Path) -> list[Mutant]:
    """Groups of lines: `file: why`, `- old`, `+ new`. Text of the line, blanks at its ends do not count."""
    found: list[Mutant] = []
    head: re.Match[str] | None = None
    old = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("- "):
            old = line[2:].strip()
        elif line.startswith("+ ") and head is not None:
            found.append(Mutant(number, head[1], old, line[2:].strip(), head[2]))
        elif line.strip() and not line.startswith("#"):
            head = re.fullmatch(r"(\w+\.c): (.*)", line)
            if head is None:
                raise SystemExit(f"{path.name}:{number}: not `file.c: why`")
    return found


def killer(mutant: Mutant, out: Path) -> str:
    """The name of the program that noticed, "" when none did. Raises LookupError when the line is not there once."""
    source = (CSRC / mutant.file).read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        raise LookupError(f"occurs {source.count(mutant.old)} times in {mutant.file}: {mutant.old}")
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        here = Path(folder)
        (here / mutant.file).write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        changed = here / Path(mutant.file).with_suffix(".o").name
        subprocess.run([*CC, *FLAGS, "-c", here / mutant.file, "-o", changed], check=True)
        archive = here / "engine.a"
        shutil.copy(out / "engine.a", archive)
        subprocess.run(["ar", "r", archive, changed], check=True, capture_output=True)
        for program in PROGRAMS:
            subprocess.run([*CC, out / f"{program}.o", archive, "-o", here / program], check=True)
            try:
                done = subprocess.run([here / program, TESTS], check=False, capture_output=True, timeout=SECONDS)
            except subprocess.TimeoutExpired:
                return f"{program} (it did not end)"
            if done.returncode != 0:
                return program
            (here / program).unlink()
    return ""


def main(argv: list[str]) -> int:
    out, wanted = Path(argv[1]), argv[2:]
    mutants = [m for m in read(TESTS / "mutants.txt") if not wanted or any(w in m.file or w in m.why for w in wanted)]
    bad = 0

    def attempt(mutant: Mutant) -> tuple[Mutant, str, str]:
        try:
            return mutant, killer(mutant, out), ""
        except (LookupError, subprocess.CalledProcessError) as error:
            return mutant, "", str(error)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for mutant, program, trouble in pool.map(attempt, mutants):
            if wanted:
                print(f"{mutant.file}: {mutant.why}: {program or trouble or 'SURVIVES'}")
            if not program:
                bad += 1
                print(
                    f"mutants.txt:{mutant.line}: {mutant.file}: {mutant.why}: {trouble or 'no test noticed'}",
                    file=sys.stderr,
                )
    print(f"mutants: {len(mutants) - bad} of {len(mutants)} killed")
    return 1 if bad or (not wanted and len(mutants) < 20) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
