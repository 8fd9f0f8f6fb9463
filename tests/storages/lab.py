"""Start the storages that a test session asks for, end them all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.grid import Grid
from tests.storages.authority import Authority
from tests.storages.bench import Bench
from tests.storages.kinds import KINDS, kind_of
from tests.storages.process import Account, CannotRun, ServerFailed
from tests.storages.storage import Storage

START_TRIES = 4
"""A port that was free may be taken by the time its server opens it."""


class Storages:
    """The storages of one session, by name (`storages["xrootd-a"]`), each kind started when first needed.

    `directory` must be reachable for the servers' user: not below a home directory of mode 0700.
    """

    def __init__(self, directory: Path, kinds: Iterable[str] = ()) -> None:
        self.directory = directory
        self._kinds = sorted(kinds)
        self._running: dict[str, Storage] = {}
        directory.chmod(0o755)
        self._bench = Bench(directory, Authority(directory / "pki"), Account.choose())

    @property
    def ca_file(self) -> Path:
        """PEM of the authority that signed all certificates."""
        return self._bench.authority.ca_file

    @property
    def authority(self) -> Authority:
        """For tokens of other shapes than `Storage.token` makes."""
        return self._bench.authority

    @property
    def grid(self) -> Grid:
        """Users for storages that want certificates: they let in `alice`, who may do everything."""
        return self._bench.grid

    def __enter__(self) -> Self:
        try:
            for kind in self._kinds:
                self.start(kind)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __getitem__(self, name: str) -> Storage:
        if name not in self._running:
            self.start(kind_of(name))
        return self._running[name]

    def __contains__(self, name: str) -> bool:
        """Whether it is running already."""
        return name in self._running

    def start(self, kind: str) -> None:
        """Start every storage of a kind; CannotRun names what is not installed."""
        entry = KINDS[kind]
        entry.check()
        for name in entry.names:
            if name not in self._running:
                self._running[name] = self._start(kind, name)

    def another(self, kind: str, name: str) -> Storage:
        """One more of a kind, under a name of the caller's, for who needs more than the usual ones."""
        KINDS[kind].check()
        if name not in self._running:
            self._running[name] = self._start(kind, name)
        return self._running[name]

    def _start(self, kind: str, name: str) -> Storage:
        for _ in range(START_TRIES - 1):
            try:
                return KINDS[kind].start(self._bench, name)
            except ServerFailed:
                continue
        return KINDS[kind].start(self._bench, name)

    def stop(self) -> None:
        """End all of them."""
        for storage in self._running.values():
            for server in storage.servers:
                server.stop()
        self._running.clear()
        self._bench.clean()


def missing(kind: str) -> str | None:
    """Why a kind cannot run on this machine, or None."""
    try:
        KINDS[kind].check()
        Account.choose().prefix()
    except CannotRun as error:
        return str(error)
    return None
