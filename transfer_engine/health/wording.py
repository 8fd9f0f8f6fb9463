"""What operators read about a place in trouble. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from protocols.errors import Overloaded, printable
from transfer_engine.health.blame import Trouble
from transfer_engine.health.circuit import Circuit, State, Streak
from transfer_engine.health.pause import Pause
from transfer_engine.places import Place
from transfer_engine.reasons import Reason, Why

QUOTED_MAX: Final = 160
"""Characters of a storage's own words in a sentence."""
YEAR_MAX: Final = 253402300799.0
"""Last instant that has a date."""
_END: Final = r"(?=[:.]?(?:[\s'\"<>()\[\],;]|$))"
_PATH: Final = r"/[^\s'\"<>()\[\],;]*?"
_URL: Final = re.compile(rf"([A-Za-z][A-Za-z0-9+.-]*://[^/\s'\"]+){_PATH}{_END}")
_FILE: Final = re.compile(rf"(?<![\w:/.]){_PATH}{_END}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One place in trouble, for operators."""

    place: Place
    state: str
    """`open`, `probing`, `recovering`, `paused`, `raising` (after a pause), `suspect` (fails, is not closed yet)."""
    since: float
    until: float | None
    """When it changes by itself."""
    limit: int | None
    n_active: int
    failures: Mapping[str, int]
    """Code → how many since the last success."""
    last: str
    """What the last failure said."""
    text: str


def of_circuit(place: Place, circuit: Circuit, n_active: int, now: float) -> Reason:
    """Why a circuit lets no more through."""
    limit = circuit.limit(n_active)
    return Reason(
        code=Why.BREAKER,
        text=f"{_trouble(place, circuit, now)}; {_next(circuit, limit, now)}",
        subject=_subject(place),
        used=n_active,
        limit=limit,
        until=None if math.isinf(circuit.until) else circuit.until,
    )


def of_pause(place: Place, pause: Pause, n_active: int, now: float) -> Reason:
    """Why a pause lets no more through."""
    if pause.waiting:
        stays = f"no more than {pause.limit} run meanwhile" if pause.limit else "nothing is begun meanwhile"
        said = f"has asked to be spared until {_clock(pause.until, now)}"
        text = f"{place.name} {said} ({_quoted(pause.n, 'refusal', pause.message)}); {stays}"
    else:
        text = f"{place.name} had asked to be spared; its transfers are raised step by step, {pause.limit} now"
    return Reason(
        code=Why.PAUSE,
        text=text,
        subject=_subject(place),
        used=n_active,
        limit=pause.limit,
        until=pause.until if pause.waiting else None,
    )


def row_of_circuit(place: Place, circuit: Circuit, n_active: int, now: float) -> Row:
    """A circuit that is not closed, or whose place fails."""
    closed = circuit.state is State.CLOSED
    own = circuit.streak
    streaks = [own] if not closed and own is not None else list(circuit.streaks.values())
    failures: dict[str, int] = {}
    for streak in streaks:
        for code, n in streak.codes.items():
            failures[code] = failures.get(code, 0) + n
    reason = of_circuit(place, circuit, n_active, now)
    return Row(
        place=place,
        state="suspect" if closed else circuit.state.value,
        since=min((streak.since for streak in streaks), default=circuit.recovered_at),
        until=reason.until,
        limit=circuit.limit(n_active),
        n_active=n_active,
        failures=failures,
        last=nameless(streaks[-1].message) if streaks else "",
        text="; ".join(_failing(place, streak, now) for streak in streaks) if closed else reason.text,
    )


def row_of_pause(place: Place, pause: Pause, n_active: int, now: float) -> Row:
    """A pause, or what is left of it."""
    reason = of_pause(place, pause, n_active, now)
    return Row(
        place=place,
        state="paused" if pause.waiting else "raising",
        since=pause.since,
        until=reason.until,
        limit=pause.limit,
        n_active=n_active,
        failures={Overloaded.code: pause.n},
        last=nameless(pause.message),
        text=reason.text,
    )


def _subject(place: Place) -> str:
    return str(place) if place.kind == "link" else place.name


def _clock(at: float, now: float) -> str:
    """Time of day; with its date when that is not the day of `now`."""
    if not 0 <= at <= YEAR_MAX:
        return "an unknown time"
    when = datetime.fromtimestamp(at, UTC)
    near = math.isinf(now) or datetime.fromtimestamp(min(max(now, 0.0), YEAR_MAX), UTC).date() == when.date()
    return f"{when:%H:%M:%S} UTC" if near else f"{when:%Y-%m-%d %H:%M:%S} UTC"


def nameless(message: str) -> str:
    """What was said, without names of files: everybody reads what is wrong with a storage; files are somebody's."""
    return _FILE.sub("/...", _URL.sub(r"\1/...", message))


def _quoted(n: int, what: str, message: str) -> str:
    counted = f"{n} {what}{'' if n == 1 else 's'}"
    return f"{counted}, the last: {printable(nameless(message), QUOTED_MAX)}" if message else counted


def _trouble(place: Place, circuit: Circuit, now: float) -> str:
    streak = circuit.streak
    if streak is not None and circuit.trouble is not None and circuit.state is not State.RECOVERING:
        return _says(place, circuit.trouble, streak, now)
    name = str(place) if place.kind == "link" else place.name
    return f"{name} works again since {_clock(circuit.recovered_at, now)}"


def _says(place: Place, trouble: Trouble, streak: Streak, now: float) -> str:
    since = f"since {_clock(streak.since, now)} ({_quoted(streak.n, 'failure', streak.message)})"
    match trouble:
        case Trouble.UNREACHABLE if place.kind == "link":
            return f"nothing gets from {place.name} to {place.other} {since}"
        case Trouble.UNREACHABLE:
            return f"{place.name} answers nothing {since}"
        case Trouble.FAILING:
            where = f"from {place.name} to {place.other}" if place.kind == "link" else str(place)
            return f"every transfer {where} fails {since}"
        case Trouble.FULL:
            return f"{place.name} is full {since}"
        case Trouble.DENIED:
            doing = "writing" if place.kind == "vo-in" else "reading"
            return f"{place.name} denies {place.other} all {doing} {since}: check the credentials"


def _failing(place: Place, streak: Streak, now: float) -> str:
    where = f"from {place.name} to {place.other}" if place.kind == "link" else str(place)
    since = f"since {_clock(streak.since, now)} ({_quoted(streak.n, 'failure', streak.message)})"
    return f"nothing has succeeded {where} {since}"


def _next(circuit: Circuit, limit: int | None, now: float) -> str:
    match circuit.state:
        case State.OPEN:
            return f"one transfer is tried at {_clock(circuit.until, now)}"
        case State.PROBING:
            return "one transfer is being tried" if circuit.probes else "the next transfer is tried alone"
        case _:
            return f"transfers are raised step by step, {limit} now"
