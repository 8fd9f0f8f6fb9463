"""What chance has in store for an attempt: it depends on the seed, the file and the number of the attempt. Pure.

Two schedulers therefore meet the same luck, and where nothing but such errors happens it can be told what
the success of a file costs whoever brings it about.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from transfer_engine.simulation.faults import ErrorName, Errors, Fault
from transfer_engine.simulation.namespace import SimPath, url_at
from transfer_engine.simulation.plant import Plant

AT_ONCE: Final = frozenset({"unavailable", "no-space", "missing", "denied"})
"""Errors that come before the first byte; the others come somewhere in the file."""
ATTEMPTS_MAX: Final = 1000
RECENT_MAX: Final = 8192
"""Draws that are remembered: more than attempts run at a time."""


class Draw(NamedTuple):
    """One attempt's luck."""

    error: ErrorName | None
    part: float
    """Of the file, how far it comes; all of it without an error, and with a wrong checksum."""

    def moved(self, size_bytes: int) -> int:
        """Bytes that the attempt moves."""
        return size_bytes if self.error in {None, "checksum"} else int(size_bytes * self.part)


class Lost(NamedTuple):
    """What failed attempts at a file cost before the one that succeeds."""

    n_attempts: int = 0
    n_bytes: int = 0


NOTHING: Final = Lost()
SUCCESS: Final = Draw(None, 1.0)


class Luck:
    """Chance of one run."""

    def __init__(self, seed: int, plant: Plant) -> None:
        self._seed = seed
        self._plant = plant
        self._fixed: dict[tuple[str, str], bool] = {}
        self._errors: dict[tuple[str, str], tuple[Errors, ...]] = {}
        """Link → what may go wrong on it by chance."""
        self._recent = lru_cache(maxsize=RECENT_MAX)(self._of_all)

    def _faults(self, source: str, destination: str) -> list[Fault]:
        plant = self._plant
        faults = [*plant.endpoint_faults(destination), *plant.endpoint_faults(source)]
        return [*faults, *plant.link_faults(source, destination)]

    def draw(self, source: SimPath, destination: str, attempt: str, now: float) -> Draw:
        """Of an attempt that begins now. Args: attempt: its number, from `0` on."""
        link = (source.host, destination)
        possible = self._errors.get(link)
        if possible is None:
            possible = tuple(fault for fault in self._faults(*link) if isinstance(fault, Errors))
            self._errors[link] = possible
        errors = [fault for fault in possible if fault.holds(now)] if possible else ()
        if not errors:
            return SUCCESS
        key = f"{self._seed}/{url_at(source.host, source)}/{url_at(destination, source)}/{attempt}"
        # What holds for ever is drawn when an attempt begins and again when its file has come: a seed is dear.
        return self._recent(key, link) if len(errors) == len(possible) else _drawn(key, errors)

    def _of_all(self, key: str, link: tuple[str, str]) -> Draw:
        return _drawn(key, self._errors[link])

    def lost(self, source: SimPath, destination: str) -> Lost:
        """What any scheduler loses with this file; nothing where it depends on the time."""
        link = (source.host, destination)
        fixed = self._fixed.get(link)
        if fixed is None:
            faults = self._faults(*link)
            fixed = self._fixed[link] = bool(faults) and all(map(_is_for_ever, faults))
        if not fixed:
            return NOTHING
        n_bytes = 0
        for attempt in range(ATTEMPTS_MAX):
            draw = self.draw(source, destination, str(attempt), 0.0)
            if draw.error is None:
                return Lost(attempt, n_bytes)
            n_bytes += 0 if draw.error in AT_ONCE else draw.moved(source.size_bytes)
        return NOTHING


def _drawn(key: str, errors: Sequence[Errors]) -> Draw:
    rng = random.Random(key)  # noqa: S311 - reproducible on purpose
    for fault in errors:
        if rng.random() < fault.chance:
            return Draw(fault.error, rng.random())
    return SUCCESS


def _is_for_ever(fault: Fault) -> bool:
    return isinstance(fault, Errors) and not fault.from_s and fault.to_s is None and fault.every_s is None
