"""When a destination counts as filled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.limits import LimitTable
from transfer_engine.metering import Sample
from transfer_engine.model import Queue, QueueId
from transfer_engine.places import Place
from transfer_engine.reasons import Why
from transfer_engine.saturation import SLOWED, Saturation
from transfer_engine.schedule import Scheduler
from transfer_engine.shares import ShareTable

PIPE = 100e6


def sample(n: int, each: float, *, span_s: float = 5.0, n_reports: int | None = None, slot_s: float | None = None):
    slot_s = n * span_s if slot_s is None else slot_s
    reports = 2 * n if n_reports is None else n_reports
    return Sample(
        place=Place("in", "d"), span_s=span_s, active=float(n), peak=n, moved_bytes=each * slot_s, slot_s=slot_s,
        n_reports=reports, size_bytes=1e8,
    )  # fmt: skip


def observed(filling: Saturation, rows: list[Sample], begin: float = 0.0) -> bool:
    for i, row in enumerate(rows):
        filling.observe(row, begin + 5.0 * i)
    return filling.filled


def test_a_full_pipe_is_filled_and_copies_that_are_limited_by_themselves_fill_nothing():
    assert observed(Saturation(), [sample(n, min(40e6, PIPE / n)) for n in (3, 4, 8, 16)])
    assert not observed(Saturation(), [sample(n, 4e6) for n in (3, 4, 8, 16)])


def test_a_few_copies_that_are_as_fast_as_ever_fill_nothing():
    filling = Saturation()
    assert observed(filling, [sample(3, 30e6), sample(16, PIPE / 16)])
    assert not observed(filling, [sample(3, 30e6), sample(3, 30e6)], 60.0)


def test_when_it_moves_less_than_it_can_more_may_come():
    """Small files spend their time on overheads: each is slow, and all together are as well."""
    filling = Saturation()
    assert observed(filling, [sample(3, 30e6), sample(16, PIPE / 16)])
    assert not observed(filling, [sample(16, 1e6)], 60.0)


def test_some_reports_of_many_copies_decide_nothing():
    """The few that report are not like the others: they seem to fill more than there is."""
    filling = Saturation()
    observed(filling, [sample(3, 30e6), sample(50, PIPE / 50)])
    filling.observe(sample(50, 4 * PIPE / 50, n_reports=12, slot_s=5.0), 60.0)
    assert filling.filled
    assert filling.most_bytes_s <= PIPE


def test_where_the_number_grows_what_earlier_copies_had_is_not_taken_for_the_most():
    filling = Saturation()
    grown = Sample(
        place=Place("in", "d"), span_s=5.0, active=40.0, peak=60, moved_bytes=5 * PIPE, slot_s=100.0, n_reports=60,
        size_bytes=1e8,
    )  # fmt: skip
    filling.observe(grown, 0.0)
    assert filling.most_bytes_s == PIPE


def test_what_was_long_ago_counts_less():
    filling = Saturation()
    observed(filling, [sample(3, 30e6), sample(16, PIPE / 16)])
    assert not observed(filling, [sample(16, 0.3 * PIPE / 16)], 60.0)
    assert observed(filling, [sample(16, 0.3 * PIPE / 16)], 60.0 + 1.2 * 3600)


@given(st.lists(st.tuples(st.integers(1, 60), st.floats(1e3, 1e9), st.integers(0, 200)), max_size=40))
def test_filled_means_about_the_most_and_slower_than_the_best(rows: list[tuple[int, float, int]]):
    filling, before = Saturation(), (0.0, 0.0)
    for i, (n, each, n_reports) in enumerate(rows):
        filling.observe(sample(n, each, n_reports=n_reports), 5.0 * i)
        most, best = filling.most_bytes_s, filling.best_bytes_s
        assert most <= 1.000001 * max((m * e for m, e, _ in rows[: i + 1]))
        assert best <= 1.000001 * max((e for _, e, _ in rows[: i + 1]))
        assert (most, best) == before or most >= 0.99 * before[0]
        before = (most, best)
    if filling.filled:
        assert min(e for _, e, _ in rows) <= SLOWED * filling.best_bytes_s


def test_who_waits_because_a_destination_is_filled_is_told():
    limits = LimitTable(
        inbound_default=4, outbound_default=100, link_default=100, node=100, inbound={}, outbound={}, links={}
    )
    scheduler = Scheduler(limits, ShareTable(vos={}, activities={}, default=1.0))
    one, other = (Queue(QueueId(n), "sim://a", "sim://b", vo, "x") for n, vo in enumerate(("one", "other")))
    scheduler.ready(other, 3, 1, 0, 0.0)
    assert len(scheduler.decide(0.0)) == 1
    scheduler.release(other, 3, 1.0)
    scheduler.ready(one, 3, 10, 0, 1.0)
    scheduler.fill("sim://b", filled=True)
    assert [start.n for start in scheduler.decide(1.0)] == [2], "half of the slots: the other was here a moment ago"
    (reason,) = scheduler.reasons(one, 3)
    assert reason.code is Why.SHARE
    assert "moves all that it can" in reason.text
