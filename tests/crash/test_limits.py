"""No descriptors, or no processes, left for a part of the node: callers are told, nothing spins or dies, and it works
again as soon as there are some."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from bench.calls import dispatch_socket
from bench.node import Node, await_true, cgroups
from runtimed.client import Client
from runtimed.model import wire
from tests.crash import census, load
from tests.outcomes import Outcome

SECONDS = 60.0


@contextmanager
def few_descriptors(pid: int, more: int) -> Iterator[None]:
    """The process may open so many more than it has."""
    about = os.stat(f"/proc/{pid}")
    text = Path(f"/proc/{pid}/limits").read_text()
    limits = next(line for line in text.splitlines() if line.startswith("Max open files")).split()
    # As its own user: root without CAP_SYS_RESOURCE may not change the limits of others' processes.
    become = ["setpriv", f"--reuid={about.st_uid}", f"--regid={about.st_gid}", "--clear-groups"]

    def set_to(soft: int) -> None:
        subprocess.run([*become, "prlimit", f"--pid={pid}", f"--nofile={soft}:{limits[4]}"], check=True)

    set_to(census.descriptors(pid) + more)
    try:
        yield
    finally:
        set_to(int(limits[3]))


def deploy(node: Node, *names: str) -> None:
    with Client(node.address) as client:
        for name in names:
            client.deploy(name, load.source(name), runtime="python3.11", handler="app.handler", timeout=3)


def delete(node: Node, *names: str) -> None:
    with Client(node.address) as client:
        for name in names:
            client.delete_function(name)


def told(node: Node, name: str) -> str:
    """A call that may be refused: how. It has an answer, and not another's."""
    caller = load.Caller(node)
    try:
        answer, body = caller.call(name, {"nonce": 5})
    except load.Lost:
        return "lost"
    finally:
        caller.close()
    if answer.outcome == wire.Outcome.SUCCESS:
        assert b'"nonce": 5' in body and name.encode() in body
        return "right"
    assert answer.outcome == wire.Outcome.REFUSED or b"errorType" in body, (answer, body)
    return answer.code or "failed"


def works(node: Node, *names: str) -> None:
    for name in names:
        await_true(lambda name=name: told(node, name) == "right", SECONDS, f"answers of {name}")
    await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")


@pytest.mark.case("fault", "the dispatcher has no descriptors left")
def test_the_dispatcher(shared: Node, outcome: Outcome) -> None:
    deploy(shared, "fresh-d")
    with load.Caller(shared) as caller:
        caller.call("echo-0", {"nonce": 1})
        dispatch = shared.roles()["dispatch"]
        with few_descriptors(dispatch, 3), contextlib.ExitStack() as idle:
            before = census.cpu_seconds(dispatch)
            for _ in range(50):
                sock = idle.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                sock.connect(dispatch_socket(shared))
            for nonce in range(2, 30):
                _, body = caller.call("echo-0", {"nonce": nonce})
                assert f'"nonce": {nonce}'.encode() in body
            answer, body = caller.call("fresh-d", {"nonce": 3})  # its environment's descriptors do not come through
            assert answer.outcome != wire.Outcome.SUCCESS or b'"nonce": 3' in body
            assert census.cpu_seconds(dispatch) - before < 2.0, "it spins"
    assert shared.roles()["dispatch"] == dispatch, "it was lost"
    works(shared, "echo-0", "fresh-d")
    delete(shared, "fresh-d")
    outcome("who is connected is served; new connections wait, cold starts wait or fail as ServiceException")


@pytest.mark.case("fault", "the launcher has no descriptors left")
def test_the_launcher(shared: Node, outcome: Outcome) -> None:
    names = [f"fresh-l{number}" for number in range(3)]
    deploy(shared, *names)
    launcher = shared.launcher.pid
    works(shared, "echo-0")
    with few_descriptors(launcher, 0):
        before = census.cpu_seconds(launcher)
        heard = {told(shared, name) for name in names}
        assert told(shared, "echo-0") == "right"
        assert census.cpu_seconds(launcher) - before < 5.0, "it spins"
    assert shared.launcher.poll() is None
    works(shared, "echo-0", *names)
    delete(shared, *names)
    assert heard <= {"right", "ServiceException", "failed", "lost", "TooManyRequestsException"}, heard
    outcome("warm calls go on; cold starts use what is in stock, then fail as ServiceException")


@pytest.mark.case("fault", "the control plane has no descriptors left")
def test_the_control_plane(shared: Node, outcome: Outcome) -> None:
    control = shared.roles()["control"]
    options = [("grpc.use_local_subchannel_pool", 1)]
    with few_descriptors(control, 4):
        channels = [grpc.insecure_channel(shared.address, options=options) for _ in range(20)]
        for channel in channels:
            with contextlib.suppress(grpc.FutureTimeoutError):
                grpc.channel_ready_future(channel).result(timeout=0.2)
        assert told(shared, "echo-0") == "right"
        for channel in channels:
            channel.close()
    assert shared.roles()["control"] == control, "it was lost"
    await_true(shared.answers, SECONDS, "the control plane's answer")
    deploy(shared, "fresh-c")
    works(shared, "fresh-c")
    delete(shared, "fresh-c")
    outcome("the data plane does not notice; new gRPC connections wait or fail, and come through afterwards")


@pytest.mark.case("fault", "no processes left in the node's control group")
def test_no_processes(shared: Node, outcome: Outcome) -> None:
    names = ["fresh-p"]
    deploy(shared, *names)
    works(shared, "echo-0")
    (top,) = (path for path in cgroups(shared.cgroup) if (path / "pids.max").exists())
    (top / "pids.max").write_text((top / "pids.current").read_text())
    try:
        heard = {told(shared, name) for name in names}
        assert told(shared, "echo-0") == "right"
    finally:
        (top / "pids.max").write_text("max")
    assert heard <= {"ServiceException", "TooManyRequestsException", "failed", "right"}, heard
    works(shared, "echo-0", *names)
    delete(shared, *names)
    assert os.path.exists(f"/proc/{shared.launcher.pid}")
    outcome(
        "warm calls go on; a cold start waits, fails as ServiceException in the end, and succeeds when there is room"
    )
