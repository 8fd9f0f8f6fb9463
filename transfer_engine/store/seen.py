"""The store as one caller sees it: the only place where jobs of others are kept apart.

Whatever is asked goes through a `Sight`; what it does not cover is answered as if it did not exist, in
the same words, so that nobody learns which ids there are. The job service has no other way to its
jobs: a new route cannot forget to ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transfer_engine.callers import Sight
from transfer_engine.errors import NotFound
from transfer_engine.model import FileId, JobId, Position
from transfer_engine.sealed import AuditEntry
from transfer_engine.store.api import Delayed, FileFilter, JobFilter, LinkCount, NameKind, Reader
from transfer_engine.views import AttemptView, FileView, JobView, StoredEvent


def covers(sight: Sight, job: JobView) -> bool:
    """Is this job among those that somebody sees?"""
    return sight.covers(vo=job.vo, user_dn=job.user_dn, cred_id=job.cred_id)


class SeenReader:
    """A `Reader` of what a sight covers."""

    def __init__(self, reader: Reader, sight: Sight) -> None:
        self._reader = reader
        self._sight = sight

    async def job(self, job_id: JobId) -> JobView:
        """See `Reader.job`."""
        job = await self._reader.job(job_id)
        if not covers(self._sight, job):
            raise NotFound(f"job {job_id} does not exist")
        return job

    async def jobs(self, where: JobFilter) -> list[JobView]:
        """See `Reader.jobs`."""
        return await self._reader.jobs(replace(where, sight=self._sight))

    async def jobs_by_id(self, job_ids: Sequence[JobId], *, files: bool) -> dict[JobId, tuple[JobView, list[FileView]]]:
        """See `Reader.jobs_by_id`."""
        found = await self._reader.jobs_by_id(job_ids, files=files)
        return {job_id: pair for job_id, pair in found.items() if covers(self._sight, pair[0])}

    async def files(self, job_id: JobId) -> list[FileView]:
        """See `Reader.files`."""
        await self.job(job_id)
        return await self._reader.files(job_id)

    async def file(self, file_id: FileId) -> FileView:
        """See `Reader.file`."""
        view = await self._reader.file(file_id)
        if not covers(self._sight, await self._reader.job(view.job_id)):
            raise NotFound(f"transfer {file_id} does not exist")
        return view

    async def file_list(self, where: FileFilter) -> list[FileView]:
        """See `Reader.file_list`."""
        return await self._reader.file_list(replace(where, sight=self._sight))

    async def names(self, of: NameKind, prefix: str, limit: int) -> list[str]:
        """See `Reader.names`; for who sees everything, as names are of everybody's jobs."""
        return await self._reader.names(of, prefix, limit) if self._sight.everything else []

    async def attempts(self, job_id: JobId, file_id: FileId) -> list[AttemptView]:
        """See `Reader.attempts`."""
        await self.job(job_id)
        await self.file(file_id)
        return await self._reader.attempts(job_id, file_id)

    async def events(
        self, after: int, limit: int, job_id: JobId | None = None, sight: Sight | None = None
    ) -> list[StoredEvent]:
        """See `Reader.events`; a narrower `sight` than this one's own is not needed and not taken."""
        assert sight is None or sight == self._sight, "nobody sees with another's eyes"
        return await self._reader.events(after, limit, job_id, self._sight)

    async def first_event(self) -> int:
        """See `Reader.first_event`: a number alone."""
        return await self._reader.first_event()

    async def last_event(self) -> int:
        """See `Reader.last_event`: a number alone."""
        return await self._reader.last_event()

    async def position(self, file_id: FileId) -> Position:
        """See `Reader.position`."""
        await self.file(file_id)
        return await self._reader.position(file_id)

    async def delayed(self, source_se: str, dest_se: str) -> Delayed:
        """See `Reader.delayed`: of everybody, a number alone."""
        return await self._reader.delayed(source_se, dest_se)

    async def audit(self, limit: int, vo: str | None = None) -> list[AuditEntry]:
        """See `Reader.audit`; of the VOs that are seen whole."""
        if self._sight.everything or (vo is not None and vo in self._sight.vos):
            return await self._reader.audit(limit, vo)
        found = [entry for one in sorted(self._sight.vos) for entry in await self._reader.audit(limit, one)]
        if vo is not None:
            return []
        return sorted(found, key=lambda entry: entry.seq, reverse=True)[:limit]

    async def counts(self) -> list[LinkCount]:
        """See `Reader.counts`; of the VOs that are seen whole."""
        found = await self._reader.counts()
        return found if self._sight.everything else [row for row in found if row.vo in self._sight.vos]
