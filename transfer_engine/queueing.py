"""Where the transfers of one job stand, without asking the store for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from transfer_engine import urls
from transfer_engine.driving import Driven
from transfer_engine.model import FileId, Position
from transfer_engine.sizes import size_class
from transfer_engine.states import FileState
from transfer_engine.store.api import Reader
from transfer_engine.views import FileView, JobView

LaneName = tuple[str, str, str, str, int, int]
"""(source endpoint, destination endpoint, VO, activity, class of size, priority)"""


def lane_name(view: FileView) -> LaneName:
    """The lane that a transfer belongs to while it waits."""
    return view.source_se, view.dest_se, view.vo, view.activity, size_class(view.size_bytes), view.priority


async def positions(
    job: JobView, views: Sequence[FileView], *, reader: Reader, driven: Iterable[Driven]
) -> dict[FileId, Position]:
    """The position of each of `views` that waits; they are the oldest open ones of their job, in order.

    The store is asked once for each queue: the transfers of a job were stored together, so that nobody
    else's stands between two of them. Raises: NotFound, StoreUnavailable.
    """
    writers: dict[int, FileId] | None = None
    found: dict[FileId, Position] = {}
    last: dict[LaneName, Position] = {}
    for view in views:
        if view.state is not FileState.SUBMITTED:
            continue
        name = lane_name(view)
        known = last.get(name)
        if known is None:
            position = await reader.position(view.file_id)
        else:
            writers = _writers(driven) if writers is None else writers
            writer = writers.get(_key(view.dest_url)) if writers else None
            position = replace(known, dest_driven_by=writer)
        found[view.file_id] = position
        ready = view.retry_at is None and not job.held
        last[name] = replace(
            position,
            n_before=position.n_before + ready,
            bytes_before=position.bytes_before + (view.size_bytes or 0) * ready,
        )
    return found


def _writers(driven: Iterable[Driven]) -> dict[int, FileId]:
    return {_key(one.order.dest_url): one.order.file_id for one in driven}


def _key(url: str) -> int:
    return urls.destination_key(urls.parse(url, "destination"))
