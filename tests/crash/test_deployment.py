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
from pathlib import Path

import pytest

from runtimed.model.function import LastUpdateStatus, State
from tests.integration.control_stage import staged
from tests.integration.zips import build, plain

ROOT = Path(__file__).parents[2]
OLD = build(plain(), plain("package/module.py"))
NEW = build(plain(content=b"new = True\n"))
KILLED = 77

CHILD = """
import asyncio, os, sys
from pathlib import Path

left = int(sys.argv[2])

def step(*arguments):
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

for name in ("fsync", "rename", "mkdir", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))

from runtimed.store import database
run = database._Request.run
def counting_run(self, connection):
    step()
    run(self, connection)
    step()
database._Request.run = counting_run

from tests.crash.test_deployment import NEW, OLD
from tests.integration.control_stage import staged

async def main():
    async with staged(Path(sys.argv[1])) as stage:
        await stage.create("kept", package=OLD); print("created kept", flush=True)
        await stage.settled("kept"); print("active kept", flush=True)
        await stage.update("kept", NEW); print("updated kept", flush=True)
        await stage.settled("kept"); print("settled kept", flush=True)
        await stage.create("gone", package=OLD); print("created gone", flush=True)
        await stage.deployer.delete("gone"); print("deleted gone", flush=True)

asyncio.run(main())
os._exit(0)
"""


def crash_at(state: Path, n: int) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(state), str(n)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (0, KILLED), done.stderr
    return done.returncode, set(done.stdout.splitlines())


async def check(state: Path, told: set[str]) -> None:
    async with staged(state) as stage:
        await stage.deployer.recover()
        await asyncio.wait_for(stage.deployer.settle(), 20)
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
    while status == KILLED:
        n += 1
        state = tmp_path / str(n)
        status, told = await asyncio.to_thread(crash_at, state, n)
        await check(state, told)
    assert n > 60, "the steps are counted"
