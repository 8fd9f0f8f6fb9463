"""What the kinds build with: an account, keys, ports and directories."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.grid import Grid
from tests.storages.authority import Authority
from tests.storages.process import Account, Server, free_port, short_directory

ADMIN_NAME_MAX = 60
"""XRootD adds up to 40 characters to its admin path for its sockets' names."""


@dataclass(slots=True)
class Bench:
    """The shared ground of all storages of one session."""

    directory: Path
    authority: Authority
    account: Account
    _taken: set[int] = field(default_factory=set)
    _made: list[Path] = field(default_factory=list)
    _grid: Grid | None = None

    @property
    def grid(self) -> Grid:
        """The users that storages with certificates know; made when first asked for."""
        if self._grid is None:
            self._grid = Grid(self.directory / "grid")
        return self._grid

    def port(self) -> int:
        """An unused port."""
        return free_port(self._taken)

    def folder(self, name: str) -> Path:
        """A new working directory `NAME` with a directory `data` in it."""
        folder = self.directory / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "data").mkdir(parents=True)
        return folder

    def admin(self, name: str) -> Path:
        """A directory of the servers' own whose name is short enough for sockets."""
        folder, remove = short_directory(self.directory / name / "adm", ADMIN_NAME_MAX)
        if remove:
            self._made.append(remove)
        self.account.own(folder)
        return folder

    def launch(self, server: Server, *ports: tuple[int, bool]) -> Server:
        """Start a server and wait until it answers at each (port, tls); it is stopped when it does not."""
        self.account.own(server.directory)
        server.start()
        try:
            for port, tls in ports:
                server.wait_ready(port, tls=tls)
        except BaseException:
            server.stop()
            raise
        return server

    def clean(self) -> None:
        """Remove what was made outside the directory."""
        for folder in self._made:
            shutil.rmtree(folder, ignore_errors=True)
