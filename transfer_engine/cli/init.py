"""`init`: a commented settings file, made from the settings' own definitions so that it cannot drift."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from transfer_engine import config, config_service
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import put, stop

EXAMPLES = {
    "limits": (
        '# [limits.endpoints."https://storage.example.org"]',
        "# inbound = 20",
        "# outbound = 40",
        "# inbound_bytes_s = 1000000000",
        '# tpc = "pull"        # auto, full, pull, push or none',
        "#",
        "# [[limits.links]]",
        '# source = "https://storage.example.org"',
        '# destination = "https://other.example.org"',
        "# active = 10",
        "#",
        "# [[limits.vos]]",
        '# endpoint = "https://storage.example.org"',
        '# vo = "cta"',
        "# inbound = 10",
    ),
    "shares": (
        "# [shares.vos]",
        "# ska = 3",
        "# cta = 1",
        "#",
        "# [shares.activities.ska]",
        "# production = 2",
        "#",
        "# [[shares.links]]",
        '# destination = "https://storage.example.org"',
        "# [shares.links.vos]",
        "# ska = 1",
        "# public = 1",
    ),
    "auth": (
        "# [[auth.tokens]]         # `transfer-engine token create` prints one",
        '# name = "nightly-script"',
        '# sha256 = "0000000000000000000000000000000000000000000000000000000000000000"',
        '# vo = "ska"',
        '# role = "user"          # user, vo-monitor, vo-operator, operator or admin',
        "#",
        "# [[auth.issuers]]",
        '# issuer = "https://iam.example.org/"',
        '# audiences = ["https://fts.example.org:8446"]',
        '# vo = "ska"',
        "# ca = \"/etc/grid-security/certificates\"   # of the issuer's own certificate; unset: the system's",
        "# storage_only = true    # its tokens are for storages and do not open this service",
        "#",
        "# [[auth.roles]]",
        '# role = "operator"',
        '# dn = "/DC=org/DC=example/CN=Olga Operator"',
        "#",
        "# [auth.gridmap]",
        '# "/DC=org/DC=example/CN=robot" = "ska"',
    ),
    "messages": (
        "# [[messages.brokers]]",
        '# host = "broker.example.org"',
        "# port = 61613",
    ),
}
"""Tables that are empty by default, shown by example."""


def write(path: Path, *, force: bool) -> Exit:
    """Write the file; refuses to replace one."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text())
    except FileExistsError:
        stop(f"{path} exists; --force replaces it", Exit.REFUSED)
    except OSError as error:
        stop(f"{path} cannot be written: {error.strerror}", Exit.ERROR)
    put(f"wrote {path}; every line in it is a comment that shows the default")
    return Exit.OK


def text() -> str:
    """The file's text: every setting with its default, commented out."""
    notes = _notes()
    lines = [
        "# Settings of transfer-engine. Each line shows a default; remove the # to change it.",
        "# Environment variables win over this file: TRANSFER_ENGINE_ and the path,",
        "# TRANSFER_ENGINE_SERVICE__PORT=8446 for example. An unknown key is an error.",
        "",
    ]
    sections: list[tuple[str, type[BaseModel]]] = []
    for name, field in config.Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections.append((name, field.annotation))
        else:
            lines += _setting(name, field.default, notes["Settings"].get(name))
    for name, model in sections:
        lines += _section(name, model, notes)
        lines += EXAMPLES.get(name, ())
    return "\n".join(lines) + "\n"


def _section(name: str, model: type[BaseModel], notes: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """A table of settings, then the tables inside it."""
    yield from ("", f"# {inspect.getdoc(model)}", f"[{name}]")
    inside: list[tuple[str, type[BaseModel]]] = []
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            inside.append((f"{name}.{key}", type(default)))
        elif not isinstance(default, Mapping) and default != ():
            yield from _setting(key, default, notes[model.__name__].get(key))
    for key, below in inside:
        yield from _section(key, below, notes)


def _setting(name: str, default: Any, note: str | None) -> Iterator[str]:
    if note:
        yield from (f"# {line}" for line in note.splitlines())
    if default is None:
        yield f"# {name} ="
    else:
        yield f"# {name} = {_toml(default)}"


def _toml(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


def _notes() -> dict[str, dict[str, str]]:
    """Class → setting → the text below it in the source."""
    found: dict[str, dict[str, str]] = {}
    for node in (node for module in (config, config_service) for node in ast.parse(inspect.getsource(module)).body):
        if not isinstance(node, ast.ClassDef):
            continue
        notes = found.setdefault(node.name, {})
        for field, after in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                notes[field.target.id] = inspect.cleandoc(str(after.value.value))
    return found
