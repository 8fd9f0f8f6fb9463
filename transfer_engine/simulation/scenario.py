"""A scenario: storages, network, faults, who wants what when. docs/scenarios.md explains every key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError, model_validator

from transfer_engine.config import Settings
from transfer_engine.errors import Invalid
from transfer_engine.simulation.arrivals import Stream
from transfer_engine.simulation.faults import EndpointFault, LinkFault, Section, Span, Window

Rate = Annotated[float, Field(gt=0, le=1e15)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=63)]
ENGINE_SECTIONS: Final = ("limits", "shares", "retry", "transfer")
"""Sections of the engine's settings that a scenario has under the same names."""


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

    name: str
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
    transfer: Mapping[str, Any] = Field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """Other sections of the engine's settings."""

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
        for name in self.limits.get("endpoints", ()):
            yield f"limits.endpoints.{name}", _bare(name)
        for index, row in enumerate(self.limits.get("links", ())):
            for key in ("source", "destination"):
                if isinstance(row, Mapping) and key in row:
                    yield f"limits.links.{index}.{key}", _bare(str(row[key]))

    def _pipe_names(self) -> Iterator[tuple[str, str]]:
        for name, endpoint in self.endpoints.items():
            yield from ((f"endpoints.{name}.pipes", pipe) for pipe in endpoint.pipes)
        for index, link in enumerate(self.links):
            yield from ((f"links.{index}.pipes", pipe) for pipe in link.pipes)

    def _repeated(self) -> Iterator[str]:
        seen: set[object] = set()
        for index, link in enumerate(self.links):
            pair = (link.source, link.destination)
            if pair in seen:
                yield f"links.{index}: {link.source} → {link.destination} is there already"
            seen.add(pair)
        for index, stream in enumerate(self.streams):
            if stream.name in seen:
                yield f"streams.{index}.name: {stream.name!r} is there already"
            seen.add(stream.name)

    def engine_settings(self) -> Settings:
        """The engine's settings; the environment has no say. Raises: Invalid."""
        given: dict[str, Any] = {key: getattr(self, key) for key in ENGINE_SECTIONS}
        for key, value in self.settings.items():
            if key in given:
                raise Invalid(f"is a key of its own: write {key!r} beside 'settings'", field=f"settings.{key}")
            given[key] = value
        given["tls"] = {"discover": False}
        sections: dict[str, Any] = {}
        for name, field in Settings.model_fields.items():
            kind: Any = field.annotation
            if hasattr(kind, "model_validate"):
                sections[name] = _validated(kind, _with_urls(given.pop(name, {})), name)
            else:
                sections[name] = field.get_default(call_default_factory=True)
        if given:
            raise Invalid("the engine has no such section of settings", field=f"settings.{min(given)}")
        return Settings.model_construct(**sections)


def _bare(name: str) -> str:
    return name.removeprefix("sim://")


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
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise Invalid(_explain(error, name), field="scenario") from error


def _explain(error: ValidationError, *above: str) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in (*above, *item["loc"]))
        problem = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {problem}" if where else problem)
    return "; ".join(lines)


def parse(data: Any, source: str = "scenario") -> Scenario:
    """A scenario from JSON data. Raises: Invalid: names each key that is wrong, and how."""
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise Invalid(_explain(error), field=source) from error
    scenario.engine_settings()
    return scenario


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that is there twice would silently lose its first value."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            msg = f"key {key!r} is there twice in one object"
            raise ValueError(msg)
        found[key] = value
    return found


def load(path: Path) -> Scenario:
    """Read a scenario file. Raises: Invalid: it cannot be read, is not JSON, or has mistakes."""
    try:
        data = json.loads(path.read_text("utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise Invalid(f"cannot be read: {error.strerror}", field=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise Invalid(f"is not good JSON: {error}", field=str(path)) from error
    return parse(data, str(path))
