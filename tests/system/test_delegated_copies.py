"""A whole engine that copies with its users' proxies between real XRootD that lets in certificates only."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from tests.grid import Identity
from transfer_engine import JobId, JobOptions, JobRequest, JobState, Transfer, TransferEngine
from transfer_engine.config import RetrySettings, Settings, TlsSettings
from transfer_engine.credentials.proxies import about_proxy
from transfer_engine.sealed import Delegated

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.asyncio]

N_FILES = 100
DATA = bytes(range(256)) * 40
USERS_OWN = JobOptions(own_credential=True)


async def delegate(engine: TransferEngine, user: Identity, delegation_id: str) -> None:
    """As the job service does when a delegation ends."""
    sealed = engine.vault().seal(user.pem, about_proxy(delegation_id))
    await engine._store.put_credential(
        Delegated(
            delegation_id=delegation_id,
            user_dn=user.dn,
            vo="local",
            attributes=(),
            expires_at=user.cert.not_valid_after_utc.timestamp(),
            since=user.cert.not_valid_before_utc.timestamp(),
            sealed=sealed,
        )
    )


def everything(directory: Path) -> bytes:
    """What is in its files."""
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def test_each_user_copies_with_the_own_proxy(storages, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source, destination = storages["xrootd-x509-a"], storages["xrootd-x509-b"]
    alice, bob = (storages.grid.proxy(storages.grid.user(name)) for name in ("alice", "bob"))
    database = tmp_path / "transfers.db"
    settings = Settings(tls=TlsSettings(ca=storages.ca_file), retry=RetrySettings(retries_max=0))

    async with TransferEngine(f"sqlite:///{database}", settings=settings) as engine:

        async def submit(names: list[str], cred_id: str) -> JobId:
            transfers = [
                Transfer.of(source.put(f"many/{name}", DATA), f"{destination.url}/{cred_id}/{name}") for name in names
            ]
            return await engine.submit(JobRequest(transfers=tuple(transfers), cred_id=cred_id, options=USERS_OWN))

        await delegate(engine, alice, "alice")
        await delegate(engine, bob, "bob")
        async with asyncio.timeout(50):
            jobs = [await submit([f"f{n}" for n in range(N_FILES)], "alice"), await submit(["f0"], "bob")]
            jobs.append(await submit(["f0"], "carol"))
            ends = [(await engine.wait(job_id)).state for job_id in jobs]
            assert ends == [JobState.FINISHED, JobState.FAILED, JobState.FAILED]
            reasons = [(await engine.files(job_id))[0].reason for job_id in jobs[1:]]
            assert reasons[1] is not None
            assert "no delegated proxy" in reasons[1]
    assert all(destination.read(f"alice/f{n}") == DATA for n in range(N_FILES))
    assert not [name for name in destination.names() if name.startswith(("bob/", "carol/"))]
    for storage in (source, destination):
        assert storage.running()
    kept = everything(tmp_path)
    lines = [line for user in (alice, bob) for line in user.pem.splitlines() if not line.startswith(b"-----")]
    assert lines
    told = caplog.text + "".join(str(reason) for reason in reasons)
    for line in lines:
        assert line not in kept
        assert line.decode() not in told
