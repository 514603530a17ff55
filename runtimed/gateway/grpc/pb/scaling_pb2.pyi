import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScalingStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCALING_STATUS_UNSPECIFIED: _ClassVar[ScalingStatus]
    SCALING_STATUS_SUCCESSFUL: _ClassVar[ScalingStatus]
    SCALING_STATUS_FAILED: _ClassVar[ScalingStatus]
SCALING_STATUS_UNSPECIFIED: ScalingStatus
SCALING_STATUS_SUCCESSFUL: ScalingStatus
SCALING_STATUS_FAILED: ScalingStatus

class ScalingActivity(_message.Message):
    __slots__ = ("time", "cause", "from_capacity", "to_capacity", "status", "status_message")
    TIME_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    FROM_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    TO_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    cause: str
    from_capacity: int
    to_capacity: int
    status: ScalingStatus
    status_message: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cause: _Optional[str] = ..., from_capacity: _Optional[int] = ..., to_capacity: _Optional[int] = ..., status: _Optional[_Union[ScalingStatus, str]] = ..., status_message: _Optional[str] = ...) -> None: ...

class TargetTracking(_message.Message):
    __slots__ = ("target_value", "scale_out_cooldown", "scale_in_cooldown", "disable_scale_in")
    TARGET_VALUE_FIELD_NUMBER: _ClassVar[int]
    SCALE_OUT_COOLDOWN_FIELD_NUMBER: _ClassVar[int]
    SCALE_IN_COOLDOWN_FIELD_NUMBER: _ClassVar[int]
    DISABLE_SCALE_IN_FIELD_NUMBER: _ClassVar[int]
    target_value: float
    scale_out_cooldown: int
    scale_in_cooldown: int
    disable_scale_in: bool
    def __init__(self, target_value: _Optional[float] = ..., scale_out_cooldown: _Optional[int] = ..., scale_in_cooldown: _Optional[int] = ..., disable_scale_in: bool = ...) -> None: ...

class ScalableTarget(_message.Message):
    __slots__ = ("function_name", "qualifier", "min_capacity", "max_capacity", "capacity", "policy", "scheduled_actions", "last_activity")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    MIN_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    MAX_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    min_capacity: int
    max_capacity: int
    capacity: int
    policy: TargetTracking
    scheduled_actions: int
    last_activity: ScalingActivity
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., min_capacity: _Optional[int] = ..., max_capacity: _Optional[int] = ..., capacity: _Optional[int] = ..., policy: _Optional[_Union[TargetTracking, _Mapping]] = ..., scheduled_actions: _Optional[int] = ..., last_activity: _Optional[_Union[ScalingActivity, _Mapping]] = ...) -> None: ...

class RegisterScalableTargetRequest(_message.Message):
    __slots__ = ("function_name", "qualifier", "min_capacity", "max_capacity")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    MIN_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    MAX_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    min_capacity: int
    max_capacity: int
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., min_capacity: _Optional[int] = ..., max_capacity: _Optional[int] = ...) -> None: ...

class DeregisterScalableTargetRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class DeregisterScalableTargetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeScalableTargetsRequest(_message.Message):
    __slots__ = ("function_name", "marker", "max_items")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    MARKER_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    marker: str
    max_items: int
    def __init__(self, function_name: _Optional[str] = ..., marker: _Optional[str] = ..., max_items: _Optional[int] = ...) -> None: ...

class DescribeScalableTargetsResponse(_message.Message):
    __slots__ = ("scalable_targets", "next_marker")
    SCALABLE_TARGETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_MARKER_FIELD_NUMBER: _ClassVar[int]
    scalable_targets: _containers.RepeatedCompositeFieldContainer[ScalableTarget]
    next_marker: str
    def __init__(self, scalable_targets: _Optional[_Iterable[_Union[ScalableTarget, _Mapping]]] = ..., next_marker: _Optional[str] = ...) -> None: ...

class PutScalingPolicyRequest(_message.Message):
    __slots__ = ("function_name", "qualifier", "policy")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    policy: TargetTracking
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., policy: _Optional[_Union[TargetTracking, _Mapping]] = ...) -> None: ...

class DeleteScalingPolicyRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class DeleteScalingPolicyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutScheduledActionRequest(_message.Message):
    __slots__ = ("function_name", "qualifier", "scheduled_action_name", "schedule", "timezone", "start_time", "end_time", "min_capacity", "max_capacity")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_ACTION_NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    MIN_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    MAX_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    scheduled_action_name: str
    schedule: str
    timezone: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    min_capacity: int
    max_capacity: int
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., scheduled_action_name: _Optional[str] = ..., schedule: _Optional[str] = ..., timezone: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., min_capacity: _Optional[int] = ..., max_capacity: _Optional[int] = ...) -> None: ...

class ScheduledAction(_message.Message):
    __slots__ = ("function_name", "qualifier", "scheduled_action_name", "schedule", "timezone", "start_time", "end_time", "min_capacity", "max_capacity", "next_time")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_ACTION_NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    MIN_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    MAX_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    NEXT_TIME_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    scheduled_action_name: str
    schedule: str
    timezone: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    min_capacity: int
    max_capacity: int
    next_time: _timestamp_pb2.Timestamp
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., scheduled_action_name: _Optional[str] = ..., schedule: _Optional[str] = ..., timezone: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., min_capacity: _Optional[int] = ..., max_capacity: _Optional[int] = ..., next_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DescribeScheduledActionsRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class DescribeScheduledActionsResponse(_message.Message):
    __slots__ = ("scheduled_actions",)
    SCHEDULED_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    scheduled_actions: _containers.RepeatedCompositeFieldContainer[ScheduledAction]
    def __init__(self, scheduled_actions: _Optional[_Iterable[_Union[ScheduledAction, _Mapping]]] = ...) -> None: ...

class DeleteScheduledActionRequest(_message.Message):
    __slots__ = ("function_name", "qualifier", "scheduled_action_name")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_ACTION_NAME_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    scheduled_action_name: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., scheduled_action_name: _Optional[str] = ...) -> None: ...

class DeleteScheduledActionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
