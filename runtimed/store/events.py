"""The table of rules for asynchronous invocation: one of a qualifier says how its events are retried, one of no
qualifier that the function's whole queue stands still. They go with what they are of."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec
from msgspec import Struct

from runtimed.model.arn import LATEST
from runtimed.store.database import Database
from runtimed.store.qualifiers import function_of

PAUSE = ""
"""In place of a qualifier: the row is there because the function's queue stands still."""


class EventRule(Struct, frozen=True, kw_only=True):
    """A row."""

    id: int = 0
    """Names the rule to the dispatcher; never comes back. 0: nothing is kept."""
    uid: bytes
    """The function's."""
    name: str
    qualifier: str
    retries: int | None = None
    age_s: int | None = None
    delay_ms: int | None = None
    generation: int = 0
    modified_ms: int = 0


_ROWS = (
    "SELECT r.id, f.uid, f.name, r.qualifier, r.retries, r.age_s, r.delay_ms, r.generation, r.modified_ms "
    "FROM event_rules r JOIN functions f ON f.id = r.function"
)

Change = Callable[[EventRule], EventRule | None]
"""Given what is kept, or a rule whose `id` is 0, says what is to be kept instead; None: the same. May raise."""


class EventRules:
    """Rows of `event_rules`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[EventRule]:
        return [_rule(row) for row in await self._database.run(lambda c: c.execute(_ROWS).fetchall())]

    async def ids(self) -> set[int]:
        """Of all."""
        rows = await self._database.run(lambda c: c.execute("SELECT id FROM event_rules").fetchall())
        return {row[0] for row in rows}

    async def uid(self, name: str) -> bytes:
        """A function's. Raises ResourceNotFound."""
        return await self._database.run(lambda c: function_of(c, name, LATEST)[1])

    async def of(self, name: str) -> list[EventRule]:
        """A function's, in the order of their qualifiers, but for its pause. Raises ResourceNotFound."""

        def work(c: sqlite3.Connection) -> list[EventRule]:
            function, _, _ = function_of(c, name, LATEST)
            query = f"{_ROWS} WHERE f.id = ? AND r.qualifier <> ? ORDER BY r.qualifier"
            return [_rule(row) for row in c.execute(query, (function, PAUSE)).fetchall()]

        return await self._database.run(work)

    async def find(self, name: str, qualifier: str) -> EventRule:
        """Its `id` is 0 when there is none. Raises ResourceNotFound for a function or a qualifier that is missing."""
        return await self._database.run(lambda c: _find(c, name, qualifier)[1])

    async def change(self, name: str, qualifier: str, change: Change, now_ms: int) -> EventRule:
        """What is kept then; id, generation and time are the table's. Nobody else changes it meanwhile. Raises
        ResourceNotFound."""

        def work(c: sqlite3.Connection) -> EventRule:
            function, found = _find(c, name, qualifier)
            rule = change(found)
            if rule is None:
                return found
            c.execute(
                "INSERT INTO event_rules (function, qualifier, retries, age_s, delay_ms, generation, modified_ms) "
                "VALUES (?, ?, ?, ?, ?, 1, ?) ON CONFLICT (function, qualifier) DO UPDATE SET "
                "retries = excluded.retries, age_s = excluded.age_s, delay_ms = excluded.delay_ms, "
                "generation = generation + 1, modified_ms = excluded.modified_ms",
                (function, qualifier, rule.retries, rule.age_s, rule.delay_ms, now_ms),
            )
            return _find(c, name, qualifier)[1]

        return await self._database.run(work)

    async def remove(self, name: str, qualifier: str) -> EventRule:
        """What there was; its `id` is 0 when there was none. Raises ResourceNotFound."""

        def work(c: sqlite3.Connection) -> EventRule:
            _, found = _find(c, name, qualifier)
            c.execute("DELETE FROM event_rules WHERE id = ?", (found.id,))
            return found

        return await self._database.run(work)


def _find(c: sqlite3.Connection, name: str, qualifier: str) -> tuple[int, EventRule]:
    """With the function's row."""
    function, uid, _ = function_of(c, name, qualifier or LATEST)
    row = c.execute(f"{_ROWS} WHERE f.id = ? AND r.qualifier = ?", (function, qualifier)).fetchone()
    return function, EventRule(uid=uid, name=name, qualifier=qualifier) if row is None else _rule(row)


def _rule(row: tuple[object, ...]) -> EventRule:
    values = dict(zip(EventRule.__struct_fields__, row, strict=True))
    return msgspec.convert(values, EventRule, builtin_types=(bytes,))
