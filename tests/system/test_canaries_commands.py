"""The commands say no secret either, whatever is wrong with what they were given."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.canaries.world import World, running_world
from tests.grid import key_pem
from tests.storages.process import free_port
from tests.system.processes import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(120)]

AT_A_TIME = 3
WITHIN_S = 8.0


@dataclass(frozen=True)
class Ran:
    """What a command said."""

    arguments: tuple[str, ...]
    status: int
    said: bytes


async def run(world: World, *arguments: str, environ: Mapping[str, str]) -> Ran:
    """One command in a process of its own, with nothing of this environment's but what it needs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "transfer_engine.cli.main", *arguments),
        cwd=world.directory,
        env={"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(world.grid.bundle), **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    reading = asyncio.create_task(process.stdout.read())
    try:
        async with asyncio.timeout(WITHIN_S):
            await process.wait()
    except TimeoutError:
        # A service that notices only when it needs the thing.
        process.terminate()
        await process.wait()
    said = await reading
    assert process.returncode is not None
    return Ran(arguments, process.returncode, said)


async def run_all(world: World, commands: Iterable[tuple[list[str], dict[str, str]]]) -> list[Ran]:
    """Several of them, a few at a time."""
    limit = asyncio.Semaphore(AT_A_TIME)

    async def limited(arguments: list[str], environ: dict[str, str]) -> Ran:
        async with limit:
            return await run(world, *arguments, environ=environ)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(limited(*command)) for command in commands]
    return [task.result() for task in tasks]


def check(world: World, ran: Iterable[Ran]) -> None:
    """Raises AssertionError: one of them has said a secret."""
    for one in ran:
        assert one.said or one.status == 0, f"{one.arguments} said nothing"
        assert b"Traceback" not in one.said, one.said.decode()
        leaks = world.cage.search("said", one.said)
        assert not leaks, f"{one.arguments}: {leaks}"


def storage_url(world: World, path: str) -> str:
    secret = world.cage.lay("authz in an argument", but=["said"] if path.startswith("/there") else [])
    return f"{world.storage.url}{path}?authz=Bearer%20{secret}"


async def test_commands_of_a_user_and_of_an_operator(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        service = ServiceProcess(world.database, world.config, free_port(set()), ca=world.grid.bundle)
        world.url = service.url.replace("127.0.0.1", "localhost")
        good = {"TRANSFER_ENGINE_TOKEN": world.local.reveal(), "TRANSFER_ENGINE_SERVICE_URL": world.url}
        async with service:
            await service.start()
            submitted = await run(
                world, "submit", storage_url(world, "/there/f"), f"{world.storage.url}/403/f", environ=good
            )
            assert submitted.status == 0, submitted.said
            job_id = submitted.said.decode().split()[-1]
            ended = await run(world, "wait", "--timeout", "30", job_id, environ=good)
            assert ended.status != 0
            of_job = [["status", job_id], ["status", "--json", job_id], ["explain", job_id], ["hold", job_id],
                      ["resume", job_id], ["cancel", job_id]]  # fmt: skip
            others = [["list"], ["bans"], ["ban", "https://localhost"], ["unban", "https://localhost"], ["drain"],
                      ["explain"]]  # fmt: skip
            said = await run_all(world, [(arguments, good) for arguments in (*of_job, *others)])
            said += await run_all(world, [(["list"], wrong) for wrong in wrong_identities(world)])
            password = quote(world.cage.lay("password of a service's URL"))
            url = world.url.replace("https://", f"https://user:{password}@")
            said.append(await run(world, "list", "--service", url.replace("localhost", "127.0.0.1:1"), environ=good))
            await service.terminate()
        check(world, [submitted, ended, *said])
        assert not world.cage.search("log", service.log)


def wrong_identities(world: World) -> list[dict[str, str]]:
    """Environments with secrets that are none, or not for this."""
    service = {"TRANSFER_ENGINE_SERVICE_URL": world.url}
    key = key_pem(world.alice.key).decode()
    (odd := world.directory / "odd").write_bytes(b"\xff" + world.cage.lay("odd token file").encode())
    (long := world.directory / "long").write_text(world.cage.lay("long token file") * 1000)
    tokens = [world.local.reveal()[:-3], world.bearer("of another service", aud="x"), key, key.splitlines()[1] + "ü"]
    return [
        *({**service, "TRANSFER_ENGINE_TOKEN": token} for token in tokens),
        {**service, "TRANSFER_ENGINE_TOKEN_FILE": str(odd)},
        {**service, "BEARER_TOKEN_FILE": str(long)},
        {**service, "BEARER_TOKEN": world.cage.lay("no token")},
        {**service, "X509_USER_PROXY": str(world.alice.key_file)},
        {"TRANSFER_ENGINE_SERVICE_URL": "http://h.example:1", "TRANSFER_ENGINE_TOKEN": world.local.reveal()},
    ]


async def test_copies_without_a_service(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        (file := tmp_path / "bearer").write_text(world.cage.lay("token of a user") + "\n")
        there, here = f"{world.storage.url}/there/f", f"file://{tmp_path}/copy"
        trouble = [f"{world.storage.url}/{place}/f" for place in ("401", "403", "500", "copy", "copy403")]
        pairs = [*((there, to) for to in trouble), *((source, here) for source in trouble[:3]), (there, here)]
        flags = ["cp", "--token-file", str(file), "--retries", "0"]
        commands = [([*flags, *pair, *more], dict[str, str]()) for pair in pairs for more in ([], ["--json"])]
        said = await run_all(world, commands[:-2])
        assert all(one.status != 0 for one in said)
        assert sum(b"You sent" in one.said for one in said) > 8
        check(world, [*said, *await run_all(world, commands[-1:])])


def broken(world: World) -> list[tuple[str, dict[str, str]]]:
    """(settings, environment) with which a service cannot start."""
    cage, good = world.cage, world.config.read_text()
    digest = good.split('sha256 = "')[1][:64]
    secret_line = next(line for line in good.splitlines() if line.startswith("client_secret"))
    secret = secret_line.partition('"')[2].rstrip('"')
    token = world.local.reveal()
    key = world.directory / "bad.key"
    key.touch(mode=0o600)
    key.write_text(cage.lay("bad vault key"))
    password = cage.lay("password of a database")
    return [
        (good.replace(digest, token), {}),
        (good.replace(secret_line, f"client_secret = {secret}"), {}),
        (good.replace(secret_line, f'client_secret = ["{secret}"]'), {}),
        (good.replace(secret_line, f'client_sekret = "{secret}"'), {}),
        (good.replace(secret_line, f'{secret_line}\nclient_secret_file = "/{secret}'), {}),
        (good + f'\n[auth]\nx = "{token}"', {}),
        (good.replace("[messages]", f'[messages]\ntls = "{secret}"'), {}),
        (good.replace("[vault]", "[vault]\n#").replace(str(world.directory / "vault.key"), str(key)), {}),
        (good, {"TRANSFER_ENGINE_VAULT__KEY": cage.lay("vault key of the environment")}),
        (good, {"TRANSFER_ENGINE_MESSAGES": '{"password": "' + cage.lay("password of the environment")}),
        (good, {"TRANSFER_ENGINE_AUTH__TOKENS": f'[{{"name": "x", "sha256": "{token}"}}]'}),
        (f'database = "postgresql://fts:{password}@db.example/fts"\n{good}', {}),
        (good.replace("token_file =", f'certificate = "{world.alice.certificate}"\ntoken_file ='), {}),
        (good.replace(str(world.directory / "token"), str(world.directory)), {}),
    ]


async def test_a_service_that_does_not_start(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        commands = []
        for number, (settings, environ) in enumerate(broken(world)):
            path = tmp_path / f"broken{number}.toml"
            path.write_text(settings)
            database = [] if "postgresql" in settings else ["--database", f"sqlite:///{tmp_path}/{number}.sqlite"]
            commands.append((["serve", "-v", "--port", "0", "--config", str(path), *database], environ))
        said = await run_all(world, commands)
        assert sum(one.status != 0 for one in said) > 10
        check(world, said)
