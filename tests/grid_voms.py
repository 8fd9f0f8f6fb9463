"""A VOMS server for tests: attribute certificates in proxies, valid ones and every kind of broken.

voms = Voms(grid, vo="escape")                          # listed in grid.vomsdir/escape/voms.example.org.lsc
proxy = voms.proxy(alice, "/escape/prod/Role=production", "/escape")
extension = voms.extension(alice, "/escape", not_after=…)
proxy = grid.proxy(alice, extensions=[attributes(extension)])
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.grid import PROXY_CERT_INFO, Authority, Extension, Grid, Identity, Key, der, der_int, der_oid

VOMS_AC = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
FQANS = "1.3.6.1.4.1.8005.100.100.4"
CERTIFICATES = "1.3.6.1.4.1.8005.100.100.10"
TARGETS = "2.5.29.55"
NO_REV_AVAIL = "2.5.29.56"
AUTHORITY_KEY = "2.5.29.35"

SHA256_RSA = der(0x30, der_oid("1.2.840.113549.1.1.11"), der(0x05))
SHA256_ECDSA = der(0x30, der_oid("1.2.840.10045.4.3.2"))


def attributes(extension: bytes) -> Extension:
    """The extension of a proxy that carries attribute certificates."""
    return x509.UnrecognizedExtension(VOMS_AC, extension), False


def _time(moment: datetime) -> bytes:
    return der(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _directory_name(name: x509.Name) -> bytes:
    return der(0x30, der(0xA4, name.public_bytes()))


def ac_extension(oid: str, content: bytes, *, critical: bool = False) -> bytes:
    """An extension inside an attribute certificate."""
    return der(0x30, der_oid(oid), der(0x01, b"\xff") if critical else b"", der(0x04, content))


def targets(*hosts: str) -> bytes:
    return der(0x30, der(0x30, *(der(0xA0, der(0x86, host.encode())) for host in hosts)))


class Voms:
    """A VOMS server of one VO."""

    def __init__(
        self, grid: Grid, *, vo: str, host: str = "voms.example.org", ca: Authority | None = None, listed: bool = True
    ) -> None:
        self.grid = grid
        self.vo = vo
        self.host = host
        self.server: Identity = grid.host(host, ca=ca)
        self.lsc: Path = grid.vomsdir / vo / f"{host}.lsc"
        if listed:
            self.list()

    def list(self, *lines: str) -> None:
        """Write the `.lsc` file: subject and issuer, or these lines."""
        self.lsc.parent.mkdir(parents=True, exist_ok=True)
        names = (self.server.cert.subject, self.server.cert.issuer)
        words = {"DC": "DC", "OU": "OU", "CN": "CN", "O": "O"}
        usual = ["".join(f"/{words[part.rfc4514_attribute_name]}={part.value!s}" for part in name) for name in names]
        self.lsc.write_text("\n".join(lines or usual) + "\n")

    def list_certificate(self) -> None:
        """List the server by its certificate, without `.lsc`."""
        self.lsc.parent.mkdir(parents=True, exist_ok=True)
        self.lsc.unlink(missing_ok=True)
        self.lsc.with_suffix(".pem").write_bytes(self.server.cert.public_bytes(Encoding.PEM))

    def proxy(self, user: Identity, *fqans: str, key: str = "rsa", **other: Any) -> Identity:
        """A proxy of `user` with these attributes; without any: the VO's own."""
        extension = self.extension(user, *(fqans or (f"/{self.vo}",)), **other)
        return self.grid.proxy(user, key=key, extensions=[attributes(extension)])

    def extension(self, user: Identity, *fqans: str, **other: Any) -> bytes:
        """Content of the extension: one attribute certificate."""
        return der(0x30, der(0x30, self.attribute_certificate(user, *fqans, **other)))

    def attribute_certificate(
        self,
        user: Identity,
        *fqans: str,
        holder_issuer: x509.Name | None = None,
        holder_serial: int | None = None,
        issuer: x509.Name | None = None,
        version: int = 1,
        vo: str | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        certificates: Sequence[x509.Certificate] | None = None,
        extensions: Sequence[bytes] = (),
        algorithm: bytes | None = None,
        inner_algorithm: bytes | None = None,
        signed_by: Key | None = None,
        tamper: bytes = b"",
        values: bytes | None = None,
    ) -> bytes:
        """One attribute certificate. `tamper`: what `/<vo>` in it becomes after it was signed; of the same length."""
        key = signed_by or self.server.key
        signing = algorithm or (SHA256_RSA if isinstance(key, rsa.RSAPrivateKey) else SHA256_ECDSA)
        now = self.grid.now
        eec = next(one for one in user.chain if PROXY_CERT_INFO not in {part.oid for part in one.extensions})
        holder = der(
            0x30,
            der(
                0xA0,
                _directory_name(holder_issuer or eec.issuer),
                der_int(eec.serial_number if holder_serial is None else holder_serial),
            ),
        )
        authority = der(0xA0, der(0x86, f"{vo or self.vo}://{self.host}:15000".encode()))
        listed = values if values is not None else b"".join(der(0x04, fqan.encode()) for fqan in fqans)
        chain = self.server.chain if certificates is None else certificates
        carried = der(0x30, der(0x30, *(one.public_bytes(Encoding.DER) for one in chain)))
        info = der(
            0x30,
            der_int(version),
            holder,
            der(0xA0, _directory_name(issuer or self.server.cert.subject)),
            inner_algorithm or signing,
            der_int(4711),
            der(
                0x30,
                _time(not_before or now - timedelta(minutes=5)),
                _time(not_after or now + timedelta(hours=12)),
            ),
            der(0x30, der(0x30, der_oid(FQANS), der(0x31, der(0x30, authority, der(0x30, listed))))),
            der(
                0x30,
                ac_extension(NO_REV_AVAIL, der(0x05)),
                ac_extension(AUTHORITY_KEY, der(0x30, der(0x80, _key_id(self.server.cert)))),
                *([ac_extension(CERTIFICATES, carried)] if chain else []),
                *extensions,
            ),
        )
        signature = _sign(key, info)
        if tamper:
            info = info.replace(b"/" + self.vo.encode(), tamper)
        return der(0x30, info, signing, der(0x03, b"\0", signature))


def _key_id(cert: x509.Certificate) -> bytes:
    return x509.SubjectKeyIdentifier.from_public_key(cert.public_key()).digest


def _sign(key: Key, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(hashes.SHA256()))
