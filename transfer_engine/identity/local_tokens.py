"""Tokens that this service gives out itself: for a small site, a script, a first try.

A token is `te_`, 256 random bits in base64url, and six characters that are computed from them: secret
scanners know it when they see it, and a mistyped one is told from a wrong one. The settings hold its
SHA-256 only, which is no weaker than the token, as that cannot be guessed.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocols.credentials import Secret
from transfer_engine.config_service import LocalToken
from transfer_engine.errors import Invalid
from transfer_engine.identity.api import BadCredential

PREFIX: Final = "te_"
RANDOM_BYTES: Final = 32
_FORM: Final = re.compile(r"te_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{6})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalUser:
    """Who a local token stands for."""

    setting: LocalToken
    expires_at: float | None


def make(chance: bytes) -> Secret:
    """The token of 32 random bytes."""
    assert len(chance) == RANDOM_BYTES
    body = _text(chance)
    return Secret(f"{PREFIX}{body}{_check(body)}")


def digest(token: Secret) -> str:
    """What the settings keep of a token."""
    return hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).hexdigest()


def is_local(token: str) -> bool:
    """Does it look like one of these?"""
    return token.startswith(PREFIX)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _check(body: str) -> str:
    return _text(binascii.crc32(f"{PREFIX}{body}".encode("ascii")).to_bytes(4, "big"))


def end_of(day: str) -> float:
    """When a last day (`YYYY-MM-DD`, UTC) is over. Raises: Invalid."""
    try:
        last = dt.datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=dt.UTC)
        midnight = last + dt.timedelta(days=1)
    except (ValueError, OverflowError):
        raise Invalid("expected a day, YYYY-MM-DD", field="auth.tokens.expires") from None
    return midnight.timestamp()


class LocalTokens:
    """Believes the tokens in the settings."""

    def __init__(self, tokens: Sequence[LocalToken]) -> None:
        """Raises: Invalid: one's last day is none."""
        self._known = [
            LocalUser(setting=token, expires_at=None if token.expires is None else end_of(token.expires))
            for token in tokens
        ]

    def user(self, token: Secret, now: float) -> LocalUser:
        """Who a token stands for. Raises: BadCredential."""
        form = _FORM.fullmatch(token.reveal())
        if form is None or _check(form[1]) != form[2]:
            raise BadCredential("the token is mistyped or cut off")
        shown = digest(token)
        # All of them are looked at: the time it takes tells nothing.
        found = [known for known in self._known if hmac.compare_digest(known.setting.sha256, shown)]
        if not found:
            raise BadCredential("the token is not known here")
        for user in found:
            if user.expires_at is None or now < user.expires_at:
                return user
        raise BadCredential("the token has expired")
