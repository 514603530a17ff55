"""What takes more than one call, without any IO: generators say what to do next, `sync` and `aio` do it.

A flow yields `Call` and is sent its response (or has the error thrown in), or yields `Pause` and is resumed after it.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from runtimed.client import handlers, rpc
from runtimed.client.build import Progress
from runtimed.client.errors import ClientError, DeployFailed, TimedOut
from runtimed.model import arn, errors
from runtimed.model.function import (
    CreateFunctionRequest,
    Environment,
    EphemeralStorage,
    FunctionConfiguration,
    GetFunctionRequest,
    LastUpdateStatus,
    ListFunctionsRequest,
    ListFunctionsResponse,
    LoggingConfig,
    SnapshotChoice,
    SnapStart,
    SnapStartResponse,
    State,
    UpdateFunctionCodeRequest,
    UpdateFunctionConfigurationRequest,
    check_environment,
    check_logging,
    snapshot_choice,
)
from runtimed.model.node import ListRuntimesRequest, ListRuntimesResponse
from runtimed.model.runtime import RuntimeState, newest, node_major, python_minor
from runtimed.model.shape import Shape, explain

P = TypeVar("P")
T = TypeVar("T")

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.5
"""Seconds between two looks at a function that is being made."""


class Call(Struct, frozen=True):
    """Make this call and send its response."""

    rpc: rpc.Rpc[Any]
    request: Shape
    code: bytes | None = None
    progress: Progress | None = None


class Build(Struct, frozen=True):
    """Make an archive of this path for this runtime and send its bytes."""

    path: Path
    runtime: str
    progress: Progress | None = None


class Pause(Struct, frozen=True):
    seconds: float


Step = Call | Build | Pause
Flow = Generator[Step, Any, T]


class Given(TypedDict, total=False):
    """`Settings` by name, as the clients' methods take them."""

    runtime: str
    handler: str
    description: str
    timeout: int
    """Seconds."""
    memory_size: int
    """MB."""
    ephemeral_storage: int
    """MB of /tmp."""
    environment: dict[str, str]
    logging_config: LoggingConfig
    snap_start: SnapStart
    snapshot: SnapshotChoice
    """Whether environments may be copies; `ON` is SnapStart."""


class Settings(Struct, frozen=True, kw_only=True):
    """A function's configuration as `deploy` takes it; what is UNSET gets its default, or stays as it is."""

    runtime: str | UnsetType = UNSET
    handler: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    timeout: int | UnsetType = UNSET
    memory_size: int | UnsetType = UNSET
    ephemeral_storage: int | UnsetType = UNSET
    environment: dict[str, str] | UnsetType = UNSET
    logging_config: LoggingConfig | UnsetType = UNSET
    snap_start: SnapStart | UnsetType = UNSET
    snapshot: SnapshotChoice | UnsetType = UNSET

    def members(self) -> dict[str, Any]:
        """The members of a request that are given."""
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}
        if "ephemeral_storage" in given:
            given["ephemeral_storage"] = EphemeralStorage(size=given["ephemeral_storage"])
        if "environment" in given:
            given["environment"] = Environment(variables=dict(given["environment"]))
        return given


def digest(code: bytes) -> str:
    """As `CodeSha256` has it."""
    return base64.b64encode(hashlib.sha256(code).digest()).decode()


def deploy(
    name: str, code: bytes | Path, settings: Settings, progress: Progress | None, wait: float | None
) -> Flow[FunctionConfiguration]:
    """Creates the function or brings it to this code and these settings; `wait`: seconds until it must be Active.

    A runtime or handler that is not given stays as it is, or is found: for JavaScript the newest Node.js, else the
    runtime of this interpreter's version if the node offers it, else its newest; the handler by looking at the code.
    What is given is checked before an archive is made, which may take minutes.
    """
    check(name, settings)
    if arn.divide(name)[1]:
        raise errors.InvalidParameterValue(
            f"FunctionName: {name} is a version or an alias, and code is deployed to the function. Leave the qualifier "
            "out; publish what was deployed, and move the alias."
        )
    found: FunctionConfiguration | None
    try:
        found = (yield Call(rpc.GET_FUNCTION, GetFunctionRequest(function_name=name))).configuration
    except errors.ResourceNotFound:
        found = None
    if settings.runtime is UNSET:
        runtime = found.runtime if found is not None else (yield from _default_runtime(code))
        settings = replace(settings, runtime=runtime)
    elif isinstance(code, Path):
        yield from _check_offered(str(settings.runtime))
    archive: bytes = code if isinstance(code, bytes) else (yield Build(code, str(settings.runtime), progress))
    if settings.handler is UNSET and (found is None or not handlers.present(found.handler, archive)):
        settings = replace(settings, handler=_guessed_handler(archive))
    if found is None:
        found = yield create(name, archive, settings, progress)
    else:
        found = yield from _update(found, archive, settings, progress, wait)
    if wait is None:
        return found
    if progress is not None:
        progress("activating", 0, 0)
    return (yield from wait_until_active(name, wait))


def check(name: str, settings: Settings) -> None:
    """Raises the InvalidParameterValue that the daemon would answer with."""
    members = settings.members()
    try:
        given = msgspec.to_builtins(UpdateFunctionConfigurationRequest(function_name=name, **members))
        msgspec.convert(given, UpdateFunctionConfigurationRequest)
    except msgspec.ValidationError as error:
        raise errors.InvalidParameterValue(explain(UpdateFunctionConfigurationRequest, error)) from None
    except TypeError as error:
        raise errors.InvalidParameterValue(f"A setting of a type that cannot be sent: {error}.") from None
    if "environment" in members:
        check_environment(members["environment"])
    if "logging_config" in members:
        check_logging(members["logging_config"])
    snapshot_choice(settings.snap_start, settings.snapshot)


def _check_offered(name: str) -> Flow[None]:
    known: ListRuntimesResponse = yield Call(rpc.LIST_RUNTIMES, ListRuntimesRequest())
    offered = [runtime.name for runtime in known.runtimes if runtime.state is not RuntimeState.FAILED]
    if name not in offered:
        names = ", ".join(sorted(offered, key=lambda one: (python_minor(one) or 0, one)))
        raise errors.InvalidParameterValue(f"Runtime: {name} is not on this node. Choose one of: {names}.")


def _default_runtime(code: bytes | Path) -> Flow[str]:
    known: ListRuntimesResponse = yield Call(rpc.LIST_RUNTIMES, ListRuntimesRequest())
    offered = [runtime.name for runtime in known.runtimes if runtime.state is not RuntimeState.FAILED]
    if isinstance(code, Path) and _is_javascript(code):
        nodes = [(major, name) for name in offered if (major := node_major(name)) is not None]
        if not nodes:
            raise errors.InvalidParameterValue(
                "Runtime: the code is JavaScript, and the node has no Node.js. Install 18 or newer below /usr there."
            )
        return max(nodes)[1]
    ours = f"python3.{sys.version_info.minor}"
    chosen = ours if ours in offered else newest(offered)
    if chosen is None:
        raise errors.InvalidParameterValue(
            "Runtime: the node offers none. Install Python 3.9 or newer there; `runtimectl doctor` tells more."
        )
    return chosen


def _is_javascript(path: Path) -> bool:
    """A script, or a directory with scripts at its top and no Python."""
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else [path.name]
    return any(map(handlers.is_script, names)) and not any(name.endswith(".py") for name in names)


def _guessed_handler(archive: bytes) -> str:
    guessed = handlers.guess(archive)
    if guessed is None:
        raise errors.InvalidParameterValue(
            "Handler: no function called handler or lambda_handler was found in the files at the top of the package. "
            "Name it: --handler MODULE.FUNCTION."
        )
    return guessed


def create(name: str, code: bytes, settings: Settings, progress: Progress | None, publish: bool = False) -> Call:
    members = settings.members()
    for needed in ("runtime", "handler"):
        if needed not in members:
            raise errors.InvalidParameterValue(f"{needed.capitalize()} is missing: a new function needs one.")
    request = CreateFunctionRequest(
        function_name=name, upload_size=len(code), upload_sha256=digest(code), publish=publish, **members
    )
    return Call(rpc.CREATE_FUNCTION, request, code, progress)


def update_code(
    name: str, code: bytes, revision_id: str | UnsetType, progress: Progress | None, publish: bool = False
) -> Call:
    request = UpdateFunctionCodeRequest(
        function_name=name,
        revision_id=revision_id,
        upload_size=len(code),
        upload_sha256=digest(code),
        publish=publish,
    )
    return Call(rpc.UPDATE_CODE, request, code, progress)


def _update(
    found: FunctionConfiguration, code: bytes, settings: Settings, progress: Progress | None, wait: float | None
) -> Flow[FunctionConfiguration]:
    """Changes only what differs, so that deploying the same again costs nothing."""
    name = found.function_name
    if _busy(found):
        found = yield from _settled(name, wait)
    changed = {key: value for key, value in settings.members().items() if _differs(getattr(found, key), value)}
    if changed:
        found = yield Call(rpc.UPDATE_CONFIGURATION, UpdateFunctionConfigurationRequest(function_name=name, **changed))
    if found.code_sha256 != digest(code) or found.state is State.FAILED:
        if _busy(found):
            found = yield from _settled(name, wait)
        found = yield update_code(name, code, UNSET, progress)
    elif progress is not None:
        progress("uploading", len(code), len(code))
    return found


def _differs(found: object, wanted: object) -> bool:
    if isinstance(found, SnapStartResponse) and isinstance(wanted, SnapStart):
        return found.apply_on is not wanted.apply_on  # the rest of it is what became of that
    return found != wanted


def wait_until_active(name: str, seconds: float | None, qualifier: str = "") -> Flow[FunctionConfiguration]:
    """DeployFailed when the function or its last change failed, TimedOut when it takes longer."""
    found = yield from _settled(name, seconds, qualifier)
    if found.state is State.FAILED:
        shown = f"{name}:{qualifier}" if qualifier else name
        raise DeployFailed(f"{shown} was stored and cannot run: {_reason(found.state_reason)}")
    if found.last_update_status is LastUpdateStatus.FAILED:
        raise DeployFailed(f"{name} stays as it was, the update failed: {_reason(found.last_update_status_reason)}")
    return found


def _reason(reason: str | UnsetType) -> str:
    return "no reason was given; see the daemon's log" if reason is UNSET else reason


def _busy(found: FunctionConfiguration) -> bool:
    return found.state is State.PENDING or found.last_update_status is LastUpdateStatus.IN_PROGRESS


def _settled(name: str, seconds: float | None, qualifier: str = "") -> Flow[FunctionConfiguration]:
    waited, pause = 0.0, FIRST_PAUSE
    while True:
        found: FunctionConfiguration = (
            yield Call(rpc.GET_FUNCTION, GetFunctionRequest(function_name=name, qualifier=qualifier))
        ).configuration
        if not _busy(found):
            return found
        if seconds is not None and waited >= seconds:
            raise TimedOut(
                f"{name} is still {found.state.value} after {seconds:g} s. `runtimectl functions get` tells more."
            )
        yield Pause(pause)
        waited += pause
        pause = min(pause * 1.5, LONGEST_PAUSE)


def list_functions(prefix: str, versions: bool, limit: int | None) -> Flow[list[FunctionConfiguration]]:
    """All pages, or as many as it takes. `versions`: the published ones too."""

    def page(marker: str) -> Call:
        request = ListFunctionsRequest(marker=marker, name_prefix=prefix, function_version="ALL" if versions else "")
        return Call(rpc.LIST_FUNCTIONS, request)

    return (yield from pages(page, _functions, limit))


def _functions(response: ListFunctionsResponse) -> list[FunctionConfiguration]:
    return response.functions


def pages(ask: Callable[[str], Call], items: Callable[[P], list[T]], limit: int | None) -> Flow[list[T]]:
    """What all pages of a list hold, or as many as it takes. `ask`: for the page behind a marker."""
    found: list[T] = []
    seen = {""}
    marker = ""
    while True:
        page: Any = yield ask(marker)
        found += items(page)
        if page.next_marker is UNSET or (limit is not None and len(found) >= limit):
            return found[:limit]
        marker = page.next_marker
        if marker in seen:
            raise ClientError("the daemon's list does not end")
        seen.add(marker)


def encode_event(event: object, payload: bytes | None) -> bytes:
    """The payload of an invocation: given as it is, or made from a value."""
    if payload is not None or event is UNSET:
        return payload or b""
    try:
        return msgspec.json.encode(event)
    except (TypeError, ValueError) as error:
        raise errors.InvalidRequestContent(f"Payload: the event cannot be written as JSON: {error}.") from None
