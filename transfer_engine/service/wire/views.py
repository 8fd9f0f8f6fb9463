"""Jobs, transfers and the service itself as FTS3 shows them.

Every object has exactly FTS's keys; each key is one row of `JOB_COLUMNS` or `FILE_COLUMNS`, so that
a client that asks for some columns pays for those alone. The classes beside them say the types.
VERIFYING is shown as ACTIVE and CANCELING as CANCELED: their clients know no other words.
"""

from __future__ import annotations

import platform
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from protocols.masking import shapeless
from transfer_engine.model import JobOptions
from transfer_engine.service.wire.words import CANCELED_JOB, FILES_FAILED, FOUND, VERIFY_LETTERS, no_job, timestamp
from transfer_engine.states import JOB_TERMINAL, FileState, JobState, JobType, roll_up
from transfer_engine.views import AttemptView, FileView, JobView

HOST: Final = platform.node()
MIB: Final = 1024 * 1024
"""FTS's MB."""

ON_HOLD: Final = "ON_HOLD"
"""A queued file whose storage is banned; the ban is no state of the file, so it ends with no write."""
_SHOWN_AS: Final[Mapping[FileState, str]] = {FileState.VERIFYING: "ACTIVE", FileState.CANCELING: "CANCELED"}
_FLAG_WORDS: Final[Mapping[str, str]] = {
    "strict_copy": "strict",
    "disable_cleanup": "disable-cleanup",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "s3alternate": "s3alternate",
}
_ENDED: Final = frozenset({FileState.FINISHED, FileState.FAILED, FileState.CANCELED})


@with_config(ConfigDict(title="Job"))
class JobObject(TypedDict):
    """A job."""

    job_id: str
    job_state: str
    job_type: str
    submit_time: str
    job_finished: str | None
    submit_host: str
    user_dn: str
    vo_name: str
    cred_id: str
    source_se: str | None
    dest_se: str | None
    priority: int
    retry: int
    retry_delay: int
    reason: str | None
    cancel_job: bool
    max_time_in_queue: int | None
    bring_online: int
    copy_pin_lifetime: int
    archive_timeout: int
    target_qos: None
    verify_checksum: str
    overwrite_flag: str | None
    dst_file_report: bool
    source_spacetoken: str
    destination_spacetoken: str
    internal_job_params: str | None
    job_metadata: dict[str, Any]
    os_project_id: None


@with_config(ConfigDict(title="File"))
class FileObject(TypedDict):
    """One transfer of a job."""

    file_id: int
    file_index: int
    job_id: str
    file_state: str
    file_state_initial: None
    source_surl: str
    dest_surl: str
    source_se: str
    dest_se: str
    vo_name: str
    priority: int
    activity: str
    selection_strategy: str
    hashed_id: int
    checksum: str
    filesize: int | None
    user_filesize: int
    file_metadata: dict[str, Any] | None
    staging_metadata: dict[str, Any] | None
    archive_metadata: dict[str, Any] | None
    scitag: int | None
    start_time: str | None
    finish_time: str | None
    staging_start: None
    staging_finished: None
    archive_start_time: None
    archive_finish_time: None
    staging_host: None
    transfer_host: str | None
    pid: None
    reason: str | None
    recoverable: bool | None
    retry: int | None
    throughput: float | None
    tx_duration: float | None
    log_file: None
    log_debug: None
    bringonline_token: None
    internal_file_params: None
    dest_surl_uuid: None
    src_token_id: str | None
    dst_token_id: str | None


@with_config(ConfigDict(title="JobEntry"))
class JobEntry(JobObject):
    """A job in the answer to a question about it by id."""

    http_status: str
    http_message: NotRequired[str | None]
    files: NotRequired[list[dict[str, Any]]]


@with_config(ConfigDict(title="MissingJob"))
class MissingJob(TypedDict):
    """In place of a job that does not exist."""

    job_id: str
    http_status: str
    http_message: str


@with_config(ConfigDict(title="Attempt"))
class AttemptObject(TypedDict):
    """One attempt of a transfer that failed."""

    file_id: int
    attempt: int
    datetime: str | None
    reason: str
    transfer_host: str | None
    log_file: None


def metadata_object(value: Any) -> Any:
    """What a user attached, as an object: FTS wraps everything else as a label."""
    return value if value is None or isinstance(value, dict) else {"label": value}


def file_metadata(file: FileView) -> Any:
    """What a user attached to a file; FTS adds `dst_file` where the destination was in the way and was to be reported.

    A key of the user's own stays what it was.
    """
    found = metadata_object(file.metadata)
    report = None if file.failure is None or file.state is FileState.FINISHED else file.failure.get("dst_file")
    return found if report is None else {"dst_file": report, **(found or {})}


def file_state(state: FileState) -> str:
    """The state in FTS's words."""
    return _SHOWN_AS.get(state, state.value)


def job_state(job: JobView) -> JobState:
    """The state in FTS's words: a job that was cancelled is CANCELED at once.

    Its last attempts may still be on their way out; what is shown is where the job will end.
    """
    if not job.cancel_requested or job.state in JOB_TERMINAL:
        return job.state
    return roll_up(
        job.job_type,
        n_files=job.n_files,
        n_finished=job.n_finished,
        n_failed=job.n_failed,
        n_canceled=job.n_files - job.n_finished - job.n_failed,
        begun=True,
    )


def _job_reason(job: JobView) -> str | None:
    state = job_state(job)
    if job.cancel_requested and state is JobState.CANCELED:
        return CANCELED_JOB
    if job.reason is None and state in JOB_TERMINAL - {JobState.FINISHED}:
        return FILES_FAILED
    return job.reason


def _retry(options: JobOptions) -> int:
    if options.retries_max is None:
        return 0
    return options.retries_max or -1


def _overwrite_flag(job: JobView) -> str | None:
    flag: str | None = job.params.get("overwrite_flag")
    return flag or ("Y" if job.options.overwrite else None)


def _internal_params(job: JobView) -> str | None:
    options, params = job.options, job.params
    parts = []
    if options.n_streams:
        parts.append(f"nostreams:{options.n_streams}")
    if options.timeout_s:
        parts.append(f"timeout:{options.timeout_s:.0f}")
    if params.get("buffer_size"):
        parts.append(f"buffersize:{params['buffer_size']}")
    own = {"strict_copy": options.strict_copy, "disable_cleanup": options.keep_remains}
    parts += [word for key, word in _FLAG_WORDS.items() if own.get(key) or params.get(key)]
    return ",".join(parts) or None


def _job_metadata(job: JobView) -> dict[str, Any]:
    return {**(metadata_object(job.metadata) or {}), "auth_method": job.params.get("auth_method", "local")}


JOB_COLUMNS: Final[Mapping[str, Callable[[JobView], Any]]] = {
    "job_id": lambda job: job.job_id,
    "job_state": lambda job: job_state(job).value,
    "job_type": lambda job: job.job_type.value,
    "submit_time": lambda job: timestamp(job.submitted_at),
    "job_finished": lambda job: timestamp(job.finished_at),
    "submit_host": lambda _: HOST,
    "user_dn": lambda job: job.user_dn,
    "vo_name": lambda job: job.vo,
    "cred_id": lambda job: job.cred_id,
    "source_se": lambda job: job.source_se,
    "dest_se": lambda job: job.dest_se,
    "priority": lambda job: job.priority,
    "retry": lambda job: _retry(job.options),
    "retry_delay": lambda job: int(job.options.retry_delay_s or 0),
    "reason": _job_reason,
    "cancel_job": lambda job: job.cancel_requested,
    "max_time_in_queue": lambda job: None if job.options.deadline_at is None else int(job.options.deadline_at),
    "bring_online": lambda _: -1,
    "copy_pin_lifetime": lambda _: -1,
    "archive_timeout": lambda _: -1,
    "target_qos": lambda _: None,
    "verify_checksum": lambda job: VERIFY_LETTERS[job.options.verify],
    "overwrite_flag": _overwrite_flag,
    "dst_file_report": lambda job: job.options.dst_file_report or bool(job.params.get("dst_file_report")),
    "source_spacetoken": lambda job: job.params.get("source_spacetoken", ""),
    "destination_spacetoken": lambda job: job.params.get("destination_spacetoken", ""),
    "internal_job_params": _internal_params,
    "job_metadata": _job_metadata,
    "os_project_id": lambda _: None,
}


def _file_reason(file: FileView) -> str | None:
    """`SCOPE [errno] message`; a cancellation is nobody's fault and has no scope.

    What succeeded or was not needed has no reason: Rucio tells unused hops by that.
    """
    if file.state in {FileState.FINISHED, FileState.NOT_USED}:
        return None
    if file.state in {FileState.CANCELED, FileState.CANCELING} and file.failure is not None:
        return str(file.failure["message"])
    return file.reason


def _recoverable(file: FileView) -> bool | None:
    if file.failure is None or file.state is FileState.FINISHED:
        return None
    return bool(file.failure.get("again") not in {None, "never"})


def _checksum(file: FileView) -> str:
    if file.checksum is None:
        return "ADLER32"
    algorithm, colon, value = file.checksum.partition(":")
    return f"{algorithm.upper()}{colon}{value}"


def retries_of(file: FileView) -> int:
    """How often it was tried again: FTS3 counts a failure when another attempt follows it, so the last one does not."""
    return max(file.n_failed - 1, 0) if file.state is FileState.FAILED else file.n_failed


def _throughput(file: FileView) -> float | None:
    if not file.seen_bytes or not file.transfer_s:
        return None
    return round(file.seen_bytes / file.transfer_s / MIB, 3)


def _tape_metadata(job: JobView, file: FileView, key: str) -> Any:
    extras = job.params.get("tape_metadata")
    return extras.get(str(file.file_index), {}).get(key) if extras else None


def _hashed_id(file: FileView) -> int:
    """FTS spreads files over its nodes by it; the same for the replicas of one file and the hops of a route."""
    return zlib.crc32(f"{file.job_id}/{file.file_index}".encode()) & 0xFFFF


FILE_COLUMNS: Final[Mapping[str, Callable[[JobView, FileView], Any]]] = {
    "file_id": lambda _, file: file.file_id,
    "file_index": lambda _, file: file.file_index,
    "job_id": lambda _, file: file.job_id,
    "file_state": lambda _, file: file_state(file.state),
    "file_state_initial": lambda _, __: None,
    "source_surl": lambda _, file: file.source_url,
    "dest_surl": lambda _, file: file.dest_url,
    "source_se": lambda _, file: file.source_se,
    "dest_se": lambda _, file: file.dest_se,
    "vo_name": lambda _, file: file.vo,
    "priority": lambda _, file: file.priority,
    "activity": lambda _, file: file.activity,
    "selection_strategy": lambda _, file: file.selection_strategy,
    "hashed_id": lambda _, file: _hashed_id(file),
    "checksum": lambda _, file: _checksum(file),
    "filesize": lambda _, file: file.size_bytes if file.seen_bytes is None else file.seen_bytes,
    "user_filesize": lambda _, file: file.size_bytes or 0,
    "file_metadata": lambda _, file: file_metadata(file),
    "staging_metadata": lambda job, file: _tape_metadata(job, file, "staging_metadata"),
    "archive_metadata": lambda job, file: _tape_metadata(job, file, "archive_metadata"),
    "scitag": lambda _, file: file.scitag,
    "start_time": lambda _, file: timestamp(file.started_at),
    "finish_time": lambda _, file: timestamp(file.finished_at) if file.state in _ENDED else None,
    "staging_start": lambda _, __: None,
    "staging_finished": lambda _, __: None,
    "archive_start_time": lambda _, __: None,
    "archive_finish_time": lambda _, __: None,
    "staging_host": lambda _, __: None,
    "transfer_host": lambda _, file: HOST if file.started_at is not None else None,
    "pid": lambda _, __: None,
    "reason": lambda _, file: _file_reason(file),
    "recoverable": lambda _, file: _recoverable(file),
    "retry": lambda _, file: retries_of(file) or None,
    "throughput": lambda _, file: _throughput(file),
    "tx_duration": lambda _, file: None if file.transfer_s is None else round(file.transfer_s, 3),
    "log_file": lambda _, __: None,
    "log_debug": lambda _, __: None,
    "bringonline_token": lambda _, __: None,
    "internal_file_params": lambda _, __: None,
    "dest_surl_uuid": lambda _, __: None,
    "src_token_id": lambda _, file: file.src_token_id,
    "dst_token_id": lambda _, file: file.dst_token_id,
}


def job_object(job: JobView, fields: Iterable[str] = ()) -> dict[str, Any]:
    """A job with all keys, or only those of `fields` that exist."""
    wanted = [name for name in fields if name in JOB_COLUMNS] if fields else JOB_COLUMNS
    return {name: JOB_COLUMNS[name](job) for name in wanted}


def job_entry(job: JobView, *, status: str = FOUND, **more: Any) -> dict[str, Any]:
    """A job as one element of an answer by ids; Rucio compares `http_status` literally."""
    return {**job_object(job), "http_status": status, **more}


def missing_job(job_id: str) -> MissingJob:
    """The element for a job that does not exist: Rucio takes exactly this for lost."""
    shown = shapeless(job_id)
    return MissingJob(job_id=shown, http_status="404 Not Found", http_message=no_job(shown))


def file_objects(
    job: JobView,
    files: Sequence[FileView],
    columns: Iterable[str] = (),
    on_hold: Callable[[FileView], bool] = lambda _: False,
) -> list[dict[str, Any]]:
    """The files of a job with all keys, or only those of `columns` that exist; which wait for a ban says `on_hold`."""
    wanted = [name for name in columns if name in FILE_COLUMNS] if columns else list(FILE_COLUMNS)
    getters = [(name, FILE_COLUMNS[name]) for name in wanted]
    shown = [{name: getter(job, file) for name, getter in getters} for file in files]
    if "file_state" in wanted:
        for row, file in zip(shown, files, strict=True):
            if file.state is FileState.SUBMITTED and on_hold(file):
                row["file_state"] = ON_HOLD
    return shown


def attempt_objects(file: FileView, attempts: Sequence[AttemptView]) -> list[AttemptObject]:
    """The failed attempts that another one followed, oldest first, numbered from 1; the last is the file's `reason`."""
    return [
        AttemptObject(
            file_id=attempt.file_id,
            attempt=number,
            datetime=timestamp(attempt.at),
            reason=attempt.reason,
            transfer_host=HOST,
            log_file=None,
        )
        for number, attempt in enumerate(attempts[: len(attempts) - (file.state is FileState.FAILED)], 1)
    ]


def cancels_alone(job_type: JobType) -> bool:
    """May single files of such a job be cancelled?"""
    return job_type is JobType.NORMAL
