"""What comes out of the engine: one small immutable record per event.

Fields named after parts of a performative hold decoded values (`values.decode_exact`); `error` is None when the peer
gave none. Records are NamedTuples: complete at birth, cheap to make, told apart by their class.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Error(NamedTuple):
    """An AMQP error (§2.8.14): why a peer, or the engine on its behalf, closed, ended, detached or rejected."""

    condition: bytes
    description: bytes | None
    info: dict[Any, Any] | None


class ConnState(NamedTuple):
    """The connection's state machine (§2.4.6) went from `old` to `new`; numbers of `c_uamqp.ConnectionState`."""

    old: int
    new: int


class SessionState(NamedTuple):
    session: int
    old: int
    new: int


class LinkState(NamedTuple):
    link: int
    old: int
    new: int


class SaslMechanisms(NamedTuple):
    """Client: what the server offers; `offered` is False when the wanted one is not among them."""

    names: list[str]
    offered: bool


class SaslInit(NamedTuple):
    """Server: the client chose `mechanism`; answer with `Engine.sasl_challenge` or `Engine.sasl_outcome`."""

    mechanism: str
    response: bytes | None
    hostname: str | None


class SaslChallenge(NamedTuple):
    data: bytes


class SaslResponse(NamedTuple):
    data: bytes


class SaslOutcome(NamedTuple):
    """Client: 0 ok, 1 auth, 2 sys, 3 sys-perm, 4 sys-temp (§5.3.3.6)."""

    code: int


class Open(NamedTuple):
    """The peer's open; `fields` maps field names with underscores (`max_frame_size`) to decoded values."""

    fields: dict[str, Any]


class Close(NamedTuple):
    error: Error | None


class Begin(NamedTuple):
    session: int
    reply: bool
    fields: dict[str, Any]


class End(NamedTuple):
    session: int
    error: Error | None


class Attach(NamedTuple):
    """The peer's attach. `sender`: our end is the sender. `reply`: it answers ours, else the peer asks."""

    link: int
    session: int
    reply: bool
    sender: bool
    fields: dict[str, Any]


class Detach(NamedTuple):
    link: int
    closed: bool
    error: Error | None


class Credit(NamedTuple):
    """Credit in hand on a link now. For a sender, `drain` asks to use it up or give it back (`Engine.drained`)."""

    link: int
    credit: int
    drain: bool
    available: int


class Delivery(NamedTuple):
    """A whole message has come in."""

    link: int
    delivery_id: int
    tag: bytes
    message_format: int
    settled: bool
    payload: bytes


class Settled(NamedTuple):
    """Deliveries first..last of one link have reached `outcome` (`UAM_OUT_*`). `settled`: the peer forgot them.
    `state` is the encoded delivery state, empty when there is none."""

    link: int
    first: int
    last: int
    outcome: int
    settled: bool
    state: bytes


class PeerError(NamedTuple):
    """The peer broke the protocol or fell silent; the engine has queued the frame that says so. scope: 0 connection,
    1 session (`id`), 2 link (`id`)."""

    scope: int
    id: int
    error: Error | None


class Late(NamedTuple):
    """The peer spoke on a channel that has just ended; that and what follows there is ignored for a while."""

    channel: int
    performative: str


class Lost(NamedTuple):
    """The transport is gone; the last record there is."""


Record = (
    ConnState
    | SessionState
    | LinkState
    | SaslMechanisms
    | SaslInit
    | SaslChallenge
    | SaslResponse
    | SaslOutcome
    | Open
    | Close
    | Begin
    | End
    | Attach
    | Detach
    | Credit
    | Delivery
    | Settled
    | PeerError
    | Late
    | Lost
)
