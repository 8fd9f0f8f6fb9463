"""A naive scheduler's world: everything is a list of transfers, every figure is counted anew.

`World` drives a real `Scheduler` and keeps, beside it, what a store and the storages would know.
`World.check` compares the two after any step; `World.settle` asks for decisions until there are none and
then looks for transfers that could run and were forgotten.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.unit.schedule_lists import check_lane, check_site
from transfer_engine import schedule
from transfer_engine.config import Limits, Shares
from transfer_engine.limits import NODE, UNLIMITED, LimitTable
from transfer_engine.model import Queue, QueueId
from transfer_engine.places import Cap, Place
from transfer_engine.reasons import Reason, Why
from transfer_engine.retuning import retune
from transfer_engine.rooms import Room
from transfer_engine.shares import ShareTable

Key = tuple[QueueId, int]
SPINS_MAX = 10_000


def queues_of(
    sources: Sequence[str],
    destinations: Sequence[str],
    vos: Sequence[str] = ("vo",),
    activities: Sequence[str] = ("x",),
) -> list[Queue]:
    """All combinations, numbered."""
    found = [(s, d, v, a) for s in sources for d in destinations for v in vos for a in activities]
    return [Queue(QueueId(n), *names) for n, names in enumerate(found)]


def places(queue: Queue) -> tuple[Place, ...]:
    """Where one transfer of a queue takes a slot."""
    return (
        Place("in", queue.dest_se),
        Place("out", queue.source_se),
        Place("link", queue.source_se, queue.dest_se),
        Place("vo-in", queue.dest_se, queue.vo),
        Place("vo-out", queue.source_se, queue.vo),
        NODE,
    )


def configured(limits: Limits, place: Place) -> int:
    """The configured limit of a place, read off the settings."""
    kind, name, other = place
    if kind == "node":
        return limits.node
    if kind == "link":
        rows = [row.active for row in limits.links if (row.source, row.destination) == (name, other)]
        return next((n for n in rows if n is not None), limits.link)
    if kind in {"in", "out"}:
        row = limits.endpoints.get(name)
        special = (row.inbound if kind == "in" else row.outbound) if row else None
        default = limits.endpoint_inbound if kind == "in" else limits.endpoint_outbound
        return default if special is None else special
    of_vo = [row for row in limits.vos if (row.endpoint, row.vo) == (name, other)]
    found = [row.inbound if kind == "vo-in" else row.outbound for row in of_vo]
    return next((n for n in found if n is not None), UNLIMITED)


def bandwidth(limits: Limits, place: Place) -> float | None:
    """The configured bytes per second of a place."""
    kind, name, other = place
    if kind == "link":
        rows = [row.bytes_s for row in limits.links if (row.source, row.destination) == (name, other)]
        return next((n for n in rows if n is not None), None)
    row = limits.endpoints.get(name)
    if row is None or kind not in {"in", "out"}:
        return None
    return row.inbound_bytes_s if kind == "in" else row.outbound_bytes_s


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """One transfer that holds slots."""

    queue: Queue
    priority: int
    bytes_s: float
    since: float
    moves: bool = True
    """False: an earlier engine left it, and its outcome is looked for."""

    @property
    def key(self) -> Key:
        return self.queue.id, self.priority


def cap_of(limit: int, code: Why = Why.BREAKER) -> Cap:
    """A bound somebody else sets."""
    return Cap(limit, Reason(code=code, text=f"not more than {limit}"))


class World:
    """A scheduler and everything around it, as lists."""

    def __init__(self, queues: Sequence[Queue], limits: Limits | None = None, shares: Shares | None = None) -> None:
        self.queues = {queue.id: queue for queue in queues}
        self.limits = limits or Limits()
        self.shares = shares or Shares()
        self.scheduler: Any = schedule.Scheduler(LimitTable.of(self.limits), ShareTable.of(self.shares))
        self.store: Counter[Key] = Counter()
        """What could really be claimed."""
        self.claim: list[schedule.Start] = []
        """Decided, and on its way to the store."""
        self.running: list[Running] = []
        self.blocked: set[Key] = set()
        self.caps: dict[tuple[Place, str], int] = {}
        self.rates: dict[tuple[str, str], float] = {}
        self.log: list[tuple[Key, int]] = []
        """All decisions."""
        self.now = 0.0
        self._watch_for_spinning()

    def _watch_for_spinning(self) -> None:
        wake = self.scheduler.turns.wake
        self._spins = 0

        def counted(now: float) -> None:
            self._spins += 1
            assert self._spins < SPINS_MAX, "a decision does not come to an end"
            wake(now)

        self.scheduler.turns.wake = counted

    # What happens

    def ready(self, queue: Queue, priority: int, n: int) -> None:
        """Submissions, or with n < 0 cancellations."""
        self.store[queue.id, priority] += n
        if n > 0:
            self.blocked.discard((queue.id, priority))
        self.scheduler.ready(queue, priority, n, 100 * n, self.now)

    def decide(self, n_max: int = schedule.CLAIMS_MAX) -> list[schedule.Start]:
        """One decision; its claims are on their way."""
        assert not self.claim, "one claim at a time"
        before = self.used()
        reserved = {place: sum(self.rates_in(place)) for place in before}
        told = self.told()
        self._spins = 0
        starts: list[schedule.Start] = self.scheduler.decide(self.now, n_max)
        assert sum(start.n for start in starts) <= n_max
        for start in starts:
            key = (start.lane.queue.id, start.lane.priority)
            assert 0 < start.n <= told[key], "more was started than waits"
            assert key not in self.blocked, "a blocked lane was started"
            self.log.append((key, start.n))
            one = Running(start.lane.queue, start.lane.priority, start.bytes_s, self.now)
            self.running += [Running(one.queue, one.priority, one.bytes_s, one.since) for _ in range(start.n)]
        self.claim = starts
        after = self.used()
        for place, n in after.items():
            assert n <= max(self.bound(place), before[place]), f"{place}: {n} of {self.bound(place)}"
        self._check_bands(reserved)
        return starts

    def claimed(self, short: random.Random | None = None) -> None:
        """The store answers: all that it has, or by chance less."""
        starts, self.claim = self.claim, []
        for start in starts:
            key = (start.lane.queue.id, start.lane.priority)
            n = min(start.n, max(self.store[key], 0))
            if short is not None and short.random() < 0.3:
                n = short.randint(0, n)
            self.store[key] -= n
            start.lane.n_bytes -= 100 * n
            if n < start.n:
                for _ in range(start.n - n):
                    self.running.remove(self._last(key, start.bytes_s))
                self.scheduler.returned(start.lane, start.n - n, self.now, start.bytes_s)
                self.blocked.add(key)

    def _last(self, key: Key, bytes_s: float) -> Running:
        return next(run for run in reversed(self.running) if (run.key, run.bytes_s) == (key, bytes_s))

    def release(self, run: Running) -> None:
        """A transfer ends."""
        self.running.remove(run)
        self.scheduler.release(run.queue, run.priority, self.now, run.bytes_s)

    def hold(self, queue: Queue, priority: int) -> None:
        """An earlier engine's transfer is found."""
        self.running.append(Running(queue, priority, 0.0, self.now, moves=False))
        self.scheduler.hold(queue, priority, self.now)

    def force(self, queue: Queue, priority: int) -> None:
        """One that waits is claimed by its number and starts, whatever is full."""
        self.ready(queue, priority, -1)
        bytes_s = self.need(queue)
        self.running.append(Running(queue, priority, bytes_s, self.now))
        self.scheduler.hold(queue, priority, self.now, bytes_s)

    def retune(self, limits: Limits, shares: Shares) -> None:
        """Other limits and shares are in force."""
        assert not self.claim, "not while a claim is on its way"
        table = LimitTable.of(limits)
        anew = table.bands != LimitTable.of(self.limits).bands
        self.limits, self.shares = limits, shares
        copies = [self.scheduler.lanes[run.key] for run in self.running if run.moves]
        reserved = retune(self.scheduler, table, ShareTable.of(shares), copies, self.now)
        if anew:
            self.running = [replace(run, bytes_s=self.need(run.queue)) if run.moves else run for run in self.running]
        for run in self.running:
            assert not run.moves or not anew or reserved[self.scheduler.lanes[run.key]] == run.bytes_s
        self.check_weights()

    def check_weights(self) -> None:
        """Every lane competes by the row of shares that is in force, under its weights."""
        table = ShareTable.of(self.shares)
        for lane in self.scheduler.lanes.values():
            queue, activity = lane.queue, lane.level.activity
            group = table.group(queue.source_se, queue.dest_se)
            assert lane.site.vos[queue.vo, group] is activity.vo
            assert activity.vo.account.weight == table.of_vo(queue.vo, group)
            assert activity.account.weight == table.of_activity(queue.vo, queue.activity)

    def learn(self, queue: Queue, slot_s: float, bytes_s: float) -> None:
        """Somebody measured a transfer."""
        link = (queue.source_se, queue.dest_se)
        if bytes_s > 0:
            self.rates[link] = max(bytes_s, self.rates.get(link, 0.0) * 0.999)
        self.scheduler.learn(queue, slot_s, bytes_s)

    def cap(self, place: Place, owner: str, limit: int | None) -> None:
        """Somebody sets or lifts a bound."""
        if limit is None:
            self.caps.pop((place, owner), None)
        else:
            self.caps[place, owner] = limit
        self.scheduler.cap(place, owner, None if limit is None else cap_of(limit))

    def unblock(self, key: Key) -> None:
        """A destination is free again."""
        self.blocked.discard(key)
        lane = self.scheduler.lanes.get(key)
        if lane is not None:
            self.scheduler.unblock(lane, self.now)

    def settle(self, n_max: int = schedule.CLAIMS_MAX) -> int:
        """Decide and claim until nothing more starts; then nothing that could run may be left. Returns how many."""
        n = 0
        self.claimed()
        while starts := self.decide(n_max):
            n += sum(start.n for start in starts)
            self.claimed()
        self.check_nobody_forgotten()
        return n

    # What is so

    def told(self) -> Counter[Key]:
        """What the scheduler should believe to wait."""
        found = Counter(self.store)
        for start in self.claim:
            found[start.lane.queue.id, start.lane.priority] -= start.n
        return found

    def used(self) -> Counter[Place]:
        return Counter(place for run in self.running for place in places(run.queue))

    def claimed_running(self) -> list[Running]:
        """Those that the store has given; the others cannot end yet."""
        on_the_way = {(start.lane.queue.id, start.lane.priority) for start in self.claim}
        return [run for run in self.running if run.key not in on_the_way]

    def bound(self, place: Place) -> int:
        caps = [limit for (capped, _), limit in self.caps.items() if capped == place]
        return min([configured(self.limits, place), *caps])

    def bands(self, queue: Queue) -> Iterator[tuple[Place, float]]:
        for place in places(queue)[:3]:
            limit = bandwidth(self.limits, place)
            if limit is not None:
                yield place, limit

    def need(self, queue: Queue) -> float:
        bands = [limit for _, limit in self.bands(queue)]
        return self.rates.get((queue.source_se, queue.dest_se), min(bands)) if bands else 0.0

    def rates_in(self, place: Place) -> list[float]:
        return [run.bytes_s for run in self.running if place in places(run.queue) and run.bytes_s > 0]

    def could_run(self, queue: Queue) -> bool:
        """Whether one more transfer of a queue would exceed nothing."""
        used = self.used()
        if any(used[place] >= self.bound(place) for place in places(queue)):
            return False
        for place, limit in self.bands(queue):
            rates = self.rates_in(place)
            if rates and sum(rates) + self.need(queue) > limit * (1 + 1e-9):
                return False
        return True

    # Comparison

    def check_nobody_forgotten(self) -> None:
        for (queue_id, priority), n in self.store.items():
            if n > 0 and (queue_id, priority) not in self.blocked:
                queue = self.queues[queue_id]
                assert self.kept_for_another(queue) or not self.could_run(queue), f"forgotten: {queue} at {priority}"
        node = self.scheduler.node
        assert not self.scheduler.turns.hungry or node.used >= node.limit, "rooms with room are left"

    def kept_for_another(self, queue: Queue) -> bool:
        """Whether a last slot is kept for a destination that is about to have one, or bandwidth for a fast copy."""
        if any(self.scheduler.bands[place].kept is not None for place, _ in self.bands(queue)):
            return True
        rooms = [self.scheduler.rooms[place] for place in places(queue)]
        return any(
            room.promised is not None and room.promised.name != queue.dest_se and room.used + 1 >= room.limit
            for room in rooms
        )

    def check_promises(self) -> None:
        """What is kept is kept for somebody who waits for it, and whose destination has something to wait for."""
        for room in self.scheduler.rooms.values():
            site = room.promised
            if site is None:
                continue
            assert site.promise is room
            assert site in self.scheduler.turns.promises
            assert site.room.used > 0 or site.queued, f"{room.place}: kept for ever"
            assert any(lane.open and room in lane.rooms and lane.site is site for lane in self.scheduler.lanes.values())
        kept = [site for site in self.scheduler.sites.values() if site.promise is not None]
        assert len(kept) == len(self.scheduler.turns.promises)
        assert all(site.promise.promised is site for site in kept)

    def _check_bands(self, before: dict[Place, float]) -> None:
        for place, reserved in before.items():
            limit = bandwidth(self.limits, place)
            rates = self.rates_in(place)
            if limit is not None and len(rates) > 1:
                assert sum(rates) <= max(limit, reserved) * (1 + 1e-9), (
                    f"{place}: {sum(rates)} of {limit} bytes per second"
                )

    def check(self) -> None:
        """Every figure and every list of the scheduler against the lists."""
        self._check_rooms()
        self._check_accounts()
        self.check_promises()
        told = self.told()
        for key, n in told.items():
            lane = self.scheduler.lanes.get(key)
            assert (lane.n_ready if lane else 0) == n, f"{key}: {n} wait"
            assert lane is None or n <= 0 or lane.blocked == (key in self.blocked)
        held = Counter(run.key for run in self.running)
        assert held.keys() <= self.scheduler.lanes.keys(), "a lane is forgotten while its transfers run"
        for lane in self.scheduler.lanes.values():
            assert lane.n_held == held[lane.queue.id, lane.priority]
            check_lane(self.scheduler, lane)
        for site in self.scheduler.sites.values():
            check_site(site)

    def _check_rooms(self) -> None:
        used, told = self.used(), self.told()
        pending: Counter[Place] = Counter()
        for (queue_id, _), n in told.items():
            for place in places(self.queues[queue_id]):
                pending[place] += max(n, 0)
        assert self.scheduler.n_ready == pending[NODE]
        for place, room in self.scheduler.rooms.items():
            assert room.used == used[place], f"{place}: {room.used} instead of {used[place]}"
            assert room.limit == self.bound(place), f"{place}: limit {room.limit} instead of {self.bound(place)}"
            assert place.kind not in {"in", "out", "node"} or room.pending == pending[place], f"{place}: pending"
            kept = room.promised is not None
            assert room.used + kept >= room.limit or self._will_wake(room), f"{place}: no wake-up"
        assert all(place in self.scheduler.rooms for place in used)
        for place, band in self.scheduler.bands.items():
            rate = sum(self.rates_in(place))
            assert abs(band.used_bytes_s - rate) < 1e-6 * (1 + rate), f"{place}: bytes per second"
            assert not (band.parked and not band.used_bytes_s), f"{place}: nothing runs that could wake anybody"

    def _will_wake(self, room: Room) -> bool:
        """Whether those who wait in a room that has room will be looked at when one of them could start."""
        if not room.parked or room.place in self.scheduler.turns.hungry:
            return True
        full = all(site.room.used >= site.room.limit for site in room.parked)
        return full and room.place in self.scheduler.turns.idle

    def _check_accounts(self) -> None:
        by_vo = Counter((run.queue.dest_se, run.queue.vo) for run in self.running)
        by_activity = Counter((run.queue.dest_se, run.queue.vo, run.queue.activity) for run in self.running)
        for site in self.scheduler.sites.values():
            held: Counter[str] = Counter()
            for vo in site.vos.values():
                held[vo.name] += vo.account.held
                assert vo.account.held == sum(activity.account.held for activity in vo.activities.values())
            for name, n in held.items():
                assert n == by_vo[site.name, name], f"{name} into {site.name}: {n} slots"
            names = {vo.name for vo in site.vos.values()}
            for vo_name in names:
                of_vo = [vo for vo in site.vos.values() if vo.name == vo_name]
                for activity in {name for vo in of_vo for name in vo.activities}:
                    n = sum(vo.activities[activity].account.held for vo in of_vo if activity in vo.activities)
                    assert n == by_activity[site.name, vo_name, activity]
