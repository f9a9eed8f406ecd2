"""Arguments of a wrong kind: an error at the call, which says what was given, what is wanted and how to write it, and shows no
password."""

from __future__ import annotations

import ssl
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from uamqp_cffi import (
    AMQPClient,
    BatchMessage,
    Connection,
    Message,
    MessageReceiver,
    MessageSender,
    ReceiveClient,
    SendClient,
    Session,
    Source,
    Target,
    authentication,
    errors,
)
from uamqp_cffi._core.engine import values
from uamqp_cffi._native import make
from uamqp_cffi.broker import Broker
from uamqp_cffi.message import MessageHeader, MessageProperties

pytestmark = pytest.mark.both_drivers
NO_DRIVER = pytest.mark.blocking("no client is involved")

URL = "amqp://localhost:1/q"
SECRET = "s3cret"
CLIENTS = ["AMQPClient", "SendClient", "ReceiveClient"]
assert {AMQPClient, SendClient, ReceiveClient}  # which the asyncio run replaces


def client_class(name: str) -> Any:
    return globals()[name]


# ---- messages

NOT_MESSAGES = [
    ("text", "a str: write Message(...) around it"),
    (b"bytes", "bytes: write Message(...) around it"),
    ({"a": 1}, "a dict: write Message(...) around it"),
    (None, "None: write Message(body)"),
    (5, "5: write Message(...) around it"),
    (Message, "the class Message itself: write Message(body)"),
]


@pytest.mark.parametrize(("given", "words"), NOT_MESSAGES)
def test_what_is_no_message_is_told_where_it_is_sent(broker: Broker, given: Any, words: str) -> None:
    with SendClient(broker.url + "/q") as client:
        for name in ("send_message", "queue_message"):
            with pytest.raises(TypeError) as raised:
                getattr(client, name)(given)
            assert str(raised.value) == f"what {name} is given must be a Message or BatchMessage, not {words}"
        client.send_message(Message(b"good"))
    assert [str(message) for message in broker.messages("q")] == ["good"]


def test_a_list_of_messages_is_told_what_to_write(broker: Broker) -> None:
    client = SendClient(broker.url + "/q")
    with pytest.raises(TypeError, match=r"not a list: write queue_message\(\*messages\)"):
        client.queue_message([Message(b"a")])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not a list: write BatchMessage\(messages\), or one call for each"):
        client.send_message([Message(b"a")])  # type: ignore[arg-type]
    assert client._session is None  # nothing was opened for it


def test_a_request_that_is_no_message_is_told(broker: Broker) -> None:
    with (
        SendClient(broker.url + "/q") as client,
        pytest.raises(TypeError, match=r"a Message, not a str: write Message"),
    ):
        client.mgmt_request("text", b"READ")  # type: ignore[arg-type]


@NO_DRIVER
@pytest.mark.parametrize("data", ["abc", b"abc", bytearray(b"abc"), {"a": 1}, Message(b"x"), 5])
def test_the_data_of_a_batch_is_an_iterable_of_messages(data: Any) -> None:
    with pytest.raises(
        TypeError, match=r"must be an iterable of messages or bodies, not .*: write BatchMessage\(\[\.\.\.\]\)"
    ):
        BatchMessage(data)


@NO_DRIVER
def test_a_batch_without_data_says_so_when_it_is_sent() -> None:
    with pytest.raises(TypeError, match=r"not None: write BatchMessage"):
        BatchMessage().gather()


@NO_DRIVER
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            {"properties": {"subject": "x"}},
            TypeError,
            r"MessageProperties, not a dict: write MessageProperties\(subject",
        ),
        ({"header": {"durable": True}}, TypeError, r"a MessageHeader, not a dict: write MessageHeader\(durable=True\)"),
        ({"application_properties": [1]}, TypeError, "application properties must be a dict, not a list"),
        ({"annotations": "x"}, TypeError, "message annotations must be a dict, not a str"),
        ({"footer": 5}, TypeError, "footer must be a dict, not 5"),
        ({"delivery_annotations": 5}, TypeError, "delivery annotations must be a dict, not 5"),
        ({"msg_format": "x"}, TypeError, "msg_format must be an integer, not a str"),
        ({"msg_format": True}, TypeError, "msg_format must be an integer, not True"),
        ({"msg_format": -1}, ValueError, "msg_format is a number from 0 to 4294967295, not -1"),
        ({"msg_format": 1 << 32}, ValueError, "msg_format is a number"),
        ({"encoding": "nonsense"}, ValueError, "encoding"),
        ({"encoding": 5}, TypeError, "encoding must be the name of an encoding, not 5"),
    ],
)
def test_arguments_of_a_message_are_told_at_once(arguments: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        Message(b"x", **arguments)


# ---- clients


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"auth": ("me", SECRET)},
            r"auth must be an object of uamqp_cffi.authentication, not a tuple: write auth=SASLPlain",
        ),
        ({"auth": SECRET}, "auth must be .* not a str"),
        ({"auth": {"me": SECRET}}, "auth must be .* not a dict"),
        ({"auth": authentication.SASLPlain}, "not the class SASLPlain itself"),
        (
            {"error_policy": "retry"},
            r"error_policy must be an ErrorPolicy, not a str: write error_policy=ErrorPolicy\(",
        ),
        ({"error_policy": 3}, "error_policy must be an ErrorPolicy, not 3"),
        ({"error_policy": errors.ErrorPolicy}, "not the class ErrorPolicy itself"),
        ({"ssl_context": True}, r"an ssl.SSLContext, not True: write ssl_context=ssl.create_default_context\(\)"),
        ({"ssl_context": "ca.pem"}, "ssl_context must be"),
        ({"properties": "x"}, "properties must be a dict, not a str"),
        ({"on_attach": "x"}, "on_attach must be a function, not a str"),
        ({"idle_timeout": "60"}, "idle_timeout must be a number, not a str"),
        ({"max_frame_size": "60"}, "max_frame_size must be a number, not a str"),
        ({"connect_timeout": "60"}, "connect_timeout must be a number, not a str"),
    ],
)
def test_arguments_of_a_client_are_told_at_once(name: str, arguments: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words) as raised:
        client_class(name)(URL, **arguments)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("SendClient", {"msg_timeout": "x"}, "msg_timeout must be a number, not a str"),
        ("SendClient", {"link_properties": [1]}, "link_properties must be a dict, not a list"),
        ("ReceiveClient", {"timeout": "x"}, "timeout must be a number, not a str"),
        ("ReceiveClient", {"prefetch": "x"}, "prefetch must be a number, not a str"),
        ("ReceiveClient", {"link_properties": [1]}, "link_properties must be a dict, not a list"),
    ],
)
def test_arguments_of_one_kind_of_client_are_told_at_once(name: str, arguments: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        client_class(name)(URL, **arguments)


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        (5, "a URL .str, bytes. or an address object, not 5: write amqps://HOST/QUEUE"),
        (None, "not None: write amqps://HOST/QUEUE"),
        ("", "amqps://HOST/QUEUE: nothing was given"),
        (f"http://me:{SECRET}@host/q", r"begins with http://: write amqps://HOST/QUEUE.*AmqpOverWebsocket"),
        ("wss://host/q", r"begins with wss://.*AmqpOverWebsocket"),
        ("host/q", "names no host to connect to: write amqps://HOST/QUEUE"),
        (f"me:{SECRET}@host/q", "names no host to connect to"),
        (f"amqp://me:{SECRET}/x@host/q", "write %2F for '/' and %40 for '@' in a password"),
        (f"amqp://me:{SECRET}@x/y@host:z/q", "write %2F|names no host"),
        (f"amqp://me:12#{SECRET}@host/q", r"needs a path.*'amqp://me:12/\*\*\*@host/q' has none"),
    ],
)
def test_addresses_that_are_none_are_told_without_the_password(name: str, url: Any, words: str) -> None:
    try:
        client = client_class(name)(url)
    except ValueError as error:
        assert SECRET not in str(error)
        with pytest.raises(ValueError, match=words):
            client_class(name)(url)
    else:
        assert SECRET in url
        assert SECRET not in repr(client) + str(client._remote_address)


@NO_DRIVER
@pytest.mark.parametrize("kind", [Source, Target])
@pytest.mark.parametrize("url", [f"amqp://me:1/{SECRET}@host/q", f"amqp://me:p@{SECRET}/{SECRET}@host/q"])
def test_an_address_hides_what_may_be_the_rest_of_a_password(kind: Any, url: str) -> None:
    shown = str(kind(url)) + repr(kind(url))
    assert f"/{SECRET}" not in shown
    assert "***@host/q" in shown


@NO_DRIVER
def test_a_password_with_an_at_sign_is_taken_as_it_is() -> None:
    client = SendClient("amqp://me:p@ss@localhost:1/q")
    assert client._auth.password == b"p@ss"
    assert "p@ss" not in repr(client._remote_address)


def test_what_is_called_for_messages_is_a_function(broker: Broker) -> None:
    with ReceiveClient(broker.url + "/q") as client:
        for given in (None, "x"):
            with pytest.raises(TypeError, match="on_message_received must be a function, not"):
                client.receive_messages(given)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="on_message_received must be a function, not a str"):
            client.receive_message_batch(1, on_message_received="x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="max_batch_size must be a number, not a str"):
            client.receive_message_batch("1")  # type: ignore[arg-type]


# ---- mappings other than dict


class Frozen(Mapping[Any, Any]):
    """As `frozendict` of Python 3.15: no dict."""

    def __init__(self, *given: Any) -> None:
        self._held = dict(*given)

    def __getitem__(self, key: Any) -> Any:
        return self._held[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


@NO_DRIVER
@pytest.mark.parametrize("kind", [Frozen, types.MappingProxyType])
def test_any_mapping_will_do_for_properties_annotations_and_values(kind: Callable[[Any], Any]) -> None:
    given: dict[str, Any] = {"k": 1}
    sections = ("application_properties", "annotations", "footer", "delivery_annotations")
    made = Message(kind({"a": kind(given)}), **{name: kind({"x": kind(given)}) for name in sections})
    same = Message({"a": given}, **{name: {"x": given} for name in sections})
    assert made.encode_message() == same.encode_message()
    assert values.encode(kind(given)) == make.data_factory(kind(given)).encoded() == values.encode(given)
    assert errors.MessageRejected(info=kind(given)).info == given
    assert errors.MessageModified(True, True, kind(given)).info == given


def test_any_mapping_will_do_for_the_properties_of_a_client(broker: Broker) -> None:
    with SendClient(broker.url + "/q", properties=Frozen({"a": 1}), link_properties=Frozen({"b": 1})) as client:
        client.send_message(Message(b"x", application_properties=Frozen({"c": 1})))
    (message,) = broker.messages("q")
    assert message.application_properties == {b"c": 1}


# ---- new fields


@NO_DRIVER
def test_a_header_takes_its_fields() -> None:
    header = MessageHeader(durable=True, priority=3, time_to_live=9, first_acquirer=False, delivery_count=2)
    back = Message.decode_from_bytes(Message(b"x", header=header).encode_message()).header
    assert back is not None
    assert back._as_dict() == header._as_dict()
    assert (back.durable, back.priority, back.ttl, back.first_acquirer, back.delivery_count) == (True, 3, 9, False, 2)


@NO_DRIVER
def test_a_durable_message_has_a_durable_header() -> None:
    made = Message(b"x", durable=True)
    assert made.encode_message() == Message(b"x", header=MessageHeader(durable=True)).encode_message()
    given = MessageHeader(priority=9)
    made = Message(b"x", header=given, durable=True)
    assert (made.header.durable, made.header.priority, given.durable) == (True, 9, None)  # type: ignore[union-attr]
    assert Message(b"x", durable=False).header.durable is False  # type: ignore[union-attr]
    assert Message(b"x").header is None
    assert Message(b"x", properties=MessageProperties(subject="s"), durable=True).header.durable  # type: ignore[union-attr]


@NO_DRIVER
def test_a_durable_batch_has_a_durable_envelope() -> None:
    (envelope,) = BatchMessage([b"a"], durable=True).gather()
    assert envelope.header.durable is True  # type: ignore[union-attr]


NONSENSE: list[tuple[dict[str, Any], str]] = [
    (
        {"ssl_context": "a context"},
        "ssl_context must be an ssl.SSLContext, not a str: write ssl_context=ssl.create_default_context()",
    ),
    ({"ssl_context": ssl.SSLContext}, "ssl_context must be an ssl.SSLContext, not the class SSLContext itself"),
]


@NO_DRIVER
@pytest.mark.parametrize(("given", "words"), NONSENSE)
@pytest.mark.parametrize(
    "make",
    [
        lambda **given: authentication.SASLAnonymous("host", **given),
        lambda **given: authentication.SASLPlain("host", "me", SECRET, **given),
        lambda **given: authentication.SASTokenAuth("sb://host/q", "sb://host/q", "token", **given),
        lambda **given: Connection("host", authentication.SASLAnonymous("host"), **given),
    ],
    ids=["SASLAnonymous", "SASLPlain", "SASTokenAuth", "Connection"],
)
def test_a_context_that_is_none_is_told_at_once(make: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError) as raised:
        make(**given)
    assert words in str(raised.value)
    assert SECRET not in str(raised.value)


@NO_DRIVER
@pytest.mark.parametrize("policy", ["retry", 5, errors.ErrorPolicy, ("a",)])
def test_a_policy_that_is_none_is_told_at_once_by_connections_and_links(policy: Any) -> None:
    words = "error_policy must be an ErrorPolicy, not "
    with pytest.raises(TypeError, match=words):
        Connection("host", authentication.SASLAnonymous("host"), error_policy=policy)
    session = Session(Connection("host", authentication.SASLAnonymous("host")))
    with pytest.raises(TypeError, match=words):
        MessageSender(session, "source", Target("amqps://host/q"), error_policy=policy)
    with pytest.raises(TypeError, match=words):
        MessageReceiver(session, Source("amqps://host/q"), "target", print, error_policy=policy)


@NO_DRIVER
def test_an_auth_that_is_none_is_told_by_a_connection() -> None:
    with pytest.raises(
        TypeError, match="auth must be an object of uamqp_cffi.authentication, not a tuple: write auth=SASLPlain"
    ):
        Connection("host", ("me", SECRET))  # type: ignore[arg-type]
