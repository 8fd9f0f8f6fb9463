"""The OpenAPI 3.1 document, made from the table of routes and the types of the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NotRequired

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from transfer_engine.callers import Need
from transfer_engine.service.route import Route

REF: Final = "#/components/schemas/{model}"
NO_CONTENT: Final = 204
JSON: Final = "application/json"
ALWAYS: Final = {
    403: "the credential is not believed, the caller is banned, or a web page of somebody else asks",
    429: "too many refused credentials from this address; ask again later",
    500: "a defect of the service",
    503: "the store cannot answer now; ask again later",
}
OF_USERS: Final = {403: "nobody has been authenticated, or the caller may not do this"}
OF_BODIES: Final = {
    400: "the body is not what was expected",
    408: "the body took too long to come",
    413: "the body is too large",
    415: "the body is compressed",
}

_PARAMETER: Final = re.compile(r"\{(\w+)\}")


@with_config(ConfigDict(title="Error"))
class ErrorObject(TypedDict):
    """What went wrong."""

    status: str
    message: str
    field: NotRequired[str]


def document(table: Sequence[Route], version: str) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    types: list[tuple[str, Any, TypeAdapter[Any]]] = [("error", "serialization", TypeAdapter(ErrorObject))]
    for route in table:
        types.append((route.name, "serialization", route.answers))
        if route.body is not None:
            types.append((route.name, "validation", route.body))
    schemas, definitions = TypeAdapter.json_schemas(types, ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "transfer-engine",
            "version": version,
            "summary": "Third-party copies between storages, in the dialect of the FTS3 REST interface",
        },
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {})},
    }


def _operation(route: Route, schemas: Mapping[tuple[str, Any], Any]) -> dict[str, Any]:
    done = (
        {"description": "done"}
        if route.success == NO_CONTENT
        else _response("done", schemas[route.name, "serialization"], route.media)
    )
    responses = {str(route.success): done}
    always = ALWAYS | (OF_USERS if route.needs is not Need.NOTHING else {}) | (OF_BODIES if route.body else {})
    for status, when in sorted({**always, **route.statuses}.items()):
        own = status in route.own
        schema = schemas[route.name if own else "error", "serialization"]
        responses[str(status)] = _response(when, schema, route.media if own else JSON)
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": responses,
    }
    if route.body is not None:
        content = {"application/json": {"schema": schemas[route.name, "validation"]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _response(when: str, schema: Any, media: str) -> dict[str, Any]:
    return {"description": when, "content": {media: {"schema": schema}}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string"}
    found = [{"name": name, "in": "path", "required": True, "schema": text} for name in _PARAMETER.findall(route.path)]
    found += [
        {"name": name, "in": "query", "required": False, "description": meaning, "schema": text}
        for name, meaning in route.query.items()
    ]
    return found
