"""Large files begin a few at a time until the first of them have shown how they go. Pure.

What is learned of a storage with small files says little of large ones, and a copy that takes an hour holds its
slot for an hour. So of each class of large files only so many may begin at a destination as have shown
themselves already: their number can double with each turn of markers, within seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

FIRST: Final = 2
"""So many begin when nothing is known."""
SILENT_S: Final = 10.0
"""Who has not reported for so long is taken to have shown itself: not all storages send markers."""
MEMORY_S: Final = 600.0
"""How long the number that ran well is remembered."""
LARGE: Final = 4
"""Class of sizes (`sizes`) from which on files are large: 1 GB."""


@dataclass(slots=True)
class Pace:
    """One class of sizes at one destination."""

    n_running: int = 0
    proven: int = 0
    """Most that ran at a time when one of them showed itself, of late."""
    proven_at: float = 0.0
    waiting: deque[tuple[float, int]] = field(default_factory=deque)
    """(instant, transfer) of those that have not shown themselves, oldest first; some have by now."""
    hidden: dict[int, float] = field(default_factory=dict)
    """Transfers that have not, and when they were claimed."""

    def started(self, file_id: int, now: float) -> None:
        """A copy was claimed."""
        self.n_running += 1
        self.waiting.append((now, file_id))
        self.hidden[file_id] = now

    def shown(self, file_id: int, now: float) -> bool:
        """Its first bytes have moved; True: it had not shown itself before."""
        if self.hidden.pop(file_id, None) is None:
            return False
        if self.n_running >= self.proven or now - self.proven_at > MEMORY_S:
            self.proven, self.proven_at = self.n_running, now
        return True

    def ended(self, file_id: int, now: float) -> None:
        """It holds nothing any more."""
        self.shown(file_id, now)
        self.n_running -= 1

    def look(self, now: float) -> bool:
        """Take those that have been silent for long as shown; True: there were some."""
        found = False
        while self.waiting:
            at, file_id = self.waiting[0]
            # It may have begun again since.
            if self.hidden.get(file_id) == at:
                if now < at + SILENT_S:
                    break
                found = self.shown(file_id, now) or found
            self.waiting.popleft()
        return found

    def limit(self, now: float) -> int:
        """How many may run."""
        known = self.proven if now - self.proven_at <= MEMORY_S else 0
        return max(FIRST, 2 * max(known, self.n_running - len(self.hidden)))
