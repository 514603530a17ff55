"""The table of keys. A secret is sealed with its key's id: it cannot be moved to another row."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from msgspec import Struct

from runtimed.model import errors, quotas
from runtimed.model.key import Key
from runtimed.store.database import Database
from runtimed.store.secrets import Secrets


class StoredKey(Struct, frozen=True, kw_only=True):
    """What must be known of a key to let its owner in."""

    id: int
    """Names it to the dispatcher; never given again."""
    key_id: str
    secret: str
    generation: int
    """Of what the dispatcher is told: higher each time."""


class KeyStore:
    """Rows of `keys`."""

    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._secrets = secrets

    async def add(self, key_id: str, secret: str, description: str, now_ms: int) -> tuple[StoredKey, Key]:
        """Kept when it returns. Raises LimitExceeded."""
        sealed = self._secrets.seal(secret.encode(), _owner(key_id))

        def work(c: sqlite3.Connection) -> int:
            (count,) = c.execute("SELECT count(*) FROM keys").fetchone()
            if count >= quotas.KEYS:
                raise errors.LimitExceeded(
                    f"There are {count} keys, and a node has at most {quotas.KEYS}. Revoke one that is not used."
                )
            query = (
                "INSERT INTO keys (key_id, secret, description, generation, created_ms, modified_ms) "
                "VALUES (?, ?, ?, 1, ?, ?)"
            )
            return c.execute(query, (key_id, sealed, description, now_ms, now_ms)).lastrowid or 0

        number = await self._database.run(work)
        stored = StoredKey(id=number, key_id=key_id, secret=secret, generation=1)
        return stored, _key((key_id, description, now_ms, now_ms))

    async def keys(self) -> list[Key]:
        """The oldest first."""
        query = "SELECT key_id, description, created_ms, modified_ms FROM keys ORDER BY id"
        return [_key(row) for row in await self._database.run(lambda c: c.execute(query).fetchall())]

    async def renew(self) -> list[StoredKey]:
        """All, each with a generation higher than every one before."""

        def work(c: sqlite3.Connection) -> list[StoredKey]:
            c.execute("UPDATE keys SET generation = generation + 1")
            rows = c.execute("SELECT id, key_id, secret, generation FROM keys ORDER BY id").fetchall()
            return [
                StoredKey(
                    id=number,
                    key_id=key_id,
                    secret=self._secrets.open(sealed, _owner(key_id)).decode(),
                    generation=generation,
                )
                for number, key_id, sealed, generation in rows
            ]

        return await self._database.run(work)

    async def remove(self, key_id: str) -> int | None:
        """Its number; None when there is none of that id."""
        query = "DELETE FROM keys WHERE key_id = ? RETURNING id"
        row = await self._database.run(lambda c: c.execute(query, (key_id,)).fetchone())
        return int(row[0]) if row else None


def _owner(key_id: str) -> bytes:
    return b"key " + key_id.encode()


def _key(row: tuple[str, str, int, int]) -> Key:
    key_id, description, created, modified = row
    return Key(
        key_id=key_id,
        description=description,
        created_at=datetime.fromtimestamp(created / 1000, UTC),
        last_modified=datetime.fromtimestamp(modified / 1000, UTC),
    )
