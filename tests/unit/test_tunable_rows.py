"""What is set over what the settings say: which row holds, and for which transfer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.api import Capabilities
from transfer_engine.config import EndpointLimits, Limits, LinkLimits, LinkShares, Shares
from transfer_engine.errors import Invalid
from transfer_engine.limits import LimitTable, covering
from transfer_engine.model import Assignment, FileId, JobId, JobOptions, JobRequest, Queue, QueueId, Transfer
from transfer_engine.places import Link, Place
from transfer_engine.shares import ShareTable
from transfer_engine.states import JobType
from transfer_engine.tunable_merge import Defaults, capabilities_of, grants_of, limits_of, shares_of
from transfer_engine.tunable_rows import (
    SPEED,
    ActivityRow,
    AuthorizeRow,
    GlobalRow,
    LinkRow,
    Rows,
    SeRow,
    ShareRow,
    dump,
    row_of,
)

A, B, C = "https://a", "https://b", "https://c"
ENDS = st.sampled_from(["*", A, B, C])
MODES = ("pull", "push", "stream")


def link(source: str, destination: str, most: int, **more) -> LinkRow:
    return LinkRow(
        symbolicname=f"{source}-{destination}", source=source, destination=destination, max_active=most, **more
    )


def links(*rows: LinkRow) -> Rows:
    return Rows(links={row.symbolicname: row for row in rows})


# Limits

BASE = LimitTable.of(
    Limits(
        endpoint_inbound=60,
        endpoints={A: EndpointLimits(inbound=10, outbound_bytes_s=1e9)},
        links=(LinkLimits(source=A, destination=B, active=4, active_min=2),),
    )
)


def test_nothing_set_changes_nothing():
    assert limits_of(BASE, Rows()) == BASE
    shares = ShareTable.of(Shares(vos={"x": 2}))
    assert shares_of(shares, Rows()) == shares
    assert capabilities_of(Rows()) == {}


def test_what_is_set_of_a_storage_holds_over_the_settings():
    rows = Rows(
        se={
            A: SeRow(inbound_max_active=3, inbound_max_throughput=2.0, outbound_max_throughput=0.0),
            "*": SeRow(outbound_max_active=7, inbound_max_active=0),
        }
    )
    found = limits_of(BASE, rows)
    assert found.of_inbound(A) == 3
    assert (found.of_inbound(B), found.of_outbound(B)) == (60, 7)
    assert found.band(Place("in", A)) == 2 * SPEED
    assert found.band(Place("out", A)) == 1e9


def test_a_speed_of_all_storages_is_each_ones_own():
    found = limits_of(BASE, Rows(se={"*": SeRow(inbound_max_throughput=1.0), A: SeRow(inbound_max_throughput=9.0)}))
    assert found.band(Place("in", B)) == SPEED
    assert found.band(Place("in", A)) == 9 * SPEED
    assert found.band(Place("link", A, B)) is None


@given(st.dictionaries(st.tuples(ENDS, ENDS), st.integers(1, 100)), st.sampled_from([A, B, C]), st.sampled_from([A, B]))
def test_the_most_specific_row_of_a_link_holds(rows: dict[tuple[str, str], int], source: str, destination: str):
    found = limits_of(BASE, links(*(link(*ends, most) for ends, most in rows.items())))
    known = {(A, B): 4, **rows}
    for ends in ((source, destination), (source, "*"), ("*", destination), ("*", "*")):
        if ends in known:
            assert found.of_link(Link(source, destination)) == known[ends]
            break
    else:
        assert found.of_link(Link(source, destination)) == 60


@given(st.sets(st.tuples(ENDS, ENDS)), st.tuples(ENDS, ENDS))
def test_a_row_that_covers_a_link_has_its_ends_or_any(rows: set[tuple[str, str]], ends: tuple[str, str]):
    table = {Link(*row) for row in rows}
    found = covering(table, Link(*ends))
    if found is None:
        assert not any(
            {row[0], row[1]} <= {"*", *ends} and row[0] in {"*", ends[0]} and row[1] in {"*", ends[1]} for row in rows
        )
    else:
        assert found in table
        assert found.source_se in {"*", ends[0]}
        assert found.dest_se in {"*", ends[1]}


def test_the_least_of_a_link_is_looked_up_the_same_way():
    found = limits_of(BASE, links(link("*", B, 0, min_active=5), link(C, B, 9, min_active=6)))
    assert [found.least_of(Place("link", source, B)) for source in (A, B, C)] == [2, 5, 6]
    assert found.of_link(Link(B, B)) == 60
    assert found.least_of(Place("in", A)) == 1


# Shares


def test_shares_of_a_link_take_the_place_of_the_settings_ones():
    base = ShareTable.of(Shares(vos={"x": 5}, links=(LinkShares(source=A, destination=B, vos={"x": 1, "y": 3}),)))
    rows = Rows(
        shares=(
            ShareRow(source=A, destination=B, vo="x", share=30.0),
            ShareRow(source=A, destination=B, vo="z", share=10.0),
            ShareRow(source="*", destination=C, vo="x", share=1.0),
        )
    )
    found = shares_of(base, rows)
    group = found.group(A, B)
    assert found.of_vo("x", group) / found.of_vo("z", group) == 3
    assert found.of_vo("y", group) == base.default
    assert found.group(B, C) == ("*", C)
    assert found.of_vo("x", found.group(C, A)) == 5


def test_activity_shares_count_while_they_are_active():
    base = ShareTable.of(Shares(activities={"x": {"prod": 2}}))
    on = ActivityRow(vo="x", share={"user": 3.0, "Default": 0.5})
    found = shares_of(base, Rows(activities={"x": on}))
    assert [found.of_activity("x", name) for name in ("user", "prod", "default")] == [3, 0.5, 0.5]
    off = shares_of(base, Rows(activities={"x": on.model_copy(update={"active": False})}))
    assert [off.of_activity("x", name) for name in ("user", "prod")] == [1, 2]


# Defaults


def order(vo: str = "x", size_bytes: int | None = None, source: str = A, **options) -> Assignment:
    return Assignment(
        file_id=FileId(1),
        epoch=1,
        job_id=JobId("j"),
        job_ref=1,
        job_type=JobType.NORMAL,
        file_index=0,
        queue=Queue(QueueId(1), source, B, vo, "default", 0),
        priority=3,
        source_url=f"{source}/f",
        dest_url=f"{B}/f",
        size_bytes=size_bytes,
        checksum=None,
        options=JobOptions(**options),
        scitag=None,
        n_failed=0,
        follows=False,
        dest_owned=False,
        copying=False,
        submitted_at=0.0,
        claimed_at=0.0,
    )


def defaults(*rows: GlobalRow, of_links: tuple[LinkRow, ...] = ()) -> Defaults:
    named = {row.symbolicname: row for row in of_links}
    return Defaults(Rows(globals={row.vo_name: row for row in rows}, links=named), MODES)


def test_without_rows_an_order_is_the_same_object():
    one = order()
    assert defaults().fill(one) is one
    assert defaults(GlobalRow(show_user_dn=True)).fill(one) is one
    assert defaults(of_links=(link(C, B, 5, nostreams=4),)).fill(one) is one


def test_a_vos_row_holds_over_that_of_all_and_the_job_over_both():
    found = defaults(GlobalRow(retry=1, global_timeout=60), GlobalRow(vo_name="x", retry=5))
    assert found.fill(order()).options == JobOptions(retries_max=5, timeout_s=60.0)
    assert found.fill(order("y")).options == JobOptions(retries_max=1, timeout_s=60.0)
    assert found.fill(order(retries_max=0, timeout_s=9.0)).options == JobOptions(retries_max=0, timeout_s=9.0)


@pytest.mark.parametrize(
    ("size", "timeout_s"),
    [(None, None), (0, 600.0), (1, 601.0), (10 * 1024 * 1024, 605.0), (10 * 1024 * 1024 + 1, 606.0)],
)
def test_the_time_for_a_size_is_ftss(size: int | None, timeout_s: float | None):
    assert defaults(GlobalRow(sec_per_mb=0.5)).fill(order(size_bytes=size)).options.timeout_s == timeout_s


def test_no_bytes_go_through_this_process_where_that_is_not_wished():
    found = defaults(GlobalRow(no_streaming=True))
    assert found.fill(order()).options.modes == ("pull", "push")
    assert found.fill(order(modes=("stream", "pull"))).options.modes == ("pull",)
    assert found.fill(order(modes=("stream",))).options.modes == ("pull", "push")
    assert found.fill(order(modes=("push",))).options.modes == ("push",)


def test_streams_of_a_link():
    found = defaults(of_links=(link("*", "*", 5, nostreams=2), link(A, "*", 5, nostreams=8), link(A, B, 5)))
    assert found.fill(order()).options.n_streams == 8
    assert found.fill(order(source=C)).options.n_streams == 2
    assert found.fill(order(n_streams=3)).options.n_streams == 3


def test_a_job_waits_no_longer_than_its_vo_lets_it():
    job = JobRequest(transfers=(Transfer.of(f"{A}/f", f"{B}/f"),), vo="x")
    found = defaults(GlobalRow(max_time_queue=2), GlobalRow(vo_name="y", max_time_queue=0))
    assert found.queued(job, 1000.0).options.deadline_at == 1000.0 + 7200
    assert found.queued(replace(job, vo="y"), 1000.0) == replace(job, vo="y")
    own = replace(job, options=JobOptions(deadline_at=5.0))
    assert found.queued(own, 1000.0) == own
    assert defaults().queued(job, 1000.0) is job


# Rows


def test_capabilities_and_grants():
    rows = Rows(
        se={A: SeRow(tpc_support="PULL"), B: SeRow(udt=True), "*": SeRow(tpc_support="NONE")},
        authorize=(
            AuthorizeRow(dn="me", operation="config"),
            AuthorizeRow(dn="me", operation="transfer"),
            AuthorizeRow(dn="her", operation="admin"),
        ),
    )
    assert capabilities_of(rows) == {A: Capabilities(pull=True, push=False), "*": Capabilities(pull=False, push=False)}
    assert [grant.role for grant in grants_of(rows, "me")] == ["operator"]
    assert [grant.role for grant in grants_of(rows, "her")] == ["admin"]
    assert grants_of(rows, "nobody") == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KINDS = (SeRow, LinkRow, ShareRow, ActivityRow, GlobalRow, AuthorizeRow)


@given(st.sampled_from(KINDS), st.data())
def test_whatever_is_sent_is_taken_or_refused_by_name(kind, data):
    names = st.sampled_from([*kind.model_fields, "else"])
    values = data.draw(st.dictionaries(names, JSON, max_size=6))
    refusal = None
    try:
        row = row_of(kind, values)
    except Invalid as error:
        refusal = error
    if refusal is not None:
        assert refusal.field is not None or "lower" in refusal.message
        return
    assert "else" not in values
    assert kind.model_validate(row.model_dump()) == row
    assert dump({"x": row})
