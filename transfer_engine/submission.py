"""Request → job: everything is checked here, at the edge, before anything is stored. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from typing import Final

import xxhash

from protocols import checksum as checksums
from protocols.api import Mode
from protocols.credentials import TOKEN_MAX, Secret
from transfer_engine import selection, urls
from transfer_engine.errors import Invalid
from transfer_engine.model import (
    PRIORITY_MAX,
    PRIORITY_MIN,
    JobId,
    JobOptions,
    JobRequest,
    PlannedFile,
    PlannedJob,
    Transfer,
    Verify,
)
from transfer_engine.states import FileState, JobType

FILES_MAX: Final = 100_000
SOURCES_MAX: Final = 16
TEXT_MAX: Final = 255
JOB_ID_MAX: Final = 36
SIZE_MAX: Final = 1 << 62
SCITAG_MAX: Final = 65535
STREAMS_MAX: Final = 1000
ALONE: Final = frozenset({"mock"})
"""Schemes of storages that hold no bytes: they copy among themselves only."""
KEY_NAMESPACE: Final = uuid.UUID("6d4f7f0c-5d5b-4d8e-9f43-0f6a6f1d2c11")
"""Namespace of job ids that are made from idempotency keys."""


def plan(request: JobRequest, *, now: float, new_id: str, schemes: Collection[str]) -> PlannedJob:
    """Check a request and decide every row of the job.

    Args: schemes: URL schemes that an adapter exists for.
    Raises: Invalid: names the field and what was expected.
    """
    if not request.transfers:
        raise Invalid("a job needs at least one transfer", field="files")
    if len(request.transfers) > FILES_MAX:
        raise Invalid(f"a job has at most {FILES_MAX} transfers, this one has {len(request.transfers)}", field="files")
    if not PRIORITY_MIN <= request.priority <= PRIORITY_MAX:
        raise Invalid(f"expected {PRIORITY_MIN} to {PRIORITY_MAX}, got {request.priority}", field="priority")
    _check_names(request)
    _check_options(request.options)
    job_type = _job_type(request)
    files: list[PlannedFile] = []
    for index, transfer in enumerate(request.transfers):
        files += _rows(transfer, index, job_type, schemes)
    if job_type is JobType.MULTIHOP:
        files = _chain(files)
    options = dump_options(request.options)
    metadata = None if request.metadata is None else _json(request.metadata, "metadata")
    return PlannedJob(
        job_id=_job_id(request, new_id),
        job_type=job_type,
        vo=request.vo,
        user_dn=request.user_dn,
        cred_id=request.cred_id,
        priority=request.priority,
        options=options,
        params=_json(dict(request.params), "params") if request.params else None,
        metadata=metadata,
        submitted_at=now,
        deadline_at=request.options.deadline_at,
        fingerprint=_fingerprint(request, metadata) if request.key or request.job_id else "",
        n_files=len(request.transfers),
        files=files,
        repeatable=request.key is not None,
    )


def dump_options(options: JobOptions) -> str:
    """Only what differs from the defaults, so that most jobs share one short text."""
    plain = JobOptions()
    changed = {k: v for k, v in asdict(options).items() if v != getattr(plain, k)}
    return json.dumps(changed, separators=(",", ":"), sort_keys=True)


def _json(value: object, field: str) -> str:
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        if not text.isascii():
            text.encode()
    except RecursionError:
        raise Invalid("is nested too deeply", field=field) from None
    except (TypeError, ValueError) as error:
        raise Invalid(f"is not JSON: {error}", field=field) from error
    return text


def _job_id(request: JobRequest, new_id: str) -> JobId:
    if request.job_id is not None:
        return request.job_id
    if request.key is not None:
        return JobId(str(uuid.uuid5(KEY_NAMESPACE, f"{request.vo}/{request.key}")))
    return JobId(new_id)


def _fingerprint(request: JobRequest, metadata: str | None) -> str:
    # A deadline is counted from the submission: it differs each time without making another job.
    options = dump_options(replace(request.options, deadline_at=None))
    digest = xxhash.xxh3_128()
    for transfer in request.transfers:
        digest.update(repr(transfer).encode())
    digest.update(f"{options}{metadata}{request.priority}{request.vo}{request.job_type}".encode())
    return digest.hexdigest()


def _job_type(request: JobRequest) -> JobType:
    several = any(len(transfer.sources) > 1 for transfer in request.transfers)
    if request.job_type in {JobType.MULTIHOP, JobType.SESSION_REUSE} and several:
        raise Invalid(
            "Can not request multiple replica job together with multihop or session reuse at the same time",
            field="files",
        )
    if request.job_type is not None:
        return request.job_type
    return JobType.REPLICAS if several else JobType.NORMAL


def _check_names(request: JobRequest) -> None:
    for text, field in ((request.vo, "vo"), (request.user_dn, "user_dn"), (request.key, "key")):
        if text is not None:
            _check_text(text, field)
    if request.cred_id:
        _check_text(request.cred_id, "cred_id")
    if request.job_id is not None:
        _check_text(request.job_id, "job_id", JOB_ID_MAX)


def _check_options(options: JobOptions) -> None:
    """What is stored is read again at every claim: an option that cannot be read then would stop the engine."""
    for name, kind, what in (
        ("retries_max", int, "a whole number"),
        ("n_streams", int, "a whole number"),
        ("timeout_s", (int, float), "a number"),
        ("retry_delay_s", (int, float), "a number"),
        ("deadline_at", (int, float), "a number"),
    ):
        value = getattr(options, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise Invalid(f"expected {what}, got {value!r}", field=f"options.{name}")
    if options.retries_max is not None and options.retries_max < 0:
        raise Invalid("expected 0 or more", field="options.retries_max")
    if options.verify not in set(Verify):
        raise Invalid(f"expected one of {', '.join(Verify)}", field="options.verify")
    if options.modes is not None and (not options.modes or not set(options.modes) <= set(Mode)):
        raise Invalid(f"expected some of {', '.join(Mode)}", field="options.modes")
    if options.timeout_s is not None and not 0 < options.timeout_s < math.inf:
        raise Invalid("expected a positive number of seconds", field="options.timeout_s")
    if options.retry_delay_s is not None and not 0 <= options.retry_delay_s < math.inf:
        raise Invalid("expected a number of seconds", field="options.retry_delay_s")
    if options.deadline_at is not None and not math.isfinite(options.deadline_at):
        raise Invalid("expected an instant in seconds since 1970", field="options.deadline_at")
    if options.n_streams is not None and not 1 <= options.n_streams <= STREAMS_MAX:
        raise Invalid(f"expected 1 to {STREAMS_MAX}", field="options.n_streams")


def _check_text(text: str, field: str, limit: int = TEXT_MAX) -> None:
    if not text or len(text) > limit or not text.isprintable():
        raise Invalid(f"expected 1 to {limit} printable characters", field=field)


def _rows(transfer: Transfer, index: int, job_type: JobType, schemes: Collection[str]) -> list[PlannedFile]:
    where = f"files[{index}]"
    if not transfer.sources:
        raise Invalid("expected at least one source URL", field=f"{where}.sources")
    if len(transfer.sources) > SOURCES_MAX:
        raise Invalid(f"expected at most {SOURCES_MAX} sources", field=f"{where}.sources")
    _check_text(transfer.activity, f"{where}.activity")
    _check_text(transfer.selection_strategy, f"{where}.selection_strategy")
    selection.check(transfer.selection_strategy, f"{where}.selection_strategy")
    if transfer.scitag is not None and not 0 < transfer.scitag <= SCITAG_MAX:
        raise Invalid(f"expected 1 to {SCITAG_MAX}, got {transfer.scitag}", field=f"{where}.scitag")
    if transfer.size_bytes is not None and not 0 <= transfer.size_bytes <= SIZE_MAX:
        raise Invalid(f"expected a length of 0 to 2^62 bytes, got {transfer.size_bytes}", field=f"{where}.filesize")
    if transfer.source_tokens and len(transfer.source_tokens) != len(transfer.sources):
        raise Invalid("Length of source_tokens should be equal to the length of sources.", field=where)
    source_tokens = [_token_id(token, f"{where}.source_tokens") for token in transfer.source_tokens]
    dst_token_id = _token_id(transfer.destination_token, f"{where}.destination_tokens")
    destination = _url(transfer.destination, f"{where}.destinations", schemes)
    there = urls.same_place(destination)
    key = urls.key_of(there)
    metadata = None if transfer.metadata is None else _json(transfer.metadata, f"{where}.metadata")
    checksum = _checksum(transfer.checksum, where)
    last = len(transfer.sources) - 1
    waiting = job_type is JobType.MULTIHOP and index > 0
    rows = []
    for place, source_url in enumerate(transfer.sources):
        source = _url(source_url, f"{where}.sources", schemes)
        if source.scheme != destination.scheme and ALONE & {source.scheme, destination.scheme}:
            raise Invalid(f"{source.scheme}:// is not copied to {destination.scheme}://", field=where)
        if urls.same_place(source) == there:
            raise Invalid(f"source and destination are the same file ({source_url})", field=where)
        rows.append(
            PlannedFile(
                file_index=index,
                source_url=source_url,
                dest_url=transfer.destination,
                dest_key=key,
                source_se=source.endpoint,
                dest_se=destination.endpoint,
                activity=transfer.activity,
                size_bytes=transfer.size_bytes,
                checksum=checksum,
                metadata=metadata,
                scitag=transfer.scitag,
                selection_strategy=transfer.selection_strategy,
                state=FileState.NOT_USED if waiting or place else FileState.SUBMITTED,
                follows=place < last,
                src_token_id=source_tokens[place] if source_tokens else None,
                dst_token_id=dst_token_id,
            )
        )
    return rows


def token_id(token: Secret) -> str:
    """The name of a token, which tells nothing of it; FTS3's: the first 16 hex digits of its SHA-1."""
    return hashlib.sha1(token.reveal().encode(), usedforsecurity=False).hexdigest()[:16]


def _token_id(token: Secret | None, field: str) -> str | None:
    if token is None:
        return None
    text = token.reveal()
    # It becomes part of a header: nothing that could end one.
    if not text or len(text) > TOKEN_MAX or not (text.isascii() and text.isprintable()) or " " in text:
        raise Invalid(f"expected a bearer token: 1 to {TOKEN_MAX} ASCII characters without spaces", field=field)
    return token_id(token)


def _chain(files: Sequence[PlannedFile]) -> list[PlannedFile]:
    """Each hop but the last is followed by the next one."""
    return [replace(file, follows=place < len(files) - 1) for place, file in enumerate(files)]


def _url(url: str, field: str, schemes: Collection[str]) -> urls.Parts:
    parts = urls.parse(url, field)
    if parts.scheme not in schemes:
        raise Invalid(
            f"no adapter for scheme {parts.scheme!r} ({url[:200]}), expected one of {', '.join(sorted(schemes))}",
            field=field,
        )
    return parts


def _checksum(text: str | None, where: str) -> str | None:
    if text is None:
        return None
    try:
        return str(checksums.parse(text))
    except ValueError as error:
        raise Invalid(str(error), field=f"{where}.checksum") from error
