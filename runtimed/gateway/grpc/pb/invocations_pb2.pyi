from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InvocationType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INVOCATION_TYPE_UNSPECIFIED: _ClassVar[InvocationType]
    INVOCATION_TYPE_REQUEST_RESPONSE: _ClassVar[InvocationType]
    INVOCATION_TYPE_EVENT: _ClassVar[InvocationType]
    INVOCATION_TYPE_DRY_RUN: _ClassVar[InvocationType]

class LogType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_TYPE_UNSPECIFIED: _ClassVar[LogType]
    LOG_TYPE_NONE: _ClassVar[LogType]
    LOG_TYPE_TAIL: _ClassVar[LogType]
INVOCATION_TYPE_UNSPECIFIED: InvocationType
INVOCATION_TYPE_REQUEST_RESPONSE: InvocationType
INVOCATION_TYPE_EVENT: InvocationType
INVOCATION_TYPE_DRY_RUN: InvocationType
LOG_TYPE_UNSPECIFIED: LogType
LOG_TYPE_NONE: LogType
LOG_TYPE_TAIL: LogType

class InvokeRequest(_message.Message):
    __slots__ = ("function_name", "qualifier", "invocation_type", "log_type", "client_context", "trace_id", "tenant_id", "payload", "event_id")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    INVOCATION_TYPE_FIELD_NUMBER: _ClassVar[int]
    LOG_TYPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    invocation_type: InvocationType
    log_type: LogType
    client_context: str
    trace_id: str
    tenant_id: str
    payload: bytes
    event_id: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., invocation_type: _Optional[_Union[InvocationType, str]] = ..., log_type: _Optional[_Union[LogType, str]] = ..., client_context: _Optional[str] = ..., trace_id: _Optional[str] = ..., tenant_id: _Optional[str] = ..., payload: _Optional[bytes] = ..., event_id: _Optional[str] = ...) -> None: ...

class InvokeResponse(_message.Message):
    __slots__ = ("status_code", "request_id", "executed_version", "function_error", "log_result", "payload", "duration_us", "init_duration_us")
    STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ERROR_FIELD_NUMBER: _ClassVar[int]
    LOG_RESULT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    INIT_DURATION_US_FIELD_NUMBER: _ClassVar[int]
    status_code: int
    request_id: str
    executed_version: str
    function_error: str
    log_result: bytes
    payload: bytes
    duration_us: int
    init_duration_us: int
    def __init__(self, status_code: _Optional[int] = ..., request_id: _Optional[str] = ..., executed_version: _Optional[str] = ..., function_error: _Optional[str] = ..., log_result: _Optional[bytes] = ..., payload: _Optional[bytes] = ..., duration_us: _Optional[int] = ..., init_duration_us: _Optional[int] = ...) -> None: ...

class InvokeStreamResponse(_message.Message):
    __slots__ = ("start", "payload_chunk", "complete")
    START_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_CHUNK_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    start: InvokeStreamStart
    payload_chunk: bytes
    complete: InvokeStreamComplete
    def __init__(self, start: _Optional[_Union[InvokeStreamStart, _Mapping]] = ..., payload_chunk: _Optional[bytes] = ..., complete: _Optional[_Union[InvokeStreamComplete, _Mapping]] = ...) -> None: ...

class InvokeStreamStart(_message.Message):
    __slots__ = ("request_id", "executed_version", "content_type")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    executed_version: str
    content_type: str
    def __init__(self, request_id: _Optional[str] = ..., executed_version: _Optional[str] = ..., content_type: _Optional[str] = ...) -> None: ...

class InvokeStreamComplete(_message.Message):
    __slots__ = ("status_code", "error_code", "error_details", "log_result", "duration_us", "init_duration_us")
    STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_DETAILS_FIELD_NUMBER: _ClassVar[int]
    LOG_RESULT_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    INIT_DURATION_US_FIELD_NUMBER: _ClassVar[int]
    status_code: int
    error_code: str
    error_details: bytes
    log_result: bytes
    duration_us: int
    init_duration_us: int
    def __init__(self, status_code: _Optional[int] = ..., error_code: _Optional[str] = ..., error_details: _Optional[bytes] = ..., log_result: _Optional[bytes] = ..., duration_us: _Optional[int] = ..., init_duration_us: _Optional[int] = ...) -> None: ...
