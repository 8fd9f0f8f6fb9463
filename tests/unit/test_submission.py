"""Requests: whatever is wrong is Invalid with its field; whatever is accepted can be stored and read back."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer_engine import submission
from transfer_engine.errors import Invalid
from transfer_engine.model import JobId, JobOptions, JobRequest, PlannedJob, Transfer, Verify
from transfer_engine.states import FileState, JobType
from transfer_engine.store import rows
from transfer_engine.store.sqlite import SqliteStore
from transfer_engine.testing import run_virtual

NEW_ID = str(uuid.UUID(int=1))
OK = Transfer.of("https://a.org/f", "https://b.org/f")


def plan(*transfers: Transfer, **request: Any) -> PlannedJob:
    job = JobRequest(transfers=transfers or (OK,), **request)
    return submission.plan(job, now=100.0, new_id=NEW_ID, schemes={"https", "davs"})


def deep(n: int) -> Any:
    value: Any = 1
    for _ in range(n):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (JobRequest(transfers=()), "files"),
        (JobRequest(transfers=(OK,), priority=0), "priority"),
        (JobRequest(transfers=(OK,), priority=6), "priority"),
        (JobRequest(transfers=(OK,), vo=""), "vo"),
        (JobRequest(transfers=(OK,), vo="a\nb"), "vo"),
        (JobRequest(transfers=(OK,), user_dn="a\x00b"), "user_dn"),
        (JobRequest(transfers=(OK,), cred_id="\ud800"), "cred_id"),
        (JobRequest(transfers=(OK,), key=""), "key"),
        (JobRequest(transfers=(OK,), key="\ud800"), "key"),
        (JobRequest(transfers=(OK,), job_id=JobId("x" * 37)), "job_id"),
        (JobRequest(transfers=(OK,), job_id=JobId("")), "job_id"),
        (JobRequest(transfers=(OK,), metadata=float("nan")), "metadata"),
        (JobRequest(transfers=(OK,), metadata={1, 2}), "metadata"),
        (JobRequest(transfers=(OK,), metadata=deep(100_000)), "metadata"),
        (JobRequest(transfers=(OK,), params={"a": object()}), "params"),
        (JobRequest(transfers=(OK,), options=JobOptions(verify="bogus")), "options.verify"),  # type: ignore[arg-type]
        (JobRequest(transfers=(OK,), options=JobOptions(modes=("pigeon",))), "options.modes"),
        (JobRequest(transfers=(OK,), options=JobOptions(modes=())), "options.modes"),
        (JobRequest(transfers=(OK,), options=JobOptions(timeout_s=float("nan"))), "options.timeout_s"),
        (JobRequest(transfers=(OK,), options=JobOptions(timeout_s=0)), "options.timeout_s"),
        (JobRequest(transfers=(OK,), options=JobOptions(retry_delay_s=float("inf"))), "options.retry_delay_s"),
        (JobRequest(transfers=(OK,), options=JobOptions(deadline_at=float("nan"))), "options.deadline_at"),
        (JobRequest(transfers=(OK,), options=JobOptions(n_streams=0)), "options.n_streams"),
        (JobRequest(transfers=(OK, replace(OK, sources=()))), "files[1].sources"),
        (JobRequest(transfers=(replace(OK, sources=("https://a.org/f",) * 17),)), "files[0].sources"),
        (JobRequest(transfers=(replace(OK, activity=""),)), "files[0].activity"),
        (JobRequest(transfers=(replace(OK, size_bytes=-1),)), "files[0].filesize"),
        (JobRequest(transfers=(replace(OK, size_bytes=1 << 63),)), "files[0].filesize"),
        (JobRequest(transfers=(replace(OK, checksum="adler32:xyz"),)), "files[0].checksum"),
        (JobRequest(transfers=(replace(OK, checksum="md9:00"),)), "files[0].checksum"),
        (JobRequest(transfers=(replace(OK, metadata={"a": float("inf")}),)), "files[0].metadata"),
        (JobRequest(transfers=(replace(OK, scitag=1 << 70),)), "files[0].scitag"),
        (JobRequest(transfers=(replace(OK, selection_strategy="\ud800"),)), "files[0].selection_strategy"),
        (JobRequest(transfers=(replace(OK, destination="ftp://b.org/f"),)), "files[0].destinations"),
        (JobRequest(transfers=(replace(OK, destination="davs://a.org:443//f"),)), "files[0]"),
        (JobRequest(transfers=(replace(OK, sources=OK.sources * 2),), job_type=JobType.MULTIHOP), "files"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(request_: JobRequest, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        submission.plan(request_, now=100.0, new_id=NEW_ID, schemes={"https", "davs"})
    assert caught.value.field == field
    assert caught.value.message


# Keys


def test_a_key_gives_the_id_and_other_content_another_fingerprint() -> None:
    first = plan(key="k")
    assert plan(key="k").job_id == first.job_id
    assert plan(key="k", vo="other").job_id != first.job_id
    assert plan(key="k2").job_id != first.job_id
    assert (first.repeatable, plan().repeatable, plan(job_id=JobId("x")).repeatable) == (True, False, False)
    for other in (
        plan(replace(OK, size_bytes=1), key="k"),
        plan(OK, OK, key="k"),
        plan(key="k", priority=4),
        plan(key="k", metadata=1),
        plan(key="k", options=JobOptions(overwrite=True)),
    ):
        assert other.fingerprint != first.fingerprint
    assert plan(key="k").fingerprint == first.fingerprint


def test_a_deadline_that_moves_with_the_clock_is_the_same_job() -> None:
    one, two = (plan(key="k", options=JobOptions(deadline_at=at)) for at in (1000.0, 2000.0))
    assert one.fingerprint == two.fingerprint


# Shapes


def test_replicas_wait_for_their_turn() -> None:
    planned = plan(replace(OK, sources=("https://a.org/f", "https://c.org/f", "https://d.org/f")), OK)
    assert planned.job_type is JobType.REPLICAS
    assert (planned.n_files, len(planned.files)) == (2, 4)
    assert [(f.file_index, f.state, f.follows) for f in planned.files] == [
        (0, FileState.SUBMITTED, True),
        (0, FileState.NOT_USED, True),
        (0, FileState.NOT_USED, False),
        (1, FileState.SUBMITTED, False),
    ]


def test_hops_wait_for_their_turn() -> None:
    route = [Transfer.of(f"https://h{n}.org/f", f"https://h{n + 1}.org/f") for n in range(3)]
    planned = plan(*route, job_type=JobType.MULTIHOP)
    assert [(f.state, f.follows) for f in planned.files] == [
        (FileState.SUBMITTED, True),
        (FileState.NOT_USED, True),
        (FileState.NOT_USED, False),
    ]


@pytest.mark.parametrize(
    "options",
    [
        JobOptions(),
        JobOptions(verify=Verify.NONE, overwrite=True, retries_max=-1, modes=("push", "stream"), timeout_s=1.5),
        JobOptions(retry_delay_s=0, deadline_at=5.0, n_streams=4),
    ],
)
def test_options_come_back_as_they_were(options: JobOptions) -> None:
    assert rows.load_options(submission.dump_options(options)) == options


# Anything at all

text = st.text(st.characters(), max_size=12)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
some_urls = text | st.builds(
    "https://{}.org/{}".format, st.sampled_from("abc"), st.sampled_from(["f", "g", "\ud800", "a b"])
)
usual = st.sampled_from(["https://a.org/1", "https://a.org/2", "davs://b.org/1", "https://c.org/3"])
transfers = st.builds(
    Transfer,
    sources=st.lists(usual | some_urls, max_size=3).map(tuple),
    destination=usual | some_urls,
    size_bytes=st.none() | st.integers(-5, 1 << 65),
    checksum=st.none() | text | st.sampled_from(["adler32:1", "ADLER32:0000000a", "md5:" + "0" * 32]),
    activity=st.just("default") | text,
    metadata=json_like,
    scitag=st.none() | st.integers(),
    selection_strategy=st.just("auto") | text,
)
options = st.builds(
    JobOptions,
    verify=st.sampled_from([*Verify, "source", "x"]),
    retries_max=st.none() | st.integers(),
    retry_delay_s=st.none() | st.floats(),
    timeout_s=st.none() | st.floats(),
    deadline_at=st.none() | st.floats(),
    n_streams=st.none() | st.integers(),
    modes=st.none() | st.lists(st.sampled_from(["pull", "push", "stream", "x"])).map(tuple),
)
requests = st.builds(
    JobRequest,
    transfers=st.lists(transfers, max_size=4).map(tuple),
    options=st.just(JobOptions()) | options,
    job_type=st.none() | st.sampled_from(JobType),
    vo=st.just("vo") | text,
    user_dn=st.just("me") | text,
    cred_id=st.just("") | text,
    priority=st.integers(0, 6),
    metadata=json_like,
    params=st.dictionaries(text, json_like, max_size=2),
    job_id=st.none() | text,
    key=st.none() | text,
)


@given(requests)
@settings(deadline=None, max_examples=300)
def test_nothing_but_invalid_is_ever_raised(request: JobRequest) -> None:
    try:
        planned = submission.plan(request, now=100.0, new_id=NEW_ID, schemes={"https", "davs"})
    except Invalid as error:
        refusal = error
    else:
        assert planned.files
        assert rows.load_options(planned.options) is not None
        return
    assert refusal.field


good_transfers = st.builds(
    Transfer,
    sources=st.lists(
        st.sampled_from(["https://a.org/1", "https://a.org/é", "davs://b.org/1"]), min_size=1, max_size=3
    ).map(tuple),
    destination=st.sampled_from(["https://d.org/1", "https://d.org//2?x", "davs://e.org:8443/3"]),
    size_bytes=st.none() | st.integers(0, 1 << 62),
    metadata=st.none() | st.text(max_size=9) | st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=2),
    scitag=st.none() | st.integers(65, 65535),
)
good = st.lists(st.lists(good_transfers, min_size=1, max_size=3).map(tuple), min_size=1, max_size=6)


@given(good)
@settings(deadline=None, max_examples=30)
def test_what_is_accepted_can_be_stored_and_comes_back(jobs: list[tuple[Transfer, ...]]) -> None:
    planned = [
        submission.plan(JobRequest(transfers=each), now=1.0, new_id=str(uuid.UUID(int=n)), schemes={"https", "davs"})
        for n, each in enumerate(jobs)
    ]

    async def main() -> None:
        store = SqliteStore("sqlite://", incarnation="one", now=lambda: 0.0, inline=True)
        await store.open()
        for job, each in zip(planned, jobs, strict=True):
            await store.insert(job)
            files = await store.files(job.job_id)
            expected = [(source, t.destination, t.metadata, t.size_bytes) for t in each for source in t.sources]
            assert [(f.source_url, f.dest_url, f.metadata, f.size_bytes) for f in files] == expected
        await store.close()

    run_virtual(main)
