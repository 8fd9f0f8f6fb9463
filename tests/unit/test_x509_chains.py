"""Hostile and broken chains: each is refused, and says why."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.grid import (
    INDEPENDENT,
    LIMITED,
    PROXY_CERT_INFO,
    Grid,
    Identity,
    _usage,
    der,
    der_int,
    der_oid,
    extended,
    name,
    new_key,
    proxy_cert_info,
)
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.chains import _read_policy, check_signed, read_chain
from transfer_engine.identity.x509.der import Malformed
from transfer_engine.identity.x509.users import GridCertificates

CLIENT = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
SERVER = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)


class World:
    """The honest ones, and those who are not."""

    def __init__(self, root) -> None:
        self.grid = Grid(root / "grid")
        self.other = Grid(root / "other", ca_name="Another CA")
        # Of the same name as the CA that is believed, with another key.
        self.forger = Grid(root / "forger")
        self.alice = self.grid.user("alice", key="ec")
        self.bob = self.grid.user("bob", key="ec")
        self.proxy = self.ec(self.alice)
        self.mallory = self.eec("mallory")
        self.grid.revoke(self.mallory)
        self.certificates = GridCertificates(client_ca=self.grid.cert_dir)

    @property
    def now(self) -> float:
        return self.grid.now.timestamp()

    def ec(self, issuer: Identity, **how) -> Identity:
        return self.grid.proxy(issuer, key="ec", **how)

    def eec(self, cn: str = "carol", **how) -> Identity:
        return self.grid.issue(name((NameOID.COMMON_NAME, cn)), key=new_key("ec"), **how)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"))


Broken = Callable[[World], Identity | tuple[bytes, ...]]


def intermediate(world: World, **how):
    return world.grid.authority("Sub CA", parent=world.grid.ca, **how)


def deep(world: World, *, path_len: int, n: int) -> Identity:
    top = world.ec(world.alice, info=proxy_cert_info(path_len=path_len))
    for _ in range(n):
        top = world.ec(top)
    return top


def reordered(world: World, *order: int) -> tuple[bytes, ...]:
    chain = world.ec(world.proxy).der_chain
    return tuple(chain[at] for at in order)


def self_signed(world: World) -> Identity:
    key = new_key("ec")
    subject = world.alice.cert.subject
    builder = world.grid._builder(subject, subject, key)
    return world.grid._identity(builder.sign(key, hashes.SHA256()), key, ())


def weak(world: World) -> tuple[bytes, ...]:
    """A user of a CA that signs with SHA-1, which `cryptography` does not do any more."""
    ca_key = new_key("rsa")
    ca = replace(world.grid.authority("Old CA"), key=ca_key)
    assert isinstance(ca_key, rsa.RSAPrivateKey)
    user = world.eec(ca=ca)
    sha256, sha1 = (der(0x30, der_oid(f"1.2.840.113549.1.1.{kind}"), der(0x05)) for kind in (11, 5))
    tbs = user.cert.tbs_certificate_bytes.replace(sha256, sha1)
    info = der(0x30, der(0x30, der_oid("1.3.14.3.2.26"), der(0x05)), der(0x04, hashlib.sha1(tbs).digest()))
    numbers = ca_key.private_numbers()
    padded = b"\0\1" + b"\xff" * (256 - 3 - len(info)) + b"\0" + info
    signature = pow(int.from_bytes(padded, "big"), numbers.d, numbers.public_numbers.n).to_bytes(256, "big")
    issuer = world.grid._builder(ca.cert.subject, ca.cert.subject, ca_key)
    issuer = issuer.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    top = issuer.sign(ca_key, hashes.SHA256())
    return der(0x30, tbs, sha1, der(0x03, b"\0", signature)), top.public_bytes(Encoding.DER)


HOSTILE: dict[str, tuple[Broken, str]] = {
    # Nothing, or no certificate
    "no certificate": (lambda w: (), "no certificate"),
    "garbage": (lambda w: (b"\x30\x03\x02\x01\x05",), "cannot be read"),
    "an empty certificate": (lambda w: (b"",), "cannot be read"),
    "a truncated certificate": (lambda w: (w.alice.der_chain[0][:-1],), "cannot be read"),
    "an X.509 version that does not exist": (
        lambda w: (w.alice.der_chain[0].replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09", 1),), "cannot be read"
    ),
    "bytes behind a certificate": (lambda w: (w.alice.der_chain[0] + b"\0",), "cannot be read"),
    "a huge certificate": (lambda w: (b"\x30" * 40_000,), "more than"),
    "eleven certificates": (lambda w: w.alice.der_chain * 11, "more than 10"),
    # End entities
    "a CA": (lambda w: (w.grid.ca.cert.public_bytes(Encoding.DER),), "CA is nobody"),
    "an end entity that says it is a CA": (lambda w: w.eec(is_ca=True), "CA is nobody"),
    "expired": (lambda w: w.eec(not_after=w.grid.now - timedelta(seconds=1)), "expired"),
    "not yet valid": (lambda w: w.eec(not_before=w.grid.now + timedelta(hours=1)), "not valid before"),
    "of another CA": (lambda w: w.other.user("alice", key="ec"), "CA is not believed"),
    "of a CA with the same name": (lambda w: w.forger.user("alice", key="ec"), "not signed"),
    "signed by nobody": (lambda w: w.eec(signed_by=new_key("ec")), "not signed"),
    "self-signed": (self_signed, "not (believed|signed)"),
    "revoked": (lambda w: w.mallory, "revoked"),
    "a proxy of somebody revoked": (lambda w: w.ec(w.mallory), "revoked"),
    "a server": (lambda w: w.eec(extensions=[SERVER]), "not for clients"),
    "a key for encryption only": (lambda w: w.eec(usage=_usage(key_encipherment=True)), "not for signatures"),
    "an unknown critical extension": (
        lambda w: w.eec(extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)]),
        "unknown critical",
    ),
    "a subject with several values": (
        lambda w: w.grid.issue(
            x509.Name([x509.RelativeDistinguishedName([
                x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "b")])]),
            key=new_key("ec"),
        ),
        "several values",
    ),
    "without a subject": (lambda w: w.grid.issue(x509.Name([]), key=new_key("ec")), "no subject"),
    # Intermediate CAs
    "an intermediate that did not come": (lambda w: w.grid.user("x", ca=intermediate(w), key="ec").der_chain[:1], "CA"),
    "below a CA that allows none below": (
        lambda w: w.grid.user("x", ca=w.grid.authority("B", parent=intermediate(w, path_len=0)), key="ec"), "too far"
    ),
    # Proxies
    "a proxy without its user": (lambda w: w.proxy.der_chain[:1], "without the certificate of its user"),
    "two proxies without their user": (lambda w: w.ec(w.proxy).der_chain[:2], "without the certificate of its user"),
    "proxies in the wrong order": (lambda w: reordered(w, 1, 0, 2), "subject"),
    "a link that is missing": (lambda w: reordered(w, 0, 2), "subject"),
    "an expired proxy": (lambda w: w.ec(w.alice, not_after=w.grid.now - timedelta(seconds=1)), "expired"),
    "a proxy of an expired proxy": (
        lambda w: w.ec(w.ec(w.alice, not_after=w.grid.now - timedelta(seconds=1)),
                       not_after=w.grid.now + timedelta(hours=1)), "expired"
    ),
    "a proxy of an expired user": (
        lambda w: w.ec(w.eec(not_after=w.grid.now - timedelta(seconds=1)),
                       not_after=w.grid.now + timedelta(hours=1)), "expired"
    ),
    "a proxy that begins in an hour": (lambda w: w.ec(w.alice, not_before=w.grid.now + timedelta(hours=1)), "before"),
    "a proxy signed with another key": (lambda w: w.ec(w.alice, signed_by=new_key("ec")), "not signed"),
    "a proxy of bob signed by alice": (
        lambda w: w.ec(w.alice, subject=extended(w.bob.cert.subject, "1"), issuer_name=w.bob.cert.subject), "subject"
    ),
    "a proxy whose subject is bob's": (lambda w: w.ec(w.alice, subject=extended(w.bob.cert.subject, "1")), "subject"),
    "a proxy with its issuer's subject": (lambda w: w.ec(w.alice, subject=w.alice.cert.subject), "subject"),
    "a proxy with two more names": (
        lambda w: w.ec(w.alice, subject=extended(extended(w.alice.cert.subject, "1"), "2")), "subject"
    ),
    "a proxy with a name that is no CN": (
        lambda w: w.ec(w.alice, subject=x509.Name([*w.alice.cert.subject.rdns, x509.RelativeDistinguishedName(
            [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "1")])])), "subject"
    ),
    "a proxy with two CNs in one part": (
        lambda w: w.ec(w.alice, subject=x509.Name([*w.alice.cert.subject.rdns, x509.RelativeDistinguishedName(
            [x509.NameAttribute(NameOID.COMMON_NAME, "1"), x509.NameAttribute(NameOID.USER_ID, "2")])])), "subject"
    ),
    "proxyCertInfo that is not critical": (lambda w: w.ec(w.alice, critical=False), "not critical"),
    "proxyCertInfo that is garbage": (lambda w: w.ec(w.alice, info=b"\x30\x00"), "cannot be read"),
    "proxyCertInfo with more": (lambda w: w.ec(w.alice, info=proxy_cert_info() + b"\5\0"), "cannot be read"),
    "proxyCertInfo with a negative length": (
        lambda w: w.ec(w.alice, info=proxy_cert_info(path_len=-1)), "cannot be read"
    ),
    "proxyCertInfo without a policy": (lambda w: w.ec(w.alice, info=der(0x30, der_int(1))), "cannot be read"),
    "a policy that is no octets": (
        lambda w: w.ec(w.alice, info=der(0x30, der(0x30, der_oid("1.3.6.1.5.5.7.21.1"), der_int(1)))), "cannot be read"
    ),
    "a proxy with rights of its own": (lambda w: w.ec(w.alice, info=proxy_cert_info(INDEPENDENT)), "rights of its own"),
    "a policy that nobody knows": (lambda w: w.ec(w.alice, info=proxy_cert_info("1.2.3", policy=b"all")), "not known"),
    "a proxy of a limited proxy": (lambda w: w.ec(w.ec(w.alice, info=proxy_cert_info(LIMITED))), "limited proxy"),
    "a proxy of an independent proxy": (
        lambda w: w.ec(w.ec(w.alice, info=proxy_cert_info(INDEPENDENT))), "rights of its own"
    ),
    "one proxy too many": (lambda w: deep(w, path_len=0, n=1), "allows 0 proxies"),
    "two proxies too many": (lambda w: deep(w, path_len=1, n=3), "allows 1 proxies"),
    "a proxy that is a CA": (lambda w: w.ec(w.alice, is_ca=True), "is a CA"),
    "a proxy for signing certificates": (
        lambda w: w.ec(w.alice, usage=_usage(digital_signature=True, key_cert_sign=True)), "not for signatures"
    ),
    "a proxy that must not sign": (lambda w: w.ec(w.alice, usage=_usage(key_encipherment=True)), "not for signatures"),
    "a proxy with other names": (
        lambda w: w.ec(w.alice, extensions=[(x509.SubjectAlternativeName([x509.DNSName("a.b")]), False)]), "other names"
    ),
    "a proxy of a CA": (
        lambda w: w.ec(w.grid._identity(w.grid.ca.cert, w.grid.ca.key, ())), "CA is nobody"
    ),
    "a proxy of a proxy that is no proxy": (
        lambda w: w.ec(w.ec(w.alice, rfc=False)), "user, and not a proxy"
    ),
    "a user that a user has issued": (
        lambda w: w.ec(w.alice, subject=w.bob.cert.subject, rfc=False), "user, and not a proxy"
    ),
    "a user that a user has issued, without the user": (
        lambda w: w.ec(w.alice, subject=w.bob.cert.subject, rfc=False).der_chain[:1], "not believed"
    ),
    "a user that a proxy has issued": (
        lambda w: w.ec(w.proxy, subject=w.bob.cert.subject, rfc=False), "user, and not a proxy"
    ),
    "a legacy proxy": (lambda w: w.ec(w.alice, cn="proxy", rfc=False), "legacy"),
    "a limited legacy proxy": (lambda w: w.ec(w.alice, cn="limited proxy", rfc=False), "legacy"),
    "a proxy of a legacy proxy": (lambda w: w.ec(w.ec(w.alice, cn="proxy", rfc=False)), "legacy"),
    "a draft proxy": (
        lambda w: w.ec(w.alice, rfc=False, extensions=[
            (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222"), proxy_cert_info()), False)]),
        "draft",
    ),
    "a proxy of another CA's user": (lambda w: w.ec(w.other.user("alice", key="ec")), "not believed"),
    "a proxy of a forged user": (lambda w: w.ec(w.forger.user("alice", key="ec")), "not signed"),
    "a forged user before the real one": (
        lambda w: (*w.ec(w.forger.user("alice", key="ec")).der_chain, *w.alice.der_chain), "not signed"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_hostile_chains_are_refused(kind, world):
    make, why = HOSTILE[kind]
    broken = make(world)
    chain = broken if isinstance(broken, tuple) else broken.der_chain
    with pytest.raises(BadCredential, match=why):
        world.certificates.user(chain, world.now)


def test_signatures_with_sha_1_are_refused(world):
    user, ca = (x509.load_der_x509_certificate(one) for one in weak(world))
    with pytest.raises(BadCredential, match="can be forged"):
        check_signed(user, ca)


def test_there_are_many_kinds():
    assert len(HOSTILE) >= 60


def test_honest_chains(world):
    grid, dn = world.grid, world.alice.dn
    honest = [
        world.alice,
        grid.user("alice"),
        world.proxy,
        world.ec(world.proxy),
        world.ec(world.alice, info=proxy_cert_info(LIMITED)),
        world.ec(world.alice, info=proxy_cert_info(policy=b"")),
        world.ec(world.alice, usage=None),
        world.ec(world.alice, is_ca=False),
        deep(world, path_len=3, n=3),
        grid.issue(world.alice.cert.subject, key=new_key("ec"), extensions=[CLIENT]),
        grid.user("alice", ca=intermediate(world), key="ec"),
        world.ec(grid.user("alice", ca=intermediate(world, path_len=0), key="ec")),
    ]
    for identity in honest:
        user = world.certificates.user(identity.der_chain, world.now)
        assert (user.dn, user.fqans) == (dn, ())
        assert user.pem.encode() == identity.pem_chain
        assert user.expires_at == min(one.not_valid_after_utc.timestamp() for one in identity.chain[:2])


def test_what_is_sent_behind_the_user_does_not_matter(world):
    root = world.grid.ca.cert.public_bytes(Encoding.DER)
    foreign = world.bob.der_chain[0]
    for more in ((root,), (foreign,), (root, foreign)):
        assert world.certificates.user((*world.proxy.der_chain, *more), world.now).dn == world.alice.dn


def test_a_limited_proxy_is_flagged(world):
    assert read_chain(world.ec(world.alice, info=proxy_cert_info(LIMITED)).der_chain, world.now).limited
    assert not read_chain(world.proxy.der_chain, world.now).limited


def test_a_user_is_remembered_until_the_certificate_ends(world):
    short = world.ec(world.alice, not_after=world.grid.now + timedelta(seconds=10))
    assert world.certificates.user(short.der_chain, world.now).dn == world.alice.dn
    with pytest.raises(BadCredential, match="expired"):
        world.certificates.user(short.der_chain, world.now + 11)


def test_revocation_and_new_cas_are_seen_after_a_minute(tmp_path):
    grid = Grid(tmp_path / "grid")
    other = Grid(tmp_path / "other", ca_name="Another CA")
    alice, bob = grid.user("alice", key="ec"), other.user("bob", key="ec")
    certificates = GridCertificates(client_ca=grid.cert_dir)
    now = grid.now.timestamp()
    assert certificates.user(alice.der_chain, now).dn == alice.dn
    grid.trust(other.ca)
    grid.revoke(alice)
    assert certificates.user(alice.der_chain, now + 59).dn == alice.dn
    with pytest.raises(BadCredential, match="revoked"):
        certificates.user(alice.der_chain, now + 61)
    assert certificates.user(bob.der_chain, now + 61).dn == bob.dn
    for path in grid.cert_dir.iterdir():
        path.unlink()
    with pytest.raises(BadCredential, match="not believed"):
        certificates.user(bob.der_chain, now + 122)


def test_revocation_lists(tmp_path):
    grid = Grid(tmp_path)
    alice = grid.user("alice", key="ec")
    now = grid.now.timestamp()

    def user(pem: bytes) -> str:
        grid.crl.write_bytes(pem)
        return GridCertificates(client_ca=grid.bundle, crl=grid.crl).user(alice.der_chain, now).dn

    assert user(grid.ca.crl(grid.now)) == alice.dn
    assert user(b"") == alice.dn
    assert user(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n") == alice.dn
    with pytest.raises(BadCredential, match="out of date"):
        user(grid.ca.crl(grid.now - timedelta(days=9), next_update=grid.now - timedelta(seconds=1)))
    with pytest.raises(BadCredential, match="not signed"):
        user(grid.ca.crl(grid.now, key=new_key("ec")))
    grid.ca.revoked.append(alice.cert.serial_number)
    with pytest.raises(BadCredential, match="revoked"):
        user(grid.ca.crl(grid.now))


def test_files_of_cas_that_cannot_be_read_are_left_out(tmp_path):
    grid = Grid(tmp_path)
    alice = grid.user("alice", key="ec")
    (grid.cert_dir / "00000000.0").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (grid.cert_dir / "11111111.0").mkdir()
    (grid.cert_dir / "notes.txt").write_bytes(os.urandom(100))
    assert GridCertificates(client_ca=grid.cert_dir).user(alice.der_chain, grid.now.timestamp()).dn == alice.dn
    with pytest.raises(BadCredential, match="not believed"):
        GridCertificates(client_ca=tmp_path / "none").user(alice.der_chain, grid.now.timestamp())


def test_without_cas_the_front_has_checked(world):
    front = GridCertificates(client_ca=None)
    assert front.user(world.proxy.der_chain, world.now).dn == world.alice.dn
    with pytest.raises(BadCredential, match="issued itself"):
        front.user(self_signed(world).der_chain, world.now)
    with pytest.raises(BadCredential, match="not a proxy"):
        front.user(world.ec(world.alice, subject=world.bob.cert.subject, rfc=False).der_chain, world.now)


@settings(max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0), flip=st.integers(1, 255), which=st.integers(0, 1), cut=st.integers(0, 40))
@pytest.mark.filterwarnings("ignore")
def test_changed_bytes_never_make_another_user(world, at, flip, which, cut):
    chain = list(world.proxy.der_chain)
    changed = bytearray(chain[which])
    changed[at % len(changed)] ^= flip
    chain[which] = bytes(changed[: len(changed) - cut if cut > 30 else len(changed)])
    try:
        user = world.certificates.user(tuple(chain), world.now)
    except BadCredential:
        return
    assert user.dn == world.alice.dn


@given(st.binary(max_size=200))
def test_any_proxy_information(info):
    with contextlib.suppress(Malformed, IndexError):
        _read_policy(info)


def test_the_oid_of_proxies():
    assert PROXY_CERT_INFO.dotted_string == "1.3.6.1.5.5.7.1.14"
