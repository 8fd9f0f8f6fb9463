"""The lists that the scheduler keeps: every lane is in exactly one, and counts add up."""

from __future__ import annotations

from typing import Any

from transfer_engine.lanes import Lane, Site
from transfer_engine.rooms import Room


def check_lane(scheduler: Any, lane: Lane) -> None:
    """A lane with work is in exactly one list; one without is in none that is looked at."""
    site = scheduler.sites[lane.site.name]
    assert site is lane.site
    entries = [entry for entry in lane.level.heap if entry[3] is lane and entry[2] == lane.stamp]
    if lane.open:
        assert lane.n_ready > 0, "an open lane has work"
        assert not lane.blocked
        assert lane.parked_in is None
        assert len(entries) == 1, "an open lane is in its level's order once"
        assert entries[0][0] == lane.key
        assert site.queued or site.room.used >= site.room.limit, f"{lane.queue} waits and nobody will look"
    elif lane.n_ready > 0 and not lane.blocked:
        assert lane.parked_in is not None, f"{lane.queue} is nowhere"
    if isinstance(lane.parked_in, Room):
        assert lane in lane.parked_in.parked[site]
        assert lane.parked_in in lane.rooms[1:-1]
        assert any(entry[2] is site for entry in lane.parked_in._queue), "a destination that waits is in the order"
    elif lane.parked_in is not None:
        assert lane in lane.parked_in.parked


def check_site(site: Site) -> None:
    """The counts of open lanes add up."""
    total = 0
    for vo in site.vos.values():
        assert vo.n_open == sum(activity.n_open for activity in vo.activities.values())
        for activity in vo.activities.values():
            assert activity.n_open == sum(level.n_open for level in activity.levels.values())
            for level in activity.levels.values():
                valid = [entry for entry in level.heap if entry[3].open and entry[2] == entry[3].stamp]
                assert level.n_open == len(valid)
        total += vo.n_open
    assert site.n_open == total
    assert site.full == (site.room.used >= site.room.limit)
    assert site.n_open >= 0
