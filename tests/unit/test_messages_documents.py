"""The messages themselves: each key of FTS3's, with its type, whatever a transfer is like."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_engine.config_service import MessageSettings
from transfer_engine.messages import documents
from transfer_engine.messages.documents import ERROR_MAX, Author, Story, clean
from transfer_engine.messages.letters import BODY_MAX, Letters, TooLongError
from transfer_engine.model import FileId, JobId, JobOptions
from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.views import EventDetail, FileView, JobView, StoredEvent

JOB_ID = "1d5bba5a-8a0c-4ab9-a6b7-0123456789ab"
AT = 1_700_000_000.25
AUTHOR = Author(endpoint="fts.example", publish_dn=False, retries_max=3)

BOOL, INT, FLOAT, STR, JSON = bool, int, float, str, (dict, type(None))
START = {
    "transfer_id": STR, "job_id": STR, "file_id": INT, "endpnt": STR, "timestamp": INT, "src_srm_v": STR,
    "dest_srm_v": STR, "vo": STR, "src_url": STR, "dst_url": STR, "src_hostname": STR, "dst_hostname": STR,
    "src_site_name": STR, "dst_site_name": STR, "t_channel": STR, "srm_space_token_src": STR,
    "srm_space_token_dst": STR, "user_dn": STR, "is_archiving": BOOL, "file_metadata": JSON, "job_metadata": JSON,
}  # fmt: skip
COMPLETE = {
    "tr_id": STR, "job_id": STR, "file_id": INT, "endpnt": STR, "vo": STR, "user_dn": STR, "auth_method": STR,
    "activity": STR, "src_url": STR, "dst_url": STR, "src_hostname": STR, "dst_hostname": STR, "src_se": STR,
    "dst_se": STR, "protocol": STR, "src_srm_v": STR, "dest_srm_v": STR, "src_site_name": STR, "dst_site_name": STR,
    "t_channel": STR, "src_protocol": STR, "dst_protocol": STR, "src_transfer_protocol": STR,
    "dst_transfer_protocol": STR, "protocol_translation": BOOL, "final_destination": STR, "timestamp_tr_st": INT,
    "timestamp_tr_comp": INT, "timestamp_chk_src_st": INT, "timestamp_chk_src_ended": INT,
    "timestamp_checksum_dest_st": INT, "timestamp_checksum_dest_ended": INT, "time_srm_prep_st": INT,
    "time_srm_prep_end": INT, "time_srm_fin_st": INT, "time_srm_fin_end": INT, "tr_timestamp_start": INT,
    "tr_timestamp_complete": INT, "transfer_time": INT, "operation_time": INT, "throughput": FLOAT,
    "srm_preparation_time": INT, "srm_finalization_time": INT, "srm_overhead_time": INT,
    "srm_overhead_percentage": FLOAT, "timestamp_checksum_src_diff": INT, "timestamp_checksum_dst_diff": INT,
    "t_final_transfer_state": STR, "t_final_transfer_state_flag": INT, "t_error_code": INT, "tr_error_scope": STR,
    "t_failure_phase": STR, "tr_error_category": STR, "t__error_message": STR, "is_recoverable": BOOL,
    "eviction_code": INT, "cleanup_code": INT, "overwrite_on_disk_flag": BOOL, "overwrite_on_disk_deletion_code": INT,
    "tr_bt_transfered": INT, "f_size": INT, "file_size": INT, "nstreams": INT, "buf_size": INT, "tcp_buf_size": INT,
    "block_size": INT, "scitag": INT, "t_timeout": INT, "chk_timeout": INT, "srm_space_token_src": STR,
    "srm_space_token_dst": STR, "channel_type": STR, "transfer_type": STR, "ipver": STR, "is_archiving": BOOL,
    "retry": INT, "retry_max": INT, "job_m_replica": BOOL, "job_multihop": BOOL, "transfer_lasthop": BOOL,
    "job_state": STR, "file_metadata": JSON, "job_metadata": JSON,
}  # fmt: skip
STATE = {
    "user_dn": STR, "src_url": STR, "dst_url": STR, "vo_name": STR, "source_se": STR, "dest_se": STR, "job_id": STR,
    "file_id": INT, "job_state": STR, "file_state": STR, "retry_counter": INT, "retry_max": INT, "user_filesize": INT,
    "timestamp": INT, "submit_time": INT, "staging_start": INT, "staging_finished": INT, "staging": BOOL,
    "archiving_start": INT, "archiving_finished": INT, "archiving": BOOL, "reason": STR, "job_metadata": JSON,
    "file_metadata": JSON, "endpnt": STR,
}  # fmt: skip
FIRST_STATE = {
    "endpnt": STR, "user_dn": STR, "src_url": STR, "dst_url": STR, "vo_name": STR, "source_se": STR, "dest_se": STR,
    "job_id": STR, "file_id": INT, "job_state": STR, "file_state": STR, "retry_counter": INT, "retry_max": INT,
    "timestamp": INT, "job_metadata": JSON, "file_metadata": JSON, "staging_metadata": JSON, "archive_metadata": JSON,
}  # fmt: skip


def job_view(**more: Any) -> JobView:
    values: dict[str, Any] = {
        "job_id": JobId(JOB_ID), "state": JobState.ACTIVE, "job_type": JobType.NORMAL, "vo": "cms",
        "user_dn": "/CN=alice", "cred_id": "0" * 16, "priority": 3, "submitted_at": AT - 60, "finished_at": None,
        "reason": None, "source_se": "davs://a.org", "dest_se": "davs://b.org", "metadata": {"issuer": "rucio"},
        "options": JobOptions(), "params": {"auth_method": "certificate"}, "cancel_requested": False, "n_files": 1,
        "n_finished": 0, "n_failed": 0, "n_canceled": 0,
    }  # fmt: skip
    return JobView(**(values | more))


def file_view(**more: Any) -> FileView:
    values: dict[str, Any] = {
        "file_id": FileId(7), "job_id": JobId(JOB_ID), "file_index": 0, "state": FileState.FINISHED,
        "source_url": "davs://a.org:443/f", "dest_url": "davs://b.org:443/g", "source_se": "davs://a.org",
        "dest_se": "davs://b.org", "vo": "cms", "activity": "default", "priority": 3, "size_bytes": 1000,
        "checksum": None, "metadata": {"request_id": "r"}, "scitag": None, "selection_strategy": "auto", "n_failed": 0,
        "submitted_at": AT - 60, "started_at": AT - 20, "finished_at": AT, "retry_at": None, "reason": None,
        "failure": None, "seen_bytes": 1000, "seen_checksum": None, "evidence": "size", "transfer_s": 10.0,
        "mode": "pull", "owner": None, "epoch": 1, "claimed_at": AT - 21,
    }  # fmt: skip
    return FileView(**(values | more))


FAILURE = {"code": "MISSING", "again": "never", "scope": "SOURCE", "phase": "PREPARATION", "errno": 2,
           "message": "File not found", "hint": "-"}  # fmt: skip


def story(state: FileState = FileState.FINISHED, *, job: Any = None, file: Any = None, **detail: Any) -> Story:
    reason = "SOURCE [2] File not found" if state is FileState.FAILED else None
    event = StoredEvent(
        seq=1, at=AT, kind="transfer", job_id=JobId(JOB_ID), file_id=FileId(7), state=state.value, reason=reason,
        detail=EventDetail(**detail),
    )  # fmt: skip
    if state is FileState.FAILED and file is None:
        file = file_view(state=state, failure=FAILURE, n_failed=1, seen_bytes=None, transfer_s=None)
    return Story(event, job or job_view(), file or file_view(state=state))


def check(document: dict[str, Any], keys: dict[str, Any]) -> None:
    assert set(document) == set(keys)
    for key, kind in keys.items():
        # In Python a bool is an int, in JSON it is none.
        assert type(document[key]) is kind or (isinstance(kind, tuple) and isinstance(document[key], kind)), key
    assert json.loads(json.dumps(document, allow_nan=False)) == document


metadata = st.one_of(st.none(), st.text(), st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.none())))
instants = st.one_of(st.none(), st.floats(0, 4e9))
failures = st.fixed_dictionaries({
    "code": st.just("X"), "again": st.sampled_from(["never", "soon", "few", "late"]),
    "scope": st.sampled_from(["SOURCE", "DESTINATION", "TRANSFER", "AGENT"]),
    "phase": st.sampled_from(["PREPARATION", "TRANSFER", "FINALIZATION"]), "errno": st.integers(0, 200),
    "message": st.text(), "hint": st.text(),
})  # fmt: skip
files = st.builds(
    file_view,
    file_index=st.integers(0, 3),
    size_bytes=st.one_of(st.none(), st.integers(0, 2**62)),
    seen_bytes=st.one_of(st.none(), st.integers(0, 2**62)),
    transfer_s=st.one_of(st.none(), st.floats(0, 1e6)),
    started_at=instants,
    claimed_at=instants,
    n_failed=st.integers(0, 9),
    scitag=st.one_of(st.none(), st.integers(0, 65535)),
    mode=st.sampled_from([None, "", "pull", "push", "stream"]),
    metadata=metadata,
    failure=st.one_of(st.none(), failures),
    source_url=st.sampled_from(["davs://a.org/f", "https://[::1]:1094//x?copy_mode=push", "file:///tmp/x"]),
)
jobs = st.builds(
    job_view,
    job_type=st.sampled_from(list(JobType)),
    metadata=metadata,
    state=st.sampled_from(list(JobState)),
    params=st.sampled_from([{}, {"auth_method": "oauth2"}, {"source_spacetoken": "T", "tape_metadata": {"0": {}}}]),
    n_files=st.integers(1, 4),
    dest_se=st.sampled_from([None, "davs://z.org"]),
    options=st.builds(JobOptions, timeout_s=st.sampled_from([None, 60.0]), retries_max=st.sampled_from([None, 0, 5])),
)
details = st.builds(
    EventDetail, retry=st.integers(0, 9), source=st.sampled_from([None, "davs://c.org/f"]), next=st.booleans()
)
events = st.builds(
    StoredEvent, seq=st.integers(1), at=st.floats(1e9, 4e9), kind=st.just("transfer"), job_id=st.just(JOB_ID),
    file_id=st.just(7), state=st.sampled_from(list(FileState)).map(str), reason=st.one_of(st.none(), st.text()),
    detail=details,
)  # fmt: skip


@given(events, jobs, files, st.booleans())
def test_every_key_has_its_type_whatever_a_transfer_is_like(
    event: StoredEvent, job: JobView, file: FileView, publish_dn: bool
) -> None:
    author, told = replace(AUTHOR, publish_dn=publish_dn), Story(event, job, file)
    check(documents.start(told, author), START)
    check(documents.state(told, author, job_state="ACTIVE"), STATE)
    check(documents.first_state(told, author), FIRST_STATE)
    if told.state in {FileState.FINISHED, FileState.FAILED, FileState.CANCELED}:
        check(documents.completion(told, author), COMPLETE)


@given(st.text(max_size=5000))
def test_the_text_of_a_failure_is_one_short_printable_line(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert len(cleaned) <= ERROR_MAX
    assert not set(cleaned) & set("\"'\r\n")


def test_a_completion_as_rucio_reads_it() -> None:
    found = documents.completion(story(), AUTHOR)
    assert found["tr_id"] == f"2023-11-14-2212__a.org__b.org__7__{JOB_ID}"
    assert found["tr_id"].split("__")[-1] == JOB_ID
    assert (found["tr_timestamp_start"], found["tr_timestamp_complete"]) == (1_699_999_979_250, 1_700_000_000_250)
    assert (found["timestamp_tr_st"], found["timestamp_tr_comp"]) == (1_699_999_990_250, 1_700_000_000_250)
    assert (found["transfer_time"], found["operation_time"], found["throughput"]) == (10_000, 21_000, 100.0)
    assert (found["t_channel"], found["src_hostname"]) == ("davs://a.org__davs://b.org", "a.org")
    assert (found["transfer_type"], found["channel_type"]) == ("3rd pull", "urlcopy")
    assert found["job_metadata"] == {"issuer": "rucio", "auth_method": "certificate"}
    assert (found["src_url"], found["dst_url"]) == ("davs://a.org:443/f", "davs://b.org:443/g"), "byte for byte"


def test_a_failure_reads_as_it_does_for_who_polls() -> None:
    found = documents.completion(story(FileState.FAILED), AUTHOR)
    assert found["t__error_message"] == "SOURCE [2] File not found"
    assert (found["t_error_code"], found["tr_error_category"]) == (2, "NO_SUCH_FILE_OR_DIRECTORY")
    assert (found["tr_error_scope"], found["t_failure_phase"]) == ("SOURCE", "TRANSFER_PREPARATION")
    assert (found["is_recoverable"], found["retry"], found["retry_max"]) == (False, 0, 3)
    assert found["tr_bt_transfered"] == 0


def test_what_was_in_the_way_is_reported_with_the_metadata() -> None:
    report = {"file_size": 5, "checksum_type": "ADLER32", "checksum_value": "00000001"}
    file = file_view(state=FileState.FAILED, failure={**FAILURE, "dst_file": report})
    found = documents.completion(story(FileState.FAILED, file=file), AUTHOR)
    assert found["file_metadata"] == {"request_id": "r", "dst_file": report}


@pytest.mark.parametrize(
    ("kind", "state", "goes_on", "expected"),
    [
        ("N", "FINISHED", False, "UNKNOWN"),
        ("N", "FAILED", False, "UNKNOWN"),
        ("Y", "FAILED", False, "UNKNOWN"),
        ("R", "FINISHED", False, "FINISHED"),
        ("R", "FAILED", True, "ACTIVE"),
        ("R", "FAILED", False, "FAILED"),
        ("H", "FINISHED", True, "ACTIVE"),
        ("H", "FINISHED", False, "FINISHED"),
        ("H", "FAILED", False, "FAILED"),
    ],
)
def test_the_state_of_the_job_in_a_completion(kind: str, state: str, goes_on: bool, expected: str) -> None:
    told = story(FileState(state), job=job_view(job_type=JobType(kind)), next=goes_on)
    assert documents.completion(told, AUTHOR)["job_state"] == expected


def test_the_source_of_an_attempt_is_that_of_its_beginning() -> None:
    found = documents.start(story(FileState.ACTIVE, source="davs://old.org/f"), AUTHOR)
    assert (found["src_url"], found["src_hostname"]) == ("davs://old.org/f", "old.org")
    assert "__old.org__" in found["transfer_id"]


def test_names_of_users_are_told_only_where_that_is_set() -> None:
    for publish_dn, expected in ((False, ""), (True, "/CN=alice")):
        author = replace(AUTHOR, publish_dn=publish_dn)
        told = story()
        assert documents.start(told, author)["user_dn"] == expected
        assert documents.completion(told, author)["user_dn"] == expected
        assert documents.state(told, author, job_state="ACTIVE")["user_dn"] == expected
        assert documents.first_state(told, author)["user_dn"] == expected


@pytest.mark.parametrize(
    ("told", "topics"),
    [
        (story(FileState.ACTIVE), ["start", "state"]),
        (story(FileState.SUBMITTED), ["state"]),
        (story(FileState.VERIFYING), []),
        (story(FileState.CANCELING), ["state"]),
        (story(FileState.CANCELED, shown=True), ["complete"]),
        (story(FileState.CANCELED), ["state", "complete"]),
        (story(FileState.CANCELED, unused=True), ["state"]),
        (story(FileState.FINISHED), ["state", "complete"]),
        (story(FileState.FAILED), ["state", "complete"]),
    ],
)
def test_which_messages_a_change_is_worth(told: Story, topics: list[str]) -> None:
    letters = Letters(settings=MessageSettings(), author=AUTHOR).of_change(told)
    assert [letter.destination for letter in letters] == [f"/topic/transfer.fts_monitoring_{name}" for name in topics]
    for letter in letters:
        assert letter.body.endswith(b"} ")
        assert json.loads(letter.body)
        assert letter.vo == "cms"


def test_a_message_longer_than_brokers_take_is_not_made() -> None:
    letters = Letters(settings=MessageSettings(), author=AUTHOR)
    with pytest.raises(TooLongError):
        letters.of_change(story(file=file_view(metadata={"x": "y" * BODY_MAX})))
