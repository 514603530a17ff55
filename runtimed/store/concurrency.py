"""The table of concurrency: what is reserved for functions and provisioned for their versions, by the numbers of
these or by aliases that name them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from runtimed.machines.deployment import State
from runtimed.model.arn import LATEST
from runtimed.store.database import Database
from runtimed.store.qualifiers import Meant, function_of

RESERVED = ""
"""In place of a qualifier: the row says what is reserved for the function."""


class Setting(Struct, frozen=True, kw_only=True):
    """One row."""

    uid: bytes
    """The function's."""
    name: str
    qualifier: str
    version: str
    """What the qualifier stands for now: $LATEST or a number; RESERVED: nothing does."""
    executions: int
    modified_ms: int
    failed: str | None = None
    """Why the version could not be made; None: it works, or may yet."""

    @property
    def last_modified(self) -> str:
        """As Lambda writes it here: 2026-01-31T12:00:00+0000."""
        return f"{datetime.fromtimestamp(self.modified_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}+0000"


_ROWS = (
    "SELECT f.uid, f.name, c.qualifier, COALESCE(a.version, c.qualifier), c.executions, c.modified_ms, "
    f"CASE WHEN v.state = '{State.FAILED.value}' THEN v.reason "
    f"WHEN f.state = '{State.FAILED.value}' AND COALESCE(a.version, c.qualifier) = '{LATEST}' THEN f.reason END "
    "FROM concurrency c JOIN functions f ON f.id = c.function "
    "LEFT JOIN aliases a ON a.function = c.function AND a.name = c.qualifier "
    "LEFT JOIN versions v ON v.function = c.function "
    "AND v.number = CAST(COALESCE(a.version, c.qualifier) AS INTEGER)"
)

Check = Callable[[bytes, Meant, list[Setting]], None]
"""Given the function's uid, what the qualifier stands for (of a reservation: $LATEST) and all settings as they are:
raises what stands against a change."""


class ConcurrencyStore:
    """Rows of `concurrency`, which go with their functions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Setting]:
        return await self._database.run(_all)

    async def put(self, name: str, qualifier: str, executions: int, now_ms: int, check: Check) -> Setting:
        """Kept when it returns. Nothing changes between check and change. Raises ResourceNotFound when there is no such
        function, version or alias."""

        def work(c: sqlite3.Connection) -> Setting:
            function, uid, found = function_of(c, name, qualifier or LATEST)
            check(uid, found, _all(c))
            c.execute(
                "INSERT INTO concurrency (function, qualifier, executions, modified_ms) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (function, qualifier) DO UPDATE SET executions = excluded.executions, "
                "modified_ms = excluded.modified_ms",
                (function, qualifier, executions, now_ms),
            )
            row = c.execute(f"{_ROWS} WHERE c.function = ? AND c.qualifier = ?", (function, qualifier)).fetchone()
            return _setting(row)

        return await self._database.run(work)

    async def remove(self, name: str, qualifier: str) -> bool:
        """Was there one?"""
        query = "DELETE FROM concurrency WHERE qualifier = ? AND function = (SELECT id FROM functions WHERE name = ?)"
        return await self._database.run(lambda c: c.execute(query, (qualifier, name)).rowcount) == 1

    async def meant(self, name: str, qualifier: str) -> Meant:
        """Raises ResourceNotFound."""
        return await self._database.run(lambda c: function_of(c, name, qualifier)[2])

    async def of(self, name: str) -> list[Setting]:
        """A function's, in the order of their qualifiers."""
        query = f"{_ROWS} WHERE f.name = ? ORDER BY c.qualifier"
        rows = await self._database.run(lambda c: c.execute(query, (name,)).fetchall())
        return [_setting(row) for row in rows]


def _all(c: sqlite3.Connection) -> list[Setting]:
    return [_setting(row) for row in c.execute(_ROWS).fetchall()]


def _setting(row: tuple[bytes, str, str, str, int, int, str | None]) -> Setting:
    uid, name, qualifier, version, executions, modified, failed = row
    return Setting(
        uid=uid,
        name=name,
        qualifier=qualifier,
        version=version,
        executions=executions,
        modified_ms=modified,
        failed=failed,
    )
