"""One running storage as a test sees it: its URLs, and its files behind the server's back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.storages.process import Account, Server

TokenMaker = Callable[..., str]


@dataclass(slots=True)
class Storage:
    """A storage server with its directory."""

    name: str
    kind: str
    url: str
    """Base of its plain-http URLs, without a slash at the end; with tokens it is https too."""
    https_url: str
    data_dir: Path
    log: Path
    account: Account
    servers: list[Server]
    digests: frozenset[str] = frozenset()
    """Checksum algorithms that it tells on request."""
    copies: bool = False
    """Whether it takes part in third-party copies actively."""
    needs_token: bool = False
    needs_certificate: bool = False
    """It lets in the grid's `alice` alone, by her certificate or a proxy of it, and gives macaroons."""
    _token: TokenMaker | None = field(default=None, repr=False)

    def token(self, scope: str, *, lifetime_s: int = 3600) -> str:
        """A token for this storage; scopes such as `storage.read:/ storage.modify:/`."""
        if self._token is None:
            msg = f"{self.name} takes no tokens"
            raise ValueError(msg)
        return self._token(scope, audience=self.https_url, lifetime_s=lifetime_s)

    def put(self, name: str, data: bytes) -> str:
        """Place a file that the server may also replace; its URL."""
        path = self.data_dir / name
        for parent in reversed(path.relative_to(self.data_dir).parents):
            folder = self.data_dir / parent
            if not folder.exists():
                folder.mkdir()
                self.account.own(folder)
        path.write_bytes(data)
        self.account.own(path)
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError when there is none."""
        return (self.data_dir / name).read_bytes()

    def names(self) -> list[str]:
        """All files, as paths relative to the storage's root, sorted."""
        return sorted(str(p.relative_to(self.data_dir)) for p in self.data_dir.rglob("*") if p.is_file())

    def running(self) -> bool:
        """Whether all of its processes are alive."""
        return all(server.pid is not None for server in self.servers)
