"""What the optimizer keeps across restarts, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from transfer_engine.climbing import Climber
from transfer_engine.config import OptimizerSettings
from transfer_engine.evidence import Ceiling, SizeClass
from transfer_engine.places import Place
from transfer_engine.tuning import Adjustment, Phase

KEEP: Final = 20
"""Newest decisions of each place."""
Level = Annotated[int, Field(ge=1, le=1_000_000)]
Figure = Annotated[float, Field(ge=0)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Adjustment(_Row):
    at: float
    before: Level
    after: Level
    reason: str
    numbers: dict[str, float]


class _Ceiling(_Row):
    level: Level | None
    until: float
    wait_s: Figure


class _Place(_Row):
    place: tuple[str, str, str]
    target: Level
    ramping: bool
    highest: Annotated[int, Field(ge=0)] | None = None
    decade: int | None
    levels: dict[int, dict[int, tuple[Figure, float]]]
    ceiling: _Ceiling
    probe_wait_s: Annotated[float, Field(gt=0)]
    history: list[_Adjustment]


class _Memory(_Row):
    version: Literal[1] = 1
    places: list[_Place]


def write(climbers: Mapping[Place, Climber], histories: Mapping[Place, Iterable[Adjustment]]) -> str:
    """As JSON text."""
    rows = [_row(place, climber, list(histories.get(place, ()))[-KEEP:]) for place, climber in climbers.items()]
    return _Memory(places=rows).model_dump_json()


def _row(place: Place, climber: Climber, history: Sequence[Adjustment]) -> _Place:
    trying = climber.phase in {Phase.SEEK, Phase.DESCEND, Phase.CHECK}
    return _Place(
        place=(place.kind, place.name, place.other),
        target=climber.base if trying else climber.target,
        ramping=climber.phase is Phase.RAMP,
        highest=climber.highest,
        decade=climber.size.decade,
        levels=climber.levels.by_class,
        ceiling=_Ceiling(level=climber.ceiling.level, until=climber.ceiling.until, wait_s=climber.ceiling.wait_s),
        probe_wait_s=climber.probe_wait_s,
        history=[
            _Adjustment(at=row.at, before=row.before, after=row.after, reason=row.reason, numbers=dict(row.numbers))
            for row in history
        ],
    )


def read(text: str, settings: OptimizerSettings) -> tuple[dict[Place, Climber], dict[Place, list[Adjustment]]] | None:
    """What `write` wrote; None: it is something else."""
    try:
        memory = _Memory.model_validate_json(text)
    except ValidationError:
        return None
    climbers, histories = {}, {}
    for row in memory.places:
        place = Place(*row.place)
        climber = climbers[place] = Climber(place, settings)
        climber.begin(Phase.RAMP if row.ramping else Phase.HOLD, row.target)
        climber.highest = row.highest
        climber.size = SizeClass(row.decade)
        climber.levels.by_class = row.levels
        climber.ceiling = Ceiling(row.ceiling.level, row.ceiling.until, row.ceiling.wait_s)
        climber.probe_wait_s = row.probe_wait_s
        histories[place] = [Adjustment(place=place, **entry.model_dump()) for entry in row.history]
    return climbers, histories
