import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RuntimeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUNTIME_STATE_UNSPECIFIED: _ClassVar[RuntimeState]
    RUNTIME_STATE_PENDING: _ClassVar[RuntimeState]
    RUNTIME_STATE_READY: _ClassVar[RuntimeState]
    RUNTIME_STATE_FAILED: _ClassVar[RuntimeState]

class StatisticsOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATISTICS_ORDER_UNSPECIFIED: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_INVOCATIONS: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_ERRORS: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_THROTTLES: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_COLD_STARTS: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_IN_FLIGHT: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_WAITING: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_ENVIRONMENTS: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_DURATION_P50: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_DURATION_P99: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_MEMORY: _ClassVar[StatisticsOrder]
    STATISTICS_ORDER_NAME: _ClassVar[StatisticsOrder]

class CheckState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHECK_STATE_UNSPECIFIED: _ClassVar[CheckState]
    CHECK_STATE_OK: _ClassVar[CheckState]
    CHECK_STATE_WARNING: _ClassVar[CheckState]
    CHECK_STATE_MISSING: _ClassVar[CheckState]
    CHECK_STATE_UNKNOWN: _ClassVar[CheckState]

class CheckGroup(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHECK_GROUP_UNSPECIFIED: _ClassVar[CheckGroup]
    CHECK_GROUP_KERNEL: _ClassVar[CheckGroup]
    CHECK_GROUP_LIMIT: _ClassVar[CheckGroup]
    CHECK_GROUP_TOOL: _ClassVar[CheckGroup]
    CHECK_GROUP_RUNTIME: _ClassVar[CheckGroup]
    CHECK_GROUP_PROCESS: _ClassVar[CheckGroup]
RUNTIME_STATE_UNSPECIFIED: RuntimeState
RUNTIME_STATE_PENDING: RuntimeState
RUNTIME_STATE_READY: RuntimeState
RUNTIME_STATE_FAILED: RuntimeState
STATISTICS_ORDER_UNSPECIFIED: StatisticsOrder
STATISTICS_ORDER_INVOCATIONS: StatisticsOrder
STATISTICS_ORDER_ERRORS: StatisticsOrder
STATISTICS_ORDER_THROTTLES: StatisticsOrder
STATISTICS_ORDER_COLD_STARTS: StatisticsOrder
STATISTICS_ORDER_IN_FLIGHT: StatisticsOrder
STATISTICS_ORDER_WAITING: StatisticsOrder
STATISTICS_ORDER_ENVIRONMENTS: StatisticsOrder
STATISTICS_ORDER_DURATION_P50: StatisticsOrder
STATISTICS_ORDER_DURATION_P99: StatisticsOrder
STATISTICS_ORDER_MEMORY: StatisticsOrder
STATISTICS_ORDER_NAME: StatisticsOrder
CHECK_STATE_UNSPECIFIED: CheckState
CHECK_STATE_OK: CheckState
CHECK_STATE_WARNING: CheckState
CHECK_STATE_MISSING: CheckState
CHECK_STATE_UNKNOWN: CheckState
CHECK_GROUP_UNSPECIFIED: CheckGroup
CHECK_GROUP_KERNEL: CheckGroup
CHECK_GROUP_LIMIT: CheckGroup
CHECK_GROUP_TOOL: CheckGroup
CHECK_GROUP_RUNTIME: CheckGroup
CHECK_GROUP_PROCESS: CheckGroup

class SpareCounts(_message.Message):
    __slots__ = ("ready", "made", "taken", "failed")
    READY_FIELD_NUMBER: _ClassVar[int]
    MADE_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    ready: int
    made: int
    taken: int
    failed: int
    def __init__(self, ready: _Optional[int] = ..., made: _Optional[int] = ..., taken: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class RuntimeStatus(_message.Message):
    __slots__ = ("name", "version", "path", "state", "reason", "spares")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SPARES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    path: str
    state: RuntimeState
    reason: str
    spares: SpareCounts
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., path: _Optional[str] = ..., state: _Optional[_Union[RuntimeState, str]] = ..., reason: _Optional[str] = ..., spares: _Optional[_Union[SpareCounts, _Mapping]] = ...) -> None: ...

class ProcessStatus(_message.Message):
    __slots__ = ("name", "pid", "memory_bytes", "cpu_ms", "started_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    pid: int
    memory_bytes: int
    cpu_ms: int
    started_at: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., pid: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., cpu_ms: _Optional[int] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EnvironmentCounts(_message.Message):
    __slots__ = ("starting", "idle", "busy", "frozen", "parked", "provisioned", "provisioned_in_use")
    STARTING_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    PROVISIONED_FIELD_NUMBER: _ClassVar[int]
    PROVISIONED_IN_USE_FIELD_NUMBER: _ClassVar[int]
    starting: int
    idle: int
    busy: int
    frozen: int
    parked: int
    provisioned: int
    provisioned_in_use: int
    def __init__(self, starting: _Optional[int] = ..., idle: _Optional[int] = ..., busy: _Optional[int] = ..., frozen: _Optional[int] = ..., parked: _Optional[int] = ..., provisioned: _Optional[int] = ..., provisioned_in_use: _Optional[int] = ...) -> None: ...

class InvocationCounts(_message.Message):
    __slots__ = ("total", "function_errors", "throttles", "cold_starts", "in_flight", "waiting", "latency_p50_us", "latency_p99_us")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ERRORS_FIELD_NUMBER: _ClassVar[int]
    THROTTLES_FIELD_NUMBER: _ClassVar[int]
    COLD_STARTS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_US_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P99_US_FIELD_NUMBER: _ClassVar[int]
    total: int
    function_errors: int
    throttles: int
    cold_starts: int
    in_flight: int
    waiting: int
    latency_p50_us: int
    latency_p99_us: int
    def __init__(self, total: _Optional[int] = ..., function_errors: _Optional[int] = ..., throttles: _Optional[int] = ..., cold_starts: _Optional[int] = ..., in_flight: _Optional[int] = ..., waiting: _Optional[int] = ..., latency_p50_us: _Optional[int] = ..., latency_p99_us: _Optional[int] = ...) -> None: ...

class HostStatus(_message.Message):
    __slots__ = ("kernel", "architecture", "cpus", "cpu_percent", "memory_total_bytes", "memory_available_bytes", "disk_free_bytes")
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    kernel: str
    architecture: str
    cpus: int
    cpu_percent: float
    memory_total_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    def __init__(self, kernel: _Optional[str] = ..., architecture: _Optional[str] = ..., cpus: _Optional[int] = ..., cpu_percent: _Optional[float] = ..., memory_total_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("build", "account_id", "region", "started_at", "ready", "functions", "concurrency_limit", "environments", "invocations", "host", "processes", "runtimes", "warnings")
    BUILD_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    INVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    build: str
    account_id: str
    region: str
    started_at: _timestamp_pb2.Timestamp
    ready: bool
    functions: int
    concurrency_limit: int
    environments: EnvironmentCounts
    invocations: InvocationCounts
    host: HostStatus
    processes: _containers.RepeatedCompositeFieldContainer[ProcessStatus]
    runtimes: _containers.RepeatedCompositeFieldContainer[RuntimeStatus]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, build: _Optional[str] = ..., account_id: _Optional[str] = ..., region: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ready: bool = ..., functions: _Optional[int] = ..., concurrency_limit: _Optional[int] = ..., environments: _Optional[_Union[EnvironmentCounts, _Mapping]] = ..., invocations: _Optional[_Union[InvocationCounts, _Mapping]] = ..., host: _Optional[_Union[HostStatus, _Mapping]] = ..., processes: _Optional[_Iterable[_Union[ProcessStatus, _Mapping]]] = ..., runtimes: _Optional[_Iterable[_Union[RuntimeStatus, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class GetStatisticsRequest(_message.Message):
    __slots__ = ("function_name", "order", "max_items")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    order: StatisticsOrder
    max_items: int
    def __init__(self, function_name: _Optional[str] = ..., order: _Optional[_Union[StatisticsOrder, str]] = ..., max_items: _Optional[int] = ...) -> None: ...

class WatchStatisticsRequest(_message.Message):
    __slots__ = ("function_name", "order", "max_items", "interval_ms")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    order: StatisticsOrder
    max_items: int
    interval_ms: int
    def __init__(self, function_name: _Optional[str] = ..., order: _Optional[_Union[StatisticsOrder, str]] = ..., max_items: _Optional[int] = ..., interval_ms: _Optional[int] = ...) -> None: ...

class FunctionStatistics(_message.Message):
    __slots__ = ("function_name", "invocations", "errors", "timeouts", "throttles", "cold_starts", "in_flight", "waiting", "environments", "duration_p50_us", "duration_p99_us", "memory_size", "memory_peak_bytes", "request_bytes", "response_bytes", "billed_ms", "log_bytes")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    INVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUTS_FIELD_NUMBER: _ClassVar[int]
    THROTTLES_FIELD_NUMBER: _ClassVar[int]
    COLD_STARTS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    DURATION_P50_US_FIELD_NUMBER: _ClassVar[int]
    DURATION_P99_US_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BILLED_MS_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    invocations: int
    errors: int
    timeouts: int
    throttles: int
    cold_starts: int
    in_flight: int
    waiting: int
    environments: EnvironmentCounts
    duration_p50_us: int
    duration_p99_us: int
    memory_size: int
    memory_peak_bytes: int
    request_bytes: int
    response_bytes: int
    billed_ms: int
    log_bytes: int
    def __init__(self, function_name: _Optional[str] = ..., invocations: _Optional[int] = ..., errors: _Optional[int] = ..., timeouts: _Optional[int] = ..., throttles: _Optional[int] = ..., cold_starts: _Optional[int] = ..., in_flight: _Optional[int] = ..., waiting: _Optional[int] = ..., environments: _Optional[_Union[EnvironmentCounts, _Mapping]] = ..., duration_p50_us: _Optional[int] = ..., duration_p99_us: _Optional[int] = ..., memory_size: _Optional[int] = ..., memory_peak_bytes: _Optional[int] = ..., request_bytes: _Optional[int] = ..., response_bytes: _Optional[int] = ..., billed_ms: _Optional[int] = ..., log_bytes: _Optional[int] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("time", "interval_ms", "ready", "host", "processes", "environments", "invocations", "functions", "functions_total")
    TIME_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    INVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    interval_ms: int
    ready: bool
    host: HostStatus
    processes: _containers.RepeatedCompositeFieldContainer[ProcessStatus]
    environments: EnvironmentCounts
    invocations: InvocationCounts
    functions: _containers.RepeatedCompositeFieldContainer[FunctionStatistics]
    functions_total: int
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., interval_ms: _Optional[int] = ..., ready: bool = ..., host: _Optional[_Union[HostStatus, _Mapping]] = ..., processes: _Optional[_Iterable[_Union[ProcessStatus, _Mapping]]] = ..., environments: _Optional[_Union[EnvironmentCounts, _Mapping]] = ..., invocations: _Optional[_Union[InvocationCounts, _Mapping]] = ..., functions: _Optional[_Iterable[_Union[FunctionStatistics, _Mapping]]] = ..., functions_total: _Optional[int] = ...) -> None: ...

class Check(_message.Message):
    __slots__ = ("group", "name", "state", "found", "purpose", "advice")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    group: CheckGroup
    name: str
    state: CheckState
    found: str
    purpose: str
    advice: str
    def __init__(self, group: _Optional[_Union[CheckGroup, str]] = ..., name: _Optional[str] = ..., state: _Optional[_Union[CheckState, str]] = ..., found: _Optional[str] = ..., purpose: _Optional[str] = ..., advice: _Optional[str] = ...) -> None: ...

class DiagnoseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Diagnosis(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[Check]
    def __init__(self, checks: _Optional[_Iterable[_Union[Check, _Mapping]]] = ...) -> None: ...

class ListRuntimesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRuntimesResponse(_message.Message):
    __slots__ = ("runtimes",)
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    runtimes: _containers.RepeatedCompositeFieldContainer[RuntimeStatus]
    def __init__(self, runtimes: _Optional[_Iterable[_Union[RuntimeStatus, _Mapping]]] = ...) -> None: ...

class GetAccountSettingsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AccountLimit(_message.Message):
    __slots__ = ("total_code_size", "code_size_unzipped", "code_size_zipped", "concurrent_executions", "unreserved_concurrent_executions")
    TOTAL_CODE_SIZE_FIELD_NUMBER: _ClassVar[int]
    CODE_SIZE_UNZIPPED_FIELD_NUMBER: _ClassVar[int]
    CODE_SIZE_ZIPPED_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    UNRESERVED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    total_code_size: int
    code_size_unzipped: int
    code_size_zipped: int
    concurrent_executions: int
    unreserved_concurrent_executions: int
    def __init__(self, total_code_size: _Optional[int] = ..., code_size_unzipped: _Optional[int] = ..., code_size_zipped: _Optional[int] = ..., concurrent_executions: _Optional[int] = ..., unreserved_concurrent_executions: _Optional[int] = ...) -> None: ...

class AccountUsage(_message.Message):
    __slots__ = ("total_code_size", "function_count")
    TOTAL_CODE_SIZE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    total_code_size: int
    function_count: int
    def __init__(self, total_code_size: _Optional[int] = ..., function_count: _Optional[int] = ...) -> None: ...

class GetAccountSettingsResponse(_message.Message):
    __slots__ = ("account_limit", "account_usage")
    ACCOUNT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_USAGE_FIELD_NUMBER: _ClassVar[int]
    account_limit: AccountLimit
    account_usage: AccountUsage
    def __init__(self, account_limit: _Optional[_Union[AccountLimit, _Mapping]] = ..., account_usage: _Optional[_Union[AccountUsage, _Mapping]] = ...) -> None: ...
