"""The table of concurrency: what is reserved for functions and provisioned for their versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from runtimed.store.database import Database

RESERVED = ""
"""In place of a qualifier: the row says what is reserved for the function."""


class Setting(Struct, frozen=True, kw_only=True):
    """One row."""

    uid: bytes
    """The function's."""
    name: str
    qualifier: str
    executions: int
    modified_ms: int

    @property
    def last_modified(self) -> str:
        """As Lambda writes it here: 2026-01-31T12:00:00+0000."""
        return f"{datetime.fromtimestamp(self.modified_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}+0000"


_ROWS = (
    "SELECT f.uid, f.name, c.qualifier, c.executions, c.modified_ms FROM concurrency c "
    "JOIN functions f ON f.id = c.function"
)

Check = Callable[[bytes, list[Setting]], None]
"""Given the function's uid and all settings as they are: raises what stands against a change."""


class ConcurrencyStore:
    """Rows of `concurrency`, which go with their functions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Setting]:
        return await self._database.run(_all)

    async def put(self, name: str, qualifier: str, executions: int, now_ms: int, check: Check) -> Setting | None:
        """Kept when it returns; None when there is no such function. Nothing changes between check and change."""

        def work(c: sqlite3.Connection) -> Setting | None:
            row = c.execute("SELECT id, uid FROM functions WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            check(row[1], _all(c))
            c.execute(
                "INSERT INTO concurrency (function, qualifier, executions, modified_ms) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (function, qualifier) DO UPDATE SET executions = excluded.executions, "
                "modified_ms = excluded.modified_ms",
                (row[0], qualifier, executions, now_ms),
            )
            return Setting(uid=row[1], name=name, qualifier=qualifier, executions=executions, modified_ms=now_ms)

        return await self._database.run(work)

    async def remove(self, name: str, qualifier: str) -> bool:
        """Was there one?"""
        query = "DELETE FROM concurrency WHERE qualifier = ? AND function = (SELECT id FROM functions WHERE name = ?)"
        return await self._database.run(lambda c: c.execute(query, (qualifier, name)).rowcount) == 1

    async def of(self, name: str) -> list[Setting]:
        """A function's, in the order of their qualifiers."""
        query = f"{_ROWS} WHERE f.name = ? ORDER BY c.qualifier"
        rows = await self._database.run(lambda c: c.execute(query, (name,)).fetchall())
        return [_setting(row) for row in rows]


def _all(c: sqlite3.Connection) -> list[Setting]:
    return [_setting(row) for row in c.execute(_ROWS).fetchall()]


def _setting(row: tuple[bytes, str, str, int, int]) -> Setting:
    return Setting(uid=row[0], name=row[1], qualifier=row[2], executions=row[3], modified_ms=row[4])
