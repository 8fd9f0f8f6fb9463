"""Places where slots are counted, and who waits there for one. Pure."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Final

from transfer_engine.limits import UNLIMITED
from transfer_engine.places import Cap, Place
from transfer_engine.reasons import Reason, Why

if TYPE_CHECKING:
    from transfer_engine.lanes import Lane, Site

NAMES: Final = {
    "in": "inbound limit of {0.name}",
    "out": "outbound limit of {0.name}",
    "link": "limit of the link {0}",
    "vo-in": "limit of {0.other} into {0.name}",
    "vo-out": "limit of {0.other} out of {0.name}",
    "size": "number of {0}",
    "node": "limit of this node",
}
OWED_SLOTS: Final = 4.0
"""A slot is kept only for who has been passed over by so many transfers."""
OWED_WAITS: Final = 50.0
"""... and is owed so many times the slot time that stays unused for it: it costs at most two per cent."""
SLACK: Final = 64
"""Void entries of a room's order that are kept at most, unless they are fewer than the others."""
REMEMBER: Final = 0.98
"""Weight of the past in the mean duration of a place's transfers."""


class Room:
    """One limited place: what it holds, what bounds it, who waits for it."""

    __slots__ = (
        "_caps", "_clock", "_configured", "_queue", "_seq", "keys", "limit", "parked", "pending", "place",
        "promised", "slot_s", "used",
    )  # fmt: skip

    def __init__(self, place: Place, limit: int) -> None:
        self.place = place
        self.used = 0
        self.limit = limit
        """What holds now: the least of the configured limit and all caps."""
        self._configured = limit
        self._caps: dict[str, Cap] = {}
        self.pending = 0
        """Ready transfers that need this place."""
        self.slot_s = 1.0
        """Mean seconds that a transfer holds a slot here."""
        self.parked: dict[Site, list[Lane]] = {}
        """Destination → lanes that wait for room here."""
        self.keys: dict[Site, float] = {}
        """Destination → what it was served here, for its weight."""
        self.promised: Site | None = None
        """One slot is kept for this destination."""
        self._queue: list[tuple[float, int, Site]] = []
        self._seq = 0
        self._clock = 0.0

    def cap(self, owner: str, cap: Cap | None) -> None:
        """Set or lift one cap."""
        if cap is None:
            self._caps.pop(owner, None)
        else:
            self._caps[owner] = cap
        self._bound()

    def configure(self, limit: int) -> None:
        """Set the configured limit."""
        self._configured = limit
        self._bound()

    def _bound(self) -> None:
        self.limit = min((cap.limit for cap in self._caps.values()), default=UNLIMITED)
        self.limit = min(self.limit, self._configured)

    @property
    def is_capped(self) -> bool:
        """Somebody bounds it beside the configuration."""
        return self.limit < self._configured

    def ceiling(self) -> tuple[int, float | None, int]:
        """What bounds it now, until which instant (None: no end is known), and what then."""
        binding = [cap for cap in self._caps.values() if cap.limit == self.limit]
        ends = [cap.reason.until for cap in binding]
        if self._configured == self.limit or not binding or None in ends:
            return self.limit, None, self.limit
        others = [cap.limit for cap in self._caps.values() if cap not in binding]
        return self.limit, max(at for at in ends if at is not None), min([self._configured, *others])

    def full_for(self, site: Site) -> bool:
        """Whether a transfer to a destination has to wait."""
        kept = self.promised is not None and self.promised is not site
        return self.used + kept >= self.limit

    @property
    def drain_s(self) -> float:
        """How long what waits would take at the present limit: who has most is last to be done."""
        return self.pending * self.slot_s / max(self.limit, 1)

    def learn(self, slot_s: float) -> None:
        """Take in how long a transfer held its slot."""
        self.slot_s = REMEMBER * self.slot_s + (1 - REMEMBER) * slot_s

    def reason(self) -> Reason:
        """Why there is no room: the cap that bounds it, or the configured limit."""
        for cap in sorted(self._caps.values(), key=lambda cap: (cap.limit, cap.reason.code)):
            if cap.limit == self.limit:
                why = cap.reason
                return Reason(
                    code=why.code, text=why.text, subject=why.subject, used=self.used, limit=cap.limit, until=why.until
                )
        name = NAMES[self.place.kind].format(self.place)
        return Reason(
            code=Why.LIMIT,
            text=f"the {name} is reached: {self.used} of {self.limit} are running",
            subject=str(self.place),
            used=self.used,
            limit=self.limit,
        )

    # Who waits

    def patience(self, site: Site) -> float:
        """How much less than others a destination may have had here before a slot is kept for it, in slot-seconds."""
        into = site.room
        return max(OWED_SLOTS * self.slot_s, OWED_WAITS * site.horizon_s / max(min(into.limit, into.used), 1))

    def key(self, site: Site) -> float:
        """What a destination was served here for its weight; who was not here starts level, or not far behind."""
        served = self.keys.get(site)
        if served is None or served >= self._clock:
            return self._clock if served is None else served
        return max(served, self._clock - 2 * self.patience(site))

    def park(self, lane: Lane) -> None:
        """Let a lane wait here."""
        lane.parked_in = self
        site = lane.site
        lanes = self.parked.get(site)
        if lanes is None:
            self.parked[site] = [lane]
            self.keys[site] = self.key(site)
            self._enter(site)
        else:
            lanes.append(lane)

    def _enter(self, site: Site) -> None:
        self._seq += 1
        heapq.heappush(self._queue, (self.keys[site], self._seq, site))
        if len(self._queue) > 2 * len(self.parked) + SLACK:
            # Behind one that waits for days (its destination is banned) what is void never comes to the top.
            newest = {entry[2]: entry for entry in sorted(self._queue, key=lambda entry: entry[1])}
            self._queue = [entry for other, entry in newest.items() if other in self.parked]
            heapq.heapify(self._queue)

    def first(self) -> Site | None:
        """The destination that has had least here of those that wait."""
        while self._queue:
            key, _, site = self._queue[0]
            if site in self.parked and key >= self.keys[site]:
                return site
            heapq.heappop(self._queue)
            if site in self.parked:
                self._enter(site)
        return None

    def next(self, below: float = math.inf) -> Site | None:
        """The one that has had least, less than `below`, of those that wait and have room for a transfer themselves."""
        site = self.first()
        if site is None or self.keys[site] >= below:
            return None
        if not site.full:
            return site
        able = [other for other in self.parked if not other.full]
        best = min(able, key=self.keys.__getitem__, default=None)
        return None if best is None or self.keys[best] >= below else best

    def wake(self, site: Site) -> list[Lane]:
        """Take a destination's lanes out."""
        self.keys[site] = self.key(site)
        self._clock = max(self._clock, self.keys[site])
        lanes = self.parked.pop(site)
        for lane in lanes:
            lane.parked_in = None
        return lanes

    def served(self, site: Site, cost: float) -> None:
        """A transfer to this destination took a slot."""
        key = self.key(site)
        self._clock = max(self._clock, key)
        self.keys[site] = key + cost

    def forgive(self, site: Site) -> None:
        """A destination did not take the slot that was kept for it: it is owed nothing more than the others."""
        self.keys[site] = max(self.key(site), self._clock)
        if site in self.parked:
            self._enter(site)


class Band:
    """Bytes per second that copies may reach together."""

    __slots__ = ("kept", "limit_bytes_s", "n_copies", "parked", "passed_bytes_s", "place", "used_bytes_s", "waiting")

    def __init__(self, place: Place, limit_bytes_s: float) -> None:
        self.place = place
        self.limit_bytes_s = limit_bytes_s
        self.used_bytes_s = 0.0
        self.n_copies = 0
        """Those that reserve something."""
        self.parked: list[Lane] = []
        self.waiting: dict[Lane, float] = {}
        """Lanes that were refused since they started something last → what a copy needs; the first one first."""
        self.passed_bytes_s = 0.0
        """What copies reserved that began since, and are smaller than what the first of these needs."""
        self.kept: Lane | None = None
        """Nothing else begins here until this one does."""

    def park(self, lane: Lane) -> None:
        """Let a lane wait here."""
        lane.parked_in = self
        self.parked.append(lane)

    def refused(self, lane: Lane, bytes_s: float) -> None:
        """It was a lane's turn, and there was no room for a copy at this rate."""
        self.waiting[lane] = bytes_s

    def started(self, lane: Lane, bytes_s: float) -> None:
        """A copy begins that reserves this."""
        if self.waiting:
            first = next(iter(self.waiting))
            if first is lane:
                self.passed_bytes_s = 0.0
            elif bytes_s < self.waiting[first]:
                self.passed_bytes_s += bytes_s
            self.waiting.pop(lane, None)

    def forget(self, lane: Lane) -> None:
        """A lane does not wait for bandwidth any more."""
        if self.waiting and next(iter(self.waiting)) is lane:
            self.passed_bytes_s = 0.0
        self.waiting.pop(lane, None)

    def wake(self) -> list[Lane]:
        """Take all out."""
        lanes, self.parked = self.parked, []
        for lane in lanes:
            lane.parked_in = None
        return lanes

    def take(self, bytes_s: float) -> None:
        """A copy reserves its rate."""
        if bytes_s > 0:
            self.n_copies += 1
            self.used_bytes_s += bytes_s

    def give_back(self, bytes_s: float) -> None:
        """A copy that reserved this has ended."""
        if bytes_s > 0:
            self.n_copies -= 1
            # What sums of floats leave behind must not keep a copy waiting for one that does not run.
            self.used_bytes_s = self.used_bytes_s - bytes_s if self.n_copies else 0.0

    def holds(self, bytes_s: float) -> bool:
        """Whether one more copy at this rate is allowed; one alone always is."""
        return not self.n_copies or self.used_bytes_s + bytes_s <= self.limit_bytes_s * (1 + 1e-9)

    def reason(self) -> Reason:
        """Why there is no room."""
        return Reason(
            code=Why.BANDWIDTH,
            text=(
                f"the bandwidth limit {self.place} is reached: copies of {self.used_bytes_s / 1e6:.1f} MB/s "
                f"are running, {self.limit_bytes_s / 1e6:.1f} MB/s are allowed"
                + (f"; what becomes free is kept for a copy on {self.kept.link}" if self.kept else "")
            ),
            subject=str(self.place),
            used=self.used_bytes_s,
            limit=self.limit_bytes_s,
        )
