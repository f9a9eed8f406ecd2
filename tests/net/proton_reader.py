"""Reads a queue empty with python-qpid-proton and prints what was in it: the independent witness of the tests of real brokers.

python proton_reader.py URL ADDRESS COUNT [--seconds S] [--sections]

Prints one JSON list on standard output, an item per message: the SHA-256 of its body, or with --sections everything in it.
After COUNT messages it listens a little longer, so that a message too many shows as well (RabbitMQ 3.10 does not survive
a drain). Ends after S seconds (default 60) with what there was. Runs in an interpreter that need not have uamqp_cffi.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys

from proton import Delivery, Handler, Message
from proton.handlers import MessagingHandler
from proton.reactor import Container

CREDIT = 500
QUIET = 0.2  # seconds of listening after the last message that is expected


class Alarm(Handler):
    def __init__(self, ring):
        super().__init__()
        self.on_timer_task = lambda event: ring()


def body_bytes(body):
    return bytes(body) if isinstance(body, (bytes, memoryview)) else repr(body).encode()


def plain(value):
    """Something JSON can hold that still tells types apart where it matters."""
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, (bytes, memoryview)):
        return {"binary": bytes(value).hex()}
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "items"):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def sections(message):
    """What --sections prints of a message."""
    names = ("durable", "priority", "ttl", "id", "user_id", "address", "subject", "reply_to", "correlation_id",
             "content_type", "content_encoding", "expiry_time", "creation_time", "group_id", "group_sequence",
             "reply_to_group_id", "annotations", "properties", "body")  # fmt: skip
    return {name: plain(getattr(message, name)) for name in names}


class Reader(MessagingHandler):
    def __init__(self, options):
        super().__init__(prefetch=0, auto_accept=False)
        self.options, self.found, self.error = options, [], None

    def on_start(self, event):
        connection = event.container.connect(
            self.options.url, allow_insecure_mechs=True, allowed_mechs="PLAIN ANONYMOUS", reconnect=False
        )
        self.receiver = event.container.create_receiver(connection, self.options.address)
        self.receiver.flow(CREDIT)
        event.container.schedule(self.options.seconds, Alarm(lambda: self.fail(event, "time is up")))

    def fail(self, event, problem):
        self.error = self.error or str(problem)
        event.container.stop()

    def on_delivery(self, event):
        delivery = event.delivery
        if not delivery.link.is_receiver or not delivery.readable or delivery.partial:
            return
        data = delivery.link.recv(delivery.pending)
        delivery.link.advance()
        delivery.update(Delivery.ACCEPTED)
        delivery.settle()
        message = Message()
        message.decode(data)
        self.found.append(
            sections(message) if self.options.sections else hashlib.sha256(body_bytes(message.body)).hexdigest()
        )
        if len(self.found) == self.options.count:
            event.container.schedule(QUIET, Alarm(event.connection.close))
        elif delivery.link.credit < CREDIT // 2:
            delivery.link.flow(CREDIT - delivery.link.credit)

    def on_connection_closed(self, event):
        event.container.stop()

    def on_transport_error(self, event):
        self.fail(event, event.transport.condition)

    def on_link_error(self, event):
        self.fail(event, event.link.remote_condition)

    def on_session_error(self, event):
        self.fail(event, event.session.remote_condition)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("address")
    parser.add_argument("count", type=int)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--sections", action="store_true")
    reader = Reader(parser.parse_args())
    Container(reader).run()
    json.dump(reader.found, sys.stdout)
    if reader.error:
        print(reader.error, file=sys.stderr)
    return 0 if reader.error is None else 1


if __name__ == "__main__":
    sys.exit(main())
