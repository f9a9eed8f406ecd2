"""The same tokens for the asyncio classes."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Any

from .._core.waiting.plan import run_async
from .._session.tokens import for_asyncio, no_wait_async
from .._typing import Unpack
from ..async_ops.session_async import SessionAsync
from ..async_ops.utils import get_dict_with_loop_if_needed
from ..constants import TransportType
from ..session import Options, Session
from .cbs_auth import CBSAuthMixin, JWTTokenAuth, SASTokenAuth, TokenRetryPolicy

__all__ = [
    "CBSAsyncAuthMixin",
    "CBSAuthMixin",
    "JWTTokenAsync",
    "JWTTokenAuth",
    "SASTokenAsync",
    "SASTokenAuth",
    "SessionAsync",
    "TokenRetryPolicy",
    "TransportType",
    "get_dict_with_loop_if_needed",
    "is_coroutine",
]


def is_coroutine(get_token: Any) -> bool:
    """True for a coroutine function, or a `functools.partial` of one; ValueError for anything else."""
    import inspect

    if inspect.iscoroutinefunction(get_token) or inspect.iscoroutinefunction(getattr(type(get_token), "__call__", 0)):  # noqa: B004  # it is asked what kind it is
        return True
    raise ValueError(f"get_token must be a coroutine function, not {type(get_token).__name__}")


class CBSAsyncAuthMixin(CBSAuthMixin):
    """`CBSAuthMixin` for the asyncio classes: `update_token` is a coroutine function, and so is whatever may call
    it."""

    @property
    def loop(self) -> None:
        """Always None: the loop is the one that runs."""
        return None

    def _own_session_type(self) -> type[Session]:
        return SessionAsync

    def create_authenticator(self, connection: Any, debug: bool = False, **kwargs: Unpack[Options]) -> Session:
        """Raises RuntimeError: it is `create_authenticator_async` here."""
        raise RuntimeError(for_asyncio(self))

    def handle_token(self) -> tuple[bool | None, bool | None]:
        """Raises RuntimeError: it is `handle_token_async` here."""
        raise RuntimeError(for_asyncio(self))

    async def create_authenticator_async(
        self, connection: Any, debug: bool = False, loop: AbstractEventLoop | None = None, **kwargs: Unpack[Options]
    ) -> Session:
        """As `CBSAuthMixin.create_authenticator`. Raises ValueError when a `loop` is given."""
        get_dict_with_loop_if_needed(loop)
        return await run_async(self._create_plan(connection, debug, **kwargs), no_wait_async)

    async def handle_token_async(self) -> tuple[bool | None, bool | None]:
        """As `CBSAuthMixin.handle_token`."""
        return await run_async(self._exchange().token_plan(), no_wait_async)

    async def close_authenticator_async(self) -> None:
        """As `CBSAuthMixin.close_authenticator`."""
        self.close_authenticator()


class SASTokenAsync(SASTokenAuth, CBSAsyncAuthMixin):
    """`SASTokenAuth` for the asyncio classes."""

    async def update_token(self) -> None:
        """As `SASTokenAuth.update_token`."""
        super().update_token()


class JWTTokenAsync(JWTTokenAuth, CBSAsyncAuthMixin):
    """`JWTTokenAuth` for the asyncio classes: `get_token` is a coroutine function."""

    def _check_get_token(self, get_token: Any) -> None:
        is_coroutine(get_token)

    async def create_authenticator_async(
        self, connection: Any, debug: bool = False, loop: AbstractEventLoop | None = None, **kwargs: Unpack[Options]
    ) -> Session:
        """As that of `CBSAsyncAuthMixin`; asks for the first token."""
        return await super().create_authenticator_async(connection, debug, loop, **kwargs)

    async def update_token(self) -> None:
        """Await `get_token()`. Raises what it raises, and ValueError when that was no token."""
        self._take(await self.get_token())
