"""What runs and what the links do, as data for people."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from transfer_engine.attempt import Progress
from transfer_engine.banning import Moving
from transfer_engine.board import Board, LinkTally
from transfer_engine.driving import Driven
from transfer_engine.model import FileId, JobId
from transfer_engine.places import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A transfer that is being driven now."""

    file_id: FileId
    job_id: JobId
    link: Link
    phase: str
    mode: str | None
    bytes_done: int
    size_bytes: int | None
    since_s: float
    """Seconds since its claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatus:
    """One link, now and since the engine started."""

    source_se: str
    dest_se: str
    ready: int
    active: int
    finished: int
    failed: int
    retried: int
    bytes_done: int


def running(driven: Iterable[Driven], board: Board) -> list[Running]:
    """The transfers that are being driven now."""
    now = asyncio.get_running_loop().time()
    return [
        Running(
            file_id=one.order.file_id,
            job_id=one.order.job_id,
            link=board.link(one.order.queue),
            phase=_phase(one.progress),
            mode=one.progress.mode.value if one.progress.mode else None,
            bytes_done=one.progress.bytes_done,
            size_bytes=one.progress.size_bytes or one.order.size_bytes,
            since_s=now - one.since,
        )
        for one in driven
    ]


def _phase(progress: Progress) -> str:
    return f"waiting for a token from {progress.awaited}" if progress.awaited else progress.phase


def moving(driven: Iterable[Driven]) -> list[Moving]:
    """The same for those who decide what becomes of them."""
    now = asyncio.get_running_loop().time()
    return [
        Moving(
            order=one.order,
            bytes_done=one.progress.bytes_done,
            size_bytes=one.progress.size_bytes or one.order.size_bytes,
            since_s=now - one.since,
            canceling=one.canceling,
        )
        for one in driven
    ]


def links(board: Board) -> list[LinkStatus]:
    """Every link with work now or since the start."""
    ready, active = board.ready_by_link(), board.active_by_link()
    found = []
    for link in sorted({*ready, *active, *board.tallies}, key=str):
        tally = board.tallies.get(link, LinkTally())
        found.append(
            LinkStatus(
                source_se=link.source_se,
                dest_se=link.dest_se,
                ready=ready.get(link, 0),
                active=active.get(link, 0),
                finished=tally.finished,
                failed=tally.failed,
                retried=tally.retried,
                bytes_done=tally.bytes_done,
            )
        )
    return found
