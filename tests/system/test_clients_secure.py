"""The unmodified clients over https: certificates with delegation, VOMS proxies, tokens of an issuer, local tokens."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.clients import ClientFailed, Worker
from tests.clients.fixtures import clients, secure_site
from tests.clients.rucio import write_config
from tests.clients.secure import VO, SecureSite
from tests.system.processes import TERMINAL, poll_until

__all__ = ["clients", "secure_site"]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

WAYS = ("certificate", "proxy", "token", "local token")


async def failure(site: SecureSite, name: str, /, *args: Any, **kwargs: Any) -> ClientFailed:
    with pytest.raises(ClientFailed) as raised:
        await site.library.call(name, *args, **kwargs)
    return raised.value


async def ended(site: SecureSite, job_id: str, context: str) -> Any:
    async def over() -> bool:
        job = await site.library.call("easy", "get_job_status", job_id, context=context)
        return job["job_state"] in TERMINAL

    await poll_until(over, within_s=30)
    return await site.library.call("easy", "get_job_status", job_id, list_files=True, context=context)


def remaining_s(info: Any) -> float:
    ends = datetime.strptime(info["termination_time"], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return (ends - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize("way", WAYS)
async def test_who_somebody_is(secure_site: SecureSite, way: str):
    await secure_site.connect(way)
    me = await secure_site.library.call("easy", "whoami", context=way)
    expected = {
        "certificate": (secure_site.alice.dn, "certificate", VO),
        "proxy": (secure_site.alice.dn, "certificate", VO),
        "token": ("alice", "oauth2", VO),
        "local token": ("script", "token", VO),
    }
    assert (me["user_dn"], me["method"], me["vos"][0]) == expected[way]
    assert not me["is_root"]
    if way == "proxy":
        assert f"/{VO}/prod/Role=production" in " ".join(me["voms_cred"])


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_from_its_submission_to_its_end(secure_site: SecureSite, way: str):
    context = await secure_site.connect(way)
    destination = secure_site.fresh()
    transfer = secure_site.pair(destination=destination)
    job_id = await secure_site.library.call("submit", [transfer], context=context, verify_checksum="both")
    job = await ended(secure_site, job_id, context)
    assert job["job_state"] == "FINISHED", job["files"]
    assert job["vo_name"] == VO
    assert job["job_metadata"]["auth_method"] == {"token": "oauth2", "local token": "token"}.get(way, "certificate")
    assert await secure_site.adler32(destination) == await secure_site.adler32(secure_site.source)
    assert job_id not in str(await secure_site.library.call("easy", "list_jobs", context=context))
    again = await secure_site.library.call("easy", "cancel", job_id, context=context)
    assert again["http_status"] == "304 Not Modified"


async def test_a_certificate_without_a_delegation_is_asked_for_one(secure_site: SecureSite):
    me = await secure_site.connect("proxy")
    path = f"/delegation/{(await secure_site.library.call('easy', 'whoami', context=me))['delegation_id']}"
    if json.loads(await secure_site.library.call("request", "get", path, context=me)):
        await secure_site.library.call("request", "delete", path, context=me)
    assert (await failure(secure_site, "request", "delete", path, context=me)).kind == "NotFound"
    body = {"files": [{"sources": [secure_site.source], "destinations": [secure_site.fresh()]}]}
    error = await failure(secure_site, "request", "post_json", "/jobs", body, context=me)
    assert error.kind == "NeedDelegation"


async def test_delegation_and_its_renewal(secure_site: SecureSite):
    context = await secure_site.connect("certificate")
    call = secure_site.library.call
    me = await call("easy", "whoami", context=context)
    assert await call("easy", "delegate", context=context, lifetime_s=3 * 3600, force=True) == me["delegation_id"]
    first = await call("delegation_info", context=context)
    assert first["voms_attrs"] == []
    assert 2.9 * 3600 < remaining_s(first) <= 3 * 3600
    # More than what is asked for is left: nothing happens.
    await call("easy", "delegate", context=context, lifetime_s=5 * 3600)
    assert await call("delegation_info", context=context) == first
    # Less is left: it is renewed.
    await call("easy", "delegate", context=context, lifetime_s=5 * 3600, delegate_when_lifetime_lt_s=4 * 3600)
    assert remaining_s(await call("delegation_info", context=context)) > 4.9 * 3600
    await call("easy", "delegate", context=context, lifetime_s=2.5 * 3600, force=True)
    assert remaining_s(await call("delegation_info", context=context)) <= 2.5 * 3600


async def test_a_voms_proxy_is_delegated_with_its_attributes(secure_site: SecureSite):
    context = await secure_site.connect("proxy")
    await secure_site.library.call("easy", "delegate", context=context, force=True)
    info = await secure_site.library.call("delegation_info", context=context)
    assert any(f"/{VO}" in attribute for attribute in info["voms_attrs"])


async def test_somebody_elses_delegation_is_not_shown(secure_site: SecureSite):
    alice = await secure_site.connect("certificate")
    other = await secure_site.connect("operator")
    theirs = (await secure_site.library.call("easy", "whoami", context=other))["delegation_id"]
    error = await failure(secure_site, "request", "get", f"/delegation/{theirs}", context=alice)
    assert error.kind == "Unauthorized"
    assert (await failure(secure_site, "request", "get", f"/delegation/{theirs}/request", context=alice)).kind == (
        "Unauthorized"
    )


async def test_jobs_of_others_do_not_exist(secure_site: SecureSite):
    alice, token = await secure_site.connect("certificate"), await secure_site.connect("token")
    job_id = await secure_site.library.call("submit", [secure_site.pair()], context=alice)
    error = await failure(secure_site, "easy", "get_job_status", job_id, context=token)
    unknown = await failure(secure_site, "easy", "get_job_status", str(uuid.uuid4()), context=token)
    assert (error.kind, unknown.kind) == ("NotFound", "NotFound")
    assert (await failure(secure_site, "easy", "cancel", job_id, context=token)).kind == "NotFound"
    operator = await secure_site.connect("operator")
    shown = await secure_site.library.call("easy", "get_job_status", job_id, context=operator)
    assert shown["job_id"] == job_id
    await ended(secure_site, job_id, alice)


async def test_only_operators_order(secure_site: SecureSite):
    alice, operator = await secure_site.connect("certificate"), await secure_site.connect("operator")
    storage = "https://nowhere.example"
    assert (await failure(secure_site, "easy", "ban_se", storage, context=alice)).kind == "Unauthorized"
    assert await secure_site.library.call("easy", "ban_se", storage, context=operator) == []
    await secure_site.library.call("easy", "unban_se", storage, context=operator)
    assert (await failure(secure_site, "easy", "cancel_all", context=alice)).kind == "Unauthorized"
    assert (await failure(secure_site, "easy", "cancel_all", VO, context=alice)).kind == "Unauthorized"


async def test_a_banned_user_is_kept_out(secure_site: SecureSite):
    alice, operator = await secure_site.connect("certificate"), await secure_site.connect("operator")
    await secure_site.library.call("easy", "ban_dn", secure_site.alice.dn, context=operator)
    error = await failure(secure_site, "submit", [secure_site.pair()], context=alice)
    assert "banned" in error.text.lower()
    await secure_site.library.call("easy", "unban_dn", secure_site.alice.dn, context=operator)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"aud": "https://elsewhere.example"},
        {"iss": "https://issuer.example"},
        {"scope": "fts", "nbf": 1 << 40},
    ],
)
async def test_a_token_that_is_no_good(secure_site: SecureSite, changes: dict[str, Any]):
    options = secure_site.options("token") | {"fts_access_token": secure_site.token(**changes)}
    error = await failure(secure_site, "connect", secure_site.endpoint, name="bad", **options)
    assert error.kind == "Unauthorized"


async def test_nobody_at_all(secure_site: SecureSite):
    context = {"capath": str(secure_site.grid.cert_dir)}
    await secure_site.library.call("connect", secure_site.endpoint, name="nobody", **context)
    body = {"files": [{"sources": [secure_site.source], "destinations": [secure_site.fresh()]}]}
    error = await failure(secure_site, "request", "post_json", "/jobs", body, context="nobody")
    assert error.kind == "Unauthorized"
    me = await secure_site.library.call("easy", "whoami", context="nobody")
    assert me["method"] == "unauthenticated"


# ---- the tools


async def test_tools_with_a_certificate(secure_site: SecureSite):
    flags = secure_site.flags("certificate")
    ran = await secure_site.tool("delegate", *flags, "-H", "9", "-f", "-v")
    assert ran.status == 0, ran.text
    assert "Delegation id: " in ran.out
    ran = await secure_site.tool("transfer-submit", *flags, "-b", "-i", "1", secure_site.source, secure_site.fresh())
    assert ran.status == 0, ran.text
    assert "Job finished with state FINISHED" in ran.out
    assert secure_site.alice.dn in (await secure_site.tool("whoami", *flags)).out


async def test_tools_with_a_token(secure_site: SecureSite):
    flags = secure_site.flags("token")
    storage = secure_site.token(aud="https://wlcg.cern.ch/jwt/v1/any", scope="storage.read:/ storage.modify:/")
    ran = await secure_site.tool(
        *("transfer-submit", *flags, "--src-access-token", storage, "--dst-access-token", storage),
        *("--unmanaged-tokens", "-b", "-i", "1", secure_site.source, secure_site.fresh()),
    )
    assert ran.status == 0, ran.text
    assert "Job finished with state FINISHED" in ran.out
    assert (await secure_site.tool("transfer-list", *flags)).status == 0


async def test_a_tool_with_one_token_for_everything(secure_site: SecureSite):
    token = secure_site.token(scope="fts storage.read:/ storage.modify:/")
    trust = ["--capath", str(secure_site.grid.cert_dir), "--access-token", token]
    ran = await secure_site.tool("transfer-submit", *trust, "-b", "-i", "1", secure_site.source, secure_site.fresh())
    assert ran.status == 0, ran.text
    assert "Job finished with state FINISHED" in ran.out


async def test_a_tool_of_an_operator(secure_site: SecureSite):
    ran = await secure_site.tool("server-status", *secure_site.flags("operator"))
    assert ran.status == 0, ran.text
    ran = await secure_site.tool("server-status", *secure_site.flags("certificate"))
    assert ran.status == 1


async def test_a_service_whose_certificate_nobody_signed(secure_site: SecureSite, tmp_path: Path):
    assert (await secure_site.tool("whoami", "--capath", str(tmp_path))).status == 1
    assert (await secure_site.tool("whoami", "--insecure")).status == 0


# ---- Rucio's transfertool


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tool(secure_site: SecureSite, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    """With the operator's certificate, as a deployment has its robot's; it delegates from cron, not by Rucio."""
    home = tmp_path_factory.mktemp("rucio")
    ran = await secure_site.tool("delegate", *secure_site.flags("operator"))
    assert ran.status == 0, ran.text
    usercert = {"use_deterministic_id": True, "usercert": secure_site.operator.file}
    async with Worker("rucio_tool", home, write_config(home, {"conveyor": usercert})) as worker:
        await worker.call("connect", secure_site.endpoint)
        yield worker


async def transfer_of(site: SecureSite) -> dict[str, Any]:
    return {
        "sources": [site.source],
        "destination": site.fresh(),
        "request_id": uuid.uuid4().hex,
        "filesize": 10_000,
        "adler32": await site.adler32(site.source),
    }


async def test_rucio_with_a_certificate(secure_site: SecureSite, tool: Worker):
    me = await tool.call("call", "whoami")
    assert (me["user_dn"], me["vos"]) == (secure_site.operator.dn, [VO])
    transfer = await transfer_of(secure_site)
    request_id = transfer["request_id"]
    job_id = await tool.call("submit", [transfer])
    assert job_id == await tool.call("expected_id", request_id) == await tool.call("submit", [transfer])

    async def over() -> bool:
        told = (await tool.call("bulk_query", {job_id: [request_id]}))[job_id]
        return bool(told) and told[request_id]["job_state"] == "FINISHED"

    await poll_until(over, within_s=30)
    assert await secure_site.adler32(transfer["destination"]) == transfer["adler32"]
    lost = str(uuid.uuid4())
    assert (await tool.call("bulk_query", {lost: ["x"], job_id: [request_id]}))[lost] is None
    assert (await tool.call("call", "update_priority", job_id, 5))["http_status"] == "304 Not Modified"
    assert (await tool.call("call", "cancel", [job_id]))["job_state"] == "FINISHED"
    assert await tool.call("call", "set_se_status", "https://nowhere.example", "down") == 0
    assert [ban["se"] for ban in await tool.call("call", "list_se_status")] == ["https://nowhere.example"]
    assert await tool.call("call", "set_se_status", "https://nowhere.example", "", ban=False) == 0


async def test_rucio_polls_with_a_token_what_it_submitted_with_a_certificate(secure_site: SecureSite, tool: Worker):
    await tool.call("connect", secure_site.endpoint, name="token", token=secure_site.token("robot"))
    me = await tool.call("call", "whoami", name="token")
    assert (me["method"], me["vos"]) == ("oauth2", [VO])
    transfer = await transfer_of(secure_site)
    job_id = await tool.call("submit", [transfer])
    asked = {job_id: [transfer["request_id"]]}
    assert (await tool.call("bulk_query", asked, name="token"))[job_id] is not None
    await tool.call("connect", secure_site.endpoint, name="stranger", token=secure_site.token("stranger"))
    assert (await tool.call("bulk_query", asked, name="stranger"))[job_id] is None
