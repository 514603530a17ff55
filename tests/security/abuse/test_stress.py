"""stress-ng inside an environment: twenty seconds here, every class of its stressors by `./dev soak` (tests/soak)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from runtimed.client.result import Result
from tests.neighbour import latency
from tests.outcomes import Outcome
from tests.security.abuse.stage import Stage

# Some of each class that an unprivileged user can run, all at once.
BROAD = {
    "cpu": 1, "matrix": 1, "cache": 1, "vm": 1, "mmap": 1, "brk": 1, "shm": 1, "memfd": 1, "fork": 1, "clone": 1,
    "vfork": 1, "pthread": 1, "exec": 1, "zombie": 1, "kill": 1, "sigq": 1, "sigfpe": 1, "timer": 1, "timerfd": 1,
    "itimer": 1, "switch": 1, "yield": 1, "affinity": 1, "nice": 1, "futex": 1, "sem-sysv": 1, "msg": 1, "pipe": 1,
    "fifo": 1, "eventfd": 1, "epoll": 1, "poll": 1, "inotify": 1, "sock": 1, "sockpair": 1, "udp": 1, "hdd": 1,
    "dentry": 1, "dir": 1, "rename": 1, "flock": 1, "fallocate": 1, "seek": 1, "get": 1, "procfs": 1, "sysbadaddr": 1,
    "rseq": 1, "membarrier": 1, "seccomp": 1, "prctl": 1,
}  # fmt: skip
SECONDS = 18
SIZES = [
    "--vm-bytes",
    "16M",
    "--mmap-bytes",
    "16M",
    "--shm-bytes",
    "8M",
    "--hdd-bytes",
    "32M",
    "--fallocate-bytes",
    "32M",
]
ENDS = ("Runtime.OutOfMemory", "Runtime.ExitError", "Sandbox.Timedout")


def stressed(stage: Stage, arguments: list[str], seconds: int) -> tuple[Result, tuple[Any, Any]]:
    """One call that runs stress-ng; `seconds`: the function's timeout. The neighbour is called all the while."""
    name = stage.deploy("stress", memory=768, timeout=seconds)
    results: list[Result] = []
    event = {"deed": "stress", "arguments": arguments}
    try:
        alone = stage.neighbour.beside(lambda: time.sleep(1))
        beside = stage.neighbour.beside(
            lambda: results.append(stage.client.invoke(name, event, timeout=seconds + 60.0)), calls=100
        )
        stage.look(name)
    finally:
        stage.client.delete_function(name)
    stage.settle()
    return results[0], (latency(alone), latency(beside))


def told(result: Result) -> str:
    """How stress-ng ended, or with which of Lambda's errors its environment did."""
    error = result.error()
    if error is not None:
        assert error.error_type in ENDS, error
        return error.error_type
    status, text = result.value
    assert status in (0, 1, 2, 3, 6, 7), text  # 2: a stressor failed, which the sandbox makes some do
    assert "dispatching hogs" in text or "stress-ng: " in text, text
    return f"status {status}"


@pytest.mark.case("abuse", "stress-ng, fifty stressors at once for 18 s")
def test_broad(stage: Stage, outcome: Outcome) -> None:
    arguments = [word for name, count in BROAD.items() for word in (f"--{name}", str(count))]
    result, neighbour = stressed(stage, [*arguments, *SIZES, "--timeout", f"{SECONDS}s"], 150)
    assert told(result).startswith("status"), result.payload
    outcome("runs to its end; the kernel has no complaint", neighbour)
