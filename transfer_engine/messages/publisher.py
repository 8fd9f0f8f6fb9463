"""From the outbox to the broker: everything at least once, and in the order of the commits.

A cursor is kept in the store. It moves on when the broker has confirmed what lies before it, so that a
crash, or a broker that goes away, repeats some messages and loses none. Transfers never wait for it: while
the broker is away the outbox grows, to `messages.backlog_max`; what is dropped beyond is counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import cycle
from typing import Final, TypeVar

from transfer_engine.clock import Deps
from transfer_engine.config_service import MessageSettings
from transfer_engine.errors import StoreUnavailable
from transfer_engine.messages.broker import BrokerAway, Courier
from transfer_engine.messages.documents import Author, Story
from transfer_engine.messages.letters import Letter, Letters
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store.api import Outbox
from transfer_engine.views import FileView, JobView, StoredEvent

log = logging.getLogger(__name__)

T = TypeVar("T")

CURSOR: Final = "messages"
"""Name under which the store keeps how far everything was confirmed."""
BLOCK: Final = 500
"""Events that are read, and messages that wait for their confirmation, at a time."""
SMALL: Final = 10
"""Files of a job that is read whole, together with others of its kind."""
GATHER_S: Final = 0.05
"""How long a few events wait for more, so that a lonely one costs no more than a full block."""
KEEP_S: Final = 1.0
"""How old the cursor in the store may be: so much is repeated after a crash."""
STORE_RETRY_S: Final = 1.0
LOOK_S: Final = 5.0
"""How often it is looked whether the broker is still there while nothing happens."""
BOUND_S: Final = 10.0
"""How often it is looked whether too much waits."""
ENDING_PAUSE_S: Final = 0.1
PAUSE_S: Final = 0.5
"""First pause after no broker could be reached; doubles each time."""


class Publisher:
    """A companion of the engine: tells a broker what happens to transfers."""

    def __init__(
        self,
        *,
        store: Outbox,
        courier: Courier,
        settings: MessageSettings,
        author: Author,
        deps: Deps,
    ) -> None:
        self._store = store
        self._courier = courier
        self._settings = settings
        self._letters = Letters(settings=settings, author=author)
        self._deps = deps
        self._brokers = cycle(settings.brokers)
        self._news = asyncio.Event()
        self._ending = False
        self._cursor = 0
        self._kept = 0
        self._kept_at = 0.0
        self._bound_at = 0.0
        self._pause_s = PAUSE_S
        self._n_failed = 0
        """Brokers that were tried in vain, since one took something."""
        self._trouble: str | None = "no broker has been reached yet"
        self.n_sent = 0
        """Messages that were confirmed."""
        self.n_lost = 0
        """Events that were dropped because the broker was away for too long."""
        self.n_unmade = 0
        """Events that no message could be made of."""

    # Companion

    async def open(self) -> None:
        """Find where to go on; the first time ever: what happens from now on. Raises: StoreUnavailable."""
        kept = await self._store.kept(CURSOR)
        newest = await self._store.last_event()
        if kept is None or not kept.isdecimal() or int(kept) > newest:
            # In a database that is new there is nothing yet; in an old one jobs of last week are no news.
            self._cursor = newest
            await self._store.keep(CURSOR, str(newest))
        else:
            self._cursor = int(kept)
        self._kept = self._cursor

    def tell(self) -> None:
        """Something was committed."""
        self._news.set()

    def position(self) -> int:
        """`seq` of the last event that needs to be kept no longer."""
        return self._kept

    def trouble(self) -> str | None:
        """Why messages wait; None: they do not."""
        return self._trouble

    def finish(self) -> None:
        """Nothing more will be committed: `run` ends when what is has been sent, or cannot be sent now."""
        self._ending = True
        self._news.set()

    async def run(self) -> None:
        """Publish until `finish`, or until cancelled."""
        try:
            # In the end each broker gets another chance, and no more.
            while not self._ending or self._n_failed <= len(self._settings.brokers):
                try:
                    await self._courier.connect(next(self._brokers))
                    await self._publish()
                except BrokerAway as error:
                    self._away(str(error))
                except Exception:  # task boundary: a mistake here must not end the messages for good
                    log.exception("messages broke")
                    self._away("an internal error, see the log")
                else:
                    return
                await self._bound()
                if self._ending or self._n_failed % len(self._settings.brokers) == 0:
                    await self._pause(self._pause_s * self._deps.rng.uniform(0.8, 1.2))
                    self._pause_s = min(2 * self._pause_s, self._settings.retry_max_s)
        finally:
            await self._courier.close()

    async def _pause(self, pause_s: float) -> None:
        """Wait, but not for long when the engine ends."""
        await asyncio.sleep(ENDING_PAUSE_S)
        end = asyncio.get_running_loop().time() + pause_s
        while not self._ending and (left_s := end - asyncio.get_running_loop().time()) > 0:
            await self._hear(left_s)

    async def _hear(self, timeout_s: float | None) -> bool:
        """Wait for news. False: there was none."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def _reached(self) -> None:
        """A broker takes messages: that it lets somebody log in is not enough."""
        if self._trouble is not None:
            log.info("messages go out", extra={"event": "broker-reached"})
        self._trouble = None
        self._pause_s, self._n_failed = PAUSE_S, 0

    def _away(self, why: str) -> None:
        self._n_failed += 1
        if why != self._trouble:
            log.warning("messages wait: %s", why, extra={"event": "broker-away"})
        self._trouble = why

    # From the outbox to the broker

    async def _publish(self) -> None:
        """Send what comes; returns after `finish`, when everything is sent. Raises: BrokerAway."""
        while True:
            try:
                block = await self._store.events(self._cursor, BLOCK)
                if block:
                    await self._send_block(block)
                self._reached()
                await self._keep(at_once=not block and self._ending)
            except StoreUnavailable as error:
                log.warning("messages wait for the store: %s", error)
                await asyncio.sleep(STORE_RETRY_S)
                continue
            if len(block) == BLOCK:
                await self._bound()
                continue
            if not block and self._ending:
                return
            if not block:
                # A cursor that has not been kept yet is, soon, although nothing happens any more.
                if not await self._hear(KEEP_S if self._kept < self._cursor else LOOK_S):
                    self._courier.check()
            elif not self._ending:
                await asyncio.sleep(GATHER_S)

    async def _send_block(self, block: Sequence[StoredEvent]) -> None:
        letters: list[Letter] = []
        async for made in self._made(block):
            letters += made
            if len(letters) >= BLOCK:
                await self._send(letters)
                letters = []
        if letters:
            await self._send(letters)
        self._cursor = block[-1].seq

    async def _send(self, letters: Sequence[Letter]) -> None:
        expires_ms = round((self._deps.clock.now() + self._settings.ttl_s) * 1000)
        await self._courier.send(letters, expires_ms)
        self.n_sent += len(letters)

    async def _made(self, block: Sequence[StoredEvent]) -> AsyncIterator[list[Letter]]:
        """The messages of each event, in order; an event that none can be made of is passed over."""
        jobs = await self._store.jobs_by_id(_unique(event.job_id for event in block), files=False)
        accepted = [event.job_id for event in block if _accepts(event) and event.job_id in jobs]
        small = [job_id for job_id in accepted if jobs[job_id][0].n_files <= SMALL] if self._settings.state else []
        whole = await self._store.jobs_by_id(small, files=True) if small else {}
        ids = _unique(event.file_id for event in block if event.file_id is not None)
        files = await self._store.files_by_id(ids)
        for event in block:
            job = jobs.get(event.job_id, (None,))[0]
            if job is None:
                continue
            if event.file_id is None:
                if _accepts(event):
                    known = whole.get(event.job_id, (job, None))[1]
                    async for made in self._accepted(event, job, known):
                        yield made
            elif (file := files.get(event.file_id)) is not None:
                yield self._make(self._letters.of_change, Story(event, job, file))

    async def _accepted(
        self, event: StoredEvent, job: JobView, known: Sequence[FileView] | None
    ) -> AsyncIterator[list[Letter]]:
        """The first state of each transfer of a job, some at a time: a job may have very many."""
        if not self._settings.state:
            return
        before: FileView | None = None
        part = known if known is not None else await self._store.files_behind(job.job_id, 0, BLOCK)
        while part:
            for file in part:
                state = _first_state(job, file, before)
                first = StoredEvent(
                    seq=event.seq, at=event.at, kind="transfer", job_id=job.job_id, file_id=file.file_id, state=state
                )
                yield self._make(self._letters.of_acceptance, Story(first, job, file))
                before = file
            part = () if known is not None else await self._store.files_behind(job.job_id, part[-1].file_id, BLOCK)

    def _make(self, make: Callable[[Story], list[Letter]], story: Story) -> list[Letter]:
        try:
            return make(story)
        except Exception:  # boundary of one event: a mistake in its message must not stop those of all others
            self.n_unmade += 1
            log.exception("no message could be made", extra={"seq": story.event.seq, "job_id": story.event.job_id})
            return []

    # The cursor

    async def _keep(self, *, at_once: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        if self._kept < self._cursor and (at_once or now - self._kept_at >= KEEP_S):
            cursor = self._cursor
            await self._store.keep(CURSOR, str(cursor))
            self._kept, self._kept_at = cursor, now

    async def _bound(self) -> None:
        """Let go of what is too much to be kept for a broker that is away, or too slow."""
        now = asyncio.get_running_loop().time()
        if now < self._bound_at:
            return
        self._bound_at = now + BOUND_S
        try:
            newest = await self._store.last_event()
            n = newest - self._cursor - self._settings.backlog_max
            if n <= 0:
                return
            self._cursor += n
            await self._keep(at_once=True)
        except StoreUnavailable as error:
            log.warning("messages wait for the store: %s", error)
            return
        self.n_lost += n
        log.error("%d events will not be told: the broker was away for too long", n, extra={"event": "messages-lost"})


def _accepts(event: StoredEvent) -> bool:
    """Whether it says that a job was accepted."""
    return event.file_id is None and event.state == JobState.SUBMITTED


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _first_state(job: JobView, file: FileView, before: FileView | None) -> FileState:
    """What a transfer was when it was accepted: the first hop of a route and the first replica have their turn."""
    waits = before is not None and (job.job_type is JobType.MULTIHOP or before.file_index == file.file_index)
    return FileState.NOT_USED if waits else FileState.SUBMITTED
