"""Schedulers to compare the engine's with; they run in simulation only.

`fifo` and `fts3` are what `simulate(scenario, build=…)` and `transfer-engine simulate --policy` take.
"""

from __future__ import annotations

from benchmarks.baselines.fifo import Fifo
from transfer_engine.clock import Deps
from transfer_engine.config import Settings
from transfer_engine.simulation.storages import SimulatedStorages


def fifo(storages: SimulatedStorages, settings: Settings, given: Deps) -> Fifo:
    """First come, first served, with fixed slots."""
    return Fifo(storages, settings, given)
