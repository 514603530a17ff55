"""Memory of every kind that the kernel counts: what memory.max holds, what it does not and something else has to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.outcomes import Outcome
from tests.security.abuse.stage import Stage

PROCESSES_LEFT = 9  # the runtime and eight children that hold on


def holding(found: Mapping[str, Any]) -> None:
    """The children live on after the reply, as on Lambda."""
    assert len(found["processes"]) == PROCESSES_LEFT
    assert found["tmp"] == []


@pytest.mark.case("abuse", "memory of its own")
def test_anonymous(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "anonymous"}, rounds=2, timeout=60)
    seen.out_of_memory()
    outcome("`Runtime.OutOfMemory`, the next call in a new environment", seen.neighbour)


@pytest.mark.case("abuse", "memory shared between processes")
def test_shared_mapping(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "shared_mapping"}, rounds=1, timeout=60)
    seen.out_of_memory()
    outcome("`Runtime.OutOfMemory`", seen.neighbour)


@pytest.mark.case("abuse", "memory of many children")
def test_children(stage: Stage, outcome: Outcome) -> None:
    """cgroup v2 ends them all, v1 the largest: its parent goes on."""
    seen = stage.suffer("memory", {"deed": "in_children"}, rounds=1, timeout=60)
    if b"OutOfMemory" in seen.results[0].payload:
        seen.out_of_memory()
    else:
        seen.exited("exit status 5")
    outcome("the limit is for all of them together", seen.neighbour)


@pytest.mark.case("abuse", "page cache of files in `/tmp`")
def test_page_cache(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "page_cache"}, rounds=1, timeout=60)
    assert seen.values() == [400]
    outcome("400 MB through a 128 MB function: the cache is given back", seen.neighbour)


@pytest.mark.case("abuse", "dirty pages of a mapped file in `/tmp`")
def test_dirty_mapping(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "dirty_mapping"}, rounds=1, timeout=60)
    assert seen.values() == [400]
    outcome("400 MB dirtied by a 128 MB function: written back as it goes", seen.neighbour)


@pytest.mark.case("abuse", "memfd")
def test_memfd(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "memfd"}, rounds=1, timeout=60)
    seen.out_of_memory()
    outcome("`Runtime.OutOfMemory`", seen.neighbour)


@pytest.mark.case("abuse", "System V shared memory that nobody is attached to")
def test_system_v(stage: Stage, outcome: Outcome) -> None:
    """It outlives the process; with the ipc namespace it goes."""
    seen = stage.suffer("memory", {"deed": "system_v"}, rounds=2, timeout=60)
    seen.out_of_memory()
    outcome("`Runtime.OutOfMemory`; gone with the sandbox", seen.neighbour)


@pytest.mark.case("abuse", "System V message queues")
def test_messages(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "messages"}, rounds=1, timeout=60)
    seen.out_of_memory()
    outcome("`Runtime.OutOfMemory`; gone with the sandbox", seen.neighbour)


@pytest.mark.case("abuse", "System V semaphores")
def test_semaphores(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "semaphores"}, rounds=1, timeout=60)
    seen.out_of_memory()
    outcome("`Runtime.OutOfMemory`; gone with the sandbox", seen.neighbour)


@pytest.mark.case("abuse", "POSIX shared memory")
def test_posix_shared(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "posix_shared"}, rounds=1, timeout=60)
    assert seen.values() == [2]  # ENOENT
    outcome("there is no `/dev/shm`, as on Lambda", seen.neighbour)


@pytest.mark.case("abuse", "pipes, filled")
def test_pipes(stage: Stage, outcome: Outcome) -> None:
    """The kernel's limit for a user without privileges (fs.pipe-user-pages-soft) is per environment: each has a uid."""
    seen = stage.suffer("memory", {"deed": "pipes"}, rounds=1, timeout=60, clean=holding)
    (held,) = seen.values()
    assert held < 128
    outcome("at most what a user may have, and within the memory limit", seen.neighbour)


@pytest.mark.case("abuse", "buffers of unix sockets")
def test_unix_sockets(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "unix_sockets"}, rounds=1, timeout=60)
    seen.out_of_memory()
    outcome("`Runtime.OutOfMemory`", seen.neighbour)


@pytest.mark.case("abuse", "buffers of TCP connections")
def test_tcp_sockets(stage: Stage, outcome: Outcome) -> None:
    """cgroup v2 counts them as memory; on v1 they have a limit of their own, of 32 MB and what each socket may have
    at least."""
    seen = stage.suffer("memory", {"deed": "tcp_sockets"}, rounds=1, timeout=60, clean=holding)
    (held,) = seen.values()
    assert held < 256
    outcome("a limit of their own", seen.neighbour)


@pytest.mark.case("abuse", "buffers of UDP sockets")
def test_udp_sockets(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "udp_sockets"}, rounds=1, timeout=60, clean=holding)
    (held,) = seen.values()
    assert held < 128
    outcome("above the limit datagrams are dropped", seen.neighbour)


@pytest.mark.case("abuse", "page tables")
def test_page_tables(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "page_tables"}, rounds=1, timeout=60)
    seen.out_of_memory()
    outcome("`Runtime.OutOfMemory`: kernel memory counts", seen.neighbour)


@pytest.mark.case("abuse", "record locks, each of one byte")
def test_locks(stage: Stage, outcome: Outcome) -> None:
    def its_file(found: Mapping[str, Any]) -> None:
        assert found["tmp"] == ["locked"]

    seen = stage.suffer("memory", {"deed": "locks"}, rounds=1, timeout=60, clean=its_file)
    assert seen.values() == [True]
    outcome("counted as its memory; let go of with the file", seen.neighbour)


@pytest.mark.soak
@pytest.mark.case("abuse", "names that do not exist, by the hundred thousand")
def test_names(stage: Stage, outcome: Outcome) -> None:
    seen = stage.suffer("memory", {"deed": "names"}, rounds=1, timeout=60)
    assert seen.values() == [True]
    outcome("the cache of names is its memory and is given back", seen.neighbour)
