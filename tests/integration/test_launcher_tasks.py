"""Tasks: our programs in jails, asked for by the control plane."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from runtimed.model import wire
from tests.integration.launcher_stage import Played, played
from tests.integration.test_launcher import ECHO, ENOENT, cgroups, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")


@pytest.fixture(scope="module")
def stage() -> Iterator[Played]:
    with played() as stage:
        yield stage


def run_task(stage: Played, number: int, task: wire.Task) -> tuple[bytes, bytes, wire.TaskDone]:
    assert stage.control.request(task, number) is None
    fds = stage.control.expect(wire.TaskStarted, number)[2]
    output = [b"".join(iter(lambda fd=fd: os.read(fd, 65536), b"")) for fd in fds]
    for fd in fds:
        os.close(fd)
    return output[0], output[1], stage.control.expect(wire.TaskDone, number)[1]


def task(**changes: object) -> wire.Task:
    fields = {"kind": wire.TaskKind.PROBE, "interpreter": 0, "staging": "", "memory_mb": 128, "timeout_ms": 10_000}
    return wire.Task(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_probe_asks_an_interpreter(stage: Played) -> None:
    output, errors, done = run_task(stage, 1, task())
    assert done == wire.TaskDone(status=0, timed_out=0, oom=0, step="", error=0), errors
    assert b"cpython" in output.lower()


def test_an_interpreter_that_is_not_there_is_told(stage: Played) -> None:
    assert stage.control.request(task(interpreter=1), 2) is None
    done = stage.control.expect(wire.TaskDone, 2)[1]
    assert (done.step, done.error) == ("exec", ENOENT)


def test_compiling_reads_a_staged_tree(stage: Played) -> None:
    tree = stage.state_dir / "staging" / "abc-1" / "tree"
    tree.mkdir(parents=True)
    (tree / "app.py").write_text(ECHO)
    output, errors, done = run_task(stage, 3, task(kind=wire.TaskKind.COMPILE, staging="abc-1"))
    assert done.status == 0, errors
    assert output
    assert sorted(path.name for path in tree.iterdir()) == ["app.py"]


def test_tasks_are_ended_in_time(stage: Played) -> None:
    for number, timeout_ms in enumerate((1, 5, 10, 15, 20), start=100):
        assert stage.control.request(task(timeout_ms=timeout_ms), number) is None
        done = stage.control.expect(wire.TaskDone, number)[1]
        if done.timed_out:
            assert os.WTERMSIG(done.status) == signal.SIGKILL
    assert stage.control.request(task(timeout_ms=1), 200) is None
    assert stage.control.expect(wire.TaskDone, 200)[1].timed_out == 1
    for _header, _message, fds in stage.control.inbox:
        while fds:
            os.close(fds.pop())
    wait_until(
        lambda: not [name for names in cgroups(stage).values() for name in names if name.startswith("t")],
        "nothing of them runs any more",
    )


def test_more_tasks_than_places_wait_their_turn(stage: Played) -> None:
    for number in range(300, 310):
        assert stage.control.request(task(), number) is None
    for number in range(300, 310):
        assert stage.control.expect(wire.TaskDone, number)[1].status == 0
        for fd in stage.control.expect(wire.TaskStarted, number)[2]:
            os.close(fd)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", 9),
        ("interpreter", 2),
        ("staging", "../x"),
        ("staging", ""),
        ("staging", "-a"),
        ("memory_mb", 1),
        ("timeout_ms", 0),
    ],
)
def test_a_task_out_of_bounds_is_refused(stage: Played, field: str, value: object) -> None:
    message = task(**{"kind": wire.TaskKind.COMPILE, "staging": "a", field: value})
    refused = stage.control.request(message, 50)
    assert refused is not None
    assert refused.field == field
