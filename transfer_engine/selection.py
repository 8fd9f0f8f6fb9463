"""Which replica a file is copied from: FTS's strategies, and a better `auto`. Pure.

Each strategy gives every source a cost of the form `a + b · size`, so that a choice among millions of
waiting files needs one small table and no look at each file. What a strategy says:

    orderly                  the order that the user gave
    queue                    fewest files that wait on the link for the VO
    success                  highest part of attempts that finished
    throughput               highest goodput of the link
    file-throughput          highest speed of a single file
    pending-data             fewest bytes that wait (VO and activity)
    waiting-time             these bytes by the goodput of the link
    waiting-time-with-error  the same, and the failed part of it once more
    duration                 the same, and the time of this file at the speed of a single file
    auto                     earliest predicted completion

FTS's `auto` is its `queue`. Ours asks when the file would be there: predicted start, plus time of the
copy, and all of that again for each failure that is to be expected. A short queue on a slow or failing
link does not win against a long one that moves.

What is not known of a link is neither good nor bad: it counts as fast as the others are on average, so
that it is tried when the others have queues, and as reliable until it was seen to fail (FTS's rule as well).
Where nothing but speed counts, it is as good as the best, else it would never be tried.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from transfer_engine.errors import Invalid

ORDERLY: Final = "orderly"
STRATEGIES: Final = (
    "orderly", "queue", "auto", "success", "throughput", "file-throughput", "pending-data", "waiting-time",
    "waiting-time-with-error", "duration",
)  # fmt: skip
CHOOSING: Final = tuple(name for name in STRATEGIES if name != ORDERLY)
"""Strategies that may take another replica than the first."""

MARGIN: Final = 0.2
"""By which part of its cost another source must be better before a file that waits is moved to it."""
LEAST: Final[Mapping[str, float]] = {
    "auto": 3.0, "duration": 3.0, "waiting-time": 3.0, "waiting-time-with-error": 3.0,
    "queue": 2.0, "success": 0.05, "throughput": 0.0, "file-throughput": 0.0, "pending-data": 0.0,
}  # fmt: skip
"""And at least by so much, in the unit of the strategy: seconds, files, part of 1."""

SUCCESS_MIN: Final = 0.02
"""A link that only fails counts as one where every fiftieth attempt finishes: bad, but comparable."""
SLOW_MAX: Final = 100.0
"""A link counts as at most so many times slower than the mean."""
RETRY_S: Final = 10.0
"""What a failure costs beside the attempt itself."""
BYTES_S_DEFAULT: Final = 50e6
"""Speed of links when nothing is known of any of them; equal for all, so it decides nothing."""
BYTES_S_MIN: Final = 1.0
"""Slower is standing still, and no measure for others."""
FILE_BYTES_DEFAULT: Final = 1e9
"""Length of a file of which neither its own nor others' are known."""
SLOT_S_DEFAULT: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkView:
    """What is known of the link from one source to the destination; None: not measured.

    Attributes:
        ready: files that wait on the link for the VO.
        ready_bytes: bytes that wait for the VO and activity.
        active: transfers that run on it.
        success: part of the attempts that finished, 0 to 1.
        goodput_bytes_s: of the link.
        file_bytes_s: of one file.
        overhead_s: what a transfer takes beside its bytes, where that is told apart.
        slot_s: mean seconds that a transfer holds its slot.
        start_s: seconds until a transfer that is queued now would start; infinite: never.
        starts_s: starts per second of those that wait like this file; None: as the other figures say.
        blocked: nothing can start (ban, breaker).
    """

    source_se: str
    ready: int = 0
    ready_bytes: int = 0
    active: int = 0
    success: float | None = None
    goodput_bytes_s: float | None = None
    file_bytes_s: float | None = None
    overhead_s: float = 0.0
    slot_s: float | None = None
    start_s: float = 0.0
    starts_s: float | None = None
    blocked: bool = False

    @property
    def shut(self) -> bool:
        """Nothing that is queued here starts."""
        return self.blocked or self.start_s == math.inf

    @property
    def start_rate(self) -> float:
        """Starts per second for those that wait, as far as can be told; positive."""
        if self.starts_s is not None:
            return self.starts_s
        if 0 < self.start_s < math.inf and self.ready:
            return self.ready / self.start_s
        return max(self.active, 1) / (self.slot_s or SLOT_S_DEFAULT)

    def queued(self, n_bytes: int | None) -> LinkView:
        """The view with one more file waiting: keeps one large submission from going to one source as a whole."""
        return replace(
            self,
            ready=self.ready + 1,
            ready_bytes=self.ready_bytes + (n_bytes or 0),
            start_s=self.start_s + 1 / self.start_rate,
        )


def check(strategy: str, field: str) -> None:
    """Raises: Invalid: no such strategy, in FTS's words."""
    if strategy not in STRATEGIES:
        raise Invalid(f"{strategy} algorithm is not supported by Scheduler", field=field)


def rank(strategy: str, views: Collection[LinkView]) -> dict[str, tuple[float, float]]:
    """{source: (a, b)}: `a + b · size in bytes` is its cost, smaller is better; blocked or not.

    The unit of the cost is the strategy's own. Args: strategy: one of `CHOOSING`.
    """
    typical = _Typical.of(views)
    return {view.source_se: _cost(strategy, view, typical) for view in views}


def order(
    strategy: str, sources: Sequence[str], views: Mapping[str, LinkView], size_bytes: int | None
) -> tuple[int, ...]:
    """Indices of `sources` (endpoints of the replicas, in the user's order), the best first.

    Equal ones keep the user's order; blocked ones come last. Args: views: by source; one that is
    missing is not measured.  size_bytes: None: as long as files usually are.
    """
    if strategy == ORDERLY:
        return tuple(range(len(sources)))
    seen = {source: views.get(source) or LinkView(source_se=source) for source in sources}
    typical = _Typical.of(seen.values())
    size = typical.file_bytes if size_bytes is None else float(size_bytes)
    costs: dict[str, tuple[bool, float]] = {}
    for source, view in seen.items():
        fixed, per_byte = _cost(strategy, view, typical)
        costs[source] = (view.shut, fixed + per_byte * size)
    return tuple(sorted(range(len(sources)), key=lambda index: costs[sources[index]]))


def prefer(
    views: Collection[LinkView], *, current: str | None = None, strategies: Iterable[str] = CHOOSING
) -> dict[str, dict[str, tuple[float, float]]]:
    """The table of `model.Reroute`: strategy → source → (a, b), blocked sources left out.

    Args: current: the source of the queue that is looked at. Others are preferred only when they are better by
        a fifth of its cost and `LEAST` more, so that the same figures never send a file there and back.
    Returns: strategies without any source that is open are left out: their files stay where they are.
    """
    table: dict[str, dict[str, tuple[float, float]]] = {}
    shut = {view.source_se for view in views if view.shut}
    if len(shut) == len(views):
        return table
    stays = any(view.source_se == current for view in views) and current not in shut
    for strategy in strategies:
        costs = {source: pair for source, pair in rank(strategy, views).items() if source not in shut}
        if stays:
            costs = {source: _with_margin(pair, strategy, source == current) for source, pair in costs.items()}
        table[strategy] = costs
    return table


def spread(
    strategy: str, current: LinkView, views: Iterable[LinkView], size_bytes: float, n_max: int
) -> dict[str, int]:
    """{source: n}: how many files that wait in one queue are to go where, of `n_max` that may.

    Each takes the source that is best for it after those before it: moving all to the one that is best now
    would make it the worst. Nobody moves for less than the margin of `prefer`, and all do where nothing starts.
    Args: size_bytes: of a file that waits.
    """
    others = [view for view in views if not view.shut and view.source_se != current.source_se]
    n_left = min(n_max, current.ready)
    if not others or n_left <= 0:
        return {}
    typical = _Typical.of([current, *others])

    def cost(view: LinkView) -> float:
        fixed, per_byte = _cost(strategy, view, typical)
        return fixed + per_byte * size_bytes

    def growth(view: LinkView) -> float:
        return cost(view.queued(int(size_bytes))) - cost(view)

    here, falls = (math.inf, 0.0) if current.shut else (cost(current), growth(current))
    line = [(cost(view), place, growth(view)) for place, view in enumerate(others)]
    heapq.heapify(line)
    found: dict[str, int] = {}
    while n_left:
        there, place, grows = line[0]
        if there + LEAST[strategy] >= here * (1 - MARGIN):
            break
        # Where nothing grows, one step is as good as all of them.
        n = n_left if not grows and not falls else 1
        source = others[place].source_se
        found[source] = found.get(source, 0) + n
        n_left -= n
        here -= n * falls
        heapq.heapreplace(line, (there + n * grows, place, grows))
    return found


def typical_bytes(views: Iterable[LinkView]) -> float:
    """The length of a file of which nothing is known."""
    return _Typical.of(views).file_bytes


@dataclass(frozen=True, slots=True)
class _Typical:
    """What links that are not measured are taken for."""

    file_bytes_s: float
    goodput_bytes_s: float
    best_file_bytes_s: float
    best_goodput_bytes_s: float
    file_bytes: float

    @classmethod
    def of(cls, views: Iterable[LinkView]) -> _Typical:
        views = list(views)
        files = [view.file_bytes_s for view in views if view.file_bytes_s and view.file_bytes_s >= BYTES_S_MIN]
        goodputs = [
            view.goodput_bytes_s for view in views if view.goodput_bytes_s and view.goodput_bytes_s >= BYTES_S_MIN
        ]
        sizes = [view.slot_s * view.file_bytes_s for view in views if view.slot_s and view.file_bytes_s]
        file_bytes_s = _mean(files, BYTES_S_DEFAULT)
        goodput_bytes_s = _mean(goodputs, file_bytes_s)
        return cls(
            file_bytes_s=file_bytes_s,
            goodput_bytes_s=goodput_bytes_s,
            best_file_bytes_s=max(files, default=file_bytes_s),
            best_goodput_bytes_s=max(goodputs, default=goodput_bytes_s),
            file_bytes=_mean(sizes, FILE_BYTES_DEFAULT),
        )


def _mean(values: Sequence[float], default: float) -> float:
    return math.fsum(values) / len(values) if values else default


def _cost(strategy: str, view: LinkView, typical: _Typical) -> tuple[float, float]:
    return _COSTS[strategy](view, typical)


def _completion(view: LinkView, typical: _Typical) -> tuple[float, float]:
    """Until the file is there: each attempt waits, copies, and succeeds with the link's success rate."""
    success = max(_success(view), SUCCESS_MIN)
    rate = _rate(view.file_bytes_s, typical.file_bytes_s, typical.file_bytes_s)
    seconds = view.start_s + view.overhead_s + (1 - success) * RETRY_S
    return seconds / success, 1 / (rate * success)


def _success(view: LinkView) -> float:
    return 1.0 if view.success is None else min(max(view.success, 0.0), 1.0)


def _rate(measured: float | None, unknown: float, mean: float) -> float:
    return unknown if measured is None else max(measured, mean / SLOW_MAX)


def _waiting_s(view: LinkView, typical: _Typical) -> float:
    # A link that was idle has had little goodput, and yet can do at least what one file does.
    rate = max(_rate(view.goodput_bytes_s, typical.goodput_bytes_s, typical.goodput_bytes_s), view.file_bytes_s or 0.0)
    return view.ready_bytes / rate


def _with_margin(pair: tuple[float, float], strategy: str, stays: bool) -> tuple[float, float]:
    fixed, per_byte = pair
    if stays:
        return fixed * (1 - MARGIN), per_byte * (1 - MARGIN)
    return fixed + LEAST[strategy], per_byte


def _duration(view: LinkView, typical: _Typical) -> tuple[float, float]:
    fixed, _ = _waiting_with_error(view, typical)
    return fixed, 1 / _rate(view.file_bytes_s, typical.file_bytes_s, typical.file_bytes_s)


def _waiting_with_error(view: LinkView, typical: _Typical) -> tuple[float, float]:
    return _waiting_s(view, typical) * (2 - _success(view)), 0.0


def _throughput(view: LinkView, typical: _Typical) -> tuple[float, float]:
    return 1e9 / _rate(view.goodput_bytes_s, typical.best_goodput_bytes_s, typical.goodput_bytes_s), 0.0


def _file_throughput(view: LinkView, typical: _Typical) -> tuple[float, float]:
    return 1e9 / _rate(view.file_bytes_s, typical.best_file_bytes_s, typical.file_bytes_s), 0.0


_COSTS: Final[Mapping[str, Callable[[LinkView, _Typical], tuple[float, float]]]] = {
    "queue": lambda view, _: (float(view.ready), 0.0),
    "auto": _completion,
    "success": lambda view, _: (1.0 - _success(view), 0.0),
    "throughput": _throughput,
    "file-throughput": _file_throughput,
    "pending-data": lambda view, _: (float(view.ready_bytes), 0.0),
    "waiting-time": lambda view, typical: (_waiting_s(view, typical), 0.0),
    "waiting-time-with-error": _waiting_with_error,
    "duration": _duration,
}
