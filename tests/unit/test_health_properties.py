"""What holds of health whatever happens, in whatever order."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import errors
from protocols.errors import Phase, Scope, TransferError
from transfer_engine.config import BreakerSettings
from transfer_engine.health import Health
from transfer_engine.model import Failure
from transfer_engine.places import Link, Place
from transfer_engine.reasons import Why

SETTINGS = BreakerSettings(failures=2, denied=3, chance=0.01)
"""Quick to close, so that short histories reach every state."""
LINKS = tuple(Link(f"https://{a}", f"https://{b}") for a in "abc" for b in "abc")
VOS = ("cms", "atlas")
N_PLACES = 3 * 2 + len(LINKS) + 3 * 2 * len(VOS)

ONE_FILE: tuple[type[TransferError], ...] = (
    errors.Missing, errors.ParentMissing, errors.AlreadyExists, errors.Refused, errors.ChecksumMismatch,
    errors.SourceCorrupt, errors.SizeMismatch, errors.ChecksumUnavailable, errors.Unsupported,
)  # fmt: skip
ALL: tuple[type[TransferError], ...] = (
    *ONE_FILE, errors.Unavailable, errors.Overloaded, errors.TimedOut, errors.Stalled, errors.CopyFailed,
    errors.OutcomeUnknown, errors.BadServer, errors.NoSpace, errors.Denied,
)  # fmt: skip


def failures(kinds: tuple[type[TransferError], ...]) -> st.SearchStrategy[Failure]:
    return st.builds(
        lambda kind, scope, phase, wait: Failure.of(kind("it failed", scope=scope, phase=phase, retry_after_s=wait)),
        st.sampled_from(kinds),
        st.sampled_from(Scope),
        st.sampled_from(Phase),
        st.none() | st.floats(0, 2000),
    )


@dataclass(frozen=True)
class Begin:
    link: Link
    vo: str


@dataclass(frozen=True)
class End:
    which: int
    failure: Failure | None
    how: str = "observe"


@dataclass(frozen=True)
class Wait:
    seconds: float


def steps(kinds: tuple[type[TransferError], ...] = ALL) -> st.SearchStrategy[list[Begin | End | Wait]]:
    return st.lists(
        st.one_of(
            st.builds(Begin, st.sampled_from(LINKS[:4]), st.sampled_from(VOS)),
            st.builds(
                End,
                st.integers(0, 50),
                st.none() | failures(kinds),
                st.sampled_from(["observe", "observe", "observe", "lost", "released", "moving"]),
            ),
            st.builds(Wait, st.floats(0, 120) | st.floats(0, 5000)),
        ),
        max_size=80,
    )


@dataclass
class World:
    """An engine that obeys the caps, and what it has under way."""

    health: Health
    now: float = 1000.0
    running: list[tuple[Link, str, float]] = field(default_factory=list)
    log: list[object] = field(default_factory=list)

    def places(self, link: Link, vo: str) -> tuple[Place, ...]:
        s, d = link.source_se, link.dest_se
        return Place("out", s), Place("in", d), Place("link", s, d), Place("vo-out", s, vo), Place("vo-in", d, vo)

    def n_active(self, place: Place) -> int:
        return sum(place in self.places(link, vo) for link, vo, _ in self.running)

    def may(self, link: Link, vo: str) -> bool:
        caps = ((place, self.health.cap(place)) for place in self.places(link, vo))
        return all(cap is None or self.n_active(place) < cap.limit for place, cap in caps)

    def do(self, step: Begin | End | Wait) -> None:
        before = {place: cap.limit for place, cap in self.health.caps().items()}
        changed: frozenset[Place] = frozenset()
        match step:
            case Begin(link, vo):
                if self.may(link, vo):
                    self.running.append((link, vo, self.now))
                    self.health.started(link, vo, self.now)
            case End(which, failure, how):
                changed = self.end(which, failure, how)
            case Wait(seconds):
                self.now += seconds
                changed = self.health.tick(self.now)
        after = {place: cap.limit for place, cap in self.health.caps().items()}
        # It also tells of places whose cap ends at another time.
        assert changed >= {place for place in before | after if before.get(place) != after.get(place)}
        assert changed <= set(before | after)
        self.log.append((sorted(after.items()), self.health.next_change_at()))

    def end(self, which: int, failure: Failure | None, how: str) -> frozenset[Place]:
        if not self.running:
            return frozenset()
        index = which % len(self.running)
        link, vo, began_at = self.running[index]
        if how == "moving":
            return self.health.moving(link, vo, self.now, began_at=began_at)
        if how == "lost" and failure is not None:
            return self.health.lost(link, vo, failure, self.now, began_at=began_at)
        del self.running[index]
        if how == "released":
            return self.health.released(link, vo, self.now, began_at=began_at)
        return self.health.observe(link, vo, failure, self.now, began_at=began_at)


def world(seed: int = 0, rules: BreakerSettings = SETTINGS) -> World:
    return World(Health(rules, random.Random(seed)))


@given(steps())
@settings(deadline=None, max_examples=60)
def test_caps_are_sound(history: list[Begin | End | Wait]) -> None:
    it = world()
    for step in history:
        it.do(step)
        for place, cap in it.health.caps().items():
            assert cap.limit >= 0
            assert cap.reason.limit is not None
            assert cap.reason.code in {Why.BREAKER, Why.PAUSE}
            assert cap.reason.used == it.n_active(place)
            assert cap.reason.text
            until = cap.reason.until
            if cap.limit == 0:
                assert until is not None
            if until is not None:
                change = it.health.next_change_at()
                assert change is not None
                assert it.now < change <= until or isinstance(step, End)
        assert all(row.text for row in it.health.report())


@given(steps(), st.integers(0, 100))
@settings(deadline=None, max_examples=50)
def test_the_same_history_gives_the_same_caps(history: list[Begin | End | Wait], seed: int) -> None:
    one, other = world(seed), world(seed)
    for step in history:
        one.do(step)
        other.do(step)
    assert one.log == other.log
    assert one.health.dump() == other.health.dump()
    assert one.health.report() == other.health.report()


@given(steps())
@settings(deadline=None, max_examples=50)
def test_nothing_stays_closed_once_everything_succeeds(history: list[Begin | End | Wait]) -> None:
    it = world()
    for step in history:
        it.do(step)
    while it.running:
        it.do(End(0, None))
    in_trouble = set(it.health.caps())
    for _ in range(400):
        if not it.health.caps():
            break
        for link in LINKS:
            for vo in VOS:
                it.do(Begin(link, vo))
        assert it.running or it.health.next_change_at() is not None, in_trouble
        while it.running:
            it.do(End(0, None))
        change = it.health.next_change_at()
        if change is not None:
            it.do(Wait(max(0.0, change - it.now)))
    assert not it.health.caps(), in_trouble


@given(steps(ONE_FILE))
@settings(deadline=None, max_examples=50)
def test_errors_of_single_files_close_nothing(history: list[Begin | End | Wait]) -> None:
    it = world(rules=BreakerSettings(failures=1, denied=1, chance=0.99))
    for step in history:
        it.do(step)
        assert not it.health.caps()


@given(steps())
@settings(deadline=None, max_examples=50)
def test_memory_is_bounded_by_places(history: list[Begin | End | Wait]) -> None:
    it = world()
    for step in history * 3:
        it.do(step)
    health = it.health
    assert len(health._spots.by_place) <= N_PLACES
    assert len(health._spots._routes) <= len(LINKS) * len(VOS)
    assert len(health._alarms._at) <= N_PLACES
    assert len(health._alarms._heap) <= 2 * N_PLACES + 65
    while it.running:
        it.do(End(0, None))
    assert not any(spot.n_active for spot in health._spots.by_place.values())


@given(steps())
@settings(deadline=None, max_examples=50)
def test_a_restart_closes_what_was_closed(history: list[Begin | End | Wait]) -> None:
    it = world()
    for step in history:
        it.do(step)
    after = Health(SETTINGS, random.Random(0))
    after.load(json.loads(json.dumps(it.health.dump())), it.now)
    for row in it.health.report():
        if row.state == "open":
            cap = after.cap(row.place)
            assert cap is not None
            assert cap.limit == 0
            assert cap.reason.until == row.until


@given(st.integers(0, 2**32), st.floats(0.0, 0.6), st.sampled_from([errors.CopyFailed, errors.Stalled]))
@settings(deadline=None, max_examples=8)
def test_random_errors_cost_next_to_nothing(seed: int, chance: float, kind: type[TransferError]) -> None:
    it, rng, waited = world(seed, BreakerSettings()), random.Random(seed), 0.0
    for _ in range(800):
        if not it.may(LINKS[1], "cms"):
            change = it.health.next_change_at()
            assert change is not None
            waited += change - it.now
            it.do(Wait(change - it.now))
        it.do(Begin(LINKS[1], "cms"))
        it.do(Wait(1.0))
        it.do(End(0, Failure.of(kind("chance")) if rng.random() < chance else None))
    assert waited <= 60


def test_a_storage_that_never_comes_back_charges_its_probes() -> None:
    it = world(rules=BreakerSettings())
    dead = Failure.of(errors.Unavailable("no route", scope=Scope.DESTINATION, phase=Phase.PREPARATION))
    link, charged = LINKS[1], 0
    for _ in range(100):
        while not it.may(link, "cms"):
            change = it.health.next_change_at()
            assert change is not None
            it.do(Wait(change - it.now))
        it.do(Begin(link, "cms"))
        began_at = it.now
        it.do(Wait(0.5))
        it.do(End(0, dead))
        charged += not it.health.excuses(link, "cms", dead, began_at=began_at)
    assert charged >= 99
