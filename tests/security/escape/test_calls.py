"""System calls that would lead out, from every stage of a function's life; the kernel's answer is always the same."""

from __future__ import annotations

import errno
import pathlib
import platform
import subprocess
import tomllib
from typing import Any

import pytest

from tests.outcomes import Outcome
from tests.sandbox.jail import ROOT
from tests.security.escape.arena import STAGES, Arena

NUMBERS: dict[str, list[int]] = tomllib.loads((ROOT / "native/jail/seccomp/numbers.toml").read_text())["numbers"]
COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]
X86 = platform.machine() == "x86_64"

NEW_USER, NEW_NS, NEW_PID, NEW_NET, NEW_IPC = 0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000
NEW_UTS, NEW_CGROUP, NEW_TIME, PARENT, INTO_CGROUP = 0x4000000, 0x2000000, 0x80, 0x8000, 1 << 33
SPACES = (NEW_USER, NEW_NS, NEW_PID, NEW_NET, NEW_IPC, NEW_UTS, NEW_CGROUP)
UNIX, INET, INET6, KEY, NETLINK, PACKET, ALG, VSOCK, XDP = 1, 2, 10, 15, 16, 17, 38, 40, 44
RAW, STREAM = 3, 1
MAP_HUGETLB, MFD_HUGETLB, SHM_HUGETLB = 0x40000, 4, 0x800  # the host's huge pages: outside of any memory limit

# What must be refused with EPERM: it would reach the host, a neighbour, or what all share.
FORBIDDEN: list[tuple[Any, ...]] = [
    *(("clone", flag | 17, 0, 0, 0, 0) for flag in (*SPACES, PARENT, 0x2000, 0x800000)),
    *(("unshare", flag) for flag in (*SPACES, NEW_TIME)),
    *(("setns", -1, flag) for flag in (0, *SPACES, NEW_TIME)),
    ("mount", 0, 0, 0, 0, 0), ("umount2", 0, 2), ("pivot_root", 0, 0), ("chroot", 0), ("fsopen", 0, 0),
    ("open_tree", -100, 0, 1), ("move_mount", -1, 0, -1, 0, 0), ("fsmount", -1, 0, 0), ("fspick", -1, 0, 0),
    ("mount_setattr", -1, 0, 0, 0, 0), ("ptrace", 16, 1), ("ptrace", 0, 0), ("bpf", 0, 0, 0),
    ("perf_event_open", 0, 0, -1, -1, 0), ("keyctl", 0, 0), ("add_key", 0, 0, 0, 0, -3), ("request_key", 0, 0, 0, -3),
    ("init_module", 0, 0, 0), ("finit_module", -1, 0, 0), ("delete_module", 0, 0), ("kexec_load", 0, 0, 0, 0),
    ("kexec_file_load", -1, -1, 0, 0, 0), ("reboot", 0xFEE1DEAD, 672274793, 0), ("swapon", 0, 0), ("swapoff", 0),
    ("acct", 0), ("quotactl", 0, 0, 0, 0), ("fanotify_init", 0, 0), ("open_by_handle_at", -100, 0, 0),
    ("name_to_handle_at", -100, 0, 0, 0, 0), ("lookup_dcookie", 0, 0, 0), ("syslog", 3, 0, 0), ("vhangup",),
    ("sethostname", 0, 0), ("setdomainname", 0, 0), ("settimeofday", 0, 0), ("clock_settime", 0, 0),
    ("adjtimex", 0), ("clock_adjtime", 0, 0), ("mbind", 0, 0, 0, 0, 0, 0), ("migrate_pages", 0, 0, 0, 0),
    ("move_pages", 0, 0, 0, 0, 0, 0), ("personality", 0x0400000), ("seccomp", 1, 8, 0),
    ("nfsservctl", 0, 0, 0), ("prctl", 35, 0, 0, 0, 0), ("mknodat", -100, 0, 0o020666, 0),
    ("mknodat", -100, 0, 0o060666, 0), ("mmap", 0, 2 << 20, 3, MAP_HUGETLB | 0x22, -1, 0),
    ("mmap", 0, 2 << 20, 3, 21 << 26 | MAP_HUGETLB | 0x21, -1, 0), ("memfd_create", 0, MFD_HUGETLB),
    ("memfd_create", 0, 30 << 26 | MFD_HUGETLB | 1), ("shmget", 0, 2 << 20, SHM_HUGETLB | 0o1600),
    *((("modify_ldt", 0, 0, 0), ("iopl", 3), ("ioperm", 0x80, 1, 1), ("uselib", 0), ("ustat", 0, 0)) if X86 else ()),
]  # fmt: skip
# What libraries try and do without.
ABSENT: list[tuple[Any, ...]] = [
    ("clone3", 0, 88), ("io_uring_setup", 1, 0), ("io_uring_enter", 0, 0, 0, 0, 0), ("io_setup", 1, 0),
    ("process_vm_readv", 1, 0, 0, 0, 0, 0), ("process_vm_writev", 1, 0, 0, 0, 0, 0), ("pidfd_getfd", -1, 0, 0),
    ("userfaultfd", 0), ("kcmp", 1, 1, 0, 0, 0), ("memfd_secret", 0), ("process_madvise", -1, 0, 0, 0, 0),
]  # fmt: skip
SOCKETS: list[tuple[Any, ...]] = [
    ("socket", INET, RAW, 1), ("socket", INET6, RAW, 58), ("socket", INET, STREAM, 132), ("socket", INET, STREAM, 262),
    ("socket", PACKET, RAW, 0x300), ("socket", PACKET, 2, 0x300), ("socket", ALG, 5, 0), ("socket", VSOCK, STREAM, 0),
    ("socket", KEY, RAW, 2), ("socket", XDP, RAW, 0), ("socket", 21, 5, 0), ("socket", 29, RAW, 1),
    ("socket", 30, STREAM, 0), ("socket", 31, RAW, 1),
    *(("socket", NETLINK, RAW, kind) for kind in range(1, 23)), ("socketpair", INET, STREAM, 0, 0),
]  # fmt: skip


def expected() -> list[tuple[tuple[Any, ...], str]]:
    """Calls with their numbers on this machine, and the errno's name."""
    rows = [(call, "EPERM") for call in FORBIDDEN] + [(call, "ENOSYS") for call in ABSENT]
    rows += [(call, "EAFNOSUPPORT") for call in SOCKETS]
    return [(call, word) for call, word in rows if NUMBERS[call[0]][COLUMN] >= 0]


def numbered() -> list[list[int]]:
    return [[NUMBERS[call[0]][COLUMN], *call[1:]] for call, _ in expected()]


ATTACK = f"""
def attempt(row):
    result = call(*row)
    if result == 0 and row[0] == {NUMBERS["clone"][COLUMN]}:
        os._exit(0)  # a child that should not be
    return errno.errorcode.get(-result, result)
show([attempt(row) for row in {{rows}}])
"""


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_refused(arena: Arena, stage: str) -> None:
    wanted = [(call, word) for call, word in expected()]
    seen = arena.see(ATTACK.replace("{rows}", repr(numbered())), stage)
    assert list(zip((call for call, _ in wanted), seen, strict=True)) == wanted


@pytest.mark.case("escape", "forbidden system calls, raw, from init, handler, thread, child and programs")
def test_native_program_is_refused(arena: Arena, outcome: Outcome, tmp_path: pathlib.Path) -> None:
    """A static program of C that the package brings: no libc of ours, no interpreter."""
    rows = numbered()
    table = ",".join("{" + ",".join(f"{n}L" for n in [*row, 0, 0, 0, 0, 0, 0][:7]) + "}" for row in rows)
    source = tmp_path / "program.c"
    source.write_text(
        "#include <errno.h>\n#include <stdio.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n"
        f"static const long rows[][7] = {{{table}}};\n"
        "int main(void) {\n"
        "    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {\n"
        "        const long *r = rows[i];\n"
        "        long n = syscall(r[0], r[1], r[2], r[3], r[4], r[5], r[6]);\n"
        "        if (n == 0 && r[0] == SYS_clone) _exit(0);\n"
        '        printf("%d ", n < 0 ? errno : 0);\n    }\n    return 0;\n}\n'
    )
    program = tmp_path / "program"
    subprocess.run(["cc", "-static", "-o", program, source], check=True)
    caller = (
        "import subprocess\ndef handler(event, context):\n    return subprocess.check_output(['./program']).decode()\n"
    )
    name = arena.fresh({"app.py": caller, "program": program.read_bytes()})
    seen = [errno.errorcode.get(int(n), n) for n in arena.call(name).value.split()]
    assert seen == [word for _, word in expected()]
    outcome(f"each of {len(seen)} attempts is answered EPERM, ENOSYS or EAFNOSUPPORT in every stage")
