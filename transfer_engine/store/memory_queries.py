"""Questions to the store in memory; nothing here writes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from transfer_engine.callers import EVERYTHING, Sight
from transfer_engine.errors import NotFound
from transfer_engine.model import FileId, JobId, Queue
from transfer_engine.states import FileState
from transfer_engine.store.api import FileFilter, JobFilter, LinkCount, NameKind
from transfer_engine.store.memory_rows import Gone, Job
from transfer_engine.store.memory_tables import Tables
from transfer_engine.views import AttemptView, FileView, JobView, StoredEvent


def job_list(tables: Tables, where: JobFilter) -> list[JobView]:
    """See `Reader.jobs`."""
    newest_first = sorted(tables.by_ref.values(), key=lambda job: job.submitted_at, reverse=True)
    found = (job for job in newest_first if _is_meant(job, where))
    return [job.view() for job in islice(found, where.limit)]


def _is_meant(job: Job, where: JobFilter) -> bool:
    if where.open_only and job.finished_at is not None:
        return False
    if where.states is not None and job.state not in where.states:
        return False
    if where.submitted_after is not None and job.submitted_at < where.submitted_after:
        return False
    if not where.sight.covers(vo=job.vo, user_dn=job.user_dn, cred_id=job.cred_id):
        return False
    return all(
        getattr(where, name) in {None, getattr(job, name)}
        for name in ("vo", "user_dn", "cred_id", "source_se", "dest_se")
    )


def files(tables: Tables, job: Job) -> list[FileView]:
    """The transfers of a job in the order submitted."""
    return [row.view() for row in tables.rows(job)]


def file_list(tables: Tables, where: FileFilter) -> list[FileView]:
    """See `Reader.file_list`."""
    found: list[FileView] = []
    for ref in sorted(tables.by_ref, reverse=True):
        job = tables.by_ref[ref]
        ended = where.ended_after
        timely = job.finished_at is None if ended is None else (job.finished_at or -math.inf) >= ended
        if timely and where.sight.covers(vo=job.vo, user_dn=job.user_dn, cred_id=job.cred_id):
            found += [view for view in reversed(files(tables, job)) if _is_listed(view, where)]
        if len(found) >= where.limit:
            break
    return found[: where.limit]


def _is_listed(view: FileView, where: FileFilter) -> bool:
    if where.states is not None and view.state not in where.states:
        return False
    return all(
        getattr(where, name) in {None, getattr(view, name)} for name in ("vo", "source_se", "dest_se", "dest_url")
    )


def names(tables: Tables, of: NameKind, prefix: str, limit: int) -> list[str]:
    """See `Reader.names`."""
    found: set[str] = set()
    if of == "dn":
        found |= {job.user_dn for job in tables.by_ref.values()}
    for queue in tables.queues.values():
        if of == "vo":
            found.add(queue.vo)
        if of in {"source", "storage"}:
            found.add(queue.source_se)
        if of in {"destination", "storage"}:
            found.add(queue.dest_se)
    return sorted(name for name in found if name.startswith(prefix))[:limit]


def jobs_by_id(
    tables: Tables, job_ids: Sequence[JobId], *, with_files: bool
) -> dict[JobId, tuple[JobView, list[FileView]]]:
    """See `Reader.jobs_by_id`."""
    found = {}
    for job_id in job_ids:
        job = tables.by_id.get(job_id)
        if job is not None:
            found[job_id] = job.view(), files(tables, job) if with_files else []
    return found


def files_by_id(tables: Tables, file_ids: Sequence[FileId]) -> dict[FileId, FileView]:
    """See `Outbox.files_by_id`."""
    found = {}
    for file_id in file_ids:
        place = tables.place(file_id)
        if place is not None and not isinstance(place[0].files[place[1]], Gone):
            found[file_id] = tables.peek(*place).view()
    return found


def files_behind(tables: Tables, job_id: JobId, after: int, limit: int) -> list[FileView]:
    """See `Outbox.files_behind`."""
    job = tables.by_id.get(job_id)
    if job is None:
        return []
    first = max(after + 1 - job.first, 0)
    places = range(first, min(first + limit, len(job.files)))
    return [tables.peek(job, index).view() for index in places if not isinstance(job.files[index], Gone)]


def attempts(tables: Tables, job_id: JobId, file_id: FileId) -> list[AttemptView]:
    """See `Reader.attempts`."""
    row = tables.find(file_id)
    if row.job.job_id != job_id:
        raise NotFound(f"transfer {file_id} does not belong to job {job_id}")
    return list(row.attempts or ())


def events(
    tables: Tables, after: int, limit: int, job_id: JobId | None, sight: Sight = EVERYTHING
) -> list[StoredEvent]:
    """See `Reader.events`."""
    if not tables.events:
        return []
    start = max(after + 1 - tables.events[0].seq, 0)
    if job_id is None and sight.everything:
        return tables.events[start : start + limit]

    def is_meant(event: StoredEvent) -> bool:
        if job_id is not None and event.job_id != job_id:
            return False
        job = tables.by_id.get(event.job_id)
        return sight.everything or (
            job is not None and sight.covers(vo=job.vo, user_dn=job.user_dn, cred_id=job.cred_id)
        )

    return list(islice((event for event in islice(tables.events, start, None) if is_meant(event)), limit))


def last_event(tables: Tables) -> int:
    """See `Reader.last_event`."""
    return tables.last_seq


def counts(tables: Tables) -> list[LinkCount]:
    """See `Reader.counts`."""
    found: Counter[tuple[Queue, FileState]] = Counter()
    for job in tables.by_ref.values():
        found.update((row.queue, row.state) for row in tables.rows(job))
    return [
        LinkCount(
            source_se=queue.source_se,
            dest_se=queue.dest_se,
            vo=queue.vo,
            activity=queue.activity,
            state=state,
            n=n,
        )
        for (queue, state), n in sorted(found.items(), key=lambda item: (item[0][0].id, item[0][1]))
    ]
