"""The JSON documents that clients send, as types that pydantic reads and OpenAPI shows.

Types and bounds only; what goes beyond one value is checked by `submission`. Keys that are not
here are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

YEARS_S: Final = 10 * 365 * 86400
SID_MAX: Final = 255


def _set(value: object) -> object:
    """FTS takes an empty text for "not set", as it does null."""
    return None if value == "" else value


def _number(value: object) -> object:
    """FTS takes `true` for 1. `false` stands for "not set": its own client sends that."""
    if value is True:
        msg = "expected a number, got true"
        raise ValueError(msg)
    return _set(value)


Urls = Annotated[list[str], Field(fail_fast=True)]
Flag = Annotated[bool | None, BeforeValidator(_set)]
Text = Annotated[str, Field(max_length=255)] | None
Seconds = Annotated[Annotated[int, Field(ge=-1, le=YEARS_S)] | None, BeforeValidator(_number)]
"""0 and -1 are "not set"; what is below is a mistake that FTS does not notice."""


@with_config(ConfigDict(title="File"))
class FileDocument(TypedDict, total=False):
    """One file of a submission."""

    sources: Urls | None
    destinations: Urls | None
    metadata: Any
    filesize: Annotated[Annotated[int, Field(ge=0, lt=1 << 62)] | None, BeforeValidator(_number)]
    checksum: Text
    activity: Text
    selection_strategy: Text
    scitag: Any
    staging_metadata: dict[str, Any] | None
    archive_metadata: dict[str, Any] | None
    source_tokens: Urls | None
    destination_tokens: Urls | None


@with_config(ConfigDict(title="Parameters"))
class ParamsDocument(TypedDict, total=False):
    """What holds for all files of a submission."""

    verify_checksum: bool | str | None
    reuse: Flag
    multihop: Flag
    bring_online: Seconds
    copy_pin_lifetime: Seconds
    archive_timeout: Seconds
    overwrite: Flag
    overwrite_on_retry: Flag
    overwrite_when_only_on_disk: Flag
    overwrite_hop: Flag
    dst_file_report: Flag
    retry: Annotated[Annotated[int, Field(ge=-1000, le=1000)] | None, BeforeValidator(_number)]
    retry_delay: Seconds
    priority: Annotated[int | None, BeforeValidator(_number)]
    max_time_in_queue: Any
    timeout: Seconds
    nostreams: Annotated[Annotated[int, Field(ge=-1, le=256)] | None, BeforeValidator(_number)]
    buffer_size: Annotated[Annotated[int, Field(ge=-1, le=1 << 40)] | None, BeforeValidator(_number)]
    strict_copy: Flag
    disable_cleanup: Flag
    ipv4: Flag
    ipv6: Flag
    s3alternate: Flag
    job_metadata: Any
    source_spacetoken: Text
    destination_spacetoken: Text
    id_generator: Text
    sid: Annotated[str, Field(max_length=SID_MAX)] | None
    unmanaged_tokens: Flag


@with_config(ConfigDict(title="Submission"))
class SubmissionDocument(TypedDict, total=False):
    """What `POST /jobs` takes."""

    files: Annotated[list[FileDocument], Field(fail_fast=True)] | None
    params: ParamsDocument | None
    delete: Any


@with_config(ConfigDict(title="PriorityParameters"))
class PriorityDocument(TypedDict, total=False):
    """What can be changed."""

    priority: int | None


@with_config(ConfigDict(title="Modification"))
class ModificationDocument(TypedDict, total=False):
    """What `POST /jobs/<ids>` takes."""

    params: PriorityDocument | None


SUBMISSION: Final = TypeAdapter(SubmissionDocument)
MODIFICATION: Final = TypeAdapter(ModificationDocument)
