"""Room on disk: what is counted, what is refused before it is written, and that it all comes back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from runtimed.deployment import uploads
from runtimed.model import errors
from runtimed.model.function import CreateFunctionRequest, State, UpdateFunctionConfigurationRequest
from runtimed.store.ledger import NOTHING, Disk, Ledger, NoRoom, Size, size_of
from runtimed.store.packages import CodeStore
from tests.integration.control_stage import Stage, pieces, staged
from tests.integration.peers import until
from tests.integration.zips import build, plain

MANY = [plain(f"m{n}.py") for n in range(50)]


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


def limit(stage: Stage, *, bytes: int = 1 << 30, files: int = 10_000) -> None:
    stage.code.ledger.limit = Size(bytes, files)


async def deploy(stage: Stage, name: str, *files: object) -> None:
    await stage.create(name, build(*files))  # type: ignore[arg-type]
    assert (await stage.settled(name)).state is State.ACTIVE


def nothing_on_its_way(stage: Stage) -> None:
    assert stage.code.ledger.reserved == NOTHING
    assert stage.staging() == []


async def test_the_ledger_says_what_is_there(stage: Stage) -> None:
    await deploy(stage, "f", plain())
    await deploy(stage, "g", plain("a/b/c.py"), plain())
    ledger = stage.code.ledger
    here = sum((size_of(path) for path in (*stage.code.zips.iterdir(), *stage.code.trees.iterdir())), NOTHING)
    assert ledger.used == here
    nothing_on_its_way(stage)
    again = CodeStore(stage.state)
    again.measure()
    assert again.ledger.used == here, "and so after a restart"


async def test_unpacked_files_count(stage: Stage) -> None:
    """A small archive of many files is refused for its files, one that unpacks large for its bytes."""
    await deploy(stage, "f", plain())
    used = stage.code.ledger.used
    limit(stage, files=used.files + 40)
    with pytest.raises(errors.CodeStorageExceeded, match=r"files are used.*code_files"):
        await stage.create("g", build(*MANY))
    nothing_on_its_way(stage)
    limit(stage, bytes=used.bytes + (2 << 20))
    with pytest.raises(errors.CodeStorageExceeded, match=r"MB are used.*Delete functions.*code_storage_mb"):
        await stage.create("g", build(plain("zeros.py", content=bytes(8 << 20))))
    nothing_on_its_way(stage)
    assert stage.code.ledger.used == used
    assert await stage.functions.count() == 1
    limit(stage)
    await deploy(stage, "g", *MANY)


async def test_uploads_are_refused_while_they_arrive(stage: Stage) -> None:
    limit(stage, bytes=3 << 20)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield bytes(1 << 16)

    with pytest.raises(errors.CodeStorageExceeded):
        async with stage.receiver.receive(endless(), msgspec.UNSET):
            pass
    assert sent <= 4 << 20
    nothing_on_its_way(stage)


async def test_room_is_made_by_what_nobody_needs(stage: Stage) -> None:
    """Before a deployment is refused, packages that may go are removed."""
    calls = []

    async def reclaim() -> int:
        calls.append(stage.code.ledger.used)
        stage.code.remove_tree(next(iter(stage.code.contents()[1])))
        return 1

    await deploy(stage, "f", *MANY)
    await stage.deployer.delete("f")
    stage.receiver.reclaim = reclaim
    limit(stage, files=stage.code.ledger.used.files + 20)
    await deploy(stage, "g", *[plain(f"n{n}.py") for n in range(50)])
    assert len(calls) == 1


async def test_a_nearly_full_disk(stage: Stage) -> None:
    """Deployments stop before the reserve is touched, and go on when there is room."""
    await deploy(stage, "f", plain())
    ledger = stage.code.ledger
    free = os.statvfs(stage.state).f_bavail * os.statvfs(stage.state).f_frsize
    ledger.disk = Disk(stage.state, free * 2)
    with pytest.raises(errors.CodeStorageExceeded, match="must stay so"):
        await stage.create("g", build(*MANY))
    nothing_on_its_way(stage)
    ledger.disk = Disk(stage.state)
    await deploy(stage, "g", *MANY)


async def test_a_change_that_needs_another_tree_fails_and_leaves_the_function(stage: Stage) -> None:
    await deploy(stage, "f", *MANY)
    limit(stage, files=stage.code.ledger.used.files + 10)
    await stage.deployer.update_configuration(
        UpdateFunctionConfigurationRequest(function_name="f", runtime="python3.12")
    )
    shown = await stage.settled()
    assert (shown.runtime, shown.state) == ("python3.11", State.ACTIVE)
    assert shown.last_update_status_reason_code == "InsufficientCodeStorage"
    nothing_on_its_way(stage)


def test_reservations_are_exact(tmp_path: Path) -> None:
    ledger = Ledger(Size(100_000, 10), Disk(tmp_path))
    first, second = ledger.reserve(), ledger.reserve()
    first.grow(60_000, 2)
    with pytest.raises(NoRoom):
        second.grow(60_000, 1)
    second.grow(40_000, 8)
    with pytest.raises(NoRoom):
        first.grow(0, 1)
    first.release()
    first.release()
    assert ledger.reserved == Size(40_000, 8)
    ledger.keep("x", Size(50_000, 1))
    ledger.keep("x", Size(60_000, 1))
    with pytest.raises(NoRoom):
        second.grow(1, 0)
    ledger.drop("x")
    ledger.drop("x")
    second.release()
    assert ledger.used == ledger.reserved == NOTHING


# ---- slow and many -------------------------------------------------------------------------------------------


async def stalled(package: bytes) -> AsyncIterator[bytes]:
    yield package[:10]
    await asyncio.Event().wait()


async def test_a_sender_who_falls_silent_is_cut(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.patience = 0.2
    await stage.start()
    try:
        with pytest.raises(errors.RequestTimedOut, match="10 bytes"):
            async with stage.receiver.receive(stalled(build(plain())), msgspec.UNSET):
                pass
        nothing_on_its_way(stage)
        await deploy(stage, "f", plain())
    finally:
        await stage.stop()


async def test_a_sender_of_single_bytes_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silent for long, and still too slow on the whole."""
    monkeypatch.setattr(uploads, "RATE_MIN", 1000)
    came = 0

    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    async def take() -> None:
        nonlocal came
        async for piece in uploads.paced(trickle(), 0.3):
            came += len(piece)

    with pytest.raises(errors.RequestTimedOut):
        await take()
    assert 1 <= came < 100


async def test_uploads_at_a_time_are_bounded(stage: Stage) -> None:
    """Others are refused at once, and taken when a place is free."""
    senders = [asyncio.create_task(stage.deployer.create(request(f"s{n}"), stalled(build(plain())))) for n in range(4)]
    await until(lambda: len(list(stage.code.staging.glob("*.zip"))) == 4)
    with pytest.raises(errors.TooManyRequests) as refused:
        await stage.create("f")
    assert refused.value.retry_after
    senders[0].cancel()
    await asyncio.wait(senders[:1])
    await deploy(stage, "f", plain())
    for sender in senders:
        sender.cancel()
    await asyncio.wait(senders)
    nothing_on_its_way(stage)


def request(name: str) -> CreateFunctionRequest:
    return CreateFunctionRequest(function_name=name, runtime="python3.11", handler="app.handler")


async def test_stage_is_left_as_it_was(stage: Stage) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        await stage.deployer.create(request("f"), pieces(b"no zip"))
    nothing_on_its_way(stage)
