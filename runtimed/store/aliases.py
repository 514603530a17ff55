"""The registry of aliases: rows of `aliases`, and where each leads."""

from __future__ import annotations

import sqlite3
import uuid

import msgspec
from msgspec import Struct

from runtimed.machines.deployment import State
from runtimed.model import errors, quotas
from runtimed.model.arn import LATEST, Identity
from runtimed.model.version import number_of
from runtimed.store.database import Database
from runtimed.store.functions import check_revision
from runtimed.store.qualifiers import check_alias
from runtimed.store.versions import forget_qualifier


class Alias(Struct, frozen=True, kw_only=True):
    """An alias' row."""

    id: int
    function: int
    """The function's row."""
    uid: bytes
    name: str
    """The function's."""
    alias: str
    version: str
    """$LATEST, or a number in decimal."""
    alternate: str | None
    weight: float
    """The probability of `alternate`."""
    description: str
    revision_id: str
    generation: int
    modified_ms: int


class Lead(Struct, frozen=True, kw_only=True):
    """Where an alias leads: targets of versions, whatever their state. None: $LATEST's, or no alternate."""

    alias: Alias
    target: int | None
    alternate: int | None


class Change(Struct, frozen=True, kw_only=True):
    """What an alias shall be; None: as it is. `alternate`: a version and its weight, or () for none."""

    version: str | None = None
    alternate: tuple[str, float] | tuple[()] | None = None
    description: str | None = None


_COLUMNS = (
    "a.id, a.function, f.uid, f.name, a.name, a.version, a.alternate, a.weight, a.description, a.revision_id, "
    "a.generation, a.modified_ms"
)
_ALIAS = f"SELECT {_COLUMNS} FROM aliases a JOIN functions f ON f.id = a.function"
_LEAD = (
    f"SELECT {_COLUMNS}, v.target, w.target FROM aliases a JOIN functions f ON f.id = a.function "
    "LEFT JOIN versions v ON v.function = a.function AND v.number = CAST(a.version AS INTEGER) "
    "LEFT JOIN versions w ON w.function = a.function AND w.number = CAST(a.alternate AS INTEGER)"
)
_N = 12  # columns of the alias' own


class AliasStore:
    """All methods run in one transaction each, on the database's thread."""

    def __init__(self, database: Database, identity: Identity) -> None:
        self._database = database
        self._identity = identity

    async def find(self, name: str, alias: str) -> Alias | None:
        """`name`: the function's."""
        query = f"{_ALIAS} WHERE f.name = ? AND a.name = ?"
        row = await self._database.run(lambda c: c.execute(query, (name, alias)).fetchone())
        return _alias(row) if row else None

    async def page(self, name: str, after: str, limit: int, version: str = "") -> list[Alias]:
        """A function's, in the order of their names; `version`: only those that lead to it."""
        query = (
            f"{_ALIAS} WHERE f.name = ? AND a.name > ? AND (? = '' OR ? IN (a.version, a.alternate)) "
            "ORDER BY a.name LIMIT ?"
        )
        values = (name, after, version, version, limit)
        rows = await self._database.run(lambda c: c.execute(query, values).fetchall())
        return [_alias(row) for row in rows]

    async def of_function(self, function: int) -> list[Alias]:
        query = f"{_ALIAS} WHERE a.function = ? ORDER BY a.name"
        return [_alias(row) for row in await self._database.run(lambda c: c.execute(query, (function,)).fetchall())]

    async def naming(self, function: int, version: str) -> list[Alias]:
        """Those that lead to a version of a function, with or without a weight."""
        query = f"{_ALIAS} WHERE a.function = ? AND ? IN (a.version, a.alternate)"
        rows = await self._database.run(lambda c: c.execute(query, (function, version)).fetchall())
        return [_alias(row) for row in rows]

    async def create(self, name: str, alias: str, change: Change, now_ms: int) -> Alias:
        """Raises ResourceNotFound (function, version), ResourceConflict (name is taken, version is not ready),
        InvalidParameterValue, LimitExceeded."""
        revision = str(uuid.uuid4())

        def work(c: sqlite3.Connection) -> Alias:
            row = c.execute("SELECT id, state FROM functions WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise errors.ResourceNotFound(
                    f"Function not found: {self._identity.function_arn(name)}. `runtimectl functions` lists those that "
                    "exist."
                )
            if State(row[1]) is State.DELETING:
                raise errors.ResourceConflict(f"{name} is being deleted.")
            if c.execute("SELECT count(*) FROM aliases").fetchone()[0] >= quotas.ALIASES:
                raise errors.LimitExceeded(
                    f"The node has {quotas.ALIASES} aliases, as many as it keeps. Delete some that are not needed."
                )
            version, alternate = change.version or LATEST, change.alternate or (None, 0.0)
            self._check(c, name, row[0], version, alternate[0])
            values = (row[0], alias, version, *alternate, change.description or "", revision, now_ms)
            try:
                cursor = c.execute(
                    "INSERT INTO aliases (function, name, version, alternate, weight, description, revision_id, "
                    "generation, modified_ms) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
                    values,
                )
            except sqlite3.IntegrityError:
                raise errors.ResourceExists(
                    f"Alias already exists: {self._identity.function_arn(name, alias)}. Update it, or choose another "
                    "name."
                ) from None
            return _alias(c.execute(f"{_ALIAS} WHERE a.id = ?", (cursor.lastrowid,)).fetchone())

        return await self._database.run(work)

    async def change(self, name: str, alias: str, change: Change, revision_id: str | None, now_ms: int) -> Alias:
        """Raises ResourceNotFound, PreconditionFailed, ResourceConflict, InvalidParameterValue."""
        revision = str(uuid.uuid4())

        def work(c: sqlite3.Connection) -> Alias:
            was, version, alternate = self._changed(c, name, alias, change, revision_id)
            description = was.description if change.description is None else change.description
            c.execute(
                "UPDATE aliases SET version = ?, alternate = ?, weight = ?, description = ?, revision_id = ?, "
                "modified_ms = ? WHERE id = ?",
                (version, *alternate, description, revision, now_ms, was.id),
            )
            return _alias(c.execute(f"{_ALIAS} WHERE a.id = ?", (was.id,)).fetchone())

        return await self._database.run(work)

    async def check(self, name: str, alias: str, change: Change, revision_id: str | None) -> None:
        """Raises what `change` would, now."""
        await self._database.run(lambda c: self._changed(c, name, alias, change, revision_id))

    def _changed(
        self, c: sqlite3.Connection, name: str, alias: str, change: Change, revision_id: str | None
    ) -> tuple[Alias, str, tuple[str | None, float]]:
        """What it is; where it would lead then, and the alternate with its weight."""
        row = c.execute(f"{_ALIAS} WHERE f.name = ? AND a.name = ?", (name, alias)).fetchone()
        if row is None:
            raise self.missing(name, alias)
        was = _alias(row)
        check_revision(revision_id, was.revision_id, "alias")
        version = was.version if change.version is None else change.version
        alternate = (was.alternate, was.weight) if change.alternate is None else change.alternate or (None, 0.0)
        if change.version is not None or change.alternate is not None:
            self._check(c, name, was.function, version, alternate[0])
            check_alias(c, was.function, name, alias, version, alternate[0])
        return was, version, alternate

    async def remove(self, name: str, alias: str) -> Alias | None:
        """What it was, if there was one; what is provisioned for it goes too."""

        def work(c: sqlite3.Connection) -> Alias | None:
            row = c.execute(f"{_ALIAS} WHERE f.name = ? AND a.name = ?", (name, alias)).fetchone()
            if row is None:
                return None
            was = _alias(row)
            c.execute("DELETE FROM aliases WHERE id = ?", (was.id,))
            forget_qualifier(c, was.function, alias)
            return was

        return await self._database.run(work)

    # ---- for the routes --------------------------------------------------------------------------------------

    async def new_generations(self) -> None:
        """At start: what is told now is newer than what the dispatcher may still hold."""
        await self._database.run(lambda c: c.execute("UPDATE aliases SET generation = generation + 1"))

    async def leads(self) -> list[Lead]:
        """Of all aliases: one query."""
        return [_lead(row) for row in await self._database.run(lambda c: c.execute(_LEAD).fetchall())]

    async def lead_again(self, alias: int) -> Lead | None:
        """Where it leads now, with a generation higher than every one before; None: it or its function goes."""

        def work(c: sqlite3.Connection) -> Lead | None:
            c.execute("UPDATE aliases SET generation = generation + 1 WHERE id = ?", (alias,))
            row = c.execute(f"{_LEAD} WHERE a.id = ? AND f.state <> ?", (alias, State.DELETING.value)).fetchone()
            return _lead(row) if row else None

        return await self._database.run(work)

    # ---- parts -----------------------------------------------------------------------------------------------

    def missing(self, name: str, alias: str) -> errors.ResourceNotFound:
        return errors.ResourceNotFound(
            f"Cannot find alias arn: {self._identity.function_arn(name, alias)}. `runtimectl aliases {name}` lists "
            "those that exist."
        )

    def _check(self, c: sqlite3.Connection, name: str, function: int, version: str, alternate: str | None) -> None:
        """The versions are there and serve."""
        if alternate is not None and LATEST in (version, alternate):
            raise errors.InvalidParameterValue(
                f"RoutingConfig: weights are between two published versions; {LATEST} is none. Publish one first."
            )
        if alternate == version:
            raise errors.InvalidParameterValue(
                f"RoutingConfig: version {version} is the alias' own. Give another version, or no weights."
            )
        for number in (version, alternate):
            if number is None or number == LATEST:
                continue
            query = "SELECT state FROM versions WHERE function = ? AND number = ?"
            row = c.execute(query, (function, number_of(number))).fetchone()
            if row is None:
                raise errors.ResourceNotFound(
                    f"Function not found: {self._identity.function_arn(name, number)}. `runtimectl versions {name}` "
                    "lists those that exist."
                )
            if State(row[0]) is not State.ACTIVE:
                raise errors.ResourceConflict(
                    f"The operation cannot be performed at this time: version {number} of {name} is not Active. Look "
                    "at its state, and try again when it is."
                )


def _alias(row: tuple[object, ...]) -> Alias:
    values = dict(zip(Alias.__struct_fields__, row, strict=True))
    return msgspec.convert(values, Alias, builtin_types=(bytes,))


def _lead(row: tuple[object, ...]) -> Lead:
    return msgspec.convert(
        {"alias": _alias(row[:_N]), "target": row[_N], "alternate": row[_N + 1]}, Lead, builtin_types=(bytes,)
    )
