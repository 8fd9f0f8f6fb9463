"""`token create`: a local token, shown once, and what the settings are to know of it."""

from __future__ import annotations

import datetime as dt
import json
import secrets
from enum import StrEnum
from typing import Annotated

import typer

from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import Stop

app = typer.Typer(help="Local tokens, for a small site or a script.", no_args_is_help=True)


class TokenRole(StrEnum):
    """What its bearer is."""

    USER = "user"
    VO_MONITOR = "vo-monitor"
    VO_OPERATOR = "vo-operator"
    OPERATOR = "operator"
    ADMIN = "admin"


@app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="Who or what it is for; shown as the owner of its jobs.")],
    vo: Annotated[str, typer.Option("--vo", help="VO of its jobs.")] = "local",
    role: Annotated[TokenRole, typer.Option("--role", help="What its bearer may do.")] = TokenRole.USER,
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=3650, help="It ends after this many days; else it does not.")
    ] = None,
) -> None:
    """Make a token: it is shown now and never again; the settings get its digest only."""
    from transfer_engine.clock import SystemClock
    from transfer_engine.config_service import LocalToken
    from transfer_engine.identity import local_tokens

    token = local_tokens.make(secrets.token_bytes(local_tokens.RANDOM_BYTES))
    values = {"name": name, "sha256": local_tokens.digest(token), "vo": vo, "role": role.value}
    if days is not None:
        today = dt.datetime.fromtimestamp(SystemClock().now(), dt.UTC).date()
        values["expires"] = (today + dt.timedelta(days=days)).isoformat()
    try:
        LocalToken.model_validate(values)
    except ValueError:
        raise Stop(
            "expected a name and a VO of 1 to 255 characters, without blanks around them, and no / in front", Exit.USAGE
        ) from None
    if not (name.isprintable() and vo.isprintable()):
        raise Stop("expected a name and a VO that can be shown", Exit.USAGE)
    typer.echo("# The token. Nobody can show it again:", err=True)
    typer.echo(token.reveal())
    typer.echo("\n# For the settings file:", err=True)
    # A basic string of TOML is a string of JSON, but for what is not printable.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    typer.echo("\n".join(["[[auth.tokens]]", *lines]))
