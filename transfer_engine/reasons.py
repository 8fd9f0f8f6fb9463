"""Why a transfer is not moving, as data: one code for programs, one sentence for people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Why(StrEnum):
    """What a transfer waits for."""

    LIMIT = "limit"
    """A configured limit is reached."""
    OPTIMIZER = "optimizer"
    """What the optimizer found to be best is reached."""
    BANDWIDTH = "bandwidth"
    """More copies would exceed a configured number of bytes per second."""
    SHARE = "share"
    """Others have had less for their share, and are served first."""
    PRIORITY = "priority"
    """Transfers of the same activity with a higher priority are served first."""
    TURN = "turn"
    """It is startable, and others of its queue are before it."""
    BAN = "ban"
    """An operator has banned the storage."""
    BREAKER = "breaker"
    """The storage or link fails; it is tried again later, one transfer at a time."""
    PAUSE = "pause"
    """The storage has asked to be left alone until then."""
    RETRY = "retry"
    """Its last attempt failed; the next one is due then."""
    HELD = "held"
    """Its job is on hold."""
    HOP = "hop"
    """An earlier hop of its route has to finish first."""
    REPLICA = "replica"
    """Another replica of the file is tried first."""
    DESTINATION = "destination"
    """Another transfer is writing the same destination."""
    TOKEN = "token"  # noqa: S105 - the name of a reason, not a secret
    """A credential for a storage is being got."""
    STAGING = "staging"
    """The source has the file on tape only, and is bringing it to disk."""
    DRAINING = "draining"
    """The node starts nothing new."""
    STORE = "store"
    """The database does not answer."""
    PROBING = "probing"
    """Its attempt was lost; the destination is looked at until the outcome is clear."""
    CANCELING = "canceling"
    """It was cancelled, and what it wrote is being removed."""
    RUNNING = "running"
    """It is moving."""
    ENDED = "ended"
    """It has ended."""
    IDLE = "idle"
    """Nothing waits there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One answer to "why does it not move".

    Attributes:
        subject: what it is about: an endpoint, a link (`a → b`), a VO, a job.
        used, limit: how much of what is limited is taken, where something is.
        until: instant at which it may change by itself.
    """

    code: Why
    text: str
    subject: str = ""
    used: float | None = None
    limit: float | None = None
    until: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Without what does not apply."""
        found: dict[str, Any] = {"code": self.code.value, "text": self.text}
        for key in ("subject", "used", "limit", "until"):
            value = getattr(self, key)
            if value not in (None, ""):
                found[key] = value
        return found
