"""A real Rucio over https: by the robot's certificate and its delegated proxy, and by tokens of an issuer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients import tool
from tests.clients.fixtures import clients
from tests.clients.lake import Front, running_lake
from tests.conftest import LazyStorages
from tests.issuer import OidcIssuer

__all__ = ["clients"]

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(120)]

VO = "escape"
TLS = """
[service.tls]
certificate = "{host.certificate}"
key = "{host.key_file}"
client_ca = "{grid.bundle}"
"""
ROBOT = """
[auth.gridmap]
"{robot.dn}" = "{vo}"
[[auth.roles]]
role = "operator"
dn = "{robot.dn}"
"""
ISSUER = """
[[auth.issuers]]
issuer = "{issuer.url}"
audiences = ["127.0.0.1"]
scopes = ["fts"]
vo = "{vo}"
client_id = "engine"
client_secret = "{secret}"
"""


async def test_a_rule_by_a_certificate_and_its_proxy(clients: None, tmp_path: Path, storages: LazyStorages):
    grid = storages.grid
    robot, host = grid.user("alice"), grid.host("localhost")
    settings = (TLS + ROBOT).format(host=host, grid=grid, robot=robot, vo=VO)
    front = Front(settings=settings, ca=grid.bundle, user=robot, nodes="xrootd-x509")
    more = {"conveyor": {"usercert": robot.file}}
    async with running_lake(tmp_path, storages, front=front, more=more) as lake:
        # As deployments do from cron: Rucio itself never delegates.
        options = ["--cert", robot.certificate, "--key", robot.key_file, "--capath", grid.cert_dir]
        ran = await tool("fts-rest-delegate", "-s", lake.service.url, *map(str, options), home=tmp_path)
        assert ran.status == 0, ran.text
        _, data = await lake.place("by-proxy")
        rule_id = await lake.rucio.call("add_rule", "by-proxy", "RSE2|RSE3", 2)
        await lake.rule(rule_id, "OK")
        for rse in ("RSE2", "RSE3"):
            assert lake.storages[rse].read(await lake.path(rse, "by-proxy")) == data
        (job,) = await lake.ended_jobs()
        assert (job["user_dn"], job["vo_name"], job["job_metadata"]["auth_method"]) == (robot.dn, VO, "certificate")


async def test_without_a_delegation_rucio_tries_again_later(clients: None, tmp_path: Path, storages: LazyStorages):
    grid = storages.grid
    robot, host = grid.user("alice"), grid.host("localhost")
    settings = (TLS + ROBOT).format(host=host, grid=grid, robot=robot, vo=VO)
    front = Front(settings=settings, ca=grid.bundle, user=robot, nodes="xrootd-x509")
    more = {"conveyor": {"usercert": robot.file, "use_deterministic_id": False}}
    async with running_lake(tmp_path, storages, front=front, more=more) as lake:
        await lake.place("early")
        rule_id = await lake.rucio.call("add_rule", "early", "RSE2", 1)
        await lake.rucio.call("submit")
        (request,) = (await lake.rucio.call("look", rule_id))["requests"]
        assert request["state"] == "SUBMISSION_FAILED"
        assert "No delegation found for" in lake.rucio.log()


async def test_a_rule_by_tokens(clients: None, tmp_path: Path, storages: LazyStorages):
    grid = storages.grid
    robot, host = grid.user("alice"), grid.host("localhost")
    issuer = OidcIssuer(clients={"rucio": "s3cret", "engine": "s3cret"})
    async with issuer.running():
        settings = (TLS + ROBOT + ISSUER).format(
            host=host, grid=grid, robot=robot, vo=VO, issuer=issuer, secret="s3cret"
        )
        (tmp_path / "idp.json").write_text(
            json.dumps({"admin": {"issuer": issuer.url + "/", "client_id": "rucio", "client_secret": "s3cret"}})
        )
        more = {
            "oidc": {"idpsecrets": tmp_path / "idp.json", "admin_issuer": "admin"},
            "conveyor": {"poller_oidc_support": True},
        }
        front = Front(settings=settings, ca=grid.bundle, user=robot)
        async with running_lake(tmp_path, storages, front=front, more=more) as lake:
            for rse in lake.storages:
                await lake.rucio.call("set_attribute", rse, "oidc_support", True)
            _, data = await lake.place("by-token")
            rule_id = await lake.rucio.call("add_rule", "by-token", "RSE2|RSE3", 2)
            await lake.rule(rule_id, "OK")
            for rse in ("RSE2", "RSE3"):
                assert lake.storages[rse].read(await lake.path(rse, "by-token")) == data
            jobs = await lake.ended_jobs()
            assert {(job["user_dn"], job["vo_name"]) for job in jobs} == {("rucio", VO)}
            assert {job["job_metadata"]["auth_method"] for job in jobs} == {"oauth2"}
            # One for the service, and one for each of the three storages.
            assert issuer.calls["client_credentials"] >= 4
