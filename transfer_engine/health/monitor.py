"""The health of all places: evidence in, caps out. Pure; chance from a given `rng`, time from arguments."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from typing import Any, Final

from protocols.errors import Overloaded
from transfer_engine.config import BreakerSettings
from transfer_engine.health import memory
from transfer_engine.health.alarms import Alarms
from transfer_engine.health.blame import Blame, Rule, judge
from transfer_engine.health.circuit import REOPEN_PART, State
from transfer_engine.health.pause import Pause
from transfer_engine.health.spot import Route, Spot, Spots
from transfer_engine.health.wording import Row, of_circuit, of_pause, row_of_circuit, row_of_pause
from transfer_engine.model import Failure
from transfer_engine.places import Cap, Link, Place

PAUSE_MIN_S: Final = 1.0
"""A `Retry-After` counts whole seconds; its 0 is no invitation to come back at this very instant."""

Changed = frozenset[Place]
"""Places whose cap changed, or when it ends."""
NONE: Final[Changed] = frozenset()


class Health:
    """Circuit breakers and pauses of endpoints (each direction), links, and VOs on endpoints.

    Every attempt is told once with `started`, and once more when it gives its slots back: with
    `observe` (it succeeded or failed) or `released` (it ended and tells nothing: cancelled, never begun, or
    told already by `lost`). `began_at` is the instant that `started` was given: it tells the tries of a place
    in trouble from what was under way when trouble began.
    """

    def __init__(self, settings: BreakerSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._spots = Spots(settings)
        self._troubled: dict[Place, Spot] = {}
        """Those with a cap."""
        self._alarms = Alarms()
        self._seen: dict[str, tuple[str, float, float]] = {}
        """Endpoint → the other end of its last success, when that was, and when the last with another one was."""
        self._now = -math.inf

    # What happens

    def started(self, link: Link, vo: str, now: float) -> None:
        """An attempt began, or was taken over."""
        for spot in self._spots.route(link, vo).used:
            spot.enter(now)

    def observe(self, link: Link, vo: str, failure: Failure | None, now: float, *, began_at: float) -> Changed:
        """An attempt ended. `failure`: None: it succeeded."""
        for spot in self._spots.route(link, vo).used:
            spot.leave(began_at)
        return self._take_in(link, vo, failure, now, began_at)

    def lost(self, link: Link, vo: str, failure: Failure, now: float, *, began_at: float) -> Changed:
        """An attempt failed: it keeps its slots until it is `released`."""
        return self._take_in(link, vo, failure, now, began_at, n_leaving=1)

    def released(self, link: Link, vo: str, now: float, *, began_at: float) -> Changed:
        """An attempt gave its slots back and tells nothing."""
        self._now = max(self._now, now)
        used = self._spots.route(link, vo).used
        for spot in used:
            spot.leave(began_at)
        return self._refresh(used)

    def moving(self, link: Link, vo: str, now: float, *, began_at: float) -> Changed:
        """The first bytes of an attempt moved: both ends are there and let it in, long before a large file ends."""
        self._now = max(self._now, now)
        used = self._spots.route(link, vo).used
        for spot in used:
            if spot.circuit.is_probe(began_at):
                spot.circuit.move(now)
        return self._refresh(used)

    def tick(self, now: float) -> Changed:
        """Time has passed."""
        self._now = max(self._now, now)
        spots = [self._spots.at(place) for place in self._alarms.ring(now)]
        for spot in spots:
            spot.due(now)
        return self._refresh(spots)

    # What follows from it

    def next_change_at(self) -> float | None:
        """When `tick` has something to do; None: nothing by itself."""
        return self._alarms.next_at()

    def cap(self, place: Place) -> Cap | None:
        """How many attempts may be active in a place and why; None: any number."""
        spot = self._spots.by_place.get(place)
        return None if spot is None else self._cap(spot)

    def is_tried(self, place: Place) -> bool:
        """A try is under way, or about to begin: nobody knows yet whether the place works again."""
        spot = self._spots.by_place.get(place)
        return spot is not None and spot.circuit.state is State.PROBING

    def closed(self, link: Link, vo: str) -> dict[Place, float]:
        """The closed places among those that an attempt would use → when each is tried again."""
        used = self._spots.route(link, vo).used
        return {spot.place: spot.circuit.until for spot in used if spot.circuit.state is State.OPEN}

    def caps(self) -> Mapping[Place, Cap]:
        """All caps there are."""
        found = {place: self._cap(spot) for place, spot in self._troubled.items()}
        return {place: cap for place, cap in found.items() if cap is not None}

    def _cap(self, spot: Spot) -> Cap | None:
        if spot.limit is None:
            return None
        pause, own = spot.pause, spot.circuit.limit(spot.n_active)
        if pause is None or (own is not None and own <= pause.limit):
            return Cap(spot.limit, of_circuit(spot.place, spot.circuit, spot.n_active, self._now))
        return Cap(spot.limit, of_pause(spot.place, pause, spot.n_active, self._now))

    def excuses(self, link: Link, vo: str, failure: Failure, *, began_at: float) -> bool:
        """Whether a failure should not be charged to its transfer; ask after it was observed.

        True for what was under way when a place closed for this very kind of failure, and for what a
        storage put off (`Retry-After`). Tries of a closed place are charged, so that the transfers of a
        storage that never comes back do end. The caller bounds how often in a row it follows.
        """
        verdict = judge(link, vo, failure)
        if verdict.pauses:
            return failure.code == Overloaded.code
        caught = False
        for blame in verdict.blames:
            circuit = self._spots.at(blame.place).circuit
            if circuit.trouble is None:
                continue
            if began_at <= circuit.opened_at:
                caught = caught or circuit.trouble is blame.trouble
            elif circuit.state is not State.CLOSED:
                return False
        return caught

    def report(self) -> list[Row]:
        """All places in trouble or failing, by kind and name."""
        rows = []
        for place, spot in sorted(self._spots.by_place.items()):
            circuit, pause = spot.circuit, spot.pause
            if circuit.state is not State.CLOSED or circuit.streaks:
                rows.append(row_of_circuit(place, circuit, spot.n_active, self._now))
            if pause is not None:
                rows.append(row_of_pause(place, pause, spot.n_active, self._now))
        return rows

    # Restarts

    def dump(self) -> dict[str, Any]:
        """All trouble as a JSON value; not what is active."""
        return memory.dump(self._spots.by_place.values())

    def load(self, data: Mapping[str, Any], now: float) -> Changed:
        """Take up what an earlier engine knew; once, before anything else. Raises: ValueError: it is not a dump."""
        self._now = max(self._now, now)
        circuits, pauses = memory.load(data, self._settings, now)
        for place, circuit in circuits.items():
            self._spots.at(place).circuit = circuit
        for place, pause in pauses.items():
            self._spots.at(place).pause = pause
        return self._refresh([self._spots.at(place) for place in {**circuits, **pauses}])

    # Inside

    def _take_in(
        self, link: Link, vo: str, failure: Failure | None, now: float, began_at: float, *, n_leaving: int = 0
    ) -> Changed:
        """`n_leaving`: so many of those that are counted as active are about to leave."""
        self._now = max(self._now, now)
        route = self._spots.route(link, vo)
        if failure is None:
            more = self._succeed(route, now, began_at)
        else:
            paused = [self._spots.at(place) for place in judge(link, vo, failure).pauses]
            for spot in paused:
                self._pause(spot, failure, now, max(spot.n_active - n_leaving, 0))
            more = [*self._fail(link, vo, failure, now, began_at), *paused]
        return self._refresh([*route.used, *more])

    def _succeed(self, route: Route, now: float, began_at: float) -> Iterable[Spot]:
        more: list[Spot] = []
        for spot in route.used:
            probed = spot.circuit.state is State.PROBING
            spot.succeed(now, began_at=began_at, enough=self._settings.recovered)
            if probed and spot.circuit.state is State.RECOVERING and spot.place.kind in {"in", "out"}:
                more += self._try_links(spot.place.name, now)
        for spot in route.opposite:
            spot.circuit.answer(now, began_at=began_at)
        source_se, dest_se = route.opposite[0].place.name, route.opposite[1].place.name
        self._see(source_se, dest_se, now)
        self._see(dest_se, source_se, now)
        return [*more, *route.opposite]

    def _fail(self, link: Link, vo: str, failure: Failure, now: float, began_at: float) -> Iterable[Spot]:
        verdict = judge(link, vo, failure)
        more: list[Spot] = []
        reopened: float | None = None
        luck = self._rng.random() if verdict.blames else 0.0
        for blame in verdict.blames:
            spot = self._spots.at(blame.place)
            circuit = spot.circuit
            probed = circuit.state is State.PROBING and circuit.is_probe(began_at)
            circuit.fail(blame, failure, now, began_at=began_at, alone=self._alone(blame, now), luck=luck)
            streak = circuit.streak
            if probed and streak is not None and streak.several:
                reopened = max(reopened or 0.0, circuit.until)
            if blame.place.kind == "link" and reopened is not None:
                # The next try of the endpoint shall go to another of its links: this one alone may be dead.
                circuit.open_until(reopened + self._settings.open_s / REOPEN_PART, blame.trouble, now, luck)
            more.append(spot)
        for endpoint in verdict.alive:
            for place in (Place("in", endpoint), Place("out", endpoint)):
                spot = self._spots.at(place)
                spot.circuit.answer(now, began_at=began_at)
                more.append(spot)
        return more

    def _alone(self, blame: Blame, now: float) -> bool:
        match blame.rule:
            case Rule.ALONE:
                return True
            case Rule.SEVERAL:
                return False
            case Rule.QUIET:
                partner, at, other_at = self._seen.get(blame.place.name, ("", -math.inf, -math.inf))
                return now - (other_at if partner == blame.partner else at) > self._settings.quiet_s

    def _see(self, endpoint: str, partner: str, now: float) -> None:
        last, at, other_at = self._seen.get(endpoint, (partner, -math.inf, -math.inf))
        self._seen[endpoint] = (partner, now, other_at if partner == last else at)

    def _pause(self, spot: Spot, failure: Failure, now: float, n_left: int) -> None:
        """A storage asked to be spared while `n_left` others run there."""
        if spot.pause is None:
            spot.pause = Pause(now, n_left)
        wait = min(max(failure.retry_after_s or 0.0, PAUSE_MIN_S), self._settings.pause_max_s)
        spot.pause.refuse(now + wait, n_left, failure.message)

    def _try_links(self, endpoint: str, now: float) -> list[Spot]:
        """An endpoint is back: its links, closed along with it, need not wait out their own time."""
        found = []
        for place, spot in self._troubled.items():
            if place.kind == "link" and endpoint in {place.name, place.other} and spot.circuit.state is State.OPEN:
                spot.circuit.due(now)
                found.append(spot)
        return found

    def _refresh(self, spots: Iterable[Spot]) -> Changed:
        """Alarms and limits of places that something happened to."""
        changed = []
        for spot in spots:
            if spot.well:
                continue
            self._alarms.set(spot.place, spot.alarm)
            limit, until = spot.limit_now(), spot.alarm
            if limit != spot.limit or (limit is not None and until != spot.until):
                spot.limit, spot.until = limit, until
                changed.append(spot.place)
                if limit is None:
                    del self._troubled[spot.place]
                else:
                    self._troubled[spot.place] = spot
        return frozenset(changed) if changed else NONE
