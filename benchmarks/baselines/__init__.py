"""Schedulers to compare the engine's with; they run in simulation only.

`fifo`, `fts3` and `fts3_forgetful` are what `simulate(scenario, build=…)` and `transfer-engine simulate --policy` take.
"""

from __future__ import annotations

from benchmarks.baselines.fifo import Fifo
from benchmarks.baselines.fts3 import Fts3
from transfer_engine.clock import Deps
from transfer_engine.config import Settings
from transfer_engine.simulation.storages import SimulatedStorages


def fifo(storages: SimulatedStorages, settings: Settings, given: Deps) -> Fifo:
    """First come, first served, with fixed slots."""
    return Fifo(storages, settings, given)


def fts3(storages: SimulatedStorages, settings: Settings, given: Deps) -> Fts3:
    """FTS3's algorithm, with an optimizer that remembers."""
    return Fts3(storages, settings, given)


def fts3_forgetful(storages: SimulatedStorages, settings: Settings, given: Deps) -> Fts3:
    """FTS 3.14.4, whose optimizer loses its memory at every run."""
    return Fts3(storages, settings, given, remembers=False)
