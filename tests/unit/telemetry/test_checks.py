"""What the checks say about machines that lack something."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimed.model.node import Check, CheckState
from runtimed.telemetry.checks import Machine, host

LIMITS = ("user/max_user_namespaces", "user/max_pid_namespaces", "user/max_net_namespaces", "user/max_mnt_namespaces")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which all is well, made of files."""
    write(tmp_path, "proc/self/status", f"Seccomp:\t0\nCapEff:\t{(1 << 41) - 1:016x}\n")
    write(tmp_path, "proc/self/mountinfo", "")
    for name in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup"):
        write(tmp_path, f"proc/self/ns/{name}", "")
    for name in LIMITS:
        write(tmp_path, f"proc/sys/{name}", "65536\n")
    write(tmp_path, "proc/sys/kernel/pid_max", "4194304\n")
    write(tmp_path, "proc/sys/fs/inotify/max_user_instances", "65536\n")
    write(tmp_path, "proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n")
    write(tmp_path, "proc/filesystems", "nodev\tproc\n\text4\n")
    write(tmp_path, "proc/meminfo", "MemTotal:        4096000 kB\n")
    write(tmp_path, "sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
    write(tmp_path, "dev/loop-control", "")
    for name in ("runtimed-launcher", "runtimed-dispatch", "runtimed-jail", "mke2fs"):
        write(tmp_path, f"bin/{name}", "").chmod(0o755)
    return Machine(
        proc=tmp_path / "proc",
        sys=tmp_path / "sys",
        dev=tmp_path / "dev",
        kernel="6.1.0-18-amd64",
        architecture="x86_64",
        state_dir=tmp_path / "state",
        libexec=tmp_path / "bin",
        path=str(tmp_path / "bin"),
    )


def write(root: Path, name: str, text: str) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def check(machine: Machine, name: str) -> Check:
    return next(check for check in host(machine) if check.name == name)


def changed(machine: Machine, **members: str) -> Machine:
    return Machine(**{name: getattr(machine, name) for name in machine.__struct_fields__} | members)


def test_nothing_is_missing_where_all_is_well(machine: Machine) -> None:
    assert [found.name for found in host(machine) if found.state is CheckState.MISSING] == []
    assert all(not found.advice for found in host(machine) if found.state is CheckState.OK)


def test_what_is_not_well_has_advice(machine: Machine, tmp_path: Path) -> None:
    bare = Machine(proc=tmp_path / "no", sys=tmp_path / "no", dev=tmp_path / "no", libexec=tmp_path / "no", path="")
    found = [found for found in host(bare) if found.state is not CheckState.OK]
    assert len(found) > 8
    assert all(found.advice and found.purpose for found in found)


@pytest.mark.parametrize(
    ("kernel", "state"),
    [
        ("5.15.0", CheckState.OK),
        ("5.14.21-x", CheckState.MISSING),
        ("10.0", CheckState.OK),
        ("odd", CheckState.MISSING),
    ],
)
def test_kernels(machine: Machine, kernel: str, state: CheckState) -> None:
    assert check(changed(machine, kernel=kernel), "version").state is state


def test_architectures(machine: Machine) -> None:
    assert check(changed(machine, architecture="aarch64"), "architecture").state is CheckState.OK
    assert check(changed(machine, architecture="riscv64"), "architecture").state is CheckState.MISSING


@pytest.mark.parametrize(
    ("unified", "legacy", "state", "found"),
    [
        ("cpu memory pids", "", CheckState.OK, "version 2"),
        ("", "memory pids cpu,cpuacct freezer", CheckState.OK, "version 1"),
        ("", "memory pids cpu", CheckState.OK, "version 1, without freezer"),
        ("memory", "pids cpu", CheckState.OK, "versions 1 (cpu, pids) and 2"),
        ("cpu pids", "", CheckState.MISSING, "without memory"),
        ("", "", CheckState.MISSING, "without cpu, memory, pids"),
    ],
)
def test_cgroups(machine: Machine, unified: str, legacy: str, state: CheckState, found: str) -> None:
    (machine.sys / "fs/cgroup/cgroup.controllers").write_text(unified)
    lines = [f"30 25 0:26 / /sys/fs/cgroup/x rw - cgroup cgroup rw,{controllers}\n" for controllers in legacy.split()]
    (machine.proc / "self/mountinfo").write_text("".join(lines))
    answer = check(machine, "cgroup controllers")
    assert (answer.state, answer.found) == (state, found)


@pytest.mark.parametrize(
    ("file", "text", "name", "state"),
    [
        ("proc/sys/user/max_user_namespaces", "0", "user namespaces", CheckState.MISSING),
        ("proc/sys/kernel/seccomp/actions_avail", "kill", "seccomp", CheckState.MISSING),
        ("proc/sys/kernel/pid_max", "1000", "processes", CheckState.WARNING),
        ("proc/sys/fs/inotify/max_user_instances", "128", "inotify instances", CheckState.WARNING),
        ("proc/filesystems", "nodev\tproc\n", "ext4", CheckState.WARNING),
        ("proc/meminfo", "MemTotal: 512000 kB\n", "memory", CheckState.WARNING),
    ],
)
def test_settings(machine: Machine, tmp_path: Path, file: str, text: str, name: str, state: CheckState) -> None:
    write(tmp_path, file, text)
    assert check(machine, name).state is state


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("dev/loop-control", "loop devices"),
        ("bin/mke2fs", "mke2fs"),
        ("bin/runtimed-dispatch", "native core"),
        ("proc/self/ns/pid", "namespaces"),
    ],
)
def test_what_is_not_there(machine: Machine, tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).unlink()
    assert check(machine, name).state is CheckState.MISSING
