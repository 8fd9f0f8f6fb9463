"""Who may do what: every route of the table, asked by every role, about own, neighbours' and strangers' jobs.

The rows come from the service's own table, so that a new route is in the matrix before it is in use;
what each cell must be is said here, from the roles alone, not from the code that decides it.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests.service import FixedClock, Service, StandingEngine, running_service, table
from transfer_engine.callers import CERTIFICATE, UNAUTHENTICATED, Caller, Grant, Need, Role
from transfer_engine.model import JobId, JobRequest, Transfer
from transfer_engine.service.route import Route
from transfer_engine.states import JobState
from transfer_engine.store.sqlite import SqliteStore

OWN, SAME_VO, OTHER_VO = "own", "same VO", "other VO"
OBJECTS = (OWN, SAME_VO, OTHER_VO)
MINE, NEIGHBOUR, STRANGER = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"
OWNERS = {OWN: ("/CN=me", MINE, "ska"), SAME_VO: ("/CN=her", NEIGHBOUR, "ska"), OTHER_VO: ("/CN=them", STRANGER, "cta")}


PEM = "-----BEGIN CERTIFICATE-----"
"""Nobody reads it here."""


def person(role: Role) -> Caller:
    if role is Role.ANONYMOUS:
        return Caller(user_dn="anon", vos=(), delegation_id="", method=UNAUTHENTICATED)
    vo = "ska" if role in {Role.VO_MONITOR, Role.VO_OPERATOR} else None
    grants = () if role is Role.USER else (Grant(role, vo),)
    return Caller(
        user_dn="/CN=me", vos=("ska",), delegation_id=MINE, method=CERTIFICATE, grants=grants, certificate=PEM
    )


ROLES = tuple(Role)
CALLERS = [person(role) for role in ROLES]

SEES = {
    Role.ANONYMOUS: set(),
    Role.USER: {OWN},
    Role.VO_MONITOR: {OWN, SAME_VO},
    Role.VO_OPERATOR: {OWN, SAME_VO},
    Role.OPERATOR: {OWN, SAME_VO, OTHER_VO},
    Role.ADMIN: {OWN, SAME_VO, OTHER_VO},
}
CHANGES = SEES | {Role.VO_MONITOR: {OWN}}

MEETS = {
    Need.NOTHING: set(Role),
    Need.USER: set(Role) - {Role.ANONYMOUS},
    Need.VO_READ: {Role.VO_MONITOR, Role.VO_OPERATOR, Role.OPERATOR, Role.ADMIN},
    Need.VO_CONTROL: {Role.VO_OPERATOR, Role.OPERATOR, Role.ADMIN},
    Need.READ: {Role.OPERATOR, Role.ADMIN},
    Need.CONTROL: {Role.OPERATOR, Role.ADMIN},
    Need.ADMIN: {Role.ADMIN},
}

OPEN = {"service", "whoami", "healthz", "readyz", "openapi"}
"""What anybody may ask. A route that joins them is a decision, not an accident."""
OF_JOBS = {"ids", "job_id", "file_id", "file_ids"}
READING_POSTS: set[str] = set()


@dataclass
class Job:
    job_id: JobId
    file_id: int


async def submit(service: Service, whose: str) -> Job:
    user_dn, cred_id, vo = OWNERS[whose]
    source = f"https://source.example/data/{service.engine.n_ids}"
    job_id = await service.engine.submit(
        JobRequest(
            transfers=(Transfer.of(source, source.replace("source", "dest")),), vo=vo, user_dn=user_dn, cred_id=cred_id
        )
    )
    return Job(job_id, (await service.engine.store.files(job_id))[0].file_id)


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    async with running_service(caller=CALLERS) as running:
        yield running


async def ask(service: Service, role: Role, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    headers = {"X-Test-Caller": str(ROLES.index(role)), "Content-Type": "application/json"}
    async with service.http.request(method, service.url + path, json=body, headers=headers) as response:
        raw = await response.read()
        return response.status, await response.json() if raw and response.content_type == "application/json" else None


def rows() -> list[Route]:
    clock = FixedClock()
    return table(StandingEngine(SqliteStore("sqlite://", incarnation="table", now=clock.now, inline=True), clock))


ROWS = rows()
OBJECT_ROWS = [route for route in ROWS if any(f"{{{name}}}" in route.path for name in OF_JOBS)]
PLAIN_ROWS = [route for route in ROWS if route not in OBJECT_ROWS]


def test_the_matrix_is_whole():
    assert {route.name for route in ROWS if route.needs is Need.NOTHING} == OPEN
    assert len(OBJECT_ROWS) >= 11
    assert len(ROWS) * len(ROLES) * len(OBJECTS) >= 600


@pytest.mark.asyncio
@pytest.mark.parametrize("route", OBJECT_ROWS, ids=lambda route: route.name)
async def test_jobs(service: Service, route: Route):
    for role, whose in itertools.product(ROLES, OBJECTS):
        job = await submit(service, whose)
        path = route.path.format_map(
            {
                "ids": job.job_id,
                "job_id": job.job_id,
                "file_id": job.file_id,
                "file_ids": job.file_id,
                "field": "vo_name",
            }
        )
        body = {"params": {"priority": 5}} if route.method in {"POST", "PUT"} else None
        status, answer = await ask(service, role, route.method, path, body)
        reads = route.method == "GET" or route.name in READING_POSTS
        if role is Role.ANONYMOUS or role not in MEETS[route.needs]:
            assert status == 403, (role, whose, answer)
        elif whose not in SEES[role]:
            unknown = path.replace(job.job_id, "00000000-0000-4000-8000-00000000dead")
            assert status == 404, (role, whose, answer)
            other = await ask(service, role, route.method, unknown, body)
            assert other[0] == 404
            # What is said of a job that is somebody else's is said of one that does not exist.
            assert str(answer).replace(job.job_id, "") == str(other[1]).replace(unknown.split("/")[2], "")
        elif not reads and whose not in CHANGES[role]:
            assert status == 403, (role, whose, answer)
            assert (await service.engine.store.job(job.job_id)).state is JobState.SUBMITTED
        else:
            # `/archive` has jobs that are over.
            assert status == 200 or (status == 404 and route.path.startswith("/archive")), (role, whose, answer)


BODIES: dict[str, Any] = {
    "banStorage": lambda vo: {"storage": "https://source.example", "status": "wait", "vo": vo},
    "banUser": lambda _: {"user_dn": "/CN=somebody"},
    "drain": lambda _: {"drain": False},
    "setGlobals": lambda vo: {"vo_name": vo, "retry": 1},
    "setShare": lambda vo: {"source": "https://a.example", "destination": "https://b.example", "vo": vo, "share": 1},
    "setActivityShares": lambda vo: {"vo": vo, "share": {"default": 1}},
    "setStorages": lambda vo: {"https://a.example": {"operations": {vo: {"staging": 1}}}},
}
QUERIES: dict[str, Any] = {
    "unbanStorage": lambda vo: f"?storage=https%3A%2F%2Fsource.example&vo={vo}",
    "unbanUser": lambda _: f"?user_dn={quote('/CN=somebody')}",
    "explain": lambda _: "?endpoint=https%3A%2F%2Fsource.example",
    "dropGlobals": lambda vo: f"?vo_name={vo}",
    "dropShare": lambda vo: f"?source=https%3A%2F%2Fa.example&destination=https%3A%2F%2Fb.example&vo={vo}",
    "optimizerHistory": lambda _: "?endpoint=https%3A%2F%2Fsource.example",
}
OF_A_VO = {
    "banStorage", "unbanStorage", "setGlobals", "dropGlobals", "setActivityShares", "setStorages",
}  # fmt: skip
"""Orders that name the VO that they are for."""
NOBODY = {"cloudRequest", "cloudContent", "cloudLink"}
"""FTS3's clouds, which are not registered here: refused for everybody, by FTS3 with this status."""
STREAMS = {"events"}
"""They do not end by themselves; `test_events_of_others` asks them, and tests/unit/test_service_events.py."""


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "route", [route for route in PLAIN_ROWS if route.name not in STREAMS], ids=lambda route: route.name
)
async def test_everything_else(service: Service, route: Route):
    for role, whose in itertools.product(ROLES, OBJECTS):
        vo = OWNERS[whose][2]
        path = route.path
        for part in [part for part in path.split("/") if part.startswith("{")]:
            path = path.replace(part, {"{delegation_id}": OWNERS[whose][1], "{vo}": vo}.get(part, "nothing"))
        path += QUERIES.get(route.name, lambda _: "")(vo)
        body = BODIES.get(route.name, lambda _: {})(vo) if route.method in {"POST", "PUT"} else None
        status, answer = await ask(service, role, route.method, path, body)
        allowed = role in MEETS[route.needs]
        of_a_vo = route.name in OF_A_VO or "{vo}" in route.path
        if of_a_vo and role in {Role.VO_MONITOR, Role.VO_OPERATOR} and vo != "ska":
            allowed = False
        if "{delegation_id}" in route.path and whose != OWN:
            allowed = False
        if route.name in NOBODY:
            assert status in {400, 403}, (role, whose, answer)
        elif allowed:
            assert status != 403, (role, whose, answer)
            assert status < 500 or status == 501, (role, whose, answer)
        else:
            assert status == 403, (role, whose, answer)


@pytest.mark.asyncio
@pytest.mark.parametrize("role", ROLES[1:])
async def test_lists_show_what_may_be_seen(service: Service, role: Role):
    jobs = {whose: await submit(service, whose) for whose in OBJECTS}
    status, listed = await ask(service, role, "GET", "/jobs")
    assert status == 200
    assert {job["job_id"] for job in listed} == {jobs[whose].job_id for whose in SEES[role]}
    ids = ",".join(job.job_id for job in jobs.values())
    status, shown = await ask(service, role, "GET", f"/jobs/{ids}?files=file_state")
    assert status == (200 if len(SEES[role]) == 3 else 207)
    seen = {job["job_id"] for job in shown if job["http_status"] == "200 Ok"}
    assert seen == {jobs[whose].job_id for whose in SEES[role]}
    for whose in OBJECTS:
        _, filtered = await ask(service, role, "GET", f"/jobs?vo_name={OWNERS[whose][2]}")
        assert {job["job_id"] for job in filtered} <= seen


@pytest.mark.asyncio
@pytest.mark.parametrize("role", ROLES[1:])
async def test_files_of_other_jobs_do_not_come_in_by_a_job_of_ones_own(service: Service, role: Role):
    mine, theirs = await submit(service, OWN), await submit(service, OTHER_VO)
    for path in (
        f"/jobs/{mine.job_id}/files/{theirs.file_id}/retries",
        f"/jobs/{mine.job_id}/files/{theirs.file_id}/explain",
    ):
        assert (await ask(service, role, "GET", path))[0] == 404
    status, said = await ask(service, role, "DELETE", f"/jobs/{mine.job_id}/files/{theirs.file_id}")
    assert (status, said) == (200, "File does not belong to the job")
    status, _ = await ask(service, role, "GET", f"/explain?file_id={theirs.file_id}")
    assert status == (200 if OTHER_VO in SEES[role] else 404)


@pytest.mark.asyncio
async def test_orders_about_others_are_recorded(service: Service):
    theirs = await submit(service, SAME_VO)
    await ask(service, Role.VO_OPERATOR, "DELETE", f"/jobs/{theirs.job_id}")
    mine = await submit(service, OWN)
    await ask(service, Role.VO_OPERATOR, "DELETE", f"/jobs/{mine.job_id}")
    found = await service.engine.store.audit(10)
    assert [(entry.action, entry.object, entry.user_dn) for entry in found] == [("cancel", theirs.job_id, "/CN=me")]


@pytest.mark.asyncio
async def test_a_banned_user_may_do_nothing(service: Service):
    await service.engine.control.ban_user("/CN=me")
    for path in ("/", "/whoami", "/jobs"):
        status, error = await ask(service, Role.USER, "GET", path)
        assert (status, error["message"]) == (403, "The user has been banned")


@pytest.mark.asyncio
@pytest.mark.parametrize("role", ROLES)
async def test_events_of_others(service: Service, role: Role):
    jobs = {whose: await submit(service, whose) for whose in OBJECTS}
    last = await service.engine.reader.last_event()
    headers = {"X-Test-Caller": str(ROLES.index(role))}
    for whose, job in jobs.items():
        async with service.http.get(f"{service.url}/events?after=0&job_id={job.job_id}", headers=headers) as answer:
            expected = 403 if role is Role.ANONYMOUS else 200 if whose in SEES[role] else 404
            assert answer.status == expected, whose
    seen = await service.engine.reader.events(0, last, sight=CALLERS[ROLES.index(role)].reads)
    assert {event.job_id for event in seen} == {jobs[whose].job_id for whose in SEES[role]}
