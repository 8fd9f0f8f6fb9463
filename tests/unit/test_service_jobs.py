"""Jobs over a real socket, as Rucio and the fts3 client see them."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from tests.service import MISSING, NOW, Service, file, running_service
from transfer_engine.model import Failure
from transfer_engine.service.wire.views import FileObject, JobObject
from transfer_engine.states import Event

pytestmark = pytest.mark.asyncio

POLL = (
    "files=file_state,dest_surl,finish_time,start_time,staging_start,staging_finished,reason,source_surl,file_metadata"
)
ONE = "One or more files failed. Please have a look at the details for more information"


async def poll(service: Service, job_id: str) -> Any:
    status, job = await service.call("GET", f"/jobs/{job_id}?{POLL}")
    assert status == 200
    return job


async def test_submit_by_post_and_put_with_one_slash_or_more():
    async with running_service() as service:
        ids = set()
        for method in ("POST", "PUT"):
            for path in ("/jobs", "//jobs", "/jobs/", "///jobs/"):
                status, answer = await service.call(method, path, {"files": [file()]})
                assert status == 200
                assert list(answer) == ["job_id"]
                ids.add(answer["job_id"])
        assert len(ids) == 8


async def test_a_job_has_exactly_the_keys_of_fts():
    async with running_service() as service:
        job_id = await service.submit(file(metadata="text"), job_metadata={"issuer": "rucio", "multi_sources": False})
        status, job = await service.call("GET", f"/jobs/{job_id}")
        assert status == 200
        assert list(job) == [*get_type_hints(JobObject), "http_status"]
        assert job["http_status"] == "200 Ok"
        assert job["job_metadata"] == {"issuer": "rucio", "multi_sources": False, "auth_method": "local"}
        assert job["submit_time"] == "2023-11-14T22:13:20"
        assert (job["job_state"], job["job_type"], job["priority"]) == ("SUBMITTED", "N", 3)
        status, files = await service.call("GET", f"/jobs/{job_id}/files")
        assert status == 200
        assert [list(one) for one in files] == [list(get_type_hints(FileObject))]
        assert files[0]["file_metadata"] == {"label": "text"}
        assert files[0]["source_se"] == "https://source.example"


async def test_columns_of_files():
    async with running_service() as service:
        job_id = await service.submit(file(0, metadata={"request_id": "r"}), file(1))
        _, job = await service.call("GET", f"/jobs/{job_id}?files=file_state,nonsense,file_metadata")
        assert job["files"] == [
            {"file_state": "SUBMITTED", "file_metadata": {"request_id": "r"}},
            {"file_state": "SUBMITTED", "file_metadata": None},
        ]
        _, job = await service.call("GET", f"/jobs/{job_id}?files=")
        assert "files" not in job
        assert len((await poll(service, job_id))["files"][0]) == 9


async def test_one_missing_job_and_lists_with_missing_jobs():
    async with running_service() as service:
        job_id = await service.submit()
        missing = {
            "job_id": "nope",
            "http_status": "404 Not Found",
            "http_message": 'No job with the id "nope" has been found',
        }
        assert await service.call("GET", "/jobs/nope") == (404, missing)
        assert await service.call("DELETE", "/jobs/nope") == (404, missing)
        assert await service.call("GET", "/jobs/nope,") == (207, [missing])
        status, jobs = await service.call("GET", f"/jobs/{job_id},")
        assert (status, [job["http_status"] for job in jobs]) == (200, ["200 Ok"])
        for ids in (f"{job_id},nope", f"nope,{job_id}"):
            for method, body in (("GET", None), ("POST", {"params": {"priority": 2}}), ("DELETE", None)):
                status, jobs = await service.call(method, f"/jobs/{ids}", body)
                assert status == 207
                assert [job["job_id"] for job in jobs] == ids.split(",")
                assert {job["job_id"]: job["http_status"] for job in jobs}["nope"] == "404 Not Found"
        status, error = await service.call("GET", "/jobs/nope/files")
        assert (status, error) == (
            404,
            {"status": "404 Not Found", "message": 'No job with the id "nope" has been found'},
        )


async def test_a_thousand_ids_in_one_line():
    async with running_service() as service:
        job_id = await service.submit()
        ids = ",".join([job_id, *(f"00000000-0000-4000-9000-{n:012}" for n in range(999))])
        status, jobs = await service.call("GET", f"/jobs/{ids}?{POLL}")
        assert status == 207
        assert [job["http_status"] for job in jobs].count("404 Not Found") == 999
        status, jobs = await service.call("DELETE", f"/jobs/{ids}")
        assert status == 207
        assert jobs[0]["job_state"] == "CANCELED"


async def test_the_life_of_a_job():
    async with running_service() as service:
        job_id = await service.submit(file(0, filesize=3 * 1024 * 1024, checksum="ADLER32:1A"), file(1))
        good, bad = await service.engine.claim()
        assert (await poll(service, job_id))["job_state"] == "ACTIVE"
        await service.engine.settle(good, Event.LOSE)
        _, files = await service.call("GET", f"/jobs/{job_id}/files")
        assert [one["file_state"] for one in files] == ["ACTIVE", "ACTIVE"]
        assert files[0]["checksum"] == "ADLER32:0000001a"
        assert files[0]["finish_time"] is None
        await service.engine.finish(good)
        await service.engine.settle(bad, Event.RETRY, failure=Failure.of(MISSING), charge=True)
        (bad,) = await service.engine.claim()
        await service.engine.fail(bad)
        job = await poll(service, job_id)
        assert (job["job_state"], job["reason"]) == ("FINISHEDDIRTY", ONE)
        assert [one["file_state"] for one in job["files"]] == ["FINISHED", "FAILED"]
        assert job["files"][1]["reason"] == "SOURCE [2] Result HTTP 404 : File not found after 1 attempts"
        assert job["files"][0]["reason"] is None
        assert job["files"][0]["start_time"] == job["files"][0]["finish_time"] == "2023-11-14T22:13:20"
        _, files = await service.call("GET", f"/jobs/{job_id}/files")
        assert (files[0]["throughput"], files[0]["tx_duration"]) == (2.0, 1.5)
        assert files[1]["recoverable"] is False
        # Two attempts failed, and one of them was repeated.
        assert [one["retry"] for one in files] == [None, 1]
        _, retries = await service.call("GET", f"/jobs/{job_id}/files/{bad.file_id}/retries")
        assert [(one["attempt"], one["datetime"]) for one in retries] == [(1, "2023-11-14T22:13:20")]
        assert retries[0]["reason"] == files[1]["reason"]


async def test_replicas_and_hops_wait_as_not_used():
    async with running_service() as service:
        several = file(sources=["https://a.example/x", "https://b.example/x"])
        job_id = await service.submit(several, job_metadata={"multi_sources": True})
        job = await poll(service, job_id)
        assert job["job_type"] == "R"
        assert [one["file_state"] for one in job["files"]] == ["SUBMITTED", "NOT_USED"]
        (first,) = await service.engine.claim()
        await service.engine.fail(first, activate_next=True)
        job = await poll(service, job_id)
        assert job["job_state"] == "ACTIVE"
        assert [one["file_state"] for one in job["files"]] == ["FAILED", "SUBMITTED"]
    async with running_service() as service:
        job_id = await service.submit(
            file(sources=["https://a.example/x"], destinations=["https://b.example/x"]),
            file(sources=["https://b.example/x"], destinations=["https://c.example/x"]),
            multihop=True,
        )
        (first,) = await service.engine.claim()
        await service.engine.fail(first)
        job = await poll(service, job_id)
        assert (job["job_type"], job["job_state"]) == ("H", "FAILED")
        assert [(one["file_state"], bool(one["reason"])) for one in job["files"]] == [
            ("FAILED", True),
            ("NOT_USED", False),
        ]


async def test_cancel_and_cancel_again():
    async with running_service() as service:
        job_id = await service.submit(file(0), file(1))
        await service.engine.claim(1)
        status, job = await service.call("DELETE", f"/jobs/{job_id}")
        assert status == 200
        assert (job["job_state"], job["http_status"], job["http_message"]) == ("CANCELED", "200 Ok", None)
        assert job["cancel_job"] is True
        shown = await poll(service, job_id)
        assert [one["file_state"] for one in shown["files"]] == ["CANCELED", "CANCELED"]
        assert {one["reason"] for one in shown["files"]} == {"Job canceled by the user"}
    async with running_service() as service:
        job_id = await service.submit()
        await service.call("DELETE", f"/jobs/{job_id}")
        for method, body in (("DELETE", None), ("POST", {"params": {"priority": 2}})):
            status, job = await service.call(method, f"/jobs/{job_id}", body)
            assert status == 200
            assert job["http_status"] == "304 Not Modified"
            assert job["http_message"] == "The job is in a terminal state"
            assert job["priority"] == 3
            status, jobs = await service.call(method, f"/jobs/{job_id},", body)
            assert (status, jobs[0]["http_status"]) == (200, "304 Not Modified")


async def test_cancel_single_files():
    async with running_service() as service:
        job_id = await service.submit(file(0), file(1), file(2))
        other = await service.submit(file(3))
        assert await service.call("DELETE", f"/jobs/{job_id}/files/1") == (200, "CANCELED")
        foreign = "File does not belong to the job"
        assert await service.call("DELETE", f"/jobs/{job_id}/files/2,4,99") == (200, ["CANCELED", foreign, foreign])
        assert await service.call("DELETE", f"/jobs/{job_id}/files/1,") == (200, ["CANCELED"])
        assert [one["file_state"] for one in (await poll(service, job_id))["files"]] == [
            "CANCELED",
            "CANCELED",
            "SUBMITTED",
        ]
        assert (await poll(service, other))["files"][0]["file_state"] == "SUBMITTED"
        assert (await service.call("DELETE", f"/jobs/{job_id}/files/x"))[0] == 400
        assert (await service.call("DELETE", "/jobs/nope/files/1"))[0] == 404
        for params, letter in (({"reuse": True}, "Y"), ({"multihop": True}, "H")):
            whole = await service.submit(file(), **params)
            status, error = await service.call("DELETE", f"/jobs/{whole}/files/5")
            assert status == 400
            assert error["message"] == f"Multihop or reuse jobs must be cancelled at once ({letter})"


async def test_priority():
    async with running_service() as service:
        job_id = await service.submit()
        status, job = await service.call("POST", f"/jobs/{job_id}", {"params": {"priority": 5}})
        assert status == 200
        assert (job["priority"], job["http_status"], job["http_message"]) == (5, "200 Ok", None)
        assert job["files"][0]["priority"] == 5
        status, error = await service.call("POST", f"/jobs/{job_id}", {"params": {"priority": "high"}})
        assert (status, error["message"]) == (400, "Invalid priority value")
        status, job = await service.call("POST", f"/jobs/{job_id}", {})
        assert (status, job["priority"]) == (200, 5)


async def test_a_sid_is_used_once():
    async with running_service() as service:
        _, me = await service.call("GET", "/whoami")
        document = {"files": [file()], "params": {"id_generator": "deterministic", "sid": "request-1"}}
        status, answer = await service.call("POST", "/jobs", document)
        assert status == 200
        assert (await service.call("GET", f"/jobs/{answer['job_id']}"))[0] == 200
        assert me["base_id"] == "01874efb-4735-4595-bc9c-591aef8240c9"
        for again in (document, document | {"files": [file(7)]}):
            status, error = await service.call("POST", "/jobs", again)
            assert (status, error["message"]) == (409, "The sid provided by the user is duplicated")
        assert len((await service.call("GET", "/jobs"))[1]) == 1


async def test_fields_of_a_job():
    async with running_service() as service:
        job_id = await service.submit()
        assert await service.call("GET", f"/jobs/{job_id}/job_state") == (200, "SUBMITTED")
        assert await service.call("GET", f"/jobs/{job_id}/job_finished") == (200, None)
        assert await service.call("GET", f"/jobs/{job_id}/dm") == (200, [])
        status, error = await service.call("GET", f"/jobs/{job_id}/colour")
        assert (status, error) == (404, {"status": "404 Not Found", "message": "No such field"})
        assert (await service.call("GET", f"/jobs/{job_id}/files/1/retries")) == (200, [])
        assert (await service.call("GET", f"/jobs/{job_id}/files/99/retries"))[0] == 404
        assert (await service.call("GET", "/jobs/nope/dm"))[0] == 404


async def test_lists():
    async with running_service() as service:
        ended = await service.submit(file(0))
        await service.call("DELETE", f"/jobs/{ended}")
        service.clock.at = NOW + 7200
        here = await service.submit(file(1))
        there = await service.submit(file(2, destinations=["https://other.example/x"]))

        async def ids(query: str) -> list[str]:
            status, jobs = await service.call("GET", f"/jobs?{query}")
            assert status == 200
            return sorted(job["job_id"] for job in jobs)

        both = sorted([here, there])
        assert await ids("") == both
        assert (await service.call("GET", "//jobs/"))[0] == 200
        assert await ids("dest_se=https://other.example") == [there]
        assert await ids("vo_name=atlas") == []
        assert await ids("user_dn=local&limit=10") == both
        assert await ids("state_in=CANCELED") == []
        assert await ids("state_in=CANCELED&limit=10") == [ended]
        assert await ids("state_in=CANCELED,SUBMITTED&time_window=1") == both
        assert await ids("state_in=STAGING&limit=10") == []
        assert await ids("limit=0") == []
        assert len(await ids("limit=1")) == 1
        _, jobs = await service.call("GET", "/jobs?fields=job_id,job_state,nonsense")
        assert {tuple(job) for job in jobs} == {("job_id", "job_state")}
        assert (await service.call("GET", "/jobs?limit=501"))[0] == 400
        assert (await service.call("GET", "/jobs?dlg_id=0123456789abcdef"))[0] == 403
        assert (await service.call("GET", "/jobs?user_dn=/CN=x"))[0] == 400


async def test_tape_metadata_is_shown_again():
    async with running_service() as service:
        hints = {"scheduling_hints": {"priority": 20}}
        job_id = await service.submit(file(0), file(1, archive_metadata=hints), dst_file_report=True)
        _, files = await service.call("GET", f"/jobs/{job_id}/files")
        assert [one["archive_metadata"] for one in files] == [None, hints]
        assert await service.call("GET", f"/jobs/{job_id}/dst_file_report") == (200, True)
