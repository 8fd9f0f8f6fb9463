"""FTS's submission document, as Rucio, the fts3 client and the careless send it."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import replace
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service import NOW, file
from transfer_engine.config_service import AuthSettings
from transfer_engine.errors import Forbidden, Invalid
from transfer_engine.identity.loopback import local_caller
from transfer_engine.model import JobId, JobOptions, JobRequest, Verify
from transfer_engine.service.wire import views
from transfer_engine.service.wire.query import (
    parse_columns,
    parse_file_ids,
    parse_ids,
    parse_list,
    parse_priority,
)
from transfer_engine.service.wire.submission import DeletionJob, parse_submission
from transfer_engine.service.wire.words import Refused, refusal, timestamp
from transfer_engine.states import JobState, JobType
from transfer_engine.views import JobView

RUCIO = {
    "files": [
        {
            "sources": ["davs://s.example:1094/data/scope1/tt-1"],
            "destinations": ["davs://d.example:1094/data/scope1/tt-1"],
            "metadata": {"request_id": "a283", "scope": "scope1", "name": "tt-1", "filesize": 5000, "md5": "58be"},
            "filesize": 5000,
            "checksum": "ADLER32:7025b547",
            "selection_strategy": "orderly",
            "activity": "User Subscriptions",
        }
    ],
    "params": {
        "account": "root",
        "verify_checksum": "both",
        "copy_pin_lifetime": None,
        "bring_online": None,
        "job_metadata": {"issuer": "rucio", "multi_sources": False, "overwrite_when_only_on_disk": False},
        "overwrite": True,
        "overwrite_when_only_on_disk": False,
        "priority": 4,
        "s3alternate": True,
        "max_time_in_queue": 168,
    },
}

LOCAL = local_caller(AuthSettings(loopback="admin"))
assert LOCAL is not None


def parse(document: Any) -> JobRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_submission(body, caller=LOCAL, now=NOW, files_max=1000)


def job(*files: dict[str, Any], **params: Any) -> JobRequest:
    return parse({"files": list(files) or [file()], "params": params})


def message_of(document: Any) -> str:
    with pytest.raises(Invalid) as caught:
        parse(document)
    return refusal(caught.value)


def refused(*files: dict[str, Any], **params: Any) -> str:
    return message_of({"files": list(files) or [file()], "params": params})


def test_what_rucio_sends():
    request = parse(RUCIO)
    transfer = request.transfers[0]
    assert transfer.sources == ("davs://s.example:1094/data/scope1/tt-1",)
    assert transfer.metadata["request_id"] == "a283"
    assert (transfer.size_bytes, transfer.checksum, transfer.activity) == (
        5000,
        "ADLER32:7025b547",
        "User Subscriptions",
    )
    assert request.options == JobOptions(verify=Verify.BOTH, overwrite=True, deadline_at=NOW + 168 * 3600)
    assert request.metadata["multi_sources"] is False
    assert (request.job_type, request.priority, request.vo) == (JobType.NORMAL, 4, "local")
    assert request.params == {"s3alternate": True, "auth_method": "local"}
    assert request.job_id is None


def test_what_the_command_line_of_fts_sends():
    """Everything is there, most of it null, false or -1."""
    nothing = dict.fromkeys(
        [
            "gridftp", "spacetoken", "source_spacetoken", "fail_nearline", "credential", "nostreams", "timeout",
            "job_metadata", "overwrite_hop", "id_generator", "sid", "max_time_in_queue", "buffer_size", "strict_copy",
            "reuse", "target_qos",
        ]
    )  # fmt: skip
    empty = dict.fromkeys(["checksum", "filesize", "activity", "scitag", "metadata", "staging_metadata"])
    request = job(
        file(**empty, archive_metadata=None, source_tokens=[], destination_tokens=None),
        **nothing,
        verify_checksum="n",
        retry=0,
        retry_delay=0,
        bring_online=-1,
        copy_pin_lifetime=-1,
        archive_timeout=-1,
    )
    assert request.options == JobOptions(verify=Verify.NONE)
    assert request.transfers[0].activity == "default"
    assert request.transfers[0].selection_strategy == "auto"


@pytest.mark.parametrize(
    ("value", "checksum", "expected"),
    [
        (True, None, Verify.BOTH),
        (False, None, Verify.NONE),
        (None, None, Verify.NONE),
        ("", None, Verify.NONE),
        (False, "ADLER32:12", Verify.TARGET),
        (None, "ADLER32:12", Verify.TARGET),
        ("b", None, Verify.BOTH),
        ("both", None, Verify.BOTH),
        ("Source", None, Verify.SOURCE),
        ("t", None, Verify.TARGET),
        ("none", "ADLER32:12", Verify.NONE),
    ],
)
def test_verify_checksum_is_a_bool_a_word_or_a_letter(value: Any, checksum: str | None, expected: Verify):
    assert job(file(checksum=checksum), verify_checksum=value).options.verify is expected


@pytest.mark.parametrize("value", ["x", "true", "bothh", "relaxed"])
def test_an_unknown_verify_checksum_is_refused(value: str):
    assert "params.verify_checksum: expected none, source, target or both" in refused(verify_checksum=value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(168, 168 * 3600), ("168", 168 * 3600), ("10s", 10), ("5m", 300), ("3h", 10800), ("1d", 86400), (0.5, 1800)],
)
def test_max_time_in_queue_is_hours_or_has_a_unit(value: Any, seconds: int):
    assert job(max_time_in_queue=value).options.deadline_at == NOW + seconds


@pytest.mark.parametrize("value", [None, 0, -1, "", "0", "-3h"])
def test_no_max_time_in_queue(value: Any):
    assert job(max_time_in_queue=value).options.deadline_at is None


@pytest.mark.parametrize("value", ["soon", "1w", "1d2h", [], {}, True, 10**9, "99999999999d", float("inf")])
def test_a_bad_max_time_in_queue_is_refused(value: Any):
    assert "params.max_time_in_queue: " in refused(max_time_in_queue=value)


@pytest.mark.parametrize(("value", "expected"), [(0, None), (None, None), (-1, 0), (3, 3)])
def test_retry_counts_as_fts_counts(value: int | None, expected: int | None):
    assert job(retry=value).options.retries_max == expected


def test_numbers_of_one_attempt():
    options = job(retry_delay=30, timeout=600, nostreams=4, buffer_size=1048576).options
    assert (options.retry_delay_s, options.timeout_s, options.n_streams) == (30, 600, 4)


@pytest.mark.parametrize(("value", "expected"), [(None, 3), (0, 1), (9, 5), (2, 2), (-5, 1)])
def test_priority_is_clamped(value: int | None, expected: int):
    assert job(priority=value).priority == expected


def test_deterministic_ids():
    request = job(id_generator="deterministic", sid="request-1")
    vo = uuid.uuid5(uuid.UUID("01874efb-4735-4595-bc9c-591aef8240c9"), "local")
    assert request.job_id == str(uuid.uuid5(vo, "request-1"))
    assert refused(id_generator="deterministic") == "Need sid for deterministic job id generation"
    assert "params.id_generator" in refused(id_generator="random")


@pytest.mark.parametrize(
    ("flags", "letter"),
    [
        ({}, None),
        ({"overwrite": True}, None),
        ({"overwrite": "Y"}, None),
        ({"overwrite_on_retry": True}, "R"),
        ({"overwrite_hop": True, "multihop": True}, "M"),
    ],
)
def test_overwrite_letters(flags: dict[str, Any], letter: str | None):
    request = job(**flags)
    assert request.params.get("overwrite_flag") == letter
    assert request.options.overwrite is bool(flags.get("overwrite"))


def test_job_types():
    two = [file(0), file(1)]
    several = file(sources=["https://a.example/x", "https://b.example/x"])
    assert job(*two).job_type is JobType.NORMAL
    assert job(*two, multihop=True).job_type is JobType.MULTIHOP
    assert job(*two, reuse=True).job_type is JobType.SESSION_REUSE
    assert job(several).job_type is JobType.REPLICAS
    assert job(several).transfers[0].sources == ("https://a.example/x", "https://b.example/x")


def test_fts_own_sentences():
    """Clients and their tests know these by heart."""
    value = "Invalid value within the request: "
    several = file(sources=["https://a.example/x", "https://b.example/x"])
    elsewhere = file(destinations=["https://elsewhere.example/x"])
    cases = {
        refused(several, multihop=True): (
            "Can not request multiple replica job together with multihop or session reuse at the same time"
        ),
        refused(several, file()): "Multiple replica jobs must only have one unique file",
        refused(file(), elsewhere, reuse=True): (
            "Reuse jobs must only contain transfers for the same source ad destination storage"
        ),
        refused(overwrite=True, overwrite_hop=True): "Incompatible overwrite flags used at the same time",
        refused(overwrite_hop=True): "'overwrite-hop' requires multihop job submission",
        refused(overwrite_when_only_on_disk=True): (
            "'overwrite-when-only-on-disk' requires 'archive-timeout' to be set"
        ),
        refused(
            file(destinations=["root://d.example//x"]), overwrite_when_only_on_disk=True, archive_timeout=10
        ): "'overwrite-when-only-on-disk' requires destination to be HTTPs endpoint (Tape REST API required)",
        refused(file(sources=["file:///etc/passwd"])): value + "Can not transfer local files (file:///etc/passwd)",
        refused(file(destinations=[" FILE:/x "])): value + "Can not transfer local files (FILE:/x)",
        refused(file(scitag=3)): value + "Invalid SciTag value: 3 (not in [65, 65535] range)",
        refused(file(scitag="66")): value + "Invalid SciTag value: 66 (not in [65, 65535] range)",
        refused(file(metadata={"k": "x" * 4096})): (
            value + "Job Submission Refused, metadata exceeds size limit of 4096"
        ),
        refused(job_metadata="x" * 2048): value + "Job Submission Refused, metadata exceeds size limit of 2048",
        refused(file(archive_metadata={"k": "x" * 1024})): (
            value + "Job Submission Refused, metadata exceeds size limit of 1024"
        ),
        refused(file(metadata=[1])): value + "Metadata neither JSON nor String",
        refused(file(selection_strategy="dice")): "dice algorithm is not supported by Scheduler",
        refused(file(source_tokens=["a"])): (
            "Both source_tokens and destination_tokens are required if one of them is present."
        ),
        refused(file(source_tokens=["a", "b"], destination_tokens=["c"])): (
            "Length of source_tokens should be equal to the length of sources."
        ),
        message_of({"params": {}}): "No transfers operations specified",
        message_of({"files": None}): "No transfers operations specified",
        message_of({"files": []}): "No valid pairs available",
        message_of({"files": [{"destinations": ["https://d.example/x"]}]}): "Missing parameter: 'sources'",
        message_of({"files": [{"sources": ["https://d.example/x"]}]}): "Missing parameter: 'destinations'",
        refused(file(sources=[])): "No valid pairs available",
        message_of(b"not json"): "Badly formatted JSON request",
        message_of(b""): "Badly formatted JSON request",
        message_of(b'{"files": [}'): "Badly formatted JSON request",
        message_of(b"\xff\xfe"): "Badly formatted JSON request",
        message_of(b'{"a":' + b"[" * 100_000): "Badly formatted JSON request",
        message_of([]): "Expecting a dictionary",
    }
    assert list(cases) == list(cases.values())


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"files": [file(filesize=-1)]}, "files[0].filesize"),
        ({"files": [file(), file(filesize="big")]}, "files[1].filesize"),
        ({"files": [file(filesize=1.5)]}, "files[0].filesize"),
        ({"files": [file(filesize=1 << 70)]}, "files[0].filesize"),
        ({"files": [file(sources="https://a.example/x")]}, "files[0].sources"),
        ({"files": [file(destinations=[None])]}, "files[0].destinations[0]"),
        ({"files": [file(destinations=["https://a.example/1", "https://a.example/2"])]}, "files[0].destinations"),
        ({"files": [file(activity="x" * 1000)]}, "files[0].activity"),
        ({"files": ["x"]}, "files[0]"),
        ({"files": {}}, "files"),
        ({"files": [file()], "params": []}, "params"),
        ({"files": [file()], "params": {"retry": "often"}}, "params.retry"),
        ({"files": [file()], "params": {"retry": 10**9}}, "params.retry"),
        ({"files": [file()], "params": {"overwrite": "perhaps"}}, "params.overwrite"),
        ({"files": [file()], "params": {"sid": "x" * 1000}}, "params.sid"),
        ({"files": [file()], "params": {"timeout": 10**12}}, "params.timeout"),
        ({"files": [file()], "params": {"bring_online": 100}}, "params.bring_online"),
        ({"files": [file()], "params": {"copy_pin_lifetime": 100}}, "params.copy_pin_lifetime"),
        ({"files": [file()], "params": {"archive_timeout": 100}}, "params.archive_timeout"),
        ({"files": [file(source_tokens=["a"], destination_tokens=["b"])]}, "files[0].source_tokens[0]"),
        ({"files": [file()] * 1001}, "files"),
    ],
)
def test_what_is_wrong_is_named(document: Any, place: str):
    with pytest.raises(Refused) as caught:
        parse(document)
    assert caught.value.field == place
    assert place in refusal(caught.value)


def test_deletions_are_over():
    with pytest.raises(DeletionJob, match="Deletion jobs are no longer supported by FTS"):
        parse({"delete": ["https://a.example/x"]})


def test_unknown_keys_are_ignored():
    request = parse({"files": [file(colour="red")], "params": {"flavour": "sour"}, "more": 1})
    assert request.params == {"auth_method": "local"}


def test_the_engine_names_the_field_that_fts_leaves_out():
    assert refusal(Invalid("Missing host (https://)", field="files[0].sources")) == (
        "Invalid value within the request: Missing host (https://)"
    )
    assert refusal(Invalid("Missing scheme (x), expected scheme://host/path", field="files[0].sources")) == (
        "Invalid value within the request: Missing scheme (x)"
    )
    assert refusal(Invalid("is not hexadecimal", field="files[0].checksum")) == (
        "Invalid value within the request: files[0].checksum: is not hexadecimal"
    )


def test_a_bare_algorithm_is_no_checksum():
    assert job(file(checksum="ADLER32")).transfers[0].checksum is None
    assert job(file(checksum="MD5:")).transfers[0].checksum is None
    assert job(file(checksum="12ab")).transfers[0].checksum == "12ab"


def test_metadata_limits_count_what_fts_counts():
    """The length of `json.dumps`, whatever it is as UTF-8."""
    fits = {"k": "é" * ((4096 - 9) // 6)}
    assert len(json.dumps(fits)) <= 4096
    assert job(file(metadata=fits)).transfers[0].metadata == fits
    assert "size limit" in refused(file(metadata={"k": "é" * 700}))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
FILE_KEYS = ["sources", "destinations", "metadata", "filesize", "checksum", "activity", "scitag", "selection_strategy"]
PARAM_KEYS = ["verify_checksum", "retry", "priority", "max_time_in_queue", "overwrite", "reuse", "sid", "job_metadata"]


@given(
    st.dictionaries(st.sampled_from(FILE_KEYS), JSON_VALUES),
    st.dictionaries(st.sampled_from(PARAM_KEYS), JSON_VALUES),
)
def test_any_json_is_a_job_or_a_refusal(more: dict[str, Any], params: dict[str, Any]):
    with contextlib.suppress(Refused):
        assert isinstance(job(file(**more), **params), JobRequest)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_job_or_a_refusal(body: bytes):
    with pytest.raises(Refused):
        parse(body)


# Small things


def test_ids():
    assert parse_ids("a") == (["a"], False)
    assert parse_ids("a,") == (["a"], True)
    assert parse_ids("a,b,,c") == (["a", "b", "c"], True)
    assert parse_file_ids("1,2") == ([1, 2], True)
    for text in ("x", "1,-2", "1;2", "٣", "9" * 30):
        with pytest.raises(Refused, match="expected file ids"):
            parse_file_ids(text)


def test_columns():
    assert parse_columns(" a, b ,,c") == ("a", "b", "c")
    assert parse_columns(None) == parse_columns("") == ()


@pytest.mark.parametrize("value", [0, 6, "high", 1.5])
def test_a_priority_is_one_to_five(value: Any):
    with pytest.raises(Refused, match="Invalid priority value"):
        parse_priority(json.dumps({"params": {"priority": value}}).encode())


def test_priorities():
    assert parse_priority(b'{"params": {"priority": 5}}') == 5
    assert parse_priority(b'{"params": {}}') is None
    assert parse_priority(b"{}") is None
    with pytest.raises(Refused, match="Badly formatted JSON request"):
        parse_priority(b"{")


def listing(**query: str) -> Any:
    return parse_list(query, caller=LOCAL, now=NOW).where


def test_lists_are_of_open_jobs_unless_a_state_and_a_bound_are_given():
    assert listing().open_only
    assert listing(state_in="FINISHED").open_only
    assert listing(limit="10").open_only
    assert not listing(state_in="FINISHED", limit="10").open_only
    assert not listing(state_in="FINISHED,FAILED", time_window="1:30").open_only
    assert listing(state_in="FINISHED", time_window="1:30").submitted_after == NOW - 5400
    assert listing(state_in="FINISHED,STAGING", limit="1").states == {JobState.FINISHED}
    assert listing(state_in="STAGING", limit="1").states == frozenset()
    assert listing(source_se="https://a", dest_se="https://b", vo_name="v").dest_se == "https://b"


def test_lists_of_somebody_else():
    assert listing(user_dn="local", dlg_id=LOCAL.delegation_id).user_dn == "local"
    with pytest.raises(Forbidden):
        listing(dlg_id="0123456789abcdef")
    with pytest.raises(Refused):
        listing(user_dn="/CN=somebody")


@pytest.mark.parametrize("query", [{"limit": "501"}, {"limit": "-1"}, {"limit": "x"}, {"time_window": "1h"}])
def test_bad_bounds_of_lists(query: dict[str, str]):
    with pytest.raises(Refused):
        listing(**query)


def test_columns_and_types_agree():
    assert list(views.JOB_COLUMNS) == list(get_type_hints(views.JobObject))
    assert list(views.FILE_COLUMNS) == list(get_type_hints(views.FileObject))


def test_times_have_no_fraction_and_no_zone():
    assert timestamp(NOW + 0.9) == "2023-11-14T22:13:20"
    assert timestamp(None) is None


JOB = JobView(
    job_id=JobId("j"),
    state=JobState.ACTIVE,
    job_type=JobType.NORMAL,
    vo="local",
    user_dn="local",
    cred_id="",
    priority=3,
    submitted_at=NOW,
    finished_at=None,
    reason=None,
    source_se=None,
    dest_se=None,
    metadata=None,
    options=JobOptions(),
    params={},
    cancel_requested=False,
    n_files=3,
    n_finished=0,
    n_failed=0,
    n_canceled=0,
)


def test_a_canceled_job_shows_at_once_where_it_will_end():
    assert views.job_state(JOB) is JobState.ACTIVE
    canceled = replace(JOB, cancel_requested=True, n_canceled=1)
    assert views.job_object(canceled)["job_state"] == "CANCELED"
    assert views.job_object(canceled)["reason"] == "Job canceled by the user"
    assert views.job_state(replace(canceled, n_finished=1)) is JobState.CANCELED
    assert views.job_state(replace(canceled, n_finished=1, n_failed=1)) is JobState.FINISHEDDIRTY


def test_options_as_fts_shows_them():
    options = JobOptions(verify=Verify.SOURCE, overwrite=True, retries_max=0, n_streams=2, timeout_s=60.0)
    flags = {"strict_copy": True, "ipv6": True, "disable_cleanup": True, "s3alternate": True, "buffer_size": 7}
    shown = views.job_object(replace(JOB, options=options, params=flags, metadata="text"))
    assert shown["verify_checksum"] == "s"
    assert shown["overwrite_flag"] == "Y"
    assert shown["retry"] == -1
    assert shown["internal_job_params"] == "nostreams:2,timeout:60,buffersize:7,strict,disable-cleanup,ipv6,s3alternate"
    assert shown["job_metadata"] == {"label": "text", "auth_method": "local"}
    assert views.job_object(replace(JOB, state=JobState.FAILED))["reason"] == (
        "One or more files failed. Please have a look at the details for more information"
    )
