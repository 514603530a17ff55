"""The control plane killed at every step of a deployment that leaves a trace on disk.

A child process deploys, updates and deletes, and dies without a word at the n-th commit, fsync, rename, mkdir or
unlink. What it left is opened again: nothing that was acknowledged may be missing, whatever was under way goes on
to its end, and nothing may be left over. n grows until the child comes through.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtimed.model.function import LastUpdateStatus, State
from tests.integration.control_stage import Stage, staged
from tests.integration.zips import build, plain

ROOT = Path(__file__).parents[2]
OLD = build(plain(), plain("package/module.py"))
NEW = build(plain(content=b"new = True\n"))
KILLED = 77

CHILDREN = """
import asyncio, os, sys
from pathlib import Path
from runtimed.store import database
from LIFE import life
from tests.integration.control_stage import staged

left = 0

def step():
    global left
    left -= 1
    if left == 0:
        os._exit(77)

def counted(function):
    def call(*arguments, **more):
        step()
        result = function(*arguments, **more)
        step()
        return result
    return call

async def main(state):
    async with staged(state) as stage:
        await life(stage, arm)

to_come = 0

def arm():
    global left
    left = to_come

def child(n, state):
    global left, to_come
    left, to_come = n if COUNTED else 0, n
    for name in ("fsync", "rename", "mkdir", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    run = database._Request.run
    def counting_run(self, connection):
        step()
        run(self, connection)
        step()
    database._Request.run = counting_run
    told = os.open(state + ".told", os.O_WRONLY | os.O_CREAT)
    os.dup2(told, 1)
    os.dup2(told, 2)
    asyncio.run(main(Path(state)))
    os._exit(0)

for line in sys.stdin:
    n, state = line.split()
    pid = os.fork()
    if pid == 0:
        child(int(n), state)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


async def life(stage: Stage, arm: Callable[[], None]) -> None:
    """What the child does. `arm`: steps are counted anew."""

    def tell(what: str) -> None:
        print(what, flush=True)

    await stage.create("kept", package=OLD)
    tell("created kept")
    await stage.settled("kept")
    tell("active kept")
    await stage.update("kept", NEW)
    tell("updated kept")
    await stage.settled("kept")
    tell("settled kept")
    await stage.create("gone", package=OLD)
    tell("created gone")
    await stage.deployer.delete("gone")
    tell("deleted gone")


class Children:
    """A process that has imported everything, and forks a child for each n."""

    def __init__(self, module: str = __name__, *, counted: bool = True) -> None:
        """`module`: has `life`, which the child runs; `counted`: its steps from the beginning, not only from `arm`."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILDREN.replace("LIFE", module).replace("COUNTED", str(counted))],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def crash_at(self, state: Path, n: int) -> tuple[int, set[str]]:
        """Its exit status, and what it told before."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{n} {state}\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        told = Path(f"{state}.told").read_text()
        assert status in (0, KILLED), told
        return status, set(told.splitlines())


async def check(state: Path, told: set[str]) -> None:
    async with staged(state) as stage:
        await stage.deployer.recover()
        await asyncio.wait_for(stage.deployer.settle(), 60)
        functions = {function.function_name: function for function in await stage.functions.page("", 10)}
        assert "created kept" not in told or "kept" in functions, "an acknowledged function is missing"
        assert "deleted gone" not in told or "gone" not in functions
        for function in functions.values():
            assert (function.state, function.last_update_status) == (State.ACTIVE, LastUpdateStatus.SUCCESSFUL)
        if "updated kept" in told:
            assert functions["kept"].code_size == len(NEW)
        zips, trees = await stage.functions.packages_in_use()
        have_zips, have_trees = stage.code.contents()
        assert zips <= have_zips
        assert trees <= have_trees
        for key in have_trees:
            names = {str(path.relative_to(stage.code.tree_path(key))) for path in stage.code.tree_path(key).rglob("*")}
            assert names in ({"app.py"}, {"app.py", "package", "package/module.py"}), "a package is there by half"
        assert stage.staging() == []
        rows = await stage.database.run(lambda c: c.execute("SELECT count(*) FROM targets").fetchone()[0])
        assert rows == len(functions), "a target without a function's use is left"
        # And the node is as good as new.
        await stage.create("after")
        assert (await stage.settled("after")).state is State.ACTIVE


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_killed_at_every_step(tmp_path: Path) -> None:
    n, status = 0, KILLED
    with Children() as children:
        while status == KILLED:
            n += 1
            state = tmp_path / str(n)
            status, told = await asyncio.to_thread(children.crash_at, state, n)
            await check(state, told)
    assert n > 60, "the steps are counted"
