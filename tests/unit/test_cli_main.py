"""The commands as typed: options, help, mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from transfer_engine.cli.exits import Exit
from transfer_engine.cli.main import app, main

COMMANDS = ("cp", "serve", "submit", "status", "list", "wait", "cancel", "demo", "init")


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the whole command."""
    monkeypatch.setattr(sys, "argv", ["transfer-engine", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    code = caught.value.code
    return int(code or 0)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str):
    result = CliRunner().invoke(app, [command, "--help"] if command else ["--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    if not command:
        assert all(f"  {name} " in result.output for name in COMMANDS)
        assert "  130  interrupted" in result.output


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output.split()[0]) == (0, "transfer-engine")


def test_help_waits_for_nothing_heavy():
    """It is what a shell's completion runs at every key."""
    heavy = ("aiohttp", "sqlalchemy", "pydantic", "uvloop", "asyncio", "rich")
    code = f"import sys, transfer_engine.cli.main; print(*[name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.split() == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["cp"], Exit.USAGE, "expected SRC DST, or --from-file LIST"),
        (["cp", "a"], Exit.USAGE, "expected SRC DST, or --from-file LIST"),
        (["cp", "a", "b", "--from-file", "c"], Exit.USAGE, "give SRC DST or --from-file, not both"),
        (["cp", "--from-file", "c", "--checksum", "md5:00"], Exit.USAGE, "is for one file"),
        (["cp", "-r", "a", "b", "--checksum", "md5:00"], Exit.USAGE, "is for one file"),
        (["cp", "a", "b", "--checksum", "crc99"], Exit.USAGE, "unknown checksum algorithm 'crc99'"),
        (["cp", "a", "b", "--mode", "sideways"], Exit.USAGE, "--mode"),
        (["cp", "a", "b", "--parallel", "0"], Exit.USAGE, "--parallel"),
        (["cp", "a", "b", "--config", "/missing/te.toml"], Exit.USAGE, "/missing/te.toml: cannot be read"),
        (["cp", "a", "b", "--ca", "/missing/ca"], Exit.USAGE, "/missing/ca does not exist"),
        (["cp", "a", "b", "--token-file", "/missing/token"], Exit.USAGE, "/missing/token cannot be read"),
        (["cp", "gsiftp://a/b", "/tmp/"], Exit.USAGE, "no adapter for scheme 'gsiftp'"),
        (["cp", "http://[::", "/tmp/x"], Exit.USAGE, "not a URL"),
        (["submit"], Exit.USAGE, "expected SRC DST, or --from-file LIST"),
        (["submit", "--from-file", "c", "--checksum", "md5:00"], Exit.USAGE, "not for a list"),
        (["serve"], Exit.USAGE, "--no-auth"),
        (["serve", "--no-auth", "--host", "0.0.0.0"], Exit.USAGE, "loopback only"),
        (["serve", "--no-auth", "--database", "mysql://x"], Exit.USAGE, "not a database this version opens"),
        (["list", "--service", "nonsense"], Exit.USAGE, "--service: expected a URL"),
        (["status"], Exit.USAGE, "ID"),
        (["frobnicate"], Exit.USAGE, "frobnicate"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], code: Exit, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(*arguments, monkeypatch=monkeypatch) == code
    told = capsys.readouterr()
    assert message in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_the_service_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("TRANSFER_ENGINE_SERVICE_URL", "elsewhere")
    assert run("list", monkeypatch=monkeypatch) == Exit.USAGE
    assert "'elsewhere'" in capsys.readouterr().err


def test_a_file_and_a_directory_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "a").write_bytes(b"data")
    assert run("cp", str(tmp_path / "a"), str(tmp_path / "b"), monkeypatch=monkeypatch) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")
    assert (tmp_path / "b").read_bytes() == b"data"
    assert run("cp", str(tmp_path), str(tmp_path / "c"), monkeypatch=monkeypatch) == Exit.USAGE
    assert "-r copies all below it" in capsys.readouterr().err


def test_a_tree_with_links_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Links are followed, never in circles; one that leads nowhere is said and stops nothing else."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "odd %41#?").write_bytes(b"data")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "f").write_bytes(b"more")
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "circle").symlink_to(".")
    (tmp_path / "a" / "b" / "circle").symlink_to(tmp_path / "a")
    assert run("cp", "-r", str(tmp_path / "a"), str(tmp_path / "c"), monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().err.count("leads back to a directory above it and is not followed") == 2
    copied = {path.relative_to(tmp_path / "c").as_posix() for path in (tmp_path / "c").rglob("*") if path.is_file()}
    assert copied == {"b/odd %41#?", "linked/f"}
    (tmp_path / "a" / "nowhere").symlink_to("missing")
    assert run("cp", "-r", str(tmp_path / "a"), str(tmp_path / "d"), monkeypatch=monkeypatch) == Exit.SOME_FAILED
    assert "a/nowhere → " in capsys.readouterr().err
    assert (tmp_path / "d" / "linked" / "f").read_bytes() == b"more"


@pytest.mark.parametrize("name", ["..", "."])
def test_no_name_leads_out_of_the_destination(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """A storage chooses the names in its listings."""
    (tmp_path / "a").write_bytes(b"data")
    target = f"{(tmp_path / 'd').as_uri()}/{name}/x"
    assert run("cp", str(tmp_path / "a"), target, monkeypatch=monkeypatch) == Exit.USAGE
    assert "must not hold '.' or '..'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_key_that_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    key = tmp_path / "vault.key"
    key.touch(mode=0o600)
    key.write_text("not a key")
    config = tmp_path / "te.toml"
    config.write_text(f'[auth]\nloopback = "user"\n[vault]\nkey_file = "{key}"\n')
    assert run("serve", "--port", "0", "--config", str(config), monkeypatch=monkeypatch) == Exit.USAGE
    assert "vault.key_file" in capsys.readouterr().err
