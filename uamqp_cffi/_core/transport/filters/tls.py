"""TLS without I/O: `ssl.MemoryBIO` on both sides, so that blocking and asyncio drivers share it and bytes test it.

Plaintext is read straight into the caller's buffer (the engine's receive window) and taken straight from one (its send
window). A stream that ends without close_notify is a lost connection, not an end.
"""

from __future__ import annotations

import ssl
from typing import Any

from .base import TransportError

__all__ = ["Tls", "TransportError"]


_CERTIFICATE = "SASLExternal(cert_file=, key_file=) sends one, and so does an ssl_context= that has one"
_ALERTS = (  # what a server says, by the end of OpenSSL's name for it, and what to do about it
    ("CERTIFICATE_REQUIRED", f"the server wants a certificate of the client: {_CERTIFICATE}"),
    (
        "HANDSHAKE_FAILURE",
        f"the server wants a certificate of the client ({_CERTIFICATE}), or no version or cipher of TLS that this side has",
    ),
    (
        "UNKNOWN_CA",
        "the server does not trust the CA of the client's certificate: have it signed by one that the server knows",
    ),
    ("CERTIFICATE_EXPIRED", "the client's certificate has expired: renew it"),
    ("CERTIFICATE_REVOKED", "the client's certificate was revoked: get a new one"),
    ("BAD_CERTIFICATE", f"the server refused the client's certificate, or misses it: {_CERTIFICATE}"),
    ("CERTIFICATE_UNKNOWN", "the server refused the client's certificate: its log says why"),
    ("ACCESS_DENIED", "the server refused the client's certificate: its log says why"),
    ("PROTOCOL_VERSION", "the server wants another version of TLS: an ssl_context= can allow it"),
    ("UNRECOGNIZED_NAME", "the server knows no such host name: the one to connect to is that of its certificate"),
)
_OF_A_CA = (18, 19, 20, 21)  # X509_V_ERR_: self-signed, or signed by nobody that is known here


class Tls:
    """One end of a TLS connection: a `Filter`."""

    doing = "in the TLS handshake"

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None, server_side: bool = False) -> None:
        """`server_hostname`: the name to verify and to send as SNI; a client needs it unless the context does not
        check."""
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._server_side = server_side
        self._hostname = server_hostname
        self._ssl = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=server_hostname)
        self._seen = b""
        self.ready = False
        """The handshake is over."""
        self.eof = False
        """The peer said close_notify: no more plaintext will come."""
        self.failing = False
        """The next read_into() will raise."""
        self._closing = False
        if not server_side:
            self._handshake()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Ciphertext from the network."""
        self._in.write(data)
        if not self.ready:
            if len(self._seen) < 8:
                self._seen += bytes(data[:8])
            self._handshake()

    def feed_eof(self) -> None:
        """The network ended. Raises TransportError unless the peer said close_notify first (after reading all there
        is)."""
        if self.eof:
            return
        if not self.ready:
            if self._server_side:
                raise TransportError("the client went away during the TLS handshake")
            raise TransportError(
                "the connection ended during the TLS handshake; if the server does not speak TLS on this port,"
                " say use_tls=False"
            )
        raise TransportError("the TLS stream ended without close_notify: the connection was cut off")

    def _handshake(self) -> None:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise self._explain(error) from error
        self.ready = True
        self._seen = b""

    def _explain(self, error: ssl.SSLError) -> TransportError:
        host = self._hostname
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in (62, 63, 64):  # X509_V_ERR_HOSTNAME_MISMATCH, _EMAIL_, _IP_ADDRESS_
                return TransportError(
                    f"the server's certificate is not for the host name {host!r}: {error.verify_message}"
                )
            cure = "; if its CA is one of yours, name its file by verify=" if error.verify_code in _OF_A_CA else ""
            return TransportError(f"the certificate of {host!r} is not trusted: {error.verify_message}{cure}")
        if not self.ready:
            seen = self._seen
            if seen.startswith(b"AMQP"):
                if self._server_side:
                    return TransportError("the client speaks plain AMQP on a TLS port")
                return TransportError(
                    f"{host!r} speaks plain AMQP on this port, not TLS; if that is meant, say use_tls=False"
                )
            if seen and not 0x14 <= seen[0] <= 0x18:
                return TransportError(f"the peer does not speak TLS on this port: it sent {seen!r}")
        reason = error.reason or str(error)
        alerts = () if self._server_side else _ALERTS
        cure = next((f"; {text}" for name, text in alerts if reason.endswith(name)), "")
        return TransportError(f"TLS failed: {reason}{cure}")

    def read_into(self, room: memoryview) -> int:
        """Put plaintext into `room`; gives how many bytes, 0 when more ciphertext is needed or the peer ended."""
        if not self.ready or self.eof:
            return 0
        done = 0
        size = len(room)
        try:
            while done < size and (self._in.pending or self._ssl.pending()):
                n = self._ssl.read(size - done, room[done:])
                if not n:
                    self.eof = True
                    break
                done += int(n)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.eof = True
        except ssl.SSLError as error:
            if done:
                self.failing = True
                return done  # it comes again with the next read
            raise self._explain(error) from error
        return done

    def write(self, data: memoryview) -> int:
        """Encrypt plaintext; gives how many bytes of it were taken, 0 before the handshake is over."""
        if not self.ready or self._closing:
            return 0
        done = 0
        size = len(data)
        try:
            while done < size:
                done += self._ssl.write(data[done:] if done else data)
        except ssl.SSLWantReadError:  # the peer asked to renegotiate: later
            pass
        except ssl.SSLError as error:
            raise self._explain(error) from error
        return done

    @property
    def pending(self) -> int:
        """Bytes of ciphertext that take() would give."""
        return self._out.pending

    def take(self) -> bytes:
        """Ciphertext for the network."""
        return self._out.read()

    def close(self) -> None:
        """Say close_notify; its ciphertext is then in take(). Harmless when said before or never connected."""
        if self._closing or not self.ready:
            return
        self._closing = True
        try:
            self._ssl.unwrap()
        except ssl.SSLError:
            return  # WantRead: the peer's answer, which nobody waits for. Anything else: there is nobody to tell

    def peer_certificate(self) -> dict[str, Any] | None:
        """The other end's certificate as `ssl.SSLSocket.getpeercert` gives it; None or empty without a verified one."""
        return self._ssl.getpeercert() if self.ready else None

    def version(self) -> str | None:
        """The protocol agreed on, such as "TLSv1.3"."""
        return self._ssl.version()
