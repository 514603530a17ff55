"""Scaling of provisioned concurrency, by schedules and by utilisation: Application Auto Scaling's shapes, for Lambda's
functions alone, so that a function and a qualifier say which scalable target is meant."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

from msgspec import Meta, field

from runtimed.model import quotas
from runtimed.model.function import FunctionName, Qualifier
from runtimed.model.shape import UNSET, Shape, UnsetType

LATEST = "$LATEST"

AnyFunction = Annotated[str, Meta(max_length=256, description="a function's name or ARN, or empty for all.")]
Capacity = Annotated[int, Meta(ge=0, le=2**31 - 1, description="a whole number of environments from 0 up.")]
TargetValue = Annotated[
    float, Meta(ge=0.1, le=0.9, description="a share of the provisioned environments, from 0.1 to 0.9.")
]
"""Lambda takes from 0.1 to 0.9 (developer guide, "Managing provisioned concurrency with Application Auto Scaling")."""
Cooldown = Annotated[int, Meta(ge=0, le=86_400, description="whole seconds, at most a day.")]
ScheduledActionName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x1f:/|\x7f]+$",
        description="1 to 256 characters without colons, slashes and bars.",
    ),
]
ScheduleExpression = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="at(2026-01-31T08:00:00), rate(5 minutes), or cron(0 8 ? * MON-FRI *).",
    ),
]
Timezone = Annotated[
    str,
    Meta(
        max_length=64,
        pattern=r"^[A-Za-z0-9+_-]*(/[A-Za-z0-9+_-]+)*$",
        description="a time zone's name, such as Europe/Berlin; without one, UTC.",
    ),
]
PageSize = Annotated[
    int,
    Meta(ge=1, le=quotas.LIST_PAGE_ITEMS, description=f"a whole number from 1 to {quotas.LIST_PAGE_ITEMS}."),
]


class ScalingStatus(Enum):
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    """It is tried again; the message says why it failed."""


class ScalingActivity(Shape, frozen=True, kw_only=True):
    """What was last done to a scalable target."""

    time: datetime
    cause: str
    from_capacity: int
    to_capacity: int
    status: ScalingStatus
    status_message: str | UnsetType = UNSET


class TargetTracking(Shape, frozen=True, kw_only=True):
    """Keeps the utilisation of provisioned concurrency near a value."""

    target_value: TargetValue
    scale_out_cooldown: Cooldown = 0
    scale_in_cooldown: Cooldown = 0
    """Seconds; 0 is Application Auto Scaling's default for Lambda."""
    disable_scale_in: bool = False


class ScalableTarget(Shape, frozen=True, kw_only=True):
    """Provisioned concurrency that may be scaled."""

    function_name: str
    qualifier: str
    min_capacity: int
    max_capacity: int
    capacity: int
    """That is asked for now; GetProvisionedConcurrencyConfig tells how much of it there is."""
    policy: TargetTracking | UnsetType = UNSET
    scheduled_actions: int = 0
    """How many."""
    last_activity: ScalingActivity | UnsetType = UNSET


class RegisterScalableTargetRequest(Shape, frozen=True, kw_only=True):
    """Of a new target both bounds are given; of an existing one those that are not given stay."""

    function_name: FunctionName
    qualifier: Qualifier = LATEST
    min_capacity: Capacity | UnsetType = UNSET
    max_capacity: Capacity | UnsetType = UNSET


class DeregisterScalableTargetRequest(Shape, frozen=True, kw_only=True):
    """Its policy and its scheduled actions go with it; what is provisioned stays."""

    function_name: FunctionName
    qualifier: Qualifier = LATEST


class DeregisterScalableTargetResponse(Shape, frozen=True, kw_only=True):
    """No members."""


class DescribeScalableTargetsRequest(Shape, frozen=True, kw_only=True):
    """All, or a function's, by pages."""

    function_name: AnyFunction = ""
    marker: str = ""
    max_items: PageSize = quotas.LIST_PAGE_ITEMS


class DescribeScalableTargetsResponse(Shape, frozen=True, kw_only=True):
    scalable_targets: list[ScalableTarget] = field(default_factory=list)
    next_marker: str | UnsetType = UNSET


class PutScalingPolicyRequest(Shape, frozen=True, kw_only=True):
    """Replaces the policy of a scalable target."""

    function_name: FunctionName
    qualifier: Qualifier = LATEST
    policy: TargetTracking


class DeleteScalingPolicyRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    qualifier: Qualifier = LATEST


class DeleteScalingPolicyResponse(Shape, frozen=True, kw_only=True):
    """No members."""


class PutScheduledActionRequest(Shape, frozen=True, kw_only=True):
    """Replaces the action of this name. At each time of the schedule the target's bounds become these, and what is
    provisioned is brought within them."""

    function_name: FunctionName
    qualifier: Qualifier = LATEST
    scheduled_action_name: ScheduledActionName
    schedule: ScheduleExpression
    timezone: Timezone = ""
    """Of at and cron expressions; empty: UTC."""
    start_time: datetime | UnsetType = UNSET
    end_time: datetime | UnsetType = UNSET
    min_capacity: Capacity | UnsetType = UNSET
    max_capacity: Capacity | UnsetType = UNSET
    """One of both may be left out."""


class ScheduledAction(Shape, frozen=True, kw_only=True):
    function_name: str
    qualifier: str
    scheduled_action_name: str
    schedule: str
    timezone: str
    start_time: datetime | UnsetType = UNSET
    end_time: datetime | UnsetType = UNSET
    min_capacity: int | UnsetType = UNSET
    max_capacity: int | UnsetType = UNSET
    next_time: datetime | UnsetType = UNSET
    """When it is due."""


class DescribeScheduledActionsRequest(Shape, frozen=True, kw_only=True):
    """All of one target: there are at most 200."""

    function_name: FunctionName
    qualifier: Qualifier = LATEST


class DescribeScheduledActionsResponse(Shape, frozen=True, kw_only=True):
    scheduled_actions: list[ScheduledAction] = field(default_factory=list)


class DeleteScheduledActionRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    qualifier: Qualifier = LATEST
    scheduled_action_name: ScheduledActionName


class DeleteScheduledActionResponse(Shape, frozen=True, kw_only=True):
    """No members."""
