"""The blocking classes in greenlets, the standard library patched before anything else.

    greens.py KIND BROKER TLS CA

KIND: gevent, eventlet. BROKER, TLS: URLs of the embedded broker, plain and TLS, whose node `silent` never answers. CA: a file
with who signed its certificate.
"""

from __future__ import annotations

import sys

kind, broker, tls, ca = sys.argv[1:]
if kind == "gevent":
    import gevent.monkey

    gevent.monkey.patch_all()
    import gevent

    class Out(gevent.Timeout):
        """What gevent throws after a time."""

    spawn, nap, kill = gevent.spawn, gevent.sleep, gevent.kill

    def wait(task):
        return task.get()

else:
    import eventlet

    eventlet.monkey_patch()

    class Out(eventlet.Timeout):
        """What eventlet throws after a time."""

    spawn, nap = eventlet.spawn, eventlet.sleep

    def kill(task):
        eventlet.kill(task)
        nap()  # it may have left a wake-up for us behind, which would end another wait of ours

    def wait(task):
        return task.wait()


from common import check, done, now, raises, takes

import uamqp_cffi as uamqp
from uamqp_cffi import errors
from uamqp_cffi.authentication import SASLAnonymous
from uamqp_cffi.constants import Delivery, MessageState


def together(*works):
    for task in [spawn(work) for work in works]:
        wait(task)


class Ticks:
    """Counts while it may run: whether a call leaves the others alone."""

    def __enter__(self):
        self.count = 0
        self.task = spawn(self.run)
        return self

    def run(self):
        while True:
            nap(0.01)
            self.count += 1

    def __exit__(self, *args):
        kill(self.task)


def bodies(messages):
    return sorted(str(message) for message in messages)


def send_and_receive():
    with uamqp.SendClient(broker + "/plain") as client:
        client.send_message(uamqp.Message(b"first"))
        client.queue_message(*[uamqp.Message(f"{n:03}") for n in range(300)])
        assert set(client.send_all_messages(close_on_done=False)) == {MessageState.SendComplete}
    with uamqp.ReceiveClient(broker + "/plain", timeout=3000) as client:
        got = client.receive_message_batch(50)
        for message in client.receive_messages_iter():
            got.append(message)
            if len(got) == 200:
                break
        client.receive_messages(lambda message: (got.append(message), len(got) == 301 and client.close()))
    assert bodies(got) == sorted(["first", *(f"{n:03}" for n in range(300))])


def over_tls():
    options = {"auth": SASLAnonymous("localhost", port=int(tls.rpartition(":")[2]), verify=ca)}
    with uamqp.SendClient(tls + "/tls", **options) as client:
        client.queue_message(*[uamqp.Message(bytes(5000)) for _ in range(100)])
        assert set(client.send_all_messages(close_on_done=False)) == {MessageState.SendComplete}
    options = {"auth": SASLAnonymous("localhost", port=int(tls.rpartition(":")[2]), verify=ca)}
    got = []
    with uamqp.ReceiveClient(tls + "/tls", timeout=3000, **options) as client:
        while len(got) < 100:
            got += client.receive_message_batch()


def shared_sender():
    with uamqp.SendClient(broker + "/shared") as client:

        def send():
            for _ in range(20):
                client.send_message(uamqp.Message(b"x"))

        together(*[send] * 10)
    got = []
    with uamqp.ReceiveClient(broker + "/shared", timeout=3000) as client:

        def receive():
            while len(got) < 200:
                got.extend(client.receive_message_batch(10, timeout=100))

        together(receive, receive, receive)
    assert len(got) == 200


def one_callback_at_a_time():
    """Of two receiving greenlets in one client, whose callback waits while more comes."""
    count, inside, most = 0, 0, 0

    def on_message(message):
        nonlocal count, inside, most
        inside += 1
        most = max(most, inside)
        nap(0.005)
        inside -= 1
        count += 1

    def receive():
        try:
            client.receive_messages(on_message)
        except errors.AMQPError:  # closed by another
            return

    with uamqp.SendClient(broker + "/turns") as sender:
        client = uamqp.ReceiveClient(broker + "/turns")
        receiving = [spawn(receive), spawn(receive)]
        for _ in range(20):
            sender.send_message(uamqp.Message(b"x"))
            nap(0.002)
        while count < 20:
            nap(0.001)
        client.close()
        for task in receiving:
            wait(task)
    assert (count, most) == (20, 1), (count, most)


def one_connection():
    connection = uamqp.Connection(
        "localhost", SASLAnonymous("localhost", port=int(broker.rpartition(":")[2]), use_tls=False)
    )
    sender = uamqp.SendClient(broker + "/both")
    receiver = uamqp.ReceiveClient(broker + "/both", timeout=3000)
    sender.open(connection)
    receiver.open(connection)
    got = []

    def send():
        for n in range(100):
            sender.send_message(uamqp.Message(str(n)))

    def receive():
        while len(got) < 100:
            got.extend(receiver.receive_message_batch())

    together(receive, send)
    sender.close()
    receiver.close()
    connection.destroy()


def time_outs():
    with Ticks() as ticks:
        with uamqp.ReceiveClient(broker + "/empty", timeout=100) as client:
            assert client.receive_message_batch(1) == []
        with uamqp.SendClient(broker + "/silent", msg_timeout=100) as client:
            raises(errors.ClientMessageError, lambda: client.send_message(uamqp.Message(b"x")))
    assert ticks.count > 5, ticks.count


def thrown_in():
    """A time-out of the runtime's, in a send and in a receive: the client goes on."""
    message = uamqp.Message(b"x")
    with uamqp.SendClient(broker + "/silent") as client:
        with Out(0.1, False):
            client.send_message(message)
        assert client.pending_messages == [message]
        while message.state is not MessageState.WaitingForSendAck:
            client.do_work()
        with Out(0.05, False):
            client.wait()
        assert client.pending_messages == [message]
    assert message.delivery is Delivery.UNKNOWN
    with uamqp.SendClient(broker + "/thrown") as sender, uamqp.ReceiveClient(broker + "/thrown") as client:
        for n in range(5):
            with Out(0.02, False):
                client.receive_message_batch(1)
            sender.send_message(uamqp.Message(str(n)))
            assert bodies(client.receive_message_batch(1)) == [str(n)]


def killed():
    """Greenlets that are killed while they lead, or follow: the others go on, and nothing is lost."""
    got = []
    with uamqp.SendClient(broker + "/killed") as sender, uamqp.ReceiveClient(broker + "/killed") as client:

        def receive():
            while len(got) < 10:
                got.extend(client.receive_message_batch(1))

        for n in range(10):
            first, second = spawn(receive), spawn(receive)
            nap(0.01)
            kill(first if n % 2 else second)
            sender.send_message(uamqp.Message(str(n)))
            while len(got) <= n:
                nap(0.001)
            kill(second if n % 2 else first)
    assert bodies(got) == [str(n) for n in range(10)]


def closed_by_another():
    client = uamqp.SendClient(broker + "/silent")
    client.open()
    told = []

    def send():
        told.append(raises(errors.AMQPError, lambda: client.send_message(uamqp.Message(b"x"))))

    task = spawn(send)
    nap(0.1)
    takes(0, 3, client.close)
    wait(task)
    assert len(told) == 1


def heartbeats():
    """The broker closes a connection that says nothing for 0.8 s."""
    with uamqp.SendClient(broker + "/idle") as client:
        client.send_message(uamqp.Message(b"1"))
        nap(1.4)
        client.send_message(uamqp.Message(b"2"))


def no_peer():
    with uamqp.SendClient("amqp://127.0.0.1:9/q", connect_timeout=5) as client:
        raises(errors.AMQPConnectionError, lambda: client.send_message(uamqp.Message(b"x")))
    with Ticks(), uamqp.SendClient("amqp://no-such-host.invalid/q", use_tls=False, connect_timeout=5) as client:
        raises(errors.AMQPConnectionError, lambda: client.send_message(uamqp.Message(b"x")))


for work in (
    send_and_receive, over_tls, shared_sender, one_callback_at_a_time, one_connection, time_outs, thrown_in, killed,
    closed_by_another, heartbeats, no_peer,
):  # fmt: skip
    started = now()
    check(work.__name__, work)
    print(work.__name__, round(now() - started, 2), file=sys.stderr)
done()
