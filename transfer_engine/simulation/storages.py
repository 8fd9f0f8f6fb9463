"""Modelled storages behind the contract of `protocols.api`, in virtual time.

A copy holds the storages as a real one does: the request is answered after a latency, the file has its
overhead, its bytes go through the network with those of others, markers come every few seconds. Chance
is drawn from the seed, the file and the number of the attempt: two schedulers meet the same luck.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final

from protocols.api import (
    ANONYMOUS,
    Capabilities,
    CopyEnd,
    CopyRequest,
    Credential,
    Entry,
    Mode,
    OnMarker,
    ReadStream,
    Stat,
    Timeouts,
)
from protocols.errors import AlreadyExists, Missing, Phase, Refused, Scope, TimedOut, Unavailable, Unsupported
from transfer_engine.simulation import namespace
from transfer_engine.simulation.copying import Copying
from transfer_engine.simulation.faults import Dead, Refuses
from transfer_engine.simulation.luck import Luck
from transfer_engine.simulation.namespace import Presence, SimPath
from transfer_engine.simulation.oracle import Oracle
from transfer_engine.simulation.plant import Plant
from transfer_engine.simulation.scenario import Endpoint, Scenario
from transfer_engine.simulation.traffic import Traffic
from transfer_engine.virtual import VirtualTimeLoop

_DEFAULTS: Final = Timeouts()
_BOTH: Final = Capabilities(pull=True, push=True)


class _Door:
    """How a storage answers; a scenario's own rows are slower to ask."""

    __slots__ = ("latency_s", "troubles")

    def __init__(self, endpoint: Endpoint) -> None:
        self.latency_s = endpoint.latency_s
        self.troubles = tuple(fault for fault in endpoint.faults if isinstance(fault, Dead | Refuses))


class SimulatedStorages:
    """All storages of a scenario; to be made inside the event loop that drives it."""

    def __init__(self, scenario: Scenario, oracle: Oracle, *, seed: int) -> None:
        self.scenario = scenario
        self.oracle = oracle
        self.seed = seed
        self.plant = Plant(scenario)
        self.luck = Luck(seed, self.plant)
        self.traffic = Traffic(self.plant, marker_s=scenario.marker_s)
        self.presence = Presence()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop), "simulated storages live in virtual time"
        self._loop = loop
        self.sleep = loop.after
        self.now = loop.time
        self._doors = {name: _Door(endpoint) for name, endpoint in scenario.endpoints.items()}

    @property
    def schemes(self) -> frozenset[str]:
        """`sim`."""
        return frozenset({namespace.SCHEME})

    def capabilities(self, url: str) -> Capabilities:
        """Pull and push."""
        del url
        return _BOTH

    async def stat(
        self, url: str, *, credential: Credential = ANONYMOUS, digest: str | None = None, timeouts: Timeouts = _DEFAULTS
    ) -> Stat:
        """Size and checksum of one file."""
        del credential
        path = await self.answer(url, timeouts)
        size = self.presence.size(url, path)
        self.oracle.count("stat")
        if size is None:
            raise Missing(f"{url}: no such file", phase=Phase.PREPARATION, status=404)
        if digest is None:
            return Stat(size_bytes=size)
        corrupt = size != path.size_bytes or self.presence.is_corrupt(url)
        checksum = namespace.checksum(path, digest, corrupt=corrupt)
        return Stat(size_bytes=size, checksums={checksum.algorithm: checksum} if checksum else {})

    async def list_directory(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> list[Entry]:
        """Unsupported: there are no directories."""
        del credential, timeouts
        raise Unsupported(f"{url}: simulated storages have no directories", phase=Phase.PREPARATION)

    async def make_parents(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> None:
        """Nothing is missing, but the request takes its time."""
        del credential
        await self.answer(url, timeouts)

    async def delete(self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS) -> bool:
        """Remove one file, whole or part."""
        del credential
        path = await self.answer(url, timeouts)
        self.oracle.trace(self.now(), "delete", url)
        return self.presence.remove(url, path)

    async def copy(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        """One copy through the network."""
        pull = request.mode is Mode.PULL
        if not pull and request.mode is not Mode.PUSH:
            raise Refused("a storage copies by pull or push only", scope=Scope.AGENT, phase=Phase.PREPARATION)
        active = request.destination_url if pull else request.source_url
        await self.answer(active, request.timeouts)
        source, destination = self.path(request.source_url), self.path(request.destination_url)
        if self.presence.size(request.source_url, source) is None:
            raise Missing(f"{request.source_url}: no such file", scope=Scope.SOURCE, phase=Phase.PREPARATION)
        if self.presence.size(request.destination_url, destination) is not None and not request.overwrite:
            raise AlreadyExists(f"{request.destination_url}: file exists", scope=Scope.DESTINATION)
        return await Copying(self, request, source, destination).run(on_marker)

    def read(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> AbstractAsyncContextManager[ReadStream]:
        """Unsupported: simulated files have no bytes."""
        del credential, timeouts
        raise Unsupported(f"{url}: simulated files have no bytes", phase=Phase.PREPARATION)

    async def write(
        self,
        url: str,
        blocks: AsyncIterator[bytes],
        *,
        size_bytes: int | None,
        overwrite: bool,
        credential: Credential = ANONYMOUS,
        timeouts: Timeouts = _DEFAULTS,
    ) -> None:
        """Unsupported: simulated files have no bytes."""
        del blocks, size_bytes, overwrite, credential, timeouts
        raise Unsupported(f"{url}: simulated files have no bytes", phase=Phase.PREPARATION)

    async def aclose(self) -> None:
        """Nothing is open."""

    def path(self, url: str) -> SimPath:
        """The file of a URL. Raises: Missing, Unavailable (no such storage)."""
        path = namespace.parse(url)
        if path is None:
            raise Missing(f"{url}: no such file", phase=Phase.PREPARATION, status=404)
        if path.host not in self._doors:
            raise Unavailable(f"{path.host}: there is no such storage in this scenario", phase=Phase.PREPARATION)
        return path

    async def answer(self, url: str, timeouts: Timeouts) -> SimPath:
        """Wait for a storage's answer. Raises: TimedOut (it is dead), Unavailable (it refuses), Missing."""
        path = self.path(url)
        door = self._doors[path.host]
        latency_s = door.latency_s
        if latency_s:
            await self.sleep(min(timeouts.request_s, latency_s))
        if door.troubles:
            await self._ask_door(path.host, door, timeouts)
        return path

    async def _ask_door(self, host: str, door: _Door, timeouts: Timeouts) -> None:
        for fault in door.troubles:
            if not fault.holds(self.now()):
                continue
            if isinstance(fault, Dead):
                await self.sleep(timeouts.connect_s)
                raise TimedOut(f"{host}: no connection within {timeouts.connect_s:g} s", phase=Phase.PREPARATION)
            raise Unavailable(f"{host}: the service is down", phase=Phase.PREPARATION, status=502)
