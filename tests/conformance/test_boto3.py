"""AWS's own SDK against a real node, unchanged: signed requests over TCP, forwarded by the dispatcher, performed by the
control plane."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.zips import Member, build

SOURCE = b"def handler(event, context):\n    return {'was': event, 'version': 1}\n"
NAME = "made-by-boto3"
ROLE = "arn:aws:iam::000000000000:role/any"


def zipped(source: bytes = SOURCE, *more: Member) -> bytes:
    return build(Member(name=b"app.py", content=source), *more)


@pytest.fixture
def made(caller: Any) -> Iterator[dict[str, Any]]:
    yield caller.create_function(
        FunctionName=NAME, Runtime="python3.11", Role=ROLE, Handler="app.handler", Code={"ZipFile": zipped()},
        Timeout=30, Environment={"Variables": {"KEY": "ü"}},
    )  # fmt: skip
    caller.delete_function(FunctionName=NAME)


def test_a_life(caller: Any) -> None:
    package = zipped()
    made = caller.create_function(
        FunctionName=NAME, Runtime="python3.11", Role=ROLE, Handler="app.handler", Code={"ZipFile": package},
        Description="ä", Timeout=30, MemorySize=256, Publish=False, PackageType="Zip",
        Environment={"Variables": {"KEY": "ü"}}, TracingConfig={"Mode": "PassThrough"},
    )  # fmt: skip
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert made["CodeSha256"] == base64.b64encode(hashlib.sha256(package).digest()).decode()
    assert (made["Description"], made["MemorySize"], made["Environment"]) == ("ä", 256, {"Variables": {"KEY": "ü"}})
    caller.get_waiter("function_active_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    caller.get_waiter("function_active").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    answer = caller.invoke(FunctionName=NAME, Payload=b'{"a": 1}')
    assert json.load(answer["Payload"]) == {"was": {"a": 1}, "version": 1}
    assert NAME in [found["FunctionName"] for found in caller.list_functions()["Functions"]]
    for name in (NAME, f"{NAME}:$LATEST", made["FunctionArn"]):
        found = caller.get_function(FunctionName=name)["Configuration"]
        assert found["FunctionArn"] == made["FunctionArn"] + name.partition(NAME)[2]

    updated = caller.update_function_code(FunctionName=NAME, ZipFile=zipped(SOURCE.replace(b"1}", b"2}")))
    assert updated["CodeSha256"] != made["CodeSha256"]
    caller.get_waiter("function_updated_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    caller.update_function_configuration(FunctionName=NAME, Timeout=40, Environment={"Variables": {}})
    caller.get_waiter("function_updated").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    assert caller.get_function_configuration(FunctionName=NAME)["Timeout"] == 40
    assert json.load(caller.invoke(FunctionName=NAME)["Payload"]) == {"was": {}, "version": 2}

    assert caller.delete_function(FunctionName=NAME)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with pytest.raises(caller.exceptions.ResourceNotFoundException, match="Function not found"):
        caller.get_function(FunctionName=NAME)
    with pytest.raises(caller.exceptions.ResourceNotFoundException):
        caller.invoke(FunctionName=NAME)


def test_account_settings(caller: Any, made: dict[str, Any]) -> None:
    found = caller.get_account_settings()
    assert (
        found["AccountLimit"]["ConcurrentExecutions"] == found["AccountLimit"]["UnreservedConcurrentExecutions"] == 1000
    )
    assert found["AccountLimit"]["TotalCodeSize"] > found["AccountUsage"]["TotalCodeSize"] >= made["CodeSize"]
    assert found["AccountUsage"]["FunctionCount"] == len(caller.list_functions()["Functions"])


def test_a_large_package(caller: Any) -> None:
    """More than any buffer on its way holds."""
    package = zipped(SOURCE, Member(name=b"noise.bin", content=os.urandom(8 << 20), method=0))
    made = caller.create_function(
        FunctionName="large", Runtime="python3.11", Role=ROLE, Handler="app.handler", Code={"ZipFile": package}
    )
    assert (made["CodeSize"], made["CodeSha256"]) == (
        len(package),
        base64.b64encode(hashlib.sha256(package).digest()).decode(),
    )
    caller.get_waiter("function_active_v2").wait(FunctionName="large", WaiterConfig={"Delay": 1})
    caller.delete_function(FunctionName="large")


def test_snap_start(caller: Any, made: dict[str, Any]) -> None:
    assert made["SnapStart"] == {"ApplyOn": "None", "OptimizationStatus": "Off"}
    caller.get_waiter("function_active_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    wanted = {"ApplyOn": "PublishedVersions"}
    changed = caller.update_function_configuration(FunctionName=NAME, SnapStart=wanted)
    assert changed["SnapStart"] == wanted | {"OptimizationStatus": "Off"}
    caller.get_waiter("function_updated_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    assert json.load(caller.invoke(FunctionName=NAME)["Payload"])["version"] == 1


def test_a_member_that_is_ours(caller: Any, made: dict[str, Any]) -> None:
    """`Snapshot` goes through the REST API for who adds it to a request; Lambda's clients do not see it."""
    assert "Snapshot" not in made
    caller.get_waiter("function_active_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})

    def add(params: dict[str, Any], **_: Any) -> None:
        params["body"] = json.dumps(json.loads(params["body"]) | {"Snapshot": said}).encode()

    caller.meta.events.register("before-call.lambda.UpdateFunctionConfiguration", add)
    said = "on"
    changed = caller.update_function_configuration(FunctionName=NAME)
    assert changed["SnapStart"]["ApplyOn"] == "PublishedVersions"
    caller.get_waiter("function_updated_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    said = "sometimes"
    with pytest.raises(caller.exceptions.InvalidParameterValueException, match="Snapshot.*node, auto, on"):
        caller.update_function_configuration(FunctionName=NAME)
