"""Transfers with every kind of credential, to storages that take them and to storages that quote them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.canaries.deeds import local
from tests.canaries.world import World
from tests.system.processes import TERMINAL, poll_until

OWN = ("answers", "database", "messages")
"""Where a URL is as its owner has written it."""
WITHIN_S = 40.0


def _pair(world: World, source: str, destination: str, *, left_s: int = 3600) -> dict[str, Any]:
    tokens = [world.storage_token(f"{side} token", left_s=left_s) for side in ("source", "destination")]
    return world.file(source, destination, source_tokens=tokens[:1], destination_tokens=tokens[1:])


def _signed(world: World, source: str, destination: str) -> dict[str, Any]:
    """A file whose URLs have secrets of their own."""
    names = ("X-Amz-Signature", "sig")
    first, second = (world.cage.lay(f"{name} in a URL", but=OWN) for name in names)
    authz = world.cage.lay("authz in a URL", but=OWN[:2])
    return world.file(f"{source}?X-Amz-Signature={first}&x=1", f"{destination}?sig={second}&authz=Bearer%20{authz}")


async def _accepted(world: World, *files: dict[str, Any], **how: Any) -> str:
    status, text = await world.submit(files, **how)
    assert status == 200, text
    return str(json.loads(text)["job_id"])


async def _ended(world: World, job_id: str) -> list[dict[str, Any]]:
    async def over() -> bool:
        return json.loads((await world.ask("GET", f"/jobs/{job_id}", headers=local(world)))[1])["job_state"] in TERMINAL

    try:
        await poll_until(over, within_s=WITHIN_S, every_s=0.2)
    except TimeoutError:
        why = await world.ask("GET", f"/jobs/{job_id}/explain", headers=local(world))
        raise AssertionError(f"the job does not end: {why}") from None
    for path in (f"/jobs/{job_id}/explain", f"/jobs/{job_id}?files=reason"):
        assert (await world.ask("GET", path, headers=local(world)))[0] == 200
    files: list[dict[str, Any]] = json.loads((await world.ask("GET", f"/jobs/{job_id}/files", headers=local(world)))[1])
    for file in files:
        retries = f"/jobs/{job_id}/files/{file['file_id']}/retries"
        assert (await world.ask("GET", retries, headers=local(world)))[0] == 200
    return files


def _trouble(world: World, run: str, make: Any) -> list[dict[str, Any]]:
    """Files to and from places that refuse and quote."""
    places = [("/401/f", f"/new/{run}1"), ("/403/f", f"/new/{run}2"), ("/500/f", f"/new/{run}3"), ("/gone/f", "/new/4")]
    places += [("/there/f", f"/{kind}/{run}") for kind in ("401", "403", "500", "copy", "copy401", "copy500")]
    return [make(world, *place) for place in places]


async def copy_everything(world: World, run: str) -> list[dict[str, Any]]:
    """One job of each kind: all that may succeed, and all that fails. Returns their files."""
    bearer = {"Authorization": f"Bearer {world.bearer(f'bearer of {run}')}"}
    good: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
        ([_pair(world, "/there/t", f"/new/{run}/tokens")], {"headers": bearer}),
        ([_pair(world, "/there/r", f"/new/{run}/renewed", left_s=120)], {"headers": bearer}),
        ([_signed(world, "/there/s", f"/new/{run}/signed")], {"headers": local(world)}),
        ([world.file("/there/p", f"/new/{run}/proxy")], {"by": world.alice}),
    ]
    bad: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
        (_trouble(world, f"{run}-tokens", _pair), {"headers": bearer}),
        (_trouble(world, f"{run}-local", _signed), {"headers": local(world)}),
        (_trouble(world, f"{run}-proxy", World.file), {"by": world.alice}),
    ]
    jobs = [await _accepted(world, *files, **how) for files, how in (*good, *bad)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ended(world, job_id)) for job_id in jobs]
    ended = [task.result() for task in tasks]
    for files in ended[: len(good)]:
        assert {file["file_state"] for file in files} == {"FINISHED"}, files[0]["reason"]
    for files in ended[len(good) :]:
        assert {file["file_state"] for file in files} == {"FAILED"}
    return [file for files in ended for file in files]


async def renew_in_vain(world: World) -> str:
    """A token that ends while its issuer thinks about another one, refuses, and quotes it; the reason."""
    bearer = {"Authorization": f"Bearer {world.bearer('bearer of a vain try')}"}
    world.issuer.repeats = refuses = asyncio.Event()
    until = world.issuer.clock.now() + 4
    # Of somebody for whom nothing has been had before.
    token = world.storage_token("token not renewed", left_s=3, subject="nobody")
    file = world.file("/there/v", "/new/vain", source_tokens=[token], destination_tokens=[token])
    job_id = await _accepted(world, file, headers=bearer)

    async def over() -> bool:
        return world.issuer.clock.now() > until

    await poll_until(over, within_s=WITHIN_S, every_s=0.2)
    refuses.set()
    files = await _ended(world, job_id)
    world.issuer.repeats = None
    return str(files[0]["reason"])
