"""A machine of its own for the service: a real systemd as process 1 of new pid, mount, cgroup, uts and ipc namespaces,
over a copy of this machine's files that is thrown away (an overlay in memory). It has no compiler.

Everything ends with the outermost process: the namespaces, the overlay, the service. Besides, there is one control
group in each hierarchy, named after our process, which `close` removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.node import await_true, below

CGROUPS = Path("/sys/fs/cgroup")
BOOT_SECONDS = 60.0

# $1: a directory for the overlay; $2: the tree under test, shown read-only; then the control group file systems, each
# as TYPE:OPTIONS:PATH. Runs in the new namespaces and becomes systemd. Files below /tmp are the machine's own.
BOOT = r"""
set -e
mount -t tmpfs overlay "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
root=$1/root tree=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs run "$root/run"
mount -t tmpfs tmp "$root/tmp"
mkdir "$root/tmp/tree" "$root/tmp/oldroot"
mount --bind -o ro "$tree" "$root/tmp/tree"
for one in "$@"; do
    path=$root${one##*:} rest=${one%:*}
    [ "${one##*:}" != /sys/fs/cgroup ] || [ "${rest%%:*}" != tmpfs ] || { mount -t tmpfs cgroup "$path"; continue; }
    mkdir -p "$path"
    mount -t "${rest%%:*}" -o "${rest#*:}" cgroup "$path"
done
for name in console-getty dbus systemd-logind systemd-udevd systemd-udev-trigger systemd-timesyncd; do
    ln -sf /dev/null "$root/etc/systemd/system/$name.service"
done
rm -f "$root"/usr/bin/cc "$root"/usr/bin/*gcc* "$root"/usr/bin/c[89]9* "$root"/usr/bin/clang* "$root"/usr/bin/cmake
cd "$root"
pivot_root . tmp/oldroot
umount -l /tmp/oldroot
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target \
    --log-target=null --show-status=no
"""


def hierarchies() -> list[tuple[str, str, str]]:
    """What is mounted at and below /sys/fs/cgroup: type, options that tell it from others, path."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        path, (kind, _source, options) = fields.split()[4], tail.split()[:3]
        if not Path(path).is_relative_to(CGROUPS):
            continue
        told = [option for option in options.split(",") if option not in ("rw", "ro")] if kind == "cgroup" else []
        if any(option.startswith("name=") for option in told):
            told.insert(0, "none")
        found.append((kind, ",".join(told) or "rw", path))
    return found


class Machine:
    """`with Machine(tree) as machine: machine.run(...)`."""

    def __init__(self, tree: Path) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="machine-"))
        self._cgroups = [Path(path) / f"machine-{os.getpid()}" for kind, _, path in hierarchies() if kind != "tmpfs"]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._boot(tree)
        except BaseException:
            self.close()
            raise

    def _boot(self, tree: Path) -> None:
        for path in self._cgroups:
            path.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):  # v1: empty ones take no process
                if (path / name).exists():
                    (path / name).write_text((path.parent / name).read_text())

        def enter() -> None:
            for path in self._cgroups:
                (path / "cgroup.procs").write_text("0")

        script = ["sh", "-c", BOOT, "boot", str(self._directory), str(tree)]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL",  # not to outlive us
             "unshare", "--cgroup", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", *script,
             *(":".join(one) for one in hierarchies())],
            preexec_fn=enter,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        await_true(self._is_up, BOOT_SECONDS, "systemd's start")

    def _init(self) -> int:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the machine ended with {self._process.returncode}")
        init = self._init()
        if init == 0 or Path(f"/proc/{init}/comm").read_text() != "systemd\n":
            return False
        return self.run("systemctl", "is-active", "basic.target", check=False).returncode == 0

    def run(self, *command: str, check: bool = True, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a command as root inside."""
        done = subprocess.run(
            self.command(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def command(self, *command: str) -> Sequence[str]:
        """The command line that does it."""
        inside = [
            "env",
            "-i",
            "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LANG=C.UTF-8",
            "CC=false",
        ]
        return ["nsenter", "--target", str(self._init()), "--all", *inside, *command]

    def files(self) -> set[str]:
        """Everything that bears our name, where an installation may put it."""
        places = ("/etc", "/opt", "/usr/local", "/var/lib", "/var/log", "/run")
        listed = self.run("find", *places, "-name", "*runtimed*", "-o", "-name", "*runtimectl*").stdout
        return set(listed.splitlines())

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for path in self._cgroups:
            for folder in below(path):  # v1: who is frozen does not die
                with contextlib.suppress(OSError):
                    (folder / "freezer.state").write_text("THAWED")
        for path in self._cgroups:
            await_true(lambda path=path: remove(path), 60, f"{path} is empty")  # type: ignore[misc]
        shutil.rmtree(self._directory)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove(path: Path) -> bool:
    """A control group with all below it."""
    for directory, folders, _files in os.walk(path, topdown=False):
        for folder in folders:
            with contextlib.suppress(OSError):
                (Path(directory) / folder).rmdir()
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()
