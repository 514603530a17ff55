"""The launcher with real zygotes; the test plays control plane and dispatcher."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.node import PATIENCE
from runtimed.model import wire
from tests.integration.launcher_peers import Environment
from tests.integration.launcher_stage import Played, Stage, plan, played

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")

ECHO = "def handler(event, context):\n    return event\n"
EDQUOT, EAGAIN, ENOENT, EEXIST, ENOSPC = 122, 11, 2, 17, 28


@pytest.fixture(scope="module")
def stage() -> Iterator[Played]:
    with played() as stage:
        stage.put(1, plan(stage.deploy(ECHO)))
        yield stage


@pytest.fixture
def own_stage() -> Iterator[Played]:
    """For tests that kill parts of it."""
    with played() as stage:
        stage.put(1, plan(stage.deploy(ECHO)))
        yield stage


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)


def processes_of(parent: int) -> dict[int, str]:
    """Children of a process: pid and name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text()
            name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
            if int(rest[1]) == parent and rest[0] != "Z":
                found[int(entry.name)] = name
    return found


def process_of(environment: Environment) -> int:
    """The pid, on the host, of the environment's process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "status").read_text().split("\nUid:\t")[1].split()[0] == str(environment.uid):
                    return int(entry.name)
    raise AssertionError("no process has the environment's uid")


def cgroups(stage: Stage) -> dict[Path, list[str]]:
    """The stage's subtree in each hierarchy, and the names in it; what vanishes while one looks is not there."""
    return {
        Path(root): directories
        for root, directories, _files in os.walk("/sys/fs/cgroup")
        if os.path.basename(root) == stage.cgroup_name
    }


def loops(stage: Played) -> list[str]:
    """Loop devices whose files are in the stage's state directory."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # somebody else's, let go of meanwhile
            found.append(path.read_text())
    return [file for file in found if file.startswith(f"{stage.state_dir}/")]


# ---- a launch ---------------------------------------------------------------------------------------------------


def test_an_environment_answers_and_ends(stage: Played) -> None:
    environment = stage.launch(1)
    assert isinstance(environment.start(), wire.InitDone)
    assert environment.invoke({"n": 1}) == {"n": 1}
    assert environment.invoke({"n": 2}) == {"n": 2}
    exited = stage.end(environment)
    assert os.WTERMSIG(exited.status) == signal.SIGKILL
    assert (exited.oom, exited.step, exited.error) == (0, "", 0)


def test_all_descriptors_come_and_work(stage: Played) -> None:
    environment = stage.launch(1)
    assert set(environment.fds) == set(wire.LaunchedFlags) - {wire.LaunchedFlags.CHANNEL}
    environment.start()
    freeze = environment.fds[wire.LaunchedFlags.FREEZE]
    assert os.pread(freeze, 64, 0).strip() in (b"THAWED", b"0")
    assert int(os.pread(environment.fds[wire.LaunchedFlags.PEAK], 64, 0)) > 0
    listener = socket.socket(fileno=os.dup(environment.fds[wire.LaunchedFlags.LISTENER]))
    assert listener.getsockname() == ("127.0.0.1", 9001)
    listener.close()
    stage.end(environment)


def test_an_environments_cgroup_is_the_root_of_what_it_sees(stage: Played) -> None:
    """However it came there: born where its zygote sits (v1), or cloned into it (v2)."""
    code = "def handler(event, context):\n    return open('/proc/self/cgroup').read()\n"
    stage.put(2, plan(stage.deploy(code)))
    environment = stage.launch(2)
    environment.start()
    shown = str(environment.invoke({})).splitlines()
    stage.end(environment)
    unlimited = ("devices", "cpuset", "cpuacct", "blkio", "name=", "perf_event", "net_", "hugetlb", "rdma", "misc")
    ours = [line for line in shown if not line.split(":")[1].startswith(unlimited)]
    assert {line.split(":")[2] for line in ours} == {"/"}, shown


def freeze(environment: Environment) -> None:
    fd = environment.fds[wire.LaunchedFlags.FREEZE]
    os.write(fd, b"FROZEN" if os.pread(fd, 64, 0).strip() == b"THAWED" else b"1")


def test_a_frozen_environment_can_be_ended(stage: Played) -> None:
    environment = stage.launch(1)
    environment.start()
    freeze(environment)
    assert os.WTERMSIG(stage.end(environment).status) == signal.SIGKILL


def test_every_environment_has_limits_and_an_id_of_its_own(stage: Played) -> None:
    environments = [stage.launch(1) for _ in range(6)]
    for environment in environments:
        environment.start()
    assert len({environment.uid for environment in environments}) == 6
    for environment in environments:
        pid = process_of(environment)
        groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
        memory = next(path for names, path in groups.items() if "memory" in names.split(",") or names == "")
        assert f"/{stage.cgroup_name}/e" in memory
        limit = Path(f"/sys/fs/cgroup/memory{memory}/memory.limit_in_bytes")
        if not limit.exists():
            limit = Path(f"/sys/fs/cgroup{memory}/memory.max")
        assert int(limit.read_text()) == 128 * 1024 * 1024
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status
        assert f"PPid:\t{stage.pid}" in status
    for environment in environments:
        stage.end(environment)


def test_the_code_and_tmp_are_mounted(stage: Played) -> None:
    code = (
        "import os\n"
        "def handler(event, context):\n"
        "    open('/tmp/x', 'w').write('kept')\n"
        "    try:\n        open('/var/task/x', 'w')\n"
        "    except OSError as error:\n        refused = error.errno\n"
        "    s = os.statvfs('/tmp')\n"
        "    return [open('/tmp/x').read(), refused, s.f_blocks * s.f_frsize >> 20]\n"
    )
    stage.put(2, plan(stage.deploy(code), storage_mb=64))
    environment = stage.launch(2)
    environment.start()
    kept, refused, size_mb = environment.invoke({})  # type: ignore[misc]
    assert (kept, refused) == ("kept", 30)
    assert 40 < size_mb <= 64
    stage.end(environment)


def test_an_environment_that_leaves_is_told(stage: Played) -> None:
    stage.put(3, plan(stage.deploy("import os\ndef handler(event, context):\n    os._exit(7)\n")))
    environment = stage.launch(3)
    environment.start()
    environment.send_invoke({})
    exited = stage.exited(environment)
    assert os.WEXITSTATUS(exited.status) == 7
    environment.close()


def test_running_out_of_memory_is_told(stage: Played) -> None:
    stage.put(4, plan(stage.deploy("def handler(event, context):\n    return len(bytearray(300 << 20))\n")))
    environment = stage.launch(4)
    environment.start()
    environment.send_invoke({})
    exited = stage.exited(environment)
    assert exited.oom == 1
    assert exited.peak_kb > 100 * 1024
    environment.close()
    after = stage.launch(1)
    assert after.start() == wire.InitDone()
    stage.end(after)


def test_what_an_environment_left_running_ends_with_it(stage: Played) -> None:
    code = (
        "import os, time\n"
        "def handler(event, context):\n"
        "    for _ in range(5):\n"
        "        if os.fork() == 0:\n            os.setsid()\n            time.sleep(1000)\n"
        "    os._exit(0)\n"
    )
    stage.put(5, plan(stage.deploy(code)))
    environment = stage.launch(5)
    environment.start()
    environment.send_invoke({})
    stage.exited(environment)

    def nobody() -> bool:
        try:
            process_of(environment)
        except AssertionError:
            return True
        return False

    wait_until(nobody, "its processes are gone")
    environment.close()


def test_many_at_once(stage: Played) -> None:
    stage.put(6, plan(stage.deploy(ECHO), max=40))
    asked = [stage.ask(6) for _ in range(40)]
    environments = [stage.launched(id_) for id_ in asked]
    for environment in environments:
        environment.send_start()
    for environment in environments:
        assert isinstance(environment.receive(), wire.InitDone)
    for environment in environments:
        assert environment.invoke(environment.id) == environment.id
    refused = stage.ask(6)
    assert stage.dispatch.expect(wire.LaunchFailed, refused)[1].error == EDQUOT
    for environment in environments:
        stage.end(environment)
    again = stage.launch(6)
    assert isinstance(again.start(), wire.InitDone)
    stage.end(again)


# ---- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max", 10_001),
        ("rate", 0),
        ("memory_mb", 16),
        ("memory_mb", 1 << 30),
        ("storage_mb", 1),
        ("storage_mb", 20_000),
        ("pids", 0),
        ("pids", 1 << 20),
        ("descriptors", 1),
        ("descriptors", 1 << 20),
        ("cpu", 9),
        ("package", "../../../etc"),
        ("package", "A" * 64),
        ("package", ""),
        ("layers", b"x" * 31),
        ("runtime", "python9"),
        ("runtime", ""),
    ],
)
def test_a_plan_out_of_bounds_is_refused(stage: Played, field: str, value: object) -> None:
    message = plan(**{"package": "0" * 64, field: value})  # type: ignore[arg-type]
    refused = stage.control.request(message, 99)
    assert refused is not None
    assert refused.field == field
    assert refused.reason


def test_launches_outside_what_was_granted_are_refused(stage: Played) -> None:
    failed = stage.dispatch.expect(wire.LaunchFailed, stage.ask(12345))[1]
    assert (failed.error, failed.retryable, failed.step) == (ENOENT, 0, "plan")
    stage.put(7, plan(stage.deploy(ECHO), rate=1))
    asked = stage.ask(7), stage.ask(7)  # both at once: a second later another one is granted
    first = stage.launched(asked[0])
    failed = stage.dispatch.expect(wire.LaunchFailed, asked[1])[1]
    assert (failed.error, failed.retryable) == (EAGAIN, 1)
    stage.dispatch.send(wire.Launch(plan=1), first.id)
    assert stage.dispatch.expect(wire.LaunchFailed, first.id)[1].error == EEXIST
    stage.end(first)


def test_a_package_that_is_not_there_fails_its_launch(stage: Played) -> None:
    stage.put(8, plan("0" * 64))
    failed = stage.dispatch.expect(wire.LaunchFailed, stage.ask(8))[1]
    assert (failed.error, failed.step) == (ENOENT, "package")
    (stage.state_dir / "packages" / "sha256" / ("1" * 64)).symlink_to("/etc")
    stage.put(9, plan("1" * 64))
    failed = stage.dispatch.expect(wire.LaunchFailed, stage.ask(9))[1]
    assert failed.step == "package"


def test_the_pid_file_lies_where_only_root_writes() -> None:
    with played() as stage:
        file = stage.run_dir.with_name("run.pid")
        pid = int(file.read_text())
        assert Path(f"/proc/{pid}/comm").read_text().startswith("runtimed-launch")
        assert list(stage.run_dir.glob("*.pid")) == []
    assert not file.exists()


def test_nothing_is_launched_when_the_disk_is_nearly_full() -> None:
    with played(disk_reserve_mb=1 << 31) as stage:
        stage.put(1, plan(stage.deploy(ECHO)))
        failed = stage.dispatch.expect(wire.LaunchFailed, stage.ask(1))[1]
        assert (failed.error, failed.retryable, failed.step) == (ENOSPC, 0, "disk")
        assert "make room" in failed.reason


def test_ending_what_is_not_there_is_no_error(stage: Played) -> None:
    stage.dispatch.send(wire.End(reason=0), 999_999)
    stage.end(stage.launch(1))


# ---- tables -----------------------------------------------------------------------------------------------------


def test_plans_not_put_again_are_retired(own_stage: Played) -> None:
    stage = own_stage
    stage.put(2, plan(stage.deploy(ECHO)))
    kept = stage.launch(2)
    kept.start()
    assert stage.control.request(wire.SyncBegin()) is None
    assert stage.control.request(wire.PutRuntime(name="python3"), 0) is None
    stage.put(1, plan(stage.deploy(ECHO)))
    assert stage.control.request(wire.SyncEnd()) is None
    assert stage.dispatch.expect(wire.LaunchFailed, stage.ask(2))[1].error == ENOENT
    assert kept.invoke("still here") == "still here"
    stage.end(kept)
    stage.end(stage.launch(1))


def test_an_older_generation_changes_nothing(own_stage: Played) -> None:
    stage = own_stage
    assert stage.control.request(plan(stage.deploy(ECHO), max=0), 1, generation=5) is None
    assert stage.dispatch.expect(wire.LaunchFailed, stage.ask(1))[1].error == EDQUOT
    assert stage.control.request(plan(stage.deploy(ECHO), max=9), 1, generation=4) is None
    assert stage.control.request(wire.DelPlan(), 1, generation=4) is None
    assert stage.dispatch.expect(wire.LaunchFailed, stage.ask(1))[1].error == EDQUOT
    assert stage.control.request(wire.DelPlan(), 1, generation=6) is None
    assert stage.dispatch.expect(wire.LaunchFailed, stage.ask(1))[1].error == ENOENT


def test_a_runtime_that_cannot_start_is_told(own_stage: Played) -> None:
    stage = own_stage
    assert stage.control.request(wire.PutRuntime(name="python3.0"), 1) is None
    assert stage.control.request(plan(stage.deploy(ECHO), runtime="python3.0"), 2) is None
    state = stage.control.expect(wire.PlanState, 2, lambda state: state.state == wire.Progress.FAILED)[1]
    assert "exec" in state.reason
    assert stage.control.expect(wire.RuntimeState, 1, lambda state: state.state == wire.Progress.FAILED)
    failed = stage.dispatch.expect(wire.LaunchFailed, stage.ask(2))[1]
    assert (failed.retryable, failed.step) == (1, "wait")
    stage.end(stage.launch(1))


def test_the_cgroups_of_what_ended_are_removed(stage: Played) -> None:
    for _ in range(30):
        stage.end(stage.launch(1))
    wait_until(
        lambda: max(map(len, cgroups(stage).values())) <= 16 + 2 + 2,
        "only stock, two seats, the zygotes' own and the dispatcher's are left",
    )
