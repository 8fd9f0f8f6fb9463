"""Programs in the clients' venv: a worker that takes calls, and command-line tools."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-clients"
PROGRAMS = Path(__file__).parent / "programs"
ANSWER_S = 120.0
LINE_MAX = 64 * 1024 * 1024


def missing() -> str | None:
    """Why the clients cannot run here, or None."""
    return None if (VENV / ".installed").exists() else "no .venv-clients: scripts/setup --dev makes it"


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a client that must not find anybody's own settings, certificates or proxies."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("X509_", "RUCIO_", "PYTHON"))}
    return {**kept, "HOME": str(home), "PYTHONWARNINGS": "ignore", **(more or {})}


class ClientFailed(Exception):
    """The client raised: `kinds` are the names of the exception's classes, the most special first."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['kinds'][0]}: {error['text']}\n{error['trace']}")
        self.kinds: list[str] = error["kinds"]
        self.kind = self.kinds[0]
        self.text: str = error["text"]


@dataclass
class Worker:
    """One program of `programs` as a process that lives for a while and takes calls one after the other."""

    program: str
    home: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    _process: asyncio.subprocess.Process | None = None
    _log: IO[bytes] | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __aenter__(self) -> Self:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __aexit__
        self._process = await asyncio.create_subprocess_exec(
            *(str(VENV / "bin" / "python"), str(PROGRAMS / f"{self.program}.py")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env=environment(self.home, self.environ),
            cwd=self.home,
            limit=LINE_MAX,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._log is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._log.close()

    def log(self) -> str:
        """What it wrote to standard error so far."""
        assert self._log is not None
        # A position of its own: the process writes through the same open file.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """The result of one call. Raises: ClientFailed: the client raised."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn, asyncio.timeout(ANSWER_S):
            self._process.stdin.write(json.dumps({"name": name, "args": args, "kwargs": kwargs}).encode() + b"\n")
            line = await self._process.stdout.readline()
        assert line, f"{self.program} ended:\n{self.log()[-4000:]}"
        answer = json.loads(line)
        if "error" in answer:
            raise ClientFailed(answer["error"])
        return answer["result"]


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both outputs: the fts3 tools log their answers, each on the stream of its level."""
        return self.out + self.err


async def tool(name: str, *args: str, home: Path, environ: Mapping[str, str] | None = None) -> Ran:
    """Run a command-line tool of the clients' venv."""
    process = await asyncio.create_subprocess_exec(
        *(str(VENV / "bin" / "python"), str(VENV / "bin" / name), *args),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(home, environ),
        cwd=home,
    )
    try:
        async with asyncio.timeout(ANSWER_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())
