"""The dispatcher's jail, looked at on the running one: its identity, and what somebody who took it over could do. A
child goes where it is (its namespaces, its uid and gid, no capability), takes on the very filter that the kernel holds
for it, and tries.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.node import Node
from tests.outcomes import Outcome
from tests.sandbox.test_seccomp_filter import compiled, compiler
from tests.security import inmate
from tests.security.inmate import status_of

__all__ = ["compiler"]

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.restype = ctypes.c_long
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
# include/uapi/linux/ptrace.h, sched.h
SEIZE, INTERRUPT, DETACH, GET_FILTER = 0x4206, 0x4207, 17, 0x420C
NEW_NAMESPACES, FORK = 0x7E020000, 17
ARCHITECTURE = platform.machine()
FUNCTION = "def handler(event, context):\n    return event\n"


def ptrace(request: int, pid: int, address: int = 0, data: Any = None) -> int:
    result: int = LIBC.ptrace(request, pid, address, data)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {pid}")
    return result


def filter_of(pid: int) -> bytes:
    """The instructions that the kernel holds for this thread."""
    ptrace(SEIZE, pid)
    try:
        ptrace(INTERRUPT, pid)
        os.waitpid(pid, 0x40000000)  # __WALL
        size = ptrace(GET_FILTER, pid)
        buffer = ctypes.create_string_buffer(size * 8)
        ptrace(GET_FILTER, pid, 0, ctypes.addressof(buffer))
        return buffer.raw
    finally:
        ptrace(DETACH, pid)


def attempt(
    pid: int, program: bytes, directories: list[int], calls: dict[str, tuple[int, ...]], paths: list[str]
) -> dict[str, int]:
    """From within: the errno of each system call, and of opening each path (0: it succeeded). `directories`: the
    dispatcher's descriptors of those of its logs and of its events, from which it may open."""
    told = {"pid": pid, "program": program.hex(), "directories": directories, "calls": calls, "paths": paths}
    done = subprocess.run(
        [sys.executable, "-I", inmate.__file__], input=json.dumps(told), capture_output=True, text=True,
        pass_fds=directories, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr)
    found: dict[str, int] = json.loads(done.stdout)
    return found


FORBIDDEN: dict[str, tuple[int, ...]] = {
    "socket": (1, 1, 0), "socketpair": (1, 1, 0, 0), "bind": (4, 0, 0), "listen": (4, 1), "connect": (4, 0, 0),
    "accept": (4, 0, 0), "execve": (0, 0, 0), "execveat": (-1, 0, 0, 0, 0), "ptrace": (0, 0, 0, 0), "fork": (),
    "vfork": (), "clone": (FORK, 0, 0, 0, 0), "unshare": (NEW_NAMESPACES,), "setns": (5, 0), "kill": (1, 0),
    "tkill": (1, 0), "pidfd_open": (1, 0), "pidfd_getfd": (5, 0, 0), "process_vm_readv": (1, 0, 0, 0, 0, 0),
    "process_vm_writev": (1, 0, 0, 0, 0, 0), "mount": (0, 0, 0, 0, 0), "umount2": (0, 0), "pivot_root": (0, 0),
    "chroot": (0,), "open_tree": (-100, 0, 1), "move_mount": (5, 0, 5, 0, 0), "fsopen": (0, 0), "bpf": (0, 0, 0),
    "perf_event_open": (0, 0, 0, 0, 0), "userfaultfd": (0,), "keyctl": (0, 0, 0, 0, 0), "add_key": (0, 0, 0, 0, 0),
    "open": (0, 0), "creat": (0, 0), "open_by_handle_at": (5, 0, 0), "link": (0, 0), "linkat": (5, 0, 5, 0, 0),
    "symlinkat": (0, 5, 0), "mknodat": (5, 0, 0, 0), "fchmod": (5, 0), "fchmodat": (5, 0, 0),
    "fchownat": (5, 0, 0, 0, 0),
    "setuid": (0,), "setresuid": (0, 0, 0), "setgroups": (0, 0), "capset": (0, 0), "seccomp": (1, 0, 0),
    "mmap": (0, 4096, 5, 0x22, -1, 0), "mprotect": (0, 4096, 5), "shmget": (0, 4096, 0), "msgget": (0, 0),
    "inotify_init1": (0,), "fanotify_init": (0, 0), "init_module": (0, 0, 0), "kexec_load": (0, 0, 0, 0),
    "reboot": (0, 0, 0, 0), "swapon": (0, 0), "acct": (0,), "settimeofday": (0, 0), "sched_setaffinity": (0, 0, 0),
    "clone3": (0, 0), "io_uring_setup": (1, 0), "io_uring_enter": (0, 0, 0, 0, 0, 0),
}  # fmt: skip
"""With arguments with which they would do something, or fail for another reason than the filter's."""
NOT_THERE = {"clone3", "io_uring_setup", "io_uring_enter"}
"""Answered ENOSYS, as by a kernel that has them not: who asks uses something else then."""


def secrets(node: Node) -> list[str]:
    """Paths of what is none of the dispatcher's business: as they are, and from its logs and its events, which lie
    beside each other."""
    private = [
        Path(at, name) for top in (node.state_dir, node.run_dir) for at, _, files in os.walk(top) for name in files
    ]
    private = [
        path
        for path in private
        if not {"logs", "queue"} & set(path.parts) and not path.is_relative_to(node.state_dir / "tmp")
    ]
    private = sorted(private, key=lambda path: len(path.parts))[:500]
    assert {"runtimed.db", "environment.key", "control.sock", "app.py"} <= {path.name for path in private}
    paths = [str(path) for path in private]
    paths += [os.path.relpath(path, node.state_dir / "logs") for path in private]
    return [*paths, "..", "../..", str(node.state_dir), str(node.run_dir), "/etc/shadow", "/root", "/proc/1/environ"]


@pytest.mark.case("escape", "the dispatcher, taken over by who sends it bytes")
def test_what_the_dispatcher_could_do(node: Node, tmp_path: Path, compiler: Any, outcome: Outcome) -> None:
    (tmp_path / "app.py").write_text(FUNCTION)
    done = node.runtimectl("deploy", "jailed", tmp_path / "app.py", "--handler", "app.handler")
    assert done.returncode == 0, done.stderr
    pid = node.roles()["dispatch"]
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir())
    assert len(tasks) >= 2, "its loop, and the writer of its logs"
    control = status_of(Path(f"/proc/{node.roles()['control']}"))
    for task in tasks:
        status = status_of(task)
        assert (status["Seccomp"], status["NoNewPrivs"], status["Groups"]) == ("2", "1", "")
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert len({*status["Uid"].split(), *control["Uid"].split(), "0"}) == 3, "a uid of its own"
        assert len({*status["Gid"].split(), *control["Gid"].split(), "0"}) == 3, "a gid of its own"
    program = b"".join(struct.pack("<HBBI", *one) for one in compiled(compiler, "dispatch", ARCHITECTURE)[1])
    for task in tasks:
        assert filter_of(int(task.name)) == program, "each thread has the filter of the policy"
    numbers, column = compiler.load_numbers(), compiler.ARCHITECTURES[ARCHITECTURE][1]
    calls = {
        name: (numbers[name][column], *arguments)
        for name, arguments in FORBIDDEN.items()
        if name in numbers and numbers[name][column] >= 0
    }
    assert len(calls) > 50
    directories: list[int] = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # others come and go
            if os.readlink(link).startswith("/") and link.is_dir():
                directories.append(os.open(link, os.O_RDONLY))
    try:
        assert sorted(Path(os.readlink(f"/proc/self/fd/{fd}")).name for fd in directories) == ["logs", "queue"]
        found = attempt(pid, program, directories, calls, secrets(node))
    finally:
        for fd in directories:
            os.close(fd)
    wrong = {name: found[name] for name in calls if found[name] != (errno.ENOSYS if name in NOT_THERE else errno.EPERM)}
    assert not wrong, "calls that the filter answers otherwise"
    opened = {path: found[path] for path in found.keys() - calls if found[path] not in (errno.ENOENT, errno.EACCES)}
    assert not opened, "paths that can be opened"
    outcome(
        "has a uid, a root and a network of its own, no capability; opens neither database, code, keys nor sockets; "
        f"{len(calls)} calls that would reach further are refused"
    )
