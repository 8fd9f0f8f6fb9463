"""One storage in memory: directories, files, and files that grow with the event loop's time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from protocols.api import Capabilities, Entry
from protocols.errors import Phase, Refused
from protocols.simfile import SimFile


def split_url(url: str) -> tuple[str, str]:
    """`sim://host/p//q/?x` → (`sim://host`, `/p/q`)."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("?")[0].partition("/")
    return f"{scheme.lower()}://{host.lower()}", "/" + "/".join(part for part in path.split("/") if part)


@dataclass(slots=True, kw_only=True)
class Writing:
    """A file and how much of it is there at which time: all of it, or growing since `start_s`."""

    file: SimFile
    start_s: float
    rate_bytes_s: float = math.inf
    stop_s: float = math.inf
    """Nothing is written after it."""
    stop_bytes: float = math.inf
    """Nothing is written beyond it."""

    @classmethod
    def finished(cls, file: SimFile, now: float) -> Writing:
        """A file that is completely there."""
        return cls(file=file, start_s=now)

    def size_at(self, now: float) -> int:
        """Bytes that are there at loop time `now`."""
        if math.isinf(self.rate_bytes_s):
            return self.file.size_bytes
        written = max(min(now, self.stop_s) - self.start_s, 0.0) * self.rate_bytes_s
        # A sleep until the very end of the file may fall short of it by a rounding error.
        return int(min(written + 1e-6 * self.rate_bytes_s, self.file.size_bytes, self.stop_bytes))

    def grows(self, now: float) -> bool:
        """Whether more bytes will come after `now`."""
        return self.size_at(now) < self.size_at(math.inf)


@dataclass(slots=True, kw_only=True)
class SimStorage:
    """What one endpoint holds."""

    endpoint: str
    capabilities: Capabilities
    needs_parents: bool = False
    """True: a file is refused when the directory above it does not exist."""
    _files: dict[str, Writing] = field(default_factory=dict)
    _directories: set[str] = field(default_factory=lambda: {"/"})

    def add(self, path: str, *, size_bytes: int, seed: int = 0) -> SimFile:
        """Put a file there, with its directories."""
        return self.put(path, SimFile(size_bytes=size_bytes, seed=seed))

    def add_bytes(self, path: str, data: bytes) -> SimFile:
        """Put a file with this very content there."""
        return self.put(path, SimFile(size_bytes=len(data), data=data))

    def put(self, path: str, file: SimFile) -> SimFile:
        """Put a file there as it is, with its directories."""
        clean = split_url(self.endpoint + path)[1]
        self._add_directories(clean)
        self._files[clean] = Writing.finished(file, 0.0)
        return file

    def files(self, now: float = math.inf) -> dict[str, SimFile]:
        """Every file by path, as far as it is written at loop time `now`."""
        return {path: writing.file.cut(writing.size_at(now)) for path, writing in self._files.items()}

    def look(self, path: str, now: float) -> SimFile | None:
        """The file as far as it is written, or None."""
        writing = self._files.get(path)
        return None if writing is None else writing.file.cut(writing.size_at(now))

    def writer(self, path: str, now: float) -> Writing | None:
        """The file when it still grows, else None."""
        writing = self._files.get(path)
        return writing if writing is not None and writing.grows(now) else None

    def write(self, path: str, writing: Writing) -> None:
        """Replace what is at `path`, directories included."""
        self._add_directories(path)
        self._files[path] = writing

    def remove(self, path: str) -> bool:
        """Drop a file; False when there is none."""
        return self._files.pop(path, None) is not None

    def is_directory(self, path: str) -> bool:
        """Whether a directory of that name was made."""
        return path in self._directories

    def has_parent(self, path: str) -> bool:
        """Whether a file may be written at `path`."""
        return not self.needs_parents or (path.rpartition("/")[0] or "/") in self._directories

    def make_parents(self, path: str, now: float) -> None:
        """Create the directories above `path`; Refused when one of them is a file."""
        for parent in _parents(path):
            if self.look(parent, now) is not None:
                raise Refused(f"{self.endpoint}{parent}: is a file, not a directory", phase=Phase.PREPARATION)
        self._add_directories(path)

    def children(self, path: str, now: float) -> list[Entry]:
        """The direct children of a directory, by name."""
        prefix = path.rstrip("/") + "/"
        names = {entry: True for entry in self._directories if entry.startswith(prefix) and entry != "/"}
        names |= {entry: False for entry in self._files if entry.startswith(prefix)}
        entries = []
        for full, is_directory in sorted(names.items()):
            name = full[len(prefix) :]
            if name and "/" not in name:
                size = None if is_directory else self._files[full].size_at(now)
                url = f"{self.endpoint}{full}"
                entries.append(Entry(name=name, url=url, is_directory=is_directory, size_bytes=size))
        return entries

    def _add_directories(self, path: str) -> None:
        self._directories.update(_parents(path))


def _parents(path: str) -> list[str]:
    parts = path.strip("/").split("/")[:-1]
    return ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]
