"""From what is known of somebody to VOs and roles. Pure; the settings alone decide."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from transfer_engine.callers import CERTIFICATE, TOKEN, Grant, Role
from transfer_engine.config_service import AuthSettings, RoleSetting
from transfer_engine.identity.jwks import same_issuer

ExtraGrants = Callable[[str, str], tuple[Grant, ...]]
"""(user_dn, method) → roles that were given while the service runs."""

OF_A_VO: Final = frozenset({Role.VO_MONITOR, Role.VO_OPERATOR})
"""Roles that hold in VOs, never everywhere."""


def no_extra_grants(_user_dn: str, _method: str) -> tuple[Grant, ...]:
    """Nobody is given anything but by the settings."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a credential proves of somebody.

    Attributes:
        user_dn: subject of a certificate or of a token.
        issuer: of the token; "" for certificates.
        groups: of the token, or the FQANs of a proxy.
    """

    method: str
    user_dn: str
    issuer: str = ""
    groups: tuple[str, ...] = ()
    vos: tuple[str, ...] = ()


def short_id(*parts: str) -> str:
    """FTS3's id of a credential: 16 hex digits of the SHA-1 of the parts, one after the other."""
    found = hashlib.sha1(usedforsecurity=False)
    for part in parts:
        found.update(part.encode("utf-8", "surrogatepass"))
    return found.hexdigest()[:16]


def vo_of_fqan(fqan: str) -> str:
    """FTS3's VO of a VOMS attribute: its groups up to the role, `/escape/prod/Role=x` → `escape/prod`."""
    parts = []
    for part in fqan.split("/")[1:]:
        if part.lower().startswith(("role=", "capability=")):
            break
        parts.append(part)
    return "/".join(parts)


def vos_of_certificate(auth: AuthSettings, user_dn: str, fqans: Iterable[str], delegation_id: str) -> tuple[str, ...]:
    """VOs by the attributes, in their order; else by the gridmap; else one of the user's own, as FTS3 has it."""
    found = tuple(dict.fromkeys(vo for fqan in fqans if (vo := vo_of_fqan(fqan))))
    if found:
        return found
    mapped = auth.gridmap.get(user_dn)
    return (delegation_id if mapped is None else mapped,)


class Roles:
    """Who is more than a user."""

    def __init__(self, auth: AuthSettings, *, extra_grants: ExtraGrants = no_extra_grants) -> None:
        self._auth = auth
        self._extra_grants = extra_grants
        self._one_issuer = sum(not issuer.storage_only for issuer in auth.issuers) == 1

    def grants(self, facts: Facts) -> tuple[Grant, ...]:
        """Roles beyond that of a user, each once."""
        found: dict[Grant, None] = {}
        for setting in self._auth.roles:
            if self._is_meant(setting, facts):
                found.update(dict.fromkeys(_grants_of(setting, facts.vos)))
        if self._is_unique(facts):
            found.update(dict.fromkeys(self._extra_grants(facts.user_dn, facts.method)))
        return tuple(found)

    def shared(self, vos: tuple[str, ...]) -> frozenset[str]:
        """Those of these VOs whose users see each other's jobs."""
        everywhere = "*" in self._auth.shared_vos
        return frozenset(vo for vo in vos if everywhere or vo in self._auth.shared_vos)

    def _is_meant(self, setting: RoleSetting, facts: Facts) -> bool:
        """Does all that the setting names apply?"""
        if setting.dn is not None and not (facts.method == CERTIFICATE and facts.user_dn == setting.dn):
            return False
        if setting.issuer is not None and not (facts.method == TOKEN and same_issuer(facts.issuer, setting.issuer)):
            return False
        if setting.subject is not None and not (facts.method == TOKEN and facts.user_dn == setting.subject):
            return False
        if setting.group is not None:
            # Any issuer can write any group into its tokens: which one is meant must be certain.
            certain = facts.method == CERTIFICATE or setting.issuer is not None or self._one_issuer
            if not certain or _plain(setting.group) not in {_plain(group) for group in facts.groups}:
                return False
        return bool(setting.dn or setting.subject or setting.group)

    def _is_unique(self, facts: Facts) -> bool:
        """Is `user_dn` one person's name? A token's subject is, with one issuer, and never looks like a DN."""
        if facts.method == TOKEN:
            return self._one_issuer and not facts.user_dn.startswith("/")
        return True


def _plain(group: str) -> str:
    return group.removesuffix("/")


def _grants_of(setting: RoleSetting, vos: tuple[str, ...]) -> tuple[Grant, ...]:
    role = Role(setting.role)
    if role not in OF_A_VO:
        return (Grant(role),)
    return tuple(Grant(role, vo) for vo in ((setting.vo,) if setting.vo is not None else vos))
