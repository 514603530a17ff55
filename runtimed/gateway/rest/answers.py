"""Answers of Lambda's REST API: a response or an error as status, header fields and JSON. Pure."""

from __future__ import annotations

from datetime import datetime
from email.utils import format_datetime

import msgspec
from msgspec import Struct

from runtimed.model import errors
from runtimed.model.shape import Shape

CAPITAL = frozenset({errors.ResourceNotFound.code, errors.ServiceError.code, errors.CodeVerificationFailed.code,
                     errors.InvalidRuntime.code, errors.SnapStartFailed.code,
                     errors.SnapStartTimedOut.code})  # fmt: skip
"""Errors whose sentence is called Message by Lambda's model; of all others it is message."""


class Answer(Struct, frozen=True):
    """What is sent."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes


def success(status: int, response: Shape, request_id: str, now: datetime) -> Answer:
    body = b"" if status == 204 else msgspec.json.encode(response)
    return Answer(status, _fields(request_id, now), body)


def failure(error: errors.ApiError, request_id: str, now: datetime) -> Answer:
    fields = [*_fields(request_id, now), ("x-amzn-ErrorType", error.code)]
    if error.retry_after is not None:
        fields.append(("Retry-After", str(max(1, round(error.retry_after)))))
    said = {"Type": "Service" if error.status >= 500 else "User"}
    if error.reason:
        said["Reason"] = error.reason
    said["Message" if error.code in CAPITAL else "message"] = error.message
    return Answer(error.status, fields, msgspec.json.encode(said))


def _fields(request_id: str, now: datetime) -> list[tuple[str, str]]:
    return [
        ("Date", format_datetime(now, usegmt=True)),
        ("Content-Type", "application/json"),
        ("x-amzn-RequestId", request_id),
    ]
