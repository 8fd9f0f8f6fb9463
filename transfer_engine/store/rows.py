"""Rows ↔ model: the only place that knows how a value is spelled in a column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from protocols import checksum as checksums
from protocols.errors import Again, Phase, Scope
from transfer_engine.model import Assignment, Failure, FileId, JobId, JobOptions, Queue, Verify
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store.tables import HELD_AT
from transfer_engine.views import NO_DETAIL, AttemptView, EventDetail, FileView, JobView, StoredEvent


def load_json(text: str | None) -> Any:
    """The value of JSON text; None for None."""
    return None if text is None else json.loads(text)


@lru_cache(maxsize=4096)
def load_options(text: str) -> JobOptions:
    """The options of a job; equal texts give the same object."""
    values = json.loads(text)
    if "verify" in values:
        values["verify"] = Verify(values["verify"])
    if values.get("modes") is not None:
        values["modes"] = tuple(values["modes"])
    return JobOptions(**values)


def dump_failure(failure: Failure) -> str:
    """JSON text with code, again, scope, phase, errno, message, hint, and `dst_file` where there is one."""
    values = asdict(failure)
    values.pop("retry_after_s")
    if values["dst_file"] is None:
        del values["dst_file"]
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def load_failure(text: str) -> Failure:
    """What `dump_failure` wrote."""
    values = json.loads(text)
    values.update(again=Again(values["again"]), scope=Scope(values["scope"]), phase=Phase(values["phase"]))
    return Failure(**values)


def assignment(row: Any, queue: Queue) -> Assignment:
    """A claimed row, joined with its job, as the work order of an attempt."""
    return Assignment(
        file_id=FileId(row.id),
        epoch=row.epoch,
        job_id=JobId(row.job_id),
        job_ref=row.job_ref,
        job_type=JobType(row.job_type),
        file_index=row.file_index,
        queue=queue,
        priority=row.priority,
        source_url=row.source_url,
        dest_url=row.dest_url,
        size_bytes=row.size_bytes,
        checksum=None if row.checksum is None else checksums.parse(row.checksum),
        options=load_options(row.options),
        scitag=row.scitag,
        n_failed=row.n_failed,
        follows=bool(row.follows),
        dest_owned=bool(row.dest_owned),
        copying=bool(row.copying),
        submitted_at=row.submitted_at,
        claimed_at=row.claimed_at,
        cred_id=row.cred_id,
        src_token_id=row.src_token_id,
        dst_token_id=row.dst_token_id,
    )


def file_view(row: Any) -> FileView:
    """A transfer joined with its job and queue."""
    failure: Mapping[str, Any] | None = load_json(row.failure)
    reason = None if failure is None else f"{failure['scope']} [{failure['errno']}] {failure['message']}"
    return FileView(
        file_id=FileId(row.id),
        job_id=JobId(row.job_id),
        file_index=row.file_index,
        state=FileState(row.state),
        source_url=row.source_url,
        dest_url=row.dest_url,
        source_se=row.source_se,
        dest_se=row.dest_se,
        vo=row.vo,
        activity=row.activity,
        priority=row.priority,
        size_bytes=row.size_bytes,
        checksum=row.checksum,
        metadata=load_json(row.metadata),
        scitag=row.scitag,
        selection_strategy=row.selection_strategy,
        n_failed=row.n_failed,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        retry_at=None if row.retry_at == HELD_AT else row.retry_at,
        reason=reason,
        failure=failure,
        seen_bytes=row.seen_bytes,
        seen_checksum=row.seen_checksum,
        evidence=row.evidence,
        transfer_s=row.transfer_s,
        mode=row.mode,
        owner=row.owner,
        epoch=row.epoch,
        claimed_at=row.claimed_at,
        src_token_id=row.src_token_id,
        dst_token_id=row.dst_token_id,
    )


def job_view(row: Any) -> JobView:
    """A row of `jobs`."""
    return JobView(
        job_id=JobId(row.job_id),
        state=JobState(row.state),
        job_type=JobType(row.job_type),
        vo=row.vo,
        user_dn=row.user_dn,
        cred_id=row.cred_id,
        priority=row.priority,
        submitted_at=row.submitted_at,
        finished_at=row.finished_at,
        reason=row.reason,
        source_se=row.source_se,
        dest_se=row.dest_se,
        metadata=load_json(row.metadata),
        options=load_options(row.options),
        params=load_json(row.params) or {},
        cancel_requested=bool(row.cancel_requested),
        n_files=row.n_files,
        n_finished=row.n_finished,
        n_failed=row.n_failed,
        n_canceled=row.n_canceled,
        held=bool(row.held) and row.finished_at is None,
    )


def stored_event(row: Any) -> StoredEvent:
    """A row of `events`."""
    return StoredEvent(
        seq=row.seq,
        at=row.at,
        kind=row.kind,
        job_id=JobId(row.job_id),
        file_id=None if row.file_id is None else FileId(row.file_id),
        state=row.state,
        reason=row.reason,
        detail=NO_DETAIL if row.detail is None else EventDetail(**json.loads(row.detail)),
    )


def attempt_view(row: Any) -> AttemptView:
    """A row of `attempts`."""
    return AttemptView(file_id=FileId(row.file_id), epoch=row.epoch, at=row.at, reason=row.reason, owner=row.owner)
