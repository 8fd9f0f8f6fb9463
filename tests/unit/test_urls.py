"""URLs: what is refused and why, and which spellings are one place."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transfer_engine import urls
from transfer_engine.errors import Invalid

anything = st.text(st.characters(), max_size=60)
alike = st.builds(
    "{}{}{}{}{}{}".format,
    st.sampled_from(["http", "HTTPS", "dav", "davs", "file", "1x", ""]),
    st.sampled_from(["://", ":/", ":", "//", ":///"]),
    st.sampled_from(["", "h", "H.org", "[::1]", "[::1", "u:p@h", "é.org", "h h", "::"]),
    st.sampled_from(["", ":443", ":80", ":0", ":65536", ":x", ":"]),
    st.sampled_from(["", "/", "//", "/a", "//a//b", "/../a", "/a/./b", "/a b", "/é", "/\ud800", "/a\\b"]),
    st.sampled_from(["", "?x=1", "#f", "?", "?a/b", "?a#b"]),
)


def key(url: str) -> int:
    return urls.destination_key(urls.parse(url, "f"))


@given(anything | alike)
@settings(deadline=None, max_examples=500)
@example("https://h/\udfff")
@example("https://" + "x" * 5000)
@example("https://h/" + "\u2028")
def test_nothing_but_invalid_is_ever_raised(url: str) -> None:
    try:
        parts = urls.parse(url, "where")
    except Invalid:
        return
    assert parts.scheme == parts.scheme.lower()
    assert parts.path.strip("/")
    assert -(1 << 63) <= urls.destination_key(parts) < 1 << 63
    same = urls.same_place(parts)
    assert urls.same_place(urls.parse(same, "where")) == same, "normalising is idempotent"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://h.org/a/b", "davs://h.org/a/b"),
        ("http://h.org/a/b", "dav://h.org/a/b"),
        ("https://h.org/a/b", "https://h.org:443/a/b"),
        ("http://h.org/a/b", "dav://h.org:80/a/b"),
        ("https://h.org/a/b", "HTTPS://H.ORG/a/b"),
        ("https://h.org/a/b", "https://h.org//a///b"),
        ("https://h.org/a/b", "https://h.org/a/b?x=1"),
        ("file:///a/b", "file://localhost/a/b"),
        ("file:///a?b#c", "FILE://LocalHost/a?b#c"),
    ],
)
def test_spellings_of_one_place(one: str, other: str) -> None:
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://h.org/a", "http://h.org/a"),
        ("https://h.org/a", "https://h.org:8443/a"),
        ("https://h.org/a", "https://h.org:80/a"),
        ("https://h.org/a", "https://h.org/A"),
        ("https://h.org/a", "https://g.org/a"),
        ("root://h.org//a", "https://h.org//a"),
        ("file:///a?b", "file:///a?c"),
    ],
)
def test_different_places(one: str, other: str) -> None:
    assert key(one) != key(other)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "Missing scheme"),
        ("://h/a", "Missing scheme"),
        ("https:///a", "Missing host"),
        ("https://:80/a", "Missing host"),
        ("https://h", "Missing path"),
        ("https://h/", "Missing path"),
        ("https://h//", "Missing path"),
        ("https://h/a/../b", "'..'"),
        ("https://user:secret@h/a", "user or password"),
        ("https://h/a#b", "fragment"),
        ("https://h:0/a", "port"),
        ("https://h:99999/a", "port"),
        ("https://h/a b", "percent-encode"),
        ("https://h/a\nb", "percent-encode"),
        ("https://h/\ud800", "UTF-8"),
    ],
)
def test_refusals_say_what_was_expected(url: str, why: str) -> None:
    with pytest.raises(Invalid, match=why) as caught:
        urls.parse(url, "files[3].sources")
    assert caught.value.field == "files[3].sources"
    assert "secret" not in str(caught.value)
