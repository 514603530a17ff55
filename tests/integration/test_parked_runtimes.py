"""Environments that stand ready ahead of demand, of every kind of runtime: begun, through their init phase, frozen. The
first call goes to one of them; an init phase is run and told once; one that cannot begin is told of; those killed are
replaced."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model.concurrency import ProvisionedConcurrencyStatus
from runtimed.model.runtime import node_major
from tests.conftest import need_root
from tests.crash import census

PATIENCE = 60.0
COUNT = 2
PYTHON = """
import time

BEGAN = time.time()
print("init phase")

def handler(event, context):
    return BEGAN
"""
NODE = """
const began = Date.now() / 1000;
console.log('init phase');
exports.handler = async () => began;
"""
CUSTOM = r"""#!/bin/bash
set -euo pipefail
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime
began=$(date +%s.%N)
echo "init phase"
while true; do
    id=$(curl -sS -D - -o /dev/null "$api/invocation/next" | tr -d '\r' |
        sed -n 's/^lambda-runtime-aws-request-id: //Ip')
    curl -sS -X POST -d "$began" "$api/invocation/$id/response" >/dev/null
done
"""
FAILING = {
    "python": "raise RuntimeError('no')\n",
    "nodejs": "throw new Error('no');\n",
    "provided": "#!/bin/bash\nexit 7\n",
}


class Kind(NamedTuple):
    """A runtime, and a function of it that says when it began."""

    runtime: str
    file: str
    source: str


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    need_root()
    with Node.start({"RUNTIMED_POOLS_FREEZE_AFTER_MS": "10"}) as node:
        yield node


@pytest.fixture(scope="module")
def client(node: Node) -> Iterator[Client]:
    with Client(node.address) as client:
        yield client


PYTHON_KIND = Kind(f"python3.{sys.version_info.minor}", "app.py", PYTHON)


@pytest.fixture(params=["python", "nodejs", "provided"])
def kind(request: pytest.FixtureRequest, client: Client) -> Kind:
    offered = {one.name for one in client.status().runtimes}
    javascript = next(name for name in sorted(offered) if node_major(name) is not None)
    return {
        "python": PYTHON_KIND,
        "nodejs": Kind(javascript, "app.js", NODE),
        "provided": Kind("provided.al2023", "bootstrap", CUSTOM),
    }[request.param]


def deploy(client: Client, directory: Path, kind: Kind, source: str, name: str = "stands") -> str:
    path = directory / kind.file
    path.write_text(source)
    path.chmod(0o755)
    client.deploy(name, directory, runtime=kind.runtime, handler="app.handler", timeout=30)
    return name


def standing(client: Client, name: str) -> bool:
    """All that are provisioned are ready, and frozen."""
    found = client.provisioned(name)["$LATEST"]
    counts = client.statistics(name).functions[0].environments
    return found.status is ProvisionedConcurrencyStatus.READY and counts.frozen == counts.idle >= COUNT


def test_the_first_call_finds_one_that_stands_ready(node: Node, client: Client, tmp_path: Path, kind: Kind) -> None:
    others = {*census.by_kind(node).get("environment", []), *census.by_kind(node).get("other", [])}
    name = deploy(client, tmp_path, kind, kind.source)
    client.provision(name, COUNT)
    await_true(lambda: standing(client, name), PATIENCE, "what is provisioned is ready, and frozen")
    asked = time.time()
    result = client.invoke(name, {})
    assert result.error() is None
    assert float(result.payload) < asked, "it had begun before"
    log = "".join(event.message for event in client.logs(name))
    assert log.count("init phase") == COUNT, "each began once"
    statistics = client.statistics(name).functions[0]
    assert statistics.cold_starts <= 1

    await_true(lambda: standing(client, name), PATIENCE, "they stand as before")
    for process in node.processes():
        # No shells and no spares: whoever takes one that is just dying fails with it.
        known = process.pid in others or process.name in census.NAMES
        if not known and census.depth(process.pid) > 1:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    killed = time.time()
    result = client.invoke(name, {}, timeout=PATIENCE)
    if kind is not PYTHON_KIND:  # what a runtime has read over its own connection is not always known
        for _ in range(COUNT):
            error = result.error()
            if error is None:
                break
            assert error.error_type == "Runtime.ExitError", error
            result = client.invoke(name, {}, timeout=PATIENCE)
    assert result.error() is None, result.error()
    assert float(result.payload) > killed, "one that began since"
    await_true(lambda: standing(client, name), PATIENCE, "as many as before")
    client.delete_function(name)


def test_one_that_cannot_begin_is_told_of(client: Client, tmp_path: Path, kind: Kind) -> None:
    name = deploy(client, tmp_path, kind, FAILING[kind.runtime.rstrip("0123456789.x").partition(".")[0]])
    client.provision(name, COUNT)

    def failed() -> bool:
        found = client.provisioned(name)["$LATEST"]
        return found.status is ProvisionedConcurrencyStatus.FAILED

    await_true(failed, PATIENCE, "that it cannot be")
    found = client.provisioned(name)["$LATEST"]
    assert found.available_provisioned_concurrent_executions == 0
    assert "FUNCTION_ERROR_INIT_FAILURE" in str(found.status_reason)
    assert client.invoke(name, {}).error() is not None
    client.delete_function(name)


def all_environments(client: Client) -> int:
    """Of the node, in whatever state."""
    found = client.status().environments
    return found.starting + found.idle + found.busy


def test_an_update_replaces_them_and_a_removal_ends_them(client: Client, tmp_path: Path) -> None:
    kind = PYTHON_KIND
    await_true(lambda: all_environments(client) == 0, PATIENCE, "those of other functions have ended")
    name = deploy(client, tmp_path, kind, kind.source)
    client.provision(name, COUNT)
    await_true(lambda: standing(client, name), PATIENCE, "what is provisioned is ready, and frozen")
    updated = time.time()
    deploy(client, tmp_path, kind, kind.source + "# other code\n")
    assert float(client.invoke(name, {}).payload) > updated, "one of the new code"
    await_true(lambda: standing(client, name), PATIENCE, "as many of the new code")
    client.delete_function(name)
    await_true(lambda: all_environments(client) == 0, PATIENCE, "none is left of it")
    deploy(client, tmp_path, kind, kind.source)
    assert client.provisioned(name) == {}, "one of the same name has nothing of its"
    client.delete_function(name)
