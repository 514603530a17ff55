"""The table of operations: what the decorator makes of methods, and that proto and API agree."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from runtimed.api.operation import Kind, Upload, operation, tabulate
from runtimed.api.table import TABLE
from runtimed.gateway.grpc.convert import Codec
from runtimed.gateway.grpc.methods import METHODS
from runtimed.model.node import DiagnoseRequest, Diagnosis


class Things:
    @operation(safe=True)
    async def get_thing(self, request: DiagnoseRequest) -> Diagnosis: ...

    @operation
    async def put_thing(self, request: DiagnoseRequest, upload: Upload) -> Diagnosis: ...

    @operation
    async def watch_things(self, request: DiagnoseRequest) -> AsyncIterator[Diagnosis]: ...

    async def not_one(self) -> None: ...


def test_methods_become_operations() -> None:
    table = {name: entry for name, (_, entry) in tabulate([Things]).items()}
    assert {name: (entry.kind, entry.safe) for name, entry in table.items()} == {
        "GetThing": (Kind.CALL, True),
        "PutThing": (Kind.UPLOAD, False),
        "WatchThings": (Kind.STREAM, False),
    }
    assert all((entry.request, entry.response) == (DiagnoseRequest, Diagnosis) for entry in table.values())


def test_two_operations_of_one_name_are_a_mistake() -> None:
    with pytest.raises(TypeError, match="GetThing"):
        tabulate([Things, Things])


def test_an_operation_takes_one_request() -> None:
    class Wrong:
        @operation
        async def get(self, first: DiagnoseRequest, second: DiagnoseRequest) -> Diagnosis: ...

    with pytest.raises(TypeError, match="one request"):
        tabulate([Wrong])


def test_proto_and_api_have_the_same_operations() -> None:
    assert TABLE.keys() == METHODS.keys()


@pytest.mark.parametrize("name", sorted(TABLE))
def test_proto_and_model_have_the_same_fields(name: str) -> None:
    entry, method = TABLE[name], METHODS[name]
    Codec(entry.request, method.request)
    Codec(entry.response, method.response)
    assert (entry.kind is Kind.UPLOAD, entry.kind is Kind.STREAM) == (method.client_streaming, method.server_streaming)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_only_what_changes_nothing_is_safe(name: str) -> None:
    assert TABLE[name].safe == name.startswith(("Get", "List", "Describe", "Tail", "Diagnose", "Watch"))
