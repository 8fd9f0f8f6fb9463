"""Random walks over a store: whatever is done in whatever order, the counts that were told are those that are true."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from protocols.errors import Again
from tests.contract import stores
from tests.contract.stores import AnyStore, claim, settled
from transfer_engine.model import Assignment, Cleaned, JobId, JobOptions, Outcome, Reroute, Shift, Transfer
from transfer_engine.states import DRIVEN, JobType
from transfer_engine.store.api import Canceled, WaitingFilter

N_HOSTS: Final = 4
OUTCOMES: Final[tuple[Outcome, ...]] = (
    stores.DONE,
    stores.AGAIN,
    stores.NEVER,
    stores.UNCHARGED,
    stores.UNKNOWN,
    stores.RELEASED,
)
GONE: Final = stores.failure(Again.NEVER, code="BANNED")
STRATEGIES: Final = ("auto", "orderly", "queue")


def host(n: int) -> str:
    return f"https://h{n}.org"


@dataclass
class Walk:
    """One store, what its shifts add up to, and a die."""

    store: AnyStore
    rng: random.Random
    now: float = stores.NOW
    board: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """(queue, priority) → [ready transfers, their bytes]."""
    jobs: list[JobId] = field(default_factory=list)
    driven: dict[int, Assignment] = field(default_factory=dict)
    said: list[Any] = field(default_factory=list)
    """What the store answered, in words that every store shares."""

    def take_in(self, shifts: Iterable[Shift]) -> None:
        for shift in shifts:
            assert shift.n_ready * shift.n_bytes >= 0, "of the same sign"
            sums = self.board.setdefault((shift.queue.id, shift.priority), [0, 0])
            sums[0] += shift.n_ready
            sums[1] += shift.n_bytes

    def stop(self, canceled: Canceled) -> None:
        self.said.append((canceled.job_id, canceled.n_canceled, canceled.leftovers, sorted(canceled.running)))
        self.take_in(canceled.shifts)

    async def step(self) -> None:
        """Do something."""
        self.now += self.rng.random() * 5
        names = list(ACTS)
        name = self.rng.choices(names, [ACTS[one][0] for one in names])[0]
        self.said.append(name)
        await ACTS[name][1](self)

    async def check(self) -> None:
        """What was told adds up to what is there."""
        found = {(s.queue.id, s.priority): [s.n_ready, s.n_bytes] for s in (await self.store.backlog()).shifts}
        assert {key: sums for key, sums in self.board.items() if sums != [0, 0]} == found

    def any_job(self) -> JobId:
        return self.rng.choice(self.jobs)

    def size(self) -> int | None:
        return self.rng.choice([None, 0, 7, 1000])

    # What may happen

    async def insert(self) -> None:
        kind = self.rng.choice("NNRRRH")
        if kind == "H":
            path = [Transfer.of(f"{host(n)}/h", f"{host(n + 1)}/h", size_bytes=self.size()) for n in range(3)]
        else:
            path = [self._file(1 if kind == "N" else self.rng.randint(2, 4)) for _ in range(self.rng.randint(1, 3))]
        late = JobOptions(deadline_at=self.now + 60) if self.rng.random() < 0.2 else JobOptions()
        planned = stores.job(
            *path,
            options=late,
            vo=self.rng.choice("ab"),
            priority=self.rng.randint(2, 4),
            job_type=JobType.MULTIHOP if kind == "H" else None,
            job_id=JobId(f"job-{len(self.jobs)}"),
        )
        self.jobs.append(planned.job_id)
        self.take_in((await self.store.insert(planned)).shifts)

    def _file(self, n_sources: int) -> Transfer:
        name = f"f{self.rng.randint(0, 20)}"
        places = [self.rng.randrange(N_HOSTS) for _ in range(n_sources)]
        return Transfer(
            sources=tuple(f"{host(place)}/{name}/{n}" for n, place in enumerate(places)),
            destination=f"{host(N_HOSTS)}/{name}",
            size_bytes=self.size(),
            selection_strategy=self.rng.choice(STRATEGIES),
        )

    async def claim(self) -> None:
        backlog = await self.store.backlog()
        for order in await claim(self.store, backlog.shifts, self.rng.randint(1, 2)):
            self.take_in([Shift(order.queue, order.priority, -1, -(order.size_bytes or 0))])
            self.driven[order.file_id] = order
            self.said.append((order.file_id, order.epoch, order.source_url, order.follows, order.dest_owned))
            if self.rng.random() < 0.5:
                assert await self.store.mark_copying(order.file_id, order.epoch)

    async def settle(self) -> None:
        for file_id in [n for n in sorted(self.driven) if self.rng.random() < 0.5]:
            order = self.driven[file_id]
            outcome = self.rng.choice(OUTCOMES)
            applied = await settled(self.store, order, outcome, now=self.now)
            if not applied.won:
                applied = await settled(self.store, order, Cleaned(clean=self.rng.random() < 0.5), now=self.now)
            self.said.append((file_id, applied.won, applied.state, applied.job_ended))
            self.take_in(applied.shifts)
            if applied.state not in DRIVEN:
                del self.driven[file_id]

    async def hold(self) -> None:
        self.take_in(await self.store.hold(self.any_job(), held=True))

    async def resume(self) -> None:
        self.take_in(await self.store.hold(self.any_job(), held=False))

    async def reroute(self) -> None:
        choices = await self.store.choices(5)
        self.said.append([(choice.queue.id, choice.priority, choice.n) for choice in choices])
        prefer = {
            name: {host(n): (self.rng.randint(0, 9), self.rng.random()) for n in range(self.rng.randint(0, N_HOSTS))}
            for name in self.rng.sample(STRATEGIES, 2)
        }
        moves = [Reroute(queue_id=c.queue.id, priority=c.priority, n=2, prefer=prefer) for c in choices]
        self.take_in(await self.store.reroute(moves))

    async def withdraw(self) -> None:
        endpoint = host(self.rng.randint(0, N_HOSTS if self.rng.random() < 0.2 else N_HOSTS - 1))
        where = WaitingFilter(endpoint=endpoint, vo=self.rng.choice([None, "a", "b"]))
        done: list[Canceled] = []
        while block := await self.store.cancel_waiting(where, self.now, self.rng.choice([1, 50]), GONE):
            done += block
        # In which order jobs are found is the store's business.
        for canceled in sorted(done, key=lambda one: int(one.job_id.removeprefix("job-"))):
            self.stop(canceled)

    async def cancel(self) -> None:
        job_id = self.any_job()
        some = [f.file_id for f in await self.store.files(job_id) if self.rng.random() < 0.5]
        self.stop(await self.store.cancel(job_id, self.now, self.rng.choice([None, some])))

    async def priority(self) -> None:
        self.take_in(await self.store.set_priority(self.any_job(), self.rng.randint(2, 4)))

    async def promote(self) -> None:
        backlog = await self.store.promote(self.now, self.rng.choice([1, 100]))
        self.said.append(backlog.next_due_at)
        self.take_in(backlog.shifts)

    async def expire(self) -> None:
        for canceled in (await self.store.expire(self.now, 100))[0]:
            self.stop(canceled)

    async def take_over(self) -> None:
        """Remains of cancelled transfers, as the engine that cancelled them does it."""
        for order in await self.store.take_over(self.now, 100):
            self.driven[order.file_id] = order
            self.said.append((order.file_id, order.epoch, order.canceling))


ACTS: Final[dict[str, tuple[int, Callable[[Walk], Awaitable[None]]]]] = {
    "insert": (6, Walk.insert),
    "claim": (5, Walk.claim),
    "settle": (5, Walk.settle),
    "hold": (2, Walk.hold),
    "resume": (2, Walk.resume),
    "reroute": (3, Walk.reroute),
    "withdraw": (1, Walk.withdraw),
    "cancel": (1, Walk.cancel),
    "priority": (2, Walk.priority),
    "promote": (3, Walk.promote),
    "expire": (1, Walk.expire),
    "take over": (1, Walk.take_over),
}
