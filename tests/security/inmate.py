"""Run by test_dispatch_jail.py, in an interpreter of its own with one thread: becomes what another process is and tries
what it is told. JSON on standard input: {pid, program (the filter's instructions, in hexadecimal), directories
(descriptors), calls, paths}; on standard output the errno of each, 0 for what succeeded. A relative path is tried from
each of the directories; its errno is that of the last, unless one let it be opened."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
SET_NO_NEW_PRIVS, SET_SECCOMP, MODE_FILTER = 38, 22, 2  # include/uapi/linux/prctl.h, seccomp.h


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("size", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def status_of(task: Path) -> dict[str, str]:
    lines = (task / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def confine(pid: int, program: bytes) -> None:
    status = status_of(Path(f"/proc/{pid}"))
    uid, gid = int(status["Uid"].split()[0]), int(status["Gid"].split()[0])
    spaces = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in ("ipc", "uts", "net", "mnt")]
    for space in spaces:
        if LIBC.setns(space, 0) < 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(space)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if LIBC.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0) or LIBC.prctl(
        SET_SECCOMP, MODE_FILTER, ctypes.byref(Program(len(program) // 8, program)), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


def tried(directories: list[int], calls: dict[str, list[int]], paths: list[str]) -> dict[str, int]:
    found = {}
    for name, (number, *arguments) in calls.items():
        ctypes.set_errno(0)
        result = LIBC.syscall(number, *(ctypes.c_long(argument) for argument in arguments))
        found[name] = ctypes.get_errno() if result == -1 else 0
    for path in paths:
        for directory in (None,) if path.startswith("/") else directories:
            try:
                os.close(os.open(path, os.O_RDONLY, dir_fd=directory))
                found[path] = 0
                break
            except OSError as error:
                found[path] = error.errno
    return found


def main() -> None:
    told: dict[str, Any] = json.load(sys.stdin)
    confine(told["pid"], bytes.fromhex(told["program"]))
    answer = json.dumps(tried(told["directories"], told["calls"], told["paths"])).encode()
    while answer:
        answer = answer[os.write(1, answer) :]
    os._exit(0)


if __name__ == "__main__":
    main()
