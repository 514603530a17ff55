"""Aliases: create, get, list, move, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from runtimed.api.operation import Route, operation
from runtimed.api.versions import not_found, whole_function
from runtimed.model import arn, quotas
from runtimed.model.alias import (
    AliasConfiguration,
    CreateAliasRequest,
    DeleteAliasRequest,
    DeleteAliasResponse,
    GetAliasRequest,
    ListAliasesRequest,
    ListAliasesResponse,
    UpdateAliasRequest,
)
from runtimed.model.shape import UNSET

if TYPE_CHECKING:
    from runtimed.api.functions import FunctionReader

_ALIASES = "/2015-03-31/functions/{FunctionName}/aliases"
_ALIAS = f"{_ALIASES}/{{Name}}"


class AliasKeeper(Protocol):
    """Keeps aliases and tells the dispatcher where they lead (deployment/). Names of functions are plain here."""

    async def create(self, request: CreateAliasRequest) -> AliasConfiguration:
        """Raises ResourceNotFound (function, version), ResourceConflict (it exists, or the version is not Active),
        InvalidParameterValue, LimitExceeded. When it returns, the alias can be invoked."""
        ...

    async def update(self, request: UpdateAliasRequest) -> AliasConfiguration:
        """Raises ResourceNotFound, PreconditionFailed, ResourceConflict, InvalidParameterValue."""
        ...

    async def get(self, name: str, alias: str) -> AliasConfiguration:
        """Raises ResourceNotFound."""
        ...

    async def page(self, name: str, after: str, limit: int, version: str) -> list[AliasConfiguration]:
        """Up to `limit` of the function's whose names sort after `after`; of those that lead to `version`, if given."""
        ...

    async def delete(self, name: str, alias: str) -> None: ...


class Aliases:
    """Operations on aliases."""

    def __init__(self, identity: arn.Identity, functions: FunctionReader, keeper: AliasKeeper) -> None:
        self._identity = identity
        self._functions = functions
        self._keeper = keeper

    @operation(route=Route("POST", _ALIASES, 201))
    async def create_alias(self, request: CreateAliasRequest) -> AliasConfiguration:
        name = whole_function(request.function_name, self._identity)
        return await self._keeper.create(msgspec.structs.replace(request, function_name=name))

    @operation(safe=True, route=Route("GET", _ALIAS))
    async def get_alias(self, request: GetAliasRequest) -> AliasConfiguration:
        return await self._keeper.get(await self._existing(request.function_name), request.name)

    @operation(route=Route("PUT", _ALIAS))
    async def update_alias(self, request: UpdateAliasRequest) -> AliasConfiguration:
        name = await self._existing(request.function_name)
        return await self._keeper.update(msgspec.structs.replace(request, function_name=name))

    @operation(route=Route("DELETE", _ALIAS, 204))
    async def delete_alias(self, request: DeleteAliasRequest) -> DeleteAliasResponse:
        await self._keeper.delete(await self._existing(request.function_name), request.name)
        return DeleteAliasResponse()

    @operation(safe=True, route=Route("GET", _ALIASES))
    async def list_aliases(self, request: ListAliasesRequest) -> ListAliasesResponse:
        name = await self._existing(request.function_name)
        limit = min(request.max_items, quotas.LIST_PAGE_ITEMS)
        found = await self._keeper.page(name, request.marker, limit + 1, request.function_version)
        page = found[:limit]
        return ListAliasesResponse(aliases=page, next_marker=page[-1].name if len(found) > limit else UNSET)

    async def _existing(self, function_name: str) -> str:
        name = whole_function(function_name, self._identity)
        if await self._functions.get(name) is None:
            raise not_found(self._identity.function_arn(name))
        return name
