"""What goes wrong in a scenario, and when. Pure."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Instant = Annotated[float, Field(ge=0, le=1e9)]
Span = Annotated[float, Field(gt=0, le=1e9)]


class Section(BaseModel):
    """A part of a scenario: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(Section):
    """When something holds: from `from_s` to `to_s`, or only the first `for_s` of each `every_s` in between."""

    from_s: Instant = 0.0
    to_s: Instant | None = None
    """None: to the end."""
    every_s: Span | None = None
    for_s: Span | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.to_s is not None and self.to_s <= self.from_s:
            msg = f"to_s must be after from_s ({self.from_s:g})"
            raise ValueError(msg)
        if (self.every_s is None) != (self.for_s is None):
            msg = "every_s and for_s go together"
            raise ValueError(msg)
        if self.every_s is not None and self.for_s is not None and self.for_s >= self.every_s:
            msg = "for_s must be shorter than every_s"
            raise ValueError(msg)
        return self

    @property
    def end_s(self) -> float:
        """When it is over for good."""
        return math.inf if self.to_s is None else self.to_s

    def holds(self, now: float) -> bool:
        """Whether it holds at `now`."""
        if not self.from_s <= now < self.end_s:
            return False
        if self.every_s is None or self.for_s is None:
            return True
        # The change at a border is asked for at that very instant, which need not be exact in floats.
        return (now - self.from_s + 1e-6) % self.every_s < self.for_s

    def next_change(self, now: float) -> float:
        """The first instant after `now` at which `holds` changes; infinity: none."""
        if now < self.from_s:
            return self.from_s
        if now >= self.end_s:
            return math.inf
        if self.every_s is None or self.for_s is None:
            return self.end_s
        turn = math.floor((now - self.from_s + 1e-6) / self.every_s)
        began = self.from_s + turn * self.every_s
        following = began + self.for_s if self.holds(now) else began + self.every_s
        return min(following, self.end_s)


ErrorName = Literal["copy-failed", "unavailable", "lost", "checksum", "no-space", "missing", "denied"]


class Dead(Window):
    """No answer to anything; what runs loses its connection."""

    kind: Literal["dead"]


class Refuses(Window):
    """Every request is refused at once, as when a service is down and its machine is up."""

    kind: Literal["refuses"]


class Stall(Window):
    """Connections stay open and nothing moves."""

    kind: Literal["stall"]


class Slow(Window):
    """Capacity is down to a part."""

    kind: Literal["slow"]
    factor: Annotated[float, Field(gt=0, le=1)]


class Errors(Window):
    """Copies fail by chance."""

    kind: Literal["errors"]
    chance: Annotated[float, Field(gt=0, le=1)]
    """Of each attempt."""
    error: ErrorName = "copy-failed"


class Busy(Window):
    """More copies than that are answered with 503 and Retry-After."""

    kind: Literal["busy"]
    above: Annotated[int, Field(ge=0)]
    retry_after_s: Span = 30.0


EndpointFault = Annotated[Dead | Refuses | Stall | Slow | Errors | Busy, Field(discriminator="kind")]
LinkFault = Annotated[Dead | Stall | Slow | Errors, Field(discriminator="kind")]
Fault = Dead | Refuses | Stall | Slow | Errors | Busy


def factor(faults: tuple[Fault, ...], now: float) -> float:
    """The part of a capacity that is left at `now`."""
    left = 1.0
    for fault in faults:
        if isinstance(fault, Stall | Dead) and fault.holds(now):
            return 0.0
        if isinstance(fault, Slow) and fault.holds(now):
            left *= fault.factor
    return left


def next_change(windows: tuple[Window, ...], now: float) -> float:
    """The first instant after `now` at which any of them begins or ends."""
    return min((window.next_change(now) for window in windows), default=math.inf)
