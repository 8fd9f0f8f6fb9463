"""VOMS attributes: which are believed, and that anything else is left out, whatever its bytes are."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.grid import Grid, Identity, der, der_int, new_key
from tests.grid_voms import (
    CERTIFICATES,
    SHA256_ECDSA,
    SHA256_RSA,
    TARGETS,
    Voms,
    ac_extension,
    attributes,
    targets,
)
from tests.programs import need
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.attributes import read_attributes
from transfer_engine.identity.x509.users import GridCertificates
from transfer_engine.identity.x509.voms import plain_fqan, read_lsc

SERVICE = "fts.example.org"


class World:
    def __init__(self, root) -> None:
        self.grid = Grid(root / "grid")
        self.other = Grid(root / "other", ca_name="Another CA")
        self.alice = self.grid.user("alice", key="ec")
        self.bob = self.grid.user("bob", key="ec")
        self.voms = Voms(self.grid, vo="escape")
        self.second = Voms(self.grid, vo="atlas", host="voms.atlas.example.org")
        self.stranger = Voms(self.grid, vo="escape", host="stranger.example.org", listed=False)
        self.untrusted = Voms(self.grid, vo="cms", host="voms.cms.example.org", ca=self.other.ca)
        self.certificates = GridCertificates(
            client_ca=self.grid.cert_dir, vomsdir=self.grid.vomsdir, hosts=frozenset({SERVICE})
        )

    @property
    def now(self) -> float:
        return self.grid.now.timestamp()

    def carrying(self, *extensions: bytes, user: Identity | None = None) -> Identity:
        """A proxy of alice with this extension, and a proxy of that for each further one."""
        identity = user or self.alice
        for extension in extensions:
            identity = self.grid.proxy(identity, key="ec", extensions=[attributes(extension)])
        return identity

    def fqans(self, identity: Identity) -> tuple[str, ...]:
        user = self.certificates.user(identity.der_chain, self.now)
        assert user.dn == self.alice.dn
        return user.fqans


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_attributes_are_believed(world):
    made = world.voms.proxy(
        world.alice, "/escape/prod/Role=production/Capability=NULL", "/escape/Role=NULL/Capability=NULL"
    )
    assert world.fqans(made) == ("/escape/prod/Role=production", "/escape")
    assert world.fqans(world.grid.proxy(made, key="ec")) == ("/escape/prod/Role=production", "/escape")
    assert world.fqans(world.voms.proxy(world.alice, "/escape", key="ec", version=1)) == ("/escape",)
    for_us = ac_extension(TARGETS, targets("other.example.org", SERVICE.upper()), critical=True)
    assert world.fqans(world.voms.proxy(world.alice, "/escape", key="ec", extensions=[for_us])) == ("/escape",)


def test_both_names_of_a_holder(world):
    by_subject = world.voms.extension(world.alice, "/escape", holder_issuer=world.alice.cert.subject)
    assert world.fqans(world.carrying(by_subject)) == ("/escape",)


@pytest.mark.slow
def test_what_vomss_own_library_makes(tmp_path, request):
    need(request, "voms-proxy-fake")
    grid = Grid(tmp_path, ca_key="rsa")
    alice = grid.user("alice")
    voms = Voms(grid, vo="escape")
    made = tmp_path / "proxy.pem"
    for key in (alice.key_file, voms.server.key_file):
        key.chmod(0o400)
    command = {
        "-cert": alice.certificate, "-key": alice.key_file, "-hostcert": voms.server.certificate,
        "-hostkey": voms.server.key_file, "-voms": "escape", "-uri": "voms.example.org:15000", "-hours": "5",
        "-fqan": "/escape/Role=production", "-certdir": grid.cert_dir, "-out": made, "-bits": "2048",
    }  # fmt: skip
    words = [str(word) for pair in command.items() for word in pair]
    environment = {"HOME": str(tmp_path), "PATH": os.defpath, "RANDFILE": str(tmp_path / "rnd")}
    subprocess.run(["voms-proxy-fake", "-rfc", *words], check=True, capture_output=True, env=environment)
    chain = [one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(_certificates(made))]
    certificates = GridCertificates(client_ca=grid.cert_dir, vomsdir=grid.vomsdir)
    user = certificates.user(tuple(chain), grid.now.timestamp() + 60)
    assert (user.dn, user.fqans) == (alice.dn, ("/escape/Role=production",))


def _certificates(path) -> bytes:
    return b"".join(
        re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", path.read_bytes(), re.DOTALL)
    )


def test_the_attributes_nearest_to_the_leaf_count(world):
    first, second = world.voms.extension(world.alice, "/escape"), world.voms.extension(world.alice, "/escape/prod")
    assert world.fqans(world.carrying(first, second)) == ("/escape/prod",)


def test_several_vos_in_one_proxy(world):
    ours, theirs = (one.attribute_certificate(world.alice, f"/{one.vo}") for one in (world.voms, world.second))
    foreign = world.stranger.attribute_certificate(world.alice, "/escape/admin")
    assert world.fqans(world.carrying(der(0x30, der(0x30, ours, theirs)))) == ("/escape", "/atlas")
    assert world.fqans(world.carrying(der(0x30, der(0x30, foreign, ours)))) == ("/escape",)


def test_a_user_ends_with_the_attributes(world):
    ends = world.grid.now + timedelta(hours=1)
    made = world.voms.proxy(world.alice, key="ec", not_after=ends)
    assert world.certificates.user(made.der_chain, world.now).expires_at == ends.timestamp()
    later = world.certificates.user(made.der_chain, world.now + 3601)
    assert later.fqans == ()


BROKEN = {
    "another user's": lambda w: w.voms.extension(w.bob, "/escape"),
    "another serial number": lambda w: w.voms.extension(w.alice, "/escape", holder_serial=1),
    "another user's subject": lambda w: w.voms.extension(w.alice, "/escape", holder_issuer=w.bob.cert.subject),
    "another CA's user": lambda w: w.voms.extension(w.alice, "/escape", holder_issuer=w.other.ca.cert.subject),
    "expired": lambda w: w.voms.extension(w.alice, "/escape", not_after=w.grid.now - timedelta(seconds=1)),
    "not yet valid": lambda w: w.voms.extension(w.alice, "/escape", not_before=w.grid.now + timedelta(hours=1)),
    "signed with another key": lambda w: w.voms.extension(w.alice, "/escape", signed_by=new_key("rsa")),
    "signed with a key of another kind": lambda w: w.voms.extension(w.alice, "/escape", signed_by=new_key("ec")),
    "signed by the user": lambda w: w.voms.extension(
        w.alice, "/escape", signed_by=w.alice.key, certificates=[w.alice.cert], issuer=w.alice.cert.subject
    ),
    "changed after signing": lambda w: w.voms.extension(w.alice, "/escape/user", tamper=b"/escapE"),
    "by a server that is not listed": lambda w: w.stranger.extension(w.alice, "/escape"),
    "by a server that says it is another": lambda w: w.stranger.extension(
        w.alice, "/escape", issuer=w.voms.server.cert.subject
    ),
    "with the certificate of the listed server, signed by another": lambda w: w.stranger.extension(
        w.alice, "/escape", issuer=w.voms.server.cert.subject, certificates=[w.voms.server.cert]
    ),
    "without the server's certificate": lambda w: w.voms.extension(w.alice, "/escape", certificates=[]),
    "by a server of a CA that is not believed": lambda w: w.untrusted.extension(w.alice, "/cms"),
    "of a VO without a folder": lambda w: w.voms.extension(w.alice, "/lhcb", vo="lhcb"),
    "of a VO that is a path": lambda w: w.voms.extension(w.alice, "/escape", vo="../escape"),
    "of another VO than its server's": lambda w: w.voms.extension(w.alice, "/atlas", vo="atlas"),
    "with FQANs of another VO": lambda w: w.voms.extension(w.alice, "/escape", "/atlas"),
    "with FQANs of a VO whose name begins alike": lambda w: w.voms.extension(w.alice, "/escapement"),
    "for another service": lambda w: w.voms.extension(
        w.alice, "/escape", extensions=[ac_extension(TARGETS, targets("other.example.org"), critical=True)]
    ),
    "for nobody": lambda w: w.voms.extension(
        w.alice, "/escape", extensions=[ac_extension(TARGETS, targets(), critical=True)]
    ),
    "for something that is no host": lambda w: w.voms.extension(
        w.alice, "/escape", extensions=[ac_extension(TARGETS, der(0x30, der_int(1)))]
    ),
    "with an unknown critical extension": lambda w: w.voms.extension(
        w.alice, "/escape", extensions=[ac_extension("1.2.3.4", b"\5\0", critical=True)]
    ),
    "of version 1": lambda w: w.voms.extension(w.alice, "/escape", version=0),
    "with two algorithms": lambda w: w.voms.extension(w.alice, "/escape", inner_algorithm=SHA256_ECDSA),
    "with an algorithm that is not the key's": lambda w: w.voms.extension(w.alice, "/escape", algorithm=SHA256_ECDSA),
    "with an algorithm that can be forged": lambda w: w.voms.extension(
        w.alice, "/escape", algorithm=SHA256_RSA.replace(b"\x01\x0b", b"\x01\x05")
    ),
    "without FQANs": lambda w: w.voms.extension(w.alice, values=b""),
    "with FQANs that are none": lambda w: w.voms.extension(w.alice, "escape"),
    "with unprintable FQANs": lambda w: w.voms.extension(w.alice, "/escape/a\nb"),
    "with an endless FQAN": lambda w: w.voms.extension(w.alice, "/escape/" + "a" * 300),
    "with 200 FQANs": lambda w: w.voms.extension(w.alice, *[f"/escape/g{n}" for n in range(200)]),
    "with FQANs that are not text": lambda w: w.voms.extension(w.alice, values=der(0x04, b"/escape/\xff")),
    "with certificates that are none": lambda w: w.voms.extension(
        w.alice, "/escape", certificates=[], extensions=[ac_extension(CERTIFICATES, der(0x30, der(0x30, der_int(1))))]
    ),
    "nine of them": lambda w: der(0x30, der(0x30, *[w.voms.attribute_certificate(w.alice, "/escape")] * 9)),
    "none at all": lambda w: der(0x30, der(0x30)),
    "nothing": lambda w: b"",
    "garbage": lambda w: b"\xde\xad\xbe\xef",
    "something behind them": lambda w: w.voms.extension(w.alice, "/escape") + b"\0",
    "cut": lambda w: w.voms.extension(w.alice, "/escape")[:-1],
    "nested a thousand times": lambda w: _nested(1000),
    "huge": lambda w: der(0x30, der(0x30, b"\5\0" * 10_000)),
}


def _nested(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = der(0x30, value)
    return value


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_not_believed_is_left_out(kind, world, caplog):
    proxy = world.carrying(BROKEN[kind](world))
    with caplog.at_level(logging.WARNING):
        assert world.fqans(proxy) == ()
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "voms-refused"]
    assert record.why
    assert record.user_dn == world.alice.dn


def test_attributes_of_a_user_certificate_do_not_count(world):
    grid = world.grid
    extension = world.voms.extension(world.alice, "/escape")
    eec = grid.issue(world.alice.cert.subject, key=new_key("ec"), extensions=[attributes(extension)])
    assert world.fqans(eec) == ()


def test_without_vomsdir_nothing_is_believed(world):
    plain = GridCertificates(client_ca=world.grid.cert_dir)
    made = world.voms.proxy(world.alice, key="ec")
    assert plain.user(made.der_chain, world.now).fqans == ()
    assert GridCertificates(client_ca=None, vomsdir=world.grid.vomsdir).user(made.der_chain, world.now).fqans == ()


def test_servers_by_certificate_and_by_chain(tmp_path):
    grid = Grid(tmp_path)
    alice = grid.user("alice", key="ec")
    between = grid.authority("Sub CA", parent=grid.ca)
    voms = Voms(grid, vo="escape", ca=between)
    made = voms.proxy(alice, key="ec")
    bare = voms.proxy(alice, key="ec", certificates=[])
    now = grid.now.timestamp()

    def fqans(identity: Identity) -> tuple[str, ...]:
        certificates = GridCertificates(client_ca=grid.bundle, vomsdir=grid.vomsdir)
        return certificates.user(identity.der_chain, now).fqans

    names = [
        "".join(f"/{part.rfc4514_attribute_name}={part.value!s}" for part in name)
        for name in (voms.server.cert.subject, between.cert.subject, grid.ca.cert.subject)
    ]
    for lines, believed in (
        (names, True),
        (["# a comment", *names], True),
        (["/O=x", "/O=y", "------ NEXT CHAIN ------", *names], True),
        # The certificates that came are two, so both must be listed.
        (names[:2], False),
        ([names[0], names[2], names[1]], False),
        (names[:1], False),
        (["", "-----", "x"], False),
    ):
        voms.list(*lines)
        assert fqans(made) == (("/escape",) if believed else ()), lines
    voms.list_certificate()
    assert fqans(made) == ("/escape",)
    # Its intermediate CA is neither known here nor sent.
    assert fqans(bare) == ()
    grid.trust(between)
    assert fqans(bare) == ("/escape",)


def test_lists_are_read_again(tmp_path):
    grid = Grid(tmp_path)
    alice = grid.user("alice", key="ec")
    certificates = GridCertificates(client_ca=grid.bundle, vomsdir=grid.vomsdir)
    voms = Voms(grid, vo="escape", listed=False)
    made = voms.proxy(alice, key="ec")
    now = grid.now.timestamp()
    assert certificates.user(made.der_chain, now).fqans == ()
    voms.list()
    assert certificates.user(made.der_chain, now + 61).fqans == ("/escape",)
    voms.lsc.unlink()
    assert certificates.user(made.der_chain, now + 122).fqans == ()


def test_lsc():
    assert read_lsc("/CN=a\n/CN=b\n") == [("/CN=a", "/CN=b")]
    assert read_lsc("/CN=a\n\n /Email=b \n") == [("/CN=a", "/emailAddress=b")]
    assert read_lsc("") == read_lsc("/CN=a") == []


@pytest.mark.parametrize(
    ("fqan", "plain"),
    [
        ("/e/Role=NULL/Capability=NULL", "/e"),
        ("/e/Role=x/Capability=NULL", "/e/Role=x"),
        ("/e/Role=NULL", "/e"),
        ("/e/Role=x/Capability=y", "/e/Role=x/Capability=y"),
    ],
)
def test_fqans_say_nothing_twice(fqan, plain):
    assert plain_fqan(fqan) == plain


@settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(st.integers(0), st.integers(0, 3), st.binary(min_size=1, max_size=4)), min_size=1, max_size=5
    )
)
@pytest.mark.filterwarnings("ignore")
def test_changed_bytes_are_read_or_refused(world, edits):
    extension = bytearray(world.voms.extension(world.alice, "/escape/prod/Role=production", "/escape"))
    for place, how, what in edits:
        at = place % max(len(extension), 1)
        if how == 0:
            extension[at : at + len(what)] = what
        elif how == 1:
            extension[at:at] = what
        elif how == 2:
            del extension[at : at + len(what)]
        else:
            extension += what
    with contextlib.suppress(BadCredential):
        assert all(one.fqans for one in read_attributes(bytes(extension)))


@settings(max_examples=300, deadline=1000)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused(data):
    with pytest.raises(BadCredential):
        read_attributes(data)


@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0), flip=st.integers(1, 255))
@pytest.mark.filterwarnings("ignore")
def test_no_changed_byte_gives_other_attributes(world, at, flip):
    extension = bytearray(world.voms.extension(world.alice, "/escape"))
    extension[at % len(extension)] ^= flip
    assert world.fqans(world.carrying(bytes(extension))) in {(), ("/escape",)}
