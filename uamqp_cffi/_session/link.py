"""What the two ends of a link have in common: name, modes, states, attaching, and what breaks it.

Records come in under the session's lock, and only bookkeeping is done there; user code runs after it, in `_calls`.
"""

from __future__ import annotations

import logging
import uuid
import weakref
from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeVar

from .. import constants, errors, types
from .._arguments import is_policy, not_pickled
from .._core.engine.records import Attach, Credit, Detach, PeerError, Record
from .._core.engine.values import (
    composite,
    enc_bool,
    enc_str,
    enc_symbol,
    enc_ubyte,
    enc_uint,
    enc_ulong,
    encode,
    symbol_map,
    symbols,
)
from .._core.waiting.callbacks import Calls
from .._core.waiting.interrupts import whole
from .._native.values import AMQPValue
from ..session import Session
from .outcomes import peer_error

_L = TypeVar("_L", bound="Link")
Capabilities = AMQPValue | types.AMQPType | Sequence[str | bytes]


def _mode(value: Any, kind: type[Any], name: str) -> Any:
    try:
        return value if isinstance(value, kind) else kind(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a {kind.__name__}, not {value!r}") from error


class NativeLink:
    """What is reached for below a sender or receiver as `_link`."""

    def __init__(self, name: bytes, owner: Link) -> None:
        self.name = name
        self.peer_max_message_size = 0
        """The peer's limit in bytes; 0 when it has none, or has not said."""
        self._owner = weakref.ref(owner)  # which has us: a circle would wait for the cyclic collector

    def set_prefetch_count(self, prefetch: int) -> None:
        """A receiver's credit from its next FLOW on. The FLOW of a sender has no number of its own, so for one nothing
        happens."""
        owner = self._owner()
        if owner is not None:
            owner._set_prefetch(prefetch)


class Link:
    """One end of a link on `session`; see `MessageSender` and `MessageReceiver` for the arguments."""

    _kind = "link"
    _states: Any = None  # the enumeration of its states
    _far = ""  # the terminus that stands for the peer's node
    _largest = (1 << 64) - 1  # max-message-size that can be announced, in bytes
    _logger: logging.Logger

    def __init__(
        self,
        session: Session,
        name: str | bytes | None,
        send_settle_mode: constants.SenderSettleMode,
        receive_settle_mode: constants.ReceiverSettleMode,
        max_message_size: int,
        properties: dict[Any, Any] | None,
        error_policy: errors.ErrorPolicy | None,
        debug: bool,
        encoding: str,
        desired_capabilities: Capabilities | None,
    ) -> None:
        is_policy(error_policy)
        if name:
            self.name: bytes = name.encode(encoding) if isinstance(name, str) else name
        else:
            self.name = str(uuid.uuid4()).encode(encoding)
        self.error_policy: errors.ErrorPolicy = error_policy or errors.ErrorPolicy()
        self._conn = session._connection
        self._session = session
        self._encoding = encoding
        self._debug = debug
        self._properties = properties
        self._desired_capabilities = desired_capabilities
        self._snd_mode = _mode(send_settle_mode, constants.SenderSettleMode, "send_settle_mode")
        self._rcv_mode = _mode(receive_settle_mode, constants.ReceiverSettleMode, "receive_settle_mode")
        # PeekLock is the default, and brokers that know only the other mode refuse a link that asks for it: on the wire
        # the mode stands when it was chosen.
        self._rcv_chosen = self._rcv_mode is not constants.ReceiverSettleMode.PeekLock
        # 1 MiB is uamqp's default, which nobody chose: announced, it makes brokers end the session over a larger message,
        # again and again. So a size stands on the wire when it was chosen.
        self._max_message_size = max_message_size
        self._size_chosen = max_message_size != constants.MAX_MESSAGE_LENGTH_BYTES
        self._link = NativeLink(self.name, self)
        self._state = self._states.Idle
        self._latest = self._states.Idle  # the same before an overridden on_state_changed was told
        self._error: BaseException | None = None
        self._id = 0
        self._credit = 0
        self._asked = ""  # the address on the wire
        self._client: Any = None  # the client that this link belongs to
        self._calls = Calls()
        self._own_hook = type(self).on_state_changed is not Link.on_state_changed

    def __repr__(self) -> str:
        name = self.name.decode(self._encoding, "replace") if isinstance(self.name, bytes) else self.name
        far = getattr(self, self._far, None)
        return f"<{type(self).__name__} {name!r} {far!s}, {self._latest.name}, credit {self._credit}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise not_pickled(self)

    def __enter__(self: _L) -> _L:
        self.open()
        return self

    def __exit__(self, *args: object) -> None:
        self.destroy()

    @property
    def send_settle_mode(self) -> int:
        mode: int = self._snd_mode.value
        return mode

    @send_settle_mode.setter
    def send_settle_mode(self, value: constants.SenderSettleMode | int) -> None:
        self._snd_mode = _mode(value, constants.SenderSettleMode, "send_settle_mode")

    @property
    def receive_settle_mode(self) -> int:
        mode: int = self._rcv_mode.value
        return mode

    @receive_settle_mode.setter
    def receive_settle_mode(self, value: constants.ReceiverSettleMode | int) -> None:
        self._rcv_mode = _mode(value, constants.ReceiverSettleMode, "receive_settle_mode")
        self._rcv_chosen = True

    @property
    def max_message_size(self) -> int:
        return self._max_message_size

    @max_message_size.setter
    def max_message_size(self, value: int) -> None:
        self._max_message_size = int(value)
        self._size_chosen = True

    @whole
    def get_state(self) -> Any:
        """The state of the link. Raises the error that broke it, or its session or connection."""
        self._pump()
        error = self._broken()
        if error is not None:
            raise errors.afresh(error)
        return self._state

    @whole
    def open(self) -> None:
        """Begin to attach. Does not wait: `get_state` is Open once the peer has answered."""
        if self._id:
            return
        self._conn._look_first()
        self._set_state(self._states.Opening)
        self._id = self._session._attach(self, self._performative())
        self._conn._flush()

    @whole
    def close(self) -> None:
        """Detach the link for good. Repeatable."""
        session = self._session
        if self._id and self._latest not in (self._states.Idle, self._states.Error):
            self._conn._read_dry()
        with session._lock:
            session._dispatch()
            self._leave()
            if self._id and self._latest not in (self._states.Idle, self._states.Error):
                self._set_state(self._states.Closing)
                session._detach(self._id)
                self._set_state(self._states.Idle)
            self._credit = 0
            self._left()
        self._conn._flush()
        self._calls.run()

    def destroy(self) -> None:
        """Detach the link for good. Repeatable."""
        self.close()

    @whole
    def work(self) -> None:
        """Take in what has come for this link, do what can be done, and call back. Raises the error that broke it."""
        self._pump()
        error = self._broken()
        if error is not None:
            raise errors.afresh(error)

    def on_state_changed(self, previous_state: Any, new_state: Any) -> None:
        """Called at each change of state. Who overrides it calls this: it is what keeps the state."""
        self._logger.info("%s %r: %r -> %r", self._kind, self.name, previous_state, new_state)
        self._state = new_state

    # what an end has of its own; under the session's lock

    def _fields(self) -> dict[str, bytes | None]:
        """Its part of the ATTACH, and in `_asked` the address that it asks for."""
        raise NotImplementedError

    def _leave(self) -> None:
        """Before the DETACH."""

    def _left(self) -> None:
        """After it."""

    def _came(self, record: Record) -> None:
        """A delivery or settlement."""

    def _credited(self, record: Credit) -> None:
        self._credit = record.credit

    def _opened(self) -> None:
        """The peer has attached."""

    def _over(self) -> None:
        """The link broke."""

    def _torn(self) -> None:
        """Ctrl-C tore the bookkeeping apart."""
        self._broke(self._error)

    def _set_prefetch(self, prefetch: int) -> None: ...

    # attaching

    def _performative(self) -> bytes:
        fields: dict[str, bytes | None] = {
            "name": enc_str(self.name),
            "handle": enc_uint(0),
            "role": enc_bool(self._far == "source"),
            "snd_settle_mode": enc_ubyte(self._snd_mode.value),
            **self._fields(),
        }
        if self._rcv_chosen:
            fields["rcv_settle_mode"] = enc_ubyte(self._rcv_mode.value)
        if self._size_chosen and self._max_message_size:
            fields["max_message_size"] = enc_ulong(min(self._max_message_size, self._largest))
        if self._desired_capabilities is not None:
            fields["desired_capabilities"] = self._capabilities(self._desired_capabilities)
        if self._properties:
            fields["properties"] = symbol_map(self._properties, self._encoding)
        return composite("attach", **fields)

    def _capabilities(self, wanted: Any) -> bytes:
        """Names, one or a list of them, are symbols (§2.7.3); what has an AMQP type already keeps it."""
        if isinstance(wanted, (str, bytes)):
            return enc_symbol(wanted)
        if type(wanted) in (list, tuple) and all(isinstance(name, (str, bytes)) for name in wanted):
            return symbols(wanted)
        return encode(wanted, self._encoding)

    def _set_state(self, new: Any) -> None:
        old, self._latest = self._latest, new
        if old is new:
            return
        if self._own_hook:
            self._calls.add(self.on_state_changed, old, new)
        else:
            self.on_state_changed(old, new)

    def _broken(self) -> BaseException | None:
        if self._error is not None:
            return self._error
        if self._session._error is not None:
            return self._session._error
        failure: BaseException | None = self._conn._failure
        return failure

    def _pump(self) -> None:
        session = self._session
        with session._lock:
            session._dispatch()
        session._calls.run()
        self._calls.run()

    # records, under the session's lock

    def _on_record(self, record: Record) -> None:
        if type(record) is Credit:
            self._credited(record)
        elif type(record) is Attach:
            self._attached(record)
        elif type(record) is Detach:
            if self._latest is not self._states.Closing:
                self._fail(peer_error(record.error, "the peer detached the link"), refused=True)
        elif type(record) is PeerError:
            self._fail(peer_error(record.error, "the peer broke the rules of the link"))
        else:
            self._came(record)

    def _on_deliveries(self, run: list[Any]) -> None:
        for record in run:
            self._on_record(record)

    def _attached(self, record: Attach) -> None:
        self._link.peer_max_message_size = record.fields["max_message_size"] or 0
        if record.fields[self._far] is not None or not self._asked:
            self._set_state(self._states.Open)
            self._opened()

    def _hint(self, error: BaseException, refused: bool) -> str:
        """What the user can do about what broke the link; empty if there is nothing to say."""
        if not refused or self._latest is not self._states.Opening or "://" not in self._asked:
            return ""
        return (
            f"the address sent was {self._asked!r}; a peer that wants the bare name of a node gets it by "
            f"address=, or by a {self._far.capitalize()} without scheme and host"
        )

    def _fail(self, error: tuple[bytes, str | bytes | None, dict[Any, Any] | None], refused: bool = False) -> None:
        if self._error is not None:
            return
        self._error = self._conn._told(errors.process_link_error(self.error_policy, *error))
        self._broke(self._error, refused)

    def _on_session_lost(self, error: BaseException, torn: bool = False) -> None:
        own = errors.afresh(error)  # the session's is for all its links, and says nothing of this one
        own.__suppress_context__ = True
        self._error = own
        if torn:
            self._torn()
        else:
            self._broke(own, self._session._refused)

    def _broke(self, error: BaseException | None, refused: bool = False) -> None:
        if error is not None and (hint := self._hint(error, refused)):
            error.args = (f"{error} ({hint})",)
        # Event Hubs redirects all receivers
        asked_for = self._far == "source" and isinstance(error, errors.LinkRedirect)
        self._logger.log(logging.INFO if asked_for else logging.WARNING, "%s %r: %r", self._kind, self.name, error)
        self._credit = 0
        self._over()
        self._set_state(self._states.Error)
        self._session._inbox.poke_all()
