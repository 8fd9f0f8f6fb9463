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
from transfer_engine.health.blame import Blame, Rule, Verdict, judge, places_of
from transfer_engine.health.circuit import REOPEN_PART, Circuit, State
from transfer_engine.health.pause import Pause
from transfer_engine.health.wording import Row, of_circuit, of_pause, row_of_circuit, row_of_pause
from transfer_engine.model import Cap, Failure, Link, Place

PAUSE_MIN_S: Final = 1.0
"""A `Retry-After` counts whole seconds; its 0 is no invitation to come back at this very instant."""

Changed = frozenset[Place]
"""Places whose cap changed."""


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
        self._circuits: dict[Place, Circuit] = {}
        self._pauses: dict[Place, Pause] = {}
        self._active: dict[Place, int] = {}
        self._limits: dict[Place, int] = {}
        self._alarms = Alarms()
        self._seen: dict[str, tuple[str, float, float]] = {}
        """Endpoint → the other end of its last success, when that was, and when the last with another one was."""
        self._now = -math.inf

    # What happens

    def started(self, link: Link, vo: str, now: float) -> None:
        """An attempt began, or was taken over."""
        for place in places_of(link, vo):
            self._active[place] = self._active.get(place, 0) + 1
            circuit = self._circuits.get(place)
            if circuit is not None and circuit.is_probe(now):
                circuit.probes += 1

    def observe(self, link: Link, vo: str, failure: Failure | None, now: float, *, began_at: float) -> Changed:
        """An attempt ended. `failure`: None: it succeeded."""
        self._leave(link, vo, began_at)
        return self._take_in(link, vo, failure, now, began_at)

    def lost(self, link: Link, vo: str, failure: Failure, now: float, *, began_at: float) -> Changed:
        """An attempt failed with its outcome unknown: it keeps its slots until it is `released`."""
        return self._take_in(link, vo, failure, now, began_at)

    def released(self, link: Link, vo: str, now: float, *, began_at: float) -> Changed:
        """An attempt gave its slots back and tells nothing."""
        self._now = max(self._now, now)
        self._leave(link, vo, began_at)
        return self._refresh(places_of(link, vo))

    def moving(self, link: Link, vo: str, now: float, *, began_at: float) -> Changed:
        """The first bytes of an attempt moved: both ends are there and let it in, long before a large file ends."""
        self._now = max(self._now, now)
        places = places_of(link, vo)
        for place in places:
            circuit = self._circuits.get(place)
            if circuit is not None and circuit.is_probe(began_at):
                circuit.move(now)
        return self._refresh(places)

    def tick(self, now: float) -> Changed:
        """Time has passed."""
        self._now = max(self._now, now)
        places = self._alarms.ring(now)
        for place in places:
            circuit, pause = self._circuits.get(place), self._pauses.get(place)
            if circuit is not None and circuit.until <= now:
                circuit.due(now)
            if pause is not None and pause.until <= now:
                pause.due()
            self._set_alarm(place)
        return self._refresh(places)

    # What follows from it

    def next_change_at(self) -> float | None:
        """When `tick` has something to do; None: nothing by itself."""
        return self._alarms.next_at()

    def cap(self, place: Place) -> Cap | None:
        """How many attempts may be active in a place and why; None: any number."""
        limit = self._limits.get(place)
        if limit is None:
            return None
        circuit, pause = self._circuits.get(place), self._pauses.get(place)
        n_active = self._active.get(place, 0)
        own = circuit.limit(n_active) if circuit is not None else None
        if circuit is not None and own is not None and (pause is None or own <= pause.limit):
            return Cap(limit, of_circuit(place, circuit, n_active, self._now))
        assert pause is not None
        return Cap(limit, of_pause(place, pause, n_active, self._now))

    def caps(self) -> Mapping[Place, Cap]:
        """All caps there are."""
        found = {place: self.cap(place) for place in self._limits}
        return {place: cap for place, cap in found.items() if cap is not None}

    def excuses(self, link: Link, vo: str, failure: Failure, *, began_at: float) -> bool:
        """Whether a failure should not be charged to its transfer; ask after it was observed.

        True for what was under way when a place closed for this very kind of failure, and for what a
        storage put off (`Retry-After`). Tries of a closed place are charged, so that the transfers of a
        storage that never comes back do end. The caller bounds how often in a row it follows.
        """
        verdict = judge(link, vo, failure)
        if verdict.pauses:
            return failure.code == Overloaded.code
        known = [(blame, self._circuits.get(blame.place)) for blame in verdict.blames]
        caught = False
        for blame, circuit in known:
            if circuit is None or circuit.trouble is None:
                continue
            if began_at <= circuit.opened_at:
                caught = caught or circuit.trouble is blame.trouble
            elif circuit.state is not State.CLOSED:
                return False
        return caught

    def report(self) -> list[Row]:
        """All places in trouble or failing, by kind and name."""
        rows = []
        for place in sorted(self._circuits.keys() | self._pauses.keys()):
            circuit, pause = self._circuits.get(place), self._pauses.get(place)
            n_active = self._active.get(place, 0)
            if circuit is not None and (circuit.state is not State.CLOSED or circuit.streaks):
                rows.append(row_of_circuit(place, circuit, n_active, self._now))
            if pause is not None:
                rows.append(row_of_pause(place, pause, n_active, self._now))
        return rows

    # Restarts

    def dump(self) -> dict[str, Any]:
        """All trouble as a JSON value; not what is active."""
        return memory.dump(self._circuits, self._pauses)

    def load(self, data: Mapping[str, Any], now: float) -> Changed:
        """Take up what an earlier engine knew; once, before anything else. Raises: ValueError: it is not a dump."""
        self._now = max(self._now, now)
        circuits, pauses = memory.load(data, self._settings, now)
        self._circuits.update(circuits)
        self._pauses.update(pauses)
        for place in [*circuits, *pauses]:
            self._set_alarm(place)
        return self._refresh([*circuits, *pauses])

    # Inside

    def _circuit(self, place: Place) -> Circuit:
        found = self._circuits.get(place)
        if found is None:
            found = self._circuits[place] = Circuit(self._settings)
        return found

    def _leave(self, link: Link, vo: str, began_at: float) -> None:
        for place in places_of(link, vo):
            n = self._active.get(place, 0) - 1
            if n > 0:
                self._active[place] = n
            else:
                self._active.pop(place, None)
            circuit = self._circuits.get(place)
            if circuit is not None and circuit.is_probe(began_at):
                circuit.probes = max(0, circuit.probes - 1)

    def _take_in(self, link: Link, vo: str, failure: Failure | None, now: float, began_at: float) -> Changed:
        self._now = max(self._now, now)
        touched = dict.fromkeys(places_of(link, vo))
        if failure is None:
            touched.update(dict.fromkeys(self._succeed(link, vo, now, began_at)))
        else:
            verdict = judge(link, vo, failure)
            touched.update(dict.fromkeys(self._fail(verdict, failure, now, began_at)))
        for place in touched:
            self._set_alarm(place)
        return self._refresh(touched)

    def _succeed(self, link: Link, vo: str, now: float, began_at: float) -> Iterable[Place]:
        out, into, way, *vos = places_of(link, vo)
        touched = [Place("in", link.source_se), Place("out", link.dest_se)]
        for place in (out, into, way):
            circuit = self._circuit(place)
            was = circuit.state
            circuit.succeed(now, began_at=began_at)
            if was is State.PROBING and circuit.state is State.RECOVERING and place.kind != "link":
                touched += self._try_links(place.name, now)
            pause = self._pauses.get(place)
            if pause is not None:
                pause.succeed()
                if pause.limit >= self._settings.recovered and not pause.waiting:
                    del self._pauses[place]
        for place in (*vos, *touched[:2]):
            known = self._circuits.get(place)
            if known is None:
                continue
            if place in vos:
                known.succeed(now, began_at=began_at)
            else:
                known.answer(now, began_at=began_at)
        self._see(link.source_se, link.dest_se, now)
        self._see(link.dest_se, link.source_se, now)
        return touched

    def _fail(self, verdict: Verdict, failure: Failure, now: float, began_at: float) -> Iterable[Place]:
        touched: list[Place] = []
        reopened: float | None = None
        luck = self._rng.random() if verdict.blames else 0.0
        for blame in verdict.blames:
            circuit = self._circuit(blame.place)
            probed = circuit.state is State.PROBING and circuit.is_probe(began_at)
            circuit.fail(blame, failure, now, began_at=began_at, alone=self._alone(blame, now), luck=luck)
            streak = circuit.streak
            if probed and streak is not None and streak.several:
                reopened = max(reopened or 0.0, circuit.until)
            if blame.place.kind == "link" and reopened is not None:
                # The next try of the endpoint shall go to another of its links: this one alone may be dead.
                circuit.open_until(reopened + self._settings.open_s / REOPEN_PART, blame.trouble, now, luck)
            touched.append(blame.place)
        for endpoint in verdict.alive:
            for place in (Place("in", endpoint), Place("out", endpoint)):
                known = self._circuits.get(place)
                if known is not None:
                    known.answer(now, began_at=began_at)
                    touched.append(place)
        for place in verdict.pauses:
            self._pause(place, failure, now)
        return [*touched, *verdict.pauses]

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

    def _pause(self, place: Place, failure: Failure, now: float) -> None:
        n_active = self._active.get(place, 0)
        pause = self._pauses.get(place)
        if pause is None:
            pause = self._pauses[place] = Pause(now, n_active)
        wait = min(max(failure.retry_after_s or 0.0, PAUSE_MIN_S), self._settings.pause_max_s)
        pause.refuse(now + wait, n_active, failure.message)

    def _try_links(self, endpoint: str, now: float) -> list[Place]:
        """An endpoint is back: its links, closed along with it, need not wait out their own time."""
        found = []
        for place in self._limits:
            circuit = self._circuits.get(place)
            if place.kind == "link" and endpoint in {place.name, place.other} and circuit is not None:
                if circuit.state is State.OPEN:
                    circuit.due(now)
                found.append(place)
        return found

    def _set_alarm(self, place: Place) -> None:
        circuit, pause = self._circuits.get(place), self._pauses.get(place)
        at = circuit.until if circuit is not None else math.inf
        self._alarms.set(place, min(at, pause.until) if pause is not None else at)

    def _refresh(self, places: Iterable[Place]) -> Changed:
        changed = []
        for place in places:
            limit = self._limit(place)
            if limit != self._limits.get(place):
                changed.append(place)
                if limit is None:
                    del self._limits[place]
                else:
                    self._limits[place] = limit
        return frozenset(changed)

    def _limit(self, place: Place) -> int | None:
        circuit, pause = self._circuits.get(place), self._pauses.get(place)
        own = circuit.limit(self._active.get(place, 0)) if circuit is not None else None
        if pause is None:
            return own
        return pause.limit if own is None else min(own, pause.limit)
