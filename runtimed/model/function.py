"""Functions: their configuration, and the requests and responses about them."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct, field

from runtimed.model import errors, quotas
from runtimed.model.runtime import python_minor
from runtimed.model.shape import UNSET, Shape, UnsetType

if TYPE_CHECKING:
    from collections.abc import Mapping

FunctionName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=quotas.FUNCTION_REFERENCE_CHARACTERS,
        description="give a function's name (letters, digits, hyphens, underscores; at most 64) or its ARN.",
    ),
]
Qualifier = Annotated[
    str,
    Meta(
        max_length=quotas.QUALIFIER_CHARACTERS,
        pattern=r"^(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9_-]*)$",
        description="a version or an alias: $LATEST, or letters, digits, hyphens and underscores.",
    ),
]
Runtime = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=32,
        pattern=r"^[a-z0-9.]+$",
        description="the name of a runtime, such as python3.11; `runtimectl status` lists those that the node offers.",
    ),
]
Handler = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=quotas.HANDLER_CHARACTERS,
        pattern=r"^[^\s]+$",
        description="MODULE.FUNCTION, at most 128 characters and no white space, such as app.handler.",
    ),
]
Description = Annotated[str, Meta(max_length=quotas.DESCRIPTION_CHARACTERS, description="at most 256 characters.")]
Timeout = Annotated[int, Meta(ge=1, le=quotas.TIMEOUT_SECONDS_MAX, description="whole seconds from 1 to 900.")]
MemorySize = Annotated[
    int,
    Meta(ge=quotas.MEMORY_MB_MIN, le=quotas.MEMORY_MB_MAX, description="whole megabytes from 128 to 10240."),
]
StorageSize = Annotated[
    int,
    Meta(ge=quotas.STORAGE_MB_MIN, le=quotas.STORAGE_MB_MAX, description="whole megabytes from 512 to 10240."),
]
VariableName = Annotated[
    str,
    Meta(
        pattern=r"^[a-zA-Z][a-zA-Z0-9_]+$",
        description="a name has at least two characters, a letter first, then letters, digits and underscores.",
    ),
]
VariableValue = Annotated[
    str, Meta(pattern=r"^[^\x00]*$", description="a variable's value cannot hold a NUL character.")
]
LogGroup = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=quotas.LOG_GROUP_CHARACTERS,
        pattern=r"^[.\-_/#A-Za-z0-9]+$",
        description="1 to 512 of letters, digits and . - _ / #.",
    ),
]
UploadSize = Annotated[
    int,
    Meta(
        ge=1,
        le=quotas.PACKAGE_ZIPPED_BYTES,
        description="the archive has at least one byte and at most 250 MB. Leave out what the function does not use.",
    ),
]
Sha256 = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9+/]{43}=$", description="the base64 of a SHA-256 digest (44 characters).")
]

# Lambda's reserved variables: a function sees them, a configuration cannot set them.
RESERVED_VARIABLES = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "LAMBDA_TASK_ROOT",
        "LAMBDA_RUNTIME_DIR",
    }
)


class State(Enum):
    """Whether a function can be invoked."""

    PENDING = "Pending"
    ACTIVE = "Active"
    INACTIVE = "Inactive"
    FAILED = "Failed"


class LastUpdateStatus(Enum):
    """How the last change of code or configuration went. A failed one leaves the function as it was before."""

    SUCCESSFUL = "Successful"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"


class LogFormat(Enum):
    TEXT = "Text"
    JSON = "JSON"


class ApplicationLogLevel(Enum):
    TRACE = "TRACE"
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"
    FATAL = "FATAL"


class SystemLogLevel(Enum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"


class Environment(Shape, frozen=True, kw_only=True):
    """The variables that the function finds in its environment; together at most 4 KB."""

    variables: dict[VariableName, VariableValue] = field(default_factory=dict)


class EphemeralStorage(Shape, frozen=True, kw_only=True):
    """/tmp, in megabytes."""

    size: StorageSize = quotas.STORAGE_MB_DEFAULT


class LoggingConfig(Shape, frozen=True, kw_only=True):
    """How logs are written. The levels apply to the JSON format only."""

    log_format: LogFormat = LogFormat.TEXT
    application_log_level: ApplicationLogLevel | UnsetType = UNSET
    system_log_level: SystemLogLevel | UnsetType = UNSET
    log_group: LogGroup | UnsetType = UNSET


class SnapStartApplyOn(Enum):
    NONE = "None"
    PUBLISHED_VERSIONS = "PublishedVersions"


class SnapStartOptimizationStatus(Enum):
    """Do new environments begin as copies of an initialised one?"""

    ON = "On"
    OFF = "Off"


class SnapStart(Shape, frozen=True, kw_only=True):
    """Whether environments begin as copies of one whose init phase is over. $LATEST counts as published here."""

    apply_on: SnapStartApplyOn = SnapStartApplyOn.NONE


class SnapStartResponse(Shape, frozen=True, kw_only=True):
    """What was asked for, and whether there is a snapshot now."""

    apply_on: SnapStartApplyOn
    optimization_status: SnapStartOptimizationStatus


class SnapshotChoice(Enum):
    """Whether a function's environments may begin as copies: `node`: as the node's setting says (pools.snapshot),
    `auto`: from the third on, `on`: as with SnapStart, which is the same thing, `off`: never."""

    NODE = "node"
    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Snapshot(Struct, frozen=True, kw_only=True):
    """Of a target whose function asks for copies. `refused`: why there will be none, as a clause; or empty."""

    ready: bool
    refused: str = ""


class FunctionConfiguration(Shape, frozen=True, kw_only=True):
    """A function as it is: what was asked for, what became of it, and what the node made of the code."""

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
    snap_start: SnapStartResponse
    snapshot: SnapshotChoice = SnapshotChoice.NODE
    """Not Lambda's. On exactly where SnapStart is."""
    code_size: int
    code_sha256: str
    last_modified: str
    """As Lambda writes it: 2026-01-31T12:00:00.000+0000."""
    revision_id: str
    package_type: str = "Zip"
    architectures: list[str] = field(default_factory=list)
    """x86_64 or arm64: the node's own."""
    state: State
    state_reason: str | UnsetType = UNSET
    state_reason_code: str | UnsetType = UNSET
    last_update_status: LastUpdateStatus
    last_update_status_reason: str | UnsetType = UNSET
    last_update_status_reason_code: str | UnsetType = UNSET


class CreateFunctionRequest(Shape, frozen=True, kw_only=True):
    """A new function. Its code, a zip archive, follows as a stream."""

    function_name: FunctionName
    runtime: Runtime
    handler: Handler
    description: Description = ""
    timeout: Timeout = quotas.TIMEOUT_SECONDS_DEFAULT
    memory_size: MemorySize = quotas.MEMORY_MB_DEFAULT
    ephemeral_storage: EphemeralStorage = EphemeralStorage()
    environment: Environment = Environment()
    logging_config: LoggingConfig = LoggingConfig()
    snap_start: SnapStart = SnapStart()
    snapshot: SnapshotChoice | UnsetType = UNSET
    """Absent: as SnapStart says, or the node."""
    upload_size: UploadSize | UnsetType = UNSET
    """How many bytes of code follow; a stream of another length is refused."""
    upload_sha256: Sha256 | UnsetType = UNSET
    """What the code's digest must be."""
    publish: bool = False
    """As version 1, too; that one is then answered."""


class UpdateFunctionCodeRequest(Shape, frozen=True, kw_only=True):
    """New code for a function. The archive follows as a stream."""

    function_name: FunctionName
    revision_id: str | UnsetType = UNSET
    """When given: the change is made only if this is the current revision."""
    upload_size: UploadSize | UnsetType = UNSET
    upload_sha256: Sha256 | UnsetType = UNSET
    publish: bool = False
    """As a version, too; that one is then answered."""


class UpdateFunctionConfigurationRequest(Shape, frozen=True, kw_only=True):
    """New values for some members; what is absent stays as it is."""

    function_name: FunctionName
    runtime: Runtime | UnsetType = UNSET
    handler: Handler | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    timeout: Timeout | UnsetType = UNSET
    memory_size: MemorySize | UnsetType = UNSET
    ephemeral_storage: EphemeralStorage | UnsetType = UNSET
    environment: Environment | UnsetType = UNSET
    """Replaces all variables."""
    logging_config: LoggingConfig | UnsetType = UNSET
    snap_start: SnapStart | UnsetType = UNSET
    snapshot: SnapshotChoice | UnsetType = UNSET
    revision_id: str | UnsetType = UNSET


class GetFunctionRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    qualifier: Qualifier = ""


class GetFunctionResponse(Shape, frozen=True, kw_only=True):
    configuration: FunctionConfiguration


class DeleteFunctionRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    qualifier: Qualifier = ""


class DeleteFunctionResponse(Shape, frozen=True, kw_only=True):
    """Empty: the function is gone."""


class ListFunctionsRequest(Shape, frozen=True, kw_only=True):
    """One page of the functions in the order of their names."""

    marker: str = ""
    """`next_marker` of the page before; empty: the first page."""
    max_items: Annotated[int, Meta(ge=1, le=quotas.LIST_ITEMS_MAX, description="a whole number from 1 to 10000.")] = (
        quotas.LIST_PAGE_ITEMS
    )
    """A page holds at most 50, whatever is asked for."""
    name_prefix: Annotated[
        str, Meta(pattern=r"^[a-zA-Z0-9-_]{0,64}$", description="the beginning of a function's name.")
    ] = ""
    """Only functions whose names begin so."""
    function_version: Annotated[str, Meta(pattern=r"^(ALL)?$", description="must be ALL.")] = ""
    """ALL: the published versions too."""


class ListFunctionsResponse(Shape, frozen=True, kw_only=True):
    functions: list[FunctionConfiguration]
    next_marker: str | UnsetType = UNSET
    """Where the next page begins; absent on the last."""


def snapshot_choice(
    snap_start: SnapStart | UnsetType, snapshot: SnapshotChoice | UnsetType, was: SnapshotChoice = SnapshotChoice.NODE
) -> SnapshotChoice:
    """What the two ways of saying it come to. Raises InvalidParameterValue where they contradict each other.

    PublishedVersions is `on`, and `on` is PublishedVersions. None is also what those say who say nothing, so it takes
    back what was on, and is no contradiction to anything. The last request counts.
    """
    asked = snap_start is not UNSET and snap_start.apply_on is not SnapStartApplyOn.NONE
    if snapshot is not UNSET:
        if asked and snapshot is not SnapshotChoice.ON:
            raise errors.InvalidParameterValue(
                f"Snapshot: {snapshot.value} contradicts SnapStart's ApplyOn PublishedVersions, which is on. Give one "
                "of the two."
            )
        return snapshot
    if asked:
        return SnapshotChoice.ON
    return SnapshotChoice.NODE if snap_start is not UNSET and was is SnapshotChoice.ON else was


def snap_start_of(choice: SnapshotChoice) -> SnapStart:
    """The same, as Lambda says it."""
    on = choice is SnapshotChoice.ON
    return SnapStart(apply_on=SnapStartApplyOn.PUBLISHED_VERSIONS if on else SnapStartApplyOn.NONE)


def check_snapshot(choice: SnapshotChoice, runtime: str) -> None:
    """Copies are made of Python processes."""
    if choice in (SnapshotChoice.ON, SnapshotChoice.AUTO) and python_minor(runtime) is None:
        raise errors.InvalidParameterValue(
            f"SnapStart: {runtime} cannot be used with SnapStart; Python's runtimes can. Set ApplyOn to None."
            if choice is SnapshotChoice.ON
            else f"Snapshot: environments of {runtime} cannot be copied; those of Python's runtimes can. Set Snapshot "
            "to node or off."
        )


def check_environment(environment: Environment) -> None:
    """What no single variable's type can say: reserved names and the size of all together."""
    reserved = sorted(RESERVED_VARIABLES & environment.variables.keys())
    if reserved:
        raise errors.InvalidParameterValue(
            f"Environment.Variables: {', '.join(reserved)}: set by the platform. Choose other names."
        )
    size = environment_size(environment.variables)
    if size > quotas.ENVIRONMENT_BYTES:
        raise errors.InvalidParameterValue(
            f"Environment.Variables: the variables take {size} bytes as JSON, more than the {quotas.ENVIRONMENT_BYTES} "
            "allowed. Keep large values in the package or in a file."
        )


def environment_size(variables: Mapping[str, str]) -> int:
    """What the variables count towards their limit: the length of their JSON."""
    return len(msgspec.json.encode(dict(variables))) if variables else 0


def check_logging(logging: LoggingConfig) -> None:
    """Levels are a matter of the JSON format."""
    if logging.log_format is LogFormat.TEXT and not (
        logging.application_log_level is UNSET and logging.system_log_level is UNSET
    ):
        raise errors.InvalidParameterValue(
            "LoggingConfig: log levels need LogFormat JSON. Set LogFormat to JSON or leave the levels out."
        )
