"""Both drivers: the tests of modules marked `both_drivers` run with the blocking classes, with the asyncio ones on
asyncio's own loop, and with these on uvloop's, so that a scenario is written once.

For the latter two, names such as `SendClient` in the test's module stand for the asyncio classes with blocking methods
added: `client.send_message(m)` is `loop.run_until_complete(client.send_message_async(m))`. What cannot be said so (threads
in one client, waiting calls in callbacks, overriding blocking methods) is marked `blocking`.

Certificates where `trustme` cannot be had: it stands on `cryptography`, which has no wheels for some Pythons that this
package serves (PyPy among them) and cannot be compiled without Rust. There the part that the tests use is done by the
command `openssl`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import signal
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    import uvloop
except ImportError:
    uvloop = None

if importlib.util.find_spec("trustme") is None:
    _spec = importlib.util.spec_from_file_location("trustme", Path(__file__).with_name("trustme_by_openssl.py"))
    assert _spec is not None and _spec.loader is not None
    sys.modules["trustme"] = _module = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)

EAGER = getattr(asyncio, "eager_task_factory", None)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop
ON_UVLOOP = (
    pytest.mark.uvloop,
    pytest.mark.skipif(uvloop is None, reason="uvloop is not installed (no wheel for this platform)"),
)


class Loop:
    """An event loop for one test, and the classes that are driven by it."""

    def __init__(self, name: str) -> None:
        self.loop = LOOPS[name]()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        """Run what is left to its end; nothing may have gone wrong unseen, and no task of ours be left."""
        gc.collect(1)
        for _ in range(5):
            self.loop.run_until_complete(asyncio.sleep(0))
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.close()
        gc.collect(1)
        assert not self.complaints, self.complaints
        assert not left, left

    def classes(self) -> dict[str, type[Any]]:
        """The asyncio classes with blocking methods, by the names of the blocking classes."""
        from uamqp_cffi import async_ops
        from uamqp_cffi.async_ops import client_async

        made = {}
        for kind in (
            client_async.SendClientAsync, client_async.ReceiveClientAsync, client_async.AMQPClientAsync,
            async_ops.ConnectionAsync, async_ops.SessionAsync, async_ops.MessageSenderAsync,
            async_ops.MessageReceiverAsync, async_ops.MgmtOperationAsync,
        ):  # fmt: skip
            made[kind.__name__.removesuffix("Async")] = self._with_blocking_methods(kind)
        return made

    def _with_blocking_methods(self, kind: type[Any]) -> type[Any]:
        body: dict[str, Any] = {}
        for name in dir(kind):
            twin = name.removesuffix("_async")
            if twin != name and not name.startswith("_") and inspect.iscoroutinefunction(getattr(kind, name)):
                body[twin] = self._blocking(name, getattr(kind, twin, None))
        if hasattr(kind, "__aenter__"):
            body["__enter__"] = self._blocking("__aenter__")
            body["__exit__"] = self._blocking("__aexit__")
        if hasattr(kind, "receive_messages_iter_async"):
            body["receive_messages_iter"] = self._generating()
        if hasattr(kind, "wait_async"):
            body["wait"] = lambda client, **how: self.run(client.wait_async(**how)) or not client._shutdown
        return type(kind.__name__.removesuffix("Async"), (kind,), body)

    def _blocking(self, name: str, original: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def call(self_: Any, *args: Any, **kwargs: Any) -> Any:
            if original is not None and self.loop.is_running():  # from inside an `_async` method, or a callback
                return original(self_, *args, **kwargs)
            return self.run(getattr(self_, name)(*args, **kwargs))

        return call

    def _generating(self) -> Callable[..., Any]:
        def generate(client: Any, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
            messages = client.receive_messages_iter_async(*args, **kwargs)
            try:
                while True:
                    yield self.run(messages.__anext__())
            except StopAsyncIteration:
                return

        return generate


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--eager",
        action="store_true",
        help="only what runs on asyncio's own loop, with eager tasks (Python 3.12 and newer)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--eager") and EAGER is not None:
        made = asyncio.BaseEventLoop.__init__

        def with_eager_tasks(loop: asyncio.BaseEventLoop) -> None:
            made(loop)
            loop.set_task_factory(EAGER)

        asyncio.BaseEventLoop.__init__ = with_eager_tasks  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--eager"):
        return
    kept = [item for item in items if _on_a_loop(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept
    if EAGER is None:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="this Python has no eager tasks: they came with 3.12"))


def _on_a_loop(item: pytest.Item) -> bool:
    driver = getattr(item, "callspec", None) and item.callspec.params.get("driver")  # type: ignore[attr-defined]
    return driver == "asyncio" if driver else hasattr(getattr(item, "module", None), "asyncio")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker
    if marked("both_drivers") and not marked("blocking"):
        drivers = ["blocking", "asyncio", pytest.param("uvloop", marks=ON_UVLOOP)]
        metafunc.parametrize("driver", drivers, indirect=True)


@pytest.fixture(autouse=True)
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop | None]:
    """Who drives the classes of the test's module and of its conftest."""
    name = getattr(request, "param", "blocking")
    if name == "blocking":
        yield None
        return
    loop = Loop(name)
    folder = request.path.parent
    modules = [request.module]
    for plugin in request.config.pluginmanager.get_plugins():
        if getattr(plugin, "__file__", None) in (str(folder / "conftest.py"), str(folder.parent / "conftest.py")):
            modules.append(plugin)
    for module in modules:
        for name, kind in loop.classes().items():
            if name in vars(module):
                monkeypatch.setattr(module, name, kind)
    yield loop
    loop.close()


@pytest.fixture
def interrupted() -> Iterator[Callable[[float, Callable[[], object]], bool]]:
    """`interrupted(seconds, work)`: run `work`, with KeyboardInterrupt raised somewhere in it after that time. Whether it came
    out of `work`. What comes late is dropped: an interpreter may call the handler some time after the signal."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("needs setitimer")
    armed = False

    def interrupt(number: int, frame: object) -> None:
        if armed:
            raise KeyboardInterrupt

    def run(seconds: float, work: Callable[[], object]) -> bool:
        nonlocal armed
        came = False
        try:
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, seconds, 0.25)  # again: Python drops one that comes in a finalizer
                work()
            finally:
                armed = False
        except KeyboardInterrupt:
            armed, came = False, True
        signal.setitimer(signal.ITIMER_REAL, 0)
        return came

    before = signal.signal(signal.SIGALRM, interrupt)
    yield run
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
