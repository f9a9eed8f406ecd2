"""The embedded broker's `$management` node: a request comes in on one link, the answer leaves on another.

`READ` with the application property `name` gives that queue's numbers, without it those of the whole broker; `QUERY`
gives the names of all queues; any other operation is answered with the request's own body and application properties.
Tests put answers of their own over an operation with `Broker.answer`.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any, NamedTuple

from .._core.engine import lib
from .._core.engine import values as v
from .._core.engine.records import Delivery
from .core import Core
from .queues import PROPERTIES, IncomingLink, OutgoingLink, node_name
from .scripts import Answer, Outcome

_log = logging.getLogger("uamqp.broker")

_APPLICATION_PROPERTIES = 0x74
_BODY = (0x75, 0x76, 0x77)
_MAX_PARKED = 1000
_ECHOED = (str, bytes, bool, int, float)
_MESSAGE_ID, _REPLY_TO = 0, 4


class Request(NamedTuple):
    """Properties, application properties, and the body sections as they came."""

    properties: list[Any]
    application: dict[str, Any]
    body: bytes


UNREADABLE = Outcome("rejected", "amqp:decode-error", "the request cannot be read")


def handle(core: Core, link: IncomingLink, delivery: Delivery) -> Outcome:
    """Answer one request. The outcome of the request itself: accepted, or rejected when it cannot be read."""
    try:
        request = parse(delivery.payload)
    except (lib.DecodeError, ValueError, TypeError):
        return UNREADABLE
    operation = str(request.application.get("operation", ""))
    answer = core.answers.get(operation) or _built_in(core, operation, request.application)
    if answer.body is not None:
        request = request._replace(body=v.enc_described(0x77, v.encode(answer.body)))
    return respond(core, link, request, answer)


def respond(core: Core, link: IncomingLink, request: Request, answer: Answer) -> Outcome:
    """Send the answer to a request that came on `link`, with the request's body. The outcome of the request itself."""
    if answer.status is None:
        return Outcome()
    reply = _reply(request, answer)
    reply_to = request.properties[_REPLY_TO]
    name = node_name(reply_to) if isinstance(reply_to, str) else link.name
    if name is not None and name != link.name and name in core.queues:
        core.put(name, reply)
        return Outcome()
    receiver = _receiver(link, reply_to)
    if receiver is None:
        _log.info("a request to %s has nowhere to be answered to", link.name)
    elif len(receiver.queue) >= _MAX_PARKED or not receiver.queue.put(reply):
        return Outcome("rejected", "amqp:resource-limit-exceeded", "too many replies wait for credit")
    else:
        core.pump(receiver.queue)
    return Outcome()


def _receiver(link: IncomingLink, reply_to: Any) -> OutgoingLink | None:
    """The link of the requester's on which it listens to the same node, the one whose target it gave as reply-to first,
    then one of the same session."""
    found = [out for out in link.peer.outgoing.values() if out.queue.name == link.name]
    found.sort(key=lambda out: (reply_to is None or out.target != reply_to, out.session != link.session))
    return found[0] if found else None


def parse(payload: bytes) -> Request:
    """Raises DecodeError, ValueError or TypeError for what is no request."""
    properties: list[Any] = []
    application: dict[str, Any] = {}
    body = b""
    for code, offset, length, start in lib.sections(payload):
        if code == PROPERTIES:
            properties = list(v.decode_exact(payload[offset : offset + length]))
        elif code == _APPLICATION_PROPERTIES:
            application = {str(k): x for k, x in v.decode_exact(payload[offset : offset + length]).items()}
        elif code in _BODY:
            body += payload[start : offset + length]
    properties += [None] * (13 - len(properties))
    return Request(properties, application, body)


def _built_in(core: Core, operation: str, application: dict[str, Any]) -> Answer:
    if operation == "READ":
        name = application.get("name")
        if name is None:
            return Answer(body=_totals(core))
        queue = core.queues.get(node_name(name))
        if queue is None:
            return Answer(404, "Not Found", {})
        return Answer(body=queue.info()._asdict())
    if operation == "QUERY":
        return Answer(body={"attributeNames": ["name"], "results": [[name] for name in core.queues]})
    return Answer()


def _totals(core: Core) -> dict[str, int]:
    return {
        "queues": len(core.queues),
        "connections": len(core.peers),
        "messages": sum(len(queue) for queue in core.queues.values()),
        "bytes": core.room.held,
    }


def _reply(request: Request, answer: Answer) -> bytes:
    """The reply with its status under both spellings in use: statusCode (management draft) and status-code (Azure)."""
    properties = request.properties
    fields = {}
    correlation = _message_id(properties[_MESSAGE_ID])
    if correlation:
        fields["correlation_id"] = correlation
    if isinstance(properties[_REPLY_TO], str):
        fields["to"] = v.enc_str(properties[_REPLY_TO])
    status = v.enc_int(answer.status) if answer.status is not None else b""
    description = v.enc_str(answer.description)
    ours = {"statusCode": status, "status-code": status}
    ours |= {"statusDescription": description, "status-description": description}
    echoed = {key: v.encode(value) for key, value in request.application.items() if isinstance(value, _ECHOED)}
    pairs = ((v.enc_str(key), value) for key, value in (echoed | ours).items())
    return (
        v.described_composite("properties", **fields)
        + v.enc_described(_APPLICATION_PROPERTIES, v.enc_map(pairs))
        + (request.body or v.enc_described(0x77, v.NULL))
    )


def _message_id(value: Any) -> bytes:
    """A message-id in its own type (§3.2.11-14), no bytes for none."""
    if value is None:
        return b""
    if isinstance(value, bool) or not isinstance(value, (int, uuid.UUID, bytes, str)):
        raise ValueError("a message-id of no type that AMQP knows")
    if isinstance(value, int):
        return v.enc_ulong(value)
    if isinstance(value, uuid.UUID):
        return v.enc_uuid(value)
    return v.enc_binary(value) if isinstance(value, bytes) else v.enc_str(value)
