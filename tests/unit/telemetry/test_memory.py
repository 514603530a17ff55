"""The memory that a node has, read from files as the kernel writes them, for each way of mounting control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimed.telemetry.memory import GROUPS_MOST, MemoryReader

TREE = "runtimed-00c0ffee"
MB = 1 << 20


class Machine:
    """A /proc, and a hierarchy with the node's tree below `own`."""

    def __init__(self, directory: Path, *, version: int, own: str, root: str = "/", tree_in: str | None = None) -> None:
        """`own`: of the process that reads; `root`: what the mount shows; `tree_in`: where the tree is."""
        self.proc, self.mount = directory / "proc", directory / "groups"
        self.version = version
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "pressure").mkdir()
        kind = "cgroup cgroup rw,memory" if version == 1 else "cgroup2 cgroup2 rw"
        other = f"29 21 0:1 / {directory}/cpu rw - cgroup cgroup rw,cpu\n"
        (self.proc / "self/mountinfo").write_text(f"{other}30 21 0:2 {root} {self.mount} rw,nosuid shared:9 - {kind}\n")
        members = f"9:cpu:/elsewhere\n4:memory:{own}\n0::/\n" if version == 1 else f"0::{own}\n"
        (self.proc / "self/cgroup").write_text(members)
        (self.proc / "cgroups").write_text("#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t1234\t1\n")
        self.tree = self.mount / (tree_in if tree_in is not None else own.removeprefix(root).strip("/")) / TREE
        self.tree.mkdir(parents=True)

    def pressure(self, path: Path, some: int, full: int) -> None:
        path.write_text(
            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={some}\n"
            f"full avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"
        )

    def group(self, path: Path, *, limit: int | None, used: int, inactive: int = 0, active: int = 0) -> None:
        prefix = "total_" if self.version == 1 else ""
        stat = f"anon 1\n{prefix}inactive_file {inactive * MB}\n{prefix}active_file {active * MB}\n"
        (path / "memory.stat").write_text(stat)
        if self.version == 1:
            (path / "memory.limit_in_bytes").write_text(f"{limit * MB if limit else 9223372036854771712}\n")
            (path / "memory.usage_in_bytes").write_text(f"{used * MB}\n")
        else:
            (path / "memory.max").write_text(f"{limit * MB}\n" if limit else "max\n")
            (path / "memory.high").write_text("max\n")
            (path / "memory.current").write_text(f"{used * MB}\n")

    def reader(self) -> MemoryReader:
        return MemoryReader(TREE, self.proc)


@pytest.mark.parametrize("version", [1, 2])
def test_the_group_with_least_left_counts(tmp_path: Path, version: int) -> None:
    machine = Machine(tmp_path, version=version, own="/services/some.service")
    machine.group(machine.tree, limit=None, used=30)
    assert machine.reader().limit_bytes() > 200 * MB
    machine.group(machine.tree.parent, limit=200, used=190, inactive=20, active=8)
    assert machine.reader().read().available == pytest.approx(34 / 200)
    machine.group(machine.tree, limit=40, used=38)
    found = machine.reader().read()
    assert (found.available, found.limit_bytes) == (pytest.approx(2 / 40), 40 * MB)
    assert machine.reader().limit_bytes() == 40 * MB
    machine.group(machine.tree.parent.parent, limit=100, used=101)  # more than there may be: nothing is left
    assert (machine.reader().read().available, machine.reader().read().groups) == (0, 1234)
    assert GROUPS_MOST > 1234


@pytest.mark.parametrize(
    ("own", "root", "tree_in"),
    [
        ("/a.service/runtimed-self", "/", "a.service"),  # the launcher stepped aside
        (f"/a.service/{TREE}/control", "/", "a.service"),  # a leaf of the control plane's own
        ("/session-1.scope", "/", ""),  # others sit there, so that the hierarchy's root served
        ("/container/a.service", "/container", "a.service"),  # only a part is shown
        ("/../elsewhere", "/container", ""),  # of which nothing is shown that this process is in
        ("/", "/", ""),
    ],
)
def test_the_tree_is_found(tmp_path: Path, own: str, root: str, tree_in: str) -> None:
    machine = Machine(tmp_path, version=2, own=own, root=root, tree_in=tree_in)
    (machine.mount / own.removeprefix(root).strip("/").replace("../", "")).mkdir(parents=True, exist_ok=True)
    places = machine.reader().places()
    assert places[0] == machine.tree
    assert places == [machine.tree, *machine.tree.parents][: len(places)] and places[-1] == machine.mount


def test_stalls(tmp_path: Path) -> None:
    """The machine's, or the tree's own; where neither is measured, none."""
    machine = Machine(tmp_path, version=2, own="/")
    found = machine.reader().read()
    assert (found.some_us, found.full_us) == (0, 0)
    machine.pressure(machine.proc / "pressure/memory", 700, 50)
    machine.pressure(machine.tree / "memory.pressure", 600, 500)
    found = machine.reader().read()
    assert (found.some_us, found.full_us) == (700, 500)


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    """The machine's own memory is all there is."""
    found = MemoryReader(TREE, tmp_path).read()
    assert 0 < found.available <= 1 and found.groups == 0
    assert MemoryReader(TREE, tmp_path).limit_bytes() == found.limit_bytes


def test_this_machine() -> None:
    found = MemoryReader("runtimed-none").read()
    assert 0 < found.available <= 1 and found.limit_bytes > MB and found.groups > 0
