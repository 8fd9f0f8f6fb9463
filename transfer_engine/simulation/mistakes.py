"""What is wrong with a scenario, in words that name the key as it stands in the file. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

_WORDS: Final = {
    "dict_type": "expected an object {…}",
    "model_type": "expected an object {…}",
    "model_attributes_type": "expected an object {…}",
    "mapping_type": "expected an object {…}",
    "tuple_type": "expected a list […]",
    "extra_forbidden": "unknown key",
    "union_tag_not_found": "'kind' is missing",
}


def sentences(error: ValidationError, data: Any, *above: str) -> str:
    """All mistakes that validation found in `data`, which stands under the keys `above` in the file."""
    lines: list[str] = []
    for item in error.errors():
        where = ".".join((*above, *_path(item["loc"], data, missing=item["type"] == "missing")))
        problem = _WORDS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        if item["type"] == "too_short" and _length(data, item["loc"]) >= item["ctx"]["min_length"]:
            continue  # Rows with mistakes of their own were not counted.
        if item["type"] == "too_short":
            problem = f"expected at least {item['ctx']['min_length']}, got {_length(data, item['loc'])}"
        lines.append(f"{where}: {problem}" if where else problem)
    return "; ".join(lines)


def _path(loc: tuple[int | str, ...], data: Any, *, missing: bool) -> Iterator[str]:
    """The keys of the file; validation has the kinds of faults, arrivals and sizes between them."""
    at = data
    for index, part in enumerate(loc):
        if _has(at, part):
            at = at[part]
            yield str(part)
        elif missing and index == len(loc) - 1:
            yield str(part)


def _has(at: Any, part: int | str) -> bool:
    if isinstance(at, Mapping):
        return part in at
    return isinstance(at, list | tuple) and isinstance(part, int) and part < len(at)


def _length(data: Any, loc: tuple[int | str, ...]) -> int:
    at = data
    for part in loc:
        at = at[part] if _has(at, part) else at
    return len(at) if isinstance(at, Mapping | list | tuple) else 0


def loose(value: Any, data: Any, *above: str) -> Iterator[str]:
    """Values that validation would take for what they are not: "5" and true for numbers, 1 and "yes" for true."""
    where = ".".join(above)
    if isinstance(value, BaseModel) and isinstance(data, Mapping):
        for key in type(value).model_fields:
            if key in data:
                yield from loose(getattr(value, key), data[key], *above, key)
    elif isinstance(value, Mapping) and isinstance(data, Mapping):
        for key, inner in data.items():
            if key in value:
                yield from loose(value[key], inner, *above, str(key))
    elif isinstance(value, list | tuple) and isinstance(data, list | tuple):
        for index, (one, inner) in enumerate(zip(value, data, strict=False)):
            yield from loose(one, inner, *above, str(index))
    elif isinstance(value, bool) and not isinstance(data, bool):
        yield f"{where}: expected true or false, got {_short(data)}"
    elif isinstance(value, int | float) and not isinstance(value, bool) and isinstance(data, bool | str):
        yield f"{where}: expected a number, got {_short(data)}"


def _short(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)[:60]


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises: ValueError: a key is there twice, and would silently lose its first value."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            msg = f"key {key!r} is there twice in one object"
            raise ValueError(msg)
        found[key] = value
    return found


def finite(text: str) -> float:
    """A JSON number. Raises: ValueError: it is NaN, or too large for one."""
    value = float(text)
    if not math.isfinite(value):
        msg = f"{text[:30]} is no number"
        raise ValueError(msg)
    return value
