"""Launch plans: what the launcher must know to make a sandbox for a target."""

from __future__ import annotations

from runtimed.machines.pools import Grant
from runtimed.model import wire


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
    )
