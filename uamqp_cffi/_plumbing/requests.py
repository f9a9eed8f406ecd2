"""Management requests and tokens by the links of `c_uamqp`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .._core.time import monotonic
from .._core.waiting.callbacks import Calls
from .._native.constants import CBS_OPEN_COMPLETE_OK, CBS_OPERATION_RESULT_OK
from .._native.messages import cMessage
from .._native.sections import _bytes
from .._native.values import StructBase
from .._public import show_as
from .._session import requests as mgmt
from ..constants import CBSAuthStatus, MessageBodyType
from ..message import Message
from .common import _made, _tell
from .sessions import cSession
from .transports import _instance

__all__ = ["CBSTokenAuth", "cManagementOperation", "create_management_operation"]

# ---- requests -------------------------------------------------------------------------------------------------------

_OK, _ERROR, _BAD_STATUS, _CLOSED = 1, 2, 3, 4
_CANCELLED = 3

_Done = Callable[[int, int, "bytes | None", "cMessage | None"], object]


class _Requests(StructBase):
    """A pair of links to a node, and what waits for answers on it."""

    _status_field, _description_field = b"statusCode", b"statusDescription"

    def __init__(self) -> None:
        self._session: cSession | None = None
        self._node: mgmt.Node | None = None
        self._pending: list[tuple[mgmt.Answer, _Done]] = []
        self._opening = False
        self._opened = False
        self._broken = False
        self._calls = Calls()

    def _join(self, owner: cSession, node: bytes) -> None:
        self._node = mgmt.Node(_made(owner._real, cSession), node)
        self._session = owner
        owner._parts.append(self)

    def _open(self) -> None:
        self._opening = True
        _made(self._node, type(self)).open()

    def _submit(self, message: Message, operation: bytes, kind: bytes, locales: bytes | None, done: _Done) -> None:
        node = _made(self._node, type(self))
        if node.error is not None:
            raise node.error
        with node.session._lock:
            _, answer = node.submit(message, operation, kind, locales=locales)
        self._pending.append((answer, done))
        node.session._connection._flush()

    def _work(self) -> None:
        node = self._node
        if node is None:
            return
        failure = node.error or node.session._error or node.session._connection._failure
        if self._opening and (node.ready or failure is not None):
            self._opening = False
            self._opened = failure is None
            self._calls.add(self._open_complete, _OK if failure is None else _ERROR)
        elif self._opened and failure is not None and not self._broken:
            self._broken = True
            self._calls.add(self._went_wrong)
        waiting, self._pending = self._pending, []
        for answer, done in waiting:
            if answer.message is not None:
                self._calls.add(done, *self._read(answer.message))
            elif answer.error is not None or failure is not None:
                self._calls.add(done, _ERROR, 0, None, None)
            else:
                self._pending.append((answer, done))
        self._calls.run()

    def _read(self, message: Message) -> tuple[int, int, bytes | None, cMessage | None]:
        """Result, status, description and answer."""
        try:
            status, _, description = mgmt._read(message, self._status_field, self._description_field)
        except ValueError:
            return _ERROR, 0, None, message.get_message()
        return (_OK if 200 <= status <= 299 else _BAD_STATUS), status, description, message.get_message()

    def _open_complete(self, result: int) -> None:
        """The links are attached, or will not be."""

    def _went_wrong(self) -> None:
        """They went away."""

    def close(self) -> None:
        """Detach the links; who waits hears that it is closed. Repeatable."""
        node, self._node = self._node, None
        if node is None:
            return
        node.close()
        if self._opening:
            self._opening = False
            self._calls.add(self._open_complete, _CANCELLED)
        waiting, self._pending = self._pending, []
        for _, done in waiting:
            self._calls.add(done, _CLOSED, 0, None, None)
        if self._session is not None and self in self._session._parts:
            self._session._parts.remove(self)
        self._calls.run()

    def destroy(self) -> None:
        """Detach the links. Repeatable."""
        self.close()

    def set_trace(self, value: bool) -> None:
        """See `Connection.set_trace`: it is the connection that has a trace."""
        owner = None if self._session is None else self._session._owner
        _made(owner, type(self)).set_trace(value)


class cManagementOperation(_Requests):
    """Requests to a management node. `_management_open_complete(result)`, a number of `MgmtOpenStatus`, and
    `_management_operation_error()` are called on the context of `open`."""

    def __init__(self) -> None:
        super().__init__()
        self._context: Any = None

    def set_response_field_names(self, status_code: bytes, status_description: bytes) -> None:
        """Names of the answer's application properties with status and description."""
        self._status_field = _bytes("status_code", status_code)
        self._description_field = _bytes("status_description", status_description)

    def open(self, callback_context: Any) -> None:
        """Begin to attach the links."""
        self._context = callback_context
        self._open()

    def execute(
        self, operation: bytes, type: bytes, locales: bytes | None, message: cMessage, callback_context: _Done
    ) -> None:
        """Send a request. `callback_context(result, status, description, answer)` is called when it is over: a number of
        `MgmtExecuteResult` (Ok for a status of 200 to 299), bytes or None, a cMessage or None."""
        ours = Message(message=_instance(cMessage, "message", message).clone())
        self._submit(ours, operation, type, locales, callback_context)

    def _open_complete(self, result: int) -> None:
        _tell(self._context, "_management_open_complete", result)

    def _went_wrong(self) -> None:
        _tell(self._context, "_management_operation_error")


def create_management_operation(session: cSession, management_node: bytes) -> cManagementOperation:
    """Requests to that node of the session's peer."""
    made = cManagementOperation()
    made._join(_instance(cSession, "session", session), _bytes("management_node", management_node))
    return made


class CBSTokenAuth(_Requests):
    """Puts a token to the peer's $cbs node, and says when it has to be put again.

    audience, token_type, token: bytes. expires_at: seconds since the epoch. timeout: seconds for an answer. connection_id is
    kept. refresh_window: seconds before the end at which a refresh is due; 0: a tenth of what is left now.
    """

    _status_field, _description_field = b"status-code", b"status-description"

    def __init__(
        self,
        audience: bytes,
        token_type: bytes,
        token: bytes,
        expires_at: int,
        session: cSession,
        timeout: int,
        connection_id: bytes,
        refresh_window: int,
    ) -> None:
        super().__init__()
        self._audience = _bytes("audience", audience)
        self._token_type = _bytes("token_type", token_type)
        self._token = _bytes("token", token)
        self._timeout = timeout
        self._connection_id = connection_id
        self._window = refresh_window
        self._set_end(expires_at)
        self._status = CBSAuthStatus.Idle
        self._since = 0.0
        self._failure: tuple[int, bytes] = (0, b"")
        self._join(_instance(cSession, "session", session), b"$cbs")

    def _set_end(self, expires_at: int) -> None:
        self._expires_at = int(expires_at)
        self._margin = self._window or max(0, (self._expires_at - int(time.time())) // 10)

    def authenticate(self) -> None:
        """Put the token. `get_status` says how it goes."""
        self._status = CBSAuthStatus.InProgress
        self._since = monotonic()
        self._open()
        self._put()

    def refresh(self, refresh_token: bytes, expires_at: int) -> None:
        """Put a new token on the same links."""
        self._token = _bytes("refresh_token", refresh_token)
        self._set_end(expires_at)
        self._status = CBSAuthStatus.InProgress
        self._since = monotonic()
        self._put()

    def _put(self) -> None:
        message = Message(
            self._token.decode("utf-8", "surrogateescape"),
            application_properties={"name": self._audience},
            body_type=MessageBodyType.Value,
        )
        self._submit(message, b"put-token", self._token_type, None, self._answered)

    def _answered(self, result: int, status: int, description: bytes | None, answer: cMessage | None) -> None:
        self.on_cbs_put_token_complete(result, status, description)

    def get_status(self) -> int:
        """A number of `CBSAuthStatus`."""
        now = time.time()
        status = self._status
        if status is CBSAuthStatus.InProgress and monotonic() - self._since >= self._timeout:
            status = CBSAuthStatus.Timeout
        elif status is CBSAuthStatus.Ok and now >= self._expires_at:
            status = CBSAuthStatus.Expired
        elif status is CBSAuthStatus.Ok and self._expires_at - now <= self._margin:
            status = CBSAuthStatus.RefreshRequired
        return status.value

    def get_failure_info(self) -> tuple[int, bytes]:
        """Status code and description of the peer's refusal."""
        return self._failure

    def on_cbs_open_complete(self, result: int) -> None:
        """The links are attached (1), or will not be. Called by `do_work`."""
        if result != CBS_OPEN_COMPLETE_OK:
            self._status = CBSAuthStatus.Error

    def on_cbs_error(self) -> None:
        """The links went away. Called by `do_work`."""
        self._status = CBSAuthStatus.Error

    def on_cbs_put_token_complete(self, result: int, status_code: int, status_description: bytes | None) -> None:
        """The peer has answered (1: accepted). Called by `do_work`."""
        if result == CBS_OPERATION_RESULT_OK:
            self._status = CBSAuthStatus.Ok
            return
        self._failure = status_code, status_description or b""
        self._status = CBSAuthStatus.Failure if result == _BAD_STATUS else CBSAuthStatus.Error

    def set_trace(self, trace_on: bool) -> None:
        """See `Connection.set_trace`: it is the connection that has a trace."""
        super().set_trace(trace_on)

    def _open_complete(self, result: int) -> None:
        self.on_cbs_open_complete(result)

    def _went_wrong(self) -> None:
        self.on_cbs_error()


show_as("c_uamqp", *map(globals().get, __all__))
