"""The table of rules for asynchronous invocation: at most a row a function, gone with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import cast

from msgspec import Struct

from runtimed.model import errors
from runtimed.store.database import Database


class EventRule(Struct, frozen=True, kw_only=True):
    """How a function's events are retried, and whether its queue stands still. `generation` 0: nothing is kept."""

    function: int
    """The function's row; names the rule to the dispatcher."""
    uid: bytes
    name: str
    retries: int | None = None
    age_s: int | None = None
    delay_ms: int | None = None
    configured: bool = False
    """Somebody put it, be it empty."""
    paused: bool = False
    generation: int = 0
    modified_ms: int = 0


_COLUMNS = (
    "f.id, f.uid, f.name, r.retries, r.age_s, r.delay_ms, coalesce(r.configured, 0), coalesce(r.paused, 0), "
    "coalesce(r.generation, 0), coalesce(r.modified_ms, 0) FROM functions f"
)

Change = Callable[[EventRule], EventRule | None]
"""Given what is kept, says what is to be kept instead; None: the same."""


class EventRules:
    """Rows of `event_rules`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[EventRule]:
        query = f"SELECT {_COLUMNS} JOIN event_rules r ON r.function = f.id"
        return [_rule(row) for row in await self._database.run(lambda c: c.execute(query).fetchall())]

    async def find(self, name: str) -> EventRule:
        """The function's, though nothing may be kept of it. Raises ResourceNotFound when there is no such function."""
        return await self._database.run(lambda c: _find(c, name))

    async def change(self, name: str, change: Change, now_ms: int) -> EventRule:
        """What is kept then; generation and time are the table's. Nobody else changes it meanwhile. Raises
        ResourceNotFound."""

        def work(c: sqlite3.Connection) -> EventRule:
            found = _find(c, name)
            rule = change(found)
            if rule is None:
                return found
            c.execute(
                "INSERT INTO event_rules "
                "(function, retries, age_s, delay_ms, configured, paused, generation, modified_ms) "
                "VALUES (?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT (function) DO UPDATE SET retries = excluded.retries, "
                "age_s = excluded.age_s, delay_ms = excluded.delay_ms, configured = excluded.configured, "
                "paused = excluded.paused, generation = generation + 1, modified_ms = excluded.modified_ms",
                (found.function, rule.retries, rule.age_s, rule.delay_ms, rule.configured, rule.paused, now_ms),
            )
            return _find(c, name)

        return await self._database.run(work)


def _find(c: sqlite3.Connection, name: str) -> EventRule:
    query = f"SELECT {_COLUMNS} LEFT JOIN event_rules r ON r.function = f.id WHERE f.name = ?"
    row = c.execute(query, (name,)).fetchone()
    if row is None:
        raise errors.ResourceNotFound(f"Function not found: {name}. `runtimectl functions` lists those that exist.")
    return _rule(row)


def _rule(row: tuple[object, ...]) -> EventRule:
    function, uid, name, retries, age, delay, configured, paused, generation, modified = row
    return EventRule(
        function=cast("int", function),
        uid=cast("bytes", uid),
        name=cast("str", name),
        retries=cast("int | None", retries),
        age_s=cast("int | None", age),
        delay_ms=cast("int | None", delay),
        configured=bool(configured),
        paused=bool(paused),
        generation=cast("int", generation),
        modified_ms=cast("int", modified),
    )
