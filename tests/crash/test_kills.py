"""kill -9 of every kind of process of a node under load: who serves again, and when; what is left; who was answered
what. The long form, with a random mix, is tests/soak/test_crash_kills.py."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from tests.conftest import need_root
from tests.crash import census, load
from tests.crash.load import FUNCTIONS
from tests.outcomes import Outcome

SECONDS = 60.0
ROUNDS = 2
SIDES = ("seater", "imager", "shellmaker")


def kill_one(node: Node, kind: str, rng: random.Random) -> float:
    """One process of that kind, as soon as there is one; when (time.monotonic)."""
    moment = 0.0

    def killed() -> bool:
        nonlocal moment
        found = census.by_kind(node).get(kind)
        if not found:
            return False
        moment = time.monotonic()
        with contextlib.suppress(ProcessLookupError):  # it ended by itself in between: another one
            os.kill(rng.choice(found), signal.SIGKILL)
            return True
        return False

    await_true(killed, SECONDS, f"a process of kind {kind}")
    return moment


def survive(node: Node, kinds: tuple[str, ...]) -> tuple[list[float], load.Load]:
    """Kills under load; the seconds until both ways of calling served again, each time. Then everything is at rest."""
    rng, seconds = random.Random(), []
    with load.Load(node, FUNCTIONS) as pressure:
        begun = time.monotonic()
        await_true(lambda: pressure.served_since(begun), SECONDS, "the load's first answers")
        for kind in kinds:
            moment = kill_one(node, kind, rng)
            await_true(lambda moment=moment: pressure.served_since(moment), SECONDS, f"answers after a {kind} died")
            seconds.append(time.monotonic() - moment)
    assert not pressure.wrong, "\n".join(pressure.wrong) + census.output(node)
    await_true(node.answers, SECONDS, "the control plane's answer")
    try:
        await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
    except TimeoutError as error:
        error.add_note(census.consistent(node) + census.output(node))
        raise
    return seconds, pressure


def span(seconds: float) -> str:
    """In words: measured beside whatever else the machine did."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{max(10, round(seconds, 2) * 1000):.0f} ms"


def told(pressure: load.Load) -> str:
    """What callers of the dispatcher heard besides right answers."""
    heard = [f"{count} {what.partition(': ')[2]}" for what, count in sorted(pressure.told.items())
             if what.startswith("dispatch") and not what.endswith("right")]  # fmt: skip
    return ", ".join(heard) or "nothing but right answers"


@pytest.mark.case("crash", "kill -9 of the control plane under load and deployments")
def test_the_control_plane(shared: Node, outcome: Outcome) -> None:
    seconds, pressure = survive(shared, ("control",) * ROUNDS)
    lost = pressure.told["dispatch: lost"]
    assert not lost, f"{lost} callers of the dispatcher lost their connection: {told(pressure)}"
    outcome(
        f"invocations on the dispatcher's socket go on; gRPC answers again within {span(max(seconds))}; deployments "
        "that were under way go on or are refused, none is half there"
    )


@pytest.mark.case("crash", "kill -9 of the dispatcher under load and deployments")
def test_the_dispatcher(shared: Node, outcome: Outcome) -> None:
    seconds, _ = survive(shared, ("dispatch",) * ROUNDS)
    outcome(
        "running invocations end with ServiceUnavailableException, or with the caller's connection; served again "
        f"within {span(max(seconds))}, by new environments"
    )


@pytest.mark.case("crash", "kill -9 of zygotes under load and deployments")
def test_zygotes(shared: Node, outcome: Outcome) -> None:
    seconds, pressure = survive(shared, ("zygote",) * ROUNDS)
    assert not pressure.told["dispatch: lost"]
    outcome(f"environments live on and serve, cold starts wait: answers within {span(max(seconds))}")


@pytest.mark.case("crash", "kill -9 of environments and of their pid 1 under load")
def test_environments(shared: Node, outcome: Outcome) -> None:
    seconds, pressure = survive(shared, ("environment", "anchor") * ROUNDS)
    assert not pressure.told["dispatch: lost"]
    outcome(
        f"the invocation inside fails as Runtime.ExitError, another environment takes the next: within "
        f"{span(max(seconds))}"
    )


def test_spares(shared: Node) -> None:
    """Who would have taken one has another, or is forked."""
    _, pressure = survive(shared, ("spare",) * ROUNDS)
    assert not pressure.told["dispatch: lost"]


@pytest.mark.case("crash", "kill -9 of the launcher's side processes (seater, imager, shellmaker)")
def test_side_processes(shared: Node, outcome: Outcome) -> None:
    before = census.take(shared)
    seconds, pressure = survive(shared, SIDES * ROUNDS)
    assert not pressure.told["dispatch: lost"]

    def all_leaves_known() -> bool:
        now = census.take(shared)
        extra = sum(now.processes[kind] - before.processes[kind] for kind in ("environment", "spare"))
        return now.cgroups - before.cgroups <= 4 * max(extra, 0)

    with Client(shared.address) as client:
        load.deploy(client, "after")
        assert client.invoke("after", {"nonce": 1}).value["nonce"] == 1
    await_true(all_leaves_known, SECONDS, "control groups that nobody knows are removed")
    outcome(
        "each is started again, environments live on, no control group is left over: answers within "
        f"{span(max(seconds))}"
    )


@pytest.mark.case("crash", "an environment dies while the control plane is down")
def test_an_environment_dies_while_the_control_plane_is_down(shared: Node, outcome: Outcome) -> None:
    with load.Caller(shared) as caller:
        answer, _ = caller.call(FUNCTIONS[0], {"nonce": 1})
        assert answer.status == 200
        kinds = census.by_kind(shared)
        os.kill(kinds["control"][0], signal.SIGKILL)
        for pid in kinds["environment"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in FUNCTIONS:
            # Each of those that are dying, or died frozen, takes one call along.
            for _ in [*kinds["environment"], "and one that is served"]:
                _, body = caller.call(name, {"nonce": 2})
                if b"errorType" not in body:
                    break
            assert b'"nonce": 2' in body, body
    await_true(shared.answers, SECONDS, "the control plane's return")
    await_true(lambda: not census.consistent(shared), SECONDS, "counters that agree")
    outcome("it is replaced at the next call, without the control plane")


@pytest.mark.case("crash", "kill -9 of the launcher under load and deployments")
def test_the_launcher(outcome: Outcome) -> None:
    need_root()
    with Node.start() as node:
        with Client(node.address) as client:
            for name in FUNCTIONS:
                load.deploy(client, name)
        with load.Load(node, FUNCTIONS) as pressure:
            begun = time.monotonic()
            await_true(lambda: pressure.served_since(begun), SECONDS, "the load's first answers")
            before = node.processes()
            os.kill(node.launcher.pid, signal.SIGKILL)
            began = time.monotonic()
            node.start_again()
            await_true(lambda: pressure.served_since(began), SECONDS, "answers after the launcher died")
            seconds = time.monotonic() - began
            survivors = set(before) & set(node.processes())
            assert not survivors, f"of the earlier incarnation: {survivors}"
        assert not pressure.wrong, "\n".join(pressure.wrong) + census.output(node)
        await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
        with Client(node.address) as client:
            assert {function.function_name for function in client.list_functions()} >= set(FUNCTIONS)
    outcome(
        "everything ends with it; started anew, it removes what was left and serves every function within "
        f"{span(seconds)}"
    )
