"""A little grid for tests: CAs, users, hosts, RFC 3820 proxies, revocation lists, all as files in a directory.

    grid = Grid(tmp_path)                       # one CA, `grid.ca`; nothing else is made before it is asked for
    host = grid.host("localhost")               # a server certificate for localhost, 127.0.0.1 and ::1
    alice = grid.user("alice")                  # /DC=org/DC=grid/OU=Users/CN=alice, RSA 2048; key="ec": P-256
    proxy = grid.proxy(alice)                   # a proxy of alice; grid.proxy(proxy): a proxy of the proxy
    voms = Voms(grid, vo="escape")              # tests/grid_voms.py: a VOMS server, listed in grid.vomsdir
    proxy = voms.proxy(alice, "/escape", "/escape/prod/Role=production")
    grid.revoke(alice)                          # renews the CA's revocation list

Files, for clients and for `service.tls`:

    alice.certificate, alice.key_file, alice.file   chain; key; proxy file: certificate, key, chain
    grid.bundle      PEM of the CAs of this grid (`client_ca`, `REQUESTS_CA_BUNDLE`, curl --cacert)
    grid.cert_dir    the same as a hashed directory with revocation lists (`X509_CERT_DIR`, curl --capath)
    grid.crl         PEM of their revocation lists
    grid.vomsdir     `<vo>/<host>.lsc`

`alice.dn` is the subject in OpenSSL's old form. Another CA, that nobody trusts: `Grid(other_dir).ca`, or
`grid.authority("x")`, which is trusted only after `grid.trust(authority)`. Everything may be made broken: see the
arguments of `issue` and `proxy`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Extension = tuple[x509.ExtensionType, bool]

PROXY_CERT_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
INHERIT_ALL = "1.3.6.1.5.5.7.21.1"
INDEPENDENT = "1.3.6.1.5.5.7.21.2"
LIMITED = "1.3.6.1.4.1.3536.1.1.1.9"

_PREFIX = (
    (NameOID.DOMAIN_COMPONENT, "org"),
    (NameOID.DOMAIN_COMPONENT, "grid"),
)
_WORDS = {
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.COUNTRY_NAME: "C",
    NameOID.COMMON_NAME: "CN",
}


def new_key(kind: str = "rsa", bits: int = 2048) -> Key:
    """A private key: `rsa` or `ec` (P-256)."""
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, bits)


def key_pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in (*_PREFIX, *parts)])


def extended(subject: x509.Name, cn: str) -> x509.Name:
    """A name with one more CN: the subject of a proxy."""
    more = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    return x509.Name([*subject.rdns, more])


def der(tag: int, *parts: bytes) -> bytes:
    """One DER value."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def der_int(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def der_oid(dotted: str) -> bytes:
    first, second, *rest = (int(number) for number in dotted.split("."))
    body = bytearray()
    for number in (first * 40 + second, *rest):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(number & 0x7F | 0x80)
        body += bytes(reversed(digits))
    return der(0x06, bytes(body))


def proxy_cert_info(language: str = INHERIT_ALL, path_len: int | None = None, policy: bytes | None = None) -> bytes:
    """The extension that makes a certificate a proxy (RFC 3820, 3.8)."""
    length = b"" if path_len is None else der_int(path_len)
    words = b"" if policy is None else der(0x04, policy)
    return der(0x30, length, der(0x30, der_oid(language), words))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate with its key, and what was sent along: the certificates between it and its CA."""

    cert: x509.Certificate
    key: Key
    issuers: tuple[x509.Certificate, ...] = ()
    folder: Path
    stem: str

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        return (self.cert, *self.issuers)

    @property
    def der_chain(self) -> tuple[bytes, ...]:
        """What a TLS handshake gives: leaf first."""
        return tuple(cert.public_bytes(Encoding.DER) for cert in self.chain)

    @property
    def pem_chain(self) -> bytes:
        return b"".join(cert.public_bytes(Encoding.PEM) for cert in self.chain)

    @property
    def pem(self) -> bytes:
        """A proxy file: certificate, key, chain."""
        first, *rest = (cert.public_bytes(Encoding.PEM) for cert in self.chain)
        return first + key_pem(self.key) + b"".join(rest)

    @property
    def dn(self) -> str:
        return "".join(f"/{_WORDS[part.oid]}={part.value!s}" for part in self.cert.subject)

    def _written(self, suffix: str, content: bytes) -> Path:
        path = self.folder / f"{self.stem}{suffix}"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_bytes(content)
        return path

    @property
    def certificate(self) -> Path:
        return self._written(".crt.pem", self.pem_chain)

    @property
    def key_file(self) -> Path:
        return self._written(".key.pem", key_pem(self.key))

    @property
    def file(self) -> Path:
        """As grid tools keep a proxy; also `X509_USER_PROXY`."""
        return self._written(".pem", self.pem)


@dataclass(kw_only=True)
class Authority:
    """A CA."""

    cert: x509.Certificate
    key: Key
    parents: tuple[x509.Certificate, ...] = ()
    """Its own issuers, where it is not a root."""
    revoked: list[int] = field(default_factory=list)

    def crl(self, now: datetime, *, next_update: datetime | None = None, key: Key | None = None) -> bytes:
        """PEM of its revocation list."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.cert.subject)
            .last_update(now - timedelta(hours=1))
            .next_update(next_update or now + timedelta(days=7))
        )
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(minutes=30))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(key or self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _usage(**on: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})


CA_USAGE = _usage(key_cert_sign=True, crl_sign=True)
USER_USAGE = _usage(digital_signature=True, key_encipherment=True)


def subject_hash(subject: x509.Name) -> str:
    """The name of a CA in a hashed directory, as `openssl rehash` computes it since OpenSSL 1.0."""
    rdns = b""
    for rdn in subject.rdns:
        values = []
        for part in rdn:
            value = " ".join(str(part.value).lower().split()).encode()
            values.append(der(0x30, der_oid(part.oid.dotted_string), der(0x0C, value)))
        rdns += der(0x31, *sorted(values))
    digest = hashlib.sha1(rdns, usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


class Grid:
    """CAs, users, hosts and proxies in one directory."""

    def __init__(
        self, root: Path, *, now: datetime | None = None, ca_name: str = "Grid CA", ca_key: str = "ec"
    ) -> None:
        self.root = root
        self.now = now or datetime.now(UTC).replace(microsecond=0)
        self.cert_dir = root / "certificates"
        self.vomsdir = root / "vomsdir"
        self.bundle = root / "ca.pem"
        self.crl = root / "crl.pem"
        for folder in (root, self.cert_dir, self.vomsdir, root / "identities"):
            folder.mkdir(parents=True, exist_ok=True)
        self._trusted: list[Authority] = []
        self._count = 0
        self.ca = self.authority(ca_name, key=ca_key)
        self.trust(self.ca)

    def trust(self, authority: Authority) -> None:
        """Write a CA into the bundle, the hashed directory and the revocation lists."""
        self._trusted.append(authority)
        self.write()

    def write(self) -> None:
        """Write the files of the CAs that are trusted."""
        pem = [one.cert.public_bytes(Encoding.PEM) for one in self._trusted]
        self.bundle.write_bytes(b"".join(pem))
        lists = [one.crl(self.now) for one in self._trusted]
        self.crl.write_bytes(b"".join(lists))
        for one, cert, revoked in zip(self._trusted, pem, lists, strict=True):
            stem = subject_hash(one.cert.subject)
            (self.cert_dir / f"{stem}.0").write_bytes(cert)
            (self.cert_dir / f"{stem}.r0").write_bytes(revoked)

    def revoke(self, identity: Identity, authority: Authority | None = None) -> None:
        """Put a certificate on its CA's revocation list."""
        (authority or self.ca).revoked.append(identity.cert.serial_number)
        self.write()

    def authority(
        self, cn: str, *, parent: Authority | None = None, path_len: int | None = None, key: str = "ec"
    ) -> Authority:
        """A root, or an intermediate CA below `parent`."""
        own = new_key(key)
        subject = name((NameOID.COMMON_NAME, cn))
        builder = self._builder(subject, parent.cert.subject if parent else subject, own, days=3650)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_len), critical=True)
        builder = builder.add_extension(CA_USAGE, critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        cert = builder.sign(parent.key if parent else own, hashes.SHA256())
        parents = () if parent is None else (parent.cert, *parent.parents)
        return Authority(cert=cert, key=own, parents=parents)

    def user(self, cn: str, *, ca: Authority | None = None, key: str = "rsa") -> Identity:
        """A user with a certificate of `ca`."""
        subject = name((NameOID.ORGANIZATIONAL_UNIT_NAME, "Users"), (NameOID.COMMON_NAME, cn))
        return self.issue(subject, ca=ca, key=new_key(key))

    def host(self, host: str = "localhost", *, ca: Authority | None = None, client: bool = False) -> Identity:
        """A server; `localhost` is 127.0.0.1 and ::1 too. `client`: it may also be a client."""
        subject = name((NameOID.ORGANIZATIONAL_UNIT_NAME, "Hosts"), (NameOID.COMMON_NAME, host))
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        if host == "localhost":
            names += [x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1")]
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
        more: list[Extension] = [(x509.SubjectAlternativeName(names), False), (x509.ExtendedKeyUsage(uses), False)]
        return self.issue(subject, ca=ca, extensions=more)

    def issue(
        self,
        subject: x509.Name,
        *,
        ca: Authority | None = None,
        key: Key | None = None,
        usage: x509.KeyUsage | None = USER_USAGE,
        is_ca: bool = False,
        extensions: Sequence[Extension] = (),
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        signed_by: Key | None = None,
    ) -> Identity:
        """An end-entity certificate, of any kind. `signed_by`: another key than that of the CA."""
        authority, own = ca or self.ca, key or new_key()
        builder = self._builder(subject, authority.cert.subject, own, not_before=not_before, not_after=not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        # voms-proxy-init makes no proxy of a certificate without it.
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        if usage is not None:
            builder = builder.add_extension(usage, critical=True)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        cert = builder.sign(signed_by or authority.key, hashes.SHA256())
        # What a client sends with it: intermediate CAs, but no root.
        between = (authority.cert, *authority.parents[:-1]) if authority.parents else ()
        return self._identity(cert, own, between)

    def proxy(
        self,
        issuer: Identity,
        *,
        key: str | Key = "rsa",
        cn: str | None = None,
        subject: x509.Name | None = None,
        info: bytes | None = None,
        rfc: bool = True,
        critical: bool = True,
        usage: x509.KeyUsage | None = USER_USAGE,
        is_ca: bool | None = None,
        extensions: Sequence[Extension] = (),
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        signed_by: Key | None = None,
        issuer_name: x509.Name | None = None,
    ) -> Identity:
        """A proxy of a user or of another proxy, of 12 hours; each argument makes it differ from a usual one.

        Args: cn: what its subject has more than the issuer's; a number. info: content of proxyCertInfo.
        rfc: False: it has none (Globus' legacy form, with cn="proxy").
        """
        own = new_key(key) if isinstance(key, str) else key
        self._count += 1
        name_ = subject or extended(issuer.cert.subject, cn or str(1_000_000 + self._count))
        end = not_after or min(self.now + timedelta(hours=12), issuer.cert.not_valid_after_utc)
        builder = self._builder(name_, issuer_name or issuer.cert.subject, own, not_before=not_before, not_after=end)
        if rfc:
            value = proxy_cert_info() if info is None else info
            builder = builder.add_extension(x509.UnrecognizedExtension(PROXY_CERT_INFO, value), critical=critical)
        if usage is not None:
            builder = builder.add_extension(usage, critical=True)
        if is_ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        for extension, marked in extensions:
            builder = builder.add_extension(extension, critical=marked)
        return self._identity(builder.sign(signed_by or issuer.key, hashes.SHA256()), own, issuer.chain)

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: Key,
        *,
        days: int = 30,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.CertificateBuilder:
        end = not_after or self.now + timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or min(self.now - timedelta(hours=1), end - timedelta(seconds=1)))
            .not_valid_after(end)
        )

    def _identity(self, cert: x509.Certificate, key: Key, issuers: tuple[x509.Certificate, ...]) -> Identity:
        self._count += 1
        return Identity(cert=cert, key=key, issuers=issuers, folder=self.root / "identities", stem=f"{self._count:04d}")
