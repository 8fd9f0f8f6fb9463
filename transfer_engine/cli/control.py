"""Commands of operators against a running job service: ban, unban, bans, hold, resume, drain."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from protocols.errors import printable
from transfer_engine.bans import parse_endpoint, storage_key
from transfer_engine.cli.client import Service, service
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import put, put_json, say, stop

EVERYBODY: Final = "*"
POLL_FIRST_S: Final = 0.2
POLL_MAX_S: Final = 5.0
_UNITS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])")


def duration_s(text: str, option: str) -> float:
    """Seconds of `90s`, `30m`, `2h`, `1.5d`. Raises: Stop: names the option."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        stop(f"{option}: expected a time such as 30m, 2h or 1d, got {text[:40]!r}", Exit.USAGE)
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BanOptions:
    """The options of `ban`, as given."""

    vo: str | None = None
    cancel: bool = False
    allow_submit: bool = False
    lasts: str | None = None
    message: str = ""


async def ban(url: str, endpoint: str, options: BanOptions, *, as_json: bool) -> Exit:
    """Ban a storage; prints the jobs that it concerns, one a line."""
    storage = parse_endpoint(endpoint, "ENDPOINT")
    if options.cancel and options.allow_submit:
        stop("--allow-submit is for bans that let transfers wait; leave out --cancel", Exit.USAGE)
    document: dict[str, Any] = {
        "storage": storage,
        "vo": options.vo or EVERYBODY,
        "status": "cancel" if options.cancel else "wait",
        "allow_submit": options.allow_submit,
        "message": options.message,
    }
    if options.lasts is not None:
        document["for_s"] = duration_s(options.lasts, "--for")
    async with service(url) as at:
        jobs = await at.ask("POST", "/ban/se", document)
    if as_json:
        put_json({"storage": storage, "jobs": jobs})
        return Exit.OK
    for job_id in jobs:
        put(job_id)
    of_whom = f" for VO {options.vo}" if options.vo else ""
    say(f"{storage} is banned{of_whom}; jobs that {'lost transfers' if options.cancel else 'wait'}: {len(jobs)}")
    return Exit.OK


async def unban(url: str, endpoint: str, *, vo: str | None) -> Exit:
    """Lift a ban; one that is not there is an error, since a misspelt name would leave the storage banned."""
    storage = parse_endpoint(endpoint, "ENDPOINT")
    wanted = vo or EVERYBODY
    async with service(url) as at:
        same = [row for row in await _rows(at) if storage_key(row["se"]) == storage_key(storage)]
        await at.ask("DELETE", "/ban/se?" + urlencode({"storage": storage, "vo": wanted}))
    if any(row["vo"] == wanted for row in same):
        return Exit.OK
    say(f"{storage} was not banned " + (f"for VO {vo}" if vo else "for everybody"))
    for row in same:
        say(f"it is banned for {_of_whom(row)}" + ("" if row["vo"] == EVERYBODY else f": --vo {row['vo']}"))
    return Exit.NOT_FOUND


def _of_whom(row: Mapping[str, Any]) -> str:
    return "everybody" if row["vo"] == EVERYBODY else f"VO {row['vo']}"


async def _rows(at: Service) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await at.ask("GET", "/ban/se")
    return rows


async def bans(url: str, *, as_json: bool) -> Exit:
    """Print the storages and users that are banned."""
    async with service(url) as at:
        storages = await _rows(at)
        users = await at.ask("GET", "/ban/dn")
    for row in [*storages, *users]:
        if as_json:
            put_json(row)
        else:
            put(_ban_line(row))
    if not storages and not users and not as_json:
        say("nothing is banned")
    return Exit.OK


def _ban_line(row: Mapping[str, Any]) -> str:
    meaning = {"CANCEL": "cancels", "WAIT": "lets wait", "WAIT_AS": "lets wait, also new ones"}
    parts = [row.get("se") or row["dn"], meaning.get(row["status"], row["status"])]
    if "se" in row:
        parts.append(_of_whom(row))
    parts.append(f"by {row['admin_dn']} since {row['addition_time']}")
    if row.get("until"):
        parts.append(f"until {row['until']}")
    if row["message"]:
        parts.append(row["message"])
    return "  ".join(printable(part) for part in parts)


async def hold(url: str, ids: Sequence[str], *, held: bool, as_json: bool) -> Exit:
    """Put jobs on hold or let them go on."""
    code = Exit.OK
    async with service(url) as at:
        for job_id in ids:
            status, value = await at.call("POST", f"/jobs/{quote(job_id, safe='')}/{'hold' if held else 'resume'}")
            if status == 200:  # noqa: PLR2004 - HTTP's own number
                if as_json:
                    put_json(value)
                else:
                    put(f"{value['job_id']}  {value['job_state']}" + ("  on hold" if value["held"] else ""))
                continue
            message = value.get("message") if isinstance(value, dict) else None
            say(f"{job_id}: {message or f'the service answers {status}'}")
            code = Exit.NOT_FOUND if status == 404 else Exit.ERROR  # noqa: PLR2004 - HTTP's own number
    return code


async def drain(url: str, *, on: bool, wait: bool, as_json: bool) -> Exit:
    """Let the node start nothing new, or work again; with `wait`, until nothing runs any more."""
    async with service(url) as at:
        await at.ask("POST", "/config/drain", {"drain": on})
        state = await at.ask("GET", "/config/drain")
        _tell(state, as_json=as_json)
        pause = POLL_FIRST_S
        while wait and on and state["running"]:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, POLL_MAX_S)
            before, state = state["running"], await at.ask("GET", "/config/drain")
            if not state["drain"]:
                stop("somebody has ended the drain", Exit.ERROR)
            if state["running"] != before:
                _tell(state, as_json=as_json)
    return Exit.OK


def _tell(state: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        put_json(state)
    elif not state["drain"]:
        put(f"{state['hostname']} works")
    elif state["running"]:
        eta = f", the last ends in about {state['eta_s']:.0f} s" if state["eta_s"] is not None else ""
        put(f"{state['hostname']} drains: {state['running']} transfers run{eta}")
    else:
        put(f"{state['hostname']} is drained: nothing runs, nothing is started")
