"""The handlers of `/delegation`: a user's proxy gets here without its key ever travelling.

The service makes a key and gives out a request; the client signs it with what it has and sends the certificate back
(GridSite's delegation as FTS3 has it over REST). Keys are sealed before they are stored.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from aiohttp import web

from protocols.credentials import Secret
from transfer_engine.callers import CERTIFICATE, LOOPBACK, Caller
from transfer_engine.clock import Clock
from transfer_engine.credentials.proxies import about_proxy
from transfer_engine.errors import Conflict
from transfer_engine.guarded import Gate
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.x509.delegation import (
    UPLOAD_MAX,
    Accepted,
    BadProxy,
    accept,
    key_bits,
    make_request,
    request_bits,
)
from transfer_engine.sealed import Delegated, Delegation
from transfer_engine.service.boundary import BODY_S, answer, caller_of
from transfer_engine.service.wire import delegation as wire
from transfer_engine.service.wire.instance import delegation_object
from transfer_engine.vault import Vault, VaultError, about

if TYPE_CHECKING:
    from transfer_engine.identity.x509.users import GridCertificates
    from transfer_engine.store.api import Store

NO_VOMS: Final = (
    "this service does not ask VOMS servers for attributes: delegate a proxy that has them "
    "(voms-proxy-init -voms ..., then fts-rest-delegate)"
)
_KEY: Final = re.compile(r"-----BEGIN (?:RSA )?PRIVATE KEY-----.+?-----END (?:RSA )?PRIVATE KEY-----\n?", re.DOTALL)

log = logging.getLogger(__name__)


class Delegations:
    """Everything about the delegated credentials of callers.

    Args:
        vault: what keys and proxies are sealed with.
        certificates: checks that a proxy's user has a certificate that is believed; None: the front has done so.
    """

    def __init__(
        self,
        *,
        store: Store,
        vault: Callable[[], Vault],
        clock: Clock,
        gate: Gate,
        certificates: GridCertificates | None = None,
    ) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._gate = gate
        self._certificates = certificates
        # One at a time: making a key takes a processor's time, and two clients of one user get the same request.
        self._making = asyncio.Lock()

    async def check(self, caller: Caller) -> None:
        """May the caller submit, as far as delegation is concerned? Users of tokens need none.

        Raises: NeedsDelegation: there is no delegated credential, or less than an hour of it.
        """
        if caller.method != CERTIFICATE:
            return
        trouble = wire.too_short(await self._stored(caller), caller, self._clock.now())
        if trouble is not None:
            raise trouble

    async def show(self, request: web.Request) -> web.Response:
        """What is left of the caller's delegated credential."""
        caller = self._own(request, certificate=False)
        if caller.method == LOOPBACK:
            # The service needs nothing of a caller on this machine: clients are told that there is enough.
            return answer(delegation_object(caller, self._clock.now()))
        stored = await self._stored(caller)
        if stored is None:
            return answer(wire.absent(request.headers.get("User-Agent")))
        return answer(wire.stored_object(stored))

    async def drop(self, request: web.Request) -> web.Response:
        """Forget the caller's delegated credential."""
        caller = self._own(request)
        if await self._stored(caller) is None or not await self._store.drop_credential(caller.delegation_id):
            raise wire.not_found()
        await self._gate.of(caller).audit("delegation-drop", caller.delegation_id)
        return web.Response(status=204)

    async def request(self, request: web.Request) -> web.Response:
        """The certificate request that the caller is to sign: the same one until it is used."""
        caller = self._own(request)
        bits = key_bits(caller.certificate)
        async with self._making:
            begun = await self._store.delegation(caller.delegation_id)
            if begun is None or request_bits(begun.request) != bits or self._open_begun(begun) is None:
                begun = await self._begin(caller, bits)
        return web.Response(
            text=begun.request, content_type="text/plain", headers={"X-Delegation-ID": begun.delegation_id}
        )

    async def credential(self, request: web.Request) -> web.Response:
        """Take the certificate that the caller has signed, with the chain it was signed with."""
        caller = self._own(request)
        accepted = await self._accepted(caller, await _upload(request))
        before = await self._store.credential(caller.delegation_id)
        if before is not None and before.user_dn != caller.user_dn:
            # The id is made of subject and attributes by FTS3's rule, which two users could share by design.
            raise Conflict("another user's credential has this delegation id")
        await self._store.put_credential(
            Delegated(
                delegation_id=caller.delegation_id,
                user_dn=caller.user_dn,
                vo=caller.vo,
                attributes=caller.voms_cred,
                expires_at=accepted.expires_at,
                since=self._clock.now(),
                sealed=self._vault().seal(accepted.pem.reveal().encode("ascii"), about_proxy(caller.delegation_id)),
            )
        )
        log.info(
            "a user has delegated a credential",
            extra={"event": "delegated", "user_dn": caller.user_dn, "expires_at": accepted.expires_at},
        )
        await self._gate.of(caller).audit("delegate", caller.delegation_id, {"expires_at": accepted.expires_at})
        return web.Response(status=201)

    async def voms(self, request: web.Request) -> web.Response:
        """Refuse to add VOMS attributes to the delegated credential, and say what to do instead."""
        caller = self._own(request)
        wire.parse_commands(await _upload(request))
        stored = await self._stored(caller)
        if stored is None:
            raise wire.not_found()
        raise wire.FailedDependency(NO_VOMS)

    async def page(self, request: web.Request) -> web.Response:
        """What is delegated, for a browser."""
        caller = caller_of(request)
        if caller.method != CERTIFICATE:
            raise wire.certificate_required()
        text = wire.page(caller, await self._stored(caller), self._clock.now())
        return web.Response(
            text=text, content_type="text/html", headers={"Content-Security-Policy": "default-src 'none'"}
        )

    async def certificate(self, request: web.Request) -> web.Response:
        """`/whoami/certificate`: the certificates that the caller has shown."""
        caller = caller_of(request)
        if caller.method != CERTIFICATE or caller.certificate is None:
            raise wire.certificate_required()
        return web.Response(text=caller.certificate, content_type="application/x-pem-file")

    @staticmethod
    def _own(request: web.Request, *, certificate: bool = True) -> Caller:
        """The caller, whose delegation id the path has. Raises: Forbidden."""
        caller = caller_of(request)
        if certificate and caller.method != CERTIFICATE:
            raise wire.certificate_required()
        if request.match_info["delegation_id"] != caller.delegation_id:
            raise wire.not_own()
        return caller

    async def _stored(self, caller: Caller) -> Delegated | None:
        stored = await self._store.credential(caller.delegation_id)
        return stored if stored is not None and stored.user_dn == caller.user_dn else None

    async def _begin(self, caller: Caller, bits: int) -> Delegation:
        made = await asyncio.to_thread(make_request, bits)
        sealed = self._vault().seal(made.key.reveal().encode("ascii"), _about_key(caller.delegation_id))
        begun = Delegation(delegation_id=caller.delegation_id, request=made.pem, since=self._clock.now(), sealed=sealed)
        await self._store.put_delegation(begun)
        return begun

    async def _accepted(self, caller: Caller, upload: bytes) -> Accepted:
        """The proxy, if it belongs to the request that was given out last, or to the one before.

        A client whose answer was lost sends its certificate again; two clients may have signed the same request.
        """
        keys = await self._keys(caller)
        if not keys:
            raise wire.nothing_begun()
        now = self._clock.now()
        failure: BadProxy | None = None
        for key in keys:
            try:
                accepted = accept(upload, key, user_dn=caller.user_dn, now=now)
                if self._certificates is not None:
                    self._certificates.check_chain(accepted.chain, now)
            except BadProxy as error:
                failure = failure or error
            except BadCredential as error:
                raise BadProxy(error.why) from error
            else:
                return accepted
        assert failure is not None
        raise failure

    async def _keys(self, caller: Caller) -> list[Secret]:
        begun = await self._store.delegation(caller.delegation_id)
        keys = [] if begun is None else [self._open_begun(begun)]
        stored = await self._stored(caller)
        if stored is not None:
            keys.append(self._open_stored(stored))
        return [key for key in keys if key is not None]

    def _open_begun(self, begun: Delegation) -> Secret | None:
        """Its key; None: it was sealed with a key that is not here any more."""
        try:
            return Secret(self._vault().open(begun.sealed, _about_key(begun.delegation_id)).decode("ascii"))
        except VaultError as error:
            log.warning("a delegation begins anew", extra={"event": "delegation-lost", "why": str(error)})
            return None

    def _open_stored(self, stored: Delegated) -> Secret | None:
        try:
            pem = self._vault().open(stored.sealed, about_proxy(stored.delegation_id)).decode("ascii")
        except VaultError:
            return None
        found = _KEY.search(pem)
        return None if found is None else Secret(found[0])


def _about_key(delegation_id: str) -> str:
    return about("delegation", delegation_id)


async def _upload(request: web.Request) -> bytes:
    """The body, whatever its type: clients send none. Raises: HTTPException: compressed, too large, too slow."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise web.HTTPUnsupportedMediaType
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.content.iter_any():
                body += part
                if len(body) > UPLOAD_MAX:
                    raise web.HTTPRequestEntityTooLarge(max_size=UPLOAD_MAX, actual_size=len(body))
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise BadProxy("Malformed proxy") from error
    return bytes(body)
