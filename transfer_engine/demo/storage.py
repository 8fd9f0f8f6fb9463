"""A model storage: WebDAV and HTTP-TPC on a loopback address, with real bytes and true checksums.

What it takes, gives and copies really travels over sockets; what it did is in its journal. It
speaks like one of the families in `kinds`, and goes wrong as `faults` has it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

import aiohttp
from aiohttp import web

from protocols.checksum import Checksum
from transfer_engine.demo.content import Budget, SeededContent
from transfer_engine.demo.copying import copy
from transfer_engine.demo.faults import Fault, FaultPlan, Faults
from transfer_engine.demo.journal import Journal
from transfer_engine.demo.kinds import BEHAVIOURS, Kind
from transfer_engine.demo.namespace import Namespace, clean_path
from transfer_engine.demo.plain import HANDLERS
from transfer_engine.demo.site import Ask, Site
from transfer_engine.demo.stream import Pace

MEMORY_MAX_BYTES: Final = 256 * 1024 * 1024
"""Uploaded bytes that one storage keeps in memory; more go to a temporary directory."""

SILENCE_S: Final = 60.0
"""XRootD gives up on a source after 60 s without a byte."""

SHUTDOWN_S: Final = 0.1
"""How long requests may go on when the storage stops, before they are cancelled."""


class ModelStorage:
    """One storage; start it in the event loop that is to serve it.

    Args:
        name: for messages and the seed of chance.
        kind: family to imitate.
        seed: chance and file contents follow from it.
        host: loopback address to listen on; engines tell endpoints apart by it.
        bandwidth_bytes_s: for everything that comes in or goes out, together; None: unlimited.
        latency_s: before each request is looked at.
        silence_s: how long a copy waits for the passive party's next byte before it fails.
        creates_parents: whether PUT and COPY make missing directories; None: as the family does.
        journal_file: gets each entry of the journal at once, one JSON line each.
        expose_journal: serve `/.journal` and `/.files` as JSON.

    Raises: ValueError: for a host that is not a loopback address.
    """

    def __init__(  # noqa: PLR0913 - a model is its knobs
        self,
        *,
        name: str,
        kind: Kind | str = Kind.XROOTD,
        seed: int = 0,
        faults: Faults | None = None,
        host: str = "127.0.0.1",
        bandwidth_bytes_s: float | None = None,
        latency_s: float = 0.0,
        marker_period_s: float = 5.0,
        silence_s: float = SILENCE_S,
        creates_parents: bool | None = None,
        memory_max_bytes: int = MEMORY_MAX_BYTES,
        journal_file: Path | None = None,
        expose_journal: bool = False,
    ) -> None:
        if not ip_address(host).is_loopback:
            msg = f"a model storage listens on loopback only, not on {host}"
            raise ValueError(msg)
        self.name = name
        self.host = host
        self._kind = Kind(kind)
        self._seed = seed
        self._faults = faults or Faults()
        self._bandwidth_bytes_s = bandwidth_bytes_s
        self._latency_s = latency_s
        self._marker_period_s = marker_period_s
        self._silence_s = silence_s
        behaviour = BEHAVIOURS[self._kind]
        self._creates_parents = behaviour.creates_parents if creates_parents is None else creates_parents
        self._expose_journal = expose_journal
        self._budget = Budget(memory_max_bytes=memory_max_bytes)
        self.journal = Journal(now=_loop_time, path=journal_file)
        self._namespace = Namespace(journal=self.journal, budget=self._budget)
        self._site: Site | None = None
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._n_requests = 0

    @property
    def url(self) -> str:
        """`http://HOST:PORT`, without a slash at the end; RuntimeError before `start`."""
        if not self._port:
            msg = f"storage {self.name} was not started"
            raise RuntimeError(msg)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self._port}"

    @property
    def faults(self) -> Faults:
        """What goes wrong here; set it to change that and to begin counting anew."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        if self._site is not None:
            self._site.plan = self._plan()

    @property
    def struck(self) -> Counter[tuple[Fault, str]]:
        """(fault, path) → requests that went wrong on purpose, since `faults` was set; empty once stopped."""
        return Counter(self._site.plan.struck) if self._site is not None else Counter()

    @property
    def n_copies(self) -> int:
        """Copies under way, also those whose client has gone."""
        return len(self._site.tasks) if self._site else 0

    def add_file(self, path: str, size_bytes: int, seed: int | None = None) -> Checksum:
        """Place a file whose bytes follow from `seed` (None: the storage's), with its directories; its adler32.

        It is not an event: the journal says only what requests did.
        """
        content = SeededContent(size_bytes=size_bytes, seed=self._seed if seed is None else seed)
        self._namespace.put(clean_path(path), content)
        return content.checksum("adler32")

    def read_file(self, path: str) -> bytes | None:
        """The bytes of a file, complete or not; None when there is none."""
        stored = self._namespace.file(clean_path(path))
        return None if stored is None else stored.content.read(0, stored.content.size_bytes)

    def release(self, path: str) -> None:
        """Give back the room of a file that nobody will read; `files()` still knows its size and checksum."""
        stored = self._namespace.file(clean_path(path))
        if stored is not None and stored.complete:
            stored.content.close()

    def files(self) -> dict[str, tuple[int, str]]:
        """{path: (size in bytes, adler32)} of everything that is there, partial files included."""
        return self._namespace.files()

    def partial_files(self) -> list[str]:
        """Paths of the files that are incomplete, sorted."""
        return self._namespace.partial()

    async def start(self, port: int = 0) -> str:
        """Listen; returns the URL. OSError when the port is taken."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=self._silence_s)
        session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0), trust_env=False)
        self._site = Site(
            name=self.name,
            kind=self._kind,
            behaviour=BEHAVIOURS[self._kind],
            creates_parents=self._creates_parents,
            marker_period_s=self._marker_period_s,
            namespace=self._namespace,
            journal=self.journal,
            plan=self._plan(),
            pace=Pace(self._bandwidth_bytes_s),
            session=session,
        )
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, self.host, port, backlog=1024).start()
        except BaseException:
            await self.stop()
            raise
        self._port = self._runner.addresses[0][1]
        return self.url

    async def stop(self) -> None:
        """End every request and copy, free port, memory and disk; `files()` and the journal stay readable."""
        site, self._site = self._site, None
        if site is not None:
            tasks = set(site.tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if site is not None:
            await site.session.close()
        self.journal.close()
        self._namespace.close()
        self._budget.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    def _plan(self) -> FaultPlan:
        return FaultPlan(self._faults, seed=f"{self._seed} {self.name}")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """One request: latency, then faults that come before everything, then its method."""
        site = self._site
        if site is None:
            return web.Response(status=503)
        if self._expose_journal and request.path in {"/.journal", "/.files"}:
            return self._oracle(request.path)
        self._n_requests += 1
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        handler = copy if request.method == "COPY" else HANDLERS.get(request.method)
        if handler is None:
            return web.Response(status=405)
        try:
            path = clean_path(request.path)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        fault = site.plan.decide(request.method, path)
        if fault is Fault.UNAVAILABLE:
            wait_s = site.plan.faults.retry_after_s
            headers = {} if wait_s is None else {"Retry-After": f"{wait_s:g}"}
            return web.Response(status=503, headers=headers, text="failure: overloaded\n")
        if fault is Fault.REFUSE:
            return web.Response(status=403, text="failure: permission denied\n")
        info = request.headers.get("ClientInfo", "")
        name = f"{request.method.lower()}-{self._n_requests}" + (f" {info}" if info else "")
        return await handler(Ask(site=site, request=request, path=path, name=name, fault=fault))

    def _oracle(self, path: str) -> web.Response:
        """What only tests may ask."""
        if path == "/.files":
            return web.json_response(self.files())
        return web.json_response([dataclasses.asdict(entry) for entry in self.journal.entries])


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
