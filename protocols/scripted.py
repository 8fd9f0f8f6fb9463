"""An adapter that follows a script: the public fake for simulations and for users' tests.

Storages live in memory, keyed by endpoint (`sim://host`). Rules say what goes wrong, where and at
which attempt. Every wait is `asyncio.sleep` and every instant the event loop's time, so a loop with
virtual time runs a day of transfers in a moment, and the same seed gives the same run.

    adapter = ScriptedAdapter()
    adapter.storage("sim://a").add("/f", size_bytes=10_000)
    adapter.rule("sim://b/*", operations={"copy"}, attempts=range(1, 2), error=lambda: CopyFailed("disk"))
    await adapter.copy(CopyRequest(source_url="sim://a/f", destination_url="sim://b/f", mode=Mode.PULL), print)
    adapter.journal   # what really happened: the oracle of a test

A copy whose answer is lost may go on writing ("zombie"): its destination then grows with time, seen
by `stat`, without any task behind it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from protocols import scripted_copy
from protocols.api import (
    ANONYMOUS,
    Capabilities,
    CopyEnd,
    CopyRequest,
    Credential,
    Entry,
    OnMarker,
    ReadStream,
    Stat,
    Timeouts,
)
from protocols.errors import (
    AlreadyExists,
    Missing,
    ParentMissing,
    Phase,
    Refused,
    Scope,
    SizeMismatch,
    TimedOut,
    TransferError,
    Unavailable,
)
from protocols.scripted_script import OPERATIONS, JournalEntry, Lie, Lost, Rule
from protocols.scripted_storage import SimStorage, Writing, split_url
from protocols.simfile import Recorder, SimFile

__all__ = ["JournalEntry", "Lie", "Lost", "Rule", "ScriptedAdapter", "SimFile", "SimStorage"]

_DEFAULTS: Final = Timeouts()


class ScriptedAdapter:
    """In-memory storages that behave as told."""

    def __init__(
        self,
        *,
        schemes: Collection[str] = ("sim",),
        default: Rule | None = None,
        rng: random.Random | None = None,
        marker_s: float = 5.0,
        journal_max: int | None = None,
    ) -> None:
        """Nothing is stored yet; storages appear when they are named.

        Args:
            default: what holds where no rule matches; by default everything works at 100 MB/s.
            rng: for rules with `chance` below 1; by default seeded with 0.
            marker_s: seconds between two progress markers.
            journal_max: how many entries are kept; None: all.
        """
        self._schemes = frozenset(schemes)
        self._default = default or Rule()
        self._rng = rng or random.Random(0)  # noqa: S311 - chance in a simulation is no secret
        self.marker_s = marker_s
        self.journal: deque[JournalEntry] = deque(maxlen=journal_max)
        self._storages: dict[str, SimStorage] = {}
        self._rules: list[Rule] = []
        self._attempts: Counter[tuple[str, str]] = Counter()

    # -- the script ---------------------------------------------------------------------------

    def storage(self, url: str, *, pull: bool = True, push: bool = True, needs_parents: bool = False) -> SimStorage:
        """The storage of an endpoint; made on first use, and then with these properties."""
        endpoint, _ = split_url(url)
        if endpoint not in self._storages:
            self._storages[endpoint] = SimStorage(
                endpoint=endpoint, capabilities=Capabilities(pull=pull, push=push), needs_parents=needs_parents
            )
        return self._storages[endpoint]

    def add_rule(self, rule: Rule) -> Rule:
        """Put a rule behind those that exist; the first that matches decides."""
        self._rules.append(rule)
        return rule

    def rule(
        self,
        match: str,
        *,
        operations: Collection[str] = OPERATIONS,
        attempts: range | None = None,
        error: Callable[[], TransferError] | None = None,
        latency_s: float = 0.0,
        lost: Lost | None = None,
        lie: Lie | None = None,
    ) -> Rule:
        """Shorthand of `add_rule` for the common cases; see `Rule` for all of them."""
        return self.add_rule(
            Rule(
                match=match,
                operations=frozenset(operations),
                attempts=attempts,
                error=error,
                latency_s=latency_s,
                lost=lost,
                lie=lie,
            )
        )

    def remove_rule(self, rule: Rule) -> None:
        """Take a rule back: the storage has recovered."""
        self._rules.remove(rule)

    # -- the contract -------------------------------------------------------------------------

    @property
    def schemes(self) -> frozenset[str]:
        """The URL schemes it takes."""
        return self._schemes

    def capabilities(self, url: str) -> Capabilities:
        """As the storage was made."""
        return self.storage(url).capabilities

    async def stat(
        self, url: str, *, credential: Credential = ANONYMOUS, digest: str | None = None, timeouts: Timeouts = _DEFAULTS
    ) -> Stat:
        """Look at one path; a file that is being written shows its size of this moment."""
        del credential
        rule = await self._enter("stat", url, timeouts.digest_s if digest else timeouts.request_s)
        storage, path = self._at(url)
        if storage.is_directory(path):
            return Stat(size_bytes=None, is_directory=True)
        file = storage.look(path, self.now())
        if file is None:
            raise Missing(f"{url}: no such file", phase=Phase.PREPARATION, status=404)
        checksum = file.checksum(digest) if digest and rule.digests else None
        return Stat(size_bytes=file.size_bytes, checksums={checksum.algorithm: checksum} if checksum else {})

    async def list_directory(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> list[Entry]:
        """The direct children, by name."""
        del credential
        await self._enter("list", url, timeouts.request_s)
        storage, path = self._at(url)
        if not storage.is_directory(path):
            kind = Missing if storage.look(path, self.now()) is None else Refused
            raise kind(f"{url}: not a directory", phase=Phase.PREPARATION)
        return storage.children(path, self.now())

    async def make_parents(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> None:
        """Create the directories above `url`."""
        del credential
        await self._enter("mkdir", url, timeouts.request_s)
        storage, path = self._at(url)
        storage.make_parents(path, self.now())

    async def delete(self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS) -> bool:
        """Remove one file, also one that is being written (the writer goes on into nothing)."""
        del credential
        await self._enter("delete", url, timeouts.request_s)
        storage, path = self._at(url)
        if storage.is_directory(path):
            raise Refused(f"{url}: is a directory", phase=Phase.PREPARATION)
        return storage.remove(path)

    async def copy(self, request: CopyRequest, on_marker: OnMarker) -> CopyEnd:
        """One third-party copy as the rules for the destination, then for the source, say."""
        return await scripted_copy.run(self, request, on_marker)

    def read(
        self, url: str, *, credential: Credential = ANONYMOUS, timeouts: Timeouts = _DEFAULTS
    ) -> AbstractAsyncContextManager[ReadStream]:
        """Open one file; blocks come at the rule's rate."""
        del credential
        return self._read(url, timeouts)

    @asynccontextmanager
    async def _read(self, url: str, timeouts: Timeouts) -> AsyncIterator[ReadStream]:
        rule = await self._enter("read", url, timeouts.first_response_s)
        storage, path = self._at(url)
        if storage.is_directory(path):
            raise Refused(f"{url}: is a directory", phase=Phase.PREPARATION)
        file = storage.look(path, self.now())
        if file is None:
            raise Missing(f"{url}: no such file", phase=Phase.PREPARATION, status=404)
        yield _SimStream(file, rule)

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
        """Store what `blocks` yields; it is there when the last block has been taken."""
        del credential
        rule = await self._enter("write", url, timeouts.first_response_s)
        storage, path = self._at(url)
        self.check_destination(url, overwrite=overwrite)
        recorder = Recorder()
        async for block in blocks:
            recorder.add(block)
            await asyncio.sleep(len(block) / rule.rate_bytes_s)
        if size_bytes is not None and recorder.size_bytes != size_bytes:
            raise SizeMismatch(f"{url}: got {recorder.size_bytes} bytes, {size_bytes} were announced")
        now = self.now()
        storage.write(path, Writing.finished(rule.told(recorder.file()), now))
        self.note("written", url, recorder.size_bytes)

    async def aclose(self) -> None:
        """Nothing is open; the storages stay, so that another adapter's run can be compared."""

    # -- for the copy -------------------------------------------------------------------------

    def now(self) -> float:
        """The event loop's time."""
        return asyncio.get_running_loop().time()

    def note(self, operation: str, url: str, n_bytes: int = 0) -> None:
        """Add one line to the journal."""
        self.journal.append(JournalEntry(at_s=self.now(), operation=operation, url=url, n_bytes=n_bytes))

    def decide(self, operation: str, *urls: str) -> Rule:
        """Count one more attempt on each URL and find the rule for it, earlier URLs first."""
        for url in urls:
            self._attempts[operation, url] += 1
        for url in urls:
            attempt = self._attempts[operation, url]
            for rule in self._rules:
                if rule.applies(operation, url, attempt) and (rule.chance >= 1 or self._rng.random() < rule.chance):
                    return rule
        return self._default

    def check_destination(self, url: str, *, overwrite: bool) -> None:
        """Raise what a storage says before it takes a file at `url`."""
        storage, path = self._at(url)
        place = {"scope": Scope.DESTINATION, "phase": Phase.PREPARATION}
        if storage.is_directory(path):
            raise Refused(f"{url}: is a directory", **place)  # type: ignore[arg-type]  # a dict of keywords
        if storage.look(path, self.now()) is not None and not overwrite:
            raise AlreadyExists(f"{url}: file exists", **place)  # type: ignore[arg-type]  # a dict of keywords
        if not storage.has_parent(path):
            raise ParentMissing(f"{url}: no such file or directory", **place)  # type: ignore[arg-type]  # the same

    async def _enter(self, operation: str, url: str, limit_s: float) -> Rule:
        """Journal, latency, error: what every metadata operation begins with."""
        rule = self.decide(operation, url)
        self.note(operation, url)
        await asyncio.sleep(min(rule.latency_s, limit_s))
        if rule.latency_s > limit_s:
            raise TimedOut(f"{url}: no answer to {operation} within {limit_s:g} s", phase=Phase.PREPARATION)
        if rule.error is not None:
            raise rule.error()
        return rule

    def _at(self, url: str) -> tuple[SimStorage, str]:
        endpoint, path = split_url(url)
        if endpoint not in self._storages:
            raise Unavailable(f"{endpoint}: there is no such storage in this script", phase=Phase.PREPARATION)
        return self._storages[endpoint], path


class _SimStream:
    """A `ReadStream` over a simulated file."""

    def __init__(self, file: SimFile, rule: Rule) -> None:
        self._file = file
        self._rule = rule

    @property
    def size_bytes(self) -> int | None:
        """Length of the file."""
        return self._file.size_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for block in self._rule.told(self._file).blocks():
            await asyncio.sleep(len(block) / self._rule.rate_bytes_s)
            yield block
