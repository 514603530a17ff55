"""Many functions on few environments, and many deployments of one function: every answer right, nothing grows.

The long forms (`soak`) print what the short ones assert as well: memory, descriptors and files at the beginning and
the end. RUNTIMED_SOAK_CYCLES sets the number of deployments.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from bench.node import Node, await_true
from runtimed.client import AsyncClient, Client
from tests.conftest import need_root
from tests.integration.size_stage import Figures, figures, package, took

# Kilobytes that each process may hold: what the empty node has, and for each function its rows in the tables. The
# dispatcher's log ring is 8 MB, which it touches one round after the other.
SPARE_KB = {"launcher": 4_000, "dispatch": 14_000, "control": 30_000}
EACH_KB = {"launcher": 2, "dispatch": 16, "control": 16}

SETTLED_SECONDS = 60.0


def allowed(before: Figures, functions: int) -> dict[str, int]:
    return {role: kb + SPARE_KB[role] + EACH_KB[role] * functions for role, kb in before.memory_kb.items()}


def assert_bounded(now: Figures, bound: dict[str, int]) -> None:
    over = {role: kb for role, kb in now.memory_kb.items() if kb > bound[role]}
    assert not over, f"allowed {bound}, found {now.line()}"


@pytest.mark.parametrize(
    ("functions", "packages", "calls", "environments"),
    [
        pytest.param(60, 6, 600, 12, id="short"),
        pytest.param(1000, 1000, 10_000, 200, id="long", marks=pytest.mark.soak),
    ],
)
async def test_many_functions_on_few_environments(functions: int, packages: int, calls: int, environments: int) -> None:
    need_root()
    settings = {"RUNTIMED_POOLS_ENVIRONMENTS": str(environments), "RUNTIMED_POOLS_FREEZE_AFTER_MS": "200"}
    with Node.start(settings) as node:
        before = figures(node)
        print(f"\nempty: {before.line()}")
        async with AsyncClient(node.address) as client:
            with took("deployed", functions):
                await deploy_all(client, functions, packages)
            print(f"deployed: {figures(node).line()}")
            with took("invoked", calls):
                most = await invoke_at_random(client, functions, packages, calls)
            assert most <= environments, "more environments than allowed"
            after = figures(node)
            print(f"invoked: {after.line()}; at most {most} environments")
            assert_bounded(after, allowed(before, functions))
            status = await client.status()
            assert status.invocations.throttles == status.invocations.function_errors == 0
            if functions > 100:
                await restarts(node, client, functions, packages)
            with took("deleted", functions):
                await asyncio.gather(*[client.delete_function(name(n)) for n in range(functions)])
            await gone(client)
        assert figures(node).staging == 0


def name(number: int) -> str:
    return f"f{number:04d}"


async def deploy_all(client: AsyncClient, functions: int, packages: int) -> None:
    async def deploy(number: int) -> None:
        await client.deploy(
            name(number), package(number % packages), handler="app.handler", environment={"MARK": f"m{number}"}
        )

    for first in range(0, functions, 8):
        await asyncio.gather(*[deploy(number) for number in range(first, min(first + 8, functions))])


async def invoke_at_random(client: AsyncClient, functions: int, packages: int, calls: int) -> int:
    """From several callers; returns the most environments that were seen."""
    draw, most, left = random.Random(functions), 0, iter(range(calls))
    done = asyncio.Event()

    async def caller() -> None:
        for call in left:
            number = draw.randrange(functions)
            result = await client.invoke(name(number), call)
            assert result.value == [name(number), f"m{number}", number % packages, call]

    async def watcher() -> None:
        nonlocal most
        while not done.is_set():
            counts = (await client.status()).environments
            most = max(most, counts.starting + counts.idle + counts.busy)
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watcher())
    await asyncio.gather(*[caller() for _ in range(8)])
    done.set()
    await watching
    return most


async def restarts(node: Node, client: AsyncClient, functions: int, packages: int) -> None:
    """Each process is killed; how long until the first answer, and are all functions there?"""
    for role in ("control", "dispatch"):
        pid = node.roles()[role]
        os.kill(pid, 9)
        with took(f"{role} killed, until it serves again", 1):
            await asyncio.to_thread(await_true, lambda pid=pid, role=role: replaced(node, role, pid), 60, role)
            await first_answer(client)
        with took(f"{role} killed, then every function once", functions):
            await invoke_at_random(client, functions, packages, functions)


def replaced(node: Node, role: str, pid: int) -> bool:
    return node.roles().get(role, pid) != pid and node.answers()


async def first_answer(client: AsyncClient) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.invoke(name(0), 0)
                return
            except Exception:
                await asyncio.sleep(0.01)


async def gone(client: AsyncClient) -> None:
    """No environment of a deleted function is left."""
    async with asyncio.timeout(SETTLED_SECONDS):
        while True:
            counts = (await client.status()).environments
            if counts.starting + counts.idle + counts.busy == 0:
                return
            await asyncio.sleep(0.05)


# ---- one function, again and again ----------------------------------------------------------------------------


def cycles(client: Client, first: int, count: int) -> None:
    """Deploys, invokes now and then, updates now and then, deletes."""
    for cycle in range(first, first + count):
        mark = f"m{cycle}"
        client.deploy("f", package("same"), handler="app.handler", environment={"MARK": mark})
        if cycle % 5 == 0:
            assert client.invoke("f", cycle).value == ["f", mark, "same", cycle]
        if cycle % 10 == 0:
            client.deploy("f", package(cycle % 30))
            assert client.invoke("f", cycle).value == ["f", mark, cycle % 30, cycle]
        client.delete_function("f")


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(150, id="short"),
        pytest.param(int(os.environ.get("RUNTIMED_SOAK_CYCLES", "100000")), id="long", marks=[pytest.mark.soak]),
    ],
)
def test_a_function_deployed_again_and_again(count: int) -> None:
    need_root()
    with Node.start() as node, Client(node.address) as client:
        cycles(client, 0, 50)  # every pool and every cache has what it will have
        before = figures(node)
        print(f"\nbegin: {before.line()}")
        step = max(count // 20, 50)
        for first in range(0, count, step):
            with took(f"cycles from {first}", step):
                cycles(client, first, step)
            if count > 1000:
                print(figures(node).line())
        await_true(lambda: environments(client) == 0, SETTLED_SECONDS, "the last environments end")
        after = figures(node)
        print(f"end: {after.line()}")
        assert_same(before, after)
        assert client.list_functions() == []


def environments(client: Client) -> int:
    counts = client.status().environments
    return counts.starting + counts.idle + counts.busy


def assert_same(before: Figures, after: Figures) -> None:
    """Nothing grew but by what a pool may hold more at one moment than at another."""
    assert after.packages == before.packages and after.staging == 0
    assert after.cgroups <= before.cgroups + 16
    for role, count in after.descriptors.items():
        assert count <= before.descriptors[role] + 32, f"descriptors of {role}: {before.descriptors[role]} to {count}"
    assert_bounded(after, allowed(before, 0))
    assert after.database_kb <= before.database_kb + 4096
