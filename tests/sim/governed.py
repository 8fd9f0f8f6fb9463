"""An engine under everything at once: users, operators, faults, a store that is away now and then; and its auditor.

The auditor counts what runs by itself, from the claims and releases that it sees, and compares: with the configured
limits at each of them, with what the scheduler believes, and at the end with nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from protocols.errors import (
    CopyFailed,
    Denied,
    Missing,
    NoSpace,
    Overloaded,
    Phase,
    Scope,
    TimedOut,
    TransferError,
    Unavailable,
)
from protocols.registry import Registry
from protocols.scripted import Lie, Lost, Rule, ScriptedAdapter
from transfer_engine import EngineError, JobId, JobOptions, JobRequest, JobType, Transfer, testing
from transfer_engine.attempt import Tools, anonymous
from transfer_engine.config import EndpointLimits, LinkLimits, LinkShares, Settings, Shares, VoLimits
from transfer_engine.dispatcher import Dispatcher, Rules
from transfer_engine.driving import Driven
from transfer_engine.engine import Engine
from transfer_engine.errors import StoreUnavailable
from transfer_engine.health import Health
from transfer_engine.lanes import Lane
from transfer_engine.limits import NODE, LimitTable
from transfer_engine.model import Assignment
from transfer_engine.optimizer import Optimizer
from transfer_engine.places import Place
from transfer_engine.retry import RetryPolicy
from transfer_engine.shares import ShareTable
from transfer_engine.states import JOB_TERMINAL
from transfer_engine.store.memory import MemoryStore
from transfer_engine.store.sqlite import SqliteStore

SOURCES: Final = ("sim://s0", "sim://s1", "sim://s2")
DESTINATIONS: Final = ("sim://d0", "sim://d1", "sim://d2", "sim://d3")
VOS: Final = ("a", "b", "c")
GB: Final = 10**9


def of_scope(kind: type[TransferError], scope: Scope, **more: Any) -> Callable[[], TransferError]:
    """Makes errors of one end."""
    return lambda: kind("planned", scope=scope, phase=Phase.TRANSFER, **more)


def faults(endpoint: str, rng: random.Random) -> Rule:
    """One thing that can be wrong with a storage."""
    copy = frozenset({"copy"})
    scope = Scope.DESTINATION if endpoint in DESTINATIONS else Scope.SOURCE
    return rng.choice(
        (
            Rule(match=endpoint, error=lambda: Unavailable("down", scope=scope)),
            Rule(match=endpoint, error=lambda: Unavailable("down", scope=scope), latency_s=40.0),
            Rule(match=endpoint, latency_s=10_000.0),
            Rule(match=endpoint, chance=0.5, error=of_scope(CopyFailed, scope), operations=copy),
            Rule(match=endpoint, error=of_scope(Overloaded, scope, retry_after_s=rng.choice((0, 7, 60)))),
            Rule(match=endpoint, chance=0.6, error=of_scope(Overloaded, scope), operations=copy),
            Rule(match=endpoint, error=of_scope(NoSpace, scope), operations=copy),
            Rule(match=endpoint, error=of_scope(Denied, scope), operations=copy),
            Rule(match=endpoint, error=of_scope(Missing, scope), operations=copy, chance=0.3),
            Rule(match=endpoint, error=of_scope(TimedOut, scope), operations=copy, at_bytes=1000),
            Rule(match=endpoint, operations=copy, stall=True, at_bytes=10_000),
            Rule(match=endpoint, operations=copy, stall=True, silent=True, at_bytes=10_000),
            Rule(match=endpoint, operations=copy, lost=rng.choice(list(Lost)), chance=0.7),
            Rule(match=endpoint, operations=copy, lie=rng.choice(list(Lie)), chance=0.5),
            Rule(match=endpoint, operations=copy, rate_bytes_s=50_000.0),
            Rule(match=endpoint, operations=copy, silent=True, rate_bytes_s=2e7),
        )
    )


def settings_of(rng: random.Random) -> Settings:
    """Small limits of every kind; some are 0."""
    few = lambda: rng.choice((1, 2, 3, 5))  # noqa: E731 - a number by chance
    endpoints = {
        endpoint: EndpointLimits(
            inbound=rng.choice((None, None, 0, 1, 4)),
            outbound=rng.choice((None, None, 0, 2, 6)),
            inbound_bytes_s=rng.choice((None, None, 1e6, 3e8)),
            outbound_bytes_s=rng.choice((None, None, 2e8)),
        )
        for endpoint in rng.sample([*SOURCES, *DESTINATIONS], 3)
    }
    link = LinkLimits(source=SOURCES[0], destination=DESTINATIONS[0], active=rng.choice((0, 1, 3)), bytes_s=1e8)
    shares = Shares(
        vos={"a": 3.0, "b": 0.01},
        links=(LinkShares(destination=DESTINATIONS[1], vos={"a": 1.0, "public": 9.0}),),
        activities={"a": {"x": 5.0, "default": 1.0}},
    )
    return Settings(
        limits={  # type: ignore[arg-type]
            "endpoint_inbound": 2 * few(),
            "endpoint_outbound": 2 * few(),
            "link": few(),
            "node": rng.choice((4, 9, 30)),
            "streamed": 2,
            "endpoints": endpoints,
            "links": (link,),
            "vos": (
                VoLimits(endpoint=DESTINATIONS[2], vo="c", inbound=rng.choice((0, 1)), outbound=1),
                VoLimits(endpoint=SOURCES[1], vo="a", outbound=2),
            ),
        },
        shares=shares,
        retry={"delay_max_s": 60.0, "late_s": 60.0, "retries_max": rng.choice((0, 3, 8))},  # type: ignore[arg-type]
        breaker={"open_max_s": 300.0, "recovered": rng.choice((4, 128))},  # type: ignore[arg-type]
        transfer={"probe_max_s": 200.0, "stall_s": 60.0, "floor_s": 300.0, "silence_s": 40.0},  # type: ignore[arg-type]
        optimizer={"enabled": rng.random() < 0.7},  # type: ignore[arg-type]
    )


class MoodyStore:
    """A store that cannot answer now and then."""

    def __init__(self, inner: Any, rng: random.Random) -> None:
        self.inner = inner
        self.outage = 0.0
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name in {"open", "close"}:
            return method

        async def call(*args: Any, **more: Any) -> Any:
            if self.outage and self._rng.random() < self.outage:
                await asyncio.sleep(self._rng.choice((0, 0.1)))
                raise StoreUnavailable("planned")
            # What is told between a commit and its answer is told in this moment.
            if self._rng.random() < 0.3:
                await asyncio.sleep(0.001)
            answer = await method(*args, **more)
            if self._rng.random() < 0.3:
                await asyncio.sleep(0.001)
            return answer

        return call


def places_of(order: Assignment) -> list[Place]:
    """Where a transfer holds a slot, without asking the scheduler."""
    queue = order.queue
    return [
        Place("in", queue.dest_se),
        Place("out", queue.source_se),
        Place("link", queue.source_se, queue.dest_se),
        Place("vo-in", queue.dest_se, queue.vo),
        Place("vo-out", queue.source_se, queue.vo),
        NODE,
    ]


@dataclass
class Auditor:
    """Counts beside the scheduler."""

    dispatcher: Dispatcher
    limits: LimitTable
    running: Counter[Place] = field(default_factory=Counter)
    found: Counter[Place] = field(default_factory=Counter)
    """Of those the ones that an earlier engine left: no decision gave them their slots."""
    n_starts: int = 0

    def __post_init__(self) -> None:
        start, released, decide = self.dispatcher._start, self.dispatcher.released, self.dispatcher.board.decide
        recovered_ids: set[tuple[int, int]] = set()

        def on_start(order: Assignment, *, recovered: bool = False) -> None:
            start(order, recovered=recovered)
            self.n_starts += 1
            self.running.update(places_of(order))
            if recovered:
                recovered_ids.add((order.file_id, order.epoch))
                self.found.update(places_of(order))
            else:
                self.check_limits(places_of(order))

        def on_release(driven: Driven) -> None:
            order = driven.order
            released(driven)
            self.running.subtract(places_of(order))
            if (order.file_id, order.epoch) in recovered_ids:
                recovered_ids.remove((order.file_id, order.epoch))
                self.found.subtract(places_of(order))

        def on_decide(now: float) -> Any:
            before = {place: room.used for place, room in self.dispatcher.board.scheduler.rooms.items()}
            starts = decide(now)
            for started in starts:
                for room in started.lane.rooms:
                    assert room.used <= max(room.limit, before.get(room.place, 0)), f"{room.place}: {room.used}"
                for band in started.lane.bands:
                    assert band.n_copies == 1 or band.used_bytes_s <= band.limit_bytes_s * (1 + 1e-6), band.place
            return starts

        self.dispatcher._start = on_start  # type: ignore[method-assign]
        self.dispatcher.released = on_release  # type: ignore[method-assign]
        self.dispatcher.board.decide = on_decide  # type: ignore[method-assign]

    def check_limits(self, places: Sequence[Place]) -> None:
        """No decision exceeds a configured limit, nor forgets one that holds slots already."""
        for place in places:
            n, limit = self.running[place], self.limits.at(place)
            assert n <= max(limit, self.found[place]), f"{place}: {n} of {limit}"
            assert self.dispatcher.board.scheduler.rooms[place].used >= n, place

    def check_counts(self) -> None:
        """What the scheduler believes, while no claim is on its way."""
        for place, room in self.dispatcher.board.scheduler.rooms.items():
            if place.kind != "size":
                assert room.used >= self.running[place] >= 0, place
        assert self.dispatcher.board.n_active >= len(self.dispatcher.driven)

    def forgotten(self) -> list[Lane]:
        """Lanes that wait though nothing keeps them back."""
        scheduler = self.dispatcher.board.scheduler
        if scheduler.node.used >= scheduler.node.limit:
            return []
        return [lane for lane in scheduler.lanes.values() if self._could_start(lane)]

    def _could_start(self, lane: Lane) -> bool:
        if lane.n_ready <= 0 or lane.blocked or lane.site.filled:
            return False
        if any(room.full_for(lane.site) for room in lane.rooms):
            return False
        need = self.dispatcher.board.scheduler.need(lane)
        return all(band.holds(need) and band.kept in {None, lane} for band in lane.bands)

    async def check_nobody_waits_in_vain(self) -> None:
        """Nothing waits for long while its rooms are free."""
        lanes, n_starts = self.forgotten(), self.n_starts
        if lanes:
            # A claim that the store does not answer is made again after a second.
            await asyncio.sleep(30)
            still = [lane for lane in self.forgotten() if lane in lanes]
            assert not still or self.n_starts > n_starts, f"forgotten: {[(lane.queue, lane.n_ready) for lane in still]}"

    def check_nothing_is_left(self) -> None:
        """All counters are where they began."""
        board, governor = self.dispatcher.board, self.dispatcher.governor
        scheduler = board.scheduler
        assert not self.dispatcher.driven
        assert not board._slots
        assert scheduler.n_ready == 0
        for place, room in scheduler.rooms.items():
            assert (room.used, room.pending, room.promised) == (0, 0, None), (
                place,
                room.used,
                room.pending,
                room.promised,
            )
            assert not any(lane.n_ready > 0 for lanes in room.parked.values() for lane in lanes), place
        for place, band in scheduler.bands.items():
            assert (band.used_bytes_s, band.n_copies, band.kept) == (0, 0, None), place
        for lane in scheduler.lanes.values():
            assert (lane.n_ready, lane.n_held, lane.open) == (0, 0, False), lane.queue
        for site in scheduler.sites.values():
            assert site.n_open == 0
            for vo in site.vos.values():
                assert vo.account.held == vo.n_open == 0
                for activity in vo.activities.values():
                    assert activity.account.held == activity.n_open == 0
        for place, spot in governor.health._spots.by_place.items():
            assert (spot.n_active, spot.circuit.probes) == (0, 0), place
        for place, pace in governor._paces.items():
            assert (pace.n_running, len(pace.hidden)) == (0, 0), (place, pace)
        assert not governor._meter._copies
        assert not governor._idle
        assert +self.running == Counter()


class Crowd:
    """Users, operators and misfortune, all by chance."""

    def __init__(self, engine: Engine, storages: ScriptedAdapter, rng: random.Random) -> None:
        self.engine = engine
        self.storages = storages
        self.rng = rng
        self.jobs: list[JobId] = []
        self.rules: list[Rule] = []
        self._numbers = itertools.count()

    def _file(self, endpoint: str) -> str:
        n = next(self._numbers)
        size = self.rng.choice((0, 1000, 10**6, 10**8, 3 * GB, 30 * GB))
        self.storages.storage(endpoint).add(f"/{n}", size_bytes=size, seed=n)
        return f"{endpoint}/{n}"

    def _transfer(self, kind: JobType) -> Transfer:
        rng = self.rng
        sources = rng.sample(SOURCES, 3) if kind is JobType.REPLICAS else [rng.choice(SOURCES)]
        size = rng.choice((None, 1000, 5 * GB))
        return Transfer(
            sources=tuple(map(self._file, sources)),
            # Few names: transfers get into each other's way.
            destination=f"{rng.choice(DESTINATIONS)}/f{rng.randint(0, 60)}",
            size_bytes=size if rng.random() < 0.2 else None,
            activity=rng.choice(("x", "y", "default")),
        )

    def _request(self) -> JobRequest:
        rng = self.rng
        kind = rng.choice((JobType.NORMAL, JobType.NORMAL, JobType.REPLICAS, JobType.MULTIHOP))
        if kind is JobType.MULTIHOP:
            n = next(self._numbers)
            hops = [self._file(rng.choice(SOURCES)), *(f"{se}/h{n}" for se in rng.sample(DESTINATIONS, 2))]
            transfers = tuple(Transfer.of(*pair) for pair in itertools.pairwise(hops))
        else:
            transfers = tuple(self._transfer(kind) for _ in range(rng.randint(1, 6)))
        now = testing.EPOCH + asyncio.get_running_loop().time()
        options = JobOptions(
            overwrite=rng.random() < 0.7,
            retry_delay_s=rng.choice((None, None, 5.0)),
            deadline_at=now + rng.uniform(1, 500) if rng.random() < 0.2 else None,
        )
        return JobRequest(
            transfers=transfers, options=options, job_type=kind, priority=rng.randint(1, 5), vo=rng.choice(VOS)
        )

    async def act(self) -> None:
        """One thing; what the engine refuses is refused."""
        with contextlib.suppress(EngineError):
            await self._act(self.rng.random())

    async def _act(self, choice: float) -> None:
        rng, engine, control = self.rng, self.engine, self.engine.control
        job_id = rng.choice(self.jobs[-10:]) if self.jobs else None
        endpoint = rng.choice([*SOURCES, *DESTINATIONS])
        if choice < 0.4 or job_id is None:
            self.jobs.append(await engine.submit(self._request()))
        elif choice < 0.5:
            files = await engine.files(job_id)
            some = [f.file_id for f in files if rng.random() < 0.5]
            await engine.cancel(job_id, some if rng.random() < 0.5 else None)
        elif choice < 0.58:
            await engine.set_priority(job_id, rng.randint(1, 5))
        elif choice < 0.66:
            await (control.hold if rng.random() < 0.5 else control.resume)(job_id)
        elif choice < 0.72:
            cancel = rng.random() < 0.3
            for_s = rng.choice((None, 5.0, 100.0))
            vo = rng.choice((None, *VOS))
            await control.ban(endpoint, vo=vo, cancel=cancel, allow_submit=not cancel, for_s=for_s)
        elif choice < 0.78:
            for ban in control.bans():
                await control.unban(ban.endpoint, vo=ban.vo)
        elif choice < 0.82:
            await control.drain(rng.random() < 0.4)
        elif choice < 0.86:
            engine._store.outage = rng.choice((0.0, 0.0, 0.3))  # type: ignore[attr-defined]
        elif choice < 0.93:
            self.rules.append(self.storages.add_rule(faults(endpoint, rng)))
        elif self.rules:
            self.storages.remove_rule(self.rules.pop(rng.randrange(len(self.rules))))

    async def relent(self) -> None:
        """Everything works, nothing is forbidden any more."""
        self.engine._store.outage = 0.0  # type: ignore[attr-defined]
        for rule in self.rules:
            self.storages.remove_rule(rule)
        self.rules.clear()
        for ban in self.engine.control.bans():
            await self.engine.control.unban(ban.endpoint, vo=ban.vo)
        await self.engine.control.drain(False)
        for job_id in self.jobs:
            if (await self.engine.job(job_id)).state not in JOB_TERMINAL:
                await self.engine.control.resume(job_id)


def engine_of(
    settings: Settings, storages: ScriptedAdapter, *, seed: int, rng: random.Random, path: Path | None
) -> Engine:
    """An engine on a moody store; `path`: None: one in memory without a database."""
    deps = testing.deps(asyncio.get_running_loop(), seed)
    inner: Any = (
        MemoryStore(incarnation=deps.new_id(), now=deps.clock.now)
        if path is None
        else SqliteStore(f"sqlite:///{path}", incarnation=deps.new_id(), now=deps.clock.now, inline=True)
    )
    store: Any = MoodyStore(inner, rng)
    registry = Registry([storages])
    return Engine(
        store=store,
        reader=store,
        tools=Tools(adapters=registry, credentials=anonymous, settings=settings.transfer, clock=deps.clock),
        rules=Rules(
            limits=LimitTable.of(settings.limits),
            shares=ShareTable.of(settings.shares),
            retry=RetryPolicy(settings.retry),
            health=Health(settings.breaker, deps.rng),
            optimizer=Optimizer(settings.optimizer),
            events_keep=settings.events.keep,
        ),
        deps=deps,
        schemes=registry.schemes,
        threads=False,
    )
