"""The registry of published versions: rows of `versions`, each with a target of its own.

A version is made once and never changed. Its row walks through the states of a function's first rollout; its target is
the copy of the function's, in which `Definition.version` says the number.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Collection
from typing import Any

import msgspec
from msgspec import Struct

from runtimed.machines.deployment import State
from runtimed.model import errors
from runtimed.model.function import FunctionConfiguration
from runtimed.store.database import Database
from runtimed.store.functions import check_revision, check_settled
from runtimed.store.targets import Deployed, Target, TargetRows, base64_of, check_room

USABLE = (State.PREPARING, State.ACTIVE)
"""In the rows of versions that serve, or soon will."""


class Version(Struct, frozen=True, kw_only=True):
    """A version's row."""

    id: int
    function: int
    """The function's row."""
    uid: bytes
    name: str
    """The function's."""
    number: int
    target: int
    state: State
    reason: str
    reason_code: str
    revision_id: str
    modified_ms: int

    @property
    def serving(self) -> int | None:
        """Its target, when the dispatcher should know it."""
        return self.target if self.state is State.ACTIVE else None

    @property
    def next(self) -> int | None:
        """Its target, while it is not what serves."""
        return None if self.state is State.ACTIVE else self.target


class Wish(Struct, frozen=True, kw_only=True):
    """What is asked for with a new version; None: nothing."""

    description: str | None = None
    code_sha256: str | None = None
    revision_id: str | None = None


_COLUMNS = (
    "v.id, v.function, f.uid, f.name, v.number, v.target, v.state, v.reason, v.reason_code, v.revision_id, "
    "v.modified_ms"
)
_VERSION = f"SELECT {_COLUMNS} FROM versions v JOIN functions f ON f.id = v.function"
_WHOLE = (
    f"SELECT {_COLUMNS}, t.id, t.definition, t.environment, t.package FROM versions v "
    "JOIN functions f ON f.id = v.function JOIN targets t ON t.id = v.target"
)
_N = 11  # columns of the version's own


class VersionStore:
    """All methods run in one transaction each, on the database's thread."""

    def __init__(self, database: Database, rows: TargetRows) -> None:
        self._database = database
        self._rows = rows

    # ---- for the API -----------------------------------------------------------------------------------------

    async def get(self, name: str, number: int) -> FunctionConfiguration | None:
        query = f"{_WHOLE} WHERE f.name = ? AND v.number = ?"
        row = await self._database.run(lambda c: c.execute(query, (name, number)).fetchone())
        return self._configuration(row) if row else None

    async def page(self, name: str, after: int, limit: int) -> list[FunctionConfiguration]:
        """A function's, in the order of their numbers."""
        query = f"{_WHOLE} WHERE f.name = ? AND v.number > ? ORDER BY v.number LIMIT ?"
        rows = await self._database.run(lambda c: c.execute(query, (name, after, limit)).fetchall())
        return [self._configuration(row) for row in rows]

    # ---- for the deployer ------------------------------------------------------------------------------------

    async def publish(self, name: str, wish: Wish, now_ms: int) -> tuple[Version, bool]:
        """The version that holds what serves now; whether it is new, else it was the last one published.

        Raises ResourceNotFound, PreconditionFailed, InvalidParameterValue (the code's digest), ResourceConflict,
        LimitExceeded.
        """

        def work(c: sqlite3.Connection) -> tuple[Version, bool]:
            query = "SELECT id, revision_id, state, serving FROM functions WHERE name = ?"
            row = c.execute(query, (name,)).fetchone()
            if row is None:
                missing = self._rows.identity.function_arn(name)
                raise errors.ResourceNotFound(
                    f"Function not found: {missing}. `runtimectl functions` lists those that exist."
                )
            function, revision, state, serving = row
            check_revision(wish.revision_id, revision, "function")
            check_settled(name, State(state))
            if serving is None:
                raise errors.ResourceConflict(
                    f"{name} has no code that works: its state is Failed. Update it, and publish a version then."
                )
            return self._publish(c, function, serving, wish, now_ms)

        return await self._database.run(work)

    def along(
        self, wish: Wish, now_ms: int, published: Callable[[Version, bool], None]
    ) -> Callable[[sqlite3.Connection, int], None]:
        """What publishes a target in the transaction that makes it the function's next; `published` is told."""

        def work(c: sqlite3.Connection, target: int) -> None:
            (function,) = c.execute("SELECT function FROM targets WHERE id = ?", (target,)).fetchone()
            published(*self._publish(c, function, target, wish, now_ms))

        return work

    async def find(self, name: str, number: int) -> Version | None:
        query = f"{_VERSION} WHERE f.name = ? AND v.number = ?"
        row = await self._database.run(lambda c: c.execute(query, (name, number)).fetchone())
        return _version(row) if row else None

    async def of_function(self, function: int) -> list[Version]:
        query = f"{_VERSION} WHERE v.function = ? ORDER BY v.number"
        return [_version(row) for row in await self._database.run(lambda c: c.execute(query, (function,)).fetchall())]

    async def all(self) -> list[Version]:
        return [_version(row) for row in await self._database.run(lambda c: c.execute(_VERSION).fetchall())]

    async def served(self) -> list[tuple[Version, Target]]:
        """All that serve, each with its target: one query, for a thousand of them."""
        query = f"{_WHOLE} WHERE v.state = ?"
        rows = await self._database.run(lambda c: c.execute(query, (State.ACTIVE.value,)).fetchall())
        return [(_version(row[:_N]), self._rows.target(row[_N], row[2], row[3], *row[_N + 1 :])) for row in rows]

    async def failed(self, codes: Collection[str]) -> list[Version]:
        """Those whose rollout failed for one of these reasons."""
        query = f"{_VERSION} WHERE v.state = ?"
        rows = await self._database.run(lambda c: c.execute(query, (State.FAILED.value,)).fetchall())
        return [version for version in map(_version, rows) if version.reason_code in codes]

    async def record(self, version: int, state: State, reason: str, code: str) -> None:
        """One that is being deleted stays so, whatever else comes to its end."""
        query = "UPDATE versions SET state = ?, reason = ?, reason_code = ? WHERE id = ? AND state <> ?"
        values = (state.value, reason, code, version, State.DELETING.value)
        await self._database.run(lambda c: c.execute(query, values))

    async def begin_again(self, version: Version) -> bool:
        """One that failed is under way once more; False when something else happened to it meanwhile."""
        query = (
            "UPDATE versions SET state = ?, reason = '', reason_code = '' WHERE id = ? AND state = ? "
            "AND (SELECT f.state FROM functions f WHERE f.id = function) <> ?"
        )
        values = (State.PREPARING.value, version.id, State.FAILED.value, State.DELETING.value)
        return await self._database.run(lambda c: c.execute(query, values).rowcount) == 1

    async def condemn(self, name: str, number: int) -> Version:
        """It is about to be deleted: from now on no alias can lead to it. Raises ResourceNotFound, ResourceConflict."""

        def work(c: sqlite3.Connection) -> Version:
            row = c.execute(f"{_VERSION} WHERE f.name = ? AND v.number = ?", (name, number)).fetchone()
            if row is None:
                raise self.missing(name, str(number))
            version = _version(row)
            query = "SELECT name FROM aliases WHERE function = ? AND ? IN (version, alternate) ORDER BY name"
            names = [row[0] for row in c.execute(query, (version.function, str(number)))]
            if names:
                some = ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
                raise errors.ResourceConflict(
                    f"Version {number} of {name} cannot be deleted: these aliases lead to it: {some}. Move or delete "
                    "them first."
                )
            c.execute("UPDATE versions SET state = ? WHERE id = ?", (State.DELETING.value, version.id))
            return version

        return await self._database.run(work)

    async def forget(self, version: Version) -> None:
        """Row and target; also what is provisioned for it."""

        def work(c: sqlite3.Connection) -> None:
            c.execute("DELETE FROM versions WHERE id = ?", (version.id,))
            c.execute("DELETE FROM targets WHERE id = ?", (version.target,))
            forget_qualifier(c, version.function, str(version.number))

        await self._database.run(work)

    def missing(self, name: str, qualifier: str) -> errors.ResourceNotFound:
        return errors.ResourceNotFound(
            f"Function not found: {self._rows.identity.function_arn(name, qualifier)}. `runtimectl versions {name}` "
            f"and `runtimectl aliases {name}` list those that exist."
        )

    # ---- rows ------------------------------------------------------------------------------------------------

    def _publish(
        self, c: sqlite3.Connection, function: int, source: int, wish: Wish, now_ms: int
    ) -> tuple[Version, bool]:
        """A version of `source`, one of the function's targets."""
        query = (
            "SELECT f.uid, f.published, t.definition, t.environment FROM functions f JOIN targets t ON t.id = ? "
            "WHERE f.id = ?"
        )
        uid, published, definition, environment = c.execute(query, (source, function)).fetchone()
        defined, variables = self._rows.decode(uid, definition, environment)
        digest = base64_of(defined.zip_sha256)
        if wish.code_sha256 is not None and wish.code_sha256 != digest:
            raise errors.InvalidParameterValue(
                f"CodeSha256: {wish.code_sha256} is not that of $LATEST's code, {digest}. Look at what is deployed, "
                "and give its digest or none."
            )
        row = c.execute(f"{_WHOLE} WHERE v.function = ? ORDER BY v.number DESC LIMIT 1", (function,)).fetchone()
        if row is not None and (last := _version(row[:_N])).state in USABLE:
            was, had = self._rows.decode(uid, row[_N + 1], row[_N + 2])
            if was.unpublished() == defined and had == variables:
                return last, False
        check_room(c)
        number = published + 1
        target = self._rows.insert(c, function, uid, defined.published(number, wish.description), variables)
        c.execute("UPDATE functions SET published = ? WHERE id = ?", (number, function))
        cursor = c.execute(
            "INSERT INTO versions (function, number, target, state, reason, reason_code, revision_id, modified_ms) "
            "VALUES (?, ?, ?, ?, '', '', ?, ?)",
            (function, number, target, State.PREPARING.value, str(uuid.uuid4()), now_ms),
        )
        return _version(c.execute(f"{_VERSION} WHERE v.id = ?", (cursor.lastrowid,)).fetchone()), True

    def _configuration(self, row: tuple[Any, ...]) -> FunctionConfiguration:
        version = _version(row[:_N])
        of = Deployed(**{member: getattr(version, member) for member in Deployed.__struct_fields__})
        return self._rows.configuration(of, row[_N], row[_N + 1], row[_N + 2])


def forget_qualifier(c: sqlite3.Connection, function: int, qualifier: str) -> None:
    """What is kept for a version or an alias goes with it."""
    for table in ("concurrency", "scalable_targets", "event_rules"):
        c.execute(f"DELETE FROM {table} WHERE function = ? AND qualifier = ?", (function, qualifier))


def _version(row: tuple[object, ...]) -> Version:
    values = dict(zip(Version.__struct_fields__, row, strict=True))
    return msgspec.convert(values, Version, builtin_types=(bytes,))
