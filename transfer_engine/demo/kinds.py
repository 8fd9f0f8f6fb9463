"""How the families of storages differ, as one record each.

Sources: measured on XRootD 6.2 and read in the sources of dCache and StoRM WebDAV; RFC 4918 where
nothing else is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The family that a model storage imitates."""

    XROOTD = "xrootd"
    STORM = "storm"
    DCACHE = "dcache"


class WhenGone(StrEnum):
    """What a copy does when its client has closed the connection."""

    STOP = "stop"
    """It ends when the next marker cannot be written."""
    GO_ON = "go on"
    """Nobody looks at the client; the copy runs to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One family's choices where the protocol leaves some."""

    when_gone: WhenGone
    keeps_partial: bool
    """After a failure the bytes that arrived stay visible."""
    creates_parents: bool
    asks_source_first: bool
    """HEAD on the passive party before COPY is answered; its status is passed on."""
    marks_at_once: bool
    """The first marker comes with the status; otherwise after the first period."""
    accepted: int
    """Status of a COPY whose outcome follows in the body."""
    exists: int
    """Status of COPY with `Overwrite: F` onto a file."""
    no_parent: int
    """Status of COPY below a missing directory."""
    deleted: int
    replaced: int
    """Status of PUT onto a file."""
    directory_exists: int
    """Status of MKCOL onto a directory."""
    margin: str
    """What marker lines begin with."""
    ends_line: bool
    """The final line ends in a line feed."""
    algorithms: tuple[str, ...]
    """Digests on offer; the first is sent when an unknown one is asked for."""
    digest_unasked: bool
    trims_zeros: bool
    """adler32 without its leading zeros."""
    encodes_href: bool


BEHAVIOURS: Final[Mapping[Kind, Behaviour]] = {
    Kind.XROOTD: Behaviour(
        when_gone=WhenGone.STOP,
        keeps_partial=True,
        creates_parents=True,
        asks_source_first=True,
        marks_at_once=True,
        accepted=201,
        exists=412,
        no_parent=400,
        deleted=200,
        replaced=201,
        directory_exists=201,
        margin="",
        ends_line=False,
        algorithms=("adler32", "md5", "crc32c"),
        digest_unasked=False,
        trims_zeros=False,
        encodes_href=False,
    ),
    Kind.STORM: Behaviour(
        when_gone=WhenGone.GO_ON,
        keeps_partial=True,
        creates_parents=False,
        asks_source_first=False,
        marks_at_once=True,
        accepted=202,
        exists=412,
        no_parent=409,
        deleted=204,
        replaced=204,
        directory_exists=405,
        margin="",
        ends_line=False,
        algorithms=("adler32",),
        digest_unasked=True,
        trims_zeros=False,
        encodes_href=True,
    ),
    Kind.DCACHE: Behaviour(
        when_gone=WhenGone.STOP,
        keeps_partial=False,
        creates_parents=False,
        asks_source_first=False,
        marks_at_once=False,
        accepted=202,
        exists=500,
        no_parent=400,
        deleted=204,
        replaced=201,
        directory_exists=405,
        margin="    ",
        ends_line=True,
        algorithms=("adler32", "md5"),
        digest_unasked=False,
        trims_zeros=True,
        encodes_href=True,
    ),
}
