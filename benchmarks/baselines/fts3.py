"""FTS3's scheduler as its documentation and public sources (3.14) describe it; our own implementation.

*One cycle*, 2 s after the last one ended:

1. nothing when `MaxUrlCopyProcesses` run (the scenario's limit of the node; it is counted down in a cycle);
2. links with pending files, in alphabetical order (the shuffle before has no effect);
3. one VO per link, drawn by share; the others of that link wait for the next cycle;
4. slots of the link: the optimizer's value less the rows in state ACTIVE; without a row up to 10 files are
   looked at and 2 may run. READY rows, started but not yet heard of, are not counted;
5. slots of a storage: its limit less the ACTIVE rows of the queues that were chosen in this cycle only;
6. `fts3_queue`: highest priority only, activity dice, order of file ids;
7. files start round robin over VOs, and over the links of a VO.

*One process per file*: `START_S` until it does anything; READY becomes ACTIVE, and an end is noticed, when
the consumer of its messages runs, once a second. Its requests are those of the engine's attempt, which are
fewer than gfal2's. Timeout 600 s + 2 s/MB and no other: nobody watches whether bytes move. A failed copy is
removed, an unknown one counts as failed; nobody looks whether it is there. Files are submitted with
`overwrite`, as Rucio does, so that remains do not fail the next attempt.

*Retries* after 120 s, always, as often as the scenario's `retries_max` says, when `is_recoverable` says so.

*Optimizer*: `fts3_optimizer`, every 60 s; its phase is half a period after the start.

In FTS's favour: time in the database costs nothing, there is one node, and the optimizer keeps its memory
(`fts3_forgetful` is 3.14.4 as it is).
"""

from __future__ import annotations

import asyncio
import errno
import math
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.baselines.driver import Driver, File, Running, size_of
from benchmarks.baselines.fts3_optimizer import ACTIVE_MIN, INTERVAL_S, Ended, LinkOptimizer
from benchmarks.baselines.fts3_queue import VoQueue
from protocols.errors import Phase, Scope
from transfer_engine.clock import Deps
from transfer_engine.config import Settings
from transfer_engine.limits import LimitTable
from transfer_engine.model import Done, Failed, Failure, JobOptions, Unknown
from transfer_engine.places import Link
from transfer_engine.shares import ShareTable
from transfer_engine.simulation.storages import SimulatedStorages

CYCLE_S: Final = 2.0
CONSUMER_S: Final = 1.0
START_S: Final = 0.5
"""Fork, plug-ins, TLS: nobody has published a figure; users see seconds, this is less."""
RETRY_S: Final = 120.0
FIRST_FILES: Final = 10
"""Looked at while the optimizer has no row for a link."""
NEVER_S: Final = 31_536_000.0

_AGAIN_TEXTS: Final = (
    "performance marker", "Name or service not known", "Connection timed out", "end-of-file was reached",
    "end of file occurred", "SRM_INTERNAL_ERROR", "was forcefully killed", "operation timeout",
)  # fmt: skip
_NEVER_TEXTS: Final = (
    "proxy expired", "with an error 550 File not found", "File exists and overwrite", "No such file or directory",
    "SRM_INVALID_PATH", "The certificate has expired", "The available CRL has expired", "SRM Authentication failed",
    "SRM_DUPLICATION_ERROR", "SRM_AUTHENTICATION_FAILURE", "SRM_NO_FREE_SPACE", "digest too big for rsa key",
    "Can not determine address of local host", "Permission denied", "System error in write into HDFS", "File exists",
    "checksum do not match", "CHECKSUM MISMATCH", "The source file is not ONLINE",
)  # fmt: skip
_NEVER_ERRNO: Final = {
    Scope.SOURCE: {
        errno.ENOENT, errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG, errno.E2BIG, errno.ENOTDIR,
        errno.EPROTONOSUPPORT,
    },
    Scope.DESTINATION: {
        errno.EPERM, errno.EACCES, errno.EISDIR, errno.E2BIG, errno.EROFS, errno.EFAULT, errno.ENAMETOOLONG,
        errno.EPROTONOSUPPORT, errno.EEXIST,
    },
    Scope.TRANSFER: {
        errno.ENOSPC, errno.EPERM, errno.EACCES, errno.EEXIST, errno.EFBIG, errno.EROFS, errno.ENAMETOOLONG,
        errno.EPROTONOSUPPORT,
    },
}  # fmt: skip
_GFAL_TEXTS: Final = {"CHECKSUM_MISMATCH": "checksum do not match", "SOURCE_CORRUPT": "checksum do not match"}
"""What gfal2 says where the engine's text is another one."""


def is_recoverable(failure: Failure) -> bool:
    """Whether FTS tries again: texts first, then the errno of the side.

    A full storage answers 507, which becomes ECOMM: it is tried again like everything of the kind.
    """
    text = f"{failure.message} {_GFAL_TEXTS.get(failure.code, '')}"
    number = errno.ECOMM if failure.code == "NO_SPACE" else failure.errno
    if any(part in text for part in _AGAIN_TEXTS) or number == errno.ETIMEDOUT:
        return True
    if number == errno.ECANCELED or any(part in text for part in _NEVER_TEXTS):
        return False
    return number not in _NEVER_ERRNO.get(failure.scope, set())


@dataclass(slots=True, eq=False)
class _Pair:
    """One link."""

    link: Link
    optimizer: LinkOptimizer
    queues: dict[str, VoQueue] = field(default_factory=dict)
    n_active: int = 0
    """Rows in state ACTIVE, of all VOs."""
    n_starting: int = 0
    """Started in this cycle."""

    def name(self) -> tuple[str, str]:
        """Its place in the alphabet."""
        return self.link.source_se, self.link.dest_se

    def limit(self) -> int:
        return ACTIVE_MIN if self.optimizer.value is None else self.optimizer.value

    def looked_at(self) -> int:
        if self.optimizer.value is None:
            return FIRST_FILES
        return self.optimizer.value - self.n_active

    def is_allowed(self) -> bool:
        """`isTrAllowed`, for each file."""
        return self.n_active + self.n_starting < self.limit()


class Fts3(Driver):
    """The daemon and its optimizer."""

    def __init__(self, storages: SimulatedStorages, settings: Settings, given: Deps, *, remembers: bool = True) -> None:
        patient = {"stall_s": NEVER_S, "silence_s": NEVER_S, "first_response_s": NEVER_S, "request_s": 300.0}
        # One DELETE, as long as its connection may take.
        once = {"cleanup_s": settings.transfer.connect_s + 0.4}
        super().__init__(storages, settings, given, transfer=settings.transfer.model_copy(update=patient | once))
        self._limits = LimitTable.of(settings.limits)
        self._shares = ShareTable.of(settings.shares)
        self._remembers = remembers
        self._pairs: dict[Link, _Pair] = {}
        self._began_at = self.loop.time()

    def loops(self) -> Iterable[Coroutine[Any, Any, None]]:
        """Both daemons."""
        return (self._cycles(), self._optimizer())

    # The queue

    def arrived(self, files: Sequence[File]) -> None:
        """Rows in state SUBMITTED."""
        for file in files:
            self._queue(file).add(file)

    def _queue(self, file: File) -> VoQueue:
        pair = self._pairs.get(file.link)
        if pair is None:
            pair = self._pairs[file.link] = _Pair(file.link, self._first_range(file.link))
        queue = pair.queues.get(file.job.vo)
        if queue is None:
            configured = self.settings.shares.activities.get(file.job.vo)
            shares = {"default": self.settings.shares.default, **configured} if configured else None
            queue = pair.queues[file.job.vo] = VoQueue(shares)
        return queue

    def _first_range(self, link: Link) -> LinkOptimizer:
        limits = self._limits
        specific = any(Link(row.source.lower(), row.destination.lower()) == link for row in self.settings.limits.links)
        high = min(limits.of_outbound(link.source_se), limits.of_inbound(link.dest_se))
        if specific or "link" in self.settings.limits.model_fields_set:
            high = limits.of_link(link)
        return LinkOptimizer(low=ACTIVE_MIN, high=high, specific=specific, remembers=self._remembers)

    # The scheduler

    async def _cycles(self) -> None:
        # Half a second beside the consumer of messages: neither sees what the other does at one instant.
        await asyncio.sleep(CONSUMER_S / 2)
        while True:
            self._cycle(self.loop.time())
            await asyncio.sleep(CYCLE_S)

    def _cycle(self, now: float) -> None:
        n_left = self._limits.node - len(self.running)
        if n_left <= 0:
            return
        for pair in self._pairs.values():
            for queue in pair.queues.values():
                for file in queue.due(now):
                    self.becomes_ready(file)
        pending = sorted((pair for pair in self._pairs.values() if any(pair.queues.values())), key=_Pair.name)
        chosen = [(pair, self._draw(pair)) for pair in pending]
        by_vo: dict[str, list[list[File]]] = {}
        outbound, inbound = self._storage_slots(chosen)
        for pair, vo in chosen:
            pair.n_starting = 0
            queue, link = pair.queues[vo], pair.link
            n = min(pair.looked_at(), outbound[link.source_se], inbound[link.dest_se])
            if n <= 0:
                continue
            files = queue.pick(n, self.deps.rng)
            outbound[link.source_se] -= len(files)
            inbound[link.dest_se] -= len(files)
            by_vo.setdefault(vo, []).append(files)
        self._begin(by_vo, n_left)

    def _draw(self, pair: _Pair) -> str:
        vos = sorted(vo for vo, queue in pair.queues.items() if queue)
        return self.deps.rng.choices(vos, [self._shares.of_vo(vo) for vo in vos])[0]

    def _storage_slots(self, chosen: Sequence[tuple[_Pair, str]]) -> tuple[Counter[str], Counter[str]]:
        outbound: Counter[str] = Counter()
        inbound: Counter[str] = Counter()
        for pair, _ in chosen:
            outbound[pair.link.source_se] = self._limits.of_outbound(pair.link.source_se)
            inbound[pair.link.dest_se] = self._limits.of_inbound(pair.link.dest_se)
        for pair, vo in chosen:
            outbound[pair.link.source_se] -= pair.queues[vo].n_active
            inbound[pair.link.dest_se] -= pair.queues[vo].n_active
        return outbound, inbound

    def _begin(self, by_vo: dict[str, list[list[File]]], n_left: int) -> None:
        """Round robin; who is not allowed after all, or one too many, stays in its queue."""
        turns = {vo: [files[::-1] for files in groups if files] for vo, groups in by_vo.items()}
        while any(turns.values()):
            for vo, groups in turns.items():
                if not groups:
                    continue
                files = groups.pop(0)
                file = files.pop()
                if files:
                    groups.append(files)
                pair = self._pairs[file.link]
                if n_left > 0 and pair.is_allowed():
                    n_left -= 1
                    pair.n_starting += 1
                    self.start(file, self._options(file))
                else:
                    pair.queues[vo].add(file)

    def _options(self, file: File) -> JobOptions:
        return JobOptions(overwrite=True, timeout_s=600.0 + 2.0 * math.ceil(size_of(file) / 1e6))

    # One process

    async def drive(self, running: Running) -> None:
        """`fts_url_copy`: it starts, works, and tells what happened."""
        await asyncio.sleep(START_S)
        row = _Row(self._pairs[running.file.link], self._pairs[running.file.link].queues[running.file.job.vo])
        telling = self.loop.call_at(self._next_message(), row.is_active)
        began_at = self.loop.time()
        outcome = await running.attempt.run()
        if isinstance(outcome, Unknown) and outcome.failure.phase is not Phase.FINALIZATION:
            await running.attempt.clean_up()
        ended_at = self.loop.time()
        await asyncio.sleep(self._next_message() - ended_at)
        telling.cancel()
        row.is_over()
        self.release(running)
        assert isinstance(outcome, Done | Failed | Unknown)
        finished = isinstance(outcome, Done)
        retried = not isinstance(outcome, Done) and self._retry(running.file, outcome.failure)
        row.pair.optimizer.ended(Ended(began_at, ended_at, size_of(running.file), finished, retried))
        if not retried:
            self.end(running.file, finished=finished)

    def _next_message(self) -> float:
        """When the consumer runs next."""
        since = self.loop.time() - self._began_at
        return self._began_at + (math.floor(since / CONSUMER_S + 1e-9) + 1) * CONSUMER_S

    def _retry(self, file: File, failure: Failure) -> bool:
        file.n_failed += 1
        if file.n_failed > self.settings.retry.retries_max or not is_recoverable(failure):
            return False
        self._queue(file).delay(file, self.loop.time() + RETRY_S)
        return True

    # The optimizer

    async def _optimizer(self) -> None:
        await asyncio.sleep(INTERVAL_S / 2)
        while True:
            self._optimize(self.loop.time())
            await asyncio.sleep(INTERVAL_S)

    def _optimize(self, now: float) -> None:
        moving: dict[Link, list[tuple[float, int]]] = {}
        for running in self.running.values():
            moving.setdefault(running.file.link, []).append((running.began_at, running.progress.bytes_done))
        for link, pair in self._pairs.items():
            n_queued = sum(map(len, pair.queues.values()))
            if n_queued or link in moving:
                pair.optimizer.run(now, n_queued, moving.get(link, []))


@dataclass(slots=True)
class _Row:
    """What the database says of one running file."""

    pair: _Pair
    queue: VoQueue
    active: bool = False

    def is_active(self) -> None:
        self._count(1)
        self.active = True

    def is_over(self) -> None:
        if self.active:
            self._count(-1)

    def _count(self, n: int) -> None:
        self.pair.n_active += n
        self.queue.n_active += n
