"""When one transfer will start and end, as far as anything can be said. Pure, but for what `Foresight` knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from transfer_engine.causes import BARRING
from transfer_engine.driving import Driven
from transfer_engine.model import FileId, Position
from transfer_engine.outlook import Foresight
from transfer_engine.places import Link
from transfer_engine.reasons import Reason, Why
from transfer_engine.schedule import LaneKey
from transfer_engine.views import FileView

ENDLESS: Final[Mapping[Why, str]] = {
    Why.BAN: "the ban has no end, somebody has to lift it",
    Why.HELD: "the job is on hold, somebody has to resume it",
    Why.DRAINING: "the node starts nothing now",
    Why.STORE: "the database does not answer",
    Why.HOP: "it depends on the hop before",
    Why.REPLICA: "it is needed only if the other replica fails",
}
"""What ends at no instant that is known."""
NO_EXPERIENCE: Final = "nothing has been copied there yet, so nobody knows how long a transfer takes"
NO_END: Final = "nobody knows how long what is before it will take"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Predicted instants, or why there are none."""

    start_at: float | None = None
    finish_at: float | None = None
    unknown: str | None = None


def expected(
    view: FileView,
    reasons: Sequence[Reason],
    position: Position,
    key: LaneKey | None,
    *,
    foresight: Foresight,
    driven: Mapping[FileId, Driven],
    now: float,
) -> Expectation:
    """What a waiting transfer may expect. `key`: its lane, None: there is none."""
    for reason in reasons:
        if reason.code in ENDLESS and reason.until is None:
            return Expectation(unknown=ENDLESS[reason.code])
    earliest = [now, *(reason.until for reason in reasons if reason.code in BARRING and reason.until is not None)]
    codes = {reason.code for reason in reasons}
    wait_s = None if key is None else foresight.start_s(key, position.n_before)
    if view.retry_at is not None:
        # It does not stand in its queue: it will be among the first there, being among the oldest.
        earliest.append(view.retry_at)
        wait_s = wait_s or 0.0
    if position.dest_driven_by is not None:
        other = driven.get(position.dest_driven_by)
        end_at = None if other is None else foresight.end_of(other)
        if end_at is None:
            return Expectation(unknown=f"nobody knows when transfer {position.dest_driven_by} will end")
        earliest.append(end_at)
        wait_s = wait_s or 0.0
    if not position.n_before and codes <= {Why.TURN, *BARRING}:
        wait_s = 0.0
    link = Link(view.source_se, view.dest_se)
    duration_s = foresight.duration_s(link, view.size_bytes)
    if wait_s is None:
        return Expectation(unknown=NO_EXPERIENCE if duration_s is None else NO_END)
    start_at = max(*earliest, now + wait_s)
    finish_at = None if duration_s is None else start_at + duration_s
    return Expectation(start_at=start_at, finish_at=finish_at, unknown=NO_EXPERIENCE if duration_s is None else None)
