"""The SDK, blocking and asynchronous, against a server in this process."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtimed.client import (
    ApiError,
    AsyncClient,
    Client,
    ClientError,
    DeployFailed,
    FunctionFailed,
    TimedOut,
    Unreachable,
)
from runtimed.client.rpc import ATTEMPTS
from runtimed.model import errors
from runtimed.model.function import LogFormat, LoggingConfig, State
from tests.integration.conftest import KEY, Gateway
from tests.integration.performers import RUNTIME, SubprocessInvoker
from tests.integration.stub import package, until

MEGABYTE = 1024 * 1024
FAILING = b"def handler(event, context): raise LookupError('not there')\n"


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.address) as made:
        yield made


def test_a_function_lives(client: Client) -> None:
    told: list[tuple[str, int, int]] = []
    deployed = client.deploy("echo", package(), memory_size=256, progress=lambda *step: told.append(step))
    assert (deployed.state, deployed.runtime, deployed.handler) == (State.ACTIVE, RUNTIME, "app.handler")
    assert told[-2:] == [("uploading", len(package()), len(package())), ("activating", 0, 0)]
    result = client.invoke("echo", {"ü": [1, None]}, log_tail=True)
    assert result.value == {"ü": [1, None]}
    assert not result.failed
    assert result.executed_version == "$LATEST"
    assert result.log_tail.startswith("got")
    assert client.invoke("echo").value == {}
    assert client.invoke("echo", None).value is None
    assert client.invoke("echo", payload=b" 7 ").value == 7
    assert client.invoke("echo", 1, dry_run=True).response.status_code == 204
    assert [function.function_name for function in client.list_functions()] == ["echo"]
    changed = client.update_function_configuration(
        "echo", timeout=9, logging_config=LoggingConfig(log_format=LogFormat.JSON), revision_id=deployed.revision_id
    )
    assert (changed.timeout, changed.memory_size, changed.logging_config.log_format) == (9, 256, LogFormat.JSON)
    client.wait_until_active("echo")
    client.update_function_code("echo", package(b"def handler(event, context): return 'new'\n"))
    client.wait_until_active("echo")
    assert client.invoke("echo").value == "new"
    client.delete_function("echo")
    with pytest.raises(errors.ResourceNotFound):
        client.get_function("echo")


def test_a_path_is_built(client: Client, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("def handler(event, context): return 'from a path'\n")
    stages: list[str] = []
    client.deploy("path", tmp_path / "code", progress=lambda stage, done, total: stages.append(stage))
    assert client.invoke("path").value == "from a path"
    assert list(dict.fromkeys(stages)) == ["packing", "uploading", "activating"]


def test_large_packages_and_payloads(client: Client) -> None:
    ballast = os.urandom(9 * MEGABYTE).hex().encode()
    client.deploy("big", package(b"def handler(event, context): return event\n#" + ballast))
    text = "x" * (6 * MEGABYTE - 2)
    assert client.invoke("big", text).value == text
    with pytest.raises(errors.RequestTooLarge):
        client.invoke("big", text + "x")


def test_failures_of_the_function_are_typed(client: Client) -> None:
    client.deploy("failing", package(FAILING))
    result = client.invoke("failing")
    assert result.failed
    with pytest.raises(FunctionFailed, match="LookupError: not there") as caught:
        _ = result.value
    assert (caught.value.error_type, caught.value.request_id) == ("LookupError", result.request_id)
    assert "in handler" in caught.value.stack_trace[-1]


def test_errors_are_the_api_s_own(client: Client, gateway: Gateway) -> None:
    with pytest.raises(errors.ResourceNotFound, match="not found"):
        client.invoke("missing")
    with pytest.raises(errors.InvalidParameterValue, match="MemorySize"):
        client.deploy("echo", package(), memory_size=1)
    with pytest.raises(errors.InvalidParameterValue, match="Handler"):
        client.deploy("echo", package(name="nothing.txt"))
    with pytest.raises(errors.InvalidParameterValue, match="cannot be sent"):
        client.deploy("echo", package(), description="\udc80")
    with pytest.raises(errors.InvalidRequestContent, match="written as JSON"):
        client.invoke("echo", object())
    with pytest.raises(DeployFailed, match="It is broken"):
        client.deploy("broken", package(), handler="broken.handler")
    client.deploy("full", package(), handler="full.handler")
    with pytest.raises(errors.TooManyRequests) as caught:
        client.invoke("full")
    assert (caught.value.reason, caught.value.retry_after) == ("ConcurrentInvocationLimitExceeded", 1.5)
    assert isinstance(caught.value, ApiError)
    with pytest.raises(errors.PreconditionFailed):
        client.update_function_code("full", package(), revision_id="stale")
    with pytest.raises(errors.ResourceExists):
        client.create_function("full", package(), runtime=RUNTIME, handler="app.handler")
    with Client(gateway.tcp) as stranger, pytest.raises(errors.Unauthenticated):
        stranger.status()
    with Client(gateway.tcp, key=KEY) as known:
        assert known.status().ready


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"memory_size": 1}, "MemorySize"),
        ({"runtime": "python2.7"}, "python2.7 is not on this node. Choose one of"),
        ({"environment": {"AWS_REGION": "x"}}, "AWS_REGION"),
        ({"environment": {"1": "x"}}, "at least two characters"),
        ({"handler": "a b"}, "MODULE.FUNCTION"),
        ({"timeout": "soon"}, "Timeout"),
    ],
)
def test_settings_are_checked_before_anything_is_packed(
    client: Client, tmp_path: Path, settings: dict[str, Any], part: str
) -> None:
    """The path is not there, which packing would say."""
    with pytest.raises(errors.InvalidParameterValue, match=part):
        client.deploy("echo", tmp_path / "missing", **settings)
    with pytest.raises(errors.InvalidParameterValue, match="FunctionName"):
        client.deploy("no name", tmp_path / "missing")


def test_time_runs_out(client: Client) -> None:
    client.deploy("slow", package(b"import time\ndef handler(event, context): time.sleep(600)\n"))
    with pytest.raises(TimedOut):
        client.invoke("slow", timeout=0.2)


def test_waiting_has_an_end(client: Client, gateway: Gateway) -> None:
    deployer: Any = gateway.performers.deployer
    gateway.loop.loop.call_soon_threadsafe(deployer.release.clear)
    with pytest.raises(TimedOut, match="Pending"):
        client.deploy("echo", package(), wait=0.05)
    with pytest.raises(errors.ResourceConflict):
        client.update_function_configuration("echo", timeout=5)
    assert client.deploy("other", package(), wait=None).state is State.PENDING
    gateway.loop.loop.call_soon_threadsafe(deployer.release.set)
    assert client.deploy("echo", package(), timeout=5).timeout == 5


def test_logs(client: Client, gateway: Gateway) -> None:
    client.deploy("echo", package())
    before = datetime.now(UTC)
    first = client.invoke("echo", 1)
    assert [event.message for event in client.logs("echo", request_id=first.request_id)][1] == "got 1"
    assert list(client.logs("echo", since=datetime.now(UTC) + timedelta(hours=1))) == []
    assert next(iter(client.logs("echo", since=before))).time >= before
    follower = client.logs("echo", follow=True, since=before)
    assert "START" in next(follower).message
    follower.close()
    readers: Any = gateway.performers.logs
    until(lambda: readers.readers == 0)
    with pytest.raises(errors.ResourceNotFound):
        list(client.logs("missing"))


def fail_at_first(node: Any, times: int) -> Callable[[], int]:
    """Makes the node's status unavailable a few times; tells how often it was asked."""
    status, count = node.status, 0

    async def flaky() -> Any:
        nonlocal count
        count += 1
        if count <= times:
            raise errors.ServiceUnavailable("The node is starting. Try again.")
        return await status()

    node.status = flaky
    return lambda: count


def test_only_what_is_safe_is_repeated(client: Client, gateway: Gateway) -> None:
    asked = fail_at_first(gateway.performers.node, 2)
    assert client.status().ready
    assert asked() == 3
    asked = fail_at_first(gateway.performers.node, ATTEMPTS)
    with pytest.raises(errors.ServiceUnavailable):
        client.status()
    assert asked() == ATTEMPTS

    invoker: Any = gateway.performers.invoker
    calls = 0

    async def unavailable(_request: Any) -> Any:
        nonlocal calls
        calls += 1
        raise errors.ServiceUnavailable("Not now.")

    invoker.invoke = unavailable
    with pytest.raises(errors.ServiceUnavailable):
        client.invoke("echo")
    assert calls == 1


def test_a_daemon_that_comes_back_is_found_again(gateway: Gateway, client: Client) -> None:
    assert client.status().ready
    gateway.loop.run(lambda: gateway.server.stop(0))
    with pytest.raises(Unreachable, match="sudo runtimed"):
        client.status()

    async def again() -> None:
        from runtimed.api.table import bind
        from runtimed.gateway.grpc.server import Server

        gateway.server = Server(bind(gateway.performers), socket=gateway.socket)
        await gateway.server.start()

    gateway.loop.run(again)
    until(lambda: answers(client))


def answers(client: Client) -> bool:
    try:
        return client.status().ready
    except Unreachable:
        return False


def test_without_a_daemon(tmp_path: Path) -> None:
    with Client(f"unix:{tmp_path}/none.sock") as nobody:
        before = time.monotonic()
        with pytest.raises(Unreachable, match="does not exist"):
            nobody.status()
        assert time.monotonic() - before < 30
    with pytest.raises(ClientError, match="not an address"):
        Client("nonsense")


def serve_late(listener: socket.socket, behind: Path, seconds: float) -> None:
    """A busy daemon's socket: whoever connects is served after a while."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    with listener.accept()[0] as caller, socket.socket(socket.AF_UNIX) as served:
        time.sleep(seconds)
        served.connect(str(behind))
        there = threading.Thread(target=carry, args=(caller, served))
        there.start()
        carry(served, caller)
        there.join()


def test_a_busy_daemon_is_not_taken_for_a_dead_one(gateway: Gateway, tmp_path: Path) -> None:
    """Of what is not repeated the first attempt must do."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "late.sock"))
        listener.listen()
        busy = threading.Thread(target=serve_late, args=(listener, gateway.socket, 0.5))
        busy.start()
        with Client(f"unix:{tmp_path}/late.sock") as late, pytest.raises(errors.ResourceNotFound):
            late.invoke("nobody")
        busy.join()


def test_threads_share_a_client(client: Client) -> None:
    client.deploy("echo", package())
    results: list[int] = []
    threads = [threading.Thread(target=lambda n=n: results.append(client.invoke("echo", n).value)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_the_asynchronous_client_does_the_same(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def handler(event, context):\n    print('got', event)\n    return event\n")
    invoker = gateway.performers.invoker
    assert isinstance(invoker, SubprocessInvoker)

    async def live() -> None:
        async with AsyncClient(gateway.address) as client:
            told: list[str] = []
            deployed = await client.deploy("echo", tmp_path / "main.py", progress=lambda *step: told.append(step[0]))
            assert (deployed.state, deployed.handler) == (State.ACTIVE, "main.handler")
            assert set(told) == {"packing", "uploading", "activating"}
            result = await client.invoke("echo", [1])
            assert result.value == [1]
            assert [event.message async for event in client.logs("echo")][1] == "got [1]"
            follower = client.logs("echo", follow=True, since=datetime.now(UTC) - timedelta(hours=1))
            assert (await anext(follower)).request_id == result.request_id
            await follower.aclose()
            asked = fail_at_first(gateway.performers.node, 1)
            assert (await client.status()).ready
            assert asked() == 2
            changed = await client.update_function_configuration("echo", timeout=5)
            assert changed.timeout == 5
            await client.wait_until_active("echo")
            await client.update_function_code("echo", package(FAILING, "main.py"))
            await client.wait_until_active("echo")
            with pytest.raises(FunctionFailed):
                _ = (await client.invoke("echo")).value
            with pytest.raises(errors.ResourceExists):
                await client.create_function("echo", package(), runtime=RUNTIME, handler="app.handler")
            assert [function.function_name for function in await client.list_functions()] == ["echo"]
            assert (await client.get_function("echo")).timeout == 5
            assert [runtime.name for runtime in await client.runtimes()] == [RUNTIME, "python3.9"]
            assert len((await client.diagnose()).checks) == 2
            await client.delete_function("echo")
            with pytest.raises(errors.ResourceNotFound):
                await client.invoke("echo")
        async with AsyncClient(f"unix:{tmp_path}/none.sock") as nobody:
            with pytest.raises(Unreachable):
                await nobody.status()

    gateway.loop.run(live)
