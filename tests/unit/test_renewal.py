"""Renewals without an engine: one flight for all, refusals, rotation, what is written down and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from protocols.credentials import Secret
from protocols.errors import Scope
from tests.sim.token_world import OWNER, READ, WRITE, ScriptedIssuer, jwt
from transfer_engine.credentials.api import Away, Granted, Refusal, Wanted
from transfer_engine.credentials.claims import Claims, for_side, for_storages, read
from transfer_engine.credentials.renewal import Access, Key, Renewal
from transfer_engine.testing import EPOCH, run_virtual

SCOPE = (READ,)
KEY = Key(cred_id=OWNER, issuer="https://iam.example", subject="rucio", audience=("storages",), scope=SCOPE)


class Desk:
    """A renewal and what it writes down."""

    def __init__(self, key: Key = KEY) -> None:
        self._loop = asyncio.get_running_loop()
        self.issuer = ScriptedIssuer(self.now)
        self.kept: list[str | None] = []
        self.renewal = Renewal(key, self.issuer, now=self.now, keep=self._keep)

    def now(self) -> float:
        return EPOCH + self._loop.time()

    async def _keep(self, renewal: Renewal) -> None:
        self.kept.append(None if renewal.refresh is None else renewal.refresh.reveal())
        renewal.unsaved.clear()

    def join(self, token_id: str = "t1", *, lives_s: float = 100.0, refresh: str | None = None) -> None:
        token = Secret(self.issuer.token(f"{READ} offline_access", exp=self.now() + lives_s))
        access = Access(token, self.now() + lives_s, lives_s)
        self.renewal.join(token_id, access, None if refresh is None else Secret(refresh))


def at_a_desk(scenario: Callable[[Desk], Awaitable[None]], key: Key = KEY) -> None:
    async def main() -> None:
        await scenario(Desk(key))

    run_virtual(main)


def test_all_who_ask_meanwhile_get_the_same() -> None:
    async def scenario(desk: Desk) -> None:
        desk.join()
        flights = {desk.renewal.renew(SCOPE) for _ in range(500)}
        assert len(flights) == 1
        assert [await flight for flight in flights] == [None]
        assert desk.issuer.n("exchange") == 1
        assert desk.kept == list(desk.issuer.good)
        got = desk.renewal.got(SCOPE)
        assert got is not None
        assert got.left_s(desk.now()) > 3500

    at_a_desk(scenario)


def test_who_gives_up_waiting_stops_it_for_nobody() -> None:
    async def scenario(desk: Desk) -> None:
        desk.join()
        flight = desk.renewal.renew(SCOPE)
        waiter = asyncio.get_running_loop().create_task(asyncio.wait({flight}))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait({waiter})
        assert await flight is None

    at_a_desk(scenario)


def test_a_refresh_token_that_was_rotated_is_written_down_before_it_is_used() -> None:
    async def scenario(desk: Desk) -> None:
        desk.join()
        for _ in range(3):
            assert await desk.renewal.renew(SCOPE) is None
        assert (desk.issuer.n("exchange"), desk.issuer.n("refresh")) == (1, 2)
        assert len(set(desk.kept)) == 3
        assert desk.kept[-1] in desk.issuer.good

    at_a_desk(scenario)


def test_a_refresh_token_that_stays_is_written_down_once() -> None:
    async def scenario(desk: Desk) -> None:
        desk.issuer.rotates = False
        desk.join()
        for _ in range(3):
            assert await desk.renewal.renew(SCOPE) is None
        assert len(desk.kept) == 1

    at_a_desk(scenario)


def test_a_revoked_refresh_token_is_replaced_while_a_token_still_holds() -> None:
    async def scenario(desk: Desk) -> None:
        desk.join(refresh="revoked")
        assert await desk.renewal.renew(SCOPE) is None
        assert [kind for kind, _, _ in desk.issuer.asked] == ["refresh", "exchange"]

    at_a_desk(scenario)


def test_a_revoked_refresh_token_without_one_is_the_end() -> None:
    async def scenario(desk: Desk) -> None:
        desk.join(refresh="revoked", lives_s=-1)
        ended = await desk.renewal.renew(SCOPE)
        assert isinstance(ended, Refusal)
        assert ended.code == "invalid_grant"
        assert desk.renewal.refused(SCOPE) is ended
        await asyncio.sleep(61)
        assert desk.renewal.refused(SCOPE) is None

    at_a_desk(scenario)


def test_a_new_token_is_worth_asking_again_after_a_refusal() -> None:
    async def scenario(desk: Desk) -> None:
        desk.join(lives_s=-1)
        ended = await desk.renewal.renew(SCOPE)
        assert isinstance(ended, Refusal)
        assert ended.code == "ended"
        assert desk.issuer.asked == []
        desk.join("t2")
        assert desk.renewal.refused(SCOPE) is None
        assert await desk.renewal.renew(SCOPE) is None

    at_a_desk(scenario)


def test_an_issuer_that_is_away_is_asked_again_for_a_minute() -> None:
    async def scenario(desk: Desk) -> None:
        desk.issuer.away = True
        desk.join(lives_s=1000)
        began = desk.now()
        ended = await desk.renewal.renew(SCOPE)
        assert isinstance(ended, Away)
        assert 30 < desk.now() - began <= 62
        assert 4 <= desk.issuer.n_failed <= 8

        flight = desk.renewal.renew(SCOPE)
        await asyncio.sleep(5)
        desk.issuer.away = False
        assert await flight is None

    at_a_desk(scenario)


def test_each_side_gets_the_least_scope_and_both_one_refresh_token() -> None:
    words = tuple(WRITE.split())
    key = Key(cred_id=OWNER, issuer=KEY.issuer, subject="rucio", audience=(), scope=words)

    async def scenario(desk: Desk) -> None:
        desk.join()
        source, destination = for_side(words, Scope.SOURCE), for_side(words, Scope.DESTINATION)
        assert (source, destination) == ((READ,), words)
        flights = [desk.renewal.renew(source), desk.renewal.renew(destination)]
        assert [await flight for flight in flights] == [None, None]
        assert desk.issuer.n("exchange") == 1
        assert desk.issuer.n_at_once_max == 1, "a refresh token is good for one use"
        got = [desk.renewal.got(scope) for scope in (source, destination)]
        found = [read(access.token) for access in got if access is not None]
        assert [one.scope for one in found if one is not None] == [source, destination]

    at_a_desk(scenario, key)


class _Broken(ScriptedIssuer):
    async def exchange(self, wanted: Wanted, subject: Secret) -> Granted:
        raise KeyError("canary-in-an-error")


def test_a_bug_ends_no_wait_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(desk: Desk) -> None:
        desk.renewal = Renewal(KEY, _Broken(desk.now), now=desk.now, keep=desk._keep)
        desk.join()
        ended = await desk.renewal.renew(SCOPE)
        assert str(ended) == "the request failed (KeyError)"

    at_a_desk(scenario)
    assert "token not renewed" in caplog.text


@pytest.mark.parametrize(
    ("left_s", "needed_s", "lifetime_s", "lasts"),
    [
        (301, 300, 3600, True),
        (300, 300, 3600, False),
        (61, 300, 120, True),
        (59, 300, 120, False),
        (1801, 90_000, 3600, True),
        (1799, 90_000, 3600, False),
        (0, 0, 3600, False),
        (-1, 0, 3600, False),
    ],
)
def test_what_is_long_enough(left_s: float, needed_s: float, lifetime_s: float, lasts: bool) -> None:
    assert Access(Secret("x"), 1000 + left_s, lifetime_s).lasts(needed_s, 1000) is lasts


# Claims


def test_claims_are_read_without_believing_them() -> None:
    token = jwt(iss="https://a.example", sub="s", aud=["x", 7, "y"], scope="a  b", exp=20, iat=5, nbf=6)
    assert read(Secret(token)) == Claims(
        issuer="https://a.example", subject="s", audience=("x", "y"), scope=("a", "b"), expires_at=20.0, begins_at=6.0
    )


@pytest.mark.parametrize(
    "token",
    [
        "macaroon",
        "a.b",
        "a.b.c.d",
        "..",
        "a.!!.c",
        jwt(exp=5),
        jwt(iss="", exp=5),
        jwt(iss="x"),
        jwt(iss="x", exp="soon"),
        jwt(iss="x", exp=True),
        jwt(iss=["x"], exp=5),
        "a." + json.dumps([]).encode().hex() + ".c",
    ],
)
def test_what_says_too_little_is_opaque(token: str) -> None:
    assert read(Secret(token)) is None


def test_only_what_storages_understand_is_asked_for() -> None:
    words = ("openid", "fts", "storage.read:/", "compute.create", "offline_access", "wlcg.groups")
    assert for_storages(words) == ("storage.read:/",)
    assert for_storages(("wlcg.capabilityset:/x", "offline_access")) == ("wlcg.capabilityset:/x",)
    assert for_side(("wlcg.capabilityset:/x",), Scope.SOURCE) == ("wlcg.capabilityset:/x",)
    assert for_side(("storage.create:/a", "storage.read:/b"), Scope.SOURCE) == ("storage.read:/b",)
