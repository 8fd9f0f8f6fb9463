"""Secrets as the store keeps them, and the record of orders. Data only.

`sealed` is what `vault.Vault` made of the secret: nothing outside the vault can read it. Instants
(`_at`, `since`) are seconds since the epoch, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """A delegation that has been begun: the request that was given out, whose key waits for its certificate."""

    delegation_id: str
    request: str
    """PEM of the certificate request."""
    since: float
    sealed: bytes = field(repr=False)
    """PEM of the private key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegated:
    """A proxy certificate that a user has delegated."""

    delegation_id: str
    user_dn: str
    vo: str
    attributes: tuple[str, ...]
    """FQANs."""
    expires_at: float
    since: float
    sealed: bytes = field(repr=False)
    """PEM: the proxy, its private key, the chain; in the order of a proxy file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """A user's token for storages, with what was obtained for it since."""

    token_id: str
    """First 16 hex digits of the SHA-1 of the token as it was submitted; it stays when the token is refreshed."""
    cred_id: str
    """`Caller.delegation_id` of who submitted it: nobody else's transfers use it."""
    issuer: str
    audience: str
    """As in the token: one, several as a JSON list, or empty."""
    scope: str
    expires_at: float
    """Of the access token that is there now."""
    managed: bool
    """It is exchanged and refreshed when it ends too soon; False: it is used as it is."""
    since: float
    sealed: bytes = field(repr=False)
    """JSON: `access`, and `refresh` once there is one."""
    renewable: bool = False
    """`sealed` has a refresh token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who ordered what. Never a secret."""

    at: float
    user_dn: str
    vo: str
    action: str
    """What was done: `ban-se`, `set-se`, `drain`, `delegate`, `login-refused` …"""
    object: str
    """To what."""
    detail: str = ""
    """JSON of what was set, or words."""
    seq: int = 0
    """Number in the record; 0 before it is recorded."""
    digest: str = ""
    """SHA-256 of the entry and of the digest before it; empty before it is recorded."""
