"""The tables of scaling: what provisioned concurrency may be scaled between, how, and when."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from runtimed.machines.scaling import Bounds, Cooldowns, Policy
from runtimed.store.database import Database
from runtimed.store.qualifiers import Meant, function_of, meant


class Activity(Struct, frozen=True, kw_only=True):
    """What was last done."""

    at_ms: int
    cause: str
    before: int
    after: int
    failed: str = ""
    """Why; empty: it did not."""


class Action(Struct, frozen=True, kw_only=True):
    """A scheduled one. Times are in milliseconds since the epoch."""

    name: str
    schedule: str
    zone: str
    """Empty: UTC."""
    put_ms: int
    start_ms: int | None = None
    end_ms: int | None = None
    least: int | None = None
    most: int | None = None
    next_ms: int
    """When it is due."""


class Scalable(Struct, frozen=True, kw_only=True):
    """A target and all that belongs to it."""

    uid: bytes
    """The function's."""
    name: str
    qualifier: str
    version: str
    """What the qualifier stands for now: $LATEST or a number."""
    bounds: Bounds
    policy: Policy | None = None
    cooldowns: Cooldowns = Cooldowns()
    pending: str = ""
    """Why what is provisioned has still to be brought within the bounds; empty: it is."""
    activity: Activity | None = None
    actions: tuple[Action, ...] = ()

    @property
    def key(self) -> tuple[bytes, str]:
        return self.uid, self.qualifier


_ROWS = (
    "SELECT f.uid, f.name, s.qualifier, COALESCE(a.version, s.qualifier), s.least, s.most, s.policy, s.cooldowns, "
    "s.pending, s.activity, s.actions FROM scalable_targets s JOIN functions f ON f.id = s.function "
    "LEFT JOIN aliases a ON a.function = s.function AND a.name = s.qualifier"
)
_encode = msgspec.json.encode


class ScalingStore:
    """Rows of `scalable_targets`, which go with their functions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Scalable]:
        """In the order of their functions' names and of their qualifiers."""
        query = f"{_ROWS} ORDER BY f.name, s.qualifier"
        return await self._database.run(lambda c: [_read(row) for row in c.execute(query).fetchall()])

    async def get(self, name: str, qualifier: str) -> Scalable | None:
        def work(c: sqlite3.Connection) -> Scalable | None:
            row = c.execute(f"{_ROWS} WHERE f.name = ? AND s.qualifier = ?", (name, qualifier)).fetchone()
            return None if row is None else _read(row)

        return await self._database.run(work)

    async def meant(self, name: str, qualifier: str) -> tuple[bytes, Meant]:
        """The function's uid, and what the qualifier stands for. Raises ResourceNotFound."""
        return await self._database.run(lambda c: function_of(c, name, qualifier)[1:])

    async def put(self, target: Scalable, *, new: bool = False) -> bool:
        """Whole; kept when it returns. False: its function, version or alias is gone, or, of a `new` one, has SnapStart
        by now; or it was never put as `new`."""
        values = (
            target.bounds.least, target.bounds.most, _optional(target.policy), _encode(target.cooldowns),
            target.pending, _optional(target.activity), _encode(target.actions),
        )  # fmt: skip

        def work(c: sqlite3.Connection) -> bool:
            row = c.execute("SELECT id FROM functions WHERE uid = ?", (target.uid,)).fetchone()
            found = None if row is None else meant(c, row[0], target.qualifier)
            if found is None or (new and found.snap_start):
                return False
            query = (
                "UPDATE scalable_targets SET least = ?, most = ?, policy = ?, cooldowns = ?, pending = ?, "
                "activity = ?, actions = ? WHERE function = ? AND qualifier = ?"
            )
            if new:
                query = (
                    "INSERT OR REPLACE INTO scalable_targets "
                    "(least, most, policy, cooldowns, pending, activity, actions, function, qualifier) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                )
            return c.execute(query, (*values, row[0], target.qualifier)).rowcount == 1

        return await self._database.run(work)

    async def remove(self, name: str, qualifier: str) -> bool:
        """Was there one?"""
        query = (
            "DELETE FROM scalable_targets WHERE qualifier = ? AND function = (SELECT id FROM functions WHERE name = ?)"
        )
        return await self._database.run(lambda c: c.execute(query, (qualifier, name)).rowcount) == 1


def _optional(value: Struct | None) -> bytes | None:
    return None if value is None else _encode(value)


def _read(row: Sequence[object]) -> Scalable:
    uid, name, qualifier, version, least, most, policy, cooldowns, pending, activity, actions = row
    return msgspec.convert(
        {
            "uid": uid,
            "name": name,
            "qualifier": qualifier,
            "version": version,
            "bounds": {"least": least, "most": most},
            "policy": _decoded(policy),
            "cooldowns": _decoded(cooldowns),
            "pending": pending,
            "activity": _decoded(activity),
            "actions": _decoded(actions),
        },
        Scalable,
        builtin_types=(bytes,),
    )


def _decoded(value: object) -> object:
    return None if value is None else msgspec.json.decode(value)  # type: ignore[call-overload]
