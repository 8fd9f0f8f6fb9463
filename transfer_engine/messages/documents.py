"""Events → FTS3's monitoring messages: start, completion, state. Pure.

Keys and types are those of FTS3 3.14, of which receivers use a few and expect all. Instants are whole
milliseconds since the epoch; what is not known, or does not exist here, is -1, or an empty text.

What happened is taken from the event and its detail; a transfer that is over says the rest for ever.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from transfer_engine.states import FileState, JobState, JobType
from transfer_engine.urls import parse
from transfer_engine.views import FileView, JobView, StoredEvent

ERROR_MAX: Final = 1024
"""Longest `t__error_message`, in characters."""
UNKNOWN: Final = "UNKNOWN"
"""`job_state` of a completion in a job whose transfers do not depend on each other."""
_TYPES: Final = {"pull": "3rd pull", "push": "3rd push", "stream": "streamed"}
_PHASES: Final = {
    "PREPARATION": "TRANSFER_PREPARATION",
    "TRANSFER": "TRANSFER",
    "FINALIZATION": "TRANSFER_FINALIZATION",
}
_OUTCOMES: Final = {FileState.FINISHED: ("Ok", 1), FileState.FAILED: ("Error", 0), FileState.CANCELED: ("Abort", -1)}
_TOKEN: Final = re.compile(r"(?i)([?&](?:authz|access_token)=)[^&#]*")
_SHOWN_AS: Final[Mapping[FileState, FileState]] = {
    FileState.VERIFYING: FileState.ACTIVE,
    FileState.CANCELING: FileState.CANCELED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who writes the messages.

    Attributes:
        endpoint: the service's name, `endpnt`.
        publish_dn: whether `user_dn` is told; else it is empty.
        retries_max: of jobs that do not say.
    """

    endpoint: str
    publish_dn: bool
    retries_max: int


@dataclass(frozen=True, slots=True)
class Story:
    """One event, and what is known of its job and transfer."""

    event: StoredEvent
    job: JobView
    file: FileView

    @property
    def state(self) -> FileState:
        """The transfer's state after the event."""
        return FileState(self.event.state)

    @property
    def source_url(self) -> str:
        """Where this attempt reads from."""
        return self.event.detail.source or self.file.source_url


def ms(at: float | None) -> int:
    """An instant as FTS3 writes it; -1: there is none."""
    return -1 if at is None else round(at * 1000)


def shown(state: FileState) -> FileState:
    """The state in words that receivers know."""
    return _SHOWN_AS.get(state, state)


def clean(text: str) -> str:
    """The text of a failure as FTS3 sends it: no control characters, line breaks or quotes, not too long."""
    kept = "".join("" if c in "\r\n'\"" else c if c.isprintable() else " " for c in text[: 2 * ERROR_MAX])
    return kept[:ERROR_MAX]


@lru_cache(maxsize=1024)
def _ends(url: str) -> tuple[str, str, str]:
    """(scheme, host, endpoint) of a URL that was accepted once."""
    parts = parse(url, "url")
    return parts.scheme, parts.host, parts.endpoint


def told(url: str) -> str:
    """A URL as messages have it: byte for byte, for receivers that compare it, but for a token in its query."""
    return _TOKEN.sub(r"\1***", url) if "?" in url else url


def transfer_id(story: Story) -> str:
    """FTS3's name of an attempt; receivers take the job's id from its end."""
    event, file = story.event, story.file
    at = event.at if story.state is FileState.ACTIVE or file.claimed_at is None else file.claimed_at
    when = time.strftime("%Y-%m-%d-%H%M", time.gmtime(at))
    return f"{when}__{_host(story.source_url)}__{_host(file.dest_url)}__{file.file_id}__{event.job_id}"


def _host(url: str) -> str:
    return _ends(url)[1]


def _object(value: Any) -> Any:
    return value if value is None or isinstance(value, dict) else {"label": value}


def _job_metadata(job: JobView) -> dict[str, Any]:
    return {**(_object(job.metadata) or {}), "auth_method": str(job.params.get("auth_method", "local"))}


def _file_metadata(file: FileView) -> Any:
    """What the user attached, with FTS3's report of a destination that was in the way."""
    found = _object(file.metadata)
    report = None if file.failure is None or file.state is FileState.FINISHED else file.failure.get("dst_file")
    return found if report is None else {"dst_file": report, **(found or {})}


def _user(story: Story, author: Author) -> str:
    return story.job.user_dn if author.publish_dn else ""


def _places(story: Story) -> dict[str, Any]:
    """What start and completion say of the two ends."""
    source_url, dest_url = story.source_url, story.file.dest_url
    (_, src_host, src_se), (_, dst_host, dst_se) = _ends(source_url), _ends(dest_url)
    params = story.job.params
    return {
        "src_url": told(source_url),
        "dst_url": told(dest_url),
        "src_hostname": src_host,
        "dst_hostname": dst_host,
        "src_site_name": "",
        "dst_site_name": "",
        "src_srm_v": "",
        "dest_srm_v": "",
        "t_channel": f"{src_se}__{dst_se}",
        "srm_space_token_src": str(params.get("source_spacetoken") or ""),
        "srm_space_token_dst": str(params.get("destination_spacetoken") or ""),
        "vo": story.job.vo,
        "is_archiving": False,
    }


def start(story: Story, author: Author) -> dict[str, Any]:
    """The message that an attempt has begun."""
    return {
        "transfer_id": transfer_id(story),
        "job_id": story.event.job_id,
        "file_id": int(story.file.file_id),
        "endpnt": author.endpoint,
        "timestamp": ms(story.event.at),
        "user_dn": _user(story, author),
        **_places(story),
        "file_metadata": _file_metadata(story.file),
        "job_metadata": _job_metadata(story.job),
    }


def completion(story: Story, author: Author) -> dict[str, Any]:
    """The message that a transfer is over, or (`detail.next`) that another replica or hop goes on."""
    job, file = story.job, story.file
    outcome, flag = _OUTCOMES[story.state]
    return {
        "tr_id": transfer_id(story),
        "job_id": story.event.job_id,
        "file_id": int(file.file_id),
        "endpnt": author.endpoint,
        "user_dn": _user(story, author),
        "auth_method": str(job.params.get("auth_method", "local")),
        "activity": file.activity,
        **_places(story),
        **_protocols(story),
        **_times(story),
        "t_final_transfer_state": outcome,
        "t_final_transfer_state_flag": flag,
        **_failure(story, author),
        **_volume(story),
        "t_timeout": int(job.options.timeout_s or 0),
        "chk_timeout": 0,
        "channel_type": "urlcopy",
        "transfer_type": _TYPES.get(file.mode or "", ""),
        "ipver": "unknown",
        "job_m_replica": job.job_type is JobType.REPLICAS,
        "job_multihop": job.job_type is JobType.MULTIHOP,
        "transfer_lasthop": job.job_type is JobType.MULTIHOP and file.file_index == job.n_files - 1,
        "job_state": _job_state_of_completion(story),
        "file_metadata": _file_metadata(file),
        "job_metadata": _job_metadata(job),
    }


def _job_state_of_completion(story: Story) -> str:
    """Rucio waits while it is ACTIVE in a job with replicas, and takes everything else as the end."""
    if story.job.job_type not in {JobType.REPLICAS, JobType.MULTIHOP}:
        return UNKNOWN
    if story.event.detail.next:
        return JobState.ACTIVE.value
    return (JobState.FINISHED if story.state is FileState.FINISHED else JobState.FAILED).value


def _protocols(story: Story) -> dict[str, Any]:
    job, file = story.job, story.file
    (src_scheme, _, src_se), (dst_scheme, _, dst_se) = _ends(story.source_url), _ends(file.dest_url)
    final = job.dest_se if job.job_type is JobType.MULTIHOP and job.dest_se else dst_se
    return {
        "src_se": src_se,
        "dst_se": dst_se,
        "protocol": dst_scheme,
        "src_protocol": src_scheme,
        "dst_protocol": dst_scheme,
        "src_transfer_protocol": src_scheme,
        "dst_transfer_protocol": dst_scheme,
        "protocol_translation": False,
        "final_destination": final,
    }


def _times(story: Story) -> dict[str, Any]:
    file = story.file
    complete = ms(story.event.at)
    begun = ms(file.claimed_at)
    st, comp, size = -1, -1, 0
    if story.state is FileState.FINISHED and file.transfer_s is not None:
        st, comp, size = complete - round(file.transfer_s * 1000), complete, file.seen_bytes or 0
    elif file.started_at is not None:
        st, comp = min(ms(file.started_at), complete), complete
    return {
        "timestamp_tr_st": st,
        "timestamp_tr_comp": comp,
        "timestamp_chk_src_st": -1,
        "timestamp_chk_src_ended": -1,
        "timestamp_checksum_dest_st": -1,
        "timestamp_checksum_dest_ended": -1,
        "time_srm_prep_st": -1,
        "time_srm_prep_end": -1,
        "time_srm_fin_st": -1,
        "time_srm_fin_end": -1,
        "tr_timestamp_start": begun,
        "tr_timestamp_complete": complete,
        "transfer_time": comp - st if st >= 0 else -1,
        "operation_time": complete - begun if begun >= 0 else -1,
        "throughput": size * 1000 / (comp - st) if size and comp > st else -1.0,
        "srm_preparation_time": -1,
        "srm_finalization_time": -1,
        "srm_overhead_time": -1,
        "srm_overhead_percentage": -1.0,
        "timestamp_checksum_src_diff": -1,
        "timestamp_checksum_dst_diff": -1,
    }


def _failure(story: Story, author: Author) -> dict[str, Any]:
    """What went wrong; a reader of messages sees the same `reason` as one that polls."""
    file = story.file
    failure: Mapping[str, Any] = file.failure or {}
    if story.state is FileState.FINISHED:
        failure = {}
    number = int(failure.get("errno", 0))
    agent = failure.get("scope") == "AGENT"
    phase = "TRANSFER_SERVICE" if agent else _PHASES.get(str(failure.get("phase", "")), "")
    failed = story.state is FileState.FAILED
    return {
        "t_error_code": number,
        "tr_error_scope": "GENERAL_FAILURE" if agent else str(failure.get("scope", "")),
        "t_failure_phase": phase,
        "tr_error_category": os.strerror(number).upper().replace(" ", "_") if number > 0 else "",
        "t__error_message": clean(_reason(story)) if failure else "",
        "is_recoverable": failed and failure.get("again") not in {None, "never"},
        "retry": max(file.n_failed - 1, 0) if failed else 0,
        "retry_max": _retries_max(story.job, author) if failed else 0,
        "eviction_code": -1,
        "cleanup_code": -1,
        "overwrite_on_disk_flag": False,
        "overwrite_on_disk_deletion_code": -1,
    }


def _retries_max(job: JobView, author: Author) -> int:
    return author.retries_max if job.options.retries_max is None else job.options.retries_max


def _reason(story: Story) -> str:
    """`SCOPE [errno] message`; a cancellation is nobody's fault and has no scope."""
    failure = story.file.failure
    if shown(story.state) is FileState.CANCELED and failure is not None:
        return str(failure["message"])
    return story.event.reason or ""


def _volume(story: Story) -> dict[str, Any]:
    file = story.file
    done = story.state is FileState.FINISHED
    size = file.seen_bytes if done and file.seen_bytes is not None else file.size_bytes
    return {
        "tr_bt_transfered": (file.seen_bytes or 0) if done else 0,
        "f_size": -1 if size is None else size,
        "file_size": -1 if size is None else size,
        "nstreams": story.job.options.n_streams or 0,
        "buf_size": 0,
        "tcp_buf_size": 0,
        "block_size": 0,
        "scitag": file.scitag or 0,
    }


def state(story: Story, author: Author, *, job_state: str) -> dict[str, Any]:
    """The message that a transfer's state has changed."""
    job, file = story.job, story.file
    over = story.state in _OUTCOMES
    return {
        **_who_and_where(story, author, job_state),
        "retry_counter": file.n_failed if over else story.event.detail.retry,
        "retry_max": _retries_max(job, author),
        "user_filesize": file.size_bytes or 0,
        "timestamp": ms(story.event.at),
        "submit_time": ms(file.submitted_at),
        "staging_start": -1,
        "staging_finished": -1,
        "staging": False,
        "archiving_start": -1,
        "archiving_finished": -1,
        "archiving": False,
        "reason": _reason(story) if story.event.reason else "",
    }


def first_state(story: Story, author: Author) -> dict[str, Any]:
    """The message of a transfer that was accepted; FTS3 writes it in the request, with other keys."""
    params = story.job.params.get("tape_metadata") or {}
    extras = params.get(str(story.file.file_index), {})
    return {
        **_who_and_where(story, author, JobState.SUBMITTED.value),
        "retry_counter": 0,
        "retry_max": 0,
        "timestamp": ms(story.event.at),
        "staging_metadata": extras.get("staging_metadata"),
        "archive_metadata": extras.get("archive_metadata"),
    }


def _who_and_where(story: Story, author: Author, job_state: str) -> dict[str, Any]:
    source_url = story.source_url
    return {
        "endpnt": author.endpoint,
        "user_dn": _user(story, author),
        "src_url": told(source_url),
        "dst_url": told(story.file.dest_url),
        "vo_name": story.job.vo,
        "source_se": _ends(source_url)[2],
        "dest_se": story.file.dest_se,
        "job_id": story.event.job_id,
        "file_id": int(story.file.file_id),
        "job_state": job_state,
        "file_state": shown(story.state).value,
        "job_metadata": _job_metadata(story.job),
        "file_metadata": _file_metadata(story.file),
    }
