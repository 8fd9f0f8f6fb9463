"""One attempt: look at both ends, have the storages copy, look at the destination again.

`run` returns an Outcome and lets nothing but cancellation escape. It deletes at the destination only
what this attempt made, or what the user asked to overwrite, and it announces the copy durably before
the first byte can be written: whoever finds the transfer after a crash knows whether to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from protocols import streaming
from protocols.api import Adapter, CopyRequest, Credential, Marker, Mode, Timeouts
from protocols.errors import (
    Again,
    AlreadyExists,
    CopyFailed,
    Denied,
    Missing,
    ParentMissing,
    Phase,
    Scope,
    TransferError,
    Unsupported,
)
from transfer_engine.clock import Clock
from transfer_engine.config import TransferSettings
from transfer_engine.credentials.api import Credentials
from transfer_engine.credentials.fixed import anonymous
from transfer_engine.ends import Ends
from transfer_engine.liveness import Pace
from transfer_engine.model import Assignment, Done, Evidence, Failed, Failure, Outcome, Unknown, Verify
from transfer_engine.patience import remove, surely
from transfer_engine.preparing import AT_DESTINATION, Preparation
from transfer_engine.verification import Expected, evidence_of, mismatch

__all__ = [
    "LOOKS_MAX",
    "Adapters",
    "Announce",
    "Attempt",
    "ClaimLostError",
    "Credentials",
    "Progress",
    "Tools",
    "anonymous",
]

LOOKS_MAX: Final = 64
TIMEOUTS_MAX: Final = 64
_MODES: Final = {mode.value: mode for mode in Mode}


class Adapters(Protocol):
    """Which adapter speaks to a URL."""

    def adapter_for(self, url: str) -> Adapter:
        """The adapter; Unsupported when there is none."""


Announce = Callable[[], Awaitable[bool]]
"""Record durably that the destination may be written from now on; False: the claim is lost."""


class ClaimLostError(Exception):
    """Another engine owns the transfer now: nothing more may be done for it."""


@dataclass(slots=True)
class Progress:
    """What a running attempt shows of itself; written by the attempt, read by anybody."""

    phase: str = "starting"
    mode: Mode | None = None
    bytes_done: int = 0
    size_bytes: int | None = None
    copying: bool = False
    """The copy was announced: the destination may have been written."""
    replaces: bool = False
    """The old file stays until the new one is complete: there is nothing to remove before."""

    awaited: str = ""
    """The issuer that a token is waited for from; empty: none is."""

    tell: Callable[[int | None], None] | None = None
    """Told that the copy is being sent (None), then how many bytes have moved."""

    def awaits(self, issuer: str) -> None:
        """A token is being waited for; with an empty name: no more."""
        self.awaited = issuer

    def sent(self) -> None:
        """The copy is being sent."""
        if self.tell is not None:
            self.tell(None)

    def marker(self, marker: Marker) -> None:
        """Take in one report."""
        self.bytes_done = marker.bytes_done
        if self.tell is not None:
            self.tell(marker.bytes_done)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every attempt of an engine works with."""

    adapters: Adapters
    credentials: Credentials
    settings: TransferSettings
    clock: Clock
    streams: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(16))
    """Bounds the copies whose bytes go through this process."""
    looks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS_MAX))
    """Bounds the looks after lost attempts: a restart with thousands of them must not flood the storages."""

    _timeouts: dict[float | None, Timeouts] = field(default_factory=dict)
    """Those of the last few lengths; jobs mostly ask for the same."""

    def timeouts(self, total_s: float | None = None) -> Timeouts:
        """The configured deadlines."""
        found = self._timeouts.get(total_s)
        if found is None:
            if len(self._timeouts) >= TIMEOUTS_MAX:
                self._timeouts.clear()
            found = self._timeouts[total_s] = self._timeouts_of(total_s)
        return found

    def _timeouts_of(self, total_s: float | None) -> Timeouts:
        s = self.settings
        return Timeouts(
            connect_s=s.connect_s,
            request_s=s.request_s,
            digest_s=s.digest_s,
            first_response_s=s.first_response_s,
            silence_s=s.silence_s,
            stall_s=s.stall_s,
            total_s=total_s,
        )


class Attempt:
    """One try of one transfer."""

    def __init__(self, order: Assignment, tools: Tools, announce: Announce, progress: Progress) -> None:
        self._order = order
        self._tools = tools
        self._announce = announce
        self._progress = progress
        self._ends = Ends(
            order=order,
            source=tools.adapters.adapter_for(order.source_url),
            destination=tools.adapters.adapter_for(order.dest_url),
            timeouts=tools.timeouts(order.options.timeout_s),
            credentials=tools.credentials,
            waiting=progress.awaits,
        )
        self._preparation = Preparation(self._ends, tools.settings)
        self._pace = Pace(bytes_s=tools.settings.floor_bytes_s, span_s=tools.settings.floor_s)
        self._started_at = tools.clock.now()
        self._shown: tuple[Credential, Credential] | None = None
        """To source and destination, with the copy."""

    async def run(self) -> Outcome:
        """Make the attempt. Raises: ClaimLostError: the epoch is somebody else's now."""
        try:
            # Before anything else: a storage is not bothered for a transfer that cannot be made.
            await self._credentials()
            self._progress.phase = "source"
            expected = await self._preparation.look_at_source()
            found = await self._prepare_destination(expected)
        except TransferError as error:
            return await self._failed(error, clean=not self._order.dest_owned)
        if found is not None:
            return self._done(found, 0.0, adopted=True)
        self._progress.size_bytes = expected.size_bytes
        return await self._copy_and_verify(expected)

    async def _begin(self) -> None:
        if not self._progress.copying:
            if not await self._announce():
                raise ClaimLostError
            self._progress.copying = True

    async def _prepare_destination(self, expected: Expected) -> Evidence | None:
        self._progress.phase = "destination"
        found = await self._preparation.prepare_destination(expected)
        self._progress.replaces = self._preparation.replaces
        return found

    # The copy

    async def _copy_and_verify(self, expected: Expected) -> Outcome:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._copy(expected)
        except TransferError as error:
            return await self._after_failed_copy(error)
        spent = loop.time() - began
        self._progress.phase = "verifying"
        try:
            stat = await surely(
                lambda: self._ends.stat_destination(expected.algorithm),
                expected.algorithm,
                self._ends.destination_digests,
            )
        except Missing:
            gone = CopyFailed("the storage reported success, but the destination does not exist")
            return await self._failed(gone.at(Scope.DESTINATION, Phase.FINALIZATION), clean=True)
        except TransferError as error:
            # The copy is said to be complete; whether it is will be seen when the storage answers again.
            return self._unknown(error.at(Scope.DESTINATION, Phase.FINALIZATION))
        wrong = mismatch(stat, expected, required=self._tools.settings.require_checksum)
        if wrong is None:
            return self._done(evidence_of(stat, expected), spent)
        return await self._failed(wrong, clean=await self.clean_up())

    async def _copy(self, expected: Expected) -> None:
        """Copy by the first mode that both ends can do."""
        refusals: list[str] = []
        last: Unsupported | None = None
        for mode in self._modes():
            self._progress.phase, self._progress.mode = "copying", mode
            self._progress.bytes_done = 0
            try:
                await self._copy_by(mode, expected)
            except Unsupported as error:
                refusals.append(f"{mode}: {error.message}")
                last = error
                # A storage may find out that it cannot when it has written already.
                wrote = self._progress.copying and error.phase is not Phase.PREPARATION
                if wrote and not await self._remove():
                    raise
            else:
                return
        if last is not None and len(refusals) == 1:
            raise last
        text = "; ".join(refusals) or "no copy mode is allowed between these two storages"
        raise Unsupported(text, hint="allow another mode, or configure what the endpoints can do")

    def _modes(self) -> list[Mode]:
        order = self._order
        wanted = order.options.modes or _hinted(order.source_url) or self._tools.settings.modes
        if self._ends.source is not self._ends.destination:
            return [Mode.STREAM] if Mode.STREAM in wanted or not order.options.modes else []
        can: dict[str, bool] = {
            Mode.PULL: self._ends.destination.capabilities(order.dest_url).pull is not False,
            Mode.PUSH: self._ends.source.capabilities(order.source_url).push is not False,
            Mode.STREAM: True,
        }
        return [_MODES[name] for name in wanted if can[name]]

    async def _copy_by(self, mode: Mode, expected: Expected) -> None:
        request = await self._request(mode, expected)
        if mode is Mode.STREAM:
            await self._stream(request, expected)
            return
        await self._begin()
        active = self._ends.destination if mode is Mode.PULL else self._ends.source
        self._progress.sent()
        if mode is Mode.PUSH:
            await self._ends.make_parents()
        try:
            await self._copy_at_pace(active, request)
        except ParentMissing:
            await self._ends.make_parents()
            await self._copy_at_pace(active, request)

    async def _copy_at_pace(self, active: Adapter, request: CopyRequest) -> None:
        async with self._pace.kept(unsettled=True):
            await active.copy(request, self._heard)

    def _heard(self, marker: Marker) -> None:
        self._progress.marker(marker)
        self._pace.heard(marker.bytes_done, self._progress.size_bytes)

    async def _stream(self, request: CopyRequest, expected: Expected) -> None:
        waits = self._tools.streams.locked()
        async with self._tools.streams:
            if waits:
                # Somebody else may have put a file there meanwhile.
                await self._prepare_destination(expected)
            await self._begin()
            self._progress.sent()
            await self._ends.make_parents()
            async with self._pace.kept(unsettled=False):
                streamed = await streaming.stream_copy(
                    self._ends.source,
                    self._ends.destination,
                    request,
                    self._heard,
                    digest=self._digest_of_stream(expected),
                )
        # Neither end may offer a checksum: what passed through here is then the only witness of the source.
        if expected.size_bytes is None:
            expected.size_bytes = streamed.end.bytes_done
        if self._order.options.compares is Verify.NONE:
            return
        expected.proven = True
        if self._order.options.compares in AT_DESTINATION:
            expected.checksum, expected.algorithm = streamed.checksum, streamed.checksum.algorithm
            expected.given = False

    def _digest_of_stream(self, expected: Expected) -> str:
        if expected.checksum is not None:
            return expected.checksum.algorithm
        return self._preparation.algorithm()

    async def _request(self, mode: Mode, expected: Expected) -> CopyRequest:
        order = self._order
        self._shown = await self._credentials()
        return CopyRequest(
            source_url=order.source_url,
            destination_url=order.dest_url,
            mode=mode,
            source_credential=self._shown[0],
            destination_credential=self._shown[1],
            overwrite=order.overwrites,
            size_bytes=expected.size_bytes,
            checksum=expected.checksum,
            n_streams=order.options.n_streams,
            client_info=f"job-id={order.job_id};file-id={order.file_id};retry={order.n_failed}",
            scitag=order.scitag,
            timeouts=self._ends.timeouts,
        )

    # After the copy

    async def _after_failed_copy(self, error: TransferError) -> Outcome:
        if not self._progress.copying:
            return await self._failed(error, clean=not self._order.dest_owned)
        if error.unsettled:
            return self._unknown(error)
        if self._progress.replaces:
            return await self._failed(error, clean=True)
        if isinstance(error, AlreadyExists):
            # Somebody else's file came in between: it is not ours to remove.
            return await self._failed(error, clean=True)
        return await self._failed(error, clean=await self.clean_up())

    async def clean_up(self) -> bool:
        """Remove what this attempt wrote; True when the destination was seen without it."""
        return not self._order.options.keep_remains and await self._remove()

    async def _remove(self) -> bool:
        self._progress.phase = "cleaning"
        return await remove(self._ends.delete_destination, self._tools.settings.cleanup_s)

    def _done(self, evidence: Evidence, transfer_s: float, *, adopted: bool = False) -> Done:
        return Done(
            evidence=evidence,
            mode="" if adopted or self._progress.mode is None else self._progress.mode.value,
            bytes_moved=0 if adopted else evidence.size_bytes,
            transfer_s=transfer_s,
            started_at=self._started_at,
        )

    async def _failed(self, error: TransferError, *, clean: bool) -> Failed:
        failure = Failure.of(error)
        if isinstance(error, AlreadyExists):
            failure = replace(failure, dst_file=await self._preparation.existing_file())
        elif isinstance(error, Denied) and await self._was_renewed():
            failure = replace(
                failure, again=Again.SOON, hint="nothing to do: it is repeated with the renewed credential"
            )
        return Failed(failure=failure, clean=clean, started_at=self._started_at)

    async def _credentials(self) -> tuple[Credential, Credential]:
        return await self._ends.source_credential(), await self._ends.dest_credential()

    async def _was_renewed(self) -> bool:
        """Is another credential shown by now than was with the copy? The one that was refused may have ended."""
        try:
            return self._shown is not None and self._shown != await self._credentials()
        except TransferError:
            return False

    def _unknown(self, error: TransferError) -> Unknown:
        return Unknown(failure=Failure.of(error), started_at=self._started_at)


def _hinted(url: str) -> tuple[str, ...] | None:
    """gfal2's `?copy_mode=push|pull` in a source URL, which Rucio writes to pin a mode."""
    _, _, query = url.partition("?")
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "copy_mode" and value in {"pull", "push"}:
            return (value,)
    return None
