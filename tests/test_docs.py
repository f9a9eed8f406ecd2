"""Documentation that can be wrong is run: the README's tour, examples in docstrings, links between pages."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import uamqp_cffi

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
PAGES = [page for pattern in ("*.md", "docs/**/*.md", "csrc/*.md", "tests/*.md") for page in sorted(ROOT.glob(pattern))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"(?<!\!)\[[^\]]+\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of `language`: line number and text."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start()) + 2, m[2]) for m in FENCE.finditer(text) if m[1] == language]


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def source() -> str:
    """Where pyproject.toml says that the repository is."""
    (found,) = re.findall(r'^Source = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    return str(found)


def modules() -> list[str]:
    found = pkgutil.walk_packages(uamqp_cffi.__path__, "uamqp_cffi.")
    return ["uamqp_cffi", *(module.name for module in found if not module.name.endswith((".__main__", "._uam")))]


def test_the_tour_of_the_readme_does_what_it_shows() -> None:
    names: dict[str, Any] = {}
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    parser = doctest.DocTestParser()
    tour = [(line, text) for line, text in blocks(README, "python") if text.startswith(">>>")]
    assert len(tour) >= 8
    report: list[str] = []
    for line, text in tour:
        test = parser.get_doctest(text, names, f"README.md:{line}", str(README), line)
        runner.run(test, out=report.append, clear_globs=False)
        names = test.globs
    assert not runner.failures, "".join(report)


def test_the_readmes_other_python_blocks_are_python() -> None:
    others = [(line, text) for line, text in blocks(README, "python") if not text.startswith(">>>")]
    assert others
    for line, text in others:
        compile("\n" * (line - 1) + text, str(README), "exec")


@pytest.mark.slow
def test_the_readmes_pytest_example_passes(tmp_path: Path) -> None:
    (example,) = [text for _, text in blocks(README, "python") if "\ndef test_" in text]
    (tmp_path / "test_example.py").write_text(example, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"]
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9]\d* passed", done.stdout)


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_do_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.failed == 0


def test_there_are_examples_in_docstrings() -> None:
    found = doctest.DocTestFinder(exclude_empty=True)
    tests = [t for name in modules() for t in found.find(importlib.import_module(name)) if t.examples]
    assert len(tests) >= 3


def test_set_up_takes_the_two_commands_the_readme_gives() -> None:
    text = README.read_text(encoding="utf-8")
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/uamqp-cffi send --count 100000\n" in text
    assert "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        ours = target.removeprefix(f"{source()}/blob/main/")
        if re.match(r"[a-z]+:", ours):
            continue
        path, _, anchor = ours.partition("#")
        file = ((page.parent if ours == target else ROOT) / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in headings(file)):
            dead.append(target)
    assert dead == []


def test_the_readmes_links_work_on_an_index_page() -> None:
    links = LINK.findall(FENCE.sub("", README.read_text(encoding="utf-8")))
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
