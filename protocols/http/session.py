"""Connections: one pool per TLS identity, contexts rebuilt when their files change.

No cookies, no decompression, no proxies, no redirects of aiohttp's own: what goes where is decided
in `protocols.http.wire`, where secrets are weighed.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from protocols.credentials import Credential, Secret
from protocols.errors import Denied, Phase, Scope
from protocols.http.addresses import AddressForbidden, AddressPolicy, parsed

IDENTITIES_MAX: Final = 512
IDLE_S: Final = 3600.0
"""After so long without use a pool is closed: the private key of its certificate is forgotten with it."""
KEEPALIVE_S: Final = 15.0
LINGER_S: Final = 0.05
"""How long a connection of its own stays open after its answer."""
CA_CHECK_S: Final = 60.0
"""How often the CA's modification time is looked at; CRL and CA updates take effect within this."""
HEADER_MAX: Final = 16 * 1024

_Key = tuple[str, str, float, float, float]


@dataclass(slots=True, eq=False)
class Pool:
    """The connections of one identity."""

    session: aiohttp.ClientSession
    context: ssl.SSLContext
    used_at_s: float = 0.0
    """Loop time when it was last asked for."""
    n_users: int = 0
    retired: bool = field(default=False)


class Sessions:
    """Pools by TLS identity: CA, certificate, key, and their age; or a digest of what is in memory."""

    def __init__(
        self,
        *,
        user_agent: str,
        ca: Path | None = None,
        verify_tls: bool = True,
        limit: int = 0,
        address_allowed: AddressPolicy | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            ca: bundle or hashed directory; None: the system's.
            limit: connections per pool; 0: no limit, as each running COPY holds one.
        """
        self._user_agent = user_agent
        self._ca = ca
        self._verify_tls = verify_tls
        self._limit = limit
        self._address_allowed = address_allowed
        self._pools: OrderedDict[_Key, Pool] = OrderedDict()
        self._ca_changed_at = 0.0
        self._ca_checked_s: float | None = None
        self._making = asyncio.Lock()
        self._lingering: deque[tuple[float, aiohttp.ClientSession]] = deque()

    async def acquire(self, credential: Credential) -> Pool:
        """The pool for a credential; every acquire needs its `release`. Denied when its files cannot be used."""
        key = self._key(credential)
        pool = self._pools.get(key)
        if pool is None:
            async with self._making:
                pool = self._pools.get(key)
                if pool is None:
                    pool = await self._make(credential)
                    # A renewed proxy or CA directory makes the pools of its older versions useless.
                    for old in [k for k in self._pools if k[:2] == key[:2]]:
                        await self._retire(self._pools.pop(old))
                    self._pools[key] = pool
                    await self._retire_idle()
        self._pools.move_to_end(key)
        pool.used_at_s = asyncio.get_running_loop().time()
        pool.n_users += 1
        if len(self._pools) > IDENTITIES_MAX:
            await self._retire(self._pools.popitem(last=False)[1])
        return pool

    async def release(self, pool: Pool) -> None:
        """Give a pool back; one that has been replaced is closed with its last user."""
        pool.n_users -= 1
        if pool.retired and not pool.n_users:
            await pool.session.close()

    def alone(self, pool: Pool) -> aiohttp.ClientSession:
        """A session for one request, whose connection nobody else uses; it is to be given to `linger`."""
        return self._session(pool.context)

    async def linger(self, session: aiohttp.ClientSession) -> None:
        """Close a session of `alone`, but not before `LINGER_S` from now."""
        now = asyncio.get_running_loop().time()
        self._lingering.append((now + LINGER_S, session))
        while self._lingering and self._lingering[0][0] <= now:
            await self._lingering.popleft()[1].close()

    async def aclose(self) -> None:
        """Close everything, running requests included."""
        while self._lingering:
            await self._lingering.popleft()[1].close()
        pools = list(self._pools.values())
        self._pools.clear()
        for pool in pools:
            await pool.session.close()

    async def _retire_idle(self) -> None:
        long_ago_s = asyncio.get_running_loop().time() - IDLE_S
        for key, pool in list(self._pools.items()):
            if pool.n_users == 0 and pool.used_at_s and pool.used_at_s < long_ago_s:
                await self._retire(self._pools.pop(key))

    @staticmethod
    async def _retire(pool: Pool) -> None:
        """Close it now, or with its last user."""
        pool.retired = True
        if not pool.n_users:
            await pool.session.close()

    def _key(self, credential: Credential) -> _Key:
        ca_at = self._ca_at()
        if credential.pem is not None:
            return (f"sha256:{hashlib.sha256(credential.pem.reveal().encode()).hexdigest()}", "", 0.0, 0.0, ca_at)
        if credential.certificate is None:
            return ("", "", 0.0, 0.0, ca_at)
        try:
            changed_at = credential.certificate.stat().st_mtime
            key_at = credential.key.stat().st_mtime if credential.key else 0.0
        except OSError as failure:
            raise _unusable(credential, failure) from None
        return (str(credential.certificate), str(credential.key or ""), changed_at, key_at, ca_at)

    def _ca_at(self) -> float:
        if self._ca is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        if self._ca_checked_s is None or now - self._ca_checked_s > CA_CHECK_S:
            self._ca_checked_s = now
            try:
                self._ca_changed_at = self._ca.stat().st_mtime
            except OSError:
                # An update replaces the directory: the old context serves until the new one is there.
                return self._ca_changed_at
        return self._ca_changed_at

    async def _make(self, credential: Credential) -> Pool:
        try:
            # Reading a bundle of CAs takes some 10 ms: not in the event loop.
            context = await asyncio.to_thread(tls_context, credential, self._ca, verify=self._verify_tls)
        except (OSError, ValueError) as failure:
            raise _unusable(credential, failure) from None
        return Pool(self._session(context), context)

    def _session(self, context: ssl.SSLContext) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._limit,
            ssl=context,
            keepalive_timeout=KEEPALIVE_S,
            socket_factory=self._socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity", "Accept": "*/*"},
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            max_field_size=HEADER_MAX,
            skip_auto_headers=("Content-Type",),
        )

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if self._address_allowed is not None and not self._address_allowed(parsed(str(address[0]))):
            raise AddressForbidden
        made = socket.socket(family=family, type=kind, proto=protocol)
        _keep_alive(made)
        return made


def _keep_alive(made: socket.socket) -> None:
    """Notice a peer that vanished behind a NAT within two minutes, also on silent connections."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def tls_context(credential: Credential, ca: Path | None, *, verify: bool = True) -> ssl.SSLContext:
    """A client context that trusts `ca` and shows the credential's certificate; OSError, ValueError when it cannot.

    Args:
        ca: bundle file, or directory with hashed names; None: the system's.
    """
    if ca is None:
        context = ssl.create_default_context()
    elif ca.is_dir():
        context = ssl.create_default_context(capath=str(ca))
    else:
        context = ssl.create_default_context(cafile=str(ca))
    # Grid CAs predate the strict profile of RFC 5280 that Python 3.13 asks for.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if credential.pem is not None:
        with _in_memory(credential.pem) as name:
            context.load_cert_chain(name, password=_no_password)
    elif credential.certificate is not None:
        key = None if credential.key is None else str(credential.key)
        context.load_cert_chain(str(credential.certificate), key, password=_no_password)
    return context


def _no_password() -> str:
    # Without it OpenSSL would ask on the terminal, and the engine would hang.
    msg = "the private key is encrypted"
    raise ValueError(msg)


@contextmanager
def _in_memory(pem: Secret) -> Iterator[str]:
    """A file name for a secret that is on no disk and has no name anybody else can use: OpenSSL reads files only.

    The whole file is one chain: the certificate, its key, and every certificate above it up to the CA. An RFC 3820
    proxy cannot be verified without the user's certificate that signed it, so the chain is sent whole.
    """
    descriptor = _nameless()
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(pem.reveal().encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _nameless() -> int:
    try:
        return os.memfd_create("credential", os.MFD_CLOEXEC)
    except OSError as failure:
        if failure.errno not in {errno.ENOSYS, errno.EPERM}:
            raise
    # Where a sandbox forbids memfd_create: a file without a name in the file system that is memory.
    return os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)  # noqa: S108 - it is never named


def _unusable(credential: Credential, failure: Exception) -> Denied:
    what = "the delegated proxy" if credential.pem is not None else credential.certificate or "the CA certificates"
    reason = getattr(failure, "strerror", None) or str(failure)
    return Denied(
        f"cannot use {what}: {reason}",
        scope=Scope.AGENT,
        phase=Phase.PREPARATION,
        hint="renew the proxy or correct the paths of certificate, key and CA",
    )
