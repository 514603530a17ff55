"""Launch plans: what the launcher must know to make a sandbox for a target."""

from __future__ import annotations

from runtimed.machines.pools import Grant
from runtimed.model import wire
from runtimed.model.function import Snapshot

_REFUSALS = {
    wire.SnapshotRefusal.THREADS: "threads were running at the end of the init phase",
    wire.SnapshotRefusal.DESCRIPTORS: "files, sockets or pipes were open at the end of the init phase",
    wire.SnapshotRefusal.SHARED: "the init phase left memory that is shared with other processes",
    wire.SnapshotRefusal.CHILDREN: "the init phase left other processes running",
    wire.SnapshotRefusal.TIMERS: "a timer was running at the end of the init phase",
    wire.SnapshotRefusal.IPC: "the init phase left System V IPC objects",
    wire.SnapshotRefusal.FILES: "the init phase left files in /tmp",
    wire.SnapshotRefusal.MAPPINGS: "the init phase mapped something into memory that cannot be mapped again",
    wire.SnapshotRefusal.FILTERS: "the init phase put the process under further seccomp filters",
    wire.SnapshotRefusal.TOO_LARGE: "the memory after the init phase is too large",
}
_FAILED = "the copy of an initialised environment could not be made, or copies ended at once"


def launch_plan(
    *,
    runtime: str,
    package: str,
    memory_mb: int,
    storage_mb: int,
    processes: int,
    descriptors: int,
    cpu: str,
    grant: Grant,
    snapshot: wire.SnapshotMode,
) -> wire.PutPlan:
    """The plan of one target. Its number is the target's."""
    return wire.PutPlan(
        max=grant.environments,
        rate=grant.launches_per_second,
        runtime=runtime,
        package=package,
        memory_mb=memory_mb,
        storage_mb=storage_mb,
        pids=processes,
        descriptors=descriptors,
        cpu=wire.CpuMode.HARD if cpu == "hard" else wire.CpuMode.WEIGHT,
        snapshot=snapshot,
    )


def snapshot(state: wire.PlanState | None) -> Snapshot:
    """What the launcher said last of a plan's snapshot."""
    if state is None:
        return Snapshot(ready=False)
    refused = ""
    if state.snapshot == wire.SnapshotState.REFUSED:
        refused = next((text for refusal, text in _REFUSALS.items() if refusal == state.refusal), _FAILED)
    return Snapshot(ready=state.snapshot == wire.SnapshotState.READY, refused=refused)
