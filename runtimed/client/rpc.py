"""The rpcs that the SDK calls, and what both clients share in calling them: channels, metadata, errors, retries."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
import msgspec
from msgspec import Struct

from runtimed.client.errors import ClientError, Incompatible, NotPermitted, TimedOut, Unreachable
from runtimed.gateway.grpc import status
from runtimed.gateway.grpc.convert import Codec
from runtimed.gateway.grpc.methods import METHODS, UPLOAD_CHUNK, UPLOAD_REQUEST, Method
from runtimed.model import alias, concurrency, errors, function, invocation, key, log, node, queue, scaling, version
from runtimed.model.shape import Shape, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runtimed.client.address import Address

R = TypeVar("R", bound=Shape)

CHUNK_BYTES = 256 * 1024
"""Of an upload: large enough to be fast, small enough for progress and flow control."""
ATTEMPTS = 5
"""For calls that are safe to repeat: together a second or more, in which a killed control plane is back."""
FIRST_PAUSE = 0.1
"""Seconds before the second attempt; doubled for each one after it."""

_NEVER_LEFT = "Stream removed (GOAWAY received; Error code: 0;"
"""What gRPC says of a call that was begun on a connection after GOAWAY had come, or that GOAWAY named as not taken. One
that was under way and lost its connection is told otherwise ("Socket closed" and the like). Texts of other versions are
not recognised: then the call fails as before."""

OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Not between attempts, as its name says: this is how long one may take. Where nobody listens it fails at once.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # No call is repeated behind our back: what may be, we repeat. And gRPC was seen to start a call again and again on
    # a connection that had said GOAWAY, without pause, until its deadline.
    ("grpc.enable_retries", 0),
)


class Rpc(Struct, Generic[R], frozen=True):
    """One rpc with its types."""

    name: str
    request: type[Shape]
    response: type[R]
    safe: bool = False
    """It changes nothing, so it is repeated when no answer came."""

    @property
    def method(self) -> Method:
        return METHODS[self.name]


CREATE_FUNCTION = Rpc("CreateFunction", function.CreateFunctionRequest, function.FunctionConfiguration)
GET_FUNCTION = Rpc("GetFunction", function.GetFunctionRequest, function.GetFunctionResponse, True)
LIST_FUNCTIONS = Rpc("ListFunctions", function.ListFunctionsRequest, function.ListFunctionsResponse, True)
UPDATE_CODE = Rpc("UpdateFunctionCode", function.UpdateFunctionCodeRequest, function.FunctionConfiguration)
UPDATE_CONFIGURATION = Rpc(
    "UpdateFunctionConfiguration", function.UpdateFunctionConfigurationRequest, function.FunctionConfiguration
)
DELETE_FUNCTION = Rpc("DeleteFunction", function.DeleteFunctionRequest, function.DeleteFunctionResponse)
PUBLISH_VERSION = Rpc("PublishVersion", version.PublishVersionRequest, function.FunctionConfiguration)
LIST_VERSIONS = Rpc(
    "ListVersionsByFunction", version.ListVersionsByFunctionRequest, version.ListVersionsByFunctionResponse, True
)
CREATE_ALIAS = Rpc("CreateAlias", alias.CreateAliasRequest, alias.AliasConfiguration)
GET_ALIAS = Rpc("GetAlias", alias.GetAliasRequest, alias.AliasConfiguration, True)
UPDATE_ALIAS = Rpc("UpdateAlias", alias.UpdateAliasRequest, alias.AliasConfiguration)
DELETE_ALIAS = Rpc("DeleteAlias", alias.DeleteAliasRequest, alias.DeleteAliasResponse)
LIST_ALIASES = Rpc("ListAliases", alias.ListAliasesRequest, alias.ListAliasesResponse, True)
INVOKE = Rpc("Invoke", invocation.InvokeRequest, invocation.InvokeResponse)
INVOKE_STREAM = Rpc("InvokeStream", invocation.InvokeRequest, invocation.InvokeStreamResponse)
TAIL_LOGS = Rpc("TailLogs", log.TailLogsRequest, log.LogEvent)
LIST_QUEUES = Rpc("ListQueues", queue.ListQueuesRequest, queue.ListQueuesResponse, True)
LIST_EVENTS = Rpc("ListEvents", queue.ListEventsRequest, queue.ListEventsResponse, True)
CANCEL_EVENTS = Rpc("CancelEvents", queue.CancelEventsRequest, queue.ChangedEvents)
REDRIVE_EVENTS = Rpc("RedriveEvents", queue.RedriveEventsRequest, queue.ChangedEvents)
PAUSE_QUEUE = Rpc("PauseQueue", queue.PauseQueueRequest, queue.PauseQueueResponse)
RESUME_QUEUE = Rpc("ResumeQueue", queue.ResumeQueueRequest, queue.ResumeQueueResponse)
PUT_EVENT_CONFIG = Rpc(
    "PutFunctionEventInvokeConfig", queue.PutFunctionEventInvokeConfigRequest, queue.FunctionEventInvokeConfig
)
GET_EVENT_CONFIG = Rpc(
    "GetFunctionEventInvokeConfig", queue.GetFunctionEventInvokeConfigRequest, queue.FunctionEventInvokeConfig, True
)
DELETE_EVENT_CONFIG = Rpc(
    "DeleteFunctionEventInvokeConfig",
    queue.DeleteFunctionEventInvokeConfigRequest,
    queue.DeleteFunctionEventInvokeConfigResponse,
)
CREATE_KEY = Rpc("CreateKey", key.CreateKeyRequest, key.CreatedKey)
LIST_KEYS = Rpc("ListKeys", key.ListKeysRequest, key.ListKeysResponse, True)
REVOKE_KEY = Rpc("RevokeKey", key.RevokeKeyRequest, key.RevokeKeyResponse)
RESERVE = Rpc("PutFunctionConcurrency", concurrency.PutFunctionConcurrencyRequest, concurrency.FunctionConcurrency)
RESERVED = Rpc(
    "GetFunctionConcurrency", concurrency.GetFunctionConcurrencyRequest, concurrency.FunctionConcurrency, True
)
UNRESERVE = Rpc(
    "DeleteFunctionConcurrency",
    concurrency.DeleteFunctionConcurrencyRequest,
    concurrency.DeleteFunctionConcurrencyResponse,
)
PROVISION = Rpc(
    "PutProvisionedConcurrencyConfig",
    concurrency.PutProvisionedConcurrencyConfigRequest,
    concurrency.ProvisionedConcurrency,
)
PROVISIONED = Rpc(
    "ListProvisionedConcurrencyConfigs",
    concurrency.ListProvisionedConcurrencyConfigsRequest,
    concurrency.ListProvisionedConcurrencyConfigsResponse,
    True,
)
UNPROVISION = Rpc(
    "DeleteProvisionedConcurrencyConfig",
    concurrency.DeleteProvisionedConcurrencyConfigRequest,
    concurrency.DeleteProvisionedConcurrencyConfigResponse,
)
REGISTER_TARGET = Rpc("RegisterScalableTarget", scaling.RegisterScalableTargetRequest, scaling.ScalableTarget)
DEREGISTER_TARGET = Rpc(
    "DeregisterScalableTarget", scaling.DeregisterScalableTargetRequest, scaling.DeregisterScalableTargetResponse
)
DESCRIBE_TARGETS = Rpc(
    "DescribeScalableTargets", scaling.DescribeScalableTargetsRequest, scaling.DescribeScalableTargetsResponse, True
)
PUT_POLICY = Rpc("PutScalingPolicy", scaling.PutScalingPolicyRequest, scaling.ScalableTarget)
DELETE_POLICY = Rpc("DeleteScalingPolicy", scaling.DeleteScalingPolicyRequest, scaling.DeleteScalingPolicyResponse)
PUT_ACTION = Rpc("PutScheduledAction", scaling.PutScheduledActionRequest, scaling.ScheduledAction)
DESCRIBE_ACTIONS = Rpc(
    "DescribeScheduledActions", scaling.DescribeScheduledActionsRequest, scaling.DescribeScheduledActionsResponse, True
)
DELETE_ACTION = Rpc(
    "DeleteScheduledAction", scaling.DeleteScheduledActionRequest, scaling.DeleteScheduledActionResponse
)
GET_ACCOUNT = Rpc("GetAccountSettings", node.GetAccountSettingsRequest, node.GetAccountSettingsResponse, True)
GET_STATUS = Rpc("GetStatus", node.GetStatusRequest, node.NodeStatus, True)
GET_STATISTICS = Rpc("GetStatistics", node.GetStatisticsRequest, node.Statistics, True)
WATCH_STATISTICS = Rpc("WatchStatistics", node.WatchStatisticsRequest, node.Statistics)
DIAGNOSE = Rpc("Diagnose", node.DiagnoseRequest, node.Diagnosis, True)
LIST_RUNTIMES = Rpc("ListRuntimes", node.ListRuntimesRequest, node.ListRuntimesResponse, True)


@cache
def _codecs(rpc: Rpc[Any]) -> tuple[Codec[Any], Codec[Any]]:
    method = METHODS[rpc.name]
    return Codec(rpc.request, method.request), Codec(rpc.response, method.response)


def encode(rpc: Rpc[Any], request: Shape) -> Any:
    """The message, after the same checks that the daemon makes: a mistake is told before anything is sent."""
    codec = _codecs(rpc)[0]
    try:
        message = codec.encode(request)
        codec.decode(message)
    except msgspec.ValidationError as error:
        raise errors.InvalidParameterValue(explain(rpc.request, error)) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise errors.InvalidParameterValue(f"The request holds a value that cannot be sent: {error}.") from None
    return message


def decode(rpc: Rpc[R], message: Any) -> R:
    try:
        response: R = _codecs(rpc)[1].decode(message)
    except (msgspec.ValidationError, ValueError) as error:
        raise Incompatible(
            f"the daemon's answer is not understood ({error}): it is of another version than this client"
        ) from None
    return response


def upload(rpc: Rpc[Any], request: Any, code: bytes, progress: Callable[[str, int, int], None] | None) -> Iterator[Any]:
    """The messages of an upload."""
    message = rpc.method.input
    yield message(**{UPLOAD_REQUEST: request})
    view = memoryview(code)
    for start in range(0, len(code), CHUNK_BYTES):
        yield message(**{UPLOAD_CHUNK: bytes(view[start : start + CHUNK_BYTES])})
        if progress is not None:
            progress("uploading", min(start + CHUNK_BYTES, len(code)), len(code))


def metadata(address: Address) -> tuple[tuple[str, str], ...]:
    return ((status.AUTHORIZATION, f"Bearer {address.key}"),) if address.key else ()


def translate(error: Any, address: Address) -> Exception:
    """What a grpc.RpcError means to the caller."""
    code: grpc.StatusCode = error.code()
    sentence = error.details() or ""
    found = status.decode(code, sentence, error.trailing_metadata() or ())
    if found is not None:
        return found
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unreachable(address, sentence)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(f"{address.target} did not answer in time. Give more time, or look at `runtimectl status`.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return errors.RequestTooLarge(f"The message is too large: {sentence}. Send less at once.")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.NotOffered(f"The daemon at {address.target} is older than this client: {sentence}")
    return ClientError(f"{address.target} answered {code.name}: {sentence}")


def repeatable(called: Rpc[Any], error: Any, translated: Exception, address: Address) -> bool:
    """Whether to make the same call again after this grpc.RpcError: it never left this process, or it changes nothing
    and may succeed a moment later."""
    return never_left(error) or (called.safe and passing(translated, address))


def never_left(error: Any) -> bool:
    """Whether gRPC refused a call itself, because its connection had just been told to end (GOAWAY)."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and (error.details() or "").startswith(_NEVER_LEFT)


def passing(error: Exception, address: Address) -> bool:
    """Whether the same call may succeed a moment later: the daemon is starting or stopping, or just went away."""
    if isinstance(error, errors.ServiceUnavailable):
        return True
    if not isinstance(error, Unreachable):
        return False
    return address.socket is None or os.access(address.socket, os.R_OK | os.W_OK)


def _unreachable(address: Address, detail: str) -> Unreachable:
    """Says what keeps us from the daemon, and what to do."""
    socket = address.socket
    if socket is None:
        return Unreachable(
            f"no daemon answers at {address.target} ({detail}). Check the address, and that runtimed runs there."
        )
    try:
        present = socket.exists()
    except PermissionError:
        present = True
    if not present:
        return Unreachable(
            f"no daemon at {address.target}: the socket does not exist. Start one with `sudo runtimed`, "
            "or say where it is with --address or RUNTIMED_ADDRESS."
        )
    if not os.access(socket, os.R_OK | os.W_OK):
        return NotPermitted(
            f"no permission to connect to {address.target}. Run as root, or as a member of the group runtimed.", socket
        )
    return Unreachable(
        f"no daemon answers at {address.target} ({detail}). It may have been killed; start it with `sudo runtimed`."
    )
