"""A JSON Web Token in its compact form, taken apart and not yet believed. Pure, bounded, strict.

Source: RFC 7515 §3.1 and §7.1, RFC 7519, and RFC 8725 on what goes wrong. There is one way to write a
token, and every other is refused: padding, other alphabets, stray bits in the last character, member
names that occur twice (RFC 7515 §4 leaves these to the reader, and readers differ), NaN. Messages are
fixed texts: nothing of a token is ever in one.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final

from transfer_engine.identity.api import BadCredential

TOKEN_MAX: Final = 16 * 1024
"""Longest token, in characters."""
HEADER_MAX: Final = 4 * 1024
"""Longest header, in characters as they are sent."""
DEPTH_MAX: Final = 16
"""Deepest nesting of lists and objects."""

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unverified:
    """What a token says before anybody has looked at its signature: good for choosing the key, and no more."""

    header: Json = field(repr=False)
    claims: Json = field(repr=False)
    signed: bytes = field(repr=False)
    """The bytes that the signature is of."""
    signature: bytes = field(repr=False)

    @property
    def issuer(self) -> str | None:
        """The issuer that it names, if it names one by a string."""
        found = self.claims.get("iss")
        return found if isinstance(found, str) else None


def take_apart(token: str) -> Unverified:
    """The parts of a token. Raises: BadCredential: it is not exactly what RFC 7515 calls the compact form."""
    if len(token) > TOKEN_MAX:
        raise BadCredential(f"the token is longer than {TOKEN_MAX} characters")
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        raise BadCredential("the token is not a signed JWT: expected three parts")
    header, claims, signature = parts
    if len(header) > HEADER_MAX:
        raise BadCredential(f"the token's header is longer than {HEADER_MAX} characters")
    return Unverified(
        header=_object(_decoded(header)),
        claims=_object(_decoded(claims)),
        signed=f"{header}.{claims}".encode("ascii"),
        signature=_decoded(signature),
    )


def _decoded(part: str) -> bytes:
    if not _BASE64URL.fullmatch(part):
        raise BadCredential("the token is not base64url")
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise BadCredential("the token is not base64url") from None
    # Bits of the last character that belong to no byte may have any value; only zero is the one way to write it.
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part.encode("ascii"):
        raise BadCredential("the token is not base64url")
    return raw


def _object(raw: bytes) -> Json:
    try:
        return strict_object(raw)
    except ValueError:
        raise BadCredential("the token's header and claims are not strict JSON objects") from None


def strict_object(raw: bytes) -> Json:
    """The JSON object in `raw`. Raises: ValueError: anything else, a name twice, NaN, too deep, too large a number."""
    text = raw.decode("utf-8")  # UnicodeDecodeError is a ValueError
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 - it is the value that is wrong
    _check_depth(found)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(_name: str) -> float:
    raise ValueError("not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("too large a number")
    return value


def _check_depth(value: Json) -> None:
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError("too deep")
