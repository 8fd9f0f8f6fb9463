"""`/delegation` as FTS3 answers it."""

from __future__ import annotations

import html
import json
import re
from typing import Any, Final

from transfer_engine.callers import Caller
from transfer_engine.errors import EngineError, Forbidden, NotFound
from transfer_engine.sealed import Delegated
from transfer_engine.service.wire.instance import DelegationObject
from transfer_engine.service.wire.words import Refused, timestamp

ENOUGH_S: Final = 3600
"""With less than this left a delegated credential is not enough to submit; FTS3's figure."""
N_COMMANDS_MAX: Final = 20

_CLIENT: Final = re.compile(r"fts-\S+/([0-9]{1,4})\.([0-9]{1,4})")
_EMPTY_SINCE: Final = (3, 12)


class NeedsDelegation(EngineError):
    """The caller has to delegate a credential first; clients do that and come back."""

    status = 419


class FailedDependency(EngineError):
    """Something that the service needs for it is not there."""

    status = 424


def not_own() -> Forbidden:
    """Of a delegation id that is not the caller's."""
    return Forbidden("The requested ID and the credentials ID do not match")


def not_found() -> NotFound:
    """There is no delegated credential."""
    return NotFound("Delegated credentials not found")


def certificate_required() -> Forbidden:
    """Of what only the user of a certificate can do."""
    return Forbidden("Certificate required")


def nothing_begun() -> Refused:
    """A certificate came and nobody has asked for its request."""
    return Refused("No credential cache found")


def too_short(stored: Delegated | None, caller: Caller, now: float) -> NeedsDelegation | None:
    """Why a delegated credential is not enough to submit; None: it is."""
    if stored is None:
        return NeedsDelegation(f'No delegation found for "{caller.user_dn}"')
    left_s = stored.expires_at - now
    if left_s <= 0:
        return NeedsDelegation(f"The delegated credentials expired {-left_s:.0f} seconds ago ({caller.delegation_id})")
    if left_s < ENOUGH_S:
        return NeedsDelegation(f"The delegated credentials has less than one hour left ({caller.delegation_id})")
    return None


def stored_object(stored: Delegated) -> DelegationObject:
    """What is left of a delegated credential."""
    return DelegationObject(termination_time=timestamp(stored.expires_at), voms_attrs=list(stored.attributes))


def absent(user_agent: str | None) -> list[Any] | None:
    """What is answered where there is no delegated credential: `[]` to FTS3's clients since 3.12, null to others."""
    client = _CLIENT.search(user_agent or "")
    return [] if client and (int(client[1]), int(client[2])) >= _EMPTY_SINCE else None


def parse_commands(body: bytes) -> list[str]:
    """`POST /delegation/<id>/voms`: a list like `["dteam", "dteam:/dteam/Role=lcgadmin"]`. Raises: Refused."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("Expecting a list of strings") from error
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value) or len(value) > N_COMMANDS_MAX:
        raise Refused("Expecting a list of strings")
    return value


def page(caller: Caller, stored: Delegated | None, now: float) -> str:
    """The page of `GET /delegation`."""
    if stored is None:
        state = "No credential is delegated."
    elif stored.expires_at <= now:
        state = f"The delegated credential has expired at {timestamp(stored.expires_at)} UTC."
    else:
        state = f"A delegated credential is here until {timestamp(stored.expires_at)} UTC."
    rows = {
        "Subject": caller.user_dn,
        "Attributes": ", ".join(caller.voms_cred) or "none",
        "VO": ", ".join(caller.vos),
        "Delegation id": caller.delegation_id,
    }
    table = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items())
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Delegation</title></head><body>'
        f"<h1>Delegation</h1><table>{table}</table><p>{state}</p>"
        "<p>A browser cannot delegate: run <code>fts-rest-delegate -s &lt;this service&gt;</code> with your proxy.</p>"
        "</body></html>\n"
    )
