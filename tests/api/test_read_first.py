"""A client that shares a connection reads what the peer has answered to others, before it begins or attaches, and waits
for the channel or handle that is on its way back."""

from __future__ import annotations

from typing import Any

import pytest

from uamqp_cffi import Connection, Message, SendClient
from uamqp_cffi._core.engine import records as r
from uamqp_cffi._core.engine.values import composite, enc_str, enc_uint, enc_ushort
from uamqp_cffi.authentication import SASLAnonymous

pytestmark = pytest.mark.both_drivers


def shared(peer: Any) -> Connection:
    return Connection("localhost", SASLAnonymous("localhost", port=peer.port, use_tls=False), connect_timeout=5)


def send_one(connection: Connection, peer: Any) -> None:
    client = SendClient(peer.url, connect_timeout=5)
    client.open(connection)
    client.send_message(Message(b"x"))
    client.close()


def test_clients_take_turns_on_a_connection_of_one_channel(peer: Any) -> None:
    def one_channel(p: Any, record: r.Open) -> None:
        p.engine.open(composite("open", container_id=enc_str("peer"), channel_max=enc_ushort(0)))

    peer.on[r.Open] = one_channel
    connection = shared(peer)
    for _ in range(3):
        send_one(connection, peer)
    connection.destroy()
    assert len(peer.records(r.Delivery)) == 3


def test_links_take_turns_on_a_session_of_one_handle(peer: Any) -> None:
    def one_handle(p: Any, record: r.Begin) -> None:
        begin = composite(
            "begin", next_outgoing_id=enc_uint(7), incoming_window=enc_uint(100), outgoing_window=enc_uint(100),
            handle_max=enc_uint(0),
        )  # fmt: skip
        p.engine.begin(begin, record.session)

    peer.on[r.Begin] = one_handle
    with SendClient(peer.url, connect_timeout=5) as client:
        for _ in range(3):
            client.send_message(Message(b"x"))
            client.message_handler.close()
            client.message_handler, client._attached = None, False
    assert len(peer.records(r.Attach)) == 3


def test_a_late_frame_on_a_channel_that_has_ended_costs_nobody_else_anything(
    peer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """One of two clients of a connection closes; the peer's end is followed by a disposition that it should have sent before."""
    first = []

    def late(p: Any, record: r.End) -> None:
        first.append(record)
        p.inject(f"ch={len(first) - 1} disposition(role=true first=0 settled=true state=accepted())")

    connection = shared(peer)
    other = SendClient(peer.url, connect_timeout=5)
    leaving = SendClient(peer.url, connect_timeout=5)
    leaving.open(connection)
    leaving.send_message(Message(b"x"))
    other.open(connection)
    other.send_message(Message(b"y"))
    peer.on[r.End] = late
    leaving.close()
    other.send_message(Message(b"z"))
    other.close()
    connection.destroy()
    assert len(peer.records(r.Delivery)) == 3
    assert "disposition on channel 0, which has ended" in caplog.text
