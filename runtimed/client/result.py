"""What an invocation came to, as the SDK hands it out."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from runtimed.client.errors import FunctionFailed
from runtimed.model.invocation import FunctionError, InvokeResponse

_error = msgspec.json.Decoder(FunctionError)


class Result(msgspec.Struct, frozen=True):
    """An invocation that took place."""

    response: InvokeResponse

    @property
    def payload(self) -> bytes:
        """The function's result, or its error object: JSON."""
        return self.response.payload

    @property
    def value(self) -> Any:
        """The function's result. Raises FunctionFailed when there is none because the function failed."""
        self.raise_for_error()
        return msgspec.json.decode(self.response.payload) if self.response.payload else None

    @property
    def failed(self) -> bool:
        return self.response.function_error is not UNSET

    @property
    def request_id(self) -> str:
        return self.response.request_id

    @property
    def executed_version(self) -> str:
        return self.response.executed_version

    @property
    def log_tail(self) -> str:
        """The last 4 KB of the log, when asked for."""
        tail = self.response.log_result
        return "" if tail is UNSET else tail.decode(errors="replace")

    def error(self) -> FunctionFailed | None:
        """The function's failure, as an exception; None when it succeeded."""
        if not self.failed:
            return None
        return failure(self.response.payload, self.request_id)

    def raise_for_error(self) -> None:
        error = self.error()
        if error is not None:
            raise error


def failure(payload: bytes, request_id: str, kind: str = "") -> FunctionFailed:
    """What an error object says; `kind`: its type, when it does not say so itself."""
    try:
        found = _error.decode(payload)
    except msgspec.MsgspecError:
        return FunctionFailed(kind, payload.decode(errors="replace"), [], request_id)
    return FunctionFailed(
        kind if found.error_type is UNSET else found.error_type,
        "" if found.error_message is UNSET else found.error_message,
        [] if found.stack_trace is UNSET else found.stack_trace,
        request_id,
    )
