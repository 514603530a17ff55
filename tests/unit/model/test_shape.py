"""Complaints about values, as sentences."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runtimed.model.function import CreateFunctionRequest, FunctionConfiguration, ListFunctionsRequest
from runtimed.model.invocation import FunctionError
from runtimed.model.shape import explain

GOOD = {"FunctionName": "f", "Runtime": "python3.11", "Handler": "app.handler"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"MemorySize": 127}, "MemorySize: whole megabytes from 128 to 10240."),
        ({"MemorySize": "128"}, "MemorySize: whole megabytes from 128 to 10240."),
        ({"Timeout": 901}, "Timeout: whole seconds from 1 to 900."),
        ({"EphemeralStorage": {"Size": 10241}}, "EphemeralStorage.Size: whole megabytes from 512 to 10240."),
        ({"Environment": {"Variables": {"1a": "x"}}}, "Environment.Variables: a name has at least two characters"),
        ({"Environment": {"Variables": {"ab": "\0"}}}, "Environment.Variables: a variable's value"),
        ({"LoggingConfig": {"LogFormat": "XML"}}, "LoggingConfig.LogFormat: one of Text, JSON."),
        ({"LoggingConfig": {"ApplicationLogLevel": 1}}, "LoggingConfig.ApplicationLogLevel: one of TRACE, DEBUG"),
        ({"Environment": 1}, "Environment: expected `object`, got `int`."),
        ({"Handler": None}, "Handler: MODULE.FUNCTION"),
    ],
)
def test_the_member_and_what_it_takes(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(GOOD | given, CreateFunctionRequest)
    assert explain(CreateFunctionRequest, caught.value).startswith(sentence)


def test_what_is_missing() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"FunctionName": "f", "Runtime": "p"}, CreateFunctionRequest)
    assert explain(CreateFunctionRequest, caught.value) == "Handler is missing."


def test_something_that_is_no_request_at_all() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(1, ListFunctionsRequest)
    assert explain(ListFunctionsRequest, caught.value) == "The request: expected `object`, got `int`."


@pytest.mark.parametrize(
    ("member", "lowest", "highest"),
    [("MemorySize", 128, 10240), ("Timeout", 1, 900), ("UploadSize", 1, 250 * 1024 * 1024)],
)
def test_limits_include_their_ends(member: str, lowest: int, highest: int) -> None:
    for value in (lowest, highest):
        msgspec.convert(GOOD | {member: value}, CreateFunctionRequest)
    for value in (lowest - 1, highest + 1):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(GOOD | {member: value}, CreateFunctionRequest)


def test_members_are_spelled_as_lambda_spells_them() -> None:
    names = set(FunctionConfiguration.__struct_encode_fields__)
    assert names >= {
        "FunctionName",
        "FunctionArn",
        "CodeSha256",
        "MemorySize",
        "LastUpdateStatusReasonCode",
        "StateReason",
    }
    assert set(FunctionError.__struct_encode_fields__) == {"errorType", "errorMessage", "stackTrace", "requestId"}
