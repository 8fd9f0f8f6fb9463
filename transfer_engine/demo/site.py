"""What the handlers of one model storage share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import ClientSession, web

from transfer_engine.demo.faults import Fault, FaultPlan
from transfer_engine.demo.journal import Journal
from transfer_engine.demo.kinds import Behaviour, Kind
from transfer_engine.demo.namespace import Namespace, parent_of
from transfer_engine.demo.stream import Pace

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Site:
    """State of one storage, and the choices it was made with."""

    name: str
    kind: Kind
    behaviour: Behaviour
    creates_parents: bool
    marker_period_s: float
    namespace: Namespace
    journal: Journal
    plan: FaultPlan
    pace: Pace
    session: ClientSession
    tasks: set[asyncio.Task[object]] = field(default_factory=set)
    """Copies under way, also those whose client has gone; ended when the storage stops."""

    def spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run a copy that may outlive the request that asked for it; the storage owns it."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def parent_ready(self, path: str) -> bool:
        """Whether a file can be opened at `path`; makes the directories above it where the site does so."""
        parent = parent_of(path)
        return self.namespace.is_directory(parent) or (self.creates_parents and self.namespace.make_directories(parent))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request as the handlers see it."""

    site: Site
    request: web.Request
    path: str
    """Clean path at this storage."""
    name: str
    """Its number, and the client's own name for it."""
    fault: Fault | None
