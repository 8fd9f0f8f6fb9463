"""Who waits for a destination: VOs, their activities, priorities in these, and lanes with work. Pure.

A lane is what waits of one queue at one priority. It is open while it has ready transfers and nothing
but its destination's own limit (or the node's) keeps them back; otherwise it waits in the room that is
full and is not looked at. What a choice costs depends on how many VOs and activities compete at one
destination, not on how many lanes or transfers there are.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final, TypeVar

from transfer_engine.shares import Account

if TYPE_CHECKING:
    from transfer_engine.model import Queue
    from transfer_engine.places import Link
    from transfer_engine.rooms import Band, Room

RECENT_S: Final = 1800.0
"""How long a VO of which nothing waits is expected to come again."""
PASSED_OVER_MAX: Final = 10
"""So many starts of its activity may pass over a lower priority that waits; then it is its turn."""


class Lane:
    """Ready transfers of one queue at one priority."""

    __slots__ = (
        "bands", "blocked", "key", "level", "link", "n_bytes", "n_held", "n_ready", "open", "parked_in",
        "priority", "queue", "rooms", "shared", "site", "stamp",
    )  # fmt: skip

    def __init__(
        self,
        queue: Queue,
        priority: int,
        *,
        link: Link,
        site: Site,
        level: Level,
        rooms: tuple[Room, ...],
        bands: tuple[Band, ...],
    ) -> None:
        self.queue = queue
        self.priority = priority
        self.link = link
        self.site = site
        self.level = level
        self.rooms = rooms
        """Everything that a transfer of this lane holds a slot of, the destination's `in` first, the node last."""
        self.shared = (rooms[1], rooms[4])
        """Those that transfers to other destinations take slots of as well: the source's, and the VO's there."""
        self.bands = bands
        self.n_ready = 0
        self.n_bytes = 0
        self.n_held = 0
        """Transfers of it that hold slots."""
        self.open = False
        self.blocked = False
        """The store found nothing to claim: what waits is for destinations that are being written."""
        self.parked_in: Room | Band | None = None
        self.key = 0.0
        """What it was served, in slot-seconds for its weight."""
        self.stamp = 0
        """Entries of the level's heap with another stamp are void."""

    def full(self) -> Room | None:
        """The first room beyond the destination's own that is full."""
        for room in self.rooms[1:-1]:
            if room.used >= room.limit or (room.promised is not None and room.full_for(self.site)):
                return room
        return None


class Level:
    """One priority inside an activity."""

    __slots__ = ("activity", "clock", "heap", "n_open", "of_link", "passed_over", "priority")

    def __init__(self, activity: ActivityNode, priority: int) -> None:
        self.activity = activity
        self.priority = priority
        self.n_open = 0
        self.of_link: dict[Link, int] = {}
        """Link → its open lanes here, one for each class of sizes: together they count as one link."""
        self.passed_over = 0
        """Starts of the activity since this level was served."""
        self.clock = 0.0
        self.heap: list[tuple[float, int, int, Lane]] = []
        """(key, number, stamp, lane) of open lanes; the least served first."""

    def first(self) -> Lane | None:
        """The open lane that has had least."""
        heap = self.heap
        while heap:
            _, _, stamp, lane = heap[0]
            if lane.open and lane.stamp == stamp:
                return lane
            heapq.heappop(heap)
        return None


class ActivityNode:
    """One activity of a VO at a destination."""

    __slots__ = ("account", "levels", "n_open", "name", "vo")

    def __init__(self, vo: VoNode, name: str, weight: float) -> None:
        self.vo = vo
        self.name = name
        self.account = Account(weight)
        self.levels: dict[int, Level] = {}
        self.n_open = 0

    def level(self, priority: int) -> Level:
        """The level of a priority."""
        found = self.levels.get(priority)
        if found is None:
            found = self.levels[priority] = Level(self, priority)
        return found

    def next_level(self) -> Level:
        """Whose turn it is: the highest priority, or one that was passed over too often. At least one is open."""
        best: Level | None = None
        for level in self.levels.values():
            if level.n_open and (best is None or _before(level, best)):
                best = level
        assert best is not None, "an activity is asked only while it has open lanes"
        return best

    def served(self, chosen: Level) -> None:
        """A transfer of `chosen` starts: the others were passed over once more."""
        if len(self.levels) > 1:
            for level in self.levels.values():
                if level is chosen:
                    level.passed_over = 0
                elif level.n_open:
                    level.passed_over += 1


def _before(one: Level, other: Level) -> bool:
    late, other_late = one.passed_over >= PASSED_OVER_MAX, other.passed_over >= PASSED_OVER_MAX
    if late != other_late:
        return late
    if late and one.passed_over != other.passed_over:
        return one.passed_over > other.passed_over
    return one.priority > other.priority


class VoNode:
    """One VO at a destination."""

    __slots__ = ("account", "activities", "clock", "n_open", "name", "seen_at", "site")

    def __init__(self, site: Site, name: str, weight: float) -> None:
        self.site = site
        self.name = name
        self.account = Account(weight)
        self.activities: dict[str, ActivityNode] = {}
        self.n_open = 0
        self.clock = 0.0
        self.seen_at = -math.inf
        """When something of it was ready last, about."""

    def activity(self, name: str, weight: float) -> ActivityNode:
        """The node of an activity."""
        found = self.activities.get(name)
        if found is None:
            found = self.activities[name] = ActivityNode(self, name, weight)
        return found


class Site:
    """One destination and everybody who has transfers into it."""

    __slots__ = (
        "_counter",
        "_square_s",
        "_sum_s",
        "clock",
        "filled",
        "full",
        "horizon_s",
        "key",
        "n_open",
        "name",
        "promise",
        "queued",
        "room",
        "vos",
    )  # fmt: skip

    def __init__(self, name: str, room: Room) -> None:
        self.name = name
        self.room = room
        self.full = room.used >= room.limit
        """There is no room for another transfer."""
        self.vos: dict[tuple[str, tuple[str, str]], VoNode] = {}
        """(VO, group of its shares) → node."""
        self.n_open = 0
        self.clock = 0.0
        self.key = 0.0
        """What it was served of the node's slots."""
        self.filled = False
        """It moves all that it can."""
        self.promise: Room | None = None
        """Where a slot is kept for its next transfer."""
        self.queued = False
        """It is among those that may be able to start something."""
        self.horizon_s = 10.0
        """How long a transfer that holds a slot now typically holds it: Σd²/Σd of the recent ones."""
        self._sum_s = 0.0
        self._square_s = 0.0
        self._counter = 0

    def note_room(self) -> None:
        """What runs here, or how much may, has changed."""
        self.full = self.room.used >= self.room.limit

    def learn(self, slot_s: float) -> None:
        """Take in how long a transfer held its slot."""
        self._sum_s = 0.98 * self._sum_s + slot_s
        self._square_s = 0.98 * self._square_s + slot_s * slot_s
        if self._sum_s > 0:
            self.horizon_s = max(self._square_s / self._sum_s, 0.1)

    def open(self, lane: Lane, now: float) -> None:
        """A lane has something to start."""
        if lane.open:
            return
        level = lane.level
        activity = level.activity
        vo = activity.vo
        lane.open = True
        lane.key = max(lane.key, level.clock)
        self.push(lane)
        if not vo.n_open:
            vo.account.join(self.clock, now)
        if not activity.n_open:
            activity.account.join(vo.clock, now)
        level.n_open += 1
        level.of_link[lane.link] = level.of_link.get(lane.link, 0) + 1
        activity.n_open += 1
        vo.n_open += 1
        self.n_open += 1
        vo.seen_at = now

    def tidy(self, used: AbstractSet[Level]) -> None:
        """Forget levels that no lane is in, and activities and VOs without any that hold nothing."""
        for vo_key, vo in list(self.vos.items()):
            for activity in list(vo.activities.values()):
                for level in list(activity.levels.values()):
                    if level not in used:
                        del activity.levels[level.priority]
                if not activity.levels and not activity.account.held:
                    del vo.activities[activity.name]
            if not vo.activities and not vo.account.held:
                del self.vos[vo_key]

    def _within_share(self, now: float) -> list[VoNode]:
        """Of a destination that is filled: the VOs that have less than their share of its slots.

        Those who were here a moment ago count as well, though nothing of theirs waits: what more copies of
        the others would take from them when they come again is worth nothing to anybody now.
        """
        here = [vo for vo in self.vos.values() if vo.n_open or vo.account.held or now - vo.seen_at < RECENT_S]
        weights = sum(vo.account.weight for vo in here)
        limit = self.room.limit
        return [vo for vo in here if vo.n_open and vo.account.held < limit * vo.account.weight / weights]

    def push(self, lane: Lane) -> None:
        """Put an open lane into its level's order, anew when its key has changed."""
        lane.stamp += 1
        self._counter += 1
        heapq.heappush(lane.level.heap, (lane.key, self._counter, lane.stamp, lane))

    def close(self, lane: Lane) -> None:
        """A lane has nothing that could start."""
        if not lane.open:
            return
        lane.open = False
        level = lane.level
        level.n_open -= 1
        level.of_link[lane.link] -= 1
        level.activity.n_open -= 1
        level.activity.vo.n_open -= 1
        self.n_open -= 1

    def choose(self, now: float) -> Lane | None:
        """The open lane that the next slot should go to: VO, activity, priority, lane."""
        if not self.n_open:
            return None
        nodes: Collection[VoNode] = self.vos.values()
        if self.filled and len(nodes) > 1:
            nodes = self._within_share(now)
            if not nodes:
                return None
        vo, self.clock = _least(nodes, now, self.horizon_s, self.clock)
        activity, vo.clock = _least(vo.activities.values(), now, self.horizon_s, vo.clock)
        lane = activity.next_level().first()
        assert lane is not None, "counts of open lanes and heaps agree"
        return lane


N = TypeVar("N", VoNode, ActivityNode)


def _least(nodes: Iterable[N], now: float, horizon_s: float, clock: float) -> tuple[N, float]:
    """The open node that is to be served next, and the level at which others may join from now on."""
    best: N | None = None
    best_score = lowest = math.inf
    for node in nodes:
        if not node.n_open:
            continue
        account = node.account
        served = account.served
        if account.held:
            served += account.held * (now - account.at) / account.weight
        lowest = min(lowest, served)
        score = served + horizon_s * (account.held + 0.5) / account.weight
        if score < best_score:
            best, best_score = node, score
    assert best is not None, "a node is asked only while it has open lanes"
    return best, max(clock, lowest)
