"""The settings file that `init` writes says what the settings are."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel

from transfer_engine.cli import init
from transfer_engine.cli.exits import Exit
from transfer_engine.cli.output import Stop
from transfer_engine.config import Settings, load

UNSHOWN = {
    ("auth", "shared_vos"),
    ("tls", "credential_hosts"),
    ("transfer", "storage_networks"),
    ("service.reverse_proxy", "peers"),
}
"""Lists that are empty by default and simple to write."""
SETTING = re.compile(r"^# (\w+ = .+)$", re.MULTILINE)


def test_every_setting_is_in_it():
    text = init.text()
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            check_section(text, name, kind)
        else:
            assert re.search(rf"^# {name} =", text, re.MULTILINE), name


def check_section(text: str, name: str, kind: type[BaseModel]) -> None:
    section = text.partition(f"\n[{name}]\n")[2].partition("\n\n")[0]
    assert section, name
    for key, part in kind.model_fields.items():
        default = part.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            check_section(text, f"{name}.{key}", type(default))
        elif (isinstance(default, Mapping) or default == ()) and (name, key) not in UNSHOWN:
            examples = "\n".join(init.EXAMPLES[name])
            assert f"{name}.{key}" in examples, (name, key)
        elif not isinstance(default, Mapping) and default != ():
            assert re.search(rf"^# {key} =", section, re.MULTILINE), (name, key)


def test_as_written_it_changes_nothing(tmp_path: Path):
    path = tmp_path / "te.toml"
    assert init.write(path, force=False) is Exit.OK
    assert load(path) == Settings()


def test_each_line_shows_the_default():
    """With every mark of a comment removed it is TOML, and still means the defaults."""
    text, examples = init.text(), {line for lines in init.EXAMPLES.values() for line in lines}
    lines = [line for line in text.splitlines() if line not in examples]
    values = tomllib.loads(SETTING.sub(r"\1", "\n".join(lines)))
    assert Settings(**values) == Settings()
    assert values["service"]["port"] == Settings().service.port


def test_the_examples_are_right(tmp_path: Path):
    uncommented = [line.removeprefix("#").strip() for lines in init.EXAMPLES.values() for line in lines]
    (tmp_path / "te.toml").write_text("\n".join(uncommented))
    settings = load(tmp_path / "te.toml")
    assert settings.limits.links
    assert settings.shares.activities


def test_a_file_is_not_replaced_by_accident(tmp_path: Path):
    path = tmp_path / "te.toml"
    path.write_text("mine")
    with pytest.raises(Stop, match="--force") as caught:
        init.write(path, force=False)
    assert caught.value.code is Exit.REFUSED
    assert path.read_text() == "mine"
    assert init.write(path, force=True) is Exit.OK
    with pytest.raises(Stop, match="cannot be written"):
        init.write(tmp_path / "missing" / "te.toml", force=False)
