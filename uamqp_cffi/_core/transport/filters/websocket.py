"""WebSocket (RFC 6455) without I/O, for AMQP inside of binary messages.

The messages are a stream of bytes: received ones may be split and joined at will, and each write() becomes one message of
its own, however many AMQP frames it has. Nobody who reads AMQP from a stream minds, and one message for many frames costs
a header, a key and a pass of masking instead of hundreds. No message is larger than the 64 KiB that servers take by
default.

A close frame is a lost connection, whatever its code: AMQP says for itself when it is done.
"""

from __future__ import annotations

from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.connection import ConnectionState
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from .base import HttpRefused, TransportError
from .http_connect import HEAD, check_is_http, plain_text, refused

PATH = "/$servicebus/websocket/"
SUBPROTOCOLS = ("AMQPWSB10", "amqp")
"""What a client offers and a server takes: Azure's name, and the one that OASIS registered."""
_MESSAGE = 64 << 10
_GOING = (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED)


class WebSocket:
    """One end of a WebSocket: a `Filter`. `host`: the client's Host header, `name:port`."""

    doing = "waiting for the answer to the WebSocket upgrade"

    def __init__(self, host: str = "", server_side: bool = False) -> None:
        self._server_side = server_side
        self._ws = WSConnection(ConnectionType.SERVER if server_side else ConnectionType.CLIENT)
        self._out = bytearray()
        if not server_side:
            self._out += self._ws.send(ws.Request(host=host, target=PATH, subprotocols=list(SUBPROTOCOLS)))
        self._in = bytearray()
        self._head = b""
        self._count = 0
        self._pong: bytes | None = None  # only the last ping is answered (§5.5.3): nothing to pile up
        self._error: TransportError | None = None
        self._why = ""
        self._code = CloseReason.NORMAL_CLOSURE
        self._closing = False
        self.ready = False
        """The upgrade is over."""
        self.eof = False
        """The peer sent a close frame; or it was a client whose request we refused."""

    # from the network

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if self.eof or self._error is not None or not data:
            return
        try:
            if not self.ready:
                self._check_head(bytes(data))
            self._take_in(bytes(data))
            if not self.ready and not self.eof and self._count > HEAD:
                raise self._not_http("has too many headers")
        except TransportError as error:
            self._error = error
            if not self._in:
                raise

    def _check_head(self, data: bytes) -> None:
        self._count += len(data)
        if not self._server_side and len(self._head) < 7:
            self._head += data[:7]
            check_is_http(self._head, "the server", "server")

    def _take_in(self, data: bytes) -> None:
        try:
            self._ws.receive_data(data)
            for event in self._ws.events():
                self._on(event)
        except RemoteProtocolError as error:
            if self._server_side:
                self._turn_away(error.event_hint)
            else:
                raise self._not_http(f"is not the one that WebSocket wants: {plain_text(str(error))}") from error
        except (LocalProtocolError, ValueError) as error:  # such as headers that are not ASCII
            raise self._not_http(f"makes no sense: {plain_text(str(error))}") from error

    def _not_http(self, how: str) -> TransportError:
        if self._server_side:
            return TransportError(f"the client's WebSocket request {how}")
        return HttpRefused(f"the server's answer to the WebSocket upgrade {how}", "server")

    def _on(self, event: ws.Event) -> None:
        if isinstance(event, ws.BytesMessage):
            self._in += event.data
        elif isinstance(event, ws.Ping):
            self._pong = bytes(event.payload)
        elif isinstance(event, ws.TextMessage):
            self._code = CloseReason.UNSUPPORTED_DATA
            raise TransportError("the peer sent text over the WebSocket; AMQP is binary")
        elif isinstance(event, ws.CloseConnection):
            self._on_close(event)
        elif isinstance(event, ws.Request):
            self._on_request(event)
        elif isinstance(event, ws.AcceptConnection):
            self.ready = True
        elif isinstance(event, ws.RejectConnection) and event.status_code >= 200:  # below: an interim answer
            raise refused("the server", "server", event.status_code, headers=event.headers)

    def _on_close(self, event: ws.CloseConnection) -> None:
        if self._ws.state not in _GOING:  # what wsproto makes of a frame that breaks the rules
            self._code = CloseReason(event.code)
            raise TransportError(f"the peer broke the WebSocket protocol: {plain_text(event.reason or '')}")
        self.eof = True
        self._why = str(int(event.code))
        if event.code in CloseReason._value2member_map_:
            self._why += " " + CloseReason(event.code).name.lower().replace("_", " ")
        if event.reason:
            self._why += f": {plain_text(event.reason)}"
        if self._ws.state is ConnectionState.REMOTE_CLOSING:
            self._out += self._ws.send(event.response())

    # the server's side of the upgrade

    def _on_request(self, event: ws.Request) -> None:
        chosen = next((name for name in SUBPROTOCOLS if name in event.subprotocols), None)
        if chosen is None:
            self._turn_away(ws.RejectConnection(status_code=400))
            return
        self._out += self._ws.send(ws.AcceptConnection(subprotocol=chosen))
        self.ready = True

    def _turn_away(self, answer: ws.Event | None) -> None:
        self.eof = True
        self._why = "the client's request was no WebSocket upgrade for AMQP"
        if not isinstance(answer, ws.RejectConnection):
            answer = ws.RejectConnection(status_code=400)
        headers = [*answer.headers, (b"connection", b"close")]
        self._out += self._ws.send(ws.RejectConnection(status_code=answer.status_code, headers=headers))

    # AMQP's side

    def feed_eof(self) -> None:
        if self.eof:
            raise TransportError(f"the peer closed the WebSocket: {self._why}")
        if self.ready:
            raise TransportError("the WebSocket ended without a close frame: the connection was cut off")
        if self._server_side:
            raise TransportError("the client went away during the WebSocket upgrade")
        raise HttpRefused(
            "the server closed the connection instead of answering the WebSocket upgrade", "server", retryable=True
        )

    @property
    def failing(self) -> bool:
        """The next read_into() will raise once the bytes are read that came before what is wrong."""
        return self._error is not None

    def read_into(self, room: memoryview) -> int:
        if not self._in and self._error is not None:
            raise self._error
        n = min(len(room), len(self._in))
        room[:n] = self._in[:n]
        del self._in[:n]
        return n

    def write(self, data: memoryview) -> int:
        if not self.ready or self.eof or self._closing:
            return 0
        for at in range(0, len(data), _MESSAGE):
            self._out += self._ws.send(ws.BytesMessage(data=bytes(data[at : at + _MESSAGE])))
        return len(data)

    # to the network

    @property
    def pending(self) -> int:
        return len(self._out) + (self._pong is not None)

    def take(self) -> bytes:
        pong, self._pong = self._pong, None
        if pong is not None and self._ws.state is ConnectionState.OPEN:
            self._out += self._ws.send(ws.Pong(payload=pong))
        out = bytes(self._out)
        self._out.clear()
        return out

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._pong = None
        if self.ready and self._ws.state is ConnectionState.OPEN:
            self._out += self._ws.send(ws.CloseConnection(code=self._code))
