"""Questions, cancellations, bans and refusals, as the unmodified `fts3` 3.14.2 library sees them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.clients import ClientFailed
from tests.clients.fixtures import clients, site
from tests.clients.site import Site
from tests.service import running_service
from transfer_engine.errors import StoreUnavailable

__all__ = ["clients", "site"]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

GONE = "00000000-0000-4000-8000-000000000000"


async def failure(site: Site, name: str, /, *args: Any, **kwargs: Any) -> ClientFailed:
    with pytest.raises(ClientFailed) as raised:
        await site.library.call(name, *args, **kwargs)
    return raised.value


async def submit(site: Site, n_files: int = 1, **params: Any) -> str:
    return await site.library.call("submit", [site.pair() for _ in range(n_files)], **params)


async def listed(site: Site, **filters: Any) -> list[str]:
    return [job["job_id"] for job in await site.library.call("easy", "list_jobs", **filters)]


# ---- questions


async def test_one_job_that_is_not_there(site: Site):
    error = await failure(site, "easy", "get_job_status", GONE)
    assert (error.kind, error.text) == ("NotFound", f"Not found: {GONE}")
    error = await failure(site, "request", "get", f"/jobs/{GONE}")
    assert error.kind == "NotFound"
    assert f'"{GONE}"' in error.text
    error = await failure(site, "request", "get", f"/jobs/{GONE}/files")
    assert (error.kind, error.text) == ("NotFound", f'No job with the id "{GONE}" has been found')


async def test_many_jobs_at_once(site: Site):
    ids = [await submit(site) for _ in range(2)]
    jobs = await site.library.call("easy", "get_jobs_statuses", ids)
    assert [job["job_id"] for job in jobs] == ids
    assert {job["http_status"] for job in jobs} == {"200 Ok"}
    for job_id in ids:
        await site.ended(job_id)
    jobs = await site.library.call("easy", "get_jobs_statuses", ids, list_files=True)
    asked = {"file_state", "dest_surl", "finish_time", "start_time", "reason", "source_surl", "file_metadata"}
    assert [set(job["files"][0]) for job in jobs] == [asked, asked]


async def test_many_jobs_of_which_one_is_not_there(site: Site):
    known = await submit(site)
    error = await failure(site, "easy", "get_jobs_statuses", [known, GONE])
    # The library takes 207 for a failure; as with FTS3 the jobs that exist have no message, and it shows the body.
    assert error.kind == "ClientError"
    status, jobs = await site.ask("GET", f"/jobs/{known},{GONE}")
    assert status == 207
    assert [job["http_status"] for job in jobs] == ["200 Ok", "404 Not Found"]
    assert jobs[1]["http_message"] == f'No job with the id "{GONE}" has been found'
    assert error.text.startswith("Client error: [")


async def test_lists_and_their_filters(site: Site):
    me = await site.library.call("easy", "whoami")
    async with site.drained():
        near = await submit(site)
        far = await site.library.call("submit", [site.pair(destination=site.fresh(2))])
        assert {near, far} <= set(await listed(site))
        assert {near, far} <= set(await listed(site, vo=me["vos"][0]))
        assert {near, far} <= set(await listed(site, user_dn=me["user_dn"]))
        assert await listed(site, vo="another-vo") == []
        assert near in (only := await listed(site, dest_se=site.se(1)))
        assert far not in only
        assert {near, far} <= set(await listed(site, source_se=site.se(0), state_in=["SUBMITTED", "ACTIVE"]))
        assert far not in await listed(site, state_in=["ACTIVE"], delegation_id=me["delegation_id"])
        assert {near, far} <= set(await listed(site, delegation_id=me["delegation_id"]))
    for job_id in (near, far):
        await site.ended(job_id)
    assert not {near, far} & set(await listed(site))
    error = await failure(site, "easy", "list_jobs", delegation_id="0123456789abcdef")
    assert error.text == "Unauthorized: The provided delegation id does not match your delegation id"
    error = await failure(site, "easy", "list_jobs", user_dn="/CN=somebody else")
    assert "The provided DN and delegation id do not correspond to the same user" in error.text


async def test_lists_with_what_the_library_cannot_ask(site: Site):
    job_id = await submit(site)
    await site.ended(job_id)
    _, jobs = await site.ask("GET", "/jobs?state_in=FINISHED&limit=1&fields=job_id,job_state")
    assert jobs == [{"job_id": job_id, "job_state": "FINISHED"}]
    _, jobs = await site.ask("GET", "/jobs?state_in=FINISHED&time_window=1")
    assert job_id in {job["job_id"] for job in jobs}
    assert (await site.ask("GET", "/jobs?state_in=FINISHED"))[1] == []
    status, error = await site.ask("GET", "/jobs?limit=501")
    assert (status, error["message"]) == (400, "The limit must be positive and less or equal than 500")


# ---- cancellations


async def test_a_job_is_cancelled(site: Site):
    async with site.drained():
        job_id = await submit(site, 2)
        job = await site.library.call("easy", "cancel", job_id)
        assert (job["job_state"], job["http_status"], job["http_message"]) == ("CANCELED", "200 Ok", None)
        again = await site.library.call("easy", "cancel", job_id)
        assert (again["job_state"], again["http_status"]) == ("CANCELED", "304 Not Modified")
        assert again["http_message"] == "The job is in a terminal state"
    assert (await failure(site, "easy", "cancel", GONE)).kind == "NotFound"


async def test_files_are_cancelled(site: Site):
    async with site.drained():
        job_id = await submit(site, 3)
        shown = await site.library.call("easy", "get_job_status", job_id, list_files=True)
        one, two, three = [file["file_id"] for file in shown["files"]]
        assert await site.library.call("easy", "cancel", job_id, [one]) == "CANCELED"
        told = await site.library.call("easy", "cancel", job_id, [two, 999_999_999])
        assert told == ["CANCELED", "File does not belong to the job"]
    job = await site.ended(job_id)
    states = {file["file_id"]: file["file_state"] for file in job["files"]}
    assert states == {one: "CANCELED", two: "CANCELED", three: "FINISHED"}
    assert await site.library.call("easy", "cancel", job_id, [three]) == "FINISHED"


async def test_files_of_a_multihop_job_are_cancelled_at_once_only(site: Site):
    middle = site.fresh(1)
    hops = [site.pair(destination=middle), site.pair(source=middle, destination=site.fresh(2))]
    async with site.drained():
        job_id = await site.library.call("submit", hops, multihop=True)
        shown = await site.library.call("easy", "get_job_status", job_id, list_files=True)
        error = await failure(site, "easy", "cancel", job_id, [shown["files"][0]["file_id"]])
        assert error.text == "Client error: Bad request: Multihop or reuse jobs must be cancelled at once (H)"
        assert (await site.library.call("easy", "cancel", job_id))["job_state"] == "CANCELED"


async def test_everything_is_cancelled(site: Site):
    (vo,) = (await site.library.call("easy", "whoami"))["vos"]
    async with site.drained():
        ids = [await submit(site, 2) for _ in range(2)]
        told = await site.library.call("easy", "cancel_all", vo)
        assert told == {"affected_files": 4, "affected_dm": 0, "affected_jobs": 2}
        jobs = await site.library.call("easy", "get_jobs_statuses", ids)
        assert {job["job_state"] for job in jobs} == {"CANCELED"}
        job_id = await submit(site)
        told = await site.library.call("easy", "cancel_all")
        assert told == {"affected_files": 1, "affected_dm": 0, "affected_jobs": 1}
        assert (await site.library.call("easy", "get_job_status", job_id))["job_state"] == "CANCELED"


async def test_the_priority_is_changed(site: Site):
    async with site.drained():
        job_id = await submit(site)
        answer = await site.library.call("request", "post_json", f"/jobs/{job_id}", {"params": {"priority": 5}})
        assert '"priority":5' in answer.replace(" ", "")
        error = await failure(site, "request", "post_json", f"/jobs/{job_id}", {"params": {"priority": "high"}})
        assert error.kind == "ClientError"
        await site.library.call("easy", "cancel", job_id)


# ---- bans


async def test_a_storage_is_banned_and_what_waits_for_it_is_cancelled(site: Site):
    async with site.drained():
        job_id = await submit(site)
        assert job_id in await site.library.call("easy", "ban_se", site.se(1))
        job = await site.library.call("easy", "get_job_status", job_id, list_files=True)
        assert (job["job_state"], job["files"][0]["reason"]) == ("CANCELED", "Storage banned")
        error = await failure(site, "submit", [site.pair()])
        assert error.kind == "Unauthorized"
        assert f"{site.se(1)} is banned" in error.text
        await site.library.call("easy", "unban_se", site.se(1))
    assert (await site.ended(await submit(site)))["job_state"] == "FINISHED"


async def test_a_banned_storage_is_waited_for(site: Site):
    async with site.drained():
        waiting = await submit(site)
        assert await site.library.call("easy", "ban_se", site.se(1), status="wait", timeout=60, allow_submit=True)
    try:
        later = await submit(site)
        job = await site.library.call("easy", "get_job_status", later, list_files=True)
        assert (job["job_state"], job["files"][0]["file_state"]) == ("SUBMITTED", "ON_HOLD")
        _, bans = await site.ask("GET", "/ban/se")
        assert [(ban["se"], ban["status"]) for ban in bans] == [(site.se(1), "WAIT_AS")]
    finally:
        await site.library.call("easy", "unban_se", site.se(1))
    for job_id in (waiting, later):
        assert (await site.ended(job_id))["job_state"] == "FINISHED"


async def test_a_ban_that_contradicts_itself(site: Site):
    error = await failure(site, "easy", "ban_se", site.se(1), status="cancel", allow_submit=True)
    assert error.kind == "ClientError"
    assert "allow_submit and status = CANCEL can not be combined" in error.text


async def test_a_user_is_banned(site: Site):
    user = f"/C=XX/O=grid/CN={uuid.uuid4().hex}"
    assert await site.library.call("easy", "ban_dn", user) == []
    _, bans = await site.ask("GET", "/ban/dn")
    assert [ban["dn"] for ban in bans] == [user]
    await site.library.call("easy", "unban_dn", user)
    assert (await site.ask("GET", "/ban/dn"))[1] == []
    error = await failure(site, "request", "delete", "/ban/dn")
    assert error.text == "Client error: Bad request: Missing user_dn parameter"
    me = (await site.library.call("easy", "whoami"))["user_dn"]
    error = await failure(site, "easy", "ban_dn", me)
    assert error.text == "Client error: 409"


# ---- refusals: the class that the library makes of each status


async def test_what_a_bad_submission_gets(site: Site):
    error = await failure(site, "submit", [])
    assert (error.kind, error.text) == ("ClientError", "Client error: Bad request: No transfers operations specified")
    error = await failure(site, "submit", [site.pair(source="nowhere")])
    assert error.text.startswith("Client error: Bad request: Invalid value within the request: Missing scheme")
    error = await failure(site, "submit", [site.pair(source="file:///etc/passwd")])
    assert "Can not transfer local files" in error.text


async def test_deletions_are_not_done(site: Site):
    error = await failure(site, "submit_deletion", [site.source])
    assert (error.kind, error.text) == (
        "MethodNotAllowed",
        "Method Not Allowed: Deletion jobs are no longer supported by FTS",
    )


async def test_a_wrong_method_and_a_wrong_path(site: Site):
    assert (await failure(site, "request", "delete", "/whoami")).kind == "MethodNotAllowed"
    assert (await failure(site, "request", "get", "/no/such/path/at/all")).kind == "NotFound"


async def test_somebody_elses_credential(site: Site):
    error = await failure(site, "request", "get", "/delegation/0123456789abcdef")
    assert (error.kind, error.kinds[1]) == ("Unauthorized", "FTS3ClientException")


async def test_nothing_to_delegate_without_a_certificate(site: Site):
    me = await site.library.call("easy", "whoami")
    assert await site.library.call("easy", "delegate") == me["delegation_id"]


async def test_a_database_that_is_away_is_no_job_that_is_gone(site: Site):
    async with running_service() as service:
        job_id = await service.submit()
        await site.library.call("connect", service.url, name="standing")
        service.engine.unreadable = StoreUnavailable("the database is locked")
        error = await failure(site, "easy", "get_job_status", job_id, context="standing")
        assert (error.kind, error.kinds[1]) == ("TryAgain", "ServerError")
        error = await failure(site, "easy", "list_jobs", context="standing")
        assert error.kind == "TryAgain"
        service.engine.unreadable, service.engine.fails = None, StoreUnavailable("the disk is full")
        body = {"files": [{"sources": [site.source], "destinations": [site.fresh()]}]}
        error = await failure(site, "request", "post_json", "/jobs", body, context="standing")
        assert error.kind == "TryAgain"
        service.engine.fails = None
        assert (await site.library.call("easy", "get_job_status", job_id, context="standing"))["job_id"] == job_id


async def test_what_no_service_answers(site: Site):
    error = await failure(site, "connect", "http://127.0.0.1:9", name="dead")
    assert error.kind == "BadEndpoint"
