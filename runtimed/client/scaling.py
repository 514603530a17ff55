"""`client.scaling`: provisioned concurrency that follows a schedule or its own utilisation.

client.scaling.register("report", 1, 10)
client.scaling.track("report", 0.7)
client.scaling.schedule("report", "morning", "cron(0 8 ? * MON-FRI *)", timezone="Europe/Berlin", minimum=5)
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from msgspec import UNSET

from runtimed.client import rpc
from runtimed.model import scaling
from runtimed.model.scaling import LATEST, ScalableTarget, ScheduledAction, TargetTracking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Unpack


class When(TypedDict, total=False):
    """Of a scheduled action, besides its schedule. One of minimum and maximum is needed."""

    timezone: str
    """Of at and cron expressions, such as Europe/Berlin; without one, UTC."""
    start: datetime
    end: datetime
    minimum: int
    maximum: int


class Policy(TypedDict, total=False):
    """Of target tracking, besides its target."""

    scale_out_cooldown: int
    """Seconds."""
    scale_in_cooldown: int
    scale_in: bool
    """False: never."""


class Scaling:
    """Of a blocking client."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def register(
        self, name: str, minimum: int | None = None, maximum: int | None = None, qualifier: str = LATEST
    ) -> ScalableTarget:
        """Makes provisioned concurrency scalable between the two, or changes one or both of them."""
        found: ScalableTarget = self._call(rpc.REGISTER_TARGET, _register(name, qualifier, minimum, maximum))
        return found

    def deregister(self, name: str, qualifier: str = LATEST) -> None:
        """With its policy and its scheduled actions. What is provisioned stays."""
        request = scaling.DeregisterScalableTargetRequest(function_name=name, qualifier=qualifier)
        self._call(rpc.DEREGISTER_TARGET, request)

    def targets(self, name: str = "") -> list[ScalableTarget]:
        """Of a function, or all."""
        found: list[ScalableTarget] = []
        marker = ""
        while True:
            request = scaling.DescribeScalableTargetsRequest(function_name=name, marker=marker)
            page: scaling.DescribeScalableTargetsResponse = self._call(rpc.DESCRIBE_TARGETS, request)
            found += page.scalable_targets
            if not isinstance(page.next_marker, str):
                return found
            marker = page.next_marker

    def track(self, name: str, target: float, qualifier: str = LATEST, **policy: Unpack[Policy]) -> ScalableTarget:
        """Keeps the share of provisioned environments at work near `target`."""
        found: ScalableTarget = self._call(rpc.PUT_POLICY, _track(name, qualifier, target, policy))
        return found

    def untrack(self, name: str, qualifier: str = LATEST) -> None:
        """The policy ends; what is provisioned stays."""
        self._call(rpc.DELETE_POLICY, scaling.DeleteScalingPolicyRequest(function_name=name, qualifier=qualifier))

    def schedule(
        self, name: str, action: str, schedule: str, qualifier: str = LATEST, **when: Unpack[When]
    ) -> ScheduledAction:
        """Other bounds at the times of `schedule`: at(...), rate(...) or cron(...)."""
        found: ScheduledAction = self._call(rpc.PUT_ACTION, _schedule(name, qualifier, action, schedule, when))
        return found

    def actions(self, name: str, qualifier: str = LATEST) -> list[ScheduledAction]:
        """In the order of their names."""
        request = scaling.DescribeScheduledActionsRequest(function_name=name, qualifier=qualifier)
        found: scaling.DescribeScheduledActionsResponse = self._call(rpc.DESCRIBE_ACTIONS, request)
        return found.scheduled_actions

    def unschedule(self, name: str, action: str, qualifier: str = LATEST) -> None:
        self._call(rpc.DELETE_ACTION, _unschedule(name, qualifier, action))


class AsyncScaling:
    """The same of an `AsyncClient`."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call

    async def register(
        self, name: str, minimum: int | None = None, maximum: int | None = None, qualifier: str = LATEST
    ) -> ScalableTarget:
        found: ScalableTarget = await self._call(rpc.REGISTER_TARGET, _register(name, qualifier, minimum, maximum))
        return found

    async def deregister(self, name: str, qualifier: str = LATEST) -> None:
        request = scaling.DeregisterScalableTargetRequest(function_name=name, qualifier=qualifier)
        await self._call(rpc.DEREGISTER_TARGET, request)

    async def targets(self, name: str = "") -> list[ScalableTarget]:
        found: list[ScalableTarget] = []
        marker = ""
        while True:
            request = scaling.DescribeScalableTargetsRequest(function_name=name, marker=marker)
            page: scaling.DescribeScalableTargetsResponse = await self._call(rpc.DESCRIBE_TARGETS, request)
            found += page.scalable_targets
            if not isinstance(page.next_marker, str):
                return found
            marker = page.next_marker

    async def track(
        self, name: str, target: float, qualifier: str = LATEST, **policy: Unpack[Policy]
    ) -> ScalableTarget:
        found: ScalableTarget = await self._call(rpc.PUT_POLICY, _track(name, qualifier, target, policy))
        return found

    async def untrack(self, name: str, qualifier: str = LATEST) -> None:
        request = scaling.DeleteScalingPolicyRequest(function_name=name, qualifier=qualifier)
        await self._call(rpc.DELETE_POLICY, request)

    async def schedule(
        self, name: str, action: str, schedule: str, qualifier: str = LATEST, **when: Unpack[When]
    ) -> ScheduledAction:
        found: ScheduledAction = await self._call(rpc.PUT_ACTION, _schedule(name, qualifier, action, schedule, when))
        return found

    async def actions(self, name: str, qualifier: str = LATEST) -> list[ScheduledAction]:
        request = scaling.DescribeScheduledActionsRequest(function_name=name, qualifier=qualifier)
        found: scaling.DescribeScheduledActionsResponse = await self._call(rpc.DESCRIBE_ACTIONS, request)
        return found.scheduled_actions

    async def unschedule(self, name: str, action: str, qualifier: str = LATEST) -> None:
        await self._call(rpc.DELETE_ACTION, _unschedule(name, qualifier, action))


def _register(
    name: str, qualifier: str, minimum: int | None, maximum: int | None
) -> scaling.RegisterScalableTargetRequest:
    return scaling.RegisterScalableTargetRequest(
        function_name=name,
        qualifier=qualifier,
        min_capacity=UNSET if minimum is None else minimum,
        max_capacity=UNSET if maximum is None else maximum,
    )


def _track(name: str, qualifier: str, target: float, policy: Policy) -> scaling.PutScalingPolicyRequest:
    return scaling.PutScalingPolicyRequest(
        function_name=name,
        qualifier=qualifier,
        policy=TargetTracking(
            target_value=target,
            scale_out_cooldown=policy.get("scale_out_cooldown", 0),
            scale_in_cooldown=policy.get("scale_in_cooldown", 0),
            disable_scale_in=not policy.get("scale_in", True),
        ),
    )


def _schedule(name: str, qualifier: str, action: str, schedule: str, when: When) -> scaling.PutScheduledActionRequest:
    start, end = when.get("start"), when.get("end")
    return scaling.PutScheduledActionRequest(
        function_name=name,
        qualifier=qualifier,
        scheduled_action_name=action,
        schedule=schedule,
        timezone=when.get("timezone", ""),
        start_time=UNSET if start is None else start.astimezone(),
        end_time=UNSET if end is None else end.astimezone(),
        min_capacity=when.get("minimum", UNSET),
        max_capacity=when.get("maximum", UNSET),
    )


def _unschedule(name: str, qualifier: str, action: str) -> scaling.DeleteScheduledActionRequest:
    return scaling.DeleteScheduledActionRequest(function_name=name, qualifier=qualifier, scheduled_action_name=action)
