"""One scripted third-party copy, from the request to its end."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocols.api import CopyEnd, CopyRequest, Marker, Mode, OnMarker
from protocols.errors import (
    Missing,
    OutcomeUnknown,
    Phase,
    Refused,
    Scope,
    Stalled,
    TimedOut,
    TransferError,
    Unsupported,
)
from protocols.scripted_script import Lie, Lost, Rule
from protocols.scripted_storage import Writing, split_url
from protocols.simfile import SimFile

if TYPE_CHECKING:
    from protocols.scripted import ScriptedAdapter


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """When the copy ends and how, decided when it starts."""

    end_s: float
    error: TransferError | None
    bytes_at_end: int


async def run(adapter: ScriptedAdapter, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
    """Carry out `request` as the adapter's rules say; see `Adapter.copy`."""
    url = request.destination_url
    rule = adapter.decide("copy", url, request.source_url)
    adapter.note("copy", url)
    try:
        return await _copy(adapter, request, rule, on_marker)
    except asyncio.CancelledError:
        adapter.note("cancelled", url)
        raise
    except TransferError:
        adapter.note("failed", url)
        raise


async def _copy(adapter: ScriptedAdapter, request: CopyRequest, rule: Rule, on_marker: OnMarker) -> CopyEnd:
    file = await _begin(adapter, request, rule)
    destination, path = adapter.storage(request.destination_url), split_url(request.destination_url)[1]
    now = adapter.now()
    if destination.writer(path, now) is not None:
        adapter.note("conflict", request.destination_url)
    plan = _plan(rule, file, request, now)
    writing = Writing(file=rule.told(file), start_s=now, rate_bytes_s=rule.rate_bytes_s)
    if (stop := _stop_bytes(rule, file)) is not None and rule.lost is not Lost.GOES_ON:
        writing.stop_bytes = stop
    if rule.lie is not Lie.NOTHING:
        destination.write(path, writing)
    try:
        n_markers = await _follow(adapter, rule, writing, plan, on_marker)
    except asyncio.CancelledError:
        writing.stop_s = adapter.now() + rule.cancel_lag_s
        raise
    if plan.error is not None:
        if isinstance(plan.error, TimedOut):
            # The caller closes the connection, which the storage notices later.
            writing.stop_s = adapter.now() + rule.cancel_lag_s
        raise plan.error
    adapter.note("copied", request.destination_url, plan.bytes_at_end)
    return CopyEnd(message="success: Created", bytes_done=plan.bytes_at_end, n_markers=n_markers)


async def _begin(adapter: ScriptedAdapter, request: CopyRequest, rule: Rule) -> SimFile:
    """Everything before the first byte; returns the source file."""
    if request.mode not in {Mode.PULL, Mode.PUSH}:
        raise Refused("a storage copies by pull or push only", scope=Scope.AGENT, phase=Phase.PREPARATION)
    pull = request.mode is Mode.PULL
    active = adapter.storage(request.destination_url if pull else request.source_url).capabilities
    if (active.pull if pull else active.push) is False:
        raise Unsupported(f"the storage does not do {request.mode}", phase=Phase.PREPARATION)
    await asyncio.sleep(min(rule.latency_s, request.timeouts.first_response_s))
    if rule.latency_s > request.timeouts.first_response_s:
        raise TimedOut("no answer to COPY", unsettled=True)
    if rule.error is not None and not rule.at_bytes:
        raise rule.error()
    adapter.check_destination(request.destination_url, overwrite=request.overwrite)
    source, path = adapter.storage(request.source_url), split_url(request.source_url)[1]
    file = source.look(path, adapter.now())
    if file is None:
        raise Missing(f"{request.source_url}: no such file", scope=Scope.SOURCE, phase=Phase.PREPARATION)
    return file


def _stop_bytes(rule: Rule, file: SimFile) -> int | None:
    """Where the bytes stop for a while or for ever; None: at the end of the file."""
    if rule.lost is Lost.COMPLETED:
        return None
    if rule.lost is not None:
        return file.size_bytes // 2 if rule.at_bytes is None else min(rule.at_bytes, file.size_bytes)
    if rule.stall or rule.error is not None:
        return min(rule.at_bytes or 0, file.size_bytes)
    return None


def _plan(rule: Rule, file: SimFile, request: CopyRequest, now: float) -> _Plan:
    limits = request.timeouts
    stop = _stop_bytes(rule, file)
    n_bytes = file.size_bytes if stop is None else stop
    reached_s = now + n_bytes / rule.rate_bytes_s
    if rule.lost is not None:
        error: TransferError | None = OutcomeUnknown("the connection was closed without a result", unsettled=True)
    elif rule.stall:
        quiet_s = limits.silence_s if rule.silent else limits.stall_s
        error, reached_s = Stalled(f"no progress for {quiet_s:g} s", unsettled=True), reached_s + quiet_s
    elif rule.error is not None:
        error = rule.error()
    else:
        error = None
    if rule.silent and reached_s - now > limits.silence_s:
        error, reached_s = Stalled(f"no marker for {limits.silence_s:g} s", unsettled=True), now + limits.silence_s
    if limits.total_s is not None and reached_s - now > limits.total_s:
        error, reached_s = TimedOut(f"not done within {limits.total_s:g} s", unsettled=True), now + limits.total_s
    return _Plan(end_s=reached_s, error=error, bytes_at_end=n_bytes)


async def _follow(adapter: ScriptedAdapter, rule: Rule, writing: Writing, plan: _Plan, on_marker: OnMarker) -> int:
    """Sleep until the planned end, a marker at every period; returns how many."""
    n_markers = 0
    next_s = math.inf if rule.silent else writing.start_s + adapter.marker_s
    while (now := adapter.now()) < plan.end_s:
        await asyncio.sleep(min(next_s, plan.end_s) - now)
        if adapter.now() >= next_s:
            n_markers += 1
            on_marker(Marker(bytes_done=writing.size_at(adapter.now())))
            next_s += adapter.marker_s
    return n_markers
