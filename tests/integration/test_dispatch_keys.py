"""Callers over TCP: bearer tokens and signatures, boto3 among them, against the real dispatcher."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import (
    PATIENCE,
    ROUTE,
    Control,
    Environment,
    Stage,
    await_true,
    counters,
    staged,
    target,
)
from tests.integration.http_caller import Caller
from tests.native.test_signatures import derived

KEY_ID, SECRET, TOKEN = "RTEXAMPLEKEY00000001", "secret", "token-of-a-key"
DRY = "X-Amz-Invocation-Type: DryRun"


def principal(
    *, key_id: str = KEY_ID, token: str = TOKEN, secret: str = SECRET, days: tuple[int, ...] = (-1, 0, 1)
) -> wire.PutPrincipal:
    today = dt.datetime.now(dt.UTC)
    dates = [(today + dt.timedelta(days=day)).strftime("%Y%m%d") for day in days]
    signing = b"".join(date.encode() + derived(secret, date, "us-east-1", "lambda") for date in dates)
    return wire.PutPrincipal(key_id=key_id, token=hashlib.sha256(token.encode()).digest(), signing=signing)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Control:
    control = stage.control()
    control.greet()
    control.synchronise((1, target()), (1, ROUTE), (5, principal()))
    return control


@pytest.fixture
def environment(stage: Stage, control: Control) -> Environment:
    """Warm, with one invocation behind it."""
    return stage.warm(stage.invoker())


def status(stage: Stage, *fields: str) -> tuple[int, str]:
    with Caller(stage, tcp=True) as caller:
        caller.post(b"{}", DRY, *fields)
        answer = caller.answer()
        return (answer.status, "") if answer.status == 204 else answer.error


def test_bearer_tokens(stage: Stage, control: Control) -> None:
    assert status(stage, f"Authorization: Bearer {TOKEN}") == (204, "")
    assert status(stage, f"Authorization: bearer {TOKEN}") == (204, "")
    for wrong in ("Bearer", "Bearer x", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"):
        assert status(stage, f"Authorization: {wrong}")[0] == 403
    assert status(stage) == (403, "MissingAuthenticationTokenException")
    assert status(stage, f"Authorization: Basic {TOKEN}") == (403, "MissingAuthenticationTokenException")
    assert counters(control).node()["http_denied"] == 6


def test_keys_come_and_go(stage: Stage, control: Control) -> None:
    bearer = f"Authorization: Bearer {TOKEN}"
    control.acknowledged(control.put(wire.DelPrincipal(), 5))
    assert status(stage, bearer) == (403, "UnrecognizedClientException")
    control.acknowledged(control.put(principal(), 6))
    assert status(stage, bearer) == (204, "")
    control.acknowledged(control.put(principal(token="another"), 6, generation=2))
    assert status(stage, bearer) == (403, "UnrecognizedClientException")
    assert status(stage, "Authorization: Bearer another") == (204, "")
    control.synchronise((1, target()), (1, ROUTE), generation=3)
    assert status(stage, "Authorization: Bearer another") == (403, "UnrecognizedClientException")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (wire.PutPrincipal(token=bytes(32)), "key_id"),
        (wire.PutPrincipal(key_id="K", token=bytes(31)), "token"),
        (wire.PutPrincipal(key_id="K", token=bytes(32), signing=bytes(41)), "signing"),
    ],
)
def test_malformed_principals_are_refused(control: Control, message: wire.PutPrincipal, field: str) -> None:
    control.put(message, 9)
    while not isinstance(answer := control.next()[1], wire.Nack):
        pass
    assert answer.field == field


# ---- signatures --------------------------------------------------------------------------------------------------


def client(stage: Stage, key_id: str = KEY_ID, secret: str = SECRET, region: str = "us-east-1") -> Any:
    return boto3.client(
        "lambda", endpoint_url=f"http://127.0.0.1:{stage.port}", region_name=region, aws_access_key_id=key_id,
        aws_secret_access_key=secret, config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def code(stage: Stage, **changes: Any) -> str:
    caller = client(stage, **changes)
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        caller.invoke(FunctionName="f", InvocationType="DryRun")
    caller.close()
    return str(caught.value.response["Error"]["Code"])


def test_boto3_signs_as_it_always_does(stage: Stage, environment: Environment) -> None:
    caller = client(stage)
    for name in ("f", "f:$LATEST", "arn:aws:lambda:us-east-1:000000000000:function:f"):
        assert caller.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204
    with pytest.raises(caller.exceptions.ResourceNotFoundException, match="Function not found: none"):
        caller.invoke(FunctionName="none")
    with pytest.raises(caller.exceptions.InvalidRequestContentException):
        caller.invoke(FunctionName="f", Payload=b"{")
    caller.close()


def test_signatures_that_do_not_fit(stage: Stage, control: Control) -> None:
    assert code(stage, secret="other") == "InvalidSignatureException"
    assert code(stage, region="eu-west-1") == "InvalidSignatureException"
    assert code(stage, key_id="RTEXAMPLEKEY00000002") == "UnrecognizedClientException"
    control.acknowledged(control.put(principal(days=(-2, -1)), 5, generation=2))
    assert code(stage) == "InvalidSignatureException"


def test_a_body_that_was_changed_reaches_no_function(stage: Stage, environment: Environment) -> None:
    """What boto3 signed, sent with another body of the same length."""
    sent: list[Any] = []
    caller = client(stage)
    caller.meta.events.register("before-send.lambda.Invoke", lambda request, **_: sent.append(request))
    caller.meta.events.register("before-send.lambda.Invoke", refuse)
    with pytest.raises(ConnectionRefusedError):
        caller.invoke(FunctionName="f", Payload=b'{"amount": 1}')
    fields = [f"{name}: {text(value)}" for name, value in sent[0].headers.items() if name != "Content-Length"]
    for body, expected in ((b'{"amount": 9}', 403), (b'{"amount": 1}', 200)):
        with Caller(stage, tcp=True) as raw:
            head = f"POST {sent[0].url.partition(str(stage.port))[2]} HTTP/1.1\r\nHost: 127.0.0.1:{stage.port}\r\n"
            raw.send(head + "".join(f"{field}\r\n" for field in fields) + f"Content-Length: {len(body)}\r\n\r\n")
            raw.send(body)
            if expected == 200:
                environment.serve(b"1")
            assert raw.answer().status == expected
    caller.close()


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def refuse(**_: Any) -> None:
    raise ConnectionRefusedError


def test_bodies_that_prove_nothing_are_bounded(stage: Stage, control: Control) -> None:
    """Claims of a known key id with large bodies that never come: the node keeps memory for others."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    claim = (
        f"Authorization: AWS4-HMAC-SHA256 Credential={KEY_ID}/{stamp[:8]}/us-east-1/lambda/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
    )
    head = "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: h\r\n"
    head += f"X-Amz-Date: {stamp}\r\n{claim}\r\nContent-Length: {6 << 20}\r\n\r\n"
    with contextlib.ExitStack() as open_ones:
        callers = [open_ones.enter_context(Caller(stage, tcp=True)) for _ in range(30)]
        for caller in callers:
            caller.send(head)
        refused, _, _ = select.select([caller.sock for caller in callers], [], [], PATIENCE)
        assert 0 < len(refused) < 30
        for caller in callers:
            if caller.sock in refused:
                assert caller.answer().error == (503, "ServiceException")
        assert status(stage, f"Authorization: Bearer {TOKEN}") == (204, "")
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "the budget is given back")
