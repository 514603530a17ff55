"""The memory that a node has: the machine's, and that of the control groups it lies in. Read from /proc and /sys; takes
less than a millisecond, and belongs into a thread all the same.

The control groups are the node's own tree, `<own group>/runtimed-...`, and all around it up to the mount point, in
version 1's memory hierarchy where there is one, else in version 2. Any of them may have a limit: a service's, a
container's. Left of it is what is not in use, and of the page cache what the kernel would give back first.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
from msgspec import Struct

GROUPS_MOST = 65_535
"""Control groups with memory that the kernel has numbers for (MEM_CGROUP_ID_MAX), dying ones included."""
UNLIMITED = 1 << 60
"""Version 1 writes a limit about so high where there is none."""


class Reading(Struct, frozen=True, kw_only=True):
    """At one moment."""

    available: float
    """Of the memory, from 0 to 1: the least of the machine's and each limited control group's."""
    limit_bytes: int
    """Of whichever that is."""
    some_us: int
    """So long some process stood still for memory, ever: the machine's, or the tree's where that is told apart."""
    full_us: int
    """The same: all did."""
    groups: int
    """Control groups with memory, dying ones included."""


class MemoryReader:
    """`tree`: the name of the node's control group. `proc` is another directory in tests."""

    def __init__(self, tree: str, proc: Path = Path("/proc")) -> None:
        self._tree = tree
        self._proc = proc

    def read(self) -> Reading:
        machine = psutil.virtual_memory()
        least, limit = machine.available / machine.total, int(machine.total)
        places = self.places()
        for place in places:
            bytes_ = _limit(place)
            if bytes_ is None or bytes_ == 0:
                continue
            left = _left(place, bytes_) / bytes_
            if left < least:
                least, limit = left, bytes_
        stalls = [
            _stalls(self._proc / "pressure/memory"),
            *(_stalls(place / "memory.pressure") for place in places[:1]),
        ]
        return Reading(
            available=max(0.0, min(1.0, least)),
            limit_bytes=limit,
            some_us=max(some for some, _ in stalls),
            full_us=max(full for _, full in stalls),
            groups=self._groups(),
        )

    def limit_bytes(self) -> int:
        """All that the node may take: the least limit of the control groups around it, at most the machine's memory."""
        limits = [_limit(place) for place in self.places()]
        return min([int(psutil.virtual_memory().total), *(limit for limit in limits if limit)])

    def places(self) -> list[Path]:
        """The tree's directory, if it is found, and all around it."""
        found = self._own()
        if found is None:
            return []
        mount, own = found
        if self._tree in own.parts:  # the control plane has a leaf of its own in it
            return _around(mount, Path(*own.parts[: own.parts.index(self._tree) + 1]))
        for around in _around(mount, own):
            if (around / self._tree).is_dir():
                return [around / self._tree, *_around(mount, around.relative_to(mount))]
        return _around(mount, own)

    # ---- parts -----------------------------------------------------------------------------------------------

    def _own(self) -> tuple[Path, Path] | None:
        """Where the hierarchy with memory is mounted, and this process's place below it."""
        mounts = _text(self._proc / "self/mountinfo").splitlines()
        members = [line.split(":", 2) for line in _text(self._proc / "self/cgroup").splitlines() if line.count(":") > 1]
        for wanted, kind in (("memory", "cgroup"), ("", "cgroup2")):
            member = next((path for _, names, path in members if wanted in names.split(",")), None)
            for line in mounts if member is not None else ():
                words, _, tail = line.partition(" - ")
                described = tail.split()
                if described[:1] == [kind] and (not wanted or wanted in described[-1].split(",")):
                    root, mount = words.split()[3:5]
                    return Path(mount), Path(member or "/").relative_to("/") if root == "/" else _below(member, root)
        return None

    def _groups(self) -> int:
        for line in _text(self._proc / "cgroups").splitlines():
            words = line.split()
            if words[:1] == ["memory"]:
                return int(words[2])
        return 0


def _below(member: str | None, root: str) -> Path:
    """As seen through a mount that shows a part of the hierarchy."""
    with contextlib.suppress(ValueError):
        return Path(member or "/").relative_to(root)
    return Path()


def _around(mount: Path, own: Path) -> list[Path]:
    """The directory and those above it, the mount point last."""
    return [mount / own, *(mount / parent for parent in own.parents)] if own.parts else [mount]


def _text(path: Path) -> str:
    """Empty when there is none; a kernel may also have a file and refuse to tell."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _limit(place: Path) -> int | None:
    """None: none."""
    texts = [_text(place / name).strip() for name in ("memory.limit_in_bytes", "memory.max", "memory.high")]
    limits = [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if limit < UNLIMITED), default=None)


def _left(place: Path, limit: int) -> int:
    """Bytes. Of the page cache that was used lately half is taken to be needed, as the kernel reckons MemAvailable."""
    used = _text(place / "memory.usage_in_bytes") or _text(place / "memory.current")
    stat = dict(line.split(" ", 1) for line in _text(place / "memory.stat").splitlines() if " " in line)
    inactive = int(stat.get("total_inactive_file") or stat.get("inactive_file") or 0)
    active = int(stat.get("total_active_file") or stat.get("active_file") or 0)
    return limit - int(used or 0) + inactive + active // 2


def _stalls(path: Path) -> tuple[int, int]:
    """Of a pressure file, microseconds: some, full. Zeros where pressure is not measured."""
    found = {"some": 0, "full": 0}
    for line in _text(path).splitlines():
        words = line.split()
        if words and words[0] in found and words[-1].startswith("total="):
            found[words[0]] = int(words[-1].removeprefix("total="))
    return found["some"], found["full"]
