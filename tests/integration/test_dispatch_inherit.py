"""One dispatcher after another: the counters go on where those of the one before stood, if its page can be believed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.dispatch.counters import HEAD, NODE, NODE_OFFSET, buckets
from runtimed.model import wire
from tests.integration.dispatch_stage import Control, Environment, Stage, await_true, counters, target

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
PAGE = 16384 + 16384 * (4096 + 576)
SUMS = ("answers_success", "answers_function_error", "answers_refused", "abandoned")


@contextlib.contextmanager
def follower(directory: Path, page: int, features: int = 1, **changes: object) -> Iterator[tuple[Stage, Control]]:
    """A dispatcher with that page of the one before, told of target 1; it has said SERVING."""
    directory.mkdir()
    stage = Stage(directory, features=features, before=page)
    try:
        control = stage.ready(**changes)
        stage.launcher.expect(wire.Serving)
        stage.launcher.send(wire.Handed(version=1, kind=wire.HandedKind.ALL))  # no environments come
        yield stage, control
    finally:
        stage.close()


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "first").mkdir()
    stage = Stage(tmp_path / "first")
    yield stage
    stage.close()


def serve(stage: Stage, times: int, environment: Environment | None = None) -> Environment:
    """So many calls, answered by that environment, or by a new one."""
    invoker = stage.invoker()
    if environment is None:
        environment = stage.warm(invoker)
        times -= 1
    for _ in range(times):
        invoker.call()
        environment.serve()
        invoker.answer()
    return environment


def end(stage: Stage) -> None:
    """kill -9."""
    os.kill(stage.pid, signal.SIGKILL)
    assert stage.left() == -signal.SIGKILL


def tell_ended(stage: Stage) -> None:
    stage.launcher.send(wire.Handed(kind=wire.HandedKind.ALL))


def test_counts_go_on(first: Stage, tmp_path: Path) -> None:
    control = first.ready()
    serve(first, 3)
    page = counters(control)
    old = page.node()
    with follower(tmp_path / "second", control.received[0]) as (second, their):
        new = counters(their)
        assert new.started_us == page.started_us
        assert new.node()["calls"] == old["calls"] == 3
        assert new.node()["invocations"] == 3
        levels = {name: new.node()[name] for name in ("environments", "environments_idle", "connections")}
        assert not any(levels.values()), "levels are each one's own"
        [slot] = new.targets()
        assert (slot.target, slot.counts["calls"], slot.counts["success"]) == (1, 3, 3)
        assert sum(buckets(slot.durations)) == sum(buckets(new.histogram("duration_us"))) == 3
        serve(second, 2)
        [slot] = new.targets()
        assert (slot.counts["calls"], new.node()["calls"], sum(buckets(slot.durations))) == (5, 5, 5)


def test_who_still_runs_still_counts(first: Stage, tmp_path: Path) -> None:
    control = first.ready()
    theirs = serve(first, 2)
    with follower(tmp_path / "second", control.received[0]) as (second, their):
        new = counters(their)
        ours = serve(second, 1)
        serve(first, 4, theirs)
        await_true(lambda: new.node()["calls"] == 7, "what the one before goes on counting")
        first.invoker().call()
        await_true(lambda: counters(control).node()["calls_open"] == 1, "a call without an answer")
        end(first)
        tell_ended(second)
        await_true(lambda: new.node()["abandoned"] == 1, "the last counts")
        node = new.node()
        assert node["calls"] == 8 == sum(node[name] for name in SUMS)
        serve(second, 1, ours)
        assert new.target(1)["calls"] == 9  # type: ignore[index]


def test_a_chain(first: Stage, tmp_path: Path) -> None:
    control = first.ready()
    serve(first, 2)
    end(first)
    with follower(tmp_path / "second", control.received[0], features=0) as (second, their):
        serve(second, 3)
        end(second)
        with follower(tmp_path / "third", their.received[0], features=0) as (third, last):
            serve(third, 4)
            found = counters(last)
            assert (found.node()["calls"], found.target(1)["success"]) == (9, 9)  # type: ignore[index]
            assert found.started_us == counters(control).started_us


def test_targets_that_are_gone_are_left_out(first: Stage, tmp_path: Path) -> None:
    control = first.ready()
    control.acknowledged(control.put(target(function_uid=b"\7" * 16), 2))
    serve(first, 1)
    with follower(tmp_path / "second", control.received[0], features=0) as (_, their):
        found = counters(their)
        assert [slot.target for slot in found.targets()] == [1]
        their.acknowledged(their.put(wire.DelRoute(), 1, 2))
        their.acknowledged(their.put(wire.DelTarget(), 1, 2))
        assert not list(found.targets()), "its counts go with it"
        assert found.node()["calls"] == 1


def made(head: tuple[int, ...], seals: int = SEALS, size: int = PAGE) -> int:
    """A page with that head."""
    page = os.memfd_create("counters", os.MFD_ALLOW_SEALING)
    os.ftruncate(page, size)
    os.pwrite(page, HEAD.pack(*head, 0, 0, 0, 0), 0)  # gaps are not taken over
    os.pwrite(page, b"\1\0\0\0\0\0\0\0" * len(NODE), NODE_OFFSET)
    fcntl.fcntl(page, fcntl.F_ADD_SEALS, seals)
    return page


GOOD = (0x50435452, 1, PAGE, 16384, 4096, 240, len(NODE), 6, 23, 16384, 77, 3, 1, 0, 1)


def changed(**values: int) -> tuple[int, ...]:
    names = "magic version size slots width buckets node histograms slot offset since high regions region loops".split()
    return tuple(values.get(name, value) for name, value in zip(names, GOOD, strict=True))


def test_one_with_that_head_is_read(tmp_path: Path) -> None:
    page = made(changed(node=3, high=2**63))
    with follower(tmp_path / "second", page) as (_, control):
        found = counters(control)
        assert (found.started_us, found.node()["calls"], found.node()["answers_refused"]) == (77, 1, 0)
    os.close(page)


def test_one_without_gaps_is_read(tmp_path: Path) -> None:
    """As builds before them made it."""
    size = 16384 + 16384 * 4096
    page = made(changed(size=size, regions=2), size=2 * size)
    os.pwrite(page, (5).to_bytes(8, "little"), size + NODE_OFFSET)
    with follower(tmp_path / "second", page) as (_, control):
        assert counters(control).node()["calls"] == 6
    os.close(page)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (changed(version=2), {}),
        (changed(magic=1), {}),
        (changed(slots=8), {}),
        (changed(width=64), {}),
        (changed(buckets=1), {}),
        (changed(size=PAGE - 4), {"size": PAGE - 4}),
        (changed(size=4096), {"size": 4096}),
        (changed(size=2**31), {}),
        (changed(regions=2), {}),
        (changed(regions=0), {}),
        (changed(regions=66), {"size": 66 * PAGE}),
        (GOOD, {"size": PAGE - 1}),
        (GOOD, {"size": 0}),
        (GOOD, {"seals": fcntl.F_SEAL_GROW}),
    ],
)
def test_one_that_cannot_be_believed_is_not_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], head: tuple[int, ...], more: dict[str, int]
) -> None:
    page = made(head, **{"seals": SEALS, **more})
    with follower(tmp_path / "second", page) as (stage, control):
        found = counters(control)
        assert found.started_us > 77
        assert found.node()["calls"] == 0
        serve(stage, 1)
        assert found.node()["calls"] == 1
    os.close(page)
    assert "all start at zero" in capfd.readouterr().err


def test_what_is_no_page_is_not_read(tmp_path: Path) -> None:
    for number, page in enumerate((*os.pipe(), os.open(tmp_path, os.O_RDONLY))):
        with follower(tmp_path / str(number), page) as (_, control):
            assert counters(control).node()["calls"] == 0
        os.close(page)


def test_a_count_that_goes_back_is_not_followed(tmp_path: Path) -> None:
    page = made(GOOD)
    at = NODE_OFFSET + NODE.index("http_requests") * 8
    os.pwrite(page, (50).to_bytes(8, "little"), at)
    with follower(tmp_path / "second", page) as (stage, control):
        found = counters(control)
        assert found.node()["http_requests"] == 50
        os.pwrite(page, (7).to_bytes(8, "little"), at)
        os.pwrite(page, (9).to_bytes(8, "little"), NODE_OFFSET + NODE.index("streams") * 8)
        tell_ended(stage)
        await_true(lambda: found.node()["streams"] == 9, "the last counts")
        assert found.node()["http_requests"] == 50
    os.close(page)


def test_a_page_is_opened_once(first: Stage) -> None:
    """A second HELLO brings nothing."""
    page = made(GOOD)
    first.launcher.send(wire.Hello(role=wire.Role.LAUNCHER, build="b1"), fds=(page,), epoch=1)
    first.launcher.send(wire.Hello(role=wire.Role.LAUNCHER, build="b1"), fds=(page,), epoch=1)
    control = first.ready()
    assert counters(control).node()["streams"] == 1
    os.close(page)
