"""Frames of bytecode from a task that may print anything."""

from __future__ import annotations

import stat
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimed.deployment.compile import FILE_MAX, Frames, compile_tree
from runtimed.model import wire
from tests.integration.control_stage import Stage, staged

END = struct.pack("<II", 0, 2) + b"{}"


def frame(path: str | bytes, data: bytes = b"code") -> bytes:
    raw = path.encode() if isinstance(path, str) else path
    return struct.pack("<I", len(raw)) + raw + struct.pack("<I", len(data)) + data


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "staged" / "tree"
    (tree / "package").mkdir(parents=True)
    (tree / "app.py").write_text("x = 1\n")
    (tree / "package" / "größe.py").write_text("y = 2\n")
    return tree


def listing(tree: Path) -> set[str]:
    return {str(path.relative_to(tree.parent)) for path in tree.parent.rglob("*")}


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_pieces_of_any_size(tree: Path, size: int) -> None:
    stream = frame("__pycache__/app.cpython-311.pyc", b"a" * 999)
    stream += frame("package/__pycache__/größe.cpython-311.pyc", b"") + END
    frames = Frames(tree, "311")
    for at in range(0, len(stream), size):
        frames.feed(stream[at : at + size])
    assert (frames.error, frames.files, frames.bytes) == (None, 2, 999)
    made = tree / "__pycache__" / "app.cpython-311.pyc"
    assert made.read_bytes() == b"a" * 999
    assert stat.S_IMODE(made.stat().st_mode) == 0o644
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o755
    assert (tree / "package/__pycache__/größe.cpython-311.pyc").read_bytes() == b""


HOSTILE = [
    "../__pycache__/app.cpython-311.pyc",
    "package/../__pycache__/app.cpython-311.pyc",
    "/tmp/__pycache__/app.cpython-311.pyc",
    "./__pycache__/app.cpython-311.pyc",
    "__pycache__/../app.cpython-311.pyc",
    "__pycache__/__pycache__/app.cpython-311.pyc",
    "app.cpython-311.pyc",
    "app.py",
    "__pycache__/app.py",
    "__pycache__/app.cpython-312.pyc",
    "__pycache__/app.cpython-311.pyc/",
    "__pycache__/app.cpython-311.pyc\0",
    "__pycache__/other.cpython-311.pyc",
    "package/__pycache__/app.cpython-311.pyc",
    "nowhere/__pycache__/app.cpython-311.pyc",
    b"__pycache__/\xff.cpython-311.pyc",
    "a" * 1025,
]


@pytest.mark.parametrize("path", HOSTILE)
def test_any_other_path_ends_the_reading(tree: Path, path: str | bytes) -> None:
    before = listing(tree)
    frames = Frames(tree, "311")
    assert not frames.feed(frame(path) + frame("__pycache__/app.cpython-311.pyc") + END)
    assert frames.error is not None
    assert frames.files == 0
    assert listing(tree) == before


def test_links_are_not_followed(tree: Path, tmp_path: Path) -> None:
    (tree / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    (tmp_path / "elsewhere.py").write_text("")
    frames = Frames(tree, "311")
    assert not frames.feed(frame("__pycache__/linked.cpython-311.pyc"))


def test_what_the_package_brought_is_replaced_or_left(tree: Path) -> None:
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"brought along")
    (tree / "package" / "__pycache__").write_bytes(b"a file of that name")
    frames = Frames(tree, "311")
    frames.feed(
        frame("__pycache__/app.cpython-311.pyc", b"ours") + frame("package/__pycache__/größe.cpython-311.pyc") + END
    )
    assert frames.error is None
    assert (tree / "__pycache__" / "app.cpython-311.pyc").read_bytes() == b"ours"
    assert (tree / "package" / "__pycache__").read_bytes() == b"a file of that name"


def test_sizes_are_bounded_before_they_are_believed(tree: Path) -> None:
    path = b"__pycache__/app.cpython-311.pyc"
    head = struct.pack("<I", len(path)) + path + struct.pack("<I", FILE_MAX + 1)
    assert not Frames(tree, "311").feed(head)
    assert not Frames(tree, "311").feed(struct.pack("<I", 0xFFFFFFFF))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(1, 50))
def test_noise_writes_nothing(tree: Path, noise: bytes, size: int) -> None:
    before = listing(tree)
    frames = Frames(tree, "311")
    for at in range(0, len(noise), size):
        if not frames.feed(noise[at : at + size]):
            break
    assert listing(tree) == before


# ---- through the launcher ------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path / "state") as made:
        yield made


async def test_much_output_and_the_request(stage: Stage, tree: Path) -> None:
    asked: list[wire.Task] = []

    def output(task: wire.Task) -> bytes:
        asked.append(task)
        return frame("__pycache__/app.cpython-311.pyc", b"x" * 3_000_000) + END

    stage.launcher_peer.output = output
    assert await compile_tree(stage.launcher, tree, 4, "python3.11") == 1
    [task] = asked
    assert (task.kind, task.interpreter, task.staging) == (wire.TaskKind.COMPILE, 4, "staged")


@pytest.mark.parametrize(
    "end",
    [
        wire.TaskDone(status=256),
        wire.TaskDone(status=9),
        wire.TaskDone(timed_out=1),
        wire.TaskDone(oom=1),
        wire.TaskDone(step="mount", error=1),
    ],
)
async def test_a_task_that_fails_is_no_failure_of_the_deployment(stage: Stage, tree: Path, end: wire.TaskDone) -> None:
    stage.launcher_peer.task_end = end
    stage.launcher_peer.output = lambda task: frame("__pycache__/app.cpython-311.pyc") + b"\x09\0\0\0cut"
    assert await compile_tree(stage.launcher, tree, 0, "python3.11") == (0 if end.step else 1)


async def test_endless_output_is_thrown_away(stage: Stage, tree: Path) -> None:
    stage.launcher_peer.output = lambda task: b"\xff" * 20_000_000
    stage.launcher_peer.errors = b"complaint\n" * 100_000
    assert await compile_tree(stage.launcher, tree, 0, "python3.11") == 0


async def test_a_refused_or_lost_task(stage: Stage, tree: Path) -> None:
    stage.launcher_peer.refuse = lambda message: "staging" if isinstance(message, wire.Task) else ""
    assert await compile_tree(stage.launcher, tree, 0, "python3.11") == 0
    stage.launcher_peer.connection.close()
    assert await compile_tree(stage.launcher, tree, 0, "python3.11") == 0
