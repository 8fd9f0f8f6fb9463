"""Every command-line tool of the unmodified `fts3` 3.14.2 wheel, with its output and exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.clients import Ran
from tests.clients.fixtures import clients, site
from tests.clients.site import Site
from tests.clients.venv import VENV, tool

__all__ = ["clients", "site"]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TRIED = {
    *("fts-rest-ban", "fts-rest-delegate", "fts-rest-delete-submit", "fts-rest-server-status"),
    *("fts-rest-transfer-cancel", "fts-rest-transfer-list", "fts-rest-transfer-status", "fts-rest-transfer-submit"),
    "fts-rest-whoami",
}


def job_of(ran: Ran) -> str:
    assert ran.status == 0, ran.text
    assert "Job successfully submitted." in ran.text
    found = re.search(r"Job id: (\S+)", ran.text)
    assert found, ran.text
    return found[1]


async def test_no_tool_is_left_out(clients: None):
    assert {path.name for path in (VENV / "bin").glob("fts-*")} == TRIED


async def test_submit_and_wait(site: Site):
    ran = await site.tool("transfer-submit", "-b", "-i", "1", "-p", "4", site.source, destination := site.fresh())
    job_id = job_of(ran)
    assert "Job finished with state FINISHED" in ran.text
    job = await site.ended(job_id)
    assert (job["priority"], job["verify_checksum"]) == (4, "n")
    assert await site.adler32(destination) == await site.adler32(site.source)


async def test_submit_and_wait_for_what_fails(site: Site):
    ran = await site.tool("transfer-submit", "-b", "-i", "1", site.source + "-gone", site.fresh())
    assert ran.status == 0
    assert "Job finished with state FAILED" in ran.text
    assert "Reason: One or more files failed." in ran.text


@pytest.mark.parametrize(("mode", "letter"), [("both", "b"), ("source", "s"), ("target", "t"), ("none", "n")])
async def test_submit_with_a_checksum(site: Site, mode: str, letter: str):
    checksum = f"ADLER32:{await site.adler32(site.source)}"
    ran = await site.tool("transfer-submit", "-C", mode, site.source, site.fresh(), checksum)
    job = await site.ended(job_of(ran))
    assert (job["job_state"], job["verify_checksum"]) == ("FINISHED", letter)


async def test_submit_with_every_option_that_a_disk_understands(site: Site):
    ran = await site.tool(
        *("transfer-submit", "-K", "-o", "-r", "--job-metadata", '{"a": 1}', "--file-metadata", "text"),
        *("--file-size", "10000", "-t", "D", "-S", "S", "--dst-file-report", "--timeout", "100", "--retry", "3"),
        *("--nostreams", "2", "--ipv4", "--s3alternate", "--buffer-size", "1024", "--strict-copy"),
        *("--disable-cleanup", "--activity", "Debug", "--scitag", "66", "--cloud-credentials", "dropbox"),
        *("-g", "x", "--fail-nearline", "--unmanaged-tokens", site.source, site.fresh()),
    )
    job = await site.ended(job_of(ran))
    assert (job["job_state"], job["job_type"], job["retry"], job["overwrite_flag"]) == ("FINISHED", "Y", 3, "Y")
    assert job["job_metadata"]["a"] == 1
    told = "nostreams:2,timeout:100,buffersize:1024,strict,disable-cleanup,ipv4,s3alternate"
    assert job["internal_job_params"] == told
    (file,) = job["files"]
    assert (file["activity"], file["scitag"], file["file_metadata"]) == ("Debug", 66, {"label": "text"})


async def test_submit_in_bulk(site: Site, tmp_path: Path):
    (bulk := tmp_path / "bulk.json").write_text(
        json.dumps(
            {
                "files": [
                    {"sources": [site.source], "destinations": [site.fresh()], "metadata": "m", "filesize": 10_000},
                    {"sources": [site.source], "destinations": [site.fresh()], "activity": "default"},
                ],
                "params": {"verify_checksum": "b", "priority": 2},
            }
        )
    )
    job = await site.ended(job_of(await site.tool("transfer-submit", "-f", str(bulk))))
    assert (job["job_state"], len(job["files"]), job["priority"]) == ("FINISHED", 2, 2)
    ran = await site.tool("transfer-submit", "-j", "-f", str(bulk))
    assert ran.status == 0
    assert JOB_ID.search(ran.text)


async def test_submit_several_hops(site: Site, tmp_path: Path):
    middle = site.fresh(1)
    hops = [
        {"sources": [site.source], "destinations": [middle]},
        {"sources": [middle], "destinations": [site.fresh(2)]},
    ]
    (bulk := tmp_path / "hops.json").write_text(json.dumps({"files": hops}))
    job = await site.ended(job_of(await site.tool("transfer-submit", "-m", "--overwrite-hop", "-f", str(bulk))))
    assert (job["job_state"], job["job_type"], job["overwrite_flag"]) == ("FINISHED", "H", "M")


async def test_a_submission_is_only_shown(site: Site):
    ran = await site.tool("transfer-submit", "--dry-run", site.source, site.fresh())
    assert ran.status == 0
    assert json.loads(ran.out)["files"][0]["sources"] == [site.source]


async def test_a_submission_is_refused(site: Site):
    ran = await site.tool("transfer-submit", "nowhere", site.fresh())
    assert ran.status == 1
    assert "Missing scheme" in ran.text


async def test_status(site: Site):
    job_id = job_of(await site.tool("transfer-submit", site.source, site.fresh()))
    await site.ended(job_id)
    ran = await site.tool("transfer-status", job_id)
    assert ran.status == 0
    for line in (f"Request ID: {job_id}", "Status: FINISHED", "Reason: None", "Priority: 3", "VO Name: "):
        assert line in ran.text
    ran = await site.tool("transfer-status", "-j", job_id)
    shown = json.loads(ran.out)
    assert (shown["job_id"], len(shown["files"]), shown["dm"]) == (job_id, 1, [])
    ran = await site.tool("transfer-status", "00000000-0000-4000-8000-000000000000")
    assert ran.status == 1
    assert "Not found" in ran.text


async def test_list_and_cancel(site: Site):
    async with site.drained():
        job_id = job_of(await site.tool("transfer-submit", site.source, site.fresh()))
        ran = await site.tool("transfer-list", "--source", site.se(0), "--destination", site.se(1))
        assert ran.status == 0
        assert f"Request ID: {job_id}" in ran.text
        ran = await site.tool("transfer-list", "-j", "-o", "local")
        assert job_id in {job["job_id"] for job in json.loads(ran.out)}
        assert job_id not in (await site.tool("transfer-list", "-u", "nobody")).text
        ran = await site.tool("transfer-cancel", job_id)
        assert (ran.status, ran.out.strip()) == (0, "CANCELED")


async def test_cancel_files(site: Site, tmp_path: Path):
    files = [{"sources": [site.source], "destinations": [site.fresh()]} for _ in range(2)]
    (bulk := tmp_path / "bulk.json").write_text(json.dumps({"files": files}))
    async with site.drained():
        job_id = job_of(await site.tool("transfer-submit", "-f", str(bulk)))
        shown = json.loads((await site.tool("transfer-status", "-j", job_id)).out)
        one, two = [str(file["file_id"]) for file in shown["files"]]
        assert (await site.tool("transfer-cancel", f"{job_id}:{one}")).out.strip() == "CANCELED"
        assert (await site.tool("transfer-cancel", f"{job_id}:{one},{two}")).out.split() == ["CANCELED", "CANCELED"]


async def test_ban(site: Site):
    ran = await site.tool("ban", "--storage", site.se(2))
    assert (ran.status, ran.out.strip()) == (0, "No jobs affected")
    refused = await site.tool("transfer-submit", site.source, site.fresh(2))
    assert refused.status == 1
    assert f"{site.se(2)} is banned" in refused.text
    assert (await site.tool("ban", "--storage", site.se(2), "--unban")).status == 0
    async with site.drained():
        job_id = job_of(await site.tool("transfer-submit", site.source, site.fresh(2)))
        ran = await site.tool("ban", "--storage", site.se(2), "--status", "wait", "--timeout", "60", "--allow-submit")
        assert ran.out.split() == ["Affected", "jobs:", job_id]
        assert (await site.tool("ban", "--storage", site.se(2), "--unban")).status == 0
        await site.tool("transfer-cancel", job_id)
    assert (await site.tool("ban", "--user", "/CN=nobody")).out.strip() == "No jobs affected"
    assert (await site.tool("ban", "--user", "/CN=nobody", "--unban")).status == 0


async def test_whoami(site: Site):
    ran = await site.tool("whoami")
    me = await site.library.call("easy", "whoami")
    assert ran.status == 0
    for line in (f"User DN: {me['dn'][0]}", f"VO: {me['vos'][0]}", f"Delegation id: {me['delegation_id']}"):
        assert line in ran.text
    assert json.loads((await site.tool("whoami", "-j")).out) == me


async def test_delegate(site: Site):
    me = await site.library.call("easy", "whoami")
    ran = await site.tool("delegate", "-v")
    assert ran.status == 0
    assert f"Delegation id: {me['delegation_id']}" in ran.text


async def test_server_status(site: Site):
    ran = await site.tool("server-status")
    assert ran.status == 0, ran.text
    (host,) = (await site.ask("GET", "/status/hosts"))[1]
    assert ran.out.split("\n")[0] == host
    assert (await site.tool("server-status", "-H", host, "--is-active")).status == 0


async def test_deletions_are_not_done(site: Site):
    ran = await site.tool("delete-submit", site.source)
    assert ran.status == 1
    assert "Deletion jobs are no longer supported by FTS" in ran.text


async def test_a_service_that_is_not_there(site: Site):
    ran = await tool("fts-rest-whoami", "-s", "http://127.0.0.1:9", home=site.home)
    assert ran.status == 1
    assert "Bad endpoint" in ran.text
