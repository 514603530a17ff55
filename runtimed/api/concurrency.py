"""Reserved and provisioned concurrency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from runtimed.api.operation import Route, operation
from runtimed.model import arn, errors
from runtimed.model.concurrency import (
    DeleteFunctionConcurrencyRequest,
    DeleteFunctionConcurrencyResponse,
    DeleteProvisionedConcurrencyConfigRequest,
    DeleteProvisionedConcurrencyConfigResponse,
    FunctionConcurrency,
    GetFunctionConcurrencyRequest,
    GetProvisionedConcurrencyConfigRequest,
    ListProvisionedConcurrencyConfigsRequest,
    ListProvisionedConcurrencyConfigsResponse,
    ProvisionedConcurrency,
    ProvisionedConcurrencyItem,
    PutFunctionConcurrencyRequest,
    PutProvisionedConcurrencyConfigRequest,
)
from runtimed.model.shape import UNSET

if TYPE_CHECKING:
    from runtimed.api.functions import FunctionReader

_PUT = "/2017-10-31/functions/{FunctionName}/concurrency"
_GET = "/2019-09-30/functions/{FunctionName}/concurrency"
_PROVISIONED = "/2019-09-30/functions/{FunctionName}/provisioned-concurrency"


class Reserve(Protocol):
    """Keeps what is set, and tells the dispatcher (invocation/concurrency.py). Names are plain here."""

    async def reserve(self, name: str, executions: int) -> None:
        """Raises ResourceNotFound, InvalidParameterValue."""
        ...

    async def reserved(self, name: str) -> int | None: ...

    async def unreserve(self, name: str) -> None: ...

    async def provision(self, name: str, qualifier: str, executions: int) -> ProvisionedConcurrency:
        """Raises ResourceNotFound, InvalidParameterValue (too much, SnapStart, an alias with weights)."""
        ...

    async def provisioned(self, name: str) -> dict[str, ProvisionedConcurrency]:
        """By qualifier, in the order of these."""
        ...

    async def provisioned_for(self, name: str, qualifier: str) -> ProvisionedConcurrency | None:
        """Raises ResourceNotFound for a version or an alias that there is not."""
        ...

    async def unprovision(self, name: str, qualifier: str) -> bool:
        """Was there any? Raises as `provisioned_for`."""
        ...


def _only_all(members: dict[str, Any]) -> str:
    members.pop("List", None)
    return ""


class Concurrency:
    """Operations on concurrency."""

    def __init__(self, identity: arn.Identity, functions: FunctionReader, reserve: Reserve) -> None:
        self._identity = identity
        self._functions = functions
        self._reserve = reserve

    @operation(route=Route("PUT", _PUT))
    async def put_function_concurrency(self, request: PutFunctionConcurrencyRequest) -> FunctionConcurrency:
        name = await self._whole(request.function_name)
        await self._reserve.reserve(name, request.reserved_concurrent_executions)
        return FunctionConcurrency(reserved_concurrent_executions=request.reserved_concurrent_executions)

    @operation(safe=True, route=Route("GET", _GET))
    async def get_function_concurrency(self, request: GetFunctionConcurrencyRequest) -> FunctionConcurrency:
        reserved = await self._reserve.reserved(await self._whole(request.function_name))
        return FunctionConcurrency(reserved_concurrent_executions=UNSET if reserved is None else reserved)

    @operation(route=Route("DELETE", _PUT, 204))
    async def delete_function_concurrency(
        self, request: DeleteFunctionConcurrencyRequest
    ) -> DeleteFunctionConcurrencyResponse:
        await self._reserve.unreserve(await self._whole(request.function_name))
        return DeleteFunctionConcurrencyResponse()

    @operation(route=Route("PUT", _PROVISIONED, 202))
    async def put_provisioned_concurrency_config(
        self, request: PutProvisionedConcurrencyConfigRequest
    ) -> ProvisionedConcurrency:
        name, qualifier = await self._version(request.function_name, request.qualifier)
        return await self._reserve.provision(name, qualifier, request.provisioned_concurrent_executions)

    @operation(safe=True, route=Route("GET", _PROVISIONED))
    async def get_provisioned_concurrency_config(
        self, request: GetProvisionedConcurrencyConfigRequest
    ) -> ProvisionedConcurrency:
        name, qualifier = await self._version(request.function_name, request.qualifier)
        found = await self._reserve.provisioned_for(name, qualifier)
        if found is None:
            raise errors.ProvisionedConcurrencyConfigNotFound(
                f"No provisioned concurrency is configured for {self._identity.function_arn(name, qualifier)}. "
                "`runtimectl provision` sets it."
            )
        return found

    @operation(route=Route("DELETE", _PROVISIONED, 204))
    async def delete_provisioned_concurrency_config(
        self, request: DeleteProvisionedConcurrencyConfigRequest
    ) -> DeleteProvisionedConcurrencyConfigResponse:
        name, qualifier = await self._version(request.function_name, request.qualifier)
        await self._reserve.unprovision(name, qualifier)
        return DeleteProvisionedConcurrencyConfigResponse()

    @operation(safe=True, route=Route("GET", _PROVISIONED, adapt=_only_all, query=("List", "ALL")))
    async def list_provisioned_concurrency_configs(
        self, request: ListProvisionedConcurrencyConfigsRequest
    ) -> ListProvisionedConcurrencyConfigsResponse:
        name = await self._whole(request.function_name)
        found = [one for one in (await self._reserve.provisioned(name)).items() if one[0] > request.marker]
        page = found[: request.max_items]
        items = [
            ProvisionedConcurrencyItem(
                function_arn=self._identity.function_arn(name, qualifier),
                **{member: getattr(one, member) for member in one.__struct_fields__},
            )
            for qualifier, one in page
        ]
        return ListProvisionedConcurrencyConfigsResponse(
            provisioned_concurrency_configs=items,
            next_marker=page[-1][0] if len(found) > len(page) else UNSET,
        )

    async def _whole(self, function_name: str) -> str:
        """The name of a function that exists; concurrency is reserved for all of its versions."""
        reference = arn.parse(function_name, self._identity)
        if reference.qualifier:
            raise errors.InvalidParameterValue("FunctionName: this is for the whole function. Leave the qualifier out.")
        return await self._existing(reference.name)

    async def _version(self, function_name: str, qualifier: str) -> tuple[str, str]:
        reference = arn.parse(function_name, self._identity, qualifier)
        if not reference.qualifier:
            raise errors.InvalidParameterValue(
                f"Qualifier: say which version or alias: a number, a name, or {arn.LATEST}."
            )
        return await self._existing(reference.name), reference.qualifier

    async def _existing(self, name: str) -> str:
        if await self._functions.get(name) is None:
            missing = self._identity.function_arn(name)
            raise errors.ResourceNotFound(
                f"Function not found: {missing}. `runtimectl functions` lists those that exist."
            )
        return name
