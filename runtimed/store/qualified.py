"""Functions, versions and aliases as who reads them sees them: configurations, by name and qualifier."""

from __future__ import annotations

import sqlite3

from msgspec.structs import replace

from runtimed.model.arn import LATEST, Identity
from runtimed.model.function import FunctionConfiguration
from runtimed.model.version import is_number, number_of
from runtimed.store.aliases import AliasStore
from runtimed.store.database import Database
from runtimed.store.functions import ABOVE_NAMES, FunctionStore
from runtimed.store.versions import VersionStore

# Every function with the number 0, and its versions.
_KEYS = (
    "SELECT name, number FROM (SELECT name, 0 AS number FROM functions UNION ALL "
    "SELECT f.name, v.number FROM versions v JOIN functions f ON f.id = v.function) "
    "WHERE (name, number) > (?, ?) AND name BETWEEN ? AND ? ORDER BY name, number LIMIT ?"
)


class QualifiedReader:
    """Reads only."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        functions: FunctionStore,
        versions: VersionStore,
        aliases: AliasStore,
    ) -> None:
        self._database = database
        self._identity = identity
        self._functions = functions
        self._versions = versions
        self._aliases = aliases

    async def get(self, name: str, qualifier: str = "") -> FunctionConfiguration | None:
        """As it is under this qualifier, which its ARN then has; of an alias, the version that it leads to."""
        if not qualifier:
            return await self._functions.get(name)
        version = qualifier
        if qualifier != LATEST and not is_number(qualifier):
            alias = await self._aliases.find(name, qualifier)
            if alias is None:
                return None
            version = alias.version
        if version == LATEST:
            found = await self._functions.get(name)
        else:
            found = await self._versions.get(name, number_of(version))
        return found and replace(found, function_arn=self._identity.function_arn(name, qualifier))

    async def page(self, after: str, limit: int, prefix: str = "") -> list[FunctionConfiguration]:
        """Up to `limit` functions whose names sort after `after` and begin with `prefix`, in their names' order."""
        return await self._functions.page(after, limit, prefix)

    async def page_of_all(self, marker: str, limit: int, prefix: str) -> tuple[list[FunctionConfiguration], str]:
        """Functions with their versions; what the next page begins with, empty after the last. `marker`: so, or
        empty."""
        name, _, number = marker.partition(":")
        after = (name, number_of(number) if marker else -1)

        def work(c: sqlite3.Connection) -> list[tuple[str, int]]:
            return c.execute(_KEYS, (*after, prefix, f"{prefix}{ABOVE_NAMES}", limit + 1)).fetchall()

        keys = await self._database.run(work)
        found = [await self.get(name, str(number) if number else LATEST) for name, number in keys[:limit]]
        following = ":".join(map(str, keys[limit - 1])) if len(keys) > limit else ""
        return [one for one in found if one is not None], following

    async def page_of_function(self, name: str, marker: str, limit: int) -> tuple[list[FunctionConfiguration], str]:
        """$LATEST, then the versions; and as `page_of_all`."""
        found: list[FunctionConfiguration] = []
        if not marker:
            latest = await self.get(name, LATEST)
            found = [latest] if latest is not None else []
        versions = await self._versions.page(name, number_of(marker), limit + 1 - len(found))
        found += versions
        if len(found) <= limit:
            return found, ""
        last = found[limit - 1].version
        return found[:limit], "0" if last == LATEST else last
