"""Real XRootD with tokens of an OpenID Connect issuer: each transfer shows its own, and only where it is good for."""

from __future__ import annotations

import json

import pytest

from protocols.api import CopyRequest, Credential, Mode
from protocols.credentials import Secret
from protocols.errors import Denied
from tests.contract.wire import BRIEF, DATA, ignore
from tests.issuer import OidcIssuer

pytestmark = [pytest.mark.real, pytest.mark.asyncio]


async def test_tokens_of_an_issuer_that_is_believed(storages, adapter):
    issuer, stranger = OidcIssuer(), OidcIssuer()
    async with issuer.running(), stranger.running():
        storages.authority.believe(issuer.url + "/", json.loads(issuer.key_set()))
        source, destination = (storages.another("xrootd-token", f"xrootd-issuer-{n}") for n in "ab")

        def shown(scope: str, *, of: OidcIssuer = issuer, **changes: object) -> Credential:
            return Credential(token=Secret(of.token(scope=scope, **changes)))

        def copy(one: Credential, other: Credential) -> CopyRequest:
            return CopyRequest(
                source_url=source.put("in/f.bin", DATA),
                destination_url=f"{destination.url}/out/f.bin",
                mode=Mode.PULL,
                source_credential=one,
                destination_credential=other,
                overwrite=True,
                timeouts=BRIEF,
            )

        read, write = shown("storage.read:/in"), shown("storage.modify:/out storage.read:/out")
        await adapter.make_parents(f"{destination.url}/out/f.bin", credential=write, timeouts=BRIEF)
        await adapter.copy(copy(read, write), ignore)
        assert destination.read("out/f.bin") == DATA
        wrong = [
            (shown("storage.read:/elsewhere"), write),
            (read, read),
            (write, write),
            (shown("storage.read:/in", aud="https://other.example"), write),
            (shown("storage.read:/in", exp=1), write),
            (shown("storage.read:/in", of=stranger), write),
            (read, shown("storage.modify:/out", of=stranger)),
        ]
        for one, other in wrong:
            with pytest.raises(Denied):
                await adapter.copy(copy(one, other), ignore)
