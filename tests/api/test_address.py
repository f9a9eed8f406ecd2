"""Addresses: what is taken, what is sent, what is shown; the terminus around them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from uamqp_cffi import SendClient, types
from uamqp_cffi._core.engine import decode
from uamqp_cffi._core.engine import types as types_module
from uamqp_cffi._core.engine.types import Described, Symbol
from uamqp_cffi.address import Address, Source, Target


def fields(terminus: Any) -> list[Any]:
    return decode.decode_exact(terminus._encode()).value  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        ("amqps://h/a", "amqps://h/a"),
        (b"amqps://h/a", "amqps://h/a"),
        ("amqps://us:pw@Host:5671/a/b?q=1#f", "amqps://host/a/b"),
        ("amqps://h/", "amqps://h/"),
        ("amqps://h/a/", "amqps://h/a/"),
        ("amqps://h/a b%20c;d", "amqps://h/a b%20c;d"),
        ("https://h/a;b", "https://h/a;b"),
        ("amqp://[::1]:5672/q", "amqp://[::1]/q"),
        ("q", "q"),
        ("/queues/x", "/queues/x"),
        ("queue:5", "queue:5"),
        ("q?x=1#f", "q?x=1#f"),
        ("größe", "größe"),
    ],
)
@pytest.mark.parametrize("cls", [Source, Target])
def test_the_address_on_the_wire(cls: type[Address], given: Any, wire: str) -> None:
    address = cls(given)
    assert address.address == wire
    assert fields(address) == [wire]
    assert address._c_address.value == wire.encode()


def test_the_parts_of_a_url() -> None:
    address = Source("amqps://us%40:p%2bw@Host:5671/a?q")
    assert (address.scheme, address.hostname, address.port) == ("amqps", "host", 5671)
    assert (address.username, address.password) == ("us%40", "p%2bw")
    assert address.parsed_address.path == b"/a"
    assert address.parsed_address.hostname == b"host"


def test_a_bare_name_has_no_host() -> None:
    address = Target("q")
    assert (address.scheme, address.hostname, address.port) == ("", None, None)
    assert (address.username, address.password) == (None, None)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "not empty"),
        (None, "not empty"),
        (5, "int"),
        ("amqps://h", "path"),
        ("amqps:///a", "no host"),
        ("://h/a", "no scheme"),
        ("amqps://h:99999/a", "port"),
        ("amqps://h:x/a", "port"),
        ("amqps://[::1/a", "host"),
    ],
)
@pytest.mark.parametrize("cls", [Address, Source, Target])
def test_a_bad_address_is_a_value_error_that_says_why(cls: type[Address], given: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cls(given)


@pytest.mark.parametrize(
    "url",
    [
        "amqps://me:s3cret@h/q",
        "amqps://me:s3cret@h:5671/q?x",
        "amqps://:s3cret@h/q",
        "amqps://me:s3cret@h\n/q",
        "amqps://me:a:s3cret@h/q",
    ],
)
def test_the_password_is_not_shown(url: str) -> None:
    address = Source(url)
    assert "s3cret" not in str(address) + repr(address) + f"{address}"
    assert address.password is not None
    assert "s3cret" in address.password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("me:s3cret@h/q", "me:***@h/q"),
        ("me:s3c@ret@h", "me:***@h"),
        ("//me:s3cret@h/q", "//me:***@h/q"),
        ("amqps:/me:s3cret@h/q", "amqps:***@h/q"),
        ("amqps:me:s3cret@h/q", "amqps:***@h/q"),
    ],
)
def test_a_name_that_was_meant_as_a_url_does_not_show_its_password(url: str, shown: str) -> None:
    assert str(Source(url)) == shown and shown in repr(Source(url))
    assert Source(url).address == url
    with pytest.raises(ValueError, match="host") as caught:
        SendClient(url)
    assert shown in str(caught.value) and "s3c" not in str(caught.value)


@pytest.mark.parametrize("name", ["/queues/a:b@c", "a::b", "a@b", "/a:b@c"])
def test_other_names_are_shown_as_they_are(name: str) -> None:
    assert str(Target(name)) == name == Target(name).address


def test_the_rest_of_the_url_is_shown() -> None:
    assert str(Source("amqps://me:pw@h:5671/q?x")) == "amqps://me:***@h:5671/q?x"
    assert str(Source("amqps://me@h/q")) == "amqps://me@h/q"
    assert repr(Target("q")) == "Target('q')"


@pytest.mark.parametrize(
    "url", ["amqps://me:s3cret@h", "amqps://me:s3cret@h:x/q", "amqps://me:s3/cret@h/q", "://a:s3cret@h"]
)
def test_no_error_tells_the_password(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        Source(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3" not in str(error)
        error = error.__cause__ or error.__context__


def test_bytes_that_cannot_be_decoded_are_not_shown() -> None:
    with pytest.raises(ValueError, match="not UTF-8") as caught:
        Source(b"amqps://me:s3cret\xff@h/q")
    assert type(caught.value) is ValueError  # UnicodeDecodeError has the bytes
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("odd", [5, True, [1], {"a": 1}, "\udcff", b"\xff", types_module.Described(1, 2)])
def test_a_peers_terminus_may_hold_anything(odd: object) -> None:
    for kind in (Source, Target):
        made = kind.from_c_obj([odd] * 8)
        assert isinstance(made.address, str) and isinstance(made.expiry_policy, bytes)
    assert isinstance(Source.from_c_obj([odd] * 8).distribution_mode, (str, type(None)))


def test_an_endpoint_takes_the_node_apart_from_the_url() -> None:
    target = Target._endpoint("amqp://me:pw@localhost:5672", "/queues/orders")
    assert (target.address, target.hostname, target.port, target.username) == (
        "/queues/orders",
        "localhost",
        5672,
        "me",
    )
    assert fields(target) == ["/queues/orders"]
    with pytest.raises(ValueError, match="path"):
        Target._endpoint("amqp://localhost")


# ---- the terminus -----------------------------------------------------------------------------------------------------


def test_fields_read_none_until_they_are_set() -> None:
    source = Source("q")
    assert (source.durable, source.timeout, source.dynamic, source.distribution_mode) == (None, None, None, None)
    assert source.expiry_policy == b"session-end"
    assert source.filter_key == b"apache.org:selector-filter:string"
    assert source.get_filter() is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("durable", 2, ["q", 2]),
        ("durable", 0, ["q", 0]),
        ("expiry_policy", b"never", ["q", None, Symbol("never")]),
        ("timeout", 5, ["q", None, None, 5]),
        ("dynamic", False, ["q", None, None, None, False]),
        ("dynamic", True, [None, None, None, None, True]),
    ],
)
@pytest.mark.parametrize("cls", [Source, Target])
def test_what_is_set_is_sent(cls: type[Address], name: str, value: Any, expected: list[Any]) -> None:
    terminus = cls("q")
    setattr(terminus, name, value)
    assert getattr(terminus, name) == value
    assert fields(terminus) == expected


@pytest.mark.parametrize("value", ["copy", b"copy"])
def test_only_a_source_has_a_distribution_mode(value: Any) -> None:
    source = Source("q")
    source.distribution_mode = value
    assert source.distribution_mode == "copy"
    assert fields(source) == ["q", None, None, None, None, None, Symbol("copy")]
    with pytest.raises(AttributeError):
        _ = Target("q").distribution_mode
    with pytest.raises(AttributeError):
        Target("q").distribution_mode = value


@pytest.mark.parametrize("name", ["durable", "expiry_policy", "timeout", "dynamic"])
def test_a_plain_address_has_no_terminus(name: str) -> None:
    with pytest.raises(AttributeError, match="terminus"):
        getattr(Address("q"), name)
    with pytest.raises(AttributeError, match="terminus"):
        setattr(Address("q"), name, 1)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("durable", "x", TypeError),
        ("durable", -1, OverflowError),
        ("timeout", None, TypeError),
        ("timeout", 1 << 32, OverflowError),
        ("expiry_policy", "never", TypeError),
        ("distribution_mode", 5, TypeError),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        setattr(Source("q"), name, value)


# These bytes are what uamqp 1.6.11 writes.
def test_a_selector_filter_has_the_bytes_that_uamqp_gave_it() -> None:
    source = Source("amqps://h/a")
    source.set_filter("x>1")
    name = "a321" + b"apache.org:selector-filter:string".hex()
    assert source._encode().hex() == (
        "005328c06308a10b616d7170733a2f2f682f61404040404040c14d02" + name + "00" + name + "a103783e31"
    )


@pytest.mark.parametrize(
    ("given", "expected", "reads"),
    [
        ({"value": "x>1"}, Described(Symbol("apache.org:selector-filter:string"), "x>1"), b"x>1"),
        ({"value": "x>1", "descriptor": None}, "x>1", b"x>1"),
        ({"value": None}, None, None),
        ({"value": types.AMQPLong(5), "descriptor": b"d"}, Described(Symbol("d"), 5), 5),
        ({"value": {"a": 1}, "descriptor": None}, {"a": 1}, {b"a": 1}),
    ],
)
def test_a_filter_is_set_and_read(given: dict[str, Any], expected: Any, reads: Any) -> None:
    source = Source("q")
    source.set_filter("replaced", name=b"other")
    source.set_filter(name=b"n", **given)
    assert fields(source)[7] == {Symbol("n"): expected}
    assert source.get_filter(b"n") == reads
    assert source.get_filter(b"other") is None


@pytest.mark.parametrize("given", [{"name": "str"}, {"descriptor": "str"}, {"value": 1j}])
def test_names_of_filters_are_bytes_and_values_have_a_type(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Source("q").set_filter(**{"value": "x", **given})


def test_a_terminus_comes_back_from_the_wire() -> None:
    source = Source("amqps://us:pw@h/a")
    source.set_filter("s1", name=b"com.example:session", descriptor=None)
    source.durable, source.timeout, source.expiry_policy, source.distribution_mode = 1, 9, b"never", "move"
    for form in (source._encode(), decode.decode_exact(source._encode()), source._address, fields(source)):
        back = Source.from_c_obj(form)
        assert (back.address, str(back), back.hostname) == ("amqps://h/a", "amqps://h/a", "h")
        assert (back.durable, back.timeout, back.expiry_policy) == (1, 9, b"never")
        assert (back.distribution_mode, back.get_filter(b"com.example:session")) == ("move", b"s1")
    assert back._encode() == Source.from_c_obj(back._encode())._encode()


@pytest.mark.parametrize("address", ["[bad", "amqp://[", "", "x://h:99999/"])
def test_a_peer_may_name_its_nodes_as_it_likes(address: str) -> None:
    target = Target.from_c_obj(Described(0x29, [address]))
    assert (target.address, str(target)) == (address, address)
    assert Target.from_c_obj(Described(0x29, [])).address == ""


def test_addresses_are_copied_and_pickled() -> None:
    source = Source("amqps://us:pw@h:1/a")
    source.set_filter("x")
    for other in (copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        assert (other._encode(), other.port, str(other)) == (source._encode(), 1, str(source))
