"""Settings of the job service: where it listens, who may use it, whom it tells, how it keeps secrets."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Seconds = Annotated[float, Field(gt=0, le=31_536_000)]
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^\S(.*\S)?$")]

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""How tokens may be signed: with a key that only the issuer has."""


class Section(BaseModel):
    """A part of the settings: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServiceTls(Section):
    """HTTPS, ended by this service."""

    certificate: Path | None = None
    """PEM with the service's certificate and the chain to its CA; unset: plain HTTP."""
    key: Path | None = None
    """PEM with its private key; unset: it is in `certificate`."""
    client_ca: Path | None = None
    """Bundle or hashed directory of the CAs whose users are believed; unset: no client certificates but those that a
    reverse proxy has verified, and no VOMS attributes."""
    crl: Path | None = None
    """PEM with revocation lists of these CAs; unset: none is looked at, but for those in a hashed `client_ca`."""
    vomsdir: Path | None = None
    """Directory with a folder of `.lsc` files or certificates for each VO; unset: VOMS is not believed."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.certificate is None and self.key:
            msg = "key needs a certificate"
            raise ValueError(msg)
        if self.client_ca is None and (self.crl or self.vomsdir):
            msg = "crl and vomsdir need client_ca: they say more about its users"
            raise ValueError(msg)
        return self


class ReverseProxy(Section):
    """A web server in front that ends TLS and says who asks; its headers are believed from its addresses only."""

    peers: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where it connects from; empty: there is none, and such headers are refused from everybody."""
    dn_header: str = "X-SSL-Client-S-DN"
    """Subject of the client certificate."""
    verify_header: str = "X-SSL-Client-Verify"
    """Must say SUCCESS, or the certificate is not believed."""
    chain_header: str = "X-SSL-Client-Cert"
    """PEM of the client certificate and its chain, URL-encoded; with it proxies and VOMS attributes are understood."""


class ServiceSettings(Section):
    """The job service."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8446
    """0: any free one."""
    alias: str | None = None
    """Name under which the service is known, for messages and links; unset: the machine's."""
    body_max_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    files_max: Annotated[int, Field(ge=1)] = 100_000
    """Most files in one job."""
    grace_s: Annotated[float, Field(ge=0)] = 5.0
    """How long running transfers may finish after a request to stop."""
    tls: ServiceTls = Field(default_factory=ServiceTls)
    reverse_proxy: ReverseProxy = Field(default_factory=ReverseProxy)

    @model_validator(mode="after")
    def _somebody_shows_certificates(self) -> Self:
        if self.tls.client_ca is not None and self.tls.certificate is None and not self.reverse_proxy.peers:
            msg = "tls.client_ca needs tls.certificate, or a reverse proxy (reverse_proxy.peers) that ends TLS"
            raise ValueError(msg)
        return self


class Issuer(Section):
    """A token issuer that is believed (WLCG Common JWT Profiles 1.x)."""

    issuer: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]
    """URL, as in the `iss` of its tokens; a `/` at the end makes no difference."""
    audiences: tuple[Name, ...] = ()
    """A token for this service names one of these, exactly; needed unless `storage_only`."""
    vo: Name | None = None
    """VO of everybody with such a token; unset: by `groups`."""
    groups: Mapping[str, Name] = Field(default_factory=dict)
    """Group in the token (`/escape`) → VO; the group's subgroups belong to it."""
    scopes: tuple[Name, ...] = ()
    """Scopes that a token must have, all of them, to be used here (`fts`)."""
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"],
                      ...] = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256")  # fmt: skip
    ca: Path | None = None
    """Bundle that the issuer's own certificate is checked with; unset: the system's."""
    jwks_refresh_s: Seconds = 6 * 3600
    """Age at which its keys are fetched again."""
    jwks_max_s: Seconds = 2 * 86400
    """Age beyond which they are not believed any more, though the issuer cannot be reached."""
    client_id: str | None = None
    """Of this service at the issuer, to exchange and refresh tokens for storages; unset: it does neither."""
    client_secret: SecretStr | None = None
    client_secret_file: Path | None = None
    """The secret's file, instead."""
    storage_only: bool = False
    """Its tokens are for storages; they do not open this service."""

    @model_validator(mode="after")
    def _for_somebody(self) -> Self:
        if not self.audiences and not self.storage_only:
            msg = "audiences is missing: what tokens for this service name (or say `storage_only = true`)"
            raise ValueError(msg)
        return self


class LocalToken(Section):
    """A token that this service gives out itself, for a small site or a script."""

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^/\s](.*\S)?$")]
    """Its user's; not one that a certificate's subject could be."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Digest of the token, as `transfer-engine token` prints it: the token itself is nowhere."""
    vo: Name = "local"
    role: Literal["user", "vo-monitor", "vo-operator", "operator", "admin"] = "user"
    expires: str | None = None
    """Last day, `YYYY-MM-DD`, UTC; unset: it does not end."""


class RoleSetting(Section):
    """Who is more than a user: everybody to whom all that is given here applies."""

    role: Literal["vo-monitor", "vo-operator", "operator", "admin"]
    vo: Name | None = None
    """Where a `vo-…` role holds; unset: in the VOs of whoever has it."""
    dn: str | None = None
    """Subject of a certificate."""
    issuer: str | None = None
    """Of tokens; needs `subject` or `group`."""
    subject: str | None = None
    """`sub` of a token."""
    group: str | None = None
    """Group of a token, or FQAN of a proxy (`/escape/Role=production`); of tokens by `issuer`, if there are several."""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.vo is not None and not self.role.startswith("vo-"):
            msg = "vo is for vo-monitor and vo-operator: the other roles hold everywhere"
            raise ValueError(msg)
        if not (self.dn or self.subject or self.group):
            msg = "expected one of dn, subject, group: a role for everybody is none"
            raise ValueError(msg)
        if self.subject and not self.issuer:
            msg = "subject needs an issuer: subjects are unique for one issuer only"
            raise ValueError(msg)
        return self


class AuthSettings(Section):
    """Who may use the service. With nothing set nobody may, and it does not start."""

    loopback: Literal["refuse", "user", "vo-monitor", "vo-operator", "operator", "admin"] = "refuse"
    """What whoever reaches the service from this machine without a credential is; it then listens on loopback only."""
    loopback_vo: Name = "local"
    issuers: tuple[Issuer, ...] = ()
    tokens: tuple[LocalToken, ...] = ()
    roles: tuple[RoleSetting, ...] = ()
    gridmap: Mapping[str, Name] = Field(default_factory=dict)
    """Certificate subject → VO, for certificates without VOMS attributes."""
    shared_vos: tuple[Name, ...] = ()
    """VOs whose users see each other's jobs; `*`: all of them."""
    service_credential: Literal["nobody", "local", "all"] = "local"
    """Whose transfers without a token and a proxy of their own the service's own credential (`[tls]`) is shown for:
    `local`: of whoever is on this machine or has a local token; `all`: of bearers of issuers' tokens, too. For all
    others storages are shown none. Jobs of certificate users never use it."""
    failures_per_min: Annotated[int, Field(ge=1)] = 60
    """Refused credentials of one address in a minute, after which it gets 429."""


class Broker(Section):
    """One STOMP broker."""

    host: Name
    port: Annotated[int, Field(ge=1, le=65535)] = 61113


class MessageSettings(Section):
    """Messages about transfers to a STOMP broker, in FTS3's form."""

    brokers: tuple[Broker, ...] = ()
    """Empty: no messages. One of them is used at a time."""
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    vhost: str | None = None
    """The broker's virtual host; unset: its address."""
    start: str = "/topic/transfer.fts_monitoring_start"
    complete: str = "/topic/transfer.fts_monitoring_complete"
    state: str = "/topic/transfer.fts_monitoring_state"
    """Where each kind goes; empty: it is not sent."""
    ttl_s: Seconds = 86400
    """How long the broker keeps a message that nobody takes."""
    publish_dn: bool = False
    """Whether `user_dn` is told; else it is empty."""
    confirm_s: Seconds = 30.0
    """How long a receipt of the broker is waited for before it counts as away."""
    retry_max_s: Seconds = 60.0
    """Longest pause between two attempts to reach a broker."""
    backlog_max: Annotated[int, Field(ge=1000)] = 10_000_000
    """Changes that are kept for a broker that is away."""


class VaultSettings(Section):
    """How secrets are kept: AES-256-GCM, the key outside the database."""

    key_file: Path | None = None
    """File with the key, 64 hex digits; unset: made beside a SQLite file, readable by its owner only."""
    key: SecretStr | None = None
    """The key itself; meant for the environment: `TRANSFER_ENGINE_VAULT__KEY`."""
