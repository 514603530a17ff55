"""Published versions: publish, list. GetFunction and DeleteFunction take their numbers as qualifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from runtimed.api.operation import Route, operation
from runtimed.model import arn, errors, quotas
from runtimed.model.function import FunctionConfiguration
from runtimed.model.shape import UNSET
from runtimed.model.version import (
    ListVersionsByFunctionRequest,
    ListVersionsByFunctionResponse,
    PublishVersionRequest,
    is_number,
)

if TYPE_CHECKING:
    from runtimed.api.functions import FunctionReader

_VERSIONS = "/2015-03-31/functions/{FunctionName}/versions"


class Publisher(Protocol):
    """Makes versions and deletes them (deployment/). Names are plain here."""

    async def publish(self, request: PublishVersionRequest) -> FunctionConfiguration:
        """The new version, or the last one when nothing has changed.

        Raises ResourceNotFound, ResourceConflict (Pending, InProgress), PreconditionFailed, InvalidParameterValue (the
        code's digest), LimitExceeded.
        """
        ...

    async def delete_version(self, name: str, number: int) -> None:
        """Raises ResourceNotFound, ResourceConflict (an alias leads to it). Running invocations end by themselves."""
        ...


class Versions:
    """Operations on published versions."""

    def __init__(self, identity: arn.Identity, functions: FunctionReader, publisher: Publisher) -> None:
        self._identity = identity
        self._functions = functions
        self._publisher = publisher

    @operation(route=Route("POST", _VERSIONS, 201))
    async def publish_version(self, request: PublishVersionRequest) -> FunctionConfiguration:
        name = whole_function(request.function_name, self._identity)
        return await self._publisher.publish(msgspec.structs.replace(request, function_name=name))

    @operation(safe=True, route=Route("GET", _VERSIONS))
    async def list_versions_by_function(self, request: ListVersionsByFunctionRequest) -> ListVersionsByFunctionResponse:
        name = whole_function(request.function_name, self._identity)
        if request.marker and not is_number(request.marker):
            raise errors.InvalidParameterValue("Marker: pass the NextMarker of the page before, unchanged.")
        limit = min(request.max_items, quotas.LIST_PAGE_ITEMS)
        if await self._functions.get(name) is None:
            raise not_found(self._identity.function_arn(name))
        found, marker = await self._functions.page_of_function(name, request.marker, limit)
        return ListVersionsByFunctionResponse(versions=found, next_marker=marker or UNSET)


def whole_function(function_name: str, identity: arn.Identity) -> str:
    """The plain name; InvalidParameterValue for one with a version or an alias."""
    reference = arn.parse(function_name, identity)
    if reference.qualifier not in ("", arn.LATEST):
        raise errors.InvalidParameterValue("FunctionName: this is for the whole function. Leave the qualifier out.")
    return reference.name


def not_found(function_arn: str) -> errors.ResourceNotFound:
    """A function that does not exist."""
    return errors.ResourceNotFound(
        f"Function not found: {function_arn}. `runtimectl functions` lists those that exist."
    )
