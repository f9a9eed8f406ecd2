"""SAS tokens, connection strings, the event loop, and compat's names."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import queue
from datetime import timedelta
from urllib.parse import unquote

import pytest

from uamqp_cffi import c_uamqp, compat, utils
from uamqp_cffi._native import make


def test_a_connection_string_is_split_at_the_first_equals_sign() -> None:
    assert utils.parse_connection_string("Endpoint=sb://a/;K=v=") == {"Endpoint": "sb://a/", "K": "v="}


def test_empty_parts_of_a_connection_string_are_ignored() -> None:
    assert utils.parse_connection_string("A=1;;B=2;") == {"A": "1", "B": "2"}


def test_a_part_without_equals_sign_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="part 2") as caught:
        utils.parse_connection_string("A=1;secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("seconds", [60, 86400, 100 * 86400])
def test_a_token_expires_when_it_should(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    monkeypatch.setattr(utils.time, "time", lambda: 1000.5)
    token = utils.create_sas_token(b"name", b"key", b"scope", timedelta(seconds=seconds))
    assert b"&se=%d&" % (1000 + seconds) in token


def test_a_token_is_signed_over_scope_and_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils.time, "time", lambda: 1795491234)
    token = utils.create_sas_token(b"k", b"s", b"sc")
    # what uamqp 1.6.11 gave at that time
    assert token == (
        b"SharedAccessSignature sr=sc&sig=8mrDpHGZGQJ5LebcjBh8tv84YjeVR3Au4DRY%2bmF4qUk%3d&se=1795494834&skn=k"
    )
    signature = base64.b64decode(unquote(token.split(b"sig=")[1].split(b"&")[0].decode()))
    assert signature == hmac.new(b"s", b"sc\n1795494834", hashlib.sha256).digest()


def test_the_native_token_takes_a_base64_key_and_an_expiry() -> None:
    token = c_uamqp.create_sas_token(base64.b64encode(b"key"), b"scope", b"name", 1234)
    assert token.startswith(b"SharedAccessSignature sr=scope&sig=")
    assert token.endswith(b"&se=1234&skn=name")
    with pytest.raises(ValueError):
        c_uamqp.create_sas_token(b"not base64!", b"scope", b"name", 1234)


def test_the_running_loop_is_given() -> None:
    async def main() -> bool:
        return utils.get_running_loop() is asyncio.get_running_loop()

    assert asyncio.run(main())


def test_without_a_running_loop_the_policys_is_given_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with caplog.at_level(logging.WARNING, "uamqp"):
            assert utils.get_running_loop() is loop
        assert caplog.records
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_none_is_null() -> None:
    assert make.data_factory(None).type is c_uamqp.AMQPType.NullValue


def test_compat_has_the_names_of_python_3() -> None:
    assert (compat.PY2, compat.PY3) == (False, True)
    assert compat.TimeoutException is TimeoutError
    assert compat.queue is queue
    assert (compat.long, compat.str, compat.bytes, compat.builtin_str) == (int, str, bytes, str)
