"""Ctrl-C put off while the books are being kept.

Handlers of signals run in the main thread, between any two bytecodes, and what they raise may leave what was being done half
done: bytes that the kernel took and nobody counted, a message that is in two queues or in none. So while the main thread
is inside a call of ours the handlers are wrapped, and a signal is only noted; it is let through where the call waits, where it
runs user code, and when it ends. Nothing else takes long; should it, the second Ctrl-C a second later is let through at once,
and what it tears apart is found by the marks of `connection.py`.

The handlers are the user's again when the outermost call ends: asyncio and others look at which there is. Other threads are never
interrupted, and pay for one comparison.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from functools import partial, wraps
from threading import get_ident
from typing import Any, TypeVar, cast

from .. import time

_get: Any = signal.getsignal
_set: Any = signal.signal
try:
    import _signal  # type: ignore[import-not-found]  # what `signal` wraps to make enumeration members, in ten times the time
except ImportError:
    pass
else:
    _get, _set = _signal.getsignal, _signal.signal

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

PATIENCE = 1.0
"""Seconds for which the first one is put off; another after that is let through wherever it comes."""

_SIGINT = int(signal.SIGINT)
_SIGTERM = int(signal.SIGTERM)
_SIGALRM = int(getattr(signal, "SIGALRM", signal.SIGTERM))
_main = threading.main_thread().ident

_shut = False  # signals are put off, if our handler is there
_active = False  # a call has wrapped the handler of SIGINT, and has not ended
_noted: dict[int, float] = {}  # signals that were put off, and since when
_before: dict[int, Any] = {}  # what is wrapped

Token = bool | list[tuple[int, Any, Any]] | Callable[..., Any]
"""What a call found, for it to put back: whether signals were put off, or, if it is the outermost, the handler of SIGINT. In all other
cases signals with their handlers and what was wrapped before."""


def _handler(number: int, frame: Any) -> None:
    global _shut
    if _shut:
        since = _noted.setdefault(number, time.monotonic())
        if time.monotonic() - since < PATIENCE:
            return
        _noted.pop(number, None)
        _before[number](number, frame)
        return
    _shut = True  # if it raises, what ends because of that is not interrupted in its turn
    _before[number](number, frame)
    _shut = False


def enter() -> Token | None:
    """From now on, signals are put off. What it gives is for `leave`; None: this is not the main thread."""
    global _active, _shut
    if get_ident() != _main:
        return None
    found = _get(_SIGINT)
    if found is _handler:
        was, _shut = _shut, True
        return was
    _shut = True
    if _active or callable(_get(_SIGTERM)) or callable(_get(_SIGALRM)) or not callable(found):
        return _wrap_all()
    if _noted:
        _noted.clear()
    _active = True
    _before[_SIGINT] = found
    _set(_SIGINT, _handler)
    return found  # type: ignore[no-any-return]  # a function


def _wrap_all() -> Token:
    """Also when user code inside of another call has put a handler of its own in place of ours."""
    if not _active:
        _noted.clear()
    found = []
    for number in dict.fromkeys((_SIGINT, _SIGTERM, _SIGALRM)):
        handler = _get(number)
        if callable(handler) and handler is not _handler:
            found.append((number, handler, _before.get(number)))
            _before[number] = handler
            _set(number, _handler)
    return found


def raises_anywhere() -> bool:
    """On an event loop: whether the first Ctrl-C raises wherever it comes. What `asyncio.Runner` has for a handler cancels a task,
    what `loop.add_signal_handler` has does nothing, and then there is nothing to put off; nor is there where that is done already."""
    found = _get(_SIGINT)
    if found is signal.default_int_handler:
        return True
    return (
        callable(found)
        and found is not _handler
        and type(found) is not partial
        and getattr(found, "__name__", "") != "_sighandler_noop"
    )


def leave(token: Token | None) -> None:
    """The other end of `enter`: what was put off is let through, unless the call was part of another."""
    global _active, _shut
    if token is None or token is True:
        return
    if callable(token):
        if _get(_SIGINT) is _handler:  # else user code has put another there
            _set(_SIGINT, token)
        _active = False
    elif token is not False:
        _unwrap_all(token)
        return
    _shut = False
    if _noted:
        _let_through()


def _unwrap_all(found: list[tuple[int, Any, Any]]) -> None:
    global _shut
    for number, handler, _ in found:
        if _get(number) is _handler:
            _set(number, handler)
    _shut = False
    try:
        if _noted:
            _let_through()
    finally:
        for number, _, before in found:
            _before[number] = before


def _let_through() -> None:
    """Call the handlers of what was noted. The first that raises ends it; the others come again."""
    numbers = list(_noted)
    _noted.clear()
    for at, number in enumerate(numbers):
        handler = _before[number]
        try:
            handler(number, sys._getframe(1))
        except BaseException:
            for other in numbers[at + 1 :]:
                _thread.interrupt_main(signal.Signals(other))
            raise


def openly(fn: Callable[..., _T], *args: Any) -> _T:
    """`fn(*args)`, which waits or is user code: signals are let through in it, and before it what was put off."""
    global _shut
    if not _shut or get_ident() != _main:
        return fn(*args)
    _shut = False
    try:
        if _noted:
            _shut = True
            _let_through()
            _shut = False
        return fn(*args)
    finally:
        _shut = True


def on_loop(fn: Callable[..., _T], *args: Any) -> _T:
    """`fn(*args)`, a callback or a step of a task on the running event loop. On a loop where the first Ctrl-C raises anywhere it is
    put off until the loop has its next turn: it then comes out of the loop itself, and tears nothing of ours."""
    begun = False
    try:
        if not raises_anywhere():
            begun = True
            return fn(*args)
        token = enter()
        begun = True
    except KeyboardInterrupt:
        if begun:
            raise
        come_again()
        return on_loop(fn, *args)
    try:
        return fn(*args)
    finally:
        if _noted and token is not None and not isinstance(token, bool):
            _leave_to_loop(token)
        else:
            leave(token)


def come_again() -> None:
    """Have an interrupt that came at the wrong time come when the running loop has its next turn."""
    # asyncio is not imported here: blocking clients do without
    sys.modules["asyncio"].get_running_loop().call_soon(signal.raise_signal, _SIGINT)


def _leave_to_loop(token: Token) -> None:
    loop = sys.modules["asyncio"]._get_running_loop()
    numbers = list(_noted) if loop is not None else []
    for number in numbers:
        loop.call_soon(signal.raise_signal, number)
        del _noted[number]
    leave(token)


class Stepped:
    """An awaitable: a coroutine whose steps are taken with signals put off, as `on_loop` does it. One that comes between two steps
    is put off, too."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work
        self._step: Callable[[Any], Any] | None = work.send
        self._value: Any = None  # for the next step
        self._got: Any = None
        self._error: BaseException | None = None
        self._done = False

    def _take_step(self) -> None:
        step, self._step = self._step, None
        assert step is not None
        try:
            self._got = step(self._value)
        except StopIteration as end:
            self._got, self._done = end.value, True
        except BaseException as error:
            self._error, self._done = error, True

    def __await__(self) -> Generator[Any, Any, Any]:
        while not self._done:
            while self._step is not None:
                try:
                    on_loop(self._take_step)
                except KeyboardInterrupt:  # which the step itself does not raise
                    come_again()
            if self._done:
                break
            try:
                self._value = yield self._got
                self._step = self._work.send
            except GeneratorExit:  # the loop is gone: nothing can be awaited any more
                self._work.close()
                raise
            except BaseException as error:
                self._value, self._step = error, self._work.throw
        if self._error is not None:
            raised, self._error = self._error, None
            try:
                raise raised
            finally:
                del raised  # it holds this frame
        return self._got


async def stepped(function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
    """A coroutine for a task: what `function(*args)` gives, in steps that no interrupt tears."""
    await Stepped(function(*args))


def put_off() -> bool:
    """Whether anything was, so that calls which go on and on without having to wait let it through."""
    return bool(_noted)


def whole(fn: _F) -> _F:
    """A function in which signals are put off."""

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        token = enter()
        try:
            return fn(*args, **kwargs)
        finally:
            leave(token)

    return cast(_F, call)


def _after_fork() -> None:
    global _main
    _main = get_ident()  # the thread that forked is the main one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
