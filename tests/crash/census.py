"""What a node consists of, counted from outside: processes by kind, control groups, loop devices, mounts, images,
namespaces, descriptors and memory of its processes; and the dispatcher's counters beside them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path

from msgspec import Struct

from bench.node import PROC, Node, Process, await_true, below, cgroups, loop_devices
from runtimed.dispatch.counters import CounterPage

NAMES = {
    "runtimed-seater": "seater",
    "runtimed-imager": "imager",
    "runtimed-task": "task",
    "shellmaker": "shellmaker",
    "anchor": "anchor",
    "spare": "spare",
}
DAEMONS = ("launcher", "control", "dispatch", "seater", "imager")


def depth(pid: int) -> int:
    """In how many pid namespaces the process has a number; 0 when it has gone."""
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) - 1
    return 0


def kind(process: Process, launcher: int) -> str:
    """launcher, control, dispatch, seater, imager, task, zygote, spare, environment, shellmaker, anchor; other."""
    if process.pid == launcher:
        return "launcher"
    if process.name in NAMES:
        return NAMES[process.name]
    if "runtimed.daemon" in process.command:
        return "control"
    if "runtimed-dispatch" in process.command.split(" --")[0]:
        return "dispatch"
    if "zygote.py" in process.command:
        return {0: "other", 1: "zygote"}.get(depth(process.pid), "environment")
    return "other"


def by_kind(node: Node) -> dict[str, list[int]]:
    """Process ids of the node by kind. Those of one pid namespace with its anchor as the parent count once each."""
    found: dict[str, list[int]] = {}
    for process in node.processes():
        found.setdefault(kind(process, node.launcher.pid), []).append(process.pid)
    return found


def descriptors(pid: int) -> int:
    return len(os.listdir(PROC / str(pid) / "fd"))


def resident_kb(pid: int) -> int:
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def cpu_seconds(pid: int) -> float:
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def counters(node: Node, dispatch: int) -> dict[str, int]:
    """The page of this incarnation of the dispatcher, found among its descriptors."""
    for entry in (PROC / str(dispatch) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if "memfd:runtimed-counters" in os.readlink(entry):
                page = CounterPage(os.open(entry, os.O_RDONLY))
                try:
                    return page.node()
                finally:
                    page.close()
    raise LookupError(f"process {dispatch} of {node.directory} has no counters page")


def environments(node: Node, unknown: int = 0) -> set[int]:
    """Process ids of the environments while none begins or ends, once there are as many as the dispatcher counts: a
    spare in the making, which has not its name yet, looks like one. `unknown`: how many are of no kind known here."""
    found: set[int] = set()

    def as_counted() -> bool:
        kinds = by_kind(node)
        found.clear()
        found.update(kinds.get("environment", []))
        return counters(node, min(kinds["dispatch"]))["environments"] == len(found) + unknown

    await_true(as_counted, 60, "as many environments as are counted")
    return found


def consistent(node: Node) -> str:
    """What is not as it should be at rest, in a sentence; empty when all is. Nobody may be calling."""
    kinds = by_kind(node)
    if not all(kinds.get(name) for name in DAEMONS):
        return f"not all processes are there: {sorted(kinds)}"
    try:
        page = counters(node, kinds["dispatch"][0])
    except (OSError, LookupError) as error:
        return f"the dispatcher is about to be replaced: {error}"
    answers = sum(page[name] for name in ("answers_success", "answers_function_error", "answers_refused", "abandoned"))
    if page["calls"] != answers:
        return f"{page['calls']} calls, {answers} answers"
    levels = {name: page[name] for name in ("calls_open", "invocations_in_flight", "waiting", "payload_bytes")}
    if any(levels.values()):
        return f"at rest, but {levels}"
    if page["environments"] != page["environments_idle"]:
        return f"{page['environments']} environments, {page['environments_idle']} idle"
    if page["environments"] != len(kinds.get("environment", [])):
        return f"{page['environments']} environments counted, {len(kinds.get('environment', []))} there"
    if page["logic_errors"] or page["violations"]:
        return f"{page['logic_errors']} logic errors, {page['violations']} violations"
    return ""


class Census(Struct, frozen=True):
    """Counts at one moment."""

    processes: Counter[str]
    cgroups: int
    loops: int
    images: int
    mounts: int
    namespaces: int
    descriptors: dict[str, int]
    resident_kb: dict[str, int]


def take(node: Node) -> Census:
    kinds = by_kind(node)
    daemons = {name: kinds[name][0] for name in DAEMONS if kinds.get(name)}
    nets = set()
    for pids in kinds.values():
        for pid in pids:
            with contextlib.suppress(OSError):
                nets.add(os.readlink(PROC / str(pid) / "ns/net"))
    return Census(
        processes=Counter({name: len(pids) for name, pids in kinds.items()}),
        cgroups=sum(1 for top in cgroups(node.cgroup) for _ in below(top)) - len(cgroups(node.cgroup)),
        loops=len(loop_devices(node.directory)),
        images=len(list((node.state_dir / "tmp").iterdir())),
        mounts=len((PROC / str(node.launcher.pid) / "mountinfo").read_text().splitlines()),
        namespaces=len(nets),
        descriptors={name: descriptors(pid) for name, pid in daemons.items()},
        resident_kb={name: resident_kb(pid) for name, pid in daemons.items()},
    )


def output(node: Node) -> str:
    """The end of what the node wrote, for a failed assertion."""
    return Path(node.log).read_text(errors="replace")[-4000:]
