"""The search for what a node left behind finds each thing that a node could leave."""

from __future__ import annotations

import os
import pathlib
import subprocess
import types
from collections.abc import Iterator

import pytest

from bench.node import Node, await_true, cgroups, namespaces, processes


@pytest.fixture
def gone(tmp_path: pathlib.Path) -> Node:
    """A node that has ended: its directories, no processes."""
    node = Node.__new__(Node)
    node.directory, node.state_dir, node.run_dir = tmp_path, tmp_path / "state", tmp_path / "run"
    node.cgroup = f"runtimed-test{os.getpid()}"
    node.launcher = types.SimpleNamespace(pid=-1)  # type: ignore[assignment]
    for folder in (node.state_dir / "tmp", node.run_dir):
        folder.mkdir(parents=True)
    return node


@pytest.fixture
def stray() -> Iterator[subprocess.Popen[bytes]]:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with subprocess.Popen(["unshare", "--uts", "sleep", "600"]) as process:
        await_true(lambda: pathlib.Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", 30, "the stray's start")
        yield process
        process.kill()


def test_nothing(gone: Node) -> None:
    assert gone.leftovers([], set()) == []


def test_file(gone: Node) -> None:
    (gone.state_dir / "tmp" / "image").touch()
    assert gone.leftovers([], set()) == [f"file {gone.state_dir}/tmp/image"]


def test_process_and_namespace(gone: Node, stray: subprocess.Popen[bytes]) -> None:
    spaces = namespaces([stray.pid]) - namespaces([os.getpid()])
    assert len(spaces) == 1
    found = gone.leftovers([processes()[stray.pid][0]], spaces)
    assert found == [f"process {stray.pid}: sleep sleep 600", f"namespace {next(iter(spaces))}"]


def test_cgroup_and_its_process(gone: Node, stray: subprocess.Popen[bytes]) -> None:
    top = pathlib.Path("/sys/fs/cgroup")
    cgroup = next(path for path in (top / "pids", top) if (path / "cgroup.procs").exists()) / gone.cgroup
    cgroup.mkdir()
    try:
        assert cgroups(gone.cgroup) == [cgroup]
        (cgroup / "cgroup.procs").write_text(str(stray.pid))
        found = gone.leftovers([], set())
        assert found == [f"process {stray.pid} in its cgroup: sleep 600", f"cgroup {cgroup}"]
        (cgroup.parent / "cgroup.procs").write_text(str(stray.pid))
    finally:
        stray.kill()
        stray.wait()
        cgroup.rmdir()


def test_mount_and_loop_device(gone: Node, stray: subprocess.Popen[bytes]) -> None:
    image, point = gone.state_dir / "image", gone.state_dir / "mounted"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 20)
    command = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True)
    try:
        found = gone.leftovers([], set())
    finally:
        subprocess.run(["umount", str(point)], check=True)
        subprocess.run(["losetup", "--detach", device], check=True)
    assert [line.split()[0] for line in found] == ["mount", "loop"]
    assert str(point) in found[0]
    assert found[1] == f"loop device {device} of {image}"
