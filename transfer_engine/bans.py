"""Which storages are banned, for whom, and what follows from it. Pure.

A storage is `scheme://host`. The four HTTP spellings of a host (`https`, `davs`, `http`, `dav`) are
one storage here, with or without a dot behind the host: whoever bans one means the machine behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

from transfer_engine import urls
from transfer_engine.errors import Invalid
from transfer_engine.places import Ban, Cap, Place
from transfer_engine.reasons import Reason, Why

HTTP_FAMILY: Final = ("https", "davs", "http", "dav")
"""Schemes by which one and the same server is spoken of."""


def parse_endpoint(text: str, name: str) -> str:
    """`scheme://host` in lower case, of what an operator typed. Raises: Invalid: its field is `name`."""
    plain = text.strip().rstrip("/")
    try:
        # A path makes it a whole URL, for the one parser that knows what a host is.
        parts = urls.parse(plain + "/-", name)
    except Invalid as error:
        raise Invalid(f"expected scheme://host, got {text[:200]!r}", field=name) from error
    if parts.port is not None:
        raise Invalid(f"a storage is known without its port: {parts.endpoint}", field=name)
    if parts.path != "/-":
        raise Invalid(f"a storage is known without a path: {parts.endpoint}", field=name)
    return parts.endpoint


def storage_key(endpoint: str) -> tuple[str, str]:
    """Equal for all spellings of one storage."""
    scheme, _, host = endpoint.lower().partition("://")
    if scheme in HTTP_FAMILY:
        return "http", host.rstrip(".")
    return scheme, host


def spellings(endpoint: str) -> tuple[str, ...]:
    """Every endpoint that means the same storage; the usual ones first."""
    scheme, host = storage_key(endpoint)
    if scheme != "http":
        return (f"{scheme}://{host}",)
    plain = tuple(f"{name}://{host}" for name in HTTP_FAMILY)
    # An address in brackets has no dot behind it.
    return plain if host.endswith("]") else (*plain, *(f"{one}." for one in plain))


def is_active(ban: Ban, now: float) -> bool:
    """Has it not run out?"""
    return ban.until is None or ban.until > now


def sentence(ban: Ban, endpoint: str | None = None) -> str:
    """What the ban is, in one sentence that begins as FTS's does: `<storage> is banned`.

    Args: endpoint: the spelling that is spoken of; None: the ban's own.
    """
    parts = [f"{endpoint or ban.endpoint} is banned"]
    if ban.vo is not None:
        parts.append(f"for VO {ban.vo}")
    parts += [f"by {ban.by}", f"since {instant(ban.since)}"]
    if ban.until is not None:
        parts.append(f"until {instant(ban.until)}")
    return " ".join(parts) + (f": {ban.message}" if ban.message else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserBan:
    """An operator's order to take nothing more from a user."""

    user_dn: str
    message: str
    by: str
    since: float

    def sentence(self) -> str:
        """One sentence that begins as FTS's does."""
        text = f"The user has been banned by {self.by} since {instant(self.since)}"
        return f"{text}: {self.message}" if self.message else text


def instant(at: float) -> str:
    """An instant for people, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class BanTable:
    """All bans, by storage."""

    bans: tuple[Ban, ...] = ()
    _by_storage: Mapping[tuple[str, str], tuple[Ban, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, bans: Iterable[Ban]) -> Self:
        """Of two bans of the same storage and VO the one that lasts longer counts."""
        found: dict[tuple[str, str], tuple[Ban, ...]] = {}
        lasting = sorted(bans, key=_lasts)
        for ban in reversed(lasting):
            key = storage_key(ban.endpoint)
            found[key] = (*found.get(key, ()), ban)
        return cls(tuple(sorted(lasting, key=lambda ban: (ban.endpoint, ban.vo or ""))), found)

    def active(self, now: float) -> list[Ban]:
        """Those that have not run out, by endpoint and VO."""
        return [ban for ban in self.bans if is_active(ban, now)]

    def caps(self, now: float) -> dict[Place, Cap]:
        """Place → nothing may run there, and why."""
        found: dict[Place, Cap] = {}
        for ban in sorted(self.active(now), key=_lasts):
            reason = Reason(code=Why.BAN, text=sentence(ban), subject=ban.endpoint, until=ban.until)
            for endpoint in spellings(ban.endpoint):
                for place in _places(endpoint, ban.vo):
                    found[place] = Cap(0, reason)
        return found

    def next_change_at(self, now: float) -> float | None:
        """When the next ban runs out; None: none does by itself."""
        return min((ban.until for ban in self.active(now) if ban.until is not None), default=None)

    def refuses(self, source_se: str, dest_se: str, vo: str, now: float) -> Ban | None:
        """The ban that forbids to submit this: one that cancels, or that lets nothing new wait for its end."""
        for endpoint in (dest_se, source_se):
            for ban in self.of_storage(endpoint):
                if ban.vo in {None, vo} and is_active(ban, now) and (ban.cancel or not ban.allow_submit):
                    return ban
        return None

    def keeps(self, source_se: str, dest_se: str, vo: str, now: float) -> bool:
        """Does what is queued from here to there wait for the end of a ban?"""
        return any(
            ban.vo in {None, vo} and not ban.cancel and is_active(ban, now)
            for endpoint in (dest_se, source_se)
            for ban in self.of_storage(endpoint)
        )

    def of_storage(self, endpoint: str) -> tuple[Ban, ...]:
        """The bans of a storage, however it is spelt."""
        return self._by_storage.get(storage_key(endpoint), ()) if self.bans else ()


def _lasts(ban: Ban) -> tuple[float, str, str]:
    return (float("inf") if ban.until is None else ban.until, ban.endpoint, ban.vo or "")


def _places(endpoint: str, vo: str | None) -> tuple[Place, Place]:
    if vo is None:
        return Place("in", endpoint), Place("out", endpoint)
    return Place("vo-in", endpoint, vo), Place("vo-out", endpoint, vo)
