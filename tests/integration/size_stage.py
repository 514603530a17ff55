"""What the tests of size look at: how much each process holds, and what lies on disk and in the kernel."""

from __future__ import annotations

import io
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from bench.node import Node, cgroups

CODE = """
import os

TAG = {tag!r}

def handler(event, context):
    return [context.function_name, os.environ["MARK"], TAG, event]
"""


def package(tag: object) -> bytes:
    """A function that answers with its name, its variable MARK, `tag` and the event; others have other bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("app.py"), CODE.format(tag=tag))
    return made.getvalue()


class Figures(Struct, frozen=True, kw_only=True):
    """A node at one moment."""

    memory_kb: dict[str, int]
    """By role: resident memory of its own, what it shares with nobody."""
    descriptors: dict[str, int]
    packages: int
    staging: int
    log_folders: int
    database_kb: int
    cgroups: int

    def line(self) -> str:
        memory = ", ".join(f"{role} {kb / 1024:.1f} MB" for role, kb in self.memory_kb.items())
        descriptors = ", ".join(f"{role} {count}" for role, count in self.descriptors.items())
        return (
            f"memory: {memory}; descriptors: {descriptors}; packages {self.packages}, staging {self.staging}, "
            f"log folders {self.log_folders}, database {self.database_kb} kB, cgroups {self.cgroups}"
        )


def figures(node: Node) -> Figures:
    roles = node.roles()
    return Figures(
        memory_kb={role: private_kb(pid) for role, pid in roles.items()},
        descriptors={role: len(os.listdir(f"/proc/{pid}/fd")) for role, pid in roles.items()},
        packages=sum(1 for kind in ("zip", "sha256") for _ in (node.state_dir / "packages" / kind).iterdir()),
        staging=sum(1 for _ in (node.state_dir / "staging").iterdir()),
        log_folders=sum(1 for _ in (node.state_dir / "logs").iterdir()),
        database_kb=sum(path.stat().st_size for path in node.state_dir.glob("runtimed.db*")) // 1024,
        cgroups=sum(1 for top in cgroups(node.cgroup) for _ in folders(top)),
    )


def folders(top: Path) -> Iterator[Path]:
    for directory, names, _ in os.walk(top):
        yield from (Path(directory) / name for name in names)


def private_kb(pid: int) -> int:
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total


@contextmanager
def took(what: str, count: int) -> Iterator[None]:
    """Prints what a part took, and each of `count`."""
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    print(f"{what}: {count} in {seconds:.1f} s, {seconds / count * 1000:.1f} ms each, {count / seconds:.1f}/s")
