"""What is kept of scaling and what callers see of it: from the one to the other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from runtimed.machines import schedules
from runtimed.machines.schedules import Rule, ScheduleError
from runtimed.model import errors
from runtimed.model.scaling import (
    PutScheduledActionRequest,
    ScalableTarget,
    ScalingActivity,
    ScalingStatus,
    ScheduledAction,
    TargetTracking,
)
from runtimed.model.shape import UNSET, UnsetType
from runtimed.store.scaling import Action, Scalable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(at_ms: int) -> datetime:
    """Of milliseconds since the epoch."""
    return _EPOCH + timedelta(milliseconds=at_ms)


def rule(action: Action) -> Rule:
    """Raises ScheduleError, InvalidParameterValue."""
    return Rule(
        schedule=schedules.parse(action.schedule),
        zone=zone(action.zone),
        put_at=moment(action.put_ms),
        start=None if action.start_ms is None else moment(action.start_ms),
        end=None if action.end_ms is None else moment(action.end_ms),
    )


def zone(name: str) -> tzinfo:
    """Raises InvalidParameterValue."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a directory of zones
        raise errors.InvalidParameterValue(
            f"Timezone: there is no time zone {name!r}. Use a name of the IANA database, such as Europe/Berlin."
        ) from None


def due(action: Action, after_ms: int) -> int | None:
    """When it is due next, in milliseconds since the epoch."""
    found = schedules.next_after(rule(action), moment(after_ms))
    return None if found is None else _ms(found)


def planned(request: PutScheduledActionRequest, now_ms: int) -> Action:
    """Raises InvalidParameterValue."""
    least, most = _given(request.min_capacity), _given(request.max_capacity)
    if least is None and most is None:
        raise errors.InvalidParameterValue("MinCapacity, MaxCapacity: give one of them, or both.")
    if least is not None and most is not None and least > most:
        raise errors.InvalidParameterValue(f"MinCapacity: {least} is more than MaxCapacity, {most}.")
    action = Action(
        name=request.scheduled_action_name,
        schedule=request.schedule.strip(),
        zone=request.timezone,
        put_ms=now_ms,
        start_ms=_given_time("StartTime", request.start_time),
        end_ms=_given_time("EndTime", request.end_time),
        least=least,
        most=most,
        next_ms=0,
    )
    try:
        following = due(action, now_ms)
    except ScheduleError as error:
        raise errors.InvalidParameterValue(f"Schedule: {error}") from None
    if following is None:
        raise errors.InvalidParameterValue(f"Schedule: {action.schedule} is never due from now on. Give a later time.")
    return Action(**{name: getattr(action, name) for name in action.__struct_fields__} | {"next_ms": following})


def _given_time(member: str, moment: datetime | UnsetType) -> int | None:
    if isinstance(moment, UnsetType):
        return None
    first, last = schedules.YEARS
    if not first <= moment.year <= last:
        raise errors.InvalidParameterValue(f"{member}: the year must be from {first} to {last}.")
    return _ms(moment)


def shown(row: Scalable, action: Action) -> ScheduledAction:
    return ScheduledAction(
        function_name=row.name,
        qualifier=row.qualifier,
        scheduled_action_name=action.name,
        schedule=action.schedule,
        timezone=action.zone or "UTC",
        start_time=UNSET if action.start_ms is None else moment(action.start_ms),
        end_time=UNSET if action.end_ms is None else moment(action.end_ms),
        min_capacity=UNSET if action.least is None else action.least,
        max_capacity=UNSET if action.most is None else action.most,
        next_time=moment(action.next_ms),
    )


def described(row: Scalable, capacity: int) -> ScalableTarget:
    """`capacity`: what is provisioned."""
    return ScalableTarget(
        function_name=row.name,
        qualifier=row.qualifier,
        min_capacity=row.bounds.least,
        max_capacity=row.bounds.most,
        capacity=capacity,
        policy=_policy(row),
        scheduled_actions=len(row.actions),
        last_activity=_activity(row),
    )


def _policy(row: Scalable) -> TargetTracking | UnsetType:
    if row.policy is None:
        return UNSET
    return TargetTracking(
        target_value=row.policy.target,
        scale_out_cooldown=row.policy.out_seconds,
        scale_in_cooldown=row.policy.in_seconds,
        disable_scale_in=not row.policy.scale_in,
    )


def _activity(row: Scalable) -> ScalingActivity | UnsetType:
    activity = row.activity
    if activity is None:
        return UNSET
    return ScalingActivity(
        time=moment(activity.at_ms),
        cause=activity.cause,
        from_capacity=activity.before,
        to_capacity=activity.after,
        status=ScalingStatus.FAILED if activity.failed else ScalingStatus.SUCCESSFUL,
        status_message=activity.failed or UNSET,
    )


def _given(value: int | UnsetType) -> int | None:
    return None if isinstance(value, UnsetType) else value


def _ms(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)
