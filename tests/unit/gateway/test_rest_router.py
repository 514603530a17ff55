"""From paths to operations."""

from __future__ import annotations

import pytest

from runtimed.api.absent import ABSENT
from runtimed.api.operation import Bound, Route
from runtimed.api.table import TABLE
from runtimed.gateway.rest.router import Router, Routes
from runtimed.model import errors

ROUTER = Router({name: Bound(operation, lambda: None) for name, operation in TABLE.items()}, ABSENT)


@pytest.mark.parametrize(
    ("method", "path", "name", "members"),
    [
        ("POST", "/2015-03-31/functions", "CreateFunction", {}),
        ("GET", "/2015-03-31/functions", "ListFunctions", {}),
        ("GET", "/2015-03-31/functions/", "ListFunctions", {}),
        ("GET", "/2015-03-31/functions/f", "GetFunction", {"FunctionName": "f"}),
        ("GET", "/2015-03-31/functions/f/configuration", "GetFunctionConfiguration", {"FunctionName": "f"}),
        ("PUT", "/2015-03-31/functions/a%3Ab%2Fc/code", "UpdateFunctionCode", {"FunctionName": "a:b/c"}),
        ("DELETE", "/2015-03-31/functions/%24x", "DeleteFunction", {"FunctionName": "$x"}),
    ],
)
def test_found(method: str, path: str, name: str, members: dict[str, str]) -> None:
    match = ROUTER.find(method, path)
    assert (match.found.operation.name, match.members) == (name, members)


def test_what_this_node_has_not() -> None:
    for name, route in ABSENT.items():
        path = route.path.replace("{", "").replace("}", "")
        with pytest.raises(errors.NotOffered, match=f"^{name}: "):
            ROUTER.find(route.method, path)
    assert not ABSENT.keys() & TABLE.keys()


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("GET", "/", "Lambda's API is here"),
        ("GET", "//2015-03-31/functions", "Lambda's API is here"),
        ("GET", "/2015-03-31/functions/f/x/y", "Lambda's API is here"),
        ("PATCH", "/2015-03-31/functions", "takes GET, POST"),
        ("get", "/2015-03-31/functions", "takes GET, POST"),
    ],
)
def test_nobodys(method: str, path: str, sentence: str) -> None:
    with pytest.raises(errors.UnknownOperation, match=sentence):
        ROUTER.find(method, path)


def test_names_that_are_no_text() -> None:
    with pytest.raises(errors.InvalidParameterValue):
        ROUTER.find("GET", "/2015-03-31/functions/%ff")


def test_a_route_is_there_once() -> None:
    with pytest.raises(ValueError, match="two operations"):
        Routes([(Route("GET", "/a/{b}"), 1), (Route("GET", "/a/{b}"), 2)])
