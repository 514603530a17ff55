"""The machine's figures, through psutil; off any hot path."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import psutil

from runtimed.model.node import HostStatus, ProcessStatus

_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}


def architecture() -> str:
    """As Lambda names it: x86_64 or arm64."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def host_status(state: Path) -> HostStatus:
    memory = psutil.virtual_memory()
    return HostStatus(
        kernel=platform.release(),
        architecture=architecture(),
        cpus=os.cpu_count() or 1,
        cpu_percent=psutil.cpu_percent(),
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        disk_free_bytes=psutil.disk_usage(str(state)).free,
    )


def cpu_seconds() -> tuple[float, float]:
    """Of the whole machine since it started: at work, and in all."""
    times = psutil.cpu_times()
    idle = times.idle + times.iowait
    whole = sum(times[:8])  # user time holds a guest's already
    return whole - idle, whole


def own_processes(zygotes: list[tuple[str, int]]) -> list[ProcessStatus]:
    """The node's: the launcher is our parent, and the parent of the others. `zygotes`: runtime and pid."""
    try:
        launcher = psutil.Process(os.getppid())
        processes = [("runtimed-launcher", launcher), ("runtimed", psutil.Process())]
        # The kernel keeps 15 characters of a name.
        dispatchers = [child for child in launcher.children() if child.name().startswith("runtimed-dispat")]
        processes += [("runtimed-dispatch", child) for child in dispatchers]
        processes += [(f"zygote {runtime}", psutil.Process(pid)) for runtime, pid in zygotes if psutil.pid_exists(pid)]
    except psutil.Error:
        return []
    found = []
    for name, process in processes:
        try:
            times = process.cpu_times()
            found.append(
                ProcessStatus(
                    name=name,
                    pid=process.pid,
                    memory_bytes=_memory(process),
                    cpu_ms=int((times.user + times.system) * 1000),
                    started_at=datetime.fromtimestamp(process.create_time(), UTC),
                )
            )
        except psutil.Error:
            continue  # gone meanwhile
    return found


def open_descriptors(pid: int) -> int | None:
    """How many file descriptors a process has open; None when it cannot be told: kernels before 6.2 tell only the
    process's own user."""
    path = f"/proc/{pid}/fd"
    try:
        return os.stat(path).st_size or len(os.listdir(path))
    except OSError:
        return None


def _memory(process: psutil.Process) -> int:
    """Proportional where the kernel lets us see it (our own), else resident."""
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
