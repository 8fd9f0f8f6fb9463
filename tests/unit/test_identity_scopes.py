"""Scopes: which covers which; the table is the profile's, the rest is held against a slow reading of it."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.identity.scopes import (
    SCOPE_MAX,
    SCOPES_MAX,
    WITH_PATH,
    BadScope,
    allows,
    components,
    granted,
    parse,
    words,
)

# What a token with the scopes at the left may do (+) and may not (-); R:/a is storage.read:/a, and so on.
TABLE = r"""
R:/              + R:/ R:/a R:/a/b R:/a/ R:/%20
R:/              - storage.read R: R:a R:// R:/.. R:/a/..
R:/              - M:/ C:/ S:/ P:/ storage.Read:/ Storage.read:/ fts
R:/foo/bar       + R:/foo/bar R:/foo/bar/ R:/foo/bar/x R:/foo/bar/x/y
R:/foo/bar       + R:/foo/bar/bargain R:/foo/b%61r R:/%66oo/bar/x
R:/foo/bar       - R:/foo/bargain R:/foo/ba R:/foo R:/foo/ R:/
R:/foo/bar       - R:/FOO/bar R:/foo/Bar R:/bar/foo R:/x/foo/bar
R:/foo/bar       - R:/foo//bar R://foo/bar R:/foo/./bar R:/foo/x/../bar
R:/foo/bar       - R:/foo/bar/.. R:/foo/bar/../x R:/foo/bar/./x R:/foo/bar//
R:/foo/bar       - R:/foo/bar/%2e%2e R:/foo/bar/%2E%2E/x R:/foo/bar/.%2e
R:/foo/bar       - R:/foo%2Fbar R:/foo%2fbar/x R:/foo/bar%2fx R:/foo/bar%
R:/foo/bar       - R:/foo/bar/%zz R:/foo/bar/%4 R:/foo/bar/%252e%252e
R:/foo/bar       - R:/foo/bar/%00 R:/foo/bar/%0a R:/foo/bar/%5cx R:/foo/bar/%ff
R:/foo/bar       - R:foo/bar R:/foo/bar:x/.. M:/foo/bar C:/foo/bar
R:/foo/bar/      + R:/foo/bar R:/foo/bar/ R:/foo/bar/x
R:/foo/bar/      - R:/foo/bargain R:/foo
R:/a%20b         + R:/a%20b R:/a%20b/c
R:/a%20b         - R:/a R:/a+b R:/a%20bc
R:/%C3%A9        + R:/%c3%a9 R:/%C3%A9/x
R:/%C3%A9        - R:/e R:/%C3 R:/%A9
R:/a:b           + R:/a:b R:/a:b/c
R:/a:b           - R:/a R:/a/b
R:/~user         + R:/~user R:/%7Euser/x
R:/...           + R:/... R:/.../x
R:/.hidden       + R:/.hidden/x
R:/.hidden       - R:/hidden
M:/            + M:/ M:/a C:/ C:/a/b
M:/            - R:/ R:/a S:/ P:/ storage.modify storage.create
M:/foo         + M:/foo C:/foo C:/foo/x M:/foo/x
M:/foo         - C:/ C:/food C:/fo R:/foo M:/
C:/            + C:/ C:/a
C:/            - M:/ M:/a R:/ S:/
C:/foo         + C:/foo/bar
C:/foo         - M:/foo M:/foo/bar C:/foobar C:/
S:/             + S:/ R:/ R:/a/b S:/a
S:/             - M:/ C:/ P:/
S:/foo          + R:/foo R:/foo/bar
S:/foo          - R:/ R:/bar S:/
P:/foo           + P:/foo P:/foo/bar
P:/foo           - P:/ R:/foo S:/foo
storage.read                - storage.read R:/ R:/a
R:               - storage.read R: R:/
R:a              - R:a R:/a
R:/a/../b        - R:/b R:/a R:/a/../b
R:/%2e%2e        - R:/ R:/a R:/%2e%2e
R://             - R:/ R:/a
storage.*:/                 - R:/ M:/ storage.*:/
storage.write:/             - storage.write:/ M:/ C:/
storage:/                   - R:/ M:/
*                           - R:/ fts openid
fts                         + fts
fts                         - fts:submit fts: Fts FTS ft ftsx fts.read R:/
fts:submit                  + fts:submit
fts:submit                  - fts fts: fts:submit/x fts:sub
openid                      + openid
openid                      - offline_access profile
wlcg.groups:/dteam          + wlcg.groups:/dteam
wlcg.groups:/dteam          - wlcg.groups wlcg.groups:/dteam/prod wlcg.groups:/
compute.create              + compute.create
compute.create              - compute.read compute.modify compute.cancel
R:/a,M:/b,fts  + R:/a/x C:/b/c M:/b fts
R:/a,M:/b,fts  - R:/b C:/a M:/a/b openid
R:/..,R:/a       + R:/a
R:/..,R:/a       - R:/b
R:/data/escape/rucio + R:/data/escape/rucio/a R:/data/escape/rucio/00/ff/file.root
R:/data/escape/rucio - R:/data/escape R:/data/escape/rucio2 R:/data/escape/ruci/o R:/data/rucio/escape R:/escape/rucio
"""

SHORT = {f"{word[0].upper()}:": f"storage.{word}:" for word in ("read", "modify", "create", "stage", "poll")}


def full(word: str) -> str:
    return SHORT[word[:2]] + word[2:] if word[:2] in SHORT else word


CASES = [
    ([full(word) for word in held.split(",")], sign == "+", full(wanted))
    for line in TABLE.strip().splitlines()
    for held, sign, *asked in [line.split()]
    for wanted in asked
]


def test_the_table_is_long():
    assert len(CASES) >= 200


@pytest.mark.parametrize(("held", "may", "wanted"), CASES)
def test_who_covers_whom(held: list[str], may: bool, wanted: str):
    assert allows(granted(held), wanted) is may


@pytest.mark.parametrize(
    "word",
    ["", " ", "a b", 'a"b', "a\\b", "é", "a\x00", "a\n", "x" * (SCOPE_MAX + 1), "storage.read", "storage.x"],
)  # fmt: skip
def test_what_is_no_scope(word: str):
    with pytest.raises(BadScope):
        parse(word)


def test_words_of_a_claim():
    assert words("") == ()
    assert words("  a  b ") == ("a", "b")
    assert words("a\tb") == ("a\tb",)
    assert granted(words("a\tb")) == ()
    with pytest.raises(BadScope):
        words("a " * (SCOPES_MAX + 1))


# Against a reading of the profile that does one small step after the other.


def slow_path(path: str) -> list[str] | None:
    """The components of a path, or None, by looking at each character."""
    if not path or path[0] != "/":
        return None
    rest, out, i = path[1:], "", 0
    while i < len(rest):
        if rest[i] == "%":
            code = rest[i + 1 : i + 3]
            if len(code) < 2 or any(c not in "0123456789abcdefABCDEF" for c in code):
                return None
            byte = int(code, 16)
            if byte < 32 or byte == 127 or chr(byte) in "./%\\":
                return None
            i += 3
        else:
            i += 1
    try:
        out = unquote(rest, errors="strict")
    except UnicodeDecodeError:
        return None
    if not out.isprintable() or "\\" in out:
        return None
    if rest == "":
        return []
    parts = rest.split("/")
    if parts[-1] == "":
        parts = parts[:-1]
    if not parts or any(part in ("", ".", "..") for part in parts):
        return None
    return [unquote(part) for part in parts]


def slow_allows(held: str, wanted: str) -> bool:
    def split(word: str) -> tuple[str, list[str] | None] | None:
        if any(c <= " " or c > "~" or c in '"\\' for c in word) or not word:
            return None
        name = word.partition(":")[0]
        if name in WITH_PATH:
            if ":" not in word:
                return None
            path = slow_path(word[len(name) + 1 :])
            return None if path is None else (name, path)
        return None if word.startswith("storage.") else (word, None)

    have, want = split(held), split(wanted)
    if have is None or want is None:
        return False
    names = {have[0]}
    if have[0] == "storage.modify":
        names.add("storage.create")
    if have[0] == "storage.stage":
        names.add("storage.read")
    if want[0] not in names:
        return False
    if have[1] is None or want[1] is None:
        return have[1] is want[1]
    return len(have[1]) <= len(want[1]) and all(one == other for one, other in zip(have[1], want[1], strict=False))


SEGMENT = st.sampled_from(
    ["a", "b", "ab", "..", ".", "", "%61", "%2e", "%2F", "%", "%25", "%20", "%c3%a9", "%ff", "A", "~"]
)
PATH = st.lists(SEGMENT, max_size=4).map("/".join).map(lambda path: "/" + path)
NAME = st.sampled_from([*sorted(WITH_PATH), "storage.write", "fts", "wlcg.groups"])
WORD = st.one_of(st.builds(lambda name, path: f"{name}:{path}", NAME, PATH), NAME, st.text(max_size=12))


@given(WORD, WORD)
def test_as_the_slow_reading(held: str, wanted: str):
    assert allows(granted([held]), wanted) is slow_allows(held, wanted)


@given(PATH)
def test_what_covers_a_path_covers_what_is_below(path: str):
    try:
        parts = components(path)
    except BadScope:
        assert slow_path(path) is None
        return
    assert slow_path(path) == list(parts)
    assert allows(granted([f"storage.read:{path}"]), f"storage.read:{path.rstrip('/')}/below")
    assert not allows(granted([f"storage.read:{path.rstrip('/')}/below"]), f"storage.read:{path}")


@given(WORD, WORD, WORD)
def test_covering_is_transitive(one: str, two: str, three: str):
    if allows(granted([one]), two) and allows(granted([two]), three):
        assert allows(granted([one]), three)
