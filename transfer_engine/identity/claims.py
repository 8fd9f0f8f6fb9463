"""What the claims of a token whose signature holds must be, to be believed here. Pure.

Source: WLCG Common JWT Profiles 1.x, "Common Claims"; RFC 7519 §4.1. `wlcg.ver`, `nbf` and `iat` may be
missing, as other profiles that the same communities use have none; where they are, they must be right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from transfer_engine.config_service import Issuer
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.scopes import BadScope, words

SKEW_S: Final = 60.0
"""How far clocks may be apart."""
LIFETIME_MAX_S: Final = 366 * 86400.0
"""Longest life that is believed: beyond a year it is a mistake of the issuer, not a decision."""
_DN: Final = re.compile(r"/[A-Za-z0-9.]+=")
SUBJECT_MAX: Final = 255
GROUPS_MAX: Final = 512
GROUP_MAX: Final = 255
AUDIENCES_MAX: Final = 64

_PROFILE: Final = re.compile(r"1\.[0-9]{1,3}", re.ASCII)

Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUser:
    """Who a token stands for.

    Attributes:
        issuer: with a `/` at the end, as FTS3 keeps it.
        groups: `wlcg.groups` that are well-formed, in the token's order.
        vos: by the settings; at least one.
        scopes: as they were written.
    """

    issuer: str
    subject: str
    groups: tuple[str, ...]
    vos: tuple[str, ...]
    scopes: tuple[str, ...]
    expires_at: float


def check_times(claims: Claims, now: float) -> float:
    """When the token ends. Raises: BadCredential: ended, not begun, from the future, or not numbers."""
    exp = _instant(claims, "exp")
    if exp is None:
        raise BadCredential("the token does not say when it ends")
    if exp + SKEW_S <= now:
        raise BadCredential("the token has expired")
    begin = _instant(claims, "nbf")
    if begin is not None and begin - SKEW_S > now:
        raise BadCredential("the token is not valid yet")
    issued = _instant(claims, "iat")
    if issued is not None and issued - SKEW_S > now:
        raise BadCredential("the token was issued in the future")
    since = [instant for instant in (begin, issued) if instant is not None]
    if (since and exp <= max(since)) or exp - max([*since, now - SKEW_S]) > LIFETIME_MAX_S + SKEW_S:
        raise BadCredential("the token's lifetime makes no sense")
    return exp


def _instant(claims: Claims, name: str) -> float | None:
    """A NumericDate; finite, as `strict_object` lets no other number pass."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:  # noqa: PLR2004 - 5138
        raise BadCredential(f"the token's {name} is not an instant")
    return float(value)


def check_audience(claims: Claims, audiences: tuple[str, ...]) -> None:
    """Raises: BadCredential: the token is not for this service."""
    found = claims.get("aud")
    named = [found] if isinstance(found, str) else found
    if not isinstance(named, list) or not 1 <= len(named) <= AUDIENCES_MAX:
        raise BadCredential("the token has no audience")
    if not all(isinstance(one, str) and one for one in named):
        raise BadCredential("the token's audience is not a text")
    if not set(named) & set(audiences):
        raise BadCredential(f"the token is for another audience than {', '.join(audiences)}")


def subject(claims: Claims) -> str:
    """The `sub`. Raises: BadCredential."""
    found = claims.get("sub")
    if not isinstance(found, str) or not 1 <= len(found) <= SUBJECT_MAX:
        raise BadCredential(f"the token's subject is not a text of 1 to {SUBJECT_MAX} characters")
    if not found.isprintable() or found != found.strip():
        raise BadCredential("the token's subject has characters that cannot be shown")
    if _DN.match(found):
        # Own jobs, bans and roles of certificates go by this name.
        raise BadCredential("the token's subject has the form of a certificate's")
    return found


def check_profile(claims: Claims) -> None:
    """Raises: BadCredential: another version of the profile than 1.x."""
    found = claims.get("wlcg.ver", "1.0")
    if not isinstance(found, str) or not _PROFILE.fullmatch(found):
        raise BadCredential("the token follows another version of the WLCG profile than 1.x")


def scopes(claims: Claims) -> tuple[str, ...]:
    """The scopes as written. Raises: BadCredential: not a text, or too many."""
    found = claims.get("scope", "")
    if not isinstance(found, str) or not (found.isascii() and found.isprintable()):
        raise BadCredential("the token's scope is not a printable text")
    try:
        return words(found)
    except BadScope:
        raise BadCredential("the token has too many scopes") from None


def groups(claims: Claims) -> tuple[str, ...]:
    """Groups in the token's order; what is no path of a group is passed over. Raises: BadCredential: no texts."""
    found = claims.get("wlcg.groups", [])
    if not isinstance(found, list) or len(found) > GROUPS_MAX:
        raise BadCredential("the token's groups are not a list, or too many")
    if not all(isinstance(group, str) for group in found):
        raise BadCredential("the token's groups are not texts")
    return tuple(dict.fromkeys(group for group in found if _path(group)))


def _path(group: str) -> tuple[str, ...]:
    """The components of a group's name; (): it is none."""
    if not group.startswith("/") or len(group) > GROUP_MAX or not group.isprintable():
        return ()
    parts = tuple(group[1:].removesuffix("/").split("/"))
    return () if any(part in {"", ".", ".."} for part in parts) else parts


def vos_of(found: tuple[str, ...], issuer: Issuer) -> tuple[str, ...]:
    """VOs of these groups: of each the one of the longest group above it; else the issuer's. Raises: BadCredential."""
    known = {path: vo for group, vo in issuer.groups.items() if (path := _path(group))}
    vos: dict[str, None] = {}
    for group in found:
        path = _path(group)
        above = (known.get(path[:n]) for n in range(len(path), 0, -1))
        vo = next((vo for vo in above if vo is not None), None)
        if vo is not None:
            vos[vo] = None
    if vos:
        return tuple(vos)
    if issuer.vo is not None:
        return (issuer.vo,)
    raise BadCredential("The user does not belong to any authorized vo")
