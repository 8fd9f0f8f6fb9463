"""One modelled copy, from the storage's acceptance to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from protocols.api import CopyEnd, CopyRequest, OnMarker
from protocols.errors import (
    CopyFailed,
    Denied,
    Missing,
    NoSpace,
    OutcomeUnknown,
    Overloaded,
    Phase,
    Scope,
    TransferError,
    Unavailable,
)
from transfer_engine.simulation.faults import Busy, ErrorName
from transfer_engine.simulation.luck import AT_ONCE, Draw
from transfer_engine.simulation.namespace import SimPath

if TYPE_CHECKING:
    from transfer_engine.simulation.storages import SimulatedStorages

PASSIVE_WAIT_S: Final = 30.0
"""How long an active party tries to reach the other end before it reports failure."""


class Copying:
    """A copy and what it holds meanwhile."""

    def __init__(
        self, storages: SimulatedStorages, request: CopyRequest, source: SimPath, destination: SimPath
    ) -> None:
        self._storages = storages
        self._request = request
        self._source = source
        self._destination = destination
        self._link = (source.host, destination.host)

    async def run(self, on_marker: OnMarker) -> CopyEnd:
        """Carry it out; see `Adapter.copy`."""
        storages, oracle, url = self._storages, self._storages.oracle, self._request.destination_url
        self._check_busy()
        oracle.started(self._source, self._destination.host, storages.now())
        oracle.trace(storages.now(), "copy", url)
        if self._request.client_info.endswith("retry=0"):
            oracle.waited(self._source, self._destination.host, storages.now())
        try:
            return await self._run(on_marker)
        except asyncio.CancelledError:
            oracle.trace(storages.now(), "cancelled", url)
            raise
        except TransferError as error:
            oracle.trace(storages.now(), f"failed {error.code}", url)
            raise
        finally:
            oracle.stopped(self._source, self._destination.host, storages.now())

    def _check_busy(self) -> None:
        storages = self._storages
        for host in self._link:
            troubles = storages.plant.endpoint_faults(host)
            if not troubles:
                continue
            n = storages.oracle.inbound[host] + storages.oracle.outbound[host]
            for fault in troubles:
                if isinstance(fault, Busy) and n >= fault.above and fault.holds(storages.now()):
                    storages.oracle.trace(storages.now(), "busy", host)
                    scope = Scope.SOURCE if host == self._source.host else Scope.DESTINATION
                    text = f"{host}: {n} copies are running, no more now"
                    raise Overloaded(
                        text, scope=scope, phase=Phase.PREPARATION, status=503, retry_after_s=fault.retry_after_s
                    )

    async def _run(self, on_marker: OnMarker) -> CopyEnd:
        storages, request, size = self._storages, self._request, self._source.size_bytes
        overhead_s = storages.scenario.endpoints[self._destination.host].overhead_s
        drawn = self._draw()
        if overhead_s:
            await storages.sleep(overhead_s)
        await self._check_way()
        if drawn.error in AT_ONCE:
            raise _error(drawn.error)
        n_bytes = drawn.moved(size)
        n_markers = await storages.traffic.move(
            self._link, self._source.stream, n_bytes, on_marker, request.timeouts, self._leave
        )
        corrupt = drawn.error == "checksum"
        if drawn.error is not None and not corrupt:
            self._leave(n_bytes)
            # Made here: an error in a variable of the frame that it was raised in is a cycle.
            raise _error(drawn.error)
        storages.presence.put(request.destination_url, self._destination, corrupt=corrupt)
        storages.oracle.trace(storages.now(), "copied wrongly" if corrupt else "copied", request.destination_url)
        if not corrupt:
            storages.oracle.copied(self._source, self._destination.host, storages.now())
        return CopyEnd(message="success: Created", bytes_done=size, n_markers=n_markers)

    def _leave(self, n_bytes: int) -> None:
        """A part of the file stays behind."""
        self._storages.presence.put_part(self._request.destination_url, n_bytes)

    async def _check_way(self) -> None:
        dead = self._storages.plant.dead(*self._link, self._storages.now())
        if dead == "destination":
            raise OutcomeUnknown("the connection was lost", unsettled=True)
        if dead is not None:
            await self._storages.sleep(PASSIVE_WAIT_S)
            raise CopyFailed(f"the {dead} does not answer", scope=Scope.SOURCE)

    def _draw(self) -> Draw:
        attempt = self._request.client_info.rpartition("retry=")[2]
        return self._storages.luck.draw(self._source, self._destination.host, attempt, self._storages.now())


def _error(name: ErrorName | None) -> TransferError:
    match name:
        case "copy-failed":
            return CopyFailed("the copy failed")
        case "unavailable":
            return Unavailable("the storage is not available", phase=Phase.PREPARATION)
        case "lost":
            return OutcomeUnknown("the connection was closed without a result", unsettled=True)
        case "no-space":
            return NoSpace("no space left", scope=Scope.DESTINATION)
        case "missing":
            return Missing("no such file", scope=Scope.SOURCE)
        case "denied":
            return Denied("permission denied", scope=Scope.DESTINATION)
        case "checksum" | None:
            raise AssertionError("such a copy does not fail")
