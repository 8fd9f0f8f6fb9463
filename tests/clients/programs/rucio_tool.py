"""Rucio's unmodified `FTS3Transfertool`, called from outside, without a Rucio around it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from calls import answer_calls
from rucio.transfertool.fts3 import FTS3Transfertool

tools: dict[str, FTS3Transfertool] = {}


def connect(external_host: str, name: str = "", token: str | None = None, **options: Any) -> str:
    """A transfertool as the daemons make it; `token` stands for what Rucio's own issuer would have given."""
    tool = FTS3Transfertool(external_host, **options)
    if token is not None:
        # What the constructor does once its issuer has answered, which there is none of here.
        tool.token, tool.cert, tool.headers["Authorization"] = token, None, f"Bearer {token}"
    tools[name] = tool
    return tool.external_host


def _rse(name: str) -> Any:
    return SimpleNamespace(
        name=name,
        id=f"id-of-{name}",
        attributes={},
        is_tape=lambda: False,
        is_tape_or_staging_required=lambda: False,
    )


def _transfer(
    sources: list[str], destination: str, request_id: str, filesize: int, adler32: str | None, token_of: str = ""
) -> Any:
    """What the transfertool reads of a `DirectTransfer`."""
    ends = [SimpleNamespace(rse=_rse(f"SRC{number}"), url=url) for number, url in enumerate(sources)]
    work = SimpleNamespace(
        request_id=request_id,
        scope=SimpleNamespace(vo="def", external="tests", internal="tests"),
        name=f"name-of-{request_id}",
        activity="User Subscriptions",
        request_type="TRANSFER",
        byte_count=filesize,
        md5=None,
        adler32=adler32,
    )
    return SimpleNamespace(
        rws=work,
        sources=ends,
        source_url=lambda source: source.url,
        dest_url=destination,
        src=ends[0],
        dst=SimpleNamespace(rse=_rse("DST")),
    )


def submit(transfers: list[dict[str, Any]], name: str = "", **params: Any) -> str:
    """Submit with the parameters that the submitter daemon always sends."""
    made = [_transfer(**one) for one in transfers]
    # Only ids and names are sent of a scope; JSON has no word for it.
    for one in made:
        one.rws.scope = "tests"
    job_params = {
        "account": "root",
        "verify_checksum": "both",
        "copy_pin_lifetime": None,
        "bring_online": None,
        "job_metadata": {
            "issuer": "rucio",
            "multi_sources": any(len(one.sources) > 1 for one in made),
            "overwrite_when_only_on_disk": False,
        },
        "overwrite": True,
        "overwrite_when_only_on_disk": False,
        "priority": 4,
        "s3alternate": True,
        "max_time_in_queue": 168,
    }
    return tools[name].submit(made, job_params | params)


def expected_id(sid: str, name: str = "") -> str | None:
    """The id that Rucio takes for granted."""
    return tools[name]._FTS3Transfertool__get_deterministic_id(sid)


def bulk_query(asked: dict[str, list[str]], name: str = "") -> dict[str, Any]:
    """Job id → None (lost), the text of an error, or request id → what Rucio saw of it."""
    requests = {
        job_id: {request_id: {"request_id": request_id, "external_id": job_id} for request_id in request_ids}
        for job_id, request_ids in asked.items()
    }
    found: dict[str, Any] = {}
    for job_id, told in tools[name].bulk_query(requests).items():
        if told is None or isinstance(told, Exception):
            found[job_id] = told and str(told)
        else:
            found[job_id] = {
                request_id: {
                    "job_state": report.job_response["job_state"],
                    "file_state": report.file_response["file_state"],
                    "reason": report.file_response["reason"],
                    "source": report.file_response["source_surl"],
                    "metadata": report.file_response["file_metadata"],
                }
                for request_id, report in told.items()
            }
    return found


def call(method: str, *args: Any, name: str = "", **kwargs: Any) -> Any:
    """Any other method."""
    return getattr(tools[name], method)(*args, **kwargs)


if __name__ == "__main__":
    answer_calls(
        {"connect": connect, "submit": submit, "expected_id": expected_id, "bulk_query": bulk_query, "call": call}
    )
