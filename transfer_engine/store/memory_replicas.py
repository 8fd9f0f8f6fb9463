"""Which replica a waiting transfer reads from, in memory: where there is a choice, and take a better one."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

from transfer_engine.model import Choice, FileId, QueueId, Reroute, Shift
from transfer_engine.states import FileState
from transfer_engine.store.api import LOOKED_AT
from transfer_engine.store.memory_rows import Bucket, Row, further_replicas
from transfer_engine.store.memory_tables import Shifts, Tables


def choices(tables: Tables, limit: int, after: tuple[QueueId, int] | None) -> list[Choice]:
    """See `Store.choices`."""
    found: list[Choice] = []
    able = [(key, bucket) for key, bucket in tables.buckets.items() if bucket.n_choosable]
    for key, bucket in sorted(able, key=itemgetter(0)):
        if len(found) == limit:
            break
        if after is None or key > after:
            choice = _choice(tables, bucket, FileId(0), LOOKED_AT)
            if choice is not None:
                found.append(choice)
    return found


def choice_behind(tables: Tables, queue_id: QueueId, priority: int, after: FileId, limit: int) -> Choice | None:
    """See `Store.choice_behind`."""
    bucket = tables.buckets.get((queue_id, priority))
    return None if bucket is None or not bucket.n_choosable else _choice(tables, bucket, after, limit)


def _choice(tables: Tables, bucket: Bucket, after: FileId, limit: int) -> Choice | None:
    rows = [row for row, _ in zip(_choosable(tables, bucket, after, limit), range(limit), strict=False)]
    if not rows:
        return None
    sources = {other.queue.source_se for row in rows for other in _unused(tables, row)}
    return Choice(
        queue=bucket.queue,
        priority=bucket.priority,
        n=len(rows),
        last=rows[-1].id,
        sources=frozenset(sources),
        strategies=frozenset(row.file.selection_strategy for row in rows),
    )


def _choosable(tables: Tables, bucket: Bucket, after: FileId, limit: int) -> Iterator[Row]:
    """Ready transfers of a queue that have a choice, oldest first; some more than `limit` cost more."""
    ids = {number for number in bucket.ids if number > after}
    # Some of them are not ready here any more.
    first = heapq.nsmallest(2 * limit, ids)
    yield from _ready(tables, bucket, first)
    if len(first) < len(ids):
        yield from _ready(tables, bucket, sorted(ids)[len(first) :])


def _ready(tables: Tables, bucket: Bucket, ids: Sequence[int]) -> Iterator[Row]:
    for number in ids:
        place = tables.ready_in(number, bucket)
        if place is not None:
            row = tables.peek(*place)
            if tables.is_choosable(row):
                yield row


def _unused(tables: Tables, row: Row) -> Iterator[Row]:
    """The replicas behind it that are left."""
    job = row.job
    for place in further_replicas(job, row.id - job.first):
        if job.files[place].state is FileState.NOT_USED:
            yield tables.peek(job, place)


def reroute(tables: Tables, moves: Sequence[Reroute]) -> tuple[Shift, ...]:
    """See `Store.reroute`."""
    shifts = Shifts()
    for move in moves:
        bucket = tables.buckets.get((move.queue_id, move.priority))
        if bucket is not None and bucket.n_choosable:
            for row in _candidates(tables, bucket, move):
                _move(tables, row, move.prefer[row.file.selection_strategy], shifts)
    return shifts.all()


def _candidates(tables: Tables, bucket: Bucket, move: Reroute) -> list[Row]:
    """The oldest ready transfers that may be looked at."""
    found: list[Row] = []
    for row in _choosable(tables, bucket, move.after, move.n):
        if len(found) >= move.n:
            break
        if row.file.selection_strategy in move.prefer and not row.dest_owned:
            found.append(row)
    return found


def _move(tables: Tables, row: Row, prefer: Mapping[str, tuple[float, float]], shifts: Shifts) -> None:
    """Take the replica that would be there sooner than the row's own, if there is one."""
    best = min((row, *_unused(tables, row)), key=lambda other: _seconds(other, prefer))
    if best is row:
        return
    job = row.job
    row, best = tables.row(job, row.id - job.first), tables.row(job, best.id - job.first)
    shifts.add(row, -1)
    tables.leave(row)
    exchange(row, best)
    tables.enter(row)
    shifts.add(row, 1)


def next_replica(tables: Tables, row: Row, prefer: Mapping[str, Mapping[str, tuple[float, float]]] | None) -> Row:
    """The first replica behind a row that is left, with the source that is best of those; there is one."""
    job = row.job
    left = [tables.row(job, other.id - job.first) for other in _unused(tables, row)]
    costs = None if prefer is None else prefer.get(row.file.selection_strategy)
    if costs is not None:
        best = min(left, key=lambda other: _seconds(other, costs))
        if best is not left[0]:
            exchange(left[0], best)
    return left[0]


def exchange(row: Row, other: Row) -> None:
    """Two rows of one file exchange their sources."""
    row.source_url, other.source_url = other.source_url, row.source_url
    row.src_token_id, other.src_token_id = other.src_token_id, row.src_token_id
    row.queue, other.queue = other.queue, row.queue


def _seconds(row: Row, prefer: Mapping[str, tuple[float, float]]) -> float:
    cost = prefer.get(row.queue.source_se)
    # A source that is not listed is never taken, and left as soon as there is another.
    return math.inf if cost is None else cost[0] + cost[1] * (row.file.size_bytes or 0)
