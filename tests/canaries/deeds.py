"""What users do, right and wrong, with all their secrets."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import aiohttp

from tests.canaries.world import World
from tests.grid import key_pem

READS = (
    "/", "/whoami", "/jobs", "/config/audit", "/openapi.json", "/explain", "/links", "/optimizer/history",
    "/status/hosts", "/health/storages", "/config", "/config/global", "/config/se", "/config/authorize", "/archive",
    "/files", "/ban/se", "/ban/dn", "/api-docs/schema/submit", "/autocomplete/dn", "/nowhere",
)  # fmt: skip


def local(world: World) -> dict[str, str]:
    return {"Authorization": f"Bearer {world.local.reveal()}"}


async def log_in(world: World) -> None:
    """Everybody comes in, and then everything is shown wrongly."""
    bearer = world.bearer()
    assert (await world.ask("GET", "/whoami", headers=local(world)))[0] == 200
    assert (await world.ask("GET", "/whoami", headers={"Authorization": f"Bearer {bearer}"}))[0] == 200
    assert (await world.ask("GET", "/whoami", by=world.alice))[0] == 200
    pem = world.cage.keep("forwarded certificate", world.proxy.pem_chain.decode(), but=["answers"])
    shown = {"X-SSL-Client-Verify": "SUCCESS", "X-SSL-Client-Cert": quote(pem)}
    assert (await world.ask("GET", "/whoami", headers=shown, front=True))[0] == 200
    assert (await world.ask("GET", "/whoami", headers=shown))[0] == 403, "nobody else may say so"
    for headers in ({"X-SSL-Client-Cert": quote(pem)}, {**shown, "X-SSL-Client-Cert": quote(pem[:900])}):
        assert (await world.ask("GET", "/whoami", headers=headers, front=True))[0] in {401, 403}
    for name in ("bearer", "local token", "key of alice", "client secret", "macaroon"):
        await _show_wrongly(world, world.cage.known.get(name) or world.cage.lay(name))
    stranger = world.bearer("stranger", iss="https://elsewhere.example/")
    old = world.bearer("old", exp=1)
    cut = world.cage.keep("bearer of another", world.bearer("other")).rpartition(".")[0] + ".AAAA"
    for token in (stranger, old, cut):
        assert (await world.ask("GET", "/whoami", headers={"Authorization": f"Bearer {token}"}))[0] == 403


async def _show_wrongly(world: World, secret: str) -> None:
    value = secret.replace("\n", "")
    basic = base64.b64encode(f"user:{value}".encode()).decode()
    for authorization in (
        f"Bearer {value[:-5]}", f"Bearer {value}x", f"Bearer te_{value}", f"Basic {basic}", value, f"Token {value}",
        f"Bearer {value} {value}", f"Bearer {base64.b64encode(value.encode()).decode()}", "Bearer " + value * 3,
    ):  # fmt: skip
        status, _ = await world.ask("GET", "/jobs", headers={"Authorization": authorization})
        assert status in {401, 403}, (status, authorization)
    for headers in ({"X-Auth-Token": value}, {"Cookie": f"token={value}"}, {"X-SSL-Client-S-DN": f"/CN={value}"}):
        assert (await world.ask("GET", "/jobs", headers=headers))[0] in {401, 403}
    escaped = quote(value, safe="")
    for path in (
        f"/jobs?authz=Bearer%20{escaped}", f"/whoami?access_token={escaped}", f"/jobs/{escaped}",
        f"/{escaped}", f"/jobs?state_in={escaped}", f"/jobs?limit={escaped}",
        f"/delegation/{escaped}/request", f"/events?after={escaped}",
    ):  # fmt: skip
        for headers in ({}, local(world)):
            # A word that looks like nothing is repeated to whoever asked for a job of that name.
            if not (path.startswith("/jobs/canary-") and headers):
                assert (await world.ask("GET", path, headers=headers))[0] < 500


async def delegate(world: World) -> None:
    """A delegation, after everything that can be sent in place of the proxy."""
    _, text = await world.ask("GET", "/whoami", by=world.alice)
    path = f"/delegation/{json.loads(text)['delegation_id']}"
    assert (await world.submit([world.file("/there/a", "/new/a")], by=world.alice))[0] == 419
    status, request = await world.ask("GET", path + "/request", by=world.alice)
    assert status == 200
    world.open_vault()
    key = key_pem(world.alice.key)
    for upload in (key, world.alice.pem, world.proxy.pem, key[:400], world.local.reveal().encode(), b"{" + key + b"}"):
        assert (await world.ask("PUT", path + "/credential", by=world.alice, data=upload))[0] == 400
        assert (await world.ask("POST", path + "/voms", by=world.alice, data=upload))[0] >= 400
    assert (await world.ask("PUT", path + "/credential", by=world.alice, data=world.signed(request)))[0] == 201
    world.open_vault()
    for page in (path, "/delegation", "/whoami/certificate"):
        assert (await world.ask("GET", page, by=world.alice))[0] == 200
    assert any(name.startswith("key in") for name in world.cage.known)


async def submit_wrongly(world: World) -> None:
    """Secrets where they do not belong."""
    bearer = {"Authorization": f"Bearer {world.bearer('bearer of a submission')}"}
    good = world.file("/there/x", "/new/x")
    token = world.storage_token("token in a wrong place")
    wrong: list[dict[str, Any]] = [
        {"source_tokens": [token]},
        {"source_tokens": token, "destination_tokens": [token]},
        {"source_tokens": [token, token], "destination_tokens": [token]},
        {"source_tokens": [token + "x"], "destination_tokens": [token]},
        {"source_tokens": [token.rpartition(".")[0]], "destination_tokens": [token]},
        {"source_tokens": [{"token": token}], "destination_tokens": [token]},
        {"source_tokens": [world.local.reveal()], "destination_tokens": [token]},
        {"source_tokens": [key_pem(world.alice.key).decode()], "destination_tokens": [token]},
        {"sources": [token]},
        {"sources": [f"https://user:{world.cage.lay('password in a URL')}@h.example/f"]},
        {"sources": [f"https://h.example?authz=Bearer%20{token}"]},
        {"sources": [f"https://h.example/f?authz=Bearer {token}"]},
        {"checksum": token},
        {"filesize": token},
        {"selection_strategy": token},
        {"file_metadata": [token], "nonsense": token},
    ]
    for change in wrong:
        status, text = await world.submit([{**good, **change}], headers=bearer)
        assert status == 400 or "nonsense" in change, text
    for body in (f'{{"files": "{token}', f'["{token}"]', f'"{token}"', f'{{"{token}": 1}}', token, f"token={token}"):
        assert (await world.ask("POST", "/jobs", headers=bearer, data=body))[0] in {400, 415}
    for params in (
        {"priority": token},
        {"retry": token},
        {"verify_checksum": token},
        {token: 1},
        {"credential": token},
    ):
        await world.ask("POST", "/jobs", headers=bearer, json={"files": [good], "params": params})


async def give_orders(world: World) -> None:
    """Secrets in the bodies of what operators send, and every page that there is."""
    token = world.bearer("token in an order")
    for path in ("/ban/se", "/ban/dn", "/config/drain", "/config/global", "/config/links", "/config/shares",
                 "/config/se", "/config/authorize", "/admin/force-start"):  # fmt: skip
        for body in (token, {"storage": token}, {token: token}, {"message": 7, "drain": token}, {"file_ids": [token]}):
            assert (await world.ask("POST", path, headers=local(world), json=body))[0] < 500
    # Some of these have begun one: an order without `drain` is one to drain.
    assert (await world.ask("POST", "/config/drain", headers=local(world), json={"drain": False}))[0] == 200
    for path in READS:
        for headers in (local(world), {}):
            assert (await world.ask("GET", path, headers=headers))[0] < 500


async def follow_events(world: World) -> None:
    """The events so far, as a browser gets them."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
        headers = {**local(world), "Last-Event-ID": "0"}
        async with http.get(f"{world.url}/events?after=0", headers=headers) as answer:
            assert answer.status == 200
            text = b""
            while b"FINISHED" not in text or b"FAILED" not in text:
                part = await answer.content.readany()
                assert part
                text += part
            world.answers.append(text)
