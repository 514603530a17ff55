"""The registry of functions: rows of `functions` and `targets`, and the configuration that callers see.

What a function shows is its `next` target while one is being rolled out (or when none ever served), else the one that
serves. Environment variables are sealed with the function's uid, and opened only for who asks for the configuration or
rolls the target out.
"""

from __future__ import annotations

import base64
import sqlite3
import uuid
from collections.abc import Callable, Collection
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from runtimed.machines.deployment import PUBLIC, SETTLED, State
from runtimed.model import errors
from runtimed.model.arn import LATEST, Identity
from runtimed.model.function import (
    Environment,
    EphemeralStorage,
    FunctionConfiguration,
    LastUpdateStatus,
    LoggingConfig,
    Snapshot,
    SnapStart,
    SnapStartApplyOn,
    SnapStartOptimizationStatus,
    SnapStartResponse,
)
from runtimed.model.function import State as PublicState
from runtimed.model.shape import UNSET
from runtimed.store.database import Database
from runtimed.store.packages import package_key
from runtimed.store.secrets import Secrets


class Definition(Struct, frozen=True, kw_only=True):
    """What an owner defines, but for the variables: kept as JSON. Members may be added with a default, never
    removed."""

    runtime: str
    handler: str
    description: str
    timeout: int
    memory_size: int
    storage_size: int
    logging: LoggingConfig
    zip_sha256: str
    zip_size: int
    snap_start: SnapStart = SnapStart()


class Target(Struct, frozen=True, kw_only=True):
    """One immutable state of a function's code and configuration."""

    id: int
    uid: bytes
    name: str
    definition: Definition
    environment: dict[str, str]
    package: str


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

_definition_encoder = msgspec.json.Encoder()
_definition_decoder = msgspec.json.Decoder(Definition)
_variables_decoder = msgspec.json.Decoder(dict[str, str])

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
        self._secrets = secrets
        self._identity = identity
        self._architecture = architecture
        self.snapshot: Callable[[int], Snapshot] = lambda target: Snapshot(ready=False)
        """What is known of a target's snapshot."""

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

    async def create(self, name: str, definition: Definition, environment: dict[str, str], now_ms: int) -> Function:
        """A new function with its first target as `next`. Raises ResourceExists."""
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
            target = self._insert_target(c, cursor.lastrowid or 0, uid, definition, environment)
            c.execute("UPDATE functions SET next = ? WHERE id = ?", (target, cursor.lastrowid))
            return _function(c.execute(f"{_FUNCTION} WHERE f.id = ?", (cursor.lastrowid,)).fetchone())

        return await self._database.run(work)

    async def change(
        self, name: str, revision_id: str | None, change: Change, now_ms: int
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
            if revision_id is not None and revision_id != function.revision_id:
                raise errors.PreconditionFailed(
                    "The RevisionId provided does not match the latest one. Get the function again and repeat the "
                    "change."
                )
            if function.state not in SETTLED:
                what = "being deleted" if function.state is State.DELETING else "being created or updated"
                raise errors.ResourceConflict(
                    f"The operation cannot be performed at this time: {name} is {what}. Try again when it is done."
                )
            definition, environment = change(*self._decode(function.uid, row[12], row[13]))
            target = self._insert_target(c, function.id, function.uid, definition, environment)
            state = State.PREPARING if function.serving is None else State.UPDATE_PREPARING
            c.execute(
                "UPDATE functions SET next = ?, state = ?, reason = '', reason_code = '', revision_id = ?, "
                "modified_ms = ? WHERE id = ?",
                (target, state.value, revision, now_ms, function.id),
            )
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
        return [(_function(row[:11]), self._target(row[11], *row[1:3], *row[12:])) for row in rows]

    async def target(self, target: int) -> Target:
        """A target's contents. KeyError when its row is gone."""
        query = (
            "SELECT t.id, f.uid, f.name, t.definition, t.environment, t.package "
            "FROM targets t JOIN functions f ON f.id = t.function WHERE t.id = ?"
        )
        row = await self._database.run(lambda c: c.execute(query, (target,)).fetchone())
        if row is None:
            raise KeyError(target)
        return self._target(*row)

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
            "UNION SELECT next FROM functions WHERE next IS NOT NULL)"
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

    # ---- rows ------------------------------------------------------------------------------------------------

    def _insert_target(
        self, c: sqlite3.Connection, function: int, uid: bytes, definition: Definition, environment: dict[str, str]
    ) -> int:
        sealed = self._secrets.seal(msgspec.json.encode(environment), uid)
        package = package_key(definition.zip_sha256, definition.runtime)
        encoded = _definition_encoder.encode(definition)
        cursor = c.execute(
            "INSERT INTO targets (function, definition, environment, zip, package) VALUES (?, ?, ?, ?, ?)",
            (function, encoded, sealed, definition.zip_sha256, package),
        )
        return cursor.lastrowid or 0

    def _decode(self, uid: bytes, definition: bytes, environment: bytes) -> tuple[Definition, dict[str, str]]:
        return _definition_decoder.decode(definition), _variables_decoder.decode(self._secrets.open(environment, uid))

    def _target(
        self, number: int, uid: bytes, name: str, definition: bytes, environment: bytes, package: str
    ) -> Target:
        defined, variables = self._decode(uid, definition, environment)
        return Target(id=number, uid=uid, name=name, definition=defined, environment=variables, package=package)

    def _configuration(self, row: tuple[object, ...]) -> FunctionConfiguration:
        function = _function(row[:11])
        definition, variables = self._decode(function.uid, row[12], row[13])  # type: ignore[arg-type]
        state, status = PUBLIC[function.state]
        failed_update = state is PublicState.ACTIVE and status is LastUpdateStatus.FAILED
        reason, code = function.reason, function.reason_code
        if state is PublicState.PENDING:
            reason, code = "The function is being created.", "Creating"
        elif state is PublicState.INACTIVE:
            reason, code = "The function is being deleted.", "Deleting"
        snapshot = Snapshot(ready=False)
        if definition.snap_start.apply_on is not SnapStartApplyOn.NONE:
            snapshot = self.snapshot(row[11])  # type: ignore[arg-type]
        if state is PublicState.ACTIVE and not reason and snapshot.refused:
            reason, code = f"SnapStart is not possible: {snapshot.refused}.", "SnapStartNotPossible"
        return FunctionConfiguration(
            function_name=function.name,
            function_arn=self._identity.function_arn(function.name),
            version=LATEST,
            runtime=definition.runtime,
            handler=definition.handler,
            description=definition.description,
            timeout=definition.timeout,
            memory_size=definition.memory_size,
            ephemeral_storage=EphemeralStorage(size=definition.storage_size),
            environment=Environment(variables=variables),
            logging_config=definition.logging,
            snap_start=SnapStartResponse(
                apply_on=definition.snap_start.apply_on,
                optimization_status=SnapStartOptimizationStatus.ON
                if snapshot.ready
                else SnapStartOptimizationStatus.OFF,
            ),
            code_size=definition.zip_size,
            code_sha256=_base64_of(definition.zip_sha256),
            last_modified=_lambda_time(function.modified_ms),
            revision_id=function.revision_id,
            architectures=[self._architecture],
            state=state,
            state_reason=reason if reason and not failed_update else UNSET,
            state_reason_code=code if code and not failed_update else UNSET,
            last_update_status=status,
            last_update_status_reason=reason if reason and failed_update else UNSET,
            last_update_status_reason_code=code if code and failed_update else UNSET,
        )


def _function(row: tuple[object, ...]) -> Function:
    values = dict(zip(Function.__struct_fields__, row, strict=True))
    return msgspec.convert(values, Function, builtin_types=(bytes,))


def _base64_of(hex_digest: str) -> str:
    return base64.b64encode(bytes.fromhex(hex_digest)).decode()


def _lambda_time(milliseconds: int) -> str:
    """As Lambda writes LastModified: 2026-01-31T12:00:00.000+0000."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}+0000"
