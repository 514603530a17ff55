"""What an operation is, and how methods become a table of them.

    class Things:
        @operation
        async def get_thing(self, request: GetThingRequest) -> Thing: ...                        # a call
        @operation
        async def put_thing(self, request: PutThingRequest, upload: Upload) -> Thing: ...        # an upload
        @operation
        def watch_things(self, request: WatchRequest) -> AsyncIterator[Thing]: ...               # a stream

The method's name gives the operation's (`GetThing`), its annotations give the types and the kind. Gateways iterate over
the table; no resource is named in them.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints, overload

from msgspec import Struct

from runtimed.model.shape import Shape

Upload = AsyncIterator[bytes]
"""The bytes that follow an upload's request. It raises when the caller goes away; `api` notices an early end."""

Method = TypeVar("Method", bound=Callable[..., Any])

_MARK = "__operation__"


class Kind(Enum):
    CALL = "call"
    """One request, one response."""
    UPLOAD = "upload"
    """One request and a stream of bytes, one response."""
    STREAM = "stream"
    """One request, a stream of responses."""


class Route(Struct, frozen=True):
    """How Lambda's REST API says an operation.

    Members in `{}` are in the path; of GET and DELETE all others are in the query, else in a body of JSON."""

    method: str
    path: str
    status: int = 200
    """Of a success. 204: without a body."""
    adapt: Callable[[dict[str, Any]], str] | None = None
    """Makes of Lambda's members those of the request, in place, or refuses them with InvalidParameterValue. For an
    upload it returns the member that holds the bytes, in base64."""
    query: tuple[str, str] | None = None
    """The parameter that tells this operation from another one of the same path."""


class Operation(Struct, frozen=True, kw_only=True):
    """One operation of the API, without an object to run it on."""

    name: str
    kind: Kind
    request: type[Shape]
    response: type[Shape]
    safe: bool
    """Repeating it does no harm, so a client may do so when it does not know what became of the first attempt."""
    method: str
    route: Route | None = None
    """None: Lambda has no such operation, or the dispatcher serves it."""


class Bound(Struct, frozen=True):
    """An operation and the method that performs it."""

    operation: Operation
    call: Callable[..., Any]


@overload
def operation(method: Method) -> Method: ...
@overload
def operation(*, safe: bool = False, route: Route | None = None) -> Callable[[Method], Method]: ...
def operation(
    method: Method | None = None, *, safe: bool = False, route: Route | None = None
) -> Method | Callable[[Method], Method]:
    """Marks a method as an operation."""

    def mark(marked: Method) -> Method:
        setattr(marked, _MARK, (safe, route))
        return marked

    return mark if method is None else mark(method)


def tabulate(resources: Iterable[type]) -> Mapping[str, tuple[type, Operation]]:
    """The operations of these classes by name, each with its class."""
    table: dict[str, tuple[type, Operation]] = {}
    for resource in resources:
        for name, method in vars(resource).items():
            if not hasattr(method, _MARK):
                continue
            entry = _describe(name, method)
            if entry.name in table:
                raise TypeError(f"two operations are named {entry.name}")
            table[entry.name] = (resource, entry)
    return MappingProxyType(table)


def _describe(name: str, method: Callable[..., Any]) -> Operation:
    safe, route = getattr(method, _MARK)
    hints = get_type_hints(method)
    parameters = list(inspect.signature(method).parameters)[1:]
    returns = hints["return"]
    kind = Kind.CALL
    if get_origin(returns) is AsyncIterator:
        kind, returns = Kind.STREAM, get_args(returns)[0]
    elif len(parameters) == 2 and hints[parameters[1]] == Upload:
        kind = Kind.UPLOAD
    if len(parameters) != (2 if kind is Kind.UPLOAD else 1):
        raise TypeError(f"{name}: an operation takes one request, and an upload at most")
    return Operation(
        name="".join(word.capitalize() for word in name.split("_")),
        kind=kind,
        request=hints[parameters[0]],
        response=returns,
        safe=safe,
        method=name,
        route=route,
    )
