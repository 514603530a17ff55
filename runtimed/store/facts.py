"""Single values that the database keeps about itself."""

from __future__ import annotations

from runtimed.store.database import Database


class Facts:
    """Name to bytes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> bytes | None:
        row = await self._database.run(
            lambda c: c.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        )
        return bytes(row[0]) if row else None

    async def put(self, name: str, value: bytes) -> None:
        query = "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        await self._database.run(lambda c: c.execute(query, (name, value)))
