"""The registry of functions: rows of `functions`, and the configuration that callers see.

What a function shows is its `next` target while one is being rolled out (or when none ever served), else the one that
serves.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Collection
from typing import Any

import msgspec
from msgspec import Struct

from runtimed.machines.deployment import SETTLED, State
from runtimed.model import errors
from runtimed.model.arn import Identity
from runtimed.model.function import FunctionConfiguration
from runtimed.store.database import Database
from runtimed.store.secrets import Secrets
from runtimed.store.targets import Definition, Deployed, Target, TargetRows, check_room


class Function(Struct, frozen=True, kw_only=True):
    """A function's row."""

    id: int
    uid: bytes
    name: str
    generation: int
    revision_id: str
    modified_ms: int
    state: State
    reason: str
    reason_code: str
    serving: int | None
    next: int | None


class Label(Struct, frozen=True, kw_only=True):
    """What a table of functions shows of one."""

    uid: bytes
    name: str
    memory_mb: int


ABOVE_NAMES = "\x7f"
"""Sorts after every character that a function's name can have."""

Change = Callable[[Definition, dict[str, str]], tuple[Definition, dict[str, str]]]

Also = Callable[[sqlite3.Connection, int], None]
"""What goes into the same transaction, given the new target."""

_FUNCTION = (
    "SELECT f.id, f.uid, f.name, f.generation, f.revision_id, f.modified_ms, f.state, f.reason, f.reason_code, "
    "f.serving, f.next FROM functions f"
)
_SHOWN = (
    "SELECT f.id, f.uid, f.name, f.generation, f.revision_id, f.modified_ms, f.state, f.reason, f.reason_code, "
    "f.serving, f.next, t.id, t.definition, t.environment, t.package "
    "FROM functions f JOIN targets t ON t.id = COALESCE(f.next, f.serving)"
)


class FunctionStore:
    """All methods run in one transaction each, on the database's thread."""

    def __init__(self, database: Database, secrets: Secrets, identity: Identity, architecture: str) -> None:
        self._database = database
        self._identity = identity
        self.rows = TargetRows(secrets, identity, architecture)

    # ---- for the API -----------------------------------------------------------------------------------------

    async def get(self, name: str) -> FunctionConfiguration | None:
        row = await self._database.run(lambda c: c.execute(f"{_SHOWN} WHERE f.name = ?", (name,)).fetchone())
        return self._configuration(row) if row else None

    async def page(self, after: str, limit: int, prefix: str = "") -> list[FunctionConfiguration]:
        query = f"{_SHOWN} WHERE f.name > ? AND f.name BETWEEN ? AND ? ORDER BY f.name LIMIT ?"
        bounds = (after, prefix, f"{prefix}{ABOVE_NAMES}", limit)
        rows = await self._database.run(lambda c: c.execute(query, bounds).fetchall())
        return [self._configuration(row) for row in rows]

    async def count(self) -> int:
        row = await self._database.run(lambda c: c.execute("SELECT count(*) FROM functions").fetchone())
        return int(row[0])

    async def labels(self) -> list[Label]:
        """All functions, briefly."""
        query = (
            "SELECT f.uid, f.name, json_extract(CAST(t.definition AS TEXT), '$.memory_size') "
            "FROM functions f JOIN targets t ON t.id = COALESCE(f.serving, f.next)"
        )
        rows = await self._database.run(lambda c: c.execute(query).fetchall())
        return [Label(uid=uid, name=name, memory_mb=memory) for uid, name, memory in rows]

    async def names(self) -> dict[bytes, str]:
        """Of all functions, by their uids; put together in the database's thread."""
        return await self._database.run(lambda c: dict(c.execute("SELECT uid, name FROM functions").fetchall()))

    # ---- for the deployer ------------------------------------------------------------------------------------

    async def create(
        self, name: str, definition: Definition, environment: dict[str, str], now_ms: int, also: Also | None = None
    ) -> Function:
        """A new function with its first target as `next`. Raises ResourceExists, LimitExceeded."""
        uid, revision = uuid.uuid4().bytes, str(uuid.uuid4())

        def work(c: sqlite3.Connection) -> Function:
            try:
                cursor = c.execute(
                    "INSERT INTO functions (uid, name, generation, revision_id, modified_ms, state, reason, "
                    "reason_code) VALUES (?, ?, 1, ?, ?, ?, '', '')",
                    (uid, name, revision, now_ms, State.PREPARING.value),
                )
            except sqlite3.IntegrityError:
                raise errors.ResourceExists(
                    f"Function already exists: {name}. Update its code or configuration, or choose another name."
                ) from None
            check_room(c)
            target = self.rows.insert(c, cursor.lastrowid or 0, uid, definition, environment)
            c.execute("UPDATE functions SET next = ? WHERE id = ?", (target, cursor.lastrowid))
            if also is not None:
                also(c, target)
            return _function(c.execute(f"{_FUNCTION} WHERE f.id = ?", (cursor.lastrowid,)).fetchone())

        return await self._database.run(work)

    async def change(
        self, name: str, revision_id: str | None, change: Change, now_ms: int, also: Also | None = None
    ) -> tuple[Function, Function]:
        """A new target from what the function shows; the function before and after.

        Raises ResourceNotFound, PreconditionFailed, ResourceConflict.
        """
        revision = str(uuid.uuid4())

        def work(c: sqlite3.Connection) -> tuple[Function, Function]:
            row = c.execute(f"{_SHOWN} WHERE f.name = ?", (name,)).fetchone()
            if row is None:
                raise errors.ResourceNotFound(f"Function not found: {self._identity.function_arn(name)}")
            function = _function(row[:11])
            check_revision(revision_id, function.revision_id, "function")
            check_settled(name, function.state)
            definition, environment = change(*self.rows.decode(function.uid, row[12], row[13]))
            target = self.rows.insert(c, function.id, function.uid, definition, environment)
            state = State.PREPARING if function.serving is None else State.UPDATE_PREPARING
            c.execute(
                "UPDATE functions SET next = ?, state = ?, reason = '', reason_code = '', revision_id = ?, "
                "modified_ms = ? WHERE id = ?",
                (target, state.value, revision, now_ms, function.id),
            )
            if also is not None:
                also(c, target)
            return function, _function(c.execute(f"{_FUNCTION} WHERE f.id = ?", (function.id,)).fetchone())

        return await self._database.run(work)

    async def find(self, name: str) -> Function | None:
        row = await self._database.run(lambda c: c.execute(f"{_FUNCTION} WHERE f.name = ?", (name,)).fetchone())
        return _function(row) if row else None

    async def all(self) -> list[Function]:
        return [_function(row) for row in await self._database.run(lambda c: c.execute(_FUNCTION).fetchall())]

    async def served(self) -> list[tuple[Function, Target]]:
        """All functions that serve, each with its target: one query, for a thousand of them."""
        query = (
            "SELECT f.id, f.uid, f.name, f.generation, f.revision_id, f.modified_ms, f.state, f.reason, f.reason_code, "
            "f.serving, f.next, t.id, t.definition, t.environment, t.package "
            "FROM functions f JOIN targets t ON t.id = f.serving"
        )
        rows = await self._database.run(lambda c: c.execute(query).fetchall())
        return [(_function(row[:11]), self.rows.target(row[11], *row[1:3], *row[12:])) for row in rows]

    async def target(self, target: int) -> Target:
        """A target's contents. KeyError when its row is gone."""
        query = (
            "SELECT t.id, f.uid, f.name, t.definition, t.environment, t.package "
            "FROM targets t JOIN functions f ON f.id = t.function WHERE t.id = ?"
        )
        row = await self._database.run(lambda c: c.execute(query, (target,)).fetchone())
        if row is None:
            raise KeyError(target)
        return self.rows.target(*row)

    async def record(
        self, function: int, state: State, serving: int | None, next: int | None, reason: str, code: str
    ) -> None:
        query = (
            "UPDATE functions SET state = ?, serving = ?, next = ?, reason = ?, reason_code = ?, "
            "generation = generation + 1 WHERE id = ?"
        )
        await self._database.run(lambda c: c.execute(query, (state.value, serving, next, reason, code, function)))

    async def failed(self, codes: Collection[str]) -> list[Function]:
        """Those whose first rollout failed for one of these reasons."""
        query = f"{_FUNCTION} WHERE f.state = ? AND f.next IS NOT NULL"
        rows = await self._database.run(lambda c: c.execute(query, (State.FAILED.value,)).fetchall())
        return [function for function in map(_function, rows) if function.reason_code in codes]

    async def begin_again(self, function: Function) -> bool:
        """Its failed target is under way once more; False when something else happened to it meanwhile."""
        query = "UPDATE functions SET state = ?, reason = '', reason_code = '' WHERE id = ? AND state = ? AND next = ?"
        values = (State.PREPARING.value, function.id, State.FAILED.value, function.next)
        return await self._database.run(lambda c: c.execute(query, values).rowcount) == 1

    async def next_generation(self, uid: bytes) -> int | None:
        """A number for the function's route and targets, higher than every one before; None: the function is gone."""
        query = "UPDATE functions SET generation = generation + 1 WHERE uid = ? RETURNING generation"
        row = await self._database.run(lambda c: c.execute(query, (uid,)).fetchone())
        return None if row is None else int(row[0])

    async def new_generations(self) -> None:
        """At start: what is told now is newer than what the dispatcher may still hold."""
        await self._database.run(lambda c: c.execute("UPDATE functions SET generation = generation + 1"))

    async def forget_target(self, target: int) -> None:
        await self._database.run(lambda c: c.execute("DELETE FROM targets WHERE id = ?", (target,)))

    async def forget_strays(self) -> int:
        """Targets that a crash left behind between a change of route and their end. How many."""
        query = (
            "DELETE FROM targets WHERE id NOT IN (SELECT serving FROM functions WHERE serving IS NOT NULL "
            "UNION SELECT next FROM functions WHERE next IS NOT NULL UNION SELECT target FROM versions)"
        )
        return await self._database.run(lambda c: c.execute(query).rowcount)

    async def forget(self, function: int) -> None:
        def work(c: sqlite3.Connection) -> None:
            c.execute("UPDATE functions SET serving = NULL, next = NULL WHERE id = ?", (function,))
            c.execute("DELETE FROM functions WHERE id = ?", (function,))

        await self._database.run(work)

    async def packages_in_use(self) -> tuple[set[str], set[str]]:
        """The zips and the trees that targets refer to."""
        rows = await self._database.run(lambda c: c.execute("SELECT zip, package FROM targets").fetchall())
        return {row[0] for row in rows}, {row[1] for row in rows}

    def _configuration(self, row: tuple[Any, ...]) -> FunctionConfiguration:
        function = _function(row[:11])
        of = Deployed(**{member: getattr(function, member) for member in Deployed.__struct_fields__})
        return self.rows.configuration(of, row[11], row[12], row[13])


def check_revision(given: str | None, current: str, what: str) -> None:
    """Raises PreconditionFailed."""
    if given is not None and given != current:
        raise errors.PreconditionFailed(
            f"The RevisionId provided does not match the latest one. Get the {what} again and repeat the change."
        )


def check_settled(name: str, state: State) -> None:
    """Raises ResourceConflict while a function is on its way from one state to another."""
    if state not in SETTLED:
        what = "being deleted" if state is State.DELETING else "being created or updated"
        raise errors.ResourceConflict(
            f"The operation cannot be performed at this time: {name} is {what}. Try again when it is done."
        )


def _function(row: tuple[object, ...]) -> Function:
    values = dict(zip(Function.__struct_fields__, row, strict=True))
    return msgspec.convert(values, Function, builtin_types=(bytes,))
