"""Callers over HTTP for the benches: our own load program, and two of other people, wrk and h2load, whose figures need
no faith in ours. Each keeps one request in flight on every connection.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import NamedTuple

from bench import measure
from bench.measure import Compiled

WARM = 0.2
"""The share of the time that is not counted."""


class Plan(NamedTuple):
    """What is called, and for how long."""

    port: str
    """Of loopback TCP."""
    request: bytes
    """The whole of it: a GET without a body, or a POST with one."""
    connections: int
    seconds: float

    @property
    def head(self) -> tuple[str, str, dict[str, str]]:
        """Method, path and fields, without those that a caller writes itself."""
        first, *lines = self.request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        method, path, _ = first.split(" ")
        fields = dict(line.split(": ", 1) for line in lines)
        return method, path, {name: fields[name] for name in fields if name not in ("Host", "Content-Length")}

    @property
    def body(self) -> bytes:
        return self.request.partition(b"\r\n\r\n")[2]


Caller = Callable[[Compiled, Plan], dict[str, float]]
"""Calls, and returns p50 and p99 in microseconds and the rate. RuntimeError when an answer was not 200."""


def own(compiled: Compiled, plan: Plan) -> dict[str, float]:
    request = compiled.file("request", plan.request)
    samples = measure.load(
        compiled.program("load"), "http", plan.port, request, plan.connections, plan.seconds
    )  # its first fifth warms up
    return {**measure.latency(samples), "rate": measure.rate(samples, plan.seconds)}


WRK = """
wrk.method = %s
wrk.body = %s
%s
function done(summary, latency, requests)
    local e = summary.errors
    print("", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        e.connect + e.read + e.write + e.status + e.timeout)
end
"""


def wrk(compiled: Compiled, plan: Plan) -> dict[str, float]:
    method, path, fields = plan.head
    lines = "\n".join(f"wrk.headers[{_lua(name)}] = {_lua(value)}" for name, value in fields.items())
    body = _lua(plan.body.decode()) if plan.body else "nil"
    script = compiled.file("wrk.lua", (WRK % (_lua(method), body, lines)).encode())
    said = _said(
        "wrk", "-t1", f"-c{plan.connections}", f"-d{max(1, round(plan.seconds))}s", "--timeout", "30s", "-s", script,
        f"http://127.0.0.1:{plan.port}{path}",
    )  # fmt: skip
    requests, microseconds, p50, p99, errors = map(float, said.splitlines()[-1].split())
    if errors:
        raise RuntimeError(f"wrk counts {errors:.0f} errors:\n{said}")
    return {"p50": p50, "p99": p99, "rate": requests / microseconds * 1e6}


def h2load(compiled: Compiled, plan: Plan) -> dict[str, float]:
    """Over HTTP/1.1, as the others."""
    _, path, fields = plan.head
    log = compiled.directory / "h2load.log"
    log.unlink(missing_ok=True)
    options = [option for name, value in fields.items() for option in ("-H", f"{name}: {value}")]
    if plan.body:
        options += ["-d", compiled.file("body", plan.body)]
    said = _said(
        "h2load", "--h1", "-t1", f"-c{plan.connections}", "-D", f"{plan.seconds * (1 - WARM) * 1000:.0f}ms",
        "--warm-up-time", f"{plan.seconds * WARM * 1000:.0f}ms", "--log-file", str(log), *options,
        f"http://127.0.0.1:{plan.port}{path}",
    )  # fmt: skip
    if " 0 failed, 0 errored, 0 timeout" not in said or " 0 3xx, 0 4xx, 0 5xx" not in said:
        raise RuntimeError(said)
    rate = float(said.partition(" req/s")[0].split()[-1])
    samples = [float(line.split("\t")[2]) for line in log.read_text().splitlines()]
    return {**measure.latency(samples), "rate": rate}


CALLERS: dict[str, Caller] = {"own": own, "wrk": wrk, "h2load": h2load}


def missing(name: str) -> str:
    """What to install for this caller; empty when it is there."""
    package = {"wrk": "wrk", "h2load": "nghttp2-client"}.get(name)
    return "" if package is None or shutil.which(name) else f"{name} is not installed: apt-get install {package}"


def _lua(text: str) -> str:
    escaped = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\{ord(c):03d}" for c in text)
    return f'"{escaped}"'


def _said(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout}")
    return done.stdout
