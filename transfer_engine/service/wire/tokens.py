"""The tokens of a submission's files: FTS3's checks in FTS3's words, and those that it does not make.

FTS3 looks at the claims alone. Here a token that has ended is refused as well, and one that is no JWT at
all. What a token may do at a storage is the storage's to decide: scopes refuse no submission, as groups and
capability sets give rights that no scope shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from protocols.credentials import TOKEN_MAX, Secret
from protocols.errors import printable
from transfer_engine.callers import CERTIFICATE, LOCAL_TOKEN, LOOPBACK, TOKEN, Caller
from transfer_engine.config_service import Issuer
from transfer_engine.identity.api import BadCredential
from transfer_engine.identity.jwt import Unverified, take_apart
from transfer_engine.model import JobRequest, Transfer
from transfer_engine.service.wire.documents import FileDocument, ParamsDocument
from transfer_engine.service.wire.words import Refused, timestamp, value_error

CLAIMS: Final = ("iss", "nbf", "exp", "scope", "aud")
"""What every token must have; `aud` may be null."""
TAPE: Final = "Requests to archive to tape using token authentication are not supported"
_FOR_STORAGES: Final = ("storage.", "wlcg.capabilityset:")
"""Scopes with which a bearer's own token is good for storages as well."""
_SHOWN_MAX: Final = 200
LENT: Final = frozenset({LOOPBACK, LOCAL_TOKEN})
"""Ways to be known with which the service lends its own credential, unless the settings say otherwise."""
INSTANT_MAX: Final = 1e11
"""In the year 5138."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What tokens are taken.

    Attributes:
        issuers: whose tokens.
        now: instant that they must outlive.
        lent: ways to be known with which jobs without credentials are done with the service's own.
    """

    issuers: Sequence[Issuer]
    now: float
    lent: frozenset[str] = LENT


@dataclass(slots=True)
class _Checked:
    """Tokens that have been looked at; many files have the same."""

    rules: TokenRules
    good: dict[str, Secret] = field(default_factory=dict)

    def secret(self, text: str, place: str) -> Secret:
        found = self.good.get(text)
        if found is None:
            _check(text, self.rules, place)
            found = self.good[text] = Secret(text)
        return found


def attach(
    request: JobRequest, files: Sequence[FileDocument], params: ParamsDocument, caller: Caller, rules: TokenRules
) -> JobRequest:
    """The request with the tokens of its files, and with whose credentials storages are shown.

    Without any, a bearer's own token is used for both storages if a scope of it is for storages. A job that
    was submitted with a certificate uses what its user delegates. All others use the service's own credential
    where their callers may (`rules.lent`), else none: what the service may do is not what its users may do.

    Args:   files: the documents that `request.transfers` were made from.
    Raises: Refused.
    """
    checked = _Checked(rules)
    own = _own_token(caller)
    transfers = tuple(
        [_with_tokens(*pair, own, checked) for pair in zip(request.transfers, files, range(len(files)), strict=True)]
    )
    return replace(
        request,
        transfers=transfers,
        options=replace(
            request.options,
            own_credential=caller.method == CERTIFICATE,
            no_credential=caller.method != CERTIFICATE and caller.method not in rules.lent,
        ),
        unmanaged_tokens=bool(params.get("unmanaged_tokens")),
    )


def refuse_tape(files: Sequence[FileDocument], params: ParamsDocument, caller: Caller) -> None:
    """Raises: Refused: tokens and an archive do not go together, in FTS3's words."""
    tokens = caller.method == TOKEN or any(file.get("source_tokens") for file in files)
    if tokens and (params.get("archive_timeout") or 0) > 0:
        raise Refused(TAPE, field="params.archive_timeout")


def _own_token(caller: Caller) -> Secret | None:
    if caller.method != TOKEN or not isinstance(caller.token, Secret):
        return None
    return caller.token if any(scope.startswith(_FOR_STORAGES) for scope in caller.voms_cred) else None


def _with_tokens(transfer: Transfer, file: FileDocument, index: int, own: Secret | None, checked: _Checked) -> Transfer:
    sources, destinations = file.get("source_tokens"), file.get("destination_tokens")
    if not sources and not destinations:
        if own is None:
            return transfer
        return replace(transfer, source_tokens=(own,) * len(transfer.sources), destination_token=own)
    if not (sources and destinations):
        raise Refused("Both source_tokens and destination_tokens are required if one of them is present.")
    if len(sources) != len(transfer.sources):
        raise Refused("Length of source_tokens should be equal to the length of sources.")
    if len(destinations) != 1:
        raise Refused("Length of destination_tokens should be equal to the length of destinations.")
    where = f"files[{index}]"
    return replace(
        transfer,
        source_tokens=tuple(checked.secret(token, f"{where}.source_tokens[{n}]") for n, token in enumerate(sources)),
        destination_token=checked.secret(destinations[0], f"{where}.destination_tokens[0]"),
    )


def _check(text: str, rules: TokenRules, place: str) -> None:
    if len(text) > TOKEN_MAX:
        raise value_error(f"{place}: a token has at most {TOKEN_MAX} characters, got {len(text)}", field=place)
    try:
        token = take_apart(text)
    except BadCredential as refused:
        raise value_error(f"{place}: {refused.why}", field=place) from None
    _check_claims(token, place)
    issuer = str(token.claims["iss"])
    if not any(known.issuer.removesuffix("/") == issuer.removesuffix("/") for known in rules.issuers):
        shown = printable(issuer.removesuffix("/"), _SHOWN_MAX)
        raise Refused(f"FTS access-token has unknown issuer: issuer={shown}/", field=place)
    ends_at = float(token.claims["exp"])
    if ends_at <= rules.now:
        raise value_error(f"{place}: the token has expired at {timestamp(ends_at)}", field=place)


def _is_instant(value: object) -> bool:
    """Of numbers: is it a time that a calendar has? Anything else is."""
    return not isinstance(value, int | float) or 0 <= value < INSTANT_MAX


def _check_claims(token: Unverified, place: str) -> None:
    claims = token.claims
    for name in CLAIMS:
        if name not in claims or (claims[name] is None and name != "aud"):
            article = "a" if name == "scope" else "an"
            raise Refused(f"Token does not contain {article} {name} claim", field=place)
    for name, kind, what in (
        ("iss", str, "a URL"),
        ("nbf", int | float, "an instant"),
        ("exp", int | float, "an instant"),
        ("scope", str | list, "words with blanks between them"),
        ("aud", str | list | None, "a name or a list of names"),
    ):
        value: Any = claims[name]
        if isinstance(value, bool) or not isinstance(value, kind) or not _is_instant(value):
            raise value_error(f"{place}: expected the token's {name} to be {what}", field=place)
