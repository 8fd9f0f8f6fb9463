"""The rows of `/delegation`, and of the caller's certificate, in the table of routes."""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter

from transfer_engine.callers import Need
from transfer_engine.service.delegation import Delegations
from transfer_engine.service.route import NOTHING, TEXT, JsonType, Route
from transfer_engine.service.wire.instance import DelegationObject

OWN: Final = "somebody else's id, or the caller has shown no certificate"
LEFT: Final[JsonType] = TypeAdapter(DelegationObject | list[Any] | None)
COMMANDS: Final[JsonType] = TypeAdapter(list[str])
PATH: Final = "/delegation/{delegation_id}"


def delegation_routes(delegations: Delegations) -> list[Route]:
    """All of them."""
    return [
        Route(
            name="certificate",
            method="GET",
            path="/whoami/certificate",
            needs=Need.USER,
            summary="The certificates that the caller has shown, in PEM",
            handler=delegations.certificate,
            answers=TEXT,
            media="application/x-pem-file",
            statuses={403: "the caller has shown no certificate"},
        ),
        Route(
            name="delegationPage",
            method="GET",
            path="/delegation",
            needs=Need.USER,
            summary="What the caller has delegated, as a page",
            handler=delegations.page,
            answers=TEXT,
            media="text/html",
            statuses={403: "the caller has shown no certificate"},
        ),
        Route(
            name="delegation",
            method="GET",
            path=PATH,
            needs=Need.USER,
            summary="What is left of the caller's delegated credential; null or [] when there is none",
            handler=delegations.show,
            answers=LEFT,
            statuses={403: "somebody else's id"},
        ),
        Route(
            name="dropDelegation",
            method="DELETE",
            path=PATH,
            needs=Need.USER,
            summary="Forget the caller's delegated credential",
            handler=delegations.drop,
            answers=NOTHING,
            success=204,
            statuses={403: OWN, 404: "there is none"},
        ),
        Route(
            name="delegationRequest",
            method="GET",
            path=f"{PATH}/request",
            needs=Need.USER,
            summary="The certificate request to be signed, in PEM; the same until it is used",
            handler=delegations.request,
            answers=TEXT,
            media="text/plain",
            statuses={403: OWN},
        ),
        *(_credential(delegations, method) for method in ("PUT", "POST")),
        Route(
            name="delegationVoms",
            method="POST",
            path=f"{PATH}/voms",
            needs=Need.USER,
            summary="Asks for VOMS attributes, which this service does not fetch",
            handler=delegations.voms,
            answers=NOTHING,
            body=COMMANDS,
            statuses={
                400: "no list of strings",
                403: OWN,
                404: "nothing is delegated",
                408: "the body comes too slowly",
                413: "more than 64 KiB",
                415: "a compressed body",
                424: "always, when the request is right",
            },
        ),
    ]


def _credential(delegations: Delegations, method: str) -> Route:
    return Route(
        name="putCredential" if method == "PUT" else "postCredential",
        method=method,
        path=f"{PATH}/credential",
        needs=Need.USER,
        summary="The signed proxy certificate, in PEM, followed by the chain it was signed with",
        handler=delegations.credential,
        answers=NOTHING,
        success=201,
        statuses={
            400: "it is not accepted; says why",
            403: OWN,
            408: "the body comes too slowly",
            409: "another user has this delegation id",
            413: "more than 64 KiB",
            415: "a compressed body",
        },
    )
