"""What users see of a class is the module that they import it from."""

from __future__ import annotations

import importlib
import pickle
import sys
from typing import Any

import pytest

import uamqp_cffi
from uamqp_cffi import Message, broker, c_uamqp, client, constants, message, types, utils

FACES = {
    uamqp_cffi: uamqp_cffi.__all__,
    broker: broker.__all__,
    c_uamqp: [name for name in dir(c_uamqp) if not name.startswith("_")],
    client: ["AMQPClient", "ReceiveClient", "SendClient"],
    message: message.__all__,
    types: [name for name in vars(types) if name.startswith("AMQP") and name != "AMQPValue"],
    utils: ["data_factory", "create_sas_token", "parse_connection_string"],
}
NAMES = [(face, name) for face, names in FACES.items() for name in names]


def _own(face: Any, name: str) -> Any:
    value = getattr(face, name)
    home = getattr(value, "__module__", None)
    return value if callable(value) and isinstance(home, str) and home.startswith("uamqp_cffi") else None


@pytest.mark.parametrize(("face", "name"), [pair for pair in NAMES if _own(*pair) is not None])
def test_a_public_name_shows_the_public_module_that_has_it(face: Any, name: str) -> None:
    value = _own(face, name)
    assert not any(part.startswith("_") for part in value.__module__.split("."))
    importlib.import_module(value.__module__)
    assert getattr(sys.modules[value.__module__], value.__name__) is value
    assert pickle.loads(pickle.dumps(value)) is value


def test_there_are_as_many_public_names_as_there_were() -> None:
    assert sum(_own(*pair) is not None for pair in NAMES) > 180


def test_a_repr_names_the_public_module() -> None:
    assert repr(uamqp_cffi.SendClient) == "<class 'uamqp_cffi.client.SendClient'>"
    assert repr(Message) == "<class 'uamqp_cffi.message.Message'>"
    assert repr(type(c_uamqp.int_value(5))) == "<class 'uamqp_cffi.c_uamqp.IntValue'>"


def test_a_pickle_names_the_public_modules_and_no_other() -> None:
    properties = message.MessageProperties(message_id="a")
    one = Message([b"a", b"b"], properties=properties, header=message.MessageHeader(durable=True))
    written = pickle.dumps(
        [one, message.BatchMessage([b"x"]), c_uamqp.AMQPType.IntValue, constants.MessageState.SendComplete]
    )
    assert b"uamqp_cffi.message" in written and b"uamqp_cffi.c_uamqp" in written
    assert b"uamqp_cffi._" not in written
    assert bytes(pickle.loads(written)[0].encode_message()) == bytes(one.encode_message())
