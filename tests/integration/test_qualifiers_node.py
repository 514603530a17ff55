"""Provisioned concurrency, scaling and rules of events by version and alias: a real node, AWS's SDK, the CLI."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.exceptions
import pytest

from bench.calls import zipped
from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.log import LogKind
from runtimed.model.queue import CancelEventsRequest, EventState, ListEventsRequest
from tests.conformance.conftest import boto, free_address
from tests.conftest import need_root
from tests.crash import census

SECONDS = 60.0
NAME = "many"
SOURCE = """
import os

def handler(event, context):
    if event.get("fail"):
        raise ValueError("as asked")
    if "n" in event:
        print("handled", event["n"], context.function_version)
    return {"version": context.function_version, "type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]}
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    need_root()
    settings = {"RUNTIMED_EVENTS_RETRY_DELAY_MS": "10", "RUNTIMED_INVOKE_LISTEN": free_address()}
    with Node.start(settings) as started:
        yield started


@pytest.fixture(scope="module")
def caller(node: Node) -> Iterator[Any]:
    with Client(node.address) as client:
        made = boto(client.create_key("qualifiers"))
    yield made
    made.close()


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    with Client(node.address) as made:
        yield made


@pytest.fixture
def versions(client: Client, caller: Any) -> Iterator[None]:
    """Two of a function, and the alias `live` of the first."""
    for number in ("1", "2"):
        client.deploy(NAME, zipped(f"{SOURCE}\nNUMBER = {number}\n"), runtime="python3.11", handler="app.handler")
        published = caller.publish_version(FunctionName=NAME)
        assert published["Version"] == number
        caller.get_waiter("published_version_active").wait(
            FunctionName=NAME, Qualifier=number, WaiterConfig={"Delay": 1}
        )
    caller.create_alias(FunctionName=NAME, Name="live", FunctionVersion="1")
    yield
    caller.delete_function(FunctionName=NAME)


def code(call: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def put(caller: Any, qualifier: str, count: int) -> dict[str, Any]:
    found: dict[str, Any] = caller.put_provisioned_concurrency_config(
        FunctionName=NAME, Qualifier=qualifier, ProvisionedConcurrentExecutions=count
    )
    return found


def status(caller: Any, qualifier: str) -> tuple[str, int]:
    found = caller.get_provisioned_concurrency_config(FunctionName=NAME, Qualifier=qualifier)
    return found["Status"], found["AvailableProvisionedConcurrentExecutions"]


def listed(caller: Any) -> dict[str, int]:
    found = caller.list_provisioned_concurrency_configs(FunctionName=NAME)["ProvisionedConcurrencyConfigs"]
    return {one["FunctionArn"].rpartition(":")[2]: one["RequestedProvisionedConcurrentExecutions"] for one in found}


def await_ready(caller: Any, **counts: int) -> None:
    """Under the qualifiers; `v1` stands for version 1."""
    wanted = {qualifier.removeprefix("v"): ("READY", count) for qualifier, count in counts.items()}

    def reached() -> bool:
        try:
            return {one: status(caller, one) for one in wanted} == wanted
        except botocore.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 503:
                return False  # the control plane has just begun
            raise

    await_true(reached, SECONDS, f"{wanted}")


def invoke(caller: Any, qualifier: str) -> dict[str, str]:
    answer = caller.invoke(FunctionName=NAME, Qualifier=qualifier, Payload=b"{}")
    found: dict[str, str] = json.load(answer["Payload"])
    assert "FunctionError" not in answer, found
    assert answer["ExecutedVersion"] == found["version"]
    return found


@contextmanager
def called(node: Node) -> Iterator[dict[str, int]]:
    """By alias, from several sides, without a pause; how often which version answered. No call may fail."""
    counts: dict[str, int] = {}
    failed: list[BaseException] = []
    over, lock = threading.Event(), threading.Lock()

    def call() -> None:
        with Client(node.address) as client:
            while not over.is_set():
                try:
                    version = client.invoke(NAME, {}, qualifier="live").value["version"]
                except BaseException as error:
                    failed.append(error)
                    return
                with lock:
                    counts[version] = counts.get(version, 0) + 1

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join()
        assert not failed, failed


def test_versions_and_an_alias_have_their_own(node: Node, caller: Any, versions: None) -> None:
    put(caller, "2", 1)
    assert put(caller, "live", 2)["Status"] == "IN_PROGRESS"
    await_ready(caller, v2=1, live=2)
    assert invoke(caller, "live") == {"version": "1", "type": "provisioned-concurrency"}
    assert invoke(caller, "2") == {"version": "2", "type": "provisioned-concurrency"}
    assert invoke(caller, "$LATEST") == {"version": "$LATEST", "type": "on-demand"}
    assert listed(caller) == {"2": 1, "live": 2}
    assert code(lambda: put(caller, "1", 1)) == "InvalidParameterValueException", "it has it as live"
    split = {"AdditionalVersionWeights": {"2": 0.5}}
    move = caller.update_alias
    assert code(lambda: move(FunctionName=NAME, Name="live", RoutingConfig=split)) == "InvalidParameterValueException"
    assert code(lambda: move(FunctionName=NAME, Name="live", FunctionVersion="2")) == "InvalidParameterValueException"
    caller.delete_provisioned_concurrency_config(FunctionName=NAME, Qualifier="2")
    assert code(lambda: status(caller, "2")) == "ProvisionedConcurrencyConfigNotFoundException"
    assert code(lambda: status(caller, "3")) == "ResourceNotFoundException"
    caller.create_alias(FunctionName=NAME, Name="split", FunctionVersion="1", RoutingConfig=split)
    assert code(lambda: put(caller, "split", 1)) == "InvalidParameterValueException"

    with called(node) as counts:
        await_true(lambda: counts.get("1", 0) > 20, SECONDS, "calls by alias")
        move(FunctionName=NAME, Name="live", FunctionVersion="2")
        await_true(lambda: counts.get("2", 0) > 20, SECONDS, "calls of the other version")
        await_ready(caller, live=2)
    os.kill(census.by_kind(node)["control"][0], signal.SIGKILL)
    await_true(node.answers, SECONDS, "the next control plane")
    await_ready(caller, live=2)
    assert invoke(caller, "live") == {"version": "2", "type": "provisioned-concurrency"}
    shown = node.runtimectl("provision", "get", f"{NAME}:live", "--json")
    (found,) = json.loads(shown.stdout)["ProvisionedConcurrencyConfigs"]
    assert (found["Qualifier"], found["Config"]["Status"]) == ("live", "READY")
    caller.delete_alias(FunctionName=NAME, Name="live")
    assert listed(caller) == {}


def test_scaling_by_alias(node: Node, client: Client, caller: Any, versions: None) -> None:
    scaled = node.runtimectl("provision", "target", f"{NAME}:live", "--min", "1", "--max", "3", "--json")
    assert scaled.returncode == 0, scaled.stderr
    (target,) = json.loads(scaled.stdout)["ScalableTargets"]
    assert (target["Qualifier"], target["Capacity"]) == ("live", 1)
    client.scaling.register(NAME, 2, 2, "2")
    await_ready(caller, v2=2, live=1)
    client.scaling.schedule(NAME, "later", "at(2090-01-01T00:00:00)", "live", minimum=2)
    assert [one.scheduled_action_name for one in client.scaling.actions(NAME, "live")] == ["later"]
    assert client.scaling.actions(NAME, "2") == []
    assert {one.qualifier for one in client.scaling.targets(NAME)} == {"live", "2"}
    caller.delete_alias(FunctionName=NAME, Name="live")
    assert {one.qualifier for one in client.scaling.targets(NAME)} == {"2"}
    missing = node.runtimectl("provision", "target", f"{NAME}:live", "--min", "1", "--max", "3")
    assert missing.returncode == 4 and f"{NAME}:live" in missing.stderr


def attempts(client: Client, caller: Any, qualifier: str) -> int:
    """That an event had, sent so, when it was given up."""
    answer = caller.invoke(FunctionName=NAME, Qualifier=qualifier, InvocationType="Event", Payload=b'{"fail":true}')
    dead = ListEventsRequest(event_id=answer["ResponseMetadata"]["RequestId"], state=EventState.DEAD)
    await_true(lambda: bool(client.list_events(dead).events), SECONDS, "the event to be given up")
    count = client.list_events(dead).events[0].approximate_invoke_count
    client.cancel_events(CancelEventsRequest(event_id=dead.event_id))
    return count


def test_events_follow_their_qualifiers_rule(node: Node, client: Client, caller: Any, versions: None) -> None:
    configure = caller.put_function_event_invoke_config
    made = configure(FunctionName=NAME, Qualifier="live", MaximumRetryAttempts=0)
    assert made["FunctionArn"].endswith(f":{NAME}:live")
    told = node.runtimectl("queue", "configure", f"{NAME}:2", "--retries", "1", "--json")
    assert json.loads(told.stdout)["MaximumRetryAttempts"] == 1, told.stderr
    assert attempts(client, caller, "live") == 1
    assert attempts(client, caller, "2") == 2
    assert attempts(client, caller, "1") == 3, "the alias' rule is not its version's"
    assert attempts(client, caller, "$LATEST") == 3
    first = caller.list_function_event_invoke_configs(FunctionName=NAME, MaxItems=1)
    second = caller.list_function_event_invoke_configs(FunctionName=NAME, Marker=first["NextMarker"])
    arns = [one["FunctionArn"] for page in (first, second) for one in page["FunctionEventInvokeConfigs"]]
    assert [arn.rpartition(":")[2] for arn in arns] == ["2", "live"] and not second.get("NextMarker")
    missing = "ResourceNotFoundException"
    assert code(lambda: configure(FunctionName=NAME, Qualifier="nobody", MaximumRetryAttempts=0)) == missing
    update = caller.update_function_event_invoke_config
    assert code(lambda: update(FunctionName=NAME, Qualifier="1", MaximumRetryAttempts=0)) == missing
    assert update(FunctionName=NAME, Qualifier="live", MaximumEventAgeInSeconds=60)["MaximumRetryAttempts"] == 0

    # An alias is looked up when the event is taken.
    client.pause_queue(NAME)
    caller.invoke(FunctionName=NAME, Qualifier="live", InvocationType="Event", Payload=b'{"n":"late"}')
    caller.update_alias(FunctionName=NAME, Name="live", FunctionVersion="2")
    client.resume_queue(NAME)

    def handled() -> bool:
        lines = [event.message.strip() for event in client.logs(NAME) if event.kind is LogKind.FUNCTION]
        return "handled late 2" in lines

    await_true(handled, SECONDS, "the event to be handled by the version that the alias names now")
    caller.delete_alias(FunctionName=NAME, Name="live")
    caller.create_alias(FunctionName=NAME, Name="live", FunctionVersion="1")
    get = caller.get_function_event_invoke_config
    assert code(lambda: get(FunctionName=NAME, Qualifier="live")) == missing, "another alias of the same name"
    assert attempts(client, caller, "live") == 3
    caller.delete_function_event_invoke_config(FunctionName=NAME, Qualifier="2")
    assert attempts(client, caller, "2") == 3
