"""What a function's qualifiers stand for: $LATEST, the numbers of its versions, the names of its aliases. For the
tables whose rows belong to a qualifier: they are not made for one that is missing."""

from __future__ import annotations

import sqlite3

from msgspec import Struct

from runtimed.machines.deployment import State
from runtimed.model import errors
from runtimed.model.arn import LATEST
from runtimed.model.version import is_number, number_of


class Meant(Struct, frozen=True, kw_only=True):
    """What one stands for."""

    version: str
    """$LATEST or a number."""
    alternate: str = ""
    """The version that gets a part of the invocations; empty: none does."""
    snap_start: bool = False
    """The version's environments are copies of a snapshot."""
    failed: str | None = None
    """Why the version could not be made; None: it works, or may yet."""


_VERSION = (
    "SELECT json_extract(CAST(t.definition AS TEXT), '$.snap_start.ApplyOn'), v.state, v.reason FROM versions v "
    "LEFT JOIN targets t ON t.id = v.target WHERE v.function = ? AND v.number = ? AND v.state <> ?"
)
_LATEST = (
    "SELECT json_extract(CAST(t.definition AS TEXT), '$.snap_start.ApplyOn'), f.state, f.reason FROM functions f "
    "LEFT JOIN targets t ON t.id = COALESCE(f.next, f.serving) WHERE f.id = ?"
)


def meant(c: sqlite3.Connection, function: int, qualifier: str) -> Meant | None:
    """None: the function has no such version and no such alias."""
    version, alternate = qualifier, ""
    if qualifier != LATEST and not is_number(qualifier):
        query = "SELECT version, coalesce(alternate, '') FROM aliases WHERE function = ? AND name = ?"
        row = c.execute(query, (function, qualifier)).fetchone()
        if row is None:
            return None
        version, alternate = row
    if version == LATEST:
        row = c.execute(_LATEST, (function,)).fetchone()
    else:
        row = c.execute(_VERSION, (function, number_of(version), State.DELETING.value)).fetchone()
    if row is None:
        return None
    apply_on, state, reason = row
    return Meant(
        version=version,
        alternate=alternate,
        snap_start=apply_on not in (None, "None"),
        failed=reason if state == State.FAILED.value else None,
    )


def function_of(c: sqlite3.Connection, name: str, qualifier: str) -> tuple[int, bytes, Meant]:
    """A function's row, its uid, and what the qualifier stands for. Raises ResourceNotFound."""
    row = c.execute("SELECT id, uid FROM functions WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise errors.ResourceNotFound(f"Function not found: {name}. `runtimectl functions` lists those that exist.")
    found = meant(c, row[0], qualifier)
    if found is None:
        raise errors.ResourceNotFound(
            f"Function not found: {name}:{qualifier}. It has no such version and no such alias: "
            f"`runtimectl versions {name}` and `runtimectl aliases {name}` list those that exist."
        )
    return row[0], row[1], found


def check_alias(
    c: sqlite3.Connection, function: int, name: str, alias: str, version: str, alternate: str | None
) -> None:
    """Whether an alias may lead there, with what is provisioned under it. Raises InvalidParameterValue."""
    query = "SELECT 1 FROM concurrency WHERE function = ? AND qualifier = ?"
    if c.execute(query, (function, alias)).fetchone() is None:
        return
    why = ""
    if alternate is not None:
        why = f"concurrency is provisioned under {alias}, which is not possible with weights"
    elif c.execute(query, (function, version)).fetchone() is not None:
        why = f"concurrency is provisioned under {alias}, and under version {version} too: a version has it under one"
    elif (found := meant(c, function, version)) is not None and found.snap_start:
        why = f"concurrency is provisioned under {alias}, which is not possible for version {version}, with SnapStart"
    if why:
        raise errors.InvalidParameterValue(
            f"Invalid alias configuration for provisioned concurrency: {why}. "
            f"`runtimectl provision delete {name}:{alias}` takes it away."
        )


def check_snap_start(c: sqlite3.Connection, function: int) -> None:
    """Whether $LATEST may have SnapStart, where it has: not with what is provisioned for it, or is to be. In the
    transaction of a change: what is provisioned meanwhile looks here in its own. Raises InvalidParameterValue."""
    found = meant(c, function, LATEST)
    if found is None or not found.snap_start:
        return
    for table in ("concurrency", "scalable_targets"):
        query = (
            f"SELECT f.name FROM {table} t JOIN functions f ON f.id = t.function "
            "LEFT JOIN aliases a ON a.function = t.function AND a.name = t.qualifier "
            "WHERE t.function = ? AND t.qualifier <> '' AND COALESCE(a.version, t.qualifier) = ?"
        )
        row = c.execute(query, (function, LATEST)).fetchone()
        if row is not None:
            raise errors.InvalidParameterValue(
                f"SnapStart is not supported where concurrency is provisioned, as it is for {row[0]}. Take that away "
                "(`runtimectl provision delete`, `runtimectl provision target --delete`), or leave ApplyOn at None."
            )
