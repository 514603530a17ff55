"""A stage for snapshots: one launcher with one zygote, since a snapshot is good for the children of one, and functions
that run what they are told."""

from __future__ import annotations

import json
from typing import Any

from runtimed.model import wire
from tests.integration.launcher_stage import Environment, Played, plan

State, Refusal = wire.SnapshotState, wire.SnapshotRefusal
MAKER = 30000  # the process id of the environment that is copied

# Runs what it is told, at its import too, where that lies in the package.
ANYTHING = """\
import ctypes, os, random, signal, socket, ssl, sys, tempfile, threading, time, uuid
from snapshot_restore_py import register_after_restore, register_before_snapshot
born = uuid.uuid4().hex
hooks, count = [], 0
for name in "ab":
    register_before_snapshot(hooks.append, "before " + name)
    register_after_restore(hooks.append, "after " + name)
%s
def handler(event, context):
    global count
    count += 1
    scope = dict(globals(), context=context)
    exec(event.get("run", "result = None"), scope)
    return {"born": born, "count": count, "result": scope["result"]}
"""


def code(at_init: str = "") -> str:
    return ANYTHING % at_init


class Stage:
    """A launcher with the plan that the test is about, and what was started of it."""

    def __init__(self, played: Played, number: int) -> None:
        self.played, self.number = played, number
        self.living: list[Environment] = []

    def put(self, at_init: str = "", mode: wire.SnapshotMode = wire.SnapshotMode.ON, beyond: int = 0) -> None:
        self.played.put(self.number + beyond, plan(self.played.deploy(code(at_init)), snapshot=mode))

    def launch(self, beyond: int = 0) -> Environment:
        environment = self.played.launch(self.number + beyond)
        self.living.append(environment)
        return environment

    def end(self, environment: Environment) -> wire.Exited:
        self.living.remove(environment)
        return self.played.end(environment)

    def exited(self, environment: Environment) -> wire.Exited:
        self.living.remove(environment)
        return self.played.exited(environment)

    def close(self) -> None:
        for environment in list(self.living):
            self.end(environment)


def begin(
    stage: Stage, stream: str = "stream", beyond: int = 0, variables: dict[str, str] | None = None
) -> Environment:
    environment = stage.launch(beyond)
    send_start(environment, stream, variables)
    answer = environment.receive()
    assert isinstance(answer, wire.InitDone), answer
    return environment


def send_start(environment: Environment, stream: str = "stream", variables: dict[str, str] | None = None) -> None:
    configuration = {
        "handler": "app.handler",
        "function_name": "f",
        "memory_mb": 128,
        "runtime": "python3",
        "snap_start": True,
        "environment": variables or {},
    }
    start = wire.Start(init_type=0, log_format=0, log_stream=stream, configuration=json.dumps(configuration).encode())
    environment.channel.send(wire.encode(start, object=environment.id))


def expect(stage: Stage, state: wire.SnapshotState) -> wire.PlanState:
    """Waits until the launcher says that; what it said before is forgotten."""
    while True:
        told = stage.played.control.expect(wire.PlanState, stage.number)[1]
        if told.snapshot == state:
            return told


def made(stage: Stage, at_init: str = "") -> Environment:
    """The maker, which is an environment like others, with its snapshot taken."""
    stage.put(at_init)
    maker = begin(stage)
    expect(stage, State.READY)
    return maker


def run(environment: Environment, code: str) -> dict[str, Any]:
    answer = environment.invoke({"run": code})
    assert isinstance(answer, dict), answer
    return answer


def ordinary(stage: Stage) -> None:
    """Whatever was done, the function has environments."""
    assert run(begin(stage), "result = None")["count"] == 1
