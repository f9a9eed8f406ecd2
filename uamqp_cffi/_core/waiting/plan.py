"""Plans: what has to happen, written once; drivers know how to wait.

A plan is a generator that yields `Wait` (until something came for an inbox) or `Call` (run this function; a user's
token getter may be a coroutine, which only the asyncio runner awaits) and returns its result. It does no I/O and never
sleeps. Errors of the connection are thrown into it at its `yield`, so its `try`/`finally` works.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, TypeVar

from ..engine.records import Record
from . import interrupts

T = TypeVar("T")


class Inbox:
    """Where the records of one client arrive, and the thing its waiting thread waits for."""

    __slots__ = ("__weakref__", "_notify", "poked", "records")

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.poked: bool = False
        self._notify: Callable[[], object] | None = None

    def poke(self) -> None:
        """End the wait on this inbox, now or when it begins; any thread may call it."""
        self.poked = True
        notify = self._notify
        if notify is not None:
            notify()

    def poke_all(self) -> None:
        """The same for everybody who waits by this inbox."""
        self.poke()

    def poke_followers(self) -> None:
        """The same for those of them who do not wait on this very one."""

    def serves(self, other: Inbox) -> bool:
        """Whether who waits on `other` sees to what comes here."""
        return other is self

    def relieve(self) -> None:
        """Have what is here taken in by whom it concerns, though nobody waits."""

    def keep(self) -> None:
        """The same, and their callbacks called."""

    def wait_with(self, notify: Callable[[], object] | None) -> None:
        """For drivers: what `poke` is to call while somebody waits here."""
        self._notify = notify

    def ready(self) -> bool:
        """Whether a wait has ended. Takes the poke back; records stay."""
        if self.poked:
            self.poked = False
            return True
        return bool(self.records)


class Wait(NamedTuple):
    """Wait until `inbox` holds records or was poked. The `yield` gives True then, and False when the clock
    (`time.monotonic`, seconds) came to `deadline` first; None waits as long as the connection lives."""

    inbox: Inbox
    deadline: float | None = None


class Call(NamedTuple):
    """Call `fn(*args)`; the `yield` gives its result, or raises what it raised. `run_async` awaits a result that can be
    awaited."""

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()


def earlier(one: float | None, other: float | None) -> float | None:
    """The first of two deadlines; None never comes."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


Plan = Generator[Wait | Call, Any, T]


def run(plan: Plan[T], wait: Callable[[Inbox, float | None], bool]) -> T:
    """Drive `plan` to its end with a blocking `wait(inbox, deadline)` and give its result. Signals are put off in all of it,
    but for where it waits and where it runs user code."""
    step: Callable[[Any], Wait | Call] = plan.send
    value: Any = None
    token = interrupts.enter()
    try:
        while True:
            try:
                request = step(value)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                if isinstance(request, Wait):
                    value = wait(request.inbox, request.deadline)
                else:
                    value = request.fn(*request.args)
                step = plan.send
            except BaseException as error:  # the plan decides, also about KeyboardInterrupt
                value = error
                step = plan.throw
    finally:
        try:
            plan.close()
        finally:  # whatever that raises
            interrupts.leave(token)


def run_async(plan: Plan[T], wait: Callable[[Inbox, float | None], Awaitable[bool]]) -> Awaitable[T]:
    """Drive `plan` to its end with a `wait(inbox, deadline)` to be awaited. A cancellation is thrown into the plan, as all
    errors are, and comes out of it once its `finally` clauses are done. Await what this gives at once."""
    work = _drive(plan, wait)
    return interrupts.Stepped(work) if interrupts.raises_anywhere() else work


async def _drive(plan: Plan[T], wait: Callable[[Inbox, float | None], Awaitable[bool]]) -> T:
    step: Callable[[Any], Wait | Call] = plan.send
    value: Any = None
    try:
        while True:
            try:
                request = step(value)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                if isinstance(request, Wait):
                    value = await wait(request.inbox, request.deadline)
                else:
                    value = request.fn(*request.args)
                    if hasattr(value, "__await__"):
                        value = await value
                step = plan.send
            except GeneratorExit:  # the loop is gone: nothing can be awaited any more
                raise
            except BaseException as error:  # the plan decides, also about CancelledError
                value = error
                step = plan.throw
    finally:
        plan.close()


def blocking(target: Any, name: str) -> Any:
    """The method of that name, for plans that blocking classes run."""
    return getattr(target, name)


def awaiting(target: Any, name: str) -> Any:
    """The `_async` twin of the method of that name, for plans that asyncio classes run."""
    return getattr(target, name + "_async", None) or getattr(target, name)


def refuse_coroutine(got: Any, why: str) -> None:
    """Raises RuntimeError for a coroutine: nobody in this thread awaits it."""
    if hasattr(got, "__await__"):
        close = getattr(got, "close", None)
        if close is not None:
            close()
        raise RuntimeError(why)
