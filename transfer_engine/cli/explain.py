"""The command `explain`: why a job, a transfer, a link or a storage does not move, and when it will."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from protocols.errors import printable
from transfer_engine.bans import parse_endpoint
from transfer_engine.cli.client import service
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import put, put_json, say, size, stop

EXPECTED: Final = "a job id, a file id, JOB/FILE, a link (SRC DST, or SRC,DST) or a storage (scheme://host)"
DECISIONS: Final = 5
"""Decisions of the optimizer that are printed."""

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ARROW: Final = re.compile(r"\s*(?:→|->|,)\s*")
_UNITS: Final = ((86400.0, 3600.0, "d"), (3600.0, 60.0, "h"), (60.0, 1.0, "min"))
"""Seconds of a unit, and of the next smaller one, which its border is rounded to."""


def paths_of(words: Sequence[str]) -> list[str]:
    """What to ask for each of several things; two storages beside each other are a link. Raises: Stop, Invalid."""
    parts = [part for word in words for part in _ARROW.split(word.strip()) if part]
    ends = sum("://" in part for part in parts)
    if len(parts) == ends == 2 or any(not _ARROW.sub("", word.strip()) for word in words):  # noqa: PLR2004 - a link
        return [path_of(words)]
    return [path_of([word]) for word in words]


def path_of(words: Sequence[str]) -> str:
    """What to ask a service for what was typed. Raises: Stop, Invalid: it is nothing that can be explained."""
    parts = [part for word in words for part in _ARROW.split(word.strip()) if part]
    match parts:
        case [source, destination]:
            ends = {"source_se": parse_endpoint(source, "SRC"), "dest_se": parse_endpoint(destination, "DST")}
            return "/explain?" + urlencode(ends)
        case [one]:
            return _path_of_one(one)
        case _:
            return stop(f"expected {EXPECTED}; got {' '.join(words)[:200]!r}", Exit.USAGE)


def _path_of_one(one: str) -> str:
    if _UUID.fullmatch(one):
        return f"/jobs/{one}/explain"
    if one.isascii() and one.isdigit():
        return f"/explain?file_id={one}"
    if "://" in one:
        return "/explain?" + urlencode({"endpoint": parse_endpoint(one, "ENDPOINT")})
    job_id, _, file_id = one.partition("/")
    if not file_id:
        stop(f"expected {EXPECTED}; got {one[:200]!r}", Exit.USAGE)
    return f"/jobs/{quote(job_id, safe='')}/files/{quote(file_id, safe='')}/explain"


async def explain(url: str, words: Sequence[str], *, as_json: bool) -> Exit:
    """Ask and print."""
    paths = paths_of(words)
    async with service(url) as at:
        for index, path in enumerate(paths):
            found = await at.ask("GET", path)
            if as_json:
                put_json(found)
                continue
            if index:
                put("")
            if "transfers" in found:
                _put_job(found)
            else:
                put("\n".join(lines_of(found)))
    return Exit.OK


def _put_job(found: Mapping[str, Any]) -> None:
    kinds: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for one in found["transfers"]:
        kinds.setdefault((one["code"], one["reasons"][0].get("subject")), []).append(one)
    if not kinds:
        put(f"job {found['job_id']}: {printable(found['reason'])}")
        return
    n = found["open"]
    put(f"job {found['job_id']}, {found['job_state']}: {n} transfer{'' if n == 1 else 's'} not ended")
    for (code, _), alike in kinds.items():
        put("")
        for line in lines_of(alike[0]):
            put(line)
        if len(alike) > 1:
            last = {key: value for key, value in alike[-1].items() if key != "unknown"}
            when = f"; the last {_when(last)}" if last["start_at"] or last["finish_at"] else ""
            put(f"  … and {len(alike) - 1} more for the same kind of reason ({code}){when}")
    if found["left_out"]:
        say(f"{found['left_out']} more transfers are not looked at; ask for single ones: explain FILE_ID")


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """One explanation for people."""
    state = f", {found['state']}" if "state" in found else ""
    yield printable(f"{found['subject']}{state}: {found['reason']}")
    for name, text in _rows(found):
        yield f"  {name:<9} {printable(text)}"


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    main, *others = found["reasons"]
    if "n_before" in found:
        n, n_bytes = found["n_before"], found["bytes_before"]
        before = f"{n} transfer{'' if n == 1 else 's'} before it" if n else "first of its queue"
        yield "position", before + (f" ({size(n_bytes)})" if n_bytes else "")
    if found.get("known"):
        yield "now", f"{found['active']} running, {found['ready']} ready"
    if found["start_at"] or found["finish_at"] or "unknown" in found:
        yield "forecast", _when(found)
    if "deadline_in_s" in found:
        yield "deadline", f"it is cancelled if it still waits {_in(found['deadline_in_s'])}"
    if main.get("limit") and "used" in main:
        yield "used", _limit(main) + _kept(main)
    elif main.get("transfers"):
        yield "waiting", f"{main['transfers']} for this reason"
    for reason in others:
        if reason["code"] != "turn":
            yield "also", f"{reason['text']}{_kept(reason)}"
    if found.get("known"):
        for place in found["places"]:
            limit = "no limit" if place["limit"] is None else f"of {place['limit']}"
            yield "place", f"{place['place']}: {place['used']} {limit}"
    for decision in found.get("decisions", ())[-DECISIONS:]:
        yield "optimizer", f"{decision['at']} {decision['place']}: {_decided(decision)}"


def _decided(decision: Mapping[str, Any]) -> str:
    before, after = decision["before"], decision["after"]
    change = f"stays at {after}" if before == after else f"{before} → {after}"
    return f"{change}: {decision['reason']}"


def _limit(reason: Mapping[str, Any]) -> str:
    if reason["code"] == "bandwidth":
        return f"{size(reason['used'])}/s of {size(reason['limit'])}/s"
    if reason["code"] == "running":
        part = 100 * reason["used"] / reason["limit"]
        return f"{size(reason['used'])} of {size(reason['limit'])} ({part:.0f} %)"
    return f"{reason['used']:g} of {reason['limit']:g}"


def _kept(reason: Mapping[str, Any]) -> str:
    n = reason.get("transfers")
    return f" ({n} {'waits' if n == 1 else 'wait'} for it)" if n else ""


def _when(found: Mapping[str, Any]) -> str:
    """`starts in about 12 min, ends in about 15 min`."""
    parts = []
    if found["start_in_s"] is not None:
        parts.append(f"starts {_in(found['start_in_s'])}")
    if found["finish_in_s"] is not None:
        ends = "everything is done" if "active" in found else "ends"
        parts.append(f"{ends} {_in(found['finish_in_s'])}")
    if "unknown" in found:
        parts.append(f"nothing can be predicted{' of its end' if parts else ''}: {found['unknown']}")
    return printable(", ".join(parts) or "cannot be predicted")


def _in(seconds: float) -> str:
    """`in about 12 min`."""
    if seconds < 1:
        return "now"
    for unit_s, smaller_s, unit in _UNITS:
        if seconds + smaller_s / 2 >= 2 * unit_s:
            return f"in about {seconds / unit_s:.0f} {unit}"
    return f"in about {seconds:.0f} s"
