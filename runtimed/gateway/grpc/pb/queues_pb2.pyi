import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_STATE_UNSPECIFIED: _ClassVar[EventState]
    EVENT_STATE_WAITING: _ClassVar[EventState]
    EVENT_STATE_RUNNING: _ClassVar[EventState]
    EVENT_STATE_DEAD: _ClassVar[EventState]
EVENT_STATE_UNSPECIFIED: EventState
EVENT_STATE_WAITING: EventState
EVENT_STATE_RUNNING: EventState
EVENT_STATE_DEAD: EventState

class QueueStatus(_message.Message):
    __slots__ = ("function_name", "waiting", "running", "dead", "paused", "throttled_until", "oldest_accepted_at")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    OLDEST_ACCEPTED_AT_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    waiting: int
    running: int
    dead: int
    paused: bool
    throttled_until: _timestamp_pb2.Timestamp
    oldest_accepted_at: _timestamp_pb2.Timestamp
    def __init__(self, function_name: _Optional[str] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., dead: _Optional[int] = ..., paused: bool = ..., throttled_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., oldest_accepted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ("function_name",)
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    def __init__(self, function_name: _Optional[str] = ...) -> None: ...

class ListQueuesResponse(_message.Message):
    __slots__ = ("queues",)
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedCompositeFieldContainer[QueueStatus]
    def __init__(self, queues: _Optional[_Iterable[_Union[QueueStatus, _Mapping]]] = ...) -> None: ...

class QueuedEvent(_message.Message):
    __slots__ = ("event_id", "function_name", "qualifier", "state", "approximate_invoke_count", "chain_depth", "accepted_at", "payload_size", "payload", "trace_id")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    APPROXIMATE_INVOKE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHAIN_DEPTH_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_AT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    function_name: str
    qualifier: str
    state: EventState
    approximate_invoke_count: int
    chain_depth: int
    accepted_at: _timestamp_pb2.Timestamp
    payload_size: int
    payload: bytes
    trace_id: str
    def __init__(self, event_id: _Optional[str] = ..., function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., state: _Optional[_Union[EventState, str]] = ..., approximate_invoke_count: _Optional[int] = ..., chain_depth: _Optional[int] = ..., accepted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., payload_size: _Optional[int] = ..., payload: _Optional[bytes] = ..., trace_id: _Optional[str] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("function_name", "event_id", "state", "payloads", "max_items", "marker")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MARKER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    event_id: str
    state: EventState
    payloads: bool
    max_items: int
    marker: str
    def __init__(self, function_name: _Optional[str] = ..., event_id: _Optional[str] = ..., state: _Optional[_Union[EventState, str]] = ..., payloads: bool = ..., max_items: _Optional[int] = ..., marker: _Optional[str] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events", "next_marker")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_MARKER_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[QueuedEvent]
    next_marker: str
    def __init__(self, events: _Optional[_Iterable[_Union[QueuedEvent, _Mapping]]] = ..., next_marker: _Optional[str] = ...) -> None: ...

class CancelEventsRequest(_message.Message):
    __slots__ = ("function_name", "event_id", "state")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    event_id: str
    state: EventState
    def __init__(self, function_name: _Optional[str] = ..., event_id: _Optional[str] = ..., state: _Optional[_Union[EventState, str]] = ...) -> None: ...

class RedriveEventsRequest(_message.Message):
    __slots__ = ("function_name", "event_id")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    event_id: str
    def __init__(self, function_name: _Optional[str] = ..., event_id: _Optional[str] = ...) -> None: ...

class ChangedEvents(_message.Message):
    __slots__ = ("changed", "left")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    changed: int
    left: int
    def __init__(self, changed: _Optional[int] = ..., left: _Optional[int] = ...) -> None: ...

class PauseQueueRequest(_message.Message):
    __slots__ = ("function_name",)
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    def __init__(self, function_name: _Optional[str] = ...) -> None: ...

class PauseQueueResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeQueueRequest(_message.Message):
    __slots__ = ("function_name",)
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    def __init__(self, function_name: _Optional[str] = ...) -> None: ...

class ResumeQueueResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FunctionEventInvokeConfig(_message.Message):
    __slots__ = ("last_modified", "function_arn", "maximum_retry_attempts", "maximum_event_age_in_seconds", "retry_delay_milliseconds")
    LAST_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ARN_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_RETRY_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_EVENT_AGE_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    last_modified: float
    function_arn: str
    maximum_retry_attempts: int
    maximum_event_age_in_seconds: int
    retry_delay_milliseconds: int
    def __init__(self, last_modified: _Optional[float] = ..., function_arn: _Optional[str] = ..., maximum_retry_attempts: _Optional[int] = ..., maximum_event_age_in_seconds: _Optional[int] = ..., retry_delay_milliseconds: _Optional[int] = ...) -> None: ...

class PutFunctionEventInvokeConfigRequest(_message.Message):
    __slots__ = ("function_name", "qualifier", "maximum_retry_attempts", "maximum_event_age_in_seconds", "retry_attempts", "retry_delay_milliseconds")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_RETRY_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_EVENT_AGE_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RETRY_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    maximum_retry_attempts: int
    maximum_event_age_in_seconds: int
    retry_attempts: int
    retry_delay_milliseconds: int
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., maximum_retry_attempts: _Optional[int] = ..., maximum_event_age_in_seconds: _Optional[int] = ..., retry_attempts: _Optional[int] = ..., retry_delay_milliseconds: _Optional[int] = ...) -> None: ...

class UpdateFunctionEventInvokeConfigRequest(_message.Message):
    __slots__ = ("function_name", "qualifier", "maximum_retry_attempts", "maximum_event_age_in_seconds", "retry_attempts", "retry_delay_milliseconds")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_RETRY_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_EVENT_AGE_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RETRY_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    maximum_retry_attempts: int
    maximum_event_age_in_seconds: int
    retry_attempts: int
    retry_delay_milliseconds: int
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., maximum_retry_attempts: _Optional[int] = ..., maximum_event_age_in_seconds: _Optional[int] = ..., retry_attempts: _Optional[int] = ..., retry_delay_milliseconds: _Optional[int] = ...) -> None: ...

class GetFunctionEventInvokeConfigRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class DeleteFunctionEventInvokeConfigRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class DeleteFunctionEventInvokeConfigResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListFunctionEventInvokeConfigsRequest(_message.Message):
    __slots__ = ("function_name", "max_items", "marker")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MARKER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    max_items: int
    marker: str
    def __init__(self, function_name: _Optional[str] = ..., max_items: _Optional[int] = ..., marker: _Optional[str] = ...) -> None: ...

class ListFunctionEventInvokeConfigsResponse(_message.Message):
    __slots__ = ("function_event_invoke_configs", "next_marker")
    FUNCTION_EVENT_INVOKE_CONFIGS_FIELD_NUMBER: _ClassVar[int]
    NEXT_MARKER_FIELD_NUMBER: _ClassVar[int]
    function_event_invoke_configs: _containers.RepeatedCompositeFieldContainer[FunctionEventInvokeConfig]
    next_marker: str
    def __init__(self, function_event_invoke_configs: _Optional[_Iterable[_Union[FunctionEventInvokeConfig, _Mapping]]] = ..., next_marker: _Optional[str] = ...) -> None: ...
