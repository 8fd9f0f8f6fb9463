"""The files and directories of one model storage, and who is writing them.

Writers behave as on a POSIX file system: a file is visible from the moment it is opened; a file
that is deleted while it is written vanishes when its writer ends; of two writers of one path the
last to finish wins. Two writers at once is what an engine must never cause: it is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transfer_engine.demo.content import ArrivedContent, Budget, Content
from transfer_engine.demo.journal import Event, Journal


@dataclass(slots=True, kw_only=True)
class Stored:
    """One file."""

    content: Content
    complete: bool


@dataclass(slots=True, kw_only=True, eq=False)
class Writer:
    """One request that writes one path."""

    path: str
    method: str
    name: str
    content: ArrivedContent
    replaces: bool
    """There was a file before."""
    unlinked: bool = False
    """The path was deleted since."""
    stored: Stored = field(init=False)

    def __post_init__(self) -> None:
        self.stored = Stored(content=self.content, complete=False)


def clean_path(path: str) -> str:
    """`path` with single slashes and none at the end; `/` is the root.

    Raises: ValueError: for a path with `.` or `..` in it.
    """
    parts = [part for part in path.split("/") if part]
    if any(part in {".", ".."} for part in parts):
        msg = "dots in the path"
        raise ValueError(msg)
    return "/" + "/".join(parts)


def parent_of(path: str) -> str:
    """The directory that holds `path`."""
    return path.rpartition("/")[0] or "/"


class Namespace:
    """Paths → files, and directories; every change goes into the journal."""

    def __init__(self, *, journal: Journal, budget: Budget) -> None:
        self._journal = journal
        self._budget = budget
        self._files: dict[str, Stored] = {}
        self._directories: set[str] = {"/"}
        self._writers: dict[str, list[Writer]] = {}

    def file(self, path: str) -> Stored | None:
        """The file at `path`, complete or not."""
        return self._files.get(path)

    def is_directory(self, path: str) -> bool:
        """Whether a directory is there."""
        return path in self._directories

    def files(self) -> dict[str, tuple[int, str]]:
        """{path: (size, adler32)} of all files, partial ones included, by path."""
        return {
            path: (stored.content.size_bytes, stored.content.checksum("adler32").value)
            for path, stored in sorted(self._files.items())
        }

    def partial(self) -> list[str]:
        """Paths of files that are not complete."""
        return sorted(path for path, stored in self._files.items() if not stored.complete)

    def children(self, path: str) -> list[str]:
        """Paths of what is directly in a directory, sorted."""
        return sorted(p for p in (*self._files, *self._directories) if p != "/" and parent_of(p) == path)

    def put(self, path: str, content: Content) -> None:
        """Place a complete file from outside the protocol, with its directories."""
        self.make_directories(parent_of(path))
        self._files[path] = Stored(content=content, complete=True)

    def make_directories(self, path: str) -> bool:
        """Make a directory and those above it; False when a file is in the way."""
        wanted = []
        while path not in self._directories:
            if path in self._files:
                return False
            wanted.append(path)
            path = parent_of(path)
        self._directories.update(wanted)
        return True

    def remove_directory(self, path: str) -> bool:
        """Remove an empty directory; False when it is not empty or is the root."""
        if path == "/" or self.children(path):
            return False
        self._directories.discard(path)
        return True

    def open(self, path: str, *, method: str, name: str) -> Writer:
        """Begin to write `path`; whatever was there is gone at once."""
        writing = self._writers.setdefault(path, [])
        if writing:
            others = ", ".join(other.name for other in writing)
            self._journal.add(
                Event.VIOLATION, method=method, path=path, writer=name, note=f"concurrent writers: {others} and {name}"
            )
        old = self._files.get(path)
        if old is not None and old.complete:
            old.content.close()
        writer = Writer(
            path=path,
            method=method,
            name=name,
            content=ArrivedContent(budget=self._budget),
            replaces=old is not None,
        )
        writing.append(writer)
        self._files[path] = writer.stored
        return writer

    def commit(self, writer: Writer) -> None:
        """The writer has written everything it wanted to."""
        self._leave(writer)
        if writer.unlinked:
            self._record(writer, Event.DISCARDED, note="deleted while it was written")
            writer.content.close()
            return
        old = self._files.get(writer.path)
        if old is not None and old.complete:
            old.content.close()
        writer.stored.complete = True
        self._files[writer.path] = writer.stored
        self._record(writer, Event.OVERWRITTEN if writer.replaces else Event.CREATED)

    def abandon(self, writer: Writer, *, keep: bool, note: str) -> None:
        """The writer ends early; what arrived stays or goes."""
        self._leave(writer)
        stays = keep and not writer.unlinked and self._files.get(writer.path) is writer.stored
        self._record(writer, Event.PARTIAL if stays else Event.DISCARDED, note=note)
        if not stays:
            if self._files.get(writer.path) is writer.stored:
                del self._files[writer.path]
            writer.content.close()

    def delete(self, path: str, *, name: str) -> bool:
        """Remove a file; False when there is none."""
        stored = self._files.pop(path, None)
        if stored is None:
            return False
        writing = self._writers.get(path, [])
        for writer in writing:
            writer.unlinked = True
        self._journal.add(
            Event.DELETED,
            method="DELETE",
            path=path,
            writer=name,
            size_bytes=stored.content.size_bytes,
            adler32=stored.content.checksum("adler32").value,
            note=f"while {writing[0].name} was writing" if writing else "",
        )
        if all(writer.stored is not stored for writer in writing):
            stored.content.close()
        return True

    def close(self) -> None:
        """Give back what all files occupy."""
        for stored in self._files.values():
            stored.content.close()

    def _leave(self, writer: Writer) -> None:
        writing = self._writers[writer.path]
        writing.remove(writer)
        if not writing:
            del self._writers[writer.path]

    def _record(self, writer: Writer, event: Event, note: str = "") -> None:
        self._journal.add(
            event,
            method=writer.method,
            path=writer.path,
            writer=writer.name,
            size_bytes=writer.content.size_bytes,
            adler32=writer.content.checksum("adler32").value,
            note=note,
        )
