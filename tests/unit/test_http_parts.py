"""The parts of the HTTP adapter that need no server: URLs, PROPFIND bodies, headers, memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from protocols.api import Capabilities
from protocols.checksum import Checksum
from protocols.errors import Refused
from protocols.http.adapter import HttpAdapter
from protocols.http.propfind import PropfindParser, Unreadable, path_of
from protocols.http.quirks import ENDPOINTS_MAX, EXPIRY_S, UNKNOWN, Quirks, family_of
from protocols.http.urls import endpoint_of, listed, parent, redirect_target, same_site, wire_url, with_slash
from protocols.http.webdav import checksums_of

# ---- URLs


@pytest.mark.parametrize(
    ("url", "wire"),
    [
        ("davs://h/p", "https://h/p"),
        ("dav://h:8080/p", "http://h:8080/p"),
        ("HTTPS://h//store//f", "https://h//store//f"),
        ("https://h/a b/ü%20%2F%41", "https://h/a%20b/%C3%BC%20%2F%41"),
        ("https://h/100%", "https://h/100%25"),
        ("https://h/p?copy_mode=push", "https://h/p"),
        ("https://h/p?a=1&copy_mode=pull&b=%2B", "https://h/p?a=1&b=%2B"),
        ("https://h/p?a=1&copy_mode=pull", "https://h/p?a=1"),
        ("https://h/p?xcopy_mode=pull", "https://h/p?xcopy_mode=pull"),
        ("https://h/p#fragment", "https://h/p"),
        ("https://[::1]:1094/p", "https://[::1]:1094/p"),
        ("https://h", "https://h/"),
    ],
)
def test_what_goes_on_the_wire(url, wire):
    assert str(wire_url(url)) == wire


@pytest.mark.parametrize(
    "url",
    ["", "h/p", "ftp://h/p", "https://", "https:///p", "https://u:p@h/x", "https://h:x/p", "https://h/" + "a" * 9000],
)
def test_urls_that_are_refused(url):
    with pytest.raises(Refused) as caught:
        wire_url(url)
    assert "u:p" not in str(caught.value)


@given(st.text(max_size=60))
def test_no_path_can_break_a_request_line(path):
    text = str(wire_url("https://h/" + path.replace("\ud800", "")))
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text


def test_endpoints_and_sites():
    assert endpoint_of(wire_url("davs://H.example/p")) == "https://h.example:443"
    assert same_site(URL("https://h:1/a"), URL("https://H:2/b"))
    assert not same_site(URL("https://h/a"), URL("http://h/a"))
    assert not same_site(URL("https://h/a"), URL("https://g.h/a"))
    assert listed("x.example.org", {".example.org"})
    assert not listed("xexample.org", {".example.org", "example.com"})


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://d:1/a b/ü", "https://d:1/a%20b/%C3%BC"),
        ("/other", "https://h/other"),
        ("https://d//p?&authz=Bearer%20x", "https://d//p?&authz=Bearer%20x"),
        ("//d/p", "https://d/p"),
    ],
)
def test_redirect_targets(location, target):
    assert str(redirect_target(URL("https://h/p"), location)) == target


@pytest.mark.parametrize("location", ["", "ftp://x/y", "https://u:p@h/", "https://h:99999/", "x" * 9000])
def test_redirects_to_nowhere(location):
    with pytest.raises(ValueError):
        redirect_target(URL("https://h/p"), location)


def test_parents():
    above = parent(URL("https://h:1//a/b%20c/f?x=1", encoded=True))
    assert str(above) == "https://h:1//a/b%20c/?x=1"
    assert str(parent(above)) == "https://h:1//a/?x=1"
    assert parent(parent(above)) is None
    assert parent(URL("https://h/")) is None
    assert str(with_slash(URL("https://h/a%2Fb?x", encoded=True))) == "https://h/a%2Fb/?x"


# ---- PROPFIND


def rows(body: bytes):
    parser = PropfindParser()
    for start in range(0, len(body), 7):
        parser.feed(body[start : start + 7])
    return [(row.href, row.is_directory, row.size_bytes) for row in parser.finish()]


XROOTD = b"""<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">
<D:response xmlns:l="DAV:"><D:href>/a b</D:href><D:propstat>
<D:prop><l:getcontentlength>20</l:getcontentlength><l:iscollection>0</l:iscollection></D:prop></D:propstat></D:response>
<D:response><D:href>/d</D:href><D:propstat><D:prop><D:getcontentlength>4096</D:getcontentlength>
<D:iscollection>1</D:iscollection></D:prop></D:propstat></D:response></D:multistatus>"""


def test_listings():
    assert rows(XROOTD) == [("/a b", False, 20), ("/d", True, 4096)]
    plain = b'<multistatus xmlns="DAV:"><response><href>/x/</href><resourcetype><collection/></resourcetype></response>'
    assert rows(plain + b"</multistatus>") == [("/x/", True, None)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html/>",
        b"{}",
        b'<!DOCTYPE x [<!ENTITY a "b">]><D:multistatus xmlns:D="DAV:"/>',
        b'<!DOCTYPE x SYSTEM "http://h/x"><D:multistatus xmlns:D="DAV:"/>',
        b'<D:multistatus xmlns:D="DAV:">' + b"<D:x>" * 100,
        b'<D:multistatus xmlns:D="DAV:"><D:response><D:href>' + b"x" * 100_000,
        XROOTD[:-5],
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x><x/>'.encode("utf-16"),
    ],
)
def test_bodies_that_are_not_read(body):
    with pytest.raises(Unreadable):
        rows(body)


@given(st.binary(max_size=200))
def test_any_body_is_survived(body):
    with pytest.raises(Unreadable):
        rows(body)


def test_paths_of_hrefs():
    assert path_of("https://h:1/a%20b//c/") == path_of("/a b/c") == "/a b/c"
    assert path_of("/") == path_of("http://h") == "/"


# ---- headers


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"Digest": "adler32=4AF106B0"}, {"adler32": "4af106b0"}),
        ({"Content-MD5": "Mr8FgagvAvMg9+PUgLms5Q=="}, {"md5": "32bf0581a82f02f320f7e3d480b9ace5"}),
        ({"OC-Checksum": "ADLER32:1234"}, {"adler32": "00001234"}),
        ({"ETag": '"32bf0581a82f02f320f7e3d480b9ace5"'}, {}),
        ({"Digest": "x", "Content-MD5": "y", "OC-Checksum": "z", "Repr-Digest": "w"}, {}),
    ],
)
def test_checksums_in_headers(headers, found):
    assert {name: checksum.value for name, checksum in checksums_of(headers).items()} == found


def test_an_etag_is_a_checksum_only_where_that_is_known():
    headers = {"ETag": '"32bf0581a82f02f320f7e3d480b9ace5"'}
    assert checksums_of(headers, etag_is_md5=True) == {"md5": Checksum("md5", "32bf0581a82f02f320f7e3d480b9ace5")}
    assert checksums_of({"ETag": '"abc-1"'}, etag_is_md5=True) == {}


# ---- memory


def test_families():
    assert family_of("XrootD/v5.5.3").speaks_tpc
    assert family_of("nginx/1.22.1").copies_locally
    assert family_of("Apache/2.4.71 (Debian)").copies_locally
    assert family_of(None) is family_of("something") is UNKNOWN


def test_what_is_learned_is_forgotten_after_a_day_and_bounded():
    now = 0.0
    quirks = Quirks(now=lambda: now, configured={"https://c:443": Capabilities(push=True)})
    quirks.of("https://a:443").pull = False
    assert quirks.capabilities("https://a:443") == Capabilities(pull=False)
    assert quirks.capabilities("https://c:443") == Capabilities(push=True)
    assert quirks.of("https://c:443").speaks_tpc
    now = EXPIRY_S + 1
    assert quirks.of("https://a:443").pull is None
    for number in range(ENDPOINTS_MAX + 1):
        quirks.of(f"https://h{number}:443")
    assert quirks.capabilities("https://a:443") == Capabilities()
    quirks.of("http://n:80").family = family_of("nginx")
    assert quirks.capabilities("http://n:80") == Capabilities(push=False)


def test_an_endpoint_that_is_configured_without_a_port_is_meant_at_every_port() -> None:
    adapter = HttpAdapter(
        capabilities={
            "davs://one.example": Capabilities(pull=False),
            "https://two.example:1094": Capabilities(push=False),
        }
    )
    assert adapter.capabilities("https://one.example:8443/f") == Capabilities(pull=False)
    assert adapter.capabilities("davs://one.example/f") == Capabilities(pull=False)
    assert adapter.capabilities("https://two.example:1094/f") == Capabilities(push=False)
    assert adapter.capabilities("https://two.example/f") == Capabilities()
