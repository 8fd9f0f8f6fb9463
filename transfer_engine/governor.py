"""What bounds the scheduler beside the configuration: breakers and pauses, the optimizer, orders of operators.

Every attempt is reported here from its claim to the release of its slots. What follows from it becomes
caps on places, with the reason in words; the scheduler knows nothing else of storages.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Concatenate, Final, ParamSpec, TypeVar

from protocols.errors import Phase, Scope
from transfer_engine.board import Board
from transfer_engine.driving import Driven
from transfer_engine.health import Health
from transfer_engine.limits import LimitTable
from transfer_engine.measures import Measures
from transfer_engine.metering import End, Meter
from transfer_engine.model import Assignment, Change, Done, Failed, Failure, FileId, Outcome, Unknown
from transfer_engine.optimizer import Optimizer
from transfer_engine.pacing import LARGE, Pace
from transfer_engine.places import Cap, Link, Place
from transfer_engine.reasons import Reason, Why
from transfer_engine.saturation import Saturation

log = logging.getLogger(__name__)

OPTIMIZED: Final = frozenset({"in", "out", "link"})
OVERLOADS: Final = frozenset({"OVERLOADED", "STALLED"})
TROUBLES: Final = frozenset({"UNAVAILABLE", "TIMED_OUT", "COPY_FAILED", "OUTCOME_UNKNOWN", "BAD_SERVER"})
EXCUSED_MAX: Final = 100_000
"""Transfers whose excuses are remembered: one that is cancelled while it waits is not heard of again."""
TURN_S: Final = 900.0
"""How much later a transfer comes again that was a try of a closed place, while others can be the next one."""
LEARNERS: Final = ("health", "optimizer", "pace")
"""Owners of caps that follow from what was seen."""

P = ParamSpec("P")
T = TypeVar("T")

_NO_CAPS: Final[tuple[tuple[str, Cap], ...]] = ()
_AT_NO_TIME: Final[float | None] = None


def _learning(default: T) -> Callable[[Callable[Concatenate[Governor, P], T]], Callable[Concatenate[Governor, P], T]]:
    """A mistake in what is learned must not stop transfers: they go on without it, and get `default`."""

    def guard(method: Callable[Concatenate[Governor, P], T]) -> Callable[Concatenate[Governor, P], T]:
        @functools.wraps(method)
        def guarded(self: Governor, /, *args: P.args, **more: P.kwargs) -> T:
            if self.broken:
                return default
            try:
                return method(self, *args, **more)
            except Exception:  # the boundary between what is learned and what has to go on
                log.exception("learning broke, transfers go on without it until the next start")
                self.give_up()
                return default

        return guarded

    return guard


class Governor:
    """Caps on places. All `now` are instants of the engine's clock.

    An error in health, optimizer or measures ends the learning, not the engine: see `broken`.
    """

    def __init__(
        self,
        *,
        board: Board,
        limits: LimitTable,
        health: Health,
        optimizer: Optimizer,
        now: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        """Args: wake: more may be able to run, or `next_at` has become earlier."""
        self.health = health
        self.optimizer = optimizer
        self.measures = Measures()
        self._board = board
        self._limits = limits
        self._now = now
        self._wake = wake
        self._meter = Meter(now=now())
        self._look_at: float | None = None
        self._ordered: Mapping[Place, Cap] = {}
        self._excused: dict[FileId, int] = {}
        self._idle: dict[Place, int] = {}
        """Place → transfers that hold slots while the outcome of their lost attempt is looked for."""
        self._paces: dict[Place, Pace] = {}
        self._filling: dict[str, Saturation] = {}
        self._words: dict[Place, str] = {}
        """Place → why the optimizer chose its present target."""
        self._shut: set[Place] = set()
        """Places that a breaker or a pause has closed."""
        self.recovered: set[str] = set()
        """Endpoints that work again: those who wait for a retry there need not wait for longer."""
        self.broken = False
        """Nothing is learned any more, and what was learned bounds nothing; operators' orders still do."""
        board.scheduler.first_caps = self._first_caps

    def _first_caps(self, place: Place) -> Iterable[tuple[str, Cap]]:
        """Caps of a place that the scheduler sees for the first time."""
        yield from self._learned_caps(place)
        if (order := self._ordered.get(place)) is not None:
            yield "order", order

    @_learning(_NO_CAPS)
    def _learned_caps(self, place: Place) -> tuple[tuple[str, Cap], ...]:
        found: list[tuple[str, Cap]] = []
        if place.kind == "size" and self.optimizer.enabled:
            found.append(("pace", self._paced(place, Pace(), self._now())))
        if place.kind in OPTIMIZED and (cap := self._optimized(place)) is not None:
            found.append(("optimizer", cap))
        if (trouble := self.health.cap(place)) is not None:
            found.append(("health", trouble))
        return tuple(found)

    def give_up(self) -> None:
        """Bound nothing by what was learned, and learn nothing more."""
        self.broken = True
        self.recovered.clear()
        scheduler = self._board.scheduler
        for place in list(scheduler.rooms):
            for owner in LEARNERS:
                scheduler.cap(place, owner, None)
        for name in list(scheduler.sites):
            scheduler.fill(name, filled=False)
        self._wake()

    # What happens to transfers

    @_learning(None)
    def started(self, driven: Driven, *, recovered: bool = False) -> None:
        """A transfer was claimed. `recovered`: of an earlier engine; its outcome is looked for."""
        order, now = driven.order, self._now()
        driven.began_at = now
        link = self._board.link(order.queue)
        self.health.started(link, order.queue.vo, now)
        self._meter.started((order.file_id, order.epoch), link, order.size_bytes, now)
        if order.queue.size_class >= LARGE and self.optimizer.enabled:
            place = Place("size", order.queue.dest_se, str(order.queue.size_class))
            self._paces.setdefault(place, Pace()).started(order.file_id, now)
        if recovered:
            self._stands_idle(driven, link)
        if self._look_at is None:
            self._look_at = now + self.optimizer.pace()
            self._wake()

    @_learning(None)
    def told(self, driven: Driven, n_bytes: int | None) -> None:
        """Its COPY is being sent (None), or has moved so many bytes."""
        order = driven.order
        key = (order.file_id, order.epoch)
        if n_bytes is None:
            self._meter.copying(key, self._now())
            return
        driven.told_at = self._now()
        self._meter.marker(key, n_bytes, driven.told_at)
        if n_bytes and not driven.moving:
            self._pace(driven, ended=False)
        if n_bytes and not driven.moving:
            driven.moving = True
            link = self._board.link(order.queue)
            self._apply(self.health.moving(link, order.queue.vo, self._now(), began_at=driven.began_at))

    @_learning(0)
    def failed(self, driven: Driven, failure: Failure) -> int:
        """See `driving.Watcher.failed`."""
        order = driven.order
        link, now = self._board.link(order.queue), self._now()
        # Asked first: the failure by which a storage's trouble becomes known is the transfer's own.
        known = self.health.excuses(link, order.queue.vo, failure, began_at=driven.began_at)
        if driven.failure is None:
            self._apply(self.health.lost(link, order.queue.vo, failure, now, began_at=driven.began_at))
            driven.failure = failure
        if not known:
            self._excused.pop(order.file_id, None)
            return 0
        n = self._excused.pop(order.file_id, 0) + 1
        self._excused[order.file_id] = n
        if len(self._excused) > EXCUSED_MAX:
            del self._excused[next(iter(self._excused))]
        return n

    @_learning(_AT_NO_TIME)
    def tried_at(self, order: Assignment) -> float | None:
        """See `driving.Watcher.tried_at`."""
        link = self._board.link(order.queue)
        closed = self.health.closed(link, order.queue.vo)
        if not closed:
            return None
        # Whoever waits beside it can be the next try; when the storage works again, it is called back at once.
        others = any(map(self._waiting, (*closed, Place("link", link.source_se, link.dest_se))))
        return max(closed.values()) + (TURN_S if others else 0.0)

    @_learning(None)
    def settled(self, driven: Driven, outcome: Outcome, change: Change) -> None:
        """An outcome was committed."""
        if isinstance(outcome, Unknown):
            order = driven.order
            link = self._board.link(order.queue)
            driven.failure = outcome.failure
            changed = self.health.lost(link, order.queue.vo, outcome.failure, self._now(), began_at=driven.began_at)
            self._apply(changed)
            self._stands_idle(driven, link)
        driven.outcome = outcome
        if isinstance(outcome, Failed) and change.charge:
            self._excused.pop(driven.order.file_id, None)

    @_learning(None)
    def released(self, driven: Driven) -> None:
        """It gives its slots back."""
        order, now, outcome = driven.order, self._now(), driven.outcome
        link = self._board.link(order.queue)
        done = isinstance(outcome, Done)
        if done:
            self._excused.pop(order.file_id, None)
            changed = self.health.observe(link, order.queue.vo, None, now, began_at=driven.began_at)
        else:
            changed = self.health.released(link, order.queue.vo, now, began_at=driven.began_at)
        self._apply(changed)
        if driven.idle:
            self._idles(link, -1)
        if order.queue.size_class >= LARGE:
            self._pace(driven, ended=True)
        end, scope = _end_of(driven)
        self._meter.ended((order.file_id, order.epoch), end, driven.n_moved, now, scope)
        if done or isinstance(outcome, Failed):
            self.measures.ended(now, link, max(now - driven.began_at, 1e-6), driven.n_moved, ok=done)

    # Large files

    def _pace(self, driven: Driven, *, ended: bool) -> None:
        """A large file has shown itself, or ended."""
        queue, now = driven.order.queue, self._now()
        place = Place("size", queue.dest_se, str(queue.size_class))
        pace = self._paces.get(place)
        if pace is None:
            return
        if ended:
            pace.ended(driven.order.file_id, now)
        else:
            pace.shown(driven.order.file_id, now)
        self._board.scheduler.cap(place, "pace", self._paced(place, pace, now))
        self._wake()

    @staticmethod
    def _paced(place: Place, pace: Pace, now: float) -> Cap:
        limit = pace.limit(now)
        text = f"{place}: {limit} run at a time until the first of them have shown how they go"
        return Cap(limit, Reason(code=Why.OPTIMIZER, text=text, subject=str(place)))

    # Caps

    def order(self, caps: Mapping[Place, Cap]) -> None:
        """What operators have ordered; the whole of it."""
        if caps is self._ordered:
            return
        before, self._ordered = self._ordered, caps
        for place in {**before, **caps}:
            if before.get(place) != caps.get(place):
                self._board.scheduler.cap(place, "order", caps.get(place))
        self._wake()

    def retune(self, limits: LimitTable) -> None:
        """Other limits are configured: what the optimizer may choose from has changed."""
        self._limits = limits
        self._rebound()
        self._wake()

    @_learning(None)
    def _rebound(self) -> None:
        for place in list(self._board.scheduler.rooms):
            if place.kind in OPTIMIZED:
                self._board.scheduler.cap(place, "optimizer", self._optimized(place))

    def _apply(self, changed: frozenset[Place]) -> None:
        if not changed:
            return
        for place in sorted(changed):
            cap = self.health.cap(place)
            if cap is None or cap.limit > 1:
                # While a place is tried, what was under way before may still hold slots beside the try.
                if place in self._shut and not self.health.is_tried(place):
                    self._shut.discard(place)
                    self.recovered |= {name for name in (place.name, place.other) if "://" in name}
            elif cap.limit == 0:
                self._shut.add(place)
            self._board.scheduler.cap(place, "health", cap)
        self._wake()

    def _bounds(self, place: Place) -> tuple[int, int]:
        highest = self._limits.at(place)
        return min(self._limits.least_of(place), highest), highest

    def _waiting(self, place: Place) -> int:
        return self._board.scheduler.room(place).pending

    def _stands_idle(self, driven: Driven, link: Link) -> None:
        self._meter.lost((driven.order.file_id, driven.order.epoch), self._now())
        self._idles(link, 1)
        driven.idle = True

    def _idles(self, link: Link, n: int) -> None:
        """So many more transfers hold slots without moving anything: they do not count as copies that run."""
        for place in (
            Place("in", link.dest_se),
            Place("out", link.source_se),
            Place("link", link.source_se, link.dest_se),
        ):
            self._idle[place] = self._idle.get(place, 0) + n
            if not self._idle[place]:
                del self._idle[place]
            self._board.scheduler.cap(place, "optimizer", self._optimized(place))

    def _optimized(self, place: Place) -> Cap | None:
        lowest, highest = self._bounds(place)
        target = self.optimizer.target(place, lowest, highest)
        limit = target + self._idle.get(place, 0)
        if limit >= highest:
            return None
        why = self._words.get(place, "nothing is known of it yet, so it begins with few")
        text = f"the optimizer lets {target} run at a time ({place}): {why}"
        return Cap(limit, Reason(code=Why.OPTIMIZER, text=text, subject=str(place)))

    # Time

    @_learning(_AT_NO_TIME)
    def next_at(self) -> float | None:
        """When `on_time` has something to do, or `recovered` is to be looked at."""
        if self.recovered:
            return -math.inf
        at = self.health.next_change_at()
        if self._look_at is None:
            return at
        return self._look_at if at is None else min(at, self._look_at)

    @_learning(None)
    def on_time(self, now: float) -> None:
        """Let breakers try again that are due; look at what runs."""
        at = self.health.next_change_at()
        if at is not None and at <= now:
            self._apply(self.health.tick(now))
        if self._look_at is not None:
            # A clock that was set back must not keep it from looking.
            self._look_at = min(self._look_at, now + self.optimizer.pace())
        if self._look_at is not None and self._look_at <= now:
            self._look(now)

    def _look(self, now: float) -> None:
        for place, pace in self._paces.items():
            if pace.look(now):
                self._board.scheduler.cap(place, "pace", self._paced(place, pace, now))
                self._wake()
        samples = self._meter.samples(now, self._bounds, self._waiting)
        changed = False
        for sample in samples:
            if sample.place.kind == "in" and self.optimizer.enabled:
                filling = self._filling.setdefault(sample.place.name, Saturation())
                self._board.scheduler.fill(sample.place.name, filled=filling.observe(sample, now))
        for adjustment in self.optimizer.observe(samples, now):
            if adjustment.after != adjustment.before:
                log.info("optimizer", extra={"place": str(adjustment.place), "reason": adjustment.reason})
            self._words[adjustment.place] = adjustment.reason
            self._board.scheduler.cap(adjustment.place, "optimizer", self._optimized(adjustment.place))
            changed = True
        self._look_at = now + self.optimizer.pace() if samples else None
        if changed:
            self._wake()

    # Restarts

    @_learning("{}")
    def dump(self) -> str:
        """What was learned, as JSON text."""
        return json.dumps({"health": self.health.dump(), "optimizer": self.optimizer.dump()})

    @_learning(None)
    def load(self, text: str | None) -> None:
        """Go on from what `dump` gave; before anything is claimed. What cannot be read is left out."""
        if text is None:
            return
        try:
            kept = json.loads(text)
            self.optimizer.load(str(kept["optimizer"]))
            self._apply(self.health.load(kept["health"], self._now()))
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("what was learned of storages cannot be read; starting anew")


def _end_of(driven: Driven) -> tuple[End, Scope | None]:
    if isinstance(driven.outcome, Done):
        return End.FINISHED, None
    failure = driven.failure
    if failure is None:
        return End.OTHER, None
    if failure.code in OVERLOADS or (failure.code == "TIMED_OUT" and failure.phase is not Phase.PREPARATION):
        return End.OVERLOADED, failure.scope
    return (End.FAILED if failure.code in TROUBLES else End.OTHER), failure.scope
