"""The environment that is copied: its init phase can do nothing that another cannot."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from bench.node import await_true
from runtimed.model import wire
from tests.integration.launcher_stage import Environment
from tests.integration.snapshot_stage import (
    MAKER,
    Refusal,
    Stage,
    State,
    begin,
    expect,
    made,
    ordinary,
    run,
    send_start,
)
from tests.integration.test_launcher import process_of
from tests.security.test_jail_escapes import number

WAIT = 60.0  # seconds for what takes a tenth of one


# Flags of clone(2) and unshare(2).
NAMESPACES = {
    "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000,
    "NEWNS": 0x00020000,
    "NEWIPC": 0x08000000,
    "NEWUTS": 0x04000000,
    "NEWNET": 0x40000000,
    "NEWCGROUP": 0x02000000,
}
CLONES = {**NAMESPACES, "all": sum(NAMESPACES.values()) | 0x8000, "nothing": 0}
CALLS = {
    "ptrace": (16, 1, 0, 0),  # PTRACE_ATTACH
    "mount": (0, 0, 0, 0, 0),
    "setns": (4, 0),
    "pivot_root": (0, 0),
    "bpf": (0, 0, 0),
    "userfaultfd": (0,),
    "io_uring_setup": (1, 0),
    "process_vm_readv": (1, 0, 0, 0, 0, 0),
    "keyctl": (0, 0, 0),
    "perf_event_open": (0, 0, 0, 0, 0),
    "open_by_handle_at": (0, 0, 0),
    "init_module": (0, 0, 0),
}
PATHS = ("/proc/1/mem", "/proc/1/environ", "/proc/sys/kernel/hostname", "/dev/mem", "/sys/fs/cgroup", "/var/runtime")
TRY = """
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    ctypes.set_errno(0)
    return -ctypes.get_errno() if libc.syscall(*map(ctypes.c_long, arguments)) < 0 else 0
def forked(flags):
    ctypes.set_errno(0)
    pid = libc.syscall(*map(ctypes.c_long, (CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0)))
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return -ctypes.get_errno() if pid < 0 else 1
tried = {name: call(*arguments) for name, arguments in CALLS.items()}
tried |= {"unshare " + name: call(UNSHARE, flag) for name, flag in NAMESPACES.items()}
tried |= {"clone " + name: forked(flags) for name, flags in CLONES.items()}
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
for name in status:
    if name.startswith("Cap") or name in ("Seccomp", "Seccomp_filters", "NoNewPrivs", "Groups"):
        tried[name] = status[name].strip()
for path in PATHS:
    try:
        os.close(os.open(path, os.O_RDWR)); tried[path] = 0
    except OSError as error:
        tried[path] = error.errno
tried["limits"] = open("/proc/self/limits").read()
tried["open"] = [fd for fd in range(256) if os.path.lexists("/proc/self/fd/%d" % fd)]
"""


def attempts() -> str:
    known = {
        "CALLS": {name: (number(name), *arguments) for name, arguments in CALLS.items()},
        "CLONE": number("clone"),
        "UNSHARE": number("unshare"),
        "NAMESPACES": NAMESPACES,
        "CLONES": CLONES,
        "PATHS": PATHS,
    }
    return "".join(f"{name} = {value!r}\n" for name, value in known.items()) + TRY


def test_the_one_that_is_copied_may_do_what_any_may(stage: Stage) -> None:
    """Clones into other namespaces, calls that are denied: all the same, but for one descriptor, a pipe."""
    stage.put(attempts())
    maker = begin(stage)
    expect(stage, State.READY)
    seen = run(maker, "result = tried")["result"]
    stage.put(attempts() + "\nother = 1", wire.SnapshotMode.OFF, beyond=1)
    other = run(begin(stage, beyond=1), "result = tried")["result"]
    assert seen.pop("open") == [*other.pop("open"), 4]
    assert seen == other
    assert seen["clone nothing"] == 1
    assert all(seen[f"clone {name}"] < 0 for name in CLONES if name != "nothing"), seen
    assert run(begin(stage), "result = [fd for fd in range(256) if os.path.lexists('/proc/self/fd/%d' % fd)]")[
        "result"
    ] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "kept",
    [
        "import mmap; kept = mmap.mmap(-1, 4096); libc = ctypes.CDLL(None);"
        "view = (ctypes.c_char * 4096).from_buffer(kept); kept[:4] = b'mine';"
        "assert libc.madvise(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(4096), 10) == 0",
        "kept = os.memfd_create('kept'); os.dup2(kept, 2); os.close(kept)",
        "left, right = os.pipe(); os.dup2(left, 0); os.dup2(right, 2); os.close(left); os.close(right)",
    ],
    ids=["mapping", "file", "pipe"],
)
def test_what_is_hidden_from_the_check_is_not_in_copies(stage: Stage, kept: str) -> None:
    """A shared mapping that forks do not have, descriptors in the place of the standard ones: no way to a copy."""
    maker = made(stage, kept)
    look = (
        "result = [[line for line in open('/proc/self/maps') if line.split()[1] == 'rw-s'],"
        " [os.readlink('/proc/self/fd/%d' % fd).split(':')[0] for fd in range(4)]]"
    )
    copies = [run(begin(stage), look)["result"] for _ in range(2)]
    stage.put("other = 2", wire.SnapshotMode.OFF, beyond=1)
    assert copies == [run(begin(stage, beyond=1), look)["result"]] * 2
    assert run(maker, "result = None")["count"] == 1


def test_its_own_pipe_read_back(stage: Stage) -> None:
    """Its other end is not to be had by way of /proc."""
    made(
        stage,
        "try: got = os.open('/proc/self/fd/4', os.O_RDONLY | os.O_NONBLOCK)\n"
        "except OSError as error: got = type(error).__name__",
    )
    assert run(begin(stage), f"result = [got, os.getpid() == {MAKER}]")["result"] == ["PermissionError", False]


# ---- when ---------------------------------------------------------------------------------------------------------


def test_it_never_finishes_its_hook(stage: Stage) -> None:
    stage.put(f"register_before_snapshot(lambda: os.getpid() != {MAKER} or time.sleep(600))")
    maker = stage.launch()
    send_start(maker)
    expect(stage, State.MAKING)
    for _ in range(2):
        ordinary(stage)
    stage.end(maker)
    expect(stage, State.NONE)


def test_it_takes_all_memory(stage: Stage) -> None:
    stage.put(f"hoard = b'x' * (1 << 30) if os.getpid() == {MAKER} else None")
    maker = stage.launch()
    send_start(maker)
    exited = stage.exited(maker)
    assert exited.oom or os.waitstatus_to_exitcode(exited.status) != 0
    expect(stage, State.NONE)


def freeze(environment: Environment, frozen: bool) -> None:
    fd = environment.fds[wire.LaunchedFlags.FREEZE]
    now = os.pread(fd, 64, 0).strip()
    first = now in (b"FROZEN", b"FREEZING", b"THAWED")  # a v1 hierarchy
    word = (b"FROZEN" if frozen else b"THAWED") if first else (b"1" if frozen else b"0")
    os.pwrite(fd, word, 0)


def test_it_is_frozen_meanwhile(stage: Stage) -> None:
    """At the end of its init phase, before its snapshot. (Earlier its zygote may still be where it is frozen.)"""
    stage.put(
        "import select\ndata = os.urandom(8 << 20)\n"
        f"if os.getpid() == {MAKER}:\n    os.write(1, b'here\\n')\n    select.select([3], [], [])"
    )
    maker = stage.launch()
    send_start(maker)
    os.set_blocking(maker.fds[wire.LaunchedFlags.LOG], False)
    await_true(lambda: b"here" in maker.log(), WAIT, "the end of its init phase")
    freeze(maker, True)
    ordinary(stage)
    maker.send_invoke({})
    freeze(maker, False)
    assert isinstance(maker.receive(), wire.InitDone)
    assert isinstance(maker.receive(), wire.Result)
    expect(stage, State.READY)
    assert run(begin(stage), "result = len(data)")["result"] == 8 << 20


def gathered(stage: Stage) -> int:
    """Bytes of what the launcher has of the snapshot that is being made: the one file that is not sealed yet."""
    most = 0
    for entry in Path(f"/proc/{stage.played.pid}/fd").iterdir():
        try:
            if os.readlink(entry).startswith("/memfd:snapshot"):
                file = os.open(entry, os.O_RDONLY)
                try:
                    if not fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
                        most = max(most, os.fstat(file).st_size)
                finally:
                    os.close(file)
        except FileNotFoundError:
            pass
    return most


@pytest.mark.parametrize("end", ["killed", "frozen and killed"])
def test_it_is_killed_while_it_writes(stage: Stage, end: str) -> None:
    stage.put(
        f"if os.getpid() == {MAKER}:\n    os.write(4, bytes(100_000))\n    while True: time.sleep(60)",
    )
    maker = stage.launch()
    send_start(maker)
    await_true(lambda: gathered(stage) == 100_000, WAIT, "the beginning of a snapshot")
    ordinary(stage)
    if end == "killed":
        os.kill(process_of(maker), signal.SIGKILL)
        stage.exited(maker)
    else:
        freeze(maker, True)
        stage.end(maker)
    expect(stage, State.NONE)


def test_refusals_without_end(stage: Stage) -> None:
    """It says that it cannot be copied, and goes on writing."""
    stage.put(
        f"if os.getpid() == {MAKER}:\n    signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n    os.write(4, bytes([1]))\n"
        "    try:\n        while True: os.write(4, bytes([9]) * 4096)\n    except BrokenPipeError: pass"
    )
    maker = begin(stage)
    assert expect(stage, State.REFUSED).refusal in (Refusal.THREADS, Refusal.FAILED, Refusal.TOO_LARGE)
    ordinary(stage)
    assert run(maker, "result = None")["count"] == 1


def test_it_forks_and_all_write(stage: Stage) -> None:
    """Its children have the pipe too: what comes through it is nobody's snapshot, or one that was refused."""
    stage.put(
        f"if os.getpid() == {MAKER}:\n"
        "    for _ in range(3):\n"
        "        if os.fork() == 0:\n"
        "            try:\n"
        "                while True: os.write(4, os.urandom(65536))\n"
        "            except OSError: pass\n"
        "            while True: time.sleep(60)"
    )
    maker = begin(stage)
    expect(stage, State.REFUSED)
    ordinary(stage)
    assert run(maker, "result = None")["count"] == 1


def test_a_child_of_it_keeps_the_pipe(stage: Stage) -> None:
    """The end never comes, until the maker ends and its children with it; nobody waits for that."""
    stage.put(
        f"if os.getpid() == {MAKER}:\n"
        "    if os.fork() == 0:\n"
        "        while True: time.sleep(60)\n"
        "    os.write(4, bytes(100)); os.dup2(0, 4)"
    )
    maker = begin(stage)
    ordinary(stage)
    assert run(maker, "result = None")["count"] == 1
    stage.end(maker)
    expect(stage, State.NONE)
