"""`params` of a submission document → options of a job, with every default and refusal of FTS3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transfer_engine.model import PRIORITY_DEFAULT, PRIORITY_MAX, PRIORITY_MIN, JobOptions, Transfer, Verify
from transfer_engine.service.wire.documents import YEARS_S, ParamsDocument
from transfer_engine.service.wire.words import Refused, duration_s, value_error


def job_options(
    params: ParamsDocument, transfers: Sequence[Transfer], *, now: float, overwrite: str | None
) -> JobOptions:
    """How the transfers are to be done.

    Args: now: instant that `max_time_in_queue` counts from. overwrite: what `overwrite_flag` said.
    """
    retry = params.get("retry") or None
    return JobOptions(
        verify=_verify(params.get("verify_checksum"), transfers),
        overwrite=overwrite == "Y",
        overwrite_on_retry=overwrite == "R",
        overwrite_hops=overwrite == "M",
        dst_file_report=bool(params.get("dst_file_report")),
        strict_copy=bool(params.get("strict_copy")),
        keep_remains=bool(params.get("disable_cleanup")),
        retries_max=None if retry is None else max(retry, 0),
        retry_delay_s=_positive(params.get("retry_delay")),
        timeout_s=_positive(params.get("timeout")),
        deadline_at=_deadline(params.get("max_time_in_queue"), now),
        n_streams=_positive(params.get("nostreams")),
    )


def overwrite_flag(params: ParamsDocument, transfers: Sequence[Transfer]) -> str | None:
    """FTS's letter for what may happen to a destination that exists; None: it stays."""
    hop, disk = params.get("overwrite_hop"), params.get("overwrite_when_only_on_disk")
    asked = {"Y": params.get("overwrite"), "R": params.get("overwrite_on_retry"), "M": hop, "D": disk}
    letters = "".join(letter for letter, flag in asked.items() if flag)
    if len(letters) > 1 and letters != "MD":
        raise Refused("Incompatible overwrite flags used at the same time")
    if hop and not params.get("multihop"):
        raise Refused("'overwrite-hop' requires multihop job submission")
    if disk:
        if (params.get("archive_timeout") or 0) <= 0:
            raise Refused("'overwrite-when-only-on-disk' requires 'archive-timeout' to be set")
        if not all(transfer.destination.lower().startswith(("https:", "davs:")) for transfer in transfers):
            raise Refused(
                "'overwrite-when-only-on-disk' requires destination to be HTTPs endpoint (Tape REST API required)"
            )
    return {"": None, "MD": "Q"}.get(letters, letters)


def refuse_tape(params: ParamsDocument) -> None:
    """A job that waits for tape would be accepted and left: it is refused instead."""
    asked = {
        "bring_online": params.get("bring_online"),
        "copy_pin_lifetime": params.get("copy_pin_lifetime"),
        "archive_timeout": params.get("archive_timeout"),
    }
    for key, value in asked.items():
        if value is not None and value > 0:
            raise value_error(
                f"params.{key}: this service does not speak to tape; expected null or -1, got {value}",
                field=f"params.{key}",
            )


def refuse_contradictions(params: ParamsDocument) -> None:
    """Where FTS lets one of two words win silently."""
    if params.get("ipv4") and params.get("ipv6"):
        raise value_error("params.ipv6: ipv4 and ipv6 exclude each other", field="params.ipv6")


def priority(params: ParamsDocument) -> int:
    """1 to 5; FTS takes the nearest of them for anything else."""
    value = params.get("priority")
    return PRIORITY_DEFAULT if value is None else min(max(value, PRIORITY_MIN), PRIORITY_MAX)


def _positive(value: int | None) -> int | None:
    """FTS clients send 0 or -1 for what the user did not set."""
    return value if value is not None and value > 0 else None


def _verify(value: bool | str | None, transfers: Sequence[Transfer]) -> Verify:
    if isinstance(value, str) and value:
        for mode in Verify:
            if mode.value.startswith(value.lower()):
                return mode
        raise value_error(
            f"params.verify_checksum: expected none, source, target or both, got {value[:40]!r}",
            field="params.verify_checksum",
        )
    if value:
        return Verify.BOTH
    return Verify.TARGET if any(transfer.checksum for transfer in transfers) else Verify.NONE


def _deadline(value: Any, now: float) -> float | None:
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            seconds: float = duration_s(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and -YEARS_S < value < math.inf:
            # A number of JSON may be longer than any float.
            seconds = min(value, YEARS_S) * 3600
        else:
            msg = f"expected hours, or a number with s, m, h or d, got {str(value)[:40]}"
            raise ValueError(msg)  # noqa: TRY301 - one place names the field
    except ValueError as error:
        raise value_error(f"params.max_time_in_queue: {error}", field="params.max_time_in_queue") from error
    if seconds > YEARS_S:
        raise value_error("params.max_time_in_queue: more than ten years", field="params.max_time_in_queue")
    return now + seconds if seconds > 0 else None
