"""What a token says of itself, not verified: good for deciding when to renew it, and for nothing else. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final

from protocols.credentials import Secret
from protocols.errors import Scope

OFFLINE: Final = "offline_access"
"""Scope of a token that its bearer wants to be renewed (OpenID Connect Core §11)."""

INSTANT_MAX: Final = 1e11
"""In the year 5138."""

_READING: Final = frozenset({"storage.read", "storage.stage", "storage.poll"})
_WRITING: Final = frozenset({"storage.read", "storage.create", "storage.modify", "storage.stage", "storage.poll"})
"""A destination is read as well: sizes and checksums are looked at before and after the copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims that are needed here."""

    issuer: str
    subject: str
    audience: tuple[str, ...]
    scope: tuple[str, ...]
    expires_at: float
    begins_at: float
    """The later of `iat` and `nbf`; 0: neither is there."""


def read(token: Secret) -> Claims | None:
    """The claims of a JWT; None: it is something else (a macaroon), or says too little."""
    parts = token.reveal().split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    issuer, expires_at = found.get("iss"), _instant(found.get("exp"))
    if not isinstance(issuer, str) or not issuer or not issuer.isprintable() or not expires_at:
        return None
    return Claims(
        issuer=issuer,
        subject=_text(found.get("sub")),
        audience=_words(found.get("aud")),
        scope=scope_of(found.get("scope")),
        expires_at=expires_at,
        begins_at=max(_instant(found.get("iat")), _instant(found.get("nbf"))),
    )


def scope_of(claim: Any) -> tuple[str, ...]:
    """The words of a `scope` claim; some issuers write a list."""
    return _words(claim.split() if isinstance(claim, str) else claim)


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() else ""


def _words(value: Any) -> tuple[str, ...]:
    """The words that can be stored and sent; JSON may have half of a character, which is neither."""
    several = value if isinstance(value, list) else [value]
    return tuple(word for word in several if isinstance(word, str) and word.isprintable())


def _instant(value: Any) -> float:
    # Compared before it is converted: a whole number may be too large for a float.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < INSTANT_MAX:
        return float(value)
    return 0.0


def for_storages(scope: tuple[str, ...]) -> tuple[str, ...]:
    """The scopes that mean something to storages; all of them when there is none such (a capability set)."""
    found = tuple(word for word in scope if word.startswith("storage."))
    return found or tuple(word for word in scope if word != OFFLINE)


def for_side(scope: tuple[str, ...], side: Scope) -> tuple[str, ...]:
    """The least of these scopes with which a storage does its part of a transfer."""
    useful = _READING if side is Scope.SOURCE else _WRITING
    found = tuple(word for word in scope if word.partition(":")[0] in useful)
    return found or scope
