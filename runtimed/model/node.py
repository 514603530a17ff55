"""The node: what it is doing, and whether the machine gives it what it needs."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

from msgspec import Meta, field

from runtimed.model.runtime import RuntimeStatus
from runtimed.model.shape import UNSET, Shape, UnsetType


class ProcessStatus(Shape, frozen=True, kw_only=True):
    """One of the node's own processes."""

    name: str
    """runtimed, runtimed-launcher, runtimed-dispatch, or zygote python3.N."""
    pid: int
    memory_bytes: int = 0
    """Proportional set size where the kernel tells it, else the resident size."""
    cpu_ms: int = 0
    """CPU time since its start, of all its threads, in milliseconds."""
    started_at: datetime | UnsetType = UNSET


class EnvironmentCounts(Shape, frozen=True, kw_only=True):
    starting: int = 0
    idle: int = 0
    """Frozen ones among them."""
    busy: int = 0
    frozen: int = 0
    parked: int = 0
    """Idle ones that were made ahead of demand and have served nobody."""
    provisioned: int = 0
    """Through their init phase, idle or busy."""
    provisioned_in_use: int = 0
    """Those of them that are at work."""


class InvocationCounts(Shape, frozen=True, kw_only=True):
    """Since the dispatcher started, or in an interval. Latencies: from call to answer; 0: none yet."""

    total: int = 0
    function_errors: int = 0
    throttles: int = 0
    cold_starts: int = 0
    in_flight: int = 0
    waiting: int = 0
    latency_p50_us: int = 0
    latency_p99_us: int = 0


class HostStatus(Shape, frozen=True, kw_only=True):
    kernel: str = ""
    architecture: str = ""
    cpus: int = 0
    cpu_percent: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    disk_free_bytes: int = 0
    """Of the state directory's file system."""


class GetStatusRequest(Shape, frozen=True, kw_only=True):
    """Empty."""


class NodeStatus(Shape, frozen=True, kw_only=True):
    build: str
    account_id: str
    region: str
    started_at: datetime
    """When the control plane started, in UTC."""
    ready: bool
    """The data plane is connected and in step."""
    functions: int
    concurrency_limit: int
    environments: EnvironmentCounts
    invocations: InvocationCounts
    host: HostStatus
    processes: list[ProcessStatus]
    runtimes: list[RuntimeStatus]
    warnings: list[str] = field(default_factory=list)
    """What an administrator should look at, each with what to do."""


class StatisticsOrder(Enum):
    """What functions are ordered by: the largest first, names from A."""

    INVOCATIONS = "Invocations"
    ERRORS = "Errors"
    THROTTLES = "Throttles"
    COLD_STARTS = "ColdStarts"
    IN_FLIGHT = "InFlight"
    WAITING = "Waiting"
    ENVIRONMENTS = "Environments"
    DURATION_P50 = "DurationP50"
    DURATION_P99 = "DurationP99"
    MEMORY = "Memory"
    NAME = "Name"


Shown = Annotated[int, Meta(ge=1, le=1000, description="a whole number from 1 to 1000.")]


class GetStatisticsRequest(Shape, frozen=True, kw_only=True):
    function_name: str = ""
    """Only this function, by its plain name; empty: all."""
    order: StatisticsOrder = StatisticsOrder.INVOCATIONS
    max_items: Shown = 100
    """How many functions to return, the first ones of the order."""


class WatchStatisticsRequest(Shape, frozen=True, kw_only=True):
    function_name: str = ""
    order: StatisticsOrder = StatisticsOrder.INVOCATIONS
    max_items: Shown = 100
    interval_ms: Annotated[int, Meta(ge=250, le=60_000, description="250 to 60000 milliseconds.")] = 1000
    """Between two responses; the first one comes after half a second at most."""


class FunctionStatistics(Shape, frozen=True, kw_only=True):
    """One function. Counts are those of the interval; environments, in flight and waiting are what there is now."""

    function_name: str
    invocations: int = 0
    """Requests that arrived, throttled ones included."""
    errors: int = 0
    """Invocations answered with an error of the function: the handler's, a time-out, an exit, a failed init phase."""
    timeouts: int = 0
    throttles: int = 0
    cold_starts: int = 0
    in_flight: int = 0
    waiting: int = 0
    environments: EnvironmentCounts = EnvironmentCounts()
    duration_p50_us: int = 0
    """Of the invocations that ended in the interval; 0: none did."""
    duration_p99_us: int = 0
    memory_size: int = 0
    """Configured, in megabytes."""
    memory_peak_bytes: int = 0
    """The most that one of its environments has used."""
    request_bytes: int = 0
    response_bytes: int = 0
    billed_ms: int = 0
    log_bytes: int = 0


class Statistics(Shape, frozen=True, kw_only=True):
    """What the node and its functions did in an interval.

    Counted from the start of the dispatcher, and for a function from its last deployment, when the interval is longer.
    """

    time: datetime
    """The interval's end."""
    interval_ms: int
    ready: bool
    """The data plane is connected; without it there are no counts."""
    host: HostStatus
    processes: list[ProcessStatus]
    environments: EnvironmentCounts
    invocations: InvocationCounts
    functions: list[FunctionStatistics]
    functions_total: int
    """Functions that match, of which `functions` are the first."""


class CheckState(Enum):
    OK = "Ok"
    WARNING = "Warning"
    """The node works, with less speed, isolation or comfort."""
    MISSING = "Missing"
    """Functions do not work without it."""
    UNKNOWN = "Unknown"
    """Could not be found out with the privileges at hand."""


class CheckGroup(Enum):
    KERNEL = "Kernel"
    LIMIT = "Limit"
    TOOL = "Tool"
    RUNTIME = "Runtime"
    PROCESS = "Process"


class Check(Shape, frozen=True, kw_only=True):
    """One thing that the node needs, or is better with."""

    group: CheckGroup
    name: str
    state: CheckState
    found: str = ""
    """What is there."""
    purpose: str = ""
    """What it is for."""
    advice: str = ""
    """What to do; empty when all is well."""


class DiagnoseRequest(Shape, frozen=True, kw_only=True):
    """Empty."""


class Diagnosis(Shape, frozen=True, kw_only=True):
    checks: list[Check]


class ListRuntimesRequest(Shape, frozen=True, kw_only=True):
    """Empty."""


class ListRuntimesResponse(Shape, frozen=True, kw_only=True):
    runtimes: list[RuntimeStatus]


class GetAccountSettingsRequest(Shape, frozen=True, kw_only=True):
    """Empty."""


class AccountLimit(Shape, frozen=True, kw_only=True):
    """What the account may have; sizes in bytes."""

    total_code_size: int
    """Of all packages together, as uploaded and unpacked."""
    code_size_unzipped: int
    code_size_zipped: int
    """Of one package. By Lambda's REST API, where it comes in base64, 50 MB."""
    concurrent_executions: int
    unreserved_concurrent_executions: int


class AccountUsage(Shape, frozen=True, kw_only=True):
    """What it has."""

    total_code_size: int
    function_count: int


class GetAccountSettingsResponse(Shape, frozen=True, kw_only=True):
    account_limit: AccountLimit
    account_usage: AccountUsage
