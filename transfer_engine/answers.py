"""The answers to "why does it not move" and "when will it", as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transfer_engine.model import FileId, JobId
from transfer_engine.places import Link
from transfer_engine.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """An answer about a transfer, a link or an endpoint.

    Attributes:
        subject: what was asked about, in words.
        moving: it is under way.
        reasons: the main one first; never empty.
        n_before: ready transfers before it in its queue; None: it does not stand in one.
        start_at, finish_at: predicted instants; of a link or an endpoint the start of its next transfer and the
            end of what waits and runs there; None: nothing can be said.
        unknown: why nothing is predicted.
        deadline_at: when it is cancelled if it waits still.
        kept: of a link or an endpoint, for each reason how many transfers it is the main one for.
    """

    subject: str
    moving: bool
    reasons: tuple[Reason, ...]
    state: str | None = None
    file_id: FileId | None = None
    job_id: JobId | None = None
    n_before: int | None = None
    bytes_before: int | None = None
    start_at: float | None = None
    finish_at: float | None = None
    unknown: str | None = None
    deadline_at: float | None = None
    kept: tuple[int, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """One sentence."""
        return self.reasons[0].text

    def as_json(self) -> dict[str, Any]:
        """As the service and the command line give it; without what does not apply."""
        reasons = [reason.as_json() for reason in self.reasons]
        for reason, n in zip(reasons, self.kept, strict=False):
            reason["transfers"] = n
        found: dict[str, Any] = {
            "subject": self.subject,
            "moving": self.moving,
            "code": self.reasons[0].code.value,
            "reason": self.text,
            "reasons": reasons,
        }
        for key in (
            "state", "file_id", "job_id", "n_before", "bytes_before", "start_at", "finish_at", "unknown", "deadline_at"
        ):  # fmt: skip
            value = getattr(self, key)
            if value is not None:
                found[key] = value
        return found | dict(self.figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOutlook:
    """What becomes of one link's backlog.

    Attributes:
        reason: what keeps most of it back; None: nothing does.
        start_at: predicted start of its next transfer; None: nothing waits, or nothing can be said.
        finish_at: predicted end of all that waits and runs; None: nothing does, or nothing can be said.
    """

    link: Link
    reason: Reason | None
    start_at: float | None
    finish_at: float | None
