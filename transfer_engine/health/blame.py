"""What a failure says about places: who is to blame for it, who has shown to be alive, who asks for a pause. Pure.

failure                                             → blamed
cannot be reached, no answer; before or after copy  → the endpoint in both directions, and the link
the copy failed, stalled, was lost                  → the link; the endpoint when several of its links fail
no space                                            → into the destination
denied                                              → the VO at that endpoint
`Retry-After`                                       → nobody; the endpoint, in that direction, pauses
of a single file (missing, exists, checksum, …)     → nobody; its endpoint has answered
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from protocols.errors import (
    AlreadyExists,
    BadServer,
    ChecksumUnavailable,
    CopyFailed,
    Denied,
    Missing,
    NoSpace,
    OutcomeUnknown,
    Overloaded,
    ParentMissing,
    Phase,
    Refused,
    Scope,
    SourceCorrupt,
    Stalled,
    TimedOut,
    Unavailable,
)
from transfer_engine.model import Failure
from transfer_engine.places import Link, Place


class Trouble(StrEnum):
    """What can be wrong with a place."""

    UNREACHABLE = "unreachable"
    FAILING = "failing"
    FULL = "full"
    DENIED = "denied"


class Rule(StrEnum):
    """Whether failures of one link are enough to blame a place."""

    ALONE = "alone"
    """Yes."""
    QUIET = "quiet"
    """Only if no other link of the endpoint has worked of late."""
    SEVERAL = "several"
    """No: several links of the endpoint have to fail."""


@dataclass(frozen=True, slots=True)
class Blame:
    """One failure, put down to one place."""

    place: Place
    trouble: Trouble
    rule: Rule
    partner: str
    """The other end of the link that failed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one failure says."""

    blames: tuple[Blame, ...] = ()
    alive: tuple[str, ...] = ()
    """Endpoints that answered."""
    pauses: tuple[Place, ...] = ()


_SILENT: Final = frozenset({Unavailable.code, TimedOut.code})
_COPY: Final = frozenset(
    {
        Unavailable.code,
        Overloaded.code,
        TimedOut.code,
        Stalled.code,
        CopyFailed.code,
        OutcomeUnknown.code,
        BadServer.code,
    }
)
_BUSY: Final = frozenset({errno.EBUSY, errno.EAGAIN})
"""An answer after all: a file that is being written, a service that shuts down."""
_ONE_FILE: Final = frozenset(
    {
        Missing.code,
        ParentMissing.code,
        AlreadyExists.code,
        Refused.code,
        SourceCorrupt.code,
        ChecksumUnavailable.code,
        Denied.code,
    }
)
"""Answers about one file, or one credential: whoever gives them is alive."""


def places_of(link: Link, vo: str) -> tuple[Place, ...]:
    """The places of an attempt that can be in trouble."""
    return (
        Place("out", link.source_se),
        Place("in", link.dest_se),
        Place("link", link.source_se, link.dest_se),
        Place("vo-out", link.source_se, vo),
        Place("vo-in", link.dest_se, vo),
    )


def judge(link: Link, vo: str, failure: Failure) -> Verdict:
    """Whom a failure speaks against, and for."""
    code, scope = failure.code, failure.scope
    if scope is Scope.AGENT:
        return Verdict()
    if code in {Overloaded.code, Unavailable.code} and failure.retry_after_s is not None:
        return Verdict(pauses=_directions(link, scope))
    if code == NoSpace.code:
        return Verdict((Blame(Place("in", link.dest_se), Trouble.FULL, Rule.ALONE, link.source_se),))
    blames: tuple[Blame, ...] = ()
    if code == Denied.code:
        blames = _denied(link, vo, scope)
    elif code in _SILENT and _asked_directly(failure):
        blames = _unreachable(link, scope)
    elif code in _COPY:
        blames = _failing(link, scope)
    return Verdict(blames, alive=_answered(link, failure))


def _asked_directly(failure: Failure) -> bool:
    """Whether the engine itself asked, rather than the other storage."""
    return (
        failure.scope in {Scope.SOURCE, Scope.DESTINATION}
        and failure.phase is not Phase.TRANSFER
        and failure.errno not in _BUSY
    )


def _answered(link: Link, failure: Failure) -> tuple[str, ...]:
    if failure.code not in _ONE_FILE or failure.phase is not Phase.PREPARATION:
        return ()
    match failure.scope:
        case Scope.SOURCE:
            return (link.source_se,)
        case Scope.DESTINATION:
            return (link.dest_se,)
        case _:
            return ()


def _directions(link: Link, scope: Scope) -> tuple[Place, ...]:
    """The directions of endpoints that a scope means; both ends where the party is not known."""
    out, into = Place("out", link.source_se), Place("in", link.dest_se)
    match scope:
        case Scope.SOURCE:
            return (out,)
        case Scope.DESTINATION:
            return (into,)
        case _:
            return (out, into)


def _partner(place: Place, link: Link) -> str:
    return link.dest_se if place.name == link.source_se else link.source_se


def _unreachable(link: Link, scope: Scope) -> tuple[Blame, ...]:
    """A storage that does not answer is dead in both directions."""
    dead, other = (link.source_se, link.dest_se) if scope is Scope.SOURCE else (link.dest_se, link.source_se)
    return (
        Blame(Place("out", dead), Trouble.UNREACHABLE, Rule.QUIET, other),
        Blame(Place("in", dead), Trouble.UNREACHABLE, Rule.QUIET, other),
        Blame(Place("link", link.source_se, link.dest_se), Trouble.UNREACHABLE, Rule.ALONE, ""),
    )


def _failing(link: Link, scope: Scope) -> tuple[Blame, ...]:
    """A copy needs both storages and the way between them; what one says of the other is hearsay."""
    ends = tuple(
        Blame(place, Trouble.FAILING, Rule.SEVERAL, _partner(place, link)) for place in _directions(link, scope)
    )
    return (*ends, Blame(Place("link", link.source_se, link.dest_se), Trouble.FAILING, Rule.ALONE, ""))


def _denied(link: Link, vo: str, scope: Scope) -> tuple[Blame, ...]:
    """A credential belongs to a VO: the others at that endpoint have theirs."""
    return tuple(
        Blame(Place(f"vo-{place.kind}", place.name, vo), Trouble.DENIED, Rule.ALONE, _partner(place, link))
        for place in _directions(link, scope)
    )
