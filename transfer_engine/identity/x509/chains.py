"""From the certificates that a client sends to the end-entity certificate that its proxies stand for (RFC 3820).

What TLS has checked already is checked again: which certificate of a chain TLS has looked at is not told, and a web
server in front may have checked less. Whether the end-entity certificate's CA is believed is `trust`'s business.

Policies: a proxy that inherits all rights of its issuer stands for the user. A limited proxy (Globus) does too, as in
GridSite and therefore in FTS3, but there are no proxies of limited proxies. A proxy with its own rights, or with a
policy that is not known, stands for nobody. Legacy proxies (Globus 2: no proxyCertInfo, `CN=proxy`) are refused at
login; OpenSSL does not take them either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.der import INTEGER, OCTET_STRING, Malformed, read
from transfer_engine.identity.x509.names import dn_of

CHAIN_MAX: Final = 10
CERTIFICATE_MAX: Final = 32 * 1024
"""Bytes; one with VOMS attributes has 6,000."""
RSA_BITS_MIN: Final = 1024
"""Proxies of old clients; TLS refuses weaker keys by itself."""
RSA_BITS_MAX: Final = 8192
"""Checking a signature takes longer with the square of it."""
SKEW_S: Final = 300.0
"""How much later than here it may be at the client, which makes proxies that begin now."""

PROXY_CERT_INFO: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
_DRAFT_PROXY: Final = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
_INHERIT_ALL: Final = "1.3.6.1.5.5.7.21.1"
_INDEPENDENT: Final = "1.3.6.1.5.5.7.21.2"
_LIMITED: Final = "1.3.6.1.4.1.3536.1.1.1.9"
_LEGACY_NAMES: Final = frozenset({"proxy", "limited proxy"})
_WEAK: Final = (hashes.MD5, hashes.SHA1)

_KNOWN_CRITICAL: Final = frozenset(
    {
        "2.5.29.15",  # keyUsage
        "2.5.29.17",  # subjectAltName
        "2.5.29.19",  # basicConstraints
        "2.5.29.30",  # nameConstraints: of CAs; `trust` refuses those that have some
        "2.5.29.31",  # cRLDistributionPoints
        "2.5.29.32",  # certificatePolicies
        "2.5.29.33",  # policyMappings
        "2.5.29.36",  # policyConstraints
        "2.5.29.37",  # extKeyUsage
        "2.5.29.54",  # inhibitAnyPolicy
        "2.16.840.1.113730.1.1",  # Netscape's certificate type, which old CAs have
        PROXY_CERT_INFO.dotted_string,
    }
)
"""Extensions that may be critical; the same that OpenSSL takes."""

UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InternalError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for what is broken or unknown to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain that holds together.

    Attributes:
        proxies: leaf first; empty when the end entity itself has come.
        end_entity: the user's certificate.
        others: what was sent behind it, as it came: CAs.
        limited: the leaf is a limited proxy.
        expires_at: when the first of proxies and end entity ends.
    """

    proxies: tuple[x509.Certificate, ...]
    end_entity: x509.Certificate
    others: tuple[x509.Certificate, ...]
    dn: str
    limited: bool
    expires_at: float

    @property
    def pem(self) -> str:
        """All of it, leaf first."""
        return pem_of((*self.proxies, self.end_entity, *self.others))


def pem_of(certificates: Sequence[x509.Certificate]) -> str:
    """PEM of certificates, in this order."""
    return "".join(one.public_bytes(Encoding.PEM).decode("ascii") for one in certificates)


def load(der: bytes) -> x509.Certificate:
    """A certificate, all of whose parts can be read. Raises: BadCredential."""
    if len(der) > CERTIFICATE_MAX:
        raise BadCredential(f"a certificate has more than {CERTIFICATE_MAX} bytes")
    try:
        certificate = x509.load_der_x509_certificate(der)
        check_readable(certificate)
    except UNREADABLE as error:
        raise BadCredential("a certificate cannot be read") from error
    return certificate


def check_readable(certificate: x509.Certificate) -> None:
    """Make `cryptography`, which reads late, read everything now. Raises: what it raises; BadCredential."""
    key = certificate.public_key()
    _ = certificate.subject, certificate.issuer, certificate.version, certificate.not_valid_after_utc
    _ = certificate.signature_algorithm_parameters
    if isinstance(key, rsa.RSAPublicKey) and not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        raise BadCredential(f"a certificate's RSA key has {key.key_size} bits")
    for extension in certificate.extensions:
        if extension.critical and extension.oid.dotted_string not in _KNOWN_CRITICAL:
            raise BadCredential(f"a certificate has the unknown critical extension {extension.oid.dotted_string}")


def read_chain(chain: Sequence[bytes], now: float, *, legacy_leaf: bool = False) -> Chain:
    """The user that a chain stands for.

    Args:
        chain: DER, leaf first, each followed by its issuer at least as far as the end entity.
        legacy_leaf: the first may be a Globus 2 proxy: what clients delegate in their legacy mode.
    Raises: BadCredential: says which rule it breaks.
    """
    if not chain:
        raise BadCredential("there is no certificate")
    if len(chain) > CHAIN_MAX:
        raise BadCredential(f"more than {CHAIN_MAX} certificates")
    certificates = tuple(load(one) for one in chain)
    n_proxies = 0
    while n_proxies < len(certificates) and _is_proxy(certificates, n_proxies, legacy_leaf=legacy_leaf):
        n_proxies += 1
    if n_proxies == len(certificates):
        raise BadCredential("the proxy came without the certificate of its user")
    proxies, end_entity = certificates[:n_proxies], certificates[n_proxies]
    _check_end_entity(end_entity)
    above = certificates[n_proxies + 1 :]
    if above and above[0].subject == end_entity.issuer and not is_ca(above[0]):
        raise BadCredential("a certificate issued by a user, and not a proxy")
    for depth, proxy in enumerate(proxies):
        _check_proxy(proxy, certificates[depth + 1], depth)
    for certificate in (*proxies, end_entity):
        check_valid(certificate, now)
    return Chain(
        proxies=proxies,
        end_entity=end_entity,
        others=above,
        dn=dn_of(end_entity.subject),
        limited=bool(proxies) and _is_limited(proxies[0]),
        expires_at=min(one.not_valid_after_utc.timestamp() for one in (*proxies, end_entity)),
    )


def check_valid(certificate: x509.Certificate, now: float) -> None:
    """Raises: BadCredential: it has ended, or has not begun."""
    if certificate.not_valid_after_utc.timestamp() <= now:
        raise BadCredential(f"a certificate has expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if certificate.not_valid_before_utc.timestamp() > now + SKEW_S:
        raise BadCredential(f"a certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}")


def check_signed(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raises: BadCredential: `issuer` is not who issued it, by name and by signature."""
    try:
        weak = isinstance(certificate.signature_hash_algorithm, _WEAK)
    except UNREADABLE:
        weak = False
    if weak:
        raise BadCredential("a certificate is signed with a digest that can be forged (MD5 or SHA-1)")
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE) as error:
        raise BadCredential("a certificate is not signed by its issuer") from error


def is_ca(certificate: x509.Certificate) -> bool:
    """Does it say that it is a CA?"""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def allows(certificate: x509.Certificate, usage: str) -> bool:
    """May its key be used so? What says nothing allows everything (RFC 5280, 4.2.1.3)."""
    try:
        value = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return bool(getattr(value, usage))


def _common_name(certificate: x509.Certificate) -> str:
    rdns = certificate.subject.rdns
    last = list(rdns[-1]) if rdns else []
    return str(last[0].value) if len(last) == 1 and last[0].oid == NameOID.COMMON_NAME else ""


def _extends_issuer(certificate: x509.Certificate) -> bool:
    return certificate.subject.rdns[:-1] == certificate.issuer.rdns


def _is_proxy(certificates: Sequence[x509.Certificate], at: int, *, legacy_leaf: bool) -> bool:
    certificate = certificates[at]
    oids = {extension.oid for extension in certificate.extensions}
    if PROXY_CERT_INFO in oids:
        return True
    if _DRAFT_PROXY in oids:
        raise BadCredential("a proxy of the draft before RFC 3820; make one with voms-proxy-init -rfc")
    legacy = _extends_issuer(certificate) and _common_name(certificate) in _LEGACY_NAMES
    if legacy and not (legacy_leaf and at == 0):
        raise BadCredential("a legacy (Globus 2) proxy; make one with voms-proxy-init -rfc")
    return legacy


def _is_limited(proxy: x509.Certificate) -> bool:
    try:
        return _policy(proxy)[1] == _LIMITED
    except x509.ExtensionNotFound:
        return _common_name(proxy) == "limited proxy"


def _policy(proxy: x509.Certificate) -> tuple[int | None, str]:
    """Longest chain of proxies below it, and the language of its policy. Raises: x509.ExtensionNotFound."""
    extension = proxy.extensions.get_extension_for_oid(PROXY_CERT_INFO)
    if not extension.critical:
        raise BadCredential("a proxy whose proxyCertInfo is not critical")
    assert isinstance(extension.value, x509.UnrecognizedExtension)  # no class of `cryptography` reads it
    try:
        return _read_policy(extension.value.value)
    except (Malformed, IndexError) as error:
        raise BadCredential("a proxy whose proxyCertInfo cannot be read") from error


def _read_policy(info: bytes) -> tuple[int | None, str]:
    parts = list(read(info).parts())
    length = parts.pop(0).integer() if parts and parts[0].tag == INTEGER else None
    policy = list(parts.pop(0).parts())
    language = policy.pop(0)
    if parts or len(policy) > 1 or (length is not None and length < 0):
        msg = "not as in RFC 3820, 3.8"
        raise Malformed(msg)
    if policy:
        policy[0].expect(OCTET_STRING)
    return length, language.oid()


def _check_proxy(proxy: x509.Certificate, issuer: x509.Certificate, depth: int) -> None:
    """Is it a proxy of `issuer`? Args: depth: how many proxies are below it."""
    if not _extends_issuer(proxy) or proxy.issuer != issuer.subject or not _common_name(proxy):
        raise BadCredential("a proxy whose subject is not that of its issuer with one CN more")
    check_signed(proxy, issuer)
    if is_ca(proxy):
        raise BadCredential("a proxy that says it is a CA")
    if any(isinstance(extension.value, x509.SubjectAlternativeName) for extension in proxy.extensions):
        raise BadCredential("a proxy with other names (RFC 3820, 3.5)")
    if not allows(proxy, "digital_signature") or allows_only(proxy, "key_cert_sign"):
        raise BadCredential("a proxy whose key is not for signatures")
    if depth and _is_limited(proxy):
        raise BadCredential("a proxy of a limited proxy")
    try:
        length, language = _policy(proxy)
    except x509.ExtensionNotFound:
        return
    if length is not None and depth > length:
        raise BadCredential(f"a proxy that allows {length} proxies below it, and has {depth}")
    if language not in {_INHERIT_ALL, _LIMITED}:
        kind = "rights of its own" if language == _INDEPENDENT else "a policy that is not known here"
        raise BadCredential(f"a proxy with {kind}")


def allows_only(certificate: x509.Certificate, usage: str) -> bool:
    """Does it say that its key may be used so, which a proxy must not?"""
    try:
        certificate.extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        return False
    return allows(certificate, usage)


def _check_end_entity(certificate: x509.Certificate) -> None:
    if is_ca(certificate):
        raise BadCredential("the certificate of a CA is nobody's")
    if not allows(certificate, "digital_signature"):
        raise BadCredential("the key of the user's certificate is not for signatures")
    if not isinstance(
        certificate.public_key(),
        rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey,
    ):
        raise BadCredential("the user's certificate has a key of a kind that is not believed")
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(uses):
        raise BadCredential("the user's certificate is not for clients (extendedKeyUsage)")
