"""What is said of a transfer by its own state: ended, running, lost, held, waiting for a retry or for others. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocols.api import Mode
from transfer_engine.bans import instant
from transfer_engine.driving import Driven
from transfer_engine.model import FileId, Position
from transfer_engine.reasons import Reason, Why
from transfer_engine.states import FileState, JobType
from transfer_engine.views import FileView, JobView

_UNITS: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
PHASES: Final = {
    "starting": "it begins",
    "source": "the source is looked at",
    "destination": "the destination is prepared",
    "verifying": "the copy is compared with the source",
    "cleaning": "what the copy left is removed",
    "settling": "its outcome is written down",
}
"""What an attempt does beside copying, in words."""


def size(n_bytes: float) -> str:
    """Bytes for people, three digits: `1.23 GB`."""
    for unit, name in _UNITS:
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes:.0f} bytes"


def counted(n: int, one: str = "transfer", several: str = "transfers") -> str:
    """`1 transfer`, `2 transfers`."""
    return f"{n} {one if n == 1 else several}"


def ended(view: FileView) -> Reason:
    """It is over."""
    when = "" if view.finished_at is None else f" at {instant(view.finished_at)}"
    why = f": {view.reason}" if view.reason else ""
    return Reason(code=Why.ENDED, text=f"it has ended{when} as {view.state.value}{why}")


def held(view: FileView) -> Reason:
    """Its job is on hold."""
    return Reason(code=Why.HELD, text=f"job {view.job_id} is on hold until it is resumed", subject=view.job_id)


def retry(view: FileView, now: float) -> Reason:
    """Its last attempt failed."""
    assert view.retry_at is not None, "only what waits for a retry is asked"
    due = "is due now" if view.retry_at <= now else f"is due at {instant(view.retry_at)}"
    why = f": {view.reason}" if view.reason else ""
    return Reason(
        code=Why.RETRY,
        text=f"attempt {view.epoch} failed, the next one {due}{why}",
        subject=view.dest_se if (view.failure or {}).get("scope") == "DESTINATION" else view.source_se,
        used=view.n_failed,
        until=view.retry_at,
    )


def written(view: FileView, by: FileId) -> Reason:
    """Its destination is taken."""
    return Reason(
        code=Why.DESTINATION,
        text=f"transfer {by} is writing the same destination, and has to end first",
        subject=view.dest_url,
    )


def turn(view: FileView, position: Position, *, free: bool) -> Reason:
    """Where it stands in its queue. `free`: nothing keeps the queue back."""
    n = position.n_before
    if not n:
        text = "it is the next of its queue" + (" and is about to start: nothing keeps it back" if free else "")
    elif free:
        text = f"{counted(n)} of its queue (priority {view.priority}) start before it, and nothing keeps them back"
    else:
        are = "is" if n == 1 else "are"
        text = f"{counted(n)} of its queue (priority {view.priority}) {are} before it"
    return Reason(code=Why.TURN, text=text, used=n)


def not_its_turn(job: JobView, before: Sequence[FileView]) -> Reason:
    """A hop or replica that is not needed yet, or any more.

    Args: before: the rows before it: of its file, or of a route; in order.
    """
    if job.job_type is JobType.MULTIHOP:
        hop = next((row for row in before if row.state is not FileState.FINISHED), None)
        if hop is None:
            return Reason(code=Why.HOP, text="the hop before it has just ended")
        number = f"hop {hop.file_index + 1} of its route" if hop.file_index else "the first hop of its route"
        return Reason(
            code=Why.HOP,
            text=f"{number} has to finish first: transfer {hop.file_id} from {_route(hop)} {_state(hop)}",
            subject=f"{hop.source_se} → {hop.dest_se}",
        )
    done = next((row for row in before if row.state is FileState.FINISHED), None)
    if done is not None:
        return Reason(code=Why.ENDED, text=f"it is not needed: transfer {done.file_id} has copied the file")
    open_rows = [row for row in before if row.state not in {FileState.FAILED, FileState.CANCELED, FileState.NOT_USED}]
    if not open_rows:
        return Reason(code=Why.REPLICA, text="another replica of the file is tried first")
    other = open_rows[-1]
    return Reason(
        code=Why.REPLICA,
        text=f"another replica is tried first: transfer {other.file_id} from {other.source_se} {_state(other)}",
        subject=other.source_se,
    )


def _route(view: FileView) -> str:
    return f"{view.source_se} to {view.dest_se}"


def _state(view: FileView) -> str:
    match view.state:
        case FileState.SUBMITTED:
            return "waits"
        case FileState.ACTIVE:
            return "is running"
        case state:
            return f"is {state.value}"


def running(view: FileView, driven: Driven | None, now: float) -> Reason:
    """It is under way. `driven`: its attempt in this process; None: it is in another's hands."""
    link = f"{view.source_se} → {view.dest_se}"
    if driven is None:
        by = view.owner or "another node"
        return Reason(code=Why.RUNNING, text=f"attempt {view.epoch} is in the hands of {by}", subject=link)
    progress = driven.progress
    length = progress.size_bytes or view.size_bytes
    said = f"attempt {view.epoch} runs for {max(now - driven.began_at, 0):.0f} s"
    if progress.awaited:
        return Reason(code=Why.TOKEN, text=f"{said}: it waits for a token from {progress.awaited}", subject=link)
    if progress.phase in PHASES:
        return Reason(code=Why.RUNNING, text=f"{said}: {PHASES[progress.phase]}", subject=link, limit=length)
    part = f" of {size(length)}" if length else ""
    how = f", {progress.mode.value}" if progress.mode else ""
    return Reason(
        code=Why.RUNNING,
        text=f"{said}: {size(progress.bytes_done)}{part} copied ({progress.phase}{how})",
        subject=link,
        used=progress.bytes_done,
        limit=length,
    )


def waits_for_stream(driven: Driven) -> bool:
    """It has its slots, and too many copies go through this process already."""
    progress = driven.progress
    return progress.phase == "copying" and progress.mode is Mode.STREAM and not progress.copying


def streams(driven: Driven) -> bool:
    """Its bytes go through this process."""
    return driven.progress.mode is Mode.STREAM and driven.progress.copying


def streams_full(n_streams: int) -> Reason:
    """So many go through this process; that is all that may."""
    return Reason(
        code=Why.LIMIT,
        text=f"{counted(n_streams, 'copy', 'copies')} go through this process, which is all that may at a time",
        subject="this process",
        used=n_streams,
        limit=n_streams,
    )


def lost(view: FileView) -> Reason:
    """Its attempt ended without a result."""
    return Reason(
        code=Why.PROBING,
        text="its attempt was lost; its destination is looked at until the outcome is clear",
        subject=view.dest_se,
    )


def canceling(view: FileView) -> Reason:
    """Somebody cancelled it."""
    return Reason(code=Why.CANCELING, text="it was cancelled; what it wrote is being removed", subject=view.dest_se)
