"""Warm invocations: dispatcher to handler and back over its socket, and through gRPC.

Floors: a bare epoll HTTP server; the same path without policy (relay.c and CPython); a gRPC server that does nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

from bench import calls, measure
from bench.measure import Report
from bench.node import Node
from runtimed.client import Client
from runtimed.model import wire

SECONDS = 1.5
PARTS = 5  # of a run on one connection, each placed anew: whether both ends share a core decides about a round trip
CONNECTIONS = 64
MEMORY_MB = 1769  # one core
ENVIRONMENTS = 4
HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\r\n"
GRPC_CALLS = 1500


def grpc_round_trips(client: Client) -> list[float]:
    """Microseconds of calls by the SDK, one after the other; the first fifth warms up."""
    samples = []
    for _ in range(GRPC_CALLS):
        start = time.perf_counter()
        client.invoke("hello", payload=calls.EVENT)
        samples.append((time.perf_counter() - start) * 1e6)
    return samples[GRPC_CALLS // 5 :]


def measured(program: str, kind: str, address: str, request: str) -> Callable[[], dict[str, float]]:
    """One connection's latency and the rate of many."""

    def side() -> dict[str, float]:
        parts = [
            measure.latency(measure.load(program, kind, address, request, 1, SECONDS / PARTS)) for _ in range(PARTS)
        ]
        one = {name: measure.median(parts, name) for name in measure.LATENCY}
        many = measure.load(program, kind, address, request, CONNECTIONS, SECONDS)
        return {**one, "rate": measure.rate(many, SECONDS)}

    return side


def run() -> Report:
    call = calls.request("hello")
    answer_head = wire.encode(wire.Answer(status=200, outcome=wire.Outcome.SUCCESS))
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        node = stack.enter_context(Node.start())
        client = stack.enter_context(Client(node.address))
        python = calls.deploy(client, "hello", calls.HELLO, MEMORY_MB)
        port = stack.enter_context(measure.server(compiled.program("hello")))
        relay = str(compiled.directory / "relay.sock")
        stack.enter_context(
            measure.server(
                compiled.program("relay"), relay, str(ENVIRONMENTS), python, "-I", "-S",
                str(measure.FLOORS / "echo.py"), answer_head.hex(), str(len(call) - len(calls.EVENT)),
            )
        )  # fmt: skip
        bare = stack.enter_context(measure.bare_grpc(compiled.directory))
        bare_client = stack.enter_context(Client(bare))
        call_file, http_file = compiled.file("call", call), compiled.file("http", HTTP)
        results = measure.interleave(
            {
                "dispatch": measured(program, "call", calls.dispatch_socket(node), call_file),
                "epoll": measured(program, "http", port, http_file),
                "relay": measured(program, "call", relay, call_file),
                "grpc": lambda: measure.latency(grpc_round_trips(client)),
                "bare grpc": lambda: measure.latency(grpc_round_trips(bare_client)),
            }
        )
        environments = client.status().environments
    rated = {**measure.LATENCY, "rate": "calls/s"}
    return Report(
        bench="warm_invoke",
        figures=measure.figures("dispatch", results["dispatch"], rated)
        + measure.figures("grpc", results["grpc"], measure.LATENCY),
        floor=measure.figures("epoll http", results["epoll"], rated)
        + measure.figures("path without policy", results["relay"], rated)
        + measure.figures("bare grpc", results["bare grpc"], measure.LATENCY),
        ratio={
            "dispatch p50 / epoll http p50": measure.ratio(results, "dispatch", "epoll", "p50"),
            "dispatch p50 / path without policy p50": measure.ratio(results, "dispatch", "relay", "p50"),
            "dispatch rate / path without policy rate": measure.ratio(results, "dispatch", "relay", "rate"),
            "grpc p50 / bare grpc p50": measure.ratio(results, "grpc", "bare grpc", "p50"),
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"client on the same cores; rates over {CONNECTIONS} connections; logging on",
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
