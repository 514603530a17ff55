"""Versions and aliases behind the API for tests of what lies above it: small, in the registry's SQLite."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from runtimed.model import errors
from runtimed.model.alias import AliasConfiguration, AliasRoutingConfiguration, CreateAliasRequest, UpdateAliasRequest
from runtimed.model.arn import LATEST, Identity
from runtimed.model.function import FunctionConfiguration, State
from runtimed.model.version import PublishVersionRequest

if TYPE_CHECKING:
    from tests.integration.performers import Registry

SCHEMA = """
CREATE TABLE versions (name TEXT, number INTEGER, configuration BLOB, PRIMARY KEY (name, number));
CREATE TABLE aliases (name TEXT, alias TEXT, configuration BLOB, PRIMARY KEY (name, alias));
"""


class VersionPages:
    """What a registry says of all versions."""

    database: sqlite3.Connection
    get: Callable[..., Awaitable[FunctionConfiguration | None]]
    page: Callable[..., Awaitable[list[FunctionConfiguration]]]

    async def page_of_function(self, name: str, marker: str, limit: int) -> tuple[list[FunctionConfiguration], str]:
        query = "SELECT number FROM versions WHERE name = ? AND number > ? ORDER BY number LIMIT ?"
        numbers = [str(row[0]) for row in self.database.execute(query, (name, marker or 0, limit + 1))]
        qualifiers = [*([] if marker else [LATEST]), *numbers]
        found = [await self.get(name, qualifier) for qualifier in qualifiers[:limit]]
        last = qualifiers[limit - 1] if len(qualifiers) > limit else ""
        return [one for one in found if one is not None], last.replace(LATEST, "0")

    async def page_of_all(self, marker: str, limit: int, prefix: str) -> tuple[list[FunctionConfiguration], str]:
        found = []
        for function in await self.page("", 1000, prefix):
            found += (await self.page_of_function(function.function_name, "", 1000))[0]
        at = int(marker.partition(":")[2] or 0)
        return found[at : at + limit], f"f:{at + limit}" if len(found) > at + limit else ""


class VersionShelf:
    """Publishes at once."""

    def __init__(self, identity: Identity, registry: Registry) -> None:
        self._identity, self._registry = identity, registry
        registry.database.executescript(SCHEMA)

    async def publish(self, request: PublishVersionRequest) -> FunctionConfiguration:
        found = await self._registry.get(request.function_name)
        if found is None:
            raise errors.ResourceNotFound(f"Function not found: {request.function_name}.")
        if found.state is not State.ACTIVE:
            raise errors.ResourceConflict(f"{request.function_name} is being made.")
        if request.revision_id not in (UNSET, found.revision_id):
            raise errors.PreconditionFailed("RevisionId is not the current one.")
        if request.code_sha256 not in (UNSET, found.code_sha256):
            raise errors.InvalidParameterValue("CodeSha256: is not that of the code.")
        query = "SELECT coalesce(max(number), 0) + 1 FROM versions WHERE name = ?"
        (number,) = self._registry.database.execute(query, (found.function_name,)).fetchone()
        made = replace(
            found,
            version=str(number),
            function_arn=self._identity.function_arn(found.function_name, str(number)),
            description=found.description if request.description is UNSET else request.description,
            revision_id=str(uuid.uuid4()),
        )
        values = (found.function_name, number, msgspec.json.encode(made))
        self._registry.database.execute("INSERT INTO versions VALUES (?, ?, ?)", values)
        return made

    async def delete_version(self, name: str, number: int) -> None:
        for alias in await self.page(name, "", 1000, str(number)):
            raise errors.ResourceConflict(f"The alias {alias.name} leads to it.")
        self._registry.database.execute("DELETE FROM versions WHERE name = ? AND number = ?", (name, number))

    async def create(self, request: CreateAliasRequest) -> AliasConfiguration:
        await self._check(request.function_name, request.function_version)
        if any(alias.name == request.name for alias in await self.page(request.function_name, "", 1000, "")):
            raise errors.ResourceExists(f"Alias already exists: {request.name}.")
        return self._put(
            request.function_name,
            AliasConfiguration(
                alias_arn=self._identity.function_arn(request.function_name, request.name),
                name=request.name,
                function_version=request.function_version,
                description=request.description,
                routing_config=_weights(request.routing_config),
                revision_id=str(uuid.uuid4()),
            ),
        )

    async def update(self, request: UpdateAliasRequest) -> AliasConfiguration:
        found = await self.get(request.function_name, request.name)
        if request.revision_id not in (UNSET, found.revision_id):
            raise errors.PreconditionFailed("RevisionId is not the current one.")
        if request.function_version is not UNSET:
            await self._check(request.function_name, request.function_version)
            found = replace(found, function_version=request.function_version)
        if request.description is not UNSET:
            found = replace(found, description=request.description)
        if request.routing_config is not UNSET:
            found = replace(found, routing_config=_weights(request.routing_config))
        return self._put(request.function_name, replace(found, revision_id=str(uuid.uuid4())))

    async def get(self, name: str, alias: str) -> AliasConfiguration:
        for found in await self.page(name, "", 1000, ""):
            if found.name == alias:
                return found
        raise errors.ResourceNotFound(f"Cannot find alias arn: {self._identity.function_arn(name, alias)}.")

    async def page(self, name: str, after: str, limit: int, version: str) -> list[AliasConfiguration]:
        query = "SELECT configuration FROM aliases WHERE name = ? AND alias > ? ORDER BY alias"
        rows = self._registry.database.execute(query, (name, after))
        found = [msgspec.json.decode(row[0], type=AliasConfiguration) for row in rows]
        return [alias for alias in found if version in ("", alias.function_version)][:limit]

    async def delete(self, name: str, alias: str) -> None:
        self._registry.database.execute("DELETE FROM aliases WHERE name = ? AND alias = ?", (name, alias))

    async def _check(self, name: str, version: str) -> None:
        if await self._registry.get(name, version) is None:
            raise errors.ResourceNotFound(f"Function not found: {self._identity.function_arn(name, version)}.")

    def _put(self, name: str, alias: AliasConfiguration) -> AliasConfiguration:
        values = (name, alias.name, msgspec.json.encode(alias))
        self._registry.database.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)", values)
        return alias


def _weights(routing: AliasRoutingConfiguration | msgspec.UnsetType) -> AliasRoutingConfiguration | msgspec.UnsetType:
    return UNSET if routing is UNSET or not routing.additional_version_weights else routing
