"""The node: what it is doing, and whether the machine gives it what it needs."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from msgspec import field

from runtimed.model.runtime import RuntimeStatus
from runtimed.model.shape import Shape


class ProcessStatus(Shape, frozen=True, kw_only=True):
    """One of the node's own processes."""

    name: str
    """runtimed, runtimed-launcher, runtimed-dispatch, or zygote python3.N."""
    pid: int
    memory_bytes: int = 0
    """Proportional set size where the kernel tells it, else the resident size."""


class EnvironmentCounts(Shape, frozen=True, kw_only=True):
    starting: int = 0
    idle: int = 0
    busy: int = 0


class InvocationCounts(Shape, frozen=True, kw_only=True):
    """Since the dispatcher started. Latencies are from the call's arrival until its answer; 0: none yet."""

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
