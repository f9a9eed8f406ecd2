"""The fixture that users get with the package."""

from __future__ import annotations

import pytest

pytest_plugins = "pytester"


def test_each_test_gets_a_broker_of_its_own_that_is_closed_after_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import socket
        import pytest
        from uamqp_cffi import SendClient

        ports = []

        @pytest.mark.parametrize("turn", [1, 2])
        def test_send(amqp_broker, turn):
            with SendClient(amqp_broker.url + "/orders") as client:
                from uamqp_cffi import Message
                client.send_message(Message(b"one"))
            assert [str(m) for m in amqp_broker.wait_for("orders")] == ["one"]
            ports.append(amqp_broker.port)

        def test_closed():
            assert len(ports) == 2
            for port in ports:
                with pytest.raises(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=5)
        """
    )
    result = pytester.runpytest_subprocess("-p", "uamqp_cffi.pytest_plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)
