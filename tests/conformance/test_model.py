"""Our routes, requests, responses and errors against the service's published model, as botocore ships it."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

import botocore.session
import msgspec
import pytest

from runtimed.api.absent import ABSENT
from runtimed.api.operation import Operation, Route
from runtimed.api.table import TABLE
from runtimed.gateway.rest.answers import CAPITAL
from runtimed.model import errors

MODEL: Any = botocore.session.get_session().get_service_model("lambda")
OFFERED = {name: operation for name, operation in TABLE.items() if operation.route}
DISPATCHED = {"Invoke", "InvokeWithResponseStream"}
SHARED = {"GetLayerVersionByArn"}
"""Its route is another one's, with a query."""
OURS = {"NamePrefix", "UploadSize", "UploadSha256", "RetryAttempts", "RetryDelayMilliseconds", "Snapshot"}
"""Members that are not Lambda's. Its clients never send them."""
SUCCESS = {"DeleteFunction": 204}
"""Where the service answers otherwise than its model says."""
OUR_ERRORS = {
    "LimitExceededException", "UnrecognizedClientException", "AccessDeniedException", "UnknownOperationException",
    "PreconditionFailedException", "RequestTimeoutException", "NotImplementedException", "ServiceUnavailableException",
}  # fmt: skip
"""Known to all of AWS's services, or the node's own."""


def path(model: Any) -> str:
    return str(model.http["requestUri"]).partition("?")[0].rstrip("/")


def bare(hint: Any) -> Any:
    """The type inside of Annotated and unions with UNSET."""
    while True:
        if get_origin(hint) in (list, dict):
            return hint
        arguments = [one for one in get_args(hint) if one is not msgspec.UnsetType]
        if not arguments:
            return hint
        hint = arguments[0]


def differences(shape: Any, model: Any, where: str) -> list[str]:
    """What the model does not know or has of another type."""
    kind = bare(shape)
    if model is None:
        return [] if not kind.__struct_fields__ else [f"{where}: nothing in the model"]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if model.type_name != "structure":
            return [f"{where}: a structure, and in the model {model.type_name}"]
        found = []
        hints = get_type_hints(kind, include_extras=True)
        for name, field in zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True):
            if name in OURS:
                continue
            if name not in model.members:
                found.append(f"{where}.{name}: not in the model")
                continue
            found += differences(hints[field], model.members[name], f"{where}.{name}")
        return found
    if get_origin(kind) is list:
        return differences(get_args(kind)[0], model.member, f"{where}[]") if model.type_name == "list" else [where]
    if get_origin(kind) is dict:
        return differences(get_args(kind)[1], model.value, f"{where}{{}}") if model.type_name == "map" else [where]
    if isinstance(kind, type) and issubclass(kind, Enum):
        unknown = {member.value for member in kind} - set(model.enum or ())
        return [f"{where}: {sorted(unknown)} not in the model"] if unknown else []
    names = {str: ("string", "timestamp"), int: ("integer", "long"), bool: ("boolean",), float: ("double", "timestamp")}
    return [] if model.type_name in names[kind] else [f"{where}: {kind.__name__}, and in the model {model.type_name}"]


@pytest.mark.parametrize("operation", OFFERED.values(), ids=lambda operation: operation.name)
def test_operations(operation: Operation) -> None:
    model = MODEL.operation_model(operation.name)
    route = operation.route
    assert route is not None
    assert (route.method, route.path) == (model.http["method"], path(model))
    assert route.status == SUCCESS.get(operation.name, model.http["responseCode"])
    uri = set(re.findall(r"\{(\w+)\}", route.path))
    for name, member in model.input_shape.members.items():
        location = member.serialization.get("location", "")
        assert (location == "uri") == (name in uri), name
        # What is not in the path is in the query of GET and DELETE, and nowhere else; a qualifier is always there.
        in_query = (route.method in ("GET", "DELETE") or name == "Qualifier") and name not in uri
        assert (location == "querystring") == in_query, name
        assert member.serialization.get("name", name) == name
    if model.output_shape is None:
        assert operation.response.__struct_fields__ == ()
    else:
        assert differences(operation.response, model.output_shape, operation.name) == []
    if operation.request.__struct_fields__:
        assert differences(operation.request, model.input_shape, operation.name) == []


def test_what_the_comparison_sees() -> None:
    class Shape(msgspec.Struct, rename="pascal"):
        function_name: int
        unknown: str
        state: list[str]

    model = MODEL.operation_model("GetFunctionConfiguration").output_shape
    assert differences(Shape, model, "X") == [
        "X.FunctionName: int, and in the model string",
        "X.Unknown: not in the model",
        "X.State",
    ]


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_what_is_absent_exists(name: str) -> None:
    model = MODEL.operation_model(name)
    assert ABSENT[name] == Route(model.http["method"], path(model))


def test_every_operation_is_known() -> None:
    """A newer botocore may know more."""
    known = {*OFFERED, *ABSENT, *DISPATCHED, *SHARED}
    assert len(set(MODEL.operation_names) & known) >= 91
    assert known <= set(MODEL.operation_names)


@pytest.mark.parametrize("error", errors.ERRORS, ids=lambda error: error.__name__)
def test_errors(error: type[errors.ApiError]) -> None:
    if error.code in OUR_ERRORS and error.code not in MODEL.shape_names:
        return
    shape = MODEL.shape_for(error.code)
    assert shape.metadata["exception"]
    assert shape.metadata["error"]["httpStatusCode"] == error.status
    assert ("Message" in shape.members) == (error.code in CAPITAL)
