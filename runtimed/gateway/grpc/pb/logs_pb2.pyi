import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LogKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_KIND_UNSPECIFIED: _ClassVar[LogKind]
    LOG_KIND_FUNCTION: _ClassVar[LogKind]
    LOG_KIND_INIT_START: _ClassVar[LogKind]
    LOG_KIND_START: _ClassVar[LogKind]
    LOG_KIND_END: _ClassVar[LogKind]
    LOG_KIND_REPORT: _ClassVar[LogKind]
    LOG_KIND_INIT_REPORT: _ClassVar[LogKind]
    LOG_KIND_DROPPED: _ClassVar[LogKind]
    LOG_KIND_POSITION: _ClassVar[LogKind]
LOG_KIND_UNSPECIFIED: LogKind
LOG_KIND_FUNCTION: LogKind
LOG_KIND_INIT_START: LogKind
LOG_KIND_START: LogKind
LOG_KIND_END: LogKind
LOG_KIND_REPORT: LogKind
LOG_KIND_INIT_REPORT: LogKind
LOG_KIND_DROPPED: LogKind
LOG_KIND_POSITION: LogKind

class TailLogsRequest(_message.Message):
    __slots__ = ("function_name", "follow", "since", "request_id", "until", "contains", "limit", "after", "positions", "version")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    CONTAINS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    follow: bool
    since: _timestamp_pb2.Timestamp
    request_id: str
    until: _timestamp_pb2.Timestamp
    contains: _containers.RepeatedScalarFieldContainer[str]
    limit: int
    after: str
    positions: bool
    version: str
    def __init__(self, function_name: _Optional[str] = ..., follow: bool = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_id: _Optional[str] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., contains: _Optional[_Iterable[str]] = ..., limit: _Optional[int] = ..., after: _Optional[str] = ..., positions: bool = ..., version: _Optional[str] = ...) -> None: ...

class LogEvent(_message.Message):
    __slots__ = ("time", "kind", "message", "request_id", "log_stream", "cursor")
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_STREAM_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    kind: LogKind
    message: str
    request_id: str
    log_stream: str
    cursor: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[LogKind, str]] = ..., message: _Optional[str] = ..., request_id: _Optional[str] = ..., log_stream: _Optional[str] = ..., cursor: _Optional[str] = ...) -> None: ...
