"""The API's errors as gRPC carries them: a status, a sentence, and trailing metadata (see functions.proto)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from runtimed.model import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

CODE = "runtimed-error-code"
REASON = "runtimed-error-reason"
REQUEST_ID = "runtimed-request-id"
RETRY_AFTER = "retry-after"
AUTHORIZATION = "authorization"

SENTENCE_CHARACTERS = 1500
"""A status travels in the trailers, whose size gRPC limits to 8 KB."""

Metadata = tuple[tuple[str, str], ...]


def encode(error: errors.ApiError) -> tuple[grpc.StatusCode, str, Metadata]:
    metadata = [(CODE, error.code)]
    if error.reason:
        metadata.append((REASON, error.reason))
    if error.request_id:
        metadata.append((REQUEST_ID, error.request_id))
    if error.retry_after is not None:
        metadata.append((RETRY_AFTER, f"{error.retry_after:g}"))
    sentence = error.message.encode(errors="replace").decode()
    if len(sentence) > SENTENCE_CHARACTERS:
        sentence = sentence[:SENTENCE_CHARACTERS] + " …"
    return grpc.StatusCode[error.grpc], sentence, tuple(metadata)


def decode(
    status: grpc.StatusCode, sentence: str, metadata: Iterable[tuple[str, str | bytes]]
) -> errors.ApiError | None:
    """The error that the API answered with; None when the status is not from it (transport, gRPC itself)."""
    found = {key: value if isinstance(value, str) else value.decode() for key, value in metadata}
    if CODE not in found:
        return None
    try:
        retry_after = float(found[RETRY_AFTER])
    except (KeyError, ValueError):
        retry_after = None
    return errors.error_class(found[CODE], status.name)(
        sentence, reason=found.get(REASON, ""), retry_after=retry_after, request_id=found.get(REQUEST_ID, "")
    )
