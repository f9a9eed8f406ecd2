"""The embedded broker's `$cbs` node: clients put tokens to it (AMQP claims-based security), a function judges them.

A token that was welcome is a permit of its connection: links to the address that is its audience, and to all below it,
may attach until it expires. Of tokens nothing is kept but audience and expiry.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import math
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, unquote_plus

from .._core.engine import lib
from .._core.engine import values as v
from .._core.engine.records import Delivery
from .core import Core, PeerPort
from .management import UNREADABLE, parse, respond
from .queues import CBS, NODES, IncomingLink, node_name
from .scripts import Answer, Check, Outcome, Verdict

_log = logging.getLogger("uamqp.broker")

_MAX_PERMITS = 1000
_LONGEST = 86_400_000  # milliseconds that a timer may run; nobody can sleep for years
_SAS = "SharedAccessSignature "
UNAUTHORIZED = Verdict(401, "Unauthorized")


def as_check(tokens: Mapping[str, str] | Callable[[str, str, str], Any] | None) -> Check | None:
    """The judge of tokens that `Broker(tokens=...)` means."""
    if tokens is None:
        return None
    if isinstance(tokens, Mapping):
        return _signed_with(dict(tokens))
    if not callable(tokens):
        raise TypeError(f"tokens must be a dict of keys or a function, not {type(tokens).__name__}")
    judge = tokens

    def check(audience: str, token_type: str, token: str) -> Verdict:
        return _as_verdict(judge(audience, token_type, token))

    return check


def _as_verdict(given: Any) -> Verdict:
    if given is None or given is True:
        return Verdict()
    if given is False:
        return UNAUTHORIZED
    if isinstance(given, int):
        return Verdict(given, "" if not 200 <= given <= 299 else "Accepted")
    verdict = Verdict(*given)
    if verdict.status is not None and not isinstance(verdict.status, int):
        raise TypeError(f"the status of a verdict must be an int, not {type(verdict.status).__name__}")
    return verdict


def _signed_with(keys: dict[str, str]) -> Check:
    """Welcomes shared access signatures made with one of these keys, for their own resource, before their expiry."""

    def check(audience: str, token_type: str, token: str) -> Verdict:
        fields = _signature(token)
        if fields.keys() < {"sr", "sig", "se", "skn"}:
            return Verdict(401, "InvalidSignature: this is no shared access signature")
        expires_at = _expiry(fields)
        key = keys.get(unquote_plus(fields["skn"]))
        made = hmac.new((key or "").encode(), f"{fields['sr']}\n{fields['se']}".encode(), hashlib.sha256).digest()
        right = hmac.compare_digest(base64.b64encode(made), unquote(fields["sig"]).encode())
        if key is None or not right:
            return Verdict(401, "InvalidSignature: the token has an invalid signature")
        if not _below(node_name(audience), node_name(unquote_plus(fields["sr"]))):
            return Verdict(401, "InvalidAudience: the token is for another resource")
        if expires_at is None or expires_at <= time.time():
            return Verdict(401, "ExpiredToken: the token has expired")
        return Verdict(expires_at=expires_at)

    return check


def _signature(token: str) -> dict[str, str]:
    """The fields of a shared access signature; none for anything else."""
    if not token.startswith(_SAS):
        return {}
    parts = (part.partition("=") for part in token[len(_SAS) :].split("&"))
    return {name: value for name, _, value in parts}


def _expiry(fields: dict[str, str]) -> float | None:
    text = fields.get("se", "")
    return float(text) if text.isdecimal() and len(text) <= 12 else None


def _below(name: str, top: str) -> bool:
    """Whether an audience `top` covers a node; Azure's names do not tell cases apart."""
    name, top = name.rstrip("/").casefold(), top.rstrip("/").casefold()
    return not top or name == top or name.startswith(top + "/")


class Permits:
    """The tokens of one connection: their audiences, and until when (milliseconds on the core's clock)."""

    def __init__(self, peer: PeerPort) -> None:
        self._peer = weakref.ref(peer)  # timers outlive connections
        self._core = peer.core
        self._until: dict[str, float] = {}
        self._timers = 0

    def cover(self, name: str | None) -> bool:
        """Whether a link to this node may be. Without a name (anonymous relay, dynamic) and for nodes that are no
        queues any token will do."""
        if not self._core.settings.tokens_required or self._core.settings.tokens is None or name == CBS:
            return True
        now = self._core.now
        valid = [top for top, until in self._until.items() if until > now]
        return bool(valid) if name is None or name in NODES else any(_below(name, top) for top in valid)

    @property
    def full(self) -> bool:
        return self._timers >= _MAX_PERMITS or len(self._until) >= _MAX_PERMITS

    def add(self, audience: str, expires_at: float | None) -> None:
        """A token is welcome until `expires_at`, seconds since the epoch; None: for ever."""
        until = math.inf
        if expires_at is not None and expires_at < math.inf:
            left = max(0.0, expires_at - time.time()) * 1000
            until = self._core.now + left
            self._arm(left)
        self._until[node_name(audience)] = until

    def _arm(self, left: float) -> None:
        self._timers += 1
        self._core.after(min(left, _LONGEST), self._sweep)

    def _sweep(self) -> None:
        self._timers -= 1
        now = self._core.now
        over = [top for top, until in self._until.items() if until <= now]
        for top in over:
            del self._until[top]
        coming = min(self._until.values(), default=math.inf)
        if not self._timers and coming < math.inf:
            self._arm(coming - now)
        peer = self._peer()
        if over and peer is not None and not peer.ended:
            peer.guard(peer.expired)


def handle(core: Core, link: IncomingLink, delivery: Delivery) -> Outcome:
    """Answer one put-token. The outcome of the request itself: accepted, or rejected when it cannot be read."""
    try:
        request = parse(delivery.payload)
        token = getattr(v.decode_exact(request.body), "value", None) if request.body else None
    except (lib.DecodeError, ValueError, TypeError):
        return UNREADABLE
    audience = request.application.get("name")
    verdict = _judge(core, link.peer.permits, request.application, audience, token)
    if verdict.welcome and isinstance(audience, str):
        link.peer.permits.add(audience, verdict.expires_at)
    _log.debug("%r: put-token for %.200r: %s", link.peer, audience, verdict.status)
    answer = Answer(verdict.status, verdict.description)
    return respond(core, link, request._replace(body=b"", application={}), answer)  # never the token back


def _judge(core: Core, permits: Permits, fields: dict[str, Any], audience: Any, token: Any) -> Verdict:
    operation, token_type = fields.get("operation"), fields.get("type")
    if operation != "put-token":
        return Verdict(501, f"{CBS} knows no operation {operation!r:.100}")
    if not (isinstance(audience, str) and isinstance(token_type, str) and isinstance(token, str)):
        return Verdict(400, "a put-token has name, type and, as its value, the token: strings all")
    if permits.full:
        return Verdict(429, "too many tokens on this connection")
    check = core.settings.tokens
    if check is None:
        return UNAUTHORIZED
    try:
        verdict = check(audience, token_type, token)
    except Exception as error:
        _log.exception("the function for tokens failed")
        return Verdict(500, f"the function for tokens raised {type(error).__name__}")
    if verdict.welcome and verdict.expires_at is None:
        verdict = verdict._replace(expires_at=_expiry(_signature(token)))
    return verdict
