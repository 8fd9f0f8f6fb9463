"""Submission document → `JobRequest`, with every default and refusal of FTS3.

What FTS takes without looking at it (an unknown checksum mode, a negative size, several destinations
of one file) is refused here by name; keys that nobody knows are ignored, as FTS does.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import to_json

from protocols.checksum import algorithm_name
from transfer_engine import selection, urls
from transfer_engine.callers import Caller
from transfer_engine.model import JobId, JobRequest, Transfer
from transfer_engine.service.wire import tokens
from transfer_engine.service.wire.documents import SUBMISSION, FileDocument, ParamsDocument
from transfer_engine.service.wire.ids import vo_id
from transfer_engine.service.wire.params import (
    job_options,
    overwrite_flag,
    priority,
    refuse_contradictions,
    refuse_tape,
)
from transfer_engine.service.wire.tokens import TokenRules
from transfer_engine.service.wire.words import NO_DELETION, Refused, document_error, value_error
from transfer_engine.states import JobType

FILE_METADATA_MAX: Final = 4096
JOB_METADATA_MAX: Final = 2048
TAPE_METADATA_MAX: Final = 1024
"""FTS's limits, in bytes of JSON."""
SCITAG_MIN, SCITAG_MAX = 65, 65535
_ESCAPING: Final = 3
"""`json.dumps` needs at most so many times the bytes of compact UTF-8 JSON."""

_KEPT: Final = (
    "source_spacetoken",
    "destination_spacetoken",
    "buffer_size",
    "ipv4",
    "ipv6",
    "s3alternate",
)
"""Parameters that are stored and shown, without an effect of their own.

Storage tokens are SRM's and `s3alternate` is S3's; TCP buffers are the storages' own between themselves, and so
are the addresses that they reach each other by.
"""


class DeletionJob(Exception):
    """The document asks for deletions, which FTS no longer does."""

    def __init__(self) -> None:
        super().__init__(NO_DELETION)


def parse_submission(
    body: bytes, *, caller: Caller, now: float, files_max: int, rules: TokenRules | None = None
) -> JobRequest:
    """Read a submission document.

    Args: now: instant that `max_time_in_queue` counts from. rules: of tokens; None: no issuer is known.
    Raises: Refused: in FTS's words where it has some. DeletionJob.
    """
    try:
        document = SUBMISSION.validate_json(body)
    except ValidationError as error:
        raise document_error(error) from error
    if document.get("delete") is not None:
        raise DeletionJob
    files = document.get("files")
    if files is None:
        raise Refused("No transfers operations specified", field="files")
    if not files:
        raise Refused("No valid pairs available", field="files")
    if len(files) > files_max:
        raise value_error(f"files: at most {files_max} in one job, got {len(files)}", field="files")
    params = document.get("params") or ParamsDocument()
    transfers = tuple([_transfer(file, index) for index, file in enumerate(files)])
    job_type = _job_type(params, transfers)
    flag = overwrite_flag(params, transfers)
    tokens.refuse_tape(files, params, caller)
    refuse_tape(params)
    refuse_contradictions(params)
    request = JobRequest(
        transfers=transfers,
        options=job_options(params, transfers, now=now, overwrite=flag),
        job_type=job_type,
        vo=caller.vo,
        user_dn=caller.user_dn,
        cred_id=caller.delegation_id,
        priority=priority(params),
        metadata=_metadata(params.get("job_metadata"), JOB_METADATA_MAX, "params.job_metadata"),
        params=_kept(params, files, overwrite_flag=flag, auth_method=caller.method),
        job_id=_job_id(params, caller),
    )
    return tokens.attach(request, files, params, caller, rules or TokenRules((), now))


def _transfer(file: FileDocument, index: int) -> Transfer:
    sources = _urls(file, "sources", index)
    destinations = _urls(file, "destinations", index)
    if len(destinations) > 1:
        raise value_error(
            f"files[{index}].destinations: expected one URL, got {len(destinations)}; use one file for each",
            field=f"files[{index}].destinations",
        )
    strategy = file.get("selection_strategy") or "auto"
    if strategy not in selection.STRATEGIES:
        raise Refused(f"{strategy} algorithm is not supported by Scheduler", field=f"files[{index}].selection_strategy")
    if file.get("staging_metadata") or file.get("archive_metadata"):
        _check_tape_metadata(file, index)
    return Transfer(
        sources=sources,
        destination=destinations[0],
        # FTS's 0 stands for a size that is not known.
        size_bytes=file.get("filesize") or None,
        checksum=_checksum(file.get("checksum")),
        activity=file.get("activity") or "default",
        metadata=_metadata(file.get("metadata"), FILE_METADATA_MAX, f"files[{index}].metadata"),
        scitag=_scitag(file.get("scitag"), index),
        selection_strategy=strategy,
    )


def _urls(file: FileDocument, key: str, index: int) -> tuple[str, ...]:
    found: Sequence[str] | None = file.get("sources") if key == "sources" else file.get("destinations")
    if found is None:
        raise Refused(f"Missing parameter: '{key}'", field=f"files[{index}].{key}")
    if not found:
        raise Refused("No valid pairs available", field=f"files[{index}].{key}")
    stripped = tuple([url.strip() for url in found])
    for url in stripped:
        # Whoever submits must not read or write this machine's own files with the service's rights.
        if url[:5].lower() == "file:":
            raise value_error(f"Can not transfer local files ({url[:200]})", field=f"files[{index}].{key}")
    return stripped


def _checksum(text: str | None) -> str | None:
    """What the engine shall compare; FTS's bare name of an algorithm stands for "no value known"."""
    if not text:
        return None
    name, colon, value = text.partition(":")
    if colon and value:
        return text
    try:
        algorithm_name(name)
    except ValueError:
        return text
    return None


def _metadata(value: Any, limit: int, field: str) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict | str):
        raise value_error("Metadata neither JSON nor String", field=field)
    if len(to_json(value)) * _ESCAPING > limit and len(json.dumps(value)) > limit:
        raise value_error(f"Job Submission Refused, metadata exceeds size limit of {limit}", field=field)
    return value


def _scitag(value: Any, index: int) -> int | None:
    if value is None:
        return None
    if type(value) is int and SCITAG_MIN <= value <= SCITAG_MAX:
        return value
    raise value_error(
        f"Invalid SciTag value: {str(value)[:40]} (not in [{SCITAG_MIN}, {SCITAG_MAX}] range)",
        field=f"files[{index}].scitag",
    )


def _check_tape_metadata(file: FileDocument, index: int) -> None:
    _metadata(file.get("staging_metadata"), TAPE_METADATA_MAX, f"files[{index}].staging_metadata")
    _metadata(file.get("archive_metadata"), TAPE_METADATA_MAX, f"files[{index}].archive_metadata")


def _job_type(params: ParamsDocument, transfers: Sequence[Transfer]) -> JobType:
    multihop, reuse = bool(params.get("multihop")), bool(params.get("reuse"))
    if any(len(transfer.sources) > 1 for transfer in transfers):
        if multihop or reuse:
            raise Refused(
                "Can not request multiple replica job together with multihop or session reuse at the same time"
            )
        if len(transfers) > 1:
            raise Refused("Multiple replica jobs must only have one unique file")
        return JobType.REPLICAS
    if multihop:
        return JobType.MULTIHOP
    if reuse:
        _check_one_link(transfers)
        return JobType.SESSION_REUSE
    return JobType.NORMAL


def _check_one_link(transfers: Sequence[Transfer]) -> None:
    links = {
        (
            urls.parse(transfer.sources[0], f"files[{index}].sources").endpoint,
            urls.parse(transfer.destination, f"files[{index}].destinations").endpoint,
        )
        for index, transfer in enumerate(transfers)
    }
    if len(links) > 1:
        raise Refused("Reuse jobs must only contain transfers for the same source ad destination storage")


def _job_id(params: ParamsDocument, caller: Caller) -> JobId | None:
    generator = params.get("id_generator") or "standard"
    if generator == "standard":
        return None
    if generator != "deterministic":
        raise value_error(
            f"params.id_generator: expected standard or deterministic, got {generator!r}", field="params.id_generator"
        )
    sid = params.get("sid")
    if not sid:
        raise Refused("Need sid for deterministic job id generation", field="params.sid")
    return JobId(str(uuid.uuid5(vo_id(caller.vo), sid)))


def _kept(
    params: ParamsDocument, files: Sequence[FileDocument], *, overwrite_flag: str | None, auth_method: str
) -> Mapping[str, Any]:
    """What is only shown again: names as in `JobRequest.params`, absent where it is the default."""
    wire: Mapping[str, Any] = params
    kept: dict[str, Any] = {key: wire[key] for key in _KEPT if wire.get(key)}
    kept["auth_method"] = auth_method
    if overwrite_flag not in {None, "Y"}:
        kept["overwrite_flag"] = overwrite_flag
    extras = {}
    for index, file in enumerate(files):
        if file.get("staging_metadata") or file.get("archive_metadata"):
            extras[str(index)] = {
                "staging_metadata": file.get("staging_metadata"),
                "archive_metadata": file.get("archive_metadata"),
            }
    if extras:
        kept["tape_metadata"] = extras
    return kept
