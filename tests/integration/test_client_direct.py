"""The SDK's short way to the dispatcher beside the long one through the control plane: the same for its users."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.node import Node
from runtimed.client import ApiError, AsyncClient, Client, ClientError, Unreachable
from runtimed.client import direct as direct_
from runtimed.client.address import Address
from runtimed.model import errors
from tests.integration.conftest import KEY, Gateway
from tests.integration.stub import package

CODE = b"""
import time
def handler(event, context):
    if event == "raise":
        raise LookupError("not there")
    if event == "exit":
        raise SystemExit(3)
    if event == "slow":
        time.sleep(20)
    print("seen", event)
    return [event, context.client_context and context.client_context.custom]
"""
LARGE = "a" * ((6 << 20) - 2)

CALLS: dict[str, dict[str, Any]] = {
    "value": {"event": {"ü": [1, None]}},
    "empty": {},
    "context": {"event": 1, "client_context": {"custom": {"a": "b"}}},
    "tail": {"event": 1, "log_tail": True},
    "dry": {"event": 1, "dry_run": True},
    "raise": {"event": "raise"},
    "exit": {"event": "exit"},
    "latest": {"event": 1, "qualifier": "$LATEST"},
    "no version": {"event": 1, "qualifier": "9"},
    "no function": {"name": "missing", "event": 1},
    "other region": {"name": "arn:aws:lambda:eu-west-1:000000000000:function:missing", "event": 1},
    "no name": {"name": "no name", "event": 1},
    "two qualifiers": {"name": "direct:1", "qualifier": "2", "event": 1},
    "not JSON": {"payload": b"{"},
    "too large": {"payload": b'"' + b"a" * (6 << 20) + b'"'},
    "late": {"event": "slow", "timeout": 0.5},
    "large": {"event": LARGE},
}


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        result = call()
    except (ApiError, ClientError) as error:
        sentence = re.sub(r"unix:\S+", "ADDRESS", str(error))
        return type(error), getattr(error, "code", ""), getattr(error, "reason", ""), sentence
    response = result.response
    failure = result.error()
    return (
        response.status_code, response.executed_version, response.function_error, bool(response.log_result),
        type(failure), getattr(failure, "error_type", ""),
        response.payload if failure is None else b"",
    )  # fmt: skip


@pytest.fixture(scope="module")
def short(shared_node: Node) -> Iterator[Client]:
    with Client(shared_node.address) as client:
        client.deploy("direct", package(CODE), timeout=30)
        yield client
        client.delete_function("direct")


@pytest.fixture(scope="module")
def long(shared_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """By a name for the control socket beside which there is nothing else."""
    path = tmp_path_factory.mktemp("long") / "control.sock"
    path.symlink_to(shared_node.run_dir / "control.sock")
    with Client(f"unix:{path}") as client:
        yield client


@pytest.mark.parametrize("call", CALLS)
def test_both_ways(short: Client, long: Client, call: str) -> None:
    arguments = {"name": "direct", **CALLS[call]}
    name = arguments.pop("name")

    async def later() -> Any:
        async with AsyncClient(short.address.target) as client:
            return await client.invoke(name, **arguments)

    expected = outcome(lambda: long.invoke(name, **arguments))
    assert outcome(lambda: short.invoke(name, **arguments)) == expected
    assert outcome(lambda: asyncio.run(later())) == expected


def test_without_the_control_plane(shared_node: Node, short: Client) -> None:
    short.invoke("direct", 1)
    control = shared_node.roles()["control"]
    os.kill(control, signal.SIGSTOP)
    try:
        assert short.invoke("direct", 2, timeout=30).value == [2, None]
    finally:
        os.kill(control, signal.SIGCONT)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    """Something beside a control socket that takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(8)
        yield


def test_where_nothing_is_beside_it(gateway: Gateway) -> None:
    with Client(gateway.address) as client:
        client.deploy("echo", package())
        assert client.invoke("echo", 1).value == 1


def test_where_nobody_answers(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_, "REACH_SECONDS", 0.05)
    with listening(gateway.socket.with_name("invoke.sock")), Client(gateway.address) as client:
        client.deploy("echo", package())
        assert client.invoke("echo", 1).value == 1


def test_addresses() -> None:
    assert direct_.beside(Address("unix:/run/r/control.sock", "")) == Address("unix:/run/r/invoke.sock", "")
    assert direct_.beside(Address("node:7401", KEY)) == Address("node:7402", KEY)
    assert direct_.beside(Address("[::1]:7401", KEY)) == Address("[::1]:7402", KEY)
    assert direct_.beside(Address("node:443", KEY)) is None, "a key is not shown to who knows whom"


def test_after_an_error() -> None:
    """Only what ran nothing is asked again; a key that is not taken is not shown again."""
    way = direct_.Direct(Address("unix:/nowhere/control.sock"))
    assert way.refused(errors.ResourceNotFound("f"))
    assert not way.refused(errors.TooManyRequests("f"))
    assert not way.refused(Unreachable("f"))
    assert way.due()
    assert way.refused(errors.Unauthenticated("f"))
    assert not way.due()
    lost = Unreachable("gone")
    assert direct_.Direct(Address("unix:/nowhere/control.sock")).explain(lost) is lost
