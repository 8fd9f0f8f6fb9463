"""The embedded store: SQLite, one writing connection with group commit, readers beside it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from protocols.masking import shapeless
from transfer_engine.callers import EVERYTHING, Sight
from transfer_engine.errors import Invalid, NotFound, StoreLocked, StoreUnavailable
from transfer_engine.model import (
    Applied,
    Assignment,
    Change,
    Choice,
    Claim,
    Failure,
    FileId,
    JobId,
    PlannedJob,
    Position,
    QueueId,
    Reroute,
    Shift,
)
from transfer_engine.places import Ban
from transfer_engine.store import listing, notes, queries, replicas, schema
from transfer_engine.store.api import (
    Backlog,
    Canceled,
    Delayed,
    FileFilter,
    Forced,
    Inserted,
    JobFilter,
    LinkCount,
    NameKind,
    WaitingFilter,
)
from transfer_engine.store.books import Books
from transfer_engine.store.cancel import BY_USER, CancelJobs, CancelRequest, Expire
from transfer_engine.store.claim import ClaimFiles, ClaimTransfers, TakeOver, mark_copying
from transfer_engine.store.insert import Insert
from transfer_engine.store.secrets import SecretOperations
from transfer_engine.store.settle import ApplyChanges
from transfer_engine.store.tables import engines, events
from transfer_engine.store.waiting import Hasten, Hold, LoadBacklog, Promote, SetPriority
from transfer_engine.store.withdraw import Search, Withdraw, Withdrawal
from transfer_engine.store.writer import Writer
from transfer_engine.views import AttemptView, FileView, JobView, StoredEvent

T = TypeVar("T")

READERS: Final = 2
"""Connections that answer queries; the machine has few cores and the queries are short."""


def database_path(url: str) -> Path | None:
    """The file of a `sqlite://` URL, None for one in memory; Invalid for any other URL."""
    if url in {"sqlite://", "sqlite:///:memory:"}:
        return None
    if not url.startswith("sqlite:///") or len(url) <= len("sqlite:///"):
        raise Invalid(
            f"{shapeless(url)!r} is not a database this version opens, expected sqlite:///path", field="database"
        )
    return Path(url.removeprefix("sqlite:///"))


def _pragmas(connection: Any, *, writes: bool) -> None:
    # The driver must not open transactions by itself: BEGIN IMMEDIATE takes the lock at the start.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "secure_delete = OFF",
        "cache_size = -65536" if writes else "cache_size = -8192",
        "temp_store = MEMORY",
        "wal_autocheckpoint = 4000" if writes else "query_only = ON",
        "busy_timeout = 5000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _engine(path: Path | None, *, writes: bool) -> Engine:
    if path is None:
        engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}, hide_parameters=True
        )
    else:
        engine = create_engine(
            f"sqlite:///{path}",
            poolclass=StaticPool if writes else QueuePool,
            connect_args={"check_same_thread": False},
            # Errors end in the log with their traceback; the URLs of transfers may hold signatures.
            hide_parameters=True,
        )
    event.listen(engine, "connect", lambda connection, _record: _pragmas(connection, writes=writes))
    event.listen(
        engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
    )
    return engine


class SqliteStore(SecretOperations):
    """`Store` and `Reader` on one SQLite database. See `transfer_engine.store.api` for the contract."""

    def __init__(self, url: str, *, incarnation: str, now: Callable[[], float], inline: bool = False) -> None:
        """Args: url: `sqlite:///path` or `sqlite://`. inline: no threads, for virtual time."""
        self._path = database_path(url)
        self._inline = inline
        self._now = now
        self._books = Books(incarnation)
        self._writer = Writer(self._connect, on_rollback=self._books.forget, inline=inline)
        self._lock: IO[str] | None = None
        self._read_engine: Engine | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._insert = Insert(self._books)
        self._claim = ClaimTransfers(self._books)
        self._claim_files = ClaimFiles(self._books, self._claim)
        self._take_over = TakeOver(self._books)
        self._apply = ApplyChanges(self._books)
        cancel = CancelJobs(self._books)
        self._cancel = cancel
        self._expire = Expire(cancel)
        self._priority = SetPriority(self._books)
        self._hold = Hold(self._books)
        self._search = Search()
        self._withdraw = Withdraw(self._books)
        self._reroute = replicas.ReRoute(self._books)
        self._promote = Promote(self._books)
        self._hasten = Hasten(self._books)
        self._backlog = LoadBacklog(self._books)

    # Life cycle

    async def open(self) -> None:
        """See `Store.open`."""
        self._take_lock()
        try:
            await self._writer.start()
        except (SQLAlchemyError, OSError) as error:
            self._drop_lock()
            msg = f"the database cannot be opened: {getattr(error, 'orig', error)}"
            raise StoreUnavailable(msg) from error
        except BaseException:
            self._drop_lock()
            raise
        if self._path is not None and not self._inline:
            self._read_engine = _engine(self._path, writes=False)
            self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")

    async def close(self) -> None:
        """See `Store.close`."""
        await self._writer.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        if self._read_engine is not None:
            self._read_engine.dispose()
        self._drop_lock()

    def _take_lock(self) -> None:
        if self._path is None:
            return
        try:
            self._lock = self._path.with_name(self._path.name + ".lock").open("a+")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._drop_lock()
            msg = f"another engine is running on {self._path}; a SQLite database serves one engine at a time"
            raise StoreLocked(msg) from error
        except OSError as error:
            msg = f"the database {self._path} cannot be opened: {error.strerror}"
            raise StoreUnavailable(msg) from error
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def _drop_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _connect(self) -> Connection:
        connection = _engine(self._path, writes=True).connect()
        with connection.begin():
            schema.upgrade(connection)
            connection.execute(
                insert(engines).values(
                    incarnation=self._books.incarnation, host=socket.gethostname(), started_at=self._now()
                )
            )
        return connection

    # Writes

    async def insert(self, job: PlannedJob) -> Inserted:
        """See `Store.insert`."""
        return cast("Inserted", await self._writer.submit(self._insert, job))

    async def claim(self, claims: Sequence[Claim], now: float) -> list[Assignment]:
        """See `Store.claim`."""
        return cast("list[Assignment]", await self._writer.submit(self._claim, (claims, now)))

    async def claim_files(self, file_ids: Sequence[FileId], now: float) -> Forced:
        """See `Store.claim_files`."""
        return cast("Forced", await self._writer.submit(self._claim_files, (file_ids, now)))

    async def mark_copying(self, file_id: FileId, epoch: int) -> bool:
        """See `Store.mark_copying`."""
        return cast("bool", await self._writer.submit(mark_copying, (file_id, epoch)))

    async def apply(self, change: Change) -> Applied:
        """See `Store.apply`."""
        return cast("Applied", await self._writer.submit(self._apply, change))

    async def cancel(
        self, job_id: JobId, now: float, file_ids: Sequence[FileId] | None = None, failure: Failure | None = None
    ) -> Canceled:
        """See `Store.cancel`."""
        request = CancelRequest(job_id, now, file_ids, failure=failure or BY_USER)
        return cast("Canceled", await self._writer.submit(self._cancel, request))

    async def set_priority(self, job_id: JobId, priority: int) -> tuple[Shift, ...]:
        """See `Store.set_priority`."""
        return cast("tuple[Shift, ...]", await self._writer.submit(self._priority, (job_id, priority)))

    async def hold(self, job_id: JobId, *, held: bool) -> tuple[Shift, ...]:
        """See `Store.hold`."""
        return cast("tuple[Shift, ...]", await self._writer.submit(self._hold, (job_id, held)))

    async def put_ban(self, ban: Ban) -> None:
        """See `Store.put_ban`."""
        await self._writer.submit(notes.put_bans, ban)

    async def lift_ban(self, endpoint: str, vo: str | None) -> bool:
        """See `Store.lift_ban`."""
        return cast("bool", await self._writer.submit(notes.lift_bans, (endpoint, vo)))

    async def cancel_waiting(self, where: WaitingFilter, now: float, limit: int, failure: Failure) -> list[Canceled]:
        """See `Store.cancel_waiting`."""
        # The search may take long: it must not hold up what is written.
        before: list[int] = []
        while (refs := await self._read(self._search, where, limit)) and refs != before:
            request = Withdrawal(refs, where, now, failure)
            if done := cast("list[Canceled]", await self._writer.submit(self._withdraw, request)):
                return done
            # All of them have begun, or ended, since they were found.
            before = refs
        return []

    async def reroute(self, moves: Sequence[Reroute]) -> tuple[Shift, ...]:
        """See `Store.reroute`."""
        return cast("tuple[Shift, ...]", await self._writer.submit(self._reroute, moves))

    async def keep(self, name: str, text: str) -> None:
        """See `Store.keep`."""
        await self._writer.submit(notes.keep_texts, (name, text))

    async def hasten(self, endpoint: str, limit: int) -> tuple[Shift, ...]:
        """See `Store.hasten`."""
        return cast("tuple[Shift, ...]", await self._writer.submit(self._hasten, (endpoint, limit)))

    async def promote(self, now: float, limit: int) -> Backlog:
        """See `Store.promote`."""
        return cast("Backlog", await self._writer.submit(self._promote, (now, limit)))

    async def expire(self, now: float, limit: int) -> tuple[list[Canceled], float | None]:
        """See `Store.expire`."""
        return cast("tuple[list[Canceled], float | None]", await self._writer.submit(self._expire, (now, limit)))

    async def take_over(self, now: float, limit: int) -> list[Assignment]:
        """See `Store.take_over`."""
        return cast("list[Assignment]", await self._writer.submit(self._take_over, (now, limit)))

    async def backlog(self) -> Backlog:
        """See `Store.backlog`."""
        return cast("Backlog", await self._writer.submit(self._backlog, None))

    async def bans(self) -> list[Ban]:
        """See `Store.bans`."""
        return await self._read(notes.ban_list)

    async def kept(self, name: str) -> str | None:
        """See `Store.kept`."""
        return await self._read(notes.kept_text, name)

    async def choices(self, limit: int, after: tuple[QueueId, int] | None = None) -> list[Choice]:
        """See `Store.choices`."""
        return await self._read(replicas.choices, limit, after)

    async def choice_behind(self, queue_id: QueueId, priority: int, after: FileId, limit: int) -> Choice | None:
        """See `Store.choice_behind`."""
        return await self._read(replicas.choice_behind, queue_id, priority, after, limit)

    async def prune_events(self, keep: int, published: int | None = None) -> None:
        """See `Store.prune_events`."""
        await self._writer.submit(_prune, (keep, published))

    # Queries

    async def _read(self, query: Callable[..., T], *args: Any) -> T:
        if self._pool is None or self._read_engine is None:
            return cast("T", await self._writer.submit(_query, lambda connection: query(connection, *args)))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._read_blocking, query, args)

    def _read_blocking(self, query: Callable[..., T], args: tuple[Any, ...]) -> T:
        engine = cast("Engine", self._read_engine)
        try:
            with engine.connect() as connection:
                return query(connection, *args)
        except DBAPIError as error:
            msg = f"the database cannot be read: {error.orig}"
            raise StoreUnavailable(msg) from error

    async def job(self, job_id: JobId) -> JobView:
        """See `Reader.job`."""
        return await self._read(queries.job, job_id)

    async def jobs(self, where: JobFilter) -> list[JobView]:
        """See `Reader.jobs`."""
        return await self._read(queries.job_list, where)

    async def jobs_by_id(self, job_ids: Sequence[JobId], *, files: bool) -> dict[JobId, tuple[JobView, list[FileView]]]:
        """See `Reader.jobs_by_id`."""
        return await self._read(queries.jobs_by_id, job_ids, files)

    async def files(self, job_id: JobId) -> list[FileView]:
        """See `Reader.files`."""
        return await self._read(queries.files, job_id)

    async def files_by_id(self, file_ids: Sequence[FileId]) -> dict[FileId, FileView]:
        """See `Outbox.files_by_id`."""
        return await self._read(queries.files_by_id, file_ids)

    async def files_behind(self, job_id: JobId, after: int, limit: int) -> list[FileView]:
        """See `Outbox.files_behind`."""
        return await self._read(queries.files_behind, job_id, after, limit)

    async def file(self, file_id: FileId) -> FileView:
        """See `Reader.file`."""
        return await self._read(queries.file, file_id)

    async def file_list(self, where: FileFilter) -> list[FileView]:
        """See `Reader.file_list`."""
        return await self._read(listing.file_list, where)

    async def names(self, of: NameKind, prefix: str, limit: int) -> list[str]:
        """See `Reader.names`."""
        return await self._read(listing.names, of, prefix, limit)

    async def attempts(self, job_id: JobId, file_id: FileId) -> list[AttemptView]:
        """See `Reader.attempts`."""
        return await self._read(queries.failed_attempts, job_id, file_id)

    async def events(
        self, after: int, limit: int, job_id: JobId | None = None, sight: Sight = EVERYTHING
    ) -> list[StoredEvent]:
        """See `Reader.events`."""
        return await self._read(queries.event_list, after, limit, job_id, sight)

    async def first_event(self) -> int:
        """See `Reader.first_event`."""
        return await self._read(queries.first_event)

    async def last_event(self) -> int:
        """See `Reader.last_event`."""
        return await self._read(queries.last_event)

    async def position(self, file_id: FileId) -> Position:
        """See `Reader.position`."""
        return await self._read(queries.position, file_id)

    async def delayed(self, source_se: str, dest_se: str) -> Delayed:
        """See `Reader.delayed`."""
        return await self._read(queries.delayed, source_se, dest_se)

    async def counts(self) -> list[LinkCount]:
        """See `Reader.counts`."""
        return await self._read(queries.counts)


def _query(connection: Connection, batch: Sequence[Callable[[Connection], Any]]) -> list[Any]:
    """Queries of a store in memory, which has one connection only."""
    results: list[Any] = []
    for query in batch:
        try:
            results.append(query(connection))
        except NotFound as error:
            results.append(error)
    return results


def _prune(connection: Connection, batch: Sequence[tuple[int, int | None]]) -> list[None]:
    newest = connection.execute(select(events.c.seq).order_by(events.c.seq.desc()).limit(1)).scalar()
    if newest is not None:
        last = max(newest - keep if published is None else min(newest - keep, published) for keep, published in batch)
        connection.execute(delete(events).where(events.c.seq <= last))
    return [None] * len(batch)


def integrity(connection: Connection) -> str:
    """SQLite's own check of the file: `ok`, or what is wrong."""
    with contextlib.closing(connection.execute(text("PRAGMA quick_check(1)"))) as result:
        return str(result.scalar())
