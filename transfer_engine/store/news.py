"""The outbox: entries of events, and what they keep that the rows of their transfers will not say for ever.

A transfer that is over stays as it is, so its last event needs no more than its number. What can move on
before somebody reads the event is kept with it, as `EventDetail` says, and only where there is any:
most entries have no detail at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, insert

from transfer_engine.states import FileState, JobState
from transfer_engine.store.tables import events


def entry(
    at: float,
    job_id: str,
    file_id: int | None,
    state: FileState | JobState,
    reason: str | None = None,
    detail: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """An entry to be written: of a transfer, or (`file_id` None) of a job."""
    return {
        "at": at,
        "kind": "job" if file_id is None else "transfer",
        "job_id": job_id,
        "file_id": file_id,
        "state": state.value,
        "reason": reason,
        "detail": detail,
    }


def job_over(news: Sequence[dict[str, Any]], ended: dict[str, str]) -> None:
    """Note at the last entry of a transfer of each job (id → state) that the job is over by it."""
    left = dict(ended)
    for item in reversed(news):
        if not left:
            return
        if item["file_id"] is not None and (state := left.pop(item["job_id"], None)) is not None:
            item["detail"] = {**(item["detail"] or {}), "job": state}


def write(connection: Connection, news: Iterable[dict[str, Any]]) -> None:
    """Add entries to the outbox, in this order."""
    rows = list(news)
    if not rows:
        return
    for row in rows:
        if row["detail"] is not None:
            row["detail"] = json.dumps(row["detail"], separators=(",", ":"), ensure_ascii=False)
    connection.execute(insert(events), rows)
