"""`install_as_uamqp()`. What it does cannot be undone, so each test has a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MODULES = (  # all that uamqp 1.6.11 has
    "address", "async_ops", "async_ops.client_async", "async_ops.connection_async", "async_ops.mgmt_operation_async",
    "async_ops.receiver_async", "async_ops.sender_async", "async_ops.session_async", "async_ops.utils", "authentication",
    "authentication.cbs_auth", "authentication.cbs_auth_async", "authentication.common", "c_uamqp", "client", "compat",
    "connection", "constants", "errors", "message", "mgmt_operation", "receiver", "sender", "session", "types", "utils",
)  # fmt: skip


def run(code: str, cwd: Path, status: int = 0) -> str:
    """What a Python in `cwd` prints that runs `code`; its last line on standard error when it fails as expected."""
    env = {**os.environ, "PYTHONPATH": str(cwd)}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return (done.stderr.splitlines()[-1] if status else done.stdout).strip()


INSTALL = "import uamqp_cffi; uamqp_cffi.install_as_uamqp()\n"


def test_every_module_of_uamqp_is_ours(tmp_path: Path) -> None:
    code = INSTALL + "import importlib\n"
    code += f"for name in {MODULES!r}:\n"
    code += "    old = importlib.import_module('uamqp.' + name)\n"
    code += "    if old is not importlib.import_module('uamqp_cffi.' + name): print(name)\n"
    assert run(code, tmp_path) == ""


def test_the_package_is_ours(tmp_path: Path) -> None:
    assert run(INSTALL + "import uamqp; print(uamqp is uamqp_cffi)", tmp_path) == "True"


@pytest.mark.parametrize("name", ["async_ops.client_async", "authentication.cbs_auth_async"])
def test_a_module_of_a_package_is_an_attribute_after_importing_it(name: str, tmp_path: Path) -> None:
    code = INSTALL + f"import uamqp.{name}; import uamqp_cffi.{name}; print(uamqp.{name} is uamqp_cffi.{name})"
    assert run(code, tmp_path) == "True"


def test_modules_of_packages_are_attributes_of_the_package_alone(tmp_path: Path) -> None:
    code = (
        INSTALL
        + "import uamqp; print(uamqp.async_ops.ConnectionAsync.__name__, uamqp.authentication.SASLPlain.__name__)"
    )
    assert run(code, tmp_path) == "ConnectionAsync SASLPlain"


def test_names_and_modules_can_be_imported_from_the_package(tmp_path: Path) -> None:
    code = INSTALL + "from uamqp import errors, Message\nfrom uamqp.errors import AMQPError\n"
    code += "print(errors is uamqp_cffi.errors, Message is uamqp_cffi.Message, AMQPError is errors.AMQPError)"
    assert run(code, tmp_path) == "True True True"


def test_a_module_that_was_imported_under_our_name_before_is_the_same(tmp_path: Path) -> None:
    code = "import uamqp_cffi.message as ours\n" + INSTALL
    assert run(code + "import uamqp.message; print(uamqp.message is ours)", tmp_path) == "True"


def test_a_module_that_is_imported_under_the_old_name_first_is_the_same(tmp_path: Path) -> None:
    code = INSTALL + "import uamqp.authentication.common as old\nimport uamqp_cffi.authentication.common as ours\n"
    assert run(code + "print(old is ours)", tmp_path) == "True"


def test_importing_leaves_the_modules_as_they_are(tmp_path: Path) -> None:
    code = INSTALL + "import uamqp.client as c; print(c.__name__, c.__spec__.name, c.__package__)"
    assert run(code, tmp_path) == "uamqp_cffi.client uamqp_cffi.client uamqp_cffi"


def test_installing_twice_is_installing_once(tmp_path: Path) -> None:
    code = INSTALL + "import sys; finders = list(sys.meta_path); uamqp_cffi.install_as_uamqp()\n"
    assert run(code + "print(sys.meta_path == finders)", tmp_path) == "True"


def test_installing_after_the_modules_were_used_under_the_old_name_changes_nothing(tmp_path: Path) -> None:
    code = INSTALL + "import uamqp.errors as before\nuamqp_cffi.install_as_uamqp()\nimport uamqp.errors as after\n"
    assert run(code + "print(before is after)", tmp_path) == "True"


def test_another_uamqp_that_is_imported_already_is_refused_and_named(tmp_path: Path) -> None:
    other = tmp_path / "uamqp" / "__init__.py"
    other.parent.mkdir()
    other.touch()
    line = run("import uamqp\n" + INSTALL, tmp_path, status=1)
    assert line.startswith("RuntimeError: uamqp is already imported") and str(other) in line


def test_a_refusal_leaves_the_other_uamqp_alone(tmp_path: Path) -> None:
    other = tmp_path / "uamqp"
    other.mkdir()
    (other / "__init__.py").touch()
    (other / "errors.py").write_text("mine = True\n")
    code = "import uamqp, uamqp_cffi\ntry: uamqp_cffi.install_as_uamqp()\nexcept RuntimeError: pass\n"
    assert run(code + "import uamqp.errors; print(uamqp.errors.mine)", tmp_path) == "True"


def test_another_uamqp_that_is_only_installed_is_not_looked_at(tmp_path: Path) -> None:
    other = tmp_path / "uamqp" / "__init__.py"
    other.parent.mkdir()
    other.write_text("raise SystemExit('the other one')\n")
    assert run(INSTALL + "import uamqp.errors; print(uamqp.errors.__name__)", tmp_path) == "uamqp_cffi.errors"


def test_a_module_that_does_not_exist_is_reported_by_the_name_asked_for(tmp_path: Path) -> None:
    line = run(INSTALL + "import uamqp.nothing", tmp_path, status=1)
    assert line == "ModuleNotFoundError: No module named 'uamqp.nothing'"


def test_names_that_only_begin_alike_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "uamqp_tools.py").write_text("mine = True\n")
    assert run(INSTALL + "import uamqp_tools; print(uamqp_tools.mine)", tmp_path) == "True"


def test_objects_pickled_under_the_old_names_can_be_read(tmp_path: Path) -> None:
    code = INSTALL + "import pickle\n"
    code += "old = pickle.dumps(uamqp_cffi.errors.ErrorCodes.NotFound, 0).replace(b'uamqp_cffi', b'uamqp')\n"
    code += "print(pickle.loads(old) is uamqp_cffi.constants.ErrorCodes.NotFound)"
    assert run(code, tmp_path) == "True"


def test_a_message_made_under_the_old_name_pickles(tmp_path: Path) -> None:
    code = INSTALL + "import pickle, uamqp; print(pickle.loads(pickle.dumps(uamqp.Message(b'hello'))))"
    assert run(code, tmp_path) == "hello"


# What uamqp 1.6.11 pickles of four messages and a batch, deflated.
MESSAGES = (
    "eNqtU0tvEzEQ7qYJm7RJ2qog/gASDwlOUHrgRCSEtMLiAMfK8u5OY8PGdv2omkMluFHJN8z/Zby7SYs4IbGSJc9jv/nmm/G34a/j4U77ncUnYebZ6kK/"
    "WIG1bAkx5B/628/49Hu8xoyRdcxBLHbCRNQNUCdWrZUbcEaAbSPUgNVKWogkjKkF5xoweJ9QkJWqhVzGMPr86d3z0xj2a2jEJZg1lQpTplvTsSXah0oi"
    "gKxppVa6AZcg96k2SoNxqR7PwlHP8uOtd8t3r++FijouMoEteQsmWSQMXKqYW19+gcph2MYwNqAbLJ4i80oZAw1zAkm0f0wrJR1IR91aJyaHG3vbFwn3"
    "WWlV4x1QuNIiNZIkImFWGeigesd4aZTXHfC8u1u48AiVokcbIvQ2je/zqS/DQ8q0bkTVod3R4jqGjMUis2FKmZTKtRmd/2ssBjbklAOrcRgo26yX7X3n"
    "2Uo2346gUl66NNFpopy4pECiey6MdZRVF16YdrR57Q0rG4g/wlgboYxw60iQbE7PlXJtzgO6Rb7LjoRjKgFqeu6N4zgczQyuzg2uzmYRSRjRUtXriEu6"
    "wBYXWRkh7LW+bhbFwJd8t+uA3yt2eI5njGdC+F4rHJ8RPif8gPBDwh8R/pjwZ4S/JPwV4Sc3/DXhp9cIfBmLkeVviuF/wDtDvkXGGMLtIlwWpm+Zq/hf"
    "j+qArnzjxKZdiyJOut6WIBFjkV1F1tbsq6WB6jTovurJzR9sd3u2g39kuxjiU3Mx8UU54cVvhdmCug=="
)


def test_messages_that_uamqp_pickled_can_be_read_and_sent(tmp_path: Path) -> None:
    code = INSTALL + "import base64, pickle, zlib\n"
    code += f"made = pickle.loads(zlib.decompress(base64.b64decode({MESSAGES!r})))\n"
    code += "for m in made: print(m.state.name, m.retries, *[part.encode_message().hex() for part in m.gather()])\n"
    code += "print(made[0].properties.subject, type(made[3]).__name__, made[3].data)"
    assert run(code, tmp_path).splitlines() == [
        "WaitingToBeSent 0 005370c006054140404043" + "005372c10602a3016b5402" + "005373c00904a101694040a10173"
        "005374c10602a101615401" + "005375a00161005375a00162",
        "WaitingToBeSent 0 005377c10602a101765405",
        "WaitingToBeSent 0 005376c003015401",
        "WaitingToBeSent 0 005375a011005374c10602a101705401005375a00178",
        "SendFailed 2 005375a00473656e74",
        "b's' BatchMessage [b'x']",
    ]


@pytest.mark.parametrize("name", ["uamqp", "uamqp.utils"])
def test_reloading_gives_the_same_module(name: str, tmp_path: Path) -> None:
    code = INSTALL + f"import importlib, sys, {name}; module = sys.modules[{name!r}]\n"
    code += f"again = importlib.reload(module); print(again is module, again is sys.modules[{name!r}])"
    assert run(code, tmp_path) == "True True"


def test_the_modules_can_be_listed_and_found_under_the_old_name(tmp_path: Path) -> None:
    code = INSTALL + "import importlib.util, pkgutil, uamqp\n"
    code += "names = [m.name for m in pkgutil.iter_modules(uamqp.__path__, 'uamqp.')]\n"
    code += "print('uamqp.errors' in names, importlib.util.find_spec('uamqp.authentication').origin.endswith('.py'))"
    assert run(code, tmp_path) == "True True"


def test_threads_that_import_at_once_get_the_same_module(tmp_path: Path) -> None:
    code = INSTALL + "import importlib, threading\n"
    code += "names = ['uamqp.client', 'uamqp_cffi.client'] * 4; found = []; start = threading.Barrier(len(names))\n"
    code += "def load(name): start.wait(); found.append(importlib.import_module(name))\n"
    code += "threads = [threading.Thread(target=load, args=(name,)) for name in names]\n"
    code += "[t.start() for t in threads]; [t.join() for t in threads]\n"
    assert run(code + "print(len(found), len(set(map(id, found))))", tmp_path) == "8 1"


def test_the_command_runs_under_the_old_name(tmp_path: Path) -> None:
    code = INSTALL + "import runpy, sys; sys.argv[1:] = ['--version']\n"
    code += "runpy.run_module('uamqp', run_name='__main__', alter_sys=True)"
    assert run(code, tmp_path) == "uamqp-cffi 1.7.0"


def test_installing_loads_no_module_that_was_not_asked_for(tmp_path: Path) -> None:
    code = "import sys\n" + INSTALL + "print(*sorted(m for m in sys.modules if m.startswith('uamqp_cffi')))"
    assert run(code, tmp_path) == "uamqp_cffi uamqp_cffi.alias"
