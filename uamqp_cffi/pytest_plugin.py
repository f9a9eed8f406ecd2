"""A pytest plug-in that comes with the package: the fixture `amqp_broker` is a fresh embedded broker for each test.

def test_orders_are_sent(amqp_broker):
    send_orders(amqp_broker.url + "/orders")
    assert len(amqp_broker.wait_for("orders", 1)) == 1
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .broker import Broker


@pytest.fixture
def amqp_broker() -> Iterator[Broker]:
    """A `uamqp_cffi.broker.Broker` on a free port of 127.0.0.1, without TLS; closed after the test."""
    from .broker import Broker

    with Broker() as broker:
        yield broker
