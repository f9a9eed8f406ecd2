"""As much of `trustme` as the tests use, made with the command `openssl`; see conftest.py."""

from __future__ import annotations

import ipaddress
import ssl
import subprocess
import tempfile
from pathlib import Path

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650", "-batch"]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def _alternative_name(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"email:{name}" if "@" in name else f"DNS:{name}"


class Blob:
    """PEM text, as bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def bytes(self) -> bytes:
        return self._data

    def write_to_path(self, path: str | Path, append: bool = False) -> None:
        with open(path, "ab" if append else "wb") as file:
            file.write(self._data)


class LeafCert:
    """A certificate, its key and the authority's certificate behind it."""

    def __init__(self, key: bytes, certificate: bytes) -> None:
        self.private_key_pem = Blob(key)
        self.cert_chain_pems = [Blob(certificate)]
        self.private_key_and_cert_chain_pem = Blob(key + certificate)

    def configure_cert(self, context: ssl.SSLContext) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "both.pem"
            self.private_key_and_cert_chain_pem.write_to_path(path)
            context.load_cert_chain(path)


class CA:
    """An authority of its own."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            key, certificate = Path(folder) / "key.pem", Path(folder) / "ca.pem"
            _openssl(
                "req", "-x509", *KEY, "-keyout", str(key), "-out", str(certificate), "-subj", "/O=authority for tests",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            )  # fmt: skip
            self._key = key.read_bytes()
            self.cert_pem = Blob(certificate.read_bytes())

    def issue_cert(self, *names: str, common_name: str | None = None) -> LeafCert:
        with tempfile.TemporaryDirectory() as folder:
            at = {name: str(Path(folder) / name) for name in ("ca.pem", "ca.key", "key.pem", "cert.pem")}
            self.cert_pem.write_to_path(at["ca.pem"])
            Blob(self._key).write_to_path(at["ca.key"])
            subject = "/O=certificate for tests" + (f"/CN={common_name}" if common_name else "")
            _openssl(
                "req", "-x509", "-CA", at["ca.pem"], "-CAkey", at["ca.key"], *KEY, "-keyout", at["key.pem"],
                "-out", at["cert.pem"], "-subj", subject, "-addext", "basicConstraints=critical,CA:FALSE",
                "-addext", "subjectAltName=" + ",".join(map(_alternative_name, names)),
            )  # fmt: skip
            return LeafCert(Path(at["key.pem"]).read_bytes(), Path(at["cert.pem"]).read_bytes())

    def configure_trust(self, context: ssl.SSLContext) -> None:
        context.load_verify_locations(cadata=self.cert_pem.bytes().decode("ascii"))
