"""What is ordered: bans, drain, holds, and that all be cancelled."""

from __future__ import annotations

from typing import Final

from pydantic import TypeAdapter

from transfer_engine.callers import Need
from transfer_engine.service.control import Controls
from transfer_engine.service.route import IDS, NO_JOB, NOTHING, JsonType, Route
from transfer_engine.service.wire.control import (
    BAN,
    DRAIN,
    USER_BAN,
    AffectedObject,
    BanObject,
    DrainObject,
    HoldObject,
    UserBanObject,
)

HELD: Final[JsonType] = TypeAdapter(HoldObject)
AFFECTED: Final[JsonType] = TypeAdapter(AffectedObject)


def order_routes(controls: Controls) -> list[Route]:
    """Bans, drain, holds, and the end of everything."""
    return [*_ban_routes(controls), *_control_routes(controls), *_sweeping_routes(controls)]


def _sweeping_routes(controls: Controls) -> list[Route]:
    return [
        Route(
            name="cancelVo",
            method="DELETE",
            path="/jobs/vo/{vo}",
            needs=Need.VO_CONTROL,
            summary="Cancel whatever has not ended of a VO",
            handler=controls.cancel_vo,
            answers=AFFECTED,
            statuses={403: "the caller does not operate the VO"},
        ),
        Route(
            name="cancelEverything",
            method="DELETE",
            path="/jobs/all",
            needs=Need.CONTROL,
            summary="Cancel whatever has not ended, of everybody",
            handler=controls.cancel_everything,
            answers=AFFECTED,
            statuses={403: "the caller does not operate the node"},
        ),
    ]


def _ban_routes(controls: Controls) -> list[Route]:
    forbidden = {403: "the caller may not operate the node"}
    return [
        Route(
            name="banStorage",
            method="POST",
            path="/ban/se",
            needs=Need.VO_CONTROL,
            summary="Ban a storage for the caller's VO (vo: another, or * for all); answers the jobs that it concerns",
            handler=controls.ban_storage,
            answers=IDS,
            body=BAN,
            statuses=forbidden | {400: "no storage, or another value is wrong"},
        ),
        Route(
            name="unbanStorage",
            method="DELETE",
            path="/ban/se",
            needs=Need.VO_CONTROL,
            summary="Lift the ban of a storage",
            handler=controls.unban_storage,
            answers=NOTHING,
            query={"storage": "scheme://host", "vo": "the VO of the ban, * for that of all; else the caller's"},
            statuses=forbidden | {400: "no storage"},
            success=204,
        ),
        Route(
            name="bannedStorages",
            method="GET",
            path="/ban/se",
            needs=Need.USER,
            summary="The storages that are banned",
            handler=controls.banned_storages,
            answers=TypeAdapter(list[BanObject]),
            statuses=forbidden,
        ),
        Route(
            name="banUser",
            method="POST",
            path="/ban/dn",
            needs=Need.CONTROL,
            summary="Ban a user and cancel the user's jobs; answers their ids",
            handler=controls.ban_user,
            answers=IDS,
            body=USER_BAN,
            statuses=forbidden | {400: "no user", 409: "the user is the caller"},
        ),
        Route(
            name="unbanUser",
            method="DELETE",
            path="/ban/dn",
            needs=Need.CONTROL,
            summary="Lift the ban of a user",
            handler=controls.unban_user,
            answers=NOTHING,
            query={"user_dn": "the user"},
            statuses=forbidden | {400: "no user"},
            success=204,
        ),
        Route(
            name="bannedUsers",
            method="GET",
            path="/ban/dn",
            needs=Need.CONTROL,
            summary="The users who are banned",
            handler=controls.banned_users,
            answers=TypeAdapter(list[UserBanObject]),
            statuses=forbidden,
        ),
    ]


def _control_routes(controls: Controls) -> list[Route]:
    ended = {404: NO_JOB, 409: "the job has ended"}
    return [
        Route(
            name="drain",
            method="POST",
            path="/config/drain",
            needs=Need.CONTROL,
            summary="Start nothing new on this node, or work again",
            handler=controls.drain,
            answers=NOTHING,
            body=DRAIN,
            statuses={400: "another host, or a value is wrong", 403: "the caller may not operate the node"},
        ),
        Route(
            name="draining",
            method="GET",
            path="/config/drain",
            needs=Need.CONTROL,
            summary="Whether the node is drained, what still runs, and roughly for how long",
            handler=controls.draining,
            answers=TypeAdapter(DrainObject),
            statuses={403: "the caller may not operate the node"},
        ),
        Route(
            name="holdJob",
            method="POST",
            path="/jobs/{job_id}/hold",
            needs=Need.USER,
            summary="Let what waits of a job wait until it is resumed",
            handler=controls.hold,
            answers=HELD,
            statuses=ended,
        ),
        Route(
            name="resumeJob",
            method="POST",
            path="/jobs/{job_id}/resume",
            needs=Need.USER,
            summary="Let a job that is on hold go on",
            handler=controls.resume,
            answers=HELD,
            statuses=ended,
        ),
    ]
