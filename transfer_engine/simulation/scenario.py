"""A scenario: storages, network, faults, who wants what when. docs/scenarios.md explains every key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError, model_validator

from transfer_engine.config import Settings
from transfer_engine.errors import Invalid
from transfer_engine.simulation.arrivals import Stream
from transfer_engine.simulation.faults import EndpointFault, LinkFault, Section, Span, Window
from transfer_engine.simulation.mistakes import finite, loose, once, sentences

Rate = Annotated[float, Field(gt=0, le=1e15)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=63)]
ENGINE_SECTIONS: Final = ("limits", "shares", "retry", "breaker", "transfer", "optimizer")
"""Sections of the engine's settings that a scenario has under the same names."""
NAMING: Final = ("source", "destination", "endpoint")
"""Keys of their rows that name an endpoint."""


class Endpoint(Section):
    """One storage."""

    in_bytes_s: Rate
    out_bytes_s: Rate
    heads: Annotated[int, Field(ge=1)] | None = None
    """Reading and writing share this many disk heads; None: as many as asked for."""
    thrash: Annotated[float, Field(ge=0, le=100)] = 1.0
    """What more copies than heads cost, see `sharing.Capacity.goodput`."""
    stream_bytes_s: Rate | None = None
    """Most that one copy gets."""
    latency_s: Annotated[float, Field(ge=0, le=60)] = 0.02
    """Of the answer to each request."""
    overhead_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Per copy into it, before the first byte."""
    pipes: tuple[Name, ...] = ()
    """Shared pipes that its traffic goes through, in both directions."""
    faults: tuple[EndpointFault, ...] = ()


class LinkModel(Section):
    """One link that has something of its own."""

    source: Name
    destination: Name
    bytes_s: Rate | None = None
    """None: as much as its ends can."""
    stream_bytes_s: Rate | None = None
    pipes: tuple[Name, ...] = ()
    faults: tuple[LinkFault, ...] = ()


class Outside(Window):
    """Traffic of others, which takes capacity away."""

    bytes_s: Rate


class Pipe(Section):
    """A piece of network that several storages or links share."""

    bytes_s: Rate
    outside: tuple[Outside, ...] = ()


class Scenario(Section):
    """Everything that a run needs."""

    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    provenance: Mapping[str, str] = Field(default_factory=dict)
    """Where the numbers come from."""
    seed: int = 1
    duration_s: Span | None = None
    """Stop then; None: when every job has ended."""
    limit_s: Span = 2_592_000.0
    """Stop then in any case."""
    sample_s: Span = 60.0
    """Between two points of the time series."""
    window_s: Span = 600.0
    """Over which fairness is measured."""
    marker_s: Span = 5.0
    """Between two progress markers of a copy."""
    job_files_max: Annotated[int, Field(ge=1, le=1000)] = 200
    endpoints: Mapping[Name, Endpoint] = Field(min_length=2)
    links: tuple[LinkModel, ...] = ()
    pipes: Mapping[Name, Pipe] = Field(default_factory=dict)
    streams: tuple[Stream, ...] = Field(min_length=1)
    limits: Mapping[str, Any] = Field(default_factory=dict)
    shares: Mapping[str, Any] = Field(default_factory=dict)
    retry: Mapping[str, Any] = Field(default_factory=dict)
    breaker: Mapping[str, Any] = Field(default_factory=dict)
    transfer: Mapping[str, Any] = Field(default_factory=dict)
    optimizer: Mapping[str, Any] = Field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Any section of the engine's settings that is not beside it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [*self._unknown_names(), *self._repeated()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _unknown_names(self) -> Iterator[str]:
        for where, name in self._endpoint_names():
            if name not in self.endpoints:
                yield f"{where}: no endpoint {name!r}, there are {', '.join(sorted(self.endpoints))}"
        for where, name in self._pipe_names():
            if name not in self.pipes:
                yield f"{where}: no pipe {name!r}, there are {', '.join(sorted(self.pipes)) or 'none'}"

    def _endpoint_names(self) -> Iterator[tuple[str, str]]:
        for index, link in enumerate(self.links):
            yield f"links.{index}.source", link.source
            yield f"links.{index}.destination", link.destination
        for index, stream in enumerate(self.streams):
            for key, name in stream.route.endpoints():
                yield f"streams.{index}.route.{key}", name
        limits, shares = self._section("limits"), self._section("shares")
        for name in _rows(limits.get("endpoints"), Mapping):
            yield f"limits.endpoints.{name}", _bare(name)
        for where, rows in (("limits.links", limits), ("limits.vos", limits), ("shares.links", shares)):
            for index, row in enumerate(_rows(rows.get(where.partition(".")[2]), list)):
                for key in NAMING:
                    if isinstance(row, Mapping) and row.get(key, "*") != "*":
                        yield f"{where}.{index}.{key}", _bare(row[key])

    def hints(self) -> Iterator[str]:
        """What is allowed, but may be a slip: settings of VOs and activities that no stream is of."""
        vos = {stream.vo for stream in self.streams}
        work = {(stream.vo, stream.activity) for stream in self.streams}
        settings = self.engine_settings()
        named = [("shares.vos", vo) for vo in settings.shares.vos]
        named += [(f"shares.links.{i}.vos", vo) for i, row in enumerate(settings.shares.links) for vo in row.vos]
        named += [(f"limits.vos.{i}.vo", row.vo) for i, row in enumerate(settings.limits.vos)]
        named += [("shares.activities", vo) for vo in settings.shares.activities]
        yield from (f"{where}: no stream is of VO {vo!r}" for where, vo in named if vo not in vos | {"public"})
        for vo, activities in settings.shares.activities.items():
            for name in activities:
                if vo in vos and (vo, name) not in work and name != "default":
                    yield f"shares.activities.{vo}: no stream of {vo} is of activity {name!r}"

    def _section(self, name: str) -> Mapping[str, Any]:
        """A section of the engine's settings as it was written, in either place."""
        found: Mapping[str, Any] = getattr(self, name)
        return found or self.settings.get(name, {})

    def _pipe_names(self) -> Iterator[tuple[str, str]]:
        for name, endpoint in self.endpoints.items():
            yield from ((f"endpoints.{name}.pipes", pipe) for pipe in endpoint.pipes)
        for index, link in enumerate(self.links):
            yield from ((f"links.{index}.pipes", pipe) for pipe in link.pipes)

    def _repeated(self) -> Iterator[str]:
        seen: set[object] = set()
        for index, stream in enumerate(self.streams):
            if stream.name in seen:
                yield f"streams.{index}.name: {stream.name!r} is there already"
            seen.add(stream.name)
        yield from _twice("links", [(link.source, link.destination) for link in self.links])
        for index, link in enumerate(self.links):
            if link.source == link.destination:
                yield f"links.{index}: source and destination are both {link.source!r}"

    def engine_settings(self) -> Settings:
        """The engine's settings; the environment has no say. Raises: Invalid."""
        given: dict[str, Any] = {key: getattr(self, key) for key in ENGINE_SECTIONS if getattr(self, key)}
        places = dict.fromkeys(given, "")
        for key, value in self.settings.items():
            if key in given:
                raise Invalid(f"is there twice, also beside 'settings': {key!r}", field=f"settings.{key}")
            given[key], places[key] = value, "settings."
        given["tls"] = {"discover": False}
        sections: dict[str, Any] = {}
        for name, field in Settings.model_fields.items():
            kind: Any = field.annotation
            if hasattr(kind, "model_validate"):
                sections[name] = _validated(kind, given.pop(name, {}), places.get(name, "") + name)
            else:
                sections[name] = field.get_default(call_default_factory=True)
        if given:
            raise Invalid("the engine has no such section of settings", field=f"settings.{min(given)}")
        found = Settings.model_construct(**sections)
        repeated = [*_repeated_rows(found)]
        if repeated:
            raise Invalid("; ".join(repeated), field="scenario")
        return found


def _rows(value: Any, kind: type) -> Any:
    """What is looked through for names; what is no list or object is refused elsewhere."""
    return value if isinstance(value, kind) else ()


def _twice(where: str, keys: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for index, key in enumerate(keys):
        if key in keys[:index]:
            yield f"{where}.{index}: {' → '.join(_bare(part) for part in key)} is there already"


def _repeated_rows(settings: Settings) -> Iterator[str]:
    limits, shares = settings.limits, settings.shares
    yield from _twice("limits.links", [(row.source, row.destination) for row in limits.links])
    yield from _twice("limits.vos", [(row.endpoint, row.vo) for row in limits.vos])
    yield from _twice("shares.links", [(row.source, row.destination) for row in shares.links])


def _bare(name: object) -> str:
    return str(name).removeprefix("sim://")


def _url(name: object) -> object:
    return name if not isinstance(name, str) or "://" in name or name == "*" else f"sim://{name}"


def _with_urls(value: Any) -> Any:
    """Endpoints are named in a scenario, and `sim://NAME` in the engine's settings."""
    if isinstance(value, Mapping):
        found: dict[Any, Any] = {}
        for key, inner in value.items():
            if key == "endpoints" and isinstance(inner, Mapping):
                found[key] = {_url(name): _with_urls(limits) for name, limits in inner.items()}
            elif key in {"source", "destination", "endpoint"}:
                found[key] = _url(inner)
            else:
                found[key] = _with_urls(inner)
        return found
    return [_with_urls(inner) for inner in value] if isinstance(value, list | tuple) else value


def _validated(kind: Any, value: Any, name: str) -> Any:
    given = _with_urls(value)
    try:
        found = kind.model_validate(given)
    except ValidationError as error:
        raise Invalid(sentences(error, given, name).replace("sim://", ""), field="scenario") from error
    mistaken = [*loose(found, given, name)]
    if mistaken:
        raise Invalid("; ".join(mistaken).replace("sim://", ""), field="scenario")
    return found


def parse(data: Any, source: str = "scenario") -> Scenario:
    """A scenario from JSON data. Raises: Invalid: names each key that is wrong, and how."""
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise Invalid(sentences(error, data), field=source) from error
    mistaken = [*loose(scenario, data)]
    if mistaken:
        raise Invalid("; ".join(mistaken), field=source)
    try:
        scenario.engine_settings()
    except Invalid as error:
        where = "" if error.field in (None, "scenario") else f"{error.field}: "
        raise Invalid(where + error.message, field=source) from error
    return scenario


def load(path: Path) -> Scenario:
    """Read a scenario file. Raises: Invalid: it cannot be read, is not JSON, or has mistakes."""
    try:
        text = path.read_text("utf-8")
        data = json.loads(text, object_pairs_hook=once, parse_float=finite, parse_constant=finite)
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}", field=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise Invalid(f"is not good JSON: {error}", field=str(path)) from error
    return parse(data, str(path))
