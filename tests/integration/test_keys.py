"""Keys on a real node: boto3 and bearer tokens over TCP, through restarts, and to their end."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import pytest

from bench import calls
from bench.node import Node, await_true, free_address
from runtimed.client import Client
from runtimed.model import errors, quotas
from runtimed.model.key import CreatedKey
from tests.conftest import need_root

SOURCE = """
def handler(event, context):
    if event == "fail":
        raise ValueError("as asked")
    print("got", type(event).__name__)
    custom = context.client_context.custom if context.client_context else None
    return {"event": event, "custom": custom, "id": context.aws_request_id}
"""


class Served(Node):
    """Listens on TCP."""

    invoke = api = ""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    need_root()
    Served.invoke, Served.api = free_address(), free_address()
    with Served.start({"RUNTIMED_INVOKE_LISTEN": Served.invoke, "RUNTIMED_API_LISTEN": Served.api}) as node:
        assert isinstance(node, Served)
        with Client(node.address) as client:
            calls.deploy(client, "f", SOURCE, quotas.VCPU_MEMORY_MB)
        yield node


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address) as made:
        yield made


@pytest.fixture
def key(client: Client) -> Iterator[CreatedKey]:
    made = client.create_key("test")
    yield made
    if made.key.key_id in {key.key_id for key in client.list_keys()}:
        client.revoke_key(made.key.key_id)


def boto(served: Served, key: CreatedKey, secret: str = "") -> Any:
    return boto3.client(
        "lambda", endpoint_url=key.endpoint, region_name=key.region, aws_access_key_id=key.key.key_id,
        aws_secret_access_key=secret or key.secret,
        config=botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=120),
    )  # fmt: skip


def refusal(caller: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        caller.invoke(FunctionName="f", Payload=b"1")
    return str(caught.value.response["Error"]["Code"])


def bearer(served: Served, token: str, body: bytes = b'"x"') -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://{served.invoke}/2015-03-31/functions/f/invocations", body, {"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_boto3_invokes_as_it_always_does(served: Served, key: CreatedKey) -> None:
    assert key.endpoint == f"http://{served.invoke}"
    caller = boto(served, key)
    context = base64.b64encode(b'{"custom": {"who": "me"}}').decode()
    answer = caller.invoke(FunctionName="f", Payload=b'{"a": [1]}', LogType="Tail", ClientContext=context)
    assert (answer["StatusCode"], answer["ExecutedVersion"], "FunctionError" in answer) == (200, "$LATEST", False)
    told = json.load(answer["Payload"])
    assert (told["event"], told["custom"]) == ({"a": [1]}, {"who": "me"})
    assert told["id"] == answer["ResponseMetadata"]["RequestId"]
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert "got dict\n" in tail
    assert f"REPORT RequestId: {told['id']}" in tail

    answer = caller.invoke(FunctionName="f", Payload=b'"fail"')
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert json.load(answer["Payload"])["errorType"] == "ValueError"
    with pytest.raises(caller.exceptions.ResourceNotFoundException):
        caller.invoke(FunctionName="nothing", Payload=b"1")
    with pytest.raises(caller.exceptions.InvalidRequestContentException):
        caller.invoke(FunctionName="f", Payload=b"{")
    caller.close()


def test_payloads_of_six_megabytes(served: Served, key: CreatedKey) -> None:
    caller = boto(served, key)
    text = "x" * (quotas.PAYLOAD_BYTES - 200)
    answer = caller.invoke(FunctionName="f", Payload=io.BytesIO(json.dumps(text).encode()))
    assert json.load(answer["Payload"])["event"] == text
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        caller.invoke(FunctionName="f", Payload=b'"' + b"x" * quotas.PAYLOAD_BYTES + b'"')
    assert caught.value.response["Error"]["Code"] in (
        "413",
        "RequestTooLargeException",
        "RequestEntityTooLargeException",
    )
    caller.close()


def test_keys_end(served: Served, client: Client, key: CreatedKey) -> None:
    other = client.create_key()
    good = boto(served, key)
    assert bearer(served, key.token)[0] == 200
    assert refusal(boto(served, key, other.secret)) == "InvalidSignatureException"
    assert bearer(served, f"{key.key.key_id}.{other.secret}")[0] == 403
    assert good.invoke(FunctionName="f", Payload=b"1")["StatusCode"] == 200
    client.revoke_key(key.key.key_id)
    assert refusal(good) == "UnrecognizedClientException"
    assert bearer(served, key.token)[0] == 403
    assert bearer(served, other.token)[0] == 200
    client.revoke_key(other.key.key_id)


def test_tokens_open_the_api(served: Served, client: Client, key: CreatedKey) -> None:
    with Client(served.api, key=key.token) as far:
        assert far.status().ready
        client.revoke_key(key.key.key_id)
        with pytest.raises(errors.Unauthenticated, match="keys create"):
            far.status()


def test_keys_survive_restarts_of_each_process(served: Served, client: Client, key: CreatedKey) -> None:
    ended = client.create_key()
    caller = boto(served, key)
    pid = served.roles()["control"]
    os.kill(pid, signal.SIGSTOP)  # gone, and not back yet
    try:
        for _ in range(3):
            assert caller.invoke(FunctionName="f", Payload=b"1")["StatusCode"] == 200
            assert bearer(served, key.token)[0] == 200
    finally:
        os.kill(pid, signal.SIGKILL)
    assert caller.invoke(FunctionName="f", Payload=b"1")["StatusCode"] == 200
    await_true(lambda: served.roles().get("control", pid) != pid and served.answers(), 60, "the control plane's return")
    client.revoke_key(ended.key.key_id)
    assert {one.key_id for one in client.list_keys()} == {key.key.key_id}
    pid = served.roles()["dispatch"]
    os.kill(pid, signal.SIGKILL)
    await_true(
        lambda: served.roles().get("dispatch", pid) != pid and client.status().ready, 60, "the dispatcher's return"
    )
    assert bearer(served, ended.token)[0] == 403
    assert caller.invoke(FunctionName="f", Payload=b"1")["StatusCode"] == 200
    served.launcher.send_signal(signal.SIGTERM)
    served.start_again()
    await_true(lambda: client.status().ready, 60, "readiness")
    assert bearer(served, key.token)[0] == 200
    assert caller.invoke(FunctionName="f", Payload=b"1")["StatusCode"] == 200
    assert bearer(served, ended.token)[0] == 403
    caller.close()
