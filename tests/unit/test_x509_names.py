"""Subjects in one line: as OpenSSL shows them, and never one line for two subjects."""

from __future__ import annotations

import subprocess

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.grid import Grid
from tests.programs import need
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.names import DN_MAX, dn_from_text, dn_of, usual_spelling

KINDS = (
    NameOID.COMMON_NAME,
    NameOID.ORGANIZATION_NAME,
    NameOID.USER_ID,
    NameOID.EMAIL_ADDRESS,
    NameOID.DOMAIN_COMPONENT,
)
EVIL = st.lists(
    st.sampled_from(["/", "CN=", "/CN=", "O=", "\\", "x2F", "\\x2F", "a", "=", "é", "\n", " ", "/1.2.3="]), max_size=6
).map("".join)
PARTS = st.lists(st.tuples(st.sampled_from(KINDS), EVIL.filter(bool)), min_size=1, max_size=4)


def name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value, _validate=False) for oid, value in parts])


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ([(NameOID.DOMAIN_COMPONENT, "ch"), (NameOID.COMMON_NAME, "alice")], "/DC=ch/CN=alice"),
        ([(NameOID.COMMON_NAME, "host/a.example.org")], "/CN=host/a.example.org"),
        ([(NameOID.COMMON_NAME, "Robot: ATLAS x=1")], "/CN=Robot: ATLAS x=1"),
        ([(NameOID.EMAIL_ADDRESS, "a@b.ch"), (NameOID.USER_ID, "al")], "/emailAddress=a@b.ch/UID=al"),
        ([(NameOID.COMMON_NAME, "Zoë")], r"/CN=Zo\xC3\xAB"),
        ([(NameOID.COMMON_NAME, "a\nb\x7f")], r"/CN=a\x0Ab\x7F"),
        ([(NameOID.COMMON_NAME, "a/CN=b")], r"/CN=a\x2FCN=b"),
        ([(NameOID.COMMON_NAME, r"a\x2FCN=b")], r"/CN=a\x5Cx2FCN=b"),
        ([(NameOID.COMMON_NAME, r"a\b")], r"/CN=a\b"),
        ([(x509.ObjectIdentifier("1.2.3.4"), "x")], "/1.2.3.4=x"),
        (
            [(NameOID.SERIAL_NUMBER, "7"), (NameOID.SURNAME, "s"), (NameOID.GIVEN_NAME, "g")],
            "/serialNumber=7/SN=s/GN=g",
        ),
    ],
)
def test_the_old_form(parts, line):
    assert dn_of(name(*parts)) == line


@given(PARTS, PARTS)
def test_two_subjects_never_look_alike(one, other):
    if one != other:
        assert dn_of(name(*one)) != dn_of(name(*other))


@given(PARTS)
def test_a_line_is_printable(parts):
    line = dn_of(name(*parts))
    assert line.isascii()
    assert line.isprintable()


def test_what_has_no_line():
    with pytest.raises(BadCredential, match="no subject"):
        dn_of(x509.Name([]))
    several = x509.RelativeDistinguishedName(
        [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "b")]
    )
    with pytest.raises(BadCredential, match="several values"):
        dn_of(x509.Name([several]))
    with pytest.raises(BadCredential, match="longer"):
        dn_of(name(*[(NameOID.COMMON_NAME, "a" * 60)] * 20))
    assert DN_MAX == 1024


def test_openssl_shows_the_same(tmp_path, request):
    need(request, "openssl")
    grid = Grid(tmp_path)
    subject = name(
        (NameOID.COUNTRY_NAME, "CH"),
        (NameOID.DOMAIN_COMPONENT, "cern"),
        (NameOID.ORGANIZATION_NAME, "CERN"),
        (NameOID.USER_ID, "al"),
        (NameOID.EMAIL_ADDRESS, "a@b.ch"),
        (NameOID.STATE_OR_PROVINCE_NAME, "Geneva"),
        (NameOID.TITLE, "Dr"),
        (x509.ObjectIdentifier("1.2.3.4"), "odd"),
        (NameOID.COMMON_NAME, "host/Zoë x"),
    )
    identity = grid.issue(subject)
    command = ["openssl", "x509", "-noout", "-subject", "-nameopt", "compat", "-in", str(identity.certificate)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    # OpenSSL 3 puts a backslash before slashes, older ones do not.
    assert usual_spelling(shown.removeprefix("subject=")) == dn_of(identity.cert.subject)


@pytest.mark.parametrize(
    ("text", "dn"),
    [
        ("/DC=org/CN=alice", "/DC=org/CN=alice"),
        ("/DC=org/Email=a@b/USERID=x", "/DC=org/emailAddress=a@b/UID=x"),
        ("CN=alice,OU=Users,DC=grid,DC=org", "/DC=org/DC=grid/OU=Users/CN=alice"),
        ("emailAddress=a@b.ch,CN=alice,C=CH", "/C=CH/CN=alice/emailAddress=a@b.ch"),
        (r"CN=al\,ice,DC=org", "/DC=org/CN=al,ice"),
        (r"CN=Zo\C3\AB,DC=org", r"/DC=org/CN=Zo\xC3\xAB"),
        ("CN=a/CN=b,DC=org", r"/DC=org/CN=a\x2FCN=b"),
    ],
)
def test_forwarded_subjects(text, dn):
    assert dn_from_text(text) == dn


@pytest.mark.parametrize(
    "text", ["", "alice", "/", "/alice", "CN", "CN=a,,DC=b", "/CN=a\nb", "/CN=" + "a" * 2000, "CN=a+UID=b"]
)
def test_forwarded_nonsense(text):
    with pytest.raises(BadCredential):
        dn_from_text(text)


def test_spellings_of_files():
    assert usual_spelling(r"/CN=host\/a.b/O=x\+y") == "/CN=host/a.b/O=x+y"
    assert usual_spelling(r"/CN=a\/CN=b") == dn_of(name((NameOID.COMMON_NAME, "a/CN=b")))
    assert usual_spelling(" /C=CH/E=a@b/userid=x/CN=E=mc2 ") == "/C=CH/emailAddress=a@b/UID=x/CN=E=mc2"
