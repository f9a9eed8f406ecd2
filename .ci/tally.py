"""Reads the JUnit file of a pytest run, says what ran, and fails when that was not enough.

python3 tally.py FILE [--seconds S] [--no-skips] [--at-least N]
"""

from __future__ import annotations

import argparse
import sys
import xml.etree.ElementTree as ET


def main() -> int:
    """0 when the run was as asked for, else 1; says on standard output what was not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--seconds", type=float, help="the run may take so long")
    parser.add_argument("--no-skips", action="store_true", help="no test may have been skipped")
    parser.add_argument("--at-least", type=int, default=1, metavar="N", help="so many tests must have run (default 1)")
    wanted = parser.parse_args()
    suites = list(ET.parse(wanted.file).getroot().iter("testsuite"))
    count = {
        name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    }
    seconds = sum(float(suite.get("time", 0)) for suite in suites)
    ran = count["tests"] - count["skipped"]
    print(f"{ran} ran, {count['failures'] + count['errors']} failed, {count['skipped']} skipped, {seconds:.1f} s")
    wrong = []
    if count["failures"] + count["errors"]:
        wrong.append("some failed")
    if ran < wanted.at_least:
        wrong.append(f"fewer than {wanted.at_least} ran")
    if wanted.seconds is not None and seconds > wanted.seconds:
        wrong.append(f"longer than {wanted.seconds:.0f} s")
    if wanted.no_skips and count["skipped"]:
        wrong.append("some were skipped:")
        for case in ET.parse(wanted.file).getroot().iter("testcase"):
            for skip in case.iter("skipped"):
                wrong.append(f"  {case.get('classname')}::{case.get('name')}: {skip.get('message')}")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
