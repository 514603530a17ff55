"""Deployments through store, code store and both peers: what callers see, what peers hold, what is left on disk."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import UNSET

from runtimed.deployment import steps as steps_module
from runtimed.deployment.upkeep import KEPT_SECONDS, Sweeper, longest_use
from runtimed.model import errors, wire
from runtimed.model.function import (
    Environment,
    LastUpdateStatus,
    State,
    UpdateFunctionConfigurationRequest,
)
from runtimed.store.ledger import NOTHING
from tests.integration.control_stage import Stage, pieces, staged
from tests.integration.peers import until
from tests.integration.zips import build, plain

NEW = build(plain(content=b"def handler(event, context):\n    return 'new'\n"))


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


def frame(path: str, data: bytes) -> bytes:
    return struct.pack("<I", len(path)) + path.encode() + struct.pack("<I", len(data)) + data


async def test_create_leads_to_active(stage: Stage) -> None:
    stage.launcher_peer.output = lambda task: frame("__pycache__/app.cpython-311.pyc", b"code") + frame("", b"{}")
    stage.dispatch_peer.silent = True
    package = build(plain())
    shown = await stage.create(package=package, environment=Environment(variables={"KEY": "value"}), memory_size=256)
    assert (shown.state, shown.state_reason_code) == (State.PENDING, "Creating")
    assert shown.last_update_status is LastUpdateStatus.IN_PROGRESS
    assert shown.code_sha256 == base64.b64encode(hashlib.sha256(package).digest()).decode()
    assert shown.code_size == len(package)
    await until(lambda: stage.dispatch_peer.unanswered)
    assert (await stage.shown()).state is State.PENDING, "Active only once the dispatcher has acknowledged"
    stage.dispatch_peer.silent = False
    stage.dispatch_peer.keep(*stage.dispatch_peer.heard[-1])
    stage.dispatch_peer.acknowledge(stage.dispatch_peer.heard[-1][0].seq)
    shown = await stage.settled()
    assert (shown.state, shown.last_update_status) == (State.ACTIVE, LastUpdateStatus.SUCCESSFUL)
    assert shown.state_reason is shown.state_reason_code is UNSET
    [target] = stage.targets()
    assert stage.routed() == {"f": target}
    put = stage.dispatch_peer.held[wire.PutTarget, target]
    assert isinstance(put, wire.PutTarget)
    assert (put.memory_mb, put.timeout_ms, put.max_environments, put.plan) == (256, 3000, 3, target)
    assert json.loads(put.configuration)["environment"] == {"KEY": "value"}
    plan = stage.launcher_peer.held[wire.PutPlan, target]
    assert isinstance(plan, wire.PutPlan)
    assert (plan.max, plan.rate, plan.runtime, plan.storage_mb) == (3, 50, "python3.11", 512)
    tree = stage.code.tree_path(plan.package)
    assert (tree / "__pycache__/app.cpython-311.pyc").read_bytes() == b"code"
    assert stage.staging() == []


async def test_variables_are_not_on_disk_in_clear(stage: Stage) -> None:
    await stage.create(environment=Environment(variables={"SECRET_NAME": "hunter2hunter2"}))
    await stage.settled()
    for path in stage.state.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"hunter2" not in content
            assert b"SECRET_NAME" not in content


async def test_update_swaps_the_route_and_then_withdraws(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_module, "PLAN_KEPT_SECONDS", 0.0)
    await stage.create()
    first = await stage.settled()
    [before] = stage.targets()
    shown = await stage.update("f", NEW)
    assert (shown.state, shown.last_update_status) == (State.ACTIVE, LastUpdateStatus.IN_PROGRESS)
    assert shown.revision_id != first.revision_id
    await stage.settled()
    [after] = stage.targets()
    assert after > before
    assert stage.routed() == {"f": after}
    said = stage.dispatch_peer.kinds()
    assert said.index("DelTarget") > len(said) - 1 - said[::-1].index("PutRoute"), "the route first"
    await until(lambda: stage.launcher_peer.objects(wire.PutPlan) == {after})
    generations = [
        header.generation for header, message in stage.dispatch_peer.heard if isinstance(message, wire.PutRoute)
    ]
    assert generations == sorted(set(generations)), "each newer than the last"


async def test_configuration_keeps_what_is_not_given(stage: Stage) -> None:
    await stage.create(timeout=7, environment=Environment(variables={"KEY": "value"}))
    await stage.settled()
    request = UpdateFunctionConfigurationRequest(function_name="f", memory_size=512, runtime="python3.12")
    shown = await stage.deployer.update_configuration(request)
    assert (shown.memory_size, shown.timeout, shown.runtime) == (512, 7, "python3.12")
    assert shown.environment.variables == {"KEY": "value"}
    assert (await stage.settled()).state is State.ACTIVE
    assert len(stage.code.contents()[1]) == 2, "another runtime has a tree of its own"
    await stage.deployer.update_configuration(
        UpdateFunctionConfigurationRequest(function_name="f", environment=Environment())
    )
    assert (await stage.settled()).environment.variables == {}


async def test_conflicts(stage: Stage) -> None:
    stage.dispatch_peer.silent = True
    await stage.create()
    with pytest.raises(errors.ResourceExists):
        await stage.create()
    with pytest.raises(errors.ResourceConflict, match="being created or updated"):
        await stage.update("f", NEW)
    with pytest.raises(errors.ResourceNotFound):
        await stage.update("other", NEW)
    with pytest.raises(errors.ResourceNotFound):
        await stage.deployer.delete("other")
    stage.dispatch_peer.connection.close()
    stage.dispatch_peer = stage.new_dispatcher()
    shown = await stage.settled()
    with pytest.raises(errors.PreconditionFailed):
        await stage.update("f", NEW, revision_id="another")
    await stage.update("f", NEW, revision_id=shown.revision_id)
    assert (await stage.settled()).last_update_status is LastUpdateStatus.SUCCESSFUL


# ---- packages that are refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        (b"no zip at all", "not a zip file"),
        (build(plain("../app.py")), "leads out of the package"),
        (build(plain(), plain("b.py", crc=1)), "checksum"),
        (build(), "no files"),
    ],
)
async def test_a_bad_package_leaves_nothing(stage: Stage, package: bytes, sentence: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=sentence):
        await stage.create(package=package)
    assert await stage.functions.count() == 0
    assert stage.staging() == []
    assert stage.code.contents() == (set(), set())
    await stage.create()
    await stage.settled()
    with pytest.raises(errors.InvalidParameterValue, match=sentence):
        await stage.update("f", package)
    assert (await stage.shown()).last_update_status is LastUpdateStatus.SUCCESSFUL


async def test_a_broken_upload_leaves_nothing(stage: Stage) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield NEW[:50]
        raise ConnectionResetError("the caller went away")

    from runtimed.model.function import CreateFunctionRequest

    with pytest.raises(ConnectionResetError):
        await stage.deployer.create(
            CreateFunctionRequest(function_name="f", runtime="python3.11", handler="a.b"), broken()
        )
    assert stage.staging() == []
    assert await stage.functions.count() == 0


async def test_the_announced_digest_is_checked(stage: Stage) -> None:
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    with pytest.raises(errors.CodeVerificationFailed):
        await stage.create(upload_sha256=wrong)
    right = base64.b64encode(hashlib.sha256(NEW).digest()).decode()
    await stage.create(package=NEW, upload_sha256=right)


# ---- failures on the way -------------------------------------------------------------------------------------


async def test_a_first_rollout_that_fails_is_told_and_can_be_repaired(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_module, "RECOVER_SECONDS", 0.0)
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.FAILED, reason="its zygote left with 1")
    await stage.create()
    shown = await stage.settled()
    assert (shown.state, shown.last_update_status) == (State.FAILED, LastUpdateStatus.FAILED)
    assert "its zygote left with 1" in str(shown.state_reason)
    assert shown.state_reason_code == "InvalidRuntime"
    assert (stage.routed(), stage.targets()) == ({}, set())
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.READY)
    await stage.update("f", NEW)
    assert (await stage.settled()).state is State.ACTIVE
    rows = await stage.database.run(lambda c: c.execute("SELECT count(*) FROM targets").fetchone())
    assert rows == (1,)


async def test_a_runtime_that_fails_once_fails_no_rollout(stage: Stage) -> None:
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.FAILED, reason="its zygote left with 1")
    await stage.create()
    await until(lambda: stage.launcher_peer.objects(wire.PutPlan))
    [plan] = stage.launcher_peer.objects(wire.PutPlan)
    stage.launcher_peer.connection.send(wire.PlanState(state=wire.Progress.READY), object=plan)
    assert (await stage.settled()).state is State.ACTIVE


async def test_a_function_that_failed_for_its_runtime_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less and less often, and never while its owner changes it."""
    monkeypatch.setattr(steps_module, "RECOVER_SECONDS", 0.0)
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.FAILED, reason="its zygote left with 1")
    await stage.create()
    await stage.settled()
    asked = []
    for now in range(200):
        await stage.deployer.try_again(float(now))
        if (await stage.shown()).state is State.PENDING:
            asked.append(now)
        assert (await stage.settled()).state is State.FAILED
    assert asked == [5, 15, 35, 75, 155]
    stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.READY)
    await stage.deployer.try_again(1000.0)
    shown = await stage.settled()
    assert (shown.state, shown.state_reason) == (State.ACTIVE, UNSET)
    assert set(stage.routed()) == {"f"}
    await stage.deployer.try_again(10_000.0)
    assert (await stage.shown()).last_update_status is LastUpdateStatus.SUCCESSFUL


async def test_an_update_that_fails_leaves_the_former_one_serving(stage: Stage) -> None:
    await stage.create(timeout=5)
    before = await stage.settled()
    routed = stage.routed()
    stage.dispatch_peer.refuse = lambda m: "memory_mb" if isinstance(m, wire.PutTarget) and m.memory_mb == 512 else ""
    await stage.deployer.update_configuration(UpdateFunctionConfigurationRequest(function_name="f", memory_size=512))
    shown = await stage.settled()
    assert (shown.state, shown.last_update_status) == (State.ACTIVE, LastUpdateStatus.FAILED)
    assert "refused" in str(shown.last_update_status_reason)
    assert shown.state_reason is UNSET
    assert (shown.memory_size, shown.code_sha256) == (before.memory_size, before.code_sha256)
    assert stage.routed() == routed
    assert stage.targets() == set(routed.values())
    await stage.update("f", NEW)
    assert (await stage.settled()).last_update_status is LastUpdateStatus.SUCCESSFUL


async def test_a_runtime_that_went_away(stage: Stage) -> None:
    del stage.runtimes["python3.11"]
    await stage.create()
    shown = await stage.settled()
    assert (shown.state, shown.state_reason_code) == (State.FAILED, "InvalidRuntime")


async def test_a_defect_in_a_step_is_told_without_detail(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(number: int) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(stage.steps, "teach", broken)
    await stage.create()
    shown = await stage.settled()
    assert shown.state is State.FAILED
    assert "secret" not in str(shown.state_reason)


async def test_deletion_from_every_step(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in ("prepare", "grant", "teach", "latest", None):
        blocked = asyncio.Event()

        async def block(*arguments: object, event: asyncio.Event = blocked) -> None:
            event.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            if step is not None:
                patch.setattr(stage.routes if step == "latest" else stage.steps, step, block)
            await stage.create()
            await (blocked.wait() if step else stage.settled())
            await stage.deployer.delete("f")
        assert await stage.functions.get("f") is None
        assert (stage.routed(), stage.targets()) == ({}, set())
        rows = await stage.database.run(lambda c: c.execute("SELECT count(*) FROM targets").fetchone())
        assert rows == (0,)
        assert [path for path in stage.staging() if path.suffix == ".zip"] == []


async def test_two_deletions_at_once(stage: Stage) -> None:
    await stage.create()
    await stage.settled()
    outcomes = await asyncio.gather(stage.deployer.delete("f"), stage.deployer.delete("f"), return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, errors.ResourceNotFound) for outcome in outcomes)
    assert await stage.functions.count() == 0


async def test_a_caller_who_goes_away_does_not_strand_the_function(stage: Stage) -> None:
    """Cancelled at every turn of the loop: the function is there and becomes Active, or is not there at all."""
    for turns in range(60):
        creating = asyncio.create_task(stage.create(f"f{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
    await until(lambda: not [path for path in stage.staging() if path.suffix == ".zip"])
    await stage.deployer.settle()
    for function in await stage.functions.page("", 1000):
        assert function.state is State.ACTIVE
    assert [path for path in stage.staging() if path.suffix == ".zip"] == []


# ---- starts --------------------------------------------------------------------------------------------------


async def test_the_same_package_unpacked_twice_at_once_is_staged_once(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "same.zip"
    path.write_bytes(build(plain()))
    await asyncio.gather(*[stage.receiver._stage(path, "0" * 64) for _ in range(3)])
    await stage.receiver.drop_staged("0" * 64)
    assert not list(stage.code.staging.iterdir())


async def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.create("done")
        await stage.settled("done")
        stage.launcher_peer.silent = True
        await stage.create("half")
        await stage.update("done", NEW)
        await until(lambda: stage.launcher_peer.unanswered >= 2)
    async with staged(tmp_path) as stage:
        assert (await stage.shown("half")).state is State.PENDING
        assert (await stage.shown("done")).last_update_status is LastUpdateStatus.IN_PROGRESS
        await stage.deployer.recover()
        assert (await stage.settled("half")).state is State.ACTIVE
        assert (await stage.shown("done")).last_update_status is LastUpdateStatus.SUCCESSFUL
        assert set(stage.routed()) == {"half", "done"}
        assert stage.staging() == []


async def test_a_launcher_that_dies_fails_no_function(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.launcher_peer.plan_state = wire.PlanState(state=wire.Progress.PENDING)
        await stage.create()
        await until(lambda: stage.launcher_peer.objects(wire.PutPlan))
        stage.launcher_peer.connection.close()
        assert (await stage.settled()).state is State.PENDING
    async with staged(tmp_path) as stage:
        await stage.deployer.recover()
        assert (await stage.settled()).state is State.ACTIVE


async def test_packages_go_when_nothing_refers_to_them_any_more(stage: Stage) -> None:
    now = 0.0
    sweeper = Sweeper(stage.functions, stage.code, stage.receiver, clock=lambda: now)
    await stage.create()
    await stage.settled()
    await stage.update("f", NEW)
    await stage.settled()
    assert [len(kind) for kind in stage.code.contents()] == [2, 2]
    assert await sweeper.sweep() == 0
    now = KEPT_SECONDS - 1
    assert await sweeper.sweep() == 0, "environments of the former target may still run"
    now = KEPT_SECONDS
    assert await sweeper.sweep() == 2
    zips, trees = stage.code.contents()
    assert (zips, trees) == await stage.functions.packages_in_use()
    await stage.deployer.delete("f")
    await sweeper.sweep()
    await stage.create(package=NEW)
    await stage.settled()
    now *= 3
    assert await sweeper.sweep() == 0, "it is referred to again"
    assert stage.staging() == []


async def test_packages_of_a_withdrawn_target_go_as_soon_as_nothing_can_run_from_them(stage: Stage) -> None:
    now = 0.0
    sweeper = Sweeper(stage.functions, stage.code, stage.receiver, clock=lambda: now)
    stage.steps.withdrawn = partial(sweeper.withdrawn, init_seconds=10)
    await stage.create(timeout=7)
    await stage.settled()
    await stage.create("g", package=NEW, timeout=900)
    await stage.settled("g")
    for name in "fg":
        await stage.deployer.delete(name)
    due = longest_use(7, 10)
    assert longest_use(900, 10) <= KEPT_SECONDS
    for now, removed in ((due - 1, 0), (due, 2), (longest_use(900, 10) - 1, 0), (longest_use(900, 10), 2)):
        assert await sweeper.sweep() == removed, now
    assert stage.code.contents() == (set(), set())
    assert stage.code.ledger.used == stage.code.ledger.reserved == NOTHING


async def test_archives_go_at_once_when_room_is_short(stage: Stage) -> None:
    sweeper = Sweeper(stage.functions, stage.code, stage.receiver)
    await stage.create()
    await stage.settled()
    await stage.update("f", NEW)
    await stage.settled()
    assert await sweeper.reclaim() == 1
    zips, trees = stage.code.contents()
    assert (len(zips), len(trees)) == (1, 2)
    assert zips == (await stage.functions.packages_in_use())[0]


async def test_a_tree_that_is_gone_is_made_again_from_the_zip(stage: Stage) -> None:
    await stage.create()
    await stage.settled()
    [key] = stage.code.contents()[1]
    stage.code.remove_tree(key)
    await stage.create("g")
    assert (await stage.settled("g")).state is State.ACTIVE
    assert stage.code.has_tree(key)


async def test_pages_are_in_order_of_names(stage: Stage) -> None:
    for name in ("b", "C", "a", "d-1", "d"):
        await stage.create(name)
    names = [function.function_name for function in await stage.functions.page("", 3)]
    names += [function.function_name for function in await stage.functions.page(names[-1], 3)]
    assert names == sorted(["b", "C", "a", "d-1", "d"])


async def test_the_code_of_a_request_without_bytes(stage: Stage) -> None:
    from runtimed.model.function import CreateFunctionRequest

    with pytest.raises(errors.InvalidParameterValue, match="empty"):
        await stage.deployer.create(
            CreateFunctionRequest(function_name="f", runtime="python3.11", handler="a.b"), pieces(b"")
        )
