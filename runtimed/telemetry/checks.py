"""What the node needs from the machine, looked up in /proc, /sys and the file system; nothing is started or changed.

The daemon answers Node.Diagnose with these and with what the launcher found out; `runtimectl doctor` runs them itself
when there is no daemon. Each check says what is there, what it is for, and what to do when it is missing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from runtimed.model.node import Check, CheckGroup, CheckState

if TYPE_CHECKING:
    from collections.abc import Callable

KERNEL_OLDEST = (5, 15)
"""The mount API with mount_setattr, clone3 into cgroups, openat2 and close_range are all there."""
ARCHITECTURES = ("x86_64", "aarch64")
"""Those that have seccomp tables."""
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
DESCRIPTORS_WANTED = 65_536
"""About ten for each environment, in the launcher and in the dispatcher."""
PIDS_WANTED = 32_768
NAMESPACES_WANTED = 4_096
"""A few for each environment."""
INOTIFY_INSTANCES_WANTED = 65_536
"""Eight for each environment, counted for all of a zygote's together; what the launcher raises it to."""
MEMORY_WANTED_MB = 1_024
DISK_WANTED_MB = 2_048
LANDLOCK_CREATE_RULESET = 444
"""The same on both architectures."""
LANDLOCK_VERSION = 1
"""Flag: only tell the version."""
CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_ADMIN": 12,
    "SYS_ADMIN": 21,
}
"""What the launcher works with, and the bits in CapEff."""
SYSTEM_PATH = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"))


class Machine(Struct, frozen=True, kw_only=True):
    """Where to look. Tests bring directories of their own."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    kernel: str = platform.release()
    architecture: str = platform.machine()
    state_dir: Path = Path("/var/lib/runtimed")
    libexec: Path = Path(__file__).resolve().parent.parent / "libexec"
    path: str = SYSTEM_PATH

    def text(self, file: Path) -> str:
        """The file's content; empty when it is not there or closed to us."""
        try:
            return file.read_text(errors="replace").strip()
        except OSError:
            return ""

    def number(self, name: str) -> int | None:
        """A setting below /proc/sys."""
        text = self.text(self.proc / "sys" / name)
        return int(text) if text.isdigit() else None


def host(machine: Machine | None = None) -> list[Check]:
    """All that can be found out without privileges."""
    here = machine or Machine()
    return [check(here) for check in _CHECKS]


def interpreters() -> list[Check]:
    """The Pythons that lie in the usual places. They are not started, so they may still turn out not to work."""
    found = sorted(
        (int(match[1]), path)
        for path in Path("/usr/bin").glob("python3.*")
        if (match := re.fullmatch(r"python3\.(\d+)", path.name)) and int(match[1]) >= 9
    )
    if not found:
        advice = "Install Python 3.9 or newer (apt-get install python3), or name interpreters in the configuration."
        return [_check(CheckGroup.RUNTIME, "python", CheckState.MISSING, "none in /usr/bin", "runs functions", advice)]
    return [
        _check(CheckGroup.RUNTIME, f"python3.{minor}", CheckState.OK, str(path), "runs functions")
        for minor, path in found
    ]


def _check(group: CheckGroup, name: str, state: CheckState, found: str, purpose: str, advice: str = "") -> Check:
    fine = state is CheckState.OK
    return Check(group=group, name=name, state=state, found=found, purpose=purpose, advice="" if fine else advice)


def _is(condition: bool, otherwise: CheckState = CheckState.MISSING) -> CheckState:
    return CheckState.OK if condition else otherwise


# ---- kernel


def _kernel(machine: Machine) -> Check:
    match = re.match(r"(\d+)\.(\d+)", machine.kernel)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    return _check(
        CheckGroup.KERNEL,
        "version",
        _is(version >= KERNEL_OLDEST),
        machine.kernel,
        "system calls that sandboxes are made with",
        "Install Linux 5.15 or newer (Debian 12, Ubuntu 22.04 and later have it).",
    )


def _architecture(machine: Machine) -> Check:
    return _check(
        CheckGroup.KERNEL,
        "architecture",
        _is(machine.architecture in ARCHITECTURES),
        machine.architecture,
        "system call filters exist for x86_64 and aarch64",
        "Use a 64-bit x86 or ARM machine and kernel.",
    )


def _namespaces(machine: Machine) -> Check:
    lacking = [name for name in NAMESPACES if not os.path.lexists(machine.proc / "self" / "ns" / name)]
    return _check(
        CheckGroup.KERNEL,
        "namespaces",
        _is(not lacking),
        f"without {', '.join(lacking)}" if lacking else ", ".join(NAMESPACES),
        "separates sandboxes from the host and from each other",
        "Use a kernel built with CONFIG_NAMESPACES and all kinds of them, as distributions' kernels are.",
    )


def _user_namespaces(machine: Machine) -> Check:
    allowed = machine.number("user/max_user_namespaces")
    return _check(
        CheckGroup.KERNEL,
        "user namespaces",
        CheckState.UNKNOWN if allowed is None else _is(allowed > 0),
        "unknown" if allowed is None else f"at most {allowed}",
        "root in a sandbox is nobody on the host",
        "Allow them: sysctl -w user.max_user_namespaces=65536 (and in /etc/sysctl.d/ for the next start).",
    )


def _seccomp(machine: Machine) -> Check:
    actions = machine.text(machine.proc / "sys/kernel/seccomp/actions_avail").split()
    filters = re.search(r"^Seccomp:", machine.text(machine.proc / "self/status"), re.MULTILINE) is not None
    return _check(
        CheckGroup.KERNEL,
        "seccomp",
        _is("errno" in actions or (not actions and filters)),
        " ".join(actions) or ("yes" if filters else "no"),
        "functions may use only the system calls they need",
        "Use a kernel built with CONFIG_SECCOMP_FILTER.",
    )


def _landlock(machine: Machine) -> Check:
    """Asks the kernel; the list of security modules is not readable everywhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = int(libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(LANDLOCK_VERSION)))
    return _check(
        CheckGroup.KERNEL,
        "landlock",
        _is(version > 0, CheckState.WARNING),
        f"version {version}" if version > 0 else "not enabled",
        "a second wall around the file system of a sandbox",
        "Optional. Add landlock to the kernel's lsm= parameter (Linux 5.13 and newer).",
    )


def _cgroups(machine: Machine) -> Check:
    group, name = CheckGroup.KERNEL, "cgroup controllers"
    purpose = "memory, process and CPU limits of functions"
    unified = set(machine.text(machine.sys / "fs/cgroup/cgroup.controllers").split())
    mounted = _legacy_controllers(machine)
    if unified.issuperset(CONTROLLERS):
        return _check(group, name, CheckState.OK, "version 2", purpose)
    if mounted.issuperset(CONTROLLERS):
        kind = "version 1" + ("" if "freezer" in mounted else ", without freezer")
        return _check(group, name, CheckState.OK, kind, purpose)
    lacking = sorted(set(CONTROLLERS) - unified - mounted)
    if not lacking:
        return _check(group, name, CheckState.OK, f"versions 1 ({', '.join(sorted(mounted))}) and 2", purpose)
    return _check(
        group,
        name,
        CheckState.MISSING,
        f"without {', '.join(lacking)}",
        purpose,
        "Mount cgroup 2 at /sys/fs/cgroup with these controllers (systemd does; for memory on some boards: kernel "
        "parameters cgroup_enable=memory cgroup_memory=1). In a container: give it a cgroup of its own to manage.",
    )


def _legacy_controllers(machine: Machine) -> set[str]:
    """Controllers of cgroup version 1 that are mounted somewhere."""
    found: set[str] = set()
    for line in machine.text(machine.proc / "self/mountinfo").splitlines():
        fields, _, tail = line.partition(" - ")
        words = tail.split()
        if len(words) >= 3 and words[0] == "cgroup" and fields:
            found.update(words[2].split(","))
    return found & {*CONTROLLERS, "freezer"}


def _loop(machine: Machine) -> Check:
    return _check(
        CheckGroup.KERNEL,
        "loop devices",
        _is((machine.dev / "loop-control").exists()),
        "/dev/loop-control" if (machine.dev / "loop-control").exists() else "no /dev/loop-control",
        "/tmp of functions is on disk, with a size of its own",
        "Load the module: modprobe loop. In a container: pass /dev/loop-control and the loop devices in.",
    )


def _ext4(machine: Machine) -> Check:
    known = re.search(r"\bext4$", machine.text(machine.proc / "filesystems"), re.MULTILINE) is not None
    return _check(
        CheckGroup.KERNEL,
        "ext4",
        _is(known, CheckState.WARNING),
        "yes" if known else "not loaded",
        "the file system of /tmp in functions",
        "Load the module: modprobe ext4 (mounting loads it by itself on most machines).",
    )


# ---- limits


def _root(machine: Machine) -> Check:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", machine.text(machine.proc / "self/status"), re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    lacking = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    if os.geteuid() != 0:
        state, found = CheckState.UNKNOWN, f"this process is uid {os.geteuid()}"
    else:
        state, found = _is(not lacking), f"root, without {', '.join(lacking)}" if lacking else "root"
    return _check(
        CheckGroup.LIMIT,
        "privileges",
        state,
        found,
        "the launcher makes namespaces, mounts and cgroups; it is the only one that keeps them",
        "Start runtimed as root. In a container: grant these capabilities.",
    )


def _descriptors(machine: Machine) -> Check:
    del machine
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    enough = hard in (resource.RLIM_INFINITY, -1) or hard >= DESCRIPTORS_WANTED
    return _check(
        CheckGroup.LIMIT,
        "open files",
        _is(enough, CheckState.WARNING),
        "unlimited" if hard in (resource.RLIM_INFINITY, -1) else f"at most {hard} a process",
        "about ten descriptors for each environment",
        f"Raise it to {DESCRIPTORS_WANTED}: LimitNOFILE= in the unit, or ulimit -Hn.",
    )


def _at_least(name: str, setting: str, wanted: int, purpose: str) -> Callable[[Machine], Check]:
    def check(machine: Machine) -> Check:
        value = machine.number(setting)
        return _check(
            CheckGroup.LIMIT,
            name,
            CheckState.UNKNOWN if value is None else _is(value >= wanted, CheckState.WARNING),
            "unknown" if value is None else f"at most {value}",
            purpose,
            f"Raise it: sysctl -w {setting.replace('/', '.')}={wanted}.",
        )

    return check


def _memory(machine: Machine) -> Check:
    match = re.search(r"^MemTotal:\s*(\d+) kB", machine.text(machine.proc / "meminfo"), re.MULTILINE)
    megabytes = int(match[1]) // 1024 if match else 0
    return _check(
        CheckGroup.LIMIT,
        "memory",
        _is(megabytes >= MEMORY_WANTED_MB, CheckState.WARNING),
        f"{megabytes} MB",
        "environments are kept warm in it",
        f"Use a machine with {MEMORY_WANTED_MB} MB or more, or few functions.",
    )


def _disk(machine: Machine) -> Check:
    place = next(path for path in (machine.state_dir, *machine.state_dir.parents) if path.exists())
    free = shutil.disk_usage(place).free // (1024 * 1024)
    return _check(
        CheckGroup.LIMIT,
        "disk",
        _is(free >= DISK_WANTED_MB, CheckState.WARNING),
        f"{free} MB free at {place}",
        "code, logs and /tmp of functions",
        f"Free some space, or put the state directory elsewhere (--state-dir): {DISK_WANTED_MB} MB or more.",
    )


# ---- tools


def _mke2fs(machine: Machine) -> Check:
    found = shutil.which("mke2fs", path=machine.path)
    return _check(
        CheckGroup.TOOL,
        "mke2fs",
        _is(found is not None),
        found or "not found",
        "makes the file system of /tmp in functions",
        "apt-get install e2fsprogs",
    )


def _native(machine: Machine) -> Check:
    names = ("runtimed-launcher", "runtimed-dispatch", "runtimed-jail")
    lacking = [name for name in names if not os.access(machine.libexec / name, os.X_OK)]
    return _check(
        CheckGroup.TOOL,
        "native core",
        _is(not lacking),
        f"without {', '.join(lacking)}" if lacking else str(machine.libexec),
        "launcher, dispatcher and jail",
        "Install runtimed again (pip install .), or run ./dev setup in its source.",
    )


_CHECKS: tuple[Callable[[Machine], Check], ...] = (
    _kernel,
    _architecture,
    _namespaces,
    _user_namespaces,
    _seccomp,
    _landlock,
    _cgroups,
    _loop,
    _ext4,
    _root,
    _descriptors,
    _at_least("processes", "kernel/pid_max", PIDS_WANTED, "each environment takes a few"),
    _at_least("pid namespaces", "user/max_pid_namespaces", NAMESPACES_WANTED, "one for each environment"),
    _at_least("network namespaces", "user/max_net_namespaces", NAMESPACES_WANTED, "one for each environment"),
    _at_least("mount namespaces", "user/max_mnt_namespaces", NAMESPACES_WANTED, "one for each environment"),
    _at_least(
        "inotify instances",
        "fs/inotify/max_user_instances",
        INOTIFY_INSTANCES_WANTED,
        "eight for each environment, counted for all of a runtime together",
    ),
    _memory,
    _disk,
    _mke2fs,
    _native,
)
