"""Who asks, and what they may do. Data and pure decisions; nothing here knows HTTP.

A caller has roles, each everywhere or inside one VO, from the configuration alone: no token and no
certificate says by itself that its bearer may do more than move the bearer's own files. What a route
asks for is one table (`LEAST`); which jobs a caller sees and may change is one value (`Sight`), which
the store layer applies to every question and every order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What somebody is here, from least to most."""

    ANONYMOUS = "anonymous"
    """Nobody known: may ask what the service is."""
    USER = "user"
    """Submits, sees and cancels own jobs."""
    VO_MONITOR = "vo-monitor"
    """Also sees all jobs of a VO."""
    VO_OPERATOR = "vo-operator"
    """Also changes all jobs of a VO, and bans and limits storages for it."""
    OPERATOR = "operator"
    """Sees and changes all jobs; bans, drains, configures."""
    ADMIN = "admin"
    """Everything, also who may do what."""


class Need(StrEnum):
    """What a route asks of its caller. Which jobs it then reaches is the caller's `Sight`."""

    NOTHING = "nothing"
    """Anybody, also without authentication."""
    USER = "user"
    """Any authenticated caller: own jobs, own credentials, and what has no owner."""
    VO_READ = "vo-read"
    """Looks at orders and settings: who monitors a VO, or more."""
    VO_CONTROL = "vo-control"
    """Orders something for a VO: who operates it, or more. The handler checks for which one."""
    READ = "read"
    """Looks at what concerns everybody: operators."""
    CONTROL = "control"
    """Orders something for everybody: operators."""
    ADMIN = "admin"


LEAST: Final[Mapping[Need, Role]] = {
    Need.NOTHING: Role.ANONYMOUS,
    Need.USER: Role.USER,
    Need.VO_READ: Role.VO_MONITOR,
    Need.VO_CONTROL: Role.VO_OPERATOR,
    Need.READ: Role.OPERATOR,
    Need.CONTROL: Role.OPERATOR,
    Need.ADMIN: Role.ADMIN,
}
"""The least role, somewhere, that meets a need."""

_RANK: Final[Mapping[Role, int]] = {role: rank for rank, role in enumerate(Role)}


def at_least(role: Role, least: Role) -> bool:
    """Is `role` as much as `least`, or more?"""
    return _RANK[role] >= _RANK[least]


@dataclass(frozen=True, slots=True)
class Grant:
    """A role, in one VO or (None) everywhere."""

    role: Role
    vo: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Which jobs somebody may see, or may change.

    Attributes:
        everything: all of them.
        vos: all jobs of these VOs.
        cred_id: those that were submitted with this credential (`Caller.delegation_id`).
        user_dn: those of this user, for whom every authentication gives the same name; None: names of
            this kind are not unique (a token's subject is unique for its issuer only).
    """

    everything: bool = False
    vos: frozenset[str] = frozenset()
    cred_id: str | None = None
    user_dn: str | None = None

    def covers(self, *, vo: str, user_dn: str, cred_id: str) -> bool:
        """Is a job of this VO, user and credential among them?"""
        if self.everything or vo in self.vos:
            return True
        if self.cred_id is not None and cred_id == self.cred_id:
            return True
        return self.user_dn is not None and user_dn == self.user_dn


EVERYTHING: Final = Sight(everything=True)


CERTIFICATE: Final = "certificate"
TOKEN: Final = "oauth2"  # noqa: S105 - a way to authenticate, not a secret
LOCAL_TOKEN: Final = "token"  # noqa: S105 - the same
LOOPBACK: Final = "local"
UNAUTHENTICATED: Final = "unauthenticated"
"""Ways in which a caller can be known; the first two words are FTS3's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who asks.

    Attributes:
        user_dn: certificate subject (`/DC=ch/CN=…`), subject of a token, or name of a local token.
        vos: VOs that the caller belongs to; jobs are submitted for the first one.
        delegation_id: names the caller's credential; 16 hex digits.
        method: how the caller proved it; one of the words above.
        grants: roles beyond that of a user.
        shared_vos: those of `vos` whose users see each other's jobs.
        voms_cred: attributes of the credential: FQANs, or scopes of a token.
        issuer: of the token, else "".
        token: the token that was shown, for storages; never part of anything that is shown.
        certificate: PEM of the end-entity certificate and what was sent with it; None without one.
        expires_at: when the credential that was shown ends.
    """

    user_dn: str
    vos: tuple[str, ...]
    delegation_id: str
    method: str
    grants: tuple[Grant, ...] = ()
    shared_vos: frozenset[str] = frozenset()
    voms_cred: tuple[str, ...] = ()
    issuer: str = ""
    token: object = field(default=None, repr=False, compare=False)
    """`protocols.credentials.Secret` or None."""
    certificate: str | None = field(default=None, repr=False, compare=False)
    expires_at: float | None = None

    @property
    def vo(self) -> str:
        """The VO that the caller's jobs belong to."""
        return self.vos[0]

    @property
    def known(self) -> bool:
        """Has the caller been authenticated, in one way or another?"""
        return self.method != UNAUTHENTICATED

    @property
    def role(self) -> Role:
        """The highest role, wherever it holds."""
        roles = [grant.role for grant in self.grants]
        return max([*roles, Role.USER if self.known else Role.ANONYMOUS], key=_RANK.__getitem__)

    def role_in(self, vo: str | None) -> Role:
        """The highest role that holds for a VO; None: for all of them together."""
        least = Role.USER if self.known else Role.ANONYMOUS
        roles = [grant.role for grant in self.grants if grant.vo is None or (vo is not None and grant.vo == vo)]
        return max([*roles, least], key=_RANK.__getitem__)

    def may(self, need: Need) -> bool:
        """May the caller use a route with this need at all?"""
        return at_least(self.role, LEAST[need])

    @property
    def is_root(self) -> bool:
        """FTS3's name for who may do everything."""
        return self.role is Role.ADMIN

    def _sight(self, least: Role, more: Iterable[str] = ()) -> Sight:
        if not self.known:
            return Sight()
        vos = {grant.vo for grant in self.grants if grant.vo is not None and at_least(grant.role, least)}
        everything = any(grant.vo is None and at_least(grant.role, least) for grant in self.grants)
        return Sight(
            everything=everything,
            vos=frozenset(vos | set(more)),
            # A certificate's id changes with the attributes of the day, and is not the DN's alone.
            cred_id=None if self.method == CERTIFICATE else self.delegation_id,
            user_dn=self.user_dn if self.method == CERTIFICATE else None,
        )

    @property
    def reads(self) -> Sight:
        """The jobs that the caller sees."""
        return self._sight(Role.VO_MONITOR, self.shared_vos)

    @property
    def writes(self) -> Sight:
        """The jobs that the caller may cancel, change, hold."""
        return self._sight(Role.VO_OPERATOR)
