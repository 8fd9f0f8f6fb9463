"""Which limit holds where, as configured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.schedule_model import bandwidth, configured, places, queues_of
from transfer_engine.config import EndpointLimits, Limits, LinkLimits, VoLimits
from transfer_engine.limits import NODE, UNLIMITED, LimitTable
from transfer_engine.places import Link, Place

SES, VOS = ("s1", "s2", "d1", "d2"), ("a", "b")
QUEUES = queues_of(SES, SES, VOS)
slots = st.integers(0, 100)
maybe = st.none() | slots
rates = st.none() | st.floats(0.1, 1e12)
endpoints = st.builds(
    EndpointLimits, inbound=maybe, outbound=maybe, inbound_bytes_s=rates, outbound_bytes_s=rates
)  # fmt: skip
links = st.builds(
    LinkLimits, source=st.sampled_from(SES), destination=st.sampled_from(SES), active=maybe, bytes_s=rates
)
of_vos = st.builds(VoLimits, endpoint=st.sampled_from(SES), vo=st.sampled_from(VOS), inbound=maybe, outbound=maybe)
all_limits = st.builds(
    Limits,
    endpoint_inbound=slots,
    endpoint_outbound=slots,
    link=slots,
    node=slots,
    endpoints=st.dictionaries(st.sampled_from(SES), endpoints),
    links=st.lists(links, max_size=4, unique_by=lambda row: (row.source, row.destination)).map(tuple),
    vos=st.lists(of_vos, max_size=4, unique_by=lambda row: (row.endpoint, row.vo)).map(tuple),
)


@given(all_limits)
@settings(deadline=None)
def test_every_place_has_the_limit_that_the_settings_say(limits: Limits) -> None:
    table = LimitTable.of(limits)
    for queue in QUEUES:
        for place in places(queue):
            assert table.at(place) == configured(limits, place)
        assert table.of_inbound(queue.dest_se) == configured(limits, Place("in", queue.dest_se))
        assert table.of_outbound(queue.source_se) == configured(limits, Place("out", queue.source_se))
        link = Link(queue.source_se, queue.dest_se)
        assert table.of_link(link) == configured(limits, Place("link", *places(queue)[2][1:]))
    found = {place: bandwidth(limits, place) for queue in QUEUES for place in places(queue)}
    assert table.bands == {place: rate for place, rate in found.items() if rate is not None}


def test_names_are_compared_without_case_and_vos_are_not() -> None:
    table = LimitTable.of(
        Limits(
            endpoints={"HTTPS://A.Example": EndpointLimits(inbound=7, outbound_bytes_s=5.0)},
            links=(LinkLimits(source="https://A.example", destination="https://B.example", active=3),),
            vos=(VoLimits(endpoint="https://A.Example", vo="ATLAS", outbound=2),),
        )
    )
    assert table.at(Place("in", "https://a.example")) == 7
    assert table.at(Place("out", "https://a.example")) == 60
    assert table.at(Place("link", "https://a.example", "https://b.example")) == 3
    assert table.at(Place("vo-out", "https://a.example", "ATLAS")) == 2
    assert table.at(Place("vo-out", "https://a.example", "atlas")) == UNLIMITED
    assert table.bands == {Place("out", "https://a.example"): 5.0}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place("in", "d"), "into d"),
        (Place("out", "s"), "out of s"),
        (Place("link", "s", "d"), "s → d"),
        (Place("vo-in", "d", "vo"), "vo into d"),
        (Place("vo-out", "s", "vo"), "vo out of s"),
        (NODE, "this node"),
    ],
)
def test_places_have_names(place: Place, words: str) -> None:
    assert str(place) == words
