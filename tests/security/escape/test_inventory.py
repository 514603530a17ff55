"""All that a process of a function has and sees, compared with what it is meant to have: descriptors, identity, limits,
mounts, namespaces, variables, devices, signals. A thing too many is a way out that nobody thought of."""

from __future__ import annotations

import os
import platform
import re
from typing import Any

import pytest

from bench.node import await_true
from runtimed.bootstrap.zygote import CONSTANT_VARIABLES
from tests.outcomes import Outcome
from tests.sandbox.jail import PRELUDE
from tests.security.escape.arena import PATIENCE, Arena

GATHER = """
import fcntl, json, resource, select, signal, stat
def status(name):
    with open("/proc/self/status") as file:
        return [line.split(":")[1].split() for line in file if line.startswith(name + ":")][0]
def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name).partition(":")[0]
            with open("/proc/self/fdinfo/" + name) as file:
                flags = int(file.read().split("flags:")[1].split()[0], 8)
            found[name] = [target, flags & ~0o100000]  # O_LARGEFILE: not everywhere
        except OSError:
            pass  # the listing's own
    return found
def mounts():
    with open("/proc/self/mountinfo") as file:
        rows = [line.split() for line in file]
    return sorted([row[4], row[row.index("-") + 1], ",".join(sorted(set(row[5].split(",")) - {"relatime", "noatime"})),
                   " ".join(row[6:row.index("-")])] for row in rows)
def nodes():
    found = {}
    for name in os.listdir("/dev"):
        s = os.lstat("/dev/" + name)
        found[name] = os.readlink("/dev/" + name) if stat.S_ISLNK(s.st_mode) else [oct(s.st_mode), s.st_uid, s.st_rdev]
    return found
def limits():
    names = [name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"]
    return {name: list(resource.getrlimit(getattr(resource, name))) for name in names}
def text(path):
    with open(path) as file:
        return file.read()
def gather():
    return {
        "descriptors": descriptors(),
        "identity": [status("Uid"), status("Gid"), status("Groups")],
        "maps": [text("/proc/self/uid_map").split(), text("/proc/self/gid_map").split()],
        "setgroups": text("/proc/self/setgroups").strip(),
        "capabilities": [status(name)[0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "confinement": [status("NoNewPrivs"), status("Seccomp"), status("Seccomp_filters")],
        "signals": [status(name)[0] for name in ("SigBlk", "SigIgn", "SigCgt")],
        "umask": status("Umask")[0],
        "limits": limits(),
        "mounts": mounts(),
        "namespaces": {name: os.readlink("/proc/self/ns/" + name) for name in os.listdir("/proc/self/ns")},
        "variables": dict(os.environ),
        "nodes": nodes(),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "cgroups": sorted({line.rpartition(":")[2] for line in text("/proc/self/cgroup").split()}),
        "oom": int(text("/proc/self/oom_score_adj")),
        "dumpable": call(PRCTL, 3),
        "place": [os.getcwd(), sorted(os.listdir("/")), os.listdir("/tmp"), os.uname().nodename],
        "priority": [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)],
        "parent": os.getppid(),
        "session": os.getsid(0),
        "pid": os.getpid(),
    }
"""

FUNCTION = (
    f"PRELUDE = {PRELUDE!r}\nexec(PRELUDE)\nPRCTL = {157 if platform.machine() == 'x86_64' else 167}\n"
    + GATHER
    + """
at_init = gather()
def handler(event, context):
    if event == "leave":
        os._exit(0)
    if event != "child":
        return [at_init, gather()]
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        seen = gather()
        del seen["descriptors"][str(write)]
        with open(write, "w") as file:
            json.dump(seen, file)
        os._exit(0)
    os.close(write)
    with open(read) as file:
        seen = json.load(file)
    os.wait()
    return [seen]
"""
)

UNLIMITED = -1
LIMITS = {
    "RLIMIT_CORE": [1, 1],  # a core dump that goes to a program of the host's is prevented by 1 and not by 0
    "RLIMIT_MSGQUEUE": [0, 0],
    "RLIMIT_NICE": [0, 0],
    "RLIMIT_NOFILE": [1024, 1024],
    "RLIMIT_NPROC": [1024, 1024],
    "RLIMIT_RTPRIO": [0, 0],
    "RLIMIT_SIGPENDING": [1024, 1024],
}
# As the launcher has them: what they count is in the environment's cgroup, or its own disk.
INHERITED = {f"RLIMIT_{name}" for name in ("AS", "CPU", "DATA", "FSIZE", "MEMLOCK", "RSS", "RTTIME", "STACK")}

VARIABLES = set(CONSTANT_VARIABLES) | {
    "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_FORMAT",
    "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_REGION", "LAMBDA_TASK_ROOT", "OWN", "_HANDLER",
}  # fmt: skip

READ_ONLY, DEVICES = "nodev,nosuid,ro", "noexec,nosuid,ro"
MOUNTS = {
    "/": ("tmpfs", READ_ONLY),
    "/dev": ("tmpfs", DEVICES),
    "/proc": ("proc", "nodev,noexec,nosuid,rw"),
    "/proc/cmdline": ("tmpfs", DEVICES),
    "/proc/kallsyms": ("tmpfs", DEVICES),
    "/proc/locks": ("tmpfs", DEVICES),
    "/tmp": ("ext4", "nodev,nosuid,rw"),
    "/usr": (None, READ_ONLY),
    "/var/runtime/bootstrap": (None, READ_ONLY),
    "/var/runtime/native": (None, READ_ONLY),
    "/var/task": (None, READ_ONLY),
}
# Where the machine has them.
OPTIONAL = r"/(bin|sbin|lib\w*|etc/(ssl/certs|pki|alternatives|crypto-policies))$"
NODES = {name: ["0o20666", 65534, os.makedev(1, minor)]
         for name, minor in {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}.items()}  # fmt: skip
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
ROOT = {"dev", "etc", "opt", "proc", "tmp", "usr", "var"}
O_RDWR, O_WRONLY, O_CLOEXEC = 2, 1, 0o2000000


def check(seen: dict[str, Any], interpreter: str, expected: dict[str, Any]) -> None:
    """AssertionError about the first thing that should not be so. `expected`: what differs from stage to stage."""
    assert seen["descriptors"] == {
        "0": ["/dev/null", O_RDWR], "1": ["pipe", O_WRONLY], "2": ["pipe", O_WRONLY],
        "3": ["socket", O_RDWR | O_CLOEXEC],
    }  # fmt: skip
    (uid, *more), (gid, *others), groups = seen["identity"]
    assert uid == gid and int(uid) > 1 and {*more, *others} == {uid} and groups == []
    assert [(m[0], m[2]) for m in seen["maps"]] == [("0", "65536")] * 2 and seen["setgroups"] == "allow"
    assert seen["capabilities"] == ["0" * 16] * 5
    assert seen["confinement"] == [["1"], ["2"], ["1"]]
    assert seen["signals"] == ["0" * 16, "0000000001001000", "0000000000000002"]  # Python's: SIGPIPE, SIGXFSZ; SIGINT
    assert seen["umask"] == "0022"
    assert {name: value for name, value in seen["limits"].items() if name not in INHERITED} == LIMITS
    mounted = {path: (kind, options) for path, kind, options, _ in seen["mounts"]}
    assert {propagation for *_, propagation in seen["mounts"]} == {""}
    for path, (kind, options) in MOUNTS.items():
        assert mounted[path] == (kind or mounted[path][0], options), path
    extra = {path: options for path, (_, options) in mounted.items() if path not in MOUNTS}
    for path, options in extra.items():
        assert re.fullmatch(OPTIONAL, path) or interpreter.startswith(path + "/"), path
        assert {"ro", "nosuid", "nodev"} <= set(options.split(",")), path
    assert set(seen["variables"]) == VARIABLES
    assert seen["nodes"] == {**NODES, **LINKS}
    assert seen["cgroups"] == ["/"]
    assert (seen["oom"], seen["dumpable"], seen["priority"]) == (500, 1, [0, 0])
    directory, top, files, host = seen["place"]
    tops = ROOT | {path.split("/")[1] for path in extra} | {"bin", "sbin", "lib", "lib64", "lib32", "libx32"}
    assert (directory, files, host) == ("/var/task", [], "sandbox") and ROOT <= set(top) <= tops
    assert {name: seen[name] for name in expected} == expected


MAIN = {"pid": 2, "parent": 0, "session": 2, "processes": [2]}
SHELL = ("ipc", "net", "pid", "uts")  # what a shell has of its own; mnt and cgroup are new in each environment


def in_a_used_shell(arena: Arena, name: str, interpreter: str, known: list[dict[str, Any]]) -> bool:
    """Has the function's next environment, which is looked at like the first, one of the shells of those before it?
    Not where a spare was taken that had a shell of its own."""
    assert arena.call(name, "leave").failed
    earlier = list(known)
    for seen in arena.call(name).value:
        assert seen["identity"] != earlier[-1]["identity"], "a user id is not used again at once"
        first = seen["pid"] == MAIN["pid"]
        own = {"pid": seen["pid"], "processes": [seen["pid"]], "session": seen["pid"]}
        check(seen, interpreter, MAIN if first else {**MAIN, **own})
        if not first:
            shells = [[one["namespaces"][kind] for kind in SHELL] for one in earlier]
            assert [seen["namespaces"][kind] for kind in SHELL] in shells, "a used shell of somebody else's"
        known.append(seen)
    return not first


@pytest.mark.case("escape", "an inventory of what a function has, at init, in the handler, in a child, in a used shell")
def test_inventory(arena: Arena, outcome: Outcome) -> None:
    interpreter = next(r.path for r in arena.client.runtimes() if r.name == "python3.11")
    name = arena.fresh(FUNCTION, environment={"OWN": "1"})
    at_init, in_handler = arena.call(name).value
    check(at_init, interpreter, MAIN)
    check(in_handler, interpreter, MAIN)
    (in_child,) = arena.call(name, "child").value
    check(in_child, interpreter, {"parent": 2, "session": 2, "processes": [2, in_child["pid"]]})
    assert in_child["namespaces"] == in_handler["namespaces"] == at_init["namespaces"]

    known = [at_init]
    await_true(lambda: in_a_used_shell(arena, name, interpreter, known), PATIENCE, "an environment in a used shell")

    host = {kind for kind, space in at_init["namespaces"].items() if space == os.readlink(f"/proc/self/ns/{kind}")}
    assert host <= {"time", "time_for_children"}
    neighbour = arena.see("show({kind: os.readlink('/proc/self/ns/' + kind) for kind in os.listdir('/proc/self/ns')})")
    shared = {kind for kind, space in neighbour.items() if space == at_init["namespaces"][kind]}
    assert shared <= {"user", "time", "time_for_children"}
    outcome("exactly the test's table: four descriptors, no capability, one uid, eleven mounts, five devices")
