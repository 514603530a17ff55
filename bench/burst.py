"""A burst: 500 calls of one function at once, which has no environment: until when each of them has what it wants.

Twice: of a handler that stays until all have begun, so that there are 500 environments in the end, the time until a
call is in its handler; and of one that answers at once, the time until a call is answered, with as many environments
as the start rule finds right. Floor: as many bare forks into new namespaces, on all cores, until the last has been in
the handler.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from bench import calls, measure
from bench.measure import Compiled, Report
from bench.node import Node
from runtimed.client import Client
from runtimed.model import wire

MEMORY_MB = 128
CALLS = 500
STAY_SECONDS = (4.0, 12.0, 36.0)
SETTINGS = {
    "RUNTIMED_POOLS_KEEP_ALIVE": "fixed",
    "RUNTIMED_POOLS_KEEP_ALIVE_SECONDS": "1",
    "RUNTIMED_POOLS_PARKED": "0",
    "RUNTIMED_POOLS_LAUNCHES_PER_SECOND": "10000",
    "RUNTIMED_POOLS_OVERCOMMIT": "100",
}


def spread(seconds: list[float]) -> dict[str, float]:
    milliseconds = [1000 * value for value in seconds]
    return {"first": min(milliseconds), **measure.latency(milliseconds), "last": max(milliseconds)}


def stayed(node: Node, client: Client) -> dict[str, float]:
    """On a slow machine they stay longer."""
    for stay in STAY_SECONDS:
        start = time.time()
        answers = calls.wave(node, "wave", CALLS, {"until": start + stay})
        entered = [float(str(answer.value)) - start for answer in answers]
        forget(client)
        if max(entered) < stay:
            return spread(entered)
    raise RuntimeError(f"{CALLS} environments took longer than {STAY_SECONDS[-1]:g} s to begin")


def answered(node: Node, client: Client) -> dict[str, float]:
    packet = [wire.encode(wire.Call(name="hello", total=len(calls.EVENT), body=calls.EVENT), object=number)
              for number in range(1, CALLS + 1)]  # fmt: skip
    seconds = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(60)
        connection.connect(calls.dispatch_socket(node))
        start = time.monotonic()
        for one in packet:
            connection.send(one)
        for _ in range(CALLS):
            _, answer = wire.decode(connection.recv(wire.MESSAGE_MAX))
            seconds.append(time.monotonic() - start)
            if not isinstance(answer, wire.Answer) or answer.outcome != wire.Outcome.SUCCESS:
                raise RuntimeError(str(answer))
    found = spread(seconds)
    found["environments"] = float(client.status().environments.idle)
    forget(client)
    return found


def forget(client: Client) -> None:
    measure.await_true(lambda: client.status().environments.idle == 0, 60, "the end of idle environments")


def floor(compiled: Compiled, python: str) -> dict[str, float]:
    cores = len(os.sched_getaffinity(0))
    command = [python, "-I", "-S", str(measure.FLOORS / "zygote.py"), compiled.shared("fork"), "rate"]
    running = [
        subprocess.Popen([*command, str(CALLS // cores)], stdout=subprocess.PIPE, text=True) for _ in range(cores)
    ]
    return {"last": 1000 * max(float(process.communicate()[0]) for process in running)}


UNITS = {"first": "ms", "p50": "ms", "p99": "ms", "last": "ms"}


def run() -> Report:
    with Compiled() as compiled, Node.start(SETTINGS) as node, Client(node.address) as client:
        python = calls.deploy(client, "wave", calls.WAVE, MEMORY_MB)
        calls.deploy(client, "hello", calls.HELLO, MEMORY_MB)
        results = measure.interleave(
            {
                "stay": lambda: stayed(node, client),
                "hello": lambda: answered(node, client),
                "forks": lambda: floor(compiled, python),
            }
        )
    return Report(
        bench="burst",
        figures=measure.figures("stay", results["stay"], UNITS)
        + measure.figures("hello", results["hello"], {**UNITS, "environments": ""}),
        floor=measure.figures("forks", results["forks"], {"last": "ms"}),
        ratio={f"{side} / forks": measure.ratio(results, side, "forks", "last") for side in ("stay", "hello")},
        environments=CALLS,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="stay: until a call is in its handler, 500 environments; hello: until it is answered",
        summary={
            "stay_last_ms": measure.median(results["stay"], "last"),
            "hello_last_ms": measure.median(results["hello"], "last"),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
