"""What a client may send as its delegated proxy, and what is refused with which words."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.grid import LIMITED, extended, key_pem, new_key, proxy_cert_info
from tests.service import NOW
from tests.unit.delegating import WHEN, World
from transfer_engine.identity.x509.delegation import BadProxy, accept, key_bits, request_bits


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def upload(world) -> bytes:
    return world.signed(issuer=world.login)


def test_a_request_is_that_of_fts3(world):
    csr = x509.load_pem_x509_csr(world.request.pem.encode())
    assert csr.is_signature_valid
    assert csr.subject.rfc4514_string() == "O=Dummy"
    assert request_bits(world.request.pem) == 2048
    assert request_bits("garbage") == 0
    assert "PRIVATE" not in repr(world.request)


@pytest.mark.parametrize(("bits", "expected"), [(1024, 2048), (2048, 2048), (2050, 3072), (3072, 3072), (4096, 4096)])
def test_the_key_is_as_long_as_the_clients(world, bits, expected):
    identity = world.grid.issue(world.alice.cert.subject, key=new_key("rsa", bits))
    assert key_bits(identity.pem_chain.decode()) == expected


def test_users_without_rsa_get_2048(world):
    assert key_bits(world.bob.pem_chain.decode()) == 2048
    assert key_bits(None) == key_bits("garbage") == 2048


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"cn": "1700000000", "is_ca": False},
        {"usage": None},
        {"cn": "proxy", "rfc": False},
        {"cn": "limited proxy", "rfc": False},
        {"info": proxy_cert_info(LIMITED)},
    ],
)
def test_proxies_of_clients_are_accepted(world, how):
    for issuer in (world.alice, world.login):
        taken = accept(world.signed(issuer=issuer, **how), world.request.key, user_dn=world.alice.dn, now=NOW)
        pem = taken.pem.reveal()
        # In the order of a proxy file: certificate, key, chain.
        assert [line for line in pem.splitlines() if "BEGIN" in line][:3] == [
            "-----BEGIN CERTIFICATE-----", "-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----",
        ]  # fmt: skip
        key = load_pem_private_key(pem[pem.index("-----BEGIN RSA") :].encode(), None)
        leaf = x509.load_pem_x509_certificate(pem.encode())
        assert key.public_key() == leaf.public_key()
        assert "BEGIN" not in repr(taken)


def test_it_ends_with_the_first_of_its_chain(world):
    short = world.grid.proxy(world.alice, key="ec", not_after=WHEN + timedelta(hours=2))
    long = world.signed(issuer=short, not_after=WHEN + timedelta(hours=7))
    assert accept(long, world.request.key, user_dn=world.alice.dn, now=NOW).expires_at == NOW + 7200


BAD = {
    "nothing": (lambda w: b"", "Malformed proxy"),
    "garbage": (lambda w: b"\xff\xfe-----BEGIN CERTIFICATE-----", "Malformed proxy"),
    "the proxy alone": (lambda w: w.signed()[: w.signed().index(b"-----END") + 26], "Malformed proxy"),
    "certificates that are none": (
        lambda w: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 2, "Malformed proxy"
    ),
    "the request": (lambda w: w.request.pem.encode() * 2, "Malformed proxy"),
    "more than 64 KiB": (lambda w: w.signed() + b"\n" * 65536, "more than 65536 bytes"),
    "eleven certificates": (lambda w: w.signed() + w.alice.pem_chain * 9, "more than 10 certificates"),
    "a private key": (lambda w: w.signed() + key_pem(w.alice.key), "private key"),
    "another key": (lambda w: w.login.pem_chain, "does not match the stored associated private key"),
    "the user's certificate first": (lambda w: w.alice.pem_chain * 2, "does not match"),
    "of another user": (lambda w: w.signed(issuer=w.bob), "it is a proxy of /DC=org/DC=grid/OU=Users/CN=bob"),
    "of another user, with this user's name": (
        lambda w: w.signed(issuer=w.bob, subject=extended(w.alice.cert.subject, "1"),
                           issuer_name=w.alice.cert.subject), "subject"
    ),
    "signed by another user": (lambda w: w.signed(signed_by=w.bob.key), "not signed"),
    "with the issuer's subject": (lambda w: w.signed(subject=w.alice.cert.subject), "subject"),
    "with two more names": (
        lambda w: w.signed(subject=extended(extended(w.alice.cert.subject, "1"), "2")), "subject"
    ),
    "expired": (lambda w: w.signed(not_after=WHEN - timedelta(seconds=1)), "expired"),
    "for next week": (lambda w: w.signed(not_before=WHEN + timedelta(hours=1)), "not valid before"),
    "of an expired login": (
        lambda w: w.signed(issuer=w.grid.proxy(w.alice, key="ec", not_after=WHEN - timedelta(seconds=1)),
                           not_after=WHEN + timedelta(hours=1)), "expired"
    ),
    "with an expired CA behind it": (
        lambda w: w.signed() + w.grid.issue(w.bob.cert.subject, not_after=WHEN - timedelta(1)).pem_chain, "expired"
    ),
    "of a limited login": (
        lambda w: w.signed(issuer=w.grid.proxy(w.alice, key="ec", info=proxy_cert_info(LIMITED))), "limited"
    ),
    "of a login that allows none": (
        lambda w: w.signed(issuer=w.grid.proxy(w.alice, key="ec", info=proxy_cert_info(path_len=0))), "allows 0"
    ),
    "of a legacy login": (
        lambda w: w.signed(issuer=w.grid.proxy(w.alice, key="ec", cn="proxy", rfc=False)), "legacy"
    ),
    "a CA": (lambda w: w.signed(is_ca=True), "is a CA"),
    "no proxy": (lambda w: w.signed(rfc=False), "not a proxy|no proxy"),
    "of the CA": (lambda w: w.signed(issuer=w.grid._identity(w.grid.ca.cert, w.grid.ca.key, ())) * 2, "CA"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_accepted(kind, world):
    make, why = BAD[kind]
    with pytest.raises(BadProxy, match=why) as caught:
        accept(make(world), world.request.key, user_dn=world.alice.dn, now=NOW)
    assert str(caught.value).startswith("Could not process the proxy: ")
    assert "PRIVATE" not in str(caught.value)


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0), how=st.integers(0, 2), what=st.binary(min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore")
def test_changed_uploads_are_refused_or_the_same(world, upload, place, how, what):
    changed = bytearray(upload)
    at = place % len(changed)
    if how == 0:
        changed[at : at + len(what)] = what
    elif how == 1:
        changed[at:at] = what
    else:
        del changed[at : at + len(what)]
    with contextlib.suppress(BadProxy):
        taken = accept(bytes(changed), world.request.key, user_dn=world.alice.dn, now=NOW)
        assert taken.chain.dn == world.alice.dn


@given(st.binary(max_size=300))
def test_any_upload_is_refused(world, data):
    with pytest.raises(BadProxy):
        accept(data, world.request.key, user_dn=world.alice.dn, now=NOW)


def test_the_key_is_what_old_readers_know(world):
    key = load_pem_private_key(world.request.key.reveal().encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert world.request.key.reveal().startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert world.alice.cert.public_bytes(Encoding.PEM) in world.alice.pem
