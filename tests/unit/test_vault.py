"""The vault: what it opens, what it refuses, and where its keys come from."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from transfer_engine.config_service import VaultSettings
from transfer_engine.errors import Invalid
from transfer_engine.vault import KEY_BYTES, KEYS_MAX, Vault, VaultError, about

OLD, NEW = b"o" * KEY_BYTES, b"n" * KEY_BYTES
VAULT = Vault([OLD])


@given(plain=st.binary(max_size=4096), what=st.text(max_size=64))
def test_what_is_sealed_opens(plain: bytes, what: str) -> None:
    sealed = VAULT.seal(plain, what)
    assert VAULT.open(sealed, what) == plain
    assert len(plain) < 8 or plain not in sealed


@given(plain=st.binary(max_size=64), what=st.text(max_size=16), other=st.text(max_size=16))
def test_it_opens_for_nothing_else(plain: bytes, what: str, other: str) -> None:
    sealed = VAULT.seal(plain, what)
    if what != other:
        with pytest.raises(VaultError, match="belongs to another record"):
            VAULT.open(sealed, other)


@given(plain=st.binary(max_size=64), place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_bit_of_it_can_be_changed(plain: bytes, place: int, bit: int) -> None:
    sealed = bytearray(VAULT.seal(plain, "x"))
    sealed[place % len(sealed)] ^= 1 << bit
    with pytest.raises(VaultError):
        VAULT.open(bytes(sealed), "x")


@given(cut=st.integers(min_value=1), more=st.binary(min_size=1, max_size=9))
def test_nothing_of_it_can_be_cut_off_or_added(cut: int, more: bytes) -> None:
    sealed = VAULT.seal(b"a secret of some length", "x")
    for wrong in (sealed[: -(cut % len(sealed)) or None][: len(sealed) - 1], sealed + more):
        with pytest.raises(VaultError):
            VAULT.open(wrong, "x")


@given(sealed=st.binary(max_size=128))
def test_what_was_not_sealed_does_not_open(sealed: bytes) -> None:
    with pytest.raises(VaultError):
        VAULT.open(sealed, "x")


def test_the_same_secret_never_looks_the_same() -> None:
    assert len({VAULT.seal(b"s", "x") for _ in range(200)}) == 200


def test_with_a_new_key_the_old_one_still_opens() -> None:
    both = Vault([NEW, OLD])
    assert both.open(VAULT.seal(b"s", "x"), "x") == b"s"
    assert Vault([NEW]).open(both.seal(b"s", "x"), "x") == b"s"


def test_without_its_key_the_error_says_what_to_do() -> None:
    sealed = VAULT.seal(b"canary-8f14", "x")
    with pytest.raises(VaultError, match=r"add the earlier key as a further line of vault\.key_file") as caught:
        Vault([NEW]).open(sealed, "x")
    assert sealed[1:9].hex() in str(caught.value)
    assert OLD.hex() not in str(caught.value)


def test_a_later_version_is_not_guessed_at() -> None:
    sealed = VAULT.seal(b"s", "x")
    with pytest.raises(VaultError, match="newer version"):
        VAULT.open(b"\x02" + sealed[1:], "x")


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4), st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_different_purposes_have_different_names(one: list[str], other: list[str]) -> None:
    assert (about(*one) == about(*other)) is (one == other)


@pytest.mark.parametrize("keys", [[], [b"short"], [OLD] * (KEYS_MAX + 1)])
def test_a_vault_needs_whole_keys(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="a vault has"):
        Vault(keys)


# Where the keys come from


def database(directory: Path) -> str:
    return f"sqlite:///{directory}/transfers.db"


def test_a_key_is_made_beside_the_database_once(tmp_path: Path) -> None:
    sealed = Vault.of(VaultSettings(), database(tmp_path)).seal(b"s", "x")
    assert Vault.of(VaultSettings(), database(tmp_path)).open(sealed, "x") == b"s"
    (key,) = tmp_path.iterdir()
    assert key.name == "transfers.db.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_of_several_processes_one_makes_the_key(tmp_path: Path) -> None:
    together = threading.Barrier(8)
    vaults: list[Vault] = []

    def start() -> None:
        together.wait()
        vaults.append(Vault.of(VaultSettings(), database(tmp_path)))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sealed = vaults[0].seal(b"s", "x")
    assert [vault.open(sealed, "x") for vault in vaults] == [b"s"] * 8
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "memory://", "memory://?events=no"])
def test_in_memory_nobody_knows_the_key(url: str) -> None:
    sealed = Vault.of(VaultSettings(), url).seal(b"s", "x")
    with pytest.raises(VaultError):
        Vault.of(VaultSettings(), url).open(sealed, "x")


def test_a_database_on_a_server_needs_a_key() -> None:
    with pytest.raises(Invalid, match="kept elsewhere"):
        Vault.of(VaultSettings(), "postgresql://host/db")


def test_the_key_of_the_settings_seals(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# 2024\n{OLD.hex()}  # still opens\n")
    file.chmod(0o600)
    both = Vault.of(VaultSettings(key=SecretStr(NEW.hex()), key_file=file), database(tmp_path))
    assert both.open(VAULT.seal(b"s", "x"), "x") == b"s"
    assert Vault([NEW]).open(both.seal(b"s", "x"), "x") == b"s"
    assert list(tmp_path.iterdir()) == [file]


def test_several_keys_fit_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{NEW.hex()}\n{OLD.hex().upper()}\n")
    file.chmod(0o400)
    vault = Vault.of(VaultSettings(key_file=file), "memory://")
    assert vault.open(VAULT.seal(b"s", "x"), "x") == b"s"
    assert Vault([NEW]).open(vault.seal(b"s", "x"), "x") == b"s"


@pytest.mark.parametrize("text", ["", "# nothing", "12", "canary" * 11, NEW.hex() + "0", NEW.hex() + "\nx", "\0" * 64])
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(Invalid) as caught:
        Vault.of(VaultSettings(key_file=file), database(tmp_path))
    assert caught.value.field == "vault.key_file"
    assert "canary" not in str(caught.value)
    assert NEW.hex() not in str(caught.value)
    with pytest.raises(Invalid) as caught:
        Vault.of(VaultSettings(key=SecretStr(text)), database(tmp_path))
    assert caught.value.field == "vault.key"


@pytest.mark.parametrize(("mode", "why"), [(0o640, "by others"), (0o604, "by others"), (0o660, "by others")])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int, why: str) -> None:
    for file in (tmp_path / "keys", tmp_path / "transfers.db.key"):
        file.write_text(NEW.hex())
        file.chmod(mode)
        settings = VaultSettings(key_file=file if file.name == "keys" else None)
        with pytest.raises(Invalid, match=why):
            Vault.of(settings, database(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(NEW.hex())
    file.chmod(0o600)
    os.chown(file, 65534, -1)
    with pytest.raises(Invalid, match="belongs to another user"):
        Vault.of(VaultSettings(key_file=file), "memory://")


def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "is not a file"), (pipe, "is not a file")):
        with pytest.raises(Invalid, match=why):
            Vault.of(VaultSettings(key_file=path), database(tmp_path))


def test_a_key_that_is_too_long_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{NEW.hex()}\n" * 300)
    file.chmod(0o600)
    with pytest.raises(Invalid, match="longer than"):
        Vault.of(VaultSettings(key_file=file), "memory://")
    file.write_text("\n".join(os.urandom(32).hex() for _ in range(KEYS_MAX + 1)))
    with pytest.raises(Invalid, match="at most"):
        Vault.of(VaultSettings(key_file=file), "memory://")


def test_a_place_that_takes_no_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be made"):
        Vault.of(VaultSettings(), f"sqlite:///{tmp_path}/none/transfers.db")


def test_it_never_shows_a_key() -> None:
    assert OLD.hex() not in repr(VAULT)
    assert repr(OLD) not in repr(VAULT)
