"""Which storages are banned, however they are spelt, for whom and how long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.bans import BanTable, is_active, parse_endpoint, sentence, spellings, storage_key
from transfer_engine.errors import Invalid
from transfer_engine.places import Ban, Place
from transfer_engine.reasons import Why

NOW = 1_700_000_000.0

PLAIN = Ban(
    endpoint="https://h.example",
    vo=None,
    cancel=False,
    allow_submit=False,
    until=None,
    message="disk broken",
    by="eva",
    since=NOW,
)


def ban(**changes: object) -> Ban:
    return replace(PLAIN, **changes)  # type: ignore[arg-type]


def test_a_ban_closes_both_directions_of_every_spelling():
    caps = BanTable.of([PLAIN]).caps(NOW)
    for scheme in ("https", "davs", "http", "dav"):
        for kind in ("in", "out"):
            cap = caps[Place(kind, f"{scheme}://h.example")]
            assert cap.limit == 0
            assert cap.reason.code is Why.BAN
            assert cap.reason.subject == "https://h.example"
    assert Place("in", "root://h.example") not in caps
    assert {place.kind for place in caps} == {"in", "out"}


def test_a_ban_for_one_vo_closes_the_places_of_that_vo():
    caps = BanTable.of([ban(vo="atlas")]).caps(NOW)
    assert {place.kind for place in caps} == {"vo-in", "vo-out"}
    assert {place.other for place in caps} == {"atlas"}
    assert Place("vo-out", "davs://h.example", "atlas") in caps


def test_the_reason_says_who_since_until_and_why():
    text = BanTable.of([ban(until=NOW + 3600, vo="cms")]).caps(NOW)[Place("vo-in", "https://h.example", "cms")].reason
    assert text.text == (
        "https://h.example is banned for VO cms by eva since 2023-11-14T22:13:20Z until 2023-11-14T23:13:20Z: "
        "disk broken"
    )
    assert text.until == NOW + 3600
    assert sentence(ban(message=""), "davs://h.example") == (
        "davs://h.example is banned by eva since 2023-11-14T22:13:20Z"
    )


def test_a_ban_that_has_run_out_does_not_count():
    table = BanTable.of([ban(until=NOW + 10)])
    assert table.next_change_at(NOW) == NOW + 10
    assert table.caps(NOW + 9.9)
    assert table.caps(NOW + 10) == {}
    assert table.refuses("https://h.example", "https://o.example", "any", NOW + 10) is None
    assert table.next_change_at(NOW + 10) is None
    assert table.active(NOW + 10) == []
    assert len(table.bans) == 1


def test_the_next_change_is_the_first_end():
    table = BanTable.of(
        [ban(until=NOW + 30), ban(endpoint="root://x", until=NOW + 20), ban(endpoint="root://y", until=NOW - 1)]
    )
    assert table.next_change_at(NOW) == NOW + 20
    assert BanTable.of([PLAIN]).next_change_at(NOW) is None


@pytest.mark.parametrize(
    ("cancel", "allow_submit", "refused"), [(True, False, True), (False, False, True), (False, True, False)]
)
def test_which_bans_refuse_a_submission(cancel: bool, allow_submit: bool, refused: bool):
    table = BanTable.of([ban(cancel=cancel, allow_submit=allow_submit)])
    for source, destination in (
        ("https://h.example", "https://o.example"),
        ("https://o.example", "davs://h.example"),
        ("dav://h.example.", "https://o.example"),
    ):
        assert (table.refuses(source, destination, "atlas", NOW) is not None) is refused
    assert table.refuses("root://h.example", "https://o.example", "atlas", NOW) is None


def test_a_ban_of_one_vo_refuses_that_vo():
    table = BanTable.of([ban(vo="atlas")])
    assert table.refuses("https://h.example", "https://o.example", "atlas", NOW) is not None
    assert table.refuses("https://h.example", "https://o.example", "cms", NOW) is None


def test_two_spellings_of_one_ban_last_as_long_as_the_longer():
    table = BanTable.of([ban(until=None, by="long"), ban(endpoint="davs://h.example", until=NOW + 10, by="short")])
    assert "by long" in table.caps(NOW)[Place("in", "davs://h.example")].reason.text
    found = table.refuses("http://h.example", "https://o.example", "x", NOW)
    assert found is not None
    assert found.by == "long"


def test_no_bans_no_caps():
    assert BanTable().caps(NOW) == {}
    assert BanTable().refuses("https://h.example", "https://o.example", "x", NOW) is None
    assert BanTable.of([]).next_change_at(NOW) is None


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("https://H.Example", "https://h.example"),
        (" DAVS://h.example/ ", "davs://h.example"),
        ("root://h", "root://h"),
        ("https://[::1]", "https://[::1]"),
    ],
)
def test_endpoints_are_read(text: str, endpoint: str):
    assert parse_endpoint(text, "storage") == endpoint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "scheme://host"),
        ("h.example", "scheme://host"),
        ("https://", "scheme://host"),
        ("https:///x", "scheme://host"),
        ("https://user@h", "scheme://host"),
        ("https://h:8443", "without its port: https://h"),
        ("https://h/data", "without a path: https://h"),
        ("https://h?x=1", "scheme://host"),
        ("https://h x", "scheme://host"),
    ],
)
def test_endpoints_that_are_none(text: str, words: str):
    with pytest.raises(Invalid, match=words) as caught:
        parse_endpoint(text, "storage")
    assert caught.value.field == "storage"


HOSTS = st.sampled_from(["h.example", "h.example.", "other.example", "[::1]"])
SCHEMES = st.sampled_from(["https", "davs", "http", "dav", "root", "s3"])
ENDPOINTS = st.builds("{}://{}".format, SCHEMES, HOSTS)
BANS = st.builds(
    Ban,
    endpoint=ENDPOINTS,
    vo=st.sampled_from([None, "atlas", "cms"]),
    cancel=st.booleans(),
    allow_submit=st.booleans(),
    until=st.one_of(st.none(), st.floats(NOW - 100, NOW + 100)),
    message=st.just(""),
    by=st.just("eva"),
    since=st.just(NOW - 200),
)


@given(st.lists(BANS, max_size=5), ENDPOINTS, st.sampled_from(["atlas", "cms", "lhcb"]), st.floats(NOW - 50, NOW + 50))
def test_a_place_is_closed_exactly_while_a_ban_holds(bans: list[Ban], endpoint: str, vo: str, now: float):
    table = BanTable.of(bans)
    caps = table.caps(now)
    holding = [one for one in bans if storage_key(one.endpoint) == storage_key(endpoint) and is_active(one, now)]
    for kind in ("in", "out"):
        assert (Place(kind, endpoint) in caps) == any(one.vo is None for one in holding)
        assert (Place(f"vo-{kind}", endpoint, vo) in caps) == any(one.vo == vo for one in holding)
    refused = any(one.vo in {None, vo} and (one.cancel or not one.allow_submit) for one in holding)
    assert (table.refuses(endpoint, "x://nowhere", vo, now) is not None) == refused
    assert (table.refuses("x://nowhere", endpoint, vo, now) is not None) == refused


@given(st.lists(BANS, max_size=5))
def test_nothing_changes_before_the_next_change(bans: list[Ban]):
    table = BanTable.of(bans)
    at = table.next_change_at(NOW)
    until = NOW + 200 if at is None else at
    assert table.caps(NOW) == table.caps(until - 1e-6) or until - NOW < 1e-5
    if at is not None:
        assert table.active(at) != table.active(NOW)


@given(ENDPOINTS)
def test_spellings_are_one_storage(endpoint: str):
    assert endpoint in spellings(endpoint)
    assert {storage_key(one) for one in spellings(endpoint)} == {storage_key(endpoint)}
