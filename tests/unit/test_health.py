"""Circuit breakers: when a place is closed, how it is tried, how it comes back, what operators read."""

from __future__ import annotations

import errno
import json
import random

import pytest

from protocols import errors
from protocols.errors import Phase, Scope, TransferError
from transfer_engine.config import BreakerSettings
from transfer_engine.health import Health
from transfer_engine.health.circuit import JITTER, REOPEN_PART
from transfer_engine.model import Failure
from transfer_engine.places import Link, Place
from transfer_engine.reasons import Why

SETTINGS = BreakerSettings()
NOON = 1_750_000_000.0
A, B, C, D = "https://a", "https://b", "https://c", "https://d"
AB, AC, BC, DC = Link(A, B), Link(A, C), Link(B, C), Link(D, C)


def of(error: TransferError) -> Failure:
    return Failure.of(error)


def silent(scope: Scope = Scope.SOURCE) -> Failure:
    return of(errors.TimedOut("connection timed out", scope=scope, phase=Phase.PREPARATION))


COPY = of(errors.CopyFailed("the copy failed"))
FULL = of(errors.NoSpace("no space left on device", scope=Scope.DESTINATION))


class Bench:
    """Attempts one after the other, and a clock."""

    def __init__(self, settings: BreakerSettings = SETTINGS, seed: int = 0) -> None:
        self.health = Health(settings, random.Random(seed))
        self.now = NOON

    def one(self, link: Link, failure: Failure | None = None, *, vo: str = "cms", took_s: float = 1.0) -> None:
        began_at = self.now
        self.health.started(link, vo, began_at)
        self.now += took_s
        self.health.observe(link, vo, failure, self.now, began_at=began_at)

    def many(self, n: int, link: Link, failure: Failure | None = None, *, vo: str = "cms") -> None:
        for _ in range(n):
            self.one(link, failure, vo=vo)

    def limit(self, kind: str, name: str, other: str = "") -> int | None:
        cap = self.health.cap(Place(kind, name, other))
        return None if cap is None else cap.limit

    def until(self, kind: str, name: str, other: str = "") -> float:
        cap = self.health.cap(Place(kind, name, other))
        assert cap is not None
        assert cap.reason.until is not None
        return cap.reason.until

    def text(self, kind: str, name: str, other: str = "") -> str:
        cap = self.health.cap(Place(kind, name, other))
        assert cap is not None
        return cap.reason.text

    def pass_to_next(self) -> None:
        at = self.health.next_change_at()
        assert at is not None
        self.now = max(self.now, at)
        assert self.health.tick(self.now)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# Closing


def test_a_silent_storage_is_closed_in_both_directions_after_a_few_failures(bench: Bench) -> None:
    bench.many(4, AB, silent())
    assert not bench.health.caps()
    bench.one(AB, silent())
    assert bench.limit("out", A) == bench.limit("in", A) == 0
    assert bench.limit("in", B) is None
    assert bench.limit("out", B) is None


def test_a_success_in_between_keeps_it_open(bench: Bench) -> None:
    for _ in range(20):
        bench.many(4, AB, silent())
        bench.one(AB)
    assert not bench.health.caps()


@pytest.mark.parametrize("chance", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("error", [COPY, of(errors.Unavailable("not now", phase=Phase.PREPARATION)), silent()])
def test_luck_closes_hardly_anything(chance: float, error: Failure) -> None:
    """Of 3000 attempts at a storage that loses a part of them, next to none meets a closed place."""
    bench, rng, closed = Bench(), random.Random(7), 0
    for _ in range(3000):
        bench.one(AB, error if rng.random() < chance else None)
        if bench.health.caps():
            closed += 1
        at = bench.health.next_change_at()
        if at is not None:
            bench.now = max(bench.now, at)
            bench.health.tick(bench.now)
    assert closed <= 60


def test_a_copy_that_fails_for_ever_closes_the_link_alone(bench: Bench) -> None:
    bench.many(30, AB)
    bench.many(7, AB, COPY)
    assert bench.limit("link", A, B) == 0
    assert bench.limit("out", A) is None
    assert bench.limit("in", B) is None


def test_several_links_of_an_endpoint_close_the_endpoint(bench: Bench) -> None:
    for link in (AC, BC, DC):
        bench.many(5, link)
    for _ in range(4):
        for link in (AC, BC, DC):
            bench.one(link, COPY)
    assert bench.limit("in", C) == 0
    assert bench.limit("out", A) is None


def test_one_links_trouble_is_not_its_storages_while_others_work(bench: Bench) -> None:
    bench.many(5, BC)
    bench.many(6, AC, silent(Scope.DESTINATION))
    assert bench.limit("link", A, C) == 0
    assert bench.limit("in", C) is None


def test_a_full_destination_is_closed_at_once(bench: Bench) -> None:
    bench.one(AB, FULL)
    assert bench.limit("in", B) == 0
    assert bench.limit("out", B) is None
    assert bench.limit("out", A) is None
    assert 50 <= bench.until("in", B) - bench.now <= 70


def test_denied_everything_closes_for_that_vo_only(bench: Bench) -> None:
    denied = of(errors.Denied("permission denied", scope=Scope.DESTINATION, phase=Phase.PREPARATION))
    bench.many(19, AB, denied)
    assert not bench.health.caps()
    bench.one(AB, denied)
    assert bench.limit("vo-in", B, "cms") == 0
    assert bench.limit("vo-in", B, "atlas") is None
    assert "check the credentials" in bench.text("vo-in", B, "cms")
    bench.pass_to_next()
    bench.one(AB)
    assert bench.limit("vo-in", B, "cms") == 2


def test_an_agents_failure_blames_nobody(bench: Bench) -> None:
    bench.many(200, AB, of(errors.CopyFailed("the engine failed", scope=Scope.AGENT)))
    assert not bench.health.report()


def test_a_file_that_is_being_written_does_not_make_its_storage_unreachable(bench: Bench) -> None:
    locked = errors.Unavailable("HTTP 423", scope=Scope.SOURCE, phase=Phase.PREPARATION, errno=errno.EBUSY)
    bench.many(10, AB, of(locked))
    assert not bench.health.caps()


# Trying again


def test_one_at_a_time_then_twice_as_many_with_each_success(bench: Bench) -> None:
    bench.many(5, AB, silent())
    bench.pass_to_next()
    limits = []
    while (limit := bench.limit("out", A)) is not None:
        limits.append(limit)
        bench.one(AB)
    assert limits == [1, 2, 4, 8, 16, 32, 64]
    assert bench.limit("in", A) is None


def test_what_was_under_way_does_not_keep_the_probe_out(bench: Bench) -> None:
    for _ in range(20):
        bench.health.started(AB, "cms", bench.now)
    early = bench.now
    for _ in range(5):
        bench.now += 1
        bench.health.observe(AB, "cms", silent(), bench.now, began_at=early)
    bench.pass_to_next()
    assert bench.limit("out", A) == 16
    bench.health.started(AB, "cms", bench.now)
    assert bench.limit("out", A) == 16
    bench.health.observe(AB, "cms", silent(), bench.now, began_at=early)
    assert bench.limit("out", A) == 15


def test_late_failures_of_the_old_do_not_close_it_again(bench: Bench) -> None:
    early = bench.now
    for _ in range(30):
        bench.health.started(AB, "cms", early)
    for _ in range(5):
        bench.health.observe(AB, "cms", silent(), bench.now, began_at=early)
    bench.pass_to_next()
    bench.many(7, AB)
    for _ in range(25):
        bench.health.observe(AB, "cms", silent(), bench.now, began_at=early)
    assert not bench.health.caps()


@pytest.mark.parametrize("outage_s", [30, 60, 180, 600, 3600])
@pytest.mark.parametrize("probe_s", [0.1, 30.0])
def test_a_return_is_noticed_within_a_third_of_the_absence(outage_s: float, probe_s: float) -> None:
    bench = Bench()
    back_at = NOON + outage_s
    bench.many(5, AB, silent())
    n_probes = 0
    while True:
        bench.pass_to_next()
        n_probes += 1
        if bench.now >= back_at:
            break
        bench.one(AB, silent(), took_s=probe_s)
    assert bench.now - back_at <= max(17.0, outage_s * 0.4) + probe_s
    assert bench.now - back_at <= 990
    assert n_probes <= 30


def test_waits_for_somebody_to_act_grow_with_what_they_took_so_far(bench: Bench) -> None:
    began_at = bench.now
    bench.one(AB, FULL)
    waits = []
    for _ in range(20):
        wait, usual = bench.until("in", B) - bench.now, max(60.0, (bench.now - began_at) / REOPEN_PART)
        assert wait == pytest.approx(min(usual, 900.0), rel=JITTER + 0.01)
        waits.append(wait)
        bench.pass_to_next()
        bench.one(AB, FULL, took_s=0.0)
    assert max(waits) == 900


def test_a_file_that_is_missing_is_no_verdict_but_a_sign_of_life(bench: Bench) -> None:
    bench.many(5, AB, silent())
    bench.pass_to_next()
    bench.one(AB, of(errors.Missing("no such file", scope=Scope.SOURCE, phase=Phase.PREPARATION)))
    assert bench.limit("out", A) == 2


def test_another_link_is_tried_after_one_has_failed(bench: Bench) -> None:
    """A storage must not stay closed because the one link that is tried is dead itself."""
    for link in (AC, BC, DC):
        bench.many(20, link)
    for _ in range(4):
        for link in (AC, BC, DC):
            bench.one(link, COPY)
    bench.pass_to_next()
    bench.one(AC, COPY)
    bench.pass_to_next()
    assert bench.limit("in", C) == 1
    assert bench.limit("link", A, C) == 0
    bench.one(BC)
    assert bench.limit("in", C) == 2
    assert bench.limit("link", A, C) == 1


def test_bytes_that_move_are_enough_to_widen(bench: Bench) -> None:
    bench.many(5, AB, silent())
    bench.pass_to_next()
    bench.health.started(AB, "cms", bench.now)
    assert Place("out", A) in bench.health.moving(AB, "cms", bench.now + 1, began_at=bench.now)
    assert bench.limit("out", A) == 2


def test_a_cancelled_try_makes_room_for_the_next(bench: Bench) -> None:
    bench.many(5, AB, silent())
    bench.pass_to_next()
    bench.health.started(AB, "cms", bench.now)
    assert "is being tried" in bench.text("out", A)
    bench.health.released(AB, "cms", bench.now, began_at=bench.now)
    assert bench.limit("out", A) == 1
    assert "tried alone" in bench.text("out", A)


# Charging


def test_what_was_under_way_is_excused_and_tries_are_charged(bench: Bench) -> None:
    early = bench.now
    excused = []
    for _ in range(10):
        bench.health.started(AB, "cms", early)
    bench.now += 30
    for _ in range(10):
        bench.health.observe(AB, "cms", silent(), bench.now, began_at=early)
        excused.append(bench.health.excuses(AB, "cms", silent(), began_at=early))
    assert excused == [False] * 4 + [True] * 6
    assert not bench.health.excuses(AB, "cms", COPY, began_at=early)
    for _ in range(5):
        bench.pass_to_next()
        began_at = bench.now
        bench.one(AB, silent())
        assert not bench.health.excuses(AB, "cms", silent(), began_at=began_at)


def test_a_try_that_closes_its_link_as_well_is_charged(bench: Bench) -> None:
    for link in (AC, BC, DC):
        bench.many(20, link)
    for _ in range(4):
        for link in (AC, BC, DC):
            bench.one(link, COPY)
    bench.pass_to_next()
    began_at = bench.now
    bench.one(AC, COPY)
    assert bench.limit("link", A, C) == 0
    assert not bench.health.excuses(AC, "cms", COPY, began_at=began_at)


# Words


def test_what_operators_read(bench: Bench) -> None:
    bench.many(5, AB, silent())
    cap = bench.health.cap(Place("out", A))
    assert cap is not None
    assert cap.reason.text == (
        "https://a answers nothing since 15:06:41 UTC (5 failures, the last: connection timed out);"
        " one transfer is tried at 15:07:00 UTC"
    )
    assert (cap.reason.code, cap.reason.subject, cap.reason.limit) == (Why.BREAKER, A, 0)
    row = next(row for row in bench.health.report() if row.place == Place("out", A))
    assert (row.state, row.failures, row.last, row.limit) == ("open", {"TIMED_OUT": 5}, "connection timed out", 0)
    bench.pass_to_next()
    bench.one(AB)
    assert bench.text("out", A).endswith("transfers are raised step by step, 2 now")


def test_what_fails_and_is_not_closed_is_seen_coming(bench: Bench) -> None:
    bench.many(2, AB, silent())
    assert {row.state for row in bench.health.report()} == {"suspect"}
    assert all("nothing has succeeded" in row.text for row in bench.health.report())


def test_a_restart_remembers(bench: Bench) -> None:
    bench.many(5, AB, silent())
    bench.one(BC, FULL)
    data = json.loads(json.dumps(bench.health.dump()))
    after = Health(SETTINGS, random.Random(0))
    after.load(data, bench.now + 1)
    assert {place: cap.limit for place, cap in after.caps().items()} == {
        place: cap.limit for place, cap in bench.health.caps().items()
    }
    assert after.next_change_at() == bench.health.next_change_at()
    assert after.tick(bench.now + 1000)
    assert {cap.limit for cap in after.caps().values()} == {1}
    assert after.dump()["circuits"]


@pytest.mark.parametrize("data", [{}, {"version": 1}, {"version": 1, "circuits": [{}], "pauses": []}])
def test_what_is_no_dump_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="health"):
        Health(SETTINGS, random.Random(0)).load(data, NOON)
