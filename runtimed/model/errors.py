"""The API's errors: one class per error code, with its HTTP status and its gRPC status.

`code` and `status` are Lambda's; `grpc` is the name of a grpc.StatusCode. A message is a sentence for the caller: what
is wrong, and what to do. Everything that a caller can cause is one of these; anything else is a defect and reaches the
caller as `ServiceException` without detail.
"""

from __future__ import annotations

from typing import ClassVar


class ApiError(Exception):
    """An answer of the API that is not a success."""

    code: ClassVar[str] = "ServiceException"
    status: ClassVar[int] = 500
    grpc: ClassVar[str] = "INTERNAL"

    def __init__(
        self, message: str, *, reason: str = "", retry_after: float | None = None, request_id: str = ""
    ) -> None:
        """`reason` and `retry_after` (seconds) go with throttles; `request_id` names an invocation that was refused."""
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retry_after = retry_after
        self.request_id = request_id


class ServiceError(ApiError):
    """Something failed on our side."""


class InvalidParameterValue(ApiError):
    code = "InvalidParameterValueException"
    status = 400
    grpc = "INVALID_ARGUMENT"


class InvalidRequestContent(ApiError):
    """The payload of an invocation is not JSON."""

    code = "InvalidRequestContentException"
    status = 400
    grpc = "INVALID_ARGUMENT"


class CodeStorageExceeded(ApiError):
    code = "CodeStorageExceededException"
    status = 400
    grpc = "RESOURCE_EXHAUSTED"


class LimitExceeded(ApiError):
    """More of something than a node keeps."""

    code = "LimitExceededException"
    status = 400
    grpc = "RESOURCE_EXHAUSTED"


class CodeVerificationFailed(ApiError):
    """The uploaded bytes are not the announced ones."""

    code = "CodeVerificationFailedException"
    status = 400
    grpc = "INVALID_ARGUMENT"


class Unauthenticated(ApiError):
    """No key, or a wrong one."""

    code = "UnrecognizedClientException"
    status = 403
    grpc = "UNAUTHENTICATED"


class AccessDenied(ApiError):
    code = "AccessDeniedException"
    status = 403
    grpc = "PERMISSION_DENIED"


class ResourceNotFound(ApiError):
    code = "ResourceNotFoundException"
    status = 404
    grpc = "NOT_FOUND"


class ProvisionedConcurrencyConfigNotFound(ApiError):
    code = "ProvisionedConcurrencyConfigNotFoundException"
    status = 404
    grpc = "NOT_FOUND"


class UnknownOperation(ApiError):
    """Neither this node nor Lambda has an operation at this path."""

    code = "UnknownOperationException"
    status = 404
    grpc = "UNIMPLEMENTED"


class ResourceConflict(ApiError):
    """The resource is in a state in which this cannot be done: pending, or being updated."""

    code = "ResourceConflictException"
    status = 409
    grpc = "FAILED_PRECONDITION"


class ResourceExists(ApiError):
    """`ResourceConflictException` for a name that is taken: gRPC has a status of its own for it."""

    code = "ResourceConflictException"
    status = 409
    grpc = "ALREADY_EXISTS"


class PreconditionFailed(ApiError):
    """The `RevisionId` given is not the current one."""

    code = "PreconditionFailedException"
    status = 412
    grpc = "ABORTED"


class RequestTooLarge(ApiError):
    code = "RequestTooLargeException"
    status = 413
    grpc = "INVALID_ARGUMENT"


class RequestTimedOut(ApiError):
    """The request itself did not arrive in time."""

    code = "RequestTimeoutException"
    status = 408
    grpc = "DEADLINE_EXCEEDED"


class UnsupportedMediaType(ApiError):
    code = "UnsupportedMediaTypeException"
    status = 415
    grpc = "INVALID_ARGUMENT"


class TooManyRequests(ApiError):
    """Over a limit of concurrency or rate; `reason` says which."""

    code = "TooManyRequestsException"
    status = 429
    grpc = "RESOURCE_EXHAUSTED"


class NotOffered(ApiError):
    """A part of Lambda's API that this node does not have."""

    code = "NotImplementedException"
    status = 501
    grpc = "UNIMPLEMENTED"


class InvalidRuntime(ApiError):
    """The function's runtime is not on this node any more."""

    code = "InvalidRuntimeException"
    status = 502
    grpc = "FAILED_PRECONDITION"


class ResourceNotReady(ApiError):
    code = "ResourceNotReadyException"
    status = 502
    grpc = "UNAVAILABLE"


class SnapStartFailed(ApiError):
    """A hook that runs after restoring an environment raised."""

    code = "SnapStartException"
    status = 400
    grpc = "FAILED_PRECONDITION"


class SnapStartTimedOut(ApiError):
    """Restoring an environment, its hooks included, took too long."""

    code = "SnapStartTimeoutException"
    status = 408
    grpc = "DEADLINE_EXCEEDED"


class ServiceUnavailable(ApiError):
    """The node is starting, draining, or its data plane is being restarted: the same request may succeed soon."""

    code = "ServiceUnavailableException"
    status = 503
    grpc = "UNAVAILABLE"


ERRORS: tuple[type[ApiError], ...] = (
    ServiceError,
    InvalidParameterValue,
    InvalidRequestContent,
    CodeStorageExceeded,
    LimitExceeded,
    CodeVerificationFailed,
    Unauthenticated,
    AccessDenied,
    ResourceNotFound,
    ProvisionedConcurrencyConfigNotFound,
    UnknownOperation,
    ResourceConflict,
    ResourceExists,
    PreconditionFailed,
    RequestTooLarge,
    RequestTimedOut,
    UnsupportedMediaType,
    TooManyRequests,
    NotOffered,
    InvalidRuntime,
    ResourceNotReady,
    SnapStartFailed,
    SnapStartTimedOut,
    ServiceUnavailable,
)


def error_class(code: str, grpc: str = "") -> type[ApiError]:
    """The class for a code (and, where two share it, a gRPC status name); `ServiceError` for an unknown one."""
    same = [error for error in ERRORS if error.code == code]
    return next((error for error in same if error.grpc == grpc), same[0] if same else ServiceError)
