"""Settings: one TOML file, the environment, command-line flags; in this order, the last one wins.

Environment variables are `TRANSFER_ENGINE_` plus the path with double underscores
(`TRANSFER_ENGINE_SERVICE__PORT=8446`). An unknown key is an error: a typing mistake must not
silently leave a default in force.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from protocols.checksum import algorithm_name
from transfer_engine.config_service import AuthSettings, MessageSettings, Section, ServiceSettings, VaultSettings
from transfer_engine.errors import Invalid

ENV_PREFIX: Final = "TRANSFER_ENGINE_"
OTHER_VARIABLES: Final = frozenset(
    {"TRANSFER_ENGINE_SERVICE_URL", "TRANSFER_ENGINE_TOKEN", "TRANSFER_ENGINE_TOKEN_FILE"}
)
"""Of the same family, but no settings: where the command line finds the job service, and who it is there."""

Slots = Annotated[int, Field(ge=0, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]


class EndpointLimits(Section):
    """Limits of one endpoint, where they differ from the defaults."""

    inbound: Slots | None = None
    """Most transfers that write to it at a time."""
    outbound: Slots | None = None
    """Most transfers that read from it at a time."""
    inbound_min: Slots = 1
    """The optimizer does not go below."""
    outbound_min: Slots = 1
    inbound_bytes_s: Annotated[float, Field(gt=0)] | None = None
    """Most bytes per second into it: copies that would exceed it together are not started."""
    outbound_bytes_s: Annotated[float, Field(gt=0)] | None = None
    tpc: Literal["auto", "full", "pull", "push", "none"] = "auto"
    """What it can do as the active party of a copy; `auto`: find out."""


class LinkLimits(Section):
    """Limits of one link, or (`*` at an end) of all that no more specific row covers."""

    source: str
    destination: str
    active: Slots | None = None
    """Most transfers at a time."""
    active_min: Slots = 1
    """The optimizer does not go below."""
    bytes_s: Annotated[float, Field(gt=0)] | None = None
    """Most bytes per second."""


class VoLimits(Section):
    """How much of an endpoint one VO may take, whatever is free."""

    endpoint: str
    vo: str
    inbound: Slots | None = None
    outbound: Slots | None = None


class Limits(Section):
    """How much may run at a time; a transfer counts from its claim until it is settled."""

    endpoint_inbound: Slots = 60
    endpoint_outbound: Slots = 60
    link: Slots = 60
    node: Slots = 2000
    """All transfers of this process together."""
    streamed: Slots = 16
    """Transfers whose bytes go through this process."""
    endpoints: Mapping[str, EndpointLimits] = Field(default_factory=dict)
    """Per endpoint, keyed `scheme://host`."""
    links: tuple[LinkLimits, ...] = ()
    vos: tuple[VoLimits, ...] = ()


class LinkShares(Section):
    """Weights of VOs on one link, or on all links into a destination (source `*`)."""

    source: str = "*"
    destination: str = "*"
    vos: Mapping[str, Annotated[float, Field(gt=0)]]
    """VO → weight; `public` is anybody who is not named."""


class Shares(Section):
    """Weights; whoever is not named has the weight of `public` or `default` where there is one, else 1."""

    vos: Mapping[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    links: tuple[LinkShares, ...] = ()
    """Where they differ; FTS's share settings. Among links into one destination the most specific counts."""
    activities: Mapping[str, Mapping[str, Annotated[float, Field(gt=0)]]] = Field(default_factory=dict)
    """Per VO: activity → weight."""
    default: Annotated[float, Field(gt=0)] = 1.0


class RetrySettings(Section):
    """When a failed transfer is tried again."""

    retries_max: Annotated[int, Field(ge=0, le=1000)] = 3
    """Attempts beyond the first, where the job does not say."""
    delay_s: Annotated[float, Field(ge=0)] = 10.0
    """Before the first retry; doubles with each further one."""
    delay_max_s: Seconds = 900.0
    late_s: Seconds = 900.0
    """Before a retry when somebody has to act first (a full storage)."""
    few_max: Annotated[int, Field(ge=0, le=100)] = 2
    """Most retries after failures where chance may have played a part (a checksum that differs)."""
    uncharged_max: Annotated[int, Field(ge=0, le=1000)] = 10
    """Failures of one transfer, one after the other, that are put down to a storage's known trouble alone."""


class BreakerSettings(Section):
    """When a storage or a link that fails is left alone, and how it is tried again."""

    failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Fewest failures in a row, without a success, that close a place; more where failures are usual."""
    denied: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Refused credentials in a row, without a success, after which a VO waits at an endpoint."""
    chance: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """A row of failures closes a place only when bad luck is less probable than this."""
    quiet_s: Annotated[float, Field(ge=0)] = 60.0
    """How long an endpoint that serves other links well is not blamed for one link's failures."""
    open_s: Seconds = 15.0
    """Before the first try after closing; later waits are a third of the time that it has lasted."""
    late_s: Seconds = 60.0
    """The same where somebody has to act (full, credentials); doubles with each try that fails."""
    open_max_s: Seconds = 900.0
    """Longest time between two tries."""
    pause_max_s: Seconds = 900.0
    """Longest pause that a storage's `Retry-After` is believed."""
    recovered: Annotated[int, Field(ge=1, le=100_000)] = 128
    """After trouble the number of transfers doubles with each success; from here on it is free."""


class TransferSettings(Section):
    """How one attempt is made."""

    mock: bool = False
    """Take `mock://` URLs: storages that exist only in the URL's arguments, for tests of clients."""
    storage_addresses: Literal["auto", "any", "public"] = "auto"
    """Where storages may be. `public`: not on this machine, not in private or link-local networks, but for those in
    `storage_networks`; `auto`: `any` while only this machine reaches the job service, else `public`."""
    storage_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where a site's own storages are, when only `public` addresses are allowed: `10.1.0.0/16`."""
    modes: Annotated[tuple[Literal["pull", "push", "stream"], ...], Field(min_length=1)] = ("pull", "push", "stream")
    """Copy modes in order of preference; leave `stream` out to keep bytes off this machine."""
    connect_s: Seconds = 30.0
    request_s: Seconds = 60.0
    digest_s: Seconds = 300.0
    first_response_s: Seconds = 150.0
    silence_s: Seconds = 120.0
    stall_s: Seconds = 300.0
    floor_bytes_s: Annotated[float, Field(ge=0)] = 10_000.0
    """A copy that is slower in the mean over `floor_s` has failed; 0: however slow, it goes on."""
    floor_s: Seconds = 900.0
    quarantine_s: Annotated[float, Field(ge=0)] = 15.0
    """How long a destination must stay unchanged before a lost attempt's outcome is believed."""
    probe_max_s: Seconds = 3600.0
    """How long a lost attempt is looked for before it counts as failed."""
    checksum: Annotated[str, AfterValidator(algorithm_name)] = "adler32"
    """Asked for when the submission names no algorithm."""
    require_checksum: bool = False
    """Fail a transfer that asks for verification when the storages offer no checksum to compare."""
    token_margin_s: Seconds = 300.0
    """How long a token must hold beyond the expected length of a copy; else it is renewed before the start."""
    cleanup_s: Seconds = 60.0
    """Longest time for removing what a failed or cancelled attempt left."""


class TlsSettings(Section):
    """Who we are towards storages and whom we trust; unset: the usual places of grid tools."""

    ca: Path | None = None
    """Bundle or hashed directory of trusted CAs."""
    certificate: Path | None = None
    key: Path | None = None
    token_file: Path | None = None
    """Bearer token for storages."""
    credential_hosts: tuple[str, ...] = ()
    """Hosts that are shown the certificate and the token; `.example.org` stands for all below it. Empty: whichever
    somebody names in a URL, who can so get hold of the token."""
    verify: bool = True
    """False accepts any certificate: for a laboratory only."""
    discover: bool = True
    """Look for token, proxy and CA in the environment and the usual files."""


class EventSettings(Section):
    """The outbox of state changes."""

    keep: Annotated[int, Field(ge=1000)] = 1_000_000
    """Newest entries that are kept for readers that come back."""


class OptimizerSettings(Section):
    """How the number of copies that run at a time is found, within the configured limits."""

    enabled: bool = True
    """False: as many as the limits allow."""
    interval_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    """Between two looks at what runs while something is being learned; longer while nothing changes."""
    initial: Annotated[int, Field(ge=1, le=1000)] = 2
    """Copies in a place that nothing is known of."""
    probe_s: Seconds = 30.0
    """Before a number that was found good is compared with its neighbours again; doubles while it stays the best."""
    probe_max_s: Seconds = 3600.0
    overload_s: Seconds = 60.0
    """How long a number at which a storage was overloaded is not tried again; doubles each time."""
    overload_max_s: Seconds = 3600.0
    memory_s: Seconds = 3600.0
    """How long the goodput that was seen with a number of copies is believed."""


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    database: str = "sqlite://"
    """`sqlite:///path`, `sqlite://` for one in memory, or `memory://` for none: faster, and gone with the process."""
    limits: Limits = Field(default_factory=Limits)
    shares: Shares = Field(default_factory=Shares)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    transfer: TransferSettings = Field(default_factory=TransferSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)
    service: ServiceSettings = Field(default_factory=ServiceSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    messages: MessageSettings = Field(default_factory=MessageSettings)
    vault: VaultSettings = Field(default_factory=VaultSettings)
    events: EventSettings = Field(default_factory=EventSettings)
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over constructor: the constructor carries the TOML file."""
        return env_settings, init_settings


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
    return base


def _explain(error: ValidationError, *above: str) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in (*above, *item["loc"]))
        problem = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {problem}")
    return "; ".join(lines)


def load(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read settings from a TOML file, the environment and flags (a nested mapping).

    Raises: Invalid: the file cannot be read, or a key is unknown or out of range; the message names it.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise Invalid(f"cannot be read: {error.strerror}", field=str(path)) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"is not TOML: {error}", field=str(path)) from error
    _check_environment(os.environ)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise Invalid(_explain(error), field=str(path) if path else "settings") from error
    except SettingsError as error:
        raise Invalid(str(error), field="environment") from error
    return settings.model_copy(update=_over(settings, flags)) if flags else settings


def _check_environment(environ: Mapping[str, str]) -> None:
    """The library passes over variables that it does not know; here they are errors like other unknown keys."""
    for name in environ:
        key = name.upper()
        if key.startswith(ENV_PREFIX) and key not in OTHER_VARIABLES:
            section = key.removeprefix(ENV_PREFIX).partition("__")[0].lower()
            if section not in Settings.model_fields:
                raise Invalid("unknown key", field=name)


def _over(settings: Settings, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The top-level fields that flags touch, checked."""
    merged = _merge(settings.model_dump(), flags)
    update: dict[str, Any] = {}
    for key in flags:
        field = Settings.model_fields.get(key)
        if field is None:
            raise Invalid("unknown key", field=key)
        kind: Any = field.annotation
        try:
            update[key] = TypeAdapter(kind).validate_python(merged[key])
        except ValidationError as error:
            raise Invalid(_explain(error, key), field="flags") from error
    return update
