"""Published versions and aliases through AWS's own SDK, on a real node: what runs under which name, and what callers
see while names are moved, processes die, and versions go."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest

from bench.node import await_true
from runtimed.client import Client
from runtimed.model.key import CreatedKey
from tests.conformance.conftest import Served, boto
from tests.integration.zips import Member, build

NAME = "versioned"
SOURCE = b"""
import os

def handler(event, context):
    return {
        "code": "%s",
        "version": context.function_version,
        "variable": os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
        "arn": context.invoked_function_arn,
        "stream": context.log_stream_name,
    }
"""
SECONDS = 60.0
CALLS = 400
MOVES = 12


def package(code: str) -> bytes:
    return build(Member(name=b"app.py", content=SOURCE.replace(b"%s", code.encode())))


@pytest.fixture
def made(caller: Any) -> Iterator[dict[str, Any]]:
    """With one published version, of the code `one`."""
    yield caller.create_function(
        FunctionName=NAME, Runtime="python3.11", Role="arn:aws:iam::000000000000:role/any", Handler="app.handler",
        Code={"ZipFile": package("one")}, Timeout=30, Publish=True,
    )  # fmt: skip
    caller.delete_function(FunctionName=NAME)


def updated(caller: Any, code: str, **more: Any) -> dict[str, Any]:
    caller.get_waiter("function_updated_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    found: dict[str, Any] = caller.update_function_code(FunctionName=NAME, ZipFile=package(code), **more)
    caller.get_waiter("function_updated_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    return found


@pytest.fixture
def two(caller: Any, made: dict[str, Any]) -> str:
    """Versions 1 and 2, of the codes `one` and `two`."""
    caller.get_waiter("function_active_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    updated(caller, "two", Publish=True)
    for version in "12":
        caller.get_waiter("published_version_active").wait(
            FunctionName=NAME, Qualifier=version, WaiterConfig={"Delay": 1}
        )
    return NAME


def called(caller: Any, qualifier: str = "", name: str = NAME) -> tuple[dict[str, Any], str]:
    """What the function said, and the version that ran it."""
    answer = caller.invoke(FunctionName=name, **({"Qualifier": qualifier} if qualifier else {}))
    return json.load(answer["Payload"]), answer["ExecutedVersion"]


def weights(**shares: float) -> dict[str, Any]:
    return {"AdditionalVersionWeights": {name.removeprefix("v"): share for name, share in shares.items()}}


def test_a_version_is_what_was_published(caller: Any, made: dict[str, Any]) -> None:
    assert made["Version"] == "1" and made["FunctionArn"].endswith(f":{NAME}:1")
    caller.get_waiter("published_version_active").wait(FunctionName=NAME, Qualifier="1", WaiterConfig={"Delay": 1})
    caller.get_waiter("function_active_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    same = caller.publish_version(FunctionName=NAME, CodeSha256=made["CodeSha256"], Description="not taken")
    assert (same["Version"], same["ResponseMetadata"]["HTTPStatusCode"]) == ("1", 201)
    updated(caller, "two")
    second = caller.publish_version(FunctionName=NAME, Description="the second")
    assert (second["Version"], second["State"], second["Description"]) == ("2", "Active", "the second")
    updated(caller, "three")
    said, executed = called(caller, "1")
    assert executed == said["version"] == said["variable"] == "1"
    assert said["code"] == "one" and said["arn"].endswith(f":{NAME}:1") and "[1]" in said["stream"]
    assert called(caller, name=f"{NAME}:2")[0]["code"] == "two"
    assert called(caller, name=second["FunctionArn"])[1] == "2"
    said, executed = called(caller)
    assert (said["code"], executed, said["version"]) == ("three", "$LATEST", "$LATEST")
    for qualifier in ("1", "2", "$LATEST"):
        found = caller.get_function_configuration(FunctionName=NAME, Qualifier=qualifier)
        assert (found["Version"], found["FunctionArn"].rpartition(":")[2]) == (qualifier, qualifier)
    first = caller.list_versions_by_function(FunctionName=NAME, MaxItems=2)
    rest = caller.list_versions_by_function(FunctionName=NAME, Marker=first["NextMarker"])
    listed = [one["Version"] for one in first["Versions"] + rest["Versions"]]
    assert listed == ["$LATEST", "1", "2"] and "NextMarker" not in rest
    every = [
        one["Version"]
        for page in caller.get_paginator("list_functions").paginate(FunctionVersion="ALL")
        for one in page["Functions"]
        if one["FunctionName"] == NAME
    ]
    assert every == ["$LATEST", "1", "2"]
    assert [one["Version"] for one in caller.list_functions()["Functions"] if one["FunctionName"] == NAME] == [
        "$LATEST"
    ]


def test_a_version_goes(caller: Any, two: str) -> None:
    caller.create_alias(FunctionName=NAME, Name="prod", FunctionVersion="2")
    with pytest.raises(caller.exceptions.ResourceConflictException, match="prod"):
        caller.delete_function(FunctionName=NAME, Qualifier="2")
    with pytest.raises(caller.exceptions.InvalidParameterValueException, match="DeleteAlias"):
        caller.delete_function(FunctionName=NAME, Qualifier="prod")
    with pytest.raises(caller.exceptions.InvalidParameterValueException, match="LATEST"):
        caller.delete_function(FunctionName=f"{NAME}:$LATEST")
    assert caller.delete_function(FunctionName=NAME, Qualifier="1")["ResponseMetadata"]["HTTPStatusCode"] == 204
    for call in (caller.get_function, caller.invoke, caller.delete_function):
        with pytest.raises(caller.exceptions.ResourceNotFoundException, match=f"{NAME}:1"):
            call(FunctionName=NAME, Qualifier="1")
    caller.delete_alias(FunctionName=NAME, Name="prod")
    caller.delete_function(FunctionName=NAME, Qualifier="2")
    assert caller.publish_version(FunctionName=NAME)["Version"] == "3", "no number comes back"
    assert called(caller, "3")[0]["code"] == "two"


def test_what_cannot_be_published(caller: Any, made: dict[str, Any]) -> None:
    caller.get_waiter("function_active_v2").wait(FunctionName=NAME, WaiterConfig={"Delay": 1})
    with pytest.raises(caller.exceptions.PreconditionFailedException):
        caller.publish_version(FunctionName=NAME, RevisionId="00000000-0000-0000-0000-000000000000")
    with pytest.raises(caller.exceptions.InvalidParameterValueException, match="CodeSha256"):
        caller.publish_version(FunctionName=NAME, CodeSha256="A" * 43 + "=")
    with pytest.raises(caller.exceptions.ResourceNotFoundException):
        caller.publish_version(FunctionName="none")
    with pytest.raises(caller.exceptions.ResourceNotFoundException):
        caller.list_versions_by_function(FunctionName="none")
    with pytest.raises(caller.exceptions.InvalidParameterValueException, match="versions do not change"):
        caller.update_function_code(FunctionName=f"{NAME}:1", ZipFile=package("x"))
    with pytest.raises(caller.exceptions.InvalidParameterValueException, match="Marker"):
        caller.list_versions_by_function(FunctionName=NAME, Marker="x")


def test_the_life_of_an_alias(caller: Any, two: str) -> None:
    made = caller.create_alias(FunctionName=NAME, Name="prod", FunctionVersion="1", Description="what runs")
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert made["AliasArn"].endswith(f":function:{NAME}:prod") and "RoutingConfig" not in made
    assert (made["Name"], made["FunctionVersion"], made["Description"]) == ("prod", "1", "what runs")
    said, executed = called(caller, "prod")
    assert (said["code"], said["version"], executed) == ("one", "1", "1") and said["arn"] == made["AliasArn"]
    assert called(caller, name=made["AliasArn"])[1] == "1"
    found = caller.get_function(FunctionName=NAME, Qualifier="prod")["Configuration"]
    assert (found["Version"], found["FunctionArn"]) == ("1", made["AliasArn"])
    moved = caller.update_alias(FunctionName=NAME, Name="prod", FunctionVersion="2", RevisionId=made["RevisionId"])
    assert moved["Description"] == "what runs" and moved["RevisionId"] != made["RevisionId"]
    assert called(caller, "prod")[0]["code"] == "two"
    with pytest.raises(caller.exceptions.PreconditionFailedException):
        caller.update_alias(FunctionName=NAME, Name="prod", FunctionVersion="1", RevisionId=made["RevisionId"])
    caller.create_alias(FunctionName=NAME, Name="live", FunctionVersion="$LATEST")
    updated(caller, "three")
    assert called(caller, "live")[0]["code"] == "three"
    first = caller.list_aliases(FunctionName=NAME, MaxItems=1)
    rest = caller.list_aliases(FunctionName=NAME, Marker=first["NextMarker"])
    assert [alias["Name"] for alias in first["Aliases"] + rest["Aliases"]] == ["live", "prod"]
    listed = caller.list_aliases(FunctionName=NAME, FunctionVersion="2")["Aliases"]
    assert listed == [
        {key: value for key, value in caller.get_alias(FunctionName=NAME, Name="prod").items() if key[:8] != "Response"}
    ]
    assert caller.delete_alias(FunctionName=NAME, Name="prod")["ResponseMetadata"]["HTTPStatusCode"] == 204
    caller.delete_alias(FunctionName=NAME, Name="prod")
    with pytest.raises(caller.exceptions.ResourceNotFoundException, match="prod"):
        caller.get_alias(FunctionName=NAME, Name="prod")
    with pytest.raises(caller.exceptions.ResourceNotFoundException, match="prod"):
        caller.invoke(FunctionName=NAME, Qualifier="prod")


def test_what_an_alias_cannot_be(caller: Any, two: str) -> None:
    errors = caller.exceptions
    caller.create_alias(FunctionName=NAME, Name="taken", FunctionVersion="1")
    with pytest.raises(errors.ResourceConflictException, match="already exists"):
        caller.create_alias(FunctionName=NAME, Name="taken", FunctionVersion="1")
    for version in ("3", "9" * 30):
        with pytest.raises(errors.ResourceNotFoundException, match=f"{NAME}:{version}"):
            caller.create_alias(FunctionName=NAME, Name="prod", FunctionVersion=version)
    with pytest.raises(errors.ResourceNotFoundException):
        caller.create_alias(FunctionName="none", Name="prod", FunctionVersion="1")
    for name, version, routing in (
        ("12", "1", {}),
        ("$LATEST", "1", {}),
        ("with space", "1", {}),
        ("prod", "other", {}),
        ("prod", "$LATEST", weights(v1=0.5)),
        ("prod", "1", weights(v1=0.5)),
        ("prod", "1", weights(v2=1.5)),
        ("prod", "1", weights(v2=0.5, v3=0.5)),
        ("prod", "1", weights(vx=0.5)),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            caller.create_alias(FunctionName=NAME, Name=name, FunctionVersion=version, RoutingConfig=routing)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(errors.ResourceNotFoundException, match=f"{NAME}:7"):
        caller.create_alias(FunctionName=NAME, Name="prod", FunctionVersion="1", RoutingConfig=weights(v7=0.5))
    with pytest.raises(errors.ResourceNotFoundException, match="prod"):
        caller.update_alias(FunctionName=NAME, Name="prod", FunctionVersion="1")


def test_weights_split_the_invocations(caller: Any, two: str) -> None:
    """Half and half: with 400 calls, a share outside of these bounds comes once in 10^22."""
    made = caller.create_alias(FunctionName=NAME, Name="prod", FunctionVersion="1", RoutingConfig=weights(v2=0.5))
    assert made["RoutingConfig"] == weights(v2=0.5)
    codes: Counter[str] = Counter()
    for _ in range(CALLS):
        said, executed = called(caller, "prod")
        assert (said["code"], said["arn"]) == ({"1": "one", "2": "two"}[executed], made["AliasArn"])
        codes[executed] += 1
    assert CALLS / 4 < codes["2"] < CALLS * 3 / 4, codes
    caller.update_alias(FunctionName=NAME, Name="prod", RoutingConfig=weights(v2=1.0))
    assert {called(caller, "prod")[1] for _ in range(50)} == {"2"}
    caller.update_alias(FunctionName=NAME, Name="prod", RoutingConfig=weights(v2=0.0))
    assert {called(caller, "prod")[1] for _ in range(50)} == {"1"}
    shown = caller.update_alias(FunctionName=NAME, Name="prod", RoutingConfig={})
    assert "RoutingConfig" not in shown


class Crowd:
    """Callers of an alias, until the block ends: what each was answered by, and what went wrong."""

    def __init__(self, key: CreatedKey, callers: int) -> None:
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(key,)) for _ in range(callers)]

    def _call(self, key: CreatedKey) -> None:
        with contextlib.closing(boto(key)) as caller:
            while not self._ended.is_set():
                try:
                    said, executed = called(caller, "prod")
                    if said["version"] != executed:
                        self.wrong.append(f"{said} by {executed}")
                except Exception as error:
                    self.wrong.append(repr(error))
                else:
                    self.answers[executed] += 1

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_an_alias_moves_under_load(caller: Any, key: CreatedKey, two: str) -> None:
    """No call is lost, and whoever calls after the answer meets the new version."""
    caller.create_alias(FunctionName=NAME, Name="prod", FunctionVersion="1")
    with Crowd(key, 3) as crowd:
        for n in range(MOVES):
            version = str(2 - n % 2)
            caller.update_alias(FunctionName=NAME, Name="prod", FunctionVersion=version)
            before = crowd.answers[version]
            assert called(caller, "prod")[1] == version
            await_true(lambda v=version, n=before: crowd.answers[v] > n, SECONDS, f"answers of version {version}")
    assert not crowd.wrong, crowd.wrong[:3]


def test_an_alias_of_latest_is_called_while_it_is_updated(caller: Any, key: CreatedKey, two: str) -> None:
    caller.create_alias(FunctionName=NAME, Name="prod", FunctionVersion="$LATEST")
    with Crowd(key, 2) as crowd:
        for n in range(3):
            updated(caller, f"code {n}")
            assert called(caller, "prod")[0]["code"] == f"code {n}"
    assert not crowd.wrong, crowd.wrong[:3]


def test_all_is_there_after_processes_died(caller: Any, served: Served, two: str) -> None:
    caller.create_alias(FunctionName=NAME, Name="prod", FunctionVersion="1")
    for role in ("control", "dispatch"):
        former = served.roles()[role]
        os.kill(former, signal.SIGKILL)
        await_true(lambda r=role, f=former: served.roles().get(r) not in (None, f), SECONDS, f"another {role}")
        await_true(served.answers, SECONDS, "the control plane")
        with Client(served.address) as client:
            await_true(lambda: client.status().ready, SECONDS, "the dispatcher, told everything")
        await_true(lambda: _answered(caller, "prod", "1"), SECONDS, "the alias")
        assert (called(caller, "2")[1], called(caller)[1]) == ("2", "$LATEST")
    caller.update_alias(FunctionName=NAME, Name="prod", FunctionVersion="2")
    assert called(caller, "prod")[1] == "2", "newer than what was told before the restart"


def _answered(caller: Any, qualifier: str, version: str) -> bool:
    try:
        return called(caller, qualifier)[1] == version
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
        return False
