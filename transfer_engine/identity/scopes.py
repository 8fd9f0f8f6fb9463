"""What a token allows: scopes with paths, and which of them covers which.

Source: WLCG Common JWT Profiles 1.x, "Scope-based Attributes": a capability may carry a path after a
colon; it holds for that path and for everything below it, by whole components. `storage.*` without a
path means nothing. Words and paths that could be read in two ways are no scopes at all: what is
understood differently here and at a storage would be a hole in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

SCOPES_MAX: Final = 512
"""Most scopes of one token."""
SCOPE_MAX: Final = 2048
"""Longest scope, in characters."""

WITH_PATH: Final = frozenset(
    {"storage.read", "storage.create", "storage.modify", "storage.stage", "storage.poll"},
)
"""Capabilities that hold for a path, and without one for nothing."""

INCLUDES: Final[Mapping[str, frozenset[str]]] = {
    "storage.modify": frozenset({"storage.create"}),
    "storage.stage": frozenset({"storage.read"}),
}
"""Capability → what it contains besides itself. A `modify` reads nothing, and a `read` stages nothing."""

_WORD: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749 §3.3: scope-token."""
_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TWO_FACED: Final = re.compile(r"%(?:2[eEfF5]|5[cC]|[01][0-9A-Fa-f]|7[fF])")
"""Escapes of `.`, `/`, `%`, `\\` and of control characters: a second decoding would change the path."""


class BadScope(ValueError):
    """It is not a scope, or could be read in two ways."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One scope of a token.

    Attributes:
        name: of the capability, or a whole word such as `fts` or `wlcg.groups:/dteam`.
        path: components of its path; (): everything; None: it has none.
    """

    name: str
    path: tuple[str, ...] | None = None

    def covers(self, wanted: Scope) -> bool:
        """Does whoever has this scope also have the wanted one?"""
        if self.name != wanted.name and wanted.name not in INCLUDES.get(self.name, ()):
            return False
        if self.path is None or wanted.path is None:
            return self.path == wanted.path
        return wanted.path[: len(self.path)] == self.path


def components(path: str) -> tuple[str, ...]:
    """The components of an absolute path, unescaped; a `/` at its end makes no difference.

    Raises: BadScope: relative, empty components, dot segments, or escapes that could be read in two ways.
    """
    if not path.startswith("/"):
        raise BadScope("a path starts with a slash")
    if _ESCAPE.search(path) or _TWO_FACED.search(path):
        raise BadScope("a path has no broken or ambiguous escapes")
    inner = path[1:].removesuffix("/")
    if not inner:
        if path not in {"/", ""}:
            raise BadScope("a path has no empty components")
        return ()
    parts = tuple(_component(part) for part in inner.split("/"))
    if any(part in {"", ".", ".."} for part in parts):
        raise BadScope("a path has no empty components and no dot segments")
    return parts


def _component(raw: str) -> str:
    if "%" not in raw and raw.isascii() and raw.isprintable() and "\\" not in raw:
        return raw
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise BadScope("a path is UTF-8") from None
    if "\\" in text or not text.isprintable():
        raise BadScope("a path has no backslashes and no control characters")
    return text


def parse(word: str) -> Scope:
    """One scope. Raises: BadScope."""
    if len(word) > SCOPE_MAX or not _WORD.fullmatch(word):
        raise BadScope("a scope is printable ASCII without blanks, quotes and backslashes")
    name, colon, path = word.partition(":")
    if name not in WITH_PATH:
        if word.startswith("storage."):
            raise BadScope("no such capability of a storage")
        return Scope(word)
    if not colon:
        raise BadScope("this capability needs a path")
    return Scope(name, components(path))


def words(claim: str) -> tuple[str, ...]:
    """The scopes of a claim or a form as they were written, in order. Raises: BadScope: too many."""
    found = tuple(word for word in claim.split(" ") if word)
    if len(found) > SCOPES_MAX:
        raise BadScope(f"expected at most {SCOPES_MAX} scopes")
    return found


def granted(written: Iterable[str]) -> tuple[Scope, ...]:
    """What these scopes allow; those that are none allow nothing."""
    found = []
    for word in written:
        try:
            found.append(parse(word))
        except BadScope:
            continue
    return tuple(found)


def allows(held: Iterable[Scope], wanted: str) -> bool:
    """Do these scopes cover a wanted one? One that is none is covered by nothing."""
    try:
        scope = parse(wanted)
    except BadScope:
        return False
    return any(one.covers(scope) for one in held)
