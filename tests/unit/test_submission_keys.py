"""Each key of a submission: honoured, refused with its name, or known to change nothing."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest

from transfer_engine.callers import Caller
from transfer_engine.errors import Invalid
from transfer_engine.model import JobId, JobOptions, JobRequest, Verify
from transfer_engine.service.wire import views
from transfer_engine.service.wire.documents import FileDocument, ParamsDocument
from transfer_engine.service.wire.submission import parse_submission
from transfer_engine.service.wire.words import Refused, refusal
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.store.rows import load_options
from transfer_engine.submission import dump_options
from transfer_engine.views import FileView, JobView

NOW = 1_700_000_000.0
CALLER = Caller(user_dn="u", vos=("v",), delegation_id="0123456789abcdef", method="certificate")


def file(index: int = 0, **more: Any) -> dict[str, Any]:
    one = {"sources": [f"https://s.example/{index}"], "destinations": [f"https://d.example/{index}"]}
    return one | more


def job(*files: dict[str, Any], **params: Any) -> JobRequest:
    body = json.dumps({"files": list(files) or [file()], "params": params}).encode()
    return parse_submission(body, caller=CALLER, now=NOW, files_max=1000)


def refused(*files: dict[str, Any], **params: Any) -> tuple[str | None, str]:
    with pytest.raises(Refused) as caught:
        job(*files, **params)
    return caught.value.field, refusal(caught.value)


@pytest.mark.parametrize(
    ("params", "changed"),
    [
        ({"overwrite": True}, {"overwrite": True}),
        ({"overwrite_on_retry": True}, {"overwrite_on_retry": True}),
        ({"overwrite_hop": True, "multihop": True}, {"overwrite_hops": True}),
        ({"dst_file_report": True}, {"dst_file_report": True}),
        ({"strict_copy": True}, {"strict_copy": True}),
        ({"disable_cleanup": True}, {"keep_remains": True}),
        ({"retry": 2}, {"retries_max": 2}),
        ({"retry": -1}, {"retries_max": 0}),
        ({"retry_delay": 30}, {"retry_delay_s": 30}),
        ({"timeout": 600}, {"timeout_s": 600}),
        ({"nostreams": 4}, {"n_streams": 4}),
        ({"max_time_in_queue": 2}, {"deadline_at": NOW + 7200}),
        ({"verify_checksum": "both"}, {"verify": Verify.BOTH}),
    ],
)
def test_a_parameter_that_the_engine_honours(params: dict[str, Any], changed: dict[str, Any]) -> None:
    options = job(file(0), file(1), **params).options
    plain = job().options
    assert options == replace(plain, **changed) != plain
    assert load_options(dump_options(options)) == options


@pytest.mark.parametrize(
    "key", ["gridftp", "spacetoken", "fail_nearline", "credential", "credentials", "account", "target_qos", "anything"]
)
@pytest.mark.parametrize("value", [None, "x", 7, True, {"k": []}])
def test_a_parameter_that_changes_nothing_with_fts_either(key: str, value: Any) -> None:
    assert job(**{key: value}) == job()


@pytest.mark.parametrize("key", ["source_spacetoken", "destination_spacetoken", "buffer_size", "ipv4", "s3alternate"])
def test_a_parameter_that_is_shown_and_has_no_meaning_for_a_copy_over_http(key: str) -> None:
    value = {"buffer_size": 1 << 20}.get(key, "ATLASDATADISK" if "spacetoken" in key else True)
    request = job(**{key: value})
    assert request.params[key] == value
    assert request.options == job().options


@pytest.mark.parametrize("value", ["Y", "y", "yes", "true", "T", 1, "1", True])
def test_ways_to_say_yes(value: Any) -> None:
    assert job(overwrite=value).options.overwrite


@pytest.mark.parametrize("value", ["N", "n", "no", "false", "F", 0, "0", False, None, ""])
def test_ways_to_say_no(value: Any) -> None:
    assert not job(overwrite=value).options.overwrite


@pytest.mark.parametrize("value", [5000, "5000", 5000.0])
def test_ways_to_write_a_size(value: Any) -> None:
    assert job(file(filesize=value)).transfers[0].size_bytes == 5000


@pytest.mark.parametrize("value", [None, 0])
def test_a_size_that_is_not_known(value: Any) -> None:
    assert job(file(filesize=value)).transfers[0].size_bytes is None


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("retry", [-1001, 1001, "often", 1.5, [], {}]),
        ("retry_delay", [-2, 10**12, "soon", 0.5, []]),
        ("timeout", [-2, 10**12, "5m", 0.5]),
        ("nostreams", [-2, 257, "many"]),
        ("buffer_size", [-2, 1 << 41, "1M"]),
        ("priority", ["high", 1.5, []]),
        ("bring_online", [-2, 1, "1", 43200]),
        ("copy_pin_lifetime", [-2, 1, 86400]),
        ("archive_timeout", [-2, 1, 86400]),
        ("overwrite", ["perhaps", 2, -1, [], {}]),
        ("ipv6", ["perhaps", [1]]),
        ("verify_checksum", ["x", "bothh", 7, []]),
        ("source_spacetoken", ["x" * 256, 7]),
        ("id_generator", ["random"]),
        ("max_time_in_queue", [10**400, -(10**400), 10**9, "1w", True, []]),
    ],
)
def test_what_fts_takes_by_accident_is_refused_by_name(key: str, values: list[Any]) -> None:
    for value in values:
        field, message = refused(**{key: value})
        assert field == f"params.{key}"
        assert message.startswith("Invalid value within the request: ")
        assert f"params.{key}" in message


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("filesize", [-1, 1.5, "big", 1 << 62, [], {}]),
        ("activity", ["x" * 256, 7]),
        ("checksum", ["x" * 256, 7]),
        ("scitag", [64, 65536, 65.0, "66", True, []]),
        ("staging_metadata", ["text", [1], 7]),
        ("archive_metadata", ["text", [1], 7]),
        ("destinations", [["https://d.example/1", "https://d.example/2"]]),
    ],
)
def test_a_bad_key_of_a_file_is_named(key: str, values: list[Any]) -> None:
    for value in values:
        field, _ = refused(file(), file(**{key: value}))
        assert field == f"files[1].{key}"


@pytest.mark.parametrize("number", ["1" + "0" * 5000, "-1" + "0" * 5000, "1e400", "NaN", "Infinity", "1" + "0" * 400])
@pytest.mark.parametrize("key", sorted({*ParamsDocument.__annotations__, *FileDocument.__annotations__}))
def test_a_number_without_end_is_taken_or_refused(key: str, number: str) -> None:
    of_file = key in FileDocument.__annotations__
    params, more = ("", f',"{key}":{number}') if of_file else (f'"{key}":{number}', "")
    body = f'{{"files":[{{"sources":["https://s/1"],"destinations":["https://d/1"]{more}}}],"params":{{{params}}}}}'
    with contextlib.suppress(Refused):
        parse_submission(body.encode(), caller=CALLER, now=NOW, files_max=9)


def test_two_address_families_at_once_contradict_each_other() -> None:
    assert refused(ipv4=True, ipv6=True) == (
        "params.ipv6",
        "Invalid value within the request: params.ipv6: ipv4 and ipv6 exclude each other",
    )
    assert job(ipv4=True, ipv6=False).params["ipv4"] is True


@pytest.mark.parametrize("value", [None, 0, -1, ""])
@pytest.mark.parametrize("key", ["bring_online", "copy_pin_lifetime", "archive_timeout"])
def test_no_tape(key: str, value: Any) -> None:
    assert job(**{key: value}) == job()


def test_overwriting_on_tape_needs_tape() -> None:
    field, message = refused(overwrite_when_only_on_disk=True, archive_timeout=3600)
    assert (field, "does not speak to tape" in message) == ("params.archive_timeout", True)


JOB = JobView(
    job_id=JobId("j"),
    state=JobState.FAILED,
    job_type=JobType.NORMAL,
    vo="v",
    user_dn="u",
    cred_id="",
    priority=3,
    submitted_at=NOW,
    finished_at=NOW,
    reason=None,
    source_se=None,
    dest_se=None,
    metadata=None,
    options=JobOptions(),
    params={},
    cancel_requested=False,
    n_files=1,
    n_finished=0,
    n_failed=1,
    n_canceled=0,
)


@pytest.mark.parametrize(
    ("flags", "letter"),
    [
        ({}, None),
        ({"overwrite": True}, "Y"),
        ({"overwrite_on_retry": True}, "R"),
        ({"overwrite_hop": True, "multihop": True}, "M"),
    ],
)
def test_the_overwrite_flag_is_shown_as_its_letter(flags: dict[str, Any], letter: str | None) -> None:
    request = job(**flags)
    shown = views.job_object(replace(JOB, options=request.options, params=request.params))
    assert shown["overwrite_flag"] == letter


def test_internal_parameters_are_ftss_list_in_ftss_order() -> None:
    flags = ("strict_copy", "disable_cleanup", "ipv6", "s3alternate", "dst_file_report")
    request = job(nostreams=2, timeout=60, buffer_size=7, **dict.fromkeys(flags, True))
    shown = views.job_object(replace(JOB, options=request.options, params=request.params))
    assert shown["internal_job_params"] == "nostreams:2,timeout:60,buffersize:7,strict,disable-cleanup,ipv6,s3alternate"
    assert shown["dst_file_report"] is True
    assert views.job_object(JOB)["internal_job_params"] is None


REPORT = {
    "file_size": 7,
    "checksum_type": "ADLER32",
    "checksum_value": "0a0b0c0d",
    "file_on_tape": False,
    "file_on_disk": True,
}
FAILURE = {"scope": "DESTINATION", "errno": 17, "message": "m", "again": "never", "dst_file": REPORT}
FILE = FileView(
    **dict.fromkeys(
        ["size_bytes", "checksum", "scitag", "started_at", "finished_at", "retry_at", "reason", "seen_bytes"]
    ),
    **dict.fromkeys(["seen_checksum", "evidence", "transfer_s", "mode", "owner", "metadata"]),
    **dict.fromkeys(["source_url", "dest_url", "source_se", "dest_se", "vo", "activity", "selection_strategy"], "x"),
    file_id=1,  # type: ignore[arg-type]
    job_id=JobId("j"),
    file_index=0,
    state=FileState.FAILED,
    priority=3,
    n_failed=1,
    submitted_at=NOW,
    failure=FAILURE,
    epoch=1,
)


@pytest.mark.parametrize(
    ("metadata", "shown"),
    [
        (None, {"dst_file": REPORT}),
        ({"request_id": "r"}, {"request_id": "r", "dst_file": REPORT}),
        ("text", {"label": "text", "dst_file": REPORT}),
        ({"dst_file": "mine"}, {"dst_file": "mine"}),
    ],
)
def test_what_is_at_the_destination_is_added_to_the_metadata_of_a_file(metadata: Any, shown: Any) -> None:
    assert views.file_metadata(replace(FILE, metadata=metadata)) == shown
    assert views.file_metadata(replace(FILE, metadata={"k": 1}, failure=None)) == {"k": 1}
    assert views.file_metadata(replace(FILE, metadata={"k": 1}, state=FileState.FINISHED)) == {"k": 1}


def test_a_file_without_anything_has_no_metadata() -> None:
    assert views.file_metadata(replace(FILE, failure=None)) is None


def test_the_engine_takes_no_unknown_option() -> None:
    with pytest.raises(TypeError):
        load_options('{"unheard_of":1}')
    assert load_options('{"overwrite":true}') == JobOptions(overwrite=True)
    assert issubclass(Refused, Invalid)


@pytest.mark.parametrize(
    "key", ["retry", "retry_delay", "priority", "timeout", "nostreams", "buffer_size", "bring_online"]
)
def test_true_is_no_number(key: str):
    with pytest.raises(Refused, match=f"params.{key}: .*got true") as caught:
        job(**{key: True})
    assert caught.value.field == f"params.{key}"


def test_true_is_no_size():
    with pytest.raises(Refused, match="expected a number, got true"):
        job(file(filesize=True))
