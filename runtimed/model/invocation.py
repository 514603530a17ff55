"""Invocations: one event handed to a function, and what came of it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from msgspec import Meta

from runtimed.model import quotas
from runtimed.model.function import FunctionName, Qualifier
from runtimed.model.shape import UNSET, Shape, UnsetType


class InvocationType(Enum):
    REQUEST_RESPONSE = "RequestResponse"
    EVENT = "Event"
    DRY_RUN = "DryRun"


class LogType(Enum):
    NONE = "None"
    TAIL = "Tail"


class InvokeRequest(Shape, frozen=True, kw_only=True):
    """One event for a function. An empty payload stands for `{}`."""

    function_name: FunctionName
    qualifier: Qualifier = ""
    invocation_type: InvocationType = InvocationType.REQUEST_RESPONSE
    log_type: LogType = LogType.NONE
    client_context: Annotated[
        str,
        Meta(
            max_length=quotas.CLIENT_CONTEXT_BYTES,
            description="at most 3583 bytes of base64 that hold a JSON object.",
        ),
    ] = ""
    trace_id: Annotated[str, Meta(max_length=512, description="at most 512 characters.")] = ""
    tenant_id: Annotated[str, Meta(max_length=quotas.TENANT_CHARACTERS, description="at most 256 characters.")] = ""
    payload: bytes = b""
    event_id: Annotated[str, Meta(max_length=128, description="at most 128 characters.")] = ""
    """With `Event`: what was accepted under this name within five minutes is not accepted again."""


class InvokeResponse(Shape, frozen=True, kw_only=True):
    """What came of an invocation. `status_code` speaks of the invocation, never of the function's own success."""

    status_code: int
    """200; 202 for an event; 204 for a dry run."""
    request_id: str
    executed_version: str = ""
    function_error: str | UnsetType = UNSET
    """Present only when the function failed (`Unhandled`); the payload is then Lambda's error object."""
    log_result: bytes | UnsetType = UNSET
    """The last 4 KB of the log, when asked for (the REST gateway writes it in base64)."""
    payload: bytes = b""
    duration_us: int = 0
    """From the moment the environment got the event until its answer."""
    init_duration_us: int = 0
    """The init phase that this invocation waited for; 0: the environment was warm."""


class InvokeStreamStart(Shape, frozen=True, kw_only=True):
    """The head of a result that comes in parts."""

    request_id: str
    executed_version: str = ""
    content_type: str = ""
    """What the function said of it; empty: nothing."""


class InvokeStreamComplete(Shape, frozen=True, kw_only=True):
    """The end of a result that came in parts; without one it is not whole."""

    status_code: int
    """200; 204 for a dry run."""
    error_code: str | UnsetType = UNSET
    """Present only when the function failed: the error's type."""
    error_details: bytes | UnsetType = UNSET
    """Lambda's error object."""
    log_result: bytes | UnsetType = UNSET
    duration_us: int = 0
    init_duration_us: int = 0


class InvokeStreamResponse(Shape, frozen=True, kw_only=True):
    """One of the three."""

    start: InvokeStreamStart | UnsetType = UNSET
    payload_chunk: bytes | UnsetType = UNSET
    complete: InvokeStreamComplete | UnsetType = UNSET


class FunctionError(Shape, frozen=True, kw_only=True, rename="camel"):
    """The error object in the payload of a failed invocation. Runtimes may send anything: all may be absent.

    Spelled as the runtimes spell it: errorType, errorMessage.
    """

    error_type: str | UnsetType = UNSET
    error_message: str | UnsetType = UNSET
    stack_trace: list[str] | UnsetType = UNSET
    request_id: str | UnsetType = UNSET
