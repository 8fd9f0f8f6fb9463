"""The configuration over a real socket, as FTS3's clients write and read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.service import Service, running_service
from transfer_engine.callers import CERTIFICATE, Caller, Grant, Role
from transfer_engine.service.wire.views import HOST

pytestmark = pytest.mark.asyncio

A, B = "https://a.example", "https://b.example"


async def refused(service: Service, path: str, body: Any, message: str, *, method: str = "POST") -> None:
    status, error = await service.call(method, path, body)
    assert (status, error["status"]) == (400, "400 Bad Request"), error
    assert message in error["message"]


async def audited(service: Service) -> list[tuple[str, str, Any]]:
    entries = await service.engine.store.audit(100)
    return [(entry.action, entry.object, json.loads(entry.detail or "null")) for entry in entries]


# The instance


async def test_the_instance_is_a_row():
    async with running_service() as service:
        row = {"hostname": HOST, "service_name": "transfer-engine", "beat": "2023-11-14T22:13:20", "drain": False}
        assert await service.call("GET", "/config") == (200, [row])
        await service.call("POST", "/config/drain", {})
        assert (await service.call("GET", "/config"))[1][0]["drain"] is True


async def test_every_change_is_recorded_with_what_was_there_before():
    async with running_service() as service:
        for retry in (3, 5):
            await service.call("POST", "/config/global", {"retry": retry})
        await service.call("DELETE", "/config/global?vo_name=*")
        await service.call("DELETE", "/config/global?vo_name=*")
        row = {"vo_name": "*", "retry": 3}
        assert await audited(service) == [
            ("delete-globals", "*", {"old": row | {"retry": 5}, "new": None}),
            ("set-globals", "*", {"old": row, "new": row | {"retry": 5}}),
            ("set-globals", "*", {"old": None, "new": row}),
        ]
        status, rows = await service.call("GET", "/config/audit")
        assert status == 200
        assert list(rows[0]) == ["datetime", "dn", "action", "config"]
        assert (rows[-1]["datetime"], rows[-1]["dn"], rows[-1]["action"]) == (
            "2023-11-14T22:13:20",
            "local",
            "set-globals",
        )
        assert rows[-1]["config"].startswith('*: {"old": null, "new": {')


# Defaults

GLOBAL = {
    "vo_name": "*",
    "retry": None,
    "max_time_queue": None,
    "global_timeout": None,
    "sec_per_mb": None,
    "no_streaming": None,
    "show_user_dn": None,
}


async def test_globals_are_set_key_by_key():
    async with running_service() as service:
        assert await service.call("GET", "/config/global") == (200, {"*": GLOBAL})
        assert await service.call("POST", "/config/global", {"retry": 3}) == (200, {"*": GLOBAL | {"retry": 3}})
        # FTS3 takes words for numbers and flags.
        body = {"vo_name": "atlas", "retry": "4", "sec_per_mb": "0.5", "no_streaming": "yes"}
        status, rows = await service.call("POST", "/config/global", body)
        assert status == 200
        atlas = GLOBAL | {"vo_name": "atlas", "retry": 4, "sec_per_mb": 0.5, "no_streaming": True}
        assert rows == {"*": GLOBAL | {"retry": 3}, "atlas": atlas}
        await service.call("POST", "/config/global", {"vo_name": "atlas", "retry": None})
        assert (await service.call("GET", "/config/global"))[1]["atlas"] == atlas | {"retry": None}
        assert await service.call("DELETE", "/config/global?vo_name=atlas") == (204, None)
        assert list((await service.call("GET", "/config/global"))[1]) == ["*"]
        assert await service.call("DELETE", "/config/global?vo_name=never") == (204, None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"reties": 1}, "Field reties unknown"),
        ({"retry": "many"}, "Field retry is expected to be a number"),
        ({"retry": -1}, "retry"),
        ({"retry": True}, "retry"),
        ({"retry": 1.5}, "retry"),
        ({"retry": 10**30}, "retry"),
        ({"retry": [1]}, "retry"),
        ({"max_time_queue": 1_000_000}, "max_time_queue"),
        ({"sec_per_mb": -0.1}, "sec_per_mb"),
        ({"no_streaming": "perhaps"}, "no_streaming"),
        ({"vo_name": 5}, "vo_name"),
        ({"vo_name": "a\nb"}, "vo_name"),
        ([], "Expecting a dictionary"),
        (b"{", "Badly formatted JSON request"),
        (b'{"sec_per_mb": NaN}', "sec_per_mb"),
        (b'{"sec_per_mb": 1e999}', "sec_per_mb"),
    ],
)
async def test_globals_that_make_no_sense_are_refused(body: Any, message: str):
    async with running_service() as service:
        await refused(service, "/config/global", body, message)
        assert await service.call("GET", "/config/global") == (200, {"*": GLOBAL})
        assert await audited(service) == []


async def test_whose_globals_are_dropped_must_be_said():
    async with running_service() as service:
        await refused(service, "/config/global", None, "Missing VO name", method="DELETE")


# Links

LINK = {
    "symbolicname": "a-b",
    "source": A,
    "destination": B,
    "min_active": 2,
    "max_active": 7,
    "optimizer_mode": None,
    "tcp_buffer_size": None,
    "nostreams": None,
    "no_delegation": None,
}


async def test_a_link_is_set_shown_changed_and_dropped():
    async with running_service() as service:
        assert await service.call("GET", "/config/links") == (200, [])
        body = {"symbolicname": "a-b", "source": A.upper() + "/", "destination": B, "max_active": "7"}
        assert await service.call("POST", "/config/links", body) == (201, LINK)
        assert await service.call("GET", "/config/links") == (200, [LINK])
        assert await service.call("GET", "/config/links/a-b") == (200, LINK)
        change = {"symbolicname": "a-b", "nostreams": 4, "max_active": 9}
        assert await service.call("POST", "/config/links", change) == (201, LINK | {"nostreams": 4, "max_active": 9})
        assert await service.call("DELETE", "/config/links/a-b") == (204, None)
        assert await service.call("DELETE", "/config/links/a-b") == (204, None)
        status, error = await service.call("GET", "/config/links/a-b")
        assert (status, error["message"]) == (404, "Link a-b does not exist")
        assert [entry[0] for entry in await audited(service)] == ["link-delete", "link", "link"]


async def test_a_link_without_ends_is_that_of_all():
    async with running_service() as service:
        _, link = await service.call("POST", "/config/links", {"symbolicname": "*"})
        assert (link["source"], link["destination"], link["min_active"], link["max_active"]) == ("*", "*", 2, 2)
        assert (await service.call("GET", "/config/links/*"))[1] == link


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbolicname": ""}, "Missing symbolicname"),
        ({"symbolicname": None}, "Missing symbolicname"),
        ({"symbolicname": ["x"]}, "symbolicname"),
        ({"source": ""}, "Missing source and/or destination"),
        ({"destination": None}, "Missing source and/or destination"),
        ({"source": "a.example"}, "expected scheme://host"),
        ({"source": "https://a.example:8443"}, "without its port"),
        ({"destination": "https://a.example/path"}, "without a path"),
        ({"max_active": "x"}, "Active must be an integer"),
        ({"min_active": 5, "max_active": 3}, "max_active is lower than min_active"),
        ({"max_active": -1}, "max_active"),
        ({"max_active": 10**9}, "max_active"),
        ({"nostreams": 17}, "nostreams"),
        ({"no_delegation": 3}, "no_delegation"),
        ({"speed": 3}, "Field speed unknown"),
    ],
)
async def test_links_that_make_no_sense_are_refused(change: dict[str, Any], message: str):
    async with running_service() as service:
        await refused(service, "/config/links", {"symbolicname": "x", "source": A, "destination": B} | change, message)
        assert await service.call("GET", "/config/links") == (200, [])


async def test_two_names_for_the_same_ends_are_refused():
    async with running_service() as service:
        body = {"source": A, "destination": B}
        await service.call("POST", "/config/links", body | {"symbolicname": "one"})
        await refused(service, "/config/links", body | {"symbolicname": "two"}, "configured as one")


# Shares

SHARE = {"source": A, "destination": B, "vo": "atlas", "share": 3}


async def test_shares_of_links():
    async with running_service() as service:
        assert await service.call("POST", "/config/shares", SHARE) == (200, 3)
        assert await service.call("POST", "/config/shares", SHARE | {"vo": "cms", "share": "0.5"}) == (200, 0.5)
        assert await service.call("GET", "/config/shares") == (200, [SHARE, SHARE | {"vo": "cms", "share": 0.5}])
        assert await service.call("POST", "/config/shares", SHARE | {"share": 4}) == (200, 4)
        dropped = f"/config/shares?source={A}&destination={B}&vo="
        assert await service.call("DELETE", dropped + "cms") == (204, None)
        assert await service.call("GET", "/config/shares") == (200, [SHARE | {"share": 4}])
        await refused(service, dropped, None, "Missing source, destination and/or vo", method="DELETE")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": "much"}, "Bad share value"),
        ({"share": None}, "Bad share value"),
        ({"share": True}, "Bad share value"),
        ({"share": 0}, "Missing source, destination, vo and/or share"),
        ({"share": -1}, "share"),
        ({"source": ""}, "Missing source, destination, vo and/or share"),
        ({"destination": "x"}, "expected scheme://host"),
        ({"vo": 3}, "vo"),
        ({"weight": 3}, "Field weight unknown"),
    ],
)
async def test_shares_that_make_no_sense_are_refused(change: dict[str, Any], message: str):
    async with running_service() as service:
        await refused(service, "/config/shares", SHARE | change, message)
        assert await service.call("GET", "/config/shares") == (200, [])


async def test_shares_of_activities():
    async with running_service() as service:
        body = {"vo": "atlas", "share": [{"User": 0.7}, {"Default": 0.3}]}
        answered = {"vo": "atlas", "activity_share": [{"User": 0.7}, {"Default": 0.3}], "active": True}
        assert await service.call("POST", "/config/activity_shares", body) == (200, answered)
        row = {"share": {"User": 0.7, "Default": 0.3}, "active": True}
        assert await service.call("GET", "/config/activity_shares") == (200, {"atlas": row})
        assert await service.call("GET", "/config/activity_shares/atlas") == (200, row)
        plain = {"vo": "atlas", "share": {"Default": 1}, "active": False}
        assert (await service.call("POST", "/config/activity_shares", plain))[0] == 200
        shown = {"share": {"Default": 1}, "active": False}
        assert await service.call("GET", "/config/activity_shares/atlas") == (200, shown)
        assert await service.call("DELETE", "/config/activity_shares/atlas") == (204, None)
        for method in ("GET", "DELETE"):
            status, error = await service.call(method, "/config/activity_shares/atlas")
            assert (status, error["message"]) == (404, "No activity shares for atlas")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"share": {"a": 1}}, "Missing VO"),
        ({"vo": "x"}, "Missing share"),
        ({"vo": "x", "share": []}, "Missing share"),
        ({"vo": "x", "share": ["a"]}, "share"),
        ({"vo": "x", "share": {"a": "1"}}, "Share weight must be a number"),
        ({"vo": "x", "share": {"a": True}}, "Share weight must be a number"),
        ({"vo": "x", "share": {"a": 0}}, "share"),
        ({"vo": "x", "share": {"a": 1}, "active": 3}, "active"),
        ({"vo": "x", "share": {"": 1}}, "share"),
        ({"vo": 7, "share": {"a": 1}}, "vo"),
    ],
)
async def test_shares_of_activities_that_make_no_sense_are_refused(body: Any, message: str):
    async with running_service() as service:
        await refused(service, "/config/activity_shares", body, message)


# Storages


async def test_storages_as_rucio_sets_them():
    async with running_service() as service:
        body = {A: {"operations": {}, "se_info": {"inbound_max_active": 10, "outbound_max_throughput": 1.5}}}
        status, answer = await service.call("POST", "/config/se", body)
        assert status == 200
        assert answer[0]["inbound_max_active"] == 10
        assert answer[1] is None
        more = {A: {"se_info": {"tpc_support": "PULL", "udt": 1, "ipv6": 0}, "operations": {"atlas": {"staging": "5"}}}}
        status, answer = await service.call("POST", "/config/se", more)
        assert answer[1] == {"atlas": {"staging": 5}}
        # No browser asks here, whatever it accepts.
        status, rows = await service.call("GET", "/config/se", headers={"Accept": "*/*"})
        assert status == 200
        info = rows[A]["se_info"]
        assert {
            key: info[key] for key in ("inbound_max_active", "outbound_max_throughput", "tpc_support", "udt", "ipv6")
        } == {
            "inbound_max_active": 10,
            "outbound_max_throughput": 1.5,
            "tpc_support": "PULL",
            "udt": True,
            "ipv6": False,
        }
        assert rows[A]["operations"] == {"atlas": {"staging": 5}}
        assert {"ipv6", "se_metadata", "site", "debug_level", "eviction"} <= set(info)
        await service.call("POST", "/config/se", {A: {"operations": {"atlas": {"staging": 0}}}})
        assert "operations" not in (await service.call("GET", f"/config/se?se={A}"))[1][A]
        assert await service.call("GET", f"/config/se?se={B}") == (200, {})
        assert await service.call("DELETE", f"/config/se?se={A}") == (204, None)
        assert await service.call("GET", "/config/se") == (200, {})
        await refused(service, "/config/se", None, "Missing storage (se)", method="DELETE")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Malformed configuration"),
        ({" ": {"se_info": {"udt": True}}}, "Malformed configuration"),
        ({A: []}, "Malformed configuration"),
        ({A: {"se_info": 3}}, "Malformed configuration"),
        ({A: {"info": {}}}, "Malformed configuration"),
        ({A: {"operations": {"atlas": 3}}}, "Malformed configuration"),
        ({A: {"operations": {"atlas": {"staging": "many"}}}}, "Malformed configuration"),
        ({A: {"operations": {"atlas": {"staging": True}}}}, "Malformed configuration"),
        ({A: {"operations": {"atlas": {"staging": 10**9}}}}, "concurrent"),
        ({A: {"se_info": {"tpc_support": "ALL"}}}, "tpc_support must be one of FULL, PULL, PUSH, NONE"),
        ({A: {"se_info": {"tpc_support": 3}}}, "tpc_support must be one of"),
        ({A: {"se_info": {"inbound_max_active": -5}}}, "inbound_max_active"),
        ({A: {"se_info": {"inbound_max_active": True}}}, "inbound_max_active"),
        ({A: {"se_info": {"inbound_max_active": "x"}}}, "Field inbound_max_active is expected to be a number"),
        ({A: {"se_info": {"speed": 1}}}, "Field speed unknown"),
        ({"a.example": {"se_info": {"udt": True}}}, "expected scheme://host"),
        ({A: {"se_info": {"udt": True}}, B: {"se_info": {"udt": "no way"}}}, "udt"),
    ],
)
async def test_storages_that_make_no_sense_are_refused_as_a_whole(body: Any, message: str):
    async with running_service() as service:
        await refused(service, "/config/se", body, message)
        assert await service.call("GET", "/config/se") == (200, {})
        assert await audited(service) == []


# Who may do what


async def test_authorizations():
    async with running_service() as service:
        row = {"dn": "/CN=me", "operation": "config"}
        for _ in range(2):
            assert await service.call("POST", "/config/authorize", row) == (200, row)
        await service.call("POST", "/config/authorize", row | {"operation": "admin"})
        await service.call("POST", "/config/authorize", row | {"dn": "/CN=her"})
        assert len((await service.call("GET", "/config/authorize"))[1]) == 3
        assert (await service.call("GET", "/config/authorize?dn=/CN=her"))[1] == [row | {"dn": "/CN=her"}]
        assert len((await service.call("GET", "/config/authorize?operation=config"))[1]) == 2
        assert [grant.role for grant in service.engine.tunables.grants_of("/CN=me")] == [Role.OPERATOR, Role.ADMIN]
        assert await service.call("DELETE", "/config/authorize?dn=/CN=me&operation=admin") == (204, None)
        assert [grant.role for grant in service.engine.tunables.grants_of("/CN=me")] == [Role.OPERATOR]
        assert await service.call("DELETE", "/config/authorize?dn=/CN=me") == (204, None)
        assert service.engine.tunables.grants_of("/CN=me") == ()
        await refused(service, "/config/authorize", None, "Missing DN parameter", method="DELETE")
        await refused(service, "/config/authorize", {"dn": "/CN=me"}, "Missing dn and/or operation")
        await refused(service, "/config/authorize", {"operation": "admin"}, "Missing dn and/or operation")
        await refused(service, "/config/authorize", {"dn": "/CN=me", "operation": "root"}, "operation")
        await refused(service, "/config/authorize", {"dn": 5, "operation": "admin"}, "dn")


async def test_clouds_are_refused_with_a_reason():
    async with running_service() as service:
        assert await service.call("GET", "/config/cloud_storage") == (200, [])
        await refused(service, "/config/cloud_storage", {"storage_name": "x"}, "keeps no such keys")
        for method, path in (
            ("GET", "x"),
            ("POST", "x"),
            ("DELETE", "x"),
            ("DELETE", "x/y"),
        ):
            body = {} if method == "POST" else None
            status, error = await service.call(method, f"/config/cloud_storage/{path}", body)
            assert (status, error["message"]) == (404, "The storage does not exist")


# Of one VO


def operator_of(vo: str) -> Caller:
    grants = (Grant(Role.VO_OPERATOR, vo),)
    return Caller(user_dn="/CN=op", vos=(vo,), delegation_id="a" * 16, method=CERTIFICATE, grants=grants)


async def test_an_operator_of_a_vo_sets_and_sees_what_is_the_vos():
    async with running_service(caller=operator_of("ska")) as service:
        tunables = service.engine.tunables
        await tunables.set_global({"vo_name": "cta", "retry": 3})
        await tunables.set_global({"retry": 1})
        for vo in ("cta", "ska"):
            await tunables.set_share({"source": A, "destination": B, "vo": vo, "share": 1})
        await tunables.set_activities({"vo": "cta", "share": {"x": 1}})
        await tunables.set_storages({A: {"udt": True}}, {A: {"cta": {"staging": 2}, "ska": {"staging": 3}}})
        for path, own, other in (
            ("/config/global", {"vo_name": "ska", "retry": 2}, {"vo_name": "cta", "retry": 2}),
            ("/config/global", {"vo_name": "ska", "retry": 2}, {"retry": 2}),
            ("/config/activity_shares", {"vo": "ska", "share": {"x": 1}}, {"vo": "cta", "share": {"x": 1}}),
            ("/config/se", {A: {"operations": {"ska": {"staging": 4}}}}, {A: {"operations": {"cta": {"staging": 1}}}}),
            ("/config/se", {A: {"operations": {"ska": {"staging": 4}}}}, {A: {"se_info": {"udt": False}}}),
        ):
            assert (await service.call("POST", path, own))[0] == 200
            assert (await service.call("POST", path, other))[0] == 403
        assert list((await service.call("GET", "/config/global"))[1]) == ["*", "ska"]
        assert [row["vo"] for row in (await service.call("GET", "/config/shares"))[1]] == ["ska"]
        assert list((await service.call("GET", "/config/activity_shares"))[1]) == ["ska"]
        assert (await service.call("GET", "/config/se"))[1][A]["operations"] == {"ska": {"staging": 4}}
        assert (await service.call("GET", "/config/activity_shares/cta"))[0] == 403
        assert (await service.call("DELETE", "/config/global?vo_name=*"))[0] == 403
        assert (await service.call("POST", "/config/links", {"symbolicname": "x"}))[0] == 403
        # A VO's share of a link is what the others do not get.
        assert (await service.call("POST", "/config/shares", SHARE | {"vo": "ska", "share": 99}))[0] == 403
        assert (await service.call("DELETE", f"/config/shares?source={A}&destination={B}&vo=ska"))[0] == 403
        assert {row.share for row in tunables.rows.shares} == {1}
        assert tunables.rows.globals["cta"].retry == 3
        assert tunables.rows.globals["*"].retry == 1
        assert {entry.user_dn for entry in await service.engine.store.audit(100)} == {"/CN=op"}
        assert len((await service.call("GET", "/config/audit"))[1]) == 5
