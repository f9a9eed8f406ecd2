"""What goes to the loggers: their names and levels are uamqp's, so that logging set-ups go on working."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from uamqp_cffi import Message, ReceiveClient, SendClient, errors
from uamqp_cffi.authentication import SASLPlain
from uamqp_cffi.broker import Broker, Outcome

pytest_plugins = "uamqp_cffi.pytest_plugin"


@pytest.fixture
def broker(amqp_broker: Broker, caplog: pytest.LogCaptureFixture) -> Iterator[Broker]:
    caplog.set_level(logging.DEBUG, "uamqp")
    yield amqp_broker


def logged(caplog: pytest.LogCaptureFixture, name: str, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if (record.name, record.levelno) == (name, level)]


def break_it(broker: Broker, receive: bool = False) -> None:
    with pytest.raises(errors.AMQPConnectionError):
        if receive:
            with ReceiveClient(broker.url + "/bad") as receiver:
                receiver.receive_message_batch(1)
        else:
            with SendClient(broker.url + "/bad") as client:
                client.send_message(Message(b"x"))


def test_states_of_a_connection_are_logged_at_info(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with SendClient(broker.url + "/q", client_name="baker") as client:
        client.send_message(Message(b"x"))
    states = logged(caplog, "uamqp.connection", logging.INFO)
    assert states[0].startswith("connection b'baker': <ConnectionState.START: 0> ->")
    assert any("OPENED" in text for text in states)
    assert "END" in states[-1]


@pytest.mark.parametrize("kind", ["sender", "receiver"])
def test_states_of_a_link_are_logged_at_info(broker: Broker, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    with SendClient(broker.url + "/q") as client:
        client.send_message(Message(b"x"))
    with ReceiveClient(broker.url + "/q") as receiver:
        receiver.receive_message_batch(1)
    texts = logged(caplog, f"uamqp.{kind}", logging.INFO)
    assert [text for text in texts if "Opening" in text and "Open:" in text]


@pytest.mark.parametrize(("kind", "receive"), [("sender", False), ("receiver", True)])
def test_a_detached_link_is_a_warning(
    broker: Broker, caplog: pytest.LogCaptureFixture, kind: str, receive: bool
) -> None:
    broker.script("bad", fail="detach", condition="amqp:not-found", description="gone")
    break_it(broker, receive)
    (text,) = logged(caplog, f"uamqp.{kind}", logging.WARNING)
    assert "LinkDetach" in text and "gone" in text


def test_a_redirect_of_a_sender_is_a_warning(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.script("bad", fail="detach", condition="amqp:link:redirect", info={"hostname": "h"})
    break_it(broker)
    assert "LinkRedirect" in logged(caplog, "uamqp.sender", logging.WARNING)[0]


def test_a_redirect_of_a_receiver_is_information(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.script("bad", fail="detach", condition="amqp:link:redirect", info={"hostname": "h"})
    break_it(broker, receive=True)
    assert any("LinkRedirect" in text for text in logged(caplog, "uamqp.receiver", logging.INFO))
    assert logged(caplog, "uamqp.receiver", logging.WARNING) == []


def test_a_closed_connection_is_a_warning(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.script("bad", fail="close", condition="amqp:connection:forced", description="bye")
    break_it(broker)
    (text,) = logged(caplog, "uamqp.connection", logging.WARNING)
    assert "ConnectionClose" in text and "bye" in text


def test_a_lost_connection_is_information(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.script("bad", "none", fail="drop", after=1)
    break_it(broker)
    assert any("MessageHandlerError" in text for text in logged(caplog, "uamqp.connection", logging.INFO))
    assert logged(caplog, "uamqp.connection", logging.WARNING) == []


def test_there_is_no_trace_without_debug(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with SendClient(broker.url + "/q") as client:
        client.send_message(Message(b"x"))
    assert [record for record in caplog.records if record.name == "uamqp.c_uamqp"] == []


def test_the_trace_is_a_line_per_frame_both_ways(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with SendClient(broker.url + "/q", debug=True) as client:
        client.send_message(Message(b"x"))
    lines = logged(caplog, "uamqp.c_uamqp", logging.INFO)
    for direction in ("->", "<-"):
        for frame in ("open(", "begin(", "attach(", "end(", "close("):
            assert [line for line in lines if line.startswith(direction) and frame in line], (direction, frame)
    assert sum("transfer(" in line for line in lines) == 1
    assert sum("disposition(" in line for line in lines) == 1
    assert not [line for line in lines if "\n" in line]


def test_no_log_has_secrets_or_bodies(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.script("bad", Outcome("rejected", "amqp:not-allowed"))
    auth = SASLPlain("127.0.0.1", "ann", "sesame", port=int(broker.url.rpartition(":")[2]), use_tls=False)
    message = Message(b"top secret body", application_properties={"key": "hidden value"})
    with SendClient(broker.url.replace("//", "//ann:sesame@") + "/bad", auth=auth, debug=True) as client:
        with pytest.raises(errors.MessageException):
            client.send_message(message)
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "disposition(" in text
    for secret in ("sesame", "top secret", "hidden value"):
        assert secret not in text
