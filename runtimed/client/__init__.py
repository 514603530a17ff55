"""The SDK.

    from runtimed.client import Client

    with Client() as client:
        client.deploy("thumbnails", "thumbnails/", runtime="python3.11", handler="app.handler")
        print(client.invoke("thumbnails", {"url": "..."}).value)
        for part in client.invoke_stream("report", {"year": 2026}):
            ...

`AsyncClient` has the same methods as coroutines. Errors: the API's own are the classes of `runtimed.model.errors`, all
`ApiError`; `Unreachable` and `TimedOut` mean that no answer came; `FunctionFailed` that the function itself failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtimed.client.aio import AsyncClient as AsyncClient
    from runtimed.client.errors import ClientError as ClientError
    from runtimed.client.errors import DeployFailed as DeployFailed
    from runtimed.client.errors import FunctionFailed as FunctionFailed
    from runtimed.client.errors import Incompatible as Incompatible
    from runtimed.client.errors import NotPermitted as NotPermitted
    from runtimed.client.errors import TimedOut as TimedOut
    from runtimed.client.errors import Unreachable as Unreachable
    from runtimed.client.result import Result as Result
    from runtimed.client.stream import AsyncResultStream as AsyncResultStream
    from runtimed.client.stream import ResultStream as ResultStream
    from runtimed.client.sync import Client as Client
    from runtimed.model.errors import ApiError as ApiError

_PLACES = {
    "ApiError": "runtimed.model.errors",
    "AsyncClient": "runtimed.client.aio",
    "AsyncResultStream": "runtimed.client.stream",
    "Client": "runtimed.client.sync",
    "ClientError": "runtimed.client.errors",
    "DeployFailed": "runtimed.client.errors",
    "FunctionFailed": "runtimed.client.errors",
    "Incompatible": "runtimed.client.errors",
    "NotPermitted": "runtimed.client.errors",
    "Result": "runtimed.client.result",
    "ResultStream": "runtimed.client.stream",
    "TimedOut": "runtimed.client.errors",
    "Unreachable": "runtimed.client.errors",
}

__all__ = [  # noqa: PLE0604, RUF100
    "ApiError",
    "AsyncClient",
    "AsyncResultStream",
    "Client",
    "ClientError",
    "DeployFailed",
    "FunctionFailed",
    "Incompatible",
    "NotPermitted",
    "Result",
    "ResultStream",
    "TimedOut",
    "Unreachable",
]


def __getattr__(name: str) -> Any:
    """Imports on first use: gRPC takes longer to load than a command that does not need it takes in all."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
