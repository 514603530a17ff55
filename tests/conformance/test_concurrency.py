"""Reserved and provisioned concurrency through AWS's own SDK, on a real node, and through the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest

from bench.node import await_true
from runtimed.client import Client
from runtimed.model import errors
from runtimed.model.function import SnapStart, SnapStartApplyOn
from tests.conformance.conftest import Served
from tests.integration.zips import Member, build

NAME = "kept-ready"
SOURCE = b"""
import os

def handler(event, context):
    return {"type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]}
"""
BROKEN = b"raise ValueError('not today')\n"
PATIENCE = 60.0


def package(source: bytes = SOURCE) -> bytes:
    return build(Member(name=b"app.py", content=source))


@pytest.fixture
def made(caller: Any) -> Iterator[str]:
    caller.create_function(
        FunctionName=NAME, Runtime="python3.11", Role="arn:aws:iam::000000000000:role/any", Handler="app.handler",
        Code={"ZipFile": package()}, Timeout=30,
    )  # fmt: skip
    caller.get_waiter("function_active_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    yield NAME
    caller.delete_function(FunctionName=NAME)


def config(caller: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = caller.get_provisioned_concurrency_config(FunctionName=NAME, Qualifier="$LATEST", **more)
    return found


def provision(caller: Any, count: int) -> None:
    caller.put_provisioned_concurrency_config(
        FunctionName=NAME, Qualifier="$LATEST", ProvisionedConcurrentExecutions=count
    )


def await_status(caller: Any, status: str, count: int) -> None:
    def reached() -> bool:
        found = config(caller)
        return bool(found["Status"] == status and found["AvailableProvisionedConcurrentExecutions"] == count)

    await_true(reached, PATIENCE, f"{status} with {count}")


def invoke(caller: Any) -> dict[str, Any]:
    answer = caller.invoke(FunctionName=NAME, Payload=b"{}")
    found: dict[str, Any] = json.load(answer["Payload"])
    assert "FunctionError" not in answer, found
    return found


def code(call: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_provisioned_environments(caller: Any, made: str, served: Served) -> None:
    put = caller.put_provisioned_concurrency_config(
        FunctionName=made, Qualifier="$LATEST", ProvisionedConcurrentExecutions=2
    )
    assert put["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert (put["RequestedProvisionedConcurrentExecutions"], put["Status"]) == (2, "IN_PROGRESS")
    await_status(caller, "READY", 2)
    assert invoke(caller)["type"] == "provisioned-concurrency"
    (listed,) = caller.list_provisioned_concurrency_configs(FunctionName=made)["ProvisionedConcurrencyConfigs"]
    assert listed["FunctionArn"].endswith(f":function:{made}:$LATEST")
    assert listed["RequestedProvisionedConcurrentExecutions"] == 2

    # New code: as many, of it, and the same setting.
    caller.update_function_code(FunctionName=made, ZipFile=package(SOURCE + b"\nNEW = True\n"))
    caller.get_waiter("function_updated_v2").wait(FunctionName=made, WaiterConfig={"Delay": 1})
    await_status(caller, "READY", 2)
    shown = served.runtimectl("provision", "get", made, "--json")
    assert json.loads(shown.stdout)["ProvisionedConcurrencyConfigs"][0]["Config"]["Status"] == "READY"

    caller.delete_provisioned_concurrency_config(FunctionName=made, Qualifier="$LATEST")
    assert code(lambda: config(caller)) == "ProvisionedConcurrencyConfigNotFoundException"
    assert served.runtimectl("provision", "list", made).stderr.startswith("Nothing is provisioned")


def test_one_that_cannot_start_has_failed(caller: Any, made: str, served: Served) -> None:
    caller.update_function_code(FunctionName=made, ZipFile=package(BROKEN))
    caller.get_waiter("function_updated_v2").wait(FunctionName=made, WaiterConfig={"Delay": 1})
    provision(caller, 1)
    await_status(caller, "FAILED", 0)
    assert "INIT_FAILURE" in config(caller)["StatusReason"]
    caller.update_function_code(FunctionName=made, ZipFile=package())
    caller.get_waiter("function_updated_v2").wait(FunctionName=made, WaiterConfig={"Delay": 1})
    await_status(caller, "READY", 1)
    done = served.runtimectl("provision", "delete", made)
    assert (done.returncode, done.stdout) == (0, f"{made}: nothing is provisioned\n")


def test_reserved_concurrency(caller: Any, made: str, served: Served) -> None:
    settings = caller.get_account_settings()["AccountLimit"]
    assert settings["UnreservedConcurrentExecutions"] == settings["ConcurrentExecutions"] == 1000
    put = caller.put_function_concurrency(FunctionName=made, ReservedConcurrentExecutions=1)
    assert put["ReservedConcurrentExecutions"] == 1
    assert caller.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 999
    invoke(caller)
    account = json.loads(served.runtimectl("concurrency", "--json").stdout)
    assert (account["ConcurrentExecutions"], account["UnreservedConcurrentExecutions"]) == (1000, 999)
    assert {"FunctionName": made, "ReservedConcurrentExecutions": 1} in account["Functions"]
    provision(caller, 1)
    account = json.loads(served.runtimectl("concurrency", "--json").stdout)
    [one] = [one for one in account["Functions"] if one["FunctionName"] == made]
    assert (one["ReservedConcurrentExecutions"], one["RequestedProvisionedConcurrentExecutions"]) == (1, 1)
    table = [line.split() for line in served.runtimectl("concurrency").stdout.splitlines()]
    assert table[0] == ["FUNCTION", "RESERVED", "PROVISIONED"]
    assert [made, "1", "1"] in table
    served.runtimectl("provision", "delete", made)
    done = served.runtimectl("concurrency", made, "--reserve", "0")
    assert done.stdout == f"{made}: 0 reserved; it is stopped\n"
    assert code(lambda: invoke(caller)) == "TooManyRequestsException"
    assert caller.get_function_concurrency(FunctionName=made)["ReservedConcurrentExecutions"] == 0
    caller.delete_function_concurrency(FunctionName=made)
    assert "ReservedConcurrentExecutions" not in caller.get_function_concurrency(FunctionName=made)
    assert invoke(caller)["type"] == "on-demand"


def test_snap_start_is_refused_where_concurrency_is_provisioned(caller: Any, made: str, served: Served) -> None:
    """And the other way round below; over each way in. Turning it off is nothing to refuse."""
    provision(caller, 1)
    call = caller.update_function_configuration
    on, off = {"ApplyOn": "PublishedVersions"}, {"ApplyOn": "None"}
    assert code(lambda: call(FunctionName=made, SnapStart=on)) == "InvalidParameterValueException"
    with Client(served.address) as client, pytest.raises(errors.InvalidParameterValue, match="provisioned"):
        client.update_function_configuration(made, snap_start=SnapStart(apply_on=SnapStartApplyOn.PUBLISHED_VERSIONS))
    assert caller.get_function_configuration(FunctionName=made)["SnapStart"]["ApplyOn"] == "None"
    call(FunctionName=made, SnapStart=off, Description="it is off")
    caller.get_waiter("function_updated_v2").wait(FunctionName=made, WaiterConfig={"Delay": 1})
    caller.delete_provisioned_concurrency_config(FunctionName=made, Qualifier="$LATEST")
    assert served.runtimectl("provision", "target", made, "--min", "0", "--max", "2").returncode == 0
    assert code(lambda: call(FunctionName=made, SnapStart=on)) == "InvalidParameterValueException"
    with Client(served.address) as client:
        client.scaling.deregister(made)
    call(FunctionName=made, SnapStart=on)
    caller.get_waiter("function_updated_v2").wait(FunctionName=made, WaiterConfig={"Delay": 1})


def test_what_is_too_much(caller: Any, made: str, served: Served) -> None:
    refused = "InvalidParameterValueException"
    assert code(lambda: caller.put_function_concurrency(FunctionName=made, ReservedConcurrentExecutions=901)) == refused
    assert code(lambda: provision(caller, 901)) == refused
    caller.put_function_concurrency(FunctionName=made, ReservedConcurrentExecutions=5)
    assert code(lambda: provision(caller, 6)) == refused
    caller.update_function_configuration(FunctionName=made, SnapStart={"ApplyOn": "PublishedVersions"})
    caller.get_waiter("function_updated_v2").wait(FunctionName=made, WaiterConfig={"Delay": 1})
    assert code(lambda: provision(caller, 1)) == refused
    done = served.runtimectl("provision", "put", made, "1")
    assert done.returncode == 4 and "SnapStart" in done.stderr
    done = served.runtimectl("provision", "target", made, "--min", "1", "--max", "2")
    assert done.returncode == 4 and "SnapStart" in done.stderr
    missing = "ResourceNotFoundException"
    assert code(lambda: caller.put_function_concurrency(FunctionName="no", ReservedConcurrentExecutions=1)) == missing
    call = caller.put_provisioned_concurrency_config
    assert code(lambda: call(FunctionName=made, Qualifier="7", ProvisionedConcurrentExecutions=1)) == missing
