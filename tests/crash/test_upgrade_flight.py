"""The dispatcher is replaced on a real node while other people's clients are in the middle of something: calls of
h2load's, a gRPC stream, a response in parts over HTTP, a runtime of a function's own that answers in parts. All of it
comes to its right end, and the environments go on in the new dispatcher.

Streams are held in the middle by back-pressure alone: each is more than all that lies between, and its caller reads no
further until the new dispatcher serves. The long form replaces it again and again under h2load, for
RUNTIMED_SOAK_MINUTES (10).
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from bench import calls
from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from tests.conftest import need_root
from tests.crash import census, steady
from tests.crash.test_upgrade import replace
from tests.crash.test_upgrade_steps import Listener, begin, dispatchers
from tests.integration.grpc_caller import OPTIONS, PATH
from tests.integration.stream_caller import HttpStream, invoke_stream
from tests.integration.test_streams import BOOTSTRAP
from tests.outcomes import Outcome

SECONDS = 60.0
PARTS, PART = 400, 65536  # 25 MB
SOURCE = """
def handler(event, context):
    context.response_stream("application/octet-stream")
    for number in range(event["parts"]):
        yield number.to_bytes(8, "big") * 8192
"""
SETTINGS = {
    "RUNTIMED_NODE_DRAIN_SECONDS": "300",
    "RUNTIMED_NODE_HANG_SECONDS": "120",
    "RUNTIMED_LIMITS_STALL_SECONDS": "600",
    "RUNTIMED_LIMITS_STREAM_RATE_KB": "1000000",
}


@pytest.fixture(params=[1, 2], ids=["one loop", "two loops"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    need_root()
    (tmp_path / "custom").mkdir()
    bootstrap = tmp_path / "custom" / "bootstrap"
    text = BOOTSTRAP.replace("PYTHON", "/usr/bin/python3")
    bootstrap.write_text(text.replace('event["parts"]', '["%08d" % n * 8192 for n in range(event["parts"])]'))
    bootstrap.chmod(0o755)
    with Node.start({**SETTINGS, "RUNTIMED_DISPATCH_LOOPS": str(request.param)}) as node:
        with Client(node.address) as client:
            steady.deploy(client)
            calls.deploy(client, "f", SOURCE, 256)
            client.deploy("custom", bootstrap.parent, runtime="provided.al2023", handler="x", timeout=300)
            client.update_function_configuration("f", timeout=300)
            for name in ("f", "custom"):
                client.wait_until_active(name, SECONDS)
                with client.invoke_stream(name, {"parts": 1}) as stream:
                    assert len(stream.read()) == PART
        yield node


def invoke_socket(node: Node) -> str:
    return str(node.run_dir / "invoke.sock")


def body(event: bytes) -> bytes:
    """A gRPC message, as h2load sends it."""
    message = pb.InvokeRequest(function_name=steady.NAME, payload=event).SerializeToString()
    return b"\0" + struct.pack(">I", len(message)) + message


@contextlib.contextmanager
def h2load(node: Node, directory: Path, event: bytes, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    path = shutil.which("h2load")
    if path is None:
        pytest.skip("h2load is installed by ./dev test")
    (directory / "message").write_bytes(body(event))
    with subprocess.Popen(
        [path, *arguments, "-d", str(directory / "message"), "-H", "te: trailers", "-H",
         "content-type: application/grpc", f"--base-uri=unix:{invoke_socket(node)}", f"http://localhost{PATH}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def in_flight(node: Node) -> int:
    return census.counters(node, min(dispatchers(node)))["invocations_in_flight"]


def own_runtimes(node: Node) -> set[int]:
    return {process.pid for process in node.processes() if "/var/task/bootstrap" in process.command}


@pytest.mark.case("crash", "the dispatcher is replaced while h2load's calls and three streams are in flight")
def test_what_is_in_flight_ends_rightly(node: Node, tmp_path: Path, outcome: Outcome) -> None:
    event = b'{"nonce": 1, "pause": 3}'
    listener = Listener(node)
    with contextlib.ExitStack() as within:
        reached: Any = SimpleNamespace(http_path=invoke_socket(node))
        http = within.enter_context(HttpStream(reached))
        channel = within.enter_context(grpc.insecure_channel(f"unix:{invoke_socket(node)}", options=OPTIONS))
        http.begin(body=b'{"parts": %d}' % PARTS)
        streams = [
            invoke_stream(channel, 300, function_name=name, payload=b'{"parts": %d}' % PARTS)
            for name in ("f", "custom")
        ]
        http.head()
        received = [bytearray(http.part()), bytearray(), bytearray()]
        for stream, data in zip(streams, received[1:], strict=True):
            assert next(stream).WhichOneof("event") == "start"
            data += next(stream).payload_chunk
        load = within.enter_context(h2load(node, tmp_path, event, "-n", "8", "-c", "2", "-m", "4"))
        await_true(lambda: in_flight(node) == 11 or load.poll() is not None, SECONDS, "all to be in flight")
        before = census.environments(node, unknown=1) | own_runtimes(node)
        [old] = dispatchers(node)
        begin(node, listener)
        await_true(lambda: listener.heard("has handed over what was idle") > 0, SECONDS, "the new one serves")
        assert old in dispatchers(node), "it has what is in flight"
        rest, complete = http.rest()
        received[0] += rest
        assert complete == {}
        for stream, data in zip(streams, received[1:], strict=True):
            for answer in stream:
                data += answer.payload_chunk
            assert answer.HasField("complete") and not answer.complete.HasField("error_code"), answer
            assert stream.code() == grpc.StatusCode.OK
        said, _ = load.communicate(timeout=SECONDS)
        assert b"8 succeeded, 0 failed, 0 errored, 0 timeout" in said and b"8 2xx" in said, said.decode()
    assert received[0] == received[1] == b"".join(number.to_bytes(8, "big") * 8192 for number in range(PARTS))
    assert received[2] == b"".join(b"%08d" % number * 8192 for number in range(PARTS))
    await_true(lambda: len(dispatchers(node)) == 1 and old not in dispatchers(node), SECONDS, "the old one to leave")
    after = {*census.by_kind(node)["environment"]} | own_runtimes(node)
    assert before <= after, f"environments that ended: {before - after}"
    with Client(node.address) as client:
        assert client.invoke(steady.NAME, {"nonce": 2}).value["nonce"] == 2
        with client.invoke_stream("custom", {"parts": 1}) as stream:
            assert len(stream.read()) == PART
        client.delete_function("custom")  # the census does not know its environment
    await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
    outcome("all come to their right end; every environment goes on in the new one")


def storm(node: Node, directory: Path, rng: random.Random) -> int:
    """h2load at full speed, a replacement in the middle. It makes no new connections: with GOAWAY it goes without what
    it had not sent. How many calls came to the dispatchers: each was answered with success."""
    before = census.counters(node, min(dispatchers(node)))["calls"]
    arguments = ("-n", "1000000", "-c", str(rng.randint(1, 16)), "-m", str(rng.randint(1, 20)))
    with h2load(node, directory, b'{"nonce": 1, "pad": %d}' % rng.choice((0, 10, 100_000)), *arguments) as load:
        busy = before + rng.randint(1, 2000)
        await_true(lambda: census.counters(node, min(dispatchers(node)))["calls"] > busy, SECONDS, "calls")
        replace(node)
        said = load.communicate(timeout=SECONDS)[0].decode()
    await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
    came = census.counters(node, min(dispatchers(node)))["calls"] - before
    answered = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", said)
    assert answered is not None and int(answered[1]) == came, f"{came} came\n{said}"
    return came


@pytest.mark.soak
def test_replaced_under_h2load_for_minutes(node: Node, tmp_path: Path) -> None:
    minutes = float(os.environ.get("RUNTIMED_SOAK_MINUTES", "10"))
    seed = int(os.environ.get("RUNTIMED_SOAK_SEED", str(time.time_ns() % 1_000_000)))
    print(f"seed {seed}, {minutes:g} minutes")
    rng, until = random.Random(seed), time.monotonic() + minutes * 60
    with Client(node.address) as client:
        client.delete_function("custom")
    rounds = [storm(node, tmp_path, rng)]
    while time.monotonic() < until:
        rounds.append(storm(node, tmp_path, rng))
    print(f"{len(rounds)} replacements, {sum(rounds)} calls")
