"""Large payloads lie in memory that an environment shares with the dispatcher. What a function can do with that memory:
see it, write there, lose it. Not: take memory out of it, resize it, see another's, or hurt the dispatcher."""

from __future__ import annotations

import hashlib
import pathlib
import re
from typing import Any

import pytest

from bench.node import await_true
from tests.crash import census
from tests.outcomes import Outcome
from tests.sandbox.jail import PRELUDE
from tests.security.escape.arena import PATIENCE, Arena

LEAST = 256 << 10
MOST = 6 << 20
NAME = "memfd:runtimed-arena"

# Event: {"deed", "size", "pad"}; answers with what the deed returns and so much padding.
FUNCTION = f"""
PRELUDE = {PRELUDE!r}
exec(PRELUDE)
import ctypes, hashlib, mmap, threading
libc.mmap.restype = ctypes.c_void_p
def mapped():
    with open("/proc/self/maps") as maps:
        return [line.split() for line in maps if "s " in line and " /" in line and {NAME!r} in line]
def place():
    first, last = mapped()[0][0].split("-")
    return int(first, 16), int(last, 16) - int(first, 16)
def nothing():
    return None
def where():
    links = ["/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")]
    descriptors = [os.readlink(link) for link in links if os.path.islink(link)]
    return [[line[0], line[1], line[4]] for line in mapped()], descriptors
def look():
    at, size = place()
    return hashlib.sha256(ctypes.string_at(at, 4096)).hexdigest()
def scribble():
    at, size = place()
    def forever():
        for number in range(256):
            ctypes.memset(at, number, 4 << 20)
    threading.Thread(target=forever, daemon=True).start()
def holes():
    at, size = place()
    ctypes.set_errno(0)
    done = libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(size), 9)
    return done, ctypes.get_errno()
def again():
    name = mapped()[0][0]
    try:
        return os.open("/proc/self/map_files/" + name, os.O_RDWR)
    except OSError as error:
        return -error.errno
def unmap():
    at, size = place()
    return libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
def closed():
    at, size = place()
    return libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(size), 0)
def other():
    at, size = place()
    fd = os.memfd_create("other")
    os.ftruncate(fd, size)
    libc.mmap(ctypes.c_void_p(at), ctypes.c_size_t(size), 3, 0x11, fd, ctypes.c_long(0))
kept = []
def fill():
    with open("/proc/self/status") as status:
        resident = [int(line.split()[1]) for line in status if line.startswith("VmRSS")][0]
    while resident < 122 << 10:
        kept.append(b"x" * (1 << 20))
        resident += 1 << 10
def handler(event, context):
    result = globals()[event["deed"]]()
    return {{"result": result, "pid": os.getpid(), "uid": os.getuid(),
             "digest": hashlib.sha256(event["pad"].encode()).hexdigest(), "pad": event["pad"][: event["answer"]]}}
"""


def event(deed: str, size: int, answer: int = MOST) -> dict[str, Any]:
    return {"deed": deed, "pad": "x" * size, "answer": answer}


def call(arena: Arena, name: str, deed: str = "nothing", size: int = LEAST + 1, answer: int = MOST) -> Any:
    """Answered by the function, and by itself: what came there is what was sent, what came back is what it sent."""
    pad = hashlib.sha256(f"{deed}{size}".encode()).hexdigest() * (size // 64) + "-" * (size % 64)
    value = arena.call(name, {"deed": deed, "pad": pad, "answer": answer}).value
    assert value["digest"] == hashlib.sha256(pad.encode()).hexdigest()
    assert value["pad"] == pad[:answer]
    return value["result"]


def sharing(arena: Arena, size: int = MOST - 1000) -> str:
    """A function whose environment has its arena, filled."""
    name = arena.fresh(FUNCTION)
    dispatch = arena.node.roles()["dispatch"]
    before = census.counters(arena.node, dispatch)["arena_payloads"]

    def used() -> bool:
        call(arena, name, size=size)
        return census.counters(arena.node, dispatch)["arena_payloads"] >= before + 2

    await_true(used, PATIENCE, "an arena")
    return name


def inode(arena: Arena, name: str) -> str:
    """Of the one arena that the function has mapped: tells it from every other."""
    (((_, mode, number),), _) = call(arena, name, "where")
    assert mode == "rw-s"
    return str(number)


def test_either_side_of_the_limit(arena: Arena) -> None:
    name = sharing(arena)
    for size in (1, LEAST - 100, LEAST - 1, LEAST, LEAST + 1, MOST - 1000):
        for _ in range(2):
            call(arena, name, size=size)
            call(arena, name, size=size, answer=10)
        call(arena, name, size=LEAST + size % 64, answer=1)


@pytest.mark.case("escape", "memory shared with the dispatcher: written at all times, holes made, mapped again")
def test_hostile(arena: Arena, outcome: Outcome) -> None:
    name = sharing(arena)
    (((_, mode, _),), descriptors) = call(arena, name, "where")
    assert mode == "rw-s"
    assert not [target for target in descriptors if "memfd" in target], "the descriptor is closed"
    assert call(arena, name, "holes") == [-1, 1]  # EPERM
    assert call(arena, name, "again") in (-1, -13)
    assert call(arena, name, "look", size=MOST - 1000, answer=1)
    for _ in range(5):
        result = arena.call(name, event("scribble", MOST - 1000))
        assert len(result.payload) > MOST - 1000, "so many bytes, whichever"
        arena.victim()
    outcome("it sees its own payloads; sealed against anything else; its callers get what it says")


@pytest.mark.case("escape", "memory shared with the dispatcher: taken away under the runtime's feet")
@pytest.mark.parametrize("deed", ["unmap", "closed", "other"])
def test_taken_away(arena: Arena, outcome: Outcome, deed: str) -> None:
    """The runtime writes there, or elsewhere: its end, or an answer of nothing; and the next call is served."""
    name = sharing(arena, 1 << 20)
    before = inode(arena, name)
    result = arena.call(name, event(deed, 1 << 20))
    arena.victim()
    if deed == "other":
        assert len(result.payload) > 1 << 20
    else:
        error = result.error()
        assert error is not None
        assert error.error_type == "Runtime.ExitError"
        for _ in range(4):
            call(arena, name, size=1 << 20)
        assert inode(arena, name) != before, "a new environment has a new one"
    outcome("ends its own environment at most; the next has another")


def test_two_environments_have_two(arena: Arena) -> None:
    names = [sharing(arena, LEAST + 1) for _ in range(2)]
    assert len({inode(arena, name) for name in names}) == 2


@pytest.mark.case("escape", "a payload for a function that has no memory left for it")
def test_out_of_memory(arena: Arena, outcome: Outcome) -> None:
    """Its arena is in its own memory: what there is none for ends it, and not the dispatcher."""
    name = arena.fresh(FUNCTION, memory_size=128)
    result = arena.call(name, event("fill", 0))
    for _ in range(4):
        if result.error() is not None:
            break
        result = arena.call(name, event("nothing", MOST - 1000))
    error = result.error()
    assert error is not None
    assert error.error_type == "Runtime.OutOfMemory"
    for _ in range(3):
        call(arena, name, size=MOST - 1000)
    outcome("`Runtime.OutOfMemory` for its caller; the next call in a new environment")


def shared_kb(status: pathlib.Path) -> int:
    """Of memory.stat, v1 or v2."""
    found = re.search(r"^shmem (\d+)$", status.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) >> 10


def memory_cgroup(pid: int) -> pathlib.Path:
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(",") or not controllers:
            for mount in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
                fields, _, kind = mount.partition(" - ")
                root, at = fields.split()[3:5]
                options = fields.split() + kind.split()
                if kind.startswith("cgroup2" if not controllers else "cgroup ") and (
                    not controllers or "memory" in options[-1].split(",")
                ):
                    stat = pathlib.Path(at) / pathlib.Path(path).relative_to(root)
                    if (stat / "memory.stat").exists():
                        return stat
    raise AssertionError("no memory controller")


@pytest.mark.case("escape", "who pays for the memory of large payloads")
def test_who_pays(arena: Arena, outcome: Outcome) -> None:
    """The function does, and gives it back when it is idle."""
    name = sharing(arena)
    uid = arena.uid_base + arena.call(name, event("nothing", 0)).value["uid"]
    (pid,) = arena.pids(uid)
    stat = memory_cgroup(pid) / "memory.stat"
    paid = shared_kb(stat)
    assert MOST >> 10 <= paid < 8 << 10
    await_true(lambda: shared_kb(stat) < 1 << 10, PATIENCE, "memory given back")
    call(arena, name, size=MOST - 1000)
    assert arena.pids(uid) == [pid]
    outcome(f"the function: {paid} KiB at most, for as long as it is used; given back after five idle seconds")
