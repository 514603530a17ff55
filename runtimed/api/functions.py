"""Functions: create, get, list, change, delete; and one version of a function, where a qualifier is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from runtimed.api import lambda_members
from runtimed.api.operation import Route, Upload, operation
from runtimed.api.versions import Publisher, not_found
from runtimed.model import arn, errors, quotas
from runtimed.model.function import (
    CreateFunctionRequest,
    DeleteFunctionRequest,
    DeleteFunctionResponse,
    FunctionConfiguration,
    GetFunctionRequest,
    GetFunctionResponse,
    ListFunctionsRequest,
    ListFunctionsResponse,
    UpdateFunctionCodeRequest,
    UpdateFunctionConfigurationRequest,
    check_environment,
    check_logging,
    check_snapshot,
    snap_start_of,
    snapshot_choice,
)
from runtimed.model.runtime import RuntimeState, RuntimeStatus, python_minor
from runtimed.model.shape import UNSET, UnsetType
from runtimed.model.version import is_number, number_of

if TYPE_CHECKING:
    from collections.abc import Callable


_FUNCTIONS = "/2015-03-31/functions"
_FUNCTION = f"{_FUNCTIONS}/{{FunctionName}}"


class FunctionReader(Protocol):
    """The registry, as far as reading goes (store/functions.py)."""

    async def get(self, name: str, qualifier: str = "") -> FunctionConfiguration | None:
        """The function of this name, at $LATEST or under the qualifier, which its ARN then has."""
        ...

    async def page(self, after: str, limit: int, prefix: str = "") -> list[FunctionConfiguration]:
        """Up to `limit` functions whose names sort after `after` and begin with `prefix`, in their names' order."""
        ...

    async def page_of_all(self, marker: str, limit: int, prefix: str) -> tuple[list[FunctionConfiguration], str]:
        """The same with all versions of each, and the marker of the next page."""
        ...

    async def page_of_function(self, name: str, marker: str, limit: int) -> tuple[list[FunctionConfiguration], str]:
        """One function's versions, $LATEST first, and the marker of the next page."""
        ...


class Deployer(Protocol):
    """Makes functions and changes them (deployment/).

    Requests arrive here checked, with the plain name in `function_name`. Each method returns once the change is
    stored; a function may still be Pending then. An upload that ends or breaks early raises out of the iterator:
    nothing stays behind.
    """

    async def create(self, request: CreateFunctionRequest, code: Upload) -> FunctionConfiguration:
        """Raises ResourceExists, InvalidParameterValue (archive), CodeStorageExceeded."""
        ...

    async def update_code(self, request: UpdateFunctionCodeRequest, code: Upload) -> FunctionConfiguration:
        """Raises ResourceNotFound, ResourceConflict (Pending, InProgress), PreconditionFailed, and as create."""
        ...

    async def update_configuration(self, request: UpdateFunctionConfigurationRequest) -> FunctionConfiguration:
        """Raises ResourceNotFound, ResourceConflict, PreconditionFailed."""
        ...

    async def delete(self, name: str) -> None:
        """Raises ResourceNotFound. Running invocations end by themselves."""
        ...


class Functions:
    """Operations on functions."""

    def __init__(
        self,
        identity: arn.Identity,
        functions: FunctionReader,
        deployer: Deployer,
        runtimes: Callable[[], list[RuntimeStatus]],
        publisher: Publisher,
    ) -> None:
        self._publisher = publisher
        self._identity = identity
        self._functions = functions
        self._deployer = deployer
        self._runtimes = runtimes

    @operation(route=Route("POST", _FUNCTIONS, 201, lambda_members.create_function))
    async def create_function(self, request: CreateFunctionRequest, upload: Upload) -> FunctionConfiguration:
        name = self._unqualified(request.function_name)
        self._check_runtime(request.runtime)
        check_environment(request.environment)
        check_logging(request.logging_config)
        choice = snapshot_choice(request.snap_start, request.snapshot)
        check_snapshot(choice, request.runtime)
        if await self._functions.get(name) is not None:
            raise errors.ResourceExists(
                f"Function already exists: {name}. Update its code or configuration, or choose another name."
            )
        code = _whole(upload, request.upload_size)
        whole = msgspec.structs.replace(request, function_name=name, snap_start=snap_start_of(choice), snapshot=choice)
        return await self._deployer.create(whole, code)

    @operation(route=Route("PUT", f"{_FUNCTION}/code", 200, lambda_members.update_function_code))
    async def update_function_code(self, request: UpdateFunctionCodeRequest, upload: Upload) -> FunctionConfiguration:
        name = (await self._changeable(request.function_name)).function_name
        code = _whole(upload, request.upload_size)
        return await self._deployer.update_code(msgspec.structs.replace(request, function_name=name), code)

    @operation(route=Route("PUT", f"{_FUNCTION}/configuration", 200, lambda_members.update_function_configuration))
    async def update_function_configuration(self, request: UpdateFunctionConfigurationRequest) -> FunctionConfiguration:
        if request.runtime is not UNSET:
            self._check_runtime(request.runtime)
        if request.environment is not UNSET:
            check_environment(request.environment)
        if request.logging_config is not UNSET:
            check_logging(request.logging_config)
        found = await self._changeable(request.function_name)
        name = found.function_name
        choice = snapshot_choice(request.snap_start, request.snapshot, found.snapshot)
        check_snapshot(choice, found.runtime if request.runtime is UNSET else request.runtime)
        said = request.snap_start is not UNSET or request.snapshot is not UNSET
        if said:
            request = msgspec.structs.replace(request, snap_start=snap_start_of(choice), snapshot=choice)
        return await self._deployer.update_configuration(msgspec.structs.replace(request, function_name=name))

    @operation(safe=True, route=Route("GET", _FUNCTION))
    async def get_function(self, request: GetFunctionRequest) -> GetFunctionResponse:
        return GetFunctionResponse(configuration=await self._existing(request.function_name, request.qualifier))

    @operation(safe=True, route=Route("GET", f"{_FUNCTION}/configuration"))
    async def get_function_configuration(self, request: GetFunctionRequest) -> FunctionConfiguration:
        return await self._existing(request.function_name, request.qualifier)

    @operation(safe=True, route=Route("GET", _FUNCTIONS, 200, lambda_members.list_functions))
    async def list_functions(self, request: ListFunctionsRequest) -> ListFunctionsResponse:
        whole, limit = bool(request.function_version), min(request.max_items, quotas.LIST_PAGE_ITEMS)
        name, _, number = request.marker.partition(":")
        if request.marker and not (arn.is_name(name) and is_number(number) == whole):
            raise errors.InvalidParameterValue("Marker: pass the NextMarker of the page before, unchanged.")
        if whole:
            every, marker = await self._functions.page_of_all(request.marker, limit, request.name_prefix)
            return ListFunctionsResponse(functions=every, next_marker=marker or UNSET)
        found = await self._functions.page(request.marker, limit + 1, request.name_prefix)
        if len(found) <= limit:
            return ListFunctionsResponse(functions=found)
        return ListFunctionsResponse(functions=found[:limit], next_marker=found[limit - 1].function_name)

    @operation(route=Route("DELETE", _FUNCTION, 204))
    async def delete_function(self, request: DeleteFunctionRequest) -> DeleteFunctionResponse:
        reference = arn.parse(request.function_name, self._identity, request.qualifier)
        if reference.qualifier == arn.LATEST:
            raise errors.InvalidParameterValue("Qualifier: $LATEST cannot be deleted without deleting the function.")
        if reference.qualifier and not is_number(reference.qualifier):
            raise errors.InvalidParameterValue(
                f"Qualifier: {reference.qualifier!r} is not a version's number. DeleteAlias (`runtimectl aliases "
                f"delete {reference.name} {reference.qualifier}`) deletes an alias."
            )
        name = (await self._existing(request.function_name, request.qualifier)).function_name
        if reference.qualifier:
            await self._publisher.delete_version(name, number_of(reference.qualifier))
        else:
            await self._deployer.delete(name)
        return DeleteFunctionResponse()

    def _unqualified(self, function_name: str) -> str:
        reference = arn.parse(function_name, self._identity)
        if reference.qualifier:
            raise errors.InvalidParameterValue("FunctionName: a new function has no qualifier. Leave it out.")
        return reference.name

    def _check_runtime(self, name: str) -> None:
        known = self._runtimes()
        if any(runtime.name == name and runtime.state is not RuntimeState.FAILED for runtime in known):
            return
        failed = next((runtime for runtime in known if runtime.name == name), None)
        names = {runtime.name for runtime in known if runtime.state is not RuntimeState.FAILED}
        offered = ", ".join(sorted(names, key=lambda name: (python_minor(name) or 0, name)))
        why = f"{name} does not work on this node ({failed.reason})" if failed else f"{name} is not on this node"
        raise errors.InvalidParameterValue(
            f"Runtime: {why}. Choose one of: {offered}."
            if offered
            else f"Runtime: {why}. It has no runtime at all: install Python 3.9 or newer and see `runtimectl doctor`."
        )

    async def _changeable(self, function_name: str) -> FunctionConfiguration:
        reference = arn.parse(function_name, self._identity)
        if reference.qualifier not in ("", arn.LATEST):
            raise errors.InvalidParameterValue(
                "FunctionName: versions do not change, and aliases are moved by UpdateAlias. Leave the qualifier out."
            )
        return await self._existing(reference.name)

    async def _existing(self, function_name: str, qualifier: str = "") -> FunctionConfiguration:
        reference = arn.parse(function_name, self._identity, qualifier)
        found = await self._functions.get(reference.name, reference.qualifier)
        if found is None:
            missing = self._identity.function_arn(reference.name, reference.qualifier)
            if reference.qualifier and await self._functions.get(reference.name) is not None:
                raise errors.ResourceNotFound(
                    f"Function not found: {missing}. `runtimectl versions {reference.name}` and `runtimectl aliases "
                    f"{reference.name}` list what there is of it."
                )
            raise not_found(missing)
        return found


async def _whole(upload: Upload, size: int | UnsetType) -> Upload:
    """The upload's bytes; raises when it is empty, too long, or not as long as announced."""
    limit = quotas.PACKAGE_ZIPPED_BYTES if size is UNSET else size
    received = 0
    async for chunk in upload:
        received += len(chunk)
        if received > limit:
            raise errors.InvalidParameterValue(
                f"Code: more than the {size} bytes announced as UploadSize arrived. Send the archive again."
                if size is not UNSET
                else f"Code: the archive is larger than {limit} bytes. Leave out what the function does not import."
            )
        yield chunk
    if received == 0:
        raise errors.InvalidParameterValue("Code: no bytes followed the request. Send a zip archive after it.")
    if size is not UNSET and received != size:
        raise errors.InvalidParameterValue(
            f"Code: the upload ended after {received} of {size} bytes. Send the archive again."
        )
