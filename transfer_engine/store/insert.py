"""Accept jobs: one transaction, and the commit is the acceptance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from transfer_engine.errors import Conflict
from transfer_engine.model import PlannedJob, Shift
from transfer_engine.sizes import size_class
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store import news, token_rows
from transfer_engine.store.api import Inserted
from transfer_engine.store.books import Books
from transfer_engine.store.tables import FOLLOWED_BY_HOP, FOLLOWED_BY_REPLICA, jobs, transfers
from transfer_engine.store.tally import Tally


class Insert:
    """The operation `insert`, with the books it needs."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def __call__(self, connection: Connection, batch: Sequence[PlannedJob]) -> list[Inserted | Conflict]:
        """Store each job, or say why not; an id that is there already changes nothing."""
        known = self._known(connection, batch)
        results: list[Inserted | Conflict] = []
        fresh: list[tuple[PlannedJob, int]] = []
        for job in batch:
            fingerprint = known.get(job.job_id)
            if fingerprint is None:
                known[job.job_id] = job.fingerprint
                fresh.append((job, len(results)))
                results.append(Inserted(job_id=job.job_id, new=True, shifts=()))
            elif job.repeatable and fingerprint == job.fingerprint:
                results.append(Inserted(job_id=job.job_id, new=False, shifts=()))
            else:
                results.append(Conflict(f"job {job.job_id} exists already"))
        if fresh:
            for place, shifts in self._store(connection, fresh):
                results[place] = Inserted(job_id=batch[place].job_id, new=True, shifts=shifts)
        return results

    @staticmethod
    def _known(connection: Connection, batch: Sequence[PlannedJob]) -> dict[str, str]:
        ids = [job.job_id for job in batch]
        rows = connection.execute(select(jobs.c.job_id, jobs.c.fingerprint).where(jobs.c.job_id.in_(ids)))
        return {row.job_id: row.fingerprint for row in rows}

    def _store(
        self, connection: Connection, fresh: Sequence[tuple[PlannedJob, int]]
    ) -> list[tuple[int, tuple[Shift, ...]]]:
        ref = self._books.take(connection, "jobs", len(fresh))
        file_id = self._books.take(connection, "transfers", sum(len(job.files) for job, _ in fresh))
        job_rows: list[dict[str, Any]] = []
        file_rows: list[dict[str, Any]] = []
        event_rows: list[dict[str, Any]] = []
        shifts: list[tuple[int, tuple[Shift, ...]]] = []
        for job, place in fresh:
            job_rows.append(_job_row(job, ref))
            event_rows.append(news.entry(job.submitted_at, job.job_id, None, JobState.SUBMITTED))
            ready = Tally()
            link = FOLLOWED_BY_HOP if job.job_type is JobType.MULTIHOP else FOLLOWED_BY_REPLICA
            for file in job.files:
                key = (file.source_se, file.dest_se, job.vo, file.activity, size_class(file.size_bytes))
                queue = self._books.queue_for(connection, key)
                file_rows.append(
                    {
                        "id": file_id,
                        "job_ref": ref,
                        "file_index": file.file_index,
                        "follows": link if file.follows else 0,
                        "state": file.state.value,
                        "queue_id": queue.id,
                        "priority": job.priority,
                        "source_url": file.source_url,
                        "dest_url": file.dest_url,
                        "dest_key": file.dest_key,
                        "size_bytes": file.size_bytes,
                        "checksum": file.checksum,
                        "metadata": file.metadata,
                        "scitag": file.scitag,
                        "selection_strategy": file.selection_strategy,
                        "src_token_id": file.src_token_id,
                        "dst_token_id": file.dst_token_id,
                    }
                )
                if file.state is FileState.SUBMITTED:
                    ready.add(queue.id, job.priority, 1, file.size_bytes)
                file_id += 1
            shifts.append((place, ready.shifts(connection, self._books)))
            ref += 1
        connection.execute(insert(jobs), job_rows)
        connection.execute(insert(transfers), file_rows)
        news.write(connection, event_rows)
        brought = [token for job, _ in fresh for token in job.tokens]
        if brought:
            token_rows.keep(connection, brought)
        return shifts


def _job_row(job: PlannedJob, ref: int) -> dict[str, Any]:
    sources = {file.source_se for file in job.files}
    destinations = {file.dest_se for file in job.files}
    return {
        "ref": ref,
        "job_id": job.job_id,
        "job_type": job.job_type.value,
        "state": JobState.SUBMITTED.value,
        "vo": job.vo,
        "user_dn": job.user_dn,
        "cred_id": job.cred_id,
        "priority": job.priority,
        "source_se": job.files[0].source_se if len(sources) == 1 or job.job_type.value == "H" else None,
        "dest_se": job.files[-1].dest_se if len(destinations) == 1 or job.job_type.value == "H" else None,
        "submitted_at": job.submitted_at,
        "deadline_at": job.deadline_at,
        "options": job.options,
        "params": job.params,
        "metadata": job.metadata,
        "fingerprint": job.fingerprint,
        "n_files": job.n_files,
    }
