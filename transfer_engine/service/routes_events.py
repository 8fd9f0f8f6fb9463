"""The stream of state changes."""

from __future__ import annotations

from transfer_engine.callers import Need
from transfer_engine.service.events import Events
from transfer_engine.service.route import NO_JOB, STREAM, TEXT, Route


def event_routes(events: Events) -> list[Route]:
    """The one of them."""
    return [
        Route(
            name="events",
            method="GET",
            path="/events",
            needs=Need.USER,
            summary="State changes of jobs and transfers as they happen, as server-sent events; it does not end",
            handler=events.follow,
            answers=TEXT,
            query={
                "after": "id of the last event that was seen, as in Last-Event-ID; 0: all that are kept; else from now",
                "job_id": "only of this job; the stream ends with it",
            },
            statuses={400: "the cursor is not a number", 404: NO_JOB, 429: "too many clients follow events already"},
            media=STREAM,
        )
    ]
