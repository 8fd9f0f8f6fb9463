"""Put other limits and shares in force while transfers wait and run. Pure.

Nothing is stopped and nothing is forgotten: what runs keeps its slots, also where there are more of them
now than the limit allows; nothing starts there until there are fewer. What somebody was served stays
as it was counted; from now on it counts by the new weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from transfer_engine.lanes import Lane, Level
from transfer_engine.limits import LimitTable
from transfer_engine.rooms import Band
from transfer_engine.schedule import Scheduler
from transfer_engine.shares import ShareTable


def retune(
    scheduler: Scheduler, limits: LimitTable, shares: ShareTable, copies: Iterable[Lane], now: float
) -> dict[Lane, float]:
    """Let a scheduler decide by these; not while a decision is on its way to the store.

    Args: copies: the lane of each copy that runs, as often as it has any.
    Returns: what each copy of a lane reserves from now on, in bytes per second; empty: as before.
    """
    bands_change = scheduler.limits.bands != limits.bands
    shares_change = scheduler.shares != shares
    scheduler.limits, scheduler.shares = limits, shares
    for room in list(scheduler.rooms.values()):
        before = room.limit
        room.configure(limits.at(room.place))
        scheduler.bounded(room, before)
    if shares_change:
        _reweigh(scheduler, now)
    return _rebuild_bands(scheduler, copies, now) if bands_change else {}


def _reweigh(scheduler: Scheduler, now: float) -> None:
    shares = scheduler.shares
    for site in scheduler.sites.values():
        for (name, group), vo in site.vos.items():
            vo.account.reweigh(shares.of_vo(name, group), now)
            for activity in vo.activities.values():
                activity.account.reweigh(shares.of_activity(name, activity.name), now)
    for lane in scheduler.lanes.values():
        level = scheduler.level_of(lane.queue, lane.priority)
        if level is not lane.level:
            _move(lane, level, now)


def _move(lane: Lane, level: Level, now: float) -> None:
    """The VOs of its link are weighed by another row now: its slots are another account's."""
    before, after = lane.level.activity, level.activity
    was_open = lane.open
    lane.site.close(lane)
    for account, n in (
        (before.account, -lane.n_held),
        (before.vo.account, -lane.n_held),
        (after.account, lane.n_held),
        (after.vo.account, lane.n_held),
    ):
        account.change(n, now)
    lane.level = level
    if was_open:
        lane.site.open(lane, now)
    if not before.vo.n_open:
        before.vo.seen_at = -math.inf


def _rebuild_bands(scheduler: Scheduler, copies: Iterable[Lane], now: float) -> dict[Lane, float]:
    waiting = [lane for band in scheduler.bands.values() for lane in band.wake()]
    scheduler.band_turns.forget()
    scheduler.bands = {place: Band(place, rate) for place, rate in scheduler.limits.bands.items()}
    for lane in scheduler.lanes.values():
        lane.bands = scheduler.bands_of(lane.queue)
    reserved: dict[Lane, float] = {}
    for lane in copies:
        rate = reserved.setdefault(lane, scheduler.need(lane))
        for band in lane.bands:
            band.take(rate)
    for lane in waiting:
        scheduler.reconsider(lane, now)
    return reserved
