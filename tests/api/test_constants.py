"""Numbers of `constants` and `c_uamqp` that must agree with each other."""

from __future__ import annotations

from uamqp_cffi import c_uamqp, constants


def test_enumerations_have_the_numbers_of_the_constants() -> None:
    for prefix, enum, names in (
        ("MESSAGE_SENDER_STATE", constants.MessageSenderState, ("Idle", "Opening", "Open", "Closing", "Error")),
        ("MESSAGE_RECEIVER_STATE", constants.MessageReceiverState, ("Idle", "Opening", "Open", "Closing", "Error")),
        ("MESSAGE_SEND", constants.MessageSendResult, ("Ok", "Error", "Timeout", "Cancelled")),
        ("SENDER_SETTLE_MODE", constants.SenderSettleMode, ("Unsettled", "Settled", "Mixed")),
        ("RECEIVER_SETTLE_MODE", constants.ReceiverSettleMode, ("PeekLock", "ReceiveAndDelete")),
    ):
        assert {name: enum[name].value for name in names} == {
            name: getattr(c_uamqp, f"{prefix}_{name.upper()}") for name in names
        }
        assert len(enum) == len(names)


def test_error_codes_are_those_of_the_compiled_module() -> None:
    conditions = {
        value.encode()
        for name, value in vars(c_uamqp).items()
        if name.startswith(("AMQP_ERROR_", "CONNECTION_ERROR_", "LINK_ERROR_", "SESSION_ERROR_"))
    }
    own = {b"amqp:client-error", b"amqp:unknown-error", b"amqp:vendor-error"}
    assert {code.value for code in constants.ErrorCodes} == conditions | own


def test_groups_of_states_cover_every_state_once() -> None:
    groups = (*constants.DONE_STATES, *constants.PENDING_STATES, *constants.RECEIVE_STATES)
    assert sorted(state.value for state in groups) == [state.value for state in constants.MessageState]


def test_body_types_lead_to_those_of_the_compiled_module_and_back() -> None:
    for kind in constants.MessageBodyType:
        assert constants.BODY_TYPE_C_PYTHON_MAP[kind.value.value] is kind
