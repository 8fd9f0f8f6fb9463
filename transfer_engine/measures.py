"""What links have shown: how long transfers take, how fast they are, how many fail. Pure.

Everything is a sum over past attempts that fades with time (half of it every ten minutes), so that an
hour-old storm is forgotten and nothing grows with the number of transfers. Ratios of such sums are means
of the recent past, and stay what they were while nothing happens; counts and rates fade to "unknown".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from transfer_engine.places import Link

HALF_LIFE_S: Final = 600.0
RECENT_S: Final = 180.0
"""Half-life of what counts as goodput now."""
SLOT_S_DEFAULT: Final = 1.0
"""Seconds per transfer of a link that nothing is known of, nor of its neighbours."""
ENOUGH: Final = 0.02
"""Attempts, faded, below which nothing is known: one attempt is remembered for an hour, a hundred for two."""
SPREAD_MIN: Final = 0.1
"""Relative spread of sizes (variance by square of the mean) from which on the cost of a byte can be told from
that of a transfer."""

_FADE: Final = math.log(2) / HALF_LIFE_S
_FADE_RECENT: Final = math.log(2) / RECENT_S


class LinkMeasures:
    """Of one link, or of all links of an endpoint in one direction."""

    __slots__ = (
        "_at", "_bytes", "_bytes2", "_bytes_s", "_n", "_n_ok", "_n_recent", "_ok_s", "_recent", "_since", "_slot2",
        "_slot_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self._at = 0.0
        self._since: float | None = None
        """When the first attempt began: goodput is known from then on."""
        self._n = self._n_ok = 0.0
        self._slot_s = self._slot2 = 0.0
        self._ok_s = 0.0
        self._bytes = self._bytes2 = self._bytes_s = 0.0
        """Of attempts that finished: Σb, Σb², Σb·d."""
        self._n_recent = self._recent = 0.0

    def ended(self, now: float, slot_s: float, n_bytes: int, ok: bool) -> None:
        """An attempt has given its slot back.

        Every failure counts, also of a single file that is missing, as in FTS's success rate.
        Args: slot_s: from claim to release.  n_bytes: of the file, when it finished.
        """
        passed = now - self._at
        if self._since is None:
            self._since = now - slot_s
            self._at = now
        elif passed > 0:
            self._fade(math.exp(-_FADE * passed), math.exp(-_FADE_RECENT * passed))
            self._at = now
        self._n += 1
        self._n_recent += 1
        self._slot_s += slot_s
        self._slot2 += slot_s * slot_s
        if ok:
            self._n_ok += 1
            self._ok_s += slot_s
            self._bytes += n_bytes
            self._bytes2 += float(n_bytes) * n_bytes
            self._bytes_s += n_bytes * slot_s
            self._recent += n_bytes

    def _fade(self, by: float, by_recent: float) -> None:
        self._n *= by
        self._n_ok *= by
        self._slot_s *= by
        self._slot2 *= by
        self._ok_s *= by
        self._bytes *= by
        self._bytes2 *= by
        self._bytes_s *= by
        self._n_recent *= by_recent
        self._recent *= by_recent

    def n_samples(self, now: float) -> float:
        """How many attempts are remembered, the old ones in part."""
        return self._n * math.exp(-_FADE * max(now - self._at, 0.0))

    def known(self, now: float) -> bool:
        """There is enough to go by."""
        return self.n_samples(now) >= ENOUGH

    @property
    def slot_s(self) -> float | None:
        """Mean seconds that an attempt holds its slot; None: nothing has ended."""
        return self._slot_s / self._n if self._n else None

    @property
    def biased_slot_s(self) -> float | None:
        """Σd²/Σd: the whole duration of a transfer that is met at some instant; half of it is still to come."""
        return self._slot2 / self._slot_s if self._slot_s else None

    @property
    def file_bytes(self) -> float | None:
        """Mean length of the files that finished."""
        return self._bytes / self._n_ok if self._n_ok else None

    @property
    def bytes_per_slot_s(self) -> float | None:
        """What one slot yields per second, failed attempts included."""
        return self._bytes / self._slot_s if self._slot_s else None

    @property
    def file_bytes_s(self) -> float | None:
        """Speed of one file that finishes, from claim to release; None: nothing with bytes in it has finished."""
        return self._bytes / self._ok_s if self._ok_s and self._bytes else None

    def success(self, now: float) -> float | None:
        """Part of the attempts that finished, 0 to 1; None: unknown by now."""
        return self._n_ok / self._n if self.known(now) else None

    def goodput_bytes_s(self, now: float) -> float | None:
        """Bytes of finished files per second over the recent minutes; None: nothing has ended in these."""
        if self._since is None:
            return None
        fade = math.exp(-_FADE_RECENT * max(now - self._at, 0.0))
        if self._n_recent * fade < ENOUGH:
            return None
        # In the first minutes the sum has had no time to become full.
        covered = -math.expm1(-_FADE_RECENT * (now - self._since))
        return self._recent * fade * _FADE_RECENT / covered if covered > 0 else None

    def cost(self) -> tuple[float, float] | None:
        """(seconds per transfer, further seconds per byte): the line through what finished; None: nothing did.

        With sizes that are all alike the two cannot be told apart, and everything is put on the bytes.
        """
        n = self._n_ok
        if not n:
            return None
        if not self._bytes:
            return self._ok_s / n, 0.0
        spread = self._bytes2 / n - (self._bytes / n) ** 2
        plain = (0.0, self._ok_s / self._bytes)
        if spread < SPREAD_MIN * (self._bytes / n) ** 2:
            return plain
        per_byte = (self._bytes_s / n - (self._bytes / n) * (self._ok_s / n)) / spread
        fixed = self._ok_s / n - per_byte * self._bytes / n
        if per_byte <= 0:
            return self._ok_s / n, 0.0
        return (fixed, per_byte) if fixed > 0 else plain


class Measures:
    """Of all links, with their endpoints' as a substitute for links that are new."""

    def __init__(self) -> None:
        self._links: dict[Link, LinkMeasures] = {}
        self._out: dict[str, LinkMeasures] = {}
        self._into: dict[str, LinkMeasures] = {}

    def ended(self, now: float, link: Link, slot_s: float, n_bytes: int, *, ok: bool) -> None:
        """An attempt on `link` has given its slot back."""
        own = self._links.get(link)
        if own is None:
            own = self._links[link] = LinkMeasures()
            self._out.setdefault(link.source_se, LinkMeasures())
            self._into.setdefault(link.dest_se, LinkMeasures())
        own.ended(now, slot_s, n_bytes, ok)
        self._out[link.source_se].ended(now, slot_s, n_bytes, ok)
        self._into[link.dest_se].ended(now, slot_s, n_bytes, ok)

    def of(self, link: Link) -> LinkMeasures | None:
        """What the link itself has shown; None: nothing."""
        return self._links.get(link)

    def out_of(self, source_se: str) -> LinkMeasures | None:
        """What all links out of an endpoint have shown."""
        return self._out.get(source_se)

    def into(self, dest_se: str) -> LinkMeasures | None:
        """What all links into an endpoint have shown."""
        return self._into.get(dest_se)

    def slot_s(self, link: Link) -> float:
        """Mean seconds that a transfer of `link` holds its slot: its own, else its neighbours', else one second."""
        return self._mean(link, lambda measures: measures.slot_s)

    def biased_slot_s(self, link: Link) -> float:
        """As `slot_s`, weighted by duration: what a transfer that is met at some instant takes."""
        return self._mean(link, lambda measures: measures.biased_slot_s)

    def _mean(self, link: Link, of: Callable[[LinkMeasures], float | None]) -> float:
        own = self._links.get(link)
        if own is not None and (value := of(own)) is not None:
            return value
        ends = (self._out.get(link.source_se), self._into.get(link.dest_se))
        found = [value for end in ends if end is not None and (value := of(end)) is not None]
        return sum(found) / len(found) if found else SLOT_S_DEFAULT

    def forget(self, now: float) -> int:
        """Drop what has faded away; call it now and then, so that links of the past take no memory.

        Returns: how many links were dropped.
        """
        faded = [link for link, own in self._links.items() if not own.known(now)]
        for link in faded:
            del self._links[link]
        sources = {link.source_se for link in self._links}
        destinations = {link.dest_se for link in self._links}
        for table, used in ((self._out, sources), (self._into, destinations)):
            for name in [name for name in table if name not in used]:
                del table[name]
        return len(faded)

    def __len__(self) -> int:
        return len(self._links)
