"""What operators order while the engine runs: bans, drain, holds. All of it survives a restart."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from protocols.errors import Again, Phase, Scope
from transfer_engine import urls
from transfer_engine.banning import Banning, Bans, Hooks, Moving, Tell, nobody
from transfer_engine.bans import UserBan, instant, parse_endpoint, sentence, storage_key
from transfer_engine.clock import Deps
from transfer_engine.errors import Banned, Conflict, Invalid
from transfer_engine.model import Failure, JobId, JobRequest, PlannedJob
from transfer_engine.places import Ban, Cap, Place
from transfer_engine.reasons import Reason, Why
from transfer_engine.states import JOB_TERMINAL
from transfer_engine.store.api import JobFilter, Reader, Store

log = logging.getLogger(__name__)

LASTS_MAX_S: Final = 10 * 365 * 86400
"""Longest time that a ban may be limited to."""
NAME_MAX: Final = 255
TEXT_MAX: Final = 1000
JOBS_BLOCK: Final = 500
"""Jobs of a banned user that are looked at in one go."""
DRAIN: Final = "drain"
USERS: Final = "banned-users"
"""Names under which the store keeps what has no table of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Whether the node starts nothing new, and how far it is.

    Attributes:
        eta_s: when the last running transfer will end at the present speed; None: nobody can say.
    """

    on: bool
    since: float | None
    by: str | None
    n_running: int
    eta_s: float | None


class Control:
    """Bans, drain and holds of one engine."""

    def __init__(self, *, store: Store, reader: Reader, deps: Deps, hooks: Hooks) -> None:
        self._store = store
        self._reader = reader
        self._deps = deps
        self._hooks = replace(hooks, on_caps=self._changed)
        self._tell_caps = hooks.on_caps
        self._bans = Bans(store=store, deps=deps, hooks=self._hooks)
        self._lock = asyncio.Lock()
        self._users: dict[str, UserBan] = {}
        self._drained: tuple[float, str] | None = None
        """Since when and by whom the node is drained."""
        self._stopping = False
        self._caps: tuple[Mapping[Place, Cap], float] | None = None
        """What `caps` answers, and until when."""

    # Life cycle

    async def load(self) -> None:
        """Remember what was ordered and go on with it; to be done before the backlog is read.

        Nobody is told of what is cancelled here: it is not counted as waiting yet. Raises: StoreUnavailable.
        """
        self._drained = _drained(await self._store.kept(DRAIN))
        self._users = _users(await self._store.kept(USERS))
        await self._bans.load()
        self._caps = None
        for user in self._users.values():
            await self._cancel_jobs(user, tell=nobody)

    def stop(self) -> None:
        """The engine ends: cancel no further block; the next start goes on."""
        self._stopping = True
        self._bans.stop()

    # What the engine asks

    def caps(self, now: float) -> Mapping[Place, Cap]:
        """Place → nothing may run there, and why; the same object until something changes."""
        if self._caps is None or now >= self._caps[1]:
            table = self._bans.table
            found = table.caps(now)
            if self._drained is not None:
                since, by = self._drained
                text = f"this node is draining by order of {by} since {instant(since)}: it starts nothing new"
                found[Place("node", "")] = Cap(0, Reason(code=Why.DRAINING, text=text))
            until = table.next_change_at(now)
            self._caps = found, math.inf if until is None else until
        return self._caps[0]

    def _changed(self) -> None:
        self._caps = None
        self._tell_caps()

    def next_change_at(self) -> float | None:
        """When `on_time` is to be called; None: not before something is ordered."""
        return self._bans.next_change_at()

    async def on_time(self, now: float) -> None:
        """Let bans go that have run out; cancel what has come to wait under those that cancel.

        Raises: StoreUnavailable: to be called again.
        """
        await self._bans.on_time(now)

    def check(self, job: PlannedJob | JobRequest) -> None:
        """May this be submitted? To be asked right before it is stored, with nothing awaited in between.

        As in FTS3, one banned storage among many refuses the job. Raises: Banned: with FTS's sentence, and
        who, since when and why.
        """
        user = self._users.get(job.user_dn)
        if user is not None:
            raise Banned(user.sentence())
        table = self._bans.table
        if not table.bans:
            return
        now = self._deps.clock.now()
        for source_se, dest_se in _links(job):
            ban = table.refuses(source_se, dest_se, job.vo, now)
            if ban is not None:
                same = storage_key(dest_se) == storage_key(ban.endpoint)
                raise Banned(sentence(ban, dest_se if same else source_se))

    # Bans of storages

    def bans(self) -> list[Ban]:
        """The bans in force, by endpoint and VO."""
        return self._bans.table.active(self._deps.clock.now())

    async def ban(
        self,
        endpoint: str,
        *,
        vo: str | None = None,
        cancel: bool = False,
        allow_submit: bool = False,
        for_s: float | None = None,
        until: float | None = None,
        message: str = "",
        by: str = "local",
    ) -> Banning:
        """Start nothing more that reads from or writes to a storage; what runs goes on, unless `cancel`.

        It replaces a ban of the same storage and VO, however the storage is spelt. When this returns, it is
        on disk. With `cancel`, as in FTS3, what waits and what runs is cancelled; a file with a replica
        elsewhere goes on with that one, and one whose copy from the banned replica runs may finish it.

        Args:
            vo: only transfers of this VO; None: of everybody.
            allow_submit: new transfers are taken and wait; otherwise submissions are refused.
            for_s, until: when it ends by itself; neither: when it is lifted.
            by: who orders it.

        Raises: Invalid: names the argument. StoreUnavailable: nothing was changed, or not all is cancelled
            yet, which goes on by itself.
        """
        if cancel and allow_submit:
            raise Invalid("a ban that cancels cannot let new transfers wait", field="allow_submit")
        now = self._deps.clock.now()
        new = Ban(
            endpoint=parse_endpoint(endpoint, "endpoint"),
            vo=None if vo is None else _name(vo, "vo"),
            cancel=cancel,
            allow_submit=allow_submit,
            until=_end(for_s, until, now),
            message=_message(message),
            by=_name(by, "by"),
            since=now,
        )
        job_ids = await self._hooks.write(lambda: self._bans.order(new), _nothing)
        return Banning(ban=new, job_ids=job_ids)

    async def unban(self, endpoint: str, *, vo: str | None = None, by: str = "local") -> bool:
        """Lift the ban of a storage for a VO, or (None) the one for everybody; False: there was none.

        Raises: Invalid: names the argument. StoreUnavailable: nothing was changed.
        """
        plain = parse_endpoint(endpoint, "endpoint")
        return await self._hooks.write(lambda: self._bans.lift(plain, vo, by), _nothing)

    # Bans of users

    def banned_users(self) -> list[UserBan]:
        """The users that are banned, by name."""
        return [self._users[user_dn] for user_dn in sorted(self._users)]

    async def ban_user(self, user_dn: str, *, message: str = "", by: str = "local") -> tuple[JobId, ...]:
        """Take nothing more from a user and cancel the user's jobs; those that it concerned.

        Raises: Invalid: names the argument. StoreUnavailable: nothing was changed, or not all is cancelled.
        """
        new = UserBan(
            user_dn=_name(user_dn, "user_dn", TEXT_MAX),
            message=_message(message),
            by=_name(by, "by"),
            since=self._deps.clock.now(),
        )

        async def order() -> tuple[JobId, ...]:
            async with self._lock:
                await self._keep_users({**self._users, user_dn: new})
            log.warning("user banned", extra={"event": "ban-user", "user_dn": user_dn, "by": by})
            return tuple(await self._cancel_jobs(new, tell=self._hooks.on_canceled))

        return await self._hooks.write(order, _nothing)

    async def unban_user(self, user_dn: str, *, by: str = "local") -> bool:
        """Take transfers from a user again; False: the user was not banned. Raises: StoreUnavailable."""

        async def lift() -> bool:
            async with self._lock:
                if user_dn not in self._users:
                    return False
                await self._keep_users({name: ban for name, ban in self._users.items() if name != user_dn})
            log.warning("user's ban lifted", extra={"event": "unban-user", "user_dn": user_dn, "by": by})
            return True

        return await self._hooks.write(lift, _nothing)

    async def _keep_users(self, users: dict[str, UserBan]) -> None:
        await self._store.keep(USERS, json.dumps([asdict(ban) for ban in users.values()]))
        self._users = users

    async def _cancel_jobs(self, user: UserBan, tell: Tell) -> list[JobId]:
        found: list[JobId] = []
        seen: set[JobId] = set()
        while user.user_dn in self._users and not self._stopping:
            # Those that are being stopped have not ended yet and are listed again.
            where = JobFilter(user_dn=user.user_dn, open_only=True, limit=len(seen) + JOBS_BLOCK)
            new = [job.job_id for job in await self._reader.jobs(where) if job.job_id not in seen]
            if not new:
                break
            for job_id in new:
                canceled = await self._store.cancel(job_id, self._deps.clock.now(), None, _failure(user))
                tell(canceled)
                seen.add(job_id)
                if canceled.n_canceled:
                    found.append(job_id)
        return found

    # Drain

    async def drain(self, on: bool = True, *, by: str = "local") -> Drain:
        """Start nothing new on this node, or (False) work again; it stays so over a restart.

        Raises: Invalid: names the argument. StoreUnavailable: nothing was changed.
        """
        _name(by, "by")

        async def order() -> None:
            async with self._lock:
                if on and self._drained is not None:
                    return
                state = (self._deps.clock.now(), by) if on else None
                await self._store.keep(DRAIN, json.dumps(state))
                self._drained = state
                self._hooks.on_caps()
            log.warning("drain ordered", extra={"event": "drain", "on": on, "by": by})

        await self._hooks.write(order, _nothing)
        return self.draining()

    def draining(self) -> Drain:
        """Whether the node is drained, what still runs, and roughly for how long."""
        since, by = self._drained or (None, None)
        moving = self._hooks.moving()
        return Drain(on=since is not None, since=since, by=by, n_running=len(moving), eta_s=_remaining_s(moving))

    # Holds

    async def hold(self, job_id: JobId) -> None:
        """Let what waits of a job wait until `resume`; what runs goes on.

        Raises: NotFound. Conflict: the job has ended. StoreUnavailable: nothing was changed.
        """
        await self._hold(job_id, held=True)

    async def resume(self, job_id: JobId) -> None:
        """Let a job that is on hold go on; any other job stays as it is. Raises: as `hold`."""
        await self._hold(job_id, held=False)

    async def _hold(self, job_id: JobId, *, held: bool) -> None:
        job = await self._reader.job(job_id)
        if job.state in JOB_TERMINAL:
            raise Conflict(f"job {job_id} has ended: it is {job.state.value}")
        await self._hooks.write(lambda: self._store.hold(job_id, held=held), self._hooks.on_shifts)


def _nothing(_: object) -> None:
    """Nobody is to be told."""


def _links(job: PlannedJob | JobRequest) -> Iterable[tuple[str, str]]:
    """The distinct (source, destination) endpoints of a job."""
    if isinstance(job, PlannedJob):
        return dict.fromkeys((file.source_se, file.dest_se) for file in job.files)
    found: dict[tuple[str, str], None] = {}
    for index, transfer in enumerate(job.transfers):
        dest_se = urls.parse(transfer.destination, f"files[{index}].destinations").endpoint
        for source in transfer.sources:
            found[urls.parse(source, f"files[{index}].sources").endpoint, dest_se] = None
    return found


def _remaining_s(moving: Sequence[Moving]) -> float | None:
    """When the last of these ends at the speed so far; one that has not begun goes as fast as the others."""
    if not moving:
        return 0.0
    rates = [one.bytes_done / one.since_s for one in moving if one.bytes_done > 0 and one.since_s > 0]
    if not rates:
        return None
    usual = sum(rates) / len(rates)
    left = []
    for one in moving:
        if one.size_bytes is not None:
            rate = one.bytes_done / one.since_s if one.bytes_done > 0 and one.since_s > 0 else usual
            left.append(max(0, one.size_bytes - one.bytes_done) / rate)
    return max(left, default=None)


def _drained(text: str | None) -> tuple[float, str] | None:
    state = None if text is None else json.loads(text)
    return None if state is None else (float(state[0]), str(state[1]))


def _users(text: str | None) -> dict[str, UserBan]:
    bans = [] if text is None else [UserBan(**one) for one in json.loads(text)]
    return {ban.user_dn: ban for ban in bans}


def _name(text: str, field: str, longest: int = NAME_MAX) -> str:
    if not 0 < len(text) <= longest or not text.isprintable():
        raise Invalid(f"expected 1 to {longest} printable characters, got {text[:40]!r}", field=field)
    return text


def _message(text: str) -> str:
    plain = " ".join(text.split())
    if len(plain) > TEXT_MAX or not plain.isprintable():
        raise Invalid(f"expected at most {TEXT_MAX} printable characters, got {text[:40]!r}", field="message")
    return plain


def _end(for_s: float | None, until: float | None, now: float) -> float | None:
    if for_s is not None and until is not None:
        raise Invalid("expected either for_s or until, got both", field="until")
    if for_s is not None:
        if not 0 < for_s <= LASTS_MAX_S:
            raise Invalid(f"expected seconds, more than 0 and at most {LASTS_MAX_S}, got {for_s}", field="for_s")
        return now + for_s
    if until is not None and not now < until <= now + LASTS_MAX_S:
        what = instant(until) if math.isfinite(until) and 0 <= until < LASTS_MAX_S * 100 else str(until)
        raise Invalid(f"expected an instant in the future, within ten years, got {what}", field="until")
    return until


def _failure(user: UserBan) -> Failure:
    """What a cancelled transfer says: FTS's sentence."""
    return Failure(
        code="BANNED",
        again=Again.NEVER,
        scope=Scope.AGENT,
        phase=Phase.PREPARATION,
        errno=errno.ECANCELED,
        message="User banned",
        hint=user.sentence(),
    )
