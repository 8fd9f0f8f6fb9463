"""Streams of arrivals: which files are wanted where, from when on. Pure, from a seed."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from transfer_engine.model import PRIORITY_DEFAULT
from transfer_engine.simulation.faults import Instant, Section, Span

Count = Annotated[int, Field(ge=1, le=100_000_000)]
Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
Positive = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(pattern=r"^[\w .:+-]+$", max_length=200)]


class Fixed(Section):
    """All files have one size."""

    kind: Literal["fixed"]
    bytes: Bytes

    def draw(self, _rng: random.Random) -> int:
        """The size."""
        return self.bytes


class LogNormal(Section):
    """Sizes with a long tail; `mean_bytes` is the mean of what is drawn, before it is cut at `max_bytes`."""

    kind: Literal["lognormal"]
    mean_bytes: Annotated[float, Field(ge=1)]
    sigma: Annotated[float, Field(gt=0, le=5)]
    max_bytes: Bytes = 1 << 45

    def draw(self, rng: random.Random) -> int:
        """One size."""
        location = math.log(self.mean_bytes) - self.sigma**2 / 2
        return min(int(rng.lognormvariate(location, self.sigma)), self.max_bytes)


class Weighted(Section):
    """One of several sizes."""

    bytes: Bytes
    weight: Positive = 1.0


class Choice(Section):
    """A mixture of sizes."""

    kind: Literal["choice"]
    of: tuple[Weighted, ...] = Field(min_length=1)

    def draw(self, rng: random.Random) -> int:
        """One size."""
        return rng.choices(self.of, [row.weight for row in self.of])[0].bytes


class Pair(Section):
    """One link of a routing distribution."""

    source: str
    destination: str
    weight: Positive = 1.0


class Route(Section):
    """Where files come from and go to: every source with every destination alike, or weighted pairs."""

    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.pairs) == bool(self.sources or self.destinations) or bool(self.sources) != bool(self.destinations):
            msg = "expected sources and destinations, or pairs"
            raise ValueError(msg)
        for index, pair in enumerate(self.pairs):
            if pair.source == pair.destination:
                msg = f"pairs.{index}: source and destination are both {pair.source!r}"
                raise ValueError(msg)
        if not self.links():
            msg = "no source differs from its destination"
            raise ValueError(msg)
        return self

    def links(self) -> list[tuple[str, str, float]]:
        """(source, destination, weight); nothing goes from a storage to itself."""
        rows = [(pair.source, pair.destination, pair.weight) for pair in self.pairs]
        rows = rows or [(a, b, 1.0) for a, b in itertools.product(self.sources, self.destinations)]
        return [row for row in rows if row[0] != row[1]]

    def endpoints(self) -> Iterator[tuple[str, str]]:
        """(key, name) of every endpoint named."""
        yield from ((f"sources.{i}", name) for i, name in enumerate(self.sources))
        yield from ((f"destinations.{i}", name) for i, name in enumerate(self.destinations))
        for index, pair in enumerate(self.pairs):
            yield f"pairs.{index}.source", pair.source
            yield f"pairs.{index}.destination", pair.destination


class AtOnce(Section):
    """All files at one instant."""

    kind: Literal["at-once"]
    files: Count
    at_s: Instant = 0.0

    def times(self, _rng: random.Random) -> Iterator[tuple[float, int]]:
        """(when, how many files)."""
        yield self.at_s, self.files


class Steady(Section):
    """`files` files between two instants, `batch` at a time."""

    kind: Literal["rate"]
    files: Count
    from_s: Instant = 0.0
    to_s: Span
    batch: Annotated[int, Field(ge=1, le=100_000)] = 1
    spread: Literal["even", "poisson"] = "even"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.to_s <= self.from_s:
            msg = f"to_s must be after from_s ({self.from_s:g})"
            raise ValueError(msg)
        return self

    def times(self, rng: random.Random) -> Iterator[tuple[float, int]]:
        """(when, how many files)."""
        n = math.ceil(self.files / self.batch)
        span = self.to_s - self.from_s
        # A Poisson process with a given number of events has them uniformly in its span.
        instants = (
            sorted(rng.uniform(0, span) for _ in range(n))
            if self.spread == "poisson"
            else (span * i / n for i in range(n))
        )
        left = self.files
        for instant in instants:
            yield self.from_s + instant, min(self.batch, left)
            left -= self.batch


class Bursts(Section):
    """`files` files every `every_s`, `count` times."""

    kind: Literal["bursts"]
    files: Count
    every_s: Span
    count: Annotated[int, Field(ge=1, le=1_000_000)]
    from_s: Instant = 0.0

    def times(self, _rng: random.Random) -> Iterator[tuple[float, int]]:
        """(when, how many files)."""
        for turn in range(self.count):
            yield self.from_s + turn * self.every_s, self.files


class Stream(Section):
    """One kind of work of one community."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=40)]
    vo: Text
    activity: Text = "default"
    priority: Annotated[int, Field(ge=1, le=5)] = PRIORITY_DEFAULT
    arrivals: Annotated[AtOnce | Steady | Bursts, Field(discriminator="kind")]
    size: Annotated[Fixed | LogNormal | Choice, Field(discriminator="kind")]
    route: Route


@dataclass(frozen=True, slots=True)
class Arrival:
    """Files of one stream that arrive together."""

    at_s: float
    stream: int
    """Index of the stream."""
    first: int
    """Number of the first file in its stream."""
    files: tuple[tuple[str, str, int], ...]
    """(source, destination, bytes)"""


def arrivals(stream: Stream, index: int, seed: int, files_max: int) -> Iterator[Arrival]:
    """The arrivals of one stream in order of time, at most `files_max` files each."""
    rng = random.Random(f"{seed}/{stream.name}")  # noqa: S311 - reproducible on purpose
    links = stream.route.links()
    cumulative = list(itertools.accumulate(weight for _, _, weight in links))
    first = 0
    for at_s, n_files in stream.arrivals.times(rng):
        left = n_files
        while left > 0:
            n = min(left, files_max)
            chosen = links * n if len(links) == 1 else rng.choices(links, cum_weights=cumulative, k=n)
            files = tuple((link[0], link[1], stream.size.draw(rng)) for link in chosen)
            yield Arrival(at_s, index, first, files)
            first += n
            left -= n
