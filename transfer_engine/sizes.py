"""Classes of file sizes: files of very different length do not wait in one line. Pure.

A queue holds files of one class. So a file that takes an hour can begin while thousands of small ones
wait, instead of being the last to end; small ones do not wait behind large ones; and what a queue's
transfers take can be said from those before them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

BORDERS: Final = (10**7, 10**8, 10**9, 10**10, 10**11)
"""Bytes from which on the next class begins."""
UNKNOWN: Final = 0


def size_class(size_bytes: int | None) -> int:
    """1 for less than 10 MB, one more for each power of ten, 6 from 100 GB on; 0: nobody has said how long."""
    return UNKNOWN if size_bytes is None else 1 + bisect_right(BORDERS, size_bytes)


def typical_bytes(of_size: int) -> float:
    """The middle of a known class, by powers of ten."""
    return float(10.0 ** (of_size + 5.5))
