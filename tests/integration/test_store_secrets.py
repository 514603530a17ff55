"""Encryption at rest: round trips, and every way in which a value or the key can be wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runtimed.store.database import StoreError
from runtimed.store.secrets import KEY_BYTES, Secrets, load_secrets

OWNER = b"a function's uid"


def test_round_trip_hides_and_differs() -> None:
    secrets = Secrets(bytes(KEY_BYTES))
    one, two = secrets.seal(b"PASSWORD=hunter2", OWNER), secrets.seal(b"PASSWORD=hunter2", OWNER)
    assert b"hunter2" not in one
    assert one != two
    assert secrets.open(one, OWNER) == secrets.open(two, OWNER) == b"PASSWORD=hunter2"


def test_any_changed_byte_is_noticed() -> None:
    secrets = Secrets(bytes(KEY_BYTES))
    sealed = secrets.seal(b"value", OWNER)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(StoreError):
            secrets.open(bytes(changed), OWNER)
    for end in range(len(sealed)):
        with pytest.raises(StoreError):
            secrets.open(sealed[:end], OWNER)


def test_a_value_belongs_to_its_function() -> None:
    secrets = Secrets(bytes(KEY_BYTES))
    with pytest.raises(StoreError, match="changed on disk"):
        secrets.open(secrets.seal(b"value", OWNER), b"another function")


def test_another_key_is_told() -> None:
    with pytest.raises(StoreError, match="another key"):
        Secrets(os.urandom(KEY_BYTES)).open(Secrets(bytes(KEY_BYTES)).seal(b"value", OWNER), OWNER)


def test_the_key_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    first = load_secrets(tmp_path, expected=None)
    path = tmp_path / "environment.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["environment.key"]
    assert load_secrets(tmp_path, expected=first.key_id).key_id == first.key_id


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing.*Restore it from a backup"):
        load_secrets(tmp_path, expected=b"12345678")
    load_secrets(tmp_path, expected=None)
    with pytest.raises(StoreError, match="not the key that the database was written with"):
        load_secrets(tmp_path, expected=b"12345678")
    path = tmp_path / "environment.key"
    path.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        load_secrets(tmp_path, expected=None)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(StoreError, match="5 bytes; a key has 32"):
        load_secrets(tmp_path, expected=None)
