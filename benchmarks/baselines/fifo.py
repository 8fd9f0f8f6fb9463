"""First come, first served, with fixed slots: what a queue with limits and nothing else does.

* Limits are the scenario's and hold exactly, from the start of an attempt until it is settled.
* Among the heads of all links that have room the transfer that was submitted first starts. VO, activity
  and priority mean nothing.
* Inside a link the order of submission is kept: whatever is not at the head waits for it.
* Retries are the engine's (`retry` of the settings, the same back-off); a transfer in its delay is out of
  the line and comes back at its old place, so that it does not block the link meanwhile.
* Attempts that nobody heard the end of are looked for as the engine does, in their slot.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Sequence

from benchmarks.baselines.driver import Driver, File, Running
from transfer_engine.clock import Deps
from transfer_engine.config import Settings
from transfer_engine.limits import LimitTable
from transfer_engine.model import Done, Failed, JobOptions, Unknown
from transfer_engine.places import Link
from transfer_engine.recovery import Probe
from transfer_engine.retry import RetryPolicy
from transfer_engine.simulation.storages import SimulatedStorages


class Line:
    """Files in order of their numbers, also those that come back."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, File]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, file: File) -> None:
        """New files have the largest numbers, so that this costs O(1) for them."""
        heapq.heappush(self._heap, (file.number, file))

    def first(self) -> int:
        """The lowest number."""
        return self._heap[0][0]

    def take(self) -> File:
        """Remove the file with the lowest number."""
        return heapq.heappop(self._heap)[1]


class Fifo(Driver):
    """Global order of submission, fixed slots."""

    def __init__(self, storages: SimulatedStorages, settings: Settings, given: Deps) -> None:
        super().__init__(storages, settings, given)
        self._limits = LimitTable.of(settings.limits)
        self._policy = RetryPolicy(settings.retry)
        self._options = JobOptions()
        self._lines: dict[Link, Line] = {}
        self._out_of: dict[str, list[Link]] = {}
        self._into: dict[str, list[Link]] = {}
        self._n_out: dict[str, int] = {}
        self._n_in: dict[str, int] = {}
        self._n_link: dict[Link, int] = {}
        self._changed: dict[Link, None] = {}
        self._node_was_full = False
        self._due = False

    def arrived(self, files: Sequence[File]) -> None:
        """Append to the lines of their links."""
        for file in files:
            self._add(file)

    def _add(self, file: File) -> None:
        link = file.link
        line = self._lines.get(link)
        if line is None:
            line = self._lines[link] = Line()
            self._out_of.setdefault(link.source_se, []).append(link)
            self._into.setdefault(link.dest_se, []).append(link)
        line.add(file)
        self._look_at(link)

    def _look_at(self, link: Link) -> None:
        """Decide once for everything that happens at one instant."""
        self._changed[link] = None
        if not self._due:
            self._due = True
            self.loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._due = False
        heads = [(self._lines[link].first(), link) for link in self._candidates()]
        heapq.heapify(heads)
        self._changed.clear()
        self._node_was_full = False
        while heads:
            if len(self.running) >= self._limits.node:
                self._node_was_full = True
                return
            _, link = heapq.heappop(heads)
            if not self._has_room(link):
                continue
            self._take_slot(link, 1)
            self.start(self._lines[link].take(), self._options)
            if self._lines[link]:
                heapq.heappush(heads, (self._lines[link].first(), link))

    def _candidates(self) -> list[Link]:
        """Only these can have got room or work since the last time."""
        if self._node_was_full:
            links: Iterable[Link] = self._lines
        else:
            found: dict[Link, None] = {}
            for source in {link.source_se: None for link in self._changed}:
                found |= dict.fromkeys(self._out_of.get(source, ()))
            for destination in {link.dest_se: None for link in self._changed}:
                found |= dict.fromkeys(self._into.get(destination, ()))
            links = found
        return [link for link in links if self._lines[link]]

    def _has_room(self, link: Link) -> bool:
        return (
            self._n_link.get(link, 0) < self._limits.of_link(link)
            and self._n_out.get(link.source_se, 0) < self._limits.of_outbound(link.source_se)
            and self._n_in.get(link.dest_se, 0) < self._limits.of_inbound(link.dest_se)
        )

    def _take_slot(self, link: Link, n: int) -> None:
        self._n_link[link] = self._n_link.get(link, 0) + n
        self._n_out[link.source_se] = self._n_out.get(link.source_se, 0) + n
        self._n_in[link.dest_se] = self._n_in.get(link.dest_se, 0) + n

    async def drive(self, running: Running) -> None:
        """One attempt to its end, whatever it takes to find out."""
        outcome = await running.attempt.run()
        if isinstance(outcome, Unknown):
            probe = Probe(running.order, self.tools)
            outcome = await probe.run(outcome.failure, outcome.started_at, charge=True)
        assert isinstance(outcome, Done | Failed)
        self.release(running)
        self._take_slot(running.file.link, -1)
        self._look_at(running.file.link)
        if isinstance(outcome, Done):
            self.end(running.file, finished=True)
        else:
            await self._again(running.file, outcome)

    async def _again(self, file: File, outcome: Failed) -> None:
        """Back into the line after its delay, or out of it for good."""
        file.n_failed += 1
        file.dest_owned = not outcome.clean
        now = self.deps.clock.now()
        at = self._policy.retry_at(outcome.failure, self._options, file.n_failed, now, self.deps.rng)
        if at is None:
            self.end(file, finished=False)
            return
        await asyncio.sleep(at - now)
        self.becomes_ready(file)
        self._add(file)
