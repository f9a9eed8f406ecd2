"""How the embedded broker misbehaves on request: the outcomes and failures of a script, and errors for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from .._core.engine import lib
from .._core.engine import values as v

Failure = Literal["attach", "detach", "end", "close", "drop", "hang"]
FAILURES = ("attach", "detach", "end", "close", "drop", "hang")
OUTCOMES = ("accepted", "rejected", "released", "modified", "none", "bare")

_DEFAULT_CONDITIONS = {
    "attach": "amqp:not-found",
    "detach": "amqp:link:detach-forced",
    "end": "amqp:resource-deleted",
    "close": "amqp:connection:forced",
}

_MOST = {"delay": 4_000_000, "credit": 0xFFFFFFFF, "max_message_size": (1 << 64) - 1}
_MAX_STATE = 4096  # UAM_MAX_STATE of csrc/limits.h
LONGEST = 500  # characters of a description that has a peer's words in it


def encode_error(condition: str, description: str | None = None, info: dict[Any, Any] | None = None) -> bytes:
    """An `error` (§2.8.14) as the engine takes it. `info` keys become symbols."""
    fields: dict[str, bytes] = {"condition": v.enc_symbol(condition)}
    if description is not None:
        fields["description"] = v.enc_str(description)
    if info:
        fields["info"] = v.enc_map((v.enc_symbol(str(k)), v.encode(x)) for k, x in info.items())
    return _whole("error", fields)


def _whole(name: str, fields: dict[str, bytes]) -> bytes:
    """A composite with absent fields at the end as nulls, like the performatives of our engine (OPT_EXPLICIT). Raises
    ValueError for more than the engine takes."""
    code, names = lib.FIELDS[name]
    encoded = v.enc_described(code, v.enc_list(fields.get(field, v.NULL) for field in names))
    if len(encoded) > _MAX_STATE:
        raise ValueError(f"{name} of {len(encoded)} bytes, and no more than {_MAX_STATE} can be sent")
    return encoded


class Refused(Exception):
    """An attach that gets a null terminus and this error."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(description)
        self.error = encode_error(condition, description[:LONGEST])


@dataclass(frozen=True)
class Outcome:
    """What the broker answers to a message: `name` is accepted, rejected, released, modified, `bare` (settled without a
    state) or `none` (never settled). The other fields count where AMQP has a place for them (§3.4)."""

    name: str = "accepted"
    condition: str | None = None
    description: str | None = None
    info: dict[Any, Any] | None = None
    delivery_failed: bool | None = None
    undeliverable_here: bool | None = None
    annotations: dict[Any, Any] | None = None

    def __post_init__(self) -> None:
        if self.name not in OUTCOMES:
            raise ValueError(f"outcome {self.name!r} is none of {', '.join(OUTCOMES)}")

    def encode(self) -> bytes:
        """The delivery state; empty for `none` and `bare`."""
        if self.name in ("none", "bare"):
            return b""
        fields: dict[str, bytes] = {}
        if self.name == "rejected" and (self.condition or self.description or self.info):
            fields["error"] = encode_error(self.condition or "amqp:not-allowed", self.description, self.info)
        if self.name == "modified":
            if self.delivery_failed is not None:
                fields["delivery_failed"] = v.enc_bool(self.delivery_failed)
            if self.undeliverable_here is not None:
                fields["undeliverable_here"] = v.enc_bool(self.undeliverable_here)
            if self.annotations:
                pairs = ((v.enc_symbol(str(k)), v.encode(x)) for k, x in self.annotations.items())
                fields["message_annotations"] = v.enc_map(pairs)
        return _whole(self.name, fields)


@dataclass
class Script:
    """How an address behaves instead of simply taking messages; see `Broker.script` for the meaning of each field."""

    outcome: Outcome | Callable[[Any], Any] | None = None
    times: int | None = None
    delay: float = 0.0
    fail: Failure | None = None
    after: int = 0
    closed: bool = True
    credit: int | None = None
    store: bool | None = None
    max_message_size: int | None = None
    condition: str | None = None
    description: str | None = None
    info: dict[Any, Any] | None = None
    applied: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.fail is not None and self.fail not in FAILURES:
            raise ValueError(f"fail={self.fail!r} is none of {', '.join(FAILURES)}")
        for name in ("times", "delay", "after", "credit", "max_message_size"):
            value = getattr(self, name) or 0
            if value < 0:
                raise ValueError(f"{name}={value!r} is negative")
            if not value <= _MOST.get(name, value):
                raise ValueError(f"{name}={value!r} is more than {_MOST[name]}")

    @property
    def per_message(self) -> bool:
        """Whether messages have to be looked at one by one."""
        return bool(self.outcome is not None or self.delay or self.breaks)

    @property
    def breaks(self) -> bool:
        """Whether something is going to be broken off after some messages."""
        return self.fail not in (None, "attach") and (self.times is None or self.applied < self.times)

    def take(self) -> bool:
        """Whether the script still applies; counts this time."""
        if self.times is not None and self.applied >= self.times:
            return False
        self.applied += 1
        return True

    def error(self) -> bytes:
        """The error that goes out with the failure; empty for a detach with closed=False that names none."""
        condition = self.condition
        if condition is None:
            if self.fail is None or (self.fail == "detach" and not self.closed):
                return b""
            condition = _DEFAULT_CONDITIONS.get(self.fail)
            if condition is None:  # nothing is said
                return b""
        description = self.description
        if description is None and self.condition is None:
            description = "the embedded broker was told to"
        return encode_error(condition, description, self.info)


ACCEPTED = Outcome()
FULL = Outcome("rejected", "amqp:resource-limit-exceeded", "the embedded broker holds as many bytes as it may")


def as_outcome(value: Any, script: Script) -> Outcome:
    """What a user's function gave, as an Outcome: a name, an Outcome, or None for accepted."""
    if value is None:
        return ACCEPTED
    if isinstance(value, Outcome):
        return value
    return replace(Outcome(str(value)), condition=script.condition, description=script.description, info=script.info)


class Answer(NamedTuple):
    """What an operation is answered with: `status` None means never; `body` None means the request's own."""

    status: int | None = 200
    description: str = "OK"
    body: Any = None


class Verdict(NamedTuple):
    """What a token is answered with: `status` None means never; 200 to 299 that it is welcome until `expires_at`
    (seconds since the epoch). None: until the time that a shared access signature names itself, else for ever."""

    status: int | None = 202
    description: str = "Accepted"
    expires_at: float | None = None

    @property
    def welcome(self) -> bool:
        return self.status is not None and 200 <= self.status <= 299


Check = Callable[[str, str, str], Verdict]
