"""Arguments can be seen: by `inspect` and completion, by who misspells one, and by who evaluates annotations."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import uamqp_cffi
from uamqp_cffi import (
    AMQPClient,
    AMQPClientAsync,
    ReceiveClient,
    ReceiveClientAsync,
    SendClient,
    SendClientAsync,
    _functions,
)
from uamqp_cffi.authentication import JWTTokenAsync, JWTTokenAuth, SASTokenAsync, SASTokenAuth

URL = "amqp://localhost/q"
TWINS = {AMQPClient: AMQPClientAsync, SendClient: SendClientAsync, ReceiveClient: ReceiveClientAsync}
CLIENTS = [*TWINS, *TWINS.values()]
CLIENT = {
    "encoding",
    "transport_type",
    "http_proxy",
    "max_frame_size",
    "channel_max",
    "idle_timeout",
    "properties",
    "incoming_window",
    "outgoing_window",
    "remote_idle_timeout_empty_frame_send_ratio",
    "handle_max",
    "on_attach",
    "send_settle_mode",
    "receive_settle_mode",
    "desired_capabilities",
    "keep_alive_interval",
    "use_tls",
    "sasl",
    "ssl_context",
    "connect_timeout",
}
LINK = {"address", "max_message_size", "link_properties"}
OWN = {
    SendClient: LINK | {"msg_timeout", "link_credit"},
    ReceiveClient: LINK | {"timeout", "auto_complete", "prefetch", "shutdown_after_timeout"},
}


def token() -> Any:
    raise AssertionError("nobody asks for one here")


async def token_async() -> Any:
    raise AssertionError("nobody asks for one here")


SAS = {"audience": URL, "uri": URL, "token": b"t", "expires_in": timedelta(hours=1)}
TOKENS: dict[str, Callable[..., Any]] = {
    "SASTokenAuth": functools.partial(SASTokenAuth, **SAS),
    "SASTokenAsync": functools.partial(SASTokenAsync, **SAS),
    "JWTTokenAuth": functools.partial(JWTTokenAuth, URL, URL, token),
    "JWTTokenAsync": functools.partial(JWTTokenAsync, URL, URL, token_async),
    "from_shared_access_key": functools.partial(SASTokenAuth.from_shared_access_key, URL, "name", "key"),
}


# ---- signatures


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_signature_of_a_client_has_every_argument_it_takes(kind: type) -> None:
    wanted = CLIENT.union(*[own for base, own in OWN.items() if issubclass(kind, base)])
    assert wanted - inspect.signature(kind).parameters.keys() == set()


@pytest.mark.parametrize("kind", TWINS)
def test_the_twin_of_a_client_takes_the_same_arguments(kind: type) -> None:
    def arguments(of: type) -> dict[str, Any]:
        return {p.name: p.default for p in inspect.signature(of).parameters.values()}

    twins = arguments(TWINS[kind])
    assert twins.pop("loop") is None
    assert twins == arguments(kind)


@pytest.mark.parametrize("made", TOKENS.values(), ids=TOKENS)
def test_the_signature_of_an_auth_class_has_every_argument_it_takes(made: Callable[..., Any]) -> None:
    arguments = inspect.signature(made).parameters.keys()
    assert {"refresh_window", "custom_endpoint_hostname", "use_tls", "ssl_context", "http_proxy"} - arguments == set()


@pytest.mark.parametrize("kind", CLIENTS)
def test_every_argument_of_a_client_arrives(kind: type) -> None:
    taken = set(inspect.signature(kind).parameters) - {"kwargs", "remote_address", "target", "source", "loop", "auth"}
    given: dict[str, Any] = dict.fromkeys(taken)
    given.update(
        max_frame_size=4096, use_tls=False, debug=True, client_name="me", keep_alive_interval=3, connect_timeout=7
    )
    client = kind(URL, **given)
    assert (client._max_frame_size, client._use_tls, client._debug_trace) == (4096, False, True)
    assert (client._name, client._keep_alive_interval, client._connect_timeout) == ("me", 3, 7)


def test_what_receive_messages_passes_on_is_what_a_receive_client_takes() -> None:
    named = inspect.signature(uamqp_cffi.receive_messages).parameters.keys()
    taken = inspect.signature(ReceiveClient).parameters.keys()
    assert typing.get_type_hints(_functions.ReceiveOptions).keys() == taken - named


# ---- names that are not known


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("wrong", "right"), [("idle_timout", "idle_timeout"), ("adress", "address"), ("debgu", "debug")]
)
def test_a_misspelt_argument_of_a_client_is_told_with_the_right_one(kind: type, wrong: str, right: str) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__} .*'{wrong}'.*did you mean '{right}'"):
        kind(URL, **{wrong: 5})


def test_a_receive_client_is_told_its_own_arguments() -> None:
    with pytest.raises(ValueError, match=r"'prefetch_count' \(did you mean 'prefetch'\?\)"):
        ReceiveClient(URL, prefetch_count=5)


def test_an_argument_like_no_other_is_told_without_advice() -> None:
    with pytest.raises(ValueError, match="argument 'zzz'$"):
        SendClient(URL, zzz=5)


def test_a_subclass_may_have_arguments_of_its_own() -> None:
    class Mine(SendClient):
        def __init__(self, *args: Any, colour: str = "", **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    with pytest.raises(ValueError, match="did you mean 'colour'"):
        Mine(URL, color="red")
    assert Mine(URL, colour="red", max_frame_size=512)._max_frame_size == 512


@pytest.mark.parametrize("name", TOKENS)
def test_a_misspelt_argument_of_an_auth_class_is_told_with_the_right_one(name: str) -> None:
    with pytest.raises(ValueError, match=r"'refresh_windw' \(did you mean 'refresh_window'\?\)"):
        TOKENS[name](refresh_windw=5)


# ---- annotations


def _objects() -> Iterator[tuple[str, Any]]:
    """Every module, class and function of the package, and what is below the classes."""
    for info in pkgutil.walk_packages(uamqp_cffi.__path__, "uamqp_cffi."):
        if info.name.endswith(("__main__", "._uam")):
            continue
        module = importlib.import_module(info.name)
        yield info.name, module
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", None) != info.name:
                continue
            if inspect.isfunction(value) or inspect.isclass(value):
                yield f"{info.name}.{name}", value
            for member, below in list(vars(value).items()) if inspect.isclass(value) else ():
                for one in (
                    (below.fget, below.fset) if isinstance(below, property) else (getattr(below, "__func__", below),)
                ):
                    if inspect.isfunction(one) and one.__module__ == info.name:  # else Python made it, for a NamedTuple
                        yield f"{info.name}.{name}.{member}", one


def test_every_annotation_can_be_evaluated() -> None:
    seen, wrong = 0, []
    for name, value in [("uamqp_cffi", uamqp_cffi), *_objects()]:
        seen += 1
        try:
            typing.get_type_hints(value)
        except (NameError, TypeError, AttributeError) as error:
            wrong.append(f"{name}: {error}")
    assert wrong == []
    assert seen > 1226
