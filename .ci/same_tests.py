"""Whether several pytest runs had the same tests: python3 same_tests.py FILE.xml...

Compares JUnit files by the tests' names. What was skipped in one run and not in another is listed by name, with the reason. Fails
when a test is not there at all in one of them.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def tests(path: str) -> dict[str, str | None]:
    """Each test's name, and why it was skipped if it was."""
    found: dict[str, str | None] = {}
    for case in ET.parse(path).getroot().iter("testcase"):
        skip = case.find("skipped")
        found[f"{case.get('classname')}::{case.get('name')}"] = None if skip is None else str(skip.get("message"))
    return found


def main() -> int:
    runs = {Path(path).stem: tests(path) for path in sys.argv[1:]}
    every = sorted(set().union(*runs.values()))
    missing = 0
    for name in every:
        for run in (run for run in runs if name not in runs[run]):
            print(f"not in {run}: {name}")
            missing += 1
        skipped = {run: runs[run][name] for run in runs if runs[run].get(name) is not None}
        if 0 < len(skipped) < len(runs):
            print(f"skipped in {' '.join(skipped)}: {name}: {next(iter(skipped.values()))}")
    counts = ", ".join(
        f"{run}: {len(found)} tests, {sum(r is None for r in found.values())} ran" for run, found in runs.items()
    )
    print(f"{counts}; {missing} missing")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
