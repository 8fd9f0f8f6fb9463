"""Trouble as JSON, so that a restart does not send the queue at a dead storage. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from transfer_engine.config import BreakerSettings
from transfer_engine.health.blame import Trouble
from transfer_engine.health.circuit import Circuit, State, Streak
from transfer_engine.health.pause import Pause
from transfer_engine.health.spot import Spot
from transfer_engine.places import Place

VERSION: Final = 1


def dump(spots: Iterable[Spot]) -> dict[str, Any]:
    """What is in trouble; what works is not worth remembering."""
    known = sorted(spots, key=lambda spot: spot.place)
    return {
        "version": VERSION,
        "circuits": [
            _circuit(spot.place, spot.circuit)
            for spot in known
            if spot.circuit.state in {State.OPEN, State.PROBING} and spot.circuit.streak is not None
        ],
        "pauses": [_pause(spot.place, spot.pause) for spot in known if spot.pause is not None and spot.pause.waiting],
    }


def load(
    data: Mapping[str, Any], settings: BreakerSettings, now: float
) -> tuple[dict[Place, Circuit], dict[Place, Pause]]:
    """The circuits and pauses of a dump. Raises: ValueError: it is none of ours."""
    if data.get("version") != VERSION:
        msg = f"health of version {data.get('version')!r} is not understood"
        raise ValueError(msg)
    try:
        circuits = {_place(row): _restored(row, settings, now) for row in data["circuits"]}
        pauses = {_place(row): _resumed(row, settings, now) for row in data["pauses"]}
    except (KeyError, TypeError) as error:
        msg = f"this is not a dump of health: {error}"
        raise ValueError(msg) from error
    return circuits, pauses


def _circuit(place: Place, circuit: Circuit) -> dict[str, Any]:
    streak = circuit.streak
    assert streak is not None
    assert circuit.trouble is not None
    return {
        "place": list(place),
        "trouble": circuit.trouble.value,
        "opened_at": circuit.opened_at,
        "until": circuit.until if circuit.state is State.OPEN else circuit.probing_at,
        "n_tries": circuit.n_tries,
        "streak": {
            "since": streak.since,
            "partner": streak.partner,
            "n": streak.n,
            "several": streak.several,
            "codes": dict(streak.codes),
            "message": streak.message,
        },
    }


def _pause(place: Place, pause: Pause) -> dict[str, Any]:
    return {
        "place": list(place),
        "since": pause.since,
        "until": pause.until,
        "limit": pause.limit,
        "n": pause.n,
        "message": pause.message,
    }


def _place(row: Mapping[str, Any]) -> Place:
    kind, name, other = row["place"]
    return Place(str(kind), str(name), str(other))


def _restored(row: Mapping[str, Any], settings: BreakerSettings, now: float) -> Circuit:
    circuit = Circuit(settings)
    trouble = Trouble(row["trouble"])
    circuit.streaks[trouble] = Streak(**row["streak"])
    # A clock that was set back must not keep a place closed.
    until = min(float(row["until"]), now + settings.open_max_s)
    circuit.resume(trouble, opened_at=min(float(row["opened_at"]), now), until=until, n_tries=int(row["n_tries"]))
    return circuit


def _resumed(row: Mapping[str, Any], settings: BreakerSettings, now: float) -> Pause:
    # What was running then is not running now: the number is that of those who are taken over, at most.
    pause = Pause(float(row["since"]), max(0, int(row["limit"])))
    pause.n, pause.message = int(row["n"]), str(row["message"])
    pause.until = min(float(row["until"]), now + settings.pause_max_s)
    pause.empty = pause.limit == 0
    return pause
