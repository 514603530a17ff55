"""Encryption at rest of what functions keep secret: AES-256-GCM with a key that lies outside the database.

A sealed value is: version byte 1 | 8 bytes key id | 12 bytes nonce | ciphertext with its 16-byte tag. What it belongs
to (the function's uid) is authenticated with it, so that a value cannot be moved to another row.

The key is STATE/keys/environment.key, 32 random bytes, mode 0600, made once. Its id (the head of its SHA-256) is
kept in the database: with another or no key the daemon refuses to start instead of losing every function's
variables silently.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtimed.store.database import StoreError
from runtimed.store.files import write_durably

VERSION = b"\x01"
KEY_BYTES = 32
NONCE_BYTES = 12  # 96 bits, the size AES-GCM is specified for; random ones are safe for 2**32 values of one key
KEY_ID_BYTES = 8


class Secrets:
    """Seals and opens; knows its key's id."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise StoreError(f"a key of {len(key)} bytes; expected {KEY_BYTES}")
        self.key_id = hashlib.sha256(b"runtimed environment key" + key).digest()[:KEY_ID_BYTES]
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, owner: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return VERSION + self.key_id + nonce + self._cipher.encrypt(nonce, plain, VERSION + self.key_id + owner)

    def open(self, sealed: bytes, owner: bytes) -> bytes:
        head = len(VERSION) + KEY_ID_BYTES
        if sealed[:1] != VERSION:
            raise StoreError("an encrypted value of an unknown version: written by a newer runtimed")
        if sealed[1:head] != self.key_id:
            raise StoreError("a value encrypted with another key than STATE/keys/environment.key")
        nonce, rest = sealed[head : head + NONCE_BYTES], sealed[head + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, rest, sealed[:head] + owner)
        except (InvalidTag, ValueError):
            raise StoreError("an encrypted value was changed on disk") from None


def load_secrets(directory: Path, *, expected: bytes | None) -> Secrets:
    """The key in `directory`; made when there is none and none is `expected` (the id the database was written with)."""
    path = directory / "environment.key"
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        if expected is not None:
            raise StoreError(
                f"{path} is missing, and functions' environment variables are encrypted with it. Restore it from a "
                "backup, or move the database away to start with no functions"
            ) from None
        key = os.urandom(KEY_BYTES)
        write_durably(path, key, mode=0o600)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    if len(key) != KEY_BYTES:
        raise StoreError(f"{path} has {len(key)} bytes; a key has {KEY_BYTES}. Restore it from a backup")
    if path.stat().st_mode & 0o077:
        raise StoreError(f"{path} can be read by others; `chmod 600 {path}` (and consider the key known to them)")
    secrets = Secrets(key)
    if expected is not None and expected != secrets.key_id:
        raise StoreError(
            f"{path} is not the key that the database was written with. Restore the right one from a backup, or move "
            "the database away to start with no functions"
        )
    return secrets


def control_key(directory: Path) -> str:
    """What TCP callers must know: STATE/keys/control.key, made once."""
    path = directory / "control.key"
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        key = secrets.token_urlsafe(32)
        write_durably(path, f"{key}\n".encode(), mode=0o600)
    if len(key) < 16:
        raise StoreError(f"{path} is too short for a key; remove it to have a new one made")
    return key
