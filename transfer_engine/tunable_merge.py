"""What operators have set, over what the settings say. Pure.

The most specific row holds: of a link its own, then its source's, its destination's, everybody's; of two for
the same ends the one that was set while the engine ran. What a transfer's job says holds over all of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from protocols.api import Capabilities
from transfer_engine.callers import Grant, Role
from transfer_engine.limits import LimitTable, covering
from transfer_engine.model import Assignment, JobOptions, JobRequest
from transfer_engine.places import Link, Place
from transfer_engine.shares import ShareTable, level
from transfer_engine.tunable_rows import ANY, SPEED, GlobalRow, LinkRow, Rows

BASE_S: Final = 600.0
"""What FTS3 adds to the time for a file's size."""
MB: Final = 1024 * 1024
TPC: Final[Mapping[str, Capabilities]] = {
    "FULL": Capabilities(pull=True, push=True),
    "PULL": Capabilities(pull=True, push=False),
    "PUSH": Capabilities(pull=False, push=True),
    "NONE": Capabilities(pull=False, push=False),
}
GRANTS: Final[Mapping[str, Grant]] = {"config": Grant(Role.OPERATOR), "admin": Grant(Role.ADMIN)}


def limits_of(base: LimitTable, rows: Rows) -> LimitTable:
    """The limits in force."""
    inbound, outbound, bands = dict(base.inbound), dict(base.outbound), dict(base.bands)
    links, least = dict(base.links), dict(base.least)
    everywhere = rows.se.get(ANY)
    for se, row in rows.se.items():
        if se != ANY and row.inbound_max_active:
            inbound[se] = row.inbound_max_active
        if se != ANY and row.outbound_max_active:
            outbound[se] = row.outbound_max_active
        if row.inbound_max_throughput:
            bands[Place("in", se)] = row.inbound_max_throughput * SPEED
        if row.outbound_max_throughput:
            bands[Place("out", se)] = row.outbound_max_throughput * SPEED
    for link in rows.links.values():
        if link.max_active:
            links[_ends(link)] = link.max_active
        if link.min_active:
            least[Place("link", *_ends(link))] = link.min_active
    return replace(
        base,
        inbound=inbound,
        outbound=outbound,
        bands=bands,
        links=links,
        least=least,
        inbound_default=(everywhere and everywhere.inbound_max_active) or base.inbound_default,
        outbound_default=(everywhere and everywhere.outbound_max_active) or base.outbound_default,
    )


def shares_of(base: ShareTable, rows: Rows) -> ShareTable:
    """The shares in force; a link with rows of its own is weighed by these alone."""
    raw: dict[tuple[str, str], dict[str, float]] = {}
    for share in rows.shares:
        raw.setdefault((share.source, share.destination), {})[share.vo] = share.share
    links = {**base.links, **{ends: level(weights) for ends, weights in raw.items()}}
    activities = dict(base.activities)
    for vo, row in rows.activities.items():
        if row.active:
            # FTS's clients write the rest with a capital letter too.
            activities[vo] = {"default" if name.lower() == "default" else name: w for name, w in row.share.items()}
    return replace(base, links=links, activities=activities)


def capabilities_of(rows: Rows) -> dict[str, Capabilities]:
    """What storages are said to be able to do; by endpoint, or `*`."""
    return {se: TPC[row.tpc_support] for se, row in rows.se.items() if row.tpc_support is not None}


def grants_of(rows: Rows, dn: str) -> tuple[Grant, ...]:
    """The roles that somebody has been given."""
    return tuple(GRANTS[row.operation] for row in rows.authorize if row.dn == dn and row.operation in GRANTS)


def _ends(row: LinkRow) -> Link:
    return Link(row.source, row.destination)


class Defaults:
    """What a transfer gets that its job does not say."""

    def __init__(self, rows: Rows, modes: Sequence[str]) -> None:
        """Args: modes: the copy modes of the settings."""
        self._globals = rows.globals
        self._links = {_ends(row): row for row in rows.links.values() if row.nostreams}
        self._modes = tuple(modes)

    def of_vo(self, vo: str) -> GlobalRow:
        """The row of a VO over that of all."""
        known = [row for row in (self._globals.get(ANY), self._globals.get(vo)) if row is not None]
        found: dict[str, object] = {"vo_name": vo}
        for row in known:
            found |= {key: value for key, value in row if value is not None and key != "vo_name"}
        return GlobalRow.model_construct(**found)  # type: ignore[arg-type]

    def fill(self, order: Assignment) -> Assignment:
        """A claimed transfer, with the defaults of its VO and its link."""
        if not self._globals and not self._links:
            return order
        options, queue = order.options, order.queue
        found = self._of_vo(order, self.of_vo(queue.vo)) if self._globals else options
        if found.n_streams is None and self._links:
            ends = covering(self._links, Link(queue.source_se, queue.dest_se))
            if ends is not None:
                found = replace(found, n_streams=self._links[ends].nostreams)
        return order if found is options else replace(order, options=found)

    def _of_vo(self, order: Assignment, row: GlobalRow) -> JobOptions:
        options = order.options
        if options.retries_max is None and row.retry is not None:
            options = replace(options, retries_max=row.retry)
        if options.timeout_s is None and (timeout_s := _timeout_s(row, order.size_bytes)):
            options = replace(options, timeout_s=timeout_s)
        if row.no_streaming and "stream" in (options.modes or self._modes):
            modes = tuple(mode for mode in options.modes or self._modes if mode != "stream")
            options = replace(options, modes=modes or ("pull", "push"))
        return options

    def queued(self, job: JobRequest, now: float) -> JobRequest:
        """A job as it is accepted: it waits no longer than its VO lets jobs wait."""
        hours = self.of_vo(job.vo).max_time_queue if self._globals else None
        if not hours or job.options.deadline_at is not None:
            return job
        return replace(job, options=replace(job.options, deadline_at=now + 3600.0 * hours))


def _timeout_s(row: GlobalRow, size_bytes: int | None) -> float | None:
    """For one attempt as a whole, as in FTS3: what is set, or what the size calls for; None: neither is set."""
    if row.global_timeout:
        return float(row.global_timeout)
    if not row.sec_per_mb or size_bytes is None:
        return None
    return BASE_S + math.ceil(row.sec_per_mb * size_bytes / MB)
