"""The distribution named `uamqp`: it answers requirements of that name, and its modules are ours."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture(scope="module")
def iot(azure_venv: Any) -> Any:
    return azure_venv


def distributions(env: Any) -> dict[str, str]:
    return {item["name"]: item["version"] for item in json.loads(env.pip("list", "--format", "json"))}


def test_a_package_that_requires_uamqp_is_installed_without_fetching_it(iot: Any) -> None:
    found = distributions(iot)
    assert (found["uamqp"], "azure-iot-hub" in found) == ("1.7.0", True)


def test_pip_finds_nothing_missing_or_broken(iot: Any) -> None:
    assert iot.pip("check").strip() == "No broken requirements found."


def test_azure_iot_hub_can_be_imported_on_it(iot: Any) -> None:
    code = "import azure.iot.hub, sys; print(sys.modules['uamqp'].__name__)"
    assert iot.run("-c", code).strip() == "uamqp_cffi"


@pytest.mark.parametrize("first", ["uamqp", "uamqp.errors", "uamqp_cffi.errors", "uamqp.authentication.common"])
def test_whatever_is_imported_first_the_modules_are_the_same(first: str, iot: Any) -> None:
    code = f"import {first}, uamqp, uamqp_cffi, uamqp.errors, uamqp.authentication.common as common\n"
    code += "print(uamqp is uamqp_cffi, uamqp.errors is uamqp_cffi.errors,"
    code += " common is uamqp_cffi.authentication.common)"
    assert iot.run("-c", code).strip() == "True True True"


def test_installing_by_call_on_top_of_it_changes_nothing(iot: Any) -> None:
    code = "import uamqp.errors as before, uamqp_cffi; uamqp_cffi.install_as_uamqp(); import uamqp.errors as after\n"
    assert iot.run("-c", code + "print(before is after)").strip() == "True"


def test_it_serves_child_processes_that_start_afresh(iot: Any) -> None:
    code = "import multiprocessing, uamqp\n"
    code += "if __name__ == '__main__':\n"
    code += "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
    code += "        print(pool.apply(str, (uamqp.Message(b'hello'),)))\n"
    path = iot.path / "spawned.py"
    path.write_text(code)
    assert iot.run(str(path)).strip() == "hello"


def test_the_command_runs_under_its_name(iot: Any) -> None:
    assert iot.run("-m", "uamqp", "--version").strip() == "uamqp-cffi 1.7.0"
