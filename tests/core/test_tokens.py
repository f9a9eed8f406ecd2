"""Auth objects with tokens: what they take, what they make, what they hide."""

from __future__ import annotations

import asyncio
import copy
import functools
import time
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

from uamqp_cffi import authentication, errors
from uamqp_cffi.authentication import (
    CBSAsyncAuthMixin,
    CBSAuthMixin,
    JWTTokenAsync,
    JWTTokenAuth,
    SASTokenAsync,
    SASTokenAuth,
    TokenRetryPolicy,
    cbs_auth_async,
)
from uamqp_cffi.connection import Connection
from uamqp_cffi.constants import TransportType

URI = "sb://ns.servicebus.windows.net/q"
HOUR = timedelta(hours=1)


@pytest.fixture
def now(monkeypatch):
    """The time, standing still at one that uamqp was observed at."""
    monkeypatch.setattr(time, "time", lambda: 1795706425.5)
    return 1795706425.5


def sas(**options):
    return SASTokenAuth("aud", URI, "secret", **{"expires_in": HOUR, **options})


def access(text="jwt", seconds=3600.0):
    return SimpleNamespace(token=text, expires_on=time.time() + seconds)


async def coroutine():
    return access("awaited")


# ---- what they take


def test_a_token_auth_says_what_it_is(now):
    auth = sas(timeout=5)
    assert (auth.audience, auth.token, auth.token_type) == (b"aud", b"secret", b"servicebus.windows.net:sastoken")
    assert (auth.hostname, auth.uri, auth.timeout, auth.retries) == (b"ns.servicebus.windows.net", URI, 5, 0)
    assert (auth.username, auth.password, auth.expires_in, auth.expires_at) == (None, None, HOUR, now + 3600)
    assert auth.sasl.name == "MSSBCBS"


def test_a_jwt_auth_has_no_token_yet(now):
    auth = JWTTokenAuth("aud", URI, access, expires_in=timedelta(seconds=10))
    assert (auth.token, auth.token_type, auth.expires_at, auth.get_token) == (None, b"jwt", now + 10, access)


@pytest.mark.parametrize(
    ("seconds", "expires_in"), [(500, timedelta(seconds=500)), (2 * 86400 + 5, timedelta(days=2, seconds=5))]
)
def test_when_a_token_expires_tells_in_how_long(now, seconds, expires_in):
    auth = sas(expires_in=None, expires_at=now + seconds)
    assert (auth.expires_at, auth.expires_in) == (now + seconds, expires_in)


def test_days_of_a_token_s_life_count(now):
    assert sas(expires_in=timedelta(days=1)).expires_at == now + 86400


@pytest.mark.parametrize(
    "options",
    [
        {"expires_in": None},
        {"expires_in": timedelta(0)},
        {"expires_at": 0},
        {"expires_at": 1795706426.4},
        {"expires_at": float("-inf")},
        {"expires_at": float("nan")},
        {"expires_at": "tomorrow"},
        {"expires_at": True},
        {"expires_at": 10**400},
    ],
)
def test_a_token_needs_time_to_live(now, options):
    with pytest.raises(ValueError):
        sas(**options)


@pytest.mark.parametrize("expires_at", [1e30, 10**40, float("inf")])
def test_a_token_may_live_for_ever(expires_at):
    assert sas(expires_in=None, expires_at=expires_at).expires_at == expires_at


def test_in_how_long_is_a_timedelta():
    with pytest.raises(TypeError, match="timedelta"):
        sas(expires_in=3600)


def test_an_uri_names_a_host_and_is_not_shown():
    with pytest.raises(ValueError) as caught:
        SASTokenAuth("aud", "no-host-secret", "t", expires_in=HOUR)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("get_token", [None, "jwt"])
def test_get_token_must_be_callable(get_token):
    with pytest.raises(ValueError, match="get_token"):
        JWTTokenAuth("aud", URI, get_token)


def test_a_custom_endpoint_is_where_the_connection_goes():
    auth = sas(custom_endpoint_hostname="elsewhere", port=99)
    assert (auth.hostname, auth._connect_to, auth._port) == (b"ns.servicebus.windows.net", "elsewhere", 99)


def test_transport_arguments_are_those_of_every_auth_object():
    auth = JWTTokenAuth("aud", URI, access, transport_type=TransportType.AmqpOverWebsocket, use_tls=False)
    assert auth._transport_type is TransportType.AmqpOverWebsocket and auth.use_tls is False


def test_unknown_arguments_are_named():
    with pytest.raises(ValueError, match="'whatever'"):
        sas(whatever=1)


def test_a_loop_that_is_none_is_no_argument():
    assert sas(loop=None).token == b"secret"


def test_a_retry_policy_counts_its_backoff_in_seconds():
    assert vars(TokenRetryPolicy()) == {"retries": 3, "backoff": 0}
    assert vars(TokenRetryPolicy(2, 1500)) == {"retries": 2, "backoff": 1.5}


# ---- what they make


def test_a_shared_access_key_signs_as_uamqp_does(now):
    auth = SASTokenAuth.from_shared_access_key(URI, "kn", "k==")
    # what uamqp 1.6.11 gave at that time
    assert auth.token == (
        b"SharedAccessSignature sr=sb%3A%2F%2Fns.servicebus.windows.net%2Fq"
        b"&sig=AjOrqqiVhb1pgY08QtbknZgstVpgIixw0GOwq03e8qY%3d&se=1795710025&skn=kn"
    )
    assert (auth.audience, auth.username, auth.password) == (URI.encode(), "kn", "k==")
    assert (auth.expires_at, auth.expires_in) == (now + 3600, HOUR)


def test_names_are_quoted_in_a_signature_as_uamqp_does(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1795706868.0)
    auth = SASTokenAuth("aud", "sb://h/q", "t", expires_in=timedelta(seconds=9), username="u+x", password="p")
    auth.update_token()
    # what uamqp 1.6.11 gave at that time
    assert auth.token == (
        b"SharedAccessSignature sr=sb%3A%2F%2Fh%2Fq"
        b"&sig=4lXKkmcmBoA4pJi2771WoWJiDtOXyyyRRt3XwU7gC%2b8%3d&se=1795706877&skn=u%2Bx"
    )


@pytest.mark.parametrize("expiry", [60, 86400, 3 * 86400 + 1])
def test_a_signature_is_good_for_its_expiry(now, expiry):
    auth = SASTokenAuth.from_shared_access_key(URI, "kn", "k==", expiry=expiry)
    assert b"&se=%d&" % int(now + expiry) in auth.token
    assert auth.expires_at == now + expiry


def test_a_shared_access_key_passes_all_options_on():
    auth = SASTokenAuth.from_shared_access_key(URI, "kn", "k==", port=99, timeout=3, refresh_window=7, use_tls=False)
    assert (auth._port, auth.timeout, auth._refresh_window, auth.use_tls) == (99, 3, 7, False)


def test_a_subclass_makes_its_own_kind():
    assert type(SASTokenAsync.from_shared_access_key(URI, "kn", "k==")) is SASTokenAsync


def test_a_renewed_signature_lasts_as_long_as_the_first(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    auth = SASTokenAuth.from_shared_access_key(URI, "kn", "k==", expiry=90)
    first = auth.token
    monkeypatch.setattr(time, "time", lambda: 1080.0)
    auth.update_token()
    assert auth.token != first and auth.expires_at == 1170 and "se=1170&" in unquote(auth.token.decode())


def test_a_fixed_token_cannot_be_renewed():
    with pytest.raises(errors.TokenExpired):
        sas().update_token()


def test_the_mixin_alone_cannot_renew():
    with pytest.raises(errors.TokenExpired):
        CBSAuthMixin().update_token()


def test_update_token_asks_the_function():
    auth = JWTTokenAuth("aud", URI, lambda: SimpleNamespace(token="täken", expires_on=4e9))
    auth.update_token()
    assert (auth.token, auth.expires_at) == ("täken".encode(), 4e9)


def test_what_the_function_raises_comes_through():
    def fail():
        raise LookupError("no")

    auth = JWTTokenAuth("aud", URI, fail)
    with pytest.raises(LookupError):
        auth.update_token()


@pytest.mark.parametrize(
    "got",
    [
        None,
        "secret",
        SimpleNamespace(token=None, expires_on=4e9),
        SimpleNamespace(token="secret"),
        SimpleNamespace(token="secret", expires_on="soon"),
        SimpleNamespace(token="secret", expires_on=float("nan")),
        SimpleNamespace(token=7, expires_on=4e9),
    ],
)
def test_what_is_no_token_is_refused_and_not_shown(got):
    auth = JWTTokenAuth("aud", URI, lambda: got)
    auth.token = b"before"
    with pytest.raises(ValueError, match="get_token gave|time at which") as caught:
        auth.update_token()
    assert auth.token == b"before" and "secret" not in str(caught.value)


def test_a_blocking_auth_object_wants_no_coroutine():
    with pytest.raises(RuntimeError, match="JWTTokenAsync"):
        JWTTokenAuth("aud", URI, coroutine).update_token()


# ---- what they hide


@pytest.mark.parametrize("show", [repr, str])
def test_an_auth_object_shows_neither_token_nor_key(show):
    auth = sas(username="kn", password="secret-key")
    assert "secret" not in show(auth)


# ---- authenticators


@pytest.fixture
def connect():
    """Makes connections to nowhere, for auth objects."""
    made = []

    def connection(auth):
        made.append(Connection("host", auth))
        return made[-1]

    yield connection
    for one in made:
        one.destroy()


def test_an_authenticator_is_a_session_of_its_connection(connect):
    auth = sas()
    connection = connect(auth)
    session = auth.create_authenticator(connection, incoming_window=7, outgoing_window=8, handle_max=9)
    assert (session.incoming_window, session.outgoing_window, session.handle_max) == (7, 8, 9)
    assert session._connection is connection and connection._cbs is auth._cbs_auth is connection.cbs


def test_a_connection_has_one_authenticator(connect):
    auth = sas()
    connection = connect(auth)
    assert auth.create_authenticator(connection) is auth.create_authenticator(connection)


def test_making_an_authenticator_asks_for_the_first_token(connect):
    auth = JWTTokenAuth("aud", URI, access)
    auth.create_authenticator(connect(auth))
    assert auth.token == b"jwt"


def test_a_function_that_fails_leaves_no_authenticator(connect):
    def fail():
        raise LookupError("no")

    auth = JWTTokenAuth("aud", URI, fail)
    connection = connect(auth)
    with pytest.raises(LookupError):
        auth.create_authenticator(connection)
    assert connection.cbs is None
    auth.get_token = access
    assert auth.create_authenticator(connection) is auth._session


def test_without_an_authenticator_there_is_no_step():
    with pytest.raises(AttributeError, match="create_authenticator"):
        sas().handle_token()


def test_closing_the_connection_closes_the_authenticator(connect):
    auth = sas()
    connection = connect(auth)
    session = auth.create_authenticator(connection)
    connection.destroy()
    assert session._ended and connection.cbs is None


def test_an_authenticator_can_be_closed_before_and_after_it_was_made(connect):
    auth = sas()
    auth.close_authenticator()
    session = auth.create_authenticator(connect(auth))
    auth.close_authenticator()
    auth.close_authenticator()
    assert session._ended


# ---- asyncio


@pytest.mark.parametrize("get_token", [coroutine, functools.partial(coroutine)])
def test_coroutine_functions_and_partials_of_them_will_do(get_token):
    assert cbs_auth_async.is_coroutine(get_token) is True


def test_an_object_with_a_coroutine_to_call_will_do():
    class Source:
        async def __call__(self):
            return access()

    assert cbs_auth_async.is_coroutine(Source()) is True


@pytest.mark.parametrize("get_token", [access, None, "jwt", functools.partial(access)])
def test_anything_else_will_not(get_token):
    with pytest.raises(ValueError, match="coroutine function"):
        JWTTokenAsync("aud", URI, get_token)


@pytest.mark.parametrize("cls", [SASTokenAsync, JWTTokenAsync])
def test_async_auth_objects_are_of_both_kinds(cls):
    assert issubclass(cls, CBSAsyncAuthMixin) and issubclass(cls, (SASTokenAuth, JWTTokenAuth))


def test_update_token_of_async_classes_is_a_coroutine():
    async def main():
        signed = SASTokenAsync.from_shared_access_key(URI, "kn", "k==")
        given = JWTTokenAsync("aud", URI, coroutine)
        signed.token = None
        await signed.update_token()
        await given.update_token()
        return signed.token, given.token

    signed, given = asyncio.run(main())
    assert signed.startswith(b"SharedAccessSignature ") and given == b"awaited"


def test_an_async_authenticator_awaits_the_first_token(connect):
    async def main():
        auth = JWTTokenAsync("aud", URI, coroutine)
        session = await auth.create_authenticator_async(connect(auth), incoming_window=7)
        return auth, session

    auth, session = asyncio.run(main())
    assert auth.token == b"awaited" and session.incoming_window == 7 and auth.loop is None
    asyncio.run(auth.close_authenticator_async())
    assert session._ended


def test_a_blocking_call_refuses_an_async_auth_object(connect):
    auth = JWTTokenAsync("aud", URI, coroutine)
    with pytest.raises(RuntimeError, match="asyncio classes"):
        auth.create_authenticator(connect(auth))


def test_a_loop_cannot_be_given(connect):
    auth = SASTokenAsync("aud", URI, "t", expires_in=HOUR)
    with pytest.raises(ValueError, match="loop"):
        asyncio.run(auth.create_authenticator_async(connect(auth), loop=object()))


# ---- the package


@pytest.mark.parametrize("name", authentication.__all__)
def test_every_name_is_there(name):
    assert getattr(authentication, name).__name__ == name


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchAuth"):
        authentication.NoSuchAuth


def test_token_errors_can_be_copied():
    error = copy.copy(errors.TokenAuthFailure(401, b"why"))
    assert (error.status_code, error.description) == (401, b"why")
