from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_PENDING: _ClassVar[State]
    STATE_ACTIVE: _ClassVar[State]
    STATE_INACTIVE: _ClassVar[State]
    STATE_FAILED: _ClassVar[State]

class LastUpdateStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LAST_UPDATE_STATUS_UNSPECIFIED: _ClassVar[LastUpdateStatus]
    LAST_UPDATE_STATUS_SUCCESSFUL: _ClassVar[LastUpdateStatus]
    LAST_UPDATE_STATUS_IN_PROGRESS: _ClassVar[LastUpdateStatus]
    LAST_UPDATE_STATUS_FAILED: _ClassVar[LastUpdateStatus]

class LogFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_FORMAT_UNSPECIFIED: _ClassVar[LogFormat]
    LOG_FORMAT_TEXT: _ClassVar[LogFormat]
    LOG_FORMAT_JSON: _ClassVar[LogFormat]

class ApplicationLogLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    APPLICATION_LOG_LEVEL_UNSPECIFIED: _ClassVar[ApplicationLogLevel]
    APPLICATION_LOG_LEVEL_TRACE: _ClassVar[ApplicationLogLevel]
    APPLICATION_LOG_LEVEL_DEBUG: _ClassVar[ApplicationLogLevel]
    APPLICATION_LOG_LEVEL_INFO: _ClassVar[ApplicationLogLevel]
    APPLICATION_LOG_LEVEL_WARN: _ClassVar[ApplicationLogLevel]
    APPLICATION_LOG_LEVEL_ERROR: _ClassVar[ApplicationLogLevel]
    APPLICATION_LOG_LEVEL_FATAL: _ClassVar[ApplicationLogLevel]

class SystemLogLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SYSTEM_LOG_LEVEL_UNSPECIFIED: _ClassVar[SystemLogLevel]
    SYSTEM_LOG_LEVEL_DEBUG: _ClassVar[SystemLogLevel]
    SYSTEM_LOG_LEVEL_INFO: _ClassVar[SystemLogLevel]
    SYSTEM_LOG_LEVEL_WARN: _ClassVar[SystemLogLevel]

class SnapStartApplyOn(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SNAP_START_APPLY_ON_UNSPECIFIED: _ClassVar[SnapStartApplyOn]
    SNAP_START_APPLY_ON_NONE: _ClassVar[SnapStartApplyOn]
    SNAP_START_APPLY_ON_PUBLISHED_VERSIONS: _ClassVar[SnapStartApplyOn]

class SnapStartOptimizationStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SNAP_START_OPTIMIZATION_STATUS_UNSPECIFIED: _ClassVar[SnapStartOptimizationStatus]
    SNAP_START_OPTIMIZATION_STATUS_ON: _ClassVar[SnapStartOptimizationStatus]
    SNAP_START_OPTIMIZATION_STATUS_OFF: _ClassVar[SnapStartOptimizationStatus]

class SnapshotChoice(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SNAPSHOT_CHOICE_UNSPECIFIED: _ClassVar[SnapshotChoice]
    SNAPSHOT_CHOICE_NODE: _ClassVar[SnapshotChoice]
    SNAPSHOT_CHOICE_AUTO: _ClassVar[SnapshotChoice]
    SNAPSHOT_CHOICE_ON: _ClassVar[SnapshotChoice]
    SNAPSHOT_CHOICE_OFF: _ClassVar[SnapshotChoice]
STATE_UNSPECIFIED: State
STATE_PENDING: State
STATE_ACTIVE: State
STATE_INACTIVE: State
STATE_FAILED: State
LAST_UPDATE_STATUS_UNSPECIFIED: LastUpdateStatus
LAST_UPDATE_STATUS_SUCCESSFUL: LastUpdateStatus
LAST_UPDATE_STATUS_IN_PROGRESS: LastUpdateStatus
LAST_UPDATE_STATUS_FAILED: LastUpdateStatus
LOG_FORMAT_UNSPECIFIED: LogFormat
LOG_FORMAT_TEXT: LogFormat
LOG_FORMAT_JSON: LogFormat
APPLICATION_LOG_LEVEL_UNSPECIFIED: ApplicationLogLevel
APPLICATION_LOG_LEVEL_TRACE: ApplicationLogLevel
APPLICATION_LOG_LEVEL_DEBUG: ApplicationLogLevel
APPLICATION_LOG_LEVEL_INFO: ApplicationLogLevel
APPLICATION_LOG_LEVEL_WARN: ApplicationLogLevel
APPLICATION_LOG_LEVEL_ERROR: ApplicationLogLevel
APPLICATION_LOG_LEVEL_FATAL: ApplicationLogLevel
SYSTEM_LOG_LEVEL_UNSPECIFIED: SystemLogLevel
SYSTEM_LOG_LEVEL_DEBUG: SystemLogLevel
SYSTEM_LOG_LEVEL_INFO: SystemLogLevel
SYSTEM_LOG_LEVEL_WARN: SystemLogLevel
SNAP_START_APPLY_ON_UNSPECIFIED: SnapStartApplyOn
SNAP_START_APPLY_ON_NONE: SnapStartApplyOn
SNAP_START_APPLY_ON_PUBLISHED_VERSIONS: SnapStartApplyOn
SNAP_START_OPTIMIZATION_STATUS_UNSPECIFIED: SnapStartOptimizationStatus
SNAP_START_OPTIMIZATION_STATUS_ON: SnapStartOptimizationStatus
SNAP_START_OPTIMIZATION_STATUS_OFF: SnapStartOptimizationStatus
SNAPSHOT_CHOICE_UNSPECIFIED: SnapshotChoice
SNAPSHOT_CHOICE_NODE: SnapshotChoice
SNAPSHOT_CHOICE_AUTO: SnapshotChoice
SNAPSHOT_CHOICE_ON: SnapshotChoice
SNAPSHOT_CHOICE_OFF: SnapshotChoice

class Environment(_message.Message):
    __slots__ = ("variables",)
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    variables: _containers.ScalarMap[str, str]
    def __init__(self, variables: _Optional[_Mapping[str, str]] = ...) -> None: ...

class EphemeralStorage(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class LoggingConfig(_message.Message):
    __slots__ = ("log_format", "application_log_level", "system_log_level", "log_group")
    LOG_FORMAT_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    LOG_GROUP_FIELD_NUMBER: _ClassVar[int]
    log_format: LogFormat
    application_log_level: ApplicationLogLevel
    system_log_level: SystemLogLevel
    log_group: str
    def __init__(self, log_format: _Optional[_Union[LogFormat, str]] = ..., application_log_level: _Optional[_Union[ApplicationLogLevel, str]] = ..., system_log_level: _Optional[_Union[SystemLogLevel, str]] = ..., log_group: _Optional[str] = ...) -> None: ...

class SnapStart(_message.Message):
    __slots__ = ("apply_on",)
    APPLY_ON_FIELD_NUMBER: _ClassVar[int]
    apply_on: SnapStartApplyOn
    def __init__(self, apply_on: _Optional[_Union[SnapStartApplyOn, str]] = ...) -> None: ...

class SnapStartResponse(_message.Message):
    __slots__ = ("apply_on", "optimization_status")
    APPLY_ON_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZATION_STATUS_FIELD_NUMBER: _ClassVar[int]
    apply_on: SnapStartApplyOn
    optimization_status: SnapStartOptimizationStatus
    def __init__(self, apply_on: _Optional[_Union[SnapStartApplyOn, str]] = ..., optimization_status: _Optional[_Union[SnapStartOptimizationStatus, str]] = ...) -> None: ...

class FunctionConfiguration(_message.Message):
    __slots__ = ("function_name", "function_arn", "version", "runtime", "handler", "description", "timeout", "memory_size", "ephemeral_storage", "environment", "logging_config", "code_size", "code_sha256", "last_modified", "revision_id", "package_type", "architectures", "state", "state_reason", "state_reason_code", "last_update_status", "last_update_status_reason", "last_update_status_reason_code", "snap_start", "snapshot")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ARN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_STORAGE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    LOGGING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CODE_SIZE_FIELD_NUMBER: _ClassVar[int]
    CODE_SHA256_FIELD_NUMBER: _ClassVar[int]
    LAST_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    REVISION_ID_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    LAST_UPDATE_STATUS_FIELD_NUMBER: _ClassVar[int]
    LAST_UPDATE_STATUS_REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_UPDATE_STATUS_REASON_CODE_FIELD_NUMBER: _ClassVar[int]
    SNAP_START_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    function_arn: str
    version: str
    runtime: str
    handler: str
    description: str
    timeout: int
    memory_size: int
    ephemeral_storage: EphemeralStorage
    environment: Environment
    logging_config: LoggingConfig
    code_size: int
    code_sha256: str
    last_modified: str
    revision_id: str
    package_type: str
    architectures: _containers.RepeatedScalarFieldContainer[str]
    state: State
    state_reason: str
    state_reason_code: str
    last_update_status: LastUpdateStatus
    last_update_status_reason: str
    last_update_status_reason_code: str
    snap_start: SnapStartResponse
    snapshot: SnapshotChoice
    def __init__(self, function_name: _Optional[str] = ..., function_arn: _Optional[str] = ..., version: _Optional[str] = ..., runtime: _Optional[str] = ..., handler: _Optional[str] = ..., description: _Optional[str] = ..., timeout: _Optional[int] = ..., memory_size: _Optional[int] = ..., ephemeral_storage: _Optional[_Union[EphemeralStorage, _Mapping]] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., logging_config: _Optional[_Union[LoggingConfig, _Mapping]] = ..., code_size: _Optional[int] = ..., code_sha256: _Optional[str] = ..., last_modified: _Optional[str] = ..., revision_id: _Optional[str] = ..., package_type: _Optional[str] = ..., architectures: _Optional[_Iterable[str]] = ..., state: _Optional[_Union[State, str]] = ..., state_reason: _Optional[str] = ..., state_reason_code: _Optional[str] = ..., last_update_status: _Optional[_Union[LastUpdateStatus, str]] = ..., last_update_status_reason: _Optional[str] = ..., last_update_status_reason_code: _Optional[str] = ..., snap_start: _Optional[_Union[SnapStartResponse, _Mapping]] = ..., snapshot: _Optional[_Union[SnapshotChoice, str]] = ...) -> None: ...

class CreateFunctionRequest(_message.Message):
    __slots__ = ("function_name", "runtime", "handler", "description", "timeout", "memory_size", "ephemeral_storage", "environment", "logging_config", "upload_size", "upload_sha256", "snap_start", "publish", "snapshot")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_STORAGE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    LOGGING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_SIZE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    SNAP_START_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    runtime: str
    handler: str
    description: str
    timeout: int
    memory_size: int
    ephemeral_storage: EphemeralStorage
    environment: Environment
    logging_config: LoggingConfig
    upload_size: int
    upload_sha256: str
    snap_start: SnapStart
    publish: bool
    snapshot: SnapshotChoice
    def __init__(self, function_name: _Optional[str] = ..., runtime: _Optional[str] = ..., handler: _Optional[str] = ..., description: _Optional[str] = ..., timeout: _Optional[int] = ..., memory_size: _Optional[int] = ..., ephemeral_storage: _Optional[_Union[EphemeralStorage, _Mapping]] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., logging_config: _Optional[_Union[LoggingConfig, _Mapping]] = ..., upload_size: _Optional[int] = ..., upload_sha256: _Optional[str] = ..., snap_start: _Optional[_Union[SnapStart, _Mapping]] = ..., publish: bool = ..., snapshot: _Optional[_Union[SnapshotChoice, str]] = ...) -> None: ...

class CreateFunctionUpload(_message.Message):
    __slots__ = ("request", "chunk")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    request: CreateFunctionRequest
    chunk: bytes
    def __init__(self, request: _Optional[_Union[CreateFunctionRequest, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class GetFunctionRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class GetFunctionResponse(_message.Message):
    __slots__ = ("configuration",)
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    configuration: FunctionConfiguration
    def __init__(self, configuration: _Optional[_Union[FunctionConfiguration, _Mapping]] = ...) -> None: ...

class ListFunctionsRequest(_message.Message):
    __slots__ = ("marker", "max_items", "name_prefix", "function_version")
    MARKER_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    NAME_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_VERSION_FIELD_NUMBER: _ClassVar[int]
    marker: str
    max_items: int
    name_prefix: str
    function_version: str
    def __init__(self, marker: _Optional[str] = ..., max_items: _Optional[int] = ..., name_prefix: _Optional[str] = ..., function_version: _Optional[str] = ...) -> None: ...

class ListFunctionsResponse(_message.Message):
    __slots__ = ("functions", "next_marker")
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_MARKER_FIELD_NUMBER: _ClassVar[int]
    functions: _containers.RepeatedCompositeFieldContainer[FunctionConfiguration]
    next_marker: str
    def __init__(self, functions: _Optional[_Iterable[_Union[FunctionConfiguration, _Mapping]]] = ..., next_marker: _Optional[str] = ...) -> None: ...

class UpdateFunctionCodeRequest(_message.Message):
    __slots__ = ("function_name", "revision_id", "upload_size", "upload_sha256", "publish")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_ID_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_SIZE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    revision_id: str
    upload_size: int
    upload_sha256: str
    publish: bool
    def __init__(self, function_name: _Optional[str] = ..., revision_id: _Optional[str] = ..., upload_size: _Optional[int] = ..., upload_sha256: _Optional[str] = ..., publish: bool = ...) -> None: ...

class UpdateFunctionCodeUpload(_message.Message):
    __slots__ = ("request", "chunk")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    request: UpdateFunctionCodeRequest
    chunk: bytes
    def __init__(self, request: _Optional[_Union[UpdateFunctionCodeRequest, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class UpdateFunctionConfigurationRequest(_message.Message):
    __slots__ = ("function_name", "runtime", "handler", "description", "timeout", "memory_size", "ephemeral_storage", "environment", "logging_config", "revision_id", "snap_start", "snapshot")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_STORAGE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    LOGGING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    REVISION_ID_FIELD_NUMBER: _ClassVar[int]
    SNAP_START_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    runtime: str
    handler: str
    description: str
    timeout: int
    memory_size: int
    ephemeral_storage: EphemeralStorage
    environment: Environment
    logging_config: LoggingConfig
    revision_id: str
    snap_start: SnapStart
    snapshot: SnapshotChoice
    def __init__(self, function_name: _Optional[str] = ..., runtime: _Optional[str] = ..., handler: _Optional[str] = ..., description: _Optional[str] = ..., timeout: _Optional[int] = ..., memory_size: _Optional[int] = ..., ephemeral_storage: _Optional[_Union[EphemeralStorage, _Mapping]] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., logging_config: _Optional[_Union[LoggingConfig, _Mapping]] = ..., revision_id: _Optional[str] = ..., snap_start: _Optional[_Union[SnapStart, _Mapping]] = ..., snapshot: _Optional[_Union[SnapshotChoice, str]] = ...) -> None: ...

class DeleteFunctionRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class DeleteFunctionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
