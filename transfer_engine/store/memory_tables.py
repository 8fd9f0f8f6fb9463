"""The data of a store in memory, and the indexes that every operation keeps in step with it.

As in the database: what can be claimed, in claim order; what waits for a retry, by time; which
destinations are driven now; which waiting transfers may have left something behind.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from transfer_engine.errors import NotFound
from transfer_engine.model import FileId, JobId, Queue, QueueId, Shift
from transfer_engine.places import Ban
from transfer_engine.sealed import AuditEntry, Delegated, Delegation, StoredToken
from transfer_engine.sizes import size_class
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store.memory_rows import GONE, Bucket, Gone, Job, Row, further_replicas, planned
from transfer_engine.views import NO_DETAIL, EventDetail, StoredEvent

STALE_MAX: Final = 64
"""Numbers beyond twice those that are ready, in a bucket, before it is swept."""
ORDERLY: Final = "orderly"
"""The selection strategy that keeps the order of the submission."""


class Tables:
    """Everything that is stored. It outlives a `MemoryStore`: the next one goes on with it."""

    def __init__(self, *, events: bool = True, jobs_keep: int | None = None) -> None:
        """Args: see `MemoryStore`."""
        self.keeps_events = events
        self._jobs_keep = jobs_keep
        self.opened = False
        self.by_ref: dict[int, Job] = {}
        self.by_id: dict[JobId, Job] = {}
        self._firsts = array("q")
        """Number of each job's first transfer; the place is that of its `ref`."""
        self._next_id = 1
        self._ended: deque[Job] = deque()
        self.queues: dict[tuple[str, str, str, str, int], Queue] = {}
        self.buckets: dict[tuple[QueueId, int], Bucket] = {}
        self.driven: dict[int, Row] = {}
        """Transfers that an attempt owns, by number."""
        self.destinations: dict[int, Row] = {}
        """The same by destination."""
        self._remains: dict[int, list[Row]] = {}
        """Destination → waiting transfers that may have left something there."""
        self._delayed: list[tuple[float, int]] = []
        """(when, transfer) of each retry, as a heap; those that are void stay until they come up."""
        self.deadlines: list[tuple[float, int]] = []
        """(when, job) as a heap, the same way."""
        self.events: list[StoredEvent] = []
        self.last_seq = 0
        self.bans: dict[tuple[str, str | None], Ban] = {}
        self.kept: dict[str, str] = {}
        self.delegations: dict[str, Delegation] = {}
        self.credentials: dict[str, Delegated] = {}
        self.tokens: dict[tuple[str, str], StoredToken] = {}
        self.audit: list[AuditEntry] = []
        """By id and owner."""

    # Jobs and transfers

    def add_job(self, job: Job) -> None:
        """Take in a job whose numbers `next_ref` and `next_file_id` were."""
        self.by_ref[job.ref] = job
        self.by_id[job.job_id] = job
        self._firsts.append(job.first)
        self._next_id += len(job.files)
        if job.deadline_at is not None:
            heapq.heappush(self.deadlines, (job.deadline_at, job.ref))

    @property
    def next_ref(self) -> int:
        """Number of the next job."""
        return len(self._firsts) + 1

    @property
    def next_file_id(self) -> int:
        """Number of the next transfer."""
        return self._next_id

    def job(self, job_id: JobId) -> Job:
        """Raises: NotFound."""
        job = self.by_id.get(job_id)
        if job is None:
            raise NotFound(f"job {job_id} does not exist")
        return job

    def place(self, file_id: int) -> tuple[Job, int] | None:
        """The job of a transfer and its place there; None: there is no such transfer, or no more."""
        ref = bisect_right(self._firsts, file_id)
        job = self.by_ref.get(ref)
        if job is None:
            return None
        index = file_id - job.first
        return (job, index) if index < len(job.files) else None

    def row(self, job: Job, index: int) -> Row:
        """One transfer, to be changed."""
        file = job.files[index]
        if isinstance(file, Row):
            return file
        row = job.files[index] = self.peek(job, index)
        return row

    def peek(self, job: Job, index: int) -> Row:
        """One transfer, to be looked at."""
        file = job.files[index]
        if isinstance(file, Row):
            return file
        if isinstance(file, Gone):
            raise NotFound(f"transfer {job.first + index} is over and was forgotten")
        queue = self.queues[file.source_se, file.dest_se, job.vo, file.activity, size_class(file.size_bytes)]
        return Row(job, index, file, queue)

    def find(self, file_id: FileId) -> Row:
        """One transfer, to be looked at. Raises: NotFound."""
        place = self.place(file_id)
        if place is None:
            raise NotFound(f"transfer {file_id} does not exist")
        return self.peek(*place)

    def rows(self, job: Job) -> Iterator[Row]:
        """The transfers of a job in the order submitted, to be looked at."""
        return (self.peek(job, index) for index, file in enumerate(job.files) if not isinstance(file, Gone))

    def forget(self, row: Row) -> None:
        """A transfer is over: where nobody asks for it later, it goes before its job does."""
        job = row.job
        if self._jobs_keep is not None and job.job_type is JobType.NORMAL and job.files:
            job.files[row.id - job.first] = GONE[row.state]

    def ended(self, job: Job) -> None:
        """A job is over: what is not to be kept of it, and of older ones, goes."""
        if self._jobs_keep is None or job.n_driven:
            return
        job.files = []
        self._ended.append(job)
        while len(self._ended) > self._jobs_keep:
            old = self._ended.popleft()
            del self.by_ref[old.ref], self.by_id[old.job_id]

    # Queues

    def queue_for(self, source_se: str, dest_se: str, vo: str, activity: str, of_size: int) -> Queue:
        """The queue of these; a new one when there is none."""
        key = (source_se, dest_se, vo, activity, of_size)
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = Queue(QueueId(len(self.queues) + 1), *key)
        return queue

    def bucket(self, queue: Queue, priority: int) -> Bucket:
        """What is ready of a queue at a priority."""
        key = (queue.id, priority)
        found = self.buckets.get(key)
        if found is None:
            found = self.buckets[key] = Bucket(queue, priority)
        return found

    def enter(self, row: Row) -> Shift | None:
        """A transfer is ready, if it is: it can be claimed from now on."""
        if not row.is_ready():
            return None
        bucket = self.bucket(row.queue, row.priority)
        size = row.file.size_bytes or 0
        heapq.heappush(bucket.ids, row.id)
        bucket.n += 1
        bucket.n_bytes += size
        bucket.n_choosable += self.is_choosable(row)
        return Shift(row.queue, row.priority, 1, size)

    def leave(self, row: Row) -> None:
        """A transfer that is ready will not be any more; to be called while it still is."""
        bucket = self.buckets[row.queue.id, row.priority]
        bucket.n -= 1
        bucket.n_bytes -= row.file.size_bytes or 0
        if bucket.n_choosable:
            bucket.n_choosable -= self.is_choosable(row)
        if len(bucket.ids) > 2 * bucket.n + STALE_MAX:
            sound = {number for number in bucket.ids if number != row.id and self.ready_in(number, bucket)}
            bucket.ids = sorted(sound)

    def ready_in(self, file_id: int, bucket: Bucket) -> tuple[Job, int] | None:
        """Where a transfer is, when it is ready in this bucket."""
        place = self.place(file_id)
        if place is None:
            return None
        job, index = place
        file = job.files[index]
        if isinstance(file, Row):
            ready = file.is_ready() and file.queue is bucket.queue and file.priority == bucket.priority
        else:
            ready = file.state is FileState.SUBMITTED and not job.held and job.priority == bucket.priority
        return place if ready else None

    @staticmethod
    def is_choosable(row: Row) -> bool:
        """Whether it could come from another replica as well."""
        file, job = row.file, row.job
        if not file.follows or file.selection_strategy == ORDERLY or job.job_type is JobType.MULTIHOP:
            return False
        return any(job.files[i].state is FileState.NOT_USED for i in further_replicas(job, row.id - job.first))

    # Who drives, what remains, what is due

    def drive(self, row: Row) -> None:
        """An attempt owns a transfer and its destination from now on."""
        row.job.n_driven += 1
        self.driven[row.id] = row
        self.destinations[row.file.dest_key] = row

    def let_go(self, row: Row) -> None:
        """No attempt owns it any more."""
        row.job.n_driven -= 1
        del self.driven[row.id]
        del self.destinations[row.file.dest_key]

    def remember_remains(self, row: Row) -> None:
        """A transfer that waits may have left something at its destination."""
        self._remains.setdefault(row.file.dest_key, []).append(row)

    def disown(self, dest_key: int) -> None:
        """A destination was seen empty, or made so: nothing of what waits remains there."""
        for row in self._remains.pop(dest_key, ()):
            if row.state is FileState.SUBMITTED:
                row.dest_owned = False

    def forget_remains(self, row: Row) -> None:
        """A transfer does not wait any more."""
        rows = self._remains.get(row.file.dest_key)
        if rows is not None:
            rows[:] = [other for other in rows if other is not row]
            if not rows:
                del self._remains[row.file.dest_key]

    def delay(self, row: Row, retry_at: float) -> None:
        """A transfer is to be tried again then."""
        heapq.heappush(self._delayed, (retry_at, row.id))

    def pop_due(self, now: float) -> Row | None:
        """The retry that is due longest, no longer delayed; None: none is."""
        at = self.next_due()
        if at is None or at > now:
            return None
        row = self.find(FileId(heapq.heappop(self._delayed)[1]))
        row.retry_at = None
        return row

    def delayed(self, endpoint: str, limit: int | None = None) -> list[Row]:
        """Up to `limit` retries that read from or write to an endpoint, in the order of their queues."""
        found = {}
        for at, file_id in self._delayed:
            place = self.place(file_id)
            row = None if place is None else place[0].files[place[1]]
            if not isinstance(row, Row) or row.state is not FileState.SUBMITTED or row.retry_at != at:
                continue
            if not row.job.held and endpoint in {row.queue.source_se, row.queue.dest_se}:
                found[row.id] = row
        return sorted(found.values(), key=lambda row: (row.queue.id, row.id))[:limit]

    def next_due(self) -> float | None:
        """When the earliest retry is due."""
        while self._delayed:
            at, file_id = self._delayed[0]
            place = self.place(file_id)
            row = None if place is None else place[0].files[place[1]]
            if isinstance(row, Row) and row.state is FileState.SUBMITTED and row.retry_at == at:
                return at
            heapq.heappop(self._delayed)
        return None

    # The outbox

    def tell(
        self,
        at: float,
        job_id: JobId,
        file_id: FileId | None,
        state: FileState | JobState,
        reason: str | None = None,
        detail: EventDetail = NO_DETAIL,
    ) -> None:
        """Add an event of a transfer, or of a job (`file_id` None)."""
        if not self.keeps_events:
            return
        self.last_seq += 1
        kind = "job" if file_id is None else "transfer"
        self.events.append(
            StoredEvent(
                seq=self.last_seq,
                at=at,
                kind=kind,
                job_id=job_id,
                file_id=file_id,
                state=state.value,
                reason=reason,
                detail=detail,
            )
        )

    def tell_over(self, job: Job) -> None:
        """Note at the last event, which is of a transfer of it, that a job is over by it."""
        last = self.events[-1] if self.events else None
        if last is not None and last.job_id == job.job_id and last.file_id is not None:
            self.events[-1] = replace(last, detail=replace(last.detail, job=job.state.value))


class Shifts:
    """Changes of what is ready, added up by queue and priority in the order in which they came."""

    def __init__(self) -> None:
        self._n: Counter[tuple[Queue, int]] = Counter()
        self._n_bytes: Counter[tuple[Queue, int]] = Counter()

    def add(self, row: Row, n: int) -> None:
        """So many more or fewer like this one, at its priority."""
        key = (row.queue, row.priority)
        self._n[key] += n
        self._n_bytes[key] += n * (planned(row).size_bytes or 0)

    def all(self) -> tuple[Shift, ...]:
        """Those that change something."""
        return tuple(
            Shift(queue, priority, n, self._n_bytes[queue, priority])
            for (queue, priority), n in self._n.items()
            if n or self._n_bytes[queue, priority]
        )
