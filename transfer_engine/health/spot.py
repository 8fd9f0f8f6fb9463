"""A place with all that is known of it, and the places of a route found without a search. Pure."""

from __future__ import annotations

import math

from transfer_engine.config import BreakerSettings
from transfer_engine.health.blame import places_of
from transfer_engine.health.circuit import Circuit, State
from transfer_engine.health.pause import Pause
from transfer_engine.places import Link, Place


class Spot:
    """One place: what runs there, its breaker, its pause, and the limit that they make."""

    __slots__ = ("circuit", "limit", "n_active", "pause", "place", "until")

    def __init__(self, place: Place, circuit: Circuit) -> None:
        self.place = place
        self.circuit = circuit
        self.pause: Pause | None = None
        self.n_active = 0
        self.limit: int | None = None
        self.until = math.inf
        """As they were last told."""

    @property
    def well(self) -> bool:
        """Neither closed nor paused, nor told to be."""
        return self.limit is None and self.pause is None and self.circuit.state is State.CLOSED

    @property
    def alarm(self) -> float:
        """When it changes by itself; infinity: not at all."""
        return self.circuit.until if self.pause is None else min(self.circuit.until, self.pause.until)

    def limit_now(self) -> int | None:
        """How many may be active; None: any number."""
        own = self.circuit.limit(self.n_active)
        if self.pause is None:
            return own
        return self.pause.limit if own is None else min(own, self.pause.limit)

    def due(self, now: float) -> None:
        """Time has passed."""
        if self.circuit.until <= now:
            self.circuit.due(now)
        if self.pause is not None and self.pause.until <= now:
            self.pause.due()

    def enter(self, now: float) -> None:
        """An attempt began."""
        self.n_active += 1
        if self.circuit.state is not State.CLOSED and self.circuit.is_probe(now):
            self.circuit.probes += 1

    def leave(self, began_at: float) -> None:
        """An attempt gave its slot back."""
        if self.n_active:
            self.n_active -= 1
        if self.circuit.probes and self.circuit.is_probe(began_at):
            self.circuit.probes -= 1

    def succeed(self, now: float, *, began_at: float, enough: int) -> None:
        """An attempt that used this place succeeded. `enough`: a pause that has come back to this is forgotten."""
        self.circuit.succeed(now, began_at=began_at)
        if self.pause is not None:
            self.pause.succeed()
            if self.pause.limit >= enough and not self.pause.waiting:
                self.pause = None


class Route:
    """The places that attempts of one VO on one link use, and those that their success speaks for."""

    __slots__ = ("opposite", "used")

    def __init__(self, used: tuple[Spot, ...], opposite: tuple[Spot, ...]) -> None:
        self.used = used
        self.opposite = opposite
        """The other direction of both ends: an endpoint that answers is reached in both."""


class Spots:
    """All places that were ever used, and the routes through them."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self.by_place: dict[Place, Spot] = {}
        self._routes: dict[tuple[str, str, str], Route] = {}

    def at(self, place: Place) -> Spot:
        """The spot of a place."""
        found = self.by_place.get(place)
        if found is None:
            found = self.by_place[place] = Spot(place, Circuit(self._settings))
        return found

    def route(self, link: Link, vo: str) -> Route:
        """The spots of an attempt."""
        key = (link.source_se, link.dest_se, vo)
        found = self._routes.get(key)
        if found is None:
            used = tuple(self.at(place) for place in places_of(link, vo))
            opposite = self.at(Place("in", link.source_se)), self.at(Place("out", link.dest_se))
            found = self._routes[key] = Route(used, opposite)
        return found
