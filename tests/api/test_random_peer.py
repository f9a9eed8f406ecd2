"""A peer that says anything at any time, seeded: whatever it does, every message is accounted for and the client ends in
time. UAMQP_SEEDS=1000 in the environment makes it that many."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from uamqp_cffi import Message, SendClient, errors
from uamqp_cffi._core.engine.lib import dump, undump
from uamqp_cffi.constants import MessageState, SenderSettleMode

pytestmark = pytest.mark.slow

SEEDS = range(int(os.environ.get("UAMQP_SEEDS", "20")))

STATES = [
    "accepted()", "accepted()", "released()", "modified(delivery-failed=true)", "rejected()",
    'rejected(error=error(condition=:amqp:not-found description="no"))', "received(section-number=0 section-offset=0)",
    "described(0x99u64 [])",
]  # fmt: skip
ENDS = [
    "ch=0 detach(handle=0 closed=true)", "ch=0 detach(handle=0 error=error(condition=:amqp:not-found))", "ch=0 end()",
    "ch=0 close()", "ch=0 close(error=error(condition=:amqp:internal-error))", "raw h'0000000802070000'",
    "ch=0 transfer(handle=0 delivery-id=0) payload=1B", "ch=1 end()", "ch=0 attach(name=\"theirs\" handle=1 role=true)",
    "ch=1 begin(next-outgoing-id=0 incoming-window=1 outgoing-window=1)",
]  # fmt: skip


def disposition(dice: random.Random) -> str:
    first = dice.choice([dice.randrange(60), 4294967290])
    last = dice.choice(["", f"last={dice.randrange(120)}"])
    role, settled = (dice.choice(["true", "true", "false"]) for _ in range(2))
    state = dice.choice(["", f"state={dice.choice(STATES)}", f"state={dice.choice(STATES)}"])
    return f"ch=0 disposition(role={role} first={first} {last} settled={settled} {state})"


def flow(dice: random.Random) -> str:
    base = dice.choice(["", "next-incoming-id=0", "next-incoming-id=10"])
    window, credit = dice.choice([0, 1, 5, 100, 4294967295]), dice.choice([0, 1, 10, 1000, 4294967295])
    drain, echo = (dice.choice(["true", "false"]) for _ in range(2))
    count = dice.choice([0, 3, 20, 4294967290])
    link = dice.choice(["", f"handle=0 delivery-count={count} link-credit={credit} drain={drain} echo={echo}"])
    return f"ch=0 flow({base} incoming-window={window} next-outgoing-id=0 outgoing-window=5 {link})"


def anything(dice: random.Random) -> bytes:
    if dice.random() < 0.01:
        return undump(dice.choice(ENDS))
    return undump(dice.choice([disposition, disposition, flow, flow, lambda _: "ch=0 empty"])(dice))


def answer(text: str, dice: random.Random) -> list[str]:
    """What a peer says to this frame before it goes mad."""
    if text.startswith("AMQP"):
        return ["AMQP 0.1.0.0"]
    if text.startswith("SASL"):
        return ["SASL 3.1.0.0", "sasl-mechanisms(sasl-server-mechanisms=@[:ANONYMOUS])"]
    if text.startswith("sasl-init"):
        return ["sasl-outcome(code=0)"]
    if text.startswith("ch=0 open("):
        return ['ch=0 open(container-id="peer")']
    if text.startswith("ch=0 begin("):
        window = dice.choice([1, 5, 1000])
        return [f"ch=0 begin(remote-channel=0 next-outgoing-id=0 incoming-window={window} outgoing-window=9)"]
    if text.startswith("ch=0 attach(") and "sender-link" in text:
        name = text.split('name="')[1].split('"')[0]
        return [f'ch=0 attach(name="{name}" handle=0 role=true source=source() target=target(address="q"))', flow(dice)]
    ends = {
        "ch=0 detach(handle=0": "ch=0 detach(handle=0 closed=true)",
        "ch=0 end(": "ch=0 end()",
        "ch=0 close(": "ch=0 close()",
    }
    return [said for start, said in ends.items() if text.startswith(start)]


def frames(sock: socket.socket) -> Iterator[str]:
    held = b""
    while data := sock.recv(65536):
        held += data
        while len(held) >= 8:
            text, used = dump(held)
            if not used:
                break
            held = held[used:]
            yield text


def serve(listener: socket.socket, dice: random.Random) -> None:
    try:
        sock = listener.accept()[0]
        with sock:
            attached = False
            for text in frames(sock):
                sock.sendall(b"".join(map(undump, answer(text, dice))))
                attached = attached or "attach(" in text
                if attached and ("transfer(" in text or dice.random() < 0.2):
                    sock.sendall(b"".join(anything(dice) for _ in range(dice.randrange(4))))
                    if dice.random() < 0.005:
                        return
    except OSError:
        return  # the client, or the test, has gone


@pytest.mark.parametrize("seed", SEEDS)
def test_every_message_is_accounted_for_whatever_the_peer_says(seed: int) -> None:
    dice = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = threading.Thread(target=serve, args=(listener, random.Random(-seed)), daemon=True)
        peer.start()
        client = SendClient(
            f"amqp://127.0.0.1:{listener.getsockname()[1]}/q",
            connect_timeout=5,
            msg_timeout=100,
            error_policy=errors.ErrorPolicy(max_retries=dice.choice([0, 3])),
            send_settle_mode=dice.choice([*[SenderSettleMode.Unsettled] * 4, SenderSettleMode.Settled]),
        )
        messages = [Message(bytes(dice.choice([1, 100, 3000]))) for _ in range(dice.choice([1, 20, 60]))]
        told: Counter[int] = Counter()
        for message in messages:
            message.on_send_complete = partial(lambda message, *outcome: told.update([id(message)]), message)
        client.queue_message(*messages)
        start = time.monotonic()
        try:
            client.send_all_messages(close_on_done=False)
            failure = None
        except errors.AMQPError as error:
            failure = error
        assert time.monotonic() - start < 10
        assert failure is None or "inside" not in str(failure)
        waiting = [message for message in messages if message.state is MessageState.WaitingToBeSent]
        done = [
            message for message in messages if message.state in (MessageState.SendComplete, MessageState.SendFailed)
        ]
        assert len(waiting) + len(done) == len(messages)
        assert bool(waiting) <= (failure is not None)
        client.close()
        assert time.monotonic() - start < 16
        assert sorted(map(id, client.pending_messages)) == sorted(map(id, waiting))
        assert told == {id(message): 1 for message in done}
        peer.join(10)
        assert not peer.is_alive()
