"""An engine that accepts and remembers but never moves anything, and a service on it, for tests.

Its store is the real one, in memory; tests move transfers through it by hand.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from protocols.errors import Missing, Phase, Scope
from transfer_engine import figures, submission
from transfer_engine.banning import Hooks, Moving
from transfer_engine.board import Board
from transfer_engine.callers import Caller, Sight
from transfer_engine.clock import Deps, SystemClock
from transfer_engine.companions import Companions
from transfer_engine.config import Settings
from transfer_engine.config_service import AuthSettings, ServiceSettings
from transfer_engine.control import Control
from transfer_engine.decisions import Decisions
from transfer_engine.driving import Driven
from transfer_engine.explain import Explainer
from transfer_engine.figures import LinkStatus
from transfer_engine.following import Following
from transfer_engine.forcing import Forcing
from transfer_engine.governor import Governor
from transfer_engine.health import Health
from transfer_engine.identity.api import Shown
from transfer_engine.limits import LimitTable
from transfer_engine.model import Assignment, Change, Claim, Done, Evidence, Failure, FileId, JobId, JobRequest, Outcome
from transfer_engine.optimizer import Optimizer
from transfer_engine.outlook import Foresight
from transfer_engine.sealed import AuditEntry
from transfer_engine.service.app import Door, build_app, build_table
from transfer_engine.service.route import Route
from transfer_engine.service.server import PARSING, open_door
from transfer_engine.shares import ShareTable
from transfer_engine.states import Event, FileState
from transfer_engine.store.api import Canceled, Forced
from transfer_engine.store.sqlite import SqliteStore
from transfer_engine.tunables import Tunables
from transfer_engine.vault import Vault
from transfer_engine.views import StoredEvent

T = TypeVar("T")

NOW = 1_700_000_000.0
"""2023-11-14T22:13:20 UTC."""


@dataclass
class FixedClock:
    at: float = NOW

    def now(self) -> float:
        return self.at


@dataclass
class Standing:
    """What a dispatcher shows that has nothing to do."""

    board: Board
    governor: Governor
    foresight: Foresight
    driven: dict[FileId, Driven] = field(default_factory=dict)
    ready: bool = True
    store_trouble: str | None = None

    @classmethod
    def at(cls, now: Callable[[], float]) -> Standing:
        settings = Settings()
        limits, shares = LimitTable.of(settings.limits), ShareTable.of(settings.shares)
        board = Board(limits, shares)
        governor = Governor(
            board=board,
            limits=limits,
            health=Health(settings.breaker, random.Random(0)),
            optimizer=Optimizer(settings.optimizer),
            now=now,
            wake=lambda: None,
        )
        return cls(board, governor, Foresight(board=board, measures=governor.measures, shares=shares, now=now))


@dataclass
class StandingEngine:
    """The interface that the service uses, on a real store, without a dispatcher."""

    store: SqliteStore
    clock: FixedClock
    ready: bool = True
    reason: str | None = None
    fails: Exception | None = None
    """Raised by every write."""
    unreadable: Exception | None = None
    """Raised by every question."""
    requests: list[JobRequest] = field(default_factory=list)
    n_ids: int = 0
    moving: list[Moving] = field(default_factory=list)
    canceled: list[Canceled] = field(default_factory=list)
    """What the dispatcher would have been told to stop."""
    control: Control = field(init=False)
    sight: Standing = field(init=False)
    following: Following = field(init=False)
    tunables: Tunables = field(init=False)
    forcing: Forcing = field(init=False)
    decisions: Decisions = field(init=False)
    forced: list[Forced] = field(default_factory=list)
    """What the dispatcher would have been told to start."""

    def __post_init__(self) -> None:
        self.sight = Standing.at(self.clock.now)
        self.following = Following(self.store)
        hooks = Hooks(
            on_caps=lambda: None,
            on_shifts=lambda _: None,
            on_canceled=self.canceled.append,
            moving=lambda: self.moving,
            write=self._write,
        )
        self.control = Control(store=self.store, reader=self.store, deps=Deps(clock=self.clock), hooks=hooks)
        self.decisions = Decisions(self.sight.board, self.sight.governor)
        self.forcing = Forcing(
            store=self.store,
            reader=self.store,
            orders=self.control.caps,
            now=self.clock.now,
            write=self._write,
            started=self.forced.append,
            why_not=lambda: self.reason,
        )
        self.tunables = Tunables(
            store=self.store,
            limits=LimitTable.of(Settings().limits),
            shares=ShareTable.of(Settings().shares),
            modes=Settings().transfer.modes,
            apply=lambda _: None,
            write=self._write,
        )

    async def _write(self, write: Callable[[], Awaitable[T]], then: Callable[[T], None]) -> T:
        self._check()
        result = await write()
        then(result)
        return result

    @property
    def reader(self) -> Any:
        if self.unreadable is not None:
            raise self.unreadable
        return self.store

    @property
    def explainer(self) -> Explainer:
        return Explainer(reader=self.reader, sight=self.sight, now=self.clock.now)

    def links(self) -> list[LinkStatus]:
        return figures.links(self.sight.board)

    def running(self) -> list[Moving]:
        return self.moving

    async def why_not_written(self) -> str | None:
        return None if self.fails is None else str(self.fails)

    def why_not_ready(self) -> str | None:
        return self.reason

    def _check(self) -> None:
        if self.fails is not None:
            raise self.fails

    async def submit(self, request: JobRequest) -> JobId:
        self._check()
        self.n_ids += 1
        new_id = f"00000000-0000-4000-8000-{self.n_ids:012}"
        job = submission.plan(request, now=self.clock.now(), new_id=new_id, schemes={"http", "https", "davs", "file"})
        self.requests.append(request)
        self.control.check(job)
        return (await self.store.insert(job)).job_id

    async def cancel(self, job_id: JobId, file_ids: Sequence[FileId] | None = None) -> Canceled:
        self._check()
        return await self.store.cancel(job_id, self.clock.now(), file_ids)

    async def set_priority(self, job_id: JobId, priority: int) -> None:
        self._check()
        await self.store.set_priority(job_id, priority)

    @property
    def secrets(self) -> SqliteStore:
        return self.store

    async def record(self, entry: AuditEntry) -> None:
        self._check()
        await self.store.record(entry)

    @property
    def companions(self) -> Companions:
        return Companions(())

    def events(
        self, after: int | None, job_id: JobId | None, sight: Sight, *, gather_s: float
    ) -> AsyncIterator[StoredEvent]:
        return self.following.events(after, job_id, sight, gather_s=0.0)

    # What a dispatcher would do

    async def claim(self, n: int = 100) -> list[Assignment]:
        backlog = await self.store.backlog()
        claims = [Claim(shift.queue.id, shift.priority, n) for shift in backlog.shifts]
        return await self.store.claim(claims, self.clock.now())

    async def settle(self, work: Assignment, event: Event, **more: Any) -> None:
        await self.store.apply(
            Change(
                file_id=work.file_id,
                job_ref=work.job_ref,
                queue_id=work.queue.id,
                priority=work.priority,
                expect=frozenset({FileState.ACTIVE, FileState.VERIFYING, FileState.CANCELING}),
                epoch=work.epoch,
                event=event,
                at=self.clock.now(),
                started_at=work.claimed_at,
                **more,
            )
        )

    async def finish(self, work: Assignment) -> None:
        await self.settle(work, Event.FINISH, done=done())

    async def fail(self, work: Assignment, *, activate_next: bool = False) -> None:
        await self.settle(work, Event.FAIL, failure=Failure.of(MISSING), charge=True, activate_next=activate_next)


MISSING = Missing("Result HTTP 404 : File not found  after 1 attempts", scope=Scope.SOURCE, phase=Phase.PREPARATION)


def done() -> Outcome:
    return Done(
        evidence=Evidence(size_bytes=3 * 1024 * 1024, checksum=None, method="size"),
        mode="pull",
        bytes_moved=3 * 1024 * 1024,
        transfer_s=1.5,
        started_at=NOW,
    )


@dataclass
class Service:
    """A running service, and what is behind it."""

    url: str
    http: ClientSession
    engine: StandingEngine
    clock: FixedClock

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """(status, JSON) of one request; `body` is sent as JSON, bytes as they are."""
        if body is not None:
            more["data" if isinstance(body, bytes) else "json"] = body
        if isinstance(body, bytes):
            more.setdefault("headers", {"Content-Type": "application/json"})
        async with self.http.request(method, self.url + path, **more) as response:
            return response.status, None if response.status == 204 else await response.json()

    async def submit(self, *files: dict[str, Any], **params: Any) -> str:
        status, answer = await self.call("POST", "/jobs", {"files": list(files) or [file()], "params": params})
        assert status == 200, answer
        return answer["job_id"]


def file(n: int = 0, **more: Any) -> dict[str, Any]:
    """One file of a submission."""
    plain = {
        "sources": [f"https://source.example:8443/data/f{n}"],
        "destinations": [f"https://dest.example:8443/data/f{n}"],
    }
    return plain | more


@dataclass
class Named:
    """Believes the header `X-Test-Caller`: who asks is one of `callers`, by number; else the first."""

    callers: Sequence[Caller]

    async def identify(self, shown: Shown) -> Caller:
        return self.callers[int(shown.headers.get("x-test-caller", "0"))]

    async def run(self) -> None:
        """Has nothing to do."""

    async def aclose(self) -> None:
        pass


def _as(caller: Caller | Sequence[Caller]) -> Named:
    return Named([caller] if isinstance(caller, Caller) else caller)


def table(engine: Any) -> list[Route]:
    """The service's operations."""
    return build_table(engine, ServiceSettings(), open_door(), SystemClock())


@asynccontextmanager
async def running_service(
    *, caller: Caller | Sequence[Caller] | None = None, **settings: Any
) -> AsyncIterator[Service]:
    """Args: caller: who asks; several: by the header `X-Test-Caller`; None: the local user, who may do everything."""
    clock = FixedClock()
    store = SqliteStore("sqlite://", incarnation="test", now=clock.now, inline=True)
    await store.open()
    engine = StandingEngine(store, clock)
    vault = cache(Vault.transient)
    door = open_door(vault) if caller is None else Door(auth=AuthSettings(), authenticator=_as(caller), vault=vault)
    app = build_app(engine, ServiceSettings(**settings), door, clock=clock)  # type: ignore[arg-type]
    server = TestServer(app)
    try:
        await server.start_server(**PARSING)
        async with ClientSession() as http:
            yield Service(str(server.make_url("")).rstrip("/"), http, engine, clock)
    finally:
        await server.close()
        await store.close()
