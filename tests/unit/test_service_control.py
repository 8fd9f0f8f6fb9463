"""Bans, drain and holds over a real socket, as FTS's clients and operators see them."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from tests.service import NOW, Service, file, running_service
from transfer_engine.banning import Moving
from transfer_engine.callers import Caller
from transfer_engine.service.wire.control import BanObject, DrainObject, UserBanObject
from transfer_engine.service.wire.views import HOST

pytestmark = pytest.mark.asyncio

SOURCE = "https://source.example"


async def states(service: Service, job_id: str) -> list[tuple[str, Any]]:
    _, files = await service.call("GET", f"/jobs/{job_id}/files")
    return [(one["file_state"], one["reason"]) for one in files]


async def ban(service: Service, **document: Any) -> tuple[int, Any]:
    return await service.call("POST", "/ban/se", {"storage": SOURCE, **document})


async def test_a_ban_cancels_what_waits_as_in_fts():
    async with running_service() as service:
        job_id = await service.submit()
        other = await service.submit(file(1, sources=["https://other.example/x"]))
        # What FTS's own client sends.
        status, jobs = await ban(service, status="cancel", timeout=0, allow_submit=False)
        assert (status, jobs) == (200, [job_id])
        assert await states(service, job_id) == [("CANCELED", "Storage banned")]
        assert await states(service, other) == [("SUBMITTED", None)]
        status, rows = await service.call("GET", "/ban/se")
        assert status == 200
        assert rows == [
            {
                "se": SOURCE,
                "vo": "local",
                "status": "CANCEL",
                "message": "",
                "addition_time": "2023-11-14T22:13:20",
                "admin_dn": "local",
                "until": None,
            }
        ]
        assert list(rows[0]) == list(get_type_hints(BanObject))


async def test_cancel_is_what_happens_when_nothing_is_said():
    async with running_service() as service:
        assert (await ban(service))[0] == 200
        assert (await service.call("GET", "/ban/se"))[1][0]["status"] == "CANCEL"


async def test_a_ban_may_let_wait():
    async with running_service() as service:
        job_id = await service.submit()
        status, jobs = await ban(service, status="Wait", message="disk  broken")
        assert (status, jobs) == (200, [job_id])
        assert await states(service, job_id) == [("ON_HOLD", None)]
        _, (row,) = await service.call("GET", "/ban/se")
        assert (row["status"], row["message"]) == ("WAIT", "disk broken")
        await ban(service, status="wait", allow_submit=True)
        _, (row,) = await service.call("GET", "/ban/se")
        assert row["status"] == "WAIT_AS"


async def test_a_submission_to_a_banned_storage_is_refused_in_fts_words():
    async with running_service() as service:
        await ban(service, status="wait", message="disk broken")
        for scheme in ("https", "davs"):
            se = f"{scheme}://source.example"
            status, error = await service.call("POST", "/jobs", {"files": [file(sources=[f"{se}:8443/x"])]})
            assert (status, error["status"]) == (403, "403 Forbidden")
            assert error["message"].startswith(f"{se} is banned")
            assert error["message"].endswith("by local since 2023-11-14T22:13:20Z: disk broken")
        assert (await service.call("GET", "/jobs"))[1] == []
        await ban(service, status="wait", allow_submit=True)
        assert (await service.call("POST", "/jobs", {"files": [file()]}))[0] == 200


async def test_a_ban_is_lifted():
    async with running_service() as service:
        await ban(service, status="wait")
        assert await service.call("DELETE", f"/ban/se?storage={SOURCE}&vo=*") == (204, None)
        assert len((await service.call("GET", "/ban/se"))[1]) == 1
        assert await service.call("DELETE", "/ban/se?storage=davs%3A%2F%2FSOURCE.example") == (204, None)
        assert await service.call("GET", "/ban/se") == (200, [])
        assert await service.call("DELETE", f"/ban/se?storage={SOURCE}") == (204, None)
        assert (await service.call("POST", "/jobs", {"files": [file()]}))[0] == 200


async def test_a_ban_of_another_vo_or_of_all():
    async with running_service() as service:
        job_id = await service.submit()
        assert await ban(service, vo="atlas") == (200, [])
        assert await states(service, job_id) == [("SUBMITTED", None)]
        assert await ban(service, vo="*") == (200, [job_id])
        assert [row["vo"] for row in (await service.call("GET", "/ban/se"))[1]] == ["*", "atlas"]


async def test_a_ban_runs_out():
    async with running_service() as service:
        await ban(service, status="wait", for_s=7200)
        assert (await service.call("GET", "/ban/se"))[1][0]["until"] == "2023-11-15T00:13:20"
        await ban(service, status="wait", until="2023-11-15T01:00:00Z")
        assert (await service.call("GET", "/ban/se"))[1][0]["until"] == "2023-11-15T01:00:00"
        service.clock.at = NOW + 4 * 3600
        assert await service.call("GET", "/ban/se") == (200, [])
        assert (await service.call("POST", "/jobs", {"files": [file()]}))[0] == 200


VALUE = "Invalid value within the request: "


@pytest.mark.parametrize(
    ("document", "message", "field"),
    [
        ({"storage": None}, "Missing storage parameter", "storage"),
        ({"storage": ""}, "Missing storage parameter", "storage"),
        ({"storage": "source.example"}, VALUE + "storage: expected scheme://host, got 'source.example'", "storage"),
        (
            {"storage": "https://h:1094"},
            VALUE + "storage: a storage is known without its port: https://h",
            "storage",
        ),
        ({"storage": 7}, VALUE + "storage: Input should be a valid string", "storage"),
        ({"status": "stop"}, "status can only be cancel or wait", "status"),
        ({"allow_submit": True}, "allow_submit and status = CANCEL can not be combined", "allow_submit"),
        ({"status": "wait", "for_s": 0}, VALUE + "for_s: expected seconds", "for_s"),
        ({"status": "wait", "for_s": "x"}, VALUE + "for_s: ", "for_s"),
        ({"status": "wait", "for_s": 1, "until": "2033-01-01T00:00:00"}, VALUE + "until: expected either", "until"),
        ({"status": "wait", "until": "tomorrow"}, VALUE + "until: expected YYYY-MM-DDTHH:MM:SS", "until"),
        ({"status": "wait", "until": "2020-01-01T00:00:00"}, VALUE + "until: expected an instant in the", "until"),
        ({"vo": ""}, VALUE + "vo: expected 1 to 255", "vo"),
        ({"message": "x" * 1001}, VALUE + "message: expected at most 1000", "message"),
        ({"message": "\x1b[2J"}, VALUE + "message: expected at most 1000 printable", "message"),
    ],
)
async def test_bad_bans_change_nothing(document: dict[str, Any], message: str, field: str):
    async with running_service() as service:
        status, error = await ban(service, **document)
        assert status == 400
        assert error["message"].startswith(message)
        assert error["field"] == field
        assert await service.call("GET", "/ban/se") == (200, [])


async def test_documents_that_are_none():
    async with running_service() as service:
        for path in ("/ban/se", "/ban/dn", "/config/drain"):
            status, error = await service.call("POST", path, b"{")
            assert (status, error["message"]) == (400, "Badly formatted JSON request")
            status, error = await service.call("POST", path, [])
            assert (status, error["message"]) == (400, "Expecting a dictionary")
        for path, what in (("/ban/se", "storage"), ("/ban/dn", "user_dn")):
            status, error = await service.call("DELETE", path)
            assert (status, error["message"]) == (400, f"Missing {what} parameter")


async def test_what_runs_is_stopped_by_a_ban_that_cancels():
    async with running_service() as service:
        job_id = await service.submit(file(0), file(1))
        orders = await service.engine.claim(1)
        service.engine.moving = [Moving(order=order, bytes_done=0, size_bytes=9, since_s=1) for order in orders]
        assert await ban(service) == (200, [job_id])
        assert [state for state, _ in await states(service, job_id)] == ["CANCELED", "CANCELED"]
        running = [one for canceled in service.engine.canceled for one in canceled.running]
        assert running == [(orders[0].file_id, orders[0].epoch)]


async def test_users_are_banned():
    async with running_service() as service:
        job_id = await service.submit()
        await service.engine.submit(_of("/CN=eva"))
        status, error = await service.call("POST", "/ban/dn", {"user_dn": "local"})
        assert (status, error["message"]) == (409, "The user tried to ban (her|his)self")
        status, jobs = await service.call("POST", "/ban/dn", {"user_dn": "/CN=eva", "message": "floods"})
        assert (status, len(jobs)) == (200, 1)
        assert await states(service, jobs[0]) == [("CANCELED", "User banned")]
        assert await states(service, job_id) == [("SUBMITTED", None)]
        status, rows = await service.call("GET", "/ban/dn")
        assert (status, list(rows[0])) == (200, list(get_type_hints(UserBanObject)))
        assert (rows[0]["dn"], rows[0]["message"], rows[0]["admin_dn"]) == ("/CN=eva", "floods", "local")
        assert await service.call("DELETE", "/ban/dn?user_dn=%2FCN%3Deva") == (204, None)
        assert await service.call("DELETE", "/ban/dn?user_dn=nobody") == (204, None)
        assert await service.call("GET", "/ban/dn") == (200, [])
        for document in ({}, {"user_dn": ""}, {"user_dn": None}):
            status, error = await service.call("POST", "/ban/dn", document)
            assert (status, error["message"]) == (400, "Missing dn parameter")


def _of(user_dn: str) -> Any:
    from transfer_engine.model import JobRequest, Transfer

    return JobRequest(transfers=(Transfer.of("https://a.example/x", "https://b.example/x"),), user_dn=user_dn)


async def test_drain():
    async with running_service() as service:
        status, drain = await service.call("GET", "/config/drain")
        assert (status, list(drain)) == (200, list(get_type_hints(DrainObject)))
        assert (drain["hostname"], drain["drain"], drain["running"], drain["eta_s"]) == (HOST, False, 0, 0)
        assert await service.call("POST", "/config/drain", {"hostname": HOST}) == (200, None)
        _, drain = await service.call("GET", "/config/drain")
        assert (drain["drain"], drain["since"], drain["by"]) == (True, "2023-11-14T22:13:20", "local")
        assert await service.call("POST", "/config/drain", {"hostname": HOST, "drain": False}) == (200, None)
        assert (await service.call("GET", "/config/drain"))[1]["drain"] is False
        assert await service.call("POST", "/config/drain", {}) == (200, None)
        status, error = await service.call("POST", "/config/drain", {"hostname": "elsewhere"})
        assert (status, error["message"]) == (400, "Host not found")
        for document in ({"hostname": 1}, {"hostname": HOST, "drain": "yes"}, {"hostname": HOST, "drain": None}):
            status, error = await service.call("POST", "/config/drain", document)
            assert (status, error["message"]) == (400, "Invalid drain request")


async def test_hold_and_resume():
    async with running_service() as service:
        job_id = await service.submit()
        for _ in range(2):
            status, held = await service.call("POST", f"/jobs/{job_id}/hold")
            assert (status, held) == (200, {"job_id": job_id, "job_state": "SUBMITTED", "held": True})
        assert await service.engine.claim() == []
        status, held = await service.call("POST", f"/jobs/{job_id}/resume")
        assert (status, held["held"]) == (200, False)
        assert len(await service.engine.claim()) == 1
        await service.call("DELETE", f"/jobs/{job_id}")
        for verb in ("hold", "resume"):
            status, error = await service.call("POST", f"/jobs/nope/{verb}")
            assert (status, error["message"]) == (404, 'No job with the id "nope" has been found')
        ended = await service.submit()
        await service.call("DELETE", f"/jobs/{ended}")
        status, error = await service.call("POST", f"/jobs/{ended}/hold")
        assert (status, error["message"]) == (409, "The job is in a terminal state")


async def test_only_operators_operate():
    user = Caller(user_dn="/CN=alice", vos=("escape",), delegation_id="0" * 16, method="certificate")
    async with running_service(caller=user) as service:
        for method, path in (
            ("POST", "/ban/se"),
            ("DELETE", "/ban/se"),
            ("POST", "/ban/dn"),
            ("DELETE", "/ban/dn"),
            ("GET", "/ban/dn"),
            ("POST", "/config/drain"),
            ("GET", "/config/drain"),
        ):
            status, error = await service.call(method, path, {} if method == "POST" else None)
            assert (status, error["message"]) == (403, "Not enough permissions")


async def test_double_slashes_and_other_methods():
    async with running_service() as service:
        assert (await service.call("GET", "//ban/se"))[0] == 200
        async with service.http.put(service.url + "/ban/se") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "DELETE,GET,HEAD,OPTIONS,POST"


async def test_whatever_has_not_ended_is_cancelled():
    async with running_service() as service:
        several = await service.submit(file(1), file(2))
        ended = await service.submit(file(3))
        await service.call("DELETE", f"/jobs/{ended}")
        nothing = {"affected_files": 0, "affected_dm": 0, "affected_jobs": 0}
        assert await service.call("DELETE", "/jobs/vo/another") == (200, nothing)
        told = {"affected_files": 2, "affected_dm": 0, "affected_jobs": 1}
        assert await service.call("DELETE", "/jobs/vo/local") == (200, told)
        assert (await service.call("GET", f"/jobs/{several}"))[1]["job_state"] == "CANCELED"
        one = await service.submit(file(4))
        assert await service.call("DELETE", "/jobs/all") == (200, told | {"affected_files": 1})
        assert (await service.call("GET", f"/jobs/{one}"))[1]["job_state"] == "CANCELED"
        assert await service.call("DELETE", "/jobs/all") == (200, nothing)
