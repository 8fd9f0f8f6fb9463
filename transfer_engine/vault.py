"""Secrets at rest: sealed with a key that is not in the database, each for one purpose only.

AES-256 in Galois/Counter mode (NIST SP 800-38D) with a random nonce of 96 bits. What a secret is
about (its kind, id and owner) is authenticated with it: a sealed secret that is moved to another row
does not open there. A sealed secret begins with the format's version and the id of its key; what it is
about and these two are covered by the tag.

To change the key, put the new one above the old one: the first seals, all of them open. Tokens and
proxies live for days at most; after that the old one can go.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from transfer_engine.config_service import VaultSettings
from transfer_engine.errors import EngineError, Invalid

KEY_BYTES: Final = 32
KEYS_MAX: Final = 16
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
ID_BYTES: Final = 8
VERSION: Final = 1
FILE_MAX: Final = 16 * 1024
SEALED_MAX: Final = 16 * 1024 * 1024
_HEAD_BYTES: Final = 1 + ID_BYTES
_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")


class VaultError(EngineError):
    """A secret does not open: its key is not there, or it was changed, or moved to another record."""


def about(kind: str, *parts: str) -> str:
    """What a secret is about, for `Vault.seal` and `Vault.open`: no two lists of words give the same."""
    return json.dumps([kind, *parts], ensure_ascii=True)


class Vault:
    """Seals with the first of its keys, opens with any of them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Args: keys: 1 to 16, of 32 bytes each; the newest first."""
        if not 1 <= len(keys) <= KEYS_MAX or any(len(key) != KEY_BYTES for key in keys):
            msg = f"a vault has 1 to {KEYS_MAX} keys of {KEY_BYTES} bytes"
            raise ValueError(msg)
        self._first = _key_id(keys[0])
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}

    @classmethod
    def of(cls, settings: VaultSettings, database_url: str) -> Vault:
        """The vault of a service.

        Keys are those of `vault.key` and then of `vault.key_file`; without both, the file beside an SQLite
        database, made when it is not there; for a database in memory, one that nobody else ever knows.

        Raises: Invalid: a key or its file is not as it should be; names the setting.
        """
        keys: list[bytes] = []
        if settings.key is not None:
            keys += _keys_of(settings.key.get_secret_value(), field="vault.key")
        if settings.key_file is not None:
            keys += _read(settings.key_file)
        if not keys:
            beside = _beside(database_url)
            keys = [secrets.token_bytes(KEY_BYTES)] if beside is None else _read_or_make(beside)
        if len(keys) > KEYS_MAX:
            raise Invalid(f"there are {len(keys)} keys, expected at most {KEYS_MAX}", field="vault.key_file")
        return cls(keys)

    @classmethod
    def transient(cls) -> Vault:
        """A vault with a key that nobody else ever knows."""
        return cls([secrets.token_bytes(KEY_BYTES)])

    def seal(self, plain: bytes, about: str) -> bytes:
        """The secret, encrypted for this purpose alone."""
        head = bytes([VERSION]) + self._first
        nonce = secrets.token_bytes(NONCE_BYTES)
        return head + nonce + self._ciphers[self._first].encrypt(nonce, plain, head + about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """What was sealed for this purpose.

        Raises: VaultError: by another key, for something else, or changed since; it says which as far as
        that can be known, and nothing of the secret.
        """
        if not _HEAD_BYTES + NONCE_BYTES + TAG_BYTES <= len(sealed) <= SEALED_MAX or sealed[0] != VERSION:
            raise VaultError("a stored secret is damaged, or was sealed by a newer version of this program")
        head, nonce, rest = (
            sealed[:_HEAD_BYTES],
            sealed[_HEAD_BYTES:][:NONCE_BYTES],
            sealed[_HEAD_BYTES + NONCE_BYTES :],
        )
        cipher = self._ciphers.get(head[1:])
        if cipher is None:
            known = ", ".join(key.hex() for key in self._ciphers)
            raise VaultError(
                f"a stored secret was sealed with the key {head[1:].hex()}, which is not among the keys here ({known}):"
                " add the earlier key as a further line of vault.key_file, or let the user delegate or submit anew"
            )
        try:
            return cipher.decrypt(nonce, rest, head + about.encode())
        except InvalidTag:
            raise VaultError("a stored secret was changed, or belongs to another record: it is not used") from None


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"transfer-engine vault key\0" + key).digest()[:ID_BYTES]


def _keys_of(text: str, *, field: str) -> list[bytes]:
    """Keys of 64 hex digits, separated by blanks, commas or line ends; `#` begins a comment."""
    lines = [line.partition("#")[0] for line in text.splitlines()]
    words = [word for line in lines for word in line.replace(",", " ").split()]
    if not words or not all(_KEY.fullmatch(word) for word in words):
        # Whatever stands there may be a key with a typing error: it is not repeated.
        raise Invalid("expected keys of 64 hex digits, one a line; `openssl rand -hex 32` makes one", field=field)
    return [bytes.fromhex(word) for word in words]


def _beside(database_url: str) -> Path | None:
    """Where the key of a database file lies; None for a database in memory. Invalid for one on a server."""
    if database_url in {"sqlite://", "sqlite:///:memory:"} or database_url.startswith("memory:"):
        return None
    if database_url.startswith("sqlite:///"):
        return Path(database_url.removeprefix("sqlite:///") + ".key")
    raise Invalid("a database on a server needs a key that is kept elsewhere", field="vault.key_file")


def _read(path: Path) -> list[bytes]:
    """The keys in a file that nobody else can read."""
    # Without blocking: a named pipe must be refused, not waited for.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as failure:
        raise Invalid(f"{path} cannot be read: {failure.strerror}", field="vault.key_file") from None
    try:
        _check(path, os.fstat(descriptor))
        raw = os.read(descriptor, FILE_MAX)
    finally:
        os.close(descriptor)
    return _keys_of(raw.decode("ascii", "replace"), field="vault.key_file")


def _check(path: Path, found: os.stat_result) -> None:
    """What was opened, not what has that name by now: is it a file, and ours alone?"""
    if not stat.S_ISREG(found.st_mode):
        raise Invalid(f"{path} is not a file", field="vault.key_file")
    if found.st_uid != os.geteuid():
        raise Invalid(f"{path} belongs to another user; chown it to the service's", field="vault.key_file")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Invalid(f"{path} can be read by others; chmod 600 it", field="vault.key_file")
    if found.st_size > FILE_MAX:
        raise Invalid(f"{path} is longer than {FILE_MAX} bytes", field="vault.key_file")


def _read_or_make(path: Path) -> list[bytes]:
    if not path.exists():
        try:
            _make(path)
        except OSError as failure:
            raise Invalid(
                f"{path} cannot be made: {failure.strerror}; name a file with a key", field="vault.key_file"
            ) from None
    return _read(path)


def _make(path: Path) -> None:
    """Write a new key, whole and on disk before it has its name; whoever comes second takes what is there."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link never replaces what another process has made.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make sure that the key outlives a crash: what it seals is on disk soon."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as failure:
        if failure.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)
