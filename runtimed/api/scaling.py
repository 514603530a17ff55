"""Scaling of provisioned concurrency. Lambda's API has none of this: it is Application Auto Scaling's, over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from runtimed.api.operation import operation
from runtimed.model import arn, errors
from runtimed.model.scaling import (
    DeleteScalingPolicyRequest,
    DeleteScalingPolicyResponse,
    DeleteScheduledActionRequest,
    DeleteScheduledActionResponse,
    DeregisterScalableTargetRequest,
    DeregisterScalableTargetResponse,
    DescribeScalableTargetsRequest,
    DescribeScalableTargetsResponse,
    DescribeScheduledActionsRequest,
    DescribeScheduledActionsResponse,
    PutScalingPolicyRequest,
    PutScheduledActionRequest,
    RegisterScalableTargetRequest,
    ScalableTarget,
    ScheduledAction,
    TargetTracking,
)
from runtimed.model.shape import UNSET, UnsetType

if TYPE_CHECKING:
    from runtimed.api.functions import FunctionReader


class Scaler(Protocol):
    """Keeps and performs it (invocation/scaling.py). Names are plain here.

    Raises ResourceNotFound for a version, an alias, a target or an action that there is not, InvalidParameterValue."""

    async def register(self, name: str, qualifier: str, least: int | None, most: int | None) -> ScalableTarget: ...

    async def deregister(self, name: str, qualifier: str) -> None: ...

    async def targets(self, name: str) -> list[ScalableTarget]:
        """In the order of their names and qualifiers; all, when there is no name."""
        ...

    async def track(self, name: str, qualifier: str, policy: TargetTracking) -> ScalableTarget: ...

    async def untrack(self, name: str, qualifier: str) -> None: ...

    async def schedule(self, request: PutScheduledActionRequest) -> ScheduledAction:
        """Raises LimitExceeded, too."""
        ...

    async def actions(self, name: str, qualifier: str) -> list[ScheduledAction]: ...

    async def unschedule(self, name: str, qualifier: str, action: str) -> None: ...


class Scaling:
    """Operations on scalable targets."""

    def __init__(self, identity: arn.Identity, functions: FunctionReader, scaler: Scaler) -> None:
        self._identity = identity
        self._functions = functions
        self._scaler = scaler

    @operation
    async def register_scalable_target(self, request: RegisterScalableTargetRequest) -> ScalableTarget:
        name, qualifier = await self._version(request.function_name, request.qualifier)
        least, most = request.min_capacity, request.max_capacity
        return await self._scaler.register(
            name,
            qualifier,
            None if isinstance(least, UnsetType) else least,
            None if isinstance(most, UnsetType) else most,
        )

    @operation
    async def deregister_scalable_target(
        self, request: DeregisterScalableTargetRequest
    ) -> DeregisterScalableTargetResponse:
        await self._scaler.deregister(*await self._version(request.function_name, request.qualifier))
        return DeregisterScalableTargetResponse()

    @operation(safe=True)
    async def describe_scalable_targets(
        self, request: DescribeScalableTargetsRequest
    ) -> DescribeScalableTargetsResponse:
        name = qualifier = ""
        if request.function_name:
            reference = arn.parse(request.function_name, self._identity)
            name, qualifier = await self._existing(reference.name), reference.qualifier
        found = [one for one in await self._scaler.targets(name) if _mark(one) > request.marker]
        found = [one for one in found if qualifier in ("", one.qualifier)]
        found.sort(key=_mark)
        page = found[: request.max_items]
        return DescribeScalableTargetsResponse(
            scalable_targets=page, next_marker=_mark(page[-1]) if len(found) > len(page) else UNSET
        )

    @operation
    async def put_scaling_policy(self, request: PutScalingPolicyRequest) -> ScalableTarget:
        name, qualifier = await self._version(request.function_name, request.qualifier)
        return await self._scaler.track(name, qualifier, request.policy)

    @operation
    async def delete_scaling_policy(self, request: DeleteScalingPolicyRequest) -> DeleteScalingPolicyResponse:
        await self._scaler.untrack(*await self._version(request.function_name, request.qualifier))
        return DeleteScalingPolicyResponse()

    @operation
    async def put_scheduled_action(self, request: PutScheduledActionRequest) -> ScheduledAction:
        name, qualifier = await self._version(request.function_name, request.qualifier)
        return await self._scaler.schedule(replace(request, function_name=name, qualifier=qualifier))

    @operation(safe=True)
    async def describe_scheduled_actions(
        self, request: DescribeScheduledActionsRequest
    ) -> DescribeScheduledActionsResponse:
        found = await self._scaler.actions(*await self._version(request.function_name, request.qualifier))
        return DescribeScheduledActionsResponse(scheduled_actions=found)

    @operation
    async def delete_scheduled_action(self, request: DeleteScheduledActionRequest) -> DeleteScheduledActionResponse:
        name, qualifier = await self._version(request.function_name, request.qualifier)
        await self._scaler.unschedule(name, qualifier, request.scheduled_action_name)
        return DeleteScheduledActionResponse()

    async def _version(self, function_name: str, qualifier: str) -> tuple[str, str]:
        """Of a function that exists."""
        reference = arn.parse(function_name, self._identity)
        return await self._existing(reference.name), reference.qualifier or qualifier or arn.LATEST

    async def _existing(self, name: str) -> str:
        if await self._functions.get(name) is None:
            raise errors.ResourceNotFound(
                f"Function not found: {self._identity.function_arn(name)}. "
                "`runtimectl functions` lists those that exist."
            )
        return name


def _mark(target: ScalableTarget) -> str:
    return f"{target.function_name}:{target.qualifier}"
