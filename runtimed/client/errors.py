"""What can go wrong on the client's side of the API."""

from __future__ import annotations

from pathlib import Path


class ClientError(Exception):
    """Something that is not an answer of the API. The message is a sentence that says what to do."""


class Unreachable(ClientError):
    """No daemon answered at the address. Whether a request arrived is not known."""


class NotPermitted(Unreachable):
    """The daemon's socket is there, and this user may not use it."""

    def __init__(self, message: str, socket: Path) -> None:
        super().__init__(message)
        self.socket = socket


class Incompatible(ClientError):
    """The daemon is of a version with which this client cannot talk."""


class TimedOut(ClientError):
    """The daemon did not answer in the time that the caller gave. What was asked may still happen."""


class DeployFailed(ClientError):
    """The function was stored and its code cannot be used."""


class FunctionFailed(ClientError):
    """The invocation took place and the function raised an error."""

    def __init__(self, error_type: str, message: str, stack_trace: list[str], request_id: str) -> None:
        super().__init__(f"{error_type}: {message}" if error_type else message)
        self.error_type = error_type
        self.error_message = message
        self.stack_trace = stack_trace
        self.request_id = request_id
