"""What objects say of themselves: what they are and how they stand, never a body or a secret. And what cannot be pickled says
what to do."""

from __future__ import annotations

import base64
import copy
import io
import pickle
from typing import Any

import pytest

from uamqp_cffi import BatchMessage, Message, ReceiveClient, SendClient, authentication, c_uamqp, errors
from uamqp_cffi.broker import Broker
from uamqp_cffi.message import MessageHeader, MessageProperties

pytestmark = pytest.mark.both_drivers
NO_DRIVER = pytest.mark.blocking("no client is involved")
SECRET = "s3cret"


@NO_DRIVER
@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (Message(b"s3cret"), "<Message WaitingToBeSent, 6 bytes>"),
        (Message("s3cret"), "<Message WaitingToBeSent, DataBody of 6 bytes>"),
        (Message(b"s3cret", application_properties={SECRET: SECRET}), "<Message WaitingToBeSent, 6 bytes>"),
        (Message({SECRET: 1}), "<Message WaitingToBeSent, ValueBody of 13 bytes>"),
        (BatchMessage([b"s3cret", b"x"]), "<BatchMessage WaitingToBeSent, 2 items>"),
        (
            BatchMessage(iter([b"s3cret"]), multi_messages=True),
            "<BatchMessage WaitingToBeSent, items of a list_iterator, multi_messages=True>",
        ),
        (
            Message._received(Message(b"s3cret", durable=True).encode_message(), None, 7),
            "<Message ReceivedSettled, 22 bytes encoded, delivery_no=7>",
        ),
        (Message._received(b"\x00Sy" + SECRET.encode()), "<Message ReceivedSettled, 9 bytes encoded>"),
        (MessageProperties(subject=SECRET, user_id=SECRET), "<MessageProperties user_id, subject>"),
        (MessageProperties(), "<MessageProperties empty>"),
        (
            MessageHeader(durable=True),
            "MessageHeader(durable=True, priority=None, time_to_live=None, first_acquirer=None, delivery_count=0)",
        ),
        (errors.MessageRejected("amqp:x", SECRET, info={"a": SECRET}), "MessageRejected(b'amqp:x')"),
        (errors.MessageModified(True, False, {"a": SECRET}), "MessageModified(failed=True, undeliverable=False)"),
        (errors.ErrorPolicy(5), "ErrorPolicy(max_retries=5)"),
        (errors.ErrorResponse(None, b"c", "d"), "ErrorResponse(condition=b'c', description='d')"),
        (errors.MessageDecodeError("no message"), "MessageDecodeError('no message')"),
    ],
)
def test_the_repr_of_a_message_or_error_says_what_it_is(message: Any, shown: str) -> None:
    assert repr(message) == shown
    assert SECRET not in repr(message)


@NO_DRIVER
def test_the_repr_of_a_received_message_decodes_nothing() -> None:
    message = Message._received(Message(b"x", application_properties={"a": 1}).encode_message())
    repr(message)
    assert message._sections._found is None


def test_the_repr_of_a_client_says_where_to_and_how_it_stands(broker: Broker) -> None:
    url = broker.url.replace("://", f"://me:{SECRET}@") + "/q"
    shown = url.replace(SECRET, "***")
    sender, receiver = SendClient(url), ReceiveClient(url, address="/queues/q")
    send, receive = type(sender).__name__, type(receiver).__name__
    assert repr(sender) == f"<{send} {shown}, not open, 0 waiting, 0 without outcome>"
    sender.queue_message(Message(b"a"), Message(b"b"))
    assert repr(sender) == f"<{send} {shown}, not open, 2 waiting, 0 without outcome>"
    sender.send_all_messages(close_on_done=False)
    assert repr(sender) == f"<{send} {shown}, attached, 0 waiting, 0 without outcome>"
    assert repr(receiver) == f"<{receive} {shown} address='/queues/q', not open, 0 unread>"
    receiver.open()
    assert ", open, not attached, 0 unread>" in repr(receiver)
    for client in (sender, receiver):
        client.close()
        assert ", closed, " in repr(client)


def test_the_repr_of_connections_sessions_and_links_says_how_they_stand(broker: Broker) -> None:
    url = broker.url.replace("://", f"://me:{SECRET}@") + "/q"
    with SendClient(url) as client:
        client.send_message(Message(b"x"))
        connection, session, link = client._connection, client._session, client.message_handler
        shown = repr(connection)
        assert "SASLPlain, OPENED>" in shown and "Connection" in shown
        assert repr(session).endswith(f" begun, 1 links, of {shown}>")
        assert repr(link).startswith(f"<{type(link).__name__} 'sender-link-")
        assert "/q, Open, credit " in repr(link)
        every = [connection, session, link, client._auth]
        assert SECRET not in repr(every)
        for one in (client, connection, session, link):
            for way in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match="make one where it is needed"):
                    way(one)


@NO_DRIVER
def test_the_repr_of_an_auth_object_shows_no_secret() -> None:
    key = base64.b64encode(SECRET.encode()).decode()
    made = [
        authentication.SASLPlain(
            "host",
            "me",
            SECRET,
            http_proxy={"proxy_hostname": "p", "proxy_port": 1, "username": "u", "password": SECRET},
        ),
        authentication.SASTokenAuth.from_shared_access_key("amqps://host/q", "name", key),
        authentication.JWTTokenAuth("a", "amqps://host/q", lambda: (SECRET, 1)),
    ]
    for auth in made:
        assert type(auth).__name__ in repr(auth) and "host" in repr(auth)
        assert SECRET not in repr(auth) and key not in repr(auth)


@NO_DRIVER
def test_a_received_message_says_how_it_can_be_pickled() -> None:
    message = Message._received(b"\x00Su\xa0\x01x", lambda response: None)
    with pytest.raises(TypeError, match=r"encode_message\(\).*decode_from_bytes\(\)"):
        pickle.dumps(message)
    assert str(Message.decode_from_bytes(pickle.loads(pickle.dumps(message.encode_message())))) == "x"


# ---- names of uamqp's that its pickles and tests look at


# pickle.dumps(MessageModified(True, False, {b"a": 1})) and the like, by uamqp 1.6.11 (CPython 3.11, protocol 4)
PICKLED = {
    "modified": "gASVPAAAAAAAAACMDHVhbXFwLmVycm9yc5SMD01lc3NhZ2VNb2RpZmllZJSTlCiIiX2UQwFhlEsBc4wFVVRGLTiUdJRSlC4=",
    "rejected": "gASVRwAAAAAAAACMDHVhbXFwLmVycm9yc5SMD01lc3NhZ2VSZWplY3RlZJSTlChDBmFtcXA6eJRDAWSUjAVVVEYtOJR9lEMBa5RLAXN0lFKULg==",
}


class Unpickler(pickle.Unpickler):
    """Without `install_as_uamqp`, which is for the whole process."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module.replace("uamqp", "uamqp_cffi"), name)


@NO_DRIVER
@pytest.mark.parametrize("name", PICKLED)
def test_an_outcome_that_uamqp_pickled_has_its_names(name: str) -> None:
    response = Unpickler(io.BytesIO(base64.b64decode(PICKLED[name]))).load()
    if name == "modified":
        assert (response.failed, response.undeliverable, response._annotations) == (True, False, {b"a": 1})
        assert response.annotations.value == {b"a": 1}
    else:
        assert (response.error_condition, response._info) == (b"amqp:x", {b"k": 1})
        assert response.error_info.value == {b"k": 1}


@NO_DRIVER
def test_a_plain_message_has_the_names_that_uamqp_pickles() -> None:
    message = Message(b"x")
    for name in (
        "_annotations", "_application_properties", "_delivery_annotations", "_footer", "_header", "_properties",
        "_response", "_settler",
    ):  # fmt: skip
        assert getattr(message, name) is None
    assert message._raw == b"x"  # it is still a plain one
    assert message._need_further_parse is False
    assert Message._received(b"\x00SwT\x05")._need_further_parse is True
    with pytest.raises(AttributeError, match="'Message' object has no attribute 'nonsense'"):
        message.nonsense  # type: ignore[attr-defined]


@NO_DRIVER
@pytest.mark.parametrize(
    "name", ["annotations", "fields", "application_properties", "delivery_annotations", "message_annotations", "footer"]
)
def test_native_maps_are_made_of_any_native_value(name: str) -> None:
    """As in uamqp: what is no map has none."""
    make = getattr(c_uamqp, f"create_{name}")
    for value in (c_uamqp.int_value(5), c_uamqp.string_value(b"s"), c_uamqp.list_value()):
        made = make(value)
        assert made.map is None
        assert made.value == value or made.value.data == value
        assert made.clone().map is None
    with pytest.raises(TypeError):
        make(5)
