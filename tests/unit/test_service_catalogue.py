"""Archive, lists of files, names, the optimizer's figures, orders to start, and what FTS3 has and we have not."""

from __future__ import annotations

from collections import deque
from typing import Any, get_type_hints

import pytest

from tests.service import NOW, Service, file, running_service
from transfer_engine.banning import Moving
from transfer_engine.callers import CERTIFICATE, Caller
from transfer_engine.model import JobRequest, Queue, QueueId, Transfer
from transfer_engine.places import Place
from transfer_engine.service.wire.catalogue import CurrentObject, EvolutionObject
from transfer_engine.service.wire.views import HOST, FileObject
from transfer_engine.tuning import Adjustment

pytestmark = pytest.mark.asyncio

SOURCE, DEST = "https://source.example", "https://dest.example"


async def finished(service: Service, *files: dict[str, Any]) -> str:
    job_id = await service.submit(*files)
    for order in await service.engine.claim():
        await service.engine.finish(order)
    return job_id


# Archive


async def test_the_archive_has_jobs_that_are_over():
    async with running_service() as service:
        assert (await service.call("GET", "/archive"))[1]["_links"]["fts:archivedJob"]["templated"] is True
        job_id = await finished(service, file(1), file(2))
        status, job = await service.call("GET", f"/archive/{job_id}")
        assert status == 200
        assert (job["job_id"], job["job_state"]) == (job_id, "FINISHED")
        assert [one["file_state"] for one in job["files"]] == ["FINISHED", "FINISHED"]
        assert set(job["files"][0]) == set(get_type_hints(FileObject))
        assert await service.call("GET", f"/archive/{job_id}/job_state") == (200, "FINISHED")
        assert len((await service.call("GET", f"/archive/{job_id}/files"))[1]) == 2
        status, error = await service.call("GET", f"/archive/{job_id}/nothing")
        assert (status, error["message"]) == (404, "No such field")


async def test_what_is_not_over_is_not_in_the_archive():
    async with running_service() as service:
        for job_id in (await service.submit(), "nope"):
            for path in (f"/archive/{job_id}", f"/archive/{job_id}/job_state"):
                status, error = await service.call("GET", path)
                assert (status, error["status"]) == (404, "404 Not Found")
                assert error["message"] == f'No job with the id "{job_id}" has been found in the archive'


# Files


async def test_files_of_jobs_that_have_not_ended_or_have_of_late():
    async with running_service() as service:
        await finished(service, file(1))
        service.clock.at += 3600
        await finished(service, file(2))
        await service.submit(file(3), file(4, sources=["https://other.example/x"]))
        await service.engine.claim(n=1)

        async def listed(query: str = "") -> list[str]:
            status, rows = await service.call("GET", f"/files{query}")
            assert status == 200
            return [row["dest_surl"][-1] for row in rows]

        assert await listed() == ["4", "3"]
        assert await listed("?state_in=SUBMITTED") == []
        assert await listed("?state_in=ACTIVE,CANCELED") == ["4", "3"]
        assert await listed("?limit=1") == ["4"]
        assert await listed("?limit=0") == []
        assert await listed(f"?source_se={SOURCE}") == ["3"]
        assert await listed(f"?dest_se={DEST}") == ["4", "3"]
        assert await listed(f"?dest_surl={DEST}:8443/data/f3") == ["3"]
        assert await listed("?vo_name=cms") == []
        assert await listed("?vo_name=local") == ["4", "3"]
        assert await listed("?time_window=0:30") == ["2"]
        assert await listed("?time_window=2&state_in=FINISHED") == ["2", "1"]
        assert await listed("?state_in=NOTHING") == []


@pytest.mark.parametrize("query", ["limit=1001", "limit=-1", "limit=x", "time_window=x", "time_window=1:2:3"])
async def test_filters_of_files_that_make_no_sense_are_refused(query: str):
    async with running_service() as service:
        status, error = await service.call("GET", f"/files?{query}")
        assert (status, error["status"]) == (400, "400 Bad Request")


async def test_files_and_archive_of_others_are_not_there():
    me = Caller(user_dn="/CN=me", vos=("local",), delegation_id="b" * 16, method=CERTIFICATE)
    her = Caller(user_dn="/CN=her", vos=("local",), delegation_id="c" * 16, method=CERTIFICATE)
    async with running_service(caller=[me, her]) as service:
        mine = {"headers": {"X-Test-Caller": "0"}}
        hers = {"headers": {"X-Test-Caller": "1"}}
        job_id = await service.engine.submit(
            JobRequest(
                transfers=(Transfer.of(f"{SOURCE}/1", f"{DEST}/1"),), user_dn="/CN=me", cred_id="b" * 16, vo="local"
            )
        )
        assert len((await service.call("GET", "/files", **mine))[1]) == 1
        assert (await service.call("GET", "/files", **hers))[1] == []
        for order in await service.engine.claim():
            await service.engine.finish(order)
        assert (await service.call("GET", f"/archive/{job_id}", **mine))[0] == 200
        assert (await service.call("GET", f"/archive/{job_id}", **hers))[0] == 404


# Names


async def test_names_are_completed():
    async with running_service() as service:
        await service.submit(file(1), file(2, destinations=["https://else.example/x"]))
        for kind, term, names in (
            ("dn", "lo", ["local"]),
            ("dn", "x", []),
            ("vo", "", ["local"]),
            ("source", "https://", [SOURCE]),
            ("destination", "https://e", ["https://else.example"]),
            ("storage", "", [DEST, "https://else.example", SOURCE]),
        ):
            assert await service.call("GET", f"/autocomplete/{kind}?term={term}") == (200, names)
        assert await service.call("GET", "/autocomplete/vo") == (200, ["local"])
        assert (await service.call("GET", "/autocomplete/groupname"))[0] == 404


# The optimizer


def decided(service: Service, place: Place, at: float, before: int, after: int) -> None:
    board, governor = service.engine.sight.board, service.engine.sight.governor
    board.scheduler.room(place)
    adjustment = Adjustment(
        place=place,
        at=at,
        before=before,
        after=after,
        reason=f"{after} are better",
        numbers={"goodput_bytes_s": 5e6, "active": 2.0},
    )
    governor.optimizer._history.setdefault(place, deque(maxlen=100)).append(adjustment)


async def test_the_optimizer_says_what_it_decided():
    async with running_service() as service:
        assert await service.call("GET", "/optimizer") == (200, True)
        assert await service.call("GET", "/optimizer/evolution") == (200, [])
        link = Place("link", SOURCE, DEST)
        for n in range(60):
            decided(service, link, NOW + n, n + 1, n + 2)
        decided(service, Place("in", DEST), NOW + 100, 8, 4)
        queue = Queue(QueueId(1), SOURCE, DEST, "local", "default", 0)
        service.engine.sight.board.scheduler.hold(queue, 3, 0.0)
        status, rows = await service.call("GET", "/optimizer/evolution")
        assert (status, len(rows)) == (200, 50)
        assert [list(row) for row in rows[:1]] == [list(get_type_hints(EvolutionObject))]
        assert (rows[0]["source_se"], rows[0]["dest_se"], rows[0]["active"], rows[0]["diff"]) == ("*", DEST, 4, -4)
        assert rows[1] == {
            "datetime": "2023-11-14T22:14:19",
            "source_se": SOURCE,
            "dest_se": DEST,
            "ema": 5e6,
            "active": 61,
            "throughput": 5e6,
            "success": None,
            "rationale": "61 are better",
            "diff": 1,
            "actual_active": 1,
            "queue_size": 0,
            "filesize_avg": None,
            "filesize_stddev": None,
        }
        _, of_link = await service.call("GET", f"/optimizer/evolution?source_se={SOURCE}&dest_se={DEST}")
        assert {row["source_se"] for row in of_link} == {SOURCE}
        _, current = await service.call("GET", "/optimizer/current")
        assert [list(row) for row in current] == [list(get_type_hints(CurrentObject))] * 2
        assert [row["active"] for row in current] == [4, 61]
        assert len((await service.call("GET", f"/optimizer/current?source_se={SOURCE}"))[1]) == 1
        assert (await service.call("GET", "/optimizer/current?source_se=https://never.example"))[1] == []


async def test_the_optimizers_numbers_are_set_by_nobody():
    async with running_service() as service:
        body = {"source_se": SOURCE, "dest_se": DEST, "active": 5}
        status, error = await service.call("POST", "/optimizer/current", body)
        assert (status, error["status"]) == (400, "400 Bad Request")
        assert "/config/links" in error["message"]


# The instance


async def test_what_the_instance_does():
    async with running_service() as service:
        await service.submit()
        (order,) = await service.engine.claim()
        assert await service.call("GET", "/status/hosts") == (200, {HOST: {"active": 0, "staging": 0}})
        service.engine.moving.append(Moving(order=order, bytes_done=0, size_bytes=None, since_s=1.0))
        assert await service.call("GET", "/status/hosts") == (200, {HOST: {"active": 1, "staging": 0}})


async def test_files_are_started_out_of_turn():
    async with running_service() as service:
        job_id = await service.submit(file(1), file(2), file(3))
        one, two, three = [one["file_id"] for one in (await service.call("GET", f"/jobs/{job_id}/files"))[1]]
        assert await service.call("POST", "/admin/force-start", [two]) == (200, [])
        assert [order.file_id for forced in service.engine.forced for order in forced.orders] == [two]
        assert await service.call("POST", "/admin/force-start", [two, one, 999]) == (
            200,
            [
                {"file_id": two, "error": "File is not in SUBMITTED state: it is ACTIVE"},
                {"file_id": 999, "error": "File does not exist"},
            ],
        )
        await service.call("POST", f"/jobs/{job_id}/hold", {})
        _, (refused,) = await service.call("POST", "/admin/force-start", [three])
        assert refused == {"file_id": three, "error": "its job is on hold"}
        entry = (await service.engine.store.audit(1))[0]
        assert (entry.action, entry.user_dn) == ("force-start", "local")
        service.engine.reason = "the engine is not open"
        assert (await service.call("POST", "/admin/force-start", [three]))[0] == 409


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"x", "Malformed input"),
        ({"file_id": 1}, "Only accepts a list of integer fileIDs"),
        (["1"], "Only accepts a list of integer fileIDs"),
        ([1.5], "Only accepts a list of integer fileIDs"),
        ([True], "Only accepts a list of integer fileIDs"),
        ([-1], "Expected at most 1000 ids of files"),
        ([10**30], "fileIDs"),
        (list(range(1001)), "Expected at most 1000 ids of files"),
    ],
)
async def test_orders_to_start_that_make_no_sense_are_refused(body: Any, message: str):
    async with running_service() as service:
        status, error = await service.call("POST", "/admin/force-start", body)
        assert status == 400, error
        assert message.removeprefix("fileIDs") in error["message"]


async def test_the_schema_of_a_submission():
    async with running_service() as service:
        status, schema = await service.call("GET", "/api-docs/schema/submit")
        assert status == 200
        assert {"files", "params"} <= set(schema["properties"])
        for path in ("/api-docs", "/api-docs/", "/api-docs/schema", "/api-docs/schema/other"):
            assert (await service.call("GET", path))[0] == 404


# What FTS3 has beside


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "list?surl=https://a.example/"),
        ("GET", "stat?surl=https://a.example/"),
        ("POST", "mkdir"),
        ("POST", "unlink"),
        ("POST", "rmdir"),
        ("POST", "rename"),
    ],
)
async def test_data_management_is_refused_with_a_reason(method: str, path: str):
    async with running_service() as service:
        status, error = await service.call(method, f"/dm/{path}", {"surl": "x"} if method == "POST" else None)
        assert (status, error["status"]) == (400, "400 Bad Request")
        assert "Interactive data management is not offered" in error["message"]


async def test_clouds_answer_as_where_none_is_registered():
    async with running_service() as service:
        assert await service.call("GET", "/cs/registered/dropbox") == (200, False)
        for method, path, status, message in (
            ("GET", "access_request/dropbox", 404, 'No registered user for the service "DROPBOX" has been found'),
            ("GET", "access_request/dropbox/request", 403, "No registration information found for the service DROPBOX"),
            ("GET", "access_grant/dropbox", 400, 'No registered user for the service "DROPBOX" has been found'),
            ("DELETE", "access_grant/dropbox", 404, 'No registered user for the service "DROPBOX" has been found'),
            ("GET", "remote_content/dropbox", 400, "Missing surl parameter"),
            ("GET", "remote_content/dropbox?surl=/x", 403, "No registration information found"),
            ("GET", "file_urllink/dropbox/x", 403, "No registration information found"),
        ):
            found, error = await service.call(method, f"/cs/{path}")
            assert found == status
            assert message in error["message"]
