"""Tokens from a submission over https to copies between real XRootD that take tokens of the same issuer only."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.test_utils import TestServer

from tests.issuer import EXCHANGE, OidcIssuer, ec_key
from tests.storages.storage import Storage
from transfer_engine import TransferEngine
from transfer_engine.config import Settings
from transfer_engine.service.app import build_app
from transfer_engine.service.server import PARSING
from transfer_engine.wiring import door_of

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.asyncio]

DATA = bytes(range(256)) * 40
READ, WRITE = "storage.read:/", "storage.modify:/ storage.read:/"
TERMINAL = {"FINISHED", "FAILED", "FINISHEDDIRTY", "CANCELED"}


@dataclass
class Site:
    """An issuer, two storages that believe it, and a service that is its client."""

    issuer: OidcIssuer
    source: Storage
    destination: Storage
    engine: TransferEngine
    http: aiohttp.ClientSession
    url: str
    secrets: list[str]

    def token(self, storage: Storage, scope: str, **claims: Any) -> str:
        secret = self.issuer.token("rucio", **({"scope": scope, "aud": storage.https_url} | claims))
        self.secrets.append(secret)
        return secret

    def file(self, name: str, **claims: Any) -> dict[str, Any]:
        return {
            "sources": [self.source.put(name, DATA)],
            "destinations": [f"{self.destination.url}/{name}"],
            "source_tokens": [self.token(self.source, f"{READ} offline_access", **claims)],
            "destination_tokens": [self.token(self.destination, f"{WRITE} offline_access", **claims)],
        }

    async def submit(self, *files: dict[str, Any], bearer: str | None = None, **params: Any) -> tuple[int, Any]:
        bearer = bearer or self.token(self.source, "fts", aud="fts")
        body = {"files": list(files), "params": {"overwrite": True, "retry": -1, **params}}
        headers = {"Authorization": f"Bearer {bearer}"}
        async with self.http.post(f"{self.url}/jobs", json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def done(self, job_id: str) -> list[dict[str, Any]]:
        """The files of a job that has ended."""
        headers = {"Authorization": f"Bearer {self.token(self.source, 'fts', aud='fts')}"}
        await self.engine.wait(job_id)  # type: ignore[arg-type]
        async with self.http.get(f"{self.url}/jobs/{job_id}/files", headers=headers) as answer:
            found: list[dict[str, Any]] = await answer.json()
            return found

    def nearly_ended(self) -> dict[str, Any]:
        """Claims of a token that is good for two minutes more."""
        now = int(self.issuer.clock.now())
        return {"iat": now - 3480, "nbf": now - 3480, "exp": now + 120}


@asynccontextmanager
async def a_site(storages: Any, directory: Path, name: str) -> AsyncIterator[Site]:
    authority = trustme.CA()
    ca_file = directory / "issuer-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    issuer = OidcIssuer(keys=[ec_key()], rotates=True)
    async with issuer.running(authority):
        storages.authority.believe(f"{issuer.url}/", json.loads(issuer.key_set()))
        source, destination = (storages.another("xrootd-token", f"xrootd-token-{name}{n}") for n in range(2))
        known = {
            "issuer": issuer.url,
            "audiences": ["fts"],
            "vo": "dteam",
            "ca": ca_file,
            "client_id": "engine",
            "client_secret": "s3cret",
        }
        settings = Settings(
            auth={"issuers": [known]},  # type: ignore[arg-type]
            tls={"ca": storages.ca_file, "discover": False},  # type: ignore[arg-type]
        )
        async with TransferEngine(f"sqlite:///{directory / 't.db'}", settings=settings) as engine:
            door = door_of(settings, engine)
            server = TestServer(build_app(engine, settings.service, door))
            await server.start_server(**PARSING)
            try:
                async with aiohttp.ClientSession() as http:
                    url = str(server.make_url("")).rstrip("/")
                    yield Site(issuer, source, destination, engine, http, url, [])
            finally:
                await server.close()
                await door.authenticator.aclose()


def everything(directory: Path) -> bytes:
    """What is in its files."""
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def test_from_a_submission_to_a_copy_with_renewed_tokens(
    storages: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with asyncio.timeout(50), a_site(storages, tmp_path, "c") as site:
        fresh = site.file("fresh")
        ending = [site.file(f"ending/{n}", **site.nearly_ended()) for n in range(20)]
        status, answer = await site.submit(fresh)
        assert status == 200, answer
        (file,) = await site.done(answer["job_id"])
        assert file["file_state"] == "FINISHED", file["reason"]
        assert len(file["src_token_id"]) == len(file["dst_token_id"]) == 16
        assert site.issuer.calls["/token"] == 0, "a token that holds is used as it is"

        status, answer = await site.submit(*ending)
        assert status == 200, answer
        files = await site.done(answer["job_id"])
        assert [file["file_state"] for file in files] == ["FINISHED"] * 20, files[0]["reason"]
        assert site.issuer.calls[EXCHANGE] == 2, "20 files, one request for each side"
        assert all(site.destination.read(f"ending/{n}") == DATA for n in range(20))
        asked = {(form["audience"], *sorted(form["scope"].split())) for form in site.issuer.forms}
        assert asked == {
            (site.source.https_url, "offline_access", "storage.read:/"),
            (site.destination.https_url, "offline_access", "storage.modify:/", "storage.read:/"),
        }
        site.secrets += site.issuer.refreshes
    assert not [secret for secret in site.secrets if secret in caplog.text]
    kept = everything(tmp_path)
    assert not [secret for secret in site.secrets if secret.encode() in kept]


async def test_tokens_that_are_not_good_are_refused_or_fail_with_the_storages_word(
    storages: Any, tmp_path: Path
) -> None:
    async with asyncio.timeout(50), a_site(storages, tmp_path, "d") as site:
        forged = site.file("forged")
        head, body, _ = forged["source_tokens"][0].split(".")
        _, _, signature = forged["destination_tokens"][0].split(".")
        forged["source_tokens"] = [f"{head}.{body}.{signature}"]
        status, answer = await site.submit(forged)
        assert status == 400
        assert answer["message"].endswith("files[0]: a token is not good: the token's signature is wrong")

        blind = site.file("blind")
        blind["source_tokens"] = [site.token(site.source, "storage.read:/elsewhere")]
        wrong = site.file("audience", aud="https://elsewhere.example")
        status, answer = await site.submit(blind, wrong)
        assert status == 200, answer
        for file in await site.done(answer["job_id"]):
            assert file["file_state"] == "FAILED"
            assert file["reason"].startswith("SOURCE [13]"), file["reason"]
        assert site.destination.names() == []


async def test_the_bearers_own_token_is_used_where_files_bring_none(storages: Any, tmp_path: Path) -> None:
    async with asyncio.timeout(50), a_site(storages, tmp_path, "e") as site:
        plain = {"sources": [site.source.put("f", DATA)], "destinations": [f"{site.destination.url}/f"]}
        both = ["fts", site.source.https_url, site.destination.https_url]
        bearer = site.token(site.source, f"fts {WRITE}", aud=both)
        status, answer = await site.submit(plain, bearer=bearer)
        assert status == 200, answer
        (file,) = await site.done(answer["job_id"])
        assert file["file_state"] == "FINISHED", file["reason"]
        assert file["src_token_id"] == file["dst_token_id"]
        status, answer = await site.submit(plain)
        assert status == 200, answer
        (file,) = await site.done(answer["job_id"])
        assert file["file_state"] == "FAILED", "the service has no credential of its own"
        assert file["src_token_id"] is None
