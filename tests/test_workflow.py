"""The workflow that people edit and the copy that GitHub reads are the same file."""

from __future__ import annotations

import pathlib

import pytest

TOP = pathlib.Path(__file__).resolve().parents[1]


def test_both_copies_of_the_wheel_workflow_are_the_same() -> None:
    edited, read_by_github = TOP / "wheels.yml", TOP / ".github" / "workflows" / "wheels.yml"
    if not edited.exists() and not read_by_github.exists():
        pytest.skip("not a checkout: a source distribution has no workflow")
    assert edited.read_bytes() == read_by_github.read_bytes(), "cp wheels.yml .github/workflows/wheels.yml"
