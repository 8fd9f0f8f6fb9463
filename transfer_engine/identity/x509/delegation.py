"""Delegation: a key and a request for its proxy, and what makes the certificate that comes back acceptable.

Nothing here is stored or sent. The request is that of FTS3 (`O=Dummy`, SHA-256, RSA; the length follows the client's
key); its signer chooses the subject. `fts3.rest.client` 3.14.2 makes a proxy with the user's subject and a time as CN,
proxyCertInfo critical with "inherit all", and the user's serial number; in `legacy_mode` a Globus 2 proxy, which has no
proxyCertInfo and is called `CN=proxy`. Both are taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from protocols.credentials import Secret
from transfer_engine.errors import Invalid
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.chains import CHAIN_MAX, UNREADABLE, Chain, pem_of, read_chain

UPLOAD_MAX: Final = 64 * 1024
BITS_MIN: Final = 2048
BITS_MAX: Final = 4096
"""Making a key of 4,096 bits takes a second; of 8,192, half a minute."""

_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class BadProxy(Invalid):
    """A certificate that was delegated is not accepted; the beginning of the message is FTS3's."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"Could not process the proxy: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for a proxy, and its key."""

    pem: str
    key: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A proxy with its key, in the order of a proxy file: certificate, key, chain."""

    pem: Secret = field(repr=False)
    chain: Chain = field(repr=False)
    expires_at: float


def key_bits(certificate: str | None) -> int:
    """How long the key of a delegated proxy is, by the user's certificate (PEM): as long as that one's, in bounds.

    2048 for users without an RSA key: storages and clients of the grid are surest to take RSA.
    """
    if certificate is None:
        return BITS_MIN
    try:
        key = x509.load_pem_x509_certificate(certificate.encode("ascii", errors="replace")).public_key()
    except UNREADABLE:
        return BITS_MIN
    bits = key.key_size if isinstance(key, rsa.RSAPublicKey) else BITS_MIN
    # Sizes that nobody has are rounded up.
    return next((size for size in (BITS_MIN, 3072) if bits <= size), BITS_MAX)


def make_request(bits: int) -> Request:
    """A new key and its request. Takes up to some seconds of a processor."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Dummy")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    # PKCS#1 is what old readers of proxy files (Globus, CANL) understand.
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return Request(pem=request.public_bytes(Encoding.PEM).decode("ascii"), key=Secret(pem.decode("ascii")))


def request_bits(request: str) -> int:
    """Length of the key of a request that `make_request` made; 0 when it cannot be read."""
    try:
        key = x509.load_pem_x509_csr(request.encode("ascii", errors="replace")).public_key()
    except UNREADABLE:
        return 0
    return key.key_size if isinstance(key, rsa.RSAPublicKey) else 0


def accept(upload: bytes, key: Secret, *, user_dn: str, now: float) -> Accepted:
    """The proxy that a client has signed.

    Args: upload: PEM, the proxy first and the signer's own chain behind it. key: PEM of the request's key.
    Raises: BadProxy: with the reason.
    """
    chain_der = _certificates(upload)
    private = serialization.load_pem_private_key(key.reveal().encode("ascii"), password=None)
    try:
        leaf = x509.load_der_x509_certificate(chain_der[0])
        public = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UNREADABLE as error:
        raise BadProxy("Malformed proxy") from error
    if public != private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise BadProxy("The proxy does not match the stored associated private key")
    try:
        chain = read_chain(chain_der, now, legacy_leaf=True)
    except BadCredential as error:
        raise BadProxy(error.why) from error
    if not chain.proxies:
        raise BadProxy("it is no proxy certificate")
    if chain.dn != user_dn:
        raise BadProxy(f"it is a proxy of {chain.dn}, and the caller is {user_dn}")
    certificates = (*chain.proxies, chain.end_entity, *chain.others)
    pem = pem_of(certificates[:1]) + key.reveal().rstrip("\n") + "\n" + pem_of(certificates[1:])
    expires_at = min(one.not_valid_after_utc.timestamp() for one in certificates)
    if expires_at <= now:
        raise BadProxy("a certificate of its chain has expired")
    return Accepted(pem=Secret(pem), chain=chain, expires_at=expires_at)


def _certificates(upload: bytes) -> Sequence[bytes]:
    if len(upload) > UPLOAD_MAX:
        raise BadProxy(f"more than {UPLOAD_MAX} bytes")
    if b"PRIVATE KEY" in upload:
        raise BadProxy("there is a private key in it; send certificates only, and take this key for known to others")
    blocks = _BLOCK.findall(upload)
    if len(blocks) <= 1:
        raise BadProxy("Malformed proxy")
    if len(blocks) > CHAIN_MAX:
        raise BadProxy(f"more than {CHAIN_MAX} certificates")
    try:
        return [x509.load_pem_x509_certificate(block).public_bytes(Encoding.DER) for block in blocks]
    except UNREADABLE as error:
        raise BadProxy("Malformed proxy") from error
