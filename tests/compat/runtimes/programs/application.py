"""A WSGI application for `gunicorn -k gevent`: each request sends a message by a client that all share, and waits for it to be
received by another."""

import os
import threading

import uamqp_cffi as uamqp

URL = os.environ["BROKER"] + f"/gunicorn-{os.getpid()}"
sender = uamqp.SendClient(URL)
receiver = uamqp.ReceiveClient(URL, timeout=5000)
opening = threading.Lock()


def application(environ, start_response):
    with opening:
        sender.open()
        receiver.open()
    sender.send_message(uamqp.Message(environ["PATH_INFO"]))
    (message,) = receiver.receive_message_batch(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%s %s" % (message.state.name.encode(), str(message).encode())]
