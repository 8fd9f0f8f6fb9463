"""The unmodified `fts3` 3.14.2 library against a running service, over http."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.clients import ClientFailed
from tests.clients.fixtures import clients, site
from tests.clients.site import Site

__all__ = ["clients", "site"]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

JOB_KEYS = {
    *("job_id", "job_state", "job_type", "submit_time", "job_finished", "submit_host", "user_dn", "vo_name", "cred_id"),
    *("source_se", "dest_se", "priority", "retry", "retry_delay", "reason", "cancel_job", "max_time_in_queue"),
    *("bring_online", "copy_pin_lifetime", "archive_timeout", "target_qos", "verify_checksum", "overwrite_flag"),
    *("dst_file_report", "source_spacetoken", "destination_spacetoken", "internal_job_params", "job_metadata"),
    *("os_project_id", "http_status"),
}
"""Of fts-rest-flask 3.13, exactly."""
NOTHING_WITHOUT_TAPE = (
    *("staging_metadata", "archive_metadata", "staging_start", "staging_finished", "archive_start_time"),
    *("archive_finish_time", "staging_host", "bringonline_token", "pid", "log_file", "log_debug"),
    *("internal_file_params", "dest_surl_uuid", "file_state_initial", "src_token_id", "dst_token_id"),
)
FILE_KEYS = {
    *("file_id", "file_index", "job_id", "file_state", "file_state_initial", "source_surl", "dest_surl", "source_se"),
    *("dest_se", "vo_name", "priority", "activity", "selection_strategy", "hashed_id", "checksum", "filesize"),
    *("user_filesize", "file_metadata", "staging_metadata", "archive_metadata", "scitag", "start_time", "finish_time"),
    *("staging_start", "staging_finished", "archive_start_time", "archive_finish_time", "staging_host"),
    *("transfer_host", "pid", "reason", "recoverable", "retry", "throughput", "tx_duration", "log_file", "log_debug"),
    *("bringonline_token", "internal_file_params", "dest_surl_uuid", "src_token_id", "dst_token_id"),
}


async def failure(site: Site, name: str, /, *args: Any, **kwargs: Any) -> ClientFailed:
    with pytest.raises(ClientFailed) as raised:
        await site.library.call(name, *args, **kwargs)
    return raised.value


async def test_a_context_finds_what_it_wants_to_know(site: Site):
    info = await site.library.call("connect", site.endpoint, name="another")
    assert {type(info["api"][part]) for part in ("major", "minor", "patch")} == {int}
    assert info["schema"]["major"] >= 8
    assert info["delegation"]["major"] == 1
    assert set(await site.library.call("low_level")) == {"Ban", "Delegator", "Inquirer", "Submitter"}


async def test_whoami(site: Site):
    me = await site.library.call("easy", "whoami")
    assert me["base_id"] == "01874efb-4735-4595-bc9c-591aef8240c9"
    assert me["vos_id"] == [str(uuid.uuid5(uuid.UUID(me["base_id"]), vo)) for vo in me["vos"]]
    assert me["dn"][0] == me["user_dn"]
    for key in ("voms_cred", "roles", "level", "delegation_id", "method", "is_root"):
        assert key in me, key


async def test_an_ordinary_job(site: Site):
    destination = site.fresh()
    job_id = await site.library.call("submit", [site.pair(destination=destination)], verify_checksum="both")
    job = await site.ended(job_id)
    assert (job["job_state"], job["job_type"], job["verify_checksum"]) == ("FINISHED", "N", "b")
    assert JOB_KEYS <= set(job) <= JOB_KEYS | {"files", "dm"}
    (file,) = job["files"]
    assert set(file) == FILE_KEYS
    assert (file["file_state"], file["filesize"], file["reason"]) == ("FINISHED", 10_000, None)
    shown = {
        "source_surl": site.source,
        "dest_surl": destination,
        "source_se": site.se(0),
        "dest_se": site.se(1),
        "job_id": job_id,
        "file_index": 0,
        "vo_name": job["vo_name"],
        "priority": 3,
        "activity": "default",
        "selection_strategy": "auto",
        "checksum": "ADLER32",
        "user_filesize": 0,
        "recoverable": None,
        "retry": None,
        "transfer_host": job["submit_host"],
        "file_metadata": None,
        "scitag": None,
        **dict.fromkeys(NOTHING_WITHOUT_TAPE),
    }
    assert {key: file[key] for key in shown} == shown
    assert {type(file[key]) for key in ("throughput", "tx_duration")} == {float}
    assert file["start_time"] <= file["finish_time"] <= job["job_finished"]
    assert await site.adler32(destination) == await site.adler32(site.source)
    assert job["dm"] == []
    shown = {"source_se": site.se(0), "dest_se": site.se(1), "priority": 3, "retry": -1, "cancel_job": False}
    shown |= {
        "bring_online": -1,
        "copy_pin_lifetime": -1,
        "archive_timeout": -1,
        "overwrite_flag": None,
        "reason": None,
    }
    shown |= {"target_qos": None, "os_project_id": None, "dst_file_report": False, "overwrite_flag": None}
    assert job["max_time_in_queue"] is None
    assert {key: job[key] for key in shown} == shown


async def test_several_files_some_of_which_are_not_there(site: Site):
    gone = site.pair(source=site.source + "-is-not-there")
    job = await site.ended(await site.library.call("submit", [site.pair(), gone, site.pair()]))
    assert (job["job_state"], len(job["files"])) == ("FINISHEDDIRTY", 3)
    assert [file["file_state"] for file in job["files"]] == ["FINISHED", "FAILED", "FINISHED"]
    assert job["reason"] == "One or more files failed. Please have a look at the details for more information"
    assert job["files"][1]["reason"].startswith("SOURCE [2] ")
    assert [file["file_index"] for file in job["files"]] == [0, 1, 2]


async def test_several_sources(site: Site):
    several = {
        "sources": [site.source + "-is-not-there", site.source_of(2)],
        "destinations": [site.fresh()],
        "selection_strategy": "orderly",
    }
    job = await site.ended(await site.library.call("submit", [several]))
    assert (job["job_state"], job["job_type"]) == ("FINISHED", "R")
    assert [file["file_state"] for file in job["files"]] == ["FAILED", "FINISHED"]
    assert job["source_se"] == site.se(2)
    assert len({file["hashed_id"] for file in job["files"]}) == 1


async def test_several_hops(site: Site):
    middle = site.fresh(1)
    hops = [site.pair(destination=middle), site.pair(source=middle, destination=site.fresh(2))]
    job = await site.ended(await site.library.call("submit", hops, multihop=True))
    assert (job["job_state"], job["job_type"]) == ("FINISHED", "H")
    assert (job["source_se"], job["dest_se"]) == (site.se(0), site.se(2))
    broken = [site.pair(source=site.source + "-x", destination=middle + "-x"), site.pair(source=middle + "-x")]
    job = await site.ended(await site.library.call("submit", broken, multihop=True))
    assert job["job_state"] == "FAILED"
    assert [file["file_state"] for file in job["files"]] == ["FAILED", "NOT_USED"]
    assert job["files"][1]["reason"] is None


async def test_session_reuse_is_an_ordinary_job_of_its_own_letter(site: Site):
    job = await site.ended(await site.library.call("submit", [site.pair(), site.pair()], reuse=True))
    assert (job["job_state"], job["job_type"]) == ("FINISHED", "Y")


@pytest.mark.parametrize(
    ("mode", "given", "letter"),
    [("none", False, "n"), ("source", False, "s"), ("target", True, "t"), ("both", True, "b"), (True, False, "b"),
     (False, False, "n"), (False, True, "t")],
)  # fmt: skip
async def test_checksums(site: Site, mode: str | bool, given: bool, letter: str):
    checksum = f"ADLER32:{await site.adler32(site.source)}" if given else None
    job_id = await site.library.call("submit", [site.pair(checksum=checksum)], verify_checksum=mode)
    job = await site.ended(job_id)
    assert (job["job_state"], job["verify_checksum"]) == ("FINISHED", letter), job["files"]


async def test_a_checksum_that_is_another(site: Site):
    job_id = await site.library.call("submit", [site.pair(checksum="ADLER32:deadbeef")], verify_checksum="both")
    job = await site.ended(job_id)
    assert job["job_state"] == "FAILED"
    assert "Source and user-defined ADLER32 checksum do not match" in job["files"][0]["reason"]


@pytest.mark.parametrize(
    ("metadata", "shown"),
    [({"a": [1, "b"]}, {"a": [1, "b"]}), ("a text", {"label": "a text"})],
)
async def test_metadata(site: Site, metadata: Any, shown: Any):
    job = await site.ended(await site.library.call("submit", [site.pair(metadata=metadata)], metadata=metadata))
    assert job["files"][0]["file_metadata"] == shown
    assert {key: value for key, value in job["job_metadata"].items() if key != "auth_method"} == shown
    assert "auth_method" in job["job_metadata"]


async def test_all_that_can_be_asked_for(site: Site):
    transfer = site.pair(activity="Production", scitag=65, filesize=10_000, metadata={"k": 1})
    job_id = await site.library.call(
        "submit",
        [transfer],
        retry=2,
        retry_delay=1,
        priority=5,
        overwrite=True,
        source_spacetoken="S",
        destination_spacetoken="D",
        timeout=600,
        nostreams=4,
        buffer_size=65536,
        strict_copy=True,
        disable_cleanup=True,
        max_time_in_queue=2,
        s3alternate=True,
    )
    job = await site.ended(job_id)
    assert job["job_state"] == "FINISHED"
    assert (job["priority"], job["retry"], job["retry_delay"], job["overwrite_flag"]) == (5, 2, 1, "Y")
    assert (job["source_spacetoken"], job["destination_spacetoken"]) == ("S", "D")
    told = "nostreams:4,timeout:600,buffersize:65536,strict,disable-cleanup,s3alternate"
    assert job["internal_job_params"] == told
    assert isinstance(job["max_time_in_queue"], int)
    (file,) = job["files"]
    assert (file["activity"], file["scitag"], file["user_filesize"]) == ("Production", 65, 10_000)


async def test_a_destination_that_exists(site: Site):
    destination = site.fresh()
    assert (await site.ended(await site.library.call("submit", [site.pair(destination=destination)])))["reason"] is None
    job = await site.ended(await site.library.call("submit", [site.pair(destination=destination)]))
    assert job["job_state"] == "FAILED"
    assert job["files"][0]["reason"] == "DESTINATION [17] Destination file exists and overwrite is not enabled"
    job = await site.ended(await site.library.call("submit", [site.pair(destination=destination)], overwrite=True))
    assert (job["job_state"], job["overwrite_flag"]) == ("FINISHED", "Y")


async def test_a_deterministic_id_twice_is_one_job(site: Site):
    me = await site.library.call("easy", "whoami")
    sid = uuid.uuid4().hex
    transfer = site.pair()
    job_id = await site.library.call("submit", [transfer], id_generator="deterministic", sid=sid)
    assert job_id == str(uuid.uuid5(uuid.UUID(me["vos_id"][0]), sid))
    again = await failure(site, "submit", [transfer], id_generator="deterministic", sid=sid)
    assert (again.kind, again.text) == ("ClientError", "Client error: 409")
    assert len((await site.ended(job_id))["files"]) == 1
    missing = await failure(site, "submit", [transfer], id_generator="deterministic")
    assert missing.text == "Client error: Bad request: Need sid for deterministic job id generation"
