"""What one operation of the service is: the row that dispatching, permissions and the OpenAPI document share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter

from transfer_engine.callers import Need
from transfer_engine.service.boundary import Handler

JsonType = TypeAdapter[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation.

    Attributes:
        name: unique; OpenAPI's operation id.
        path: with `{name}` for each parameter, which stands for one segment.
        needs: what the caller must be to use it at all; which jobs it then reaches is the caller's sight.
        answers: type of the answer with status `success`; 204 has none.
        body: type of the request's body, or None.
        query: name → what it means.
        statuses: further statuses → when.
        own: those of `statuses` that are answered with the type `answers`, not with an error.
        media: of the answer, where it is not JSON.
    """

    name: str
    method: str
    path: str
    needs: Need
    summary: str
    handler: Handler
    answers: JsonType
    body: JsonType | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[int, str] = field(default_factory=dict)
    own: frozenset[int] = frozenset()
    success: int = 200
    media: str = "application/json"


ANYTHING: Final[JsonType] = TypeAdapter(Any)
TEXT: Final[JsonType] = TypeAdapter(str)
TEXTS: Final[JsonType] = TypeAdapter(dict[str, str])
IDS: Final[JsonType] = TypeAdapter(list[str])
NOTHING: Final[JsonType] = TypeAdapter(None)

STREAM: Final = "text/event-stream"
"""Of an answer that does not end."""

NO_JOB: Final = "no such job, or none that the caller may see"
