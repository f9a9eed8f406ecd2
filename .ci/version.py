"""Whether everything that names the version agrees with a release's tag, and what names the repository with the workflow's.

python3 version.py TAG       from the top of a checkout; the tag is v and the version
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

PLACES = {
    "pyproject.toml": r'^version = "(.*)"$',
    "uamqp_cffi/__init__.py": r'^__version__ = "(.*)"$',
    "compat/pyproject.toml": r'^version = "(.*)"$',
    "CHANGELOG.md": r"^## (\S+) \(\d{4}-\d\d-\d\d\)$",
}


def named(path: Path, pattern: str) -> str | None:
    """The first version that the file names: in CHANGELOG.md the topmost one with a date, if that is its topmost."""
    text = path.read_text(encoding="utf-8")
    found = re.search(pattern, text, re.M)
    if found is None or (path.suffix == ".md" and text[: found.start()].count("\n## ") != 0):
        return None
    return found[1]


def main() -> int:
    wanted = sys.argv[1].removeprefix("v")
    wrong = 0
    for name, pattern in PLACES.items():
        if name.startswith("compat/") and not Path(name).exists():
            continue
        version = named(Path(name), pattern)
        if version != wanted:
            said = f"says {version}" if version else "does not begin with a dated version"
            print(f"{name}: {said}, {wanted} expected", file=sys.stderr)
            wrong += 1
    return 1 if elsewhere() or wrong else 0


def elsewhere() -> bool:
    """Whether a workflow runs in another repository than the one that the package says it is from."""
    here, said = os.environ.get("GITHUB_REPOSITORY"), named(Path("pyproject.toml"), r'^Source = "(.*)"$')
    if not here or said == f"https://github.com/{here}":
        return False
    print(
        f"pyproject.toml: says that the source is at {said}, and so do README.md's links; this is {here}",
        file=sys.stderr,
    )
    return True


if __name__ == "__main__":
    sys.exit(main())
